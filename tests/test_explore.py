"""Exploring one question: the tables by hand-computed cases, the models of a tiny study, and the page's controls."""

from __future__ import annotations

import html
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from conftest import make_root, stage_in

from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.settings import Dataset, Reward
from rdlib.study import explore, explore_page
from rdlib.study.explore import AFTER, BASE, BEFORE, NO_ANSWER, OTHERS, TEACHER, Asked, Explorer
from rdlib.tasks.questions import Question

KNOWN = "mia has 6 books . mia adopts 6 books . how many books does mia have ?"
REWARD = Reward(no_answer=-5.0, mismatch="negative_abs", mismatch_constant=1.0)


def responses(*rows: tuple) -> pd.DataFrame:
    """A table of responses from (model, confidence, temperature, answer, text)."""
    columns = ["model", "confidence", "temperature", "answer", "text"]
    return pd.DataFrame(rows, columns=columns).astype({"answer": "str"}).assign(finished=True)


def of_teacher(high: list[str | None], low: list[str | None]) -> pd.DataFrame:
    """Teacher responses with these answers: the high-confidence ones at 0.1, the others at 0.9."""
    rows = [(TEACHER, "high", 0.1, answer, f"text {answer}") for answer in high]
    return responses(*rows, *((TEACHER, "low", 0.9, answer, f"low {answer}") for answer in low))


# ---- questions as one types them


def test_a_typed_question_becomes_what_the_micro_world_writes():
    assert explore.in_micro_words("Mia has 6 books.\n How many  books does Mia have?") == (
        "mia has 6 books . how many books does mia have ?"
    )
    assert explore.in_micro_words("In law, what is it? (a) tin (J) iron") == "in law , what is it ? (A) tin (J) iron"
    assert explore.in_micro_words("3.5 and 1,000") == "3.5 and 1,000"  # not the ends of sentences


def test_a_listed_question_is_the_same_text_when_typed():
    question = Question("q", "test", "", "in law , what is the metal of x ?", ("tin", "iron"), "tin")
    micro = Dataset(source="micro-mmlu", answer="text", train=1, validation=1, test=1, max_tokens=9)
    assert explore.as_typed(micro, question) == "in law , what is the metal of x ? (A) tin (B) iron"
    real = Dataset(source="mmlu_pro", answer="choice", train=1, validation=1, test=1, max_tokens=9)
    assert explore.as_typed(real, question) == "in law , what is the metal of x ?\n(A) tin\n(B) iron"


# ---- tables by hand


def test_the_vote_is_strictly_above_the_threshold_and_counts_high_confidence_alone():
    table = of_teacher(["3", "3", "3", None], ["8"] * 9)
    passed, failed = explore.vote_on(table, 0.7), explore.vote_on(table, 0.75)
    assert (passed.label, failed.label) == ("3", None)
    assert passed.words == "3 has 3 of the 4 high-confidence votes (75%), above the threshold of 70%: a*(x) = 3."
    assert "(75%), not above the threshold of 75%: Q_fail" in failed.words
    nothing = explore.vote_on(of_teacher([None, None], ["8"]), 0.0)
    assert nothing.words.startswith("None of the 2 high-confidence")


def test_answers_are_counted_by_temperature_the_rare_ones_together():
    table = of_teacher(["3", "3", "4", None], ["3", "5", "6", "4", "4"])
    counts = explore.answer_counts(table, most=2)
    assert list(counts) == ["3", "4", OTHERS]
    assert counts.loc[[("high", 0.1), ("low", 0.9)]].to_numpy().tolist() == [[2, 1, 1], [1, 2, 2]]
    assert list(explore.answer_counts(table)) == ["3", "4", "5", "6", NO_ANSWER]
    first, *_, last = explore.distinct(of_teacher(["3", "4", "3"], ["4", "4", None])).to_numpy().tolist()
    assert first == ["4", 2, "0.9", "low 4"] and last == [NO_ANSWER, 1, "0.9", "low None"]


def test_the_reward_is_that_of_equation_7_and_the_best_comes_first():
    rows = [(BEFORE, "7", "a", 2.0), (BEFORE, "8", "b", -1.5), (AFTER, None, "c", 0.5), (AFTER, "7", "d", 3.0)]
    table = responses(*((model, "", 1.0, answer, text) for model, answer, text, _ in rows))
    table["score"] = [score for *_, score in rows]
    found = explore.judged(table, "7", REWARD)
    assert found[["text", "reward", "agrees"]].values.tolist() == [
        ["a", 2.0, True],
        ["b", -1.5, False],
        ["d", 3.0, True],
        ["c", -5.0, False],
    ]
    means = explore.summary(found).set_index("model")
    assert means.loc[[BEFORE, AFTER]].to_numpy().tolist() == [[2, 0.5, 0.25, 0.25], [2, 0.5, 1.75, -1.0]]
    unlabelled = explore.judged(table, None, REWARD)
    assert unlabelled["reward"].tolist() == [2.0, -1.5, 3.0, -5.0]  # the scores
    assert unlabelled["agrees"].isna().all() and explore.summary(unlabelled)["agree"].isna().all()
    unscored = explore.judged(table.assign(score=float("nan")).iloc[:2], "7", REWARD)
    assert unscored["agrees"].tolist() == [True, False] and unscored["reward"].isna().all()


