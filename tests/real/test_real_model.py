"""Every stage once with a real instruction model and real GSM8K questions, through papermill: `make real-test`.

SmolLM2-135M-Instruct is teacher and student. It answers few questions right, so nothing here is about accuracy: real
tokenizers, chat templates, end tokens and lengths go through the whole pipeline, with LoRA and a few PPO updates.
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
MODEL = REPOSITORY / ".real/smollm2"
LOCAL = REPOSITORY.parent / "shared/data/gsm8k"  # where there is no hub
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
    """A profile of a few dozen questions; the answers' votes are thin, so the threshold is low."""
    content = yaml.safe_load((REPOSITORY / "params/single_gpu.yaml").read_text())
    del content["hardware"]
    path = str(LOCAL) if LOCAL.is_dir() else None
    dataset = {"source": "gsm8k", "answer": "math", "path": path, "max_tokens": 96}
    return content | {
        "name": "real",
        "runs": str(runs),
        "teachers": {"teacher": str(MODEL)},
        "students": {"student": str(MODEL)},
        "datasets": {"gsm": dataset | {"train": 16, "validation": 8, "test": 8, "perturbed_test": 0}},
        "teacher_sampling": {
            "high_temperatures": [0.0, 0.3],
            "low_temperatures": [0.8],
            "samples_per_temperature": 3,
        },
        "voting": {"threshold": 0.2},
        "stopping": {"every": 2, "patience": 8, "warmup_steps": 1},
        "sft": content["sft"] | {"epochs": 1, "batch_size": 8, "learning_rate": 2.0e-4, "responses_per_question": 1},
        "student_sampling": {"samples": 4, "temperature": 1.0},
        "reward_model": content["reward_model"] | {"epochs": 1, "batch_size": 4, "samples_per_kind": 2},
        "ppo": content["ppo"]
        | {"total_updates": 3, "episodes_per_update": 4, "minibatch_size": 4, "learning_rate": 1e-4},
        "evaluation": {"temperature": 0.0, "few_shot": 2},
        "generation": {"batch_size": 64, "shard_size": 64},
        "grid": content["grid"] | {"ablation_teacher": "teacher", "ablation_student": "student"},
        "training": {"lora": {"r": 8, "alpha": 16}},
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The folder of a finished run, with seconds and peak memory of each notebook in times.json."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "real.yaml").write_text(yaml.safe_dump(settings(folder / "runs")))
    times = {}
    for notebook, axes, more in NOTEBOOKS:
        parameters = {"profile": str(folder / "real.yaml"), **{axis: AXES[axis] for axis in axes}, **more}
        source, executed = REPOSITORY / f"notebooks/{notebook}.ipynb", folder / f"{notebook}.ipynb"
        words = [sys.executable, "-m", "rdlib.study.execute", str(source), str(executed), json.dumps(parameters)]
        started = time.time()
        offline = {"HF_HUB_OFFLINE": "1"} if LOCAL.is_dir() else {}
        environment = os.environ | {"OMP_NUM_THREADS": "2"} | offline
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
    assert (sampled.loc[~sampled["finished"], "tokens"] == 96).all()
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
