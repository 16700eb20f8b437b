"""The site: one small build that is read as a reader would, its pages as text, and what it says without results."""

from __future__ import annotations

import html
import importlib
import inspect
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_hostile import HOSTILE

from rdlib.__main__ import main
from rdlib.evidence import shown, tables
from rdlib.evidence.gallery import EXHIBITS
from rdlib.evidence.result_tables import open_results, seed_folders
from rdlib.profile import Profile
from rdlib.settings import Reward
from rdlib.study import site, site_api, site_extension, site_pages

FIGURES = REPOSITORY / "figures"
released = pytest.mark.skipif(not (FIGURES / "results").is_dir(), reason="no reference run has been released yet")
KEPT = ("claims", "table_2_main", "figure_main_results", "figure_5_lambda", "question_r1", "figure_question_r1")


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Path:
    """Some of the released tables and figures, one with hostile cells, and an executed notebook."""
    folder = tmp_path_factory.mktemp("released") / "figures"
    for name in KEPT:
        for path in FIGURES.glob(f"{name}.*"):
            _copy(path, folder / path.name)
    for path in (FIGURES / "results").glob("seed*/*provenance.json"):
        _copy(path, folder / "results" / path.parent.name / path.name)
    texts = [text[:3000].encode(errors="replace").decode() for text, _ in HOSTILE.values()]
    cells = pd.DataFrame({"what": HOSTILE.keys(), "text": texts})
    tables.write_markdown(cells, folder / "table_1_example.md", "Table 1: an example", "Note.")
    cells.map(shown.visible).to_csv(folder / "table_1_example.csv", index=False)
    picture = nbformat.v4.new_output("display_data", {"image/png": PICTURE})
    code = nbformat.v4.new_code_cell("1 + 1", outputs=[picture], execution_count=1)
    title, language = nbformat.v4.new_markdown_cell("# 8. Ablation: lambda"), {"language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[title, code], metadata=language)
    (folder / "notebooks").mkdir()
    nbformat.write(notebook, folder / "notebooks" / "08_ablation_lambda.ipynb")
    return folder


PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one point
)


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


@pytest.fixture(scope="module")
def built(figures, tmp_path_factory) -> Path:
    """The folder of the site, which Sphinx makes without a warning."""
    out = tmp_path_factory.mktemp("site") / "site"
    assert site.build(figures, out, strict=True) == out / "index.html"
    return out


