"""Verdicts follow the data: made-up results for which each verdict is known."""

from __future__ import annotations

import subprocess
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY

from rdlib.errors import UserError
from rdlib.evidence import claims, criteria, stats
from rdlib.evidence.stats import NOTHING, Interval
from rdlib.evidence.verdicts import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDER_POWERED,
    Cell,
    Claim,
    judge,
    judge_by_signs,
    left_open,
)
from scripts import earlier_verdicts

N = 400
RULES = criteria.load_criteria()


def answers(benchmark, teacher, student, method, right, variant="", seed=0):
    """N answers, the first `right` correct."""
    names = {"benchmark": benchmark, "teacher": teacher, "student": student, "method": method, "variant": variant}
    ids = [f"{benchmark}-{i}" for i in range(N)]
    return pd.DataFrame({**names, "seed": seed, "id": ids, "group": "", "correct": np.arange(N) < right})


def study(**right):
    """Both teachers, both students, both benchmarks; the number of right answers of each method."""
    return pd.concat(
        answers(benchmark, teacher, "" if method == "teacher" else student, method, count)
        for benchmark, teacher, student in product(("gsm", "mmlu"), ("strong", "weak"), ("small", "large"))
        for method, count in right.items()
        if method != "teacher" or student == "small"
    )


def with_cell(correct, right, benchmark="mmlu"):
    """The same, but Ours of the weak teacher's large student gives these right answers."""
    cell = (correct.benchmark == benchmark) & (correct.teacher == "weak") & (correct.student == "large")
    correct.loc[cell & (correct.method == "ours"), "correct"] = right
    return correct


@pytest.mark.parametrize(
    ("ours", "verdict"), [(240, SUPPORTED), (200, INCONCLUSIVE), (201, INCONCLUSIVE), (160, NOT_SUPPORTED)]
)
def test_c1_follows_the_difference(ours, verdict):
    claim = claims.better_than("C1", RULES["C1"], study(sft=200, ours=ours))
    assert claim.verdict == verdict
    assert len(claim.cells) == 8
    assert claim.pooled.estimate == pytest.approx(100 * (ours - 200) / N)


def test_one_cell_against_makes_a_good_mean_inconclusive():
    correct = with_cell(study(sft=200, ours=260), np.arange(N) < 190)
    claim = claims.better_than("C1", RULES["C1"], correct)
    assert claim.verdict == INCONCLUSIVE and claim.pooled.low > 0
    assert [c.name for c in claim.cells if not c.holds] == ["mmlu/weak/large"]


def test_most_cells_against_refute_whatever_the_mean():
    cells = [Cell(str(i), Interval(-1, -2, -0.5, N)) for i in range(3)]
    cells += [Cell(str(i), Interval(9, 8, 10, N)) for i in range(2)]
    assert judge(cells, Interval(3, 2, 4, N)) == NOT_SUPPORTED
    assert judge(cells[1:], Interval(4, 3, 5, N)) == INCONCLUSIVE
    assert judge(cells[3:], Interval(9, 8, 10, N)) == SUPPORTED
    assert judge([], NOTHING) == INCONCLUSIVE


def claim_of(cells, pooled, rule=RULES["C1"]):
    """A claim by the common criterion; cells and mean are (estimate, half-width) in pp."""
    cells = [Cell(f"cell {i}", Interval(e, e - half, e + half, N)) for i, (e, half) in enumerate(cells)]
    mean = Interval(pooled[0], pooled[0] - pooled[1], pooled[0] + pooled[1], N)
    return Claim("C1", rule, judge(cells, mean), cells, mean, left_open=left_open(cells, mean, rule.smallest))


