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
from rdlib.method import one_base, own_vote, scoring, training, watching
from rdlib.method.agreement import Agreement
from rdlib.method.own_vote import Votes
from rdlib.method.policy import policy_source
from rdlib.method.ppo import PPOTrainer
from rdlib.method.ppo_schedule import query_order, seed_of
from rdlib.method.reward import VOTES, reward, scale_of, shuffled
from rdlib.method.rollout_guard import RolloutGuard
from rdlib.method.rollouts import AnswerReader, Kept, PolicySamples, kept_responses, validation_answers
from rdlib.profile import Profile
from rdlib.settings import Model, Reward, Training
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


class RewardFunction:
    """Eq. 7 as PPO calls it: scores sequences with the reward model and corrects them by the pseudo-label.

    `read` takes the answer out of the text that was said to the query of an index. Scores are divided by `scale`.
    `guard` sees all rollouts, and ends PPO where they are of no use. `votes` gives the labels that are rewarded, which
    are the pseudo-labels unless the student votes itself; `seed` is that of shuffled rewards.
    """

    def __init__(
        self,
        model,
        labels: list[str | None],
        read: Callable[[int, str], str | None],
        settings: Reward,
        pad: int,
        scale: float = 1.0,
        guard: RolloutGuard | None = None,
        seed: int = 0,
    ):
        self.model, self.labels, self.read, self.settings, self.pad = model, labels, read, settings, pad
        self.scale, self.guard, self.seed = scale, guard, seed
        self.votes: Votes = lambda indices: [labels[i] for i in indices]

    def __call__(self, indices: list[int], texts: list[str], sequences: list[list[int]]):
        """Rewards [B] and, for the history, rm_score, extractable and agreement [B] (NaN without a label)."""
        scores, given, agreement = self.judge(indices, texts, sequences)
        if self.guard is not None:
            self.guard(texts, given, sequences)
        info = {
            "rm_score": scores,
            "extractable": torch.tensor([float(a is not None) for a in given]),
            "agreement": torch.tensor(agreement),
        }
        rewards = reward(scores, given, self.votes(indices), self.settings, self.scale)
        if self.settings.source == "shuffled":
            rewards = shuffled(rewards, seed_of(self.seed, "shuffled", *indices))
        return rewards, info

    def judge(
        self, indices: list[int], texts: list[str], sequences: list[list[int]]
    ) -> tuple[torch.Tensor, list[str | None], list[float]]:
        """The reward model's scores [B], the answers, and whether each is the pseudo-label (NaN without one)."""
        scores = scoring.score(self.model, sequences, self.pad)
        given = [self.read(index, text) for index, text in zip(indices, texts, strict=True)]
        labels = [self.labels[i] for i in indices]
        agreement = [
            float("nan") if y is None else float(answers.same(a, y)) for a, y in zip(given, labels, strict=True)
        ]
        return scores, given, agreement


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
    return RewardFunction(judge, given, read, profile.reward, pad, scale, guard, stage.seed)


def own_votes(
    settings: Reward, score: RewardFunction, queries: pd.DataFrame, responses: pd.DataFrame, samples: PolicySamples
) -> Votes:
    """The labels that are rewarded: pseudo-labels, or the student's own vote (`own_vote`), as the settings have it.

    `responses` are those of the student before PPO; `samples` draws from the policy as it is.
    """
    if settings.source == "student_vote":
        return own_vote.fixed(queries, responses)
    if settings.source == "renewed_vote":
        return own_vote.renewed(score.labels, samples.answers, settings.votes, score.seed)
    return score.votes


