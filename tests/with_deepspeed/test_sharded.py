"""Sharded training seen to work on the CPU: ZeRO-2, ZeRO-3 and FSDP in two processes, held to one process.

`make check KIND=sharded` runs these in an environment of its own, which has DeepSpeed. The configurations are those of
params/accelerate; `sharing` has accelerate take two processes on the CPU for two GPUs.
"""

from __future__ import annotations

import functools
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import copy_study, stage_in
from test_distributed import (
    LOSS,
    WEIGHTS,
    assert_same_losses,
    assert_same_ppo,
    ppo_in_one,
    ppo_in_two,
    result_of,
    run_with,
    workers,
)
from transformers import TrainerState

from rdlib.artifacts import hash_files
from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.method import training
from rdlib.study import launch
from tests.with_deepspeed import sharing

SHARDING = {"zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}
METHODS = {"03_sft_warmup": "ours_wo_r", "05_reward_model": "ours"}


@pytest.fixture(autouse=True)
def _two_processes_for_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv(sharing.SEEN, str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "WORKER", ("tests.with_deepspeed.sharing",))
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, value)


def sharded(study: Path, root: Path, name: str, kind: str, **overrides):
    """A stage of the finished study, to be run again in two processes as `kind` says, on inputs made in one."""
    copy_study(study, root, name)
    shutil.copytree(launch.CONFIGURATIONS, root / "params/accelerate")
    more = {"training.processes": 2, "training.accelerate": f"params/accelerate/{kind}.yaml"}
    stage = stage_in(root, name, METHODS.get(name, "ours")).with_overrides(overrides)
    for before in stage.inputs.values():
        before.run_with_inputs()
    return stage.with_overrides(more)


def assert_halves(folder: Path, kind: str) -> None:
    """Each process held half of the two numbers that Adam keeps of a weight and, but for ZeRO-2, of the weights."""
    for rank in (0, 1):
        seen = json.loads((folder / f"{rank}.json").read_text())
        weights = seen["of_parameters"]
        assert seen["distributed_type"] == SHARDING[kind]
        assert seen["optimizer"] == pytest.approx(2 * weights / 2, rel=0.01)  # odd sizes are filled up
        assert seen["parameters"] == pytest.approx(weights if kind == "zero2" else weights / 2, rel=0.01)


@pytest.fixture(scope="session")
def finished(study, tmp_path_factory):
    """A function that gives a stage trained in two processes, each of which held its half, without an interruption."""

    @functools.cache
    def train(name: str, kind: str, **overrides):
        folder = tmp_path_factory.mktemp(f"{name}_{kind}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(sharing.SEEN, str(folder))
            stage = sharded(study, folder, name, kind, **overrides).run()
        assert_halves(folder, kind)
        return stage

    return train


# ---- SFT and reward model


@pytest.mark.parametrize("kind", SHARDING)
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_have_the_losses_of_one(study, finished, name, kind):
    """Each held its half, and the model that they saved loads in one process."""
    stage = finished(name, kind)
    assert_same_losses(study, stage)
    load = models.load_scorer if name == "05_reward_model" else lambda folder, pad: models.load_causal_lm(folder)
    assert all(torch.isfinite(weight).all() for weight in load(stage.folder / "model", 0).parameters())


@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_adapters_are_merged_into_the_whole_model(study, tmp_path, kind):
    """Which one process reads as a plain one, with the losses of one."""
    adapters = {"training.lora": {"r": 2, "alpha": 4}}
    stage = sharded(study, tmp_path, "03_sft_warmup", kind, **adapters).run()
    one = run_with(study, tmp_path / "one", "03_sft_warmup", adapters)
    expected, found = (torch.tensor(s.table("history")["loss"].dropna().to_numpy()) for s in (one, stage))
    torch.testing.assert_close(found, expected, **LOSS)
    ours, theirs = (models.load_causal_lm(s.folder / "model").state_dict() for s in (stage, one))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, **WEIGHTS)


# ---- killed and resumed


def kill_when(stage, happened) -> None:
    """Kill a training process as soon as the TrainerState of a checkpoint, which is then whole, is as said."""
    checkpoints = stage.folder.with_name(stage.folder.name + ".partial") / training.CHECKPOINTS

    def watch() -> None:
        while not any(happened(state) for state in map(state_of, checkpoints.glob("checkpoint-*")) if state):
            time.sleep(0.002)
        workers()[-1].kill()

    threading.Thread(target=watch, daemon=True).start()


def state_of(checkpoint: Path) -> TrainerState | None:
    """None while it is being written, or removed again."""
    try:
        return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError):
        return None


def killed_and_resumed(stage, happened):
    """The stage, of which a process was killed when a checkpoint was as said, and which then went on."""
    kill_when(stage, happened)
    with pytest.raises(UserError, match="a training process failed .it was killed"):
        stage.run()
    return stage.run()


@pytest.mark.parametrize("kind", SHARDING)
@pytest.mark.parametrize("name", METHODS)
def test_killed_after_its_first_checkpoint_it_ends_the_same(study, tmp_path, finished, name, kind):
    """With the very bytes of two processes that nobody killed."""
    stage = killed_and_resumed(sharded(study, tmp_path, name, kind), lambda state: True)
    assert hash_files(stage.folder) == hash_files(finished(name, kind).folder)


def has_lost_patience(state: TrainerState) -> bool:
    """Whether two evaluations were no better than the best."""
    return state.stateful_callbacks["EarlyStoppingCallback"]["attributes"]["early_stopping_patience_counter"] >= 2


@pytest.mark.parametrize("kind", SHARDING)
def test_an_early_stop_is_not_undone_by_a_resume(study, tmp_path, finished, kind):
    """Killed between the stop, in the middle of an epoch, and the writing of the model: no step is taken any more."""
    early = {"reward_model.epochs": 9, "reward_model.learning_rate": 1e-12, "stopping.patience": 4}
    whole = finished("05_reward_model", kind, **early)
    assert whole.table("history")["epoch"].max() % 1
    stage = killed_and_resumed(sharded(study, tmp_path, "05_reward_model", kind, **early), has_lost_patience)
    assert hash_files(stage.folder) == hash_files(whole.folder)


# ---- PPO


def test_ppo_under_zero_2_is_that_of_one_process_on_the_same_responses(tmp_path):
    """Whose optimizer is split, and clips and steps by DeepSpeed."""
    program = str(Path(__file__).with_name("ppo_on_given_responses.py"))
    ppo_in_two(tmp_path / "two", program, "--config_file", str(launch.CONFIGURATIONS / "zero2.yaml"))
    assert_same_ppo(ppo_in_one(tmp_path / "one"), result_of(tmp_path / "two"))
    assert_halves(tmp_path, "zero2")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # the latter is what GPUs have, with float32 beside it
def test_ppo_under_zero_2_killed_after_an_update_ends_the_same(study, tmp_path, finished, precision):
    """With the very bytes of two processes that nobody killed, and without an update made twice."""
    more, held = [], {"training.precision": precision}

    def kill_one(row):
        if row["update"] == 2:
            workers()[-1].kill()

    stage = sharded(study, tmp_path, "06_ppo", "zero2", **held)
    with pytest.raises(UserError, match="a training process failed .it was killed"):
        stage.run(on_update=kill_one)
    stage.run(on_update=lambda row: more.append(row["update"]))
    assert more[0] > 0 and more[-1] == 3
    assert hash_files(stage.folder) == hash_files(finished("06_ppo", "zero2", **held).folder)
