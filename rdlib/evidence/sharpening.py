"""Does PPO make a policy better, or only more certain? Its samples before and after PPO, by question.

    values = by_question(judged, [1, 4, 16, 30])    # a row a question, measure and k
    found = changes(judged, [1, 4, 16, 30])         # a row a cell, measure and k: before, after, paired change
    print(verdict(found))                           # a sentence a cell

A policy is sharpened where single samples (pass@1) and majorities (maj@k) are right more often while pass@k falls for
large k: it no longer gives the right answers that it gave rarely. `judged` is the table of stage 13_judged_responses,
as in `rdlib.evidence.diagnostics`, with cell and seed. Where no question has a gold answer, the teacher's vote judges.
pass@k is the unbiased estimator of Chen et al. (2021), eq. 1; maj@k and best of k are exact means over all subsets too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import curves, stats, tables

CHOICES = {"any": "pass@{}", "majority": "maj@{}", "reward": "best of {} by reward"}
DIVERSITY = {  # units
    "vote entropy": "nats",
    "majority's share": "%",
    "distinct answers": "",
    "distinct texts": "",
    "judged as by gold": "%",
}
ORDER = [*CHOICES, *DIVERSITY]
QUESTION = ["cell", "policy", "seed", "id"]
POLICIES = ("before", "after")  # PPO
FEW = 4  # a table has every power of it as k, a figure every power of 2
WINDOW = 10  # updates whose mean a curve of rollouts shows: those of one update are of some hundred samples only
ROLLOUTS = ("entropy", "response_length", "extractable", "agreement")
SHARES = ("extractable", "agreement", "validation_agreement", "accuracy")
MEASURES = ("pass@1", "maj@{most}", "pass@{most}", "vote entropy", "distinct answers", "distinct texts")  # of an arm


# ---- by question


def by_question(judged: pd.DataFrame, counts: Sequence[int]) -> pd.DataFrame:
    """Every measure of each question: columns `QUESTION`, measure, k (0 where none applies) and value.

    Questions without a gold answer, where others have one, count for their diversity alone. UserError where a question
    has fewer samples than the largest of `counts`.
    """
    judged = with_judge(judged)
    return pd.concat([_chosen(judged.dropna(subset="right"), counts), diversity(judged)], ignore_index=True)


def with_judge(judged: pd.DataFrame) -> pd.DataFrame:
    """With `right`, as the gold answer judges; as the vote does where no question has one."""
    judge = "correct" if judged["correct"].notna().any() else "agrees"
    return judged.assign(right=judged[judge].astype(float), gold=judge == "correct")


def _chosen(judged: pd.DataFrame, counts: Sequence[int]) -> pd.DataFrame:
    """Chance that what is chosen among k samples of a question is right, by each of `CHOICES`.

    UserError where a question has fewer samples than the largest k.
    """
    best_first = [True] * len(QUESTION) + [False, True]
    ranked = judged.sort_values([*QUESTION, "score", "sample"], ascending=best_first, ignore_index=True)
    questions = ranked.groupby(QUESTION, sort=False)
    total, right = questions["right"].size(), questions["right"].sum().astype(int)
    if total.min() < max(counts):
        raise UserError(
            f"pass@{max(counts)} needs {max(counts)} samples a question, and {total.idxmin()[-1]} has {total.min()}: "
            "take a smaller k, or sample more (student_sampling.samples)."
        )
    ways, of_row, rank = _ways_to_choose(int(total.max())), questions["right"].transform("size"), questions.cumcount()
    found = {("majority", k): values for k, values in _majorities(judged, total, counts).items()}
    for k in counts:
        found["any", k] = 1 - ways[total - right, k] / ways[total, k]
        first = ways[of_row - 1 - rank, k - 1] / ways[of_row, k]  # chance that a row is the best of its subset
        found["reward", k] = (ranked["right"] * first).groupby([ranked[name] for name in QUESTION], sort=False).sum()
    table = pd.DataFrame(found, index=total.index).rename_axis(columns=["measure", "k"])
    return table.stack([0, 1], future_stack=True).rename("value").reset_index()


@lru_cache
def _ways_to_choose(most: int) -> np.ndarray:
    """Binomial coefficients (most + 1, most + 1): [n, k] is the number of subsets of k of n."""
    return np.array([[comb(n, k) for k in range(most + 1)] for n in range(most + 1)], dtype=float)


def _majorities(judged: pd.DataFrame, total: pd.Series, counts: Sequence[int]) -> dict[int, list[float]]:
    """maj@k of each question of `total`, by k: equal votes are counted once."""
    votes = judged.dropna(subset="answer").groupby([*QUESTION, "answer"], sort=False)["right"].agg(["size", "first"])
    split: dict[tuple, tuple[list[int], list[int]]] = {}
    for row in votes.itertuples():
        split.setdefault(row.Index[:-1], ([], []))[0 if row.first else 1].append(row.size)
    keys = [split.get(key, ([], [])) for key in total.index]
    patterns = [(tuple(sorted(right)), tuple(sorted(wrong))) for right, wrong in keys]
    found = [majority_of(*pattern, n, tuple(counts)) for pattern, n in zip(patterns, total, strict=True)]
    return {k: [values[i] for values in found] for i, k in enumerate(counts)}


@lru_cache(maxsize=1 << 16)
def majority_of(
    right: tuple[int, ...], wrong: tuple[int, ...], total: int, counts: tuple[int, ...]
) -> tuple[float, ...]:
    """Chance that the most frequent answer of k of `total` samples is right, for each k of `counts`; ties share.

    `right` and `wrong`: how many samples give each answer; the rest give none, and a subset without answers is wrong.
    """
    chances = np.zeros(len(counts))
    without = total - sum(right) - sum(wrong)
    for i, mine in enumerate(right):
        others = (*right[:i], *right[i + 1 :], *wrong)
        for votes in range(1, min(mine, max(counts)) + 1):
            beaten = _ways_to_win(others, votes, max(counts))
            for j, k in enumerate(counts):
                rest = sum(beaten[n] * comb(without, k - votes - n) for n in range(k - votes + 1))
                chances[j] += comb(mine, votes) * rest / comb(total, k)
    return tuple(chances)


def _ways_to_win(others: tuple[int, ...], votes: int, most: int) -> np.ndarray:
    """[n]: ways to draw n <= `most` samples of the other answers so that none has more than `votes`.

    A way in which t of them have as many counts 1 / (t + 1), since ties share.
    """
    ways = np.zeros((len(others) + 1, most + 1))  # [ties, samples]
    ways[0, 0] = 1
    for count in others:
        before, ways = ways, np.zeros_like(ways)
        for drawn in range(min(count, votes, most) + 1):
            tied = int(drawn == votes)
            ways[tied:, drawn:] += comb(count, drawn) * before[: len(before) - tied, : most + 1 - drawn]
    return (ways / np.arange(1, len(ways) + 1)[:, None]).sum(axis=0)


def diversity(judged: pd.DataFrame) -> pd.DataFrame:
    """How much the samples of a question differ, as `by_question` has it, with k = 0.

    The vote entropy is that of the answers, in nats, of those samples that have one; the majority's share is of all.
    Judged as by gold is the share of samples on which the pseudo-label and the gold answer agree.
    """
    questions = judged.groupby(QUESTION)
    votes = judged.dropna(subset="answer").groupby([*QUESTION, "answer"]).size()
    of_question = votes.groupby(QUESTION)
    shares = votes / of_question.transform("sum")
    found = {
        "vote entropy": -(shares * np.log(shares)).groupby(QUESTION).sum(),
        "majority's share": of_question.max() / questions.size(),
        "distinct answers": of_question.size(),
        "distinct texts": questions["text"].nunique(),
    }
    table = pd.DataFrame(found, index=questions.size().index).fillna(0.0)
    if "agrees" in judged and judged["gold"].all():
        alike = (judged["agrees"].astype(float) == judged["right"]).astype(float).where(judged["right"].notna())
        table["judged as by gold"] = alike.groupby([judged[name] for name in QUESTION]).mean()
    return table.rename_axis(columns="measure").stack(future_stack=True).rename("value").reset_index().assign(k=0)


# ---- before and after


def changes(judged: pd.DataFrame, counts: Sequence[int | str] = ()) -> pd.DataFrame:
    """A row a cell, measure and k: the mean `before` and `after`, and their paired difference, each with its 95 % CI.

    Columns `before`, `after` and `change`, each with `_low` and `_high`, and `sd` of the change over seeds; `samples` a
    question, `n` questions, `seeds`, `judge` ("gold" or "vote"), and `significant` ("up", "down" or ""). Intervals are
    over questions and seeds; shares are of 1. `counts`: the k of pass@k; by default powers of 2 up to the samples that
    every question has. UserError for a k that is no number.
    """
    if wrong := [word for word in counts if not str(word).isdecimal() or int(word) == 0]:
        raise UserError(f"{wrong[0]!r} is no number of samples: `of: [sharpening 1 4 16]` names some k of pass@k.")
    samples = int(judged.groupby(QUESTION).size().min())
    values = by_question(judged, sorted(map(int, counts)) or powers(2, samples))
    wide = values.pivot(index=["cell", "measure", "k", "seed", "id"], columns="policy", values="value").reset_index()
    names = dict.fromkeys([*judged["cell"].unique(), *ORDER])
    wide["cell"], wide["measure"] = (pd.Categorical(wide[name], names, ordered=True) for name in ("cell", "measure"))
    found = tables.rows_of(wide, ["cell", "measure", "k"], _change, sort=True)
    return found.assign(samples=samples, judge="gold" if judged["correct"].notna().any() else "vote")


def powers(base: int, samples: int) -> list[int]:
    """1, `base`, its square and so on below the number of samples, and that number: of 2 and 30, 1 2 4 8 16 30."""
    below = [base**i for i in range(samples.bit_length()) if base**i < samples]
    return [*below, samples]


def _change(part: pd.DataFrame) -> dict:
    """Numbers of `changes`: `part` has a row a seed and question."""
    part, row = part.assign(change=part["after"] - part["before"]), {}
    most = 1.0 if part["k"].iloc[0] or DIVERSITY[part["measure"].iloc[0]] == "%" else np.inf
    for name in (*POLICIES, "change"):
        one = tables.mean(part, name)
        ends = np.array([one.low, one.high])
        low, high = ends if name == "change" else ends.clip(0, most)  # seeds that differ widely can move it out
        row |= {name: one.estimate, f"{name}_low": low, f"{name}_high": high, "n": one.n}
    by_seed = part.groupby("seed")["change"].mean()
    return row | {"sd": by_seed.std(ddof=1), "seeds": len(by_seed), "significant": one.direction}


# ---- tables


def pass_at_k(changed: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in % of what is chosen among k samples by each `strategy` before and after PPO, the change in points."""
    table = changed[changed["k"] > 0].rename(columns={"measure": "strategy"})
    units = dict.fromkeys(POLICIES, "pct") | {"change": "pp"}
    numbers = {f"{name}{end}": unit for name, unit in units.items() for end in ("", "_low", "_high")} | {"sd": "pp"}
    parts = {f"{name}_{unit}": 100 * table[name] for name, unit in numbers.items()}
    return table[["cell", "strategy", "k"]].assign(**parts, **table[["samples", "n", "seeds", "judge"]])


