"""Result tables of a finished study: what they hold equals what the stages left."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, copy_study, patch_root, stage_in, tiny_settings

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import result_tables
from rdlib.method.metrics import auc
from rdlib.study import compared, results
from rdlib.study.jobs import study_jobs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def collected(study, tmp_path_factory):
    """(folder of results, stages) of a study of one cell, ablations included, run without its notebooks."""
    root = copy_study(study, tmp_path_factory.mktemp("collected") / "root")
    content = tiny_settings()
    content["teachers"] = {"strong": "models/strong"}
    content["students"] = {"small": "models/small"}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"lam": [0.5, 1.0], "teacher_share": [0.5, 0.75]}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch_root(patch, root)
        with pytest.raises(UserError, match=r"missing.*notebooks/"):
            results.collect(PARAMS, [0])
        for job in study_jobs(PARAMS, [0]):
            for stage in job.stages:
                stage.run_with_inputs()
        folder = results.collect(PARAMS, [0]) / "seed0"
        yield folder, results.study_stages(PARAMS, [0])


FILES = {
    "correctness.parquet": ["benchmark", "teacher", "student", "method", "variant", "seed", "id", "group", "correct"],
    "reward_scores.parquet": ["dataset", "teacher", "student", "method", "variant", "seed", "id", "kind", "score"],
    "pseudo_labels.csv": ["dataset", "teacher", "seed", "split", "questions", "failed", "labelled", "label_correct"],
    "reward_model_history.parquet": ["variant", "step", "epoch", "loss", "pos_neg_auc", "pos_pos_auc"],
    "sft_history.parquet": ["method", "step", "epoch", "loss", "eval_loss", "agreement"],
    "ppo_history.parquet": ["variant", "update", "reward", "kl", "validation_agreement"],
    "costs.csv": ["stage", "seconds", "tokens_generated", "tokens_trained"],
}


def read(folder, name) -> pd.DataFrame:
    if name.endswith(".csv"):
        return pd.read_csv(folder / name, keep_default_na=False)
    return pd.read_parquet(folder / name)


def test_every_table_is_there_with_its_columns(collected):
    folder, _ = collected
    for name, columns in FILES.items():
        frame = read(folder, name)
        assert len(frame) and set(columns) <= set(frame.columns), name
    assert {"settings.json", "provenance.json", "example.json"} <= {p.name for p in folder.iterdir()}


def test_correctness_has_a_row_a_test_question_of_every_evaluation(collected):
    folder, stages = collected
    frame = read(folder, "correctness.parquet")
    evaluations = [s for s in stages if s.name == "07_evaluate"]
    assert len(frame) == len(evaluations) * (8 + 6)
    keys = ["benchmark", "teacher", "student", "method", "variant", "seed", "id"]
    assert not frame.duplicated(keys).any()
    for stage in evaluations:
        cell = (stage.teacher or "", stage.student or "", stage.method, stage.variant)
        mask = [tuple(r) == cell for r in frame[["teacher", "student", "method", "variant"]].to_numpy()]
        accuracy = frame[mask].groupby("benchmark")["correct"].mean().to_dict()
        assert accuracy == stage.json("summary")["accuracy"]
    assert set(frame[frame["method"] == "icl"]["teacher"]) == {""}
    assert set(frame[frame["method"] == "teacher"]["student"]) == {""}


def test_scores_give_the_aucs_of_the_stages(collected):
    folder, stages = collected
    frame = read(folder, "reward_scores.parquet")
    for stage in (s for s in stages if s.name == "05_reward_model"):
        own = frame[(frame["method"] == stage.method) & (frame["variant"] == stage.variant)]
        scores = {kind: part["score"] for kind, part in own.groupby("kind")}
        found = auc(scores["student_positive"], scores["student_negative"])
        assert found == pytest.approx(stage.json("summary")["pos_neg_auc"])
    assert set(frame["variant"]) == {
        "",
        "reward_model.lam=1.0",
        "reward_model.teacher_share=0.75",
        "reward_model.source=teacher",
    }


def test_pseudo_label_counts_add_up(collected):
    frame = read(collected[0], "pseudo_labels.csv")
    assert frame["split"].tolist() == ["train", "validation"]
    assert (frame["failed"] + frame["labelled"] == frame["questions"]).all()
    assert frame["questions"].tolist() == [16, 8]
    assert (frame["responses"] == frame["labelled"] * 12).all()
    assert (frame["positives_right"] <= frame["positives"]).all()


def test_costs_count_each_stage_run_once(collected):
    folder, stages = collected
    frame = read(folder, "costs.csv")
    assert len(frame) == len(stages) == len({s.folder for s in stages})
    assert (frame[frame["stage"].isin(["03_sft_warmup", "05_reward_model", "06_ppo"])]["tokens_trained"] > 0).all()
    sampled = frame[frame["stage"].isin(["01_teacher_responses", "04_student_responses", "06_ppo", "07_evaluate"])]
    assert (sampled["tokens_generated"] > 0).all()
    teacher = next(s for s in stages if s.name == "01_teacher_responses")
    expected = teacher.table("responses")["tokens"].sum()
    assert frame[frame["stage"] == "01_teacher_responses"]["tokens_generated"].item() == expected


def test_histories_are_stacked_whole(collected):
    folder, stages = collected
    ppo = read(folder, "ppo_history.parquet")
    stages = [s for s in stages if s.name == "06_ppo"]
    assert len(ppo) == sum(len(s.jsonl("history")) for s in stages)
    assert set(ppo["variant"]) == {s.variant for s in stages}


def test_the_example_is_a_validation_question_with_its_scores(collected):
    folder, stages = collected
    example = json.loads((folder / "example.json").read_text())
    assert example["id"].startswith("gsm-validation")
    assert set(example["scores"]) == {"teacher_response", "student_positive", "student_negative"}
    labels = next(s for s in stages if s.name == "02_pseudo_labels").table("labels").set_index("id")
    assert example["pseudo_label"] == labels["pseudo_label"][example["id"]]
    assert example["student_positive"].endswith(f"#### {example['pseudo_label']}")
    assert not example["student_negative"].endswith(f"#### {example['pseudo_label']}")


def test_provenance_names_command_and_stages_and_no_path(collected):
    folder, stages = collected
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["command"] == f"python -m rdlib study --profile {PARAMS} --seeds 0"
    assert provenance["stages"] == {s.label: s.key for s in stages}
    assert str(folder.parent) not in json.dumps(provenance)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == stages[0].profile.model_dump()


def test_collecting_again_gives_the_same_files(collected):
    folder, _ = collected
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    results.collect(PARAMS, [0])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


# ---- a run held to a released one


def test_a_run_is_held_to_the_released_one_artifact_by_artifact(study, tmp_path):
    root = copy_study(study, tmp_path, "03_sft_warmup")
    stages = [stage_in(study, "00_data"), stage_in(study, "02_pseudo_labels"), stage_in(study, "03_sft_warmup", "sft")]
    released = tmp_path / "released" / "seed0"
    artifacts.write_json(released / "provenance.json", results.provenance(stages, PARAMS, 0))
    changed = stage_in(root, "02_pseudo_labels").folder
    manifest = artifacts.read_json(changed / "manifest.json")
    manifest["files"] = dict.fromkeys(manifest["files"], "0")
    artifacts.write_json(changed / "manifest.json", manifest)
    table = compared.compare(released, root / "runs").set_index("stage")["here"]
    assert [table[stage.label] for stage in stages] == [compared.SAME, compared.DIFFERENT, compared.ABSENT]
    words = compared.told(0, table.reset_index())
    assert words.splitlines()[0] == "seed 0: 3 released stages, 1 the same, 1 different, 1 not made here."
    assert words.splitlines()[1:] == [f"  different: {stages[1].label}"]


@pytest.mark.parametrize(("here", "there"), [("portable", "portable"), ("native", "portable"), ("portable", "native")])
def test_a_comparison_tells_of_another_numerical_mode(study, tmp_path, capsys, here, there):
    root = copy_study(study, tmp_path, "01_teacher_responses")
    stage = stage_in(root, "00_data")
    manifest = artifacts.read_json(stage.folder / "manifest.json")
    manifest["environment"]["numerics"] = here
    artifacts.write_json(stage.folder / "manifest.json", manifest)
    record = results.provenance([stage], PARAMS, 0) | {"numerics": [there]}
    artifacts.write_json(tmp_path / "released" / "seed0" / "provenance.json", record)
    table = compared.compare(tmp_path / "released" / "seed0", root / "runs")
    note = compared.made_natively(table, root / "runs")
    assert note is None if here == "portable" else "1 of the compared stages" in note and stage.label in note
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compared, "ROOT", root)
        assert main(["verify", "--profile", PARAMS, "--released", str(tmp_path / "released")]) == 0
    said = capsys.readouterr().out
    assert ("not computed in the portable numerical mode" in said) == (here != there)
    assert "1 released stages, 1 the same." in said


def test_what_another_processor_made_again_is_counted_beside_the_seed(study, tmp_path):
    """Data and labels are of another chip, and the labels are others; SFT is of this one, so no witness."""
    stages = [stage_in(study, "00_data"), stage_in(study, "02_pseudo_labels"), stage_in(study, "03_sft_warmup", "sft")]
    here = artifacts.read_manifest(stages[0].folder)["environment"]
    record = results.provenance(stages, PARAMS, 0)
    record["contents"][stages[1].label] = "0" * 64
    chip = {"environment": {"processor": "Chip X", "instruction_sets": ["avx2", "avx512f"]}}
    released = tmp_path / "seed0"
    of_sft = {"environment": here, "stages": [stages[2].label]}
    artifacts.write_json(released / "provenance.json", record | chip | {"remade": [of_sft]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compared, "ROOT", study)
        words = ["--profile", PARAMS, "--released", str(tmp_path)]
        assert main(["verify", *words]) == 1 and not (released / result_tables.MADE_AGAIN).exists()
        names = result_tables.MADE_AGAIN_COLUMNS.replace(" ", ",")
        (released / result_tables.MADE_AGAIN).write_text(f"{names}\n0,a,b,Chip Y,c,1,1\n")
        assert main(["verify", *words, "--record"]) == 1
        assert main(["verify", *words, "--record"]) == 1  # a second time is the same
    table = pd.read_csv(released / result_tables.MADE_AGAIN)
    assert list(table) == result_tables.MADE_AGAIN_COLUMNS.split()
    assert table["made_on"].iloc[0] == "Chip Y" and table["stage"].iloc[0] == "a"  # of another processor: it stays
    table = table.iloc[1:]
    assert table["stage"].tolist() == ["00_data", "02_pseudo_labels"] and set(table["seed"]) == {0}
    assert table["stages"].tolist() == [1, 1] and table["same"].tolist() == [1, 0]
    assert set(table["released_from"]) == {"Chip X (AVX-512)"} and set(table["made_on"]) == {
        compared.processor_of(here)
    }


def test_a_release_that_tells_no_contents_cannot_be_compared(tmp_path, capsys):
    artifacts.write_json(tmp_path / "seed0" / "provenance.json", {"stages": {}})
    assert main(["verify", "--released", str(tmp_path)]) == 2
    assert "before version 1.0.0" in capsys.readouterr().err
    assert main(["verify", "--released", str(tmp_path), "--seeds", "4"]) == 2
