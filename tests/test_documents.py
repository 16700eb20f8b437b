"""The tool that fills README and docs: each block is replaced by what the result files say, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from rdlib.errors import UserError
from rdlib.evidence import documents, released_rows, run_rows, tables
from rdlib.evidence.open_exhibits import OPEN_ENDS
from rdlib.paths import ROOT
from rdlib.profile import load_profile

PAGE = "Before\n\n<!-- a -->\nold\nlines\n<!-- /a -->\nbetween <!-- a --> in a line\n<!-- b -->\n<!-- /b -->\nafter\n"


def test_blocks_are_replaced_and_nothing_else():
    filled = documents.render(PAGE, {"a": r"| \1 | \g<0> |", "b": "two\nlines"})
    assert filled == PAGE.replace("old\nlines", r"| \1 | \g<0> |").replace("-->\n<!-- /b", "-->\ntwo\nlines\n<!-- /b")
    assert documents.render(filled, {"a": r"| \1 | \g<0> |", "b": "two\nlines"}) == filled


def test_a_block_that_there_is_not_is_named():
    with pytest.raises(UserError, match="docs/x.md has a block <!-- b -->, which is none of a, c"):
        documents.render(PAGE, {"a": "", "c": ""}, "docs/x.md")


def test_a_block_without_an_end_is_named():
    with pytest.raises(UserError, match="<!-- a --> has no end"):
        documents.render(PAGE.replace("<!-- /a -->", "<!-- /b -->"), {"a": "", "b": ""})


@pytest.fixture
def measured(tmp_path) -> Path:
    """Results of two seeds, one with questions; the other's manifest knows the processor."""
    for seed, minutes, questions, machine in ((0, 32.7, False, {}), (1, 64.7, True, {"processor": "Chip Z"})):
        folder = tmp_path / "results" / f"seed{seed}"
        folder.mkdir(parents=True)
        row = {"jobs": 95, "minutes": minutes, "questions": questions, "peak_memory_gib": 3.0 + seed, "disk_mb": 80}
        (folder / "measured.json").write_text(json.dumps(row))
        (folder / "provenance.json").write_text(json.dumps({"environment": {"machine": "Linux"} | machine}))
    (tmp_path / "machines.csv").write_text(
        "command,notebooks,minutes,processor,beside,commit,source\n"
        '"a released seed, the study alone",95,62.9,Chip A,beside other work,,a reviewer\n'
        "make test,,12.04,Chip A,,,\n"
        "make study,94,41,Chip B,,,\n"
        "make study,94,117.3,Chip B,,,\n"
    )
    return tmp_path


def test_times_are_ranges_over_the_machines_they_were_seen_on(measured):
    runs = run_rows.runs_seen(measured / "results", measured / "machines.csv")
    assert run_rows.measured_rows(runs).splitlines()[2:] == [
        "| `make test` | - | 12 | Chip A |",
        "| a released seed, the study alone | 95 | 33 to 63 | Linux; Chip A, beside other work |",
        "| `make study` | 94 | 41 to 117 | Chip B |",
        "| a released seed, study and reviewers' questions | 95 | 65 | Chip Z |",
    ]
    assert "up to 4.0 GiB of memory and 80 MB" in run_rows.room_text(measured / "results")


def test_trainings_that_might_have_gone_on_are_counted(tmp_path):
    path = tmp_path / "convergence.csv"
    path.write_text("training,runs,ended_by_patience\nSFT,60,60\nPPO of Ours,1040,1040\n")
    assert released_rows.endings_text(path) == "All 1,100 trainings went on until their patience was used up."
    path.write_text("training,runs,ended_by_patience\nSFT,60,58\nDPO,10,10\nPPO of Ours,40,39\n")
    assert released_rows.endings_text(path) == (
        "Of 110 trainings 107 went on until their patience was used up. The others took the most steps that they may, "
        "so they might have gone on: SFT (2 of 60) and PPO of Ours (1 of 40)."
    )


def test_what_power_needs_is_told_in_plain_numbers(tmp_path):
    row = {"claim": "C1", "cell": "gsm/strong/small", "se_seeds_pp": 0.5, "se_questions_pp": 0.25, "se_rest_pp": 0}
    row |= {"half_width_pp": 2.0, "needed_half_width_pp": 1.05, "power_pct": 20, "told_pp": 3.0}
    row |= {"seeds_needed": 307, "seeds_needed_cautious": 1304, "questions_needed_times": 8.0912}
    pd.DataFrame([row, row | {"seeds_needed_cautious": None}]).to_csv(tmp_path / "power.csv", index=False)
    assert [
        line[line.index("| 3.00") :]
        for line in released_rows.power_rows(tmp_path / "power.csv", False).splitlines()[2:]
    ] == [
        "| 3.00 | 307 (1,304) | x 8.09 |",
        "| 3.00 | 307 (none) | x 8.09 |",
    ]


