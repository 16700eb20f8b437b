"""Stages 5 and 6: Eq. 4-7 by hand, the equal sampling of kinds, the AUCs, and scores by second implementations."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MODELS, stage_in
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForSequenceClassification, MistralConfig, Qwen2Config

from rdlib.engines import models
from rdlib.method import metrics, scoring
from rdlib.method.reward import mismatch_reward, reward, scale_of
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
from rdlib.method.rl import AnswerReader, RewardFunction
from rdlib.method.scoring import pad_right, reads_prefixes, score, score_by_query, score_whole
from rdlib.settings import Dataset, Reward, RewardModel
from rdlib.tasks.answers import extract
from rdlib.tasks.prompts import micro_question, zero_shot

# ---- Eq. 4 to 6


def settings(**changes) -> RewardModel:
    base = {"lam": 0.5, "form": "convex", "source": "student", "samples_per_kind": 4, "teacher_share": 0.5}
    return RewardModel(**base | {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3} | changes)


def softplus(*numbers: float) -> float:
    """The sum of the softplus of each."""
    return sum(math.log1p(math.exp(x)) for x in numbers)


# Query 0: scores s+ 1, s- 0, t+ 3. Query 1: s+ 2 and -1, s- 1, t+ 0.
SCORES = torch.tensor([1.0, 0.0, 3.0, 2.0, -1.0, 1.0, 0.0])
BY_NAME = {"s+": STUDENT_POSITIVE, "s-": STUDENT_NEGATIVE, "t+": TEACHER_POSITIVE}
BATCH_KINDS = torch.tensor([BY_NAME[k] for k in "s+ s- t+ s+ s+ s- t+".split()])
QUERIES = torch.tensor([0, 0, 0, 1, 1, 1, 1])
CLASSIFICATION = softplus(-1, 0, -3, -2, 1, 1, 0) / 7  # positives cost softplus(-r), negatives softplus(r)
# s+ over s-: (1,0), (2,1), (-1,1); t+ over s+: (3,1), (0,2), (0,-1)
PREFERENCE = softplus(-1, -1, 2) / 3 + softplus(-2, 2, -1) / 3


@pytest.mark.parametrize("lam", [0.0, 0.25, 1.0])
def test_equations_4_to_6_by_hand_in_both_forms(lam):
    assert classification_loss(SCORES, BATCH_KINDS).item() == pytest.approx(CLASSIFICATION, rel=1e-6)
    assert preference_loss(SCORES, BATCH_KINDS, QUERIES).item() == pytest.approx(PREFERENCE, rel=1e-6)
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
    kinds, scores = torch.tensor([TEACHER_POSITIVE, TEACHER_NEGATIVE]), torch.tensor([2.0, -1.0])
    assert preference_loss(scores, kinds, torch.tensor([0, 0])).item() == pytest.approx(softplus(-3))
    assert classification_loss(scores, kinds).item() == pytest.approx(softplus(-2, -1) / 2)


# ---- data


@pytest.mark.parametrize("share", [0.25, 0.4, 0.5, 0.75])
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
    assert set(table["id"]) <= set(validation) and not (stage.folder / "checkpoints").exists()


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


# ---- Eq. 7

REWARDED = [2.0, -3.0, 0.5, -0.5, 4.0, -4.0, 1.5, 0.0]
ANSWERS = ["7", "7", "8", "8", "8", None, None, "8"]
LABELS = ["7", "7", "7", "7", None, "7", None, None]
#          right, right, wrong, wrong, Q_fail, no answer, no answer in Q_fail, Q_fail
EXPECTED = {
    ("negative_abs", "reward_model"): [2.0, -3.0, -0.5, -0.5, 4.0, -5.0, -5.0, 0.0],
    ("minus", "reward_model"): [2.0, -3.0, -0.5, -1.5, 4.0, -5.0, -5.0, 0.0],
    ("clip", "reward_model"): [2.0, -3.0, 0.0, -0.5, 4.0, -5.0, -5.0, 0.0],
    ("fixed", "reward_model"): [2.0, -3.0, -1.0, -1.0, 4.0, -5.0, -5.0, 0.0],
    ("none", "reward_model"): [2.0, -3.0, 0.5, -0.5, 4.0, -5.0, -5.0, 0.0],
    ("negative_abs", "vote"): [1, 1, 0, 0, 0, 0, 0, 0],
    ("negative_abs", "vote_first"): [1, 1, 0, 0, pytest.approx(1 / (1 + math.exp(-4))), 0, 0, 0.5],
}


def given_reward(variant="negative_abs", constant=1.0, no_answer=-5.0, **more) -> Reward:
    return Reward(no_answer=no_answer, mismatch=variant, mismatch_constant=constant, **more)


@pytest.mark.parametrize(("variant", "source"), EXPECTED)
def test_equation_7_by_hand(variant, source):
    found = reward(torch.tensor(REWARDED), ANSWERS, LABELS, given_reward(variant, source=source))
    assert found.tolist() == EXPECTED[variant, source]


def test_the_constants_of_equation_7():
    minus, fixed = given_reward("minus", 0.25, -9.0), given_reward("fixed", 2.5)
    found = [reward(torch.tensor(REWARDED), ANSWERS, LABELS, one).tolist() for one in (minus, fixed)]
    assert found[0] == [2.0, -3.0, 0.25, -0.75, 4.0, -9.0, -9.0, 0.0] and found[1][2:4] == [-2.5, -2.5]


def scored(*scores):
    """A table of the reward model's scores."""
    return pd.DataFrame({"kind": "student_positive", "score": scores})


