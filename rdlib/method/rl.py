"""Stage 6: PPO on the reward of Eq. 7; puts together queries, policy, reward model and pseudo-labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from rdlib import artifacts
from rdlib.engines import endings, generation, models, scorers
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.errors import UserError
from rdlib.method import one_base, scoring, training, watching
from rdlib.method.agreement import Agreement
from rdlib.method.policy import policy_source
from rdlib.method.ppo import PPOTrainer
from rdlib.method.ppo_schedule import query_order
from rdlib.method.reward import reward, scale_of
from rdlib.method.rollout_guard import RolloutGuard
from rdlib.profile import Profile
from rdlib.settings import Model, Training
from rdlib.tasks import answers, prompts
from rdlib.tasks.questions import read_questions

if TYPE_CHECKING:
    from rdlib.engines.vllm_policy import PolicyEngine, PolicyServer


def training_queries(
    questions: pd.DataFrame, labels: pd.DataFrame, responses: pd.DataFrame, labelled: bool = False
) -> pd.DataFrame:
    """D_RL: queries that the student failed at least once, and Q_fail; with their pseudo_label, or None.

    `labelled` leaves Q_fail out.
    """
    train = questions[questions["split"] == "train"].merge(labels[["id", "pseudo_label"]], on="id", how="inner")
    failed = set(responses["id"][~responses["positive"]])
    keep = train["id"].isin(failed) | (train["pseudo_label"].isna() & (not labelled))
    return train[keep].reset_index(drop=True)


class ValidationAnswers:
    """Keeps the answers behind every validation agreement, so that they can be held to the gold answers later.

    Called by PPOTrainer with each row of the history, which it passes on to `watcher`. One file an evaluation, so a
    run that is killed and goes on keeps those it had; `gather` makes one table of them.
    """

    def __init__(self, agreement: Agreement, work: Path, watcher: Callable[[dict], None] | None = None):
        self.agreement, self.folder, self.watcher = agreement, work / "validation", watcher

    def __call__(self, row: dict) -> None:
        """Write the answers of an update that was validated."""
        if row["validation_agreement"] is not None:
            table = pd.DataFrame({"update": row["update"], "id": self.agreement.ids, "answer": self.agreement.answers})
            artifacts.write_parquet(self.folder / f"{row['update']:06d}.parquet", table)
        if self.watcher is not None:
            self.watcher(row)

    def gather(self, history: list[dict]) -> pd.DataFrame:
        """A row an evaluation of the history and question: update, id, answer."""
        updates = [row["update"] for row in history if row["validation_agreement"] is not None]
        frames = [artifacts.read_parquet(self.folder / f"{update:06d}.parquet") for update in updates]
        return pd.concat(frames, ignore_index=True)


class AnswerReader:
    """Reads the answer out of what a policy says to the query of an index, as the engines would show it.

    The policy samples on behind a stop string; what it says there is not read.
    """

    def __init__(self, tokenizer, asked: list[prompts.Prompt], kind: str):
        self.asked, self.kind = asked, kind
        self.stops = [prompts.stops(tokenizer, prompt) for prompt in asked]
        self.opening = prompts.opening(tokenizer, prompts.encode(tokenizer, asked[0]))

    def __call__(self, index: int, text: str) -> str | None:
        """The answer, None where there is none."""
        said = self.opening + generation.cut_at(text, self.stops[index])
        return answers.extract(said, self.kind, self.asked[index].choices)


class RewardFunction:
    """Eq. 7 as PPO calls it: scores sequences with the reward model and corrects them by the pseudo-label.

    `read` takes the answer out of the text that was said to the query of an index. Scores are divided by `scale`.
    `guard` sees all rollouts, and ends PPO where they are of no use.
    """

    def __init__(
        self,
        model,
        labels: list[str | None],
        read: Callable[[int, str], str | None],
        settings,
        pad: int,
        scale: float = 1.0,
        guard: RolloutGuard | None = None,
    ):
        self.model, self.labels, self.read, self.settings, self.pad = model, labels, read, settings, pad
        self.scale, self.guard = scale, guard

    def __call__(self, indices: list[int], texts: list[str], sequences: list[list[int]]):
        """Rewards [B] and, for the history, rm_score, extractable and agreement [B] (NaN without a label)."""
        scores = scoring.score(self.model, sequences, self.pad)
        given = [self.read(index, text) for index, text in zip(indices, texts, strict=True)]
        if self.guard is not None:
            self.guard(texts, given, sequences)
        labels = [self.labels[i] for i in indices]
        agreement = [
            float("nan") if y is None else float(answers.same(a, y)) for a, y in zip(given, labels, strict=True)
        ]
        info = {
            "rm_score": scores,
            "extractable": torch.tensor([float(a is not None) for a in given]),
            "agreement": torch.tensor(agreement),
        }
        return reward(scores, given, labels, self.settings, self.scale), info


def sampler(tokenizer, batch: int, max_tokens: int, temperature: float):
    """The `sample` callable of PPOTrainer: one response for each prompt from the current policy."""

    def sample(policy, token_prompts: list[list[int]], seed: int) -> list[list[int]]:
        """Token ids of one response for each prompt, the end token included where one was sampled."""
        engine = TransformersEngine(policy, tokenizer, batch, max_tokens)
        requests = [generation.Request(prompt, 1, temperature) for prompt in token_prompts]
        return [group[0].tokens for group in engine.generate(requests, seed)]

    return sample


@contextmanager
def open_sampler(policy, tokenizer, profile: Profile, max_tokens: int, longest: int):
    """The `sample` callable of PPOTrainer that the profile asks for; what it holds is freed at the end.

    `longest`: tokens of the longest prompt. vLLM gives the log-probabilities of its samples too, so that PPOTrainer can
    tell how far the two engines are apart.
    """
    temperature = profile.ppo.temperature
    if profile.ppo.sampler == "transformers":
        yield sampler(tokenizer, profile.generation.batch_size, max_tokens, temperature)
        return
    with closing(_open_vllm(policy, tokenizer, profile, max_tokens)) as engine:
        models.require_room(engine.limit, longest, max_tokens)
        yield lambda policy, token_prompts, seed: engine.rollouts(policy, token_prompts, temperature, seed)


def _open_vllm(policy, tokenizer, profile: Profile, max_tokens: int) -> PolicyEngine | PolicyServer:
    from rdlib.engines import vllm_policy

    ppo = profile.ppo
    if ppo.sampler_server is not None:
        return vllm_policy.PolicyServer(ppo.sampler_server, policy, tokenizer, max_tokens)
    return vllm_policy.PolicyEngine(policy, tokenizer, max_tokens, profile.generation.vllm, ppo.sampler_sleep)


def reward_function(
    stage, tokenizer, queries: pd.DataFrame, asked: list[prompts.Prompt], judge, scale: float
) -> RewardFunction:
    """The reward of the stage's queries, which are `asked` by these prompts, by the reward model `judge`."""
    profile, pad = stage.profile, tokenizer.pad_token_id
    given = [None if pd.isna(label) else label for label in queries["pseudo_label"]]
    read = AnswerReader(tokenizer, asked, stage.answer_kind)
    ends = {tokenizer.eos_token_id, *tokenizer.all_special_ids}
    guard = RolloutGuard(stage.label, ends, stage.dataset_settings.max_tokens, stage.method == "ours_wo_d")
    return RewardFunction(judge, given, read, profile.reward, pad, scale, guard)


