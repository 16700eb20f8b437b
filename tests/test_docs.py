"""README, docs and CONTRIBUTING name what there is: links, files, modules, commands, settings and the code's walks."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, make_root

from rdlib.__main__ import main
from rdlib.evidence import documents
from rdlib.profile import Profile, load_profile
from rdlib.study import architecture, opening
from rdlib.study.specification import STAGES

PAGES = [*documents.documents(), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]
FOLDERS = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
# What a reader makes by following a page.
MADE = {"params/mine.yaml", "rdlib/engines/echo.py", "figures/laptop/teacher_responses.parquet"}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def each_page(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)(test)


FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$\n?", re.DOTALL | re.MULTILINE)


def fences(text: str) -> list[str]:
    """What stands in fenced blocks of no language: commands and examples."""
    return [block for language, block in FENCE.findall(text) if not language]


def prose(text: str) -> str:
    """What stands outside of fenced blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands in code spans."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def commands(text: str) -> list[list[str]]:
    """The words of every command line that a page names, comments left out."""
    lines = [*spans(text), *(line for block in fences(text) for line in block.splitlines())]
    known = re.compile(r"^\s*((\w+=<[^>]*> )?make|\.venv/bin/\w+|python|pip) .+")
    return [shlex.split(line, comments=True) for line in lines if known.match(line)]


def anchors(path: Path) -> set[str]:
    """The names of a page's headings in links."""
    heads = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert links or page.name in ("constants.md", "cite.md", "own_questions.md", "real_benchmarks.md", "CHANGELOG.md")
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and target.is_relative_to(REPOSITORY), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_files_that_are_named_exist(page):
    for span in spans(page.read_text()):
        name = re.sub(r"<k>", "0", span).rstrip("/")
        if re.fullmatch(r"[\w.<>/-]+/[\w.<>/-]*", name) and name.split("/")[0] in FOLDERS and name not in MADE:
            assert name.startswith("runs/") or (REPOSITORY / name).exists(), span


@each_page
def test_modules_that_are_named_exist(page):
    text = page.read_text()
    for name in re.findall(r"\brdlib(?:\.\w+)+", "\n".join([prose(text), *fences(text)])):
        assert importlib.util.find_spec(name) is not None, name


@each_page
def test_functions_that_are_named_exist(page):
    for module, names in re.findall(r"`(rdlib[\w.]*):([\w.]+)`", page.read_text()):
        found = importlib.import_module(module)
        for name in names.split("."):
            assert hasattr(found, name), f"{module}:{names}"
            found = getattr(found, name)


@each_page
def test_settings_that_are_named_exist(page):
    for span in spans(page.read_text()):
        section, _, name = span.partition(".")
        field = Profile.model_fields.get(section)
        if field is not None and re.fullmatch(r"[a-z_]+", name):
            assert name in getattr(field.annotation, "model_fields", {}), span


