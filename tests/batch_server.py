"""A stand-in for a provider's batch service, and for chat completions beside it; it works as long as a test lets it."""

from __future__ import annotations

import email
import json
from urllib.parse import parse_qs, urlsplit

from fake_server import Listening, send


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


class BatchServer:
    """`files` by identifier, `batches` as they are told; `faults` are given out first: (path, status, body or None).

    A body of None is a connection that breaks after the work was done, as a kill at that moment leaves it.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict] = {}
        self.chats: list[dict] = []
        self.calls: list[str] = []
        self.keys: list[str] = []
        self.faults: list[tuple[str, int, dict | None]] = []
        self.http = Listening(self.handle)
        self.url = self.http.url

    def handle(self, handler, method: str) -> None:
        """Count the call, then fail or answer."""
        path, query = urlsplit(handler.path).path.removeprefix("/v1"), parse_qs(urlsplit(handler.path).query)
        content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.calls.append(f"{method} {path}")
        self.keys.append(handler.headers.get("Authorization", ""))
        fault = next((one for one in self.faults if one[0] == f"{method} {path}"), None)
        if fault:
            self.faults.remove(fault)
            if fault[2] is not None:
                return send(handler, fault[1], {}, fault[2])
        found = self.answer(method, path, query, content, handler.headers)
        if fault:
            handler.close_connection = True
            handler.connection.close()
            return None
        return send(handler, found[0], {}, found[1])

    def answer(self, method: str, path: str, query: dict, content: bytes, headers):
        """The status and the body of one call."""
        if path == "/models":
            return 200, {"data": [{"id": "teacher-70b"}]}
        if path == "/chat/completions":
            self.chats.append(json.loads(content))
            return 200, chat(self.chats[-1])
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

    def close(self) -> None:
        self.http.close()


def form(content: bytes, headers) -> dict[str, bytes]:
    """The fields of a form with files."""
    message = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + content)
    parts = message.get_payload()
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
