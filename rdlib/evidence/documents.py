"""README.md, pages of docs/ with numbers, codemeta.json and .zenodo.json: `python -m rdlib documents` (`make docs`).

A person writes docs/templates/PAGE.md.j2, and this fills in numbers and writes docs/PAGE.md (README.md.j2: README.md).
A template is Markdown with Jinja's placeholders (`rdlib.evidence.prose`):

    {% set c1 = table("claims", claim="C1") %}
    Ours minus SFT is {{ c1.mean_difference | pp(c1.low, c1.high) }}.

`table("claims", ...)` has the rows of figures/claims.csv. `table("docs/memory.csv")` has those of another file, and a
pattern those of all files that match. Names in `COMPUTED` are tables that a function computes. A Markdown table is a
loop over its rows. docs/templates/models/each.md.j2 is filled for each embedded model, as docs/models/NAME.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import card_tables, citation, convergence, gallery, gpu_rows, paper, prose
from rdlib.evidence.prose import Rows
from rdlib.evidence.result_tables import QUESTIONS, Evidence, every_seed, origin, seed_folders, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile

TEMPLATES, ENDING = Path("docs/templates"), ".j2"
NOTE = "<!-- Written from {} by `make docs`: edit that file. -->\n"
MODEL = "models/each.md"  # the template of a model's card
METADATA = "---\n"  # the line before and after the metadata of a card
TRIALS = Path("params/trials.yaml")
PATIENCES = (96, 128, 160, 192, 256, 320, 384)  # optimizer steps
# What `bench/machines.csv` calls a released seed too
STUDY, WHOLE = "a released seed, the study alone", "a released seed, study and reviewers' questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("--check", action="store_true", help="write nothing; an error where a page is out of date")


def run(options: argparse.Namespace) -> None:
    """Write every page that has a template, or say which are out of date."""
    found = rendered(ROOT)
    stale = [path for path, text in found.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if options.check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        raise UserError(f"Not as their templates say: {names}. Run `make docs`.")
    for path in stale:
        artifacts.write_bytes(path, found[path].encode())


def pages(root: Path = ROOT) -> list[Path]:
    """README.md and all pages of docs/, with a template and without."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def rendered(root: Path) -> dict[Path, str]:
    """The text of every file that is written here; UserError with a line for each template that cannot be filled."""
    found, errors, table = citation.files(root), [], tables_of(root)
    for template in sorted((root / TEMPLATES).rglob(f"*.md{ENDING}")):
        source = template.relative_to(root).as_posix()
        for path, values in _targets(root, template):
            try:
                text = prose.fill(template.read_text(encoding="utf-8"), source, table=table, **values)
            except UserError as error:
                errors.append(str(error))
            else:
                found[path] = _noted(text, NOTE.format(source))
    if errors:
        raise UserError("\n".join(errors))
    return found


def _targets(root: Path, template: Path) -> list[tuple[Path, dict[str, str]]]:
    """The files that a template becomes, each with values of its own."""
    name = template.relative_to(root / TEMPLATES).as_posix().removesuffix(ENDING)
    if name == MODEL:
        return [(root / f"docs/models/{one}.md", {"model": one}) for one in card_tables.models(root)["name"]]
    return [(root / name if name == "README.md" else root / "docs" / name, {})]


def _noted(text: str, note: str) -> str:
    """A page with the note of where it comes from, at its top or under the metadata that a card begins with."""
    if not text.startswith(METADATA):
        return note + text
    metadata, body = text.removeprefix(METADATA).split(METADATA, 1)
    return METADATA + metadata + METADATA + note + body


# ---- tables


def tables_of(root: Path) -> Callable[..., Rows]:
    """`table(name, query, **values)` of templates: rows of a released table, of a CSV file or of a computed table."""
    read: dict[str, Rows] = {}

    def table(name: str, query: str = "", /, **equal: Any) -> Rows:
        """The rows of a table that a query and values of columns choose."""
        if name not in read:
            read[name] = _read(root, name)
        return read[name].where(query, **equal)

    return table


def _read(root: Path, name: str) -> Rows:
    if name in COMPUTED:
        return Rows(COMPUTED[name](root), f"the table {name!r}")
    path = name if name.endswith(".csv") else f"figures/{name}.csv"
    paths = sorted(root.glob(path)) if "*" in path else [root / path]
    return Rows(pd.concat(map(_csv, paths), ignore_index=True), path)


def _csv(path: Path, **types: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=types or None)
    except FileNotFoundError:
        message = f"there is no {path.name} in {path.parent.name}/: `make figures` draws the released tables."
        raise UserError(message) from None


