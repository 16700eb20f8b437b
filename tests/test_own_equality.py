"""An equality of one's own, and aliases of gold answers: from profile and questions to what counts as right."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import make_root, stage_in, tiny_settings
from pydantic import ValidationError
from test_real_data import write

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.method import evaluate, voting
from rdlib.settings import Dataset
from rdlib.tasks import answers, data, own_equality
from rdlib.tasks.questions import as_gold, read_aliases, read_gold

SIZES = {"train": None, "validation": None, "test": None, "max_tokens": 60}
FUNCTION = """
NAMES = {"nyc": "new york", "big apple": "new york"}

def canonical(text):
    text = text.strip("*. ").casefold()
    return NAMES.get(text, text)
"""


def asked(count: int, **fields) -> list[dict]:
    return [{"question": f"What is question {i}?", **fields} for i in range(count)]


def settings(**given) -> Dataset:
    return Dataset(**{"source": "questions", "answer": "phrase", "path": "q.jsonl", **SIZES, **given})


# ---- an equality


def test_an_own_equality_reads_answers_of_models_and_of_questions(tmp_path):
    (tmp_path / "cities.py").write_text(FUNCTION)
    own = settings(equality="cities.py:canonical")
    kind = own_equality.kind_of(own, tmp_path)
    texts = ["#### NYC", "The answer is Boston, or not.", "**Answer:** New York", "#### Boston", "Who knows?"]
    found = [answers.extract(text, kind) for text in texts]
    assert found == ["new york", "boston, or not", "new york", "boston", None]
    assert answers.find("#### NYC", kind).rule == "hash"
    write(tmp_path / "q.jsonl", asked(9, answer="NYC"))
    assert {question.answer for question in data.load("mine", own, tmp_path)} == {"new york"}
    assert answers.rule_shares(texts[:1], kind) == {"hash": 1.0}


GIVES = "def canonical(text):\n    "


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file .*cities.py"),
        ("x = 1\n", "has no function canonical"),
        ("1 / 0\n", "cannot be imported .ZeroDivisionError"),
        ("def canonical(text\n", "cannot be imported .SyntaxError"),
        (f"{GIVES}return None\n", "gave None"),
        (f"{GIVES}return ''\n", "gave ''"),
        (f"{GIVES}return 5\n", "gave 5"),
        (f"{GIVES}raise KeyError(text)\n", "raised KeyError"),
    ],
)
def test_a_function_that_cannot_be_had_or_gives_no_text_is_one_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / "cities.py").write_text(content)
    with pytest.raises(UserError, match=words) as error:
        answers.extract("#### NYC", own_equality.kind_of(settings(equality="cities.py:canonical"), tmp_path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "given", [{"equality": "cities"}, {"equality": "a.py:f", "answer": "choice"}, {"equality": ":f"}]
)
def test_settings_that_name_no_function(given):
    with pytest.raises(ValidationError, match="equality"):
        settings(**given)


def test_the_key_of_a_stage_holds_the_content_of_the_function(tmp_path):
    dataset = {"source": "questions", "answer": "phrase", "path": "q.jsonl", **SIZES, "validation": 4}
    dataset["equality"] = "cities.py:canonical"
    (tmp_path / "cities.py").write_text(FUNCTION)
    write(tmp_path / "q.jsonl", asked(20, answer="New York"))
    root = make_root(tmp_path, datasets=tiny_settings()["datasets"] | {"mine": dataset})
    stage = stage_in(root, "00_data", dataset="mine")
    key, kind = stage.key, stage.answer_kind
    assert stage_in(root, "00_data", dataset="mine").key == key
    (root / "cities.py").write_text(FUNCTION + "# another\n")
    changed = stage_in(root, "00_data", dataset="mine")
    assert changed.key != key and changed.answer_kind != kind
    assert "equality" not in stage_in(root, "00_data", dataset="gsm").settings["dataset"]


# ---- aliases


def loaded(tmp_path, rows: list[dict], **given):
    write(tmp_path / "q.jsonl", rows)
    return data.load("mine", settings(**given), tmp_path)


def test_aliases_are_read_like_answers(tmp_path):
    known = (["The NYC", "the Big Apple!", "new york", 5], ("nyc", "big apple", "5"))
    for aliases, expected in (known, ([], ()), (None, ())):
        rows = asked(9, answer="New York", aliases=aliases)
        assert {question.aliases for question in loaded(tmp_path, rows)} == {expected}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"answer": "x", "aliases": "y"}, "'aliases' is str where a list of texts belongs"),
        ({"answer": "x", "aliases": [" "]}, "an alias is empty"),
        ({"answer": "x", "aliases": ["..."]}, "its alias '...' is none of the kind 'phrase'"),
        ({"answer": "x", "aliases": [["y"]]}, "an alias is list where text or a number belongs"),
        ({"aliases": ["y"]}, "'aliases' but no 'answer'"),
        ({"answer": "x", "alias": ["y"]}, "did you mean 'aliases'"),
    ],
)
def test_aliases_that_cannot_be_used_are_one_sentence(tmp_path, row, words):
    with pytest.raises(UserError, match=words) as error:
        loaded(tmp_path, [*asked(9), {"question": "last?", **row}])
    assert len(str(error.value).splitlines()) == 1 and "line 10" in str(error.value)


def test_the_gold_table_has_aliases_only_where_a_question_has_some(tmp_path):
    class Stage:
        dataset, dataset_settings, root = "mine", settings(), tmp_path

    loaded(tmp_path, asked(9, answer="New York"))
    data.run_gold(Stage, tmp_path)
    assert artifacts.read_parquet(tmp_path / "gold.parquet").columns.tolist() == ["id", "answer"]
    assert read_aliases(tmp_path) == {}
    rows = [{"question": "Which city?", "answer": "New York", "aliases": ["NYC"]}, *asked(9)]
    ids = {question.question: question.id for question in loaded(tmp_path, rows)}
    data.run_gold(Stage, tmp_path)
    assert read_aliases(tmp_path) == {ids["Which city?"]: {"nyc": "new york"}}
    assert read_gold(tmp_path)[ids["Which city?"]] == "new york"


ALIASES = {"a": {"nyc": "new york"}}


def test_an_alias_is_right_in_evaluation():
    assert as_gold(["nyc", "nyc", None, "boston"], ["a", "b", "a", "a"], ALIASES) == ["new york", "nyc", None, "boston"]
    responses = pd.DataFrame({"id": ["a", "b", "c"], "answer": ["nyc", "nyc", None]})
    responses = responses.assign(split="test", group="", text="", tokens=1)

    class Stage:
        dataset, dataset_settings, label = "mine", settings(), "x"

    gold = pd.Series({"a": "new york", "b": "new york", "c": "x"})
    table = evaluate.grade(responses, gold, Stage, ALIASES)
    assert table["correct"].tolist() == [True, False, False]
    assert table["answer"].tolist()[:2] == ["nyc", "nyc"]


def test_an_alias_is_right_in_judgement():
    responses = pd.DataFrame({"id": ["a"] * 4, "answer": ["nyc", "nyc", "new york", "boston"]})
    labels = pd.DataFrame({"id": ["a"], "pseudo_label": ["nyc"]})
    gold = pd.Series({"a": "new york"})
    found = voting.judgement(responses, labels, gold, ALIASES)
    assert (found["label_correct"], found["positives"], found["positives_right"]) == (1, 2, 2)
    assert found["judged_right"] == 3  # "new york" is right, and negative since the label is "nyc"
    assert voting.judgement(responses, labels, gold)["label_correct"] == 0
