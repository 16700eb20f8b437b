"""What is measured: accuracy, AUC and ROC, as pure functions of arrays and tables.

Worked example of the AUC (Mann-Whitney): positives 2, 1 and negatives 1, 0 make four pairs; the positive wins
three (2 > 1, 2 > 0, 1 > 0) and ties one (1 = 1), so the AUC is (3 + 1/2) / 4 = 0.875.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

# Table 3's two comparisons: the kind that should score higher, then the kind that should score lower.
COMPARISONS = {
    "pos_neg": ("student_positive", "student_negative"),
    "pos_pos": ("teacher_positive", "student_positive"),
}


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Share of (positive, negative) pairs that the positive wins, a tie counting one half.

    Returns NaN where it is undefined: an empty class, or a score that is NaN.
    """
    positives, negatives = np.asarray(positives, dtype=float), np.sort(np.asarray(negatives, dtype=float))
    if not len(positives) or not len(negatives) or np.isnan(positives).any() or np.isnan(negatives).any():
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return float((below + not_above).sum() / (2 * len(positives) * len(negatives)))


def comparison_auc(scores: pd.DataFrame, comparison: str) -> float:
    """AUC of one of Table 3's comparisons ("pos_neg" or "pos_pos") in a table with columns kind, score."""
    higher, lower = COMPARISONS[comparison]
    return auc(scores.score[scores.kind == higher], scores.score[scores.kind == lower])


def accuracy(correct: Sequence[bool]) -> float:
    """Share of correct answers in [0, 1]; NaN when there are none."""
    correct = np.asarray(correct, dtype=float)
    return float(correct.mean()) if len(correct) else float("nan")


def roc_points(scores: pd.DataFrame, comparison: str, most: int = 200) -> pd.DataFrame:
    """ROC curve of a comparison as columns fpr, tpr; at most about `most` points; empty where undefined."""
    higher, lower = COMPARISONS[comparison]
    pair = scores[scores.kind.isin([higher, lower])]
    if pair.kind.nunique() < 2 or pair.score.isna().any():
        return pd.DataFrame({"fpr": [], "tpr": []}, dtype=float)
    fpr, tpr, _ = roc_curve(pair.kind == higher, pair.score)
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(most, len(fpr))).round().astype(int))
    return pd.DataFrame({"fpr": fpr[keep], "tpr": tpr[keep]})


def score_histogram(scores: pd.DataFrame, bins: int = 30) -> pd.DataFrame:
    """Histogram of the scores of each kind on common bins: columns kind, bin_low, bin_high, density."""
    finite = scores[np.isfinite(scores.score)]
    if finite.empty:
        return pd.DataFrame({"kind": [], "bin_low": [], "bin_high": [], "density": []})
    edges = np.histogram_bin_edges(finite.score, bins=bins)
    parts = []
    for kind, group in finite.groupby("kind", sort=True):
        density, _ = np.histogram(group.score, bins=edges, density=True)
        parts.append(pd.DataFrame({"kind": kind, "bin_low": edges[:-1], "bin_high": edges[1:], "density": density}))
    return pd.concat(parts, ignore_index=True)
