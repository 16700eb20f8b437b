"""Convert the result files of version 1.0.0 into those of today: `python scripts/convert_results.py RESULTS`.

    python scripts/convert_results.py figures/results --trials figures/trials

RESULTS has a folder a seed (seed0, ...). Every value stays as it is, to the bit, and nothing is trained. With --trials
the tables of the trials and of the follow-up experiments become seeds of their own beside them (seed100, ...). Results
of own questions need no converter: `make study` gathers them again from the runs, without training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import paper
from rdlib.evidence.result_tables import RERUNS, every_seed
from rdlib.study import experiments, results
from rdlib.study.experiments import Experiment, Run
from rdlib.study.rows import CHOSEN_BY, Finished, operations
from rdlib.study.stage import Stage, _in_a_name

RECORDS = ("provenance.json", "question_provenance.json", "same_rate_provenance.json", "rounding_provenance.json")
OLD = (
    "correctness.parquet reward_scores.parquet pseudo_labels.csv reward_model_history.parquet sft_history.parquet "
    "ppo_history.parquet costs.csv trainings.csv reviewers.parquet judged.parquet thresholds.csv over_optimisation.csv "
    "question_costs.csv question_trainings.csv rounding.parquet rounding_stages.csv same_rate.parquet made_again.csv"
).split()
HISTORIES = {"03_sft_warmup": "sft_history", "05_reward_model": "reward_model_history", "06_ppo": "ppo_history"}
AXES = ["dataset", "teacher", "student", "method", "variant"]
KEPT = ("settings.json", "example.json", "measured.json")
TABLES = {"settings": "params/trials.yaml", "open_ends": "params/followups.yaml"}  # folders of trials, their files


def old_table(path: Path) -> pd.DataFrame:
    """A table of version 1.0.0, without a row where it is not there; names as text."""
    if not path.is_file():
        return pd.DataFrame()
    read = pd.read_parquet if path.suffix == ".parquet" else lambda file: pd.read_csv(file, dtype={"trial": str})
    table = read(path)
    names = [name for name in (*AXES, "group", "arm", "benchmark") if name in table]
    return table.assign(**{name: table[name].astype("object").fillna("").astype(str) for name in names})


class Lookup:
    """Rows of a table by the values of some columns, without those columns."""

    def __init__(self, table: pd.DataFrame, columns: Sequence[str]) -> None:
        self.columns = [name for name in columns if name in table]
        groups = table.groupby(self.columns, sort=False, dropna=False) if len(table) else ()
        self.parts = {_texts(key): part.drop(columns=self.columns) for key, part in groups}

    def of(self, *values: Any) -> pd.DataFrame:
        """The rows of these values; none where there are none."""
        return self.parts.get(_texts(values), pd.DataFrame()).reset_index(drop=True)


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple("" if pd.isna(value) else str(value) for value in values)


def environment_of(record: dict, label: str) -> dict[str, Any]:
    """In which environment a stage of an old record was made, with the commits that may have made it."""
    again = [one for one in record.get("remade", []) if label in one["stages"]]
    later = {commit for one in record.get("remade", []) for commit in one["commits"]}
    made = again[-1] if again else record
    commits = set(made["commits"]) if again else set(record["commits"]) - later
    return {"dirty": record["dirty"], **made["environment"], "commits": sorted(commits or record["commits"])}


class Released(Finished):
    """Rows of a seed of version 1.0.0, in place of those of its stages."""

    def __init__(self, folder: Path) -> None:
        tables = {name.partition(".")[0]: old_table(folder / name) for name in OLD}
        found = [artifacts.read_json(folder / name) for name in RECORDS if (folder / name).is_file()]
        self.records = {label: record for record in reversed(found) for label in record["stages"]}
        of_stage = ["stage", *AXES]
        self.answered = {name: Lookup(tables[name], AXES) for name in ("correctness", "same_rate", "rounding")}
        self.arms = Lookup(tables["reviewers"], ["cell", "question", "arm", "level"])
        self.judged, self.along = (Lookup(tables[name], ["cell"]) for name in ("judged", "over_optimisation"))
        self.histories = {stage: Lookup(tables[name], AXES) for stage, name in HISTORIES.items()}
        self.scored = Lookup(tables["reward_scores"], AXES)
        both = ("question_trainings", "trainings"), ("question_costs", "costs")
        trainings, costs = ([tables[name] for name in names if len(tables[name])] for names in both)
        self.endings, self.costs = (Lookup(pd.concat(some), of_stage) for some in (trainings, costs))
        self.counts, self.sweep = (Lookup(tables[name], AXES[:2]) for name in ("pseudo_labels", "thresholds"))
        asked = tables["correctness"][["benchmark", "id", "group"]].drop_duplicates(["benchmark", "id"])
        self.groups = asked.set_index(["benchmark", "id"])["group"]

    def knows(self, stage: Stage) -> bool:
        """Whether the seed tells of the stage."""
        return stage.label in self.records

    def made(self, stage: Stage) -> dict[str, Any]:
        """What the seed's records tell of a stage."""
        record, label = self.records[stage.label], stage.label
        found = {"key": record["stages"][label], "content": record["contents"][label], "started": record["started"]}
        return found | {"environment": environment_of(record, label)}

    def answers(self, run: Run, measures: Sequence[Stage]) -> Iterator[tuple[Stage, pd.DataFrame]]:
        """The graded answers of a run, and of what it is compared with."""
        for stage in (run.stage, *measures):
            if stage.name == "07_evaluate":
                moment = "kept" if stage.method == run.stage.method else "warm-up"
                yield stage, self._with_groups(self._answered(run, stage)).assign(split="test", moment=moment)

    def _answered(self, run: Run, stage: Stage) -> pd.DataFrame:
        if len(rows := self.arms.of(run.cell, run.experiment, run.arm, run.level)):
            return rows
        kind = self.answered.get(run.experiment, self.answered["correctness"])
        rows = kind.of(*(stage.columns[name] for name in kind.columns))
        return rows[rows["benchmark"].isin([stage.dataset, f"{stage.dataset}_plus"])].reset_index(drop=True)

    def _with_groups(self, rows: pd.DataFrame) -> pd.DataFrame:
        index = pd.MultiIndex.from_frame(rows[["benchmark", "id"]])
        return rows.drop(columns="seed").assign(group=self.groups.reindex(index).fillna("").to_numpy())

    def responses(self, run: Run, measures: Sequence[Stage]) -> pd.DataFrame:
        """The judged responses of a cell."""
        return self.judged.of(run.cell) if run.stage.name == "13_judged_responses" else pd.DataFrame()

    def totals(self, run: Run, measures: Sequence[Stage]) -> list[dict[str, Any]]:
        """None: no run of a seed is measured at several moments."""
        return []

    def _of_stage(self, found: Lookup, stage: Stage) -> pd.DataFrame:
        values = stage.columns | {"stage": stage.name}
        rows = found.of(*(values[name] for name in found.columns))
        return rows.drop(columns="seed", errors="ignore")

    def cost(self, stage: Stage) -> dict[str, Any]:
        """The recorded cost of a stage, with its operations."""
        rows = self._of_stage(self.costs, stage).dropna(axis="columns", how="all")
        names = ["seconds", "tokens_generated", "tokens_trained", "tokens_read"]
        return operations(stage, rows.iloc[-1][names].to_dict()) if len(rows) else {}

    def curve(self, stage: Stage) -> pd.DataFrame:
        """The learning curve of a training of the study."""
        if stage.name not in HISTORIES:
            return pd.DataFrame()
        history = self._of_stage(self.histories[stage.name], stage)
        if stage.name == "06_ppo" and len(history):
            history["step"] = history["update"] * stage.profile.ppo.steps_per_update
        along = self.along.of(stage.cell_name) if stage.name == "06_ppo" and stage.method == "ours" else ()
        if len(along) and len(history) and not stage.variant:
            history["accuracy"] = history["update"].map(along.set_index("update")["accuracy"])
        return history

    def ending(self, stage: Stage) -> pd.DataFrame:
        """How a training ended."""
        return self._of_stage(self.endings, stage).head(1) if stage.name in CHOSEN_BY else pd.DataFrame()

    def scores(self, stage: Stage) -> pd.DataFrame:
        """A reward model's scores."""
        return self._of_stage(self.scored, stage) if stage.name == "05_reward_model" else pd.DataFrame()

    def votes(self, stage: Stage) -> pd.DataFrame:
        """The counts of a vote, or the sweep of its threshold."""
        kind = {"02_judgement": self.counts, "01_teacher_responses": self.sweep}.get(stage.name)
        return pd.DataFrame() if kind is None or stage.variant else self._of_stage(kind, stage)


