"""`python -m rdlib study`: a whole study as a DAG of notebooks, run by Snakemake.

Jobs come from `rdlib.study.jobs`; `--for` runs those that one table or figure depends on, and draws it. Before the
first notebook starts, settings, packages, servers, weights and SLURM's limits are checked.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import gallery
from rdlib.evidence.result_tables import open_results
from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.study import estimate, experiments, figures, launch, outlook, requirements, results, warm, workflow
from rdlib.study.jobs import (
    DRAWING,
    FIGURES,
    QUESTIONS,
    Job,
    drop_stale_markers,
    every_stage,
    exhibit_jobs,
    exhibit_runs,
    stages_to_run,
    study_jobs,
)
from rdlib.study.progress import Watch, unanswered, unanswered_lines
from rdlib.study.specification import dag_edges

INSTEAD = {  # of options of version 1.0
    "--questions": "--experiments study ablations questions",
    "--ablations": "--experiments study and the ablations' names, as in --experiments study lambda",
}
FIX = "What was finished is kept; fix this and give the same command again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib study`."""
    parser.add_argument("--profile", help="profile, relative to the repository (default: the experiments' own)")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (one torch thread each)")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds instead of the profile's")
    parser.add_argument(
        "--experiments", nargs="+", help="these alone: names, groups, FILE or FILE:NAME, as study ablations questions"
    )
    parser.add_argument("--methods", nargs="+", help="methods to add to the profile's, as sft ours_wo_d")
    for gone in INSTEAD:
        parser.add_argument(gone, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--for", dest="exhibit", help="only what this table or figure depends on, as figure_5_lambda")
    parser.add_argument("--dry-run", action="store_true", help="print tokens, hours and memory; start nothing")
    parser.add_argument("--workflow-profile", help="a Snakemake profile, as params/slurm, that says where jobs run")


def run(options: argparse.Namespace) -> int:
    """Run the study, or say what it would take."""
    if options.jobs < 1 or any(seed < 0 for seed in options.seeds or []):
        raise UserError("--jobs must be at least 1 and --seeds not below 0.")
    for gone, instead in INSTEAD.items():
        if getattr(options, gone[2:]) is not None:
            raise UserError(f"{gone} is gone: give {instead}.")
    if options.exhibit and (options.methods or options.experiments):
        raise UserError("--for names all that it needs itself: leave out --methods and --experiments.")
    names = gallery.find(options.exhibit).experiments or None if options.exhibit else options.experiments
    options.profile, found = experiments.settled(names, options.profile, options.seeds)
    options.seeds = list(dict.fromkeys(seed for one in found for seed in one.seeds))
    experiments.enter_numerics(found)
    profile = load_profile(ROOT / options.profile)
    if options.dry_run:
        return dry_run(Plan(options, profile, jobs_of(options)))
    requirements.check(profile.training)
    placement = workflow.WorkflowProfile.read(ROOT / options.workflow_profile) if options.workflow_profile else None
    return run_study(Plan(options, profile, jobs_of(options), placement))


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """The jobs of some experiments, or those that one exhibit depends on, with a printed time estimate."""
    if options.exhibit is None:
        return study_jobs(options.profile, options.seeds, options.experiments, options.methods or ())
    jobs = exhibit_jobs(options.exhibit, options.profile, options.seeds)
    print(estimate.exhibit_line(options.exhibit, jobs), flush=True)
    return jobs


@dataclass
class Plan:
    """What is asked for: the jobs of a profile, and where they run (None: on this machine)."""

    options: argparse.Namespace
    profile: Profile
    jobs: list[Job]
    placement: workflow.WorkflowProfile | None = None

    @property
    def here(self) -> bool:
        """Whether the jobs run on this machine."""
        return not (self.placement and self.placement.remote)

    @property
    def runs(self) -> Path:
        """The folder of the profile's runs."""
        return ROOT / self.profile.runs / self.profile.name

    def has(self, *notebooks: str) -> bool:
        """Whether one of these notebooks is among the jobs."""
        return any(job.notebook in notebooks for job in self.jobs)


def dry_run(plan: Plan) -> int:
    """Say what a study would take, and start nothing."""
    stages = stages_to_run(plan.jobs)
    if not plan.options.exhibit or plan.profile.hardware.gpus:
        asked = [line for look in outlook.of(stages) for line in look.lines()]
        print(estimate.summary(estimate.estimate(stages), plan.profile, asked))
    if plan.options.experiments and stages:
        print(estimate.time_estimate(plan.jobs))
    return 0


def run_study(plan: Plan) -> int:
    """Run what is not done yet, and say where the results are; 1 where a notebook failed."""
    started, every, where = time.time(), len(plan.jobs), os.path.relpath(plan.runs, ROOT)
    requirements.check_teachers(every_stage(plan.jobs))
    if plan.has(QUESTIONS):
        for cell in experiments.ablation_cells(plan.options.profile, plan.options.seeds[0]):
            requirements.check_gold(cell)
    with artifacts.locked(plan.runs, f"Another run is at work in {where}: wait for it or stop it.") as lock:
        done = _prepare(plan)
        if done < every:
            with Watch(plan.runs / ".progress") as watch:
                failed = _run_jobs(plan, done, lock)
            if failed:
                print(*(failure.sentence(ROOT) for failure in failed), FIX, sep="\n", file=sys.stderr)
                return 1
            if done == 0 and len(plan.options.seeds) == 1 and plan.here and plan.has(FIGURES):
                _record_measurements(plan, time.time() - started, watch)
    minutes = (time.time() - started) / 60
    what = f"{every - done} of {every} jobs in {minutes:.1f} min" if done < every else "nothing to do"
    print(f"Study {plan.profile.name}: {what}.", *_results(plan), sep="\n")
    return 0


def _prepare(plan: Plan) -> int:
    """Check whether what is left can run where it shall; returns how many jobs are done."""
    done = drop_stale_markers(plan.jobs, plan.runs)
    if done == len(plan.jobs):
        return done
    for stage in filter(launch.is_wanted, stages_to_run(plan.jobs)):
        launch.check(stage) if plan.here else launch.check_method(stage)
    if plan.placement and plan.placement.slurm:
        plan.placement.check({job.gpus for job in plan.jobs})
        workflow.clear_earlier_jobs(plan.runs)
        done = drop_stale_markers(plan.jobs, plan.runs)
    for stage in stages_to_run(plan.jobs):
        requirements.check_sampler(stage)
    return done


def _run_jobs(plan: Plan, done: int, lock: int) -> list[workflow.Failure]:
    """Run the jobs, and again where Snakemake lost sight of its jobs in SLURM; returns those that failed."""
    for look in outlook.of(stages_to_run(plan.jobs)):
        print(*look.lines(), sep="\n", flush=True)
    planned = workflow.planned(plan.jobs, plan.runs)
    words = workflow.command(planned, plan.options.jobs, plan.profile, plan.placement)
    with warm.server(lock, plan.here) as variables:
        while True:
            placed = workflow.Placed(plan.runs) if plan.placement and plan.placement.slurm else None
            failed = workflow.follow(words, plan.jobs, done, plan.runs, variables, lock, placed)
            if not (placed and placed.lost):
                return failed
            print("Snakemake had lost sight of its jobs in SLURM: it is started again.", flush=True)
            done = drop_stale_markers(plan.jobs, plan.runs)


def _record_measurements(plan: Plan, seconds: float, watch: Watch) -> None:
    """What a whole seed took, for the README and the benchmarks; `seconds` of wall time."""
    seed = f"seed{plan.options.seeds[0]}"
    files = [p for p in plan.runs.rglob("*") if p.is_file() and seed in p.relative_to(plan.runs).parts]
    measured = {
        "questions": plan.has(QUESTIONS),
        "jobs": len(plan.jobs),
        "minutes": round(seconds / 60, 1),
        "cpu_minutes": round(watch.cpu / 60, 1),
        "peak_memory_gib": round(watch.peak / 2**30, 2),
        "disk_mb": round(sum(path.stat().st_size for path in files) / 1e6),
    }
    artifacts.write_json(plan.runs / "results" / seed / "measured.json", measured)


def _results(plan: Plan) -> list[str]:
    """Where the results are, in lines; an exhibit is drawn first."""
    options, folder = plan.options, f"{plan.profile.runs}/{plan.profile.name}"
    if options.exhibit:
        drawn = draw(options.exhibit, options.profile, options.seeds)
        return [f"  {os.path.relpath(path, ROOT)}" for path in drawn]
    return [
        *unanswered_lines(unanswered(every_stage(plan.jobs))),
        *([f"  tables and figures: {folder}/figures"] if plan.has(*DRAWING) else []),
        f"  executed notebooks and artifacts: {folder}/<dataset>/<teacher>/<student>/<method>/",
        *(figures.health_lines(options.profile, options.seeds) if plan.has(FIGURES) else []),
    ]


def draw(name: str, profile_path: str, seeds: Sequence[int]) -> list[Path]:
    """Gather what the jobs of an exhibit left, and draw it to `runs/<profile>/retrained/<exhibit>`; the paths."""
    exhibit, profile = gallery.find(name), load_profile(ROOT / profile_path)
    out = ROOT / profile.runs / profile.name / "retrained" / name
    found = exhibit_runs(exhibit, profile_path, seeds)
    for seed in dict.fromkeys(run.stage.seed for _, runs in found for run in runs):
        of_seed = [(one, [run for run in runs if run.stage.seed == seed]) for one, runs in found]
        made = results.gather(profile_path, seed, of_seed)
        command = f"python -m rdlib study --profile {profile_path} --seeds {seed} --for {name}"
        for record in made.experiments.values():
            record["command"] = command
        results.write(out / "results" / f"seed{seed}", made)
    return figures.draw_one(name, open_results(out / "results", edges=dag_edges()), out)
