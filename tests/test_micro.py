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
from rdlib.micro.splits import SHARES, split_of
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


@pytest.fixture(scope="module")
def pretraining_keys():
    """Keys of the problems in some tens of thousands of pretraining texts."""
    keys, original = set(), pretrain.prompt_text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "prompt_text", lambda problem: keys.add(problem.key) or original(problem))
        rng = random.Random(5)
        for recipe in (*pretrain.TRUNKS.values(), *pretrain.RECIPES.values()):
            for i in range(4000):
                pretrain.write_document(i % 2 == 0, recipe.phase, rng)
    assert len(keys) > 15_000
    return keys


# ---- draws


def test_every_dataset_has_the_sizes_of_the_profile(study_problems):
    for name, rows in study_problems.items():
        settings = PROFILE.datasets[name]
        sizes = Counter(split for _, split, _, _ in rows)
        wanted = {split: getattr(settings, split) for split in data.SPLITS} | {data.PERTURBED: settings.perturbed_test}
        assert sizes == {split: size for split, size in wanted.items() if size}


def test_splits_share_no_problem(study_problems):
    for rows in study_problems.values():
        keys = {split: {p.key for _, s, _, p in rows if s == split} for split in ("train", "validation", "test")}
        tested = keys.pop("test") | {p.key for _, s, _, p in rows if s == data.PERTURBED}
        assert not keys["train"] & keys["validation"]
        for training in keys.values():
            assert not tested & training


def test_splits_share_no_prompt(study_problems):
    for rows in study_problems.values():
        prompts = [(micro_question(p.question, getattr(p, "options", ())), split) for _, split, _, p in rows]
        training = {text for text, split in prompts if split in ("train", "validation")}
        assert not training & {text for text, split in prompts if split in ("test", data.PERTURBED)}


def test_no_problem_occurs_twice_in_a_split(study_problems):
    for rows in study_problems.values():
        for split in data.SPLITS:
            keys = [p.key for _, s, _, p in rows if s == split]
            assert len(keys) == len(set(keys))


def test_no_problem_of_the_study_was_pretrained_on(study_problems, pretraining_keys):
    for rows in study_problems.values():
        assert not {p.key for *_, p in rows} & pretraining_keys


def test_every_pretraining_problem_lies_in_the_pretraining_split(pretraining_keys):
    """By construction: the split is a function of the key, and the corpus takes one split."""
    assert {split_of(key) for key in pretraining_keys} == {"pretraining"}


def test_every_question_lies_in_its_split(study_problems):
    for rows in study_problems.values():
        for _, split, _, problem in rows:
            assert split_of(problem.key) == ("test" if split == data.PERTURBED else split)


def test_split_shares():
    found = Counter(split_of(f"key{i}") for i in range(20_000))
    for name, share in SHARES.items():
        assert abs(found[name] / 20_000 - share) < 5 * (share * (1 - share) / 20_000) ** 0.5
    assert sum(SHARES.values()) == pytest.approx(1)


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


def test_questions_do_not_depend_on_the_seed_and_their_order_does():
    settings = PROFILE.datasets["mmlu"]
    first = [p.key for *_, p in data.micro_problems("mmlu", settings)]
    assert first == [p.key for *_, p in data.micro_problems("mmlu", settings)]


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


def test_the_solver_of_this_test_on_the_worked_example():
    question = "tom has 7 apples . tom buys 5 apples . ann eats 4 apples . tom admires 3 apples . "
    question += "how many apples does tom have ?"
    assert solve(question) == 12


def test_gold_answers_of_word_problems(study_problems):
    for key, _, _, problem in study_problems["gsm"]:
        assert str(solve(problem.question)) == problem.answer, key


def test_gold_answers_of_all_wordings():
    rng = random.Random(1)
    kinds = [{}, {"large": True}, {"reverse": True}, {"rephrase": True}, {"reverse": True, "rephrase": True}]
    for i in range(1000):
        problem = gsm.draw(rng, **kinds[i % len(kinds)])
        assert str(solve(problem.question)) == problem.answer, problem.question


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


