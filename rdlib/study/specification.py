"""What each stage of the study is: its axes, the artifacts and settings it reads, and the function that computes it.

    STAGES["05_reward_model"].inputs_of("ours")   # {"data": Input(...), "teacher": ..., "warmup": ..., "student": ...}

One declaration a stage, in the order of the method; nothing else says what a stage needs. A function lives in
`rdlib.method` (or `rdlib.tasks`, for the questions) and is called with the stage and the folder to write into.

    code_of("rdlib.method.sft")   # a hash of the module, and of every module of rdlib that it imports

This is the code's part of a stage's key. Modules are compared by their syntax trees without docstrings, so comments,
docstrings and layout change nothing. A package's own `__init__` counts where it is imported itself, not where one of
its modules is. The hash is computed once a process, like the import of a module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError

BASELINES = ("rft", "dpo", "distillation", "grpo")  # reviewers' question R1
SFT = ("sft", "ours_wo_r")
PPO = ("ours", "ours_wo_d")
TRAINED = (*SFT, *PPO, *BASELINES)
METHODS = ("teacher", "icl", *SFT, "ours_wo_d", "ours", *BASELINES)
UNUSED = {"teacher": "student", "icl": "teacher"}  # the axis that a method does not have

DATASET = ("dataset",)
TEACHER = ("dataset", "teacher")
CELL = ("dataset", "teacher", "student", "method")


@dataclass(frozen=True)
class Input:
    """Artifacts that a stage reads: the name it knows them by, and the stage of the same cell that makes them.

    They are those of the reader's own method, or of `method`. Read for the reader's methods in `only` (empty: for all).
    `student` is the setting that may name another student than the reader's, whose artifacts are read then.
    """

    name: str
    stage: str
    method: str | None = None
    only: tuple[str, ...] = ()
    student: str | None = None


@dataclass(frozen=True)
class StageSpec:
    """One stage: the function that computes it, its axes, what it reads, and the notebook that runs it.

    `sections` are those of the profile whose settings it reads itself, besides its dataset's and its models'.
    `methods`: those that have this stage, where method is one of its axes. `unvaried`: no override reaches it, so that
    all variants are measured by the same. Its notebook has the stage's name, unless it is shown in another.
    """

    name: str
    function: str
    axes: tuple[str, ...]
    inputs: tuple[Input, ...] = ()
    sections: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    unvaried: bool = False
    shown_in: str = ""

    @property
    def notebook(self) -> str:
        """The notebook that runs it."""
        return self.shown_in or self.name

    @property
    def code(self) -> str:
        """Hash of the code that computes the stage."""
        return code_of(self.function.partition(":")[0])

    def inputs_of(self, method: str | None) -> dict[str, Input]:
        """The inputs that the stage has for a method, by name."""
        return {one.name: one for one in self.inputs if not one.only or method in one.only}


DATA = Input("data", "00_data")
GOLD = Input("gold", "00_gold")
RESPONSES = Input("teacher", "01_teacher_responses")
LABELS = Input("labels", "02_pseudo_labels")
WARMUP = Input("warmup", "03_sft_warmup", method="ours_wo_r", only=("ours", *BASELINES))
STUDENT = Input("student", "04_student_responses")
REWARD_MODEL = Input("reward_model", "05_reward_model")
MODELS = (
    Input("model", "03_sft_warmup", only=SFT),
    Input("model", "06_ppo", only=PPO),
    Input("model", "13_baseline", only=BASELINES),
)

FURTHER = "13_experiment_runs"  # the notebook of stages that measure a run, or are an experiment's alone

DECLARED = (
    StageSpec("00_data", "rdlib.tasks.data:run", DATASET),
    StageSpec("00_gold", "rdlib.tasks.data:run_gold", DATASET, shown_in="00_data"),
    StageSpec(
        "01_teacher_responses",
        "rdlib.method.teacher:run",
        TEACHER,
        inputs=(DATA,),
        sections=("teacher_sampling", "generation"),
    ),
    StageSpec(
        "01_held_out",
        "rdlib.method.held_out:run",
        TEACHER,
        inputs=(DATA, GOLD),  # gold answers say which questions have none
        sections=("teacher_sampling", "voting", "generation"),
        unvaried=True,
        shown_in="01_teacher_responses",
    ),
    StageSpec("02_pseudo_labels", "rdlib.method.voting:run", TEACHER, inputs=(DATA, RESPONSES), sections=("voting",)),
    StageSpec(
        "02_judgement",
        "rdlib.method.voting:run_judgement",
        TEACHER,
        inputs=(RESPONSES, LABELS, GOLD),
        shown_in="02_pseudo_labels",
    ),
    StageSpec(
        "03_sft_warmup",
        "rdlib.method.sft:run",
        CELL,
        inputs=(DATA, RESPONSES, LABELS),
        sections=("sft", "stopping", "generation", "training"),
        methods=SFT,
    ),
    StageSpec(
        "04_student_responses",
        "rdlib.method.student:run",
        CELL,
        inputs=(DATA, LABELS, WARMUP),
        sections=("student_sampling", "generation"),
        methods=PPO,
    ),
    StageSpec(
        "05_reward_model",
        "rdlib.method.reward_model:run",
        CELL,
        inputs=(DATA, RESPONSES, LABELS, replace(WARMUP, student="reward_model.student"), STUDENT),
        sections=("reward_model", "stopping", "training"),
        methods=PPO,
    ),
    StageSpec(
        "06_ppo",
        "rdlib.method.rl:run",
        CELL,
        inputs=(DATA, LABELS, WARMUP, STUDENT, REWARD_MODEL),
        sections=("reward", "ppo", "stopping", "generation", "training"),
        methods=PPO,
    ),
    StageSpec(
        "07_evaluate",
        "rdlib.method.evaluate:run",
        CELL,
        inputs=(DATA, GOLD, *MODELS),
        sections=("evaluation", "generation"),
        methods=METHODS,
    ),
    StageSpec(
        "13_validation_answers",
        "rdlib.method.evaluate:run_validation",
        CELL,
        inputs=(DATA, GOLD, LABELS, *MODELS),
        sections=("evaluation", "generation"),
        methods=TRAINED,
        shown_in=FURTHER,
    ),
    StageSpec(
        "13_perturbed_answers",
        "rdlib.method.evaluate:run_perturbed",
        CELL,
        inputs=MODELS,
        sections=("evaluation", "generation"),
        methods=TRAINED,
        shown_in=FURTHER,
    ),
    StageSpec(
        "13_style", "rdlib.method.style:run", CELL, inputs=(DATA, WARMUP, REWARD_MODEL), methods=PPO, shown_in=FURTHER
    ),
    StageSpec(
        "13_judged_responses",
        "rdlib.method.judged:run",
        CELL,
        inputs=(DATA, LABELS, STUDENT, GOLD, REWARD_MODEL, Input("ppo", "06_ppo")),
        sections=("student_sampling", "generation"),
        methods=PPO,
        shown_in=FURTHER,
    ),
    StageSpec(
        "13_sampled_responses",
        "rdlib.method.judged:run_sampled",
        CELL,
        inputs=(DATA, LABELS, GOLD, replace(REWARD_MODEL, method="ours"), *MODELS),
        sections=("student_sampling", "generation"),
        methods=TRAINED,
        shown_in=FURTHER,
    ),
    StageSpec(
        "13_baseline",
        "rdlib.method.baselines:run",
        CELL,
        inputs=(DATA, RESPONSES, LABELS, WARMUP, Input("student", "04_student_responses", method="ours")),
        sections=("baselines", "teacher_sampling", "sft", "reward_model", "stopping", "generation", "training"),
        methods=BASELINES,
        shown_in=FURTHER,
    ),
)
STAGES = {spec.name: spec for spec in DECLARED}
SECTIONS = {section for spec in STAGES.values() for section in spec.sections}

# Settings that spread a computation over devices, choose its kernels or report on it, and leave its result as it is,
# up to rounding, so no key holds them. (`training.precision` and `weights` say how coarse rounding is: they decide.)
# Where training samples, each process draws random numbers of its own, so there their number counts.
SPREADING = {
    ("training", name)
    for name in (
        *("processes", "accelerate", "gradient_accumulation", "gradient_checkpointing"),
        *("attention", "compile", "report_to"),
    )
} | {("ppo", "sampler_server"), ("ppo", "sampler_sleep")}
SAMPLES_BY_PROCESS = {"06_ppo": {("training", "processes")}}


def decides(stage: str, section: str, name: str) -> bool:
    """Whether a setting decides a stage's artifacts, and not only how they are computed."""
    return (section, name) not in SPREADING - SAMPLES_BY_PROCESS.get(stage, set())


