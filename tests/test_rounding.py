"""What rounding does: the table by hand-computed cases, what is refused, and a tiny study in both numerical modes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, patch_root, stage_in

from rdlib import __main__ as command
from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.evidence import gallery, result_tables, rounding
from rdlib.study import results, trials
from rdlib.study import rounding as study_rounding

METHODS = study_rounding.METHODS


# ---- the table, by hand


def answers(method: str, seed: int, correct: str, benchmark: str = "gsm") -> pd.DataFrame:
    """Answers of one method and seed in the cell strong/small, "1" a right one."""
    axes = {"benchmark": benchmark, "teacher": "strong", "student": "small", "method": method, "seed": seed}
    rows = [axes | {"id": f"{benchmark}-{i}", "correct": mark == "1"} for i, mark in enumerate(correct)]
    return pd.DataFrame(rows)


@pytest.fixture
def by_seed() -> pd.DataFrame:
    """Two seeds of ten answers: SFT moves by +10 and -10 points, Ours by 0 and +20, with changes both ways."""
    portable = [answers("ours", 0, "1111100000"), answers("ours", 1, "1111110000")]
    portable += [answers("sft", 0, "1110000000"), answers("sft", 1, "1111100000"), answers("teacher", 0, "1111111111")]
    native = [answers("ours", 0, "0111100001"), answers("ours", 1, "1111111100")]
    native += [answers("sft", 0, "1111000000"), answers("sft", 1, "1111000000")]
    return rounding.pairs(pd.concat(portable), pd.concat(native))


def test_accuracies_of_each_seed_in_both_modes(by_seed):
    assert by_seed[["method", "seed"]].values.tolist() == [["sft", 0], ["sft", 1], ["ours", 0], ["ours", 1]]
    assert by_seed["portable_pct"].tolist() == pytest.approx([30, 50, 50, 60])
    assert by_seed["native_pct"].tolist() == pytest.approx([40, 40, 50, 80])
    assert by_seed["changed"].tolist() == [1, 1, 2, 2] and (by_seed["questions"] == 10).all()


def test_the_modes_differ_by_this_much_beside_the_seeds(by_seed):
    sft, ours = rounding.spread_table(by_seed).to_dict("records")
    assert (sft["rms_difference_pp"], sft["rounding_sd_pp"]) == pytest.approx((10, 50**0.5))
    assert (ours["rms_difference_pp"], ours["rounding_sd_pp"]) == pytest.approx((200**0.5, 10))
    assert (sft["seeds_sd_pp"], ours["seeds_sd_pp"]) == pytest.approx((200**0.5, 50**0.5))
    assert (ours["answers"], ours["changed"], ours["changed_pct"]) == (20, 4, 20)
    assert (sft["seeds"], sft["portable_pct"], sft["native_pct"]) == (2, 40, 40)


def test_two_independent_roundings_have_the_deviation_that_is_told():
    """Errors of 2 points in both modes: their difference has 2.8, and the table tells 2."""
    rng = np.random.default_rng(0)
    rows = [
        {"benchmark": "gsm", "teacher": "strong", "student": "small", "method": "ours", "seed": seed}
        | {"questions": 100, "changed": 5, "portable_pct": rng.normal(70, 2), "native_pct": rng.normal(70, 2)}
        for seed in range(4000)
    ]
    (row,) = rounding.spread_table(pd.DataFrame(rows)).to_dict("records")
    assert row["rounding_sd_pp"] == pytest.approx(2, abs=0.1) and row["seeds_sd_pp"] == pytest.approx(2, abs=0.1)


def stages(method: str, seed: int, same: str) -> list[dict]:
    """Rows of the stages 00_a, 01_a, ... behind a model, "=" for one whose content is the same."""
    axes = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": method, "seed": seed}
    return [axes | {"stage": f"0{i}_a", "same": mark == "="} for i, mark in enumerate(same)]


def test_the_first_stage_that_differs_is_found_for_each_model():
    rows = stages("ours", 0, "=xx") + stages("ours", 1, "==x") + stages("sft", 0, "===") + stages("sft", 1, "=x=")
    found = rounding.first_differing(pd.DataFrame(rows)).set_index(["method", "seed"])["first"]
    assert found.to_dict() == {("ours", 0): "01_a", ("ours", 1): "02_a", ("sft", 0): "", ("sft", 1): "01_a"}


def test_the_answer_in_words(by_seed):
    rows = stages("ours", 0, "=x") + stages("ours", 1, "=x") + stages("sft", 0, "==") + stages("sft", 1, "=x")
    text = rounding.plain_answer(by_seed, rounding.first_differing(pd.DataFrame(rows)))
    assert "in SFT, Ours w/o R" not in text and "in SFT, Ours the same seed differs" in text
    assert "by 10.0, 14.1 percentage points (root mean square over 2 seeds" in text
    assert "a standard deviation of 7.1, 10.0 from rounding alone; between seeds it is 14.1, 7.1." in text
    assert "Of 4 models, bytes first differ in `01_a` behind 3, nowhere behind 1. 6 of 40 answers (15.0 %)" in text
    assert "less than 24.5 points (twice the root mean square)" in text  # 2 sqrt((100 + 100 + 0 + 400) / 4)


def test_one_seed_has_no_spread_between_seeds(by_seed):
    alone = by_seed[by_seed["seed"] == 0]
    text = rounding.plain_answer(alone, rounding.first_differing(pd.DataFrame(stages("ours", 0, "=x"))))
    assert "over 1 seed, cells" in text and "between seeds it is" not in text and "nan" not in text
    rounding.draw(alone)


def test_an_answer_without_a_counterpart_is_told():
    with pytest.raises(UserError, match="of 3 answers 1 are to none of the questions"):
        rounding.pairs(answers("sft", 0, "11"), answers("sft", 0, "111"))


def test_the_figure_joins_the_two_accuracies_of_a_seed(by_seed):
    (ax,) = rounding.draw(by_seed).axes
    joined = [
        line.get_ydata().tolist() for line in ax.lines if line.get_linestyle() == "-" and len(line.get_ydata()) == 2
    ]
    assert [30, 40] in joined and [50, 40] in joined and [50, 50] in joined and [60, 80] in joined
    assert [text.get_text() for text in ax.get_xticklabels()] == ["SFT", "Ours"]


# ---- what is refused


@pytest.fixture
def native(monkeypatch):
    """The environment of `make rounding`."""
    for name in numerics.MODE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(numerics.SWITCH, numerics.NATIVE)
    return monkeypatch


def test_the_portable_mode_is_refused(native):
    study_rounding.require_native()
    native.setenv("OMP_NUM_THREADS", "1")  # threads are no matter of the mode alone
    study_rounding.require_native()
    native.setenv("MKL_CBWR", "COMPATIBLE")
    with pytest.raises(UserError, match="has MKL_CBWR=COMPATIBLE, a part of the portable mode"):
        study_rounding.require_native()
    native.delenv("MKL_CBWR")
    for set_it in (lambda: native.delenv(numerics.SWITCH), lambda: native.setenv(numerics.SWITCH, numerics.PORTABLE)):
        set_it()
        with pytest.raises(UserError, match="set RDLIB_NUMERICS=native, as `make rounding` does"):
            command.run("rounding", ["--seeds", "0"])


PROFILE = "rounding.yaml"


@pytest.fixture
def root(study, tmp_path, monkeypatch, native) -> Path:
    """A repository with a released seed of the tiny study, and its profile once more under native numerics."""
    copy_study(study, tmp_path)
    patch_root(monkeypatch, tmp_path)
    monkeypatch.setattr(study_rounding, "ROOT", tmp_path)
    (tmp_path / PROFILE).write_text(yaml.safe_dump({"base": PARAMS, "name": "rounding", "numerics": "native"}))
    release(tmp_path)
    return tmp_path


def release(root: Path) -> Path:
    """Release the tiny study's evaluations of METHODS as seed 0; returns the folder."""
    found = [stage_in(root, "07_evaluate", method) for method in METHODS]
    folder = root / "released" / "seed0"
    table = pd.concat([results.graded(one).assign(**one.columns) for one in found])
    artifacts.write_parquet(folder / "correctness.parquet", table.drop(columns="dataset"))
    made = results.provenance(trials.behind(found), PARAMS, 0)
    artifacts.write_json(folder / "provenance.json", made | {"numerics": [numerics.PORTABLE]})
    artifacts.write_json(folder / "settings.json", found[0].profile.model_dump())
    return folder


