"""A part of a study: what is shown of it."""

from __future__ import annotations

import yaml
from conftest import PARAMS, copy_study
from excerpts import own_questions

from rdlib.evidence import gallery, health
from rdlib.evidence.result_tables import open_results
from rdlib.study import experiments, results


def test_what_was_once_asked_for_by_name_is_shown_while_it_is_up_to_date(study, tmp_path, at_root):
    """The cell of the shared study has SFT too, which this profile does not ask for."""
    root = at_root(copy_study(study, tmp_path))
    content = yaml.safe_load((root / PARAMS).read_text())
    content |= {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"methods": ["ours_wo_r", "ours"], "ablations": []}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    main = experiments.load()["main"]
    found = results.wanted_runs(main, PARAMS, [0], (), named=False)
    assert {run.stage.method for run in found} == {"teacher", "icl", "sft", "ours_wo_r", "ours"}
    content["sft"]["batch_size"] *= 2
    (root / PARAMS).write_text(yaml.safe_dump(content))
    found = results.wanted_runs(main, PARAMS, [0], (), named=False)
    assert {run.stage.method for run in found} == {"teacher", "icl", "ours_wo_r", "ours"}


def test_the_health_of_own_questions(tmp_path):
    evidence = open_results(own_questions(tmp_path / "results"))
    (one,) = health.measured(evidence)
    assert one.cell == "mine/strong/small" and one.gold
    text = gallery.EXHIBITS["health"].note(evidence)
    assert text.startswith("**") and "answers grew short (from 60 to 20 tokens)" in text
