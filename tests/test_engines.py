"""The engines behind one interface: a contract for all, recordings, and a server that fails in every way."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from rdlib import engines
from rdlib.engines import generation, server
from rdlib.engines.generation import Completion, Request, sample_to_disk
from rdlib.engines.replay import ReplayEngine
from rdlib.engines.transformers_engine import TransformersEngine, nucleus, pick_tokens
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks import answers
from rdlib.tasks.prompts import STOP, Prompt
from rdlib.tasks.spoken import THINK

KEY = "sk-secret-0123456789"


def prompt_of(number: int) -> Prompt:
    """The prompt of question q<number>."""
    text = f"What is {number} + 1?"
    return Prompt((("user", text),), text, f"q{number}", text)


def plan_of(questions: int, n: int = 2, temperatures=(0.0, 1.0)) -> tuple[pd.DataFrame, dict[str, Prompt]]:
    """A sampling plan and its prompts: one greedy sample, and n hot ones, of each question."""
    rows = [(f"q{i}", t, n if t else 1) for i in range(questions) for t in temperatures]
    return pd.DataFrame(rows, columns=["id", "temperature", "n"]), {f"q{i}": prompt_of(i) for i in range(questions)}


# ---- a server that can fail


class FakeClock(server.Clock):
    """Time that passes only where somebody waits."""

    def __init__(self):
        self.time, self.waits, self.lock = 0.0, [], threading.Lock()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds, stop):
        with self.lock:
            self.waits.append(seconds)
            self.time += seconds


def answer(body: dict) -> dict:
    """What a good server says: a text that depends on the question and the seed alone."""
    question = body["messages"][-1]["content"]
    texts = [f"{question} -> {body.get('seed')}/{k}" for k in range(body.get("n", 1))]
    if not body["temperature"]:
        texts = [f"{question} -> greedy"] * len(texts)
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return {"choices": choices, "usage": {"completion_tokens": 10 * len(texts)}}


class FakeServer:
    """Answers chat completions; `faults` are given out first, one a call: (status, headers, body) or a function.

    `models` is (status, headers, body) of its list of models.
    """

    def __init__(self):
        self.models = (404, {}, {})
        self.faults, self.calls, self.headers, self.answer = [], [], [], answer
        self.delay, self.now, self.most, self.lock = 0.0, 0, 0, threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                fake.handle(self)

            def do_GET(self):
                send(self, *fake.models)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handle(self, handler) -> None:
        """Count the call, then fail or answer."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.calls.append(body)
            self.headers.append(dict(handler.headers))
            self.now += 1
            self.most = max(self.most, self.now)
            fault = self.faults.pop(0) if self.faults else None
        time.sleep(self.delay)
        with self.lock:
            self.now -= 1
        if callable(fault):
            return fault(handler)
        status, headers, said = fault or (200, {}, self.answer(body))
        if callable(status):
            status, headers, said = status(body)
        send(handler, status, headers, said)

    def close(self) -> None:
        """Stop listening."""
        self.http.shutdown()
        self.http.server_close()


def send(handler, status: int, headers: dict, said) -> None:
    """One HTTP answer; a dictionary is sent as JSON."""
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(content))} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def half_an_answer(handler) -> None:
    """Promise a long body, send a part, hang up."""
    send(handler, 200, {"Content-Length": "1000"}, b'{"choices": [')
    handler.close_connection = True


def no_answer(handler) -> None:
    """Let the client wait until its time is up."""
    time.sleep(0.6)
    handler.close_connection = True


@pytest.fixture
def fake():
    fake = FakeServer()
    yield fake
    fake.close()


def engine_of(fake, clock=None, key=KEY, top_p=1.0, stop=(), **fields) -> server.ServerEngine:
    """An engine on the fake server whose waits take no time."""
    model = Model(model="teacher-70b", engine="openai", base_url=fake.url, **fields)
    return server.ServerEngine(model, server.Settings("teacher-70b", 50, top_p, stop), key, clock or FakeClock())


def ask(engine, n: int = 1, temperature: float = 1.0) -> list[Completion]:
    return engine.generate([Request(prompt_of(1), n, temperature)], seed=0)[0]


# ---- the contract of all engines


