"""A study on own questions without answers: a stand-in server is the teacher, whose vote on held-out questions judges.

The questions are micro-gsm's, so that the embedded students can learn from the stand-in, which knows their answers and
now and then says another.
"""

from __future__ import annotations

import hashlib
import shutil

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, make_root, patch_root, stage_in, tiny_settings
from fake_server import FakeServer, listing
from test_real_data import write

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import accuracy, gallery
from rdlib.evidence.result_tables import open_results
from rdlib.method import held_out
from rdlib.settings import Dataset
from rdlib.study import requirements, results, rows
from rdlib.study.specification import dag_edges
from rdlib.tasks import data
from rdlib.tasks.prompts import micro_question
from rdlib.tasks.questions import PERTURBED

CHAIN = [
    *("00_data", "00_gold", "01_teacher_responses", "02_pseudo_labels", "03_sft_warmup"),
    *("04_student_responses", "05_reward_model", "06_ppo"),
]
EVALUATED = [("ours", {}), ("ours_wo_r", {}), ("icl", {"teacher": None}), ("teacher", {"student": None})]
NONE = "#### 999"  # what a poisoned teacher says of the questions held out


class Teacher(FakeServer):
    """A server that solves micro-gsm problems, wrongly now and then; to questions in `poisoned` it says nonsense."""

    def __init__(self, problems):
        super().__init__()
        self.models, self.answer, self.poisoned = listing("authority"), self._solve, set()
        self.solutions = {micro_question(p.question, ()): data.reference_solution(p) for p in problems}

    def _solve(self, body: dict) -> dict:
        prompt = body["messages"][-1]["content"]
        texts = [self._response(prompt, body, sample) for sample in range(body.get("n", 1))]
        choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
        return {"choices": choices, "usage": {"completion_tokens": 20 * len(texts)}}

    def _response(self, prompt: str, body: dict, sample: int) -> str:
        if prompt in self.poisoned:
            return NONE
        draw = hashlib.sha256(f"{prompt}/{body['seed']}/{sample}".encode()).digest()[0]
        others = sorted(self.solutions.values())
        wrong = body["temperature"] > 0 and draw < 60
        return others[draw % len(others)] if wrong else self.solutions[prompt]


@pytest.fixture(scope="module")
def problems():
    """The 32 problems of the tiny micro-gsm."""
    settings = Dataset(**tiny_settings()["datasets"]["gsm"])
    return [problem for _, split, _, problem in data.micro_problems("gsm", settings) if split != PERTURBED]


@pytest.fixture(scope="module")
def teacher(problems):
    server = Teacher(problems)
    yield server
    server.close()


def own_root(folder, problems, url: str, **dataset):
    """A root whose profile has the problems as own questions, and the server as its one teacher."""
    settings = {"source": "questions", "answer": "number", "path": "q.jsonl", "max_tokens": 60}
    settings |= {"train": None, "validation": 8, "test": 8} | dataset
    root = make_root(folder, grid={"ablation_cells": [{"dataset": "mine", "teacher": "strong", "student": "small"}]})
    content = yaml.safe_load((root / PARAMS).read_text()) | {"datasets": {"mine": settings}}
    content["teachers"] = {
        "strong": {"model": "authority", "engine": "openai", "base_url": url, "attempts": 1, "parameters": 1e9}
    }
    content["students"] = {"small": "models/small"}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    write(root / "q.jsonl", [{"question": p.question} for p in problems])
    return root


def of(root, name: str, method: str | None = None, **axes):
    return stage_in(root, name, method, dataset="mine", **axes)


@pytest.fixture(scope="module")
def own_study(tmp_path_factory, problems, teacher):
    """A study trained and evaluated to its end before the teacher is asked the questions held out."""
    root = own_root(tmp_path_factory.mktemp("own") / "root", problems, teacher.url)
    for method, axes in EVALUATED:
        of(root, "07_evaluate", method, **axes).run_with_inputs()
    asked = len(teacher.calls)
    of(root, "01_held_out").run()
    held = {micro_question(q, ()) for q in held_out_questions(root)["question"]}
    early = [call for call in teacher.calls[:asked] if call["messages"][-1]["content"] in held]
    assert len(early) == len(held) == 8  # greedily, in the teacher's own evaluation
    return root


