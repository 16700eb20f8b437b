"""The memory of a stage by its settings: its models, batches and lengths, and what is said where it is too much."""

from __future__ import annotations

import pandas as pd
import pytest
import test_memory
import test_one_base
import yaml
from conftest import REPOSITORY
from transformers import AutoModelForCausalLM

from rdlib.__main__ import main
from rdlib.method import scoring, token_logprobs
from rdlib.settings import Lora, Training
from rdlib.study import memory as m
from rdlib.study import memory_table, stage_memory
from rdlib.study.architectures import KNOWN, Shape
from rdlib.study.jobs import study_jobs
from rdlib.study.stage import Stage

ONE, PAPER = "params/single_gpu.yaml", "params/paper.yaml"
CELL = {"dataset": "gsm", "teacher": "strong", "student": "small"}
QWEN, LLAMA, LARGE = KNOWN["Qwen2.5-0.5B"], KNOWN["Llama-3.2-1B"], KNOWN["Llama-3.2-3B"]


def found(name: str, profile: str = ONE, overrides: dict | None = None, **axes) -> stage_memory.Footprint:
    return stage_memory.of(Stage(name, profile, all_overrides=overrides or {}, **CELL | {"method": "ours"} | axes))


def changed(tmp_path, profile: str, **sections) -> Stage:
    """The folder of a profile with sections changed."""
    content = yaml.safe_load((REPOSITORY / profile).read_text())
    for section, values in sections.items():
        content[section] |= values
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_sft_of_one_gpu_by_hand():
    """Float32 weights, gradients and two moments; of 64 rows a quarter at once, 350 + 320 tokens each."""
    few = {"generation.batch_size": 16}  # more validation answers at once take more than a step
    memory = found("03_sft_warmup", overrides=few, method="sft").memory
    casts = 2 * QWEN.layers * QWEN.layer_linear
    assert memory.weights == 4 * QWEN.parameters + casts
    assert memory.gradients == 4 * QWEN.parameters and memory.optimizer == 8 * QWEN.parameters
    assert memory.activations == m.training_activations(QWEN, m.AUTOCAST, 16, 670, True, padded=True)
    assert memory.logits == 4096 * 32768 * 2 + 4 * 16 * 670 * QWEN.hidden + 4 * QWEN.embedding


def test_ppo_of_one_gpu_by_hand():
    """Policy and value model in training, reference and reward model beside them; one tile of logits, in two types."""
    memory = found("06_ppo", overrides={"generation.batch_size": 16}).memory
    both = QWEN.parameters + QWEN.scorer_parameters
    assert memory.gradients == 4 * both and memory.optimizer == 8 * both
    assert memory.weights == 8 * both + 2 * 2 * QWEN.layers * QWEN.layer_linear
    assert memory.logits == 6 * 2**25 + 4 * 16 * 320 * QWEN.hidden + 4 * QWEN.embedding and memory.cache == 0


LORA = {"training.lora": {"r": 16, "alpha": 32}}


def test_ppo_with_adapters_by_hand():
    """One body; three adapters, of which two are trained with the value model's head; the reward model's head."""
    memory, adapters = found("06_ppo", overrides=LORA).memory, QWEN.adapter_parameters(16)
    both = 2 * adapters + QWEN.hidden
    assert memory.gradients == 4 * both and memory.optimizer == 8 * both
    assert memory.weights == 4 * (QWEN.parameters + 3 * adapters + 2 * QWEN.hidden)
    half = found("06_ppo", overrides=LORA | {"training.weights": "bfloat16"}).memory
    assert half.weights == 2 * QWEN.parameters + 4 * (3 * adapters + QWEN.hidden) + 2 * QWEN.hidden
    several = found("06_ppo", overrides=LORA | {"reward_model.members": 3}).memory
    assert several.weights == memory.weights + 2 * 4 * (adapters + QWEN.hidden)


