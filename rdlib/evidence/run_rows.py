"""What documents show of trials, runs, benchmarks and constants: rows of Markdown tables, every number from a file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from rdlib.evidence import convergence, paper, tables
from rdlib.evidence.released_rows import NOT_RELEASED, table_rows
from rdlib.paths import ROOT
from rdlib.profile import load_profile

# What `bench/machines.csv` calls a released seed too
STUDY, WHOLE = "a released seed, the study alone", "a released seed, study and reviewers' questions"
PATIENCES = (96, 128, 160, 192, 256, 320, 384)  # optimizer steps


def runs_seen(results: Path, machines: Path) -> pd.DataFrame:
    """Every run whose time is known: command, notebooks, minutes, machine.

    Those of the released seeds (`measured.json` beside their results), whose sizes may be of another version, and those
    that `machines` lists: a CSV with command, notebooks, minutes, processor, beside (what else ran there), commit and
    source.
    """
    rows = []
    for path in sorted(results.glob("seed*/measured.json")):
        measured = json.loads(path.read_text())
        made = origin(path.parent)["environment"]
        command = WHOLE if measured.get("questions", False) else STUDY
        rows.append((command, measured["jobs"], measured["minutes"], made.get("processor", made["machine"])))
    for row in pd.read_csv(machines, dtype={"beside": str}).fillna({"beside": ""}).itertuples():
        machine = f"{row.processor}, {row.beside}" if row.beside else row.processor
        rows.append((row.command, row.notebooks, row.minutes, machine))
    return pd.DataFrame(rows, columns=["command", "notebooks", "minutes", "machine"])


def measured_rows(runs: pd.DataFrame) -> str:
    """What each command or run took, from the least to the most minutes over the machines that it was seen on."""
    lines = ["| command | notebooks | minutes | seen on |", "| --- | ---: | ---: | --- |"]
    for command, seen in sorted(runs.groupby("command"), key=lambda item: item[1]["minutes"].min()):
        ends = dict.fromkeys(_minutes(m) for m in (seen["minutes"].min(), seen["minutes"].max()))
        notebooks = " to ".join(f"{n:.0f}" for n in sorted(seen["notebooks"].dropna().unique()))
        where = "; ".join(dict.fromkeys(seen.sort_values("minutes")["machine"]))
        shown = f"`{command}`" if command.startswith("make ") else command
        lines.append(f"| {shown} | {notebooks or '-'} | {' to '.join(ends)} | {where} |")
    return "\n".join(lines)


def _minutes(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


def room_text(results: Path) -> str:
    """The most memory and disk that a seed took."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("seed*/measured.json"))]
    if not found:
        return NOT_RELEASED
    memory, disk = (max(row[name] for row in found) for name in ("peak_memory_gib", "disk_mb"))
    return f"A seed needs up to {memory:.1f} GiB of memory and {disk:.0f} MB of disk."


def trial_rows(folder: Path, trials: Path) -> str:
    """What was tried for the settings of a profile, by the questions of its file of trials; in bold what it has now."""
    content = yaml.safe_load(trials.read_text(encoding="utf-8"))
    profile = load_profile(ROOT / content["profile"]).model_dump()
    lines = [
        "| question | setting | cell | seed | best | at | steps | ended by |",
        "| --- " * 3 + "| ---: " * 4 + "| --- |",
    ]
    for group, asked in content["groups"].items():
        if not (folder / f"{group}.csv").is_file():
            continue
        for row in pd.read_csv(folder / f"{group}.csv", dtype={"trial": str}).itertuples():
            settings = json.loads(row.settings)
            chosen = all(paper.lookup(profile, key) == value for key, value in settings.items())
            name = f"**{row.trial}**" if chosen else row.trial
            ended = "patience" if row.stopped_early else "the most"
            numbers = f"{row.seed} | {row.best:.3f} | {row.best_step} | {row.steps} | {ended}"
            lines.append(f"| {asked['question']} | {name} | {row.cell} | {numbers} |")
    return "\n".join(lines) if len(lines) > 2 else "*Nothing has been tried yet: `make trials`.*"


