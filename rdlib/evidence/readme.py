"""Keeps README.md's tables equal to the released ones: `python -m rdlib.evidence.readme` after `make figures`.

A block between `<!-- name -->` and `<!-- /name -->` is replaced by what the released files say: the main table
and the claims in a shorter form, the time and memory of the reference run, the provenance of the constants.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import looks, paper, tables
from rdlib.evidence.question_tables import LEVELS
from rdlib.evidence.result_tables import open_results, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile

NOT_RELEASED = "*No reference run has been released yet: `make study`, then `make release`.*"


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
    """figures/claims.csv: each claim with its verdict, and in how many cells it holds, here and in the paper."""
    table = pd.read_csv(path, keep_default_na=False)
    lines = ["| claim | | verdict | mean difference | holds in | in the paper |", "| --- " * 3 + "| ---: " * 3 + "|"]
    for row in table.itertuples():
        difference = f"{_short(row.mean_difference)} [{_short(row.low)}, {_short(row.high)}] {row.unit}"
        holds = f"{row.cells_holding} of {row.cells}"
        paper_holds = f"{row.paper_cells_holding} of {row.paper_cells}" if row.paper_cells else "-"
        lines.append(f"| {row.claim} | {row.statement} | {row.verdict} | {difference} | {holds} | {paper_holds} |")
    return "\n".join(lines)


def question_rows(figures: Path) -> str:
    """The reviewers' questions R1, R2, R3 and R5: accuracy of each arm with its interval, a column a benchmark.

    Below it, the seeds that have answered them.
    """
    lines, benchmarks = [], None
    for question in ("R1", "R2", "R3", "R5"):
        table = pd.read_csv(figures / f"question_{question.lower()}.csv")
        level = LEVELS.get(question)
        names = list(dict.fromkeys(table["benchmark"]))
        if benchmarks is None:
            benchmarks = names
            lines = [f"| question | arm | {' | '.join(benchmarks)} |", "| --- | --- |" + " ---: |" * len(benchmarks)]
        for (arm, _), part in table.assign(level=table[level] if level else 0.0).groupby(
            ["arm", "level"], sort=False, dropna=False
        ):
            rows = part.set_index("benchmark")
            cells = [
                f"{row.study_pct:.1f} [{row.study_low_pct:.1f}, {row.study_high_pct:.1f}]"
                for row in (rows.loc[b] for b in benchmarks)
            ]
            times = part[level].iloc[0] if level else float("nan")
            label = f"{arm}, {times:g} x teacher samples" if times > 1 else arm
            lines.append(f"| {question} | {label} | {' | '.join(cells)} |")
    seeds = [str(seed_of(folder)) for folder in open_results(figures / "results").answered]
    return "\n".join([*lines, "", f"(Seeds {', '.join(seeds)}.)"])


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measured_text(results: Path) -> str:
    """Sentences on time, memory and disk of the reference run: medians over its seeds."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("seed*/measured.json"))]
    sentences = []
    for questions, command in ((False, "make study"), (True, "make reference")):
        rows = [row for row in found if row.get("questions", False) == questions]
        if rows:
            middle = pd.DataFrame(rows).median(numeric_only=True)
            seeds = "one seed" if len(rows) == 1 else f"medians of {len(rows)} seeds"
            cores = f" ({middle.cpu_minutes:.0f} minutes of a core)" if "cpu_minutes" in middle else ""
            sentences.append(
                f"`{command}` ({middle.jobs:.0f} notebooks, two at a time; {seeds}) took {middle.minutes:.0f} minutes"
                f"{cores}, {middle.peak_memory_gib:.1f} GiB of memory and {middle.disk_mb:.0f} MB of disk."
            )
    return " ".join(sentences) or NOT_RELEASED


def render(readme: str, blocks: dict[str, str]) -> str:
    """The README with each named block replaced; UserError for a block that it does not have."""
    for name, text in blocks.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(readme):
            raise UserError(f"README.md has no block <!-- {name} -->: put it where the table belongs.")
        readme = pattern.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", readme)
    return readme


def blocks(figures: Path) -> dict[str, str]:
    """The text of each block, from the released tables."""
    content = {"provenance": provenance_rows(), "bench": bench_rows(ROOT / "bench" / "results")}
    if not (figures / "results").is_dir():
        return content | dict.fromkeys(("table_2_main", "claims", "questions", "measured"), NOT_RELEASED)
    content["table_2_main"] = main_rows(figures / "table_2_main.csv")
    content["claims"] = claim_rows(figures / "claims.csv")
    content["questions"] = NOT_RELEASED
    if (figures / "question_r1.csv").is_file():
        content["questions"] = question_rows(figures)
    content["measured"] = measured_text(figures / "results")
    return content


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
    """Every constant of the method: the paper's value, its status, and the micro study's."""
    table = paper.provenance_table(load_profile(ROOT / "params/micro.yaml").model_dump())
    with tempfile.TemporaryDirectory() as folder:
        path = tables.write_markdown(table, Path(folder) / "provenance.md", "")
        return table_rows(path.read_text(encoding="utf-8"))


def main() -> int:
    """Rewrite README.md in place."""
    path = ROOT / "README.md"
    artifacts.write_bytes(path, render(path.read_text(encoding="utf-8"), blocks(ROOT / "figures")).encode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
