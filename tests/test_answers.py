"""Final answers: tables of cases, properties, hostile texts, and real responses with the grades of their sources."""

from __future__ import annotations

import gzip
import json
import operator
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rdlib.engines.generation import Completion, cut_run_on
from rdlib.tasks import arithmetic
from rdlib.tasks.answers import Found, extract, find, refuses, rule_shares, same
from rdlib.tasks.prompts import STOP
from rdlib.tasks.spoken import THINK, spoken, thought_end, with_openings

KINDS = ["number", "text", "math", "choice", "phrase"]
OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}
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
    ("#### Step 3\nHe pays 5 dollars", "5", "last_sentence"),
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
    ("\\boxed{12", "12", "last_sentence"),  # cut off: perhaps not the whole number
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
    ("The answer is that Ann has 20 apples and 9 pears", "20", "answer_is"),
    ("The answer would be about 3 million people", "3000000", "answer_is"),
    ("<think>3</think><answer>12</answer>", "12", "answer_is"),
    ("The answer is 12. The answer is not 14.", "12", "answer_is"),
    ("The answer is 4. Wait, the answer is 5.", "5", "answer_is"),
    ("it loses -3 degrees, from H2O", "-3", "last_sentence"),
    ("(12)", "12", "last_sentence"),
    ("- 5 apples", "5", "last_sentence"),  # an item of a list, not a minus
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
    ("The answer is not (B).", None, None),
    ("The answer is not among the options, but the closest is (E).", "E", "closing"),
    ('{"reasoning": "the answer is (B)?", "answer": "D"}', "D", "json"),
    ("$5 = \\boxed{\\textbf{(D) } 40}$", "D", "boxed"),
    ("\\boxed{144}. The answer is (D)", "D", "answer_is"),
    ("C", "C", "letter"),
    ("(C) mitosis", "C", "letter"),
    ("C. mitosis\nsince cells divide", "C", "letter"),
    ("Cells divide.\n**C**", "C", "letter"),
    ("I think P(A) = 0.5", None, None),
    ("the answer is (K)", None, None),
    ("the answer is (b)", "B", "answer_is"),
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
# Of today's models. What each shows stands in front; texts are as models write them, shortened
TODAY = {
    "math": {
        "a power of ten in LaTeX": ("The answer is $3.2 \\times 10^4$ meters.", "32000", "answer_is"),
        "a power of ten in Unicode": ("**Answer:** 3.2 × 10⁴ m", "32000", "answer_is"),
        "an exponent": ("\\boxed{3.5e3}", "3500", "boxed"),
        "a power": ("\\boxed{2^{10}}", "1024", "boxed"),
        "a unit's power is none": ("#### 5 m²", "5", "hash"),
        "a space between thousands": ("The answer is 12 345.", "12345", "answer_is"),
        "the same in a sentence": ("The total is 12 345 units.", "12345", "last_sentence"),
        "a narrow space between thousands": ("So 12\u202f345 it is", "12345", "last_sentence"),
        "a count before a number": ("She needs 2 500 ml bottles", "2", "last_sentence"),
        "a comma before decimals, as the other numbers tell": (
            "2.500,00 - 1.265,44 ...\n#### 1.234,56",
            "1234.56",
            "hash",
        ),
        "the same, told by the number itself": ("which is 1234.56 in all.\n#### 1.234,56", "1234.56", "hash"),
        "nothing tells": ("#### 1.234,56", None, "ambiguous"),
        "the others tell of points": ("0.5 of 2.5 ...\n#### 1.234,56", None, "ambiguous"),
        "lakhs, as the other numbers tell": ("5,00,000 + 7,34,567 ...\n#### 12,34,567", "1234567", "hash"),
        "the same, told by the number": ("that is 1234567.\n#### 12,34,567", "1234567", "hash"),
        "lakhs, and nothing tells": ("1,234,567 is no 12,34,568.\n#### 12,34,567", None, "ambiguous"),
        "ambiguity is no reason to guess": ("He has 7.\nThe answer is 12,5.", None, "ambiguous"),
        "a point between thousands, as the others tell": ("2,50 Euro mal 600\n#### 1.500 Euro", "1500", "hash"),
        "a point before decimals where nothing tells": ("#### 1.500", "1.5", "hash"),
        "points between thousands": ("#### 1.234.567", "1234567", "hash"),
        "a dash for a minus": ("The answer is –5.", "-5", "answer_is"),
        "a dash between two numbers": ("The answer is 10–12 hours.", "10", "answer_is"),
        "an expression to be worked out": ('{"answer": "((2 * 2000) + 500 - 600) / 15"}', "260", "json"),
        "a difference": ("#### 8-4", "4", "hash"),
        "from three to five": ("The answer is 3-5 days.", "3", "answer_is"),
        "a date": ("#### 2024-05-12", "2024", "hash"),
        "both sides of an equation": ("#### $7 = 10 - 3$", "7", "hash"),
        "behind the sign": ("The answer is x = 3 - 8.", "-5", "answer_is"),
        "an unknown has no value": ("The answer is 4x - 4.", None, "no number"),
        "a value beyond any answer": ("#### 9^9^9", None, None),
        "a division by zero": ("The answer is 1 + 1/0.", None, None),
        "bold is no power": ("The answer is **18** dollars.", "18", "answer_is"),
        "several numbers, the first": ("She has 9 left after giving 3 to each of 2 friends.", "9", "last_sentence"),
        "the circumstances come first": ("In 3 days, she will have 24 eggs of 40.", "24", "last_sentence"),
        "a step has a number": ("Step 3: He walks 20 miles.", "20", "last_sentence"),
        "the bold one": ("After 3 days she has **24** of 40 eggs.", "24", "last_sentence"),
        "behind the last sign": ("Each of 3 gets 12 / 3 = 4 sweets.", "4", "last_sentence"),
        "JSON that is a sentence": ('{"answer": "Janet makes $18 with 9 eggs"}', "18", "json"),
        "JSON that refuses": ('{"reasoning": "3 + 4 = 7", "answer": "It cannot be determined."}', None, "refused"),
        "JSON that refuses with a number": ('{"answer": "Not enough information, 3 facts lack"}', None, "refused"),
        "JSON without a value": ('{"reasoning": "3 + 4 = 7", "answer": null}', None, "refused"),
        "none after 3 + 4": ("3 + 4 = 7\n#### None", None, "refused"),
        "the prompt's example": ('So 5. As asked, in the field, e.g.,`"answer": "42"`.', "5", "last_sentence"),
        "the example behind the answer": ('{"answer": "7"}\nThis is like e.g., `"answer": "42"`', "7", "json"),
        "the answer behind the thinking": (
            "<think>\n5, so \\boxed{5}. No.\n</think>\n\nIt is 6.",
            "6",
            "last_sentence",
        ),
        "thinking that the template opened": ("5, #### 5\n</think>\n\nThe answer is 6.", "6", "answer_is"),
        "thinking that was cut off": ("<think>\nThe answer is 5. But wait", None, "unfinished"),
        "cut off behind the thinking": ("The answer is 5.\n</think>", None, "unfinished"),
        "thinking again": ("<think>5</think>The answer is 6.<think>5?</think>Yes.", "6", "answer_is"),
        "cut off while thinking again": ("<think>5</think>The answer is 6.<think>or 5", "6", "answer_is"),
        "a slip of the thinker": ("<think>5</think>The answer is 6.</think>", "6", "answer_is"),
        "another model's marks": ("[THINK]#### 5[/THINK]The answer is 6.", "6", "answer_is"),
        "gpt-oss": (
            "<|channel|>analysis<|message|>#### 5<|end|><|start|>assistant<|channel|>final<|message|>6",
            "6",
            "last_sentence",
        ),
        "gpt-oss without its marks": ("analysisIt is 5. #### 5assistantfinalThe answer is 6.", "6", "answer_is"),
        "behind the end of the turn": ("#### 6<|eot_id|>user\n\n#### 5", "6", "hash"),
        "not this but that": ("The answer is not 14 but 12.", "12", "answer_is"),
        "a colon of full width": ("Answer：12", "12", "answer_is"),
        "a colon and a line": ("The answer is:\n\n12 apples for 3", "12", "answer_is"),
    },
    "choice": {
        "not A but B": ("The answer is not A but B.", "B", "answer_is"),
        "not A, but rather B": ("The answer is not (A), but rather (B).", "B", "answer_is"),
        "is not A, so B": ("The answer isn't (A), so it must be B.", "B", "answer_is"),
        "cannot be A, so B": ("The answer cannot be (A), so it's (B).", "B", "answer_is"),
        "the same without the word answer": ("Since it isn't A, it must be B.", "B", "closing"),
        "not A, and nothing more": ("The answer is not A.", None, None),
        "the correct option": ("The correct option is B.", "B", "chosen"),
        "a statement": ("The statement that is true about X is: D.", "D", "chosen"),
        "the best choice": ("So the best choice is **(E)**, as (A) fails.", "E", "chosen"),
        "an option and a colon": ("Correct option: **(D)**", "D", "chosen"),
        "is correct": ("Option B is correct, since (A) and (C) fail.", "B", "correct"),
        "is not correct": ("So (A) is not correct.", None, None),
        "ruled out": ("That speaks for (B), and rules out (D).", "B", "last_letter"),
        "options are asked": ("Options: A. zinc B. iron", None, None),
        "a colon of full width": ("Answer：（D）", "D", "answer_is"),
        "a dash": ("Final answer - B", "B", "answer_is"),
        "an end token glued on": ("The answer is C<EOS>", "C", "answer_is"),
        "an end token behind a line": ("Cells divide.\n(C)</s>", "C", "letter"),
        "smaller than": ("The answer is C<D", None, None),
        "a line further": ("The answer is:\n\n**(H)**", "H", "answer_is"),
        "a summary of lines": (
            "The answer is (B).\n\nSummary of all the answers:\n(A) wrong\n(B) right\n(C) wrong",
            "B",
            "answer_is",
        ),
        "a summary in a sentence": (
            "The answer is (B). Summary of all the answers: (A) is false, (B) is true, (C) is false.",
            "B",
            "answer_is",
        ),
        "a list alone": ("**Answers:**\n\nA. mitosis\nB. meiosis\nC. neither", None, None),
        "an answer before its reasons": ("Answer: A\n\nB. is wrong, since\nC. is wrong, since", "A", "answer_is"),
        "several at once, the first": ("The answer is (E), (F), and (G).", "E", "answer_is"),
        "the pronoun": ("The one who knows is I.", None, None),
        "a symbol": ("The power is V * I.", None, None),
        "the Roman one": ("I. Introduction\nMitosis is", None, None),
        "the ninth option": ("The answer is I.", "I", "answer_is"),
        "i.e.": ("The answer is I.e. what", None, None),
        "a function": ("Answer: C(5, 2) = 10", None, None),
        "another function": ("The answer is f(A).", None, None),
        "the answer behind the thinking": ("<think>The answer is (A).</think>\n\nSo (B).", "B", "last_letter"),
        "thinking that was cut off": ("<think>The answer is (A). Or", None, "unfinished"),
    },
    "phrase": {
        "not this but that": ("The answer is not Paris but Rome.", "rome", "answer_is"),
        "the answer behind the thinking": ("<think>#### Paris</think>#### Rome", "rome", "hash"),
    },
}
CASES = [(kind, *case) for kind, cases in TODAY.items() for case in cases.values()]
FEW_OPTIONS = {
    "none": ("The answer is (J).", None, "no option"),
    "nor a symbol": ("The current is (I).", None, None),
    "an earlier statement stands": ("The answer is (B). If (J) were one, the answer is (J).", "B", "answer_is"),
    "nothing is guessed instead": ("(A) and (B) are true. The answer is (E).", None, "no option"),
    "the last that there is": ("The answer is (D).", "D", "answer_is"),
    "a box": ("5 J is \\boxed{J}, so (C).", "C", "closing"),
}
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


