"""Tables and figures of the reviewers' questions and of the reward-model diagnostics, from result tables alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rdlib.evidence import diagnostics, ledger, plots, reviewers, stats

BEST_OF = [1, 2, 3, 5, 8, 12, 20, 30]
STRATEGIES = {
    "reward": plots.Look("highest reward (best of n)", plots.BLUE, "D", "-"),
    "majority": plots.Look("majority vote of n", plots.ORANGE, "s", "--"),
    "any": plots.Look("any of n is right (pass@n)", plots.GREY, "o", ":"),
}
POLICIES = {
    "before": plots.Look("before PPO", plots.SKY, "^", "--"),
    "after": plots.Look("after PPO", plots.BLUE, "D", "-"),
}
COMPARED = ("R1", "R2")
NO_LEVEL = -1.0
LEVELS = {"R2": "teacher_samples_times", "R4": "flipped_share"}


# ---- tables


def best_of_n_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of choosing among n samples before PPO, a row (strategy, n) with its interval over questions."""
    values = pd.concat(
        [
            diagnostics.best_of_n(group, BEST_OF).assign(seed=seed)
            for seed, group in judged[judged["policy"] == "before"].groupby("seed")
        ]
    )
    rows = []
    for (strategy, n), part in values.groupby(["strategy", "n"], sort=True):
        interval = stats.mean_draws(part, "validation").interval()
        rows.append(
            {"strategy": strategy, "samples": n}
            | {"study_pct": 100 * interval.estimate, "study_low_pct": 100 * interval.low}
            | {"study_high_pct": 100 * interval.high, "n": interval.n}
        )
    return pd.DataFrame(rows)


def reliability_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Reliability curve of sigmoid(score), before and after PPO; `ece` is the same on all rows of a policy."""
    parts = []
    for policy in POLICIES:
        table = diagnostics.reliability(judged[judged["policy"] == policy])
        error = diagnostics.expected_calibration_error(table)
        parts.append(table.assign(policy=policy, ece=error))
    return pd.concat(parts, ignore_index=True)


def reward_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Histogram of the reward model's score before and after PPO: policy, bin_low, bin_high, density."""
    edges = np.histogram_bin_edges(judged["score"], bins=30)
    parts = []
    for policy in POLICIES:
        density, _ = np.histogram(judged.loc[judged["policy"] == policy, "score"], bins=edges, density=True)
        parts.append(pd.DataFrame({"policy": policy, "bin_low": edges[:-1], "bin_high": edges[1:], "density": density}))
    return pd.concat(parts, ignore_index=True)


def length_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Is it paid for length? Spearman's correlations of score and length, and mean length, by policy."""
    rows = []
    for policy in POLICIES:
        part = judged[judged["policy"] == policy]
        found = diagnostics.length_correlation(part.assign(id=part["seed"].astype(str) + part["id"]))
        rows.append(
            {
                "policy": policy,
                "spearman_all": found["overall"],
                "spearman_within_question": found["within"],
                "mean_tokens": part["tokens"].mean(),
                "mean_score": part["score"].mean(),
                "correct_pct": 100 * part["correct"].mean(),
                "responses": len(part),
            }
        )
    return pd.DataFrame(rows)


def ledger_table(costs: pd.DataFrame) -> pd.DataFrame:
    """R6: tokens, operations and seconds of every stage behind the arms of R1 and R2; means over seeds."""
    table = ledger.ledger(costs[costs["question"].isin(COMPARED)])
    table = table.groupby(["stage", "teacher", "student", "method", "variant"], sort=True)
    table = table[["parameters", "tokens_generated", "tokens_trained", "flops", "seconds"]].mean().reset_index()
    whole = ["parameters", "tokens_generated", "tokens_trained"]
    return table.assign(gflop=table["flops"] / 1e9).drop(columns="flops").round(1).astype(dict.fromkeys(whole, int))


