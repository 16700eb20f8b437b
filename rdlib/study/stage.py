"""A stage of the study: the place of its artifacts, its key, and its run, at most once.

    stage = open_stage("05_reward_model", globals())   # after a notebook's parameters cell
    stage.run()                                        # computes, resumes, or finds it done
    stage.table("history")                             # the artifact history.parquet

A stage is identified by its axes (dataset, teacher, student, method, seed) and by the overrides that affect it; both
are in its folder's name. `rdlib.study.specification` says what it reads. Its key is a hash of its settings, the code
that it uses and the content of its inputs; where a folder with that key exists, nothing is computed again.
"""

from __future__ import annotations

import importlib
import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts, numerics
from rdlib.errors import UserError, hint, is_disk_full
from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.settings import SEEDS, Model, Section
from rdlib.study import launch, requirements
from rdlib.study.specification import CELL, SECTIONS, STAGES, UNUSED, Input, StageSpec, decides
from rdlib.tasks import own_equality, sources

LONGEST_VARIANT = 200  # bytes; file systems take names of 255


def _in_a_name(value: Any) -> str:
    """A setting's value as part of a folder's name; a group of settings without quotes and spaces."""
    return ";".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def variant_of(overrides: dict[str, Any]) -> str:
    """Overrides as text, "" without any; a hash where no folder can be named so."""
    text = ",".join(f"{key}={_in_a_name(value)}" for key, value in overrides.items())
    fits = "/" not in text and text.isprintable() and len(text.encode("utf-8", "replace")) <= LONGEST_VARIANT
    return text if fits else artifacts.content_hash(overrides)[:16]


