"""What a redesign must leave as it was: figures to the byte, the stages of every experiment, and their recipes.

tests/golden/guards.json was written by commit 4caf73a: a hash of every file of figures/, the labels of the stages of
seed 0, and the start of each stage's recipe, which decides its key together with its inputs. Recipes
were written again where code or settings grew while bytes stayed (tests/golden/portable.json): controls of the reward
(05, 06, 13_baseline), perturbed validation questions (00, 07), ids of recordings (01, 04), the words of error messages
(all), checkpoints that lack weights, mixtures of experts, and first tokens of more tokenizers (all with a model).
"""

import hashlib
import json

import pytest

from rdlib.paths import ROOT
from rdlib.study import experiments

GUARDS = json.loads((ROOT / "tests/golden/guards.json").read_text())
REFERENCE = "params/reference.yaml"


def stages_of(*names: str):
    found = [run for one in experiments.named(names) for run in experiments.runs(one, REFERENCE, [0])]
    return experiments.with_upstream(run.stage for run in found)


@pytest.mark.parametrize("names", [name for name in GUARDS["stages"] if name != "study"])
def test_an_experiment_has_the_stages_that_it_had(names):
    assert sorted(stage.label for stage in stages_of(names)) == _whole(names)


def _whole(name: str) -> list[str]:
    """The recorded labels; of trials only the last stages were recorded, so what they read is added."""
    recorded = GUARDS["stages"][name]
    if ".yaml" not in name:
        return recorded
    every = {stage.label: stage for stage in stages_of(name)}
    return sorted({one.label for label in recorded for one in experiments.with_upstream([every[label]])})


def test_study_and_questions_have_the_stages_that_they_had():
    found = stages_of("study", "ablations", "questions")
    assert sorted(stage.label for stage in found) == GUARDS["stages"]["study"]
    assert len(found) == 220


def test_no_recipe_of_a_released_stage_has_changed():
    stages = {stage.label: stage for stage in stages_of("study", "ablations", "questions", "same_rate")}
    assert {label: stages[label].recipe[:16] for label in GUARDS["recipes"]} == GUARDS["recipes"]


def test_tables_and_figures_are_the_released_ones_to_the_byte():
    hashes = {name: hashlib.sha256((ROOT / "figures" / name).read_bytes()).hexdigest() for name in GUARDS["figures"]}
    assert hashes == GUARDS["figures"]
