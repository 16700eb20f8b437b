"""SFT with the warm-up's learning rate: its table and answer by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from rdlib.evidence import same_rate

CELLS = ("gsm", "mmlu")
QUESTIONS = 200


def answered(method: str, right: dict[str, float]) -> pd.DataFrame:
    """Answers of a method in two cells and three seeds, of which a share is right: the first questions."""
    parts = []
    for benchmark in CELLS:
        for seed in (0, 1, 2):
            ids = [f"{benchmark}-{i:03}" for i in range(QUESTIONS)]
            correct = [i < right[benchmark] * QUESTIONS + seed for i in range(QUESTIONS)]
            part = pd.DataFrame({"benchmark": benchmark, "id": ids, "group": "", "correct": correct, "seed": seed})
            parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(teacher="strong", student="small", method=method, variant="")


def comparisons():
    shares = {"sft": (0.2, 0.4), "ours_wo_r": (0.4, 0.5), "ours": (0.5, 0.5)}
    released = [answered(name, dict(zip(CELLS, both, strict=True))) for name, both in shares.items()]
    again = answered("sft", {"gsm": 0.4, "mmlu": 0.6}).drop(columns="variant")
    other = answered("sft", {"gsm": 0.9, "mmlu": 0.9}).assign(variant="reward.source=vote")  # no part of it
    return same_rate.differences(pd.concat([*released, other], ignore_index=True), again)


def test_the_table_and_the_answer_by_hand():
    table = same_rate.rate_table(comparisons()).set_index(["comparison", "cell"])["difference_pp"]
    assert table[same_rate.OWN].tolist() == pytest.approx([30, 10, 20])
    assert table[same_rate.OURS].tolist() == pytest.approx([10, -10, 0])
    assert table[same_rate.WARM_UP].tolist() == pytest.approx([0, -10, -5])
    assert table[same_rate.RATE].tolist() == pytest.approx([20, 20, 20])
    assert table[same_rate.RATE].index.tolist() == ["gsm/strong/small", "mmlu/strong/small", same_rate.MEAN]
    told = same_rate.plain_answer(comparisons())
    assert told.startswith(
        "Answer: on the mean of the cells, SFT with the warm-up's learning rate minus SFT with its own is +20.0 pp ["
    )
    assert "Ours minus that SFT is +0.0 pp [" in told and "(cells told from 0 by their own intervals: 1 above" in told
    assert "1 above and 1 below 0 of 2), where C1 has +20.0 pp [" in told and "(2 above and 0 below 0 of 2)" in told
    assert told.endswith("with SFT's own rate it is supported.")


def test_both_rates_are_drawn():
    figure = same_rate.draw(same_rate.rate_table(comparisons()))
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "gsm/strong/small",
        "mmlu/strong/small",
        same_rate.MEAN,
    ]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [same_rate.OWN, same_rate.OURS, "95 % interval", "a seed"]
