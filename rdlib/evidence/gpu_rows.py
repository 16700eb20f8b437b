"""What `scripts/gpu_check.py` measured on cards, as rows for docs/memory.md and docs/speed.md.

Results of a card are in bench/results, as gpu_check_<card>.json. Without one, the dry run says that nothing was
measured on CUDA. What a CPU measured, as a trial of the program, is in no document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts
from rdlib.paths import ROOT

RESULTS = "bench/results"
NEVER = "never seen on CUDA"
OF = ("model", "numbers", "attention", "row")
STEP = ("seconds", "predicted_seconds", "tokens_per_second", "tflops", "share_of_peak")
STEP += ("memory_gib", "predicted_gib", "card_gib", "predicted_card_gib")
CHECK = ("value", "at_most")


def results(root: Path = ROOT) -> list[dict[str, Any]]:
    """The results of cards, in models of full size."""
    found = [artifacts.read_json(path) for path in sorted((root / RESULTS).glob("gpu_check_*.json"))]
    return [one for one in found if one["card"]["kind"] == "cuda" and one["scale"] == "full"]


def seen(root: Path = ROOT) -> str:
    """In words for a sentence: on which card it was measured, or that it was on none."""
    names = ", ".join(cards(root).get("name", []))
    return f"measured on {names}, see docs/memory.md" if names else NEVER


def cards(root: Path) -> pd.DataFrame:
    """A row a card: its name, memory and TFLOP/s, and by what software and commit it was measured when."""
    rows = []
    for one in results(root):
        card = one["card"]
        packages = one["packages"] | ({"driver": card["driver"]} if card["driver"] else {})
        rows.append(
            {name: card[name] for name in ("name", "memory_gib", "measured_tflops", "peak_tflops")}
            | {"datasheet": card["datasheet_tflops"] is not None, "day": one["started"][:10]}
            | {"software": ", ".join(f"{name} {release}" for name, release in sorted(packages.items()) if release)}
            | {"commit": one["commit"][:7] + ", with changes" * one["dirty"]}
        )
    return pd.DataFrame(rows)


def card_rows(root: Path) -> pd.DataFrame:
    """Every row that was measured on a card: OF, STEP, CHECK, status, and `why` there is no number.

    A row is a `step` of a training or a check. What was not measured has no numbers.
    """
    found = [row | {"card": one["card"]["name"]} for one in results(root) for row in one["rows"]]
    table = pd.DataFrame(found, columns=["card", *OF, *STEP, *CHECK, "status", "error", "check"])
    table = table[table["row"] != "weights made"]
    check = table["at_most"].notna() | table["check"].eq(True)
    failed = table["status"].isin(["failed", "does not fit"])
    why = table["status"] + (": " + table["error"].fillna("")).where(failed, "")
    text = {"row": table["row"].map(_cell), "why": why.map(_cell)}
    return table.assign(**text, step=~check, share_pct=100 * table["share_of_peak"])


def _cell(text: str) -> str:
    """A text that may stand in a cell."""
    return " ".join(text.replace("|", "\\|").split())
