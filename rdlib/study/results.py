"""Result tables: what the stages of a study left, gathered into a few tidy files.

Every table and figure is drawn from these files alone (`rdlib.evidence.gallery`), so the released ones, in
`figures/results`, redraw everything without training. Each row names its cell, variant and seed. Each seed has a
folder of its own, so seeds can be run and released at different times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts, numerics
from rdlib.evidence import curves as curve_tables
from rdlib.evidence import diagnostics, ledger
from rdlib.evidence.result_tables import AGREEMENT, AGREEMENT_FILE, ANSWERED, GREEDY, QUESTION_TRAININGS, TRAININGS
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import curves, experiments
from rdlib.study.experiments import Run, ablation_cells, with_upstream
from rdlib.study.opening import make_stage
from rdlib.study.specification import METHODS
from rdlib.study.stage import Stage, without_places
from rdlib.tasks.questions import as_gold, read_aliases, read_gold

QUESTIONS = ("R1", "R2", "R3", "R4", "R5", "RM")
REWARD_MODEL = "RM"  # what the reward model can give: no arms, but the responses of stage 13_judged_responses
CELL = ["dataset", "teacher", "student", "method", "variant", "seed"]


def study_stages(
    profile_path: str, seeds: list[int], methods: Iterable[str] = (), ablations: Iterable[str] = ()
) -> list[Stage]:
    """Every stage of the study, those asked for by name included; UserError when one is missing."""
    path, found = experiments.settled(None, profile_path, seeds)
    found += [one for one in experiments.named(ablations) if one.name not in {known.name for known in found}]
    runs = [run for one in found for run in experiments.runs(one, path, seeds, tuple(methods))]
    stages = with_upstream(run.stage for run in runs)
    for stage in stages:
        stage.require()
    return sorted(stages, key=lambda stage: stage.label)


def finished_besides(profile_path: str, seed: int) -> tuple[list[str], list[str]]:
    """The methods and ablations that the profile does not ask for and whose every run is finished all the same."""
    path, default = experiments.settled(None, profile_path, [seed])
    asked = {run.stage.folder for one in default for run in experiments.runs(one, path, [seed])}
    others: dict[str, list[Stage]] = {}
    for one in experiments.named(["main", "ablations"]):
        for run in experiments.runs(one, path, [seed], experiments.load()["main"].methods):
            if run.stage.folder not in asked:
                others.setdefault(run.stage.method if one.name == "main" else one.name, []).append(run.stage)
    made = [name for name, stages in others.items() if all(stage.done for stage in stages)]
    return [name for name in made if name in METHODS], [name for name in made if name not in METHODS]


def _stack(stages: list[Stage], name: str, read: Callable[[Stage], pd.DataFrame]) -> pd.DataFrame | None:
    frames = [read(stage).assign(**stage.columns) for stage in stages if stage.name == name]
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    return frame[[*CELL, *(column for column in frame.columns if column not in CELL)]]


def graded(stage: Stage) -> pd.DataFrame:
    """Which answers are right, of those to questions with a gold answer."""
    found = stage.table("answers")[["benchmark", "id", "group", "correct"]].dropna(subset="correct")
    return found.astype({"correct": bool})


def agreeing(stage: Stage) -> pd.DataFrame:
    """The answers of an evaluation to held-out questions with a vote: `vote`, `agrees`, and the `teacher` who voted.

    For own questions. A model that has no teacher, as the student before training, is held to the vote of each teacher
    that was asked.
    """
    from rdlib.method import held_out  # late: it loads what a notebook's setup comes before

    teachers = [stage.teacher] if stage.teacher else stage.profile.teachers
    votes = {teacher: replace(stage, teacher=teacher).at("01_held_out") for teacher in teachers}
    table = stage.table("answers")
    found = [
        held_out.held_to_vote(table, one.table("labels")).assign(teacher=teacher)
        for teacher, one in votes.items()
        if stage.teacher or one.done
    ]
    return pd.concat(found, ignore_index=True)


def agreement(stages: list[Stage]) -> pd.DataFrame | None:
    """Agreement with the teacher's vote on held-out questions, a row an answer; None where there are no such questions.

    `held_out` is how many of them there are, counting those on which the vote has no label.
    """
    frames = []
    for stage in stages:
        if stage.name == "07_evaluate" and stage.dataset_settings.own:
            columns = {name: value for name, value in stage.columns.items() if name != "teacher"}
            count = int(stage.table("answers")["correct"].isna().sum())
            frames.append(agreeing(stage).assign(held_out=count, **columns))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return table[[*CELL, "id", "group", "agrees", "held_out"]] if len(table) else None


def greedy_answers(stages: list[Stage]) -> pd.DataFrame | None:
    """What the greedy answers to own test questions look like, a row an evaluation; None where there are none.

    `questions`, mean `tokens` of an answer, and the shares that are `answered` (an answer can be read) and `distinct`.
    """
    rows = []
    for stage in stages:
        if stage.name == "07_evaluate" and stage.dataset_settings.own:
            table = stage.table("answers")
            row = {
                "questions": len(table),
                "tokens": table["tokens"].mean(),
                "answered": table["answer"].notna().mean(),
            }
            rows.append(stage.columns | row | {"distinct": table["text"].nunique() / max(1, len(table))})
    return pd.DataFrame(rows) if rows else None


def judged(stage: Stage) -> pd.DataFrame:
    """The answers of an evaluation that can be judged: `correct` says whether each is what it is held to, `held_to`.

    That is the gold answer or, in a teacher's cell and where own questions have none, its vote on those held out, under
    a benchmark that says so.
    """
    found = [stage.table("answers").dropna(subset="correct").rename(columns={"gold": "held_to"})]
    if stage.teacher and stage.dataset_settings.own:
        voted = agreeing(stage).drop(columns=["gold", "correct"])
        voted = voted.rename(columns={"vote": "held_to", "agrees": "correct"})
        found.append(voted.assign(benchmark=f"{stage.dataset}, {AGREEMENT}"))
    return pd.concat(found, ignore_index=True)[list(found[0])].astype({"correct": bool})


def pseudo_label_counts(stages: list[Stage]) -> pd.DataFrame | None:
    """The counts of Figures 3 and 4, a row a teacher, dataset and split; None without a judgement."""
    rows = [
        {"dataset": s.dataset, "teacher": s.teacher, "seed": s.seed, "split": split, **counts}
        for s in stages
        if s.name == "02_judgement"
        for split, counts in s.json("judgement").items()
    ]
    return pd.DataFrame(rows) if rows else None


def costs(stages: Iterable[Stage]) -> pd.DataFrame:
    """Seconds of every stage run, and the tokens that it sampled, trained on and read besides."""
    rows = []
    for stage in stages:
        generated = trained = read = 0
        if stage.name in ("01_teacher_responses", "01_held_out", "04_student_responses"):
            generated = int(stage.table("responses")["tokens"].sum())
        elif stage.name in ("03_sft_warmup", "05_reward_model", "06_ppo", "13_baseline"):
            summary = stage.json("summary")
            generated, trained = summary.get("tokens_generated", 0), summary["tokens_trained"]
            read = summary.get("tokens_read", 0)
        elif stage.name == "07_evaluate":
            generated = stage.json("summary")["tokens"]
        seconds = artifacts.read_manifest(stage.folder)["seconds"]
        extra = {
            "stage": stage.name,
            "seconds": seconds,
            "tokens_generated": generated,
            "tokens_trained": trained,
            "tokens_read": read,
        }
        rows.append(stage.columns | extra)
    return pd.DataFrame(rows)


def example(stages: list[Stage]) -> dict | None:
    """Table 1, of the first of the ablations' cells: a validation question with its answers and rewards.

    None without its stage.
    """
    cell = ablation_cells(stages[0].profile_path, stages[0].seed)[0].at("05_reward_model")
    stage = next((stage for stage in stages if stage.folder == cell.folder), None)
    if stage is None:
        return None
    scores = stage.table("scores")
    key = sorted(scores["id"])[0]
    questions = stage.at("00_data").table("questions").set_index("id")
    labels = stage.at("02_pseudo_labels").table("labels").set_index("id")
    shown = scores[scores["id"] == key].groupby("kind").first()
    names = {"teacher_positive": "teacher_response"}
    return {
        "id": key,
        "question": questions["question"][key],
        "pseudo_label": labels["pseudo_label"][key],
        **{names.get(kind, kind): shown["text"][kind] for kind in shown.index},
        "scores": {names.get(kind, kind): round(float(shown["score"][kind]), 4) for kind in shown.index},
    }


def provenance(stages: list[Stage], profile_path: str, seed: int, options: str = "") -> dict:
    """Command, parameters, seed, commit and machine behind the results; key and content (a hash) of every stage."""
    manifests = [artifacts.read_manifest(stage.folder) for stage in stages]
    environments = [manifest["environment"] for manifest in manifests]
    return {
        "command": f"python -m rdlib study --profile {without_places(profile_path)} --seeds {seed}{options}",
        "profile": profile_path,
        "seed": seed,
        "commits": sorted({e["commit"] for e in environments}),
        "dirty": any(e["dirty"] for e in environments),
        "started": min(m["started"] for m in manifests),
        "environment": {k: v for k, v in environments[0].items() if k not in ("commit", "dirty")},
        "numerics": sorted({e.get("numerics", numerics.NATIVE) for e in environments}),
        "stages": {stage.label: manifest["key"] for stage, manifest in zip(stages, manifests, strict=True)},
        "contents": {
            stage.label: artifacts.content_hash(manifest["files"])
            for stage, manifest in zip(stages, manifests, strict=True)
        },
    }


def results_folder(profile_path: str) -> Path:
    """Where the results of a profile's studies lie: one folder a seed."""
    profile = load_profile(ROOT / profile_path)
    return ROOT / profile.runs / profile.name / "results"