def test_a_reward_model_of_another_student_is_one_body_more_for_ppo():
    """Which the value model shares."""
    other = {"reward_model.student": "strong"}  # a teacher in a student's place
    memory, adapters = found("06_ppo", overrides=LORA | other).memory, QWEN.adapter_parameters(16)
    large = KNOWN["Qwen2.5-7B"]
    values = large.adapter_parameters(16) + large.hidden
    assert memory.weights == 4 * (QWEN.parameters + adapters + large.scorer_parameters + values)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["Qwen2", "Llama"])
def test_the_weights_of_ppo_with_adapters_are_the_networks_own(tmp_path, kind, weights):
    """Held to the storages of real networks, each counted once."""
    shape = Shape(64, 4, 4, 2, 16, 176, 512, tied=kind == "Qwen2", qkv_bias=kind == "Qwen2")
    test_memory.build(AutoModelForCausalLM, shape).save_pretrained(tmp_path / "base")
    given = Training(lora=Lora(r=4, alpha=8), weights=weights)
    scorer = test_one_base.trained(tmp_path / "reward", tmp_path / "base", given)
    networks = test_one_base.networks(tmp_path / "base", scorer, given)
    overrides = {"training.lora": {"r": 4, "alpha": 8}, "training.weights": weights, "training.precision": None}
    stage = Stage("06_ppo", ONE, all_overrides=overrides, **CELL | {"method": "ours"})
    setup = stage_memory.Setup(
        stage, shape, stage_memory.numbers_of(stage.profile.training, m.Sharding()), m.Sharding()
    )
    expected = stage_memory._networks(setup)
    assert sum(test_one_base.tensors(networks).values()) == expected.weights
    trained = [p.nbytes for network in networks if network for p in network.parameters() if p.requires_grad]
    assert (sum(trained), 2 * sum(trained)) == (expected.gradients, expected.optimizer)


def test_zero2_of_the_papers_four_gpus_by_hand():
    memory = found("06_ppo", PAPER, student="large", dataset="mmlu").memory
    both = LARGE.parameters + LARGE.scorer_parameters
    assert memory.optimizer == 12 * both / 4
    assert memory.gradients == 2 * both / 4 + 2 * 2 * m.DEEPSPEED_BUCKET
    assert memory.weights == 4 * both  # two trained in bf16, two frozen in `training.weights`
    assert memory.cache == m.kv_cache(LARGE, 64, 1600 + 512, 2)


def test_a_teacher_is_split_by_tensor_parallelism():
    whole, split = (
        found("01_teacher_responses", PAPER, teacher=t, student=None, method=None) for t in ("weak", "strong")
    )
    assert whole.memory.weights == 2 * KNOWN["Llama-3.1-8B"].parameters
    assert split.memory.weights == 2 * KNOWN["Llama-3-70B"].parameters / 4
    assert whole.limit == split.limit == 0.9 * 80 * m.GIB


def test_vllm_beside_the_policy_takes_its_share_in_turn_or_all_the_time():
    share = {"generation.vllm": {"gpu_memory_utilization": 0.5}}
    plain, rollouts = found("06_ppo").memory, {"ppo.sampler": "vllm"} | share
    asleep = found("06_ppo", overrides=rollouts).memory
    awake = found("06_ppo", overrides=rollouts | {"ppo.sampler_sleep": False}).memory
    apart = found("06_ppo", overrides=rollouts | {"ppo.sampler_server": "http://localhost:8000"}).memory
    assert apart == plain  # the peak is a step
    assert awake == plain + m.Memory(cache=40 * m.GIB)
    assert asleep.cache == 40 * m.GIB and asleep.activations == asleep.logits == 0
    assert asleep.weights == plain.weights and asleep.total < awake.total


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ({}, "lower generation.vllm.gpu_memory_utilization"),
        ({"ppo.sampler_sleep": False}, "set ppo.sampler_sleep, or lower generation.vllm.gpu_memory_utilization"),
    ],
)
def test_vllm_that_does_not_fit_beside_the_policy(overrides, advice):
    footprint = found("06_ppo", overrides={"ppo.sampler": "vllm"} | overrides)  # vLLM's own default is 0.9
    assert not footprint.fits and footprint.advice == advice


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"training.weights": "bfloat16"}, "optimizer"),
        ({"training.gradient_accumulation": 8}, "activations"),
        ({"training.lora": {"r": 16, "alpha": 32}}, "gradients"),
    ],
)
def test_settings_that_save_memory_save_it_where_they_say(overrides, part):
    few = {"generation.batch_size": 16}  # more validation answers at once take more than a step
    before, after = (found("06_ppo", overrides=few | more).memory for more in ({}, overrides))
    assert getattr(after, part) <= getattr(before, part) / 2 and after.total < before.total


