"""Executed notebooks as they are kept: small, without this machine's folders, and with their origin at the top."""

from __future__ import annotations

import base64
import io
import json

import nbformat
import pytest
from conftest import PARAMS, make_root
from PIL import Image

from rdlib import artifacts
from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.study import published

RECORD = {"commits": ["a" * 40], "dirty": False, "parameters": {"profile": "params/micro.yaml", "seed": 0}}
STAGES = ["00_data", "01_teacher_responses", "02_pseudo_labels", "03_sft_warmup", "04_student_responses"]
STAGES += ["05_reward_model", "06_ppo", "07_evaluate", "08_ablation_lambda", "09_ablation_data_ratio"]
STAGES += ["10_ablation_reward_source", "11_ablation_correctness"]
DRAWN = ["12_paper_tables_and_figures", "13_reviewer_questions"]


def png(width: int, height: int) -> str:
    """A picture of noise, which no palette makes small by chance."""
    picture, content = Image.effect_noise((width, height), 80).convert("RGB"), io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def size(encoded: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).size


def executed(*outputs) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it, with these outputs in its last cell."""
    times = {"papermill": {"duration": 0.1, "start_time": "2026-11-25T07:27:18"}, "execution": {"iopub": "2026"}}
    cells = [
        nbformat.v4.new_markdown_cell("# 6. PPO", metadata={"tags": [], **times}),
        nbformat.v4.new_code_cell("# Parameters\nseed = 0", metadata={"tags": ["injected-parameters"], **times}),
        nbformat.v4.new_code_cell("stage.run()", metadata={"tags": [], **times}, outputs=list(outputs)),
    ]
    widgets = {"application/vnd.jupyter.widget-state": {}}
    metadata = {"papermill": {"output_path": f"{ROOT}/x.ipynb"}, "widgets": widgets}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", text=text, name=name)


def shown(**data) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {name.replace("_", "/"): value for name, value in data.items()})


def outputs_of(*outputs) -> list[nbformat.NotebookNode]:
    return published.publishable(executed(*outputs), RECORD).cells[-1].outputs


def test_progress_bars_and_widgets_are_left_out():
    widget = nbformat.v4.new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "HBox(...)"}
    )
    kept = outputs_of(stream("  3%|3   | 1/30\r100%|####| 30/30\n", "stderr"), widget, stream(" 1/2\r 2/2\ndone\n"))
    assert [output.text for output in kept] == [" 2/2\ndone\n"]
    assert outputs_of(stream("working\r\n")) == [stream("working\n")]


def test_only_what_a_page_can_show_is_kept():
    both = shown(text_html="<b>1</b>", text_plain="1", application_javascript="alert(1)", image_svg="<svg/>")
    assert set(outputs_of(both)[0].data) == {"text/html", "text/plain"}
    assert outputs_of(shown(application_javascript="alert(1)")) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{ROOT}/runs/micro/gsm: done", "runs/micro/gsm: done"),
        ("in /tmp/abc/def.txt, line 3", "in def.txt, line 3"),
        ("(/root/x/y.py)", "(y.py)"),
        ("<td>/home/me/a.csv</td>", "<td>a.csv</td>"),
        ("http://host/home/x, gsm/strong/small, 3 /4 and </table>", None),
        ("7 / 2 = 3.5", None),
    ],
)
def test_no_folder_of_a_machine_is_left(text, kept):
    assert published.without_folders(text) == (text if kept is None else kept)
    assert outputs_of(stream(text)) == [stream(text if kept is None else kept)]


def test_pictures_are_as_wide_as_a_screen_shows_them():
    large, small = png(1800, 400), png(300, 200)
    kept = outputs_of(shown(image_png=large), shown(image_png=small))
    assert size(kept[0].data["image/png"]) == (published.WIDEST, 200)
    assert size(kept[1].data["image/png"]) == (300, 200) and len(kept[1].data["image/png"]) <= len(small)
    told = nbformat.v4.new_output("display_data", {"image/png": large}, metadata={"image/png": {"width": 450}})
    assert size(outputs_of(told)[0].data["image/png"]) == (450, 100)


def test_nothing_changes_with_the_time_of_execution():
    first, second = (nbformat.writes(published.publishable(executed(stream("x")), RECORD)) for _ in range(2))
    cleaned = json.loads(first)
    assert "2026" not in first and "papermill" not in first and "widget" not in first and "/work" not in first
    assert [cell["metadata"] for cell in cleaned["cells"]] == [{}, {}, {"tags": ["injected-parameters"]}, {}]
    ids = [cell["id"] for cell in json.loads(second)["cells"]]
    assert ids[1] == "origin" and ids[2] == "injected-parameters"


def test_its_origin_is_below_the_title_and_in_the_metadata():
    made = published.publishable(executed(), RECORD)
    assert made.cells[1].cell_type == "markdown"
    assert "`aaaaaaaaaaaa`" in made.cells[1].source and "seed = `0`" in made.cells[1].source
    assert made.metadata["rdlib"] == RECORD
    changed = published.publishable(executed(), RECORD | {"dirty": True})
    assert "uncommitted" in changed.cells[1].source
    nbformat.validate(made)


# ---- which notebooks, of a run


@pytest.fixture
def run(tmp_path, at_root, monkeypatch):
    """A root in which every stage's notebook of the ablations' cell was executed, with two released seeds.

    Notebooks that draw are not drawn: what is executed of them says with what parameters.
    """
    root = at_root(make_root(tmp_path / "root"))
    monkeypatch.setattr(published, "_manifest", lambda stage: {"environment": {"commit": "b" * 40, "dirty": False}})
    monkeypatch.setattr(published, "ROOT", root)
    monkeypatch.setattr(published.execute, "execute", draw)
    for job in published.cell_jobs(PARAMS, 0):
        job.executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(executed(stream(f"{job.name}\n")), job.executed)
    for seed, letter in ((0, "c"), (2, "d")):
        folder = root / f"figures/results/seed{seed}"
        artifacts.write_json(folder / "provenance.json", {"commits": [letter * 40], "dirty": False})
        artifacts.write_json(folder / "settings.json", {"name": "tiny"})
    return root


def draw(notebook, output, parameters) -> None:
    nbformat.write(executed(stream(f"{notebook.stem} with {json.dumps(parameters)}\n")), output)


def test_the_cells_notebooks_are_those_of_ours(run):
    jobs = {job.notebook: job for job in published.cell_jobs(PARAMS, 0)}
    assert list(jobs) == STAGES
    assert {
        name: job.parameters.get("method") for name, job in jobs.items() if name[:2] in ("03", "04", "05", "06")
    } == {
        "03_sft_warmup": "ours_wo_r",  # the warm-up that Ours starts from
        "04_student_responses": "ours",
        "05_reward_model": "ours",
        "06_ppo": "ours",
    }
    assert "ours" in jobs["07_evaluate"].parameters["methods"]
    cells = {tuple(job.parameters.get(a) for a in ("dataset", "teacher", "student")) for job in jobs.values()}
    assert cells == {("gsm", "strong", "small"), ("gsm", "strong", None), ("gsm", None, None)}


def test_the_command_keeps_those_of_the_first_released_seed(run, capsys):
    assert main(["publish", PARAMS, str(run / "figures")]) == 0
    out = run / "figures/notebooks"
    assert sorted(path.stem for path in out.iterdir()) == [*STAGES, DRAWN[0]] and "seed 0" in capsys.readouterr().out
    first = nbformat.read(out / "05_reward_model.ipynb", as_version=4)
    assert first.metadata["rdlib"]["commits"] == ["b" * 40] and first.metadata["rdlib"]["parameters"]["seed"] == 0
    (out / "99_gone.ipynb").touch()
    before = {path.name: path.read_bytes() for path in out.glob("0*.ipynb")}
    assert main(["publish", PARAMS, str(run / "figures")]) == 0
    assert {path.name: path.read_bytes() for path in out.glob("0*.ipynb")} == before
    assert not (out / "99_gone.ipynb").exists()


def test_what_draws_is_executed_from_the_released_results_of_all_seeds(run):
    """A run executes notebook 12 a seed at a time, and has no trials; the reviewers' needs a seed that has answered."""
    artifacts.write_json(run / "figures/results/seed2/question_provenance.json", {"commits": ["e" * 40], "dirty": True})
    assert main(["publish", PARAMS, str(run / "figures")]) == 0
    parameters = {"profile": PARAMS, "results": "figures/results"}
    for name in DRAWN:
        content = nbformat.read(run / f"figures/notebooks/{name}.ipynb", as_version=4)
        assert content.cells[-1].outputs[0].text == f"{name} with {json.dumps(parameters)}\n"
        commits = [letter * 40 for letter in "cde"]
        assert content.metadata["rdlib"] == {"commits": commits, "dirty": True, "parameters": parameters}


