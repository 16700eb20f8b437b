"""A part of a study: what own questions need alone, what is added by name, and what is shown of it."""

from __future__ import annotations

import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root
from excerpts import own_questions
from test_own_study import own_root

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import gallery, health
from rdlib.evidence.result_tables import open_results
from rdlib.profile import load_profile
from rdlib.study import grid, jobs, retrain
from rdlib.study.grid import Named
from rdlib.tasks import data

NEEDED = (
    "00_data 01_teacher_responses 02_pseudo_labels 03_sft_warmup 04_student_responses 05_reward_model 06_ppo".split()
)
BASELINES, ABLATIONS = ["sft", "ours_wo_d"], ["lambda", "data_ratio", "reward_source", "correctness"]


@pytest.fixture
def own(tmp_path, at_root):
    """A root whose profile is of own questions without answers, as an older copy: it names no methods."""
    smoke = load_profile(REPOSITORY / "params/smoke.yaml").datasets["gsm"]
    problems = [problem for *_, problem in data.micro_problems("gsm", smoke)][:32]
    return at_root(own_root(tmp_path / "own", problems, "http://127.0.0.1:9/v1"))


def with_grid(root, **changes) -> None:
    content = yaml.safe_load((root / PARAMS).read_text())
    content["grid"] |= changes
    (root / PARAMS).write_text(yaml.safe_dump(content))


def made(more: Named = grid.NOTHING) -> list[jobs.Job]:
    return jobs.study_jobs(PARAMS, [0], more=more)


def test_own_questions_train_one_reward_model_and_one_policy(own):
    found = made()
    stages = [(stage.name, stage.method, stage.variant) for job in found for stage in job.stages]
    assert [stage for stage in stages if stage[0] in ("03_sft_warmup", "05_reward_model", "06_ppo")] == [
        *(("03_sft_warmup", "ours_wo_r", ""), ("05_reward_model", "ours", ""), ("06_ppo", "ours", ""))
    ]
    evaluated = {method for name, method, _ in stages if name == "07_evaluate"}
    assert evaluated == {"teacher", "icl", "ours_wo_r", "ours"}
    assert [job.notebook for job in found if job.notebook in NEEDED] == NEEDED
    assert len(found) == 11 and found[-1].notebook == "12_paper_tables_and_figures"


def test_what_is_asked_for_by_name_is_added_and_nothing_else(own):
    base = {stage.folder for job in made() for stage in job.stages}
    more = made(Named(("ours_wo_d",), ("lambda",)))
    added = {(s.name, s.method, s.variant) for job in more for s in job.stages if s.folder not in base}
    chain = {(name, "ours_wo_d", "") for name in (*NEEDED[4:], "07_evaluate")}
    assert added == chain | {("05_reward_model", "ours", f"reward_model.lam={lam}") for lam in (0.0, 1.0)}
    assert base <= {stage.folder for job in more for stage in job.stages}
    names = [job.name for job in more]
    assert len(set(names)) == len(names) and {job.name for job in made()} <= set(names)


def test_the_profile_may_ask_for_a_part_or_for_all(own):
    with_grid(own, methods=["ours", "sft"], ablations=["correctness"])
    notebooks = [job.notebook for job in made()]
    assert notebooks.count("03_sft_warmup") == 2 and "11_ablation_correctness" in notebooks
    last = next(job for job in reversed(made()) if job.notebook == "07_evaluate")
    assert last.parameters["methods"] == ["sft", "ours"]  # the warm-up is trained, as Ours starts from it
    with_grid(own, methods=[*BASELINES, "ours_wo_r", "ours"], ablations=ABLATIONS)
    assert len(made()) == len(made(grid.EVERYTHING)) == 19


def test_a_benchmark_asks_for_everything_unless_told_otherwise(tmp_path, at_root):
    root = at_root(make_root(tmp_path))
    everything = [job.name for job in made()]
    assert everything == [job.name for job in made(grid.EVERYTHING)]
    with_grid(root, methods=["ours"], ablations=[])
    assert not {name for name in (job.name for job in made()) if "ablation" in name or "ours_wo_d" in name}
    assert len(made()) < len(everything)


