"""The jobs of a study: one notebook each, with its parameters, the stages that it makes, and the jobs before it.

    study_jobs("params/micro.yaml", [0])                           # what the profile asks for
    study_jobs("params/micro.yaml", [0], ["params/mine.yaml"])     # the experiments of a file, and what they read

Jobs are derived from the runs of experiments. Each stage upstream of a run has one job, which all runs share that need
it; a job waits for those that make its inputs.

A job's marker file in `runs/<profile>/.jobs` says that it is done. A marker is dropped before Snakemake looks where its
stages are missing or have other settings, code or inputs. So a change reruns what depends on it and nothing else.
Notebooks downstream are executed again, but a stage whose inputs have the same content is not computed again.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.evidence import criteria, gallery
from rdlib.evidence.gallery import Exhibit
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import AXES
from rdlib.study import experiments
from rdlib.study.experiments import STUDY, Experiment, Run, needed_first, with_upstream
from rdlib.study.specification import METHODS, PPO, SFT, code_of
from rdlib.study.stage import Stage

GPU_FREE = ("00_data", "00_gold", "02_pseudo_labels", "02_judgement")
FIGURES, QUESTIONS, EXPERIMENT = "12_paper_tables_and_figures", "13_reviewer_questions", "14_experiment"
# Notebooks that collect results and draw tables and figures, with the modules that they do it by.
DRAWING = {
    FIGURES: ("rdlib.study.results", "rdlib.study.figures"),
    QUESTIONS: ("rdlib.study.results", "rdlib.study.figures"),
    EXPERIMENT: ("rdlib.study.experiment_report",),
}
TOGETHER = (*SFT, *PPO)  # methods of the main grid, which one notebook evaluates for a cell
# Last stages that notebook 14 has a table of
REPORTED = ("03_sft_warmup", "05_reward_model", "06_ppo", "07_evaluate", "13_baseline", "13_validation_answers")
LONGEST_NAME = 80  # characters of a variant in a job's name, which is a file's name too

EXHIBITS, LOOKS = (Path(criteria.__file__).with_name(name) for name in ("exhibits.yaml", "looks.yaml"))
# Where exhibits.yaml names functions, to which no import statement leads
DRAWERS = [f"rdlib.evidence.{path.stem}" for path in EXHIBITS.parent.glob("[a-z]*.py")]


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
    def title(self) -> str:
        """The notebook's name, or the stage's where its notebook is for several."""
        return self.parameters.get("stage_name", self.notebook)

    @property
    def variant(self) -> str:
        """The overrides as text, "" for none; of an experiment's report the experiment."""
        if self.notebook == EXPERIMENT:
            return self.parameters["experiment"].replace("/", "_").replace(":", "_")
        return self.stages[0].variant if "overrides" in self.parameters else ""

    @property
    def name(self) -> str:
        """A unique name made of the notebook and its parameters, which can be a file's."""
        left_out = ("profile", "methods", "seed", "overrides", "stage_name", "experiment")
        shown = [str(v) for k, v in self.parameters.items() if k not in left_out and v is not None]
        methods = self.parameters.get("methods", [])
        shown += methods if self.variant or len(methods) == 1 and methods[0] not in TOGETHER else []
        shown += [self.variant if len(self.variant) <= LONGEST_NAME else artifacts.content_hash(self.variant)[:16]]
        text = "-".join([self.title, *filter(None, shown), f"seed{self.parameters.get('seed', 'all')}"])
        return text.replace(":", "_")

    @property
    def gpus(self) -> int:
        """GPUs that the job needs: all of the profile's, for a job that samples or trains."""
        works = any(stage.name not in GPU_FREE for stage in self.stages)
        return self.stages[0].profile.hardware.gpus if works else 0

    @property
    def executed(self) -> Path:
        """Where the executed notebook goes: beside the artifacts it makes."""
        return self.folder / f"{self.title}{self.variant and '@'}{self.variant}.ipynb"

    def marker(self, runs: Path) -> Path:
        """The file that says that this job is done; if it draws, with this code, these settings and criteria."""
        if self.notebook not in DRAWING:
            return runs / ".jobs" / self.name
        profile = load_profile(ROOT / self.parameters["profile"]).model_dump()
        drawing = code_of(*DRAWING[self.notebook], *DRAWERS)
        read = [drawing, profile, *map(artifacts.file_hash, (criteria.CLAIMS_FILE, EXHIBITS, LOOKS))]
        if self.notebook == EXPERIMENT:
            read += [one.model_dump() for one in experiments.named([self.parameters["experiment"]])]
        return runs / ".jobs" / f"{self.name}@{artifacts.content_hash(read)[:16]}"

    @property
    def command(self) -> str:
        """The shell command that runs the notebook."""
        source = ROOT / "notebooks" / f"{self.notebook}.ipynb"
        words = [sys.executable, "-m", "rdlib", "execute", source, self.executed, json.dumps(self.parameters)]
        return shlex.join(map(str, words))


