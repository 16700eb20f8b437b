"""The table and the plot of an experiment that has no exhibits of its own: what notebook 14 shows.

    one, runs = finished("params/mine.yaml:two_arms", "params/smoke.yaml", [0])
    table = report(one, runs)      # a row a cell, measure and arm, with its gain over the arm compared with
    save(one, table, folder)       # experiment_two_arms.csv, .md, .pdf and .png

By its last stage an arm has its accuracy on the test questions (07_evaluate), its agreement on validation questions
(13_validation_answers), the AUCs of its reward model (05_reward_model), or its best validation value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rdlib.errors import UserError
from rdlib.evidence import gallery, looks, stats, tables
from rdlib.evidence.plots import draw_dots
from rdlib.evidence.result_tables import AGREEMENT, open_results
from rdlib.evidence.stats import Interval
from rdlib.study import experiments, results
from rdlib.study.experiments import Experiment, Run

NAMES, VALUE, GAIN = ["cell", "measure", "arm", "level"], ["value", "low", "high"], ["gain", "gain_low", "gain_high"]
COLUMNS = [*NAMES, *VALUE, "n", "best_step", "seeds", *GAIN]
AUCS = {"Pos/Neg AUC": "pos_neg", "Pos/Pos AUC": "pos_pos"}
VOTED = {"held-out": AGREEMENT, "validation": "validation agreement"}
NOTE = (
    "95 % intervals: over questions and, with several seeds, over seeds; of a best validation value over seeds alone. "
    "`best_step` is the optimizer step of the checkpoint kept, averaged over seeds."
)
PALETTE = (looks.BLUE, looks.ORANGE, looks.GREEN, looks.VERMILION, looks.PURPLE, looks.SKY, looks.OLIVE, looks.WINE)
MARKERS = "osD^vP*X"
# Of an arm's rows, those of the reference (none of it), and the measure: the value, and what the arm gains
Compare = Callable[[pd.DataFrame, pd.DataFrame, str], tuple[Interval, Interval | None]]


def finished(name: str, profile: str, seeds: Sequence[int]) -> tuple[Experiment, list[Run]]:
    """An experiment, by its name on the command line, and its runs, gathered; UserError where one is not done."""
    path, (one,) = experiments.settled([name], profile, seeds)
    runs = experiments.runs(one, path, one.seeds)
    for run in runs:
        run.stage.require()
    results.collect(path, one.seeds, [one])
    return one, runs


def report(one: Experiment, runs: Sequence[Run]) -> pd.DataFrame:
    """A row a cell, measure and arm: COLUMNS; GAIN, with a reference, is the arm minus the reference (paired)."""
    name, seeds = results.name_of(one), sorted({run.stage.seed for run in runs})
    evidence = open_results(results.results_folder(runs[0].stage.profile_path), seeds)
    scores, trainings = (evidence.rows(kind, name, by_run=True) for kind in ("scores", "trainings"))
    scores = tables.select(scores, last=True, stage="05_reward_model")
    trainings = tables.select(trainings, last=True).assign(measure="best validation agreement (%)")
    read = {
        _shares: _judged(evidence.rows("answers", name, moment="kept")),
        _aucs: pd.concat([scores.assign(measure=measure) for measure in AUCS], ignore_index=True),
        _bests: trainings[trainings["stage"] != "05_reward_model"],
    }
    rows = [row for compare, table in read.items() for row in _rows(table, compare)]
    if not rows:
        raise UserError(
            f"{one.key} ends with a stage that has no measure to tabulate: its notebooks show what it made."
        )
    cells = list(dict.fromkeys(run.cell for run in runs))
    table = pd.DataFrame(sorted(rows, key=lambda row: cells.index(row["cell"])))
    return table[[name for name in COLUMNS if name in table and not table[name].isna().all()]]


def _judged(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers that are right or wrong, by gold or by the vote of the cell's teacher, with the name of the measure."""
    tested = tables.select(answers, split="test")
    tested = tested.assign(measure="accuracy on " + tested["benchmark"] + " (%)")
    voted = answers[answers["split"].isin(VOTED)].dropna(subset="agrees")
    voted = voted[voted["teacher"] == voted["cell"].str.split("/").str[1]]
    voted = voted.assign(correct=voted["agrees"], measure=voted["split"].map(VOTED) + " (%)")
    return pd.concat([tested, voted], ignore_index=True).astype({"correct": bool})


def _rows(table: pd.DataFrame, compare: Compare) -> list[dict]:
    """A row a cell, measure and arm, compared with the reference: that of its own level where there is one."""
    rows = []
    for key, own in table.groupby(NAMES, sort=False, dropna=False):
        names = dict(zip(NAMES, key, strict=True))
        references = tables.select(table, cell=names["cell"], measure=names["measure"], reference=True)
        alike = references[references["level"] == names["level"]]
        rival = references[:0] if own["reference"].any() else alike if len(alike) else references
        value, gain = compare(own, rival, names["measure"])
        row = names | {"n": value.n, "seeds": own["seed"].nunique()}
        scale = 100 if names["measure"].endswith("(%)") else 1
        for found, columns in ((value, VALUE), (gain, GAIN)):
            if found:
                ends = (found.estimate, found.low, found.high)
                row |= {name: scale * end for name, end in zip(columns, ends, strict=True)}
        rows.append(row | ({"best_step": own["best_step"].mean()} if "best_step" in own else {}))
    measures = list(dict.fromkeys(table["measure"]))
    return sorted(rows, key=lambda row: measures.index(row["measure"]))


def _shares(own: pd.DataFrame, rival: pd.DataFrame, measure: str) -> tuple[Interval, Interval | None]:
    gain = stats.paired_difference(own, rival, measure).interval() if len(rival) else None
    return stats.accuracy_interval(own, measure), gain


def _aucs(own: pd.DataFrame, rival: pd.DataFrame, measure: str) -> tuple[Interval, Interval | None]:
    ids = sorted({*own["id"], *rival["id"]})
    mine, theirs = (stats.auc_draws(side, AUCS[measure], own["cell"].iloc[0], ids) for side in (own, rival))
    return mine.interval(), (mine - theirs).interval() if len(rival) else None


def _bests(own: pd.DataFrame, rival: pd.DataFrame, measure: str) -> tuple[Interval, Interval | None]:
    mine, theirs = (side.set_index("seed")["best"] for side in (own, rival))
    gains = (mine - theirs).dropna()
    return stats.seed_interval(mine), stats.seed_interval(gains) if len(gains) else None


# ---- what is shown


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A report with each value and its interval as one text: tenths of a per cent, thousandths of an AUC."""
    shown = table[[name for name in NAMES if name in table]].copy()
    for parts, sign in ((VALUE, ""), (GAIN, "+")):
        if parts[0] in table:
            numbers = table.reindex(columns=["measure", *parts]).itertuples(index=False)
            shown[f"{parts[0]} [95 % CI]"] = [_interval(*one, sign) for one in numbers]
    rest = [name for name in ("n", "best_step", "seeds") if name in table]
    return shown.join(table[rest].astype({"best_step": int} if "best_step" in rest else {}))


def _interval(measure: str, value: float, low: float, high: float, sign: str) -> str:
    form = f"{sign}.1f" if measure.endswith("(%)") else f"{sign}.3f"
    if pd.isna(value):
        return ""
    return f"{value:{form}}" if pd.isna(low) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


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
        return paths + gallery.save(plot(table), stem)
