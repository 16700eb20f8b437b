"""Own questions from the first to the last, as a user has it (`docs/own_questions.md`): `make check KIND=own`.

A vLLM server with SmolLM2-135M-Instruct is the teacher, fifty questions without answers are all there is, and a student
learns by LoRA: `python -m rdlib study`, whose server is killed half way, started again, and a report at the end.
The profile is the one that ships, made small. Teacher and student are the same little model, so nothing here is about
how good it gets.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / ".real/smollm2"
SERVED = "SmolLM2-135M-Instruct"
VLLM = REPOSITORY / ".venv-vllm/bin/python"
QUESTIONS = Path(__file__).with_name("questions.jsonl")
KILLED_AFTER = 30  # answers, of a hundred and more
LONGEST_START = 600  # seconds


class Server:
    """A vLLM server with the teacher, always at the same address; its log tells how often it was asked."""

    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url, self.folder, self.starts = f"http://127.0.0.1:{self.port}/v1", folder, 0

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.starts += 1
        options = {"model": MODEL, "served-model-name": SERVED, "host": "127.0.0.1", "port": self.port}
        options |= {"dtype": "float32", "kv-cache-memory-bytes": 2**29, "max-model-len": 1024}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [VLLM, "-m", "vllm.entrypoints.openai.api_server", *words, "--enforce-eager"]
        settings = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
        settings |= {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
        with self.log.open("w") as log:
            environment = os.environ | settings
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        deadline = time.time() + LONGEST_START
        while time.time() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/models").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(1)
        pytest.fail(self.log.read_text()[-3000:])

    @property
    def log(self) -> Path:
        return self.folder / f"server{self.starts}.log"

    @property
    def answered(self) -> int:
        """How many requests it has answered since it was started."""
        return self.log.read_text().count('POST /v1/chat/completions HTTP/1.1" 200')

    def kill(self) -> None:
        """End it and its workers at once, as a power failure would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


def settings(folder: Path, url: str) -> dict:
    """`params/own_questions.yaml` for this server and these questions, made small."""
    content = yaml.safe_load((REPOSITORY / "params/own_questions.yaml").read_text())
    del content["hardware"]
    (teacher,), dataset = content["teachers"].values(), content["datasets"]["mine"]
    teacher |= {"model": SERVED, "base_url": url, "concurrency": 8, "attempts": 3, "requests_per_minute": None}
    dataset |= {"path": str(QUESTIONS), "answer": "math", "max_tokens": 24, "validation": 8, "test": 10}
    small = {
        "teacher_sampling": {"high_temperatures": [0.0, 0.3], "low_temperatures": [1.0], "samples_per_temperature": 2},
        "voting": {"threshold": 0.3},  # thin votes
        "stopping": {"every": 2, "patience": 8, "warmup_steps": 1},
        "sft": {"epochs": 1, "batch_size": 8, "learning_rate": 2.0e-4, "responses_per_question": 1},
        "student_sampling": {"samples": 4},
        "reward_model": {"epochs": 1, "batch_size": 4, "samples_per_kind": 1},
        "ppo": {"total_updates": 2, "episodes_per_update": 4, "minibatch_size": 4, "learning_rate": 1.0e-4},
        "training": {"lora": {"r": 8, "alpha": 16}, "gradient_accumulation": 1, "gradient_checkpointing": False},
        "generation": {"batch_size": 64, "shard_size": 64},
        "grid": {"teacher_share": [0.5]},  # one response of a kind has no other share
    }
    changed = {name: content[name] | values for name, values in small.items()}
    students = {"student": {"model": str(MODEL)}}
    return content | changed | {"name": "own", "runs": str(folder / "runs"), "students": students}


