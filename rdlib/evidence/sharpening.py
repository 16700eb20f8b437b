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
VALIDATION = ("validation_agreement", "accuracy")


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
    """Chance that what is chosen among k samples of a question is right, by each of `CHOICES`."""
    best_first = [True] * len(QUESTION) + [False, True]
    ranked = judged.sort_values([*QUESTION, "score", "sample"], ascending=best_first, ignore_index=True)
    questions = ranked.groupby(QUESTION, sort=False)
    total, right = questions["right"].size(), questions["right"].sum().astype(int)
    _require(total, max(counts))
    ways, of_row, rank = _ways_to_choose(int(total.max())), questions["right"].transform("size"), questions.cumcount()
    found = {("majority", k): values for k, values in _majorities(judged, total, counts).items()}
    for k in counts:
        found["any", k] = 1 - ways[total - right, k] / ways[total, k]
        first = ways[of_row - 1 - rank, k - 1] / ways[of_row, k]  # chance that a row is the best of its subset
        found["reward", k] = (ranked["right"] * first).groupby([ranked[name] for name in QUESTION], sort=False).sum()
    table = pd.DataFrame(found, index=total.index).rename_axis(columns=["measure", "k"])
    return table.stack([0, 1], future_stack=True).rename("value").reset_index()


def _require(total: pd.Series, most: int) -> None:
    """UserError where a question has fewer samples than `most`."""
    if total.min() < most:
        raise UserError(
            f"pass@{most} needs {most} samples a question, and {total.idxmin()[-1]} has {total.min()}: take "
            f"a smaller k, or sample more (student_sampling.samples)."
        )


def counts_of(words: Sequence[int | str], samples: int) -> list[int]:
    """The k of an exhibit: those that it names, or powers of 2 up to the samples there are; UserError for no number."""
    if wrong := [word for word in words if not str(word).isdecimal() or int(word) == 0]:
        raise UserError(f"{wrong[0]!r} is no number of samples: `of: [sharpening 1 4 16]` names some k of pass@k.")
    return sorted(map(int, words)) or powers(2, samples)


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

    Columns `before`, `after` and `change`, each with `_low` and `_high`, and `sd` of the change over seeds; `samples`
    a question, `n` questions, `seeds`, and `judge` ("gold" or "vote"). Intervals are over questions and seeds; shares
    are of 1. `counts`: the k of pass@k; by default powers of 2 up to the samples that every question has.
    """
    samples = int(judged.groupby(QUESTION).size().min())
    values = by_question(judged, counts_of(counts, samples))
    wide = values.pivot(index=["cell", "measure", "k", "seed", "id"], columns="policy", values="value").reset_index()
    places = {name: place for place, name in enumerate([*judged["cell"].unique(), *ORDER])}
    found = pd.DataFrame([_row(key, part) for key, part in wide.groupby(["cell", "measure", "k"], sort=False)])
    found = found.sort_values(["cell", "measure", "k"], key=lambda column: column.replace(places), ignore_index=True)
    return found.assign(samples=samples, judge="gold" if judged["correct"].notna().any() else "vote")


def powers(base: int, samples: int) -> list[int]:
    """1, `base`, its square and so on below the number of samples, and that number: of 2 and 30, 1 2 4 8 16 30."""
    below = [base**i for i in range(samples.bit_length()) if base**i < samples]
    return [*below, samples]


def _row(key: tuple, part: pd.DataFrame) -> dict:
    """One row of `changes`: `part` has a row a seed and question."""
    columns = {"before": part["before"], "after": part["after"], "change": part["after"] - part["before"]}
    row = dict(zip(("cell", "measure", "k"), key, strict=True))
    most = 1.0 if row["k"] or DIVERSITY[row["measure"]] == "%" else np.inf
    for name, value in columns.items():
        interval = stats.mean_draws(part[["seed", "id"]].assign(value=value), "validation").interval()
        ends = np.array([interval.low, interval.high])
        low, high = ends if name == "change" else ends.clip(0, most)  # seeds that differ widely can move it out
        row |= {name: interval.estimate, f"{name}_low": low, f"{name}_high": high, "n": interval.n}
    by_seed = columns["change"].groupby(part["seed"]).mean()
    return row | {"sd": by_seed.std(ddof=1), "seeds": len(by_seed)}


# ---- tables


def pass_at_k(changed: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in % of what is chosen among k samples by each `strategy` before and after PPO, the change in points."""
    table = changed[changed["k"] > 0].rename(columns={"measure": "strategy"})
    numbers = {f"{name}{end}": "pct" for name in POLICIES for end in ("", "_low", "_high")}
    numbers |= {"change": "pp", "change_low": "pp", "change_high": "pp", "sd": "pp"}
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
    named = kept[["cell"]].assign(measure=names, unit=units, **numbers, significant=_directions(kept))
    return named.assign(**kept[["samples", "n", "seeds", "judge"]]).reset_index(drop=True)


