"""A study's jobs, which make every stage once and rerun only what is stale; and the command that runs them."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY, copy_study, make_root, patch_root

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.profile import load_profile
from rdlib.study import dag, experiments, warm, workflow
from rdlib.study.execute import check_parameters
from rdlib.study.jobs import DRAWING, EXPERIMENT, FIGURES, QUESTIONS, drop_stale_markers, study_jobs
from rdlib.study.specification import STAGES
from rdlib.study.stage import open_stage

# Requests: what the profile asks for, all that there is, parts that share stages, and an experiment of a user's own
REQUESTS = {
    "study": None,
    "everything": ["study", "ablations", "questions"],
    "parts": ["R2", "R5", "correctness", "same_rate", "13.yaml"],
    "own": ["13.yaml"],
}
OWN = """
experiments:
  mine:
    title: Which?
    cells: [gsm/strong/small, gsm/strong/large]
    last: 13_baseline
    measure: [13_validation_answers, 13_validation_answers of ours_wo_r]
    arms:
      "a rate of 1/1000": {method: dpo, settings: {baselines.dpo_learning_rate: 0.001}}
      Ours: {method: ours, last: 06_ppo, settings: {reward.mismatch: minus}}
"""
VARIANTS = "08_ablation_lambda 09_ablation_data_ratio 10_ablation_reward_source 11_ablation_correctness".split()


@pytest.fixture(scope="module", params=REQUESTS)
def jobs(request, tmp_path_factory):
    """(jobs, root, runs) of a request on the tiny profile with two seeds."""
    root = make_root(tmp_path_factory.mktemp("dag"), sft={"learning_rate_of_warmup": 0.002})
    (root / "13.yaml").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch_root(patch, root)
        names = REQUESTS[request.param]
        path, found = experiments.settled(names, PARAMS, [0, 1])
        each = [(one, run) for one in found for run in experiments.runs(one, path, one.seeds)]
        return study_jobs(PARAMS, [0, 1], names), root, each


def test_every_stage_that_the_runs_read_is_made_by_one_job(jobs):
    made, _, each = jobs
    wanted = [one for experiment, run in each for one in (run.stage, *experiments.measures_of(run, experiment))]
    plain = [job for job in made if job.notebook not in VARIANTS]
    makers = Counter(stage.folder for job in plain for stage in job.stages)
    assert set(makers.values()) == {1}
    own = {stage.folder for job in made for stage in job.stages}
    for stage in experiments.with_upstream(wanted):
        assert stage.folder in own or stage.variant and any(job.notebook in VARIANTS for job in made), stage.label


def test_names_are_unique_and_are_file_names(jobs):
    made, root, _ = jobs
    names = [job.name for job in made]
    assert len(set(names)) == len(names) and max(map(len, names)) < 160
    assert not [name for name in names if set("/{\n:") & set(name)]
    assert len({job.executed for job in made}) == len(made), "two jobs would write the same executed notebook"


def test_a_job_waits_for_those_that_make_what_it_reads(jobs):
    """An ablation's notebook makes the variants that only it reads itself; what another job reads of them waits too."""
    made, _, _ = jobs
    place = {id(job): i for i, job in enumerate(made)}
    maker = {stage.folder: job for job in reversed(made) for stage in job.stages}
    for job in made:
        assert all(place[id(other)] < place[id(job)] and other.priority > job.priority for other in job.after)
        for stage in job.stages:
            for one in stage.inputs.values():
                other = maker.get(one.folder)
                by_notebook = one.variant and any(near.notebook in VARIANTS for near in (job, *job.after))
                assert other is job or other in job.after or by_notebook, (job.name, one.label)


def test_no_two_jobs_make_one_variant_at_once(jobs):
    """A variant of an ablation that a question asks for too comes from the ablation's notebook."""
    made, _, _ = jobs
    for job in (job for job in made if job.notebook in VARIANTS):
        own = {one.folder for stage in job.stages for one in (stage, *stage.upstream()) if one.variant}
        for other in made:
            assert other is job or not own & {stage.folder for stage in other.stages}, (job.name, other.name)