def test_open_ends_are_told_by_their_answers_alone(tmp_path):
    asked = [exhibit for exhibit in OPEN_ENDS if exhibit.answer]
    first = asked[0]
    assert asked and all("md" in one.endings for one in asked)
    note = f"Answer: with the vote it rises. {first.caption}"
    tables.write_markdown(pd.DataFrame({"a": [1]}), tmp_path / f"{first.name}.md", first.title, note)
    pd.DataFrame({"seeds": [2, 2]}).to_csv(tmp_path / f"{first.name}.csv")
    lines = released_rows.open_ends_text(tmp_path).splitlines()
    assert lines == [
        f"- **{first.title} (two seeds).** With the vote it rises. ([table](../figures/{first.name}.md))",
        *(f"- **{one.title}.** Not run yet." for one in asked[1:]),
    ]


def test_trainings_are_told_with_their_quartiles_and_what_ended_them(tmp_path):
    row = {"training": "SFT", "runs": 3, "best_step_median": 64, "best_step_lower_quartile": 32, "steps_median": 256}
    row |= {"best_step_upper_quartile": 96, "ended_by_patience": 2, "at_the_most": "gsm/strong/small seed 1"}
    flat = row | {"training": "DPO", "ended_by_patience": 3, "at_the_most": None}
    pd.DataFrame([row, flat]).to_csv(tmp_path / "convergence.csv", index=False)
    assert released_rows.convergence_rows(tmp_path / "convergence.csv").splitlines()[2:] == [
        "| SFT | 3 | 64 (32, 96) | 256 | 2 | gsm/strong/small seed 1 |",
        "| DPO | 3 | 64 (32, 96) | 256 | 3 | - |",
    ]


def test_verdicts_are_counted(tmp_path):
    verdicts = ["inconclusive", "supported", "not supported", "inconclusive", "under-powered"]
    rows = "\n".join(f"C{i},{verdict}" for i, verdict in enumerate(verdicts))
    (tmp_path / "claims.csv").write_text(f"claim,verdict\n{rows}\n")
    for seed in (0, 3):
        (tmp_path / f"results/seed{seed}").mkdir(parents=True)
    assert released_rows.verdict_text(tmp_path) == (
        "Of the paper's 5 claims, with 2 seeds: **1 supported, 1 not supported, 2 inconclusive, 1 under-powered**."
    )


def test_without_released_results_the_blocks_say_so(tmp_path):
    found = documents.blocks(tmp_path)
    assert found["claims"] == found["first_screen"] == found["table_2_main"] == released_rows.NOT_RELEASED
    assert "| lambda in Eq. 6 | 0.5 | stated |" in found["provenance"]


def test_the_setting_that_a_profile_has_is_bold_among_those_tried(tmp_path):
    (tmp_path / "a.yaml").write_text(
        'profile: params/micro.yaml\ngroups:\n  rate: {question: "Which rate?"}\n  later: {question: "And which?"}\n'
    )
    rate = load_profile(ROOT / "params/micro.yaml").sft.learning_rate
    rows = [
        {"trial": "low", "settings": json.dumps({"sft.learning_rate": rate / 2}), "stopped_early": False},
        {"trial": "right", "settings": json.dumps({"sft.learning_rate": rate}), "stopped_early": True},
    ]
    shared = {"cell": "gsm/strong/small", "seed": 100, "best": 0.5, "best_step": 64, "steps": 128}
    assert "Nothing has been tried" in run_rows.trial_rows(tmp_path, tmp_path / "a.yaml")
    pd.DataFrame([row | shared for row in rows]).to_csv(tmp_path / "rate.csv", index=False)
    assert run_rows.trial_rows(tmp_path, tmp_path / "a.yaml").splitlines()[2:] == [
        "| Which rate? | low | gsm/strong/small | 100 | 0.500 | 64 | 128 | the most |",
        "| Which rate? | **right** | gsm/strong/small | 100 | 0.500 | 64 | 128 | patience |",
    ]


def test_less_patience_is_told_from_the_curves_of_trials(tmp_path):
    """Trainings that had a patience of 160 tell nothing of more, which those of another group had."""
    trials = {
        "profile": "params/reference.yaml",
        "groups": {"rate": {"question": "Which rate?"}, "more": {"question": "More?"}},
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(trials, sort_keys=False))
    assert "Nothing has been tried" in run_rows.patience_rows(tmp_path, tmp_path / "a.yaml")
    for group, patience in (("rate", 160), ("more", 192)):
        steps = range(0, 32 + patience + 32, 32)
        rows = [{"cell": "c", "seed": 0, "trial": "0.1", "step": s, "value": 0.25 * (s == 32)} for s in steps]
        pd.DataFrame(rows).to_csv(tmp_path / f"{group}_curves.csv", index=False)
    table = run_rows.patience_rows(tmp_path, tmp_path / "a.yaml").splitlines()
    assert table[0] == "| trials | 96 steps | 128 steps | 160 steps | 192 steps |"
    assert table[2:] == [
        "| Which rate? | 0.250 (128) | 0.250 (160) | 0.250 (192) | - |",
        "| More? | 0.250 (128) | 0.250 (160) | 0.250 (192) | 0.250 (224) |",
    ]
