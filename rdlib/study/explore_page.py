"""The page of `notebooks/explore.ipynb`: controls, and panels that show what `rdlib.study.explore` computes.

    page = Page(stage, question=12)
    page.controls()     # one cell each; a panel is drawn at once, and again when a control changes
    page.teacher()

A panel's outputs are ordinary outputs of its cell, updated in place. So an executed notebook shows them without a
kernel, which it would not do with an ipywidgets Output.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import DisplayHandle, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdlib.errors import UserError
from rdlib.evidence import looks, plots
from rdlib.evidence.looks import BLUE, GREY, KINDS, Look
from rdlib.study import explore, notebook
from rdlib.study.explore import AFTER, BEFORE, Asked, Explorer, Vote
from rdlib.study.stage import Stage

WITHOUT_KERNEL = "(controls, which work in JupyterLab: choose or type a question, move the threshold of the vote)"
TYPED = "(a question of your own)"
SCROLLED = '<div style="max-height: 26em; overflow-y: auto">{}</div>'
WIDE = widgets.Layout(width="100%", max_width="60em")
UNLABELLED = Look("no pseudo-label", GREY, "o")
WIDTH = 0.22  # from one kind to the next, where a lambda has the width 1

Content = Figure | dict[str, str]


# ---- figures


def vote_figure(asked: Asked, vote: Vote) -> Figure:
    """The votes against the threshold, the pseudo-label in colour; below the answers by temperature, in line."""
    counts = explore.answer_counts(asked.teacher)
    heights, width = (1, 0.28 * len(counts)), min(9.0, 2.2 + 0.6 * len(counts.columns))
    figure, axes = looks.grid(2, 1, width, 0.75 + 0.11 * len(counts), sharex=True, height_ratios=heights)
    above, votes = axes[0, 0], counts.loc["high"].sum()
    shares = votes / votes.sum()
    _draw_answer_counts(axes[1, 0], counts)
    colors = [BLUE if answer == vote.label else GREY for answer in shares.index]
    above.bar(np.arange(len(shares)) + 0.5, shares, width=0.7, color=colors)
    above.axhline(vote.threshold, color="black", linestyle=":", linewidth=1.2)
    above.text(len(shares), vote.threshold, " threshold", ha="left", va="center")
    above.set(ylabel="share of votes", ylim=(0, 1.05), xlim=(0, len(shares)))
    above.tick_params(labelbottom=False)
    return figure


def _draw_answer_counts(ax: Axes, counts: pd.DataFrame) -> None:
    """Heat map of how often each answer came (columns) at each confidence and temperature (rows)."""
    rows = [f"{temperature:g}" for _, temperature in counts.index]
    marks = counts.astype(str).replace("0", "")
    sns.heatmap(counts.set_axis(rows), ax=ax, cmap="Blues", vmin=0, cbar=False, annot=marks, fmt="", linewidths=0.5)
    high = sum(confidence == "high" for confidence, _ in counts.index)
    ax.axhline(high, color="black", linewidth=1.2)
    for place, name in ((high / 2, "votes"), ((high + len(counts)) / 2, "does not vote")):
        ax.text(len(counts.columns), place, f" {name}", ha="left", va="center")
    ax.set(xlabel="answer", ylabel="temperature")
    ax.tick_params(axis="y", rotation=0)


def lambda_figure(table: pd.DataFrame, lambdas: Sequence[float]) -> Figure:
    """Scores by lambda and kind with their means, and the share of pairs that each lambda's reward model orders."""
    names = [
        f"$\\lambda$ = {lam:g}\nPos/Neg {row.pos_neg:.2f}   Pos/Pos {row.pos_pos:.2f}".replace("nan", "-")
        for lam, row in zip(lambdas, explore.orderings(table, lambdas).itertuples(), strict=True)
    ]
    figure, axes = looks.grid(1, 1, width=max(4.0, 1.9 * len(lambdas)), height=2.7)
    ax, shown = axes[0, 0], []
    kinds = [*plots.each(table, "kind", KINDS), (UNLABELLED, table[table["kind"].isna()])]
    for place, (look, part) in zip((-WIDTH, 0.0, WIDTH, 0.0), kinds, strict=True):
        for center, lam in enumerate(lambdas if len(part) else ()):
            places = center + place + np.linspace(-0.06, 0.06, len(part))
            ax.plot(places, part[lam], look.marker, color=look.color, alpha=0.6, markersize=4, markeredgewidth=0)
            ax.hlines(part[lam].mean(), center + place - 0.09, center + place + 0.09, color=look.color, linewidth=2)
        shown += [look] if len(part) else []
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(ylabel="reward model score", xlim=(-0.5, len(lambdas) - 0.5))
    ax.set_xticks(range(len(lambdas)), names)
    looks.legend_below(figure, looks.handles(shown, linestyle=""))
    return figure


# ---- tables


def sentence(text: str) -> dict[str, str]:
    """A sentence as an output."""
    return {"text/html": f"<p>{html.escape(text)}</p>" if text else "", "text/plain": text}


def scrolled(table: pd.DataFrame) -> dict[str, str]:
    """A long table of texts as an output in a box of its own."""
    bundle = notebook.texts(table)
    return bundle | {"text/html": SCROLLED.format(bundle["text/html"])}


# ---- the page


def panel(contents: Callable[[Page], list[Content]]) -> Callable[[Page], None]:
    """A method that shows what `contents` gives, always as many outputs, and in their places when a control changes."""

    def show(page: Page) -> None:
        """Show each content, or put it where the last one stood."""
        page.shown.setdefault(show, {})
        for place, content in enumerate(contents(page)):
            raw = isinstance(content, dict)
            if handle := page.shown[show].get(place):
                handle.update(content, raw=raw)
            else:
                page.shown[show][place] = display(content, raw=raw, display_id=True)
            if not raw:
                plt.close(content)

    show.__doc__ = contents.__doc__
    return show


