"""Real benchmarks and own questions: splits, ids, gold answers and bad files."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import datasets
import pandas as pd
import pytest
import yaml
from conftest import SHARED, make_root, needs_data, refused, stage_in, tiny_settings
from hostile import assert_one_line, broken, mutated
from hypothesis import assume, given
from hypothesis import strategies as st

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.method import evaluate
from rdlib.profile import load_profile
from rdlib.settings import Dataset
from rdlib.tasks import answers, benchmarks, data, own_questions, prompts, sources
from rdlib.tasks.problems import source_problem
from rdlib.tasks.questions import LETTERS, PERTURBED, Question, require_sound
from rdlib.tasks.splits import assign

DATA = SHARED / "data"
ALL = {"train": None, "validation": None, "test": None, "max_tokens": 256}
GSM8K = Dataset(source="gsm8k", answer="math", path="gsm8k", perturbed_path="gsm_plus", perturbed_test=None, **ALL)
MMLU_PRO = Dataset(source="mmlu_pro", answer="choice", path="mmlu_pro", **ALL)
OWN = Dataset(source="questions", answer="math", path="q.jsonl", **ALL)


def write(path: Path, rows: list[dict]) -> Path:
    """Rows as a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def own(tmp_path: Path, rows: list[dict], **changes) -> list[Question]:
    """Rows as a file of own questions, loaded."""
    write(tmp_path / "q.jsonl", rows)
    return data.load("mine", OWN.model_copy(update=changes), tmp_path)


# ---- the benchmarks' own files


@pytest.fixture(scope="module")
def real():
    """Every question of both benchmarks by dataset."""
    return {d.source: data.load("any", d, DATA) for d in (GSM8K, MMLU_PRO)}


@needs_data
def test_splits_have_the_sizes_of_the_papers_shares(real):
    sizes = {name: Counter(q.split for q in questions) for name, questions in real.items()}
    assert sizes["gsm8k"] == {"train": 6726, "validation": 747, "test": 1319, PERTURBED: 2400}
    assert sizes["mmlu_pro"] == {"train": 9204, "validation": 1023, "test": 1805}


@needs_data
@pytest.mark.parametrize("dataset", [GSM8K, MMLU_PRO], ids=lambda d: d.source)
def test_no_text_is_trained_on_and_tested_nor_shown_in_a_prompt(real, dataset):
    """Nor one that occurs several times, as some of MMLU-Pro do."""
    texts = {split: {q.text for q in real[dataset.source] if q.split == split} for split in (*data.SPLITS, PERTURBED)}
    assert dataset is GSM8K or sum(map(len, texts.values())) < len(real["mmlu_pro"])
    assert not texts["train"] & texts["validation"]
    tested = texts["test"] | texts[PERTURBED]
    assert not tested & (texts["train"] | texts["validation"])
    examples = data.worked_examples("any", dataset, DATA)
    shown = {Question("", "", "", question).text for question, _, _ in examples}
    assert len(shown) >= 69 and not shown & (tested | texts["validation"])


@needs_data
def test_gold_answers_and_groups(real, tmp_path):
    """Parquet is read like JSONL."""
    by_id = {q.id: q for questions in real.values() for q in questions}
    assert len(by_id) == sum(map(len, real.values()))
    first, choice = by_id["gsm8k-train-00000"], by_id["mmlu_pro-70"]
    assert first.answer == "72" and first.solution.startswith("Natalia sold 48/2 = 24 clips")
    assert not any("<<" in (q.solution or "") for q in real["gsm8k"])
    assert (choice.answer, choice.group, len(choice.options)) == ("I", "business", 9)
    assert set(Counter(q.group for q in real["gsm8k"] if q.split == PERTURBED).values()) == {300}
    assert {q.group for q in real["gsm8k"] if q.answer == answers.UNANSWERABLE} == {"critical thinking"}
    assert {len(q.options) for q in real["mmlu_pro"]} == set(range(3, 11))
    assert len({q.group for q in real["mmlu_pro"]}) == 14
    (tmp_path / "mmlu_pro").mkdir()
    for name in ("test", "validation"):
        frame = pd.read_json(DATA / f"mmlu_pro/{name}.jsonl", lines=True)
        frame.to_parquet(tmp_path / f"mmlu_pro/{name}.parquet")
    assert data.load("any", MMLU_PRO, tmp_path) == real["mmlu_pro"]


