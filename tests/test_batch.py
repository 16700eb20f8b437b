"""Batches: what is missing is written out, results of any provider are read back, and nothing is paid for twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, make_root, stage_in
from fake_server import KEY, BatchServer, chat, results
from test_real_data import write

from rdlib.__main__ import main
from rdlib.engines import batch_files
from rdlib.engines.batch_files import Ticket
from rdlib.engines.store import Store
from rdlib.errors import UserError
from rdlib.study import batch, outlook, requirements
from rdlib.study.outlook import Folder

QUESTIONS = [f"What is {number} + 1?" for number in range(10)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch, "EVERY", 0.01)
    fake = BatchServer()
    yield fake
    fake.close()


@pytest.fixture
def root(tmp_path, server, at_root, monkeypatch):
    """A study of ten questions: six to train on, two for validation, two held out; nothing was asked."""
    root = make_root(tmp_path / "root", grid={"ablation_cells": [{"dataset": "mine", "teacher": "t", "student": "s"}]})
    settings = {"source": "questions", "answer": "math", "path": "q.jsonl", "max_tokens": 60}
    teacher = {"model": "teacher-70b", "engine": "openai", "base_url": server.url, "concurrency": 2}
    teacher |= {"attempts": 2, "first_look": 0}
    content = yaml.safe_load((root / PARAMS).read_text())
    content["teacher_sampling"] = {"high_temperatures": [0.0, 0.3], "low_temperatures": [1.0]}
    content["teacher_sampling"] |= {"samples_per_temperature": 3}
    content |= {"datasets": {"mine": settings | {"train": None, "validation": 2, "test": 2}}}
    content |= {"teachers": {"t": teacher}, "students": {"s": "models/small"}}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    write(root / "q.jsonl", [{"question": question} for question in QUESTIONS])
    at_root(root)
    monkeypatch.setattr(batch, "ROOT", root)
    return root


def change(root: Path, **fields) -> None:
    """Change settings of the teacher."""
    content = yaml.safe_load((root / PARAMS).read_text())
    content["teachers"]["t"] |= fields
    (root / PARAMS).write_text(yaml.safe_dump(content))


def run(what: str, *words: object) -> int:
    return main(["batch", what, "--profile", PARAMS, *map(str, words)])


def said(what: str, capsys, *words: object) -> str:
    """The one sentence in which a command ends."""
    assert run(what, *words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1, told
    return told


def folder_of(root: Path) -> Folder:
    return Folder(root / "responses/tiny.batches")


def written(root: Path) -> list[Path]:
    return sorted(path for path in folder_of(root).path.glob("t-*.jsonl") if ".asked." not in path.name)


def lines_of(root: Path) -> list[dict]:
    return [json.loads(line) for path in written(root) for line in path.read_bytes().splitlines()]


def kept(root: Path) -> list[tuple]:
    with Store.open(root / "responses/tiny.sqlite") as store:
        return store.connection.execute("SELECT kind, sample, text, words FROM responses ORDER BY rowid").fetchall()


def answers(root: Path, only: slice = slice(None), said=chat) -> Path:
    """The file of results of some of the requests that are missing, which are written first."""
    run("write")
    (path,) = written(root)
    (out := root / "out.jsonl").write_bytes(results(b"".join(path.read_bytes().splitlines(keepends=True)[only]), said))
    return out


def refusals(root: Path, count: int, error: dict | None, response: dict | None = None) -> Path:
    """A file in which the first requests that were written got no answer."""
    rows = [{"custom_id": line["custom_id"], "response": response, "error": error} for line in lines_of(root)[:count]]
    (path := root / "errors.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def written_next(root: Path) -> list[list[dict]]:
    """The lines of each request file that is new when what is missing is written again."""
    before = set(written(root))
    run("write")
    return [[json.loads(line) for line in path.read_bytes().splitlines()] for path in set(written(root)) - before]


def teacher_stage(root: Path):
    return stage_in(root, "01_teacher_responses", dataset="mine", teacher="t", student=None)


def study(root: Path) -> None:
    """The stages that ask the teacher."""
    base = stage_in(root, "01_teacher_responses", dataset="mine", teacher="t")
    base.run_with_inputs()
    stage_in(root, "01_held_out", dataset="mine", teacher="t").run_with_inputs()
    stage_in(root, "07_evaluate", "teacher", dataset="mine", teacher="t", student=None).run_with_inputs()


# ---- the files


def test_a_ticket_is_read_as_it_was_written():
    ticket = Ticket(bytes(range(16)), "4294967295", 12, 5, 38400)
    assert Ticket.read(ticket.custom_id) == ticket and len(ticket.custom_id) <= 64
    assert Ticket.read("request-1") is Ticket.read(None) is Ticket.read("rd-12--0-1-5") is None


def test_files_are_no_longer_than_a_service_takes(monkeypatch):
    ticket = Ticket(bytes(16), "", 0, 1, 5)
    monkeypatch.setattr(batch_files, "MOST_LINES", 3)
    assert [len(part) for part in batch_files.packed([(ticket, b"x" * 10)] * 8)] == [3, 3, 2]
    monkeypatch.setattr(batch_files, "MOST_BYTES", 25)
    assert [len(part) for part in batch_files.packed([(ticket, b"x" * 10)] * 5)] == [2, 2, 1]


@pytest.mark.parametrize("form, fields", [
    ("openai", {"method": "POST", "url": "/v1/chat/completions"}),
    ("azure", {"method": "POST", "url": "/chat/completions"}),
    ("bare", {}),
])  # fmt: skip
def test_request_lines_are_as_each_provider_wants_them(form, fields):
    line = batch_files.request_line(Ticket(bytes(16), "0", 0, 1, 5), {"model": "m", "x": "é\u2028\ud800"}, form)
    assert line.isascii() and line.count(b"\n") == 1
    found = json.loads(line)
    assert found.pop("custom_id").startswith("rd-") and found.pop("body") == {"model": "m", "x": "é\u2028�"}
    assert found == fields


ANSWER = chat({"n": 2})
REFUSAL = {"error": {"message": "flagged by the content management policy", "code": "content_filter"}}


@pytest.mark.parametrize("line, status, has", [
    ({"response": {"status_code": 200, "body": ANSWER}, "error": None}, 200, "choices"),  # OpenAI, Azure, Mistral
    ({"response": {"status_code": 200, "body": json.dumps(ANSWER)}}, 200, "choices"),
    ({"response": ANSWER, "error": None}, 200, "choices"),
    ({"body": ANSWER}, 200, "choices"),
    ({"response": {"status_code": 400, "body": REFUSAL}, "error": None}, 400, "error"),
    ({"response": None, "error": REFUSAL["error"]}, 200, "error"),
    ({"response": {"status_code": 400, "body": None}, "error": REFUSAL}, 400, "error"),  # vLLM's run-batch
    ({"response": {"status_code": 500, "body": None}, "error": "boom"}, 500, "error"),
])  # fmt: skip
def test_result_lines_of_providers_are_read(tmp_path, line, status, has):
    ticket = Ticket(bytes(16), "0", 0, 2, 60)
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"custom_id": ticket.custom_id} | line).encode() + b"\r\n\r\n")
    (found,) = batch_files.results(path)
    assert (found.ticket, found.status) == (ticket, status) and has in json.loads(found.content)


# ---- what is missing


def test_what_is_missing_is_written_once(root, server, capsys):
    assert run("write") == 0
    lines, (path,) = lines_of(root), written(root)
    assert len({line["custom_id"] for line in lines}) == len(lines) == 8 * 3 + 2 * 2
    tickets = [Ticket.read(line["custom_id"]) for line in lines]
    assert sum(ticket.count for ticket in tickets) == 8 * 7 + 2 * 4
    greedy = [line["body"] for line in lines if line["body"]["temperature"] == 0]
    assert len(greedy) == 10 and all("n" not in body for body in greedy)  # of the held out the evaluation's too
    assert f"{len(lines)} requests for {8 * 7 + 2 * 4} samples" in capsys.readouterr().out
    content = path.read_bytes()
    assert run("write") == 0 and written(root) == [path] and path.read_bytes() == content
    assert not server.asked


ASKED_OTHERWISE = {"leave_out": ["n", "seed"], "system_prompt": "Be short.", "request": {"body": {"effort": "low"}}}


@pytest.mark.parametrize("fields", [{}, ASKED_OTHERWISE], ids=["plain", "changed"])
def test_the_requests_are_those_that_the_client_makes(root, server, fields):
    change(root, **fields)
    run("write")
    bodies = [line["body"] for line in lines_of(root)]
    assert len(bodies) == (8 * 7 + 2 * 4 if fields else 8 * 3 + 2 * 2)
    study(root)
    key = lambda body: json.dumps(body, sort_keys=True)  # noqa: E731
    assert sorted(map(key, server.calls)) == sorted(map(key, bodies))


def test_a_round_trip_leaves_nothing_to_ask(root, server, capsys):
    out = answers(root)
    assert run("read", out) == 0 and len(kept(root)) == 8 * 7 + 2 * 4
    assert f"{8 * 7 + 2 * 4} responses were added to the store, 0 were in it" in capsys.readouterr().out
    assert run("read", out) == 0 and len(kept(root)) == 8 * 7 + 2 * 4
    assert "0 responses were added to the store, 64 were in it" in capsys.readouterr().out
    study(root)
    assert not server.calls
    assert "No request is missing: all that teachers behind servers are asked is in finished" in said("write", capsys)


def test_part_of_the_results_leaves_the_rest_to_ask_whatever_the_questions_are_now(root, server):
    out = answers(root, slice(10))
    asked = len(lines_of(root))
    questions = (root / "q.jsonl").read_bytes()
    write(root / "q.jsonl", [{"question": question} for question in QUESTIONS[:8]])
    assert run("read", out) == 0
    (root / "q.jsonl").write_bytes(questions)
    study(root)
    assert len(server.calls) == asked - 10


def test_fewer_choices_than_asked_for_are_kept_and_learnt(root):
    run("read", answers(root, said=lambda body: chat(body | {"n": 1})))
    assert len(kept(root)) == 8 * 3 + 2 * 2
    (new,) = written_next(root)
    assert len(new) == 8 * 4 + 2 * 2 and all("n" not in line["body"] for line in new)


def test_what_the_provider_refuses_for_good_counts_as_unanswered(root, server, capsys):
    out, errors = answers(root, slice(3, None)), refusals(root, 3, None, {"status_code": 400, "body": REFUSAL})
    for _ in range(2):
        run("read", out, errors)
    told = capsys.readouterr().out
    assert "7 were refused for good" in told and "flagged by the content management policy" in told
    refused = [row for row in kept(root) if row[0] == "refused"]
    assert len(refused) == 7 and "content management" in refused[0][3] and len(kept(root)) == 64
    study(root)
    assert not server.calls


def unsupported(name: str, message: str) -> dict:
    """A provider's refusal of a parameter."""
    body = {"error": {"message": message, "param": name, "code": "unsupported_parameter"}}
    return {"status_code": 400, "body": body}