DRAWN = {
    "study": [FIGURES],
    "everything": [FIGURES, QUESTIONS, QUESTIONS],
    "parts": [EXPERIMENT] * 4,
    "own": [EXPERIMENT],
}


def test_the_notebooks_of_tables_and_figures_come_last(jobs, request):
    made, _, _ = jobs
    closing = DRAWN[request.node.callspec.params["jobs"]]
    assert [job.notebook for job in made if job.notebook in DRAWING] == closing
    assert [job.notebook for job in made][-len(closing) :] == closing
    for job in (job for job in made if job.notebook == FIGURES):
        before = {stage.folder for one in job.after for stage in one.stages}
        assert {stage.folder for one in made if one.notebook in VARIANTS for stage in one.stages} <= before


def test_the_study_has_the_jobs_that_it_had():
    """The names of the jobs of 1.0.0, which its documents and runs show."""
    names = [job.name for job in study_jobs("params/micro.yaml", [0])]
    assert len(names) == 95 and names[-1] == "12_paper_tables_and_figures-[0]-seedall"
    former = "00_data-gsm 01_teacher_responses-gsm-strong 03_sft_warmup-gsm-strong-small-ours_wo_r"
    former += " 06_ppo-mmlu-weak-large-ours_wo_d 07_evaluate-gsm-strong-small 07_evaluate-gsm-small-icl"
    assert {f"{name}-seed0" for name in f"{former} 08_ablation_lambda-gsm-strong-small".split()} <= set(names)


def test_every_command_is_accepted_by_its_notebook_and_opens_its_stage(jobs, at_root):
    made, root, _ = jobs
    at_root(root)
    for job in made:
        words = shlex.split(job.command)
        assert words[:4] == [sys.executable, "-m", "rdlib", "execute"]
        assert Path(words[4]).name == f"{job.notebook}.ipynb" and words[5] == str(job.executed)
        parameters = json.loads(words[6])
        assert parameters == job.parameters
        check_parameters(REPOSITORY / "notebooks" / f"{job.notebook}.ipynb", parameters)
        name = parameters.get("stage_name", job.notebook)
        if name in STAGES and "methods" not in parameters:
            assert open_stage(name, parameters).folder == job.stages[0].folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("dag"))


# ---- what is done


@pytest.fixture
def finished(study, tmp_path, at_root):
    """(root, jobs, runs) of a copy of the finished study; the jobs of its finished cell, all with markers."""
    root = at_root(copy_study(study, tmp_path))
    jobs = [job for job in study_jobs(PARAMS, [0]) if job.stages and all(stage.done for stage in job.stages)]
    runs = root / "runs/tiny"
    (runs / ".jobs").mkdir()
    for job in jobs:
        job.marker(runs).touch()
    return root, jobs, runs


def lose_marker(root, job, runs):
    job.marker(runs).unlink()


def lose_stage(root, job, runs):
    shutil.rmtree(job.stages[0].folder)


@pytest.mark.parametrize("lose", [lose_marker, lose_stage])
def test_what_is_gone_is_made_again_with_all_that_comes_after_it(finished, lose):
    root, jobs, runs = finished
    assert drop_stale_markers(jobs, runs) == len(jobs) >= 7
    lose(root, next(job for job in jobs if job.notebook == "02_pseudo_labels"), runs)
    again = {"02_pseudo_labels", "03_sft_warmup", "04_student_responses", "05_reward_model", "06_ppo"}
    left = [job for job in jobs if job.notebook not in again]
    assert drop_stale_markers(jobs, runs) == len(left) < len(jobs)


