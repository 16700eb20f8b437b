"""Did PPO improve a student? One sentence, from measures that need no gold answer.

    for one in measured(evidence):      # a cell of own questions: numbers
        print(sentence(one))            # words

The measure is agreement with the teacher's vote on held-out questions; accuracy, where more of them have gold answers.
Rewards, lengths and texts show what it may miss: PPO can raise the reward alone, shorten answers or make them all
alike. Entropies show whether PPO made the student more certain: of the votes of a question's samples where experiment
RM was run (`rdlib.evidence.sharpening`), else of PPO's own rollouts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from scipy.stats import norm

from rdlib.evidence import power, stats, tables
from rdlib.evidence.result_tables import REWARD_MODEL

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

NAN = float("nan")
BEFORE, AFTER, UNTRAINED = "ours_wo_r", "ours", "icl"  # the warm-up, PPO, the student before training
METHODS = (BEFORE, AFTER, UNTRAINED)
ENDS = 10  # updates at either end of PPO whose mean reward is compared, as in the table of PPO's reach
SURE = 2.0  # standard errors by which rewards must differ: the normal 95 %
SHORT = 2 / 3  # of the tokens: who drops a third of an answer drops reasoning, while wording alone moves some per cent
EQUAL = 1 / 2  # of the distinct texts: half of the questions get a text that another question got
UNREADABLE = 0.05  # of the answers: five in a hundred, more than a format that is learnt loses by chance
NOTICED = 1.0  # points of agreement that matter, the least
PLANNED = 5.0  # points of agreement for which questions are counted, the most: more needs no planning


@dataclass(frozen=True)
class Change:
    """A number before and after PPO, and of the student before any training; NaN where it is not known."""

    before: float = NAN
    after: float = NAN
    untrained: float = NAN


@dataclass(frozen=True)
class Paired(Change):
    """The same with the 95 % interval of the paired difference."""

    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class Health:
    """What PPO changed in one cell; agreement in per cent, its difference in points, shares from 0 to 1.

    `gold`: it is accuracy. `deviation` is that of a question's difference. `reward` and `entropy` (nats a token) are
    means of PPO's first and last updates, their `_error` is the standard error of the change. `kept_start`: PPO kept
    the model that it began with. The votes' entropy (nats), the majority's share and the distinct `texts` and `answers`
    are of the samples of a question before and after PPO, where they were judged.
    """

    cell: str
    questions: int = 0
    gold: bool = False
    agreement: Change = Change()
    gain: float = NAN
    low: float = NAN
    high: float = NAN
    deviation: float = NAN
    reward: Change = Change()
    reward_error: float = NAN
    tokens: Change = Change()
    distinct: Change = Change()
    answered: Change = Change()
    kept_start: bool = False
    entropy: Change = Change()
    entropy_error: float = NAN
    votes: Paired = Paired()
    majority: Paired = Paired()
    answers: Paired = Paired()
    texts: Paired = Paired()

    @property
    def judge(self) -> str:
        """What is compared, in a word."""
        return "accuracy" if self.gold else "agreement"

    @property
    def reward_rose(self) -> bool:
        """Whether the reward rose by more than its noise."""
        return self.reward.after - self.reward.before > SURE * self.reward_error

    @property
    def entropy_fell(self) -> bool:
        """Whether the entropy of PPO's rollouts fell by more than its noise, in a policy that was kept."""
        return not self.kept_start and self.entropy.before - self.entropy.after > SURE * self.entropy_error

    @property
    def questions_needed(self) -> int:
        """Held-out questions for 80 % power to detect the difference found, or a point at least; two digits."""
        size = min(max(abs(self.gain), NOTICED), PLANNED)
        z = norm.ppf((1 + stats.LEVEL) / 2) + norm.ppf(power.POWER)
        needed = math.ceil((z * self.deviation / size) ** 2)
        return max(10, math.ceil(needed / (digits := 10 ** max(0, len(str(needed)) - 2))) * digits)


# ---- the sentence


