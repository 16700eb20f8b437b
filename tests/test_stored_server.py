"""A teacher whose answers are kept: what the store serves and survives, what is asked of the server, and until when."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
from collections import Counter
from dataclasses import replace

import pytest
import yaml
from conftest import PARAMS, make_root, refused, stage_in
from fake_server import FakeServer, answer, listing, prompt_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib.engines.asking import Reply, Settings, digest
from rdlib.engines.budget import Spent
from rdlib.engines.generation import Request
from rdlib.engines.progress import EVERY, AskingProgress
from rdlib.engines.store import Store, Wanted
from rdlib.engines.stored_server import StoredServer
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.study import outlook
from rdlib.study import progress as study_progress

# ---- the store

KINDS = ["answer", "withheld", "refused"]
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Q?"}], "temperature": 1.0}
ANSWER = Reply("answer", "It is 4.\n#### 4", ended=True, reason="stop", tokens=9, prompt_tokens=5)


def wanted(samples=(0,), what: object = ASKED, series: str = "0", max_tokens: int = 100) -> Wanted:
    return Wanted(digest(what), series, samples, max_tokens)


def keep(store: Store, sample: int = 0, reply: Reply = ANSWER, one: Wanted | None = None, run: str = "r", what=ASKED):
    store.add(one or wanted(), what, ("q1", "Q?"), sample, reply, run)


def test_a_reply_comes_back_as_it_was_kept(tmp_path):
    odd = replace(ANSWER, text="\u2028 \x00 ½ 数", reasoning="hm\n", ended=False, reason="SAFETY", words="no")
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 3, odd)
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.kept([wanted((2, 3), max_tokens=50)]) == [{3: odd}]


@pytest.mark.parametrize(
    ("reply", "had", "now", "serves"),
    [
        (ANSWER, 100, 100, True),
        (ANSWER, 100, 8000, True),  # it ended, so a higher limit changes nothing
        (ANSWER, 100, 10, True),
        (replace(ANSWER, ended=False), 100, 100, True),
        (replace(ANSWER, ended=False), 100, 101, False),  # it was cut, and might go on
        (replace(ANSWER, ended=False), 100, 50, True),
        (Reply("withheld", words="all went into thinking"), 100, 200, False),
        (Reply("withheld", ended=True, words="I cannot help"), 100, 200, True),
        (Reply("refused", words="content filter"), 100, 200, True),
    ],
)
def test_what_serves_a_request(tmp_path, reply, had, now, serves):
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 0, reply, wanted(max_tokens=had))
        assert bool(store.kept([wanted(max_tokens=now)])[0]) is serves


def test_refusals_of_a_run_that_ended_badly_serve_no_more(tmp_path):
    refused = Reply("refused", words="filtered")
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 0, refused, run="bad")
        keep(store, 1, refused, run="good")
        store.void("bad")
        assert store.kept([wanted((0, 1))]) == [{1: refused}]
        assert store.kept([wanted((0, 1))], refused=False) == [{}]


def test_what_was_spent_and_learnt(tmp_path):
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 0)
        keep(store, 1, replace(ANSWER, prompt_tokens=None))
        keep(store, 2, Reply("refused", words="no"))
        keep(store, 0, one=wanted(what=ASKED | {"model": "other"}), what=ASKED | {"model": "other"})
        assert store.spent("m") == Spent(2, 5, 18) and store.spent("none") == Spent()
        assert store.models() == {"m": 3, "other": 1}
        assert store.learnt("m at u") == {}
        for most in (8, 4):
            store.remember("m at u", {"most_choices": most})
        assert store.learnt("m at u") == {"most_choices": 4}


def test_a_file_that_is_no_store_is_named(tmp_path):
    for number, content in enumerate((b"SQLite format 3\x00", b"\x00" * 5000, b'{"question": "a"}\n' * 900)):
        (tmp_path / f"s{number}.sqlite").write_bytes(content)
        with pytest.raises(UserError, match=rf"s{number}\.sqlite"), Store.open(tmp_path / f"s{number}.sqlite"):
            pass
    (tmp_path / "s.sqlite").touch()  # a store without a row
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.models() == {}
        store.connection.execute("PRAGMA query_only = ON")
        refused("cannot be written", keep, store)
        store.connection.execute("PRAGMA query_only = OFF")
        store.connection.execute("PRAGMA user_version = 99")
    connection = sqlite3.connect(tmp_path / "other.sqlite")
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    for name, words in (("other", "a database of something else"), ("s", "of a later version"), ("no", "There is no")):
        with pytest.raises(UserError, match=words), Store.open(tmp_path / f"{name}.sqlite", create=False):
            pass


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(KINDS), st.booleans(), st.integers(1, 9)), max_size=12
    ),
    st.integers(1, 9),
)  # fmt: skip
def test_kept_is_the_newest_row_that_serves(tmp_path_factory, rows, limit):
    """Against a plain reading of the rules."""
    with Store.open(tmp_path_factory.mktemp("store") / "s.sqlite") as store:
        expected: dict[int, Reply] = {}
        for number, (sample, kind, ended, had) in enumerate(rows):
            reply = Reply(kind, f"text {number}", ended=ended)
            keep(store, sample, reply, wanted(max_tokens=had))
            if ended or kind == "refused" or had >= limit:
                expected[sample] = reply
        assert store.kept([wanted((0, 1, 2, 3), max_tokens=limit)]) == [expected]


# ---- what is paid for is kept


def engine_of(fake, folder, seed: int = 0, limit: int = 50, **fields) -> StoredServer:
    model = Model(model="m", engine="openai", base_url=fake.url, check_models=False, **fields)
    return StoredServer.open(model, Settings("m", limit), folder / "s.sqlite", seed, None)


def texts(engine, *requests: Request) -> list[list[str]]:
    try:
        return [[one.text for one in group] for group in engine.generate(requests)]
    finally:
        engine.close()


def hot(number: int = 0, n: int = 3, temperature: float | None = 1.0) -> Request:
    return Request(prompt_of(number), n, temperature)


def refusing(words: str, when=lambda body: True, status: int = 400):
    """An answer that refuses some bodies."""

    def said(body):
        return (status, {}, {"error": {"message": words}}) if when(body) else (200, {}, answer(body))

    return said


def test_what_was_answered_is_not_asked_again(fake, tmp_path):
    first = texts(engine_of(fake, tmp_path), hot(0), hot(1), hot(0, 1, 0.0))
    asked = len(fake.calls)
    assert texts(engine_of(fake, tmp_path), hot(0), hot(1), hot(0, 1, 0.0)) == first
    assert len(fake.calls) == asked
    more = texts(engine_of(fake, tmp_path), hot(0, 5))
    assert more[0][:3] == first[0] and len(set(more[0])) == 5
    assert [body.get("n", 1) for body in fake.calls[asked:]] == [2]  # the two that were missing


def test_seeds_have_samples_of_their_own_and_share_greedy_ones(fake, tmp_path):
    first = texts(engine_of(fake, tmp_path), hot(0), hot(0, 1, 0.0))
    asked = len(fake.calls)
    second = texts(engine_of(fake, tmp_path, seed=1), hot(0), hot(0, 1, 0.0))
    assert not set(first[0]) & set(second[0]) and first[1] == second[1] and len(fake.calls) == asked + 1


def test_cut_responses_alone_are_asked_again_at_a_higher_limit(fake, tmp_path):
    def said(body):
        choices = [
            {"message": {"content": f"text {k}"}, "finish_reason": "length" if k == 1 else "stop"}
            for k in range(body.get("n", 1))
        ]
        return {"choices": choices, "usage": {"completion_tokens": 50 * len(choices)}}

    fake.answer = said
    texts(engine_of(fake, tmp_path), hot(0))
    texts(engine_of(fake, tmp_path, limit=100), hot(0))
    assert [body.get("n", 1) for body in fake.calls] == [3, 1] and fake.calls[-1]["max_tokens"] == 100


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({"concurrency": 2, "timeout": 9.0, "api_key_env": "X", "budget": {"tokens": 10**6}}, 0),
        ({"system_prompt": "Be brief."}, 1),
        ({"request": {"body": {"reasoning_effort": "low"}}}, 1),
        ({"leave_out": ["top_p"]}, 1),
    ],
)
def test_what_is_asked_decides_and_how_it_is_asked_does_not(fake, tmp_path, change, calls):
    first = texts(engine_of(fake, tmp_path), hot(0))
    asked = len(fake.calls)
    assert (texts(engine_of(fake, tmp_path, **change), hot(0)) == first) or calls
    assert len(fake.calls) == asked + calls


def test_thinking_is_dropped_or_kept_without_asking_again(fake, tmp_path):
    message = {"content": "It is 4.", "reasoning_content": "two and two"}
    fake.answer = lambda body: {"choices": [{"message": message, "finish_reason": "stop"}]}
    assert texts(engine_of(fake, tmp_path), hot(0, 1)) == [["It is 4."]]
    kept = texts(engine_of(fake, tmp_path, thinking="keep"), hot(0, 1))
    assert kept == [["<think>\ntwo and two\n</think>\n\nIt is 4."]] and len(fake.calls) == 1


# ---- one question never stops the run


def test_a_refused_question_is_unanswered_and_not_asked_again(fake, tmp_path):
    fake.answer = refusing("filtered by our policy", lambda body: "3 + 1" in body["messages"][-1]["content"])
    requests = [hot(number) for number in range(9)]
    for _ in range(2):
        engine = engine_of(fake, tmp_path)
        groups = engine.generate(requests)
        engine.close()
        said = [one.words for one in groups[3]]
        assert all("filtered by our policy" in words for words in said) and len(said) == 3
        assert not any(one.words for group in groups[:3] + groups[4:] for one in group)
        assert len(fake.calls) == 9
    again = engine_of(fake, tmp_path, ask_refused_again=True)
    again.generate(requests)
    again.close()
    assert len(fake.calls) == 10


def test_most_unanswered_ends_the_asking_and_is_asked_again(fake, tmp_path):
    fake.answer = refusing("the content filter is on", lambda body: True)
    with pytest.raises(UserError, match=r"samples got no answer from m, most often .*the content filter is on"):
        texts(engine_of(fake, tmp_path, concurrency=2), *(hot(number) for number in range(30)))
    assert len(fake.calls) < 30
    fake.answer = answer
    assert all(texts(engine_of(fake, tmp_path), *(hot(number) for number in range(30))))


def test_a_share_that_the_profile_allows_does_not_end_it(fake, tmp_path):
    fake.answer = refusing("no", lambda body: int(body["messages"][-1]["content"].split()[2]) % 4 > 0)
    groups = texts(engine_of(fake, tmp_path, most_unanswered=0.9), *(hot(number) for number in range(40)))
    assert sum(group == [""] * 3 for group in groups) == 30


# ---- the budget


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"responses": 10}, "10 of 10 responses. 10 responses came and are kept, 30"),
        ({"money": 0.1}, r"0\.\d+ of 0.1 EUR"),  # ten tokens a response: 0.01 each
        ({"tokens": 100}, "tokens"),
    ],
)
def test_a_budget_ends_the_asking_cleanly(fake, tmp_path, budget, words):
    prices, requests = {"input": 0, "output": 1000.0, "currency": "EUR"}, [hot(number, 1) for number in range(40)]
    limited = {"budget": budget, "prices": prices, "concurrency": 1}
    refused(f"The budget of m is used up: .*{words}", lambda: texts(engine_of(fake, tmp_path, **limited), *requests))
    asked = len(fake.calls)
    assert (1 if "tokens" in budget else 10) <= asked <= 11
    with pytest.raises(UserError, match=r"\d+ responses are missing: raise the budget"):
        texts(engine_of(fake, tmp_path, **limited), *requests)
    assert len(fake.calls) == asked
    assert len(texts(engine_of(fake, tmp_path, budget={"responses": 100}), *requests)) == len(fake.calls) == 40


# ---- through the stages: forty questions, and one change at a time


def answering(body: dict) -> dict:
    question, found = body["messages"][-1]["content"], []
    for sample in range(body.get("n", 1)):
        drawn = hashlib.sha256(f"{question}{body.get('seed')}{sample}{body.get('temperature')}".encode()).hexdigest()
        text = f"Step by step, by {drawn[:8]}, it is\n#### {7 if int(drawn[0], 16) < 13 else 8}"
        found.append({"message": {"content": text}, "finish_reason": "stop"})
    return {"choices": found, "usage": {"completion_tokens": 20 * len(found), "prompt_tokens": 30}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(root, server): a study whose teacher has answered its forty questions."""
    server = FakeServer()
    server.models, server.answer = listing("m"), answering
    root = make_root(tmp_path_factory.mktemp("forty") / "root")
    content = yaml.safe_load((root / PARAMS).read_text())
    content |= {"students": {"small": "models/small"}, "generation": {"batch_size": 128, "shard_size": 2048}}
    content["datasets"] = {"mine": {"source": "questions", "answer": "math", "path": "q.jsonl", "max_tokens": 384}}
    content["datasets"]["mine"] |= dict.fromkeys(("train", "validation", "test"))
    content["teachers"] = {"strong": {"model": "m", "engine": "openai", "base_url": server.url, "parameters": 1e9}}
    content["teacher_sampling"] = {"high_temperatures": [0.0, 0.3], "low_temperatures": [0.7, 1.0]}
    content["teacher_sampling"]["samples_per_temperature"] = 5
    content["grid"]["ablation_cells"] = [{"dataset": "mine", "teacher": "strong", "student": "small"}]
    (root / PARAMS).write_text(yaml.safe_dump(content))
    rows = [json.dumps({"question": f"What is {i} plus {3 * i}?"}) for i in range(40)]
    (root / "q.jsonl").write_text("\n".join(rows) + "\n")
    stage_in(root, "01_teacher_responses", dataset="mine").run_with_inputs()
    assert len(server.calls) == 144
    yield root, server
    server.close()


