"""Experiments: what a file may say, what a command settles on, the runs of the study's own, and their reports."""

from __future__ import annotations

import os

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root, patch_root, stage_in
from test_own_study import own_root

from rdlib import artifacts, numerics
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import ledger, paper
from rdlib.evidence.result_tables import open_results
from rdlib.profile import load_profile
from rdlib.study import estimate, experiment_report, experiments, results, rows, workflow
from rdlib.study.experiments import named, runs, settled
from rdlib.study.jobs import study_jobs
from rdlib.study.specification import BASELINES
from rdlib.tasks import data

CELL = "gsm/strong/small"
FASTER = {"reward_model.learning_rate": 2e-3}


@pytest.fixture
def root(tmp_path, at_root):
    return at_root(make_root(tmp_path))


def written(root, _file: str = "mine.yaml", **experiment) -> str:
    """A file of one experiment of two arms in a root, `experiment` changed; returns what the command line calls it."""
    one = {"title": "Which?", "cells": [CELL], "last": "05_reward_model", "reference": "usual"}
    one |= {"arms": {"usual": {"method": "ours"}, "faster": {"method": "ours", "settings": FASTER}}} | experiment
    kept = {key: value for key, value in one.items() if value is not None}
    (root / _file).write_text(yaml.safe_dump({"profile": PARAMS, "experiments": {"two": kept}}, sort_keys=False))
    return _file


# ---- what is refused, in one sentence


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"arms": {}}, "bad entry experiments.two: give one of method, methods and arms"),
        ({"colour": 1}, "bad entry experiments.two.colour: Extra inputs"),
        ({"arms": {"usual": {"method": "our"}}}, "there is no method 'our': give one of teacher, "),
        ({"last": "05_reward"}, "there is no stage '05_reward': give one of 00_data, "),
        (
            {"last": "06_ppo", "arms": {"usual": {"method": "sft"}}},
            "'usual' is of method sft, which has no stage 06_ppo",
        ),
        ({"last": "02_judgement", "arms": {"usual": {"method": "icl"}}}, "method icl, which has no stage 02_judgement"),
        ({"measure": ["13_looks"]}, "there is no stage '13_looks'"),
        ({"reference": "usul"}, "no arm 'usul' to compare with: give one of usual, faster"),
        ({"cells": ["gsm/strong"]}, "names the cell 'gsm/strong': give dataset/teacher/student"),
        ({"cells": ["gsm/strong/tiny"]}, "names the cell 'gsm/strong/tiny'"),
        ({"settings": {"ppo.speed": 1}}, "names no setting"),
        ({"settings": {"reward.mismatch": "minus"}}, "'reward.mismatch' is not read by 05_reward_model"),
        ({"vary": {"reward_model.lam": "grid.lamda"}}, "names the setting 'grid.lamda', which the profile tiny does"),
        (
            {"vary": {"reward_model.lam": [0.5]}},
            "([0.5]), of which the profile tiny has one alone",
        ),
        ({"settings": {"sft.learning_rate": "sft.learning_rate_of_warmup"}}, "there is nothing to compare"),
        ({"seeds": [-1]}, "bad entry experiments.two.seeds.0"),
        ({"group": "trials", "seeds": [0, 5]}, "uses seed 0, which the profile tiny releases"),
        ({"notebook": "08_ablation_lambda"}, "names a notebook, which is for params/experiments.yaml"),
        ({"profile": "absent.yaml"}, "There is no profile"),
    ],
)
def test_a_bad_experiment_is_one_sentence_before_anything_runs(root, capsys, changes, problem):
    assert main(["study", "--experiments", written(root, **changes), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert problem in said and len(said.splitlines()) == 1, said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--experiments", "lamda"], "has no experiment 'lamda': did you mean 'lambda'?"),
        (["--experiments", "absent.yaml"], "absent.yaml cannot be read (No such file or directory)"),
        (["--experiments", "torn.yaml"], "torn.yaml are no YAML"),
        (["--experiments", "list.yaml"], "list.yaml has a bad entry the file"),
        (["--experiments", "latin.yaml"], "cannot be read (it is no text in UTF-8)"),
        (["--experiments", "mine.yaml:three"], "mine.yaml has no experiment 'three': it has two."),
        (["--experiments", "both.yaml"], "mine is an experiment and the group of second: rename one of them"),
        (
            ["--experiments", "main", "rounding"],
            "main` and `python -m rdlib study --profile params/rounding.yaml",
        ),
        (["--experiments", "rounding"], "rounding has the profile params/rounding.yaml for its own: leave --profile"),
        (["--experiments", "params/followups.yaml", "--seeds", "7"], "have no seed 7: give some of [100, 101]"),
        (["--experiments", "R1", "--methods", "sft"], "--methods adds to the main grid: give --experiments main too"),
        (["--methods", "grpo"], "There is no method 'grpo': --methods takes some of sft, ours_wo_r, ours_wo_d, ours."),
        (["--methods", "sft", "--for", "health"], "--for names all that it needs itself: leave out"),
        (["--for", "figure_rounding"], "These experiments are of several profiles"),
        (["--for", "figure_5"], "did you mean figure_5_lambda?"),
        (["--questions"], "--questions is gone: give --experiments study ablations questions."),
        (["--ablations", "lambda"], "--ablations is gone: give --experiments study and the ablations' names"),
    ],
)
def test_a_bad_request_is_one_sentence(root, capsys, words, problem):
    written(root)
    (root / "torn.yaml").write_text("experiments: {a")
    (root / "list.yaml").write_text("- a\n")
    (root / "latin.yaml").write_bytes("größer".encode("latin-1"))
    one = {"title": "Which?", "cells": [CELL], "methods": ["sft", "ours"]}
    both = {"mine": one | {"group": "other"}, "second": one | {"group": "mine"}}
    (root / "both.yaml").write_text(yaml.safe_dump({"experiments": both}))
    (root / "params").symlink_to(REPOSITORY / "params", target_is_directory=True)
    profile = [] if words[-1] == "rounding" and "main" in words else ["--profile", PARAMS]
    assert main(["study", *profile, "--dry-run", *words]) == 2
    said = capsys.readouterr().err
    assert problem in said and len(said.splitlines()) == 1, said


