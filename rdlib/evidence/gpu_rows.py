"""What `scripts/gpu_check.py` measured on a card, as tables for docs/memory.md and docs/speed.md.

Results of a card lie in bench/results, as gpu_check_<card>.json. Until one is there, documents and the dry run say that
nothing was seen on CUDA. What a CPU measured, to try the program, enters no document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.paths import ROOT

RESULTS = ROOT / "bench" / "results"
NEVER = "never seen on CUDA"
HOW = "`make gpu-check` measures it in eight minutes, the first time that a card is at hand"
MEMORY = "| model | numbers | attention | step | GiB of tensors | predicted | GiB of the card | predicted |"
SPEED = "| model | numbers | attention | step | seconds | predicted | tokens a second | TFLOP/s | of the peak |"
CHECKS = "| model | numbers | attention | check | found | at most | |"

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
    """For docs/memory.md: a table a card, or that there is none."""
    found = results(folder)
    if not found:
        return (
            f"**The account was {NEVER}**: no GPU was at hand, so fused kernels, allocator fragments, DeepSpeed's "
            f"buffers and\nvLLM's own share are arithmetic alone. {HOW}."
        )
    return "\n\n".join(f"{heading(one)}\n\n{memory_rows(one)}" for one in found)


def speed_text(folder: Path = RESULTS) -> str:
    """For docs/speed.md: tables of time and of checks for each card, or that there is none."""
    found = results(folder)
    if not found:
        return f"**Speed was {NEVER}**: all above is of a CPU, and GPU hours of a dry run are arithmetic alone. {HOW}."
    return "\n\n".join(f"{heading(one)}\n\n{speed_rows(one)}\n\n{check_rows(one)}" for one in found)


def tables(result: Result) -> str:
    """All tables of one result."""
    return "\n\n".join([heading(result), memory_rows(result), speed_rows(result), check_rows(result)])


def heading(result: Result) -> str:
    """Which card, software and code a result is of."""
    card, versions = result["card"], result["packages"]
    software = ", ".join(f"{name} {release}" for name, release in sorted(versions.items()) if release)
    known = card["datasheet_tflops"]
    peak = f"{card['measured_tflops']:,.3g} TFLOP/s measured in a product of matrices"
    peak += f", {known:,.0f} by its datasheet, which shares are of" if known else ", which shares are of"
    driver = f", driver {card['driver']}" if card["driver"] else ""
    commit = "" if result["commit"] in ("", "unknown") else f"; commit {result['commit'][:7]}"
    commit += ", with changes" if result["dirty"] else ""
    return (
        f"{card['name']}, {card['memory_gib']:.0f} GiB{driver}: {peak}. {software}{commit}; {result['started'][:10]}."
    )


def memory_rows(result: Result) -> str:
    """Peaks of memory beside the account; what was not measured says why."""
    lines = [MEMORY, "| --- " * 4 + "| ---: " * 4 + "|"]
    for row in _measured(result):
        numbers = [_number(row, name, ".1f") for name in ("memory_gib", "predicted_gib")]
        numbers += [_number(row, name, ".1f") for name in ("card_gib", "predicted_card_gib")]
        lines.append(_line(row, numbers))
    return "\n".join(lines)


def speed_rows(result: Result) -> str:
    """Times beside those of the dry run, and shares of the card's peak; what was not measured says why."""
    lines = [SPEED, "| --- " * 4 + "| ---: " * 5 + "|"]
    for row in _measured(result):
        numbers = [_number(row, name, ".2f") for name in ("seconds", "predicted_seconds")]
        numbers += [_number(row, "tokens_per_second", ",.0f"), _number(row, "tflops", ".3g")]
        share = f"{100 * row['share_of_peak']:.1f} %" if row.get("share_of_peak") is not None else ""
        lines.append(_line(row, [*numbers, share]))
    return "\n".join(lines)


def check_rows(result: Result) -> str:
    """The checks: what each found, and what it may be at most."""
    lines = [CHECKS, "| --- " * 4 + "| ---: | ---: | --- |"]
    for row in _grouped([row for row in result["rows"] if _is_check(row)]):
        found = [f"{row['value']:.2g}", f"{row['at_most']:g}"] if "value" in row else ["", ""]
        lines.append(_line(row, [*found, row["status"]]))
    return "\n".join(lines)


def line(row: Result) -> str:
    """A row as a line of text."""
    where = f"{row['model']}, {row['numbers']}, {row['attention']}, {row['row']}"
    if "seconds" in row:
        times = f"{row['seconds']:.3g} s (predicted {row['predicted_seconds']:.3g})"
        memory = f"{row['memory_gib']:.3g} GiB (predicted {row['predicted_gib']:.3g})"
        return f"{where}: {times}, {memory}, {100 * row['share_of_peak']:.1f} % of the peak"
    told = f"{row['value']:.3g}, at most {row['at_most']:g}" if "value" in row else row.get("settings", "")
    return f"{where}: {row['status']}. {row.get('error') or told}"


def _measured(result: Result) -> list[Result]:
    """Rows of steps."""
    return _grouped([row for row in result["rows"] if not _is_check(row) and row["row"] != "weights made"])


def _grouped(rows: list[Result]) -> list[Result]:
    """Rows of which those that follow each other and were not measured for one reason are one."""
    found: list[Result] = []
    for row in rows:
        if found and _reason(row) is not None and _reason(found[-1]) == _reason(row):
            found[-1] = row | {"row": f"{found[-1]['row']}, {row['row']}"}
        else:
            found.append(row)
    return found


def _reason(row: Result) -> tuple | None:
    """What rows that were not measured have in common; None of a row that was."""
    if "seconds" in row or "value" in row:
        return None
    return tuple(row[name] for name in ("model", "numbers", "attention", "status", "error"))


def _is_check(row: Result) -> bool:
    return "at_most" in row or row.get("check", False)


def _line(row: Result, numbers: list[str]) -> str:
    """A line of a table; where there are no numbers, the first says why."""
    if _reason(row) is not None:
        said = f": {_cell(row['error'])}" if row["status"] in ("failed", "does not fit") else ""
        numbers = [row["status"] + said, *[""] * (len(numbers) - 1)]
    return f"| {row['model']} | {row['numbers']} | {row['attention']} | {_cell(row['row'])} | {' | '.join(numbers)} |"


def _number(row: Result, name: str, form: str) -> str:
    value = row.get(name)
    return "" if value is None else format(value, form)


def _cell(text: str) -> str:
    """A text that may stand in a cell."""
    return " ".join(text.replace("|", "\\|").split())
