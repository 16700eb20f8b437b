"""What the reward model can rank, and its diagnostics: by hand, by enumeration, and on the tiny study."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from conftest import stage_in
from hypothesis import given
from hypothesis import strategies as st

from rdlib.evidence import diagnostics
from rdlib.method import metrics
from rdlib.tasks.questions import read_gold

NAMES = ["gsm/strong/small", "mmlu/strong/small"]


def judged(scores, answers, gold="1", key="q", tokens=None) -> pd.DataFrame:
    """Responses to one question."""
    return pd.DataFrame(
        {
            "id": key,
            "sample": range(len(scores)),
            "score": scores,
            "answer": answers,
            "correct": [answer == gold for answer in answers],
            "tokens": tokens if tokens is not None else 5,
        }
    )


def value(table: pd.DataFrame, n: int, strategy: str) -> float:
    return table[(table.n == n) & (table.strategy == strategy)]["value"].item()


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["1", "2", "3", None])), min_size=2, max_size=6))
def test_choosing_of_n_equals_enumeration(samples):
    table = judged([s + i / 100 for i, (s, _) in enumerate(samples)], [a for _, a in samples])
    found = diagnostics.best_of_n(table, [1, 2, 30])
    for n in (1, 2):
        subsets = [table.iloc[list(rows)] for rows in combinations(range(len(table)), n)]
        best = np.mean([subset.loc[subset.score.idxmax(), "correct"] for subset in subsets])
        some = np.mean([subset.correct.any() for subset in subsets])
        assert value(found, n, "reward") == pytest.approx(best)
        assert value(found, n, "any") == pytest.approx(some)
    assert set(found.n) == {1, 2}  # not more samples than there are


def test_the_vote_of_all_by_hand():
    wins = judged([0.0] * 5, ["1", "1", "2", "3", None])
    ties = judged([0.0] * 5, ["1", "1", "2", "2", None])
    loses = judged([0.0] * 5, ["2", "2", "1", None, None])
    silent = judged([0.0] * 2, [None, None])
    for table, expected in ((wins, 1.0), (ties, 0.5), (loses, 0.0), (silent, 0.0)):
        assert value(diagnostics.best_of_n(table, [len(table)]), len(table), "majority") == expected
    many = judged([0.0] * 20, ["1"] * 5 + ["2"] * 15)
    assert value(diagnostics.best_of_n(many, [1]), 1, "majority") == pytest.approx(0.25, abs=0.1)


def test_a_choice_among_distinct_texts_by_hand():
    table = judged([0.0] * 5, ["1", "1", "1", "2", "3"])  # three equal right texts, two wrong ones
    assert "distinct" not in set(diagnostics.best_of_n(table, [5]).strategy)
    table["text"] = [4, 4, 4, 0, 1]
    found = diagnostics.best_of_n(table, [1, 5])
    assert value(found, 5, "distinct") == pytest.approx(1 / 3)
    assert value(found, 1, "distinct") == pytest.approx(3 / 5, abs=0.1)
    table["text"] = [7, 8, 9, 0, 1]  # all different: as good as chance
    assert value(diagnostics.best_of_n(table, [5]), 5, "distinct") == pytest.approx(3 / 5)


def test_calibration_by_hand():
    table = judged([0.0, 0.0, 100.0, 100.0], ["1", "2", "1", "2"])
    bins = diagnostics.reliability(table, bins=2)
    assert bins.predicted.tolist() == pytest.approx([0.5, 1.0]) and bins.observed.tolist() == [0.5, 0.5]
    assert diagnostics.expected_calibration_error(bins) == pytest.approx(0.25)


def test_length_correlation_overall_and_within_questions():
    # Within each question longer is worse; the question with the longer responses has the higher scores
    first = judged([2.0, 1.0, 0.0], ["1"] * 3, key="a", tokens=[1, 2, 3])
    second = judged([12.0, 11.0, 10.0], ["1"] * 3, key="b", tokens=[11, 12, 13])
    constant = judged([5.0, 5.0], ["1"] * 2, key="c", tokens=[4, 5])
    found = diagnostics.length_correlation(pd.concat([first, second, constant]))
    assert found["within"] == pytest.approx(-1) and found["overall"] > 0.4
    assert np.isnan(diagnostics.length_correlation(constant)["within"])


def test_over_optimisation_joins_rollouts_and_validation_by_hand():
    history = pd.DataFrame(
        {
            "update": [0, 1, 2, 3],
            "kl": [np.nan, 1.0, 3.0, 5.0],
            "reward": [np.nan, 0.0, 1.0, 2.0],
            "validation_agreement": [0.5, None, 0.75, 1.0],
            "accuracy": [0.5, None, 1.0, 0.0],
        }
    )
    table = diagnostics.over_optimisation(history)
    assert table["update"].tolist() == [0, 2, 3] and table["accuracy"].tolist() == [0.5, 1.0, 0.0]
    assert table["kl"].tolist()[1:] == [2.0, 5.0] and np.isnan(table["kl"][0])
    assert table["reward"].tolist()[1:] == [0.5, 2.0] and table["agreement"].tolist() == [0.5, 0.75, 1.0]


def test_the_auc_of_a_questions_own_samples_by_hand():
    """Over all responses the AUC is 3/4 here, but within either question it is 1/2 or 0."""
    table = pd.DataFrame({"id": list("aaab"), "score": [2.0, 1.0, 3.0, 0.0], "correct": [True, False, False, False]})
    assert diagnostics.auc_by_question(table).values.tolist() == [["a", 0.5]]
    assert diagnostics.auc_by_question(table.assign(correct=[False, True, False, True])).values.tolist() == [["a", 0.0]]


# ---- ranking all samples

# Six samples: a wrong text with the highest score, three copies of a right one, two rarer ones below.
ROWS = [(0, 9.0, "x", 0), (1, 2.0, "7", 1), (1, 2.0, "7", 1), (1, 2.0, "7", 1), (2, 1.0, "7", 1), (3, -4.0, "y", 0)]


def sampled(rows=ROWS, **others) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["text", "score", "answer", "correct"]).assign(sample=range(len(rows)))
    columns = {"cell": "c", "seed": 0, "id": "q", "policy": "before", "tokens": 5, "agrees": True}
    return table.assign(**(columns | others))


def test_samples_are_ranked_and_their_texts_counted():
    found = diagnostics.samples(pd.concat([sampled(ROWS[::-1]), sampled(policy="after")]))
    assert found["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found["score"].tolist() == [9.0, 2.0, 2.0, 2.0, 1.0, -4.0]
    table = diagnostics.by_rank(pd.concat([sampled(), sampled(id="r")]))
    assert table["study_pct"].tolist() == [0, 100, 100, 100, 100, 0]
    assert table["copies"].tolist() == found["copies"].tolist() == [1, 3, 3, 3, 1, 1]
    assert table["single_pct"].unique().tolist() == [pytest.approx(400 / 6)]


def test_every_way_to_choose_and_every_order_by_hand():
    ranked = diagnostics.samples(sampled())
    assert {name: values.item() for name, values in diagnostics.choices(ranked).items()} == {
        "highest reward": 0.0,
        "highest reward of texts given twice or more": 1.0,
        "highest reward + log of copies": 0.0,  # 9 + 0 is above 2 + log 3
        "most frequent text": 1.0,
        "most frequent answer": 1.0,
        "any sample": pytest.approx(4 / 6),
        "any distinct text": 0.5,
    }
    assert {name: values.item() for name, values in diagnostics.orders(ranked).items()} == {
        "AUC within a question": 0.5,  # every right sample is above one of the two wrong ones
        "AUC within a question, distinct texts": 0.5,
        "AUC within a question of the number of copies": pytest.approx((3 * 2 + 1 * 1) / 8),
    }


def test_a_score_that_only_knows_the_question_ranks_no_sample():
    """Easy questions score high: over all samples that looks like skill, within a question it is none."""
    easy = sampled([(n, 5.0, "7", 1) for n in range(5)] + [(9, 5.0, "x", 0)], id="easy")
    hard = sampled([(n, -5.0, "y", 0) for n in range(5)] + [(9, -5.0, "7", 1)], id="hard")
    table = diagnostics.ranking_table(pd.concat([easy, hard])).set_index("measure")["value"]
    assert table["AUC within a question"] == 0.5
    assert table["AUC over all samples"] == pytest.approx(25 / 36 + 0.5 * 10 / 36)
    assert table["share of variance between questions"] == pytest.approx(1.0)


def test_within_auc_is_the_mean_over_questions_of_their_own():
    rows = [("a", 1.0, "student_positive"), ("a", 0.0, "student_negative"), ("b", 2.0, "student_negative")]
    rows += [("b", 3.0, "student_positive"), ("c", 9.0, "teacher_positive")]
    names = {"dataset": "d", "teacher": "t", "student": "s", "method": "ours", "seed": 0}
    scores = pd.DataFrame(rows, columns=["id", "score", "kind"]).assign(**names)
    both = [scores.assign(variant=f"reward_model.lam={lam}" if lam != 0.5 else "") for lam in (0.0, 0.5)]
    table = diagnostics.by_lambda(pd.concat(both), 0.5)
    assert table["lam"].tolist() == [0.0, 0.5]
    assert table["within"].tolist() == [1.0, 1.0]
    assert table["overall"].tolist() == [pytest.approx(metrics.auc([1.0, 3.0], [0.0, 2.0]))] * 2


# ---- in a stage


@pytest.mark.slow
def test_the_stage_judges_every_sample_before_and_after(study, tmp_path):
    from conftest import copy_study

    root = copy_study(study, tmp_path)
    stage = stage_in(root, "13_judged_responses").run()
    table = stage.table("judged")
    labels = stage.at("02_pseudo_labels").table("labels").dropna(subset="pseudo_label")
    labelled = labels[labels["split"] == "validation"].set_index("id")["pseudo_label"]
    samples = stage.profile.student_sampling.samples
    assert (table.groupby(["policy", "id"]).size() == samples).all()
    assert set(table["policy"]) == {"before", "after"} and set(table["id"]) == set(labelled.index)
    assert (table["agrees"] == (table["answer"] == table["id"].map(labelled))).all()
    gold = read_gold(stage.at("00_gold").folder)
    assert (table["correct"] == (table["answer"] == table["id"].map(gold))).all()
    before = stage.at("04_student_responses").table("responses")
    assert (table["policy"] == "before").sum() == (before["split"] == "validation").sum()
    assert np.isfinite(table["score"]).all()


def test_ppo_keeps_the_answers_behind_each_agreement(cell):
    stage = cell.at("06_ppo")
    validation, history = stage.table("validation"), stage.jsonl("history").set_index("update")
    labels = stage.at("02_pseudo_labels").table("labels").set_index("id")["pseudo_label"]
    agreement = (validation["answer"] == validation["id"].map(labels)).groupby(validation["update"]).mean()
    measured = history["validation_agreement"].dropna()
    assert len(measured) > 1 and agreement.to_dict() == pytest.approx(measured.to_dict())
