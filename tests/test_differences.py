"""Where the study differs from the paper, told from small tables whose numbers are known."""

from __future__ import annotations

import pandas as pd

from rdlib.evidence import differences


def test_what_ppo_adds_is_told_by_benchmark_and_held_to_the_paper():
    cells = pd.DataFrame(
        {
            "claim": ["C1", "C2", "C2", "C2"],
            "cell": ["gsm/strong/small", "gsm/strong/small", "gsm/weak/small", "mmlu/strong/small"],
            "study_difference": [9.0, 1.0, 3.0, -2.0],
            "study_low": [8.0, -0.5, 2.0, -3.0],
            "study_high": [10.0, 2.5, 4.0, -1.0],
            "paper_difference": [7.0, 2.0, 5.0, ""],  # none of the paper's, as where the cell is not its
        }
    )
    assert differences.of_ppo(cells) == (
        "**PPO** adds to its warm-up +2.0 pp on gsm (1 of 2 cells) and -2.0 pp on mmlu (1 of 1 cell), on the mean of "
        "the cells, in brackets how many of them are told from zero; in the paper +3.5 pp on gsm."
    )
    without = differences.of_ppo(cells.assign(paper_difference=""))
    assert without.endswith("in brackets how many of them are told from zero.")


def test_pos_pos_has_the_lowest_and_the_highest_auc():
    auc = pd.DataFrame(
        {
            "method": ["ours_wo_d", "ours", "ours"],
            "study_pos_pos_auc": [0.8, 0.504, 0.53],
            "paper_pos_pos_auc": ["", 0.7, 0.94],
        }
    )
    told = differences.of_pos_pos(auc)
    assert "after the warm-up an AUC of 0.50 to 0.53 over the cells, in the paper 0.70 to 0.94" in told
    assert told.endswith("without the warm-up 0.80.")


def test_the_best_of_n_is_of_the_most_samples():
    strategies = ["any", "reward", "majority", "distinct"]
    one, most = [50.0] * 4, [90.0, 40.0, 70.0, 45.0]
    shares = pd.DataFrame(
        {
            "cell": "gsm/strong/small",
            "strategy": strategies * 2,
            "samples": [1] * 4 + [30] * 4,
            "study_pct": one + most,
            "study_low_pct": [v - 5 for v in one + most],
            "study_high_pct": [v + 5 for v in one + most],
        }
    )
    told = differences.of_best_of_n(shares)
    assert "gsm/strong/small: of 30 samples, 40 % [35, 45] of those with the highest reward and 70 % [65, 75]" in told
    assert told.endswith("50 % [45, 55] of single samples, 45 % [40, 50] of their distinct texts.")
    without = differences.of_best_of_n(shares[shares["strategy"] != "distinct"])
    assert without.endswith("50 % [45, 55] of single samples.")


def test_baselines_are_told_apart_by_intervals_without_zero():
    answers = pd.DataFrame(
        {
            "cell": "gsm/strong/small",
            "benchmark": "gsm",
            "arm": ["SFT", "Ours", "DPO", "on-policy distillation"],
            "ours_minus_arm_pp": [3.0, "", 0.5, -2.0],
            "ours_minus_arm_low_pp": [1.0, "", -1.0, -3.0],
            "ours_minus_arm_high_pp": [5.0, "", 2.0, -1.0],
        }
    )
    assert differences.of_baselines(answers) == (
        "**Baselines of R1**, most of which the paper lacks: of 3 comparisons, intervals without zero favour the "
        "baseline in 1 (on-policy distillation by 2.0 pp, gsm/strong/small: gsm), Ours in 1 (SFT by 3.0 pp, "
        "gsm/strong/small: gsm)."
    )
    none = answers[answers["arm"].isin(["Ours", "DPO"])]
    assert differences.of_baselines(none).endswith(
        "of 1 comparisons, intervals without zero favour the baseline in none, Ours in none."
    )


def test_what_no_table_is_there_for_is_left_out(tmp_path):
    assert differences.sentences(tmp_path) == []
