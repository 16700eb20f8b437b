"""Stage 3: what is trained on (Eq. 1), the loss (Eq. 2), and the checkpoint kept."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from conftest import copy_study, refused, stage_in
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib.engines import models
from rdlib.engines.generation import Completion
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.method import training
from rdlib.method.agreement import Agreement
from rdlib.method.sft import IGNORED, build_dataset, configuration, mask_prompt, select_responses
from rdlib.tasks import answers
from rdlib.tasks.prompts import STOP, Encoder, Prompt

PROMPT = "Q: tom has 7 apples . tom buys 5 apples . how many apples does tom have ? A:"
RESPONSES = pd.DataFrame(
    [
        ("q1", "high", "#### 4", "4"),
        ("q1", "high", "#### 4", "4"),
        ("q1", "low", "#### 5", "5"),
        ("q1", "low", "nothing", None),
        ("q2", "high", "#### 1", "1"),
        ("q2", "low", "#### 2", "2"),
        ("q3", "low", "#### 9", "9"),
    ],
    columns=["id", "confidence", "text", "answer"],
    index=[10, 11, 12, 13, 14, 15, 16],
).assign(finished=True, split="train")
LABELS = pd.DataFrame({"id": ["q1", "q2", "q3"], "pseudo_label": ["4", None, "9"]})


# ---- data


def masked(tokenizer, text, finished, limit):
    encode = Encoder({"q": Prompt((), PROMPT)}, tokenizer)
    return mask_prompt(encode.prompts["q"], encode.response(text, finished), limit)


def test_the_prompt_is_masked_and_the_end_token_comes_once(small):
    tokenizer, text = small[1], "buys : 7 + 5 = 12 . #### 12"
    row = masked(tokenizer, text, True, 512)
    start = len(tokenizer(PROMPT)["input_ids"])
    assert row["labels"] == [IGNORED] * start + row["input_ids"][start:]
    assert row["input_ids"].index(tokenizer.eos_token_id) == len(row["input_ids"]) - 1 == row["length"] - 1
    assert tokenizer.decode(row["input_ids"][:-1]) == f"{PROMPT} {text}" and not row["truncated"]
    assert tokenizer.eos_token_id not in masked(tokenizer, "buys : 7", False, 512)["input_ids"]  # it did not end
    cut = masked(tokenizer, text, True, 25)
    assert len(cut["input_ids"]) == len(cut["labels"]) == 25 and cut["truncated"]


def test_a_response_of_which_nothing_is_left_is_left_out(small):
    """Its labels would all be masked, and the loss of such a batch is 0 / 0."""
    frame = pd.DataFrame({"id": ["q1", "q2"], "text": "#### 3", "finished": True})
    prompts = {"q1": Prompt((), PROMPT), "q2": Prompt((), "Q: how many ? A:")}
    limit = len(small[1](PROMPT)["input_ids"])
    dataset = build_dataset(frame, Encoder(prompts, small[1]), limit)
    assert dataset["length"] == [len(small[1]("Q: how many ? A: #### 3")["input_ids"]) + 1]


def test_the_warm_up_is_filtered_and_sft_is_not():
    warmup = select_responses(RESPONSES, LABELS, "ours_wo_r", None, 0)
    assert warmup["id"].tolist() == ["q1", "q1", "q3"]
    assert warmup["text"].tolist() == ["#### 4", "#### 4", "#### 9"]
    baseline = select_responses(RESPONSES, LABELS, "sft", None, 0)
    pd.testing.assert_frame_equal(baseline, RESPONSES)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(0, 100), st.sampled_from(["sft", "ours_wo_r"]))
def test_the_cap(cap, seed, method):
    everything = select_responses(RESPONSES, LABELS, method, None, seed)
    chosen = select_responses(RESPONSES, LABELS, method, cap, seed)
    sizes = everything.groupby("id").size().clip(upper=cap)
    pd.testing.assert_series_equal(chosen.groupby("id").size(), sizes)
    assert chosen.index.is_unique
    assert set(chosen.index) <= set(everything.index)
    pd.testing.assert_frame_equal(chosen, select_responses(RESPONSES, LABELS, method, cap, seed))


# ---- the rate


@pytest.mark.parametrize(
    ("method", "own", "used"), [("sft", 1e-4, 1e-3), ("ours_wo_r", 1e-4, 1e-4), ("ours_wo_r", None, 1e-3)]
)
def test_the_warm_up_may_have_a_rate_of_its_own(study, tmp_path, method, own, used):
    stage = stage_in(study, "03_sft_warmup", method)
    stage = stage.with_overrides({"sft.learning_rate": 1e-3, "sft.learning_rate_of_warmup": own})
    assert configuration(stage, tmp_path).learning_rate == used
    assert configuration(stage, tmp_path, 2e-5).learning_rate == 2e-5  # rejection sampling's


# ---- agreement and the stage


def test_agreement_counts_greedy_answers_equal_to_the_label(small, word_problems):
    model, tokenizer = small
    questions = pd.DataFrame({"id": ["q1", "q2", "q3"], "options": [[], [], []]})
    questions["question"] = [PROMPT.removeprefix("Q: ").removesuffix(" A:")] * 3
    unlabelled = Agreement(questions, LABELS.assign(pseudo_label=["x", None, "x"]), tokenizer, word_problems, 8)
    assert len(unlabelled.requests) == 2  # q2 is in Q_fail
    assert unlabelled(model) == 0.0
    (completion,) = TransformersEngine(model, tokenizer, 8, 60).generate(unlabelled.requests[:1], 0)[0]
    answer = answers.extract(completion.text, "number")
    assert answer is not None
    half = Agreement(questions, LABELS.assign(pseudo_label=[answer, None, "x"]), tokenizer, word_problems, 8)
    assert half(model) == 0.5


def test_agreement_reads_letters_of_the_questions_options(small, word_problems, monkeypatch):
    """The same response to a question of three options and to one of four."""
    questions = pd.DataFrame({"id": ["q1", "q2"], "question": "Which?", "options": [list("xyz"), list("wxyz")]})
    labels = pd.DataFrame({"id": ["q1", "q2"], "pseudo_label": ["D", "D"]})
    settings = word_problems.model_copy(update={"answer": "choice"})
    said = [[Completion("The answer is (D).", None, 9, "stop")]] * 2
    monkeypatch.setattr("rdlib.method.agreement.TransformersEngine.generate", lambda *_, **__: said)
    measure = Agreement(questions, labels, small[1], settings, 8)
    assert measure(small[0]) == 0.5 and measure.answers == [None, "D"]
    assert all(request.stop == STOP for request in measure.requests)


@pytest.mark.parametrize("method", ["sft", "ours_wo_r"])
def test_stage_keeps_the_best_checkpoint(study, method):
    stage = stage_in(study, "03_sft_warmup", method)
    history, summary = stage.table("history"), stage.json("summary")
    agreement = history["agreement"].dropna()
    assert len(agreement) == math.ceil(summary["steps"] / stage.profile.stopping.every)
    assert summary["best"] == agreement.max()
    assert history.set_index("step")["agreement"][summary["best_step"]] == summary["best"]
    questions = stage.at("00_data").table("questions").query("split == 'validation'")
    tokenizer = models.load_tokenizer(stage.folder / "model")
    labels = stage.at("02_pseudo_labels").table("labels")
    measure = Agreement(questions, labels, tokenizer, stage.dataset_settings, 64)
    assert measure(models.load_causal_lm(stage.folder / "model")) == agreement.max()
    assert not (stage.folder / training.CHECKPOINTS).exists()
    assert history["step"].is_unique  # the logs of a step are one row, without what depends on the machine
    assert not [c for c in history.columns if "second" in c or "runtime" in c or "flos" in c]


def test_no_agreeing_response_is_a_clear_error(study, tmp_path):
    """With a threshold of 1 no share is above it, so every question is in Q_fail."""
    stage = stage_in(copy_study(study, tmp_path), "03_sft_warmup", "ours_wo_r")
    refused("ours_wo_r.*pseudo-label", lambda: stage.with_overrides({"voting.threshold": 1.0}).run_with_inputs())


def test_patience_ends_the_training(study, tmp_path):
    """With a learning rate of nearly zero no evaluation is better than the first."""
    settings = {"sft.learning_rate": 1e-12, "stopping.patience": 6}
    stage = stage_in(copy_study(study, tmp_path, "03_sft_warmup"), "03_sft_warmup", "sft").with_overrides(settings)
    summary = stage.run().json("summary")
    assert summary["stopped_early"] and summary["best_step"] == 2 and summary["steps"] == 2 + 6
    assert summary["tokens_trained"] < stage_in(study, "03_sft_warmup", "sft").json("summary")["tokens_trained"]
