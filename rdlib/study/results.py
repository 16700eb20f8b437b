"""Result tables: the outputs of finished stages, gathered into long tables, one folder for each seed.

    collect("params/micro.yaml", [0, 1])                  # the study, as far as the profile asks for it
    collect("params/micro.yaml", [0], named(["R1"]))      # an experiment beside it

Every table and figure is drawn from these files alone (`rdlib.evidence.gallery`), so the released ones, in
`figures/results`, redraw everything without training. Rows of other experiments stay in a seed's folder, as long as
the stages that both need are the same.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rdlib import artifacts
from rdlib.evidence.result_tables import (
    COLUMNS,
    FILES,
    INTEGERS,
    KEY_LENGTH,
    NAMES,
    PROVENANCE,
    read_record,
    read_rows,
    unnamed,
)
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import experiments, rows
from rdlib.study.experiments import Experiment, Run
from rdlib.study.specification import METHODS
from rdlib.study.stage import Stage, _in_a_name, without_places

FLAGS = {"reference", "answered", "stopped_early"}
NUMBERS = {"level", "correct", "agrees", "gflop", "seconds", "ratio", "start", "best"}
# What is read of a stage itself, by kind of row
OF_A_STAGE = {"curves": rows.history, "scores": rows.scores, "votes": rows.votes, "trainings": rows.ending}
KINDS = {"integer": "Int64", "floating": "float64", "boolean": "boolean"}  # of a setting


@dataclass
class Seed:
    """The results of one seed: their tables by file, where they come from, and the other files."""

    record: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    documents: dict[str, Any] = field(default_factory=dict)

    @property
    def experiments(self) -> dict[str, dict]:
        """What is recorded of each experiment."""
        return self.record["experiments"]

    def contents(self, names: Iterable[str]) -> dict[str, str]:
        """The content of every stage of some experiments, by label."""
        found = [self.experiments[name] for name in names if name in self.experiments]
        stages = (item for one in found for item in one["stages"].items())
        return {label: one["content"] for label, one in stages}


def name_of(experiment: Experiment) -> str:
    """What result tables call an experiment: its name; of another file than the study's with that file's, "own:lr"."""
    of_study = experiment.path == experiments.STUDY
    return experiment.name if of_study else f"{Path(experiment.path).stem}:{experiment.name}"


def results_folder(profile_path: str) -> Path:
    """Where the results of a profile's studies lie: one folder a seed."""
    profile = load_profile(ROOT / profile_path)
    return ROOT / profile.runs / profile.name / "results"


# ---- which runs


def collect(
    profile_path: str,
    seeds: Sequence[int],
    asked: Sequence[Experiment] = (),
    methods: Sequence[str] = (),
    partial: bool = False,
) -> Path:
    """Gather finished runs into the folder of each seed; returns the folder that holds them.

    `asked`: the experiments; without any, the study with the ablations that the profile asks for, and whatever of its
    methods and ablations is finished besides. `methods`: of the main grid beside those of the profile. UserError for a
    run that is not finished; with `partial` it is left out instead.
    """
    studied = [one for one in experiments.load().values() if one.group in ("study", "ablations")]
    found: dict[tuple[str, int], dict[str, tuple[Experiment, list[Run]]]] = {}
    for experiment in asked or studied:
        for run in wanted_runs(experiment, profile_path, seeds, methods, named=bool(asked)):
            of_seed = found.setdefault((run.stage.profile_path, run.stage.seed), {})
            of_seed.setdefault(name_of(experiment), (experiment, []))[1].append(run)
    folder = results_folder(profile_path)
    for (path, seed), of_seed in found.items():
        folder = results_folder(path)
        new = gather(path, seed, list(of_seed.values()), partial)
        write(folder / f"seed{seed}", merged(read(folder / f"seed{seed}"), new))
    return folder


def collect_questions(profile_path: str, seeds: Sequence[int]) -> Path:
    """Gather what answers the reviewers' questions, beside the study; returns the folder that holds the seeds."""
    return collect(profile_path, seeds, experiments.named(["questions"]))


