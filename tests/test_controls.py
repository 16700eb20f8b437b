"""Rewards that PPO's are compared with (the student's own vote, form, shuffled), and the responses that PPO keeps."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_adapters import again  # noqa: F401
from test_resume import interrupt

from rdlib.artifacts import hash_files
from rdlib.errors import UserError
from rdlib.evidence import sharpening
from rdlib.method import own_vote, ppo, rl, rollouts, scoring
from rdlib.method.reward import reward, scale_of, shuffled
from rdlib.method.voting import majority_vote
from rdlib.settings import Reward
from rdlib.study import notebook
from rdlib.tasks.answers import extract

QUERIES = pd.DataFrame({"id": ["a", "b", "c", "d"], "pseudo_label": ["7", "8", None, "9"]})
RESPONSES = pd.DataFrame(
    [("a", "5"), ("a", "5"), ("a", "7"), ("b", "8"), ("b", None), ("b", None), ("d", None)], columns=["id", "answer"]
)


def settings(source: str, **others) -> Reward:
    return Reward(no_answer=-5.0, mismatch="negative_abs", mismatch_constant=1.0, source=source, **others)


def function(source: str, labels: list[str | None], seed: int = 0) -> rl.RewardFunction:
    return rl.RewardFunction(None, labels, lambda _, text: extract(text, "number"), settings(source), pad=0, seed=seed)


def test_the_students_vote_needs_no_majority_but_a_pseudo_label():
    assert own_vote.fixed(QUERIES, RESPONSES)([0, 1, 2, 3, 0]) == ["5", "8", None, None, "5"]


def test_form_is_one_for_any_answer():
    scores = torch.tensor([2.0, -1.0, 0.5])
    assert reward(scores, ["7", None, "x"], ["8", "8", None], settings("form"), scale=0.5).tolist() == [2.0, 0.0, 2.0]


@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=9), st.integers(0, 99))
def test_shuffled_rewards_have_the_same_distribution(values, seed):
    rewards = torch.tensor(values)
    assert sorted(shuffled(rewards, seed).tolist()) == sorted(rewards.tolist())


def test_shuffled_rewards_are_eq_7s_in_an_order_of_the_seed_and_the_queries(monkeypatch):
    scores = torch.arange(1.0, 9.0)
    monkeypatch.setattr(scoring, "score", lambda model, sequences, pad: scores)
    texts, indices = ["#### 7"] * 6 + ["#### 8", "nothing"], [3, 1, 2, 0, 4, 5, 6, 7]
    of = {seed: function("shuffled", ["7"] * 8, seed)(indices, texts, [[1]] * 8)[0].tolist() for seed in (0, 1)}
    expected = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0, -5.0]
    assert sorted(of[0]) == sorted(expected)
    assert len({tuple(expected), tuple(of[0]), tuple(of[1])}) == 3
    assert function("shuffled", ["7"] * 8)(indices, texts, [[1]] * 8)[0].tolist() == of[0]
    assert function("shuffled", ["7"] * 8)(indices[::-1], texts, [[1]] * 8)[0].tolist() != of[0]


def test_a_vote_of_ones_own_is_rewarded_and_the_agreement_stays_the_teachers(monkeypatch):
    monkeypatch.setattr(scoring, "score", lambda model, sequences, pad: torch.zeros(3))
    score = function("student_vote", ["7", "8", None])
    score.votes = own_vote.fixed(QUERIES, RESPONSES)
    rewards, info = score([0, 0, 1], ["#### 5", "#### 7", "#### 8"], [[1]] * 3)
    assert rewards.tolist() == [1.0, 0.0, 1.0]
    assert info["agreement"].tolist() == [0.0, 1.0, 1.0]


def test_a_renewed_vote_is_of_the_policys_samples_and_of_labelled_queries_alone():
    asked = []

    def answers(indices, count, seed):
        asked.append((list(indices), count, seed))
        return [["5", "6", "5"] if i == 0 else [None, None, None] for i in indices]

    votes = own_vote.renewed(["7", "8", None, "9"], answers, 3, seed=4)
    assert votes([2, 0, 3]) == [None, "5", None]
    assert votes([2, 0, 3]) == [None, "5", None]
    assert asked[0] == asked[1]  # an update that is computed again votes with the same samples
    votes([0, 3])
    assert asked[2][:2] == ([0, 3], 3)
    assert asked[2][2] != asked[0][2]


@given(st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=9))
def test_the_vote_is_the_most_frequent_answer(answers):
    """Against the teacher's vote with a threshold that every answer passes."""
    assert own_vote.vote(answers) == majority_vote(answers, -1.0)[0]


def test_scales_are_those_of_what_is_rewarded():
    scores = pd.DataFrame({"kind": ["student_positive", "student_negative"], "score": [3.0, 7.0]})
    found = {
        source: scale_of(scores, settings(source, scale="unit")) for source in ("reward_model", "shuffled", "form")
    }
    assert found == {"reward_model": 2.0, "shuffled": 2.0, "form": 0.5}
    assert scale_of(scores, settings("renewed_vote", scale="unit")) == scale_of(scores, settings("vote", scale="unit"))


# ---- in a stage

KEPT = {"ppo.kept_queries": 2, "ppo.checkpoint_every": 2}