def test_scores_of_one_scale():
    """1, 2, 3 and 6 have a mean square deviation of 14 / 4; the constants of Eq. 7 stay as they are."""
    unit = given_reward("minus", scale="unit")
    scale = scale_of(scored(1.0, 2.0, 3.0, 6.0), unit)
    assert scale == pytest.approx(math.sqrt(3.5))
    changed = reward(torch.tensor([4.0, 4.0, 4.0]), ["7", "8", None], ["7", "7", "7"], unit, scale)
    assert changed.tolist() == pytest.approx([4 / scale, 4 / scale - 1, -5])
    assert scale_of(scored(2.0, 2.0), unit) == scale_of(scored(1.0, 2.0), given_reward()) == 1


@pytest.mark.parametrize("source", ["vote", "vote_first"])
def test_the_votes_rewards_have_the_scale_of_its_ones_and_zeros(source):
    """The student's agree in three of four, so the deviation is sqrt(3/4 * 1/4); the teacher's do not count."""
    unit = given_reward(scale="unit", source=source)
    kinds = ["student_positive"] * 3 + ["student_negative"] + ["teacher_positive"] * 5
    table = pd.DataFrame({"kind": kinds, "score": 7.0})
    scale = scale_of(table, unit)
    assert scale == pytest.approx(math.sqrt(3) / 4)
    found = reward(torch.tensor([4.0, 4.0, 4.0]), ["7", "8", None], ["7", "7", "7"], unit, scale)
    assert found.tolist() == pytest.approx([4 / math.sqrt(3), 0, 0])
    assert scale_of(table[:3], unit) == scale_of(table, unit.model_copy(update={"scale": "raw"})) == 1


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8))
def test_a_mismatch_is_never_better_than_its_score(values):
    scores = torch.tensor(values)
    for variant in ("negative_abs", "minus", "clip", "none"):
        corrected = mismatch_reward(scores, variant, 1.0)
        assert (corrected <= scores).all() and (variant in ("minus", "none") or (corrected <= 0).all())


def test_ppo_reads_answers_as_the_engines_show_them(small):
    """A rollout continues after a stop string, and a letter is one of the query's own options."""
    choice = {"source": "questions", "answer": "choice", "path": "q", "max_tokens": 64}
    choice = Dataset(**choice | dict.fromkeys(("train", "validation", "test")))
    asked = [zero_shot(choice, "Which?", ["zinc", "iron", "tin"][:count]) for count in (2, 3)]
    read = AnswerReader(small[1], asked, "choice")
    text = "The answer is (C).\n\nQuestion: And which?\nAnswer: The answer is (A)."
    assert [read(0, text), read(1, text)] == [None, "C"]


