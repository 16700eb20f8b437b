"""The five sentences of the first screen: right for every combination of verdicts, and good English in each."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from rdlib.evidence import first_screen, tables
from rdlib.evidence.verdicts import INCONCLUSIVE, NOT_SUPPORTED, OF_BEST_CELL, SUPPORTED, UNDER_POWERED, VERDICTS


def claims(*verdicts, statement="A beats B"):
    """A table of claims with these verdicts, as figures/claims.csv has it."""
    numbers = {"mean_difference": 1.234, "low": -0.5, "high": 2.968, "unit": "pp", "cells_holding": 3, "cells": 4}
    numbers |= {"cells_above_zero": 2, "cells_below_zero": 0, "cells_are": "cells", "bear_in_mind": ""}
    numbers |= {"level_pct": 95.0, "pairs": 20, "pairs_alike": 0}
    columns = {"claim": [f"C{i}" for i in range(1, len(verdicts) + 1)], "statement": statement, "verdict": verdicts}
    return pd.DataFrame({**columns, **numbers})


MAIN = pd.DataFrame(
    {
        "method": ["teacher", "icl", "sft", "ours", "sft", "ours"],
        "gsm_study_pct": [90.0, 20.0, 50.0, 60.0, 40.0, 44.0],
        "mmlu_study_pct": [60.0, 10.0, 30.0, 32.0, 20.0, 24.0],
        "mmlu_paper_pct": 99.0,
    }
)


def test_the_first_sentence_has_the_means_over_cells():
    assert first_screen.reached(MAIN, 5) == (
        "In a made-up world, with five seeds and on the mean over four cells of benchmark, teacher and student, Ours "
        "(the whole method) answers 40.0 % of the test questions correctly, SFT 35.0 %, the student before training "
        "15.0 % and the teacher 75.0 % (in brackets below: 95 % intervals; "
        "differences are of unrounded means)."
    )
    alone = MAIN[MAIN.method == "ours"].iloc[:1].drop(columns="mmlu_study_pct")
    assert first_screen.reached(alone, 1) == (
        "In a made-up world, with one seed and on the mean over one cell of benchmark, teacher and student, Ours "
        "(the whole method) answers 60.0 % of the test questions correctly (in brackets below: 95 % intervals; "
        "differences are of unrounded means)."
    )


NUMBERS = "+1.2 pp [-0.5, +3.0]; holds in 3 of 4 cells (told from 0 in 2)"


def test_one_claim_of_each_verdict():
    found = first_screen.sentences(claims(UNDER_POWERED, SUPPORTED, INCONCLUSIVE, NOT_SUPPORTED), MAIN, 5)
    assert found[1:] == [
        f"At this scale one of the paper's four claims is supported: “A beats B” (C2: {NUMBERS}).",
        f"One is not supported: “A beats B” (C4: {NUMBERS}).",
        "Of one nobody can say, because the evidence is mixed or the difference too small to matter (inconclusive): "
        f"“A beats B” (C3: {NUMBERS}).",
        "Of one nobody can say, because this run has too few seeds or questions (under-powered): "
        f"“A beats B” (C1: {NUMBERS}).",
    ]


def test_several_claims_are_listed_and_none_is_said():
    found = first_screen.sentences(claims(SUPPORTED, NOT_SUPPORTED, SUPPORTED, NOT_SUPPORTED, SUPPORTED), MAIN, 5)
    one = f"“A beats B” (C{{}}: {NUMBERS})"
    assert found[1:] == [
        f"At this scale three of the paper's five claims are supported: {one.format(1)}, {one.format(3)} and "
        f"{one.format(5)}.",
        f"Two are not supported: {one.format(2)} and {one.format(4)}.",
        "None is left open by mixed evidence (inconclusive).",
        "None is left open by too few seeds or questions (under-powered).",
    ]
    found = first_screen.sentences(claims(INCONCLUSIVE, INCONCLUSIVE), MAIN, 5)
    assert found[1:3] == [
        "At this scale none of the paper's two claims is supported.",
        "None is judged not supported.",
    ]
    found = first_screen.sentences(claims(SUPPORTED, SUPPORTED, SUPPORTED), MAIN, 5)
    assert found[1].startswith("At this scale all three of the paper's claims are supported: ")


def test_what_is_true_of_the_mean_alone_is_told_from_what_nobody_can_say():
    table = claims(INCONCLUSIVE, UNDER_POWERED, INCONCLUSIVE, INCONCLUSIVE).assign(low=[0.5, 0.5, -0.5, 0.1])
    sure = "+1.2 pp [+{}, +3.0]; holds in 3 of 4 cells (told from 0 in 2)"
    assert first_screen.sentences(table, MAIN, 5)[3] == (
        f"Two are true of the mean over the cells but not of every cell (inconclusive): “A beats B” (C1: "
        f"{sure.format(0.5)}) and “A beats B” (C4: {sure.format(0.1)}); of one nobody can say, because the evidence is "
        f"mixed or the difference too small to matter (inconclusive): “A beats B” (C3: {NUMBERS})."
    )
    assert first_screen.sentences(table.iloc[:1], MAIN, 5)[3] == (
        f"One is true of the mean over the cells but not of every cell (inconclusive): “A beats B” (C1: "
        f"{sure.format(0.5)})."
    )
    one_cell = first_screen.sentences(table.iloc[:1].assign(cells=1), MAIN, 5)[3]
    assert one_cell.startswith("Of one nobody can say, because the evidence is mixed")


def test_a_claim_without_results_or_of_one_cell_has_no_numbers_of_them():
    table = claims(INCONCLUSIVE).assign(mean_difference=np.nan, low=np.nan, high=np.nan, cells=1)
    assert first_screen.sentences(table, MAIN, 5)[3].endswith("(inconclusive): “A beats B” (C1).")


@pytest.mark.parametrize("total", range(1, 10))
def test_every_combination_names_each_claim_once_in_five_sentences(total):
    """Every way to give so many claims verdicts, up to their order."""
    for verdicts in itertools.combinations_with_replacement(VERDICTS, total):
        check_sentences(verdicts)


def check_sentences(verdicts):
    """Five sentences that name each claim once, under its verdict, in the singular or plural that it has."""
    counts = [verdicts.count(verdict) for verdict in VERDICTS]
    found = first_screen.sentences(claims(*verdicts), MAIN, 5)
    assert len(found) == 5
    for sentence, count in zip(found[1:], counts, strict=True):
        assert sentence[0].isupper() and sentence.endswith(".") and not re.search(r"\.\s", sentence)
        assert "  " not in sentence and "{" not in sentence and "nan" not in sentence
        plain = re.sub(r"“[^”]*”", "", sentence)
        assert plain.count("(C") == count == sentence.count("“")
        if count:
            words = re.sub(r"of the paper's (\w+ )?claims", "", plain).partition(":")[0].lower().split()
            assert first_screen.in_words(count) in words
            verbs = {word for word in words[: words.index(first_screen.in_words(count)) + 2] if word in ("is", "are")}
            assert verbs == (set() if words[0] == "of" else {"are" if count > 1 else "is"})
        else:
            assert re.search(r"\bnone\b", sentence, re.IGNORECASE)
    named = re.findall(r"\((C\d+)", " ".join(found))
    assert sorted(named) == sorted(f"C{i}" for i in range(1, len(verdicts) + 1))


def test_the_number_of_a_claim_about_some_cell_is_called_that_of_the_best():
    table = claims(NOT_SUPPORTED, SUPPORTED).assign(note=[f"something; {OF_BEST_CELL}", None], level_pct=[99.6, 95])
    found = first_screen.sentences(table, MAIN, 5)
    assert (
        "(C1: +1.2 pp [-0.5, +3.0] in the best cell, by 99.6 % intervals; holds in 3 of 4 cells (told from 0 in 2))"
        in found[2]
    )
    assert "(C2: +1.2 pp [-0.5, +3.0]; holds in 3 of 4 cells (told from 0 in 2))" in found[1]


def test_a_claim_about_spreads_has_both_of_them():
    note = "spread of Pos/Pos 0.008 (0.000 to 0.024) minus spread of Pos/Neg 0.013 (0.000 to 0.047)"
    found = first_screen.sentences(claims(NOT_SUPPORTED).assign(note=note), MAIN, 5)[2]
    assert found.endswith(f"(C1: +1.2 pp [-0.5, +3.0], {note}; holds in 3 of 4 cells (told from 0 in 2)).")


def test_cells_that_say_the_opposite_and_what_to_bear_in_mind_are_told():
    table = claims(UNDER_POWERED).assign(cells_below_zero=1, cells_are="comparisons", bear_in_mind="A was not tuned")
    numbers = NUMBERS.replace("cells (told from 0 in 2)", "comparisons (told from 0 in 2, the opposite told in 1)")
    assert first_screen.sentences(table, MAIN, 5)[4].endswith(f"(C1: {numbers}; A was not tuned).")
    since = first_screen.sentences(table, MAIN, 5, {"C1": "against C it is +0.1 pp", "C2": "nothing"})[4]
    assert since.endswith("; A was not tuned; against C it is +0.1 pp).") and "nothing" not in since
    none = table.assign(cells_holding=0, cells_above_zero=0, bear_in_mind=np.nan)
    assert "holds in 0 of 4 comparisons (the opposite told in 1))" in first_screen.sentences(none, MAIN, 5)[4]
    open_cell = table.assign(cells_above_zero=0, cells_below_zero=0, bear_in_mind="")
    assert "holds in 3 of 4 comparisons (told from 0 in none))" in first_screen.sentences(open_cell, MAIN, 5)[4]


def test_policies_that_are_the_same_are_told():
    table = claims(UNDER_POWERED).assign(pairs_alike=7)
    assert first_screen.sentences(table, MAIN, 5)[4].endswith(
        f"(C1: {NUMBERS}; 7 of 20 pairs of policies are the same)."
    )


def test_numbers_in_words_and_lists():
    assert [first_screen.in_words(n) for n in (0, 1, 12, 13)] == ["no", "one", "twelve", "13"]
    assert [tables.listed(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
