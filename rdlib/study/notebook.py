"""Helpers that several notebooks share: setup, texts shown as plain text, a live plot, and stages side by side."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import DisplayHandle, Image, Markdown, display
from matplotlib.figure import Figure

from rdlib.errors import UserError
from rdlib.evidence import claims, gallery, looks, shown, tables
from rdlib.evidence.gallery import Exhibit, sentence_of
from rdlib.evidence.result_tables import Evidence
from rdlib.evidence.verdicts import Claim
from rdlib.settings import Model
from rdlib.study import warm
from rdlib.study.specification import METHODS, UNUSED
from rdlib.study.stage import Stage, variant_of
from rdlib.tasks.questions import read_questions

PROVIDERS_OWN = "the provider's own"
TEXT_STYLE = (
    "<style>.texts td, .texts th {text-align: left !important; white-space: pre-wrap; vertical-align: top}</style>"
)


def setup() -> None:
    """Figures in the report's style, a UserError as its one sentence, and the defaults of the environment.

    Call it before anything imports torch or tqdm, which read the environment once.
    """
    warm.set_environment()
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's advice to install widgets
    looks.use_style()
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((UserError,), _show_user_error)


def _show_user_error(shell, kind, error, _traceback, tb_offset=None) -> list[str]:
    """IPython's handler of a UserError: the cell fails with the message and no traceback."""
    lines = [f"{kind.__name__}: {error}"]
    shell._showtraceback(kind, error, lines)
    return lines


def texts(table: pd.DataFrame) -> dict[str, str]:
    """A table of questions and responses as an output of plain text: no markup, formula or control character works."""
    table = table.map(lambda value: shown.visible(value) if isinstance(value, str) else value)
    options = {"index": False, "na_rep": "-", "float_format": "{:.3g}".format}
    with pd.option_context("display.max_colwidth", None):
        markup = table.to_html(border=0, classes="texts tex2jax_ignore mathjax_ignore", **options)
        return {"text/html": TEXT_STYLE + markup, "text/plain": table.to_string(**options)}


def show_texts(table: pd.DataFrame) -> None:
    """Show a table as `texts` has it."""
    display(texts(table), raw=True)


def shown_temperatures(responses: pd.DataFrame) -> pd.Series:
    """The temperatures of responses for tables and axes; words where a provider sampled at its own."""
    temperatures = responses["temperature"]
    return temperatures if temperatures.notna().all() else temperatures.map("{:g}".format).replace("nan", PROVIDERS_OWN)


def show_claim(claim: Claim) -> None:
    """Show a judged claim: what its row of the table of claims has, a line each."""
    row = tables.rounded(claims.claims_table([claim])).iloc[0]
    known = row[row.notna() & (row.astype(str) != "")]
    show_texts(pd.DataFrame({"": known.index.str.replace("_", " "), " ": known.to_numpy()}))


def show_file(path: Path) -> None:
    """Show a finished table (.md) or figure (.png) of the report."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run this notebook's cell that draws the tables and figures first.")
    is_table = path.suffix == ".md"
    display(Markdown(path.read_text(encoding="utf-8")) if is_table else Image(filename=str(path), width=850))


def show_exhibits(evidence: Evidence, folder: Path, *names: str) -> None:
    """Show the tables and figures of these names that were drawn to a folder, and in a line why some are left out."""
    left_out: dict[str, list[Exhibit]] = {}
    for exhibit in map(gallery.find, names):
        path = folder / f"{exhibit.name}.{exhibit.endings[-1]}"
        if path.is_file():
            show_file(path)
        elif why := exhibit.why_left_out(evidence):
            left_out.setdefault(why, []).append(exhibit)
    for why, exhibits in left_out.items():
        display(Markdown(sentence_of(exhibits, why)))


class LivePlot:
    """A figure that follows a training run: called with each new row, redrawn in place now and then.

    Drawing takes at most about 3 % of the time, so that a run in batch, which nobody watches, is not slowed.
    """

    def __init__(self, plot: Callable[[pd.DataFrame], Figure], seconds: float = 5.0) -> None:
        self.plot, self.seconds = plot, seconds
        self.rows: list[dict] = []
        self.handle, self.next_draw = DisplayHandle(), 0.0
        self.show = self.handle.display

    def __call__(self, row: dict) -> None:
        """Take in one row of the history."""
        self.rows.append(row)
        started = time.monotonic()
        if len(self.rows) > 1 and started >= self.next_draw:
            self.draw(pd.DataFrame(self.rows))
            now = time.monotonic()
            self.next_draw = now + max(self.seconds, 30 * (now - started))

    def draw(self, history: pd.DataFrame) -> None:
        """Draw a history where the last one was drawn."""
        figure = self.plot(history)
        self.show(figure)
        self.show = self.handle.update
        plt.close(figure)


def stack(
    stages: Iterable[Stage], table: str | Callable[[Stage], pd.DataFrame], names: Iterable[str] | None = None
) -> pd.DataFrame:
    """One artifact of several stages, or what a function gives of each, as one table: columns name cell and settings.

    With `names`, one a stage, there is a column `name` too, for the legend of a figure.
    """
    stages = list(stages)
    named = [{}] * len(stages) if names is None else [{"name": name} for name in names]
    found = zip(stages, named, compared(stages), strict=True)
    return pd.concat([_read(one, table).assign(**columns, **name) for one, name, columns in found], ignore_index=True)


def _read(stage: Stage, table: str | Callable[[Stage], pd.DataFrame]) -> pd.DataFrame:
    if callable(table):
        return table(stage)
    return stage.table(table) if (stage.require() / f"{table}.parquet").exists() else stage.jsonl(table)


def compared(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The columns of each of some stages to be compared: axes, seed, and one for each setting in which they differ.

    A setting that all stages of a method override alike, as a notebook's `overrides` do, is part of what is compared:
    it is no column, and `variant` has the other overrides alone.
    """
    found, keys = [], {}
    for stage in stages:
        others = [one.overrides for one in stages if one.method == stage.method]
        own = {k: v for k, v in stage.overrides.items() if any(one.get(k) != v for one in others)}
        found.append(stage.columns | {"variant": variant_of(own)})
        keys |= own
    values = [{key: attrgetter(key)(stage.profile) for key in keys} for stage in stages]
    plain = [{k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in one.items()} for one in values]
    return [columns | settings for columns, settings in zip(found, plain, strict=True)]


