"""The result tables of a study, read when they are asked for: what every table and figure is made from.

    evidence = open_results(Path("figures/results"))
    evidence.rows("answers", "R1")   # the answers of one experiment, of every seed that has it
    evidence.correctness             # the answers of the study and its ablations, each run once

Each seed has a folder (`seed0`, `seed1`, ...) of long tables, one file for each kind of row, which
`rdlib.study.results` writes. COLUMNS has the columns of each file. A column with a dot in its name is a setting: its
value where the row's model differs from the profile, else empty. VIEWS names the rows that exhibits read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from rdlib.errors import UserError
from rdlib.evidence import claims, looks, paper, sharpening, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.verdicts import Claim
from rdlib.profile import Profile

RUN = "experiment arm level reference cell"  # what names a run
STAGE = "key dataset teacher student method seed"  # a stage: the start of its key, its axes
# The measures of a learning curve, by stage.
MEASURES = {
    "03_sft_warmup": "step epoch agreement entropy eval_loss grad_norm learning_rate loss mean_token_accuracy",
    "05_reward_model": "step epoch grad_norm learning_rate loss pos_neg_auc pos_pos_auc",
    "06_ppo": "step update episodes reward rm_score kl entropy approx_kl clip_fraction value_clip_fraction policy_loss "
    "value_loss explained_variance response_length extractable agreement validation_agreement accuracy learning_rate",
    "13_baseline": "step epoch agreement entropy grad_norm learning_rate loss reward kl",
}
COUNTS = "questions failed labelled label_correct responses judged_right positives positives_right"  # of a vote
SWEEP = "threshold failure_ratio n coverage coverage_low coverage_high"  # of the vote's threshold
SWEEP += " label_accuracy label_accuracy_low label_accuracy_high"
COLUMNS = {
    "answers.parquet": f"{RUN} {STAGE} split moment benchmark id group n correct agrees tokens answered text",
    "responses.parquet": f"{RUN} {STAGE} policy id sample tokens text answer agrees correct score",
    "costs.parquet": f"{RUN} {STAGE} stage moment seconds tokens_generated tokens_trained tokens_read parameters "
    "reader_parameters gflop",
    "curves.parquet": f"{STAGE} stage {' '.join(dict.fromkeys(' '.join(MEASURES.values()).split()))}",
    "scores.parquet": f"{STAGE} stage id kind score ratio named recalled",
    "trainings.csv": f"{STAGE} stage measure start best best_step steps stopped_early",
    "votes.csv": f"{STAGE} stage split {COUNTS} {SWEEP}",
}
FILES = {name.partition(".")[0]: name for name in COLUMNS}
NAMES = set(f"{RUN} {STAGE} stage split moment benchmark group policy id kind measure".split())
NAMES -= {"level", "reference", "seed"}
INTEGERS = set(
    "seed n tokens text sample tokens_generated tokens_trained tokens_read parameters reader_parameters step update "
    "episodes named recalled best_step steps questions failed labelled label_correct responses judged_right positives "
    "positives_right".split()
)
# What of a seed was rerun on another processor, by `python -m rdlib verify --record`.
RERUNS = "reruns.csv"
RERUNS_COLUMNS = "seed stage released_from made_on commit stages same"
PROVENANCE = "provenance.json"
KEY_LENGTH = 12  # of a stage's key in the tables

# Of own questions without answers alone: what their held-out share is called wherever it is shown.
AGREEMENT = "agreement with the teacher's vote on held-out questions"
STUDY, ABLATIONS, QUESTIONS = "study", "ablations", "questions"  # groups of experiments that the report is about
STUDIED, ASKED = (STUDY, ABLATIONS), (QUESTIONS,)
REWARD_MODEL = "RM"  # the question whose runs are no arms: what the reward model can give
# The rows that exhibits read, by name: of which file and groups or experiments, and with which values of columns
VIEWS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "evaluated": ("answers", STUDIED, {}),
    "costs": ("costs", STUDIED, {"moment": ""}),
    "reward_scores": ("scores", STUDIED, {"stage": "05_reward_model"}),
    "sft_history": ("curves", STUDIED, {"stage": "03_sft_warmup"}),
    "reward_model_history": ("curves", STUDIED, {"stage": "05_reward_model"}),
    "ppo_history": ("curves", STUDIED, {"stage": "06_ppo"}),
    "trainings": ("trainings", STUDIED + ASKED, {}),
    "pseudo_labels": ("votes", STUDIED + ASKED, {"stage": "02_judgement"}),
    "thresholds": ("votes", STUDIED + ASKED, {"stage": "01_teacher_responses"}),
    "reviewers": ("answers", ASKED, {"split": "test"}),
    "question_costs": ("costs", ASKED, {"moment": ""}),
    "judged": ("responses", (REWARD_MODEL,), {}),
    "rounding": ("answers", ("rounding",), {"split": "test"}),
    "same_rate": ("answers", ("same_rate",), {"split": "test"}),
}


@dataclass(frozen=True)
class Evidence:
    """The results of some seeds' folders; VIEWS are attributes, each read once and only when it is asked for.

    `folders` are those of the study's seeds; `others` those of seeds that have other experiments alone. `edges` are
    those of the stages' DAG, for Figure 2. UserError, on reading, for a file that can't be used.
    """

    folders: tuple[Path, ...]
    edges: tuple[tuple[str, str], ...] = ()
    others: tuple[Path, ...] = ()
    kept: dict[Any, Any] = field(default_factory=dict, compare=False)

    def __getattr__(self, view: str) -> pd.DataFrame:
        if view not in VIEWS:
            raise AttributeError(view)
        if view not in self.kept:
            kind, names, values = VIEWS[view]
            once = names == STUDIED and kind in ("answers", "costs")
            arms = [name for name in (*names, *self.named(*names)) if names != ASKED or name != REWARD_MODEL]
            found = self.rows(kind, *arms, once=once, **values)
            self.kept[view] = found.rename(columns={"experiment": "question"}) if names == ASKED else found
        return self.kept[view]

    @cached_property
    def records(self) -> dict[Path, dict[str, dict]]:
        """What is recorded of each experiment, by folder."""
        return {folder: read_record(folder)["experiments"] for folder in (*self.folders, *self.others)}

    def named(self, *groups: str) -> list[str]:
        """The experiments of some groups, in the order of the seeds."""
        known = (item for found in self.records.values() for item in found.items())
        return list(dict.fromkeys(name for name, record in known if record["group"] in groups))

    def seeds_of(self, *experiments: str) -> tuple[Path, ...]:
        """The folders that have some of these experiments."""
        return tuple(folder for folder, found in self.records.items() if set(experiments) & set(found))

    def rows(
        self, kind: str, *experiments: str, once: bool = False, by_run: bool = False, **values: str
    ) -> pd.DataFrame:
        """The rows of one kind ("answers", "curves", ...) of some experiments, with the overrides as text, `variant`.

        `values`: of columns that the rows must have. `once`: of runs that are one model, the rows of the first alone.
        `by_run`: rows of stages once for each run that they belong to, with what names the run, and whether it is its
        `last` stage. The answers of the split "test" are right or wrong, so `correct` is a bool there.
        """
        parts = [self._rows(folder, kind, experiments, by_run) for folder in self.seeds_of(*experiments)]
        empty = pd.DataFrame(columns=[*COLUMNS[FILES[kind]].split(), "variant"])
        table = pd.concat(parts, ignore_index=True) if parts else empty
        table = tables.select(table, **values)
        table = table.astype({"correct": bool}) if values.get("split") == "test" else table
        if once and len(table):
            run = table.groupby(["experiment", "arm", "cell", "level"], sort=False, dropna=False).ngroup()
            table = table[run == run.groupby(table["key"]).transform("min")]
        # whole numbers where none is missing, and floating-point numbers where some are
        whole = {name: "float64" if table[name].isna().any() else "int64" for name in INTEGERS & set(table)}
        return table.astype(whole).reset_index(drop=True)

    def _rows(self, folder: Path, kind: str, experiments: Iterable[str], by_run: bool) -> pd.DataFrame:
        relation = self._relation(folder)
        relation = relation[relation["experiment"].isin(experiments)]
        table = read_rows(folder / FILES[kind], experiments)
        if "experiment" not in table:
            table = table[table["key"].isin(relation["key"])]
            if by_run:
                runs = relation.drop(columns=["stage", "variant"]).drop_duplicates([*RUN.split(), "key"])
                table = runs.merge(table, on="key", sort=False)
        variants = relation.drop_duplicates("key").set_index("key")["variant"]
        return table.assign(variant=table["key"].map(variants).fillna(""))

    def _relation(self, folder: Path) -> pd.DataFrame:
        """Which stages each run has, with their overrides as text: a row a run and stage."""
        if folder not in self.kept:
            table = read_rows(folder / FILES["costs"])
            stages = table.drop_duplicates("key")
            settings = sorted(column for column in table if "." in column)
            texts = [
                ",".join(f"{name}={value}" for name, value in row.items() if not pd.isna(value))
                for row in stages[settings].to_dict("records")
            ]
            variants = dict(zip(stages["key"], texts, strict=True))
            stages = table[table["stage"] != "all"]
            last = ~stages.duplicated(RUN.split(), keep="last")
            self.kept[folder] = stages[[*RUN.split(), "key", "stage"]].assign(
                variant=stages["key"].map(variants), last=last
            )
        return self.kept[folder]

    # ---- the study

    @cached_property
    def asks_for_all(self) -> bool:
        """Whether the study is of benchmarks, and every method and ablation is there in full.

        Of another one, exhibits without any run are left out and claims without any are not judged.
        """
        grid, datasets = self.settings.get("grid", {}), self.settings.get("datasets", {})
        narrowed = any(grid.get(name) is not None for name in ("methods", "ablations"))
        own = any(dataset.get("source") == "questions" for dataset in datasets.values())
        found = [[one for one in self.records[f].values() if one["group"] in STUDIED] for f in self.folders]
        whole = all({one["group"] for one in some} == set(STUDIED) for some in found)
        return whole and not (narrowed or own or any(one.get("missing") for some in found for one in some))

    @cached_property
    def correctness(self) -> pd.DataFrame:
        """Graded answers to test questions, a row an answer."""
        return tables.select(self.evaluated, split="test").astype({"correct": bool})

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Answers to held-out questions with a vote of the teacher, a row an answer; `held_out` counts all questions.

        None where no held-out question without an answer was compared with a vote.
        """
        found = tables.select(self.evaluated, split="held-out").drop(columns="correct")
        found = found.assign(held_out=found.groupby(["key", "teacher"])["id"].transform("size"))
        return found.dropna(subset="agrees").astype({"agrees": bool})

    def sharpening(self, *counts: str) -> pd.DataFrame:
        """What PPO changed in the judged samples, with k of pass@k as named: `rdlib.evidence.sharpening.changes`."""
        if counts not in self.kept:
            self.kept[counts] = sharpening.changes(self.judged, counts) if len(self.judged) else self.judged
        return self.kept[counts]

    @property
    def of_own_questions(self) -> bool:
        """Whether the results say what the answers to own questions look like."""
        return bool(self.evaluated["tokens"].notna().any())

    @cached_property
    def example(self) -> dict:
        """The question that the report follows through the study with its responses and their scores; {} for none."""
        path = self.folders[0] / "example.json"
        return read_json(path) if path.is_file() else {}

    @property
    def sampling_note(self) -> str:
        """How the teacher was sampled, where not at temperatures that the profile names; else empty."""
        own = self.settings.get("teacher_sampling", {}).get("temperatures") == "default"
        return "The teacher was sampled at its provider's own temperature." if own else ""

    @cached_property
    def settings(self) -> dict:
        """The profile that the seeds were run with."""
        return read_json(self.folders[0] / "settings.json")

    def default(self, key: str) -> float:
        """A setting of the reward model that an ablation's unmarked run is known by; 0.5 where it is missing."""
        value = paper.lookup(self.settings, key)
        return 0.5 if value is None else float(value)

    @property
    def benchmarks(self) -> dict[str, str]:
        """The benchmarks' names in figures."""
        return looks.benchmark_names(self.settings.get("datasets", {}))

    def claims(self, *names: str) -> list[Claim]:
        """The paper's claims, judged: these, or all; each once. Of a part of a study those that its runs can judge."""
        criteria = load_criteria()
        for name in (one for one in names or criteria if ("claim", one) not in self.kept):
            self.kept["claim", name] = claims.judged(name, criteria[name], self)
        found = [self.kept["claim", name] for name in names or criteria]
        return found if self.asks_for_all else [one for one in found if one.cells and np.isfinite(one.pooled.estimate)]

    @cached_property
    def measured(self) -> dict[int, dict]:
        """Minutes, memory and disk of the seeds that were measured, by seed."""
        return {seed_of(f): read_json(f / "measured.json") for f in self.folders if (f / "measured.json").is_file()}

    @cached_property
    def commits(self) -> list[str]:
        """The commits that the seeds of the study and of the questions were made by."""
        found = [origin(folder, *STUDIED, *ASKED) for folder in self.folders]
        return sorted({commit for one in found if one for commit in one["commits"]})


