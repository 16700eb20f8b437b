"""What rounding does: released seeds computed again under torch's own numerics, `python -m rdlib rounding`.

The same settings, code and inputs as those of the release, which its keys prove; only the numerical mode is another.
What comes out stands beside each released seed: the graded answers, and which stages' contents are still the same.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd

from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.evidence.result_tables import ROUNDED, ROUNDING, ROUNDING_COLUMNS, ROUNDING_STAGES
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import compared, results, trials
from rdlib.study.grid import ablation_cells
from rdlib.study.stage import Stage

METHODS = ("sft", "ours_wo_r", "ours")


def evaluations(profile_path: str, seed: int) -> list[Stage]:
    """The evaluations of METHODS in the cells of the ablations."""
    cells = ablation_cells(profile_path, seed)
    return [cell.at("07_evaluate", method) for cell in cells for method in METHODS]


def label_of(stage: Stage) -> str:
    """A stage's label without the profile's name, which is another in the release."""
    return _unnamed(stage.label)


def _unnamed(label: str) -> str:
    return label.partition("/")[2]


# ---- what must hold


def require_native() -> None:
    """UserError unless this process leaves numerics to the libraries, and nothing of the portable mode is set."""
    if os.environ.get(numerics.SWITCH) != numerics.NATIVE:
        raise UserError(
            f"Rounding is seen in torch's own numerics, and this process is in the portable mode of the release: set "
            f"{numerics.SWITCH}={numerics.NATIVE}, as `make study EXPERIMENT=rounding` does."
        )
    for name in numerics.MODE:
        if name in os.environ and name not in numerics.THREADS:
            raise UserError(
                f"The environment has {name}={os.environ[name]}, a part of the portable mode, so these would not be "
                f"torch's own numerics: unset it."
            )


def require_comparable(stages: list[Stage], released: Path) -> None:
    """UserError, with the reason, where a released seed and these stages would differ by more than rounding."""
    if not (released / "provenance.json").is_file():
        raise UserError(f"There is no released seed {released}: release it first (`make study EXPERIMENT=reference`).")
    contents, keys = _of_release(released, "contents"), _of_release(released, "stages")
    made = artifacts.read_json(released / "provenance.json")
    if made.get("numerics") != [numerics.PORTABLE]:
        raise UserError(f"{released} was not computed in the portable mode alone: release that seed again in it.")
    for stage in stages:
        if label_of(stage) not in contents.keys() & keys.keys():
            raise UserError(
                f"{released} has no stage {label_of(stage)}: release that seed (`make study EXPERIMENT=reference`)."
            )
        read = {name: contents[label_of(one)] for name, one in stage.inputs.items()}
        if stage.key_from(read) != keys[label_of(stage)]:
            raise UserError(
                f"{released} has {label_of(stage)} of other settings or code (commit {', '.join(made['commits'])}), so "
                f"more than rounding would differ: check out that commit, or release that seed again."
            )


def _of_release(released: Path, what: str) -> dict[str, str]:
    compared.released_contents(released)  # a release that does not tell them is told so
    return {_unnamed(label): value for label, value in compared.recorded(released, what).items()}


def require_made_natively(stages: list[Stage]) -> None:
    """UserError for a finished stage that was made in the portable mode, as by a study of this profile without make."""
    for stage in stages:
        manifest = artifacts.read_manifest(stage.folder) if stage.done else None
        if manifest and manifest["environment"].get("numerics") == numerics.PORTABLE:
            raise UserError(f"{stage.label} was made in the portable mode: remove it, then run this again.")


# ---- what comes out


def stages_table(found: list[Stage], contents: dict[str, str]) -> pd.DataFrame:
    """A row a stage behind each evaluation, with the evaluation's axes: `stage`, and whether its content is the `same`.

    `contents` are those of the release, by label without the profile's name.
    """
    rows = [
        evaluation.columns | {"stage": one.name, "same": one.content == contents[label_of(one)]}
        for evaluation in found
        for one in trials.behind([evaluation])
    ]
    return pd.DataFrame(rows)[ROUNDING_COLUMNS[ROUNDING_STAGES].split()]


def gather(released: Path, profile_path: str, seed: int) -> None:
    """Write what rounding did to one finished seed beside the released one; its provenance last."""
    found = evaluations(profile_path, seed)
    answers = pd.concat([results.graded(one).assign(**one.columns) for one in found], ignore_index=True)
    artifacts.write_parquet(released / ROUNDING, answers[ROUNDING_COLUMNS[ROUNDING].split()])
    table = stages_table(found, _of_release(released, "contents"))
    artifacts.write_bytes(released / ROUNDING_STAGES, table.to_csv(index=False).encode())
    command = f"{numerics.SWITCH}={numerics.NATIVE} python -m rdlib rounding --seeds {seed}"
    stages = trials.behind(found)[
        ::-1
    ]  # an evaluation first: the environment that is told is one in which torch was loaded
    made = results.provenance(stages, profile_path, seed) | {"command": command}
    artifacts.write_json(released / ROUNDED, made)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib rounding`."""
    parser.add_argument("--profile", default="params/rounding.yaml", help="the profile of the release, natively")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (default: the profile's)")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time (default: 2)")
    parser.add_argument("--released", default="figures/results", help="released results, a folder a seed")


def run(options: argparse.Namespace) -> None:
    """Compute the seeds under torch's own numerics, going on from what is there, and write what rounding did."""
    require_native()
    seeds = options.seeds or load_profile(ROOT / options.profile).grid.seeds
    released = {seed: ROOT / options.released / f"seed{seed}" for seed in seeds}
    stages = trials.behind([one for seed in seeds for one in evaluations(options.profile, seed)])
    for seed, folder in released.items():
        require_comparable([stage for stage in stages if stage.seed == seed], folder)
    require_made_natively(stages)
    trials.run_stages(stages, options.jobs, "rounding")
    for seed, folder in released.items():
        gather(folder, options.profile, seed)
    print(f"What rounding did to seeds {', '.join(map(str, seeds))}: {options.released}/seed<k>/{ROUNDING}")
