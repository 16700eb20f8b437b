"""Diversity of a policy's samples before and after PPO: by hand, by enumeration, by properties, and as exhibits."""

from __future__ import annotations

import math
import shutil
from itertools import combinations
from pathlib import Path

import long_tables
import numpy as np
import pandas as pd
import pytest
from excerpts import excerpt, own_questions

from rdlib.errors import UserError
from rdlib.evidence import health, looks, question_figures, sharpening, tables
from rdlib.evidence.gallery import EXHIBITS
from rdlib.evidence.result_tables import open_results
from rdlib.study import results as result_files

CELL = "gsm/strong/small"


def judged(policy, answers, correct, texts=None, key="q", seed=0, cell=CELL):
    """A question's samples: answers ("" for none), which of them are right, and numbers of equal texts."""
    rows = {"answer": [a or None for a in answers], "correct": [a in correct for a in answers]}
    rows |= {"text": texts or list(range(len(answers))), "sample": range(len(answers)), "score": 0.0}
    return pd.DataFrame(rows).assign(policy=policy, id=key, seed=seed, cell=cell, agrees=rows["correct"])


def values(table):
    return {(row.measure, row.k): row.value for row in table.itertuples()}


def of_random_samples(seed: int, questions: int = 6, samples: int = 6) -> pd.DataFrame:
    """Questions with few answers, of which up to two are right, as where a question has aliases; some have none."""
    draw = np.random.default_rng(seed)
    parts = []
    for i in range(questions):
        answers = [["", "a", "b", "c", "d"][j] for j in draw.integers(0, draw.integers(1, 6), samples)]
        right = set(draw.choice(["a", "b", "c"], draw.integers(0, 3), replace=False))
        parts.append(judged("before", answers, right, key=f"q{i}").assign(score=draw.normal(size=samples)))
    return pd.concat(parts, ignore_index=True)


# ---- measures


def test_measures_of_a_question_by_hand():
    found = values(sharpening.by_question(judged("before", ["7", "7", "8", ""], {"7"}, [0, 0, 1, 2]), [1, 2, 4]))
    assert found["any", 1] == 0.5
    assert found["any", 2] == pytest.approx(1 - 1 / 6)  # of six pairs only (8, none) has no right answer
    assert found["any", 4] == found["majority", 4] == 1.0
    assert found["majority", 2] == pytest.approx((1 + 2 * 0.5 + 2 * 1) / 6)  # 77, two of 78, two of 7 and none
    assert found["majority's share", 0] == 0.5
    assert found["vote entropy", 0] == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert (found["distinct answers", 0], found["distinct texts", 0]) == (2, 3)
    assert found["judged as by gold", 0] == 1


def test_a_question_without_any_answer_has_no_diversity_of_votes():
    found = values(sharpening.by_question(judged("before", ["", ""], set()), [1, 2]))
    assert found["vote entropy", 0] == found["majority's share", 0] == found["distinct answers", 0] == 0
    assert found["distinct texts", 0] == 2 and found["majority", 2] == found["any", 2] == 0


def chosen_of(samples: pd.DataFrame) -> dict[str, float]:
    """By each way to choose, whether what is chosen of all these samples is right."""
    votes = samples["answer"].value_counts()
    first = votes[votes == votes.max()].index
    right = samples.drop_duplicates("answer").set_index("answer")["correct"]
    best = samples.sort_values(["score", "sample"], ascending=[False, True])["correct"].iloc[0]
    return {"any": samples["correct"].any(), "majority": right[first].mean() if len(first) else 0, "reward": best}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_chosen_among_k_is_the_mean_over_all_subsets(seed):
    """The same by enumeration: of six samples all subsets of k, with ties, aliases and samples without an answer."""
    table = of_random_samples(seed)
    found = sharpening.by_question(table, [1, 2, 3, 5, 6]).set_index(["id", "measure", "k"])["value"]
    for key, samples in table.groupby("id"):
        for k in (1, 2, 3, 5, 6):
            subsets = pd.DataFrame([chosen_of(samples.iloc[list(one)]) for one in combinations(range(6), k)])
            for measure, expected in subsets.astype(float).mean().items():
                assert found[key, measure, k] == pytest.approx(expected), (key, measure, k)


