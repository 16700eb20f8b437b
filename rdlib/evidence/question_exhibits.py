"""The exhibits of the reviewers' questions and of what the reward model can give, in the order of notebook 13."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rdlib.evidence import question_figures, question_tables, reviewers
from rdlib.evidence.exhibit import Exhibit
from rdlib.evidence.result_tables import Evidence

PAIRED = (
    "Accuracy in %, with 95 % intervals; `ours_minus_arm_*` are paired differences in percentage points, each by "
    "itself: no interval allows for their number. Where PPO keeps the policy that it starts from, Ours is its "
    "warm-up."
)
# Questions on which the teacher's vote is sure are easier than the rest
ON_LABELLED = "on the validation questions with a pseudo-label"
ARMS = (
    "Accuracy on the test questions in %, with 95 % intervals over questions and seeds; small dots are single seeds, "
    "and the diamond is Ours; a panel a cell and benchmark."
)


def _arms(question: str) -> Callable[[Evidence], pd.DataFrame]:
    """The accuracies of a question's arms."""
    return lambda evidence: evidence.arms[evidence.arms["question"] == question]


def _question_table(question: str) -> Callable[[Evidence], pd.DataFrame]:
    """The same as a table of its own: no empty columns, and the level by its name."""

    def table(evidence: Evidence) -> pd.DataFrame:
        """Rows of `accuracy_table` with the columns that say something."""
        found = _arms(question)(evidence).dropna(axis="columns", how="all").drop(columns="question")
        return found.rename(columns={"level": question_tables.LEVELS.get(question, "level")})

    return table


def _plain_answer(question: str) -> Callable[[Evidence], str]:
    return lambda evidence: reviewers.plain_answer(_arms(question)(evidence))


def _pareto(evidence: Evidence) -> pd.DataFrame:
    return question_tables.pareto_table(evidence.reviewers, evidence.question_costs)


def _of_question(question: str, title: str) -> Exhibit:
    """The table of a question's arms."""
    return Exhibit(
        name=f"question_{question.lower()}",
        title=title,
        caption=PAIRED,
        table=_question_table(question),
        draw=None,
        rests_on=("13_experiment_runs",),
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
        rests_on=("13_experiment_runs",),
        questions=(question,),
    )


QUESTIONS = (
    _of_question("R1", "R1: stronger baselines"),
    _arms_figure("R1", "R1: accuracy of Ours and of stronger baselines"),
    _of_question("R2", "R2: SFT with more of the teacher's samples, about as many tokens as the pipeline samples"),
    _arms_figure("R2", "R2: accuracy with more of the teacher's samples, about as many tokens as the pipeline samples"),
    _of_question("R3", "R3: the teacher fine-tuned on its own labelled responses"),
    _arms_figure("R3", "R3: accuracy of the teacher fine-tuned on its own labelled responses"),
    _of_question("R4", "R4: wrong pseudo-labels"),
    Exhibit(
        name="figure_question_r4_flips",
        title="R4: accuracy against the share of flipped pseudo-labels",
        caption="Accuracy on the test questions in % where a share of the pseudo-labels is replaced by a wrong answer, "
        "with 95 % intervals over questions and seeds; small dots are single seeds; a panel a cell and "
        "benchmark.",
        table=_arms("R4"),
        draw=question_figures.label_noise,
        rests_on=("13_experiment_runs",),
        questions=("R4",),
    ),
    Exhibit(
        name="figure_question_r4_threshold",
        title="R4: what the vote's threshold trades",
        caption="Left, the share of pseudo-labels equal to the gold answer against the share of questions that get "
        "one, along the threshold; right, the share of questions without one. In %, a line a benchmark and teacher; "
        "the table has the intervals.",
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
        caption="Means over seeds, the stages behind each cell together. Operations with N parameters: 2N a token "
        "sampled or read, 6N a token trained on, twice that in PPO, which trains a policy and a value model; "
        "on-policy distillation has the teacher read what it trains on. Attention is left out, and the prompts of "
        "what is sampled. PPO on the vote has a reward model too: its value model begins with its body.",
        table=lambda evidence: question_tables.ledger_table(evidence.question_costs),
        draw=None,
        rests_on=("13_experiment_runs",),
        questions=("R1", "R2"),
        answer=lambda evidence: f"Answer: {question_tables.cost_answer(_pareto(evidence))}",
    ),
    Exhibit(
        name="figure_question_r6_pareto",
        title="R6: accuracy against what making it costs",
        caption="Accuracy on the test questions in % (95 % intervals over questions and seeds) against the operations "
        "that making a model takes, inputs included, evaluation left out; a panel a cell and benchmark.",
        table=_pareto,
        draw=question_figures.pareto,
        rests_on=("13_experiment_runs",),
        questions=("R1", "R2"),
    ),
    Exhibit(
        name="question_r7_seeds",
        title="R7: seeds",
        caption="Accuracy in %; sd over seeds in percentage points (none with one seed).",
        table=lambda evidence: question_tables.seed_table(evidence.correctness),
        draw=None,
        rests_on=("07_evaluate",),
        questions=("R7",),
    ),
    Exhibit(
        name="figure_best_of_n",
        title="Choosing by reward among n samples",
        caption=f"Accuracy in % {ON_LABELLED} of ways to use n samples a question of the student before PPO, with 95 % "
        "intervals over questions, a panel a cell. Of n samples, the distinct texts are fewer where they agree, so a "
        "choice among texts is worse than one among samples.",
        table=lambda evidence: question_tables.best_of_n_table(evidence.judged),
        draw=question_figures.best_of_n,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="figure_calibration",
        title="Calibration of the reward model",
        caption="Share of correct responses against the sigmoid of their score, in ten bins of equal size, before and "
        f"after PPO, {ON_LABELLED}, a panel a cell; dotted is perfect calibration.",
        table=lambda evidence: question_tables.reliability_table(evidence.judged),
        draw=question_figures.reliability,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="figure_reward_shift",
        title="What PPO does to the rewards",
        caption=f"Density of the reward model's score of responses sampled before and after PPO, {ON_LABELLED}, seeds "
        "pooled, a panel a cell.",
        table=lambda evidence: question_tables.reward_table(evidence.judged),
        draw=question_figures.rewards,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="figure_over_optimisation",
        title="Reward against true accuracy as the policy moves away",
        caption="Along PPO, against the KL to the policy before it in nats a response: the reward of Eq. 7 (left; both "
        "are means since the evaluation before), and how the share that is right by the gold answer, and that agrees "
        f"with the vote, has changed (right), {ON_LABELLED}. Pale: a seed; else the mean over seeds at the updates "
        "that all of them have; a row a cell.",
        table=lambda evidence: evidence.over_optimisation,
        draw=question_figures.over_optimisation,
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
    Exhibit(
        name="reward_model_length",
        title="Is the reward model paid for length?",
        caption=f"Spearman's correlation of score and tokens over responses, {ON_LABELLED}.",
        table=lambda evidence: question_tables.length_table(evidence.judged),
        draw=None,
        answer=lambda evidence: question_tables.length_answer(question_tables.length_table(evidence.judged)),
        rests_on=("13_reviewer_questions",),
        questions=("RM",),
    ),
)