# ---- reading


def unnamed(label: str) -> str:
    """A stage's label without the name of its profile."""
    return label.partition("/")[2]


def origin(folder: Path, *chosen: str) -> dict[str, Any] | None:
    """Where the experiments of a seed come from that have one of these names or groups (default: all); None for none.

    Of the first its command and start; of their stages all `commits` and numerical modes, whether any was made with
    uncommitted changes, and the environment in which most were made.
    """
    record = read_record(folder)
    known = record["experiments"].items()
    found = [one for name, one in known if not chosen or {name, one["group"]} & set(chosen)]
    if not any(one["stages"] for one in found):
        return None
    made = [stage["made"] for one in found for stage in one["stages"].values()]
    environments = [record["environments"][number] for number in sorted(set(made), key=made.count, reverse=True)]
    return {
        "seed": record["seed"],
        "profile": record["profile"],
        "command": found[0]["command"],
        "started": min(one["started"] for one in found),
        "commits": sorted({commit for one in environments for commit in one["commits"]}),
        "numerics": sorted({one.get("numerics", "native") for one in environments}),
        "dirty": any(one["dirty"] for one in environments),
        "environment": environments[0],
    }


def read_record(folder: Path) -> dict:
    """Where the results of one seed come from; UserError for results of before version 1.1.0."""
    record = read_json(folder / PROVENANCE)
    if "experiments" not in record:
        raise UserError(
            f"{folder} has the result files of version 1.0.0: run `python scripts/convert_results.py {folder.parent}`, "
            f"which writes those of today beside nothing lost."
        )
    return record


