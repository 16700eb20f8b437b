"""Artifacts: whole or absent, sealed, checked when read, and free of the machine's paths and users."""

from __future__ import annotations

import errno
import getpass
import json
import os
import shlex
import shutil
import socket
import subprocess
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, copy_study, stage_in

from rdlib import artifacts, errors
from rdlib.errors import UserError
from rdlib.study.execute import check_parameters
from rdlib.study.specification import STAGES


def stage_folder(tmp_path: Path) -> Path:
    partial, folder = tmp_path / "s.partial", tmp_path / "s"
    artifacts.write_bytes(partial / "a.txt", b"a")
    artifacts.write_parquet(partial / "model" / "t.parquet", pd.DataFrame({"x": [1, 2]}))
    artifacts.seal(partial, folder, {"stage": "s", "key": "k"})
    return folder


# ---- single files


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_file_is_whole_or_absent(tmp_path, monkeypatch, broken):
    path = tmp_path / "deep" / "f.json"
    artifacts.write_json(path, {"a": 1})

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(*((Path, "replace") if broken == "replace" else (os, "fsync")), fail)
    with pytest.raises(OSError, match="no space"):
        artifacts.write_json(path, {"a": 2})
    assert artifacts.read_json(path) == {"a": 1}


def test_a_table_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"

    def half(frame, target, **options):
        Path(target).write_bytes(b"PAR1 half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(OSError, match="no space"):
        artifacts.write_parquet(path, pd.DataFrame({"x": [1]}))
    assert not path.exists()


def test_the_types_of_a_table_do_not_depend_on_its_rows(tmp_path):
    full = pd.DataFrame({"id": ["a"], "answer": ["1"], "options": [["x"]], "share": [0.5], "right": [True]})
    bare = full.assign(answer=[None], options=[[]])
    for name, frame in (("full", full), ("bare", bare)):
        artifacts.write_parquet(tmp_path / f"{name}.parquet", frame)
    types = artifacts.schemas(tmp_path)
    assert types["full.parquet"] == types["bare.parquet"]
    back = artifacts.read_parquet(tmp_path / "bare.parquet")
    assert pd.isna(back["answer"][0]) and list(back["options"][0]) == []


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.json is missing"):
        artifacts.read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"b\.json cannot be read"):
        artifacts.read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match=r"c\.parquet is missing"):
        artifacts.read_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UserError, match=r"d\.parquet is not a readable"):
        artifacts.read_parquet(tmp_path / "d.parquet")
    artifacts.write_parquet(tmp_path / "e.parquet", pd.DataFrame({"x": [1]}))
    with pytest.raises(UserError, match=r"e\.parquet lacks the columns y, z"):
        artifacts.read_parquet(tmp_path / "e.parquet", ["x", "y", "z"])


# ---- folders


def test_seal_and_verify(tmp_path):
    folder = stage_folder(tmp_path)
    manifest = artifacts.read_manifest(folder)
    assert set(manifest["files"]) == {"a.txt", "model/t.parquet"}
    assert manifest["files"] == artifacts.hash_files(folder)
    artifacts.verify(folder, manifest, "make it")
    assert not (tmp_path / "s.partial").exists()


