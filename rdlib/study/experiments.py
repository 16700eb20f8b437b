"""Experiments: every run of the study as a declaration, cells x arms x seeds, in params/experiments.yaml.

    known = load("params/experiments.yaml")           # {"main": Experiment(...), "lambda": ..., "R1": ...}
    found = runs(known["R1"], "params/micro.yaml", [0])    # [Run(arm="SFT", cell="gsm/strong/small", stage=...), ...]
    with_upstream(run.stage for run in found)         # every stage that they need, each once, inputs first

An arm is a method with settings that differ from the profile's. A run is an arm in one cell and seed, given by its last
stage; the stages upstream follow from it. The file explains its keys, and a file of your own has the same ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from rdlib import artifacts, numerics, paths
from rdlib.errors import UserError, hint
from rdlib.evidence.tables import listed
from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.settings import AXES, SEEDS, Method, Section
from rdlib.study.specification import METHODS, STAGES, UNUSED
from rdlib.study.stage import Stage, in_repository, refuse_unread

STUDY = "params/experiments.yaml"
PROFILE = "params/micro.yaml"  # of a command that names none
ALWAYS = ("teacher", "icl")  # methods that train nothing: every study compares with them
OF_OWN = ("ours_wo_r", "ours")  # of own questions a study trains the student of Ours and its warm-up, unless asked
CHOOSING = ("trials", "follow-ups")  # groups whose seeds must not be released, since settings are chosen by them


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
    """One experiment; params/experiments.yaml says what its keys mean. `path` and `name` say where it stands.

    `bound`: its profile is its own, not its file's, so the command line gives it no other.
    """

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
    numerics: Literal["native"] | None = None
    seeds: list[Annotated[int, Field(ge=0, lt=SEEDS)]] | None = Field(None, min_length=1)
    bound: bool = False
    name: str = ""
    path: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Experiment:
        if sum(map(bool, (self.method, self.methods, self.arms))) != 1:
            raise ValueError("give one of method, methods and arms")
        for name, arm in self.every_arm.items():
            _require_stage(name, arm.method or self.method, arm.last or self.last)
        for name, _, method in (text.partition(" of ") for text in self.measure):
            _require_stage(name, method or "ours", name)
        names = list(dict.fromkeys(arm.name or name for name, arm in self.every_arm.items()))
        if self.reference and self.reference not in names:
            raise ValueError(f"there is no arm {self.reference!r} to compare with: give one of {', '.join(names)}")
        return self

    @property
    def every_arm(self) -> dict[str, Arm]:
        """The arms by name; without any, the one method is one."""
        methods = self.methods or ([self.method] if self.method else [])
        return self.arms or {method: Arm(method=method) for method in methods}

    @property
    def key(self) -> str:
        """What the command line calls it: its name, or FILE:NAME for one of another file than the study's."""
        return self.name if self.path == STUDY else f"{self.path}:{self.name}"


def _require_stage(arm: str, method: str | None, last: str) -> None:
    """ValueError, as pydantic wants it, for a stage that there is not or that a method does not have."""
    if last not in STAGES:
        raise ValueError(f"there is no stage {last!r}: give one of {', '.join(STAGES)}")
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}: give one of {', '.join(METHODS)}")
    having = STAGES[last].methods or tuple(name for name in METHODS if name not in ALWAYS)
    if method not in having:
        raise ValueError(f"{arm!r} is of method {method}, which has no stage {last}: {', '.join(having)} have it")


class ExperimentFile(Section):
    """A file of experiments; `profile` and `seeds` are those of experiments that have none of their own."""

    profile: str | None = None
    seeds: list[Annotated[int, Field(ge=0, lt=SEEDS)]] | None = Field(None, min_length=1)
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


