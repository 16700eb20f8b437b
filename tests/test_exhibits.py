"""Tables and figures: what they declare, what is left out and why, and that a figure draws its table alone."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import long_tables
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, make_root, patch_root, tiny_settings
from excerpts import excerpt, own_questions
from matplotlib.colors import to_rgb
from PIL import Image

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import (
    aucs,
    claims,
    curves,
    gallery,
    looks,
    paper,
    plots,
    result_tables,
    tables,
)
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.gallery import EXHIBITS, Exhibit
from rdlib.evidence.result_tables import open_results
from rdlib.study import estimate, experiments, figures, notebook, workflow
from rdlib.study.jobs import exhibit_jobs, exhibit_runs
from rdlib.study.specification import STAGES, dag_edges

FIGURES = REPOSITORY / "figures"


# ---- declarations


@pytest.mark.parametrize("exhibit", EXHIBITS.values(), ids=lambda one: one.name)
def test_what_an_exhibit_declares_is_there(exhibit: Exhibit):
    assert exhibit.caption.endswith(".") and exhibit.title
    assert {one.name for one in experiments.named(exhibit.experiments)} == {
        name.rpartition(":")[2] for name in exhibit.experiments
    }
    assert exhibit.last is None or exhibit.last in STAGES
    assert exhibit.notebook in {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    for name in filter(None, (exhibit.function, exhibit.figure, exhibit.lead)):
        module, function = name.split(".")
        assert callable(getattr(importlib.import_module(f"rdlib.evidence.{module}"), function))


def test_every_exhibit_is_shown_by_its_notebook_or_read_by_it():
    assert len({exhibit.title for exhibit in EXHIBITS.values()}) == len(EXHIBITS)
    for exhibit in EXHIBITS.values():
        text = (REPOSITORY / f"notebooks/{exhibit.notebook}.ipynb").read_text(encoding="utf-8")
        assert f'\\"{exhibit.name}\\"' in text or f"{exhibit.name}.csv" in text, exhibit.name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("figure_5", r"did you mean figure_5_lambda\?"),
        ("table_2_mian", r"did you mean table_2_main"),
        ("", r"NAME is missing: give one of claims, "),
    ],
)
def test_a_name_that_is_none_gets_the_close_ones(name, hint):
    with pytest.raises(UserError, match=hint):
        gallery.find(name)


# ---- what is drawn and what is left out


def test_one_is_drawn_from_its_own_tables_alone(tmp_path, capsys):
    folder = excerpt(tmp_path / "results") / "seed0"
    for name in ("answers.parquet", "responses.parquet", "votes.csv", "trainings.csv"):
        (folder / name).unlink()
    assert main(["figures", str(tmp_path / "results"), str(tmp_path / "out"), "--name", "figure_5_lambda"]) == 0
    endings = {path.name.removeprefix("figure_5_lambda.") for path in (tmp_path / "out").iterdir()}
    assert endings == {"csv", "pdf", "png"}
    text = capsys.readouterr().out
    assert "seeds 0 of" in text and "made by commits e7ee58bddb" in text and EXHIBITS["figure_5_lambda"].caption in text
    assert "depends on the experiments lambda." in text and "python -m rdlib study --for figure_5_lambda" in text


def test_of_own_questions_only_what_was_run_is_drawn(tmp_path):
    out = tmp_path / "out"
    evidence = open_results(own_questions(tmp_path / "results"), edges=dag_edges())
    found = {name: table for name, one in EXHIBITS.items() if (table := one.rows(evidence)) is not None}
    assert {"table_2_main", "figure_main_results", "figure_3_failure_ratio", "claims", "health"} <= set(found)
    assert not set(found) & {"figure_5_lambda", "table_4_reward_source", "power", "mmlu_by_category", "question_r1"}
    assert all(map(len, found.values()))
    assert set(found["table_2_main"]["method"]) == {"teacher", "icl", "ours_wo_r", "ours"}
    assert set(found["claims"]["claim"]) == {"C2", "C4"} and np.isfinite(found["claims"]["mean_difference"]).all()
    gallery.draw(EXHIBITS["claims"], evidence, out, found["claims"])
    assert "Not judged, because these results lack the runs: C1, C3, C5" in (out / "claims.md").read_text()
    assert "answers grew short (from 60 to 20 tokens)" in EXHIBITS["health"].note(evidence)
    without_answers(tmp_path / "results")
    evidence = open_results(tmp_path / "results")
    names = ("claims", "claims_cells", "figure_claims_methods", "table_2_main", "figure_main_results")
    assert [EXHIBITS[name].rows(evidence) for name in names] == [None] * len(names)
    assert all(EXHIBITS[name].rows(evidence) is not None for name in ("table_3_reward_model_auc", "health"))


def without_answers(results):
    """Have the same questions no gold answers, nor a vote."""
    path = results / "seed0/answers.parquet"
    pd.read_parquet(path).assign(split="held-out").to_parquet(path)


def test_of_the_vote_alone_its_figures_are_drawn_and_the_rest_has_a_reason(tmp_path):
    """As of a study that is released part by part, the vote first."""
    folder = excerpt(tmp_path / "results") / "seed0"
    record = result_tables.read_record(folder)
    record["experiments"] = {"judgement": record["experiments"]["judgement"]}
    (folder / "provenance.json").write_text(json.dumps(record))
    (folder / "example.json").unlink()
    evidence = open_results(tmp_path / "results", edges=dag_edges())
    assert evidence.correctness.empty and not evidence.asks_for_all
    earlier = tmp_path / "out/question_r1.md"
    earlier.parent.mkdir()
    earlier.write_text("of other results")
    names = {path.stem for path in gallery.draw_all(evidence, tmp_path / "out")}
    assert not earlier.exists()
    assert {"figure_2_pipeline", "figure_3_failure_ratio", "figure_4_judged_correctness"} <= names
    assert not names & {"table_2_main", "power", "table_1_example", "figure_5_lambda", "question_r1"}
    others = [one for one in EXHIBITS.values() if one.name not in names and not one.cells]
    assert all(one.why_left_out(evidence).startswith("it ") for one in others)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("figure_5_lambda", "it needs runs of lambda (`python -m rdlib study --experiments lambda`)"),
        ("open_style", "(`python -m rdlib study --experiments params/followups.yaml:teacher_style`)"),
        ("figure_claims_methods", "not run (`python -m rdlib study --methods sft ours_wo_r ours_wo_d`)"),
        ("table_2_main", "*Table 2: main results* is left out: it needs questions with gold answers."),
        ("mmlu_by_category", "it needs other questions, or more seeds, than these results have"),
    ],
)
def test_what_is_left_out_is_one_line_with_the_command(tmp_path, capsys, name, why):
    results = own_questions(tmp_path / "results")
    path = results / "seed0/answers.parquet"
    if name == "table_2_main":
        without_answers(results)
    if name == "figure_claims_methods":
        answers = pd.read_parquet(path)
        answers[answers["method"] == "ours"].to_parquet(path)
    assert main(["figures", str(results), str(tmp_path / "out"), "--name", name]) == 2
    said = capsys.readouterr().err
    assert why in said and len(said.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_notebook_shows_what_was_drawn_and_says_why_some_are_not(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(notebook, "display", lambda what: shown.append(what.data))
    (tmp_path / "table_2_main.md").write_text("the table")
    evidence = open_results(excerpt(tmp_path / "results"))
    notebook.show_exhibits(evidence, tmp_path, "table_2_main", "question_r1", "figure_question_r1", "health")
    assert shown[0] == "the table" and len(shown) == 2
    assert (
        shown[1].startswith("*R1: stronger baselines* and *R1: accuracy of Ours") and "--experiments R1`)" in shown[1]
    )


# ---- notebooks with settings of their own (`overrides`)


def fake_stage(method: str, **overrides) -> SimpleNamespace:
    """A stage of which the columns alone matter; the profile has lambda 0.5."""
    values = {"reward_model.lam": 0.5, "reward_model.epochs": 1, "reward.mismatch": "negative_abs"} | overrides
    sections: dict[str, SimpleNamespace] = {}
    for key, value in values.items():
        section, name = key.split(".")
        vars(sections.setdefault(section, SimpleNamespace()))[name] = value
    columns = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": method, "variant": "?", "seed": 0}
    return SimpleNamespace(method=method, overrides=overrides, columns=columns, profile=SimpleNamespace(**sections))


def test_an_ablation_with_other_settings_has_its_curves_and_its_claim():
    """Notebooks 08 and 09 with overrides = {"reward_model.epochs": 2}: what all stages share is no column."""
    shared = {"reward_model.epochs": 2}
    parts = [fake_stage("ours", **shared), fake_stage("ours", **shared, **{"reward_model.lam": 0.0})]
    first, second = notebook.compared([fake_stage("ours_wo_r"), *parts])[1:]
    assert (first["variant"], first["reward_model.lam"]) == ("", 0.5) and "reward_model.epochs" not in first
    assert (second["variant"], second["reward_model.lam"]) == ("reward_model.lam=0.0", 0.0)
    history = [
        pd.DataFrame({"step": [0, 10, 20], "pos_neg_auc": [0.5, 0.6, 0.6 + wave]}).assign(**columns)
        for columns, wave in ((first, 0.01), (second, 0.2))
    ]
    history = pd.concat(history, ignore_index=True)
    runs = aucs.ablation_runs(history, "reward_model.lam", 0.5)
    assert runs.groupby("reward_model.lam").size().to_dict() == {0.0: 3, 0.5: 3}
    claim = claims.stability("C7", load_criteria()["C7"], history, 0.5)
    assert [cell.name for cell in claim.cells] == ["gsm/strong/small: lambda 0"] and claim.cells[0].holds


# ---- a figure draws its table


def test_a_method_has_one_colour_and_marker_and_none_shares_it():
    known = list(looks.METHODS.values())
    assert len({look.color for look in known}) == len({look.marker for look in known}) == len(paper.METHODS)
    apart = {(look.color, look.marker) for look in looks.ARMS.values() if look not in known}
    assert not apart & {(look.color, look.marker) for look in known}


# ---- tables of curves and counts, by hand


def test_a_picture_of_few_colours_keeps_those_of_methods_and_its_size(tmp_path):
    """Overlaps of lines and areas have thousands of colours, of which a palette has room for 256."""
    colours = [one.color for one in looks.METHODS.values()]
    figure, ax = plt.subplots(figsize=(4, 3), dpi=100)
    for i, colour in enumerate(colours):
        ax.bar(i, 1, color=colour)
        for height in range(8):
            ax.fill_between([0, len(colours)], -1, -height / 8, color=colour, alpha=0.1 + height / 20)
    _, png = gallery.save(figure, tmp_path / "figure")
    picture = Image.open(png)
    assert picture.mode == "P" and picture.size == (400, 300) and round(picture.info["dpi"][0]) == 100
    found = {colour for _, colour in picture.convert("RGB").getcolors()}
    assert {tuple(round(255 * part) for part in to_rgb(colour)) for colour in colours} <= found


def test_votes_are_counted_over_both_splits_and_once_a_question():
    row = {"dataset": "mmlu", "teacher": "weak", "questions": 400, "failed": 180, "labelled": 220}
    row |= {"label_correct": 130, "responses": 6600, "judged_right": 4400}
    counts = pd.DataFrame([row | {"split": split, "seed": s} for split in ("train", "validation") for s in (0, 1)])
    (ratio,) = curves.failure_ratios(counts).to_dict("records")
    assert (ratio["study_pct"], ratio["n"], ratio["study_seeds"]) == (45, 800, "45.00 45.00")
    assert ratio["paper_words"] == "nearly half of the questions fail"
    labels, responses = curves.judged_correctness(counts).to_dict("records")
    assert labels["study_pct"] == pytest.approx(100 * 130 / 220) and labels["n"] == responses["n"] == 440
    assert responses["study_pct"] == pytest.approx(100 * 4400 / 6600)


def test_the_threshold_trades_coverage_for_accuracy_by_hand():
    votes = {"a": ["1"] * 4, "b": ["1", "1", "1", "2"], "c": ["2", "2", "1", "3"]}
    rows = [(key, "train", "high", answer) for key, given in votes.items() for answer in given]
    responses = pd.DataFrame(rows, columns=["id", "split", "confidence", "answer"])
    table = curves.threshold_sweep(responses, pd.Series({"a": "1", "b": "1", "c": "1"}), [0.4, 0.6, 0.9])
    assert table["coverage"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert table["failure_ratio"].tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert table["label_accuracy"].tolist() == pytest.approx([2 / 3, 1, 1]) and (table["n"] == 3).all()


def test_evaluations_of_seeds_belong_together_by_their_order():
    """Seed 1 evaluates at other steps and stops early; what is logged between evaluations does not count."""
    rows = [(0, 0, 0.5), (0, 10, None), (0, 24, 0.6), (0, 48, 0.8), (1, 0, 0.5), (1, 26, 0.7)]
    history = pd.DataFrame(rows, columns=["seed", "step", "auc"]).assign(cell="a")
    curve = curves.over_seeds(history, ["cell"], "step", "auc")
    assert curve[["step", "seeds"]].values.tolist() == [[0, 2], [25, 2], [48, 1]]
    assert curve["mean"].tolist() == pytest.approx([0.5, 0.65, 0.75])  # the ended seed counts on with .7
    assert curve["low"].isna().tolist() == [False, False, True]
    axes = looks.grid(1, 1)[1][0, 0]
    plots.curve_over_seeds(axes, curve, "step", 4, color="black")
    whole, rest = axes.lines
    assert whole.get_xdata().tolist() == [0, 25] and rest.get_xdata().tolist() == [25, 48]
    assert rest.get_alpha() < 1 and len(axes.collections) == 1
    looks.plt.close("all")


# ---- results, settings and formats


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """An excerpt with the reviewers' questions, not to be written to."""
    return excerpt(tmp_path_factory.mktemp("answered"), answered=True)


