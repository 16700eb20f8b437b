"""SFT of released seeds once more, with the warm-up's learning rate: `python -m rdlib same-rate`.

SFT's own rate was chosen in the cells of the ablations, and claim C1 is about every cell. What this trains, in every
cell of the grid, begins from what was released: all that it reads must come out the same, to the byte. Beside each seed
it writes the graded answers, and where they come from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import SAME_RATE, SAME_RATE_COLUMNS, SAME_RATE_MADE
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import compared, results, trials
from rdlib.study.jobs import study_jobs
from rdlib.study.stage import Stage

RATE = "sft.learning_rate"


def evaluations(profile_path: str, seed: int) -> list[Stage]:
    """The evaluations of SFT in every cell of the grid, trained with the warm-up's learning rate.

    UserError where that is SFT's own.
    """
    sft = load_profile(ROOT / profile_path).sft
    rate = sft.learning_rate_of_warmup
    if rate is None or rate == sft.learning_rate:
        raise UserError(f"SFT and the warm-up of {profile_path} have one learning rate: there is nothing to compare.")
    stages = {one.folder: one for job in study_jobs(profile_path, [seed]) for one in job.stages}
    found = [one for one in stages.values() if one.name == "07_evaluate" and one.method == "sft" and not one.variant]
    return [one.with_overrides({RATE: rate}) for one in found]


def gather(folder: Path, profile_path: str, seed: int) -> str:
    """Write what SFT answers beside one released seed, its provenance last; says what it rests on."""
    found = evaluations(profile_path, seed)
    stages = trials.behind(found)[::-1]  # an evaluation first: the environment told is one in which torch was loaded
    read = [one for one in stages if RATE not in one.label]
    compared.require_as_released(read, folder)
    answers = pd.concat([results.graded(one).assign(**one.columns) for one in found], ignore_index=True)
    artifacts.write_parquet(folder / SAME_RATE, answers[SAME_RATE_COLUMNS.split()])
    command = f"python -m rdlib same-rate --profile {profile_path} --seeds {seed}"
    made = results.provenance(stages, profile_path, seed) | {"command": command}
    artifacts.write_json(folder / SAME_RATE_MADE, made)
    return f"{folder.name}: {len(found)} cells; {len(read)} stages that are read are as released, to the byte."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib same-rate`."""
    parser.add_argument("--profile", default="params/reference.yaml", help="the profile of the release")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (default: the profile's)")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time (default: 2)")
    parser.add_argument("--released", default="figures/results", help="released results, a folder a seed")


def run(options: argparse.Namespace) -> None:
    """Train and evaluate what is not there yet, then write the tables of each seed."""
    for seed in options.seeds or load_profile(ROOT / options.profile).grid.seeds:
        folder = ROOT / options.released / f"seed{seed}"
        compared.released_contents(folder)  # a seed that is not there is told before anything is trained
        trials.run_stages(evaluations(options.profile, seed), options.jobs, f"seed {seed}")
        print(gather(folder, options.profile, seed), flush=True)
