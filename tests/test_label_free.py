"""Nothing is trained or chosen by gold answers of any split.

Shown in three ways. With every gold answer wrong, every stage of Ours and of SFT writes the same, byte for byte.
The other methods, the baselines and the ablations' variants train where asking for a gold answer is an error. And in
the source, gold answers, and what was measured by them, are named where it is judged and shown, and nowhere else.
(`test_own_study.py` trains without a gold answer in existence, and poisons the vote on held-out questions.)
"""

from __future__ import annotations

import ast
from collections import defaultdict

import pandas as pd
import pytest
from conftest import REPOSITORY, make_root, patch_root, stage_in, tiny_settings
from test_real_data import ALL, GSM8K, ROWS, write

from rdlib import artifacts
from rdlib.method import held_out
from rdlib.micro import gsm, mmlu
from rdlib.settings import Dataset
from rdlib.study import arms, grid
from rdlib.study.specification import BASELINES, STAGES
from rdlib.tasks import data
from rdlib.tasks.questions import read_questions

TRAINING = [
    ("00_data", None),
    ("01_teacher_responses", None),
    ("02_pseudo_labels", None),
    ("03_sft_warmup", "ours_wo_r"),
    ("03_sft_warmup", "sft"),
    ("04_student_responses", "ours"),
    ("05_reward_model", "ours"),
    ("06_ppo", "ours"),
]
PPO = ("04_student_responses", "05_reward_model", "06_ppo")
FLIPPED = {"teacher_sampling.samples_per_temperature": 4, "sft.responses_per_question": 3, "voting.flip_share": 0.2}
FLIPPED |= {"reward_model.lam": 0.25, "reward_model.teacher_share": 0.75, "reward.mismatch": "minus"}
# What else is trained: method, overrides, stages. Together the overrides are all that ablations and questions make.
OTHERS = [
    ("ours_wo_d", {}, PPO),
    *((method, {}, ("13_baseline",)) for method in BASELINES),
    ("ours", FLIPPED, PPO),
    ("ours", {"reward_model.source": "teacher", "reward.mismatch": "none"}, PPO[1:]),
    ("ours", {"reward.source": "vote"}, PPO[2:]),
]


