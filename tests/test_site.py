"""The site: one small build, read as a reader would; its pages as text, and what it says without results."""

from __future__ import annotations

import html
import importlib
import inspect
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_hostile import HOSTILE

from rdlib.__main__ import main
from rdlib.evidence import shown, tables
from rdlib.evidence.gallery import EXHIBITS
from rdlib.evidence.result_tables import origin, seed_folders
from rdlib.study import site

FIGURES = REPOSITORY / "figures"
KEPT = ("claims", "figure_main_results", "figure_5_lambda", "question_r1")
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one point
)
pytestmark = pytest.mark.skipif(not (FIGURES / "results").is_dir(), reason="no reference run has been released yet")


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Path:
    """Some of the released tables and figures, one with hostile cells, and an executed notebook as the report."""
    folder = tmp_path_factory.mktemp("released") / "figures"
    for path in [*(path for name in KEPT for path in FIGURES.glob(f"{name}.*")), *FIGURES.glob("results/*/prov*.json")]:
        to = folder / path.relative_to(FIGURES)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    texts = [text[:3000].encode(errors="replace").decode() for text, _ in HOSTILE.values()]
    cells = pd.DataFrame({"what": HOSTILE.keys(), "text": texts})
    tables.write_markdown(cells, folder / "table_1_example.md", "Table 1: an example", "Note.")
    cells.map(shown.visible).to_csv(folder / "table_1_example.csv", index=False)
    picture = nbformat.v4.new_output("display_data", {"image/png": PICTURE})
    code = nbformat.v4.new_code_cell("1 + 1", outputs=[picture], execution_count=1)
    title, language = nbformat.v4.new_markdown_cell("# 12. Everything"), {"language_info": {"name": "python"}}
    (folder / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[title, code], metadata=language)
    nbformat.write(notebook, folder / "notebooks/12_paper_tables_and_figures.ipynb")
    return folder


@pytest.fixture(scope="module")
def built(figures, tmp_path_factory) -> Path:
    """The folder of the site, which Sphinx makes without a warning."""
    out = tmp_path_factory.mktemp("site") / "site"
    assert site.build(figures, out, strict=True) == out / "index.html"
    return out


def attributes(page: Path, tags: str, names: str) -> set[str]:
    """The values of some attributes of some tags of a page; both are alternatives of a pattern."""
    found = re.findall(rf"<(?:{tags})\b[^>]*>", page.read_text(encoding="utf-8"))
    return {html.unescape(value) for tag in found for value in re.findall(rf'\s(?:{names})="([^"]+)"', tag)}


def links(page: Path) -> set[str]:
    """Where a page's links lead."""
    return attributes(page, "a", "href")


def loads(page: Path) -> set[str]:
    """What a browser loads with a page."""
    tags = "script|img|link|iframe|source|video|audio|object|embed"
    return attributes(page, tags, "src|href|data|srcset") - {"#"}


def text_of(page: Path) -> str:
    """The text of a page, with single spaces."""
    return " ".join(BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").get_text().split())


@pytest.mark.slow
def test_pages_need_no_network_and_tell_nothing_of_this_machine(built):
    anchors = {page: attributes(page, r"\w+", "id") for page in built.rglob("*.html")}
    assert len(anchors) > 80
    for page in anchors:
        for address in loads(page):
            assert not re.match(r"[a-z]+:|//", address) or address.startswith("data:"), (page, address)
            assert (page.parent / address.partition("?")[0]).is_file(), (page, address)
        for address in links(page):
            name, _, anchor = unquote(address).partition("#")
            target = (page.parent / name).resolve() if name else page
            assert re.match(r"https?:", address) or target.exists(), (page, address)
            assert not anchor or target not in anchors or anchor in anchors[target], (page, address)
        assert str(REPOSITORY) not in page.read_text(encoding="utf-8"), page
    for sheet in built.rglob("*.css"):
        addresses = re.findall(r"url\(['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", sheet.read_text(encoding="utf-8"))
        assert not [a for pair in addresses for a in pair if re.match(r"(https?:)?//", a)], sheet


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KEPT, "table_1_example"])
def test_an_exhibit_has_caption_data_and_commands(built, figures, name):
    page = built / f"figures/{name}.html"
    caption = "Note." if name == "table_1_example" else EXHIBITS[name].caption
    plain = html.unescape(re.sub("<[^>]*>", "", MarkdownIt().renderInline(caption)))
    assert " ".join(plain.split()) in text_of(page).replace("’", "'")
    data = next(link for link in links(page) if link.endswith(f"/{name}.csv"))
    assert (built / "figures" / data).read_bytes() == (figures / f"{name}.csv").read_bytes()
    assert set(re.findall(rf"make (\w+) NAME={name}\b", text_of(page))) == {"figures", "study"}
    assert f"{name}.html" in links(built / "figures/index.html")
    assert "index.html#seeds-and-commits" in links(page)


