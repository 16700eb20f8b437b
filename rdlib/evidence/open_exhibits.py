"""The exhibits of the open ends of the science: controlled experiments, each with a plain answer."""

from __future__ import annotations

import pandas as pd

from rdlib.evidence import open_figures, open_sft_tables, open_tables
from rdlib.evidence.exhibit import Exhibit
from rdlib.evidence.result_tables import Evidence

OF_SEEDS = "95 % intervals over questions, of these seeds"
POINTS = (
    f"Differences are in percentage points, with {OF_SEEDS}; `least` and `most` are the seeds'. How much other seeds "
    f"would differ one or two cannot tell, so a difference counts as better or worse only where its interval and every "
    f"seed are on one side of 0."
)
PPO, RANKING, STYLE = "ppo_on_mmlu", "reward_model", "teacher_style"
DISTILLATION = ("distillation", "hot_teacher")
SFT_RATE = "sft_rate"


def _ppo(evidence: Evidence) -> pd.DataFrame:
    return open_tables.ppo_table(evidence.trials(PPO, "answers.parquet"), evidence.trials(PPO, "ppo.csv"))


def _ppo_answer(evidence: Evidence) -> str:
    answers = evidence.trials(PPO, "answers.parquet")
    effects, by_reward = open_tables.ppo_effects(answers), open_tables.ppo_questions_by_reward(answers)
    return open_tables.ppo_answer(_ppo(evidence), effects, by_reward)


def _ppo_curves(evidence: Evidence) -> pd.DataFrame:
    curves = evidence.trials(PPO, "ppo.csv").dropna(subset="validation_agreement")
    curves = open_tables.with_factors(curves).assign(agreement_pct=100 * curves["validation_agreement"])
    return curves[["cell", *open_tables.FACTORS, "seed", "update", "agreement_pct"]]


def _reward(evidence: Evidence) -> pd.DataFrame:
    names = ("ranking.parquet", "responses.parquet", "answers.parquet")
    return open_tables.reward_table(*(evidence.trials(RANKING, name) for name in names))


def _style(evidence: Evidence) -> pd.DataFrame:
    names = ("responses.parquet", "answers.parquet")
    return open_tables.style_table(*(evidence.trials(STYLE, name) for name in names))


def _judges(evidence: Evidence) -> pd.DataFrame:
    """`_style` with a row a judge, as the figure takes it."""
    table, parts = _style(evidence), []
    for judge, column in (("reward model", "pos_pos_auc"), ("best possible judge", "best_judge_auc")):
        ends = {column: "auc", f"{column}_low": "low", f"{column}_high": "high"}
        parts.append(table[["cell", "trial", *ends]].rename(columns=ends).assign(judge=judge))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(panel=found["cell"], row=found["trial"])


def _distillation(evidence: Evidence) -> pd.DataFrame:
    answers, costs = (
        pd.concat([evidence.trials(group, name) for group in DISTILLATION], ignore_index=True)
        for name in ("answers.parquet", "costs.csv")
    )
    return open_tables.distillation_table(answers, costs)


def _by_cell_and_heat(evidence: Evidence) -> pd.DataFrame:
    table = _distillation(evidence)
    heats = ["" if heat == 1 else f", heat {heat:g}" for heat in table["heat"]]
    return table.assign(panel=table["cell"] + heats)


def _sft(evidence: Evidence) -> pd.DataFrame:
    names = ("tested.parquet", "answers.parquet")
    return open_sft_tables.sft_table(*(evidence.trials(SFT_RATE, name) for name in names))


def _sft_answer(evidence: Evidence) -> str:
    return open_sft_tables.sft_answer(open_sft_tables.sft_effects(evidence.trials(SFT_RATE, "tested.parquet")))


def _sft_by_benchmark(evidence: Evidence) -> pd.DataFrame:
    table = open_sft_tables.by_benchmark(evidence.trials(SFT_RATE, "tested.parquet"))
    return table.assign(panel=table["benchmark"], row=table["cell"])


