"""The schema of a profile's sections: what every setting is called, which values it takes, and what it means.

`rdlib.profile` puts them together and reads the files in `params/`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
Mismatch = Literal["negative_abs", "minus", "clip", "fixed", "none"]
Method = Literal["sft", "ours_wo_r", "ours_wo_d", "ours"]
Ablation = Literal["lambda", "data_ratio", "reward_source", "correctness"]
Weights = Literal["auto", "float32", "bfloat16"]
Temperature = Annotated[float, Field(ge=0, le=5)]
AXES = ("dataset", "teacher", "student")
SEEDS = 2**32  # NumPy's generators take no more


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, list) else [value]
        if cls.model_fields[info.field_name].annotation is not bool and any(isinstance(v, bool) for v in values):
            raise ValueError("true and false (in YAML also yes, no, on and off) are no value for it")
        return value


class Prices(Section):
    """What a provider asks for a million tokens of prompts (`input`) and of responses (`output`), in `currency`."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    currency: Annotated[str, Field(min_length=1)]


class Budget(Section):
    """The most that asking a teacher may take in a study, all its runs together; what is None has no limit.

    `money` is in the currency of the teacher's `prices`; `tokens` counts those of prompts and responses, `responses`
    the samples.
    """

    money: Annotated[float, Field(gt=0)] | None = None
    tokens: Positive | None = None
    responses: Positive | None = None


class Extras(Section):
    """What goes into every request to a server besides: fields of its JSON `body`, and `headers`.

    A header's value may name environment variables, as in "$AZURE_KEY"; only their names are kept anywhere.
    """

    body: dict[str, Any] = {}
    headers: dict[str, str] = {}

    @field_validator("body")
    @classmethod
    def _leaves_our_fields_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {"model", "messages", "n", "stream", "temperature", "top_p", "max_tokens", "seed", "stop"} & value.keys()
        if ours:
            raise ValueError(f"{min(ours)} is a setting of its own (docs/servers) and cannot be given here")
        return value


