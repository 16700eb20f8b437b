"""Convert the result files of version 1.0.0 into those of today: `python scripts/convert_results.py RESULTS`.

    python scripts/convert_results.py figures/results

RESULTS has a folder a seed (seed0, ...). Every value stays as it is, to the bit, and nothing is trained. The runs of a
seed follow from params/experiments.yaml, and the rows of 1.0.0 are joined to them by their axes. Results of trials and
of own questions need no converter: `python -m rdlib collect` gathers them again from the runs, without training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import FILES, RERUNS, every_seed
from rdlib.study import experiments, results
from rdlib.study.experiments import Experiment, Run
from rdlib.study.rows import SPENT, operations
from rdlib.study.specification import STAGES
from rdlib.study.stage import Stage

# Who made which stages: the study's file, and those of what was added to it, by group or name of experiments
RECORDS = {"study": "provenance.json", "questions": "question_provenance.json"}
RECORDS |= {name: f"{name}_provenance.json" for name in ("same_rate", "rounding")}
TABLES = (
    "correctness reward_scores pseudo_labels costs trainings reviewers judged thresholds over_optimisation sft_history "
    "reward_model_history ppo_history question_costs question_trainings rounding rounding_stages same_rate made_again"
).split()
AXES = ["dataset", "teacher", "student", "method", "variant"]
ARM = ["cell", "experiment", "arm", "level"]
NAMES = [*AXES, *ARM[:3], "stage", "benchmark"]
DOCUMENTS = ("settings.json", "example.json", "measured.json", "split_ids_*.json")


class Old:
    """A seed's folder of version 1.0.0: its tables by name, and its records by the names of RECORDS."""

    def __init__(self, folder: Path) -> None:
        record = artifacts.read_json(folder / "provenance.json")
        if (folder / "agreement.parquet").is_file() or (folder / "greedy_answers.csv").is_file():
            raise UserError(f"{folder} is of own questions: `make study` gathers it again from its runs, untrained.")
        if "contents" not in record:
            raise UserError(f"{folder} was released before version 1.0.0, so it does not say what its stages were.")
        files = [path for name in TABLES for path in folder.glob(f"{name}.*")]
        records = {name: folder / file for name, file in RECORDS.items() if (folder / file).is_file()}
        self.folder, self.seed, self.files = folder, record["seed"], [*files, *records.values()]
        self.tables = {path.stem: _read(path) for path in files}
        self.records = {name: artifacts.read_json(path) for name, path in records.items()}
        self.record_of = {label: one for one in reversed(self.records.values()) for label in one["stages"]}

    def rows(self, *names: str) -> pd.DataFrame:
        """The rows of some tables, one after the other; none where none of them is there."""
        found = [self.tables[name] for name in names if name in self.tables]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*NAMES, "level"])

    def made(self, label: str) -> dict[str, Any]:
        """What the records say of a stage: key, content, start, and in which environment it was made."""
        record = self.record_of[label]
        again = [one for one in record.get("remade", []) if label in one["stages"]]
        later = {commit for one in record.get("remade", []) for commit in one["commits"]}
        commits = again[-1]["commits"] if again else set(record["commits"]) - later
        environment = {"dirty": record["dirty"], **(again[-1] if again else record)["environment"]}
        found = {"key": record["stages"][label], "content": record["contents"][label], "started": record["started"]}
        return found | {"environment": environment | {"commits": sorted(commits or record["commits"])}}


def _read(path: Path) -> pd.DataFrame:
    """A table without its seed; names as text, and the dataset of a benchmark."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    table = table.rename(columns={"question": "experiment"}).drop(columns=["seed", "reference"], errors="ignore")
    if "benchmark" in table and "dataset" not in table:
        table = table.assign(dataset=table["benchmark"].str.removesuffix("_plus"))
    names = [name for name in NAMES if name in table]
    return table.assign(**{name: table[name].astype("object").fillna("").astype(str) for name in names})


def found_runs(old: Old, profile_path: str) -> Iterator[tuple[Experiment, list[Run]]]:
    """The experiments that a seed has whole, with their runs; of the study and its ablations those that it has."""
    for experiment in experiments.load().values():
        if experiment.group != "reruns" or experiment.name in old.records:
            own = experiment.model_copy(update={"profile": experiment.profile or profile_path})
            every = experiments.runs(own, profile_path, [old.seed])
            runs = [run for run in every if run.stage.label in old.record_of]
            if runs and (len(runs) == len(every) or experiment.group in ("study", "ablations")):
                yield experiment, runs


def record(old: Old, found: list[tuple[Experiment, list[Run]]]) -> dict[str, Any]:
    """Where the rows come from, with the commands that they were made by."""
    environments: dict[str, dict] = {}
    records = {}
    for experiment, runs in found:
        ends = [one for run in runs for one in (run.stage, *experiments.measures_of(run, experiment))]
        stages = experiments.with_upstream(one for one in ends if one.label in old.record_of)
        made = {stage.label: old.made(stage.label) for stage in stages}
        for one in made.values():
            one["made"] = results.add_environment(environments, one["environment"])
        before = next(old.records[name] for name in (experiment.group, experiment.name, "study") if name in old.records)
        kept = {name: before[name] for name in ("profile", "command", "started")}
        own = results.record_of(experiment, before["profile"], old.seed, made)
        records[experiment.name] = own | kept | {"missing": 0}
    profile = old.records["study"]["profile"]
    return {"profile": profile, "seed": old.seed, "environments": environments, "experiments": records}


# ---- tables


def named(old: Old, stage: Stage, run: Run | None = None, **more: Any) -> dict[str, Any]:
    """The columns that name a stage, with its settings, and the run that it is of."""
    arm = run.columns | {"reference": run.reference} if run else {"cell": stage.cell_name}
    key = old.record_of[stage.label]["stages"][stage.label]
    return arm | results.columns_of(stage, key) | {"stage": stage.name, "variant": stage.variant} | more


def joined(left: pd.DataFrame, table: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """The rows of a table of 1.0.0 with the columns that name their run or stage, in the order of those."""
    on = [name for name in on if name in table and name in left]
    return left.merge(table[[name for name in table if name in on or name not in left]], on=on)


def answers(old: Old, experiment: Experiment, runs: list[Run]) -> pd.DataFrame:
    """The graded answers of an experiment's runs, and of what measures them."""
    left = []
    for run in runs:
        for stage in (run.stage, *experiments.measures_of(run, experiment)):
            if stage.name == "07_evaluate":
                moment = "kept" if stage.method == run.stage.method else "warm-up"
                left.append(named(old, stage, run, moment=moment, split="test"))
    arms = experiment.group == "questions"
    table = old.rows("reviewers" if arms else experiment.name if experiment.name in RECORDS else "correctness")
    groups = old.rows("correctness")[["benchmark", "id", "group"]].drop_duplicates(["benchmark", "id"])
    if not left:
        return pd.DataFrame()
    frame = pd.DataFrame(left, dtype=object).astype({"level": float})
    found = joined(frame, table.drop(columns="group", errors="ignore"), ARM if arms else AXES)
    return found.merge(groups, on=["benchmark", "id"], how="left")


