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

import pandas as pd
from scipy.stats import norm

from rdlib.evidence import power, stats, tables
from rdlib.evidence.result_tables import REWARD_MODEL, Evidence

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
# What the table calls each change, and its scale there; the last five only where they are known
MEASURES = {
    "agreement": ("{judge} (%)", 1),
    "tokens": ("tokens of a greedy answer", 1),
    "distinct": ("distinct greedy answers (%)", 100),
    "answered": ("greedy answers that can be read (%)", 100),
    "reward": ("reward of PPO's first and last updates", 1),
    "entropy": ("entropy of PPO's first and last updates (nats a token)", 1),
    "votes": ("vote entropy of a question's samples (nats)", 1),
    "majority": ("majority's share of a question's samples (%)", 100),
    "answers": ("distinct answers of a question's samples", 1),
    "texts": ("distinct texts of a question's samples", 1),
}
IF_KNOWN = ("entropy", "votes", "majority", "answers", "texts")
SAMPLES = {  # as `rdlib.evidence.sharpening` calls them
    "votes": "vote entropy",
    "majority": "majority's share",
    "answers": "distinct answers",
    "texts": "distinct texts",
}


@dataclass(frozen=True)
class Change:
    """A number before and after PPO, and of the student before any training; NaN where it is not known.

    `low` to `high` is the 95 % interval of the paired difference, `error` the standard error of the change.
    """

    before: float = NAN
    after: float = NAN
    untrained: float = NAN
    low: float = NAN
    high: float = NAN
    error: float = NAN

    @property
    def direction(self) -> int:
        """1 where it rose by more than its noise, -1 where it fell by more, else 0."""
        change = self.after - self.before
        return int(math.copysign(1, change)) if abs(change) > SURE * self.error else 0


@dataclass(frozen=True)
class Health:
    """What PPO changed in one cell; agreement and its paired difference `gain` in per cent, shares from 0 to 1.

    `gold`: it is accuracy. `deviation` is that of a question's difference. `reward` and `entropy` (nats a token) are
    means of PPO's first and last updates. `kept_start`: PPO kept the model that it began with. The votes' entropy
    (nats), the majority's share and the distinct `texts` and `answers` are of the samples of a question.
    """

    cell: str
    questions: int = 0
    gold: bool = False
    gain: float = NAN
    deviation: float = NAN
    kept_start: bool = False
    agreement: Change = Change()
    tokens: Change = Change()
    distinct: Change = Change()
    answered: Change = Change()
    reward: Change = Change()
    entropy: Change = Change()
    votes: Change = Change()
    majority: Change = Change()
    answers: Change = Change()
    texts: Change = Change()

    @property
    def judge(self) -> str:
        """What is compared, in a word."""
        return "accuracy" if self.gold else "agreement"

    @property
    def questions_needed(self) -> int:
        """Held-out questions for 80 % power to detect the difference found, or a point at least; two digits."""
        size = min(max(abs(self.gain), NOTICED), PLANNED)
        z = norm.ppf((1 + stats.LEVEL) / 2) + norm.ppf(power.POWER)
        needed = math.ceil((z * self.deviation / size) ** 2)
        return max(10, math.ceil(needed / (digits := 10 ** max(0, len(str(needed)) - 2))) * digits)


# ---- in words


def verdict(found: list[Health]) -> str:
    """The sentences of all cells in bold type, each after its cell's name where there are several."""
    names = [f"{one.cell}: " if len(found) > 1 else "" for one in found]
    return " ".join(f"**{name}{sentence(one)}**" for name, one in zip(names, found, strict=True))


def sentence(h: Health) -> str:
    """What PPO did to a student, in one sentence: its agreement, then what to worry about."""
    known = _lead(h) if h.questions else f"what PPO changed is not known: {_unknown(h)}"
    return "; ".join([known[0].upper() + known[1:], *_worries(h)]) + "."


def _unknown(h: Health) -> str:
    if math.isfinite(h.agreement.after):
        return 'the warm-up was not evaluated (ARGS="--methods ours_wo_r" does)'
    return "no held-out question has a vote of the teacher or a gold answer"


