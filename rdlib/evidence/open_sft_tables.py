"""Why SFT falls behind its own kind on perturbed questions: tables of a group of trials, and their plain answer.

SFT and the warm-up differ in two things: in their texts (all of the teacher's, or those that agree with the vote) and
in their learning rate. A trial's name has both, between bars. `tested`: cell, trial, seed, benchmark, id, correct, a
row a test question of seeds that are not released. Intervals as in `rdlib.evidence.open_tables`.
"""

from __future__ import annotations

import pandas as pd

from rdlib.evidence import open_tables, tables

FACTORS = {  # the part of a trial's name: what SFT has, what the warm-up has, and in words
    "texts": ("all texts", "agreeing texts", "the texts that agree with the vote in place of all"),
    "rate": ("rate of SFT", "rate of the warm-up", "the warm-up's learning rate in place of SFT's"),
}
SFT, WARM_UP = (" | ".join(names[side] for names in FACTORS.values()) for side in (0, 1))


def by_benchmark(tested: pd.DataFrame) -> pd.DataFrame:
    """A row a cell, trial and benchmark: the share of test questions that is answered rightly."""
    rows = []
    for (benchmark, cell, trial), part in tested.groupby(["benchmark", "cell", "trial"], sort=False):
        right = open_tables.share(part, "correct", benchmark).interval()
        row = {"benchmark": benchmark, "cell": cell, "trial": trial, "seeds": part["seed"].nunique()}
        rows.append(row | open_tables.in_per_cent("right", right))
    return pd.DataFrame(rows)


def sft_table(tested: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and trial: agreement on validation questions, and accuracy on each benchmark with its interval."""
    ends = {"right_pct": "", "right_low_pct": "_low", "right_high_pct": "_high"}
    found = by_benchmark(tested)
    rows = []
    for (cell, trial), part in found.groupby(["cell", "trial"], sort=False):
        own = answers[(answers["cell"] == cell) & (answers["trial"] == trial)]
        row = {"cell": cell, "trial": trial, "seeds": part["seeds"].max()}
        row["agreement_pct"] = 100 * open_tables.level(own, "kept").interval().estimate
        for line in part.itertuples():
            row |= {f"{line.benchmark}{end}_pct": getattr(line, column) for column, end in ends.items()}
        rows.append(row)
    table = open_tables.with_factors(pd.DataFrame(rows), FACTORS)
    return table[["cell", *FACTORS, *(c for c in table if c not in ("cell", "trial", *FACTORS))]]


def sft_effects(tested: pd.DataFrame) -> pd.DataFrame:
    """By benchmark: the warm-up minus SFT, and what each factor adds, on the mean of all cells and of the other factor.

    Accuracy in percentage points, question by question; a row (benchmark, factor), of both together with factor "both".
    """
    rows = []
    for benchmark, part in tested.groupby("benchmark", sort=False):
        by = dict(iter(part.groupby(["cell", "trial"], sort=False)))
        both = [(cell, SFT, WARM_UP) for cell in part["cell"].unique()]
        changes = {"both": ("the warm-up in place of SFT", both)}
        for factor, (of_sft, of_warm_up, words) in FACTORS.items():
            pairs = [(cell, name, name.replace(of_sft, of_warm_up)) for cell, name in by if of_sft in name]
            changes[factor] = (words, pairs)
        for factor, (words, pairs) in changes.items():
            found = [
                open_tables.difference(by[cell, after], by[cell, before], "correct", benchmark)
                for cell, before, after in pairs
            ]
            row = {"benchmark": benchmark, "factor": factor, "words": words, "pairs": len(pairs)}
            rows.append(row | open_tables.in_points("effect", open_tables.mean_of(found)))
    return pd.DataFrame(rows)


def sft_answer(effects: pd.DataFrame) -> str:
    """E in words."""
    sentences = []
    for benchmark, part in effects.groupby("benchmark", sort=False):
        both = next(part[part["factor"] == "both"].itertuples())
        alone = [row for row in part.itertuples() if row.factor != "both"]
        told = [f"{row.words} {open_tables.in_words(row, 'effect')}" for row in alone]
        apart = {
            sign: [row.words for row in alone if open_tables.told_apart(row, "effect") == sign] for sign in (1, -1)
        }
        sentences.append(
            f"on {benchmark} the warm-up minus SFT is {open_tables.in_words(both, 'effect')} on the mean of the cells; "
            f"averaged over the other factor, {tables.listed(told)}. Better by {open_tables.listed(apart[1])}; worse "
            f"by {open_tables.listed(apart[-1])}"
        )
    return f"Answer: {'. And '.join(sentences)}."
