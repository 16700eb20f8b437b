"""Executed notebooks of one cell, small enough to be released: `python -m rdlib publish PROFILE FIGURES`.

The cell is the first of the ablations' cells, of the first released seed. It has every stage once for Ours, then the
ablations that were run. The notebooks that draw tables and figures are executed here, from the released results, since
those are of all cells and seeds. A line below each title gives commit and parameters.

Left out are progress bars, widgets, times of execution, folders of the machine, and a resolution of pictures that no
screen shows.
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
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from PIL import Image

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import result_tables
from rdlib.evidence.tables import listed
from rdlib.paths import ROOT
from rdlib.study import execute
from rdlib.study.experiments import ablation_cells, load
from rdlib.study.jobs import FIGURES, QUESTIONS, Job, study_jobs
from rdlib.study.stage import Stage, in_repository

WIDEST = 900  # pixels; a page of text is narrower
COLORS = 256
KEPT_TYPES = ("image/png", "text/html", "text/markdown", "text/plain")
RECORD = "rdlib"  # the key of a notebook's metadata that holds its commits and parameters
_FOLDERS = {"home", "root", "Users", "tmp", "var", "mnt", "opt", "usr", "srv", "data", "scratch"}
_OWN = map(Path, (ROOT, sys.prefix, Path.home(), tempfile.gettempdir()))
_FOLDERS |= {part for place in _OWN for part in place.parts[1:2]}
_PATH = re.compile(rf"(?<![\w.:/<~-])/(?:{'|'.join(sorted(map(re.escape, _FOLDERS)))})(?:/[\w.@+=,-]+)+/?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PROFILE and FIGURES."""
    parser.add_argument("profile", help="the profile of the study, such as params/micro.yaml")
    parser.add_argument("figures", type=Path, help="folder of the released results; notebooks/ in it is written")


def run(options: argparse.Namespace) -> None:
    """Publish the notebooks, and print which were not; UserError where nothing is released."""
    warnings.filterwarnings("ignore")  # papermill's and the kernel's, of no use here
    released = result_tables.seed_folders(options.figures / "results")
    if not released:
        raise UserError(f"{options.figures} holds no released results: `make release` releases a finished study's.")
    seed, out = result_tables.seed_of(released[0]), options.figures / "notebooks"
    jobs = cell_jobs(options.profile, seed)
    executed, before = of_run(jobs), {path.stem for path in out.glob("*.ipynb")}
    stages = executed or of_release(out, options.profile, released)
    made = stages | of_results(options.profile, released)
    write(made, out)
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    print(f"{out} has {len(made)} executed notebooks of seed {seed} ({size:.1f} MB).")
    wanted = before | {job.notebook for job in jobs if executed}
    if left_out := sorted(wanted - made.keys()):
        print(f"Left out, since this study has not run them or ran them at another commit: {listed(left_out)}.")


def write(made: dict[str, NotebookNode], out: Path) -> None:
    """Write notebooks, by name, to `out`, in place of what was there."""
    new = out.with_name(f".{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for name, content in made.items():
        artifacts.write_bytes(new / f"{name}.ipynb", (nbformat.writes(content).rstrip("\n") + "\n").encode())
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)


# ---- which notebooks


def cell_jobs(profile_path: str, seed: int) -> list[Job]:
    """The jobs whose notebooks show the first of the ablations' cells, by number."""
    cell = ablation_cells(profile_path, seed)[0]
    stages = {stage.folder for stage in (cell, *cell.upstream())}
    ablations = {one.notebook for one in load().values()}

    def shows_cell(job: Job) -> bool:
        """Whether the notebook makes a stage of the cell, or variants of one."""
        of_cell = job.notebook in ablations and job.stages[0].cell_name == cell.cell_name
        return of_cell or bool(stages & {stage.folder for stage in job.stages})

    jobs = {job.notebook: job for job in study_jobs(profile_path, [seed]) if shows_cell(job)}
    return [jobs[name] for name in sorted(jobs)]


def of_run(jobs: list[Job]) -> dict[str, NotebookNode]:
    """The notebooks of jobs that the study has executed, by name; UserError for one that failed or lost its stage."""
    found = {}
    for job in (job for job in jobs if job.executed.is_file()):
        content = nbformat.read(job.executed, as_version=4)
        if any(output.output_type == "error" for cell in content.cells for output in cell.get("outputs", [])):
            raise UserError(f"{job.executed} failed when it was executed: run the study again.")
        found[job.notebook] = publishable(content, _record([_made(stage) for stage in job.stages], job.parameters))
    return found


