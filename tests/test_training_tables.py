"""What supervised fine-tuning forgets and how far PPO goes, by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from rdlib.evidence import forgetting, ppo_reach

STEPS = {"sft": 320, "ours_wo_r": 96}


def test_forgetting_compares_seeds_of_the_same_cell():
    """Two cells of which the later one is less accurate: within them, accuracy falls by 2 points in 100 steps."""
    rows = [(c, s, 0 if c == "weak" else 300, step) for c in ("strong", "weak") for s, step in ((0, 0), (1, 200))]
    kept = pd.DataFrame(rows, columns=["teacher", "seed", "later", "step"]).assign(student="small", method="sft")
    kept["right_pct"] = 50.0 - 2 * kept["step"] / 100 - kept["later"] / 10
    kept["step"] += kept["later"]
    kept["change_pp"] = kept["right_pct"] - 47
    found = forgetting.within_cells(kept.assign(benchmark="gsm_plus")).iloc[0]
    assert (found["runs"], found["below"]) == (4, 3)
    assert found["per_100_steps_pp"] == pytest.approx(-2) and found["correlation"] == pytest.approx(-1)


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