def test_a_question_without_a_gold_answer_counts_for_its_diversity_alone():
    both = pd.concat(
        [judged("before", "aab", {"a"}, key="known"), judged("before", "abc", {"a"}).assign(correct=np.nan)]
    )
    found = sharpening.by_question(both, [1, 3]).dropna().set_index(["measure", "k", "id"])["value"].sort_index()
    assert found["any", 1].to_dict() == {"known": pytest.approx(2 / 3)}
    assert found["judged as by gold", 0].to_dict() == {"known": 1}
    assert found["distinct answers", 0].to_dict() == {"known": 2, "q": 3}


# ---- before and after


def sharpened(seeds=(0, 1)) -> pd.DataFrame:
    """Two questions: PPO makes the first always right, and the second never any more."""
    parts = []
    for seed in seeds:
        for key, before, after in (("a", ["1", "1", "2", "2"], ["1"] * 4), ("b", ["3", "4", "4", "4"], ["4"] * 4)):
            parts += [judged("before", before, {"1", "3"}, key=key, seed=seed)]
            parts += [judged("after", after, {"1", "3"}, key=key, seed=seed)]
    return pd.concat(parts)


def test_a_sharpened_policy_gains_at_one_sample_and_loses_at_many():
    table = sharpening.changes(sharpened(), [1, 4]).set_index(["measure", "k"])
    assert table.loc[("any", 1), "change"] == pytest.approx(0.5 - (0.5 + 0.25) / 2)
    assert table.loc[("any", 4), "change"] == -0.5
    assert table.loc[("vote entropy", 0), "change"] < 0
    assert table.loc[("any", 1), ["n", "sd", "seeds", "samples"]].tolist() == [2, 0, 2, 4]


def test_tables_have_points_and_one_sample_once():
    found = sharpening.changes(sharpened())
    points = sharpening.pass_at_k(found).set_index(["strategy", "k"])
    assert points.index.tolist() == [(one, k) for one in sharpening.CHOICES for k in (1, 2, 4)]
    assert points.loc[("any", 4), ["before_pct", "after_pct", "change_pp"]].tolist() == [100, 50, -50]
    table = sharpening.table(found).set_index("measure")
    assert [name for name in table.index if "1" in name.split("@")[-1].split()] == ["pass@1"]
    assert {"pass@4", "maj@4", "vote entropy"} <= set(table.index) and "pass@2" not in table.index
    assert table.loc["majority's share", ["before", "after", "change"]].tolist() == [62.5, 100, 37.5]
    assert (table.loc[:, ["before_high", "after_high"]].max() <= 100).all()


def test_without_gold_answers_the_vote_judges():
    table = sharpened().assign(correct=np.nan)
    found = sharpening.changes(table)
    assert set(found["judge"]) == {"vote"} and "judged as by gold" not in set(found["measure"])
    assert found.set_index(["measure", "k"]).loc[("any", 4), "change"] == -0.5
    assert "judged by the vote)" in sharpening.verdict(found)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("up", "down", "down"), "better with one sample and worse with many, and surer"),
        (("up", "", "down"), "better with one sample, and surer"),
        (("up", "up", ""), "better with one sample and with many"),
        (("", "up", ""), "better with many samples"),
        (("", "", "down"), "surer, not better"),
        (("", "down", "down"), "worse with many samples, and surer"),
        (("down", "up", ""), "worse with one sample"),
        (("", "", "up"), "changed nothing significantly"),
    ],
)
def test_what_ppo_did_in_words(changes, expected):
    assert sharpening.kind(*changes).endswith(expected)


def test_the_verdict_has_the_numbers_of_every_cell():
    both = pd.concat([sharpened(), sharpened().assign(cell="mmlu/strong/small")])
    text = sharpening.verdict(sharpening.changes(both))
    assert text.count("**gsm/strong/small: PPO") == text.count("**mmlu/strong/small: PPO") == 1
    assert "pass@1 +12.5 pp [" in text and "pass@4 -50.0 pp [" in text
    assert text.endswith("Every question has 4 samples, which end k.")


# ---- greedy answers


def test_answers_gained_and_lost_by_hand():
    """Of four questions the arm gains two and loses one."""
    rows = [("Ours w/o R", [0, 0, 1, 1]), ("DPO", [1, 1, 0, 1])]
    parts = [pd.DataFrame({"arm": arm, "id": list("abcd"), "correct": right}) for arm, right in rows]
    answers = pd.concat(parts).astype({"correct": bool}).assign(cell=CELL, benchmark="gsm", seed=0)
    (row,) = sharpening.answers_changed(answers, "Ours w/o R").itertuples()
    assert (row.arm, row.gained_pct, row.lost_pct, row.net_pp, row.n, row.significant) == ("DPO", 50, 25, 25, 4, "")
    assert sharpening.answers_changed(answers[answers["arm"] == "DPO"], "Ours w/o R").empty


