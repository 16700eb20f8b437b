"""Outputs of finished stages as rows of the result tables (`rdlib.evidence.result_tables.COLUMNS`).

for stage, frame in answers(run, measures):   # a row a question that a run's model answered
history(stage)                                # a row a logged step of a training
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import curves as curve_tables
from rdlib.evidence import diagnostics, ledger
from rdlib.evidence.result_tables import AGREEMENT, MEASURES
from rdlib.study.experiments import Run, with_upstream
from rdlib.study.stage import Stage
from rdlib.tasks.answers import same
from rdlib.tasks.questions import as_gold, read_aliases, read_gold

# What a training's checkpoint is chosen by, by stage.
CHOSEN_BY = {
    "03_sft_warmup": "agreement",
    "05_reward_model": "pos_neg_auc",
    "06_ppo": "validation_agreement",
    "13_baseline": "agreement",
}
BEST_OF = [1, 2, 3, 5, 8, 12, 20, 30]
LAST = 3  # evaluations whose mean is the end of a run of PPO: one alone is noise
SAMPLING = ("01_teacher_responses", "01_held_out", "04_student_responses")
SPENT = ["tokens_generated", "tokens_trained", "tokens_read"]


# ---- of a run


def answers(run: Run, measures: Sequence[Stage]) -> Iterator[tuple[Stage, pd.DataFrame]]:
    """Every graded answer of a run, also those of the stages that measure it, each with the stage that it is of.

    `split` says of which questions, `moment` of which policy; in "best of n", how one of `n` samples was chosen.
    """
    for stage in (run.stage, *measures):
        own = stage.method == run.stage.method
        moment = "kept" if own else "warm-up"
        if stage.name == "07_evaluate":
            yield (run.stage if own else stage), evaluated(stage).assign(moment=moment)
        elif stage.name == "13_validation_answers":
            yield run.stage, _shares(stage.table("answers"), moment)
        elif stage.name == "13_perturbed_answers":
            named = {"split": "perturbed validation", "moment": moment, "benchmark": stage.dataset}
            yield run.stage, stage.table("answers")[["id", "group", "correct"]].assign(**named)
        elif stage.name == "13_judged_responses" and stage.folder != run.stage.folder:
            yield run.stage, best_of_n(stage)
    if run.stage.name == "06_ppo" and _is_validated(measures):
        along = graded_along(run.stage)
        last = sorted(along["update"].unique())[-LAST:]
        yield run.stage, _shares(along[along["update"] == 0], "start")
        yield run.stage, _shares(along[along["update"].isin(last)], "end")


def _is_validated(measures: Sequence[Stage]) -> bool:
    return any(stage.name == "13_validation_answers" for stage in measures)


def responses(run: Run, measures: Sequence[Stage]) -> pd.DataFrame:
    """Sampled validation responses with the reward model's score, where a run or what measures it has some.

    `policy` is before or after PPO, and "after" of a method's own policy.
    """
    for stage in (run.stage, *measures):
        if stage.name == "13_sampled_responses":
            return stage.table("sampled").assign(policy="after")
    return run.stage.table("judged") if run.stage.name == "13_judged_responses" else pd.DataFrame()


def totals(run: Run, measures: Sequence[Stage]) -> pd.DataFrame:
    """Of a run whose policies are measured, what each moment's took with all that it reads: a row each."""
    if not _is_validated(measures):
        return pd.DataFrame()
    last = {"kept": run.stage}
    if "warmup" in run.stage.inputs:
        last["warm-up"] = run.stage.at("03_sft_warmup", "ours_wo_r")
    spent = []
    for moment, stage in last.items():
        costs = [cost(one) for one in with_upstream([stage]) if one.name[:2] not in ("00", "02")]
        sums = pd.DataFrame(costs, columns=[*SPENT[:2], "seconds", "gflop"]).sum(min_count=1)
        spent.append({"moment": moment} | sums.to_dict())
    return pd.DataFrame(spent)


# ---- of a stage