def load(path: str = STUDY) -> dict[str, Experiment]:
    """The experiments of a file (relative to the repository), by name; UserError that names a bad entry."""
    try:
        file = (paths.ROOT if path == STUDY else ROOT) / path  # the study's own lie beside the code
        return _load(path, file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"The experiments {path} cannot be read ({reason}).") from None
    except yaml.YAMLError as error:
        raise UserError(f"The experiments {path} are no YAML ({' '.join(str(error).split())[:200]}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} has a bad entry {where}: {first['msg'].removeprefix('Value error, ')}.") from None


@lru_cache
def _load(path: str, text: str) -> dict[str, Experiment]:
    content = ExperimentFile.model_validate(yaml.safe_load(text))
    found = {}
    for name, one in content.experiments.items():
        if one.notebook and path != STUDY:
            raise UserError(
                f"{path}: the experiment {name} names a notebook, which is for {STUDY} alone: leave it out."
            )
        if members := [other for other, two in content.experiments.items() if two.group == name != other]:
            what = f"{name} is an experiment and the group of {', '.join(members)}"
            raise UserError(f"{path}: {what}: rename one of them.")
        own = {"name": name, "path": path, "profile": one.profile or content.profile, "bound": bool(one.profile)}
        found[name] = one.model_copy(update=own | {"seeds": one.seeds or content.seeds})
    return found


def named(names: Iterable[str]) -> list[Experiment]:
    """Experiments by name or group of params/experiments.yaml, or by FILE or FILE:NAME; UserError for others."""
    found: dict[str, Experiment] = {}
    for asked in names:
        path, _, name = asked.rpartition(":") if ".yaml:" in asked or ".yml:" in asked else (STUDY, "", asked)
        path, name = (asked, "") if asked.endswith((".yaml", ".yml")) else (path, name)
        known = load(path)
        some = [one for one in known.values() if name in ("", one.name, one.group)]
        if not some:
            groups = dict.fromkeys(one.group for one in known.values())
            other = hint(name, [*known, *groups], f"it has {', '.join(known)}.")
            raise UserError(f"{path} has no experiment {name!r}: {other}")
        found |= {one.key: one for one in some}
    return list(found.values())


def of_study(profile: Profile) -> list[Experiment]:
    """What a study runs where nothing is asked for by name: the main grid, and the ablations of the profile."""
    found = [one for one in load().values() if one.group == "study"]
    for one in load().values():
        cells = [cell for cell in profile.grid.ablation_cells if is_asked_for(one, profile, cell.dataset)]
        if cells and one.group == "ablations":
            texts = [f"{cell.dataset}/{cell.teacher}/{cell.student}" for cell in cells]
            found.append(one.model_copy(update={"cells": texts}))
    return found


def is_asked_for(
    one: Experiment, profile: Profile, dataset: str, method: str | None = None, more: Sequence[str] = ()
) -> bool:
    """Whether a profile asks for a method of the main grid, or for an ablation, on a dataset; True of any other.

    Where it does not say: all of a benchmark; of own questions one student with its warm-up. `more`: further methods.
    """
    own = profile.datasets[dataset].own
    if one.name == "main":
        return method in {*ALWAYS, *(profile.grid.methods or (OF_OWN if own else one.methods)), *more}
    if one.group != "ablations":
        return True
    return not own if profile.grid.ablations is None else one.name in profile.grid.ablations


# ---- what a command asks for


def settled(
    names: Sequence[str] | None, profile: str | None = None, seeds: Sequence[int] | None = None
) -> tuple[str, list[Experiment]]:
    """The profile of what is asked for, and the experiments, each with the seeds that it is run for.

    `names` as in `named`; None: what the profile asks for. `profile` and `seeds` are the command's. An experiment with
    seeds of its own is run for those of them that the command names. UserError for what cannot be run together.
    """
    given = profile and in_repository(profile)
    if names is None:
        path = given or PROFILE
        settings = load_profile(ROOT / path)
        found = of_study(settings)
    else:
        found = [one if one.bound or not given else one.model_copy(update={"profile": given}) for one in named(names)]
        path = _one_profile(found, given)
        settings = load_profile(ROOT / path)
        for one in found:
            _require_runnable(one, settings)
    own = {seed for one in found for seed in one.seeds or ()}
    if found and all(one.seeds for one in found) and (unknown := set(seeds or ()) - own):
        raise UserError(f"The experiments asked for have no seed {min(unknown)}: give some of {sorted(own)}.")
    few = [[seed for seed in one.seeds or seeds or settings.grid.seeds if seed in (seeds or [seed])] for one in found]
    updated = [{"profile": path, "seeds": some} for some in few]
    return path, [one.model_copy(update=new) for one, new in zip(found, updated, strict=True) if new["seeds"]]