def held_out_questions(root) -> pd.DataFrame:
    return of(root, "00_data").table("questions").query("split == 'test'")


@pytest.mark.slow
def test_the_vote_on_held_out_questions_is_an_artifact_of_its_own(own_study, problems):
    stage = of(own_study, "01_held_out")
    labels, responses = stage.table("labels"), stage.table("responses")
    assert set(labels["id"]) == set(responses["id"]) == set(held_out_questions(own_study)["id"])
    assert set(responses["confidence"]) == {"high"} and (labels["split"] == "test").all()
    gold = {p.question: p.answer for p in problems}
    truth = held_out_questions(own_study).set_index("id")["question"].map(gold)
    known = labels.dropna(subset="pseudo_label").set_index("id")["pseudo_label"]
    assert len(known) >= 6 and (known == truth[known.index]).mean() > 0.7  # the stand-in is mostly right


@pytest.mark.slow
def test_answers_are_held_to_the_vote_and_called_agreement(own_study):
    labels = of(own_study, "01_held_out").table("labels").dropna(subset="pseudo_label")
    votes = dict(zip(labels["id"], labels["pseudo_label"], strict=True))
    stage = of(own_study, "07_evaluate")
    answers, summary = stage.table("answers"), stage.json("summary")
    assert summary["accuracy"] == {} and answers["correct"].isna().all() and rows.graded(stage).empty
    expected = {a.id: a.answer == votes[a.id] for a in answers.itertuples() if a.id in votes}
    judged = rows.judged(stage)
    assert dict(zip(judged["id"], judged["correct"], strict=True)) == expected
    assert set(judged["benchmark"]) == {"mine, agreement with the teacher's vote on held-out questions"}
    assert judged["held_to"].tolist() == [votes[key] for key in judged["id"]]


@pytest.mark.slow
def test_what_else_reads_gold_answers_runs_without(own_study):
    judgement = of(own_study, "02_judgement").run().json("judgement")
    assert judgement["train"]["questions"] > 0 and judgement["train"]["labelled"] == 0
    judged = of(own_study, "13_judged_responses").run().table("judged")
    assert judged["correct"].isna().all() and judged["score"].notna().all()
    for method, axes in (("icl", {"teacher": None}), ("teacher", {"student": None})):
        assert of(own_study, "07_evaluate", method, **axes).json("summary")["few_shot"] == 0


@pytest.fixture(scope="module")
def report(own_study, tmp_path_factory):
    """(results of the seed, folder of the report) of the finished study, ablations left out."""
    folder = tmp_path_factory.mktemp("report")
    of(own_study, "02_judgement").run()
    with pytest.MonkeyPatch.context() as patch:
        patch_root(patch, own_study)
        shutil.copytree(results.collect(PARAMS, [0]), folder / "results")
    gallery.draw_all(open_results(folder / "results", edges=dag_edges()), folder / "figures")
    return folder / "results/seed0", folder / "figures"


