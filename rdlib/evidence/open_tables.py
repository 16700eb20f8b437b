"""Tables of the open ends of the science and their plain answers, from the tables of `rdlib.study.measures` alone.

A trial's name has its parts between bars. `answers`: cell, trial, seed, when, id, agrees, correct, a row a validation
question and moment of a run: "start" and "end" of PPO, the policy "kept", and the "warm-up" before it. Differences are
taken question by question. Intervals are over questions, of the very seeds that were run (`OfSeeds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from rdlib.evidence import stats, tables
from rdlib.evidence.stats import Draws, Interval

BASE = "as in the study"
UNSURE = "only where the vote is unsure"  # the study's reward model, in another reward
FACTORS = {  # of the trials of PPO: the part of a name, from what to what, and in words
    "reward": ("reward model", "vote", "the vote in place of the reward model"),
    "questions": ("all questions", "without Q_fail", "leaving the questions of Q_fail out"),
    "warm_up": ("short warm-up", "long warm-up", "a long warm-up in place of a short one"),
}
OURS, WARM_UP, DISTILLATION = "Ours", "Ours w/o R", "on-policy distillation"
NEEDS = {DISTILLATION: "token distributions, the student's vocabulary"}
UPDATES = 3  # of PPO, at either end, whose mean reward is told
OTHER_JUDGE = "judged by"  # how the trials begin whose reward model starts from another network
AS_GOOD = 2  # points of agreement
PAPERS_LEAST = 0.70  # Pos/Pos AUC in the paper's Table 3: 0.70 to 0.94


# ---- draws


@dataclass(frozen=True)
class OfSeeds:
    """A quantity of each of a few seeds, as draws over the questions, which all seeds share.

    How much other seeds would differ two of them cannot tell: Student's t would make an interval of 13 standard errors.
    So the interval is over questions alone, of the mean over these seeds, and a difference counts only where each of
    them has its sign.
    """

    draws: dict[int, Draws]

    def interval(self) -> Interval:
        """The mean over the seeds with its interval over questions."""
        return stats.mean_of(self.draws.values()).interval()

    def ends(self) -> tuple[float, float]:
        """The least and the most that a seed has."""
        estimates = [one.estimate for one in self.draws.values()]
        return min(estimates), max(estimates)

    def __sub__(self, other: OfSeeds) -> OfSeeds:
        return OfSeeds({seed: own - other.draws[seed] for seed, own in self.draws.items() if seed in other.draws})


def of_seeds(table: pd.DataFrame, draw: Callable[[pd.DataFrame], Draws]) -> OfSeeds:
    """`draw` of the rows of each seed."""
    return OfSeeds({seed: draw(part) for seed, part in table.groupby("seed")})


def mean(table: pd.DataFrame, key: str = "validation") -> OfSeeds:
    """Mean of `value` over the questions, which are those of the set `key`; columns seed, id, value."""
    return of_seeds(table, lambda part: stats.mean_draws(part, key))


def mean_of(found: Iterable[OfSeeds]) -> OfSeeds:
    """The mean of several quantities, seed by seed."""
    found = list(found)
    return OfSeeds({seed: stats.mean_of(one.draws[seed] for one in found) for seed in found[0].draws})


def level(answers: pd.DataFrame, when: str, column: str = "agrees") -> OfSeeds:
    """Share of the questions that agree (or are correct) at a moment; `answers` of one cell and trial."""
    return share(answers[answers["when"] == when], column)


def share(answers: pd.DataFrame, column: str, key: str = "validation") -> OfSeeds:
    """Share of the questions, of the set `key`, that agree (or are correct); columns seed, id and `column`."""
    part = answers.dropna(subset=column)
    return mean(part[["seed", "id"]].assign(value=part[column].astype(float)), key)


def change(answers: pd.DataFrame, before: str, after: str, column: str = "agrees") -> OfSeeds:
    """Change of that share between two moments of a run, on the questions that both have."""
    return difference(answers[answers["when"] == after], answers[answers["when"] == before], column)


def difference(first: pd.DataFrame, second: pd.DataFrame, column: str, key: str = "validation") -> OfSeeds:
    """Mean of first - second, question by question and seed by seed; columns seed, id and `column`, `key` as above."""
    sides = [side.dropna(subset=column)[["seed", "id", column]] for side in (first, second)]
    both = sides[0].merge(sides[1], on=["seed", "id"], suffixes=("", "_second"), validate="one_to_one")
    value = both[column].astype(float) - both[f"{column}_second"].astype(float)
    return mean(both[["seed", "id"]].assign(value=value), key)


def auc(responses: pd.DataFrame, comparison: str) -> Interval:
    """AUC of a comparison of Table 3; columns seed, id, kind, score."""
    return of_seeds(responses, lambda part: stats.auc_draws(part, comparison, "validation")).interval()


def in_points(name: str, found: OfSeeds) -> dict[str, float]:
    """A difference as columns in percentage points: its interval, and the seeds' least and most."""
    interval, (least, most) = found.interval(), found.ends()
    ends = {"": interval.estimate, "_low": interval.low, "_high": interval.high, "_least": least, "_most": most}
    return {f"{name}{end}_pp": 100 * value for end, value in ends.items()}