class Tried(Finished):
    """Rows of one group of trials or follow-up experiment, in place of those of its stages."""

    def __init__(self, folder: Path, experiment: Experiment, runs: list[Run], seed: int, groups: pd.Series) -> None:
        def lookup(name: str) -> Lookup:
            table = old_table(folder / f"{experiment.name}{name}")
            return Lookup(table[table["seed"] == seed].drop(columns="seed") if len(table) else table, ["cell", "trial"])

        record = artifacts.read_json(folder / f"{experiment.name}_provenance.json")
        self.record = next((one for one in record["seeds"] if one["seed"] == seed), None)
        self.command, self.groups = record["command"], groups
        self.runs = {run.stage.folder: run for run in runs}
        ends = ("", "_curves", "_ppo", "_costs")
        self.endings, self.curves, self.ppo, self.spent = (lookup(f"{end}.csv") for end in ends)
        ends = ("answers", "ranking", "tested", "responses")
        self.answered, self.ranked, self.tested, self.seen = (lookup(f"_{end}.parquet") for end in ends)

    def knows(self, stage: Stage) -> bool:
        """Whether the record says how a stage was made."""
        return any(label in self.record["stages"] for label in self._labels(stage))

    def _labels(self, stage: Stage) -> list[str]:
        """What a stage may have been called then, when the profile had other settings."""
        settings = stage.profile.model_dump()
        values = {key: paper.lookup(settings, key) for key in sorted(stage.all_overrides)}
        text = ",".join(f"{key}={_in_a_name(value)}" for key, value in values.items())
        bare = stage.label.partition("@")[0]
        return [f"{bare}@{text}", stage.label, bare]

    def made(self, stage: Stage) -> dict[str, Any]:
        """What the group's record tells of a stage."""
        label = next(one for one in self._labels(stage) if one in self.record["stages"])
        found = {"key": self.record["stages"][label], "content": self.record["contents"][label]}
        return found | {"started": self.record["started"], "environment": environment_of(self.record, label)}

    def answers(self, run: Run, measures: Sequence[Stage]) -> Iterator[tuple[Stage, pd.DataFrame]]:
        """Answers to validation and test questions, and what choosing among samples gives."""
        place = (run.cell, run.arm)
        yield run.stage, self.answered.of(*place).rename(columns={"when": "moment"}).assign(split="validation")
        ranked = self.ranked.of(*place).rename(columns={"strategy": "moment", "value": "correct"})
        yield run.stage, ranked.assign(split="best of n")
        if len(tested := self.tested.of(*place)):
            index = pd.MultiIndex.from_frame(tested[["benchmark", "id"]])
            group = self.groups.reindex(index).fillna("").to_numpy()
            yield run.stage, tested.assign(group=group, split="test", moment="kept")

    def responses(self, run: Run, measures: Sequence[Stage]) -> pd.DataFrame:
        """None was kept."""
        return pd.DataFrame()

    def totals(self, run: Run, measures: Sequence[Stage]) -> list[dict[str, Any]]:
        """What a run took in all."""
        return self.spent.of(run.cell, run.arm).rename(columns={"when": "moment"}).to_dict("records")

    def _of_run(self, stage: Stage, found: Lookup) -> pd.DataFrame:
        run = self.runs.get(stage.folder)
        return pd.DataFrame() if run is None else found.of(run.cell, run.arm)

    def cost(self, stage: Stage) -> dict[str, Any]:
        """Seconds and operations of a run's last stage."""
        rows = self._of_run(stage, self.endings)
        return {"seconds": rows["seconds"][0], "gflop": rows["flops"][0] / 1e9} if len(rows) else {}

    def curve(self, stage: Stage) -> pd.DataFrame:
        """PPO's curve, or the validation curve of another training."""
        steps = stage.profile.ppo.steps_per_update
        if len(ppo := self._of_run(stage, self.ppo)):
            return ppo.assign(step=ppo["update"] * steps)
        curve = self._of_run(stage, self.curves).rename(columns={"value": CHOSEN_BY.get(stage.name, "")})
        if stage.name == "06_ppo" and len(curve):
            return curve.assign(update=curve["step"] // steps)
        return curve

    def ending(self, stage: Stage) -> pd.DataFrame:
        """How a run's last training ended."""
        names = ["measure", "start", "best", "best_step", "steps", "stopped_early"]
        rows = self._of_run(stage, self.endings)
        return rows[names] if len(rows) else rows

    def scores(self, stage: Stage) -> pd.DataFrame:
        """The responses that a reward model is tested on, of the stage 13_style."""
        if stage.name != "13_style":
            return pd.DataFrame()
        found = [run for run in self.runs.values() if run.stage.at("13_style").folder == stage.folder]
        return self.seen.of(found[0].cell, found[0].arm) if found else pd.DataFrame()

    def votes(self, stage: Stage) -> pd.DataFrame:
        """None was kept."""
        return pd.DataFrame()


# ---- folders


def converted(folder: Path) -> results.Seed:
    """The results of one seed's folder of version 1.0.0; UserError where they cannot be converted."""
    record = artifacts.read_json(folder / "provenance.json")
    if (folder / "agreement.parquet").is_file() or (folder / "greedy_answers.csv").is_file():
        raise UserError(f"{folder} is of own questions: `make study` gathers it again from its runs, without training.")
    if "contents" not in record:
        raise UserError(f"{folder} was released before version 1.0.0, so it does not say what its stages were.")
    source, profile_path = Released(folder), str((folder / "settings.json").resolve())
    found = []
    for experiment in experiments.load().values():
        if experiment.group == "reruns" and not _has(folder, experiment.name):
            continue
        own = experiment.model_copy(update={"profile": experiment.profile or profile_path})
        every = experiments.runs(own, profile_path, [record["seed"]])
        runs = [run for run in every if source.knows(run.stage)]
        if runs and (len(runs) == len(every) or experiment.group in ("study", "ablations")):
            found.append((experiment, runs))
    seed = results.gather(profile_path, record["seed"], found, source)
    seed.record["profile"] = record["profile"]
    for name, one in seed.experiments.items():
        _restore(one, folder, experiments.load()[name].group, name)
    seed.documents |= {name: artifacts.read_json(folder / name) for name in KEPT if (folder / name).is_file()}
    splits = folder.glob("split_ids_*.json")
    seed.documents |= {path.name: artifacts.read_json(path) for path in splits}
    return seed


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}_provenance.json").is_file()


