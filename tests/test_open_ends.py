"""The follow-up experiments: their tables and answers by hand, and their exhibits."""

from __future__ import annotations

from itertools import product

import long_tables
import numpy as np
import pandas as pd
import pytest
from test_tables_and_figures import invent

from rdlib.errors import UserError
from rdlib.evidence import diagnostics, gallery, looks, open_sft_tables, open_tables
from rdlib.evidence.open_exhibits import OPEN_ENDS
from rdlib.evidence.result_tables import FOLLOWUP_TABLES, open_results
from rdlib.study import figures

GSM, MMLU = "gsm/strong/small", "mmlu/strong/small"
PPO_TRIALS = [" | ".join(parts) for parts in product(*(factor[:2] for factor in open_tables.FACTORS.values()))]


# ---- tables by hand


def rows(trial, cell=MMLU, seeds=(100, 101), n=40, **moments) -> pd.DataFrame:
    """Answers of which the first `share` of the questions agree and are correct at each moment; one is of Q_fail."""
    parts = []
    for seed, (when, share) in product(seeds, moments.items()):
        good = (np.arange(n) < round(share * n)).astype(float)
        part = pd.DataFrame({"id": [f"q{i:03}" for i in range(n)], "agrees": good, "correct": good})
        failed = pd.DataFrame({"id": ["failed"], "agrees": [np.nan], "correct": [0.0]})
        part = pd.concat([part, failed], ignore_index=True)
        parts.append(part.assign(trial=trial, cell=cell, seed=seed, when=when.replace("_", "-")))
    return pd.concat(parts, ignore_index=True)


def ppo_answers(gains: dict[str, float]) -> pd.DataFrame:
    """Every trial starts at 0.5 and ends at 0.4, and by so much above as the parts of its name gain."""
    parts = []
    for trial in PPO_TRIALS:
        end = 0.4 + sum(gains.get(part, 0.0) for part in trial.split(" | "))
        parts.append(rows(trial, start=0.5, end=end, kept=max(0.5, end)))
    return pd.concat(parts, ignore_index=True)


def ppo_curves() -> pd.DataFrame:
    frames = [
        pd.DataFrame({"update": range(8), "reward": [np.nan, 0, 1, 2, 5, 6, 7, 8], "trial": trial, "seed": seed})
        for trial, seed in product(PPO_TRIALS, (100, 101))
    ]
    table = pd.concat(frames, ignore_index=True).assign(cell=MMLU, rm_score=0.0, kl=1.0, agreement=0.5)
    return table.assign(validation_agreement=0.5 - 0.01 * table["update"])


def test_a_difference_counts_where_its_interval_and_every_seed_have_one_sign():
    def sign(*changes):
        """Of 100 questions, by how much more agree in the end, seed by seed."""
        frames = [rows("t", seeds=(seed,), n=100, start=0.3, end=0.3 + gain) for seed, gain in enumerate(changes)]
        found = open_tables.change(pd.concat(frames), "start", "end")
        row = pd.DataFrame([open_tables.in_points("gain", found)])
        assert row["gain_pp"].item() == pytest.approx(100 * np.mean(changes))
        assert row["gain_least_pp"].item() == pytest.approx(100 * min(changes))
        return open_tables.told_apart(next(row.itertuples()), "gain")

    assert (sign(0.1, 0.2), sign(-0.1, -0.2), sign(0.0, 0.0)) == (1, -1, 0)
    assert sign(0.3, -0.02) == 0  # the interval lies above 0, one seed does not
    assert sign(0.01, 0.0) == sign(0.01, 0.01) == 0  # one question in a hundred


def test_an_interval_is_that_of_the_questions_whatever_the_number_of_seeds():
    one = rows("t", seeds=(0,), n=100, kept=0.3)
    found = (open_tables.level(table, "kept").interval() for table in (one, pd.concat([one, one.assign(seed=1)])))
    first, second = ((interval.estimate, interval.low, interval.high) for interval in found)
    assert first == second and first[1] < first[0] < first[2]


