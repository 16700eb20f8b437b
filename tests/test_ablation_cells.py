"""Ablations and reviewers' questions of two cells: their jobs, tables by hand, figures, and training again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PARAMS, copy_study, make_root, tiny_settings
from test_claims import RULES, history, ratio_scores
from test_claims import answers as graded
from test_claims import study as evaluated

from rdlib.evidence import claims
from rdlib.evidence.result_tables import read_record
from rdlib.evidence.verdicts import INCONCLUSIVE, SUPPORTED
from rdlib.study import dag, estimate, publish
from rdlib.study.experiments import ablation_cells, named, runs
from rdlib.study.jobs import DRAWING, exhibit_jobs, study_jobs

GSM, MMLU, LARGE = ("gsm", "strong", "small"), ("mmlu", "strong", "small"), ("gsm", "strong", "large")
NAMES = ["gsm/strong/small", "mmlu/strong/small"]


def grid_of(*cells: tuple[str, str, str]) -> dict:
    """A grid with these ablation cells."""
    return {"ablation_cells": [dict(zip(("dataset", "teacher", "student"), cell, strict=True)) for cell in cells]}


# ---- jobs


@pytest.fixture
def root(tmp_path, at_root):
    """A repository whose ablations are of two cells that share a teacher's responses, and of one of another dataset."""
    return at_root(make_root(tmp_path, grid=grid_of(GSM, LARGE, MMLU)))


def test_every_cell_has_its_ablations_and_its_questions(root):
    cells = ["/".join(cell) for cell in (GSM, LARGE, MMLU)]
    assert [cell.cell_name for cell in ablation_cells(PARAMS, 2)] == cells
    jobs = study_jobs(PARAMS, [2], ["study", "ablations", "questions"])
    for one in named(["ablations", "questions"]):
        wanted = runs(one, PARAMS, [2])
        assert {run.cell for run in wanted} == set(cells)
        assert {run.stage.folder for run in wanted} <= {stage.folder for job in jobs for stage in job.stages}
    assert jobs[-1].notebook == "13_reviewer_questions"


def test_the_notebooks_that_are_kept_are_of_the_first_cell(root):
    jobs = [job for job in publish.cell_jobs(PARAMS, 0) if job.notebook not in DRAWING]
    students, datasets = ({job.parameters.get(axis) for job in jobs} for axis in ("student", "dataset"))
    assert (students, datasets) == ({"small", None}, {"gsm"})
    assert {one.notebook for one in named(["ablations"])} <= {job.notebook for job in jobs}


def test_an_exhibit_is_trained_again_in_every_cell(root):
    for name, notebook in (("figure_5_lambda", "08_ablation_lambda"), ("figure_best_of_n", "06_ppo")):
        jobs = [job for job in exhibit_jobs(name, PARAMS, [0]) if job.notebook == notebook]
        assert {job.stages[0].cell_name for job in jobs} == {"/".join(cell) for cell in (GSM, LARGE, MMLU)}


# ---- claims


def test_c6_is_the_mean_over_the_cells():
    variant = "reward_model.source=teacher"
    parts = [evaluated(ours=220), graded(*GSM, "ours", 180, variant), graded(*MMLU, "ours", 200, variant)]
    claim = claims.better_than("C6", RULES["C6"], pd.concat(parts))
    assert [(cell.name, cell.difference.estimate) for cell in claim.cells] == [
        (NAMES[0], pytest.approx(10)),
        (NAMES[1], pytest.approx(5)),
    ]
    assert claim.pooled.estimate == pytest.approx(7.5) and claim.verdict == SUPPORTED
    parts[-1] = graded(*MMLU, "ours", 225, variant)
    assert claims.better_than("C6", RULES["C6"], pd.concat(parts)).verdict == INCONCLUSIVE  # one cell against


def test_c7_counts_seeds_not_cells():
    """Instability is 0.01 with the default in each; with lambda 0 it is that of a fall by 0.1 or 0.2."""
    calm = [0.60, 0.61, 0.62]
    falls = {("gsm", 0): 0.1, ("gsm", 1): 0.2, ("mmlu", 0): 0.2, ("mmlu", 1): 0.1}
    parts = [
        history({0.0: [0.6, 0.8, 0.8 - fall], 0.5: calm}, seed).assign(dataset=dataset)
        for (dataset, seed), fall in falls.items()
    ]
    claim = claims.stability("C7", RULES["C7"], pd.concat(parts), 0.5)
    by_hand = {key: (0.2 + fall) / 2 + fall - 0.01 for key, fall in falls.items()}
    assert [cell.name for cell in claim.cells] == [f"{name}: lambda 0" for name in NAMES]
    for cell, dataset in zip(claim.cells, ("gsm", "mmlu"), strict=True):
        assert cell.difference.estimate == pytest.approx(np.mean([by_hand[dataset, seed] for seed in (0, 1)]))
        assert [float(v) for v in cell.seeds.split()] == pytest.approx([by_hand[dataset, seed] for seed in (0, 1)])
    assert claim.pooled.estimate == pytest.approx(np.mean(list(by_hand.values()))) and claim.pooled.n == 2
    assert claim.pooled.low == pytest.approx(claim.pooled.high)  # both seeds have the same mean over the cells


def test_c8_is_the_mean_over_the_cells():
    small, large = ratio_scores((1, 1, 1), (1, 1, 1.3)), ratio_scores((1, 1, 1), (0, 1, 2)).assign(dataset="mmlu")
    alone = [claims.spread("C8", RULES["C8"], scores, 0.5) for scores in (small, large)]
    claim = claims.spread("C8", RULES["C8"], pd.concat([small, large]), 0.5)
    estimates = [one.pooled.estimate for one in alone]
    assert [cell.difference.estimate for cell in claim.cells] == pytest.approx(estimates)
    assert claim.pooled.estimate == pytest.approx(np.mean(estimates)) and claim.verdict == SUPPORTED


# ---- training again


@pytest.mark.slow
def test_an_exhibit_of_two_cells_is_trained_again_gathered_and_drawn(study, tmp_path, at_root):
    root = copy_study(study, tmp_path / "root")
    content = tiny_settings() | {"teachers": {"strong": "models/strong"}}
    content["grid"] |= grid_of(GSM, LARGE) | {"lam": [0.5, 1.0]}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    at_root(root)
    jobs = exhibit_jobs("figure_5_lambda", PARAMS, [0])
    for job in jobs:
        for stage in job.stages:
            stage.run_with_inputs()
    dag.draw("figure_5_lambda", PARAMS, [0])
    out = root / "runs/tiny/retrained/figure_5_lambda"
    curves = pd.read_csv(out / "figure_5_lambda.csv")
    assert set(zip(curves.student, curves.lam, strict=True)) == {(s, v) for s in ("small", "large") for v in (0.5, 1.0)}
    (made,) = read_record(out / "results/seed0")["experiments"].values()
    assert made["command"].endswith(f"--profile {PARAMS} --seeds 0 --for figure_5_lambda")
    assert estimate.exhibit_line("figure_5_lambda", jobs).endswith("All of them are done.")
