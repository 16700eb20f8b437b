"""Profiles: the files in `params/`, whole and checked, and overrides of single settings.

A profile holds every number of a run (`rdlib.settings` has the sections), or names the file beside it that it differs
from, as in `base: micro.yaml`. Unknown keys are errors, and a test proves that each key of the schema is read
somewhere. An override is a dotted key with a value, as in {"reward_model.lam": 0.25}.
"""

from __future__ import annotations

import copy
import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from rdlib.errors import UserError
from rdlib.settings import (
    Baselines,
    Cell,
    Dataset,
    Evaluation,
    Generation,
    Grid,
    Hardware,
    Model,
    Ppo,
    Reward,
    RewardModel,
    Section,
    Sft,
    Stopping,
    StudentSampling,
    TeacherSampling,
    Training,
    Voting,
)

SERVER_ALONE = {
    *("max_tokens", "system_prompt", "request", "leave_out", "check_models", "first_look"),
    *("most_unanswered", "ask_refused_again", "prices", "budget"),
}


class Profile(Section):
    """A whole profile. `runs` is where its artifacts go, relative to the repository.

    `responses` is the file in which what teachers behind servers answered is kept, relative to the repository; None:
    `responses/NAME.sqlite` beside `runs`.

    `numerics` portable: computed in the numerical mode of `rdlib.numerics` alone; native: in whatever is set.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    runs: str
    responses: str | None = None
    numerics: Literal["portable", "native"] = "native"
    teachers: dict[str, str | Model]
    students: dict[str, str | Model]
    datasets: dict[str, Dataset]
    teacher_sampling: TeacherSampling
    voting: Voting
    stopping: Stopping
    sft: Sft
    student_sampling: StudentSampling
    reward_model: RewardModel
    reward: Reward
    ppo: Ppo
    baselines: Baselines = Baselines()
    evaluation: Evaluation
    generation: Generation
    training: Training = Training()
    grid: Grid
    cells: list[Cell] = []
    hardware: Hardware = Hardware()

    def model_of(self, name: str) -> Model:
        """The model of a student, or of a teacher (one may stand in a student's place: R3)."""
        model = (self.teachers | self.students)[name]
        model = Model(model=model) if isinstance(model, str) else model
        if self.teacher_sampling.temperatures == "default" and model.engine == "openai":
            return model.model_copy(update={"leave_out": sorted({*model.leave_out, "temperature"})})
        return model

    def cell_overrides(self, **axes: str | None) -> dict[str, Any]:
        """The settings that `cells` gives to a cell (dataset, teacher, student); later entries win."""
        settings: dict[str, Any] = {}
        for cell in self.cells:
            if cell.holds(axes):
                settings |= cell.settings
        return settings

    @model_validator(mode="after")
    def _names_are_folders_and_tell_models_apart(self) -> Profile:
        for name in (*self.datasets, *self.teachers, *self.students):
            if not re.fullmatch(r"\w[\w.+-]{0,59}", name):
                raise ValueError(f"{name[:60]!r} cannot be a folder's name: take letters, digits and _ . + -")
        for name in sorted(self.teachers.keys() & self.students.keys()):
            if self.teachers[name] != self.students[name]:
                raise ValueError(f"{name!r} names a teacher and another student: give one of them another name")
        return self

    @model_validator(mode="after")
    def _shares_leave_a_response_of_each_kind(self) -> Profile:
        least = 1 / (2 * self.reward_model.samples_per_kind)
        for share in (self.reward_model.teacher_share, *self.grid.teacher_share):
            if not least - 1e-9 <= share <= 1 - least + 1e-9:
                raise ValueError(
                    f"a teacher_share of {share} leaves less than one response of a kind in a query: "
                    f"take one from {least:.4g} to {1 - least:.4g}, or raise reward_model.samples_per_kind"
                )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Profile:
        parts = self.training.processes * self.training.gradient_accumulation
        batches = {
            "sft.batch_size": self.sft.batch_size,
            "reward_model.batch_size": self.reward_model.batch_size,
            "ppo.minibatch_size": self.ppo.minibatch_size,
        }
        for name, size in batches.items():
            if size % parts:
                raise ValueError(
                    f"{name} {size} cannot be shared by training.processes x training.gradient_accumulation = {parts}: "
                    f"take numbers whose product divides it"
                )
        if self.training.processes > 1 and self.ppo.episodes_per_update % self.ppo.minibatch_size:
            raise ValueError(
                f"ppo.episodes_per_update {self.ppo.episodes_per_update} is no multiple of ppo.minibatch_size "
                f"{self.ppo.minibatch_size}, which several training.processes need"
            )
        return self

    @model_validator(mode="after")
    def _reward_model_starts_from_a_model(self) -> Profile:
        name, names = self.reward_model.student, self.students | self.teachers
        if name is not None and name not in names:
            raise ValueError(f"reward_model.student is {name!r}, which is not one of {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _ablation_cells_exist_once(self) -> Profile:
        known = {"dataset": self.datasets, "teacher": self.teachers, "student": self.students}
        cells = self.grid.ablation_cells
        for i, cell in enumerate(cells):
            for axis, names in known.items():
                if (value := getattr(cell, axis)) not in names:
                    raise ValueError(
                        f"grid.ablation_cells names the {axis} {value!r}, which is not one of {', '.join(names)}"
                    )
            if cell in cells[:i]:
                name = "/".join((cell.dataset, cell.teacher, cell.student))
                raise ValueError(f"grid.ablation_cells names the cell {name} twice: keep one of the two")
        return self

    @model_validator(mode="after")
    def _models_say_what_their_engines_need(self) -> Profile:
        for name in self.teachers | self.students:
            model = self.model_of(name)
            if model.engine == "openai" and model.base_url is None:
                raise ValueError(f"{name} is served by openai, so it needs a base_url such as http://localhost:8000/v1")
            if model.thinking and model.engine not in ("openai", "replay"):
                raise ValueError(f"{name} gives thinking, which is for the engines openai and replay: leave it out")
            if model.engine != "openai" and (unread := SERVER_ALONE & model.model_dump(exclude_defaults=True).keys()):
                raise ValueError(f"{name} gives {min(unread)}, which is for the engine openai alone: leave it out")
            if model.adapter is not None and model.engine != "vllm":
                raise ValueError(f"{name} has an adapter, which only the engine vllm puts on a model")
        for name in self.students:
            if self.model_of(name).engine in ("openai", "replay"):
                raise ValueError(f"the student {name} is to be trained, so its engine must be transformers or vllm")
        return self

    @model_validator(mode="after")
    def _temperatures_can_be_had(self) -> Profile:
        default = self.teacher_sampling.temperatures == "default"
        for name in self.teachers:
            model = self.model_of(name)
            if default and model.engine not in ("openai", "replay"):
                raise ValueError(
                    f"teacher_sampling.temperatures default is for teachers behind a server or recorded ones, and "
                    f"{name} has the engine {model.engine}: give high_temperatures and low_temperatures"
                )
            if not default and "temperature" in model.leave_out:
                raise ValueError(
                    f"{name} leaves temperature out, so it is sampled at the provider's own: give "
                    f"teacher_sampling.temperatures: default in place of the lists of temperatures"
                )
        return self

    @model_validator(mode="after")
    def _cells_name_what_exists(self) -> Profile:
        known = {"dataset": self.datasets, "teacher": self.teachers, "student": self.students}
        for cell in self.cells:
            for axis, names in known.items():
                if (value := getattr(cell, axis)) is not None and value not in names:
                    raise ValueError(f"cells names the {axis} {value!r}, which is not one of {', '.join(names)}")
            for key in cell.settings:
                section, _, name = key.partition(".")
                model = getattr(Profile.model_fields.get(section), "annotation", None)
                if name not in getattr(model, "model_fields", ()):
                    raise ValueError(f"cells sets {key!r}, which is no setting: write section.setting")
        return self

    @model_validator(mode="after")
    def _answers_are_the_benchmarks_own(self) -> Profile:
        for name, dataset in self.datasets.items():
            kind = {"gsm8k": "math", "mmlu_pro": "choice"}.get(dataset.source, dataset.answer)
            if dataset.answer != kind:
                raise ValueError(f"datasets.{name}.answer must be {kind!r}, as the answers of {dataset.source} are")
        return self

    @model_validator(mode="after")
    def _sizes_of_micro_splits_are_given(self) -> Profile:
        for name, dataset in self.datasets.items():
            counts = (dataset.train, dataset.validation, dataset.test, dataset.perturbed_test)
            if dataset.source.startswith("micro") and None in counts:
                raise ValueError(f"datasets.{name} is drawn, so its splits need a number of questions each")
            if dataset.source == "questions" and dataset.path is None:
                raise ValueError(f"datasets.{name} needs a path: the JSONL or Parquet file of your questions")
        return self


def load_profile(path: str | Path, overrides: dict[str, Any] | None = None) -> Profile:
    """Read and check a profile file; `overrides` maps dotted keys to values.

    Raises UserError naming the file and the key for anything unreadable, unknown or out of range.
    """
    path = Path(path)
    texts = _texts(path)
    wanted = (path, *texts, repr(overrides or {}))
    if wanted not in _loaded:  # a study asks for its profile some thousand times
        if len(_loaded) >= MOST_LOADED:
            _loaded.clear()
        content: dict = {}
        for text in reversed(texts):
            content = _merged(content, _parse_once(text))
        content.pop(BASE, None)
        _loaded[wanted] = _validated(path, copy.deepcopy(content), overrides or {})
    return _loaded[wanted]


def _texts(path: Path) -> tuple[str, ...]:
    """The text of a profile file and of those that it is based on, in this order; each is a mapping in YAML."""
    texts, seen = [], set()
    while True:
        if path in seen:
            raise UserError(f"The profile {path} is based on itself: take out one {BASE!r} of its chain.")
        seen.add(path)
        content, text = _read(path)
        texts.append(text)
        if BASE not in content:
            return tuple(texts)
        if not isinstance(content[BASE], str):
            raise UserError(f"The profile {path} has a bad value for {BASE!r}: give the name of a file beside it.")
        path = path.parent / content[BASE]


def _merged(content: Any, changes: Any) -> Any:
    """A mapping with another's values instead of its own; mappings within are merged, all else is replaced."""
    if not isinstance(content, dict) or not isinstance(changes, dict):
        return changes
    return content | {key: _merged(content.get(key), value) for key, value in changes.items()}


def _read(path: Path) -> tuple[dict, str]:
    try:
        text = path.read_text(encoding="utf-8")
        content = _parse_once(text)
        if not isinstance(content, dict):
            raise UserError(f"The profile {path} holds no settings: start from params/micro.yaml.")
        return content, text
    except FileNotFoundError:
        raise UserError(
            f"There is no profile {path}: give the path of a YAML file such as params/micro.yaml."
        ) from None
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"The profile {path} is not valid YAML{where} ({error.problem}): correct it there.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a bad date or number is a ValueError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"The profile {str(path)!r} cannot be read ({reason}): give a readable YAML file.") from None


MOST_LOADED = 256
BASE = "base"
_loaded: dict[tuple[Path | str, ...], Profile] = {}  # by file, the texts and the overrides; a Profile cannot change


def _validated(path: Path, content: dict, overrides: dict[str, Any]) -> Profile:
    for key, value in overrides.items():
        _override(content, key, value, path)
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(error, path)) from None


@lru_cache(maxsize=16)
def _parse_once(text: str) -> Any:  # YAML is slow to read
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a key that is there twice is an error: all but its last value would go unread."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping of a YAML node; ConstructorError, with the place, for a key that it has twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _override(content: dict, key: str, value: Any, path: Path) -> None:
    section, _, name = str(key).partition(".")
    known = _settings(content)
    if name not in known.get(section, ()):
        options = [f"{s}.{k}" for s, keys in known.items() for k in keys]
        close = [option for option in options if option.endswith(f".{key}") and not option.startswith("grid.")]
        close = close or difflib.get_close_matches(str(key), options, n=1, cutoff=0.4)
        hint = f": did you mean {close[0]!r}?" if close else ": use section.setting, as in 'reward_model.lam'."
        raise UserError(f"The override {key!r} names no setting of {path}{hint}")
    content.setdefault(section, {})[name] = value


def _settings(content: dict) -> dict[str, list[str]]:
    """The settings of each section: those that the file has, and those that it leaves to their defaults."""
    known = {}
    for section, field in Profile.model_fields.items():
        keys = content.get(section, {})
        if isinstance(keys, dict):
            known[section] = list(dict.fromkeys([*keys, *getattr(field.annotation, "model_fields", ())]))
    return known


def _explain(error: ValidationError, path: Path) -> str:
    errors = error.errors()
    # a model is a name or a section: where it is a section, that it is no name says nothing
    first = next((one for one in errors if not (one["loc"] and one["loc"][-1] == "str")), errors[0])
    place = tuple(part for part in first["loc"] if not re.search(r"^str$|\bModel\b", str(part)))  # unions' branches
    key = ".".join(map(str, place)) or "the file"
    if first["type"] == "extra_forbidden":
        known = _keys_of(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys there: {', '.join(known)}."
        return f"The profile {path} has an unknown key {key!r}: {hint}"
    if not place:
        return f"The profile {path} contradicts itself: {first['msg'].removeprefix('Value error, ')}."
    if first["type"] == "missing":
        return f"The profile {path} lacks the key {key!r}: add it (params/micro.yaml shows every key)."
    problem = first["msg"].removeprefix("Value error, ")
    return f"The profile {path} has a bad value for {key!r} ({repr(first['input'])[:80]}): {problem}."


def _keys_of(location: tuple) -> list[str]:
    model: Any = Profile
    of_dict: Any = Dataset
    for part in (part for part in location if isinstance(part, str)):  # an entry of a list has the list's keys
        field = getattr(model, "model_fields", {}).get(part)
        of_dict = Model if part in ("teachers", "students") else of_dict
        model = of_dict if field is None else field.annotation
        if getattr(model, "__origin__", None) is dict:
            model = of_dict
        if getattr(model, "__origin__", None) is list:
            model = model.__args__[0]
    return list(getattr(model, "model_fields", {}))
