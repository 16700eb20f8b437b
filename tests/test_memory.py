"""Memory of one GPU: formulas compared with autograd, Adam and real training steps, and each stage's sum by hand."""

from __future__ import annotations

import weakref

import pytest
import test_one_base
import torch
import trl.trainer.utils
import yaml
from conftest import REPOSITORY
from tiny_models import make_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl.trainer.utils import add_fused_lm_head

from rdlib.__main__ import main
from rdlib.engines.transformers_engine import new_cache, pick_tokens
from rdlib.method import ppo_core as core
from rdlib.method import reward_model, scoring, token_logprobs, training
from rdlib.paths import ROOT
from rdlib.settings import Lora, Model, Training
from rdlib.study import memory as m
from rdlib.study.jobs import study_jobs
from rdlib.study.memory import KNOWN, Network, Shape, configuration, shape_of
from rdlib.study.stage import Stage

SMALL = Shape(64, 4, 4, 2, 16, 176, 512)
NUMBERS = {"fp32": m.FP32, "autocast": m.AUTOCAST, "bf16": m.BF16}
ONE, PAPER = "params/single_gpu.yaml", "params/paper.yaml"
CELL = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours"}
QWEN, LARGE = KNOWN["Qwen2.5-0.5B"], KNOWN["Qwen2.5-7B"]
LORA = {"training.lora": {"r": 16, "alpha": 32}}


def build(loader, network: Network):
    """A model of a shape, with random weights, in training mode."""
    config = configuration(network.shape, num_labels=1, pad_token_id=0)
    model = loader.from_config(config, attn_implementation=network.attention).train()
    if network.checkpointing:
        model.gradient_checkpointing_enable(training.NON_REENTRANT)
    return model.to(torch.bfloat16) if network.numbers.weight == 2 else model


def computing(numbers: m.Numbers):
    """The autocast that trainings in bf16 run under."""
    return torch.autocast("cpu", torch.bfloat16, enabled=numbers.compute == 2)


# ---- shapes

PUBLISHED = {  # the model cards' numbers, in billions
    "Llama-3-8B": 8.03,
    "Llama-3.1-8B": 8.03,
    "Llama-3-70B": 70.6,
    "Llama-3.1-70B": 70.6,
    "Llama-3.2-1B": 1.24,
    "Llama-3.2-3B": 3.21,
    "Qwen2.5-0.5B": 0.494,
    "Qwen2.5-7B": 7.62,
}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_transformers_own_classes(name):
    shape = KNOWN[name]
    with torch.device("meta"):
        loaders = (AutoModelForCausalLM, AutoModelForSequenceClassification)
        language, scorer = (build(one, Network(shape, m.FP32)).num_parameters() for one in loaders)
    assert (language, scorer) == (shape.parameters, shape.scorer_parameters)
    assert shape.parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.005)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_parameters_of_adapters_are_pefts(targets):
    model = build(AutoModelForCausalLM, Network(SMALL, m.FP32))
    adapted = training.with_adapters(model, Training(lora=Lora(r=4, alpha=8, target_modules=targets)), "CAUSAL_LM")
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained == SMALL.adapter_parameters(4, targets)


@pytest.mark.parametrize(
    ("name", "shape", "source"),
    [
        ("meta-llama/Meta-Llama-3-70B-Instruct", "Llama-3-70B", "kept in rdlib"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B", "kept in rdlib"),
        ("somebody/else-1.5B", "Llama-3.2-1B", "a guess: somebody/else-1.5B counts as Llama-3.2-1B"),
    ],
)
def test_a_shape_comes_from_a_name_or_is_called_a_guess(name, shape, source):
    found, where = shape_of(Model(model=name, parameters=1.5e9), ROOT)
    assert found == KNOWN[shape] and source in where


def test_the_shape_of_a_folder_is_in_its_configuration(tmp_path):
    configuration(QWEN).save_pretrained(tmp_path / "qwen")
    assert shape_of(Model(model="qwen"), tmp_path) == (QWEN, "qwen/config.json")


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "olmoe", "lfm2", "mamba", "granitemoehybrid", "gemma3_text", "phi3"])
def test_the_parameters_of_any_architecture_are_counted_and_the_rest_is_called_a_guess(tmp_path, kind):
    model = make_model(kind)
    model.config.save_pretrained(tmp_path / "model")
    shape, source = shape_of(Model(model="model"), tmp_path)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert source == f"model/config.json; activations and cache of {kind} are a guess, as Llama's"
    assert 0 < shape.scorer_parameters <= shape.parameters + shape.hidden


