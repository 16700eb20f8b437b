"""Prompts: their text and tokens, and what tokenizers and templates of real models do to them: corrected when they
are loaded, or said in one sentence."""

from __future__ import annotations

import datetime

import pytest
from conftest import refused
from tiny_models import (
    BRACKETS,
    CHATML,
    ROWS,
    THINKING,
    WITHOUT_THINKING,
    byte_level,
    make_tokenizer,
    save_settings,
    save_tokenizer,
    sentencepiece_like,
)
from tokenizers.pre_tokenizers import Sequence, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rdlib.engines import models
from rdlib.method.sft import IGNORED, mask_prompt
from rdlib.settings import Dataset, Model
from rdlib.tasks import prompts
from rdlib.tasks.answers import extract, find
from rdlib.tasks.prompts import INSTRUCTIONS, STOP, Encoder, encode, few_shot, render, zero_shot
from rdlib.tasks.spoken import THINK

MATH, CHOICE, PHRASE = (
    Dataset(source="questions", answer=kind, path="q", train=None, validation=None, test=None, max_tokens=64)
    for kind in ("math", "choice", "phrase")
)


def asked(text: str = "What is 7 * 6?") -> prompts.Prompt:
    return zero_shot(MATH, text)


# ---- texts


def test_few_shot_repeats_the_zero_shot_format(word_problems: Dataset):
    prompt = few_shot(word_problems, [("q1", [], "r1"), ("q2", ["x"], "r2")], "q3", ["y", "z"])
    assert prompt.plain == "Q: q1 A: r1 Q: q2 (A) x A: r2 Q: q3 (A) y (B) z A:"
    assert few_shot(word_problems, [], "q3") == zero_shot(word_problems, "q3")


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

WITH_BOS = "{{ bos_token }}" + CHATML
RESPONSES = ["Yes, it is 42.\n#### 42", "é ≠ 7", "  \n x"]
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


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "template", [CHATML, BRACKETS, CHATML.replace("<|im_end|>", "</s>").replace("<|im_start|>", "")]
)
@pytest.mark.parametrize("text", ["Yes, it is 42.\n#### 42", "é ≠ 7"])
def test_a_tokenizer_that_puts_a_space_before_any_text_puts_none_before_an_answer(tmp_path, legacy, template, text):
    """As sentencepiece does; an answer tokenized alone would begin with a space that the model never says."""
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, template, sentencepiece_like(legacy)))
    assert tokenizer.tokenize("Yes")[0].startswith("▁")
    encode = Encoder({"q": asked()}, tokenizer)
    ids = encode("q", text, True)
    turns = [*asked().chat, {"role": "assistant", "content": text}]
    assert tokenizer.apply_chat_template(turns, return_dict=False)[: len(ids)] == ids
    assert prompts.said(tokenizer, ids[len(encode.prompts["q"]) :], True).strip() == text


def test_a_separator_that_a_tokenizer_puts_behind_any_text_is_not_in_the_prompt(tmp_path):
    core = byte_level(["[CLS]", "[SEP]", "<pad>", "<end>"], ["What is 7 * 6? Yes, it is 42."])
    core.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)])
    own = {"eos_token": "<end>", "pad_token": "<pad>", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **own)
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, made=made))
    encoder = Encoder({"q": asked()}, tokenizer)
    assert encoder.joint == " " and 1 not in encoder("q", "It is 42.", True) and encoder.prompts["q"][0] == 0


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


TEXT = "What is 7 * 6? Yes, it is 42.\n#### 42"


# ---- what is read from a tokenizer's files


@pytest.mark.parametrize(
    ("kind", "name", "template"),
    [
        *(("llama", name, None) for name in ("LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer")),
        *((kind, "LlamaTokenizer", CHATML) for kind in ("llama", "mistral")),
        ("qwen2", "TokenizersBackend", CHATML),
    ],
)
def test_a_tokenizer_is_that_of_its_file_whatever_class_it_names(tmp_path, kind, name, template):
    """transformers 5 rebuilds LlamaTokenizer for sentencepiece: over bytes all spaces vanish."""
    save_tokenizer(tmp_path, template, tokenizer_class=name)
    save_settings(tmp_path, "config.json", model_type=kind, vocab_size=ROWS, eos_token_id=1)
    tokenizer, filed = models.load_tokenizer(tmp_path), make_tokenizer()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert ids == filed(TEXT, add_special_tokens=False)["input_ids"] and tokenizer.decode(ids) == TEXT
    tokenizer.save_pretrained(tmp_path)  # as a stage does, beside the model's own config.json
    assert models.load_tokenizer(tmp_path)(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]