INTERVAL = "points (95 % CI {h.low:.1f} to {h.high:.1f}, {h.questions:,} held-out questions)"
LEADS = {
    "not evaluated": 'What PPO changed is not known: the warm-up was not evaluated (ARGS="--methods ours_wo_r" does)',
    "no judge": "What PPO changed is not known: no held-out question has a vote of the teacher or a gold answer",
    "kept start": "PPO changed nothing: it kept the model that it began with, the warm-up's "
    "({h.judge} {h.agreement.after:.0f} % on {h.questions:,} held-out questions)",
    "rose": f"{{Judge}} rose by {{h.gain:.1f}} {INTERVAL}",
    "rose without reward": f"{{Judge}} rose by {{h.gain:.1f}} {INTERVAL}, though reward did not rise",
    "reward alone": "Reward rose (from {h.reward.before:.2f} to {h.reward.after:.2f}) while {h.judge} did not: "
    f"{{h.gain:+.1f}} {INTERVAL}; reward hacking is suspected, so read the answers that changed in 06_ppo.ipynb",
    "fell": f"{{Judge}} fell by {{fall:.1f}} {INTERVAL}",
    "same": "Nothing changed in {h.judge}: each held-out question is answered as well as before",
    "level": f"{{Judge}} stayed as it was, to within a point or so: {{h.gain:+.1f}} {INTERVAL}",
    "unclear": f"Whether {{h.judge}} changed is unclear: {{h.gain:+.1f}} {INTERVAL}; "
    "about {h.questions_needed:,} held-out questions would be enough to decide",
}
SHORTER = "answers grew short (from {h.tokens.before:.0f} to {h.tokens.after:.0f} tokens)"
EQUALLED = "answers grew equal (distinct texts from {h.distinct.before:.0%} to {h.distinct.after:.0%})"
LESS_READABLE = "fewer answers can be read (from {h.answered.before:.0%} to {h.answered.after:.0%})"
SPREAD = (
    "(vote entropy from {h.votes.before:.2f} to {h.votes.after:.2f} nats, "
    "majority's share from {h.majority.before:.0%} to {h.majority.after:.0%}, "
    "distinct answers from {h.answers.before:.1f} to {h.answers.after:.1f}, "
    "distinct texts from {h.texts.before:.1f} to {h.texts.after:.1f})"
)
SURER = f"samples grew surer {SPREAD}"
LESS_SURE = f"samples grew less sure {SPREAD}"
SURER_ROLLOUTS = "rollouts grew surer (entropy from {h.entropy.before:.2g} to {h.entropy.after:.2g} nats a token)"


def sentence(health: Health) -> str:
    """What PPO did to a student, in one sentence: its agreement, then what to worry about."""
    parts = [LEADS[_lead(health)], *_worries(health)]
    return "; ".join(parts).format(h=health, Judge=health.judge.capitalize(), fall=-health.gain) + "."


def _lead(health: Health) -> str:
    """Which of LEADS fits: what became of agreement, with reward where that went another way."""
    if not health.questions:
        return "not evaluated" if math.isfinite(health.agreement.after) else "no judge"
    if health.kept_start:
        return "kept start"
    if health.low > 0:
        return "rose" if health.reward_rose else "rose without reward"
    if health.reward_rose and (health.gain <= 0 or health.high < NOTICED):
        return "reward alone"
    if health.high < 0:
        return "fell"
    if not health.deviation:
        return "same"
    return "level" if health.questions_needed <= health.questions else "unclear"


def _worries(health: Health) -> list[str]:
    """What to look at before the student is used, whatever its agreement; first whether it is only surer."""
    judged = math.isfinite(health.votes.before)
    worries = {
        SURER: health.votes.high < 0,
        LESS_SURE: health.votes.low > 0,
        SURER_ROLLOUTS: not judged and health.entropy_fell,
        SHORTER: health.tokens.after < SHORT * health.tokens.before,
        EQUALLED: health.distinct.after < EQUAL * health.distinct.before,
        LESS_READABLE: health.answered.before - health.answered.after > UNREADABLE,
    }
    return [text for text, holds in worries.items() if holds]


