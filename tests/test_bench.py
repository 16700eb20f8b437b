"""The benchmarks' own arithmetic and tables; nothing is timed here."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from bench import large_vocabulary, micro, real_sampling, report, responses, roofline, timing, whole_study
from rdlib import streams
from rdlib.evidence import documents
from rdlib.method import voting
from rdlib.tasks import answers


def test_contestants_run_in_turn_and_the_order_turns_round():
    calls = []
    contestants = {name: lambda number, name=name: calls.append((name, number)) or float(number) for name in "ab"}
    assert timing.in_turn(contestants, 3) == {"a": [0.0, 1.0, 2.0], "b": [0.0, 1.0, 2.0]}
    assert calls == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_the_speed_up_is_a_median_of_the_rounds_own_ratios():
    assert timing.speed_up([1.0, 2.0, 10.0], [3.0, 8.0, 20.0]) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_slope(power):
    sizes = [10, 100, 1000]
    assert timing.slope(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_an_aim_is_a_least_or_a_most_value():
    row = report.Row("a", "speed", 3.5, 3.0, 4.0, "x", 3.0)
    assert row.met is True
    assert report.Row("e", "wait", 12.0, 11.0, 13.0, "s", 10.0, most=True).met is False
    assert report.Row("c", "wall time", 36.0, 36.0, 36.0, "min").met is None
    assert "met" in report.line(row)


def test_the_docs_show_what_was_measured(tmp_path):
    rows = [
        report.Row("a", "sampling", 4.123, 4.0, 4.5, "x", 3.0, ours="12 responses/s", other="3 responses/s"),
        report.Row("a", "many", 61234.0, 61234.0, 61234.0, "responses/s"),
        report.Row("a", "slow", 12.0, 11.0, 13.0, "s", 10.0, most=True),
    ]
    provenance = report.provenance("a", 3)
    report.write("a", rows, provenance, tmp_path / "bench/results")
    table = documents.tables_of(tmp_path)
    assert [row.result for row in table("bench")] == ["sampling", "many", "slow"]
    sampling = table("bench", result="sampling")
    assert (sampling.value, sampling.low, sampling.aim, sampling.met) == (4.123, 4.0, ">= 3", "True")
    assert table("bench", result="slow").met == "False" and provenance["commit"][:7] in sampling.measured_on
    assert {"command", "commit", "dirty", "packages", "machine", "processor"} <= provenance.keys()


def test_a_token_costs_two_flops_a_weight_and_its_own_cache():
    config = type("Config", (), {"num_hidden_layers": 2, "hidden_size": 8})
    config.num_attention_heads = config.num_key_value_heads = 2
    cost = roofline.cost(config, parameters=1000, context=10, rows=100)
    assert cost.flops == 2 * 1000 + 4 * 2 * 8 * 10
    assert cost.bytes == 4 * (2 * 2 * 8 * 10 + 10)


def test_every_form_of_response_has_the_answer_it_was_made_with():
    found = [answers.find(text, "math") for text in responses.texts(200)]
    assert {one.rule for one in found} == {"hash", "boxed", "answer_is", "json", "last_sentence"}
    assert {one.answer for one in found} <= {"22", "36", "14"}


def test_chunks_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(responses, "CHUNK", 130)  # no multiple of a question's 50 responses
    source = tmp_path / "responses.parquet"
    streams.write_parquet(source, responses.made(1000))
    responses.measure(source)
    whole = pd.read_parquet(tmp_path / "answered.parquet")
    assert len(whole) == 1000
    labels = voting.pseudo_labels(whole, 0.5)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "labels.parquet"), labels)
    labelled = voting.propagate(whole[["id", "answer"]], labels)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "labelled.parquet"), labelled)


def test_growth_leaves_out_what_fits_into_two_chunks():
    def took(seconds, memory):
        return [{"extraction": seconds, "vote": seconds, "memory": memory}]

    found = {1_000: took(1.0, 10.0), 10_000: took(1.0, 50.0), 100_000: took(2.0, 100.0), 1_000_000: took(20.0, 100.0)}
    time, memory = responses._growth(found)
    assert (time.value, memory.value) == (pytest.approx(1), pytest.approx(0))
    assert time.met and memory.met


def test_a_large_vocabulary_is_held_to_both_others_round_by_round():
    def of(seconds, steps, memory):
        return {"seconds": seconds, "memory": memory} | ({"steps": steps} if steps else {})

    found = {
        "ours": [of(4.0, 1.0, 100.0), of(6.0, 3.0, 100.0), of(5.0, 2.0, 300.0)],
        "whole": [of(8.0, 2.0, 1000.0)] * 3,
        "trl": [of(10.0, None, 2000.0)] * 3,
    }
    memory, step, time, memory_trl, time_trl = large_vocabulary.rows_of(found)
    assert (memory.value, memory.low, memory.high, memory.met) == (10.0, 10.0, 30.0, True)
    assert (step.value, step.met, time.value) == (100.0, True, 62.5)
    assert (memory_trl.value, memory_trl.other, time_trl.value) == (5.0, "2,000 MiB", 50.0)


SAMPLING = {
    "questions": ["a", "b"],
    "prompts": [[20] * 9, [20, 21, 22]],
    "warm_up": [21, 20],
    "samples": 3,
    "tokens": 5,
}


@pytest.mark.parametrize("weights", real_sampling.NUMBERS)
@pytest.mark.parametrize("way", real_sampling.WAYS)
def test_both_ways_sample_as_many_tokens_whatever_ends_a_response(way, weights):
    here = real_sampling.Here(SAMPLING | {"folder": micro.student("small")}, weights)
    here.model.get_output_embeddings().weight.data.zero_()  # all tokens alike: end tokens come too
    responses = getattr(here, way)(SAMPLING["prompts"] * 100, SAMPLING["tokens"], 0)
    assert len(responses) == 600 and {len(tokens) for tokens in responses} == {5}
    assert here.tokenizer.eos_token_id in {token for tokens in responses for token in tokens[:-1]}


def test_sampling_of_a_real_model_is_held_to_the_others_round_by_round():
    found = {"ours float32": [2.0, 4.0, 3.0], "generate float32": [6.0, 8.0, 12.0], "llama.cpp": [1.0, 1.0, 3.0]}
    generate, llama = real_sampling.rows_of(found, SAMPLING)
    assert (generate.value, generate.low, generate.high, generate.met) == (3.0, 2.0, 4.0, None)
    assert (llama.value, llama.ours, llama.other) == (0.5, "10.0 tokens/s a core", "30.0 tokens/s a core")
    assert "no instructions for bfloat16" in llama.settings and "3 to 9 tokens" in llama.settings
    found |= {"ours bfloat16": [1.0, 1.0, 1.0], "generate bfloat16": [2.0, 2.0, 2.0]}
    against = {row.result.partition("engine in ")[2]: row.value for row in real_sampling.rows_of(found, SAMPLING)}
    assert against["bfloat16, against generate in bfloat16, batched by hand"] == 2.0
    assert against["bfloat16, against itself in float32"] == 3.0 and len(against) == 5


def test_without_the_real_model_the_part_says_what_fetches_it(monkeypatch, tmp_path):
    monkeypatch.setattr(real_sampling, "CHECKPOINT", tmp_path / "none")
    with pytest.raises(report.Skipped, match="real_models.py student student-checkpoint. and .*llama_environment.py"):
        real_sampling.run(1, True)


def test_start_up_is_what_no_working_cell_took(tmp_path):
    def cell(source, seconds):
        return {"cell_type": "code", "source": [source], "metadata": {"papermill": {"duration": seconds}}}

    cells = [cell("seed = 0", 0.1), cell("import pandas as pd", 1.0), cell("stage.run()", 7.0), cell("plot()", 0.5)]
    path = tmp_path / "01.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"papermill": {"duration": 10.0}}}))
    notebook = whole_study.read_notebook(path)
    assert (notebook.working, notebook.start_up) == (7.5, 2.5)
    measured = {"minutes": 1.0, "cpu_minutes": 1.9, "jobs": 8, "questions": False}
    rows = whole_study.rows_of(measured, [notebook] * 8, pd.Series({"06_ppo": 40.0, "07_evaluate": 8.0}), 0)
    values = {row.result.partition(": ")[2]: row.value for row in rows}
    assert values["two cores busy"] == pytest.approx(95)
    assert values["start-up of notebooks"] == pytest.approx(100 * 20 / 120)
    assert values["places without a job"] == pytest.approx(100 * 40 / 120)
    assert values["work in stages"] == pytest.approx(40)
