"""The gallery: every table and figure of the report, each with what it shows and what it is made from.

    exhibit = EXHIBITS["figure_5_lambda"]
    table = exhibit.table(evidence)     # exactly what is drawn, from the result tables and nothing else
    figure = exhibit.draw(table)        # None in place of a function: the exhibit is a table

A table is written as CSV and Markdown, a figure as PDF and PNG beside the CSV of exactly the data that it shows.
`python -m rdlib.study.figures` is the command.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import claims, paper, plots, question_figures, report_figures, reviewers, tables
from rdlib.evidence.result_tables import Evidence

GRID = ("07_evaluate",)  # every cell of Table 2, with all that comes before
REWARD_MODELS = ("05_reward_model",)
ABLATIONS = ("08_ablation_lambda", "09_ablation_data_ratio", "10_ablation_reward_source", "11_ablation_correctness")
OURS = "`study_*` columns are this study's, with 95 % intervals; `paper_*` columns are the paper's."
PAIRED = "Accuracy in %, with 95 % intervals; `ours_minus_arm_*` are paired differences in percentage points."
ARMS = (
    "Accuracy on the test questions in %, with 95 % intervals over questions and seeds; small dots are single seeds, "
    "and the filled diamond is Ours."
)


@dataclass(frozen=True)
class Exhibit:
    """A table or figure: its file's stem, title and caption, the table behind it, and how that is drawn.

    `table` gives exactly what is drawn or written, before rounding. `rests_on`: the notebooks that train what it rests
    on. `questions`: those of the reviewers (R1-R7, and "RM" for what the reward model can give) that it is about;
    where no seed has answered them, there is no such exhibit. `answer`: what its table says, in words that go before
    the caption.
    """

    name: str
    title: str
    caption: str
    table: Callable[[Evidence], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure] | None
    rests_on: tuple[str, ...]
    questions: tuple[str, ...] = ()
    answer: Callable[[Evidence], str] | None = None

    @property
    def of_questions(self) -> bool:
        """Whether it needs answers to the reviewers' questions."""
        return bool(self.questions)

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of its files."""
        return ("csv", "md") if self.draw is None else ("csv", "pdf", "png")

    def note(self, evidence: Evidence) -> str:
        """The caption, after the answer where it gives one."""
        return self.caption if self.answer is None else f"{self.answer(evidence)} {self.caption}"


def draw_all(evidence: Evidence, out: Path) -> list[Path]:
    """Write every exhibit that the evidence has tables for to `out`; returns the paths written."""
    make_folder(out)
    shown = [exhibit for exhibit in EXHIBITS.values() if evidence.answered or not exhibit.of_questions]
    return [path for exhibit in shown for path in draw(exhibit, evidence, out)]


def draw_questions(evidence: Evidence, out: Path) -> list[Path]:
    """Write the exhibits of the reviewers' questions to `out`; nothing where no seed has answered them."""
    make_folder(out)
    shown = [exhibit for exhibit in EXHIBITS.values() if evidence.answered and exhibit.of_questions]
    return [path for exhibit in shown for path in draw(exhibit, evidence, out)]


