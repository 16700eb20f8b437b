"""A batch service with OpenAI's addresses at a teacher's `base_url`: files go up, batches are made, results come down.

    with closing(BatchService(model)) as service:
        file_id = service.upload(path)
        batch_id = service.create(file_id, "/v1/chat/completions")
        state = service.state(batch_id)          # {"status": "in_progress", ...}

Key, headers, proxies and certificates are those of the client that asks one by one (server_address).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from rdlib.engines import server_address, server_said
from rdlib.engines.server_failures import Outcome, Place, judge
from rdlib.engines.server_said import Said, parsed
from rdlib.errors import UserError
from rdlib.settings import Model

ENDED = {"completed", "failed", "expired", "cancelled", "canceled"}
WITHOUT = (404, 405, 501)  # of a server that has no such address
GO_ON = "what was sent is noted, and the same command continues from there."


class Away(Exception):  # noqa: N818 (it is no error: the service is asked again later)
    """The service did not answer this time; the message says why."""


class BatchService:
    """See the module. UserError in one sentence where the service refuses, `Away` where it may answer later."""

    def __init__(self, model: Model):
        self.model = model
        key = server_address.checked_key(server_address.key_of(model), model.api_key_env)
        self.base = server_address.checked_url(model.base_url)
        self.address = server_address.shown(self.base)
        headers, self.secrets = server_address.headers_of(model, key)
        self.client = server_address.client_of(model, self.base, headers)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def upload(self, path: Path) -> str:
        """Send a request file; its identifier there."""
        with path.open("rb") as file:
            files = {"file": (path.name, file, "application/jsonl")}
            return self._made("POST", "/files", f"takes no file {path.name}", data={"purpose": "batch"}, files=files)

    def create(self, file_id: str, endpoint: str) -> str:
        """Have a sent file worked through within a day; the batch's identifier."""
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        return self._made("POST", "/batches", "makes no batch", json=body)

    def batch_of(self, file_id: str, file: str, notes: Path) -> str | None:
        """The batch that was made of a sent `file`; None where none was. `notes` is where its user can say so."""
        what = (
            f"lists no batches, so it is unknown whether {file} was sent: look it up at the provider, and in {notes} "
            f"give its batch_id or take its entry out"
        )
        after: dict[str, str] = {}
        while True:
            page = self._json("GET", "/batches", what, params={"limit": "100"} | after)
            rows = [row for row in page.get("data") or [] if isinstance(row, dict) and isinstance(row.get("id"), str)]
            for row in rows:
                if row.get("input_file_id") == file_id:
                    return row["id"]
            if not rows or not page.get("has_more") or after.get("after") == rows[-1]["id"]:
                return None
            after = {"after": rows[-1]["id"]}

    def state(self, batch_id: str) -> dict[str, Any]:
        """What the service says of a batch."""
        return self._json("GET", f"/batches/{batch_id}", f"knows no batch {batch_id}")

    def content(self, file_id: str) -> bytes:
        """A file of results."""
        response = self._call("GET", f"/files/{file_id}/content", f"gives no file {file_id}", follow_redirects=True)
        return response.content

    # ---- one call

    def _made(self, method: str, path: str, what: str, **words: Any) -> str:
        made = self._json(method, path, what, **words).get("id")
        if not isinstance(made, str) or not made:
            raise UserError(f"The server {self.address}{path} answered without an id: {self._instead()}")
        return made

    def _json(self, method: str, path: str, what: str, **words: Any) -> dict[str, Any]:
        found = parsed(self._call(method, path, what, **words).content)
        if not isinstance(found, dict):
            raise UserError(f"The server {self.address}{path} answered with no JSON object: {self._instead()}")
        return found

    def _call(self, method: str, path: str, what: str, **words: Any) -> httpx.Response:
        try:
            response = self.client.request(method, server_address.under(self.base, path), **words)
        except httpx.TimeoutException:
            raise Away(f"it did not answer within {self.model.timeout:g} s") from None
        except httpx.HTTPError as error:
            if sentence := server_address.insecure(error, self.address):
                raise UserError(sentence) from None
            raise Away(server_address.unreachable(error)) from None
        if response.is_success:
            return response
        said = server_said.read(response.status_code, response.headers, response.content, self.secrets)
        raise self._refusal(said, method, path, what)

    def _refusal(self, said: Said, method: str, path: str, what: str) -> Exception:
        """What is raised where the service refuses a call."""
        outcome: Outcome = judge(said, {})
        if outcome.kind in ("limited", "passing"):
            return Away(said.quoted)
        if said.status in WITHOUT and method == "POST":
            return UserError(f"The server {self.address} has no batches ({said.quoted}): {self._instead()}")
        if outcome.kind == "hopeless" and outcome.why in ("access", "credit", "quota", "forbidden", "redirect"):
            target = server_address.location(self.base, (said.headers or {}).get("location", ""))
            mend = f"set the environment variable {self.model.api_key_env} to a key that may use it"
            place = Place(self.address + path, self.model.model, mend, target)
            return UserError(place.hopeless(outcome.why, said))
        return UserError(f"The server {self.address} {what} ({said.quoted}); {GO_ON}")

    def _instead(self) -> str:
        return "give `write` and `read`, with the provider's own way to run a batch, or ask directly by `make study`."


def words_of(state: Mapping[str, Any]) -> str:
    """What a service says of a batch, in a few words."""
    counts = state.get("request_counts") if isinstance(state.get("request_counts"), dict) else {}
    done, failed, total = (counts.get(name) for name in ("completed", "failed", "total"))
    said = str(state.get("status"))
    if type(total) is int and total and type(done) is int:
        said += f", {done} of {total} answered"
        said += f", {failed} failed" if failed else ""
    errors = state.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    rows = [row for row in rows or [] if isinstance(row, dict)] if isinstance(rows, list) else []
    return said + "".join(f"; it says: {server_said.shortened(str(row.get('message')))}" for row in rows[:1])