def setting(*path, value):
    def change(root, content):
        *sections, name = path
        for section in sections:
            content = content[section]
        content[name] = value

    return change


def rows(edit, end: str = "\n"):
    def change(root, content):
        lines = edit((root / "q.jsonl").read_text().splitlines())
        (root / "q.jsonl").write_bytes((end.join(lines) + end).encode())

    return change


def of_how_it_runs(root, content):
    """Nothing that decides a response."""
    content["teachers"]["strong"] |= {"concurrency": 4, "max_tokens": 8000}
    content["generation"] |= {"batch_size": 64, "shard_size": 512, "engine": "vllm"}
    rows(lambda lines: lines[::-1], "\r\n")(root, content)


# What is changed, and how many requests are made for it: at least, at most
CHANGES = {
    "how it runs": (of_how_it_runs, 0, 0),
    "one temperature more": (setting("teacher_sampling", "low_temperatures", value=[0.7, 1.0, 1.2]), 36, 36),
    "max_tokens": (setting("datasets", "mine", "max_tokens", value=512), 0, 0),
    "more held out": (setting("datasets", "mine", "test", value=5), 0, 4),
    "a question more": (rows(lambda lines: [*lines, '{"question": "What is one more?"}']), 4, 4),
    "a question less": (rows(lambda lines: lines[:7] + lines[8:]), 0, 2),
    "a typo corrected": (rows(lambda lines: [line.replace("is 5 plus", "is five plus") for line in lines]), 4, 4),
    "an answer given": (rows(lambda lines: [lines[0][:-1] + ', "answer": 0}', *lines[1:]]), 0, 4),
    "more samples": (setting("teacher_sampling", "samples_per_temperature", value=8), 108, 108),
}


