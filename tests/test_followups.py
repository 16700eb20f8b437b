"""The tables of the follow-up experiments, by hand."""

from __future__ import annotations

from itertools import product

import long_tables
import numpy as np
import pandas as pd
import pytest

from rdlib.evidence import followups, gallery
from rdlib.evidence.followups import BASE, DISTILLATION, OURS, WARM_UP, share
from rdlib.evidence.gallery import EXHIBITS
from rdlib.evidence.result_tables import open_results

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


def test_an_interval_is_over_questions_and_a_difference_has_the_least_and_the_most_of_its_seeds():
    one = rows("t", seeds=(0,), n=100, kept=0.3)
    found = [share(table).interval() for table in (one, pd.concat([one, one.assign(seed=1)]))]
    assert (found[0].low, found[0].high) == (found[1].low, found[1].high) and found[0].low < 0.3 < found[0].high
    frames = [rows("t", seeds=(seed,), n=100, start=0.3, end=0.3 + gain) for seed, gain in enumerate((0.3, -0.02))]
    gain = {"mean": "agrees", "moment": "end", "minus": {"moment": "start"}}
    (row,) = followups.arms(pd.concat(frames), columns={"gain": gain}).to_dict("records")
    assert (row["gain_pp"], row["gain_least_pp"], row["gain_most_pp"]) == pytest.approx((14, -2, 30))
    assert row["gain_low_pp"] < 14 < row["gain_high_pp"]


def ppo_answers(gains: dict[str, float]) -> pd.DataFrame:
    """Every arm starts at 0.5 and ends at 0.4, and by so much above as the parts of its name gain."""
    ends = {arm: 0.4 + sum(gains.get(part, 0.0) for part in arm.split(" | ")) for arm in PPO_ARMS}
    return pd.concat(
        [rows(arm, start=0.5, end=end, kept=max(0.5, end)) for arm, end in ends.items()], ignore_index=True
    )


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


def cured(trial, cell, right, auc, kept, n=40) -> pd.DataFrame:
    """Rows of an arm of the experiment `ranking`, as its seed's file of answers has them."""
    good = [0.25, right, auc]
    parts = [
        rows(trial, cell, (100,), n, x=1.0).query("id != 'failed'").assign(correct=value, moment=moment, n=of)
        for value, moment, of in zip(good, ("reward", "reward", "auc"), (1, 30, 30), strict=True)
    ]
    answered = rows(trial, cell, (100,), n, kept=kept, warm_up=0.5).assign(split="validation")
    return pd.concat([pd.concat(parts).assign(split="best of n"), answered], ignore_index=True)


def test_cures_of_the_ranking_are_shown_when_their_rows_are_there(tmp_path):
    """Each text once ranks better by 0.1, chooses better by 10 points, and has PPO answer 10 % more of 40 questions."""
    arms = [cured(BASE, GSM, 0.3, 0.6, 0.5), cured("each text once", GSM, 0.4, 0.7, 0.6)]
    answers = pd.concat([*arms, cured("pairs alone", MMLU, 0.3, 0.6, 0.5)]).assign(question="followups:ranking")
    long_tables.write(tmp_path / "seed100", 100, answers=answers.drop(columns="seed"))
    (tmp_path / "seed100/settings.json").write_text("{}")
    evidence = open_results(tmp_path)
    assert not EXHIBITS["open_cures"].why_left_out(evidence)
    table = EXHIBITS["open_cures"].rows(evidence).set_index(["cell", "trial"])
    cure = table.loc[GSM, "each text once"]
    assert cure["n"] == 30 and cure["auc_within"] == pytest.approx(0.7)
    assert cure.filter(regex="^auc_within_minus_study").tolist() == pytest.approx([0.1] * 5)
    assert cure[["best_of_n_minus_one_pp", "best_of_n_minus_study_pp"]].tolist() == pytest.approx([15, 10])
    gained = cure[[f"kept_minus_{other}_{end}pp" for other in ("study", "warm_up") for end in ("", "low_", "least_")]]
    assert gained["kept_minus_study_pp"] == gained["kept_minus_warm_up_pp"] == pytest.approx(100 * 4 / 41)
    assert 0 < gained["kept_minus_study_low_pp"] < gained["kept_minus_study_least_pp"]
    alone = table.loc[MMLU, "pairs alone"]  # of a study without the arm that it is compared with
    assert alone.filter(like="minus_study").isna().all() and alone["kept_minus_warm_up_pp"] == 0
    figure = EXHIBITS["figure_open_cures"]
    paths = gallery.draw(figure, evidence, tmp_path, figure.rows(evidence))
    assert {path.suffix for path in paths} == {".csv", ".pdf", ".png"}
