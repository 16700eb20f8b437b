"""Tables of the follow-up experiments (params/followups.yaml): controlled experiments on seeds that are not released.

The name of an arm has its parts between bars; tables call it `trial`. `answers` has cell, arm, seed, split, moment, n,
id, agrees and correct. A row is a question at a moment of a run, "start" or "end" of PPO, the "kept" policy, or the
"warm-up"; of the split "best of n" it is how one of n samples was chosen, or "auc" for the AUC within a question.
Differences are paired by question. Intervals are over questions alone, for the seeds that were run (`OfSeeds`).

exhibits.yaml declares the columns of `arms`, each as a kind (`KINDS`), what it is of, and the rows that it takes:

    start_pct: {share: agrees, moment: start}
    kept: {mean: correct, moment: kept}                                            # with its interval
    kept_minus_start: {mean: agrees, moment: kept, minus: {moment: start}}         # paired, in points
    kept_minus_study: {mean: agrees, moment: kept, minus: {arm: as in the study}}
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from rdlib.evidence import stats, tables
from rdlib.evidence.stats import NAN, NOTHING, Draws, Interval

BASE = "as in the study"
# What a factor is from and to, by its part of an arm's name
PPO_FACTORS = {
    "reward": ("reward model", "vote"),
    "questions": ("all questions", "without Q_fail"),
    "warm_up": ("short warm-up", "long warm-up"),
}
SFT_FACTORS = {"texts": ("all texts", "agreeing texts"), "rate": ("rate of SFT", "rate of the warm-up")}
SFT, SFT_AS_WARM_UP = (" | ".join(ends[side] for ends in SFT_FACTORS.values()) for side in (0, 1))
OURS, WARM_UP, DISTILLATION = "Ours", "Ours w/o R", "on-policy distillation"
NEEDS = {DISTILLATION: "token distributions, the student's vocabulary"}
UPDATES = 3  # of PPO, at either end, whose mean reward is shown


@dataclass(frozen=True)
class OfSeeds:
    """A quantity of each of a few seeds, as draws over the questions, which all seeds share.

    Two seeds do not show how much other seeds would differ: Student's t would make an interval of 13 standard errors.
    So the interval is over questions alone, of the mean over these seeds.
    """

    draws: Mapping[int, Draws]

    def interval(self) -> Interval:
        """The mean over the seeds with its interval over questions; NaN without a seed."""
        return stats.mean_of(self.draws.values()).interval() if self.draws else NOTHING

    def points(self, name: str, unit: str = "pp") -> dict[str, float]:
        """A difference as columns: the mean with its interval, and the seeds' least and most."""
        estimates = [one.estimate for one in self.draws.values()] or [NAN]
        scale, end = (100, f"_{unit}") if unit else (1, "")
        ends = {f"{name}_least{end}": scale * min(estimates), f"{name}_most{end}": scale * max(estimates)}
        return self.interval().columns(name, unit) | ends

    def __sub__(self, other: OfSeeds) -> OfSeeds:
        return OfSeeds({seed: own - other.draws[seed] for seed, own in self.draws.items() if seed in other.draws})


def of_seeds(table: pd.DataFrame, draw: Callable[[pd.DataFrame], Draws]) -> OfSeeds:
    """`draw` of the rows of each seed."""
    return OfSeeds({seed: draw(part) for seed, part in table.groupby("seed")})


def share(answers: pd.DataFrame, column: str = "agrees", key: str = "validation") -> OfSeeds:
    """Mean of a column (whether answers agree, or are correct) over the questions that have it, of the set `key`."""
    part = answers.dropna(subset=column)
    return of_seeds(part.assign(value=part[column].astype(float)), lambda one: stats.mean_draws(one, key))


def difference(first: pd.DataFrame, second: pd.DataFrame, column: str, key: str = "validation") -> OfSeeds:
    """Mean of first - second, question by question and seed by seed."""
    sides = [side.dropna(subset=column)[["seed", "id", column]] for side in (first, second)]
    both = sides[0].merge(sides[1], on=["seed", "id"], suffixes=("", "_second"), validate="one_to_one")
    return share(both.assign(value=both[column].astype(float) - both[f"{column}_second"].astype(float)), "value", key)


# ---- a row an arm


