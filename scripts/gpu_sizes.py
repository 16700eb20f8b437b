"""What `scripts/gpu_check.py` trains and samples with: shapes, settings, weights, a tokenizer and texts.

All is made on the spot. Every sequence is as long as the dry run's account takes it to be (the longest question of
GSM8K and a response at its limit), so that what is predicted and what is measured are of the same step.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rdlib.method.reward_model import STUDENT_NEGATIVE, STUDENT_POSITIVE, TEACHER_POSITIVE, Response
from rdlib.paths import ROOT
from rdlib.settings import Model
from rdlib.study.memory import KNOWN, LONGEST, Shape, configuration
from rdlib.study.stage import Stage
from rdlib.tasks import prompts

QWEN, LLAMA = "Qwen2.5-0.5B", "Llama-3.2-1B"
FLOAT32, LORA = "float32, bf16 autocast", "bfloat16, LoRA"
SDPA, FLASH = "sdpa", "flash_attention_2"
PROMPT = LONGEST["gsm8k"]  # tokens
PAD, EOS, START, END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Scale:
    """How large everything is: the shapes by name, tokens of a response, and the batches of an optimizer step.

    `rows` of SFT, `queries` of the reward model with `samples` of each kind, `episodes` of PPO in minibatches of
    `minibatch`; each is shared by two passes.
    """

    shapes: dict[str, Shape]
    response: int
    rows: int
    queries: int
    samples: int
    episodes: int
    minibatch: int

    @property
    def length(self) -> int:
        """Tokens of a prompt and its response."""
        return PROMPT + self.response


TINY = {
    QWEN: Shape(64, 2, 4, 2, 16, 128, 2000, tied=True, qkv_bias=True),
    LLAMA: Shape(96, 2, 4, 2, 24, 192, 2000, tied=True),
}
SCALES = {
    "full": Scale({name: KNOWN[name] for name in TINY}, 290, rows=32, queries=8, samples=4, episodes=64, minibatch=32),
    "tiny": Scale(TINY, 24, rows=4, queries=2, samples=2, episodes=4, minibatch=4),
}


@dataclass(frozen=True)
class Work:
    """One job: its kind, the model, how its numbers are held, its attention, and where and what it runs on.

    `folder` holds the models; `card` is what `gpu_meters.facts` found.
    """

    kind: str
    model: str
    numbers: str
    attention: str
    scale_name: str
    folder: Path
    card: dict[str, Any]

    @property
    def scale(self) -> Scale:
        """The sizes of everything."""
        return SCALES[self.scale_name]

    @property
    def of(self) -> dict[str, Any]:
        """The columns of a row that say what it is of."""
        return {"model": self.model, "numbers": self.numbers, "attention": self.attention}

    @property
    def parameters(self) -> float:
        """Those of the model."""
        return float(self.scale.shapes[self.model].parameters)

    @property
    def weights(self) -> Path:
        """The folder of the model, which lies in that of a stage."""
        return self.folder / self.model / "model"

    @property
    def source(self) -> Model:
        """The model, which lies in `weights`."""
        return Model(model=str(self.weights), engine="transformers", parameters=self.parameters)

    def stage(self, name: str) -> Stage:
        """A stage of the only cell of a profile like params/single_gpu.yaml, whose student is the model."""
        scale, content = self.scale, yaml.safe_load((ROOT / "params/single_gpu.yaml").read_text(encoding="utf-8"))
        hardware = {"gpus": 1, "gpu_memory_gib": self.card["memory_gib"], "gpu_tflops": self.card["peak_tflops"]}
        content |= {"name": "gpu_check", "students": {"small": self.source.model_dump()}, "hardware": hardware}
        content["datasets"]["gsm"] |= {"train": 64, "validation": 4, "test": 4, "perturbed_test": 0}
        content["datasets"]["gsm"]["max_tokens"] = scale.response
        content["sft"] |= {"batch_size": scale.rows}
        content["reward_model"] |= {"batch_size": scale.queries, "samples_per_kind": scale.samples}
        content["ppo"] |= {"episodes_per_update": scale.episodes, "minibatch_size": scale.minibatch}
        content["generation"] |= {"batch_size": scale.episodes, "engine": "transformers"}
        content["training"] = self.training()
        path = self.folder / "profile.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return Stage(name, str(path), "gsm", "strong", "small", "sft" if name == "03_sft_warmup" else "ours")

    def training(self) -> dict[str, Any]:
        """The profile's section; what is trained whole goes with gradient checkpointing, adapters without."""
        lora = self.numbers == LORA
        return {
            "gradient_accumulation": 2,
            "gradient_checkpointing": not lora,
            "precision": "bf16",
            "weights": "bfloat16" if lora else "float32",
            "lora": {"r": 16, "alpha": 32} if lora else None,
            "attention": self.attention,
        }


