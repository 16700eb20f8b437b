"""Stages: names and places of variants, what a key depends on, and the parameters of a notebook."""

from __future__ import annotations

import re
import types
from dataclasses import replace

import pytest
from conftest import PARAMS, copy_study, identity, make_root, stage_in, tiny_settings

from rdlib.errors import UserError
from rdlib.study.experiments import variants
from rdlib.study.specification import STAGES
from rdlib.study.stage import Stage, make_stage, open_stage

AXES = {"dataset": "gsm", "teacher": "strong", "student": "small"}
OURS = (
    "00_data 00_gold 01_teacher_responses 02_pseudo_labels 02_judgement 03_sft_warmup 04_student_responses "
    "05_reward_model 06_ppo 07_evaluate"
).split()


@pytest.fixture
def root(tmp_path, at_root):
    return at_root(make_root(tmp_path))


def stages_of(last: Stage) -> list[Stage]:
    """The stages of OURS."""
    return [last.at(name, "ours_wo_r" if name == "03_sft_warmup" else None) for name in OURS]


def identities(root, overrides: dict | None = None) -> dict[str, tuple]:
    """What decides each stage of the cell, under overrides."""
    last = stage_in(root, "07_evaluate").with_overrides(overrides or {})
    return {stage.name: identity(stage) for stage in stages_of(last)}


# ---- where artifacts lie


def test_folders(root):
    runs = root / "runs/tiny/gsm"
    assert stage_in(root, "00_data").folder == runs / "seed0/00_data"
    assert stage_in(root, "01_teacher_responses").folder == runs / "strong/seed0/01_teacher_responses"
    assert stage_in(root, "06_ppo").folder == runs / "strong/small/ours/seed0/06_ppo"
    assert stage_in(root, "06_ppo", seed=3).folder == runs / "strong/small/ours/seed3/06_ppo"
    icl = stage_in(root, "07_evaluate", "icl", teacher=None)
    assert icl.folder == runs / "small/icl/seed0/07_evaluate"
    teacher = stage_in(root, "07_evaluate", "teacher", student=None)
    assert teacher.folder == runs / "strong/teacher/seed0/07_evaluate"
    assert teacher.label == "tiny/gsm/strong/teacher/seed0/07_evaluate"


def test_a_variant_is_in_the_name_of_every_stage_that_it_reaches(root):
    """Several are named in order."""
    last = stage_in(root, "07_evaluate").with_overrides({"reward_model.lam": 0.25, "voting.threshold": 0.7})
    names = {stage.name: stage.folder.name for stage in stages_of(last)}
    suffix = "@reward_model.lam=0.25"
    assert names == {n: n + suffix * (n in ("05_reward_model", "06_ppo", "07_evaluate")) for n in OURS}
    several = stage_in(root, "06_ppo").with_overrides({"reward.mismatch": "minus", "ppo.kl_coef": 0.1})
    assert several.folder.name == "06_ppo@ppo.kl_coef=0.1,reward.mismatch=minus"


@pytest.mark.parametrize("stop", [["a/../../b"], ["x" * 300]])
def test_a_variant_that_can_name_no_folder_is_named_by_its_hash(root, stop):
    stage, other = (stage_in(root, "06_ppo").with_overrides({"generation.stop": s}) for s in (stop, [*stop, "y"]))
    assert (
        re.fullmatch("06_ppo@[0-9a-f]{16}", stage.folder.name)
        and stage.folder.parent == stage_in(root, "06_ppo").folder.parent
    )
    assert other.folder != stage.folder


def test_an_override_equal_to_the_profile_is_no_variant(root):
    stage = stage_in(root, "05_reward_model")
    same = stage.with_overrides({"reward_model.lam": 0.5, "reward_model.source": "student"})
    assert same.folder == stage.folder and same.recipe == stage.recipe and same.variant == ""


@pytest.mark.parametrize(("first", "second"), [(1, 1.0), (0.25, "0.25"), ("1e-1", 0.1)])
def test_two_ways_to_write_a_value_are_one_variant(root, first, second):
    one, two = (stage_in(root, "05_reward_model").with_overrides({"reward_model.lam": v}) for v in (first, second))
    assert one.recipe == two.recipe
    assert one.folder == two.folder


