"""The problem behind a question by its id, held to the generator and to GSM-Plus's own rows."""

from __future__ import annotations

import json

import pytest

from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import Dataset
from rdlib.tasks import benchmarks, data
from rdlib.tasks.problems import source_problem

SHARED = ROOT.parent / "shared/data"


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("gsm-plus-0000", "gsm-test-0000"),
        ("gsm-plus-0005", "gsm-test-0000"),
        ("gsm-plus-0006", "gsm-test-0001"),
        ("my-plus-plus-12345", "my-plus-test-2057"),
        ("gsm_plus-testmini-00007", "gsm_plus-testmini/0"),
        ("gsm_plus-test-10551", "gsm_plus-test/1318"),
    ],
)
def test_perturbed_questions_have_the_problem_they_were_made_from(question, problem):
    assert source_problem(question) == problem


@pytest.mark.parametrize(
    "question",
    ["gsm-test-0012", "gsm8k-test-00012", "mmlu_pro-70", "gsm-validation-0003", "times-1", "surplus-0001", 7]
    + ["gsm-plus-00012"],  # an own file named gsm-plus, numbered by five digits (rdlib.tasks.own_questions)
)
def test_every_other_question_is_its_own_problem(question):
    assert source_problem(question) == question


def test_questions_of_one_stem_are_of_one_problem():
    """Ids of micro-mmlu, made as a study makes them, tell equal stems from different ones, and each question."""
    rows = data.micro_problems("mmlu", load_profile("params/micro.yaml").datasets["mmlu"])
    ids = [key for key, *_ in rows]
    assert len(set(ids)) == len(ids)
    for split in ("train", "validation", "test"):
        of_split = [(source_problem(key), problem) for key, its, _, problem in rows if its == split]
        pairs = {(source, problem.question) for source, problem in of_split}
        assert len(pairs) == len({source for source, _ in pairs}) == len({stem for _, stem in pairs}) < len(of_split)
    assert (
        source_problem("mmlu-test-0012.3") == "mmlu-test-0012" and source_problem("mmlu-test-12.3") == "mmlu-test-12.3"
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real benchmarks' files are not part of the repository")
def test_ids_of_testmini_tell_its_seed_questions():
    lines = (SHARED / "gsm_plus/testmini.jsonl").read_text(encoding="utf-8").splitlines()
    sizes = {"train": 1, "validation": 1, "test": 1, "max_tokens": 1}
    settings = Dataset(source="gsm8k", answer="math", perturbed_path="gsm_plus", **sizes)
    questions = benchmarks.gsm_plus(settings, SHARED)
    pairs = {
        (source_problem(q.id), json.loads(line)["seed_question"]) for q, line in zip(questions, lines, strict=True)
    }
    assert len(questions) == 2400 and len(pairs) == 300  # each problem one seed question,
    assert len({problem for problem, _ in pairs}) == len({seed for _, seed in pairs}) == 300  # and each of these one
