"""A stand-in for servers with OpenAI's chat completions: it answers, fails, and counts as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd

from rdlib.engines import server
from rdlib.engines.generation import Completion, Request
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt

KEY = "sk-secret-0123456789"


def prompt_of(number: int) -> Prompt:
    """The prompt of question q<number>."""
    text = f"What is {number} + 1?"
    return Prompt((("user", text),), text, f"q{number}", text)


def plan_of(questions: int, n: int = 2, temperatures=(0.0, 1.0)) -> tuple[pd.DataFrame, dict[str, Prompt]]:
    """A sampling plan and its prompts: one greedy sample, and n hot ones, of each question."""
    rows = [(f"q{i}", t, n if t else 1) for i in range(questions) for t in temperatures]
    return pd.DataFrame(rows, columns=["id", "temperature", "n"]), {f"q{i}": prompt_of(i) for i in range(questions)}


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
    if body.get("temperature", 1) == 0:
        texts = [f"{question} -> greedy"] * len(texts)
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return {"choices": choices, "usage": {"completion_tokens": 10 * len(texts)}}


class Listening(ThreadingHTTPServer):
    """An HTTP server that many may call at once: `handle(handler, method)` answers each call."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self, handle):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                handle(self, "POST")

            def do_GET(self):
                handle(self, "GET")

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class FakeServer:
    """Answers chat completions; `faults` are given out first, one a call: (status, headers, body) or a function.

    `answer(body)` is a body to send, or (status, headers, body). `models` is (status, headers, body) of its list of
    models, or a function of the address that gives it.
    """

    def __init__(self):
        self.models = (404, {}, {})
        self.faults, self.calls, self.headers, self.answer = [], [], [], answer
        self.paths, self.lists = [], []
        self.delay, self.now, self.most, self.lock = 0.0, 0, 0, threading.Lock()
        self.http = Listening(self.take)
        self.url = self.http.url

    def take(self, handler, method: str) -> None:
        """Give the list of models, or handle a call."""
        if method == "POST":
            return self.handle(handler)
        self.lists.append(handler.path)
        return send(handler, *(self.models(handler.path) if callable(self.models) else self.models))

    def handle(self, handler) -> None:
        """Count the call, then fail or answer."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.calls.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self.now += 1
            self.most = max(self.most, self.now)
            fault = self.faults.pop(0) if self.faults else None
        time.sleep(self.delay)
        with self.lock:
            self.now -= 1
        if callable(fault):
            return fault(handler)
        told = fault or self.answer(body)
        status, headers, said = told if isinstance(told, tuple) else (200, {}, told)
        if callable(status):
            status, headers, said = status(body)
        send(handler, status, headers, said)

    def close(self) -> None:
        self.http.close()


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


def engine_of(fake, clock=None, key=KEY, top_p=1.0, stop=(), **fields) -> server.ServerEngine:
    """An engine on the fake server whose waits take no time."""
    model = Model(model="teacher-70b", engine="openai", base_url=fake.url, **fields)
    return server.ServerEngine(model, server.Settings("teacher-70b", 50, top_p, stop), key, clock or FakeClock())


def ask(engine, n: int = 1, temperature: float = 1.0) -> list[Completion]:
    return engine.generate([Request(prompt_of(1), n, temperature)], seed=0)[0]


def listing(*names) -> tuple[int, dict, dict]:
    """A list of models as servers give it."""
    return 200, {}, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