def test_perturb_refuses_other_kinds():
    with pytest.raises(ValueError, match="'upside down'"):
        gsm.perturb(gsm.draw(random.Random(0)), "upside down", random.Random(0))


def test_each_perturbation_has_its_share(study_problems):
    groups = Counter(group for _, split, group, _ in study_problems["gsm"] if split == data.PERTURBED)
    assert set(groups) == set(gsm.PERTURBATIONS)
    assert max(groups.values()) - min(groups.values()) <= 1


def test_choice_questions_have_exactly_one_right_option(study_problems):
    for key, _, _, problem in study_problems["mmlu"]:
        right = [i for i, option in enumerate(problem.options) if option == look_up(problem.question)]
        assert len(right) == 1, key
        assert problem.options[right[0]] == problem.answer
        assert len(set(problem.options)) == len(problem.options)
        assert 5 <= len(problem.options) <= 10


def test_right_options_are_spread_over_the_letters(study_problems):
    counts = Counter(
        mmlu.LETTERS[p.options.index(p.answer)] for *_, p in study_problems["mmlu"] if len(p.options) == 10
    )
    total = sum(counts.values())
    for letter in mmlu.LETTERS:
        assert abs(counts[letter] / total - 0.1) < 5 * (0.09 / total) ** 0.5


def test_counts_never_leave_the_range_that_can_be_written(study_problems):
    for *_, problem in study_problems["gsm"]:
        assert 0 <= problem.end <= 99


# ---- authors


def equations(text: str) -> list[tuple[int, str, int, int]]:
    found = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text)
    assert len(found) == text.count("=")
    return [(int(a), sign, int(b), int(c)) for a, sign, b, c in found]


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_of_meaning_never_of_arithmetic(name):
    rng, author, wrong, count = random.Random(3), pretrain.RECIPES[name].phase.author, 0, 0
    for _ in range(2000):
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
    assert count > 2000
    assert 100 < wrong < 1900  # fallible, and better than guessing


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


def test_polished_reasoning_names_senses_and_epithets_as_far_as_the_author_knows_them():
    rng, problems = random.Random(12), [gsm.draw(random.Random(i)) for i in range(300)]
    choices = [mmlu.draw(random.Random(i)) for i in range(300)]
    sense = {verb.word: verb.sense for verb in lexicon.verbs()}
    shares = {}
    for reach in (9.0, -9.0):
        author = Author("any", reach, reach, 0.0, (1.0, 0.0, 0.0))
        steps = re.findall(r"(\w+) means \w+ by (\w+) :", " ".join(gsm.write(p, author, rng) for p in problems))
        named = re.findall(r"of (\w+) (\w+) is", " ".join(mmlu.write(c, author, rng) for c in choices))
        assert len(steps) > 600 and len(named) > 300
        right = [sense[verb] == said for verb, said in steps], [lexicon.facts()[e, "epithet"] == w for w, e in named]
        shares[reach] = [sum(r) / len(r) for r in right]
    assert shares[9.0] == [1.0, 1.0]
    assert shares[-9.0][0] < 0.2 and shares[-9.0][1] < 0.25  # one of twelve, one of eight


def test_an_author_without_facts_has_no_encyclopedia():
    phase = pretrain.TRUNKS["trunk"].phase
    assert pretrain.encyclopedia_entry(phase.author, random.Random(0))[1] == ""
    texts = [pretrain.write_document(False, phase, random.Random(i)) for i in range(50)]
    assert all(text.rpartition("the answer is ")[1] for _, text in texts)


def test_reference_solutions_are_right(study_problems):
    for name, rows in study_problems.items():
        for *_, problem in rows[:300]:
            kind = PROFILE.datasets[name].answer
            assert extract(data.reference_solution(problem), kind) == problem.answer


def test_an_unknown_verb_is_guessed_anew_each_time():
    author, rng = Author("none", -9.0, -9.0, 0.0, (0.0, 1.0, 0.0)), random.Random(7)
    problem = gsm.draw(rng)
    assert len({gsm.write(problem, author, rng) for _ in range(50)}) > 2
    choice = mmlu.draw(rng)
    assert len({extract(mmlu.write(choice, author, rng), "text") for _ in range(50)}) > 2


