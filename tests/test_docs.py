"""README, docs and CONTRIBUTING name what there is, in plain English, as do help, code, notebooks and profiles."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import subprocess
import tokenize
import tomllib
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import REPOSITORY

from rdlib.__main__ import COMMANDS, main
from rdlib.profile import Profile, load_profile
from rdlib.study.specification import STAGES

DOCS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES = [*DOCS, REPOSITORY / "CHANGELOG.md"]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
FOLDERS = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
# What a reader makes by following a page.
MADE = {
    "params/mine.yaml",
    "params/mine_experiments.yaml",
    "rdlib/engines/echo.py",
    "figures/laptop/teacher_responses.parquet",
}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$\n?", re.DOTALL | re.MULTILINE)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())


def prose(text: str) -> str:
    """What stands outside of fenced blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands in code spans."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def commands(page: Path) -> list[list[str]]:
    """The words of every command line that a page names, comments left out."""
    text = page.read_text()
    fenced = [line for language, block in FENCE.findall(text) if not language for line in block.splitlines()]
    known = re.compile(r"^\s*((\w+=<[^>]*> )?make|\.venv/bin/\w+|python|pip) .+")
    return [shlex.split(line, comments=True) for line in [*spans(text), *fenced] if known.match(line)]


def anchors(path: Path) -> set[str]:
    """The names of a page's headings in links."""
    heads = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and target.is_relative_to(REPOSITORY), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_files_modules_and_functions_that_are_named_exist(page):
    text = page.read_text()
    for span in spans(text):
        name = re.sub(r"<k>", "0", span).rstrip("/")
        if re.fullmatch(r"[\w.<>/-]+/[\w.<>/-]*", name) and name.split("/")[0] in FOLDERS and name not in MADE:
            assert name.startswith("runs/") or (REPOSITORY / name).exists(), span
    for name in re.findall(r"\brdlib(?:\.\w+)+", text):
        assert f"{name.replace('.', '/')}.py" in MADE or importlib.util.find_spec(name) is not None, name
    for module, names in re.findall(r"`(rdlib[\w.]*):([\w.]+)`", text):
        found = importlib.import_module(module)
        for name in names.split("."):
            assert hasattr(found, name), f"{module}:{names}"
            found = getattr(found, name)


