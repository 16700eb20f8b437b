"""Ablations and reviewers' questions of two cells: their jobs, tables by hand, figures, and training again."""

from __future__ import annotations

from functools import cache

import long_tables
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PARAMS, copy_study, make_root, tiny_settings
from test_claims import RULES, history, ratio_scores
from test_claims import answers as graded
from test_claims import study as evaluated
from test_reviewers import answers
from test_tables_and_figures import dots, invent

from rdlib.evidence import (
    claims,
    gallery,
    looks,
    paper_figures,
    paper_tables,
    question_figures,
    question_tables,
    result_tables,
    reviewers,
)
from rdlib.evidence.verdicts import INCONCLUSIVE, SUPPORTED
from rdlib.study import exhibit_runs, publish
from rdlib.study.experiments import ablation_cells, named, runs
from rdlib.study.jobs import DRAWING, study_jobs

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
        jobs = [job for job in exhibit_runs.jobs_of(name, PARAMS, [0]) if job.notebook == notebook]
        assert {job.stages[0].cell_name for job in jobs} == {"/".join(cell) for cell in (GSM, LARGE, MMLU)}


# ---- tables by hand


def two_cells_of_arms() -> pd.DataFrame:
    """Ours ahead of DPO in the first cell and behind it in the second, where there is no GRPO."""
    parts = [answers("Ours", 60, reference=True), answers("DPO", 50), answers("GRPO", 59)]
    parts += [answers("Ours", 30, reference=True, cell=NAMES[1]), answers("DPO", 45, cell=NAMES[1])]
    return pd.concat(parts, ignore_index=True)


def test_an_arm_is_held_to_ours_of_its_own_cell():
    table = reviewers.accuracy_table(two_cells_of_arms())
    assert list(dict.fromkeys(table.cell)) == NAMES
    gains = table.set_index(["cell", "arm"])["ours_minus_arm_pp"].dropna().to_dict()
    assert gains == pytest.approx({(NAMES[0], "DPO"): 10, (NAMES[0], "GRPO"): 1, (NAMES[1], "DPO"): -15})
    assert reviewers.plain_answer(table) == (
        "Answer: in gsm/strong/small, on gsm, Ours is ahead of DPO by 10.0 pp; is not told apart from GRPO. And in "
        "mmlu/strong/small, on mmlu, Ours is behind DPO by 15.0 pp."
    )


def test_cells_keep_the_order_of_the_profile():
    turned = pd.concat([two_cells_of_arms().query(f"cell == '{name}'") for name in NAMES[::-1]])
    assert list(dict.fromkeys(reviewers.accuracy_table(turned).cell)) == NAMES[::-1]


def costs() -> pd.DataFrame:
    """A warm-up and a PPO of N = 10 in two cells; the second samples three times as much."""
    rows = []
    for name, times in zip(NAMES, (1, 3), strict=True):
        dataset, teacher, student = name.split("/")
        for arm, stages in (
            ("DPO", ["01_teacher_responses"]),
            ("Ours", ["01_teacher_responses", "04_student_responses"]),
        ):
            for stage in stages:
                rows.append((name, dataset, teacher, student, "ours", "", 0, stage, 2.0, 100 * times, 0, 10, "R1", arm))
    columns = (
        "cell dataset teacher student method variant seed stage seconds tokens_generated tokens_trained parameters"
    )
    return pd.DataFrame(rows, columns=[*columns.split(), "question", "arm"]).assign(level=np.nan)


def test_costs_are_those_of_each_cell():
    ledger = question_tables.ledger_table(costs()).set_index(["cell", "stage"])["tokens_generated"]
    assert ledger.to_dict() == {
        (NAMES[0], "01_teacher_responses"): 100,
        (NAMES[0], "04_student_responses"): 100,
        (NAMES[1], "01_teacher_responses"): 300,
        (NAMES[1], "04_student_responses"): 300,
    }
    table = question_tables.pareto_table(two_cells_of_arms().query("arm != 'GRPO'"), costs())
    spent = table.set_index(["cell", "arm"])["gflop"]  # 2N a token sampled
    assert spent[NAMES[0], "DPO"] == pytest.approx(2 * 10 * 100 / 1e9)
    assert spent[NAMES[1], "Ours"] == pytest.approx(2 * 10 * 600 / 1e9)
    assert question_tables.cost_answer(table) == (
        "operations to make each, as multiples of the cheapest of its cell: in gsm/strong/small, DPO 1.0, Ours 2.0; "
        "in mmlu/strong/small, DPO 1.0, Ours 2.0."
    )


