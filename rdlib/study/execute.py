"""Run one notebook by papermill: `python -m rdlib execute NOTEBOOK OUTPUT '{"dataset": "gsm", ...}'`.

The same as papermill's own command, and two things more: a parameter that the notebook does not declare
is an error, and the message of a failed notebook is left beside it in a file ending in `.error`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import warnings
from pathlib import Path
from typing import Any

import nbformat
import nbformat.reader
import papermill
from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from rdlib.errors import UserError


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """UserError for a parameter that the notebook's parameters cell does not declare."""
    try:
        declared = list(papermill.inspect_notebook(str(notebook)))
    except nbformat.reader.NotJSONError:
        raise UserError(
            f"{notebook} is not a notebook: give the path of a file such as notebooks/00_data.ipynb."
        ) from None
    for name in parameters:
        if name not in declared:
            close = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it declares {', '.join(declared)}."
            raise UserError(f"{notebook.name} has no parameter {name!r}: {hint}")


def execute(
    notebook: Path, output: Path, parameters: dict[str, Any], kernel_manager: type[KernelManager] | None = None
) -> None:
    """Execute a notebook; UserError with the last line of what went wrong in it.

    `kernel_manager`: what starts the kernel, instead of papermill's own choice.
    """
    if not notebook.is_file():
        raise UserError(f"There is no notebook {notebook}: look in the folder notebooks/.")
    check_parameters(notebook, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    problem = output.with_suffix(".error")
    problem.unlink(missing_ok=True)
    extra = {"kernel_manager_class": kernel_manager} if kernel_manager else {}
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters,
            cwd=str(notebook.parent),
            progress_bar=False,
            kernel_name="python3",
            coalesce_streams=True,
            **extra,
        )
    except (PapermillExecutionError, RuntimeError) as error:  # nbclient's DeadKernelError is one of the latter
        if isinstance(error, PapermillExecutionError):
            message = told_by(error)
        elif isinstance(error, DeadKernelError) or "Kernel died" in str(error):  # the latter while it starts
            message = killed(output)
        else:
            raise
        problem.write_text(message + "\n")
        raise UserError(message) from None
    finally:
        scrub_paths(output, notebook)


def told_by(error: PapermillExecutionError) -> str:
    """What a notebook failed with, in a line."""
    return f"{error.evalue}" if error.ename == "UserError" else f"{error.ename}: {error.evalue}"


def killed(output: Path) -> str:
    """What to say of a notebook whose kernel died without a word, which is also written into it, below the cell."""
    return (
        f"The kernel of {output.name} was killed{_mark_killed(output)}, most likely because memory ran out: run fewer "
        f"jobs at a time, lower generation.batch_size or raise training.gradient_accumulation, then run this again; it "
        f"goes on from what was kept."
    )


def _mark_killed(output: Path) -> str:
    """Leave an error in the cell that was being run, the last one that had started; returns which it was, in words."""
    if not output.is_file():
        return ""
    content = nbformat.read(output, as_version=4)
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    started = [n for n, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return ""
    last = cells[started[-1]]
    said = {"ename": "KilledKernel", "evalue": "", "traceback": ["The kernel was killed."]}
    last.outputs.append(nbformat.v4.new_output("error", **said))
    nbformat.write(content, output)
    first = last.source.strip().splitlines()[:1]
    return f" in its code cell {started[-1] + 1}" + (f" ({first[0][:60]})" if first else "")


def scrub_paths(output: Path, notebook: Path) -> None:
    """Take the folders of this machine out of an executed notebook's metadata."""
    if output.is_file():
        content = nbformat.read(output, as_version=4)
        content.metadata.get("papermill", {}).update(input_path=notebook.name, output_path=output.name)
        nbformat.write(content, output)


def read_parameters(text: str) -> dict[str, Any]:
    """The parameters of the command line; UserError when they are not a JSON dictionary."""
    try:
        parameters = json.loads(text)
    except json.JSONDecodeError:
        parameters = None
    if not isinstance(parameters, dict):
        raise UserError(f'The parameters are not a JSON dictionary ({text}): write {{"dataset": "gsm"}}, for example.')
    return parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib execute`."""
    parser.add_argument("notebook", help="a notebook, as notebooks/00_data.ipynb")
    parser.add_argument("output", help="where the executed notebook goes")
    parser.add_argument("parameters", nargs="?", default="{}", help='parameters as JSON, as \'{"dataset": "gsm"}\'')


def run(options: argparse.Namespace, kernel_manager: type[KernelManager] | None = None) -> None:
    """Run the notebook."""
    warnings.filterwarnings("ignore")
    execute(Path(options.notebook), Path(options.output), read_parameters(options.parameters), kernel_manager)