class Model(Section):
    """A teacher or student: a folder, or a name on the hub, and the engine that samples from it as it is.

    A profile may give the folder or name alone. `engine` replay reads recorded responses from `model`: a file, a folder
    of them, or a store (docs/responses.md), in which `recorded` names the model if there are several. vllm puts the
    LoRA `adapter`, a folder or a name on the hub, on the model.

    `engine` openai is any OpenAI-compatible server at `base_url`, whose key is read from the environment variable
    `api_key_env`; `timeout` is in seconds, and a request that fails is tried `attempts` times. What is sent:
    `system_prompt` before the question; `max_tokens` (None: the dataset's), thinking included where the server counts
    it; the extra fields and headers of `request`; and no parameter named in `leave_out`. `thinking` keep puts what a
    teacher thought, in <think> marks, before its answer, so that the student learns it; drop (None: of servers and
    stores) leaves it in the store alone. `check_models` false asks nothing of the server before the first question.

    `first_look` questions are asked before all others (0: none); requests stop there when most answers are of no use.
    They stop too when more than the share `most_unanswered` of the samples got no answer, or the `budget` (a number
    alone is money) is used up. `ask_refused_again` repeats requests that the server had refused for good.

    `chat_template_kwargs` go to the chat template, as `enable_thinking: false` of Qwen3's; a server gets them by
    `request.body`.
    """

    model: str
    revision: str | None = None
    engine: Literal["transformers", "vllm", "openai", "replay"] = "transformers"
    tensor_parallel: Positive = 1
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Positive = 16
    requests_per_minute: Positive | None = None
    parameters: Annotated[float, Field(gt=0)] | None = Field(None, description="for estimates; None: count its files")
    timeout: Annotated[float, Field(gt=0)] = 600.0
    attempts: Positive = 8
    adapter: str | None = None
    max_tokens: Positive | None = None
    system_prompt: Annotated[str, Field(min_length=1)] | None = None
    request: Extras = Extras()
    leave_out: list[Literal["temperature", "seed", "n", "max_tokens", "top_p"]] = []
    thinking: Literal["drop", "keep"] | None = None
    recorded: str | None = None
    check_models: bool = True
    first_look: Annotated[int, Field(ge=0)] = 20
    most_unanswered: Share = 0.5
    ask_refused_again: bool = False
    prices: Prices | None = None
    budget: Budget | None = None
    chat_template_kwargs: dict[Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")], bool | int | float | str] = {}

    @property
    def drops_thinking(self) -> bool:
        """Whether the student does not learn what the teacher thought before its answer."""
        default = "drop" if self.engine == "openai" or self.model.endswith(".sqlite") else "keep"
        return (self.thinking or default) == "drop"

    @property
    def identity(self) -> str | dict[str, Any]:
        """What decides the model's responses, for a stage's key."""
        deciding = {
            *("model", "revision", "engine", "adapter", "max_tokens", "system_prompt", "leave_out", "thinking"),
            *("ask_refused_again", "recorded", "chat_template_kwargs"),
        }
        kept = self.model_dump(include=deciding, exclude_defaults=True)
        kept |= {"request": self.request.body} if self.request.body else {}
        return self.model if set(kept) == {"model"} else kept

    @field_validator("budget", mode="before")
    @classmethod
    def _a_number_is_money(cls, value: Any) -> Any:
        return {"money": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _templates_are_filled_here(self) -> Model:
        if self.chat_template_kwargs and self.engine in ("openai", "replay"):
            raise ValueError("chat_template_kwargs is for models loaded here: tell a server by request.body")
        return self

    @model_validator(mode="after")
    def _money_has_a_price(self) -> Model:
        if self.budget is not None and self.budget.money is not None and self.prices is None:
            raise ValueError("budget.money needs prices: give input and output a million tokens, and the currency")
        return self


class Prompting(Section):
    """How a question is put, to teacher and student alike, instead of `rdlib.tasks.prompts`' own words.

    `template` holds {question}, for answers of kind choice {options} too (a line each), and may hold {instruction},
    ours on how to answer; a model without a chat template gets it as it is. `language` asks for responses in it, as
    "German" does; the form in which the answer is read stays the same.
    """

    template: str | None = None
    language: Annotated[str, Field(pattern=r"^[^\W\d_][\w ()-]{0,39}$")] | None = None

    @field_validator("template")
    @classmethod
    def _has_the_question(cls, value: str | None) -> str | None:
        if value is not None and "{question}" not in value:
            raise ValueError("it has no {question}, so the model would not see the question: put it in")
        return value


class Dataset(Section):
    """One training benchmark with its splits (question counts; None: all there are) and how its answers look.

    Real benchmarks come from the hub at the commit `revision` (None: that of tasks.sources), or from `path`: a folder
    of files of the same shape. `source` questions is a file `path` of your own questions, JSONL or Parquet
    (tasks.own_questions). `perturbed_path` and `perturbed_revision` say the same of GSM-Plus, on which students of
    gsm8k are evaluated. `equality` is a function of your own, "folder/file.py:name" relative to the repository, that
    gives an answer's text its canonical form (tasks.own_equality). `split_seed` draws the splits, the same for all
    seeds of a study.
    """

    source: Literal["micro-gsm", "micro-mmlu", "gsm8k", "mmlu_pro", "questions"]
    answer: Literal["number", "text", "math", "choice", "phrase", "expression"]
    equality: Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")] | None = None
    path: str | None = None
    revision: str | None = None
    perturbed_path: str | None = None
    perturbed_revision: str | None = None
    train: Positive | None
    validation: Positive | None
    test: Annotated[int, Field(ge=0)] | None
    perturbed_test: Annotated[int, Field(ge=0)] | None = Field(
        0, description="GSM-Plus style questions, evaluated but never trained on"
    )
    max_tokens: Positive = Field(description="longest response in tokens")
    split_seed: int = Field(0, ge=0)
    prompt: Prompting = Prompting()

    @model_validator(mode="after")
    def _can_be_put_so(self) -> Dataset:
        template = self.prompt.template
        if self.answer in ("number", "text") and self.prompt != Prompting():
            raise ValueError("prompt is for real models: those of the micro world know one form of a question alone")
        if self.answer == "choice" and template is not None and "{options}" not in template:
            raise ValueError("prompt.template has no {options}, so the model could not choose one: put it in")
        return self

    @property
    def own(self) -> bool:
        """Whether the questions are the user's own, which may come without gold answers."""
        return self.source == "questions"

    @property
    def identity(self) -> dict[str, Any]:
        """The settings for a stage's key, in which what came later counts only where it is given."""
        return self.model_dump(exclude={"equality"} if self.equality is None else set())

    @model_validator(mode="after")
    def _equality_is_of_free_answers(self) -> Dataset:
        if self.equality is not None and self.answer not in ("math", "phrase", "expression"):
            raise ValueError(f"equality is for the answers math, phrase and expression, and not for {self.answer}")
        return self

    @field_validator("revision", "perturbed_revision")
    @classmethod
    def _is_a_commit(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9a-f]{40}", value):
            raise ValueError("a branch or tag can move, so give the commit, 40 hexadecimal digits")
        return value


class TeacherSampling(Section):
    """Section 3.1: temperatures of the high- and the low-confidence set.

    `temperatures` default, in place of the two lists, samples at the provider's own temperature, which some models
    alone take: no temperature is sent, all samples are of the high-confidence set, and the teacher is evaluated so too.

    `heat` (ours, for the question what a noisy teacher does) divides the teacher's logits wherever they are read: when
    it is sampled and, in on-policy distillation, when it is imitated. 1 is the teacher as it is.
    """

    temperatures: Literal["default"] | None = None
    high_temperatures: Annotated[list[Temperature], Field(min_length=1)] | None = None
    low_temperatures: list[Temperature] | None = None
    samples_per_temperature: Positive
    heat: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _one_plan(self) -> TeacherSampling:
        lists = (self.high_temperatures, self.low_temperatures)
        if self.temperatures == "default" and (any(lists) or self.heat != 1):
            raise ValueError("temperatures default takes the place of high_temperatures, low_temperatures and heat")
        if self.temperatures is None and None in lists:
            raise ValueError("give high_temperatures and low_temperatures (which may be []), or temperatures: default")
        return self

    @property
    def sets(self) -> list[tuple[str, float | None, int]]:
        """(confidence, temperature, samples to generate) of each set; None: the provider's own temperature.

        Dividing logits by `heat` is sampling at so many times the temperature. Temperature 0 gives equal samples, so
        one is generated.
        """
        if self.temperatures == "default":
            return [("high", None, self.samples_per_temperature)]
        sets = [("high", self.heat * t) for t in self.high_temperatures]
        sets += [("low", self.heat * t) for t in self.low_temperatures]
        return [(name, t, 1 if t == 0 else self.samples_per_temperature) for name, t in sets]


class Voting(Section):
    """Majority vote: the share of the high-confidence responses that the pseudo-label must exceed."""

    threshold: Share
    flip_share: Share = 0.0


class Stopping(Section):
    """One rule for every training: when it is evaluated, when it stops, and how its learning rate goes.

    A training is evaluated on the validation questions every `every` optimizer steps and after its last, and stops when
    `patience` steps have brought nothing better; the best checkpoint is kept. An update of PPO takes a step for each of
    its minibatches. What each method may take at most is its own setting (`epochs`, `total_updates`, ...).

    The learning rate rises over `warmup_steps` and then is `constant`, or falls to 0 at the step limit (`linear`).
    PPO's stays, and has its own `ppo.warmup_updates`.
    """

    every: Positive
    patience: Positive
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: int = Field(ge=0)

    @model_validator(mode="after")
    def _patience_is_a_number_of_evaluations(self) -> Stopping:
        if self.patience % self.every:
            raise ValueError(
                f"patience {self.patience} is no multiple of every {self.every}, and only an evaluation ends a training"
            )
        return self

    @property
    def evaluations(self) -> int:
        """How many evaluations in a row without a better value end a training."""
        return self.patience // self.every


class Lora(Section):
    """Low-rank adapters (Hu et al. 2022), merged into the model when a stage saves it.

    PPO's networks hold the base once (`rdlib.method.one_base`).

    `target_modules`: the linear layers that get one; "all-linear" is all but the output head.
    """

    r: Positive
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | list[str] = "all-linear"


class Sft(Section):
    """Eq. 1-2. `responses_per_question` caps the teacher responses of one question (None: all).

    Ours, for the question what keeps a student from the teacher's style: `question_share` is the share of the training
    questions whose responses are taken; `lora` trains the stages of SFT by adapters, whatever `training.lora` does for
    all trainings. `learning_rate_of_warmup` is that of ours_wo_r, which trains on other responses than SFT (None: the
    same).
    """

    epochs: Positive
    batch_size: Positive
    question_share: Rate = 1.0
    lora: Lora | None = None
    learning_rate: Rate
    learning_rate_of_warmup: Rate | None = None
    max_length: Positive
    responses_per_question: Positive | None


class StudentSampling(Section):
    """Eq. 3: samples of the warmed-up student for each question."""

    samples: Positive
    temperature: Temperature


class RewardModel(Section):
    """Eq. 4-6. `samples_per_kind` is n; `teacher_share` the share of teacher responses among the positives.

    Ours, for the question what makes it rank better: `members` reward models, which differ in their draws, have the
    mean of their scores; it starts from the warm-up of another `student` of the profile (None: the policy's own), or of
    a teacher in a student's place; and it draws `texts`, each as likely as the others, instead of samples, among which
    a text is as likely as it is frequent.
    """

    lam: Share
    form: Literal["convex", "additive"]
    source: Literal["student", "teacher"]
    samples_per_kind: Positive
    draw: Literal["samples", "texts"] = "samples"
    members: Positive = 1
    student: str | None = None
    teacher_share: Annotated[float, Field(gt=0, lt=1)]
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate


class Reward(Section):
    """Eq. 7: reward of an unextractable answer, and what a mismatch with the pseudo-label does.

    `source` "vote" (reviewers' question R5, not the paper's): 1 for a match, 0 otherwise; of the reward model nothing
    but its body, which the value model begins with. "vote_first" (ours): the vote where there is a pseudo-label, and
    the sigmoid of the reward model's score, which is on the vote's scale, where there is none.

    Controls (ours) of what the teacher's vote and the reward model are worth: "student_vote", as "vote" by the majority
    of the student's own samples before PPO; "renewed_vote", by the majority of `votes` samples of the policy itself,
    drawn for every update (TTRL); "form", 1 for any answer and 0 for none; "shuffled", Eq. 7's rewards permuted
    among the responses of an update. Questions of Q_fail have no label under any source.

    `scale` unit (ours): scores are divided by their standard deviation over the reward model's validation responses
    before they are corrected, so that `no_answer` and `ppo.kl_coef` weigh the same whatever the size of the scores,
    which grows as long as a reward model is trained, and the vote's rewards by theirs; raw: as they are.
    """

    no_answer: float
    mismatch: Mismatch
    mismatch_constant: Annotated[float, Field(gt=0)]
    source: Literal["reward_model", "vote", "vote_first", "student_vote", "renewed_vote", "form", "shuffled"] = (
        "reward_model"
    )
    votes: Positive = 8
    scale: Literal["raw", "unit"] = "raw"


class Ppo(Section):
    """Eq. 8 and its optimisation.

    What is called `..._without_warmup` holds for ours_wo_d, which starts far from what it is to learn: its KL
    coefficient, and (ours) a learning rate of its own, None: the same.

    `queries` labelled (ours) leaves the questions of Q_fail, which the reward model alone judges, out of D_RL.

    `sampler` vllm samples the rollouts with vLLM, whose weights follow the policy's at every update: in each training
    process, or for all of them on a server at the address `sampler_server`, which you start (docs/rollouts.md). Inside
    a process vLLM gives the GPU's memory back while the policy is trained, unless `sampler_sleep` is false. Its
    probabilities differ a little from the trainer's; `sampler_ratio_cap` weighs each token by their ratio, cut at the
    cap (None: 1).

    `kept_queries` is the number of queries to which responses are sampled and kept whenever the policy is validated.
    """

    queries: Literal["all", "labelled"] = "all"
    total_updates: Positive
    episodes_per_update: Positive
    epochs: Positive
    minibatch_size: Positive
    learning_rate: Rate
    value_learning_rate: Rate
    warmup_updates: int = Field(ge=0)
    kl_coef: Annotated[float, Field(ge=0)]
    kl_coef_without_warmup: Annotated[float, Field(ge=0)]
    learning_rate_without_warmup: Rate | None = None
    clip_range: Annotated[float, Field(gt=0)]
    value_clip_range: Annotated[float, Field(gt=0)]
    vf_coef: Annotated[float, Field(ge=0)]
    gamma: Share
    gae_lambda: Share
    max_grad_norm: Annotated[float, Field(gt=0)]
    temperature: Annotated[float, Field(gt=0, le=5)]
    whiten_rewards: bool
    checkpoint_every: Positive
    sampler: Literal["transformers", "vllm"] = "transformers"
    sampler_server: Annotated[str, Field(pattern=r"^https?://[^/\s]+")] | None = None
    sampler_sleep: bool = True
    sampler_ratio_cap: Annotated[float, Field(ge=1)] | None = None
    kept_queries: int = Field(default=0, ge=0)

    def without_warmup(self) -> Ppo:
        """The settings of PPO that starts from a student without a warm-up."""
        own = {"kl_coef": self.kl_coef_without_warmup}
        if self.learning_rate_without_warmup is not None:
            own["learning_rate"] = self.learning_rate_without_warmup
        return self.model_copy(update=own)

    @property
    def steps_per_update(self) -> int:
        """Optimizer steps of an update: one a minibatch."""
        return self.epochs * -(-self.episodes_per_update // self.minibatch_size)

    @model_validator(mode="after")
    def _a_server_is_asked(self) -> Ppo:
        if self.sampler_server is not None and self.sampler != "vllm":
            raise ValueError("sampler_server is for sampler vllm alone: set ppo.sampler to vllm, or leave it out")
        return self


class Baselines(Section):
    """Reviewers' question R1, ours and not the paper's; rft has the settings of `sft` but for its rate.

    `dpo_epochs` and the numbers of steps are the most that a training takes. A step is an optimizer step on new
    samples; `dpo_batch_size` counts pairs. The defaults cost about what 24 updates of 256 episodes of PPO cost.
    """

    rft_learning_rate: Rate | None = None
    dpo_beta: Annotated[float, Field(gt=0)] = 0.1
    dpo_learning_rate: Rate = 1e-4
    dpo_epochs: Positive = 1
    dpo_batch_size: Positive = 32
    distillation_steps: Positive = 96
    distillation_prompts_per_step: Positive = 64
    distillation_learning_rate: Rate = 1e-3
    grpo_steps: Positive = 24
    grpo_prompts_per_step: Positive = 32
    grpo_samples_per_prompt: Annotated[int, Field(ge=2)] = 8
    grpo_learning_rate: Rate = 3e-4
    grpo_kl_coef: Annotated[float, Field(ge=0)] = 0.04


class Evaluation(Section):
    """Section 4.1: greedy decoding at `temperature` 0; `few_shot` worked examples in the ICL prompt."""

    temperature: Temperature
    few_shot: Positive


class Vllm(Section):
    """What vLLM is started with besides the model.

    `gpu_memory_utilization` is its share of the GPU's memory (of the machine's on a CPU; None: vLLM's own default, on a
    CPU a cache of 1 GiB); `max_model_len` the longest prompt and response in tokens (None: the model's own).
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    max_model_len: Positive | None = None
    enforce_eager: bool = False
    quantization: str | None = None


class Generation(Section):
    """How sampling is carried out: rows decoded together, and rows written to disk at a time.

    `engine` samples from the models that the study trains itself; `top_p` and `stop` hold for all sampling but PPO's.
    `weights` is how the engine transformers holds a model that it samples from: auto is bfloat16 where the GPU or the
    processor computes with it, and float32 elsewhere. (vLLM has `vllm.dtype`, PPO `training.weights`.)
    """

    batch_size: Positive
    shard_size: Positive
    engine: Literal["transformers", "vllm"] = "transformers"
    top_p: Rate = 1.0
    stop: list[Annotated[str, Field(min_length=1)]] = []
    weights: Weights = "float32"
    vllm: Vllm = Vllm()


class Training(Section):
    """How SFT, reward model and PPO are trained; all batch sizes of the profile stay those of an optimizer step.

    `processes`: one for each GPU; more than one, or an `accelerate` configuration (a file of params/accelerate), is
    started by `accelerate launch` (study.launch). Each process takes its share of a batch in `gradient_accumulation`
    parts. `lora` null: all weights.

    `precision` is that of the computation; null: bf16 (autocast) on a GPU, fp32 on a CPU. `weights` is how the
    networks of a training are held. float32, the default: an Adam step of this study's learning rates (1e-6 to 1e-5)
    is far below the 2^-8 that bfloat16 resolves of a weight, and would mostly be rounded away. bfloat16 takes half
    the memory and computes in bf16; with `lora` it holds what is frozen, and the adapters stay float32. auto is
    bfloat16 where the GPU or the processor computes with it. (DeepSpeed in bf16 keeps float32 masters of its own.)

    `attention` is the implementation that transformers uses (null: its own choice), `compile` passes training's forward
    and backward passes through torch.compile; both change results by rounding alone. `report_to` names where the
    curves go while it trains (method.watching); by default nowhere.
    """

    processes: Positive = 1
    accelerate: str | None = None
    gradient_accumulation: Positive = 1
    gradient_checkpointing: bool = False
    precision: Literal["fp32", "bf16"] | None = None
    weights: Weights = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None = None
    compile: bool = False
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []
    lora: Lora | None = None

    @model_validator(mode="after")
    def _weights_are_no_finer_than_the_computation(self) -> Training:
        if self.weights != "float32" and self.precision == "fp32":
            raise ValueError(f"weights {self.weights} cannot be computed with in fp32: set training.precision to bf16")
        return self

    def forward_size(self, minibatch: int, most: int = 16) -> int:
        """Episodes of PPO that go through a network at once: `most` is fastest, accumulation asks for fewer."""
        if self.gradient_accumulation == 1:
            return most
        return min(most, minibatch // (self.processes * self.gradient_accumulation))


class AblationCell(Section):
    """A cell of the main grid that the ablations and the reviewers' questions are of."""

    dataset: str
    teacher: str
    student: str


class Grid(Section):
    """What `make study` runs: the seeds, the values of each ablation, and the cells that those are of.

    `methods` are those trained and evaluated, `ablations` those run. None means all for a benchmark, and for own
    questions what the student of Ours needs alone (`rdlib.study.experiments`); the command line can add others by name.

    For the reviewers' questions: shares of flipped pseudo-labels and thresholds of the vote (R4), and how many times
    the teacher's samples SFT gets to match the pipeline's tokens (R2).
    """

    seeds: list[Annotated[int, Field(ge=0, lt=SEEDS)]] = Field(min_length=1)
    lam: list[Share]
    teacher_share: list[Annotated[float, Field(gt=0, lt=1)]]
    mismatch: list[Mismatch]
    ablation_cells: list[AblationCell] = Field(min_length=1)
    methods: list[Method] | None = None
    ablations: list[Ablation] | None = None
    flip_share: list[Share] = [0.05, 0.1, 0.2, 0.4]
    threshold: list[Share] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    compute_factor: Annotated[float, Field(gt=1)] = 2.0

    @field_validator("methods")
    @classmethod
    def _ours_is_among_them(cls, methods: list[str] | None) -> list[str] | None:
        if methods is not None and "ours" not in methods:
            raise ValueError("ours is missing, which every study trains and all else is compared with: add it")
        return methods


class Hardware(Section):
    """What the machine has, for estimates and for the scheduler: GPUs, and peak bf16 operations of one.

    Without GPUs `cpu_tflops` is the peak of one core, in 10^12 operations a second, or `measured` by a product of
    matrices before the estimate; None: no hours are estimated. The utilisations are the shares of the peak that
    sampling and training usually reach; ours, rough.
    """

    gpus: int = Field(0, ge=0)
    gpu_memory_gib: Annotated[float, Field(gt=0)] = 80.0
    gpu_tflops: Annotated[float, Field(gt=0)] = 989.0
    cpu_tflops: Annotated[float, Field(gt=0)] | Literal["measured"] | None = None
    sampling_utilisation: Rate = 0.15
    training_utilisation: Rate = 0.35


class Cell(Section):
    """Settings of some cells, as in the paper's Tables 5 and 6; an axis left out stands for all its values.

    `settings` maps dotted keys to values. A stage takes them only where it has all the axes named here.
    """

    dataset: str | None = None
    teacher: str | None = None
    student: str | None = None
    settings: dict[str, Any]

    def holds(self, axes: dict[str, str | None]) -> bool:
        """Whether a stage with these axes is of these cells."""
        return all(axes.get(name) == value for name in AXES if (value := getattr(self, name)) is not None)