def test_ppos_table_and_the_effects_of_each_factor_by_hand():
    answers = ppo_answers({"vote": 0.2, "without Q_fail": 0.1})
    table = open_tables.ppo_table(answers, ppo_curves())
    assert len(table) == 8 and (table["seeds"] == 2).all() and table["start_pct"].tolist() == [50.0] * 8
    worst, best = (table.sort_values("end_minus_start_pp").iloc[i] for i in (0, -1))
    assert (worst.reward, worst.questions) == ("reward model", "all questions") and best.reward == "vote"
    assert worst.end_minus_start_pp == pytest.approx(-10) and best.end_minus_start_pp == pytest.approx(20)
    assert worst.kept_minus_start_pp == 0 and best.kept_minus_start_pp == pytest.approx(20)
    assert (worst.reward_first, worst.reward_last) == (1.0, 7.0)
    effects = open_tables.ppo_effects(answers).set_index("factor")
    assert effects["effect_pp"].to_dict() == pytest.approx({"reward": 20, "questions": 10, "warm_up": 0})
    assert (effects["pairs"] == 4).all() and effects["effect_low_pp"]["questions"] > 0
    answer = open_tables.ppo_answer(table, effects.reset_index(), open_tables.ppo_questions_by_reward(answers))
    assert "the agreement falls from the warm-up to the end of PPO (-10.0 [" in answer
    assert "from 1.00 to 7.00" in answer and "leaving the questions of Q_fail out +10.0 [" in answer
    assert answer.endswith(
        "better by the vote in place of the reward model and leaving the questions of Q_fail out; worse by none."
    )


def test_whether_the_questions_matter_only_to_the_reward_model_is_told():
    answers = ppo_answers({})
    spared = answers["trial"].str.startswith("reward model | without Q_fail") & (answers["when"] == "end")
    answers.loc[spared, "agrees"] = answers.loc[spared, "agrees"].where(answers["id"] == "failed", 1.0)
    by_reward = open_tables.ppo_questions_by_reward(answers).set_index("reward")["effect_pp"]
    assert by_reward.to_dict() == pytest.approx({"reward model": 60, "vote": 0})
    answer = open_tables.ppo_answer(
        open_tables.ppo_table(answers, ppo_curves()),
        open_tables.ppo_effects(answers),
        open_tables.ppo_questions_by_reward(answers),
    )
    assert "Leaving out the questions of Q_fail adds +60.0 [" in answer and "with the reward model and +0.0 [" in answer


def ranking(trial, right, one=0.5, cell=GSM, n=40) -> pd.DataFrame:
    parts = []
    for seed, (count, share) in product((100, 101), ((1, one), (30, right))):
        value = (np.arange(n) < round(share * n)).astype(float)
        part = pd.DataFrame({"id": [f"q{i:03}" for i in range(n)], "value": value, "n": count, "seed": seed})
        parts += [part.assign(strategy=strategy) for strategy in ("reward", "majority")]
        parts.append(part.assign(strategy="distinct", value=(np.arange(n) < round(0.1 * n)).astype(float)))
        parts.append(part.assign(strategy="auc", value=0.75, n=30))
    return pd.concat(parts, ignore_index=True).assign(trial=trial, cell=cell)


def responses(trial, cell=GSM, own=0.5, best=0.5, n=30) -> pd.DataFrame:
    """Responses whose Pos/Pos AUCs by score and by ratio are `own` and `best`."""
    parts = []
    for seed, (kind, high) in product((100, 101), (("teacher", (own, best)), ("student", (0.0, 0.0)))):
        scores = [np.where(np.arange(n) < round((2 * share - 1) * n), 1.0, 0.0) for share in high]
        part = pd.DataFrame({"id": [f"q{i:03}" for i in range(n)], "score": scores[0], "ratio": scores[1]})
        parts.append(part.assign(kind=f"{kind}_positive", named=4, recalled=4 if kind == "teacher" else 3, seed=seed))
    negative = parts[1].assign(kind="student_negative", score=-1.0)
    return pd.concat([*parts, negative, negative.assign(seed=101)], ignore_index=True).assign(trial=trial, cell=cell)


def reward_tables():
    usual, larger, unsure = open_tables.BASE, "larger reward model", "only where the vote is unsure"
    ranked = pd.concat([ranking(usual, 0.3), ranking(larger, 0.8), ranking(unsure, 0.3)], ignore_index=True)
    seen = pd.concat([responses(name) for name in (usual, larger, unsure)], ignore_index=True)
    moments = {usual: {"warm_up": 0.4, "kept": 0.5}, larger: {"warm_up": 0.4, "kept": 0.75}}
    moments[unsure] = {"warm_up": 0.4, "kept": 0.3}
    answers = pd.concat([rows(name, GSM, **shares) for name, shares in moments.items()], ignore_index=True)
    return ranked, seen, answers


