"""PPO on a reward model (section 3.4, Eq. 8): rollouts, reward, advantages, clipped updates, exact resume.

One update, which `PPOTrainer._update` spells out:

1. take the next queries of the seeded, reshuffled order, sample one response to each (`sample`), and score
   the responses with Eq. 7 (`score`);
2. run the policy, the reference (the policy that PPO starts from) and the value model over them once, without gradient;
3. reward of a token = -kl_coef (log p - log p_ref), plus the score on the last token; GAE; whiten;
4. `epochs` passes over the episodes in shuffled minibatches: policy loss + vf_coef value loss, both clipped.

The policy and the value model are separate networks under one optimizer, as in TRL's PPOTrainer, whose
weights after an update this trainer reproduces (tests/golden); the value model has a learning rate of its own.
Log-probabilities are those of the sampling temperature. Every random choice is a function of (seed, purpose,
number), so a run that was killed continues exactly as it would have gone on.

Several processes share the sampling and the forward and backward passes alone: each holds all episodes of an
update, so advantages are whitened over all of them, and a minibatch is the same one on every number of processes.
Given the same responses the weights after an update are therefore the same up to rounding; the responses are not,
as each process samples with a seed of its own. The policy must be whole in every process (DDP, ZeRO-1 and 2).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from tqdm import tqdm

from rdlib import checkpoints
from rdlib.engines.logits import changed_by
from rdlib.errors import UserError
from rdlib.method import ppo_checkpoints, training
from rdlib.method import ppo_core as core
from rdlib.method.ppo_core import Batch, PolicyAndValue, Tokens
from rdlib.method.ppo_schedule import minibatches, query_order, seed_of, updates_between, warmup_factor
from rdlib.settings import Ppo, Stopping

Sample = Callable[[nn.Module, Tokens, int], Tokens | tuple[Tokens, list[list[float]]]]
Score = Callable[[list[int], list[str], Tokens], tuple[Tensor, dict[str, Tensor]]]

HISTORY_COLUMNS = tuple(
    "update episodes reward rm_score kl entropy approx_kl clip_fraction value_clip_fraction policy_loss value_loss "
    "explained_variance response_length extractable agreement validation_agreement learning_rate".split()
)


class NotFiniteError(Exception):
    """A reward, loss or gradient is NaN or infinite: says which, and carries the episodes it came from."""

    def __init__(self, what: str, batch: Batch) -> None:
        super().__init__(what)
        self.what, self.batch = what, batch


class PPOTrainer:
    """Trains `policy` and `value_model` in place with PPO; see the module's docstring and `train`.

    `policy`, `reference`: causal language models; a `reference` of None is the policy with its adapters (PEFT) off, of
    which only the adapters are trained, kept and saved. `value_model`: a sequence classifier with one label,
    initialised from the reward model. `prompts`: token ids of the training queries. `settings`: the profile's
    `ppo` section. `sample(policy, prompts, seed)`: token ids of one response to each prompt, without padding,
    with the EOS if one was generated, or these and the sampler's own log-probability of every token, whose gap to
    the policy's then goes into the history. `score(query_indices, texts, sequences)`: the rewards [B] of Eq. 7, and
    more numbers of each episode as a dictionary of [B] tensors (NaN where undefined) whose means go into the
    history: `rm_score`, `extractable`, `agreement`; `sequences` are the token ids of prompt and response.
    `validate(policy)`: the validation agreement. `on_update(row)` sees every row of the history.
    `forward_size`: episodes that go through a network at once; it changes speed and memory, not the result.
    `compiled`: whether they go through torch.compile, which sampling does not. `stopping`: when to validate and when
    to stop; None: it validates before the first and after the last update.
    """

    def __init__(
        self,
        policy: nn.Module,
        reference: nn.Module | None,
        value_model: nn.Module,
        tokenizer: Any,
        settings: Ppo,
        prompts: Tokens,
        sample: Sample,
        score: Score,
        validate: Callable[[nn.Module], float] | None = None,
        seed: int = 0,
        on_update: Callable[[dict], None] | None = None,
        accelerator: Accelerator | None = None,
        forward_size: int = 16,
        compiled: bool = False,
        stopping: Stopping | None = None,
    ) -> None:
        if reference is policy:
            raise ValueError("The reference must be a copy of the policy, not the policy itself.")
        if reference is None and not hasattr(policy, "disable_adapter"):
            raise ValueError("Without a reference the policy must have adapters.")
        if not prompts or not all(prompts):
            raise UserError("PPO got no queries, or an empty one: check the student's responses that it starts from.")
        self.accelerator = accelerator or Accelerator()
        self.tokenizer, self.prompts, self.seed = tokenizer, prompts, seed
        self.settings, self.stopping = settings, stopping
        self.sample, self.score, self.validate, self.on_update = sample, score, validate, on_update
        for model in filter(None, (policy, reference, value_model)):
            # Without dropout the ratio is 1 before the first step; gradient checkpointing needs train mode
            model.train(getattr(model, "is_gradient_checkpointing", False))
            _disable_dropout(model)
        self.policy, self.value_model = policy, value_model
        self.reference = None if reference is None else reference.requires_grad_(False).to(self.accelerator.device)
        with self.accelerator.autocast():
            _require_plain_head(self.reference or policy.to(self.accelerator.device), prompts[0])
        self.both = PolicyAndValue(policy, value_model)
        if compiled:
            self.both.compile(dynamic=True)  # its own calls alone: `sample` calls the policy, which stays as it is
        self.parameters = [p for p in self.both.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in model.parameters() if p.requires_grad], "lr": rate, "peak": rate}
            for model, rate in ((policy, settings.learning_rate), (value_model, settings.value_learning_rate))
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)  # see training.OPTIMIZER
        self.forward_size = forward_size
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:  # it takes these in no other way
            more = {"train_micro_batch_size_per_gpu": forward_size, "gradient_clipping": settings.max_grad_norm}
            self.accelerator.state.deepspeed_plugin.deepspeed_config.update(more)
        self.model, self.optimizer = self.accelerator.prepare(self.both, optimizer)
        self.history: list[dict] = []
        self.best: dict[str, Any] = {"update": 0, "validation_agreement": None, "trained": None, "evaluations_since": 0}
        self.best_weights: dict[str, Tensor] | None = None

    # ---- the whole run

    def train(self, work: Path) -> dict[str, Any]:
        """Train, continuing from the newest checkpoint in `work`; leave the best weights in `policy`.

        Writes `history.jsonl` (row 0 holds only the validation agreement before training) and the newest
        `checkpoint-<update>/` into `work`. Returns updates, best_update, validation_agreement (of the best
        policy) and stopped_early. Raises UserError on numbers that are not finite and on a checkpoint of
        other settings.
        """
        work = Path(work)
        work.mkdir(parents=True, exist_ok=True)
        update = ppo_checkpoints.resume(self, work)
        if not self.history:
            start = dict.fromkeys(HISTORY_COLUMNS) | {"update": 0, "episodes": 0}
            self._record(work, start)
        bar = tqdm(total=self.settings.total_updates, initial=update, desc="PPO", unit="update")
        while update < self.settings.total_updates and not self._out_of_patience():
            update += 1
            try:
                row = self._update(update)
            except NotFiniteError as error:
                raise UserError(_save_failure(error, work, update)) from None
            self._record(work, row)
            last = update == self.settings.total_updates or self._out_of_patience()
            if last or update % self.settings.checkpoint_every == 0:
                ppo_checkpoints.save(self, work, update)
            bar.update()
            bar.set_postfix(reward=row["reward"], kl=row["kl"], best=self.best["validation_agreement"])
        bar.close()
        if self.best_weights is not None:
            ppo_checkpoints.load_weights(self.policy, self.best_weights)
        return {
            "updates": update,
            "best_update": self.best["update"] if self.best_weights is not None else update,
            "validation_agreement": self.best["validation_agreement"],
            "stopped_early": self._out_of_patience(),
        }

    def _out_of_patience(self) -> bool:
        return self.stopping is not None and self.best["evaluations_since"] >= self.stopping.evaluations

    def _record(self, work: Path, row: dict) -> None:
        """Validate when it is time, remember the best policy, and append the row to the history."""
        update, total = row["update"], self.settings.total_updates
        every = total if self.stopping is None else updates_between(self.stopping, self.settings)
        if self.validate is not None and (update % every == 0 or update == total):
            with self.accelerator.autocast():  # as the policy's responses are sampled
                row["validation_agreement"] = agreement = float(self.validate(self.policy))
            best = self.best["validation_agreement"]
            if best is None or agreement > best:
                self.best |= {"update": update, "validation_agreement": agreement}
                self.best_weights = ppo_checkpoints.weights(self.policy)
            if update:
                self._use_patience(agreement)
        self.history.append(row)
        if self.accelerator.is_main_process:
            with (work / "history.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if self.on_update is not None:
                self.on_update(row)

    def _use_patience(self, agreement: float) -> None:
        """Restart the patience where training brought something better.

        Agreement is compared with the best that training reached, not with the start, which is kept where nothing is
        better. The baselines' trainers do so too, since a policy may first lose what it gains later.
        """
        trained = self.best["trained"]
        if trained is None or agreement > trained:
            self.best |= {"trained": agreement, "evaluations_since": 0}
        else:
            self.best["evaluations_since"] += 1

    # ---- one update

    def _update(self, update: int) -> dict:
        factor = warmup_factor(self.settings, update)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        batch, scores, info = self._rollout(update)
        batch = self._advantages(self._evaluate_rollouts(batch), scores)
        losses = self.optimise(batch, update)
        numbers = _rollout_statistics(batch, scores, info) | losses
        names = sorted(numbers)
        means = torch.stack([numbers[n] for n in names])
        row = dict.fromkeys(HISTORY_COLUMNS)
        row |= {n: v if math.isfinite(v) else None for n, v in zip(names, means.tolist(), strict=True)}
        return row | {
            "update": update,
            "episodes": update * self.settings.episodes_per_update,
            "learning_rate": factor * self.settings.learning_rate,
        }

    def _rollout(self, update: int) -> tuple[Batch, Tensor, dict[str, Tensor]]:
        """Sample and score the update's episodes, of which each process does its share."""
        count, rank = self.settings.episodes_per_update, self.accelerator.process_index
        indices = query_order(len(self.prompts), (update - 1) * count, count, self.seed)
        own = training.share(indices, self.accelerator)
        prompts = [self.prompts[i] for i in own]
        with self.accelerator.autocast():
            sampled = self.sample(self.policy, prompts, seed_of(self.seed, "sample", update, rank))
        responses, logprobs = sampled if isinstance(sampled, tuple) else (sampled, None)
        if len(responses) != len(prompts) or not all(responses):
            raise UserError(f"The sampler gave no response to some queries of PPO update {update}: check the engine.")
        texts = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        rewards, info = self.score(own, texts, [p + r for p, r in zip(prompts, responses, strict=True)])
        responses = training.gather(responses, count, self.accelerator)
        scores, info = self._gather(rewards), {name: self._gather(values) for name, values in info.items()}
        batch = Batch.collate([self.prompts[i] for i in indices], responses, self.accelerator.device)
        if logprobs is not None:
            logprobs = training.gather(logprobs, count, self.accelerator)
            batch = replace(batch, sampler_logprobs=core.pad(logprobs).to(self.accelerator.device))
        require_finite(scores, "reward", batch)
        return batch, scores, info

    def _gather(self, values: Tensor) -> Tensor:
        """Numbers of all episodes [B], from those of this process's share."""
        count = self.settings.episodes_per_update
        rows = training.gather(torch.as_tensor(values, dtype=torch.float32).tolist(), count, self.accelerator)
        return torch.tensor(rows, device=self.accelerator.device)

    def _own_rows(self, batch: Batch) -> list[Tensor]:
        """The rows of a batch that go through this process's networks, in parts."""
        return batch.rows_by_length(self.forward_size, self.accelerator.process_index, self.accelerator.num_processes)

    @torch.no_grad()
    def _evaluate_rollouts(self, batch: Batch) -> Batch:
        """Log-probabilities under policy and reference, and values, by one forward pass of each."""
        logprobs, ref_logprobs, values = (torch.zeros(batch.mask.shape, device=batch.mask.device) for _ in range(3))
        for rows in self._own_rows(batch):
            part = batch.take(rows)
            width = part.mask.shape[1]
            # not through the wrapper: the processes may have different numbers of parts
            logprobs[rows, :width], _, values[rows, :width] = self.both(*part.inputs, self.settings.temperature)
            ref_logprobs[rows, :width] = self._reference_logprobs(part)
        logprobs, ref_logprobs, values = (self.accelerator.reduce(t) for t in (logprobs, ref_logprobs, values))
        batch = replace(batch, logprobs=logprobs, ref_logprobs=ref_logprobs, values=values.masked_fill(~batch.mask, 0))
        cap = self.settings.sampler_ratio_cap
        if batch.sampler_logprobs is None or cap is None:
            return batch
        return replace(batch, weights=core.sampler_weights(logprobs, batch.sampler_logprobs, batch.mask, cap))

    def _reference_logprobs(self, part: Batch) -> Tensor:
        """Log-probabilities [B, T] of the reference at the sampling temperature."""
        model, adapters_off = self.reference, nullcontext
        if model is None:
            model, adapters_off = self.policy, self.policy.disable_adapter
        with self.accelerator.autocast(), adapters_off():
            return core.response_logprobs(model, *part.inputs, self.settings.temperature)[0]

    def _advantages(self, batch: Batch, scores: Tensor) -> Batch:
        settings = self.settings
        rewards = core.kl_penalised_rewards(scores, batch.logprobs, batch.ref_logprobs, batch.mask, settings.kl_coef)
        if settings.whiten_rewards:
            rewards = core.masked_whiten(rewards, batch.mask, shift_mean=False)
        advantages, returns = core.gae(rewards, batch.values, batch.mask, settings.gamma, settings.gae_lambda)
        return replace(batch, advantages=core.masked_whiten(advantages, batch.mask), returns=returns)

    def optimise(self, batch: Batch, update: int) -> dict[str, Tensor]:
        """`epochs` passes of clipped updates over `batch`; returns the statistics' means over minibatches."""
        statistics = []
        for epoch in range(self.settings.epochs):
            seed = seed_of(self.seed, "minibatches", update, epoch)
            for rows in minibatches(len(batch.mask), self.settings.minibatch_size, seed):
                statistics.append(self._step(batch.take(rows.to(batch.mask.device))))
        means = {name: torch.stack([s[name] for s in statistics]).mean() for name in statistics[0]}
        return {name: self.accelerator.reduce(mean) for name, mean in means.items()}

    def _step(self, mini: Batch) -> dict[str, Tensor]:
        """One optimizer step; returns this process's share of the statistics.

        The minibatch goes through the networks in parts of similar length whose losses are weighted by their
        tokens: the gradient is that of the whole, with less padding and less memory. Gradients are averaged over the
        processes, so each counts its parts as many times as there are processes.
        """
        tokens, totals = mini.mask.sum(), Counter()
        parts = self._own_rows(mini)
        for number, rows in enumerate(parts, start=1):
            part = mini.take(rows)
            share = part.mask.sum() / tokens
            with self._synchronised(number == len(parts)):
                loss, statistics = self._loss(part)
                require_finite(loss.detach(), "loss", part)
                self.accelerator.backward(loss * share * self.accelerator.num_processes)
            totals.update({name: value * share for name, value in statistics.items()})
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        if norm is not None:  # DeepSpeed may keep it to itself
            require_finite(torch.as_tensor(norm), "gradient", mini)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return dict(totals)

    def _synchronised(self, last: bool):
        """A context in which a backward pass adds to the gradients, and averages them over the processes if `last`."""
        self.accelerator.sync_gradients = last  # what DeepSpeed goes by
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _loss(self, part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 8 with the value loss, a mean over the tokens of `part`, and its statistics."""
        settings, mask = self.settings, part.mask
        logprobs, entropies, values = self.model(*part.inputs, self.settings.temperature)
        p_loss, clipped = core.policy_loss(
            logprobs, part.logprobs, part.advantages, mask, settings.clip_range, part.weights
        )
        v_loss, v_clipped = core.value_loss(values, part.values, part.returns, mask, settings.value_clip_range)
        with torch.no_grad():
            statistics = {
                "policy_loss": p_loss.detach(),
                "value_loss": v_loss.detach(),
                "clip_fraction": clipped,
                "value_clip_fraction": v_clipped,
                "approx_kl": core.approximate_kl(logprobs, part.logprobs, mask),
                "entropy": core.masked_mean(entropies, mask),
            }
        return p_loss + settings.vf_coef * v_loss, statistics


def require_finite(tensor: Tensor, what: str, batch: Batch) -> None:
    """Raise NotFiniteError unless every element of `tensor` is finite."""
    if not torch.isfinite(tensor).all():
        raise NotFiniteError(what, batch)


@torch.no_grad()
def _require_plain_head(model: nn.Module, prompt: list[int]) -> None:
    """Refuse architectures that change their logits after the output layer, as Gemma 2 does.

    By their configuration, and by trying: a cap is barely seen in the small logits of one position.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([prompt], device=device)
    states = core.response_states(model, ids, torch.tensor([len(prompt)], device=device), 1)
    ours = model.get_output_embeddings()(states)[:, 0]
    theirs = model(input_ids=ids, logits_to_keep=1).logits[:, -1]
    if changed_by(model.config) or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"PPO does not support {type(model).__name__}, which scales or caps its logits: choose a student "
            "of another architecture, such as Llama or Qwen2."
        )