def read_rows(path: Path, experiments: Iterable[str] | None = None) -> pd.DataFrame:
    """A file of rows, or of some experiments' alone, with its names as text; UserError for one that can't be used."""
    try:
        if path.suffix == ".csv":
            kinds = dict.fromkeys(NAMES, str)
            table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
        else:
            some = None if experiments is None or "experiment" not in COLUMNS[path.name] else list(experiments)
            table = pd.read_parquet(path, filters=some and [("experiment", "in", some)])
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None
    if missing := [name for name in COLUMNS[path.name].split() if name not in table]:
        raise UserError(f"{path} lacks the column {missing[0]!r}: run `make study` to write it again.")
    return table.assign(**{name: table[name].fillna("").astype(str) for name in NAMES & set(table)})


def open_results(results: Path, seeds: Iterable[int] | None = None, edges: Iterable[tuple[str, str]] = ()) -> Evidence:
    """The evidence of these seeds (default: of all that the study has), their settings compared.

    UserError where there is no seed, or one was run with other settings than the first.
    """
    folders = seed_folders(results) if seeds is None else [results / f"seed{seed}" for seed in seeds]
    if not folders:
        raise UserError(f"{results} holds no results of any seed (seed0, ...): run `make study`, which writes them.")
    require_one_profile(folders)
    others = [folder for folder in every_seed(results) if folder not in {*folders, *seed_folders(results)}]
    return Evidence(tuple(folders), tuple(edges), tuple(others))


