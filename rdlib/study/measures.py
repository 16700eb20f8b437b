"""What the follow-up experiments are measured by, question by question, from the stages of their runs.

    answers.parquet     a validation question and moment of a run: does the answer agree, is it right
    ranking.parquet     a validation question: choosing among n samples of the student, by reward or majority
    responses.parquet   a response that a reward model is tested on: its score, and what could be seen in it
    tested.parquet      a test question, of seeds that are not released: is its answer right
    ppo.csv             PPO's curves: reward, KL, agreement
    costs.csv           a run with all that it reads: tokens, operations, seconds

Gold answers are read to measure, in stages that nothing is trained or chosen by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from rdlib.evidence import diagnostics, ledger
from rdlib.study import results
from rdlib.study.experiments import Experiment, Run, measures_of, with_upstream
from rdlib.study.stage import Stage
from rdlib.tasks.answers import same
from rdlib.tasks.questions import as_gold, read_aliases, read_gold

ANSWERS, JUDGED, STYLE, EVALUATION = "13_validation_answers", "13_judged_responses", "13_style", "07_evaluate"
BEST_OF = [1, 2, 3, 5, 8, 12, 20, 30]
LAST = 3  # evaluations whose mean is the end of a run of PPO: one alone is noise


def tables_of(experiment: Experiment, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """The tables of an experiment's finished runs that its measures give, by file name; rows name cell, trial, seed."""
    measured = {name for run in runs for name in (one.name for one in measures_of(run, experiment))}
    of_ppo = [run for run in runs if run.stage.name == "06_ppo"]
    wanted: dict[str, tuple[Callable[[Run], pd.DataFrame], Sequence[Run]]] = {
        "answers.parquet": (lambda run: answers(run, experiment), runs if ANSWERS in measured else []),
        "ranking.parquet": (ranking, runs if JUDGED in measured else []),
        "responses.parquet": (lambda run: run.stage.at(STYLE).table("responses"), runs if STYLE in measured else []),
        "tested.parquet": (tested, runs if EVALUATION in measured else []),
        "ppo.csv": (ppo_curve, of_ppo),
        "costs.csv": (costs, runs),
    }
    return {
        name: pd.concat([measure(run).assign(**_names(run)) for run in found], ignore_index=True)
        for name, (measure, found) in wanted.items()
        if found
    }


def _names(run: Run) -> dict[str, object]:
    return {"cell": run.cell, "trial": run.arm, "seed": run.stage.seed}


def answers(run: Run, experiment: Experiment) -> pd.DataFrame:
    """Agreement and correctness by question: of the policy that is kept, of the warm-up, and along PPO.

    Columns when, id, agrees (missing in Q_fail) and correct, both shares: "start" and "end" of PPO are its validation
    answers before the first update, and the mean of its last three evaluations.
    """
    parts = {}
    for one in measures_of(run, experiment):
        if one.name == ANSWERS:
            when = "kept" if one.method == run.stage.method else "warm-up"
            parts[when] = one.table("answers")[["id", "agrees", "correct"]]
    if run.stage.name == "06_ppo":
        along = graded_along(run.stage)
        updates = sorted(along["update"].unique())
        parts |= {"start": along[along["update"] == 0], "end": along[along["update"].isin(updates[-LAST:])]}
    frames = []
    for when, part in parts.items():
        means = part.astype({"agrees": float, "correct": float}).groupby("id")[["agrees", "correct"]].mean()
        frames.append(means.reset_index().assign(when=when))
    columns = ["when", "id", "agrees", "correct"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


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
        working = [one for one in with_upstream([last]) if "teacher" in one.spec.axes and one.name[:2] != "02"]
        sizes = {"parameters": [ledger.parameters_of(one) for one in working]}
        sizes["reader_parameters"] = [ledger.parameters_of_reader(one) for one in working]
        table = results.costs(working).assign(**sizes)
        spent = ledger.ledger(table)[["tokens_generated", "tokens_trained", "seconds", "flops"]].sum()
        rows.append({"when": when} | spent.drop("flops").to_dict() | {"gflop": spent["flops"] / 1e9})
    return pd.DataFrame(rows)