@needs_data
def test_worked_examples_end_in_the_gold_answer(real):
    train = {q.question: q.answer for q in real["gsm8k"] if q.split == "train"}
    for question, _, solution in data.worked_examples("any", GSM8K, DATA)[:500]:
        assert answers.find(solution, "math") == answers.Found(train[question], "hash")
    examples = benchmarks.mmlu_pro_examples(MMLU_PRO, DATA)
    assert len(examples) == 70
    for example in examples:
        assert answers.extract(example.solution, "choice") == example.answer
        assert not example.solution.startswith("A:")


@needs_data
def test_caps_are_seeded_parts_of_each_other(real):
    def ids(**changes) -> dict[str, set[str]]:
        chosen = data.load("g", GSM8K.model_copy(update=changes | {"perturbed_test": 0}), DATA)
        return {split: {q.id for q in chosen if q.split == split} for split in data.SPLITS}

    small, large = ids(train=50, test=20), ids(train=100, test=20)
    assert len(small["train"]) == 50 and small["train"] < large["train"]
    assert small["test"] == large["test"] and small["validation"] == large["validation"]
    assert small["test"] != {f"gsm8k-test-{i:05d}" for i in range(20)}
    assert ids(split_seed=1)["validation"] != ids()["validation"]
    refused(r"datasets.g.train is 7000, but there are 6726 questions", ids, train=7000)


# ---- the hub, and files that cannot be read

ROWS = {
    ("openai/gsm8k", "train"): [{"question": f"q{i}?", "answer": f"#### {i}"} for i in range(20)],
    ("openai/gsm8k", "test"): [{"question": "t?", "answer": "#### 1,080"}],
    ("qintongli/GSM-Plus", "test"): [{"question": "p?", "answer": "1/3", "perturbation_type": "digit expansion"}],
}


