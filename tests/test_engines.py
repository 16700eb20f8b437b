"""The engines behind one interface: a contract for all, recordings, and sampling in this process."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import MODELS, make_root, refused, stage_in
from fake_server import KEY, ask, engine_of, plan_of, prompt_of
from hostile import as_json, assert_one_line, broken, mutated, texts
from hypothesis import assume, given
from hypothesis import strategies as st
from test_real_data import as_parquet, json_rows
from tiny_models import chi_square, make_model, prompt_texts

from rdlib import engines
from rdlib.engines import generation, server, transformers_engine
from rdlib.engines.generation import Completion, Request, sample_to_disk
from rdlib.engines.replay import ReplayEngine
from rdlib.engines.sampling import sampled
from rdlib.engines.stored_server import StoredServer
from rdlib.engines.transformers_engine import TransformersEngine, nucleus, pick_tokens
from rdlib.engines.vllm_engine import VllmEngine
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.study import requirements
from rdlib.tasks import answers
from rdlib.tasks.prompts import STOP, Prompt
from rdlib.tasks.spoken import THINK

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


def test_every_engine_samples_to_disk_and_its_table_is_a_recording(any_engine, tmp_path):
    plan, prompts = plan_of(6)
    first = sample_to_disk(any_engine, plan, prompts, tmp_path / "first", 1, 4)
    first.to_parquet(tmp_path / "first.parquet")
    again = sample_to_disk(ReplayEngine(tmp_path / "first.parquet"), plan, prompts, tmp_path / "again", 2, 5)
    pd.testing.assert_frame_equal(again, first)
    any_engine.close()


@pytest.mark.parametrize("kind", ["transformers", "openai", "replay"])
def test_the_profile_picks_the_engine(kind, tmp_path, fake, monkeypatch):
    (tmp_path / "answers.jsonl").write_text('{"id": "a", "text": "b"}\n')
    model = {"transformers": str(MODELS / "small"), "openai": "gpt", "replay": "answers.jsonl"}[kind]
    monkeypatch.setenv("TEACHER_KEY", KEY)
    teacher = {"model": model, "engine": kind, "base_url": fake.url, "api_key_env": "TEACHER_KEY"}
    root = make_root(tmp_path, teachers={"strong": teacher, "weak": "models/weak"}, generation={"stop": ["Q:"]})
    stage = stage_in(root, "01_teacher_responses")
    engine = engines.open_engine(stage, stage.profile.model_of("strong"))
    kinds = {"transformers": TransformersEngine, "openai": StoredServer, "replay": ReplayEngine}
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
    letters = iter(text + "." * 500)

    class Letters:
        eos_token_id, pad_token_id, chat_template = tokenizer.eos_token_id, tokenizer.pad_token_id, template

        def get_vocab(self):
            return {chr(number): number for number in range(32, 127)} | {"\n": 10}

        def decode(self, ids, **_):
            return "".join(chr(i) if i > 9 else "" for i in ids)

        def batch_decode(self, rows, **_):
            return [self.decode(row.tolist()) for row in rows]

    def pick(logits, *_):
        return torch.full((len(logits),), ord(next(letters)))

    monkeypatch.setattr("rdlib.engines.transformers_engine.pick_tokens", pick)
    return TransformersEngine(model, Letters(), 64, 400)


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
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
    engine = VllmEngine.__new__(VllmEngine)
    engine.tokenizer = saying(small, monkeypatch, RUN_ON, template).tokenizer
    engine.stop, engine.top_p, engine.max_tokens, engine.end_tokens = ("END",), 1.0, 50, [1]
    request = Request([20, 21], 1, 1.0, STOP)
    asked = engine._sampling(request, 0, None)
    assert asked.stop == (["END"] if template else ["END", *STOP]) and asked.detokenize
    sample = SimpleNamespace(token_ids=[ord(c) for c in RUN_ON], finish_reason="stop")
    assert engine._completion(sample, request).text == (RUN_ON if template else STOPPED)


@pytest.mark.parametrize("stop", ["4 =", " 1", "\u00e9"])
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


REPEATED, THOUGHT, CUT_OFF = "\nQuestion: 1 + 1?\n", "<think>\nQuestion: 1 + 1?</think>", "<think>What\nQuestion: 1"
RUN_ON_CASES = {
    "run on": (RUN_ON, STOPPED, "stop"),
    "the question repeated at the beginning stays": (REPEATED + STOPPED, REPEATED + STOPPED, "length"),
    "thinking stays": (THOUGHT + RUN_ON, THOUGHT + STOPPED, "stop"),
    "thinking that was cut off stays": (CUT_OFF, CUT_OFF, "length"),
}


@pytest.mark.parametrize(("text", "expected", "reason"), RUN_ON_CASES.values(), ids=RUN_ON_CASES)
def test_recorded_and_served_responses_are_cut_there_too(tmp_path, fake, text, expected, reason):
    engine = recording(tmp_path / "r.jsonl", [{"id": "q1", "text": text, "finished": False}])
    fake.faults = [(200, {}, {"choices": [{"message": {"content": text}, "finish_reason": "length"}]})]
    for asked in (engine, engine_of(fake, thinking="keep")):
        ((completion,),) = asked.generate([Request(prompt_of(1), 1, 1.0, STOP)], 0)
        assert (completion.text.strip(), completion.finish_reason) == (expected.strip(), reason)
    assert "stop" not in fake.calls[0]  # a server's model may think, and mention a question


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
    recording(tmp_path / "r.jsonl", [{"id": f"q{i}", "text": "So (D)."} for i in range(2)])
    settings = SimpleNamespace(generation=SimpleNamespace(shard_size=8))
    stage = SimpleNamespace(root=tmp_path, profile=settings, answer_kind="choice")
    plan, prompts = plan_of(2, n=1, temperatures=(1.0,))
    prompts = {key: replace(prompts[key], options=number) for key, number in (("q0", 3), ("q1", 4))}
    with sampled(stage, Model(model="r.jsonl", engine="replay"), plan, prompts, tmp_path / "w", 0) as responses:
        assert [None if pd.isna(answer) else answer for answer in responses["answer"]] == [None, "D"]


# ---- replay


def recording(path, records) -> ReplayEngine:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return ReplayEngine(path)


def replay(engine, number: int, n: int = 1, temperature: float = 1.0) -> list[Completion]:
    return engine.generate([Request(prompt_of(number), n, temperature)], 0)[0]


def test_records_are_found_by_id_by_question_or_by_its_hash(tmp_path):
    """By a hash, so that a recording can be kept where the questions' texts may not."""
    hashes = [hashlib.sha256(f"What is {i} + 1?".encode()).hexdigest() for i in range(4)]
    records = [{"id": "q1", "text": "two"}, {"question": "What is 2 + 1?", "text": "3"}]
    records += [{"id": "other", "question_sha256": hashes[3], "text": "4"}]
    engine = recording(tmp_path / "r.jsonl", records)
    assert replay(engine, 1) == [Completion("two", None, 1, "stop")]
    assert [replay(engine, number)[0].text for number in (2, 3)] == ["3", "4"]
    engine = recording(tmp_path / "s.jsonl", [{"id": "q2", "question_sha256": hashes[1], "text": "2"}])
    refused(r"has the id 'q2' with another question .* than this study .'What is 2 \+ 1", replay, engine, 2)


