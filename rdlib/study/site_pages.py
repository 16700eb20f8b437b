"""The site's own pages as Markdown: front page, report, gallery, and the lists of notebooks and documents.

All numbers and texts come from the released files. A table's cells are text, whatever characters they hold; captions
and the prose of notebooks are Markdown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from rdlib.evidence import shown, tables
from rdlib.evidence.gallery import EXHIBITS, Exhibit
from rdlib.evidence.result_tables import ABLATIONS, QUESTIONS, STUDY, open_results, origin
from rdlib.paths import ROOT
from rdlib.study import published

TITLE = "Distill Not Only Data but Also Rewards: a reproduction at micro scale"
SUMMARY = (
    "A teacher model answers each question many times, a majority vote gives pseudo-labels, the student is warmed up "
    "by fine-tuning on the answers that agree, a reward model learns from student and teacher responses, and PPO on "
    "that reward takes the student further. Everything here was trained on two CPU cores in an embedded world and is "
    "drawn from released result files; the paper's own numbers are shown apart."
)
LIMITS = (
    "The models have 0.14 to 0.44 million parameters and a made-up world. What is measured here is evidence about the "
    "mechanics of the method at that scale: that its parts do what they are meant to do, or do not. It is no evidence "
    "about the accuracy of language models of useful size.",
    "Verdicts compare directions with the paper's, never levels. A claim that is open here may hold at the paper's "
    "scale, and one that is supported here may not.",
    "Checkpoints are chosen by agreement with the teacher's vote, never by gold answers, so what the vote gets wrong "
    "the student may learn.",
    "The embedded world was designed so that the paper's questions can be asked in it (errors of meaning rather than "
    "of arithmetic, teachers that fail sometimes); settings were chosen on validation data of two cells, "
    "on a seed that is not released.",
)
NO_NOTEBOOKS = (
    "There are no executed notebooks here yet: `make reference` executes them, and releases those of one cell."
)
BADGES = {"supported": "success", "not supported": "danger", "inconclusive": "warning", "under-powered": "secondary"}
FIRST = (
    "running",
    "own_questions",
    "laptop",
    "real_benchmarks",
    "results",
    "one_figure",
    "released_files",
    "equations",
    "architecture",
)
WRITTEN = ("12_paper_tables_and_figures", "13_reviewer_questions")  # their prose is the report's
_SHOWN = re.compile(r"""["']([a-z0-9_]+)\.(?:png|md)["']""")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def as_text(text: Any) -> str:
    """A text of any characters as Markdown that shows it: nothing in it is markup, and it ends no line."""
    return _PUNCTUATION.sub(r"\\\1", shown.visible(str(text)).replace("\n", " ").strip())


# ---- the parts of pages


def table(markdown: str) -> str:
    """A table that `tables.write_markdown` wrote, with every cell as text."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows = [[shown.from_markdown(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    written = [rows[0], *rows[2:]]
    cells = ["| " + " | ".join(map(as_text, row)) + " |" for row in written]
    return "\n".join([cells[0], lines[1], *cells[1:]])


def exhibit_body(exhibit: Exhibit, figures: Path, to_figures: str) -> str:
    """An exhibit's picture or table, and its caption; `to_figures`: from the page to the folder of the figures."""
    if exhibit.draw is not None:
        return f"![{as_text(exhibit.title)}]({to_figures}/{exhibit.name}.png)\n\n{exhibit.caption}"
    text = (figures / f"{exhibit.name}.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    note = " ".join(line for line in lines if line and not line.startswith(("|", "#")))
    return f"{note}\n\n{table(text)}"


def available(figures: Path) -> list[Exhibit]:
    """The exhibits that were released, in order."""
    return [exhibit for exhibit in EXHIBITS.values() if (figures / f"{exhibit.name}.csv").is_file()]


def records(figures: Path, questions: bool | None = None) -> list[dict[str, Any]]:
    """What is recorded of each seed's results, and (`questions`: only) of its answers to the reviewers' questions."""
    results = open_results(figures / "results")
    groups = {False: [results.named(STUDY, ABLATIONS)], True: [results.named(QUESTIONS)]}
    wanted = groups.get(questions, [*groups[False], *groups[True]])
    found = [origin(folder, names) for folder in results.folders for names in wanted]
    return [one for one in found if one]


def claims(figures: Path) -> list[dict[str, Any]]:
    """The rows of the released table of claims."""
    return pd.read_csv(figures / "claims.csv", keep_default_na=False).to_dict("records")


def claim_card(row: dict[str, Any]) -> str:
    """A claim: verdict, the number behind it, what the paper's own numbers say, and its criterion."""
    badge = f"{{bdg-{BADGES[row['verdict']]}}}`{row['verdict']}`"
    criterion = as_text(row["criterion"])
    if row["paper_cells_against"]:
        criterion += f"\n\nThe paper's numbers are against it in {as_text(row['paper_cells_against'])}."
    return (
        f"::::{{grid-item-card}} {row['claim']} {badge}\n**{as_text(row['statement'])}**\n\n{_numbers(row)}\n\n"
        f":::{{dropdown}} Criterion\n{criterion}\n:::\n::::"
    )


def _numbers(row: dict[str, Any]) -> str:
    """The number behind a claim, the verdict on the paper's own numbers, and the claim's note, a paragraph each."""
    columns = ("mean_difference", "low", "high")
    mean, low, high = (as_text(f"{row[name]:.3g}" if isinstance(row[name], float) else "-") for name in columns)
    holding = f"holds in {row['cells_holding']} of {row['cells']} cells"
    parts = [f"Mean difference {mean} [{low}, {high}] {as_text(row['unit'])}; {holding}."]
    earlier = {name.removeprefix("verdict_"): row[name] for name in row if name.startswith("verdict_") and row[name]}
    if earlier:
        parts.append(f"In earlier releases: {as_text(', '.join(f'{v} ({name})' for name, v in earlier.items()))}.")
    if row["paper_cells"]:
        holding = f"{row['paper_cells_holding']} of {row['paper_cells']}"
        parts.append(f"The paper's numbers: {as_text(row['paper_verdict'])} ({holding}).")
    if row["note"]:
        parts.append(f"{as_text(row['note'][0].upper() + row['note'][1:])}.")
    return "\n\n".join(parts)


def card(title: str, link: str, text: str, *options: str) -> str:
    """A card of a grid that leads to another page."""
    return "\n".join([f":::{{grid-item-card}} {title}", f":link: {link}", ":link-type: doc", *options, "", text, ":::"])


def grid(columns: str, cards: Iterable[str], colons: int = 4) -> str:
    """Cards side by side, as many as fit; `columns` for phones, small, middle and large screens."""
    fence = ":" * colons
    return "\n".join([f"{fence}{{grid}} {columns}", ":gutter: 3", "", *cards, fence])


def toctree(entries: Iterable[str], *options: str) -> str:
    """The order of the pages below this one."""
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])