def _lead(h: Health) -> str:
    """What became of agreement, with reward where that went another way."""
    low, high, asked = h.agreement.low, h.agreement.high, f"{h.questions:,} held-out questions"
    interval = f"points (95 % CI {low:.1f} to {high:.1f}, {asked})"
    if h.kept_start:
        kept = "PPO changed nothing: it kept the model that it began with, the warm-up's"
        return f"{kept} ({h.judge} {h.agreement.after:.0f} % on {asked})"
    if low > 0:
        remark = "" if h.reward.direction > 0 else ", though reward did not rise"
        return f"{h.judge} rose by {h.gain:.1f} {interval}{remark}"
    if h.reward.direction > 0 and (h.gain <= 0 or high < NOTICED):
        rose = f"reward rose (from {h.reward.before:.2f} to {h.reward.after:.2f}) while {h.judge} did not"
        advice = "reward hacking is suspected, so read the answers that changed in 06_ppo.ipynb"
        return f"{rose}: {h.gain:+.1f} {interval}; {advice}"
    if high < 0:
        return f"{h.judge} fell by {-h.gain:.1f} {interval}"
    if not h.deviation:
        return f"nothing changed in {h.judge}: each held-out question is answered as well as before"
    if h.questions_needed <= h.questions:
        return f"{h.judge} stayed as it was, to within a point or so: {h.gain:+.1f} {interval}"
    enough = f"about {h.questions_needed:,} held-out questions would be enough to decide"
    return f"whether {h.judge} changed is unclear: {h.gain:+.1f} {interval}; {enough}"


def _worries(h: Health) -> list[str]:
    """What to look at before the student is used, whatever its agreement; first whether it is only surer."""
    spread = (
        f"(vote entropy {_from(h.votes, '.2f')} nats, majority's share {_from(h.majority, '.0%')}, "
        f"distinct answers {_from(h.answers, '.1f')}, distinct texts {_from(h.texts, '.1f')})"
    )
    rollouts_surer = math.isnan(h.votes.before) and not h.kept_start and h.entropy.direction < 0
    worries = {
        f"samples grew surer {spread}": h.votes.high < 0,
        f"samples grew less sure {spread}": h.votes.low > 0,
        f"rollouts grew surer (entropy {_from(h.entropy, '.2g')} nats a token)": rollouts_surer,
        f"answers grew short ({_from(h.tokens, '.0f')} tokens)": h.tokens.after < SHORT * h.tokens.before,
        f"answers grew equal (distinct texts {_from(h.distinct, '.0%')})": h.distinct.after < EQUAL * h.distinct.before,
        f"fewer answers can be read ({_from(h.answered, '.0%')})": h.answered.before - h.answered.after > UNREADABLE,
    }
    return [text for text, holds in worries.items() if holds]


def _from(change: Change, form: str) -> str:
    return f"from {change.before:{form}} to {change.after:{form}}"


# ---- in numbers


def table(found: list[Health]) -> pd.DataFrame:
    """A row a cell and measure: before any training, after the warm-up, after PPO, and what PPO changed."""
    rows = []
    for one in found:
        for name, (measure, scale) in MEASURES.items():
            change = getattr(one, name)
            before, after = scale * change.before, scale * change.after
            row = {"cell": one.cell, "measure": measure.format(judge=one.judge)}
            row |= {"before_training": scale * change.untrained, "after_warmup": before, "after_ppo": after}
            row |= {"change": after - before, "change_low": scale * change.low, "change_high": scale * change.high}
            rows += [row] if name not in IF_KNOWN or math.isfinite(after) else []
    return pd.DataFrame(rows)


def measured(evidence: Evidence) -> list[Health]:
    """The health of every cell of own questions in which Ours was evaluated."""
    written = greedy_answers(evidence.evaluated)
    ours = tables.select(written, method=AFTER)
    return [_measured(evidence, cell, written) for cell, _ in tables.cells_of(ours, tables.CELL)]


def greedy_answers(evaluated: pd.DataFrame) -> pd.DataFrame:
    """What the greedy answers to own test questions look like, a row an evaluation of a cell's models.

    Mean `tokens` of an answer, and the shares that are `answered` (an answer can be read) and `distinct`.
    """
    rows = tables.select(evaluated, variant="").dropna(subset="tokens").drop_duplicates(["key", "id"])
    teachers = rows["cell"].str.split("/").str[1].where(rows["method"] != UNTRAINED, "")
    groups = rows.assign(teacher=teachers).groupby(["key", *tables.CELL, "method"], sort=False)
    means = groups.agg(tokens=("tokens", "mean"), answered=("answered", "mean"), distinct=("text", "nunique"))
    return means.assign(distinct=means["distinct"] / groups.size()).reset_index()