def test_a_crash_inside_a_stage_leaves_no_final_folder(study, tmp_path, monkeypatch):
    from rdlib.method import voting

    root = copy_study(study, tmp_path, "02_pseudo_labels")
    stage = stage_in(root, "02_pseudo_labels")

    def half(stage, work):
        artifacts.write_bytes(work / "labels.parquet", b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(voting, "run", half)
        with pytest.raises(KeyboardInterrupt):
            stage.run()
    assert not stage.folder.exists() and not stage.done
    with pytest.raises(UserError, match=r"02_pseudo_labels is missing.*02_pseudo_labels\.ipynb"):
        stage.require()
    stage.run()
    assert artifacts.hash_files(stage.folder) == artifacts.hash_files(stage_in(study, "02_pseudo_labels").folder)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("a.txt", lambda p: p.write_bytes(b"b"), r"a\.txt was changed or cut"),
        ("model/t.parquet", lambda p: p.write_bytes(p.read_bytes()[:-1]), r"t\.parquet was changed or cut"),
        ("a.txt", lambda p: p.unlink(), r"a\.txt is gone"),
        ("model", shutil.rmtree, r"t\.parquet is gone"),
    ],
)
def test_damage_is_refused_by_name(tmp_path, name, damage, words):
    folder = stage_folder(tmp_path)
    damage(folder / name)
    with pytest.raises(UserError, match=words) as caught:
        artifacts.verify(folder, artifacts.read_manifest(folder), "make it")
    assert f"delete {folder}, then run `make it`" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"stage": "s"}', '{"stage": "s", "key": "k", "files": []}', "\x00"],
)
def test_a_foreign_manifest_is_refused(tmp_path, content):
    folder = stage_folder(tmp_path)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        artifacts.read_manifest(folder)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "s").mkdir()
    assert artifacts.read_manifest(tmp_path / "s") is None  # empty, as good as absent
    (tmp_path / "s" / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match="no manifest"):
        artifacts.read_manifest(tmp_path / "s")


# ---- through a stage


@pytest.mark.parametrize("damage", ["changed", "cut", "deleted"])
def test_a_stage_refuses_damaged_inputs(study, tmp_path, damage):
    root = copy_study(study, tmp_path, "03_sft_warmup")
    path = stage_in(root, "01_teacher_responses").folder / "responses.parquet"
    if damage == "deleted":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-10] if damage == "cut" else content.replace(content[50:60], b"0123456789"))
    with pytest.raises(UserError, match=r"responses\.parquet"):
        stage_in(root, "03_sft_warmup", "ours_wo_r").run()
    with pytest.raises(UserError, match=r"responses\.parquet"):
        stage_in(root, "01_teacher_responses").run()


@pytest.mark.parametrize("read", [lambda s: s.table("scores"), lambda s: s.json("summary")])
def test_reading_an_edited_artifact_names_it_and_the_command_that_remakes_it(study, tmp_path, read):
    stage = stage_in(copy_study(study, tmp_path), "05_reward_model")
    for name in ("scores.parquet", "summary.json"):
        with (stage.folder / name).open("ab") as file:
            file.write(b" ")
    with pytest.raises(UserError, match=r"(scores\.parquet|summary\.json) was changed or cut") as caught:
        read(stage)
    assert f"then run `{stage.command}`" in str(caught.value)
    shutil.rmtree(stage.folder)
    with pytest.raises(UserError, match="05_reward_model is missing") as caught:
        read(stage)
    assert f"as by `{stage.command}`" in str(caught.value)


def test_every_stages_command_is_accepted_by_its_notebook(study):
    for name, spec in STAGES.items():
        stage = stage_in(study, name, (spec.methods or (None,))[-1])
        words = shlex.split(stage.command)
        assert words[:4] == ["python", "-m", "rdlib", "execute"]
        check_parameters(REPOSITORY / words[4], json.loads(words[6]))
    varied = stage_in(study, "05_reward_model").with_overrides({"reward_model.lam": 0.25})
    assert json.loads(shlex.split(varied.command)[6])["overrides"] == {"reward_model.lam": 0.25}


# ---- two at once, and a full disk


