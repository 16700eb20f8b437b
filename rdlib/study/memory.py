"""Memory of one GPU for every stage of a profile, in parts, in bytes: formulas of models' shapes and settings.

    found = footprint(stage)
    found.memory.total() / GIB, found.fits, found.advice

A `Shape` is that of decoder-only transformers such as Llama and Qwen2: RMSNorm, grouped-query attention, gated MLP, no
bias but Qwen2's on query, key and value.

Adam in float32 keeps 16 bytes a trained parameter: weight, gradient and two moments of four each (Rajbhandari et al.
2020, ZeRO, section 3.1, has the same sum for bf16 with float32 masters). What a forward pass keeps for its backward
pass is that of transformers' Llama, tensor by tensor. The table is for one layer and one token: c is the bytes of a
computed number, w of a stored one, and H, Q, K and I are the hidden, query, key and intermediate sizes.

    2 norms              2 (4 H + w H + 4)        the input in float32, the normalised one, 1/rms
    inputs of matmuls    c (2 H + Q)              c (5 H + Q) under autocast, which casts one for each
    attention            c (Q + 2 K) + 4 heads    sdpa without padding: q, k, v, log of the sum
                         c (3 Q + T) + 4 heads    sdpa with padding: k and v for every head, the mask of T keys
                         3 c Q + 4 heads T        eager: k and v for every head, probabilities (and again in bf16)
    MLP                  4 c I                    gate, its silu, up, and their product

Tests compare the formulas with transformers' own classes, with tensors that autograd saves, and the sums with the peak
of this project's own training steps, on a CPU. RUNTIME is a guess for CUDA's context, workspaces and fragments.
Sequences have their largest length (the longest question of a benchmark and a response cut at its limit). Only in the
reward model's batches, of many responses, they have twice the usual length.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rdlib.settings import Dataset, Model, Training
from rdlib.study import launch, requirements
from rdlib.study.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Memory = Counter  # bytes by what holds them; a sum of two adds each part
GIB = 2**30
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "cache", "runtime")  # the keys of a Memory
RUNTIME = 2 * GIB
TILE = (4096, 32768)  # tokens (or fewer) and vocabulary entries of the logits that TRL's trainers hold at once
DEEPSPEED_BUCKET = 5e8  # its reduce_bucket_size
DEEPSPEED_LIVE = 1e9  # parameters that ZeRO-3 leaves gathered: its stage3_max_live_parameters
PPO_TILE = 2**25  # logits that PPO holds at once on a GPU (TILE of rdlib.method.token_logprobs)
PPO_COPIES = 4  # of logits in float32 that fit into a tile, at the peak of a backward pass (tests/test_memory.py)
PICKING_COPIES = 3.25  # of the logits [B, V]: scaled, softmax and its sums, and a comparison
SCORED, PART = 32, 24  # sequences that method.scoring scores, and trains on, at once (its SCORED_SIZE and PART_SIZE)
# vLLM's defaults: its share of the GPU, sequences at once, tokens read at once.
VLLM_SHARE, VLLM_SEQUENCES, VLLM_TOKENS = 0.9, 256, 8192
QUANTIZED = {"fp8": 1.0}  # bytes of a weight; others have four bits and their scales
# Questions of the splits of appendix B.1, where a profile takes all there are.
SIZES = {
    "gsm8k": {"train": 6726, "validation": 747, "test": 1319, "perturbed_test": 10552},
    "mmlu_pro": {"train": 9204, "validation": 1023, "test": 1805, "perturbed_test": 0},
}
# Tokens of a prompt and of a response: of Llama-3's on GSM8K and MMLU-Pro (../shared/data), and of the micro models'.
LENGTHS = {
    "gsm8k": (130, 190),
    "mmlu_pro": (260, 330),
    "micro-gsm": (40, 45),
    "micro-mmlu": (50, 12),
    "questions": (150, 250),
}
# Tokens of the longest prompt: 985 and 5,286 characters of a question over 3.5, and the instruction around it.
LONGEST = {"gsm8k": 350, "mmlu_pro": 1600, "micro-gsm": 100, "micro-mmlu": 100, "questions": 600}


def split_sizes(dataset: Dataset, root: Path) -> dict[str, int]:
    """Questions of each split of a dataset; UserError where a file of your own questions cannot be read."""
    given = {name: getattr(dataset, name) for name in ("train", "validation", "test", "perturbed_test")}
    if None not in given.values():
        return given
    known = SIZES.get(dataset.source)
    if known is None:
        from rdlib.tasks import data

        known = Counter(q.split for q in data.load(dataset.source, dataset, root))
    return {name: known[name] if count is None else min(count, known[name]) for name, count in given.items()}


# ---- shapes of models


@dataclass(frozen=True)
class Shape:
    """An architecture's numbers; `tied`: input and output embedding are one matrix.

    `counted`: parameters of an architecture with layers other than Llama's, counted on its own class; otherwise 0.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False
    counted: int = 0

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of all key heads together, which is that of the values."""
        return self.kv_heads * self.head_width

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linear maps, by the names that adapters know them by."""
        into_attention = {"q_proj": self.queries, "k_proj": self.keys, "v_proj": self.keys}
        into_mlp = {"gate_proj": self.intermediate, "up_proj": self.intermediate}
        sizes = {name: (self.hidden, width) for name, width in (into_attention | into_mlp).items()}
        return sizes | {"o_proj": (self.queries, self.hidden), "down_proj": (self.intermediate, self.hidden)}

    @property
    def layer_linear(self) -> int:
        """Weights of a layer's linear maps."""
        return sum(inputs * outputs for inputs, outputs in self.linear_sizes.values())

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, or of the output layer."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the language model."""
        bias = self.queries + 2 * self.keys if self.qkv_bias else 0
        layers = self.layers * (self.layer_linear + bias + 2 * self.hidden)
        return self.counted or self.embedding * (1 if self.tied else 2) + layers + self.hidden

    @property
    def scorer_parameters(self) -> int:
        """Parameters of a reward or value model: a head of one output in the output layer's place."""
        return self.parameters - (0 if self.tied else self.embedding) + self.hidden

    def adapter_parameters(self, rank: int, targets: str | list[str] = "all-linear") -> int:
        """Parameters of low-rank adapters; a pattern of names counts as all linear layers."""
        names = [t.rpartition(".")[2] for t in targets] if isinstance(targets, list) else list(self.linear_sizes)
        return self.layers * rank * sum(sum(size) for name, size in self.linear_sizes.items() if name in names)


