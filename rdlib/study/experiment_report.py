"""The table and the plot of an experiment that has no exhibits of its own: what notebook 14 shows.

    one, runs = finished("params/mine.yaml:two_arms", "params/smoke.yaml", [0])
    table = report(one, runs)      # a row a cell, measure and arm, with its gain over the arm compared with
    save(one, table, folder)       # experiment_two_arms.csv, .md, .pdf and .png

By its last stage an arm has its accuracy on the test questions (07_evaluate), its agreement on validation questions
(13_validation_answers), the AUCs of its reward model (05_reward_model), or its best validation value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rdlib.errors import UserError
from rdlib.evidence import exhibit, looks, stats, tables
from rdlib.evidence.plots import draw_dots
from rdlib.evidence.stats import Interval
from rdlib.method.metrics import COMPARISONS
from rdlib.study import experiments, results
from rdlib.study import rows as stage_rows
from rdlib.study.experiments import Experiment, Run

COLUMNS = ["cell", "measure", "arm", "level", "value", "low", "high", "n", "best_step", "seeds"]
GAIN = ["gain", "gain_low", "gain_high"]
AUC_NAMES = {"pos_neg": "Pos/Neg AUC", "pos_pos": "Pos/Pos AUC"}
NOTE = (
    "95 % intervals: over questions and, with several seeds, over seeds; of a best validation value over seeds alone. "
    "`best_step` is the optimizer step of the checkpoint kept, averaged over seeds."
)
PALETTE = (looks.BLUE, looks.ORANGE, looks.GREEN, looks.VERMILION, looks.PURPLE, looks.SKY, looks.OLIVE, looks.WINE)
MARKERS = "osD^vP*X"


def finished(name: str, profile: str, seeds: Sequence[int]) -> tuple[Experiment, list[Run]]:
    """An experiment, by its name on the command line, and its runs, gathered; UserError where one is not done."""
    path, (one,) = experiments.settled([name], profile, seeds)
    runs = experiments.runs(one, path, one.seeds)
    for run in runs:
        run.stage.require()
    results.collect(path, one.seeds, [one])
    return one, runs


def report(one: Experiment, runs: Sequence[Run]) -> pd.DataFrame:
    """A row a cell, measure and arm: COLUMNS, and with a reference GAIN, the arm minus the reference (paired)."""
    rows = []
    for cell in dict.fromkeys(run.cell for run in runs):
        for kind, measure in MEASURES.items():
            found = [run for run in runs if run.cell == cell and run.stage.name in kind]
            rows += [{"cell": cell} | row for row in measure(found)] if found else []
    if not rows:
        raise UserError(
            f"{one.key} ends with a stage that has no measure to tabulate: its notebooks show what it made."
        )
    table = pd.DataFrame(rows).sort_values(["cell", "measure"], kind="stable", ignore_index=True, key=_place)
    return table[[name for name in (*COLUMNS, *GAIN) if name in table and not table[name].isna().all()]]


def _place(column: pd.Series) -> pd.Series:
    """The place of each value, in the order in which they come up."""
    return pd.Series(pd.factorize(column)[0], column.index)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A report with each value and its interval as one text: tenths of a per cent, thousandths of an AUC."""
    places = [1 if measure.endswith("(%)") else 3 for measure in table["measure"]]
    shown = table[[name for name in COLUMNS[:4] if name in table]].copy()
    for parts, sign in ((COLUMNS[4:7], ""), (GAIN, "+")):
        if parts[0] in table:
            columns = [table.get(part, pd.Series(None, table.index)) for part in parts]
            texts = [_interval(*numbers, sign) for numbers in zip(*columns, places, strict=True)]
            shown[f"{parts[0]} [95 % CI]"] = texts
    rest = [name for name in ("n", "best_step", "seeds") if name in table]
    return shown.join(table[rest].astype({"best_step": int} if "best_step" in rest else {}))


def _interval(value: float, low: float, high: float, places: int, sign: str) -> str:
    if pd.isna(value):
        return ""
    ends = "" if pd.isna(low) else f" [{low:{sign}.{places}f}, {high:{sign}.{places}f}]"
    return f"{value:{sign}.{places}f}{ends}"


def _by_arm(runs: Sequence[Run]) -> Iterator[tuple[dict, list[Run], list[Run]]]:
    """(names of an arm, its runs, those of the reference it is compared with: of its own level where there is one)."""
    references = [run for run in runs if run.reference]
    for arm, level in dict.fromkeys((run.arm, run.level) for run in runs):
        own = [run for run in runs if (run.arm, run.level) == (arm, level)]
        alike = [run for run in references if run.level == level] or references
        yield {"arm": arm, "level": level}, own, [] if own[0].reference else alike


def _row(names: dict, measure: str, value: Interval, gain: Interval | None, runs: Sequence[Run], scale: int) -> dict:
    row = names | {"measure": measure, "n": value.n, "seeds": len({run.stage.seed for run in runs})}
    row |= {"value": scale * value.estimate, "low": scale * value.low, "high": scale * value.high}
    return row | (
        dict(zip(GAIN, (scale * gain.estimate, scale * gain.low, scale * gain.high), strict=True)) if gain else {}
    )


