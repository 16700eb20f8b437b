"""Memory of one GPU for every stage of a profile, by what holds it: which models, batches and lengths a stage has.

    found = stage_memory.of(stage)
    found.memory.total / memory.GIB, found.fits, found.advice

Sequences are as long as they may become (the longest question of a benchmark and a response cut at its limit), but
for the reward model, whose batches of many responses are twice as long as usual. `memory` has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import yaml

from rdlib.settings import Training
from rdlib.study import architectures, launch
from rdlib.study import memory as m
from rdlib.study.architectures import Shape
from rdlib.study.memory import Memory, Numbers, Sharding
from rdlib.study.sizes import LENGTHS, LONGEST, split_sizes
from rdlib.study.stage import Stage

# vLLM's defaults: its share of the GPU, sequences at once, tokens read at once.
VLLM_SHARE, VLLM_SEQUENCES, VLLM_TOKENS = 0.9, 256, 8192
QUANTIZED = {"fp8": 1.0}  # bytes of a weight; others have four bits and their scales
SCORED, PART = 32, 24  # sequences that method.scoring scores, and trains on, at once (its SCORED_SIZE and PART_SIZE)


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
        return self.memory.total <= self.limit


def of(stage: Stage) -> Footprint:
    """The footprint of a stage on one of its profile's GPUs; of nothing where it uses none."""
    room = stage.profile.hardware.gpu_memory_gib * m.GIB
    if stage.name in TRAINED:
        return _training(stage, room)
    if stage.name in SAMPLED:
        return _sampling(stage, room)
    return Footprint(Memory(), room)


# ---- sampling


SAMPLED = ("01_teacher_responses", "01_held_out", "04_student_responses", "07_evaluate", "13_judged_responses")