@pytest.mark.parametrize("count, error, response, words", [
    (30, None, {"status_code": 400, "body": REFUSAL}, "More was refused than most_unanswered (0.5) allows"),
    (2, {"code": "batch_expired", "message": "This request could not be executed before the window expired."}, None,
     "This request could not be executed"),
    (2, {"code": "rate_limit_exceeded", "message": "Rate limit reached"}, None, "Rate limit reached"),
    (2, None, unsupported("temperature", "Unsupported value: 'temperature' does not support 0.3 with this model. Only "
     "the default (1) value is supported."), "set teacher_sampling.temperatures to default"),
])  # fmt: skip
def test_what_may_be_asked_again_is_not_kept(root, capsys, count, error, response, words):
    run("write")
    run("read", refusals(root, count, error, response))
    assert words in capsys.readouterr().out and not kept(root)


def test_a_parameter_that_the_service_does_not_take_is_left_out_of_the_next_batch(root, capsys):
    run("write")
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    run("read", refusals(root, 2, None, unsupported("max_tokens", words)))
    assert "takes no max_tokens: the next batch goes without" in capsys.readouterr().out
    (new,) = written_next(root)
    assert all("max_tokens" not in line["body"] and line["body"]["max_completion_tokens"] == 60 for line in new)


# ---- OpenAI's addresses


