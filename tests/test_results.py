"""Result tables of a finished study: what they hold equals what the stages left; merging, converting, comparing."""

from __future__ import annotations

import importlib.util
import json

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, patch_root, tiny_settings

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import diagnostics, result_tables, tables
from rdlib.evidence.result_tables import COLUMNS, KEY_LENGTH, MEASURES, open_results
from rdlib.method.metrics import auc
from rdlib.study import experiments, results, rows, verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(study, tmp_path_factory):
    """A root with a study of one cell whose runs are finished: main, ablations, R4 and RM."""
    root = copy_study(study, tmp_path_factory.mktemp("collected") / "root")
    content = tiny_settings() | {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"lam": [0.5, 1.0], "teacher_share": [0.5, 0.75], "flip_share": [0.4], "mismatch": ["none"]}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch_root(patch, root)
        yield root


@pytest.fixture(scope="module")
def found(root):
    """The experiments of the study, with their runs."""
    asked = experiments.named(["study", "ablations", "R4", "RM"])
    return {one.name: (one, experiments.runs(one, PARAMS, [0])) for one in asked}


@pytest.fixture(scope="module")
def folder(root, found):
    """The results of seed 0, gathered before the questions were finished, then with them."""
    with pytest.raises(UserError, match=r"missing.*notebooks/"):
        results.collect(PARAMS, [0])
    for name, (_, runs) in found.items():
        for run in runs if name not in ("R4", "RM") else ():
            run.stage.run_with_inputs()
    folder = results.collect(PARAMS, [0]) / "seed0"
    assert set(result_tables.read_record(folder)["experiments"]) == set(found) - {"held_out", "R4", "RM"}
    for name in ("R4", "RM"):
        for run in found[name][1]:
            run.stage.run_with_inputs()
    return results.collect(PARAMS, [0], experiments.named(["R4", "RM"])) / "seed0"


@pytest.fixture(scope="module")
def evidence(folder):
    return open_results(folder.parent)


def test_every_file_has_its_columns_and_settings_are_numbers(folder):
    for name, columns in COLUMNS.items():
        table = result_tables.read_rows(folder / name)
        assert len(table) and list(table)[: len(columns.split())] == columns.split(), name
        assert all("." in column for column in list(table)[len(columns.split()) :])
    curves = result_tables.read_rows(folder / "curves.parquet")
    assert set(curves["reward_model.lam"].dropna()) == {1.0}
    assert {"settings.json", "provenance.json", "example.json"} <= {path.name for path in folder.iterdir()}


def test_every_arm_has_its_answers_as_its_stage_graded_them(evidence, found):
    for name, (_, runs) in found.items():
        table = evidence.rows("answers", name, split="test") if runs else pd.DataFrame()
        for run in (run for run in runs if run.stage.name == "07_evaluate"):
            own = table[(table["arm"] == run.arm) & (table["cell"] == run.cell)]
            own = own[own["level"].isna() if run.level is None else own["level"] == run.level]
            own = own[own["key"] == run.stage.key[:KEY_LENGTH]]
            accuracy = run.stage.json("summary")["accuracy"]
            assert own.groupby("benchmark")["correct"].mean().to_dict() == pytest.approx(accuracy), run
            assert set(own["reference"]) == {run.reference} and set(own["method"]) == {run.stage.method}


def test_the_study_counts_an_evaluation_once(evidence, found):
    table = evidence.correctness
    stages = {run.stage.folder for name in ("main", "reward_source", "correctness") for run in found[name][1]}
    assert len(table) == len(stages) * (8 + 6)
    assert not table.duplicated(["benchmark", "teacher", "student", "method", "variant", "seed", "id"]).any()
    assert set(table[table["method"] == "icl"]["teacher"]) == {""}
    assert set(table["variant"]) == {"", "reward_model.source=teacher", "reward.mismatch=none"}


def test_scores_give_the_aucs_of_the_stages(evidence, found):
    table = evidence.reward_scores
    for run in (*found["lambda"][1], *found["data_ratio"][1]):
        own = table[(table["method"] == run.stage.method) & (table["variant"] == run.stage.variant)]
        scores = {kind: part["score"] for kind, part in own.groupby("kind")}
        expected = run.stage.json("summary")["pos_neg_auc"]
        assert auc(scores["student_positive"], scores["student_negative"]) == pytest.approx(expected)


def test_votes_add_up(evidence):
    table = evidence.pseudo_labels
    assert table["split"].tolist() == ["train", "validation"] and table["questions"].tolist() == [16, 8]
    assert (table["failed"] + table["labelled"] == table["questions"]).all()
    assert (table["responses"] == table["labelled"] * 12).all()
    assert (table["positives_right"] <= table["positives"]).all()
    assert evidence.thresholds["n"].tolist() == [24] * len(evidence.thresholds) and len(evidence.thresholds) > 1


