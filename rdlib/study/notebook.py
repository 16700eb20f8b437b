"""Helpers that several notebooks share: setup, texts shown as plain text, a live plot, and stages side by side."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdlib.errors import UserError
from rdlib.evidence import gallery, looks, shown
from rdlib.evidence.gallery import Exhibit, sentence_of
from rdlib.evidence.result_tables import Evidence
from rdlib.evidence.verdicts import Claim
from rdlib.settings import Model
from rdlib.study import warm
from rdlib.study.specification import METHODS, UNUSED
from rdlib.study.stage import Stage, variant_of

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


def unanswered(stages: Iterable[Stage]) -> pd.DataFrame:
    """The samples that a teacher behind a server left unanswered, counted by the server's words."""
    from rdlib.study import progress  # late: it loads what reads the environment

    return progress.unanswered(stages)


def show_claim(claim: Claim) -> None:
    """Show a judged claim: verdict, the number that decides it, the cells in which it holds, and its criterion."""
    pooled, paper = claim.pooled, [cell.paper for cell in claim.cells if cell.paper is not None]
    rows = {
        f"claim {claim.name}": claim.rule.statement,
        "verdict": claim.verdict,
        **{f"verdict in {release}": verdict for release, verdict in claim.earlier.items() if verdict},
        "mean difference": f"{pooled.estimate:.3g} {claim.unit} ({100 * claim.level:.3g} % over {claim.over}: "
        f"{pooled.low:.3g} to {pooled.high:.3g})",
        "cells in which it holds": f"{sum(cell.holds for cell in claim.cells)} of {len(claim.cells)}",
        "in the paper's numbers": f"{sum(value > 0 for value in paper)} of {len(paper)}: {claim.paper_verdict}"
        if paper
        else "no numbers",
        "criterion": claim.rule.words,
        "note": claim.note,
    }
    show_texts(pd.DataFrame({"": rows.keys(), " ": rows.values()}))