# From the models' config.json on the hub.
KNOWN = {
    "Llama-3-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "Llama-3.1-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "Llama-3-70B": Shape(8192, 80, 64, 8, 128, 28672, 128256),
    "Llama-3.1-70B": Shape(8192, 80, 64, 8, 128, 28672, 128256),
    "Llama-3.2-1B": Shape(2048, 16, 32, 8, 64, 8192, 128256, tied=True),
    "Llama-3.2-3B": Shape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
    "Qwen2.5-0.5B": Shape(896, 24, 14, 2, 64, 4864, 151936, tied=True, qkv_bias=True),
    "Qwen2.5-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, qkv_bias=True),
}


def shape_of(model: Model, root: Path) -> tuple[Shape, str]:
    """The shape of a model and where it comes from: its folder's config.json, or KNOWN by its name on the hub.

    Of any other model, that of the KNOWN one nearest in size to its `parameters`: a guess, and called one.
    """
    if (root / model.model / "config.json").is_file() and (found := _shape_in(root / model.model)):
        shape, kind = found
        guess = f"; activations and cache of {kind} are a guess, as Llama's" if shape.counted else ""
        return shape, f"{model.model}/config.json{guess}"
    name = re.sub(r"^Meta-|-(Instruct|Base)$", "", model.model.rpartition("/")[2])
    if name in KNOWN:
        return KNOWN[name], f"{name}'s config.json on the hub, kept in rdlib"
    name = min(KNOWN, key=lambda known: abs(KNOWN[known].parameters - (model.parameters or 0.0)))
    return KNOWN[name], f"a guess: {model.model} counts as {name}"


