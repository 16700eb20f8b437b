"""Executed notebooks of one cell, small enough to be kept: `python -m rdlib publish PROFILE FIGURES`.

The cell is the first of the ablations' cells, of the first released seed: every stage once for Ours, then the
ablations, as the run executed them. The notebooks of tables, figures and reviewers' questions are executed here, from
the released results, since they show every cell and seed, what rounding does and the trials, which no run of a seed
has. Each says at its top by which commit and parameters it was made.
What no reader misses is left out: progress bars, widgets, times of execution, the folders of the machine, and the
points of a picture beyond what a screen shows.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from PIL import Image

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import result_tables
from rdlib.evidence.result_tables import open_results
from rdlib.evidence.tables import listed
from rdlib.paths import ROOT
from rdlib.study import execute
from rdlib.study.grid import ablation_cells
from rdlib.study.jobs import ABLATIONS, DRAWING, Job, study_jobs
from rdlib.study.stage import Stage

QUESTIONS = "13_reviewer_questions"
WIDEST = 900  # points; a page of text is narrower
COLORS = 256
KEPT_TYPES = ("image/png", "text/html", "text/markdown", "text/plain")
RECORD = "rdlib"  # the name of what a notebook's metadata say of its origin
_FOLDERS = {"home", "root", "Users", "tmp", "var", "mnt", "opt", "usr", "srv", "data", "scratch"}
_FOLDERS |= {
    path.parts[1] for path in (ROOT, Path(sys.prefix), Path.home(), Path(tempfile.gettempdir())) if path.parts[1:]
}
_PATH = re.compile(rf"(?<![\w.:/<~-])/(?:{'|'.join(sorted(map(re.escape, _FOLDERS)))})(?:/[\w.@+=,-]+)+/?")


def publish(made: dict[str, NotebookNode], out: Path, kept: Iterable[Path] = ()) -> list[Path]:
    """Write notebooks, by name, to `out`, in place of what was there; returns their paths, in order.

    `kept`: what of it stays where no notebook takes its place.
    """
    new = out.with_name(f".{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for path in kept:
        shutil.copy2(path, new)
    for name, content in made.items():
        artifacts.write_bytes(new / f"{name}.ipynb", (nbformat.writes(content).rstrip("\n") + "\n").encode())
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
    return [out / f"{name}.ipynb" for name in made]


def cell_jobs(profile_path: str, seed: int) -> list[Job]:
    """The jobs whose notebooks show the first of the ablations' cells, by number."""
    cell = ablation_cells(profile_path, seed)[0]
    stages = {stage.folder for stage in (cell, *cell.upstream())}

    def shows_cell(job: Job) -> bool:
        """Whether the notebook makes a stage of the cell, or variants of one."""
        of_cell = job.notebook in ABLATIONS and job.stages[0].cell_name == cell.cell_name
        return of_cell or bool(stages & {stage.folder for stage in job.stages})

    jobs = {job.notebook: job for job in study_jobs(profile_path, [seed]) if shows_cell(job)}
    return [jobs[name] for name in sorted(jobs)]


def of_run(jobs: list[Job]) -> dict[str, NotebookNode]:
    """The notebooks of jobs as the run executed them, by name; UserError for one that is missing or failed."""
    return {job.notebook: publishable(_executed(job), record_of(job)) for job in jobs}


def of_results(profile_path: str, figures: Path) -> dict[str, NotebookNode]:
    """The notebooks that draw, by name, executed from the released results; the reviewers' if a seed has answered."""
    folder = figures / "results"
    folder = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    parameters = {"profile": profile_path, "results": str(folder)}
    names = [name for name in DRAWING if name != QUESTIONS or open_results(ROOT / folder).answered]
    made = {}
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            path = Path(place) / f"{name}.ipynb"
            execute.execute(ROOT / "notebooks" / path.name, path, parameters)
            made[name] = publishable(nbformat.read(path, as_version=4), _record_of_results(ROOT / folder, parameters))
    return made


def of_release(folder: Path, profile_path: str, released: list[Path]) -> list[Path]:
    """The published notebooks in a folder that show a released seed: of its commits and its profile."""
    commits = set(_record_of_results(released[0].parent, {})["commits"])
    kept = []
    for path in sorted(folder.glob("*.ipynb")):
        record = nbformat.read(path, as_version=4).metadata.get(RECORD, {})
        if set(record.get("commits", [])) <= commits and record.get("parameters", {}).get("profile") == profile_path:
            kept.append(path)
    return kept


def _executed(job: Job) -> NotebookNode:
    """The executed notebook of a job; UserError where there is none, or one that failed."""
    try:
        content = nbformat.read(job.executed, as_version=4)
    except FileNotFoundError:
        raise UserError(f"{job.executed} is missing: run `{_command(job)}`, which executes it.") from None
    if any(output.output_type == "error" for cell in content.cells for output in cell.get("outputs", [])):
        raise UserError(f"{job.executed} failed where it was executed: run `{_command(job)}` again.")
    return content


def _command(job: Job) -> str:
    known = {"params/micro.yaml": "make study", "params/reference.yaml": "make reference"}
    profile = job.parameters["profile"]
    return known.get(profile, f"make study PROFILE={profile}")


def record_of(job: Job) -> dict[str, Any]:
    """The commits and the parameters behind the executed notebook of a job."""
    made = [_manifest(stage)["environment"] for stage in job.stages]
    return _record(({one["commit"]} for one in made), (one["dirty"] for one in made), job.parameters)