def page(title: str, *parts: str) -> str:
    """A page of parts with an empty line between them."""
    return "\n\n".join([f"# {title}", *parts]) + "\n"


# ---- pages


def index(figures: Path) -> str:
    """The front page."""
    ways = [
        card("Report", "report", "The claims with their verdicts, every number, where they come from, and the limits."),
        card("Gallery", "gallery/index", "Every table and figure with its data and the command that redraws it."),
        card("Notebooks", "notebooks/index", "One cell of the run as it was executed, from the data to PPO."),
        card("Documentation", "docs/index", "Running it, the constants, speed, the architecture."),
        card("Equations", "docs/equations", "From the paper's words to its formulas, and to their place in the code."),
        card("API", "api/index", "Every module, class and function."),
    ]
    parts = [
        SUMMARY,
        "The [report](report.md) has the verdict on each of the paper's claims.",
        grid("1 2 2 3", ways),
    ]
    if (main := EXHIBITS["figure_main_results"]) in available(figures):
        parts += [exhibit_body(main, figures, "figures"), _link(main, "gallery/")]
    names = ("report", "gallery/index", "notebooks/index", "docs/index", "api/index")
    return page(TITLE, *parts, toctree(names, ":hidden:"))


def _link(exhibit: Exhibit, folder: str) -> str:
    return f"[Data and command]({folder}{exhibit.name}.md)"