# ---- from runs to jobs


def stage_jobs(found: Iterable[tuple[Experiment, Sequence[Run]]]) -> list[Job]:
    """The jobs that make the runs of some experiments, and what measures them, each after those that it waits for."""
    cells: dict[tuple, list[Stage]] = {}  # of experiments that have a notebook of their own
    others: list[Stage] = []
    for one, runs in found:
        for run in runs:
            own = cells.setdefault((one.notebook, run.cell, run.stage.seed), []) if one.notebook else others
            own += [run.stage, *experiments.measures_of(run, one)]
    maker: dict[Path, tuple[Job, Stage]] = {}
    for (notebook, *_), stages in cells.items():  # which makes the variants' own inputs itself
        stages = list({stage.folder: stage for stage in stages}.values())
        one = stages[0]
        parameters = {"profile": one.profile_path, **{axis: getattr(one, axis) for axis in AXES}, "seed": one.seed}
        job = Job(notebook, parameters, stages[-1].folder.parent, stages)
        for stage in with_upstream(stages):
            if stage.variant:
                maker.setdefault(stage.folder, (job, stage))
    groups: dict[Any, list[Stage]] = {}
    for stage in with_upstream([*others, *(stage for stages in cells.values() for stage in stages)]):
        if stage.folder not in maker:
            groups.setdefault(_made_with(stage), []).append(stage)
    for stages in groups.values():
        job = _job_of(stages)
        for stage in job.stages:
            maker.setdefault(stage.folder, (job, stage))
    return _in_order(maker)


def _made_with(stage: Stage) -> Any:
    """What the stages of one job have in common: the first stage of a notebook, or the cell of evaluations."""
    if stage.name == "07_evaluate" and stage.method in TOGETHER and not stage.variant:
        return stage.cell_name, stage.seed
    return stage.together[0].folder


def _job_of(stages: list[Stage]) -> Job:
    """The job that makes a stage with those that belong together."""
    first = stages[0].together[0]
    if first.name != "07_evaluate":
        return Job(first.spec.notebook, first.parameters, first.folder.parent, first.together)
    stages = sorted(stages, key=lambda stage: METHODS.index(stage.method))
    parameters = first.parameters | {"methods": [stage.method for stage in stages]}
    return Job(first.name, parameters, stages[-1].folder.parent, stages)


def _in_order(maker: dict[Path, tuple[Job, Stage]]) -> list[Job]:
    """The jobs that make stages, each knowing and following those that it waits for."""
    jobs, makes = {}, {}
    for job, stage in maker.values():
        jobs[id(job)] = job
        makes.setdefault(id(job), list(job.stages)).append(stage)
    for key, job in jobs.items():
        wanted = [folder for stage in makes[key] for folder in (stage.folder, *_read_by(stage))]
        makers = (maker[folder][0] for folder in wanted if folder in maker)
        job.after = list({id(other): other for other in makers if other is not job}.values())
    return needed_first(jobs.values(), lambda job: job.after)


def _read_by(stage: Stage) -> list[Path]:
    """The folders of what a stage reads; the evaluation's notebook shows the agreement with the teacher's vote too."""
    found = [one.folder for one in stage.inputs.values()]
    votes = stage.name == "07_evaluate" and stage.teacher and stage.dataset_settings.own
    return [*found, stage.at("01_held_out").folder] if votes else found


# ---- a whole request


def study_jobs(
    profile: str | None, seeds: Sequence[int] | None, names: Sequence[str] | None = None, methods: Sequence[str] = ()
) -> list[Job]:
    """Every job of some experiments (`experiments.settled`), the notebooks of their tables and figures last.

    `methods`: of the main grid, beside those that the profile asks for.
    """
    path, found = experiments.settled(names, profile, seeds)
    experiments.require_methods(methods, found)
    each = [(one, experiments.runs(one, path, one.seeds, methods)) for one in found]
    jobs = stage_jobs(each)
    experiments.require_made_natively(found, every_stage(jobs))
    jobs += _drawing_jobs(path, each, jobs)
    _prioritise(jobs)
    return jobs


