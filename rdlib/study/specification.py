"""What each stage of the study is: its axes, the artifacts and settings it reads, and the function that computes it.

    STAGES["05_reward_model"].inputs_of("ours")   # {"data": Input(...), "teacher": ..., "warmup": ..., "student": ...}

One declaration a stage, in the order of the method; nothing else says what a stage needs. A function lives in
`rdlib.method` (or `rdlib.tasks`, for the questions) and is called with the stage and the folder to write into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rdlib.study import code_identity

BASELINES = ("rft", "dpo", "distillation", "grpo")  # reviewers' question R1
SFT = ("sft", "ours_wo_r")
PPO = ("ours", "ours_wo_d")
TRAINED = (*SFT, *PPO, *BASELINES)
METHODS = ("teacher", "icl", *SFT, "ours_wo_d", "ours", *BASELINES)

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
    all variants are measured by the same.
    """

    name: str
    function: str
    axes: tuple[str, ...]
    inputs: tuple[Input, ...]
    sections: tuple[str, ...]
    notebook: str
    methods: tuple[str, ...] = ()
    unvaried: bool = False

    @property
    def code(self) -> str:
        """Hash of the code that computes the stage."""
        return code_identity.of(self.function.partition(":")[0])

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

STAGES = {
    spec.name: spec
    for spec in (
        StageSpec(
            name="00_data",
            function="rdlib.tasks.data:run",
            axes=DATASET,
            inputs=(),
            sections=(),
            notebook="00_data",
        ),
        StageSpec(
            name="00_gold",
            function="rdlib.tasks.data:run_gold",
            axes=DATASET,
            inputs=(),
            sections=(),
            notebook="00_data",
        ),
        StageSpec(
            name="01_teacher_responses",
            function="rdlib.method.teacher:run",
            axes=TEACHER,
            inputs=(DATA,),
            sections=("teacher_sampling", "generation"),
            notebook="01_teacher_responses",
        ),
        StageSpec(
            name="01_held_out",
            function="rdlib.method.held_out:run",
            axes=TEACHER,
            inputs=(DATA, GOLD),  # gold answers say which questions have none
            sections=("teacher_sampling", "voting", "generation"),
            notebook="01_teacher_responses",
            unvaried=True,
        ),
        StageSpec(
            name="02_pseudo_labels",
            function="rdlib.method.voting:run",
            axes=TEACHER,
            inputs=(DATA, RESPONSES),
            sections=("voting",),
            notebook="02_pseudo_labels",
        ),
        StageSpec(
            name="02_judgement",
            function="rdlib.method.voting:run_judgement",
            axes=TEACHER,
            inputs=(RESPONSES, LABELS, GOLD),
            sections=(),
            notebook="02_pseudo_labels",
        ),
        StageSpec(
            name="03_sft_warmup",
            function="rdlib.method.sft:run",
            axes=CELL,
            inputs=(DATA, RESPONSES, LABELS),
            sections=("sft", "stopping", "generation", "training"),
            notebook="03_sft_warmup",
            methods=SFT,
        ),
        StageSpec(
            name="04_student_responses",
            function="rdlib.method.student:run",
            axes=CELL,
            inputs=(DATA, LABELS, WARMUP),
            sections=("student_sampling", "generation"),
            notebook="04_student_responses",
            methods=PPO,
        ),
        StageSpec(
            name="05_reward_model",
            function="rdlib.method.reward_model:run",
            axes=CELL,
            inputs=(DATA, RESPONSES, LABELS, replace(WARMUP, student="reward_model.student"), STUDENT),
            sections=("reward_model", "stopping", "training"),
            notebook="05_reward_model",
            methods=PPO,
        ),
        StageSpec(
            name="06_ppo",
            function="rdlib.method.rl:run",
            axes=CELL,
            inputs=(DATA, LABELS, WARMUP, STUDENT, REWARD_MODEL),
            sections=("reward", "ppo", "stopping", "generation", "training"),
            notebook="06_ppo",
            methods=PPO,
        ),
        StageSpec(
            name="07_evaluate",
            function="rdlib.method.evaluate:run",
            axes=CELL,
            inputs=(DATA, GOLD, *MODELS),
            sections=("evaluation", "generation"),
            notebook="07_evaluate",
            methods=METHODS,
        ),
        StageSpec(
            name="13_validation_answers",
            function="rdlib.method.evaluate:run_validation",
            axes=CELL,
            inputs=(DATA, GOLD, LABELS, *MODELS),
            sections=("evaluation", "generation"),
            notebook="13_experiment_runs",
            methods=TRAINED,
        ),
        StageSpec(
            name="13_perturbed_answers",
            function="rdlib.method.evaluate:run_perturbed",
            axes=CELL,
            inputs=MODELS,
            sections=("evaluation", "generation"),
            notebook="13_experiment_runs",
            methods=TRAINED,
        ),
        StageSpec(
            name="13_style",
            function="rdlib.method.style:run",
            axes=CELL,
            inputs=(DATA, WARMUP, REWARD_MODEL),
            sections=(),
            notebook="13_experiment_runs",
            methods=PPO,
        ),
        StageSpec(
            name="13_judged_responses",
            function="rdlib.method.judged:run",
            axes=CELL,
            inputs=(DATA, LABELS, STUDENT, GOLD, REWARD_MODEL, Input("ppo", "06_ppo")),
            sections=("student_sampling", "generation"),
            notebook="13_experiment_runs",
            methods=PPO,
        ),
        StageSpec(
            name="13_baseline",
            function="rdlib.method.baselines:run",
            axes=CELL,
            inputs=(DATA, RESPONSES, LABELS, WARMUP, Input("student", "04_student_responses", method="ours")),
            sections=("baselines", "teacher_sampling", "sft", "reward_model", "stopping", "generation", "training"),
            notebook="13_experiment_runs",
            methods=BASELINES,
        ),
    )
}
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