def dag_edges(last: str = "07_evaluate", method: str = "ours") -> list[tuple[str, str]]:
    """Edges (input stage, stage) of a method's DAG up to its stage `last`, upstream ones first."""
    edges: dict[tuple[str, str], None] = {}

    def visit(name: str, method: str) -> None:
        """Add the edges into a stage, after those of the stages before it."""
        for one in STAGES[name].inputs_of(method).values():
            if (one.stage, name) not in edges:
                visit(one.stage, one.method or method)
                edges[one.stage, name] = None

    visit(last, method)
    return list(edges)


# ---- the code that a stage uses

PACKAGE = Path(__file__).resolve().parent.parent
# Modules that decide which stage runs when and where, how its files are written, and what it says when it fails, but
# nothing of their content; what only they import counts neither. The settings that `profile` reads are in a stage's
# key by their values.
ORCHESTRATION = {"rdlib.artifacts", "rdlib.errors", "rdlib.paths", "rdlib.profile", "rdlib.settings"} | {
    f"rdlib.study.{name}" for name in ("dag", "experiments", "jobs", "specification", "stage")
}


@cache
def code_of(*modules: str) -> str:
    """Hash of the code of these modules and of all that they import; UserError for a module that cannot be read."""
    return artifacts.content_hash({name: _module(name)[0] for name in sorted(reached(*modules))})


def reached(*modules: str) -> set[str]:
    """The names of these modules and of those of rdlib that they import, without those of ORCHESTRATION."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found | ORCHESTRATION:
            found.add(name)
            waiting += _module(name)[1]
    return found


@cache
def _module(name: str) -> tuple[str, list[str]]:
    """A module's hash without docstrings and places, and the modules of rdlib that it imports."""
    try:
        tree = ast.parse(_path(name).read_bytes())
    except (AttributeError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"The code of {name} cannot be read ({error}): correct or restore its file.") from None
    imported = []
    for node in ast.walk(tree):
        imported += _imported(node)
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return artifacts.content_hash(ast.dump(tree)), imported


def _imported(node: ast.AST) -> Iterator[str]:
    """The modules of rdlib that an import statement names; none for any other node."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if _path(name) else node.module for name in names]
    return (name for name in names if _path(name))


@cache
def _path(module: str) -> Path | None:
    """The file of a module of rdlib, None where there is no such module."""
    package, *parts = module.split(".")
    place = PACKAGE.joinpath(*parts)
    paths = (place.with_suffix(".py"), place / "__init__.py") if package == "rdlib" and parts else ()
    return next((path for path in paths if path.is_file()), None)
