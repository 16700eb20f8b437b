"""Metrics against values counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rdlib.method import metrics

SCORES = pd.DataFrame(
    {
        "kind": ["student_positive"] * 2 + ["student_negative"] * 2 + ["teacher_positive"] * 2,
        "score": [2.0, 1.0, 1.0, 0.0, 3.0, 0.5],
    }
)
values = st.lists(st.integers(-3, 3), min_size=1, max_size=12)
any_score = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, math.inf])


def test_auc_counts_pairs_and_half_of_ties():
    assert metrics.auc([2, 1], [1, 0]) == 0.875
    assert metrics.auc([1, 1], [1]) == 0.5
    assert metrics.auc([0], [1, 2]) == 0
    assert metrics.auc([3, 4], [1, 2]) == 1


@pytest.mark.parametrize(("positives", "negatives"), [([], [1]), ([1], []), ([math.nan], [0]), ([1], [math.nan, 0])])
def test_auc_is_nan_where_it_is_undefined(positives, negatives):
    assert math.isnan(metrics.auc(positives, negatives))


@given(values, values)
def test_auc_is_scikit_learns_and_antisymmetric(positives, negatives):
    labels = [1] * len(positives) + [0] * len(negatives)
    assert metrics.auc(positives, negatives) == pytest.approx(roc_auc_score(labels, positives + negatives))
    assert metrics.auc(positives, negatives) + metrics.auc(negatives, positives) == pytest.approx(1)


@given(st.lists(any_score, min_size=1, max_size=8), st.lists(any_score, min_size=1, max_size=8))
def test_auc_is_the_share_of_pairs_that_the_positive_wins(positives, negatives):
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    assert metrics.auc(positives, negatives) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


def test_comparisons_of_table_3():
    assert metrics.comparison_auc(SCORES, "pos_neg") == 0.875
    assert metrics.comparison_auc(SCORES, "pos_pos") == 0.5  # 3 beats both, 0.5 neither


def test_accuracy():
    assert metrics.accuracy([True, False, True, True]) == 0.75
    assert math.isnan(metrics.accuracy([]))


def test_area_under_the_roc_points_is_the_auc_of_the_same_pair():
    points = metrics.roc_points(SCORES, "pos_neg")
    assert np.trapezoid(points.tpr, points.fpr) == pytest.approx(0.875)
    assert tuple(points.iloc[0]) == (0, 0) and tuple(points.iloc[-1]) == (1, 1)


def test_roc_points_are_thinned_and_empty_where_undefined():
    rng = np.random.default_rng(0)
    many = pd.DataFrame({"kind": ["student_positive", "student_negative"] * 2000, "score": rng.normal(size=4000)})
    assert len(metrics.roc_points(many, "pos_neg", most=50)) <= 50
    assert metrics.roc_points(SCORES[SCORES.kind == "student_positive"], "pos_neg").empty


def test_histogram_has_common_bins_and_unit_area():
    table = metrics.score_histogram(SCORES, bins=4)
    area = (table.density * (table.bin_high - table.bin_low)).groupby(table.kind).sum()
    assert area.tolist() == pytest.approx([1, 1, 1])
    assert table.groupby("kind").bin_low.apply(tuple).nunique() == 1
    assert metrics.score_histogram(SCORES.assign(score=math.nan)).empty
