"""SFT with the warm-up's learning rate: a seed of the tiny study."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from conftest import make_root

from rdlib import __main__ as command
from rdlib.errors import UserError
from rdlib.evidence.result_tables import SAME_RATE, SAME_RATE_MADE, Evidence
from rdlib.study import compared, results, trials
from rdlib.study import same_rate as study

# ---- a seed of the tiny study


@pytest.fixture
def root(tmp_path, at_root, monkeypatch):
    """A repository with the tiny profile."""
    monkeypatch.setattr(study, "ROOT", at_root(make_root(tmp_path)))
    return tmp_path


def test_one_rate_leaves_nothing_to_compare(root):
    with pytest.raises(UserError, match="tiny.yaml have one learning rate: there is nothing to compare"):
        study.evaluations("tiny.yaml", 0)


@pytest.mark.slow
def test_a_released_seed_gets_its_file_once_its_inputs_are_as_released(root, capsys):
    content = yaml.safe_load((root / "tiny.yaml").read_text())
    content["sft"]["learning_rate_of_warmup"] = content["sft"]["learning_rate"] / 2
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    folder = root / "figures/results/seed0"
    with pytest.raises(UserError, match="seed0"):
        command.run("same-rate", ["--profile", "tiny.yaml", "--seeds", "0"])
    found = study.evaluations("tiny.yaml", 0)
    assert found and all(one.method == "sft" and "sft.learning_rate" in one.label for one in found)
    trials.run_stages(found, 1)
    stages = trials.behind(found)
    read = [one for one in stages if "@" not in one.label]
    folder.mkdir(parents=True)
    made = results.provenance(read, "tiny.yaml", 0)
    (folder / "provenance.json").write_text(json.dumps(made))
    compared.require_as_released(read, folder)
    command.run("same-rate", ["--profile", "tiny.yaml", "--seeds", "0", "--jobs", "1"])
    assert f"; {len(read)} stages that are read are as released, to the byte." in capsys.readouterr().out
    table = pd.read_parquet(folder / SAME_RATE)
    assert set(table["method"]) == {"sft"} and len(table) == sum(len(one.table("answers")) for one in found)
    assert json.loads((folder / SAME_RATE_MADE).read_text())["command"].endswith(
        "same_rate --profile tiny.yaml --seeds 0"
    )
    assert Evidence((folder,)).has_same_rate and len(Evidence((folder,)).same_rate) == len(table)
    made["contents"] = dict.fromkeys(made["contents"], "0" * 64)
    (folder / "provenance.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"stays as it is: \d+ stages that are read came out other"):
        command.run("same-rate", ["--profile", "tiny.yaml", "--seeds", "0", "--jobs", "1"])