def direction(low: float, high: float) -> str:
    """Where the interval of a change lies: "up", "down", or "" where it has 0."""
    return "up" if low > 0 else "down" if high < 0 else ""


def _directions(changed: pd.DataFrame) -> list[str]:
    return list(map(direction, changed["change_low"], changed["change_high"]))


def answers_changed(reviewers: pd.DataFrame, question: str, start: str) -> pd.DataFrame:
    """Greedy answers of a question's arms against those of the arm `start`, a row a cell, benchmark and arm.

    Shares of the test questions in %: `gained` are wrong at the start and right in the arm, `lost` the reverse; the
    net change in points with its 95 % CI over questions and seeds, and whether it is significant.
    """
    asked = tables.select(reviewers, question=question)
    rows = []
    for (cell, benchmark), part in asked.groupby(["cell", "benchmark"], sort=False):
        before = part[part["arm"] == start]
        for arm, after in part[part["arm"] != start].groupby("arm", sort=False) if len(before) else ():
            change = stats.paired_table(after, before)
            net = stats.mean_draws(change, benchmark).interval()
            row = {"cell": cell, "benchmark": benchmark, "arm": arm}
            row |= {"gained_pct": 100 * (change["value"] > 0).mean(), "lost_pct": 100 * (change["value"] < 0).mean()}
            row |= tables.points(net, "net") | {"significant": direction(net.low, net.high)}
            rows.append(row | {"n": net.n, "seeds": change["seed"].nunique()})
    return pd.DataFrame(rows)


def along_ppo(history: pd.DataFrame) -> pd.DataFrame:
    """Curves of Ours along PPO over seeds, as `curves.learning_curves`: rollouts, then validation questions.

    Entropy in nats a token and length in tokens; `extractable` and all agreements and accuracies in %.
    """
    history = tables.select(history, method="ours", variant="")
    for name in ROLLOUTS:
        history = curves.smoothed(history, name, WINDOW)
    shares = {name: 100 * history[name].astype(float) for name in (*ROLLOUTS[2:], *VALIDATION)}
    history = history.assign(**shares)
    known = [name for name in (*ROLLOUTS, *VALIDATION) if history[name].notna().any()]
    table = curves.learning_curves(history, known, "update") if known else pd.DataFrame()
    for end in ("low", "high") if known else ():
        table[end] = table[end].mask(table["value"].isin(shares), table[end].clip(0, 100))
    return table


# ---- in words


def verdict(changed: pd.DataFrame) -> str:
    """Whether PPO made each cell's policy better or only surer, with intervals; and how many samples there are."""
    sentences = [_sentence(cell, part) for cell, part in changed.groupby("cell", sort=False)]
    return " ".join([*sentences, f"Every question has {changed['samples'].min()} samples, which end k."])


def _sentence(cell: str, part: pd.DataFrame) -> str:
    row, most = part.set_index(["measure", "k"]).assign(direction=_directions(part)), part["k"].max()
    one, many, entropy = row.loc[("any", 1)], row.loc[("any", most)], row.loc[("vote entropy", 0)]
    said = kind(one["direction"], many["direction"], entropy["direction"])
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
