"""What PPO starts from and how far it goes: agreement on the questions that it trains on, KL, clipping, rewards."""

from __future__ import annotations

import pandas as pd

from rdlib.evidence import tables

ENDS = 10  # updates at either end of a run whose mean is taken
KEYS = [*tables.CELL, "method"]
COLUMNS = ["trained_on_pct", "validation_start_pct", "kept_gain_pp", "kl_end", "clip_fraction_most"]
COLUMNS += ["reward_first", "reward_last"]


def reach_table(history: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and method; means over seeds, rewards also seed by seed.

    trained_on_pct: agreement of the first samples of the questions that PPO trains on; validation_start_pct and
    kept_gain_pp: agreement on validation questions before PPO, and what the kept policy adds; kl_end: nats a response;
    clip_fraction_most: the largest share of an update's tokens that Eq. 8 clips. `history`: PPO's, an update a row.
    """
    history = tables.select(history, variant="").sort_values([*KEYS, "seed", "update"], ignore_index=True)
    rows = []
    for key, part in history.groupby([*KEYS, "seed"], sort=True):
        updates, evaluated = part[part["update"] > 0], part["validation_agreement"].dropna()
        first, last = updates.head(ENDS), updates.tail(ENDS)
        start = float(evaluated.iloc[0])
        row = dict(zip([*KEYS, "seed"], key, strict=True))
        row |= {"trained_on_pct": 100 * first["agreement"].mean(), "validation_start_pct": 100 * start}
        row |= {"kept_gain_pp": 100 * (evaluated.max() - start), "kl_end": last["kl"].mean()}
        row |= {"clip_fraction_most": updates["clip_fraction"].max()}
        rows.append(row | {"reward_first": first["reward"].mean(), "reward_last": last["reward"].mean()})
    runs = pd.DataFrame(rows, columns=[*KEYS, "seed", *COLUMNS])
    found = runs.groupby(KEYS, sort=True)
    table = found[COLUMNS].mean()
    table["clip_fraction_most"] = found["clip_fraction_most"].max()
    table.insert(0, "seeds", found.size())
    table["reward_first_seeds"] = found["reward_first"].apply(lambda values: " ".join(f"{one:.2f}" for one in values))
    return tables.sorted_by(table.reset_index(), KEYS)