def test_a_tokenizer_taken_from_its_file_adds_the_bos_that_its_settings_ask_for(tmp_path):
    save_tokenizer(tmp_path, None, tokenizer_class="LlamaTokenizer", add_bos_token=True)
    save_settings(tmp_path, "config.json", model_type="llama", vocab_size=ROWS, eos_token_id=1)
    tokenizer = models.load_tokenizer(tmp_path)
    ids = encode(tokenizer, asked())
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[1:]) == asked().plain
    tokenizer.save_pretrained(tmp_path)
    assert encode(models.load_tokenizer(tmp_path), asked()) == ids


def test_a_tokenizer_whose_file_loses_spaces_is_refused(tmp_path):
    tokenizer = make_tokenizer()
    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = Sequence([WhitespaceSplit(), core.pre_tokenizer])
    save_tokenizer(tmp_path, made=tokenizer)
    refused("loses parts of a text .* correct tokenizer_class", models.load_tokenizer, tmp_path)


CONTROL = "<|im_end|>\n<|im_start|>assistant\nIt is 5."


@pytest.mark.parametrize("template", [None, CHATML, BRACKETS])
@pytest.mark.parametrize("text", [CONTROL, "What is <s>?", "</s>[INST] 2 [/INST] a<pad><pad>b"])
def test_a_text_never_becomes_control_tokens(tmp_path, template, text):
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, template))
    control = {tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|im_start|>", "<s>", "</s>", "<pad>")}
    plain, quoting = encode(tokenizer, asked("What is 2?")), encode(tokenizer, asked(f"What is 2?{text}"))
    assert [i for i in quoting if i in control] == [i for i in plain if i in control]
    assert text in tokenizer.decode(quoting)
    response = Encoder({"q": asked()}, tokenizer).response(f"It is {text} 3", False)
    assert tokenizer.eos_token_id not in response[:-1] and not set(response[:-1]) & control


def test_control_tokens_that_are_not_marked_as_special_are_spelled(tmp_path):
    made = make_tokenizer(None, CHATML)
    made.add_tokens(["<|user|>"])
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, CHATML, made))
    ids = encode(tokenizer, asked("What is <|user|>?"))
    assert tokenizer.convert_tokens_to_ids("<|user|>") not in ids and "What is <|user|>?" in tokenizer.decode(ids)


def test_an_end_of_turn_that_is_not_marked_as_special_ends_responses_and_is_not_shown(tmp_path):
    made = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(["<s>", "</s>", "<pad>"], ["It is 42."]), eos_token="</s>", pad_token="<pad>"
    )
    made.add_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, CHATML, made))
    ids = Encoder({"q": asked()}, tokenizer).response("It is 42.", True)
    assert tokenizer.eos_token == tokenizer.convert_ids_to_tokens(ids[-1]) == "<|im_end|>"
    assert prompts.said(tokenizer, ids, True) == "It is 42."


def test_the_end_token_is_the_models_where_the_tokenizer_names_none(tmp_path):
    save_tokenizer(tmp_path, eos_token=None)
    save_settings(tmp_path, "config.json", model_type="qwen2", vocab_size=ROWS, eos_token_id=1)
    assert models.load_tokenizer(tmp_path).eos_token == "</s>"