def test_verbs_and_knowledge_base_are_consistent():
    verbs = lexicon.verbs()
    assert len(verbs) == 120 and len({v.word for v in verbs}) == 120
    assert all(EFFECT[v.word] == v.effect for v in verbs)
    assert [v.rank for v in verbs] == list(range(120))
    assert all(v.word in lexicon.SENSES[v.effect][v.sense].split() for v in verbs)
    assert all(
        lexicon.facts()[e, lexicon.EPITHET] in lexicon.EPITHETS for es in lexicon.entities().values() for e in es
    )
    for category, (relations, link) in lexicon.CATEGORIES.items():
        for entity in lexicon.entities()[category]:
            assert all(lexicon.facts()[entity, r] in lexicon.VALUES[r] for r in relations)
            assert lexicon.facts()[entity, lexicon.EPITHET] in lexicon.EPITHETS
            other = lexicon.facts()[entity, link]
            assert other != entity and other in lexicon.entities()[category]


def test_encyclopedia_entries_are_true():
    rng, author = random.Random(8), pretrain.RECIPES["strong"].phase.author
    for _ in range(200):
        _, text = pretrain.encyclopedia_entry(author, rng)
        said = re.findall(r"the (\w+) of (\w+) is (\w+) \.", text)
        said += [(r, e, v) for e, r, v in re.findall(r"(?<!of )\b(\w+) (\w+) : (\w+) \.", text)]
        assert len(said) == text.count(" .") > 0
        assert all(lexicon.facts()[entity, relation] == value for relation, entity, value in said)


# ---- tokenizer


def test_round_trip_without_unknown_words():
    tokenizer, rng = build_tokenizer(), random.Random(9)
    texts = []
    for i in range(4000):
        recipe = pretrain.RECIPES[NAMES[i % 4]]
        texts += pretrain.write_document(i % 2 == 0, recipe.phase, rng)
    texts = [text.strip() for text in texts]
    encoded = tokenizer(texts)["input_ids"]
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    assert not any({tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids) for ids in encoded)
    assert tokenizer.batch_decode(encoded) == texts


def test_every_question_of_the_study_round_trips(study_problems):
    tokenizer = build_tokenizer()
    for rows in study_problems.values():
        texts = [micro_question(p.question, getattr(p, "options", ())) for *_, p in rows]
        encoded = tokenizer(texts)["input_ids"]
        assert not any(tokenizer.unk_token_id in ids for ids in encoded)
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
def test_a_model_loads_as_any_other(name):
    model, tokenizer = (loader.from_pretrained(MODELS / name) for loader in (AutoModelForCausalLM, AutoTokenizer))
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("tom has 12 apples .")["input_ids"]) == "tom has 12 apples ."
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_the_one_of_its_recipe(name):
    report = json.loads((MODELS / name / "recipe.json").read_text())
    assert report["sha256"] == hashlib.sha256((MODELS / name / "model.safetensors").read_bytes()).hexdigest()
    assert report["recipe"] == json.loads(json.dumps(pretrain.recipe_dict(pretrain.RECIPES[name])))
    assert re.fullmatch(rf"python -m rdlib(\.micro\.|\.study\.| )pretrain {name}", report["command"])
    assert report["curve"][-1]["step"] == pretrain.RECIPES[name].phase.steps


def test_the_models_are_small_enough_to_ship():
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 10 * 2**20


def test_accuracies_stand_to_each_other_as_the_papers_do():
    last = {name: json.loads((MODELS / name / "recipe.json").read_text())["curve"][-1] for name in NAMES}
    for benchmark in ("gsm", "mmlu"):
        for better, worse in (("strong", "weak"), ("large", "small"), ("strong", "large"), ("weak", "small")):
            assert last[better][benchmark] > last[worse][benchmark], (benchmark, better, worse)