def test_the_hub_is_asked_for_pinned_commits_and_no_network_is_one_sentence(tmp_path, monkeypatch):
    asked = []

    def load_dataset(repository, config, *, split, revision):
        asked.append((split, revision))
        if repository not in {name for name, _ in ROWS}:
            raise ConnectionError("Couldn't reach the Hub\nfor many reasons")
        return datasets.Dataset.from_list(ROWS[repository, split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    settings = GSM8K.model_copy(update={"path": None, "perturbed_path": None, "revision": "a" * 40})
    questions = data.load("g", settings, tmp_path)
    assert Counter(q.split for q in questions) == {"train": 18, "validation": 2, "test": 1, PERTURBED: 1}
    assert [q.answer for q in questions[-2:]] == ["1080", "1/3"]
    plus = sources.GSM_PLUS.revision
    assert asked == [("train", "a" * 40), ("test", "a" * 40), ("test", plus)]
    content = sources.identity(settings, tmp_path)
    assert content == {"openai/gsm8k": "a" * 40, "gsm_plus qintongli/GSM-Plus": plus}
    message = r"TIGER-Lab/MMLU-Pro at b189ec7 cannot be read from the hub \(Couldn't reach the Hub\).*give a folder"
    refused(message, lambda: data.load("m", MMLU_PRO.model_copy(update={"path": None}), tmp_path))


CHOSEN = {"question_id": 1, "question": "q?", "options": ["x", "y", "z"], "answer": "A", "category": "law"}


@pytest.mark.parametrize(
    ("dataset", "file", "row", "words"),
    [
        (GSM8K, "train", {"question": "q?", "answer": "four"}, "no number after '####'"),
        (GSM8K, "train", {"question": "q?"}, "'answer' is missing"),
        (GSM8K, "train", {"question": 4, "answer": "#### 4"}, "'question' is int where text belongs"),
        (MMLU_PRO, "test", CHOSEN | {"answer": "E"}, "'E' is no letter of its 3 options"),
        (MMLU_PRO, "test", CHOSEN | {"options": ["a"]}, "list of 2 to 10 texts, not 1 of them"),
        (MMLU_PRO, "test", CHOSEN | {"question_id": None}, "'question_id' is no whole number"),
    ],
)
def test_bad_rows_of_benchmarks(tmp_path, dataset, file, row, words):
    good = {"question": "fine?", "answer": "#### 1"} if dataset is GSM8K else CHOSEN
    write(tmp_path / dataset.source / f"{file}.jsonl", [good, row])
    refused(f"{file}.jsonl, line 2: .*{words}", data.load, "any", dataset, tmp_path)


LATIN = '{"question": "a?"}\n{"question": "caf\u00e9?"}\n'.encode("latin-1")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.jsonl", b"", "q.jsonl.*holds no rows"),
        ("q.jsonl", b'{"question": "a?"}\n{"question": \n', r"q.jsonl.*line 2 is not JSON \("),
        ("q.jsonl", b'{"question": "a?"}\n["b?"]\n', "line 2 holds list where an object belongs"),
        ("q.jsonl", LATIN, "line 2 is not UTF-8"),
        ("q.jsonl", '{"question": "a?"}\n'.encode("utf-16"), "line 1 is not UTF-8"),
        ("q.jsonl", b"[" * 100_000, "line 1 is not JSON that can be read"),
        ("q.jsonl", b'{"question": "a?", "answer": "1", "answer": "2"}', "line 1 has the field 'answer' twice"),
        ("q.jsonl", b'{"question": 1.5}', "'question' is float where text belongs"),
        ("q.csv", b"question\na?\n", "neither JSONL nor Parquet"),
        ("q.parquet", b"PAR1 and no more", "not a readable Parquet file"),
        ("folder.jsonl", None, "cannot be read"),
        ("none.jsonl", None, "There is no file"),
        ("gsm8k", None, "gsm8k is no folder"),
        ("gsm8k/README", b"", r"gsm8k has no train.jsonl \(nor .parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, words):
    settings = GSM8K if "gsm8k" in name else OWN.model_copy(update={"path": name})
    (tmp_path / "folder.jsonl").mkdir()
    if content is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    refused(words, data.load, "mine", settings, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "main"}, "'datasets.gsm.revision' .*a branch or tag can move"),
        ({"answer": "number"}, "datasets.gsm.answer must be 'math'"),
    ],
)
def test_profiles_of_real_benchmarks(tmp_path, change, words):
    content = tiny_settings()
    content["datasets"]["gsm"] = GSM8K.model_dump() | change
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    refused(words, load_profile, tmp_path / "p.yaml")


# ---- splits


@given(st.lists(st.sampled_from("abcdefghij")), st.integers(0, 8), st.integers(0, 8), st.integers(0, 3))
def test_equal_texts_get_one_split_whatever_their_order(texts, first, second, seed):
    sizes = {"test": first, "train": second}
    found = assign(texts, sizes, str(seed))
    split_of = dict(zip(texts, found, strict=True))
    assert [split_of[text] for text in texts] == found
    assert dict(zip(reversed(texts), assign(texts[::-1], sizes, str(seed)), strict=True)) == split_of
    largest = max(Counter(texts).values(), default=0)
    for split, size in sizes.items():
        assert found.count(split) < size + max(largest, 1)
    assert found.count("test") >= min(first, len(texts))


def test_the_same_text_on_both_sides_is_refused():
    train, test = Question("a", "train", "", "What  is it?"), Question("b", "test", "", "what is it?")
    refused(r"a \(train\) and b \(test\) have the same text", require_sound, [train, test])
    require_sound([replace(train, split=PERTURBED), test])
    refused("the id 'a'", lambda: require_sound([train, replace(test, id="a", split="train")]))


# ---- own questions


def asked(count: int, **fields) -> list[dict]:
    """Questions that differ."""
    return [{"question": f"What is {i} + 1?", **fields} for i in range(count)]


