"""Releasing: experiments take the place of their released rows, others stay while they fit, and caveats are said.

The released seeds are of one commit, and the present code still makes the released bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import long_tables
import pandas as pd
import pytest

from rdlib import artifacts, numerics
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence.result_tables import RERUNS, open_results, origin, read_record, seed_folders
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import publish, release, results, verify
from rdlib.study.jobs import FIGURES, QUESTIONS
from rdlib.study.stage import Stage

SETTINGS = load_profile(ROOT / "params/micro.yaml").model_dump()
AXES = {"benchmark": "gsm", "teacher": "strong", "student": "small", "variant": "", "group": ""}


def answers(right: str, method: str = "ours", **more) -> pd.DataFrame:
    rows = [AXES | more | {"method": method, "id": f"q{i}", "correct": one == "1"} for i, one in enumerate(right)]
    return pd.DataFrame(rows)


def write_seed(folder: Path, seed: int, right: str = "1100", commit: str = "a", question: str = "", **settings) -> Path:
    """Results of the main grid, and of R1 where its answers are given."""
    short = {"correctness": answers(right)}
    if question:
        short["reviewers"] = answers(question, question="R1", arm="Ours", cell="gsm/strong/small", reference=True)
    path = long_tables.write(folder / f"seed{seed}", seed, commit * 40, **short)
    artifacts.write_json(path / "settings.json", SETTINGS | settings)
    return path


def change_record(folder: Path, change) -> None:
    """Change the record of a seed in place."""
    record = read_record(folder)
    change(record)
    artifacts.write_json(folder / "provenance.json", record)


def set_content(folder: Path, experiment: str, content: str, label: str | None = None) -> None:
    """Have the stages of an experiment another content, under one label where one is given."""

    def change(record) -> None:
        """Give every stage the content."""
        stages = record["experiments"][experiment]["stages"]
        changed = {label or name: one | {"content": content} for name, one in stages.items()}
        record["experiments"][experiment]["stages"] = changed

    change_record(folder, change)


def keep(*names: str):
    """A change of a record: these experiments alone."""
    return lambda record: record.update(experiments={name: record["experiments"][name] for name in names})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of seeds 0 and 1, and a release of 0, 1 and 4 that was made with other settings."""
    folder = tmp_path_factory.mktemp("made")
    run, released = folder / "run", folder / "released"
    for seed in (0, 1):
        write_seed(run, seed, question="1110")
    for seed in (0, 1, 4):
        write_seed(released, seed, name="other")
    return folder


