"""The client of servers with OpenAI's chat completions, against a stand-in that fails in every way."""

from __future__ import annotations

import json
import time
from collections import Counter
from types import SimpleNamespace

import pytest
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

from rdlib.engines import server, server_waits
from rdlib.engines.asking import Ask, Reply
from rdlib.engines.generation import Request, sample_to_disk
from rdlib.engines.server_answers import shares
from rdlib.engines.server_said import Said, read
from rdlib.errors import UserError


@pytest.fixture
def fake():
    fake = FakeServer()
    yield fake
    fake.close()


def asked(number: int, n: int = 1, temperature: float | None = 1.0, seed: int = 0) -> Ask:
    """All samples of a question."""
    return Ask(Request(prompt_of(number), n, temperature), tuple(range(n)), seed + number)


def collected(engine, asks: dict[int, Ask]) -> dict[tuple[int, int], Reply]:
    """The replies by ask and sample; none comes twice."""
    items = list(engine.replies(asks))
    found = {(number, sample): reply for number, sample, reply in items}
    assert len(found) == len(items)
    assert found.keys() == {(number, sample) for number, ask in asks.items() for sample in ask.samples}
    return found


def said(status: int, body, headers=()) -> Said:
    """What a response says."""
    return read(status, dict(headers), body if isinstance(body, bytes) else json.dumps(body).encode())


def waits(headers: dict, body=b"", status: int = 429) -> float | None:
    """Seconds that a response asks to wait."""
    return server_waits.asked(said(status, body, headers))


# ---- what is sent


def test_a_call_holds_what_the_request_and_the_profile_say(fake):
    engine = engine_of(fake, top_p=0.9, stop=("\nQ:",))
    completions = ask(engine, n=3, temperature=0.7)
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


def test_without_a_key_none_is_sent(fake):
    ask(engine_of(fake, key=None))
    assert "Authorization" not in fake.headers[0]


def test_greedy_samples_are_asked_for_once(fake):
    first, *others = ask(engine_of(fake), n=4, temperature=0.0)
    assert others == [first] * 3
    assert len(fake.calls) == 1


def test_seeds_depend_on_the_requests_seed_and_sample_alone(fake):
    engine = engine_of(fake)
    asks = {i: Ask(Request(prompt_of(1), 2, 1.0), (0, 1), seed) for i, seed in enumerate((5, 6, 7))}
    fake.answer = lambda body: answer(body | {"n": 1})
    whole = collected(engine, asks)
    assert collected(engine, {9: Ask(asks[1].request, (1,), 6)}) == {(9, 1): whole[1, 1]}
    assert len({reply.text for reply in whole.values()}) == 6


