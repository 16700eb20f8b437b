"""The student's own majority vote instead of the teacher's: controls of what the teacher's vote is worth.

It is fixed before PPO, or sampled from the policy at every update as in TTRL (Zuo et al., 2025). Only queries with a
pseudo-label have one, so that both votes reward the same queries. The student's vote has no threshold: the most
frequent answer counts, however few samples give it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from rdlib.method.ppo_schedule import seed_of
from rdlib.method.voting import majority_vote

Votes = Callable[[Sequence[int]], list[str | None]]  # the labels of queries, by index
Answers = Callable[[Sequence[int], int, int], list[list[str | None]]]  # of queries: samples of each, and a seed


def vote(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, None where there is none."""
    return majority_vote(answers, 0.0)[0]


def fixed(queries: pd.DataFrame, responses: pd.DataFrame) -> Votes:
    """The student's vote by its samples in `responses` (id, answer), for queries (id, pseudo_label) with a label."""
    answers = responses["answer"].astype(object).where(responses["answer"].notna(), None)
    voted = {key: vote(list(given)) for key, given in answers.groupby(responses["id"])}
    labelled = queries["id"].where(queries["pseudo_label"].notna())
    labels = [None if pd.isna(key) else voted.get(key) for key in labelled]
    return lambda indices: [labels[i] for i in indices]


def renewed(labels: Sequence[str | None], answers: Answers, count: int, seed: int) -> Votes:
    """The vote of `count` samples of the policy as it is, for queries that have one of the `labels`.

    The seed of the samples is a function of `seed` and the update's queries alone, so a run that was killed continues
    as it would have gone on.
    """

    def votes(indices: Sequence[int]) -> list[str | None]:
        """Labels of an update's queries."""
        asked = [i for i in indices if labels[i] is not None]
        found = iter([vote(given) for given in answers(asked, count, seed_of(seed, "vote", *indices))])
        return [None if labels[i] is None else next(found) for i in indices]

    return votes