def table(changed: pd.DataFrame) -> pd.DataFrame:
    """Every measure before and after PPO, the paired change, and whether that is significant ("up", "down" or "").

    Shares in %, their changes in percentage points. Of one sample all ways to choose are pass@1.
    """
    few = changed["k"].isin(powers(FEW, int(changed["k"].max())))
    kept = changed[(changed["k"] == 0) | few & ((changed["k"] > 1) | (changed["measure"] == "any"))]
    units = ["%" if row.k else DIVERSITY[row.measure] for row in kept.itertuples()]
    names = [CHOICES[row.measure].format(row.k) if row.k else row.measure for row in kept.itertuples()]
    columns = [f"{name}{end}" for name in (*POLICIES, "change") for end in ("", "_low", "_high")]
    scale = np.where(np.array(units) == "%", 100.0, 1.0)
    numbers = {name: kept[name] * scale for name in [*columns, "sd"]}
    named = kept[["cell"]].assign(measure=names, unit=units, **numbers, significant=kept["significant"])
    return named.assign(**kept[["samples", "n", "seeds", "judge"]]).reset_index(drop=True)


def of_arms(samples: pd.DataFrame, start: str) -> pd.DataFrame:
    """What each arm changed in the samples of the arm `start`: a row a cell, arm and measure of `table`.

    `samples`: sampled validation responses of one experiment, with cell, arm and seed (stage 13_sampled_responses).
    """
    before, parts = samples[samples["arm"] == start].assign(policy="before"), []
    for arm, after in samples[samples["arm"] != start].groupby("arm", sort=False) if len(before) else ():
        both = pd.concat([before[before["cell"].isin(after["cell"])], after.assign(policy="after")])
        changed = table(changes(both))
        kept = changed["measure"].isin([name.format(most=changed["samples"].max()) for name in MEASURES])
        parts.append(changed[kept])
        parts[-1].insert(1, "arm", arm)
    return tables.stacked(parts, pd.DataFrame())