def costs(old: Old, runs: list[Run]) -> pd.DataFrame:
    """What every stage of every run took, with its operations."""
    table = old.rows("question_costs", "costs").drop_duplicates(["stage", *AXES], keep="last")
    known = table.set_index(["stage", *AXES])[["seconds", *SPENT]].to_dict("index")
    rows = []
    for run in runs:
        for stage in experiments.with_upstream([run.stage]):
            spent = known.get((stage.name, *(stage.columns[axis] for axis in AXES)))
            row = named(old, stage, run, moment="", seconds=None)
            rows.append(row | (operations(stage, spent) if spent else {}))
    return pd.DataFrame(rows, dtype=object)


def ppo_history(old: Old, left: pd.DataFrame, steps: int) -> pd.DataFrame:
    """PPO's curve in optimizer steps; of Ours without overrides with the true accuracy."""
    history = joined(left, old.rows("ppo_history"), AXES)
    if "over_optimisation" in old.tables:
        along = old.rows("over_optimisation")[["cell", "update", "accuracy"]].assign(method="ours", variant="")
        history = history.merge(along, how="left")
    return history.assign(step=history["update"] * steps) if len(history) else history


def tables(old: Old, found: list[tuple[Experiment, list[Run]]]) -> dict[str, pd.DataFrame]:
    """The result tables of today by file."""
    runs = [run for _, some in found for run in some]
    stages = experiments.with_upstream(run.stage for run in runs)
    left = pd.DataFrame([named(old, stage) for stage in stages], dtype=object).drop_duplicates(["key", "stage"])
    of = {name: left[left["stage"] == name] for name in STAGES}
    plain = {name: some[some["variant"] == ""] for name, some in of.items()}
    judged = [named(old, run.stage, run) for run in runs if run.stage.name == "13_judged_responses"]
    trained = old.rows("question_trainings", "trainings").drop_duplicates(["stage", *AXES])
    kinds = {
        "answers": [answers(old, *one) for one in found],
        "responses": [joined(pd.DataFrame(judged, columns=None if judged else NAMES), old.rows("judged"), ["cell"])],
        "costs": [costs(old, runs)],
        "curves": [
            joined(of["03_sft_warmup"], old.rows("sft_history"), AXES),
            joined(of["05_reward_model"], old.rows("reward_model_history"), AXES),
            ppo_history(old, of["06_ppo"], stages[0].profile.ppo.steps_per_update),
        ],
        "scores": [joined(of["05_reward_model"], old.rows("reward_scores"), AXES)],
        "trainings": [joined(left, trained, ["stage", *AXES])],
        "votes": [
            joined(plain["02_judgement"], old.rows("pseudo_labels"), AXES),
            joined(plain["01_teacher_responses"], old.rows("thresholds"), AXES),
        ],
    }
    return {name: results.in_shape(pd.concat(kinds[kind], ignore_index=True), name) for kind, name in FILES.items()}


def convert(folder: Path) -> None:
    """Convert a seed's folder in place."""
    old = Old(folder)
    found = list(found_runs(old, str((folder / "settings.json").resolve())))
    documents = {path.name: artifacts.read_json(path) for name in DOCUMENTS for path in folder.glob(name)}
    seed = results.Seed(record(old, found), tables(old, found), documents)
    for path in old.files:
        path.rename(folder / RERUNS) if path.stem == "made_again" else path.unlink()
    results.write(folder, seed)


def main() -> None:
    """Command line: RESULTS."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results of version 1.0.0, a folder a seed")
    folders = every_seed(parser.parse_args().results)
    old = [folder for folder in folders if (folder / "correctness.parquet").is_file()]
    for folder in old:
        convert(folder)
    print(f"Converted: {', '.join(map(str, old)) or 'nothing'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
