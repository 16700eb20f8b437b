"""Interrupted stages: started again, they end with the files of a run that was not interrupted."""

from __future__ import annotations

import functools
import importlib
import itertools
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import copy_study, stage_in

from rdlib import artifacts
from rdlib.artifacts import hash_files
from rdlib.engines import generation
from rdlib.evidence import gallery, result_tables
from rdlib.method import reward_model, rl, sft, trainers, training

METHODS = {"03_sft_warmup": "ours_wo_r"}
EARLIER = ["01_teacher_responses", "03_sft_warmup", "04_student_responses", "05_reward_model", "06_ppo", "07_evaluate"]


class Crash(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def cell_stage(root: Path, name: str):
    return stage_in(root, name, METHODS.get(name, "ours"))


def without(study: Path, tmp_path: Path, name: str):
    """A copy of the finished study in which the stage `name` has not run."""
    return cell_stage(copy_study(study, tmp_path, name), name)


def partial_of(stage) -> Path:
    return stage.folder.with_name(stage.folder.name + ".partial")


def assert_same(stage, study: Path) -> None:
    expected, found = hash_files(cell_stage(study, stage.name).folder), hash_files(stage.folder)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert not partial_of(stage).exists()


def crash_after(number: int, function):
    """`function`, but its call of this number does not return."""
    calls = []

    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        calls.append(1)
        if len(calls) == number:
            raise Crash
        return result

    return wrapped


# ---- crashes at chosen places, in this process


def interrupt(stage, monkeypatch, owner, name: str, number: int) -> None:
    """Run the stage until the call of `owner.name` of this number has been made."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash_after(number, getattr(owner, name)))
        with pytest.raises(Crash):
            stage.run()
    assert not stage.folder.exists()
    assert partial_of(stage).exists()


@pytest.mark.parametrize("name", ["01_teacher_responses", "04_student_responses", "07_evaluate"])
def test_sampling_between_shards(study, tmp_path, monkeypatch, name):
    stage = without(study, tmp_path, name)
    interrupt(stage, monkeypatch, generation, "table_of", 1)
    assert not list((partial_of(stage) / "shards").glob("*.parquet"))  # it crashed before writing
    if name != "07_evaluate":  # which has one shard
        interrupt(stage, monkeypatch, generation, "table_of", 3)
        assert len(list((partial_of(stage) / "shards").glob("*.parquet"))) == 2
    stage.run()
    assert_same(stage, study)


# (stage, what to crash in, at which call): in a step between two checkpoints, and after an evaluation
TRAINING = [
    ("03_sft_warmup", "on_step_end", 1),
    ("03_sft_warmup", "on_step_end", 9),
    ("03_sft_warmup", "on_train_end", 1),
    ("05_reward_model", "on_step_end", 1),
    ("05_reward_model", "on_step_end", 4),
    ("05_reward_model", "on_train_end", 1),
]


@pytest.mark.parametrize(("name", "event", "number"), TRAINING)
def test_training_in_the_middle(study, tmp_path, monkeypatch, name, event, number):
    stage = without(study, tmp_path, name)
    interrupt(stage, monkeypatch, training.ProgressBar, event, number)
    stage.run()
    assert_same(stage, study)


def count_steps(stage, monkeypatch) -> int:
    """Run a stage of training; the steps it took."""
    steps, original = [], training.ProgressBar.on_step_end
    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "on_step_end", lambda *a, **k: steps.append(1) or original(*a, **k))
        stage.run()
    return len(steps)


@pytest.mark.parametrize("name", ["03_sft_warmup", "05_reward_model"])
def test_training_goes_on_from_its_checkpoint(study, tmp_path, monkeypatch, name):
    """Not from the start: nothing computed is lost. And nothing is unpickled for that."""
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle"))
    stage = without(study, tmp_path, name)
    interrupt(stage, monkeypatch, training.ProgressBar, "on_train_end", 1)
    assert count_steps(stage, monkeypatch) == 0


@pytest.mark.parametrize("name", ["03_sft_warmup", "05_reward_model"])
@pytest.mark.parametrize("lost", ["a half", "trainer_state.json", "everything"])
def test_a_checkpoint_that_was_being_written_is_not_used(study, tmp_path, monkeypatch, name, lost):
    stage = without(study, tmp_path, name)
    interrupt(stage, monkeypatch, training.ProgressBar, "on_train_end", 1)
    last = max((partial_of(stage) / training.CHECKPOINTS).glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    # Files are written in this order: model, optimizer and scheduler, random state, trainer state
    order = ["model.safetensors", trainers.OPTIMIZER, trainers.RANDOM.format(0), "trainer_state.json"]
    assert all((last / file).exists() for file in order)
    for file in {"a half": [], "trainer_state.json": order[-1:], "everything": order}[lost]:
        (last / file).unlink()
    if lost == "a half":
        state = (last / order[-1]).read_text()
        (last / order[-1]).write_text(state[: len(state) // 2])
    stage.run()
    assert_same(stage, study)


def impatient(study, folder, evaluations):
    """A reward model that learns nothing in nine epochs, and is stopped after so many evaluations without progress."""
    settings = {"epochs": 9, "learning_rate": 1e-12}
    overrides = {f"reward_model.{name}": value for name, value in settings.items()}
    overrides["stopping.patience"] = evaluations * cell_stage(study, "05_reward_model").profile.stopping.every
    stage = without(study, folder, "05_reward_model").with_overrides(overrides)
    for before in stage.inputs.values():
        before.run_with_inputs()
    return stage


def test_early_stopping_keeps_its_count(study, tmp_path, monkeypatch):
    """With a learning rate of nearly zero the AUC soon stands still, so patience decides the end."""
    whole = impatient(study, tmp_path / "whole", 3).run()
    evaluated = whole.table("history").query("step > 0")["pos_neg_auc"].dropna().tolist()
    assert len(evaluated) == evaluated.index(max(evaluated)) + 1 + 3  # three after the best were no better
    stage = impatient(study, tmp_path / "broken", 3)
    steps = int(whole.table("history")["step"].max())
    interrupt(stage, monkeypatch, training.ProgressBar, "on_step_end", steps - 1)
    stage.run()
    assert hash_files(stage.folder) == hash_files(whole.folder)


@pytest.mark.parametrize(("name", "module"), [("03_sft_warmup", sft), ("05_reward_model", reward_model)])
@pytest.mark.parametrize(
    ("owner", "function"), [("training", "train"), ("artifacts", "write_parquet"), ("artifacts", "write_json")]
)
def test_training_done_and_its_artifacts_not_yet_written(study, tmp_path, monkeypatch, name, module, owner, function):
    stage = without(study, tmp_path, name)
    interrupt(stage, monkeypatch, getattr(module, owner), function, 1)
    steps = count_steps(stage, monkeypatch)
    assert steps == 0
    assert_same(stage, study)


def test_early_stopping_is_not_undone_by_a_resume(study, tmp_path, monkeypatch):
    """The run stopped early, in the middle of an epoch or at its end, and crashed before its tables were written."""
    ends = set()
    for patience in (1, 2, 3):
        whole = impatient(study, tmp_path / f"whole{patience}", patience).run()
        ends.add(whole.table("history")["epoch"].max() % 1 == 0)
        stage = impatient(study, tmp_path / f"broken{patience}", patience)
        interrupt(stage, monkeypatch, reward_model.artifacts, "write_json", 1)
        assert count_steps(stage, monkeypatch) == 0  # it must not train on
        assert hash_files(stage.folder) == hash_files(whole.folder)
    assert ends == {True, False}


@pytest.mark.parametrize("name", ["03_sft_warmup", "05_reward_model"])
def test_training_goes_on_in_a_folder_that_was_moved(study, tmp_path, monkeypatch, name):
    """And keeps its best checkpoint, though the Trainer knows that by its old place."""
    stage = without(study, tmp_path / "old", name)
    interrupt(stage, monkeypatch, training.ProgressBar, "on_train_end", 1)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = cell_stage(tmp_path / "new", name)
    moved.run()
    assert_same(moved, study)


@pytest.mark.parametrize("update", [0, 1, 2, 3])
def test_ppo_after_an_update(study, tmp_path, update):
    stage = without(study, tmp_path, "06_ppo")

    def crash(row):
        if row["update"] == update:
            raise Crash

    with pytest.raises(Crash):
        stage.run(on_update=crash)
    seen = []
    stage.run(on_update=lambda row: seen.append(row["update"]))
    assert_same(stage, study)
    # A row that was recorded before its checkpoint was written is computed again, those before it are not
    assert seen == ([0, 1, 2, 3] if update < 2 else list(range(update, 4)))


@pytest.mark.parametrize(("owner", "function"), [(rl, "token_counts"), (rl.artifacts, "write_json")])
def test_ppo_done_and_its_artifacts_not_yet_written(study, tmp_path, monkeypatch, owner, function):
    """No update is lost, whether the crash comes before or after the model is written."""
    stage = without(study, tmp_path, "06_ppo")
    interrupt(stage, monkeypatch, owner, function, 1)
    updates = []
    stage.run(on_update=updates.append)
    assert updates == []
    assert_same(stage, study)


def test_an_interrupted_stage_under_other_settings_starts_again(study, tmp_path, monkeypatch):
    """A partial folder belongs to its key: another threshold must not go on from it."""
    stage = without(study, tmp_path, "01_teacher_responses")
    interrupt(stage, monkeypatch, generation, "table_of", 3)
    first = sorted((partial_of(stage) / "shards").iterdir())[0].stat().st_mtime_ns
    other = stage.with_overrides({"teacher_sampling.low_temperatures": [0.9]})
    assert partial_of(other) != partial_of(stage)
    (partial_of(stage) / ".key").write_text("key of an older profile")
    interrupt(stage, monkeypatch, generation, "table_of", 2)
    assert sorted((partial_of(stage) / "shards").iterdir())[0].stat().st_mtime_ns > first


# ---- kill -9


# A run that is killed is a fork of a process that has imported rdlib and computed nothing: torch's threads, of which
# this process has some, do not survive a fork.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["rdlib.evidence.gallery", "rdlib.method.rl", "rdlib.method.training"])


def until(place: str, number: int, action) -> None:
    """Do `action`, and kill this process at its call of this number of `place` ("module:name", "module:class.name")."""
    module, _, path = place.partition(":")
    *classes, name = path.split(".")
    owner = functools.reduce(getattr, classes, importlib.import_module(module))
    function, calls = getattr(owner, name), itertools.count(1)

    def wrapped(*args, **kwargs):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)
    action()


def kill(action, place: str, number: int) -> None:
    """Do `action` in another process, which is killed in the middle: at its call of `place` of this number."""
    process = FORKS.Process(target=until, args=(place, number, action))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode} before call {number} of {place}"


# Of each stage three moments, one after the other: each run goes on from what the one before it left
SAMPLING = [
    ("rdlib.engines.generation:table_of", 2),
    ("rdlib.engines.generation:table_of", 2),
    ("rdlib.artifacts:seal", 1),
]
KILLS = {
    "00_data": [
        ("rdlib.artifacts:write_parquet", 1),
        ("rdlib.artifacts:seal", 1),
        ("rdlib.artifacts:hash_files", 1),
    ],
    "01_teacher_responses": SAMPLING,
    "02_pseudo_labels": [
        ("rdlib.streams:write_parquet", 1),
        ("rdlib.artifacts:write_json", 1),
        ("rdlib.artifacts:write_json", 2),
    ],
    "03_sft_warmup": [
        ("rdlib.method.training:ProgressBar.on_step_end", 2),
        ("rdlib.method.training:ProgressBar.on_step_end", 8),
        ("rdlib.method.training:drop_checkpoints", 1),
    ],
    "04_student_responses": SAMPLING,
    "05_reward_model": [
        ("rdlib.method.training:ProgressBar.on_step_end", 2),
        ("rdlib.method.trainers:PlainCheckpoints._save_rng_state", 1),
        ("rdlib.artifacts:write_json", 1),
    ],
    "06_ppo": [
        ("rdlib.method.ppo:PPOTrainer._update", 2),
        ("rdlib.method.ppo_checkpoints:save", 2),
        ("rdlib.artifacts:seal", 1),
    ],
    "07_evaluate": [
        ("rdlib.engines.generation:table_of", 1),
        ("rdlib.artifacts:write_parquet", 2),
        ("rdlib.artifacts:write_json", 1),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_sigkill(study, tmp_path, name):
    stage = without(study, tmp_path, name)
    for moment in KILLS[name]:
        kill(stage.run, *moment)
        assert not stage.folder.exists() and partial_of(stage).exists()
    stage.run()
    assert_same(stage, study)
    assert not (stage.folder / artifacts.KEY).exists()


def draw(results: Path, out: Path) -> None:
    """Draw three figures of results, and all their tables."""
    evidence = result_tables.open_results(results)
    figures = ("figure_3_failure_ratio", "figure_4_judged_correctness", "figure_6_data_ratio")
    for name, exhibit in gallery.EXHIBITS.items():
        if (name in figures or exhibit.draw is None) and (table := exhibit.rows(evidence)) is not None:
            gallery.draw(exhibit, evidence, out, table)


@pytest.mark.slow
def test_sigkill_while_the_figures_are_drawn(tmp_path):
    """What is there at any moment is whole, and in the end everything is."""
    from excerpts import excerpt

    results, out = excerpt(tmp_path / "results"), tmp_path / "out"
    draw(results, tmp_path / "whole")
    expected = hash_files(tmp_path / "whole")
    for moment in [
        ("rdlib.evidence.tables:write_markdown", 2),
        ("os:fsync", 9),
        ("rdlib.evidence.gallery:save", 2),
    ]:
        kill(functools.partial(draw, results, out), *moment)
        found = {name: hash_ for name, hash_ in hash_files(out).items() if not name.startswith(".")}
        assert found.items() < expected.items()
    draw(results, out)
    assert hash_files(out) == expected


def test_two_runs_of_the_same_stage_are_identical(study, tmp_path):
    """Without an interruption; the ground on which the tests above stand."""
    root = copy_study(study, tmp_path, *EARLIER)
    for name in ("01_teacher_responses", "03_sft_warmup"):
        stage = cell_stage(root, name)
        stage.run()
        assert_same(stage, study)
    shutil.rmtree(root / "runs")