def judged() -> pd.DataFrame:
    """Two responses to one question: the higher score is right in the first cell, and wrong in the second."""
    rows = []
    for cell, right in zip(NAMES, ((True, False), (False, True)), strict=True):
        for policy in ("before", "after"):
            for sample, (correct, score) in enumerate(zip(right, (2.0, -2.0), strict=True)):
                rows.append((cell, policy, "q", sample, 5 + sample, str(sample), correct, correct, score, 0))
    return pd.DataFrame(rows, columns="cell policy id sample tokens answer agrees correct score seed".split())


def test_what_the_reward_model_gives_is_told_of_each_cell():
    best = question_tables.best_of_n_table(judged()).set_index(["cell", "strategy", "samples"])["study_pct"]
    assert best[NAMES[0], "reward", 2] == 100 and best[NAMES[1], "reward", 2] == 0
    assert best[NAMES[0], "any", 1] == best[NAMES[1], "any", 1] == 50
    curve = question_tables.reliability_table(judged()).set_index(["cell", "policy"])
    sigmoid = 1 / (1 + np.exp(-2.0))
    assert curve.ece[NAMES[0], "before"].tolist() == pytest.approx([1 - sigmoid] * 2)
    assert curve.ece[NAMES[1], "after"].tolist() == pytest.approx([sigmoid] * 2)
    density = question_tables.reward_table(judged())
    mass = (density.density * (density.bin_high - density.bin_low)).groupby([density.cell, density.policy]).sum()
    assert len(mass) == 4 and mass.tolist() == pytest.approx([1.0] * 4)
    length = question_tables.length_table(judged())
    assert length[["cell", "policy"]].values.tolist() == [[n, p] for n in NAMES for p in ("before", "after")]
    assert length.spearman_all.tolist() == pytest.approx([-1.0] * 4)
    answer = question_tables.length_answer(length)
    assert answer.count("is -1.00 over all responses and -1.00 among those to one question") == 2
    assert answer.endswith("so of these it prefers shorter ones.") and NAMES[1] in answer
    assert "neither longer nor shorter" in question_tables.length_answer(length.assign(spearman_within_question=0.05))


def test_tables_4_and_7_have_the_rows_of_both_cells():
    parts = [evaluated(ours_wo_r=200, ours=220)]
    for cell, right in ((GSM, 210), (MMLU, 230)):
        parts += [graded(*cell, "ours", right, "reward_model.source=teacher")]
        parts += [graded(*cell, "ours", right, "reward.mismatch=minus")]
    table = paper_tables.reward_source_table(pd.concat(parts)).set_index(["benchmark", "reward_model"])
    assert table.index.tolist() == [(b, s) for b in ("gsm", "mmlu") for s, *_ in paper_tables.SOURCES]
    assert table.gain_pp["gsm", "from_teacher"] == pytest.approx(2.5)
    assert table.gain_pp["mmlu", "from_teacher"] == pytest.approx(7.5)
    table = paper_tables.correctness_validation_table(pd.concat(parts)).set_index(["benchmark", "mismatch"])
    minus = paper_tables.MISMATCHES["reward.mismatch=minus"]
    assert table.gain_pp["gsm", minus] == pytest.approx(-2.5) and table.gain_pp["mmlu", minus] == pytest.approx(2.5)


# ---- claims


def test_c6_is_the_mean_over_the_cells():
    variant = "reward_model.source=teacher"
    parts = [evaluated(ours=220), graded(*GSM, "ours", 180, variant), graded(*MMLU, "ours", 200, variant)]
    claim = claims.variant_claim("C6", RULES["C6"], pd.concat(parts))
    assert [(cell.name, cell.difference.estimate) for cell in claim.cells] == [
        (NAMES[0], pytest.approx(10)),
        (NAMES[1], pytest.approx(5)),
    ]
    assert claim.pooled.estimate == pytest.approx(7.5) and claim.verdict == SUPPORTED
    parts[-1] = graded(*MMLU, "ours", 225, variant)
    assert claims.variant_claim("C6", RULES["C6"], pd.concat(parts)).verdict == INCONCLUSIVE  # one cell against


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


