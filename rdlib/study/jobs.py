"""The jobs of a study: one notebook each, with its parameters, the stages that it makes, and the jobs before it.

A job's marker file in `runs/<profile>/.jobs` says that it is done. A marker whose stages are missing, or were made with
other settings, code or inputs, is dropped before Snakemake looks, so a change re-runs what depends on it and nothing
else. Notebooks after that are executed again, but a stage of theirs whose inputs came out as they were finds itself
done.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.evidence import criteria
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import arms, code_identity, grid
from rdlib.study.grid import NOTHING, Named, ablation_cells, ablation_overrides, teacher_stages
from rdlib.study.opening import make_stage
from rdlib.study.stage import Stage

ABLATIONS = {
    "08_ablation_lambda": ("lambda", "05_reward_model"),
    "09_ablation_data_ratio": ("data_ratio", "05_reward_model"),
    "10_ablation_reward_source": ("reward_source", "07_evaluate"),
    "11_ablation_correctness": ("correctness", "07_evaluate"),
}
GPU_FREE = ("00_data", "00_gold", "02_pseudo_labels", "02_judgement")
# Notebooks that collect results and draw the report's tables and figures, with the modules that they do it by.
REPORT = ("rdlib.study.results", "rdlib.study.figures")
DRAWING = {"12_paper_tables_and_figures": REPORT, "13_reviewer_questions": REPORT}
# The warm-up that a policy of PPO starts from.
STARTS = {"ours": "ours_wo_r", "ours_wo_d": None}


@dataclass
class Job:
    """One notebook run: its parameters, the stages it makes, and the jobs before it."""

    notebook: str
    parameters: dict[str, Any]
    folder: Path
    stages: list[Stage]
    after: list[Job] = field(default_factory=list)
    priority: int = 0

    @property
    def name(self) -> str:
        """A unique name made of the notebook and its parameters."""
        left_out = ("profile", "methods", "seed", "overrides")
        shown = [str(v) for k, v in self.parameters.items() if k not in left_out and v is not None]
        shown += [f"{k}={v}" for k, v in self.parameters.get("overrides", {}).items()]
        if self.parameters.get("methods") in (["teacher"], ["icl"]):
            shown += self.parameters["methods"]
        return "-".join([self.notebook, *shown, f"seed{self.parameters.get('seed', 'all')}"])

    @property
    def gpus(self) -> int:
        """GPUs that the job needs: all of the profile's, for a job that samples or trains."""
        works = any(stage.name not in GPU_FREE for stage in self.stages)
        return self.stages[0].profile.hardware.gpus if works else 0

    @property
    def executed(self) -> Path:
        """Where the executed notebook goes: beside the artifacts it makes."""
        variant = f"@{self.stages[0].variant}" if "overrides" in self.parameters and self.stages[0].variant else ""
        return self.folder / f"{self.notebook}{variant}.ipynb"

    def marker(self, runs: Path) -> Path:
        """The file that says that this job is done; if it draws, with this code, these settings and criteria."""
        if self.notebook not in DRAWING:
            return runs / ".jobs" / self.name
        profile = load_profile(ROOT / self.parameters["profile"]).model_dump()
        read = [code_identity.of(*DRAWING[self.notebook]), profile, artifacts.file_hash(criteria.CLAIMS_FILE)]
        return runs / ".jobs" / f"{self.name}@{artifacts.content_hash(read)[:16]}"

    @property
    def command(self) -> str:
        """The shell command that runs the notebook."""
        source = ROOT / "notebooks" / f"{self.notebook}.ipynb"
        words = [sys.executable, "-m", "rdlib", "warm", source, self.executed, json.dumps(self.parameters)]
        return shlex.join(map(str, words))


def _job(notebook: str, stages: list[Stage], after: list[Job], **extra: Any) -> Job:
    first = stages[0]
    axes = {a: getattr(first, a) for a in ("dataset", "teacher", "student", "method") if getattr(first, a)}
    if "methods" in extra:  # an axis that a method has not is none, whatever the notebook's default
        axes = {a: getattr(first, a) for a in ("dataset", "teacher", "student")}
    parameters = {"profile": first.profile_path, **axes, "seed": first.seed, **extra}
    return Job(notebook, parameters, stages[-1].folder.parent, stages, after)