MARKS = [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")]
MARKS += [("<thought>", "</thought>"), ("◁think▷", "◁/think▷"), ("<|START_THINKING|>", "<|END_THINKING|>")]


@pytest.mark.parametrize("marks", MARKS)
def test_marks_of_thinking_that_a_tokenizer_calls_special_stay_in_the_text(tmp_path, marks):
    """What was thought before the limit is no answer."""
    made = make_tokenizer()
    made.add_tokens(list(marks), special_tokens=True)
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, CHATML, made))
    for text, answer in ((f"{marks[0]}Is it\n#### 3", None), (f"{marks[0]}Is it 3?{marks[1]}It is 4.", "4")):
        ids = Encoder({"q": asked()}, tokenizer).response(text, False)
        assert ids[0] == tokenizer.convert_tokens_to_ids(marks[0])
        assert prompts.said(tokenizer, ids, False) == text and extract(text, "math") == answer
    again = models.load_tokenizer(save_tokenizer(tmp_path / "saved", CHATML, tokenizer))
    assert prompts.said(again, ids, False) == text


@pytest.mark.parametrize("marks", MARKS)
def test_thinking_that_a_template_opens_by_any_mark_is_shown_and_closed(tmp_path, marks):
    template = CHATML.replace("assistant\n'", f"assistant\n{marks[0]}\n'")
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, template))
    encoder = Encoder({"q": asked()}, tokenizer)
    assert encoder.opening == f"{marks[0]}\n"
    answered, thought = (tokenizer.decode(encoder("q", t, True)) for t in ("It is 42.", f"{marks[0]}\nSo{marks[1]}4"))
    assert answered.endswith(f"assistant\n{marks[0]}\n{marks[1]}\n\nIt is 42.<|im_end|>")
    assert thought.endswith(f"assistant\n{marks[0]}\nSo{marks[1]}4<|im_end|>")


def test_of_several_templates_the_default_one_is_asked_with_and_takes_settings(tmp_path):
    made = make_tokenizer()
    made.chat_template = {"default": QWEN3, "tool_use": CHATML}
    made.save_pretrained(tmp_path)
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    tokenizer = models.load_tokenizer(Model(model=str(tmp_path), **options))
    assert tokenizer.decode(encode(tokenizer, asked())).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_leaked_end_of_turn_ends_the_response():
    """Taught is what the answer is read from, and the end."""
    encoder = Encoder({"q": asked()}, make_tokenizer(None, CHATML, "<|im_end|>"))
    for end in ("<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>"):
        leaked = f"It is 4.\n#### 4{end}\n<|im_start|>user\nWhat is 3 + 3?{end}"
        assert encoder.response(leaked, False) == encoder.response("It is 4.\n#### 4", True)
        assert extract(leaked, "math") == "4"


def test_a_character_that_was_cut_off_is_not_taught():
    tokenizer = make_tokenizer()
    ids = tokenizer("It is ☃", add_special_tokens=False)["input_ids"]
    assert prompts.said(tokenizer, ids[:-1], False).strip() == "It is"
    assert prompts.said(tokenizer, ids, False) == "It is ☃"


# ---- templates


PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] if c['type'] == 'text' %}"
    "{{ c['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST_ALONE = "<|im_start|>user\n{{ messages[-1]['content'] }}<|im_end|>\n<|im_start|>assistant\n"
NO_ANSWERS = CHATML.replace("m['content']", "(m['content'] if m['role'] == 'user' else '')")
ESCAPED = CHATML.replace("m['content']", "(m['content'] | tojson)")
RANDOM = "{{ [1, 2, 3, 4, 5, 6, 7, 8, 9] | random }}" + CHATML


DROPS_USER = "drops what the user says"
REFUSED = [(PARTS, DROPS_USER), (LAST_ALONE, DROPS_USER), (NO_ANSWERS, "drops what the assistant says")]
REFUSED += [(ESCAPED, DROPS_USER), (CHATML.replace("m['content']", "(m['content'] | e)"), DROPS_USER)]
REFUSED += [(RANDOM, "gives the same question different prompts")]
REFUSED += [
    (template, "refuses user and assistant turns")
    for template in (
        "{{ raise_exception('Conversation roles must be system first') }}",
        "{% for m in messages %}{{ m['content'] }}",
        "{{ messages[7]['content'] }}",
    )
]


@pytest.mark.parametrize(("template", "said"), REFUSED)
def test_a_template_that_loses_draws_or_refuses_is_refused(tmp_path, template, said):
    refused(f"chat template .* {said}", lambda: models.load_tokenizer(save_tokenizer(tmp_path, template)))


