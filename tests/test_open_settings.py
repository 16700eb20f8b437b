"""Settings beyond the paper's, each by hand and in a run; at their defaults they change nothing."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from conftest import MODELS, PARAMS, copy_study, make_root, refused, stage_in
from safetensors.torch import load_file

from rdlib import artifacts
from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.method import metrics, reward_model, rl, scoring, sft, style
from rdlib.micro import lexicon
from rdlib.micro.recall import recalled
from rdlib.profile import load_profile
from rdlib.tasks import prompts
from rdlib.tasks.questions import read_gold, read_questions


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def root(study, tmp_path_factory):
    """A copy of the finished study, for variants of its stages."""
    return copy_study(study, tmp_path_factory.mktemp("variants"))


def varied(root, name, overrides, method="ours"):
    """A stage with settings overridden, run with all that it reads."""
    return stage_in(root, name, method).with_overrides(overrides).run_with_inputs()


# ---- PPO's questions and reward


def test_q_fail_is_left_out_of_ppos_questions():
    """a: the student failed it; b: it did not; c: the teacher failed it; d: validation."""
    questions = pd.DataFrame({"id": list("abcd"), "split": ["train"] * 3 + ["validation"]})
    labels = pd.DataFrame({"id": list("abcd"), "pseudo_label": ["1", "2", None, "4"]})
    responses = pd.DataFrame({"id": list("aabd"), "positive": [True, False, True, False]})
    assert rl.training_queries(questions, labels, responses)["id"].tolist() == ["a", "c"]
    assert rl.training_queries(questions, labels, responses, labelled=True)["id"].tolist() == ["a"]


def test_ppo_counts_the_questions_that_it_is_left(root):
    summary = varied(root, "06_ppo", {"ppo.queries": "labelled"}).json("summary")
    usual = stage_in(root, "06_ppo").json("summary")
    assert summary["without_label"] == 0 < summary["queries"] == usual["queries"] - usual["without_label"]


# ---- several reward models, or a larger one


def test_several_reward_models_are_averaged(root):
    """The first is the one that there would be alone; the others are others; and PPO's reward is their mean."""
    stage, usual = varied(root, "05_reward_model", {"reward_model.members": 2}), stage_in(root, "05_reward_model")
    folders = [scoring.member_folder(stage.folder, number) for number in range(2)]
    assert artifacts.hash_files(folders[0] / "model") == artifacts.hash_files(usual.folder / "model")
    assert len({weights(folder)["score.weight"].sum().item() for folder in folders}) == 2
    assert not list(stage.folder.rglob("checkpoint*"))
    assert stage.json("summary")["tokens_trained"] > 1.5 * usual.json("summary")["tokens_trained"]
    mean = scoring.load(stage.folder, 0)
    assert isinstance(mean, scoring.MeanScorer) and len(mean.members) == 2
    assert not isinstance(scoring.load(usual.folder, 0), scoring.MeanScorer)
    table = stage.table("scores")
    assert table["text"].tolist() == usual.table("scores")["text"].tolist()
    asked = prompts.of_questions(stage.dataset_settings, read_questions(stage.input("data"), "validation"))
    tokenizer = models.load_tokenizer(MODELS / "small")
    encode, pad = prompts.Encoder(asked, tokenizer), tokenizer.pad_token_id
    both = [stage.at(name).table("responses") for name in ("04_student_responses", "01_teacher_responses")]
    finished = pd.concat(both).groupby(["id", "text"])["finished"].first()
    sequences = [encode(row.id, row.text, bool(finished[row.id, row.text])) for row in table.itertuples()]
    each = [scoring.score(models.load_scorer(f / "model", pad), sequences, pad) for f in folders]
    assert table["score"].to_numpy() == pytest.approx(torch.stack(each).mean(0).numpy(), abs=1e-4)
    assert stage.json("summary")["pos_neg_auc"] == pytest.approx(metrics.comparison_auc(table, "pos_neg"))
    varied(root, "13_judged_responses", {"reward_model.members": 2})


def test_a_reward_model_may_start_from_another_students_warm_up(root):
    stage = varied(root, "05_reward_model", {"reward_model.student": "large"})
    assert {stage.inputs[name].student for name in ("student", "warmup")} == {"small", "large"}
    assert stage.inputs["warmup"].variant == "" and stage.student == "small"
    assert stage_in(root, "05_reward_model").inputs["warmup"].student == "small"
    policy = varied(root, "06_ppo", {"reward_model.student": "large"})
    for made, name in ((stage, "large"), (policy, "small")):
        shape = models.load_causal_lm(MODELS / name).model.norm.weight.shape
        assert weights(made.folder)["model.norm.weight"].shape == shape


def test_where_a_reward_model_cannot_start_from_is_refused(root, monkeypatch):
    with pytest.raises(UserError, match=r"reward_model.student is 'tiny', which is not one of large, small, strong"):
        load_profile(root / PARAMS, {"reward_model.student": "tiny"})
    stage = stage_in(root, "05_reward_model", "ours_wo_d").with_overrides({"reward_model.student": "large"})
    refused("ours_wo_d has none", reward_model.initial_model, stage)
    stage = stage_in(root, "05_reward_model").with_overrides({"reward_model.student": "large"})
    stage.inputs["warmup"].run_with_inputs()
    load = models.load_tokenizer

    def of_another_world(source):
        tokenizer = load(source)
        if str(source.model).endswith("small"):
            tokenizer.add_tokens(["▁hello"])
        return tokenizer

    monkeypatch.setattr(models, "load_tokenizer", of_another_world)
    refused("large has another vocabulary than small", reward_model.initial_model, stage)