def test_the_reward_models_table_and_answer_by_hand():
    table = open_tables.reward_table(*reward_tables()).set_index("trial")
    usual, larger = table.loc[open_tables.BASE], table.loc["larger reward model"]
    assert (usual.n, usual.one_pct, usual.best_of_n_pct) == (30, 50, 30)
    assert usual.best_of_n_minus_one_pp == pytest.approx(-20) and larger.best_of_n_minus_one_pp == pytest.approx(30)
    assert usual.pos_neg_auc == 1 and usual.auc_within_a_question == 0.75
    assert (usual.ppo_gain_pp, usual.kept_minus_study_pp) == (pytest.approx(10), 0)
    assert larger.kept_minus_study_pp == pytest.approx(25)
    assert open_tables.reward_answer(table.reset_index()) == (
        "Answer: on gsm/strong/small a single sample is right on 50 % of the questions, the one of 30 with the highest "
        "reward of the study's model on 30 %, and one of their distinct texts, which is what a reward that knows "
        "nothing comes to, on 10 %. Told to choose better than knowing nothing: “as in the study” and “larger reward "
        "model”; better than a single sample: “larger reward model”; worse than that: “as in the study”. After PPO "
        "more questions agree than in the study with “larger reward model”, fewer with “only where the vote is unsure”."
    )
    points = open_tables.ranking_points(reward_tables()[0]).set_index(["trial", "strategy", "n"])["right_pct"]
    assert points["larger reward model", "reward", 30] == 80 and len(points) == 18


def style_tables():
    usual, few, adapters = open_tables.BASE, "one text a question", "adapters of rank 2"
    seen = [responses(usual, own=0.5, best=0.9), responses(few, own=0.8, best=0.9), responses(adapters, own=0.75)]
    seen += [responses("no warm-up", own=0.9, best=1.0), responses("judged by the teacher", own=0.7, best=0.9)]
    shares = {usual: 0.6, few: 0.3, adapters: 0.6, "judged by the teacher": 0.6}
    answers = [rows(name, GSM, warm_up=share) for name, share in shares.items()]
    return pd.concat(seen, ignore_index=True), pd.concat(answers, ignore_index=True)


def test_the_styles_table_and_answer_by_hand():
    table = open_tables.style_table(*style_tables()).set_index("trial")
    assert table["pos_pos_auc"].tolist() == pytest.approx([0.5, 0.8, 0.75, 0.9, 0.7])
    assert table["best_judge_auc"].tolist() == pytest.approx([0.9, 0.9, 0.5, 1.0, 0.9])
    assert table["warm_up_pct"]["one text a question"] == 30 and np.isnan(table["warm_up_pct"]["no warm-up"])
    assert (table["recalled_teacher_pct"] == 100).all() and (table["recalled_student_pct"] == 75).all()
    answer = open_tables.style_answer(table.reset_index())
    assert "Pos/Pos is 0.50 and, for the best judge that there can be of these two models, 0.90" in answer
    assert "by “one text a question” (0.80), “adapters of rank 2” (0.75), “no warm-up” (0.90) and “judged by" in answer
    assert answer.endswith("within 2 points of its 60 %: “adapters of rank 2”.")


def distillation_tables():
    ours, other, best = open_tables.OURS, open_tables.DISTILLATION, "GRPO on the vote"
    shares = {(GSM, ours): 0.5, (GSM, other): 0.8, (GSM, best): 0.6, (MMLU, ours): 0.5, (MMLU, other): 0.5}
    shares |= {(GSM, f"{ours} | heat 4"): 0.5, (GSM, f"{other} | heat 4"): 0.2}
    answers = [rows(name, cell, kept=share, warm_up=0.4) for (cell, name), share in shares.items()]
    costs = [
        {"cell": cell, "trial": name, "seed": seed, "when": when, "tokens_generated": 1000, "gflop": gflop}
        for (cell, name), seed in product(shares, (100, 101))
        for when, gflop in (("kept", 30.0 if ours in name else 10.0), ("warm-up", 5.0))
    ]
    return pd.concat(answers, ignore_index=True), pd.DataFrame(costs)


