"""One table or figure of the report: what it shows, what it is made from, and the files that it becomes.

    table = exhibit.table(evidence)   # exactly what is drawn, from the result tables and nothing else
    figure = exhibit.draw(table)      # None in place of a function: the exhibit is a table

A table is written as CSV and Markdown, a figure as PDF and PNG beside the CSV of exactly the data that it shows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rdlib import artifacts
from rdlib.evidence import looks, tables
from rdlib.evidence.result_tables import Evidence

GOLD = "questions with gold answers"
# Notebooks of the main grid: an exhibit may need no more of it than what one of them makes.
MAIN = ("07_evaluate", "01_teacher_responses", "03_sft_warmup", "05_reward_model", "06_ppo")
# The setting that each ablation varies, which names its variants.
VARIED = {
    "lambda": "reward_model.lam",
    "data_ratio": "reward_model.teacher_share",
    "reward_source": "reward_model.source",
    "correctness": "reward.mismatch",
}


@dataclass(frozen=True)
class Exhibit:
    """A table or figure: its file's stem, title and caption, the table behind it, and how that is drawn.

    `table` gives exactly what is drawn or written, before rounding. `rests_on`: the notebooks that train what it rests
    on. `questions`: those of the reviewers (R1-R7, and "RM" for what the reward model can give) that it is about;
    where no seed has answered them, there is no such exhibit. `held_out`: it is about held-out questions without gold
    answers, which few studies have. `tells_endings`: it is about how trainings ended, which old results do not say.
    `of_rounding`: it is about the same seeds in another numerical mode, `of_same_rate` about SFT of the same seeds with
    the warm-up's learning rate, which few results have.
    `answer`: what its table says, in words that go before the caption. `trials`: the groups of trials that it shows,
    which lie beside the results and are run by `params/followups.yaml`. `methods`: those that it compares and not every
    study asks for. `needs`: what else it needs that own questions may lack. `of_own`: it is about own questions.
    """

    name: str
    title: str
    caption: str
    table: Callable[[Evidence], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure] | None
    rests_on: tuple[str, ...]
    questions: tuple[str, ...] = ()
    answer: Callable[[Evidence], str] | None = None
    held_out: bool = False
    tells_endings: bool = False
    of_rounding: bool = False
    of_same_rate: bool = False
    trials: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    needs: str = ""
    of_own: bool = False

    def is_shown(self, evidence: Evidence) -> bool:
        """Whether the evidence has the tables that it needs and not every study has."""
        there = {"of_questions": evidence.answered, "held_out": evidence.holds_out}
        there |= {"tells_endings": evidence.tells_endings, "of_rounding": evidence.rounded}
        there |= {"of_same_rate": evidence.has_same_rate, "of_own": evidence.of_own_questions}
        there["trials"] = evidence.has_trials(*self.trials)
        return all(found or not getattr(self, needed) for needed, found in there.items())

    @property
    def experiments(self) -> tuple[str, ...]:
        """The experiments that it is made from, as `python -m rdlib study --experiments` takes them; none: settings."""
        grid = {"02_pseudo_labels": "judgement"} | dict.fromkeys(MAIN, "main")
        found = [grid[notebook] for notebook in self.rests_on if notebook in grid]
        found += ["main", "rounding"] if self.of_rounding else []
        found += ["main", "same_rate"] if self.of_same_rate else []
        found += self.ablations
        found += [question for question in self.questions if question != "R7" and "main" not in found]
        return tuple(dict.fromkeys([*found, *(f"params/followups.yaml:{name}" for name in self.trials)]))

    @property
    def last(self) -> str:
        """The stage of those experiments that it is made from; "" for their last."""
        (notebook,) = self.rests_on if len(self.rests_on) == 1 else ("",)
        return notebook if notebook in MAIN[1:] else ""

    @property
    def ablations(self) -> tuple[str, ...]:
        """The ablations that it rests on, as the command line names them."""
        parts = (notebook.partition("_ablation_")[2] for notebook in self.rests_on)
        return tuple(name for name in parts if name)

    def why_left_out(self, evidence: Evidence) -> str:
        """Why a part of a study has nothing to show here; "" where there is something."""
        whole = evidence.asks_for_all or self.of_questions or self.trials
        if whole or not self.is_shown(evidence) or _says_something(self.table(evidence)):
            return ""
        options = missing_runs(evidence, self.methods, self.ablations)
        needs = "" if self.needs == GOLD and len(evidence.correctness) else self.needs
        reasons = [f'runs that are asked for by name (`ARGS="{options}"`)'] if options else []
        return f"it needs {tables.listed([*reasons, *filter(None, [needs])]) or 'runs that these results lack'}"

    def left_out(self, evidence: Evidence) -> str:
        """The same as a sentence with the title."""
        return sentence_of([self], why) if (why := self.why_left_out(evidence)) else ""

    @property
    def of_questions(self) -> bool:
        """Whether it needs answers to the reviewers' questions."""
        return bool(self.questions)

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of its files."""
        return ("csv", "md") if self.draw is None else ("csv", "pdf", "png")

    def note(self, evidence: Evidence) -> str:
        """The caption, after the answer where it gives one; and how the teacher was sampled, where that is unusual."""
        caption = self.caption if self.answer is None else f"{self.answer(evidence)} {self.caption}"
        return f"{caption} {evidence.sampling_note}".strip()

    @property
    def is_of_the_vote(self) -> bool:
        """Whether it shows the teacher's vote, which depends on how the teacher was sampled."""
        return self.rests_on == ("02_pseudo_labels",)


