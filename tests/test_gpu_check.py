"""`make check KIND=gpu`: its whole path on a CPU with shapes cut, its budget, and what of it enters documents."""

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
from rdlib.study.sizes import LENGTHS, configuration
from scripts import gpu_check, gpu_jobs, gpu_plan, gpu_sizes

CARD = {"kind": "cuda", "name": "NVIDIA H200", "memory_gib": 139.8, "driver": "580.1", "measured_tflops": 788.0}
CARD |= {"datasheet_tflops": 989.0, "peak_tflops": 989.0}
OF = {"model": "Qwen2.5-0.5B", "numbers": "float32, bf16 autocast", "attention": "sdpa"}
STEP = {"row": "SFT step", "status": "ok", "seconds": 0.5, "predicted_seconds": 0.4, "tokens": 20480}
STEP |= {"tokens_per_second": 40960.0, "tflops": 300.0, "share_of_peak": 0.303, "memory_gib": 15.04}
STEP |= {"predicted_gib": 15.5, "reserved_gib": 16.0, "card_gib": 17.0, "predicted_card_gib": 17.5}


def result(**changes) -> dict:
    """A result as the program writes it."""
    rows = [
        OF | STEP,
        *(OF | {"row": name, "status": "not installed", "error": "no vllm"} for name in ("a", "b")),
        OF | {"row": "log p | p", "status": "failed", "value": 0.2, "at_most": 0.1, "error": "0.2 is more than 0.1"},
    ]
    made = {"command": "c", "started": "2027-01-02T03:04:05", "scale": "full", "card": CARD, "commit": "abcdef0123"}
    return made | {"packages": {"torch": "2.13.0", "vllm": None}, "dirty": False, "rows": rows} | changes


def work(kind: str, folder: Path, scale: str = "tiny") -> gpu_jobs.Work:
    return gpu_jobs.Work(kind, gpu_sizes.QWEN, gpu_sizes.FLOAT32, gpu_sizes.SDPA, scale, folder, CARD)


# ---- the whole path


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict:
    """What the program writes on a CPU."""
    folder = tmp_path_factory.mktemp("gpu_check")
    words = [sys.executable, "scripts/gpu_check.py", "--device", "cpu", "--scale", "tiny", "--out", str(folder)]
    left_out = {"OUT", "CUDA_VISIBLE_DEVICES", numerics.SWITCH, *numerics.MODE}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(words, cwd=REPOSITORY, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = folder.glob("gpu_check_*.json")
    assert gpu_rows.tables(json.loads(path.read_text())) in done.stdout
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_job_gives_its_rows_on_a_cpu(measured):
    """Of each that can run here; what is not installed says so."""
    wanted = gpu_plan.works("tiny", Path(), measured["card"])
    names = [(w.model, w.numbers, w.attention, name) for w in wanted for name in gpu_plan.JOBS[w.kind][1]]
    rows = {(row["model"], row["numbers"], row["attention"], row["row"]): row for row in measured["rows"]}
    absent = [key for w in wanted if gpu_plan.absent(w) for key in names if key[2] == w.attention or "vLLM" in key[3]]
    assert set(names) == set(rows) and len(measured["rows"]) == len(names)
    for key, row in rows.items():
        assert row["status"] == "ok" or (row["status"] == "not installed" and key in absent), row


@pytest.mark.slow
def test_measured_numbers_are_positive_and_predictions_are_there(measured):
    steps = [row for row in measured["rows"] if "seconds" in row]
    assert len(steps) == 4 * 5  # two models, two ways to hold numbers; SFT, reward model, three parts of PPO
    for row in steps:
        for name in ("seconds", "tokens", "tokens_per_second", "tflops", "share_of_peak", "memory_gib", "card_gib"):
            assert row[name] > 0, (row, name)
        for name in ("predicted_seconds", "predicted_gib", "predicted_card_gib", "predicted_share"):
            assert row[name] > 0, (row, name)
        assert 0 < row["share_of_peak"] < 2


@pytest.mark.slow
def test_where_numbers_come_from_is_told(measured):
    assert measured["card"]["kind"] == "cpu" and measured["scale"] == "tiny" and measured["command"]
    assert measured["packages"]["torch"] and measured["packages"]["transformers"] and "vllm" in measured["packages"]
    assert not any(word in json.dumps(measured) for word in (os.uname().nodename, str(REPOSITORY), "/tmp/"))


@pytest.mark.slow
def test_what_a_cpu_measured_enters_no_document(measured, tmp_path):
    (tmp_path / "gpu_check_cpu.json").write_text(json.dumps(measured))
    assert gpu_rows.results(tmp_path) == [] and gpu_rows.memory_text(tmp_path) == ""
    assert gpu_check.place(None, measured["card"]).parent == REPOSITORY / "runs"


def test_sequences_are_as_long_as_the_account_takes_them_to_be():
    """In the reward model too, whose account takes twice the usual length where that is less."""
    full = gpu_sizes.SCALES["full"]
    assert full.length == 2 * sum(LENGTHS["gsm8k"])
    assert all(scale.length <= full.length for scale in gpu_sizes.SCALES.values())


# ---- the budget, and what goes wrong


def test_what_would_exceed_the_time_is_not_reached(tmp_path):
    rows = list(gpu_plan.measure(work("ppo", tmp_path), gpu_plan.Budget(1.0), "fork"))
    assert [row["row"] for row in rows] == list(gpu_plan.JOBS["ppo"][1])
    assert {row["status"] for row in rows} == {"not reached"} and "1 were left" in rows[0]["error"]


def test_estimates_follow_what_jobs_took(tmp_path):
    budget, one = gpu_plan.Budget(100.0), work("sft", tmp_path)
    plain = budget.of(one)
    budget.note(one, 1.5 * plain)
    assert budget.of(one) == pytest.approx(1.5 * plain)
    budget.note(one, 100 * plain)
    assert budget.of(one) == pytest.approx(2 * plain)


def test_a_card_has_time_for_what_is_worth_most(tmp_path):
    """By the estimates: both models, SFT, reward model, PPO, the checks and vLLM."""
    wanted = gpu_plan.works("full", tmp_path, CARD)
    first = sum(gpu_plan.estimate(one) for one in wanted[: 1 + [one.kind for one in wanted].index("vllm")])
    assert first < 8 * 60 and len({(one.kind, *one.of.values()) for one in wanted}) == len(wanted)


def dying(work: gpu_jobs.Work | None, at: Path) -> Iterator[dict]:
    yield {"row": gpu_jobs.SFT_STEP, "status": "ok"}
    os._exit(3)


def hanging(work: gpu_jobs.Work | None, at: Path) -> Iterator[dict]:
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)
    yield {}


