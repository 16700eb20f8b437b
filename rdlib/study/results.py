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
from collections.abc import Callable, Iterable, Sequence
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
from rdlib.profile import Profile, load_profile
from rdlib.study import experiments
from rdlib.study.experiments import Experiment, Run
from rdlib.study.rows import Finished
from rdlib.study.specification import METHODS
from rdlib.study.stage import Stage, _in_a_name, without_places

FLAGS = {"reference", "answered", "stopped_early"}
NUMBERS = {"level", "correct", "agrees", "gflop", "seconds", "ratio", "start", "best"}
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
        """The content of every stage of some experiments, by label without the profile's name."""
        found = [self.experiments[name] for name in names if name in self.experiments]
        stages = (item for one in found for item in one["stages"].items())
        return {unnamed(label): one["content"] for label, one in stages}


def name_of(experiment: Experiment) -> str:
    """What result tables call an experiment: its name; of another file than the study's with that file's, "own:lr"."""
    own = experiment.path in ("", experiments.STUDY)
    return experiment.name if own else f"{Path(experiment.path).stem}:{experiment.name}"


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
    found: dict[tuple[str, int], dict[str, tuple[Experiment, list[Run]]]] = {}
    for experiment in asked or study_experiments():
        for run in wanted_runs(experiment, profile_path, seeds, methods, named=bool(asked)):
            of_seed = found.setdefault((run.stage.profile_path, run.stage.seed), {})
            of_seed.setdefault(name_of(experiment), (experiment, []))[1].append(run)
    folder = results_folder(profile_path)
    for (path, seed), of_seed in found.items():
        folder = results_folder(path)
        new = gather(path, seed, list(of_seed.values()), partial=partial)
        write(folder / f"seed{seed}", merged(read(folder / f"seed{seed}"), new))
    return folder


def collect_questions(profile_path: str, seeds: Sequence[int]) -> Path:
    """Gather what answers the reviewers' questions, beside the study; returns the folder that holds the seeds."""
    return collect(profile_path, seeds, experiments.named(["questions"]))


def study_experiments() -> list[Experiment]:
    """The study's own experiments and the ablations."""
    return [one for one in experiments.load().values() if one.group in ("study", "ablations")]


def wanted_runs(
    experiment: Experiment, profile_path: str, seeds: Sequence[int], methods: Sequence[str], named: bool
) -> list[Run]:
    """The runs of an experiment; of the study's those that the profile asks for, and whole parts that are finished."""
    if experiment.name != "main" and (named or experiment.group == "study"):
        return experiments.runs(experiment, profile_path, seeds)
    profile = load_profile(ROOT / profile_path)
    every = experiments.runs(experiment, profile_path, seeds, METHODS)
    more = [run for run in every if not _is_asked_for(run, experiment, profile, methods)]
    parts: dict[tuple[str, int], list[Run]] = {}
    for run in more:
        parts.setdefault((run.arm if experiment.name == "main" else "", run.stage.seed), []).append(run)
    left_out = {run.stage.folder for part in parts.values() if not all(r.stage.done for r in part) for run in part}
    return [run for run in every if run.stage.folder not in left_out]


def _is_asked_for(run: Run, experiment: Experiment, profile: Profile, methods: Sequence[str]) -> bool:
    dataset = run.stage.dataset
    if experiment.name == "main":
        return run.stage.method in experiments.methods_of(profile, dataset, methods)
    return experiment.name in experiments.ablations_of(profile, dataset)


# ---- gathering


def gather(
    profile_path: str,
    seed: int,
    found: Sequence[tuple[Experiment, list[Run]]],
    source: Finished | None = None,
    partial: bool = False,
) -> Seed:
    """The results of some runs of one seed. `source`: where rows come from; without one, the stages' artifacts."""
    rows, records = _Rows(source or Finished()), {}
    for experiment, runs in found:
        done = [run for run in runs if not partial or all(one.done for one in _ends(run, experiment))]
        stages = [stage for run in done for stage in rows.add(run, experiment)]
        if stages:
            records[name_of(experiment)] = _record(experiment, stages, rows) | {"missing": len(runs) - len(done)}
    record = {"profile": profile_path, "seed": seed, "environments": rows.environments, "experiments": records}
    documents = {"settings.json": load_profile(ROOT / profile_path).model_dump()}
    return Seed(record, rows.tables(), documents | _documents(profile_path, seed, rows.stages))


def _record(experiment: Experiment, stages: list[Stage], rows: _Rows) -> dict[str, Any]:
    """Where an experiment's rows come from: title, command, and key, content and environment of every stage."""
    made = {stage.label: rows.made(stage) for stage in experiments.with_upstream(stages)}
    profile_path, seed = stages[0].profile_path, stages[0].seed
    return {
        "title": experiment.title,
        "group": experiment.group,
        "file": experiment.path,
        "profile": profile_path,
        "command": _command(experiment, profile_path, seed),
        "started": min(one["started"] for one in made.values()),
        "stages": {label: {name: one[name] for name in ("key", "content", "made")} for label, one in made.items()},
    }


def _ends(run: Run, experiment: Experiment) -> list[Stage]:
    """The stages of a run that nothing of it reads: its last one, and those that measure it."""
    return [run.stage, *experiments.measures_of(run, experiment)]


def _command(experiment: Experiment, profile_path: str, seed: int) -> str:
    """The command that makes an experiment's runs again."""
    own = experiment.path in ("", experiments.STUDY)
    words = f"python -m rdlib study --profile {without_places(profile_path)} --seeds {seed}"
    if experiment.group in ("study", "ablations"):
        return words
    return f"{words} --experiments {experiment.name if own else f'{experiment.path}:{experiment.name}'}"


