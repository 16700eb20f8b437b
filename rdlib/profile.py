"""Profiles: the schema of the files in `params/`, and overrides of single settings.

A profile holds every number of a run. Unknown keys are errors, and a test proves that each key of the
schema is read somewhere. An override is a dotted key with a value, as in {"reward_model.lam": 0.25}.
"""

from __future__ import annotations

import copy
import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from rdlib.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
Mismatch = Literal["negative_abs", "minus", "clip", "fixed", "none"]
Temperature = Annotated[float, Field(ge=0, le=5)]
AXES = ("dataset", "teacher", "student")
SEEDS = 2**32  # NumPy's generators take no more


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, list) else [value]
        if cls.model_fields[info.field_name].annotation is not bool and any(isinstance(v, bool) for v in values):
            raise ValueError("true and false (in YAML also yes, no, on and off) are no value for it")
        return value


class Model(Section):
    """A teacher or student: a folder, or a name on the hub, and the engine that samples from it as it is.

    A profile may give the folder or name alone. `engine` openai is any OpenAI-compatible server at `base_url`, whose
    key is read from the environment variable `api_key_env`; `timeout` is in seconds, and a request that fails is
    tried `attempts` times. replay reads recorded responses from `model`: a file, or a folder of them. vllm puts the
    LoRA `adapter`, a folder or a name on the hub, on the model.
    """

    model: str
    revision: str | None = None
    engine: Literal["transformers", "vllm", "openai", "replay"] = "transformers"
    tensor_parallel: Positive = 1
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Positive = 16
    requests_per_minute: Positive | None = None
    parameters: Annotated[float, Field(gt=0)] | None = Field(None, description="for estimates; None: count its files")
    timeout: Annotated[float, Field(gt=0)] = 600.0
    attempts: Positive = 8
    adapter: str | None = None

    @property
    def identity(self) -> str | dict[str, Any]:
        """What decides the model's responses, for a stage's key."""
        kept = self.model_dump(include={"model", "revision", "engine", "adapter"}, exclude_defaults=True)
        return self.model if set(kept) == {"model"} else kept


class Dataset(Section):
    """One training benchmark with its splits (question counts; None: all there are) and how its answers look.

    Real benchmarks come from the hub at the commit `revision` (None: that of tasks.sources), or from `path`: a folder
    of files of the same shape. `source` questions is a file `path` of your own questions, JSONL or Parquet
    (tasks.own_questions). `perturbed_path` and `perturbed_revision` say the same of GSM-Plus, on which students of
    gsm8k are evaluated. `split_seed` draws the splits, the same for all seeds of a study.
    """

    source: Literal["micro-gsm", "micro-mmlu", "gsm8k", "mmlu_pro", "questions"]
    answer: Literal["number", "text", "math", "choice", "phrase"]
    path: str | None = None
    revision: str | None = None
    perturbed_path: str | None = None
    perturbed_revision: str | None = None
    train: Positive | None
    validation: Positive | None
    test: Annotated[int, Field(ge=0)] | None
    perturbed_test: Annotated[int, Field(ge=0)] | None = Field(
        0, description="GSM-Plus style questions, evaluated but never trained on"
    )
    max_tokens: Positive = Field(description="longest response in tokens")
    split_seed: int = Field(0, ge=0)

    @field_validator("revision", "perturbed_revision")
    @classmethod
    def _is_a_commit(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9a-f]{40}", value):
            raise ValueError("a branch or tag can move, so give the commit, 40 hexadecimal digits")
        return value


class TeacherSampling(Section):
    """Section 3.1: temperatures of the high- and the low-confidence set."""

    high_temperatures: list[Temperature] = Field(min_length=1)
    low_temperatures: list[Temperature]
    samples_per_temperature: Positive


class Voting(Section):
    """Majority vote: the share of the high-confidence responses that the pseudo-label must exceed."""

    threshold: Share
    flip_share: Share = 0.0


class Sft(Section):
    """Eq. 1-2. `responses_per_question` caps the teacher responses of one question (None: all)."""

    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    max_length: Positive
    warmup_ratio: Share
    responses_per_question: Positive | None


class StudentSampling(Section):
    """Eq. 3: samples of the warmed-up student for each question."""

    samples: Positive
    temperature: Temperature


class RewardModel(Section):
    """Eq. 4-6. `samples_per_kind` is n; `teacher_share` the share of teacher responses among the positives."""

    lam: Share
    form: Literal["convex", "additive"]
    source: Literal["student", "teacher"]
    samples_per_kind: Positive
    teacher_share: Annotated[float, Field(gt=0, lt=1)]
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    evaluations_per_epoch: Positive
    patience: Positive