@pytest.fixture(params=["transformers", "openai", "replay"])
def any_engine(request, small, fake, tmp_path):
    """Each engine, able to answer q0 to q5 greedily and, twice, at temperature 1."""
    if request.param == "transformers":
        return TransformersEngine(*small, 64, 12)
    if request.param == "openai":
        return engine_of(fake)
    plan, _ = plan_of(6)
    rows = [(r.id, r.temperature, k, f"{r.id} {r.temperature} {k}") for r in plan.itertuples() for k in range(r.n)]
    table = pd.DataFrame(rows, columns=["id", "temperature", "sample", "text"])
    table.to_parquet(tmp_path / "recording.parquet")
    return ReplayEngine(tmp_path / "recording.parquet")


def requests_for(engine, questions: int = 6) -> list[Request]:
    plan, prompts = plan_of(questions)
    return [Request(engine.encode(prompts[row.id]), row.n, row.temperature) for row in plan.itertuples()]


def test_completions_come_in_order_and_number(any_engine):
    requests = requests_for(any_engine)
    groups = any_engine.generate(requests, 5)
    assert [len(group) for group in groups] == [request.n for request in requests]
    for completion in (c for group in groups for c in group):
        assert completion.finish_reason in ("stop", "length")
        assert completion.text == completion.text.strip()
        assert completion.count == (len(completion.tokens) if completion.tokens else completion.count) > 0
    greedy = groups[::2]
    assert any_engine.generate(requests[::2][::-1], 6) == greedy[::-1]
    assert any_engine.generate([], 0) == []


def test_the_same_seed_gives_the_same(any_engine):
    requests = requests_for(any_engine)
    assert any_engine.generate(requests, 5) == any_engine.generate(requests, 5)


def test_every_engine_samples_to_disk_and_its_table_is_a_recording(any_engine, tmp_path):
    plan, prompts = plan_of(6)
    first = sample_to_disk(any_engine, plan, prompts, tmp_path / "first", 1, 4)
    first.to_parquet(tmp_path / "first.parquet")
    again = sample_to_disk(ReplayEngine(tmp_path / "first.parquet"), plan, prompts, tmp_path / "again", 2, 5)
    pd.testing.assert_frame_equal(again, first)
    any_engine.close()


@pytest.mark.parametrize("kind", ["transformers", "openai", "replay"])
def test_the_profile_picks_the_engine(kind, tmp_path, fake, monkeypatch):
    from conftest import MODELS, make_root, stage_in

    (tmp_path / "answers.jsonl").write_text('{"id": "a", "text": "b"}\n')
    model = {"transformers": str(MODELS / "small"), "openai": "gpt", "replay": "answers.jsonl"}[kind]
    monkeypatch.setenv("TEACHER_KEY", KEY)
    teacher = {"model": model, "engine": kind, "base_url": fake.url, "api_key_env": "TEACHER_KEY"}
    root = make_root(tmp_path, teachers={"strong": teacher, "weak": "models/weak"}, generation={"stop": ["Q:"]})
    stage = stage_in(root, "01_teacher_responses")
    engine = engines.open_engine(stage, stage.profile.model_of("strong"))
    kinds = {"transformers": TransformersEngine, "openai": server.ServerEngine, "replay": ReplayEngine}
    assert type(engine) is kinds[kind]
    if kind == "openai":
        assert engine.settings == server.Settings("gpt", stage.dataset_settings.max_tokens, 1.0, ("Q:",))
        ask(engine)
        assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    if kind == "transformers":
        assert engine.stop == ("Q:",)


# ---- what ends a response to a plain prompt, in every engine

RUN_ON = "So 2.\n#### 2\n\nQuestion: What is 9 + 9?\nAnswer: #### 18"
STOPPED = "So 2.\n#### 2"


def saying(small, monkeypatch, text: str, template: str | None = None) -> TransformersEngine:
    """A transformers engine whose model says the text, a character a token, and then goes on for ever."""
    model, tokenizer = small
    letters = dict(enumerate(text + "." * 500))

    class Letters:
        eos_token_id, pad_token_id, chat_template = tokenizer.eos_token_id, tokenizer.pad_token_id, template

        def get_vocab(self):
            return {chr(number): number for number in range(32, 127)} | {"\n": 10}

        def decode(self, ids, **_):
            return "".join(chr(i) if i > 9 else "" for i in ids)

        def batch_decode(self, rows, **_):
            return [self.decode(row.tolist()) for row in rows]

    engine = TransformersEngine(model, Letters(), 64, 400)
    said = iter(range(10**6))

    def pick(logits, *_):
        return torch.full((len(logits),), ord(letters[next(said)]))

    monkeypatch.setattr("rdlib.engines.transformers_engine.pick_tokens", pick)
    return engine


