"""The first twenty questions of the laptop study, every stage once, through papermill: `make check KIND=real`.

Its teacher is the recording, its student a real 0.5B model: real tokens, chat template, end tokens and lengths go
through the whole pipeline, with LoRA and a few PPO updates. Nothing here is about accuracy.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = REPOSITORY / "params/gsm8k_laptop.yaml"
RECORDING = REPOSITORY / "figures/laptop/teacher_responses.parquet"
LONGEST = 128  # tokens of a response
AXES = {"dataset": "gsm", "teacher": "teacher", "student": "student"}
NOTEBOOKS = [
    ("00_data", ("dataset",), {}),
    ("01_teacher_responses", ("dataset", "teacher"), {}),
    ("02_pseudo_labels", ("dataset", "teacher"), {}),
    ("03_sft_warmup", tuple(AXES), {"method": "ours_wo_r"}),
    ("04_student_responses", tuple(AXES), {"method": "ours"}),
    ("05_reward_model", tuple(AXES), {"method": "ours"}),
    ("06_ppo", tuple(AXES), {"method": "ours"}),
    ("07_evaluate", tuple(AXES), {"methods": ["icl", "ours_wo_r", "ours"]}),
]


def settings(runs: Path) -> dict:
    """The laptop study's profile with fewer questions, samples and steps, and shorter responses."""
    content = yaml.safe_load(PROFILE.read_text())
    content["datasets"]["gsm"] |= {"train": 20, "validation": 8, "test": 8, "max_tokens": LONGEST}
    less = {
        "sft": {"epochs": 1, "batch_size": 8, "responses_per_question": 2},
        "student_sampling": {"samples": 4},
        "reward_model": {"epochs": 1, "batch_size": 4, "samples_per_kind": 2},
        "ppo": {"total_updates": 3, "episodes_per_update": 8, "minibatch_size": 8},
        "stopping": {"every": 5, "patience": 10, "warmup_steps": 1},
    }
    smaller = {name: content[name] | values for name, values in less.items()}
    return content | smaller | {"name": "real", "runs": str(runs)}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The folder of a finished run, with seconds and peak memory of each notebook in times.json."""
    if not RECORDING.is_file():
        pytest.skip("the teacher's responses are not in figures/laptop: make laptop RECORD=yes records them")
    folder = tmp_path_factory.mktemp("real")
    (folder / "real.yaml").write_text(yaml.safe_dump(settings(folder / "runs")))
    times = {}
    for notebook, axes, more in NOTEBOOKS:
        parameters = {"profile": str(folder / "real.yaml"), **{axis: AXES[axis] for axis in axes}, **more}
        source, executed = REPOSITORY / f"notebooks/{notebook}.ipynb", folder / f"{notebook}.ipynb"
        words = [sys.executable, "-m", "rdlib", "execute", str(source), str(executed), json.dumps(parameters)]
        started = time.time()
        environment = os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
        with subprocess.Popen(words, cwd=REPOSITORY, env=environment) as process:
            peak = watch(process)
        assert process.returncode == 0, f"{notebook} failed: see {executed}"
        times[notebook] = {"seconds": round(time.time() - started), "peak_gib": round(peak / 2**30, 2)}
        print(notebook, times[notebook])
    (folder / "times.json").write_text(json.dumps(times))
    return folder


def watch(process: subprocess.Popen) -> int:
    """Wait for a process; the largest memory of it and its children, in bytes."""
    peak, family = 0, psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(p.memory_info().rss for p in (family, *family.children(recursive=True))))
        time.sleep(0.5)
    return peak


def only(study: Path, pattern: str) -> Path:
    (found,) = (study / "runs").rglob(pattern)
    return found


def test_responses_end_where_the_model_ended_them(study):
    """The end token is the chat's, so some responses are finished, none holds a special token, none runs on."""
    responses = pd.read_parquet(only(study, "01_teacher_responses/responses.parquet"))
    assert responses["finished"].any()
    assert not responses["text"].str.contains("<|im_", regex=False).any()
    sampled = responses[responses["tokens"] > 0]  # copies of the greedy response cost no tokens
    assert (sampled.loc[~sampled["finished"], "tokens"] >= LONGEST).all()
    assert responses["answer"].notna().mean() > 0.5


def test_every_stage_trained_and_only_adapters_moved(study):
    from safetensors.torch import load_file

    for stage in ("03_sft_warmup", "05_reward_model", "06_ppo"):
        folder = only(study, f"{stage}/summary.json").parent
        weights = load_file(folder / "model/model.safetensors")
        assert any("embed_tokens" in name for name in weights)  # a merged model, which any engine can load
    history = pd.read_json(only(study, "06_ppo/history.jsonl"), lines=True)
    assert len(history) == 4 and history["kl"].dropna().abs().max() < 5


def test_the_evaluation_answers_every_question(study):
    for folder in (study / "runs").rglob("07_evaluate"):
        answers = pd.read_parquet(folder / "answers.parquet")
        assert len(answers) == 8 and answers["gold"].notna().all()