def cost(stage: Stage) -> dict[str, Any]:
    """Seconds of a stage, the tokens that it sampled, trained on and read besides, and its operations."""
    found: dict[str, Any] = dict(zip(SPENT, (0, 0, 0), strict=True))
    if stage.name in SAMPLING:
        found["tokens_generated"] = int(stage.table("responses")["tokens"].sum())
    elif stage.name in CHOSEN_BY:
        found |= {name: value for name, value in stage.json("summary").items() if name in SPENT}
    elif stage.name == "07_evaluate":
        found["tokens_generated"] = stage.json("summary")["tokens"]
    return operations(stage, {"seconds": artifacts.read_manifest(stage.folder)["seconds"]} | found)


def operations(stage: Stage, cost: dict[str, Any]) -> dict[str, Any]:
    """The cost of a stage with the sizes of its models and its operations (R6); missing where no size is known."""
    try:
        sizes = ledger.parameters_of(stage), ledger.parameters_of_reader(stage)
    except UserError:
        return cost
    flops = ledger.flops(stage.name, sizes[0], *(cost[name] for name in SPENT), sizes[1])
    return cost | {"parameters": int(sizes[0]), "reader_parameters": int(sizes[1]), "gflop": flops / 1e9}


def history(stage: Stage) -> pd.DataFrame:
    """The learning curve of a training; of PPO with the true `accuracy` at each evaluation, where there is gold."""
    if stage.name not in CHOSEN_BY:
        return pd.DataFrame()
    logged = _logged(stage)
    if stage.name == "06_ppo":
        along = graded_along(stage).dropna(subset="correct").astype({"correct": float})
        logged = logged.assign(accuracy=logged["update"].map(along.groupby("update")["correct"].mean()))
    return logged[[name for name in MEASURES[stage.name].split() if name in logged]]


def _logged(stage: Stage) -> pd.DataFrame:
    """What a training logged; `step` is the optimizer's."""
    if stage.name != "06_ppo":
        return stage.table("history")
    logged = stage.jsonl("history")
    return logged.assign(step=logged["update"] * stage.profile.ppo.steps_per_update)


def curve(stage: Stage) -> pd.DataFrame:
    """The validation curve of a finished training: step (of the optimizer) and value, a row an evaluation."""
    found = _logged(stage)[["step", CHOSEN_BY[stage.name]]].dropna()
    return found.set_axis(["step", "value"], axis=1).astype({"step": int}).reset_index(drop=True)


def ending(stage: Stage) -> pd.DataFrame:
    """How a training went: its `start` where that was evaluated, `best` and `best_step`, and all its `steps`, a row.

    `stopped_early`: its patience ended it, not the step limit. No row of a stage that is no training.
    """
    if stage.name not in CHOSEN_BY:
        return pd.DataFrame()
    found = curve(stage)
    best = found.loc[found["value"].idxmax()]
    ended = {
        "measure": CHOSEN_BY[stage.name].removeprefix("validation_"),
        "start": found["value"].iloc[0] if found["step"].iloc[0] == 0 else None,
        "best": best["value"],
        "best_step": int(best["step"]),
        "steps": int(found["step"].iloc[-1]),
        "stopped_early": stage.json("summary")["stopped_early"],
    }
    return pd.DataFrame([ended])


def scores(stage: Stage) -> pd.DataFrame:
    """The reward model's scores of validation responses; of 13_style with what could be seen in them."""
    tables = {"05_reward_model": "scores", "13_style": "responses"}
    table = stage.table(tables[stage.name]) if stage.name in tables else pd.DataFrame()
    return table[[name for name in ("id", "kind", "score", "ratio", "named", "recalled") if name in table]]


def votes(stage: Stage) -> pd.DataFrame:
    """The vote's counts by split of 02_judgement; of 01_teacher_responses the sweep of the vote's threshold."""
    if stage.name == "02_judgement":
        return pd.DataFrame([{"split": split} | counts for split, counts in stage.json("judgement").items()])
    if stage.name != "01_teacher_responses" or stage.variant:
        return pd.DataFrame()
    source = stage.at("00_gold").require()
    gold = read_gold(source).dropna()
    if not len(gold):  # own questions
        return pd.DataFrame()
    values = stage.profile.grid.threshold
    return curve_tables.threshold_sweep(stage.table("responses"), gold, values, read_aliases(source))


# ---- answers


def graded(stage: Stage) -> pd.DataFrame:
    """Which answers are right, of those to questions with a gold answer."""
    found = stage.table("answers")[["benchmark", "id", "group", "correct"]].dropna(subset="correct")
    return found.astype({"correct": bool})


