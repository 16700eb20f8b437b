"""The exhibits of the paper's own results and of its claims, in the order of the report and of notebook 12."""

from __future__ import annotations

import pandas as pd

from rdlib.evidence import (
    claims,
    convergence,
    curve_tables,
    forgetting,
    health,
    paper,
    paper_figures,
    paper_tables,
    power_tables,
    ppo_reach,
    same_rate,
    tables,
)
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.exhibit import GOLD, Exhibit
from rdlib.evidence.result_tables import Evidence

GRID = ("07_evaluate",)  # every cell of Table 2, with all that comes before
REWARD_MODELS = ("05_reward_model",)
RIVALS = ("sft", "ours_wo_d")  # methods that Ours is compared with and that its student does not need
ABLATIONS = ("08_ablation_lambda", "09_ablation_data_ratio", "10_ablation_reward_source", "11_ablation_correctness")
COLUMNS = "`study_*` columns are this study's; `paper_*` columns are the paper's."
HELD = "In the pale part of a curve, seeds that have ended are held at their last value."
SAME = "Where PPO keeps the policy that it starts from, policies are the same and their difference is 0."
OURS = "`study_*` columns are this study's, with 95 % intervals; `paper_*` columns are the paper's."


def _unjudged(evidence: Evidence) -> str:
    """Which claims a part of a study cannot judge, in a sentence; "" where all are judged."""
    judged = {claim.name for claim in evidence.claims()}
    others = [name for name in load_criteria() if name not in judged]
    return f"Not judged, since these results lack runs to judge them by: {tables.listed(others)}." if others else ""


def _sft_curves(evidence: Evidence) -> pd.DataFrame:
    history = curve_tables.smoothed(evidence.sft_history, "loss")
    return curve_tables.learning_curves(history, "step", list(paper_figures.SFT_PANELS))


def _reward_model_curves(evidence: Evidence) -> pd.DataFrame:
    return curve_tables.learning_curves(evidence.reward_model_history, "step", list(paper_figures.REWARD_PANELS))


def _ppo_curves(evidence: Evidence) -> pd.DataFrame:
    return curve_tables.learning_curves(evidence.ppo_history, "update", list(paper_figures.PPO_PANELS))


def _lambda_curves(evidence: Evidence) -> pd.DataFrame:
    default = evidence.default("reward_model.lam")
    return curve_tables.lambda_curves(evidence.reward_model_history, evidence.reward_scores, default)


def _ratio_points(evidence: Evidence) -> pd.DataFrame:
    return curve_tables.ratio_points(evidence.reward_scores, evidence.default("reward_model.teacher_share"))


