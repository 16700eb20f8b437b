"""What the parts share of the micro study: its questions as token ids, and its students."""

from __future__ import annotations

import pandas as pd

from rdlib.engines import models
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.tasks import data, prompts

PROFILE = "params/micro.yaml"


def student(name: str) -> str:
    """The folder of a student's base model."""
    return str(ROOT / load_profile(ROOT / PROFILE).model_of(name).model)


def gsm_prompts(tokenizer, count: int) -> list[list[int]]:
    """Token ids of the first `count` training questions of micro-gsm, as stage 04 asks them."""
    settings = load_profile(ROOT / PROFILE).datasets["gsm"]
    questions = pd.DataFrame([q for q in data.load("gsm", settings, ROOT) if q.split == "train"][:count])
    return [prompts.encode(tokenizer, prompt) for prompt in prompts.of_questions(settings, questions).values()]


def load(name: str) -> tuple:
    """A student's base model, in float32, and its tokenizer."""
    return models.load_causal_lm(student(name)), models.load_tokenizer(student(name))
