"""Every stage with a model of the paper's shape: Llama-3's special tokens, chat template and end of turn.

Its weights are random but for the form of an answer, which it learns in the fixture: "The answer is (C)." with any
letter. Questions have ten options, as MMLU-Pro's, and one is long.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY
from test_chat_students import learn_the_form
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rdlib.engines import models
from rdlib.method import rl
from rdlib.settings import Dataset
from rdlib.study.stage import Stage
from rdlib.tasks import prompts
from rdlib.tasks.questions import LETTERS

VOCABULARY, ORDINARY = 16_256, 16_000  # an eighth of Llama-3's, and all of its special tokens
SPECIAL = (
    "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_0|> <|reserved_special_token_1|> "
    "<|finetune_right_pad_id|> <|reserved_special_token_2|> <|start_header_id|> <|end_header_id|> <|eom_id|> "
    "<|eot_id|> <|python_tag|>"
).split()
SPECIAL += [f"<|reserved_special_token_{i}|>" for i in range(3, 3 + 256 - len(SPECIAL))]
BOS, END_OF_TEXT, PAD, END_OF_MESSAGE, EOT = (ORDINARY + i for i in (0, 1, 4, 8, 9))
# What Llama-3.1's template makes of turns without tools; it trims what they say.
TEMPLATE = (
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
ANSWER = "The answer is ({})."
pytestmark = pytest.mark.slow


# ---- the paper's shapes, made here


def records() -> list[dict]:
    """Forty rows as MMLU-Pro has them, with ten options, the last one long."""
    rng = random.Random(0)
    words = "which of the following statements about a large closed economy with flexible prices is always true".split()
    rows = []
    for number in range(40):
        question = " ".join(rng.choice(words) for _ in range(15 if number < 39 else 300)) + "?"
        options = [" ".join(rng.choice(words) for _ in range(2)) + f" {i}" for i in range(10)]
        rows.append({"question_id": number, "question": question, "options": options, "answer": LETTERS[number % 10]})
    return [row | {"category": "economics", "cot_content": ""} for row in rows]


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with Llama-3's special tokens: 3,000 entries are learned, the rest never occur."""
    learned = Tokenizer(BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learned.train_from_iterator(texts, BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False))
    made = json.loads(learned.to_str())["model"]
    vocabulary = made["vocab"] | {f"unused {i}": i for i in range(len(made["vocab"]), ORDINARY)}
    core_ = Tokenizer(BPE(vocabulary, [tuple(pair) for pair in made["merges"]], ignore_merges=False))
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    core_.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core_.decoder = ByteLevelDecoder()
    core_.add_special_tokens(SPECIAL)
    core_.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", BOS)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core_, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


CHOICE = Dataset(source="mmlu_pro", answer="choice", path="mmlu", train=6, validation=3, test=3, max_tokens=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A repository with the model, the questions and a profile: paper.yaml's settings, tiny counts."""
    folder = tmp_path_factory.mktemp("paper")
    rows = records()
    solved = [row | {"cot_content": f"A: {ANSWER.format(row['answer'])}"} for row in rows[:3]]
    (folder / "mmlu").mkdir()
    for split, kept in (("test", rows), ("validation", solved)):
        (folder / f"mmlu/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    asked = [prompts.zero_shot(CHOICE, row["question"], row["options"]) for row in rows]
    texts = [ANSWER.format("A"), *(prompt.plain for prompt in asked)]
    tokenizer = tokenizer_of(texts)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=END_OF_TEXT,
    )
    model = LlamaForCausalLM(config)
    said = [tokenizer(ANSWER.format(letter), add_special_tokens=False)["input_ids"] + [EOT] for letter in LETTERS[:10]]
    learn_the_form(model, [prompts.encode(tokenizer, prompt) for prompt in asked[:-1]], said)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=[END_OF_TEXT, END_OF_MESSAGE, EOT])
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(profile()))
    return folder