def in_per_cent(name: str, interval: Interval) -> dict[str, float]:
    """An interval as columns in per cent."""
    ends = {"": interval.estimate, "_low": interval.low, "_high": interval.high}
    return {f"{name}{end}_pct": 100 * value for end, value in ends.items()}


def in_words(row, name: str) -> str:
    """A difference of a table's row with its interval: +1.2 [0.3, 2.1] pp; seeds where they contradict it."""
    value, low, high, least, most = (
        getattr(row, f"{name}{end}_pp") for end in ("", "_low", "_high", "_least", "_most")
    )
    told = f"{value:+.1f} [{low:.1f}, {high:.1f}] pp"
    contradicted = not told_apart(row, name) and (low > 0 or high < 0)
    return f"{told}, but between seeds {least:+.1f} to {most:+.1f}" if contradicted else told


def told_apart(row, name: str) -> int:
    """1 or -1 where a difference lies above or below 0 with its interval and in every seed, else 0."""
    low, high, least, most = (getattr(row, f"{name}_{end}_pp") for end in ("low", "high", "least", "most"))
    return int(min(low, least) > 0) - int(max(high, most) < 0)


def listed(names: Iterable[str]) -> str:
    """Names as `tables.listed`, or "none"."""
    return tables.listed(list(names)) or "none"


def on(places: list[str]) -> str:
    """Where something is so, in words."""
    return f"on {tables.listed(places)}" if places else "nowhere"


def named(rows: pd.DataFrame, name: str, sign: int) -> str:
    """The trials whose difference is told to have a sign, in quotes, or "none"."""
    return listed(f"“{row.trial}”" for row in rows.itertuples() if told_apart(row, name) == sign)


def groups(table: pd.DataFrame):
    """((cell, trial), rows) in the order of the table."""
    return table.groupby(["cell", "trial"], sort=False)


# ---- A: PPO on micro-mmlu


def with_factors(table: pd.DataFrame, factors: Iterable[str] = tuple(FACTORS)) -> pd.DataFrame:
    """The table with what each trial varies, the parts of its name, as columns: `factors` in the order of the parts."""
    parts = [name.split(" | ") for name in table["trial"]]
    return table.assign(**{factor: [p[i] for p in parts] for i, factor in enumerate(factors)})