def _one_profile(found: list[Experiment], given: str | None) -> str:
    """The profile of experiments that are run together; UserError where there are several."""
    profiles: dict[str, list[str]] = {}
    for one in found:
        profiles.setdefault(one.profile or PROFILE, []).append(one.key)
    if len(profiles) > 1:
        commands = [f"`python -m rdlib study --profile {p} --experiments {' '.join(n)}`" for p, n in profiles.items()]
        raise UserError(
            f"These experiments are of several profiles, so one run cannot have them: give {listed(commands)}."
        )
    path = next(iter(profiles), given or PROFILE)
    if given and path != given:
        raise UserError(f"{found[0].key} has the profile {path} for its own: leave --profile {given} out.")
    return path


def _require_runnable(one: Experiment, profile: Profile) -> None:
    """UserError for an experiment that has nothing to compare here, or chooses settings on a released seed."""
    for key, given in one.vary.items():
        if len({str(value) for value in _values(profile, given)}) < 2:
            raise UserError(
                f"The experiment {one.key} compares values of {key} ({given}), of which the profile {profile.name} has "
                f"one alone: add others there."
            )
    for key, given in (pair for arm in one.arms.values() for pair in (one.settings | arm.settings).items()):
        value = _value(profile, given)
        if value != given and value in (None, _value(profile, key)):
            what = f"sets {key} to {given}, which is the same in the profile {profile.name}"
            raise UserError(f"The experiment {one.key} {what}: there is nothing to compare.")
    if one.group in CHOOSING and (kept := set(profile.grid.seeds) & set(one.seeds or ())):
        what = f"uses seed {min(kept)}, which the profile {profile.name} releases"
        raise UserError(f"The experiment {one.key} {what}: choose settings on another.")


def require_methods(methods: Sequence[str], found: Iterable[Experiment]) -> None:
    """UserError for methods that cannot be added to the main grid, or where that is not run."""
    known = get_args(Method)
    for method in methods:
        if method not in known:
            raise UserError(f"There is no method {method!r}: --methods takes some of {', '.join(known)}.")
    if methods and "main" not in {one.key for one in found}:
        raise UserError("--methods adds to the main grid: give --experiments main too, or leave --methods out.")


def enter_numerics(found: Iterable[Experiment]) -> None:
    """Have the jobs that this process starts compute in the numerics that the experiments name, if they do."""
    if any(one.numerics == numerics.NATIVE for one in found):
        os.environ[numerics.SWITCH] = numerics.NATIVE
        for name in numerics.MODE.keys() - numerics.THREADS.keys():
            os.environ.pop(name, None)


def require_made_natively(found: Iterable[Experiment], stages: Iterable[Stage]) -> None:
    """UserError where an experiment in native numerics would take a finished stage of the portable mode for its own."""
    for stage in stages if any(one.numerics == numerics.NATIVE for one in found) else ():
        manifest = artifacts.read_manifest(stage.folder)
        if manifest and manifest["environment"].get("numerics") == numerics.PORTABLE:
            raise UserError(
                f"{stage.label} was made in the portable mode: remove it, then give the same command again."
            )


