"""What the models made of one question, as tables of responses: the vote, agreement, rewards and scores by lambda.

    vote = vote_on(asked.teacher, threshold=0.7)
    judged(asked.students(0.5), vote.label, profile.reward)     # agreement with a*(x), and the reward of Eq. 7
    orderings(scores_by_lambda(asked, vote.label), [0.0, 0.5])  # what Figure 5 measures, on this question alone

`rdlib.study.explore` has the models asked; a table of responses has a row a sample (see `Asked`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from rdlib.method import metrics, reward_model, voting
from rdlib.method.reward import reward
from rdlib.settings import Reward
from rdlib.tasks import answers

TEACHER = "teacher"  # among the names of the models
NO_ANSWER, OTHERS = "(no answer)", "(others)"


@dataclass(frozen=True)
class Asked:
    """All that was sampled for one question.

    `responses`: a row a sample with model (teacher, or one of the students), confidence, temperature, sample, text,
    finished and answer. `scores`: r_phi of the same rows, a column for each lambda that there is a reward model of.
    """

    text: str
    gold: str | None
    responses: pd.DataFrame
    scores: pd.DataFrame

    @property
    def teacher(self) -> pd.DataFrame:
        """The teacher's responses."""
        return self.responses[self.responses["model"] == TEACHER]

    def students(self, lam: float) -> pd.DataFrame:
        """The students' responses, with the scores of the reward model of a lambda, NaN where there is none."""
        score = self.scores[lam] if lam in self.scores else float("nan")
        return self.responses.assign(score=score)[self.responses["model"] != TEACHER]


@dataclass(frozen=True)
class Vote:
    """The majority vote of section 3.1 on one question; `label` is a*(x), None where x goes to Q_fail."""

    leading: str | None
    count: int
    total: int
    threshold: float
    label: str | None

    def __str__(self) -> str:
        if self.leading is None:
            return f"None of the {self.total} high-confidence responses has an answer: Q_fail, no pseudo-label."
        share = (
            f"{self.leading} has {self.count} of the {self.total} high-confidence votes ({self.count / self.total:.0%})"
        )
        if self.label is None:
            return f"{share}, not above the threshold of {self.threshold:.0%}: Q_fail, no pseudo-label."
        return f"{share}, above the threshold of {self.threshold:.0%}: a*(x) = {self.label}."


def given(responses: pd.DataFrame) -> list[str | None]:
    """The answers of a table of responses, None where one has none."""
    return [None if pd.isna(answer) else answer for answer in responses["answer"]]


def vote_on(responses: pd.DataFrame, threshold: float) -> Vote:
    """The vote over the high-confidence ones among the teacher's responses to one question."""
    votes = given(responses[responses["confidence"] == "high"])
    leading, _ = voting.majority_vote(votes, 0.0)
    label, _ = voting.majority_vote(votes, threshold)
    return Vote(leading, votes.count(leading) if leading else 0, len(votes), threshold, label)