@pytest.mark.parametrize(
    ("kind", "text", "answer", "rule"),
    CASES,
    ids=[f"{kind}: {name}" for kind, cases in TODAY.items() for name in cases],
)
def test_answers_of_todays_models(kind, text, answer, rule):
    assert find(text, kind) == Found(answer, rule)


@pytest.mark.parametrize(("text", "answer", "rule"), FEW_OPTIONS.values(), ids=FEW_OPTIONS)
def test_a_letter_beyond_the_questions_options(text, answer, rule):
    assert find(text, "choice", 4) == Found(answer, rule)
    assert extract(text, "choice", 4) == answer


def test_thinking_that_a_template_opened_is_told_from_an_answer():
    """One response to a model shows that its template opens the thinking; those that it cut off do not show it."""
    texts = ["so 5</think>It is 6.", "It is 5, or", "<think>5</think>6", "<think>5"]
    opened = with_openings(texts, [True, False, True, False])
    assert opened == [THINK + texts[0], THINK + texts[1], *texts[2:]]
    assert [extract(text, "math") for text in opened] == ["6", None, "6", None]
    for others in (["It is 5, or", "It is 6."], texts[2:]):
        assert with_openings(others, [False, True]) is others


@pytest.mark.parametrize("text", ["<think>5</think>The answer is 6.", "The answer is 6.", "<think>The answer is 6."])
def test_where_thinking_ends(text):
    assert text[thought_end(text) :] == spoken(text)


