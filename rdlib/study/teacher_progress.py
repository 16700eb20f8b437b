"""What `make study` shows in the terminal while a teacher behind a server answers, and of what it did not answer.

Stages that ask a server say in small files how far they are (`rdlib.engines.progress`); notebooks run elsewhere.
"""

from __future__ import annotations

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


class TeacherBars(threading.Thread):
    """Bars below the study's, one a stage that asks, and what stages say, until `stop` is set."""

    def __init__(self, folder: Path, interval: float = 1.0):
        super().__init__(daemon=True)
        self.folder, self.interval, self.stop = folder, interval, threading.Event()
        self.bars: dict[str, tqdm] = {}
        self.said = {path: path.stat().st_mtime_ns for path in folder.glob("*.txt")}

    def run(self) -> None:
        """Look at the folder again and again."""
        while not self.stop.wait(self.interval):
            self.look()
        self.look()
        for bar in self.bars.values():
            bar.close()

    def look(self) -> None:
        """Show the present state."""
        for path in sorted(self.folder.glob("*.txt")):
            if self.said.get(path) != (changed := path.stat().st_mtime_ns):
                self.said[path] = changed
                tqdm.write(path.read_text(encoding="utf-8"))
        states = {state["label"]: state for state in map(read, self.folder.glob("*.json")) if state}
        for label, state in states.items():
            bar = self.bars.get(label) or tqdm(total=state["total"], desc=label, leave=False, bar_format=BAR)
            self.bars[label] = bar
            bar.total, bar.n = state["total"], state["done"]
            bar.set_postfix_str(in_words(state))
        for label in self.bars.keys() - states.keys():
            self.bars.pop(label).close()


def read(path: Path) -> dict[str, Any] | None:
    """What a stage says of its asking; None where it is gone, or the file is another's."""
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
    frames = []
    for stage in stages:
        path = stage.folder / "unanswered.parquet"
        if path.is_file() and stage.done:
            frames.append(stage.table("unanswered").assign(stage=stage.label))
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
