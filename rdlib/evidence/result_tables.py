"""The result tables of a study, read when they are asked for: what every table and figure is made from.

    evidence = open_results(Path("figures/results"))
    evidence.rows("answers", "R1")   # the answers of one experiment, of every seed that has it
    evidence.correctness             # the answers of the study and its ablations, each run once

Results lie in one folder a seed (`seed0`, `seed1`, ...), as `rdlib.study.results` writes them: long tables, a file a
kind of row. COLUMNS has what each file has; a column with a dot in its name is a setting in which the row's model
differs from the profile, and empty where it does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import accuracy, claims, diagnostics, looks, paper, power_tables, reruns, sharpening, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.verdicts import Claim
from rdlib.profile import Profile
from rdlib.settings import Section

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
REWARD_MODEL = "RM"  # the question whose runs are no arms: what the reward model can give
FOLLOWUPS = "followups"  # the file of the follow-up experiments
# The tables of a follow-up experiment: their file, and the rows and columns of it.
FOLLOWUP_TABLES = {
    "answers.parquet": ("answers", {"split": "validation"}, {"moment": "when"}),
    "ranking.parquet": ("answers", {"split": "best of n"}, {"moment": "strategy", "correct": "value"}),
    "tested.parquet": ("answers", {"split": "test"}, {}),
    "responses.parquet": ("scores", {"stage": "13_style"}, {}),
    "ppo.csv": ("curves", {"stage": "06_ppo"}, {}),
    "costs.csv": ("costs", {"stage": "all"}, {"moment": "when"}),
}


@dataclass(frozen=True)
class Evidence:
    """The results of some seeds' folders, each table read once and only when it is asked for.

    `folders` are those of the study's seeds; `others` those of seeds that have other experiments alone. `edges` are
    those of the stages' DAG, for Figure 2. UserError, on reading, for a file that can't be used.
    """

    folders: tuple[Path, ...]
    edges: tuple[tuple[str, str], ...] = ()
    others: tuple[Path, ...] = ()
    _kept: dict[Any, Any] = field(default_factory=dict, compare=False)

    # ---- rows

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
        `last` stage.
        """
        parts = [self._rows(folder, kind, experiments, by_run) for folder in self.seeds_of(*experiments)]
        empty = pd.DataFrame(columns=[*COLUMNS[FILES[kind]].split(), "variant"])
        table = pd.concat(parts, ignore_index=True) if parts else empty
        table = tables.select(table, **values)
        if once and len(table):
            run = table.groupby(["experiment", "arm", "cell", "level"], sort=False, dropna=False).ngroup()
            table = table[run == run.groupby(table["key"]).transform("min")]
        return plain(table).reset_index(drop=True)

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
        if folder not in self._kept:
            table = read_rows(folder / FILES["costs"])
            stages = table.drop_duplicates("key")
            settings = sorted(column for column in table if "." in column)
            texts = [_overrides(row, settings) for row in stages[settings].to_dict("records")]
            variants = dict(zip(stages["key"], texts, strict=True))
            stages = table[table["stage"] != "all"]
            last = ~stages.duplicated(RUN.split(), keep="last")
            self._kept[folder] = stages[[*RUN.split(), "key", "stage"]].assign(
                variant=stages["key"].map(variants), last=last
            )
        return self._kept[folder]

    # ---- the study

    @cached_property
    def _study(self) -> list[str]:
        return self.named(STUDY, ABLATIONS)

    @cached_property
    def asks_for_all(self) -> bool:
        """Whether the study is of benchmarks, and every method and ablation is there in full.

        Of another one, exhibits without any run are left out and claims without any are not judged.
        """
        grid, datasets = self.settings.get("grid", {}), self.settings.get("datasets", {})
        part = any(grid.get(name) is not None for name in ("methods", "ablations"))
        there = [[one for one in found.values() if not one.get("missing")] for found in self.records.values()]
        there = [{one["group"] for one in found} for found in there[: len(self.folders)]]
        whole = all({STUDY, ABLATIONS} <= groups for groups in there) and not self._in_part
        return whole and not part and all(dataset.get("source") != "questions" for dataset in datasets.values())

    @cached_property
    def _in_part(self) -> bool:
        """Whether runs of the study's experiments are missing."""
        return any(self.records[folder].get(name, {}).get("missing") for folder in self.folders for name in self._study)

    @cached_property
    def _evaluated(self) -> pd.DataFrame:
        return self.rows("answers", *self._study, once=True)

    @cached_property
    def correctness(self) -> pd.DataFrame:
        """Graded answers to test questions, a row an answer."""
        return tables.select(self._evaluated, split="test").astype({"correct": bool})

    @cached_property
    def _held_out(self) -> pd.DataFrame:
        return tables.select(self._evaluated, split="held-out")

    @property
    def holds_out(self) -> bool:
        """Whether held-out questions without answers were compared with the teacher's vote."""
        return bool(self._held_out["agrees"].notna().any())

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Answers to held-out questions with a vote of the teacher, a row an answer; `held_out` counts all questions.

        UserError where there are none.
        """
        if not self.holds_out:
            raise UserError(
                f"{self.folders[0].parent} has no {AGREEMENT}: it is measured where own questions have no answers."
            )
        counts = self._held_out.groupby(["key", "teacher"])["id"].transform("size")
        found = self._held_out.drop(columns="correct").assign(held_out=counts)
        return found.dropna(subset="agrees").astype({"agrees": bool})

    @property
    def of_own_questions(self) -> bool:
        """Whether the results say what the answers to own questions look like."""
        return bool(self._evaluated["tokens"].notna().any())

    @cached_property
    def greedy_answers(self) -> pd.DataFrame:
        """What the greedy answers to own test questions look like, a row an evaluation.

        `questions`, mean `tokens` of an answer, and the shares that are `answered` (an answer can be read) and
        `distinct`.
        """
        rows = self._evaluated.dropna(subset="tokens").drop_duplicates(["key", "id"])
        grouped = rows.groupby(["key", "dataset", "student", "method", "variant", "seed"], sort=False)
        table = grouped.agg(
            teacher=("cell", "first"),
            questions=("id", "size"),
            tokens=("tokens", "mean"),
            answered=("answered", "mean"),
            distinct=("text", "nunique"),
        ).reset_index()
        return table.assign(
            teacher=table["teacher"].str.split("/").str[1].where(table["method"] != "icl", ""),
            distinct=table["distinct"] / table["questions"],
        )

    @cached_property
    def trainings(self) -> pd.DataFrame:
        """How every training ended, of the study and of the questions, a row each."""
        return self.rows("trainings", *self.named(STUDY, ABLATIONS, QUESTIONS))

    @cached_property
    def _votes(self) -> pd.DataFrame:
        return self.rows("votes", *self.named(STUDY, ABLATIONS, QUESTIONS))

    @cached_property
    def pseudo_labels(self) -> pd.DataFrame:
        """Counts of the vote: labelled, failed, and judged rightly."""
        found = plain(tables.select(self._votes, stage="02_judgement"))
        return found[["dataset", "teacher", "seed", "split", *COUNTS.split()]].reset_index(drop=True)

    @cached_property
    def thresholds(self) -> pd.DataFrame:
        """The sweep of the vote's threshold."""
        found = plain(tables.select(self._votes, stage="01_teacher_responses"))
        return found[[*SWEEP.split(), "dataset", "teacher", "seed"]].reset_index(drop=True)

    @cached_property
    def reward_scores(self) -> pd.DataFrame:
        """The reward models' scores of validation responses."""
        return self.rows("scores", *self._study, stage="05_reward_model")

    def _history(self, stage: str) -> pd.DataFrame:
        table = self.rows("curves", *self._study, stage=stage)
        return table[[*STAGE.split(), "variant", *MEASURES[stage].split()]]

    @cached_property
    def reward_model_history(self) -> pd.DataFrame:
        """The reward models' learning curves."""
        return self._history("05_reward_model")

    @cached_property
    def sft_history(self) -> pd.DataFrame:
        """SFT's learning curves."""
        return self._history("03_sft_warmup")

    @cached_property
    def ppo_history(self) -> pd.DataFrame:
        """PPO's learning curves."""
        return self._history("06_ppo")

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Seconds and tokens of every stage."""
        return self.rows("costs", *self._study, once=True, moment="")

    @property
    def has_example(self) -> bool:
        """Whether the first seed has the question that the report follows through the study."""
        return (self.folders[0] / "example.json").is_file()

    @cached_property
    def example(self) -> dict:
        """A question with its responses and their scores, for Table 1."""
        return read_json(self.folders[0] / "example.json")

    @property
    def sampling_note(self) -> str:
        """How the teacher was sampled, where not at temperatures that the profile names; else empty."""
        sampling = self.settings.get("teacher_sampling", {})
        own = sampling.get("temperatures") == "default"
        return "The teacher was sampled at its provider's own temperature." if own else ""

    @cached_property
    def settings(self) -> dict:
        """The profile that the seeds were run with."""
        return read_json(self.folders[0] / "settings.json")

    @cached_property
    def points(self) -> pd.DataFrame:
        """Table 2, a row an accuracy, rounded as it is written; in a part of a study of what was run alone."""
        found = tables.rounded(accuracy.main_points(self.correctness))
        return found if self.asks_for_all else found[found["n"] > 0].reset_index(drop=True)

    def claims(self, *names: str) -> list[Claim]:
        """The paper's claims, judged: these, or all; each once. Of a part of a study those that its runs can judge."""
        for name, criterion in load_criteria().items():
            if name not in self._judged and (not names or name in names):
                self._judged[name] = claims.judged(name, criterion, self)
        found = [self._judged[name] for name in names or load_criteria()]
        return found if self.asks_for_all else [one for one in found if one.cells and np.isfinite(one.pooled.estimate)]

    @cached_property
    def _judged(self) -> dict[str, Claim]:
        return {}

    @cached_property
    def estimates(self) -> list[power_tables.Estimate]:
        """The variances behind the claims about accuracies, cell by cell and of the mean."""
        return power_tables.estimates(self)

    @cached_property
    def measured(self) -> dict[int, dict]:
        """Minutes, memory and disk of the seeds that were measured, by seed."""
        return {seed_of(f): read_json(f / "measured.json") for f in self.folders if (f / "measured.json").is_file()}

    @cached_property
    def commits(self) -> list[str]:
        """The commits that the seeds of the study and of the questions were made by."""
        found = [origin(folder, STUDY, ABLATIONS, QUESTIONS) for folder in self.folders]
        return sorted({commit for one in found if one for commit in one["commits"]})

    @property
    def benchmarks(self) -> dict[str, str]:
        """The benchmarks' names in figures."""
        return looks.benchmark_names(self.settings.get("datasets", {}))

    def default(self, key: str) -> float:
        """A setting of the reward model that an ablation's unmarked run is known by; 0.5 where it is missing."""
        value = paper.lookup(self.settings, key)
        return 0.5 if value is None else float(value)

    # ---- the reviewers' questions

    @cached_property
    def answered(self) -> tuple[Path, ...]:
        """The folders of the seeds that have runs of the reviewers' questions."""
        return self.seeds_of(*self.named(QUESTIONS))

    def _of(self, kind: str, *names: str, **values: Any) -> pd.DataFrame:
        """Rows of some experiments; UserError where no seed has one of them."""
        if not self.seeds_of(*names):
            asked = [f"params/{name.replace(':', '.yaml:')}" if ":" in name else name for name in names or [QUESTIONS]]
            raise UserError(
                f"No seed in {self.folders[0].parent} has results of {tables.listed(names) or 'the questions'}: run "
                f"`python -m rdlib study --experiments {' '.join(asked)}`."
            )
        return self.rows(kind, *names, **values)

    @cached_property
    def _arms(self) -> list[str]:
        return [name for name in self.named(QUESTIONS) if name != REWARD_MODEL]

    @cached_property
    def reviewers(self) -> pd.DataFrame:
        """Graded answers of the arms of the reviewers' questions."""
        rows = self._of("answers", *self._arms, split="test").astype({"correct": bool})
        return rows.rename(columns={"experiment": "question"})

    @cached_property
    def arms(self) -> pd.DataFrame:
        """The arms' accuracies, and Ours against each."""
        return accuracy.arm_accuracies(self.reviewers)

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Sampled validation responses before and after PPO, with the reward model's score."""
        return self._of("responses", REWARD_MODEL)

    def sharpening(self, *counts: str) -> pd.DataFrame:
        """What PPO changed in those samples, with k of pass@k as named: `rdlib.evidence.sharpening.changes`."""
        if counts not in self._kept:
            self._kept[counts] = sharpening.changes(self.judged, counts)
        return self._kept[counts]

    @cached_property
    def over_optimisation(self) -> pd.DataFrame:
        """Reward, KL, agreement and true accuracy along PPO."""
        curves = self.rows("curves", REWARD_MODEL, by_run=True, stage="06_ppo")
        parts = [
            diagnostics.over_optimisation(part).assign(cell=cell, seed=seed)
            for (seed, cell), part in curves.groupby(["seed", "cell"], sort=False)
        ]
        table = pd.concat(parts, ignore_index=True)[["cell", *diagnostics.ALONG, "seed"]]
        means = ["kl", "reward", "agreement", "accuracy"]  # six digits, as they were released
        return table.assign(**{name: table[name].map(lambda value: float(f"{value:.6g}")) for name in means})

    @cached_property
    def question_costs(self) -> pd.DataFrame:
        """Seconds and tokens of every stage that an arm depends on, but for data and votes."""
        table = self._of("costs", *self._arms, moment="").rename(columns={"experiment": "question"})
        return plain(table[~table["stage"].str[:2].isin(["00", "02"])])

    # ---- reruns

    @cached_property
    def rounded(self) -> tuple[Path, ...]:
        """The folders of the seeds that were computed in another numerical mode too."""
        return self.seeds_of("rounding")

    @cached_property
    def rounding(self) -> pd.DataFrame:
        """Graded answers of the same seeds in another numerical mode."""
        return self._of("answers", "rounding").astype({"correct": bool})

    @cached_property
    def rounding_stages(self) -> pd.DataFrame:
        """Whether the content of every stage of those runs is that of the released seed: a row a run and stage."""
        parts = [_compared_stages(self.records[f], read_rows(f / FILES["costs"], ["rounding"])) for f in self.rounded]
        found = [table.assign(seed=seed_of(folder)) for table, folder in zip(parts, self.rounded, strict=True)]
        return pd.concat(found, ignore_index=True)

    @cached_property
    def has_same_rate(self) -> bool:
        """Whether SFT was trained with the warm-up's learning rate too, in every seed."""
        return len(self.seeds_of("same_rate")) == len(self.folders)

    @cached_property
    def same_rate(self) -> pd.DataFrame:
        """Graded answers of SFT that was trained with the warm-up's learning rate."""
        if not self.has_same_rate:
            raise UserError(f"Not every seed in {self.folders[0].parent} has results of the experiment same_rate.")
        return self._of("answers", "same_rate").astype({"correct": bool})

    @cached_property
    def rates(self) -> dict[str, Claim]:
        """Ours and the warm-up compared with SFT of either rate: `rdlib.evidence.reruns.differences`."""
        return reruns.differences(self.correctness, self.same_rate)

    # ---- follow-up experiments

    def has_trials(self, *groups: str) -> bool:
        """Whether all these follow-up experiments have been run."""
        return all(self.seeds_of(f"{FOLLOWUPS}:{group}") for group in groups)

    def trials(self, group: str, name: str) -> pd.DataFrame:
        """A table (of FOLLOWUP_TABLES) of a follow-up experiment; UserError where it has not been run."""
        kind, values, columns = FOLLOWUP_TABLES[name]
        table = self._of(kind, f"{FOLLOWUPS}:{group}", by_run=True, **values)
        return table.rename(columns={"arm": "trial"} | columns)