def plot_lines(table: pd.DataFrame, x: tuple[str, str], by: str, values: dict[str, str]) -> None:
    """One panel for each of `values`, one line for each value of the column `by`, one legend below.

    `x` is a column and its axis label, `values` has the label of each column.
    """
    long = table.melt([x[0], by], list(values)).dropna(subset="value")
    options = {"hue": by, "style": by, "errorbar": None, "height": 2.6, "aspect": 1.2, "facet_kws": {"sharey": False}}
    panels = sns.relplot(long, x=x[0], y="value", col="variable", kind="line", **options)
    for ax, label in zip(panels.axes.flat, values.values(), strict=True):
        ax.set(title="", xlabel=x[1], ylabel=label)
    panels.tight_layout(w_pad=2)
    sns.move_legend(panels, "upper center", bbox_to_anchor=(0.5, 0), ncols=min(5, table[by].nunique()), title=None)


def evaluation_stages(cell: Stage, methods: list[str]) -> tuple[Stage, ...]:
    """The evaluation of each method in the cell of a stage; UserError for a method that there is not."""
    stages = []
    for method in methods:
        if method not in METHODS:
            raise UserError(f"methods holds {method!r}, which is not one of {', '.join(METHODS)}.")
        unused = UNUSED.get(method)
        stages.append(replace(cell, name="07_evaluate", method=method, **({unused: None} if unused else {})))
        for axis in {"teacher", "student"} - {unused}:
            if getattr(cell, axis) is None:
                raise UserError(f"The method {method!r} needs a {axis}: give the parameter {axis}.")
    return tuple(stages)


def before_and_after(stage: Stage, count: int = 200) -> pd.DataFrame:
    """Greedy answers to validation questions by the model that a stage started from and by the one it made.

    A row a question with a pseudo-label: id, question, pseudo_label, before and after (texts), was_right and
    is_right (agreement with the pseudo-label).
    """
    from rdlib import engines
    from rdlib.engines.sampling import sampled
    from rdlib.method.policy import policy_source
    from rdlib.tasks import prompts

    labels = stage.inputs["labels"].table("labels").dropna(subset="pseudo_label")[["id", "pseudo_label"]]
    table = read_questions(stage.input("data"), "validation").merge(labels, on="id").head(count)
    texts, plan = prompts.of_questions(stage.dataset_settings, table), table[["id"]].assign(temperature=0.0, n=1)
    made = Model(model=str(stage.folder / "model"))
    for model, text, agrees in ((policy_source(stage), "before", "was_right"), (made, "after", "is_right")):
        with tempfile.TemporaryDirectory() as work:
            with sampled(stage, engines.own(stage, model), plan, texts, Path(work), seed=0) as found:
                answers = found.set_index("id").loc[table["id"]].set_axis(table.index)
            table = table.assign(**{text: answers["text"], agrees: answers["answer"] == table["pseudo_label"]})
    return table.drop(columns=["split", "options", "group"])


def answers_along(rollouts: pd.DataFrame) -> pd.DataFrame:
    """How the answers to PPO's kept queries change: a row a query, a column an update, beside id and pseudo_label.

    A cell has the answers of the samples at that update, the most frequent first, with their number where above 1.
    `rollouts`: update, id, sample, answer and pseudo_label (rollouts.parquet of stage 06_ppo).
    """

    def tally(answers: pd.Series) -> str:
        """The answers of a cell."""
        counts = answers.fillna("(no answer)").value_counts(sort=False).sort_values(ascending=False, kind="stable")
        return ", ".join(answer if n == 1 else f"{answer} x{n}" for answer, n in counts.items())

    table = rollouts.assign(pseudo_label=rollouts["pseudo_label"].fillna("-"))
    wide = table.groupby(["id", "pseudo_label", "update"], sort=False)["answer"].agg(tally).unstack("update")
    return wide.rename(columns=lambda update: f"update {update}").rename_axis(columns=None).reset_index()


def show_along(stage: Stage, question: str | None = None) -> None:
    """Show how the answers to the queries that PPO keeps change, and all responses to one of them (an id; the first).

    A sentence where PPO has kept none. `stage` is 06_ppo.
    """
    if not stage.profile.ppo.kept_queries or not stage.done:
        reason = f"it has not run: `{stage.command}`" if stage.profile.ppo.kept_queries else "`ppo.kept_queries` is 0"
        display(Markdown(f"PPO has kept no responses: {reason}."))
        return
    rollouts = stage.table("rollouts")
    show_texts(answers_along(rollouts))
    chosen = rollouts["id"].iloc[0] if question is None else question
    of_one = rollouts[rollouts["id"] == chosen]
    if of_one.empty:
        raise UserError(f"PPO kept no responses to {chosen}: take one of {', '.join(rollouts['id'].unique())}.")
    asked = read_questions(stage.input("data"), "train").set_index("id")["question"]
    show_texts(pd.DataFrame({"question": [asked[chosen]], "pseudo_label": of_one["pseudo_label"].iloc[0]}))
    show_texts(of_one[["update", "text", "answer", "agrees", "score"]])
