"""Part c: a whole seed of the micro study, from what its run wrote down: nothing is run here.

`rdlib.study.dag` measures a seed that it runs from nothing (results/seed<k>/measured.json: minutes, minutes of a
core). The executed notebooks say how long each ran and how long each of its cells took, the stages' manifests how long
each stage took. The time of the jobs' places (two, for two jobs at a time) is split into

    stages       what their manifests say
    notebooks    all other cells: tables, plots, examples
    start-up     in a notebook's time, what is in no cell (a fork, the kernel, papermill), and its first import cell
    idle         the rest: no job in the place (scheduling, waiting for other jobs, the study's own start)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.report import Row, Skipped
from rdlib import artifacts
from rdlib.paths import ROOT

RUNS = ROOT / "runs" / "micro"
PLACES = 2


@dataclass(frozen=True)
class Notebook:
    """Seconds of one executed notebook: all of it, and its cells but the first that imports."""

    total: float
    working: float

    @property
    def start_up(self) -> float:
        """Seconds before and between the cells that work."""
        return self.total - self.working


def read_notebook(path: Path) -> Notebook:
    """The times that papermill noted."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    first = next(n for n, cell in enumerate(cells) if "import " in "".join(cell["source"]))
    working = sum(cell["metadata"]["papermill"]["duration"] or 0.0 for cell in cells[first + 1 :])
    return Notebook(content["metadata"]["papermill"]["duration"], working)


def notebooks_of(runs: Path, seed: int, questions: bool) -> list[Notebook]:
    """The executed notebooks of one seed."""
    paths = [p for p in runs.rglob("*.ipynb") if f"seed{seed}" in p.parts]
    paths += [runs / "12_paper_tables_and_figures.ipynb"]
    return [read_notebook(p) for p in paths if questions or not p.name.startswith("13_")]


def stage_seconds(runs: Path, seed: int, questions: bool) -> pd.Series:
    """Seconds by kind of stage: the study's are in its table of costs, the questions' only in their manifests."""
    if questions:
        manifests = [artifacts.read_json(p) for p in runs.rglob(artifacts.MANIFEST) if f"seed{seed}" in p.parts]
        table = pd.DataFrame([(m["stage"], m["seconds"]) for m in manifests], columns=["stage", "seconds"])
    else:
        table = pd.read_csv(runs / "results" / f"seed{seed}" / "costs.csv")
    return table.groupby("stage")["seconds"].sum().sort_values(ascending=False)


def run(rounds: int, quick: bool) -> list[Row]:
    """The newest seed that was measured with its core minutes."""
    found = [(path, artifacts.read_json(path)) for path in RUNS.glob("results/seed*/measured.json")]
    found = [(path, measured) for path, measured in found if "cpu_minutes" in measured]
    if not found:
        raise Skipped("No seed in runs/micro was run from nothing and measured: `make study` in a fresh checkout.")
    path, measured = max(found, key=lambda pair: pair[0].stat().st_mtime)
    seed = int(path.parent.name.removeprefix("seed"))
    questions = measured["questions"]
    return rows_of(measured, notebooks_of(RUNS, seed, questions), stage_seconds(RUNS, seed, questions), seed)


def rows_of(measured: dict, notebooks: list[Notebook], stages: pd.Series, seed: int) -> list[Row]:
    """Wall time, use of the cores, and how the places' time was spent."""
    wall, used = 60 * measured["minutes"], 60 * measured["cpu_minutes"]
    places = PLACES * wall
    start_up, total = (sum(getattr(n, name) for n in notebooks) for name in ("start_up", "total"))
    what = f"make study, seed {seed}" + (" with the reviewers' questions" if measured["questions"] else "")
    each = f"{start_up / len(notebooks):.1f} s a notebook"
    shares = ", ".join(f"{name} {100 * seconds / stages.sum():.0f} %" for name, seconds in stages.items())

    def row(result: str, value: float, unit: str, *aim, **more) -> Row:
        return Row("c", f"{what}: {result}", value, value, value, unit, *aim, **more)

    return [
        row("wall time", measured["minutes"], "min", settings=f"{measured['jobs']} jobs, {PLACES} at a time"),
        row("two cores busy", 100 * used / places, "%", 90.0, settings="time of a core used by the study's processes"),
        row("start-up of notebooks", 100 * start_up / places, "%", 10.0, True, settings=each),
        row("places without a job", 100 * (1 - total / places), "%", settings="scheduling, waiting for other jobs"),
        row("work in stages", 100 * stages.sum() / places, "%", settings=shares),
        row("tables and plots in notebooks", 100 * (total - start_up - stages.sum()) / places, "%"),
    ]