@each_page
def test_notebooks_and_stages_that_are_named_exist(page):
    notebooks = {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    named = re.findall(r"`(\d\d_[a-z_]+)(?:@[^`]*)?(?:\.ipynb)?`", page.read_text())
    assert set(named) <= notebooks | set(STAGES)


@each_page
def test_targets_and_variables_of_make_exist(page):
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for words in commands(page.read_text()):
        if "make" not in words[:2]:
            continue
        for word in words[words.index("make") + 1 :]:
            name, has_value, _ = word.partition("=")
            if has_value:
                assert re.search(rf"^{name}\s*\?=|\$\({name}\)", makefile, re.MULTILINE), words
            else:
                assert word in targets, words


@each_page
def test_options_of_the_study_exist(page, capsys):
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for words in commands(page.read_text()):
        if words[:2] in (["make", "study"], ["make", "reference"], ["make", "retrain"]):
            given = " ".join(word.partition("=")[2] for word in words if word.startswith("ARGS="))
            assert set(re.findall(r"--[a-z-]+", given)) <= known, words


@each_page
def test_parameters_given_to_a_notebook_are_its_own(page):
    for words in commands(page.read_text()):
        if not words[0].endswith(("papermill", "python")) or not any(w.endswith(".ipynb") for w in words):
            continue
        notebook = next(word for word in words if word.startswith("notebooks/"))
        cells = nbformat.read(REPOSITORY / notebook, as_version=4).cells
        source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
        declared = set(re.findall(r"^(\w+) = ", source, re.MULTILINE))
        given = {words[i + 1] for i, word in enumerate(words) if word == "-p"}
        given |= set(json.loads(words[-1])) if words[-1].startswith("{") else set()
        assert given and given <= declared, words


@each_page
def test_overrides_are_settings_of_the_micro_study(page):
    for words in commands(page.read_text()):
        overrides = [yaml.safe_load(words[i + 1]) for i, word in enumerate(words) if word == "-y"]
        for given in overrides:
            load_profile(REPOSITORY / "params/micro.yaml", given["overrides"])


@each_page
def test_tables_are_whole(page):
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        widths = [len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(widths)) == 1 and len(widths) > 2, table


@each_page
def test_pages_have_one_title_and_tell_nothing_of_this_machine(page):
    text = prose(page.read_text())
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert not re.search(r"(?<![\w.>])/(work|root|home|tmp)\b", text)


def test_the_readme_is_a_page():
    text = (REPOSITORY / "README.md").read_text()
    filled = re.search(r"<!-- first_screen -->.*<!-- /first_screen -->", text, re.DOTALL)[
        0
    ]  # as long as verdicts make it
    assert 4000 < len(text) - len(filled) <= 5600 and len(filled) < 2800


def test_the_readme_leads_to_every_page():
    seen, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        for link in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text()):
            target = (page.parent / link).resolve()
            if not link.startswith("https://") and target not in seen:
                seen.add(target)
                waiting.append(target)
    assert set(PAGES) - {REPOSITORY / "README.md"} <= seen


# ---- the page on architecture


ARCHITECTURE = (REPOSITORY / "docs/architecture.md").read_text()


def walk(heading: str) -> list[str]:
    """The functions of a walk's table, in order."""
    section = ARCHITECTURE.split(f"## {heading}")[1].split("\n## ")[0]
    return [re.search(r"`(rdlib[\w.]*:[\w.]+)`", line)[1] for line in section.splitlines() if "| `rdlib" in line]


def test_the_packages_stand_in_their_order():
    named = re.findall(r"^\| `rdlib\.(\w+)` \|", ARCHITECTURE, re.MULTILINE)
    assert tuple(named) == architecture.PACKAGES[1:]


class Calls:
    """The functions of rdlib that are called, in the order of their first calls: `with Calls() as calls: ...`."""

    def __enter__(self) -> Calls:
        self.first: dict[str, int] = {}
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("rdlib"):
            self.first.setdefault(f"{module}:{frame.f_code.co_qualname}", len(self.first))

    def places(self, functions: list[str]) -> list[int | None]:
        """The place of each function among the first calls, None where it was not called."""
        return [self.first.get(name) for name in functions]


@pytest.mark.slow
def test_a_question_goes_the_way_that_is_written_down(tmp_path, at_root):
    at_root(make_root(tmp_path / "root"))
    cell = {"profile": PARAMS, "dataset": "gsm", "teacher": "strong", "student": "small", "seed": 0}
    with Calls() as calls:
        for name, method in (
            *((name, None) for name in ("00_data", "00_gold", "01_teacher_responses", "02_pseudo_labels")),
            ("03_sft_warmup", "ours_wo_r"),
            *((name, "ours") for name in ("04_student_responses", "05_reward_model", "06_ppo", "07_evaluate")),
        ):
            axes = {axis: cell.get(axis, method) for axis in STAGES[name].axes}
            opening.open_stage(name, axes | {"profile": PARAMS, "seed": 0}).run()
    functions = walk("One question")
    training = functions[: functions.index("rdlib.study.results:collect")]
    places = calls.places(training)
    assert None not in places, [name for name, place in zip(training, places, strict=True) if place is None]
    assert places == sorted(places), [training[i] for i in range(1, len(places)) if places[i] < places[i - 1]]