def test_a_batch_is_sent_waited_for_and_read(root, server, capsys):
    assert run("send") == 0
    assert server.asked == ["POST /files", "POST /batches"] and set(server.keys) == {f"Bearer {KEY}"}
    assert server.batches["batch_0"]["endpoint"] == "/v1/chat/completions"
    assert server.batches["batch_0"]["completion_window"] == "24h"
    assert "beside the 28 under way: give `collect`" in said("send", capsys)
    assert "64 samples of t are under way in batches and would be paid for twice" in outlook.under_way(
        teacher_stage(root)
    )
    with pytest.raises(UserError, match="would be paid for twice"):
        requirements.check_teachers([teacher_stage(root)])
    assert run("collect", "--once") == 0
    assert "batch_0 (t-" in (told := capsys.readouterr().out) and "in_progress, 0 of 28 answered" in told
    server.finish("batch_0", results(server.files["file-0"]))
    assert run("collect") == 0
    assert "completed, 3 of 3 answered" in (told := capsys.readouterr().out) and "64 responses were added" in told
    assert "Nothing that was sent is under way" in said("collect", capsys)
    study(root)
    assert not server.calls and not outlook.under_way(teacher_stage(root))
    assert KEY not in "".join(path.read_text() for path in folder_of(root).path.iterdir() if path.is_file())