def changed(finished, folder, change):
    root, server = finished
    copy = folder / "root"
    shutil.copytree(root, copy, symlinks=True)
    content = yaml.safe_load((copy / PARAMS).read_text())
    change(copy, content)
    (copy / PARAMS).write_text(yaml.safe_dump(content))
    return copy, server


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_asks_for_what_is_missing_alone(finished, tmp_path, what):
    change, least, most = CHANGES[what]
    root, server = changed(finished, tmp_path, change)
    stage = stage_in(root, "01_teacher_responses", dataset="mine")
    told = sum(look.requests for look in outlook.of([stage]))
    before = len(server.calls)
    stage.run_with_inputs()
    asked = server.calls[before:]
    assert least <= len(asked) <= most
    assert told == len(asked)  # the dry run's requests are those that are made


def test_held_out_questions_and_the_teachers_own_evaluation_share_what_they_ask(finished, tmp_path):
    root, server = changed(finished, tmp_path, setting("name", value="tiny"))
    stages = [stage_in(root, "01_held_out", dataset="mine")]
    stages.append(stage_in(root, "07_evaluate", "teacher", dataset="mine", student=None))
    before = len(server.calls)
    assert [look.requests for look in outlook.of(stages)] == [8]
    for stage in stages:
        stage.run_with_inputs()
    assert len(server.calls) - before == 8  # four questions at two temperatures; greedily once


