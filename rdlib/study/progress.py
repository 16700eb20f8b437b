"""Progress of a running study in the terminal: a bar for each teacher that is asked, memory and processor time.

Notebooks run in other processes, so stages that ask a server write their progress to small files
(`rdlib.engines.progress`). No answers are shown.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from tqdm import tqdm

from rdlib.study.stage import Stage

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} responses{postfix}"
SHOWN = 90  # characters of a server's words in a line


class Watch(threading.Thread):
    """Measures what a study takes and shows what its teachers are at, once a second while it is entered.

    `peak` is the largest sum of the memory of this process and its children that was seen, in bytes; `cpu` the seconds
    of a core that they had used when they were last seen, so it misses half a second of each process. In `folder` is
    what stages say: a bar below the study's for each that asks a server (*.json), and sentences (*.txt).
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.peak, self.ended = folder, 0, threading.Event()
        self._used: dict[psutil.Process, float] = {}  # by process: a number can be given again, a process is one
        self._bars: dict[str, tqdm] = {}
        self._said = {path: path.stat().st_mtime_ns for path in folder.glob("*.txt")}

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()
        self.join()
        self._show()
        for bar in self._bars.values():
            bar.close()

    def run(self) -> None:
        """Look once a second until the study has ended."""
        while not self.ended.wait(1.0):
            self._measure()
            self._show()

    @property
    def cpu(self) -> float:
        """Seconds of a core used so far."""
        return sum(self._used.values())

    def _measure(self) -> None:
        total, process = 0, psutil.Process()
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory, times = member.memory_info(), member.cpu_times()
                total += memory.rss - getattr(memory, "shared", 0)  # libraries mapped by all count once or less
                self._used[member] = times.user + times.system
        self.peak = max(self.peak, total)

    def _show(self) -> None:
        for path in sorted(self.folder.glob("*.txt")):
            if self._said.get(path) != (changed := path.stat().st_mtime_ns):
                self._said[path] = changed
                tqdm.write(path.read_text(encoding="utf-8"))
        states = {state["label"]: state for state in map(read, self.folder.glob("*.json")) if state}
        for label, state in states.items():
            if label not in self._bars:
                self._bars[label] = tqdm(total=state["total"], desc=label, leave=False, bar_format=BAR)
            self._bars[label].total, self._bars[label].n = state["total"], state["done"]
            self._bars[label].set_postfix_str(in_words(state))
        for label in self._bars.keys() - states.keys():
            self._bars.pop(label).close()


def read(path: Path) -> dict[str, Any] | None:
    """What a stage says of its asking; None where it has ended, or the file is another's."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return state if psutil.pid_exists(state["process"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def in_words(state: dict[str, Any]) -> str:
    """Rate, time and money that are left, in a few words; empty before the first answer."""
    if "rate" not in state:
        return ""
    hours, minutes = divmod(round(state["left"] / 60), 60)
    words = [f"{state['rate']:.0f} a minute", f"{state['tokens']:.0f} tokens/s", f"{hours}:{minutes:02d} h left"]
    if "money_left" in state:
        words.append(f"about {state['money_left']:,.2f} {state['currency']} left to pay")
    return ", ".join(words)


def unanswered(stages: Iterable[Stage]) -> pd.DataFrame:
    """The samples that got no answer: stage, the server's words, and how many samples of how many questions."""
    asking = [stage for stage in stages if (stage.folder / "unanswered.parquet").is_file() and stage.done]
    frames = [stage.table("unanswered").assign(stage=stage.label) for stage in asking]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["stage", "words", "id"])
    groups = table.groupby(["stage", "words"], sort=True)["id"]
    found = groups.agg(samples="size", questions="nunique").reset_index()
    return found.sort_values(["stage", "samples"], ascending=[True, False], ignore_index=True)


def unanswered_lines(table: pd.DataFrame) -> list[str]:
    """The table of unanswered samples for the terminal; no line where all were answered."""
    if table.empty:
        return []
    lines = [f"  {int(table['samples'].sum())} samples got no answer; they count in the vote and vote for nothing:"]
    for row in table.itertuples():
        words = row.words if len(row.words) <= SHOWN else f"{row.words[:SHOWN]}..."
        lines.append(f"    {row.samples:>6} of {row.questions} questions in {row.stage}: {words}")
    return lines