def test_a_plain_prompts_stop_strings_end_its_responses(small, monkeypatch):
    engine = saying(small, monkeypatch, RUN_ON)
    ((completion,),) = engine.generate([Request([20, 21], 1, 1.0, STOP)], 0)
    assert (completion.text, completion.finish_reason) == (STOPPED, "stop")
    assert completion.count == RUN_ON.index("Question:") + len("Question:")  # sampling ended there
    ((completion,),) = saying(small, monkeypatch, RUN_ON, "a chat").generate([Request([20, 21], 1, 1.0, STOP)], 0)
    assert completion.text.startswith(RUN_ON) and completion.finish_reason == "length"


@pytest.mark.parametrize("template", [None, "a chat"])
def test_vllm_is_asked_for_the_same_stop_strings(small, monkeypatch, template):
    """What vLLM would be asked, without vLLM: tests/with_vllm has the real one."""
    from rdlib.engines.vllm_engine import VllmEngine

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
    engine = VllmEngine.__new__(VllmEngine)
    engine.tokenizer = saying(small, monkeypatch, RUN_ON, template).tokenizer
    engine.stop, engine.top_p, engine.max_tokens, engine.end_tokens = ("END",), 1.0, 50, [1]
    request = Request([20, 21], 1, 1.0, STOP)
    asked = engine._sampling(request, 0, None)
    assert asked.stop == (["END"] if template else ["END", *STOP]) and asked.detokenize
    sample = SimpleNamespace(token_ids=[ord(c) for c in RUN_ON], finish_reason="stop")
    assert engine._completion(sample, request).text == (RUN_ON if template else STOPPED)


def test_each_request_has_stop_strings_of_its_own(small, monkeypatch):
    requests = [Request([20, 21], 2, 1.0, STOP), Request([20, 21], 1, 1.0), Request([20, 21], 1, 1.0, ("####",))]
    groups = saying(small, monkeypatch, RUN_ON).generate(requests, 0)
    texts = [completion.text for group in groups for completion in group]
    assert texts[:2] == [STOPPED] * 2 and texts[2].startswith(RUN_ON) and texts[3] == "So 2."


@pytest.mark.parametrize("stop", ["4 =", "= ", " 1", "\u00e9", "="])
def test_tokens_that_cannot_end_a_stop_string_need_no_decoding(small, stop):
    """The stop strings of the prompt against those of the engine, and against a search in the whole text."""
    prompt = small[1]("Q: tom has 7 apples . he buys 4 more . how many apples does he have ? A:")["input_ids"]
    free = TransformersEngine(*small, 64, 30).generate([Request(prompt, 40, 1.0)], 3)[0]
    cut = TransformersEngine(*small, 64, 30).generate([Request(prompt, 40, 1.0, (stop,))], 3)[0]
    assert TransformersEngine(*small, 64, 30, stop=(stop,)).generate([Request(prompt, 40, 1.0)], 3)[0] == cut
    for completion in cut:
        whole = small[1].decode(completion.tokens, skip_special_tokens=True)
        assert (stop in whole) == (completion.text != whole.strip())
        assert stop not in small[1].decode(completion.tokens[:-1], skip_special_tokens=True)
    assert (cut == free) == (not any(stop in completion.text for completion in free))


RUN_ON_CASES = {
    "run on": (RUN_ON, STOPPED, "stop"),
    "no run on": (STOPPED, STOPPED, "length"),
    "the question repeated at the beginning stays": (
        f"\nQuestion: 1 + 1?\n{STOPPED}",
        f"\nQuestion: 1 + 1?\n{STOPPED}",
        "length",
    ),
    "thinking stays": (
        f"<think>\nQuestion: 1 + 1?</think>{RUN_ON}",
        f"<think>\nQuestion: 1 + 1?</think>{STOPPED}",
        "stop",
    ),
    "thinking that was cut off stays": ("<think>What\nQuestion: 1", "<think>What\nQuestion: 1", "length"),
}


