"""The job list: complete, ordered, uniquely named, runnable by its notebooks, and rerun only where stale."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root, patch_root, tiny_settings

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.study import dag, experiments, failures
from rdlib.study.execute import check_parameters
from rdlib.study.jobs import DRAWING, EXPERIMENT, FIGURES, QUESTIONS, drop_stale_markers, study_jobs
from rdlib.study.opening import make_stage, open_stage
from rdlib.study.specification import STAGES

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


def asked(profile: str, **options) -> argparse.Namespace:
    """The command line's arguments, those not given at their defaults."""
    given = {"profile": profile, "jobs": 2, "seeds": None, "exhibit": None, "workflow_profile": None}
    return argparse.Namespace(**given | {"experiments": None, "methods": None} | options)


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


def test_the_notebooks_of_tables_and_figures_come_last(jobs, request):
    made, _, _ = jobs
    closing = [job.notebook for job in made if job.notebook in DRAWING]
    assert closing == [job.notebook for job in made][-len(closing) :]
    assert (
        closing
        == {
            "study": [FIGURES],
            "everything": [FIGURES, QUESTIONS, QUESTIONS],
            "parts": [EXPERIMENT] * 4,
            "own": [EXPERIMENT],
        }[request.node.callspec.params["jobs"]]
    )
    for job in made:
        assert job.notebook != EXPERIMENT or all(one.stages for one in job.after) and job.after
    if FIGURES in closing:
        study = {stage.folder for job in made if job.notebook == FIGURES for one in job.after for stage in one.stages}
        assert all(stage.folder in study for stage in results_of(made))


def results_of(made) -> list:
    """The evaluations of the grid and the ablations' last stages."""
    return [stage for job in made if job.notebook in (*VARIANTS,) for stage in job.stages]


def test_the_study_has_the_jobs_that_it_had():
    """The names of the jobs of 1.0.0, which its documents and runs show."""
    names = [job.name for job in study_jobs("params/micro.yaml", [0])]
    assert len(names) == 95 and names[-1] == "12_paper_tables_and_figures-[0]-seedall"
    assert {
        "00_data-gsm-seed0",
        "01_teacher_responses-gsm-strong-seed0",
        "03_sft_warmup-gsm-strong-small-ours_wo_r-seed0",
        "06_ppo-mmlu-weak-large-ours_wo_d-seed0",
        "07_evaluate-gsm-strong-small-seed0",
        "07_evaluate-gsm-small-icl-seed0",
        "08_ablation_lambda-gsm-strong-small-seed0",
    } <= set(names)


def test_every_command_is_accepted_by_its_notebook_and_opens_its_stage(jobs, at_root):
    made, root, _ = jobs
    at_root(root)
    for job in made:
        words = shlex.split(job.command)
        assert words[:4] == [sys.executable, "-m", "rdlib", "warm"]
        assert Path(words[4]).name == f"{job.notebook}.ipynb" and words[5] == str(job.executed)
        parameters = json.loads(words[6])
        assert parameters == job.parameters
        check_parameters(REPOSITORY / "notebooks" / f"{job.notebook}.ipynb", parameters)
        name = parameters.get("stage_name", job.notebook)
        if name in STAGES and "methods" not in parameters:
            assert open_stage(name, parameters).folder == job.stages[0].folder


# ---- markers


@pytest.fixture
def finished(study, tmp_path, at_root):
    """(root, jobs, runs) of a copy of the finished study; the jobs of its finished cell, all with markers."""
    root = at_root(copy_study(study, tmp_path))
    jobs = [job for job in study_jobs(PARAMS, [0]) if job.stages and all(s.done for s in job.stages)]
    runs = root / "runs/tiny"
    (runs / ".jobs").mkdir()
    for job in jobs:
        job.marker(runs).touch()
    return root, jobs, runs


def and_after(job, jobs) -> set[str]:
    """The names of a job and of all that come after it."""
    names = {job.name}
    for other in jobs:  # in an order in which they can run
        if any(before.name in names for before in other.after):
            names.add(other.name)
    return names


def test_a_finished_study_has_nothing_to_do(finished):
    root, jobs, runs = finished
    assert len(jobs) >= 7
    assert drop_stale_markers(jobs, runs) == len(jobs)


def test_a_changed_setting_drops_the_markers_of_what_depends_on_it(finished):
    root, jobs, runs = finished
    content = yaml.safe_load((root / PARAMS).read_text())
    content["ppo"]["kl_coef"] = 0.3
    (root / PARAMS).write_text(yaml.safe_dump(content))
    fresh = [job for job in study_jobs(PARAMS, [0]) if job.name in {j.name for j in jobs}]
    kept = drop_stale_markers(fresh, runs)
    dropped = {job.notebook for job in fresh if not job.marker(runs).exists()}
    assert dropped == {"06_ppo"}  # the evaluation of all four methods was not finished in this study
    assert kept == len(fresh) - 1


def test_a_deleted_stage_drops_its_marker(finished):
    import shutil

    root, jobs, runs = finished
    job = next(job for job in jobs if job.notebook == "02_pseudo_labels")
    shutil.rmtree(job.stages[0].folder)
    again = and_after(job, jobs)
    assert 1 < len(again) < len(jobs)
    assert drop_stale_markers(jobs, runs) == len(jobs) - len(again)
    assert not job.marker(runs).exists()