AGAIN = "144 of the 144 requests to m ask again what the store has answers to, since the "


@pytest.mark.parametrize(
    ("name", "value", "what"), [("system_prompt", "Be brief.", "prompt"), ("model", "m2", "model")]
)
def test_what_looks_paid_already_is_said_before_it_is_asked_again(finished, tmp_path, name, value, what):
    root, _ = changed(finished, tmp_path, setting("teachers", "strong", name, value=value))
    (look,) = outlook.of([stage_in(root, "01_teacher_responses", dataset="mine")])
    assert f"since the {what} changed" in look.warning and (what == "model" or AGAIN in look.warning)
    assert what == "model" or look.again == look.requests == 144


def test_the_store_is_a_recording_that_can_be_copied(finished, tmp_path):
    root, server = finished
    stage = stage_in(root, "01_teacher_responses", dataset="mine")
    teacher = {"model": "copied.sqlite", "engine": "replay", "parameters": 1e9}
    copy, _ = changed(finished, tmp_path, setting("teachers", "strong", value=teacher))
    shutil.move(copy / "responses" / "tiny.sqlite", copy / "copied.sqlite")
    before = len(server.calls)
    replayed = stage_in(copy, "01_teacher_responses", dataset="mine").run_with_inputs()
    assert replayed.table("responses").equals(stage.table("responses")) and len(server.calls) == before
    shown = stage_in(root, "00_data", dataset="mine").table("questions").set_index("id")["question"]
    assert (replayed.table("responses")["asked"] == replayed.table("responses")["id"].map(shown)).all()


