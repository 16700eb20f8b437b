"""Prompts: their text, that a stage and the base models' corpus write them alike, and few-shot prompts."""

from __future__ import annotations

import random

from rdlib.micro import gsm, mmlu
from rdlib.micro.pretrain import prompt_text
from rdlib.profile import Dataset
from rdlib.prompts import few_shot, micro_question, zero_shot


def test_zero_shot():
    assert micro_question("how many ?", []) == "Q: how many ? A:"
    assert micro_question("which ?", ["zinc", "iron"]) == "Q: which ? (A) zinc (B) iron A:"


def test_ten_options_are_lettered_from_a_to_j():
    values = [f"v{i}" for i in range(10)]
    assert micro_question("which ?", values).endswith("(I) v8 (J) v9 A:")


def test_few_shot_repeats_the_zero_shot_format(word_problems: Dataset):
    prompt = few_shot(word_problems, [("q1", [], "r1"), ("q2", ["x"], "r2")], "q3", ["y", "z"])
    assert prompt.plain == "Q: q1 A: r1 Q: q2 (A) x A: r2 Q: q3 (A) y (B) z A:"
    assert few_shot(word_problems, [], "q3") == zero_shot(word_problems, "q3")


def test_the_base_models_were_pretrained_on_the_same_prompt():
    rng = random.Random(0)
    for _ in range(50):
        word_problem, choice = gsm.draw(rng), mmlu.draw(rng)
        assert prompt_text(word_problem) == micro_question(word_problem.question, [])
        assert prompt_text(choice) == micro_question(choice.question, list(choice.options))