def test_records_come_by_temperature_in_the_order_of_samples_and_of_files(tmp_path):
    records = [
        {"id": "q1", "temperature": t, "sample": s, "text": f"{t}/{s}", "tokens": 9, "finish_reason": reason}
        for t in (0.7, 1)
        for s, reason in ((1, "length"), (0, "stop"))
    ]
    engine = recording(tmp_path / "r.jsonl", records)
    assert replay(engine, 1, 2, 0.7) == [Completion("0.7/0", None, 9, "stop"), Completion("0.7/1", None, 9, "length")]
    assert replay(engine, 1, 1, 1.0)[0].text == "1/0"
    (tmp_path / "many").mkdir()
    for name, text in (("b", "second"), ("a", "first")):
        recording(tmp_path / f"many/{name}.jsonl", [{"id": "q1", "text": text}])
    assert [c.text for c in replay(ReplayEngine(tmp_path / "many"), 1, 2)] == ["first", "second"]


def test_asking_for_what_was_not_recorded(tmp_path):
    engine = recording(tmp_path / "r.jsonl", [{"id": "q1", "temperature": 1.0, "text": "a"}] * 2)
    for number, temperature, has in ((1, 1.0, 2), (1, 0.5, 0), (2, 1.0, 0)):
        words = rf"has {has} of the 3 responses that are asked for to question 'q{number}'"
        refused(words, replay, engine, number, 3, temperature)
    without = recording(tmp_path / "s.jsonl", [{"id": "q1", "text": "a"}, {"id": "q1", "text": "b"}])
    assert [c.text for c in replay(without, 1, 2, 0.7)] == ["a", "b"]
    refused(r"tells no temperatures, but responses at 0\.7 and at 1 are asked for", replay, without, 1, 1, 1.0)