def answer_counts(responses: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """How often each answer came at each (confidence, temperature); the `most` frequent answers, then all others."""
    found = responses["answer"].fillna(NO_ANSWER).rename("answer")
    counts = pd.crosstab([responses["confidence"], responses["temperature"]], found)
    order = sorted(counts, key=lambda answer: (answer == NO_ANSWER, -counts[answer].sum(), answer))
    table = counts[order[:most]]
    return table.assign(**{OTHERS: counts[order[most:]].sum(axis=1)}) if order[most:] else table


def distinct(responses: pd.DataFrame) -> pd.DataFrame:
    """Equal texts as one row: answer, times, temperatures, text; by how frequent answer and text are."""
    table = responses.assign(answer=responses["answer"].fillna(NO_ANSWER))
    groups = table.groupby(["answer", "text"])["temperature"]
    rows = groups.agg(times="size", temperatures=lambda t: ", ".join(f"{v:g}" for v in sorted(set(t)))).reset_index()
    rows["of_answer"] = rows.groupby("answer")["times"].transform("sum")
    rows = rows.sort_values(["of_answer", "answer", "times", "text"], ascending=[False, True, False, True])
    return rows[["answer", "times", "temperatures", "text"]].reset_index(drop=True)


def vote_shares(counts: pd.DataFrame) -> pd.Series:
    """Share of the high-confidence responses that gave each answer of a table by `answer_counts`."""
    votes = counts.loc["high"].sum()
    return votes / votes.sum()


def judged(responses: pd.DataFrame, label: str | None, settings: Reward, scale: float = 1.0) -> pd.DataFrame:
    """Responses with `agrees` (with a*(x) = `label`; None in Q_fail) and `reward` (Eq. 7), by model, best first.

    `scale`: what Eq. 7 divides a score by.
    """
    found = given(responses)
    agrees = [None if label is None else answers.same(answer, label) for answer in found]
    scores = torch.tensor(responses["score"].to_numpy(dtype=float))
    rewards = reward(scores, found, [label] * len(found), settings, scale).numpy()
    table = responses.assign(agrees=pd.Series(agrees, index=responses.index, dtype=object), reward=rewards)
    order = {model: place for place, model in enumerate(dict.fromkeys(responses["model"]))}
    ranked = table.assign(place=table["model"].map(order)).sort_values(
        ["place", "reward", "score", "text"], ascending=[True, False, False, True], kind="stable"
    )
    return ranked.drop(columns="place")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a model of a table by `judged`: samples, agree (share), mean score and mean reward."""
    table = table.assign(agrees=table["agrees"].astype(float))
    columns = {"samples": ("text", "size"), "agree": ("agrees", "mean")}
    columns |= {f"mean {name}": (name, "mean") for name in ("score", "reward")}
    return table.groupby("model", sort=False).agg(**columns).reset_index()


def kinds(responses: pd.DataFrame, label: str | None) -> pd.Series:
    """What the reward model's training would call each response (Eq. 4 and 5).

    None for a teacher's wrong one, which it does not use, and where there is no pseudo-label.
    """
    names = {
        (True, True): reward_model.KINDS[reward_model.TEACHER_POSITIVE],
        (False, True): reward_model.KINDS[reward_model.STUDENT_POSITIVE],
        (False, False): reward_model.KINDS[reward_model.STUDENT_NEGATIVE],
    }
    pairs = zip(responses["model"] == TEACHER, given(responses), strict=True)
    found = [None if label is None else names.get((bool(t), answers.same(answer, label))) for t, answer in pairs]
    return pd.Series(found, index=responses.index, dtype=object)


def scores_by_lambda(asked: Asked, label: str | None) -> pd.DataFrame:
    """The responses that Eq. 5 compares (all of the students' in Q_fail), each text of a kind once.

    Columns kind, model, answer, text and a score for each lambda; by kind, then the best of the first lambda first.
    """
    table = asked.responses.assign(kind=kinds(asked.responses, label)).join(asked.scores)
    kept = table["kind"].notna() if label is not None else table["model"] != TEACHER
    table = table[kept].drop_duplicates(["kind", "model", "text"])
    order = ["kind", *asked.scores.columns[:1]]
    table = table.sort_values(order, ascending=[True, False][: len(order)], kind="stable")
    return table[["kind", "model", "answer", "text", *asked.scores.columns]].reset_index(drop=True)


def orderings(table: pd.DataFrame, lambdas: Sequence[float]) -> pd.DataFrame:
    """Share of pairs that each lambda's reward model orders as Eq. 5 wants it, a row a lambda: pos_neg and pos_pos."""
    rows = {
        lam: {
            name: metrics.comparison_auc(table[["kind"]].assign(score=table[lam]), name) for name in metrics.COMPARISONS
        }
        for lam in lambdas
    }
    return pd.DataFrame(rows).T.rename_axis("lambda")
