"""What rounding does: the table by hand-computed cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rdlib.errors import UserError
from rdlib.evidence import rounding

# ---- the table, by hand


def answers(method: str, seed: int, correct: str, benchmark: str = "gsm") -> pd.DataFrame:
    """Answers of one method and seed in the cell strong/small, "1" a right one."""
    axes = {"benchmark": benchmark, "teacher": "strong", "student": "small", "method": method, "seed": seed}
    rows = [axes | {"id": f"{benchmark}-{i}", "correct": mark == "1"} for i, mark in enumerate(correct)]
    return pd.DataFrame(rows)


@pytest.fixture
def by_seed() -> pd.DataFrame:
    """Two seeds of ten answers: SFT moves by +10 and -10 points, Ours by 0 and +20, with changes both ways."""
    portable = [answers("ours", 0, "1111100000"), answers("ours", 1, "1111110000")]
    portable += [answers("sft", 0, "1110000000"), answers("sft", 1, "1111100000"), answers("teacher", 0, "1111111111")]
    native = [answers("ours", 0, "0111100001"), answers("ours", 1, "1111111100")]
    native += [answers("sft", 0, "1111000000"), answers("sft", 1, "1111000000")]
    return rounding.pairs(pd.concat(portable), pd.concat(native))


def test_accuracies_of_each_seed_in_both_modes(by_seed):
    assert by_seed[["method", "seed"]].values.tolist() == [["sft", 0], ["sft", 1], ["ours", 0], ["ours", 1]]
    assert by_seed["portable_pct"].tolist() == pytest.approx([30, 50, 50, 60])
    assert by_seed["native_pct"].tolist() == pytest.approx([40, 40, 50, 80])
    assert by_seed["changed"].tolist() == [1, 1, 2, 2] and (by_seed["questions"] == 10).all()


def test_the_modes_differ_by_this_much_beside_the_seeds(by_seed):
    sft, ours = rounding.spread_table(by_seed).to_dict("records")
    assert (sft["rms_difference_pp"], sft["rounding_sd_pp"]) == pytest.approx((10, 50**0.5))
    assert (ours["rms_difference_pp"], ours["rounding_sd_pp"]) == pytest.approx((200**0.5, 10))
    assert (sft["seeds_sd_pp"], ours["seeds_sd_pp"]) == pytest.approx((200**0.5, 50**0.5))
    assert (ours["answers"], ours["changed"], ours["changed_pct"]) == (20, 4, 20)
    assert (sft["seeds"], sft["portable_pct"], sft["native_pct"]) == (2, 40, 40)


def test_two_independent_roundings_have_the_deviation_that_is_told():
    """Errors of 2 points in both modes: their difference has 2.8, and the table tells 2."""
    rng = np.random.default_rng(0)
    rows = [
        {"benchmark": "gsm", "teacher": "strong", "student": "small", "method": "ours", "seed": seed}
        | {"questions": 100, "changed": 5, "portable_pct": rng.normal(70, 2), "native_pct": rng.normal(70, 2)}
        for seed in range(4000)
    ]
    (row,) = rounding.spread_table(pd.DataFrame(rows)).to_dict("records")
    assert row["rounding_sd_pp"] == pytest.approx(2, abs=0.1) and row["seeds_sd_pp"] == pytest.approx(2, abs=0.1)


def stages(method: str, seed: int, same: str) -> list[dict]:
    """Rows of the stages 00_a, 01_a, ... behind a model, "=" for one whose content is the same."""
    axes = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": method, "seed": seed}
    return [axes | {"stage": f"0{i}_a", "same": mark == "="} for i, mark in enumerate(same)]


def test_the_first_stage_that_differs_is_found_for_each_model():
    rows = stages("ours", 0, "=xx") + stages("ours", 1, "==x") + stages("sft", 0, "===") + stages("sft", 1, "=x=")
    found = rounding.first_differing(pd.DataFrame(rows)).set_index(["method", "seed"])["first"]
    assert found.to_dict() == {("ours", 0): "01_a", ("ours", 1): "02_a", ("sft", 0): "", ("sft", 1): "01_a"}


def test_the_answer_in_words(by_seed):
    rows = stages("ours", 0, "=x") + stages("ours", 1, "=x") + stages("sft", 0, "==") + stages("sft", 1, "=x")
    text = rounding.plain_answer(by_seed, rounding.first_differing(pd.DataFrame(rows)))
    assert "in SFT, Ours w/o R" not in text and "in SFT, Ours the same seed differs" in text
    assert "by 10.0, 14.1 percentage points (root mean square over 2 seeds" in text
    assert "a standard deviation of 7.1, 10.0 from rounding alone; between seeds it is 14.1, 7.1." in text
    assert "Of 4 models, bytes first differ in `01_a` behind 3, nowhere behind 1. 6 of 40 answers (15.0 %)" in text
    assert "less than 24.5 points (twice the root mean square)" in text  # 2 sqrt((100 + 100 + 0 + 400) / 4)


def test_one_seed_has_no_spread_between_seeds(by_seed):
    alone = by_seed[by_seed["seed"] == 0]
    text = rounding.plain_answer(alone, rounding.first_differing(pd.DataFrame(stages("ours", 0, "=x"))))
    assert "over 1 seed, cells" in text and "between seeds it is" not in text and "nan" not in text
    rounding.draw(alone)


def test_an_answer_without_a_counterpart_is_told():
    with pytest.raises(UserError, match="of 3 answers 1 are to none of the questions"):
        rounding.pairs(answers("sft", 0, "11"), answers("sft", 0, "111"))


def test_the_figure_joins_the_two_accuracies_of_a_seed(by_seed):
    (ax,) = rounding.draw(by_seed).axes
    joined = [
        line.get_ydata().tolist() for line in ax.lines if line.get_linestyle() == "-" and len(line.get_ydata()) == 2
    ]
    assert [30, 40] in joined and [50, 40] in joined and [50, 50] in joined and [60, 80] in joined
    assert [text.get_text() for text in ax.get_xticklabels()] == ["SFT", "Ours"]