# ---- keys


LATER_THAN = {
    "voting.threshold": (0.6, OURS[3:]),
    "teacher_sampling.samples_per_temperature": (4, OURS[2:]),
    "generation.batch_size": (32, OURS[2:]),
    "sft.learning_rate": (1e-4, OURS[5:]),
    "student_sampling.samples": (7, OURS[6:]),
    "reward_model.lam": (0.25, OURS[7:]),
    "reward_model.source": ("teacher", OURS[7:]),
    "ppo.kl_coef": (0.1, OURS[8:]),
    "reward.mismatch": ("minus", OURS[8:]),
    "evaluation.few_shot": (3, OURS[9:]),
    "grid.lam": ([0.5], []),
    "grid.seeds": ([1], []),
}


@pytest.mark.parametrize("key", LATER_THAN)
def test_a_setting_changes_the_keys_of_what_depends_on_it_and_no_other(root, key):
    value, reached = LATER_THAN[key]
    before, after = identities(root), identities(root, {key: value})
    assert [name for name in OURS if before[name] != after[name]] == list(reached)


def test_keys_follow_the_file_as_they_follow_overrides(tmp_path, root):
    other = make_root(tmp_path / "other", reward_model={"lam": 0.25})
    assert identities(other) == identities(root, {"reward_model.lam": 0.25})
    renamed = make_root(tmp_path / "renamed", name="elsewhere", grid={"seeds": [5]})
    assert identities(renamed) == identities(root)


def test_keys_follow_axes_seed_models_and_data(tmp_path, root):
    base = stage_in(root, "07_evaluate")
    variants = [
        replace(base, seed=1),
        replace(base, teacher="weak"),
        replace(base, student="large"),
        replace(base, dataset="mmlu"),
        replace(base, method="ours_wo_d"),
    ]
    content = tiny_settings()
    content["datasets"]["gsm"]["train"] += 1
    variants.append(stage_in(make_root(tmp_path / "d", datasets=content["datasets"]), "07_evaluate"))
    variants.append(stage_in(make_root(tmp_path / "m", students={"small": "models/large"}), "07_evaluate"))
    found = [identity(v) for v in (base, *variants)]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])


# ---- the graph


def test_gold_reaches_judgement_and_evaluation_alone(root):
    without = {"icl": {"teacher": None}, "teacher": {"student": None}}
    for name in OURS:
        for method in STAGES[name].methods or ("ours",):
            stage = stage_in(root, name, method, **without.get(method, {}))
            reads = "00_gold" in {one.name for one in (stage, *stage.upstream())}
            assert reads == (name in ("00_gold", "02_judgement", "07_evaluate")), (name, method)


def test_ablations_hold_the_default_and_their_values(root):
    for name in ("lambda", "data_ratio", "reward_source", "correctness"):
        found = [stage.variant for stage in variants(name, stage_in(root, "07_evaluate"))]
        assert len(set(found)) == len(found) > 1 and "" in found
    shorter = variants("lambda", stage_in(root, "07_evaluate").with_overrides({"reward_model.epochs": 1}))
    assert [stage.overrides for stage in shorter][-1] == {"reward_model.epochs": 1, "reward_model.lam": 1.0}


# ---- running


def test_a_finished_stage_is_not_run_again(study, capsys, monkeypatch):
    stage = stage_in(study, "06_ppo")
    monkeypatch.setattr("rdlib.method.rl.run", lambda *a, **k: pytest.fail("it ran"))
    before = (stage.folder / "manifest.json").stat().st_mtime_ns
    assert stage.run() is stage
    assert "already there" in capsys.readouterr().out
    assert (stage.folder / "manifest.json").stat().st_mtime_ns == before


def test_a_stage_without_its_inputs_says_which_notebook_to_run(root):
    with pytest.raises(UserError, match=r"02_pseudo_labels is missing .*notebooks/02_pseudo_labels\.ipynb"):
        stage_in(root, "02_pseudo_labels").require()


