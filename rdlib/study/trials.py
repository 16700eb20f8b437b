"""Trials: settings of a stage compared by their validation curves, `python -m rdlib trials FILE`.

The file holds groups of trials, each with a question. A trial is a stage with some settings; it is run in every cell
and seed of its group, none of them a released one, and on the way makes what it reads. What comes out are two tables
a group: the trials with their best validation value, and their curves. No gold answer is read.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import shlex
import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import Field, ValidationError
from tqdm import tqdm

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import ledger
from rdlib.evidence.tables import listed
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import Section
from rdlib.study import curves, results
from rdlib.study.specification import BASELINES, PPO, SFT
from rdlib.study.stage import Stage

METHODS_OF = {"03_sft_warmup": SFT, "05_reward_model": PPO, "06_ppo": PPO, "13_baseline": BASELINES}


class Trial(Section):
    """One setting: `settings` maps dotted keys to values; what is not said of stage and method its group says."""

    name: str
    stage: str | None = None
    method: str | None = None
    settings: dict[str, Any] = {}


class Group(Section):
    """Trials that answer one question, in the cells (dataset/teacher/student), seeds and settings that they share."""

    question: str
    cells: list[str] = Field(min_length=1)
    stage: str
    method: str
    settings: dict[str, Any] = {}
    trials: list[Trial] = Field(min_length=1)
    seeds: list[int] | None = None


class Trials(Section):
    """A file of trials: the profile that they vary, and the seeds where a group has none of its own."""

    profile: str
    seeds: list[int] = Field(min_length=1)
    groups: dict[str, Group] = Field(min_length=1)


@dataclass(frozen=True)
class Run:
    """A trial in one cell and seed."""

    group: str
    question: str
    trial: Trial
    stage: Stage


def load_trials(path: Path) -> Trials:
    """Read and check a file of trials; UserError, naming it, for one that cannot be used."""
    try:
        trials = Trials.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"The trials {path} cannot be read ({str(error).splitlines()[0][:200]}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"The trials {path} have a bad entry {where}: {first['msg']}.") from None
    released = set(load_profile(ROOT / trials.profile).grid.seeds)
    for name, group in trials.groups.items():
        if kept := released & set(group.seeds or trials.seeds):
            raise UserError(
                f"{path}: the trials {name} use seed {min(kept)}, which {trials.profile} releases: choose on another."
            )
    return trials


def runs_of(trials: Trials, group: str) -> list[Run]:
    """Every trial of a group in every cell and seed; UserError for a stage, method or cell that there is not."""
    asked = trials.groups[group]
    found = []
    for seed in asked.seeds or trials.seeds:
        for cell in asked.cells:
            for trial in asked.trials:
                stage = _stage(trials, group, cell, trial, seed)
                found.append(Run(group, asked.question, trial, stage))
    return found


def _stage(trials: Trials, group: str, cell: str, trial: Trial, seed: int) -> Stage:
    asked, profile = trials.groups[group], load_profile(ROOT / trials.profile)
    name, method, axes = trial.stage or asked.stage, trial.method or asked.method, cell.split("/")
    known = (profile.datasets, profile.teachers, profile.students | profile.teachers)
    if len(axes) != 3 or any(axis not in names for axis, names in zip(axes, known, strict=True)):
        raise UserError(f"The trials {group} name the cell {cell!r}: give dataset/teacher/student of {trials.profile}.")
    if method not in METHODS_OF.get(name, ()):
        raise UserError(f"The trials {group} try the stage {name} of method {method}, which has no validation curve.")
    dataset, teacher, student = axes
    stage = Stage(name, trials.profile, dataset, teacher, student, method, seed, root=ROOT)
    return stage.with_overrides(asked.settings | trial.settings)


def behind(stages: list[Stage]) -> list[Stage]:
    """These stages and all that they read, each once, inputs first."""
    return list({one.folder: one for stage in stages for one in (*reversed(list(stage.upstream())), stage)}.values())


# ---- running them


def run_stages(stages: list[Stage], jobs: int, name: str = "trials") -> None:
    """Make these stages and all that they read, each once, `jobs` at a time; what is done is left as it is.

    `name` is what the progress bar is called.
    """
    nodes = {one.folder: one for one in behind(stages)}
    order = TopologicalSorter({f: {one.folder for one in s.inputs.values()} for f, s in nodes.items()})
    order.prepare()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool,
        tqdm(total=len(nodes), desc=name, unit="stage") as bar,
    ):
        running: dict[Future, Path] = {}
        while order.is_active():
            running |= {pool.submit(_make, nodes[folder]): folder for folder in order.get_ready()}
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                order.done(running.pop(future))
                bar.update()


def _make(stage: Stage) -> None:
    stage.run()


def _end_with_parent() -> None:
    """Have this worker end when the command that started it does, also if that was killed.

    It would go on with its stage, and a second run of the command would write into the same folder.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


# ---- what comes of them


def row_of(run: Run) -> dict[str, Any]:
    """One trial as a row: what it was, its best validation value, how far it went, and what it cost."""
    stage = run.stage
    cost, sizes = results.costs([stage]).iloc[0], (ledger.parameters_of(stage), ledger.parameters_of_reader(stage))
    tokens = (cost["tokens_generated"], cost["tokens_trained"], cost["tokens_read"])
    return {
        "question": run.question,
        "cell": f"{stage.dataset}/{stage.teacher}/{stage.student}",
        "seed": stage.seed,
        "trial": run.trial.name,
        "stage": stage.name,
        "method": stage.method,
        "settings": json.dumps(run.trial.settings),
        **curves.ending(stage),
        "flops": ledger.flops(stage.name, sizes[0], *tokens, sizes[1]),
        "seconds": cost["seconds"],
    }


