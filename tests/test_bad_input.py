"""What a user can get wrong ends in one clear sentence and an exit code that is not zero."""

from __future__ import annotations

import pytest
from conftest import MODELS, PARAMS, copy_study, make_root, stage_in

from rdlib.engines import models
from rdlib.errors import UserError

# ---- models


def test_models_that_cannot_be_loaded(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    (tmp_path / "cut").mkdir()
    for path in (MODELS / "small").iterdir():
        content = path.read_bytes()
        (tmp_path / "cut" / path.name).write_bytes(content[:1000] if path.suffix == ".safetensors" else content)
    for source in ("empty", "broken", "cut", "absent"):
        with pytest.raises(UserError, match=f"{source} cannot be loaded") as caught:
            models.load_causal_lm(tmp_path / source)
        assert "\n" not in str(caught.value)
    for source in ("empty", "absent"):
        with pytest.raises(UserError, match="cannot be loaded"):
            models.load_tokenizer(tmp_path / source)


# ---- stages that cannot do their work


@pytest.mark.parametrize("name", ["01_teacher_responses", "05_reward_model", "07_evaluate"])
def test_a_missing_earlier_stage(tmp_path, name):
    words = r"is missing or was made with other settings, code or inputs: run notebooks/\d\d_\w+\.ipynb"
    with pytest.raises(UserError, match=words):
        stage_in(make_root(tmp_path), name).run()


def test_a_student_that_was_never_wrong(study, tmp_path, monkeypatch):
    """Then there is neither a reward to learn nor a query to train on, and the message says so."""
    from rdlib import artifacts

    root = copy_study(study, tmp_path, "05_reward_model", "06_ppo")
    read = artifacts.read_parquet

    def all_right(path, *args):
        frame = read(path, *args)
        return frame.assign(positive=True) if "04_student_responses" in str(path) else frame

    monkeypatch.setattr(artifacts, "read_parquet", all_right)
    with pytest.raises(UserError, match="no validation query has all kinds of responses"):
        stage_in(root, "05_reward_model").run()


def test_no_label_in_the_validation_split(study, tmp_path, monkeypatch):
    """The checkpoint is chosen by validation labels; without any the stage must say so, not divide by zero."""
    from rdlib import artifacts

    root = copy_study(study, tmp_path, "03_sft_warmup")
    read = artifacts.read_parquet

    def no_validation_labels(path, *args):
        frame = read(path, *args)
        if path.name == "labels.parquet":
            frame["pseudo_label"] = frame["pseudo_label"].where(frame["split"] == "train", None)
        return frame

    monkeypatch.setattr(artifacts, "read_parquet", no_validation_labels)
    for method in ("ours_wo_r", "sft"):
        with pytest.raises(UserError, match="validation"):
            stage_in(root, "03_sft_warmup", method).run()


def test_a_profile_outside_of_the_repository(tmp_path, at_root):
    """An absolute path works as well as a relative one."""
    from rdlib.study.stage import make_stage

    at_root(make_root(tmp_path / "repository"))
    elsewhere = make_root(tmp_path / "elsewhere") / PARAMS
    stage = make_stage("00_data", str(elsewhere), dataset="gsm")
    stage.run()
    assert stage.folder == tmp_path / "repository/runs/tiny/gsm/seed0/00_data"


def test_a_run_folder_that_cannot_be_written(tmp_path):
    root = make_root(tmp_path)
    (root / "runs").write_text("a file where the runs should be")
    with pytest.raises((UserError, OSError)) as caught:
        stage_in(root, "00_data").run()
    assert "runs" in str(caught.value)