def two_lambdas() -> Asked:
    rows = [
        (TEACHER, "high", 0.0, "7", "t"),
        (TEACHER, "high", 0.0, "7", "t"),  # the same text again, shown once
        (TEACHER, "low", 1.0, "9", "wrong"),  # no reward model is trained on it
        (BEFORE, "", 1.0, "7", "p"),
        (AFTER, "", 1.0, "8", "n"),
        (AFTER, "", 1.0, None, "m"),
    ]
    scores = {0.0: [3.0, 3.0, 9.0, 1.0, 2.0, 0.0], 1.0: [0.0, 0.0, 9.0, 1.0, 0.5, 0.5]}
    return Asked("?", None, responses(*rows), pd.DataFrame(scores))


def test_every_lambda_scores_the_responses_that_equation_5_compares():
    table = explore.scores_by_lambda(two_lambdas(), "7")
    assert table["text"].tolist() == ["n", "m", "p", "t"]
    assert table["kind"].tolist() == ["student_negative"] * 2 + ["student_positive", "teacher_positive"]
    # by lambda 0 p beats m and not n, t beats p; by lambda 1 p beats both, t does not beat p
    assert explore.orderings(table, [0.0, 1.0]).to_numpy().tolist() == [[0.5, 1.0], [1.0, 0.0]]
    figure = explore_page.lambda_figure(table, [0.0, 1.0])
    (ax,), (legend,) = figure.axes, figure.legends
    dots = sorted(y for line in ax.lines[:-1] for y in line.get_ydata())
    assert dots == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 2.0, 3.0]
    bars = sorted(segment[0][1] for one in ax.collections for segment in one.get_segments())
    assert bars == [0.0, 0.5, 1.0, 1.0, 1.0, 3.0]  # the means of a kind
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["teacher positive", "student positive", "student negative"]
    plt.close(figure)


def test_in_q_fail_the_students_responses_have_scores_and_no_kind():
    table = explore.scores_by_lambda(two_lambdas(), None)
    assert sorted(table["text"]) == ["m", "n", "p"] and table["kind"].isna().all()
    assert explore.orderings(table, [0.0]).isna().all(axis=None)
    figure = explore_page.lambda_figure(table, [0.0])
    label = figure.axes[0].get_xticklabels()[0].get_text()
    assert "Pos/Neg -" in label and "nan" not in label
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no pseudo-label"]
    plt.close(figure)


def test_the_pseudo_label_alone_is_in_colour_and_the_counts_are_written():
    table = of_teacher(["3", "3", "4"], ["3", "4"])
    figure = explore_page.vote_figure(Asked("?", None, table, pd.DataFrame()), explore.vote_on(table, 0.6))
    above, below = figure.axes
    assert [bar.get_height() for bar in above.patches] == pytest.approx([2 / 3, 1 / 3])
    assert len({bar.get_facecolor() for bar in above.patches}) == 2
    assert [text.get_text() for text in below.texts[:4]] == ["2", "1", "1", "1"]
    plt.close(figure)


# ---- models


@pytest.fixture(scope="module")
def trained(study) -> Explorer:
    return Explorer(stage_in(study, "06_ppo"), samples=3)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Explorer:
    return Explorer(stage_in(make_root(tmp_path_factory.mktemp("nothing")), "06_ppo"), samples=3)


def test_a_finished_study_answers_with_all_its_models_the_same_each_time(trained):
    asked = trained.ask("Mia has 6 books. Mia adopts 6 books. How many books does Mia have?")
    sizes = asked.responses.groupby("model", sort=False).size()
    assert asked.text == KNOWN and asked.gold is None
    assert sizes.to_dict() == {TEACHER: 12, BASE: 3, BEFORE: 3, AFTER: 3}  # four temperatures, three samples each
    assert trained.missing(BEFORE, AFTER) == "" and list(asked.scores) == [0.5] and asked.scores.notna().all(axis=None)
    again = Explorer(trained.stage, samples=3).ask(KNOWN)
    pd.testing.assert_frame_equal(asked.responses, again.responses)
    pd.testing.assert_frame_equal(asked.scores, again.scores)