def test_run_with_inputs_runs_what_is_missing(study, tmp_path, capsys):
    root = copy_study(study, tmp_path, "02_pseudo_labels", "02_judgement")
    stage_in(root, "02_judgement").run_with_inputs()
    out = capsys.readouterr().out
    assert "02_pseudo_labels: done" in out and "02_judgement: done" in out
    assert "01_teacher_responses" not in out


# ---- the parameters of notebooks


def namespace(**changes) -> dict:
    """What `globals()` holds in a notebook: its parameters among modules, functions and IPython's names."""
    base = {"profile": PARAMS, "seed": 0, "overrides": {}, "method": "ours", **AXES}
    noise = {"__name__": "__main__", "In": [""], "Out": {}, "_": "", "_i1": "x", "pd": types, "open_stage": open_stage}
    return base | noise | changes


def test_open_stage_reads_the_parameters(root):
    stage = open_stage("05_reward_model", namespace(lam=0.25, teacher_share=None, reward_source=None))
    assert stage == make_stage("05_reward_model", PARAMS, method="ours", overrides={"reward_model.lam": 0.25}, **AXES)
    assert open_stage("05_reward_model", namespace(lam=None)).variant == ""
    assert open_stage("05_reward_model", namespace(overrides={"reward_model.lam": 0.25})).folder == stage.folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sed": 1}, "no parameter 'sed': did you mean 'seed'"),
        ({"lamda": 0.5}, "no parameter 'lamda': did you mean 'lam'"),
        ({"colour": "blue"}, "no parameter 'colour': it reads"),
        ({"dataset": "gsmk"}, r"dataset is 'gsmk', which is not one of gsm, mmlu \(tiny.yaml\)"),
        ({"teacher": "large"}, "teacher is 'large', which is not one of strong, weak"),
        ({"method": "sft"}, "method is 'sft', which is not one of ours, ours_wo_d"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"seed": 2**32}, "seed is 4294967296: give a whole number from 0 to 4294967295"),
        ({"lam": True}, "reward_model.lam"),
        ({"seed": "0"}, "seed is '0'"),
        ({"lam": 2}, "reward_model.lam"),
        ({"profile": "absent.yaml"}, "no profile"),
        ({"overrides": {"reward_model.lambda": 1}}, "reward_model.lam"),
        # What papermill's -p makes of a dictionary, and other slips
        ({"overrides": '{"reward_model.lam": 0.25}'}, "overrides"),
        ({"overrides": ["reward_model.lam"]}, "overrides"),
        ({"dataset": ["gsm"]}, "dataset"),
        ({"dataset": None}, "dataset"),
        ({"teacher": None}, "teacher"),
        ({"student": None}, "student"),
        ({"method": None}, "method"),
        ({"profile": None}, "profile"),
        # An override that this stage and its inputs never read
        ({"overrides": {"ppo.kl_coef": 0.1}}, r"ppo\.kl_coef"),
        ({"overrides": {"grid.lam": [0.5]}}, r"grid\.lam"),
        # Two variants would overwrite each other
        ({"overrides": {"teachers.strong": "models/weak"}}, r"teachers\.strong"),
        ({"overrides": {"students.small": "models/weak"}}, r"students\.small"),
        ({"overrides": {"datasets.gsm": tiny_settings()["datasets"]["gsm"] | {"train": 8}}}, r"datasets\.gsm"),
    ],
)
def test_bad_parameters(root, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        open_stage("05_reward_model", namespace(**changes))
    assert "\n" not in str(caught.value)


def test_evaluation_takes_the_axes_that_its_method_has(root):
    assert make_stage("07_evaluate", PARAMS, dataset="gsm", student="small", method="icl").teacher is None
    assert make_stage("07_evaluate", PARAMS, dataset="gsm", teacher="strong", method="teacher").student is None
    with pytest.raises(UserError, match="teacher"):
        make_stage("07_evaluate", PARAMS, dataset="gsm", student="small", method="sft")


def test_a_profile_may_be_given_by_its_full_path(root):
    relative, absolute = (make_stage("00_data", str(p), dataset="gsm") for p in (PARAMS, root / PARAMS))
    assert relative == absolute