@dataclass
class Section:
    """A heading with its prose, as Markdown, and the exhibits shown in it, in their order."""

    title: str
    parts: list[str | Exhibit] = field(default_factory=list)


def sections(notebook: Path, figures: Path) -> list[Section]:
    """The sections of a notebook: its prose, and the released exhibits that its cells show.

    A section without any of them is left out.
    """
    found: list[Section] = []
    released = {exhibit.name: exhibit for exhibit in available(figures)}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            heading, _, prose = cell.source.partition("\n")
            if heading.startswith("#"):
                found.append(Section(heading.lstrip("# ")))
            else:
                prose = cell.source
            found[-1].parts += [prose.strip()] if prose.strip() else []
        elif found:
            found[-1].parts += [released[name] for name in _named(cell.source) if name in released]
    return [section for section in found[1:] if any(isinstance(part, Exhibit) for part in section.parts)]


def _named(source: str) -> list[str]:
    """The exhibits that a cell shows by name, or by file; names made of a list of stems (f"figure_{name}.png") too."""
    named = _SHOWN.findall(source)
    for call in re.findall(r"\bshow\(([^)]*)\)", source):
        named += re.findall(r'"(\w+)"', call)
    if stems := re.search(r"names = \(([^)]*)\)", source):
        pattern = re.search(r'f"([a-z_]*)\{name\}([a-z_]*)\.(?:png|md)"', source)
        named = [f"{pattern[1]}{stem}{pattern[2]}" for stem in re.findall(r'"(\w+)"', stems[1])] + named
    return named


def report(figures: Path) -> str:
    """The report: what was found in five sentences, claims, what notebooks 12 and 13 show, origins, and the limits."""
    text = (
        "Each verdict is computed by a criterion fixed before the run (`params/claims.yaml`). *Inconclusive* includes "
        "a mean difference in the claim's favour that does not hold in every cell; *under-powered* claims are left "
        "open by an interval too wide to tell the smallest difference of interest. The paper's own numbers, which have "
        "no intervals, go through the same criterion."
    )
    parts = [SUMMARY, "## The paper's claims", text]
    parts.append(grid("1 1 2 2", map(claim_card, claims(figures)), colons=5))
    for section in [one for name in WRITTEN for one in sections(ROOT / f"notebooks/{name}.ipynb", figures)]:
        title = "The claims, cell by cell" if section.title == "The paper's claims" else section.title
        parts.append(f"## {title}")
        for part in section.parts:
            parts += [part] if isinstance(part, str) else _shown(part, figures)
    parts += ["## How these results were made", *map(_made, records(figures))]
    return page("Report", *parts, "## Limits", "\n".join(f"- {limit}" for limit in LIMITS))


def _shown(exhibit: Exhibit, figures: Path) -> list[str]:
    return [f"### {as_text(exhibit.title)}", exhibit_body(exhibit, figures, "figures"), _link(exhibit, "gallery/")]


def _made(record: dict[str, Any]) -> str:
    """One item of a list: command, commits, machine and packages behind a seed's results."""
    environment = record["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return (
        f"- Seed {record['seed']}: `{record['command']}`, commit {_commits(record)}, started {record['started'][:16]} "
        f"UTC on {as_text(environment['machine'])}, Python {environment['python']}, {as_text(packages)}."
    )


def _commits(record: dict[str, Any]) -> str:
    changed = " with uncommitted changes" if record["dirty"] else ""
    return " and ".join(f"`{commit[:12]}`" for commit in record["commits"]) + changed