def change_provenance(folder: Path, **changes) -> None:
    record = json.loads((folder / "provenance.json").read_text())
    artifacts.write_json(folder / "provenance.json", record | changes)


def run(*arguments: str) -> None:
    command.run("rounding", ["--profile", PROFILE, "--released", "released", "--jobs", "1", *arguments])


def test_what_would_differ_by_more_than_rounding_is_refused(root, monkeypatch):
    monkeypatch.setattr(study_rounding.trials, "run", lambda *a: pytest.fail("it started something"))
    folder = root / "released" / "seed0"
    with pytest.raises(UserError, match="no released seed .*seed3: release it first"):
        run("--seeds", "3")
    change_provenance(folder, numerics=[numerics.NATIVE, numerics.PORTABLE])
    with pytest.raises(UserError, match="was not computed in the portable mode alone"):
        run("--seeds", "0")
    release(root)
    profile = yaml.safe_load((root / PROFILE).read_text())
    (root / PROFILE).write_text(yaml.safe_dump(profile | {"sft": {"learning_rate": 0.5}}))
    with pytest.raises(UserError, match=r"has gsm/strong/small/sft/seed0/03_sft_warmup of other settings or code"):
        run("--seeds", "0")
    (root / PROFILE).write_text(yaml.safe_dump(profile))
    record = json.loads((folder / "provenance.json").read_text())
    contents = {label: content for label, content in record["contents"].items() if "06_ppo" not in label}
    change_provenance(folder, contents=contents)
    with pytest.raises(UserError, match=r"has no stage gsm/strong/small/ours/seed0/06_ppo"):
        run("--seeds", "0")
    change_provenance(folder, contents={})
    with pytest.raises(UserError, match="does not tell the content of its stages"):
        run("--seeds", "0")


