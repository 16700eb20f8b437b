"""What became of trainings: how they ended, what PPO reached, and what fine-tuning forgot, by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import stage_in

from rdlib.evidence.convergence import (
    convergence_table,
    kept_steps,
    kind_of,
    patience_of,
    patience_table,
    reach_table,
    within_cells,
)
from rdlib.study.rows import Finished

STEPS = {"sft": 320, "ours_wo_r": 96}
CELL = {"dataset": "gsm", "teacher": "strong", "student": "small", "variant": ""}


def row(stage, method, seed, best_step, steps, early, **changes):
    ending = {"seed": seed, "best": 0.5, "best_step": best_step, "steps": steps, "stopped_early": early}
    return CELL | {"stage": stage, "method": method} | ending | changes


def test_runs_that_took_the_most_steps_are_named():
    rows = [row("06_ppo", "ours", seed, 10 * seed, 50, True) for seed in range(4)]
    rows.append(row("06_ppo", "ours", 4, 100, 100, False, variant="reward.mismatch=minus"))
    rows.append(row("13_baseline", "dpo", 0, 0, 8, True))
    table = convergence_table(pd.DataFrame(rows)).set_index("training")
    assert list(table.index) == ["PPO of Ours", "DPO"]
    ours = table.loc["PPO of Ours"]
    assert (ours["runs"], ours["ended_by_patience"]) == (5, 4)
    assert ours["at_the_most"] == "gsm/strong/small reward.mismatch=minus seed 4"
    assert (ours["best_step_median"], ours["steps_median"]) == (20, 50)
    assert (ours["best_step_lower_quartile"], ours["best_step_upper_quartile"]) == (10, 30)
    assert all(pd.api.types.is_integer_dtype(table[name]) for name in table if "step" in name)
    assert table.loc["DPO", "at_the_most"] == "" and table.loc["DPO", "best_step_median"] == 0


@pytest.mark.parametrize(
    ("stage", "method", "words"),
    [
        ("03_sft_warmup", "ours_wo_r", "warm-up (Ours w/o R)"),
        ("03_sft_warmup", "sft", "SFT"),
        ("05_reward_model", "ours", "reward model of Ours"),
        ("13_baseline", "rft", "rejection-sampling FT"),
    ],
)
def test_trainings_are_called_what_they_are(stage, method, words):
    assert kind_of(stage, method) == words


def test_the_ending_of_a_training_is_that_of_its_curve(study):
    stages = [stage_in(study, "03_sft_warmup", "sft"), stage_in(study, "06_ppo"), stage_in(study, "00_data")]
    found = [Finished().ending(stage) for stage in stages]
    assert [len(one) for one in found] == [1, 1, 0]
    table = pd.concat(found)
    sft, ppo = table.to_dict("records")
    assert (
        sft["best"] == stages[0].json("summary")["best"] and sft["best_step"] == stages[0].json("summary")["best_step"]
    )
    assert ppo["best_step"] == 4 * stages[1].json("summary")["best_update"]
    assert ppo["start"] == stages[1].jsonl("history")["validation_agreement"].iloc[0]
    assert not table["stopped_early"].any()  # the tiny study is patient


def test_less_patience_by_hand():
    def curve(trial, values):
        rows = [{"cell": "c", "seed": 0, "trial": trial, "step": 32 * i, "value": v} for i, v in enumerate(values)]
        return pd.DataFrame(rows)

    # dips below its start for two evaluations after the first; then gains, until its patience of 96 ends it
    dip = curve("dip", [0.5, 0.4, 0.3, 0.35, 0.6, 0.5, 0.5, 0.6])
    # what training reached starts its patience anew although the start is better and is kept
    slow = curve("slow", [0.9, 0.1, 0.2, 0.3, 0.3, 0.2, 0.1])
    table = patience_table(pd.concat([dip, slow.sample(frac=1, random_state=0)]), [64, 96]).set_index("patience")
    assert table.loc[64].tolist() == pytest.approx([(0.5 + 0.9) / 2, (96 + 160) / 2])
    assert table.loc[96].tolist() == pytest.approx([(0.6 + 0.9) / 2, (224 + 192) / 2])
    assert patience_of(slow) == 96 and patience_of(pd.concat([dip, slow])) == 96  # dip goes on to its last step


def test_forgetting_compares_seeds_of_the_same_cell():
    """Two cells of which the later one is less accurate: within them, accuracy falls by 2 points in 100 steps."""
    rows = [(c, s, 0 if c == "weak" else 300, step) for c in ("strong", "weak") for s, step in ((0, 0), (1, 200))]
    kept = pd.DataFrame(rows, columns=["teacher", "seed", "later", "step"]).assign(student="small", method="sft")
    kept["right_pct"] = 50.0 - 2 * kept["step"] / 100 - kept["later"] / 10
    kept["step"] += kept["later"]
    kept["change_pp"] = kept["right_pct"] - 47
    found = within_cells(kept.assign(benchmark="gsm_plus")).iloc[0]
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
    found = kept_steps(trainings, correct)
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
    table = reach_table(pd.concat([alone, other, history], ignore_index=True))
    assert table["method"].tolist() == ["ours_wo_d", "ours"] and (table["seeds"] == 2).all()
    ours = table.iloc[1]
    assert (ours["trained_on_pct"], ours["validation_start_pct"]) == pytest.approx((80, 50))
    assert (ours["kept_gain_pp"], ours["kl_end"], ours["clip_fraction_most"]) == pytest.approx((10, 0.2, 0.002))
    assert (ours["reward_first"], ours["reward_last"]) == pytest.approx((2, 2.4))
    assert ours["reward_first_seeds"] == "1.00 3.00"