@pytest.mark.parametrize("step, said_then, batches", [
    ("POST /files", None, 0), ("POST /batches", None, 1), ("POST /batches", {"error": "overloaded"}, 0),
])  # fmt: skip
def test_a_sending_that_broke_off_is_taken_up_and_nothing_sent_twice(root, server, capsys, step, said_then, batches):
    server.broken = [(step, 503, said_then)]
    assert "did not take the batch" in said("send", capsys) and len(server.batches) == batches
    if batches:
        told = said("send", capsys)
        assert "beside the 28 under way" in told
    else:
        assert run("send") == 0
    assert len(server.batches) == 1
    server.finish("batch_0", results(server.files[server.batches["batch_0"]["input_file_id"]]))
    assert run("collect") == 0 and len(kept(root)) == 64


def test_an_expired_batch_gives_what_it_has_and_the_rest_is_sent_again(root, server, capsys):
    run("send")
    lines = server.files["file-0"].splitlines(keepends=True)
    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
    expired = [{"custom_id": json.loads(line)["custom_id"], "response": None, "error": error} for line in lines[5:]]
    errors = b"".join(json.dumps(row).encode() + b"\n" for row in expired)
    server.finish("batch_0", results(b"".join(lines[:5])), errors, "expired")
    run("collect")
    assert run("send") == 0 and len(server.batches) == 2
    assert len(server.files[server.batches["batch_1"]["input_file_id"]].splitlines()) == len(lines) - 5


def test_a_collecting_that_broke_off_goes_on(root, server, capsys):
    run("send")
    server.finish("batch_0", results(server.files["file-0"]))
    server.broken = [("GET /files/out-batch_0/content", 503, {"error": "busy"}), ("GET /batches/batch_0", 0, None)]
    assert run("collect") == 0 and len(kept(root)) == 64
    assert "asked again later" in capsys.readouterr().out


def test_a_reading_that_was_killed_goes_on(root, monkeypatch):
    out = answers(root)
    add, count = Store.add, iter(range(100))

    def dies(*words):
        if next(count) == 20:
            raise KeyboardInterrupt
        add(*words)

    monkeypatch.setattr(batch, "AT_ONCE", 2)
    monkeypatch.setattr(Store, "add", dies)
    assert run("read", out) == 130
    assert 15 <= len(kept(root)) <= 20
    monkeypatch.setattr(Store, "add", add)
    run("read", out)
    assert len(kept(root)) == 64