def answers_changed(answers: pd.DataFrame, start: str = "", pairs: Sequence[Sequence[str]] = ()) -> pd.DataFrame:
    """Greedy answers of arms against those of the arm `start`, or of each of the `pairs`: a row a cell, benchmark, arm.

    Shares of the test questions in %: `gained` are wrong in the other arm and right in the arm, `lost` the reverse; the
    net change in points with its 95 % CI over questions and seeds, and whether it is significant. A pair without one of
    its arms is left out.
    """
    rows = []
    for (cell, benchmark), part in answers.groupby(["cell", "benchmark"], sort=False):
        by_arm = dict(iter(part.groupby("arm", sort=False)))
        for arm, other in pairs or [(arm, start) for arm in by_arm if arm != start]:
            if not {arm, other} <= by_arm.keys():
                continue
            change = stats.paired_table(by_arm[arm], by_arm[other])
            net = tables.mean(change, key=benchmark)
            row = {"cell": cell, "benchmark": benchmark, "arm": arm} | ({"against": other} if pairs else {})
            row |= {"gained_pct": 100 * (change["value"] > 0).mean(), "lost_pct": 100 * (change["value"] < 0).mean()}
            row |= net.columns("net", "pp") | {"significant": net.direction, "n": net.n}
            rows.append(row | {"seeds": change["seed"].nunique()})
    return pd.DataFrame(rows)