def find(name: str) -> Exhibit:
    """An exhibit by its name; UserError that lists the close names, or all of them."""
    if name in EXHIBITS:
        return EXHIBITS[name]
    inside = [known for known in EXHIBITS if name and name.lower() in known]
    close = inside or difflib.get_close_matches(name.lower(), EXHIBITS, n=4, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"give one of {', '.join(EXHIBITS)}."
    raise UserError(f"There is no table or figure {name!r}: {hint}" if name else f"NAME is missing: {hint}")


def make_folder(folder: Path) -> None:
    """Make the folder of the exhibits; UserError where that can't be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} can't be made ({error.strerror}): give a folder that can be written to.") from None


def draw(exhibit: Exhibit, evidence: Evidence, out: Path) -> list[Path]:
    """Write one exhibit to `out`; returns the paths written. UserError for a result table that can't be used."""
    table = tables.rounded(exhibit.table(evidence))
    paths = [tables.write_csv(table, out / f"{exhibit.name}.csv")]
    if exhibit.draw is None:
        note = exhibit.note(evidence)
        return [*paths, tables.write_markdown(table, out / f"{exhibit.name}.md", exhibit.title, note)]
    with plots.style(evidence.benchmarks):
        return paths + save(exhibit.draw(table), out / exhibit.name)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF and PNG without dates (the same data give the same bytes), then close it."""
    formats = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
    paths = []
    for kind, metadata in formats.items():
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # the layout is made: the second format need not make it again
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        artifacts.write_bytes(paths[-1], content.getvalue())
    plt.close(figure)
    return paths


# ---- the tables of exhibits that need more than one call


def _claim_cells(evidence: Evidence, of_methods: bool) -> pd.DataFrame:
    """The cells of the claims about methods (C1-C4), or of the others."""
    cells = claims.cells_table(evidence.claims)
    return cells[cells.claim.isin(["C1", "C2", "C3", "C4"]) == of_methods]


def _sft_curves(evidence: Evidence) -> pd.DataFrame:
    history = tables.smoothed(evidence.sft_history, "loss")
    return tables.learning_curves(history, "step", list(report_figures.SFT_PANELS))


def _reward_model_curves(evidence: Evidence) -> pd.DataFrame:
    return tables.learning_curves(evidence.reward_model_history, "step", list(report_figures.REWARD_PANELS))


def _ppo_curves(evidence: Evidence) -> pd.DataFrame:
    return tables.learning_curves(evidence.ppo_history, "update", list(report_figures.PPO_PANELS))


def _lambda_curves(evidence: Evidence) -> pd.DataFrame:
    default = evidence.default("reward_model.lam")
    return tables.lambda_curves(evidence.reward_model_history, evidence.reward_scores, default)


def _ratio_points(evidence: Evidence) -> pd.DataFrame:
    return tables.ratio_points(evidence.reward_scores, evidence.default("reward_model.teacher_share"))


def _arms(question: str) -> Callable[[Evidence], pd.DataFrame]:
    """The accuracies of a question's arms."""
    return lambda evidence: evidence.arms[evidence.arms["question"] == question]


def _question_table(question: str) -> Callable[[Evidence], pd.DataFrame]:
    """The same as a table of its own: no empty columns, and the level by its name."""

    def table(evidence: Evidence) -> pd.DataFrame:
        """Rows of `accuracy_table` with the columns that say something."""
        found = _arms(question)(evidence).dropna(axis="columns", how="all").drop(columns="question")
        return found.rename(columns={"level": question_figures.LEVELS.get(question, "level")})

    return table


def _plain_answer(question: str) -> Callable[[Evidence], str]:
    return lambda evidence: reviewers.plain_answer(_arms(question)(evidence))


def _pareto(evidence: Evidence) -> pd.DataFrame:
    return question_figures.pareto_table(evidence.reviewers, evidence.question_costs)


def _of_question(question: str, title: str) -> Exhibit:
    """The table of a question's arms."""
    return Exhibit(
        name=f"question_{question.lower()}",
        title=title,
        caption=PAIRED,
        table=_question_table(question),
        draw=None,
        rests_on=("13_reviewer_runs",),
        questions=(question,),
        answer=_plain_answer(question),
    )


def _arms_figure(question: str, title: str) -> Exhibit:
    """The figure of a question's arms."""
    return Exhibit(
        name=f"figure_question_{question.lower()}",
        title=title,
        caption=ARMS,
        table=_arms(question),
        draw=question_figures.arms,
        rests_on=("13_reviewer_runs",),
        questions=(question,),
    )


# ---- everything, in the order of the report: the claims, then as notebooks 12 and 13 show it

_ALL = (
    Exhibit(
        name="claims",
        title="The paper's claims",
        caption="Verdicts are computed from the result tables by the criterion given, fixed beforehand.",
        table=lambda evidence: claims.claims_table(evidence.claims),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
    ),
    Exhibit(
        name="claims_cells",
        title="The paper's claims, cell by cell",
        caption="The differences behind each verdict; positive is what the paper claims.",
        table=lambda evidence: claims.cells_table(evidence.claims),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
    ),
    Exhibit(
        name="figure_claims_methods",
        title="Claims C1 to C4: Ours against other methods, cell by cell",
        caption="Differences in accuracy in percentage points, positive as the paper claims; above this study's, "
        "paired question by question, with 95 % intervals over questions and seeds (small dots: single seeds), below "
        "the paper's, which have no intervals.",
        table=lambda evidence: _claim_cells(evidence, of_methods=True),
        draw=report_figures.claims_of_methods,
        rests_on=GRID,
    ),
    Exhibit(
        name="figure_claims_ablations",
        title="Claims C5 to C9, cell by cell",
        caption="This study's differences, positive as the paper claims, with 95 % intervals over questions and seeds "
        "(C7: over seeds); small dots are single seeds. C5, C6 and C9 in percentage points, C7 and C8 in AUC.",
        table=lambda evidence: _claim_cells(evidence, of_methods=False),
        draw=report_figures.claims_of_ablations,
        rests_on=("02_pseudo_labels", *ABLATIONS),
    ),
    Exhibit(
        name="figure_2_pipeline",
        title="Figure 2: the pipeline",
        caption="The stages of Ours and what each reads, drawn from the study's own DAG.",
        table=lambda evidence: pd.DataFrame(evidence.edges, columns=["stage", "read_by"]),
        draw=report_figures.pipeline,
        rests_on=(),
    ),
    Exhibit(
        name="table_1_example",
        title="Table 1: an example",
        caption="Scores are the reward model's.",
        table=lambda evidence: tables.example_table(evidence.example),
        draw=None,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="table_2_main",
        title="Table 2: main results",
        caption=f"Accuracy in %. {OURS}",
        table=lambda evidence: tables.main_table(evidence.points),
        draw=None,
        rests_on=GRID,
    ),
    Exhibit(
        name="figure_main_results",
        title="Table 2 as a figure: accuracy of every method in every cell",
        caption="Accuracy on the test questions in %: above this study's, with 95 % intervals over questions and seeds "
        "(small dots: single seeds), below the paper's, which have no intervals.",
        table=lambda evidence: evidence.points,
        draw=report_figures.main_results,
        rests_on=GRID,
    ),
    Exhibit(
        name="figure_3_failure_ratio",
        title="Figure 3: questions without a pseudo-label",
        caption="Share of the training and validation questions on which no answer of the teacher passes the vote's "
        "threshold, in %, with 95 % intervals over questions; small dots are single seeds.",
        table=lambda evidence: tables.failure_ratios(evidence.pseudo_labels),
        draw=report_figures.failure_ratios,
        rests_on=("02_pseudo_labels",),
    ),
    Exhibit(
        name="figure_4_judged_correctness",
        title="Figure 4: how often the vote judges as the gold answer does",
        caption="Share judged correctly in %, of pseudo-labels (left) and of responses (right), with 95 % intervals "
        "over questions; small dots are single seeds.",
        table=lambda evidence: tables.judged_correctness(evidence.pseudo_labels),
        draw=report_figures.judged_correctness,
        rests_on=("02_pseudo_labels",),
    ),
    Exhibit(
        name="table_3_reward_model_auc",
        title="Table 3: reward models",
        caption=f"Validation AUC; intervals over queries. {OURS} `ours_wo_d` has no value in the paper.",
        table=lambda evidence: tables.auc_table(evidence.reward_scores),
        draw=None,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_reward_histograms",
        title="What the reward models score",
        caption="Densities of each reward model's score by kind of validation response, seeds pooled.",
        table=lambda evidence: tables.histogram_table(evidence.reward_scores),
        draw=report_figures.histograms,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_roc",
        title="ROC curves of the reward models",
        caption="Student positives against student negatives (Pos/Neg) and teacher positives against student positives "
        "(Pos/Pos) on validation questions, seeds pooled; dotted is chance.",
        table=lambda evidence: tables.roc_table(evidence.reward_scores),
        draw=report_figures.roc,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_5_lambda",
        title="Figure 5: validation AUC by lambda",
        caption="AUC along the training of the reward model for each lambda of Eq. 6, mean over seeds with 95 % "
        "intervals over seeds; at the right of each panel the checkpoint kept, with 95 % intervals over questions.",
        table=_lambda_curves,
        draw=report_figures.lambda_curves,
        rests_on=("08_ablation_lambda",),
    ),
    Exhibit(
        name="figure_6_data_ratio",
        title="Figure 6: validation AUC by the teacher's share of the positives",
        caption="AUC of reward models trained on other ratios of teacher to student positives, with 95 % intervals "
        "over questions; small dots are single seeds.",
        table=_ratio_points,
        draw=report_figures.data_ratio,
        rests_on=("09_ablation_data_ratio",),
    ),
    Exhibit(
        name="table_4_reward_source",
        title="Table 4: reward source",
        caption=f"Accuracy in %; gains over w/o reward are paired. {OURS}",
        table=lambda evidence: tables.reward_source_table(evidence.correctness),
        draw=None,
        rests_on=("10_ablation_reward_source",),
    ),
    Exhibit(
        name="table_7_correctness_validation",
        title="Table 7: what Eq. 7 does with a mismatch",
        caption="Accuracy in %; gains over Ours are paired. The paper's numbers are lost in the text.",
        table=lambda evidence: tables.correctness_validation_table(evidence.correctness),
        draw=None,
        rests_on=("11_ablation_correctness",),
    ),
    Exhibit(
        name="gsm_plus_by_perturbation",
        title="GSM-Plus by perturbation",
        caption="Accuracy in %.",
        table=lambda evidence: tables.accuracy_by_group(evidence.correctness, "gsm_plus", "perturbation"),
        draw=None,
        rests_on=GRID,
    ),
    Exhibit(
        name="mmlu_by_category",
        title="MMLU-Pro by category",
        caption="Accuracy in %.",
        table=lambda evidence: tables.accuracy_by_group(evidence.correctness, "mmlu", "category"),
        draw=None,
        rests_on=GRID,
    ),
    Exhibit(
        name="figure_learning_sft",
        title="Learning curves of SFT",
        caption="Loss in nats a token and agreement with the pseudo-labels, mean over seeds with 95 % intervals over "
        "seeds; the training loss is a mean of 20 steps.",
        table=_sft_curves,
        draw=report_figures.sft_curves,
        rests_on=("03_sft_warmup",),
    ),
    Exhibit(
        name="figure_learning_reward_model",
        title="Learning curves of the reward models",
        caption="Validation AUC along training, mean over seeds with 95 % intervals over seeds.",
        table=_reward_model_curves,
        draw=report_figures.reward_model_curves,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_learning_ppo",
        title="Learning curves of PPO",
        caption="Reward of Eq. 7, KL to the policy before PPO in nats a response, and agreement with the pseudo-labels "
        "on validation questions, mean over seeds with 95 % intervals over seeds.",
        table=_ppo_curves,
        draw=report_figures.ppo_curves,
        rests_on=("06_ppo",),
    ),
    Exhibit(
        name="table_5_hyperparameters_sft",
        title="Table 5 (and B.2): hyperparameters of SFT and reward models",
        caption=OURS,
        table=lambda evidence: tables.hyperparameter_table(evidence.settings, ("sft", "reward_model")),
        draw=None,
        rests_on=(),
    ),
    Exhibit(
        name="table_6_hyperparameters_ppo",
        title="Table 6: PPO",
        caption=f"{OURS} The paper's learning rates are lost in the text.",
        table=lambda evidence: tables.hyperparameter_table(evidence.settings, ("ppo",)),
        draw=None,
        rests_on=(),
    ),
    Exhibit(
        name="provenance",
        title="Where each constant comes from",
        caption="Stated: in the paper's text. Reconstructed: our reading of what is lost. Open: our choice.",
        table=lambda evidence: paper.provenance_table(evidence.settings),
        draw=None,
        rests_on=(),
    ),
    Exhibit(
        name="costs",
        title="What each stage cost",
        caption="Sums over all runs of a stage.",
        table=lambda evidence: tables.cost_table(evidence.costs),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
    ),
    _of_question("R1", "R1: stronger baselines"),
    _arms_figure("R1", "R1: accuracy of Ours and of stronger baselines"),
    _of_question("R2", "R2: SFT with as many teacher samples as the pipeline's tokens pay for"),
    _arms_figure("R2", "R2: accuracy with as many teacher samples as the pipeline's tokens pay for"),
    _of_question("R3", "R3: the teacher fine-tuned on its own labelled responses"),
    _arms_figure("R3", "R3: accuracy of the teacher fine-tuned on its own labelled responses"),
    _of_question("R4", "R4: wrong pseudo-labels"),
    Exhibit(
        name="figure_question_r4_flips",
        title="R4: accuracy against the share of flipped pseudo-labels",
        caption="Accuracy on the test questions in % where a share of the pseudo-labels is replaced by a wrong answer, "
        "with 95 % intervals over questions and seeds; small dots are single seeds.",
        table=_arms("R4"),
        draw=question_figures.label_noise,
        rests_on=("13_reviewer_runs",),
        questions=("R4",),
    ),
    Exhibit(
        name="figure_question_r4_threshold",
        title="R4: what the vote's threshold trades",
        caption="Left, the share of pseudo-labels equal to the gold answer against the share of questions that get "
        "one, along the threshold; right, the share of questions without one. In %, a line a benchmark and teacher.",
        table=lambda evidence: evidence.thresholds,
        draw=question_figures.thresholds,
        rests_on=("01_teacher_responses",),
        questions=("R4",),
    ),
    _of_question("R5", "R5: the vote, the reward model, and both"),
    _arms_figure("R5", "R5: accuracy of PPO on the vote, the reward model, and both"),
    Exhibit(
        name="question_r6_ledger",
        title="R6: what every stage costs",
        caption="Means over seeds. Operations: 2N a token sampled, 6N a token trained on; prompts and attention left "
        "out.",
        table=lambda evidence: question_figures.ledger_table(evidence.question_costs),
        draw=None,
        rests_on=("13_reviewer_runs",),
        questions=("R1", "R2"),
        answer=lambda evidence: f"Answer: {question_figures.cost_answer(_pareto(evidence))}",
    ),
    Exhibit(
        name="figure_question_r6_pareto",
        title="R6: accuracy against what making it costs",
        caption="Accuracy on the test questions in % (95 % intervals over questions and seeds) against the operations "
        "that making a model takes, inputs included, evaluation left out.",
        table=_pareto,
        draw=question_figures.pareto,
        rests_on=("13_reviewer_runs",),
        questions=("R1", "R2"),
    ),
    Exhibit(
        name="question_r7_seeds",
        title="R7: seeds",
        caption="Accuracy in %; sd over seeds in percentage points (none with one seed).",
        table=lambda evidence: question_figures.seed_table(evidence.correctness),
        draw=None,
        rests_on=GRID,
        questions=("R7",),
    ),
    Exhibit(
        name="figure_best_of_n",
        title="Choosing by reward among n samples",
        caption="Validation accuracy in % of three ways to use n samples a question of the student before PPO, with "
        "95 % intervals over questions.",
        table=lambda evidence: question_figures.best_of_n_table(evidence.judged),
        draw=question_figures.best_of_n,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="figure_calibration",
        title="Calibration of the reward model",
        caption="Share of correct validation responses against the sigmoid of their score, in ten bins of equal size, "
        "before and after PPO; dotted is perfect calibration.",
        table=lambda evidence: question_figures.reliability_table(evidence.judged),
        draw=question_figures.reliability,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="figure_reward_shift",
        title="What PPO does to the rewards",
        caption="Density of the reward model's score of sampled validation responses before and after PPO, seeds "
        "pooled.",
        table=lambda evidence: question_figures.reward_table(evidence.judged),
        draw=question_figures.rewards,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="figure_over_optimisation",
        title="Reward against true accuracy as the policy moves away",
        caption="Along PPO, against the KL to the policy before it in nats a response: the reward of Eq. 7 (left), the "
        "share of validation questions that are right by the gold answer and that agree with the vote (right); a line "
        "a seed.",
        table=lambda evidence: evidence.over_optimisation,
        draw=question_figures.over_optimisation,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="reward_model_length",
        title="Is the reward model paid for length?",
        caption="Spearman's correlation of score and tokens over validation responses.",
        table=lambda evidence: question_figures.length_table(evidence.judged),
        draw=None,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
)

EXHIBITS: dict[str, Exhibit] = {exhibit.name: exhibit for exhibit in _ALL}
