"""Outputs of finished stages as rows of the result tables (`rdlib.evidence.result_tables.COLUMNS`).

    Finished().answers(run, measures)   # a row a question that a run's model answered
    Finished().curve(stage)             # a row a logged step of a training

`scripts/convert_results.py` has the same functions over the result tables of version 1.0.0.
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


class Finished:
    """Rows of finished stages."""

    def made(self, stage: Stage) -> dict[str, Any]:
        """Key, content (a hash), environment and start of a finished stage; UserError where it is not finished."""
        stage.require()
        manifest = artifacts.read_manifest(stage.folder)
        found = {name: manifest[name] for name in ("key", "environment", "started")}
        return found | {"content": artifacts.content_hash(manifest["files"])}

    def knows(self, stage: Stage) -> bool:
        """Whether it is known how a stage was made."""
        return True

    # ---- of a run

    def answers(self, run: Run, measures: Sequence[Stage]) -> Iterator[tuple[Stage, pd.DataFrame]]:
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
        if run.stage.name == "06_ppo" and any(stage.name == "13_validation_answers" for stage in measures):
            along = graded_along(run.stage)
            last = sorted(along["update"].unique())[-LAST:]
            yield run.stage, _shares(along[along["update"] == 0], "start")
            yield run.stage, _shares(along[along["update"].isin(last)], "end")

    def responses(self, run: Run, measures: Sequence[Stage]) -> pd.DataFrame:
        """Sampled validation responses with the reward model's score, where a run or what measures it has some.

        `policy` is before or after PPO, and "after" of a method's own policy.
        """
        for stage in (run.stage, *measures):
            if stage.name == "13_sampled_responses":
                return stage.table("sampled").assign(policy="after")
        return run.stage.table("judged") if run.stage.name == "13_judged_responses" else pd.DataFrame()

    def totals(self, run: Run, measures: Sequence[Stage]) -> list[dict[str, Any]]:
        """Of a run whose policies are measured, what each moment's took in all, with all that it reads: a row each."""
        if not any(stage.name == "13_validation_answers" for stage in measures):
            return []
        last = {"kept": run.stage}
        if "warmup" in run.stage.inputs:
            last["warm-up"] = run.stage.at("03_sft_warmup", "ours_wo_r")
        return [{"moment": moment} | self._total(stage) for moment, stage in last.items()]

    def _total(self, last: Stage) -> dict[str, float]:
        rows = [self.cost(one) for one in with_upstream([last]) if one.name[:2] not in ("00", "02")]
        names = ["tokens_generated", "tokens_trained", "seconds", "gflop"]
        return pd.DataFrame(rows, columns=names).sum(min_count=1).to_dict()

    # ---- of a stage

    def cost(self, stage: Stage) -> dict[str, Any]:
        """Seconds of a stage, the tokens that it sampled, trained on and read besides, and its operations."""
        seconds = artifacts.read_manifest(stage.folder)["seconds"]
        tokens = dict(zip(("tokens_generated", "tokens_trained", "tokens_read"), _tokens(stage), strict=True))
        return operations(stage, {"seconds": seconds} | tokens)

    def curve(self, stage: Stage) -> pd.DataFrame:
        """The learning curve of a training; of PPO with the true `accuracy` at each evaluation, where there is gold."""
        if stage.name not in CHOSEN_BY:
            return pd.DataFrame()
        if stage.name != "06_ppo":
            history = stage.table("history")
        else:
            along = graded_along(stage).dropna(subset="correct").astype({"correct": float})
            accuracy = along.groupby("update")["correct"].mean()
            history = stage.jsonl("history")
            steps = history["update"] * stage.profile.ppo.steps_per_update
            history = history.assign(step=steps, accuracy=history["update"].map(accuracy))
        return history[[name for name in MEASURES[stage.name].split() if name in history]]

    def ending(self, stage: Stage) -> pd.DataFrame:
        """How a training ended, a row (`ending`); none of a stage that is no training."""
        return pd.DataFrame([ending(stage, self.curve(stage))] if stage.name in CHOSEN_BY else [])

    def scores(self, stage: Stage) -> pd.DataFrame:
        """The reward model's scores of validation responses; of 13_style with what could be seen in them."""
        if stage.name not in ("05_reward_model", "13_style"):
            return pd.DataFrame()
        table = stage.table("scores" if stage.name == "05_reward_model" else "responses")
        return table[[name for name in ("id", "kind", "score", "ratio", "named", "recalled") if name in table]]

    def votes(self, stage: Stage) -> pd.DataFrame:
        """The vote's counts by split of 02_judgement; of 01_teacher_responses the sweep of the vote's threshold."""
        if stage.name == "02_judgement":
            return pd.DataFrame([{"split": split} | counts for split, counts in stage.json("judgement").items()])
        return thresholds(stage) if stage.name == "01_teacher_responses" and not stage.variant else pd.DataFrame()


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
    voted = [_with_vote(held_out, stage, teacher) for teacher in voters(stage)] or [held_out]
    names = ["benchmark", "id", "group", "correct", "agrees", "tokens", "answered", "text", "split", "teacher"]
    rows = pd.concat([known, *voted], ignore_index=True).reindex(columns=names)
    return rows.assign(teacher=rows["teacher"].fillna(stage.teacher or ""))


