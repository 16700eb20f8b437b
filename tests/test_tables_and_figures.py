"""Tables and figures from a small invented study: what is drawn is what was computed, and nothing else."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import long_tables
import matplotlib.colors as colors
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.collections import LineCollection

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import (
    curve_tables,
    gallery,
    looks,
    paper,
    paper_figures,
    paper_tables,
    pipeline_figure,
    plots,
    result_tables,
    stats,
    tables,
)
from rdlib.evidence.dots import draw_dots

ROOT = Path(__file__).resolve().parent.parent
EDGES = [
    ("00_data", "01_teacher_responses"),
    ("01_teacher_responses", "02_pseudo_labels"),
    ("00_data", "03_sft_warmup"),
    ("01_teacher_responses", "03_sft_warmup"),
    ("02_pseudo_labels", "03_sft_warmup"),
    ("00_data", "04_student_responses"),
    ("03_sft_warmup", "04_student_responses"),
    ("02_pseudo_labels", "04_student_responses"),
    ("01_teacher_responses", "05_reward_model"),
    ("03_sft_warmup", "05_reward_model"),
    ("04_student_responses", "05_reward_model"),
    ("00_data", "06_ppo"),
    ("02_pseudo_labels", "06_ppo"),
    ("03_sft_warmup", "06_ppo"),
    ("04_student_responses", "06_ppo"),
    ("05_reward_model", "06_ppo"),
    ("00_data", "07_evaluate"),
    ("06_ppo", "07_evaluate"),
]
ABILITY = {"teacher": 0.8, "icl": 0.35, "sft": 0.5, "ours_wo_r": 0.52, "ours_wo_d": 0.45, "ours": 0.58}
LAMS, SHARES = (0.0, 0.25, 0.75, 1.0), (0.2, 0.35, 0.65, 0.8)
MISMATCHES = ("minus", "clip", "fixed", "none")
GROUPS = {
    "gsm": [""],
    "gsm_plus": ["numeric", "digits", "added", "reversed", "rephrased", "distractor"],
    "mmlu": ["history", "law", "physics"],
}
QUESTIONS, QUERIES, STEPS = 150, 25, 8
CELLS = (("gsm", "strong", "small"),)  # what the ablations are of
BENCHMARKS = {"gsm": ("gsm", "gsm_plus"), "mmlu": ("mmlu",)}


def invent(results: Path, seeds: tuple[int, ...] = (0,), cells: tuple = CELLS) -> Path:
    """Write result tables of an invented study to a folder a seed; the numbers mean nothing."""
    for seed in seeds:
        _invent_seed(results / f"seed{seed}", seed, cells)
    return results


def _invent_seed(folder: Path, seed: int, cells: tuple) -> None:
    rng, seeds = np.random.default_rng(7 + seed), (seed,)
    folder.mkdir(parents=True)
    correctness, scores = _correctness(rng, seeds, cells), _scores(rng, seeds, cells)
    histories = dict(
        zip(("reward_model_history", "sft_history", "ppo_history"), _histories(rng, seeds, cells), strict=True)
    )
    costs = [
        ["gsm", "strong", "small", "ours", "", seed, stage, 12.5, 1000, 500] for stage in ("05_reward_model", "06_ppo")
    ]
    names = ["dataset", "teacher", "student", "method", "variant", "seed", "stage", "seconds"]
    costs = pd.DataFrame(costs, columns=[*names, "tokens_generated", "tokens_trained"]).assign(experiment="main")
    long_tables.write(
        folder,
        seed,
        correctness=correctness,
        reward_scores=scores,
        pseudo_labels=_pseudo_labels(seeds),
        costs=costs,
        **histories,
    )
    example = {
        "question": "Ann has 3 apples | and gets 4 .",
        "pseudo_label": "7",
        "teacher_response": "3 + 4 = 7\n#### 7",
        "student_positive": "3 + 4 = 7 #### 7",
        "student_negative": "4 - 3 = 1 #### 1",
        "scores": {"teacher": 2.0, "student_positive": 1.25, "student_negative": -0.5},
    }
    (folder / "example.json").write_text(json.dumps(example))
    settings = yaml.safe_load((ROOT / "params/micro.yaml").read_text())
    settings["grid"]["ablation_cells"] = [dict(zip(tables.CELL, cell, strict=True)) for cell in cells]
    (folder / "settings.json").write_text(json.dumps(settings))


def _runs(cells):
    """(benchmark, teacher, student, method, variant) of every evaluated run."""
    for benchmark in GROUPS:
        for teacher in paper.TEACHERS:
            yield benchmark, teacher, "", "teacher", ""
            for student in paper.STUDENTS:
                for method in ("sft", "ours_wo_r", "ours_wo_d", "ours"):
                    yield benchmark, teacher, student, method, ""
        for student in paper.STUDENTS:
            yield benchmark, "", student, "icl", ""
    for dataset, teacher, student in cells:
        for benchmark in BENCHMARKS[dataset]:
            yield benchmark, teacher, student, "ours", "reward_model.source=teacher"
            for name in MISMATCHES:
                yield benchmark, teacher, student, "ours", f"reward.mismatch={name}"


def _correctness(rng, seeds, cells) -> pd.DataFrame:
    parts = []
    for benchmark, teacher, student, method, variant in _runs(cells):
        ability = ABILITY[method] - 0.15 * (benchmark == "mmlu") - 0.05 * (variant != "") + 0.1 * (student == "large")
        for seed in seeds:
            ids = [f"{benchmark}-{i}" for i in range(QUESTIONS)]
            groups = [GROUPS[benchmark][i % len(GROUPS[benchmark])] for i in range(QUESTIONS)]
            answers = {"seed": seed, "id": ids, "group": groups, "correct": rng.random(QUESTIONS) < ability}
            parts.append(
                pd.DataFrame(
                    {
                        "benchmark": benchmark,
                        "teacher": teacher,
                        "student": student,
                        "method": method,
                        "variant": variant,
                        **answers,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _pseudo_labels(seeds) -> pd.DataFrame:
    rows = []
    for dataset, teacher, failed, wrong in (
        ("gsm", "strong", 10, 8),
        ("gsm", "weak", 40, 40),
        ("mmlu", "strong", 90, 60),
        ("mmlu", "weak", 180, 90),
    ):
        for seed in seeds:
            for split in ("train", "validation"):
                labelled = 400 - failed
                rows.append(
                    [
                        dataset,
                        teacher,
                        seed,
                        split,
                        400,
                        failed,
                        labelled,
                        labelled - wrong,
                        30 * labelled,
                        30 * labelled - 25 * wrong,
                    ]
                )
    names = [
        "dataset",
        "teacher",
        "seed",
        "split",
        "questions",
        "failed",
        "labelled",
        "label_correct",
        "responses",
        "judged_right",
    ]
    return pd.DataFrame(rows, columns=names)


def _reward_runs(cells):
    for dataset in ("gsm", "mmlu"):
        for teacher in paper.TEACHERS:
            for student in paper.STUDENTS:
                yield dataset, teacher, student, "ours", ""
                yield dataset, teacher, student, "ours_wo_d", ""
    for cell in cells:
        for lam in LAMS:
            yield *cell, "ours", f"reward_model.lam={lam}"
        for share in SHARES:
            yield *cell, "ours", f"reward_model.teacher_share={share}"
        yield *cell, "ours", "reward_model.source=teacher"


def _scores(rng, seeds, cells) -> pd.DataFrame:
    parts = []
    for run in _reward_runs(cells):
        share = tables.setting_of(run[4], "reward_model.teacher_share", 0.5) or 0.5
        for seed in seeds:
            for kind, mean in (
                ("student_positive", 0.5),
                ("student_negative", -0.5),
                ("teacher_positive", 0.5 + 2 * share),
            ):
                score = {
                    "seed": seed,
                    "id": np.repeat(np.arange(QUERIES), 4),
                    "kind": kind,
                    "score": rng.normal(mean, 1, 4 * QUERIES),
                }
                parts.append(
                    pd.DataFrame({**dict(zip([*tables.CELL, "method", "variant"], run, strict=True)), **score})
                )
    return pd.concat(parts, ignore_index=True)


def _histories(rng, seeds, cells):
    reward_model, sft, ppo = [], [], []
    for run in _reward_runs(cells):
        key = dict(zip([*tables.CELL, "method", "variant"], run, strict=True))
        for seed in seeds:
            for step in range(1, STEPS + 1):
                auc = 0.7 - 0.15 / step + rng.normal(0, 0.01)
                reward_model.append(
                    {
                        **key,
                        "seed": seed,
                        "step": 10 * step,
                        "epoch": step / 2,
                        "loss": 1 / step,
                        "pos_neg_auc": auc,
                        "pos_pos_auc": auc + 0.1,
                    }
                )
            if run[4] == "":
                for method in ("sft", "ours_wo_r"):
                    for step in range(1, 5):
                        sft.append(
                            {
                                **key,
                                "method": method,
                                "seed": seed,
                                "step": 20 * step,
                                "epoch": step,
                                "loss": 1 / step,
                                "eval_loss": 1.1 / step,
                                "agreement": 0.5 - 0.1 / step,
                            }
                        )
                for update in range(20):
                    value = rng.normal(0, 0.05)
                    ppo.append(
                        {
                            **key,
                            "seed": seed,
                            "update": update,
                            "episodes": 256 * update,
                            "reward": -1 + update / 20 + value,
                            "rm_score": value,
                            "kl": update / 8,
                            "entropy": 1.0,
                            "clip_fraction": 0.1,
                            "response_length": 40.0,
                            "extractable": 0.9,
                            "agreement": 0.4,
                            "validation_agreement": 0.4 + update / 200 if update % 4 == 0 else None,
                        }
                    )
    return (
        pd.DataFrame(reward_model).drop_duplicates([*tables.CELL, "method", "variant", "seed", "step"]),
        pd.DataFrame(sft).drop_duplicates(),
        pd.DataFrame(ppo),
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return invent(tmp_path_factory.mktemp("study") / "results")


@pytest.fixture(scope="module")
def drawn(results) -> Path:
    out = results.parent / "figures"
    gallery.draw_all(result_tables.open_results(results, edges=EDGES), out)
    return out


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_every_table_and_figure_is_written_in_every_format(drawn):
    names = {path.stem for path in drawn.iterdir()}
    wanted = {
        "table_1_example",
        "table_2_main",
        "table_3_reward_model_auc",
        "table_4_reward_source",
        "claims",
    }
    wanted |= {"table_5_hyperparameters_sft", "table_6_hyperparameters_ppo", "table_7_correctness_validation"}
    wanted |= {
        "figure_2_pipeline",
        "figure_3_failure_ratio",
        "figure_4_judged_correctness",
        "figure_5_lambda",
    }
    assert wanted | {"figure_6_data_ratio", "provenance", "gsm_plus_by_perturbation"} <= names
    for name in names:
        kinds = {path.suffix for path in drawn.glob(f"{name}.*")}
        assert kinds == ({".csv", ".pdf", ".png"} if name.startswith("figure_") else {".csv", ".md"}), name


def test_the_same_results_give_the_same_bytes(results, drawn, tmp_path):
    stats.bootstrap_weights.cache_clear()
    gallery.draw_all(result_tables.open_results(results, edges=EDGES), tmp_path)
    assert digest(tmp_path) == digest(drawn)


def test_main_table_has_the_accuracies_counted_by_hand_and_the_papers_apart(results, drawn):
    correct = pd.read_parquet(results / "seed0/correctness.parquet")
    answers = correct[(correct.benchmark == "mmlu") & (correct.teacher == "weak") & (correct.student == "large")]
    answers = answers[answers.method == "sft"].correct
    row = (
        pd.read_csv(drawn / "table_2_main.csv").set_index(["teacher", "student", "method"]).loc["weak", "large", "sft"]
    )
    assert row.mmlu_study_pct == pytest.approx(100 * answers.mean(), abs=0.005)
    interval = stats.wilson(answers.sum(), QUESTIONS)
    assert row.mmlu_study_low_pct == pytest.approx(100 * interval.low, abs=0.005)
    assert (row.mmlu_n, row.mmlu_paper_pct, row.gsm_paper_pct) == (QUESTIONS, 31.78, 79.75)


def test_main_table_has_one_teacher_row_and_icl_under_both_teachers(drawn):
    table = pd.read_csv(drawn / "table_2_main.csv")
    assert list(table[table.method == "teacher"].teacher) == ["strong", "weak"]
    icl = table[table.method == "icl"].set_index(["teacher", "student"]).gsm_study_pct
    assert len(table) == 22 and icl["strong", "small"] == icl["weak", "small"]


def test_reward_source_table_puts_the_papers_numbers_on_the_papers_cell_only(drawn):
    table = pd.read_csv(drawn / "table_4_reward_source.csv").set_index(["benchmark", "reward_model"])
    assert list(table.paper_pct.loc["gsm"]) == [61.41, 62.85, 64.06]
    assert table.paper_pct.loc["gsm_plus"].isna().all()
    assert np.isnan(table.gain_pp["gsm", "without_reward"]) and np.isfinite(table.gain_pp["gsm", "from_student"])


def test_correctness_validation_table_says_that_the_papers_numbers_are_lost(drawn):
    table = pd.read_csv(drawn / "table_7_correctness_validation.csv")
    assert list(table[table.benchmark == "gsm"].mismatch) == list(paper_tables.MISMATCHES.values())
    assert "paper_pct" not in table
    text = (drawn / "table_7_correctness_validation.md").read_text()
    assert text.count("lost in the text") == 1


def test_hyperparameter_tables_hold_the_papers_rows_and_the_settings(drawn):
    ppo = pd.read_csv(drawn / "table_6_hyperparameters_ppo.csv")
    assert list(ppo.paper_batch_size) == [20, 4, 20, 4, 10, 2, 10, 2]
    settings = yaml.safe_load((ROOT / "params/micro.yaml").read_text())
    assert set(ppo.study_batch_size) == {settings["ppo"]["minibatch_size"]}


def test_example_has_each_response_with_its_score(drawn):
    table = pd.read_csv(drawn / "table_1_example.csv").set_index("what")
    assert table.reward_model_score["teacher response"] == 2.0
    assert table.reward_model_score["student negative"] == -0.5
    assert "apples \\| and" in (drawn / "table_1_example.md").read_text()


def test_provenance_covers_settings_that_exist_and_statuses_that_are_defined(drawn):
    settings = yaml.safe_load((ROOT / "params/micro.yaml").read_text())
    for constant in paper.PROVENANCE:
        assert constant.status in {"stated", "reconstructed", "open"}
        assert bool(constant.keys) != bool(constant.ours), constant.name
        for key in constant.keys:
            section, *rest = key.split(".")
            assert section in settings and rest[-1] in json.dumps(settings[section]), key
    table = pd.read_csv(drawn / "provenance.csv").set_index("constant")
    assert table.paper["lambda in Eq. 6"] == "0.5" and table.status["reward without an answer"] == "open"
    assert table.this_study["reward without an answer"] == str(settings["reward"]["no_answer"]).removesuffix(".0")


def test_every_numeric_setting_of_the_method_has_a_provenance():
    settings = yaml.safe_load((ROOT / "params/micro.yaml").read_text())
    known = {key for constant in paper.PROVENANCE for key in constant.keys}
    # How the run is carried out, not what the method is: no reader of the paper asks where these come from.
    technical = {"ppo.checkpoint_every", "reward_model.source"}
    sections = (
        "teacher_sampling",
        "voting",
        "sft",
        "student_sampling",
        "reward_model",
        "reward",
        "ppo",
        "evaluation",
    )
    assert {f"{section}.{name}" for section in sections for name in settings[section]} - known == technical


def test_failure_ratio_counts_both_splits_and_leaves_the_papers_numbers_out(drawn):
    table = pd.read_csv(drawn / "figure_3_failure_ratio.csv").set_index(["dataset", "teacher"])
    assert table.study_pct["mmlu", "weak"] == 45.0 and table.n["mmlu", "weak"] == 800
    assert table.paper_words["mmlu", "weak"] == "nearly half of the questions fail"


def test_judged_correctness_counts_labels_and_responses(drawn):
    table = pd.read_csv(drawn / "figure_4_judged_correctness.csv").set_index(["dataset", "teacher", "unit"])
    labelled = 2 * (400 - 40)
    assert table.study_pct["gsm", "weak", "pseudo-labels"] == pytest.approx(100 * (labelled - 80) / labelled, abs=0.005)
    responses = 30 * labelled
    assert table.study_pct["gsm", "weak", "responses"] == pytest.approx(
        100 * (responses - 50 * 40) / responses, abs=0.005
    )
    assert set(table.n) == {2 * (400 - failed) for failed in (10, 40, 90, 180)}


def test_seeds_do_not_count_questions_twice(drawn):
    table, one = (curve_tables.failure_ratios(_pseudo_labels(seeds)) for seeds in ((0, 1, 2), (0,)))
    pd.testing.assert_frame_equal(table.drop(columns="study_seeds"), one.drop(columns="study_seeds"))
    assert list(table.study_seeds) == [f"{value:.2f} {value:.2f} {value:.2f}" for value in table.study_pct]
    assert set(one.study_seeds) == {""}


def test_single_seeds_are_named_in_tables_and_drawn_as_dots(tmp_path):
    data = result_tables.open_results(invent(tmp_path / "results", seeds=(0, 1, 2)))
    points = paper_tables.main_points(data.correctness)
    for row in points.itertuples():
        asked = tables.method_rows(data.correctness, row.benchmark, row.teacher, row.student, row.method)
        byhand = [100 * asked.correct[asked.seed == seed].mean() for seed in (0, 1, 2)]
        assert [float(value) for value in row.study_seeds.split()] == pytest.approx(byhand, abs=0.005)
        assert np.mean(byhand) == pytest.approx(row.study_pct)
    aucs = paper_tables.auc_table(data.reward_scores)
    for row in aucs.itertuples():
        assert np.mean([float(value) for value in row.study_pos_neg_seeds.split()]) == pytest.approx(
            row.study_pos_neg_auc, abs=1e-4
        )
    figure, axes = looks.grid(1, 1)
    looks.seed_dots(axes[0, 0], [2.0, 3.0], ["70.5 71.5 69.0", float("nan")], looks.BLUE, along="x")
    dots = [line.get_xydata().tolist() for line in axes[0, 0].lines]
    assert dots == [[[70.5, 2.0], [71.5, 2.0], [69.0, 2.0]], []]


def test_lambda_figure_has_a_curve_for_each_lambda_and_the_kept_checkpoints(drawn):
    table = pd.read_csv(drawn / "figure_5_lambda.csv")
    assert sorted(table.lam.unique()) == [0, 0.25, 0.5, 0.75, 1]
    curve = table[(table.point == "curve") & (table.lam == 0.5) & (table.comparison == "pos_neg")]
    assert len(curve) == STEPS and curve.auc_low.isna().all()  # one seed has no interval over seeds
    assert table[table.point == "selected"].auc_low.notna().all()


def test_data_ratio_figure_names_ratios(drawn):
    table = pd.read_csv(drawn / "figure_6_data_ratio.csv")
    assert list(table.teacher_to_student[table.comparison == "pos_neg"]) == [
        "1:4",
        "7:13",
        "1:1",
        "13:7",
        "4:1",
    ]


def test_figures_draw_exactly_what_their_csv_holds(drawn):
    table = pd.read_csv(drawn / "figure_3_failure_ratio.csv")
    ax = paper_figures.failure_ratios(table).axes[0]
    heights = sorted(
        bar.get_height() for container in ax.containers if hasattr(container, "patches") for bar in container
    )
    assert heights == sorted(table.study_pct)
    table = pd.read_csv(drawn / "figure_main_results.csv")
    figure = paper_figures.main_results(table)
    for ax, column in ((figure.axes[0], "study_pct"), (figure.axes[3], "paper_pct")):
        part = table[table.benchmark == "gsm"]
        means = dots(ax).query("size > 5")["x"]  # smaller: single seeds
        assert means.round(6).tolist() == sorted(part[column].round(6))
    low, high = (sorted(table[table.benchmark == "gsm"][f"study_{end}_pct"]) for end in ("low", "high"))
    assert sorted(segment[0, 0] for segment in ranges(figure.axes[0])) == pytest.approx(low)
    assert sorted(segment[1, 0] for segment in ranges(figure.axes[0])) == pytest.approx(high)
    table = pd.read_csv(drawn / "gsm_plus_by_perturbation.csv", keep_default_na=False)
    first = paper_figures.by_group(table).axes[0]
    part = table[table.teacher.isin(["", "strong"]) & table.student.isin(["", "small"])]
    assert sorted(first.collections[0].get_array().ravel()) == sorted(part.study_pct)
    table = pd.read_csv(drawn / "figure_6_data_ratio.csv")
    ax = paper_figures.data_ratio(table).axes[0]
    points = [y for container in ax.containers for y in container.lines[0].get_ydata()]
    assert points == list(table.auc)


def dots(ax) -> pd.DataFrame:
    """The dots on an axes, by x: x, color, size (points squared)."""
    rows = []
    for part in ax.collections:
        if not isinstance(part, LineCollection):
            points = np.ma.filled(part.get_offsets().astype(float), np.nan)[:, 0]
            faces = np.broadcast_to(part.get_facecolors(), (len(points), 4))
            sizes = np.broadcast_to(part.get_sizes(), len(points))
            rows += [(x, colors.to_hex(c).upper(), s) for x, c, s in zip(points, faces, sizes, strict=True)]
    return pd.DataFrame(rows, columns=["x", "color", "size"]).dropna().sort_values("x", ignore_index=True)


def ranges(ax) -> list[np.ndarray]:
    """The ends of the intervals on an axes, [2, 2] each."""
    lines = [part.get_segments() for part in ax.collections if isinstance(part, LineCollection)]
    return [segment for part in lines for segment in part if np.isfinite(segment).all()]


def test_a_method_has_one_colour_and_marker_everywhere_and_none_shares_it(drawn):
    known = list(looks.METHODS.values())
    assert len({look.color for look in known}) == len({look.marker for look in known}) == len(paper.METHODS)
    table = pd.read_csv(drawn / "figure_main_results.csv")
    for ax in paper_figures.main_results(table).axes:
        assert set(dots(ax)["color"]) == {look.color for look in known}
    found = dots(paper_figures.main_results(table).axes[0])
    for row in table[table.benchmark == "gsm"].itertuples():
        assert looks.METHODS[row.method].color in set(found["color"][np.isclose(found["x"], row.study_pct)])
    table = pd.read_csv(drawn / "figure_learning_ppo.csv")
    curves = paper_figures.ppo_curves(table).axes[0].lines
    assert {line.get_color() for line in curves} == {looks.METHODS[m].color for m in ("ours", "ours_wo_d")}


def test_arms_that_are_a_method_of_table_2_look_like_it():
    same = {"SFT": "sft", "Ours w/o R": "ours_wo_r", "Ours": "ours", "teacher": "teacher"}
    assert all(looks.ARMS[arm] == looks.METHODS[method] for arm, method in same.items())
    others = {arm: look for arm, look in looks.ARMS.items() if look not in looks.METHODS.values()}
    apart = {(look.color, look.marker) for look in others.values()}
    assert not apart & {(look.color, look.marker) for look in looks.METHODS.values()}


def test_single_seeds_lie_beside_their_own_dot(tmp_path):
    """Seaborn joins layers by their index: a seed's dot must not come into another row, panel or colour."""
    rows = [("a", "p", "ours", 1.0, "0.5 1.5"), ("a", "p", "sft", 3.0, "2.5 3.5"), ("b", "q", "ours", 5.0, "4.5 5.5")]
    table = pd.DataFrame(rows, columns=["row", "panel", "method", "value", "seeds"])
    figure = looks.blank(4, 3)
    draw_dots(figure, table, "value", "method", looks.METHODS, seeds="seeds")
    expected = {"p": [0.5, 1.0, 1.5, 2.5, 3.0, 3.5], "q": [4.5, 5.0, 5.5]}
    for ax in figure.axes:
        found = dots(ax)
        assert found["x"].tolist() == expected[ax.get_title()]
        for x, color in zip(found["x"], found["color"], strict=True):
            assert color == (looks.ORANGE if 2 < x < 4 else looks.BLUE)
    looks.plt.close("all")