def arms(
    answers: pd.DataFrame,
    other: pd.DataFrame | None = None,
    *,
    columns: Mapping[str, dict],
    factors: Iterable[str] = (),
) -> pd.DataFrame:
    """A row a cell and arm: cell, trial, seeds, and the columns declared. `other`: scores of responses, or curves.

    With `factors` these are columns of the parts of the arm's name, instead of `trial`.
    """
    rows = []
    for (cell, arm), part in (answers if other is None else other).groupby(["cell", "arm"], sort=False):
        row = {"cell": cell} | (dict(zip(factors, arm.split(" | "), strict=True)) if factors else {"trial": arm})
        row["seeds"], of_cell = part["seed"].nunique(), tables.select(answers, cell=cell)
        for name, column in columns.items():
            (kind, of), *options = column.items()
            row |= KINDS[kind](name, of, part, of_cell, **({"arm": arm} | dict(options)))
        rows.append(row)
    return pd.DataFrame(rows)


def chosen(answers: pd.DataFrame, n: int | str | None = None, **values: str) -> pd.DataFrame:
    """The answers with these values, of n samples; "most": of all samples."""
    found = tables.select(answers, **values)
    return found if n is None else found[found["n"] == (found["n"].max() if n == "most" else n)]


def _mean(name, of, _, answers, *, minus: dict | None = None, unit="pct", key="validation", **rows) -> dict:
    """The mean of a column of answers with its interval; with `minus` its difference from that of other rows."""
    own = chosen(answers, **rows)
    if minus is None:
        return share(own, of, key).interval().columns(name, unit)
    return difference(own, chosen(answers, **(rows | minus)), of, key).points(name, unit and "pp")


def _share(name, of, _, answers, *, scale=100, **rows) -> dict:
    """The mean of a column of answers alone, in per cent."""
    return {name: scale * share(chosen(answers, **rows), of).interval().estimate}


def _auc(name, comparison, scores, _, arm, score="score", ends=True) -> dict:
    """The AUC of a comparison of Table 3, with its interval or alone."""
    draws = lambda part: stats.auc_draws(part, comparison, "validation")  # noqa: E731
    found = of_seeds(scores.assign(score=scores[score]), draws).interval()
    return found.columns(name) if ends else {name: found.estimate}


def _recalled(name, who, scores, *_, **__) -> dict:
    """The share of senses and epithets of right responses that are the world's, in per cent."""
    right = scores[scores["kind"] == f"{who}_positive"]
    return {name: 100 * right["recalled"].sum() / max(1, right["named"].sum())}


def _reward(name, end, curves, *_, **__) -> dict:
    """The mean reward of PPO's first (`head`) or last (`tail`) updates."""
    runs = curves.dropna(subset="reward").sort_values("update").groupby("seed")["reward"]
    return {name: getattr(runs, end)(UPDATES).mean()}


def _most(name, of, _, answers, **__) -> dict:
    """The largest value of a column of counts."""
    most = answers[of].max()
    return {name: most if pd.isna(most) else int(most)}


KINDS: dict[str, Callable[..., dict]] = {"mean": _mean, "share": _share, "auc": _auc, "recalled": _recalled}
KINDS |= {"reward": _reward, "most": _most}


# ---- along PPO, and by the number of samples


def ppo_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Agreement on validation questions along PPO, a row an evaluation."""
    curves = curves.dropna(subset="validation_agreement")
    parts = curves["arm"].str.split(" | ", regex=False, expand=True).set_axis([*PPO_FACTORS], axis="columns")
    numbers = curves[["seed", "update"]].assign(agreement_pct=100 * curves["validation_agreement"])
    return pd.concat([curves[["cell"]], parts, numbers], axis="columns")


def ranking_points(ranking: pd.DataFrame) -> pd.DataFrame:
    """Share of questions answered rightly by choosing among n samples: a row (cell, trial, strategy, n)."""
    found = ranking[ranking["moment"] != "auc"].rename(columns={"arm": "trial", "moment": "strategy"})
    right = lambda part: share(part, "correct").interval().columns("right", "pct")  # noqa: E731
    return tables.rows_of(found, ["cell", "trial", "strategy", "n"], right)


def judges(*read: pd.DataFrame, columns: Mapping[str, dict]) -> pd.DataFrame:
    """`arms` with two AUCs, a row a judge, as its figure takes it."""
    table, parts = arms(*read, columns=columns), []
    for judge, column in (("reward model", "pos_pos_auc"), ("best possible judge", "best_judge_auc")):
        ends = {column: "auc", f"{column}_low": "low", f"{column}_high": "high"}
        parts.append(table[["cell", "trial", *ends]].rename(columns=ends).assign(judge=judge))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(panel=found["cell"], row=found["trial"])


# ---- on-policy distillation


def distillation_table(
    answers: pd.DataFrame, hot_answers: pd.DataFrame, costs: pd.DataFrame, hot_costs: pd.DataFrame
) -> pd.DataFrame:
    """A row a cell, heat of the teacher and method: accuracy, Ours minus it, and what making it costs.

    Accuracy is by gold answers, as teachers of different heat have different votes. The warm-up is a method too.
    """
    both, spent = (by_method(pd.concat(two, ignore_index=True)) for two in ((answers, hot_answers), (costs, hot_costs)))
    by = ["cell", "heat", "method"]
    spent = spent.groupby(by)[["tokens_generated", "gflop"]].mean()

    def row(part: pd.DataFrame) -> dict:
        """The numbers of a method."""
        cell, heat, method = key = tuple(part.iloc[0][by])
        found = {"needs": NEEDS.get(method, "texts"), "seeds": part["seed"].nunique()}
        found |= share(part, "correct").interval().columns("right", "pct")
        if method != OURS:
            ours = tables.select(both, cell=cell, heat=heat, method=OURS)
            found |= difference(ours, part, "correct").points("ours_minus_it")
        return found | {
            "tokens_generated": round(spent["tokens_generated"][key]),
            "gflop": round(spent["gflop"][key], 1),
        }

    return tables.rows_of(both, by, row)


def by_method(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of what is kept, and of the warm-up of Ours as a method, with columns method and heat; in order.

    The heat is what an arm's name has, else 1.
    """
    warmed = (table["moment"] == "warm-up") & table["arm"].str.startswith(OURS)
    found = table[(table["moment"] == "kept") | warmed]
    names = found["arm"].str.partition(" | heat ")
    method = names[0].where(found["moment"] == "kept", WARM_UP)
    found = found.assign(method=method, heat=names[2].replace("", "1").astype(float))
    methods = pd.Categorical(method, dict.fromkeys([WARM_UP, *method]), ordered=True)
    order = tables.as_found(found, "cell").assign(method=methods)
    return found.loc[order.sort_values(["heat", "cell", "method"], kind="stable").index]