def along_ppo(history: pd.DataFrame, values: Sequence[str], by: Sequence[str], **rows: str) -> pd.DataFrame:
    """Some values along PPO, mean over seeds with its interval: columns value, `by`, update, seeds, mean, low, high.

    Of rollouts, entropy in nats a token, length in tokens, and shares are means of some updates; `SHARES` are in %.
    Values that no row has are left out. `rows`: values of columns that rows of the history must have.
    """
    parts, history = [], tables.select(history, **rows)
    for name in (name for name in values if history[name].notna().any()):
        runs = [curves.smoothed(part, name, WINDOW) for _, part in history.groupby([*by], sort=False)]
        runs = pd.concat(runs) if name in ROLLOUTS else history
        is_share = name in SHARES
        runs = runs.assign(**{name: (100 if is_share else 1) * runs[name].astype(float)})
        part = curves.over_seeds(runs, [*by], "update", name)
        ends = part[["low", "high"]].clip(0, 100) if is_share else part[["low", "high"]]
        parts.append(part.assign(**ends))
        parts[-1].insert(0, "value", name)
    return tables.stacked(parts, pd.DataFrame())


# ---- in words


def verdict(changed: pd.DataFrame) -> str:
    """Whether PPO made each cell's policy better or only surer, with intervals; and how many samples there are."""
    sentences = [_sentence(cell, part) for cell, part in changed.groupby("cell", sort=False)]
    return " ".join([*sentences, f"Every question has {changed['samples'].min()} samples, which end k."])


def _sentence(cell: str, part: pd.DataFrame) -> str:
    row, most = part.set_index(["measure", "k"]), part["k"].max()
    one, many, entropy = row.loc[("any", 1)], row.loc[("any", most)], row.loc[("vote entropy", 0)]
    said = kind(one["significant"], many["significant"], entropy["significant"])
    ends = ["change", "change_low", "change_high"]
    single, some = (tables.difference(*(100 * measure[ends]), "pp") for measure in (one, many))
    sureness = "vote entropy {:+.2f} nats [{:+.2f}, {:+.2f}]".format(*entropy[ends])
    judge = "" if one["judge"] == "gold" else ", judged by the vote"
    return f"**{cell}: {said}** (pass@1 {single}, pass@{most} {some}, {sureness}{judge})."


def kind(one: str, many: str, entropy: str) -> str:
    """What PPO did, by the significant changes of pass@1, of pass@k with all samples, and of the vote entropy."""
    surer = ", and surer" if entropy == "down" else ""
    if one == "up" and many == "down":
        return f"PPO made the policy better with one sample and worse with many{surer}"
    if one == "up":
        return f"PPO made the policy better with one sample{' and with many' if many == 'up' else ''}{surer}"
    if "down" in (one, many):
        return f"PPO made the policy worse with {'one sample' if one == 'down' else 'many samples'}{surer}"
    if many == "up":
        return f"PPO made the policy better with many samples{surer}"
    return "PPO made the policy surer, not better" if surer else "PPO changed nothing significantly"