def without_files_of_gold(patch: pytest.MonkeyPatch) -> None:
    """Make it an error to read a file of gold answers."""
    read = artifacts.read_parquet

    def no_gold(path, *args):
        assert "gold" not in path.name, "a training stage read the gold answers"
        return read(path, *args)

    patch.setattr(artifacts, "read_parquet", no_gold)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A study run while every gold answer was wrong and no file of gold answers could be read."""
    root = make_root(tmp_path_factory.mktemp("poisoned"))
    with pytest.MonkeyPatch.context() as patch:
        for problem in (gsm.GsmProblem, mmlu.MmluProblem):
            patch.setattr(problem, "answer", property(lambda self: "-1"))
        without_files_of_gold(patch)
        for name, method in TRAINING:
            stage_in(root, name, method).run()
        stage_in(root, "00_gold").run()
        assert (read_questions(stage_in(root, "00_data").folder, "train")["id"].str.len() > 0).all()
    return root


@pytest.mark.parametrize(("name", "method"), TRAINING)
def test_artifacts_do_not_depend_on_gold_answers(study, poisoned, name, method):
    expected = artifacts.hash_files(stage_in(study, name, method).folder)
    assert any(file.endswith((".parquet", ".safetensors")) for file in expected)
    assert artifacts.hash_files(stage_in(poisoned, name, method).folder) == expected


def test_the_poison_worked(study, poisoned):
    """Else the test above would prove nothing: with it, every evaluation is wrong."""
    assert (stage_in(poisoned, "00_gold").table("gold")["answer"] == "-1").all()
    assert (stage_in(study, "00_gold").table("gold")["answer"] != "-1").all()
    stage = stage_in(poisoned, "07_evaluate", "ours")
    stage.run()
    assert stage.json("summary")["accuracy"] == {"gsm": 0.0, "gsm_plus": 0.0}
    assert stage.table("answers")["text"].tolist() == stage_in(study, "07_evaluate").table("answers")["text"].tolist()


def no_answer(*args):
    """What stands for every way to a gold answer while nothing may ask for one."""
    raise AssertionError("a training stage asked for a gold answer")


@pytest.mark.parametrize(("method", "overrides", "names"), OTHERS, ids=[f"{m}-{len(o)}" for m, o, _ in OTHERS])
@pytest.mark.slow
def test_other_methods_and_variants_train_where_no_gold_answer_can_be_asked_for(
    poisoned, monkeypatch, method, overrides, names
):
    without_files_of_gold(monkeypatch)
    for problem in (gsm.GsmProblem, mmlu.MmluProblem):
        monkeypatch.setattr(problem, "answer", property(no_answer))
    for way in ("load", "worked_examples", "run_gold"):
        monkeypatch.setattr(data, way, no_answer)
    for name in names:
        stage = stage_in(poisoned, name, method)
        stage = stage.with_overrides(overrides) if overrides else stage
        assert stage.run_with_inputs().done


def test_these_are_all_the_variants_that_ablations_and_questions_train(study, monkeypatch):
    patch_root(monkeypatch, study)
    cell = stage_in(study, "07_evaluate", "ours")
    asked = [arm.stage.all_overrides for arm in arms.arms_of(cell)]
    asked += [one for some in grid.ablation_overrides(cell.profile).values() for one in some]
    covered = {key for _, overrides, _ in OTHERS for key in overrides}
    assert {key for one in asked for key in one} <= covered, "add the new override to OTHERS"
    methods = {method for _, method in TRAINING} | {method for method, _, _ in OTHERS}
    assert {arm.stage.method for arm in arms.arms_of(cell)} <= methods | {"teacher"}


# ---- questions of other sources


def shown(questions: list) -> list:
    """All of the questions that `00_data` writes for the stages."""
    return [(q.id, q.split, q.question, q.options, q.group) for q in questions]


def swapped(rows: list[dict], answer) -> list[dict]:
    """Rows with other answers, and no worked solution."""
    return [{**row, "answer": answer(row), "cot_content": ""} for row in rows]


@pytest.mark.parametrize("name", ["gsm", "mmlu"])
def test_generated_questions_do_not_depend_on_their_answers(monkeypatch, tmp_path, name):
    settings = Dataset(**tiny_settings()["datasets"][name])
    before = data.load(name, settings, tmp_path)
    for problem in (gsm.GsmProblem, mmlu.MmluProblem):
        monkeypatch.setattr(problem, "answer", property(lambda self: "-1"))
    after = data.load(name, settings, tmp_path)
    assert shown(after) == shown(before) and {q.answer for q in after} == {"-1"}


def test_real_questions_do_not_depend_on_their_answers(monkeypatch, tmp_path):
    import datasets

    rows = {where: swapped(some, lambda row: row["answer"]) for where, some in ROWS.items()}
    monkeypatch.setattr(
        datasets, "load_dataset", lambda path, *_, split, **__: datasets.Dataset.from_list(rows[path, split])
    )
    settings = GSM8K.model_copy(update={"path": None, "perturbed_path": None, "revision": "a" * 40})
    before = data.load("g", settings, tmp_path)
    rows = {where: swapped(some, lambda row: "#### 7" if "#" in row["answer"] else "7") for where, some in ROWS.items()}
    after = data.load("g", settings, tmp_path)
    assert shown(after) == shown(before) and {q.answer for q in after} == {"7"} != {q.answer for q in before}


@pytest.mark.parametrize(("name", "given"), [("mmlu_pro", "ABC"), ("questions", "ABC")])
def test_choices_do_not_depend_on_which_is_right(tmp_path, name, given):
    rows = [
        {"question_id": i, "question": f"q{i}?", "options": ["x", "y", "z"], "answer": given[i % 3], "category": "law"}
        for i in range(40)
    ]
    settings = Dataset(source=name, answer="choice", path="asked", **ALL)
    found = []
    for right in (lambda row: row["answer"], lambda row: given[(row["question_id"] + 1) % 3]):
        file = tmp_path / ("asked/test.jsonl" if name == "mmlu_pro" else "asked.jsonl")
        content = swapped(rows, right)
        write(
            file,
            content if name == "mmlu_pro" else [{k: r[k] for k in ("question", "options", "answer")} for r in content],
        )
        found.append(
            data.load(
                name, settings if name == "mmlu_pro" else settings.model_copy(update={"path": file.name}), tmp_path
            )
        )
    assert shown(found[0]) == shown(found[1])
    assert all(a.answer != b.answer for a, b in zip(*found, strict=True))


def test_held_out_are_questions_by_whether_they_have_an_answer_and_not_by_which():
    questions, gold = pd.DataFrame({"id": ["a", "b", "c"]}), pd.Series({"a": "1", "b": None, "c": "2"})
    found = [held_out.unanswered(questions, one)["id"].tolist() for one in (gold, gold.replace({"1": "9", "2": "8"}))]
    assert found == [["b"], ["b"]]


# ---- in the source


# Ways to gold answers, and who may name them: what writes, judges, gathers and shows.
WAYS = {"read_gold", "read_aliases", "run_gold", "worked_examples", "mmlu_pro_examples"}
WAYS |= {"GOLD", "00_gold", "gold", "gold.parquet"}
MAY_NAME_GOLD = {
    "tasks/data.py": {"run_gold", "worked_examples"},
    "tasks/questions.py": {"read_gold", "read_aliases"},
    "method/voting.py": {"is_gold", "judgement", "run_judgement"},
    "method/evaluate.py": {
        "run",
        "grade",
        "details",
        "few_shot_examples",
        "run_validation",
    },  # ICL shows worked training questions
    "method/judged.py": {"judge"},
    "method/held_out.py": {"planned", "run", "unanswered"},
    "study/specification.py": {"GOLD", "STAGES"},
    "study/jobs.py": {"GPU_FREE", "seed_jobs"},
    "study/results.py": {"_over_optimisation", "_thresholds", "judged"},
    "study/open_ends.py": {"graded_along"},
    "study/explore_page.py": {"vote_table"},
    "study/explore.py": {"Asked"},
}
# Stages that judge, and the modules that may name them: none of these chooses a setting, a checkpoint or a sample.
JUDGING = {"00_gold", "01_held_out", "02_judgement", "07_evaluate", "13_judged_responses", "13_validation_answers"}
MAY_NAME_JUDGING = (
    "arms estimate experiments grid jobs memory notebook open_ends opening outlook requirements results retrain "
    "rounding same_rate specification stage"
)


def named_in(package: str, words: set[str]) -> dict[str, set[str]]:
    """Which of a package's modules name one of some words, and in which of their functions, classes or constants."""
    found = defaultdict(set)
    for path in sorted((REPOSITORY / "rdlib" / package).rglob("*.py")):
        for part in ast.parse(path.read_text()).body:
            if words & {word for node in ast.walk(part) for word in words_of(node)}:
                target = (
                    ast.unparse(part.targets[0]) if isinstance(part, ast.Assign) else getattr(part, "name", "import")
                )
                found[path.relative_to(REPOSITORY / "rdlib").as_posix()].add(target)
    return dict(found)


