"""Interrupted stages: started again, they end with the files of a run that was not interrupted."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import REPOSITORY, copy_study, stage_in

from rdlib import artifacts
from rdlib.artifacts import hash_files
from rdlib.engines import generation
from rdlib.method import reward_model, trainers, training
from scripts import crash_test

METHODS = {"03_sft_warmup": "ours_wo_r"}


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


def count_steps(stage, monkeypatch) -> int:
    """Run a stage of training; the steps it took."""
    steps, original = [], training.ProgressBar.on_step_end
    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "on_step_end", lambda *a, **k: steps.append(1) or original(*a, **k))
        stage.run()
    return len(steps)


@pytest.mark.parametrize("name", ["03_sft_warmup", "05_reward_model"])
def test_training_goes_on_from_its_checkpoint_wherever_its_folder_is(study, tmp_path, monkeypatch, name):
    """Not from the start: nothing computed is lost. And nothing is unpickled for that."""
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle"))
    stage = without(study, tmp_path / "old", name)
    interrupt(stage, monkeypatch, training.ProgressBar, "on_train_end", 1)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = cell_stage(tmp_path / "new", name)
    assert count_steps(moved, monkeypatch) == 0
    assert_same(moved, study)


@pytest.mark.parametrize(
    ("name", "lost"),
    [("03_sft_warmup", "a half"), ("05_reward_model", "trainer_state.json"), ("05_reward_model", "everything")],
)
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


def test_early_stopping_keeps_its_count_and_is_not_undone_by_a_resume(study, tmp_path, monkeypatch):
    """Interrupted in its last step, and when it had stopped and its tables were not yet written."""
    whole = impatient(study, tmp_path / "whole", 3).run()
    history = whole.table("history")
    evaluated = history.query("step > 0")["pos_neg_auc"].dropna().tolist()
    assert len(evaluated) == evaluated.index(max(evaluated)) + 1 + 3  # three after the best were no better
    stage = impatient(study, tmp_path / "broken", 3)
    interrupt(stage, monkeypatch, training.ProgressBar, "on_step_end", int(history["step"].max()) - 1)
    interrupt(stage, monkeypatch, reward_model.artifacts, "write_json", 1)
    assert count_steps(stage, monkeypatch) == 0  # it must not train on
    assert hash_files(stage.folder) == hash_files(whole.folder)


@pytest.mark.parametrize("update", [0, 2])
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
FORKS.set_forkserver_preload(["rdlib.method.rl", "rdlib.method.training"])


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
SHARD, STEP = "rdlib.engines.generation:table_of", "rdlib.method.training:ProgressBar.on_step_end"
PARQUET, JSON, SEAL = (f"rdlib.artifacts:{name}" for name in ("write_parquet", "write_json", "seal"))
SAMPLING = [(SHARD, 2), (SHARD, 2), (SEAL, 1)]
KILLS = {
    "00_data": [(PARQUET, 1), (SEAL, 1), ("rdlib.artifacts:hash_files", 1)],
    "01_teacher_responses": SAMPLING,
    "02_pseudo_labels": [("rdlib.streams:write_parquet", 1), (JSON, 1), (JSON, 2)],
    "03_sft_warmup": [(STEP, 2), (STEP, 8), ("rdlib.method.training:drop_checkpoints", 1)],
    "04_student_responses": SAMPLING,
    "05_reward_model": [(STEP, 2), ("rdlib.method.trainers:PlainCheckpoints._save_rng_state", 1), (JSON, 1)],
    "06_ppo": [("rdlib.method.ppo:PPOTrainer._update", 2), ("rdlib.method.ppo_checkpoints:save", 2), (SEAL, 1)],
    "07_evaluate": [(SHARD, 1), (PARQUET, 2), (JSON, 1)],
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


# ---- make check KIND=crash


def finished(folder: Path, **manifest) -> Path:
    """A folder with what two equal studies may differ in."""
    stage = folder / "gsm" / "00_data"
    stage.mkdir(parents=True)
    (stage / "manifest.json").write_text(json.dumps({"stage": "00_data", "started": str(folder)} | manifest))
    (stage / "questions.parquet").write_bytes(b"questions")
    (stage / "00_data.ipynb").write_text(str(folder))
    (folder / "costs.csv").write_text(f"stage,seconds\n00_data,{len(str(folder))}\n")
    return folder


def test_everything_but_times_and_logs_makes_a_difference(tmp_path):
    assert crash_test.differences(finished(tmp_path / "c"), finished(tmp_path / "longer")) == []
    one, other = finished(tmp_path / "a"), finished(tmp_path / "b", key="k")
    (one / "gsm" / "more.json").write_text("{}")
    (other / "gsm" / "00_data" / ".key").write_text("left over")
    (other / "gsm" / "00_data" / "questions.parquet").write_bytes(b"other questions")
    assert crash_test.differences(one, other) == [
        "only without kills: gsm/more.json",
        "only with kills: gsm/00_data/.key",
        "differs: gsm/00_data/manifest.json",
        "differs: gsm/00_data/questions.parquet",
    ]


def test_processes_in_other_sessions_are_found_and_killed(tmp_path):
    """As kernels and training processes are, which no signal to a process group would reach."""
    study = crash_test.Study(REPOSITORY / "params/smoke.yaml", tmp_path, jobs=2)
    assert study.notebooks > 80 and study.done() == 0
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], start_new_session=True)"
    environment = os.environ | {crash_test.MARK: str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", child], env=environment, stdin=subprocess.PIPE)
    while len(study.processes()) < 2:
        time.sleep(0.05)
    assert study.kill() == []
    assert study.processes() == [] and not psutil.pid_exists(process.pid)
