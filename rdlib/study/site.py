"""The site: results, gallery, executed notebooks, documents and API as pages that open from a folder without network.

    python -m rdlib site figures build/site      # `make site`

Sphinx reads a folder `<OUT>-source`: docs/, README, CONTRIBUTING and CHANGELOG as they are, and the folder of figures
with a page for every exhibit in it. docs/conf.py has Sphinx's settings, docs/_templates the pages that it adds.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import shown
from rdlib.evidence.gallery import EXHIBITS
from rdlib.evidence.result_tables import ABLATIONS, QUESTIONS, STUDY, origin, seed_folders
from rdlib.paths import ROOT

BUILT = "objects.inv"  # a file that Sphinx leaves in every site
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
GROUPS = ((STUDY, ABLATIONS), (QUESTIONS,), ("reruns",))  # a row each in the table of origins
FILES = {"csv": "the data", "png": "the picture", "pdf": "for print"}
NO_NOTEBOOKS = "There are no executed notebooks here yet: a study that is released has those of one cell."
_MARKUP = re.compile(r"([!-/:-@\[-`{-~])")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FIGURES and OUT."""
    parser.add_argument("figures", type=Path, help="folder of the released results, tables and figures")
    parser.add_argument("out", type=Path, help="folder for the site")


def run(options: argparse.Namespace) -> None:
    """Build the site, and print where to open it."""
    page = build(options.figures, options.out)
    if not (options.figures / "notebooks").is_dir():
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
    for name, text in pages(figures).items():
        before = (source / name).read_text(encoding="utf-8") if name in PAGES.values() else ""
        artifacts.write_bytes(source / name, (before + text).encode())


def pages(figures: Path) -> dict[str, str]:
    """The pages that the site adds, by file: of every exhibit, the gallery, the notebooks, and the navigation."""
    loader, lines = FileSystemLoader(ROOT / "docs/_templates"), {"trim_blocks": True, "keep_trailing_newline": True}
    templates = Environment(loader=loader, undefined=StrictUndefined, **lines)
    templates.filters["as_text"] = as_text
    exhibits = [one for one in EXHIBITS.values() if (figures / f"{one.name}.csv").is_file()]
    folders, found = seed_folders(figures / "results"), {}
    for one in exhibits:
        files = {ending: what for ending, what in FILES.items() if (figures / f"{one.name}.{ending}").is_file()}
        written = "" if one.figure else _as_text_table((figures / f"{one.name}.md").read_text(encoding="utf-8"))
        values = {"one": one, "files": files, "written": written}
        found[f"figures/{one.name}.md"] = templates.get_template("exhibit.md.j2").render(values)
    runs = [made for folder in folders for groups in GROUPS if (made := origin(folder, *groups))]
    found["figures/index.md"] = templates.get_template("gallery.md.j2").render(exhibits=exhibits, runs=runs)
    notebooks = [path.stem for path in (figures / "notebooks").glob("*.ipynb")]
    if notebooks:
        found["figures/notebooks/index.md"] = templates.get_template("notebooks.md.j2").render()
    return found | {"index.md": templates.get_template("navigation.md.j2").render(notebooks=notebooks)}


def run_sphinx(source: Path, out: Path, strict: bool) -> None:
    """Make HTML of the pages, and print Sphinx's warnings; UserError with its own words where it fails."""
    with tempfile.TemporaryDirectory() as work:
        warnings = Path(work) / "warnings"
        command = [sys.executable, "-m", "sphinx", "--builder", "html", "--conf-dir", source / "docs", "--quiet"]
        command += ["--doctree-dir", work, "--warning-file", warnings, "--jobs", "auto"]
        command += ["--fail-on-warning"] if strict else []
        done = subprocess.run([*command, source, out], cwd=ROOT, capture_output=True, text=True, check=False)
        said = warnings.read_text(encoding="utf-8").strip() if warnings.is_file() else ""
    if done.returncode:
        raise UserError(f"Sphinx could not build the site from {source}:\n{said or done.stderr.strip()}")
    if said:  # and not what packages say on standard error as the process ends
        print(said, file=sys.stderr)


# ---- text


def _as_text_table(markdown: str) -> str:
    return "\n".join(map(as_text_row, markdown.splitlines()))


def as_text_row(line: str) -> str:
    """A line of a released table with every cell as text, whatever it holds; any other line as it is."""
    if not line.startswith("| ") or re.fullmatch(r"[|\s:-]+", line):
        return line
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return f"| {' | '.join(as_text(shown.from_markdown(cell)) for cell in cells)} |"


def as_text(text: str) -> str:
    """A text of any characters as Markdown that shows it: nothing in it is markup, and it ends no line."""
    return _MARKUP.sub(r"\\\1", shown.visible(text).replace("\n", " ").strip())
