"""Shared fixtures: a study small enough to run in seconds, in a folder of its own."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ.setdefault("TQDM_DISABLE", "1")

import rdlib  # noqa: F401, I001 (before torch: it sets the numerical mode)
import pytest
import torch
import yaml
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.settings import Dataset
from rdlib.study.stage import Stage

torch.set_num_threads(1)
# The same cases on every machine; `pytest -m fuzz --hypothesis-profile=fuzz` draws others, by the ten thousand
hypothesis_settings.register_profile("rdlib", deadline=None, derandomize=True)
hypothesis_settings.register_profile(
    "fuzz", deadline=timedelta(minutes=2), max_examples=10_000, suppress_health_check=list(HealthCheck)
)
hypothesis_settings.load_profile("rdlib")

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / "models"
PARAMS = "tiny.yaml"
SHARED = REPOSITORY.parent / "shared"  # real benchmarks and responses, which are not part of the repository
needs_data = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="the benchmarks' files are not in the repository"
)
NONE, LINE_END = "<none>", "⏎"  # in tests/cases: no value, and the end of a line


def groups_of(name: str, width: int = 5) -> dict[str, list[list[str | None]]]:
    """The rows of a table of tests/cases by the headings above them; cells stand between tabs."""
    groups: dict[str, list[list[str | None]]] = {}
    for line in (Path(__file__).parent / "cases" / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            rows = groups.setdefault(line.removeprefix("# "), [])
            continue
        cells = line.split("\t")
        cells += [""] * (width - len(cells))
        rows.append([None if cell == NONE else cell.replace(LINE_END, "\n") for cell in cells])
    return groups


def cases(name: str) -> list[list[str | None]]:
    """All rows of a table of tests/cases."""
    return [row for rows in groups_of(name, 0).values() for row in rows]


def refused(words: str, call, *args, **options) -> str:
    """The message of the UserError in which a call ends: one line with these words, a regular expression."""
    with pytest.raises(UserError, match=words) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def patch_root(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Make a folder the repository for everything that opens or lists stages."""
    from rdlib.study import dag, experiments, figures, jobs, results, stage, workflow

    for module in (stage, experiments, jobs, dag, results, figures, workflow):
        patch.setattr(module, "ROOT", root)


def tiny_settings() -> dict:
    """params/smoke.yaml cut down: several shards, checkpoints and updates, and hardly anything in them."""
    content = yaml.safe_load((REPOSITORY / "params/smoke.yaml").read_text())
    content["name"] = "tiny"
    for dataset in content["datasets"].values():
        dataset |= {"train": 16, "validation": 8, "test": 8}
    content["datasets"]["gsm"]["perturbed_test"] = 6
    content["teacher_sampling"] = {
        "high_temperatures": [0.0, 0.3],
        "low_temperatures": [0.7, 1.0],
        "samples_per_temperature": 3,
    }
    content["stopping"] |= {"every": 2, "patience": 40, "warmup_steps": 1}
    content["sft"] |= {"epochs": 2, "batch_size": 4, "responses_per_question": 2}
    content["student_sampling"]["samples"] = 6
    content["reward_model"] |= {"epochs": 2, "batch_size": 2, "samples_per_kind": 2}
    content["ppo"] |= {"total_updates": 3, "episodes_per_update": 8, "minibatch_size": 4, "checkpoint_every": 1}
    content["baselines"] = {
        "dpo_epochs": 1,
        "dpo_batch_size": 4,
        "distillation_steps": 5,
        "distillation_prompts_per_step": 4,
        "grpo_steps": 5,
        "grpo_prompts_per_step": 2,
        "grpo_samples_per_prompt": 4,
    }
    content["generation"] = {"batch_size": 64, "shard_size": 40}
    return content


def make_root(folder: Path, **changes: dict) -> Path:
    """A folder that a study can use as its repository: a profile, the models, and no runs yet."""
    content = tiny_settings()
    for section, values in changes.items():
        content[section] = content.get(section, {}) | values if isinstance(values, dict) else values
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PARAMS).write_text(yaml.safe_dump(content))
    if not (folder / "models").exists():
        (folder / "models").symlink_to(MODELS, target_is_directory=True)
    return folder


def stage_in(root: Path, name: str, method: str | None = None, **axes) -> Stage:
    """A stage of the cell gsm/strong/small in a root, with the axes that it has."""
    full = {"dataset": "gsm", "teacher": "strong", "student": "small"} | axes
    return Stage("07_evaluate", PARAMS, method=method or "ours", root=root, **full).at(name)


def identity(stage: Stage) -> tuple:
    """All that decides a stage's artifacts, whether or not its inputs are there: recipes, back to the questions."""
    return stage.recipe, {name: identity(upstream) for name, upstream in stage.inputs.items()}


def copy_study(study: Path, root: Path, *without: str) -> Path:
    """A copy of a study in another root, without the stages named."""
    make_root(root)
    shutil.copytree(study / "runs", root / "runs", ignore=shutil.ignore_patterns(*(f"{name}*" for name in without)))
    return root


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """The root of a study whose cell gsm/strong/small is finished for `ours` and `sft`; not to be written to."""
    root = make_root(tmp_path_factory.mktemp("study"))
    for method in ("ours", "sft", "ours_wo_r"):
        stage_in(root, "07_evaluate", method).run_with_inputs()
    stage_in(root, "02_judgement").run_with_inputs()
    return root


@pytest.fixture
def at_root(monkeypatch):
    """A function that makes a folder the repository for everything that opens or lists stages."""

    def use(root: Path) -> Path:
        patch_root(monkeypatch, root)
        return root

    return use


@pytest.fixture(scope="session")
def small():
    """(model, tokenizer) of the smallest base model; not to be trained."""
    return models.load_causal_lm(MODELS / "small"), models.load_tokenizer(MODELS / "small")


@pytest.fixture(scope="session")
def word_problems() -> Dataset:
    """The settings of micro-gsm in params/smoke.yaml, with responses of at most 60 tokens."""
    return Dataset(**tiny_settings()["datasets"]["gsm"] | {"max_tokens": 60})


@pytest.fixture
def fake():
    """A stand-in for a server."""
    from fake_server import FakeServer

    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def cell(study):
    """The finished stage 07_evaluate of `ours`, from which `at` leads to every other stage."""
    return stage_in(study, "07_evaluate")