def test_costs_count_each_stage_of_the_study_once(evidence, found):
    stages = experiments.with_upstream(
        run.stage for one, runs in found.values() if one.group in ("study", "ablations") for run in runs
    )
    table = evidence.costs.set_index("key")
    assert set(table.index) == {stage.key[:KEY_LENGTH] for stage in stages} and table.index.is_unique
    teacher = next(stage for stage in stages if stage.name == "01_teacher_responses")
    tokens = teacher.table("responses")["tokens"].sum()
    assert table.loc[teacher.key[:KEY_LENGTH], "tokens_generated"] == tokens
    trained = table[table["stage"].isin(["03_sft_warmup", "05_reward_model", "06_ppo"])]
    assert (trained["tokens_trained"] > 0).all() and (trained["gflop"] > 0).all()


def test_an_arm_has_the_costs_of_all_that_it_depends_on(evidence, found):
    costs = evidence.question_costs
    ours = costs[(costs["question"] == "R4") & (costs["arm"] == "Ours") & (costs["level"] == 0.4)]
    (run,) = (run for run in found["R4"][1] if run.arm == "Ours" and run.level == 0.4)
    stages = [stage.name for stage in experiments.with_upstream([run.stage])]
    assert sorted(ours["stage"]) == sorted(stages)


def test_curves_are_those_of_the_study_and_trainings_those_of_the_questions_too(evidence, found):
    stages = {run.stage.at("06_ppo").folder: run.stage.at("06_ppo") for run in found["correctness"][1]}
    ppo, own = evidence.ppo_history, next(iter(stages.values()))
    history = own.jsonl("history")
    mine = ppo[(ppo["method"] == "ours") & (ppo["variant"] == own.variant)]
    assert mine["reward"].tolist() == pytest.approx(history["reward"].tolist(), nan_ok=True)
    assert "voting.flip_share=0.4" not in set(ppo["variant"])
    flipped = evidence.trainings[evidence.trainings["variant"] == "voting.flip_share=0.4"]
    assert set(flipped["stage"]) == {"03_sft_warmup", "05_reward_model", "06_ppo"}


def test_what_the_reward_model_can_give(evidence, found):
    (run,) = found["RM"][1]
    judged, table = evidence.judged, run.stage.table("judged")
    assert judged["score"].tolist() == table["score"].tolist() and set(judged["cell"]) == {"gsm/strong/small"}
    along = diagnostics.along_ppo(evidence)
    assert along["accuracy"].iloc[-1] == pytest.approx(_last_accuracy(run.stage.at("06_ppo")), rel=1e-5)


def _last_accuracy(ppo) -> float:
    along = rows.graded_along(ppo)
    return along[along["update"] == along["update"].max()]["correct"].astype(float).mean()


def test_the_example_is_a_validation_question_with_its_scores(folder, found):
    example = json.loads((folder / "example.json").read_text())
    assert example["id"].startswith("gsm-validation")
    assert set(example["scores"]) == {"teacher_response", "student_positive", "student_negative"}
    labels = found["judgement"][1][0].stage.at("02_pseudo_labels").table("labels").set_index("id")
    assert example["pseudo_label"] == labels["pseudo_label"][example["id"]]
    assert example["student_positive"].endswith(f"#### {example['pseudo_label']}")


def test_provenance_names_command_and_stages_of_each_experiment_and_no_path(folder, found):
    record = result_tables.read_record(folder)
    for name, (one, runs) in found.items():
        if runs:
            told = record["experiments"][name]
            measures = [stage for run in runs for stage in experiments.measures_of(run, one)]
            stages = experiments.with_upstream([*(run.stage for run in runs), *measures])
            assert {label: one["key"] for label, one in told["stages"].items()} == {s.label: s.key for s in stages}
            assert told["missing"] == 0 and all(
                one["made"] in record["environments"] for one in told["stages"].values()
            )
    assert record["experiments"]["R4"]["command"].endswith(f"--profile {PARAMS} --seeds 0 --experiments R4")
    assert str(folder.parent) not in json.dumps(record)
    origin = result_tables.origin(folder, "main")
    assert origin["commits"] == sorted({*origin["commits"]}) and origin["command"].endswith(f"{PARAMS} --seeds 0")