def test_a_server_that_ignores_n_is_asked_again_for_the_rest(fake):
    fake.answer = lambda body: answer(body | {"n": 1})
    engine = engine_of(fake, concurrency=1)
    first, second = engine.generate([Request(prompt_of(i), 3, 1.0) for i in (1, 2)], 0)
    assert len({c.text for c in first}) == len({c.text for c in second}) == 3
    assert [body.get("n", 1) for body in fake.calls] == [3, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n", {"error": {"message": "Only one completion choice is allowed", "param": "n"}}),
        ("seed", {"error": {"message": "Unsupported parameter: 'seed'", "param": None}}),
        ("max_tokens", {"error": {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens"}}),
    ],
)
def test_a_parameter_that_the_server_refuses_is_left_out_from_then_on(fake, name, said):
    def picky(body):
        return (400, {}, said) if name in body else (200, {}, answer(body))

    fake.faults = [(picky, None, None)] * 20
    assert len(ask(engine_of(fake), n=2)) == 2
    assert sum(name in body for body in fake.calls) == 1
    assert all("max_tokens" in body or "max_completion_tokens" in body for body in fake.calls)


def test_stop_strings_are_cut_off_even_where_the_server_leaves_them(fake):
    fake.faults = [(200, {}, {"choices": [{"message": {"content": " 4 END 5"}, "finish_reason": "stop"}]})]
    (completion,) = ask(engine_of(fake, stop=("END",)))
    assert (completion.text, completion.count) == ("4", 2)  # of all that was said


def test_a_response_that_was_cut_or_withheld_counts_as_unfinished(fake):
    for reason, content in (("length", "so far"), ("length", None), ("content_filter", None)):
        fake.faults = [(200, {}, {"choices": [{"message": {"content": content}, "finish_reason": reason}]})]
        (completion,) = ask(engine_of(fake))
        assert (completion.text, completion.finished) == (content or "", False)


def test_half_a_surrogate_pair_does_not_break_the_table(fake, tmp_path):
    fake.faults = [(200, {}, b'{"choices": [{"message": {"content": "a\\ud83d\\u0000"}, "finish_reason": "stop"}]}')]
    frame = sample_to_disk(engine_of(fake), *plan_of(1, temperatures=(1.0,), n=1), tmp_path, 0, 8)
    assert frame["text"].tolist() == ["a\ufffd\0"]


def test_shares_of_a_token_count():
    assert shares(10, [1, 1]) == [5, 5]
    assert sum(shares(17, [3, 1, 9])) == 17
    assert shares(0, [1]) == [0]


# ---- the server engine: what fails

MALFORMED = [
    b"<html>busy</html>",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"choices": []}',
    b'{"choices": [{"finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": "half"}, "finish_reason": null}]}',
    b"[" * 100_000,
    b'{"choices": [{"message": {"content": "half"}, "finish_reason": {}}]}',
]
FAULTS = [
    *((status, {}, b"oops") for status in (408, 429, 500, 502, 503, 529)),
    *((200, {}, said) for said in MALFORMED),
    half_an_answer,
    no_answer,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_tried_again(fake, fault):
    fake.faults = [fault, fault]
    clock = FakeClock()
    (completion,) = ask(engine_of(fake, clock, timeout=0.3))
    assert completion.text.startswith("What is 1 + 1?")
    assert len(fake.calls) == 3
    assert len(clock.waits) == 2
    assert 0.5 <= clock.waits[0] <= 1 <= clock.waits[1] <= 2


@pytest.mark.parametrize("fault", FAULTS[2:3] + FAULTS[6:7] + [half_an_answer])
def test_what_does_not_pass_ends_in_one_sentence(fake, fault):
    fake.faults = [fault] * 10
    with pytest.raises(UserError, match=r"failed 4 times in a row.*is kept, and the same command goes on"):
        ask(engine_of(fake, attempts=4))
    assert len(fake.calls) == 4


@pytest.mark.parametrize(
    "models",
    [
        listing("other", "teacher-70b"),
        listing("models/teacher-70b"),  # as Google's has them
        listing(),
        *((status, {}, {}) for status in (404, 405, 429, 500)),
        *((200, {}, said) for said in (b"<html>", b"[" * 100_000, [], {"data": None}, {"data": [{"name": "x"}]})),
    ],
)
def test_a_server_that_has_the_model_or_does_not_tell_is_taken(fake, models):
    fake.models = models
    engine_of(fake).check()
    assert not fake.calls


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (listing("llama-8b"), "has no model 'teacher-70b' but llama-8b: name one of these"),
        (listing("teacher-70b-base", "my-teacher-70b"), "but teacher-70b-base, my-teacher-70b:"),
        (listing(*"abcdefg"), "but a, b, c, d, e and 2 more:"),
    ],
)
def test_a_server_of_another_model_is_told_before_it_is_asked(fake, models, message):
    fake.models = models
    with pytest.raises(UserError, match=message) as caught:
        engine_of(fake).check()
    assert len(str(caught.value).splitlines()) == 1 and KEY not in str(caught.value) and not fake.calls


def test_no_server_is_told_before_it_is_asked(fake):
    engine = engine_of(fake)
    fake.close()
    with pytest.raises(UserError, match=f"No server answers at {fake.url}: start it"):
        engine.check()


def test_nobody_at_the_address(fake):
    fake.close()
    engine = engine_of(fake)
    with pytest.raises(UserError, match=r"http://127.* failed 3 times in a row, at last because the connection was"):
        ask(engine)


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (401, f"bad key {KEY}", "refuses access to teacher-70b .401.: set the environment variable OPENAI_API_KEY"),
        (403, f"bad key {KEY}", "refuses access"),
        (404, "model not found", "no model 'teacher-70b' .404.: check base_url"),
        (429, "insufficient_quota", "quota is used up"),
    ],
)
def test_what_will_not_pass_ends_at_once(fake, status, said, message):
    fake.faults = [(status, {}, {"error": {"message": said}})]
    with pytest.raises(UserError, match=message) as caught:
        ask(engine_of(fake))
    assert len(fake.calls) == 1
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_retry_after_is_honoured_by_all_requests(fake):
    fake.faults = [(429, {"Retry-After": "7"}, b"")]
    clock = FakeClock()
    engine_of(fake, clock, concurrency=1).generate([Request(prompt_of(i), 1, 1.0) for i in range(3)], 0)
    assert 7 <= clock.waits[0] <= 7.7
    assert clock.time >= 7