def test_distillations_table_and_answer_by_hand():
    table = open_tables.distillation_table(*distillation_tables())
    assert table["method"].tolist()[:4] == ["Ours w/o R", "Ours", "on-policy distillation", "GRPO on the vote"]
    found = table.set_index(["cell", "heat", "method"])
    other = found.loc[GSM, 1.0, open_tables.DISTILLATION]
    assert other.ours_minus_it_pp == pytest.approx(-100 * 12 / 41) and other.ours_minus_it_high_pp < 0
    assert (other.gflop, found["gflop"][GSM, 1.0, "Ours"], found["gflop"][GSM, 4.0, "Ours w/o R"]) == (10, 30, 5)
    assert found["right_pct"][GSM, 1.0, "Ours w/o R"] == pytest.approx(100 * 16 / 41)  # that of Q_fail is wrong
    answer = open_tables.distillation_answer(table)
    assert "ahead of on-policy distillation on gsm/strong/small at heat 4 (+29.3 [" in answer
    assert "; behind on gsm/strong/small (-29.3 [" in answer and "not told apart on mmlu/strong/small (+0.0" in answer
    assert "Ours takes 3.0 to 3.0 times its operations" in answer
    assert answer.endswith("GRPO on the vote on gsm/strong/small (58.5 %) and Ours on mmlu/strong/small (48.8 %).")


def sft_tables(cells=(GSM, "gsm/weak/small")):
    """On gsm all answer half of the questions; on gsm_plus the rate adds 20 points, and with it the texts 10 more."""
    shares = {"all texts | rate of SFT": 0.2, "agreeing texts | rate of SFT": 0.2}
    shares |= {"all texts | rate of the warm-up": 0.4, "agreeing texts | rate of the warm-up": 0.5}
    tested, answers = [], []
    for cell, (trial, share) in product(cells, shares.items()):
        answers.append(rows(trial, cell, kept=0.5))
        for benchmark, right in (("gsm", 0.5), ("gsm_plus", share)):
            part = rows(trial, cell, kept=right)
            tested.append(part[part["id"] != "failed"].assign(benchmark=benchmark, correct=lambda t: t["correct"] > 0))
    columns = ["cell", "trial", "seed", "benchmark", "id", "correct"]
    return pd.concat(tested, ignore_index=True)[columns], pd.concat(answers, ignore_index=True)


def test_sfts_table_effects_and_answer_by_hand():
    tested, answers = sft_tables()
    table = open_sft_tables.sft_table(tested, answers)
    assert len(table) == 8 and (table["agreement_pct"] == 50).all() and (table["gsm_pct"] == 50).all()
    found = table.set_index(["cell", "texts", "rate"])
    assert found["gsm_plus_pct"][GSM, "agreeing texts", "rate of the warm-up"] == pytest.approx(50)
    assert found["gsm_plus_low_pct"].lt(found["gsm_plus_pct"]).all()
    effects = open_sft_tables.sft_effects(tested).set_index(["benchmark", "factor"])
    assert effects["effect_pp"].to_dict() == pytest.approx(
        {("gsm", "both"): 0, ("gsm", "texts"): 0, ("gsm", "rate"): 0}
        | {("gsm_plus", "both"): 30, ("gsm_plus", "texts"): 5, ("gsm_plus", "rate"): 25}
    )
    assert effects["pairs"].to_dict()["gsm_plus", "both"] == 2 and effects["pairs"].to_dict()["gsm", "rate"] == 4
    answer = open_sft_tables.sft_answer(effects.reset_index())
    assert answer.startswith("Answer: on gsm the warm-up minus SFT is +0.0 [0.0, 0.0] pp on the mean of the cells; ave")
    assert "on gsm_plus the warm-up minus SFT is +30.0 [" in answer
    assert "the texts that agree with the vote in place of all +5.0 [" in answer
    assert answer.endswith(
        "Better by the texts that agree with the vote in place of all and the warm-up's learning rate in place of "
        "SFT's; worse by none."
    )


def test_the_auc_of_a_questions_own_samples_by_hand():
    """Over all responses the AUC is 3/4 here, but within either question it is 1/2 or 0."""
    table = pd.DataFrame({"id": list("aaab"), "score": [2.0, 1.0, 3.0, 0.0], "correct": [True, False, False, False]})
    assert diagnostics.auc_by_question(table).values.tolist() == [["a", 0.5]]
    assert diagnostics.auc_by_question(table.assign(correct=[False, True, False, True])).values.tolist() == [["a", 0.0]]


