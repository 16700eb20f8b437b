"""What became of trainings: how they ended, with less patience, and in another numerical mode, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import stage_in

from rdlib.errors import UserError
from rdlib.evidence.convergence import both_modes, convergence_table, patience_of, patience_table, rounding_table
from rdlib.study import rows

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


def test_the_ending_of_a_training_is_that_of_its_curve(study):
    stages = [stage_in(study, "03_sft_warmup", "sft"), stage_in(study, "06_ppo"), stage_in(study, "00_data")]
    found = [rows.ending(stage) for stage in stages]
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


# ---- rounding


def answers(method: str, seed: int, correct: str, benchmark: str = "gsm") -> pd.DataFrame:
    """Answers of one method and seed in the cell strong/small, "1" a right one."""
    axes = {"benchmark": benchmark, "teacher": "strong", "student": "small", "method": method, "seed": seed}
    rows = [axes | {"id": f"{benchmark}-{i:03}", "correct": mark == "1"} for i, mark in enumerate(correct)]
    return pd.DataFrame(rows).assign(variant="", group="")


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
    table = both_modes(*modes)
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
    (row,) = rounding_table(sides[0], sides[1].drop(columns=["variant", "group"])).to_dict("records")
    assert row["rounding_sd_pp"] == pytest.approx(100 * (0.25 / 50) ** 0.5, rel=0.15)
    assert row["seeds_sd_pp"] == pytest.approx(row["rounding_sd_pp"], rel=0.2)


def test_an_answer_without_a_counterpart_is_reported():
    with pytest.raises(UserError, match="1 of 3 answers of the experiment rounding are to none"):
        both_modes(answers("sft", 0, "11"), answers("sft", 0, "111").drop(columns=["variant", "group"]))