@pytest.mark.parametrize("config", ['{"model_type": "of_somebody"}', "{}", '{"model_type": "gpt2", "n_embd": "x"}'])
def test_a_configuration_that_transformers_does_not_know_is_a_guess(tmp_path, config):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(config)
    shape, source = shape_of(Model(model="model", parameters=0.5e9), tmp_path)
    assert shape == QWEN and source == "a guess: model counts as Qwen2.5-0.5B"


# ---- what passes hold


def kept_bytes(model, ids, mask, numbers: m.Numbers) -> int:
    """Bytes of the tensors that a forward pass saves beside the weights, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), computing(numbers):
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize(
    ("checkpointing", "attention", "padded"),
    [(False, "sdpa", False), (False, "sdpa", True), (False, "eager", True), (True, "sdpa", False)],
)
@pytest.mark.parametrize("kind", NUMBERS)
def test_kept_activations_are_what_autograd_saves(kind, checkpointing, attention, padded):
    """To 2 %: left out are the tables of the positions and the ids, which all layers share."""
    rows, length, network = 3, 40, Network(SMALL, NUMBERS[kind], checkpointing, attention)
    ids = torch.randint(1, SMALL.vocabulary, (rows, length))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0
    found = kept_bytes(build(AutoModelForCausalLM, network), ids, mask if padded else None, network.numbers)
    expected = network.kept(rows, length, padded)
    if not checkpointing:
        expected += m.casts(SMALL, network.numbers, m.Sharding())["weights"]
    assert found == pytest.approx(expected, rel=0.02)


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self):
        super().__init__()
        self.live = self.most = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in given | self.sizes.keys():
                self.sizes[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata)
        self.most = max(self.most, self.live)
        return result

    def _free(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


def sft_step(network: Network, rows: int, length: int):
    """A backward pass of TRL's loss, as the SFT trainer calls it; returns its peak, the formula's, and the models."""
    model = build(AutoModelForCausalLM, network)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    ids = torch.randint(1, network.shape.vocabulary, (rows, length))
    with Peak() as peak:
        with computing(network.numbers):
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, fused_lm_head=True)
        (-output.log_probs.sum()).backward()
    return peak.most, network.peak(rows, length, False) + network.tiled_head(rows * length), [model]


def reward_model_step(network: Network, rows: int, length: int):
    """A backward pass of Eq. 6 over responses padded on the right."""
    model = build(AutoModelForSequenceClassification, network)
    ids = torch.randint(1, network.shape.vocabulary, (rows, length))
    mask = torch.ones_like(ids)
    ids[0, -3:] = mask[0, -3:] = 0
    kinds, queries = torch.arange(rows) % 3, torch.zeros(rows)
    with Peak() as peak:
        with computing(network.numbers):
            scores = scoring.score_whole(model, ids, mask, rows).float()
        reward_model.reward_model_loss(scores, kinds, queries, 0.5, "convex").backward()
    return peak.most, network.peak(rows, length), [model]


def ppo_step(network: Network, rows: int, length: int):
    """A backward pass of Eq. 8 and the value loss, with the entropy, as PPOTrainer computes them."""
    response, loaders = length // 2, (AutoModelForCausalLM, AutoModelForSequenceClassification)
    both = core.PolicyAndValue(*(build(one, network) for one in loaders))
    ids = torch.randint(1, network.shape.vocabulary, (rows, length))
    old, advantages, values, returns = torch.randn(4, rows, response)
    mask = torch.ones(rows, response, dtype=torch.bool)

    def loss():
        inputs = (ids, torch.full((rows,), length - response), ids[:, -response:], mask)
        with computing(network.numbers):
            logprobs, entropies, now = both(*inputs, 1.0)
        core.masked_mean(entropies, mask)
        policy = core.policy_loss(logprobs, old, advantages, mask, 0.2)[0]
        return policy + 0.1 * core.value_loss(now, values, returns, mask, 0.2)[0]

    with Peak() as peak:
        loss().backward()
    bodies = network.peak(rows, length, False) + network.kept(rows, length, False)
    return peak.most, bodies + network.ppo_head(rows * response), [both]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "checkpointing"), [("fp32", False), ("autocast", True), ("bf16", False)])
@pytest.mark.parametrize("step", [sft_step, reward_model_step, ppo_step])
def test_the_peak_of_a_training_step_is_near_the_formula_and_below_it(monkeypatch, step, kind, checkpointing):
    """The formula adds all gradients to the peak of a pass, when few are there: in so small a model up to a half.

    TRL's tile is narrow here, as folding it takes float32 copies of it on a CPU, which Triton's kernel does not make.
    """
    monkeypatch.setattr(m, "TILE", (4096, 32))
    monkeypatch.setattr(m, "PPO_TILE", 2**18)
    monkeypatch.setattr(token_logprobs, "CPU_TILE", 2**18)
    monkeypatch.setattr(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 32)
    network = Network(Shape(64, 4, 4, 2, 16, 176, 2000), NUMBERS[kind], checkpointing)
    peak, expected, models = step(network, 24, 128)
    gradients = sum(p.grad.nbytes for model in models for p in model.parameters())
    casts = (2 if step is ppo_step else 1) * m.casts(network.shape, network.numbers, m.Sharding())["weights"]
    assert 0.97 < (expected + gradients + casts) / peak < 1.5


@pytest.mark.parametrize("tile", [2**20, 2**24])
@pytest.mark.parametrize("kind", NUMBERS)
def test_ppo_holds_two_copies_of_a_tile_of_logits_or_four_of_all(monkeypatch, kind, tile):
    """Where nothing but logits counts; whole ones of 5 million."""
    monkeypatch.setattr(token_logprobs, "CPU_TILE", tile)
    monkeypatch.setattr(m, "PPO_TILE", tile)
    network = Network(Shape(4, 1, 1, 1, 4, 4, 20_000), NUMBERS[kind])
    assert ppo_step(network, 8, 64)[0] == pytest.approx(network.ppo_head(8 * 32), rel=0.05)


def test_sampling_holds_the_cache_and_the_copies_of_a_steps_logits():
    rows, prompt, response, network = 6, 30, 40, Network(SMALL, m.FP32)
    model = build(AutoModelForCausalLM, network).eval()
    with torch.no_grad(), Peak() as peak:
        cache = new_cache(model.config)
        for width in (prompt, *[1] * response):
            ids = torch.ones(rows, width, dtype=torch.long)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    layers = sum(buffer.nbytes for layer in cache.layers for buffer in layer.buffers)
    exact = network.cache(rows * (prompt + response))
    assert exact <= layers <= network.cache(rows * (prompt + response + 32))  # BufferedLayer.room
    assert 0.7 < (exact + network.reading(rows * prompt)) / peak.most < 1.3
    logits, wide = torch.randn(8, 50_000), Network(Shape(1, 1, 1, 1, 1, 1, 50_000), m.FP32)
    with Peak() as peak:
        pick_tokens(logits, torch.ones(8), torch.Generator().manual_seed(0))
    assert peak.most + logits.nbytes == pytest.approx(wide.sampling(8, 1, 1)["logits"], rel=0.1)


# ---- what lasts


@pytest.mark.parametrize(
    ("numbers", "sharding", "bytes_each"),
    [
        (m.AUTOCAST, m.Sharding(), (4, 4, 8)),
        (m.BF16, m.Sharding(), (2, 2, 4)),
        (m.AUTOCAST, m.Sharding("ddp", 4), (4, 8, 8)),  # DDP's buckets are a second copy of the gradients
        (m.BF16, m.Sharding("fsdp", 4), (2 / 4, 2 / 4, 4 / 4)),
    ],
)
def test_bytes_of_a_trained_parameter(numbers, sharding, bytes_each):
    found = m.states(1e9, 0, numbers, sharding)
    assert [found[part] for part in m.PARTS[:3]] == pytest.approx([1e9 * b for b in bytes_each])


def test_zero_splits_what_its_paper_says():
    """Rajbhandari et al. 2020: 2 + (2 + 12) / N bytes at stage 2, 16 / N at stage 3; and buffers."""
    n, count = 4, 3e9
    two, three = (m.states(count, 0, m.BF16, m.Sharding(kind, n)) for kind in ("zero2", "zero3"))
    bucket, live = 2 * m.DEEPSPEED_BUCKET, 2 * m.DEEPSPEED_LIVE
    assert two.total() == pytest.approx(count * (2 + 14 / n) + bucket)
    assert three.total() == pytest.approx(count * 16 / n + bucket + live)


# ---- stages, by hand


def found(name: str, profile: str = ONE, overrides: dict | None = None, **axes) -> m.Footprint:
    return m.footprint(Stage(name, profile, all_overrides=overrides or {}, **CELL | axes))


def test_sft_of_one_gpu_by_hand():
    """Float32 weights, gradients and two moments; of 64 rows a quarter at once, 350 + 320 tokens each."""
    few = {"generation.batch_size": 16}  # more validation answers at once take more than a step
    assert found("03_sft_warmup", overrides=few, method="sft").memory == {
        "weights": 4 * QWEN.parameters + 2 * QWEN.layers * QWEN.layer_linear,
        "gradients": 4 * QWEN.parameters,
        "optimizer": 8 * QWEN.parameters,
        "activations": Network(QWEN, m.AUTOCAST, True).peak(16, 670),
        "logits": 4096 * 32768 * 2 + 4 * 16 * 670 * QWEN.hidden + 4 * QWEN.embedding,
        "runtime": 2 * m.GIB,
    }


def test_ppo_with_adapters_by_hand():
    """One body, or another student's that the value model shares with the reward model, and adapters with heads."""
    memory, adapters = found("06_ppo", overrides=LORA).memory, QWEN.adapter_parameters(16)
    several = found("06_ppo", overrides=LORA | {"reward_model.members": 3}).memory
    assert memory["weights"] == 4 * (QWEN.parameters + 3 * adapters + 2 * QWEN.hidden)
    assert several["weights"] == memory["weights"] + 2 * 4 * (adapters + QWEN.hidden)
    other = found("06_ppo", overrides=LORA | {"reward_model.student": "strong"}).memory  # a teacher in its place
    values = LARGE.adapter_parameters(16) + LARGE.hidden
    assert other["weights"] == 4 * (QWEN.parameters + adapters + LARGE.scorer_parameters + values)


