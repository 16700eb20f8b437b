"""Short free answers: the shared cases, answers that are equal and answers that differ, labels, and an own equality."""

from __future__ import annotations

import json
import re
import time
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlib.tasks.answers import Found, extract, find
from rdlib.tasks.phrases import phrase, sentence

CASES = Path(__file__).parents[1].parent / "shared" / "cases" / "answers.jsonl"


def rows() -> list[dict]:
    """The shared cases of this kind, none where they do not lie beside the repository."""
    lines = CASES.read_text(encoding="utf-8").splitlines() if CASES.is_file() else []
    return [row for row in map(json.loads, lines) if row["kind"] == "phrase"]


@pytest.mark.skipif(not CASES.is_file(), reason="the shared cases lie beside the repository, not in it")
def test_the_shared_cases():
    wrong = {}
    for row in rows():
        found = extract(row["text"], "phrase", row["options"])
        if found != row["right"] and found not in row["also_right"]:
            wrong[row["text"]] = found
    assert not wrong


EQUAL = {
    "articles at the beginning": ["Eiffel Tower", "The Eiffel Tower", "the  eiffel tower.", "THE EIFFEL TOWER!"],
    "article before a small word": ["a cat", "A cat", "cat", "the cat"],
    "emphasis": ["Oslo", "**Oslo**", "_Oslo_", "*Oslo*", "`Oslo`", '"Oslo"', "“Oslo”", "**Oslo.**", "__Oslo__"],
    "labels": ["Oslo", "Answer: Oslo", "**Answer:** Oslo", "The answer is Oslo.", "Final answer: Oslo", "It is Oslo."],
    "composed and decomposed": ["café", "cafe\u0301", "CAFÉ", "Café."],
    "subscripts": ["H2O", "H₂O", "$H_2O$", "H_2O", "$\\mathrm{H_2O}$"],
    "superscripts": ["x^2", "x²", "$x^2$", "x^{2}"],
    "an ion": ["Na+", "Na⁺", "$Na^+$", "Na^{+}"],
    "a double ion": ["Ca2+", "Ca²⁺", "$Ca^{2+}$"],
    "sharp s": ["Straße", "STRASSE", "strasse"],
    "dotted capital i": ["İstanbul", "Istanbul", "istanbul"],
    "final sigma": ["ΟΔΟΣ", "οδος", "οδοσ"],
    "full width": ["ＡＢＣ", "abc"],
    "ligature": ["ﬁsh", "fish"],
    "apostrophes": ["O'Brien", "O’Brien"],
    "hyphens": ["iron-age fort", "iron age fort", "iron‑age fort", "Iron–age fort"],
    "email": ["e-mail", "email", "E-Mail", "E-mail"],
    "initials": ["J. K. Rowling", "J.K. Rowling", "JK Rowling"],
    "a country": ["U.S.", "US", "U.S", "U. S."],
    "a longer country": ["U.S.A.", "USA"],
    "degree": ["Ph.D.", "PhD"],
    "time of day": ["5 a.m.", "5 am", "5 AM"],
    "title": ["Mrs. Dalloway", "Mrs Dalloway", "mrs. dalloway."],
    "junior": ["Martin Luther King Jr.", "Martin Luther King, Jr.", "Martin Luther King Jr"],
    "and": ["Simon & Garfunkel", "Simon and Garfunkel"],
    "a formula": ["E = mc^2", "E=mc²", "$E = mc^2$", "**E = mc^2**"],
    "an inequality": ["x >= 5", "x ≥ 5", "$x \\ge 5$", "x≥5"],
    "Greek in LaTeX": ["2π", "$2\\pi$", "2 π"],
    "tags": ["Oslo", "<b>Oslo</b>", "<answer>Oslo</answer>"],
    "a quote": ["Oslo", "> Oslo"],
    "thousands": ["1,000", "1000", "$1,000", "1,000.00"],
    "thousands with a unit": ["1,000 km", "1000 km", "1000km"],
    "a quantity's zeros": ["1.50 km", "1.5 km", "1.5km"],
    "a half": [".5 km", "0.5 km", "0.50 km"],
    "percent": ["50%", "50 %", "50", "50 percent", "50\\%"],
    "digits of other scripts": ["42", "٤٢", "४२", "４２", "๔๒"],
    "minus": ["-5 °C", "−5 °C", "–5 °C", "-5 C"],
    "vulgar fraction": ["½", "1/2", "0.5", "\\frac{1}{2}"],
    "mixed fraction": ["2½", "2 1/2", "2.5"],
    "a date": ["June 5, 1944", "June 5 1944", "june 5, 1944."],
    "nothing that can be seen": [
        "Oslo",
        "Os\u200blo",
        "\u200eOslo\u200f",
        "\ufeffOslo",
        "Os\u00adlo",
        "\u2068Oslo\u2069",
    ],
    "no-break space": ["New York", "New\u00a0York", "New\u202fYork"],
    "quotation": ["«Le Monde»", "Le Monde", "„Le Monde“"],
    "an abbreviation in brackets": ["World Health Organization (WHO)", "World Health Organization"],
    "a remark in brackets": ["Oslo (the capital of Norway)", "Oslo"],
    "CJK punctuation": ["東京。", "東京", "「東京」"],
    "Arabic punctuation": ["القاهرة", "القاهرة؟", "«القاهرة»"],
    "Hindi": ["दिल्ली", "दिल्ली।", "**दिल्ली**"],
    "emoji with a variant": ["❤️", "❤"],
    "roman numeral": ["Henry Ⅷ", "Henry VIII"],
    "mathematical letters": ["𝐎𝐬𝐥𝐨", "Oslo"],
    "bold inside": ["the **Battle** of Hastings", "Battle of Hastings"],
    "quoted title": ['"Hamlet" by Shakespeare', "Hamlet by Shakespeare"],
    "the article in the middle": ["Lord of the Rings", "The Lord of the Rings"],
    "a comma in an address": ["New York, NY", "New York NY"],
}

