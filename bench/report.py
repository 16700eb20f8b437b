"""A benchmark's results as rows, and their files."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.paths import ROOT

RESULTS = ROOT / "bench" / "results"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Row:
    """One result: a value with the range of the rounds, in `unit` ("x": times as fast as the other).

    `aim` is what the value should be at least (with `most`, at most); None where there is no aim. `ours` and `other`
    are the two medians of a ratio, in words with their unit.
    """

    part: str
    result: str
    value: float
    low: float
    high: float
    unit: str
    aim: float | None = None
    most: bool = False
    ours: str = ""
    other: str = ""
    settings: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.most else self.value >= self.aim


class Skipped(Exception):  # noqa: N818 (nothing went wrong)
    """A part that cannot run here: says why, and what would let it."""


def line(row: Row) -> str:
    """A row as a line of text."""
    verdict = {True: ", met", False: ", NOT MET", None: ""}[row.met]
    aim = "" if row.aim is None else f" (aim: at {'most' if row.most else 'least'} {row.aim:g}{verdict})"
    span = f" [{row.low:.4g}, {row.high:.4g}]" if row.low < row.high else ""
    against = f"; {row.ours} against {row.other}" if row.other else ""
    return f"{row.result}: {row.value:.4g}{span} {row.unit}{aim}{against}"


def table(rows: list[Row]) -> pd.DataFrame:
    """The rows as a table, with the column `met`."""
    columns = [field.name for field in fields(Row)]
    frame = pd.DataFrame([asdict(row) | {"met": row.met} for row in rows], columns=[*columns, "met"])
    bounds = [None if row.aim is None else f"{'<=' if row.most else '>='} {row.aim:g}" for row in rows]
    return frame.assign(aim=bounds).drop(columns="most")


def write(part: str, rows: list[Row], provenance: dict, folder: Path = RESULTS) -> Path:
    """Write `<part>.csv` and, beside it, `<part>.json` with the provenance; returns the table's path."""
    path = folder / f"{part}.csv"
    artifacts.write_bytes(path, table(rows).to_csv(index=False, float_format="%.6g").encode())
    artifacts.write_json(path.with_suffix(".json"), provenance)
    return path


def provenance(part: str, rounds: int) -> dict:
    """Where a part's numbers come from: command, commit, versions, machine, and how busy it was at the start."""
    made = artifacts.environment()
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "command": f"make bench BENCH_PARTS={part} BENCH_ROUNDS={rounds}",
        "rounds": rounds,
        "seed": "the number of the round",
        "started": artifacts.now(),
        "commit": made["commit"],
        "dirty": made["dirty"],
        "packages": versions,
        "python": platform.python_version(),
        "machine": made["machine"],
        "processor": made["processor"],
        "numerics": made["numerics"],
        "clock": os.environ.get("BENCH_CLOCK", "wall"),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "load_at_start": round(os.getloadavg()[0], 2),
    }