def test_the_score_is_what_the_reward_model_gives_to_prompt_and_response(trained):
    asked = trained.ask(KNOWN)
    folder = trained.stage.inputs["reward_model"].folder / "model"
    model, tokenizer = models.load_scorer(folder), models.load_tokenizer(folder)
    for index in asked.responses.index[:: len(asked.responses) // 3]:
        row = asked.responses.loc[index]
        end = [tokenizer.eos_token_id] if row["finished"] else []
        ids = torch.tensor([tokenizer(f"Q: {KNOWN} A: {row['text']}")["input_ids"] + end])
        with torch.no_grad():
            assert float(model(input_ids=ids).logits) == pytest.approx(asked.scores[0.5][index], abs=1e-5)


def test_the_embedded_models_answer_before_anything_is_trained(untrained):
    text = next(iter(untrained.questions))
    asked = untrained.ask(text)
    assert set(asked.responses["model"]) == {TEACHER, BASE} and asked.scores.empty
    assert asked.gold == untrained.questions[text].answer
    assert {question.split for question in untrained.questions.values()} == {"validation", "test", "gsm_plus"}
    assert untrained.missing(BEFORE, AFTER) == (
        "There is no student before PPO and after PPO of these settings and this code yet: `make study "
        "PROFILE=tiny.yaml` makes it; `make study PROFILE=params/smoke.yaml` makes a small one in minutes, for "
        "profile = 'params/smoke.yaml'."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n\t ", "question is empty"),
        ("how many boks does mia have ?", r"do not know 'boks': did you mean 'books'\?"),
        ("<script>alert(1)</script>", r"do not know '<script>alert\(1\)</script>': take words from the questions"),
        ("a1 a2 a3 a4 a5 a6 a7", r"do not know 'a1', 'a2', 'a3', 'a4', 'a5' and 2 more:"),
        ("x" * 500, rf"do not know '{'x' * 30}':"),
        ("\x1b[31m", r"do not know '␛\[31m'"),
        ("<eos>", "do not know '<eos>'"),
        (("mia has 6 books . " * 600)[:10_000], r"has 2,\d\d\d tokens, and there is room for 912: shorten it"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_sentence(untrained, text, message):
    with pytest.raises(UserError, match=message) as error:
        untrained.ask(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


# ---- the page


class Screen:
    """What a frontend would show: outputs in their order, replaced where they are updated."""

    def __init__(self) -> None:
        self.outputs: list = []

    def display(self, content, raw=False, display_id=None):
        self.outputs.append(content)
        place = len(self.outputs) - 1
        return SimpleNamespace(update=lambda content, raw=False: self.outputs.__setitem__(place, content))

    def __str__(self) -> str:
        return "\n".join(output["text/plain"] for output in self.outputs if isinstance(output, dict))


@pytest.fixture
def screen(monkeypatch) -> Screen:
    found = Screen()
    monkeypatch.setattr(explore_page, "display", found.display)
    return found


@pytest.fixture
def page(trained, screen, monkeypatch) -> explore_page.Page:
    monkeypatch.setattr(explore_page, "Explorer", lambda stage: trained)  # its models are loaded
    shown = explore_page.Page(trained.stage)
    for show in (shown.controls, shown.teacher, shown.student, shown.lambdas):
        show()
    return shown


def test_a_question_is_taken_at_random_typed_or_chosen(page, screen):
    before = page.asked.text
    page.another.click()
    assert page.asked.text != before and page.asked.text in page.explorer.questions
    assert page.choice.value == page.text.value == page.asked.text in str(screen) and page.message.value == ""
    page.text.value = "Mia has 6 books. Mia adopts 6 books. How many books does Mia have?"
    page.ask.click()
    assert page.asked.text == page.text.value == KNOWN and page.choice.value == ""
    assert KNOWN in str(screen) and "gold answer" not in str(screen)
    page.choice.value = next(iter(page.explorer.questions))
    assert page.asked.text == page.text.value == page.choice.value and "gold answer" in str(screen)


def test_a_bad_question_is_one_escaped_sentence_and_changes_nothing_else(page, screen):
    shown, asked, page.text.value = str(screen), page.asked, "<b>mia</b> & $x$"
    page.ask.click()
    with pytest.raises(UserError) as error:
        page.explorer.read(page.text.value)
    assert page.message.value == html.escape(str(error.value)) and "<b>" not in page.message.value
    assert str(screen) == shown and page.asked is asked and not page.ask.disabled


@pytest.mark.parametrize("question", [-1, 10_000, True, 1.5, None])
def test_a_question_that_is_no_number_of_the_list_is_one_sentence(untrained, question):
    with pytest.raises(UserError, match=r"give a number from 0 to \d+, or a text"):
        explore_page.Page(untrained.stage, question)
