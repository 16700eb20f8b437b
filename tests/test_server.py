"""The client of servers with OpenAI's chat completions, against a stand-in that fails in every way."""

from __future__ import annotations

import copy
import json
import queue
import re
import time
from collections import Counter
from email.utils import formatdate
from functools import cache
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, groups_of, refused
from fake_server import (
    KEY,
    FakeClock,
    FakeServer,
    answer,
    ask,
    engine_of,
    half_an_answer,
    listing,
    no_answer,
    plan_of,
    prompt_of,
)
from hostile import as_json, assert_one_line, broken, mutated, texts, values
from hypothesis import given
from hypothesis import strategies as st

from rdlib.engines import server, server_address, server_waits
from rdlib.engines.asking import Ask, Reply
from rdlib.engines.generation import Request, clean, cut_at, sample_to_disk
from rdlib.engines.server_answers import shares
from rdlib.engines.server_failures import Place, judge
from rdlib.engines.server_parameters import Learnt, body_of
from rdlib.engines.server_run import Run
from rdlib.engines.server_said import read
from rdlib.engines.server_work import Work, jobs_of
from rdlib.errors import UserError
from rdlib.profile import load_profile
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt
from rdlib.tasks.spoken import thought_end


def asked(number: int, n: int = 1, temperature: float | None = 1.0, seed: int = 0) -> Ask:
    """All samples of a question."""
    return Ask(Request(prompt_of(number), n, temperature), tuple(range(n)), seed + number)


EIGHT = {i: asked(i, 5) for i in range(8)}


def collected(engine, asks: dict[int, Ask] = EIGHT) -> dict[tuple[int, int], Reply]:
    """The replies by ask and sample; none comes twice."""
    items = list(engine.replies(asks))
    found = {(number, sample): reply for number, sample, reply in items}
    assert len(found) == len(items)
    assert found.keys() == {(number, sample) for number, ask in asks.items() for sample in ask.samples}
    return found


def waits(headers: dict, body=b"", status: int = 429) -> float | None:
    """Seconds that a response asks to wait."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server_waits.asked(read(status, dict(headers), content))


def error(message: str, **fields) -> dict:
    """An error as OpenAI's servers give it."""
    return {"error": {"message": message, **fields}}


def choice(content, reason="stop", **more) -> dict:
    return {"message": {"role": "assistant", "content": content, **more}, "finish_reason": reason}


PART = "What is 3 + 1?"


def of_part(sent: dict) -> bool:
    """Whether a request is about one of the eight questions."""
    return sent["messages"][-1]["content"] == PART


def saying(status: int, body, headers=(), when=lambda sent: True) -> list[tuple]:
    """Faults by which the server says this to the requests for which `when` holds, and answers the others."""
    told = (status, dict(headers), body)
    return [(lambda sent: told if when(sent) else (200, {}, answer(sent)), None, None)] * 10_000


# ---- what a response means: status, what must be in the sentence, and the body

SENT = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 512, "temperature": 0.7}
SENT |= {"seed": 1024, "top_p": 1.0, "n": 5, "top_k": 0, "reasoning_effort": "low"}


@pytest.mark.parametrize(("kind", "rows"), groups_of("server_says.tsv").items(), ids=groups_of("server_says.tsv"))
def test_what_a_response_means(kind, rows):
    for _, status, words, body, *_ in rows:
        said = read(int(status), {}, body.encode())
        outcome = judge(said, SENT)
        assert outcome.kind == kind, (body, outcome)
        if kind == "parameter":
            assert words in ("", ",".join(outcome.names)), body
        elif kind in ("hopeless", "doubtful"):
            sentence = Place("http://h/v1/chat/completions", "m", "set KEY").hopeless(outcome.why, said, 512)
            assert said.words.rstrip(".") in sentence and "\n" not in sentence and re.search(words, sentence), sentence
        else:
            assert words in said.words


# ---- what is sent


def test_a_call_holds_what_the_request_and_the_profile_say(fake):
    completions = ask(engine_of(fake, top_p=0.9, stop=("\nQ:",)), n=3, temperature=0.7)
    (body,) = fake.calls
    assert body.pop("seed") in range(2**31)
    assert body == {
        "model": "teacher-70b",
        "messages": [{"role": "user", "content": "What is 1 + 1?"}],
        "max_tokens": 50,
        "temperature": 0.7,
        "n": 3,
        "top_p": 0.9,
        "stop": ["\nQ:"],
    }
    assert len({c.text for c in completions}) == 3
    assert sum(c.count for c in completions) == 30
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    ask(engine_of(fake, key=None))
    assert "Authorization" not in fake.headers[1]


def test_greedy_samples_are_asked_for_once_and_paid_once(fake):
    fake.faults = [(200, {}, {"choices": [choice("It is 4.")], "usage": {"completion_tokens": 5, "prompt_tokens": 8}})]
    found = collected(engine_of(fake), {0: Ask(Request(prompt_of(1), 5, 0.0), (1, 3, 4), 0)})
    assert [reply.text for reply in found.values()] == ["It is 4."] * 3 and len(fake.calls) == 1
    assert [reply.prompt_tokens for reply in found.values()] == [8, 0, 0]


def test_seeds_depend_on_the_requests_seed_and_sample_alone_are_far_apart_and_fit_31_bits(fake):
    engine = engine_of(fake)
    asks = {i: Ask(Request(prompt_of(1), 30, 1.0), tuple(range(30)), seed) for i, seed in enumerate((5, 6, 7))}
    fake.answer = lambda body: answer(body | {"n": 1})
    whole = collected(engine, asks)
    seeds = [sent["seed"] for sent in fake.calls]
    assert all(0 <= seed < 2**31 and seed % 1024 == 0 for seed in seeds) and len(set(seeds)) == len(seeds) == 90
    assert collected(engine, {9: Ask(asks[1].request, (1,), 6)}) == {(9, 1): whole[1, 1]}