@given(st.text(), st.text(), st.sampled_from(KINDS))
def test_thinking_never_changes_the_answer(thought, text, kind):
    assume(not re.search("think|THINK|channel", thought + text))
    thoughts = [f"<think>{thought} #### 41, the answer is forty (B)</think>", f"{thought} #### 41</think>"]
    assert {find(f"{before}{text}", kind).answer for before in thoughts} == {find(text, kind).answer}
    assert find(f"<think>{thought} #### 41 {text}", kind) == Found(None, "unfinished")


@given(st.recursive(st.integers(0, 99).map(str), lambda part: st.tuples(part, st.sampled_from("+-*/"), part)))
def test_an_expression_has_the_value_that_python_gives_it(tree):
    def written(part) -> str:
        return part if isinstance(part, str) else f"({written(part[0])} {part[1]} {written(part[2])})"

    def exact(part) -> Fraction:
        return Fraction(part) if isinstance(part, str) else OPERATORS[part[1]](exact(part[0]), exact(part[2]))

    assume(not isinstance(tree, str) and written(tree).count(" ") < 50)
    try:
        expected = exact(tree)
    except ZeroDivisionError:
        expected = None
    assume(expected is None or max(expected.numerator, expected.denominator).bit_length() < 100)
    answer = extract(f"#### x = {written(tree)}", "math")
    assert (None if answer is None else Fraction(answer)) == expected