def collect(profile_path: str, seeds: list[int]) -> Path:
    """Gather the result tables of finished seeds, each into its folder; returns the folder that holds them."""
    for seed in seeds:
        collect_seed(profile_path, seed)
    return results_folder(profile_path)


def collect_seed(profile_path: str, seed: int) -> Path:
    """Gather the result tables of one finished seed, with what was asked for by name; returns its folder."""
    folder = results_folder(profile_path) / f"seed{seed}"
    methods, ablations = finished_besides(profile_path, seed)
    options = f" --methods {' '.join(methods)}" if methods else ""
    if ablations:
        default = experiments.settled(None, profile_path, [seed])[1]
        names = ["study", *(one.name for one in default if one.group == "ablations"), *ablations]
        options += f" --experiments {' '.join(dict.fromkeys(names))}"
    gather(folder, profile_path, seed, study_stages(profile_path, [seed], methods, ablations), options)
    return folder


def gather(folder: Path, profile_path: str, seed: int, stages: list[Stage], options: str = "") -> None:
    """Write the result tables of some finished stages of one seed; a table that none of them has rows for is left out.

    `options` are what the command that made them was given besides profile and seed.
    """
    tables = {
        "correctness.parquet": _stack(stages, "07_evaluate", graded),
        AGREEMENT_FILE: agreement(stages),
        GREEDY: greedy_answers(stages),
        "reward_scores.parquet": _stack(
            stages, "05_reward_model", lambda s: s.table("scores")[["id", "kind", "score"]]
        ),
        "pseudo_labels.csv": pseudo_label_counts(stages),
        "reward_model_history.parquet": _stack(stages, "05_reward_model", lambda s: s.table("history")),
        "sft_history.parquet": _stack(stages, "03_sft_warmup", lambda s: s.table("history")),
        "ppo_history.parquet": _stack(stages, "06_ppo", lambda s: s.jsonl("history")),
        "costs.csv": costs(stages),
        TRAININGS: curves.endings(stages),
    }
    for name, frame in tables.items():
        if frame is not None:
            write(folder / name, frame.drop(columns="dataset") if name == "correctness.parquet" else frame)
    for stage in stages:
        if stage.name == "00_data" and stage.dataset_settings.source in ("gsm8k", "mmlu_pro"):
            artifacts.write_json(folder / f"split_ids_{stage.dataset}.json", stage.json("split_ids"))
    if shown := example(stages):
        artifacts.write_json(folder / "example.json", shown)
    artifacts.write_json(folder / "settings.json", load_profile(ROOT / profile_path).model_dump())
    artifacts.write_json(folder / "provenance.json", provenance(stages, profile_path, seed, options))


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write a result table, as CSV or Parquet by the file's name."""
    if path.suffix == ".csv":
        artifacts.write_bytes(path, frame.to_csv(index=False, float_format="%.6g").encode())
    else:
        artifacts.write_parquet(path, frame)