# ---- figures


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(evidence of two cells with two seeds, its folder of results), the questions answered."""
    results = invent(tmp_path_factory.mktemp("cells") / "results", (0, 1), (GSM, MMLU))
    for seed in (0, 1):
        answer(results / f"seed{seed}", seed)
    return result_tables.open_results(results), results


def answer(folder, seed: int, cells=(GSM, MMLU)) -> None:
    """Invented answers to the reviewers' questions of one seed."""
    rng, names, parts = np.random.default_rng(seed), ["/".join(cell) for cell in cells], []
    cell_of = {name: name.split("/") for name in names}
    for name, (dataset, *_) in cell_of.items():
        for benchmark in ("gsm", "gsm_plus") if dataset == "gsm" else ("mmlu",):
            for question in ("R1", "R2", "R3", "R5"):
                for arm in ("SFT", "Ours"):
                    right, level = int(rng.integers(40, 60)), 1.0 if (question, arm) == ("R2", "SFT") else None
                    made = answers(arm, right, level, arm == "Ours", question, cell=name)
                    parts.append(made.assign(benchmark=benchmark, seed=seed))
            for level in (0.0, 0.2):
                for arm in ("Ours w/o R", "Ours"):
                    made = answers(arm, int(rng.integers(40, 60)), level, arm == "Ours", "R4", cell=name)
                    parts.append(made.assign(benchmark=benchmark, seed=seed))
    spent = [costs().assign(arm=costs().arm.replace("DPO", "SFT"), question=question) for question in ("R1", "R2")]
    spent = pd.concat(spent).query(f"cell in {names}")
    scores = pd.concat([judged().assign(id=f"q{i}", score=rng.normal(size=8)) for i in range(20)])
    scores = scores.query(f"cell in {names}").drop(columns="seed")
    along = pd.DataFrame({"update": [0, 4, 8], "kl": [np.nan, 0.1 + seed, 0.2 + seed], "reward": [np.nan, 0.3, 0.4]})
    along = along.assign(agreement=0.6, accuracy=[0.5, 0.55, 0.6])
    along = pd.concat([along.assign(cell=name, stage="06_ppo", experiment="RM") for name in names])
    rows = [("gsm", "strong", t, 1 - t, t, 0.9) for t in (0.4, 0.6)]
    table = pd.DataFrame(rows, columns="dataset teacher threshold failure_ratio coverage label_accuracy".split())
    long_tables.write(
        folder,
        seed,
        reviewers=pd.concat(parts),
        question_costs=spent,
        judged=scores,
        ppo_history=along.rename(columns={"agreement": "validation_agreement"}),
        thresholds=table,
    )


@cache
def table_of(evidence: result_tables.Evidence, name: str) -> pd.DataFrame:
    """What an exhibit shows, computed once."""
    return gallery.find(name).table(evidence)


def titles(figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


PANELS = ["micro-gsm", "micro-gsm-plus", "micro-mmlu"]


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("figure_5_lambda", ["micro-gsm", "micro-gsm", "micro-mmlu", "micro-mmlu"]),
        ("figure_6_data_ratio", ["micro-gsm", "micro-mmlu"]),
        ("figure_question_r1", PANELS),
        ("figure_question_r4_flips", PANELS),
        ("figure_question_r6_pareto", PANELS),
        ("figure_best_of_n", ["micro-gsm", "micro-mmlu"]),
        ("figure_calibration", ["micro-gsm", "micro-mmlu"]),
        ("figure_reward_shift", ["micro-gsm", "micro-mmlu"]),
        ("figure_over_optimisation", ["micro-gsm", "micro-gsm", "micro-mmlu", "micro-mmlu"]),
    ],
)
def test_a_figure_has_a_panel_for_every_cell(drawn, name, panels):
    evidence, _ = drawn
    exhibit = gallery.find(name)
    with looks.style(evidence.benchmarks):
        figure = exhibit.draw(table_of(evidence, name))
    found = titles(figure)
    assert [title.replace(",", "\n").split("\n")[0] for title in found] == panels
    assert all("strong teacher" in title and "small student" in title for title in found)
    looks.plt.close(figure)


