"""Accuracies and paired gains: by hand, as properties, and in the tables of the paper and of the arms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib.evidence import accuracy, ledger, stats
from rdlib.evidence.accuracy import ablation_table, arm_label, of_arms, summary

GSM, MMLU = ("gsm", "strong", "small"), ("mmlu", "strong", "small")


def graded(right: str, seed: int = 0, **columns) -> pd.DataFrame:
    """Answers of one seed, "1" a right one."""
    names = {"benchmark": "gsm", "teacher": "strong", "student": "small", "method": "ours", "variant": "", "group": ""}
    rows = {"seed": seed, "id": [f"q{i:03}" for i in range(len(right))], "correct": [one == "1" for one in right]}
    return pd.DataFrame(names | columns | rows)


def share(right: int, n: int = 100, **columns) -> pd.DataFrame:
    """Answers of which the first so many are right."""
    return graded("1" * right + "0" * (n - right), **columns)


# ---- the summary


def test_a_summary_by_hand():
    icl, ours = graded("1100000000", method="icl"), graded("0111100000")
    both = pd.concat([icl, ours], ignore_index=True)
    found = summary(both, ["benchmark", "method"], lambda row: icl if row["method"] != "icl" else icl[:0])
    before, after = found.to_dict("records")
    assert (before["study_pct"], after["study_pct"], after["n"], after["study_seeds"]) == (20, 40, 10, "")
    wilson = stats.wilson(2, 10)
    assert (before["study_low_pct"], before["study_high_pct"]) == (100 * wilson.low, 100 * wilson.high)
    assert after["gain_pp"] == pytest.approx(20) and np.isnan(before["gain_pp"])
    assert after["gain_low_pp"] < 20 < after["gain_high_pp"]
    turned = summary(both, ["benchmark", "method"], lambda row: icl, gain="icl_minus_it", base_minus_row=True)
    assert turned["icl_minus_it_pp"].tolist() == pytest.approx([0, -20])
    two = pd.concat([graded("1100", 0), graded("1110", 7)], ignore_index=True)
    (row,) = summary(two, ["benchmark"], name="right").to_dict("records")
    assert (row["right_pct"], row["n"], row["right_seeds"]) == (62.5, 4, "50.00 75.00")
    nothing = summary(both[:0], ["benchmark", "method"])
    assert nothing.empty and {"study_pct", "gain_pp", "n"} <= set(nothing)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=12), st.randoms())
@settings(max_examples=25)
def test_a_gain_is_the_difference_of_accuracies_whatever_the_order(pairs, random):
    marks = ["".join("01"[right] for right in side) for side in zip(*pairs, strict=True)]
    base, ours = graded(marks[0], method="icl"), graded(marks[1])
    both = pd.concat([base, ours], ignore_index=True)
    mixed = both.sample(frac=1, random_state=random.randint(0, 99))
    one, other = (summary(rows, ["benchmark", "method"], lambda row: base) for rows in (both, mixed))
    other = other.set_index("method").loc[one["method"]].reset_index()
    pd.testing.assert_frame_equal(one, other[list(one)])
    assert one["gain_pp"][1] == pytest.approx(one["study_pct"][1] - one["study_pct"][0])
    assert one.loc[0, ["gain_pp", "gain_low_pp", "gain_high_pp"]].tolist() == [0, 0, 0]  # the base with itself
    assert (one["study_low_pct"] <= one["study_pct"]).all() and (one["study_pct"] <= one["study_high_pct"]).all()


# ---- the paper's tables


def test_table_2_has_the_teacher_beside_every_student_and_icl_beside_every_teacher():
    parts = [graded("11", teacher=t, student="", method="teacher") for t in ("strong", "weak")]
    parts += [graded("10", teacher="", method="icl", student=s) for s in ("small", "large")]
    parts += [graded("10", teacher=t, student=s) for t in ("strong", "weak") for s in ("small", "large")]
    points = accuracy.main_points(SimpleNamespace(correctness=pd.concat(parts, ignore_index=True)))
    assert len(points) == 4 * 3 and points["method"].tolist()[:3] == ["teacher", "icl", "ours"]
    table = accuracy.main_table(points)
    assert table.query("method == 'teacher'")[["teacher", "student"]].values.tolist() == [["strong", ""], ["weak", ""]]
    assert len(table) == 2 + 4 + 4 and list(table)[-1] == "gsm_paper_pct"
    ours = table.set_index(["teacher", "student", "method"]).loc["strong", "small", "ours"]
    assert (ours["gsm_study_pct"], ours["gsm_n"], ours["gsm_paper_pct"]) == (50, 2, 64.06)


def test_tables_4_and_7_compare_in_every_cell_of_an_ablation():
    parts = []
    for (benchmark, *_), other in ((GSM, 210), (MMLU, 230)):
        parts += [share(200, 400, benchmark=benchmark, method="ours_wo_r"), share(220, 400, benchmark=benchmark)]
        parts += [share(other, 400, benchmark=benchmark, variant="reward_model.source=teacher")]
        parts += [share(other, 400, benchmark=benchmark, variant="reward.mismatch=minus")]
    parts.append(share(1, 400, benchmark="gsm", student="large"))  # no ablation there
    table = ablation_table(pd.concat(parts), "reward_source").set_index(["benchmark", "reward_model"])
    arms = ("without_reward", "from_teacher", "from_student")
    assert table.index.tolist() == [(b, s) for b in ("gsm", "mmlu") for s in arms]
    gains = table["gain_pp"]
    assert gains["gsm", "from_teacher"] == pytest.approx(2.5) and gains["mmlu", "from_teacher"] == pytest.approx(7.5)
    assert np.isnan(gains["gsm", "without_reward"]) and gains["gsm", "from_student"] == pytest.approx(5)
    assert table["paper_pct"]["gsm"].tolist() == [61.41, 62.85, 64.06] and table["paper_pct"]["mmlu"].isna().all()
    table = ablation_table(pd.concat(parts), "correctness").set_index(["benchmark", "mismatch"])
    assert table["gain_pp"]["gsm", "r - c (Minus)"] == pytest.approx(-2.5) and "paper_pct" not in table
    assert ablation_table(parts[1], "correctness").empty


# ---- arms


def arm(name, right, level=None, reference=False, question="R1", cell="gsm/strong/small"):
    """Graded answers of an arm, of which so many of 100 are right."""
    names = {"cell": cell, "question": question, "arm": name, "level": level, "reference": reference}
    return share(right, benchmark=cell.partition("/")[0]).assign(**names).astype({"level": float})


def test_an_arm_is_compared_with_the_reference_of_its_own_cell():
    cells = ["mmlu/strong/small", "gsm/strong/small"]  # the order of the profile
    parts = [arm("Ours", 30, reference=True, cell=cells[0]), arm("DPO", 45, cell=cells[0])]
    parts += [arm("Ours", 60, reference=True), arm("DPO", 50), arm("GRPO", 59)]
    table = of_arms(pd.concat(parts))
    assert list(dict.fromkeys(table["cell"])) == cells
    gains = table.set_index(["cell", "arm"])["ours_minus_arm_pp"].dropna().to_dict()
    assert gains == pytest.approx({(cells[1], "DPO"): 10, (cells[1], "GRPO"): 1, (cells[0], "DPO"): -15})
    own = accuracy.arm_table(table, "R1")
    assert "level" not in own and "question" not in own and len(own) == 5


def test_an_arm_is_compared_with_the_reference_of_its_level():
    parts = [arm("Ours", right, level, True, "R4") for right, level in ((60, 0.0), (40, 0.4))]
    parts += [arm("warm-up", right, level, question="R4") for right, level in ((55, 0.0), (45, 0.4))]
    table = accuracy.arm_table(of_arms(pd.concat(parts)), "R4")
    gains = table[table["arm"] == "warm-up"].set_index("flipped_share")["ours_minus_arm_pp"]
    assert gains.to_dict() == pytest.approx({0.0: 5.0, 0.4: -5.0})
    parts = [arm("Ours", 60, None, True, "R2"), arm("SFT", 50, 1.0, question="R2"), arm("SFT", 55, 2.0, question="R2")]
    assert of_arms(pd.concat(parts))["ours_minus_arm_pp"].dropna().tolist() == pytest.approx([10, 5])


def test_an_arm_is_called_by_its_level():
    named = [arm_label("SFT", level, question) for question, level in (("R2", 1.0), ("R2", 2.0), ("R4", 0.05))]
    assert named == ["SFT", "SFT (2 x teacher samples)", "SFT (5 % flipped)"]
    assert arm_label("Ours", float("nan")) == "Ours" and arm_label("SFT", 3.0, "R9") == "SFT (3)"


def test_costs_are_those_of_each_cell():
    """Data, evaluation and other questions do not count."""
    whole = dict.fromkeys(["parameters", "tokens_trained", "tokens_read", "reader_parameters"], 10)
    names = {"teacher": "t", "student": "s", "method": "", "variant": "", "seed": 0, "seconds": 1.0} | whole
    spent = {"DPO": ["01_teacher_responses"], "Ours": ["01_teacher_responses", "04_student_responses", "07_evaluate"]}
    rows = [
        names
        | {"cell": cell, "arm": name, "level": None, "question": question, "stage": stage}
        | {"tokens_generated": 100 * times, "gflop": 2e-6 * times}
        for cell, times in (("gsm/strong/small", 1), ("mmlu/strong/small", 3))
        for name, stages in spent.items()
        for stage in ("00_data", *stages)
        for question in ("R1", "R5")
    ]
    costs = pd.DataFrame(rows).astype({"level": float})
    costs.loc[costs["stage"] == "00_data", "gflop"] = float("nan")
    table = ledger.ledger_table(costs).set_index(["cell", "stage"])["tokens_generated"]
    assert table["gsm/strong/small"].to_dict() == dict.fromkeys(spent["Ours"], 100)
    assert table["mmlu/strong/small", "04_student_responses"] == 300
    cells = ["gsm/strong/small", "mmlu/strong/small"]
    arms = [arm(name, 50, reference=name == "Ours", cell=cell) for cell in cells for name in spent]
    gflop = ledger.pareto_table(of_arms(pd.concat(arms)), costs).set_index(["cell", "arm"])["gflop"]
    assert gflop[cells[0], "DPO"] == pytest.approx(2e-6)
    assert gflop[cells[1], "Ours"] == pytest.approx(12e-6)
    sampled = pd.DataFrame(
        {"stage": ["01_teacher_responses", "06_ppo", "07_evaluate"], "tokens_generated": [10, 8, 99]}
    )
    assert ledger.compute_factor(sampled) == pytest.approx(1.8)
