"""Convergence: how trainings ended, what PPO reached, what fine-tuning forgot, and what reruns changed.

A training ends when its patience is used up, or at the step limit of its method. A run that reached the limit might
have improved further, so each is named.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import looks, tables

ENDS = 10  # updates at either end of PPO whose mean is taken
SUPERVISED = ("sft", "ours_wo_r")
TRAINED_ON = {"gsm_plus": "gsm"}  # benchmarks whose students were trained for another
CELL = ["benchmark", "teacher", "student", "method"]
# What is trained, in words, by stage (and method)
KINDS = {"03_sft_warmup": "{}", "05_reward_model": "reward model of {}", "06_ppo": "PPO of {}", "13_baseline": "{}"}
KINDS[("03_sft_warmup", "ours_wo_r")] = "warm-up (Ours w/o R)"


def convergence_table(trainings: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of training: how many, by which step they were best (quartiles), and how many their patience ended.

    Steps are whole ones. `at_the_most` names those that ended at the step limit instead. `trainings`: stage, axes,
    variant, seed, best_step, steps, stopped_early.
    """
    rows = []
    for (stage, method), part in trainings.groupby(["stage", "method"], sort=True):
        label = looks.BASELINE_NAMES.get(method) or looks.METHODS[method].label
        quartiles = part["best_step"].quantile([0.25, 0.5, 0.75])
        unfinished = part[~part["stopped_early"].astype(bool)]
        names = (f"{r.dataset}/{r.teacher}/{r.student} {r.variant} seed {r.seed}" for r in unfinished.itertuples())
        rows.append(
            {
                "training": KINDS.get((stage, method), KINDS[stage]).format(label),
                "runs": len(part),
                "best_step_median": round(quartiles[0.5]),
                "best_step_lower_quartile": round(quartiles[0.25]),
                "best_step_upper_quartile": round(quartiles[0.75]),
                "steps_median": round(part["steps"].median()),
                "ended_by_patience": len(part) - len(unfinished),
                "at_the_most": "; ".join(name.replace("  ", " ") for name in names),
            }
        )
    return pd.DataFrame(rows)


# ---- another patience


def patience_table(curves: pd.DataFrame, patiences: list[int]) -> pd.DataFrame:
    """The result that trainings would have with each of `patiences` (steps): means of the best value and of the steps.

    With a constant learning rate, a shorter patience cuts a curve and changes nothing before. `curves`: cell, seed,
    trial, step, value; no training was less patient. A row a patience.
    """
    trainings = [part.sort_values("step") for _, part in curves.groupby(["cell", "seed", "trial"])]
    rows = []
    for patience in patiences:
        ends = pd.DataFrame([_ended(part, patience) for part in trainings], columns=["best", "steps"])
        rows.append({"patience": patience, **ends.mean()})
    return pd.DataFrame(rows)


def patience_of(curves: pd.DataFrame) -> int:
    """The patience that trainings had, in steps: how long they went on after their highest value after the start.

    One that reached its step limit went on for less.
    """
    trained = curves[curves["step"] > 0].sort_values("step").groupby(["cell", "seed", "trial"])
    return max(int(part["step"].iloc[-1] - part["step"].loc[part["value"].idxmax()]) for _, part in trained)


def _ended(curve: pd.DataFrame, patience: int) -> tuple[float, int]:
    """The best value of a curve, its start included, and the step that `patience` ends it at, by what it reached."""
    reached, since, best = -math.inf, 0, -math.inf
    for step, value in zip(curve["step"], curve["value"], strict=True):
        best = max(best, value)
        if step and value > reached:
            reached, since = value, step
        if step and step - since >= patience:
            break
    return best, step


# ---- PPO's reach


