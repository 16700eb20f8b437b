"""Sampling: one request and response schema for every engine, and sampling to disk that resumes in the middle."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import pandas as pd
from tqdm import tqdm

from rdlib import artifacts
from rdlib.tasks import answers
from rdlib.tasks.prompts import Prompt
from rdlib.tasks.spoken import thought_end, with_openings

Encoded = list[int] | Prompt


@dataclass(frozen=True)
class Request:
    """`n` samples of one prompt at one temperature; 0 is greedy decoding, None the server's own.

    `prompt` is what the engine's `encode` made of it: token ids, or the messages for a server. `stop` are the strings
    that end a response to it, besides the engine's own; in a chat they end none.
    """

    prompt: Encoded
    n: int
    temperature: float | None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One sampled response: its text, its token ids (end token included; None where an engine does not tell),
    how many tokens it has, and whether it ended by itself ("stop") or was cut at the limit ("length").

    Where a server gave no answer, `words` says why, in its own words."""

    text: str
    tokens: list[int] | None
    count: int
    finish_reason: Literal["stop", "length"]
    words: str = ""

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

    def close(self) -> None:
        """Give back what the engine holds: memory, connections. It samples no more after that."""


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def cut_at(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of the stop strings in it."""
    return text[: min((place for s in stop if (place := text.find(s)) >= 0), default=len(text))]


def cut_run_on(completion: Completion, stop: Sequence[str]) -> Completion:
    """A response whose prompt is unknown, cut where it continues with a question of its own.

    Thinking stays whole, and so does a response that begins with the question, as those to a chat may.
    """
    text = completion.text
    if not any(s in text for s in stop):
        return completion
    start = thought_end(text)
    start += len(text[start:]) - len(text[start:].lstrip())
    answer = cut_at(text[start:], stop)
    if len(answer) == len(text) - start:
        return completion
    return replace(completion, text=(text[:start] + answer).strip(), finish_reason="stop")


def clean(text: str) -> str:
    """A text that UTF-8 can hold: half a surrogate pair, as broken JSON has it, becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def approximate_tokens(text: str) -> int:
    """About how many tokens a text has (four characters each, as in English), where nothing tells."""
    return -(-len(text) // 4)


def sample_to_disk(
    engine: Engine,
    plan: pd.DataFrame,
    prompts: dict[str, Prompt],
    work: Path,
    seed: int,
    shard_size: int,
) -> pd.DataFrame:
    """Carry out a plan (rows with id, temperature, n and further columns) shard by shard.

    Each finished shard is a file in `work/shards`, so an interrupted run resumes where it stopped, with the
    same result. Returns one row a sample: the plan's columns without n, then sample, text, tokens, finished.
    """
    shards = work / "shards"
    starts = _shard_starts(plan["n"].tolist(), shard_size)
    frames = []
    with Progress(int(plan["n"].sum())) as progress:
        for start, end in zip(starts, [*starts[1:], len(plan)], strict=True):
            path = shards / f"{start:07d}.parquet"
            if _is_whole(path):
                progress.skip(int(plan["n"].iloc[start:end].sum()))
            else:
                asked = requests_of(engine, plan.iloc[start:end], prompts)
                groups = engine.generate(asked, derive_seed(seed, start))
                progress.add([completion for group in groups for completion in group])
                artifacts.write_parquet(path, table_of(plan.iloc[start:end], groups))
            frames.append(pd.read_parquet(path))
    return opened(pd.concat(frames, ignore_index=True))


def with_answers(responses: pd.DataFrame, kind: str, prompts: dict[str, Prompt]) -> pd.DataFrame:
    """Responses with their extracted answers, of the dataset's kind and the question's own options."""
    asked = zip(responses["text"], responses["id"], strict=True)
    responses["answer"] = [answers.extract(text, kind, prompts[key].choices) for text, key in asked]
    return responses


def opened(frame: pd.DataFrame) -> pd.DataFrame:
    """Sampled responses, those that lack only the mark that opens their thinking with it (`spoken.with_openings`)."""
    texts = frame["text"].tolist()
    found = with_openings(texts, frame["finished"].tolist())
    return frame if found is texts else frame.assign(text=found)


class Progress:
    """The bar of a sampling run: responses done, and the tokens a second of those that this process sampled."""

    def __init__(self, total: int):
        self.bar = tqdm(total=total, desc="responses", unit="resp")
        self.tokens, self.clock = 0, time.time()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def skip(self, responses: int) -> None:
        """Count responses that were there already."""
        self.bar.update(responses)

    def add(self, completions: Sequence[Completion]) -> None:
        """Count responses just sampled."""
        self.tokens += sum(completion.count for completion in completions)
        self.bar.update(len(completions))
        self.bar.set_postfix_str(f"{self.tokens / (time.time() - self.clock):,.0f} tokens/s", refresh=False)


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


def requests_of(engine: Engine, plan: pd.DataFrame, prompts: dict[str, Prompt]) -> list[Request]:
    """The requests of a plan, a row each; a missing temperature is the server's own."""
    encoded = {key: engine.encode(prompts[key]) for key in dict.fromkeys(plan["id"])}
    heat = [None if pd.isna(temperature) else temperature for temperature in plan["temperature"]]
    rows = zip(plan.itertuples(), heat, strict=True)
    return [Request(encoded[row.id], row.n, temperature, prompts[row.id].stop) for row, temperature in rows]


def table_of(plan: pd.DataFrame, groups: Sequence[Sequence[Completion]]) -> pd.DataFrame:
    """The completions of a plan's requests, one row a sample; see `sample_to_disk`."""
    rows = []
    keep = [column for column in plan.columns if column != "n"]
    for row, completions in zip(plan[keep].itertuples(index=False), groups, strict=True):
        for sample, completion in enumerate(completions):
            rows.append((*row, sample, completion.text, completion.count, completion.finished))
    return pd.DataFrame(rows, columns=[*keep, "sample", "text", "tokens", "finished"])


def drop_shards(work: Path) -> None:
    """Remove the shards once their rows are in the stage's table."""
    shutil.rmtree(work / "shards", ignore_errors=True)  # a server's responses have none