def wanted_runs(
    experiment: Experiment, profile_path: str, seeds: Sequence[int], methods: Sequence[str], named: bool
) -> list[Run]:
    """The runs of an experiment; of the study's those that the profile asks for, and whole parts that are finished.

    A part is a method of the main grid, or an ablation, in one seed.
    """
    every = experiments.runs(experiment, profile_path, seeds, METHODS)
    if named and experiment.name != "main":
        return every
    profile = load_profile(ROOT / profile_path)
    parts: dict[tuple[str | None, int], list[Run]] = {}
    for run in every:
        method = run.stage.method if experiment.name == "main" else None
        if not experiments.is_asked_for(experiment, profile, run.stage.dataset, method, methods):
            parts.setdefault((method, run.stage.seed), []).append(run)
    left_out = {run.stage.folder for part in parts.values() if not all(r.stage.done for r in part) for run in part}
    return [run for run in every if run.stage.folder not in left_out]


# ---- gathering


def gather(profile_path: str, seed: int, found: Sequence[tuple[Experiment, list[Run]]], partial: bool = False) -> Seed:
    """The results of some runs of one seed; UserError for one that is not finished, which `partial` leaves out."""
    gathered, records = _Gathered(), {}
    for experiment, runs in found:
        measured = [(run, experiments.measures_of(run, experiment)) for run in runs]
        done = [(run, more) for run, more in measured if not partial or all(one.done for one in (run.stage, *more))]
        for run, measures in done:
            gathered.add(run, measures, name_of(experiment))
        if done:
            stages = experiments.with_upstream(one for run, measures in done for one in (run.stage, *measures))
            made = {stage.label: gathered.made(stage) for stage in stages}
            record = record_of(experiment, profile_path, seed, made)
            records[name_of(experiment)] = record | {"missing": len(runs) - len(done)}
    record = {"profile": profile_path, "seed": seed, "environments": gathered.environments, "experiments": records}
    return Seed(record, gathered.tables(), _documents(profile_path, seed, gathered.stages))


