"""Every table and figure of the report, drawn from the result tables and nothing else.

Results lie in one folder a seed (`seed0`, `seed1`, ...). Each table is written as CSV and Markdown, and each figure as
PDF and PNG beside the CSV of exactly the data it shows. `python -m rdlib.study.figures` is the command.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from pydantic import ValidationError

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import claims, paper, pipeline_figure, plots, question_figures, tables
from rdlib.profile import Profile

COLUMNS = {
    "correctness.parquet": "benchmark teacher student method variant seed id group correct",
    "pseudo_labels.csv": ("dataset teacher seed split questions failed labelled label_correct responses judged_right"),
    "reward_scores.parquet": "dataset teacher student method variant seed id kind score",
    "reward_model_history.csv": "dataset teacher student method variant seed step pos_neg_auc pos_pos_auc",
    "sft_history.csv": "dataset teacher student method seed step loss eval_loss agreement",
    "ppo_history.csv": "dataset teacher student method variant seed update reward kl validation_agreement",
    "costs.csv": "stage seconds tokens_generated tokens_trained",
}
SFT_PANELS = {
    "loss": "training loss\n(nats, mean of 20 steps)",
    "eval_loss": "validation loss (nats)",
    "agreement": "validation agreement",
}
PPO_PANELS = {
    "reward": "reward, Eq. 7",
    "kl": "KL (nats a response)",
    "validation_agreement": "validation agreement",
}
REWARD_PANELS = {"pos_neg_auc": "Pos/Neg AUC (validation)", "pos_pos_auc": "Pos/Pos AUC (validation)"}
OURS = "`study_*` columns are this study's, with 95 % intervals; `paper_*` columns are the paper's."


@dataclass(frozen=True)
class Results:
    """The result tables of one study, as `rdlib.study.results` writes them."""

    correctness: pd.DataFrame
    pseudo_labels: pd.DataFrame
    reward_scores: pd.DataFrame
    reward_model_history: pd.DataFrame
    sft_history: pd.DataFrame
    ppo_history: pd.DataFrame
    costs: pd.DataFrame
    example: dict
    settings: dict

    @property
    def benchmarks(self) -> dict[str, str]:
        """The benchmarks' names in figures."""
        return plots.benchmark_names(self.settings.get("datasets", {}))

    def default(self, key: str) -> float:
        """A setting of the reward model that an ablation's unmarked run is known by; 0.5 where it is missing."""
        value = paper.lookup(self.settings, key)
        return 0.5 if value is None else float(value)


def load_results(results: Path, seeds: Iterable[int] | None = None) -> Results:
    """Read the result tables of these seeds (default: of all that are there), one below the other.

    UserError naming a file that can't be used, or a seed that was run with other settings than the first.
    """
    folders = _folders(results, seeds)
    if not folders:
        raise UserError(f"{results} holds no results of any seed (seed0, ...): run `make study`, which writes them.")
    settings = [_read_json(folder / "settings.json") for folder in folders]
    for folder, found in zip(folders, settings, strict=True):
        if _complete(found) != _complete(settings[0]):
            raise UserError(
                f"{folder} was made with other settings than {folders[0]}: run that seed again with the same "
                f"profile, or remove the folder."
            )
    frames = {
        name.partition(".")[0]: pd.concat([tables.read_table(f / name, columns) for f in folders], ignore_index=True)
        for name, columns in COLUMNS.items()
    }
    return Results(**frames, example=_read_json(folders[0] / "example.json"), settings=settings[0])


def _complete(settings: dict) -> dict:
    """Settings with those added since they were written at their defaults; as they are where they make no profile."""
    try:
        return Profile.model_validate(settings).model_dump()
    except ValidationError:
        return settings


def _folders(results: Path, seeds: Iterable[int] | None) -> list[Path]:
    return [results / f"seed{seed}" for seed in seeds] if seeds is not None else seed_folders(results)


def seed_folders(results: Path) -> list[Path]:
    """The folders of the seeds whose results are there, in order of the seeds."""
    found = [path for path in results.glob("seed*") if path.is_dir() and path.name[4:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[4:]))


def _read_json(path: Path) -> dict:
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


def draw_all(
    results: Path,
    out: Path,
    edges: Iterable[tuple[str, str]],
    seeds: Iterable[int] | None = None,
) -> list[Path]:
    """Write every table and figure of the results in `results` to `out`; returns the paths written.

    `seeds`: whose results to use (default: all that are there). `edges`: the stages' DAG, for Figure 2. UserError for
    unusable results.
    """
    data, out = load_results(Path(results), seeds), Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} can't be made ({error.strerror}): give a folder that can be written to.") from None
    judged = claims.all_claims(
        data.correctness, data.pseudo_labels, data.reward_scores, data.reward_model_history, data.settings
    )
    points = tables.rounded(tables.main_points(data.correctness))
    paths = write_tables(report_tables(data, points, judged), out)
    paths += write_figures(report_figures(data, points, judged, edges), out, data.benchmarks)
    return paths + draw_questions(Path(results), out, seeds)