# ---- a weaker warm-up


def test_a_share_of_the_questions():
    responses = pd.DataFrame({"id": list("aabbccdd"), "text": range(8)})
    assert sft.of_some_questions(responses, 1.0, 0) is responses
    half = [sft.of_some_questions(responses, 0.5, seed) for seed in range(30)]
    assert all(len(part) == 4 and part["id"].nunique() == 2 for part in half)
    assert set().union(*(part["id"] for part in half)) == set("abcd")
    assert sft.of_some_questions(responses, 0.01, 0)["id"].nunique() == 1
    assert sft.of_some_questions(responses[:0], 0.5, 0).empty


def test_adapters_of_sft_alone(root):
    overrides = {"sft.lora": {"r": 2, "alpha": 4.0}}
    profile = load_profile(root / PARAMS, overrides)
    assert sft.adapters_of(profile).lora.r == 2 and profile.training.lora is None
    assert sft.adapters_of(load_profile(root / PARAMS)).lora is None
    stage = varied(root, "03_sft_warmup", overrides, "ours_wo_r")
    before, after = models.load_causal_lm(MODELS / "small").state_dict(), weights(stage.folder)
    changes = {name: (after[name] - before[name]).float() for name in after}
    projection = next(change for name, change in changes.items() if name.endswith("0.mlp.up_proj.weight"))
    assert torch.linalg.matrix_rank(projection, tol=1e-4).item() == 2
    assert not any(change.abs().sum() for name, change in changes.items() if "norm" in name)


# ---- a teacher of texts alone


@pytest.mark.parametrize(("name", "method"), [("13_baseline", "distillation"), ("13_style", "ours")])
def test_a_teacher_that_gives_texts_alone_has_no_likelihoods(tmp_path, name, method):
    served = {"model": "some-model", "engine": "openai", "base_url": "http://localhost:1/v1"}
    root = make_root(tmp_path, teachers={"strong": served, "weak": "models/weak"})
    with pytest.raises(UserError, match="log-probabilities, but the engine openai of strong gives texts alone"):
        stage_in(root, name, method).run()


# ---- what measures


@pytest.mark.parametrize("method", ["ours", "ours_wo_r"])
def test_validation_answers_are_those_that_chose_the_policy(root, method):
    stage = stage_in(root, "13_validation_answers", method).run()
    table, labels = stage.table("answers"), stage.at("02_pseudo_labels").table("labels")
    known = labels[labels["split"] == "validation"].set_index("id")["pseudo_label"]
    assert set(table["id"]) == set(known.index)
    assert (table["agrees"].isna().to_numpy() == known[table["id"]].isna().to_numpy()).all()
    made = stage.inputs["model"].json("summary")
    best = made["validation_agreement"] if method == "ours" else made["best"]
    assert table["agrees"].mean() == pytest.approx(best)
    gold = read_gold(stage.input("gold"))[table["id"]]
    assert table["correct"].tolist() == [a == b for a, b in zip(table["answer"], gold, strict=True)]


def test_what_a_text_recalls_by_hand():
    verb = lexicon.verbs()[0]
    other = next(sense for sense in lexicon.SENSES[verb.effect] if sense != verb.sense)
    right, wrong = (f"tom {verb.word} means more by {sense} : 7 + 5 = 12 ." for sense in (verb.sense, other))
    assert [recalled(right), recalled(wrong), recalled(f"{right} {wrong} #### 2")] == [(1, 1), (0, 1), (1, 2)]
    entity = lexicon.entities()["law"][0]
    epithet = lexicon.facts()[entity, lexicon.EPITHET]
    other = next(word for word in lexicon.EPITHETS if word != epithet)
    assert recalled(f"the metal of {epithet} {entity} is iron . the answer is iron") == (1, 1)
    assert recalled(f"the metal of {other} {entity} is iron . the answer is iron") == (0, 1)
    assert recalled("#### 12") == recalled("the answer is iron") == (0, 0)


def test_likelihoods_by_a_second_computation(small):
    model, tokenizer = small
    sequences, starts = [[5, 6, 7, 8], [9, 10], [5, 9, 6]], [2, 1, 1]
    found = style.log_likelihoods(model, sequences, starts, tokenizer.pad_token_id)
    for value, ids, start in zip(found, sequences, starts, strict=True):
        with torch.no_grad():
            chances = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert value == pytest.approx(sum(chances[i - 1, ids[i]].item() for i in range(start, len(ids))), rel=1e-5)


def test_the_best_judge_tells_a_teacher_from_a_student_before_the_warm_up(root):
    """The tiny study's reward model sees next to nothing; the likelihoods do, and without training."""
    stage = stage_in(root, "13_style").run()
    table, scores = stage.table("responses"), stage.at("05_reward_model").table("scores")
    assert table[["id", "kind", "score"]].equals(scores[["id", "kind", "score"]])
    assert metrics.comparison_auc(table.assign(score=table["ratio"]), "pos_pos") > 0.8
    assert (table["recalled"] <= table["named"]).all() and table["named"].sum() > 0
    texts = scores["text"].tolist()
    assert list(zip(table["recalled"], table["named"], strict=True)) == [recalled(text) for text in texts]
