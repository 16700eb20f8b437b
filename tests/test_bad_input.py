"""What a user can get wrong ends in one clear sentence and an exit code that is not zero."""

from __future__ import annotations

import errno
import json

import nbformat
import pytest
from conftest import MODELS, PARAMS, REPOSITORY, copy_study, make_root, stage_in

from rdlib.__main__ import main
from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.study import execute


def notebook(tmp_path, *cells: str, parameters: str = "dataset = 'gsm'\nseed = 0"):
    """A notebook file with a parameters cell and others."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    content = nbformat.v4.new_notebook(cells=[first, *(nbformat.v4.new_code_cell(c) for c in cells)])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "notebook.ipynb"
    nbformat.write(content, path)
    return path


# ---- python -m rdlib


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"datset": "gsm"}, "no parameter 'datset': did you mean 'dataset'"),
        ({"colour": 1}, "no parameter 'colour': it declares dataset, seed"),
    ],
)
def test_undeclared_parameters(tmp_path, parameters, words):
    path = notebook(tmp_path)
    with pytest.raises(UserError, match=words):
        execute.execute(path, tmp_path / "out.ipynb", parameters)
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize("parameters", ["{'dataset': 1}", "[1]"])
def test_parameters_that_are_no_json_dictionary(tmp_path, capsys, parameters):
    assert main(["execute", "absent.ipynb", "out.ipynb", parameters]) == 2
    assert capsys.readouterr().err.startswith("error: The parameters are not a JSON dictionary")


def test_a_file_that_is_no_notebook(tmp_path, capsys):
    (tmp_path / "n.ipynb").write_text("this is text")
    assert main(["execute", str(tmp_path / "n.ipynb"), str(tmp_path / "out.ipynb")]) == 2
    error = capsys.readouterr().err
    assert "n.ipynb" in error and "Traceback" not in error


@pytest.mark.slow
def test_a_failing_notebook_leaves_its_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    path = notebook(tmp_path, "from rdlib.errors import UserError\nraise UserError('Lower the learning rate.')")
    output = tmp_path / "runs" / "out.ipynb"
    assert main(["execute", str(path), str(output)]) == 2
    assert capsys.readouterr().err.strip().endswith("error: Lower the learning rate.")
    assert output.with_suffix(".error").read_text() == "Lower the learning rate.\n"
    assert output.exists()  # as far as it got
    fine = notebook(tmp_path, "print(dataset, seed)")
    assert main(["execute", str(fine), str(output), json.dumps({"seed": 3})]) == 0
    assert not output.with_suffix(".error").exists()
    assert "gsm 3" in output.read_text()


def test_a_disk_too_full_for_the_executed_notebook(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(execute.papermill, "execute_notebook", full)
    path = notebook(tmp_path, "1 + 1")
    assert main(["execute", str(path), str(tmp_path / "out.ipynb")]) == 2
    assert (error := capsys.readouterr().err).startswith("error: ") and "The disk is full" in error
    assert error.count("\n") == 1 and "Traceback" not in error


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


def test_a_profile_with_a_model_that_is_not_there(tmp_path):
    root = make_root(tmp_path, teachers={"strong": "models/stronger"})
    with pytest.raises(UserError, match="models/stronger cannot be loaded"):
        stage_in(root, "01_teacher_responses").run_with_inputs()


# ---- stages that cannot do their work


def test_a_missing_earlier_stage(tmp_path):
    root = make_root(tmp_path)
    for name in ("01_teacher_responses", "05_reward_model", "07_evaluate"):
        with pytest.raises(
            UserError,
            match=r"is missing or was made with other settings, code or inputs: run notebooks/\d\d_\w+\.ipynb",
        ):
            stage_in(root, name).run()


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
    from rdlib.study.opening import make_stage

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
