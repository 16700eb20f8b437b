"""Where the study differs from the paper, told from small tables whose numbers are known."""

from __future__ import annotations

import pandas as pd
import pytest

from rdlib.evidence import differences, forgetting, ppo_reach

STEPS = {"sft": 320, "ours_wo_r": 96}


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
        "**PPO** adds to its warm-up +2.0 pp on gsm (above 0 in 1 of 2 cells) and -2.0 pp on mmlu (below 0 in 1 of 1 "
        "cell); in the paper "
        "+3.5 pp on gsm."
    )
    assert differences.of_ppo(cells.assign(paper_difference="")).endswith(" on mmlu (below 0 in 1 of 1 cell).")
    told = differences.of_sft(cells)
    assert told == "**Ours minus SFT** is +9.0 pp on gsm (above 0 in 1 of 1 cell); in the paper +7.0 pp on gsm."
    cells["claim"] = "C3"
    cells.loc[2, "cell"] = "gsm/weak/large"
    assert differences.of_no_warm_up(cells).startswith(
        "**The warm-up** is worth, to PPO that begins from it, +2.7 pp with the small student (above 0 in 1 and below "
        "0 in 1 of 3 cells) and +3.0 pp with the large student (above 0 in 1 of 1 cell); in the paper"
    )
    cells[["study_low", "study_high"]] = [-1, 1]
    assert "+3.0 pp with the large student (told from 0 in none of 1 cell)" in differences.of_no_warm_up(cells)


def test_forgetting_is_told_by_seeds_of_the_same_cell():
    """Two cells of which the later one is less accurate: within them, accuracy falls by 2 points in 100 steps."""
    rows = [(c, s, 0 if c == "weak" else 300, step) for c in ("strong", "weak") for s, step in ((0, 0), (1, 200))]
    kept = pd.DataFrame(rows, columns=["teacher", "seed", "later", "step"]).assign(student="small", method="sft")
    kept["right_pct"] = 50.0 - 2 * kept["step"] / 100 - kept["later"] / 10
    kept["step"] += kept["later"]
    kept["change_pp"] = kept["right_pct"] - 47
    found = forgetting.within_cells(kept.assign(benchmark="gsm_plus")).iloc[0]
    assert (found["runs"], found["below"]) == (4, 3)
    assert found["per_100_steps_pp"] == pytest.approx(-2) and found["correlation"] == pytest.approx(-1)
    told = differences.of_forgetting(kept.assign(benchmark="gsm_plus"))
    assert "in 3 of 4 trainings on gsm_plus (3 of the small student)." in told
    assert told.endswith("kept 100 optimizer steps later has -2.0 pp on gsm_plus (correlation -1.00).")
    above = differences.of_forgetting(kept.assign(benchmark="gsm", change_pp=1.0))
    assert "in 0 of 4 trainings on gsm. Within" in above


def test_steps_kept_are_joined_to_the_accuracy_of_each_benchmark():
    names = {"dataset": "gsm", "teacher": "weak", "student": "small", "variant": "", "seed": 3}
    trainings = pd.DataFrame(
        [names | {"stage": "03_sft_warmup", "method": method, "best_step": step} for method, step in STEPS.items()]
        + [names | {"stage": "06_ppo", "method": "ours", "best_step": 7}]
        + [names | {"stage": "03_sft_warmup", "method": "sft", "best_step": 9, "variant": "sft.epochs=1"}]
    )
    answers = [("icl", "", [1, 0, 0, 0]), ("sft", "weak", [1, 1, 0, 0]), ("ours_wo_r", "weak", [1, 1, 1, 0])]
    correct = pd.DataFrame(
        [
            {"benchmark": b, "teacher": t, "student": "small", "method": m, "variant": "", "seed": 3, "correct": c == 1}
            for b in ("gsm", "gsm_plus")
            for m, t, given in answers
            for c in given
        ]
    )
    found = forgetting.kept_steps(trainings, correct)
    assert found["benchmark"].tolist() == ["gsm", "gsm", "gsm_plus", "gsm_plus"]
    assert found["method"].tolist() == ["sft", "ours_wo_r"] * 2 and found["step"].tolist() == list(STEPS.values()) * 2
    assert found["change_pp"].tolist() == [25, 50, 25, 50] and (found["start_pct"] == 25).all()


def test_what_ppo_starts_from_and_how_far_it_goes_by_hand():
    """Twelve updates: the first ten agree on 80 %, the last ten on 90 but for two; validation at 0, 6 and 12."""
    names = {"dataset": "mmlu", "teacher": "weak", "student": "small", "method": "ours", "variant": ""}
    frames = []
    for seed, reward in ((0, 1.0), (1, 3.0)):
        run = pd.DataFrame({"update": range(13), "reward": reward, "kl": 0.1, "clip_fraction": 0.0, "agreement": 0.8})
        run["validation_agreement"] = run["update"].map({0: 0.5, 6: 0.6, 12: 0.4})
        run.loc[run["update"] > 10, ["agreement", "kl", "reward"]] = 1.0, 0.6, 2 * reward
        run.loc[0, ["reward", "kl", "clip_fraction", "agreement"]] = float("nan")
        run.loc[5, "clip_fraction"] = 0.002 * seed
        frames.append(run.assign(**names, seed=seed))
    history = pd.concat(frames, ignore_index=True)
    other = history.assign(variant="reward.source=vote", agreement=0.0)
    alone = history.assign(method="ours_wo_d", agreement=0.25)
    table = ppo_reach.reach_table(pd.concat([alone, other, history], ignore_index=True))
    assert table["method"].tolist() == ["ours_wo_d", "ours"] and (table["seeds"] == 2).all()
    ours = table.iloc[1]
    assert (ours["trained_on_pct"], ours["validation_start_pct"]) == pytest.approx((80, 50))
    assert (ours["kept_gain_pp"], ours["kl_end"], ours["clip_fraction_most"]) == pytest.approx((10, 0.2, 0.002))
    assert (ours["reward_first"], ours["reward_last"]) == pytest.approx((2, 2.4))
    assert ours["reward_first_seeds"] == "1.00 3.00"
    told = differences.of_reach(table)
    assert "of the first 10 updates that have a label 80 % agree with it over the cells" in told
    assert "of validation answers 50 %" in told
    assert "without a warm-up 25 % of the samples" in told and "clips at most 0.20 % of an update's tokens" in told


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
        "**Baselines of R1**, most of which the paper lacks: in 3 comparisons with Ours, the baseline is told to be "
        "better in 1 (on-policy distillation by 2.0 pp, gsm/strong/small: gsm) and Ours in 1 (SFT by 3.0 pp, "
        "gsm/strong/small: gsm); if no method differed, about one comparison in twenty would still be told apart."
    )
    none = answers[answers["arm"].isin(["Ours", "DPO"])]
    assert "in 1 comparisons with Ours, the baseline is told to be better in none and Ours in none;" in (
        differences.of_baselines(none)
    )


def test_what_no_table_is_there_for_is_left_out(tmp_path):
    assert differences.sentences(tmp_path) == []
