"""The page of `notebooks/explore.ipynb`: controls, and panels that follow them, of what `rdlib.study.explore` computes.

    page = Page(stage, question=12)
    page.controls()     # one cell each; a panel is drawn at once, and again when a control changes
    page.teacher()

A panel's outputs are ordinary outputs of its cell, updated in place: an executed notebook keeps them and shows them
without a kernel, where what stands in an ipywidgets Output would be gone.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

from rdlib.errors import UserError
from rdlib.evidence import explore_plots, looks
from rdlib.study import explore_tables, notebook
from rdlib.study.explore import AFTER, BEFORE, Explorer
from rdlib.study.explore_tables import Asked, Vote
from rdlib.study.stage import Stage

WITHOUT_KERNEL = "(controls, which work in JupyterLab: choose or type a question, move the threshold of the vote)"
TYPED = "(a question of your own)"
SCROLLED = '<div style="max-height: 26em; overflow-y: auto">{}</div>'
WIDE = widgets.Layout(width="100%", max_width="60em")

Content = Figure | dict[str, str]


class Slot:
    """One output of a cell, replaced in place by what is shown later."""

    def __init__(self) -> None:
        self.handle: DisplayHandle | None = None

    def show(self, content: Content) -> None:
        """Show a figure, or a bundle of representations, where the last one stood."""
        raw = isinstance(content, dict)
        if self.handle is None:
            self.handle = display(content, raw=raw, display_id=True)
        else:
            self.handle.update(content, raw=raw)
        if isinstance(content, Figure):
            plt.close(content)


def sentence(text: str) -> dict[str, str]:
    """A sentence as an output."""
    return {"text/html": f"<p>{html.escape(text)}</p>" if text else "", "text/plain": text}


def scrolled(bundle: dict[str, str]) -> dict[str, str]:
    """A long output in a box of its own."""
    return bundle | {"text/html": SCROLLED.format(bundle["text/html"])}


# ---- what the panels show


def vote_table(asked: Asked, vote: Vote) -> dict[str, str]:
    """The question, the verdict of the vote, and the gold answer where the question has one."""
    rows = {"question": asked.text, "vote": str(vote)}
    if asked.gold is not None:
        rows["gold answer"] = f"{asked.gold} (shown here alone: no training reads it)"
    return notebook.texts(pd.DataFrame({"": rows.keys(), " ": rows.values()}))


def vote_figure(asked: Asked, vote: Vote) -> Figure:
    """The votes against the threshold, and below them the answers by temperature."""
    counts = explore_tables.answer_counts(asked.teacher)
    figure, (above, below) = explore_plots.vote_axes(len(counts.columns), len(counts))
    explore_plots.draw_answer_counts(below, counts)
    explore_plots.draw_vote(above, explore_tables.vote_shares(counts), vote.threshold, vote.label)
    return figure


def student_table(judged: pd.DataFrame) -> dict[str, str]:
    """The students' responses with agreement, score and reward."""
    agrees = judged["agrees"].map({True: "yes", False: "no"})
    table = judged.assign(agrees=agrees).rename(columns={"agrees": "agrees with a*(x)", "reward": "reward (Eq. 7)"})
    return notebook.texts(table[["model", "answer", "agrees with a*(x)", "score", "reward (Eq. 7)", "text"]])


def lambda_figure(table: pd.DataFrame, lambdas: list[float]) -> Figure:
    """The scores under the reward model of each lambda, with the share of pairs that it puts in order."""
    shares = explore_tables.orderings(table, lambdas)
    names = [
        f"$\\lambda$ = {lam:g}\nPos/Neg {row.pos_neg:.2f}   Pos/Pos {row.pos_pos:.2f}".replace("nan", "-")
        for lam, row in zip(lambdas, shares.itertuples(), strict=True)
    ]
    figure, axes = looks.grid(1, 1, width=max(4.0, 1.9 * len(lambdas)), height=2.7)
    explore_plots.draw_scores(axes[0, 0], table, lambdas, names)
    looks.legend_below(figure, explore_plots.score_handles(table))
    return figure


def lambda_table(table: pd.DataFrame, lambdas: list[float]) -> dict[str, str]:
    """The same scores as a table of texts."""
    words = table["kind"].str.replace("_", " ")
    names = {lam: f"lambda {lam:g}" for lam in lambdas}
    return notebook.texts(
        table.assign(kind=words).rename(columns=names)[["kind", "model", "answer", *names.values(), "text"]]
    )


# ---- the page


class Page:
    """Controls and panels for the cell of `stage`, its 06_ppo.

    `question`: the number of one in the list, or the text of one of your own. UserError where it can't be asked.
    """

    def __init__(self, stage: Stage, question: int | str = 0) -> None:
        self.explorer = Explorer(stage)
        self.settings = stage.profile
        self.asked = self.explorer.ask(self._text_of(question))
        self._panels: dict[str, Callable[[], None]] = {}
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
        for draw in self._panels.values():
            draw()

    @property
    def vote(self) -> Vote:
        """The vote under the threshold of the slider."""
        return explore_tables.vote_on(self.asked.teacher, round(self.threshold.value, 2))

    def controls(self) -> None:
        """Show the controls; where there is no kernel, a line in their place."""
        buttons = widgets.HBox([self.ask, self.another, self.message])
        box = widgets.VBox([self.choice, self.text, buttons, self.threshold])
        display(box._repr_mimebundle_() | {"text/plain": WITHOUT_KERNEL}, raw=True)

    def _panel(self, name: str, contents: Callable[[], list[Content]]) -> None:
        """Show what `contents` gives, always as many outputs, now and whenever a control changes."""
        slots = [Slot() for _ in range(3)]

        def draw() -> None:
            """Fill the slots."""
            for slot, content in zip(slots, contents(), strict=False):
                slot.show(content)

        self._panels[name] = draw
        draw()

    def teacher(self) -> None:
        """Panel 1: the teacher's answers by temperature, and the vote."""

        def contents() -> list[Content]:
            """Verdict, figure and texts."""
            texts = scrolled(notebook.texts(explore_tables.distinct(self.asked.teacher)))
            return [vote_table(self.asked, self.vote), vote_figure(self.asked, self.vote), texts]

        self._panel("teacher", contents)

    def student(self) -> None:
        """Panel 2: the student's answers before and after PPO, and what they are worth."""

        def contents() -> list[Content]:
            """What is not there, means by model, and every response."""
            lam = self.settings.reward_model.lam
            reward, scale = self.settings.reward, self.explorer.reward_scale
            judged = explore_tables.judged(self.asked.students(lam), self.vote.label, reward, scale)
            absent = self.explorer.missing(BEFORE, AFTER)
            return [sentence(absent or ""), notebook.texts(explore_tables.summary(judged)), student_table(judged)]

        self._panel("student", contents)

    def lambdas(self) -> None:
        """Panel 3: the scores of the same responses under the reward model of every lambda."""

        def contents() -> list[Content]:
            """What is not there, figure and table."""
            absent, lambdas = sentence(self.explorer.missing_lambdas() or ""), list(self.asked.scores)
            if not lambdas:
                return [absent]
            table = explore_tables.scores_by_lambda(self.asked, self.vote.label)
            return [absent, lambda_figure(table, lambdas), scrolled(lambda_table(table, lambdas))]

        self._panel("lambdas", contents)
