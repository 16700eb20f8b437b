"""The released tables and figures are what the released results give, and README and docs show them."""

import re
import subprocess

import pandas as pd
import pytest

from rdlib.__main__ import main
from rdlib.evidence import documents, result_tables
from rdlib.paths import ROOT

FIGURES = ROOT / "figures"
released = pytest.mark.skipif(
    not (FIGURES / "results").is_dir(),
    reason="no reference run has been released yet (make study PROFILE=params/reference.yaml)",
)


@released
def test_redrawing_gives_the_committed_files(tmp_path):
    assert main(["figures", str(FIGURES / "results"), str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in FIGURES.iterdir() if p.is_file()}
    for path in sorted(tmp_path.iterdir()):
        assert path.read_bytes() == (FIGURES / path.name).read_bytes(), path.name


def test_the_documents_show_the_released_tables():
    for path, text in documents.rendered(ROOT).items():
        assert path.read_text() == text, f"{path.name}: run `make docs`"


def test_the_whole_release_is_at_most_30_mb():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the release is not known")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert 0 < sum(path.stat().st_size for path in files if path.is_file()) <= 30e6


@released
def test_released_results_name_command_seed_and_commit_of_every_experiment():
    for folder in result_tables.seed_folders(FIGURES / "results"):
        record = result_tables.read_record(folder)
        assert {"main", "judgement", "lambda", "R1", "R5", "RM", "same_rate", "rounding"} <= set(record["experiments"])
        for name, one in record["experiments"].items():
            made = result_tables.origin(folder, name)
            assert f"--seeds {record['seed']}" in one["command"] and not one["missing"] and not made["dirty"]
            assert made["commits"] and all(len(commit) == 40 for commit in made["commits"])
        assert folder.name == f"seed{record['seed']}" and record["profile"] == "params/reference.yaml"


@released
def test_main_table_follows_from_the_raw_answers():
    answers = result_tables.open_results(FIGURES / "results").correctness
    assert (answers.groupby("benchmark")["id"].nunique() >= 1000).all()
    table = pd.read_csv(FIGURES / "table_2_main.csv", keep_default_na=False)
    means = answers[answers["variant"] == ""].groupby(["benchmark", "method", "teacher", "student"])["correct"].mean()
    for row in table.itertuples():
        for benchmark in ("gsm", "gsm_plus", "mmlu"):
            mean = means[benchmark, row.method, "" if row.method == "icl" else row.teacher, row.student]
            assert getattr(row, f"{benchmark}_study_pct") == pytest.approx(100 * mean, abs=0.006)
    assert 3 * len(table) >= 60


@released
def test_differences_of_single_seeds_average_to_those_behind_the_claims():
    cells = pd.read_csv(FIGURES / "claims_cells.csv", keep_default_na=False)
    several = cells[cells["study_seeds"] != ""]
    for row in several[several["claim"] != "C8"].itertuples():  # a spread of means is no mean of spreads
        values = [float(value) for value in row.study_seeds.split()]
        tolerance = 0.5 if row.claim == "C5" else 0.006  # C5 pools counts: seeds label other numbers of questions
        assert sum(values) / len(values) == pytest.approx(row.study_difference, abs=tolerance), (row.claim, row.cell)


@released
def test_the_page_of_released_files_names_every_file_and_column():
    """docs/released_files.md, compared with each seed's folder: no file or column missing, none that is not there."""
    page = (ROOT / "docs/released_files.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    groups = {"run, ": result_tables.RUN.split(), "stage, ": result_tables.STAGE.split()}
    said = {}
    for row in rows:
        known = [name for text, names in groups.items() if text in row[2] for name in names]
        said[row[0].strip("| `")] = {*known, *re.findall(r"`(\w+)`", row[2])}
    for folder in result_tables.every_seed(FIGURES / "results"):
        for path in folder.iterdir():
            assert f"`{path.name}`" in page, path
            if path.suffix != ".json":
                table = pd.read_csv(path, nrows=1) if path.suffix == ".csv" else pd.read_parquet(path)
                assert {name for name in table if "." not in name} == said[path.name], path
