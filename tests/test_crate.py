"""A crate describes every stage of a finished run, by files or by hashes; an unfinished run is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import PARAMS, REPOSITORY, copy_study

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.study import crate, experiments, results

LABELS = (
    "tiny/gsm/seed0/00_data",
    "tiny/gsm/strong/seed0/01_teacher_responses",
    "tiny/gsm/strong/small/ours/seed0/06_ppo@ppo.kl_coef=0.1",
)
COMMAND = "python -m rdlib study --profile params/tiny.yaml --seeds 0"
VALIDATOR = REPOSITORY / ".venv-crate/bin/python"


def seal(runs: Path, number: int, text: str = "x") -> dict[str, str]:
    """Make a stage's folder whose input is the stage before it; returns what result tables record of it."""
    label = LABELS[number]
    folder = runs / label
    work = folder.with_name(folder.name + ".partial")
    artifacts.write_bytes(work / "model/model.safetensors", f"{text} {label}".encode())
    artifacts.write_json(work / "summary.json", {"same": "in every stage"})
    before = {"data": {"stage": LABELS[number - 1], "content": "c"}} if number else {}
    overrides = {"ppo.kl_coef": 0.1} if "@" in label else {}
    times = {"started": f"2026-01-01T00:0{number}:00+00:00", "ended": f"2026-01-01T00:0{number}:30+00:00"}
    name = label.rpartition("/")[2].partition("@")[0]
    artifacts.seal(work, folder, {"stage": name, "key": "k", "inputs": before, "overrides": overrides, **times})
    content = artifacts.content_hash(artifacts.read_manifest(folder)["files"])
    return {"key": "k", "content": content, "made": "0a"}


