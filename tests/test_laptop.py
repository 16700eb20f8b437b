"""The laptop study beside its run: what the profile promises, the questions, the recorder and its recording."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY

from rdlib import numerics
from rdlib.engines.asking import Reply
from rdlib.engines.generation import Request
from rdlib.engines.replay import ReplayEngine, hash_of, plain_question
from rdlib.engines.store import Store, Wanted
from rdlib.profile import load_profile
from rdlib.study import outlook
from rdlib.study.stage import make_stage
from rdlib.tasks.prompts import Prompt

sys.path.insert(0, str(REPOSITORY / "scripts"))

import laptop

PROFILES = ("params/gsm8k_laptop.yaml", laptop.PROFILE)
RECORDING = REPOSITORY / "figures/laptop/teacher_responses.parquet"


def test_both_profiles_ask_the_same():
    """Only where the teacher is, and the name, differ: the recording of the one serves the other."""
    study, teacher = (load_profile(REPOSITORY / path) for path in PROFILES)
    different = {name for name in study.model_dump() if getattr(study, name) != getattr(teacher, name)}
    assert different == {"name", "teachers"}
    assert teacher.model_of("teacher").engine == "openai" and study.model_of("teacher").engine == "replay"
    assert REPOSITORY / study.model_of("teacher").model == laptop.RECORDING
    assert REPOSITORY / study.datasets["gsm"].path == laptop.QUESTIONS


def rows(count: int) -> str:
    return "".join(
        json.dumps({"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"}) + "\n" for n in range(count)
    )


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """An empty .real, and a GSM8K of three training questions and a test question in a folder."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.jsonl").write_text(rows(3))
    (source / "test.jsonl").write_text(rows(1))
    monkeypatch.setattr(laptop, "QUESTIONS", tmp_path / "real/gsm8k")
    monkeypatch.setattr(laptop, "SPLITS", {"train": 3, "test": 1})
    monkeypatch.setenv("GSM8K", str(source))
    return source


def test_questions_of_a_folder(home):
    laptop.questions()
    assert (laptop.QUESTIONS / "train.jsonl").read_text() == rows(3)
    (home / "train.jsonl").write_text(rows(2))
    laptop.questions()  # they are there
    assert (laptop.QUESTIONS / "train.jsonl").read_text() == rows(3)


def test_other_questions_than_gsm8ks_are_said(home):
    (home / "train.jsonl").write_text(rows(2))
    with pytest.raises(SystemExit, match="GSM8K's train has 2 questions instead of 3: give the original files"):
        laptop.questions()
    (home / "train.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"has no train\.jsonl: name the folder"):
        laptop.questions()
    assert not laptop.QUESTIONS.exists()


def test_without_the_hub_or_a_folder_the_folder_is_asked_for(home, monkeypatch):
    from rdlib.errors import UserError
    from rdlib.tasks import sources

    def no_hub(source, split):
        raise UserError("openai/gsm8k cannot be read from the hub (no network).")

    monkeypatch.delenv("GSM8K")
    monkeypatch.setattr(sources, "_of_hub", no_hub)
    with pytest.raises(SystemExit, match=r"cannot be read .* Here: GSM8K=FOLDER make laptop"):
        laptop.questions()


def test_a_processor_without_avx2_begins_at_the_vote(monkeypatch):
    monkeypatch.setattr(numerics, "processor", lambda: {"instruction_sets": ["fma"]})
    with pytest.raises(SystemExit, match="needs a processor with AVX2: begin at the vote"):
        laptop.record(None)


def test_the_recording_serves_what_the_store_has_and_holds_no_question(tmp_path, monkeypatch):
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    monkeypatch.setattr(laptop, "load_teacher", lambda: load_profile(REPOSITORY / laptop.PROFILE).model_of("teacher"))
    question = "Weng earns $12 an hour.\r\nHow much in two hours? "
    asked = {"model": "m", "temperature": 0.7}
    with Store.open(tmp_path / "store.sqlite") as store:
        for sample, (text, ended) in enumerate(((" 24\n#### 24 ", True), ("She earns", False))):
            wanted = Wanted(b"digest", "0", (sample,), 256)
            reply = Reply("answer", text, ended=ended, reason="stop" if ended else "length", tokens=5)
            store.add(wanted, asked, ("gsm8k-train-00001", question), sample, reply, "run")
        store.add(wanted, asked, ("gsm8k-train-00001", question), 2, Reply("failed", words="busy"), "run")
    laptop.write_recording(tmp_path / "store.sqlite", tmp_path / "figures/r.parquet")
    table = pd.read_parquet(tmp_path / "figures/r.parquet")
    assert "question" not in table and set(table["question_sha256"]) == {hash_of(plain_question(question))}
    assert b"Weng" not in (tmp_path / "figures/r.parquet").read_bytes()
    prompt = Prompt((("user", question),), question, "another-id", question)
    served = ReplayEngine(tmp_path / "figures/r.parquet").generate([Request(prompt, 2, 0.7)], 0)[0]
    assert [(one.text, one.count, one.finished) for one in served] == [
        ("24\n#### 24", 5, True),
        ("She earns", 5, False),
    ]


@pytest.mark.skipif(not RECORDING.is_file(), reason="the teacher's responses have not been recorded yet")
def test_the_recording_in_the_repository_is_small_and_without_questions():
    assert RECORDING.stat().st_size < 5e6
    table = pd.read_parquet(RECORDING)
    assert list(table) == ["id", "question_sha256", "temperature", "sample", "text", "tokens", "finished"]
    assert not table.duplicated(["id", "temperature", "sample"]).any()


@pytest.mark.skipif(not RECORDING.is_file(), reason="the teacher's responses have not been recorded yet")
@pytest.mark.skipif(not laptop.QUESTIONS.is_dir(), reason="GSM8K is not in .real: make laptop puts it there")
def test_the_recording_in_the_repository_serves_the_whole_study():
    outlook.check_recording(make_stage("01_teacher_responses", PROFILES[0], dataset="gsm", teacher="teacher"))
    axes = {"dataset": "gsm", "teacher": "teacher", "method": "teacher"}
    outlook.check_recording(make_stage("07_evaluate", PROFILES[0], **axes))