DIFFERENT = {
    "languages": ["C", "C++", "C#", "C*", "D"],
    "blood groups": ["A", "AB", "AB+", "AB-", "A+", "A-", "O-"],
    "marks": ["A", "A+", "A-", "A*", "B+"],
    "frameworks": [".NET", "net"],
    "titles": ["Mrs. Dalloway", "Mrs. Robinson", "Mr. Dalloway", "Mrs."],
    "saints": ["St. Petersburg", "St. Louis", "St. John"],
    "vitamins": ["Vitamin A", "Vitamin B", "Vitamin", "Vitamin K"],
    "hepatitis": ["Hepatitis A virus", "Hepatitis B virus", "hepatitis virus"],
    "plans": ["Plan A", "Plan", "Plan B"],
    "keys": ["A minor", "A major", "minor", "B minor", "A flat"],
    "bands": ["The Who", "The The", "the", "who"],
    "letters": ["A and B", "B", "B and C"],
    "numbers": ["2,5", "25", "2.5", "-25"],
    "lists": ["1,2,3", "123", "12,3", "1,23"],
    "points": ["(2,5)", "25", "(5,2)", "(-2,5)"],
    "versions": ["Python 3.1", "Python 3.10", "Python 3.11", "Python 31"],
    "section": ["1.2.3", "1.23", "12.3"],
    "decimals": [".5 km", "5 km", "50 km", "0.05 km"],
    "age": ["18", "18+"],
    "rank": ["#1 hit", "1 hit"],
    "fractions": ["1/2 cup", "12 cup", "1 2 cup"],
    "Hindi vowels": ["दिल्ली", "दल्ला", "दल"],
    "Hindi": ["हिन्दी", "हन्द", "हिन्दू"],
    "Thai vowels": ["กรุงเทพ", "กรงเทพ", "กรึงเทพ"],
    "Thai tones": ["ข้าว", "ขาว", "ข่าว"],
    "Arabic": ["كَتَبَ", "كُتُب"],
    "Hebrew": ["שָׁלוֹם", "שֶׁלֶם"],
    "Tamil": ["கா", "க", "கி"],
    "accents": ["resume", "résumé", "resumé"],
    "umlauts": ["schon", "schön"],
    "Polish": ["łaska", "laska"],
    "Turkish": ["kırık", "kirik"],
    "lookalikes": ["Paris", "Рaris"],
    "Greek": ["Α beta", "A beta"],
    "Japanese": ["はは", "ばば", "ぱぱ"],
    "Korean": ["서울", "서을"],
    "Chinese": ["北京", "东京", "南京"],
    "powers": ["x^2", "x^3", "x", "2x"],
    "comparison": ["x > 5", "x < 5", "x = 5", "x ≥ 5", "x ≠ 5"],
    "operators": ["p*3", "p/3", "p-3", "p+3", "p^3"],
    "division": ["12 × m = 4", "12 ÷ m = 4", "12 m = 4"],
    "negation": ["~H ∨ R", "H ∨ ~R", "H ∨ R", "H ∧ R"],
    "minus before a symbol": ["-πi", "πi", "\\pi", "-\\pi", "\\infty", "-\\infty"],
    "minus before a root": ["√2/2", "-√2/2", "√2"],
    "differences": ["t - sin t", "t sin t", "t + sin t"],
    "brackets": ["(U ⊃ P) ∧ B", "U ⊃ (P ∧ B)"],
    "functions": ["f(x) = 2", "f(x) = -2", "f(2x) = 2"],
    "brackets behind a symbol": ["m(g + A)", "m(A - g)", "m"],
    "a minus with a space": ["- 0.5 m/sec", "0.5 m/sec"],
    "minus before a function": ["sqrt(2)", "-sqrt(2)"],
    "amperes": ["0.2 A, 0.1 A", "0.2, 0.1 A"],
    "factorials of a quotient": ["\\frac{1}{n!}", "\\frac{1}{n}"],
    "crosses": ["DDgg×ddGg", "DDgg ddGg"],
    "sums": ["x + y", "x - y", "x y", "xy"],
    "negative": ["-5 degrees", "5 degrees"],
    "emoji": ["❤", "💔", "😀"],
    "suits": ["♠", "♥", "♦", "♣"],
    "currencies in words": ["5 dollars", "5 euros"],
    "addresses": ["info@example.com", "info.example.com", "sales@example.com"],
    "handles": ["@nasa", "nasa"],
    "companies": ["AT&T", "ATT", "AT T"],
    "ions": ["Na", "Na+", "Cl-", "Cl"],
    "isotopes": ["U-235", "U-238", "U"],
    "possessive": ["its", "it's"],
    "short words": ["yes", "no", "none"],
    "brackets of a word": ["Mercury (planet)", "Mercury (element)", "Mercury"],
    "temperatures": ["20 °C", "20 °F", "20 K"],
    "names": ["Jane Austen", "Austen", "J. Austen"],
    "streaming": ["Disney", "Disney+"],
    "notes": ["F", "F#", "F♭"],
    "arrows": ["A → B", "A ← B"],
    "file names": ["my_file", "my file", "myfile"],
}