@pytest.mark.slow
@pytest.mark.parametrize("source", ["renewed_vote", "shuffled"])
def test_ppo_on_a_control_goes_on_as_it_would_have(again, tmp_path, monkeypatch, source):  # noqa: F811
    """Killed after update 3 of which the second is kept; and what it keeps is there once, of the same queries."""
    overrides = KEPT | {"reward.source": source, "reward.votes": 3}
    whole = again(tmp_path / "whole", "06_ppo", overrides).run()
    killed = again(tmp_path / "killed", "06_ppo", overrides)
    interrupt(killed, monkeypatch, ppo.PPOTrainer, "_record", 4)
    assert hash_files(killed.run().folder) == hash_files(whole.folder)
    kept, history = whole.table("rollouts"), whole.jsonl("history")
    validated = history.loc[history["validation_agreement"].notna(), "update"].tolist()
    assert kept.groupby("update").size().to_dict() == dict.fromkeys(validated, 2 * rollouts.KEPT_SAMPLES)
    assert kept.groupby("update")["id"].unique().map(tuple).nunique() == 1
    assert not {"rollouts", "validation"} & {path.name for path in whole.folder.iterdir()}


@pytest.mark.slow
def test_what_is_kept_changes_neither_weights_nor_history(study, again, tmp_path):  # noqa: F811
    plain = again(tmp_path / "plain", "06_ppo", {"ppo.kept_queries": 0}).run()
    kept = again(tmp_path / "kept", "06_ppo", {"ppo.kept_queries": 99}).run()
    files = hash_files(kept.folder)
    assert files.pop("rollouts.parquet")
    assert files == hash_files(plain.folder)
    table, labels = kept.table("rollouts"), kept.input("labels")
    known = pd.read_parquet(labels / "labels.parquet").set_index("id")["pseudo_label"]
    assert (table["pseudo_label"].fillna("") == table["id"].map(known).fillna("")).all()
    labelled = table.dropna(subset="pseudo_label")
    assert (labelled["agrees"] == (labelled["answer"] == labelled["pseudo_label"]).fillna(False)).all()


def test_a_vote_about_nothing_is_refused(cell, monkeypatch):
    stage = cell.at("06_ppo").with_overrides({"reward.source": "student_vote"})
    unlabelled = rl.training_queries
    monkeypatch.setattr(rl, "training_queries", lambda *a, **k: unlabelled(*a, **k).assign(pseudo_label=None))
    with pytest.raises(UserError, match="reward.source is student_vote, and no query has a pseudo-label"):
        rl.run(stage, stage.folder.with_name("none"))


def test_answers_along_ppo_by_hand():
    rows = [(0, "a", "3"), (0, "a", "4"), (0, "a", "4"), (8, "a", None), (8, "a", "4"), (8, "a", "4"), (0, "b", "x")]
    table = pd.DataFrame(rows, columns=["update", "id", "answer"]).assign(pseudo_label=["4"] * 6 + [None])
    found = notebook.answers_along(table)
    assert found.fillna("").values.tolist() == [["a", "4", "4 x2, 3", "4 x2, (no answer)"], ["b", "-", "x", ""]]
    assert found.columns.tolist() == ["id", "pseudo_label", "update 0", "update 8"]


def test_samples_of_any_methods_policy_are_judged_as_those_of_ppo(cell):
    """The warm-up's: as many of the same questions as before PPO, each judged by label, gold and Ours' scores."""
    stage = cell.at("13_sampled_responses", "ours_wo_r").run()
    found, before = stage.table("sampled"), cell.at("04_student_responses").table("responses")
    before = before[before["split"] == "validation"]
    assert found.groupby("id").size().to_dict() == before.groupby("id").size().to_dict()
    labels = cell.at("02_pseudo_labels").table("labels").set_index("id")["pseudo_label"]
    gold = cell.at("00_gold").table("gold").set_index("id")["answer"]
    assert (found["agrees"] == (found["answer"] == found["id"].map(labels)).fillna(False)).all()
    assert (found["correct"] == (found["answer"] == found["id"].map(gold)).fillna(False)).all()
    assert found.groupby(["id", "text"])["score"].nunique().max() == 1
    assert stage.inputs["reward_model"].folder == cell.at("05_reward_model").folder


def test_controls_are_compared_pair_by_pair_and_by_their_samples():
    """By hand: the vote is right where form is not, on one of two questions; and makes its samples alike."""
    rows = [("vote", "a", 1), ("vote", "b", 1), ("form", "a", 1), ("form", "b", 0)]
    answers = pd.DataFrame(rows, columns=["arm", "id", "correct"])
    answers = answers.assign(cell="c", benchmark="gsm", seed=0, correct=answers["correct"].astype(bool))
    table = sharpening.answers_changed(answers, pairs=[["vote", "form"], ["vote", "absent"]])
    assert table[["arm", "against", "gained_pct", "net_pp", "n"]].values.tolist() == [["vote", "form", 50.0, 50.0, 2]]
    rows = [("no PPO", n, text, str(text), text == 1) for n, text in enumerate([1, 2, 3, 1])]
    rows += [("vote", n, 1, "1", True) for n in range(4)]
    samples = pd.DataFrame(rows, columns=["arm", "sample", "text", "answer", "correct"])
    samples = samples.assign(cell="c", seed=0, id="q", agrees=True, score=0.0, tokens=3)
    found = sharpening.of_arms(samples, "no PPO").set_index("measure")
    assert found.loc["pass@1", ["before", "after", "change"]].tolist() == [50.0, 100.0, 50.0]
    assert found.loc["distinct answers", ["before", "after"]].tolist() == [3, 1]
    assert set(found["arm"]) == {"vote"}