def test_a_server_that_ignores_n_is_asked_again_for_the_rest(fake):
    fake.answer = lambda body: answer(body | {"n": 1})
    engine = engine_of(fake, concurrency=1)
    first, second = engine.generate([Request(prompt_of(i), 3, 1.0) for i in (1, 2)], 0)
    assert len({c.text for c in first}) == len({c.text for c in second}) == 3
    assert [body.get("n", 1) for body in fake.calls] == [3, 1, 1, 1, 1, 1]


# ---- what fails

MALFORMED = [
    b"<html>busy</html>",
    b"[" * 100_000,
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": "half"}, "finish_reason": null}]}',
]
FAULTS = [*((status, {}, b"oops") for status in (408, 429, 500, 503)), *((200, {}, said) for said in MALFORMED)]


@pytest.mark.parametrize("fault", [*FAULTS, half_an_answer, no_answer])
def test_what_may_pass_is_tried_again(fake, fault):
    fake.faults = [fault, fault]
    clock = FakeClock()
    (completion,) = ask(engine_of(fake, clock, timeout=0.3))
    assert completion.text.startswith("What is 1 + 1?")
    assert len(fake.calls) == 3
    assert len(clock.waits) == 2
    assert 0.5 <= clock.waits[0] <= 1 <= clock.waits[1] <= 2


ELSEWHERE = "https://me:word@api.example/v1/chat/completions?key=word"
KEPT = r"failed 4 times in a row.*is kept, and the same command continues"
# Of each sentence one: tests/cases/server_says.tsv has which responses mean which. (faults, fields, words, calls)
ENDS = [
    *((faults, {"attempts": 4}, KEPT, 4) for faults in (saying(500, b"oops"), [half_an_answer] * 10)),
    ([no_answer] * 9, {"timeout": 0.1, "attempts": 2}, "within 0.1 s: raise timeout or lower concurrency", 2),
    (saying(401, error(f"bad {KEY}")), {}, "refuses access to teacher-70b .401.: set .* OPENAI_API_KEY", 1),
    (saying(404, b"<html><title>404 Not Found</title></html>"), {}, "base_url, which usually ends in /v1", 1),
    (saying(400, error("max_tokens is too large: 50. At most 40 tokens")), {}, "lower max_tokens", 1),
    (saying(429, b"come tomorrow", {"Retry-After": "86400"}), {}, "quota is used up .come tomorrow.: what it has", 1),
    (saying(308, b"", {"Location": ELSEWHERE}), {}, r"sends requests on to https.*/v1 \(308\): give that address", 1),
    (saying(308, b"", {"Location": "/v2/chat/completions"}), {}, r"sends requests on to http.*/v2 \(308\)", 1),
    (saying(400, error("Unsupported parameter: 'top_p'")), {"top_p": 0.9}, "refuses top_p 0.9 .*generation.top_p", 1),
]


@pytest.mark.parametrize(("faults", "fields", "words", "calls"), ENDS)
def test_what_does_not_pass_ends_in_one_sentence(fake, faults, fields, words, calls):
    fake.faults = list(faults)
    message = refused(words, lambda: ask(engine_of(fake, **fields)))
    assert len(fake.calls) <= calls
    assert not any(part in message for part in ("\n", KEY, "me:word", "key=word"))


# (status, body, kind, words, calls): a refusal is asked once, and a failure eight times, each with another seed
# A refusal is asked once, and a failure eight times, each with another seed; the last is a firewall's
ONE_FAILS = [
    ((400, error("Content Exists Risk")), "refused", "Content Exists Risk", 1),
    ((422, b""), "refused", "status 422, no message", 1),
    ((500, error("litellm.InternalServerError: upstream died")), "failed", "upstream died", 8),
    ((403, b"<html><title>You have been blocked</title></html>"), "failed", "have been blocked", None),
]


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize(("said", "kind", "words", "calls"), ONE_FAILS)
def test_a_question_that_is_refused_or_fails_each_time_stops_no_run(fake, concurrency, said, kind, words, calls):
    fake.faults = saying(*said, when=of_part)
    for (number, _), reply in collected(engine_of(fake, concurrency=concurrency)).items():
        assert reply.kind == (kind if number == 3 else "answer")
        assert words in reply.words or number != 3
    seeds = [call["seed"] for call in fake.calls if of_part(call)]
    assert len(seeds) == len(set(seeds)) and calls in (None, len(seeds))


def test_a_key_that_is_withdrawn_stops_a_run_and_what_is_under_way_is_kept(fake):
    fake.faults, fake.delay, came = [None] * 4 + [(401, {}, error("Revoked key."))], 0.05, []
    with pytest.raises(UserError, match="Revoked key"):
        for item in engine_of(fake, concurrency=4).replies({i: asked(i) for i in range(20)}):
            came.append(item)
    assert len(came) == len(fake.calls) - 1 >= 4


# ---- the key and the address


@pytest.mark.parametrize("key", ["sk-\nnew line", "sk-ключ"])
def test_a_key_that_no_header_can_hold(fake, key):
    message = refused("OPENAI_API_KEY holds no valid key", engine_of, fake, key=key)
    assert key not in message and engine_of(fake, key=f" {KEY}\n").key == KEY


NO_ADDRESS = [None, "", "localhost:8000", "ftp://host/v1", "http://", "http://user:word@host/v1"]