@pytest.mark.parametrize(
    ("cells", "pooled", "verdict", "what"),
    [
        ([(1, 3), (2, 3)], (1.5, 0.6), SUPPORTED, None),  # wide, but decided
        ([(-1, 3), (-2, 3)], (-1.5, 0.6), NOT_SUPPORTED, None),
        # the mean covers 0: it decides, by the mean's 0.7 pp (0.4897)
        ([(1, 3), (-1, 3)], (0.1, 0.50), UNDER_POWERED, "the mean"),
        ([(1, 3), (-1, 3)], (0.1, 0.48), INCONCLUSIVE, None),
        # of one cell alone, by the cell's 1.5 pp (1.0494)
        ([(0.1, 1.06)], (0.1, 1.06), UNDER_POWERED, "the difference"),
        ([(0.1, 1.04)], (0.1, 1.04), INCONCLUSIVE, None),
        # the mean is told from 0, a cell goes against it: its interval decides, not the mean's
        ([(9, 1), (-0.5, 1.06), (-0.1, 2)], (2, 1.5), UNDER_POWERED, "cell 2"),
        ([(9, 1), (-0.5, 1.04)], (2, 1.5), INCONCLUSIVE, None),
        # a cell is told to be against it: more data would not change that
        ([(9, 1), (-5, 4), (-0.1, 3), (4, 1)], (2, 1.5), INCONCLUSIVE, None),
        ([(9, 1), (0, 0)], (2, 1.5), INCONCLUSIVE, None),
    ],
)
def test_an_open_claim_is_under_powered_where_the_interval_behind_it_is_too_wide(cells, pooled, verdict, what):
    claim = claim_of(cells, pooled)
    assert claim.verdict == verdict
    assert (claim.too_wide and claim.too_wide.what) == what
    table = claims.claims_table([claim]).iloc[0]
    assert np.isnan(table.half_width) == np.isnan(table.needed_half_width) == (what is None)
    if what is not None:
        assert table.wide == what and table.half_width > table.needed_half_width and table.verdict == UNDER_POWERED
        assert f"± {table.half_width:.3g} pp" in claim.note and f"needs ± {table.needed_half_width:.3g}" in claim.note


def test_c4_is_under_powered_by_a_cell_that_reaches_above_zero_with_bonferronis_interval():
    correct = with_cell(study(teacher=300, ours=200), np.roll(np.arange(N) < 301, 40), "gsm")
    claim = claims.better_somewhere("C4", RULES["C4"], correct)
    assert claim.verdict == UNDER_POWERED and claim.too_wide.what == "gsm/weak/large"
    # eight cells: the normal quantile of 1 - 0.05 / 16 is 2.7344
    assert claim.too_wide.needed == pytest.approx(1.5 * 2.7344 / (2.7344 + 0.8416), rel=1e-4)
    assert claim.note.endswith("the pooled columns show the best cell")


def test_verdicts_of_earlier_releases_are_shown_beside_the_new_ones():
    claim = claim_of([(1, 3), (2, 3)], (1.5, 0.6))
    assert claim.earlier["0.1.0"] == INCONCLUSIVE
    assert claims.claims_table([claim])["verdict_0.1.0"].tolist() == [INCONCLUSIVE]
    unknown = Claim("C99", RULES["C1"], SUPPORTED, [], NOTHING)
    assert unknown.earlier["0.1.0"] == ""


def test_kept_verdicts_are_what_git_has_of_their_release():
    kept = pd.read_csv(REPOSITORY / "rdlib/evidence/earlier_verdicts.csv", dtype=str, keep_default_na=False)
    for (release, commit), rows in kept.groupby(["release", "commit"]):
        known = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=REPOSITORY, capture_output=True)
        if known.returncode:
            pytest.skip("this copy of the repository has no history (an archive or a shallow clone)")
        made = earlier_verdicts.verdicts(release, commit)
        assert made.to_dict("records") == rows.to_dict("records")