def runs(root: Path) -> pd.DataFrame:
    """What each command took: command, notebooks, minutes and machines, a row a run.

    Released seeds (measured.json beside their results, whose sizes may be of another version) and bench/machines.csv.
    """
    rows = []
    for folder, measured in _measured(root).items():
        made = origin(folder)["environment"]
        command = WHOLE if measured.get("questions", False) else STUDY
        rows.append((command, measured["jobs"], measured["minutes"], made.get("processor", made["machine"])))
    for row in _csv(root / "bench/machines.csv", beside=str).fillna({"beside": ""}).itertuples():
        machine = f"{row.processor}, {row.beside}" if row.beside else row.processor
        rows.append((row.command, row.notebooks, row.minutes, machine))
    table = pd.DataFrame(rows, columns=["command", "notebooks", "minutes", "machine"])
    return table.assign(least=table.groupby("command")["minutes"].transform("min")).sort_values(["least", "minutes"])


def measured(root: Path) -> pd.DataFrame:
    """Minutes, memory and disk of each released seed that was measured."""
    return pd.DataFrame(_measured(root).values())


def _measured(root: Path) -> dict[Path, dict[str, Any]]:
    paths = sorted((root / "figures/results").glob("seed*/measured.json"))
    return {path.parent: json.loads(path.read_text()) for path in paths}


def seeds(root: Path) -> pd.DataFrame:
    """The released seeds, and whether they have answered the reviewers' questions."""
    folders = seed_folders(root / "figures/results")
    return pd.DataFrame([{"seed": seed_of(f), "questions": origin(f, QUESTIONS) is not None} for f in folders])


def trials(root: Path) -> pd.DataFrame:
    """The trials of settings, with the experiment's question, and `chosen` where it is what the profile has now."""
    profile = load_profile(root / _trials(root)["profile"]).model_dump()
    parts = []
    for one, table in _tried(root, "trainings"):
        settings = table["trial"].map({arm: given.get("settings", {}) for arm, given in one["arms"].items()})
        chosen = [all(paper.lookup(profile, key) == value for key, value in given.items()) for given in settings]
        parts.append(table.assign(question=one["title"], chosen=chosen))
    return pd.concat(parts, ignore_index=True)


def patience(root: Path) -> pd.DataFrame:
    """What the trials would have reached with each patience they had or a shorter one: best and steps, means."""
    parts = []
    for one, table in _tried(root, "curves"):
        others = table["agreement"].fillna(table["pos_neg_auc"])  # of PPO the agreement is that of rollouts
        value = others.where(table["stage"] != "06_ppo", table["validation_agreement"])
        curves = table.assign(value=value).dropna(subset="value")
        shorter = [steps for steps in PATIENCES if steps <= convergence.patience_of(curves)]
        parts.append(convergence.patience_table(curves, shorter).assign(question=one["title"]))
    return pd.concat(parts, ignore_index=True)


def _trials(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / TRIALS).read_text(encoding="utf-8"))


def _tried(root: Path, kind: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(experiment, rows of the last stages of its runs, which are called trials) of each experiment of the trials."""
    evidence = Evidence(tuple(every_seed(root / "figures/results")))
    for name, one in _trials(root)["experiments"].items():
        table = evidence.rows(kind, f"trials:{name}", by_run=True)
        yield one, table[table["last"]].rename(columns={"arm": "trial"})


def bench(root: Path) -> pd.DataFrame:
    """The benchmarks' results, with where and when each part was measured."""
    parts = []
    for path in sorted((root / "bench/results").glob("?.csv")):
        made = json.loads(path.with_suffix(".json").read_text())
        clock = "" if made["clock"] == "wall" else f", {made['clock']} seconds"
        commit = made["commit"][:7] + ", with changes" * made["dirty"]
        where = f"{made['processor']}, {made['machine']}, commit {commit}, {made['started'][:10]}{clock}"
        parts.append(_csv(path, met=str).assign(measured_on=where))
    return pd.concat(parts, ignore_index=True)


def exhibits(root: Path) -> pd.DataFrame:
    """Every released table and figure in its order: name, title, and the file that shows it."""
    rows = [(one.name, one.title, f"{one.name}{'.png' if one.draw else '.md'}") for one in gallery.EXHIBITS.values()]
    table = pd.DataFrame(rows, columns=["name", "title", "file"])
    return table[[(root / "figures" / file).is_file() for file in table["file"]]]


def forgotten(root: Path) -> pd.DataFrame:
    """By benchmark, how accuracy varies with the step that supervised fine-tuning kept."""
    return convergence.within_cells(_csv(root / "figures/figure_kept_step.csv"))


COMPUTED = {one.__name__: one for one in (runs, measured, seeds, trials, patience, bench, exhibits, forgotten)}
COMPUTED |= {one.__name__: one for one in (gpu_rows.cards, gpu_rows.card_rows, *card_tables.TABLES)}