def test_a_missing_or_failed_notebook_is_one_sentence(run, capsys):
    jobs = {job.notebook: job for job in published.cell_jobs(PARAMS, 0)}
    failed = executed(nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[]))
    nbformat.write(failed, jobs["06_ppo"].executed)
    with pytest.raises(UserError, match="06_ppo.* failed .*make study"):
        published.of_run(list(jobs.values()))
    jobs["06_ppo"].executed.unlink()
    assert main(["publish", PARAMS, str(run / "figures")]) == 2
    problem = capsys.readouterr().err
    assert "06_ppo" in problem and "is missing" in problem and problem.count("\n") == 1
    assert not (run / "figures/notebooks").exists()


def test_without_the_run_its_notebooks_stay_and_what_draws_is_executed(run, capsys):
    of_seed = {"commits": ["c" * 40], "dirty": False, "parameters": {"profile": PARAMS, "seed": 0}}
    records = {
        "00_data": of_seed,
        "03_sft_warmup": of_seed | {"commits": ["f" * 40]},
        "05_reward_model": of_seed | {"parameters": {"profile": "params/other.yaml"}},
    }
    out = run / "figures/notebooks"
    for name, record in records.items():
        content = published.publishable(executed(stream("kept\n")), record)
        artifacts.write_bytes(out / f"{name}.ipynb", nbformat.writes(content).encode())
    before = (out / "00_data.ipynb").read_bytes()
    for job in published.cell_jobs(PARAMS, 0):
        job.executed.unlink()
    assert main(["publish", PARAMS, str(run / "figures")]) == 0
    said = capsys.readouterr().out
    assert "left as they are" in said and "than the released seeds: 03_sft_warmup and 05_reward_model." in said
    assert sorted(path.stem for path in out.iterdir()) == ["00_data", DRAWN[0]]
    assert (out / "00_data.ipynb").read_bytes() == before
    assert main(["publish", PARAMS, str(run / "nowhere")]) == 2
    assert "make study EXPERIMENT=reference" in capsys.readouterr().err