def test_the_papers_own_numbers_contradict_c2_and_c3_on_gsm_plus():
    correct = study(sft=200, ours_wo_r=200, ours_wo_d=200, ours=220)
    correct = pd.concat([correct, correct[correct.benchmark == "gsm"].replace({"benchmark": {"gsm": "gsm_plus"}})])
    table = claims.claims_table([claims.better_than(name, RULES[name], correct) for name in ("C1", "C2", "C3")])
    assert list(table.paper_verdict) == [SUPPORTED, INCONCLUSIVE, INCONCLUSIVE]
    assert list(table.paper_cells) == [12, 12, 12] and list(table.paper_cells_holding) == [12, 11, 10]
    against = ["", "gsm_plus/weak/small", "gsm_plus/strong/small; gsm_plus/strong/large"]
    assert list(table.paper_cells_against) == against


def test_c4_needs_one_student_clearly_above_its_teacher():
    correct = study(teacher=300, ours=200)
    assert claims.better_somewhere("C4", RULES["C4"], correct).verdict == NOT_SUPPORTED
    correct = with_cell(correct, np.arange(N) < 301, "gsm")
    assert claims.better_somewhere("C4", RULES["C4"], correct).verdict == INCONCLUSIVE
    claim = claims.better_somewhere("C4", RULES["C4"], with_cell(correct, np.arange(N) < 340, "gsm"))
    assert claim.verdict == SUPPORTED and claim.pooled.estimate == pytest.approx(10)
    assert sum(cell.paper > 0 for cell in claim.cells) == 2  # the paper's blue cells


def votes(failed, wrong):
    names = "dataset teacher seed split questions failed labelled label_correct responses judged_right"
    cells = enumerate(product(("gsm", "mmlu"), ("strong", "weak")))
    rows = [[*c, 0, "train", 500, failed[i], 500 - failed[i], 500 - failed[i] - wrong[i], 10, 9] for i, c in cells]
    return pd.DataFrame(rows, columns=names.split())


@pytest.mark.parametrize(
    ("failed", "wrong", "verdict"),
    [
        ([10, 60, 120, 230], [10, 50, 70, 120], SUPPORTED),
        ([230, 120, 60, 10], [120, 70, 50, 10], NOT_SUPPORTED),
        ([60, 10, 120, 230], [10, 50, 70, 120], INCONCLUSIVE),
    ],
)
def test_c5_follows_the_counts(failed, wrong, verdict):
    assert claims.worse_judges("C5", RULES["C5"], votes(failed, wrong)).verdict == verdict


@pytest.mark.parametrize(("name", "variant"), [("C6", "reward_model.source=teacher"), ("C9", "reward.mismatch=minus")])
@pytest.mark.parametrize(("other", "verdict"), [(180, SUPPORTED), (219, INCONCLUSIVE), (260, NOT_SUPPORTED)])
def test_c6_and_c9_follow_the_variant(name, variant, other, verdict):
    correct = pd.concat([study(ours=220), answers("gsm", "strong", "small", "ours", other, variant)])
    claim = claims.better_than(name, RULES[name], correct)
    assert claim.verdict == verdict and len(claim.cells) == 1
    assert claim.cells[0].paper == (pytest.approx(1.21) if name == "C6" else None)


OURS = {"dataset": "gsm", "teacher": "strong", "student": "small", "method": "ours"}


def history(curves, seed=0):
    parts = []
    for lam, curve in curves.items():
        aucs = [0.5, *curve]  # of the untrained model first
        rows = {"step": range(len(aucs)), "pos_neg_auc": aucs, "pos_pos_auc": 0.5, "seed": seed}
        parts.append(pd.DataFrame(OURS | {"variant": "" if lam == 0.5 else f"reward_model.lam={lam}"} | rows))
    return pd.concat(parts, ignore_index=True)