def pareto_table(answers: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the arms of R1 and R2 against the operations that making one takes, inputs included.

    Evaluation is left out; an arm of both questions appears once.
    """
    accuracy = reviewers.accuracy_table(answers[answers["question"].isin(COMPARED)])
    spent = ledger.ledger(costs[costs["stage"] != "07_evaluate"]).fillna({"level": NO_LEVEL})
    spent = spent.groupby(["question", "arm", "level"])["flops"].sum() / costs["seed"].nunique()
    keys = accuracy.fillna({"level": NO_LEVEL}).set_index(["question", "arm", "level"]).index
    accuracy = accuracy.assign(gflop=spent.reindex(keys).to_numpy() / 1e9)
    return accuracy.assign(level=accuracy["level"].replace(1.0, np.nan)).drop_duplicates(["benchmark", "arm", "level"])


def seed_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """R7: accuracy of every method by seed, and the standard deviation over seeds, in percentage points."""
    main = correctness[(correctness["variant"] == "") & (correctness["method"] != "")]
    keys = ["benchmark", "teacher", "student", "method"]
    table = 100 * main.groupby([*keys, "seed"])["correct"].mean().unstack("seed")
    table.columns = [f"seed{seed}_pct" for seed in table.columns]
    spread = table.std(axis=1, ddof=1)
    return table.assign(sd_pp=spread).reset_index()


# ---- drawing


def draw_arms(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Accuracy of arms with intervals, an axes a benchmark; the reference filled, the others open."""
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    for ax, benchmark in zip(axes, benchmarks, strict=False):
        part = table[table["benchmark"] == benchmark].reset_index(drop=True)
        names = [_arm_label(row.arm, row.level) for row in part.itertuples()]
        is_ours = part["ours_minus_arm_pp"].isna() if "ours_minus_arm_pp" in part else pd.Series(True, part.index)
        errors = plots.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
        for i, row in enumerate(part.itertuples()):
            color, marker = (plots.BLUE, "D") if is_ours[i] else (plots.BLACK, "o")
            face = color if is_ours[i] else "white"
            ax.errorbar(row.study_pct, i, xerr=errors[:, i : i + 1], color=color, fmt=marker, mfc=face, capsize=2)
            plots.seed_dots(ax, [i + 0.3], [row.study_seeds], color, along="x")
        ax.set_yticks(range(len(part)), names if ax is axes[0] else [])
        ax.set_ylim(len(part) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        ax.set(title=plots.benchmark_label(benchmark), xlabel="accuracy (%)")


def _arm_label(arm: str, level: float) -> str:
    return arm if np.isnan(level) else f"{arm} ({level:g} x teacher samples)"


def draw_label_noise(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Accuracy against the share of flipped pseudo-labels, an axes a benchmark."""
    looks = {"Ours": plots.METHODS["ours"], "Ours w/o R": plots.METHODS["ours_wo_r"]}
    for ax, benchmark in zip(axes, dict.fromkeys(table["benchmark"]), strict=False):
        for arm, look in looks.items():
            part = table[(table["benchmark"] == benchmark) & (table["arm"] == arm)].sort_values("level")
            errors = plots.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
            x = 100 * part["level"] + (0.4 if arm == "Ours" else -0.4)
            ax.errorbar(
                x,
                part["study_pct"],
                errors,
                color=look.color,
                marker=look.marker,
                linestyle=look.line,
                capsize=2,
            )
            plots.seed_dots(ax, x + 0.3, part["study_seeds"], look.color)
        ax.set(title=plots.benchmark_label(benchmark), xlabel="pseudo-labels flipped (%)", ylabel="accuracy (%)")


def draw_thresholds(axes: Iterator[Axes], table: pd.DataFrame) -> None:
    """Label accuracy against coverage, and failure ratio against the threshold, a line a dataset and teacher."""
    first, second = axes
    for i, ((dataset, teacher), part) in enumerate(table.groupby(["dataset", "teacher"], sort=True)):
        color, marker, line = plots.LAMBDA_LOOKS[i % len(plots.LAMBDA_LOOKS)]
        part = part.sort_values("threshold")
        label = f"{plots.benchmark_label(dataset)}, {teacher} teacher"
        style = {"color": color, "marker": marker, "linestyle": line, "label": label}
        first.plot(100 * part["coverage"], 100 * part["label_accuracy"], **style)
        second.plot(part["threshold"], 100 * part["failure_ratio"], **style)
    first.set(xlabel="questions with a pseudo-label (%)", ylabel="pseudo-labels equal to gold (%)")
    second.set(xlabel="threshold of the vote", ylabel="failure ratio (%)")


def draw_best_of_n(ax: Axes, table: pd.DataFrame) -> None:
    """Validation accuracy of three ways to use n samples of the warmed-up student."""
    for strategy, look in STRATEGIES.items():
        part = table[table["strategy"] == strategy]
        ax.plot(part["samples"], part["study_pct"], color=look.color, marker=look.marker, linestyle=look.line)
        ax.fill_between(part["samples"], part["study_low_pct"], part["study_high_pct"], color=look.color, alpha=0.12)
    ax.set(xlabel="samples a question, n", ylabel="validation accuracy (%)")


def draw_reliability(ax: Axes, table: pd.DataFrame) -> None:
    """Reliability of sigmoid(score) against the diagonal of a calibrated one."""
    ax.plot([0, 1], [0, 1], color=plots.GREY, linewidth=1, linestyle=":")
    for policy, look in POLICIES.items():
        part = table[table["policy"] == policy]
        ax.plot(part["predicted"], part["observed"], color=look.color, marker=look.marker, linestyle=look.line)
    ax.set(xlabel="sigmoid of the score", ylabel="share of correct responses", xlim=(0, 1), ylim=(0, 1))


def draw_rewards(ax: Axes, table: pd.DataFrame) -> None:
    """Distribution of scores before and after PPO."""
    for policy, look in POLICIES.items():
        part = table[table["policy"] == policy]
        edges = [*part["bin_low"], part["bin_high"].iloc[-1]]
        ax.stairs(part["density"], edges, color=look.color, linestyle=look.line, linewidth=1.5)
    ax.set(xlabel="reward model score", ylabel="density")


def draw_over_optimisation(axes: Iterator[Axes], table: pd.DataFrame) -> None:
    """Reward, and true accuracy and agreement, against the KL to the policy before PPO; a line a seed."""
    first, second = axes
    for _, part in table.groupby("seed"):
        known = part.dropna(subset="kl").sort_values("update")
        first.plot(known["kl"], known["reward"], color=plots.BLACK, marker="o")
        start = part.sort_values("update").assign(kl=part["kl"].fillna(0.0))
        second.plot(start["kl"], 100 * start["accuracy"], color=plots.BLUE, marker="D")
        second.plot(start["kl"], 100 * start["agreement"], color=plots.ORANGE, marker="s", linestyle="--")
    first.set(xlabel="KL (nats a response)", ylabel="reward, Eq. 7")
    second.set(xlabel="KL (nats a response)", ylabel="validation questions (%)")


def draw_pareto(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Accuracy against operations, an axes a benchmark; every point is named once, by number."""
    for ax, benchmark in zip(axes, dict.fromkeys(table["benchmark"]), strict=False):
        part = table[table["benchmark"] == benchmark]
        for row in part.itertuples():
            ours = row.arm.startswith("Ours") and "w/o" not in row.arm
            ax.plot([row.gflop] * 2, [row.study_low_pct, row.study_high_pct], color=plots.GREY, linewidth=1)
            ax.plot(
                row.gflop,
                row.study_pct,
                color=plots.BLUE if ours else plots.BLACK,
                marker="D" if ours else "o",
                mfc=plots.BLUE if ours else "white",
                linestyle="none",
            )
        for names, place in point_labels(part["gflop"], part["study_pct"]):
            ax.annotate(names, place, xytext=(4, 3), textcoords="offset points", fontsize=7)
        ax.set(title=plots.benchmark_label(benchmark), xlabel="operations to make it (10⁹)", ylabel="accuracy (%)")


def point_labels(xs: pd.Series, ys: pd.Series, near: float = 0.03) -> list[tuple[str, tuple[float, float]]]:
    """(label, place) of points numbered from 1; points nearer than a share `near` of both ranges share a label."""
    points = np.stack([xs, ys], axis=1)
    scale = np.maximum(np.ptp(points, axis=0), 1e-9)
    labels: list[tuple[list[str], np.ndarray]] = []
    for number, point in enumerate(points, start=1):
        close = [names for names, place in labels if (abs(place - point) / scale < near).all()]
        if close:
            close[0].append(str(number))
        else:
            labels.append(([str(number)], point))
    return [(", ".join(names), tuple(place)) for names, place in labels]


def pareto_handles(table: pd.DataFrame) -> list[Line2D]:
    """What the numbers of `draw_pareto` stand for."""
    part = table[table["benchmark"] == table["benchmark"].iloc[0]]
    return [
        Line2D([], [], linestyle="none", label=f"{i} {_arm_label(row.arm, row.level)}")
        for i, row in enumerate(part.itertuples(), start=1)
    ]


def handles(looks: dict[str, plots.Look]) -> list[Line2D]:
    """Legend handles of looks."""
    return [Line2D([], [], color=k.color, marker=k.marker, linestyle=k.line, label=k.label) for k in looks.values()]


# ---- everything


def cost_answer(table: pd.DataFrame) -> str:
    """What Ours costs beside the other arms, as a multiple of the cheapest."""
    arms = table.drop_duplicates(["arm", "level"]).sort_values("gflop", kind="stable")
    least = arms["gflop"].iloc[0]
    times = [f"{_arm_label(row.arm, row.level)} {row.gflop / least:.1f}" for row in arms.itertuples()]
    return "operations to make each, as multiples of the cheapest: " + ", ".join(times) + "."


def arms(table: pd.DataFrame) -> Figure:
    rows = len(table) / max(1, table["benchmark"].nunique())
    figure, axes = plots.grid(1, 2, width=7.4, height=0.7 + 0.24 * rows)
    draw_arms(axes[0], table)
    return figure


def label_noise(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.2, height=2.6)
    draw_label_noise(axes[0], table)
    plots.legend_below(figure, plots.method_handles(["ours", "ours_wo_r"], lines=True))
    return figure


def thresholds(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.2, height=2.7)
    draw_thresholds(axes[0], table)
    plots.legend_below(figure, axes[0, 0].get_legend_handles_labels()[0], columns=2)
    return figure


def pareto(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=8.4, height=3.6)
    draw_pareto(axes[0], table)
    plots.legend_below(figure, pareto_handles(table), columns=3)
    return figure


def best_of_n(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=4.6, height=2.8)
    draw_best_of_n(axes[0, 0], table)
    plots.legend_below(figure, handles(STRATEGIES), columns=1)
    return figure


def reliability(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=3.6, height=3.1)
    draw_reliability(axes[0, 0], table)
    plots.legend_below(figure, handles(POLICIES))
    return figure


def rewards(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=4.4, height=2.5)
    draw_rewards(axes[0, 0], table)
    plots.legend_below(figure, handles(POLICIES))
    return figure


def over_optimisation(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.0, height=2.6)
    draw_over_optimisation(axes[0], table)
    looks = {
        "accuracy": plots.Look("correct by gold", plots.BLUE, "D", "-"),
        "agreement": plots.Look("agrees with the vote", plots.ORANGE, "s", "--"),
    }
    plots.legend_below(figure, handles(looks))
    return figure