# ---- the reviewers' questions


def collect_questions(profile_path: str, seeds: list[int]) -> Path:
    """Gather what answers the reviewers' questions, beside the results of the study's seeds; returns their folder."""
    for seed in seeds:
        folder = results_folder(profile_path) / f"seed{seed}"
        gather_questions(folder, profile_path, seed, _teachers(profile_path, seed))
    return results_folder(profile_path)


def gather_questions(
    folder: Path,
    profile_path: str,
    seed: int,
    stages: list[Stage],
    questions: tuple[str, ...] = QUESTIONS,
    options: str = " --experiments study ablations questions",
) -> None:
    """Write the result tables of the reviewers' `questions`, from finished arms; the last says that it is all there.

    `stages`: those whose teachers' responses the sweep of the threshold is of.
    """
    cells = ablation_cells(profile_path, seed)
    asked = [one for one in experiments.named(["questions"]) if one.name in questions and one.name != REWARD_MODEL]
    runs = [run for one in asked for run in experiments.runs(one, profile_path, [seed])]
    found = sorted(runs, key=lambda run: [cell.cell_name for cell in cells].index(run.cell))
    made = {stage.folder: stage for stage in with_upstream(run.stage for run in found)}
    tables = {}
    if found:
        tables |= {"reviewers.parquet": answers_table(found), "question_costs.csv": arm_costs(found)}
        if (ended := curves.endings(made.values())) is not None:
            tables[QUESTION_TRAININGS] = ended
    if REWARD_MODEL in questions:
        judged = [cell.at("13_judged_responses") for cell in cells]
        made |= {stage.folder: stage for one in judged for stage in (one, *one.upstream())}
        tables["judged.parquet"] = _of_cells(cells, lambda cell: cell.at("13_judged_responses").table("judged"))
        tables["over_optimisation.csv"] = _of_cells(cells, _over_optimisation)
    if "R4" in questions or not questions:  # the sweep needs no arm
        tables["thresholds.csv"] = _thresholds(stages)
    for name, table in tables.items():
        write(folder / name, table)
    behind = sorted(made.values() or stages, key=lambda stage: stage.label)
    artifacts.write_json(folder / ANSWERED, provenance(behind, profile_path, seed, options))