# ---- along PPO


def along_ppo(table):
    return sharpening.along_ppo(table, **EXHIBITS["figure_ppo_diversity"].options)


def history(shares) -> pd.DataFrame:
    """Two seeds of one cell."""
    rows = {"update": range(len(shares)), "step": range(len(shares)), "extractable": shares, "agreement": shares}
    rows |= {"entropy": 0.5, "response_length": 20.0, "validation_agreement": shares, "accuracy": np.nan}
    names = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours", "variant": ""}
    table = pd.DataFrame(rows).assign(**names)
    return pd.concat([table.assign(seed=0), table.assign(seed=1, extractable=0.9)])


def test_curves_along_ppo_are_in_percent_and_end_at_a_hundred():
    table = along_ppo(history([1.0, 1.0, 1.0]))
    assert list(dict.fromkeys(table["value"])) == [*sharpening.ROLLOUTS, "validation_agreement"]
    shown = tables.select(table, value="extractable")
    assert shown["mean"].tolist() == pytest.approx([95] * 3) and (shown["high"] == 100).all()
    assert (tables.select(table, value="entropy")["mean"] == 0.5).all()
    figure = question_figures.ppo_diversity(table)
    assert len(figure.axes) == 5 and figure.axes[0].get_title() == "gsm\nsmall student"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["strong teacher"]
    looks.plt.close(figure)
    assert along_ppo(history([]).iloc[:0]).empty


# ---- exhibits


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The first questions of a released seed, with the reviewers' questions."""
    return excerpt(tmp_path_factory.mktemp("released") / "results", answered=True)


def fewer_samples(folder: Path, copy: Path, samples: int) -> Path:
    """A copy of results with so many samples a question."""
    shutil.copytree(folder, copy)
    path = copy / "seed0" / result_files.FILES["responses"]
    table = pd.read_parquet(path)
    table[table["sample"] < samples].to_parquet(path)
    return copy


def test_a_study_of_few_samples_is_shown_up_to_what_it_has(released, tmp_path):
    evidence = open_results(fewer_samples(released, tmp_path / "results", 4))
    assert EXHIBITS["figure_pass_at_k"].rows(evidence)["k"].unique().tolist() == [1, 2, 4]
    exhibit = EXHIBITS["sharpening"]
    assert set(exhibit.rows(evidence)["samples"]) == {4}
    assert "Every question has 4 samples, which end k." in exhibit.note(evidence)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("sharpening 1 64", r"^pass@64 needs 64 samples a question, and \S+ has 30: take a smaller k, or sample more"),
        ("sharpening many", r"^'many' is no number of samples"),
        ("sharpening 0", r"^'0' is no number of samples"),
    ],
)
def test_an_exhibit_of_an_impossible_k_is_an_error_in_one_sentence(released, of, message):
    exhibit = EXHIBITS["sharpening"].model_copy(update={"of": (of,)})
    with pytest.raises(UserError, match=message):
        exhibit.rows(open_results(released))


def test_of_own_questions_without_gold_answers_the_samples_say_whether_ppo_made_the_student_surer(tmp_path):
    """Twenty questions whose samples are half of one answer before PPO, and nearly all after."""
    results, parts = own_questions(tmp_path / "results"), []
    for i in range(20):
        for policy, answers in (("before", "aabb"), ("after", "aaab" if i % 2 else "aaaa")):
            parts.append(judged(policy, answers, {"a"}, [0, 0, 1, 2], key=f"q{i}", cell="mine/strong/small"))
    table = pd.concat(parts).assign(correct=np.nan, tokens=20).astype({"agrees": float})
    long_tables.write(results / "seed0", 0, judged=table)
    evidence = open_results(results)
    (found,) = health.measured(evidence)
    assert "; samples grew surer (vote entropy from 0.69 to 0.28 nats, majority's share from 50% to 88%, " in (
        health.sentence(found)
    )
    assert set(EXHIBITS["sharpening"].rows(evidence)["judge"]) == {"vote"}
    assert "agrees with the vote, validation (%)" in {
        ax.get_ylabel() for ax in question_figures.pass_at_k(EXHIBITS["figure_pass_at_k"].rows(evidence)).axes
    }
    assert EXHIBITS["figure_best_of_n"].rows(evidence) is None and EXHIBITS["figure_calibration"].rows(evidence) is None
    looks.plt.close("all")
