"""The embedded world: disjoint draws, right gold answers, errors of meaning alone, and the shipped models."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter

import pytest
import torch
from conftest import MODELS, REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rdlib.micro import gsm, lexicon, mmlu
from rdlib.micro.authors import STYLES, Author
from rdlib.micro.splits import split_of
from rdlib.micro.tokenizer import build_tokenizer, vocabulary
from rdlib.profile import load_profile
from rdlib.study import pretrain
from rdlib.tasks import data
from rdlib.tasks.answers import extract
from rdlib.tasks.prompts import micro_question

NAMES = ("strong", "weak", "large", "small")
PROFILE = load_profile(REPOSITORY / "params/micro.yaml")
# The meanings as the lists state them, not as the problems use them
EFFECT = {
    word: effect
    for effect, senses in ((1, lexicon.GAIN), (-1, lexicon.LOSS), (0, lexicon.NEUTRAL))
    for words in senses.values()
    for word in words.split()
}


@pytest.fixture(scope="module")
def study_problems():
    """(id, split, group, problem) of all questions of the micro study."""
    return {name: data.micro_problems(name, settings) for name, settings in PROFILE.datasets.items()}


# ---- draws


def test_every_dataset_has_the_sizes_of_the_profile(study_problems):
    for name, rows in study_problems.items():
        settings = PROFILE.datasets[name]
        sizes = Counter(split for _, split, _, _ in rows)
        wanted = {split: getattr(settings, split) for split in data.SPLITS} | {data.PERTURBED: settings.perturbed_test}
        assert sizes == {split: size for split, size in wanted.items() if size}


def test_every_problem_lies_in_its_split(study_problems, monkeypatch):
    """By construction: the split is a function of the key. So no two splits share a problem, nor with pretraining."""
    keys, original = set(), pretrain.prompt_text
    monkeypatch.setattr(pretrain, "prompt_text", lambda problem: keys.add(problem.key) or original(problem))
    rng = random.Random(5)
    for recipe in (*pretrain.TRUNKS.values(), *pretrain.RECIPES.values()):
        for i in range(1000):
            pretrain.write_document(i % 2 == 0, recipe.phase, rng)
    assert len(keys) > 4_000 and {split_of(key) for key in keys} == {"pretraining"}
    for rows in study_problems.values():
        for _, split, _, problem in rows:
            assert split_of(problem.key) == ("test" if split == data.PERTURBED else split)


@given(st.integers(0, 10_000), st.sampled_from(lexicon.NAMES), st.sampled_from(lexicon.OBJECTS), st.booleans())
def test_a_key_ignores_names_objects_and_wording(seed, name, item, rephrased):
    problem = gsm.draw(random.Random(seed))
    others = [n for n in lexicon.NAMES if n != name]
    events = tuple(
        gsm.Event(name if e.who == problem.name else others[seed % len(others)], e.verb, e.amount)
        for e in problem.events
    )
    renamed = gsm.GsmProblem(name, item, problem.start, events, problem.reversed, rephrased)
    assert renamed.key == problem.key
    assert renamed.answer == problem.answer


@given(st.integers(0, 10_000), st.randoms())
def test_a_key_ignores_the_order_of_options(seed, rng):
    problem = mmlu.draw(random.Random(seed))
    options = list(problem.options)
    rng.shuffle(options)
    shuffled = mmlu.MmluProblem(problem.category, problem.entity, problem.relation, problem.link, tuple(options))
    assert shuffled.key == problem.key
    assert shuffled.answer == problem.answer


# ---- gold answers


def solve(question: str) -> int:
    """Work a word problem out from its text alone."""
    sentences = [s.strip(" .?") for s in re.split(r" [.?](?: |$)", question) if s.strip(" .?")]
    asked = sentences.pop()
    subject = re.search(r"(?:do|does|did) (\w+) have|of (\w+)$", asked)
    subject = subject.group(1) or subject.group(2)
    end = None
    if match := re.match(rf"at the end {subject} has (\d+) \w+$", sentences[-1]):
        end = int(match.group(1))
        sentences.pop()
    opening = sentences.pop(0)
    start = re.match(rf"{subject} has (some|\d+) \w+$|there are (some|\d+) \w+ that belong to {subject}$", opening)
    start = start.group(1) or start.group(2)
    change = 0
    for sentence in sentences:
        who, verb, amount = re.match(r"(?:later )?(\w+) (\w+) (\d+) (?:of the )?\w+$", sentence).groups()
        change += EFFECT[verb] * int(amount) if who == subject else 0
    assert (start == "some") == (end is not None) == asked.endswith("at first")
    return int(start) + change if end is None else end - change


def look_up(question: str) -> str:
    """Look a fact up from the text of its question alone."""
    relation, subject = re.fullmatch(r"in \w+ , what is the (\w+) of (.+) \?", question).groups()
    if match := re.fullmatch(r"the (\w+) of (\w+)", subject):
        subject = lexicon.facts()[match.group(2), match.group(1)]
    return lexicon.facts()[subject, relation]


def test_gold_answers_and_reference_solutions_of_word_problems_of_all_wordings(study_problems):
    rng = random.Random(1)
    kinds = [{}, {"large": True}, {"reverse": True}, {"rephrase": True}, {"reverse": True, "rephrase": True}]
    problems = [problem for *_, problem in study_problems["gsm"]]
    for problem in (*problems, *(gsm.draw(rng, **kinds[i % len(kinds)]) for i in range(1000))):
        assert str(solve(problem.question)) == problem.answer, problem.question
    for problem in problems[:300]:
        assert extract(data.reference_solution(problem), "number") == problem.answer


@pytest.mark.parametrize("kind", gsm.PERTURBATIONS)
def test_perturbations_are_what_they_are_called(kind):
    rng = random.Random(2)
    for _ in range(200):
        problem = gsm.draw(rng)
        changed = gsm.perturb(problem, kind, rng)
        assert str(solve(changed.question)) == changed.answer
        if kind in ("problem understanding", "distractor insertion"):
            assert changed.answer == problem.answer
        if kind == "problem understanding":
            assert changed.key == problem.key and changed.question != problem.question
        if kind == "digit expansion":
            assert changed.start >= 10 and all(e.amount >= 10 for e in changed.events)
        if kind == "reversing operation":
            assert "some" in changed.question.split()
        added = len(changed.events) - len(problem.events)
        assert added == (kind in ("adding operation", "distractor insertion"))


def test_choice_questions_have_exactly_one_right_option(study_problems):
    for key, _, _, problem in study_problems["mmlu"]:
        right = [option for option in problem.options if option == look_up(problem.question)]
        assert right == [problem.answer], key
        assert len(set(problem.options)) == len(problem.options) and 5 <= len(problem.options) <= 10
        assert extract(data.reference_solution(problem), PROFILE.datasets["mmlu"].answer) == problem.answer


# ---- authors


def equations(text: str) -> list[tuple[int, str, int, int]]:
    found = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text)
    assert len(found) == text.count("=")
    return [(int(a), sign, int(b), int(c)) for a, sign, b, c in found]


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_of_meaning_never_of_arithmetic(name):
    rng, author, wrong, count = random.Random(3), pretrain.RECIPES[name].phase.author, 0, 0
    for _ in range(1000):
        problem = pretrain.draw_gsm(rng)
        text = gsm.write(problem, author, rng)
        steps = equations(text)
        for a, sign, b, c in steps:
            assert c == (a + b if sign == "+" else a - b), text
        written = [(problem.end if problem.reversed else problem.start), *(c for *_, c in steps)]
        assert [a for a, *_ in steps] == written[:-1], f"a step does not go on from the last result: {text}"
        assert extract(text, "number") == str(written[-1]), text
        wrong += extract(text, "number") != problem.answer
        count += len(steps)
    assert count > 1000
    assert 50 < wrong < 950  # fallible, and better than guessing


def test_better_authors_make_fewer_errors():
    rates = {}
    for name in NAMES:
        rng, author = random.Random(4), pretrain.RECIPES[name].phase.author
        problems = [gsm.draw(rng) for _ in range(600)]
        choices = [mmlu.draw(rng) for _ in range(600)]
        rates[name] = (
            sum(extract(gsm.write(p, author, rng), "number") == p.answer for p in problems),
            sum(extract(mmlu.write(p, author, rng), "text") == p.answer for p in choices),
        )
    for better, worse in (("strong", "weak"), ("large", "small"), ("strong", "large"), ("weak", "small")):
        assert rates[better][0] > rates[worse][0]
        assert rates[better][1] > rates[worse][1]


@pytest.mark.parametrize("style", STYLES)
def test_an_author_who_knows_everything_is_right(style):
    shares = tuple(float(style == s) for s in STYLES)
    author, rng = Author("all", 99.0, 99.0, 0.0, shares), random.Random(6)
    for _ in range(300):
        problem = pretrain.draw_gsm(rng)
        assert extract(gsm.write(problem, author, rng), "number") == problem.answer
        choice = mmlu.draw(rng)
        assert extract(mmlu.write(choice, author, rng), "text") == choice.answer


# ---- tokenizer


def test_round_trip_without_unknown_words(study_problems):
    tokenizer, rng = build_tokenizer(), random.Random(9)
    documents = (pretrain.write_document(i % 2 == 0, pretrain.RECIPES[NAMES[i % 4]].phase, rng) for i in range(2000))
    texts = [text.strip() for document in documents for text in document]
    problems = [problem for rows in study_problems.values() for *_, problem in rows]
    texts += [micro_question(p.question, getattr(p, "options", ())) for p in problems]
    encoded = tokenizer(texts)["input_ids"]
    special = {tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id}
    assert not any(special & set(ids) for ids in encoded)
    assert tokenizer.batch_decode(encoded) == texts


def test_prompt_and_response_tokenize_apart_as_together():
    """Training joins the tokens of prompt and response; that must be what the joint text gives."""
    tokenizer, rng = build_tokenizer(), random.Random(10)
    for i in range(300):
        prompt, response = pretrain.write_document(i % 2 == 0, pretrain.RECIPES["small"].phase, rng)
        apart = tokenizer(prompt)["input_ids"] + tokenizer(response)["input_ids"]
        assert apart == tokenizer(prompt + response)["input_ids"]


def test_digits_are_single_tokens_and_special_tokens_differ():
    tokenizer = build_tokenizer()
    assert tokenizer.tokenize("#### 120") == ["▁####", "▁1", "2", "0"]
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
    assert len(set(vocabulary())) == len(vocabulary()) == len(tokenizer)


def test_documents_end_in_eos_and_prompts_carry_no_loss():
    inputs, labels = pretrain.encode_row([([5, 6], [7, 8]), ([9], [10])], eos=1)
    assert inputs == [5, 6, 7, 8, 9, 10]
    # The label of a place is the token after it; a response ends in eos, whatever follows it
    assert labels == [-100, 7, 8, 1, 10, 1]


# ---- the shipped models


@pytest.mark.parametrize("name", NAMES)
def test_a_model_loads_as_any_other_and_is_the_one_of_its_recipe(name):
    model, tokenizer = (loader.from_pretrained(MODELS / name) for loader in (AutoModelForCausalLM, AutoTokenizer))
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab() and model.config.vocab_size == len(tokenizer)
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("tom has 12 apples .")["input_ids"]) == "tom has 12 apples ."
    assert all(torch.isfinite(p).all() for p in model.parameters())
    report = json.loads((MODELS / name / "recipe.json").read_text())
    assert report["sha256"] == hashlib.sha256((MODELS / name / "model.safetensors").read_bytes()).hexdigest()
    assert report["recipe"] == json.loads(json.dumps(pretrain.recipe_dict(pretrain.RECIPES[name])))
    assert re.fullmatch(rf"python -m rdlib(\.micro\.|\.study\.| )pretrain {name}", report["command"])
    assert report["curve"][-1]["step"] == pretrain.RECIPES[name].phase.steps


def test_accuracies_stand_to_each_other_as_the_papers_do():
    last = {name: json.loads((MODELS / name / "recipe.json").read_text())["curve"][-1] for name in NAMES}
    for benchmark in ("gsm", "mmlu"):
        for better, worse in (("strong", "weak"), ("large", "small"), ("strong", "large"), ("weak", "small")):
            assert last[better][benchmark] > last[worse][benchmark], (benchmark, better, worse)