def words_of(node: ast.AST) -> list[str]:
    """Names, attributes and texts of a node; an import is no use of what it imports."""
    parts = [getattr(node, "id", None), getattr(node, "attr", None)]
    return [part for part in [*parts, getattr(node, "value", None)] if isinstance(part, str)]


def test_only_what_judges_or_shows_names_gold_answers():
    found = named_in("", WAYS)
    for package in ("evidence", "micro"):  # the tables that are judged already, and a colour
        found = {module: names for module, names in found.items() if not module.startswith(package)}
    assert found == MAY_NAME_GOLD


def test_nothing_that_trains_or_chooses_names_a_stage_that_judges():
    found = named_in("study", JUDGING) | named_in("method", JUDGING) | named_in("engines", JUDGING)
    assert {module.removeprefix("study/").removesuffix(".py") for module in found} <= set(MAY_NAME_JUDGING.split())


def test_training_modules_import_nothing_of_the_evidence_about_it():
    for path in (REPOSITORY / "rdlib/method").glob("*.py"):
        assert "rdlib.evidence" not in path.read_text(), path.name


def test_no_stage_that_trains_comes_after_gold_answers_or_the_vote_on_held_out_questions(cell):
    def closure(stage) -> set[str]:
        return {stage.name}.union(*(closure(upstream) for upstream in stage.inputs.values()))

    judge = ("00_gold", "01_held_out", "02_judgement", "07_evaluate", "13_judged_responses", "13_validation_answers")
    for name in STAGES.keys() - set(judge):
        for method in STAGES[name].methods or (None,):
            assert closure(cell.at(name, method)).isdisjoint(judge), (name, method)
    assert not any("01_held_out" in one.stage for spec in STAGES.values() for one in spec.inputs)