def record_of(stages: dict[str, dict], missing: int = 0) -> dict:
    """The provenance of a seed with one experiment."""
    environment = artifacts.environment()
    environment["commits"] = [environment.pop("commit")]
    main_grid = {"title": "The main grid", "group": "study", "file": "", "profile": "params/tiny.yaml"}
    main_grid |= {"command": COMMAND, "started": "2026-01-01T00:00:00+00:00", "missing": missing, "stages": stages}
    known = {"environments": {"0a": environment}, "experiments": {"main": main_grid}}
    return {"profile": "params/tiny.yaml", "seed": 0} | known


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run of three stages, with result tables and a figure."""
    made = tmp_path / "runs/tiny"
    stages = {label: seal(tmp_path / "runs", number) for number, label in enumerate(LABELS)}
    artifacts.write_parquet(made / "results/seed0/answers.parquet", pd.DataFrame({"correct": [True]}))
    artifacts.write_json(made / "results/seed0/settings.json", {"name": "tiny", "ppo": {"kl_coef": 0.2, "lora": None}})
    artifacts.write_json(made / "results/seed0/provenance.json", record_of(stages))
    artifacts.write_bytes(made / "figures/claims.csv", b"claim\nC1\n")
    return made


def graph(out: Path) -> dict[str, dict]:
    """The entities of a crate by their ids."""
    entities = json.loads((out / crate.METADATA).read_text(encoding="utf-8"))["@graph"]
    assert len({one["@id"] for one in entities}) == len(entities)
    return {one["@id"]: one for one in entities}


def ids(value) -> list[str]:
    """The ids that a property refers to."""
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def require_whole(out: Path) -> dict[str, dict]:
    """What every crate has: files with their hashes, references that lead somewhere, no machine's path."""
    found = graph(out)
    root = found["./"]
    profiles = [found[one]["name"] for one in ids(root["conformsTo"])]
    assert {"Process Run Crate", "Workflow Run Crate", "Workflow RO-Crate"} == set(profiles)
    assert set(found[ids(root["mainEntity"])[0]]["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    for one in found.values():
        kinds = [one["@type"]] if isinstance(one["@type"], str) else one["@type"]
        if "File" in kinds and not one["@id"].startswith("ni:"):
            path = out / one["@id"].replace("%40", "@").replace("%3D", "=")
            assert path.is_file() and one.get("sha256", artifacts.file_hash(path)) == artifacts.file_hash(path), one
        for name, value in one.items():
            refers = [part["@id"] for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]
            assert all(other in found or other.startswith("http") for other in refers), (one["@id"], name)
    text = (out / crate.METADATA).read_text(encoding="utf-8")
    assert str(out.resolve()) not in text and str(REPOSITORY) not in text
    return found


@pytest.fixture
def described(run, tmp_path) -> dict[str, dict]:
    """The entities of the crate of a run, as the command writes it."""
    assert main(["crate", str(run), str(tmp_path / "crate")]) == 0
    return require_whole(tmp_path / "crate")


def test_every_stage_of_a_run_is_an_action_with_inputs_results_times_and_software(run, tmp_path, described):
    found, ppo = described, described[f"#stage/{LABELS[2]}"]
    assert (ppo["startTime"], ppo["endTime"]) == ("2026-01-01T00:02:00+00:00", "2026-01-01T00:02:30+00:00")
    read = [found[one] for one in ids(ppo["object"])]
    assert read[0]["@id"] == f"#content/{LABELS[1]}"
    assert {(one["name"], one["value"]) for one in read[1:]} == {("seed", 0), ("ppo.kl_coef", 0.1)}
    assert all(found[ids(one["exampleOfWork"])[0]]["@type"] == "FormalParameter" for one in read[1:])
    software = found[ids(ppo["instrument"])[0]]
    assert software["softwareVersion"] == artifacts.environment()["commit"]
    needs = {found[one]["name"]: found[one]["version"] for one in ids(software["softwareRequirements"])}
    assert needs["torch"] == artifacts.environment()["packages"]["torch"] and "python" in needs
    files = [found[one] for one in ids(found[ids(ppo["result"])[0]]["hasPart"])]
    manifest = artifacts.read_manifest(run.parent / LABELS[2])
    assert {one["name"]: one["sha256"] for one in files[1:]} == manifest["files"]
    assert all(one["@id"].startswith("ni:///sha-256;") for one in files[1:])
    assert not list((tmp_path / "crate").rglob("*.safetensors"))


def test_an_experiment_is_a_run_of_the_workflow_with_its_settings_and_tables(described):
    action = described["#experiment/seed0/main"]
    assert ids(action["instrument"]) == ids(described["./"]["mainEntity"]) == ["Snakefile"]
    assert action["description"] == COMMAND and action["endTime"] == "2026-01-01T00:02:30+00:00"
    values = {described[one]["name"]: described[one]["value"] for one in ids(action["object"])}
    settings = {"name": "tiny", "ppo.kl_coef": 0.2}
    assert values == settings | {"seed": 0, "profile": "params/tiny.yaml", "experiment": "main"}
    assert {"results/seed0/answers.parquet", "figures/claims.csv"} <= set(ids(action["result"]))
    slot = described["#parameter/ppo.kl_coef"]
    assert len(ids(slot["workExample"])) == 2 and slot["@id"] in ids(described["Snakefile"]["input"])


@pytest.mark.parametrize("readme", [None, "mine"])
def test_in_its_own_folder_a_crate_copies_nothing_and_leaves_a_readme(run, readme):
    if readme:
        (run / "README.md").write_text(readme)
    before = {path for path in run.rglob("*") if path.is_file()}
    crate.write(run, run)
    found = require_whole(run)
    new = {path.name for path in run.rglob("*") if path.is_file() and path not in before}
    assert new == {crate.METADATA, "Snakefile"} | (set() if readme else {"README.md"})
    assert ("README.md" in found) == (readme is None) and (not readme or (run / "README.md").read_text() == readme)
    assert "gsm/seed0/00_data/model/model.safetensors" in found and not [one for one in found if one.startswith("ni:")]


def test_no_folder_of_the_machine_is_in_the_metadata(run, tmp_path):
    elsewhere = tmp_path / "someone"
    settings = {"datasets": {"mine": {"path": str(elsewhere / "questions.jsonl")}}}
    artifacts.write_json(run / "results/seed0/settings.json", settings)
    text = crate.write(run, tmp_path / "crate").read_text(encoding="utf-8")
    assert '"questions.jsonl"' in text and str(elsewhere) not in text


def test_released_seeds_are_described_without_their_stages(tmp_path):
    source = REPOSITORY / "figures/results/seed101"
    found = require_whole(crate.write(source, tmp_path / "crate").parent)
    record = artifacts.read_json(source / "provenance.json")
    stages = {label: one for made in record["experiments"].values() for label, one in made["stages"].items()}
    actions = [one for one in found.values() if one["@type"] == "CreateAction"]
    assert len(actions) == len(stages) + len(record["experiments"])
    contents = {one["identifier"] for one in found.values() if one["@type"] == "Collection"}
    assert contents == {one["content"] for one in stages.values()} and "answers.parquet" in found


def test_a_crate_is_written_in_the_place_of_an_earlier_one_and_of_nothing_else(run, tmp_path):
    out = tmp_path / "crate"
    crate.write(run, out)
    (out / "left.txt").touch()
    crate.write(run, out)
    assert not (out / "left.txt").exists()
    (out / crate.METADATA).unlink()
    with pytest.raises(UserError, match="holds something else than a crate: give another folder"):
        crate.write(run, out)


def spoil(run: Path, how: str) -> Path:
    """Make a run unfinished in one way; returns what to describe."""
    provenance = run / "results/seed0/provenance.json"
    stage = run.parent / LABELS[2]
    if how == "begun":
        (run / "gsm/seed1/00_data.partial").mkdir(parents=True)
    elif how == "ungathered":
        shutil.copytree(run / "gsm/seed0", run / "gsm/seed1")
    elif how == "no results":
        shutil.rmtree(run / "results")
    elif how == "missing":
        artifacts.write_json(provenance, record_of(artifacts.read_json(provenance)["experiments"]["main"]["stages"], 2))
    elif how == "gone":
        shutil.rmtree(stage)
    elif how == "recomputed":
        seal(run.parent, 2, "y")
    elif how == "nothing":
        return run / "figures"
    elif how == "absent":
        return run / "other"
    return run


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("begun", r"is not finished: gsm/seed1/00_data was begun .*`make study PROFILE=params/tiny\.yaml SEEDS=1`"),
        ("ungathered", r"is not finished: seed 1 has stages and no result tables\. Finish it by `make study"),
        ("no results", r"is not finished: seed 0 has stages and no result tables"),
        ("missing", rf"is not finished: 2 runs of the experiment main are missing\. Finish it by `{COMMAND}`"),
        ("gone", rf"is not finished: .*06_ppo@ppo.kl_coef=0.1 is gone\. Finish it by `{COMMAND}`"),
        ("recomputed", r"06_ppo@ppo.kl_coef=0.1 was recomputed after the result tables were gathered"),
        ("nothing", r"figures holds no results: give the folder of a finished run, or released results\."),
        ("absent", r"There is no folder .*other: give a run such as runs/micro"),
    ],
)
def test_an_unfinished_run_is_refused_with_what_finishes_it(run, tmp_path, capsys, how, sentence):
    assert main(["crate", str(spoil(run, how)), str(tmp_path / "crate")]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said), said
    assert said.count("\n") == 1 and not (tmp_path / "crate").exists()