PAPER = (
    Exhibit(
        name="claims",
        title="The paper's claims",
        caption="Verdicts are computed from the result tables by the criterion given, fixed beforehand. `low` and "
        "`high` end the interval of the mean difference, or of the best cell where the note says so, of `level_pct` "
        "% and over what `interval_over` names. Of `pairs` of policies, `pairs_alike` answer every question alike. "
        "Cells are significant by p-values adjusted for their number (Holm).",
        table=lambda evidence: claims.claims_table(evidence.claims()),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
        methods=RIVALS,
        needs=GOLD,
        answer=_unjudged,
    ),
    Exhibit(
        name="claims_cells",
        title="The paper's claims, cell by cell",
        caption="The differences behind each verdict; positive is what the paper claims. Intervals are of "
        "`level_pct` %; `n` counts questions, of C7 seeds.",
        table=lambda evidence: claims.cells_table(evidence.claims()),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
        methods=RIVALS,
        needs=GOLD,
    ),
    Exhibit(
        name="power",
        title="Power: what the claims about accuracies can tell",
        caption="From the variances of these results: the standard errors that seeds, questions and the rest add; the "
        "half-width of the 95 % interval by them, and the one that 80 % power to tell `smallest_pp` from 0 needs; the "
        "power there is; the difference told with 80 % power; the seeds needed with these questions (cautious: by the "
        "upper 80 % limit of the seeds' variance), and how many times these questions with these seeds. A dash: no "
        "number is enough. A cell in which all policies are the same is left out. docs/power.md says how.",
        table=lambda evidence: power_tables.power_table(evidence.estimates),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
        needs=f"{GOLD} and two seeds",
    ),
    Exhibit(
        name="power_plans",
        title="Power with other numbers of seeds and questions",
        caption="Power to tell the smallest difference of interest from zero, and the difference told with 80 % power: "
        "of the mean over a claim's cells, and of the median of its cells. `questions_times`: as many times the "
        "questions of these results.",
        table=lambda evidence: power_tables.plans(evidence.estimates),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
        needs=f"{GOLD} and two seeds",
    ),
    Exhibit(
        name="figure_claims_methods",
        title="Claims C1 to C4: Ours against other methods, cell by cell",
        caption="Differences in accuracy in percentage points, positive as the paper claims: this study's "
        "(diamonds), paired question by question, with 95 % intervals over questions and seeds (C4: wider, for the "
        "number of its cells; small dots: single seeds), and the paper's (crosses), which have no intervals. At the "
        "bottom the mean of the cells. Where PPO keeps the policy that it starts from, Ours is Ours w/o R and "
        "differs by 0. Titles have the verdicts.",
        table=lambda evidence: claims.cells_and_means(evidence.claims("C1", "C2", "C3", "C4")),
        draw=paper_figures.claims_of_methods,
        rests_on=GRID,
        methods=RIVALS,
        needs=GOLD,
    ),
    Exhibit(
        name="figure_claims_ablations",
        title="Claims C5 to C9, cell by cell",
        caption="This study's differences, positive as the paper claims, with 95 % intervals over questions and "
        "seeds (C7: over seeds, with one seed a margin); small dots are single seeds (C8: what a seed's own curves "
        "spread, which chance makes more than what their mean does), at the bottom the mean of the cells. C5, C6 and "
        "C9 in percentage points, C7 and C8 in AUC. Titles have the verdicts.",
        table=lambda evidence: claims.cells_and_means(evidence.claims("C5", "C6", "C7", "C8", "C9")),
        draw=paper_figures.claims_of_ablations,
        rests_on=("02_pseudo_labels", *ABLATIONS),
        needs=GOLD,
    ),
    Exhibit(
        name="same_rate",
        title="C1 where SFT has the warm-up's learning rate",
        caption="Differences in accuracy in percentage points, paired by question, with 95 % intervals over seeds and "
        "questions, in every cell of Table 2 and on their mean. SFT of the same seeds was trained once more with the "
        "learning rate of the warm-up, all else being the same (`python -m rdlib study --experiments same_rate`).",
        table=lambda evidence: same_rate.rate_table(evidence.rates),
        draw=None,
        rests_on=(),
        of_same_rate=True,
        answer=lambda evidence: same_rate.plain_answer(evidence.rates),
    ),
    Exhibit(
        name="figure_same_rate",
        title="Ours minus SFT, with SFT's own learning rate and with the warm-up's",
        caption="Differences in accuracy in percentage points with 95 % intervals over seeds and questions, positive "
        "where Ours is better; small dots are single seeds, at the bottom the mean of the cells.",
        table=lambda evidence: same_rate.rate_table(evidence.rates),
        draw=same_rate.draw,
        rests_on=(),
        of_same_rate=True,
    ),
    Exhibit(
        name="figure_2_pipeline",
        title="Figure 2: the pipeline",
        caption="The stages of Ours and what each reads, drawn from the study's own DAG: those of the teacher "
        "green, of the student blue, of rewards orange. Pale: where an artifact is read again further on.",
        table=lambda evidence: pd.DataFrame(evidence.edges, columns=["stage", "read_by"]),
        draw=paper_figures.pipeline,
        rests_on=(),
    ),
    Exhibit(
        name="table_1_example",
        title="Table 1: an example",
        caption="Scores are the reward model's.",
        table=lambda evidence: paper_tables.example_table(evidence.example),
        draw=None,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="table_2_main",
        title="Table 2: main results",
        caption=f"Accuracy in %. {OURS}",
        table=lambda evidence: paper_tables.main_table(evidence.points),
        draw=None,
        rests_on=GRID,
        needs=GOLD,
    ),
    Exhibit(
        name="figure_main_results",
        title="Table 2 as a figure: accuracy of every method in every cell",
        caption="Accuracy on the test questions in %: above this study's, with 95 % intervals over questions and seeds "
        "(small dots: single seeds), below the paper's, which have no intervals.",
        table=lambda evidence: evidence.points,
        draw=paper_figures.main_results,
        rests_on=GRID,
        needs=GOLD,
    ),
    Exhibit(
        name="held_out_agreement",
        title="Agreement with the teacher's vote on held-out questions",
        caption="Share in % of the held-out questions on which the answer is the teacher's vote, with 95 % intervals; "
        "`n` of the `held_out` questions have a vote. The gain over `icl`, the student before training, is paired. "
        "`teacher` is its own greedy answer. This is no accuracy: where the teacher is wrong, an answer that agrees is "
        "wrong too. Nothing was trained or chosen on these questions.",
        table=lambda evidence: paper_tables.agreement_table(evidence.agreement),
        draw=None,
        rests_on=GRID,
        held_out=True,
    ),
    Exhibit(
        name="health",
        title="What PPO did to your student",
        caption="Before any training, after the warm-up and after PPO. Agreement with the teacher's vote, or accuracy "
        "where as many have gold answers, is on held-out questions, its change paired with a 95 % interval in points. "
        "Answers are greedy, to the test questions. The reward is the mean of PPO's first and last ten updates.",
        table=lambda evidence: health.table(health.measured(evidence)),
        draw=None,
        rests_on=GRID,
        answer=lambda evidence: health.verdict(health.measured(evidence)),
        of_own=True,
    ),
    Exhibit(
        name="figure_3_failure_ratio",
        title="Figure 3: questions without a pseudo-label",
        caption="Share of the training and validation questions on which no answer of the teacher passes the vote's "
        "threshold, in %, with 95 % intervals over questions; small dots are single seeds.",
        table=lambda evidence: curve_tables.failure_ratios(evidence.pseudo_labels),
        draw=paper_figures.failure_ratios,
        rests_on=("02_pseudo_labels",),
    ),
    Exhibit(
        name="figure_4_judged_correctness",
        title="Figure 4: how often the vote judges as the gold answer does",
        caption="Share judged correctly in %, of pseudo-labels (left) and of responses (right), with 95 % intervals "
        "over questions; small dots are single seeds.",
        table=lambda evidence: curve_tables.judged_correctness(evidence.pseudo_labels),
        draw=paper_figures.judged_correctness,
        rests_on=("02_pseudo_labels",),
        needs=GOLD,
    ),
    Exhibit(
        name="table_3_reward_model_auc",
        title="Table 3: reward models",
        caption="AUC on the validation queries by which the checkpoint was chosen, so a little too high; intervals "
        "over queries. Each student's own responses: those of `ours_wo_d` are others, of the student before "
        f"training. {OURS} `ours_wo_d` has no value in the paper.",
        table=lambda evidence: paper_tables.auc_table(evidence.reward_scores),
        draw=None,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_reward_histograms",
        title="What the reward models score",
        caption="Densities of each reward model's score by kind of validation response, seeds pooled.",
        table=lambda evidence: curve_tables.histogram_table(evidence.reward_scores),
        draw=paper_figures.histograms,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_roc",
        title="ROC curves of the reward models",
        caption="Student positives against student negatives (Pos/Neg) and teacher positives against student positives "
        "(Pos/Pos) on validation questions, seeds pooled; dotted is chance.",
        table=lambda evidence: curve_tables.roc_table(evidence.reward_scores),
        draw=paper_figures.roc,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_5_lambda",
        title="Figure 5: validation AUC by lambda",
        caption="AUC along the training of the reward model for each lambda of Eq. 6, a row a cell, mean over seeds "
        "with 95 % intervals over seeds; at the right of each panel the checkpoint kept, on the queries by which it "
        "was chosen, with 95 % intervals over them. Curves end where patience ran out, which is sooner for some by "
        f"chance. {HELD}",
        table=_lambda_curves,
        draw=paper_figures.lambda_curves,
        rests_on=("08_ablation_lambda",),
    ),
    Exhibit(
        name="figure_6_data_ratio",
        title="Figure 6: validation AUC by the teacher's share of the positives",
        caption="AUC of reward models trained on other ratios of teacher to student positives, on the queries by which "
        "the checkpoint was chosen, a panel a cell, with 95 % intervals over them; small dots are single seeds.",
        table=_ratio_points,
        draw=paper_figures.data_ratio,
        rests_on=("09_ablation_data_ratio",),
    ),
    Exhibit(
        name="table_4_reward_source",
        title="Table 4: reward source",
        caption=f"Accuracy in %; gains over w/o reward are paired. {SAME} {OURS}",
        table=lambda evidence: paper_tables.reward_source_table(evidence.correctness),
        draw=None,
        rests_on=("10_ablation_reward_source",),
        needs=GOLD,
    ),
    Exhibit(
        name="table_7_correctness_validation",
        title="Table 7: what Eq. 7 does with a mismatch",
        caption=f"Accuracy in %; gains over Ours are paired. {SAME} The paper's numbers are lost in the text.",
        table=lambda evidence: paper_tables.correctness_validation_table(evidence.correctness),
        draw=None,
        rests_on=("11_ablation_correctness",),
        needs=GOLD,
    ),
    Exhibit(
        name="gsm_plus_by_perturbation",
        title="GSM-Plus by perturbation",
        caption="Accuracy in %.",
        table=lambda evidence: paper_tables.accuracy_by_group(evidence.correctness, "gsm_plus", "perturbation"),
        draw=None,
        rests_on=GRID,
        needs="GSM-Plus",
    ),
    Exhibit(
        name="figure_gsm_plus_by_perturbation",
        title="Accuracy by perturbation of GSM-Plus",
        caption="Accuracy of every method on each group of test questions in %, a panel a teacher and student, seeds "
        "pooled; the 95 % intervals over questions and seeds are in the table gsm_plus_by_perturbation.",
        table=lambda evidence: paper_tables.accuracy_by_group(evidence.correctness, "gsm_plus", "perturbation"),
        draw=paper_figures.by_group,
        rests_on=GRID,
        needs="GSM-Plus",
    ),
    Exhibit(
        name="mmlu_by_category",
        title="MMLU-Pro by category",
        caption="Accuracy in %.",
        table=lambda evidence: paper_tables.accuracy_by_group(evidence.correctness, "mmlu", "category"),
        draw=None,
        rests_on=GRID,
        needs="MMLU-Pro",
    ),
    Exhibit(
        name="figure_mmlu_by_category",
        title="Accuracy by category of MMLU-Pro",
        caption="Accuracy of every method on each group of test questions in %, a panel a teacher and student, seeds "
        "pooled; the 95 % intervals over questions and seeds are in the table mmlu_by_category.",
        table=lambda evidence: paper_tables.accuracy_by_group(evidence.correctness, "mmlu", "category"),
        draw=paper_figures.by_group,
        rests_on=GRID,
        needs="MMLU-Pro",
    ),
    Exhibit(
        name="figure_learning_sft",
        title="Learning curves of SFT",
        caption="Loss in nats a token and agreement with the pseudo-labels, mean over seeds with 95 % intervals over "
        f"seeds; the training loss is a mean of 20 steps. {HELD}",
        table=_sft_curves,
        draw=paper_figures.sft_curves,
        rests_on=("03_sft_warmup",),
    ),
    Exhibit(
        name="figure_learning_reward_model",
        title="Learning curves of the reward models",
        caption=f"Validation AUC along training, mean over seeds with 95 % intervals over seeds. {HELD}",
        table=_reward_model_curves,
        draw=paper_figures.reward_model_curves,
        rests_on=REWARD_MODELS,
    ),
    Exhibit(
        name="figure_learning_ppo",
        title="Learning curves of PPO",
        caption="Reward of Eq. 7, KL to the policy before PPO in nats a response, and agreement with the pseudo-labels "
        f"on validation questions, mean over seeds with 95 % intervals over seeds. {HELD}",
        table=_ppo_curves,
        draw=paper_figures.ppo_curves,
        rests_on=("06_ppo",),
    ),
    Exhibit(
        name="table_5_hyperparameters_sft",
        title="Table 5 (and B.2): hyperparameters of SFT and reward models",
        caption=f"{COLUMNS} Where a training ends by its patience, `epochs` is the most that it may take (the table "
        "of how long every training went on has what it took). A batch of the reward model is counted in queries.",
        table=lambda evidence: paper_tables.hyperparameter_table(evidence.settings, ("sft", "reward_model")),
        draw=None,
        rests_on=(),
    ),
    Exhibit(
        name="table_6_hyperparameters_ppo",
        title="Table 6: PPO",
        caption=f"{COLUMNS} The paper's learning rates are lost in the text. Of Ours; without a warm-up PPO has a "
        "rate and a KL coefficient of its own (the table of constants). `epochs`: passes over the episodes of an "
        "update.",
        table=lambda evidence: paper_tables.hyperparameter_table(evidence.settings, ("ppo",)),
        draw=None,
        rests_on=(),
    ),
    Exhibit(
        name="convergence",
        title="How long every training went on",
        caption="Optimizer steps at which a training was best on the validation questions (0: it kept what it started "
        "from), and at which it ended: by its patience, or at the most steps that it may take, and then it is named. "
        "Trainings of the reviewers' questions are among them.",
        table=lambda evidence: convergence.convergence_table(evidence.trainings),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
        tells_endings=True,
    ),
    Exhibit(
        name="ppo_reach",
        title="What PPO starts from, and how far it goes",
        caption="Means over seeds. `trained_on`: agreement with the vote of the first samples of the questions that "
        "PPO trains on; `validation_start`, and `kept_gain` in percentage points: that of validation questions before "
        "PPO, and what the kept policy adds; `kl_end` in nats a response; `clip_fraction_most`: the largest share of "
        "an update's tokens that Eq. 8 clips; rewards by Eq. 7, the first also seed by seed. First and last are ten "
        "updates.",
        table=lambda evidence: ppo_reach.reach_table(evidence.ppo_history),
        draw=None,
        rests_on=("06_ppo",),
    ),
    Exhibit(
        name="figure_kept_step",
        title="What supervised fine-tuning forgets",
        caption="Accuracy on the test questions minus that of the same student before training (ICL), in percentage "
        "points, against the optimizer step whose checkpoint was kept; a dot a training and seed. Checkpoints are "
        "chosen on validation questions, which are like those in training; perturbed ones are not.",
        table=lambda evidence: forgetting.kept_steps(evidence.trainings, evidence.correctness),
        draw=paper_figures.kept_steps,
        rests_on=GRID,
        needs=GOLD,
        tells_endings=True,
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
        caption="Sums over all runs of a stage in the study; the reviewers' questions have a table of their own.",
        table=lambda evidence: paper_tables.cost_table(evidence.costs),
        draw=None,
        rests_on=(*GRID, *ABLATIONS),
    ),
)