@pytest.mark.parametrize("name", [*result_tables.COLUMNS, "settings.json"])
def test_a_missing_or_broken_result_table_is_named_with_the_command(answered, tmp_path, name):
    shutil.copytree(answered / "seed0", tmp_path / "seed0")
    path, kind = tmp_path / "seed0" / name, name.partition(".")[0]
    for said in (f"{name}.*make study", f"{name} is missing.*make study"):
        path.write_bytes(b"\x00not a table") if "missing" not in said else path.unlink()
        with pytest.raises(UserError, match=said):
            evidence = open_results(tmp_path)
            evidence.rows(kind, "main", "RM") if name in result_tables.COLUMNS else getattr(evidence, kind)


def test_seeds_are_read_together_or_singly_and_of_the_same_settings(tmp_path):
    results = excerpt(tmp_path / "results", (0, 2))
    shutil.copytree(results / "seed2", results / "seed10")
    assert [path.name for path in result_tables.seed_folders(results)] == ["seed0", "seed2", "seed10"]
    everything, one = open_results(results), open_results(results, [2])
    assert len(everything.costs) > len(one.costs) and set(one.costs["seed"]) == {2}
    with pytest.raises(UserError, match=r"seed5/settings.json is missing.*make study"):
        open_results(results, [0, 5])
    settings = json.loads((results / "seed2/settings.json").read_text())
    settings["ppo"]["kl_coef"] = 0.7
    (results / "seed2/settings.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="seed2 was made with other settings than .*seed0"):
        open_results(results)
    assert main(["figures", str(tmp_path / "none"), str(tmp_path / "out")]) == 2 and not (tmp_path / "out").exists()


def test_a_notebook_draws_finished_results_apart(tmp_path, at_root):
    at_root(make_root(tmp_path))
    excerpt(tmp_path / "released", (0, 3))
    evidence, out = figures.source(PARAMS, [0], "released", lambda *a: pytest.fail("it gathered"))
    assert [folder.name for folder in evidence.folders] == ["seed0", "seed3"]
    assert out == tmp_path / "runs/tiny/released_figures"
    shutil.copytree(tmp_path / "released", tmp_path / "runs/tiny/results")
    evidence, out = figures.source(PARAMS, [3], None, lambda *a: tmp_path / "runs/tiny/results")
    assert [folder.name for folder in evidence.folders] == ["seed3"] and out == tmp_path / "runs/tiny/figures"


def test_constants_name_settings_that_exist_and_every_setting_of_the_method_is_one():
    settings = yaml.safe_load((REPOSITORY / "params/micro.yaml").read_text())
    constants = paper.load("provenance").fillna("")
    known = {key for text in constants["keys"] for key in text.split()}
    for constant in constants.itertuples():
        assert constant.status in {"stated", "reconstructed", "open"} and bool(constant.keys) != bool(constant.ours)
    assert all(key.split(".")[-1] in json.dumps(settings[key.split(".")[0]]) for key in known)
    # How the run is carried out, not what the method is: no reader of the paper asks where these come from.
    technical = {"ppo.checkpoint_every", "ppo.kept_queries", "reward_model.source"}
    sections = "teacher_sampling voting sft student_sampling reward_model reward ppo evaluation".split()
    assert {f"{section}.{name}" for section in sections for name in settings[section]} - known == technical
    ppo = paper.hyperparameter_table(settings, ["ppo"])
    assert list(ppo["paper_batch_size"]) == [20, 4, 20, 4, 10, 2, 10, 2]
    assert set(ppo["study_batch_size"]) == {str(settings["ppo"]["minibatch_size"])}
    settings["cells"] = [{"dataset": "gsm", "settings": {"ppo.minibatch_size": 7}}]
    sizes = paper.hyperparameter_table(settings, ["ppo"]).groupby("dataset")["study_batch_size"].agg(set)
    assert sizes["gsm8k"] == {"7"} and "7" not in sizes["mmlu_pro"]


def test_the_papers_tables_are_whole():
    assert paper.accuracy("gsm", "strong", "small", "ours") == 64.06
    assert paper.accuracy("gsm_plus", "weak", "", "teacher") == 68.19
    assert paper.accuracy("mmlu", "strong", "nobody", "ours") is None
    assert paper.reward_model_auc("mmlu", "weak", "large", "pos_neg") == 0.7609
    assert len(paper.load("main_results")) == 22 and len(paper.load("hyperparameters")) == 20


def test_csv_and_markdown_have_fixed_formats(tmp_path):
    table = pd.DataFrame({"name": ["a|b", None], "x_pct": [1 / 3, np.nan], "auc": [2 / 3, -0.00001], "n": [3, 4]})
    text = tables.write_csv(table, tmp_path / "t.csv").read_text()
    assert text == "name,x_pct,auc,n\na|b,0.33,0.6667,3\n,,0.0,4\n"
    lines = tables.write_markdown(tables.rounded(table), tmp_path / "t.md", "T", "note").read_text().splitlines()
    assert lines[4:] == [
        "| name | x_pct | auc | n |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 0.33 | 0.6667 | 3 |",
        "| - | - | 0.0000 | 4 |",
    ]


def test_figures_name_a_benchmark_by_what_it_is_made_from():
    real = {"gsm": {"source": "gsm8k"}, "mmlu": {"source": "mmlu_pro"}, "mine": {"source": "questions"}}
    named = {"gsm": "GSM8K", "gsm_plus": "GSM-Plus", "mmlu": "MMLU-Pro", "mine": "mine"}
    assert looks.benchmark_names(real) == named
    with looks.style(looks.benchmark_names({"gsm": {"source": "micro-gsm"}})):
        assert looks.benchmark_label("gsm_plus") == "micro-gsm-plus" and looks.benchmark_label("other") == "other"
    assert looks.benchmark_label("gsm_plus") == "gsm_plus"


# ---- retraining what an exhibit depends on


@pytest.fixture
def one_cell(tmp_path, monkeypatch):
    """A repository whose profile has one dataset, teacher and student."""
    root = make_root(tmp_path)
    content = tiny_settings() | {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    content["sft"]["learning_rate_of_warmup"] = 2 * content["sft"]["learning_rate"]
    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / PARAMS).write_text(yaml.safe_dump(content))
    patch_root(monkeypatch, root)


SETTINGS_ALONE = {"figure_2_pipeline", "table_5_hyperparameters_sft", "table_6_hyperparameters_ppo", "provenance"}


@pytest.mark.parametrize("name", EXHIBITS)
def test_what_an_exhibit_depends_on_is_true(one_cell, name):
    """Its jobs make the stages that its rows are of, and before them all that these read; else it needs no training."""
    exhibit = EXHIBITS[name]
    assert bool(exhibit.experiments) == (name not in SETTINGS_ALONE)
    if not exhibit.experiments:
        assert "depends on no training" in estimate.exhibit_line(name, [])
        return
    if "rounding" in exhibit.experiments:
        with pytest.raises(
            UserError, match="--experiments main` and `python -m .*params/rounding.yaml --experiments r"
        ):
            exhibit_jobs(name, PARAMS, [0])
        return
    profile, seeds = ("params/reference.yaml", None) if ":" in exhibit.experiments[0] else (PARAMS, [0])
    jobs, made = exhibit_jobs(name, profile, seeds), set()
    assert jobs and "depends on" in estimate.exhibit_line(name, jobs)
    for job in jobs:
        assert all(any(other is before for other in jobs) for before in job.after)
        assert job.notebook[:2] in ("08", "09", "10", "11") or _read_outside(job) <= made, job.name
        made |= {stage.folder for stage in job.stages}
    stages = {(stage.name, stage.method) for job in jobs for stage in job.stages}
    assert {
        (one.stage.name, one.stage.method) for _, runs in exhibit_runs(exhibit, profile, seeds) for one in runs
    } <= stages


def _read_outside(job) -> set:
    own = {stage.folder for stage in job.stages}
    return {one.folder for stage in job.stages for one in stage.inputs.values()} - own


@pytest.mark.parametrize(
    ("name", "last", "variant"),
    [
        ("same_rate", ("07_evaluate", "sft"), "sft.learning_rate"),
        ("table_3_reward_model_auc", ("05_reward_model", "ours"), ""),
        ("question_r5", ("06_ppo", "ours"), "reward.source"),
        ("figure_question_r4_threshold", ("02_judgement", None), ""),
        ("open_ppo", ("13_validation_answers", "ours"), "ppo.queries"),
    ],
)
def test_an_exhibit_comes_with_the_runs_that_only_it_needs(name, last, variant):
    jobs = exhibit_jobs(name, "params/reference.yaml", None if name == "open_ppo" else [0])
    found = [stage for job in jobs for stage in job.stages if (stage.name, stage.method) == last]
    assert any(variant in stage.variant and bool(variant) == bool(stage.variant) for stage in found)
    later = {"06_ppo", "07_evaluate"} if last[0] in ("05_reward_model", "02_judgement") else set()
    assert not later & {stage.name for job in jobs for stage in job.stages}


def test_a_figure_about_one_ablation_needs_one_chain():
    jobs = exhibit_jobs("figure_5_lambda", "params/micro.yaml", [3])
    chain = "00_data 01_teacher_responses 02_pseudo_labels 03_sft_warmup 04_student_responses 05_reward_model"
    assert [job.notebook for job in jobs] == [*chain.split(), "08_ablation_lambda"]
    assert {stage.seed for job in jobs for stage in job.stages} == {3}


def test_minutes_follow_from_what_the_released_run_took(tmp_path):
    """Two stages of known seconds, and a measured seed that took a minute for 100 s of its stages."""
    folder = excerpt(tmp_path / "results") / "seed0"
    jobs = exhibit_jobs("figure_5_lambda", "params/reference.yaml", [5])
    stages = [stage for job in jobs for stage in job.stages if stage.name in ("03_sft_warmup", "05_reward_model")]
    rows = [stage.columns | {"seed": 0, "stage": stage.name, "seconds": 10.0} for stage in stages]
    rows.append(
        stages[0].columns | {"method": "sft", "seed": 0, "stage": "07_evaluate", "seconds": 100.0 - 10 * len(rows)}
    )
    table = pd.DataFrame(rows).drop_duplicates().assign(tokens_generated=0, tokens_trained=0)
    for path in folder.iterdir():
        if path.name != "settings.json":
            path.unlink()
    long_tables.write(folder, 0, costs=table.assign(experiment="main", arm=table["method"]))
    (folder / "measured.json").write_text(json.dumps({"minutes": table.seconds.sum() / 100, "questions": False}))
    found = estimate.minutes_of(stages[:2], tmp_path / "results")
    assert found == pytest.approx(2 * 10.0 / 100)
    others = [replace(stage, profile_path="params/smoke.yaml") for stage in stages]
    assert estimate.minutes_of(others, tmp_path / "results") is None
    assert estimate.minutes_of(stages, tmp_path / "none") is None
    text = estimate.exhibit_line("figure_5_lambda", jobs, tmp_path / "results")
    assert text.endswith(
        "depends on lambda: 14 notebooks. They take about 1 minutes, two at a time, by the released run."
    )


def test_a_dry_run_starts_nothing(tmp_path, at_root, capsys, monkeypatch):
    at_root(make_root(tmp_path))
    monkeypatch.setattr(workflow, "follow", lambda *_: pytest.fail("it started something"))
    assert main(["study", "--profile", PARAMS, "--seeds", "0", "--for", "figure_5_lambda", "--dry-run"]) == 0
    assert "depends on lambda: 7 notebooks" in capsys.readouterr().out