def of_release(folder: Path, profile_path: str, released: list[Path]) -> dict[str, NotebookNode]:
    """The notebooks in a folder that show a released seed: of its commits and its profile."""
    commits, found = set(_record_of(released, {})["commits"]), {}
    for path in sorted(folder.glob("*.ipynb")):
        content = nbformat.read(path, as_version=4)
        record = content.metadata.get(RECORD, {"commits": [], "parameters": {}})
        if set(record["commits"]) <= commits and record["parameters"].get("profile") == profile_path:
            found[path.stem] = content
    return found


def of_results(profile_path: str, released: list[Path]) -> dict[str, NotebookNode]:
    """The notebooks that draw, executed from the released results; the reviewers' where a seed has answered."""
    parameters = {"profile": profile_path, "results": in_repository(released[0].parent.resolve())}
    answered = any(result_tables.origin(seed, result_tables.QUESTIONS) for seed in released)
    made = {}
    with tempfile.TemporaryDirectory() as place:
        for name in (FIGURES, QUESTIONS) if answered else (FIGURES,):
            path = Path(place) / f"{name}.ipynb"
            execute.execute(ROOT / "notebooks" / path.name, path, parameters)
            made[name] = publishable(nbformat.read(path, as_version=4), _record_of(released, parameters))
    return made


def _made(stage: Stage) -> dict[str, Any]:
    """Commit and state of the code that made a stage."""
    manifest = artifacts.read_manifest(stage.folder)
    if manifest is None:
        raise UserError(f"{stage.label} is missing beside its notebook: run `{stage.command}` again.")
    return manifest["environment"]


def _record_of(released: list[Path], parameters: dict[str, Any]) -> dict[str, Any]:
    """The record of what is drawn from released seeds."""
    groups = (result_tables.STUDY, result_tables.ABLATIONS, result_tables.QUESTIONS)
    origins = [one for seed in released if (one := result_tables.origin(seed, *groups))]
    made = [{"commit": commit, "dirty": one["dirty"]} for one in origins for commit in one["commits"]]
    return _record(made, parameters)


def _record(made: list[dict[str, Any]], parameters: dict[str, Any]) -> dict[str, Any]:
    commits, dirty = sorted({one["commit"] for one in made}), any(one["dirty"] for one in made)
    return {"commits": commits, "dirty": dirty, "parameters": dict(parameters)}


# ---- one notebook


def publishable(notebook: NotebookNode, record: dict[str, Any]) -> NotebookNode:
    """A notebook without what no reader misses, and with its origin below its title and in its metadata."""
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})  # and what was written over in a line goes
    cells = [_clean_cell(cell) for cell in notebook.cells]
    commits = " and ".join(f"`{commit[:12]}`" for commit in record["commits"])
    changed = ", with uncommitted changes" if record["dirty"] else ""
    parameters = ", ".join(f"{name} = `{value}`" for name, value in record["parameters"].items())
    origin = f"*Executed at commit {commits}{changed} with {parameters}.*"
    cells.insert(1, nbformat.v4.new_markdown_cell(origin, id="origin"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, RECORD: record}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _clean_cell(cell: NotebookNode) -> NotebookNode:
    tags = cell.metadata.get("tags", [])
    cell.metadata = NotebookNode({"tags": tags} if tags else {})
    if "injected-parameters" in tags:
        cell.id = "injected-parameters"  # papermill draws it at random
    if cell.cell_type == "code":
        cell.outputs = [clean for output in cell.outputs if (clean := _clean_output(output))]
    return cell


def _clean_output(output: NotebookNode) -> NotebookNode | None:
    """An output as a reader sees it; None for progress bars, messages on standard error, and widgets."""
    if output.output_type == "stream":
        output.text = without_folders(output.text.replace("\r\n", "\n"))
        return output if output.name == "stdout" and output.text.strip() else None
    if any("widget" in kind for kind in output.data):
        return None
    width = min(output.metadata.get("image/png", {}).get("width", WIDEST), WIDEST)
    output.metadata = NotebookNode()
    output.data = NotebookNode({kind: value for kind, value in output.data.items() if kind in KEPT_TYPES})
    for kind, value in output.data.items():
        output.data[kind] = screen_picture(value, width) if kind == "image/png" else without_folders(value)
    return output if output.data else None


def without_folders(text: str) -> str:
    """A text in which a path in the repository starts there, and any other absolute path is its last part."""
    return _PATH.sub(lambda match: Path(match.group()).name, text.replace(f"{ROOT}/", ""))


def screen_picture(encoded: str, width: int) -> str:
    """A PNG in base64 at most `width` pixels wide, in a palette of its own colours; the smaller of the two."""
    content, written = base64.b64decode(encoded), io.BytesIO()
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    flat.thumbnail((width, flat.height), Image.Resampling.LANCZOS)
    flat.quantize(COLORS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(min(written.getvalue(), content, key=len)).decode()