def _record_of_results(folder: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The same of a notebook that draws results: the commits of all seeds."""
    results = open_results(folder)
    names = results.named(result_tables.STUDY, result_tables.ABLATIONS, result_tables.QUESTIONS)
    made = [one for one in (result_tables.origin(seed, names) for seed in results.folders) if one]
    return _record((set(one["commits"]) for one in made), (one["dirty"] for one in made), parameters)


def _record(commits: Iterable[set[str]], dirty: Iterable[bool], parameters: dict[str, Any]) -> dict[str, Any]:
    return {"commits": sorted(set().union(*commits)), "dirty": any(dirty), "parameters": dict(parameters)}


def _manifest(stage: Stage) -> dict[str, Any]:
    """What is recorded of a stage as it lies there, whatever the code has become since."""
    manifest = artifacts.read_manifest(stage.folder)
    if manifest is None:
        raise UserError(f"{stage.label} is missing beside its notebook: run `{stage.command}` again.")
    return manifest


# ---- one notebook


def publishable(notebook: NotebookNode, record: dict[str, Any]) -> NotebookNode:
    """A notebook without what no reader misses, and with its origin below its title and in its metadata."""
    cells = [_clean_cell(cell) for cell in notebook.cells]
    origin = nbformat.v4.new_markdown_cell(_origin(record), id="origin")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, RECORD: record}
    return nbformat.v4.new_notebook(cells=[*cells[:1], origin, *cells[1:]], metadata=metadata)


def _origin(record: dict[str, Any]) -> str:
    """One line on how a notebook was made."""
    commits = " and ".join(f"`{commit[:12]}`" for commit in record["commits"])
    changed = ", with uncommitted changes" if record["dirty"] else ""
    parameters = ", ".join(f"{name} = `{value}`" for name, value in record["parameters"].items())
    return f"*Executed at commit {commits}{changed} with {parameters}.*"


def _clean_cell(cell: NotebookNode) -> NotebookNode:
    tags = cell.metadata.get("tags", [])
    cell.metadata = NotebookNode({"tags": tags} if tags else {})
    if "injected-parameters" in tags:
        cell.id = "injected-parameters"  # papermill draws it at random
    if cell.cell_type == "code":
        cleaned = [_clean_output(output) for output in cell.outputs]
        cell.outputs = [output for output in cleaned if output is not None]
    return cell


def _clean_output(output: NotebookNode) -> NotebookNode | None:
    """An output as a reader sees it; None for progress bars, messages on standard error, and widgets."""
    if output.output_type == "stream":
        output.text = without_folders(_overwritten(output.text))
        return output if output.name == "stdout" and output.text.strip() else None
    if any("widget" in kind for kind in output.data):
        return None
    output.data = NotebookNode({kind: value for kind, value in output.data.items() if kind in KEPT_TYPES})
    picture = output.data.get("image/png")
    width = output.metadata.get("image/png", {}).get("width", WIDEST)
    output.metadata = NotebookNode()
    for kind, value in output.data.items():
        output.data[kind] = screen_picture(value, min(width, WIDEST)) if value is picture else without_folders(value)
    return output if output.data else None


def _overwritten(text: str) -> str:
    """A text after its carriage returns: what a line holds that was written over."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def without_folders(text: str) -> str:
    """A text in which a path in the repository starts there, and any other absolute path is its last part."""
    inside = text.replace(f"{ROOT}/", "")
    return _PATH.sub(lambda match: Path(match.group()).name, inside)


def screen_picture(encoded: str, width: int) -> str:
    """A PNG in base64 at most `width` points wide, in a palette of its own colours; the smaller of the two."""
    content = base64.b64decode(encoded)
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))
    if flat.width > width:
        flat = flat.resize((width, round(flat.height * width / flat.width)), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    flat.quantize(COLORS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(min(written.getvalue(), content, key=len)).decode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib publish`."""
    parser.add_argument("profile", help="the profile of the run, such as params/micro.yaml")
    parser.add_argument(
        "figures", type=Path, help="folder of the released results; the notebooks go to notebooks/ in it"
    )


def run(options: argparse.Namespace) -> None:
    """Keep the notebooks, and print which."""
    warnings.filterwarnings("ignore")  # papermill's and the kernel's, of no use here
    out = options.figures / "notebooks"
    released = result_tables.seed_folders(options.figures / "results")
    if not released:
        raise UserError(f"{options.figures} holds no released results: run `make reference`, which releases them.")
    seed = int(released[0].name.removeprefix("seed"))
    jobs = cell_jobs(options.profile, seed)
    ran = any(job.executed.is_file() for job in jobs)
    made = (of_run(jobs) if ran else {}) | of_results(options.profile, options.figures)
    kept = [] if ran else of_release(out, options.profile, released)
    gone = [] if ran else [path.stem for path in out.glob("*.ipynb") if path not in kept and path.stem not in made]
    paths = publish(made, out, kept)
    if not ran:
        print(f"No stage of seed {seed} was executed here: the notebooks of its stages in {out} are left as they are.")
    if gone:
        print(
            f"Removed from {out}, as of another commit or profile than the released seeds: {listed(sorted(gone))}. "
            f"Call this where seed {seed} was run, to have its own."
        )
    size = sum(path.stat().st_size for path in paths) / 1e6
    print(f"{len(paths)} executed notebooks of seed {seed} written to {out} ({size:.1f} MB).")