class _Rows:
    """Rows as they are gathered, each stage's once; `stages` are those seen so far."""

    def __init__(self, source: Finished) -> None:
        self.source = source
        self.stages: list[Stage] = []
        self.environments: dict[str, dict] = {}
        self._made: dict[Path, dict] = {}
        self._costs: dict[Path, dict] = {}
        self._there: set[tuple[str, str, str]] = set()
        self._frames: dict[str, list[pd.DataFrame]] = {kind: [] for kind in FILES}

    def made(self, stage: Stage) -> dict[str, Any]:
        """What is recorded of a stage; `made` names its environment among `environments`."""
        if stage.folder not in self._made:
            found = self.source.made(stage)
            environment = dict(found.pop("environment"))
            environment["commits"] = environment.get("commits", [environment.pop("commit", "")])
            number = artifacts.content_hash(environment)[:8]
            self.environments[number] = environment
            self._made[stage.folder] = found | {"made": number}
        return self._made[stage.folder]

    def axes(self, stage: Stage) -> dict[str, Any]:
        """The columns that name a stage, with its overrides as settings."""
        settings = {k: v if isinstance(v, bool | int | float) else _in_a_name(v) for k, v in stage.overrides.items()}
        axes = {name: value for name, value in stage.columns.items() if name != "variant"}
        return {"key": self.made(stage)["key"][:KEY_LENGTH]} | axes | settings

    def add(self, run: Run, experiment: Experiment) -> list[Stage]:
        """Add the rows of a run; returns its last stage and those that measure it."""
        measures = experiments.measures_of(run, experiment)
        names = run.columns | {"experiment": name_of(experiment), "reference": run.reference}
        for stage, frame in self.source.answers(run, measures):
            self._put("answers", frame, names | self.axes(stage))
        self._put("responses", self.source.responses(run, measures), names | self.axes(run.stage))
        for stage in experiments.with_upstream([run.stage]):
            self._add_stage(stage)
            axes = self.axes(stage) | {"stage": stage.name, "moment": ""}
            self._put("costs", pd.DataFrame([self._costs[stage.folder]]), names | axes)
        totals = pd.DataFrame(self.source.totals(run, measures))
        self._put("costs", totals, names | self.axes(run.stage) | {"stage": "all"})
        for stage in measures:
            self._put_once("scores", self.source.scores, stage, self.axes(run.stage))
        return [run.stage, *filter(self.source.knows, measures)]

    def _add_stage(self, stage: Stage) -> None:
        """Add the rows that are a stage's own, once."""
        if stage.folder in self._costs:
            return
        self.stages.append(stage)
        self._costs[stage.folder] = {"seconds": None} | self.source.cost(stage)
        kinds = {"curves": self.source.curve, "scores": self.source.scores, "votes": self.source.votes}
        for kind, read in (kinds | {"trainings": self.source.ending}).items():
            self._put_once(kind, read, stage, self.axes(stage))

    def _put_once(self, kind: str, read: Callable[[Stage], pd.DataFrame], stage: Stage, axes: dict[str, Any]) -> None:
        """Add the rows of a stage, unless they are there."""
        if (kind, axes["key"], stage.name) not in self._there:
            self._there.add((kind, axes["key"], stage.name))
            self._put(kind, read(stage), axes | {"stage": stage.name})

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


def _documents(profile_path: str, seed: int, stages: list[Stage]) -> dict[str, Any]:
    """The JSON files of a seed beside its tables, of the stages that are there."""
    found = {}
    for stage in stages:
        if stage.name == "00_data" and stage.dataset_settings.source in ("gsm8k", "mmlu_pro"):
            found[f"split_ids_{stage.dataset}.json"] = stage.json("split_ids")
    first = load_profile(ROOT / profile_path).grid.ablation_cells[0].model_dump()
    reward_model = Stage("05_reward_model", profile_path, method="ours", seed=seed, root=ROOT, **first)
    if any(stage.folder == reward_model.folder and stage.done for stage in stages):
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
    """The experiments of `old` that `new` does not have, and with which it shares a stage that came out differently."""
    kept = [name for name in old.experiments if name not in new.experiments]
    before, now = old.contents(old.experiments), new.contents(new.experiments)
    changed = {label for label, content in now.items() if before.get(label, content) != content}
    return [name for name in kept if changed & set(old.contents([name]))]


def merged(old: Seed | None, new: Seed, without: Iterable[str] | None = None) -> Seed:
    """The experiments of both, those of `new` in place of the same ones; of `old` those that are not `outdated`.

    `without`: those of `old` that are left out in place of the outdated ones.
    """
    if old is None:
        return new
    gone = {*new.experiments, *(outdated(old, new) if without is None else without)}
    records = {name: one for name, one in old.experiments.items() if name not in gone} | new.experiments
    keys = {one["key"][:KEY_LENGTH] for record in records.values() for one in record["stages"].values()}
    tables, places = {}, {name: place for place, name in enumerate(sorted(records, key=_place))}
    for name in COLUMNS:
        before, now = old.tables[name], new.tables[name]
        if _of_stages(name):
            kept = before["key"].isin(keys) & ~(before["key"] + before["stage"]).isin(now["key"] + now["stage"])
        else:
            kept = ~before["experiment"].isin(gone)
        both = pd.concat([part for part in (before[kept], now) if len(part)] or [now], ignore_index=True)
        if not _of_stages(name):
            both = both.sort_values("experiment", key=lambda names: names.map(places), kind="stable", ignore_index=True)
        tables[name] = in_shape(both, name)
    made = {one["made"] for record in records.values() for one in record["stages"].values()}
    environments = old.record["environments"] | new.record["environments"]
    record = new.record | {"experiments": records, "environments": {k: environments[k] for k in sorted(made)}}
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