@pytest.mark.parametrize(("text", "expected", "reason"), RUN_ON_CASES.values(), ids=RUN_ON_CASES)
def test_recorded_and_served_responses_are_cut_there_too(tmp_path, fake, text, expected, reason):
    engine = recording(tmp_path / "r.jsonl", [{"id": "q1", "text": text, "finished": False}])
    fake.faults = [(200, {}, {"choices": [{"message": {"content": text}, "finish_reason": "length"}]})]
    for asked in (engine, engine_of(fake)):
        ((completion,),) = asked.generate([Request(prompt_of(1), 1, 1.0, STOP)], 0)
        assert (completion.text.strip(), completion.finish_reason) == (expected.strip(), reason)
    assert "stop" not in fake.calls[0]  # a server's model may think, and mention a question


def test_a_prompts_stop_strings_reach_the_request(tmp_path):
    engine = recording(tmp_path / "r.jsonl", [{"id": "q0", "text": RUN_ON}])
    plan, prompts = plan_of(1, n=1, temperatures=(1.0,))
    prompts = {key: replace(prompt, stop=STOP) for key, prompt in prompts.items()}
    assert sample_to_disk(engine, plan, prompts, tmp_path, 0, 8)["text"].tolist() == [STOPPED]


def test_thinking_is_opened_in_the_table_where_the_template_did(tmp_path):
    """Of a server or a recording nobody knows the template, but one response that closes thinking shows it."""
    texts = ["5</think>It is 6.", "It is 5. But", "It is 7."]
    records = [{"id": f"q{i}", "text": text, "finished": i != 1} for i, text in enumerate(texts)]
    engine = recording(tmp_path / "r.jsonl", records)
    frame = sample_to_disk(engine, *plan_of(3, n=1, temperatures=(1.0,)), tmp_path, 0, 2)
    assert frame["text"].tolist() == [THINK + texts[0], THINK + texts[1], texts[2]]
    assert [answers.extract(text, "math") for text in frame["text"]] == ["6", None, "7"]
    again = recording(tmp_path / "again.jsonl", frame.to_dict("records"))
    pd.testing.assert_frame_equal(
        sample_to_disk(again, *plan_of(3, n=1, temperatures=(1.0,)), tmp_path / "a", 0, 2), frame
    )


def test_an_engine_in_this_process_shows_what_its_template_opened(small, monkeypatch):
    engine = saying(small, monkeypatch, "7 is", "a chat")
    ((completion,),) = engine.generate([Request([ord(c) for c in "assistant<think>"], 1, 1.0)], 0)
    assert completion.text.startswith(f"{THINK}7 is")
    assert answers.find(completion.text, "math").rule == "unfinished"


def test_answers_are_letters_of_the_questions_own_options(tmp_path):
    from rdlib.engines.sampling import sampled

    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"id": f"q{i}", "text": "So (D)."}) + "\n" for i in range(2)))
    settings = SimpleNamespace(generation=SimpleNamespace(shard_size=8))
    stage = SimpleNamespace(root=tmp_path, profile=settings, dataset_settings=SimpleNamespace(answer="choice"))
    plan, prompts = plan_of(2, n=1, temperatures=(1.0,))
    prompts = {
        key: replace(prompt, options=number) for (key, prompt), number in zip(prompts.items(), (3, 4), strict=True)
    }
    with sampled(stage, Model(model="r.jsonl", engine="replay"), plan, prompts, tmp_path / "w", 0) as responses:
        assert [None if pd.isna(answer) else answer for answer in responses["answer"]] == [None, "D"]


# ---- the server engine: what is sent


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


def test_seeds_depend_on_the_requests_place_alone(fake):
    engine = engine_of(fake)
    requests = {i: Request(prompt_of(1), 1, 1.0) for i in range(5)}
    whole = dict(engine.stream(requests, 7))
    assert dict(engine.stream({3: requests[3]}, 7)) == {3: whole[3]}
    assert len({group[0].text for group in whole.values()}) == 5
    assert dict(engine.stream(requests, 8)) != whole


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
    assert (completion.text, completion.count) == ("4", 1)


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
    assert server.shares(10, [1, 1]) == [5, 5]
    assert sum(server.shares(17, [3, 1, 9])) == 17
    assert server.shares(0, [1]) == [0]


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


