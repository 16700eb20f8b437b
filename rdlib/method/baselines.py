"""Stage 13_baseline: the stronger baselines that reviewers asked for (R1), through TRL's own trainers.

All start from the warmed-up student, as PPO does, and see no gold answer:

- rft, rejection-sampling fine-tuning: SFT on the student's own responses that agree with the pseudo-label;
- dpo: direct preference optimisation on the pairs of Eq. 5, drawn from the reward model's own examples;
- distillation, on-policy: the student samples, and matches the teacher's next-token distribution (reverse KL);
- grpo: policy gradient with the 0/1 match with the pseudo-label as reward, normalised within a group of samples.

The policy kept is the one that agrees best with the pseudo-labels of the validation questions, the warmed-up
student included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import DistillationConfig, DistillationTrainer, DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from rdlib import artifacts, roots
from rdlib.engines import generation, models, padding
from rdlib.errors import UserError
from rdlib.method import ppo_schedule, reward_model, rl, sft, trainers, training
from rdlib.method.agreement import Agreement
from rdlib.method.policy import policy_source
from rdlib.method.reward import vote_reward
from rdlib.method.reward_model import Response
from rdlib.settings import Dataset as DatasetSettings
from rdlib.settings import Model
from rdlib.tasks import answers, prompts
from rdlib.tasks.questions import read_questions

COMPLETION_LENGTH = "completions/mean_length"  # TRL's name in the logs of the trainers that sample


@dataclass(frozen=True)
class Cell:
    """What every baseline starts from: the warmed-up student's folder, its tokenizer, questions and pseudo-labels."""

    source: Model
    tokenizer: PreTrainedTokenizerBase
    questions: pd.DataFrame
    labels: pd.DataFrame
    settings: DatasetSettings

    @cached_property
    def prompts(self) -> dict[str, prompts.Prompt]:
        """The prompt of each question, by id."""
        return prompts.of_questions(self.settings, self.questions)

    @cached_property
    def tokens(self) -> dict[str, list[int]]:
        """The token ids of each prompt, by its plain text."""
        return {prompt.plain: prompts.encode(self.tokenizer, prompt) for prompt in self.prompts.values()}


class AgreementMixin(trainers.FiniteSteps):
    """A trainer whose evaluation is the validation agreement alone, by which the checkpoint is chosen."""

    agreement: Agreement

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """`eval_agreement` of the policy, between 0 and 1."""
        metrics = {"eval_agreement": self.agreement(self.model, self.accelerator)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class AgreementDPOTrainer(AgreementMixin, DPOTrainer, trainers.PlainCheckpoints):
    """DPOTrainer that takes token ids, so that a response which did not end is not given an end token."""

    def _prepare_dataset(self, dataset: Dataset, *args) -> Dataset:
        return dataset


class OwnPrompts:
    """A trainer of TRL's that samples, whose prompts are the study's: `tokens` holds their ids by their plain text.

    (TRL would fill the chat template again, and add a second BOS to a prompt that has one.)
    """

    tokens: dict[str, list[int]]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict]:
        return [self.tokens[prompt] for prompt in prompts], None, {}


class AgreementGRPOTrainer(OwnPrompts, AgreementMixin, GRPOTrainer, trainers.PlainCheckpoints):
    """GRPOTrainer chosen by agreement."""


class AgreementDistillationTrainer(OwnPrompts, AgreementMixin, DistillationTrainer, trainers.PlainCheckpoints):
    """DistillationTrainer chosen by agreement, on the `shared` first ids of student and teacher.

    Models of one tokenizer have embeddings of different sizes where these are filled up to a round number.
    """

    shared: int | None = None

    def _compute_loss(self, unwrapped_student, inputs, num_items_in_batch):
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        with first_outputs(unwrapped_student, self.shared), first_outputs(teacher, self.shared):
            return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)


@dataclass(frozen=True)
class Head:
    """An output layer as TRL's loss reads it: weight [V, H] and bias [V] or None."""

    weight: Tensor
    bias: Tensor | None


@contextmanager
def first_outputs(model: PreTrainedModel, count: int | None) -> Iterator[None]:
    """A model whose output layer shows its first `count` rows alone; None: as it is."""
    whole = model.get_output_embeddings()
    if count is None or len(whole.weight) == count:
        yield
        return
    bias = getattr(whole, "bias", None)
    model.get_output_embeddings = lambda: Head(whole.weight[:count], None if bias is None else bias[:count])
    try:
        yield
    finally:
        del model.get_output_embeddings


