"""The tables of the follow-up experiments, by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from rdlib.evidence import diagnostics, followups
from rdlib.evidence.followups import BASE, DISTILLATION, OURS, WARM_UP, change, share

GSM, MMLU = "gsm/strong/small", "mmlu/strong/small"
PPO_ARMS = [" | ".join(parts) for parts in product(*followups.PPO_FACTORS.values())]


def rows(trial, cell=MMLU, seeds=(100, 101), n=40, **moments) -> pd.DataFrame:
    """Answers of which the first `share` of the questions agree and are correct at each moment; one is of Q_fail."""
    parts = []
    for seed, (when, right) in product(seeds, moments.items()):
        good = (np.arange(n) < round(right * n)).astype(float)
        part = pd.DataFrame({"id": [f"q{i:03}" for i in range(n)], "agrees": good, "correct": good})
        failed = pd.DataFrame({"id": ["failed"], "agrees": [np.nan], "correct": [0.0]})
        part = pd.concat([part, failed], ignore_index=True)
        parts.append(part.assign(arm=trial, cell=cell, seed=seed, moment=when.replace("_", "-")))
    return pd.concat(parts, ignore_index=True)


def test_an_interval_is_over_questions_whatever_the_number_of_seeds():
    one = rows("t", seeds=(0,), n=100, kept=0.3)
    found = [share(table).interval() for table in (one, pd.concat([one, one.assign(seed=1)]))]
    assert (found[0].low, found[0].high) == (found[1].low, found[1].high) and found[0].low < 0.3 < found[0].high


def test_a_difference_has_the_least_and_the_most_of_its_seeds():
    frames = [rows("t", seeds=(seed,), n=100, start=0.3, end=0.3 + gain) for seed, gain in enumerate((0.3, -0.02))]
    row = change(pd.concat(frames), "start", "end").points("gain")
    assert (row["gain_pp"], row["gain_least_pp"], row["gain_most_pp"]) == pytest.approx((14, -2, 30))
    assert row["gain_low_pp"] < 14 < row["gain_high_pp"]


def ppo_answers(gains: dict[str, float]) -> pd.DataFrame:
    """Every arm starts at 0.5 and ends at 0.4, and by so much above as the parts of its name gain."""
    ends = {arm: 0.4 + sum(gains.get(part, 0.0) for part in arm.split(" | ")) for arm in PPO_ARMS}
    return pd.concat(
        [rows(arm, start=0.5, end=end, kept=max(0.5, end)) for arm, end in ends.items()], ignore_index=True
    )


def ppo_curves() -> pd.DataFrame:
    run = pd.DataFrame({"update": range(8), "reward": [np.nan, 0, 1, 2, 5, 6, 7, 8]})
    parts = [run.assign(arm=arm, seed=seed) for arm, seed in product(PPO_ARMS, (100, 101))]
    table = pd.concat(parts, ignore_index=True).assign(cell=MMLU)
    return table.assign(validation_agreement=0.5 - 0.01 * table["update"])


def test_ppo_by_hand():
    table = followups.ppo_table(ppo_answers({"vote": 0.2, "without Q_fail": 0.1}), ppo_curves())
    assert len(table) == 8 and (table["seeds"] == 2).all() and (table["start_pct"] == 50).all()
    worst, best = (table.sort_values("end_minus_start_pp").iloc[i] for i in (0, -1))
    assert (worst["reward"], worst["questions"], best["reward"]) == ("reward model", "all questions", "vote")
    assert (worst["end_minus_start_pp"], best["end_minus_start_pp"]) == pytest.approx((-10, 20))
    assert (worst["kept_minus_start_pp"], best["kept_minus_start_pp"]) == pytest.approx((0, 20))
    assert (worst["reward_first"], worst["reward_last"]) == (1.0, 7.0)
    curves = followups.ppo_curves(ppo_curves())
    assert list(curves)[:4] == ["cell", *followups.PPO_FACTORS] and curves["agreement_pct"].max() == 50


def sft_answers(cells=(GSM, "gsm/weak/small")):
    """On gsm all answer half of the questions; on gsm_plus the rate adds 20 points, and with it the texts 10 more."""
    shares = {"all texts | rate of SFT": 0.2, "agreeing texts | rate of SFT": 0.2}
    shares |= {"all texts | rate of the warm-up": 0.4, "agreeing texts | rate of the warm-up": 0.5}
    tested, answers = [], []
    for cell, (arm, right) in product(cells, shares.items()):
        answers.append(rows(arm, cell, kept=0.5))
        for benchmark, value in (("gsm", 0.5), ("gsm_plus", right)):
            part = rows(arm, cell, kept=value)
            tested.append(part[part["id"] != "failed"].assign(benchmark=benchmark))
    return pd.concat(tested, ignore_index=True), pd.concat(answers, ignore_index=True)


def test_what_each_factor_adds_by_hand():
    answers, (tested, _) = ppo_answers({"vote": 0.2, "without Q_fail": 0.1}), sft_answers()
    alone = (answers["arm"] == "reward model | without Q_fail | long warm-up") & (answers["moment"] == "end")
    answers.loc[alone, "agrees"] = answers.loc[alone, "agrees"].where(answers["id"] == "failed", 0.7)
    table = followups.effects_table(answers, tested).set_index(["of", "benchmark", "factor"])
    ppo = table.loc["PPO", ""]
    assert ppo["effect_pp"].to_dict() == pytest.approx(
        {"reward": 20 - 20 / 4, "questions": 10 + 20 / 4, "warm_up": 20 / 4}
        | {"questions, reward: reward model": 20, "questions, reward: vote": 10}
    )
    assert ppo["pairs"].tolist() == [4, 4, 4, 2, 2] and ppo["effect_low_pp"]["questions"] > 0
    sft = table.loc["SFT"]
    assert sft.loc["gsm", "effect_pp"].to_dict() == pytest.approx({"both": 0, "texts": 0, "rate": 0})
    assert sft.loc["gsm_plus", "effect_pp"].to_dict() == pytest.approx({"both": 30, "texts": 5, "rate": 25})
    assert sft.loc["gsm_plus", "pairs"].to_dict() == {"both": 2, "texts": 4, "rate": 4}


def test_texts_and_rates_of_sft_by_hand():
    table = followups.sft_table(*sft_answers())
    assert len(table) == 8 and (table["agreement_pct"] == 50).all() and (table["gsm_pct"] == 50).all()
    found = table.set_index(["cell", "texts", "rate"])["gsm_plus_pct"]
    assert found[GSM, "agreeing texts", "rate of the warm-up"] == pytest.approx(50)
    assert table["gsm_plus_low_pct"].lt(table["gsm_plus_pct"]).all()


def ranking(arm, right, one=0.5, n=40) -> pd.DataFrame:
    parts = []
    for seed, (count, value) in product((100, 101), ((1, one), (30, right))):
        chosen = (np.arange(n) < round(value * n)).astype(float)
        part = pd.DataFrame({"id": [f"q{i:03}" for i in range(n)], "correct": chosen, "n": count, "seed": seed})
        parts += [part.assign(moment=strategy) for strategy in ("reward", "majority")]
        parts.append(part.assign(moment="distinct", correct=(np.arange(n) < round(0.1 * n)).astype(float)))
        parts.append(part.assign(moment="auc", correct=0.75, n=30))
    return pd.concat(parts, ignore_index=True).assign(arm=arm, cell=GSM)


def responses(arm, own=0.5, best=0.5, n=30) -> pd.DataFrame:
    """Responses whose Pos/Pos AUCs by score and by ratio are `own` and `best`."""
    parts = []
    for seed, (kind, high) in product((100, 101), (("teacher", (own, best)), ("student", (0.0, 0.0)))):
        scores = [np.where(np.arange(n) < round((2 * value - 1) * n), 1.0, 0.0) for value in high]
        part = pd.DataFrame({"id": [f"q{i:03}" for i in range(n)], "score": scores[0], "ratio": scores[1]})
        parts.append(part.assign(kind=f"{kind}_positive", named=4, recalled=4 if kind == "teacher" else 3, seed=seed))
    negative = parts[1].assign(kind="student_negative", score=-1.0)
    return pd.concat([*parts, negative, negative.assign(seed=101)], ignore_index=True).assign(arm=arm, cell=GSM)


def test_the_reward_model_by_hand():
    larger = "larger reward model"
    ranked = pd.concat([ranking(BASE, 0.3), ranking(larger, 0.8)], ignore_index=True)
    seen = pd.concat([responses(BASE), responses(larger)], ignore_index=True)
    kept = {BASE: 0.5, larger: 0.75}
    answers = pd.concat([rows(name, GSM, warm_up=0.4, kept=value) for name, value in kept.items()])
    table = followups.reward_table(ranked, seen, answers).set_index("trial")
    usual, other = table.loc[BASE], table.loc[larger]
    assert (usual["n"], usual["one_pct"], usual["best_of_n_pct"], usual["any_text_pct"]) == (30, 50, 30, 10)
    assert (usual["best_of_n_minus_one_pp"], other["best_of_n_minus_one_pp"]) == pytest.approx((-20, 30))
    assert usual["best_of_n_minus_any_text_pp"] == pytest.approx(20)
    assert (usual["pos_neg_auc"], usual["auc_within_a_question"]) == (1, 0.75)
    assert (usual["ppo_gain_pp"], usual["kept_minus_study_pp"]) == (pytest.approx(10), 0)
    assert other["kept_minus_study_pp"] == pytest.approx(25)
    points = followups.ranking_points(ranked).set_index(["trial", "strategy", "n"])["right_pct"]
    assert points[larger, "reward", 30] == 80 and len(points) == 12


def test_the_teachers_style_by_hand():
    seen = pd.concat([responses(BASE, 0.5, 0.9), responses("few", 0.8, 0.9), responses("no warm-up", 0.9, 1.0)])
    answers = pd.concat([rows(BASE, GSM, warm_up=0.6), rows("few", GSM, warm_up=0.3)])
    table = followups.style_table(seen, answers).set_index("trial")
    assert table["pos_pos_auc"].tolist() == pytest.approx([0.5, 0.8, 0.9])
    assert table["best_judge_auc"].tolist() == pytest.approx([0.9, 0.9, 1.0])
    assert table["warm_up_pct"]["few"] == 30 and np.isnan(table["warm_up_pct"]["no warm-up"])
    assert (table["recalled_teacher_pct"] == 100).all() and (table["recalled_student_pct"] == 75).all()
    judges = followups.judges(seen, answers).set_index(["trial", "judge"])["auc"]
    assert judges["few", "reward model"] == pytest.approx(0.8) and len(judges) == 6


def test_distillation_by_hand():
    shares = {(GSM, OURS): 0.5, (GSM, DISTILLATION): 0.8, (MMLU, OURS): 0.5, (MMLU, DISTILLATION): 0.5}
    hot = {(GSM, f"{OURS} | heat 4"): 0.5, (GSM, f"{DISTILLATION} | heat 4"): 0.2}

    def answers(of):
        return pd.concat([rows(name, cell, kept=right, warm_up=0.4) for (cell, name), right in of.items()])

    def costs(of):
        names = [
            {"cell": cell, "arm": name, "seed": seed, "moment": when, "tokens_generated": 1000, "gflop": gflop}
            for (cell, name), seed in product(of, (100, 101))
            for when, gflop in (("kept", 30.0 if OURS in name else 10.0), ("warm-up", 5.0))
        ]
        return pd.DataFrame(names)

    read = answers(shares), answers(hot), costs(shares), costs(hot)
    table = followups.distillation_table(*read)
    assert table["method"].tolist()[:3] == [WARM_UP, OURS, DISTILLATION]
    found = table.set_index(["cell", "heat", "method"])
    other = found.loc[GSM, 1.0, DISTILLATION]
    assert other["ours_minus_it_pp"] == pytest.approx(-100 * 12 / 41) and other["ours_minus_it_high_pp"] < 0
    gflop = found["gflop"]
    assert (gflop[GSM, 1.0, DISTILLATION], gflop[GSM, 1.0, OURS], gflop[GSM, 4.0, WARM_UP]) == (10, 30, 5)
    assert found["right_pct"][GSM, 1.0, WARM_UP] == pytest.approx(100 * 16 / 41)  # that of Q_fail is wrong
    panels = followups.distillation_panels(*read)["panel"]
    assert set(panels) == {GSM, MMLU, f"{GSM}, heat 4"}


def test_the_auc_of_a_questions_own_samples_by_hand():
    """Over all responses the AUC is 3/4 here, but within either question it is 1/2 or 0."""
    table = pd.DataFrame({"id": list("aaab"), "score": [2.0, 1.0, 3.0, 0.0], "correct": [True, False, False, False]})
    assert diagnostics.auc_by_question(table).values.tolist() == [["a", 0.5]]
    assert diagnostics.auc_by_question(table.assign(correct=[False, True, False, True])).values.tolist() == [["a", 0.0]]