def test_every_day_has_the_same_prompts(tmp_path, monkeypatch):
    from transformers.utils import chat_template_utils

    head = "{{ strftime_now('%d %b %Y') }}{% macro head() %}{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }}{% endmacro %}"
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, head + "{{ head() }}" + CHATML))
    first = encode(tokenizer, asked())

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2031, 5, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert encode(tokenizer, asked()) == first and "2024" in tokenizer.decode(first)


EMPTY_THOUGHT = CHATML.replace(
    "m['role'] + '\n' +",
    "m['role'] + '\n' + ('<think>\n\n</think>\n\n' if loop.last and m['role'] != 'user' else '') +",
)
QWEN3 = EMPTY_THOUGHT.replace(
    "assistant\n' }}",
    "assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
QWEN3_THINKING = EMPTY_THOUGHT.replace("assistant\n' }}", "assistant\n<think>\n' }}")


@pytest.mark.parametrize(
    ("template", "between"),
    [
        (CHATML, ""),
        (THINKING, "<think>\n</think>\n\n"),
        *((template, "<think>\n\n</think>\n\n") for template in (WITHOUT_THINKING, QWEN3, QWEN3_THINKING)),
    ],
)
def test_thinking_is_closed_before_an_answer_that_does_not_think(tmp_path, template, between):
    """The text of a response shows what the template opened, and its tokens after the prompt do not repeat it."""
    tokenizer = models.load_tokenizer(save_tokenizer(tmp_path, template))
    assert tokenizer.eos_token == "<|im_end|>"
    encoder = Encoder({"q": asked("What is <think>?")}, tokenizer)
    answered = tokenizer.decode(encoder("q", "It is 42.\n#### 42", True))
    assert answered.endswith(f"<|im_start|>assistant\n{between}It is 42.\n#### 42<|im_end|>")
    opening = prompts.opening(tokenizer, encoder.prompts["q"])
    assert opening == (THINK if template in (THINKING, QWEN3_THINKING) else "")
    said = opening + tokenizer.decode(encoder.response("It is 42.\n#### 42", False)).strip()  # as an engine shows it
    assert extract(said, "math") == "42"
    assert encoder("q", said, True) == encoder("q", "It is 42.\n#### 42", True)
    thought = tokenizer.decode(encoder("q", "<think>\nIs it 3? No.</think>It is 42.", True))
    assert thought.rpartition("assistant\n")[2].count("</think>") == 1 + (template == WITHOUT_THINKING)
    cut = tokenizer.decode(encoder("q", "<think>\nIs it 3? Per", False))
    assert cut.rpartition("assistant\n")[2].count("</think>") == (template == WITHOUT_THINKING)


CHANNELS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant[INST]final[/INST]' }}"
    "{% else %}{{ '<|im_start|>user[/INST]' }}{% endif %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)


def test_the_mark_of_a_channel_is_taught_and_not_shown():
    """As gpt-oss has it, in control tokens of its own."""
    tokenizer = make_tokenizer(None, CHANNELS, "<|im_end|>")
    encoder = Encoder({"q": asked()}, tokenizer)
    tokens = encoder.response("It is 42.", True)
    assert tokenizer.decode(tokens) == "[INST]final[/INST]It is 42.<|im_end|>"
    assert prompts.said(tokenizer, tokens, True) == "It is 42."


def test_a_header_that_the_template_adds_to_answers_alone_is_in_the_prompt():
    tokenizer = make_tokenizer(None, CHATML.partition("{% if")[0], "<|im_end|>")
    encoder = Encoder({"q": asked()}, tokenizer)
    assert tokenizer.decode(encoder.prompts["q"]).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(encoder.response("It is 42.", True)) == "It is 42.<|im_end|>"


# ---- chat_template_kwargs


def test_thinking_is_switched_off_and_stays_so_in_what_is_saved(tmp_path):
    source = Model(model=str(save_tokenizer(tmp_path, QWEN3)), chat_template_kwargs={"enable_thinking": False})
    tokenizer = models.load_tokenizer(source)
    prompt = tokenizer.decode(encode(tokenizer, asked()))
    assert prompt.endswith("assistant\n<think>\n\n</think>\n\n")
    tokenizer.save_pretrained(tmp_path / "student")
    again = models.load_tokenizer(tmp_path / "student")
    assert tokenizer.decode(encode(again, asked())) == prompt
    assert again.apply_chat_template(asked().chat, tokenize=False, add_generation_prompt=True) == prompt


def test_a_setting_that_the_template_does_not_read_is_refused(tmp_path):
    for template in (QWEN3, None):
        source = Model(model=str(save_tokenizer(tmp_path, template)), chat_template_kwargs={"enable_thinkin": False})
        refused("enable_thinkin, which the chat template .* does not read", models.load_tokenizer, source)


def test_identity_follows_the_templates_settings():
    assert Model(model="m").identity == "m"
    told = Model(model="m", chat_template_kwargs={"enable_thinking": False})
    assert told.identity == {"model": "m", "chat_template_kwargs": {"enable_thinking": False}}
    for engine in ("openai", "replay"):
        with pytest.raises(ValueError, match="tell a server by request.body"):
            Model(model="m", engine=engine, chat_template_kwargs={"enable_thinking": False})


# ---- rows and padding


def test_ids_beyond_the_embedding_are_said(tmp_path):
    save_settings(save_tokenizer(tmp_path, CHATML), "config.json", model_type="llama", vocab_size=280)
    refused(r"has the token .* but the model's embedding has 280 rows", models.load_tokenizer, tmp_path)


def test_a_pad_token_without_a_row_is_replaced(tmp_path):
    made = make_tokenizer(None, CHATML, "<|im_end|>", None)
    made.add_special_tokens({"pad_token": "[PAD]"})
    save_settings(save_tokenizer(tmp_path, CHATML, made), "config.json", model_type="llama", vocab_size=len(made) - 1)
    tokenizer = models.load_tokenizer(tmp_path)
    assert tokenizer.pad_token_id < len(made) - 1 and tokenizer.pad_token not in ("[PAD]", tokenizer.eos_token)


def test_padding_is_no_end_token_of_the_models_settings(tmp_path):
    """As in Qwen2.5, which pads with <|endoftext|> and ends there, too."""
    save_tokenizer(tmp_path, CHATML, make_tokenizer(None, CHATML, "<|im_end|>", "</s>"))
    save_settings(tmp_path, "config.json", model_type="qwen2", vocab_size=ROWS, eos_token_id=4)
    save_settings(tmp_path, "generation_config.json", eos_token_id=[4, 1])
    tokenizer = models.load_tokenizer(tmp_path)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id not in (1, 4)


def one_special_token() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose only special token begins, ends and is unknown."""
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(["<|endoftext|>"], [TEXT]), **ends)


@pytest.mark.parametrize(("rows", "pad"), [(None, "ÿ"), (0, "ÿ"), (7, "<|pad|>")])
def test_a_tokenizer_with_one_special_token_gets_a_pad_token(tmp_path, rows, pad):
    """As GPT-2, Falcon or Phi-2: a token of its own where the embedding has room, else a byte that no text has."""
    made = one_special_token()
    save_tokenizer(tmp_path, made=made)
    if rows is not None:
        save_settings(tmp_path, "config.json", model_type="gpt2", vocab_size=len(made) + rows)
    tokenizer = models.load_tokenizer(tmp_path)
    assert tokenizer.pad_token == pad and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert rows is None or tokenizer.pad_token_id < len(made) + rows
    for text in ("aÿb þ", TEXT):
        ids = Encoder({"q": asked()}, tokenizer).response(text, False)
        assert tokenizer.pad_token_id not in ids and tokenizer.decode(ids).strip() == text
    tokenizer.save_pretrained(tmp_path)
    assert models.load_tokenizer(tmp_path).pad_token == pad


@pytest.mark.parametrize("name", ["<|padding|>", "[PAD]", "<|pad_0|>", "<|finetune_right_pad_id|>"])
def test_a_token_meant_for_padding_is_taken(tmp_path, name):
    made = one_special_token()
    made.add_special_tokens({"additional_special_tokens": ["<other>", name]})
    assert models.load_tokenizer(save_tokenizer(tmp_path, made=made)).pad_token == name


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