def run(stage, work: Path, on_update=None) -> None:
    """Stage 06_ppo: write the model, history.jsonl, validation.parquet and summary.json."""
    profile, settings = stage.profile, stage.dataset_settings
    source = policy_source(stage)
    tokenizer = models.load_tokenizer(source)
    questions = read_questions(stage.input("data"), "train", "validation")
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet")
    responses = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    ppo = profile.ppo
    queries = training_queries(questions, labels, responses, labelled=ppo.queries == "labelled")
    if queries.empty:
        raise UserError(f"{stage.label}: the student failed no query and the teacher none, so there is nothing to do.")
    if stage.method == "ours_wo_d":
        ppo = ppo.without_warmup()
    asked = list(prompts.of_questions(settings, queries).values())
    encoded = [prompts.encode(tokenizer, prompt) for prompt in asked]
    longest = max(map(len, encoded))
    models.require_room(models.context(models.load_config(source)), longest, settings.max_tokens)
    accelerator = training.new_accelerator(profile.training)
    scorer, pad = stage.input("reward_model"), tokenizer.pad_token_id
    scale = scale_of(artifacts.read_parquet(scorer / "scores.parquet"), profile.reward)
    first = scale if profile.reward.source == "reward_model" else None
    shares = not training.keeps_in_step(accelerator)
    if profile.training.lora is not None:
        torch.manual_seed(stage.seed)  # new adapters are drawn
    policy, reference, value_model, judge = networks(source, scorer, pad, profile.training, first, shares)
    score = reward_function(stage, tokenizer, queries, asked, judge.to(accelerator.device), scale)
    validation = questions[questions["split"] == "validation"]
    agreement = Agreement(validation, labels, tokenizer, settings, profile.generation.batch_size, stage.answer_kind)
    watch = watching.Watch(stage)
    kept = ValidationAnswers(agreement, work, watch.of_updates(on_update))
    with closing(watch), open_sampler(policy, tokenizer, profile, settings.max_tokens, longest) as sample:
        trainer = PPOTrainer(
            policy,
            reference,
            value_model,
            tokenizer,
            ppo,
            encoded,
            sample,
            score,
            agreement,
            seed=stage.seed,
            on_update=kept,
            accelerator=accelerator,
            forward_size=profile.training.forward_size(ppo.minibatch_size),
            compiled=profile.training.compile,
            stopping=profile.stopping,
        )
        trained = trainer.train(work)
    if training.is_main():
        unlabelled = int(queries["pseudo_label"].isna().sum())
        save(trainer, trained | {"queries": len(queries), "without_label": unlabelled}, kept, work)