def test_c7_follows_the_curves_and_one_seed_needs_the_margin():
    assert claims.instability(pd.Series([0.5, 0.7, 0.6])) == pytest.approx((0.2 + 0.1) / 2 + 0.1)
    assert np.isnan(claims.instability(pd.Series([0.5])))
    calm, wild, near = [0.6, 0.62, 0.63], [0.6, 0.75, 0.55], [0.6, 0.63, 0.63]
    assert claims.stability("C7", RULES["C7"], history({0.0: wild, 0.5: calm, 1.0: wild}), 0.5).verdict == SUPPORTED
    assert claims.stability("C7", RULES["C7"], history({0.0: calm, 0.5: wild, 1.0: calm}), 0.5).verdict == NOT_SUPPORTED
    claim = claims.stability("C7", RULES["C7"], history({0.0: near, 0.5: calm, 1.0: near}), 0.5)
    assert claim.verdict == UNDER_POWERED  # with one seed the interval is the margin itself
    assert claim.note.startswith(
        "the interval of the mean is ± 0.01 AUC, where 80 % power to tell 0.01 AUC from 0 needs"
    )


def test_c7_uses_seeds_where_there_are_several():
    runs = pd.concat([history({0.0: [0.6, 0.7 + 0.01 * s, 0.6], 0.5: [0.6, 0.62, 0.63]}, seed=s) for s in range(4)])
    claim = claims.stability("C7", RULES["C7"], runs, 0.5)
    assert claim.verdict == SUPPORTED and claim.pooled.n == 4


def ratio_scores(pos_neg, pos_pos):
    """Scores for three shares with the given shifts of student and teacher positives."""
    rng, parts = np.random.default_rng(3), []
    noise = {kind: rng.normal(size=300) for kind in ("student_negative", "student_positive", "teacher_positive")}
    variants = ("reward_model.teacher_share=0.2", "", "reward_model.teacher_share=0.8")
    for variant, up, more in zip(variants, pos_neg, pos_pos, strict=True):
        for (kind, values), shift in zip(noise.items(), (0, up, up + more), strict=True):
            rows = {"variant": variant, "seed": 0, "id": range(300), "kind": kind, "score": values + shift}
            parts.append(pd.DataFrame(OURS | rows))
    return pd.concat(parts)


@pytest.mark.parametrize(
    ("pos_neg", "pos_pos", "verdict"),
    [
        ((1, 1, 1), (0, 1, 2), SUPPORTED),
        ((0, 1, 2), (1, 1, 1), NOT_SUPPORTED),
        ((0.4, 1, 1.6), (0, 1.5, 3), NOT_SUPPORTED),  # Pos/Pos moves more, but Pos/Neg moves a lot too
        ((1, 1, 1), (1, 1, 1.3), INCONCLUSIVE),  # a spread of 0.06 is neither small nor large
        ((1, 1, 1), (1, 1, 1.02), NOT_SUPPORTED),  # Pos/Pos hardly moves
    ],
)
def test_c8_compares_the_spreads(pos_neg, pos_pos, verdict):
    assert claims.spread("C8", RULES["C8"], ratio_scores(pos_neg, pos_pos), 0.5).verdict == verdict


def test_cells_are_adjusted_for_their_number():
    """Eight cells of 400 questions: one clearly better (30 of 400), seven equal."""
    correct = with_cell(study(sft=200, ours=200), np.arange(N) < 230)
    claim = claims.better_than("C1", RULES["C1"], correct)
    table = claims.cells_table([claim]).set_index("cell")
    row = table.loc["mmlu/weak/large"]
    least = 2 / (stats.RESAMPLES + 1)
    assert row.p_value == pytest.approx(least) and row.p_holm == pytest.approx(8 * least)
    assert row.effect_h == pytest.approx(2 * np.arcsin(np.sqrt(0.575)) - 2 * np.arcsin(np.sqrt(0.5)))
    assert (table.drop("mmlu/weak/large").p_holm == 1).all()
    assert claims.claims_table([claim]).cells_above_zero_holm.tolist() == [1]