def gallery(figures: Path) -> dict[str, str]:
    """The gallery's pages by file name: the overview, and one for each exhibit."""
    exhibits = available(figures)
    drawn = [
        card(as_text(e.title), e.name, "", f":img-top: ../figures/{e.name}.png", f":img-alt: {e.title}")
        for e in exhibits
        if e.draw is not None
    ]
    written = [card(as_text(e.title), e.name, "") for e in exhibits if e.draw is None]
    text = "Each leads to its data, to the command that redraws it alone, and to the commits and seeds behind it."
    overview = page(
        "Gallery",
        text,
        *("## Figures", grid("1 2 2 3", drawn)),
        *("## Tables", grid("1 2 2 3", written)),
        toctree([e.name for e in exhibits], ":hidden:"),
    )
    return {"index.md": overview} | {f"{e.name}.md": exhibit_page(e, figures) for e in exhibits}


def exhibit_page(exhibit: Exhibit, figures: Path) -> str:
    """One exhibit with its caption, data, commands, and what is behind it."""
    rows = len(pd.read_csv(figures / f"{exhibit.name}.csv"))
    files = {"csv": f"{rows} rows", "png": "the picture", "pdf": "for print"}
    links = [
        f"- [{exhibit.name}.{ending}](../figures/{exhibit.name}.{ending}): {files[ending]}"
        for ending in exhibit.endings
        if ending in files
    ]
    commands = f"```shell\nmake figure NAME={exhibit.name}   # from the released results, in seconds\n"
    if exhibit.rests_on:
        commands += f"make retrain NAME={exhibit.name}  # trains what it rests on; tells its time first\n"
    return page(
        as_text(exhibit.title),
        exhibit_body(exhibit, figures, "../figures"),
        "## Data",
        "\n".join(links),
        "## Command",
        f"{commands}```",
        "## Behind it",
        *_behind(exhibit, figures),
    )


def _behind(exhibit: Exhibit, figures: Path) -> list[str]:
    """The notebooks that train what an exhibit rests on, and the seeds and commits of its results."""
    parts = []
    if exhibit.rests_on:
        kept = {path.stem for path in (figures / "notebooks").glob("*.ipynb")}
        links = [f"[{name}](../notebooks/{name}.ipynb)" if name in kept else f"`{name}`" for name in exhibit.rests_on]
        parts.append(
            f"It rests on what {', '.join(links)} and the notebooks before {'it' if len(links) == 1 else 'them'} make."
        )
    made = records(figures, None if "R7" in exhibit.questions else exhibit.of_questions)  # R7 is of all seeds
    seeds = [f"| {r['seed']} | {_commits(r)} | `{r['command']}` |" for r in made]
    return [*parts, "\n".join(["| seed | commit | made by |", "| ---: | --- | --- |", *seeds])]


def notebooks(figures: Path) -> str:
    """The list of the executed notebooks, or one sentence where there are none."""
    paths = sorted((figures / "notebooks").glob("*.ipynb"))
    if not paths:
        return page("Notebooks", NO_NOTEBOOKS)
    text = (
        "One cell of the study as it was executed: each stage once for Ours, the ablations, and the notebooks "
        "that draw every table and figure. A line below each title says by which commit and parameters."
    )
    return page("Notebooks", text, *other_run(figures, paths), toctree([path.stem for path in paths], ":maxdepth: 1"))


def other_run(figures: Path, paths: list[Path]) -> list[str]:
    """A sentence where notebooks were executed at another commit than the released results of their seed."""
    seeds = {record["seed"]: set(record["commits"]) for record in records(figures, False)}
    later = []
    for path in paths:
        made = json.loads(path.read_text(encoding="utf-8"))["metadata"].get(published.RECORD)
        seed = made and made["parameters"].get("seed")
        if seed in seeds and not set(made["commits"]) <= seeds[seed]:
            later.append(path.stem)
    if not later:
        return []
    return [
        f"{later[0]} to {later[-1]} were executed at a later commit than the released results of their seed, so their "
        f"numbers are not those of the tables, figures and report."
    ]


def documentation(names: list[str]) -> str:
    """The list of the documents."""
    return page("Documentation", toctree(tables.in_order(names, FIRST), ":maxdepth: 1"))
