"""The reviewers' questions: the tables by hand, and the whole of it on the tiny study."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import stage_in

from rdlib.evidence import ledger, reviewers


def answers(arm, right, level=None, reference=False, question="R1", n=100, cell="gsm/strong/small"):
    names = {"cell": cell, "question": question, "arm": arm, "level": level, "reference": reference}
    rows = {"benchmark": cell.split("/")[0], "seed": 0, "id": range(n), "correct": [i < right for i in range(n)]}
    return pd.DataFrame(names | rows).astype({"level": float})


def test_arms_are_held_to_ours_question_by_question():
    table = reviewers.accuracy_table(pd.concat([answers("Ours", 60, reference=True), answers("DPO", 50)]))
    ours, dpo = (table[table.arm == arm].iloc[0] for arm in ("Ours", "DPO"))
    assert (ours.study_pct, dpo.study_pct, dpo.n) == (60, 50, 100)
    assert dpo.ours_minus_arm_pp == pytest.approx(10) and pd.isna(ours.ours_minus_arm_pp)
    assert dpo.ours_minus_arm_low_pp > 3 and dpo.ours_minus_arm_high_pp < 18  # paired: 10 of 100 differ


def test_an_arm_is_held_to_the_reference_of_its_level():
    parts = [answers(a, r, level, a == "Ours", "R4") for a, r, level in (("Ours", 60, 0.0), ("Ours", 40, 0.4))]
    parts += [answers("warm-up", r, level, question="R4") for r, level in ((55, 0.0), (45, 0.4))]
    table = reviewers.accuracy_table(pd.concat(parts))
    gains = table[table.arm == "warm-up"].set_index("level")["ours_minus_arm_pp"]
    assert gains.to_dict() == pytest.approx({0.0: 5.0, 0.4: -5.0})


def test_the_answer_in_words():
    parts = [answers("Ours", 60, reference=True), answers("DPO", 50), answers("GRPO", 75), answers("SFT", 59)]
    table = reviewers.accuracy_table(pd.concat(parts))
    assert reviewers.plain_answer(table) == (
        "Answer: in gsm/strong/small, on gsm, Ours is ahead of DPO by 10.0 pp; is behind GRPO by 15.0 pp; is not told "
        "apart from SFT."
    )
    assert reviewers.plain_answer(table[table.arm == "Ours"]) == ""


def test_what_wrong_labels_do_to_ours_is_told_before_its_rivals():
    """Each rival is held to Ours with as many labels flipped: 50 with 40 % against 55 there, not against 60."""
    shares = {0.0: (60, 59), 0.1: (58, 48), 0.4: (55, 50)}
    parts = [answers("Ours", ours, level, True, question="R4") for level, (ours, _) in shares.items()]
    parts += [answers("SFT", sft, level, question="R4") for level, (_, sft) in shares.items()]
    assert reviewers.plain_answer(reviewers.accuracy_table(pd.concat(parts))) == (
        "Answer: in gsm/strong/small, on gsm, Ours goes from 60.0 % to 58.0 % (10 % flipped) and 55.0 % (40 % "
        "flipped); with as many labels flipped it is ahead of SFT (10 % flipped) by 10.0 pp, SFT (40 % flipped) by 5.0 "
        "pp; is not told apart from SFT."
    )


@pytest.mark.parametrize(
    ("question", "levels", "told"),
    [
        ("R2", (1.0, 2.0), "SFT, SFT (2 x teacher samples)"),
        ("R4", (0.0, 0.05), "SFT, SFT (5 % flipped)"),
        ("R9", (0.0, 3.0), "SFT (0), SFT (3)"),
    ],
)
def test_an_arm_is_called_by_its_level_in_words(question, levels, told):
    parts = [answers("Ours", 60, reference=True, question=question)]
    parts += [answers("SFT", 60, level, question=question) for level in levels]
    table = reviewers.accuracy_table(pd.concat(parts))
    assert reviewers.plain_answer(table).endswith(f"Ours is not told apart from {told}.")


def test_the_threshold_trades_coverage_for_accuracy_by_hand():
    votes = {"a": ["1"] * 4, "b": ["1", "1", "1", "2"], "c": ["2", "2", "1", "3"]}
    rows = [(key, "train", "high", answer) for key, given in votes.items() for answer in given]
    responses = pd.DataFrame(rows, columns=["id", "split", "confidence", "answer"])
    table = reviewers.threshold_sweep(responses, pd.Series({"a": "1", "b": "1", "c": "1"}), [0.4, 0.6, 0.9])
    assert table["coverage"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert table["failure_ratio"].tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert table["label_accuracy"].tolist() == pytest.approx([2 / 3, 1, 1]) and (table["n"] == 3).all()


def test_operations_by_hand():
    assert ledger.flops("01_teacher_responses", 10, 100, 0) == 2 * 10 * 100
    assert ledger.flops("03_sft_warmup", 10, 0, 100) == 6 * 10 * 100
    # sampling, and one pass each of policy, reference, value model and reward model; two networks trained
    assert ledger.flops("06_ppo", 10, 100, 200, 4 * 150) == 10 * (2 * 100 + 2 * 4 * 150 + 2 * 6 * 200)


def test_the_teacher_that_reads_what_a_student_samples_is_counted(study):
    assert ledger.flops("13_baseline", 10, 100, 150, 20, 30) == 10 * (2 * 120 + 6 * 150) + 30 * 2 * 150
    stages = {method: stage_in(study, "13_baseline", method) for method in ("grpo", "distillation")}
    assert ledger.parameters_of_reader(stages["grpo"]) == 0
    teacher = ledger.parameters_of_reader(stages["distillation"])
    assert teacher == ledger.parameters_of(stage_in(study, "01_teacher_responses")) > 0
    rows = pd.DataFrame(
        {"stage": ["13_baseline"], "parameters": [10], "tokens_generated": [40], "tokens_trained": [20]}
    )
    assert ledger.ledger(rows)["flops"].tolist() == [2000]  # of results that do not tell the reader
    assert ledger.ledger(rows.assign(reader_parameters=5))["flops"].tolist() == [2200]


def test_the_pipelines_tokens_over_the_teachers():
    costs = pd.DataFrame(
        {
            "stage": ["01_teacher_responses", "04_student_responses", "06_ppo", "07_evaluate"],
            "tokens_generated": [100, 50, 30, 999],
        }
    )
    assert reviewers.compute_factor(costs) == pytest.approx(1.8)
