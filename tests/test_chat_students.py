"""The whole chain and the baselines with chat models: a template, padded vocabularies of two sizes, several ends."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from conftest import tiny_settings
from test_baselines import first_batch, reverse_kl
from tiny_models import CHATML, THINKING, make_model, make_tokenizer, save_settings, save_tokenizer

from rdlib.engines import models
from rdlib.method import ppo_core as core
from rdlib.method import rl
from rdlib.settings import Dataset
from rdlib.study.specification import BASELINES
from rdlib.study.stage import Stage
from rdlib.tasks import prompts
from rdlib.tasks.answers import extract
from rdlib.tasks.questions import read_questions
from rdlib.tasks.spoken import THINK

MATH = Dataset(source="questions", answer="math", path="q.jsonl", train=12, validation=4, test=4, max_tokens=40)
SAID = "So.\n#### {}"
LLAMA_3 = (
    "{{ bos_token + '<|im_start|>system<|im_end|>' }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
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


@pytest.mark.parametrize("teacher_rows", [432, 390])
def test_distillation_is_on_the_ids_that_both_have(study, tmp_path, monkeypatch, teacher_rows):
    """The reverse KL of distributions over the shared ids, whichever embedding has more rows."""
    make_model("qwen2", vocab_size=teacher_rows).save_pretrained(tmp_path / "teacher")
    load = models.load_causal_lm

    def with_rows(source, *args):
        return load(tmp_path / "teacher" if Path(source.model).name == "teacher" else source, *args)

    monkeypatch.setattr(models, "load_causal_lm", with_rows)
    trainer, inputs = first_batch(stage_of(study, "13_baseline", "distillation"), tmp_path)
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    teacher = load(tmp_path / "teacher")
    expected = reverse_kl(trainer.model, teacher, inputs, shared=min(400, teacher_rows))
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert trainer.model.config.vocab_size == trainer.model.lm_head.weight.grad.shape[0] == 400


def test_a_mixture_of_experts_is_trained_by_the_papers_losses_alone(tmp_path):
    """TRL would add its router's loss, with which no response can be sampled for the validation."""
    root = make_study(tmp_path, "qwen3_moe", teacher_rows=400)
    stage = stage_of(root, "03_sft_warmup")
    stage.run_with_inputs()
    assert "aux_loss" not in stage.table("history")
    saved = json.loads((stage.folder / "model/config.json").read_text())
    assert not saved["output_router_logits"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "template"), [("lfm2", CHATML), ("qwen3_moe", CHATML), ("qwen2", THINKING), ("llama", LLAMA_3)]
)
def test_the_chain_with_other_students_and_ppo_scores_whole_turns(tmp_path, monkeypatch, student, template):
    """One with a state and without a classification class; one whose template opens the thinking; and one that begins
    with a BOS and a turn of the system, and trims what is said. A rollout that ended has its end of turn last.
    """
    seen, score = [], rl.RewardFunction.__call__

    def spy(self, indices, texts, sequences):
        seen.extend(zip(sequences, texts, strict=True))
        return score(self, indices, texts, sequences)

    monkeypatch.setattr(rl.RewardFunction, "__call__", spy)
    root = make_study(tmp_path, student, template, 400)
    stage_of(root, "06_ppo").run_with_inputs()
    for method in {"lfm2": ("ours", "grpo"), "qwen3_moe": ("ours", "dpo", "grpo")}.get(student, ()):
        answers = stage_of(root, "07_evaluate", method).run_with_inputs().table("answers")
        assert len(answers) == 4 and answers["answer"].notna().any()
    warm = stage_of(root, "04_student_responses").table("responses")
    assert warm["answer"].notna().mean() > 0.5
    assert warm["text"].str.startswith(THINK).all() == (template == THINKING)
    tokenizer = models.load_tokenizer(root / "student")
    end, before = tokenizer.eos_token_id, 2 if template == LLAMA_3 else 1  # of the prompt's own turns
    assert tokenizer.eos_token == "<|im_end|>" and any(ids.count(end) > before for ids, _ in seen)
    for ids, text in seen:
        assert ids.count(tokenizer.bos_token_id) == (template == LLAMA_3) and tokenizer.pad_token_id not in ids
        assert ids.count(end) == before + (ids[-1] == end)
        assert "<|" not in text and tokenizer.decode(ids, skip_special_tokens=True).endswith(text)
