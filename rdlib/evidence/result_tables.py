"""The result tables of a study, read when they are asked for: what every table and figure is made from.

    evidence = open_results(Path("figures/results"))
    evidence.correctness   # reads one file of each seed, nothing else

Results lie in one folder a seed (`seed0`, `seed1`, ...), as `rdlib.study.results` writes them. The reviewers'
questions are answered by seeds of their own; where no seed has answered, there is none of their tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import accuracy, claims, looks, paper, power_tables, reruns, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.verdicts import Claim
from rdlib.profile import Profile
from rdlib.settings import Section

COLUMNS = {
    "correctness.parquet": "benchmark teacher student method variant seed id group correct",
    "pseudo_labels.csv": "dataset teacher seed split questions failed labelled label_correct responses judged_right",
    "reward_scores.parquet": "dataset teacher student method variant seed id kind score",
    "reward_model_history.parquet": "dataset teacher student method variant seed step pos_neg_auc pos_pos_auc",
    "sft_history.parquet": "dataset teacher student method seed step loss eval_loss agreement",
    "ppo_history.parquet": "dataset teacher student method variant seed update reward kl clip_fraction agreement "
    "validation_agreement",
    "costs.csv": "stage seconds tokens_generated tokens_trained",
}
# Of own questions without answers alone: what their held-out share is called wherever it is shown, and its table.
AGREEMENT = "agreement with the teacher's vote on held-out questions"
AGREEMENT_FILE = "agreement.parquet"
# Of own questions alone: what the greedy answers to test questions look like, a row an evaluation.
GREEDY, GREEDY_COLUMNS = "greedy_answers.csv", "dataset teacher student method variant seed tokens answered distinct"
AGREEMENT_COLUMNS = "dataset teacher student method variant seed id group agrees held_out"
QUESTION_COLUMNS = {
    "reviewers.parquet": "question arm level reference benchmark seed id correct",
    "judged.parquet": "policy id sample tokens answer agrees correct score",
    "thresholds.csv": "dataset teacher threshold failure_ratio coverage label_accuracy",
    "over_optimisation.csv": "update kl reward agreement accuracy",
    "question_costs.csv": "question arm level stage parameters tokens_generated tokens_trained seconds",
}
# Of a group of trials (params/followups.yaml), which lie beside the results
TRIAL_COLUMNS = {
    "answers.parquet": "cell trial seed when id agrees correct",
    "ranking.parquet": "cell trial seed id n strategy value",
    "responses.parquet": "cell trial seed id kind score ratio named recalled",
    "tested.parquet": "cell trial seed benchmark id correct",
    "ppo.csv": "cell trial seed update reward validation_agreement",
    "costs.csv": "cell trial seed when tokens_generated gflop",
}
# How every training ended: of the study, and of the reviewers' questions.
TRAININGS, QUESTION_TRAININGS = "trainings.csv", "question_trainings.csv"
TRAINING_COLUMNS = "stage dataset teacher student method variant seed best best_step steps stopped_early"
# Written after the reviewers' tables, so a seed that has it has answered the questions.
ANSWERED = "question_provenance.json"

# What of a seed was made again on another processor, written by `rdlib.study.compared --record`.
MADE_AGAIN = "made_again.csv"
MADE_AGAIN_COLUMNS = "seed stage released_from made_on commit stages same"

# The same seed in another numerical mode, the experiment `rounding`; the last file says that it is all there.
ROUNDING, ROUNDING_STAGES, ROUNDED = "rounding.parquet", "rounding_stages.csv", "rounding_provenance.json"
ROUNDING_COLUMNS = {
    ROUNDING: "dataset teacher student method seed benchmark id correct",
    ROUNDING_STAGES: "dataset teacher student method seed stage same",
}

# SFT of the same seed with the warm-up's learning rate, the experiment `same_rate`; its provenance is last.
SAME_RATE, SAME_RATE_MADE = "same_rate.parquet", "same_rate_provenance.json"
SAME_RATE_COLUMNS = "teacher student method seed benchmark id group correct"


@dataclass(frozen=True)
class Evidence:
    """The results of some seeds' folders, each table read once and only when it is asked for.

    `edges` are those of the stages' DAG, for Figure 2. UserError, on reading, for a file that can't be used.
    """

    folders: tuple[Path, ...]
    edges: tuple[tuple[str, str], ...] = ()

    @cached_property
    def correctness(self) -> pd.DataFrame:
        """Graded answers to test questions, a row an answer."""
        return self._study("correctness.parquet")

    @property
    def holds_out(self) -> bool:
        """Whether held-out questions without answers were held to the teacher's vote."""
        return any((folder / AGREEMENT_FILE).is_file() for folder in self.folders)

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Answers to held-out questions, held to the teacher's vote, a row an answer."""
        if not self.holds_out:
            raise UserError(
                f"{self.folders[0].parent} has no {AGREEMENT}: it is measured where own questions have no answers."
            )
        parts = [tables.read_table(f / AGREEMENT_FILE, AGREEMENT_COLUMNS) for f in self.folders]
        return pd.concat(parts, ignore_index=True)

    @property
    def asks_for_all(self) -> bool:
        """Whether the study is of benchmarks and asks for every method and ablation.

        Of another one, exhibits without any run are left out and claims without any are not judged.
        """
        grid, datasets = self.settings.get("grid", {}), self.settings.get("datasets", {})
        part = any(grid.get(name) is not None for name in ("methods", "ablations"))
        return not part and all(dataset.get("source") != "questions" for dataset in datasets.values())

    @property
    def of_own_questions(self) -> bool:
        """Whether the results say what the answers to own questions look like."""
        return all((folder / GREEDY).is_file() for folder in self.folders)

    @cached_property
    def greedy_answers(self) -> pd.DataFrame:
        """What the greedy answers to own test questions look like, a row an evaluation."""
        return pd.concat([tables.read_table(f / GREEDY, GREEDY_COLUMNS) for f in self.folders], ignore_index=True)

    @property
    def tells_endings(self) -> bool:
        """Whether the results say how every training ended, which those before version 1.0.0 do not."""
        return all((folder / TRAININGS).is_file() for folder in self.folders)

    @cached_property
    def trainings(self) -> pd.DataFrame:
        """How every training ended, of the study and of the questions, a row each."""
        paths = [f / name for f in self.folders for name in (TRAININGS, QUESTION_TRAININGS) if (f / name).is_file()]
        if not paths:
            raise UserError(f"{self.folders[0] / TRAININGS} is missing: run `make study`, which writes it.")
        found = pd.concat([tables.read_table(path, TRAINING_COLUMNS) for path in paths], ignore_index=True)
        return found.fillna({"variant": ""}).drop_duplicates(TRAINING_COLUMNS.split()[:7], ignore_index=True)

    @cached_property
    def pseudo_labels(self) -> pd.DataFrame:
        """Counts of the vote: labelled, failed, and judged rightly."""
        return self._study("pseudo_labels.csv")

    @cached_property
    def reward_scores(self) -> pd.DataFrame:
        """The reward models' scores of validation responses."""
        return self._study("reward_scores.parquet")

    @cached_property
    def reward_model_history(self) -> pd.DataFrame:
        """The reward models' learning curves."""
        return self._study("reward_model_history.parquet")

    @cached_property
    def sft_history(self) -> pd.DataFrame:
        """SFT's learning curves."""
        return self._study("sft_history.parquet")

    @cached_property
    def ppo_history(self) -> pd.DataFrame:
        """PPO's learning curves."""
        return self._study("ppo_history.parquet")

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Seconds and tokens of every stage."""
        return self._study("costs.csv")

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
        return read_settings(self.folders[0])

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
        """The commits that the seeds were made by, and those that answered the questions."""
        records = [f / name for f in self.folders for name in ("provenance.json", ANSWERED) if (f / name).is_file()]
        return sorted({commit for path in records for commit in read_json(path)["commits"]})

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
        """The folders of the seeds that have answered the reviewers' questions."""
        return tuple(folder for folder in self.folders if (folder / ANSWERED).is_file())

    @cached_property
    def reviewers(self) -> pd.DataFrame:
        """Graded answers of the arms of the reviewers' questions."""
        return self._questions("reviewers.parquet")

    @cached_property
    def arms(self) -> pd.DataFrame:
        """The arms' accuracies, and Ours against each."""
        return accuracy.arm_accuracies(self.reviewers)

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Sampled validation responses before and after PPO, with the reward model's score."""
        return self._questions("judged.parquet")

    @cached_property
    def thresholds(self) -> pd.DataFrame:
        """The sweep of the vote's threshold."""
        return self._questions("thresholds.csv")

    @cached_property
    def over_optimisation(self) -> pd.DataFrame:
        """Reward, KL, agreement and true accuracy along PPO."""
        return self._questions("over_optimisation.csv")

    @cached_property
    def question_costs(self) -> pd.DataFrame:
        """Seconds and tokens of every stage behind an arm."""
        return self._questions("question_costs.csv")

    # ---- another numerical mode

    @cached_property
    def rounded(self) -> tuple[Path, ...]:
        """The folders of the seeds that were computed in another numerical mode too."""
        return tuple(folder for folder in self.folders if (folder / ROUNDED).is_file())

    @cached_property
    def rounding(self) -> pd.DataFrame:
        """Graded answers of the same seeds in another numerical mode."""
        return self._rounding(ROUNDING)

    @cached_property
    def rounding_stages(self) -> pd.DataFrame:
        """Whether the content of every stage behind them is that of the released seed."""
        return self._rounding(ROUNDING_STAGES)

    def _rounding(self, name: str) -> pd.DataFrame:
        if not self.rounded:
            raise UserError(
                f"No seed in {self.folders[0].parent} was computed in another numerical mode: run `make study "
                f"EXPERIMENTS=rounding`."
            )
        return pd.concat([tables.read_table(f / name, ROUNDING_COLUMNS[name]) for f in self.rounded], ignore_index=True)

    # ---- SFT with the warm-up's learning rate

    @cached_property
    def has_same_rate(self) -> bool:
        """Whether SFT was trained with the warm-up's learning rate too, in every seed."""
        return all((folder / SAME_RATE_MADE).is_file() for folder in self.folders)

    @cached_property
    def same_rate(self) -> pd.DataFrame:
        """Graded answers of SFT that was trained with the warm-up's learning rate."""
        if not self.has_same_rate:
            raise UserError(
                f"Not every seed in {self.folders[0].parent} has {SAME_RATE}: run `python -m rdlib study "
                "--experiments same_rate`."
            )
        parts = [tables.read_table(folder / SAME_RATE, SAME_RATE_COLUMNS) for folder in self.folders]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def rates(self) -> dict[str, Claim]:
        """Ours and the warm-up held to SFT of either rate: `rdlib.evidence.reruns.differences`."""
        return reruns.differences(self.correctness, self.same_rate)

    # ---- trials

    def has_trials(self, *groups: str) -> bool:
        """Whether all these groups of trials have been run and measured."""
        return all(self._trials(group, "answers.parquet").is_file() for group in groups)

    def trials(self, group: str, name: str) -> pd.DataFrame:
        """A table of a group of trials; UserError where it has not been run."""
        path = self._trials(group, name)
        if not path.is_file():
            raise UserError(
                f"{path} is missing: run `python -m rdlib study --experiments params/followups.yaml:{group}`."
            )
        return tables.read_table(path, TRIAL_COLUMNS[name])

    def _trials(self, group: str, name: str) -> Path:
        return self.folders[0].parent.parent / "trials" / "open_ends" / f"{group}_{name}"

    def _study(self, name: str) -> pd.DataFrame:
        return pd.concat([tables.read_table(f / name, COLUMNS[name]) for f in self.folders], ignore_index=True)

    def _questions(self, name: str) -> pd.DataFrame:
        if not self.answered:
            raise UserError(
                f"No seed in {self.folders[0].parent} has answered the reviewers' questions: "
                f'run `make study EXPERIMENTS="study ablations questions"`.'
            )
        parts = [self._question_table(folder, name) for folder in self.answered]
        return pd.concat(parts, ignore_index=True)

    def _question_table(self, folder: Path, name: str) -> pd.DataFrame:
        """One table of one seed; its cell where results of version 0.1, which were of one cell, do not name it."""
        table = tables.read_table(folder / name, QUESTION_COLUMNS[name]).assign(seed=seed_of(folder))
        if "cell" in table or name == "thresholds.csv":
            return table
        only = self.settings["grid"]["ablation_cells"][0]
        table.insert(0, "cell", "/".join(only[axis] for axis in tables.CELL))
        return table