# ---- what a command settles on


def test_profile_and_seeds_are_the_commands_the_files_or_the_profiles(root):
    name = written(root, seeds=[3, 4])
    (root / "other.yaml").write_text(yaml.safe_dump({"base": PARAMS, "name": "other"}))
    path, (one,) = settled([name])
    assert (path, one.seeds) == (PARAMS, [3, 4])
    assert settled([name], "other.yaml", [4])[0] == "other.yaml" and settled([name], None, [4])[1][0].seeds == [4]
    assert [run.stage.seed for run in runs(settled([name], None, [4])[1][0], PARAMS, [0])] == [4, 4]
    path, found = settled(None, PARAMS)
    assert path == PARAMS and {one.name for one in found} >= {"main", "judgement", "lambda"} and found[0].seeds == [0]


def test_an_experiment_without_a_command_has_its_own_profile():
    assert settled(["rounding"])[0] == "params/rounding.yaml" and settled(["main"])[0] == "params/micro.yaml"
    path, found = settled(["params/followups.yaml:sft_rate"])
    assert path == "params/reference.yaml" and [one.seeds for one in found] == [[100, 101]]


def test_experiments_in_native_numerics_set_them_for_their_jobs(root, monkeypatch):
    """Whatever the environment says, and for them alone."""
    environment = dict.fromkeys((*numerics.MODE, "OMP_NUM_THREADS"), "1") | {numerics.SWITCH: numerics.PORTABLE}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    experiments.enter_numerics(named(["main"]))
    assert os.environ[numerics.SWITCH] == numerics.PORTABLE and "MKL_CBWR" in os.environ
    experiments.enter_numerics(named(["rounding"]))
    assert os.environ[numerics.SWITCH] == numerics.NATIVE and os.environ["OMP_NUM_THREADS"] == "1"
    assert not (numerics.MODE.keys() - numerics.THREADS.keys()) & os.environ.keys()