def _overrides(row: dict[str, Any], settings: list[str]) -> str:
    """The overrides of a row as text, "reward_model.lam=0.25"."""
    return ",".join(f"{name}={row[name]}" for name in settings if not pd.isna(row[name]))


def _compared_stages(records: dict[str, dict], costs: pd.DataFrame) -> pd.DataFrame:
    """The stages of each run of the rounding, with whether they are the `same` as those of the main grid."""
    contents = {unnamed(label): one["content"] for label, one in records["main"]["stages"].items()}
    same = {
        one["key"][:KEY_LENGTH]: one["content"] == contents[unnamed(label)]
        for label, one in records["rounding"]["stages"].items()
    }
    axes = pd.DataFrame([cell.split("/") for cell in costs["cell"]], columns=tables.CELL, index=costs.index)
    return axes.assign(method=costs["arm"], stage=costs["stage"], same=costs["key"].map(same))


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
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `make study`, which writes it.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({tables.first_line(error)}): run `make study` to write it again."
        ) from None
    if missing := [name for name in COLUMNS[path.name].split() if name not in table]:
        raise UserError(f"{path} lacks the column {missing[0]!r}: run `make study` to write it again.")
    return table.assign(**{name: table[name].fillna("").astype(str) for name in NAMES & set(table)})


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table with whole numbers where none is missing, and floating-point numbers where some are."""
    whole = {name: "float64" if table[name].isna().any() else "int64" for name in INTEGERS & set(table)}
    return table.astype(whole)


def open_results(results: Path, seeds: Iterable[int] | None = None, edges: Iterable[tuple[str, str]] = ()) -> Evidence:
    """The evidence of these seeds (default: of all that the study has), their settings compared.

    UserError where there is no seed, or one was run with other settings than the first.
    """
    folders = seed_folders(results) if seeds is None else [results / f"seed{seed}" for seed in seeds]
    if not folders:
        raise UserError(f"{results} holds no results of any seed (seed0, ...): run `make study`, which writes them.")
    settings = [settings_of(folder) for folder in folders]
    for folder, found in zip(folders, settings, strict=True):
        if found != settings[0]:
            raise UserError(
                f"{folder} was made with other settings than {folders[0]}: run that seed again with the same "
                f"profile, or remove the folder."
            )
    others = [folder for folder in every_seed(results) if folder not in {*folders, *seed_folders(results)}]
    return Evidence(tuple(folders), tuple(edges), tuple(others))


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
    """The profile of the results of one seed as today's would be written, to be compared with another seed's."""
    return _complete(read_json(folder / "settings.json"))


def _complete(settings: dict, section: type[Section] = Profile) -> dict:
    """Settings with those added since they were written at their defaults; what the schema has no more stays."""
    complete = dict(settings)
    for name, setting in section.model_fields.items():
        if name in settings:
            complete[name] = _complete_value(settings[name], setting.annotation)
        elif not setting.is_required():
            default = setting.get_default(call_default_factory=True)
            complete[name] = default.model_dump() if isinstance(default, Section) else default
    return complete


def _complete_value(value: Any, kind: Any) -> Any:
    """The value of a setting, completed where it is a section or names some; one of another kind as it is."""
    if not isinstance(value, dict):
        return value
    if get_origin(kind) is dict:
        return {name: _complete_value(one, get_args(kind)[1]) for name, one in value.items()}
    return _complete(value, kind) if isinstance(kind, type) and issubclass(kind, Section) else value


def read_json(path: Path) -> dict:
    """A JSON object of the results; UserError for one that is missing or can't be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `make study`, which writes it.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({tables.first_line(error)}): run `make study` to write it again."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: run `make study` to write it again.")
    return content