@given(st.lists(st.integers(1, 99), min_size=2, max_size=8), st.data())
def test_operators_bind_as_in_python(numbers, data):
    signs = [data.draw(st.sampled_from(["+", "-", "*", "**"])) for _ in numbers[1:]]
    assume(signs.count("**") < 2)
    small = [n % 4 + 1 if sign == "**" else n for n, sign in zip(numbers, ["", *signs], strict=True)]
    text = str(small[0]) + "".join(f"{sign}{n}" for sign, n in zip(signs, small[1:], strict=True))
    value = arithmetic.value(text, spans=False)
    assume(not re.match(r"\d+-\d+-\d", text))  # which may be a date
    assert value == folded(small, signs)


def folded(numbers: list[int], signs: list[str]) -> int:
    """The value of numbers with signs between them, powers first, then products, then from the left."""
    numbers, signs = list(numbers), list(signs)
    for level in (("**",), ("*",), ("+", "-")):
        at = 0
        while at < len(signs):
            if signs[at] in level:
                numbers[at : at + 2] = [OPERATORS[signs.pop(at)](numbers[at], numbers[at + 1])]
            else:
                at += 1
    return numbers[0]


@pytest.mark.parametrize("text", ["9^9^9", "2**2000", "1/0", "0^-1", "9" * 70 + " + 1", "2^0.5", "1e99 * 1"])
def test_an_expression_without_a_value(text):
    with pytest.raises(arithmetic.NoValueError):
        arithmetic.value(text)


@pytest.mark.parametrize("text", ["12", "(12)", "12 +", "(1 + 2", "x + 1", "4 - 4x", "3-5", "1/2/2024", "+" * 99, ""])
def test_no_expression(text):
    assert arithmetic.value(text) is None


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
    assert rule_shares(texts, "math") == {"hash": 0.5, "last_sentence": 0.25, "none": 0.25}
    assert rule_shares([], "math") == {}
    texts = ["The answer is (C).", "The answer is (C).", "<think>(C)"]
    assert rule_shares(texts, "choice", [3, 2, 3]) == dict.fromkeys(("answer_is", "no option", "unfinished"), 1 / 3)


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
        '|"answer": "|%|iron|million|−|≈|**|^|*|+|e3|×|–|<think>|</think>|<EOS>|：'.split("|")
    )
)


