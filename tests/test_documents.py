"""Documents: a person writes the sentences, numbers come from tables, and a number that is not there is an error."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import long_tables
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY

from rdlib.errors import UserError
from rdlib.evidence import documents
from rdlib.profile import load_profile

ROWS = documents.Rows(
    pd.DataFrame(
        {
            "cell": ["gsm/strong/small", "gsm_plus/weak/small", "mmlu/weak/large"],
            "gain": [3.19, -0.04, 12.0],
            "low": [1.25, -0.5, None],
            "high": [4.7, 0.4, None],
            "seeds": [5, 5, 1300],
            "note": ["a | b", None, None],
        }
    ),
    "x.csv",
)
GSM = ROWS.where(cell="gsm/strong/small")


def filled(text: str, **values) -> str:
    return documents.fill(text, "page.md.j2", **({"rows": ROWS, "gsm": GSM} | values))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ gsm.gain | pp }}, {{ gsm.gain | pp(gsm.low, gsm.high) }}", "+3.2 pp, +3.2 pp [+1.2, +4.7]"),
        ("{{ rows.where(cell='gsm_plus/*').gain | pp }}", "+0.0 pp"),  # no minus zero
        ("{{ -0.0032 | pp(-0.016, 0.01, 'AUC') }}", "-0.003 AUC [-0.016, +0.010]"),
        ("{{ 48.949 | pct }}, {{ 48.949 | pct(0) }}, {{ 98.5 | ci(97.66, 99.2) }}", "48.9 %, 49 %, 98.5 [97.7, 99.2]"),
        ("{{ 1300 | short }}, {{ 0.04567 | short }}, {{ 3 | number }}", "1,300, 0.0457, 3.00"),
        (
            "{{ [2.94, 14.1] | span }}, {{ [99, 99] | span }}, {{ [0.457, 0.52] | span(2) }}",
            "2.9 to 14, 99, 0.46 to 0.52",
        ),
        ("{{ 0 | words }}, {{ 1 | words }}, {{ 12 | words }}, {{ 13 | words }}", "no, one, twelve, 13"),
        ("{{ rows.values('note') | last | dash }}, {{ gsm.note | dash }}", "-, a | b"),
        ("{{ 'ours_wo_r' | method }}, {{ 'grpo' | method }}", "Ours w/o R, GRPO on the vote"),
        ("{{ rows.column('gain').mean() | number }}, {{ rows.column('seeds').sum() }}", "5.05, 1310"),
        ("{{ rows.where('low > 0') | length }} of {{ rows | length }}", "1 of 3"),
        (
            "{% for row in rows %}\n| {{ row.cell }} |\n{% endfor %}\nend",
            "".join(f"| {r.cell} |\n" for r in ROWS) + "end",
        ),
        ("{% do expect(gsm.low > 0) %}\n", ""),
    ],
)
def test_numbers_are_filled_in(template, text):
    assert filled(template) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{{ gsm.gian | pp }}", "page.md.j2, line 2: x.csv has no column 'gian'; its columns are cell, gain, low"),
        ("{{ rows.column('gian').mean() }}", "x.csv has no column 'gian'"),
        ("{{ rows.where(gian=1).gain }}", "x.csv has no column 'gian'"),
        ("\n\n{{ rows.gain }}", "line 3: x.csv has 3 such rows where one is asked for its 'gain'"),
        ("{{ rows.where(cell='none').gain }}", "x.csv has 0 such rows"),
        ("{{ gian | pp }}", "line 1: 'gian' is undefined"),
        ("{{ gian }}", "'gian' is undefined"),
        ("{% for row in rows %}{{ row.low | pp }}{% endfor %}", "a number is wanted and nan found"),
        ("{% for row in rows %}{{ row.note }}{% endfor %}", "a value is empty"),
        ("{{ [] | span }}", "there is no value to show"),
        ("{{ gsm.gain | gain }}", "line 1: No filter named 'gain'."),
        ("{{ gsm.gain ", "line 1: "),
        ("one\n{% do expect(gsm.low > 2) %}", "line 2: the results contradict this sentence"),
    ],
)
def test_a_number_that_is_not_there_is_an_error_with_its_line(template, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        filled(template)
    assert str(error.value).startswith("page.md.j2, line ")


# ---- pages


@pytest.fixture
def root(tmp_path) -> Path:
    """A repository with two templates and the tables of two seeds, one measured with questions."""
    for seed, minutes, questions, made in ((0, 32.7, False, {}), (1, 64.7, True, {"processor": "Chip Z"})):
        folder = tmp_path / "figures/results" / f"seed{seed}"
        folder.mkdir(parents=True)
        row = {"jobs": 95, "minutes": minutes, "questions": questions, "peak_memory_gib": 3.0 + seed, "disk_mb": 80}
        (folder / "measured.json").write_text(json.dumps(row))
        long_tables.origin(folder, seed, **{"machine": "Linux"} | made)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/machines.csv").write_text(
        "command,notebooks,minutes,processor,beside\n"
        '"a released seed, the study alone",95,62.9,Chip A,beside other work\nmake test,,12.04,Chip A,\n'
    )
    (tmp_path / "figures/claims.csv").write_text("claim,gain\nC1,3.19\n")
    (tmp_path / "docs/templates").mkdir(parents=True)
    (tmp_path / "docs/templates/README.md.j2").write_text("# One\n{{ table('claims', claim='C1').gain | pp }}\n")
    (tmp_path / "docs/templates/a.md.j2").write_text("# Two\n{{ table('figures/claims.csv').gain }}\n")
    return tmp_path


def test_each_template_is_a_page_that_names_it(root, monkeypatch):
    (root / "docs/templates/card.md.j2").write_text("---\na: 1\n---\n# Three\n")
    (root / "docs/templates/codemeta.json.j2").write_text('a: {{ content("x.toml").a | tojson }}\nb: [1,]\n')
    (root / "x.toml").write_text('a = "é"\n')
    note = "<!-- Written from docs/templates/{}.md.j2 by `make docs`: edit that file. -->\n"
    expected = {
        root / "README.md": note.format("README") + "# One\n+3.2 pp\n",
        root / "docs/a.md": note.format("a") + "# Two\n3.19\n",
        root / "docs/card.md": f"---\na: 1\n---\n{note.format('card')}# Three\n",
        root / "codemeta.json": '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n',
    }
    assert documents.rendered(root) == expected
    monkeypatch.setattr(documents, "ROOT", root)
    with pytest.raises(UserError, match="Not as their templates say: README.md, docs/a.md.*json. Run `make docs`."):
        documents.run(argparse.Namespace(check=True))
    documents.run(argparse.Namespace(check=False))
    documents.run(argparse.Namespace(check=True))
    assert {path: path.read_text() for path in expected} == expected


def test_every_page_with_an_error_is_named_and_nothing_is_written(root, monkeypatch):
    for name in ("README", "a"):
        (root / f"docs/templates/{name}.md.j2").write_text("{{ table('claim').gain }}")
    monkeypatch.setattr(documents, "ROOT", root)
    with pytest.raises(UserError) as error:
        documents.run(argparse.Namespace(check=False))
    sentence = "line 1: there is no claim.csv in figures/: `make figures` draws the released tables."
    assert str(error.value).splitlines() == [f"docs/templates/{name}.md.j2, {sentence}" for name in ("README", "a")]
    assert not (root / "README.md").exists()


def test_no_measured_number_is_typed_into_a_page():
    """Differences with a sign and intervals are always measured, so they come from tables."""
    for template in (REPOSITORY / documents.TEMPLATES).rglob("*.j2"):
        text = re.sub(r"\{[{%].*?[%}]\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r"[+-]\d+(?:\.\d+)? (?:pp|AUC)|\[[+-]?\d[\d.]*, ", text) == [], template


# ---- computed tables


def test_times_are_of_released_seeds_and_of_listed_runs(root):
    table = documents.tables_of(root)
    assert table("runs").values("command") == ["make test", documents.STUDY, documents.WHOLE]
    alone = table("runs", command=documents.STUDY)
    assert alone.values("minutes") == [32.7, 62.9] and alone.values("machine") == ["Linux", "Chip A, beside other work"]
    assert table("measured").column("peak_memory_gib").max() == 4 and table("seeds").values("seed") == [0, 1]


def test_the_setting_that_the_profile_has_is_chosen_among_those_tried(root):
    """Trials with a patience of 160 say nothing about a longer one, which those of another group had."""
    profile = REPOSITORY / "params/micro.yaml"
    rate = load_profile(profile).sft.learning_rate
    arms = {name: {"settings": {"sft.learning_rate": rate * x}} for name, x in (("a", 0.5), ("b", 1))}
    groups = {"rate": {"title": "Which rate?", "arms": arms}, "more": {"title": "More?", "arms": arms}}
    (root / "params").mkdir()
    (root / "params/micro.yaml").write_bytes(profile.read_bytes())
    tried = yaml.safe_dump({"profile": "params/micro.yaml", "experiments": groups}, sort_keys=False)
    (root / documents.TRIALS).write_text(tried)
    for group, longest in (("rate", 160), ("more", 192)):
        names = {"cell": "gsm/t/s", "stage": "03_sft_warmup", "experiment": f"trials:{group}"}
        ends = [names | {"arm": arm, "best": 0.25, "best_step": 32, "steps": 64 + longest} for arm in arms]
        steps = pd.Series(range(0, 64 + longest, 32))
        curve = pd.DataFrame({"step": steps, "agreement": 0.25 * (steps == 32)}).assign(**names, arm="a")
        long_tables.write(root / "figures/results/seed100", 100, trainings=pd.DataFrame(ends), curves=curve)
    table = documents.tables_of(root)
    assert table("trials", question="Which rate?", chosen=True).trial == "b"
    assert table("patience", question="Which rate?").values("patience") == [96, 128, 160]
    assert table("patience", question="More?").values("steps") == [128, 160, 192, 224]
    assert table("patience", question="More?").values("best") == [0.25]
