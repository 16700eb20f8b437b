"""Where the study differs from the paper, in sentences whose every number is taken from the released tables.

    sentences(Path("figures"))

What no table is there for is left out.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rdlib.evidence import forgetting, ppo_reach, same_rate, tables

SFT_CLAIM, WARM_UP_CLAIM, PPO_CLAIM = "C1", "C2", "C3"  # Ours against SFT, its warm-up alone, its PPO alone


def sentences(figures: Path) -> list[str]:
    """A sentence or two on SFT, PPO, the warm-up, Pos/Pos, the best of n and the stronger baselines."""
    tellers = (
        ("claims_cells", of_sft),
        ("same_rate", of_rate),
        ("figure_kept_step", of_forgetting),
        ("claims_cells", of_ppo),
        ("ppo_reach", of_reach),
        ("claims_cells", of_no_warm_up),
        ("table_3_reward_model_auc", of_pos_pos),
        ("figure_best_of_n", of_best_of_n),
        ("question_r1", of_baselines),
    )
    paths = [(figures / f"{name}.csv", tell) for name, tell in tellers]
    return [tell(pd.read_csv(path, keep_default_na=False)) for path, tell in paths if path.is_file()]


def of_sft(cells: pd.DataFrame) -> str:
    """By how much Ours beats SFT in each benchmark, here and in the paper: rows of claims_cells.csv."""
    here, in_paper = _means(cells, SFT_CLAIM, place=0, of="on {}")
    return f"**Ours minus SFT** is {here}{in_paper}."


def of_rate(differences: pd.DataFrame) -> str:
    """What is left of that where SFT has the warm-up's learning rate: rows of same_rate.csv."""
    left, rate, own = (same_rate.mean_of(differences, name) for name in (same_rate.OURS, same_rate.RATE, same_rate.OWN))
    return (
        f"**SFT's learning rate**: trained once more with the warm-up's, SFT gains {rate} on the mean of the cells, "
        f"and Ours is ahead of it by {left} in place of {own} ([by cell](../figures/same_rate.md))."
    )


def of_ppo(cells: pd.DataFrame) -> str:
    """What PPO adds to the warm-up in each benchmark, here and in the paper: rows of claims_cells.csv."""
    here, in_paper = _means(cells, WARM_UP_CLAIM, place=0, of="on {}")
    return f"**PPO** adds to its warm-up {here}{in_paper}."


def of_reach(reach: pd.DataFrame) -> str:
    """What PPO of Ours has to learn from, and how far it goes: rows of ppo_reach.csv."""
    ours, alone = (reach[reach["method"] == method] for method in ("ours", "ours_wo_d"))
    return (
        f"**The questions that PPO trains on** are, but for those of Q_fail, questions that the warm-up has learnt: of "
        f"the samples of the first {ppo_reach.ENDS} updates that have a label {_ends(ours['trained_on_pct'])} % agree "
        f"with it over the cells, of validation answers {_ends(ours['validation_start_pct'])} %, without a warm-up "
        f"{_ends(alone['trained_on_pct'])} % of the samples. In its last {ppo_reach.ENDS} updates PPO of Ours is "
        f"{_ends(ours['kl_end'], 2)} nats a response from its start, and its steps are so small that Eq. 8 clips at "
        f"most {100 * ours['clip_fraction_most'].max():.2f} % of an update's tokens."
    )


def _ends(values: pd.Series, digits: int = 0) -> str:
    """The least and the most of some values, as "20 to 30"."""
    values = pd.to_numeric(values).dropna()
    return " to ".join(dict.fromkeys(f"{end:.{digits}f}" for end in (values.min(), values.max())))


def of_no_warm_up(cells: pd.DataFrame) -> str:
    """What PPO lacks without a warm-up, by student, here and in the paper: rows of claims_cells.csv."""
    here, in_paper = _means(cells, PPO_CLAIM, place=2, of="with the {} student")
    return f"**The warm-up** is worth, to PPO that begins from it, {here}{in_paper}."


def _means(cells: pd.DataFrame, claim: str, place: int, of: str) -> tuple[str, str]:
    """Means of a claim's cells by one of their parts, here and in the paper; in brackets, how many are told from 0.

    `place` is that of the part in a cell's name, benchmark/teacher/student, and `of` says it in words.
    """
    rows = cells[cells["claim"] == claim]
    numbers = rows.filter(regex="^(study|paper)_(difference|low|high)$").apply(pd.to_numeric, errors="coerce")
    here, paper = [], []
    for name, part in numbers.groupby(rows["cell"].str.split("/").str[place], sort=False):
        here.append(f"{_pp(part['study_difference'].mean())} {of.format(name)} ({_told(part)})")
        if part["paper_difference"].notna().any():
            paper.append(f"{_pp(part['paper_difference'].mean())} {of.format(name)}")
    return tables.listed(here), f"; in the paper {tables.listed(paper)}" if paper else ""