def draw_questions(results: Path, out: Path, seeds: Iterable[int] | None = None) -> list[Path]:
    """The reviewers' questions' tables and figures, from the seeds that have answered them; nothing without any."""
    folders = question_figures.folders_with_answers(_folders(results, seeds))
    if not folders:
        return []
    answers = question_figures.load(folders)
    study = load_results(results, seeds)
    paths = write_tables(question_figures.question_tables(answers, study.correctness), out)
    return paths + write_figures(question_figures.question_figures(answers), out, study.benchmarks)


def write_tables(found: Iterable[tuple[str, str, str, pd.DataFrame]], out: Path) -> list[Path]:
    """Write (file name, title, note, table) as CSV and Markdown."""
    paths = []
    for name, title, note, table in found:
        table = tables.rounded(table)
        paths.append(tables.write_csv(table, out / f"{name}.csv"))
        paths.append(tables.write_markdown(table, out / f"{name}.md", title, note))
    return paths


def write_figures(
    found: Iterable[tuple[str, pd.DataFrame, Callable]], out: Path, benchmarks: Mapping[str, str]
) -> list[Path]:
    """Draw (file name, table, function) as PDF and PNG, beside the CSV of what is drawn; `benchmarks` are named so."""
    paths = []
    with plots.style(benchmarks):
        for name, table, draw in found:
            table = tables.rounded(table)
            paths += [tables.write_csv(table, out / f"{name}.csv"), *save(draw(table), out / name)]
    return paths


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF and PNG without dates (the same data give the same bytes), then close it."""
    formats = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
    paths = []
    for kind, metadata in formats.items():
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # the layout is made: the second format need not make it again
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        artifacts.write_bytes(paths[-1], content.getvalue())
    plt.close(figure)
    return paths


def report_tables(data: Results, points: pd.DataFrame, judged: list[claims.Claim]):
    """(file name, title, note, table) of every table."""
    correct, settings = data.correctness, data.settings
    yield (
        "table_1_example",
        "Table 1: an example",
        "Scores are the reward model's.",
        tables.example_table(data.example),
    )
    yield "table_2_main", "Table 2: main results", f"Accuracy in %. {OURS}", tables.main_table(points)
    note = f"Validation AUC; intervals over queries. {OURS} `ours_wo_d` has no value in the paper."
    yield "table_3_reward_model_auc", "Table 3: reward models", note, tables.auc_table(data.reward_scores)
    note = f"Accuracy in %; gains over w/o reward are paired. {OURS}"
    yield "table_4_reward_source", "Table 4: reward source", note, tables.reward_source_table(correct)
    table = tables.hyperparameter_table(settings, ("sft", "reward_model"))
    yield (
        "table_5_hyperparameters_sft",
        "Table 5 (and B.2): hyperparameters of SFT and reward models",
        OURS,
        table,
    )
    note = f"{OURS} The paper's learning rates are lost in the text."
    yield "table_6_hyperparameters_ppo", "Table 6: PPO", note, tables.hyperparameter_table(settings, ("ppo",))
    note = "Accuracy in %; gains over Ours are paired. The paper's numbers are lost in the text."
    table = tables.correctness_validation_table(correct)
    yield "table_7_correctness_validation", "Table 7: what Eq. 7 does with a mismatch", note, table
    table = tables.accuracy_by_group(correct, "gsm_plus", "perturbation")
    yield "gsm_plus_by_perturbation", "GSM-Plus by perturbation", "Accuracy in %.", table
    table = tables.accuracy_by_group(correct, "mmlu", "category")
    yield "mmlu_by_category", "MMLU-Pro by category", "Accuracy in %.", table
    note = "Stated: in the paper's text. Reconstructed: our reading of what is lost. Open: our choice."
    yield "provenance", "Where each constant comes from", note, paper.provenance_table(settings)
    yield "costs", "What each stage cost", "Sums over all runs of a stage.", tables.cost_table(data.costs)
    note = "Verdicts are computed from the result tables by the criterion given, fixed beforehand."
    yield "claims", "The paper's claims", note, claims.claims_table(judged)
    note = "The differences behind each verdict; positive is what the paper claims."
    yield "claims_cells", "The paper's claims, cell by cell", note, claims.cells_table(judged)


def report_figures(data: Results, points: pd.DataFrame, judged: list[claims.Claim], edges: Iterable[tuple[str, str]]):
    """(file name, table of what is drawn, function that draws the table and returns the figure)."""
    scores, lam = data.reward_scores, data.default("reward_model.lam")
    yield "figure_2_pipeline", pd.DataFrame(edges, columns=["stage", "read_by"]), _pipeline
    yield "figure_3_failure_ratio", tables.failure_ratios(data.pseudo_labels), _failure
    yield "figure_4_judged_correctness", tables.judged_correctness(data.pseudo_labels), _judged
    yield "figure_5_lambda", tables.lambda_curves(data.reward_model_history, scores, lam), _lambda
    yield (
        "figure_6_data_ratio",
        tables.ratio_points(scores, data.default("reward_model.teacher_share")),
        _ratio,
    )
    yield "figure_main_results", points, _main
    cells, grid_claims = claims.cells_table(judged), ["C1", "C2", "C3", "C4"]
    yield "figure_claims_methods", cells[cells.claim.isin(grid_claims)], _claims_of_methods
    yield "figure_claims_ablations", cells[~cells.claim.isin(grid_claims)], _claims_of_ablations
    history = tables.smoothed(data.sft_history, "loss")
    table = tables.learning_curves(history, "step", list(SFT_PANELS))
    yield "figure_learning_sft", table, lambda t: _curves(t, "step", SFT_PANELS, "optimiser step")
    table = tables.learning_curves(data.reward_model_history, "step", list(REWARD_PANELS))
    yield "figure_learning_reward_model", table, lambda t: _curves(t, "step", REWARD_PANELS, "optimiser step")
    table = tables.learning_curves(data.ppo_history, "update", list(PPO_PANELS))
    yield "figure_learning_ppo", table, lambda t: _curves(t, "update", PPO_PANELS, "PPO update")
    yield "figure_reward_histograms", tables.histogram_table(scores), _histograms
    yield "figure_roc", tables.roc_table(scores), _roc


def _pipeline(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=7.2, height=2.6)
    pipeline_figure.draw_pipeline(axes[0, 0], table.itertuples(index=False, name=None))
    return figure


def _failure(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=4.0, height=2.6)
    plots.draw_failure_ratios(axes[0, 0], table)
    return figure


def _judged(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.0, height=2.6)
    plots.draw_judged_correctness(axes[0], table)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    plots.legend_below(figure, handles)
    return figure


def _lambda(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.2, height=2.9)
    plots.draw_lambda_curves(axes[0], table)
    plots.legend_below(figure, plots.lambda_handles(table), columns=3)
    return figure


def _ratio(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=4.6, height=2.8)
    plots.draw_ratio_points(axes[0, 0], table)
    return figure


def _main(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(2, max(1, table.benchmark.nunique()), width=7.6, height=2.9)
    plots.draw_main_results(axes, table)
    plots.legend_below(figure, plots.method_handles(tables.in_order(table.method, paper.METHODS)))
    return figure


def _claims_of_methods(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(2, 4, width=9.0, height=2.9, sharey=True)
    plots.draw_claim_differences(axes[0], table, "study")
    plots.draw_claim_differences(axes[1], table, "paper")
    figure.supylabel("benchmark / teacher / student", fontsize=8.5)
    return figure


def _claims_of_ablations(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(2, 3, width=9.0, height=2.0)
    plots.draw_claim_differences(axes.flat, table, "study")
    return figure


def _curves(table: pd.DataFrame, step: str, panels: dict[str, str], x: str) -> Figure:
    figure, axes = plots.grid(max(1, table.dataset.nunique()), len(panels), width=2.6 * len(panels), height=2.2)
    plots.draw_learning_curves(axes, table, step, panels, x)
    plots.legend_below(figure, plots.cell_handles(table), columns=3)
    return figure


def _histograms(table: pd.DataFrame) -> Figure:
    return _panels(table, plots.draw_histogram, plots.kind_handles(), sharey=False)


def _roc(table: pd.DataFrame) -> Figure:
    return _panels(table, plots.draw_roc, plots.comparison_handles())


def _panels(table: pd.DataFrame, draw: Callable, handles: list, sharey: bool = True) -> Figure:
    cells = list(dict.fromkeys(table[tables.CELL].itertuples(index=False, name=None)))
    columns = min(4, max(1, len(cells)))
    figure, axes = plots.grid(
        max(1, -(-len(cells) // columns)), columns, width=8.4, height=2.45, sharex=True, sharey=sharey
    )
    for ax, cell in zip(axes.flat, cells, strict=False):
        draw(ax, tables.select(table, **dict(zip(tables.CELL, cell, strict=True))))
        ax.set_title(plots.cell_title(*cell))
    for ax in list(axes.flat)[len(cells) :]:
        ax.axis("off")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    plots.legend_below(figure, handles)
    return figure
