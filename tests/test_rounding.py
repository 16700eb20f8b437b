"""What rounding does: what is refused, and a tiny study in both numerical modes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, patch_root, stage_in

from rdlib import __main__ as command
from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.evidence import gallery, result_tables
from rdlib.study import results, trials
from rdlib.study import rounding as study_rounding

METHODS = study_rounding.METHODS


# ---- what is refused


@pytest.fixture
def native(monkeypatch):
    """The environment of `make study EXPERIMENT=rounding`."""
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
        with pytest.raises(UserError, match="set RDLIB_NUMERICS=native, as `make study EXPERIMENT=rounding` does"):
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
    with pytest.raises(UserError, match="run `make study EXPERIMENT=rounding`"):
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
    assert "| gsm | strong | small | sft | 1 |" in (root / "out" / "rounding.md").read_text()


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
