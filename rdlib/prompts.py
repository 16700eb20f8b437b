"""Prompts: zero-shot for every stage, few-shot for in-context learning.

The paper's prompts (its Appendix A) are missing from its text; these are ours. Example, zero-shot:

    Q: in history , what is the metal of dorek ? (A) zinc (B) iron (C) tin A:
"""

from __future__ import annotations

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJ"


def zero_shot(question: str, options: Sequence[str] = ()) -> str:
    """The prompt of one question; options are lettered from A."""
    lettered = "".join(f" ({letter}) {value}" for letter, value in zip(LETTERS, options, strict=False))
    return f"Q: {question}{lettered} A:"


def few_shot(examples: Sequence[tuple[str, Sequence[str], str]], question: str, options: Sequence[str] = ()) -> str:
    """The prompt of one question after worked examples (question, options, response)."""
    shown = [f"{zero_shot(q, o)} {response}" for q, o, response in examples]
    return " ".join([*shown, zero_shot(question, options)])
