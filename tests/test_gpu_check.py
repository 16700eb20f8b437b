"""`make check KIND=gpu`: its whole path on a CPU with shapes cut, its time, and what of it enters documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from rdlib import numerics
from rdlib.engines import vllm_policy
from rdlib.evidence import documents, gpu_rows
from rdlib.study.memory import LENGTHS, configuration
from scripts import gpu_check, gpu_jobs, gpu_plan, gpu_sizes

CARD = {"kind": "cuda", "name": "NVIDIA H200", "memory_gib": 139.8, "driver": "580.1", "measured_tflops": 788.0}
CARD |= {"datasheet_tflops": 989.0, "peak_tflops": 989.0}
OF = {"model": "Qwen2.5-0.5B", "numbers": "float32, bf16 autocast", "attention": "sdpa"}
STEP = {"row": "SFT step", "status": "ok", "seconds": 0.5, "predicted_seconds": 0.4, "tokens_per_second": 40960.0}
STEP |= {"tflops": 300.0, "share_of_peak": 0.303, "memory_gib": 15.04, "predicted_gib": 15.5, "card_gib": 17.0}
STEP |= {"predicted_card_gib": 17.5}


def write_result(folder: Path, **changes) -> Path:
    """A root with a result as the program writes it."""
    rows = [
        OF | STEP,
        OF | {"row": "a", "status": "not installed", "error": "no vllm", "check": False},
        OF | {"row": "c", "status": "failed", "error": "a | b", "check": False},
        OF | {"row": "log p | p", "status": "failed", "value": 0.2, "at_most": 0.1, "error": "0.2 is more than 0.1"},
    ]
    made = {"started": "2027-01-02T03:04:05", "scale": "full", "card": CARD, "commit": "abcdef0123", "dirty": False}
    made |= {"packages": {"torch": "2.13.0", "vllm": None}, "rows": rows} | changes
    (folder / gpu_rows.RESULTS).mkdir(parents=True)
    (folder / gpu_rows.RESULTS / "gpu_check_x.json").write_text(json.dumps(made))
    return folder


def work(kind: str, folder: Path, numbers: str = gpu_sizes.FLOAT32) -> gpu_sizes.Work:
    return gpu_sizes.Work(kind, gpu_sizes.QWEN, numbers, gpu_sizes.SDPA, "tiny", folder, CARD)


# ---- the whole path


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict:
    """What the program writes on a CPU."""
    folder = tmp_path_factory.mktemp("gpu_check")
    words = [sys.executable, "scripts/gpu_check.py", "--device", "cpu", "--scale", "tiny", "--minutes", "30"]
    left_out = {"OUT", "CUDA_VISIBLE_DEVICES", numerics.SWITCH, *numerics.MODE}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run([*words, "--out", folder], cwd=REPOSITORY, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = folder.glob("gpu_check_*.json")
    found = json.loads(path.read_text())
    assert all(gpu_check.line(row) in done.stdout for row in found["rows"])
    return found


@pytest.mark.slow
def test_every_job_gives_its_rows_on_a_cpu(measured):
    """Of each that can run here, positive and with predictions; what is not installed says so."""
    wanted = gpu_plan.works("tiny", Path(), measured["card"])
    names = [(*w.of.values(), name) for w in wanted for name in gpu_plan.JOBS[w.kind][1]]
    rows = {(row["model"], row["numbers"], row["attention"], row["row"]): row for row in measured["rows"]}
    absent = {(*w.of.values(), name) for w in wanted if gpu_plan.absent(w) for name in gpu_plan.JOBS[w.kind][1]}
    assert set(names) == set(rows) and len(measured["rows"]) == len(names)
    for key, row in rows.items():
        assert row["status"] == ("not installed" if key in absent else "ok"), row
    steps = [row for row in measured["rows"] if "seconds" in row]
    assert len(steps) == 4 * 5  # two models, two ways to hold numbers; SFT, reward model, three parts of PPO
    assert all(row[name] > 0 for row in steps for name in STEP.keys() - {"row", "status"})
    assert all(row["share_of_peak"] < 2 for row in steps)


@pytest.mark.slow
def test_where_numbers_come_from_is_in_the_result_and_a_cpus_enters_no_document(measured, tmp_path):
    assert measured["card"]["kind"] == "cpu" and measured["scale"] == "tiny" and measured["command"]
    assert measured["packages"]["torch"] and measured["packages"]["transformers"]
    assert not any(word in json.dumps(measured) for word in (os.uname().nodename, str(REPOSITORY), "/tmp/"))
    assert gpu_rows.results(write_result(tmp_path, **measured)) == []
    assert gpu_check.place(None, measured["card"]).parent == REPOSITORY / "runs"


def test_sequences_are_as_long_as_the_account_takes_them_to_be():
    """In the reward model too, whose account takes twice the usual length where that is less."""
    full = gpu_sizes.SCALES["full"]
    assert full.length == 2 * sum(LENGTHS["gsm8k"])
    assert all(scale.length <= full.length for scale in gpu_sizes.SCALES.values())


# ---- the time, and what goes wrong


def dying(work: gpu_sizes.Work, at: Path) -> Iterator[dict]:
    yield {"row": gpu_jobs.SAMPLING, "status": "ok"}
    os._exit(3)


def hanging(work: gpu_sizes.Work, at: Path) -> Iterator[dict]:
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)
    yield {}


def failing(work: gpu_sizes.Work, at: Path) -> Iterator[dict]:
    yield {"row": gpu_jobs.SAMPLING, "status": "ok"}
    raise RuntimeError("\n  CUDA error: an illegal memory access\nmore")


@pytest.mark.parametrize(
    ("job", "seconds", "status", "error"),
    [
        (dying, 200.0, "failed", "its process died with exit status 3"),
        (hanging, 200.0, "failed", "it was ended after 2 s"),
        (hanging, 1.0, "not reached", "it was ended after 1 s"),
        (failing, 200.0, "failed", "RuntimeError: CUDA error: an illegal memory access"),
        (failing, -1.0, "not reached", "0 s were left"),
    ],
)
def test_a_job_that_fails_or_is_late_says_why_in_a_line_and_is_over(tmp_path, monkeypatch, job, seconds, status, error):
    monkeypatch.setitem(gpu_plan.JOBS, "ppo", (job, gpu_plan.JOBS["ppo"][1]))
    monkeypatch.setattr(gpu_plan, "AT_MOST", 2.0 if job is hanging else 100.0)
    monkeypatch.setitem(gpu_plan.AT_LEAST, "ppo", 0)
    rows = list(gpu_plan.measure(work("ppo", tmp_path), time.monotonic() + seconds, "fork"))
    assert [row["row"] for row in rows] == list(gpu_plan.JOBS["ppo"][1])
    done = job in (dying, failing) and seconds > 0
    assert [row["status"] for row in rows] == ["ok"] * done + [status] * (4 - done)
    assert rows[-1]["error"] == error


def test_what_does_not_fit_is_said_before_it_is_loaded(tmp_path):
    one = gpu_sizes.Work(
        "ppo", gpu_sizes.LLAMA, gpu_sizes.FLOAT32, gpu_sizes.SDPA, "full", tmp_path, CARD | {"memory_gib": 1.0}
    )
    configuration(one.scale.shapes[one.model]).save_pretrained(one.weights)
    rows = list(gpu_plan.rows_of(one, tmp_path))
    assert {row["status"] for row in rows} == {"does not fit"} and "GiB" in rows[0]["error"]


def test_what_is_missing_is_said_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "NEEDED", ("torch", "a_package_that_is_not_there"))
    assert gpu_check.main(["--device", "cpu"]) == 1
    assert capsys.readouterr().err == (
        "error: Missing here: a_package_that_is_not_there. Install them, and run this again.\n"
    )


class Rollouts:
    """A stand-in of vLLM's engine, which samples one token again and again and gives the policy's probabilities."""

    def __init__(self, policy, tokenizer, max_tokens, settings):
        self.length, self.closed = max_tokens, False
        made.append(self)

    def rollouts(self, policy, queries, temperature, seed):
        tokens = [[number % 200] * self.length for number in range(len(queries))]
        pairs = zip(queries, tokens, strict=True)
        return tokens, [(gpu_jobs.logprobs_of(policy, *pair) + shift).tolist() for pair in pairs]

    def awake(self, policy):
        return nullcontext()

    def close(self):
        self.closed = True


made: list[Rollouts] = []
shift = 0.01


def test_rollouts_by_vllm_are_measured_and_compared_with_the_policy(tmp_path, monkeypatch):
    """With a stand-in, as vLLM itself is not in this environment."""
    monkeypatch.setattr(vllm_policy, "PolicyEngine", Rollouts)
    monkeypatch.setattr(gpu_jobs, "require", lambda package: None)
    one = work("vllm", tmp_path, gpu_sizes.LORA)
    gpu_sizes.write_weights(one.weights, one.scale.shapes[one.model], torch.device("cpu"))
    rows = {row["row"]: row for row in gpu_plan.rows_of(one, tmp_path)}
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows[gpu_jobs.ENGINES]["value"] == pytest.approx(shift, rel=0.01) and made[-1].closed
    row = rows[gpu_jobs.ROLLOUTS]
    assert row["tokens"] == one.scale.episodes * one.scale.response and row["seconds"] > 0
    assert row["predicted_gib"] == CARD["memory_gib"] / 2


# ---- documents


@pytest.mark.parametrize("changes", [None, {"card": CARD | {"kind": "cpu"}}, {"scale": "tiny"}])
def test_without_a_result_of_a_card_the_dry_run_says_that_none_was_seen(tmp_path, changes):
    """A result of a CPU, or of cut shapes, is left out."""
    root = write_result(tmp_path, **changes) if changes else tmp_path
    assert gpu_rows.seen(root) == "never seen on CUDA"
    assert "The account was never compared" in page("memory", root)
    assert "Speed was never measured" in page("speed", root)


def page(name: str, root: Path) -> str:
    """A page of docs/ with the cards of another root."""
    computed = {one.__name__: documents.Rows(one(root), one.__name__) for one in (gpu_rows.cards, gpu_rows.card_rows)}
    other = documents.tables_of(REPOSITORY)
    text = (REPOSITORY / f"docs/templates/{name}.md.j2").read_text(encoding="utf-8")
    return documents.fill(
        text, name, table=lambda name, *words, **equal: (
            computed[name].where(*words, **equal) if name in computed else other(name, *words, **equal)
        )
    )  # fmt: skip


def test_a_cards_result_is_shown_with_its_account(tmp_path):
    root = write_result(tmp_path)
    memory, speed = page("memory", root).splitlines(), page("speed", root).splitlines()
    of = "| Qwen2.5-0.5B | float32, bf16 autocast | sdpa |"
    assert f"{of} SFT step | 15 | 15.5 | 17 | 17.5 |" in memory
    assert f"{of} a | not installed |  |  |  |" in memory
    assert f"{of} c | failed: a \\| b |  |  |  |" in memory
    assert f"{of} SFT step | 0.5 | 0.4 | 40,960 | 300 | 30.3 |" in speed
    assert f"{of} log p \\| p | 0.2 | 0.1 | failed: 0.2 is more than 0.1 |" in speed
    head = next(line for line in memory if line.startswith("NVIDIA H200, 140 GiB"))
    assert "driver 580.1" in head and "torch 2.13.0" in head and "commit abcdef0" in head and "vllm" not in head
    assert gpu_rows.seen(root) == "measured on NVIDIA H200, see docs/memory.md"
