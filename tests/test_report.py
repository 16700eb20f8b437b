"""The report: the claims first, everything that the notebooks show, one file that needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from rdlib.evidence import report, result_tables

FIGURES = REPOSITORY / "figures"
released = pytest.mark.skipif(not (FIGURES / "results").is_dir(), reason="no reference run has been released yet")


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(FIGURES)


@released
def test_claims_come_first_with_the_released_verdicts(page):
    assert page.index("The paper's claims") < page.index("Main results") < page.index('id="limits"')
    for row in report.claim_rows(FIGURES):
        assert f"<tr><td>{row['claim']}</td>" in page and f">{row['verdict']}</td>" in page
    assert re.findall(r"<tr><td>(C\d)</td>", page)[:9] == [f"C{i}" for i in range(1, 10)]


@released
def test_every_table_and_figure_is_in_it(page):
    shown = {p.stem for p in FIGURES.glob("*.png")} | {p.stem for p in FIGURES.glob("*.md")} - {"claims"}
    missing = {p.stem for p in FIGURES.glob("*.png") if f'alt="{p.stem.replace("_", " ")}"' not in page}
    titles = {p.stem: p.read_text().splitlines()[0].lstrip("# ") for p in FIGURES.glob("*.md")}
    missing |= {stem for stem, title in titles.items() if stem != "claims" and escaped(title) not in page}
    assert shown and not missing


def escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))


@released
def test_it_is_one_file_without_scripts_or_links_out(page):
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)
    assert all(word not in page for word in ("/work", "/root", "/home"))
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert anchors and all(page.count(f'id="{anchor}"') == 1 for anchor in anchors)


@released
def test_it_names_command_and_commit_of_every_seed(page):
    for folder in result_tables.seed_folders(FIGURES / "results"):
        record = json.loads((folder / "provenance.json").read_text())
        assert record["command"] in page and all(commit[:12] in page for commit in record["commits"])


def test_a_table_with_markup_and_bars_is_shown_as_text(tmp_path):
    (tmp_path / "t.md").write_text("# A <b>title</b>\n\nnote\n\n| a | n |\n| --- | ---: |\n| x \\| <i>y</i> | 3 |\n")
    part = report._part(tmp_path / "t.md")
    assert part["rows"] == [["a", "n"], ["x | <i>y</i>", "3"]]
    assert part["right"] == [False, True] and part["note"] == "note" and part["title"] == "A <b>title</b>"


def test_sections_without_their_files_are_left_out(tmp_path):
    notebook = REPOSITORY / "notebooks/13_reviewer_questions.ipynb"
    assert report.sections(notebook, tmp_path) == []
    (tmp_path / "question_r3.md").write_text("# R3\n\n| a |\n| --- |\n| 1 |\n")
    (tmp_path / "figure_best_of_n.png").write_bytes(b"png")
    found = report.sections(notebook, tmp_path)
    assert [section.title[:2] for section in found] == ["R3", "Wh"]
    assert [part["name"] for part in found[0].parts if "name" in part] == ["question_r3"]
    assert [part["name"] for part in found[1].parts if "name" in part] == ["figure_best_of_n"]


def test_without_released_results_it_says_what_to_do(tmp_path, capsys):
    assert report.main([str(tmp_path), str(tmp_path / "report.html")]) == 1
    assert "make study" in capsys.readouterr().err and not (tmp_path / "report.html").exists()


@released
def test_the_command_writes_the_page(tmp_path, capsys, page):
    assert report.main([str(FIGURES), str(tmp_path / "out/report.html")]) == 0
    assert Path(tmp_path / "out/report.html").read_text() == page and "MB" in capsys.readouterr().out