def queries_of(stage, questions: pd.DataFrame, labels: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """D_RL of the stage; UserError where it is empty, or where a vote rewards and no query has a pseudo-label."""
    profile = stage.profile
    queries = training_queries(questions, labels, responses, labelled=profile.ppo.queries == "labelled")
    if queries.empty:
        raise UserError(f"{stage.label}: the student failed no query and the teacher none, so there is nothing to do.")
    source = profile.reward.source
    if source in VOTES and queries["pseudo_label"].isna().all():
        raise UserError(
            f"{stage.label}: reward.source is {source}, and no query has a pseudo-label to vote for: lower "
            f"voting.threshold, or take another reward.source."
        )
    return queries


def run(stage, work: Path, on_update=None) -> None:
    """Stage 06_ppo: write the model, history.jsonl, validation.parquet and summary.json; rollouts.parquet if asked."""
    profile, settings = stage.profile, stage.dataset_settings
    source = policy_source(stage)
    tokenizer = models.load_tokenizer(source)
    questions = read_questions(stage.input("data"), "train", "validation")
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet")
    responses = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    ppo = profile.ppo.without_warmup() if stage.method == "ours_wo_d" else profile.ppo
    queries = queries_of(stage, questions, labels, responses)
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
    batch, limit = profile.generation.batch_size, settings.max_tokens
    samples = PolicySamples(policy, tokenizer, encoded, score.read, batch, limit, ppo.temperature, accelerator)
    score.votes = own_votes(profile.reward, score, queries, responses, samples)
    validation = questions[questions["split"] == "validation"]
    agreement = Agreement(validation, labels, tokenizer, settings, batch, stage.answer_kind)
    tables = {"validation": validation_answers(agreement)}
    if ppo.kept_queries:
        tables["rollouts"] = kept_responses(samples, score.judge, queries, ppo.kept_queries, stage.seed)
    kept = {name: Kept(work / name, table_of) for name, table_of in tables.items()}
    watch = watching.Watch(stage)
    show = watch.of_updates(on_update)
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
            on_update=lambda row: [keep(row) for keep in (*kept.values(), show)],
            accelerator=accelerator,
            forward_size=profile.training.forward_size(ppo.minibatch_size),
            compiled=profile.training.compile,
            stopping=profile.stopping,
        )
        trained = trainer.train(work)
    if training.is_main():
        unlabelled = int(queries["pseudo_label"].isna().sum())
        trained |= {"queries": len(queries), "without_label": unlabelled}
        votes = profile.reward.votes if profile.reward.source == "renewed_vote" else 0
        lengths = [len(prompt) for prompt in encoded]
        save(trainer, trained | token_counts(trainer.history, ppo, lengths, stage.seed, votes), kept, work)


def save(trainer: PPOTrainer, summary: dict, kept: dict[str, Kept], work: Path) -> None:
    """Write the stage's results, the tables `kept` by name, and remove what only a run in progress needs."""
    policy, tokenizer = trainer.policy, trainer.tokenizer
    endings.agree(policy, tokenizer)
    training.merged(policy).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    artifacts.write_json(work / "summary.json", summary)
    for name, table in kept.items():
        artifacts.write_parquet(work / f"{name}.parquet", table.gather(trainer.history))
    drop_traces(work, kept)


def drop_traces(work: Path, kept: dict[str, Kept]) -> None:
    """Remove what a run resumes from, and what a failed one left: a stage's last step, until which nothing is lost."""
    for checkpoint in work.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for failed in work.glob("failed_update_*"):  # of an earlier try
        failed.unlink()
    for table in kept.values():
        shutil.rmtree(table.folder, ignore_errors=True)


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


def token_counts(history: list[dict], ppo, prompt_lengths: list[int], seed: int, votes: int = 0) -> dict[str, int]:
    """Tokens sampled; and of whole sequences, what gradient steps saw and what all networks read besides.

    Samples that only vote, `votes` a query, count as many tokens as those that are trained on.
    """
    rows = [row for row in history if row["update"]]
    sampled = round(sum(row["response_length"] * ppo.episodes_per_update for row in rows))
    asked = query_order(len(prompt_lengths), 0, len(rows) * ppo.episodes_per_update, seed)
    whole = sampled + sum(prompt_lengths[i] for i in asked)
    return {
        "tokens_generated": (1 + votes) * sampled,
        "tokens_trained": whole * ppo.epochs,
        "tokens_read": READERS * whole,
    }
