"""The reviewers' questions: the tables by hand, and the whole of it on the tiny study."""

from __future__ import annotations

from conftest import stage_in

from rdlib.evidence import ledger


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