def test_an_address_that_is_none_or_where_nobody_is(fake):
    for url in NO_ADDRESS:
        message = refused("base_url", engine_of, SimpleNamespace(url=url))
        assert "word" not in message.replace("password", "")
    fake.close()
    engine = engine_of(fake)
    refused(f"No server answers at {fake.url}: start it", engine.check)
    refused(r"http://127.* failed 3 times in a row, at last because the connection was", ask, engine)


def test_the_key_is_in_no_file_and_no_representation(fake, tmp_path, caplog):
    fake.faults = [(500, {}, KEY.encode()), (429, {"Retry-After": "0"}, KEY.encode())]
    engine = engine_of(fake)
    caplog.set_level("DEBUG")
    sample_to_disk(engine, *plan_of(5), tmp_path, 1, 4)
    fake.faults = [(401, {}, KEY.encode())]
    with pytest.raises(UserError) as caught:
        sample_to_disk(engine, *plan_of(9), tmp_path / "other", 1, 4)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for text in (written.decode("latin-1"), str(caught.value), repr(caught.value), repr(engine), caplog.text):
        assert KEY not in text


# ---- odd answers

FILTERED = {"content_filter_results": {"hate": {"filtered": True, "severity": "high"}}}
ODD_CHOICES = {
    "refusal": (choice(None, refusal="I cannot help."), "I cannot help."),
    "reasoning alone": (choice(None, reasoning_content="Hm."), "no answer after the thinking"),
    "reasoning, cut": (choice("", "length", reasoning="Hm."), "raise max_tokens"),
    "filter": (choice("", "content_filter"), "content_filter"),
    "Azure's filter": (choice(None, "content_filter") | FILTERED, "hate"),
    "Gemini": (choice(None, "SAFETY"), "safety"),
    "tools": (choice(None, "tool_calls", tool_calls=[{"id": "a"}]), "tool"),
    "white space": (choice(" \n"), "empty"),
    "no message": ({"finish_reason": "stop"}, "empty"),
    "refusal as a part": (choice([{"type": "refusal", "refusal": "Never."}]), "Never."),
    "no reason": (choice("It is 4.", None), None),
}


@pytest.mark.parametrize(("odd", "words"), ODD_CHOICES.values(), ids=ODD_CHOICES)
def test_one_odd_choice_discards_no_others(fake, odd, words):
    fake.faults = [(200, {}, {"choices": [choice(f"text {k}") if k != 2 else odd for k in range(5)]})]
    found = collected(engine_of(fake), {0: asked(1, 5)})
    assert len(fake.calls) == 1
    assert [found[0, k].text for k in (0, 1, 3, 4)] == [f"text {k}" for k in (0, 1, 3, 4)]
    assert found[0, 2].kind == ("withheld" if words else "answer") and (words or "") in found[0, 2].words


def test_a_choice_that_broke_off_is_asked_for_again_alone(fake):
    broke = {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "idle timeout"}}
    fake.faults = [(200, {}, {"choices": [choice("a"), broke, choice("c")]})]
    found = collected(engine_of(fake), {0: asked(1, 3)})
    assert found[0, 0].text == "a" and found[0, 2].text == "c" and found[0, 1].text.startswith("What is")
    assert [call.get("n", 1) for call in fake.calls] == [3, 1]


ENDED = ["stop", "STOP", "eos", "end_turn", "tool_calls", "complete", "FinishReason.STOP", "so be it"]
CUT = "length MAX_TOKENS sensitive model_context_window_exceeded abort network_error SAFETY error".split()


def test_a_whole_answer_counts_whatever_ended_it(fake):
    for reason in ENDED + CUT:
        fake.faults = [(200, {}, {"choices": [choice("It is 4.", reason)]})]
        reply = collected(engine_of(fake), {0: asked(1)})[0, 0]
        assert (reply.kind, reply.text, reply.ended, reply.reason) == ("answer", "It is 4.", reason in ENDED, reason)
    assert len(fake.calls) == len(ENDED + CUT)
    said = {"choices": [choice("It is", "who knows")], "usage": {"completion_tokens": 50}}
    fake.faults = [(200, {}, said)]  # as long as it may be
    assert not collected(engine_of(fake), {0: asked(1)})[0, 0].ended
    fake.calls.clear()
    fake.answer = lambda body: {"choices": [choice("It is 4.", None)]}  # a server that never says why
    found = collected(engine_of(fake, concurrency=1), {i: asked(i) for i in range(6)})
    assert {(reply.kind, reply.ended) for reply in found.values()} == {("answer", True)}
    assert len(fake.calls) <= 9  # a few times it was asked for one with a reason


@pytest.mark.parametrize(
    ("usage", "words", "counts"),
    [
        ({"completion_tokens": 1, "prompt_tokens": 9}, ["a" * 40, "b" * 80], [10, 20]),
        ({"completion_tokens": 60}, ["a" * 40, "b" * 80], [20, 40]),
        ({"completion_tokens": 1}, ["a" * 40], [1]),
        *((usage, ["a" * 40], [10]) for usage in ({}, [], *({"completion_tokens": n} for n in (True, -3, 10**30)))),
        *(({"completion_tokens": n}, ["a" * 40], [10]) for n in (10**400, 1.5, "7")),
    ],
)
def test_tokens_of_each_response(fake, usage, words, counts):
    """A count that is none is not believed."""
    fake.faults = [(200, {}, {"choices": [choice(text) for text in words], "usage": usage})]
    found = collected(engine_of(fake), {0: asked(1, len(words))})
    assert [found[0, k].tokens for k in range(len(words))] == counts
    assert found[0, 0].prompt_tokens == (9 if "prompt_tokens" in usage else None)
    assert shares(10, [1, 1]) == [5, 5] and sum(shares(17, [3, 1, 9])) == 17 and shares(0, [1]) == [0]