@pytest.mark.slow
def test_from_the_front_page_to_report_notebooks_gallery_documents_and_equation_7(built, figures):
    report = "figures/notebooks/12_paper_tables_and_figures.html"
    expected = {report, "figures/index.html", "figures/notebooks/index.html", "docs/index.html", "docs/api.html"}
    assert expected <= links(built / "index.html")
    assert "1 + 1" in text_of(built / report) and any("png" in load for load in loads(built / report))
    for folder in seed_folders(figures / "results"):
        made = origin(folder)
        assert all(text in text_of(built / "figures/index.html") for text in (made["command"], made["commits"][0][:12]))
    equations, reward = built / "docs/equations.html", built / "docs/api/rdlib.method.reward.html"
    assert "<math" in equations.read_text(encoding="utf-8") and "Consistency Check" in text_of(equations)
    assert "api/rdlib.method.reward.html#rdlib.method.reward.reward" in links(equations)
    assert "r_hat(x, y) of Eq. 7" in text_of(reward) and "../../_modules/rdlib/method/reward.html#reward" in links(
        reward
    )


@pytest.mark.slow
def test_every_module_has_a_page(built):
    paths = [path.relative_to(REPOSITORY).with_suffix("") for path in (REPOSITORY / "rdlib").rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths} - {"rdlib", "rdlib.__main__"}
    assert names <= {page.stem for page in (built / "docs/api").iterdir()}


@pytest.mark.slow
def test_hostile_cells_are_text(built):
    page = built / "figures/table_1_example.html"
    markup = page.read_text(encoding="utf-8")
    assert "<script>alert" not in markup and "<img src=x" not in markup and "<b> a" not in markup
    assert not [link for link in links(page) if link.startswith("javascript")]
    assert " ".join(shown.visible(HOSTILE["markup"][0]).split()) in text_of(page)


@given(st.text())
def test_a_text_reads_as_it_was_written(text):
    rendered = MarkdownIt("commonmark").renderInline(site.as_text(text))
    assert "<" not in rendered
    assert html.unescape(rendered).split() == shown.visible(text).replace("\n", " ").split()


def test_a_table_keeps_alignment_and_cells():
    lines = ["| a | n |", "| --- | ---: |", "| x \\| \\<i>y\\</i> {raw}`z` | 3 |"]
    written = [site.as_text_row(line) for line in lines]
    assert written[1] == lines[1] and site.as_text_row("*note*") == "*note*"
    cells = re.findall(r"<td[^>]*>(.*?)</td>", MarkdownIt("commonmark").enable("table").render("\n".join(written)))
    assert [html.unescape(cell) for cell in cells] == ["x | <i>y</i> {raw}`z`", "3"]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("g(r) is -|r|, L_cls * 2.", r"g(r) is -\|r\|, L\_cls \* 2."),
        ("of FILE:NAME, see https://a.b", r"of FILE\:NAME, see https://a.b"),
        ("Gives `scores` [B].", r"Gives \ `scores`\  [B]."),
        ("`a b`s", r"\ ``a b``\ s"),
        ("Two\n`long\nname`", "Two\n\\ ``long name``\\ "),
        ("So:\n\n    f(*x)  # |y|\n\nEnd", "So:\n\n::\n\n    f(*x)  # |y|\n\nEnd"),
    ],
)
def test_a_docstring_reads_as_it_is_written(docstring, expected, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    assert importlib.import_module("conf").restructured(docstring) == expected


@pytest.mark.parametrize("number", range(1, 9))
def test_every_equation_is_named_where_it_is_computed(number):
    text = (REPOSITORY / "docs/equations.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## Eq\. {number}:.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    named = re.findall(r"`(rdlib\.method\.\w+):(\w+)`", section)
    docstrings = [inspect.getdoc(getattr(importlib.import_module(module), name)) for module, name in named]
    assert any(f"Eq. {number}" in docstring for docstring in docstrings), named


# ---- the command


def test_without_results_or_in_a_folder_that_is_no_site_it_says_what_to_do(tmp_path, capsys):
    assert main(["site", str(tmp_path), str(tmp_path / "site")]) == 2
    problem = capsys.readouterr().err
    assert "make release" in problem and problem.count("\n") == 1 and not (tmp_path / "site").exists()
    (tmp_path / "mine.txt").touch()
    assert main(["site", str(FIGURES), str(tmp_path)]) == 2
    assert "other files than a site" in capsys.readouterr().err and (tmp_path / "mine.txt").is_file()


def test_without_notebooks_there_is_a_site_that_says_so(figures, tmp_path, capsys, monkeypatch):
    shutil.copytree(figures, tmp_path / "figures", ignore=shutil.ignore_patterns("notebooks"))
    monkeypatch.setattr(site, "run_sphinx", lambda source, out, strict: out.mkdir())
    assert main(["site", str(tmp_path / "figures"), str(tmp_path / "site")]) == 0
    said = capsys.readouterr().out
    assert "no executed notebooks" in said and "index.html" in said
    assert "notebooks" not in (tmp_path / "site-source/index.md").read_text().partition("{toctree}")[2]