def seed_jobs(profile_path: str, seed: int, more: Named = NOTHING) -> Iterator[Job]:
    """The jobs of the main grid and the ablations for one seed, those asked for by name included."""
    profile = load_profile(ROOT / profile_path)
    for dataset in profile.datasets:
        base = make_stage("00_data", profile_path, seed=seed, dataset=dataset)
        data = _job("00_data", [base, base.at("00_gold")], [])
        yield data
        for student in profile.students:
            icl = replace(base, name="07_evaluate", student=student, method="icl")
            yield _job("07_evaluate", [icl], [data], methods=["icl"])
        for teacher in profile.teachers:
            cell = replace(base, teacher=teacher)
            responses = _job("01_teacher_responses", teacher_stages(cell), [data])
            labels = _job("02_pseudo_labels", [cell.at("02_pseudo_labels"), cell.at("02_judgement")], [responses])
            yield from (responses, labels)
            yield _job(
                "07_evaluate",
                [replace(cell, name="07_evaluate", method="teacher")],
                [responses if base.dataset_settings.own else data],  # whose notebook shows the agreement with the vote
                methods=["teacher"],
            )
            for student in profile.students:
                yield from _cell_jobs(replace(cell, student=student), labels, more)


def _cell_jobs(cell: Stage, labels: Job, more: Named) -> Iterator[Job]:
    """The jobs of a cell: its methods' trainings, their evaluation, and its ablations."""
    methods = grid.methods_of(cell.profile, cell.dataset, more)
    trained = {*methods, *(STARTS.get(method) for method in methods)}
    sft = {
        method: _job("03_sft_warmup", [replace(cell, name="03_sft_warmup", method=method)], [labels])
        for method in ("sft", "ours_wo_r")
        if method in trained
    }
    yield from sft.values()
    policies = {}
    for method in (method for method in STARTS if method in methods):
        start = sft[STARTS[method]] if STARTS[method] else labels
        *before, policies[method] = _policy_jobs(replace(cell, method=method), start)
        yield from (*before, policies[method])
    stages = [replace(cell, name="07_evaluate", method=method) for method in methods]
    evaluation = _job("07_evaluate", stages, [*sft.values(), *policies.values()], methods=list(methods))
    yield evaluation
    if cell.cell_name in {one.cell_name for one in ablation_cells(cell.profile_path, cell.seed)}:
        names = grid.ablations_of(cell.profile, cell.dataset, more)
        yield from _ablation_jobs(replace(cell, method="ours"), policies["ours"], evaluation, names)


def _policy_jobs(cell: Stage, start: Job) -> list[Job]:
    """The jobs from a student's responses to its PPO, one after the other."""
    jobs = [start]
    for name in ("04_student_responses", "05_reward_model", "06_ppo"):
        jobs.append(_job(name, [replace(cell, name=name)], [jobs[-1]]))
    return jobs[1:]


def _ablation_jobs(cell: Stage, ppo: Job, evaluation: Job, names: tuple[str, ...]) -> Iterator[Job]:
    for notebook, (ablation, last) in ABLATIONS.items():
        if ablation not in names:
            continue
        stages = [
            replace(cell, name=last).with_overrides(overrides)
            for overrides in ablation_overrides(cell.profile)[ablation]
        ]
        job = _job(notebook, stages, [evaluation] if last == "07_evaluate" else [ppo])
        job.parameters.pop("method")
        yield job


def made_by_name(profile_path: str, seed: int) -> Named:
    """The methods and ablations that the profile does not ask for and whose every run is finished all the same."""
    asked = {stage.folder for job in seed_jobs(profile_path, seed) for stage in job.stages}
    others: dict[str, list[Stage]] = {}
    for job in seed_jobs(profile_path, seed, grid.EVERYTHING):
        for stage in job.stages:
            if stage.folder not in asked and job.notebook in ("07_evaluate", *ABLATIONS):
                others.setdefault(ABLATIONS.get(job.notebook, (stage.method,))[0], []).append(stage)
    made = [name for name, stages in others.items() if all(stage.done for stage in stages)]
    return Named(
        tuple(name for name in made if name in grid.METHODS),
        tuple(name for name in made if name in grid.ABLATION_NAMES),
    )


