"""Retraining what one table or figure depends on: `python -m rdlib study --for figure_5_lambda --seeds 0`.

The jobs are those of the experiments that the exhibit is made from, and no other. How long they take is estimated
first, from what the released run took. What comes out lies in `runs/<profile>/retrained/<exhibit>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rdlib.evidence import gallery
from rdlib.evidence.gallery import Exhibit
from rdlib.evidence.result_tables import Evidence, open_results
from rdlib.evidence.tables import listed
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import experiments, figures, results
from rdlib.study.experiments import Experiment, Run, with_upstream
from rdlib.study.jobs import Job, stage_jobs, stages_to_run
from rdlib.study.specification import dag_edges
from rdlib.study.stage import Stage

AXES = ["stage", "dataset", "teacher", "student", "method", "variant"]
RELEASED = ROOT / "figures" / "results"


def runs_of(exhibit: Exhibit, profile: str | None, seeds: Sequence[int] | None) -> list[tuple[Experiment, list[Run]]]:
    """The runs that an exhibit depends on, by experiment; UserError where they are of several profiles."""
    path, found = experiments.settled(exhibit.experiments, profile, seeds)
    each = [(one, experiments.runs(one, path, one.seeds)) for one in found]
    if exhibit.last:
        cut = {"notebook": None, "measure": []}
        each = [(one.model_copy(update=cut), list(_up_to(runs, exhibit.last))) for one, runs in each]
    return each


def _up_to(runs: Iterable[Run], last: str) -> Iterable[Run]:
    """Runs that end with the stages of this name that some runs read."""
    for run in runs:
        yield from (replace(run, stage=one) for one in with_upstream([run.stage]) if one.name == last)


def jobs_of(name: str, profile: str | None, seeds: Sequence[int] | None) -> list[Job]:
    """The jobs that an exhibit depends on, each after those of them that it waits for; UserError for no exhibit."""
    exhibit = gallery.find(name)
    return stage_jobs(runs_of(exhibit, profile, seeds)) if exhibit.experiments else []


# ---- how long it takes


def summary_line(name: str, jobs: list[Job], released: Path = RELEASED) -> str:
    """What retraining an exhibit takes: its experiments, the notebooks, and minutes by what the released run took."""
    exhibit = gallery.find(name)
    if not exhibit.experiments:
        return f"{name} ({exhibit.title}) depends on no training: `make figures NAME={name}` draws it."
    head = f"{name} ({exhibit.title}) depends on {listed(exhibit.experiments)}"
    return f"{head}: {len(jobs)} notebooks. {time_estimate(jobs, released)}"


def time_estimate(jobs: list[Job], released: Path = RELEASED) -> str:
    """How long some jobs take, in a sentence, by a released run of their profile."""
    stages = stages_to_run(jobs)
    if not stages:
        return "All of them are done."
    done = sum(bool(job.stages) and all(stage.done for stage in job.stages) for job in jobs)
    head = f"Done: {done} of {len(jobs)} notebooks. The others" if done else "They"
    minutes = minutes_of(stages, released)
    if minutes is None:
        profile = stages[0].profile.name
        return f"{head} take an unknown time: no run of the profile {profile} is released."
    return f"{head} take about {max(1, round(minutes))} minutes, two at a time, by the released run."


def minutes_of(stages: list[Stage], released: Path) -> float | None:
    """Minutes that stages take by a released run of their profile; None where there is none.

    A stage takes the mean of its seconds over the released seeds (one that was never run: of its kind's), times the
    minutes of a measured seed over its stages' seconds: notebooks start up, and two run at once.
    """
    evidence = open_results(released) if released.is_dir() else None
    if evidence is None or evidence.settings["name"] != stages[0].profile.name:
        return None
    spent = _spent(evidence)
    by_stage = spent.groupby(AXES)["seconds"].mean()
    by_kind = spent.groupby("stage")["seconds"].mean()
    keys = [tuple((stage.columns | {"stage": stage.name})[axis] for axis in AXES) for stage in stages]
    seconds = sum(by_stage.get(key, by_kind.get(key[0], 0.0)) for key in keys)
    return seconds * _minutes_a_second(evidence, spent)


def _spent(evidence: Evidence) -> pd.DataFrame:
    """Seconds of every stage that was run, for the study or for its questions: AXES, seed, seconds."""
    columns = [*AXES, "seed", "seconds"]
    parts = [table[columns] for table in (evidence.costs, evidence.question_costs) if len(table)]
    return pd.concat(parts).drop_duplicates([*AXES, "seed"])


def _minutes_a_second(evidence: Evidence, spent: pd.DataFrame) -> float:
    """Minutes of wall time of a measured run for a second of its stages; half a second each where none was measured."""
    shares = []
    for seed, measured in evidence.measured.items():
        own = spent[spent["seed"] == seed]
        if not measured.get("questions"):
            own = own.merge(evidence.costs[[*AXES, "seed"]], on=[*AXES, "seed"])
        shares.append(measured["minutes"] / own["seconds"].sum())
    return sum(shares) / len(shares) if shares else 1 / 120


# ---- what comes out


def draw(name: str, profile_path: str, seeds: Sequence[int]) -> list[Path]:
    """Gather what the jobs left and draw the exhibit from it; returns the paths written."""
    exhibit, profile = gallery.find(name), load_profile(ROOT / profile_path)
    out = ROOT / profile.runs / profile.name / "retrained" / name
    found = runs_of(exhibit, profile_path, seeds)
    for seed in dict.fromkeys(run.stage.seed for _, runs in found for run in runs):
        of_seed = [(one, [run for run in runs if run.stage.seed == seed]) for one, runs in found]
        made = results.gather(profile_path, seed, of_seed)
        command = f"python -m rdlib study --profile {profile_path} --seeds {seed} --for {name}"
        for record in made.experiments.values():
            record["command"] = command
        results.write(out / "results" / f"seed{seed}", made)
    return figures.draw_one(name, open_results(out / "results", edges=dag_edges()), out)