def test_checkpointing_and_eager_attention_count():
    def activations(overrides: dict) -> float:
        return found("05_reward_model", overrides=overrides).memory.activations

    less, plain = activations({}), activations({"training.gradient_checkpointing": False})
    eager = activations({"training.gradient_checkpointing": False, "training.attention": "eager"})
    assert less < plain / 4 and plain < eager


def test_parts_and_tiles_are_the_stages_own():
    assert (stage_memory.PART, stage_memory.SCORED) == (scoring.PART_SIZE, scoring.SCORED_SIZE)
    assert m.PPO_TILE == token_logprobs.TILE


@pytest.mark.parametrize("profile", [ONE, PAPER])
def test_every_stage_of_the_shipped_profiles_fits(profile):
    """Those of the study; of the reviewers' questions R1 and R3 train and load the teacher, as the dry run says."""
    stages = [stage for job in study_jobs(profile, [0]) for stage in job.stages]
    assert len(stages) > 20
    assert [stage.label for stage in stages if not stage_memory.of(stage).fits] == []


@pytest.mark.parametrize(
    ("sections", "stage", "advice"),
    [
        ({"hardware": {"gpu_memory_gib": 12}}, "01_teacher_responses", "raise the tensor_parallel of strong (now 1)"),
        ({"training": {"gradient_accumulation": 1}, "hardware": {"gpu_memory_gib": 16}}, "06_ppo", "training.lora"),
        ({"sft": {"batch_size": 4096}}, "03_sft_warmup", "raise training.gradient_accumulation (now 4)"),
        (
            {"training": {"gradient_checkpointing": False}, "hardware": {"gpu_memory_gib": 24}},
            "05_reward_model",
            "set training.gradient_checkpointing",
        ),
        (
            {"generation": {"batch_size": 4096}, "hardware": {"gpu_memory_gib": 24}},
            "03_sft_warmup",
            "lower generation.batch_size (now 4096)",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_what_to_change(tmp_path, monkeypatch, capsys, sections, stage, advice):
    root = changed(tmp_path, ONE, **sections)
    assert main(["study", "--profile", str(root / "p.yaml"), "--dry-run"]) == 0
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith(f"{stage} (") and "does not fit" in s]
    assert advice in line


def test_adapters_fit_a_gpu_of_24_gib(tmp_path):
    """As params/single_gpu.yaml says."""
    root = changed(tmp_path, ONE, training={"lora": {"r": 16, "alpha": 32}}, hardware={"gpu_memory_gib": 24})
    stages = [stage for job in study_jobs(str(root / "p.yaml"), [0]) for stage in job.stages]
    assert [stage.label for stage in stages if not stage_memory.of(stage).fits] == []


def test_the_table_of_the_docs_is_of_the_present_code():
    """`make docs` writes it."""
    pd.testing.assert_frame_equal(
        pd.read_csv(REPOSITORY / "docs/memory.csv"), memory_table.table().reset_index(drop=True)
    )


def test_llama_is_the_papers_small_student():
    assert found("04_student_responses", PAPER).memory.weights == 2 * LLAMA.parameters
    assert found("00_data").memory.total == found("02_pseudo_labels").memory.total == 0