def listing(*names) -> tuple[int, dict, dict]:
    """A list of models as servers give it."""
    return 200, {}, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


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
        ((401, {}, {}), r"refuses access to teacher-70b \(401\): set the environment variable OPENAI_API_KEY"),
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
        (400, f"the prompt\n is \x1b[31mtoo long {KEY}", r"question 'q1' .400: the prompt is \[31mtoo long \[key\]"),
        (422, "no", "422: no"),
        (429, "insufficient_quota", "quota is used up"),
        (422, [[[]]], r"422: \[\[\[\]\]\]"),
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

    response = SimpleNamespace(headers={"Retry-After": formatdate(time.time() + 100, usegmt=True)})
    assert 90 < server._retry_after(response) <= 100
    for value in ("", "soon", "nan"):
        assert not server._retry_after(SimpleNamespace(headers={"Retry-After": value}))


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
    with pytest.raises(UserError, match="418: x"):
        ask(engine_of(fake))


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


def test_a_run_goes_on_after_the_server_died_without_asking_twice(fake, tmp_path):
    plan, prompts = plan_of(10)
    whole = sample_to_disk(engine_of(fake), plan, prompts, tmp_path / "whole", 1, 9)
    asked = len(fake.calls)
    fake.calls.clear()

    def good_until(count):
        return [None] * count + [(500, {}, b"down")] * 1000

    fake.faults = good_until(11)
    with pytest.raises(UserError, match="failed 2 times in a row.* is kept"):
        sample_to_disk(engine_of(fake, attempts=2, concurrency=2), plan, prompts, tmp_path / "cut", 1, 9)
    assert any((tmp_path / "cut" / "shards").glob("*.jsonl"))
    fake.calls.clear()
    fake.faults.clear()
    frame = sample_to_disk(engine_of(fake), plan, prompts, tmp_path / "cut", 1, 9)
    pd.testing.assert_frame_equal(frame, whole)
    assert len(fake.calls) == asked - 11
    assert not any((tmp_path / "cut" / "shards").glob("*.jsonl"))


def test_what_is_under_way_when_a_request_is_refused_is_kept(fake, tmp_path):
    fake.delay = 0.1
    fake.faults = [None, None, (401, {}, b""), None]
    plan, prompts = plan_of(20, temperatures=(1.0,))
    with pytest.raises(UserError, match="refuses access"):
        sample_to_disk(engine_of(fake, concurrency=4), plan, prompts, tmp_path, 1, 100)
    (journal,) = (tmp_path / "shards").glob("*.jsonl")
    assert len(journal.read_text().split()) > 0
    kept = generation._read_journal(journal, [Request(prompt_of(0), 2, 1.0)] * 20)
    assert len(kept) == len(fake.calls) - 1


def test_a_torn_journal_line_is_asked_again(fake, tmp_path):
    plan, prompts = plan_of(6)
    whole = sample_to_disk(engine_of(fake), plan, prompts, tmp_path / "whole", 1, 100)
    work = tmp_path / "torn"
    fake.faults = [None] * 8 + [(401, {}, b"")] * 50
    with pytest.raises(UserError):
        sample_to_disk(engine_of(fake, concurrency=1), plan, prompts, work, 1, 100)
    (journal,) = (work / "shards").glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])
    fake.faults.clear()
    fake.calls.clear()
    pd.testing.assert_frame_equal(sample_to_disk(engine_of(fake), plan, prompts, work, 1, 100), whole)
    assert len(fake.calls) == 12 - 7


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


# ---- replay


def recording(path, records) -> ReplayEngine:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return ReplayEngine(path)


def replay(engine, number: int, n: int = 1, temperature: float = 1.0) -> list[Completion]:
    return engine.generate([Request(prompt_of(number), n, temperature)], 0)[0]


def test_records_are_found_by_id_or_by_question(tmp_path):
    by_question = {"question": "What is 2 + 1?", "text": "3"}
    engine = recording(tmp_path / "r.jsonl", [{"id": "q1", "text": "two"}, by_question])
    assert replay(engine, 1) == [Completion("two", None, 1, "stop")]
    assert replay(engine, 2)[0].text == "3"


def test_records_come_by_temperature_and_in_the_order_of_samples(tmp_path):
    records = [
        {"id": "q1", "temperature": t, "sample": s, "text": f"{t}/{s}", "tokens": 9, "finish_reason": reason}
        for t in (0.7, 1)
        for s, reason in ((1, "length"), (0, "stop"))
    ]
    engine = recording(tmp_path / "r.jsonl", records)
    assert replay(engine, 1, 2, 0.7) == [Completion("0.7/0", None, 9, "stop"), Completion("0.7/1", None, 9, "length")]
    assert replay(engine, 1, 1, 1.0)[0].text == "1/0"