def study(profile: Path, *words: str) -> subprocess.Popen:
    """A study of a profile, started."""
    command = [sys.executable, "-m", "rdlib", "study", "--profile", str(profile), "--jobs", "1", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def refused(profile: Path, *words: str) -> str:
    """The one sentence that a study ends in before it has begun."""
    process = study(profile, *words)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2 and said.startswith("error: ") and len(said.splitlines()) == 1, said
    return said


def kept(runs: Path) -> int:
    """How many answers of the teacher are in the shards and journals of a run that is not finished."""
    shards = [*runs.rglob("01_teacher_responses.partial/shards/*")]
    lines = [line for path in shards if path.suffix == ".jsonl" for line in path.read_text().splitlines() if line]
    whole = [pd.read_parquet(path) for path in shards if path.suffix == ".parquet"]
    return len(lines) + sum(len(frame.drop_duplicates(["id", "temperature"])) for frame in whole)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What happened, by name: the sentences said, answers kept and asked for, and the folder of the runs."""
    assert VLLM.exists(), f"{VLLM} is missing: `make check KIND=own` builds it."
    folder = tmp_path_factory.mktemp("own")
    server, profile, told = Server(folder), folder / "own.yaml", {"runs": folder / "runs/own"}
    profile.write_text(yaml.safe_dump(content := settings(folder, server.url)))
    try:
        told["no server"] = refused(profile)
        server.start()
        told["no log-probabilities"] = refused(profile, "--experiments", "questions")
        content["teachers"]["teacher"]["model"] = "SmolLM2-1.7B-Instruct"
        (folder / "other.yaml").write_text(yaml.safe_dump(content | {"name": "other"}))
        told["another model"] = refused(folder / "other.yaml")
        assert not (folder / "runs").exists()

        process = study(profile)
        while kept(folder / "runs") < KILLED_AFTER:
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        server.kill()
        told["out"], told["server killed"] = process.communicate(timeout=600)
        told["code"], told["kept"] = process.returncode, kept(folder / "runs")
        told["still down"] = refused(profile)

        server.start()
        process = study(profile)
        told["end"] = process.communicate(timeout=4 * 3600)  # of a machine with much else to do
        told["end code"], told["asked again"] = process.returncode, server.answered
    finally:
        server.kill()
    print(*(f"{name}: {value}" for name, value in told.items()), sep="\n")
    yield told
    shutil.rmtree(told["runs"], ignore_errors=True)  # 4 GB


def table(story, pattern: str) -> pd.DataFrame:
    (found,) = story["runs"].rglob(pattern)
    return pd.read_parquet(found) if found.suffix == ".parquet" else pd.read_csv(found, keep_default_na=False)


def test_what_cannot_work_is_said_before_anything_is_computed(story):
    assert "No server answers at http://127.0.0.1:" in story["no server"]
    assert f"has no model 'SmolLM2-1.7B-Instruct' but {SERVED}: name one of these" in story["another model"]
    assert "on-policy distillation learns from the teacher's log-probabilities" in story["no log-probabilities"]


def test_a_killed_server_ends_the_study_in_one_sentence(story):
    said = [line for line in story["server killed"].splitlines() if "study:" not in line and line.strip()]  # its bar
    assert story["code"] == 1 and "Traceback" not in story["server killed"]
    assert [line for line in said if line.startswith("FAILED")] == said[:1], said
    assert re.match(r"FAILED 01_teacher_responses\S*: The server .* failed \d times in a row, .* is kept", said[0])
    assert story["kept"] >= KILLED_AFTER
    assert "No server answers" in story["still down"]


def test_the_same_command_goes_on_and_asks_nothing_twice(story):
    assert story["end code"] == 0, story["end"]
    responses, held_out = (table(story, f"{n}/responses.parquet") for n in ("01_teacher_responses", "01_held_out"))
    requests = sum(len(frame.drop_duplicates(["id", "temperature"])) for frame in (responses, held_out))
    evaluated = len(table(story, "teacher/seed0/07_evaluate/answers.parquet"))
    assert story["asked again"] == requests + evaluated - story["kept"]


def test_the_report_tells_of_agreement_and_claims_no_accuracy(story):
    figures = story["runs"] / "figures"
    report = (figures / "held_out_agreement.md").read_text()
    assert report.startswith("# Agreement with the teacher's vote on held-out questions") and "no accuracy" in report
    found = table(story, "figures/held_out_agreement.csv")
    main = found[found["variant"] == ""].set_index("method")
    assert list(main.index) == ["teacher", "icl", "ours_wo_r", "ours"]
    assert (main["held_out"] == 10).all() and main["n"].between(1, 10).all()
    for row in main.itertuples():
        assert 0 <= row.agreement_low_pct <= row.agreement_pct <= row.agreement_high_pct <= 100
    assert set(table(story, "results/seed0/answers.parquet")["split"]) == {"held-out"}
    assert not list(figures.glob("table_2_main.*")) and not list(figures.glob("claims.*"))
    assert (figures / "health.md").read_text().startswith("# What PPO did to your student\n\n**")