def _measured(evidence: Evidence, cell: tuple[str, str, str], written: pd.DataFrame) -> Health:
    judged, gold = _judged(evidence, *cell)
    runs = _of_method(tables.select(evidence.ppo_history, variant=""), cell, AFTER)
    answers = {method: _of_method(written, cell, method) for method in METHODS}
    compared = len(judged[BEFORE]) and len(judged[AFTER])
    found = _difference(judged[AFTER], judged[BEFORE], cell[0]) if compared else {}
    interval = {end: found.pop(end) for end in ("low", "high") if found}
    return Health(
        "/".join(cell),
        gold=gold,
        kept_start=_kept_start(runs),
        agreement=_change(judged, "correct", 100, **interval),
        **{name: _change(answers, name) for name in ("tokens", "distinct", "answered")},
        **{name: along_ppo(runs, name) for name in ("reward", "entropy")},
        **_samples(evidence, "/".join(cell)),
        **found,
    )


def _of_method(table: pd.DataFrame, cell: tuple[str, str, str], method: str) -> pd.DataFrame:
    """The rows of a method in a cell; those of the student before training name no teacher."""
    axes = dict(zip(tables.CELL, cell, strict=True)) | ({"teacher": ""} if method == UNTRAINED else {})
    return tables.select(table, **axes, method=method)


def _change(by_method: dict[str, pd.DataFrame], column: str, scale: float = 1, **interval: float) -> Change:
    """The mean of a column for each model, NaN for one without rows."""
    return Change(*(scale * by_method[method][column].astype(float).mean() for method in METHODS), **interval)


def _judged(evidence: Evidence, dataset: str, teacher: str, student: str) -> tuple[dict[str, pd.DataFrame], bool]:
    """The judged held-out answers of each model, and whether gold judges: it does where it has as many questions."""
    graded = {m: tables.method_rows(evidence.correctness, dataset, teacher, student, m) for m in METHODS}
    votes = tables.select(evidence.agreement, dataset=dataset, teacher=teacher, student=student, variant="")
    votes = votes.rename(columns={"agrees": "correct"})
    voted = {method: tables.select(votes, method=method) for method in METHODS}
    gold = len(graded[AFTER]) > 0 and len(graded[AFTER]) >= len(voted[AFTER])
    return (graded if gold else voted), gold


def _difference(after: pd.DataFrame, before: pd.DataFrame, key: str) -> dict[str, float]:
    """The paired difference with its interval, in points, and the deviation of a question's difference."""
    interval = stats.paired_difference(after, before, key).interval()
    deviation = float(stats.paired_table(after, before).groupby("id")["value"].mean().std(ddof=0))
    gain, low, high, deviation = (100 * value for value in (interval.estimate, interval.low, interval.high, deviation))
    return {"questions": interval.n, "gain": gain, "low": low, "high": high, "deviation": deviation}


def _samples(evidence: Evidence, cell: str) -> dict[str, Change]:
    """How much the samples of a question differ before and after PPO; nothing where none were judged."""
    if not evidence.seeds_of(REWARD_MODEL):
        return {}
    found = tables.select(evidence.sharpening(), cell=cell).set_index("measure")
    rows = ((name, found.loc[measure]) for name, measure in SAMPLES.items() if measure in found.index)
    return {name: Change(r["before"], r["after"], low=r["change_low"], high=r["change_high"]) for name, r in rows}


def along_ppo(history: pd.DataFrame, column: str) -> Change:
    """The mean of a column of PPO's first and last updates, and the standard error of their difference.

    `history`: update and that column. `ENDS` updates are taken at each end, or half of what there is; of less than two
    no error is known, so nothing is said.
    """
    values = history[history["update"] > 0].groupby("update")[column].mean().sort_index()
    count = min(ENDS, len(values) // 2)
    if count < 2:
        return Change()
    first, last = values.head(count), values.tail(count)
    return Change(first.mean(), last.mean(), error=math.sqrt((first.var() + last.var()) / count))


def _kept_start(history: pd.DataFrame) -> bool:
    """Whether no update of any seed agreed better on validation questions than the model before PPO."""
    evaluated = history.dropna(subset="validation_agreement").sort_values("update")
    runs = [part["validation_agreement"].to_numpy(dtype=float) for _, part in evaluated.groupby("seed")]
    return bool(runs) and all(values.argmax() == 0 for values in runs)