def failing(work: gpu_jobs.Work, at: Path) -> Iterator[dict]:
    yield {"row": gpu_jobs.SAMPLING, "status": "ok"}
    raise RuntimeError("\n  CUDA error: an illegal memory access\nmore")


def test_a_process_that_dies_or_hangs_is_over_with_its_job(tmp_path):
    rows = gpu_plan.in_a_process(dying, None, tmp_path, 30.0, "fork")
    assert next(rows)["status"] == "ok"
    with pytest.raises(RuntimeError, match="died with exit status 3"):
        next(rows)
    with pytest.raises(TimeoutError, match="ended after 1 s"):
        list(gpu_plan.in_a_process(hanging, None, tmp_path, 1.0, "fork"))


def test_a_failing_row_says_why_in_a_line_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_plan.JOBS, "ppo", (failing, gpu_plan.JOBS["ppo"][1]))
    rows = list(gpu_plan.rows_of(work("ppo", tmp_path), tmp_path))
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed"]
    assert rows[1]["error"] == "RuntimeError: CUDA error: an illegal memory access"


def test_what_does_not_fit_is_told_before_it_is_loaded(tmp_path):
    small = CARD | {"memory_gib": 1.0}
    one = gpu_jobs.Work("ppo", gpu_sizes.LLAMA, gpu_sizes.FLOAT32, gpu_sizes.SDPA, "full", tmp_path, small)
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
    """A stand-in of vLLM's engine, which samples one token again and again and tells the policy's probabilities."""

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


def test_rollouts_by_vllm_are_measured_and_held_to_the_policy(tmp_path, monkeypatch):
    """With a stand-in, as vLLM itself is not in this environment."""
    monkeypatch.setattr(vllm_policy, "PolicyEngine", Rollouts)
    monkeypatch.setattr(gpu_jobs, "require", lambda package: None)
    one = gpu_jobs.Work("vllm", gpu_sizes.QWEN, gpu_sizes.LORA, gpu_sizes.SDPA, "tiny", tmp_path, CARD)
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
    if changes:
        (tmp_path / "gpu_check_x.json").write_text(json.dumps(result(**changes)))
    assert gpu_rows.seen(tmp_path) == gpu_rows.NEVER == "never seen on CUDA"
    assert gpu_rows.memory_text(tmp_path) == gpu_rows.speed_text(tmp_path) == ""


def test_a_cards_result_is_shown_with_its_account(tmp_path):
    broken = OF | {"row": "c", "status": "failed", "error": "a | b"}
    (tmp_path / "gpu_check_nvidia_h200.json").write_text(json.dumps(result(rows=[*result()["rows"], broken])))
    memory, speed = gpu_rows.memory_text(tmp_path), gpu_rows.speed_text(tmp_path)
    of = "| Qwen2.5-0.5B | float32, bf16 autocast | sdpa |"
    assert f"{of} SFT step | 15.0 | 15.5 | 17.0 | 17.5 |" in memory.splitlines()
    assert f"{of} SFT step | 0.50 | 0.40 | 40,960 | 300 | 30.3 % |" in speed.splitlines()
    assert f"{of} a | not installed |  |  |  |" in memory.splitlines()
    assert f"{of} log p \\| p | 0.2 | 0.1 | failed |" in speed.splitlines()
    assert f"{of} c | failed: a \\| b |  |  |  |" in memory.splitlines()
    assert "NVIDIA H200" in memory and "driver 580.1" in memory and "commit abcdef0" in memory
    assert "measured on NVIDIA H200" in gpu_rows.seen(tmp_path)


def test_pages_hold_what_the_result_files_say():
    cards = documents.tables_of(REPOSITORY)("cards")
    for page, otherwise in (("memory", "The account was never compared"), ("speed", "Speed was never measured")):
        written = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")
        assert all(row[page] in written for row in cards) and (otherwise in written) == (len(cards) == 0)
