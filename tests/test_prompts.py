"""Prompts: their text, that a stage and the base models' corpus write them alike, and few-shot prompts."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from rdlib.engines import models
from rdlib.method.sft import IGNORED, mask_prompt
from rdlib.settings import Dataset
from rdlib.tasks import prompts
from rdlib.tasks.answers import find
from rdlib.tasks.prompts import (
    INSTRUCTIONS,
    STOP,
    Encoder,
    few_shot,
    opening,
    render,
    zero_shot,
)
from rdlib.tasks.spoken import THINK


def test_few_shot_repeats_the_zero_shot_format(word_problems: Dataset):
    prompt = few_shot(word_problems, [("q1", [], "r1"), ("q2", ["x"], "r2")], "q3", ["y", "z"])
    assert prompt.plain == "Q: q1 A: r1 Q: q2 (A) x A: r2 Q: q3 (A) y (B) z A:"
    assert few_shot(word_problems, [], "q3") == zero_shot(word_problems, "q3")


# ---- real benchmarks


MATH, CHOICE, PHRASE = (
    Dataset(source="questions", answer=kind, path="q", train=None, validation=None, test=None, max_tokens=64)
    for kind in ("math", "choice", "phrase")
)


def test_the_styles_ask_for_what_their_answers_are_read_from():
    for settings, response in ((MATH, "So 2.\n#### 2"), (CHOICE, "The answer is (B)."), (PHRASE, "#### Emma")):
        assert find(response, settings.answer).rule in ("hash", "answer_is")
        form = "The answer is (" if settings is CHOICE else "#### "
        prompt = zero_shot(settings, "What?", ["x", "y"] if settings is CHOICE else [])
        assert form in response and form in prompt.plain and form in prompt.messages[0][1]


def test_choices_are_lettered_a_line_each():
    prompt = zero_shot(CHOICE, "Which?", ["zinc", "iron"])
    assert prompt.messages == (("user", f"Which?\n(A) zinc\n(B) iron\n\n{INSTRUCTIONS['choice']}"),)
    assert prompt.plain.endswith("Question: Which?\n(A) zinc\n(B) iron\nAnswer:")
    ten = zero_shot(CHOICE, "Which?", [f"v{i}" for i in range(10)]).plain
    assert ten.endswith("\n(J) v9\nAnswer:")


def test_examples_are_turns_of_a_chat_and_paragraphs_of_a_text():
    prompt = few_shot(MATH, [("q1", [], "r1"), ("q2", [], "r2")], "q3")
    # No turn of the system, which some templates refuse
    assert [role for role, _ in prompt.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert render(make_tokenizer(None, BRACKETS), prompt.chat, add_generation_prompt=True)
    assert [content for role, content in prompt.messages if role == "assistant"] == ["r1", "r2"]
    assert prompt.messages[-1:] == zero_shot(MATH, "q3").messages
    assert prompt.plain.count(INSTRUCTIONS["math"]) == 1
    assert prompt.plain.endswith("Question: q1\nAnswer: r1\n\nQuestion: q2\nAnswer: r2\n\nQuestion: q3\nAnswer:")


@pytest.mark.parametrize("settings", [MATH, CHOICE, PHRASE], ids=lambda settings: settings.answer)
def test_a_plain_prompt_stops_where_the_next_example_would_begin(settings):
    """A base model goes on with a question of its own, as the examples before did."""
    prompt = few_shot(settings, [("q1", ["x", "y"], "r1"), ("q2", ["x", "y"], "r2")], "q3", ["y", "z"])
    assert prompt.stop == STOP
    _, first, second, _ = prompt.plain.split("\nQuestion:")
    for shown in (first, second):  # an example's own text holds no stop string, or a response like it would be cut
        assert not any(stop in shown for stop in STOP)
    assert f"\n{prompt.plain}".startswith(STOP[2])


# ---- token ids, with tokenizers made here


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + CHATML
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]


def make_tokenizer(
    around: str | None = None, template: str | None = None, eos: str = "</s>", pad: str | None = "<pad>"
):
    """A byte-level BPE tokenizer; `around` is what its post-processor puts around a text, as "<s> $A"."""
    core = Tokenizer(BPE())
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    texts = ["What is 7 * 6? Yes, it is 42.\n#### 42", "The answer is (B). Think step by step.\n\nQuestion: Answer:"]
    trainer = BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=ByteLevel.alphabet())
    core.train_from_iterator(texts, trainer)
    if around is not None:
        special = [(token, core.token_to_id(token)) for token in SPECIAL[:2]]
        core.post_processor = TemplateProcessing(single=around, special_tokens=special)
    extra = {"additional_special_tokens": SPECIAL[3:]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos, pad_token=pad, **extra)
    tokenizer.chat_template = template
    return tokenizer


KINDS = {
    "plain, no BOS": (None, None, 0),
    "plain, BOS by the post-processor": ("<s> $A", None, 1),
    "plain, BOS and EOS by the post-processor": ("<s> $A </s>", None, 1),
    "chat without BOS": (None, CHATML, 0),
    "chat with BOS": (None, WITH_BOS, 1),
    "chat with BOS, and the post-processor adds one": ("<s> $A", WITH_BOS, 1),
    "chat with BOS, and the post-processor adds BOS and EOS": ("<s> $A </s>", WITH_BOS, 1),
    "chat with a space before the response": ("<s> $A", BRACKETS, 1),
}
RESPONSES = ["Yes, it is 42.\n#### 42", "é ≠ 7", "-3", "(B)", "  \n x"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", RESPONSES)
def test_bos_and_end_token_come_once_and_the_whole_is_what_the_template_renders(tmp_path, kind, text):
    around, template, bos = KINDS[kind]
    make_tokenizer(around, template).save_pretrained(tmp_path)
    tokenizer = models.load_tokenizer(tmp_path)
    prompt = few_shot(MATH, [("What is 7 * 6?", [], "It is 42.\n#### 42")], "What is 6 * 7?")
    encode = Encoder({"q": prompt}, tokenizer)
    start, ids = encode.prompts["q"], encode("q", text.strip(), True)
    assert ids[: len(start)] == start
    assert ids.count(tokenizer.bos_token_id) == bos and start[:bos] == [tokenizer.bos_token_id] * bos
    assert tokenizer.eos_token_id not in ids[len(start) : -1] and ids[-1] == tokenizer.eos_token_id
    assert encode("q", text.strip(), False) == ids[:-1]
    if template is None:
        whole = tokenizer(f"{prompt.plain} {text.strip()}", add_special_tokens=False)["input_ids"]
        assert ids[bos:-1] == whole and tokenizer.eos_token_id not in start
    else:
        turns = [*prompt.chat, {"role": "assistant", "content": text.strip()}]
        whole = tokenizer.apply_chat_template(turns, return_dict=False)
        assert whole[: len(ids)] == ids
        assert tokenizer.decode(whole[len(ids) :]).strip() == ""
    row = mask_prompt(start, encode.response(text.strip(), True), 4096)
    assert row["labels"] == [IGNORED] * len(start) + ids[len(start) :]


@pytest.mark.parametrize("eos", ["</s>", "<|im_end|>", "<|im_start|>"])
@pytest.mark.parametrize("pad", [None, "<|im_end|>", "<pad>"])
def test_the_end_token_is_the_templates_and_never_the_padding(tmp_path, eos, pad):
    make_tokenizer(None, CHATML, eos, pad).save_pretrained(tmp_path)
    tokenizer = models.load_tokenizer(tmp_path)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer.padding_side == "left"
    tokenizer.save_pretrained(tmp_path / "again")
    again = models.load_tokenizer(tmp_path / "again")
    assert (again.eos_token, again.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)


THINKING = CHATML.replace("assistant\n'", "assistant\n<think>\n'")
WITHOUT_THINKING = CHATML.replace("assistant\n'", "assistant\n<think>\n\n</think>\n\n'")


@pytest.mark.parametrize(("template", "opened"), [(None, ""), (CHATML, ""), (THINKING, THINK), (WITHOUT_THINKING, "")])
def test_thinking_that_the_template_opens_is_in_the_prompt_once(template, opened):
    """The text of a response shows it, and its tokens behind the prompt do not repeat it."""
    tokenizer = make_tokenizer(None, template)
    encode = Encoder({"q": zero_shot(MATH, "What is <think>?")}, tokenizer)
    assert opening(tokenizer, encode.prompts["q"]) == opened
    bare, shown = encode("q", "6</think>7", True), encode("q", f"{opened}6</think>7", True)
    assert shown == bare and tokenizer.decode(shown).count("6</think>7") == 1
    if template is None or opened:
        assert tokenizer.decode(shown).count("<think>") == 1 + bool(opened)


# ---- a prompt of the dataset's own


def own_prompt(answer: str = "math", **prompt) -> Dataset:
    sizes = dict.fromkeys(("train", "validation", "test"))
    return Dataset(source="questions", path="q", answer=answer, max_tokens=9, prompt=prompt, **sizes)


def test_a_template_puts_the_question_to_chats_and_to_plain_models():
    settings = own_prompt(template="Frage: {question}\n{instruction} {x}", language="German")
    prompt = prompts.few_shot(settings, [("1 {question} 1?", [], "2")], "2 + 2?")
    german = f"{prompts.INSTRUCTIONS['math']} Write your response in German."
    assert prompt.messages[0] == ("user", f"Frage: 1 {{question}} 1?\n{german} {{x}}")
    assert prompt.messages[2] == ("user", f"Frage: 2 + 2?\n{german} {{x}}")
    assert prompt.plain == f"Frage: 1 {{question}} 1?\n{german} {{x}} 2\n\nFrage: 2 + 2?\n{german} {{x}}"


@pytest.mark.parametrize(
    ("answer", "prompt", "words"),
    [
        ("math", {"template": "Answer!"}, r"has no \{question\}"),
        ("choice", {"template": "{question}"}, r"has no \{options\}"),
        ("number", {"language": "German"}, "know one form of a question alone"),
        ("math", {"language": "{x}"}, "pattern"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(answer, prompt, words):
    with pytest.raises(ValueError, match=words):
        own_prompt(answer, **prompt)