@pytest.mark.parametrize(("kind", "weights"), [("Qwen2", "float32"), ("Llama", "bfloat16")])
def test_the_weights_of_ppo_with_adapters_are_the_networks_own(tmp_path, kind, weights):
    """Compared with the storages of real networks, each counted once."""
    shape = Shape(64, 4, 4, 2, 16, 176, 512, tied=kind == "Qwen2", qkv_bias=kind == "Qwen2")
    build(AutoModelForCausalLM, Network(shape, m.FP32)).save_pretrained(tmp_path / "base")
    given = Training(lora=Lora(r=4, alpha=8), weights=weights)
    scorer = test_one_base.trained(tmp_path / "reward", tmp_path / "base", given)
    networks = test_one_base.networks(tmp_path / "base", scorer, given)
    overrides = {"training.lora": {"r": 4, "alpha": 8}, "training.weights": weights, "training.precision": None}
    expected = m._networks(m.Setup(Stage("06_ppo", ONE, all_overrides=overrides, **CELL), shape))
    assert sum(test_one_base.tensors(networks).values()) == expected["weights"]
    trained = sum(p.nbytes for network in networks if network for p in network.parameters() if p.requires_grad)
    assert (trained, 2 * trained) == (expected["gradients"], expected["optimizer"])


def test_vllm_splits_a_teacher_by_tensor_parallelism_and_takes_its_share():
    axes = {"student": None, "method": None}
    whole, split = (found("01_teacher_responses", PAPER, teacher=t, **axes) for t in ("weak", "strong"))
    assert whole.memory["weights"] == 2 * KNOWN["Llama-3.1-8B"].parameters
    assert split.memory["weights"] == 2 * KNOWN["Llama-3-70B"].parameters / 4
    assert whole.limit == split.limit == 0.9 * 80 * m.GIB
    assert found("04_student_responses", PAPER).memory["weights"] == 2 * KNOWN["Llama-3.2-1B"].parameters
    assert found("00_data").memory == found("02_pseudo_labels").memory == {}


