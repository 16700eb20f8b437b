"""r_phi, the reward model's score of a whole sequence (prompt and response), read at its last token.

The responses of a query begin alike, with its prompt. Where the model allows it, what they have in common is read once
and its keys and values are handed to each of them, forwards and backwards: nine responses a query take about half of
the time. The scores are those of whole sequences up to rounding.

Shapes: N sequences, T tokens, Q queries.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import SequenceClassifierOutput

from rdlib.engines import models
from rdlib.settings import Training

PART_SIZE = 24  # sequences that go through the model at once while it trains
SCORED_SIZE = 32  # and while it only scores: 256, padded to the longest, took 2.7 times as long
GROUP_SIZE = 256  # sequences whose queries are read together while it only scores


class MeanScorer(nn.Module):
    """Several reward models as one, whose score is the mean of theirs."""

    def __init__(self, members: Sequence[PreTrainedModel]):
        super().__init__()
        self.members, self.config = nn.ModuleList(members), members[0].config

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return self.members[0].device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """`logits` [B, 1], the mean score of each sequence."""
        scores = [m(input_ids=input_ids, attention_mask=attention_mask).logits for m in self.members]
        return SequenceClassifierOutput(logits=torch.stack(scores).mean(0))


def member_folder(folder: Path, number: int) -> Path:
    """Where the reward model of a number lies in the folder of its stage: the first in the folder itself."""
    return folder / f"member_{number}" if number else folder


def member_folders(folder: Path) -> list[Path]:
    """The folders of all reward models that are there."""
    found = [folder]
    while (further := member_folder(folder, len(found))).is_dir():
        found.append(further)
    return found


def load(folder: Path, pad_token_id: int | None = None, training: Training | None = None) -> PreTrainedModel:
    """The reward model in the folder of its stage, or the mean of all that are there."""
    members = [models.load_scorer(one / "model", pad_token_id, training) for one in member_folders(folder)]
    return MeanScorer(members) if len(members) > 1 else members[0]


def pad_right(sequences: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask [N, T] of token lists, padded on the right."""
    width = max(map(len, sequences))
    ids = torch.tensor([s + [pad] * (width - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    return ids, mask


@torch.no_grad()
def score(
    model: PreTrainedModel, sequences: Sequence[list[int]], pad: int, queries: Sequence[Hashable] | None = None
) -> Tensor:
    """r_phi of sequences of token ids, shape [N], without gradient; `queries` tells which belong to one query.

    Equal sequences have equal scores, to the last digit.
    """
    was_training = model.training
    model.eval()
    firsts, place = distinct(sequences)
    scores = torch.empty(len(firsts))
    names = None if queries is None else [queries[i] for i in firsts]
    sequences = [sequences[i] for i in firsts]
    for chosen in _groups(sequences, names):
        ids, mask = (t.to(model.device) for t in pad_right([sequences[i] for i in chosen], pad))
        numbers = None if names is None else _numbers([names[i] for i in chosen])
        scores[chosen] = score_batch(model, ids, mask, numbers, SCORED_SIZE).float().cpu()
    model.train(was_training)
    return scores[place]


def distinct(sequences: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """The index of the first of each set of equal sequences, and for every sequence [N] the place of its first."""
    places: dict[tuple[int, ...], int] = {}
    firsts, place = [], []
    for index, sequence in enumerate(map(tuple, sequences)):
        if sequence not in places:
            places[sequence] = len(firsts)
            firsts.append(index)
        place.append(places[sequence])
    return firsts, place


def score_batch(
    model: nn.Module, ids: Tensor, mask: Tensor, queries: Tensor | None = None, size: int = PART_SIZE
) -> Tensor:
    """r_phi [N] of a batch [N, T] padded on the right, `size` sequences at a time; `queries` [N] as in `score`."""
    if queries is None or not reads_prefixes(model):
        return score_whole(model, ids, mask, size)
    return score_by_query(model, ids, mask, queries.to(ids.device), size)


def score_whole(model: nn.Module, ids: Tensor, mask: Tensor, size: int) -> Tensor:
    """`score_batch`, each sequence from its beginning; parts are of similar length, so that little is padding."""
    lengths = mask.sum(1)
    order = lengths.argsort(stable=True)
    scores = []
    for rows in order.tensor_split(math.ceil(len(order) / size)):
        width = int(lengths[rows].max())
        scores.append(model(input_ids=ids[rows, :width], attention_mask=mask[rows, :width]).logits[:, 0])
    return torch.cat(scores)[order.argsort()]


def score_by_query(model: nn.Module, ids: Tensor, mask: Tensor, queries: Tensor, size: int) -> Tensor:
    """`score_batch`, what the sequences of a query begin with read once; parts are of similar length after that."""
    firsts, query_of, prefixes = shared_prefixes(ids, mask, queries)
    width = int(prefixes.max())
    if not width:
        return score_whole(model, ids, mask, size)
    config = getattr(model, "module", model).config
    read = DynamicCache(config=config)
    # padding is on the right, so causal attention sees none of it and needs no mask
    model(input_ids=ids[firsts, :width], past_key_values=read, use_cache=True)
    left = mask.sum(1) - prefixes[query_of]
    order = left.argsort(stable=True)
    scores = []
    for rows in order.tensor_split(math.ceil(len(order) / size)):
        own, columns = query_of[rows], torch.arange(int(left[rows].max()), device=ids.device)
        places, real = prefixes[own, None] + columns, columns < left[rows, None]
        tokens = ids[rows].gather(1, places.clamp(max=ids.shape[1] - 1)).masked_fill(~real, config.pad_token_id)
        seen = torch.cat([torch.arange(width, device=ids.device) < prefixes[own, None], real], dim=1)
        cache = DynamicCache(config=config)
        for number, layer in enumerate(read.layers):
            cache.update(layer.keys[own], layer.values[own], number)
        output = model(
            input_ids=tokens, attention_mask=seen.long(), position_ids=places, past_key_values=cache, use_cache=True
        )
        scores.append(output.logits[:, 0])
    return torch.cat(scores)[order.argsort()]


def shared_prefixes(ids: Tensor, mask: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A row [Q] of each query, the query [N] of each row, and how many tokens [Q] all of a query's rows begin with.

    At least one token of each row is left over, which the score is read at.
    """
    names, query_of = queries.unique(return_inverse=True)
    rows = torch.arange(len(ids), device=ids.device)
    firsts = rows.new_full(names.shape, len(ids)).scatter_reduce(0, query_of, rows, "amin")
    alike = (ids == ids[firsts[query_of]]).logical_and(mask.bool()).long().cumprod(1).sum(1)
    alike = torch.minimum(alike, mask.sum(1) - 1)
    prefixes = alike.new_full(names.shape, ids.shape[1]).scatter_reduce(0, query_of, alike, "amin")
    return firsts, query_of, prefixes


def reads_prefixes(model: nn.Module) -> bool:
    """Whether a model can continue from kept keys and values in training: the usual ones, without checkpointing.

    A cache with a sliding window drops keys; and gradient checkpointing keeps none.
    """
    inner = getattr(model, "module", model)
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=inner.config).layers)
    told = "position_ids" in inspect.signature(getattr(inner, "get_base_model", lambda: inner)().forward).parameters
    return plain and told and not getattr(inner, "is_gradient_checkpointing", False)


def _groups(sequences: Sequence[list[int]], queries: Sequence[Hashable] | None) -> Iterator[list[int]]:
    """Indices in groups of similar length, a query's together; without queries as many as go through the model."""
    longest: dict[Hashable, int] = {}
    names = range(len(sequences)) if queries is None else queries
    for name, sequence in zip(names, sequences, strict=True):
        longest[name] = max(longest.get(name, 0), len(sequence))
    places = {name: i for i, name in enumerate(longest)}
    order = sorted(range(len(sequences)), key=lambda i: (longest[names[i]], places[names[i]]))
    limit, group = SCORED_SIZE if queries is None else GROUP_SIZE, []
    for i in order:
        if len(group) >= limit and names[i] != names[group[-1]]:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _numbers(names: Sequence[Hashable]) -> Tensor:
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])
