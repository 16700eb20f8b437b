"""Stage 13_style: what could be seen of the teacher in a right response, by the best possible judge and by the world.

No test separates samples of two distributions better than the ratio of their likelihoods (Neyman and Pearson). So the
AUC of log p_T(y | x) - log p_S(y | x), teacher positives against student positives, is close to the highest that any
reward model can reach on a response y. It is not exact, as the teacher was sampled at other temperatures too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from rdlib import artifacts
from rdlib.engines import models
from rdlib.method import scoring
from rdlib.method.policy import policy_source
from rdlib.micro.recall import recalled
from rdlib.tasks import prompts
from rdlib.tasks.questions import read_questions

BATCH = 64  # sequences that go through the model at once


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel, sequences: Sequence[list[int]], starts: Sequence[int], pad: int
) -> np.ndarray:
    """log p(y | x) [N] of token ids (prompt and response), of which the response begins at `starts`."""
    found = np.empty(len(sequences))
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        ids, mask = scoring.pad_right([sequences[i] for i in rows], pad)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        of_response = torch.arange(1, ids.shape[1]) >= torch.tensor([starts[i] for i in rows])[:, None]
        found[rows] = chosen.masked_fill(~(of_response & mask[:, 1:].bool()), 0).sum(1).double().numpy()
    return found


def run(stage, work: Path) -> None:
    """Write responses.parquet: the responses that the reward model is tested on, with what could be seen in each.

    Columns id, kind and score (of the reward model); ratio, log p_T - log p_S; named and recalled, its senses and
    epithets and how many of them are the world's. The student is the one whose samples they are, before PPO.
    """
    table = artifacts.read_parquet(stage.input("reward_model") / "scores.parquet")
    sources = [models.resolve(stage.profile.model_of(stage.teacher), stage.root), policy_source(stage)]
    tokenizer = models.load_tokenizer(sources[1])
    questions = read_questions(stage.input("data"), "validation")
    encode = prompts.Encoder(prompts.of_questions(stage.dataset_settings, questions), tokenizer)
    sequences = [encode(row.id, row.text, False) for row in table.itertuples()]  # whether it ended is not kept
    starts = [len(encode.prompts[key]) for key in table["id"]]
    teacher, student = (
        log_likelihoods(models.load_causal_lm(source), sequences, starts, tokenizer.pad_token_id) for source in sources
    )
    right, named = zip(*map(recalled, table["text"]), strict=True)
    table = table.assign(ratio=teacher - student, recalled=right, named=named)
    artifacts.write_parquet(work / "responses.parquet", table.drop(columns="text"))