@pytest.mark.slow
def test_the_report_shows_agreement_and_no_accuracy(own_study, report):
    tables, figures = report
    evidence = open_results(tables.parent)
    assert evidence.correctness.empty and len(evidence.agreement) and evidence.of_own_questions
    title, text = (figures / "held_out_agreement.md").read_text().split("\n", 1)
    assert title == "# Agreement with the teacher's vote on held-out questions" and "This is no accuracy" in text
    shown = pd.read_csv(figures / "held_out_agreement.csv").set_index("method")
    assert list(shown.index) == ["teacher", "icl", "ours_wo_r", "ours"]
    labels = of(own_study, "01_held_out").table("labels").dropna(subset="pseudo_label")
    for method, axes in EVALUATED:
        answers = of(own_study, "07_evaluate", method, **axes).table("answers").set_index("id")["answer"]
        share = 100 * (answers[labels["id"]].to_numpy() == labels["pseudo_label"].to_numpy()).mean()
        row = shown.loc[method]
        assert row["agreement_pct"] == pytest.approx(share, abs=0.01)
        assert row["agreement_low_pct"] <= row["agreement_pct"] <= row["agreement_high_pct"]
        assert (row["n"], row["held_out"]) == (len(labels), 8)
    gain = shown.loc["ours", "agreement_pct"] - shown.loc["icl", "agreement_pct"]
    assert shown.loc["ours", "gain_pp"] == pytest.approx(gain, abs=0.02) and pd.isna(shown.loc["icl", "gain_pp"])
    assert not list(figures.glob("table_2_main.*")) and not list(figures.glob("*claims*"))
    assert evidence.costs.set_index("stage")["tokens_generated"]["01_held_out"] > 0


# ---- nothing is trained or chosen on them


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory, problems, own_study):
    """The study again, of a teacher whose vote on the held-out questions, made first, is nonsense."""
    server = Teacher(problems)
    server.poisoned = {micro_question(q, ()) for q in held_out_questions(own_study)["question"]}
    root = own_root(tmp_path_factory.mktemp("poisoned") / "root", problems, server.url)
    read = artifacts.read_parquet

    def no_vote(path, *args):
        assert "01_held_out" not in path.parts, "a stage read the vote on held-out questions"
        return read(path, *args)

    vote = of(root, "01_held_out").run_with_inputs().table("labels")
    assert (vote["pseudo_label"] == "999").all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "read_parquet", no_vote)
        of(root, "07_evaluate").run_with_inputs()
    server.close()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAIN)
def test_artifacts_do_not_depend_on_the_vote_on_held_out_questions(own_study, poisoned, name):
    method = "ours_wo_r" if name == "03_sft_warmup" else None
    expected = artifacts.hash_files(of(own_study, name, method).folder)
    assert artifacts.hash_files(of(poisoned, name, method).folder) == expected


# ---- some questions with answers


ANSWERS = pd.DataFrame(
    {"id": ["a", "b", "c", "d"], "answer": ["1", "2", None, "4"], "text": "", "group": "", "correct": None}
)
LABELS = pd.DataFrame({"id": ["a", "b", "c", "x"], "pseudo_label": ["1", "3", "5", "4"]})


def test_held_to_the_vote_by_hand():
    found = held_out.held_to_vote(ANSWERS, LABELS)
    assert found[["id", "vote", "agrees"]].values.tolist() == [["a", "1", True], ["b", "3", False], ["c", "5", False]]
    unlabelled = LABELS.assign(pseudo_label=[None, "2", None, None])
    assert held_out.held_to_vote(ANSWERS, unlabelled)[["id", "agrees"]].values.tolist() == [["b", True]]
    nothing = held_out.held_to_vote(ANSWERS, LABELS.head(0))
    assert nothing.empty and nothing["agrees"].dtype == bool


def test_the_gain_is_paired_with_the_student_before_training():
    columns = {"dataset": "mine", "teacher": "t", "variant": "", "seed": 0, "group": "", "held_out": 5}
    rows = [
        columns | {"student": student, "method": method, "id": f"q{i}", "agrees": agrees}
        for student, method, given in (("s", "icl", "1000"), ("s", "ours", "1101"), ("", "teacher", "1111"))
        for i, agrees in enumerate(one == "1" for one in given)
    ]
    table = accuracy.agreement_table(pd.DataFrame(rows)).set_index("method")
    assert table["agreement_pct"].to_dict() == {"teacher": 100.0, "icl": 25.0, "ours": 75.0}
    assert table["gain_pp"].drop("icl").to_dict() == {"teacher": 75.0, "ours": 50.0}
    assert (table["n"] == 4).all() and (table["held_out"] == 5).all()