def test_vllm_beside_the_policy_takes_its_share_in_turn_or_all_the_time():
    plain, rollouts = found("06_ppo").memory, {"ppo.sampler": "vllm"}
    rollouts |= {"generation.vllm": {"gpu_memory_utilization": 0.5}}
    asleep = found("06_ppo", overrides=rollouts).memory
    awake = found("06_ppo", overrides=rollouts | {"ppo.sampler_sleep": False}).memory
    apart = found("06_ppo", overrides=rollouts | {"ppo.sampler_server": "http://localhost:8000"}).memory
    assert apart == plain  # the peak is a step
    assert awake == plain + m.Memory(cache=40 * m.GIB)
    assert asleep["cache"] == 40 * m.GIB and asleep["activations"] == asleep["logits"] == 0
    assert asleep["weights"] == plain["weights"] and asleep.total() < awake.total()


def test_parts_and_tiles_are_the_stages_own():
    assert (m.PART, m.SCORED, m.PPO_TILE) == (scoring.PART_SIZE, scoring.SCORED_SIZE, token_logprobs.TILE)


# ---- what fits


@pytest.mark.parametrize(
    ("profile", "overrides"), [(ONE, {}), (PAPER, {}), (ONE, LORA | {"hardware.gpu_memory_gib": 24})]
)
def test_every_stage_of_the_shipped_profiles_fits(profile, overrides):
    """With adapters a GPU of 24 GiB is enough, as params/single_gpu.yaml says."""
    stages = [stage.with_overrides(overrides) for job in study_jobs(profile, [0]) for stage in job.stages]
    assert len(stages) > 20 and [stage.label for stage in stages if not m.footprint(stage).fits] == []


