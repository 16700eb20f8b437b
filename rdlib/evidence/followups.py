"""Tables of the follow-up experiments (params/followups.yaml): controlled experiments on seeds that are not released.

The name of an arm (`trial`) has its parts between bars. `answers` has cell, arm, seed, moment, id, agrees and correct.
A row is a validation question at a moment of a run: "start" or "end" of PPO, the "kept" policy, or the "warm-up".
Differences are paired by question. Intervals are over questions alone, for the seeds that were run (`OfSeeds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rdlib.evidence import stats, tables
from rdlib.evidence.stats import NAN, Draws, Interval
from rdlib.evidence.verdicts import NOTHING

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


# ---- draws


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

    def points(self, name: str, unit: str = "_pp") -> dict[str, float]:
        """As columns in percentage points: the mean with its interval, and the seeds' least and most.

        Without a unit as they are, as differences of AUCs.
        """
        found, estimates = self.interval(), [one.estimate for one in self.draws.values()] or [NAN]
        ends = {"": found.estimate, "_low": found.low, "_high": found.high}
        ends |= {"_least": min(estimates), "_most": max(estimates)}
        return {f"{name}{end}{unit}": (100 if unit else 1) * value for end, value in ends.items()}

    def __sub__(self, other: OfSeeds) -> OfSeeds:
        return OfSeeds({seed: own - other.draws[seed] for seed, own in self.draws.items() if seed in other.draws})


def of_seeds(table: pd.DataFrame, draw: Callable[[pd.DataFrame], Draws]) -> OfSeeds:
    """`draw` of the rows of each seed."""
    return OfSeeds({seed: draw(part) for seed, part in table.groupby("seed")})


def mean_of(found: Sequence[OfSeeds]) -> OfSeeds:
    """The mean of several quantities, seed by seed."""
    return OfSeeds({seed: stats.mean_of(one.draws[seed] for one in found) for seed in found[0].draws})


def share(answers: pd.DataFrame, column: str = "agrees", key: str = "validation") -> OfSeeds:
    """Mean of a column (whether answers agree, or are correct) over the questions that have it, of the set `key`."""
    part = answers.dropna(subset=column)
    return of_seeds(part.assign(value=part[column].astype(float)), lambda one: stats.mean_draws(one, key))


def difference(first: pd.DataFrame, second: pd.DataFrame, column: str, key: str = "validation") -> OfSeeds:
    """Mean of first - second, question by question and seed by seed."""
    sides = [side.dropna(subset=column)[["seed", "id", column]] for side in (first, second)]
    both = sides[0].merge(sides[1], on=["seed", "id"], suffixes=("", "_second"), validate="one_to_one")
    return share(both.assign(value=both[column].astype(float) - both[f"{column}_second"].astype(float)), "value", key)


def at(answers: pd.DataFrame, when: str) -> pd.DataFrame:
    """The answers at a moment of a run."""
    return answers[answers["moment"] == when]


def change(answers: pd.DataFrame, before: str, after: str, column: str = "agrees") -> OfSeeds:
    """Change of the share between two moments of a run."""
    return difference(at(answers, after), at(answers, before), column)


def auc(responses: pd.DataFrame, comparison: str) -> Interval:
    """AUC of a comparison of Table 3; columns seed, id, kind, score."""
    return of_seeds(responses, lambda part: stats.auc_draws(part, comparison, "validation")).interval()


def by_arm(*found: pd.DataFrame) -> Iterator[tuple[dict[str, str], list[pd.DataFrame]]]:
    """(cell and trial, the rows of each table) in the order of the first table, in which there are some."""
    for (cell, arm), part in found[0].groupby(["cell", "arm"], sort=False):
        yield {"cell": cell, "trial": arm}, [part, *(tables.select(one, cell=cell, arm=arm) for one in found[1:])]


def with_factors(table: pd.DataFrame, factors: Iterable[str]) -> pd.DataFrame:
    """The table with the parts of each arm's name as columns, instead of `trial`."""
    parts = pd.DataFrame([name.split(" | ") for name in table["trial"]], index=table.index, columns=list(factors))
    return pd.concat([table[["cell"]], parts, table.drop(columns=["cell", "trial"])], axis="columns")


