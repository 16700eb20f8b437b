"""The same seeds with another learning rate of SFT, and in another numerical mode: their tables by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rdlib.errors import UserError
from rdlib.evidence import convergence

CELLS, MEAN = ("gsm", "mmlu"), "mean of the cells"


def answers(method: str, seed: int, correct: str, benchmark: str = "gsm") -> pd.DataFrame:
    """Answers of one method and seed in the cell strong/small, "1" a right one."""
    axes = {"benchmark": benchmark, "teacher": "strong", "student": "small", "method": method, "seed": seed}
    rows = [axes | {"id": f"{benchmark}-{i:03}", "correct": mark == "1"} for i, mark in enumerate(correct)]
    return pd.DataFrame(rows).assign(variant="", group="")


# ---- SFT's learning rate


def answered(method: str, *shares: float, questions: int = 200) -> pd.DataFrame:
    """Answers of a method in both cells and three seeds, of which a share is right: the first questions."""
    right = {
        cell: [round(share * questions) + seed for seed in range(3)] for cell, share in zip(CELLS, shares, strict=True)
    }
    parts = [
        answers(method, seed, "1" * count + "0" * (questions - count), cell)
        for cell, counts in right.items()
        for seed, count in enumerate(counts)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def rates() -> pd.DataFrame:
    released = [answered("sft", 0.2, 0.4), answered("ours_wo_r", 0.4, 0.5), answered("ours", 0.5, 0.5)]
    other = answered("sft", 0.9, 0.9).assign(variant="reward.source=vote")  # no part of it
    again = answered("sft", 0.4, 0.6).drop(columns="variant")
    evidence = SimpleNamespace(correctness=pd.concat([*released, other], ignore_index=True), same_rate=again)
    evidence.folders, evidence.seeds_of = (0, 1, 2), lambda name: (0, 1, 2)
    found = convergence.rate_table(convergence.differences(evidence))
    evidence.folders = (0, 1, 2, 3)  # a seed without the other rate: none of it is shown
    assert convergence.differences(evidence) == {}
    return found


def test_ours_against_either_rate_by_hand(rates):
    found = rates.set_index(["comparison", "cell"])["difference_pp"]
    assert found[convergence.OWN].tolist() == pytest.approx([30, 10, 20])
    assert found[convergence.OURS].tolist() == pytest.approx([10, -10, 0])
    assert found[convergence.WARM_UP].tolist() == pytest.approx([0, -10, -5])
    assert found[convergence.RATE].tolist() == pytest.approx([20, 20, 20])
    assert found[convergence.RATE].index.tolist() == ["gsm/strong/small", "mmlu/strong/small", MEAN]


# ---- rounding


@pytest.fixture
def modes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two seeds of ten answers: SFT moves by +10 and -10 points, Ours by 0 and +20, with changes both ways."""
    portable = [answers("ours", 0, "1111100000"), answers("ours", 1, "1111110000")]
    portable += [answers("sft", 0, "1110000000"), answers("sft", 1, "1111100000"), answers("teacher", 0, "1111111111")]
    portable.append(answers("sft", 0, "0000000000").assign(variant="sft.epochs=1"))  # no part of it
    native = [answers("ours", 0, "0111100001"), answers("ours", 1, "1111111100")]
    native += [answers("sft", 0, "1111000000"), answers("sft", 1, "1111000000")]
    return pd.concat(portable), pd.concat(native).drop(columns=["variant", "group"])


def test_accuracies_of_each_seed_in_both_modes(modes):
    table = convergence.both_modes(*modes)
    assert table[["method", "seed"]].values.tolist() == [["sft", 0], ["sft", 1], ["ours", 0], ["ours", 1]]
    assert table["portable_pct"].tolist() == pytest.approx([30, 50, 50, 60])
    assert table["native_pct"].tolist() == pytest.approx([40, 40, 50, 80])
    assert table["changed"].tolist() == [1, 1, 2, 2] and (table["questions"] == 10).all()


def test_rounding_errors_of_either_mode_are_found():
    """1,000 questions of which either mode rounds some: the accuracy's own deviation is that of one mode."""
    rng = np.random.default_rng(0)
    sides = [
        pd.concat([answers("ours", seed, "".join(rng.choice(["0", "1"], 50))) for seed in range(150)]) for _ in range(2)
    ]
    (row,) = convergence.rounding_table(sides[0], sides[1].drop(columns=["variant", "group"])).to_dict("records")
    assert row["rounding_sd_pp"] == pytest.approx(100 * (0.25 / 50) ** 0.5, rel=0.15)
    assert row["seeds_sd_pp"] == pytest.approx(row["rounding_sd_pp"], rel=0.2)


def test_an_answer_without_a_counterpart_is_reported():
    with pytest.raises(UserError, match="1 of 3 answers of the experiment rounding are to none"):
        convergence.both_modes(answers("sft", 0, "11"), answers("sft", 0, "111").drop(columns=["variant", "group"]))