def _shape_in(folder: Path) -> tuple[Shape, str] | None:
    """The shape of the model in a folder, and its architecture; None for one that transformers does not know.

    Widths that an architecture does not have are those of a Llama its size.
    """
    from rdlib.engines import adapters, models

    try:
        whole = models.load_config(folder)
        text = whole.get_text_config(decoder=True)
        others = [getattr(whole, name, None) for name in ("attention_bias", "mlp_bias", "quantization_config")]
        as_llama = whole.model_type in ("llama", "qwen2", "mistral") and not any(others)
        counted = 0 if as_llama else adapters.without_weights(whole).num_parameters()
    except Exception:  # a configuration of code that is not here, or one that it does not take
        return None
    heads = _first(text, "num_attention_heads") or max(1, text.hidden_size // 64)
    kv_heads, width = (
        _first(text, "num_key_value_heads") or heads,
        _first(text, "head_dim") or text.hidden_size // heads,
    )
    sizes = (text.hidden_size, text.num_hidden_layers, heads, kv_heads, width, _intermediate(text), text.vocab_size)
    return Shape(
        *sizes, bool(_first(text, "tie_word_embeddings")), whole.model_type == "qwen2", counted
    ), whole.model_type


def _first(config: PreTrainedConfig, *names: str) -> Any:
    """The first of these settings that a configuration has; None where it has none of them."""
    return next((value for name in names if (value := getattr(config, name, None))), None)


def _intermediate(text: PreTrainedConfig) -> int:
    """How wide a layer is between its maps, for one token: of a mixture, the experts that it goes through."""
    width = _first(text, "intermediate_size", "ffn_hidden_size") or 4 * text.hidden_size
    width = max(width) if isinstance(width, list | tuple) else width
    experts = _first(text, "num_experts_per_tok")
    return experts * (_first(text, "moe_intermediate_size") or width) if experts else width


def configuration(shape: Shape, **more: Any) -> PreTrainedConfig:
    """The configuration of a Llama or, where query, key and value have a bias, of a Qwen2 of this shape."""
    from transformers import LlamaConfig, Qwen2Config  # late: counting parameters needs neither

    return (Qwen2Config if shape.qkv_bias else LlamaConfig)(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        **more,
    )


# ---- what a training holds all the time


class Numbers(NamedTuple):
    """Bytes of a number as it is held, and as it is computed with; where they differ, weights are cast for each use."""

    weight: int
    compute: int


FP32, AUTOCAST, BF16 = Numbers(4, 4), Numbers(4, 2), Numbers(2, 2)


class Sharding(NamedTuple):
    """How a training is spread: over so many processes, and what each of them holds a part of."""

    kind: Literal["none", "ddp", "zero2", "zero3", "fsdp"] = "none"
    processes: int = 1


WHOLE, DEEPSPEED = ("none", "ddp"), ("zero2", "zero3")  # every process has whole networks; DeepSpeed has the numbers


def states(trained: float, frozen: float, numbers: Numbers, sharding: Sharding, adapters: bool = False) -> Memory:
    """Weights, gradients and Adam's moments of so many parameters; adapters on frozen weights are float32.

    DeepSpeed in bf16 holds weights and gradients in bf16, and float32 masters beside the moments.
    """
    n, held = sharding.processes, 4 if adapters else numbers.weight
    if sharding.kind in DEEPSPEED:
        held = numbers.compute
        masters = 4 if held == 2 else 0
        bucket = min(DEEPSPEED_BUCKET, trained) * held
        whole = (trained + frozen) * held
        weights = whole if sharding.kind == "zero2" else whole / n + min(DEEPSPEED_LIVE, trained + frozen) * held
        return Memory(weights=weights, gradients=trained * held / n + bucket, optimizer=trained * (8 + masters) / n)
    n = n if sharding.kind == "fsdp" else 1
    buckets = 2 if sharding.kind == "ddp" else 1
    weights = (trained * held + frozen * numbers.weight) / n
    return Memory(weights=weights, gradients=trained * held * buckets / n, optimizer=2 * trained * held / n)


def casts(shape: Shape, numbers: Numbers, sharding: Sharding) -> Memory:
    """The bf16 copies of trained float32 weights that autocast makes and keeps for the length of a forward pass."""
    layers = shape.layers if sharding.kind in WHOLE else 2  # FSDP gathers a layer, and the next one
    wanted = numbers == AUTOCAST and sharding.kind not in DEEPSPEED
    return Memory(weights=2.0 * layers * shape.layer_linear if wanted else 0.0)


# ---- what passes hold


@dataclass(frozen=True)
class Network:
    """A network that sequences go through, with and without a backward pass; each number is bytes."""

    shape: Shape
    numbers: Numbers
    checkpointing: bool = False
    attention: str = "sdpa"

    def layer(self, length: int, padded: bool) -> float:
        """What one layer keeps of one token of a sequence for the backward pass."""
        c, shape = self.numbers.compute, self.shape
        norms = 2 * (4 * shape.hidden + self.numbers.weight * shape.hidden + 4)
        inputs = c * ((5 if self.numbers == AUTOCAST else 2) * shape.hidden + shape.queries)
        if self.attention == "eager":
            kept = 3 * c * shape.queries + shape.heads * length * (4 if c == 4 else 6)
        elif padded and self.attention == "sdpa":
            kept = c * (3 * shape.queries + length) + 4 * shape.heads
        else:
            kept = c * (shape.queries + 2 * shape.keys) + 4 * shape.heads
        return norms + inputs + kept + 4 * c * shape.intermediate

    def kept(self, rows: int, length: int, padded: bool = True) -> float:
        """What a forward pass over `rows` sequences keeps: of every layer, or its input alone."""
        of_layer = self.numbers.weight * self.shape.hidden if self.checkpointing else self.layer(length, padded)
        last_norm = (4 + self.numbers.weight) * self.shape.hidden + 4
        return rows * length * (self.shape.layers * of_layer + last_norm)

    def peak(self, rows: int, length: int, padded: bool = True) -> float:
        """The peak of a backward pass: what was kept, a layer computed again, and gradients of its MLP."""
        again = self.layer(length, padded) if self.checkpointing else 0.0
        gradients = 3 * self.numbers.compute * self.shape.intermediate + 2 * self.numbers.weight * self.shape.hidden
        return self.kept(rows, length, padded) + rows * length * (again + gradients)

    def reading(self, tokens: float) -> float:
        """A forward pass over so many tokens without gradient: the stream, a norm of it, and the MLP's values."""
        numbers, shape = self.numbers, self.shape
        return tokens * (3 * numbers.compute * shape.intermediate + (2 * numbers.weight + 4) * shape.hidden)

    def cache(self, tokens: float) -> float:
        """Keys and values of so many tokens."""
        return 2.0 * self.shape.layers * self.shape.keys * self.numbers.compute * tokens

    def logits(self, tokens: int, copies: float) -> float:
        """Logits [tokens, V] in float32, so many times."""
        return 4.0 * copies * tokens * self.shape.vocabulary

    def tiled_head(self, tokens: int, trained: bool = True) -> float:
        """TRL's head, which never holds all logits: a tile, and float32 gradients of states and output layer."""
        tile = min(tokens, TILE[0]) * TILE[1] * self.numbers.compute
        return tile + 4 * tokens * self.shape.hidden + (4 * self.shape.embedding if trained else 0)

    def ppo_head(self, tokens: int, trained: bool = True) -> float:
        """PPO's head, which holds a tile of logits; whole ones where they fit into a tile.

        Forwards a tile and its powers in float32; backwards its gradient, also in the type of products, and those of
        states and output layer.
        """
        if tokens * self.shape.vocabulary <= PPO_TILE:
            return self.logits(tokens, PPO_COPIES)
        tile = PPO_TILE * (4 if self.numbers.compute == 4 else 4 + self.numbers.compute)
        gradients = 4 * tokens * self.shape.hidden + (self.numbers.weight * self.shape.embedding if trained else 0)
        return max(2 * 4 * PPO_TILE, tile + gradients)

    def sampling(self, rows: int, prompt: int, response: int, prompts: int | None = None) -> Memory:
        """The transformers engine at work, without its weights: cache, logits of a step, and reading the prompts."""
        return Memory(
            activations=self.reading((prompts or rows) * prompt),
            logits=self.logits(rows, PICKING_COPIES),
            cache=self.cache(rows * (prompt + response)),
        )


# ---- stages


@dataclass(frozen=True)
class Footprint:
    """A stage's memory at its peak, the bytes that it may take, where the shape comes from, and what would help."""

    memory: Memory
    limit: float
    source: str = ""
    advice: str = ""

    @property
    def fits(self) -> bool:
        """Whether the stage fits."""
        return self.memory.total() <= self.limit


def footprint(stage: Stage) -> Footprint:
    """The footprint of a stage on one of its profile's GPUs; of nothing where it uses none."""
    if stage.name in requirements.SAMPLED:
        return _sampling(Setup(stage))
    if stage.name not in TRAINED:
        return Footprint(Memory(), 0.0)
    setup = Setup(stage)
    lasting, phases = TRAINED[stage.name](setup)
    found = lasting + max(phases, key=Memory.total) + Memory(runtime=RUNTIME)
    return Footprint(found, setup.room, setup.source, _advice(found, setup))


def numbers_of(training: Training, sharding: Sharding) -> Numbers:
    """How a training on a GPU holds its numbers and computes with them."""
    if training.precision == "fp32":
        return FP32
    in_bf16 = training.weights != "float32" or sharding.kind not in WHOLE  # ZeRO and FSDP cast modules
    return BF16 if in_bf16 else AUTOCAST


def sharding_of(stage: Stage) -> Sharding:
    """How a stage's training is spread, by its accelerate configuration."""
    training = stage.profile.training
    if not launch.is_wanted(stage):
        return Sharding()
    if training.accelerate is None:
        return Sharding("ddp", training.processes)
    found = launch.read(stage.root / training.accelerate)
    kinds = {"DEEPSPEED": f"zero{3 if found.deepspeed_config.get('zero_stage') == 3 else 2}", "FSDP": "fsdp"}
    return Sharding(kinds.get(found.distributed_type.value, "ddp"), training.processes)


class Setup:
    """A stage's network on one GPU: its shape, numbers and spread, and the stage's lengths, in tokens, and batches.

    The model is the stage's student, or its teacher where it has no student; `shape` replaces the model's own.
    """

    def __init__(self, stage: Stage, shape: Shape | None = None):
        self.stage, self.profile, training = stage, stage.profile, stage.profile.training
        self.model = self.profile.model_of(stage.student or stage.teacher)
        own, self.source = shape_of(self.model, stage.root)
        self.shape, self.sharding = shape or own, sharding_of(stage)
        numbers, attention = numbers_of(training, self.sharding), training.attention or "sdpa"
        self.network = Network(self.shape, numbers, training.gradient_checkpointing, attention)
        self.room = self.profile.hardware.gpu_memory_gib * GIB
        self.usual = LENGTHS[stage.dataset_settings.source]  # of a prompt and a response
        shots = self.profile.evaluation.few_shot if stage.method == "icl" else 0
        self.prompt = LONGEST[stage.dataset_settings.source] + shots * sum(self.usual)
        self.response = stage.dataset_settings.max_tokens
        self.length = self.prompt + self.response
        self.whole = training.lora is None  # whether all parameters are trained, and not adapters

    def of_model(self, name: str) -> Setup:
        """The same with the shape of another model of the profile."""
        return Setup(self.stage, shape_of(self.profile.model_of(name), self.stage.root)[0])

    @property
    def adapters(self) -> int:
        """Parameters of a network's adapters; none without them."""
        lora = self.profile.training.lora
        return 0 if lora is None else self.shape.adapter_parameters(lora.r, lora.target_modules)

    def part_of(self, batch: int) -> int:
        """Rows of a batch that go through a network of this process at once."""
        return max(1, batch // (self.sharding.processes * self.profile.training.gradient_accumulation))

    def trained(self, scorer: bool = False, base: bool = True) -> Memory:
        """The lasting memory of a network in training; not `base`: of what is trained on a base that is there."""
        whole = self.shape.scorer_parameters if scorer else self.shape.parameters
        numbers, sharding = self.network.numbers, self.sharding
        if self.whole:
            return states(whole, 0, numbers, sharding) + casts(self.shape, numbers, sharding)
        return states(self.adapters + scorer * self.shape.hidden, base * whole, numbers, sharding, True)

    def frozen(self, parameters: float) -> Memory:
        """A network that is only passed through; each process has it whole."""
        return Memory(weights=parameters * (4 if self.profile.training.weights == "float32" else 2))

    def step(self, rows: int, length: int) -> Memory:
        """A step of TRL's trainers over `rows` sequences."""
        head = self.network.tiled_head(rows * length, self.whole)
        return Memory(activations=self.network.peak(rows, length), logits=head)

    def sampling(self, rows: int) -> Memory:
        """The transformers engine at work with the network in training."""
        return self.network.sampling(max(1, min(self.profile.generation.batch_size, rows)), self.prompt, self.response)

    def validation(self) -> Memory:
        """Greedy answers to the validation questions, of which each process has its share."""
        questions = split_sizes(self.stage.dataset_settings, self.stage.root)["validation"]
        return self.sampling(-(-questions // self.sharding.processes))


# ---- stages that sample


def _sampling(setup: Setup) -> Footprint:
    stage, generation = setup.stage, setup.profile.generation
    engine, own = requirements.sampler_of(stage), stage.asked is None and stage.method != "icl"  # a model of the study
    if engine == "vllm":
        parallel = 1 if own else setup.model.tensor_parallel
        found, limit = _vllm(setup, parallel)
        raised = f"raise the tensor_parallel of {stage.student or stage.teacher} (now {parallel})"
        advice = "take a smaller student" if own else raised
        return Footprint(found, limit, setup.source, advice)
    if engine != "transformers":
        return Footprint(Memory(), setup.room)
    rows = generation.batch_size
    found = Network(setup.shape, FP32).sampling(rows, setup.prompt, setup.response, -(-rows // _samples(stage)))
    held = 4.0 if generation.weights == "float32" else 2.0
    found += Memory(weights=held * setup.shape.parameters, runtime=RUNTIME)
    larger = found["weights"] > found.total() / 2
    advice = "sample with engine vllm" if larger else f"lower generation.batch_size (now {rows})"
    return Footprint(found, setup.room, setup.source, advice)


def _samples(stage: Stage) -> int:
    """Samples of a prompt at one temperature."""
    if stage.name in ("01_teacher_responses", "01_held_out"):
        return stage.profile.teacher_sampling.samples_per_temperature
    return 1 if stage.name == "07_evaluate" else stage.profile.student_sampling.samples


def _vllm(setup: Setup, parallel: int) -> tuple[Memory, float]:
    """vLLM's memory on each of `parallel` GPUs, with as many sequences as fit, and the share that it may take."""
    settings = setup.profile.generation.vllm
    share = (settings.gpu_memory_utilization or VLLM_SHARE) * setup.room
    width = 4 if settings.dtype == "float32" else 2
    held = width if settings.quantization is None else QUANTIZED.get(settings.quantization, 0.6)
    network = Network(setup.shape, Numbers(width, width))
    fixed = Memory(
        weights=held * setup.shape.parameters / parallel,
        activations=network.reading(VLLM_TOKENS) / parallel,
        logits=network.logits(VLLM_SEQUENCES, 2),
        runtime=RUNTIME,
    )
    one, usual = network.cache(setup.length) / parallel, network.cache(sum(setup.usual)) / parallel
    at_once = min(VLLM_SEQUENCES, (share - fixed.total()) // usual)
    return fixed + Memory(cache=max(one, at_once * usual)), share


# ---- stages that train: the memory that lasts, and the phases that follow each other and free what they took


def _sft(setup: Setup) -> tuple[Memory, list[Memory]]:
    sft = setup.profile.sft
    step = setup.step(setup.part_of(sft.batch_size), min(sft.max_length, setup.length))
    return setup.trained(), [step, setup.validation()]


def _reward_model(setup: Setup) -> tuple[Memory, list[Memory]]:
    settings, network = setup.profile.reward_model, setup.network
    kinds = 3 if settings.source == "student" else 2
    rows = setup.part_of(settings.batch_size) * kinds * settings.samples_per_kind
    at_once = rows if setup.sharding.kind in ("zero3", "fsdp") else min(PART, rows)
    length = min(setup.length, 2 * sum(setup.usual))
    passes = network.kept(rows - at_once, length) + network.peak(at_once, length)
    return setup.trained(scorer=True), [Memory(activations=passes)]


def _ppo(setup: Setup) -> tuple[Memory, list[Memory]]:
    ppo, network, processes = setup.profile.ppo, setup.network, setup.sharding.processes
    rows = min(setup.profile.training.forward_size(ppo.minibatch_size), -(-ppo.minibatch_size // processes))
    both = network.kept(rows, setup.length, False) + network.peak(rows, setup.length, False)  # policy and value model
    step = Memory(activations=both, logits=network.ppo_head(rows * setup.response, setup.whole))
    scoring = Memory(activations=Network(setup.shape, FP32).reading(SCORED * setup.length))
    lasting, phases = _networks(setup), [step, scoring, setup.validation()]
    if ppo.sampler == "transformers":
        return lasting, [*phases, setup.sampling(-(-ppo.episodes_per_update // processes))]
    if ppo.sampler_server is not None:
        return lasting, phases
    rollouts = Memory(cache=(setup.profile.generation.vllm.gpu_memory_utilization or VLLM_SHARE) * setup.room)
    return (lasting, [*phases, rollouts]) if ppo.sampler_sleep else (lasting + rollouts, phases)


def _networks(setup: Setup) -> Memory:
    """PPO's policy, reference, value and reward model; adapters on one base where `method.one_base` has them so."""
    shape, judge = setup.shape, setup.profile.reward_model
    if setup.whole:
        frozen = setup.frozen(shape.parameters + shape.scorer_parameters)  # reference and reward model
        return setup.trained() + setup.trained(scorer=True) + frozen
    if setup.sharding.kind not in WHOLE:
        return setup.trained() + setup.trained(scorer=True) + setup.frozen(shape.scorer_parameters)
    value = setup
    reward_model = Memory(weights=4.0 * setup.adapters) + setup.frozen(shape.hidden)
    if judge.student not in (None, setup.stage.student):  # a body of the other student, which the value model shares
        value = setup.of_model(judge.student)
        reward_model = value.frozen(value.shape.scorer_parameters)
    return sum([reward_model] * judge.members, setup.trained() + value.trained(scorer=True, base=False))


def _baseline(setup: Setup) -> tuple[Memory, list[Memory]]:
    """TRL's trainers of R1, which take their whole batch at once."""
    stage, settings = setup.stage, setup.profile.baselines
    if stage.method == "rft":
        return _sft(setup)
    other = setup.shape.parameters if setup.whole else 0  # of a reference
    if stage.method == "dpo":
        step = setup.step(2 * settings.dpo_batch_size, min(setup.profile.sft.max_length, setup.length))
        return setup.trained() + setup.frozen(other), [step, setup.validation()]
    if stage.method == "distillation":
        rows, other = settings.distillation_prompts_per_step, setup.of_model(stage.teacher).shape.parameters
    else:
        rows = settings.grpo_prompts_per_step * settings.grpo_samples_per_prompt
        other = other if settings.grpo_kl_coef else 0
    phases = [setup.step(rows, setup.length), setup.validation(), setup.sampling(rows)]
    return setup.trained() + setup.frozen(other), phases


TRAINED = {"03_sft_warmup": _sft, "05_reward_model": _reward_model, "06_ppo": _ppo, "13_baseline": _baseline}


def _advice(found: Memory, setup: Setup) -> str:
    """What to change where a training does not fit: what lasts, or what a pass takes, whichever is more."""
    training, own = setup.profile.training, setup.stage.method in ("dpo", "distillation", "grpo")
    if found["weights"] + found["gradients"] + found["optimizer"] > found.total() / 2:
        spread = {
            "none": "spread it by training.processes and params/accelerate/zero2.yaml",
            "ddp": "name params/accelerate/zero2.yaml in training.accelerate",
        }
        kind = setup.sharding.kind
        more = "take a smaller model" if own else spread.get(kind, "raise training.processes")
        less = "set training.lora" + " or training.weights bfloat16" * (kind not in DEEPSPEED)
        return f"{less}, or {more}" if setup.whole else more
    if found["cache"]:  # the peak is where it samples
        ppo = setup.profile.ppo
        if setup.stage.name == "06_ppo" and ppo.sampler == "vllm" and ppo.sampler_server is None:
            less = "lower generation.vllm.gpu_memory_utilization"
            return less if ppo.sampler_sleep else f"set ppo.sampler_sleep, or {less}"
        return f"lower generation.batch_size (now {setup.profile.generation.batch_size})"
    if not training.gradient_checkpointing and found["activations"] > found["logits"]:
        return "set training.gradient_checkpointing"
    if own:
        return "lower its batch in the section baselines"
    return f"raise training.gradient_accumulation (now {training.gradient_accumulation})"
