"""The open ends of the science: trials that are measured question by question, `python -m rdlib open-ends`.

The trials are those of params/trials/open_ends.yaml, run as `rdlib.study.trials` runs them. Beside its tables, and
where they say something, a group gets

    <group>_answers.parquet     a validation question and moment of a run: does the answer agree, is it right
    <group>_ranking.parquet     a validation question: choosing among n samples of the student, by reward or majority
    <group>_responses.parquet   a response that a reward model is tested on: its score, and what could be seen in it
    <group>_tested.parquet      a test question, of seeds that are not released: is its answer right
    <group>_ppo.csv             PPO's curves: reward, KL, agreement
    <group>_costs.csv           a run with all that it reads: tokens, operations, seconds

Gold answers are read to measure, in stages that nothing is trained or chosen by.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pandas as pd

from rdlib.evidence import diagnostics, ledger
from rdlib.study import results, trials
from rdlib.study.stage import Stage
from rdlib.study.trials import Run
from rdlib.tasks.answers import same
from rdlib.tasks.questions import as_gold, read_aliases, read_gold

FILE = "params/trials/open_ends.yaml"
ANSWERS, JUDGED, STYLE, EVALUATION = "13_validation_answers", "13_judged_responses", "13_style", "07_evaluate"
RANKING, SEEING = "reward_model", "teacher_style"  # groups whose reward models rank samples, and tell who wrote them
ON_TEST = "sft_rate"  # the group that is about the perturbed benchmark, which has test questions alone
BEST_OF = [1, 2, 3, 5, 8, 12, 20, 30]
LAST = 3  # evaluations whose mean is the end of a run of PPO: one alone is noise


def measuring(run: Run) -> list[Stage]:
    """The stages that measure a run: its answers to validation questions, its warm-up's, and what its judge sees."""
    stage, found = run.stage, []
    if stage.name != "05_reward_model":
        found.append(stage.at(ANSWERS))
    if "warmup" in stage.inputs:
        found.append(stage.at(ANSWERS, "ours_wo_r"))
    if run.group == ON_TEST:
        found.append(stage.at(EVALUATION))
    if run.group in (RANKING, SEEING):
        found.append(stage.at(STYLE))
    if run.group == RANKING:
        found.append(stage.at(JUDGED))
    return found


def names_of(run: Run) -> dict[str, object]:
    """The columns that say which run a row is of."""
    stage = run.stage
    return {"cell": f"{stage.dataset}/{stage.teacher}/{stage.student}", "trial": run.trial.name, "seed": stage.seed}


# ---- what is measured


def answers(run: Run) -> pd.DataFrame:
    """Agreement and correctness by question: of the policy that is kept, of the warm-up, and along PPO.

    Columns when, id, agrees (missing in Q_fail) and correct, both shares: "start" and "end" of PPO are its validation
    answers before the first update, and the mean of its last three evaluations.
    """
    stage, parts = run.stage, {}
    measured = {one.method: one for one in measuring(run) if one.name == ANSWERS}
    moments = {"kept": stage.method} | ({"warm-up": "ours_wo_r"} if "warmup" in stage.inputs else {})
    for when, method in moments.items():
        if method in measured:
            parts[when] = measured[method].table("answers")[["id", "agrees", "correct"]]
    if stage.name == "06_ppo":
        along = graded_along(stage)
        updates = sorted(along["update"].unique())
        parts |= {"start": along[along["update"] == 0], "end": along[along["update"].isin(updates[-LAST:])]}
    frames = []
    for when, part in parts.items():
        means = part.astype({"agrees": float, "correct": float}).groupby("id")[["agrees", "correct"]].mean()
        frames.append(means.reset_index().assign(when=when))
    return pd.concat(frames, ignore_index=True)[["when", "id", "agrees", "correct"]]


