"""The transformers engine: sampling from a model held in this process, made for many samples a prompt.

It reads each prompt once for all of its samples, decodes rows of similar length together and drops rows that
have finished. What is sampled depends on the seed, the requests and their order alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby, islice

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from rdlib.engines import models, stateful
from rdlib.engines.generation import Completion, Request, cut_at
from rdlib.tasks import prompts
from rdlib.tasks.prompts import Prompt

DROP_BELOW = 0.8  # rows are dropped from the cache when fewer than this share are still unfinished


def pick_tokens(
    logits: torch.Tensor, temperature: torch.Tensor, generator: torch.Generator, top_p: float = 1.0
) -> torch.Tensor:
    """Next tokens [B] from logits [B, V] at temperatures [B], greedy where the temperature is 0.

    Sampling inverts the cumulative distribution at one uniform number a row; below a `top_p` of 1 it is that of the
    nucleus: the fewest tokens that hold this share of the probability.
    """
    chances = (logits.float() / temperature.clamp(min=1e-6)[:, None]).softmax(-1)
    cumulative = (nucleus(chances, top_p) if top_p < 1 else chances).cumsum(-1)
    uniform = torch.rand(len(logits), 1, generator=generator, device=logits.device)
    found = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    picked = found.clamp(max=logits.shape[-1] - 1)
    sampled = temperature > 0
    return picked if sampled.all() else torch.where(sampled, picked, logits.argmax(-1))


def nucleus(chances: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities [B, V] with all but the fewest likeliest tokens that hold `top_p` of each row set to 0."""
    ordered, order = chances.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(chances).scatter(-1, order, ordered.masked_fill(before >= top_p, 0))


