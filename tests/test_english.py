"""Plain English: phrases and headings over which readers stumble are kept out of what people read.

That is documents and make's help, docstrings, comments and messages of code, text cells of notebooks, the captions of
exhibits, and the comments of profiles.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tokenize
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY

from rdlib.evidence import documents

# A server, an API or an interface is behind an address in the word's own sense.
LITERALLY = r"(?:(?:an?|the|one|some|its own) )?(?:[\w.-]+ )?(?:servers?|interface|API|proxy|link)\b"
# Banned, as patterns between the borders of words, and what to write instead.
INSTEAD = {
    r"told from (?:0|zero)": "significant",
    r"told apart|tells? (?:\w+ )?apart": "distinguish, separate",
    r"(?:is|are|be|was|were) told": "is reported, is shown",
    r"told (?:first|before|beside)": "printed first",
    r"held to|holds? (?:\w+ )?to|holding to": "compare with",
    r"(?:made|makes?|making) (?:\w+ )?again": "rerun, recompute",
    r"nobody can say": "undecided, under-powered",
    r"(?:by|at|took|takes|than) the most(?: steps)?": "the step limit",
    r"amiss": "wrong",
    r"bears? in mind": "note",
    r"mend(?:s|ed|ing)?": "fix",
    r"hardly": "little, rarely",
    rf"behind(?! {LITERALLY})": "upstream, depends on; after",
    r"rest(?:s|ed|ing)? on": "depends on",
    r"without a word": "silently",
    r"stand-ins?": "simulation, simulated",
    r"anew": "again",
    r"the asking": "the run, the requests",
    r"open ends": "follow-up experiments",
    r"once more": "again",
    r"(?:go|goes|went|going) on (?:from|where|with|as)": "resumes, continues",
    r"at hand": "available",
    r"on the mean (?:of|over)": "averaged over",
    r"in the place of": "instead of",
    r"taken? apart": "split, expanded",
    r"work(?:s|ed)? out": "compute",
    r"as far as we found": "as far as we know",
}
BANNED = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b", re.IGNORECASE)
CLAUSE = re.compile(r"(?:What|Why|Where|When|Which|Who|Whether|How)\b(?! to\b)")
PAGES = [*documents.pages(), REPOSITORY / "CONTRIBUTING.md"]
MODULES = sorted(path for folder in ("rdlib", "scripts", "bench") for path in (REPOSITORY / folder).rglob("*.py"))
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
PROFILES = sorted((REPOSITORY / "params").rglob("*.yaml"))


def found(text: str) -> list[str]:
    """The banned phrases in a text."""
    return BANNED.findall(" ".join(text.split()))


def plain(markdown: str) -> str:
    """A page without code and the addresses of links."""
    markdown = re.sub(r"^ *```.*?^ *```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"`[^`\n]*`", "", markdown))


def texts_of(path: Path) -> list[str]:
    """The texts of a module: docstrings and messages, and comments, whose lines are joined."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)] + comments_of(path)


def comments_of(path: Path) -> list[str]:
    """The comments of a module, those on consecutive lines as one."""
    with tokenize.open(path) as file:
        comments = [one for one in tokenize.generate_tokens(file.readline) if one.type == tokenize.COMMENT]
    blocks = groupby(enumerate(comments), lambda pair: pair[1].start[0] - pair[0])
    return [" ".join(comment.string.strip("# ") for _, comment in block) for _, block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_document_is_in_plain_english(page):
    text = plain(page.read_text(encoding="utf-8"))
    assert found(text) == []
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert [one for one in headings if CLAUSE.match(one) and not one.endswith("?")] == [], "a noun or a question"


def test_the_help_of_make_is_in_plain_english():
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "make study" in shown and found(shown) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_module_is_in_plain_english(path):
    assert [phrase for text in texts_of(path) for phrase in found(text)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_text_of_a_notebook_is_in_plain_english(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert cells and found(plain("\n\n".join(cells))) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_the_comments_of_a_profile_are_in_plain_english(path):
    comments = re.findall(r"(?:^|\s)# ?(.*)", path.read_text(encoding="utf-8"))
    assert comments and found(" ".join(comments)) == []


def test_captions_are_in_plain_english():
    assert found((REPOSITORY / "rdlib/evidence/exhibits.yaml").read_text(encoding="utf-8")) == []


def test_phrases_are_found_across_lines_and_only_as_whole_words():
    assert found("What is behind\nrests on it, Held to 0.") == ["behind", "rests on", "Held to"]
    assert found("Amendments depend on the threshold; most are at the mostly harmless end.") == []
    assert found("A teacher behind an OpenAI-compatible server, behind one interface.") == []


def test_comments_on_consecutive_lines_are_read_as_one(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("# This rests\n# on that\nx = 1  # here\n\n# there\n")
    assert comments_of(path) == ["This rests on that here", "there"]