def arguments(stage, work: Path) -> dict[str, Any]:
    """Training arguments of the trainers chosen by agreement."""
    stopping = training.stopping_arguments(stage.profile.stopping, "eval_agreement")
    return stopping | training.common_arguments(stage, work)


def on_policy_arguments(stage, work: Path) -> dict[str, Any]:
    """`arguments` of a trainer that samples: one pass over `query_rows`, in their order."""
    limits = {"max_completion_length": stage.dataset_settings.max_tokens, "num_train_epochs": 1}
    return arguments(stage, work) | limits | {"shuffle_dataset": False}


def learns_from(stage, dataset: Dataset, cell: Cell) -> dict[str, Any]:
    """What every trainer chosen by agreement is given besides its models and arguments."""
    return {
        "train_dataset": dataset,
        "eval_dataset": dataset,  # asked for by the trainer; `evaluate` does not read it
        "processing_class": cell.tokenizer,
        "callbacks": training.stopping_callbacks(stage.profile.stopping),
        "peft_config": training.lora_config(stage.profile.training, "CAUSAL_LM"),
    }


# ---- rejection-sampling fine-tuning


def select_own_responses(responses: pd.DataFrame, cap: int | None, seed: int) -> pd.DataFrame:
    """Distinct responses that agree with the pseudo-label (`positive`), at most `cap` of a question."""
    distinct = responses[responses["positive"]].drop_duplicates(["id", "text"])
    return sft.draw(distinct, cap, seed)


def rft(stage, work: Path, cell: Cell) -> Trainer:
    """SFT with the profile's settings on the student's own agreeing responses."""
    responses = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    caps = {"train": stage.profile.sft.responses_per_question, "validation": 1}
    chosen = {s: select_own_responses(responses[responses["split"] == s], cap, stage.seed) for s, cap in caps.items()}
    rate = stage.profile.baselines.rft_learning_rate
    return sft.make_trainer(stage, work, cell.source, cell.tokenizer, chosen, cell.prompts, rate)


# ---- direct preference optimisation


def preference_pairs(examples: dict[str, list[Response]]) -> list[tuple[str, Response, Response]]:
    """(question, chosen, rejected) of Eq. 5: the i-th response of the better kind over the i-th of the worse.

    A pair of one text, of which many are where student and teacher are right, teaches nothing and is left out.
    """
    pairs = []
    for key, responses in examples.items():
        for kinds in reward_model.PREFERENCES:
            better, worse = ([r for r in responses if r.kind == kind] for kind in kinds)
            found = zip(better, worse, strict=False)  # teacher_share makes one kind fewer
            pairs += [(key, *pair) for pair in found if pair[0].text != pair[1].text]
    return pairs