class Reward(Section):
    """Eq. 7: reward of an unextractable answer, and what a mismatch with the pseudo-label does.

    `source` "vote" (reviewers' question R5, not the paper's): 1 for a match, 0 otherwise, no reward model.
    """

    no_answer: float
    mismatch: Mismatch
    mismatch_constant: Annotated[float, Field(gt=0)]
    source: Literal["reward_model", "vote"] = "reward_model"


class Ppo(Section):
    """Eq. 8 and its optimisation.

    `sampler` vllm samples the rollouts with vLLM, whose weights follow the policy's at every update. Its probabilities
    differ a little from the trainer's; `sampler_ratio_cap` weighs each token by their ratio, cut at the cap (None: 1).
    """

    total_updates: Positive
    episodes_per_update: Positive
    epochs: Positive
    minibatch_size: Positive
    learning_rate: Rate
    value_learning_rate: Rate
    warmup_updates: int = Field(ge=0)
    kl_coef: Annotated[float, Field(ge=0)]
    kl_coef_without_warmup: Annotated[float, Field(ge=0)]
    clip_range: Annotated[float, Field(gt=0)]
    value_clip_range: Annotated[float, Field(gt=0)]
    vf_coef: Annotated[float, Field(ge=0)]
    gamma: Share
    gae_lambda: Share
    max_grad_norm: Annotated[float, Field(gt=0)]
    temperature: Annotated[float, Field(gt=0, le=5)]
    whiten_rewards: bool
    eval_every: Positive
    patience: Positive
    checkpoint_every: Positive
    sampler: Literal["transformers", "vllm"] = "transformers"
    sampler_ratio_cap: Annotated[float, Field(ge=1)] | None = None


class Baselines(Section):
    """Reviewers' question R1, ours and not the paper's; rft has the settings of `sft`.

    The defaults cost about what PPO costs in params/micro.yaml (24 x 256 episodes); the learning rates were chosen
    among two or three by validation agreement in its cells gsm and mmlu, strong, small. A step is an optimizer step
    on new samples; `dpo_batch_size` counts pairs. Each of the three is evaluated `evaluations` times.
    """

    evaluations: Positive = 6
    dpo_beta: Annotated[float, Field(gt=0)] = 0.1
    dpo_learning_rate: Rate = 1e-4
    dpo_epochs: Positive = 1
    dpo_batch_size: Positive = 32
    distillation_steps: Positive = 96
    distillation_prompts_per_step: Positive = 64
    distillation_learning_rate: Rate = 1e-3
    grpo_steps: Positive = 24
    grpo_prompts_per_step: Positive = 32
    grpo_samples_per_prompt: Annotated[int, Field(ge=2)] = 8
    grpo_learning_rate: Rate = 3e-4
    grpo_kl_coef: Annotated[float, Field(ge=0)] = 0.04


class Evaluation(Section):
    """Section 4.1: greedy decoding at `temperature` 0; `few_shot` worked examples in the ICL prompt."""

    temperature: Temperature
    few_shot: Positive