# ---- PPO on micro-mmlu


def ppo_table(answers: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: agreement at PPO's start, its change to the end and to the policy kept, and the reward's ends."""
    rows = []
    for names, (part, own) in by_arm(answers, curves):
        runs = own.dropna(subset="reward").sort_values("update").groupby("seed")["reward"]
        row = names | {"seeds": part["seed"].nunique()}
        row |= {"start_pct": 100 * share(at(part, "start")).interval().estimate}
        row |= change(part, "start", "end").points("end_minus_start")
        row |= change(part, "start", "kept").points("kept_minus_start")
        row |= change(part, "start", "end", "correct").points("correct_end_minus_start")
        rows.append(row | {"reward_first": runs.head(UPDATES).mean(), "reward_last": runs.tail(UPDATES).mean()})
    return with_factors(pd.DataFrame(rows), PPO_FACTORS)


def ppo_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Agreement on validation questions along PPO, a row an evaluation."""
    curves = curves.dropna(subset="validation_agreement")
    curves = curves.rename(columns={"arm": "trial"})
    table = curves[["cell", "trial", "seed", "update"]].assign(agreement_pct=100 * curves["validation_agreement"])
    return with_factors(table, PPO_FACTORS)


# ---- the reward model


def ranking_points(ranking: pd.DataFrame) -> pd.DataFrame:
    """Share of questions answered rightly by choosing among n samples: a row (cell, trial, strategy, n)."""
    found = ranking[ranking["moment"] != "auc"].groupby(["cell", "arm", "moment", "n"], sort=False)
    rows = [key + tuple(tables.percent(share(part, "correct").interval(), "right").values()) for key, part in found]
    columns = ["cell", "trial", "strategy", "n", "right_pct", "right_low_pct", "right_high_pct"]
    return pd.DataFrame(rows, columns=columns)


def reward_table(ranking: pd.DataFrame, responses: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and arm: AUCs, choosing the best of all samples by reward, and what PPO made of it."""
    rows = []
    for names, (part, seen, answered) in by_arm(ranking, responses, answers):
        by = dict(iter(part.groupby("moment")))
        most = by["reward"]["n"].max()
        chosen = {"one": ("reward", 1), "best_of_n": ("reward", most), "any_text": ("distinct", most)}
        chosen = {name: tables.select(by[strategy], n=n) for name, (strategy, n) in chosen.items()}
        usual = at(tables.select(answers, cell=names["cell"], arm=BASE), "kept")
        row = names | {"seeds": part["seed"].nunique(), "n": most}
        row["pos_neg_auc"] = auc(seen, "pos_neg").estimate
        row["auc_within_a_question"] = by["auc"].groupby("seed")["correct"].mean().mean()
        row |= {f"{name}_pct": 100 * share(own, "correct").interval().estimate for name, own in chosen.items()}
        for other in ("one", "any_text"):
            row |= difference(chosen["best_of_n"], chosen[other], "correct").points(f"best_of_n_minus_{other}")
        row["kept_pct"] = 100 * share(at(answered, "kept")).interval().estimate
        row |= change(answered, "warm-up", "kept").points("ppo_gain")
        rows.append(row | difference(at(answered, "kept"), usual, "agrees").points("kept_minus_study"))
    return pd.DataFrame(rows)


def cures_table(ranking: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and arm: how well its reward model ranks a question's samples, and what PPO makes of it, by gold.

    `auc_within` is the mean over questions of the AUC of right against wrong samples. It, the best of n and the policy
    kept are compared with the arm `BASE`, question by question; the best of n also with a single sample, and the policy
    kept with the warm-up. Questions without a gold answer do not count.
    """
    study = {names["cell"]: _outcomes(*own) for names, own in by_arm(ranking, answers) if names["trial"] == BASE}
    rows = []
    for names, (part, answered) in by_arm(ranking, answers):
        mine, usual = _outcomes(part, answered), study.get(names["cell"], {})
        row = names | {"seeds": part["seed"].nunique(), "n": part["n"].max()}
        for name, start in (("auc_within", ""), ("best_of_n", "one"), ("kept", "warm_up")):
            level, unit = share(mine[name], "correct").interval(), "_pp" if start else ""
            auc = {name: level.estimate, f"{name}_low": level.low, f"{name}_high": level.high}
            row |= tables.percent(level, name) if start else auc
            others = {"study": usual.get(name, mine[name][:0])} | ({start: mine[start]} if start else {})
            for other, answers_of in others.items():
                row |= difference(mine[name], answers_of, "correct").points(f"{name}_minus_{other}", unit)
        rows.append(row)
    return pd.DataFrame(rows)


def _outcomes(ranking: pd.DataFrame, answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of an arm, rows of a question with `correct`: its AUC, chances that what is chosen is right, PPO's answers."""
    by_reward = at(ranking, "reward")
    chosen = {"one": by_reward["n"] == 1, "best_of_n": by_reward["n"] == by_reward["n"].max()}
    greedy = {"warm_up": at(answers, "warm-up"), "kept": at(answers, "kept")}
    return {"auc_within": at(ranking, "auc")} | {name: by_reward[some] for name, some in chosen.items()} | greedy


# ---- the teacher's style


def style_table(responses: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and arm: Pos/Pos by the reward model and by the best possible judge, and the warm-up's agreement.

    `recalled_*` are shares of the senses and epithets of right responses that are the world's.
    """
    rows = []
    for names, (part, own) in by_arm(responses, answers):
        row = names | {"seeds": part["seed"].nunique()}
        row["warm_up_pct"] = 100 * share(at(own, "warm-up")).interval().estimate if len(own) else float("nan")
        row["pos_neg_auc"] = auc(part, "pos_neg").estimate
        for judge, scores in (("pos_pos_auc", part), ("best_judge_auc", part.assign(score=part["ratio"]))):
            found = auc(scores, "pos_pos")
            row |= {judge: found.estimate, f"{judge}_low": found.low, f"{judge}_high": found.high}
        for who in ("teacher", "student"):
            right = part[part["kind"] == f"{who}_positive"]
            row[f"recalled_{who}_pct"] = 100 * right["recalled"].sum() / max(1, right["named"].sum())
        rows.append(row)
    return pd.DataFrame(rows)


def judges(responses: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """`style_table` with a row a judge, as its figure takes it."""
    table, parts = style_table(responses, answers), []
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
    both, by = by_method(pd.concat([answers, hot_answers], ignore_index=True)), ["cell", "heat", "method"]
    spent = by_method(pd.concat([costs, hot_costs], ignore_index=True))
    spent = spent.groupby(by)[["tokens_generated", "gflop"]].mean()
    rows = []
    for key, part in both.groupby(by, sort=False):
        row = dict(zip(by, key, strict=True)) | {"needs": NEEDS.get(key[2], "texts"), "seeds": part["seed"].nunique()}
        row |= tables.percent(share(part, "correct").interval(), "right")
        if key[2] != OURS:
            ours = tables.select(both, cell=key[0], heat=key[1], method=OURS)
            row |= difference(ours, part, "correct").points("ours_minus_it")
        rows.append(
            row | {"tokens_generated": round(spent["tokens_generated"][key]), "gflop": round(spent["gflop"][key], 1)}
        )
    return pd.DataFrame(rows)


def by_method(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of what is kept, and of the warm-up of Ours as a method, with columns method and heat; in order."""
    warmed = (table["moment"] == "warm-up") & table["arm"].str.startswith(OURS)
    found = table[(table["moment"] == "kept") | warmed]
    parts = found["arm"].str.split(" | ", regex=False)
    method = parts.str[0].where(found["moment"] == "kept", WARM_UP)
    found = found.assign(method=method, heat=[heat_of(trial) for trial in found["arm"]])
    places = {column: {name: i for i, name in enumerate(dict.fromkeys(found[column]))} for column in ("cell", "method")}
    places["method"] |= {WARM_UP: -1}
    order = found.assign(**{c: found[c].map(names) for c, names in places.items()})
    return found.loc[order.sort_values(["heat", "cell", "method"], kind="stable").index]


def heat_of(trial: str) -> float:
    """The heat that an arm's name has, else 1."""
    return float(trial.partition(" | heat ")[2] or 1)


def distillation_panels(*read: pd.DataFrame) -> pd.DataFrame:
    """`distillation_table` with a panel a cell and heat."""
    table = distillation_table(*read)
    heats = ["" if heat == 1 else f", heat {heat:g}" for heat in table["heat"]]
    return table.assign(panel=table["cell"] + heats)


# ---- SFT's texts and rate


def by_benchmark(tested: pd.DataFrame) -> pd.DataFrame:
    """A row a cell, arm and benchmark: the share of test questions that is answered rightly."""
    rows = []
    for (benchmark, cell, trial), part in tested.groupby(["benchmark", "cell", "arm"], sort=False):
        row = {"benchmark": benchmark, "cell": cell, "trial": trial, "seeds": part["seed"].nunique()}
        rows.append(row | tables.percent(share(part, "correct", benchmark).interval(), "right"))
    return pd.DataFrame(rows)


def sft_table(tested: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and arm: agreement on validation questions, and accuracy on each benchmark with its interval."""
    ends = {"right_pct": "", "right_low_pct": "_low", "right_high_pct": "_high"}
    rows = []
    for names, (part, own) in by_arm(by_benchmark(tested).rename(columns={"trial": "arm"}), answers):
        row = names | {"seeds": part["seeds"].max()}
        row["agreement_pct"] = 100 * share(at(own, "kept")).interval().estimate
        for line in part.to_dict("records"):
            row |= {f"{line['benchmark']}{end}_pct": line[column] for column, end in ends.items()}
        rows.append(row)
    return with_factors(pd.DataFrame(rows), SFT_FACTORS)


def sft_panels(tested: pd.DataFrame) -> pd.DataFrame:
    """`by_benchmark` with a panel a benchmark and a row a cell."""
    return by_benchmark(tested).assign(panel=lambda table: table["benchmark"], row=lambda table: table["cell"])


# ---- what each factor adds


def effects_table(answers: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """What each factor of PPO and of SFT adds, over all pairs of arms that differ in it alone; a row a factor.

    Of PPO the change of the agreement from start to end, also by reward; of SFT the accuracy on each benchmark, also of
    both factors together.
    """
    ends = {names["trial"]: change(part, "start", "end") for names, (part,) in by_arm(answers)}
    rows = [_effect("PPO", "", name, *_pairs(ends, *between)) for name, between in PPO_FACTORS.items()]
    for reward in PPO_FACTORS["reward"]:
        alone = {trial: found for trial, found in ends.items() if trial.startswith(reward)}
        pairs = _pairs(alone, *PPO_FACTORS["questions"])
        rows.append(_effect("PPO", "", f"questions, reward: {reward}", *pairs))
    for benchmark, part in tested.groupby("benchmark", sort=False):
        arms = {(names["cell"], names["trial"]): own for names, (own,) in by_arm(part)}
        factors = {"both": (SFT, SFT_AS_WARM_UP)} | SFT_FACTORS
        for name, (before, after) in factors.items():
            pairs = [(own, arms.get((c, t.replace(before, after)))) for (c, t), own in arms.items() if before in t]
            effects = [difference(to, own, "correct", benchmark) for own, to in pairs if to is not None]
            rows.append(_effect("SFT", benchmark, name, f"{before} -> {after}", effects))
    return pd.DataFrame(rows)


def _pairs(found: Mapping[str, OfSeeds], before: str, after: str) -> tuple[str, list[OfSeeds]]:
    """The step in words, and what it changes in each pair of arms that differ in it alone."""
    other = {trial: trial.replace(before, after) for trial in found if before in trial}
    return f"{before} -> {after}", [found[to] - found[trial] for trial, to in other.items() if to in found]


def _effect(of: str, benchmark: str, factor: str, step: str, effects: Sequence[OfSeeds]) -> dict:
    row = {"of": of, "benchmark": benchmark, "factor": factor, "step": step, "pairs": len(effects)}
    return row | mean_of(effects).points("effect")
