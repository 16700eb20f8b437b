"""vLLM against transformers on an embedded model: `make check KIND=vllm` runs this in an environment of its own."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
import torch

from rdlib.engines import models
from rdlib.engines.generation import Request, sample_to_disk
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.engines.vllm_engine import VllmEngine
from rdlib.errors import UserError
from rdlib.settings import Model, Vllm
from rdlib.tasks.prompts import Prompt
from tests.conftest import MODELS
from tests.tiny_models import chi_square, prompt_texts

MAX_TOKENS = 60
SMALL = str(MODELS / "small")


def prompt_of(text: str) -> Prompt:
    return Prompt((("user", text),), text)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return prompt_texts(24)


@pytest.fixture(scope="module")
def vllm():
    with closing(VllmEngine(Model(model=SMALL, engine="vllm"), MAX_TOKENS)) as engine:
        yield engine


@pytest.fixture(scope="module")
def prompts(vllm, texts):
    return [vllm.encode(prompt_of(text)) for text in texts]


def with_settings(engine: VllmEngine, monkeypatch, **settings) -> VllmEngine:
    """The same engine with other settings of its sampling."""
    for name, value in settings.items():
        monkeypatch.setattr(engine, name, value)
    return engine


def transformers_engine(small, **options) -> TransformersEngine:
    return TransformersEngine(*small, 64, options.pop("max_tokens", MAX_TOKENS), **options)


def greedy(engine, prompts):
    return engine.generate([Request(prompt, 1, 0.0) for prompt in prompts], 0)


def test_prompts_and_greedy_responses_are_those_of_transformers(small, vllm, prompts, texts):
    """Equal greedy samples are made once."""
    local = transformers_engine(small)
    assert [local.encode(prompt_of(text)) for text in texts] == prompts
    ours = greedy(vllm, prompts)
    assert ours == greedy(local, prompts)
    assert vllm.generate([Request(prompts[0], 3, 0.0)], 0) == [ours[0] * 3]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.9)])
def test_first_tokens_follow_the_models_distribution(small, vllm, prompts, monkeypatch, temperature, top_p):
    from rdlib.engines.transformers_engine import nucleus

    n = 2000
    engine = with_settings(vllm, monkeypatch, max_tokens=1, top_p=top_p)
    samples = engine.generate([Request(prompts[0], n, temperature)], 3)[0]
    with torch.no_grad():
        logits = small[0](torch.tensor([prompts[0]])).logits[0, -1]
    chances = nucleus((logits / temperature).softmax(-1)[None], top_p)[0]
    counts = Counter(completion.tokens[0] for completion in samples)
    assert chi_square(counts, chances / chances.sum(), n) > 1e-3


def test_seeds_and_what_is_sampled_beside(vllm, prompts):
    requests = [Request(prompt, 4, 1.0) for prompt in prompts]
    first = vllm.generate(requests, 1)
    assert vllm.generate(requests, 1) == first
    assert vllm.generate(requests, 2) != first
    assert [len(group) for group in first] == [4] * len(prompts)
    assert len({tuple(c.tokens) for c in first[0]}) > 1
    assert vllm.generate(requests[:5], 1) == first[:5]
    same = vllm.generate([requests[0]] * 2, 1)
    assert same[0] != same[1]


def test_a_response_that_reaches_the_limit_is_unfinished(small, vllm, prompts, monkeypatch):
    engine = with_settings(vllm, monkeypatch, max_tokens=5)
    cut = greedy(engine, prompts)
    assert cut == greedy(transformers_engine(small, max_tokens=5), prompts)
    assert any(not completion.finished and completion.count == 5 for (completion,) in cut)


def test_stop_strings_are_those_of_transformers(small, vllm, prompts, monkeypatch):
    free = greedy(vllm, prompts)
    stop = [" ".join(free[0][0].text.split()[3:5]), "zzz"]
    cut = greedy(with_settings(vllm, monkeypatch, stop=stop), prompts)
    assert cut == greedy(transformers_engine(small, stop=stop), prompts)
    assert cut[0][0].finished
    assert stop[0] not in cut[0][0].text
    assert cut != free


def test_a_plain_prompts_stop_strings_are_those_of_transformers(small, vllm, prompts):
    free = greedy(vllm, prompts)
    stop = " ".join(free[0][0].text.split()[3:5])
    requests = [Request(prompt, 1, 0.0, (stop,) if index < 2 else ()) for index, prompt in enumerate(prompts)]
    cut = vllm.generate(requests, 0)
    assert cut == transformers_engine(small).generate(requests, 0)
    assert cut[0][0].finished and stop not in cut[0][0].text
    assert cut[2:] == free[2:]


def test_sampling_to_disk(vllm, texts, tmp_path):
    import pandas as pd

    plan = pd.DataFrame([(str(i), t, n) for i in range(6) for t, n in ((0.0, 1), (1.0, 3))])
    plan = plan.set_axis(["id", "temperature", "n"], axis=1)
    asked = {str(i): prompt_of(texts[i]) for i in range(6)}
    whole = sample_to_disk(vllm, plan, asked, tmp_path / "a", 1, 8)
    assert len(whole) == 24
    pd.testing.assert_frame_equal(sample_to_disk(vllm, plan, asked, tmp_path / "b", 1, 8), whole)


def test_a_prompt_that_is_too_long(vllm):
    with pytest.raises(UserError, match="do not fit into the model's context"):
        vllm.encode(prompt_of("what " * 5000))


def test_what_cannot_start_ends_in_a_sentence(tmp_path):
    for model, settings, message in (
        (Model(model=SMALL, tensor_parallel=8), Vllm(), "tensor_parallel is 8, but this machine has 0 GPUs"),
        (Model(model=str(tmp_path)), Vllm(), "cannot be loaded"),
        (Model(model=SMALL), Vllm(max_model_len=10**6), "vLLM cannot start with .*max_model_len"),
        (Model(model=SMALL, adapter=str(tmp_path)), Vllm(), "The adapter .* cannot be loaded"),
    ):
        with pytest.raises(UserError, match=message):
            VllmEngine(model, 10, settings=settings)


def test_an_adapter_is_put_on_the_model(small, texts, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = models.load_causal_lm(MODELS / "small")
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], lora_alpha=8))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                generator = torch.Generator().manual_seed(parameter.numel())
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(tmp_path / "adapter")
    expected = transformers_engine((adapted.merge_and_unload().eval(), small[1]))
    with closing(VllmEngine(Model(model=SMALL, adapter=str(tmp_path / "adapter")), MAX_TOKENS)) as engine:
        asked = [engine.encode(prompt_of(text)) for text in texts]
        ours, theirs = greedy(engine, asked), greedy(expected, asked)
    assert ours == theirs != greedy(transformers_engine(small), asked)