def exhibit_runs(
    exhibit: Exhibit, profile: str | None, seeds: Sequence[int] | None
) -> list[tuple[Experiment, list[Run]]]:
    """The runs that a table or figure depends on, by experiment; UserError where they are of several profiles."""
    path, found = experiments.settled(exhibit.experiments, profile, seeds)
    each = [(one, experiments.runs(one, path, one.seeds)) for one in found]
    if exhibit.last:
        cut = {"notebook": None, "measure": []}
        each = [(one.model_copy(update=cut), _up_to(runs, exhibit.last)) for one, runs in each]
    return each


def _up_to(runs: Iterable[Run], last: str) -> list[Run]:
    """Runs that end with the stages of this name that some runs read."""
    return [replace(run, stage=one) for run in runs for one in with_upstream([run.stage]) if one.name == last]


def exhibit_jobs(name: str, profile: str | None, seeds: Sequence[int] | None) -> list[Job]:
    """The jobs that a table or figure depends on, each after those that it waits for; UserError for no exhibit."""
    exhibit = gallery.find(name)
    return stage_jobs(exhibit_runs(exhibit, profile, seeds)) if exhibit.experiments else []


def _drawing_jobs(path: str, each: list[tuple[Experiment, list[Run]]], jobs: list[Job]) -> list[Job]:
    """The notebooks that draw what some experiments show.

    Notebook 12 draws a study with the ablations that its profile asks for, 13 the reviewers' questions where a study
    was run too. An experiment that neither shows has a notebook 14.
    """
    profile = load_profile(ROOT / path)
    folder = ROOT / profile.runs / profile.name
    found = {one.key: one for one, _ in each}
    drawn, closing = {name for name, one in found.items() if one.notebook}, []
    if {one.key for one in experiments.of_study(profile)} <= found.keys():
        study = [(one, runs) for one, runs in each if one.path == STUDY and one.group in ("study", "ablations")]
        seeds = found["main"].seeds
        closing.append(Job(FIGURES, {"profile": path, "seeds": seeds}, folder, [], _makers(study, jobs)))
        drawn |= {one.key for one, _ in study}
        questions = {name for name, one in experiments.load().items() if one.group == "questions"}
        for seed in seeds if questions <= found.keys() else ():
            place = experiments.ablation_cells(path, seed)[0].folder.parent
            before = [closing[0], *(job for job in jobs if job.stages[0].seed == seed)]
            closing.append(Job(QUESTIONS, {"profile": path, "seeds": [seed]}, place, [], before))
            drawn |= questions
    for one, runs in each:
        if one.key not in drawn and any(run.stage.name in REPORTED for run in runs):
            parameters = {"profile": path, "seeds": one.seeds, "experiment": one.key}
            closing.append(Job(EXPERIMENT, parameters, folder, [], _makers([(one, runs)], jobs)))
    return closing


def _makers(each: Iterable[tuple[Experiment, Sequence[Run]]], jobs: list[Job]) -> list[Job]:
    """The jobs that make what runs need."""
    last = [stage for one, runs in each for run in runs for stage in (run.stage, *experiments.measures_of(run, one))]
    folders = {stage.folder for stage in with_upstream(last)}
    return [job for job in jobs if folders & {stage.folder for stage in job.stages}]


def _prioritise(jobs: list[Job]) -> None:
    # A job's priority is the length of the longest chain that waits for it, so long chains start first.
    long = {"06_ppo", *(one.notebook for one in experiments.load().values() if one.notebook)}
    for job in reversed(jobs):
        for before in job.after:
            before.priority = max(before.priority, job.priority + (4 if job.notebook in long else 1))


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


def every_stage(jobs: Iterable[Job]) -> list[Stage]:
    """Every stage of some jobs, with what it reads, each once, inputs first."""
    return with_upstream(stage for job in jobs for stage in job.stages)


def stages_to_run(jobs: Iterable[Job]) -> list[Stage]:
    """Every stage that these jobs would compute, inputs first; those done are left out."""
    return [stage for stage in every_stage(jobs) if not stage.done]