# ---- the numbers


def measured(evidence: Evidence) -> list[Health]:
    """The health of every cell of own questions in which Ours was evaluated."""
    written = greedy_answers(evidence.evaluated)
    ours = written[written["method"] == AFTER]
    return [_measured(evidence, cell, written) for cell, _ in tables.cells_of(ours, tables.CELL)]


def greedy_answers(evaluated: pd.DataFrame) -> pd.DataFrame:
    """What the greedy answers to own test questions look like, a row an evaluation of a cell's models.

    `questions`, mean `tokens` of an answer, and the shares that are `answered` (an answer can be read) and `distinct`.
    """
    rows = tables.select(evaluated, variant="").dropna(subset="tokens").drop_duplicates(["key", "id"])
    table = rows.groupby(["key", "dataset", "student", "method", "seed"], sort=False).agg(
        teacher=("cell", "first"),
        questions=("id", "size"),
        tokens=("tokens", "mean"),
        answered=("answered", "mean"),
        distinct=("text", "nunique"),
    )
    table = table.reset_index()
    teachers = table["teacher"].str.split("/").str[1].where(table["method"] != UNTRAINED, "")
    return table.assign(teacher=teachers, distinct=table["distinct"] / table["questions"])


def _measured(evidence: Evidence, cell: tuple[str, str, str], written: pd.DataFrame) -> Health:
    judged, gold = _judged(evidence, cell)
    answers = {method: _of_method(written, cell, method) for method in METHODS}
    runs = _of_method(tables.select(evidence.ppo_history, variant=""), cell, AFTER)
    compared = len(judged[BEFORE]) and len(judged[AFTER])
    (reward, error), (entropy, entropy_error) = reward_change(runs), reward_change(runs, "entropy")
    return Health(
        "/".join(cell),
        gold=gold,
        agreement=_change(judged, "correct", 100),
        reward=reward,
        reward_error=error,
        kept_start=_kept_start(runs),
        entropy=entropy,
        entropy_error=entropy_error,
        **_samples(evidence, "/".join(cell)),
        **{name: _change(answers, name) for name in ("tokens", "distinct", "answered")},
        **(_difference(judged[AFTER], judged[BEFORE], cell[0]) if compared else {}),
    )


SAMPLES = {
    "votes": "vote entropy",
    "majority": "majority's share",
    "answers": "distinct answers",
    "texts": "distinct texts",
}


def _samples(evidence: Evidence, cell: str) -> dict[str, Paired]:
    """How much the samples of a question differ before and after PPO; nothing where none were judged."""
    if not evidence.seeds_of(REWARD_MODEL):
        return {}
    found = tables.select(evidence.sharpening(), cell=cell).set_index("measure")
    rows = ((name, found.loc[measure]) for name, measure in SAMPLES.items() if measure in found.index)
    return {name: Paired(r["before"], r["after"], low=r["change_low"], high=r["change_high"]) for name, r in rows}


def _of_method(table: pd.DataFrame, cell: tuple[str, str, str], method: str) -> pd.DataFrame:
    """The rows of a method in a cell; those of the student before training name no teacher."""
    dataset, teacher, student = cell
    return tables.select(
        table, dataset=dataset, teacher="" if method == UNTRAINED else teacher, student=student, method=method
    )


def _change(by_method: dict[str, pd.DataFrame], column: str, scale: float = 1) -> Change:
    """The mean of a column for each model, NaN for one without rows."""
    return Change(*(scale * by_method[method][column].astype(float).mean() for method in METHODS))