OPEN_ENDS = (
    Exhibit(
        name="open_ppo",
        title="Does PPO lower the agreement on micro-mmlu while the reward rises, and why",
        caption=f"Agreement with the vote on validation questions: at PPO's start in %, and its change to the mean of "
        f"the last three evaluations and to the policy kept; `correct_*` by gold answers. {POINTS}",
        table=_ppo,
        draw=None,
        rests_on=(),
        answer=_ppo_answer,
        trials=(PPO,),
    ),
    Exhibit(
        name="figure_open_ppo",
        title="Agreement along PPO on micro-mmlu, by reward, questions and warm-up",
        caption="Agreement with the vote on validation questions in %, a line a seed, the second seed's thin.",
        table=_ppo_curves,
        draw=open_figures.ppo,
        rests_on=(),
        trials=(PPO,),
    ),
    Exhibit(
        name="open_reward_model",
        title="What makes the reward model rank better, and whether PPO gains by it",
        caption=f"`one`: share of right samples; `any_text`: share of right ones among their distinct texts, which is "
        f"what a reward that knows nothing comes to; `best_of_n`: questions on which the sample of highest reward is "
        f"right; `ppo_gain`: agreement of the policy kept minus the warm-up's. {POINTS}",
        table=_reward,
        draw=None,
        rests_on=(),
        answer=lambda evidence: open_tables.reward_answer(_reward(evidence)),
        trials=(RANKING,),
    ),
    Exhibit(
        name="figure_open_ranking",
        title="The best of n samples by reward, by the reward model's making",
        caption="Share of validation questions on which the sample of highest reward is right, against n; band: 95 % "
        "interval over questions of the study's reward models.",
        table=lambda evidence: open_tables.ranking_points(evidence.trials(RANKING, "ranking.parquet")),
        draw=open_figures.ranking,
        rests_on=(),
        trials=(RANKING,),
    ),
    Exhibit(
        name="open_style",
        title="What keeps a student from its teacher's style",
        caption="AUC of teacher positives against student positives (Pos/Pos), by the reward model and by the ratio of "
        f"the two models' likelihoods, which no judge can do much better than; {OF_SEEDS}. "
        "`recalled_*`: senses and epithets of right responses that are the world's.",
        table=_style,
        draw=None,
        rests_on=(),
        answer=lambda evidence: open_tables.style_answer(_style(evidence)),
        trials=(STYLE,),
    ),
    Exhibit(
        name="figure_open_style",
        title="Pos/Pos by warm-up and by judge",
        caption=f"AUC of teacher positives against student positives with {OF_SEEDS}; shaded: the paper's Table 3.",
        table=_judges,
        draw=open_figures.style,
        rests_on=(),
        trials=(STYLE,),
    ),
    Exhibit(
        name="open_distillation",
        title="Where Ours beats on-policy distillation, if anywhere",
        caption=f"Accuracy on validation questions by gold answers. Heat divides the teacher's logits in all that "
        f"reads them. Costs are those of making a model, inputs included. {POINTS}",
        table=_distillation,
        draw=None,
        rests_on=(),
        answer=lambda evidence: open_tables.distillation_answer(_distillation(evidence)),
        trials=DISTILLATION,
    ),
    Exhibit(
        name="figure_open_distillation",
        title="Accuracy of Ours and of on-policy distillation by cell and heat of the teacher",
        caption=f"Accuracy on validation questions in % with {OF_SEEDS}.",
        table=_by_cell_and_heat,
        draw=open_figures.distillation,
        rests_on=(),
        trials=DISTILLATION,
    ),
    Exhibit(
        name="open_sft_rate",
        title="Why SFT does worse than the warm-up, which is SFT too, on micro-gsm-plus",
        caption=f"Agreement with the vote on validation questions, and accuracy on the test questions of seeds that "
        f"are not released, in % with {OF_SEEDS}. {POINTS}",
        table=_sft,
        draw=None,
        rests_on=(),
        answer=_sft_answer,
        trials=(SFT_RATE,),
    ),
    Exhibit(
        name="figure_open_sft_rate",
        title="Accuracy of SFT and of the warm-up by texts and learning rate",
        caption=f"Accuracy on test questions of seeds that are not released, in % with {OF_SEEDS}.",
        table=_sft_by_benchmark,
        draw=open_figures.sft_rate,
        rests_on=(),
        trials=(SFT_RATE,),
    ),
)
