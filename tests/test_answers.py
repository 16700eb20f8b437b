"""Final answers: tables of cases, properties, hostile texts, and real responses with the grades of their sources."""

from __future__ import annotations

import gzip
import json
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlib.tasks.answers import Found, extract, find, refuses, rule_shares, same

KINDS = ["number", "text", "math", "choice", "phrase"]
DATA = Path(__file__).parents[1].parent / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="real responses lie beside the repository, not in it")

NUMBERS = [
    ("buys means more : 7 + 5 = 12 . #### 12", "12"),
    ("#### 12", "12"),
    ("####12", "12"),
    ("#### 3 . no , #### 4", "4"),
    ("#### 3 ####", None),
    ("#### 1,234", "1234"),
    ("#### $1,234.50", "1234.5"),
    ("#### -7", "-7"),
    ("#### -$7", "-7"),
    ("#### -0", "0"),
    ("#### 0.0", "0"),
    ("#### 007", "7"),
    ("#### 12.", "12"),
    ("#### 12.000", "12"),
    ("#### 0.50", "0.5"),
    ("#### -0.5", "-0.5"),
    ("#### 12 apples", "12"),
    ("##### 5", "5"),
    ("####\n9", "9"),
    ("### 5", None),
    ("12", None),
    ("#### twelve", None),
    ("#### \u0663", None),  # a digit, but of no answer that a gold answer could equal
    ("####", None),
    ("", None),
    ("the answer is (B)", None),
]
WORDS = [
    ("the metal of lusan is iron . the answer is iron", "iron"),
    ("the answer is Iron.", "iron"),
    ("the answer is zinc . no , the answer is tin", "tin"),
    ("the answer is iron (B)", "iron"),
    ("the answer is\niron", "iron"),
    ("the answer is (B)", None),
    ("the answer is 7", None),
    ("the answer isiron", None),
    ("iron", None),
    ("the answer is", None),
    ("the answer is " + "x" * 51, None),
    ("", None),
]
MATH = [
    ("9 * 2 = 18\n#### 18", "18", "hash"),
    ("#### 1,234.50", "1234.5", "hash"),
    ("#### **$12**", "12", "hash"),
    ("#### $\\frac{3}{4}$", "0.75", "hash"),
    ("#### 1/3", "1/3", "hash"),
    ("#### 2. Total cost\nThe answer is 7.", "7", "answer_is"),
    ("#### Step 3\nHe pays 5 dollars", "5", "last_number"),
    ("\\boxed{5}, or #### 6", "6", "hash"),
    ("The answer is 5, so $\\boxed{42}$ in all of 7 days", "42", "boxed"),
    ("\\boxed{\\frac{1}{2}}", "0.5", "boxed"),
    ("\\boxed{-\\dfrac{2}{6}}", "-1/3", "boxed"),
    ("\\boxed{2\\frac{1}{2}}", "2.5", "boxed"),
    ("\\boxed{\\frac12}", "0.5", "boxed"),
    ("\\boxed{\\$1{,}200.00}", "1200", "boxed"),
    ("\\boxed{10\\,000 \\text{ dollars}}", "10000", "boxed"),
    ("\\boxed{\\text{\\textbf{12}}}", "12", "boxed"),
    ("\\boxed{x = 5}", "5", "boxed"),
    ("\\boxed{50\\%}", "50", "boxed"),
    ("\\boxed{\\boxed{3}}", "3", "boxed"),
    ("\\boxed{12", "12", "last_number"),  # cut off: perhaps not the whole number
    ('{"reasoning": "the answer is 3 for a day", "answer": "18"}', "18", "json"),
    ('{"answer": 18, "unit": "dollars in 2 days"}', "18", "json"),
    ("{'final_answer': '$9 500'}", "9500", "json"),
    ('"answer": "1,360 - (64 + 78) = 1,360 - 142 = 1,218"', "1218", "json"),
    ('"answer": "2:00 pm"', "2", "json"),
    ('"answer": "2:10 pm"', "2:10", "json"),
    ('"answer": "-$10,000"', "-10000", "json"),
    ("So the answer is $18.00.", "18", "answer_is"),
    ("The answer is: 12 apples. He has 3 friends", "12", "answer_is"),
    ("**Final Answer:** 7", "7", "answer_is"),
    ("**Final Answer**\n\n\\(7\\)", "7", "answer_is"),
    ("ANSWER: 7", "7", "answer_is"),
    ("The answer to the question of 2024 is 7.", "7", "answer_is"),
    ("The answer is 5 + 7 = 12.", "12", "answer_is"),
    ("The answer is that Ann, aged 9, has 20 apples", "20", "answer_is"),
    ("The answer would be about 3 million people", "3000000", "answer_is"),
    ("<think>3</think><answer>12</answer>", "12", "answer_is"),
    ("The answer is 12. The answer is not 14.", "12", "answer_is"),
    ("The answer is 4. Wait, the answer is 5.", "5", "answer_is"),
    ("5 apples and 10-7 pears", "7", "last_number"),
    ("it loses -3 degrees, from H2O", "-3", "last_number"),
    ("(12)", "12", "last_number"),
    ("1 / 0", None, None),
    ("twelve", None, None),
    ("7" * 50, None, None),
    ("", None, None),
]
CHOICES = [
    ("the metal of lusan is iron (B) . the answer is (B)", "B", "answer_is"),
    ("The answer is B", "B", "answer_is"),
    ("The answer is (J).", "J", "answer_is"),
    ("the answer is A . no , the answer is (C)", "C", "answer_is"),
    ("the answer is\n(E)", "E", "answer_is"),
    ("Answer: C", "C", "answer_is"),
    ("**Answer: (C) mitosis**", "C", "answer_is"),
    ("**Answer**: **C**", "C", "answer_is"),
    ("The correct answer is option D.", "D", "answer_is"),
    ("The answer is $\\boxed{\\text{D}}$", "D", "answer_is"),
    ("The answer is A because 2 > 1", "A", "answer_is"),
    ("The answer is (B), not (C).", "B", "answer_is"),
    ("The answer is not (B).", "B", "last_letter"),
    ("The answer is not among the options, but the closest is (E).", "E", "last_letter"),
    ('{"reasoning": "the answer is (B)?", "answer": "D"}', "D", "json"),
    ("$5 = \\boxed{\\textbf{(D) } 40}$", "D", "boxed"),
    ("\\boxed{144}. The answer is (D)", "D", "answer_is"),
    ("C", "C", "letter"),
    ("(C) mitosis", "C", "letter"),
    ("C. mitosis\nsince cells divide", "C", "letter"),
    ("Cells divide.\n**C**", "C", "letter"),
    ("I think P(A) = 0.5", None, None),
    ("the answer is (K)", None, None),
    ("the answer is (b)", None, None),
    ("the answer is Apples", None, None),
    ("The answer is a matter of taste", None, None),
    ("The answer is I think unclear", None, None),
    ("The answer is C = 5", None, None),
    ("A man walks", None, None),
    ("", None, None),
]
PHRASES = [
    ("So the answer is the Eiffel Tower. It stands in Paris.", "eiffel tower", "answer_is"),
    ("Answer: Dr. Smith\nHe said so", "dr smith", "answer_is"),
    ("the answer is 1,000.50", "1000.5", "answer_is"),
    ("the answer is 7.5 metres.", "7.5 metres", "answer_is"),
    ("#### An  Iron-age (fort)!", "iron age fort", "hash"),
    ("\\boxed{\\text{Paris}}", "paris", "boxed"),
    ('{"answer": "New York, NY"}', "new york ny", "json"),
    ("The answer is A.", "a", "answer_is"),
    ("Paris", None, None),
    ("the answer is ...", None, None),
]
REFUSALS = [
    ("We don't know the average height. #### None", True),
    ("The problem does not specify how many cats she has, so it cannot be determined.", True),
    ("There is not enough information to answer.", True),
    ("The number of boxes she bought is not stated.", True),
    ("It is unknown what raise he will receive.", True),
    ("Unable to determine the total.", True),
    ("The answer is 12", False),
    ("She has none left, so 0", False),
    ("He does not need more eggs. #### 3", False),
    ("", False),
]