def test_own_questions_with_answers_are_split_80_10_10(tmp_path):
    rows = [row | {"answer": i + 1} for i, row in enumerate(asked(50))]
    questions = own(tmp_path, rows)
    assert Counter(q.split for q in questions) == {"train": 40, "validation": 5, "test": 5}
    assert {q.id for q in questions} == {own_questions.own_id("mine", row["question"]) for row in rows}
    answer_of = {row["question"]: row["answer"] for row in rows}
    assert all(int(q.answer) == answer_of[q.question] for q in questions)
    assert own(tmp_path, rows) == questions
    assert own(tmp_path, rows, split_seed=1) != questions
    counts = Counter(q.split for q in own(tmp_path, rows, train=10, validation=20, test=7))
    assert counts == {"train": 10, "validation": 20, "test": 7}


def test_questions_with_answers_are_tested_first_and_others_held_out(tmp_path):
    rows = asked(45) + [{"question": f"Labelled {i}?", "answer": "1"} for i in range(5)]
    questions = own(tmp_path, rows)
    assert Counter(q.split for q in questions) == {"train": 40, "validation": 5, "test": 5}
    assert all(q.answer == "1" for q in questions if q.split == "test")
    more = [q for q in own(tmp_path, rows, test=8) if q.split == "test"]
    assert Counter(q.answer for q in more) == {"1": 5, None: 3}
    fewer = [q for q in own(tmp_path, rows, test=3) if q.split == "test"]
    assert {q.id for q in fewer} < {q.id for q in more} and all(q.answer for q in fewer)
    assert Counter(q.split for q in own(tmp_path, asked(50))) == {"train": 40, "validation": 5, "test": 5}
    refused("datasets.mine.test is 51, but the file has 50 questions", lambda: own(tmp_path, asked(50), test=51))


def test_given_splits_ids_and_groups_are_kept(tmp_path):
    splits = ["train", "train", "validation", "test"]
    rows = asked(4, group="g", answer="3")
    rows = [row | {"split": split, "id": f"x{i}"} for i, (row, split) in enumerate(zip(rows, splits, strict=True))]
    expected = [(f"x{i}", split, "g", "3") for i, split in enumerate(splits)]
    assert [(q.id, q.split, q.group, q.answer) for q in own(tmp_path, rows)] == expected


@pytest.mark.parametrize(
    ("kind", "given", "gold"),
    [
        ("math", "1,080.0", "1080"),
        ("math", 1e-3, "0.001"),
        ("math", 42, "42"),
        ("math", "1/3", "1/3"),
        ("phrase", "The Jane  Austen.", "jane austen"),
        ("number", "007", "7"),
    ],
)
def test_gold_answers_look_like_extracted_ones(tmp_path, kind, given, gold):
    questions = own(tmp_path, asked(9, answer=given), answer=kind)
    assert {q.answer for q in questions} == {gold}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_choice_may_be_given_by_letter_or_text(tmp_path, suffix):
    rows = asked(8, options=["zinc", "chalk", "iron"], answer="iron")
    rows += [{"question": "?", "options": ["a", "b"], "answer": "b"}]
    rows += [{"question": "last?", "options": ["x", "z"], "answer": None}]
    write(tmp_path / "q.jsonl", rows)
    pd.DataFrame(rows).to_parquet(tmp_path / "q.parquet")
    settings = OWN.model_copy(update={"path": f"q.{suffix}", "answer": "choice"})
    questions = data.load("mine", settings, tmp_path)
    assert Counter(q.answer for q in questions) == {"C": 8, "B": 1, None: 1}
    assert all(2 <= len(q.options) <= 3 for q in questions)


