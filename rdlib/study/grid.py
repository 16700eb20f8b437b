"""What a profile's grid asks for beside the main cells: the ablations' variants, and the cells that they are of."""

from __future__ import annotations

from typing import Any

from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.study.stage import Stage


def ablation_overrides(profile: Profile) -> dict[str, list[dict[str, Any]]]:
    """The overrides of each ablation: Figure 5, Figure 6, Table 4 and Table 7."""
    grid = profile.grid
    return {
        "lambda": [{"reward_model.lam": value} for value in grid.lam],
        "data_ratio": [{"reward_model.teacher_share": value} for value in grid.teacher_share],
        "reward_source": [{"reward_model.source": value} for value in ("student", "teacher")],
        "correctness": [{"reward.mismatch": value} for value in grid.mismatch],
    }


def teacher_stages(stage: Stage) -> list[Stage]:
    """The stages that ask the teacher; of own questions, which may have no answers, also those held out."""
    names = ("01_teacher_responses", "01_held_out") if stage.dataset_settings.own else ("01_teacher_responses",)
    return [stage.at(name) for name in names]


def ablation_cells(profile_path: str, seed: int) -> list[Stage]:
    """The evaluation of Ours in each cell of the ablations and of the reviewers' questions, in the profile's order."""
    cells = load_profile(ROOT / profile_path).grid.ablation_cells
    return [
        Stage("07_evaluate", profile_path, method="ours", seed=seed, root=ROOT, **cell.model_dump()) for cell in cells
    ]