# ---- a model and its tokenizer


def make_tokenizer() -> PreTrainedTokenizerBase:
    """A token a byte, with a chat template; its 260 numbers lie below any vocabulary here."""
    core = Tokenizer(BPE({letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False, use_regex=False), ByteLevelDecoder()
    core.add_special_tokens([AddedToken(token, special=True) for token in (PAD, EOS, START, END)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=PAD)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@torch.no_grad()
def write_weights(folder: Path, shape: Shape, device: torch.device) -> int:
    """Write a model with random bfloat16 weights, made on the device, and its tokenizer; returns its parameters.

    The layers' matrices are twice as large as usual: with the usual ones a model says its last token again and again.
    """
    tokenizer = make_tokenizer()
    ends = {"eos_token_id": tokenizer.convert_tokens_to_ids(END), "pad_token_id": tokenizer.pad_token_id}
    given = ends | {"bos_token_id": None, "max_position_embeddings": 4096}
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(configuration(shape, **given), dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if ".layers." in name and parameter.dim() > 1:
            parameter.mul_(2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.num_parameters()


# ---- texts


class Texts:
    """Questions and responses of random letters, as long as the scale says; a letter is a token.

    The first four questions are for validation, the others for training.
    """

    def __init__(self, scale: Scale, stage: Stage, tokenizer: PreTrainedTokenizerBase, count: int):
        self.scale, self.rng, settings = scale, random.Random(0), stage.dataset_settings
        (shortest,) = prompts.of_questions(settings, _table(["x"])).values()
        room = PROMPT - len(prompts.encode(tokenizer, shortest)) + 1
        self.questions = _table([self._letters(room) for _ in range(count)])
        self.prompts = prompts.of_questions(settings, self.questions)
        self.encode = prompts.Encoder(self.prompts, tokenizer)
        lengths = {len(ids) for ids in self.encode.prompts.values()} | {len(self.encode.response("a", True)) - 2}
        if lengths != {PROMPT, 0}:
            raise ValueError(f"the made-up texts have {sorted(lengths)} tokens and not {PROMPT}")

    def ids(self, split: str) -> list[str]:
        """The questions of a split."""
        return list(self.questions["id"][self.questions["split"] == split])

    @property
    def queries(self) -> list[list[int]]:
        """The tokens of the prompts of the training questions."""
        return [self.encode.prompts[key] for key in self.ids("train")]

    def response(self) -> str:
        """A response whose tokens, with the end token, are as many as there may be."""
        return self._letters(self.scale.response - 1)

    def responses(self, split: str, count: int) -> pd.DataFrame:
        """A table of so many responses to the questions of a split, in turn."""
        ids = self.ids(split)
        rows = [(ids[number % len(ids)], self.response(), True) for number in range(count)]
        return pd.DataFrame(rows, columns=["id", "text", "finished"])

    def examples(self, count: int) -> dict[str, list[Response]]:
        """Of so many queries the responses of each kind that a reward model learns from."""
        kinds = [STUDENT_POSITIVE, STUDENT_NEGATIVE, TEACHER_POSITIVE] * self.scale.samples
        return {key: [Response(k, self.response(), True) for k in kinds] for key in self.ids("train")[:count]}

    def _letters(self, count: int) -> str:
        return "".join(self.rng.choices(LETTERS, k=count))


def _table(questions: list[str]) -> pd.DataFrame:
    ids = [f"q{number}" for number in range(len(questions))]
    table = pd.DataFrame({"id": ids, "question": questions, "options": [()] * len(ids), "group": "made up"})
    return table.assign(split=["validation" if number < 4 else "train" for number in range(len(ids))])
