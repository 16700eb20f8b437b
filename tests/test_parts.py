"""A part of a study: what is shown of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PARAMS, copy_study
from test_tables_and_figures import invent

from rdlib.__main__ import main
from rdlib.evidence import gallery, health
from rdlib.evidence.result_tables import GREEDY, open_results
from rdlib.study import results


def test_what_was_once_asked_for_by_name_is_shown_while_it_is_up_to_date(study, tmp_path, at_root):
    """The cell of the shared study has SFT too, which this profile does not ask for."""
    root = at_root(copy_study(study, tmp_path))
    content = yaml.safe_load((root / PARAMS).read_text())
    content |= {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"methods": ["ours_wo_r", "ours"], "ablations": []}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    assert results.finished_besides(PARAMS, 0) == (["sft"], [])
    content["sft"]["batch_size"] *= 2
    (root / PARAMS).write_text(yaml.safe_dump(content))
    assert results.finished_besides(PARAMS, 0) == ([], [])


# ---- what is shown


@pytest.fixture
def part(tmp_path):
    """Invented results of own questions, some with answers, of which only Ours and its warm-up were run."""
    folder = invent(tmp_path / "results") / "seed0"
    kept = ["teacher", "icl", "ours_wo_r", "ours"]
    for path in folder.glob("*.parquet"):
        table = pd.read_parquet(path)
        rows = table["method"].isin(kept) & (table["variant"] == "")
        for axis, name in (("dataset", "gsm"), ("benchmark", "gsm"), ("teacher", "strong"), ("student", "small")):
            rows &= table[axis].isin([name, ""]) if axis in table else True
        table[rows].replace({"dataset": {"gsm": "mine"}, "benchmark": {"gsm": "mine"}}).to_parquet(path)
    labels = pd.read_csv(folder / "pseudo_labels.csv").query("dataset == 'gsm' and teacher == 'strong'")
    labels.replace({"dataset": {"gsm": "mine"}}).to_csv(folder / "pseudo_labels.csv", index=False)
    columns = {"dataset": "mine", "student": "small", "variant": "", "seed": 0, "answered": 1.0, "distinct": 0.9}
    greedy = [columns | {"teacher": "strong", "method": "ours_wo_r", "tokens": 60.0}]
    greedy += [columns | {"teacher": "strong", "method": "ours", "tokens": 20.0}]
    pd.DataFrame(greedy).to_csv(folder / GREEDY, index=False)
    settings = json.loads((folder / "settings.json").read_text())
    settings["datasets"] = {"mine": settings["datasets"]["gsm"] | {"source": "questions"}}
    (folder / "settings.json").write_text(json.dumps(settings))
    return tmp_path / "results"


def without_answers(results) -> None:
    path = results / "seed0/correctness.parquet"
    pd.read_parquet(path).head(0).to_parquet(path)


def test_no_exhibit_of_a_part_is_empty_and_none_is_of_what_was_not_run(part, tmp_path):
    out = tmp_path / "out"
    gallery.draw_all(open_results(part), out)
    names = {path.stem for path in out.glob("*.csv")}
    assert {"table_2_main", "figure_main_results", "figure_3_failure_ratio", "claims", "health"} <= names
    assert not names & {"figure_5_lambda", "figure_6_data_ratio", "table_4_reward_source", "power", "mmlu_by_category"}
    for name in names - {"figure_2_pipeline"}:
        assert len(pd.read_csv(out / f"{name}.csv")), name
    assert set(pd.read_csv(out / "table_2_main.csv")["method"]) == {"teacher", "icl", "ours_wo_r", "ours"}
    claims = pd.read_csv(out / "claims.csv")
    assert set(claims["claim"]) == {"C2", "C4"} and np.isfinite(claims["mean_difference"]).all()
    assert "Not judged, since these results lack runs to judge them by: C1, C3, C5" in (out / "claims.md").read_text()


def test_without_gold_answers_no_claim_is_judged_and_no_accuracy_shown(part, tmp_path):
    out = tmp_path / "out"
    gallery.draw_all(open_results(part), out)
    without_answers(part)
    gallery.draw_all(open_results(part), out)
    left = {path.stem for path in out.iterdir()}
    assert not left & {"claims", "claims_cells", "figure_claims_methods", "table_2_main", "figure_main_results"}
    assert {"figure_learning_ppo", "table_3_reward_model_auc", "health"} <= left


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("figure_5_lambda", 'it needs runs that are asked for by name (`ARGS="--experiments study lambda"`).'),
        ("table_4_reward_source", '--experiments study reward_source"`) and questions with gold answers.'),
        ("table_2_main", "*Table 2: main results* is left out: it needs questions with gold answers."),
        ("mmlu_by_category", "it needs MMLU-Pro."),
        ("figure_claims_methods", 'ARGS="--methods sft ours_wo_d"'),
    ],
)
def test_what_is_left_out_is_one_line_with_what_to_ask_for(part, tmp_path, capsys, name, expected):
    without_answers(part)
    assert main(["figures", str(part), str(tmp_path / "out"), "--name", name]) == 2
    said = capsys.readouterr().err
    assert expected in said and len(said.splitlines()) == 1 and not list((tmp_path / "out").glob("*"))


def test_a_study_that_asks_for_all_shows_all(tmp_path):
    evidence = open_results(invent(tmp_path / "results"))
    assert evidence.asks_for_all and not any(one.left_out(evidence) for one in gallery.EXHIBITS.values())
    assert not gallery.EXHIBITS["health"].is_shown(evidence) and len(evidence.claims()) == 9


def test_the_health_of_invented_results(part):
    (one,) = health.measured(open_results(part))
    assert one.cell == "mine/strong/small" and one.gold and one.questions == 150
    text = gallery.EXHIBITS["health"].note(open_results(part))
    assert text.startswith("**") and "answers grew short (from 60 to 20 tokens)" in text
