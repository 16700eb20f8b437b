"""Training again what one table or figure rests on: `python -m rdlib study --for figure_5_lambda --seeds 0`.

The jobs are those of the study that the exhibit needs and no other. How long they take is told first, from what the
released run took. What comes out lies in `runs/<profile>/retrained/<exhibit>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rdlib.evidence import gallery
from rdlib.evidence.exhibit import Exhibit
from rdlib.evidence.result_tables import Evidence, open_results
from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.study import arms, experiments, figures, results
from rdlib.study.grid import EVERYTHING, ablation_cells
from rdlib.study.jobs import Job, study_jobs
from rdlib.study.specification import dag_edges
from rdlib.study.stage import Stage

AXES = ["stage", "dataset", "teacher", "student", "method", "variant"]
RELEASED = ROOT / "figures" / "results"


def jobs_behind(name: str, profile_path: str, seeds: list[int]) -> list[Job]:
    """The jobs of the study that an exhibit rests on, each after those of them that it waits for.

    UserError for an exhibit that there is not.
    """
    exhibit = gallery.find(name)
    jobs = study_jobs(profile_path, seeds, bool(_questions(exhibit)), EVERYTHING)
    maker: dict[Path, Job] = {}
    for job in jobs:
        for stage in job.stages:
            maker.setdefault(stage.folder, job)
    needed = _with_inputs([], [one for one in _stages(exhibit, profile_path, seeds) if one.folder in maker], maker)
    return _alone([job for job in jobs if id(job) in needed])


def _questions(exhibit: Exhibit) -> tuple[str, ...]:
    """The reviewers' questions among an exhibit's experiments."""
    return tuple(name for name in exhibit.experiments if name.startswith("R") and ":" not in name)


def _stages(exhibit: Exhibit, profile_path: str, seeds: list[int]) -> list[Stage]:
    """The stages that an exhibit needs and a study makes: of its experiments, up to its last stage."""
    asked = experiments.named(name for name in exhibit.experiments if ":" not in name)
    runs = [run for one in asked if one.profile is None for run in experiments.runs(one, profile_path, seeds)]
    stages = experiments.with_upstream(run.stage for run in runs)
    return [stage for stage in stages if exhibit.last is None or stage.name == exhibit.last]


def _with_inputs(wanted: list[Job], stages: list[Stage], maker: dict[Path, Job]) -> set[int]:
    """The ids of these jobs, of those that make these stages, and of all that make what they read."""
    needed: set[int] = set()
    waiting = [*wanted, *(maker[stage.folder] for stage in stages)]
    while waiting:
        job = waiting.pop()
        if id(job) not in needed:
            needed.add(id(job))
            read = {one.folder for stage in job.stages for one in (stage, *stage.upstream())}
            waiting += [maker[folder] for folder in read if folder in maker]  # a variant's inputs come with its job
    return needed


def _alone(jobs: list[Job]) -> list[Job]:
    """Copies of some jobs of a study, in its order, that wait for each other and no more for those left out."""
    copies: dict[int, Job] = {}
    kept = {id(job) for job in jobs}
    for job in jobs:
        copies[id(job)] = replace(job, after=[copies[key] for key in _before(job, kept)])
    return list(copies.values())


def _before(job: Job, kept: set[int]) -> list[int]:
    """The ids of the kept jobs that a job waits for, directly or by way of those left out."""
    found: dict[int, None] = {}
    seen: set[int] = set()
    waiting = list(job.after)
    while waiting:
        other = waiting.pop(0)
        if id(other) in kept:
            found[id(other)] = None
        elif id(other) not in seen:
            seen.add(id(other))
            waiting += other.after
    return list(found)


# ---- what it takes


def told(name: str, jobs: list[Job], profile: Profile, released: Path = RELEASED) -> str:
    """What training again takes, in words: notebooks, and minutes by what the released run took."""
    exhibit = gallery.find(name)
    if any(":" in one for one in exhibit.experiments):
        return f"{name} ({exhibit.title}) shows follow-up experiments: `python -m rdlib open-ends` runs them."
    if not jobs:
        return f"{name} ({exhibit.title}) rests on no training: `make figures NAME={name}` draws it."
    left = [job for job in jobs if not all(stage.done for stage in job.stages)]
    head = f"{name} ({exhibit.title}) rests on {len(jobs)} notebooks, {len(jobs) - len(left)} of them done"
    if not left:
        return f"{head}: it only needs drawing."
    minutes = minutes_of(stages_made(left), released, profile.name)
    if minutes is None:
        return f"{head}. How long the others take is not known: no run of the profile {profile.name} is released."
    return f"{head}. The others take about {max(1, round(minutes))} minutes, two at a time, by the released run."


def stages_made(jobs: Iterable[Job]) -> list[Stage]:
    """Every stage that these jobs would compute, inputs included, each once."""
    stages = {one.folder: one for job in jobs for stage in job.stages for one in (*stage.upstream(), stage)}
    return [stage for stage in stages.values() if not stage.done]


def minutes_of(stages: list[Stage], released: Path, profile: str) -> float | None:
    """Minutes that stages take by a released run of this profile; None where there is none.

    A stage takes the mean of its seconds over the released seeds (one that was never run: of its kind's), times the
    minutes of a measured seed over its stages' seconds: notebooks start up, and two run at once.
    """
    evidence = open_results(released) if released.is_dir() else None
    if evidence is None or evidence.settings["name"] != profile:
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
    parts = [evidence.costs[columns], *([evidence.question_costs[columns]] if evidence.answered else [])]
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


def draw(name: str, profile_path: str, seeds: list[int], jobs: list[Job]) -> list[Path]:
    """Gather what the jobs left and draw the exhibit from it; returns the paths written."""
    exhibit, profile = gallery.find(name), load_profile(ROOT / profile_path)
    out = ROOT / profile.runs / profile.name / "retrained" / name
    for seed in seeds:
        if arms.REWARD_MODEL in _questions(exhibit):
            for cell in ablation_cells(profile_path, seed):
                cell.at("13_judged_responses").run()  # sampling alone: no job of its own
        stages = {one.folder: one for job in jobs for stage in job.stages for one in (*stage.upstream(), stage)}
        of_seed = sorted((s for s in stages.values() if s.seed == seed), key=lambda stage: stage.label)
        folder, options = out / "results" / f"seed{seed}", f" --for {name}"
        results.gather(folder, profile_path, seed, of_seed, options)
        if _questions(exhibit):
            results.gather_questions(folder, profile_path, seed, of_seed, _questions(exhibit), options)
    return figures.draw_one(name, open_results(out / "results", seeds, dag_edges()), out)
