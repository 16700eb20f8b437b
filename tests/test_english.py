"""Plain English: phrases and headings over which readers stumble are kept out of documents and of make's help.

`PACKAGE = True` applies the same list to docstrings, captions and messages of rdlib.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

from rdlib.evidence import documents

PACKAGE = False
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
    r"(?:is|are|was|lies|stands|jobs?|stages?|all) behind": "upstream; what it depends on",
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
MODULES = sorted((REPOSITORY / "rdlib").rglob("*.py"))


def found(text: str) -> list[str]:
    """The banned phrases in a text."""
    return BANNED.findall(" ".join(text.split()))


def plain(markdown: str) -> str:
    """A page without code and the addresses of links."""
    markdown = re.sub(r"^ *```.*?^ *```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"`[^`\n]*`", "", markdown))


def texts_of(path: Path) -> list[str]:
    """The texts of a module: docstrings, captions, messages."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_document_is_in_plain_english(page):
    text = plain(page.read_text(encoding="utf-8"))
    assert found(text) == []
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert [one for one in headings if CLAUSE.match(one) and not one.endswith("?")] == [], "a noun or a question"


def test_the_help_of_make_is_in_plain_english():
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "make study" in shown and found(shown) == []


@pytest.mark.parametrize("path", MODULES if PACKAGE else [], ids=lambda path: path.stem)
def test_a_module_is_in_plain_english(path):
    assert [phrase for text in texts_of(path) for phrase in found(text)] == []


def test_phrases_are_found_across_lines_and_only_as_whole_words():
    assert found("What is behind\nrests on it, Held to 0.") == ["is behind", "rests on", "Held to"]
    assert found("Amendments depend on the threshold; most are at the mostly harmless end.") == []