@pytest.mark.parametrize("written", EQUAL.values(), ids=EQUAL)
def test_equal_answers_are_one(written):
    assert len({extract(f"#### {one}", "phrase") for one in written}) == 1, [phrase(one) for one in written]
    assert None not in map(phrase, written)


@pytest.mark.parametrize("written", DIFFERENT.values(), ids=DIFFERENT)
def test_different_answers_are_not(written):
    found = {one: extract(f"#### {one}", "phrase") for one in written}
    assert None not in found.values()
    assert not [pair for pair in combinations(written, 2) if found[pair[0]] == found[pair[1]]], found


READ = [
    ("**Answer:**\n\nParis", "paris", "answer_is"),
    ("## Answer\n\nParis", "paris", "answer_is"),
    ("Final answer", None, None),
    ("#### Final Answer", None, None),
    ("#### Answer:", None, None),
    ("#### **Final Answer:**\n\n**Oslo**", "oslo", "hash"),
    ("#### Answer\nOslo\n\n#### Explanation\nIt is large.", "oslo", "hash"),
    ("#### Oslo\n\n#### Verification:\nIt is.\n\n#### Sources\nnone", "oslo", "hash"),
    ("#### Oslo\n#### Step 3: check", "oslo", "hash"),
    ("#### Explanation: it is the capital.", None, None),
    ("Answer: Explanation: it is the capital.", None, None),
    ("Answer: Oslo. Explanation: it is the capital.", "oslo", "answer_is"),
    ("#### Solution", "solution", "hash"),
    ("#### Solution\nWe look at the map.\n#### Oslo", "oslo", "hash"),
    ("#### Conclusion: Oslo", "oslo", "hash"),
    ("The answer is Mrs. Dalloway. She buys the flowers.", "mrs dalloway", "answer_is"),
    ("The answer is J. K. Rowling. She wrote it.", "jk rowling", "answer_is"),
    ("The answer is Vitamin A. It is in carrots.", "vitamin a", "answer_is"),
    ("The answer is NASA. It was founded in 1958.", "nasa", "answer_is"),
    ("The answer is the U.S. It is large.", "us", "answer_is"),
    ("The answer is the U.S. Army.", "us army", "answer_is"),
    ("The answer is C++. It has classes.", "c++", "answer_is"),
    ("The answer is Dalí. He painted it.", "dalí", "answer_is"),
    ("The answer is Martin Luther King Jr. He spoke.", "martin luther king jr", "answer_is"),
    ("The answer is Chanel No. 5. It is a perfume.", "chanel no 5", "answer_is"),
    ("The answer is No. It is not.", "no", "answer_is"),
    ("The answer is Mt. Everest, of course.", "mt everest of course", "answer_is"),
    ("The answer is 北京。它是首都。", "北京", "answer_is"),
    ("答案：北京", "北京", "labelled"),
    ("答案是：北京。", "北京", "labelled"),
    ("Antwort: Oslo", "oslo", "labelled"),
    ("La respuesta ... Respuesta: Madrid.", "madrid", "labelled"),
    ("Ответ: Москва", "москва", "labelled"),
    ('{"answer": "caf\\u00e9"}', "café", "json"),
    ('{"answer": "Oslo. It is the capital."}', "oslo", "json"),
    ('{"answer": "St. John\'s"}', "st john's", "json"),
    ('{"answer": "The \\"Who\\""}', "the who", "json"),
    ("\\boxed{\\text{Mount Everest}}", "mount everest", "boxed"),
    ("\\boxed{C++}", "c++", "boxed"),
    ("> #### Oslo", "oslo", "hash"),
    ("#### 'Oslo'", "oslo", "hash"),
    ("#### A", "a", "hash"),
    ("#### the", "the", "hash"),
    ("#### None", "none", "hash"),
    ("#### - Oslo", "oslo", "hash"),
    ("#### ...", None, None),
    ("####", None, None),
    ("Paris", None, None),
    ("The answer is not Paris but Rome.", "rome", "answer_is"),
    ("#### It's a Wonderful Life", "it's wonderful life", "hash"),
    ("#### This is the Eiffel Tower", "eiffel tower", "hash"),
    ("#### $5 and $6", "5 and 6", "hash"),
    ("#### 1 234", "1234", "hash"),
    ("#### 1, 234", "1 234", "hash"),
]