def _judged(evidence: Evidence, cell: tuple[str, str, str]) -> tuple[dict[str, pd.DataFrame], bool]:
    """The judged held-out answers of each model, and whether gold judges: it does where it has as many questions."""
    dataset, teacher, student = cell
    graded = {m: tables.method_rows(evidence.correctness, dataset, teacher, student, m) for m in METHODS}
    votes = tables.select(evidence.agreement, dataset=dataset, teacher=teacher, student=student, variant="")
    votes = votes.rename(columns={"agrees": "correct"})
    voted = {method: tables.select(votes, method=method) for method in METHODS}
    gold = len(graded[AFTER]) > 0 and len(graded[AFTER]) >= len(voted[AFTER])
    return (graded if gold else voted), gold


def _difference(after: pd.DataFrame, before: pd.DataFrame, key: str) -> dict[str, float]:
    """The paired difference with its interval, in points, and the deviation of a question's difference."""
    paired = stats.paired_table(after, before)
    interval = stats.paired_difference(after, before, key).interval()
    by_question = paired.groupby("id")["value"].mean()
    return {
        "questions": interval.n,
        "gain": 100 * interval.estimate,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "deviation": 100 * float(by_question.std(ddof=0)),
    }


def reward_change(history: pd.DataFrame, column: str = "reward") -> tuple[Change, float]:
    """The mean reward, or another column, of PPO's first and last updates, and the standard error of their difference.

    Columns update and that. `ENDS` updates are taken at each end, or half of what there is; of less than two no error
    is known, so nothing is said.
    """
    rewards = history[history["update"] > 0].groupby("update")[column].mean().sort_index()
    count = min(ENDS, len(rewards) // 2)
    if count < 2:
        return Change(), NAN
    first, last = rewards.head(count), rewards.tail(count)
    return Change(first.mean(), last.mean()), math.sqrt((first.var() + last.var()) / count)


def _kept_start(history: pd.DataFrame) -> bool:
    """Whether no update of any seed agreed better on validation questions than the model before PPO."""
    evaluated = history.dropna(subset="validation_agreement").sort_values("update")
    runs = [part["validation_agreement"].to_numpy(dtype=float) for _, part in evaluated.groupby("seed")]
    return bool(runs) and all(values.argmax() == 0 for values in runs)


# ---- the table


MEASURES = {
    "tokens of a greedy answer": ("tokens", 1),
    "distinct greedy answers (%)": ("distinct", 100),
    "greedy answers that can be read (%)": ("answered", 100),
    "reward of PPO's first and last updates": ("reward", 1),
}
OF_SAMPLES = {
    "entropy of PPO's first and last updates (nats a token)": ("entropy", 1),
    "vote entropy of a question's samples (nats)": ("votes", 1),
    "majority's share of a question's samples (%)": ("majority", 100),
    "distinct answers of a question's samples": ("answers", 1),
    "distinct texts of a question's samples": ("texts", 1),
}


def table(found: list[Health]) -> pd.DataFrame:
    """A row a cell and measure: before any training, after the warm-up, after PPO, and what PPO changed."""
    rows = []
    for one in found:
        interval = {"change_low": one.low, "change_high": one.high}
        rows.append({"cell": one.cell} | _row(f"{one.judge} (%)", one.agreement) | interval)
        for measure, (name, scale) in MEASURES.items():
            rows.append({"cell": one.cell} | _row(measure, getattr(one, name), scale))
        for measure, (name, scale) in OF_SAMPLES.items():
            change = getattr(one, name)
            ends = {f"change_{end}": scale * getattr(change, end, NAN) for end in ("low", "high")}
            if math.isfinite(change.after):
                rows.append({"cell": one.cell} | _row(measure, change, scale) | ends)
    return pd.DataFrame(rows)


def _row(measure: str, change: Change, scale: float = 1) -> dict:
    untrained, before, after = (scale * value for value in (change.untrained, change.before, change.after))
    columns = {"measure": measure, "before_training": untrained, "after_warmup": before, "after_ppo": after}
    return columns | {"change": after - before}


def verdict(found: list[Health]) -> str:
    """The sentences of all cells in bold type, each after its cell's name where there are several."""
    names = [f"{one.cell}: " if len(found) > 1 else "" for one in found]
    return " ".join(f"**{name}{sentence(one)}**" for name, one in zip(names, found, strict=True))
