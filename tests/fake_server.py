"""A stand-in for servers with OpenAI's chat completions: it answers, fails, and counts as a test tells it to."""

from __future__ import annotations

import email
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

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
    """An HTTP server that many may call at once: `handle(handler, method)` answers each call; port 0: any."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self, handle, port: int = 0):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                handle(self, "POST")

            def do_GET(self):
                handle(self, "GET")

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", port), Handler)
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


# ---- a batch service


def chat(body: dict) -> dict:
    """What a chat completion of a request says: its number is all that there is in a response."""
    texts = [f"It is so. #### {body.get('seed', 0) % 7 + k % 2}" for k in range(body.get("n", 1))]
    choices = [{"index": k, "message": {"content": text}, "finish_reason": "stop"} for k, text in enumerate(texts)]
    return {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 6 * len(texts)}}


def results(content: bytes, said=chat) -> bytes:
    """OpenAI's file of answers to a request file."""
    lines = [json.loads(line) for line in content.splitlines()]
    whole = [
        {
            "id": f"batch_req_{place}",
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "request_id": "r", "body": said(line["body"])},
            "error": None,
        }
        for place, line in enumerate(lines)
    ]
    return b"".join(json.dumps(one).encode() + b"\n" for one in whole)


class BatchServer(FakeServer):
    """A provider's batch service beside its chat completions; it works as long as a test lets it.

    `files` by identifier, `batches` as they are, `asked` is what was called. `broken` is given out first: (call,
    status, body or None). A body of None is a connection that breaks after the work was done, as a kill leaves it.
    """

    def __init__(self):
        super().__init__()
        self.answer, self.models = chat, listing("teacher-70b")
        self.files, self.batches, self.asked, self.keys, self.broken = {}, {}, [], [], []

    def take(self, handler, method: str) -> None:
        """Count the call, then fail or answer."""
        path, query = urlsplit(handler.path).path.removeprefix("/v1"), parse_qs(urlsplit(handler.path).query)
        self.asked.append(f"{method} {path}")
        self.keys.append(handler.headers.get("Authorization", ""))
        if path in ("/models", "/chat/completions"):
            return super().take(handler, method)
        content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = next((one for one in self.broken if one[0] == f"{method} {path}"), None)
        if fault:
            self.broken.remove(fault)
            if fault[2] is not None:
                return send(handler, fault[1], {}, fault[2])
        found = self.served(method, path, query, content, handler.headers)
        if fault:
            handler.close_connection = True
            return handler.connection.close()
        return send(handler, found[0], {}, found[1])

    def served(self, method: str, path: str, query: dict, content: bytes, headers):
        """The status and the body of one call."""
        if path == "/files":
            fields = form(content, headers)
            assert fields["purpose"] == b"batch"
            self.files[name := f"file-{len(self.files)}"] = fields["file"]
            return 200, {"id": name, "object": "file"}
        if path.startswith("/files/"):
            name = path.split("/")[2]
            return (200, self.files[name]) if name in self.files else (404, {"error": {"message": "no such file"}})
        if method == "POST":
            asked = json.loads(content)
            name = f"batch_{len(self.batches)}"
            lines = len(self.files[asked["input_file_id"]].splitlines())
            counts = {"total": lines, "completed": 0, "failed": 0}
            self.batches[name] = asked | {"id": name, "status": "in_progress", "request_counts": counts}
            return 200, self.batches[name]
        if path == "/batches":
            names = sorted(self.batches, reverse=True)
            names = names[names.index(query["after"][0]) + 1 :] if "after" in query else names
            return 200, {"data": [self.batches[name] for name in names[:1]], "has_more": len(names) > 1}
        return 200, self.batches[path.split("/")[2]]

    def finish(self, name: str, content: bytes, errors: bytes = b"", status: str = "completed") -> None:
        """Let a batch end with these files of results."""
        self.files[f"out-{name}"], self.files[f"err-{name}"] = content, errors
        batch = self.batches[name]
        batch |= {"status": status, "output_file_id": f"out-{name}", "error_file_id": f"err-{name}" if errors else None}
        batch["request_counts"] = {"total": 3, "completed": 3, "failed": 0}


def form(content: bytes, headers) -> dict[str, bytes]:
    """The fields of a form with files."""
    message = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + content)
    parts = message.get_payload()
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