def study_jobs(profile_path: str, seeds: list[int], questions: bool = False, more: Named = NOTHING) -> list[Job]:
    """Every job of the study, the last one being the notebook of tables and figures.

    With `questions`, the runs of the reviewers' questions follow, and the notebook that answers them. `more`: what is
    asked for by name beside what the profile asks for.
    """
    jobs = [job for seed in seeds for job in seed_jobs(profile_path, seed, more)]
    profile = load_profile(ROOT / profile_path)
    folder = ROOT / profile.runs / profile.name
    last = Job("12_paper_tables_and_figures", {"profile": profile_path, "seeds": seeds}, folder, [], list(jobs))
    jobs.append(last)
    if questions:
        jobs += [job for seed in seeds for job in reviewer_jobs(profile_path, seed, list(jobs))]
    _prioritise(jobs)
    return jobs


def reviewer_jobs(profile_path: str, seed: int, study: list[Job]) -> list[Job]:
    """The runs of the reviewers' questions that the study does not make, and the notebook that answers them.

    A run makes its own inputs; runs that share one are put one after the other, so none is made twice at once.
    """
    cells = ablation_cells(profile_path, seed)
    made = {stage.folder for job in study for stage in job.stages}
    jobs: list[Job] = []
    makes: list[set[Path]] = []
    for arm in (arm for cell in cells for arm in arms.arms_of(cell)):
        new = {stage.folder for stage in (arm.stage, *arm.stage.upstream())} - made
        if arm.stage.folder not in new or any(arm.stage.folder == job.stages[0].folder for job in jobs):
            continue
        after = [study[-1], *(job for job, others in zip(jobs, makes, strict=True) if new & others)]
        job = _job("13_reviewer_runs", [arm.stage], after, overrides=arm.stage.all_overrides)
        jobs.append(job)
        makes.append(new)
    judged = [cell.at("13_judged_responses") for cell in cells]
    last = Job("13_reviewer_questions", {"profile": profile_path, "seeds": [seed]}, judged[0].folder.parent, judged)
    return [*jobs, replace(last, after=[study[-1], *jobs])]


def _prioritise(jobs: list[Job]) -> None:
    # A job's priority is the length of the longest chain that waits for it, so long chains start first.
    for job in reversed(jobs):
        weight = 4 if job.notebook in ("06_ppo", *ABLATIONS) else 1
        for before in job.after:
            before.priority = max(before.priority, job.priority + weight)


def drop_stale_markers(jobs: list[Job], runs: Path) -> int:
    """Remove the markers of jobs whose stages are not done as the profile now asks; returns how many jobs are done.

    Done is a job that has a marker and comes after no job without one: Snakemake runs the others.
    """
    done: set[int] = set()
    for job in jobs:
        marker = job.marker(runs)
        if marker.exists() and not all(stage.done for stage in job.stages):
            marker.unlink()
        if job.notebook in DRAWING:
            for other in marker.parent.glob("*@*"):  # drawn since in another way
                if other != marker and other.name.startswith(f"{job.name}@"):
                    other.unlink()
        if marker.exists() and all(id(before) in done for before in job.after):
            done.add(id(job))
    return len(done)


def stages_to_run(jobs: list[Job]) -> list[Stage]:
    """Every stage that these jobs would compute, inputs included, each once and in order; those done are left out."""
    return [stage for stage in stages_behind(jobs) if not stage.done]


def stages_behind(jobs: list[Job]) -> list[Stage]:
    """Every stage of these jobs, inputs included, each once and in order."""
    stages: dict[Path, Stage] = {}
    for job in jobs:
        for stage in job.stages:
            for one in (*stage.upstream(), stage):
                stages.setdefault(one.folder, one)
    return list(stages.values())