def evaluated(stage: Stage) -> pd.DataFrame:
    """The rows of an evaluation; of own questions with what the answers look like, and with those held out."""
    if not stage.dataset_settings.own:
        return graded(stage).assign(split="test")
    table = stage.table("answers")
    looks = table.assign(answered=table["answer"].notna(), text=pd.factorize(table["text"])[0])
    known = looks[looks["correct"].notna()].assign(split="test")
    held_out = looks[looks["correct"].isna()].assign(split="held-out")
    voted = []
    for teacher in _voters(stage):
        agrees = agreeing(stage, teacher).set_index("id")["agrees"].astype(float)
        voted.append(held_out.assign(agrees=held_out["id"].map(agrees), teacher=teacher))
    names = ["benchmark", "id", "group", "correct", "agrees", "tokens", "answered", "text", "split", "teacher"]
    rows = pd.concat([known, *(voted or [held_out])], ignore_index=True).reindex(columns=names)
    return rows.assign(teacher=rows["teacher"].fillna(stage.teacher or ""))


def _voters(stage: Stage) -> list[str]:
    """The teachers whose vote on held-out questions an evaluation is compared with: its own, or each that was asked."""
    if stage.teacher:
        return [stage.teacher]
    return [name for name in stage.profile.teachers if replace(stage, teacher=name).at("01_held_out").done]


def agreeing(stage: Stage, teacher: str) -> pd.DataFrame:
    """The answers of an evaluation to held-out questions with a vote of this teacher: also `vote` and `agrees`.

    Without a label of the vote `agrees` is missing.
    """
    from rdlib.method import held_out  # late: it loads what a notebook's setup comes before

    vote = replace(stage, teacher=teacher).at("01_held_out")
    return held_out.held_to_vote(stage.table("answers"), vote.table("labels"))


def judged(stage: Stage) -> pd.DataFrame:
    """The answers of an evaluation that can be judged: `correct` compares each with the answer in `held_to`.

    That is the gold answer or, in a teacher's cell and where own questions have none, its vote on those held out, under
    a benchmark that says so.
    """
    found = [stage.table("answers").dropna(subset="correct").rename(columns={"gold": "held_to"})]
    if stage.teacher and stage.dataset_settings.own:
        voted = agreeing(stage, stage.teacher).drop(columns=["gold", "correct"])
        voted = voted.rename(columns={"vote": "held_to", "agrees": "correct"})
        found.append(voted.assign(benchmark=f"{stage.dataset}, {AGREEMENT}"))
    return pd.concat(found, ignore_index=True)[list(found[0])].astype({"correct": bool})


def graded_along(ppo: Stage) -> pd.DataFrame:
    """PPO's answers at each evaluation: update, id, agrees, correct (missing without a gold answer)."""
    given = ppo.table("validation")
    labels = ppo.at("02_pseudo_labels").table("labels").set_index("id")["pseudo_label"]
    source = ppo.at("00_gold").require()
    gold = read_gold(source)
    named = as_gold(given["answer"], given["id"], read_aliases(source))
    agrees = [same(a, y) for a, y in zip(given["answer"], given["id"].map(labels), strict=True)]
    correct = [None if pd.isna(y) else same(a, y) for a, y in zip(named, given["id"].map(gold), strict=True)]
    return given[["update", "id"]].assign(agrees=agrees, correct=correct)


def _shares(answers: pd.DataFrame, moment: str) -> pd.DataFrame:
    """Validation answers of a moment, a row a question: the share that agrees and that is correct."""
    means = answers.astype({"agrees": float, "correct": float}).groupby("id")[["agrees", "correct"]].mean()
    return means.reset_index().assign(split="validation", moment=moment)


def best_of_n(judged_responses: Stage) -> pd.DataFrame:
    """What choosing among the student's samples before PPO gives, by strategy and n; as "auc" that of each question."""
    table = judged_responses.table("judged")
    before = table[table["policy"] == "before"]
    samples = judged_responses.profile.student_sampling.samples
    within = diagnostics.auc_by_question(before).assign(strategy="auc", n=samples)
    both = pd.concat([diagnostics.best_of_n(before, BEST_OF), within], ignore_index=True)
    return both.rename(columns={"strategy": "moment", "value": "correct"}).assign(split="best of n")