def tokenize_pair(key: str, chosen: Response, rejected: Response, encode: prompts.Encoder) -> dict[str, Any]:
    """Token ids of a pair as TRL's collator takes them; length counts both sequences, as both are trained on."""
    prompt = encode.prompts[key]
    better, worse = (encode.response(response.text, response.finished) for response in (chosen, rejected))
    length = 2 * len(prompt) + len(better) + len(worse)
    return {"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse, "length": length}


def dpo(stage, work: Path, cell: Cell) -> Trainer:
    """DPO on the pairs that the reward model of the same cell and seed learns from."""
    settings, held = stage.profile.baselines, stage.profile.training
    examples, _ = reward_model.build_examples(
        *reward_model.read_responses(stage)["train"], stage.profile.reward_model, stage.seed
    )
    pairs = preference_pairs(examples)
    if not pairs:
        raise UserError(
            f"{stage.label}: no training query has a pair of Eq. 5 of two texts, so there is nothing for DPO to learn "
            f"from: take more samples."
        )
    encode = prompts.Encoder(cell.prompts, cell.tokenizer)
    dataset = Dataset.from_list([tokenize_pair(*pair, encode) for pair in pairs])
    return AgreementDPOTrainer(
        models.load_causal_lm(cell.source, held),
        models.load_causal_lm(cell.source, held) if held.lora is None else None,  # adapters off
        DPOConfig(
            beta=settings.dpo_beta,
            num_train_epochs=settings.dpo_epochs,
            per_device_train_batch_size=settings.dpo_batch_size,
            learning_rate=settings.dpo_learning_rate,
            max_length=stage.profile.sft.max_length,
            router_aux_loss_coef=training.ROUTER,
            **arguments(stage, work),
        ),
        **learns_from(stage, dataset, cell),
    )


# ---- baselines that sample: on-policy distillation and GRPO


def query_rows(stage, cell: Cell, count: int, labelled: bool) -> Dataset:
    """`count` of PPO's queries (D_RL) in PPO's order, epoch after shuffled epoch: prompt, its tokens, label, options.

    `labelled` leaves out those of Q_fail. UserError where no query is left.
    """
    responses = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    queries = rl.training_queries(cell.questions, cell.labels, responses, labelled)
    if queries.empty:
        raise UserError(f"{stage.label}: the student failed no query, so there is nothing to train on.")
    asked = [cell.prompts[key] for key in queries["id"]]
    texts = [prompt.plain for prompt in asked]
    labels = [None if pd.isna(label) else label for label in queries["pseudo_label"]]
    order = ppo_schedule.query_order(len(queries), 0, count, stage.seed)
    columns = {"prompt": texts, "pseudo_label": labels, "options": [p.choices for p in asked]}
    columns["prompt_tokens"] = [len(cell.tokens[text]) for text in texts]
    limit = models.context(models.load_config(cell.source))
    models.require_room(limit, max(columns["prompt_tokens"]), stage.dataset_settings.max_tokens)
    return Dataset.from_dict({name: [values[i] for i in order] for name, values in columns.items()})


def distillation(stage, work: Path, cell: Cell) -> Trainer:
    """On-policy distillation from the cell's teacher; UserError where its vocabulary is not the student's."""
    settings = stage.profile.baselines
    source = models.resolve(stage.profile.model_of(stage.teacher), stage.root)
    if models.vocabulary(source) != padding.own_tokens(cell.tokenizer):
        raise UserError(
            f"{stage.label}: the teacher {source.model} has another vocabulary than the student, so their token "
            f"distributions cannot be compared: take a teacher with the student's tokenizer."
        )
    size, steps = settings.distillation_prompts_per_step, settings.distillation_steps
    dataset = query_rows(stage, cell, steps * size, labelled=False).select_columns(["prompt", "prompt_tokens"])
    student = models.load_causal_lm(cell.source, stage.profile.training)
    teacher = heated(models.load_causal_lm(source, stage.profile.training), stage.profile.teacher_sampling.heat)
    shared, unshared = share_ids(student, teacher)
    trainer = AgreementDistillationTrainer(
        student,
        teacher,
        DistillationConfig(
            per_device_train_batch_size=size,
            learning_rate=settings.distillation_learning_rate,
            generation_kwargs={"suppress_tokens": unshared} if unshared else None,
            **on_policy_arguments(stage, work),
        ),
        **learns_from(stage, dataset, cell),
    )
    trainer.shared, trainer.tokens = shared, cell.tokens
    return trainer


def share_ids(student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[int | None, list[int]]:
    """How many ids student and teacher share where their embeddings differ in size, and the student's other ids.

    The teacher then says that it has the student's number, which TRL's trainer asks for.
    """
    own, other = student.config.get_text_config(), teacher.config.get_text_config()
    if own.vocab_size == other.vocab_size:
        return None, []
    shared = min(own.vocab_size, other.vocab_size)
    other.vocab_size = own.vocab_size
    return shared, list(range(shared, own.vocab_size))


def heated(teacher: PreTrainedModel, heat: float) -> PreTrainedModel:
    """A teacher whose logits TRL's trainer divides by `heat`, as if they came so; in place."""
    if heat != 1:
        config = teacher.config.get_text_config()
        config.logit_scale = (getattr(config, "logit_scale", None) or 1.0) / heat
    return teacher


def match_reward(kind: str, opening: str = "", stop: Sequence[str] = ()) -> Callable[..., list[float]]:
    """TRL's reward function: 1 for a completion whose answer (of this `kind`) is the pseudo-label, else 0.

    It is read as PPO reads it: `opening` is what the prompt says of the response, which ends at a string of `stop`.
    """

    def match(completions: list[str], pseudo_label: list[str], options: list[answers.Options], **_: Any) -> list[float]:
        """One reward a completion."""
        said = [opening + generation.cut_at(text, tuple(stop)) for text in completions]
        given = [answers.extract(text, kind, of) for text, of in zip(said, options, strict=True)]
        return vote_reward(given, pseudo_label).tolist()

    return match


def grpo(stage, work: Path, cell: Cell) -> Trainer:
    """GRPO with the 0/1 match with the pseudo-label as reward, on PPO's queries that have one."""
    roots.install()  # TRL divides by the rewards' standard deviation
    settings = stage.profile.baselines
    queries, samples, steps = settings.grpo_prompts_per_step, settings.grpo_samples_per_prompt, settings.grpo_steps
    dataset = query_rows(stage, cell, steps * queries, labelled=True)
    asked = next(iter(cell.prompts.values()))
    opening = prompts.opening(cell.tokenizer, cell.tokens[asked.plain])
    trainer = AgreementGRPOTrainer(
        models.load_causal_lm(cell.source, stage.profile.training),
        match_reward(stage.answer_kind, opening, prompts.stops(cell.tokenizer, asked)),
        GRPOConfig(
            per_device_train_batch_size=queries * samples,
            per_device_eval_batch_size=samples,
            num_generations=samples,
            learning_rate=settings.grpo_learning_rate,
            beta=settings.grpo_kl_coef,
            loss_type="grpo",
            router_aux_loss_coef=training.ROUTER,
            **on_policy_arguments(stage, work),
        ),
        **learns_from(stage, dataset, cell),
    )
    trainer.tokens = cell.tokens
    return trainer


# ---- the stage

TRAINERS = {"rft": rft, "dpo": dpo, "distillation": distillation, "grpo": grpo}


def token_counts(stage, trainer: Trainer, history: pd.DataFrame) -> dict[str, int]:
    """Tokens sampled; and of whole sequences, what gradient steps saw and what a reference model read."""
    if COMPLETION_LENGTH in history:
        sampled = round(history[COMPLETION_LENGTH].sum() * trainer.args.per_device_train_batch_size)
        trained = sampled + prompt_tokens(stage, trainer)
    else:
        sampled, trained = 0, sum(trainer.train_dataset["length"]) * trainer.state.epoch
    settings = stage.profile.baselines
    with_reference = stage.method == "dpo" or (stage.method == "grpo" and settings.grpo_kl_coef > 0)
    counts = {"tokens_generated": sampled, "tokens_trained": round(trained)}
    return counts | {"tokens_read": counts["tokens_trained"] if with_reference else 0}


def prompt_tokens(stage, trainer: Trainer) -> int:
    """Tokens of the prompts that a trainer which samples has asked, each as often as it was answered."""
    settings = stage.profile.baselines
    samples = settings.grpo_samples_per_prompt if stage.method == "grpo" else 1
    asked = trainer.state.global_step * trainer.args.per_device_train_batch_size // samples
    return samples * sum(trainer.train_dataset[:asked]["prompt_tokens"])


def back_to_start(trainer: Trainer, source: Model) -> None:
    """Give a trainer's model the weights that it had before training, and no adapters."""
    if hasattr(trainer.model, "unload"):
        trainer.model = trainer.model.unload()
    else:
        trainer.model.load_state_dict(models.load_causal_lm(source).state_dict())


def run(stage, work: Path) -> None:
    """Stage 13_baseline: write the model, history.parquet (step 0 is the warmed-up student) and summary.json."""
    settings, source = stage.dataset_settings, policy_source(stage)
    cell = Cell(
        source,
        models.load_tokenizer(source),
        read_questions(stage.input("data"), "train", "validation"),
        artifacts.read_parquet(stage.input("labels") / "labels.parquet"),
        settings,
    )
    trainer = TRAINERS[stage.method](stage, work, cell)
    trainer.agreement = Agreement(
        cell.questions[cell.questions["split"] == "validation"],
        cell.labels,
        cell.tokenizer,
        settings,
        stage.profile.generation.batch_size,
        stage.answer_kind,
    )
    trainer.add_callback(training.ProgressBar(stage.method))
    with trainer.accelerator.autocast():  # as later, when the trainer has prepared the model
        start = trainer.agreement(trainer.model, trainer.accelerator)
    history = training.train(trainer, work, stage)
    best, step = trainer.state.best_metric, trainer.state.best_global_step
    if start >= best:
        best, step = start, 0
        back_to_start(trainer, source)
    training.save_model(trainer, cell.tokenizer, work / "model")
    if not training.is_main():
        return
    first = pd.DataFrame({"step": [0], "epoch": [0.0], "agreement": [start]})
    artifacts.write_parquet(work / "history.parquet", pd.concat([first, history], ignore_index=True)[list(history)])
    summary = {
        "examples": len(trainer.train_dataset),
        **token_counts(stage, trainer, history),
        **training.outcome(trainer),
        "best": best,
        "best_step": step,
    }
    artifacts.write_json(work / "summary.json", summary)
    training.drop_checkpoints(work)