def _save_failure(error: NotFiniteError, work: Path, update: int) -> str:
    tensors = {f.name: getattr(error.batch, f.name) for f in fields(error.batch)}
    path = checkpoints.save_batch(work / f"failed_update_{update}.safetensors", tensors)
    return (
        f"PPO stopped in update {update}: the {error.what} is NaN or infinite. Its episodes are in {path}: "
        "look at them, and lower ppo.learning_rate or raise ppo.kl_coef."
    )


def _rollout_statistics(batch: Batch, scores: Tensor, info: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over the episodes as sampled; `info` entries skip NaN."""
    return {
        "reward": scores.mean(),
        "kl": core.token_kl(batch.logprobs, batch.ref_logprobs, batch.mask).sum(1).mean(),
        "explained_variance": core.explained_variance(batch.values, batch.returns, batch.mask),
        "response_length": batch.mask.sum(1).float().mean(),
        **{name: torch.as_tensor(v).float().nanmean().to(scores.device) for name, v in info.items()},
        **_sampler_gap(batch),
    }


def _sampler_gap(batch: Batch) -> dict[str, Tensor]:
    """How far the sampler's probabilities are from the policy's: mean |log ratio| and the largest ratio."""
    if batch.sampler_logprobs is None:
        return {}
    ratio = core.sampler_ratio(batch.logprobs, batch.sampler_logprobs, batch.mask)
    return {"sampler_log_ratio": core.masked_mean(ratio.log().abs(), batch.mask), "sampler_max_ratio": ratio.max()}


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