SMALLER = {"hardware.gpu_memory_gib": 24}


@pytest.mark.parametrize(
    ("stage", "overrides", "advice"),
    [
        ("06_ppo", {"hardware.gpu_memory_gib": 16}, "set training.lora or training.weights bfloat16, or spread it by "),
        ("03_sft_warmup", {"sft.batch_size": 4096}, "raise training.gradient_accumulation (now 4)"),
        (
            "05_reward_model",
            SMALLER | {"training.gradient_checkpointing": False},
            "set training.gradient_checkpointing",
        ),
        ("03_sft_warmup", SMALLER | {"generation.batch_size": 4096}, "lower generation.batch_size (now 4096)"),
        ("06_ppo", {"ppo.sampler": "vllm"}, "lower generation.vllm.gpu_memory_utilization"),  # 0.9, vLLM's default
        ("06_ppo", {"ppo.sampler": "vllm", "ppo.sampler_sleep": False}, "set ppo.sampler_sleep, or lower generation."),
    ],
)
def test_what_does_not_fit_has_advice(stage, overrides, advice):
    one = found(stage, overrides=overrides)
    assert not one.fits and one.advice.startswith(advice)


def test_the_dry_run_names_what_does_not_fit(tmp_path, capsys):
    content = yaml.safe_load((REPOSITORY / ONE).read_text())
    content["hardware"] |= {"gpu_memory_gib": 12}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    assert main(["study", "--profile", str(tmp_path / "p.yaml"), "--dry-run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("01_teacher_responses (")]
    assert lines == [
        "01_teacher_responses (gsm/strong) does not fit: it wants about 18 GiB of each GPU and may take 11: raise the "
        "tensor_parallel of strong (now 1)."
    ]
