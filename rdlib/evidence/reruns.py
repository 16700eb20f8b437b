"""The same seeds once more: SFT with the warm-up's learning rate, and every model in another numerical mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import claims, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.verdicts import Claim

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

# ---- another learning rate

AGAIN = "SFT with the warm-up's rate"
OWN = "Ours - SFT"
OURS, WARM_UP, RATE = f"Ours - {AGAIN}", f"Ours w/o R - {AGAIN}", f"{AGAIN} - SFT"


def differences(evidence: Evidence) -> dict[str, Claim]:
    """The four comparisons, each judged as C1 in every cell that has both; none where a seed lacks the other rate.

    Ours minus either SFT, the warm-up minus SFT at the same rate, and the two rates of SFT.
    """
    if len(evidence.seeds_of("same_rate")) < len(evidence.folders):
        return {}
    released, again = tables.select(evidence.correctness, variant=""), evidence.same_rate
    ours, warm_up, sft = (released[released["method"] == name] for name in ("ours", "ours_wo_r", "sft"))
    pairs = {OWN: (ours, sft), OURS: (ours, again), WARM_UP: (warm_up, again), RATE: (again, sft)}
    found, criterion = {}, load_criteria()["C1"]
    for name, (first, second) in pairs.items():
        both = [first.assign(method="ours", variant=""), second.assign(method="sft", variant="")]
        found[name] = claims.better_than("C1", criterion, pd.concat(both, ignore_index=True))
    return found


def rate_table(found: dict[str, Claim]) -> pd.DataFrame:
    """A row a comparison and cell, and one of their mean: difference_pp with its interval, and of each seed."""
    names = {"study_difference": "difference_pp", "study_low": "low_pp", "study_high": "high_pp"}
    parts = []
    for name, claim in found.items():
        rows = claims.cells_and_means([claim])[["cell", *names, "study_seeds"]].rename(columns=names)
        rows.insert(0, "comparison", name)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


# ---- another numerical mode
#
# In either mode an accuracy has a rounding error. If both have the standard deviation s, the difference between the
# modes has sqrt(2) s: so s is the root mean square of that difference over sqrt(2). The standard deviation between
# seeds includes it.

KEYS = ["benchmark", "teacher", "student", "method"]


def both_modes(portable: pd.DataFrame, native: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every seed in both modes, a row a seed: KEYS, seed, questions, `portable_pct`, `native_pct`, changed.

    `changed` counts the answers that are right in one mode only. Both tables: KEYS, seed, id, correct; UserError where
    an answer of `native` has no counterpart.
    """
    keys = [*KEYS, "seed"]
    portable = tables.select(portable, variant="")[[*keys, "id", "correct"]]
    both = native.merge(portable, on=[*keys, "id"], suffixes=("_native", "_portable"), validate="one_to_one")
    if len(both) != len(native):
        raise UserError(
            f"rounding.parquet: {len(native) - len(both)} of {len(native)} answers are to none of the questions of "
            f"correctness.parquet: run the experiment rounding again."
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
    rows = []
    for key, part in both_modes(portable, native).groupby(KEYS, sort=False):
        rms = float(np.sqrt(((part["native_pct"] - part["portable_pct"]) ** 2).mean()))
        row = dict(zip(KEYS, key, strict=True)) | {"seeds": len(part)}
        row |= {name: part[name].mean() for name in ("portable_pct", "native_pct")}
        row |= {"rms_difference_pp": rms, "rounding_sd_pp": rms / np.sqrt(2)}
        row |= {"seeds_sd_pp": part["portable_pct"].std(ddof=1)}
        row |= {"answers": part["questions"].sum(), "changed": part["changed"].sum()}
        rows.append(row | {"changed_pct": 100 * row["changed"] / row["answers"]})
    return pd.DataFrame(rows)