def save(trainer: PPOTrainer, summary: dict, kept: ValidationAnswers, work: Path) -> None:
    """Write what the stage leaves behind, and remove what only a run in progress needs."""
    policy, tokenizer = trainer.policy, trainer.tokenizer
    lengths = [len(prompt) for prompt in trainer.prompts]
    summary |= token_counts(trainer.history, trainer.settings, lengths, trainer.seed)
    endings.agree(policy, tokenizer)
    training.merged(policy).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    artifacts.write_json(work / "summary.json", summary)
    artifacts.write_parquet(work / "validation.parquet", kept.gather(trainer.history))
    drop_traces(work, kept.folder)


def drop_traces(work: Path, validation: Path) -> None:
    """Remove what a run goes on from, and what a failed one left: a stage's last step, until which nothing is lost."""
    for checkpoint in work.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for failed in work.glob("failed_update_*"):  # of an earlier try
        failed.unlink()
    shutil.rmtree(validation, ignore_errors=True)


def networks(
    source: Model, scorer: Path, pad: int, settings: Training, scale: float | None = 1.0, shares: bool = True
) -> tuple:
    """Policy, reference, value model, whose first values are the reward model's scores over `scale` (None: 0), and
    reward model.

    With adapters the policy without them is the reference, which is then None; and the networks hold what is frozen
    once (`one_base`), unless not `shares`: DeepSpeed and FSDP take each network's weights apart.
    """
    policy = models.load_causal_lm(source, settings)
    shell = scorers.on_body_of(policy, pad) if settings.lora is not None and shares else None
    policy, reference = training.with_adapters(policy, settings, "CAUSAL_LM"), None
    if settings.lora is not None and shares:
        starts = one_base.starts(shell, scorer, pad, settings)
        value_model, judge = one_base.value_model(starts[0], settings, scale), one_base.reward_model(starts)
    else:
        if settings.lora is None:
            reference = models.load_causal_lm(source, settings)
        judge = scoring.load(scorer, pad, settings)
        value_model = models.load_scorer(scorer / "model", pad, settings)
        with torch.no_grad():
            value_model.score.weight.zero_() if scale is None else value_model.score.weight.div_(scale)
        value_model = training.with_adapters(value_model, settings, "SEQ_CLS")
    if settings.gradient_checkpointing:
        for model in (policy, value_model):
            model.gradient_checkpointing_enable(training.NON_REENTRANT)
    return policy, reference, value_model, judge


# What reads PPO's episodes without gradient: policy, reference, value model and reward model
READERS = 4


def token_counts(history: list[dict], ppo, prompt_lengths: list[int], seed: int) -> dict[str, int]:
    """Tokens sampled; and of whole sequences, what gradient steps saw and what all networks read besides."""
    rows = [row for row in history if row["update"]]
    sampled = round(sum(row["response_length"] * ppo.episodes_per_update for row in rows))
    asked = query_order(len(prompt_lengths), 0, len(rows) * ppo.episodes_per_update, seed)
    whole = sampled + sum(prompt_lengths[i] for i in asked)
    return {"tokens_generated": sampled, "tokens_trained": whole * ppo.epochs, "tokens_read": READERS * whole}
