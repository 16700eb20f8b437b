"""Why a random choice beats the reward model's, by hand on a question whose best score is a rare wrong text."""

from __future__ import annotations

import pandas as pd
import pytest

from rdlib.evidence import ranking
from rdlib.method import metrics

# Six samples: a wrong text with the highest score, three copies of a right one, two rarer ones below.
ROWS = [(0, 9.0, "x", 0), (1, 2.0, "7", 1), (1, 2.0, "7", 1), (1, 2.0, "7", 1), (2, 1.0, "7", 1), (3, -4.0, "y", 0)]


def judged(rows=ROWS, **others) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["text", "score", "answer", "correct"]).assign(sample=range(len(rows)))
    columns = {"cell": "c", "seed": 0, "id": "q", "policy": "before", "tokens": 5, "agrees": True}
    return table.assign(**(columns | others))


def test_samples_are_ranked_and_their_texts_counted():
    found = ranking.samples(pd.concat([judged(ROWS[::-1]), judged(policy="after")]))
    assert found["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found["score"].tolist() == [9.0, 2.0, 2.0, 2.0, 1.0, -4.0]
    assert found["copies"].tolist() == [1, 3, 3, 3, 1, 1]


def test_every_way_to_choose_by_hand():
    found = {name: values.item() for name, values in ranking.choices(ranking.samples(judged())).items()}
    assert found == {
        "highest reward": 0.0,
        "highest reward of texts given twice or more": 1.0,
        "highest reward + log of copies": 0.0,  # 9 + 0 is above 2 + log 3
        "most frequent text": 1.0,
        "most frequent answer": 1.0,
        "any sample": pytest.approx(4 / 6),
        "any distinct text": 0.5,
    }


def test_aucs_within_a_question_by_hand():
    found = {name: values.item() for name, values in ranking.orders(ranking.samples(judged())).items()}
    assert found == {
        "AUC within a question": 0.5,  # every right sample is above one of the two wrong ones
        "AUC within a question, distinct texts": 0.5,
        "AUC within a question of the number of copies": pytest.approx((3 * 2 + 1 * 1) / 8),
    }


def test_a_score_that_only_knows_the_question_ranks_no_sample():
    """Easy questions score high: over all samples that looks like skill, within a question it is none."""
    easy = judged([(n, 5.0, "7", 1) for n in range(5)] + [(9, 5.0, "x", 0)], id="easy")
    hard = judged([(n, -5.0, "y", 0) for n in range(5)] + [(9, -5.0, "7", 1)], id="hard")
    table = ranking.table(pd.concat([easy, hard])).set_index("measure")["value"]
    assert table["AUC within a question"] == 0.5
    assert table["AUC over all samples"] == pytest.approx(25 / 36 + 0.5 * 10 / 36)
    assert table["share of variance between questions"] == pytest.approx(1.0)


def test_by_rank_counts_right_samples_in_per_cent():
    table = ranking.by_rank(pd.concat([judged(), judged(id="r")]))
    assert table["study_pct"].tolist() == [0, 100, 100, 100, 100, 0]
    assert table["copies"].tolist() == [1, 3, 3, 3, 1, 1]
    assert table["single_pct"].unique().tolist() == [pytest.approx(400 / 6)]


def test_within_auc_is_the_mean_over_questions_of_their_own():
    rows = [("a", 1.0, "student_positive"), ("a", 0.0, "student_negative"), ("b", 2.0, "student_negative")]
    rows += [("b", 3.0, "student_positive"), ("c", 9.0, "teacher_positive")]
    scores = pd.DataFrame(rows, columns=["id", "score", "kind"]).assign(
        dataset="d", teacher="t", student="s", method="ours", seed=0
    )
    both = [scores.assign(variant=f"reward_model.lam={lam}" if lam != 0.5 else "") for lam in (0.0, 0.5)]
    table = ranking.by_lambda(pd.concat(both), 0.5)
    assert table["lam"].tolist() == [0.0, 0.5]
    assert table["within"].tolist() == [1.0, 1.0]
    assert table["overall"].tolist() == [pytest.approx(metrics.auc([1.0, 3.0], [0.0, 2.0]))] * 2