@pytest.mark.parametrize(("number", "temperature", "has"), [(1, 1.0, 2), (1, 0.5, 0), (2, 1.0, 0)])
def test_asking_for_more_than_was_recorded(tmp_path, number, temperature, has):
    engine = recording(tmp_path / "r.jsonl", [{"id": "q1", "temperature": 1.0, "text": "a"}] * 2)
    with pytest.raises(UserError, match=rf"has {has} of the 3 responses that are asked for to question 'q{number}'"):
        replay(engine, number, 3, temperature)


def test_a_recording_without_temperatures_serves_one(tmp_path):
    engine = recording(tmp_path / "r.jsonl", [{"id": "q1", "text": "a"}, {"id": "q1", "text": "b"}])
    assert [c.text for c in replay(engine, 1, 2, 0.7)] == ["a", "b"]
    with pytest.raises(UserError, match=r"tells no temperatures, but responses at 0\.7 and at 1 are asked for"):
        replay(engine, 1, 1, 1.0)


def test_hostile_responses_are_served_as_they_are(tmp_path):
    hostile = ["x" * 1_000_000, "\0\x1b[2J\r\n\t\u2028", "\ud800", "#### " * 1000, "", "{}", "'; DROP TABLE"]
    records = [{"id": f"q{i}", "text": text} for i, text in enumerate(hostile)]
    engine = recording(tmp_path / "r.jsonl", records)
    plan = pd.DataFrame({"id": [f"q{i}" for i in range(len(hostile))], "temperature": 1.0, "n": 1})
    prompts = {f"q{i}": prompt_of(i) for i in range(len(hostile))}
    frame = sample_to_disk(engine, plan, prompts, tmp_path, 0, 3)
    assert frame["text"].tolist() == [text.replace("\ud800", "\ufffd") for text in hostile]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("{}\n", "Line 1 of the recording .* does not say which question"),
        ('{"id": "q1", "text": "a"}\n{"id": "q1"}\n', "Line 2 of the recording .* has no text"),
        ('{"id": "q1", "text": 5}\n', "has no text"),
        ('{"id": "q1", "text": "a", "temperature": "hot"}\n', "temperature 'hot'"),
        ('{"id": "q1", "text"\n', "Line 1 of .* is not JSON"),
        ("5\n", "Line 1 of .* holds int where an object belongs"),
        ('{"id": "q1", "text": "\udcff"}\n', "Line 1 of .* is not UTF-8"),
        ('{"id": "q1", "text": "a", "text": "b"}\n', "Line 1 of .* has the field 'text' twice"),
        ('{"id": ["q1"], "text": "a"}\n', "the id \"\\['q1'\\]\": give text or a number"),
        ('{"id": "q1", "text": "a", "sample": "2"}\n', "the sample '2': give a number"),
        ('{"id": "q1", "text": "a", "tokens": -5}\n', "the tokens '-5': give a number from 0 up"),
        ('{"id": "q1", "text": "a", "tokens": 1e30}\n', "the tokens '1E\\+30'"),
        ('{"id": "q1", "text": "a", "temperature": true}\n', "the temperature 'True'"),
        ('{"id": "q1", "text": "a", "finished": "false"}\n', "strange finished or finish_reason"),
        ('{"id": "q1", "text": "a"}\n{"id": "q1", "text": "b", "temperature": 1}\n', "with a temperature and without"),
    ],
)
def test_a_bad_recording(tmp_path, content, message):
    path = tmp_path / "r.jsonl"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        ReplayEngine(path)


def test_recordings_that_are_not_there_or_of_another_kind(tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n")
    (tmp_path / "r.parquet").write_text("PAR1")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("none.jsonl", "There is no recording"),
        ("r.csv", "neither Parquet nor JSONL"),
        ("r.parquet", "not a readable Parquet"),
        ("folder", "is empty"),
    ):
        with pytest.raises(UserError, match=message):
            ReplayEngine(tmp_path / name)