def ppo_table(answers: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row a trial: agreement at PPO's start, its change to the end and to the policy kept, and the reward's ends."""
    rows = []
    for (cell, trial), part in groups(answers):
        own = curves[(curves["trial"] == trial) & (curves["cell"] == cell)].dropna(subset="reward")
        runs = own.sort_values("update").groupby("seed")["reward"]
        row = {"cell": cell, "trial": trial, "seeds": part["seed"].nunique()}
        row |= {"start_pct": 100 * level(part, "start").interval().estimate}
        row |= in_points("end_minus_start", change(part, "start", "end"))
        row |= in_points("kept_minus_start", change(part, "start", "kept"))
        row |= in_points("correct_end_minus_start", change(part, "start", "end", "correct"))
        row |= {"reward_first": runs.head(UPDATES).mean(), "reward_last": runs.tail(UPDATES).mean()}
        rows.append(row)
    table = with_factors(pd.DataFrame(rows))
    return table[["cell", *FACTORS, *(c for c in table if c not in ("cell", "trial", *FACTORS))]]


def ppo_effects(answers: pd.DataFrame) -> pd.DataFrame:
    """What each factor changes of the agreement's change from start to end: a mean over the pairs that differ in it."""
    answers = with_factors(answers)
    found = {trial: change(part, "start", "end") for trial, part in answers.groupby("trial")}
    rows = []
    for factor, (usual, other, words) in FACTORS.items():
        pairs = [(t, t.replace(usual, other)) for t in found if usual in t and t.replace(usual, other) in found]
        effect = mean_of(found[with_it] - found[without] for without, with_it in pairs)
        row = {"factor": factor, "words": words, "pairs": len(pairs)}
        rows.append(row | in_points("effect", effect))
    return pd.DataFrame(rows)


def ppo_questions_by_reward(answers: pd.DataFrame) -> pd.DataFrame:
    """What leaving the questions of Q_fail out changes under each reward: a mean over the warm-ups."""
    answers = with_factors(answers)
    _, without, _ = FACTORS["questions"]
    rows = []
    for reward, part in answers.groupby("reward", sort=False):
        sides = [part[(part["questions"] == without) == side] for side in (True, False)]
        pairs = [
            [change(side[side["warm_up"] == w], "start", "end") for side in sides] for w in part["warm_up"].unique()
        ]
        rows.append({"reward": reward} | in_points("effect", mean_of(spared - all_ for spared, all_ in pairs)))
    return pd.DataFrame(rows)


def ppo_answer(table: pd.DataFrame, effects: pd.DataFrame, by_reward: pd.DataFrame) -> str:
    """A in words."""
    usual = {"reward": FACTORS["reward"][0], "questions": FACTORS["questions"][0], "warm_up": FACTORS["warm_up"][1]}
    ours = next(tables.select(table, **usual).itertuples())
    does = {1: "rises", 0: "does not change measurably", -1: "falls"}[told_apart(ours, "end_minus_start")]
    told = [f"{row.words} {in_words(row, 'effect')}" for row in effects.itertuples()]
    mends = [row.words for row in effects.itertuples() if told_apart(row, "effect") > 0]
    harms = [row.words for row in effects.itertuples() if told_apart(row, "effect") < 0]
    spared = listed(f"{in_words(row, 'effect')} with the {row.reward}" for row in by_reward.itertuples())
    return (
        f"Answer: with the study's own settings the agreement {does} from the warm-up to the end of PPO "
        f"({in_words(ours, 'end_minus_start')}), while the mean reward goes from {ours.reward_first:.2f} to "
        f"{ours.reward_last:.2f}. What each of the three adds to that change, over all settings of the others: "
        f"{'; '.join(told)}. Leaving out the questions of Q_fail adds {spared}. Of the three, better by "
        f"{listed(mends)}; worse by {listed(harms)}."
    )


# ---- B: the reward model


def ranking_points(ranking: pd.DataFrame) -> pd.DataFrame:
    """Share of questions answered rightly by choosing among n samples: a row (cell, trial, strategy, n)."""
    rows = []
    for (cell, trial, strategy, n), part in ranking[ranking["strategy"] != "auc"].groupby(
        ["cell", "trial", "strategy", "n"], sort=False
    ):
        interval = mean(part).interval()
        rows.append({"cell": cell, "trial": trial, "strategy": strategy, "n": n} | in_per_cent("right", interval))
    return pd.DataFrame(rows)


def reward_table(ranking: pd.DataFrame, responses: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and trial: AUCs, choosing the best of all samples by reward, and what PPO made of it."""
    rows = []
    for (cell, trial), part in groups(ranking):
        by = {strategy: own[["seed", "id", "n", "value"]] for strategy, own in part.groupby("strategy")}
        most = by["reward"]["n"].max()
        one, best = (by["reward"][by["reward"]["n"] == n] for n in (1, most))
        blind = by["distinct"][by["distinct"]["n"] == most]
        of_cell = answers[answers["cell"] == cell]
        own, usual = (of_cell[of_cell["trial"] == name] for name in (trial, BASE))
        kept = [side[side["when"] == "kept"] for side in (own, usual)]
        seen = responses[(responses["cell"] == cell) & (responses["trial"] == trial)]
        row = {"cell": cell, "trial": trial, "seeds": part["seed"].nunique(), "n": most}
        row["pos_neg_auc"] = auc(seen, "pos_neg").estimate
        row["auc_within_a_question"] = by["auc"].groupby("seed")["value"].mean().mean()
        row |= {"one_pct": 100 * mean(one).interval().estimate}
        row |= {"best_of_n_pct": 100 * mean(best).interval().estimate}
        row |= {"any_text_pct": 100 * mean(blind).interval().estimate}
        row |= in_points("best_of_n_minus_one", difference(best, one, "value"))
        row |= in_points("best_of_n_minus_any_text", difference(best, blind, "value"))
        row |= {"kept_pct": 100 * level(own, "kept").interval().estimate}
        row |= in_points("ppo_gain", change(own, "warm-up", "kept"))
        row |= in_points("kept_minus_study", difference(*kept, "agrees"))
        rows.append(row)
    return pd.DataFrame(rows)


def reward_answer(table: pd.DataFrame) -> str:
    """B in words."""
    sentences = []
    for cell, part in table.groupby("cell", sort=False):
        usual = next(part[part["trial"] == BASE].itertuples())
        rankers = part[part["trial"] != UNSURE]
        knows, better = named(rankers, "best_of_n_minus_any_text", 1), named(rankers, "best_of_n_minus_one", 1)
        worse = named(rankers, "best_of_n_minus_one", -1)
        gains, losses = (named(part, "kept_minus_study", sign) for sign in (1, -1))
        sentences.append(
            f"on {cell} a single sample is right on {usual.one_pct:.0f} % of the questions, the one of {usual.n} with "
            f"the highest reward of the study's model on {usual.best_of_n_pct:.0f} %, and one of their distinct texts, "
            f"which is what a reward that knows nothing comes to, on {usual.any_text_pct:.0f} %. Told to choose better "
            f"than knowing nothing: {knows}; better than a single sample: {better}; worse than that: {worse}. After "
            f"PPO more questions agree than in the study with {gains}, fewer with {losses}"
        )
    return "Answer: " + ". And ".join(sentences) + "."


# ---- C: the teacher's style


def style_table(responses: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and trial: Pos/Pos by the reward model and by the best possible judge, and the warm-up's agreement.

    `recalled_*` are shares of the senses and epithets of right responses that are the world's.
    """
    rows = []
    for (cell, trial), part in groups(responses):
        warmed = answers[(answers["cell"] == cell) & (answers["trial"] == trial)]
        row = {"cell": cell, "trial": trial, "seeds": part["seed"].nunique()}
        row["warm_up_pct"] = 100 * level(warmed, "warm-up").interval().estimate if len(warmed) else float("nan")
        row["pos_neg_auc"] = auc(part, "pos_neg").estimate
        for judge, scores in (("pos_pos_auc", part), ("best_judge_auc", part.assign(score=part["ratio"]))):
            found = auc(scores, "pos_pos")
            row |= {judge: found.estimate, f"{judge}_low": found.low, f"{judge}_high": found.high}
        for who in ("teacher", "student"):
            own = part[part["kind"] == f"{who}_positive"]
            row[f"recalled_{who}_pct"] = 100 * own["recalled"].sum() / max(1, own["named"].sum())
        rows.append(row)
    return pd.DataFrame(rows)


def style_answer(table: pd.DataFrame) -> str:
    """C in words."""
    sentences = []
    for cell, part in table.groupby("cell", sort=False):
        usual = next(part[part["trial"] == BASE].itertuples())
        like = [row for row in part.itertuples() if row.pos_pos_auc >= PAPERS_LEAST]
        told = [f"“{row.trial}” ({row.pos_pos_auc:.2f})" for row in like]
        own = [row for row in like if not row.trial.startswith(OTHER_JUDGE)]
        good = [f"“{row.trial}”" for row in own if row.warm_up_pct >= usual.warm_up_pct - AS_GOOD]
        reached = f"is reached by {listed(told)}"
        if like:
            reached += (
                f"; among them, warm-ups that agree as well as the study's, within {AS_GOOD} points of its "
                f"{usual.warm_up_pct:.0f} %: {listed(good)}"
            )
        sentences.append(
            f"on {cell} Pos/Pos is {usual.pos_pos_auc:.2f} and, for the best judge that there can be of these two "
            f"models, {usual.best_judge_auc:.2f}; of the senses and epithets in right responses "
            f"{usual.recalled_teacher_pct:.0f} % of the teacher's and {usual.recalled_student_pct:.0f} % of the "
            f"student's are the world's. {PAPERS_LEAST:.2f} or more, as in the paper, {reached}"
        )
    return "Answer: " + ". And ".join(sentences) + "."


# ---- D: on-policy distillation


def distillation_table(answers: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """A row a cell, heat of the teacher and method: accuracy, Ours minus it, and what making it costs.

    Accuracy is by gold answers, as teachers of different heat have different votes. The warm-up is a method too.
    """
    both = by_method(answers)
    spent = by_method(costs).groupby(["cell", "heat", "method"])[["tokens_generated", "gflop"]].mean()
    rows = []
    for key, part in both.groupby(["cell", "heat", "method"], sort=False):
        cell, heat, method = key
        ours = both[(both["cell"] == cell) & (both["heat"] == heat) & (both["method"] == OURS)]
        row = {"cell": cell, "heat": heat, "method": method, "needs": NEEDS.get(method, "texts")}
        row |= {"seeds": part["seed"].nunique()}
        row |= in_per_cent("right", level(part, part["when"].iloc[0], "correct").interval())
        if method != OURS:
            row |= in_points("ours_minus_it", difference(ours, part, "correct"))
        row |= {"tokens_generated": round(spent["tokens_generated"][key]), "gflop": round(spent["gflop"][key], 1)}
        rows.append(row)
    return pd.DataFrame(rows)


def by_method(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of what is kept, and of the warm-up of Ours as a method, with columns method and heat; in order."""
    warmed = (table["when"] == "warm-up") & table["trial"].str.startswith(OURS)
    found = table[(table["when"] == "kept") | warmed]
    method = [
        WARM_UP if when == "warm-up" else trial.split(" | ")[0] for when, trial in found[["when", "trial"]].values
    ]
    found = found.assign(method=method, heat=[heat_of(trial) for trial in found["trial"]])
    places = {column: {name: i for i, name in enumerate(dict.fromkeys(found[column]))} for column in ("cell", "method")}
    places["method"] |= {WARM_UP: -1}
    order = found.assign(**{c: found[c].map(names) for c, names in places.items()})
    return found.loc[order.sort_values(["heat", "cell", "method"], kind="stable").index]


def heat_of(trial: str) -> float:
    """The heat that a trial's name says, else 1."""
    _, _, heat = trial.partition(" | heat ")
    return float(heat or 1)


def distillation_answer(table: pd.DataFrame) -> str:
    """D in words."""
    rivals = table[table["method"] == DISTILLATION].assign(
        place=lambda t: [c if h == 1 else f"{c} at heat {h:g}" for c, h in zip(t["cell"], t["heat"], strict=True)]
    )
    by_sign = {sign: [] for sign in (1, -1, 0)}
    for row in rivals.itertuples():
        by_sign[told_apart(row, "ours_minus_it")].append(f"{row.place} ({in_words(row, 'ours_minus_it')})")
    without = table[(table["needs"] == "texts") & (table["heat"] == 1)]
    best = without.loc[without.groupby("cell", sort=False)["right_pct"].idxmax()]
    ours = table[table["method"] == OURS].set_index(["cell", "heat"])["gflop"]
    times = [ours[row.cell, row.heat] / row.gflop for row in rivals.itertuples()]
    return (
        f"Answer: Ours is told to be ahead of on-policy distillation {on(by_sign[1])}; behind {on(by_sign[-1])}; not "
        f"told apart {on(by_sign[0])}. Ours takes {min(times):.1f} to {max(times):.1f} times its "
        f"operations. Distillation cannot be run at all with a teacher that gives texts alone, or that has another "
        f"vocabulary; of the methods that need texts alone the best is "
        + listed(f"{row.method} on {row.cell} ({row.right_pct:.1f} %)" for row in best.itertuples())
        + "."
    )