# ---- thinking


SPOKEN = {"type": "text", "text": "It is 4."}
THINKING = {
    "reasoning_content": choice("It is 4.", reasoning_content="2 + 2."),
    "reasoning": choice("It is 4.", reasoning="2 + 2."),
    "details": choice("It is 4.", reasoning_details=[{"type": "reasoning.text", "text": "2 + 2."}]),
    "Mistral": choice([{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2."}]}, SPOKEN]),
    "Databricks": choice([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2 + 2."}]}, SPOKEN]),
}


@pytest.mark.parametrize("said", THINKING.values(), ids=THINKING)
def test_thinking_beside_the_text(fake, said):
    fake.faults = [(200, {}, {"choices": [said]})]
    engine = engine_of(fake)
    reply = collected(engine, {0: asked(1)})[0, 0]
    assert (reply.text, reply.reasoning) == ("It is 4.", "2 + 2.")
    assert server.completion_of(reply, engine.model, (), ()).text == "It is 4."
    kept = server.completion_of(reply, engine.model.model_copy(update={"thinking": "keep"}), (), ())
    assert kept.text == "<think>\n2 + 2.\n</think>\n\nIt is 4."


@pytest.mark.parametrize(
    ("text", "ended", "dropped", "kept", "finished"),
    [
        ("<think>Q: 1?</think>It is 4. Q: 5", True, "It is 4.", "<think>Q: 1?</think>It is 4.", True),
        ("Hm Q: </think>It is 4.", True, "It is 4.", "Hm Q: </think>It is 4.", True),
        ("<think>Is it Q: 4", False, "<think>Is it Q: 4", "<think>Is it Q: 4", False),
        ("<think>Is it Q: 4", True, "<think>Is it Q: 4", "<think>Is it Q: 4", False),
        ("<think>Yes.</think>", True, "", "<think>Yes.</think>", True),
        ("It is 4. Q: 5", False, "It is 4.", "It is 4.", True),
        ("It is 4", False, "It is 4", "It is 4", False),
    ],
)
def test_thinking_inside_of_the_text(text, ended, dropped, kept, finished):
    reply = Reply("answer", text, ended=ended, tokens=7)
    for thinking, expected in (("drop", dropped), ("keep", kept)):
        model = Model(model="m", engine="openai", thinking=thinking)
        completion = server.completion_of(reply, model, ("Q:",), ())
        assert (completion.text, completion.finished, completion.count) == (expected, finished, 7)


@pytest.mark.parametrize(("kind", "count"), [("withheld", 9), ("refused", 0), ("failed", 0)])
def test_a_sample_without_an_answer_is_an_empty_response(kind, count):
    completion = server.completion_of(Reply(kind, reasoning="hm", tokens=9, words="no"), Model(model="m"), (), ())
    assert (completion.text, completion.count, completion.finished) == ("", count, False)


# ---- parameters


UNKNOWN = [
    ("seed", 400, [error('Invalid JSON payload received. Unknown name "seed": Cannot find field.')]),
    ("n", 500, error("Only one completion choice is allowed", code=500)),
    ("max_tokens", 400, error("Use 'max_completion_tokens' instead.", param="max_tokens")),
    ("stop", 400, error("Unsupported parameter: 'stop' is not supported.", param="stop")),
    ("min_p", 400, {"error": "min_p is not supported"}),  # one that rdlib sends to switch off a default of vLLM's
]


@pytest.mark.parametrize(("name", "status", "body"), UNKNOWN)
def test_a_parameter_that_a_server_does_not_take_is_left_out(fake, name, status, body):
    fake.models = owned("vllm", "teacher-70b")
    fake.faults = saying(status, body, when=lambda sent: name in sent)
    engine = engine_of(fake, stop=("END",))
    assert {reply.kind for reply in collected(engine).values()} == {"answer"}
    assert sum(name in sent for sent in fake.calls) == 1 and any(name in note for note in engine.notes())
    assert all(sent["temperature"] == 1.0 and sent["top_k"] == -1 for sent in fake.calls)
    assert all("max_tokens" in sent or "max_completion_tokens" in sent for sent in fake.calls)
    assert name == "n" or all(sent["n"] == 5 for sent in fake.calls)
    known = json.loads(json.dumps(engine.learnt()))
    again = server.ServerEngine(engine.model, engine.settings, KEY, FakeClock(), known)
    fake.calls.clear()
    collected(again)
    assert not any(name in sent for sent in fake.calls)


def test_max_tokens_by_another_name_and_by_none(fake):
    def say(sent):
        name = next((n for n in ("max_tokens", "max_completion_tokens") if n in sent), None)
        return (400, {}, error(f"Unknown parameter: '{name}'.", param=name)) if name else (200, {}, answer(sent))

    fake.faults = [(say, None, None)] * 100
    engine = engine_of(fake)
    assert collected(engine, {0: asked(1), 1: asked(2)})[0, 0].text
    assert len(fake.calls) == 4 and any("max_tokens" in note for note in engine.notes())


@pytest.mark.parametrize(
    ("words", "most"),
    [("Field 'n': Value must be between 1 <= value <= 4", 4), ("Invalid value for 'n': only 1 is supported", 1)],
)
def test_a_server_that_gives_few_choices_at_once(fake, words, most):
    fake.faults = saying(400, {"error": words}, when=lambda sent: sent.get("n", 1) > most)
    engine = engine_of(fake)
    found = collected(engine, {i: asked(i, 5) for i in range(3)})
    assert engine.most_choices == most and engine.learnt()["most_choices"] == most
    sizes = [sent.get("n", 1) for sent in fake.calls]
    assert sizes.count(5) == 1 and sizes.count(most) >= 3 and sum(sizes) == 20
    assert len({reply.text for reply in found.values()}) == 15


def test_a_refusal_that_quotes_n_for_another_reason_leaves_n(fake):
    fake.faults = saying(400, error("Invalid control character 'n' at position 3"), when=of_part)
    found = collected(engine_of(fake))
    assert {found[3, k].kind for k in range(5)} == {"refused"} and "Invalid control" in found[3, 0].words
    assert sum(sent.get("n") == 5 for sent in fake.calls) == 8


@pytest.mark.parametrize(
    ("bad", "status", "body"),
    [
        (lambda t: t != 1, 400, error("Unsupported value: 'temperature' does not support 0.7 with this model.")),
        (lambda t: t == 0, 422, {"error": "Input validation error: `temperature` must be strictly positive"}),
        (lambda t: True, 400, error("Unsupported parameter: 'temperature' is not supported")),
    ],
)
def test_a_temperature_that_a_server_does_not_take_is_told_before_much_is_paid(fake, bad, status, body):
    fake.faults = saying(status, body, when=lambda sent: bad(sent["temperature"]))
    asks = {i: asked(i, 5, t) for i, t in enumerate([1.0] * 20 + [0.0, 0.7, 1.5] * 20)}
    with pytest.raises(UserError, match=r"refuses the temperature .*teacher_sampling.temperatures to default"):
        collected(engine_of(fake), asks)
    assert len(fake.calls) <= 2


def test_the_profiles_own_fields_headers_and_system_prompt_are_sent(fake, monkeypatch):
    """And nothing that it leaves out."""
    monkeypatch.setenv("AZURE_KEY", "azure-secret-1")
    extras = {"body": {"reasoning_effort": "low", "top_k": 5}, "headers": {"api-key": "${AZURE_KEY}", "X-Title": "t"}}
    fake.models, fake.faults = owned("vllm", "teacher-70b"), [(500, {}, b"azure-secret-1")] * 8
    engine = engine_of(fake, key=None, request=extras, system_prompt="Be brief.", leave_out=["seed"])
    message = refused("failed 8 times", lambda: collected(engine, {0: asked(1)}))
    assert "azure-secret-1" not in message
    assert fake.headers[0]["api-key"] == "azure-secret-1" and "Authorization" not in fake.headers[0]
    assert fake.calls[0]["reasoning_effort"] == "low" and fake.calls[0]["top_k"] == 5
    assert fake.calls[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    monkeypatch.delenv("AZURE_KEY")
    refused("needs the environment variable AZURE_KEY, which is not set", engine_of, fake, request=extras)
    fake.models, fake.faults = (404, {}, {}), []
    fake.calls.clear()
    collected(engine_of(fake, leave_out=["temperature", "seed", "n", "max_tokens", "top_p"]), {0: asked(1, 3)})
    assert [sorted(sent) for sent in fake.calls] == [["messages", "model"]] * 3


def owned(owner: str | None, *names: str, header: str = "") -> tuple[int, dict, dict]:
    """A list of models that says who owns them."""
    headers = {"Server": header} if header else {}
    return 200, headers, {"data": [{"id": name, "owned_by": owner} for name in names]}


@pytest.mark.parametrize(
    ("owner", "header", "sent"),
    [
        ("llamacpp", "", {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}),
        ("vllm", "", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        (None, "llama.cpp", {"top_k": 0}),
        ("openai", "", {}),
    ],
)
def test_a_servers_own_defaults_are_made_neutral(fake, owner, header, sent):
    fake.models = owned(owner, "teacher-70b", header=header)
    engine = engine_of(fake)
    collected(engine, {0: asked(1)})
    assert fake.calls[0] | sent == fake.calls[0] and fake.calls[0]["top_p"] == 1.0
    assert bool(sent) == ("top_k" in fake.calls[0])
    assert any("top_k" in note for note in engine.notes())


# ---- rate limits and waits

NEW_YEAR = "Thu, 01 Jan 2026 00:00:00 GMT"
LATER = "Thu, 01 Jan 2026 00:00:30 "
BOTH = {"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "1s"}
BOTH |= {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7.5"}, b"", 7.5),
        ({"Retry-After": "20s"}, b"", 20),
        ({"Retry-After": "-5"}, b"", 0),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, b"", 1.5),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, b"", 1),
        ({"x-ratelimit-reset-tokens": "120ms"}, b"", 0.12),
        (BOTH, b"", 360),
        ({"RateLimit-Reset": "12"}, b"", 12),
        ({"X-RateLimit-Reset": str(int(time.time() * 1000) + 10**8), "Date": ""}, b"", pytest.approx(10**5, abs=3600)),
        ({"anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:30Z", "Date": NEW_YEAR}, b"", 30),
        ({"Retry-After": f"{LATER}GMT", "Date": NEW_YEAR}, b"", 30),
        ({"Retry-After": f"{LATER}-0000", "Date": "Thu, 01 Jan 2026 00:00:00 -0000"}, b"", 30),
        ({}, [{"error": {"code": 429, "details": [{"@type": "x/RetryInfo", "retryDelay": "45s"}]}}], 45),
        ({}, error("Please retry in 45.2s."), 45.2),
        ({}, error("Rate limit reached. Please try again in 20s. Visit us."), 20),
        ({}, error("Please try again in 1m30s"), 90),
        ({}, error("try again in 500ms"), 0.5),
        ({}, error("Please retry after 26 seconds."), 26),
        ({}, error("too many", retry_after=3), 3),
        ({}, error("gave up after 3 attempts"), None),
        *(({"Retry-After": value}, b"", None) for value in ("soon", "", "nan")),
    ],
)
def test_waits_in_all_their_forms(headers, body, seconds):
    assert waits(headers, body) == seconds


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_wait_until_a_date_does_not_depend_on_this_machines_zone(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert 90 < waits({"Retry-After": formatdate(time.time() + 100).replace("+0000", "-0000")}) <= 100
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.parametrize(
    ("status", "headers", "body", "least", "most"),
    [
        (429, {}, error("on requests per day (RPD). Please try again in 1m26s"), 86, 95),
        (429, {"Retry-After": "7"}, b"", 7, 7.7),
        (529, {}, error("Overloaded"), 0.5, 1.1),
    ],
)
def test_a_minutes_quota_is_waited_for(fake, status, headers, body, least, most):
    fake.faults = [(status, headers, body)] * 2
    clock = FakeClock()
    assert ask(engine_of(fake, clock, attempts=1))[0].text.startswith("What is 1 + 1?")
    assert least <= clock.waits[0] <= most and len(clock.waits) == 2
    assert len({sent["seed"] for sent in fake.calls}) == 1  # nothing was sampled: the seed stays


class FastClock(server.Clock):
    """Time that passes two hundred times as fast."""

    def now(self) -> float:
        return time.monotonic() * 200

    def sleep(self, seconds, stop):
        stop.wait(seconds / 200)


class Limited(FakeServer):
    """Answers so many requests a second of the client's clock, or two at once without a rate; the others get 429."""

    def __init__(self, clock, rate: float | None, headers):
        super().__init__()
        self.clock, self.rate, self.left, self.seen, self.limited, self.given = clock, rate, rate, 0.0, 0, headers
        self.faults, self.delay = [(self.say, None, None)] * 100_000, 0 if rate else 0.01

    def allows(self) -> bool:
        if self.rate is None:
            return self.now <= 2
        now = self.clock.now()
        self.left, self.seen = min(self.rate, self.left + (now - self.seen) * self.rate), now
        allowed = self.left >= 1
        self.left -= allowed
        return allowed

    def say(self, body):
        with self.lock:
            if self.allows():
                return 200, {}, answer(body)
            self.limited += 1
            return 429, self.given, error("Rate limit reached for requests per minute")


@pytest.mark.parametrize(("rate", "headers"), [(3, {"Retry-After": "1"}), (3, {}), (None, {})])
def test_a_rate_limit_is_no_failure(rate, headers):
    clock = FastClock()
    limited, started = Limited(clock, rate, headers), clock.now()
    found = collected(engine_of(limited, clock), {i: asked(i) for i in range(60)})
    limited.close()
    assert {reply.kind for reply in found.values()} == {"answer"}
    assert limited.limited < 60 and (rate is None or clock.now() - started < 400)


def test_requests_start_at_the_rate_that_the_profile_allows_and_limits_without_end_end_it(fake):
    clock = FakeClock()
    engine = engine_of(fake, clock, requests_per_minute=30, concurrency=1)
    engine.generate([Request(prompt_of(i), 1, 1.0) for i in range(5)], 0)
    assert clock.waits == [pytest.approx(2.0)] * 4
    fake.faults, clock = saying(429, {"error": "Too many requests"}, {"Retry-After": "0"}), FakeClock()
    with pytest.raises(UserError, match=r"Too many requests\): lower concurrency or set requests_per_minute .*is kept"):
        collected(engine_of(fake, clock))
    assert server.LONGEST_RETRY_AFTER < clock.time < 3000 and len(fake.calls) < 200


# ---- many at once


def test_concurrency_is_bounded_and_used_and_answers_come_out_of_order(fake):
    def slow(body):
        time.sleep(0.02 * (hash(body["messages"][-1]["content"]) % 3))
        return answer(body | {"n": 1})

    fake.answer, fake.delay = slow, 0.05
    found = collected(engine_of(fake, concurrency=3), {i: asked(i, 2) for i in range(10)})
    assert len({reply.text for reply in found.values()}) == 20 and fake.most == 3
    assert Counter((body["messages"][0]["content"], body["seed"]) for body in fake.calls).most_common(1)[0][1] == 1


def test_closing_the_iterator_ends_a_long_wait_and_the_asking(fake):
    fake.faults = [None, *[(429, {"Retry-After": "800"}, b"")] * 100]
    engine = engine_of(fake, server.Clock(), concurrency=2)
    replies = engine.replies({i: asked(i) for i in range(1000)})
    next(replies)
    for _ in range(100):
        if engine.waiting > 700:
            break
        time.sleep(0.02)
    assert engine.waiting > 700
    started, made = time.monotonic(), len(fake.calls)
    replies.close()
    engine.close()
    time.sleep(0.05)
    assert time.monotonic() - started < 1 and len(fake.calls) == made < 20


# ---- the check of models

TAKEN = {
    "others, too": ("gpt", listing("other", "gpt")),
    "Google's": ("gpt", listing("models/gpt")),
    "an empty list": ("gpt", listing()),
    "a provider's pattern": ("openai/gpt-4o", listing("openai/*")),
    "no scope": ("gpt-4o", (403, {}, {"error": "insufficient permissions: missing scope api.model.read"})),
    "another header": ("claude", (401, {}, {"error": "x-api-key header is required"})),
    "Ollama's tag": ("llama3.2", owned("library", "llama3.2:latest", "qwen:7b")),
    "a provider behind": ("meta/llama:together", listing("meta/llama")),
    "llama.cpp": ("qwen", owned("llamacpp", "models/qwen2.5.gguf")),
    "Together's bare list": ("gpt", (200, {}, [{"id": "gpt", "object": "model"}])),
    "a redirect to itself": ("gpt", (307, {"Location": "/v1/models/"}, b"")),
    **{f"status {status}": ("gpt", (status, {}, {})) for status in (404, 405, 429, 500, 501)},
    **{str(said)[:9]: ("gpt", (200, {}, said)) for said in (b"<html>", b"[" * 100_000, [], {"data": [{"name": "x"}]})},
}


@pytest.mark.parametrize(("name", "models"), TAKEN.values(), ids=TAKEN)
def test_a_list_that_does_not_refuse_the_model(fake, name, models):
    fake.models = models
    server.ServerEngine(Model(model=name, base_url=fake.url), server.Settings(name, 5), None, FakeClock()).check()
    assert not fake.calls


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (listing("llama-8b"), "has no model 'teacher-70b' but llama-8b: name one of these"),
        (listing("teacher-70b-base", "my-teacher-70b"), "but teacher-70b-base, my-teacher-70b:"),
        (listing(*"abcdefg"), "but a, b, c, d, e and 2 more:"),
        ((200, {}, {"error": "Unexpected endpoint. (GET /models)"}), "base_url, which usually ends in /v1.*Unexpected"),
        ((301, {"Location": "https://a.b/v1/models"}, b""), r"sends requests on to https://a.b/v1 .301"),
    ],
)
def test_a_server_of_another_model_or_address_is_told_before_it_is_asked(fake, models, message):
    fake.models = models
    with pytest.raises(UserError, match=message) as caught:
        engine_of(fake).check()
    assert len(str(caught.value).splitlines()) == 1 and KEY not in str(caught.value) and not fake.calls


def test_pages_of_models(fake):
    def page(path):
        number = int(path.partition("after=m")[2].partition("&")[0] or 0)
        data = [{"id": f"m{number + 1}"}] if number < 4 else [{"id": "teacher-70b"}]
        return 200, {}, {"data": data, "has_more": number < 4, "last_id": data[0]["id"]}

    fake.models = page
    engine_of(fake).check()
    assert len(fake.lists) == 5


def test_azures_list_and_its_version(fake):
    fake.models = listing("gpt-4o-2024-11-20")
    fake.url += "/deployments/mine?api-version=2024-10-21"
    engine = engine_of(fake)
    engine.check()
    ask(engine)
    assert fake.paths == ["/v1/deployments/mine/chat/completions?api-version=2024-10-21"]
    assert fake.lists[0] == "/v1/deployments/mine/models?api-version=2024-10-21"
    assert any("list of models" in note for note in engine.notes())


def test_the_check_can_be_switched_off_and_never_waits_long(fake, monkeypatch):
    fake.models = listing("another")
    engine = engine_of(fake, check_models=False)
    engine.check()
    ask(engine)
    assert not fake.lists
    monkeypatch.setattr("rdlib.engines.server_models.PATIENCE", 0.2)

    def hang(path):
        time.sleep(1)
        return listing("teacher-70b")

    fake.models = hang
    started = time.monotonic()
    engine = engine_of(fake, timeout=600)
    engine.check()
    assert time.monotonic() - started < 0.9
    assert any("in time" in note for note in engine.notes())


# ---- the environment


@pytest.fixture
def bare(monkeypatch):
    """An environment without proxies and certificates."""
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://me:word@localhost:1080"),
        ("all_proxy", "socks://localhost:1080"),
        ("HTTPS_PROXY", "ftp://localhost"),
        ("SSL_CERT_FILE", "/no/such/file.pem"),
    ],
)
def test_an_environment_that_will_not_do_is_told_in_a_sentence(bare, fake, name, value):
    bare.setenv(name, value)
    message = refused(name, lambda: engine_of(SimpleNamespace(url="https://api.example/v1")))
    assert "word" not in message
    ask(engine_of(fake))  # this machine needs neither


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_this_machine_is_never_asked_through_a_proxy(bare, fake, name):
    bare.setenv(name, "http://127.0.0.1:9")
    fake.models = listing("teacher-70b")
    for host in ("127.0.0.1", "localhost"):
        engine = engine_of(SimpleNamespace(url=fake.url.replace("127.0.0.1", host)))
        engine.check()
        ask(engine)


def test_a_certificate_that_nobody_signed(fake, bare):
    engine = engine_of(SimpleNamespace(url="https://localhost/v1"))
    text = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1010)"

    def fail(*_, **__):
        raise httpx.ConnectError(text)

    engine.client = SimpleNamespace(get=fail, post=fail, close=lambda: None)
    for start in (engine.check, lambda: ask(engine)):
        refused(r"certificate of .* \(self-signed certificate\).*SSL_CERT_FILE", start)


# ---- the pages of docs/servers: every block is a teacher that a profile takes, and what a page says of it is so

SERVERS = [page for page in sorted((REPOSITORY / "docs/servers").glob("*.md")) if page.name != "index.md"]
PROMPT = Prompt((("user", "What is 7 + 8?"),), "What is 7 + 8?", "q", "What is 7 + 8?")


def profiles_of(page, tmp_path) -> list:
    """`params/own_questions.yaml` with the sections of each block of a page in the place of its own."""
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    content = yaml.safe_load((REPOSITORY / "params/own_questions.yaml").read_text())
    for number, block in enumerate(blocks):
        (tmp_path / f"p{number}.yaml").write_text(yaml.safe_dump(content | yaml.safe_load(block)))
    return [load_profile(tmp_path / f"p{number}.yaml") for number in range(len(blocks))]


@pytest.mark.parametrize("page", SERVERS, ids=lambda page: page.stem)
def test_every_block_is_a_teacher_of_a_profile_and_has_no_key(page, tmp_path, monkeypatch):
    text = page.read_text()
    assert "Tested with" in text and "](index.md)" in text and "sk-" not in text
    assert f"]({page.name})" in (page.parent / "index.md").read_text()
    profiles = profiles_of(page, tmp_path)
    assert profiles
    for profile in profiles:
        (model,) = profile.teachers.values()
        assert model.engine == "openai" and server_address.checked_url(model.base_url).host
        heats = [temperature for _, temperature, _ in profile.teacher_sampling.sets]
        assert "temperature" not in model.leave_out or heats == [None]
        body = body_of(model, server.Settings(model.model, 99), Request(PROMPT, 4, heats[0]), 4, 1, Learnt())
        assert model.request.body.items() <= body.items() and not set(model.leave_out) & body.keys()
        monkeypatch.setenv(model.api_key_env, KEY)
        headers, secrets = server_address.headers_of(model, server.key_of(model))
        assert KEY in secrets and any(KEY in value for value in headers.values())


# ---- any answer: the replies are the server's, one for each sample, or the failure is a sentence without the key

STATUS = [200, 200, 200, 200, 200, 200, 400, 401, 404, 408, 422, 429, 500, 503, 301, 418]
WAITS = ["1", "0", "-5", "inf", "nan", "1e400", "9" * 30, "100000", "soon", "", "Fri, 31 Dec 9999 23:59:59 GMT"]
WAITS += [f"{day} 00:00:00 GMT" for day in ("Thu, 01 Jan 1970", "Fri, 31 Feb 2025", "Mon, 01 Jan 0001")]
TYPES = ["text/html; charset=no-such", "application/json; charset=utf-16", ""]
HEADERS = [{}, {}, *({"Retry-After": wait} for wait in WAITS), *({"Content-Type": kind} for kind in TYPES)]
WORDS = ["n", "'seed' is not supported", "insufficient_quota", f"your key {KEY}"]


@st.composite
def anything_said(draw) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body), good or strange."""
    status = draw(st.sampled_from(STATUS))
    body = error(draw(st.sampled_from(WORDS) | texts), code=draw(values), param=draw(st.sampled_from([None, "n", 7])))
    if status == 200:
        choices = draw(st.lists(st.builds(choice, texts, st.sampled_from(["stop", "length"])), min_size=1, max_size=3))
        body = {"choices": choices, "usage": {"completion_tokens": draw(st.integers(0, 500))}}
    body = draw(mutated(body)) if draw(st.integers(0, 9)) else draw(values)
    return status, draw(st.sampled_from(HEADERS)), draw(broken(as_json(body)))


class Impatient(FakeClock):
    """A clock on which nobody may wait for longer than the engine says it does."""

    def sleep(self, seconds, stop):
        assert 0 <= seconds <= 1.2 * server.LONGEST_RETRY_AFTER
        super().sleep(seconds, stop)


@cache
def template() -> server.ServerEngine:
    """An engine for a server that nobody connects to; making one takes longer than a hundred cases."""
    model = Model(model="teacher", engine="openai", base_url="http://localhost/v1", attempts=4, thinking="keep")
    return server.ServerEngine(model, server.Settings("teacher", 50, stop=("STOP",)), KEY)


@pytest.mark.fuzz
@given(st.lists(anything_said(), min_size=1, max_size=3))
def test_whatever_a_server_says_is_its_answer_or_a_sentence(said):
    left = list(said)

    def post(url: str, **_) -> httpx.Response:
        status, headers, content = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(status, headers=headers, content=content)

    engine = copy.copy(template())
    engine.client, engine.known, engine.clock = SimpleNamespace(post=post), Learnt(), Impatient()
    engine.pace = server.Pace(None, 1, engine.clock)
    found = replies_to(engine, Ask(Request(PROMPT, 2, 1.0), (0, 1), 5))
    assert json.dumps(engine.learnt()) and all(engine.notes())
    if isinstance(found, UserError):
        assert KEY not in str(found)
        return assert_one_line(found)
    assert sorted(found) == [0, 1]
    served = ["", *(text for status, _, content in said if status == 200 for text in texts_of(content))]
    for reply in found.values():
        assert KEY not in reply.words and len(reply.words.splitlines()) < 2
        completion = server.completion_of(reply, engine.model, ("STOP",), ())
        assert completion.text in served and (reply.kind == "answer" or not completion.text)
        assert type(completion.count) is int and 0 <= completion.count < 2**31
        pd.DataFrame([completion.__dict__]).to_json()


def replies_to(engine: server.ServerEngine, one: Ask) -> dict[int, Reply] | UserError:
    """The replies to an ask by their samples, or the error that ended it, from one worker in this thread."""
    done: queue.SimpleQueue = queue.SimpleQueue()
    Run(engine, Work(jobs_of({0: one}), engine.pace, set()), done).work()
    found: dict[int, Reply] = {}
    while (item := done.get()) is not None:
        if isinstance(item, UserError):
            return item
        if isinstance(item, Exception):
            raise item
        assert item[1] not in found
        found[item[1]] = item[2]
    return found


def strings_in(content) -> list[str]:
    """The strings of a content: itself, or those of its parts."""
    if isinstance(content, list):
        return [text for part in content for text in strings_in(part)]
    return [content] if isinstance(content, str) else []


def texts_of(content: bytes) -> list[str]:
    """The texts of an answer, by a second reader; thinking stays."""
    try:
        found = [one["message"] for one in json.loads(content)["choices"] if isinstance(one, dict) and "message" in one]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    whole = [clean("".join(strings_in(one.get("content")))) for one in found if isinstance(one, dict)]
    ends = [thought_end(text) for text in whole]
    return [(text[:end] + cut_at(text[end:], ("STOP",))).strip() for text, end in zip(whole, ends, strict=True)]