@given(st.one_of(st.text(), pieces.map("".join)), st.sampled_from(KINDS))
def test_never_raises_and_gives_an_answer_that_reads_as_itself(text, kind):
    found = find(text, kind)
    assert found.answer is None or found.rule is not None
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
    "|1+|(1|((1+|2^|9**9|-1|1 - |1.234,5 |12,34,567 |<think>|</think>|<|answer is not |answer is not so |option is "
    "|option is not |(A) is correct |A. b\n|answers:\n(A) |**1**|In 1, |, 1|e.g. `answer"
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
RIGHT = {
    "meta-llama/Meta-Llama-3-8B-Instruct": (1316, 1035),
    "meta-llama/Meta-Llama-3-70B-Instruct": (1319, 1229),
    "meta-llama/Meta-Llama-3.1-8B-Instruct": (1318, 1108),
}  # answers found, and right, of 1,319; the four without one give "4x - 4", "x - 2", "86, 42" and "2x + 4x = 6x. Since"
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
        found = sum(extract(row["response"], "math") is not None for row in rows if row["model"] == model)
        assert (found, sum(grades)) == RIGHT[model]
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


LETTERED = {
    "meta-llama/Meta-Llama-3-8B-Instruct": (11_604, 4936),
    "llama-3-8b-quantized": (11_239, 4233),
}  # letters found, and right, of 12,032. One more would be right if what a response "rules out" were its answer


@pytest.fixture(scope="module")
def mmlu_pro() -> list[tuple[dict, Found]]:
    """Real responses to MMLU-Pro, and what is found in each for as many options as its question has."""
    options = {row["question_id"]: len(row["options"]) for row in _rows("mmlu_pro/test.jsonl")}
    rows = _rows("generations/mmlu_pro_test_llama3.jsonl.gz")
    return [(row, find(row["response"], "choice", options[row["question_id"]])) for row in rows]


@real_data
def test_mmlu_pro_letters_of_real_responses(mmlu_pro):
    # The stored letter of a response without one is a guess, so only a response that says its answer counts
    says = re.compile(r"answer is\s*\(?[A-J]\)?(?![A-Za-z])")
    said = [(row, found) for row, found in mmlu_pro if says.search(row["response"])]
    assert len(said) == 22_801
    matched = [same(found.answer, row["stored_prediction"]) for row, found in said]
    assert sum(matched) / len(matched) > 0.99  # 0.9984: 36 responses change their letter, and the last one counts here
    given = [(row, found) for row, found in mmlu_pro if found.answer is not None]
    assert sum(same(found.answer, row["stored_prediction"]) for row, found in given) / len(given) > 0.99
    assert not any(found.answer for row, found in mmlu_pro if row["stored_prediction"] is None)
    for model, counts in LETTERED.items():
        some = [(row, found.answer) for row, found in given if row["model"] == model]
        assert (len(some), sum(answer == row["gold"] for row, answer in some)) == counts


@real_data
def test_a_letter_beyond_the_options_occurs_and_is_none(mmlu_pro):
    beyond = {row["question_id"]: row for row, found in mmlu_pro if found.rule == "no option"}
    assert set(beyond) == {5035, 7653}
    assert all(extract(row["response"], "choice") == row["stored_prediction"] for row in beyond.values())


@real_data
def test_a_base_model_that_runs_on_is_cut_back_to_its_answer(mmlu_pro):
    """Each response goes on with the next question and its answer; uncut, that answer would be taken for its own."""
    responses = [row["response"] for row, _ in mmlu_pro[:4000]]
    run_on = [
        f"{response}\n\nQuestion: and then?\nAnswer: {other}"
        for response, other in zip(responses, responses[1:], strict=False)
    ]
    cut = [cut_run_on(Completion(text, None, 9, "length"), STOP) for text in run_on]
    assert [completion.text for completion in cut] == [response.strip() for response in responses[:-1]]
    assert all(completion.finished for completion in cut)
    assert not any(stop in response for response in responses for stop in STOP)
    changed = sum(extract(text, "choice") != found.answer for text, (_, found) in zip(run_on, mmlu_pro, strict=False))
    assert changed / len(run_on) > 0.5
