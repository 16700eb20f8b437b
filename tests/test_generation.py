"""The sampling engine against transformers' own generation, the model's distribution, and interruptions."""

from __future__ import annotations

import random
from collections import Counter

import pandas as pd
import pytest
import torch
from tiny_models import make_model

from rdlib.engines import transformers_engine
from rdlib.engines.generation import Request, sample_to_disk
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.micro import gsm, mmlu
from rdlib.tasks.prompts import Prompt, micro_question

MAX_TOKENS = 60


def prompt_texts(count: int = 12) -> list[str]:
    """Prompts of very different lengths."""
    rng = random.Random(0)
    texts = []
    for _ in range(count // 2):
        choice = mmlu.draw(rng)
        texts += [micro_question(gsm.draw(rng).question, []), micro_question(choice.question, choice.options)]
    return texts


@pytest.fixture(scope="module")
def prompts(small):
    return small[1](prompt_texts())["input_ids"]


def engine_of(small, batch_size=64, max_tokens=MAX_TOKENS) -> TransformersEngine:
    return TransformersEngine(*small, batch_size, max_tokens)


def chi_square(counts: Counter, probabilities: torch.Tensor, total: int) -> float:
    """The p-value of counts against probabilities; outcomes expected fewer than five times are one outcome."""
    from scipy.stats import chisquare

    expected = probabilities * total
    large = (expected >= 5).nonzero().squeeze(-1).tolist()
    observed = [counts[i] for i in large]
    wanted = [expected[i].item() for i in large]
    return chisquare([*observed, total - sum(observed)], [*wanted, total - sum(wanted)]).pvalue


# ---- greedy decoding


@pytest.mark.parametrize("batch_size", [5, 64])
def test_greedy_equals_transformers_whatever_the_batch_size(small, prompts, batch_size):
    model, _ = small
    ours = engine_of(small, batch_size).generate([Request(p, 1, 0.0) for p in prompts], seed=0)
    for prompt, (completion,) in zip(prompts, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=MAX_TOKENS, do_sample=False)
        assert completion.tokens == theirs[0, len(prompt) :].tolist()


def test_a_frozen_output_layer_is_not_copied_for_each_prompt(small):
    """As torch does on a CPU for states that are not contiguous: with 64 prompts and a real vocabulary, 17 GB."""
    model = make_model("llama").requires_grad_(False)
    seen = []
    model.lm_head.register_forward_pre_hook(lambda _, given: seen.append((*given[0].shape, given[0].is_contiguous())))
    TransformersEngine(model, small[1], 8, 2).generate([Request([5] * n, 1, 0.0) for n in (3, 7, 4)], seed=0)
    assert seen[0] == (3, 1, model.config.hidden_size, True)


# ---- sampling


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_follow_the_models_distribution(small, prompts, temperature):
    model, n = small[0], 4000
    samples = engine_of(small, n, 1).generate([Request(prompts[0], n, temperature)], seed=3)[0]
    with torch.no_grad():
        logits = model(torch.tensor([prompts[0]])).logits[0, -1]
    counts = Counter(c.tokens[0] for c in samples)
    # The seed is fixed, so this cannot fail by chance; a wrong temperature gives p < 1e-20
    assert chi_square(counts, (logits / temperature).softmax(-1), n) > 1e-3


def test_long_samples_follow_the_model(small, prompts):
    """Mean log-probability of whole samples, rows dropped on the way, against the model's own entropy.

    The surprise of a token is its entropy in the mean, so the sum of (surprise - entropy) over the tokens is
    zero in the mean, with a variance that the model knows.
    """
    model, tokenizer = small
    samples = [c for group in engine_of(small).generate([Request(p, 20, 1.0) for p in prompts], 5) for c in group]
    excess = variance = 0.0
    rows = [p for p in prompts for _ in range(20)]
    with torch.no_grad():
        for prompt, completion in zip(rows, samples, strict=True):
            logits = model(torch.tensor([prompt + completion.tokens])).logits[0, len(prompt) - 1 : -1]
            surprise, chances = -logits.log_softmax(-1), logits.softmax(-1)
            entropy = (chances * surprise).sum(-1)
            taken = surprise.gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
            excess += (taken - entropy).sum().item()
            variance += ((chances * surprise**2).sum(-1) - entropy**2).sum().item()
    assert abs(excess) < 4 * variance**0.5
    assert tokenizer.pad_token_id not in {t for c in samples for t in c.tokens}


def test_the_global_generator_is_left_alone(small, prompts):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    engine_of(small).generate([Request(prompts[0], 4, 1.0)], 1)
    assert torch.equal(torch.rand(1), expected)


# ---- counts, ends, and one reading of a prompt


def test_finished_means_ended_by_the_end_token(small, prompts):
    eos = small[1].eos_token_id
    for limit in (3, MAX_TOKENS):
        groups = engine_of(small, 64, limit).generate([Request(p, 5, 1.0) for p in prompts], 0)
        for completion in (c for group in groups for c in group):
            assert completion.finished == (completion.tokens[-1] == eos)
            assert eos not in completion.tokens[:-1]
            assert len(completion.tokens) == limit or completion.finished
    assert completion.finished


def test_a_sampled_padding_token_is_a_token_like_others(small, prompts, monkeypatch):
    """A model may sample the padding token; nothing after it may get lost."""
    eos, pad = small[1].eos_token_id, small[1].pad_token_id
    script = iter([[20, 20], [pad, 21], [22, eos], [eos, 99]])
    monkeypatch.setattr(
        transformers_engine, "pick_tokens", lambda logits, *_: torch.tensor(next(script))[: len(logits)]
    )
    first, second = engine_of(small).generate([Request(prompts[0], 2, 1.0)], 0)[0]
    assert (second.tokens, second.count, second.finish_reason) == ([20, 21, eos], 3, "stop")
    assert (first.tokens, first.count, first.finish_reason) == ([20, pad, 22, eos], 4, "stop")


# ---- shards


def plan_and_prompts() -> tuple[pd.DataFrame, dict[str, Prompt]]:
    texts = {f"q{i}": Prompt((), text) for i, text in enumerate(prompt_texts())}
    plan = pd.DataFrame([(key, t, n) for key in texts for t, n in ((0.0, 1), (1.0, 3))])
    return plan.set_axis(["id", "temperature", "n"], axis=1), texts


class CountingEngine(TransformersEngine):
    """Counts its calls, and fails in one of them."""

    calls, fail_at = 0, None

    def generate(self, requests, seed):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return super().generate(requests, seed)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run that was not interrupted, and the number of its shards."""
    engine = CountingEngine(*small, 64, MAX_TOKENS)
    frame = sample_to_disk(engine, *plan_and_prompts(), tmp_path_factory.mktemp("whole"), seed=1, shard_size=8)
    return frame, engine.calls


def test_the_table_has_a_row_a_sample(whole, small):
    frame, shards = whole
    assert list(frame.columns) == ["id", "temperature", "sample", "text", "tokens", "finished"]
    assert shards == 6
    assert frame.groupby(["id", "temperature"], sort=False)["sample"].apply(list).tolist() == [[0], [0, 1, 2]] * 12
    # The text leaves the special tokens out, and `tokens` counts the end token
    lengths = [len(ids) for ids in small[1](frame["text"].tolist())["input_ids"]]
    assert (frame["tokens"] == lengths + frame["finished"]).all()


def test_an_interrupted_run_goes_on_with_the_same_result(small, whole, tmp_path):
    """Also where a machine that lost power left a file that was renamed but not written out."""
    frame, shards = whole
    broken = CountingEngine(*small, 64, MAX_TOKENS)
    broken.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        sample_to_disk(broken, *plan_and_prompts(), tmp_path, seed=1, shard_size=8)
    shard = sorted((tmp_path / "shards").iterdir())[-1]
    shard.write_bytes(shard.read_bytes()[:100])
    engine = CountingEngine(*small, 64, MAX_TOKENS)
    pd.testing.assert_frame_equal(sample_to_disk(engine, *plan_and_prompts(), tmp_path, 1, 8), frame)
    assert engine.calls == shards - 1