def reach_table(history: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and method; means over seeds, rewards also seed by seed.

    trained_on_pct: agreement of the first samples of the questions that PPO trains on; validation_start_pct and
    kept_gain_pp: agreement on validation questions before PPO, and what the kept policy adds; kl_end: nats a response;
    clip_fraction_most: the largest share of an update's tokens that Eq. 8 clips. `history`: PPO's, an update a row.
    """
    keys, rows = [*tables.CELL, "method"], []
    history = tables.select(history, variant="").sort_values([*keys, "seed", "update"])
    for names, run in history.groupby([*keys, "seed"], sort=True):
        updates, evaluated = run[run["update"] > 0], run["validation_agreement"].dropna()
        first, last, start = updates.head(ENDS), updates.tail(ENDS), float(evaluated.iloc[0])
        row = {"trained_on_pct": 100 * first["agreement"].mean(), "validation_start_pct": 100 * start}
        row |= {"kept_gain_pp": 100 * (evaluated.max() - start), "kl_end": last["kl"].mean()}
        row |= {"clip_fraction_most": updates["clip_fraction"].max()}
        row |= {"reward_first": first["reward"].mean(), "reward_last": last["reward"].mean()}
        rows.append(dict(zip(keys, names, strict=False)) | row)
    found = pd.DataFrame(rows).groupby(keys, sort=True)
    table = found.mean().assign(clip_fraction_most=found["clip_fraction_most"].max())
    table.insert(0, "seeds", found.size())
    table["reward_first_seeds"] = found["reward_first"].apply(lambda values: " ".join(f"{one:.2f}" for one in values))
    return tables.sorted_by(table.reset_index(), keys)


# ---- forgetting


def kept_steps(trainings: pd.DataFrame, correctness: pd.DataFrame) -> pd.DataFrame:
    """A row a supervised training and benchmark: the step kept, its accuracy, and that minus the one before training.

    A checkpoint is chosen on validation questions, which are like those in training. Perturbed questions are not, so
    nothing keeps a training from forgetting how they are answered. Columns CELL, seed, step, right_pct, start_pct (ICL
    of the same student and seed) and change_pp. `trainings`: as in `convergence_table`.
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
    """By benchmark: how accuracy depends on the step that was kept, comparing seeds of one cell only.

    Columns benchmark, runs, below (of them: less accurate than before training), per_100_steps_pp (slope of least
    squares) and correlation (Pearson's), both after subtracting the means of a cell.
    """
    rows = []
    for benchmark, part in table.groupby("benchmark", sort=False):
        left = part[["step", "right_pct"]] - part.groupby(CELL)[["step", "right_pct"]].transform("mean")
        moved = (left["step"] ** 2).sum()
        slope = (left["step"] * left["right_pct"]).sum() / moved if moved else math.nan
        correlation, below = left["step"].corr(left["right_pct"]), int((part["change_pp"] < 0).sum())
        rows.append([benchmark, len(part), below, 100 * slope, correlation])
    return pd.DataFrame(rows, columns=["benchmark", "runs", "below", "per_100_steps_pp", "correlation"])


# ---- reruns in another numerical mode
#
# In either mode an accuracy has a rounding error. If both have the standard deviation s, the difference between the
# modes has sqrt(2) s: so s is the root mean square of that difference over sqrt(2). The standard deviation between
# seeds includes it.


def both_modes(portable: pd.DataFrame, native: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every seed in both modes, a row a seed: CELL, seed, questions, `portable_pct`, `native_pct`, changed.

    `changed` counts the answers that are right in one mode only. Both tables: CELL, seed, id, correct; UserError where
    an answer of `native` has no counterpart.
    """
    keys = [*CELL, "seed"]
    portable = tables.select(portable, variant="")[[*keys, "id", "correct"]]
    both = native.merge(portable, on=[*keys, "id"], suffixes=("_native", "_portable"), validate="one_to_one")
    if len(both) != len(native):
        raise UserError(
            f"{len(native) - len(both)} of {len(native)} answers of the experiment rounding are to none of main's "
            f"questions: run the experiment rounding again."
        )
    both["changed"] = both["correct_native"] != both["correct_portable"]
    grouped = both.groupby(keys)
    accuracies = {f"{mode}_pct": 100 * grouped[f"correct_{mode}"].mean() for mode in ("portable", "native")}
    table = pd.DataFrame({"questions": grouped.size()} | accuracies | {"changed": grouped["changed"].sum()})
    return tables.sorted_by(table.reset_index(), keys)


def rounding_table(portable: pd.DataFrame, native: pd.DataFrame) -> pd.DataFrame:
    """A row a benchmark, cell and method: the difference between the modes beside the one between seeds, and changes.

    `rounding_sd_pp` is the standard deviation that rounding alone gives an accuracy, `seeds_sd_pp` that of the portable
    accuracies between seeds (none with one seed).
    """
    both = both_modes(portable, native)
    found = both.assign(square=(both["native_pct"] - both["portable_pct"]) ** 2).groupby(CELL, sort=False)
    table = found[["portable_pct", "native_pct"]].mean()
    table.insert(0, "seeds", found.size())
    rms = np.sqrt(found["square"].mean())
    table = table.assign(
        rms_difference_pp=rms, rounding_sd_pp=rms / np.sqrt(2), seeds_sd_pp=found["portable_pct"].std()
    )
    table = table.assign(answers=found["questions"].sum(), changed=found["changed"].sum())
    return table.assign(changed_pct=100 * table["changed"] / table["answers"]).reset_index()
