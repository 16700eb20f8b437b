"""C1 with other learning rates, by hand: agreement likes a high rate, perturbed questions a low one."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rdlib.evidence import fair_rates
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.stats import Interval
from rdlib.evidence.verdicts import Cell, Claim

RATES = [0.001, 0.002]
# By training, dataset and rate: agreement, and accuracy on perturbed questions
VALUES = {
    ("gsm", 0.001): (0.60, 0.40),
    ("gsm", 0.002): (0.66, 0.20),
    ("mmlu", 0.001): (0.70,),
    ("mmlu", 0.002): (0.71,),
}


class Results(SimpleNamespace):
    """What fair_rates reads of an Evidence: trials of both trainings, and the released settings."""

    settings = {"sft": {"learning_rate": 0.002, "learning_rate_of_warmup": 0.001}}

    def seeds_of(self, *experiments: str) -> tuple[str, ...]:
        return ("seed100",) if self.run else ()

    def rows(self, kind: str, *experiments: str, **values) -> pd.DataFrame:
        assert {one.partition(":")[0] for one in experiments} == {"fair_rates"}
        cells = {"gsm": "gsm/strong/small", "mmlu": "mmlu/strong/small"}
        found = [(cells[name], rate, 100, found) for (name, rate), found in VALUES.items()]
        if kind == "trainings":
            rows = [(*where, numbers[0]) for *where, numbers in found]
            return pd.DataFrame(rows, columns=["cell", "level", "seed", "best"])
        rows = [
            (*where, n < round(10 * numbers[1])) for *where, numbers in found if len(numbers) > 1 for n in range(10)
        ]
        return pd.DataFrame(rows, columns=["cell", "level", "seed", "correct"])


def test_each_rule_takes_the_rate_with_the_highest_mean_over_cells():
    found = fair_rates.trials(Results(run=True))
    table = fair_rates.chosen(found, Results.settings).set_index("rule")
    assert table.loc[fair_rates.RELEASED].tolist() == [0.002, 0.001]
    agreement, both = (table.loc[rule].tolist() for rule in fair_rates.RULES)
    assert agreement == [0.002, 0.002]  # 0.685 against 0.65
    assert both == [0.001, 0.001]  # (0.50 + 0.70) / 2 against (0.43 + 0.71) / 2


def test_c1_is_shown_where_the_chosen_rates_were_trained(monkeypatch):
    def claim(estimate: float) -> Claim:
        cells = [Cell("a", Interval(estimate, estimate - 1, estimate + 1, 9)), Cell("b", Interval(-3.0, -4, -2, 9))]
        return Claim("C1", load_criteria()["C1"], "inconclusive", cells, Interval(estimate, 0.0, 2.0, 9))

    claims = {fair_rates.OWN: claim(5.0), fair_rates.OURS: claim(0.5)}
    monkeypatch.setattr(fair_rates, "differences", lambda evidence: claims)
    table = fair_rates.table(Results(run=True)).set_index("rule")
    released, agreement, both = (table.loc[rule] for rule in (fair_rates.RELEASED, *fair_rates.RULES))
    assert (released["difference_pp"], both["difference_pp"]) == (5.0, 0.5)
    assert released[["cells", "positive", "significantly_positive", "significantly_negative"]].tolist() == [2, 1, 1, 1]
    assert agreement["verdict"] == "these rates were not trained on all seeds" and pd.isna(agreement["difference_pp"])


@pytest.mark.parametrize("function", [fair_rates.trials, fair_rates.table, fair_rates.trial_table])
def test_without_trials_there_is_no_table(function):
    assert function(Results(run=False)).empty


# ---- the same seeds with the warm-up's rate


def answered(method: str, *shares: float, questions: int = 200) -> pd.DataFrame:
    """Answers of a method in two cells and three seeds, of which a share is right: the first questions."""
    parts = []
    for (benchmark, share), seed in product(zip(("gsm", "mmlu"), shares, strict=True), range(3)):
        rows = {"id": [f"{benchmark}-{i:03}" for i in range(questions)]}
        rows |= {"correct": np.arange(questions) < round(share * questions) + seed}
        names = {"benchmark": benchmark, "teacher": "strong", "student": "small", "method": method, "variant": ""}
        parts.append(pd.DataFrame(rows).assign(seed=seed, group="", **names))
    return pd.concat(parts, ignore_index=True)


def test_ours_against_either_rate_by_hand():
    released = [answered("sft", 0.2, 0.4), answered("ours_wo_r", 0.4, 0.5), answered("ours", 0.5, 0.5)]
    other = answered("sft", 0.9, 0.9).assign(variant="reward.source=vote")  # no part of it
    again = answered("sft", 0.4, 0.6).drop(columns="variant")
    evidence = SimpleNamespace(correctness=pd.concat([*released, other], ignore_index=True), same_rate=again)
    evidence.folders, evidence.seeds_of = (0, 1, 2), lambda name: (0, 1, 2)
    found = fair_rates.rate_table(fair_rates.differences(evidence))
    found = found.set_index(["comparison", "cell"])["difference_pp"]
    assert found[fair_rates.OWN].tolist() == pytest.approx([30, 10, 20])
    assert found[fair_rates.OURS].tolist() == pytest.approx([10, -10, 0])
    assert found[fair_rates.WARM_UP].tolist() == pytest.approx([0, -10, -5])
    assert found[fair_rates.RATE].tolist() == pytest.approx([20, 20, 20])
    assert found[fair_rates.RATE].index.tolist() == ["gsm/strong/small", "mmlu/strong/small", "mean of the cells"]
    evidence.folders = (0, 1, 2, 3)  # a seed without the other rate: none of it is shown
    assert fair_rates.differences(evidence) == {}