def test_a_store_of_another_model_is_refused_before_anything_is_served(finished, tmp_path):
    teacher = {"model": "responses/tiny.sqlite", "engine": "replay", "parameters": 1e9, "recorded": "gpt"}
    copy, _ = changed(finished, tmp_path, setting("teachers", "strong", value=teacher))
    with pytest.raises(UserError, match=r"tiny.sqlite has responses of m and none of gpt: name one of these"):
        stage_in(copy, "01_teacher_responses", dataset="mine").run_with_inputs()


def test_the_providers_own_temperature_is_a_plan_of_its_own(finished, tmp_path):
    plan = {"temperatures": "default", "samples_per_temperature": 6}
    root, server = changed(finished, tmp_path, setting("teacher_sampling", value=plan))
    before = len(server.calls)
    stage = stage_in(root, "01_teacher_responses", dataset="mine").run_with_inputs()
    asked = server.calls[before:]
    assert len(asked) == 36 and not any("temperature" in body for body in asked)
    table = stage.table("responses")
    assert table["temperature"].isna().all() and (table["confidence"] == "high").all() and len(table) == 36 * 6
    labels = stage_in(root, "02_pseudo_labels", dataset="mine").run_with_inputs().table("labels")
    assert len(labels) == 36
    evaluated = stage_in(root, "07_evaluate", "teacher", dataset="mine", student=None)
    evaluated.run_with_inputs()
    assert not any("temperature" in body for body in server.calls[before:])


# ---- the first look, and what is unanswered


def looked(finished, folder, answer, **fields):
    """A first run of the study with a server that answers so; returns the stage."""
    root, _ = changed(finished, folder, setting("name", value="looked"))
    server = FakeServer()
    server.models, server.answer = listing("m"), answer
    content = yaml.safe_load((root / PARAMS).read_text())
    content["teachers"]["strong"] |= {"base_url": server.url} | fields
    (root / PARAMS).write_text(yaml.safe_dump(content))
    return stage_in(root, "01_teacher_responses", dataset="mine"), server


def saying(text, reason: str = "stop", tokens: int = 20):
    choice = {"message": {"content": text}, "finish_reason": reason}
    return lambda body: {
        "choices": [choice] * body.get("n", 1),
        "usage": {"completion_tokens": tokens * body.get("n", 1)},
    }


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("Let me think and think", "length", 384), "100% of the responses were cut at max_tokens, now 384: raise"),
        (("As a helpful assistant I like flowers.",), "no answer can be read in 100% of the responses"),
        (("It is easy to see that it is\n#### 4",), "all samples of a question are one text"),
        (("",), "got no answer from m"),
    ],
)
def test_the_first_look_ends_what_is_of_no_use(finished, tmp_path, said, words):
    stage, server = looked(finished, tmp_path, saying(*said))
    refused(words, stage.run_with_inputs)
    assert len(server.calls) <= 80  # twenty questions at four temperatures
    server.close()


