"""What `scripts/gpu_check.py` measured on a card, as tables for docs/memory.md and docs/speed.md.

Results of a card are in bench/results, as gpu_check_<card>.json. Without one, the dry run says that nothing was
measured on CUDA. What a CPU measured, as a trial of the program, is in no document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.paths import ROOT

RESULTS = ROOT / "bench" / "results"
NEVER = "never seen on CUDA"
# Columns of the tables beside model, numbers, attention and row: a name in the result, and how it is written
MEMORY = (
    ("GiB of tensors", "memory_gib", "{:.1f}"),
    ("predicted", "predicted_gib", "{:.1f}"),
    ("GiB of the card", "card_gib", "{:.1f}"),
    ("predicted", "predicted_card_gib", "{:.1f}"),
)
SPEED = (
    ("seconds", "seconds", "{:.2f}"),
    ("predicted", "predicted_seconds", "{:.2f}"),
    ("tokens a second", "tokens_per_second", "{:,.0f}"),
    ("TFLOP/s", "tflops", "{:.3g}"),
    ("of the peak", "share_of_peak", "{:.1%}"),
)
CHECKS = (("found", "value", "{:.2g}"), ("at most", "at_most", "{:g}"), ("", "status", "{}"))

Result = dict[str, Any]


def results(folder: Path = RESULTS) -> list[Result]:
    """The results of cards, in models of full size."""
    found = [artifacts.read_json(path) for path in sorted(folder.glob("gpu_check_*.json"))]
    return [one for one in found if one["card"]["kind"] == "cuda" and one["scale"] == "full"]


def seen(folder: Path = RESULTS) -> str:
    """In words for a sentence: on which card it was measured, or that it was on none."""
    cards = ", ".join(dict.fromkeys(one["card"]["name"] for one in results(folder)))
    return f"measured on {cards}, see docs/memory.md" if cards else NEVER


def memory_text(folder: Path = RESULTS) -> str:
    """For docs/memory.md: a table a card; empty without one."""
    return "\n\n".join(f"{heading(one)}\n\n{rows(one, MEMORY)}" for one in results(folder))


def speed_text(folder: Path = RESULTS) -> str:
    """For docs/speed.md: tables of time and of checks for each card; empty without one."""
    return "\n\n".join(f"{heading(one)}\n\n{rows(one, SPEED)}\n\n{rows(one, CHECKS)}" for one in results(folder))


def tables(result: Result) -> str:
    """All tables of one result."""
    return "\n\n".join([heading(result), *(rows(result, columns) for columns in (MEMORY, SPEED, CHECKS))])


def heading(result: Result) -> str:
    """Which card, software and code a result is of."""
    card, known = result["card"], result["card"]["datasheet_tflops"]
    software = ", ".join(f"{name} {release}" for name, release in sorted(result["packages"].items()) if release)
    peak = f"{card['measured_tflops']:,.3g} TFLOP/s measured in a product of matrices"
    peak += f", {known:,.0f} by its datasheet, which shares are of" if known else ", which shares are of"
    driver = f", driver {card['driver']}" if card["driver"] else ""
    commit = "" if result["commit"] in ("", "unknown") else f"; commit {result['commit'][:7]}"
    commit += ", with changes" if result["dirty"] else ""
    return (
        f"{card['name']}, {card['memory_gib']:.0f} GiB{driver}: {peak}. {software}{commit}; {result['started'][:10]}."
    )


def rows(result: Result, columns: tuple[tuple[str, str, str], ...]) -> str:
    """A Markdown table of the steps or, with CHECKS, of the checks; what was not measured says why."""
    checks = columns is CHECKS
    wanted = [row for row in result["rows"] if _is_check(row) == checks and row["row"] != "weights made"]
    names = [name for name, _, _ in columns]
    lines = [["model", "numbers", "attention", "check" if checks else "step", *names]]
    lines.append(["---"] * 4 + ["---:" if name else "---" for name in names])
    for row in wanted:
        cells = [
            form.format(row[key]).replace("%", " %") if row.get(key) is not None else "" for _, key, form in columns
        ]
        if "seconds" not in row and "value" not in row:
            why = f": {_cell(row['error'])}" if row["status"] in ("failed", "does not fit") else ""
            cells = [row["status"] + why, *[""] * (len(columns) - 1)]
        lines.append([row["model"], row["numbers"], row["attention"], _cell(row["row"]), *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def line(row: Result) -> str:
    """A row as a line of text."""
    where = f"{row['model']}, {row['numbers']}, {row['attention']}, {row['row']}"
    if "seconds" in row:
        times = f"{row['seconds']:.3g} s (predicted {row['predicted_seconds']:.3g})"
        memory = f"{row['memory_gib']:.3g} GiB (predicted {row['predicted_gib']:.3g})"
        return f"{where}: {times}, {memory}, {100 * row['share_of_peak']:.1f} % of the peak"
    found = f"{row['value']:.3g}, at most {row['at_most']:g}" if "value" in row else row.get("settings", "")
    return f"{where}: {row['status']}. {row.get('error') or found}"


def _is_check(row: Result) -> bool:
    return "at_most" in row or row.get("check", False)


def _cell(text: str) -> str:
    """A text that may stand in a cell."""
    return " ".join(text.replace("|", "\\|").split())
