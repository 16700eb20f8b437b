"""Executed notebooks as they are released: small, without this machine's folders, and with their origin at the top."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import long_tables
import nbformat
import pytest
from conftest import PARAMS, make_root
from PIL import Image

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.paths import ROOT
from rdlib.study import publish

RECORD = {"commits": ["a" * 40], "dirty": False, "parameters": {"profile": "params/micro.yaml", "seed": 0}}
STAGES = (
    "00_data 01_teacher_responses 02_pseudo_labels 03_sft_warmup 04_student_responses 05_reward_model 06_ppo "
    "07_evaluate 08_ablation_lambda 09_ablation_data_ratio 10_ablation_reward_source 11_ablation_correctness"
).split()
DRAWN = ["12_paper_tables_and_figures", "13_reviewer_questions"]
TEMPORARY, ROOTS, HOMES = (f"/{name}" for name in ("tmp", "root", "home"))
NO_FOLDER = "http://host/home/x, gsm/strong/small, 3 /4 and </table>, 7 / 2 = 3.5"


def png(width: int, height: int) -> str:
    """A picture of noise, which no palette makes small by chance."""
    picture, content = Image.effect_noise((width, height), 80).convert("RGB"), io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def executed(*outputs) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it, with these outputs in its last cell."""
    times = {"papermill": {"duration": 0.1, "start_time": "2026-11-25T07:27:18"}}
    cells = [
        nbformat.v4.new_markdown_cell("# 6. PPO", metadata={"tags": [], **times}),
        nbformat.v4.new_code_cell("# Parameters\nseed = 0", metadata={"tags": ["injected-parameters"], **times}),
        nbformat.v4.new_code_cell("stage.run()", metadata={"tags": [], **times}, outputs=list(outputs)),
    ]
    metadata = {"papermill": {"output_path": f"{ROOT}/x.ipynb"}, "widgets": {"application/x": {}}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", text=text, name=name)


def display(metadata: dict | None = None, **data) -> nbformat.NotebookNode:
    data = {name.replace("_", "/", 1): value for name, value in data.items()}
    return nbformat.v4.new_output("display_data", data, metadata=metadata or {})


def outputs_of(*outputs) -> list[nbformat.NotebookNode]:
    return publish.publishable(executed(*outputs), RECORD).cells[-1].outputs


WIDGET = display(application_vndjupyterwidget="1", text_plain="HBox(...)")
BARS = stream("  3%|3   | 1/30\r100%|####| 30/30\n", "stderr")
BOTH = display(text_html="<b>1</b>", text_plain="1", application_javascript="alert(1)")


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        ([BARS, WIDGET, stream(" 1/2\r 2/2\ndone\n")], [stream(" 2/2\ndone\n")]),
        ([stream("working\r\n")], [stream("working\n")]),
        ([display(application_javascript="alert(1)")], []),
        ([BOTH], [display(text_html="<b>1</b>", text_plain="1")]),
        ([stream(f"{ROOT}/runs/micro/gsm: done")], [stream("runs/micro/gsm: done")]),
        ([stream(f"in {TEMPORARY}/abc/def.txt, line 3")], [stream("in def.txt, line 3")]),
        (
            [display(text_html=f"({ROOTS}/x/y.py) <td>{HOMES}/me/a.csv</td>")],
            [display(text_html="(y.py) <td>a.csv</td>")],
        ),
        ([stream(NO_FOLDER)], [stream(NO_FOLDER)]),
    ],
)
def test_no_progress_bar_widget_script_or_folder_of_a_machine_is_left(outputs, kept):
    assert outputs_of(*outputs) == kept


def test_pictures_are_as_wide_as_a_screen_shows_them():
    large, small = png(1800, 400), png(300, 200)
    shown_smaller = display({"image/png": {"width": 450}}, image_png=large)
    outputs = outputs_of(display(image_png=large), display(image_png=small), shown_smaller)
    kept = [one.data["image/png"] for one in outputs]
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in kept]
    assert sizes == [(publish.WIDEST, 200), (300, 200), (450, 100)] and len(kept[1]) <= len(small)


def test_its_origin_is_below_the_title_and_its_times_are_gone():
    made = publish.publishable(executed(stream("x")), RECORD)
    nbformat.validate(made)
    assert made.cells[1].source == "*Executed at commit `aaaaaaaaaaaa` with profile = `params/micro.yaml`, seed = `0`.*"
    assert made.metadata["rdlib"] == RECORD
    assert [cell.metadata for cell in made.cells] == [{}, {}, {"tags": ["injected-parameters"]}, {}]
    assert [cell.id for cell in made.cells][1:3] == ["origin", "injected-parameters"]  # the same each time
    assert not [word for word in ("2026", "papermill", "widget", str(ROOT)) if word in nbformat.writes(made)]
    assert "uncommitted" in publish.publishable(executed(), RECORD | {"dirty": True}).cells[1].source


# ---- which notebooks, of a study


