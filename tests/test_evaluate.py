"""Stage 7: grading by hand, in-context examples from the training draw, and which model is evaluated."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import transformers
from conftest import refused, stage_in

from rdlib.engines import generation, models
from rdlib.errors import UserError
from rdlib.method import evaluate
from rdlib.settings import Model
from rdlib.tasks import data
from rdlib.tasks.answers import extract

RESPONSES = pd.DataFrame({"id": ["t1", "t2", "t3", "p1"], "answer": ["4", "5", None, "1000"], "tokens": [3, 3, 2, 9]})
RESPONSES = RESPONSES.assign(text=["#### 4", "#### 5", "nothing", "#### 1,000"])
RESPONSES = RESPONSES.assign(split=["test"] * 3 + ["gsm_plus"], group=[""] * 3 + ["digit expansion"])
GOLD = pd.Series({"t1": "4", "t2": "4", "t3": "4", "p1": "1000", "unused": "0"})


def test_grade_by_hand(cell):
    graded = evaluate.grade(RESPONSES, GOLD, cell)
    assert graded["benchmark"].tolist() == ["gsm", "gsm", "gsm", "gsm_plus"]
    assert graded["correct"].tolist() == [True, False, False, True]
    assert [None if pd.isna(a) else a for a in graded["answer"]] == ["4", "5", None, "1000"]
    assert graded["gold"].tolist() == ["4", "4", "4", "1000"]
    assert graded["tokens"].tolist() == [3, 3, 2, 9]


def test_what_cannot_be_is_a_clear_error(cell, study):
    refused("'t2' has no gold answer", lambda: evaluate.grade(RESPONSES, GOLD.drop("t2"), cell))
    refused("few_shot", lambda: evaluate.few_shot_examples(stage_in(study, "07_evaluate", "icl", teacher=None), 17))


@pytest.mark.parametrize("dataset", ["gsm", "mmlu"])
def test_examples_come_from_the_training_draw_and_are_right(study, dataset):
    stage = stage_in(study, "07_evaluate", "icl", dataset=dataset, teacher=None)
    rows = data.micro_problems(dataset, stage.dataset_settings)
    by_text = {problem.question: (split, problem) for _, split, _, problem in rows}
    examples = evaluate.few_shot_examples(stage, 4)
    assert len({question for question, _, _ in examples}) == 4
    for question, options, response in examples:
        split, problem = by_text[question]
        assert split == "train"
        assert tuple(options) == getattr(problem, "options", ())
        assert extract(response, stage.dataset_settings.answer) == problem.answer
    assert evaluate.few_shot_examples(stage, 4) == examples
    assert evaluate.few_shot_examples(replace(stage, seed=1), 4) != examples


def test_which_model_is_evaluated(study):
    def source(method, **axes):
        return models.resolve(evaluate.evaluated_model(stage_in(study, "07_evaluate", method, **axes)), study).model

    assert source("teacher", student=None) == str(study / "models/strong")
    assert source("icl", teacher=None) == str(study / "models/small")
    for method, name in (("sft", "03_sft_warmup"), ("ours_wo_r", "03_sft_warmup"), ("ours", "06_ppo")):
        assert source(method) == str(stage_in(study, name, method).folder / "model")


def test_stage_answers_every_test_question_greedily(study):
    stage = stage_in(study, "07_evaluate", "ours")
    table, summary = stage.table("answers"), stage.json("summary")
    questions = stage.at("00_data").table("questions")
    tested = questions[questions["split"].isin(["test", "gsm_plus"])]
    assert table["id"].tolist() == tested["id"].tolist()
    assert summary["accuracy"] == table.groupby("benchmark")["correct"].mean().to_dict()
    assert set(summary["accuracy"]) == {"gsm", "gsm_plus"}
    gold = stage.at("00_gold").table("gold").set_index("id")["answer"]
    assert ((table["answer"] == gold[table["id"]].to_numpy()) == table["correct"]).all()

    from rdlib.engines.generation import Request
    from rdlib.engines.transformers_engine import TransformersEngine
    from rdlib.tasks.prompts import micro_question

    model, tokenizer = (
        load(stage_in(study, "06_ppo").folder / "model") for load in (models.load_causal_lm, models.load_tokenizer)
    )
    engine = TransformersEngine(model, tokenizer, 64, stage.dataset_settings.max_tokens)
    prompts = [tokenizer(micro_question(q, []))["input_ids"] for q in tested["question"]]
    again = [group[0].text for group in engine.generate([Request(p, 1, 0.0) for p in prompts], 0)]
    assert again == table["text"].tolist()


def test_in_context_prompts_are_longer_and_answered(study, tmp_path, monkeypatch):
    """The examples go into the prompt of `icl` alone."""
    seen = {}
    stage = stage_in(study, "07_evaluate", "icl", teacher=None)
    monkeypatch.setattr(generation, "sample_to_disk", lambda *a: seen.update(prompts=a[2]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate.run(stage, tmp_path)
    for prompt in seen["prompts"].values():
        assert prompt.plain.count("Q:") == stage.profile.evaluation.few_shot + 1
        assert prompt.plain.endswith(" A:")
    with pytest.raises(ZeroDivisionError):
        evaluate.run(stage_in(study, "07_evaluate", "sft"), tmp_path)
    assert all(prompt.plain.count("Q:") == 1 for prompt in seen["prompts"].values())


LOADERS = {
    "AutoTokenizer": models.load_tokenizer,
    "AutoConfig": models.load_config,
    "AutoModelForCausalLM": models.load_causal_lm,
    "AutoModelForSequenceClassification": models.load_scorer,
}


@pytest.mark.parametrize("auto", LOADERS)
def test_the_hub_is_asked_for_the_revision(auto, monkeypatch):
    asked, loader = [], getattr(transformers, auto)
    monkeypatch.setattr(loader, "from_pretrained", lambda *a, **kw: asked.append((*a, kw)) or 1 / 0)
    refused("The model org/model cannot be loaded", lambda: LOADERS[auto](Model(model="org/model", revision="abc")))
    assert asked[0][0] == "org/model" and asked[0][1]["revision"] == "abc"


def test_perturbed_validation_questions_are_new_and_answered_by_construction(cell):
    """None is a question of any split, and stage 13_perturbed_answers grades them by their own answers."""
    settings = cell.dataset_settings
    questions = data.perturbed_validation("gsm", settings)
    known = {question.question for question in data.load("gsm", settings, cell.root)}
    assert len(questions) == settings.perturbed_test
    assert not known & {question.question for question in questions}
    stage = cell.at("13_perturbed_answers", "ours_wo_r").run()
    answers = stage.table("answers").set_index("id")
    assert answers["group"].to_dict() == {question.id: question.group for question in questions}
    right = [question.id for question in questions if answers["answer"][question.id] == question.answer]
    assert answers.index[answers["correct"]].tolist() == right
    with pytest.raises(UserError, match="only micro-gsm"):
        data.perturbed_validation("mmlu", settings.model_copy(update={"source": "micro-mmlu"}))
