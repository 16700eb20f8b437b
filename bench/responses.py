"""Part d: extraction, vote and labelling of 1 thousand to 10 million responses: throughput, memory, and how they grow.

A size is measured in a process of its own, whose peak memory is read at the end. It reads a Parquet file of responses
(50 a question, as the teacher gives; made here, and not timed) and writes the answers, the labels and the labelled
responses as files, by the functions of rdlib, some questions at a time. The responses are of every form that the rules
for free text know, the costly last resort (the last number) among them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bench.report import Row
from bench.timing import middle, peak_memory, seconds_of, slope
from rdlib import streams
from rdlib.method import voting
from rdlib.paths import ROOT
from rdlib.tasks import answers

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
QUICK = (1_000, 10_000)
PER_QUESTION, HIGH = 50, 20
CHUNK = 2**15
STEPS = "In each of 3 months she saves 12 dollars, so 3 * 12 = 36. She then spends 14 of them on a gift. "
FORMS = (
    "{steps}#### {n}",
    "{steps}The final answer is \\boxed{{{n}}}.",
    "{steps}The answer is ${n}.00.",
    '{{"reasoning": "{steps}", "answer": "{n}"}}',
    "{steps}**Answer:** {n} dollars",
    "{steps}That leaves {n} dollars for the summer.",
    "{steps}I cannot tell how many are left of them.",
)


def texts(count: int, seed: int = 0) -> list[str]:
    """Responses of every form, one to three steps of reasoning long."""
    rng = random.Random(seed)
    return [
        FORMS[i % len(FORMS)].format(steps=STEPS * rng.randint(1, 3), n=rng.choice((22, 22, 22, 36, 14)))
        for i in range(count)
    ]


def made(size: int) -> Iterator[pd.DataFrame]:
    """`size` responses in chunks, in order of their questions' ids."""
    pool = pd.Series(texts(7919), dtype="str")  # a prime number, so that questions differ
    for start in range(0, size, CHUNK):
        rows = pd.RangeIndex(start, min(start + CHUNK, size)).to_series()
        yield pd.DataFrame(
            {
                "id": (rows // PER_QUESTION).map("question-{:08d}".format).astype("str"),
                "split": pd.Series("train", rows.index, dtype="str"),
                "confidence": (rows % PER_QUESTION < HIGH).map({True: "high", False: "low"}).astype("str"),
                "text": pool.iloc[rows % len(pool)].to_numpy(),
            }
        )


def extract(source: Path, target: Path) -> None:
    """Write the responses with their answers."""
    streams.write_parquet(target, map(_with_answers, streams.read_parquet(source, rows=CHUNK)))


def _with_answers(chunk: pd.DataFrame) -> pd.DataFrame:
    found = [answers.extract(text, "math") for text in chunk["text"]]
    return chunk.assign(answer=pd.Series(found, chunk.index, dtype="str"))


def vote(source: Path, target: Path) -> None:
    """Write the labels."""
    chunks = streams.whole_questions(source, voting.VOTE, CHUNK)
    streams.write_parquet(target, (voting.pseudo_labels(chunk, 0.5) for chunk in chunks))


def label(source: Path, labels: Path, target: Path) -> None:
    """Write which responses agree with their question's label."""
    chunks = streams.whole_questions(source, ["id", "answer"], CHUNK)
    streams.write_parquet(target, (voting.propagate(c, voting.labels_of(c, labels)) for c in chunks))


def measure(source: Path) -> dict[str, float]:
    """Seconds of the three steps on one file, and this process's peak memory in MiB.

    They run on a small file first: pandas and pyarrow import much of themselves when it is first used.
    """
    small = source.with_name("small.parquet")
    streams.write_parquet(small, made(2 * PER_QUESTION))
    _seconds(small)
    return _seconds(source) | {"memory": peak_memory()}


def _seconds(source: Path) -> dict[str, float]:
    answered, labels, labelled = (source.with_name(f"{name}.parquet") for name in ("answered", "labels", "labelled"))
    steps = {
        "extraction": lambda: extract(source, answered),
        "vote": lambda: vote(answered, labels),
        "labelling": lambda: label(answered, labels, labelled),
    }
    return {name: seconds_of(step) for name, step in steps.items()}


def measured(source: Path) -> dict[str, float]:
    """`measure` in a new process."""
    words = [sys.executable, "-m", "bench.responses", str(source)]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(rounds: int, quick: bool) -> list[Row]:
    """Every size; the largest once (minutes), the others `rounds` times."""
    sizes = QUICK if quick else SIZES
    found: dict[int, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            source = Path(name) / "responses.parquet"
            streams.write_parquet(source, made(size))
            found[size] = [measured(source) for _ in range(1 if size == max(SIZES) else rounds)]
    return [*(_throughput(size, runs) for size, runs in found.items()), *_growth(found)]


def _total(run: dict[str, float]) -> float:
    return sum(seconds for name, seconds in run.items() if name != "memory")


def _throughput(size: int, runs: list[dict[str, float]]) -> Row:
    value = middle([size / _total(one) for one in runs])
    usual = {name: middle([one[name] for one in runs])[0] for name in runs[0]}
    memory = usual.pop("memory")
    steps = ", ".join(f"{name} {size / seconds:,.0f}/s" for name, seconds in usual.items())
    name = f"extraction, vote and labelling of {size:,} responses"
    return Row("d", name, *value, "responses/s a core", 50_000, settings=f"{steps}; peak memory {memory:,.0f} MiB")


def _growth(found: dict[int, list[dict[str, float]]]) -> Iterator[Row]:
    """Exponents of time and memory over the sizes, without those that say more of the program than of its work.

    A memory of exponent 0.05 grows by a quarter where the responses grow a hundredfold.
    """
    sizes = [size for size in found if size > 2 * CHUNK] if len(found) > len(QUICK) else list(found)
    times = [middle([_total(one) for one in found[size]])[0] for size in sizes]
    memory = [middle([one["memory"] for one in found[size]])[0] for size in sizes]
    span, cost, growth = f"{min(sizes):,} to {max(sizes):,} responses", slope(sizes, times), slope(sizes, memory)
    largest, smallest = (f"{mib:,.0f} MiB" for mib in (memory[-1], memory[0]))
    yield Row("d", f"growth of the time, {span} (1: linear)", cost, cost, cost, "exponent", 1.05, True)
    name = f"growth of the peak memory, {span} (0: constant; largest against smallest)"
    yield Row("d", name, growth, growth, growth, "exponent", 0.05, True, largest, smallest)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