def _restore(record: dict, folder: Path, group: str, name: str) -> None:
    """Give an experiment's record the command and profile that it was made with."""
    file = {"questions": "question_provenance.json", "reruns": f"{name}_provenance.json"}.get(group, "provenance.json")
    old = artifacts.read_json(folder / file)
    record |= {"profile": old["profile"], "command": old["command"], "started": old["started"]}


def convert(folder: Path) -> None:
    """Convert a seed's folder in place."""
    seed = converted(folder)
    again = folder / "made_again.csv"
    counts = again.read_bytes() if again.is_file() else None
    for name in (*OLD, *RECORDS):
        (folder / name).unlink(missing_ok=True)
    results.write(folder, seed)
    if counts is not None:
        artifacts.write_bytes(folder / RERUNS, counts)


def convert_trials(trials: Path, out: Path, groups: pd.Series) -> list[Path]:
    """Convert the tables of trials and follow-up experiments into seeds beside the released ones."""
    made: dict[int, results.Seed] = {}
    for name, path in TABLES.items():
        for experiment in experiments.load(path).values():
            for seed in experiment.seeds:
                runs = experiments.runs(experiment, experiment.profile, [])
                runs = [run for run in runs if run.stage.seed == seed]
                source = Tried(trials / name, experiment, runs, seed, groups)
                if source.record is None:
                    continue
                new = results.gather(experiment.profile, seed, [(experiment, runs)], source)
                (record,) = new.experiments.values()
                record |= {"command": source.command}
                made[seed] = results.merged(made.get(seed), new, without=())
    for seed, content in made.items():
        results.write(out / f"seed{seed}", content)
    return [out / f"seed{seed}" for seed in made]


def main() -> None:
    """Command line: RESULTS, --trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results of version 1.0.0, a folder a seed")
    parser.add_argument("--trials", type=Path, help="tables of trials and follow-up experiments (figures/trials)")
    options = parser.parse_args()
    old = [folder for folder in every_seed(options.results) if (folder / "correctness.parquet").is_file()]
    answers = [pd.read_parquet(f / "correctness.parquet", columns=["benchmark", "id", "group"]) for f in old[:1]]
    for folder in old:
        convert(folder)
    if options.trials:
        groups = pd.concat(answers).drop_duplicates(["benchmark", "id"]).set_index(["benchmark", "id"])["group"]
        old += convert_trials(options.trials, options.results, groups)
    print(f"Converted: {', '.join(map(str, old)) or 'nothing'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