@pytest.mark.slow
def test_a_study_that_ran_is_described_by_its_manifests(study, tmp_path, at_root):
    at_root(copy_study(study, tmp_path / "root"))
    folder = tmp_path / "root/runs/tiny"
    asked = experiments.load()["main"]
    runs = [one for one in experiments.runs(asked, PARAMS, [0]) if one.stage.done]
    results.write(folder / "results/seed0", results.gather(PARAMS, 0, [(asked, runs)]))
    found = require_whole(crate.write(folder, tmp_path / "crate").parent)
    stages = {one.label: one for one in experiments.with_upstream(run.stage for run in runs)}
    for label, stage in stages.items():
        read = ids(found[f"#stage/{label}"]["object"])
        assert {f"#content/{one.label}" for one in stage.inputs.values()} <= set(read)


@pytest.mark.slow
def test_the_validator_of_ro_crate_finds_no_issue(run, tmp_path):
    if not VALIDATOR.exists():
        pytest.skip("the validator is not installed: `make check KIND=crate` builds .venv-crate")
    released = crate.write(REPOSITORY / "figures/results/seed102", tmp_path / "released").parent
    crate.write(run, run)
    copied = crate.write(run, tmp_path / "copied").parent
    words = [VALIDATOR, "scripts/validate_crate.py", released, run, copied]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": 0 issues") == 9, done.stdout + done.stderr