def test_the_first_look_is_one_screen_with_what_is_left(finished, tmp_path, capsys):
    prices = {"input": 1.0, "output": 10.0, "currency": "USD"}
    stage, server = looked(finished, tmp_path, answering, prices=prices, requests_per_minute=6000)
    stage.run_with_inputs()
    screen = capsys.readouterr().out
    assert "First look: 20 questions, 320 samples of m" in screen and "; read: '" in screen
    for words in ("Left to ask: 256 samples in about 64 requests", "by requests_per_minute", "Money: about 0.05 USD"):
        assert words in screen
    assert len(screen.splitlines()) < 40
    server.close()


def test_a_budget_below_the_first_look_is_said_before_anything_is_sent(finished, tmp_path):
    prices = {"input": 1.0, "output": 10.0, "currency": "USD"}
    stage, server = looked(finished, tmp_path, answering, prices=prices, budget={"money": 0.01})
    with pytest.raises(
        UserError, match=r"The first look at m may take 1\.\d+ USD.* and the budget is 0.01: raise the budget"
    ):
        stage.run_with_inputs()
    assert not server.calls
    server.close()


def test_unanswered_samples_are_counted_and_shown_with_the_servers_words(finished, tmp_path):
    refused = {"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}

    def said(body):
        is_fifth = "is 5 plus" in body["messages"][-1]["content"]
        return {"choices": [refused] * body.get("n", 1)} if is_fifth else answering(body)

    stage, server = looked(finished, tmp_path, said)
    stage.run_with_inputs()
    table = study_progress.unanswered([stage])
    assert table["samples"].sum() == 16 and (table["questions"] == 1).all()
    assert any("I will not" in line for line in study_progress.unanswered_lines(table))
    responses = stage.table("responses")
    empty = responses[responses["text"] == ""]
    assert empty["answer"].isna().all() and not empty["finished"].any()
    assert Counter(empty["id"]).total() == 20  # the greedy one counts five times
    server.close()


def test_the_terminal_shows_rate_time_and_money():
    state = {"label": "a", "done": 10, "total": 100, "rate": 60.0, "left": 5400.0, "tokens": 33.3, "process": 1}
    assert study_progress.in_words(state) == "60 a minute, 33 tokens/s, 1:30 h left"
    state |= {"money_left": 1.234, "currency": "USD"}
    assert study_progress.in_words(state).endswith("about 1.23 USD left to pay")
    assert study_progress.in_words({"label": "a", "done": 0, "total": 9, "process": 1}) == ""


# ---- kills


def _asking(url: str, folder, requests) -> None:
    fields = {"engine": "openai", "base_url": url, "check_models": False, "concurrency": KILLED_WORKERS}
    StoredServer.open(Model(model="m", **fields), Settings("m", 50), folder / "s.sqlite", 0, None).generate(requests)
    os._exit(0)


KILLED_WORKERS = 4


@pytest.mark.slow
def test_kills_lose_nothing_and_ask_nothing_twice_that_had_come(fake, tmp_path):
    """Eight kills at random moments: each costs at most what was under way."""
    fake.delay, rng, requests = 0.004, random.Random(0), [hot(number, 2) for number in range(200)]
    context, kills = multiprocessing.get_context("fork"), 0
    while True:
        process = context.Process(target=_asking, args=(fake.url, tmp_path, requests))
        process.start()
        process.join(rng.uniform(0.02, 0.12) if kills < 8 else 120)
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0 and kills >= 5
    with Store.open(tmp_path / "s.sqlite") as store:
        rows = store.connection.execute("SELECT asked, sample, count(*) FROM responses GROUP BY 1, 2").fetchall()
    assert len(rows) == 400 and {count for *_, count in rows} == {1}
    assert len(fake.calls) <= 200 + kills * (KILLED_WORKERS + 1)  # and the one that proves the temperature


def test_the_terminal_is_told_of_all_samples_of_a_call(tmp_path):
    """Though they come within a moment, and nothing comes for minutes after."""
    path = tmp_path / "progress.json"
    with AskingProgress("teacher", 16, 0, path) as progress:
        progress.written -= 2 * EVERY
        for _ in range(8):
            progress.came_in(50, 0)
        progress.show()
        assert json.loads(path.read_text())["done"] == 8
