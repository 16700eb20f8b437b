"""The report: one self-contained HTML page of the released results, readable offline.

The claims come first. Then follow the sections of notebooks 12 and 13 in their order, with the tables and figures
that their cells show, taken from the released files; where the results come from; and the limits.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from nbconvert.filters import markdown2html

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import documents, result_tables, shown
from rdlib.paths import ROOT

NOTEBOOKS = ("12_paper_tables_and_figures", "13_reviewer_questions")
SHOWN = re.compile(r"""["']([a-z0-9_]+)\.(png|md)["']""")
LIMITS = (
    "The models have 0.1 to 0.5 million parameters and a made-up world. What is measured here is evidence about the "
    "mechanics of the method at that scale: that its parts do what they are meant to do, or do not. It is no evidence "
    "about the accuracy of language models of useful size.",
    "Verdicts compare directions with the paper's, never levels. A claim that is inconclusive here may hold at the "
    "paper's scale, and one that is supported here may not.",
    "Checkpoints are chosen by agreement with the teacher's vote, never by gold answers, so what the vote gets wrong "
    "the student may learn.",
    "The embedded world was designed so that the paper's questions can be asked in it (errors of meaning rather than "
    "of arithmetic, teachers that fail sometimes); settings were tuned on validation data of one cell.",
)


@dataclass
class Section:
    """A heading with its parts: prose as HTML, and tables and figures."""

    title: str
    parts: list[dict[str, str]] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def sections(notebook: Path, figures: Path) -> list[Section]:
    """The sections of a notebook: its prose, and the released files that its cells show; those not there are left out.

    A section that would show files and has none of them is left out as a whole.
    """
    found: list[Section] = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            heading, _, prose = cell.source.partition("\n")
            if heading.startswith("#"):
                found.append(Section(heading.lstrip("# ")))
            else:
                prose = cell.source
            if prose.strip():
                found[-1].parts.append({"kind": "prose", "html": markdown2html(prose.strip())})
        elif found:
            files = [figures / f"{stem}.{kind}" for stem, kind in _shown_files(cell.source)]
            found[-1].parts += [_part(path) for path in files if path.is_file()]
    return [section for section in found[1:] if any(part["kind"] != "prose" for part in section.parts)]


def _shown_files(source: str) -> list[tuple[str, str]]:
    """(stem, ending) of the files that a cell names; names made of a list of stems (f"figure_{name}.png") as well."""
    files = SHOWN.findall(source)
    if stems := re.search(r"names = \(([^)]*)\)", source):
        pattern = re.search(r'f"([a-z_]*)\{name\}([a-z_]*)\.(png|md)"', source)
        files = [(f"{pattern[1]}{s}{pattern[2]}", pattern[3]) for s in re.findall(r'"(\w+)"', stems[1])] + files
    return files


def _part(path: Path) -> dict[str, str]:
    if path.suffix == ".png":
        data = base64.b64encode(path.read_bytes()).decode()
        return {"kind": "figure", "name": path.stem, "alt": path.stem.replace("_", " "), "data": data}
    text = path.read_text(encoding="utf-8")
    title = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("#")), path.stem)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    note = " ".join(line for line in text.splitlines() if line and not line.startswith(("|", "#")))
    if path.stem == "table_2_main":  # the documents' form, an accuracy and its interval in one cell
        lines = documents.main_rows(path.with_suffix(".csv")).splitlines()
    rows = [[shown.from_markdown(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, marks, body = rows[0], rows[1], rows[2:]
    right = [mark.endswith(":") for mark in marks]
    return {"kind": "table", "name": path.stem, "title": title, "note": note, "rows": [head, *body], "right": right}


def claim_rows(figures: Path) -> list[dict[str, str]]:
    """The claims with verdict, number, and what the paper's own numbers say by the same criterion."""
    table = pd.read_csv(figures / "claims.csv", keep_default_na=False)
    rows = []
    for row in table.to_dict("records"):
        numbers = [f"{row[name]:.3g}" if isinstance(row[name], float) else "-" for name in _NUMBERS]
        rows.append(
            {name: str(row[name]) for name in ("claim", "statement", "verdict", "criterion", "note")}
            | {"difference": f"{numbers[0]} [{numbers[1]}, {numbers[2]}] {row['unit']}"}
            | {"holds": f"{row['cells_holding']} of {row['cells']}"}
            | {"paper": f"{row['paper_verdict']} ({row['paper_cells_holding']} of {row['paper_cells']})"}
            | {"against": row["paper_cells_against"], "has_paper": bool(row["paper_cells"])}
        )
    return rows


_NUMBERS = ("mean_difference", "low", "high")


def render(figures: Path) -> str:
    """The page; UserError when there are no released results."""
    folders = result_tables.seed_folders(figures / "results")
    if not folders or not (figures / "claims.csv").is_file():
        raise UserError(f"{figures} holds no released results: run `make study`, then `make release`.")
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for folder in folders
        for path in (folder / "provenance.json", folder / "question_provenance.json")
        if path.is_file()
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    found = [section for name in NOTEBOOKS for section in sections(ROOT / "notebooks" / f"{name}.ipynb", figures)]
    return environment.get_template("report.html.j2").render(
        claims=claim_rows(figures), sections=found, records=records, seeds=len(folders), limits=LIMITS
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line: FIGURES OUT."""
    parser = argparse.ArgumentParser(prog="python -m rdlib.evidence.report", description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path, help="folder of the released tables and figures")
    parser.add_argument("out", type=Path, help="the HTML file to write")
    options = parser.parse_args(arguments)
    try:
        page = render(options.figures)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    artifacts.write_bytes(options.out, page.encode())
    print(f"The report is {options.out} ({len(page) / 1e6:.1f} MB): open it in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
