"""The counts of a first look, by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from rdlib.engines import budget, look
from rdlib.engines.budget import Spent
from rdlib.settings import Model

LONG = "so it is that we get"


def table(*rows) -> pd.DataFrame:
    """Rows of (id, temperature, text, finished, answer, words)."""
    frame = pd.DataFrame(rows, columns=["id", "temperature", "text", "finished", "answer", "words"])
    return frame.assign(tokens=10)


def test_counts_by_hand():
    counts = look.count(
        table(
            ("a", 0.0, f"{LONG} 4", True, "4", ""),
            ("a", 1.0, f"{LONG} 4", True, "4", ""),
            ("a", 1.0, f"{LONG} 4", True, "4", ""),
            ("b", 0.0, "", False, None, ""),
            ("b", 1.0, f"{LONG} 5", True, "5", ""),
            ("b", 1.0, f"{LONG} six", True, None, ""),
            ("c", 0.0, "", False, None, "filtered"),
            ("c", 1.0, f"{LONG} 7", True, "7", ""),
        )
    )
    assert (counts.questions, counts.samples, counts.tokens) == (3, 8, 10)
    assert counts.unanswered == pytest.approx(1 / 8)
    assert counts.cut == counts.empty == pytest.approx(1 / 7) and counts.unreadable == pytest.approx(2 / 7)
    assert counts.equal == 0.5  # of the two questions with two hot samples, one has equal texts
    assert counts.agreement == pytest.approx((3 / 3 + 1 / 3 + 1 / 2) / 3)


def test_cold_and_short_texts_may_be_equal():
    cold = [("a", 0.3, f"{LONG} 4", True, "4", "")] * 3
    short = [("a", 1.0, "#### 4", True, "4", "")] * 3
    assert look.count(table(*cold)).equal is None and look.count(table(*cold)).stuck is None
    assert look.count(table(*short)).equal == 1 and look.count(table(*short)).stuck is None
    own = [("a", float("nan"), f"{LONG} 4", True, "4", "")] * 3
    assert look.count(table(*own)).stuck == 1


@pytest.mark.parametrize("temperature", [0.0, 0.7, float("nan")])
def test_nothing_at_all_is_no_reason_to_stop(temperature):
    counts = look.count(table(("a", temperature, "", False, None, "refused")))
    assert look.reason_to_stop(counts, 384) is None  # most_unanswered judges that
    assert look.count(table()).agreement is None


def test_money_and_what_is_left_of_a_budget():
    prices = {"input": 2.0, "output": 8.0, "currency": "EUR"}
    model = Model(
        model="m", engine="openai", base_url="http://x", prices=prices, budget={"money": 10.0, "tokens": 10**7}
    )
    assert budget.money(model.prices, Spent(1, 500_000, 1_000_000)) == pytest.approx(9.0)
    assert budget.used_up(model, Spent(1, 500_000, 1_000_000)) == ""
    assert budget.used_up(model, Spent(1, 1_000_000, 1_000_000)) == "The budget of m is used up: 10 of 10 EUR."
    assert "11 EUR" in budget.too_small(model, Spent(1, 1_000_000, 500_000), Spent(1, 500_000, 500_000))
    assert Spent(10, 100, 1000).ahead(5, 384) == Spent(15, 150, 1500)
    assert Spent().ahead(5, 384) == Spent(5, 0, 1920)
