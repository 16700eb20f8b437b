"""Fills README.md and docs/*.md from result files: `python -m rdlib documents`, a part of `make docs`.

A block between `<!-- name -->` and `<!-- /name -->`, each on a line of its own, is replaced by what the released
files say: five sentences on what was found, claims, the main table, power, the reviewers' questions, benchmarks, what
runs took on which machine, what a GPU showed, and the provenance of the constants. No number in such a block is written
by hand.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import differences, gpu_rows, released_rows, run_rows
from rdlib.evidence.released_rows import NOT_RELEASED
from rdlib.paths import ROOT

MACHINES = ROOT / "bench" / "machines.csv"
BLOCK = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
RELEASED_BLOCKS = ("first_screen", "table_2_main", "claims", "questions", "room", "convergence", "power_mean")
RELEASED_BLOCKS += ("power_cells", "power_plans", "endings", "open_ends", "differences", "exhibits")


def render(text: str, blocks: dict[str, str], where: str = "README.md") -> str:
    """A document with each of its blocks replaced; UserError for a block that there is not, or that does not end."""
    for name in BLOCK.findall(text):
        if name not in blocks:
            raise UserError(f"{where} has a block <!-- {name} -->, which is none of {', '.join(sorted(blocks))}.")
        pattern = re.compile(f"^(<!-- {name} -->\n).*?^(<!-- /{name} -->)$", re.DOTALL | re.MULTILINE)
        if not pattern.search(text):
            raise UserError(f"{where}: the block <!-- {name} --> has no end: put <!-- /{name} --> on a line below it.")
        text = pattern.sub(lambda match, name=name: f"{match[1]}{blocks[name]}\n{match[2]}", text)
    return text


def documents(root: Path = ROOT) -> list[Path]:
    """README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(figures: Path) -> dict[str, str]:
    """The text of each block, from the released tables."""
    content = {"provenance": run_rows.provenance_rows(), "bench": run_rows.bench_rows(ROOT / "bench" / "results")}
    content["one_base"] = run_rows.bench_rows(ROOT / "bench" / "results", "i")
    content["memory"] = run_rows.memory_rows(ROOT / "docs" / "memory.csv")
    content |= {"gpu_memory": gpu_rows.memory_text(), "gpu_speed": gpu_rows.speed_text()}
    tried = figures / "trials" / "settings", ROOT / "params" / "trials" / "settings.yaml"
    content |= {"trials": run_rows.trial_rows(*tried), "patience": run_rows.patience_rows(*tried)}
    before = ROOT / "figures" / "trials" / "power_of_0.1.0"
    content["power_before"] = released_rows.plan_rows(before / "power_plans.csv")
    content["rounding"] = released_rows.rounding_text(figures)
    content["made_again"] = released_rows.made_again_rows(figures / "results")
    content["measured"] = run_rows.measured_rows(run_rows.runs_seen(figures / "results", MACHINES))
    if not (figures / "results").is_dir():
        return content | dict.fromkeys(RELEASED_BLOCKS, NOT_RELEASED)
    content["table_2_main"] = released_rows.main_rows(figures / "table_2_main.csv")
    content["first_screen"] = "\n".join(f"- {sentence}" for sentence in released_rows.first_screen_rows(figures))
    content["differences"] = "\n".join(f"- {sentence}" for sentence in differences.sentences(figures))
    content["power_mean"] = released_rows.power_rows(figures / "power.csv", of_mean=True)
    content["power_cells"] = released_rows.power_rows(figures / "power.csv", of_mean=False)
    content["power_plans"] = released_rows.plan_rows(figures / "power_plans.csv")
    content["claims"] = released_rows.claim_rows(figures / "claims.csv")
    content["questions"] = NOT_RELEASED
    if (figures / "question_r1.csv").is_file():
        content["questions"] = released_rows.question_rows(figures)
    content["room"] = run_rows.room_text(figures / "results")
    content["convergence"] = content["endings"] = NOT_RELEASED
    if (figures / "convergence.md").is_file():
        content["convergence"] = released_rows.convergence_rows(figures / "convergence.csv")
        content["endings"] = released_rows.endings_text(figures / "convergence.csv")
    content["open_ends"] = released_rows.open_ends_text(figures)
    content["exhibits"] = released_rows.exhibit_rows(figures)
    return content


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`python -m rdlib documents` has no options."""


def run(options: argparse.Namespace) -> None:
    """Rewrite the blocks of every document in place."""
    found = blocks(ROOT / "figures")
    for path in documents():
        old = path.read_text(encoding="utf-8")
        if (new := render(old, found, path.relative_to(ROOT).as_posix())) != old:
            artifacts.write_bytes(path, new.encode())
