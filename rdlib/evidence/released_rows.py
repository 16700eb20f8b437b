"""What documents show of the released tables: rows of Markdown tables and sentences, every number from a file."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from rdlib.evidence import first_screen, gallery, looks, power_tables, same_rate, tables
from rdlib.evidence.open_exhibits import OPEN_ENDS
from rdlib.evidence.question_tables import LEVELS
from rdlib.evidence.result_tables import RERUNS, open_results, seed_folders, seed_of
from rdlib.evidence.verdicts import OF_BEST_CELL, VERDICTS

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
    rates = figures / "same_rate.csv"
    since = {"C1": same_rate.clause(pd.read_csv(rates))} if rates.is_file() else {}
    return first_screen.sentences(found, main, len(seed_folders(figures / "results")), since)


def verdict_text(figures: Path) -> str:
    """How many of the paper's claims got which verdict, in one sentence."""
    verdicts = pd.read_csv(figures / "claims.csv")["verdict"]
    parts = ", ".join(f"{sum(verdicts == verdict)} {verdict}" for verdict in tables.in_order(verdicts, VERDICTS))
    seeds = len(seed_folders(figures / "results"))
    return f"Of the paper's {len(verdicts)} claims, with {seeds} seed{'s' * (seeds > 1)}: **{parts}**."


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
            "none" if pd.isna(row[name]) else f"{row[name]:.3g}" if row[name] < 1000 else f"{row[name]:,.0f}"
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
        answer, title = "Not run yet.", exhibit.title
        if path.is_file():
            seeds = int(pd.read_csv(path.with_suffix(".csv"))["seeds"].min())
            title = f"{title} ({first_screen.in_words(seeds)} seed{'s' * (seeds > 1)})"
            note = path.read_text(encoding="utf-8").partition("\n\n")[2].partition("\n")[0]
            answer = note.removesuffix(exhibit.caption).removeprefix("Answer: ").strip()
            answer = f"{answer[:1].upper()}{answer[1:]} ([table](../figures/{exhibit.name}.md))"
        lines.append(f"- **{title}.** {answer}")
    return "\n".join(lines)


def exhibit_rows(figures: Path) -> str:
    """Every table and figure that is there, in their order: its title as a link, and its data."""
    lines = []
    for exhibit in gallery.EXHIBITS.values():
        shown = figures / f"{exhibit.name}{'.png' if exhibit.draw else '.md'}"
        if shown.is_file():
            title = exhibit.title.replace("[", "\\[").replace("]", "\\]")
            lines.append(f"- [{title}](../figures/{shown.name}) ([data](../figures/{exhibit.name}.csv))")
    return "\n".join(lines)


def made_again_rows(results: Path) -> str:
    """What was made again on another processor than the released seeds', and how much of it came out the same."""
    found = [pd.read_csv(path) for path in sorted(results.glob(f"seed*/{RERUNS}"))]
    if not found:
        return "*Nothing has been made again on another processor yet.*"
    lines = ["| seed | released from | made again on | stages | the same bytes |", "| --- " * 3 + "| ---: " * 2 + "|"]
    for (seed, released, made), rows in pd.concat(found).groupby(["seed", "released_from", "made_on"]):
        counts = rows.groupby("stage", sort=False)["stages"].sum()
        which = tables.listed([f"{count} x {stage}" for stage, count in counts.items()])
        lines.append(f"| {seed} | {released} | {made} | {which} | {rows['same'].sum()} of {rows['stages'].sum()} |")
    return "\n".join(lines)


def rounding_text(figures: Path) -> str:
    """What rounding alone does: figures/rounding.md without its title, then the figure."""
    path = figures / "rounding.md"
    if not path.is_file():
        return "*Not yet released: `make reference`, then `make rounding`.*"
    text = path.read_text(encoding="utf-8").partition("\n\n")[2].strip()
    return f"{text}\n\n![The same seeds in two numerical modes](../figures/figure_rounding.png)"
