"""The server engine against vLLM's own OpenAI-compatible server on this machine."""

from __future__ import annotations

import pytest

from rdlib.engines import server
from rdlib.engines.asking import Ask
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.errors import UserError
from rdlib.settings import Model
from tests.with_vllm.servers import running
from tests.with_vllm.test_vllm_engine import SMALL, prompt_of

KEY = "sk-local-test"
# The embedded models have no chat template; this one makes of a message the prompt that they were trained on.
TEMPLATE = "{{ messages[-1]['content'] }}"
QUESTIONS = [f"Q: in history , what is the {thing} of dorek ? A:" for thing in ("metal", "colour", "animal")]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a vLLM server with the smallest embedded model, which wants a key."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "template.jinja").write_text(TEMPLATE)
    options = ("--served-model-name", "small", "--api-key", KEY, "--chat-template", str(folder / "template.jinja"))
    with running(SMALL, folder, *options) as address:
        yield f"{address}/v1"


def engine_of(url: str, max_tokens: int = 40, top_p: float = 1.0, stop=(), key=KEY, name="small"):
    model = Model(model=name, engine="openai", base_url=url, concurrency=4)
    return server.ServerEngine(model, server.Settings(name, max_tokens, top_p, stop), key)


def ask(engine, n: int, temperature: float, seed: int = 0):
    return engine.generate([Request(prompt_of(text), n, temperature) for text in QUESTIONS], seed)


def test_greedy_answers_are_those_of_transformers(url, small):
    local = TransformersEngine(*small, 64, 40)
    expected = local.generate([Request(local.encode(prompt_of(text)), 1, 0.0) for text in QUESTIONS], 0)
    for (theirs,), (ours,) in zip(expected, ask(engine_of(url), 1, 0.0), strict=True):
        assert (ours.text, ours.count, ours.finish_reason) == (theirs.text, theirs.count, theirs.finish_reason)


def test_samples_seeds_and_limits(url):
    first = ask(engine_of(url), 5, 1.0)
    assert [len(group) for group in first] == [5, 5, 5]
    assert len({c.text for group in first for c in group}) > 5
    assert ask(engine_of(url), 5, 1.0) == first
    assert ask(engine_of(url), 5, 1.0, seed=1) != first
    cut = ask(engine_of(url, max_tokens=3), 2, 1.0)
    assert {c.finish_reason for group in cut for c in group} == {"length"}


def test_stop_strings(url):
    free = ask(engine_of(url), 1, 0.0)[0][0].text
    word = free.split()[3]
    (completion,) = ask(engine_of(url, stop=(word,)), 1, 0.0)[0]
    assert completion.text == free[: free.index(word)].strip()
    assert completion.finished


def test_a_wrong_key_and_a_wrong_name(url):
    with pytest.raises(UserError, match="refuses access to small .401."):
        ask(engine_of(url, key="sk-wrong"), 1, 0.0)
    with pytest.raises(UserError, match="no model 'large' .404."):
        ask(engine_of(url, name="large"), 1, 0.0)


def test_a_prompt_that_is_too_long(url):
    ask = Ask(Request(prompt_of("what " * 5000), 1, 0.0), (0,), 0)
    ((_, _, reply),) = engine_of(url).replies({0: ask})
    assert reply.kind == "refused" and "context length" in reply.words