def test_pairs_of_policies_that_are_the_same_are_counted():
    """Eight cells of one seed: Ours is the other policy in all but one."""
    correct = with_cell(study(ours_wo_r=200, ours=200), np.arange(N) < 230)
    claim = claims.better_than("C2", RULES["C2"], correct)
    row = claims.claims_table([claim]).iloc[0]
    cells = len(claim.cells)
    assert (row.pairs, row.pairs_alike) == (cells, cells - 1)
    assert f"in {cells - 1} of {cells} pairs both policies answer every question alike" in row.note
    assert (row.level_pct, row.interval_over) == (95.0, "questions")


def test_a_figure_of_cells_ends_with_their_mean():
    correct = study(sft=200, ours=220, teacher=300)
    better, best = claims.better_than("C1", RULES["C1"], correct), claims.better_somewhere("C4", RULES["C4"], correct)
    table = claims.cells_and_means([better, best])
    last = table[table.claim == "C1"].iloc[-1]
    assert last.cell == "mean of the cells" and last.study_difference == better.pooled.estimate
    assert last.paper_difference == pytest.approx(np.mean([cell.paper for cell in better.cells]))
    assert "mean of the cells" not in table[table.claim == "C4"].cell.tolist()  # judged by its best cell
    assert set(table[table.claim == "C4"].level_pct) == {round(100 - 5 / len(best.cells), 1)}


@pytest.mark.parametrize(
    ("values", "kind", "verdict"),
    [
        ([1, 2], "every_cell", SUPPORTED),
        ([1, -2, 3], "every_cell", INCONCLUSIVE),
        ([-1, -1, 9], "every_cell", NOT_SUPPORTED),
        ([1, -2], "every_cell", NOT_SUPPORTED),
        ([-9, -9, 1], "some_cell", SUPPORTED),
        ([None], "every_cell", ""),
    ],
)
def test_the_papers_numbers_are_judged_by_their_signs(values, kind, verdict):
    assert judge_by_signs([Cell("", NOTHING, value) for value in values], kind) == verdict


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C1: [", "can't be read"),
        ("C1: {statement: a, kind: every_cell}\nsmallest: {cell: 1, mean: 1}", "C1.*other"),
        ("C1: {statement: a, kind: every_cell, other: sft}", "C1.*smallest"),
        ("C1: {statement: a, kind: every_cell, other: sft}\nsmallest: {cell: 0, mean: 1}", "smallest.cell"),
        ("smallest: 1\nC1: 2", "C1"),
        ("C1: {statement: a, kind: sometimes}", "C1"),
        ("C7: {statement: a, kind: stability, setting: reward_model.lam, margin: -1}", "C7.*margin"),
        ("C1: {statement: a, kind: every_cell, other: sft, extra: 1}\nsmallest: {cell: 1, mean: 1}", "extra"),
    ],
)
def test_a_bad_file_of_criteria_is_one_sentence(tmp_path, text, message):
    sentences = yaml.safe_load(criteria.CLAIMS_FILE.read_text())["sentences"]
    (tmp_path / "claims.yaml").write_text(f"{text}\nsentences: {sentences}" if text[0] == "C" else text)
    with pytest.raises(UserError, match=message):
        criteria.load_criteria(tmp_path / "claims.yaml")
    with pytest.raises(UserError, match="claims.yaml"):
        criteria.load_criteria(tmp_path / "absent/claims.yaml")


def test_all_nine_claims_have_a_criterion_and_missing_results_are_inconclusive():
    nothing = study(sft=200)
    results = SimpleNamespace(
        correctness=nothing,
        pseudo_labels=votes([1] * 4, [1] * 4)[:0],
        reward_scores=ratio_scores([1] * 3, [1] * 3)[:0],
        reward_model_history=history({0.5: []}),
        default=lambda key: 0.5,
    )
    judged = [claims.judged(name, criterion, results) for name, criterion in RULES.items()]
    table = claims.claims_table(judged)
    assert list(table.claim) == [f"C{i}" for i in range(1, 10)]
    assert set(table.verdict) == {INCONCLUSIVE} and set(table.note) == {"no results to judge it by"}
    assert table.criterion.str.len().gt(50).all() and claims.cells_table(judged).empty