def test_a_stage_of_the_portable_mode_is_no_result_of_native_numerics(study, monkeypatch):
    patch_root(monkeypatch, study)
    stage = stage_in(study, "00_data")
    manifest = artifacts.read_manifest(stage.folder)
    manifest["environment"]["numerics"] = numerics.PORTABLE
    monkeypatch.setattr(artifacts, "read_manifest", lambda folder: manifest)
    experiments.require_made_natively(named(["main"]), [stage])
    with pytest.raises(UserError, match="00_data was made in the portable mode: remove it"):
        experiments.require_made_natively(named(["rounding"]), [stage])


def with_grid(root, **changes) -> None:
    content = yaml.safe_load((root / PARAMS).read_text())
    content["grid"] |= changes
    (root / PARAMS).write_text(yaml.safe_dump(content))


def asked_for() -> tuple[set[str], set[str]]:
    """The methods evaluated and the ablations run where nothing is asked for by name."""
    _, found = settled(None, PARAMS)
    methods = {run.stage.method for one in found if one.name == "main" for run in runs(one, PARAMS, [0])}
    return methods, {one.name for one in found if one.group == "ablations"}


def test_own_questions_train_one_student_unless_the_profile_asks_for_more(tmp_path, at_root):
    """Without answers, of an older profile, which names no methods."""
    smoke = load_profile(REPOSITORY / "params/smoke.yaml").datasets["gsm"]
    problems = [problem for *_, problem in data.micro_problems("gsm", smoke)][:32]
    own = at_root(own_root(tmp_path / "own", problems, "http://127.0.0.1:9/v1"))
    assert asked_for() == ({"teacher", "icl", "ours_wo_r", "ours"}, set())
    with_grid(own, methods=["ours", "sft"], ablations=["correctness"])
    assert asked_for() == ({"teacher", "icl", "sft", "ours"}, {"correctness"})
    for methods, problem in ((["sft"], "ours is missing"), (["ours", "grpo"], r"'grid.methods.1' \('grpo'\)")):
        with_grid(own, methods=methods)
        with pytest.raises(UserError, match=problem):
            load_profile(own / PARAMS)


def test_a_benchmark_asks_for_all_unless_the_profile_names_some(root):
    ablations = {"lambda", "data_ratio", "reward_source", "correctness"}
    assert asked_for() == (set(experiments.load()["main"].methods), ablations)
    with_grid(root, methods=["ours"], ablations=[])
    assert asked_for() == ({"teacher", "icl", "ours"}, set())


# ---- the study's own experiments


def test_the_reference_has_what_the_rule_chooses():
    """The highest mean over the cells of the best values; of equals the fewest steps."""
    known = experiments.load("params/trials.yaml")
    reference = load_profile(REPOSITORY / "params/reference.yaml").model_dump()
    results, tried = open_results(REPOSITORY / "figures/results"), {}
    for name, one in known.items():
        keys = {tuple(arm.settings) for arm in one.arms.values()}
        assert len(keys) == 1
        if len(one.arms) > 1 and not one.settings:  # of one, or of another reward, nothing is chosen
            table = results.rows("trainings", f"trials:{name}", by_run=True)
            (key,) = keys.pop()
            values = table["arm"].map({arm: given.settings[key] for arm, given in one.arms.items()})
            tried.setdefault(key, []).append(table.assign(value=values)[table["last"]])
    assert len(tried) == 7 + len(BASELINES)  # settings of SFT, warm-up, reward model and PPO; a rate of each baseline
    for key, tables in tried.items():
        found = pd.concat(tables).groupby("value").agg(best=("best", "mean"), steps=("steps", "mean"))
        first = found.sort_values(["best", "steps"], ascending=[False, True]).index[0]
        assert paper.lookup(reference, key) == first