class BufferedLayer(DynamicLayer):
    """A layer of the key-value cache that grows in a buffer; copying it whole at every token takes a third of the time.

    `keys` and `values` [B, heads, T, width] are views of the first T places of the buffers.
    """

    room = 32  # tokens

    def __init__(self):
        super().__init__()
        self.buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Append the states of new tokens; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.buffers is None or end > self.buffers[0].shape[-2]:
            self.buffers = tuple(
                s.new_empty((*s.shape[:2], end + self.room, s.shape[3])) for s in (key_states, value_states)
            )
            if start:
                for buffer, held in zip(self.buffers, (self.keys, self.values), strict=True):
                    buffer[:, :, :start] = held
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep or repeat rows of the batch; their keys and values move to new buffers at the next update."""
        super().batch_select_indices(indices)
        self.buffers = None


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a model; layers with a sliding window stay as transformers makes them."""
    cache = DynamicCache(config=config)
    cache.layers = [BufferedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class TransformersEngine:
    """Samples from a model held in this process, at most `max_tokens` tokens a response, which `stop` strings end."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        max_tokens: int,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
    ):
        self.model, self.tokenizer = model, tokenizer
        self.batch_size, self.max_tokens, self.top_p, self.stop = batch_size, max_tokens, top_p, tuple(stop)
        self.end_tokens = torch.tensor(models.end_tokens(model, tokenizer), device=model.device)
        self.may_stop: dict[str, torch.Tensor] = {}  # by the last character of a stop string
        self.by_generate = stateful.needs_generate(model)
        if self.by_generate:
            stateful.say(model.config.model_type)

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; UserError when it leaves no room for a response of `max_tokens`."""
        ids = prompts.encode(self.tokenizer, prompt)
        models.require_room(models.context(self.model.config), len(ids), self.max_tokens)
        return ids

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The completions of each request, in the order of the requests."""
        generator = torch.Generator(device=self.model.device).manual_seed(seed)
        results: list[list[Completion]] = [[] for _ in requests]
        was_training = self.model.training
        self.model.eval()
        for group in self._groups(requests):
            for index, completions in zip(group, self._decode([requests[i] for i in group], generator), strict=True):
                results[index] = completions
        self.model.train(was_training)
        return results

    def close(self) -> None:
        """Let go of the model."""
        del self.model

    def _groups(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt), i))
        group: list[int] = []
        rows = 0
        for index in order:
            if group and rows + requests[index].n > self.batch_size:
                yield group
                group, rows = [], 0
            group.append(index)
            rows += requests[index].n
        if group:
            yield group

    @torch.no_grad()
    def _decode(self, requests: list[Request], generator: torch.Generator) -> list[list[Completion]]:
        if self.by_generate:
            return self._decode_by_generate(requests, generator)
        device = self.model.device
        counts = torch.tensor([r.n for r in requests], device=device)
        temperature = torch.tensor([r.temperature for r in requests], device=device).repeat_interleave(counts)
        logits, cache, mask = self._prefill([r.prompt for r in requests], counts)
        rows = torch.arange(len(logits), device=device)
        tokens = torch.full((len(logits), self.max_tokens), self.tokenizer.pad_token_id, device=device)
        finished = torch.zeros(len(logits), dtype=torch.bool, device=device)
        stops = [self._stops(r) for r in requests for _ in range(r.n)]
        lengths = torch.zeros(len(logits), dtype=torch.long, device=device)
        for step in range(self.max_tokens):
            picked = pick_tokens(logits, temperature[rows], generator, self.top_p)
            picked = torch.where(finished[rows], self.tokenizer.pad_token_id, picked)
            tokens[rows, step] = picked
            lengths[rows] += (~finished[rows]).long()
            finished[rows] |= torch.isin(picked, self.end_tokens)
            if any(stops):
                finished[rows] |= self._stopped(tokens[rows, : step + 1], [stops[row] for row in rows.tolist()])
            alive = ~finished[rows]
            if not alive.any() or step + 1 == self.max_tokens:
                break
            if alive.float().mean() < DROP_BELOW:
                rows, picked, mask = rows[alive], picked[alive], mask[alive]
                cache.batch_select_indices(alive.nonzero().squeeze(-1))
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self._step(picked, mask, cache)
        done, ends = finished.tolist(), counts.cumsum(0).tolist()
        asked = [request for request in requests for _ in range(request.n)]
        flat = [self._completion(tokens[i, :n].tolist(), done[i], asked[i]) for i, n in enumerate(lengths.tolist())]
        return [flat[end - r.n : end] for end, r in zip(ends, requests, strict=True)]

    def _decode_by_generate(self, requests: list[Request], generator: torch.Generator) -> list[list[Completion]]:
        """`_decode` for a model with a state: prompts of equal length together, which come in that order."""
        results = []
        for _, group in groupby(requests, key=lambda request: len(request.prompt)):
            group = list(group)
            asked = [request for request in group for _ in range(request.n)]
            size = 1 if self.model.config.model_type in stateful.ALONE else len(asked)
            parts = [asked[start : start + size] for start in range(0, len(asked), size)]
            sampled = (map(self._completion, *self._sample_whole(part, generator), part) for part in parts)
            completions = chain.from_iterable(sampled)
            results += [list(islice(completions, request.n)) for request in group]
        return results

    def _sample_whole(self, asked: list[Request], generator: torch.Generator) -> tuple[list[list[int]], list[bool]]:
        temperature = torch.tensor([request.temperature for request in asked], device=self.model.device)
        stops = [self._stops(request) for request in asked]

        def ended(tokens: torch.Tensor) -> torch.Tensor:
            """Whether each row of tokens [B, T] ends with its last."""
            at_end = torch.isin(tokens[:, -1], self.end_tokens)
            return at_end | self._stopped(tokens, stops) if any(stops) else at_end

        def pick(logits: torch.Tensor) -> torch.Tensor:
            """Next tokens [B] from logits [B, V]."""
            return pick_tokens(logits, temperature, generator, self.top_p)

        prompts = [request.prompt for request in asked]
        return stateful.sample(self.model, prompts, self.tokenizer.pad_token_id, self.max_tokens, pick, ended)

    def _stops(self, request: Request) -> tuple[str, ...]:
        return self.stop if self.tokenizer.chat_template else (*self.stop, *request.stop)

    def _stopped(self, tokens: torch.Tensor, stops: list[tuple[str, ...]]) -> torch.Tensor:
        """Whether the last of the tokens [B, T] completed one of a row's stop strings, [B]."""
        stopped = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        every = {stop for some in set(stops) for stop in some}
        if not every:  # the rows that had some have finished
            return stopped
        candidates = torch.stack([self._may_stop(stop[-1])[tokens[:, -1]] for stop in every]).any(0).nonzero()[:, 0]
        if len(candidates):
            reach = 4 * max(map(len, every)) + 4  # a character is at most four tokens of bytes
            ends = self.tokenizer.batch_decode(tokens[candidates, -reach:], skip_special_tokens=True)
            for row, end in zip(candidates.tolist(), ends, strict=True):
                stopped[row] = any(stop in end for stop in stops[row])
        return stopped

    def _may_stop(self, character: str) -> torch.Tensor:
        """Whether each token of the vocabulary may hold a character [V]: few do, and the others are not decoded.

        Letters, digits and signs of ASCII stand for themselves in a vocabulary of any kind, or as a byte.
        """
        if character not in self.may_stop:
            size = self.model.get_input_embeddings().num_embeddings
            if character.isascii() and character.isprintable() and not character.isspace():
                byte = f"<0x{ord(character):02X}>"
                names = self.tokenizer.get_vocab().items()
                held = [number for name, number in names if (character in name or name == byte) and number < size]
                holds = torch.zeros(size, dtype=torch.bool)
                holds[held] = True
            else:
                holds = torch.ones(size, dtype=torch.bool)
            self.may_stop[character] = holds.to(self.model.device)
        return self.may_stop[character]

    def _completion(self, tokens: list[int], finished: bool, request: Request) -> Completion:
        text = prompts.said(self.tokenizer, tokens, finished)
        text = prompts.opening(self.tokenizer, request.prompt) + cut_at(text, self._stops(request)).strip()
        return Completion(text, tokens, len(tokens), "stop" if finished else "length")

    def _prefill(self, prompts: list[list[int]], counts: torch.Tensor):
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        device = self.model.device
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = new_cache(self.model.config)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            # Not 1: of the view that it gives, torch copies a frozen output layer for every row (findings/README.md)
            logits_to_keep=torch.tensor([-1], device=device),
        )
        rows = torch.arange(len(prompts), device=device).repeat_interleave(counts)
        cache.batch_select_indices(rows)
        return output.logits[rows, -1], cache, mask[rows]

    def _step(self, picked: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        positions = mask.sum(-1, keepdim=True) - 1
        output = self.model(
            input_ids=picked[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits[:, -1]