@pytest.mark.slow
def test_released_results_go_the_way_to_table_2_that_is_written_down(tmp_path):
    from rdlib.evidence import gallery, result_tables

    functions = walk("One question")
    drawing = functions[functions.index("rdlib.evidence.result_tables:open_results") :]
    with Calls() as calls:
        evidence = result_tables.open_results(REPOSITORY / "figures/results", [0])
        gallery.draw(gallery.EXHIBITS["table_2_main"], evidence, tmp_path)
    places = calls.places(drawing)
    assert None not in places and places == sorted(places), dict(zip(drawing, places, strict=True))


@pytest.mark.slow
def test_lambda_goes_the_way_that_is_written_down(study, tmp_path, at_root):
    from conftest import copy_study

    at_root(copy_study(study, tmp_path / "root", "05_reward_model", "06_ppo", "07_evaluate"))
    cell = {"profile": PARAMS, "dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours", "seed": 0}
    with Calls() as calls:
        stage = opening.open_stage("05_reward_model", cell | {"lam": 0.25})
        stage.run()
    functions = walk("One setting")
    places = calls.places(functions)
    assert None not in places and places == sorted(places), dict(zip(functions, places, strict=True))
    assert stage.folder.name == "05_reward_model@reward_model.lam=0.25"


# ---- what a study is expected to ship


def test_the_citation_has_what_its_schema_requires():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # required by the schema of 1.2.0
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert cited["version"] == PROJECT["version"] and cited["license"] == PROJECT["license"]
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= paper.keys() and paper["type"] == "article"
    for author in (*cited["authors"], *paper["authors"]):
        assert author.keys() in ({"name"}, {"family-names", "given-names"})
    readme = " ".join((REPOSITORY / "README.md").read_text().replace(">", "").split())
    assert f"*{paper['title']}*" in readme and paper["url"] in readme
    for author in paper["authors"]:
        assert f"{author['given-names']} {author['family-names']}" in readme


def test_bibtex_says_the_same():
    bibtex = " ".join((REPOSITORY / "docs/cite.md").read_text().split())
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    paper = cited["references"][0]
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"{{{paper['title']}}}" in bibtex and f"{{{names}}}" in bibtex
    assert f"{{{cited['title']}}}" in bibtex and f"version = {{{PROJECT['version']}}}" in bibtex
    assert paper["url"].endswith(re.search(r"eprint = \{([\d.]+)\}", bibtex)[1])


def test_the_changelog_has_this_version_below_what_is_not_released():
    heads = re.findall(r"^## \[?([\w.]+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased" and PROJECT["version"] in heads


def test_the_container_does_what_the_readme_does():
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert [word for word, _ in steps if word in ("FROM", "CMD")] == ["FROM", "CMD"]
    base = re.fullmatch(r"python:3\.(\d+)-slim", steps[0][1])
    assert f"3.{base[1]}" == PROJECT["requires-python"].removeprefix(">=")
    assert ["RUN", "make env"] in steps and json.loads(steps[-1][1]) == ["make", "study"]


def test_the_way_to_ask_the_student_of_own_questions_works(monkeypatch, capsys):
    """The program of docs/own_questions.md, with a micro model in the place of what a study of own questions leaves."""
    text = (REPOSITORY / "docs/own_questions.md").read_text(encoding="utf-8")
    (program,) = [block for language, block in FENCE.findall(text) if language == "python"]
    example = json.loads((REPOSITORY / "figures/results/seed0/example.json").read_text())
    here = {
        "runs/mine/mine/teacher/student/ours/seed0/06_ppo/model": "models/strong",
        "params/mine.yaml": "params/micro.yaml",
        '"mine"': '"gsm"',
        "Who wrote Emma?": example["question"],
    }
    for there, instead in here.items():
        assert there in program
        program = program.replace(there, instead)
    monkeypatch.chdir(REPOSITORY)
    exec(compile(program, "own_questions.md", "exec"), {})
    assert capsys.readouterr().out.strip().endswith(f"-> {example['pseudo_label']}")  # the strong teacher's answer