def test_collecting_again_gives_the_same_files(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    results.collect(PARAMS, [0])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_part_of_a_study_is_collected_and_exhibits_without_rows_have_a_reason(root, folder, found, tmp_path):
    one, runs = found["main"]
    unfinished = runs[-1].stage.at("06_ppo").folder
    seed = results.gather(PARAMS, 0, [(one, runs[:2]), (experiments.load()["R2"], [])], partial=True)
    assert list(seed.experiments) == ["main"] and seed.experiments["main"]["missing"] == 0
    unfinished.rename(tmp_path / "away")
    try:
        seed = results.gather(PARAMS, 0, [(one, runs)], partial=True)
        with pytest.raises(UserError, match="is missing"):
            results.gather(PARAMS, 0, [(one, runs)])
    finally:
        (tmp_path / "away").rename(unfinished)
    assert seed.experiments["main"]["missing"] == 1
    results.write(tmp_path / "results/seed0", seed)
    part = open_results(tmp_path / "results")
    rows = part.correctness
    cell = {axis: getattr(runs[-1].stage, axis) for axis in ("teacher", "student", "method")}
    assert tables.select(rows, **cell).empty and not part.asks_for_all and not part.reward_scores.empty


def test_settings_keep_no_folder_of_the_machine(root, tmp_path):
    content = yaml.safe_load((root / PARAMS).read_text())
    (tmp_path / "questions.jsonl").touch()
    content["datasets"]["gsm"] |= {"source": "questions", "path": str(tmp_path / "questions.jsonl")}
    del content["datasets"]["gsm"]["perturbed_test"]
    (root / "other.yaml").write_text(yaml.safe_dump(content | {"name": "other"}))
    settings = results.gather("other.yaml", 0, []).documents["settings.json"]
    assert settings["datasets"]["gsm"]["path"] == "questions.jsonl" and str(tmp_path) not in json.dumps(settings)


def test_what_was_once_asked_for_by_name_is_gathered_while_it_is_up_to_date(root, found):
    """The study has SFT too, which the other profile does not ask for."""
    content = yaml.safe_load((root / PARAMS).read_text())
    content["grid"] |= {"methods": ["ours_wo_r", "ours"], "ablations": []}
    methods = {}
    for batch_size in (content["sft"]["batch_size"], 2 * content["sft"]["batch_size"]):
        content["sft"]["batch_size"] = batch_size
        (root / "asked.yaml").write_text(yaml.safe_dump(content))
        wanted = results.wanted_runs(found["main"][0], "asked.yaml", [0], (), named=False)
        methods[batch_size] = {run.stage.method for run in wanted} - {"teacher", "icl", "ours_wo_r", "ours"}
    assert list(methods.values()) == [{"sft", "ours_wo_d"}, {"ours_wo_d"}]


# ---- the files of version 1.0.0

AXES = "dataset teacher student method variant seed"
SPENT = f"{AXES} stage seconds tokens_generated tokens_trained tokens_read"
ARM = "cell question arm level"
OLD_FILES = {
    "correctness.parquet": f"{AXES.removeprefix('dataset ')} benchmark id group correct",
    "reward_scores.parquet": f"{AXES} id kind score",
    "pseudo_labels.csv": f"dataset teacher seed split {result_tables.COUNTS}",
    "thresholds.csv": f"{result_tables.SWEEP} dataset teacher",
    "reviewers.parquet": f"{ARM} reference benchmark seed id correct",
    "judged.parquet": "cell policy id sample tokens text answer agrees correct score",
    "costs.csv": SPENT,
    "question_costs.csv": f"{SPENT} {ARM}",
    "trainings.csv": f"{AXES} stage measure start best best_step steps stopped_early",
    "sft_history.parquet": f"{AXES} {MEASURES['03_sft_warmup']}",
    "reward_model_history.parquet": f"{AXES} {MEASURES['05_reward_model']}",
    "ppo_history.parquet": f"{AXES} {MEASURES['06_ppo']}".replace(" step", "").replace(" accuracy", ""),
}


def test_results_of_version_1_0_0_are_converted_to_the_same_tables(folder, evidence, root, tmp_path, monkeypatch):
    """Tables as 1.0.0 wrote them become those that are gathered from the stages."""
    old = tmp_path / "seed0"
    old.mkdir()
    _write_as_1_0_0(old, evidence, folder)
    with pytest.raises(UserError, match=r"convert_results\.py"):
        open_results(tmp_path).records  # noqa: B018
    spec = importlib.util.spec_from_file_location("convert", REPOSITORY / "scripts/convert_results.py")
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    converter.convert(old)
    again = open_results(tmp_path)
    assert {path.name for path in old.iterdir()} == {*COLUMNS, "provenance.json", "settings.json", "example.json"}
    for name in (file.partition(".")[0] for file in OLD_FILES):
        first, second = (getattr(one, name).dropna(axis="columns", how="all") for one in (again, evidence))
        later = {"accuracy", "gflop", "parameters", "reader_parameters"}  # 1.0.0 had accuracy for one policy a cell
        assert set(first) ^ set(second) <= later, name
        columns = [column for column in second if column not in later]
        pd.testing.assert_frame_equal(first[columns], second[columns], check_dtype=False, rtol=1e-5, obj=name)
    first, second = (diagnostics.along_ppo(one) for one in (again, evidence))
    pd.testing.assert_frame_equal(first, second, check_dtype=False, rtol=1e-5)
    assert again.records[old].keys() == evidence.records[folder].keys()


def _write_as_1_0_0(old, evidence, folder) -> None:
    for name, columns in OLD_FILES.items():
        table = getattr(evidence, name.partition(".")[0])
        table = table[[column for column in columns.split() if table[column].notna().any()]]
        table.to_csv(old / name, index=False) if name.endswith(".csv") else table.to_parquet(old / name)
    columns = ["cell", "update", "kl", "reward", "agreement", "accuracy"]
    diagnostics.along_ppo(evidence)[columns].to_csv(old / "over_optimisation.csv", index=False)
    for name in ("settings.json", "example.json"):
        (old / name).write_bytes((folder / name).read_bytes())
    record = result_tables.read_record(folder)
    environment = next(iter(record["environments"].values()))
    asked = {"R4", "RM"}
    for file, names in (("provenance.json", set(record["experiments"]) - asked), ("question_provenance.json", asked)):
        stages = {label: one for name in names for label, one in record["experiments"][name]["stages"].items()}
        made = {"command": "c", "profile": PARAMS, "seed": 0, "commits": environment["commits"], "dirty": False}
        made |= {"started": "2026", "environment": environment}
        kinds = {"stages": "key", "contents": "content"}
        made |= {name: {k: v[kind] for k, v in stages.items()} for name, kind in kinds.items()}
        artifacts.write_json(old / file, made)


# ---- a run compared with a released one


@pytest.fixture
def released(folder, tmp_path):
    """A copy of the results as a release, and its record to be changed."""
    copy = tmp_path / "released/seed0"
    results.write(copy, results.read(folder))
    return copy, result_tables.read_record(copy)


def test_a_run_is_compared_with_the_released_one_artifact_by_artifact(released, root, found, monkeypatch, capsys):
    folder, record = released
    first, second = list(record["experiments"]["main"]["stages"])[:2]
    for one in record["experiments"].values():
        if second in one["stages"]:
            one["stages"][second]["content"] = "0" * 64
    record["experiments"]["main"]["stages"]["tiny/gsm/seed9/00_data"] = record["experiments"]["main"]["stages"][first]
    artifacts.write_json(folder / "provenance.json", record)
    table = verify.compare(folder, root / "runs").set_index("stage")["here"]
    assert [table[first], table[second], table.iloc[-1]].count(verify.DIFFERENT) == 1
    monkeypatch.setattr(verify, "ROOT", root)
    assert main(["verify", "--profile", PARAMS, "--released", str(folder.parent)]) == 1
    said = capsys.readouterr().out
    assert f"{len(table)} released stages" in said and f"  different: {second}" in said and "1 not made here" in said
    assert main(["verify", "--profile", PARAMS, "--released", str(folder.parent), "--seeds", "4"]) == 2


def test_what_another_processor_reran_is_counted_beside_the_seed(released, root, monkeypatch, capsys):
    folder, record = released
    (number,) = record["environments"]
    here = verify.processor_of(record["environments"][number])
    other = record["environments"][number] | {"processor": "Chip X", "instruction_sets": ["avx2", "avx512f"]}
    record["environments"]["other"] = other
    stages = record["experiments"]["main"]["stages"]
    chosen = [label for label in stages if label.endswith(("00_data", "02_pseudo_labels"))]
    for one in record["experiments"].values():
        for label in set(one["stages"]) & set(chosen):
            one["stages"][label] |= {"made": "other"} | ({"content": "0"} if label.endswith("labels") else {})
    artifacts.write_json(folder / "provenance.json", record)
    (folder / result_tables.RERUNS).write_text(
        f"{result_tables.RERUNS_COLUMNS.replace(' ', ',')}\n0,a,b,Chip Y,c,1,1\n"
    )
    monkeypatch.setattr(verify, "ROOT", root)
    for _ in range(2):  # a second time is the same
        assert main(["verify", "--profile", PARAMS, "--released", str(folder.parent), "--record"]) == 1
    table = pd.read_csv(folder / result_tables.RERUNS)
    assert list(table) == result_tables.RERUNS_COLUMNS.split() and table["made_on"].iloc[0] == "Chip Y"
    table = table.iloc[1:]
    assert table["stage"].tolist() == ["00_data", "02_pseudo_labels"] and table["same"].tolist() == [1, 0]
    assert set(table["released_from"]) == {"Chip X (AVX-512)"} and set(table["made_on"]) == {here}