def _of_cells(cells: list[Stage], read: Callable[[Stage], pd.DataFrame]) -> pd.DataFrame:
    """A table of each cell as one, whose first column names the cell."""
    parts = {cell.cell_name: read(cell) for cell in cells}
    return pd.concat(parts, names=["cell"]).reset_index(level="cell").reset_index(drop=True)


def _over_optimisation(cell: Stage) -> pd.DataFrame:
    """Reward and true accuracy along PPO in one cell."""
    ppo, source = cell.at("06_ppo"), cell.at("00_gold").require()
    given = ppo.table("validation")
    if aliases := read_aliases(source):
        given["answer"] = as_gold(given["answer"], given["id"], aliases)
    return diagnostics.over_optimisation(ppo.jsonl("history"), given, read_gold(source))


def _teachers(profile_path: str, seed: int) -> list[Stage]:
    """The responses of every teacher to every dataset."""
    profile = load_profile(ROOT / profile_path)
    return [
        make_stage("01_teacher_responses", profile_path, seed=seed, dataset=dataset, teacher=teacher)
        for dataset in profile.datasets
        for teacher in profile.teachers
    ]


def _thresholds(stages: list[Stage]) -> pd.DataFrame:
    """The sweep of the vote's threshold over the responses of each of the teachers' stages."""
    frames = []
    for stage in stages:
        if stage.name == "01_teacher_responses" and not stage.variant:
            source = stage.at("00_gold").require()
            gold = read_gold(source).dropna()
            if len(gold):
                thresholds = stage.profile.grid.threshold
                table = curve_tables.threshold_sweep(stage.table("responses"), gold, thresholds, read_aliases(source))
                frames.append(table.assign(dataset=stage.dataset, teacher=stage.teacher))
    return pd.concat(frames, ignore_index=True)


def _arm(run: Run) -> dict[str, Any]:
    """What names a run in the tables of the reviewers' questions."""
    return {"cell": run.cell, "question": run.experiment, "arm": run.arm, "level": run.level}


def answers_table(found: list[Run]) -> pd.DataFrame:
    """Per-question correctness of finished runs.

    Columns cell, question, arm, level, reference, benchmark, seed, id, correct.
    """
    frames = []
    for run in found:
        table = run.stage.table("answers")[["benchmark", "id", "correct"]]
        frames.append(table.assign(**_arm(run), reference=run.reference, seed=run.stage.seed))
    columns = ["cell", "question", "arm", "level", "reference", "benchmark", "seed", "id", "correct"]
    return pd.concat(frames, ignore_index=True)[columns].astype({"level": float})


def arm_costs(found: list[Run]) -> pd.DataFrame:
    """The costs of every stage behind every arm, with the number of parameters of its model."""
    frames = []
    for run in found:
        stages = {stage.folder: stage for stage in (run.stage, *run.stage.upstream())}
        working = [stage for stage in stages.values() if "teacher" in stage.spec.axes and stage.name[:2] != "02"]
        sizes = [int(ledger.parameters_of(one)) for one in working]
        readers = [int(ledger.parameters_of_reader(one)) for one in working]
        frames.append(costs(working).assign(parameters=sizes, reader_parameters=readers, **_arm(run)))
    return pd.concat(frames, ignore_index=True)