def test_reward_function_scores_extracts_and_reports(monkeypatch):
    """As PPO calls it, for questions 2, 0, 1 of three, whose labels are 7, 8 and none."""
    monkeypatch.setattr(scoring, "score", lambda model, sequences, pad: torch.tensor([1.0, 2.0, 3.0]))
    function = RewardFunction(None, ["7", "8", None], lambda _, text: extract(text, "number"), given_reward(), pad=0)
    given = ([2, 0, 1], ["#### 7", "#### 8", "nothing"], [[1], [2], [3]])
    rewards, info = function(*given)
    assert rewards.tolist() == [1.0, -2.0, -5.0]
    function.scale = 4.0
    assert function(*given)[0].tolist() == [0.25, -0.5, -5.0]
    assert info["rm_score"].tolist() == [1.0, 2.0, 3.0] and info["extractable"].tolist() == [1.0, 1.0, 0.0]
    assert torch.isnan(info["agreement"][0]) and info["agreement"][1:].tolist() == [0.0, 0.0]


# ---- AUC, ROC and histogram

KIND_SCORES = pd.DataFrame({"kind": [kind for kind in KINDS[:3] for _ in "ab"], "score": [2.0, 1, 1, 0, 3, 0.5]})
any_scores = st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, math.inf]), min_size=1, max_size=8)


def test_auc_counts_pairs_and_half_of_ties():
    assert metrics.auc([2, 1], [1, 0]) == 0.875
    assert metrics.comparison_auc(KIND_SCORES, "pos_neg") == 0.875
    assert metrics.comparison_auc(KIND_SCORES, "pos_pos") == 0.5  # 3 beats both, 0.5 neither
    for positives, negatives in (([], [1]), ([1], []), ([math.nan], [0]), ([1], [math.nan, 0])):
        assert math.isnan(metrics.auc(positives, negatives))
    assert metrics.accuracy([True, False, True, True]) == 0.75 and math.isnan(metrics.accuracy([]))


@given(any_scores, any_scores)
def test_auc_is_the_share_of_pairs_that_the_positive_wins_and_scikit_learns(positives, negatives):
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    found = metrics.auc(positives, negatives)
    assert found == pytest.approx(sum(wins) / len(wins), abs=1e-12)
    labels = [1] * len(positives) + [0] * len(negatives)
    finite = np.clip(positives + negatives, -9, 9)  # which scikit-learn wants
    assert found == pytest.approx(roc_auc_score(labels, finite))


def test_roc_points_have_the_area_of_the_auc_are_thinned_and_empty_where_undefined():
    points = metrics.roc_points(KIND_SCORES, "pos_neg")
    assert np.trapezoid(points.tpr, points.fpr) == pytest.approx(0.875)
    assert tuple(points.iloc[0]) == (0, 0) and tuple(points.iloc[-1]) == (1, 1)
    rng = np.random.default_rng(0)
    many = pd.DataFrame({"kind": ["student_positive", "student_negative"] * 2000, "score": rng.normal(size=4000)})
    assert len(metrics.roc_points(many, "pos_neg", most=50)) <= 50
    assert metrics.roc_points(KIND_SCORES[KIND_SCORES.kind == "student_positive"], "pos_neg").empty


def test_histogram_has_common_bins_and_unit_area():
    table = metrics.score_histogram(KIND_SCORES, bins=4)
    area = (table.density * (table.bin_high - table.bin_low)).groupby(table.kind).sum()
    assert area.tolist() == pytest.approx([1, 1, 1])
    assert table.groupby("kind").bin_low.apply(tuple).nunique() == 1
    assert metrics.score_histogram(KIND_SCORES.assign(score=math.nan)).empty


# ---- scores in parts, and prompts that are read once


@pytest.fixture(scope="module")
def scorer():
    """(model, tokenizer): the base model with a head that is not zero."""
    tokenizer = models.load_tokenizer(MODELS / "small")
    model = models.load_scorer(MODELS / "small", tokenizer.pad_token_id)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight, std=0.1)
    return model, tokenizer


@pytest.fixture(scope="module")
def sequences(scorer):
    texts = [f"Q: tom has {n} apples . {'tom buys 5 apples . ' * (n % 4)} A: #### {n}" for n in range(30)]
    eos = scorer[1].eos_token_id
    return [ids + [eos] * (i % 2) for i, ids in enumerate(scorer[1](texts)["input_ids"])]


def scores_alone(model, sequences) -> torch.Tensor:
    """The score of each sequence alone."""
    with torch.no_grad():
        return torch.tensor([model(input_ids=torch.tensor([s])).logits[0, 0].item() for s in sequences])