def test_a_second_study_starts_no_snakemake(finished, monkeypatch, capsys):
    _, jobs, _ = finished
    monkeypatch.setattr(dag, "study_jobs", lambda *_: jobs)
    monkeypatch.setattr(workflow, "follow", lambda *_: pytest.fail("it wanted to run something"))
    assert main(["study", "--profile", PARAMS]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_finding_out_what_is_done_takes_seconds(tmp_path, at_root):
    """The keys of all stages of the micro study, as a second `make study` computes them."""
    shutil.copy(REPOSITORY / "params/micro.yaml", at_root(tmp_path))
    started = time.perf_counter()
    stages = [stage for job in study_jobs("micro.yaml", [0]) for stage in job.stages]
    assert not any(stage.done for stage in stages) and all(stage.recipe for stage in stages)
    assert time.perf_counter() - started < 5.0


# ---- what can go wrong


def test_two_studies_of_one_profile_do_not_run_at_once(finished, capsys):
    with artifacts.locked(finished[2], ""):
        assert main(["study", "--profile", PARAMS]) == 2
    assert "Another run is at work in runs/tiny: wait for it or stop it." in capsys.readouterr().err


def test_what_a_killed_study_leaves_running_holds_the_lock(tmp_path):
    """The lock's file is open in Snakemake as well: flock is given up when the last holder has ended."""
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = f"import os; print(os.fstat({lock.fileno()}).st_ino)"
        assert workflow.follow([sys.executable, "-c", child], [], 0, tmp_path, {}, lock.fileno(), None) == []
        assert (tmp_path / "snakemake.log").read_text().strip() == str((tmp_path / ".lock").stat().st_ino)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--profile", "absent.yaml"], "There is no profile"),
    (["--profile", PARAMS, "--jobs", "0"], "--jobs must be at least 1"),
    (["--profile", PARAMS, "--seeds", "-1"], "--seeds not below 0"),
    (["--profile", PARAMS, "--for", "table_4", "--methods", "sft"], "leave out --methods"),
    (["--profile", PARAMS, "--questions"], "--questions is gone: give --experiments study ablations questions."),
    (["--profile", PARAMS, "--workflow-profile", "params/slrum"], "There is no workflow profile"),
])  # fmt: skip
def test_bad_arguments_end_the_command_in_a_sentence(tmp_path, at_root, capsys, monkeypatch, arguments, sentence):
    at_root(make_root(tmp_path))
    monkeypatch.setattr(workflow, "follow", lambda *_: pytest.fail("it started the study"))
    assert main(["study", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_failed_jobs_are_named_with_their_reason_and_the_command_ends_with_1(root, at_root, monkeypatch, capsys):
    at_root(root)
    job = next(job for job in study_jobs(PARAMS, [0]) if job.notebook == "06_ppo")
    job.executed.parent.mkdir(parents=True, exist_ok=True)
    job.executed.with_suffix(".error").write_text("PPO stopped in update 3: the loss is NaN.\n")
    monkeypatch.setattr(workflow, "follow", lambda *_: [workflow.Failure(job)])
    monkeypatch.setattr(warm.sys, "platform", "none")  # where no server is started
    assert main(["study", "--profile", PARAMS]) == 1
    error = capsys.readouterr().err
    assert f"FAILED {job.name}: PPO stopped in update 3: the loss is NaN.\n  see runs/tiny/" in error
    assert "What was finished is kept" in error


# ---- what Snakemake is given


def words_for(profile: str, workflow_profile: str | None = None) -> list[str]:
    """Snakemake's call for a profile, three jobs at a time."""
    placement = workflow.WorkflowProfile.read(REPOSITORY / workflow_profile) if workflow_profile else None
    return workflow.command(Path("plan.json"), 3, load_profile(REPOSITORY / profile), placement)


def test_gpus_are_shared_on_one_machine_and_asked_for_on_a_cluster():
    """On one machine a job that samples or trains holds all GPUs; on a cluster the scheduler counts them."""
    here = words_for("params/micro.yaml")
    assert here[here.index("--cores") + 1] == "3" and not {"--resources", "--workflow-profile"} & set(here)
    assert "gpu=4" in words_for("params/paper.yaml")
    there = words_for("params/paper.yaml", "params/slurm")
    assert there[there.index("--workflow-profile") + 1] == str(REPOSITORY / "params/slurm") and "gpu=4" not in there
    assert "--cores" not in there, "it would hold the cluster to as many jobs as this machine has cores"
    wanted = {job.notebook: job.gpus for job in study_jobs("params/paper.yaml", [0]) if job.stages}
    assert wanted["00_data"] == wanted["02_pseudo_labels"] == 0
    assert {wanted[name] for name in ("01_teacher_responses", "03_sft_warmup", "06_ppo", "07_evaluate")} == {4}
    assert not any(job.gpus for job in study_jobs("params/micro.yaml", [0]) if job.stages)