def without_places(value: Any) -> Any:
    """Settings in which an absolute path is its last part alone: a manifest tells nothing of the machine."""
    if isinstance(value, dict):
        return {name: without_places(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_places(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


@dataclass(frozen=True)
class Stage:
    """One stage of one cell of the grid. Unused axes are None; `overrides` are those that reach it."""

    name: str
    profile_path: str
    dataset: str
    teacher: str | None = None
    student: str | None = None
    method: str | None = None
    seed: int = 0
    all_overrides: dict[str, Any] = field(default_factory=dict)
    root: Path = ROOT

    @property
    def spec(self) -> StageSpec:
        """The stage's specification."""
        return STAGES[self.name]

    @cached_property
    def profile(self) -> Profile:
        """The profile with the settings of this stage's cell, then the overrides, applied."""
        return load_profile(self.root / self.profile_path, self._cell_overrides | self.all_overrides)

    @cached_property
    def _cell_overrides(self) -> dict[str, Any]:
        profile = load_profile(self.root / self.profile_path)
        return profile.cell_overrides(dataset=self.dataset, teacher=self.teacher, student=self.student)

    @property
    def dataset_settings(self):
        """The profile's settings of this stage's dataset."""
        return self.profile.datasets[self.dataset]

    @property
    def asked(self) -> Model | None:
        """The teacher that the stage samples from as it is; None where it asks none."""
        asks = self.name in ("01_teacher_responses", "01_held_out") or self.method == "teacher"
        return self.profile.model_of(self.teacher) if asks else None

    @cached_property
    def answer_kind(self) -> str:
        """How answers are read, as `tasks.answers` takes it; UserError where an equality of one's own is missing."""
        return own_equality.kind_of(self.dataset_settings, self.root)

    @cached_property
    def overrides(self) -> dict[str, Any]:
        """The overrides that reach this stage and differ from the profile's own values."""
        base, kept = load_profile(self.root / self.profile_path, self._cell_overrides), {}
        for key in sorted(self.all_overrides):
            section, name = key.split(".", 1)
            value = getattr(getattr(self.profile, section), name)  # as the schema understands it: 1 is 1.0
            if self._depends_on(section, name) and getattr(getattr(base, section), name) != value:
                kept[key] = value.model_dump() if isinstance(value, Section) else value
        return kept

    def sections(self) -> set[str]:
        """The profile's sections that this stage or one before it reads."""
        return {section for stage in (self, *self.upstream()) for section in stage.spec.sections}

    def _depends_on(self, section: str, name: str) -> bool:
        """Whether a setting decides the artifacts of this stage or of one before it."""
        stages = (self, *self.upstream())
        return any(section in stage.spec.sections and decides(stage.name, section, name) for stage in stages)

    @property
    def variant(self) -> str:
        """The overrides as text, as `variant_of` has them."""
        return variant_of(self.overrides)

    @property
    def folder(self) -> Path:
        """Where the artifacts lie."""
        parts = filter(None, (self.teacher, self.student, self.method))
        name = f"{self.name}@{self.variant}" if self.variant else self.name
        runs = self.root / self.profile.runs
        return runs.joinpath(self.profile.name, self.dataset, *parts, f"seed{self.seed}", name)

    @property
    def label(self) -> str:
        """The stage's place in words, for messages: dataset/teacher/student/method/seed/name."""
        return self.folder.relative_to(self.root / self.profile.runs).as_posix()

    @property
    def cell_name(self) -> str:
        """Dataset, teacher and student as one text, "gsm/strong/small"; an axis that the stage has not is left out."""
        return "/".join(filter(None, (self.dataset, self.teacher, self.student)))

    @property
    def columns(self) -> dict[str, Any]:
        """Axes, variant and seed as columns of a result table; an unused axis is an empty text."""
        axes = {axis: getattr(self, axis) or "" for axis in CELL}
        return {**axes, "variant": self.variant, "seed": self.seed}

    def at(self, name: str, method: str | None = None) -> Stage:
        """Another stage of the same cell, with the axes that it has."""
        spec = STAGES[name]
        axes = {axis: getattr(self, axis) if axis in spec.axes else None for axis in ("teacher", "student", "method")}
        if method is not None and "method" in spec.axes:
            axes["method"] = method
        return replace(self, name=name, all_overrides={} if spec.unvaried else self.all_overrides, **axes)

    def with_overrides(self, overrides: dict[str, Any]) -> Stage:
        """The same stage with further settings overridden: a variant with a folder of its own."""
        return replace(self, all_overrides=self.all_overrides | overrides)

    @cached_property
    def inputs(self) -> dict[str, Stage]:
        """The stages whose artifacts this one reads, by the name it knows them by."""
        return {name: self._input(one) for name, one in self.spec.inputs_of(self.method).items()}

    def _input(self, one: Input) -> Stage:
        stage = self.at(one.stage, one.method)
        if one.student is None:
            return stage
        section, name = one.student.split(".")
        other = getattr(getattr(self.profile, section), name)
        return stage if other is None else replace(stage, student=other)

    @property
    def together(self) -> list[Stage]:
        """The stages that its notebook makes in one go, itself among them; held-out questions are of own questions."""
        if self.spec.notebook not in STAGES:
            return [self]
        names = [name for name, spec in STAGES.items() if spec.notebook == self.spec.notebook]
        return [self.at(name) for name in names if name != "01_held_out" or self.dataset_settings.own]

    def upstream(self) -> Iterator[Stage]:
        """Every stage that this one depends on, those it reads before those that they read; some more than once."""
        for stage in self.inputs.values():
            yield stage
            yield from stage.upstream()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that the stage reads: sections of the profile, its dataset's and its models' settings."""
        read = {name: getattr(self.profile, name).model_dump() for name in self.spec.sections}
        read["dataset"] = self.dataset_settings.identity
        models = {"teachers": self.teacher, "students": self.student}
        read["models"] = {kind: self.profile.model_of(name).identity for kind, name in models.items() if name}
        return read

    @cached_property
    def recipe(self) -> str:
        """Hash of everything that decides this stage's artifacts but its inputs and the versions of packages."""
        deciding = {
            section: {name: value for name, value in values.items() if decides(self.name, section, name)}
            for section, values in self.settings.items()
        }
        axes = [self.name, self.dataset, self.teacher, self.student, self.method, self.seed]
        models = [self.profile.model_of(name) for name in (self.teacher, self.student) if name]
        paths = [path for model in models for path in (model.model, model.adapter) if path]
        local = {path: content for path in paths if (content := sources.content_of(self.root / path))}
        dataset = sources.identity(self.dataset_settings, self.root)
        dataset = dataset | own_equality.content_of(self.dataset_settings, self.root)
        return artifacts.content_hash([axes, deciding, {"dataset": dataset, "models": local}, self.spec.code])

    @property
    def key(self) -> str | None:
        """Hash of the recipe and of the content of the inputs; None where an input is not done."""
        contents = {name: stage.content for name, stage in self.inputs.items()}
        return None if None in contents.values() else self.key_from(contents)

    def key_from(self, contents: dict[str, str]) -> str:
        """The key that the stage has where its inputs, by name, have these contents."""
        return artifacts.content_hash([self.recipe, contents])

    @property
    def content(self) -> str | None:
        """Hash of this stage's files, None where it is not done."""
        manifest = artifacts.read_manifest(self.folder)
        current = manifest is not None and manifest["key"] == self.key
        return artifacts.content_hash(manifest["files"]) if current else None

    @property
    def done(self) -> bool:
        """Whether the artifacts are there and were made with these settings, this code and these inputs."""
        return self.content is not None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by which its notebook makes this stage."""
        given = {"profile": self.profile_path} | {axis: getattr(self, axis) for axis in self.spec.axes}
        given |= {"seed": self.seed} | ({"overrides": self.overrides} if self.overrides else {})
        if self.name == "07_evaluate":
            given["methods"] = [given.pop("method")]
        return given if self.spec.notebook in STAGES else given | {"stage_name": self.name}

    @property
    def command(self) -> str:
        """The shell command that makes this stage, once its inputs are there."""
        notebook = f"notebooks/{self.spec.notebook}.ipynb"
        return shlex.join(["python", "-m", "rdlib", "execute", notebook, "out.ipynb", json.dumps(self.parameters)])

    def require(self) -> Path:
        """The folder of a stage that must be done already; UserError says which notebook makes it."""
        if not self.done:
            raise UserError(
                f"{self.label} is missing or was made with other settings, code or inputs: run notebooks/"
                f"{self.spec.notebook}.ipynb first, as by `{self.command}` (or `make study`)."
            )
        return self.folder

    def input(self, name: str) -> Path:
        """The folder of one input, checked against its manifest."""
        stage = self.inputs[name]
        stage.require()
        return stage.verified()

    def verified(self, *names: str) -> Path:
        """The folder, in which the files named (or else all) are as they were made; UserError where one is not."""
        artifacts.verify(self.folder, artifacts.read_manifest(self.folder), self.command, names or None)
        return self.folder

    def run(self, **hooks: Any) -> Stage:
        """Compute the stage unless it is done; resumes from its partial folder. Returns itself.

        `hooks` go to the stage's function, as `on_update` to that of 06_ppo; they must not change artifacts.
        """
        if self.done:
            self.verified()
            print(f"{self.label}: already there, nothing to do.")
            return self
        requirements.check_teachers([self])
        for stage in self.inputs.values():
            stage.require()  # the function checks the files that it reads
        if self.profile.numerics == numerics.PORTABLE and (caveat := numerics.caveat()):
            print(f"{self.label}: {caveat}")
        clock = time.time()
        try:
            self._make(hooks)
        except Exception as error:
            if is_disk_full(error):
                raise UserError(
                    f"{self.label}: the disk or the quota of {self.profile.runs} is full: make room, then run this "
                    f"again; what was finished is kept."
                ) from None
            raise
        print(f"{self.label}: done in {time.time() - clock:.0f} s.")
        return self

    def _make(self, hooks: dict[str, Any]) -> None:
        """Compute the stage in its partial folder, resuming from what is there, and seal it."""
        if "training" in self.spec.sections:
            requirements.check(self.profile.training)
        requirements.check_sampler(self)
        work = self.folder.with_name(self.folder.name + ".partial")
        started, clock = artifacts.now(), time.time()
        with artifacts.hold(work, self.key):
            if launch.is_wanted(self):
                launch.in_processes(self, work, hooks)
            else:
                self.compute(work, **hooks)
            artifacts.seal(work, self.folder, self._record(started, time.time() - clock))

    def compute(self, work: Path, **hooks: Any) -> None:
        """Have the stage's function write its artifacts into `work`, in this process and in the profile's numerics."""
        if self.profile.numerics == numerics.PORTABLE:
            numerics.require()
        module, function = self.spec.function.split(":")
        getattr(importlib.import_module(module), function)(self, work, **hooks)

    def run_with_inputs(self) -> Stage:
        """Compute the stage and, before it, whatever of its inputs is not there yet."""
        requirements.check_teachers([*self.upstream(), self])
        for stage in self.inputs.values():
            if not stage.done:
                stage.run_with_inputs()
        return self.run()

    def _record(self, started: str, seconds: float) -> dict[str, Any]:
        return {
            "stage": self.name,
            "key": self.key,
            "profile": self.profile.name,
            "axes": {a: getattr(self, a) for a in (*CELL, "seed") if getattr(self, a) is not None},
            "overrides": self.overrides,
            "settings": without_places(self.settings),
            "inputs": {name: {"stage": s.label, "content": s.content} for name, s in self.inputs.items()},
            "code": self.spec.code,
            "started": started,
            "ended": artifacts.now(),
            "seconds": round(seconds, 1),
        }

    def table(self, name: str) -> pd.DataFrame:
        """A Parquet artifact of this stage."""
        return artifacts.read_parquet(self._artifact(f"{name}.parquet"))

    def json(self, name: str) -> dict:
        """A JSON artifact of this stage."""
        return artifacts.read_json(self._artifact(f"{name}.json"))

    def jsonl(self, name: str) -> pd.DataFrame:
        """A JSON-lines artifact of this stage as a table."""
        return pd.DataFrame(map(json.loads, self._artifact(f"{name}.jsonl").read_text().splitlines()))

    def _artifact(self, name: str) -> Path:
        """The path of one file of this stage, which must be done and the file as it was made."""
        self.require()
        return self.verified(name) / name


# ---- opened by parameters: names, kinds, and that nothing goes unread

# Parameters that a notebook may show by a short name, and the settings they stand for.
SHORTCUTS = {
    "lam": "reward_model.lam",
    "teacher_share": "reward_model.teacher_share",
    "reward_source": "reward_model.source",
    "threshold": "voting.threshold",
    "mismatch": "reward.mismatch",
}
NOTEBOOK_PARAMETERS = {"methods", "question", "stage_name"}


def open_stage(name: str, namespace: dict[str, Any]) -> Stage:
    """The stage a notebook is about, from the variables of its parameters cell.

    Raises UserError for a variable that the notebook does not declare (papermill only warns), a name
    that the profile does not have, or a value of the wrong kind.
    """
    plain = {k: v for k, v in namespace.items() if v is None or isinstance(v, str | int | float | bool | list | dict)}
    parameters = {k: v for k, v in plain.items() if not k.startswith("_") and k not in ("In", "Out")}
    known = {"profile", "seed", "overrides", *STAGES[name].axes}
    extra = {key.partition("__")[0] for key in parameters} - known - SHORTCUTS.keys() - NOTEBOOK_PARAMETERS
    if extra:
        unknown = sorted(extra)[0]
        other = hint(unknown, [*known, *SHORTCUTS], f"it reads {', '.join(sorted(known))}.")
        raise UserError(f"Notebook {STAGES[name].notebook} has no parameter {unknown!r}: {other}")
    overrides = parameters.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise UserError(f"overrides is {overrides!r}: give a dictionary such as {{'ppo.kl_coef': 0.1}}.")
    if not isinstance(parameters.get("profile"), str):
        raise UserError("The parameter profile is missing: give the path of a profile such as params/micro.yaml.")
    overrides = overrides | {SHORTCUTS[k]: v for k, v in parameters.items() if k in SHORTCUTS and v is not None}
    axes = {axis: parameters.get(axis) for axis in STAGES[name].axes}
    return make_stage(name, parameters["profile"], seed=parameters.get("seed", 0), overrides=overrides, **axes)


def make_stage(name: str, profile: str, *, seed: int = 0, overrides: dict | None = None, **axes: Any) -> Stage:
    """A stage with its axes and settings checked; UserError for a name that the profile does not know."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise UserError(f"seed is {seed!r}: give a whole number from 0 to {SEEDS - 1}.")
    relative = in_repository(profile)
    loaded = load_profile(ROOT / relative, overrides)
    choices = {"dataset": loaded.datasets, "teacher": loaded.teachers}
    choices["student"] = loaded.students | loaded.teachers  # a teacher may stand in a student's place (R3)
    choices["method"] = STAGES[name].methods
    for axis, value in axes.items():
        if value is not None and (not isinstance(value, str) or value not in choices[axis]):
            raise UserError(f"{axis} is {value!r}, which is not one of {', '.join(choices[axis])} ({relative}).")
    for axis in STAGES[name].axes:
        if axes.get(axis) is None and not _may_be_left_out(name, axis, axes.get("method")):
            raise UserError(f"{STAGES[name].name} needs a {axis}: give one of {', '.join(choices[axis])}.")
    stage = Stage(name, relative, seed=seed, all_overrides=dict(overrides or {}), root=ROOT, **axes)
    refuse_unread(stage)
    return stage


def in_repository(path: str | Path) -> str:
    """A path relative to the repository, where it lies in there."""
    whole = Path(path)
    return whole.relative_to(ROOT).as_posix() if whole.is_absolute() and whole.is_relative_to(ROOT) else str(path)


def _may_be_left_out(name: str, axis: str, method: str | None) -> bool:
    # The notebook of the evaluation opens its stage before it knows the method.
    return name == "07_evaluate" and (method is None or UNUSED.get(method) == axis)


def refuse_unread(stage: Stage) -> None:
    """UserError for an override that neither the stage nor anything upstream of it reads."""
    reach = stage.sections() if stage.method or "method" not in stage.spec.axes else set(SECTIONS)
    for key in stage.all_overrides:
        if key.split(".", 1)[0] not in reach:
            raise UserError(
                f"The override {key!r} is not read by {stage.name} or what comes before it; it reads the sections "
                f"{', '.join(sorted(reach))} (datasets, models and the grid are set in the profile)."
            )
