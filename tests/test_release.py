"""The seeds of a run take the place of the released ones; those of other settings go, and what is amiss is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.study import release


def write_seed(results: Path, seed: int, name: str = "reference", made: str = "a", **record) -> Path:
    """A seed's folder as `make release` looks at it."""
    folder = results / f"seed{seed}"
    found = {"commits": [made * 40], "dirty": False} | record
    artifacts.write_json(folder / "settings.json", {"name": name, "grid": {"seeds": [0, 1]}})
    for part in ("provenance.json", "question_provenance.json"):
        artifacts.write_json(folder / part, found)
    return folder


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A run of the seeds 0 and 1, and a release of 0, 1 and 4 that was made with other settings."""
    run, released = tmp_path / "run", tmp_path / "released"
    for seed in (0, 1):
        write_seed(run, seed)
    for seed in (0, 1, 4):
        artifacts.write_json(write_seed(released, seed, "micro", "b") / "old.json", {})
    return run, released


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_release_of_other_settings_is_replaced_whole(folders):
    run, released = folders
    told = release.release(run, released)
    assert names(released) == ["seed0", "seed1"] and names(released / "seed0") == names(run / "seed0")
    assert told == [
        f"Released from {run}: seed0 and seed1.",
        f"Removed from {released}, as made with other settings: seed4.",
    ]
    assert release.release(run, released) == told[:1]


def test_seeds_of_the_same_settings_stay_beside_the_new_ones(folders):
    run, released = folders
    release.release(run, released)
    write_seed(released, 3)
    assert len(release.release(run, released)) == 1 and names(released) == ["seed0", "seed1", "seed3"]


def test_what_rounding_did_stays_as_long_as_the_seed_is_the_same_run(folders):
    run, released = folders
    release.release(run, released)
    for seed in (0, 1):
        artifacts.write_json(released / f"seed{seed}" / "rounding_provenance.json", {})
        (released / f"seed{seed}" / "rounding.parquet").write_bytes(b"rounded")
        (released / f"seed{seed}" / "made_again.csv").write_bytes(b"again")
    write_seed(run, 1, made="c")
    release.release(run, released)
    beside = {"rounding_provenance.json", "rounding.parquet", "made_again.csv"}
    assert beside <= set(names(released / "seed0")) and not beside & set(names(released / "seed1"))
    (run / "seed0" / "made_again.csv").write_bytes(b"newer")
    release.release(run, released)
    assert (released / "seed0" / "made_again.csv").read_bytes() == b"newer"


def test_what_keeps_the_seeds_from_being_of_one_clean_commit_is_said(folders):
    run, released = folders
    write_seed(run, 1, made="c", dirty=True)
    (run / "seed1" / "question_provenance.json").unlink()
    told = release.release(run, released)[2:]
    assert len(told) == 3
    assert "not of one commit (seed0: aaaaaaaaaaaa; seed1: cccccccccccc)" in told[0]
    assert told[1].startswith("Made with uncommitted changes: seed1.")
    assert told[2].startswith("Without the reviewers' questions: seed1.")


def test_what_was_made_again_may_have_a_commit_of_its_own_the_same_in_all_seeds(folders):
    run, released = folders
    old, new = "a" * 40, "d" * 40
    remade = [{"commits": [new], "stages": []}]
    for seed in (0, 1):
        answered = run / f"seed{seed}" / "question_provenance.json"
        artifacts.write_json(answered, {"commits": [old, new], "dirty": False, "remade": remade})
    assert len(release.release(run, released)) == 2
    write_seed(run, 1)
    assert "made again since is not of one commit (seed0: dddddddddddd; seed1: )" in release.release(run, released)[1]


def test_a_run_that_cannot_be_released_leaves_the_release_as_it_is(folders, tmp_path, capsys):
    run, released = folders
    assert main(["release", str(tmp_path / "none"), str(released)]) == 2
    assert "run `make study PROFILE=params/reference.yaml` first" in capsys.readouterr().err
    write_seed(run, 1, "other")
    with pytest.raises(UserError, match="seed1 was made with other settings than .*seed0"):
        release.release(run, released)
    assert names(released) == ["seed0", "seed1", "seed4"] and (released / "seed0/old.json").is_file()