@pytest.mark.parametrize("queries", [None, [i % 7 for i in range(30)], ["one"] * 30, list(range(30))])
def test_scores_equal_an_unbatched_loop(scorer, sequences, queries, monkeypatch):
    model, tokenizer = scorer
    alone = scores_alone(model, sequences)
    for size in (1, 7, 256):
        monkeypatch.setattr(scoring, "SCORED_SIZE", size)
        monkeypatch.setattr(scoring, "GROUP_SIZE", 3 * size)
        assert torch.allclose(score(model, sequences, tokenizer.pad_token_id, queries), alone, atol=1e-4)
    assert alone.std() > 0.1


def with_gradient(model, scores: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Scores, and the gradient of a weighted sum of them in every trained parameter."""
    weights = torch.arange(1.0, len(scores) + 1, dtype=scores.dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    return scores.detach(), list(torch.autograd.grad((scores * weights).sum(), trained))


@pytest.mark.parametrize("queries", [None, [*range(30), *range(30)]])
def test_equal_sequences_have_equal_scores_whatever_is_beside_them(scorer, sequences, queries, monkeypatch):
    """Else the AUCs would take a response that teacher and student both gave for a better and a worse one."""
    monkeypatch.setattr(scoring, "SCORED_SIZE", 7)
    twice = score(scorer[0], [*sequences, *sequences], scorer[1].pad_token_id, queries)
    assert torch.equal(twice[:30], twice[30:])
    assert len(twice.unique()) == len(set(map(tuple, sequences)))


SAMPLED = [
    [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11, 12, 13], [5, 6, 7, 14]],  # three tokens in common
    [[20, 21, 22, 23, 24, 25, 26], [20, 21], [20, 21, 22]],  # one is the beginning of the others
    [[30, 31, 32]],  # alone
    [[40, 41], [40, 41]],  # the same twice
    [[50, 51, 52], [60, 61]],  # nothing in common
    [[9]],  # the row that fills up a process's share
]


def batch_of(groups: list[list[list[int]]], order: list[int], pad: int = 0):
    """Ids, mask and queries of all sequences in an order."""
    rows = [(sequence, number) for number, group in enumerate(groups) for sequence in group]
    ids, mask = pad_right([rows[i][0] for i in order], pad)
    return ids, mask, torch.tensor([rows[i][1] for i in order])


def small_model(config_class, **options):
    """An untrained scorer in float64 of another architecture."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = config_class(**sizes, **heads, num_labels=1, **options)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).double().eval()


@pytest.mark.parametrize("adapters", [False, True])
@given(order=st.permutations(range(12)), size=st.integers(1, 13))
@hypothesis_settings(max_examples=8)
def test_prompts_read_once_and_parts_give_the_scores_and_the_gradient_of_the_whole(adapters, order, size):
    model = small_model(Qwen2Config)
    if adapters:
        lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(model, lora).double().eval()
    assert reads_prefixes(model)
    ids, mask, queries = batch_of(SAMPLED, order)
    whole, gradients = with_gradient(model, score_whole(model, ids, mask, 1000))
    for parts in (score_by_query(model, ids, mask, queries, size), score_whole(model, ids, mask, size)):
        scores, others = with_gradient(model, parts)
        torch.testing.assert_close(scores, whole, rtol=1e-5, atol=1e-6)  # the norms go through float32
        for a, b in zip(gradients, others, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def test_each_prompt_goes_through_the_model_once(scorer, monkeypatch):
    """Counted in tokens: a query's prompt, and what follows it of each response."""
    model = copy.deepcopy(scorer[0])
    seen = []
    forward = model.model.embed_tokens.forward
    monkeypatch.setattr(model.model.embed_tokens, "forward", lambda ids: seen.append(ids) or forward(ids))
    prompt = list(range(5, 25))
    ids, mask = pad_right([[*prompt, n, 1] for n in range(30, 38)], 0)
    scoring.score_batch(model, ids, mask, torch.zeros(8, dtype=torch.long))
    assert [tokens.numel() for tokens in seen] == [20, 8 * 2]


def test_models_that_cannot_go_on_from_a_prompt_read_whole_sequences():
    sliding = small_model(MistralConfig, sliding_window=4)
    ids, mask, queries = batch_of(SAMPLED, list(range(12)))
    torch.testing.assert_close(
        scoring.score_batch(sliding, ids, mask, queries), score_whole(sliding, ids, mask, 24), rtol=0, atol=0
    )
    assert not reads_prefixes(sliding)
    checkpointed = small_model(Qwen2Config)
    checkpointed.gradient_checkpointing_enable()
    assert not reads_prefixes(checkpointed)
