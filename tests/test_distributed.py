"""Training in several processes: the losses of one process, what the notebook sees of it, and what is refused."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import ppo_in_processes
import psutil
import pytest
import torch
from conftest import PARAMS, REPOSITORY, copy_study, make_root, stage_in
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.method import training
from rdlib.method.reward_model import IGNORED, count_terms, reward_model_loss
from rdlib.study import launch

CONFIGURATIONS = sorted(launch.CONFIGURATIONS.glob("*.yaml"))
TWO = {"training.processes": 2}
# Sums of float32 in another order. Measured: losses (around 1) 1e-7, gradient norms (up to 10) 2e-6; more in the
# weights, as Adam enlarges what rounding does to a gradient of nearly zero
LOSS = {"rtol": 0, "atol": 2e-6}
NORM = {"rtol": 0, "atol": 5e-5}
WEIGHTS = {"rtol": 0, "atol": 1e-4}


# ---- one batch in several parts


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 2)), min_size=2, max_size=12), st.integers(0, 12))
def test_the_losses_of_the_parts_add_up_to_equation_6_of_the_whole(rows, cut):
    """Even where a part has no pair of its own: `queries` are never split."""
    queries, kinds = (torch.tensor(column) for column in zip(*sorted(rows), strict=True))
    if not (kinds != IGNORED).any():
        return
    scores = torch.randn(len(kinds), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = queries < queries[min(cut, len(queries) - 1)]
    counts = count_terms(kinds, queries)
    whole = reward_model_loss(scores, kinds, queries, 0.3, "convex")
    parts = [reward_model_loss(scores[m], kinds[m], queries[m], 0.3, "convex", counts) for m in (first, ~first)]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("name", ["03_sft_warmup", "05_reward_model"])
def test_accumulated_parts_give_the_losses_of_the_whole(study, tmp_path, name):
    stage = run_with(study, tmp_path, name, {"training.gradient_accumulation": 2})
    assert_same_losses_as(stage_in(study, stage.name, stage.method), stage)


# ---- two processes and one


def run_with(study: Path, root: Path, name: str, overrides: dict, **hooks):
    """A stage of the finished study run again under other settings of its training."""
    method = {"03_sft_warmup": "ours_wo_r"}.get(name, "ours")
    copy_study(study, root, name)
    return stage_in(root, name, method).with_overrides(overrides).run(**hooks)


def assert_same_losses_as(one, stage) -> None:
    """Of every step, and the same checkpoint kept; the key is that of one process."""
    expected, found = one.table("history"), stage.table("history")
    assert stage.key == one.key and stage.folder.name == one.folder.name
    assert expected["step"].tolist() == found["step"].tolist()
    for column, tolerance in (("loss", LOSS), ("grad_norm", NORM), ("learning_rate", LOSS)):
        a, b = (torch.tensor(table[column].dropna().to_numpy()) for table in (expected, found))
        torch.testing.assert_close(b, a, **tolerance)
    measures = [c for c in expected if c in ("agreement", "pos_neg_auc", "pos_pos_auc")]
    assert expected[measures].equals(found[measures])
    weights, ours = (load_file(s.folder / "model/model.safetensors") for s in (one, stage))
    assert weights.keys() == ours.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(ours[key], weight, **WEIGHTS)
    assert {p.name for p in one.folder.iterdir()} == {p.name for p in stage.folder.iterdir()}


@pytest.mark.slow
def test_a_reward_model_in_two_processes_killed_on_its_way_goes_on_and_has_the_losses_of_one(study, tmp_path):
    """In the last batch of an epoch one of the processes has no query."""
    queries = stage_in(study, "05_reward_model").json("summary")["train_queries"]
    batches = {"reward_model.batch_size": next(n for n in (2, 4, 6, 8) if 0 < queries % n <= n / 2)}
    one = run_with(study, tmp_path / "one", "05_reward_model", batches)
    stage = stage_in(copy_study(study, tmp_path / "two", "05_reward_model"), "05_reward_model")
    stage = stage.with_overrides(batches | TWO)
    checkpoints = stage.folder.with_name(stage.folder.name + ".partial") / training.CHECKPOINTS

    def kill_one():
        while not list(checkpoints.glob("*/trainer_state.json")):
            time.sleep(0.02)
        workers()[-1].kill()

    threading.Thread(target=kill_one, daemon=True).start()
    with pytest.raises(UserError, match="it was killed"):
        stage.run()
    assert_same_losses_as(one, stage.run())


def ppo_in_one(work: Path, kind: str = "plain") -> tuple[list[dict], dict[str, torch.Tensor]]:
    """History and weights of a PPO run of ppo_in_processes, in this process."""
    work.mkdir(parents=True)
    ppo_in_processes.run(work, kind)
    return result_of(work)


def result_of(work: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    return json.loads((work / "history.json").read_text()), load_file(work / "weights.safetensors")


def ppo_in_two(work: Path, program: str, *options: str, **variables: str) -> None:
    """A program in two processes, with more options and variables for `accelerate launch`."""
    work.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", "--num_processes", "2"]
    folders = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": folders} | variables
    done = subprocess.run([*words, *options, program, str(work)], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]


@pytest.mark.slow
def test_ppo_in_two_processes_is_that_of_one_on_the_same_responses(tmp_path):
    """Whitening, minibatches, clipping of gradients and the history are those of all episodes together.

    So they are where the two compute their logits in tiles, and the one all at once; and where the networks are
    adapters on one base, whose tensors are parameters of several modules.
    """
    for kind in ppo_in_processes.KINDS:
        (tmp_path / "two" / kind).mkdir(parents=True)
    options = ("--multi_gpu", "--config_file", str(launch.CONFIGURATIONS / "cpu_gloo.yaml"))
    ppo_in_two(tmp_path / "two", ppo_in_processes.__file__, *options, ACCELERATE_USE_CPU="true")
    for kind in ppo_in_processes.KINDS:
        one = ppo_in_one(tmp_path / "one" / kind, "plain" if kind == "tiles" else kind)
        assert_same_ppo(one, result_of(tmp_path / "two" / kind))


def assert_same_ppo(one, two) -> None:
    """Histories and weights, but for rounding."""
    (expected, weights), (found, ours) = one, two
    for a, b in zip(expected, found, strict=True):
        assert {name for name in a if a[name] is None} == {name for name in b if b[name] is None}
        numbers = {name for name in a if a[name] is not None}
        assert {n: b[n] for n in numbers} == pytest.approx({n: a[n] for n in numbers}, rel=1e-4, abs=2e-5)
    for key, weight in weights.items():
        torch.testing.assert_close(ours[key], weight, **WEIGHTS)


# ---- what the notebook sees of the workers


def workers() -> list[psutil.Process]:
    """The training processes that this process has started and that still run."""
    family = psutil.Process().children(recursive=True)
    return [p for p in family if "-m rdlib worker " in " ".join(p.cmdline())]  # the launchers write --module


@pytest.mark.slow
def test_ppo_in_two_processes_stops_at_ctrl_c_and_goes_on(study, tmp_path):
    """Rows reach the caller; no worker stays; the rest of the updates follows on a second run."""
    rows = []

    def interrupt(row):
        rows.append(row)
        if row["update"] == 2:
            assert len(workers()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_with(study, tmp_path, "06_ppo", TWO, on_update=interrupt)
    assert not workers()
    more = []
    stage = stage_in(tmp_path, "06_ppo").with_overrides(TWO).run(on_update=more.append)
    assert [row["update"] for row in rows] == [0, 1, 2]
    assert more[0]["update"] in (1, 2, 3) and more[-1]["update"] == 3
    history = stage.jsonl("history")
    assert history["update"].tolist() == [0, 1, 2, 3]
    assert json.loads(history.iloc[1].to_json())["reward"] == pytest.approx(rows[1]["reward"])
    assert stage.recipe != stage_in(study, "06_ppo").recipe  # it sampled with other random numbers


@pytest.mark.slow
def test_a_workers_sentence_is_the_callers(study, tmp_path):
    with pytest.raises(UserError, match=r"03_sft_warmup.*: sft.max_length 1 leaves nothing of any train .*") as caught:
        run_with(study, tmp_path, "03_sft_warmup", TWO | {"sft.max_length": 1})
    assert "\n" not in str(caught.value) and not workers()


def test_of_what_workers_print_bars_are_shown_events_are_read_and_other_text_is_kept(capsys):
    text = "a warning\n\rSFT:   0%|  | 0/2\rSFT: 100%|█| 2/2\nValueError: no\n"
    log = deque(maxlen=launch.TAIL)
    launch.show_bars(io.BufferedReader(io.BytesIO(text.encode())), log)
    assert capsys.readouterr().err == "\rSFT:   0%|  | 0/2\rSFT: 100%|█| 2/2\n"
    launch.send({"sentence": "a\nb"})
    stream = io.BytesIO(b"loading\n" + capsys.readouterr().out.encode())
    assert list(launch.events(stream, log)) == [{"sentence": "a\nb"}]
    assert "".join(log) == "a warning\nValueError: no\nloading\n"


@pytest.mark.parametrize(("text", "words"), [
    ("x\ntorch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\nFailures: <NO_OTHER_FAILURES>\n", "Tried 2 GiB"),
    ("[rank1]: RuntimeError: shapes\n====\n", "RuntimeError: shapes"),
    ("traceback : Signal 9 (SIGKILL) received by PID 7\n", "it was killed"),
    ("something odd\n", "something odd"),
    ("", "it left no message"),
])  # fmt: skip
def test_the_reason_is_found_in_the_last_lines(text, words):
    assert words in launch.reason(text)


# ---- settings


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.name)
def test_configurations_are_accelerates(path):
    configuration = launch.read(path)
    kinds = {"ddp": "MULTI_GPU", "cpu_gloo": "MULTI_CPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert configuration.distributed_type.value == kinds[path.stem]
    assert configuration.use_cpu == (path.stem == "cpu_gloo") and configuration.num_machines == 1
    assert configuration.deepspeed_config.get("zero_stage") == {"zero2": 2, "zero3": 3}.get(path.stem)


@pytest.mark.parametrize(("settings", "words"), [
    ({"processes": 4096}, "training.processes is 4096, but cpu_gloo.yaml has"),
    ({"accelerate": "params/accelerate/none.yaml"}, "none.yaml cannot be read"),
    ({"accelerate": "tiny.yaml"}, "cannot be read"),
    ({"accelerate": "params/accelerate/ddp.yaml"}, "has 0 GPUs here"),
])  # fmt: skip
def test_what_this_machine_lacks_is_refused(tmp_path, monkeypatch, settings, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    sizes = {"sft": {"batch_size": 4096}, "reward_model": {"batch_size": 4096}}
    sizes["ppo"] = {"minibatch_size": 4096, "episodes_per_update": 4096}
    root = make_root(tmp_path, training=settings, **sizes)
    shutil.copytree(launch.CONFIGURATIONS, root / "params/accelerate")
    with pytest.raises(UserError, match=words) as caught:
        launch.check(stage_in(root, "03_sft_warmup", "ours_wo_r"))
    assert "\n" not in str(caught.value)


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that says that it has two GPUs, and DeepSpeed."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: name)


def root_with(folder: Path, configuration: str) -> Path:
    """A root whose profile names a configuration of params/accelerate, which is there."""
    root = make_root(folder, training={"processes": 2, "accelerate": f"params/accelerate/{configuration}.yaml"})
    shutil.copytree(launch.CONFIGURATIONS, root / "params/accelerate")
    return root


@pytest.mark.parametrize("name", ["fsdp", "zero3"])
def test_ppo_needs_a_whole_policy_which_a_study_says_before_its_first_notebook(
    tmp_path, two_gpus, at_root, capsys, name
):
    root = at_root(root_with(tmp_path, name))
    words = "06_ppo: PPO samples from its policy, which .*: name ddp.yaml or zero2.yaml"
    with pytest.raises(UserError, match=words):
        launch.check(stage_in(root, "06_ppo"))
    assert launch.check(stage_in(root, "05_reward_model")).name == f"{name}.yaml"
    assert main(["study", "--profile", PARAMS]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not list(root.rglob("*.ipynb")) and not list(root.glob("runs/*/gsm"))
    assert launch.check(stage_in(root, "05_reward_model")).name == f"{name}.yaml"


def test_accelerate_splits_nothing_over_processors(tmp_path, two_gpus):
    root = root_with(tmp_path, "zero2")
    with (root / "params/accelerate/zero2.yaml").open("a") as file:
        file.write("use_cpu: true\n")
    with pytest.raises(UserError, match="zero2.yaml says use_cpu.*: name cpu_gloo.yaml"):
        launch.check(stage_in(root, "05_reward_model"))


def test_deepspeed_that_is_not_installed_is_named(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="zero2.yaml needs DeepSpeed, which is not installed: pip install deepspeed"):
        launch.check(stage_in(root_with(tmp_path, "zero2"), "05_reward_model"))


@pytest.mark.parametrize(("settings", "words"), [
    ({"processes": 3}, "sft.batch_size 4 cannot be shared by"),
    ({"gradient_accumulation": 4}, "reward_model.batch_size 2 cannot be shared by"),
    ({"precision": "fp8"}, "training.precision"),
    ({"lora": {"r": 0, "alpha": 1}}, "training.lora.r"),
    ({"processs": 2}, "did you mean 'processes'"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, words):
    root = make_root(tmp_path, training=settings)
    with pytest.raises(UserError, match=words):
        _ = stage_in(root, "03_sft_warmup", "ours_wo_r").profile


def test_keys_hold_what_changes_results(tmp_path):
    root, lora = make_root(tmp_path), {"r": 2, "alpha": 4}
    stages = {name: stage_in(root, name, m) for name, m in (("03_sft_warmup", "ours_wo_r"), ("06_ppo", "ours"))}
    none = {"gradient_accumulation": 2, "gradient_checkpointing": True, "accelerate": "params/accelerate/ddp.yaml"}
    none |= {"attention": "eager", "compile": True, "report_to": ["tensorboard"]}
    both = {"precision": "bf16", "weights": "bfloat16", "lora": lora}
    for values, reached in ((none, set()), ({"processes": 2}, {"06_ppo"}), (both, set(stages))):
        for key, value in values.items():
            others = {name: stage.with_overrides({f"training.{key}": value}) for name, stage in stages.items()}
            assert {name for name, stage in stages.items() if others[name].recipe != stage.recipe} == reached, key
            assert {name for name, stage in stages.items() if others[name].folder != stage.folder} == reached, key
    adapted = stages["06_ppo"].with_overrides({"training.lora": lora})
    assert adapted.folder.name == "06_ppo@training.lora=r:2;alpha:4.0;dropout:0.0;target_modules:all-linear"
    assert json.loads(json.dumps(adapted.overrides)) == adapted.overrides