def _sampling(stage: Stage, room: float) -> Footprint:
    name = stage.student or stage.teacher
    model = stage.profile.model_of(name)
    trained = stage.name in ("04_student_responses", "13_judged_responses") or stage.method not in (
        None,
        "teacher",
        "icl",
    )
    engine = stage.profile.generation.engine if trained else model.engine
    shape, source = architectures.of(model, stage.root, model.parameters or 0.0)
    if engine == "vllm":
        parallel = 1 if trained else model.tensor_parallel
        found, limit = _vllm(stage, shape, parallel, room)
        advice = "take a smaller student" if trained else f"raise the tensor_parallel of {name} (now {parallel})"
        return Footprint(found, limit, source, advice)
    if engine == "transformers":
        rows = stage.profile.generation.batch_size
        prompts = -(-rows // _samples(stage))
        found = m.sampling(shape, m.FP32, rows, _longest(stage), _response(stage), prompts)
        held = 4.0 if stage.profile.generation.weights == "float32" else 2.0
        found += Memory(weights=held * shape.parameters, runtime=m.RUNTIME)
        larger = found.weights > found.total / 2
        advice = "sample with engine vllm" if larger else f"lower generation.batch_size (now {rows})"
        return Footprint(found, room, source, advice)
    return Footprint(Memory(), room)


def _vllm(stage: Stage, shape: Shape, parallel: int, room: float) -> tuple[Memory, float]:
    """vLLM's memory on each of `parallel` GPUs, with as many sequences as fit, and the share that it may take."""
    settings = stage.profile.generation.vllm
    share = (settings.gpu_memory_utilization or VLLM_SHARE) * room
    width = 4 if settings.dtype == "float32" else 2
    held = width if settings.quantization is None else QUANTIZED.get(settings.quantization, 0.6)
    fixed = Memory(
        weights=held * shape.parameters / parallel,
        activations=m.passing_activations(shape, Numbers(width, width), VLLM_TOKENS) / parallel,
        logits=m.whole_logits(shape, VLLM_SEQUENCES, 2),
        runtime=m.RUNTIME,
    )
    prompt, response = LENGTHS[stage.dataset_settings.source]
    one = m.kv_cache(shape, 1, _longest(stage) + _response(stage), width) / parallel
    usual = m.kv_cache(shape, 1, prompt + response, width) / parallel
    at_once = min(VLLM_SEQUENCES, (share - fixed.total) // usual)
    return replace(fixed, cache=max(one, at_once * usual)), share


def _samples(stage: Stage) -> int:
    profile = stage.profile
    if stage.name in ("01_teacher_responses", "01_held_out"):
        return profile.teacher_sampling.samples_per_temperature
    return 1 if stage.name == "07_evaluate" else profile.student_sampling.samples


def _longest(stage: Stage) -> int:
    """Tokens of the longest prompt, with its worked examples in an ICL prompt."""
    source = stage.dataset_settings.source
    shots = stage.profile.evaluation.few_shot if stage.method == "icl" else 0
    return LONGEST[source] + shots * sum(LENGTHS[source])


def _response(stage: Stage) -> int:
    return stage.dataset_settings.max_tokens


# ---- training


def numbers_of(training: Training, sharding: Sharding) -> Numbers:
    """How a training on a GPU holds its numbers and computes with them."""
    if training.precision == "fp32":
        return m.FP32
    if training.weights != "float32" or sharding.kind not in ("none", "ddp"):  # these cast whole modules
        return m.BF16
    return m.AUTOCAST


def sharding_of(stage: Stage) -> Sharding:
    """How a stage's training is spread, by its accelerate configuration."""
    training = stage.profile.training
    if not launch.is_wanted(stage):
        return Sharding()
    if training.accelerate is None:
        return Sharding("ddp", training.processes)
    content = yaml.safe_load((stage.root / training.accelerate).read_text(encoding="utf-8"))
    if content.get("distributed_type") == "DEEPSPEED":
        zero = content.get("deepspeed_config", {}).get("zero_stage")
        return Sharding("zero3" if zero == 3 else "zero2", training.processes)
    return Sharding("fsdp" if content.get("distributed_type") == "FSDP" else "ddp", training.processes)


@dataclass(frozen=True)
class Setup:
    """What all training stages share: the student's shape, numbers, spread and attention."""

    stage: Stage
    shape: Shape
    numbers: Numbers
    sharding: Sharding

    @property
    def settings(self) -> Training:
        """The profile's training section."""
        return self.stage.profile.training

    @property
    def length(self) -> int:
        """Tokens of the longest prompt and response."""
        return _longest(self.stage) + _response(self.stage)

    def part_of(self, batch: int) -> int:
        """Rows of a batch that go through a network of this process at once."""
        return max(1, batch // (self.sharding.processes * self.settings.gradient_accumulation))

    def trained(self, scorer: bool = False, base: bool = True) -> Memory:
        """The lasting memory of a network in training; not `base`: of what is trained on a base that is there."""
        whole = self.shape.scorer_parameters if scorer else self.shape.parameters
        if self.settings.lora is not None:
            adapters = self.adapters + scorer * self.shape.hidden
            return m.states(adapters, base * whole, self.numbers, self.sharding, adapters=True)
        return m.states(whole, 0, self.numbers, self.sharding) + m.casts(self.shape, self.numbers, self.sharding)

    @property
    def adapters(self) -> int:
        """Parameters of a network's adapters; none without them."""
        lora = self.settings.lora
        return 0 if lora is None else self.shape.adapter_parameters(lora.r, lora.target_modules)

    @property
    def width(self) -> int:
        """Bytes of a number in a network that is only passed through."""
        return 4 if self.settings.weights == "float32" else 2

    def frozen(self, parameters: float) -> Memory:
        """A network that is only passed through; each process has it whole."""
        return Memory(weights=parameters * self.width)

    def passes(self, rows: int, length: int, padded: bool = True, kept: int = 0) -> float:
        """Bytes of activations at the peak of a backward pass through `rows`, beside `kept` ones of earlier passes."""
        given = {
            "length": length,
            "checkpointing": self.settings.gradient_checkpointing,
            "attention": self.settings.attention or "sdpa",
            "padded": padded,
        }
        earlier = m.kept_activations(self.shape, self.numbers, kept, **given)
        return earlier + m.training_activations(self.shape, self.numbers, rows, **given)

    def sampling(self, rows: int) -> Memory:
        """The transformers engine at work with the network in training."""
        rows = max(1, min(self.stage.profile.generation.batch_size, rows))
        return m.sampling(self.shape, self.numbers, rows, _longest(self.stage), _response(self.stage))

    def validation(self) -> Memory:
        """Greedy answers to the validation questions, of which each process has its share."""
        questions = split_sizes(self.stage.dataset_settings, self.stage.root)["validation"]
        return self.sampling(-(-questions // self.sharding.processes))


def _training(stage: Stage, room: float) -> Footprint:
    model, sharding = stage.profile.model_of(stage.student), sharding_of(stage)
    shape, source = architectures.of(model, stage.root, model.parameters or 0.0)
    setup = Setup(stage, shape, numbers_of(stage.profile.training, sharding), sharding)
    lasting, phases = TRAINED[stage.name](setup, room)
    found = lasting + m.most(*phases) + Memory(runtime=m.RUNTIME)
    return Footprint(found, room, source, _advice(found, setup))


def _sft(setup: Setup, room: float) -> tuple[Memory, list[Memory]]:
    settings = setup.stage.profile.sft
    rows, length = setup.part_of(settings.batch_size), min(settings.max_length, setup.length)
    head = m.tiled_head(setup.shape, setup.numbers, rows * length, setup.settings.lora is None)
    return setup.trained(), [Memory(activations=setup.passes(rows, length), logits=head), setup.validation()]


def _reward_model(setup: Setup, room: float) -> tuple[Memory, list[Memory]]:
    settings = setup.stage.profile.reward_model
    kinds = 3 if settings.source == "student" else 2
    rows = setup.part_of(settings.batch_size) * kinds * settings.samples_per_kind
    length = min(setup.length, 2 * sum(LENGTHS[setup.stage.dataset_settings.source]))
    at_once = rows if setup.sharding.kind in ("zero3", "fsdp") else min(PART, rows)
    return setup.trained(scorer=True), [Memory(activations=setup.passes(at_once, length, kept=rows - at_once))]


def _ppo(setup: Setup, room: float) -> tuple[Memory, list[Memory]]:
    settings, shape, n = setup.stage.profile.ppo, setup.shape, setup.sharding.processes
    lasting = _networks(setup)
    rows = min(setup.settings.forward_size(settings.minibatch_size), -(-settings.minibatch_size // n))
    step = Memory(
        activations=setup.passes(rows, setup.length, padded=False, kept=rows),  # policy and value model
        logits=m.tiled_logprobs(shape, setup.numbers, rows * _response(setup.stage), setup.settings.lora is None),
    )
    scoring = Memory(activations=m.passing_activations(shape, m.FP32, SCORED * setup.length))
    phases = [step, scoring, setup.validation()]
    if settings.sampler == "transformers":
        return lasting, [*phases, setup.sampling(-(-settings.episodes_per_update // n))]
    if settings.sampler_server is not None:
        return lasting, phases
    share = setup.stage.profile.generation.vllm.gpu_memory_utilization or VLLM_SHARE
    rollouts = Memory(cache=share * room)
    return (lasting, [*phases, rollouts]) if settings.sampler_sleep else (lasting + rollouts, phases)


def _networks(setup: Setup) -> Memory:
    """PPO's policy, reference, value and reward model; adapters on one base where `method.one_base` has them so."""
    judge = setup.stage.profile.reward_model
    if setup.settings.lora is None:
        frozen = setup.shape.parameters + setup.shape.scorer_parameters  # reference and reward model
        return setup.trained() + setup.trained(scorer=True) + setup.frozen(frozen)
    if setup.sharding.kind not in ("none", "ddp"):
        return setup.trained() + setup.trained(scorer=True) + setup.frozen(setup.shape.scorer_parameters)
    if judge.student is None or judge.student == setup.stage.student:
        reward_model = Memory(weights=4.0 * setup.adapters + setup.width * setup.shape.hidden)
        lasting = setup.trained() + setup.trained(scorer=True, base=False)
    else:  # a body of the other student, which the value model shares
        model = setup.stage.profile.model_of(judge.student)
        setup_of_other = replace(setup, shape=architectures.of(model, setup.stage.root, model.parameters or 0.0)[0])
        reward_model = setup_of_other.frozen(setup_of_other.shape.scorer_parameters)
        lasting = setup.trained() + setup_of_other.trained(scorer=True, base=False)
    for _ in range(judge.members):
        lasting += reward_model
    return lasting


def _baseline(setup: Setup, room: float) -> tuple[Memory, list[Memory]]:
    """TRL's trainers of R1, which take their whole batch at once."""
    stage, shape = setup.stage, setup.shape
    settings, whole = stage.profile.baselines, setup.settings.lora is None
    if stage.method == "rft":
        return _sft(setup, room)
    if stage.method == "dpo":
        rows, length = 2 * settings.dpo_batch_size, min(stage.profile.sft.max_length, setup.length)
        other = setup.frozen(shape.parameters if whole else 0)
    elif stage.method == "distillation":
        rows, length = settings.distillation_prompts_per_step, setup.length
        teacher = stage.profile.model_of(stage.teacher)
        other = setup.frozen(architectures.of(teacher, stage.root, teacher.parameters or 0.0)[0].parameters)
    else:
        rows, length = settings.grpo_prompts_per_step * settings.grpo_samples_per_prompt, setup.length
        other = setup.frozen(shape.parameters if whole and settings.grpo_kl_coef else 0)
    head = m.tiled_head(shape, setup.numbers, rows * length, whole)
    phases = [Memory(activations=setup.passes(rows, length), logits=head), setup.validation()]
    return setup.trained() + other, phases if stage.method == "dpo" else [*phases, setup.sampling(rows)]


TRAINED = {
    "03_sft_warmup": _sft,
    "05_reward_model": _reward_model,
    "06_ppo": _ppo,
    "13_baseline": _baseline,
}


def _advice(found: Memory, setup: Setup) -> str:
    """What to change where a training does not fit: what lasts, or what a pass takes, whichever is more."""
    settings, own = setup.settings, setup.stage.method in ("dpo", "distillation", "grpo")
    if found.weights + found.gradients + found.optimizer > found.total / 2:
        spread = {
            "none": "spread it by training.processes and params/accelerate/zero2.yaml",
            "ddp": "name params/accelerate/zero2.yaml in training.accelerate",
        }
        more = "take a smaller model" if own else spread.get(setup.sharding.kind, "raise training.processes")
        less = "set training.lora" if setup.sharding.deepspeed else "set training.lora or training.weights bfloat16"
        return more if settings.lora else f"{less}, or {more}"
    if found.cache:  # the peak is where it samples
        ppo = setup.stage.profile.ppo
        if setup.stage.name == "06_ppo" and ppo.sampler == "vllm" and ppo.sampler_server is None:
            less = "lower generation.vllm.gpu_memory_utilization"
            return less if ppo.sampler_sleep else f"set ppo.sampler_sleep, or {less}"
        return f"lower generation.batch_size (now {setup.stage.profile.generation.batch_size})"
    if not settings.gradient_checkpointing and found.activations > found.logits:
        return "set training.gradient_checkpointing"
    if own:
        return "lower its batch in the section baselines"
    return f"raise training.gradient_accumulation (now {settings.gradient_accumulation})"