def test_numbers_that_are_none_are_not_believed(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": 1, "text": "abcde", "tokens": Infinity, "sample": NaN}\n')
    engine = ReplayEngine(tmp_path / "r.jsonl")
    (completion,) = engine.generate([Request(Prompt((), "", "1"), 1, 0.0)], 0)[0]
    assert completion.count == 2


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_field_without_a_value_is_not_there(tmp_path, suffix):
    """Else a missing `finished` would make a response of JSONL unfinished, and one of Parquet not."""
    records = [
        {"id": "q1", "text": "a", "finished": None, "finish_reason": None},
        {"id": "q1", "text": "b", "finished": True},
    ]
    path = tmp_path / f"r.{suffix}"
    if suffix == "parquet":
        pd.DataFrame(records).assign(question=[["a", "list"], None]).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert [c.finished for c in replay(ReplayEngine(path), 1, 2)] == [True, True]


def test_a_folder_of_recordings(tmp_path):
    for name, text in (("b", "second"), ("a", "first")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "q1", "text": text}) + "\n")
    assert [c.text for c in replay(ReplayEngine(tmp_path), 1, 2)] == ["first", "second"]


def test_a_teachers_responses_replayed_give_the_same_stage(study, tmp_path):
    from conftest import make_root, stage_in

    made = stage_in(study, "01_teacher_responses")
    root = make_root(tmp_path / "root")
    teacher = {"model": "recording.parquet", "engine": "replay"}
    make_root(root, teachers={"strong": teacher, "weak": "models/weak"})
    (root / "recording.parquet").write_bytes((made.folder / "responses.parquet").read_bytes())
    stage = stage_in(root, "01_teacher_responses")
    stage.run_with_inputs()
    pd.testing.assert_frame_equal(stage.table("responses"), made.table("responses"))
    assert stage.key != made.key


# ---- top_p and stop strings of the transformers engine


def test_the_nucleus_is_the_fewest_tokens_that_hold_the_share():
    chances = torch.tensor([[0.1, 0.5, 0.25, 0.15], [0.97, 0.01, 0.01, 0.01]])
    assert nucleus(chances, 0.6).tolist() == [[0, 0.5, 0.25, 0], [pytest.approx(0.97), 0, 0, 0]]
    assert torch.equal(nucleus(chances, 1.0), chances)


def test_top_p_samples_from_the_nucleus_in_the_models_proportions():
    logits = torch.tensor([[0.1, 0.5, 0.25, 0.15]]).log().expand(20_000, 4)
    picked = pick_tokens(logits, torch.ones(20_000), torch.Generator().manual_seed(0), top_p=0.7)
    shares = torch.bincount(picked, minlength=4) / 20_000
    assert shares[0] == shares[3] == 0
    assert shares[1].item() == pytest.approx(2 / 3, abs=0.01)


def test_a_top_p_of_one_and_no_stop_change_nothing(small):
    prompt = small[1]("Q: in history , what is the metal of dorek ? A:")["input_ids"]
    requests = [Request(prompt, 20, 1.0)]
    plain = TransformersEngine(*small, 64, 30).generate(requests, 3)
    assert TransformersEngine(*small, 64, 30, 1.0, ()).generate(requests, 3) == plain
    assert TransformersEngine(*small, 64, 30, 0.5, ()).generate(requests, 3) != plain


def test_a_stop_string_ends_the_response_before_it(small):
    tokenizer = small[1]
    prompt = tokenizer("Q: in history , what is the metal of dorek ? A:")["input_ids"]
    (free,) = TransformersEngine(*small, 64, 30).generate([Request(prompt, 1, 0.0)], 0)[0]
    words = free.text.split()
    stop = " ".join(words[2:4])
    (cut,) = TransformersEngine(*small, 64, 30, stop=("zzz", stop)).generate([Request(prompt, 1, 0.0)], 0)[0]
    assert cut.text == free.text[: free.text.index(stop)].strip()
    assert cut.finish_reason == "stop"
    assert cut.tokens == free.tokens[: cut.count]
    assert cut.count < free.count
    hot = TransformersEngine(*small, 64, 30, stop=(words[2],)).generate([Request(prompt, 50, 1.0)], 0)[0]
    assert all(words[2] not in completion.text for completion in hot)


def test_cut_at_the_first_stop_string():
    assert generation.cut_at("a b c d", ["d", "c"]) == "a b "
    assert generation.cut_at("a", []) == "a"
