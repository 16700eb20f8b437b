"""README.md, pages of docs/ with numbers, codemeta.json and .zenodo.json: `python -m rdlib documents` (`make docs`).

A person writes docs/templates/PAGE.md.j2, and this fills in numbers and writes docs/PAGE.md. A template is Markdown
with Jinja's placeholders:

    {% set c1 = table("claims", claim="C1") %}
    Ours minus SFT is {{ c1.mean_difference | pp(c1.low, c1.high) }}.
    {% do expect(c1.low > 0) %}

`table("claims", ...)` has the rows of figures/claims.csv. `table("docs/memory.csv")` has those of another file, and a
pattern those of all files that match. Names in `COMPUTED` are tables that a function of the repository's root computes.
`content("CITATION.cff")` is what a file of YAML or TOML has. models/each.md.j2 is filled for each embedded model.

A missing number is an error: an unknown name or column, an empty value, or no single row where one is asked for.
`expect` writes nothing. It is an error where new results contradict the sentence beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache, partial
from numbers import Real
from pathlib import Path
from traceback import walk_tb
from typing import Any

import jinja2
import pandas as pd
import yaml

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import card_tables, convergence, gallery, gpu_rows, looks, paper, tables
from rdlib.evidence.result_tables import QUESTIONS, Evidence, every_seed, origin, seed_folders, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile

TEMPLATES, ENDING = Path("docs/templates"), ".j2"
TOP = {"README.md": "README.md", "codemeta.json": "codemeta.json", "zenodo.json": ".zenodo.json"}  # beside docs/
NOTE = "<!-- Written from {} by `make docs`: edit that file. -->\n"
MODEL = "models/each.md"  # the template of a model's card
METADATA = "---\n"  # the line before and after the metadata of a card
TRIALS = "params/trials.yaml"
PATIENCES = (96, 128, 160, 192, 256, 320, 384)  # optimizer steps
# What `bench/machines.csv` calls a released seed too
STUDY, WHOLE = "a released seed, the study alone", "a released seed, study and reviewers' questions"
WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()


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


def rendered(root: Path) -> dict[Path, str]:
    """The text of every file that is written here; UserError with a line for each template that cannot be filled."""
    found, errors = {}, []
    common = {"table": tables_of(root), "content": partial(_content, root)}
    for template in sorted((root / TEMPLATES).rglob(f"*{ENDING}")):
        source = template.relative_to(root).as_posix()
        for path, values in _targets(root, template):
            try:
                text = fill(template.read_text(encoding="utf-8"), source, **common, **values)
            except UserError as error:
                errors.append(str(error))
            else:
                found[path] = _finished(text, path, NOTE.format(source))
    if errors:
        raise UserError("\n".join(errors))
    return found


def _targets(root: Path, template: Path) -> list[tuple[Path, dict[str, str]]]:
    """The files that a template becomes, each with values of its own."""
    name = template.relative_to(root / TEMPLATES).as_posix().removesuffix(ENDING)
    if name == MODEL:
        return [(root / f"docs/models/{one}.md", {"model": one}) for one in card_tables.models(root)["name"]]
    return [(root / TOP.get(name, f"docs/{name}"), {})]


def _finished(text: str, path: Path, note: str) -> str:
    """A page with the note of where it comes from, under the metadata that a card begins with; YAML as JSON."""
    if path.suffix == ".json":
        return json.dumps(yaml.safe_load(text), indent=2, ensure_ascii=False) + "\n"
    if not text.startswith(METADATA):
        return note + text
    _, metadata, body = text.split(METADATA, 2)
    return METADATA + metadata + METADATA + note + body


def _content(root: Path, name: str | Path) -> dict[str, Any]:
    """What a file of YAML, JSON or TOML has."""
    text = (root / name).read_text(encoding="utf-8")
    return tomllib.loads(text) if str(name).endswith(".toml") else yaml.safe_load(text)


# ---- templates


def expect(holds: bool) -> str:
    """Nothing where a condition holds; UserError where results contradict the sentence that it stands beside."""
    if not holds:
        raise UserError("the results contradict this sentence: look at the numbers and rewrite it.")
    return ""


def fill(text: str, where: str, **values: Any) -> str:
    """A template filled with values; UserError, with `where` and the line, for anything that is not there."""
    try:
        return _environment().from_string(text).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: {error.message}") from None
    except (UserError, jinja2.UndefinedError, TypeError, ValueError, KeyError) as error:
        names = ("<template>", "<unknown>")  # Jinja's for a template that is not a file
        lines = [n for frame, n in walk_tb(error.__traceback__) if frame.f_code.co_filename in names]
        raise UserError(f"{where}, line {lines[-1] if lines else '?'}: {error}") from None


@cache
def _environment() -> jinja2.Environment:
    lines = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    undefined, extensions = jinja2.StrictUndefined, ["jinja2.ext.do"]
    made = jinja2.Environment(undefined=undefined, finalize=_shown, extensions=extensions, autoescape=False, **lines)
    made.filters |= {one.__name__: one for one in (pp, pct, ci, number, short, span, words, dash, method)}
    made.globals["expect"] = expect
    return made


def _shown(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError("a value is empty.")
    return value


# ---- filters


def pp(value: float, low: float | None = None, high: float | None = None, unit: str = "pp") -> str:
    """A difference with its unit, or with its interval too: +3.2 pp, +3.2 pp [+1.7, +4.7], -0.003 AUC."""
    if low is None:
        return tables.difference(_number(value), 0, 0, unit).partition(" [")[0]
    return tables.difference(_number(value), _number(low), _number(high), unit)


def pct(value: float, digits: int = 1) -> str:
    """A share in per cent: 48.9 %."""
    return f"{number(value, digits)} %"


def ci(value: float, low: float, high: float, digits: int = 1) -> str:
    """An estimate with its interval, without a unit: 98.5 [97.7, 99.2]."""
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def number(value: float, digits: int = 2) -> str:
    """A number with so many decimals and its thousands apart."""
    return f"{round(_number(value), digits) + 0.0:,.{digits}f}"


def short(value: float, none: str | None = None) -> str:
    """A number in three digits, whole above a thousand; `none` stands in place of an empty value."""
    if none is not None and pd.isna(value):
        return none
    return f"{_number(value):,.0f}" if abs(value) >= 1000 else f"{_number(value):.3g}"


def span(values: Iterable[float], digits: int | None = None) -> str:
    """The smallest and the largest of some values, as "20 to 30"; empty ones left out, two digits or whole numbers."""
    ends = sorted(value for value in values if not pd.isna(value))
    if not ends:
        raise UserError("there is no value to show.")
    forms = [f"{end:.2g}" if digits is None and end < 10 else f"{end:,.{digits or 0}f}" for end in (ends[0], ends[-1])]
    return " to ".join(dict.fromkeys(forms))


def words(value: int) -> str:
    """A whole number in a sentence: a word up to twelve."""
    return WORDS[int(value)] if _number(value) < len(WORDS) else short(value)


def dash(value: Any) -> Any:
    """A value that may be empty, which is shown as a dash."""
    return "-" if pd.isna(value) or value == "" else value


def method(name: str) -> str:
    """The name of a method as tables and figures show it."""
    return looks.BASELINE_NAMES.get(name) or looks.METHODS[name].label


def _number(value: float) -> float:
    if isinstance(value, jinja2.Undefined):
        value._fail_with_undefined_error()
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"a number is wanted and {value!r} found.")
    return float(value)  # numpy's own rounds 0.95 otherwise


# ---- tables


class Rows:
    """Rows of a table, walked one at a time; of a single row, `rows.column` is its value. `source` names the table.

    UserError for a column that there is not, and for the value of several rows.
    """

    def __init__(self, frame: pd.DataFrame, source: str):
        self._frame, self._source = frame, source

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[Rows]:
        return (Rows(self._frame.iloc[[i]], self._source) for i in range(len(self)))

    def __getitem__(self, column: str) -> Any:
        values = self.column(column).tolist()
        if len(values) != 1:
            raise UserError(f"{self._source} has {len(values)} such rows where one is asked for its {column!r}.")
        return values[0]

    def __getattr__(self, column: str) -> Any:
        if column.startswith("_"):
            raise AttributeError(column)
        return self[column]

    def where(self, query: str = "", **equal: Any) -> Rows:
        """The rows that pandas' `query` and each column's value choose; a text may have `*`, as cell="gsm/*"."""
        chosen = pd.Series(True, self._frame.index)
        for column, value in equal.items():
            values = self.column(column)
            if isinstance(value, str) and "*" in value:
                chosen &= values.fillna("").astype(str).map(partial(fnmatchcase, pat=value)).astype(bool)
            else:
                chosen &= (values == value).astype(bool)
        found = self._frame[chosen]
        return Rows(found.query(query) if query else found, self._source)

    def values(self, column: str) -> list[Any]:
        """The different values of a column, in the order in which they come."""
        return list(dict.fromkeys(self.column(column)))

    def column(self, name: str) -> pd.Series:
        """A column, to be summarised by pandas: `rows.column("gain").mean()`."""
        if name not in self._frame:
            raise UserError(f"{self._source} has no column {name!r}; its columns are {', '.join(self._frame)}.")
        return self._frame[name]


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
    listed = _csv(root / "bench/machines.csv", beside=str)
    listed["machine"] = listed["processor"] + (", " + listed["beside"]).fillna("")
    seeds = measured(root).rename(columns={"jobs": "notebooks"})
    seeds["command"] = seeds["questions"].map({True: WHOLE, False: STUDY})
    table = pd.concat([seeds, listed])[["command", "notebooks", "minutes", "machine"]]
    return table.assign(least=table.groupby("command")["minutes"].transform("min")).sort_values(["least", "minutes"])


def measured(root: Path) -> pd.DataFrame:
    """Minutes, memory and disk of each released seed that was measured, and its machine."""
    rows = []
    for path in sorted((root / "figures/results").glob("seed*/measured.json")):
        made = origin(path.parent)["environment"]
        rows.append({"questions": False} | _content(root, path) | {"machine": made.get("processor", made["machine"])})
    return pd.DataFrame(rows)


def seeds(root: Path) -> pd.DataFrame:
    """The released seeds, and whether they have answered the reviewers' questions."""
    folders = seed_folders(root / "figures/results")
    return pd.DataFrame([{"seed": seed_of(f), "questions": origin(f, QUESTIONS) is not None} for f in folders])


def trials(root: Path) -> pd.DataFrame:
    """The trials of settings, with the experiment's question, and `chosen` where it is what the profile has now."""
    profile, parts = load_profile(root / _content(root, TRIALS)["profile"]).model_dump(), []
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


def _tried(root: Path, kind: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(experiment, rows of the last stages of its runs, which are called trials) of each experiment of the trials."""
    evidence = Evidence(tuple(every_seed(root / "figures/results")))
    for name, one in _content(root, TRIALS)["experiments"].items():
        table = evidence.rows(kind, f"trials:{name}", by_run=True)
        yield one, table[table["last"]].rename(columns={"arm": "trial"})


def bench(root: Path) -> pd.DataFrame:
    """The benchmarks' results, with where and when each part was measured."""
    parts = []
    for path in sorted((root / "bench/results").glob("?.csv")):
        made = _content(root, path.with_suffix(".json"))
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