BAD = [
    ("r.jsonl", "", "is empty"),
    ("r.jsonl", "{}\n", "Line 1 of the recording .* does not say which question"),
    ("r.jsonl", '{"id": "q1", "text": "a"}\n{"id": "q1"}\n', "Line 2 of the recording .* has no text"),
    ("r.jsonl", '{"id": "q1", "text": "a", "temperature": "hot"}\n', "temperature 'hot'"),
    ("r.jsonl", "5\n", "Line 1 of .* holds int where an object belongs"),
    ("r.jsonl", '{"id": "q1", "text": "\udcff"}\n', "Line 1 of .* is not UTF-8"),
    ("r.jsonl", '{"id": "q1", "text": "a", "text": "b"}\n', "Line 1 of .* has the field 'text' twice"),
    ("r.jsonl", '{"id": ["q1"], "text": "a"}\n', "the id \"\\['q1'\\]\": give text or a number"),
    ("r.jsonl", '{"id": "q1", "text": "a", "sample": "2"}\n', "the sample '2': give a number"),
    ("r.jsonl", '{"id": "q1", "text": "a", "tokens": -5}\n', "the tokens '-5': give a number from 0 up"),
    ("r.jsonl", '{"id": "q1", "text": "a", "finished": "false"}\n', "strange finished or finish_reason"),
    (
        "r.jsonl",
        '{"id": "q1", "text": "a"}\n{"id": "q1", "text": "b", "temperature": 1}\n',
        "a temperature and without",
    ),
    ("none.jsonl", None, "There is no recording"),
    ("r.csv", "a,b\n", "neither Parquet nor JSONL"),
    ("r.parquet", "PAR1", "not a readable Parquet"),
    ("", None, "is empty"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_bad_recording(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    refused(message, ReplayEngine, tmp_path / name)


def test_a_teachers_responses_replayed_give_the_same_stage_or_are_refused_before_the_first_notebook(study, tmp_path):
    made = stage_in(study, "01_teacher_responses")
    teachers = {"strong": {"model": "recording.parquet", "engine": "replay"}, "weak": "models/weak"}
    root = make_root(tmp_path / "root", teachers=teachers)
    stages, recorded = [stage_in(root, "00_data"), stage_in(root, "01_teacher_responses")], made.table("responses")
    refused("There is no recording", requirements.check_teachers, stages)
    recorded[recorded["id"] != recorded["id"].iloc[0]].to_parquet(root / "recording.parquet")
    refused("has 0 of the .* responses that are asked for to question", requirements.check_teachers, stages)
    recorded.to_parquet(root / "recording.parquet")
    requirements.check_teachers(stages)
    stage = stages[1].run_with_inputs()
    pd.testing.assert_frame_equal(stage.table("responses"), recorded)
    assert stage.key != made.key


NAMES = ("id", "question", "text", "temperature", "sample", "tokens", "finished", "finish_reason")


@st.composite
def any_recording(draw) -> tuple[str, list | bytes]:
    """(file name, records or bytes)."""
    base = {"id": st.sampled_from(["q0", "q1", "q2"]), "text": texts | st.just("#### 7")}
    base |= {"temperature": st.sampled_from([0, 0.7, 1.0])} if draw(st.integers(0, 2)) else {}
    more = {"sample": st.integers(0, 9), "tokens": st.integers(0, 99), "finished": st.booleans()}
    record = st.fixed_dictionaries(base) | st.fixed_dictionaries(base | more)
    records = draw(mutated(draw(st.lists(record, min_size=1, max_size=9)), NAMES))
    if draw(st.integers(0, 9)) == 0:
        return "r.parquet", records
    return "r.jsonl", draw(broken(b"\n".join(map(as_json, records))))


@pytest.mark.fuzz
@given(any_recording())
def test_any_recording_is_served_as_a_whole_or_refused(tmp_path_factory, case):
    name, content = case
    path = tmp_path_factory.getbasetemp() / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        assume(as_parquet(content, path))
    try:
        engine = ReplayEngine(path)
    except UserError as error:
        return assert_one_line(error)
    if isinstance(content, bytes):
        rows = json_rows(content, b"\n")
    else:
        rows = pd.read_parquet(path).astype(object).to_dict("records")
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        record = {k: v for k, v in row.items() if not (pd.api.types.is_scalar(v) and pd.isna(v))}
        of = "id" if record.get("id") not in (None, "") else "question"
        assert isinstance(record[of], str | int | float | Decimal) and not isinstance(record[of], bool)
        key = record[of]
        key = int(key) if isinstance(key, float | Decimal) and key == int(key) else key
        heat = record.get("temperature")
        groups.setdefault((of, str(key), None if heat is None else round(float(heat), 6)), []).append(record)
    for (of, key, heat), group in groups.items():
        prompt = Prompt((), "", key, "") if of == "id" else Prompt((), "", "no such id", key)
        engine.temperature = None
        served = engine.generate([Request(prompt, len(group), 1.0 if heat is None else heat)], 0)[0]
        for record, completion in zip(sorted(group, key=place_of), served, strict=True):
            assert completion.text == generation.clean(record["text"]) and 0 <= completion.count < 2**31
            ended = record.get("finished", record.get("finish_reason", "stop") == "stop")
            assert isinstance(ended, bool | int) and completion.finished == bool(ended)


def place_of(record: dict) -> float:
    """A record's place among its question's; one that is NaN or infinite counts as none."""
    sample = record.get("sample")
    assert sample is None or (isinstance(sample, int | float | Decimal) and not isinstance(sample, bool))
    return sample if sample is not None and math.isfinite(sample) else 0


# ---- top_p of the transformers engine


def test_top_p_samples_from_the_fewest_tokens_that_hold_the_share_in_the_models_proportions():
    chances = torch.tensor([[0.1, 0.5, 0.25, 0.15], [0.97, 0.01, 0.01, 0.01]])
    assert nucleus(chances, 0.6).tolist() == [[0, 0.5, 0.25, 0], [pytest.approx(0.97), 0, 0, 0]]
    logits = chances[:1].log().expand(20_000, 4)
    picked = pick_tokens(logits, torch.ones(20_000), torch.Generator().manual_seed(0), top_p=0.7)
    shares = torch.bincount(picked, minlength=4) / 20_000
    assert shares.tolist() == [0, pytest.approx(2 / 3, abs=0.01), pytest.approx(1 / 3, abs=0.01), 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("words", [3, 30_000])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_what_is_picked_is_the_first_token_that_the_uniform_number_lies_below(words, dtype, top_p):
    """As release 1.0.0 counted it over the whole vocabulary, so that its bytes stay."""
    generator = torch.Generator().manual_seed(words)
    logits = (3 * torch.randn(40, words, generator=generator)).to(dtype)
    temperature = torch.rand(40, generator=generator) + 0.1
    picked = pick_tokens(logits, temperature, torch.Generator().manual_seed(0), top_p)
    chances = (logits / temperature[:, None]).float().softmax(-1)
    cumulative = (nucleus(chances, top_p) if top_p < 1 else chances).cumsum(-1)
    uniform = torch.rand(40, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(picked, (cumulative <= uniform * cumulative[:, -1:]).sum(-1).clamp(max=words - 1))
    temperature[::2] = 0
    mixed = pick_tokens(logits, temperature, torch.Generator().manual_seed(0), top_p)
    assert torch.equal(mixed[1::2], picked[1::2]) and torch.equal(mixed[::2], logits[::2].argmax(-1))


# ---- the transformers engine against transformers' own generation and the model's distribution


MAX_TOKENS = 60


@pytest.fixture(scope="module")
def prompts(small):
    return small[1](prompt_texts())["input_ids"]


def local_engine(small, batch_size=64, max_tokens=MAX_TOKENS) -> TransformersEngine:
    return TransformersEngine(*small, batch_size, max_tokens)


@pytest.mark.parametrize("batch_size", [5, 64])
def test_greedy_equals_transformers_whatever_the_batch_size(small, prompts, batch_size):
    model, _ = small
    ours = local_engine(small, batch_size).generate([Request(p, 1, 0.0) for p in prompts], seed=0)
    for prompt, (completion,) in zip(prompts, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=MAX_TOKENS, do_sample=False)
        assert completion.tokens == theirs[0, len(prompt) :].tolist()


def test_a_frozen_output_layer_is_not_copied_for_each_prompt(small):
    """As torch does on a CPU for states that are not contiguous: with 64 prompts and a real vocabulary, 17 GB."""
    model = make_model("llama").requires_grad_(False)
    seen = []
    model.lm_head.register_forward_pre_hook(lambda _, given: seen.append((*given[0].shape, given[0].is_contiguous())))
    TransformersEngine(model, small[1], 8, 2).generate([Request([5] * n, 1, 0.0) for n in (3, 7, 4)], seed=0)
    assert seen[0] == (3, 1, model.config.hidden_size, True)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_follow_the_models_distribution(small, prompts, temperature):
    model, n = small[0], 4000
    samples = local_engine(small, n, 1).generate([Request(prompts[0], n, temperature)], seed=3)[0]
    with torch.no_grad():
        logits = model(torch.tensor([prompts[0]])).logits[0, -1]
    counts = Counter(c.tokens[0] for c in samples)
    # The seed is fixed, so this cannot fail by chance; a wrong temperature gives p < 1e-20
    assert chi_square(counts, (logits / temperature).softmax(-1), n) > 1e-3


def test_long_samples_follow_the_model(small, prompts):
    """Mean log-probability of whole samples, rows dropped on the way, against the model's own entropy.

    The surprise of a token is its entropy in the mean, so the sum of (surprise - entropy) over the tokens is
    zero in the mean, with a variance that the model knows.
    """
    model, tokenizer = small
    samples = [c for group in local_engine(small).generate([Request(p, 20, 1.0) for p in prompts], 5) for c in group]
    excess = variance = 0.0
    rows = [p for p in prompts for _ in range(20)]
    with torch.no_grad():
        for prompt, completion in zip(rows, samples, strict=True):
            logits = model(torch.tensor([prompt + completion.tokens])).logits[0, len(prompt) - 1 : -1]
            surprise, chances = -logits.log_softmax(-1), logits.softmax(-1)
            entropy = (chances * surprise).sum(-1)
            taken = surprise.gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
            excess += (taken - entropy).sum().item()
            variance += ((chances * surprise**2).sum(-1) - entropy**2).sum().item()
    assert abs(excess) < 4 * variance**0.5
    assert tokenizer.pad_token_id not in {t for c in samples for t in c.tokens}


def test_the_global_generator_is_left_alone(small, prompts):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    local_engine(small).generate([Request(prompts[0], 4, 1.0)], 1)
    assert torch.equal(torch.rand(1), expected)


def test_finished_means_ended_by_the_end_token(small, prompts):
    eos = small[1].eos_token_id
    for limit in (3, MAX_TOKENS):
        groups = local_engine(small, 64, limit).generate([Request(p, 5, 1.0) for p in prompts], 0)
        for completion in (c for group in groups for c in group):
            assert completion.finished == (completion.tokens[-1] == eos)
            assert eos not in completion.tokens[:-1]
            assert len(completion.tokens) == limit or completion.finished
    assert completion.finished


def test_a_sampled_padding_token_is_a_token_like_others(small, prompts, monkeypatch):
    """A model may sample the padding token; nothing after it may get lost."""
    eos, pad = small[1].eos_token_id, small[1].pad_token_id
    script = iter([[20, 20], [pad, 21], [22, eos], [eos, 99]])
    monkeypatch.setattr(
        transformers_engine, "pick_tokens", lambda logits, *_: torch.tensor(next(script))[: len(logits)]
    )
    first, second = local_engine(small).generate([Request(prompts[0], 2, 1.0)], 0)[0]
    assert (second.tokens, second.count, second.finish_reason) == ([20, 21, eos], 3, "stop")
    assert (first.tokens, first.count, first.finish_reason) == ([20, pad, 22, eos], 4, "stop")


class CountingEngine(TransformersEngine):
    """Counts its calls, and fails in one of them."""

    calls, fail_at = 0, None

    def generate(self, requests, seed):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return super().generate(requests, seed)


def test_the_table_has_a_row_a_sample_and_an_interrupted_run_goes_on_with_the_same_result(small, tmp_path):
    """Also where a machine that lost power left a file that was renamed but not written out."""
    asked = {f"q{i}": Prompt((), text) for i, text in enumerate(prompt_texts())}
    plan = pd.DataFrame([(key, t, n) for key in asked for t, n in ((0.0, 1), (1.0, 3))])
    plan = plan.set_axis(["id", "temperature", "n"], axis=1)
    whole, broken, again = (CountingEngine(*small, 64, MAX_TOKENS) for _ in range(3))
    frame = sample_to_disk(whole, plan, asked, tmp_path / "whole", seed=1, shard_size=8)
    assert list(frame.columns) == ["id", "temperature", "sample", "text", "tokens", "finished"] and whole.calls == 6
    assert frame.groupby(["id", "temperature"], sort=False)["sample"].apply(list).tolist() == [[0], [0, 1, 2]] * 12
    # The text leaves the special tokens out, and `tokens` counts the end token
    lengths = [len(ids) for ids in small[1](frame["text"].tolist())["input_ids"]]
    assert (frame["tokens"] == lengths + frame["finished"]).all()
    broken.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        sample_to_disk(broken, plan, asked, tmp_path, seed=1, shard_size=8)
    shard = sorted((tmp_path / "shards").iterdir())[-1]
    shard.write_bytes(shard.read_bytes()[:100])
    pd.testing.assert_frame_equal(sample_to_disk(again, plan, asked, tmp_path, 1, 8), frame)
    assert again.calls == 5