def _shares(runs: Sequence[Run], read: Callable[[Run], pd.DataFrame]) -> list[dict]:
    """Rows of shares of right answers; `read` gives benchmark (the measure's name), id and correct."""
    answers = {id(run): read(run).assign(seed=run.stage.seed) for run in runs}
    rows = []
    for names, own, others in _by_arm(runs):
        mine = pd.concat([answers[id(run)] for run in own])
        theirs = pd.concat([answers[id(run)] for run in others]) if others else mine[:0]
        for benchmark, part in mine.groupby("benchmark", sort=False):
            rival = theirs[theirs["benchmark"] == benchmark]
            gain = stats.paired_difference(part, rival, benchmark).interval() if len(rival) else None
            rows.append(_row(names, benchmark, stats.accuracy_interval(part, benchmark), gain, own, 100))
    return rows


def _accuracies(runs: Sequence[Run]) -> list[dict]:
    def read(run: Run) -> pd.DataFrame:
        """The judged answers of a run; the vote's benchmark says that it is one."""
        table = stage_rows.judged(run.stage)[["benchmark", "id", "correct"]]
        names = {name: name if " " in name else f"accuracy on {name}" for name in table["benchmark"].unique()}
        return table.assign(benchmark=table["benchmark"].map(names) + " (%)")

    return _shares(runs, read)


def _agreements(runs: Sequence[Run]) -> list[dict]:
    def read(run: Run) -> pd.DataFrame:
        """The answers of a run to validation questions that have a label."""
        table = run.stage.table("answers").dropna(subset="agrees")
        return table[["id"]].assign(correct=table["agrees"].astype(bool), benchmark="validation agreement (%)")

    return _shares(runs, read)


def _aucs(runs: Sequence[Run]) -> list[dict]:
    scores = {id(run): run.stage.table("scores").assign(seed=run.stage.seed) for run in runs}
    rows = []
    for names, own, others in _by_arm(runs):
        mine = pd.concat([scores[id(run)] for run in own])
        theirs = pd.concat([scores[id(run)] for run in others]) if others else None
        for comparison in COMPARISONS:
            ids = sorted(set(mine["id"]) | (set(theirs["id"]) if others else set()))
            value = stats.auc_draws(mine, comparison, runs[0].cell, ids)
            gain = (value - stats.auc_draws(theirs, comparison, runs[0].cell, ids)).interval() if others else None
            rows.append(_row(names, AUC_NAMES[comparison], value.interval(), gain, own, 1))
    return rows


def _bests(runs: Sequence[Run]) -> list[dict]:
    ended = {id(run): stage_rows.ending(run.stage) for run in runs}
    rows = []
    for names, own, others in _by_arm(runs):
        value = stats.seed_interval([ended[id(run)]["best"] for run in own])
        rival = {run.stage.seed: ended[id(run)]["best"] for run in others}
        pairs = [ended[id(run)]["best"] - rival[run.stage.seed] for run in own if run.stage.seed in rival]
        gain = stats.seed_interval(pairs) if pairs else None
        steps = sum(ended[id(run)]["best_step"] for run in own) / len(own)
        rows.append(_row(names, "best validation agreement (%)", value, gain, own, 100) | {"best_step": steps})
    return rows


MEASURES = {
    ("07_evaluate",): _accuracies,
    ("13_validation_answers",): _agreements,
    ("05_reward_model",): _aucs,
    ("03_sft_warmup", "06_ppo", "13_baseline"): _bests,
}


def plot(table: pd.DataFrame) -> Figure:
    """A panel a cell and measure, a dot an arm with its 95 % interval."""
    levels = table["level"] if "level" in table else pd.Series(float("nan"), table.index)
    rows = [arm if pd.isna(level) else f"{arm} ({level:g})" for arm, level in zip(table["arm"], levels, strict=True)]
    shown = table.assign(row=rows, look=rows, panel=table["cell"] + "\n" + table["measure"])
    known = {
        row: looks.Look(row, color, marker)
        for row, color, marker in zip(dict.fromkeys(rows), cycle(PALETTE), cycle(MARKERS), strict=False)
    }
    count = shown["panel"].nunique()
    columns = min(3, count)
    height = (0.9 + 0.28 * len(known)) * -(-count // columns) + 0.2
    figure = looks.blank(2.2 + 2.2 * columns, height)
    interval = ("low", "high") if "low" in table else None  # one seed's best value has none
    draw_dots(figure, shown, "value", "look", known, interval=interval, columns=columns, dodged=False)
    return figure


def save(one: Experiment, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the table (CSV, Markdown) and the plot (PDF, PNG) to a folder; returns the paths, the plot's last."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"experiment_{one.name}"
    against = f" The gain is that over “{one.reference}”, paired by question or seed." if one.reference else ""
    paths = [tables.write_csv(table, stem.with_suffix(".csv"))]
    paths.append(tables.write_markdown(readable(table), stem.with_suffix(".md"), one.title, NOTE + against))
    with looks.style():
        return paths + exhibit.save(plot(table), stem)