def test_an_interval_lies_at_the_height_of_its_dot():
    """Seaborn dodges by all that tells marks apart, of which dots have more than intervals."""
    rows = [(place, method, 10.0 * i) for place in "ab" for i, method in enumerate(looks.METHODS)]
    table = pd.DataFrame(rows, columns=["row", "method", "value"]).assign(panel="p")
    table = table.assign(low=table.value - 1, high=table.value + 1)
    figure = looks.blank(4, 3)
    draw_dots(figure, table, "value", "method", looks.METHODS, interval=("low", "high"))
    (ax,) = figure.axes
    points = [point for part in ax.collections if not isinstance(part, LineCollection) for point in part.get_offsets()]
    middles = [(segment[:, 0].mean(), segment[0, 1]) for segment in ranges(ax)]
    assert len(points) == len(rows)
    np.testing.assert_allclose(sorted(map(tuple, points)), sorted(middles), atol=1e-9)
    looks.plt.close("all")


def test_pipeline_draws_every_stage_and_edge_left_to_right():
    places, routes = pipeline_figure._layout(EDGES)
    assert len(routes) == len(EDGES) and set(places) == {name for edge in EDGES for name in edge}
    assert all(places[a][0] < places[b][0] for a, b in EDGES)
    assert len(set(places.values())) == len(places)
    with pytest.raises(ValueError, match="cycle"):
        pipeline_figure._layout([("a", "b"), ("b", "a")])