def test_retry_after_may_be_a_date():
    from email.utils import formatdate

    assert 90 < waits({"Retry-After": formatdate(time.time() + 100, usegmt=True)}) <= 100
    for value in ("", "soon", "nan"):
        assert not waits({"Retry-After": value})


@pytest.mark.parametrize("asked", ["inf", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_fails_cannot_stop_the_run_for_ever(fake, asked):
    fake.faults = [(503, {"Retry-After": asked}, b"[" * 100_000)]
    clock = FakeClock()
    ask(engine_of(fake, clock))
    assert clock.waits and max(clock.waits) <= 1.1 * server.LONGEST_RETRY_AFTER


@pytest.mark.parametrize("total", [True, -3, 10**400, 10**30, 1.5, "7"])
def test_a_count_of_tokens_that_is_none_is_not_believed(fake, total):
    said = {
        "choices": [{"message": {"content": "abcde"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": total},
    }
    fake.faults = [(200, {}, said)]
    assert ask(engine_of(fake))[0].count == 2


def test_a_body_in_an_encoding_that_it_has_not(fake):
    fake.faults = [(418, {"Content-Type": "application/json; charset=utf-16"}, b'{"error": "x"}')]
    ((_, _, reply),) = engine_of(fake).replies({0: asked(1)})
    assert (reply.kind, reply.words) == ("refused", "x")


def test_a_wait_beyond_reason_is_a_quota(fake):
    fake.faults = [(429, {"Retry-After": "86400"}, b"come back tomorrow")]
    with pytest.raises(UserError, match="quota is used up .come back tomorrow.: what it has answered is kept"):
        ask(engine_of(fake))


def test_requests_start_at_the_rate_that_the_profile_allows(fake):
    clock = FakeClock()
    engine = engine_of(fake, clock, requests_per_minute=30, concurrency=1)
    engine.generate([Request(prompt_of(i), 1, 1.0) for i in range(5)], 0)
    assert clock.waits == [pytest.approx(2.0)] * 4


def test_concurrency_is_bounded_and_used(fake):
    fake.delay = 0.05
    engine_of(fake, concurrency=3).generate([Request(prompt_of(i), 1, 1.0) for i in range(12)], 0)
    assert fake.most == 3
    assert Counter(body["messages"][0]["content"] for body in fake.calls).most_common(1)[0][1] == 1


@pytest.mark.parametrize("key", ["sk-\nnew line", "sk-ключ"])
def test_a_key_that_no_header_can_hold(fake, key):
    with pytest.raises(UserError, match="OPENAI_API_KEY holds no valid key") as caught:
        engine_of(fake, key=key)
    assert key not in str(caught.value)
    assert engine_of(fake, key=f" {KEY}\n").key == KEY


@pytest.mark.parametrize("url", [None, "", "localhost:8000", "ftp://host/v1", "http://", "http://user:word@host/v1"])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError, match="base_url") as caught:
        engine_of(SimpleNamespace(url=url))
    assert "word" not in str(caught.value).replace("password", "")


# ---- resuming


def test_what_came_before_the_server_died_is_given_out(fake):
    fake.faults = [None] * 11 + [(500, {}, b"down")] * 1000
    came = []
    with pytest.raises(UserError, match=r"failed 2 times in a row.*500 \(down\).*is kept"):
        for item in engine_of(fake, attempts=2, concurrency=2).replies({i: asked(i) for i in range(20)}):
            came.append(item)
    assert len(came) == 11


def test_what_is_under_way_when_a_request_is_refused_is_kept(fake):
    fake.delay = 0.1
    fake.faults = [None, None, (401, {}, b""), None]
    came = []
    with pytest.raises(UserError, match="refuses access"):
        for item in engine_of(fake, concurrency=4).replies({i: asked(i) for i in range(20)}):
            came.append(item)
    assert len(came) == len(fake.calls) - 1 > 0


def test_the_key_is_in_no_file_and_no_representation(fake, tmp_path, caplog):
    fake.answer = lambda body: answer(body)
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