def distillation_panels(*read: pd.DataFrame) -> pd.DataFrame:
    """`distillation_table` with a panel a cell and heat."""
    table = distillation_table(*read)
    heats = ["" if heat == 1 else f", heat {heat:g}" for heat in table["heat"]]
    return table.assign(panel=table["cell"] + heats)


def sft_panels(tested: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on test questions, with a panel a benchmark and a row a cell."""

    def row(part: pd.DataFrame) -> dict:
        """The numbers of an arm on a benchmark."""
        found = share(part, "correct", part["benchmark"].iloc[0]).interval().columns("right", "pct")
        return {"seeds": part["seed"].nunique()} | found

    table = tables.rows_of(tested.rename(columns={"arm": "trial"}), ["benchmark", "cell", "trial"], row)
    return table.assign(panel=table["benchmark"], row=table["cell"])


# ---- what each factor adds


def effects_table(answers: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """What each factor of PPO and of SFT adds, over all pairs of arms that differ in it alone; a row a factor.

    Of PPO the change of the agreement from start to end, also by reward; of SFT the accuracy on each benchmark, also of
    both factors together.
    """
    ends = {
        f"{cell} | {arm}": difference(*(chosen(part, moment=when) for when in ("end", "start")), "agrees")
        for (cell, arm), part in answers.groupby(["cell", "arm"])
    }
    rows = [_effect("PPO", "", name, between, ends, operator.sub) for name, between in PPO_FACTORS.items()]
    for reward in PPO_FACTORS["reward"]:
        alone = {name: found for name, found in ends.items() if f" | {reward} | " in name}
        between = PPO_FACTORS["questions"]
        rows.append(_effect("PPO", "", f"questions, reward: {reward}", between, alone, operator.sub))
    for benchmark, part in tested.groupby("benchmark", sort=False):
        arms = {f"{cell} | {arm}": own for (cell, arm), own in part.groupby(["cell", "arm"])}
        minus = lambda to, own, key=benchmark: difference(to, own, "correct", key)  # noqa: E731
        for name, between in {"both": (SFT, SFT_AS_WARM_UP), **SFT_FACTORS}.items():
            rows.append(_effect("SFT", benchmark, name, between, arms, minus))
    return pd.DataFrame(rows)


def _effect(
    of: str, benchmark: str, factor: str, between: tuple[str, str], found: Mapping, minus: Callable[..., OfSeeds]
) -> dict:
    """A row: the mean over pairs of arms, one with the first part of a name, the other the same with the second."""
    pairs = [(found.get(name.replace(*between)), own) for name, own in found.items() if between[0] in name]
    effects = [minus(to, own) for to, own in pairs if to is not None]
    mean = OfSeeds({seed: stats.mean_of(one.draws[seed] for one in effects) for seed in effects[0].draws})
    row = {"of": of, "benchmark": benchmark, "factor": factor, "step": " -> ".join(between), "pairs": len(effects)}
    return row | mean.points("effect")
