"""What is kept of a policy along PPO: its answers to validation questions, and responses to the same few queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from torch import Tensor

from rdlib import artifacts
from rdlib.engines import generation
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.method.agreement import Agreement
from rdlib.method.ppo_schedule import query_order, seed_of
from rdlib.tasks import answers, prompts

# Of responses to queries (indices, texts, token ids): scores [B], answers, and agreement with the pseudo-labels
Judge = Callable[[list[int], list[str], list[list[int]]], tuple[Tensor, list[str | None], list[float]]]
KEPT_SAMPLES = 4  # responses to each of the kept queries


class Kept:
    """A table of every validated update: one file an update, so a run that is killed and resumed keeps those it had."""

    def __init__(self, folder: Path, table_of: Callable[[int], pd.DataFrame]):
        """`table_of` makes the table of an update."""
        self.folder, self.table_of = folder, table_of

    def __call__(self, row: dict) -> None:
        """Write the table of an update, given its row of PPO's history, if it was validated."""
        if row["validation_agreement"] is not None:
            artifacts.write_parquet(self._file(row["update"]), self.table_of(row["update"]))

    def gather(self, history: list[dict]) -> pd.DataFrame:
        """The tables of the history's validated updates as one, with the column `update`."""
        updates = [row["update"] for row in history if row["validation_agreement"] is not None]
        parts = [artifacts.read_parquet(self._file(update)).assign(update=update) for update in updates]
        table = pd.concat(parts, ignore_index=True)
        return table[["update", *(name for name in table if name != "update")]]

    def _file(self, update: int) -> Path:
        return self.folder / f"{update:06d}.parquet"


def validation_answers(agreement: Agreement) -> Callable[[int], pd.DataFrame]:
    """The answers of a validation agreement, a row a question: id, answer. They can be compared with gold later."""
    return lambda update: pd.DataFrame({"id": agreement.ids, "answer": agreement.answers})


class AnswerReader:
    """Reads the answer out of what a policy says to the query of an index, as the engines would show it.

    The policy samples on after a stop string; what it says there is not read.
    """

    def __init__(self, tokenizer, asked: list[prompts.Prompt], kind: str):
        self.asked, self.kind = asked, kind
        self.stops = [prompts.stops(tokenizer, prompt) for prompt in asked]
        self.opening = prompts.opening(tokenizer, prompts.encode(tokenizer, asked[0]))

    def __call__(self, index: int, text: str) -> str | None:
        """The answer, None where there is none."""
        said = self.opening + generation.cut_at(text, self.stops[index])
        return answers.extract(said, self.kind, self.asked[index].choices)


class PolicySamples:
    """Samples of a policy as it is, besides those that it learns from: by the transformers engine, however PPO samples.

    `prompts` are the queries' token ids; `read` takes an answer out of a text.
    """

    def __init__(
        self,
        policy,
        tokenizer,
        prompts: Sequence[list[int]],
        read: AnswerReader,
        batch: int,
        max_tokens: int,
        temperature: float,
        accelerator: Accelerator,
    ):
        self.prompts, self.read, self.temperature = prompts, read, temperature
        self.engine = TransformersEngine(policy, tokenizer, batch, max_tokens)
        self.accelerator = accelerator

    def completions(self, indices: Sequence[int], count: int, seed: int) -> list[list[generation.Completion]]:
        """`count` responses to each of the queries of these indices."""
        requests = [generation.Request(self.prompts[i], count, self.temperature) for i in indices]
        with self.accelerator.autocast():
            return self.engine.generate(requests, seed)

    def answers(self, indices: Sequence[int], count: int, seed: int) -> list[list[str | None]]:
        """The answers of `count` responses to each of the queries of these indices."""
        groups = self.completions(indices, count, seed)
        return [[self.read(i, one.text) for one in group] for i, group in zip(indices, groups, strict=True)]


def kept_responses(
    samples: PolicySamples, judge: Judge, queries: pd.DataFrame, count: int, seed: int
) -> Callable[[int], pd.DataFrame]:
    """Responses to `count` of the queries, the same at every update, a row a response.

    Columns id, sample, text, answer, pseudo_label, agrees (empty without a pseudo-label) and score. They are sampled as
    hot as PPO's own, `KEPT_SAMPLES` a query.
    """
    indices = query_order(len(queries), 0, min(count, len(queries)), seed)
    rows = [(i, sample) for i in indices for sample in range(KEPT_SAMPLES)]

    def table_of(update: int) -> pd.DataFrame:
        """The responses of the policy as it is."""
        groups = samples.completions(indices, KEPT_SAMPLES, seed_of(seed, "kept", update))
        responses = [one for group in groups for one in group]
        asked, texts = [i for i, _ in rows], [one.text for one in responses]
        sequences = [samples.prompts[i] + one.tokens for i, one in zip(asked, responses, strict=True)]
        scores, given, agreement = judge(asked, texts, sequences)
        table = queries.iloc[asked][["id", "pseudo_label"]].reset_index(drop=True)
        return table.assign(
            sample=[sample for _, sample in rows],
            text=texts,
            answer=pd.array(given, dtype="str"),
            agrees=pd.array([None if pd.isna(a) else bool(a) for a in agreement], dtype="boolean"),
            score=scores.float().cpu().numpy(),
        )[["id", "sample", "text", "answer", "pseudo_label", "agrees", "score"]]

    return table_of
