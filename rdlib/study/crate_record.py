"""The contents of a crate: records of a run's folder or of released results (`rdlib.study.crate` writes it).

    read(Path("runs/micro"))        # a run: result tables, figures and the manifest of every stage
    read(Path("figures/results"))   # released seeds: result tables and their provenance, without the stages' folders

An unfinished run is refused, since an archive is permanent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import PROVENANCE, every_seed, read_record, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile

DRAWN = (".csv", ".md", ".pdf", ".png")  # the files of an exhibit


@dataclass(frozen=True)
class Made:
    """A stage that ran: its label, the hash of its content, the number of its environment.

    `manifest` is that of its folder; a released stage has none, and so no inputs, files and times.
    """

    label: str
    content: str
    environment: str
    manifest: dict[str, Any] | None

    @property
    def seed(self) -> int:
        """The stage's seed, which its label names last but one."""
        return int(self.label.split("/")[-2].removeprefix("seed"))

    @property
    def name(self) -> str:
        """The stage's name without its cell and its overrides."""
        return self.label.rpartition("/")[2].partition("@")[0]


@dataclass(frozen=True)
class Record:
    """Folders of result tables with their provenance, and the stages by label; paths are relative to `folder`."""

    folder: Path
    seeds: dict[Path, dict[str, Any]]
    stages: dict[str, Made]
    exhibits: list[Path]

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        """What made the stages, by number."""
        return {number: one for record in self.seeds.values() for number, one in record["environments"].items()}

    @property
    def tables(self) -> dict[Path, list[Path]]:
        """The files of each seed."""
        return {folder: sorted(path for path in folder.iterdir() if path.is_file()) for folder in self.seeds}

    def path_of(self, made: Made) -> Path:
        """The folder of a stage of a run."""
        return self.folder / made.label.partition("/")[2]


def read(source: Path) -> Record:
    """The record of a run's folder, of released results, of figures with such, or of a single seed.

    UserError for a folder without results, or for a run that is not finished: what is missing, and what finishes it.
    """
    if not source.is_dir():
        raise UserError(f"There is no folder {source}: give a run such as runs/micro, or released results.")
    results = source / "results" if (source / "results").is_dir() else source
    folders = [source] if (source / PROVENANCE).is_file() else every_seed(results)
    seeds = {folder: read_record(folder) for folder in folders if (folder / PROVENANCE).is_file()}
    is_run = _is_run(source, seeds)
    if is_run:
        _require_whole(source, {seed_of(folder) for folder in seeds})
    if not seeds:
        raise UserError(f"{source} holds no results: give the folder of a finished run, or released results.")
    for folder, record in seeds.items():
        _require_every_run(folder, record)
    found = [made for record in seeds.values() for made in _made(record, source if is_run else None)]
    drawn = source / "figures" if is_run else source if results != source else None
    return Record(source, seeds, {made.label: made for made in found}, _exhibits(drawn))


def _is_run(source: Path, seeds: dict[Path, dict[str, Any]]) -> bool:
    """Whether a folder has the stages too: its name is that of the profile, with which their labels begin."""
    labels = (label for record in seeds.values() for one in record["experiments"].values() for label in one["stages"])
    return bool(any(label.startswith(f"{source.name}/") for label in labels) if seeds else _stages_in(source))


def _exhibits(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in DRAWN and path.is_file())


def _made(record: dict[str, Any], run: Path | None) -> Iterator[Made]:
    """The stages of a seed's experiments, each once; UserError where a run's folder lacks one of them."""
    found = {}
    for one in record["experiments"].values():
        for label, stage in one["stages"].items():
            found.setdefault(label, (stage, one["command"]))
    for label, (stage, command) in found.items():
        manifest = run and _manifest(run.parent / label, stage["content"], command)
        yield Made(label, stage["content"], stage["made"], manifest)


def _manifest(folder: Path, content: str, command: str) -> dict[str, Any]:
    """The manifest of a stage that result tables were gathered from; UserError where it is another's or gone."""
    manifest = artifacts.read_manifest(folder)
    if manifest is None or artifacts.content_hash(manifest["files"]) != content:
        what = "is gone" if manifest is None else "was recomputed after the result tables were gathered"
        raise UserError(f"The run is not finished: {folder} {what}. Finish it by `{command}`.")
    return manifest


# ---- is it finished?


def _require_every_run(folder: Path, record: dict[str, Any]) -> None:
    """UserError where result tables were gathered before every run of an experiment was finished."""
    for name, one in record["experiments"].items():
        if missing := one.get("missing", 0):
            raise UserError(
                f"{folder} is not finished: {missing} runs of the experiment {name} are missing. Finish it by "
                f"`{one['command']}`."
            )


def _require_whole(run: Path, gathered: Iterable[int]) -> None:
    """UserError where a run has a stage that was begun and not ended, or seeds without result tables."""
    if begun := sorted(run.rglob("*.partial")):
        left = begun[0].relative_to(run).as_posix().removesuffix(".partial")
        raise UserError(
            f"{run} is not finished: {left} was begun and has not ended ({len(begun)} such stages). Finish it by "
            f"`{_command(run, _seed_of(left))}`, or delete its folder, which ends in .partial."
        )
    seeds = {_seed_of(label): label for label in _stages_in(run)}
    if left := sorted(set(seeds) - set(gathered)):
        raise UserError(
            f"{run} is not finished: seed {left[0]} has stages and no result tables. Finish it by "
            f"`{_command(run, left[0])}`."
        )


def _stages_in(run: Path) -> list[str]:
    """The finished stages of a run's folder, by path."""
    found = (path.parent.relative_to(run) for path in run.rglob(artifacts.MANIFEST))
    return [path.as_posix() for path in found if len(path.parts) > 1 and path.parts[-2].startswith("seed")]


def _seed_of(label: str) -> int:
    name = label.split("/")[-2] if "/" in label else ""
    return int(name[4:]) if name.startswith("seed") and name[4:].isdecimal() else 0


def _command(run: Path, seed: int) -> str:
    """The command that finishes a run, by the profile that has its name."""
    profiles = [path for path in sorted((ROOT / "params").glob("*.yaml")) if _name_of(path) == run.name]
    profile = profiles[0].relative_to(ROOT) if profiles else "<its profile>"
    return f"make study PROFILE={profile} SEEDS={seed}"


def _name_of(path: Path) -> str | None:
    try:
        return load_profile(path).name
    except UserError:  # a file of experiments, or a profile that has become invalid
        return None