CHOICE = {"question": "q?", "options": ["x", "y"], "answer": "x"}


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("math", {"question": " "}, "'question' is empty"),
        ("math", {"text": "q?"}, "'question' is missing"),
        ("math", {"question": "q?", "awnser": "4"}, "did you mean 'answer'"),
        ("math", {"question": "q" * 1_000_000}, "has 1,000,000 characters, more than 20,000"),
        ("math", {"question": "a\u0007b"}, r"control character U\+0007"),
        ("math", {"question": "a\ud800b"}, "half of a surrogate pair"),
        ("math", {"question": "q?", "answer": "many"}, "'many' is none of the kind 'math'"),
        ("math", {"question": "q?", "answer": 10**400}, "no number that an answer can be"),
        ("math", {"question": "q?", "id": {}}, "'id' is dict"),
        ("math", {"question": "q?", "split": "dev"}, "'dev' is not one of train, validation, test"),
        ("math", {"question": "What is  0 + 1?"}, "asks what line 1 asks"),
        ("math", {"question": "q?", "id": own_questions.own_id("mine", "What is 0 + 1?")}, "is that of line 1 too"),
        ("math", CHOICE, "use answer: choice"),
        ("choice", {"question": "q?"}, "'options' is missing"),
        ("choice", CHOICE | {"options": "xy"}, "must be a list of 2 to 10 texts, not str"),
        ("choice", CHOICE | {"options": list("abcdefghijk")}, "not 11 of them"),
        ("choice", CHOICE | {"options": ["x", "x"]}, "two of its options are the same"),
        ("choice", CHOICE | {"options": ["x", 2]}, "an option is int"),
        ("choice", CHOICE | {"answer": "z"}, "'z' is neither an option nor a letter of A to B"),
    ],
)
def test_bad_rows_are_named(tmp_path, kind, row, words):
    good = asked(9, options=["u", "v"]) if kind == "choice" else asked(9)
    message = refused(f"q.jsonl, line 10: .*{words}", own, tmp_path, [*good, row], answer=kind)
    assert len(message.splitlines()) == 1 and len(message) < 300 + len(str(tmp_path))


# ---- any file: all rows become questions with their own answers, or it is refused


@st.composite
def any_questions(draw) -> tuple[str, list | bytes, str]:
    """(file name, rows or bytes, kind of answer)."""
    kind = draw(st.sampled_from(["math", "number", "choice", "phrase", "text"]))
    rows = [draw(good_row(i, kind)) for i in range(draw(st.integers(3, 9)))]
    if draw(st.integers(0, 3)) == 0:
        rows = [row | {"split": draw(st.sampled_from(["train", "train", "validation", "test"]))} for row in rows]
    rows = draw(mutated(rows, (*own_questions.FIELDS, "anser")))
    if draw(st.integers(0, 9)) == 0:
        return "q.parquet", rows, kind
    lines = [json.dumps(row, ensure_ascii=draw(st.booleans()), default=str) for row in rows]
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\n\n"]))
    start = draw(st.sampled_from(["", "", "\ufeff"]))
    return "q.jsonl", draw(broken((start + end.join(lines)).encode("utf-8", "surrogatepass"))), kind


@st.composite
def good_row(draw, number: int, kind: str) -> dict:
    row: dict = {"question": f"{' '.join(draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=6)))} {number}?"}
    if kind == "choice":
        words = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=10, unique=True))
        row["options"] = [f"{word} {i}" for i, word in enumerate(words)]
        row["answer"] = draw(st.sampled_from([*LETTERS[: len(words)], *row["options"]]))
    elif draw(st.integers(0, 4)):
        number_given = st.sampled_from(["7", "1,234", 2.5]) | st.integers(-99, 9999)
        row["answer"] = "iron" if kind in ("phrase", "text") else draw(number_given)
    return row | draw(st.sampled_from([{}, {}, {"id": f"q{number}"}, {"id": number}]))


WORDS = "tom has apples so the total of each day and 9 friends".split()


@pytest.mark.fuzz
@given(any_questions())
def test_any_file_becomes_its_questions_or_is_refused(tmp_path_factory, case):
    name, content, kind = case
    path = tmp_path_factory.getbasetemp() / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        assume(as_parquet(content, path))
    try:
        questions = data.load("mine", OWN.model_copy(update={"answer": kind, "path": name}), path.parent)
    except UserError as error:
        return assert_one_line(error)
    rows = json_rows(content) if isinstance(content, bytes) else pd.read_parquet(path).to_dict("records")
    assert len(questions) == len(rows) == len({q.id for q in questions})
    by_text = {q.question: q for q in questions}
    for row in rows:
        assert_gold(by_text[row["question"].strip().replace("\r\n", "\n")], row, kind)