def patience_rows(folder: Path, trials: Path) -> str:
    """What the trials would have come to with less patience than they had.

    Per group of trials the mean of the best values, and in brackets of the steps.
    """
    content = yaml.safe_load(trials.read_text(encoding="utf-8"))
    tried = {
        asked["question"]: pd.read_csv(folder / f"{group}_curves.csv", dtype={"trial": str})
        for group, asked in content["groups"].items()
        if (folder / f"{group}_curves.csv").is_file()
    }
    if not tried:
        return "*Nothing has been tried yet: `make trials`.*"
    had = {question: convergence.patience_of(curves) for question, curves in tried.items()}
    patiences = [patience for patience in PATIENCES if patience <= max(had.values())]
    lines = [f"| trials | {' | '.join(f'{p} steps' for p in patiences)} |", f"| --- {'| ---: ' * len(patiences)}|"]
    for question, curves in tried.items():
        found = convergence.patience_table(curves, [p for p in patiences if p <= had[question]])
        cells = [f"{row.best:.3f} ({row.steps:.0f})" for row in found.itertuples()]
        lines.append(f"| {question} | {' | '.join(cells + ['-'] * (len(patiences) - len(cells)))} |")
    return "\n".join(lines)


def bench_rows(folder: Path, part: str = "*") -> str:
    """The benchmarks' results (bench/results/*.csv), or a part's: what came out, then the aim, then the two sides."""
    paths = sorted(folder.glob(f"{part}.csv"))
    if not paths:
        return "*Nothing has been measured yet: `make bench`.*"
    lines = ["| result | aim | | what | ours | other |", "| ---: | ---: | --- | --- | ---: | ---: |"]
    for row in pd.concat([pd.read_csv(path, keep_default_na=False) for path in paths]).itertuples():
        span = f" [{_digits(row.low)}, {_digits(row.high)}]" if row.low < row.high else ""
        met = {"True": "met", "False": "missed", "": ""}[str(row.met)]
        sides = f"{row.ours or '-'} | {row.other or '-'}"
        lines.append(f"| {_digits(row.value)}{span} {row.unit} | {row.aim or '-'} | {met} | {row.result} | {sides} |")
    return "\n".join([*lines, "", bench_machines(paths)])


def bench_machines(paths: list[Path]) -> str:
    """One line on where and when each part was measured."""
    parts: dict[str, list[str]] = {}
    for path in paths:
        made = json.loads(path.with_suffix(".json").read_text())
        clock = "" if made["clock"] == "wall" else f", {made['clock']} seconds"
        dirty = ", with changes" if made["dirty"] else ""
        where = (
            f"{made['processor']}, {made['machine']}, commit {made['commit'][:7]}{dirty}, {made['started'][:10]}{clock}"
        )
        parts.setdefault(where, []).append(path.stem)
    return "; ".join(f"parts {', '.join(names)}: {where}" for where, names in parts.items()) + "."


def memory_rows(path: Path) -> str:
    """Memory of one GPU by profile and stage (docs/memory.csv), in GiB; what is nothing is left out."""
    table = pd.read_csv(path)
    parts = [column for column in table if table[column].dtype == float]
    head = ["profile", "stage", "cell", *(part.replace("_", " ") for part in parts)]
    lines = [f"| {' | '.join(head)} |", "| --- " * 3 + "| ---: " * len(parts) + "|"]
    for row in table.to_dict("records"):
        numbers = [f"{row[part]:.1f}" if row[part] else "" for part in parts]
        lines.append(f"| {' | '.join([row['profile'], row['stage'], row['cell'], *numbers])} |")
    return "\n".join(lines)


def provenance_rows() -> str:
    """Every constant of the method: the paper's value, its status, and that of the released study."""
    table = paper.provenance_table(load_profile(ROOT / "params/reference.yaml").model_dump())
    with tempfile.TemporaryDirectory() as folder:
        path = tables.write_markdown(table, Path(folder) / "provenance.md", "")
        return table_rows(path.read_text(encoding="utf-8"))


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