@pytest.fixture
def root(tmp_path, at_root, monkeypatch) -> Path:
    """A root in which every stage's notebook of the ablations' cell was executed, with two released seeds.

    Notebooks that draw are not drawn: what is executed of them prints its parameters.
    """
    root = at_root(make_root(tmp_path / "root"))
    made = {"environment": {"commit": "b" * 40, "dirty": False}}
    monkeypatch.setattr(artifacts, "read_manifest", lambda folder: made)
    monkeypatch.setattr(publish, "ROOT", root)
    monkeypatch.setattr(publish.execute, "execute", draw)
    for job in publish.cell_jobs(PARAMS, 0):
        job.executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(executed(stream(f"{job.name}\n")), job.executed)
    for seed, letter in ((0, "c"), (2, "d")):
        folder = root / f"figures/results/seed{seed}"
        long_tables.origin(folder, seed, letter * 40)
    return root


def draw(notebook, output, parameters) -> None:
    nbformat.write(executed(stream(f"{notebook.stem} with {json.dumps(parameters)}\n")), output)


def published(root: Path) -> dict[str, nbformat.NotebookNode]:
    """What the command leaves."""
    assert main(["publish", PARAMS, str(root / "figures")]) == 0
    paths = sorted((root / "figures/notebooks").iterdir())
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def test_the_stages_are_those_of_ours_in_one_cell_of_the_first_released_seed(root, capsys):
    (root / "figures/notebooks").mkdir()
    (root / "figures/notebooks/99_gone.ipynb").write_text("{}")
    made = published(root)
    assert list(made) == [*STAGES, DRAWN[0]] and "seed 0" in capsys.readouterr().out
    given = {name: made[name].metadata["rdlib"]["parameters"] for name in STAGES}
    cells = {tuple(one.get(axis) for axis in ("dataset", "teacher", "student")) for one in given.values()}
    assert cells == {("gsm", "strong", "small"), ("gsm", "strong", None), ("gsm", None, None)}
    assert given["03_sft_warmup"]["method"] == "ours_wo_r"  # the warm-up that Ours starts from
    assert {given[name]["method"] for name in STAGES[4:7]} == {"ours"} and given["06_ppo"]["seed"] == 0
    assert made["05_reward_model"].metadata["rdlib"]["commits"] == ["b" * 40]
    again = published(root)
    assert [again[name] for name in STAGES] == [made[name] for name in STAGES]


def test_what_draws_is_executed_from_the_released_results_of_all_seeds(root):
    """A study executes notebook 12 a seed at a time; the reviewers' notebook needs a seed that has answered."""
    folder = root / "figures/results/seed2"
    long_tables.origin(folder, 2, "e" * 40, dirty=True, name="R1")
    made, parameters = published(root), {"profile": PARAMS, "results": "figures/results"}
    for name in DRAWN:
        assert made[name].cells[-1].outputs[0].text == f"{name} with {json.dumps(parameters)}\n"
        commits = [letter * 40 for letter in "cde"]
        assert made[name].metadata["rdlib"] == {"commits": commits, "dirty": True, "parameters": parameters}


def test_a_study_of_fewer_stages_has_fewer_notebooks(root, capsys):
    for job in publish.cell_jobs(PARAMS, 0):
        if job.notebook in STAGES[6:]:
            job.executed.unlink()
    assert list(published(root)) == [*STAGES[:6], DRAWN[0]]
    assert (
        f"Left out, since this study has not run them or ran them at another commit: {STAGES[6]}, "
        in capsys.readouterr().out
    )


def problem(root: Path, capsys) -> str:
    """What the command says where it cannot do it."""
    assert main(["publish", PARAMS, str(root / "figures")]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_published_is_one_sentence(root, monkeypatch, capsys):
    assert "make release" in problem(root / "nowhere", capsys)
    monkeypatch.setattr(artifacts, "read_manifest", lambda folder: None)
    assert "missing beside its notebook" in problem(root, capsys)
    job = next(job for job in publish.cell_jobs(PARAMS, 0) if job.notebook == "00_data")
    nbformat.write(executed(nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])), job.executed)
    assert re.search(r"00_data.ipynb failed when it was executed.*\n$", problem(root, capsys))
    assert not (root / "figures/notebooks").exists()


def test_without_the_runs_the_notebooks_of_the_released_commits_stay(root, capsys):
    of_seed = {"commits": ["c" * 40], "dirty": False, "parameters": {"profile": PARAMS, "seed": 0}}
    records = {
        "00_data": of_seed,
        "03_sft_warmup": of_seed | {"commits": ["f" * 40]},
        "05_reward_model": of_seed | {"parameters": {"profile": "params/other.yaml"}},
    }
    for name, record in records.items():
        content = publish.publishable(executed(stream("kept\n")), record)
        path = root / f"figures/notebooks/{name}.ipynb"
        artifacts.write_bytes(path, (nbformat.writes(content) + "\n").encode())
    before = (root / "figures/notebooks/00_data.ipynb").read_bytes()
    for job in publish.cell_jobs(PARAMS, 0):
        job.executed.unlink()
    assert list(published(root)) == ["00_data", DRAWN[0]]
    assert (root / "figures/notebooks/00_data.ipynb").read_bytes() == before
    assert "commit: 03_sft_warmup and 05_reward_model." in capsys.readouterr().out
