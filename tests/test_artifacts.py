"""Artifacts: whole or absent, sealed, checked when read, free of the machine's paths and users, and read in chunks."""

from __future__ import annotations

import errno
import getpass
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, copy_study, make_root, refused, stage_in
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib import artifacts, errors, streams
from rdlib.errors import UserError
from rdlib.study.execute import check_parameters
from rdlib.study.specification import STAGES

# ---- single files


def fail(*args, **options):
    """As a write to a full disk."""
    raise OSError("no space left on device")


def half_a_table(frame, target, **options):
    Path(target).write_bytes(b"PAR1 half of it")
    fail()


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [(Path, "replace", fail), (os, "fsync", fail), (pd.DataFrame, "to_parquet", half_a_table)],
)
def test_a_file_is_whole_or_absent(tmp_path, monkeypatch, owner, name, broken):
    table, document = tmp_path / "t.parquet", tmp_path / "deep" / "f.json"
    artifacts.write_json(document, {"a": 1})
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(OSError, match="no space"):
        artifacts.write_parquet(table, pd.DataFrame({"x": [1]}))
    if broken is fail:
        with pytest.raises(OSError, match="no space"):
            artifacts.write_json(document, {"a": 2})
    assert artifacts.read_json(document) == {"a": 1} and not table.exists()


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "b.json").write_text('{"a": ')
    (tmp_path / "d.parquet").write_bytes(b"PAR1 cut")
    artifacts.write_parquet(tmp_path / "e.parquet", pd.DataFrame({"x": [1]}))
    for read, name, words in (
        (artifacts.read_json, "a.json", "is missing"),
        (artifacts.read_json, "b.json", "cannot be read"),
        (artifacts.read_parquet, "c.parquet", "is missing"),
        (artifacts.read_parquet, "d.parquet", "is not a readable"),
        (lambda path: artifacts.read_parquet(path, ["x", "y", "z"]), "e.parquet", "lacks the columns y, z"),
        (lambda path: next(streams.read_parquet(path)), "c.parquet", "run the stage"),
        (lambda path: next(streams.read_parquet(path)), "d.parquet", "not a readable Parquet file"),
    ):
        refused(f"{re.escape(name)}.*{words}", read, tmp_path / name)


def test_the_types_of_a_table_do_not_depend_on_its_rows(tmp_path):
    full = pd.DataFrame({"id": ["a"], "answer": ["1"], "options": [["x"]], "share": [0.5], "right": [True]})
    bare = full.assign(answer=[None], options=[[]])
    for name, frame in (("full", full), ("bare", bare)):
        artifacts.write_parquet(tmp_path / f"{name}.parquet", frame)
    types = artifacts.schemas(tmp_path)
    assert types["full.parquet"] == types["bare.parquet"]
    back = artifacts.read_parquet(tmp_path / "bare.parquet")
    assert pd.isna(back["answer"][0]) and list(back["options"][0]) == []


# ---- folders


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("scores.parquet", lambda p: p.write_bytes(p.read_bytes()[:-1]), "was changed or cut"),
        ("summary.json", lambda p: p.write_bytes(p.read_bytes() + b" "), "was changed or cut"),
        ("model/config.json", lambda p: p.unlink(), "is gone"),
        ("model", shutil.rmtree, "is gone"),
    ],
)
def test_damage_is_refused_by_name_with_the_command_that_computes_it_again(study, tmp_path, name, damage, words):
    """By what reads it as an input, and by the stage itself."""
    stage = stage_in(copy_study(study, tmp_path, "06_ppo"), "05_reward_model")
    damage(stage.folder / name)
    one = {"scores.parquet": lambda: stage.table("scores"), "summary.json": lambda: stage.json("summary")}
    for reads in (stage_in(tmp_path, "06_ppo").run, stage.run, one.get(name, stage.verified)):
        message = refused(rf"{name}.* {words}", reads)
        assert f"delete {stage.folder}, then run `{stage.command}`" in message