def sentence_of(left_out: Sequence[Exhibit], why: str) -> str:
    """What is left out for one reason, in a sentence."""
    titles = tables.listed([f"*{exhibit.title}*" for exhibit in left_out])
    return f"{titles} {'is' if len(left_out) == 1 else 'are'} left out: {why}."


def _says_something(table: pd.DataFrame) -> bool:
    """Whether a table has rows, and values where it shows this study's."""
    return len(table) > 0 and ("study_pct" not in table or table["study_pct"].notna().any())


def missing_runs(evidence: Evidence, methods: Iterable[str], ablations: Iterable[str]) -> str:
    """The words of the command line that ask for those of these runs that the results lack; "" for none."""
    costs = evidence.costs
    evaluated = set(costs["method"][costs["stage"] == "07_evaluate"])
    varied = {setting.partition("=")[0] for setting in costs["variant"]}
    lacking = {
        "--methods": [method for method in methods if method not in evaluated],
        "--experiments study": [ablation for ablation in ablations if VARIED[ablation] not in varied],
    }
    return " ".join(" ".join([flag, *names]) for flag, names in lacking.items() if names)


def draw(exhibit: Exhibit, evidence: Evidence, out: Path) -> list[Path]:
    """Write one exhibit to `out`; returns the paths written. UserError for a result table that can't be used."""
    table = tables.rounded(exhibit.table(evidence))
    paths = [tables.write_csv(table, out / f"{exhibit.name}.csv")]
    if exhibit.draw is None:
        note = exhibit.note(evidence)
        return [*paths, tables.write_markdown(table, out / f"{exhibit.name}.md", exhibit.title, note)]
    with looks.style(evidence.benchmarks):
        figure = exhibit.draw(table)
        if exhibit.is_of_the_vote and evidence.sampling_note:
            figure.supxlabel(evidence.sampling_note, fontsize="small")
        return paths + save(figure, out / exhibit.name)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF and PNG without dates (the same data give the same bytes), then close it."""
    formats = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
    paths = []
    for kind, metadata in formats.items():
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # the layout is made: the second format need not make it again
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        artifacts.write_bytes(paths[-1], content.getvalue())
    plt.close(figure)
    return paths