class Page:
    """Controls and panels for the cell of `stage`, its 06_ppo.

    `question`: the number of one in the list, or the text of one of your own. UserError where it can't be asked.
    """

    def __init__(self, stage: Stage, question: int | str = 0) -> None:
        self.explorer, self.settings = Explorer(stage), stage.profile
        self.asked = self.explorer.ask(self._text_of(question))
        self.shown: dict[Callable, dict[int, DisplayHandle]] = {}  # by panel and place in it
        self._random = random.Random(stage.seed)
        self._make_controls()

    def _text_of(self, question: int | str) -> str:
        listed = list(self.explorer.questions)
        if isinstance(question, str):
            return question
        if isinstance(question, bool) or not isinstance(question, int) or not 0 <= question < len(listed):
            raise UserError(f"question is {question!r}: give a number from 0 to {len(listed) - 1}, or a text.")
        return listed[question]

    @property
    def _listed(self) -> str:
        """The question that was asked as the list has it, empty for one of the user's own."""
        return self.asked.text if self.asked.text in self.explorer.questions else ""

    def _make_controls(self) -> None:
        listed = enumerate(self.explorer.questions.items())
        options = [(TYPED, ""), *((f"{number}  {one.id}  {text}"[:120], text) for number, (text, one) in listed)]
        self.choice = widgets.Dropdown(options=options, value=self._listed, description="question", layout=WIDE)
        self.text = widgets.Textarea(value=self.asked.text, rows=3, description="or type it", layout=WIDE)
        self.ask = widgets.Button(description="Ask", button_style="primary", icon="play")
        self.another = widgets.Button(description="Another", icon="random", tooltip="a question of the list, at random")
        self.message = widgets.HTML()
        self.threshold = widgets.FloatSlider(
            value=self.settings.voting.threshold, min=0, max=1, step=0.05, description="threshold", readout_format=".0%"
        )
        self.choice.observe(lambda _: self._on_choice(), "value")
        self.ask.on_click(lambda _: self._on_ask(self.text.value))
        self.another.on_click(lambda _: self._on_another())
        self.threshold.observe(lambda _: self._draw(), "value")

    def _on_choice(self) -> None:
        if self.choice.value not in ("", self.asked.text):
            self._on_ask(self.choice.value)

    def _on_another(self) -> None:
        self.choice.value = self._random.choice([q for q in self.explorer.questions if q != self.asked.text])

    def _on_ask(self, text: str) -> None:
        """Ask, show the answers in every panel, or say in one sentence why the question can't be asked."""
        self.ask.disabled = self.another.disabled = True
        self.message.value = "asking ..."
        try:
            self.asked = self.explorer.ask(text)
            self.text.value = self.asked.text
            self.choice.value = self._listed
            self._draw()
            self.message.value = ""
        except UserError as error:
            self.message.value = html.escape(str(error))
        finally:
            self.ask.disabled = self.another.disabled = False

    def _draw(self) -> None:
        for show in self.shown:
            show(self)

    @property
    def vote(self) -> Vote:
        """The vote under the threshold of the slider."""
        return explore.vote_on(self.asked.teacher, round(self.threshold.value, 2))

    def controls(self) -> None:
        """Show the controls; where there is no kernel, a line in their place."""
        buttons = widgets.HBox([self.ask, self.another, self.message])
        box = widgets.VBox([self.choice, self.text, buttons, self.threshold])
        display(box._repr_mimebundle_() | {"text/plain": WITHOUT_KERNEL}, raw=True)

    @panel
    def teacher(self) -> list[Content]:
        """Panel 1: the question and the verdict of the vote, the teacher's answers by temperature, and their texts."""
        rows = {"question": self.asked.text, "vote": self.vote.words}
        if self.asked.gold is not None:
            rows["gold answer"] = f"{self.asked.gold} (shown here alone: no training reads it)"
        table = notebook.texts(pd.DataFrame({"": rows.keys(), " ": rows.values()}))
        return [table, vote_figure(self.asked, self.vote), scrolled(explore.distinct(self.asked.teacher))]

    @panel
    def student(self) -> list[Content]:
        """Panel 2: which students do not exist yet, means by model, and every response with what it is worth."""
        responses = self.asked.students(self.settings.reward_model.lam)
        judged = explore.judged(responses, self.vote.label, self.settings.reward, self.explorer.reward_scale)
        table = judged.assign(agrees=judged["agrees"].map({True: "yes", False: "no"}))
        table = table[["model", "answer", "agrees", "score", "reward", "text"]]
        table = table.rename(columns={"agrees": "agrees with a*(x)", "reward": "reward (Eq. 7)"})
        absent = self.explorer.missing(BEFORE, AFTER)
        return [sentence(absent), notebook.texts(explore.summary(judged)), notebook.texts(table)]

    @panel
    def lambdas(self) -> list[Content]:
        """Panel 3: which reward models do not exist yet, and the scores of the same responses by every lambda's."""
        absent, lambdas = sentence(self.explorer.missing_lambdas()), list(self.asked.scores)
        if not lambdas:
            return [absent]
        table = explore.scores_by_lambda(self.asked, self.vote.label)
        names = {lam: f"lambda {lam:g}" for lam in lambdas}
        texts = table.assign(kind=table["kind"].str.replace("_", " ")).rename(columns=names)
        columns = ["kind", "model", "answer", *names.values(), "text"]
        return [absent, lambda_figure(table, lambdas), scrolled(texts[columns])]
