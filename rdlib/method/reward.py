"""The reward of Eq. 7: the reward model's score, corrected by the pseudo-label, and -5 for no answer.

Beside it, the vote alone (RLVR on the pseudo-labels), with which reviewers asked it to be compared, the vote with the
reward model in its place where it is unsure, and controls: the student's own vote (`own_vote`), form alone, and
rewards that say nothing about the response that gets them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rdlib.settings import Reward
from rdlib.tasks import answers

if TYPE_CHECKING:
    import pandas as pd

# Of the reward model's responses, as `rdlib.method.metrics` compares them
STUDENT_KINDS = "student_positive", "student_negative"
VOTES = "vote", "student_vote", "renewed_vote"  # sources that differ in whose vote the labels are
SCORES = "reward_model", "shuffled"  # sources whose rewards are Eq. 7's


def mismatch_reward(score: torch.Tensor, variant: str, constant: float) -> torch.Tensor:
    """g(r) of Eq. 7 for an answer that differs from the pseudo-label; same shape as `score`.

    negative_abs: -|r|, never a reward (reconstructed default) · minus: r - constant (Table 7) ·
    clip: min(r, 0) · fixed: -constant whatever the score · none: r, no correction.
    """
    if variant == "negative_abs":
        return -score.abs()
    if variant == "minus":
        return score - constant
    if variant == "clip":
        return score.clamp(max=0)
    if variant == "fixed":
        return torch.full_like(score, -constant)
    if variant == "none":
        return score
    raise ValueError(f"unknown correctness validation {variant!r}")


def vote_reward(extracted: Sequence[str | None], labels: Sequence[str | None]) -> torch.Tensor:
    """1 where the answer is the pseudo-label, else 0, also for every answer to a question of Q_fail; shape [B]."""
    pairs = zip(extracted, labels, strict=True)
    return torch.tensor([float(y is not None and answers.same(a, y)) for a, y in pairs])


def vote_first_reward(
    scores: torch.Tensor, extracted: Sequence[str | None], labels: Sequence[str | None]
) -> torch.Tensor:
    """The vote's 1 or 0 where there is a pseudo-label, else sigmoid(r), or 0 without an answer; shape [B].

    Eq. 4 trains sigmoid(r) to be the chance that a response agrees with the vote, so it stands in for the vote.
    """
    unsure = torch.tensor([a is not None and y is None for a, y in zip(extracted, labels, strict=True)])
    return torch.where(unsure, scores.sigmoid(), vote_reward(extracted, labels).to(scores))


def form_reward(extracted: Sequence[str | None]) -> torch.Tensor:
    """1 where there is an answer, whatever it is, else 0; shape [B]."""
    return torch.tensor([float(a is not None) for a in extracted])


def shuffled(rewards: torch.Tensor, seed: int) -> torch.Tensor:
    """The rewards [B] in an order drawn from the seed: of the same distribution, and about no response."""
    return rewards[torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))]


def scale_of(scores: pd.DataFrame, settings: Reward) -> float:
    """What rewards are divided by: 1 for `raw`, or where all are equal, else a standard deviation.

    That of the scores, which Eq. 7 is of or, where rewards are 1 and 0, of the vote's for the student's responses.
    `scores`: kind and score of the reward model's validation responses.
    """
    if settings.scale == "raw":
        return 1.0
    if settings.source in SCORES:
        values = map(float, scores["score"])
    else:
        values = [float(kind == STUDENT_KINDS[0]) for kind in scores["kind"] if kind in STUDENT_KINDS]
    return statistics.pstdev(values) or 1.0  # exact, so the same on every machine


def reward(
    scores: torch.Tensor,
    extracted: Sequence[str | None],
    labels: Sequence[str | None],
    settings: Reward,
    scale: float = 1.0,
) -> torch.Tensor:
    """r_hat(x, y) of Eq. 7, shape [B].

    `scores` [B] are r_phi(x, y); `extracted` the final answers a(y); `labels` the pseudo-labels a*(x), None
    for a question of Q_fail, whose answers are judged by the reward model alone; of the student's own vote the labels
    are that. Eq. 7 is of the scores over `scale` (`scale_of`), other rewards are divided by it. Those of "shuffled" are
    Eq. 7's, not `shuffled` yet.
    """
    if settings.source == "form":
        return form_reward(extracted).to(scores) / scale
    if settings.source in VOTES:
        return vote_reward(extracted, labels).to(scores) / scale
    if settings.source == "vote_first":
        return vote_first_reward(scores, extracted, labels) / scale
    scores = scores / scale
    mismatch = torch.tensor(
        [label is not None and not answers.same(a, label) for a, label in zip(extracted, labels, strict=True)]
    )
    unextractable = torch.tensor([a is None for a in extracted])
    corrected = mismatch_reward(scores, settings.mismatch, settings.mismatch_constant)
    result = torch.where(mismatch, corrected, scores)
    return torch.where(unextractable, settings.no_answer, result)