def profile() -> dict:
    """params/paper.yaml with one cell of MMLU-Pro, in float32 on one process, and as little of everything as goes."""
    content = yaml.safe_load((REPOSITORY / "params/paper.yaml").read_text())
    content = {name: value for name, value in content.items() if name not in ("cells", "hardware")}
    return content | {
        "name": "tiny",
        "teachers": {"strong": "model"},
        "students": {"small": "model"},
        "datasets": {"mmlu": CHOICE.model_dump(exclude_defaults=True)},
        "teacher_sampling": {"high_temperatures": [1.0], "low_temperatures": [], "samples_per_temperature": 6},
        "voting": {"threshold": 0.15},
        "stopping": {"every": 4, "patience": 8, "warmup_steps": 1},
        "sft": content["sft"] | {"epochs": 1, "batch_size": 2, "max_length": 1500, "responses_per_question": 1},
        "student_sampling": {
            "samples": 30,
            "temperature": 1.0,
        },  # of ten letters: some are right
        "reward_model": content["reward_model"] | {"epochs": 1, "batch_size": 2, "samples_per_kind": 2},
        "ppo": content["ppo"]
        | {"total_updates": 1, "episodes_per_update": 4, "minibatch_size": 4, "checkpoint_every": 1},
        "evaluation": {"temperature": 0.0, "few_shot": 2},
        "generation": {"batch_size": 16, "shard_size": 64},
        "training": {"precision": "fp32"},
        "grid": content["grid"] | {"ablation_cells": [{"dataset": "mmlu", "teacher": "strong", "student": "small"}]},
    }


def stage_of(root: Path, name: str, method: str = "ours") -> Stage:
    axes = {"dataset": "mmlu", "teacher": "strong", "student": "small"}
    return Stage("07_evaluate", "tiny.yaml", method=method, root=root, **axes).at(name)


@pytest.fixture(scope="module")
def study(root) -> tuple[Path, list[tuple[list[int], str]]]:
    """All stages of `ours`, and the ICL baseline; token ids and text of what PPO's reward function was given."""
    seen, score = [], rl.RewardFunction.__call__

    def spy(self, indices, texts, sequences):
        seen.extend(zip(sequences, texts, strict=True))
        return score(self, indices, texts, sequences)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl.RewardFunction, "__call__", spy)
        stage_of(root, "07_evaluate").run_with_inputs()
    stage_of(root, "07_evaluate", "icl").run_with_inputs()
    return root, seen


# ---- tokens


def test_the_end_token_is_the_end_of_turn_and_padding_is_another(root):
    tokenizer = models.load_tokenizer(root / "model")
    assert len(tokenizer) == VOCABULARY and tokenizer.bos_token_id == BOS
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOT, PAD)
    assert models.end_tokens(models.load_causal_lm(root / "model"), tokenizer) == [END_OF_TEXT, END_OF_MESSAGE, EOT]


# ---- stages


def test_ppo_scores_whole_turns(study):
    """A rollout that ended has one end of turn behind its prompt's two, as its last token."""
    root, seen = study
    tokenizer = models.load_tokenizer(root / "model")
    assert len(seen) == 4
    ended = 0
    for ids, text in seen:
        assert ids[0] == BOS and ids.count(BOS) == 1 and "<|" not in text and PAD not in ids
        assert ids.count(EOT) in (2, 3)
        ended += ids.count(EOT) == 3
        assert (ids[-1] == EOT) == (ids.count(EOT) == 3) or ids[-1] in (END_OF_TEXT, END_OF_MESSAGE)
        assert tokenizer.decode(ids, skip_special_tokens=True).endswith(text)
    assert ended > 0
    history = stage_of(root, "06_ppo").jsonl("history")
    assert history["kl"].iloc[-1] == pytest.approx(0, abs=1e-4) and history["reward"].notna().sum() == 1


@pytest.mark.parametrize("method", ["ours", "icl"])
def test_every_test_question_is_answered(study, method):
    answers = stage_of(study[0], "07_evaluate", method).table("answers")
    assert len(answers) == 3 and set(answers["gold"]) <= set(LETTERS[:10])
    assert set(answers["answer"].dropna()) <= set(LETTERS[:10])
    assert pd.api.types.is_bool_dtype(answers["correct"])