class Reader(HTMLParser):
    """What a page loads, what it links to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Sort addresses by what a browser does with them."""
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "a":
            self.links += [values["href"]] if values.get("href") else []
        elif tag in ("script", "img", "link", "iframe", "source", "video", "audio", "object", "embed"):
            self.loads += [values[name] for name in ("src", "href", "data", "srcset") if values.get(name)]

    def handle_data(self, data):
        """Keep the text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join("".join(self.words).split())


def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


@released
@pytest.mark.slow
def test_pages_need_no_network_and_no_other_folder(built):
    pages = sorted(built.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        reader = read(page)
        for address in set(reader.loads) - {"#"}:
            assert not re.match(r"[a-z]+:|//", address) or address.startswith("data:"), (page, address)
            assert (page.parent / address.partition("?")[0]).is_file(), (page, address)
        for address in reader.links:
            target = address.partition("#")[0].partition("?")[0]
            assert re.match(r"https?:", address) or not target or (page.parent / target).exists(), (page, address)
    for sheet in built.rglob("*.css"):
        addresses = re.findall(r"url\(['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", sheet.read_text(encoding="utf-8"))
        assert not [a for pair in addresses for a in pair if re.match(r"(https?:)?//", a)], sheet


@released
@pytest.mark.slow
def test_no_page_tells_of_this_machine(built):
    for path in built.rglob("*.html"):
        assert str(REPOSITORY) not in path.read_text(encoding="utf-8"), path


@released
@pytest.mark.slow
@pytest.mark.parametrize("name", [*KEPT, "table_1_example"])
def test_an_exhibit_has_caption_data_command_and_seeds(built, figures, name):
    reader, exhibit = read(built / f"gallery/{name}.html"), EXHIBITS[name]
    caption = html.unescape(MarkdownIt().renderInline(exhibit.caption))
    if name != "table_1_example":
        assert " ".join(re.sub("<[^>]*>", "", caption).split()) in reader.text.replace("’", "'")
    data = next(link for link in reader.links if link.endswith(f"/{name}.csv"))
    assert (built / "gallery" / data).read_bytes() == (figures / f"{name}.csv").read_bytes()
    assert f"make figures NAME={name}" in reader.text
    records = site_pages.records(figures)
    assert records
    for record in records:
        assert record["command"] in reader.text and all(commit[:12] in reader.text for commit in record["commits"])


@released
@pytest.mark.slow
def test_from_the_front_page_to_the_data_of_lambdas_figure(built):
    front = read(built / "index.html")
    assert {"report.html", "gallery/index.html", "notebooks/index.html", "docs/index.html"} <= set(front.links)
    assert "figure_5_lambda.html" in read(built / "gallery/index.html").links
    notebook = read(built / "notebooks/08_ablation_lambda.html")
    assert "1 + 1" in notebook.text and any("08_ablation_lambda" in load or "png" in load for load in notebook.loads)


@released
@pytest.mark.slow
def test_from_the_papers_words_to_the_code_of_equation_7(built):
    page = built / "docs/equations.html"
    assert "<math" in page.read_text(encoding="utf-8") and "Consistency Check" in read(page).text
    assert "../api/rdlib.method.reward.html#rdlib.method.reward.reward" in read(page).links
    code = read(built / "api/rdlib.method.reward.html")
    assert "r_hat(x, y) of Eq. 7" in code.text
    assert "../_modules/rdlib/method/reward.html#reward" in code.links


@released
@pytest.mark.slow
def test_hostile_cells_are_text(built):
    for name in ("gallery/table_1_example.html", "report.html"):
        page = built / name
        reader, markup = read(page), page.read_text(encoding="utf-8")
        assert "<script>alert" not in markup and "<img src=x" not in markup and "<b> a" not in markup
        assert not [link for link in reader.links if link.startswith("javascript")]
        wanted = " ".join(shown.visible(HOSTILE["markup"][0]).split())
        assert wanted in reader.text, name


# ---- pages as text


@released
def test_claims_come_first_then_every_exhibit_then_origin_and_limits():
    page = site_pages.report(FIGURES)
    order = [page.index(word) for word in ("## The paper's claims", "## Main results", "## How these", "## Limits")]
    assert order == sorted(order)
    for row in site_pages.claims(FIGURES):
        assert f"{{grid-item-card}} {row['claim']} " in page and f"`{row['verdict']}`" in page
    missing = [e.name for e in site_pages.available(FIGURES) if f"gallery/{e.name}.md" not in page]
    assert missing == ["claims"]  # it is the cards
    for folder in seed_folders(FIGURES / "results"):
        record = json.loads((folder / "provenance.json").read_text())
        assert record["command"] in page and all(commit[:12] in page for commit in record["commits"])
    assert all(limit in page for limit in site_pages.LIMITS)


@released
def test_the_gallery_has_a_page_for_every_exhibit():
    pages = site_pages.gallery(FIGURES)
    assert set(pages) == {"index.md", *(f"{e.name}.md" for e in site_pages.available(FIGURES))}
    evidence = open_results(FIGURES / "results")  # rounding and trials are released apart
    drawn = {name for name, exhibit in EXHIBITS.items() if exhibit.is_shown(evidence)}
    assert drawn == {e.name for e in site_pages.available(FIGURES)}


def test_sections_without_their_files_are_left_out(tmp_path):
    notebook = REPOSITORY / "notebooks/13_reviewer_questions.ipynb"
    assert site_pages.sections(notebook, tmp_path) == []
    for name in ("question_r3", "figure_best_of_n"):
        (tmp_path / f"{name}.csv").write_text("a\n1\n")
    found = site_pages.sections(notebook, tmp_path)
    assert [section.title[:2] for section in found] == ["R3", "Wh"]
    assert [part.name for section in found for part in section.parts if not isinstance(part, str)] == [
        "question_r3",
        "figure_best_of_n",
    ]


@given(st.text())
def test_a_text_reads_as_it_was_written(text):
    rendered = MarkdownIt("commonmark").renderInline(site_pages.as_text(text))
    assert "<" not in rendered
    assert html.unescape(rendered).split() == shown.visible(text).replace("\n", " ").split()


def test_a_table_keeps_alignment_and_cells():
    markdown = "# T\n\nnote\n\n| a | n |\n| --- | ---: |\n| x \\| \\<i>y\\</i> {raw}`z` | 3 |\n"
    written = site_pages.table(markdown)
    assert written.splitlines()[1] == "| --- | ---: |"
    cells = re.findall(r"<td[^>]*>(.*?)</td>", MarkdownIt("commonmark").enable("table").render(written))
    assert [html.unescape(cell) for cell in cells] == ["x | <i>y</i> {raw}`z`", "3"]


def test_without_notebooks_it_says_what_makes_them(tmp_path):
    page = site_pages.notebooks(tmp_path)
    assert "make study EXPERIMENT=reference" in page and "toctree" not in page


@pytest.mark.parametrize(("commit", "told"), [("a" * 40, False), ("b" * 40, True)])
def test_notebooks_of_another_commit_than_the_results_say_so(tmp_path, commit, told):
    seed = tmp_path / "results/seed3"
    seed.mkdir(parents=True)
    (seed / "provenance.json").write_text(json.dumps({"seed": 3, "commits": ["a" * 40]}))
    made = {"commits": [commit], "dirty": False, "parameters": {"seed": 3}}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/06_ppo.ipynb").write_text(json.dumps({"metadata": {"rdlib": made}}))
    assert ("06_ppo to 06_ppo were executed at a later commit" in site_pages.notebooks(tmp_path)) is told


# ---- documents and docstrings


def test_links_out_of_the_site_become_names(tmp_path):
    page = tmp_path / "docs/a.md"
    page.parent.mkdir()
    (page.parent / "b.md").touch()
    kept = "[b](b.md#x) [web](https://a.b) [c](#c)"
    gone = "[the code](../rdlib/x.py) [params/micro.yaml](../params/micro.yaml) ![d](d.png)"
    assert site.within_site(f"{kept} {gone}", page) == f"{kept} the code (`rdlib/x.py`) params/micro.yaml d"


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("g(r) is -|r|, L_cls * 2.", r"g(r) is -\|r\|, L\_cls \* 2."),
        ("Gives `scores` [B].", r"Gives \ :py:obj:`scores`\  [B]."),
        ("`a b`s", r"\ ``a b``\ s"),
        ("Two\n`long\nname`", "Two\n\\ ``long name``\\ "),
        ("So:\n\n    f(*x)  # |y|\n\nEnd", "So:\n\n::\n\n    f(*x)  # |y|\n\nEnd"),
        ("- one;\n- two_", "- one;\n- two\\_"),
    ],
)
def test_a_docstring_reads_as_it_is_written(docstring, expected):
    assert site_extension.restructured(docstring) == expected


def test_a_schema_is_shown_as_it_is_declared():
    declared = site_extension.declared(Reward)
    assert "mismatch: Mismatch, mismatch_constant" in declared and declared.endswith("= 'raw')")
    assert "reward: rdlib.settings.Reward" in site_extension.declared(Profile)


def test_every_module_has_a_page_in_the_order_of_the_packages():
    pages = site_api.api_pages()
    modules = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in (REPOSITORY / "rdlib").rglob("*.py")
    }
    assert set(pages) == {"index.rst", *(f"{name.removesuffix('.__init__')}.rst" for name in modules)}
    listed = re.findall(r"^- :py:mod:`rdlib\.(\w+)`", pages["index.rst"], re.MULTILINE)
    assert listed == ["tasks", "engines", "method", "evidence", "study", "micro"]


def test_the_code_named_beside_an_equation_speaks_of_it():
    text = (REPOSITORY / "docs/equations.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [s.split(":")[0] for s in sections[1:]] == [f"Eq. {number}" for number in range(1, 9)]
    for section in sections:
        names = re.findall(r"`(rdlib\.method\.\w+):(\w+)`", section)
        found = [
            (importlib.import_module(module), getattr(importlib.import_module(module), name)) for module, name in names
        ]
        assert found, section
        said = " ".join(f"{inspect.getdoc(module)} {inspect.getdoc(thing)}" for module, thing in found)
        number = re.match(r"Eq\. (\d)", section)
        assert number is None or mentions(said, int(number[1])), section.splitlines()[0]


def mentions(text: str, number: int) -> bool:
    """Whether a text speaks of an equation, alone or in a range such as Eq. 4-6."""
    ranges = [(int(a), int(b or a)) for a, b in re.findall(r"Eq\. (\d)(?:-(\d))?", text)]
    return any(low <= number <= high for low, high in ranges)


# ---- the command


def test_without_released_results_it_says_what_to_do(tmp_path, capsys):
    assert main(["site", str(tmp_path), str(tmp_path / "site")]) == 2
    problem = capsys.readouterr().err
    assert (
        "make study EXPERIMENT=reference" in problem and problem.count("\n") == 1 and not (tmp_path / "site").exists()
    )


@released
def test_a_folder_that_is_no_site_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert main(["site", str(FIGURES), str(tmp_path)]) == 2
    assert "no site" in capsys.readouterr().err and (tmp_path / "mine.txt").is_file()