def test_what_is_missing_is_named_with_its_command(study, tmp_path):
    stage = stage_in(copy_study(study, tmp_path, "05_reward_model"), "05_reward_model")
    for reads in (stage.require, lambda: stage.table("scores"), lambda: stage.json("summary")):
        message = refused("05_reward_model is missing", reads)
        assert f"as by `{stage.command}`" in message


FOREIGN = ["", "{", "[]", "{}", '{"stage": "s"}', '{"stage": "s", "key": "k", "files": []}']


@pytest.mark.parametrize("content", [*FOREIGN, None])
def test_a_foreign_manifest_or_folder_is_refused_and_left_alone(study, tmp_path, content):
    stage = stage_in(copy_study(study, tmp_path, "02_judgement"), "02_judgement")
    stage.folder.mkdir()
    assert artifacts.read_manifest(stage.folder) is None  # empty, as good as absent
    (stage.folder / "thesis.docx").write_text("years of work")
    if content is not None:
        (stage.folder / "manifest.json").write_text(content)
    refused("no manifest" if content is None else r"manifest\.json", stage.run)
    assert (stage.folder / "thesis.docx").read_text() == "years of work"


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
        refused(r"04_student_responses: the disk or the quota of runs is full", stage.run)
        assert not stage.done and not list(place.rglob("*.tmp"))
        for table in place.rglob("*.parquet"):
            pd.read_parquet(table)
        subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
        stage.run()
        assert artifacts.hash_files(stage.folder) == artifacts.hash_files(stage_in(study, stage.name).folder)
    finally:
        subprocess.run(["umount", str(place)], check=True)


IN_WORDS = RuntimeError("I/O error: No space left on device (os error 28)")
FULL = [OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota"), IN_WORDS]
OTHERS = [OSError(errno.EACCES, "permission"), ValueError("a full bus")]


@pytest.mark.parametrize("error", FULL + OTHERS)
def test_a_full_disk_is_known_by_number_or_words(error):
    """Also where a sentence took its place."""
    assert errors.is_disk_full(error) is (error in FULL)
    outer = UserError("the model cannot be written")
    outer.__context__ = error
    assert errors.is_disk_full(outer) is (error in FULL)


def test_a_manifest_names_the_last_part_of_an_absolute_path(tmp_path):
    given_file = str(tmp_path / "somebody" / "ddp.yaml")
    stage = stage_in(make_root(tmp_path / "root", training={"accelerate": given_file}), "00_data")
    assert str(tmp_path) in json.dumps(stage.at("03_sft_warmup", "sft").settings)
    assert str(tmp_path) not in json.dumps(stage.at("03_sft_warmup", "sft")._record("now", 1.0))


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


# ---- tables in chunks


@settings(max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 9))
def test_no_question_is_parted(tmp_path_factory, counts, rows):
    path = tmp_path_factory.mktemp("stream") / "table.parquet"
    table = pd.DataFrame({"id": [f"q{i:02d}" for i, n in enumerate(counts) for _ in range(n)]})
    table["sample"] = range(len(table))
    artifacts.write_parquet(path, table)
    chunks = list(streams.whole_questions(path, ["id", "sample"], rows))
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), table)
    ids = [set(chunk["id"]) for chunk in chunks]
    assert sum(map(len, ids)) == len(counts)
    assert max(map(len, chunks)) <= 2 * rows + max(counts)


def test_chunks_are_written_as_a_whole_table_is_or_not_at_all(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "answer": ["1", None], "share": [0.5, 1.0]})
    artifacts.write_parquet(tmp_path / "whole.parquet", table)
    streams.write_parquet(tmp_path / "one.parquet", [table])
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    parts = [table[:1], table[1:].assign(answer=pd.Series([None], dtype="str", index=[1]))]  # without any answer
    streams.write_parquet(tmp_path / "two.parquet", iter(parts))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "two.parquet"), pd.read_parquet(tmp_path / "one.parquet"))

    def chunks():
        yield table
        raise ValueError

    with pytest.raises(ValueError):
        streams.write_parquet(tmp_path / "none.parquet", chunks())
    assert not (tmp_path / "none.parquet").exists()