def test_a_panel_holds_its_own_cell_alone(drawn):
    evidence, _ = drawn
    table = table_of(evidence, "figure_6_data_ratio")
    for ax, dataset in zip(paper_figures.data_ratio(table).axes, ("gsm", "mmlu"), strict=True):
        points = [y for container in ax.containers for y in container.lines[0].get_ydata()]
        assert points == list(table.auc[table.dataset == dataset])
    table = table_of(evidence, "figure_5_lambda")
    figure = paper_figures.lambda_curves(table)
    part = table[(table.dataset == "mmlu") & (table.comparison == "pos_pos") & (table.point == "curve")]
    curves = [line.get_ydata().tolist() for line in figure.axes[3].lines if len(line.get_ydata()) == 8]
    assert curves == [part[part.lam == lam].auc.tolist() for lam in sorted(part.lam.unique())]
    arms_shown = evidence.arms[evidence.arms.question == "R1"]
    figure = question_figures.arms(arms_shown)
    for ax, (_, part) in zip(figure.axes, arms_shown.groupby(["cell", "benchmark"], sort=False), strict=True):
        assert dots(ax).query("size > 5")["x"].tolist() == pytest.approx(sorted(part.study_pct))
    looks.plt.close("all")


def test_seeds_along_ppo_are_pale_and_their_mean_ends_where_one_of_them_does():
    """Two seeds to update 8, one of them to 12: the mean of their rewards, and of their gains since update 0."""
    columns = {"update": [0, 4, 8, 12], "kl": [float("nan"), 0.1, 0.2, 0.3], "agreement": 0.6}
    along = pd.DataFrame(columns | {"reward": [float("nan"), 0.3, 0.4, 0.9], "accuracy": [0.5, 0.52, 0.54, 0.9]})
    other = along[along["update"] < 12].assign(reward=along["reward"] + 0.2, accuracy=[0.7, 0.7, 0.7], seed=1)
    table = pd.concat([along.assign(seed=0), other]).assign(cell=NAMES[0])
    figure = question_figures.over_optimisation(table)
    reward, change = figure.axes
    assert len(reward.lines) == 3 and reward.lines[-1].get_ydata().tolist() == pytest.approx([0.4, 0.5])
    assert len(change.lines) == 6 and change.lines[2].get_ydata().tolist() == pytest.approx([0, 1, 2])
    assert change.lines[2].get_xdata().tolist() == pytest.approx([0, 0.1, 0.2])
    alone = question_figures.over_optimisation(table[table["seed"] == 0])
    assert [len(ax.lines) for ax in alone.axes] == [1, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "pale: a seed"
    looks.plt.close("all")


def test_panels_are_placed_evenly():
    assert [looks.shape(count) for count in range(8)] == [
        *((1, 1), (1, 1), (1, 2), (1, 3)),
        *((2, 2), (2, 3), (2, 3), (3, 3)),
    ]


# ---- training again


@pytest.mark.slow
def test_exhibits_of_two_cells_are_trained_again_gathered_and_drawn(study, tmp_path, at_root):
    root = copy_study(study, tmp_path / "root")
    content = tiny_settings() | {"teachers": {"strong": "models/strong"}}
    content["grid"] |= grid_of(GSM, LARGE) | {"lam": [0.5, 1.0]}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    at_root(root)
    for name in ("figure_5_lambda", "figure_over_optimisation"):
        jobs = exhibit_runs.jobs_of(name, PARAMS, [0])
        for job in jobs:
            for stage in job.stages:
                stage.run_with_inputs()
        exhibit_runs.draw(name, PARAMS, [0], jobs)
    out = root / "runs/tiny/retrained"
    curves = pd.read_csv(out / "figure_5_lambda/figure_5_lambda.csv")
    assert set(zip(curves.student, curves.lam, strict=True)) == {(s, v) for s in ("small", "large") for v in (0.5, 1.0)}
    along = pd.read_csv(out / "figure_over_optimisation/figure_over_optimisation.csv")
    assert list(dict.fromkeys(along.cell)) == ["gsm/strong/small", "gsm/strong/large"]
    responses = pd.read_parquet(out / "figure_over_optimisation/results/seed0/judged.parquet")
    for cell in ablation_cells(PARAMS, 0):
        own = responses[responses["cell"] == cell.cell_name].drop(columns="cell").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, cell.at("13_judged_responses").table("judged"))
        ppo = cell.at("06_ppo").jsonl("history").set_index("update")["validation_agreement"]
        own = along[along.cell == cell.cell_name]
        assert own.agreement.tolist() == pytest.approx(ppo[own["update"]].tolist(), abs=1e-4)