class Vllm(Section):
    """What vLLM is started with besides the model.

    `gpu_memory_utilization` is its share of the GPU's memory (of the machine's on a CPU; None: vLLM's own default, on a
    CPU a cache of 1 GiB); `max_model_len` the longest prompt and response in tokens (None: the model's own).
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    max_model_len: Positive | None = None
    enforce_eager: bool = False
    quantization: str | None = None


class Generation(Section):
    """How sampling is carried out: rows decoded together, and rows written to disk at a time.

    `engine` samples from the models that the study trains itself; `top_p` and `stop` hold for all sampling but PPO's.
    """

    batch_size: Positive
    shard_size: Positive
    engine: Literal["transformers", "vllm"] = "transformers"
    top_p: Rate = 1.0
    stop: list[Annotated[str, Field(min_length=1)]] = []
    vllm: Vllm = Vllm()


class Lora(Section):
    """Low-rank adapters (Hu et al. 2022), merged into the model when a stage saves it.

    `target_modules`: the linear layers that get one; "all-linear" is all but the output head.
    """

    r: Positive
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | list[str] = "all-linear"


class Training(Section):
    """How SFT, reward model and PPO are trained; all batch sizes of the profile stay those of an optimizer step.

    `processes`: one for each GPU; more than one, or an `accelerate` configuration (a file of params/accelerate), is
    started by `accelerate launch` (study.launch). Each process takes its share of a batch in `gradient_accumulation`
    parts. `precision` null: bf16 (autocast, float32 weights) on a GPU, fp32 on a CPU. `lora` null: all weights.
    """

    processes: Positive = 1
    accelerate: str | None = None
    gradient_accumulation: Positive = 1
    gradient_checkpointing: bool = False
    precision: Literal["fp32", "bf16"] | None = None
    lora: Lora | None = None


class Grid(Section):
    """What `make study` runs: the seeds, and the values of each ablation.

    For the reviewers' questions: shares of flipped pseudo-labels and thresholds of the vote (R4), and how many times
    the teacher's samples SFT gets to match the pipeline's tokens (R2).
    """

    seeds: list[Annotated[int, Field(ge=0, lt=SEEDS)]] = Field(min_length=1)
    lam: list[Share]
    teacher_share: list[Annotated[float, Field(gt=0, lt=1)]]
    mismatch: list[Mismatch]
    ablation_dataset: str
    ablation_teacher: str
    ablation_student: str
    flip_share: list[Share] = [0.05, 0.1, 0.2, 0.4]
    threshold: list[Share] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    compute_factor: Annotated[float, Field(gt=1)] = 2.0


class Hardware(Section):
    """What the machine has, for estimates and for the scheduler: GPUs, and peak bf16 operations of one.

    The utilisations are the shares of the peak that sampling and training usually reach; ours, rough.
    """

    gpus: int = Field(0, ge=0)
    gpu_memory_gib: Annotated[float, Field(gt=0)] = 80.0
    gpu_tflops: Annotated[float, Field(gt=0)] = 989.0
    sampling_utilisation: Rate = 0.15
    training_utilisation: Rate = 0.35


class Cell(Section):
    """Settings of some cells, as in the paper's Tables 5 and 6; an axis left out stands for all its values.

    `settings` maps dotted keys to values. A stage takes them only where it has all the axes named here.
    """

    dataset: str | None = None
    teacher: str | None = None
    student: str | None = None
    settings: dict[str, Any]

    def holds(self, axes: dict[str, str | None]) -> bool:
        """Whether a stage with these axes is of these cells."""
        return all(axes.get(name) == value for name in AXES if (value := getattr(self, name)) is not None)


class Profile(Section):
    """A whole profile. `runs` is where its artifacts go, relative to the repository."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    runs: str
    teachers: dict[str, str | Model]
    students: dict[str, str | Model]
    datasets: dict[str, Dataset]
    teacher_sampling: TeacherSampling
    voting: Voting
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
        return Model(model=model) if isinstance(model, str) else model

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
    def _ablation_cell_exists(self) -> Profile:
        for key, names in (
            ("dataset", self.datasets),
            ("teacher", self.teachers),
            ("student", self.students),
        ):
            value = getattr(self.grid, f"ablation_{key}")
            if value not in names:
                raise ValueError(f"grid.ablation_{key} is {value!r}, which is not one of {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _models_say_what_their_engines_need(self) -> Profile:
        for name in self.teachers | self.students:
            model = self.model_of(name)
            if model.engine == "openai" and model.base_url is None:
                raise ValueError(f"{name} is served by openai, so it needs a base_url such as http://localhost:8000/v1")
            if model.adapter is not None and model.engine != "vllm":
                raise ValueError(f"{name} has an adapter, which only the engine vllm puts on a model")
        for name in self.students:
            if self.model_of(name).engine in ("openai", "replay"):
                raise ValueError(f"the student {name} is to be trained, so its engine must be transformers or vllm")
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
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"There is no profile {path}: give the path of a YAML file such as params/micro.yaml."
        ) from None
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"The profile {path} is not valid YAML{where} ({error.problem}): mend it there.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a bad date or number is a ValueError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"The profile {str(path)!r} cannot be read ({reason}): give a readable YAML file.") from None
    if not isinstance(content, dict):
        raise UserError(f"The profile {path} holds no settings: start from params/micro.yaml.")
    for key, value in (overrides or {}).items():
        _override(content, key, value, path)
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(error, path)) from None


def _parse(text: str) -> Any:
    return copy.deepcopy(_parse_once(text))


@lru_cache(maxsize=16)
def _parse_once(text: str) -> Any:  # a study asks for its profile some thousand times, and YAML is slow to read
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
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        known = _keys_of(first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys there: {', '.join(known)}."
        return f"The profile {path} has an unknown key {key!r}: {hint}"
    if not first["loc"]:
        return f"The profile {path} contradicts itself: {first['msg'].removeprefix('Value error, ')}."
    if first["type"] == "missing":
        return f"The profile {path} lacks the key {key!r}: add it (params/micro.yaml shows every key)."
    problem = first["msg"].removeprefix("Value error, ")
    return f"The profile {path} has a bad value for {key!r} ({repr(first['input'])[:80]}): {problem}."


def _keys_of(location: tuple) -> list[str]:
    model: Any = Profile
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        model = Dataset if field is None else field.annotation
        if getattr(model, "__origin__", None) is dict:
            model = Dataset
    return list(getattr(model, "model_fields", {}))
