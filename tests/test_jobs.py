"""Jobs: every stage of some experiments made by one job, which waits for those that make what it reads."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY, make_root, patch_root

from rdlib.study import experiments
from rdlib.study.execute import check_parameters
from rdlib.study.jobs import DRAWING, EXPERIMENT, FIGURES, QUESTIONS, study_jobs
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
    for job in (job for job in made if job.notebook == FIGURES):
        assert {stage.folder for one in made if one.notebook in VARIANTS for stage in one.stages} <= {
            stage.folder for one in job.after for stage in one.stages
        }


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
        assert words[:4] == [sys.executable, "-m", "rdlib", "execute"]
        assert Path(words[4]).name == f"{job.notebook}.ipynb" and words[5] == str(job.executed)
        parameters = json.loads(words[6])
        assert parameters == job.parameters
        check_parameters(REPOSITORY / "notebooks" / f"{job.notebook}.ipynb", parameters)
        name = parameters.get("stage_name", job.notebook)
        if name in STAGES and "methods" not in parameters:
            assert open_stage(name, parameters).folder == job.stages[0].folder
