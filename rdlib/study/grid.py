"""What a study runs: the methods and ablations asked for, the ablations' variants, and the cells that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import Profile, load_profile
from rdlib.settings import Ablation, Method
from rdlib.study.stage import Stage

METHODS: tuple[str, ...] = get_args(Method)
ABLATION_NAMES: tuple[str, ...] = get_args(Ablation)
KINDS = ("methods", "ablations")  # what can be asked for by name
OF_OWN = ("ours_wo_r", "ours")  # the student of Ours and its warm-up
VALUES = {"lambda": "lam", "data_ratio": "teacher_share", "correctness": "mismatch"}  # settings of the grid


@dataclass(frozen=True)
class Named:
    """Methods and ablations asked for by name, beside those that the profile asks for."""

    methods: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()

    @property
    def options(self) -> str:
        """The words of the command line that ask for them, after a space; "" for none."""
        parts = (("--methods", self.methods), ("--ablations", self.ablations))
        return "".join(f" {flag} {' '.join(names)}" for flag, names in parts if names)


NOTHING, EVERYTHING = Named(), Named(METHODS, ABLATION_NAMES)


def named(profile: Profile, methods: Iterable[str] | None, ablations: Iterable[str] | None) -> Named:
    """The methods and ablations of the command line; UserError for a name that is none, or an ablation of one value."""
    methods, ablations = tuple(methods or ()), tuple(ablations or ())
    for kind, names, known in (("method", methods, METHODS), ("ablation", ablations, ABLATION_NAMES)):
        for name in names:
            if name not in known:
                raise UserError(f"There is no {kind} {name!r}: --{kind}s takes some of {', '.join(known)}.")
    for name in ablations:
        if name in VALUES and len(set(getattr(profile.grid, VALUES[name]))) < 2:
            raise UserError(
                f"The ablation {name} compares values of grid.{VALUES[name]}, of which the profile {profile.name} has "
                f"one alone: add others there."
            )
    return Named(methods, ablations)


def methods_of(profile: Profile, dataset: str, more: Named = NOTHING) -> tuple[str, ...]:
    """The methods of a dataset's cells: those that the profile asks for, and those asked for by name."""
    default = OF_OWN if profile.datasets[dataset].own else METHODS
    wanted = {*(default if profile.grid.methods is None else profile.grid.methods), *more.methods}
    return tuple(method for method in METHODS if method in wanted)


def ablations_of(profile: Profile, dataset: str, more: Named = NOTHING) -> tuple[str, ...]:
    """The ablations of a dataset's cells: those that the profile asks for, and those asked for by name."""
    default = () if profile.datasets[dataset].own else ABLATION_NAMES
    wanted = {*(default if profile.grid.ablations is None else profile.grid.ablations), *more.ablations}
    return tuple(ablation for ablation in ABLATION_NAMES if ablation in wanted)


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
