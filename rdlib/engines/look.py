"""A look at responses before the whole is paid for: what share is of use, what it will take, and whether to continue.

    counts = count(table)                  # of the first twenty questions' responses
    reason = reason_to_stop(counts, ...)   # None, or what is wrong in most of them

The same counts watch the rollouts of PPO (`rdlib.method.rollout_guard`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

MOST = 0.5  # share of responses from which a fault is that of the whole, not of a question
NEARLY_ALL = 0.9  # share of groups of equal texts: even a sure model varies its words somewhere
HOT = 0.5  # temperature from which equal texts say that nothing is sampled
FEWEST_WORDS = 5  # of a text that would vary if it were sampled: "#### 4" need not


@dataclass(frozen=True)
class Counts:
    """What became of responses; shares are in [0, 1], None where there is nothing to count.

    `unanswered` is of all samples, `cut` (at the limit), `empty` and `unreadable` (no answer can be read) of those that
    were answered. `equal`: questions whose samples at the hottest temperature all have one text; `stuck`: the same of
    texts of `FEWEST_WORDS` words at least, which would vary if they were sampled. `agreement`: the mean share of the
    most frequent answer of a question. `tokens`: of a response, the mean.
    """

    questions: int
    samples: int
    unanswered: float
    cut: float | None
    empty: float | None
    unreadable: float | None
    equal: float | None
    stuck: float | None
    agreement: float | None
    tokens: float | None


def count(table: pd.DataFrame) -> Counts:
    """Count responses, a row a sample: id, temperature, text, tokens, finished, answer, and words (why unanswered)."""
    answered = table[table["words"] == ""]
    return Counts(
        questions=table["id"].nunique(),
        samples=len(table),
        unanswered=1 - len(answered) / len(table) if len(table) else 0.0,
        cut=_share(~answered["finished"]),
        empty=_share(answered["text"].str.strip() == ""),
        unreadable=_share(answered["answer"].isna()),
        equal=_equal(answered),
        stuck=_equal(answered[answered["text"].str.split().str.len() >= FEWEST_WORDS]),
        agreement=_agreement(table),
        tokens=float(answered["tokens"].mean()) if len(answered) else None,
    )


def _share(flags: pd.Series) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _equal(answered: pd.DataFrame) -> float | None:
    """Share of the questions whose samples at the hottest temperature are all one text; None where none were hot."""
    heat = answered["temperature"].fillna(1.0)  # the provider's own
    hot = answered[(heat == heat.max()) & (heat >= HOT)]
    groups = hot.groupby("id")["text"].agg(["size", "nunique"])
    groups = groups[groups["size"] > 1]
    return float((groups["nunique"] == 1).mean()) if len(groups) else None


def _agreement(table: pd.DataFrame) -> float | None:
    """The mean over questions of the share that the most frequent answer has of all samples."""
    if table.empty:
        return None
    most = table.groupby("id")["answer"].agg(
        lambda answers: answers.value_counts().max() if answers.notna().any() else 0
    )
    return float((most / table.groupby("id").size()).mean())


def reason_to_stop(counts: Counts, limit: int) -> tuple[str, str] | None:
    """What is wrong with most responses, and the setting that may help; None where most are of use.

    `limit` is the most tokens of a response, for the advice.
    """
    if (counts.empty or 0) > MOST:
        what = f"{counts.empty:.0%} of the responses are empty: all their tokens may have gone into thinking"
        return what, f"raise max_tokens (now {limit}) of the teacher, or lower its effort by request.body"
    if (counts.cut or 0) > MOST:
        what = f"{counts.cut:.0%} of the responses were cut at max_tokens, now {limit}"
        return what, "raise max_tokens of the teacher, or ask for less in the dataset's prompt"
    if (counts.unreadable or 0) > MOST:
        what = f"no answer can be read in {counts.unreadable:.0%} of the responses"
        return what, (
            "look at the examples: is the kind of answer right, does the whole prompt reach the model (Ollama cuts it "
            "at num_ctx), does the model follow the instruction"
        )
    if (counts.stuck or 0) > NEARLY_ALL:
        what = f"all samples of a question are one text at the hottest temperature, in {counts.stuck:.0%} of questions"
        return what, (
            "the server ignores temperature and seed, gives n equal samples, or caches: switch its cache off, or ask "
            "for samples one by one with leave_out: [n] or without seeds with leave_out: [seed]"
        )
    return None


def lines(counts: Counts) -> list[str]:
    """The counts as lines of a screen."""
    shown = [
        ("unanswered", counts.unanswered),
        ("cut at max_tokens", counts.cut),
        ("empty", counts.empty),
        ("without an answer that can be read", counts.unreadable),
        ("questions whose samples are one text", counts.equal),
        ("agreement of the samples with their majority", counts.agreement),
    ]
    found = [f"  {name:<46} {value:>6.0%}" for name, value in shown if value is not None]
    tokens = [] if counts.tokens is None else [f"  {'tokens of a response, on average':<46} {counts.tokens:>6.0f}"]
    return [*found, *tokens]


def examples(table: pd.DataFrame, questions: dict[str, str], most: int = 3, width: int = 300) -> list[str]:
    """A few responses, of different questions, with the answer that was read."""
    found = []
    for row in table.drop_duplicates("id").head(most).itertuples():
        text = " ".join(row.text.split())
        text = text if len(text) <= width else f"{text[: width // 2]} ... {text[-width // 2 :]}"
        read = "nothing" if pd.isna(row.answer) else repr(row.answer)
        said = f"unanswered: {row.words}" if row.words else f"{text!r}; read: {read}"
        found.append(f"  {' '.join(questions.get(row.id, row.id).split())[:100]!r}\n    {said}")
    return found
