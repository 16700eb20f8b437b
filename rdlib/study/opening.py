"""Opening a stage by the parameters of a notebook, checked: names, kinds, and that nothing goes unread.

stage = open_stage("05_reward_model", globals())   # after the notebook's parameters cell
stage = make_stage("06_ppo", "params/micro.yaml", dataset="gsm", teacher="weak", student="large", method="ours")
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import SEEDS
from rdlib.study.specification import SECTIONS, STAGES
from rdlib.study.stage import Stage


def open_stage(name: str, namespace: dict[str, Any]) -> Stage:
    """The stage a notebook is about, from the variables of its parameters cell.

    Raises UserError for a variable that the notebook does not declare (papermill only warns), a name
    that the profile does not have, or a value of the wrong kind.
    """
    parameters = {k: v for k, v in namespace.items() if _is_parameter(k, v)}
    known = {"profile", "seed", "overrides", *STAGES[name].axes}
    extra = {key.partition("__")[0] for key in parameters} - known - SHORTCUTS.keys() - NOTEBOOK_PARAMETERS
    if extra:
        unknown = sorted(extra)[0]
        close = difflib.get_close_matches(unknown, [*known, *SHORTCUTS], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it reads {', '.join(sorted(known))}."
        raise UserError(f"Notebook {STAGES[name].notebook} has no parameter {unknown!r}: {hint}")
    overrides = parameters.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise UserError(f"overrides is {overrides!r}: give a dictionary such as {{'ppo.kl_coef': 0.1}}.")
    if not isinstance(parameters.get("profile"), str):
        raise UserError("The parameter profile is missing: give the path of a profile such as params/micro.yaml.")
    overrides = dict(overrides)
    overrides |= {SHORTCUTS[k]: v for k, v in parameters.items() if k in SHORTCUTS and v is not None}
    axes = {axis: parameters.get(axis) for axis in STAGES[name].axes}
    return make_stage(name, parameters["profile"], seed=parameters.get("seed", 0), overrides=overrides, **axes)


# Parameters that a notebook may show by a short name, and the settings they stand for.
SHORTCUTS = {
    "lam": "reward_model.lam",
    "teacher_share": "reward_model.teacher_share",
    "reward_source": "reward_model.source",
    "threshold": "voting.threshold",
    "mismatch": "reward.mismatch",
}
NOTEBOOK_PARAMETERS = {"methods", "question", "stage_name"}


def _is_parameter(name: str, value: Any) -> bool:
    plain = isinstance(value, str | int | float | bool | list | dict | type(None))
    return plain and not name.startswith("_") and name not in {"In", "Out"}


def make_stage(name: str, profile: str, *, seed: int = 0, overrides: dict | None = None, **axes: Any) -> Stage:
    """A stage with its axes and settings checked; UserError for a name that the profile does not know."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise UserError(f"seed is {seed!r}: give a whole number from 0 to {SEEDS - 1}.")
    path = Path(profile)
    relative = path.relative_to(ROOT).as_posix() if path.is_absolute() and path.is_relative_to(ROOT) else str(profile)
    loaded = load_profile(ROOT / relative, overrides)
    choices = {"dataset": loaded.datasets, "teacher": loaded.teachers}
    choices["student"] = loaded.students | loaded.teachers  # a teacher may stand in a student's place (R3)
    choices["method"] = STAGES[name].methods
    for axis, value in axes.items():
        if value is not None and (not isinstance(value, str) or value not in choices[axis]):
            raise UserError(f"{axis} is {value!r}, which is not one of {', '.join(choices[axis])} ({relative}).")
    for axis in STAGES[name].axes:
        if axes.get(axis) is None and not _may_be_left_out(name, axis, axes.get("method")):
            raise UserError(f"{STAGES[name].name} needs a {axis}: give one of {', '.join(choices[axis])}.")
    stage = Stage(name, relative, seed=seed, all_overrides=dict(overrides or {}), root=ROOT, **axes)
    refuse_unread(stage)
    return stage


def _may_be_left_out(name: str, axis: str, method: str | None) -> bool:
    # The notebook of the evaluation opens its stage before it knows the method.
    return name == "07_evaluate" and (method is None or (method, axis) in (("icl", "teacher"), ("teacher", "student")))


def refuse_unread(stage: Stage) -> None:
    """UserError for an override that neither the stage nor anything upstream of it reads."""
    reach = stage.sections() if stage.method or "method" not in stage.spec.axes else set(SECTIONS)
    for key in stage.all_overrides:
        if key.split(".", 1)[0] not in reach:
            raise UserError(
                f"The override {key!r} is not read by {stage.name} or what comes before it; it reads the sections "
                f"{', '.join(sorted(reach))} (datasets, models and the grid are set in the profile)."
            )
