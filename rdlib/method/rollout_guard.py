"""Ends PPO when its rollouts are of no use: cut at the limit, empty, without an answer, or all the same.

The shares are those of a first look at a teacher (`rdlib.engines.look`). A bad update can be chance, so it takes
`UPDATES` in a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rdlib.engines.look import FEWEST_WORDS, NEARLY_ALL
from rdlib.errors import UserError

UPDATES = 3  # in a row; with fewer, one unlucky draw of queries would end a run of hours


class RolloutGuard:
    """Counts the rollouts of each update; `ends` are the tokens that end a response, `limit` the most tokens of one.

    Without a warm-up a policy may have to learn first how to end and where to put an answer, so then (`learns_form`)
    only empty and equal rollouts count.
    """

    def __init__(self, label: str, ends: set[int], limit: int, learns_form: bool):
        self.label, self.ends, self.limit, self.learns_form = label, ends, limit, learns_form
        self.bad: Counter[str] = Counter()

    def __call__(self, texts: Sequence[str], given: Sequence[str | None], sequences: Sequence[Sequence[int]]) -> None:
        """Take in an update's rollouts; UserError at the third in a row of which nearly all are of no use."""
        found = shares(texts, given, [sequence[-1] in self.ends for sequence in sequences])
        for what, share in found.items():
            self.bad[what] = self.bad[what] + 1 if share > NEARLY_ALL else 0
        for what in ("empty", "equal") if self.learns_form else found:
            if self.bad[what] >= UPDATES:
                raise UserError(f"{self.label}: {self._sentence(what, found[what])}")

    def _sentence(self, what: str, share: float) -> str:
        told = {
            "cut": f"were cut at max_tokens ({self.limit}): raise the dataset's max_tokens, or warm up on shorter "
            f"responses",
            "empty": "are empty: raise ppo.kl_coef, or lower ppo.learning_rate",
            "unreadable": "hold no answer that can be read: look at 04_student_responses, what the warm-up says",
            "equal": "are one text, whatever the question: raise ppo.kl_coef, or lower ppo.learning_rate",
        }
        return f"in {UPDATES} updates in a row of PPO, at last {share:.0%} of the rollouts {told[what]}."


def shares(texts: Sequence[str], given: Sequence[str | None], ended: Sequence[bool]) -> dict[str, float]:
    """Shares in [0, 1] of rollouts that were cut, are empty, hold no answer, or have the most frequent text.

    Texts of a few words may be equal by right, so they do not count as such.
    """
    long = [text for text in texts if len(text.split()) >= FEWEST_WORDS]
    most = max(Counter(long).values()) if len(long) > 1 else 0
    count = len(texts)
    return {
        "cut": sum(not end for end in ended) / count,
        "empty": sum(not text.strip() for text in texts) / count,
        "unreadable": sum(answer is None for answer in given) / count,
        "equal": most / count if most > 1 else 0.0,
    }
