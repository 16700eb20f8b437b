"""A part of a study: what is shown of it."""

from __future__ import annotations

from excerpts import own_questions

from rdlib.evidence import gallery, health
from rdlib.evidence.result_tables import open_results


def test_the_health_of_own_questions(tmp_path):
    evidence = open_results(own_questions(tmp_path / "results"))
    (one,) = health.measured(evidence)
    assert one.cell == "mine/strong/small" and one.gold
    text = gallery.EXHIBITS["health"].note(evidence)
    assert text.startswith("**") and "answers grew short (from 60 to 20 tokens)" in text
