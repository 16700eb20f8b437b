"""Sampling: one request and response schema for every engine, and sampling to disk that resumes in the middle."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pandas as pd
from tqdm import tqdm

from rdlib import artifacts
from rdlib.prompts import Prompt

Encoded = list[int] | Prompt


@dataclass(frozen=True)
class Request:
    """`n` samples of one prompt at one temperature; 0 is greedy decoding.

    `prompt` is what the engine's `encode` made of it: token ids, or the messages for a server.
    """

    prompt: Encoded
    n: int
    temperature: float


@dataclass(frozen=True)
class Completion:
    """One sampled response: its text, its token ids (end token included; None where an engine does not tell),
    how many tokens it has, and whether it ended by itself ("stop") or was cut at the limit ("length")."""

    text: str
    tokens: list[int] | None
    count: int
    finish_reason: Literal["stop", "length"]

    @property
    def finished(self) -> bool:
        """Whether the response ended by itself."""
        return self.finish_reason == "stop"


class Engine(Protocol):
    """Anything that samples. What `top_p`, the longest response and the stop strings are, it knows from its making."""

    def encode(self, prompt: Prompt) -> Encoded:
        """A prompt as this engine's requests hold it; UserError when it is too long for the model."""

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The completions of each request, in the order of the requests; UserError when the engine gives up."""


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def sample_to_disk(
    engine: Engine,
    plan: pd.DataFrame,
    prompts: dict[str, Prompt],
    work: Path,
    seed: int,
    shard_size: int,
) -> pd.DataFrame:
    """Carry out a plan (rows with id, temperature, n and further columns) shard by shard.

    Each finished shard is a file in `work/shards`, so an interrupted run goes on where it stopped, with the
    same result. Returns one row a sample: the plan's columns without n, then sample, text, tokens, finished.
    """
    shards = work / "shards"
    starts = _shard_starts(plan["n"].tolist(), shard_size)
    frames, tokens, clock = [], 0, time.time()
    with tqdm(total=int(plan["n"].sum()), desc="responses", unit="resp") as bar:
        for start, end in zip(starts, [*starts[1:], len(plan)], strict=True):
            path = shards / f"{start:07d}.parquet"
            if not _is_whole(path):
                frame = _sample_shard(engine, plan.iloc[start:end], prompts, derive_seed(seed, start))
                artifacts.write_parquet(path, frame)
                tokens += int(frame["tokens"].sum())
            frames.append(pd.read_parquet(path))
            bar.update(len(frames[-1]))
            bar.set_postfix_str(f"{tokens / (time.time() - clock):,.0f} tokens/s")
    return pd.concat(frames, ignore_index=True)


def _is_whole(path: Path) -> bool:
    try:
        pd.read_parquet(path, columns=["id"])
    except Exception:  # absent, or cut by a power failure: pyarrow raises several types
        return False
    return True


def _shard_starts(counts: list[int], shard_size: int) -> list[int]:
    starts, rows = [0], 0
    for index, count in enumerate(counts):
        if rows + count > shard_size and rows:
            starts.append(index)
            rows = 0
        rows += count
    return starts


def _sample_shard(engine: Engine, plan: pd.DataFrame, prompts: dict[str, Prompt], seed: int) -> pd.DataFrame:
    encoded = {key: engine.encode(prompts[key]) for key in dict.fromkeys(plan["id"])}
    requests = [Request(encoded[row.id], row.n, row.temperature) for row in plan.itertuples()]
    rows = []
    keep = [column for column in plan.columns if column != "n"]
    for row, completions in zip(plan[keep].itertuples(index=False), engine.generate(requests, seed), strict=True):
        for sample, completion in enumerate(completions):
            rows.append((*row, sample, completion.text, completion.count, completion.finished))
    return pd.DataFrame(rows, columns=[*keep, "sample", "text", "tokens", "finished"])


def drop_shards(work: Path) -> None:
    """Remove the shards once their rows are in the stage's table."""
    shutil.rmtree(work / "shards")