@pytest.mark.parametrize(("text", "expected"), NUMBERS)
def test_strict_numbers(text, expected):
    assert extract(text, "number") == expected


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_strict_words(text, expected):
    assert extract(text, "text") == expected


@pytest.mark.parametrize(("text", "answer", "rule"), MATH)
def test_numbers_in_free_text(text, answer, rule):
    assert find(text, "math") == Found(answer, rule)


@pytest.mark.parametrize(("text", "answer", "rule"), CHOICES)
def test_options_in_free_text(text, answer, rule):
    assert find(text, "choice") == Found(answer, rule)


@pytest.mark.parametrize(("text", "answer", "rule"), PHRASES)
def test_phrases(text, answer, rule):
    assert find(text, "phrase") == Found(answer, rule)


@pytest.mark.parametrize(("text", "expected"), REFUSALS)
def test_refuses(text, expected):
    assert refuses(text) == expected


def test_unknown_kind():
    with pytest.raises(ValueError, match="'essay'.*'number', 'text', 'math', 'choice', 'phrase'"):
        extract("#### 1", "essay")


def test_same():
    assert same("12", "12")
    assert not same("12", "13")
    assert not same(None, "12")
    assert not same("12", None)
    assert not same(None, None)


def test_rule_shares():
    texts = ["#### 1", "#### 2", "so 3", "nothing"]
    assert rule_shares(texts, "math") == {"hash": 0.5, "last_number": 0.25, "none": 0.25}
    assert rule_shares([], "math") == {}