# ---- what is shown of an experiment


@pytest.fixture
def finished(study, tmp_path, at_root):
    """A copy of the finished tiny study, as the repository of experiments."""
    return at_root(copy_study(study, tmp_path))


def report_of(root, **experiment) -> tuple[pd.DataFrame, list]:
    name = written(root, **experiment)
    one, found = experiment_report.finished(f"{name}:two", PARAMS, [0])
    table = experiment_report.report(one, found)
    *_, markdown, _, picture = experiment_report.save(one, table, root / "out")
    assert one.title in markdown.read_text() and picture.stat().st_size
    return table, found


def test_accuracies_and_paired_gains_of_a_users_experiment(finished):
    arms = {"usual": {"method": "ours"}, "warm-up": {"method": "ours_wo_r"}}
    table, found = report_of(finished, last="07_evaluate", arms=arms)
    rows = table.set_index(["measure", "arm"])
    answers = {run.arm: run.stage.table("answers") for run in found}
    for benchmark in ("gsm", "gsm_plus"):
        measure, means = f"accuracy on {benchmark} (%)", {}
        for arm, given in answers.items():
            means[arm] = 100 * given[given["benchmark"] == benchmark]["correct"].astype(float).mean()
            assert rows["value"][measure, arm] == pytest.approx(means[arm])
            assert rows["low"][measure, arm] < means[arm] < rows["high"][measure, arm] or means[arm] in (0, 100)
        assert rows["gain"][measure, "warm-up"] == pytest.approx(means["warm-up"] - means["usual"], abs=1e-4)
        assert pd.isna(rows["gain"][measure, "usual"])
    assert (rows["seeds"] == 1).all() and (finished / "out/experiment_two.csv").is_file()


def test_aucs_and_validation_values_of_a_users_experiment(finished):
    usual = {"usual": {"method": "ours"}}
    table, found = report_of(finished, arms=usual)
    summary = found[0].stage.json("summary")
    assert table.set_index("measure")["value"].to_dict() == pytest.approx(
        {"Pos/Neg AUC": summary["pos_neg_auc"], "Pos/Pos AUC": summary["pos_pos_auc"]}
    )
    arms = usual | {"warm-up": {"method": "ours_wo_r", "last": "03_sft_warmup"}}
    table, found = report_of(finished, last="06_ppo", arms=arms)
    ended = {run.arm: rows.ending(run.stage).iloc[0] for run in found}
    shown = table.set_index("arm")
    for arm, ending in ended.items():
        assert shown["value"][arm] == pytest.approx(100 * ending["best"])
        assert shown["best_step"][arm] == ending["best_step"]
    assert shown["gain"]["warm-up"] == pytest.approx(100 * (ended["warm-up"]["best"] - ended["usual"]["best"]))


def test_what_is_not_finished_or_has_no_measure_is_one_sentence(finished):
    with pytest.raises(UserError, match=r"learning_rate=0\.002 is missing or was made with other settings"):
        report_of(finished)
    with pytest.raises(UserError, match="mine.yaml:two ends with a stage that has no measure"):
        report_of(finished, last="02_judgement", arms={"usual": {"method": "ours"}})


def test_operations_by_hand(study):
    assert ledger.flops("01_teacher_responses", 10, 100, 0) == 2 * 10 * 100
    assert ledger.flops("03_sft_warmup", 10, 0, 100) == 6 * 10 * 100
    # sampling, and one pass each of policy, reference, value model and reward model; two networks trained
    assert ledger.flops("06_ppo", 10, 100, 200, 4 * 150) == 10 * (2 * 100 + 2 * 4 * 150 + 2 * 6 * 200)
    # the teacher reads what a student samples and trains on
    assert ledger.flops("13_baseline", 10, 100, 150, 20, 30) == 10 * (2 * 120 + 6 * 150) + 30 * 2 * 150
    assert ledger.parameters_of_reader(stage_in(study, "13_baseline", "grpo")) == 0
    teacher = ledger.parameters_of_reader(stage_in(study, "13_baseline", "distillation"))
    assert teacher == ledger.parameters_of(stage_in(study, "01_teacher_responses")) > 0