def show_file(path: Path) -> None:
    """Show a finished table (.md) or figure (.png) of the report."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run this notebook's cell that draws the tables and figures first.")
    display(
        Markdown(path.read_text(encoding="utf-8")) if path.suffix == ".md" else Image(filename=str(path), width=850)
    )


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
        self.handle = None
        self.next_draw = 0.0

    def __call__(self, row: dict) -> None:
        """Take in one row of the history."""
        self.rows.append(row)
        if len(self.rows) > 1 and time.monotonic() >= self.next_draw:
            started = time.monotonic()
            self.draw(pd.DataFrame(self.rows))
            now = time.monotonic()
            self.next_draw = now + max(self.seconds, 30 * (now - started))

    def draw(self, history: pd.DataFrame) -> None:
        """Draw a history where the last one was drawn."""
        figure = self.plot(history)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)


def stack(stages: Iterable[Stage], table: str, names: Iterable[str] | None = None) -> pd.DataFrame:
    """One artifact of several stages as one table, with columns that name each stage's cell and its settings.

    With `names`, one a stage, there is a column `name` too, for the legend of a figure.
    """
    stages, frames = list(stages), []
    named = [{}] * len(stages) if names is None else [{"name": name} for name in names]
    for stage, name, columns in zip(stages, named, compared(stages), strict=True):
        is_parquet = (stage.require() / f"{table}.parquet").exists()
        frame = stage.table(table) if is_parquet else stage.jsonl(table)
        frames.append(frame.assign(**columns, **name))
    return pd.concat(frames, ignore_index=True)


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
    return [columns | {key: _setting(stage, key) for key in keys} for columns, stage in zip(found, stages, strict=True)]


def _setting(stage: Stage, key: str) -> Any:
    """The value of a setting in a stage; one that is no single value as text."""
    section, name = key.split(".")
    value = getattr(getattr(stage.profile, section), name)
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def judged(stages: Iterable[Stage]) -> pd.DataFrame:
    """The answers of several evaluations as one table, compared with gold or, where there is none, with the vote.

    See `rdlib.study.rows.judged`; the vote's are under a benchmark of their own.
    """
    from rdlib.study import rows

    stages = list(stages)
    parts = [rows.judged(one).assign(**columns) for one, columns in zip(stages, compared(stages), strict=True)]
    return pd.concat(parts, ignore_index=True)


def plot_lines(axes: Iterable[Axes], table: pd.DataFrame, x: tuple[str, str], by: str, values: dict[str, str]) -> None:
    """One panel for each of `values`, one line for each value of the column `by`, one legend below.

    `x` is a column and its axis label, `values` has the label of each column.
    """
    import seaborn as sns

    axes, names = list(axes), list(dict.fromkeys(table[by].astype(str)))
    known = [*looks.LAMBDA_LOOKS, *((color, "P", (0, (3, 1, 1, 1))) for color in looks.SPARE)]
    used = {name: known[i % len(known)] for i, name in enumerate(names)}
    style = {"hue": by, "style": by, "palette": {name: used[name][0] for name in names}, "errorbar": None}
    style |= {"markers": {name: used[name][1] for name in names}, "dashes": False, "markeredgewidth": 0}
    for ax, (value, label) in zip(axes, values.items(), strict=True):
        part = table.assign(**{by: table[by].astype(str)}).dropna(subset=value)
        sns.lineplot(part, x=x[0], y=value, ax=ax, markevery=max(1, len(part) // (6 * len(names))), **style)
        ax.set(xlabel=x[1], ylabel=label)
        handles = ax.get_legend_handles_labels()[0]
        ax.get_legend().remove()
    looks.legend_below(axes[0].figure, handles, columns=min(3, len(names)))


def evaluation_stages(cell: Stage, methods: list[str]) -> tuple[Stage, ...]:
    """The evaluation of each method in the cell of a stage; UserError for a method that there is not."""
    for method in methods:
        if method not in METHODS:
            raise UserError(f"methods holds {method!r}, which is not one of {', '.join(METHODS)}.")
    unused = [{UNUSED[method]: None} if method in UNUSED else {} for method in methods]
    stages = [replace(cell, name="07_evaluate", method=m, **axes) for m, axes in zip(methods, unused, strict=True)]
    for stage in stages:
        for axis in ("teacher", "student"):
            if getattr(stage, axis) is None and axis != UNUSED.get(stage.method):
                raise UserError(f"The method {stage.method!r} needs a {axis}: give the parameter {axis}.")
    return tuple(stages)


def before_and_after(stage: Stage, count: int = 200) -> pd.DataFrame:
    """Greedy answers to validation questions by the model that a stage started from and by the one it made.

    A row a question with a pseudo-label: id, question, pseudo_label, before and after (texts), was_right and
    is_right (agreement with the pseudo-label).
    """
    from rdlib.method.policy import policy_source
    from rdlib.tasks.questions import read_questions

    labels = stage.inputs["labels"].table("labels").dropna(subset="pseudo_label")
    questions = read_questions(stage.input("data"), "validation").merge(labels[["id", "pseudo_label"]], on="id")
    table = questions.head(count)
    compared = {
        "before": (policy_source(stage), "was_right"),
        "after": (Model(model=str(stage.folder / "model")), "is_right"),
    }
    for column, (model, agrees) in compared.items():
        answers = _greedy(stage, model, table)
        table = table.assign(**{column: answers["text"], agrees: answers["answer"] == table["pseudo_label"]})
    return table.drop(columns=["split", "options", "group"])


def _greedy(stage: Stage, model: Model, questions: pd.DataFrame) -> pd.DataFrame:
    """Greedy responses (text, answer) of a model to questions."""
    from rdlib import engines
    from rdlib.engines import generation
    from rdlib.tasks import answers, prompts

    settings = stage.dataset_settings
    asked = prompts.of_questions(settings, questions).values()
    with closing(engines.open_engine(stage, engines.own(stage, model))) as engine:
        requests = [generation.Request(engine.encode(prompt), 1, 0.0, prompt.stop) for prompt in asked]
        responses = [group[0].text for group in engine.generate(requests, seed=0)]
    given = [answers.extract(text, stage.answer_kind, p.choices) for text, p in zip(responses, asked, strict=True)]
    return pd.DataFrame({"text": responses, "answer": given}, index=questions.index)


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
    from rdlib.tasks.questions import read_questions

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