# ---- the runs of an experiment


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
    known = (profile.datasets, profile.teachers, profile.students)
    if isinstance(experiment.cells, str):
        every = [dict(zip(AXES, cell, strict=True)) for cell in product(*known)]
        return [cell for cell in every if experiment.cells == "all" or profile.datasets[cell["dataset"]].own]
    found = [dict(zip(AXES, text.split("/"), strict=False)) for text in experiment.cells]
    known = (*known[:2], profile.students | profile.teachers)
    for text, cell in zip(experiment.cells, found, strict=True):
        if text.count("/") != 2 or any(axis not in names for axis, names in zip(cell.values(), known, strict=True)):
            raise UserError(
                f"The experiment {experiment.name} ({experiment.path}) names the cell {text!r}: give "
                f"dataset/teacher/student of the profile {profile.name}."
            )
    return found


def _runs_of_cell(
    experiment: Experiment, path: str, profile: Profile, cell: dict[str, str], seed: int, more: Sequence[str]
) -> Iterator[Run]:
    """The runs of one cell: for each value of what is varied, every arm."""
    key, values = next(iter(experiment.vary.items()), (None, [None]))
    for value, (name, arm) in product(_values(profile, values), experiment.every_arm.items()):
        method = arm.method or experiment.method
        if experiment.name == "main" and not is_asked_for(experiment, profile, cell["dataset"], method, more):
            continue
        settings = {k: _value(profile, v) for k, v in (experiment.settings | arm.settings).items()}
        settings |= _scaled(profile, arm) | ({key: value} if key else {})
        axes = cell | ({"student": cell["teacher"]} if arm.student == "teacher" else {})
        axes |= {UNUSED[method]: None} if method in UNUSED else {}
        stage = Stage("07_evaluate", path, method=method, seed=seed, all_overrides=settings, root=ROOT, **axes)
        stage = stage.at(arm.last or experiment.last)
        refuse_unread(stage)
        numeric = isinstance(value, int | float)
        level = value if numeric else _value(profile, arm.level)
        yield Run(
            experiment.name,
            (arm.name or name) if numeric or key is None else str(value),
            "/".join(cell.values()),
            stage,
            None if level is None else float(level),
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


def measures_of(run: Run, experiment: Experiment) -> list[Stage]:
    """The further stages that measure a run, as `13_style`, or `13_validation_answers of ours_wo_r` of its warm-up.

    One that the run's method has not, or that is of a method that it does not start from, is left out.
    """
    found = []
    for text in experiment.measure:
        name, _, method = text.partition(" of ")
        if method and not any(one.method == method for one in run.stage.upstream()):
            continue
        if (method or run.stage.method) in STAGES[name].methods:
            found.append(run.stage.at(name, method or None))
    return found


def variants(name: str, cell: Stage) -> tuple[Stage, ...]:
    """The stages of an experiment of the study in a stage's cell, with its overrides too: for notebooks 08 to 11."""
    one = load()[name]
    axes = {axis: getattr(cell, axis) for axis in AXES}
    found = _runs_of_cell(one, cell.profile_path, cell.profile, axes, cell.seed, ())
    return tuple(replace(run.stage, all_overrides=cell.all_overrides | run.stage.all_overrides) for run in found)


def ablation_cells(profile_path: str, seed: int) -> list[Stage]:
    """The evaluation of Ours in each cell of the ablations and of the reviewers' questions, in the profile's order."""
    cells = load_profile(ROOT / profile_path).grid.ablation_cells
    return [
        Stage("07_evaluate", profile_path, method="ours", seed=seed, root=ROOT, **cell.model_dump()) for cell in cells
    ]


def with_upstream(stages: Iterable[Stage]) -> list[Stage]:
    """These stages and all that they read, each once, inputs before their readers."""
    return needed_first(stages, lambda stage: stage.inputs.values(), lambda stage: stage.folder)


def needed_first(wanted: Iterable, needs: Callable[[Any], Iterable], key: Callable[[Any], Any] = id) -> list:
    """What is wanted and all that it needs, each once by its key, what something needs before it."""
    found: dict[Any, Any] = {}

    def add(one: Any) -> None:
        """Add one after all that it needs."""
        if key(one) not in found:
            for other in needs(one):
                add(other)
            found[key(one)] = one

    for one in wanted:
        add(one)
    return list(found.values())
