"""The site: report, gallery, executed notebooks, documents and API as pages that open from a folder without network.

    python -m rdlib site FIGURES OUT      # `make site`

The pages are written as Markdown and reStructuredText into `<OUT>-source`, laid out as the repository is, and Sphinx
makes them HTML with the settings in docs/conf.py.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import seed_folders
from rdlib.paths import ROOT
from rdlib.study import site_api, site_pages

DOCS = ROOT / "docs"
BUILT = "objects.inv"  # a file that Sphinx leaves in every site
_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def build(figures: Path, out: Path, strict: bool = False) -> Path:
    """Write the site of the released results to `out`, in place of an earlier one; returns its first page.

    `strict`: a warning of Sphinx fails it. UserError without results, or for a folder that holds something else.
    """
    if not seed_folders(figures / "results") or not (figures / "claims.csv").is_file():
        raise UserError(
            f"{figures} holds no released results: run `make study EXPERIMENT=reference`, which releases them."
        )
    if out.exists() and any(out.iterdir()) and not (out / BUILT).is_file():
        raise UserError(f"{out} holds something that is no site: give another folder, or remove it.")
    source, new = out.with_name(f"{out.name}-source"), out.with_name(f"{out.name}-new")
    for folder in (source, new):
        shutil.rmtree(folder, ignore_errors=True)
    write_source(figures, source)
    run_sphinx(source, new, strict)
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
    return out / "index.html"


def write_source(figures: Path, source: Path) -> None:
    """Write everything that Sphinx reads: the generated pages, and copies of figures, notebooks and documents."""
    for path in figures.iterdir():
        if path.suffix in (".csv", ".pdf", ".png"):
            _copy(path, source / "figures" / path.name)
    for path in (figures / "notebooks").glob("*.ipynb"):
        _copy(path, source / "notebooks" / path.name)
    for path in DOCS.rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__":
            _copy(path, source / "docs" / path.relative_to(DOCS))
    for path in (source / "docs").rglob("*.md"):
        artifacts.write_bytes(path, within_site(path.read_text(encoding="utf-8"), path).encode())
    names = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))
    pages = {"index.md": site_pages.index(figures), "report.md": site_pages.report(figures)}
    pages |= {"notebooks/index.md": site_pages.notebooks(figures), "docs/index.md": site_pages.documentation(names)}
    pages |= {f"gallery/{name}": text for name, text in site_pages.gallery(figures).items()}
    pages |= {f"api/{name}": text for name, text in site_api.api_pages().items()}
    for name, text in pages.items():
        artifacts.write_bytes(source / name, text.encode())


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def within_site(text: str, page: Path) -> str:
    """A document whose links and pictures that are no part of the site are their names instead."""

    def link(match: re.Match) -> str:
        """The link as it is where it leads to a page, to a file that is there, or to the web."""
        is_picture, label, target = match.groups()
        if re.match(r"[a-z]+:", target) or (page.parent / target).is_file():
            return match[0]
        path = Path(target)
        return label if is_picture or path.name in label else f"{label} (`{path.as_posix().removeprefix('../')}`)"

    return _LINK.sub(link, text)


def run_sphinx(source: Path, out: Path, strict: bool) -> None:
    """Make HTML of the pages, and print Sphinx's warnings; UserError with its own words where it fails."""
    doctrees, warnings = (source.with_name(f"{source.name}-{name}") for name in ("doctrees", "warnings"))
    shutil.rmtree(doctrees, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--conf-dir", str(source / "docs"), "--quiet"]
    command += ["--doctree-dir", str(doctrees), "--warning-file", str(warnings), "--jobs", "auto"]
    command += ["--fail-on-warning", "--keep-going"] if strict else []
    done = subprocess.run([*command, str(source), str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    told = warnings.read_text(encoding="utf-8").strip() if warnings.is_file() else ""
    shutil.rmtree(doctrees, ignore_errors=True)
    warnings.unlink(missing_ok=True)
    if done.returncode:
        raise UserError(f"Sphinx could not build the site from {source}:\n{told or done.stderr.strip()}")
    if told:  # and not what packages say on standard error as the process ends
        print(told, file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib site`."""
    parser.add_argument("figures", type=Path, help="folder of the released results, tables and figures")
    parser.add_argument("out", type=Path, help="folder for the site")


def run(options: argparse.Namespace) -> None:
    """Build the site, and print where to open it."""
    page = build(options.figures, options.out)
    if not any((options.figures / "notebooks").glob("*.ipynb")):
        print(site_pages.NO_NOTEBOOKS.replace("`", ""))
    print(f"The site is ready: open {page} in a browser ({page.resolve().as_uri()}).")
