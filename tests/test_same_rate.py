"""SFT with the warm-up's learning rate: its table and answer by hand, and a seed of the tiny study."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from conftest import make_root

from rdlib import __main__ as command
from rdlib.errors import UserError
from rdlib.evidence import same_rate
from rdlib.evidence.result_tables import SAME_RATE, SAME_RATE_MADE, Evidence
from rdlib.study import compared, results, trials
from rdlib.study import same_rate as study

CELLS = ("gsm", "mmlu")
QUESTIONS = 200


def answered(method: str, right: dict[str, float]) -> pd.DataFrame:
    """Answers of a method in two cells and three seeds, of which a share is right: the first questions."""
    parts = []
    for benchmark in CELLS:
        for seed in (0, 1, 2):
            ids = [f"{benchmark}-{i:03}" for i in range(QUESTIONS)]
            correct = [i < right[benchmark] * QUESTIONS + seed for i in range(QUESTIONS)]
            part = pd.DataFrame({"benchmark": benchmark, "id": ids, "group": "", "correct": correct, "seed": seed})
            parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(teacher="strong", student="small", method=method, variant="")


def comparisons():
    shares = {"sft": (0.2, 0.4), "ours_wo_r": (0.4, 0.5), "ours": (0.5, 0.5)}
    released = [answered(name, dict(zip(CELLS, both, strict=True))) for name, both in shares.items()]
    again = answered("sft", {"gsm": 0.4, "mmlu": 0.6}).drop(columns="variant")
    other = answered("sft", {"gsm": 0.9, "mmlu": 0.9}).assign(variant="reward.source=vote")  # no part of it
    return same_rate.differences(pd.concat([*released, other], ignore_index=True), again)


def test_the_table_and_the_answer_by_hand():
    table = same_rate.rate_table(comparisons()).set_index(["comparison", "cell"])["difference_pp"]
    assert table[same_rate.OWN].tolist() == pytest.approx([30, 10, 20])
    assert table[same_rate.OURS].tolist() == pytest.approx([10, -10, 0])
    assert table[same_rate.WARM_UP].tolist() == pytest.approx([0, -10, -5])
    assert table[same_rate.RATE].tolist() == pytest.approx([20, 20, 20])
    assert table[same_rate.RATE].index.tolist() == ["gsm/strong/small", "mmlu/strong/small", same_rate.MEAN]
    told = same_rate.plain_answer(comparisons())
    assert told.startswith(
        "Answer: on the mean of the cells, SFT with the warm-up's learning rate minus SFT with its own is +20.0 pp ["
    )
    assert "Ours minus that SFT is +0.0 pp [" in told and "(cells told from 0 by their own intervals: 1 above" in told
    assert "1 above and 1 below 0 of 2), where C1 has +20.0 pp [" in told and "(2 above and 0 below 0 of 2)" in told
    assert told.endswith("with SFT's own rate it is supported.")


def test_both_rates_are_drawn():
    figure = same_rate.draw(same_rate.rate_table(comparisons()))
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "gsm/strong/small",
        "mmlu/strong/small",
        same_rate.MEAN,
    ]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [same_rate.OWN, same_rate.OURS, "95 % interval", "a seed"]


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