@pytest.mark.parametrize("name", [*result_tables.COLUMNS, "example.json", "settings.json"])
def test_a_missing_or_broken_result_table_is_named_with_the_command(results, tmp_path, name):
    shutil.copytree(results / "seed0", tmp_path / "seed0")
    (tmp_path / "seed0" / name).write_bytes(b"\x00not a table")
    with pytest.raises(UserError, match=f"{name}.*make study"):
        getattr(result_tables.open_results(tmp_path), name.partition(".")[0])
    (tmp_path / "seed0" / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing.*make study"):
        getattr(result_tables.open_results(tmp_path), name.partition(".")[0])


def test_command_line_says_what_is_missing_in_one_line(tmp_path, capsys):
    assert main(["figures", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "holds no results of any seed" in message and not (tmp_path / "out").exists()


def test_a_study_without_ablations_is_drawn_too(results, tmp_path):
    small = shutil.copytree(results / "seed0", tmp_path / "small/seed0")
    for name in ("correctness.parquet", "reward_scores.parquet"):
        table = pd.read_parquet(small / name)
        table[(table.variant == "") & (table.teacher != "weak")].to_parquet(small / name)
    for name in ("reward_model_history.parquet", "ppo_history.parquet", "sft_history.parquet"):
        table = pd.read_parquet(small / name)
        table[table.variant == ""].to_parquet(small / name)
    gallery.draw_all(result_tables.open_results(small.parent, edges=EDGES), tmp_path / "out")
    verdicts = pd.read_csv(tmp_path / "out" / "claims.csv").set_index("claim").verdict
    assert all(verdicts[name] == "inconclusive" for name in ("C6", "C7", "C8", "C9"))


def test_several_seeds_give_intervals_to_the_curves(tmp_path):
    data = result_tables.open_results(invent(tmp_path / "results", seeds=(0, 1, 2)))
    curves = curve_tables.learning_curves(data.ppo_history, "update", ["reward"])
    assert (curves.seeds == 3).all() and (curves.low < curves["mean"]).all() and set(curves.value) == {"reward"}
    points = paper_tables.main_points(data.correctness)
    assert (points.n == QUESTIONS).all() and (points.study_low_pct < points.study_pct).all()


def test_evaluations_of_seeds_belong_together_by_their_order():
    """Seed 1 evaluates at other steps and stops early; what is logged between evaluations does not count."""
    rows = [(0, 0, 0.5), (0, 10, None), (0, 24, 0.6), (0, 48, 0.8), (1, 0, 0.5), (1, 26, 0.7)]
    history = pd.DataFrame(rows, columns=["seed", "step", "auc"]).assign(cell="a")
    curve = curve_tables.over_seeds(history, ["cell"], "step", "auc")
    assert curve[["step", "seeds"]].values.tolist() == [[0, 2], [25, 2], [48, 1]]
    assert curve["mean"].tolist() == pytest.approx([0.5, 0.65, 0.75])  # the ended seed counts on with .7
    assert curve["low"].isna().tolist() == [False, False, True]
    axes = looks.grid(1, 1)[1][0, 0]
    plots.curve_over_seeds(axes, curve.step, curve, ("mean", "low", "high"), 4, color="black")
    whole, rest = axes.lines
    assert whole.get_xdata().tolist() == [0, 25] and rest.get_xdata().tolist() == [25, 48]
    assert rest.get_alpha() < 1 and len(axes.collections) == 1
    looks.plt.close("all")


def test_seeds_are_read_one_below_the_other_or_singly(tmp_path):
    results = invent(tmp_path / "results", seeds=(0, 10, 2))
    assert [path.name for path in result_tables.seed_folders(results)] == ["seed0", "seed2", "seed10"]
    everything, one = result_tables.open_results(results), result_tables.open_results(results, [2])
    assert set(everything.correctness.seed) == {0, 2, 10} and set(one.correctness.seed) == {2}
    assert len(everything.correctness) == 3 * len(one.correctness)
    with pytest.raises(UserError, match=r"seed5/settings.json is missing.*make study"):
        result_tables.open_results(results, [0, 5])


def test_a_seed_of_other_settings_is_refused(tmp_path):
    results = invent(tmp_path / "results", seeds=(0, 1))
    settings = json.loads((results / "seed1/settings.json").read_text())
    settings["ppo"]["kl_coef"] = 0.7
    (results / "seed1/settings.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="seed1 was made with other settings than .*seed0"):
        result_tables.open_results(results)


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
    assert looks.benchmark_names(real) == {
        "gsm": "GSM8K",
        "gsm_plus": "GSM-Plus",
        "mmlu": "MMLU-Pro",
        "mine": "mine",
    }
    micro = looks.benchmark_names({"gsm": {"source": "micro-gsm"}})
    with looks.style(micro):
        assert looks.benchmark_label("gsm_plus") == "micro-gsm-plus"
        assert looks.benchmark_label("other") == "other"
    assert looks.benchmark_label("gsm_plus") == "gsm_plus"


def test_notebook_helpers_draw_one_run(results):
    data = result_tables.open_results(results)
    cell = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours", "variant": ""}
    with looks.style():
        figure, axes = looks.grid(2, 2)
        plots.plot_reward_model_history(axes[0, 0], tables.select(data.reward_model_history, **cell))
        plots.plot_reward_distributions(axes[0, 1], tables.select(data.reward_scores, **cell))
        plots.plot_roc(axes[1, 0], tables.select(data.reward_scores, **cell))
        labels = pd.DataFrame({"pseudo_label": ["7", None, "3"], "share": [0.9, 0.3, 0.55]})
        plots.plot_votes(axes[1, 1], labels)
        sft = tables.select(data.sft_history, **cell | {"method": "sft"})
        right = plots.plot_sft_history(looks.grid(1, 1)[1][0, 0], sft)
        ppo = plots.plot_ppo_history(tables.select(data.ppo_history, **cell))
    assert [line.get_ydata().tolist() for line in right.lines] == [list(sft.agreement)]
    assert len(ppo.axes) == 6
    failed = axes[1, 1].containers[1]
    assert sum(bar.get_height() for bar in failed) == 1 and failed[0].get_hatch()
    looks.plt.close("all")


def test_the_papers_tables_are_whole():
    assert paper.accuracy("gsm", "strong", "small", "ours") == 64.06
    assert paper.accuracy("gsm_plus", "weak", "", "teacher") == 68.19
    assert paper.accuracy("mmlu", "strong", "nobody", "ours") is None
    assert paper.reward_model_auc("mmlu", "weak", "large", "pos_neg") == 0.7609
    assert len(paper.load("main_results")) == 22 and len(paper.load("hyperparameters")) == 20


def test_drawing_needs_no_torch():
    code = "import sys, rdlib.study.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_plots_compute_no_statistics():
    imported = {
        alias.name
        for node in ast.walk(ast.parse(Path(plots.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("rdlib")
        for alias in node.names
        if node.module != "rdlib.evidence.looks"
    }
    assert imported == {"metrics"}


def test_smoothed_is_a_trailing_mean_within_each_run():
    cell = {"dataset": "gsm", "teacher": "strong", "student": "small", "seed": 0}
    rows = [
        cell | {"method": m, "step": n, "loss": float(n + add)}
        for m, add in (("sft", 0), ("ours_wo_r", 9))
        for n in (3, 1, 2)
    ]
    table = curve_tables.smoothed(pd.DataFrame(rows), "loss", window=2).set_index(["method", "step"])["loss"]
    assert table["sft"].to_dict() == {1: 1.0, 2: 1.5, 3: 2.5}
    assert table["ours_wo_r"].to_dict() == {1: 10.0, 2: 10.5, 3: 11.5}


def test_lambda_curves_have_only_the_steps_that_were_evaluated():
    """A trainer logs its loss at every step and an AUC at some; a curve through the others would be broken."""
    cell = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours", "seed": 0}
    aucs = [0.5, np.nan, 0.6, np.nan, 0.7]
    variants = ["", "reward_model.lam=0.25"]
    rows = [{"variant": v, "step": n, "pos_neg_auc": a, "pos_pos_auc": a} for v in variants for n, a in enumerate(aucs)]
    kinds = ["student_positive", "student_negative", "teacher_positive"]
    scored = [
        {"variant": v, "id": f"q{i}", "kind": k, "score": float(i)} for v in variants for i in range(4) for k in kinds
    ]
    history, scores = (pd.DataFrame([cell | row for row in part]) for part in (rows, scored))
    curves = curve_tables.lambda_curves(history, scores, 0.5).query("point == 'curve'")
    for _, curve in curves.groupby(["lam", "comparison"]):
        assert curve["step"].tolist() == [0, 2, 4]
        assert curve["auc"].tolist() == [0.5, 0.6, 0.7]
    assert len(curves) == 2 * 2 * 3
