"""The site: results, gallery, executed notebooks, documents and API as pages that open from a folder without network.

    python -m rdlib site figures build/site      # `make site`

Sphinx reads a folder `<OUT>-source`: docs/, README, CONTRIBUTING and CHANGELOG as they are, and the folder of figures
with a page for every exhibit in it. docs/conf.py has Sphinx's settings.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import shown
from rdlib.evidence.gallery import EXHIBITS, Exhibit
from rdlib.evidence.result_tables import ABLATIONS, QUESTIONS, STUDY, origin, seed_folders
from rdlib.paths import ROOT

BUILT = "objects.inv"  # a file that Sphinx leaves in every site
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
REPORT = "figures/notebooks/12_paper_tables_and_figures"
FILES = {"csv": "the data", "png": "the picture", "pdf": "for print"}
COMMANDS = """```shell
make figures NAME={name}   # redraw it from the released results, in seconds
make study NAME={name}     # retrain what it depends on; prints a time estimate first
```"""
NO_NOTEBOOKS = "There are no executed notebooks here yet: a study that is released has those of one cell."
_MARKUP = re.compile(r"([!-/:-@\[-`{-~])")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FIGURES and OUT."""
    parser.add_argument("figures", type=Path, help="folder of the released results, tables and figures")
    parser.add_argument("out", type=Path, help="folder for the site")


def run(options: argparse.Namespace) -> None:
    """Build the site, and print where to open it."""
    page = build(options.figures, options.out)
    if not notebooks(options.figures):
        print(NO_NOTEBOOKS)
    print(f"The site is ready: open {page} in a browser ({page.resolve().as_uri()}).")


def build(figures: Path, out: Path, strict: bool = False) -> Path:
    """Write the site of the released results to `out`, in place of an earlier one; returns its first page.

    `strict`: a warning of Sphinx fails it. UserError without results, or for a folder that holds something else.
    """
    if not seed_folders(figures / "results"):
        raise UserError(f"{figures} holds no released results: `make release` releases a finished study's.")
    if out.exists() and any(out.iterdir()) and not (out / BUILT).is_file():
        raise UserError(f"{out} holds other files than a site: give another folder, or remove it.")
    source, new = out.with_name(f"{out.name}-source"), out.with_name(f"{out.name}-new")
    for folder in (source, new):
        shutil.rmtree(folder, ignore_errors=True)
    write_source(figures, source)
    run_sphinx(source, new, strict)
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
    return out / "index.html"