def record_of(experiment: Experiment, profile_path: str, seed: int, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Where an experiment's rows come from: title, command, and key, content and environment of every stage."""
    words = f"python -m rdlib study --profile {without_places(profile_path)} --seeds {seed}"
    named = experiment.group not in ("study", "ablations")
    return {
        "title": experiment.title,
        "group": experiment.group,
        "file": experiment.path,
        "profile": profile_path,
        "command": f"{words} --experiments {experiment.key}" if named else words,
        "started": min(one["started"] for one in made.values()),
        "stages": {label: {name: one[name] for name in ("key", "content", "made")} for label, one in made.items()},
    }


def add_environment(environments: dict[str, dict], found: dict[str, Any]) -> str:
    """Put what made a stage among the environments of a seed; returns its number there."""
    number = artifacts.content_hash(found)[:8]
    environments[number] = found
    return number


def columns_of(stage: Stage, key: str) -> dict[str, Any]:
    """The columns that name a stage, with its overrides as settings."""
    settings = {k: v if isinstance(v, bool | int | float) else _in_a_name(v) for k, v in stage.overrides.items()}
    axes = {name: value for name, value in stage.columns.items() if name != "variant"}
    return {"key": key[:KEY_LENGTH]} | axes | settings


class _Gathered:
    """Rows as they are gathered; `stages` has those that runs read, by their folders, each once."""

    def __init__(self) -> None:
        self.environments: dict[str, dict] = {}
        self.stages: dict[Path, Stage] = {}
        self._made: dict[Path, dict] = {}
        self._costs: dict[Path, pd.DataFrame] = {}
        self._scored: set[tuple[Path, Path]] = set()
        self._frames: dict[str, list[pd.DataFrame]] = {kind: [] for kind in FILES}

    def made(self, stage: Stage) -> dict[str, Any]:
        """What is recorded of a finished stage; UserError where it is not finished."""
        if stage.folder not in self._made:
            stage.require()
            manifest = artifacts.read_manifest(stage.folder)
            environment = dict(manifest["environment"])
            environment["commits"] = [environment.pop("commit", "")]
            self._made[stage.folder] = {
                "key": manifest["key"],
                "content": artifacts.content_hash(manifest["files"]),
                "started": manifest["started"],
                "made": add_environment(self.environments, environment),
            }
        return self._made[stage.folder]

    def columns(self, stage: Stage) -> dict[str, Any]:
        """`columns_of` a finished stage."""
        return columns_of(stage, self.made(stage)["key"])

    def add(self, run: Run, measures: Sequence[Stage], experiment: str) -> None:
        """Add the rows of a run, of what measures it, and of each stage that it reads where they are not there yet."""
        names = run.columns | {"experiment": experiment, "reference": run.reference}
        own = self.columns(run.stage)
        for stage, frame in rows.answers(run, measures):
            self._put("answers", frame, names | self.columns(stage))
        self._put("responses", rows.responses(run, measures), names | own)
        for stage in experiments.with_upstream([run.stage]):
            named = self.columns(stage) | {"stage": stage.name}
            if stage.folder not in self.stages:
                self.stages[stage.folder] = stage
                self._costs[stage.folder] = pd.DataFrame([rows.cost(stage)])
                for kind, read in OF_A_STAGE.items():
                    self._put(kind, read(stage), named)
            self._put("costs", self._costs[stage.folder], names | named | {"moment": ""})
        self._put("costs", rows.totals(run, measures), names | own | {"stage": "all"})
        for stage in measures:
            if (stage.folder, run.stage.folder) not in self._scored:
                self._scored.add((stage.folder, run.stage.folder))
                self._put("scores", rows.scores(stage), own | {"stage": stage.name})

    def _put(self, kind: str, frame: pd.DataFrame, names: dict[str, Any]) -> None:
        """Add a frame with the columns that name its rows, where it does not have them itself."""
        if len(frame):
            whole = {k: pd.array([v] * len(frame), dtype="Int64") for k, v in names.items() if "." in k and _is_int(v)}
            given = {k: v for k, v in (names | whole).items() if k not in frame}
            self._frames[kind].append(frame.assign(**given))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by file."""
        stacked = {kind: pd.concat(some, ignore_index=True) for kind, some in self._frames.items() if some}
        return {name: in_shape(stacked.get(kind, pd.DataFrame()), name) for kind, name in FILES.items()}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of_stages(name: str) -> bool:
    """Whether the rows of a file are of stages, and not of runs."""
    return "experiment" not in COLUMNS[name].split()


def in_shape(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table with the columns of its file, its settings after them, their types, and rows of stages in order."""
    settings = sorted(column for column in table if "." in column and table[column].notna().any())
    table = table.reindex(columns=[*COLUMNS[name].split(), *settings])
    kinds: dict[str, str] = dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(FLAGS, "boolean")
    kinds |= dict.fromkeys(NUMBERS, "float64") | {"score": "float32"}
    table = table.astype({column: kinds[column] for column in table if column in kinds})
    for column in settings:
        kind = pd.api.types.infer_dtype(table[column], skipna=True)
        table[column] = table[column].astype(KINDS.get(kind, "str"))
    names = [column for column in table if column in NAMES]
    table = table.assign(**{column: table[column].astype("object").fillna("").astype(str) for column in names})
    if not _of_stages(name):
        return table
    order = ["dataset", "teacher", "student", "method", "stage", *settings, "key"]
    return table.sort_values(order, kind="stable", na_position="first", ignore_index=True)


def _documents(profile_path: str, seed: int, stages: dict[Path, Stage]) -> dict[str, Any]:
    """The JSON files of a seed beside its tables; of stages by folder that are there."""
    profile = load_profile(ROOT / profile_path)
    found = {"settings.json": without_places(profile.model_dump())}
    for stage in stages.values():
        if stage.name == "00_data" and stage.dataset_settings.source in ("gsm8k", "mmlu_pro"):
            found[f"split_ids_{stage.dataset}.json"] = stage.json("split_ids")
    first = profile.grid.ablation_cells[0].model_dump()
    reward_model = Stage("05_reward_model", profile_path, method="ours", seed=seed, root=ROOT, **first)
    if reward_model.folder in stages:
        found["example.json"] = example(reward_model)
    return found


def example(reward_model: Stage) -> dict[str, Any]:
    """Table 1: a validation question with its answers and rewards."""
    scores = reward_model.table("scores")
    key = sorted(scores["id"])[0]
    questions = reward_model.at("00_data").table("questions").set_index("id")
    labels = reward_model.at("02_pseudo_labels").table("labels").set_index("id")
    shown = scores[scores["id"] == key].groupby("kind").first()
    names = {"teacher_positive": "teacher_response"}
    return {
        "id": key,
        "question": questions["question"][key],
        "pseudo_label": labels["pseudo_label"][key],
        **{names.get(kind, kind): shown["text"][kind] for kind in shown.index},
        "scores": {names.get(kind, kind): round(float(shown["score"][kind]), 4) for kind in shown.index},
    }


# ---- a seed's folder


def read(folder: Path) -> Seed | None:
    """The results of a seed; None where there are none. UserError for those of before version 1.1.0."""
    if not (folder / PROVENANCE).is_file():
        return None
    tables = {name: in_shape(read_rows(folder / name), name) for name in COLUMNS}
    others = [path for path in folder.glob("*.json") if path.name != PROVENANCE]
    return Seed(read_record(folder), tables, {path.name: artifacts.read_json(path) for path in others})


def write(folder: Path, seed: Seed) -> None:
    """Write the results of a seed; their record last, since a folder that has it is whole."""
    (folder / PROVENANCE).unlink(missing_ok=True)
    for name, table in seed.tables.items():
        if name.endswith(".csv"):
            artifacts.write_bytes(folder / name, table.to_csv(index=False, float_format="%.6g").encode())
        else:
            _write_parquet(folder / name, table)
    for name, content in seed.documents.items():
        artifacts.write_json(folder / name, content)
    artifacts.write_json(folder / PROVENANCE, seed.record)


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table small: measures of curves and scores, which rarely repeat, byte by byte; the rest by dictionary."""
    content = pa.Table.from_pandas(table, schema=artifacts.schema_of(table), preserve_index=False)
    measures = [one.name for one in content.schema if pa.types.is_floating(one.type)] if _of_stages(path.name) else []
    others = [name for name in content.column_names if name not in measures]
    with artifacts.whole_or_absent(path) as temporary:
        pq.write_table(
            content,
            temporary,
            compression="zstd",
            compression_level=12,
            use_dictionary=others,
            use_byte_stream_split=measures,
        )


def outdated(old: Seed, new: Seed) -> list[str]:
    """The experiments of `old` that `new` does not have, and with which it shares a stage that came out differently.

    Stages of two profiles are not compared, but a rerun by another profile goes with the stage that it repeats.
    """
    kept = [name for name in old.experiments if name not in new.experiments]
    before, now = old.contents(old.experiments), new.contents(new.experiments)
    changed = {unnamed(label) for label, content in now.items() if before.get(label, content) != content}
    return [name for name in kept if changed & set(map(unnamed, old.contents([name])))]


def merged(old: Seed | None, new: Seed) -> Seed:
    """The experiments of both, those of `new` in place of the same ones; of `old` those that are not `outdated`."""
    if old is None:
        return new
    gone = {*new.experiments, *outdated(old, new)}
    kept = {name: one for name, one in old.experiments.items() if name not in gone}
    records = kept | new.experiments
    stages = [stage for one in records.values() for stage in one["stages"].values()]
    keys, made = ({stage[name] for stage in stages} for name in ("key", "made"))
    environments = old.record["environments"] | new.record["environments"]
    record = new.record | {"experiments": records, "environments": {k: environments[k] for k in sorted(made)}}
    tables, order = {}, sorted(records, key=_place)
    for name in COLUMNS:
        before, now = old.tables[name], new.tables[name]
        if _of_stages(name):
            again = (before["key"] + before["stage"]).isin(now["key"] + now["stage"])
            stay = before["key"].isin({key[:KEY_LENGTH] for key in keys}) & ~again
        else:
            stay = before["experiment"].isin(kept)
        both = pd.concat([part for part in (before[stay], now) if len(part)] or [now], ignore_index=True)
        if not _of_stages(name):
            both = both.sort_values("experiment", key=lambda names: names.map(order.index), kind="stable")
        tables[name] = in_shape(both.reset_index(drop=True), name)
    return Seed(record, tables, old.documents | new.documents)


def _place(name: str) -> tuple[int, str]:
    """The place of an experiment in its seed's tables: those of the study's file first, in its order."""
    known = list(experiments.load())
    return (known.index(name), "") if name in known else (len(known), name)


# ---- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib collect`."""
    parser.add_argument("--profile", required=True, help="profile of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (default: the profile's)")
    parser.add_argument("--experiments", nargs="+", help="names, groups, FILE or FILE:NAME (default: the study)")
    parser.add_argument("--methods", nargs="+", default=(), help="of the main grid, beside those of the profile")
    parser.add_argument("--partial", action="store_true", help="leave out runs that are not finished")


def run(options: argparse.Namespace) -> None:
    """Gather, and print where the tables are."""
    seeds = options.seeds or load_profile(ROOT / options.profile).grid.seeds
    asked = experiments.named(options.experiments or ())
    folder = collect(options.profile, seeds, asked, options.methods, options.partial)
    print(f"Result tables of seeds {', '.join(map(str, seeds))}: {os.path.relpath(folder)}")
