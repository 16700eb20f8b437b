"""How large the benchmarks are, for estimates: questions of each split, tokens of a prompt and of a response."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rdlib.settings import Dataset

# Questions of the splits of appendix B.1, where a profile takes all there are.
SIZES = {
    "gsm8k": {"train": 6726, "validation": 747, "test": 1319, "perturbed_test": 10552},
    "mmlu_pro": {"train": 9204, "validation": 1023, "test": 1805, "perturbed_test": 0},
}
# Tokens of a prompt and of a response: of Llama-3's on GSM8K and MMLU-Pro (../shared/data), and of the micro models'.
LENGTHS = {
    "gsm8k": (130, 190),
    "mmlu_pro": (260, 330),
    "micro-gsm": (40, 45),
    "micro-mmlu": (50, 12),
    "questions": (150, 250),
}
# Tokens of the longest prompt: 985 and 5,286 characters of a question over 3.5, and the instruction around it.
LONGEST = {"gsm8k": 350, "mmlu_pro": 1600, "micro-gsm": 100, "micro-mmlu": 100, "questions": 600}


def split_sizes(dataset: Dataset, root: Path) -> dict[str, int]:
    """Questions of each split of a dataset; UserError where a file of your own questions cannot be read."""
    given = {name: getattr(dataset, name) for name in ("train", "validation", "test", "perturbed_test")}
    if None not in given.values():
        return given
    if dataset.source in SIZES:
        known = SIZES[dataset.source]
    else:
        from rdlib.tasks import data

        splits = pd.Series([q.split for q in data.load(dataset.source, dataset, root)]).value_counts()
        known = {name: int(splits.get(name, 0)) for name in given}
    return {name: known[name] if count is None else min(count, known[name]) for name, count in given.items()}