@each_page
def test_settings_notebooks_and_stages_that_are_named_exist(page):
    for span in spans(page.read_text()):
        section, _, name = span.partition(".")
        field = Profile.model_fields.get(section)
        if field is not None and re.fullmatch(r"[a-z_]+", name) and name not in ("parquet", "csv"):
            assert name in getattr(field.annotation, "model_fields", {}), span
    notebooks = {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    named = re.findall(r"`(\d\d_[a-z_]+)(?:@[^`]*)?(?:\.ipynb)?`", page.read_text())
    assert set(named) <= notebooks | set(STAGES)


@pytest.fixture(scope="module")
def options_of_the_study() -> set[str]:
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        main(["study", "--help"])
    return set(re.findall(r"--[a-z-]+", shown.getvalue()))


@each_page
def test_commands_of_make_and_rdlib_exist_with_their_options(page, options_of_the_study):
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    if page.name == "CHANGELOG.md":  # it names what was there then
        targets |= set(re.findall(r"^new\.([a-z-]+) =", makefile, re.MULTILINE))
    for words in commands(page):
        if words[1:3] == ["-m", "rdlib"]:
            assert words[3] in {*COMMANDS, "COMMAND"}, words
        for word in words[words.index("make") + 1 :] if "make" in words[:2] else []:
            name, has_value, _ = word.partition("=")
            known = re.search(rf"^{name}\s*\?=|\$\({name}\)", makefile, re.MULTILINE) if has_value else word in targets
            assert known, words
        if words[:2] in (["make", "study"], ["make", "reference"], ["make", "retrain"]):
            given = " ".join(word.partition("=")[2] for word in words if word.startswith("ARGS="))
            assert set(re.findall(r"--[a-z-]+", given)) <= options_of_the_study, words


@each_page
def test_parameters_and_overrides_given_to_a_notebook_exist(page):
    for words in commands(page):
        overrides = [yaml.safe_load(words[i + 1]) for i, word in enumerate(words) if word == "-y"]
        for given in overrides:
            load_profile(REPOSITORY / "params/micro.yaml", given["overrides"])
        notebook = next((word for word in words if word.startswith("notebooks/") and word.endswith(".ipynb")), None)
        if notebook is None or not words[0].endswith(("papermill", "python")):
            continue
        cells = nbformat.read(REPOSITORY / notebook, as_version=4).cells
        source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
        given = {words[i + 1] for i, word in enumerate(words) if word == "-p"}
        given |= set(json.loads(words[-1])) if words[-1].startswith("{") else set()
        assert given and given <= set(re.findall(r"^(\w+) = ", source, re.MULTILINE)), words


@each_page
def test_a_page_has_one_title_and_whole_tables_and_nothing_of_this_machine(page):
    text = page.read_text()
    assert len(re.findall(r"^# ", prose(text), re.MULTILINE)) == 1
    assert not re.search(r"(?<![\w.>])/(work|root|home|tmp)\b", prose(text))
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = [len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(widths)) == 1 and len(widths) > 2, table


def test_the_first_screen_of_the_readme_is_short():
    text = (REPOSITORY / "README.md").read_text()
    screen = text.split("## Findings\n")[1].split("\n| |")[0]
    assert 80 <= len(screen.split()) <= 170 and len(text.split()) < 1700


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


def test_the_layers_stand_in_their_order():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    text = (REPOSITORY / "docs/architecture.md").read_text()
    named = re.findall(r"^\| `rdlib\.(\w+)` \|", text, re.MULTILINE)
    assert named == [layer for layer in reversed(layers) if layer.isalpha()]


# ---- what a study is expected to ship


def test_the_citation_is_that_of_readme_and_bibtex():
    readme, bibtex = (" ".join((REPOSITORY / name).read_text().split()) for name in ("README.md", "docs/cite.md"))
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # required by the schema of 1.2.0
    (paper,) = cited["references"]
    names = [(author["given-names"], author["family-names"]) for author in paper["authors"]]
    assert f"*{paper['title']}*" in readme.replace("> ", "") and paper["url"] in readme
    assert all(f"{given} {family}" in readme.replace("> ", "") for given, family in names)
    expected = [paper["title"], " and ".join(f"{family}, {given}" for given, family in names), cited["title"]]
    assert all(f"{{{text}}}" in bibtex for text in expected) and f"version = {{{PROJECT['version']}}}" in bibtex
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


# ---- plain English: phrases and headings over which readers stumble

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
MODULES = sorted(path for folder in ("rdlib", "scripts", "bench") for path in (REPOSITORY / folder).rglob("*.py"))
PROFILES = [*sorted((REPOSITORY / "params").rglob("*.yaml")), REPOSITORY / "rdlib/evidence/exhibits.yaml"]
ADDED = sorted((REPOSITORY / "docs/_templates").glob("*.j2"))


def found(text: str) -> list[str]:
    """The banned phrases in a text."""
    return BANNED.findall(" ".join(text.split()))


def plain(markdown: str) -> str:
    """A page without code and the addresses of links."""
    markdown = re.sub(r"^ *```.*?^ *```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"`[^`\n]*`", "", markdown))


def texts_of(path: Path) -> list[str]:
    """What people read of a file: a page or a notebook's text, messages and comments of code, a profile's comments."""
    if path.suffix == ".ipynb":
        return [plain(cell.source) for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return [text if path.stem == "exhibits" else " ".join(re.findall(r"(?:^|\s)# ?(.*)", text))]
    if path.suffix != ".py":
        return [plain(text)]
    strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    read = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = enumerate(one for one in read if one.type == tokenize.COMMENT)
    blocks = groupby(comments, lambda pair: pair[1].start[0] - pair[0])  # those on consecutive lines
    return strings + [" ".join(comment.string.strip("# ") for _, comment in block) for _, block in blocks]


@pytest.mark.parametrize(
    "path", [*DOCS, *ADDED, *MODULES, *NOTEBOOKS, *PROFILES], ids=lambda path: path.relative_to(REPOSITORY).as_posix()
)
def test_what_people_read_is_in_plain_english(path):
    texts = texts_of(path)
    assert [phrase for text in texts for phrase in found(text)] == [] and (texts or path.suffix == ".py")
    headings = re.findall(r"^#+ (.+)$", "\n".join(texts), re.MULTILINE) if path.suffix == ".md" else []
    assert [one for one in headings if CLAUSE.match(one) and not one.endswith("?")] == [], "a noun or a question"


def test_the_help_of_make_is_in_plain_english():
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "make study" in shown and found(shown) == []


def test_phrases_are_found_across_lines_and_only_as_whole_words():
    assert found("What is behind\nrests on it, Held to 0.") == ["behind", "rests on", "Held to"]
    assert found("Amendments depend on the threshold; most are at the mostly harmless end.") == []
    assert found("A teacher behind an OpenAI-compatible server, behind one interface.") == []