def as_parquet(rows: list, path: Path) -> bool:
    """Write those rows that are objects; False where Parquet cannot hold them."""
    try:
        pd.DataFrame([row for row in rows if isinstance(row, dict)]).to_parquet(path)
    except Exception:
        return False
    return True


def json_rows(content: bytes, ends: bytes = b"[\r\n]") -> list[dict]:
    """The rows of a JSONL file by a second reader; a field that is there twice is a list of its values."""

    def fields(pairs: list[tuple]) -> dict:
        found: dict = {}
        for name, value in pairs:
            found[name] = [found[name], value] if name in found else value
        return found

    lines = re.split(ends, content.removeprefix(b"\xef\xbb\xbf"))
    return [json.loads(line, object_pairs_hook=fields, parse_float=Decimal) for line in lines if line.strip()]


def assert_gold(question: Question, row: dict, kind: str) -> None:
    """A question's answer is that of its row."""
    given = row.get("answer")
    if given is None or (isinstance(given, float) and math.isnan(given)):
        assert question.answer is None
        return
    assert not isinstance(given, list)
    if kind == "choice":
        place = LETTERS.index(question.answer)
        assert given.strip() == row["options"][place].strip() or given.strip().upper() == question.answer
    elif isinstance(given, int | float | Decimal) and kind in ("math", "number"):
        assert Fraction(question.answer) == Fraction(str(given))


def test_the_key_of_a_stage_holds_the_content_of_the_file(tmp_path):
    mine = {"source": "questions", "answer": "number", "path": "q.jsonl", "max_tokens": 60}
    mine |= {"train": None, "validation": 8, "test": None}
    write(tmp_path / "q.jsonl", asked(10))
    root = make_root(tmp_path, datasets=tiny_settings()["datasets"] | {"mine": mine})
    key = stage_in(root, "00_data", dataset="mine").key
    assert stage_in(root, "00_data", dataset="mine").key == key
    write(root / "q.jsonl", asked(11))
    assert stage_in(root, "00_data", dataset="mine").key != key
    (root / "q.jsonl").unlink()
    refused("There is no file", lambda: stage_in(root, "00_data", dataset="mine").run())


# ---- grading


def test_refusals_answer_what_cannot_be_answered(cell):
    texts = ["It is not specified how many. #### None", "#### 4", "#### 5", "It cannot be determined. #### 5"]
    responses = pd.DataFrame({"id": ["c1", "c2", "n1", "n2"], "text": texts, "tokens": [9, 3, 3, 9]})
    responses["group"] = ["critical thinking"] * 2 + ["digit expansion"] * 2
    responses = responses.assign(split=PERTURBED, answer=[answers.extract(text, "number") for text in texts])
    gold = pd.Series({"c1": "None", "c2": "None", "n1": "5", "n2": "5"})
    graded = evaluate.grade(responses, gold, cell)
    assert graded["correct"].tolist() == [True, False, True, True]
    found = evaluate.details(graded, "math", {key: prompts.zero_shot(GSM8K, "?") for key in responses["id"]})
    assert found["by_group"] == {PERTURBED: {"critical thinking": 0.5, "digit expansion": 1.0}}
    assert found["without_critical_thinking"] == {PERTURBED: 1.0}
    assert found["mean_tokens"] == {PERTURBED: 6.0}


def test_a_large_model_file_is_known_by_blocks_from_its_first_to_its_last(tmp_path, monkeypatch):
    for name, value in (("WHOLE", 100), ("BLOCKS", 3), ("BLOCK", 10)):
        monkeypatch.setattr(sources, name, value)
    file = tmp_path / "weights.safetensors"

    def content(size: int = 101, changed: int | None = None) -> str:
        file.write_bytes(bytes(int(place == changed) for place in range(size)))
        return sources.content_of(tmp_path)[f"{tmp_path.name}/{file.name}"]

    whole = content()
    assert whole not in [content(changed=place) for place in (0, 45, 100)] and whole == content(changed=20)
    assert content(102) != whole and content(100) == artifacts.file_hash(file)