@pytest.fixture
def folders(made, tmp_path) -> tuple[Path, Path]:
    """A copy of the run and of the release."""
    for name in ("run", "released"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "run", tmp_path / "released"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_release_of_other_settings_is_replaced_whole(folders):
    run, released = folders
    said = release.release(run, released)
    assert names(released) == ["seed0", "seed1"] and names(released / "seed0") == names(run / "seed0")
    assert said == [
        f"Released from {run}: seed0 and seed1.",
        f"Removed from {released}, as made with other settings: seed4.",
    ]
    assert release.release(run, released) == said[:1]


def test_seeds_of_the_same_settings_stay_beside_the_new_ones(folders):
    run, released = folders
    release.release(run, released)
    write_seed(released, 3, question="1110")
    assert len(release.release(run, released)) == 1 and names(released) == ["seed0", "seed1", "seed3"]


def test_an_experiment_is_replaced_or_added_alone(folders, tmp_path):
    run, released = folders
    release.release(run, released)
    again = tmp_path / "again"
    for seed in (0, 1):
        reruns = answers("0001", question="R1", arm="Ours", cell="gsm/strong/small", reference=True)
        own = answers("1111", question="mine:two", arm="a", cell="gsm/strong/small", reference=False)
        folder = long_tables.write(again / f"seed{seed}", seed, "a" * 40, reviewers=pd.concat([reruns, own]))
        artifacts.write_json(folder / "settings.json", SETTINGS)
        change_record(folder, keep("R1", "mine:two"))
    assert release.release(again, released)[1:] == []
    found = open_results(released)
    assert found.reviewers["correct"].tolist() == [False, False, False, True] * 2
    assert found.correctness["correct"].tolist() == [True, True, False, False] * 2
    own = found.rows("answers", "mine:two")
    assert own["correct"].all() and set(own["seed"]) == {0, 1}


def test_an_experiment_that_fits_no_more_keeps_the_release_as_it_is(folders, tmp_path):
    """R1 was released with a stage that the new main grid made differently, and the new run has no R1."""
    run, released = folders
    release.release(run, released)
    (label,) = list(read_record(released / "seed0")["experiments"]["R1"]["stages"])[:1]
    set_content(released / "seed0", "R1", "old", label)
    newer = tmp_path / "newer"
    write_seed(newer, 0, "0000")
    set_content(newer / "seed0", "main", "new", label)
    before = (released / "seed0/answers.parquet").read_bytes()
    with pytest.raises(UserError, match="stays as it is: stages of R1 came out other than released.* --replace"):
        release.release(newer, released)
    assert (released / "seed0/answers.parquet").read_bytes() == before
    release.release(newer, released, replace=True)
    assert "R1" not in read_record(released / "seed0")["experiments"]
    assert not open_results(released, [0]).correctness["correct"].any()


def test_counts_of_other_processors_stay_as_long_as_the_seed_is_the_same(folders):
    run, released = folders
    release.release(run, released)
    for seed in (0, 1):
        (released / f"seed{seed}" / RERUNS).write_bytes(b"again")
    set_content(run / "seed1", "main", "changed")
    set_content(run / "seed1", "R1", "changed")
    release.release(run, released)
    assert (released / "seed0" / RERUNS).is_file() and not (released / "seed1" / RERUNS).is_file()
    (run / "seed0" / RERUNS).write_bytes(b"newer")
    release.release(run, released)
    assert (released / "seed0" / RERUNS).read_bytes() == b"newer"


def test_what_keeps_the_seeds_from_being_whole_and_of_one_clean_commit_is_said(folders):
    run, released = folders
    write_seed(run, 1, commit="c")
    change_record(run / "seed1", keep("main"))
    change_record(run / "seed1", lambda record: record["experiments"]["main"].update(missing=2))
    change_record(run / "seed1", lambda record: [one.update(dirty=True) for one in record["environments"].values()])
    said = release.release(run, released)[1:]
    mixed = "The released seeds of main are not of one commit (seed0: aaaaaaaaaaaa; seed1: cccccccccccc)"
    assert any(one.startswith(mixed) for one in said)
    assert "Some runs of main are missing in seed1." in said and "R1 is not released for seed1." in said
    assert said[-1].startswith("Made with uncommitted changes: seed1.")


def test_a_run_that_cannot_be_released_leaves_the_release_as_it_is(folders, tmp_path, capsys):
    run, released = folders
    assert main(["release", str(tmp_path / "none"), str(released)]) == 2
    assert "run and collect the study first" in capsys.readouterr().err
    write_seed(run, 1, name="third")
    with pytest.raises(UserError, match="seed1 was made with other settings than .*seed0"):
        release.release(run, released)
    assert names(released) == ["seed0", "seed1", "seed4"]


def test_a_rerun_in_another_mode_joins_the_seed_whose_settings_it_has(folders, tmp_path):
    """Settings but for name and numerics are those of the seed; of other ones it is refused."""
    run, released = folders
    release.release(run, released)
    again = tmp_path / "native"
    folder = long_tables.write(again / "seed0", 0, reviewers=answers("1010", question="same_rate", arm="SFT"))
    artifacts.write_json(folder / "settings.json", SETTINGS | {"name": "again", "reward": {"mismatch": "none"}})
    with pytest.raises(UserError, match="no released seed with the settings of"):
        release.release(again, released)
    artifacts.write_json(folder / "settings.json", SETTINGS | {"name": "again"})
    release.release(again, released)
    found = open_results(released)
    assert found.settings["name"] == "micro" and found.rows("answers", "same_rate")["correct"].tolist() == [1, 0, 1, 0]
    assert len(found.correctness) == 8
    assert results.read(released / "seed1").experiments.keys() >= {"main", "R1"}


def test_an_experiment_joins_a_seed_that_has_a_rerun_in_another_mode(folders, tmp_path):
    """The rerun's stages repeat those of the main grid with a content of their own, which makes nothing outdated."""
    run, released = folders
    release.release(run, released)

    def rerun(record) -> None:
        """Add the main grid's stages again, as another profile makes them."""
        main_grid = record["experiments"]["main"]
        stages = {f"native/{results.unnamed(k)}": v | {"content": "native"} for k, v in main_grid["stages"].items()}
        record["experiments"]["rounding"] = main_grid | {"profile": "params/rounding.yaml", "stages": stages}

    change_record(released / "seed0", rerun)
    newer = tmp_path / "newer"
    change_record(write_seed(newer, 0, question="1111"), keep("R1"))
    release.release(newer, released)
    assert results.read(released / "seed0").experiments.keys() == {"main", "R1", "rounding"}
    (label,) = list(read_record(released / "seed0")["experiments"]["main"]["stages"])[:1]
    set_content(newer / "seed0", "R1", "changed", label)
    with pytest.raises(UserError, match="stages of main and rounding came out other than released"):
        release.release(newer, released)


# ---- what is released

RELEASED = ROOT / "figures" / "results"
FOLDERS = seed_folders(RELEASED)


def test_all_seeds_are_of_one_commit_in_the_portable_mode():
    own = [name for name in read_record(FOLDERS[0])["experiments"] if name not in ("rounding", "same_rate")]
    for folder in FOLDERS:
        made = origin(folder, *own)
        assert made["numerics"] == [numerics.PORTABLE] and not made["dirty"]
    known = ("same_rate", "controls is not released for")  # made while its command was written; seeds still to be run
    assert not [one for one in release.caveats(RELEASED) if not any(words in one for words in known)]


def test_the_executed_notebooks_show_a_released_seed():
    record = read_record(FOLDERS[0])
    jobs = publish.cell_jobs(record["profile"], record["seed"])
    kept = publish.of_release(RELEASED.parent / "notebooks", record["profile"], FOLDERS)
    assert set(kept) == {job.notebook for job in jobs} | {FIGURES, QUESTIONS}


@pytest.mark.slow
def test_the_present_code_makes_the_released_bytes(tmp_path):
    if problem := numerics.caveat():
        pytest.skip(f"other bytes are expected here: {problem}")
    for name in ("params", "models"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    record = read_record(FOLDERS[0])
    axes = {"student": "small", "method": "icl", "seed": record["seed"], "root": tmp_path}
    stage = Stage("07_evaluate", record["profile"], "mmlu", **axes).run_with_inputs()
    contents = {label: one["content"] for label, one in verify.released_stages(FOLDERS[0]).items()}
    for one in (*stage.upstream(), stage):
        assert one.content == contents[one.label], one.label