def test_the_shipped_profile_names_what_an_older_copy_gets():
    profile = load_profile(REPOSITORY / "params/own_questions.yaml")
    (dataset,) = profile.datasets
    old = profile.model_copy(update={"grid": profile.grid.model_copy(update={"methods": None, "ablations": None})})
    for of in (grid.methods_of, grid.ablations_of):
        assert of(profile, dataset) == of(old, dataset)
    assert grid.named(profile, None, ABLATIONS).ablations == tuple(ABLATIONS)  # its grid has values to compare


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--methods", "grpo"], "There is no method 'grpo': --methods takes some of sft, ours_wo_r, ours_wo_d, ours."),
        (["--ablations", "lam"], "There is no ablation 'lam': --ablations takes some of lambda, data_ratio, "),
        (["--methods", "sft", "--for", "health"], "--for names all that it needs itself: leave out"),
    ],
)
def test_a_bad_name_is_one_sentence(own, capsys, words, expected):
    assert main(["study", "--profile", PARAMS, *words, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert expected in said and len(said.splitlines()) == 1


def test_an_ablation_of_one_value_is_refused(own, capsys):
    with_grid(own, lam=[0.5])
    assert main(["study", "--profile", PARAMS, "--ablations", "lambda", "--dry-run"]) == 2
    assert "The ablation lambda compares values of grid.lam, of which the profile tiny has one alone" in (
        capsys.readouterr().err
    )


def test_methods_without_ours_are_refused(own):
    with_grid(own, methods=["sft"])
    with pytest.raises(UserError, match="ours is missing, which every study trains"):
        load_profile(own / PARAMS)
    with_grid(own, methods=["ours", "grpo"])
    with pytest.raises(UserError, match=r"'grid.methods.1' \('grpo'\): Input should be 'sft', 'ours_wo_r'"):
        load_profile(own / PARAMS)


def test_the_dry_run_tells_what_a_name_adds(own, capsys):
    def runs(*words: str) -> dict[str, int]:
        assert main(["study", "--profile", PARAMS, "--dry-run", *words]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        return {line[0]: int(line[1]) for line in lines if line and line[0][:2].isdigit()}

    assert runs()["06_ppo"] == runs()["05_reward_model"] == 1
    more = runs("--methods", *BASELINES, "--ablations", "lambda", "reward_source")
    assert (more["06_ppo"], more["05_reward_model"], more["07_evaluate"]) == (3, 5, 7)


def test_an_exhibit_brings_the_runs_that_it_rests_on(own):
    found = retrain.jobs_behind("figure_5_lambda", PARAMS, [0])
    assert [job.notebook for job in found] == [*NEEDED[:6], "08_ablation_lambda"]
    assert not {job.notebook for job in retrain.jobs_behind("health", PARAMS, [0])} & set(jobs.ABLATIONS)


def test_what_was_once_asked_for_by_name_is_shown_while_it_is_up_to_date(study, tmp_path, at_root):
    """The cell of the shared study has SFT too, which this profile does not ask for."""
    root = at_root(copy_study(study, tmp_path))
    content = yaml.safe_load((root / PARAMS).read_text())
    content |= {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"methods": ["ours_wo_r", "ours"], "ablations": []}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    found = jobs.made_by_name(PARAMS, 0)
    assert found == Named(("sft",)) and found.options == " --methods sft"
    content["sft"]["batch_size"] *= 2
    (root / PARAMS).write_text(yaml.safe_dump(content))
    assert jobs.made_by_name(PARAMS, 0) == grid.NOTHING


# ---- what is shown


def test_the_health_of_own_questions(tmp_path):
    evidence = open_results(own_questions(tmp_path / "results"))
    (one,) = health.measured(evidence)
    assert one.cell == "mine/strong/small" and one.gold
    text = gallery.EXHIBITS["health"].note(evidence)
    assert text.startswith("**") and "answers grew short (from 60 to 20 tokens)" in text