def test_one_row_moves_no_other(tmp_path):
    """Ids and splits depend on a question's own text, so paid responses stay with it."""
    rows = asked(60)
    before = {q.question: (q.id, q.split) for q in own(tmp_path, rows)}
    for changed in (rows[1:], rows[::-1], [*rows, {"question": "And one more?"}]):
        after = {q.question: (q.id, q.split) for q in own(tmp_path, changed)}
        same = [question for question in before.keys() & after.keys() if before[question] == after[question]]
        assert len(same) >= len(before.keys() & after.keys()) - 2  # at most one moves at each border of two splits
        assert all(before[q][0] == after[q][0] for q in before.keys() & after.keys())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (asked(20) * 2, r"line 21: it asks what line 1 asks \(20 such rows in all\)"),
        ([{"question": "Was ist ein B\u00e4r?"}, {"question": "Was ist ein Ba\u0308r?"}], "asks what line 1 asks"),
        ([{"prompt": "What?"}], "there is 'prompt': rename it to 'question'"),
        ([*asked(1, split="train"), {"question": "b?"}], "line 2: it has no 'split', though other rows have"),
        (asked(2), "asks for 1 train and 1 validation questions, but 1 are left beside 1 for"),
        (asked(3, split="train"), "has no validation question"),
        ([row | {"split": "train" if i else "validation"} for i, row in enumerate(asked(2))], "has no test question"),
    ],
)
def test_files_of_which_no_study_can_be_made_are_refused(tmp_path, rows, words):
    refused(words, own, tmp_path, rows)


# ---- the problem that a question was made from, by its id


# An own file named gsm-plus is numbered by five digits (rdlib.tasks.own_questions)
THEIR_OWN = ["gsm-test-0012", "gsm8k-test-00012", "mmlu_pro-70", "times-1", "surplus-0001", 7, "gsm-plus-00012"]
PROBLEMS = [
    ("gsm-plus-0000", "gsm-test-0000"),
    ("gsm-plus-0005", "gsm-test-0000"),
    ("gsm-plus-0006", "gsm-test-0001"),
    ("my-plus-plus-12345", "my-plus-test-2057"),
    ("gsm_plus-testmini-00007", "gsm_plus-testmini/0"),
    ("gsm_plus-test-10551", "gsm_plus-test/1318"),
    ("mmlu-test-0012.3", "mmlu-test-0012"),
    ("mmlu-test-12.3", "mmlu-test-12.3"),
    *((question, question) for question in THEIR_OWN),
]


@pytest.mark.parametrize(("question", "problem"), PROBLEMS)
def test_perturbed_questions_have_the_problem_they_were_made_from_and_others_are_their_own(question, problem):
    assert source_problem(question) == problem


def test_questions_of_one_stem_are_of_one_problem():
    """Ids of micro-mmlu, made as a study makes them, tell equal stems from different ones, and each question."""
    rows = data.micro_problems("mmlu", load_profile("params/micro.yaml").datasets["mmlu"])
    ids = [key for key, *_ in rows]
    assert len(set(ids)) == len(ids)
    for split in ("train", "validation", "test"):
        of_split = [(source_problem(key), problem) for key, its, _, problem in rows if its == split]
        pairs = {(source, problem.question) for source, problem in of_split}
        assert len(pairs) == len({source for source, _ in pairs}) == len({stem for _, stem in pairs}) < len(of_split)


@needs_data
def test_ids_of_testmini_tell_its_seed_questions():
    lines = (DATA / "gsm_plus/testmini.jsonl").read_text(encoding="utf-8").splitlines()
    questions = benchmarks.gsm_plus(GSM8K, DATA)
    pairs = {
        (source_problem(q.id), json.loads(line)["seed_question"]) for q, line in zip(questions, lines, strict=True)
    }
    assert len(questions) == 2400 and len(pairs) == 300  # each problem one seed question,
    assert len({problem for problem, _ in pairs}) == len({seed for _, seed in pairs}) == 300  # and each of these one