def test_questions_with_answers_are_graded_and_cost_the_teacher_nothing(tmp_path, problems, teacher):
    root = own_root(tmp_path, problems, teacher.url)
    known = [{"question": p.question, "answer": p.answer} for p in problems]
    write(root / "q.jsonl", known)
    before = len(teacher.calls)
    stage = of(root, "01_held_out").run_with_inputs()
    assert len(teacher.calls) == before and stage.table("labels").empty and stage.table("responses").empty
    write(root / "q.jsonl", [*known[:3], *({"question": row["question"]} for row in known[3:])])
    evaluation = of(root, "07_evaluate", "teacher", student=None).run_with_inputs()
    of(root, "01_held_out").run()
    judged = rows.judged(evaluation)
    assert judged["benchmark"].value_counts()["mine"] == 3 and len(judged) > 3
    assert rows.graded(evaluation)["benchmark"].tolist() == ["mine"] * 3
    assert rows.evaluated(evaluation)["split"].value_counts().to_dict() == {"held-out": 5, "test": 3}


# ---- what cannot work is said before anything is computed


def refused(root, capsys, *words: str) -> str:
    assert main(["study", "--profile", PARAMS, *words]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and not (root / "runs").exists()
    return said


def test_a_study_whose_server_or_teacher_will_not_do(tmp_path, problems, at_root, capsys):
    server = Teacher(problems)
    root = at_root(own_root(tmp_path, problems, server.url))
    server.models = listing("apprentice")
    assert "has no model 'authority' but apprentice" in refused(root, capsys)
    server.models = listing("authority")
    said = refused(root, capsys, "--experiments", "questions")
    assert "13_baseline: on-policy distillation learns from the teacher's log-probabilities, but the" in said
    server.close()
    assert f"No server answers at {server.url}" in refused(root, capsys)
    assert main(["study", "--profile", PARAMS, "--dry-run"]) == 0  # which asks nobody
    assert not server.calls


def test_reviewers_questions_need_gold_answers(tmp_path, problems, at_root, capsys):
    root = at_root(own_root(tmp_path, problems, "http://127.0.0.1:9/v1"))
    content = yaml.safe_load((root / PARAMS).read_text()) | {"teachers": {"strong": "models/strong"}}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    assert "are judged by gold answers, which test questions of datasets.mine lack" in refused(
        root, capsys, "--experiments", "study", "ablations", "questions"
    )


@pytest.mark.parametrize(
    ("method", "axes", "words"),
    [
        ("ours", {}, "No server answers"),
        ("teacher", {"student": None}, "No server answers"),
        ("distillation", {}, "on-policy distillation learns from the teacher's log-probabilities"),
        ("ours_wo_r", {"student": "strong"}, "the teacher itself is to be trained, but the engine openai of strong"),
    ],
)
def test_a_stage_whose_server_or_teacher_will_not_do(tmp_path, problems, method, axes, words):
    root = own_root(tmp_path, problems, "http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match=words):
        of(root, "07_evaluate", method, **axes).run_with_inputs()
    assert not (root / "runs").exists()


@pytest.mark.slow
def test_only_what_needs_the_teacher_asks_for_it(tmp_path, problems, own_study):
    """A student's stages, and what is done already, need no server."""
    root = own_root(tmp_path, problems, "http://127.0.0.1:9/v1")
    needless = [of(root, name) for name in ("00_data", "02_pseudo_labels", "06_ppo", "07_evaluate")]
    requirements.check_teachers([*needless, of(root, "07_evaluate", "grpo")])
    requirements.check_teachers([of(own_study, "01_teacher_responses")])
    recorded = {"strong": {"model": "responses.jsonl", "engine": "replay"}}
    content = yaml.safe_load((root / PARAMS).read_text()) | {"teachers": recorded}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="the engine replay of strong gives texts alone"):
        requirements.check_teachers([of(root, "13_baseline", "distillation")])
