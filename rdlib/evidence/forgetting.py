"""What supervised fine-tuning forgets: accuracy of SFT and of the warm-up against the optimizer step that was kept.

A checkpoint is chosen on validation questions, which are like those in training. Perturbed questions are not, so
nothing holds a training back from forgetting how they are answered.
"""

from __future__ import annotations

import pandas as pd

from rdlib.evidence import tables

SUPERVISED = ("sft", "ours_wo_r")
TRAINED_ON = {"gsm_plus": "gsm"}  # benchmarks whose students were trained for another
CELL = ["benchmark", "teacher", "student", "method"]


def kept_steps(trainings: pd.DataFrame, correctness: pd.DataFrame) -> pd.DataFrame:
    """A row a supervised training and benchmark: the step kept, its accuracy, and that minus the one before training.

    Columns CELL, seed, step, right_pct, start_pct (ICL of the same student and seed) and change_pp. `trainings`: as in
    `rdlib.evidence.convergence`; `correctness`: benchmark, teacher, student, method, variant, seed, correct.
    """
    right = tables.select(correctness, variant="").groupby([*CELL, "seed"])["correct"].mean().mul(100).reset_index()
    before = right[right["method"] == "icl"].rename(columns={"correct": "start_pct"})
    kept = tables.select(trainings, stage="03_sft_warmup", variant="").rename(columns={"best_step": "step"})
    found = right[right["method"].isin(SUPERVISED)].rename(columns={"correct": "right_pct"})
    found["dataset"] = found["benchmark"].replace(TRAINED_ON)
    axes = ["dataset", *CELL[1:], "seed"]
    found = found.merge(kept[[*axes, "step"]], on=axes, validate="many_to_one")
    found = found.merge(before[["benchmark", "student", "seed", "start_pct"]], on=["benchmark", "student", "seed"])
    found["change_pp"] = found["right_pct"] - found["start_pct"]
    found = found[[*CELL, "seed", "step", "right_pct", "start_pct", "change_pp"]]
    return tables.sorted_by(found, [*CELL, "seed"])


def within_cells(table: pd.DataFrame) -> pd.DataFrame:
    """By benchmark: how accuracy moves with the step that was kept, seeds of a cell compared with each other alone.

    Columns benchmark, runs, below (of them: less accurate than before training), per_100_steps_pp (slope of least
    squares) and correlation (Pearson's), both of what is left when the means of a cell are taken off.
    """
    rows = []
    for benchmark, part in table.groupby("benchmark", sort=False):
        left = part[["step", "right_pct"]] - part.groupby(CELL)[["step", "right_pct"]].transform("mean")
        moved = (left["step"] ** 2).sum()
        slope = (left["step"] * left["right_pct"]).sum() / moved if moved else float("nan")
        row = {"benchmark": benchmark, "runs": len(part), "below": int((part["change_pp"] < 0).sum())}
        row |= {"per_100_steps_pp": 100 * slope, "correlation": left["step"].corr(left["right_pct"])}
        rows.append(row)
    return pd.DataFrame(rows)