# ---- the exhibits


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """Invented results, and beside them invented trials."""
    folder = tmp_path_factory.mktemp("released")
    invent(folder / "results")
    ranked, seen, answers = reward_tables()
    style = style_tables()
    distilled = distillation_tables()
    hot = [table["trial"].str.contains("heat") for table in distilled]
    tested = sft_tables()
    found = {
        "ppo_on_mmlu": {"answers.parquet": ppo_answers({"vote": 0.1}), "ppo.csv": ppo_curves()},
        "reward_model": {"ranking.parquet": ranked, "responses.parquet": seen, "answers.parquet": answers},
        "teacher_style": {"responses.parquet": style[0], "answers.parquet": style[1]},
        "distillation": {"answers.parquet": distilled[0][~hot[0]], "costs.csv": distilled[1][~hot[1]]},
        "hot_teacher": {"answers.parquet": distilled[0][hot[0]], "costs.csv": distilled[1][hot[1]]},
        "sft_rate": {"tested.parquet": tested[0], "answers.parquet": tested[1]},
    }
    rows: dict[str, list[pd.DataFrame]] = {}
    for group, tables in found.items():
        for name, table in tables.items():
            kind, values, columns = FOLLOWUP_TABLES[name]
            back = {new: old for old, new in columns.items()} | {"trial": "arm"}
            named = {"stage": "06_ppo"} | values | {"experiment": f"followups:{group}"}
            rows.setdefault(kind, []).append(table.rename(columns=back).assign(**named))
    for seed in (100, 101):
        own = {kind: pd.concat(parts).query(f"seed == {seed}") for kind, parts in rows.items()}
        long_tables.write(folder / f"results/seed{seed}", seed, **own)
    return open_results(folder / "results")


@pytest.mark.parametrize("exhibit", OPEN_ENDS, ids=lambda exhibit: exhibit.name)
def test_each_is_drawn_from_its_trials(evidence, exhibit, tmp_path):
    paths = gallery.draw(exhibit, evidence, tmp_path)
    assert {path.suffix[1:] for path in paths} == set(exhibit.endings) and all(path.stat().st_size for path in paths)
    if exhibit.draw is None:
        assert "Answer: " in (tmp_path / f"{exhibit.name}.md").read_text()
    assert all(f"params/followups.yaml:{name}" in figures.described(exhibit, evidence) for name in exhibit.trials)


def test_without_trials_there_is_no_exhibit_of_them(tmp_path):
    found = open_results(invent(tmp_path / "results"))
    assert not any(exhibit.is_shown(found) for exhibit in OPEN_ENDS)
    with pytest.raises(UserError, match="--experiments params/followups.yaml:ppo_on_mmlu"):
        gallery.draw(OPEN_ENDS[0], found, tmp_path)


def test_lines_of_the_figures_are_the_tables(evidence):
    exhibit = gallery.EXHIBITS["figure_open_ppo"]
    table = exhibit.table(evidence)
    axes = exhibit.draw(table).axes
    assert [len(ax.lines) for ax in axes] == [8, 8]  # two rewards, two sets of questions, two seeds
    assert set(axes[0].lines[0].get_ydata()) <= set(table["agreement_pct"])
    exhibit = gallery.EXHIBITS["figure_open_ranking"]
    table = exhibit.table(evidence)
    lines = {
        line.get_color(): list(line.get_ydata()) for line in exhibit.draw(table).axes[0].lines if len(line.get_ydata())
    }
    assert lines[looks.BLUE] == [50.0, 30.0] and lines[looks.TEAL] == [50.0, 80.0]
    looks.plt.close("all")


def test_seeds_that_contradict_an_interval_are_told():
    """Of the mean of two seeds the interval lies below 0, but one of them rises."""
    ends = {"": -1.6, "_low": -3.2, "_high": -0.03}
    row = pd.Series({f"change{end}_pp": value for end, value in (ends | {"_least": -3.4, "_most": 0.15}).items()})
    assert open_tables.in_words(row, "change") == "-1.6 [-3.2, -0.0] pp, but between seeds -3.4 to +0.1"
    row["change_most_pp"] = -0.1
    assert open_tables.in_words(row, "change") == "-1.6 [-3.2, -0.0] pp"
