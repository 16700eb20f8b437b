"""A study's jobs, rerun only where stale; and the command that runs them, one at a time."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.profile import load_profile
from rdlib.study import dag, warm, workflow
from rdlib.study.jobs import drop_stale_markers, study_jobs


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


def test_a_changed_setting_drops_the_marker_of_what_reads_it(finished):
    root, jobs, runs = finished
    content = yaml.safe_load((root / PARAMS).read_text())
    content["ppo"]["kl_coef"] = 0.3
    (root / PARAMS).write_text(yaml.safe_dump(content))
    fresh = [job for job in study_jobs(PARAMS, [0]) if job.name in {other.name for other in jobs}]
    assert drop_stale_markers(fresh, runs) == len(fresh) - 1
    assert [job.notebook for job in fresh if not job.marker(runs).exists()] == ["06_ppo"]


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "absent.yaml"], "There is no profile"),
        (["--profile", PARAMS, "--jobs", "0"], "--jobs must be at least 1"),
        (["--profile", PARAMS, "--seeds", "-1"], "--seeds not below 0"),
        (["--profile", PARAMS, "--for", "table_4", "--methods", "sft"], "leave out --methods"),
        (["--profile", PARAMS, "--workflow-profile", "params/slrum"], "There is no workflow profile"),
    ],
)
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


def words_for(profile: str, workflow_profile: str | None = None, jobs: int = 2) -> list[str]:
    """Snakemake's call for a profile."""
    placement = workflow.WorkflowProfile.read(REPOSITORY / workflow_profile) if workflow_profile else None
    return workflow.command(Path("plan.json"), jobs, load_profile(REPOSITORY / profile), placement)


def test_snakemake_gets_its_cores_and_the_jobs_asked_for(tmp_path):
    words = words_for("params/micro.yaml", jobs=3)
    assert words[words.index("--cores") + 1] == "3" and "--keep-going" in words
    assert words[words.index("--config") + 1] == "plan=plan.json"
    assert not {"--resources", "--workflow-profile"} & set(words)
    jobs = study_jobs("params/micro.yaml", [0], ["lambda"])
    plan = json.loads(workflow.planned(jobs, tmp_path).read_text())
    made = [one["marker"] for one in plan]
    assert [one["name"] for one in plan] == [job.name for job in jobs] and len(set(made)) == len(made)
    assert all(set(one["after"]) <= set(made[:place]) for place, one in enumerate(plan))


def test_gpus_are_shared_on_one_machine_and_asked_for_on_a_cluster():
    """On one machine a job that samples or trains holds all GPUs; on a cluster the scheduler counts them."""
    assert "gpu=4" in words_for("params/paper.yaml")
    there = words_for("params/paper.yaml", "params/slurm")
    assert there[there.index("--workflow-profile") + 1] == str(REPOSITORY / "params/slurm") and "gpu=4" not in there
    assert "--cores" not in there, "it would hold the cluster to as many jobs as this machine has cores"
    wanted = {job.notebook: job.gpus for job in study_jobs("params/paper.yaml", [0]) if job.stages}
    assert wanted["00_data"] == wanted["02_pseudo_labels"] == 0
    assert {wanted[name] for name in ("01_teacher_responses", "03_sft_warmup", "06_ppo", "07_evaluate")} == {4}
    assert not any(job.gpus for job in study_jobs("params/micro.yaml", [0]) if job.stages)