def require_one_profile(folders: Sequence[Path]) -> None:
    """UserError for a seed that was made with other settings than the first of them."""
    settings = [settings_of(folder) for folder in folders]
    for folder, found in zip(folders, settings, strict=True):
        if found != settings[0]:
            raise UserError(
                f"{folder} was made with other settings than {folders[0]}: run that seed again with the same "
                f"profile, or remove the folder."
            )


def seed_folders(results: Path) -> list[Path]:
    """The folders of the study's seeds, in order; where none has an experiment of the report, all that are there."""
    found = every_seed(results)
    return [folder for folder in found if _is_of_the_study(folder)] or found


def every_seed(results: Path) -> list[Path]:
    """The folders of all seeds whose results are there, in order of the seeds."""
    found = [path for path in results.glob("seed*") if path.is_dir() and path.name[4:].isdecimal()]
    return sorted(found, key=seed_of)


def _is_of_the_study(folder: Path) -> bool:
    if not (folder / PROVENANCE).is_file():
        return True
    groups = {one["group"] for one in read_json(folder / PROVENANCE).get("experiments", {}).values()}
    return not groups or bool(groups & {STUDY, ABLATIONS, QUESTIONS})


def seed_of(folder: Path) -> int:
    """The seed of a folder of results."""
    return int(folder.name[4:])


def settings_of(folder: Path) -> dict:
    """The profile of the results of one seed as today's would be written, to be compared with another seed's.

    Settings added since are at their defaults; a profile that today's schema does not take stays as it is.
    """
    settings = read_json(folder / "settings.json")
    try:
        return Profile(**settings).model_dump()
    except ValidationError:
        return settings


def read_json(path: Path) -> dict:
    """A JSON object of the results; UserError for one that is missing or can't be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: run `make study` to write it again.")
    return content


def _unusable(path: Path, error: Exception) -> UserError:
    """The sentence for a file that is missing or broken."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is missing: run `make study`, which writes it.")
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
    return UserError(f"{path} can't be read ({reason}): run `make study` to write it again.")