def write_source(figures: Path, source: Path) -> None:
    """Write everything that Sphinx reads."""
    shutil.copytree(ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(figures, source / "figures", ignore=shutil.ignore_patterns("results", "trials"))
    for name, page in PAGES.items():
        shutil.copyfile(ROOT / name, source / page)
    with (source / "index.md").open("a", encoding="utf-8") as index:
        index.write(toctree(figures))
    exhibits = [one for one in EXHIBITS.values() if (figures / f"{one.name}.csv").is_file()]
    pages = {one.name: exhibit_page(one, figures) for one in exhibits}
    pages["index"] = gallery(exhibits, figures)
    if notebooks(figures):
        pages["notebooks/index"] = NOTEBOOKS
    for name, text in pages.items():
        artifacts.write_bytes(source / f"figures/{name}.md", text.encode())


def notebooks(figures: Path) -> list[Path]:
    """The executed notebooks that are released with these figures."""
    return sorted((figures / "notebooks").glob("*.ipynb"))


def run_sphinx(source: Path, out: Path, strict: bool) -> None:
    """Make HTML of the pages, and print Sphinx's warnings; UserError with its own words where it fails."""
    doctrees, warnings = (source.with_name(f"{source.name}-{name}") for name in ("doctrees", "warnings"))
    shutil.rmtree(doctrees, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--conf-dir", str(source / "docs"), "--quiet"]
    command += ["--doctree-dir", str(doctrees), "--warning-file", str(warnings), "--jobs", "auto"]
    command += ["--fail-on-warning"] if strict else []
    done = subprocess.run([*command, str(source), str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    said = warnings.read_text(encoding="utf-8").strip() if warnings.is_file() else ""
    shutil.rmtree(doctrees, ignore_errors=True)
    warnings.unlink(missing_ok=True)
    if done.returncode:
        raise UserError(f"Sphinx could not build the site from {source}:\n{said or done.stderr.strip()}")
    if said:  # and not what packages say on standard error as the process ends
        print(said, file=sys.stderr)


# ---- pages

NOTEBOOKS = """# Executed notebooks

One cell of the study as it was executed: each stage once for Ours, the ablations, and the notebooks that draw every
table and figure. A line below each title gives commit and parameters.

```{toctree}
:maxdepth: 1
:glob:

*
```
"""


def toctree(figures: Path) -> str:
    """The navigation of the site, in order."""
    report = [f"Report <{REPORT}>"] if (figures.parent / f"{REPORT}.ipynb").is_file() else []
    made = ["Notebooks <figures/notebooks/index>"] if notebooks(figures) else []
    entries = [*report, "figures/index", *made, "docs/index", "CONTRIBUTING", "CHANGELOG"]
    return "\n".join(["", "```{toctree}", ":hidden:", "", *entries, "```", ""])


def exhibit_page(exhibit: Exhibit, figures: Path) -> str:
    """One exhibit with its caption, files and commands; it is reached from the gallery, not from the navigation."""
    written = figures / f"{exhibit.name}.md"
    if written.is_file():
        body = "\n".join(map(as_text_row, written.read_text(encoding="utf-8").splitlines()))
    else:
        body = f"# {exhibit.title}\n\n![{as_text(exhibit.title)}]({exhibit.name}.png)\n\n{exhibit.caption}"
    there = [ending for ending in FILES if (figures / f"{exhibit.name}.{ending}").is_file()]
    files = "\n".join(f"- [{exhibit.name}.{one}]({exhibit.name}.{one}): {FILES[one]}" for one in there)
    made = "[Seeds and commits](index.md#seeds-and-commits) of the results that it is drawn from."
    parts = ["---\norphan: true\n---", body, "## Data and command", files, COMMANDS.format(name=exhibit.name), made]
    return "\n\n".join(parts) + "\n"


def as_text_row(line: str) -> str:
    """A line of a released table with every cell as text, whatever it holds; any other line as it is."""
    if not line.startswith("| ") or re.fullmatch(r"[|\s:-]+", line):
        return line
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return f"| {' | '.join(as_text(shown.from_markdown(cell)) for cell in cells)} |"


def as_text(text: str) -> str:
    """A text of any characters as Markdown that shows it: nothing in it is markup, and it ends no line."""
    return _MARKUP.sub(r"\\\1", shown.visible(text).replace("\n", " ").strip())


def gallery(exhibits: Iterable[Exhibit], figures: Path) -> str:
    """The overview of all exhibits, with their seeds and commits."""
    drawn, written = [], []
    for one in exhibits:
        is_drawn = (figures / f"{one.name}.png").is_file()
        (drawn if is_drawn else written).append(_card(one, is_drawn))
    parts = ["# Gallery", "Every figure and table, with its data and the command that redraws it."]
    parts += ["## Figures", _grid(drawn), "## Tables", _grid(written), "## Seeds and commits", _runs(figures)]
    return "\n\n".join(parts) + "\n"


def _card(exhibit: Exhibit, is_drawn: bool) -> str:
    options = [f":img-top: {exhibit.name}.png", f":img-alt: {exhibit.title}"] if is_drawn else []
    head = [f":::{{grid-item-card}} {as_text(exhibit.title)}", f":link: {exhibit.name}", ":link-type: doc", *options]
    return "\n".join([*head, ":::"])


def _grid(cards: Iterable[str]) -> str:
    return "\n".join(["::::{grid} 1 2 2 3", ":gutter: 3", "", *cards, "::::"])


def _runs(figures: Path) -> str:
    """The origin of each seed's results: a row for its study, and one for the reviewers' questions."""
    head = ["seed", "command", "commit", "started (UTC)", "machine", "packages"]
    rows = [head, ["---"] * len(head)]
    for folder in seed_folders(figures / "results"):
        for groups in ((STUDY, ABLATIONS), (QUESTIONS,), ("reruns",)):
            rows += [_run(made)] if (made := origin(folder, *groups)) else []
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _run(record: dict[str, Any]) -> list[str]:
    environment = record["environment"]
    commits = " ".join(f"`{commit[:12]}`" for commit in record["commits"])
    commits += " with uncommitted changes" if record["dirty"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    made = [f"`{record['command']}`", commits, record["started"][:16].replace("T", " "), environment["machine"]]
    return [str(record["seed"]), *made, f"Python {environment['python']}, {packages}"]
