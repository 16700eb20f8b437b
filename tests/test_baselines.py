"""Stage 13_baseline: what each baseline is trained on by hand, its first step by a second computation, whole runs."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from itertools import chain, count, repeat

import pandas as pd
import pytest
import torch
from conftest import copy_study, make_root, refused, stage_in
from safetensors.torch import load_file
from test_adapters import again  # noqa: F401
from test_label_free import without_any_gold_answer

from rdlib import artifacts
from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.method import baselines, reward_model, training
from rdlib.method.agreement import Agreement
from rdlib.method.baselines import Cell
from rdlib.method.policy import policy_source
from rdlib.method.reward_model import Response
from rdlib.study.specification import BASELINES
from rdlib.tasks import answers
from rdlib.tasks.prompts import STOP, Encoder, Prompt
from rdlib.tasks.questions import read_questions
from rdlib.tasks.spoken import THINK

SP, SN, TP = reward_model.STUDENT_POSITIVE, reward_model.STUDENT_NEGATIVE, reward_model.TEACHER_POSITIVE


def start_of(stage) -> Cell:
    """What a stage starts from, as its `run` reads it."""
    source = policy_source(stage)
    questions = read_questions(stage.input("data"), "train", "validation")
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet")
    return Cell(source, models.load_tokenizer(source), questions, labels, stage.dataset_settings)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


def same_weights(first, second) -> bool:
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    """A copy of the study in which every baseline has run, while no gold answer could be asked for."""
    root = copy_study(study, tmp_path_factory.mktemp("baselines"))
    with pytest.MonkeyPatch.context() as patch:
        without_any_gold_answer(patch)
        for method in BASELINES:
            stage_in(root, "13_baseline", method).run()
    return root


# ---- what is trained on


def test_rft_takes_distinct_agreeing_responses_up_to_the_cap():
    rows = [*zip("aaaabc", "xxyzxw", [True] * 3 + [False, True, False], strict=True)]
    responses = pd.DataFrame(rows, columns=["id", "text", "positive"])
    everything = baselines.select_own_responses(responses, None, 0)
    assert everything[["id", "text"]].values.tolist() == [["a", "x"], ["a", "y"], ["b", "x"]]
    chosen = [baselines.select_own_responses(responses, 1, seed)["text"].tolist() for seed in range(20)]
    assert {tuple(texts) for texts in chosen} == {("x", "x"), ("y", "x")}


def test_dpo_pairs_by_hand():
    """Student positive over negative, then teacher positive over student positive, the i-th with the i-th."""
    first = [Response(kind, text, True) for kind, text in [(SP, "p1"), (SP, "p2"), (SN, "n1"), (SN, "n2"), (TP, "t1")]]
    second = [Response(SP, "p3", True), Response(SN, "n3", False), Response(TP, "t3", True)]
    third = [Response(SP, "4", True), Response(SN, "5", True), Response(TP, "4", True)]  # a pair of one text is none
    pairs = baselines.preference_pairs({"a": first, "b": second, "c": third})
    found = [f"{key}: {chosen.text} > {rejected.text}" for key, chosen, rejected in pairs]
    assert found == ["a: p1 > n1", "a: p2 > n2", "a: t1 > p1", "b: p3 > n3", "b: t3 > p3", "c: 4 > 5"]


def test_dpo_tokens_are_the_reward_models(small):
    tokenizer = small[1]
    encode = Encoder({"a": Prompt((), "Q: how many apples ? A:")}, tokenizer)
    chosen, rejected = Response(SP, "#### 4", True), Response(SN, "#### 5", False)
    pair = baselines.tokenize_pair("a", chosen, rejected, encode)
    assert pair["prompt_ids"] + pair["chosen_ids"] == encode("a", chosen.text, chosen.finished)
    assert pair["prompt_ids"] + pair["rejected_ids"] == encode("a", rejected.text, rejected.finished)
    assert tokenizer.decode(pair["prompt_ids"]) == "Q: how many apples ? A:"
    assert pair["chosen_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in pair["rejected_ids"]  # it did not end
    assert pair["length"] == len(encode("a", chosen.text, chosen.finished)) + len(
        encode("a", rejected.text, rejected.finished)
    )


@pytest.mark.parametrize(
    ("reward", "texts", "labels", "options", "expected"),
    [
        (("number",), ["so #### 4", "#### 5", "no answer", "#### 1,000"], ["4", "4", "4", "1000"], 10, [1, 0, 0, 1]),
        (("choice",), ["The answer is (D)."], ["D"], 4, [1]),
        (("choice",), ["The answer is (D)."], ["D"], 3, [0]),
        (("math", "", STOP), ["It is 4.\n#### 4\n\nQuestion: What is 3 + 3?\n#### 6"], ["4"], 10, [1]),
        (("math", THINK), ["So it is 4.\n#### 4"], ["4"], 10, [0]),  # thinking that was cut off
    ],
)
def test_grpos_reward_is_the_match_with_the_pseudo_label(reward, texts, labels, options, expected):
    """Of the answer that PPO would read."""
    given = {"pseudo_label": labels, "options": [options] * len(texts), "prompts": []}
    assert baselines.match_reward(*reward)(completions=texts, **given) == expected


def test_queries_are_ppos_in_ppos_order(finished):
    stage = stage_in(finished, "13_baseline", "grpo")
    cell = start_of(stage)
    rows = baselines.query_rows(stage, cell, 40, labelled=True)
    students = stage.at("04_student_responses", "ours").table("responses")
    failed = set(students["id"][~students["positive"]]) & set(students["id"][students["split"] == "train"])
    assert len(rows) == 40
    assert set(rows["prompt"][: len(failed)]) == {cell.prompts[key].plain for key in failed}
    known = dict(zip(cell.labels["id"], cell.labels["pseudo_label"], strict=True))
    by_prompt = {cell.prompts[key].plain: known[key] for key in failed}
    assert rows["pseudo_label"][:] == [by_prompt[prompt] for prompt in rows["prompt"]]


# ---- the first step, by a second computation


def first_batch(stage, folder):
    """(trainer, inputs) of the first step of a baseline that samples: padded ids and masks of prompts and responses."""
    trainer = baselines.TRAINERS[stage.method](stage, folder, start_of(stage))
    trainer.model.train()
    return trainer, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def token_lists(inputs, what: str) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(inputs[f"{what}_ids"], inputs[f"{what}_mask"], strict=True)]


@pytest.mark.parametrize("heat", [1.0, 3.0])
def test_distillations_loss_is_the_reverse_kl_on_the_students_own_samples(study, again, tmp_path, heat):  # noqa: F811
    """Of the teacher at the temperature at which it is sampled."""
    stage = replace(again(tmp_path, "13_baseline", {"teacher_sampling.heat": heat}), method="distillation")
    assert ("13_baseline@teacher_sampling.heat=3.0" in str(stage.folder)) == (heat != 1)
    trainer, inputs = first_batch(stage, tmp_path)
    loss = trainer.compute_loss(trainer.model, inputs).item()
    teacher = models.load_causal_lm(study / "models/strong")
    assert loss == pytest.approx(reverse_kl(trainer.model, teacher, inputs, heat), rel=1e-4)


def reverse_kl(student, teacher, inputs, heat: float = 1.0, shared: int | None = None) -> float:
    """The mean over the tokens of responses, one sequence at a time, over the first `shared` ids of the vocabulary."""
    divergence, tokens = 0.0, 0
    for prompt, response in zip(token_lists(inputs, "prompt"), token_lists(inputs, "completion"), strict=True):
        ids = torch.tensor([prompt + response])
        assert ids.max() < (shared or ids.max() + 1)
        with torch.no_grad():
            mine = student(ids).logits[0, :, :shared].log_softmax(-1)
            other = (teacher(ids).logits[0, :, :shared] / heat).log_softmax(-1)
        places = slice(len(prompt) - 1, -1)  # the token before predicts it
        divergence += (mine[places].exp() * (mine[places] - other[places])).sum().item()
        tokens += len(response)
    return divergence / tokens


def test_grpos_advantages_by_hand(finished, tmp_path):
    trainer, inputs = first_batch(stage_in(finished, "13_baseline", "grpo"), tmp_path)
    decode = trainer.processing_class.decode
    labels = dict(zip(trainer.train_dataset["prompt"], trainer.train_dataset["pseudo_label"], strict=True))
    rows = pd.DataFrame({"prompt": [decode(ids) for ids in token_lists(inputs, "prompt")]})
    texts = [decode(ids, skip_special_tokens=True) for ids in token_lists(inputs, "completion")]
    rows["reward"] = [
        float(answers.same(answers.extract(text, "number"), labels[prompt]))
        for text, prompt in zip(texts, rows["prompt"], strict=True)
    ]
    groups = rows.groupby("prompt")["reward"]
    assert (groups.size() == 4).all() and len(groups) == 2
    expected = (rows["reward"] - groups.transform("mean")) / (groups.transform("std") + 1e-4)
    assert inputs["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert rows["reward"].nunique() == 2  # else all advantages are 0
    assert "old_per_token_logps" not in inputs  # each step takes new samples, so TRL's ratio is 1


def test_dpos_first_loss_is_that_of_equal_models(finished):
    log = stage_in(finished, "13_baseline", "dpo").table("history").set_index("step").loc[1]
    assert log["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert log["rewards/margins"] == 0


# ---- whole runs


@pytest.mark.parametrize("method", BASELINES)
def test_stage_keeps_the_best_policy(finished, method):
    stage = stage_in(finished, "13_baseline", method)
    history, summary = stage.table("history"), stage.json("summary")
    agreement = history.set_index("step")["agreement"].dropna()
    assert summary["best"] == agreement.max()
    assert summary["best_step"] == agreement.idxmax()  # the first of the best
    assert agreement.index[-1] == history["step"].max() and agreement.index[0] == 0
    assert not (stage.folder / training.CHECKPOINTS).exists()
    start = stage.at("03_sft_warmup", "ours_wo_r")
    assert same_weights(start.folder, stage.folder) == (summary["best_step"] == 0)
    cell = start_of(stage)
    validation = cell.questions.query("split == 'validation'")
    measure = Agreement(validation, cell.labels, cell.tokenizer, stage.dataset_settings, 64)
    assert measure(models.load_causal_lm(stage.folder / "model")) == summary["best"]


@pytest.mark.parametrize(("method", "improves"), [("dpo", False), ("grpo", True)])
def test_the_start_is_kept_unless_training_improves_on_it(study, tmp_path, monkeypatch, method, improves):
    stage = stage_in(copy_study(study, tmp_path), "13_baseline", method)
    given = (n / 100 for n in count(1)) if improves else chain([0.5, 0.4], repeat(0.5))
    monkeypatch.setattr(Agreement, "__call__", lambda self, model, *_: next(given))
    stage.run()
    assert stage.json("summary")["best_step"] == (stage.table("history")["step"].max() if improves else 0)
    assert same_weights(stage.at("03_sft_warmup", "ours_wo_r").folder, stage.folder) == (not improves)


class Crash(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


@pytest.mark.parametrize("method", ["dpo", "grpo"])  # rft is trained as SFT is, and distillation by TRL as GRPO
def test_a_run_that_was_killed_ends_with_the_same_bytes(finished, study, tmp_path, monkeypatch, method):
    reference = stage_in(finished, "13_baseline", method)
    stage, last = stage_in(copy_study(study, tmp_path), "13_baseline", method), reference.table("history")["step"].max()
    steps = []

    def crash(*args, **kwargs):
        steps.append(1)
        if len(steps) == last:
            raise Crash

    monkeypatch.setattr(training.ProgressBar, "on_step_begin", crash, raising=False)
    with pytest.raises(Crash):
        stage.run()
    stage.run()
    assert len(steps) < 2 * last  # it went on from a checkpoint
    expected = artifacts.hash_files(reference.folder)
    assert {"history.parquet", "summary.json", "model/model.safetensors", "model/tokenizer.json"} <= set(expected)
    assert artifacts.hash_files(stage.folder) == expected


@pytest.mark.parametrize("method", BASELINES)
def test_costs(finished, method):
    stage = stage_in(finished, "13_baseline", method)
    summary, settings = stage.json("summary"), stage.profile.baselines
    if method in ("rft", "dpo"):
        assert summary["tokens_generated"] == 0 < summary["tokens_trained"]
        assert summary["tokens_read"] == (summary["tokens_trained"] if method == "dpo" else 0)
        return
    rows = {"distillation": settings.distillation_prompts_per_step, "grpo": 2 * 4}[method]
    lengths = stage.table("history")[baselines.COMPLETION_LENGTH].dropna()
    assert len(lengths) == 5
    assert summary["tokens_generated"] == round(lengths.sum() * rows)
    asked = baselines.query_rows(stage, start_of(stage), 5 * rows, labelled=method == "grpo")
    samples = 4 if method == "grpo" else 1
    prompts_read = sum(asked["prompt_tokens"][: 5 * rows // samples]) * samples
    assert summary["tokens_trained"] == summary["tokens_generated"] + prompts_read
    assert summary["tokens_read"] == (summary["tokens_trained"] if method == "grpo" else 0)  # by GRPO's reference


# ---- what is refused


def test_a_teacher_of_another_vocabulary_is_refused(study, tmp_path):
    root = make_root(tmp_path, teachers={"strong": "other", "weak": "models/weak"})
    shutil.copytree(study / "models/strong", root / "other")
    tokenizer = models.load_tokenizer(root / "other")
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(root / "other")
    cell = start_of(stage_in(study, "13_baseline", "distillation"))
    with pytest.raises(UserError, match="another vocabulary than the student") as caught:
        baselines.distillation(stage_in(root, "13_baseline", "distillation"), tmp_path, cell)
    assert "\n" not in str(caught.value)


def test_no_pair_is_a_clear_error(study, tmp_path, monkeypatch):
    """As where student and teacher say the same."""
    stage = stage_in(copy_study(study, tmp_path), "13_baseline", "dpo")
    monkeypatch.setattr(baselines, "preference_pairs", lambda examples: [])
    refused("no training query has a pair", stage.run)


def test_no_failed_query_is_a_clear_error(finished):
    stage = stage_in(finished, "13_baseline", "grpo")
    cell = start_of(stage)
    nothing = Cell(cell.source, cell.tokenizer, cell.questions.iloc[:0], cell.labels, cell.settings)
    refused("the student failed no query", baselines.query_rows, stage, nothing, 4, labelled=True)
