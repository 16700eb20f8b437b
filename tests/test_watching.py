"""Curves of a training: read back from TensorBoard's own files, off by default, and in one piece after a resume."""

from __future__ import annotations

import socket

import pytest
from conftest import make_root, stage_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_adapters import again  # noqa: F401
from test_resume import METHODS, interrupt

from rdlib.__main__ import main
from rdlib.artifacts import hash_files
from rdlib.errors import UserError
from rdlib.method import training, watching
from rdlib.settings import Training
from rdlib.study import requirements

TENSORBOARD = {"training.report_to": ["tensorboard"]}


def curves(stage) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve of a stage, as TensorBoard shows them."""
    events = EventAccumulator(str(watching.folder_of(stage)))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def history_of(stage, column: str) -> list[tuple[int, float]]:
    """The same of a column of the stage's history."""
    ppo_run = stage.name == "06_ppo"
    table = (stage.jsonl if ppo_run else stage.table)("history").dropna(subset=column)
    return list(zip(table["update" if ppo_run else "step"], table[column], strict=True))


COLUMNS = {
    "03_sft_warmup": {"train/loss": "loss", "eval/agreement": "agreement"},
    "05_reward_model": {"train/loss": "loss", "eval/pos_neg_auc": "pos_neg_auc"},
    "06_ppo": {"train/reward": "reward", "train/validation_agreement": "validation_agreement"},
}


def assert_same_curve(shown: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [step for step, _ in shown] == [step for step, _ in expected] and len(shown) > 1
    assert [value for _, value in shown] == pytest.approx([value for _, value in expected], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["05_reward_model", "06_ppo"])
def test_the_curves_are_the_history_and_no_artifact(study, again, tmp_path, name):  # noqa: F811
    """They change neither key nor artifacts, and lie beside them."""
    stage, plain = again(tmp_path, name, TENSORBOARD).run(), stage_in(study, name, METHODS.get(name, "ours"))
    assert stage.folder.name == plain.folder.name and hash_files(stage.folder) == hash_files(plain.folder)
    assert watching.folder_of(stage).parent.parent == stage.folder.parent
    shown = curves(stage)
    for tag, column in COLUMNS[name].items():
        assert_same_curve(shown[tag], history_of(stage, column))
    assert not watching.folder_of(plain).exists()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_in_the_same_curves(again, tmp_path, monkeypatch):  # noqa: F811
    """No step is there twice, though steps after the last checkpoint were computed, and drawn, twice."""
    stage = again(tmp_path, "03_sft_warmup", TENSORBOARD)
    interrupt(stage, monkeypatch, training.ProgressBar, "on_step_end", 7)
    assert len(list(watching.folder_of(stage).iterdir())) == 1
    stage.run()
    assert len(list(watching.folder_of(stage).iterdir())) == 2
    for tag, column in COLUMNS["03_sft_warmup"].items():
        assert_same_curve(curves(stage)[tag], history_of(stage, column))


def test_nothing_is_reported_and_nothing_leaves_the_machine_unasked(again, tmp_path, monkeypatch):  # noqa: F811
    assert Training().report_to == []

    def refuse(*arguments):
        raise AssertionError(f"a connection was asked for: {arguments}")

    stage = again(tmp_path, "03_sft_warmup", {"sft.epochs": 1})
    assert training.common_arguments(stage, tmp_path)["report_to"] == "none"
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    stage.run()
    assert not watching.folder_of(stage).parent.exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"report_to": ["tensorboard", "wandb"]}, "training.report_to names wandb, which is not installed here"),
        ({"report_to": ["trackio"]}, "pip install trackio"),
        ({"attention": "flash_attention_2"}, "pip install flash-attn"),
    ],
)
def test_a_package_that_is_not_installed_is_one_sentence_before_anything_is_computed(
    tmp_path, at_root, monkeypatch, capsys, settings, sentence
):
    monkeypatch.setattr(
        requirements.importlib.util, "find_spec", lambda name: "here" if name == "tensorboard" else None
    )
    root = at_root(make_root(tmp_path, training=settings))
    assert main(["study", "--profile", "tiny.yaml"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert not (root / "runs").exists()


def test_a_writer_that_cannot_start_is_one_sentence(tmp_path, monkeypatch):
    from accelerate import tracking

    def refuse(self):
        raise RuntimeError("no API key\nmore")

    class Stage:
        profile = type("Profile", (), {"training": Training(report_to=["tensorboard"])})
        folder, label = tmp_path / "06_ppo", "gsm/06_ppo"

    monkeypatch.setattr(tracking.TensorBoardTracker, "start", refuse)
    with pytest.raises(UserError, match=r"gsm/06_ppo: tensorboard cannot start \(no API key\): log in to it"):
        watching.Watch(Stage()).open(0)
