"""The reviewers' questions: which runs answer them, the tables by hand, and the whole of it on the tiny study."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, copy_study, stage_in, tiny_settings

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import gallery, ledger, looks, result_tables, tables
from rdlib.study import arms, remake, results
from rdlib.study.grid import ablation_cells
from rdlib.study.jobs import study_jobs


def test_every_question_has_one_reference_or_one_a_level():
    found = arms.arms_of(ablation_cells("params/micro.yaml", 0)[0])
    for question in ("R1", "R2", "R3", "R5"):
        assert sum(arm.reference for arm in found if arm.question == question) == 1
    flips = [arm for arm in found if arm.question == "R4"]
    assert {arm.level for arm in flips if arm.reference} == {arm.level for arm in flips} == {0.0, 0.05, 0.1, 0.2, 0.4}
    assert len({(arm.question, arm.name, arm.level) for arm in found}) == len(found)


def test_arms_differ_from_ours_in_what_they_say():
    (cell,) = ablation_cells("params/micro.yaml", 3)
    by_name = {(arm.question, arm.name, arm.level): arm.stage for arm in arms.arms_of(cell)}
    assert by_name["R5", "vote alone", None].overrides == {"reward.source": "vote"}
    assert by_name["R4", "Ours", 0.2].overrides == {"voting.flip_share": 0.2}
    assert by_name["R4", "Ours", 0.0].variant == "" and by_name["R4", "Ours", 0.0].seed == 3
    more = by_name["R2", "SFT", 2.0].profile
    assert more.teacher_sampling.samples_per_temperature == 10 and more.sft.responses_per_question == 8
    assert by_name["R3", "teacher, fine-tuned", None].student == "strong"


def test_operations_by_hand():
    assert ledger.flops("01_teacher_responses", 10, 100, 0) == 2 * 10 * 100
    assert ledger.flops("03_sft_warmup", 10, 0, 100) == 6 * 10 * 100
    # sampling, and one pass each of policy, reference, value model and reward model; two networks trained
    assert ledger.flops("06_ppo", 10, 100, 200, 4 * 150) == 10 * (2 * 100 + 2 * 4 * 150 + 2 * 6 * 200)


def test_the_teacher_that_reads_what_a_student_samples_is_counted(study):
    assert ledger.flops("13_baseline", 10, 100, 150, 20, 30) == 10 * (2 * 120 + 6 * 150) + 30 * 2 * 150
    stages = {method: stage_in(study, "13_baseline", method) for method in ("grpo", "distillation")}
    assert ledger.parameters_of_reader(stages["grpo"]) == 0
    teacher = ledger.parameters_of_reader(stages["distillation"])
    assert teacher == ledger.parameters_of(stage_in(study, "01_teacher_responses")) > 0
    rows = pd.DataFrame(
        {"stage": ["13_baseline"], "parameters": [10], "tokens_generated": [40], "tokens_trained": [20]}
    )
    assert ledger.ledger(rows)["flops"].tolist() == [2000]  # of results that do not tell the reader
    assert ledger.ledger(rows.assign(reader_parameters=5))["flops"].tolist() == [2200]


def closure(stage) -> set:
    return {stage.folder}.union(*(closure(upstream) for upstream in stage.inputs.values()))


def test_no_two_runs_make_one_stage_at_once():
    """Runs that share a stage that the study does not make come one after the other."""
    jobs = study_jobs("params/micro.yaml", [0], questions=True)
    study = jobs[: next(i for i, job in enumerate(jobs) if job.notebook == "13_reviewer_runs")]
    made = {stage.folder for job in study for stage in job.stages}
    runs = [job for job in jobs if job.notebook == "13_reviewer_runs"]
    assert len(runs) >= 12 and jobs[-1].notebook == "13_reviewer_questions"
    assert len({job.name for job in jobs}) == len({job.executed for job in jobs}) == len(jobs)

    def before(job) -> set[int]:
        return {id(other) for other in job.after}.union(*(before(other) for other in job.after if other in runs))

    for i, job in enumerate(runs):
        for other in runs[:i]:
            if (closure(job.stages[0]) & closure(other.stages[0])) - made:
                assert id(other) in before(job), (job.name, other.name)
        assert job in jobs[-1].after


@pytest.mark.slow
def test_the_questions_are_answered_on_the_tiny_study(study, tmp_path, at_root):
    root = copy_study(study, tmp_path / "root")
    content = tiny_settings()
    content["teachers"], content["students"] = {"strong": "models/strong"}, {"small": "models/small"}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"flip_share": [0.4]}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    at_root(root)
    (cell,) = ablation_cells(PARAMS, 0)
    for arm in arms.arms_of(cell):
        arm.stage.run_with_inputs()
    cell.at("13_judged_responses").run_with_inputs()
    folder = results.collect_questions(PARAMS, [0]) / "seed0"
    written = {*result_tables.QUESTION_COLUMNS, result_tables.QUESTION_TRAININGS, result_tables.ANSWERED}
    assert {path.name for path in folder.iterdir()} == written
    made = json.loads((folder / "question_provenance.json").read_text())
    assert made["command"].endswith("--seeds 0 --questions") and len(made["stages"]) > 30
    found = pd.read_parquet(folder / "reviewers.parquet")
    for name in ("reviewers.parquet", "judged.parquet", "over_optimisation.csv", "question_costs.csv"):
        table = found if name == "reviewers.parquet" else tables.read_table(folder / name, "")
        assert set(table["cell"]) == {"gsm/strong/small"}, name
    equal = pd.read_parquet(folder / "judged.parquet").groupby(["id", "text"])
    assert len(equal) > 1 and (equal["answer"].nunique(dropna=False) == 1).all()
    tokens, score = equal["tokens"].agg(["min", "max"]), equal["score"].agg(["min", "max"])
    alike = tokens["max"] == tokens["min"]  # a text cut off may equal one that ended
    assert alike.mean() > 0.9 and (score["max"] - score["min"])[alike].max() < 1e-4
    for arm in arms.arms_of(cell):
        own = found[(found.question == arm.question) & (found.arm == arm.name)]
        own = own[own.level.isna()] if arm.level is None else own[own.level == arm.level]
        accuracy = own.groupby("benchmark")["correct"].mean().to_dict()
        assert accuracy == arm.stage.json("summary")["accuracy"], arm
    costs = pd.read_csv(folder / "question_costs.csv")
    ours = costs[(costs.question == "R1") & (costs.arm == "Ours")]
    assert sorted(ours.stage) == sorted(s.name for s in {s.folder: s for s in _working(cell)}.values())
    _made_again(folder)
    (folder / "judged.parquet").rename(folder / "kept")
    (folder / "judged.parquet").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"judged\.parquet can't be read"):
        _ = result_tables.Evidence((folder,)).judged
    (folder / "kept").rename(folder / "judged.parquet")
    correctness = found.rename(columns={"arm": "method"}).assign(
        variant="", teacher="strong", student="small", group=""
    )
    correctness.to_parquet(folder / "correctness.parquet")
    (folder / "settings.json").write_text(json.dumps(cell.profile.model_dump()))
    paths = gallery.draw_all(result_tables.Evidence((folder,)), tmp_path, "13_reviewer_questions")
    assert len(paths) == 8 * 2 + 11 * 3 and all(path.stat().st_size for path in paths)


def _made_again(folder):
    """A method's rows are replaced by what its runs give, all else stays; refused where what they read is another."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    told = remake.remake(folder, ["grpo", "dpo"], 1)
    assert "stages that are read are as released, to the byte; 0 of 4 now differ" in told
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    record = json.loads(before[result_tables.ANSWERED])
    of_grpo = next(label for label in record["stages"] if label.endswith("grpo/seed0/13_baseline"))
    older = record | {"stages": record["stages"] | {of_grpo: "0" * 64}, "commits": ["a" * 40]}
    artifacts.write_json(folder / result_tables.ANSWERED, older)
    wrong = pd.read_parquet(folder / "reviewers.parquet")
    wrong.loc[wrong["arm"] == looks.BASELINE_NAMES["grpo"], "correct"] ^= True
    wrong.to_parquet(folder / "reviewers.parquet")
    remake.remake(folder, ["grpo", "dpo"], 1)
    found = json.loads((folder / result_tables.ANSWERED).read_text())
    (again,) = found.pop("remade")
    assert again["command"].endswith("remake grpo dpo --seeds 0") and again["stages"] == [of_grpo]
    assert again["commits"] == record["commits"] and found["commits"] == sorted({"a" * 40, *record["commits"]})
    assert found | {"commits": record["commits"]} == record
    others = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != result_tables.ANSWERED}
    assert others == {name: content for name, content in before.items() if name in others}

    read = next(label for label in record["contents"] if "03_sft_warmup" in label)
    moved = record | {"contents": record["contents"] | {read: "0" * 64}}
    artifacts.write_json(folder / result_tables.ANSWERED, moved)
    wrong.to_parquet(folder / "reviewers.parquet")
    with pytest.raises(UserError, match="stays as it is: 1 stages that are read came out other than released"):
        remake.remake(folder, ["grpo"], 1)
    assert pd.read_parquet(folder / "reviewers.parquet").equals(wrong)
    for name, content in before.items():
        (folder / name).write_bytes(content)


def test_rows_made_again_take_the_place_of_those_of_the_same_name():
    old = pd.DataFrame({"arm": ["a", "b", "b", "c"], "level": [1.0, None, None, 2.0], "n": [1, 2, 3, 4]})
    new = pd.DataFrame({"n": [9, 8], "level": [None, None], "arm": ["b", "b"]})
    found = remake.put_in_place(old, new.astype({"level": float}), ["arm", "level"])
    assert found["arm"].tolist() == ["a", "b", "b", "c"] and found["n"].tolist() == [1, 9, 8, 4]
    with pytest.raises(UserError, match="no rows of d: they are of another profile"):
        remake.put_in_place(old, new.assign(arm="d"), ["arm", "level"])


def _working(stage):
    yield from (s for s in (stage,) if "teacher" in s.spec.axes and s.name[:2] != "02")
    for upstream in stage.inputs.values():
        yield from _working(upstream)
