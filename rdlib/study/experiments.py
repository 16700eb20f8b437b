"""Experiments: every run of the study as a declaration, cells x arms x seeds, in params/experiments.yaml.

    known = load("params/experiments.yaml")           # {"main": Experiment(...), "lambda": ..., "R1": ...}
    found = runs(known["R1"], "params/micro.yaml", [0])    # [Run(arm="SFT", cell="gsm/strong/small", stage=...), ...]
    with_upstream(run.stage for run in found)         # every stage that they need, each once, inputs first

An arm is a method with settings that differ from the profile's. A run is an arm in one cell and seed: the stage that it
ends with, from which all that it reads follows. The file explains its keys; files of your own have the same.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.settings import AXES, Section
from rdlib.study.specification import METHODS, STAGES
from rdlib.study.stage import Stage

STUDY = "params/experiments.yaml"
ALWAYS = ("teacher", "icl")  # methods that train nothing: every study compares with them
OF_OWN = ("ours_wo_r", "ours")  # of own questions a study trains the student of Ours and its warm-up, unless asked
UNUSED = {"teacher": ("student",), "icl": ("teacher",)}  # axes that a method does not have


class Arm(Section):
    """A method with settings. `scale` multiplies settings of the profile; `student: teacher` trains the teacher (R3).

    `level` is how much of what the experiment varies the arm has; `name` where two arms share one.
    """

    method: str | None = None
    name: str | None = None
    settings: dict[str, Any] = {}
    scale: dict[str, float | str] = {}
    student: Literal["teacher"] | None = None
    last: str | None = None
    level: float | str | None = None


class Experiment(Section):
    """One experiment; params/experiments.yaml says what its keys mean. `path` and `name` say where it stands."""

    title: str
    group: str = "own"
    cells: Literal["all", "ablation", "own"] | list[str] = "ablation"
    last: str = "07_evaluate"
    method: str | None = None
    methods: list[str] = []
    arms: dict[str, Arm] = {}
    vary: dict[str, str | list[Any]] = Field({}, max_length=1)
    settings: dict[str, Any] = {}
    reference: str | None = None
    measure: list[str] = []
    notebook: str | None = None
    profile: str | None = None
    seeds: list[int] | None = None
    name: str = ""
    path: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Experiment:
        if sum(map(bool, (self.method, self.methods, self.arms))) != 1:
            raise ValueError("give one of method, methods and arms")
        for arm in self.every_arm.values():
            if (method := arm.method or self.method) not in METHODS:
                raise ValueError(f"there is no method {method!r}: give one of {', '.join(METHODS)}")
            if (last := arm.last or self.last) not in STAGES:
                raise ValueError(f"there is no stage {last!r}: give one of {', '.join(STAGES)}")
        if self.reference and self.reference not in {arm.name or name for name, arm in self.every_arm.items()}:
            raise ValueError(f"there is no arm {self.reference!r} to compare with: give one of {', '.join(self.arms)}")
        return self

    @property
    def every_arm(self) -> dict[str, Arm]:
        """The arms by name; without any, the one method is one."""
        methods = self.methods or ([self.method] if self.method else [])
        return self.arms or {method: Arm(method=method) for method in methods}


class ExperimentFile(Section):
    """A file of experiments; `profile` and `seeds` are those of experiments that have none of their own."""

    profile: str | None = None
    seeds: list[int] | None = None
    experiments: dict[str, Experiment] = Field(min_length=1)


@dataclass(frozen=True)
class Run:
    """An arm of an experiment in one cell and seed; `stage` is the one that it ends with.

    `cell` is the cell that it belongs to, "gsm/strong/small", also where a teacher stands in the student's place.
    """

    experiment: str
    arm: str
    cell: str
    stage: Stage
    level: float | None = None
    reference: bool = False

    @property
    def columns(self) -> dict[str, Any]:
        """What names the run in a result table."""
        return {"experiment": self.experiment, "arm": self.arm, "cell": self.cell, "level": self.level}


@lru_cache
def load(path: str = STUDY) -> dict[str, Experiment]:
    """The experiments of a file (relative to the repository), by name; UserError that names a bad entry."""
    try:
        content = ExperimentFile.model_validate(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"The experiments {path} cannot be read ({str(error).splitlines()[0][:200]}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} has a bad entry {where}: {first['msg'].removeprefix('Value error, ')}.") from None
    found = {}
    for name, one in content.experiments.items():
        own = {"name": name, "path": path, "profile": one.profile or content.profile}
        found[name] = one.model_copy(update=own | {"seeds": one.seeds or content.seeds})
    return found


def named(names: Iterable[str]) -> list[Experiment]:
    """Experiments by name or group of params/experiments.yaml, or by FILE or FILE:NAME; UserError for others."""
    found: dict[tuple[str, str], Experiment] = {}
    for asked in names:
        path, _, name = asked.partition(":") if ".yaml" in asked else (STUDY, "", asked)
        known = load(path)
        some = [one for one in known.values() if name in ("", one.name, one.group)]
        if not some:
            groups = dict.fromkeys(one.group for one in known.values())
            close = difflib.get_close_matches(name, [*known, *groups], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
            raise UserError(f"{path} has no experiment {name!r}: {hint}")
        found |= {(one.path, one.name): one for one in some}
    return list(found.values())


def runs(experiment: Experiment, profile_path: str, seeds: Sequence[int], methods: Sequence[str] = ()) -> list[Run]:
    """Every run of an experiment, by seed, cell and arm. `methods`: of the main grid beside those of the profile.

    An experiment's own profile and seeds come before those given.
    """
    path = experiment.profile or profile_path
    profile = load_profile(ROOT / path)
    found: dict[tuple, Run] = {}
    for seed, cell in product(experiment.seeds or seeds, cells_of(experiment, profile)):
        for run in _runs_of_cell(experiment, path, profile, cell, seed, methods):
            found.setdefault((run.stage.folder, run.cell if experiment.reference else "", run.arm, run.level), run)
    return list(found.values())


def cells_of(experiment: Experiment, profile: Profile) -> list[dict[str, str]]:
    """The cells of an experiment: dataset, teacher and student of each; UserError for one that the profile lacks."""
    if experiment.cells == "ablation":
        return [cell.model_dump() for cell in profile.grid.ablation_cells]
    names = (profile.datasets, profile.teachers, profile.students)
    if isinstance(experiment.cells, list):
        return [_cell(experiment, text, profile) for text in experiment.cells]
    every = [dict(zip(AXES, cell, strict=True)) for cell in product(*names)]
    return [cell for cell in every if experiment.cells == "all" or profile.datasets[cell["dataset"]].own]


def _cell(experiment: Experiment, text: str, profile: Profile) -> dict[str, str]:
    axes = text.split("/")
    known = (profile.datasets, profile.teachers, profile.students | profile.teachers)
    if len(axes) != 3 or any(axis not in names for axis, names in zip(axes, known, strict=True)):
        raise UserError(
            f"The experiment {experiment.name} ({experiment.path}) names the cell {text!r}: give "
            f"dataset/teacher/student of the profile {profile.name}."
        )
    return dict(zip(AXES, axes, strict=True))


def _runs_of_cell(
    experiment: Experiment, path: str, profile: Profile, cell: dict[str, str], seed: int, more: Sequence[str]
) -> Iterator[Run]:
    """The runs of one cell: for each value of what is varied, every arm."""
    key, values = next(iter(experiment.vary.items()), (None, [None]))
    for value, (name, arm) in product(_values(profile, values), experiment.every_arm.items()):
        method = arm.method or experiment.method
        if experiment.name == "main" and method not in methods_of(profile, cell["dataset"], more):
            continue
        settings = {k: _value(profile, v) for k, v in (experiment.settings | arm.settings).items()}
        settings |= _scaled(profile, arm) | ({key: value} if key else {})
        axes = cell | ({"student": cell["teacher"]} if arm.student == "teacher" else {})
        axes |= dict.fromkeys(UNUSED.get(method, ()))
        stage = Stage("07_evaluate", path, method=method, seed=seed, all_overrides=settings, root=ROOT, **axes)
        numeric = isinstance(value, int | float)
        yield Run(
            experiment.name,
            (arm.name or name) if numeric or key is None else str(value),
            "/".join(cell.values()),
            stage.at(arm.last or experiment.last),
            float(value) if numeric else _level(profile, arm),
            experiment.reference == (arm.name or name),
        )


def _value(profile: Profile, given: Any) -> Any:
    """What a text with a dot names in the profile, as grid.lam; anything else is itself."""
    section, dot, name = given.partition(".") if isinstance(given, str) else ("", "", "")
    if not dot or section not in Profile.model_fields:
        return given
    if not hasattr(getattr(profile, section), name):
        raise UserError(f"An experiment names the setting {given!r}, which the profile {profile.name} does not have.")
    return getattr(getattr(profile, section), name)


def _values(profile: Profile, given: Any) -> list[Any]:
    """The values of what is varied; a list may name settings that are lists themselves."""
    if isinstance(given, str):
        return list(_value(profile, given))
    found = [_value(profile, one) for one in given]
    return [value for one in found for value in (one if isinstance(one, list) else [one])]


def _scaled(profile: Profile, arm: Arm) -> dict[str, int]:
    """The settings that an arm multiplies, rounded up; one that the profile leaves open stays so."""
    given = {key: (_value(profile, key), _value(profile, factor)) for key, factor in arm.scale.items()}
    return {key: math.ceil(base * factor) for key, (base, factor) in given.items() if base is not None}


def _level(profile: Profile, arm: Arm) -> float | None:
    level = _value(profile, arm.level)
    return None if level is None else float(level)


def methods_of(profile: Profile, dataset: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The methods of the main grid on a dataset: those that the profile asks for, and `more`."""
    main = load()["main"].methods
    default = OF_OWN if profile.datasets[dataset].own else main
    return tuple(m for m in main if m in {*ALWAYS, *(profile.grid.methods or default), *more})


def ablations_of(profile: Profile, dataset: str) -> tuple[str, ...]:
    """The ablations that a profile asks for; where it does not say, all of a benchmark and none of own questions."""
    every = tuple(name for name, one in load().items() if one.group == "ablations")
    default = () if profile.datasets[dataset].own else every
    return default if profile.grid.ablations is None else tuple(n for n in every if n in profile.grid.ablations)


def measures_of(run: Run, experiment: Experiment) -> list[Stage]:
    """The further stages that measure a run, as `13_style`, or `13_validation_answers of ours_wo_r` of its warm-up.

    One that the run's method has not is left out.
    """
    found = []
    for text in experiment.measure:
        name, _, method = text.partition(" of ")
        if method and "warmup" not in run.stage.inputs:
            continue
        if (method or run.stage.method) in STAGES[name].methods:
            found.append(run.stage.at(name, method or None))
    return found


def with_upstream(stages: Iterable[Stage]) -> list[Stage]:
    """These stages and all that they read, each once, inputs before their readers."""
    found: dict[Path, Stage] = {}

    def add(stage: Stage) -> None:
        if stage.folder not in found:
            for one in stage.inputs.values():
                add(one)
            found[stage.folder] = stage

    for stage in stages:
        add(stage)
    return list(found.values())
