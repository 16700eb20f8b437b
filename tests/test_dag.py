"""The job list: complete, ordered, uniquely named, runnable by its notebooks, and rerun only where stale."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root, patch_root, tiny_settings

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.study import dag, failures
from rdlib.study.execute import check_parameters
from rdlib.study.jobs import ABLATIONS, drop_stale_markers, study_jobs
from rdlib.study.opening import make_stage


def closure(stage) -> set[Path]:
    """The folders of a stage and of everything before it."""
    return {stage.folder}.union(*(closure(upstream) for upstream in stage.inputs.values()))


def grid_folders(seed: int) -> set[Path]:
    """What the issue's grid needs: every evaluation, every judgement, and all that comes before them."""
    folders = set()
    for dataset in ("gsm", "mmlu"):
        cells = [{"teacher": t, "student": s} for t in ("strong", "weak") for s in ("large", "small")]
        wanted = [(c, m) for c in cells for m in ("sft", "ours_wo_r", "ours_wo_d", "ours")]
        wanted += [({"teacher": t}, "teacher") for t in ("strong", "weak")]
        wanted += [({"student": s}, "icl") for s in ("large", "small")]
        for axes, method in wanted:
            folders |= closure(make_stage("07_evaluate", PARAMS, seed=seed, dataset=dataset, method=method, **axes))
        for teacher in ("strong", "weak"):
            folders |= closure(make_stage("02_judgement", PARAMS, seed=seed, dataset=dataset, teacher=teacher))
    return folders


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """(jobs, root) of the tiny profile's study with two seeds."""
    root = make_root(tmp_path_factory.mktemp("dag"))
    with pytest.MonkeyPatch.context() as patch:
        patch_root(patch, root)
        made = study_jobs(PARAMS, [0, 1])
        grid = {folder for seed in (0, 1) for folder in grid_folders(seed)}
        return made, root, grid


def asked(profile: str, **options) -> argparse.Namespace:
    """The command line's arguments, those not given at their defaults."""
    given = {
        "profile": profile,
        "jobs": 2,
        "seeds": None,
        "questions": False,
        "exhibit": None,
        "workflow_profile": None,
        "methods": None,
        "ablations": None,
    }
    return argparse.Namespace(**given | options)


def test_the_jobs_make_every_stage_of_the_grid(jobs):
    made, _, grid = jobs
    stages = {stage.folder for job in made for stage in job.stages}
    assert grid <= stages


def test_the_ablations_add_their_variants(jobs):
    made, _, grid = jobs
    variants = {(s.name, s.variant) for job in made for s in job.stages if s.folder not in grid}
    expected = {("05_reward_model", f"reward_model.lam={v}") for v in (0.0, 1.0)}
    expected |= {("05_reward_model", f"reward_model.teacher_share={v}") for v in (0.25, 0.75)}
    expected |= {("07_evaluate", "reward_model.source=teacher"), ("07_evaluate", "reward.mismatch=minus")}
    assert variants == expected


def test_names_are_unique_and_are_file_names(jobs):
    made, root, _ = jobs
    names = [job.name for job in made]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name or "{" in name or "\n" in name]
    assert len({job.executed for job in made}) == len(made), "two jobs would write the same executed notebook"


def test_the_study_has_a_job_for_each_notebook(jobs):
    made, _, _ = jobs
    notebooks = {path.stem for path in (REPOSITORY / "notebooks").glob("[01]*.ipynb")}
    assert {job.notebook for job in made} == {name for name in notebooks if not name.startswith("13")}
    assert made[-1].notebook == "12_paper_tables_and_figures"
    assert set(map(id, made[-1].after)) == set(map(id, made[:-1]))


def test_edges_follow_the_inputs(jobs):
    """Whatever a job's stages read is made by a job before it, by itself, or by its own notebook's inputs."""
    made, _, _ = jobs
    makers = {}
    for job in made:
        for stage in job.stages:
            makers.setdefault(stage.folder, job)

    def before(job, seen):
        for other in job.after:
            if id(other) not in seen:
                seen[id(other)] = other
                before(other, seen)
        return seen

    for job in made:
        available = {stage.folder for other in before(job, {}).values() for stage in other.stages}
        available |= {stage.folder for stage in job.stages}
        for stage in job.stages:
            for upstream in stage.inputs.values():
                # An ablation's notebook runs the variant's own chain itself (run_with_inputs)
                assert upstream.folder in available or (job.notebook in ABLATIONS and upstream.variant), stage.label
        for other in job.after:
            assert other in made


def test_the_jobs_are_in_an_order_in_which_they_can_run(jobs):
    made, _, _ = jobs
    place = {id(job): i for i, job in enumerate(made)}
    assert all(place[id(other)] < place[id(job)] for job in made for other in job.after)


def test_long_chains_start_first(jobs):
    made, _, _ = jobs
    assert all(other.priority > job.priority for job in made for other in job.after)


def test_every_command_is_accepted_by_its_notebook(jobs):
    made, root, _ = jobs
    for job in made:
        words = shlex.split(job.command)
        assert words[:4] == [sys.executable, "-m", "rdlib", "warm"]
        assert Path(words[4]).name == f"{job.notebook}.ipynb" and words[5] == str(job.executed)
        parameters = json.loads(words[6])
        assert parameters == job.parameters
        check_parameters(REPOSITORY / "notebooks" / f"{job.notebook}.ipynb", parameters)


def test_every_stage_job_opens_the_stage_that_it_is_for(jobs, at_root):
    from rdlib.study.opening import open_stage
    from rdlib.study.specification import STAGES

    made, root, _ = jobs
    at_root(root)
    for job in made:
        if job.notebook in STAGES and "methods" not in job.parameters:
            assert open_stage(job.notebook, dict(job.parameters)).folder == job.stages[0].folder


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
    assert dag.run_study(asked(PARAMS)) == 0
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
            dag.run_study(asked(PARAMS))


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
