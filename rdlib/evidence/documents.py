"""Fills README.md and docs/*.md from result files: `python -m rdlib.evidence.documents`, a part of `make docs`.

A block between `<!-- name -->` and `<!-- /name -->`, each on a line of its own, is replaced by what the released
files say: five sentences on what was found, claims, the main table, power, the reviewers' questions, benchmarks, what
runs took on which machine, and the provenance of the constants. No number in such a block is written by hand.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import convergence, differences, first_screen, looks, paper, power_tables, tables
from rdlib.evidence.open_exhibits import OPEN_ENDS
from rdlib.evidence.question_tables import LEVELS
from rdlib.evidence.result_tables import open_results, seed_folders, seed_of
from rdlib.evidence.verdicts import OF_BEST_CELL, VERDICTS
from rdlib.paths import ROOT
from rdlib.profile import load_profile

MACHINES = ROOT / "bench" / "machines.csv"
RELEASED = "a seed of the released results"  # what `machines` calls it too
BLOCK = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
RELEASED_BLOCKS = ("first_screen", "table_2_main", "claims", "questions", "room", "convergence", "power_mean")
RELEASED_BLOCKS += ("power_cells", "power_plans", "endings", "open_ends", "differences")
PATIENCES = (96, 128, 160, 192, 256, 320, 384)  # optimizer steps
NOT_RELEASED = "*No reference run has been released yet: `make reference`.*"


def table_rows(markdown: str) -> str:
    """The table of a Markdown file, without what stands around it."""
    return "\n".join(line for line in markdown.splitlines() if line.startswith("|"))


def main_rows(path: Path) -> str:
    """figures/table_2_main.csv with one column for each benchmark, the interval in brackets, and the paper's."""
    table = pd.read_csv(path, keep_default_na=False)
    benchmarks = [c.removesuffix("_study_pct") for c in table.columns if c.endswith("_study_pct")]
    head = ["teacher", "student", "method"] + [f"{b} {who}" for b in benchmarks for who in ("here", "paper")]
    lines = [f"| {' | '.join(head)} |", "| --- " * 3 + "| ---: " * (len(head) - 3) + "|"]
    for row in table.to_dict("records"):
        cells = [row["teacher"], row["student"] or "-", looks.METHODS[row["method"]].label]
        for b in benchmarks:
            value, low, high = (float(row[f"{b}_{name}"]) for name in ("study_pct", "study_low_pct", "study_high_pct"))
            cells += [f"{value:.1f} [{low:.1f}, {high:.1f}]", row[f"{b}_paper_pct"] or "-"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def claim_rows(path: Path) -> str:
    """figures/claims.csv: each claim its verdict here and in earlier releases, and in how many cells it holds.

    Of an under-powered claim, the half-width of the interval behind that and the one that is needed.
    """
    table = pd.read_csv(path, keep_default_na=False)
    earlier = [name for name in table if name.startswith("verdict_")]
    releases = "".join(f" in {name.removeprefix('verdict_')} |" for name in earlier)
    lines = [
        f"| claim | what it says | verdict |{releases} mean difference | holds in | in the paper |",
        "| --- " * (3 + len(earlier)) + "| ---: " * 3 + "|",
    ]
    for row in table.to_dict("records"):
        numbers = [row[name] for name in ("mean_difference", "low", "high")]
        difference = tables.difference(*numbers, row["unit"]) if "" not in numbers else "-"
        difference += " (best cell)" if OF_BEST_CELL in str(row.get("note")) else ""
        verdict = row["verdict"]
        if row["half_width"] != "":
            verdict += f": {row['wide']} is known to ± {float(row['half_width']):.2g} {row['unit']}"
            verdict += f", needs ± {float(row['needed_half_width']):.2g}"
        holds = f"{row['cells_holding']} of {row['cells']}"
        paper_holds = f"{row['paper_cells_holding']} of {row['paper_cells']}" if row["paper_cells"] else "-"
        cells = [row["claim"], row["statement"].replace("|", "\\|"), verdict, *(row[name] or "-" for name in earlier)]
        lines.append(f"| {' | '.join([*cells, difference, holds, paper_holds])} |")
    return "\n".join(lines)


def first_screen_rows(figures: Path) -> list[str]:
    """The five sentences on what was found, from the released tables."""
    found, main = (pd.read_csv(figures / f"{name}.csv") for name in ("claims", "table_2_main"))
    return first_screen.sentences(found, main, len(seed_folders(figures / "results")))


def power_rows(path: Path, of_mean: bool) -> str:
    """figures/power.csv: what each claim's mean over cells, or each cell, can tell and would need.

    A claim of a single cell is among the cells.
    """
    table = pd.read_csv(path)
    table = table[(table["cell"] == power_tables.MEAN) == of_mean]
    heads = ["claim", "cell", "seeds / questions / rest", "half-width", "needed", "power", "told", "seeds needed"]
    lines = [f"| {' | '.join([*heads, 'questions needed'])} |", "| --- " * 2 + "| ---: " * 7 + "|"]
    for row in table.to_dict("records"):
        seeds, cautious, times = (
            "none" if pd.isna(row[name]) else f"{row[name]:.3g}"
            for name in ("seeds_needed", "seeds_needed_cautious", "questions_needed_times")
        )
        errors = " / ".join(f"{row[f'se_{name}_pp']:.2f}" for name in ("seeds", "questions", "rest"))
        widths = [f"± {row[name]:.2f}" for name in ("half_width_pp", "needed_half_width_pp")]
        cells = [row["claim"], row["cell"], errors, *widths, f"{row['power_pct']:.0f} %", f"{row['told_pp']:.2f}"]
        seeds = seeds if seeds == cautious == "none" else f"{seeds} ({cautious})"
        times = times if times == "none" else f"x {times}"
        lines.append(f"| {' | '.join([*cells, seeds, times])} |")
    return "\n".join(lines)


def plan_rows(path: Path) -> str:
    """figures/power_plans.csv: the power of a claim's mean and the difference told in its median cell, by plan."""
    table = pd.read_csv(path)
    numbers = sorted(set(table["seeds"]))
    heads = [f"{one} seeds" for one in numbers]
    lines = [f"| claim | questions | {' | '.join(heads)} |", "| --- | ---: " + "| ---: " * len(heads) + "|"]
    for (claim, times), rows in table.groupby(["claim", "questions_times"]):
        cells = []
        for row in rows.set_index("seeds").loc[numbers].itertuples():
            mean = "" if pd.isna(row.mean_power_pct) else f"{row.mean_power_pct:.0f} %, "
            cells.append(f"{mean}{row.cell_told_pp:.2f} pp")
        lines.append(f"| {claim} | x {times} | {' | '.join(cells)} |")
    return "\n".join(lines)


def question_rows(figures: Path) -> str:
    """The reviewers' questions R1, R2, R3 and R5: accuracy of each arm with its interval, a column a cell's benchmark.

    Below it, the seeds that have answered them.
    """
    answers = {name: pd.read_csv(figures / f"question_{name.lower()}.csv") for name in ("R1", "R2", "R3", "R5")}
    columns = dict.fromkeys(
        pair for table in answers.values() for pair in zip(table["cell"], table["benchmark"], strict=True)
    )
    lines = [f"| question | arm | {' | '.join(f'{cell}: {benchmark}' for cell, benchmark in columns)} |"]
    lines.append("| --- | --- |" + " ---: |" * len(columns))
    for question, table in answers.items():
        level = LEVELS.get(question)
        for (arm, times), part in table.assign(level=table[level] if level else math.nan).groupby(
            ["arm", "level"], sort=False, dropna=False
        ):
            found = {
                (row.cell, row.benchmark): f"{row.study_pct:.1f} [{row.study_low_pct:.1f}, {row.study_high_pct:.1f}]"
                for row in part.itertuples()
            }
            label = f"{arm}, {times:g} x teacher samples" if times > 1 else arm
            lines.append(f"| {question} | {label} | {' | '.join(found.get(pair, '-') for pair in columns)} |")
    seeds = [str(seed_of(folder)) for folder in open_results(figures / "results").answered]
    return "\n".join([*lines, "", f"(Seeds {', '.join(seeds)}.)"])


def verdict_text(figures: Path) -> str:
    """How many of the paper's claims got which verdict, in one sentence."""
    verdicts = pd.read_csv(figures / "claims.csv")["verdict"]
    parts = ", ".join(f"{sum(verdicts == verdict)} {verdict}" for verdict in tables.in_order(verdicts, VERDICTS))
    seeds = len(seed_folders(figures / "results"))
    return f"Of the paper's {len(verdicts)} claims, with {seeds} seed{'s' * (seeds > 1)}: **{parts}**."


def runs_seen(results: Path, machines: Path) -> pd.DataFrame:
    """Every run whose time is known: command, notebooks, minutes, machine.

    Those of the released seeds (`measured.json` beside their results), whose sizes may be of another version, and those
    that `machines` lists: a CSV with command, notebooks, minutes, processor, beside (what else ran there), commit and
    source.
    """
    rows = []
    for path in sorted(results.glob("seed*/measured.json")):
        measured = json.loads(path.read_text())
        made = json.loads((path.parent / "provenance.json").read_text())["environment"]
        command = RELEASED + (" and the reviewers' questions" if measured.get("questions", False) else "")
        rows.append((command, measured["jobs"], measured["minutes"], made.get("processor", made["machine"])))
    for row in pd.read_csv(machines, dtype={"beside": str}).fillna({"beside": ""}).itertuples():
        machine = f"{row.processor}, {row.beside}" if row.beside else row.processor
        rows.append((row.command, row.notebooks, row.minutes, machine))
    return pd.DataFrame(rows, columns=["command", "notebooks", "minutes", "machine"])


def measured_rows(runs: pd.DataFrame) -> str:
    """What each command or run took, from the least to the most minutes over the machines that it was seen on."""
    lines = ["| command | notebooks | minutes | seen on |", "| --- | ---: | ---: | --- |"]
    for command, seen in sorted(runs.groupby("command"), key=lambda item: item[1]["minutes"].min()):
        ends = dict.fromkeys(f"{m:.2g}" for m in (seen["minutes"].min(), seen["minutes"].max()))
        notebooks = " to ".join(f"{n:.0f}" for n in sorted(seen["notebooks"].dropna().unique()))
        where = "; ".join(dict.fromkeys(seen.sort_values("minutes")["machine"]))
        shown = f"`{command}`" if command.startswith("make ") else command
        lines.append(f"| {shown} | {notebooks or '-'} | {' to '.join(ends)} | {where} |")
    return "\n".join(lines)


def room_text(results: Path) -> str:
    """The most memory and disk that a seed took."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("seed*/measured.json"))]
    if not found:
        return NOT_RELEASED
    memory, disk = (max(row[name] for row in found) for name in ("peak_memory_gib", "disk_mb"))
    return f"A seed needs up to {memory:.1f} GiB of memory and {disk:.0f} MB of disk."


def render(text: str, blocks: dict[str, str], where: str = "README.md") -> str:
    """A document with each of its blocks replaced; UserError for a block that there is not, or that does not end."""
    for name in BLOCK.findall(text):
        if name not in blocks:
            raise UserError(f"{where} has a block <!-- {name} -->, which is none of {', '.join(sorted(blocks))}.")
        pattern = re.compile(f"^(<!-- {name} -->\n).*?^(<!-- /{name} -->)$", re.DOTALL | re.MULTILINE)
        if not pattern.search(text):
            raise UserError(f"{where}: the block <!-- {name} --> has no end: put <!-- /{name} --> on a line below it.")
        text = pattern.sub(lambda match, name=name: f"{match[1]}{blocks[name]}\n{match[2]}", text)
    return text


def documents(root: Path = ROOT) -> list[Path]:
    """README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def blocks(figures: Path) -> dict[str, str]:
    """The text of each block, from the released tables."""
    content = {"provenance": provenance_rows(), "bench": bench_rows(ROOT / "bench" / "results")}
    content["memory"] = memory_rows(ROOT / "docs" / "memory.csv")
    tried = figures / "trials" / "settings", ROOT / "params" / "trials" / "settings.yaml"
    content |= {"trials": trial_rows(*tried), "patience": patience_rows(*tried)}
    content["power_before"] = plan_rows(ROOT / "figures" / "trials" / "power_of_0.1.0" / "power_plans.csv")
    content["rounding"] = rounding_text(figures)
    content["measured"] = measured_rows(runs_seen(figures / "results", MACHINES))
    if not (figures / "results").is_dir():
        return content | dict.fromkeys(RELEASED_BLOCKS, NOT_RELEASED)
    content["table_2_main"] = main_rows(figures / "table_2_main.csv")
    content["first_screen"] = "\n".join(f"- {sentence}" for sentence in first_screen_rows(figures))
    content["differences"] = "\n".join(f"- {sentence}" for sentence in differences.sentences(figures))
    content["power_mean"] = power_rows(figures / "power.csv", of_mean=True)
    content["power_cells"] = power_rows(figures / "power.csv", of_mean=False)
    content["power_plans"] = plan_rows(figures / "power_plans.csv")
    content["claims"] = claim_rows(figures / "claims.csv")
    content["questions"] = NOT_RELEASED
    if (figures / "question_r1.csv").is_file():
        content["questions"] = question_rows(figures)
    content["room"] = room_text(figures / "results")
    content["convergence"] = content["endings"] = NOT_RELEASED
    if (figures / "convergence.md").is_file():
        content["convergence"] = convergence_rows(figures / "convergence.csv")
        content["endings"] = endings_text(figures / "convergence.csv")
    content["open_ends"] = open_ends_text(figures)
    return content


def convergence_rows(path: Path) -> str:
    """figures/convergence.csv: of each kind of training when it was best, how long it went on and what ended it."""
    head = ["training", "runs", "best at (quartiles)", "ended at", "ended by patience", "ended by the most"]
    lines = [f"| {' | '.join(head)} |", "| --- " + "| ---: " * 4 + "| --- |"]
    for row in pd.read_csv(path, keep_default_na=False).itertuples():
        best = f"{row.best_step_median} ({row.best_step_lower_quartile}, {row.best_step_upper_quartile})"
        cells = [row.training, row.runs, best, row.steps_median, row.ended_by_patience, row.at_the_most or "-"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def endings_text(path: Path) -> str:
    """figures/convergence.csv in a sentence: how many trainings went on until they were flat."""
    table = pd.read_csv(path)
    runs, flat = int(table["runs"].sum()), int(table["ended_by_patience"].sum())
    if flat == runs:
        return f"All {runs:,} trainings went on until their patience was used up."
    short = [
        f"{row.training} ({row.runs - row.ended_by_patience} of {row.runs})"
        for row in table.itertuples()
        if row.ended_by_patience < row.runs
    ]
    return (
        f"Of {runs:,} trainings {flat:,} went on until their patience was used up. The others took the most steps that "
        f"they may, so they might have gone on: {tables.listed(short)}."
    )


def open_ends_text(figures: Path) -> str:
    """The plain answer of each of the open ends, which its table begins with; where it has not been run, that."""
    lines = []
    for exhibit in OPEN_ENDS:
        if exhibit.answer is None:
            continue
        path = figures / f"{exhibit.name}.md"
        answer = "Not run yet."
        if path.is_file():
            note = path.read_text(encoding="utf-8").partition("\n\n")[2].partition("\n")[0]
            answer = note.removesuffix(exhibit.caption).removeprefix("Answer: ").strip()
            answer = f"{answer[:1].upper()}{answer[1:]} ([table](../figures/{exhibit.name}.md))"
        lines.append(f"- **{exhibit.title}.** {answer}")
    return "\n".join(lines)


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


def rounding_text(figures: Path) -> str:
    """What rounding alone does: figures/rounding.md without its title, then the figure."""
    path = figures / "rounding.md"
    if not path.is_file():
        return "*Not yet released: `make reference`, then `make rounding`.*"
    text = path.read_text(encoding="utf-8").partition("\n\n")[2].strip()
    return f"{text}\n\n![The same seeds in two numerical modes](../figures/figure_rounding.png)"


def bench_rows(folder: Path) -> str:
    """The benchmarks' results (bench/results/*.csv): what came out first, then the aim, then the two sides."""
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        return "*Nothing has been measured yet: `make bench`.*"
    lines = ["| result | aim | | what | ours | other |", "| ---: | ---: | --- | --- | ---: | ---: |"]
    for row in pd.concat([pd.read_csv(path, keep_default_na=False) for path in paths]).itertuples():
        span = f" [{_digits(row.low)}, {_digits(row.high)}]" if row.low < row.high else ""
        met = {"True": "met", "False": "missed", "": ""}[str(row.met)]
        sides = f"{row.ours or '-'} | {row.other or '-'}"
        lines.append(f"| {_digits(row.value)}{span} {row.unit} | {row.aim or '-'} | {met} | {row.result} | {sides} |")
    return "\n".join([*lines, "", bench_machines(paths)])


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


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def provenance_rows() -> str:
    """Every constant of the method: the paper's value, its status, and that of the released study."""
    table = paper.provenance_table(load_profile(ROOT / "params/reference.yaml").model_dump())
    with tempfile.TemporaryDirectory() as folder:
        path = tables.write_markdown(table, Path(folder) / "provenance.md", "")
        return table_rows(path.read_text(encoding="utf-8"))


def main() -> int:
    """Rewrite the blocks of every document in place."""
    found = blocks(ROOT / "figures")
    for path in documents():
        old = path.read_text(encoding="utf-8")
        if (new := render(old, found, path.relative_to(ROOT).as_posix())) != old:
            artifacts.write_bytes(path, new.encode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