def test_a_failed_batch_says_why_and_is_missing_again(root, server, capsys):
    run("send")
    server.batches["batch_0"] |= {"status": "failed", "errors": {"data": [{"message": "Token limit reached"}]}}
    run("collect")
    assert "failed, 0 of 28 answered; it says: Token limit reached" in capsys.readouterr().out
    assert run("send") == 0


# ---- bad input


def test_a_budget_below_what_the_batch_may_cost_is_refused(root, server, capsys):
    change(root, budget={"tokens": 3000})
    told = said("send", capsys)
    assert "The batch for t may take" in told and "the budget is 3,000" in told and "nothing was written" in told
    assert not server.asked and not written(root)
    change(root, budget={"responses": 64})
    assert run("write") == 0
    capsys.readouterr()
    change(root, budget={"money": 9}, prices={"input": 1.0, "output": 8.0, "currency": "EUR"})
    assert run("write") == 0 and "tokens and 0.03 EUR:" in capsys.readouterr().out
    change(root, budget={"money": 0.001}, prices={"input": 1.0, "output": 8.0, "currency": "EUR"})
    assert "EUR, with what was spent before, and the budget is 0.001" in said("write", capsys)


def test_what_was_sent_counts_against_the_budget(root, server, capsys):
    change(root, budget={"responses": 100})
    run("send")
    write(root / "q.jsonl", [{"question": f"{question} Now?"} for question in QUESTIONS])
    assert "the budget is 100" in said("send", capsys)


@pytest.mark.parametrize("content, words", [
    (b'{"custom_id": "rd-00000000000000000000000000000000-0-0-1-60", "response": {}}\n', "of another study, or"),
    (b'{"custom_id": "request-1", "response": {}}\n', "of another study: 'request-1'"),
    (b'{"custom_id": "rd-0', "line 29 is cut off"),
    (b'{"response": {}}\n', "has no custom_id"),
    (b'{"key": "a", "response": {"candidates": []}}\n', "Gemini's own"),
    (b'{"custom_id": "rd-00000000000000000000000000000000-0-0-1-60", "result": {"type": "succeeded"}}\n', "Anthropic"),
])  # fmt: skip
def test_a_file_that_is_no_result_of_this_study_is_refused_whole(root, capsys, content, words):
    out = answers(root)
    out.write_bytes(out.read_bytes() + content)
    assert words in said("read", capsys, out) and not kept(root)


def test_requests_are_no_results(root, capsys):
    run("write")
    assert "is a request: give the files that the service made of it" in said("read", capsys, written(root)[0])
    assert "cannot be read" in said("read", capsys, root / "nothing.jsonl")


@pytest.mark.parametrize(("status", "error", "words"), [
    (404, {"detail": "Not Found"}, r"has no batches \(Not Found\).*`write` and `read`.*`make study`"),
    (401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}},
     "set the environment variable OPENAI_API_KEY"),
])  # fmt: skip
def test_a_service_that_refuses_is_one_sentence_and_no_key_is_shown(root, server, capsys, status, error, words):
    server.broken = [("POST /files", status, error)]
    told = said("send", capsys)
    assert re.search(words, told) and KEY not in told
    assert run("send") == 0


def test_a_service_that_lists_no_batches_cannot_tell_what_was_sent(root, server, capsys):
    server.broken = [("POST /batches", 0, None)]
    said("send", capsys)
    server.broken = [("GET /batches", 404, {"detail": "Not Found"})]
    assert "unknown whether t-" in said("send", capsys) and len(server.batches) == 1


def test_words_that_a_command_does_not_take(root, capsys):
    for action, words in (("write", ["x.jsonl"]), ("read", [])):
        with pytest.raises(SystemExit, match="2"):
            run(action, *words)
    capsys.readouterr()
    assert "--seeds must not be below 0" in said("write", capsys, "--seeds=-1")
    assert "'x' behind a server (there is t)" in said("write", capsys, "--teacher", "x")
    with folder_of(root).held():
        assert "Another command is at work" in said("write", capsys)