def test_two_runs_in_one_folder_the_second_stops(study, tmp_path, monkeypatch):
    from rdlib.method import voting

    stage = stage_in(copy_study(study, tmp_path, "02_pseudo_labels"), "02_pseudo_labels")
    original, seen = voting.run, []

    def run_with_another(one, work):
        with pytest.raises(UserError, match=r"Another run is at work in .*02_pseudo_labels\.partial") as caught:
            stage_in(tmp_path, "02_pseudo_labels").run()
        seen.append(str(caught.value))
        original(one, work)

    with monkeypatch.context() as patch:
        patch.setattr(voting, "run", run_with_another)
        stage.run()
    assert len(seen) == 1 and stage.done
    assert artifacts.hash_files(stage.folder) == artifacts.hash_files(stage_in(study, "02_pseudo_labels").folder)


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(study, tmp_path, monkeypatch):
    """On a small file system of its own, which is then made larger; where there can be none, by a failing write."""
    root = copy_study(study, tmp_path / "root", "04_student_responses")
    stage = stage_in(root, "04_student_responses")
    place = stage.folder.parent
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    shutil.rmtree(place)
    place.mkdir()
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    try:
        with pytest.raises(UserError, match=r"04_student_responses: the disk or the quota of runs is full") as caught:
            stage.run()
        assert "\n" not in str(caught.value)
        assert not stage.done and not list(place.rglob("*.tmp"))
        for table in place.rglob("*.parquet"):
            pd.read_parquet(table)
        subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
        stage.run()
        assert artifacts.hash_files(stage.folder) == artifacts.hash_files(stage_in(study, stage.name).folder)
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "permission"), False),
        (ValueError("a full bus"), False),
    ],
)
def test_a_full_disk_is_known_by_number_or_words(error, full):
    assert errors.is_disk_full(error) is full
    try:
        try:
            raise error
        except Exception:
            raise UserError("the model cannot be written") from None
    except UserError as outer:
        assert errors.is_disk_full(outer) is full


def test_a_manifest_names_the_last_part_of_an_absolute_path(tmp_path):
    from conftest import make_root

    settings = tmp_path / "somebody" / "ddp.yaml"
    stage = stage_in(make_root(tmp_path / "root", training={"accelerate": str(settings)}), "00_data")
    assert str(tmp_path) in json.dumps(stage.at("03_sft_warmup", "sft").settings)
    assert str(tmp_path) not in json.dumps(stage.at("03_sft_warmup", "sft")._record("now", 1.0))


def test_a_stage_never_overwrites_a_foreign_folder(study, tmp_path):
    root = copy_study(study, tmp_path, "02_judgement")
    folder = stage_in(root, "02_judgement").folder
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no manifest"):
        stage_in(root, "02_judgement").run()
    assert (folder / "notes.txt").read_text() == "mine"


def test_no_artifact_tells_paths_users_or_hosts(study):
    private = {str(study), str(REPOSITORY), str(Path.home())} - {"/"}
    # Shorter names, such as root and vm, occur by chance in weights
    private |= {name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 5}
    count = 0
    for path in (study / "runs").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in private if word.encode() in content], path
            count += path.suffix == ".json"
    assert count > 20


def test_a_manifest_says_what_made_it(study):
    stage = stage_in(study, "05_reward_model")
    manifest = artifacts.read_manifest(stage.folder)
    assert manifest["stage"] == "05_reward_model"
    assert manifest["axes"] == {"dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours", "seed": 0}
    assert manifest["settings"]["reward_model"] == stage.profile.reward_model.model_dump()
    warmup = stage.inputs["warmup"]
    assert manifest["inputs"]["warmup"] == {
        "stage": "tiny/gsm/strong/small/ours_wo_r/seed0/03_sft_warmup",
        "content": artifacts.content_hash(artifacts.hash_files(warmup.folder)),
    }
    assert manifest["settings"]["dataset"]["train"] == 16
    assert manifest["settings"]["models"] == {"teachers": "models/strong", "students": "models/small"}
    assert manifest["schemas"]["scores.parquet"]["score"] == "float"
    assert warmup.folder.name in manifest["inputs"]["warmup"]["stage"] and len(manifest["code"]) == 64
    assert datetime.fromisoformat(manifest["started"]) <= datetime.fromisoformat(manifest["ended"])
    made = {"commit", "dirty", "packages", "python", "machine"}
    made |= {"numerics", "processor", "instruction_sets", "torch_kernels"}
    assert set(manifest["environment"]) == made
    assert json.loads(json.dumps(manifest)) == manifest


def test_what_a_release_writes_does_not_make_the_code_dirty(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    for name in ("rdlib/artifacts.py", "figures/table.csv", "docs/results.md", "README.md", "params/micro.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "rdlib" / "artifacts.py"))
    for name in ("figures/table.csv", "docs/results.md", "README.md"):
        (tmp_path / name).write_text("2")
    assert artifacts._versions.__wrapped__()["dirty"] is False
    (tmp_path / "params/micro.yaml").write_text("2")
    assert artifacts._versions.__wrapped__()["dirty"] is True