def gather(
    runs: list[Run],
    folder: Path,
    path: str,
    profile: str,
    name: str = "trials",
    others: Collection[int] = (),
) -> None:
    """Write the tables of one group's finished trials, and where they come from; by which command, `name`.

    What is there of the seeds `others` stays.
    """
    group, rows = runs[0].group, [row_of(run) for run in runs]
    names = ["cell", "seed", "trial"]
    drawn = [curves.curve(run.stage).assign(**{n: row[n] for n in names}) for run, row in zip(runs, rows, strict=True)]
    tables = {".csv": pd.DataFrame(rows), "_curves.csv": pd.concat(drawn)[[*names, "step", "value"]]}
    for ending, table in tables.items():
        _write(folder / f"{group}{ending}", table, others)
    stages = {one.folder: one for run in runs for one in (*run.stage.upstream(), run.stage)}.values()
    seeds = sorted({stage.seed for stage in stages})
    made = [results.provenance([one for one in stages if one.seed == seed], profile, seed) for seed in seeds]
    command = f"python -m rdlib {name} {shlex.quote(path)} --groups {group}"
    record = folder / f"{group}_provenance.json"
    kept = [one for one in artifacts.read_json(record)["seeds"] if one["seed"] in others] if record.is_file() else []
    made = sorted([*kept, *made], key=lambda one: one["seed"])
    artifacts.write_json(record, {"command": command, "seeds": made})


def _write(path: Path, table: pd.DataFrame, others: Collection[int]) -> None:
    """Write a table, and with it the rows of the seeds `others` that are there; seeds in order, as if run together."""
    if path.suffix == ".parquet":
        there = [pd.read_parquet(path)] if others and path.is_file() else []
        artifacts.write_parquet(path, _together(there, table, others))
        return
    text = table.to_csv(index=False, float_format="%.6g")
    if others and path.is_file():  # as text, so that what is there stays to the letter
        there, new = (pd.read_csv(source, dtype=str, keep_default_na=False) for source in (path, io.StringIO(text)))
        text = _together([there], new, others).to_csv(index=False)
    artifacts.write_bytes(path, text.encode())


def _together(there: list[pd.DataFrame], new: pd.DataFrame, others: Collection[int]) -> pd.DataFrame:
    kept = [table[table["seed"].astype(int).isin(others)] for table in there]
    every = pd.concat([*kept, new], ignore_index=True)
    return every.sort_values("seed", key=lambda seeds: seeds.astype(int), kind="stable", ignore_index=True)


def write(folder: Path, group: str, made: dict[str, pd.DataFrame], others: Collection[int] = ()) -> None:
    """Write tables of a group, by the end of their files' names; what is there of the seeds `others` stays."""
    for name, table in made.items():
        _write(folder / f"{group}_{name}", table, others)


# ---- the command


def add_arguments(parser: argparse.ArgumentParser, file: str = "params/trials/settings.yaml") -> None:
    """The options of `python -m rdlib trials`, whose file of trials is `file` by default."""
    parser.add_argument("trials", nargs="?", default=file, help=f"file of trials (default: {file})")
    parser.add_argument("--profile", help="another profile than the file's, as params/smoke.yaml, to see it work")
    parser.add_argument("--groups", nargs="+", help="groups to run (default: all)")
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="some of the seeds; rows of the others stay (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument("--out", help="folder of the tables (default: figures/trials/<name of the file>)")


def command(
    options: argparse.Namespace,
    name: str,
    measuring: Callable[[Run], list[Stage]] = lambda run: [],
    tables_of: Callable[[str, list[Run]], dict[str, pd.DataFrame]] = lambda group, runs: {},
) -> None:
    """Run the trials of a file, or some groups of them, and write their tables.

    `name` is that of the command. It may have more stages that are `measuring` a run, and more tables of a group, by
    the end of their files' names. A group's tables are written before the next is begun.
    """
    asked = load_trials(ROOT / options.trials)
    if options.profile:
        asked = asked.model_copy(update={"profile": options.profile})
    groups = options.groups or list(asked.groups)
    if unknown := set(groups) - set(asked.groups):
        raise UserError(f"{options.trials} has no trials {min(unknown)}: it has {', '.join(asked.groups)}.")
    runs = {group: runs_of(asked, group) for group in groups}
    out = options.out or f"figures/trials/{Path(options.trials).stem}"
    seeds = {group: {one.stage.seed for one in every} for group, every in runs.items()}
    for group, known in seeds.items():
        if unknown := set(options.seeds or ()) - known:
            known = listed([str(seed) for seed in sorted(known)])
            raise UserError(f"The trials {group} have no seed {min(unknown)}: give some of {known}.")
    for group, every in runs.items():
        found = [one for one in every if one.stage.seed in (options.seeds or seeds[group])]
        others = seeds[group] - {one.stage.seed for one in found}
        run_stages([stage for one in found for stage in (one.stage, *measuring(one))], options.jobs)
        gather(found, ROOT / out, options.trials, asked.profile, name, others)
        write(ROOT / out, group, tables_of(group, found), others)
    print(f"Trials of {', '.join(groups)}: {out}")


def run(options: argparse.Namespace) -> None:
    """The trials by which settings are chosen."""
    command(options, "trials")