def open_results(results: Path, seeds: Iterable[int] | None = None, edges: Iterable[tuple[str, str]] = ()) -> Evidence:
    """The evidence of these seeds (default: of all that are there), their settings compared.

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
    return Evidence(tuple(folders), tuple(edges))


def seed_folders(results: Path) -> list[Path]:
    """The folders of the seeds whose results are there, in order of the seeds."""
    found = [path for path in results.glob("seed*") if path.is_dir() and path.name[4:].isdecimal()]
    return sorted(found, key=seed_of)


def seed_of(folder: Path) -> int:
    """The seed of a folder of results."""
    return int(folder.name[4:])


def read_settings(folder: Path) -> dict:
    """The profile behind the results of one seed; version 0.1 had one ablation cell, under keys of its own."""
    settings = read_json(folder / "settings.json")
    old = {axis: f"ablation_{axis}" for axis in tables.CELL}
    grid = settings.get("grid", {})
    if set(old.values()) <= set(grid):
        cell = {axis: grid[key] for axis, key in old.items()}
        kept = {key: value for key, value in grid.items() if key not in old.values()}
        settings["grid"] = kept | {"ablation_cells": [cell]}
    return settings


def settings_of(folder: Path) -> dict:
    """The profile behind the results of one seed as today's would be written, to be compared with another seed's."""
    return _complete(read_settings(folder))


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
