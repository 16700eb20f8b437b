"""Tables and figures: what they declare, what is left out and why, and that a figure draws its table alone."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY
from excerpts import excerpt, own_questions

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import (
    aucs,
    claims,
    curves,
    gallery,
    looks,
    paper,
    paper_figures,
    plots,
    result_tables,
    tables,
)
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.gallery import EXHIBITS, Exhibit
from rdlib.evidence.result_tables import open_results
from rdlib.study import experiments, figures, notebook
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


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValueError, match="figur"):
        Exhibit(name="x", title="X", caption="X.", experiments=(), of=(), notebook="12", figur="plots.line")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("figure_5", r"did you mean figure_5_lambda\?"),
        ("table_2_mian", r"did you mean table_2_main"),
        ("nothing like it", r"give one of claims, .*open_effects\."),
        ("", r"NAME is missing: give one of claims, "),
    ],
)
def test_a_name_that_is_none_gets_the_close_ones(name, hint):
    with pytest.raises(UserError, match=hint):
        gallery.find(name)


def test_drawing_needs_no_torch():
    code = "import sys, rdlib.study.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


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
    paths = gallery.draw_all(evidence, tmp_path / "out")
    names = {path.stem for path in paths}
    assert {"figure_2_pipeline", "figure_3_failure_ratio", "figure_4_judged_correctness"} <= names
    assert not names & {"table_2_main", "power", "table_1_example", "figure_5_lambda", "question_r1"}
    others = [one for one in EXHIBITS.values() if one.name not in names and not one.cells]
    assert all(one.why_left_out(evidence).startswith("it ") for one in others)


def test_an_earlier_drawing_of_what_is_left_out_now_is_removed(tmp_path):
    (tmp_path / "question_r1.md").write_text("of other results")
    evidence = open_results(excerpt(tmp_path / "results"))
    paths = gallery.draw_all(evidence, tmp_path, "13_reviewer_questions")
    names = {"question_r7_seeds", "figure_question_r4_threshold", "ranking_by_lambda"}  # of the study
    assert {path.stem for path in paths} == names and not (tmp_path / "question_r1.md").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("figure_5_lambda", "it needs runs of lambda (`python -m rdlib study --experiments lambda`)"),
        (
            "table_4_reward_source",
            "it needs runs of reward_source (`python -m rdlib study --experiments reward_source`)",
        ),
        ("question_r1", "it needs runs of R1 (`python -m rdlib study --experiments R1`)"),
        ("open_style", "(`python -m rdlib study --experiments params/followups.yaml:teacher_style`)"),
        ("rounding", "it needs runs of rounding (`python -m rdlib study --experiments rounding`)"),
        ("table_2_main", "*Table 2: main results* is left out: it needs questions with gold answers."),
        ("mmlu_by_category", "it needs other questions, or more seeds, than these results have"),
    ],
)
def test_what_is_left_out_is_one_line_with_the_command(tmp_path, capsys, name, why):
    results = own_questions(tmp_path / "results")
    if name == "table_2_main":
        without_answers(results)
    assert main(["figures", str(results), str(tmp_path / "out"), "--name", name]) == 2
    said = capsys.readouterr().err
    assert why in said and len(said.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_methods_that_were_not_run_are_named(tmp_path):
    results = own_questions(tmp_path / "results")
    path = results / "seed0/answers.parquet"
    answers = pd.read_parquet(path)
    answers[answers["method"] == "ours"].to_parquet(path)
    why = EXHIBITS["figure_claims_methods"].why_left_out(open_results(results))
    assert why == ("it compares methods that were not run (`python -m rdlib study --methods sft ours_wo_r ours_wo_d`)")


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


def test_settings_that_all_stages_share_do_not_tell_them_apart():
    shared = {"reward_model.epochs": 2}
    stages = [fake_stage("ours", **shared), fake_stage("ours", **shared, **{"reward_model.lam": 0.25})]
    first, second = notebook.compared([*stages, fake_stage("ours_wo_r")])[:2]
    assert (first["variant"], first["reward_model.lam"]) == ("", 0.5) and "reward_model.epochs" not in first
    assert (second["variant"], second["reward_model.lam"]) == ("reward_model.lam=0.25", 0.25)
    assert notebook.compared([fake_stage("ours_wo_r"), *stages])[0]["variant"] == ""


def test_an_ablation_with_other_settings_has_its_curves_and_its_claim():
    """Notebooks 08 and 09 with overrides = {"reward_model.epochs": 2}."""
    parts = []
    for lam in (0.5, 0.0):
        changed = {} if lam == 0.5 else {"reward_model.lam": lam}
        parts.append(fake_stage("ours", **{"reward_model.epochs": 2}, **changed))
    history = [
        pd.DataFrame({"step": [0, 10, 20], "pos_neg_auc": [0.5, 0.6, 0.6 + wave]}).assign(**columns)
        for columns, wave in zip(notebook.compared(parts), (0.01, 0.2), strict=True)
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
    same = {"SFT": "sft", "Ours w/o R": "ours_wo_r", "Ours": "ours", "teacher": "teacher"}
    assert all(looks.ARMS[arm] == looks.METHODS[method] for arm, method in same.items())
    apart = {(look.color, look.marker) for look in looks.ARMS.values() if look not in known}
    assert not apart & {(look.color, look.marker) for look in known}


def test_the_pipeline_has_every_stage_and_edge_left_to_right():
    edges = [("00_data", "01_a"), ("01_a", "02_b"), ("00_data", "03_c"), ("02_b", "03_c"), ("01_a", "03_c")]
    places, routes = paper_figures._layout(edges)
    assert len(routes) == len(edges) and set(places) == {name for edge in edges for name in edge}
    assert all(places[a][0] < places[b][0] for a, b in edges) and len(set(places.values())) == len(places)
    with pytest.raises(ValueError, match="cycle"):
        paper_figures._layout([("a", "b"), ("b", "a")])


# ---- tables of curves and counts, by hand


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
    plots.curve_over_seeds(axes, curve["step"], curve, ("mean", "low", "high"), 4, color="black")
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
    from conftest import PARAMS, make_root

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
    assert [looks.shape(count) for count in (0, 1, 3, 4, 5, 7)] == [(1, 1), (1, 1), (1, 3), (2, 2), (2, 3), (3, 3)]