def voters(stage: Stage) -> list[str]:
    """The teachers whose vote on held-out questions an evaluation is compared with: its own, or each that was asked."""
    if stage.teacher:
        return [stage.teacher]
    return [name for name in stage.profile.teachers if replace(stage, teacher=name).at("01_held_out").done]


def _with_vote(held_out: pd.DataFrame, stage: Stage, teacher: str) -> pd.DataFrame:
    """Answers with whether each `agrees` with a teacher's vote, missing where the vote has no label."""
    agrees = agreeing(stage, teacher).set_index("id")["agrees"].astype(float)
    return held_out.assign(agrees=held_out["id"].map(agrees), teacher=teacher)


def agreeing(stage: Stage, teacher: str) -> pd.DataFrame:
    """The answers of an evaluation to held-out questions with a vote of this teacher: also `vote` and `agrees`."""
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


# ---- votes, trainings and costs


def thresholds(responses: Stage) -> pd.DataFrame:
    """The sweep of the vote's threshold over a teacher's responses; no row without gold answers."""
    source = responses.at("00_gold").require()
    gold = read_gold(source).dropna()
    if not len(gold):
        return pd.DataFrame()
    values = responses.profile.grid.threshold
    return curve_tables.threshold_sweep(responses.table("responses"), gold, values, read_aliases(source))


def curve(stage: Stage, history: pd.DataFrame | None = None) -> pd.DataFrame:
    """The validation curve of a finished training: step (of the optimizer) and value, a row an evaluation."""
    history = Finished().curve(stage) if history is None else history
    found = history[["step", CHOSEN_BY[stage.name]]].dropna()
    return found.set_axis(["step", "value"], axis=1).astype({"step": int}).reset_index(drop=True)


def ending(stage: Stage, history: pd.DataFrame | None = None) -> dict[str, Any]:
    """How a finished training went: its `start` where that was evaluated, `best` and `best_step`, and all its `steps`.

    `stopped_early`: its patience ended it, not the step limit.
    """
    found = curve(stage, history)
    best = found.loc[found["value"].idxmax()]
    return {
        "measure": CHOSEN_BY[stage.name].removeprefix("validation_"),
        "start": found["value"].iloc[0] if found["step"].iloc[0] == 0 else None,
        "best": best["value"],
        "best_step": int(best["step"]),
        "steps": int(found["step"].iloc[-1]),
        "stopped_early": stage.json("summary")["stopped_early"],
    }


def _tokens(stage: Stage) -> tuple[int, int, int]:
    """Tokens that a stage sampled, trained on, and read besides."""
    if stage.name in SAMPLING:
        return int(stage.table("responses")["tokens"].sum()), 0, 0
    if stage.name in CHOSEN_BY:
        summary = stage.json("summary")
        return summary.get("tokens_generated", 0), summary["tokens_trained"], summary.get("tokens_read", 0)
    return stage.json("summary")["tokens"] if stage.name == "07_evaluate" else 0, 0, 0


def operations(stage: Stage, cost: dict[str, Any]) -> dict[str, Any]:
    """The cost of a stage with the sizes of its models and its operations (R6); missing where no size is known."""
    try:
        sizes = ledger.parameters_of(stage), ledger.parameters_of_reader(stage)
    except UserError:
        return cost
    tokens = (cost["tokens_generated"], cost["tokens_trained"], cost["tokens_read"])
    flops = ledger.flops(stage.name, sizes[0], *tokens, sizes[1])
    return cost | {"parameters": int(sizes[0]), "reader_parameters": int(sizes[1]), "gflop": flops / 1e9}
