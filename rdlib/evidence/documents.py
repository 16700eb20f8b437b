"""Fills README.md and docs/*.md from result files: `python -m rdlib.evidence.documents`, a part of `make docs`.

A block between `<!-- name -->` and `<!-- /name -->`, each on a line of its own, is replaced by what the released
files say: verdicts and claims, the main table, the reviewers' questions, benchmarks, what runs took on which machine,
and the provenance of the constants. No number in such a block is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import claims, looks, paper, tables
from rdlib.evidence.question_tables import LEVELS
from rdlib.evidence.result_tables import open_results, seed_folders, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile

MACHINES = ROOT / "bench" / "machines.csv"
RELEASED = "a seed of the released results"  # what `machines` calls it too
BLOCK = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
VERDICTS = (claims.SUPPORTED, claims.NOT_SUPPORTED, claims.INCONCLUSIVE)
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
    lines = [
        "| claim | what it says | verdict | mean difference | holds in | in the paper |",
        "| --- " * 3 + "| ---: " * 3 + "|",
    ]
    for row in table.itertuples():
        difference = f"{_short(row.mean_difference)} [{_short(row.low)}, {_short(row.high)}] {row.unit}"
        holds = f"{row.cells_holding} of {row.cells}"
        paper_holds = f"{row.paper_cells_holding} of {row.paper_cells}" if row.paper_cells else "-"
        statement = row.statement.replace("|", "\\|")
        lines.append(f"| {row.claim} | {statement} | {row.verdict} | {difference} | {holds} | {paper_holds} |")
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
    for row in pd.read_csv(machines).fillna({"beside": ""}).itertuples():
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
    content["trials"] = trial_rows(figures / "trials" / "settings", ROOT / "params" / "trials" / "settings.yaml")
    content["measured"] = measured_rows(runs_seen(figures / "results", MACHINES))
    if not (figures / "results").is_dir():
        return content | dict.fromkeys(
            ("table_2_main", "verdicts", "claims", "questions", "room", "convergence"), NOT_RELEASED
        )
    content["table_2_main"] = main_rows(figures / "table_2_main.csv")
    content["verdicts"] = verdict_text(figures)
    content["claims"] = claim_rows(figures / "claims.csv")
    content["questions"] = NOT_RELEASED
    if (figures / "question_r1.csv").is_file():
        content["questions"] = question_rows(figures)
    content["room"] = room_text(figures / "results")
    content["convergence"] = NOT_RELEASED
    if (figures / "convergence.md").is_file():
        content["convergence"] = table_rows((figures / "convergence.md").read_text(encoding="utf-8"))
    return content


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