def of_forgetting(kept: pd.DataFrame) -> str:
    """How accuracy moves with the step that supervised fine-tuning kept: rows of figure_kept_step.csv."""
    moved = forgetting.within_cells(kept)
    below = [_below(kept[kept["benchmark"] == row.benchmark], row) for row in moved.itertuples()]
    slopes = [
        f"{_pp(row.per_100_steps_pp)} on {row.benchmark} (correlation {row.correlation:.2f})"
        for row in moved.itertuples()
    ]
    return (
        f"**Forgetting**, which the paper does not look at: SFT or the warm-up answers fewer test questions rightly "
        f"than the student did before training in {tables.listed(below)}. Within a cell, a seed whose checkpoint was "
        f"kept 100 optimizer steps later has {tables.listed(slopes)}."
    )


def _below(runs: pd.DataFrame, moved) -> str:
    """How many trainings of a benchmark end below their start, and whose."""
    by_student = runs[runs["change_pp"] < 0].groupby("student", sort=False).size()
    whose = tables.listed([f"{number} of the {name} student" for name, number in by_student.items()])
    return f"{moved.below} of {moved.runs} trainings on {moved.benchmark}{f' ({whose})' if whose else ''}"


def _told(cells: pd.DataFrame) -> str:
    """How many cells are told from 0, each by its own interval, and on which side."""
    sides = {"above": int((cells["study_low"] > 0).sum()), "below": int((cells["study_high"] < 0).sum())}
    found = [f"{side} 0 in {number}" for side, number in sides.items() if number]
    return f"{' and '.join(found) or 'told from 0 in none'} of {len(cells)} cell{'s' * (len(cells) > 1)}"


def of_pos_pos(auc: pd.DataFrame) -> str:
    """How well the reward model tells whose a right response is, with the warm-up and without: rows of Table 3."""
    spans = {method: _span(auc, method, "study_pos_pos_auc") for method in ("ours", "ours_wo_d")}
    return (
        f"**Pos/Pos**, how well the reward model tells the teacher's right responses from the student's: after the "
        f"warm-up an AUC of {spans['ours']} over the cells, in the paper {_span(auc, 'ours', 'paper_pos_pos_auc')}; "
        f"without the warm-up {spans['ours_wo_d']}."
    )


def _span(auc: pd.DataFrame, method: str, column: str) -> str:
    return _ends(auc.loc[auc["method"] == method, column], 2)


def of_best_of_n(shares: pd.DataFrame) -> str:
    """How many of the choices among the most samples are right, a cell after the other: rows of figure_best_of_n."""
    parts = []
    ends = shares["samples"].min(), shares["samples"].max()
    for cell, part in shares.groupby("cell", sort=False):
        one, most = (part[part["samples"] == number].set_index("strategy") for number in ends)
        by_text = f", {_share(most.loc['distinct'])} of their distinct texts" if "distinct" in most.index else ""
        parts.append(
            f"{cell}: of {ends[1]} samples, {_share(most.loc['reward'])} of those with the highest "
            f"reward and {_share(most.loc['majority'])} of the majorities are right, {_share(one.loc['reward'])} of "
            f"single samples{by_text}"
        )
    return (
        f"**Best of n** by the reward model, which the paper does not show, of samples that the policy writes before "
        f"PPO to validation questions with a label: {'; '.join(parts)}."
    )


def _share(row: pd.Series) -> str:
    return f"{row['study_pct']:.0f} % [{row['study_low_pct']:.0f}, {row['study_high_pct']:.0f}]"


def of_baselines(answers: pd.DataFrame) -> str:
    """Which methods of R1 are told from Ours, and by how much they differ: rows of question_r1.csv."""
    arms = answers[answers["ours_minus_arm_pp"] != ""]
    better, worse = [], []
    for row in arms.to_dict("records"):
        ours, low, high = (float(row[f"ours_minus_arm{name}_pp"]) for name in ("", "_low", "_high"))
        text = f"{row['arm']} by {abs(ours):.1f} pp, {row['cell']}: {row['benchmark']}"
        if high < 0:
            better.append(text)
        elif low > 0:
            worse.append(text)
    return (
        f"**Baselines of R1**, most of which the paper lacks: in {len(arms)} comparisons with Ours, the baseline is "
        f"told to be better in {_named(better)} and Ours in {_named(worse)}; if no method differed, about one "
        f"comparison in twenty would still be told apart."
    )


def _named(items: list[str]) -> str:
    return f"{len(items)} ({'; '.join(items)})" if items else "none"


def _pp(value: float) -> str:
    """A difference in points with its sign; what rounds to nothing is positive."""
    return f"{value:+.1f} pp".replace("-0.0 pp", "+0.0 pp")
