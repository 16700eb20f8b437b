"""Stage 1: the sampling plan of the two sets, and temperature 0 counted in full."""

from __future__ import annotations

import pandas as pd
from conftest import REPOSITORY

from rdlib.method.teacher import repeat_greedy, sampling_plan
from rdlib.profile import load_profile
from rdlib.settings import TeacherSampling
from rdlib.tasks.answers import extract

SETTINGS = TeacherSampling(high_temperatures=[0.0, 0.2], low_temperatures=[0.5, 1.0], samples_per_temperature=5)
QUESTIONS = pd.DataFrame({"id": ["q1", "q2"], "split": ["train", "validation"]})


def test_plan_by_hand():
    plan = sampling_plan(QUESTIONS, SETTINGS)
    assert plan.to_records(index=False).tolist()[:4] == [
        ("q1", "train", "high", 0.0, 1),
        ("q1", "train", "high", 0.2, 5),
        ("q1", "train", "low", 0.5, 5),
        ("q1", "train", "low", 1.0, 5),
    ]
    assert len(plan) == 8


def test_the_papers_numbers_of_responses():
    """Section 3.1: 5 samples at each of four and of six temperatures, 20 and 30 responses."""
    settings = load_profile(REPOSITORY / "params/micro.yaml").teacher_sampling
    plan = sampling_plan(QUESTIONS, settings)
    counted = plan.assign(n=plan["n"].where(plan["temperature"] > 0, settings.samples_per_temperature))
    assert counted.groupby(["id", "confidence"])["n"].sum().tolist() == [20, 30, 20, 30]
    assert settings.high_temperatures == [0.0, 0.1, 0.2, 0.3]


def test_greedy_responses_are_counted_in_full_and_cost_once():
    responses = pd.DataFrame({"temperature": [0.0, 0.2, 0.2], "sample": [0, 0, 1], "text": list("abc")})
    responses = responses.assign(id="q1", confidence="high", tokens=[9, 8, 7])
    repeated = repeat_greedy(responses, 4)
    assert repeated["text"].tolist() == ["a", "a", "a", "a", "b", "c"]
    assert repeated["sample"].tolist() == [0, 1, 2, 3, 0, 1]
    assert repeated["tokens"].sum() == responses["tokens"].sum()
    pd.testing.assert_frame_equal(repeat_greedy(responses, 1), responses)


def test_stage_writes_every_response(cell):
    responses = cell.at("01_teacher_responses").table("responses")
    questions = cell.at("00_data").table("questions")
    expected = questions[questions["split"].isin(["train", "validation"])]
    assert set(responses["id"]) == set(expected["id"])
    counts = responses.groupby(["id", "confidence"]).size()
    assert set(counts) == {6}  # two temperatures of three samples in each set
    greedy = responses[responses["temperature"] == 0].groupby("id")["text"].nunique()
    assert (greedy == 1).all()
    extracted = [extract(text, "number") for text in responses["text"]]
    assert [None if pd.isna(a) else a for a in responses["answer"]] == extracted
    assert not (cell.at("01_teacher_responses").folder / "shards").exists()


def test_hot_samples_differ_more_than_cold_ones(cell):
    responses = cell.at("01_teacher_responses").table("responses")
    kinds = responses[responses["temperature"] > 0].groupby(["temperature", "id"])["text"].nunique()
    means = kinds.groupby("temperature").mean()
    assert means[1.0] > means[0.3]