def test_a_marker_that_is_not_there_is_not_done(finished):
    root, jobs, runs = finished
    jobs[-1].marker(runs).unlink()
    assert drop_stale_markers(jobs, runs) == len(jobs) - len(and_after(jobs[-1], jobs))


def test_a_second_study_starts_no_snakemake(finished, monkeypatch, capsys):
    root, jobs, runs = finished
    monkeypatch.setattr(dag, "study_jobs", lambda *a: jobs)
    monkeypatch.setattr(dag, "snakemake_command", lambda *a: pytest.fail("it wanted to run something"))
    assert main(["study", "--profile", PARAMS]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_finding_nothing_to_do_takes_seconds(tmp_path, at_root):
    """The keys of all stages of the micro study, as a second `make study` computes them."""
    import time

    (tmp_path / "micro.yaml").write_text((REPOSITORY / "params/micro.yaml").read_text())
    at_root(tmp_path)
    started = time.perf_counter()
    for job in study_jobs("micro.yaml", [0]):
        for stage in job.stages:
            assert not stage.done and stage.recipe
    assert time.perf_counter() - started < 5.0


# ---- what can go wrong


def test_two_studies_of_one_profile_do_not_run_at_once(finished):
    import fcntl

    root, jobs, runs = finished
    with (runs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another run is at work in runs/tiny"):
            dag.run_study(asked(PARAMS, seeds=[0]))


def test_what_a_killed_study_leaves_running_holds_the_lock(tmp_path):
    """The lock's file is open in Snakemake as well: flock is given up when the last holder has ended."""
    import fcntl

    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = f"import os; print(os.fstat({lock.fileno()}).st_ino)"
        assert dag._follow([sys.executable, "-c", child], [], 0, tmp_path, {}, lock.fileno()) == []
        assert (tmp_path / "snakemake.log").read_text().strip() == str((tmp_path / ".lock").stat().st_ino)


def test_a_bad_profile_ends_the_command_with_a_sentence(tmp_path, at_root, capsys):
    at_root(tmp_path)
    assert main(["study", "--profile", "absent.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: There is no profile")


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--jobs", "-1"], ["--seeds", "-1"], ["--jobs", "two"]])
def test_bad_arguments_end_the_command_with_a_sentence(tmp_path, at_root, capsys, monkeypatch, arguments):
    at_root(make_root(tmp_path))
    monkeypatch.setattr(dag, "_follow", lambda *a: pytest.fail("it started the study"))
    try:
        code = main(["study", "--profile", PARAMS, *arguments])
    except SystemExit as end:  # argparse
        code = end.code
    assert code not in (0, None)
    assert "Traceback" not in (error := capsys.readouterr().err) and "error: " in error


def test_failed_jobs_are_named_with_their_reason(jobs, capsys):
    made, _, _ = jobs
    job = next(job for job in made if job.notebook == "06_ppo")
    job.executed.parent.mkdir(parents=True, exist_ok=True)
    job.executed.with_suffix(".error").write_text("PPO stopped in update 3: the loss is NaN.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dag, "ROOT", jobs[1])
        assert dag._report_failures([failures.Failure(job)]) == 1
    error = capsys.readouterr().err
    assert job.name in error and "PPO stopped in update 3" in error and "Traceback" not in error


def test_snakemake_gets_its_cores_and_seeds():
    words = dag.snakemake_command(asked("params/micro.yaml"), [0, 1])
    assert words[words.index("--cores") + 1] == "2"
    assert "seeds=[0, 1]" in words and "profile=params/micro.yaml" in words
    assert "--resources" not in words and "--workflow-profile" not in words
    assert not [word for word in words if word.startswith(("methods", "experiments"))]
    words = dag.snakemake_command(asked("params/micro.yaml", methods=["sft"], experiments=["study", "lambda"]), [0])
    assert 'methods=["sft"]' in words and 'experiments=["study", "lambda"]' in words


def test_gpus_are_shared_on_one_machine_and_asked_for_on_a_cluster():
    """On one machine a job that samples or trains holds all GPUs; on a cluster the scheduler counts them."""
    here = asked("params/paper.yaml")
    assert "gpu=4" in dag.snakemake_command(here, [0])
    there = asked("params/paper.yaml", workflow_profile="params/slurm")
    words = dag.snakemake_command(there, [0])
    assert words[words.index("--workflow-profile") + 1] == str(REPOSITORY / "params/slurm") and "gpu=4" not in words
    assert "--cores" not in words, "it would hold the cluster to as many jobs as this machine has cores"
    wanted = {job.notebook: job.gpus for job in study_jobs("params/paper.yaml", [0]) if job.stages}
    assert wanted["00_data"] == wanted["02_pseudo_labels"] == 0
    assert {wanted[n] for n in ("01_teacher_responses", "03_sft_warmup", "06_ppo", "07_evaluate")} == {4}
    assert not any(job.gpus for job in study_jobs("params/micro.yaml", [0]) if job.stages)
    assert "--keep-going" in words


def test_ablations_of_another_cell_are_not_run_there():
    assert tiny_settings()["grid"]["ablation_cells"] == [{"dataset": "gsm", "teacher": "strong", "student": "small"}]
    assert make_stage("00_data", "params/smoke.yaml", dataset="gsm").root == REPOSITORY