def made_elsewhere(root: Path, mode: str) -> None:
    """The tiny study's stages as if a run of the rounding profile had made them in a numerical mode."""
    shutil.copytree(root / "runs/tiny", root / "runs/rounding")
    for path in (root / "runs/rounding").rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["environment"]["numerics"] = mode
        path.write_text(json.dumps(manifest))


def test_stages_made_in_the_portable_mode_are_refused(root, monkeypatch):
    made_elsewhere(root, numerics.PORTABLE)
    monkeypatch.setattr(study_rounding.trials, "run", lambda *a: pytest.fail("it started something"))
    with pytest.raises(UserError, match="rounding/gsm/.* was made in the portable mode: remove it"):
        run("--seeds", "0")


# ---- what comes out


def test_equal_contents_are_told_and_the_exhibits_are_shown(root):
    made_elsewhere(root, numerics.NATIVE)
    before = result_tables.open_results(root / "released")
    assert not gallery.EXHIBITS["rounding"].is_shown(before)
    with pytest.raises(UserError, match="run `make rounding`"):
        gallery.draw(gallery.EXHIBITS["rounding"], before, root / "out")
    run("--seeds", "0")
    evidence = result_tables.open_results(root / "released")
    assert gallery.EXHIBITS["figure_rounding"].is_shown(evidence)
    assert evidence.rounding_stages["same"].all()
    assert set(evidence.rounding["method"]) == set(METHODS) and (evidence.rounding["dataset"] == "gsm").all()
    for name in ("rounding", "figure_rounding"):
        gallery.draw(gallery.EXHIBITS[name], evidence, root / "out")
    drawn = pd.read_csv(root / "out" / "figure_rounding.csv")
    assert drawn["portable_pct"].equals(drawn["native_pct"]) and (drawn["changed"] == 0).all()
    text = (root / "out" / "rounding.md").read_text()
    assert "\n\nAnswer: in SFT, Ours w/o R, Ours the same seed differs between the modes by 0.0, 0.0, 0.0" in text
    assert "bytes first differ nowhere behind 3" in text and "| gsm | strong | small | sft | 1 |" in text


@pytest.mark.slow
def test_a_tiny_study_under_torchs_own_numerics(root):
    """In a process of its own, since the mode is settled before torch is loaded; a second call finds all done."""
    shutil.copytree(REPOSITORY / "rdlib", root / "rdlib", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(root), numerics.SWITCH: numerics.NATIVE}  # without MODE: `native`
    command = [sys.executable, "-m", "rdlib", "rounding", "--profile", PROFILE, "--released", "released"]
    command += ["--seeds", "0", "--jobs", "1"]
    for _ in range(2):
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    evaluated = [stage_in(root, "07_evaluate", method) for method in METHODS]
    natively = study_rounding.evaluations(PROFILE, 0)
    found = pd.read_csv(root / "released/seed0/rounding_stages.csv").set_index(["method", "stage"])["same"]
    for ours, theirs in zip(evaluated, natively, strict=True):
        for one, other in zip(trials.behind([ours]), trials.behind([theirs]), strict=True):
            assert found[ours.method, one.name] == (one.content == other.content), one.label
        table = artifacts.read_parquet(root / "released/seed0/rounding.parquet").query("method == @ours.method")
        assert table["correct"].tolist() == results.graded(theirs)["correct"].tolist()
    assert found.xs("00_data", level="stage").all() and "already there" in done.stdout
    record = json.loads((root / "released/seed0/rounding_provenance.json").read_text())
    assert record["numerics"] == [numerics.NATIVE] and record["command"].startswith("RDLIB_NUMERICS=native ")
    assert record["environment"]["processor"] and record["environment"]["torch_kernels"] and len(record["commits"]) == 1