def test_ppos_curve_is_in_optimizer_steps(study):
    stage = stage_in(study, "06_ppo")
    found = rows.curve(stage)
    history = stage.jsonl("history").dropna(subset="validation_agreement")
    assert found["step"].tolist() == (4 * history["update"]).tolist()  # two epochs of two minibatches
    assert found["value"].tolist() == history["validation_agreement"].tolist()


def test_a_follow_up_is_measured_question_by_question(finished):
    measure = ["13_validation_answers", "13_validation_answers of ours_wo_r", "13_style", "13_judged_responses"]
    evidence, run = gathered(finished, last="06_ppo", measure=measure, arms={"usual": {"method": "ours"}})
    answers, ppo = evidence.rows("answers", "mine:two", split="validation"), run.stage
    agreement = ppo.jsonl("history")["validation_agreement"].dropna()
    means = answers.dropna(subset="agrees").groupby("moment")["agrees"].mean()
    assert means["kept"] == pytest.approx(ppo.json("summary")["validation_agreement"])
    assert means["start"] == pytest.approx(agreement.iloc[0])
    assert means["end"] == pytest.approx(agreement.iloc[-rows.LAST :].mean())
    assert means["warm-up"] == pytest.approx(ppo.at("03_sft_warmup", "ours_wo_r").json("summary")["best"])
    spent = evidence.rows("costs", "mine:two", stage="all").set_index("moment")["gflop"]
    assert spent["kept"] > spent["warm-up"] > 0
    ranked = evidence.rows("answers", "mine:two", split="best of n")
    assert {"reward", "any", "auc"} <= set(ranked["moment"]) and ranked["n"].max() == 6
    assert len(evidence.rows("scores", "mine:two", by_run=True, stage="13_style").dropna(subset="ratio"))
    curve = evidence.rows("curves", "mine:two", by_run=True, stage="06_ppo")
    assert set(curve["arm"]) == {"usual"} and curve["last"].all()


def test_an_experiment_of_trainings_is_tested_where_it_says_so(finished):
    arms = {"usual": {"method": "sft"}}
    evidence, _ = gathered(finished, last="03_sft_warmup", measure=["07_evaluate"], arms=arms)
    tested = evidence.rows("answers", "mine:two", split="test")
    expected = stage_in(finished, "07_evaluate", "sft").json("summary")["accuracy"]
    assert tested.groupby("benchmark")["correct"].mean().to_dict() == pytest.approx(expected)


def gathered(root, **experiment) -> tuple:
    """The evidence of an experiment of one run, whose measures are computed, and the run."""
    (one,) = named([written(root, **experiment)])
    (run,) = runs(one, PARAMS, [0])
    for stage in experiments.measures_of(run, one):
        stage.run_with_inputs()
    results.write(root / "tried/seed0", results.gather(PARAMS, 0, [(one, [run])]))
    return open_results(root / "tried"), run


def test_a_dry_run_tells_what_an_experiment_takes_and_starts_nothing(root, capsys, monkeypatch):
    monkeypatch.setattr(workflow, "follow", lambda *a: pytest.fail("it started something"))
    assert main(["study", "--experiments", written(root), "--dry-run"]) == 0
    lines = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines() if line[:2].isdigit()}
    assert lines["05_reward_model"] == "2" and lines["04_student_responses"] == "1" and "06_ppo" not in lines


def test_the_time_of_any_experiments_is_estimated_from_the_released_run():
    jobs = study_jobs("params/reference.yaml", [7], ["R3"])
    assert "notebooks" not in estimate.time_estimate(jobs)
    assert estimate.time_estimate(jobs).startswith("They take about ")
    jobs = study_jobs("params/smoke.yaml", [7], ["R3"])
    assert "no run of the profile smoke is released" in estimate.time_estimate(jobs)