def graded_along(stage: Stage) -> pd.DataFrame:
    """PPO's answers at each evaluation: update, id, agrees, correct."""
    given = stage.table("validation")
    labels = stage.at("02_pseudo_labels").table("labels").set_index("id")["pseudo_label"]
    source = stage.at("00_gold").require()
    named = as_gold(given["answer"], given["id"], read_aliases(source))
    marks = {
        name: [same(a, y) for a, y in zip(answers, given["id"].map(known), strict=True)]
        for name, answers, known in (("agrees", given["answer"], labels), ("correct", named, read_gold(source)))
    }
    return given[["update", "id"]].assign(**marks)


def ranking(run: Run) -> pd.DataFrame:
    """Of the student's samples before PPO: `diagnostics.best_of_n`, and as strategy "auc" that of each question."""
    judged = run.stage.at(JUDGED).table("judged")
    before = judged[judged["policy"] == "before"]
    within = diagnostics.auc_by_question(before).assign(strategy="auc", n=run.stage.profile.student_sampling.samples)
    return pd.concat([diagnostics.best_of_n(before, BEST_OF), within], ignore_index=True)


def responses(run: Run) -> pd.DataFrame:
    """The responses that the reward model is tested on: its score, and what could be seen in them."""
    return run.stage.at(STYLE).table("responses")


def tested(run: Run) -> pd.DataFrame:
    """The test questions of each benchmark: is the answer right."""
    return run.stage.at(EVALUATION).table("answers")[["benchmark", "id", "correct"]]


def ppo_curve(run: Run) -> pd.DataFrame:
    """PPO's history, as far as it is drawn."""
    history = run.stage.jsonl("history")
    return history[["update", "reward", "rm_score", "kl", "agreement", "validation_agreement"]]


def costs(run: Run) -> pd.DataFrame:
    """Tokens, operations and seconds of a run ("kept") and of its warm-up, each with all that it reads."""
    made = {"kept": run.stage}
    if "warmup" in run.stage.inputs:
        made["warm-up"] = run.stage.at("03_sft_warmup", "ours_wo_r")
    rows = []
    for when, last in made.items():
        stages = {one.folder: one for one in (*last.upstream(), last)}
        working = [one for one in stages.values() if "teacher" in one.spec.axes and one.name[:2] != "02"]
        sizes = {"parameters": [ledger.parameters_of(one) for one in working]}
        sizes["reader_parameters"] = [ledger.parameters_of_reader(one) for one in working]
        table = results.costs(working).assign(**sizes)
        spent = ledger.ledger(table)[["tokens_generated", "tokens_trained", "seconds", "flops"]].sum()
        rows.append({"when": when} | spent.drop("flops").to_dict() | {"gflop": spent["flops"] / 1e9})
    return pd.DataFrame(rows)


# ---- a group of trials


def tables_of(group: str, runs: list[Run]) -> dict[str, pd.DataFrame]:
    """The tables of one group's measured runs, by the end of their files' names."""
    every, none = runs, []
    wanted: dict[str, tuple[Callable[[Run], pd.DataFrame], list[Run]]] = {
        "answers.parquet": (answers, [run for run in runs if ANSWERS in {one.name for one in measuring(run)}]),
        "ranking.parquet": (ranking, every if group == RANKING else none),
        "responses.parquet": (responses, every if group in (RANKING, SEEING) else none),
        "tested.parquet": (tested, every if group == ON_TEST else none),
        "ppo.csv": (ppo_curve, [run for run in runs if run.stage.name == "06_ppo"]),
        "costs.csv": (costs, every),
    }
    return {
        name: pd.concat([measure(run).assign(**names_of(run)) for run in found], ignore_index=True)
        for name, (measure, found) in wanted.items()
        if found
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib open-ends`."""
    trials.add_arguments(parser, FILE)


def run(options: argparse.Namespace) -> None:
    """Run the open ends' trials, or some groups of them, measure them, and write their tables."""
    trials.command(options, "open-ends", measuring, tables_of)
