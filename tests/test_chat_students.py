"""The whole chain and the baselines with chat models: a template, padded vocabularies of two sizes, several ends."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import tiny_settings
from test_prompts import CHATML, THINKING, make_tokenizer
from tiny_models import make_model, save_settings, save_tokenizer

from rdlib.engines import models
from rdlib.method import baselines
from rdlib.method import ppo_core as core
from rdlib.method.baselines import Cell
from rdlib.method.policy import policy_source
from rdlib.settings import Dataset
from rdlib.study.specification import BASELINES
from rdlib.study.stage import Stage
from rdlib.tasks import prompts
from rdlib.tasks.answers import extract
from rdlib.tasks.questions import read_questions

MATH = Dataset(source="questions", answer="math", path="q.jsonl", train=12, validation=4, test=4, max_tokens=40)
SAID = "So.\n#### {}"
END_OF_TEXT = 1  # "</s>", an end of the base model; the template's is "<|im_end|>"


def learn_the_form(model, asked: list[list[int]], said: list[list[int]], steps: int = 50) -> None:
    """Teach a model to give one of some responses (token ids) to any prompt."""
    rng = random.Random(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = core.Batch.collate([rng.choice(asked) for _ in range(4)], [rng.choice(said) for _ in range(4)])
        logprobs, _ = core.response_logprobs(model, *batch.inputs)
        loss = -core.masked_mean(logprobs, batch.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def make_chat_model(folder: Path, kind: str, rows: int, template: str, questions: list[str]) -> None:
    """A model that answers in the asked form, with settings as careless as real ones."""
    save_tokenizer(folder, template, make_tokenizer(None, template, "</s>", "</s>"))
    model = make_model(kind, vocab_size=rows)
    asked = {question: prompts.zero_shot(MATH, question) for question in questions}
    encode = prompts.Encoder(asked, models.load_tokenizer(folder))
    learn_the_form(model, list(encode.prompts.values()), [encode.response(SAID.format(n), True) for n in "23"])
    model.save_pretrained(folder)
    save_settings(folder, "generation_config.json", eos_token_id=[END_OF_TEXT], pad_token_id=1, temperature=0.7)


def make_study(root: Path, student: str = "qwen2", template: str = CHATML, teacher_rows: int = 432) -> Path:
    """A repository with a teacher, a student of another padding of one vocabulary, and twenty questions."""
    questions = [f"What is {a} + {b}?" for a in range(4) for b in range(5)]
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"question": q, "answer": "2"} for q in questions]
    (root / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_chat_model(root / "teacher", "qwen2", teacher_rows, CHATML, questions)
    make_chat_model(root / "student", student, 400, template, questions)
    content = tiny_settings() | {
        "name": "tiny",
        "numerics": "native",
        "teachers": {"strong": "teacher"},
        "students": {"small": "student"},
        "datasets": {"mine": MATH.model_dump(exclude_defaults=True)},
        "teacher_sampling": {"high_temperatures": [1.0], "low_temperatures": [], "samples_per_temperature": 5},
    }
    content["sft"] |= {"max_length": 400}
    content["student_sampling"] = {"samples": 12, "temperature": 1.0}
    content["voting"] = {"threshold": 0.3}
    content["evaluation"] |= {"few_shot": 1}
    content["grid"] |= {"ablation_cells": [{"dataset": "mine", "teacher": "strong", "student": "small"}]}
    content.pop("cells", None)
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    return root


def stage_of(root: Path, name: str, method: str = "ours") -> Stage:
    axes = {"dataset": "mine", "teacher": "strong", "student": "small"}
    return Stage("07_evaluate", "tiny.yaml", method=method, root=root, **axes).at(name)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """All stages of `ours`, and every baseline, evaluated."""
    root = make_study(tmp_path_factory.mktemp("chat"))
    for method in ("ours", "icl", *BASELINES):
        stage_of(root, "07_evaluate", method).run_with_inputs()
    return root


@pytest.mark.parametrize("method", ["ours", "icl", *BASELINES])
def test_every_method_runs_with_a_chat_student(study, method):
    answers = stage_of(study, "07_evaluate", method).table("answers")
    assert len(answers) == 4 and answers["answer"].notna().any()


@pytest.mark.parametrize(("name", "method"), [("06_ppo", "ours"), ("13_baseline", "grpo"), ("13_baseline", "rft")])
def test_what_is_saved_answers_by_generate_as_it_was_evaluated(study, name, method):
    from transformers import AutoModelForCausalLM

    folder = stage_of(study, name, method).folder / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), models.load_tokenizer(folder)
    assert set(models.end_tokens(model, tokenizer)) == {END_OF_TEXT, tokenizer.eos_token_id}
    assert set(model.generation_config.eos_token_id) == {END_OF_TEXT, tokenizer.eos_token_id}
    test = read_questions(stage_of(study, "00_data").folder, "test")
    answers = stage_of(study, "07_evaluate", method).table("answers").set_index("id")
    for key, prompt in prompts.of_questions(MATH, test).items():
        ids = torch.tensor([prompts.encode(tokenizer, prompt)])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=MATH.max_tokens)
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        assert (extract(text, "math") or "") == (answers.loc[key, "answer"] or "")


def first_batch(root: Path, folder: Path, method: str):
    """(trainer, inputs) of the first step of a baseline that samples."""
    stage = stage_of(root, "13_baseline", method)
    questions = read_questions(stage.input("data"), "train", "validation")
    labels = stage.at("02_pseudo_labels").table("labels")
    source = policy_source(stage)
    cell = Cell(source, models.load_tokenizer(source), questions, labels, stage.dataset_settings)
    trainer = baselines.TRAINERS[method](stage, folder, cell)
    trainer.model.train()
    return trainer, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def rows_of(inputs, what: str) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(inputs[f"{what}_ids"], inputs[f"{what}_mask"], strict=True)]


def test_grpo_asks_by_the_template_and_rewards_as_ppo_does(study, tmp_path):
    trainer, inputs = first_batch(study, tmp_path, "grpo")
    tokenizer = trainer.processing_class
    known = {tuple(ids): text for text, ids in trainer.tokens.items()}
    labels = dict(zip(trainer.train_dataset["prompt"], trainer.train_dataset["pseudo_label"], strict=True))
    rows = []
    for prompt, response in zip(rows_of(inputs, "prompt"), rows_of(inputs, "completion"), strict=True):
        answer = extract(tokenizer.decode(response, skip_special_tokens=True), "math")
        rows.append((known[tuple(prompt)], float(answer == labels[known[tuple(prompt)]])))
        assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    table = pd.DataFrame(rows, columns=["prompt", "reward"])
    groups = table.groupby("prompt")["reward"]
    expected = (table["reward"] - groups.transform("mean")) / (groups.transform("std") + 1e-4)
    assert inputs["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert table["reward"].nunique() == 2


def test_grpo_reads_a_completion_as_ppo_does():
    label = {"pseudo_label": ["4"], "options": [10]}
    run_on = ["It is 4.\n#### 4\n\nQuestion: What is 3 + 3?\n#### 6"]
    assert baselines.match_reward("math", "", prompts.STOP)(run_on, **label) == [1.0]
    cut = ["So it is 4.\n#### 4"]
    assert baselines.match_reward("math", prompts.THINK)(cut, **label) == [0.0]  # thinking that was cut off
    assert baselines.match_reward("math")(cut, **label) == [1.0]


@pytest.mark.parametrize("teacher_rows", [400, 432, 390])
def test_distillation_is_on_the_ids_that_both_have(study, tmp_path, teacher_rows):
    """The reverse KL of distributions over the shared ids, whichever embedding has more rows."""
    root = study
    if teacher_rows != 432:
        torch.manual_seed(1)
        teacher = make_model("qwen2", vocab_size=teacher_rows)
        teacher.save_pretrained(tmp_path / "teacher")
        stage = stage_of(root, "13_baseline", "distillation")
    load = models.load_causal_lm

    def with_rows(source, *args):
        model = load(source, *args)
        is_teacher = Path(source.model).name == "teacher"
        return load(tmp_path / "teacher", *args) if is_teacher and teacher_rows != 432 else model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_causal_lm", with_rows)
        trainer, inputs = first_batch(root, tmp_path, "distillation")
        stage = stage_of(root, "13_baseline", "distillation")
        teacher = with_rows(models.resolve(stage.profile.model_of("strong"), root))
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    divergence, tokens, shared = 0.0, 0, min(400, teacher_rows)
    for prompt, response in zip(rows_of(inputs, "prompt"), rows_of(inputs, "completion"), strict=True):
        ids = torch.tensor([prompt + response])
        assert ids.max() < shared
        with torch.no_grad():
            mine, other = (m(ids).logits[0, :, :shared].log_softmax(-1) for m in (trainer.model, teacher))
        places = slice(len(prompt) - 1, -1)
        divergence += (mine[places].exp() * (mine[places] - other[places])).sum().item()
        tokens += len(response)
    assert loss.item() == pytest.approx(divergence / tokens, rel=1e-3)
    assert trainer.model.config.vocab_size == 400
    assert trainer.model.lm_head.weight.grad.shape[0] == 400


@pytest.mark.slow
@pytest.mark.parametrize(("student", "template"), [("granite", CHATML), ("lfm2", CHATML), ("qwen2", THINKING)])
def test_the_chain_with_other_students(tmp_path, student, template):
    """One without a classification class, one with a state, one whose template opens the thinking."""
    root = make_study(tmp_path, student, template, 400)
    for method in ("ours", "grpo"):
        answers = stage_of(root, "07_evaluate", method).run_with_inputs().table("answers")
        assert len(answers) == 4 and answers["answer"].notna().any()
    warm = stage_of(root, "04_student_responses").table("responses")
    assert warm["answer"].notna().mean() > 0.5
    assert warm["text"].str.startswith(prompts.THINK).all() == (template == THINKING)