WRITTEN = {
    "number": ["#### {}"],
    "text": ["the answer is {}"],
    "math": ["#### {}", "\\boxed{{{}}}", '{{"answer": "{}"}}', "The answer is {}.", "so it is {}"],
    "choice": ["The answer is ({}).", "Answer: **{}**", "\\boxed{{{}}}", "{}", '{{"answer": "{}"}}'],
    "phrase": ["the answer is {}", "\\boxed{{{}}}"],
}
pieces = st.lists(
    st.sampled_from(
        '#|####| |the answer is|Answer:|is|not|(|)|A|J|9|0|12|,|.|-|$|\n|/|:|=|{|}|\\boxed{|\\frac|\\text{|\\|"'
        '|"answer": "|%|iron|million|−|≈|**'.split("|")
    )
)


@given(st.one_of(st.text(), pieces.map("".join)), st.sampled_from(KINDS))
def test_never_raises_and_gives_an_answer_that_reads_as_itself(text, kind):
    found = find(text, kind)
    assert (found.answer is None) == (found.rule is None)
    refuses(text)
    # Phrases with the rules' own words are read by the rules: "the answer is not ..." gives nothing, "about 5" is 5
    if found.answer is None or re.search(r"nswer|^(not|wrong|incorrect|is|about|approximately|only)\b", found.answer):
        return
    assert kind != "choice" or found.answer in "ABCDEFGHIJ"
    for form in WRITTEN[kind]:
        assert extract(form.format(found.answer), kind) == found.answer


@given(st.integers(-(10**12), 10**12), st.text(), st.sampled_from(["number", "math"]))
def test_writing_an_integer_in_other_ways_is_the_same_answer(number, before, kind):
    forms = [f"{number}", f"{number:,}", f"{number}.00", f"{number}.", f"{number:,} apples"]
    assert {extract(f"{before} #### {form}", kind) for form in forms} == {str(number)}


@given(st.integers(-(10**9), 10**9), st.sampled_from(WRITTEN["math"]))
def test_latex_currency_and_units_leave_the_number(number, form):
    sign, size = "-" * (number < 0), abs(number)
    forms = [
        f"{sign}${size:,}",
        f"${number}",
        f"{sign}\\${size}",
        f"{number}\\%",
        f"{number} cm",
    ]
    forms += [
        f"{number}.0",
        f"{number}/1",
        f"{sign}\\frac{{{2 * size}}}{{2}}",
        f"{number} \\text{{ km}}",
        f"x = {number}",
    ]
    assert {extract(form.format(written), "math") for written in forms} == {str(number)}


@given(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(["number", "math"]))
def test_a_decimal_keeps_its_value(number, kind):
    assert float(extract(f"#### {number}", kind)) == float(number)


@given(st.integers(-999, 999), st.integers(1, 999), st.integers(1, 9))
def test_equal_fractions_are_the_same_answer(above, below, times):
    answer = extract(f"\\boxed{{{above}/{below}}}", "math")
    assert answer == extract(f"The answer is {above * times} / {below * times}.", "math")
    assert Fraction(answer) == Fraction(above, below)


HOSTILE = (
    "x|x-|#|####|#### |#### 1|#### 1,|1,|1,234,|0|7|.|-|$|É|1/2 |the answer is |the answer is is |answer to "
    '| |\n|(|(A|A|*|{|\\boxed{|\\boxed{\\frac{|\\|"answer": "|"answer": "\\|not of the |lacks of |we do not '
).split("|")
READERS = {kind: lambda text, kind=kind: find(text, kind) for kind in KINDS} | {"refuses": refuses}