@pytest.mark.parametrize(("text", "answer", "rule"), READ)
def test_responses(text, answer, rule):
    assert find(text, "phrase") == Found(answer, rule)


@pytest.mark.parametrize(
    ("place", "first"),
    [
        ("Dr. Smith. He", "Dr. Smith"),
        ("0.4 in. from the wall. So", "0.4 in. from the wall"),
        ("4 lb. 5 oz.", "4 lb. 5 oz"),
        ("St. Petersburg is it. So", "St. Petersburg is it"),
        ("Who's there? Me", "Who's there"),
        ("Yahoo! Inc", "Yahoo"),
        ("Apple Inc. It", "Apple Inc"),
        ("Apple Inc. of Cupertino", "Apple Inc. of Cupertino"),
        ("D. H. Lawrence. The", "D. H. Lawrence"),
        ("5. Then", "5"),
        ("3.5 km. Then", "3.5 km"),
        ("node.js", "node.js"),
        ("Oct. 5, 1944. Then", "Oct. 5, 1944"),
    ],
)
def test_the_first_sentence(place, first):
    assert sentence(place) == first


words = st.sampled_from(
    "Oslo|the|a|A|Vitamin|C++|AB-|2,5|1,000.50|.5|H₂O|x²|दिल्ली|กรุงเทพ|O’Brien|e-mail|U.S.|J.|Mrs.|&|+|-|#|#1|.NET|½|"
    "Ⅷ|ﬁ|ß|İ|(|)|*|_|$|%|50%|@|=|<|❤️|°|–|—|answer|is|It is|Answer:|1/2|a.b@c.de|\u200b|\u0301|^|^2|:|1|2|/".split("|")
)


@given(
    st.one_of(st.text(max_size=40), st.lists(words, max_size=8).map(" ".join), st.lists(words, max_size=8).map("".join))
)
def test_the_canonical_form_is_its_own(text):
    found = phrase(text)
    # "(1, 234)" is "1 234", which as a place of its own is 1234 with a space between thousands
    if found is not None and "answer" not in found and not re.search(r"\d \d{3}|percent|per cent|million", found):
        assert found.strip() == found and "  " not in found
        assert phrase(found) == found


@given(
    st.text(alphabet="abcdefgh दिल्लीกรุงเทпеéü", min_size=1).filter(str.strip),
    st.sampled_from(["{}.", "**{}**", " {} ", "“{}”"]),
)
def test_decoration_changes_nothing(text, form):
    assert phrase(form.format(text)) == phrase(text)


@pytest.mark.parametrize(
    "piece",
    ["(", "$", "a.", "A. ", "1,", "1.", "-", "*", "_", "answer: ", "the ", "É", "^", "1/", "a-", "a'", "&", "  "],
)
def test_linear_time(piece):
    text = "#### " + piece * 200_000
    started = time.process_time()
    find(text, "phrase")
    assert time.process_time() - started < 0.5
