"""Stage 5: Eq. 4-6 by hand, the equal sampling of kinds, and scores by second implementations."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import stage_in
from hypothesis import example, given
from hypothesis import strategies as st

from rdlib.engines import models
from rdlib.method.reward_model import (
    KINDS,
    STUDENT_NEGATIVE,
    STUDENT_POSITIVE,
    TEACHER_NEGATIVE,
    TEACHER_POSITIVE,
    Response,
    aucs,
    build_examples,
    classification_loss,
    collate,
    counts_by_kind,
    preference_loss,
    reward_model_loss,
    sample_query,
    validation_table,
)
from rdlib.settings import RewardModel
from rdlib.tasks.prompts import micro_question


def settings(**changes) -> RewardModel:
    base = {"lam": 0.5, "form": "convex", "source": "student", "samples_per_kind": 4, "teacher_share": 0.5}
    base |= {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    return RewardModel(**(base | changes))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# Query 0: scores s+ 1, s- 0, t+ 3. Query 1: s+ 2 and -1, s- 1, t+ 0.
SCORES = torch.tensor([1.0, 0.0, 3.0, 2.0, -1.0, 1.0, 0.0])
BY_NAME = {"s+": STUDENT_POSITIVE, "s-": STUDENT_NEGATIVE, "t+": TEACHER_POSITIVE}
BATCH_KINDS = torch.tensor([BY_NAME[k] for k in "s+ s- t+ s+ s+ s- t+".split()])
QUERIES = torch.tensor([0, 0, 0, 1, 1, 1, 1])
# Eq. 4: positives cost softplus(-r), negatives softplus(r)
CLASSIFICATION = (
    softplus(-1) + softplus(0) + softplus(-3) + softplus(-2) + softplus(1) + softplus(1) + softplus(0)
) / 7
# Eq. 5: s+ over s-: (1,0), (2,1), (-1,1); t+ over s+: (3,1), (0,2), (0,-1)
PREFERENCE = (softplus(-1) + softplus(-1) + softplus(2)) / 3 + (softplus(-2) + softplus(2) + softplus(-1)) / 3


def test_equation_4_by_hand():
    assert classification_loss(SCORES, BATCH_KINDS).item() == pytest.approx(CLASSIFICATION, rel=1e-6)


def test_equation_5_by_hand():
    assert preference_loss(SCORES, BATCH_KINDS, QUERIES).item() == pytest.approx(PREFERENCE, rel=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.25, 0.5, 1.0])
def test_equation_6_by_hand_in_both_forms(lam):
    convex = reward_model_loss(SCORES, BATCH_KINDS, QUERIES, lam, "convex").item()
    additive = reward_model_loss(SCORES, BATCH_KINDS, QUERIES, lam, "additive").item()
    assert convex == pytest.approx(lam * CLASSIFICATION + (1 - lam) * PREFERENCE, rel=1e-6)
    assert additive == pytest.approx(CLASSIFICATION + lam * PREFERENCE, rel=1e-6)


def test_pairs_lie_within_a_query():
    """Two queries with one kind each have no pair, whatever their scores; and moving a query changes nothing."""
    kinds = torch.tensor([STUDENT_POSITIVE, STUDENT_NEGATIVE])
    loss = preference_loss(torch.tensor([-9.0, 9.0], requires_grad=True), kinds, torch.tensor([0, 1]))
    assert loss.item() == 0.0
    loss.backward()  # a batch without pairs must still have a gradient, of zero
    shifted = SCORES + 100.0 * QUERIES
    assert preference_loss(shifted, BATCH_KINDS, QUERIES).item() == pytest.approx(PREFERENCE, rel=1e-4)


def test_teacher_source_has_a_preference_of_its_own_and_two_classes():
    kinds = torch.tensor([TEACHER_POSITIVE, TEACHER_NEGATIVE])
    scores = torch.tensor([2.0, -1.0])
    assert preference_loss(scores, kinds, torch.tensor([0, 0])).item() == pytest.approx(softplus(-3))
    assert classification_loss(scores, kinds).item() == pytest.approx((softplus(-2) + softplus(-1)) / 2)


# ---- data


@pytest.mark.parametrize("share", [0.25, 0.4, 0.5, 0.6, 0.75])
def test_every_share_holds_on_average(share):
    """Two ratios that rounding makes one would be two points of Figure 6 with the same data."""
    rng = random.Random(0)
    counts = [counts_by_kind(settings(samples_per_kind=2, teacher_share=share), rng) for _ in range(4000)]
    mean = sum(c[TEACHER_POSITIVE] for c in counts) / len(counts)
    assert abs(mean - 4 * share) < 5 * 0.5 / len(counts) ** 0.5
    if share in (0.25, 0.5, 0.75):
        assert {c[TEACHER_POSITIVE] for c in counts} == {4 * share}


def pool(*sizes: int) -> dict[int, list[Response]]:
    return {kind: [Response(kind, f"{kind}/{i}", True) for i in range(n)] for kind, n in enumerate(sizes)}


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.integers(1, 60), st.floats(0.05, 0.95))
@example([15, 15, 15, 0], 22, 0.5)  # 22 * (15 / 22) is below 15 in floating point
def test_a_short_kind_scales_all_kinds_and_is_used_up(sizes, n, share):
    wanted = counts_by_kind(settings(samples_per_kind=n, teacher_share=share), random.Random(0))
    counts = Counter(r.kind for r in sample_query(pool(*sizes), wanted, random.Random(0)))
    if min(sizes[kind] for kind in wanted) == 0:
        assert not counts
        return
    scale = min(1.0, *(sizes[kind] / count for kind, count in wanted.items()))
    for kind, count in wanted.items():
        assert counts[kind] == max(1, math.floor(count * scale + 1e-9))


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """a: all kinds. b: no wrong student answer. c: only wrong student answers. d: teacher never right."""
    student = [("a", True), ("a", False), ("a", True), ("b", True), ("c", False), ("d", True), ("d", False)]
    teacher = [("a", True), ("a", False), ("b", True), ("c", True), ("d", False)]
    frames = []
    for who, rows in (("s", student), ("t", teacher)):
        frame = pd.DataFrame(rows, columns=["id", "positive"])
        frames.append(frame.assign(text=[f"{who}{i}" for i in range(len(rows))], finished=True))
    return tuple(frames)


def test_only_failed_queries_are_used_and_those_without_a_kind_are_skipped():
    usable, skipped = build_examples(*tables(), settings(), 0)
    assert list(usable) == ["a"]
    assert skipped == 2  # c has no student positive, d no teacher positive; b was not failed at all
    assert Counter(r.kind for r in usable["a"]) == {STUDENT_POSITIVE: 1, STUDENT_NEGATIVE: 1, TEACHER_POSITIVE: 1}
    texts = {r.kind: r.text for r in usable["a"]}
    assert texts[STUDENT_NEGATIVE] == "s1" and texts[TEACHER_POSITIVE] == "t0"


def test_teacher_source_uses_teacher_responses_alone():
    usable, skipped = build_examples(*tables(), settings(source="teacher"), 0)
    assert list(usable) == ["a"] and skipped == 1
    assert {r.kind for r in usable["a"]} == {TEACHER_POSITIVE, TEACHER_NEGATIVE}
    assert all(r.text.startswith("t") for r in usable["a"])


def test_validation_responses_do_not_depend_on_the_mixture():
    table = validation_table(*tables(), settings(samples_per_kind=3), 0)
    other = settings(samples_per_kind=3, teacher_share=0.8, source="teacher")
    pd.testing.assert_frame_equal(validation_table(*tables(), other, 0), table)
    assert set(table["id"]) == {"a"}
    assert sorted(table["kind"]) == sorted(KINDS[:3])
    assert (table["kind"] == [KINDS[k] for k in table["kind_id"]]).all()


def test_aucs_by_hand():
    kinds = np.array([STUDENT_POSITIVE, STUDENT_POSITIVE, STUDENT_NEGATIVE, TEACHER_POSITIVE])
    # s+ 2 and 0 against s- 1: one of two pairs. t+ 2 against s+ 2 and 0: a tie and a win.
    assert aucs(np.array([2.0, 0.0, 1.0, 2.0]), kinds) == {"pos_neg_auc": 0.5, "pos_pos_auc": 0.75}


def test_equal_responses_of_a_query_are_read_once():
    rows = [{"sequences": [[1, 2], [3], [1, 2], [1, 2]], "kinds": [0, 1, 2, 0]}, {"sequences": [[3]], "kinds": [1]}]
    batch = collate(rows, pad=9)
    assert batch["input_ids"].tolist() == [[1, 2], [3, 9], [3, 9]]  # the other query's own
    assert batch["sequence_queries"].tolist() == [0, 0, 1]
    assert batch["sequences"].tolist() == [0, 1, 0, 0, 2]
    assert batch["kinds"].tolist() == [0, 1, 2, 0, 1] and batch["queries"].tolist() == [0, 0, 0, 0, 1]


# ---- the stage


def test_stage_scores_what_its_model_scores(study):
    stage = stage_in(study, "05_reward_model")
    tokenizer = models.load_tokenizer(stage.folder / "model")
    model = models.load_scorer(stage.folder / "model", tokenizer.pad_token_id)
    table = stage.table("scores")
    questions = stage.at("00_data").table("questions").set_index("id")["question"]
    responses = pd.concat(
        [stage.at("04_student_responses").table("responses"), stage.at("01_teacher_responses").table("responses")]
    )
    finished = responses.groupby(["id", "text"])["finished"].first()
    for row in table.head(12).itertuples():
        ids = tokenizer(f"{micro_question(questions[row.id], [])} {row.text}")["input_ids"]
        ids += [tokenizer.eos_token_id] * bool(finished[row.id, row.text])
        with torch.no_grad():
            assert model(torch.tensor([ids])).logits.item() == pytest.approx(row.score, abs=1e-4)


def test_stage_summary_and_best_checkpoint(study):
    stage = stage_in(study, "05_reward_model")
    table, summary, history = stage.table("scores"), stage.json("summary"), stage.table("history")
    kinds = np.array([KINDS.index(kind) for kind in table["kind"]])
    assert {k: summary[k] for k in ("pos_neg_auc", "pos_pos_auc")} == pytest.approx(
        aucs(table["score"].to_numpy(), kinds)
    )
    trained = history[history["step"] > 0]["pos_neg_auc"].dropna()
    assert summary["pos_neg_auc"] == pytest.approx(trained.max(), abs=1e-6)
    assert set(table["kind"]) == set(KINDS[:3])
    validation = stage.at("00_data").table("questions").query("split == 'validation'")["id"]
    assert set(table["id"]) <= set(validation)
    assert not (stage.folder / "checkpoints").exists()


def test_a_frequent_text_is_drawn_once_where_texts_are_drawn():
    """Of nine equal wrong responses and one other, three draws of samples hold equal ones, of texts never."""
    students = pd.DataFrame(
        [("q", f"wrong {n == 9}", True, False) for n in range(10)] + [("q", "right", True, True)] * 9
    )
    teachers = pd.DataFrame([("q", f"teacher {n}", True, True) for n in range(9)])
    students.columns = teachers.columns = ["id", "text", "finished", "positive"]
    drawn = {}
    for draw in ("samples", "texts"):
        (examples, _) = build_examples(students, teachers, settings(samples_per_kind=3, draw=draw), seed=0)
        drawn[draw] = Counter(response.text for response in examples["q"])
    assert max(drawn["samples"].values()) > 1
    assert max(drawn["texts"].values()) == 1
    assert validation_table(students, teachers, settings(draw="texts"), 0).equals(
        validation_table(students, teachers, settings(draw="samples"), 0)
    )