def _cpu_seconds(reader, text: str) -> float:
    started = time.process_time()
    reader(text)
    return time.process_time() - started


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_linear_time(piece, reader):
    for prefix in ("", "#### ", "the answer is ", "\\boxed{", '"answer": "'):
        short, long = (prefix + piece * (size // len(piece)) for size in (20_000, 80_000))
        # Four times the text: linear reading takes 4 times as long and quadratic 16; the slack covers small times
        assert _cpu_seconds(READERS[reader], long) < 10 * _cpu_seconds(READERS[reader], short) + 0.05


def _rows(name: str) -> list[dict]:
    path = DATA / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


PUBLISHED = {
    "meta-llama/Meta-Llama-3-8B-Instruct": 78.47,
    "meta-llama/Meta-Llama-3-70B-Instruct": 93.03,
    "meta-llama/Meta-Llama-3.1-8B-Instruct": 84.00,
}
# Every response that is graded here unlike its source did, by question and model, and why
REGRADED = {
    (265, "meta-llama/Meta-Llama-3-70B-Instruct"): "$9 500 is 9500: a space between thousands",
    (266, "meta-llama/Meta-Llama-3-70B-Instruct"): "$118 000 is 118000: a space between thousands",
    (1001, "meta-llama/Meta-Llama-3-70B-Instruct"): "2:00 pm is 2",
    (1001, "meta-llama/Meta-Llama-3.1-8B-Instruct"): "2:00 pm is 2",
    (
        423,
        "meta-llama/Meta-Llama-3-70B-Instruct",
    ): "-$8 is not 8: the source missed the sign, though it saw that of -40",
}


@real_data
def test_gsm8k_grades_of_real_responses():
    rows = _rows("generations/gsm8k_test_llama3.jsonl.gz")
    correct = [same(extract(row["response"], "math"), extract(f"#### {row['gold']}", "math")) for row in rows]
    for model, published in PUBLISHED.items():
        grades = [grade for grade, row in zip(correct, rows, strict=True) if row["model"] == model]
        assert 100 * sum(grades) / len(grades) == pytest.approx(published, abs=0.3)
    regraded = [row for grade, row in zip(correct, rows, strict=True) if grade != row["graded_correct"]]
    assert {(row["question_index"], row["model"]) for row in regraded} == set(REGRADED)
    assert sum(refuses(row["response"]) for row in rows) / len(rows) < 0.01
    assert rule_shares((row["response"] for row in rows), "math")["json"] > 0.99


@real_data
@pytest.mark.parametrize("name", ["gsm8k/test.jsonl", "gsm_plus/testmini.jsonl"])
def test_gold_solutions_hold_their_gold_answer(name):
    for row in _rows(name):
        gold = row["answer"].rpartition("#### ")[2]
        answer = extract(row.get("solution", row["answer"]), "math")
        if gold == "None":
            assert refuses(row["solution"].partition("####")[0])
        else:
            assert Fraction(answer) == Fraction(gold.replace(",", ""))


@real_data
def test_few_solvable_questions_are_refused():
    solutions = [row["solution"] for row in _rows("gsm_plus/testmini.jsonl") if row["answer"] != "None"]
    assert sum(map(refuses, solutions)) <= 1  # "Carver is unknown years old", in the data itself


@real_data
def test_mmlu_pro_letters_of_real_responses():
    rows = _rows("generations/mmlu_pro_test_llama3.jsonl.gz")
    # The stored letter of a response without one is a guess, so only a response that says its answer counts
    says = re.compile(r"answer is\s*\(?[A-J]\)?(?![A-Za-z])")
    said = [row for row in rows if says.search(row["response"])]
    assert len(said) == 22_801
    matched = [same(extract(row["response"], "choice"), row["stored_prediction"]) for row in said]
    assert sum(matched) / len(matched) > 0.99  # 0.9984: 36 responses change their letter, and the last one counts here
    found = [row for row in rows if extract(row["response"], "choice") is not None]
    assert sum(same(extract(row["response"], "choice"), row["stored_prediction"]) for row in found) / len(found) > 0.99
    assert not any(extract(row["response"], "choice") for row in rows if row["stored_prediction"] is None)
