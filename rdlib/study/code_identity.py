"""The code that a computation uses, as a hash: what a stage's key holds of it.

    of("rdlib.method.sft")   # the module, and every module of rdlib that it imports, at the top or late

Modules are compared by their syntax trees without docstrings, so comments, docstrings and layout change nothing. A
package's own `__init__` counts where it is imported itself, not where one of its modules is. The hash is computed
once a process: what a process has imported stays as it is, too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent
# Modules that decide which stage runs when and where, how its files are written, and what it says when it fails, but
# nothing of their content; what only they import counts neither. The settings that `profile` reads are in a stage's
# key by their values.
ORCHESTRATION = {"rdlib.artifacts", "rdlib.errors", "rdlib.paths", "rdlib.profile", "rdlib.settings"} | {
    f"rdlib.study.{name}" for name in ("dag", "experiments", "jobs", "specification", "stage")
}


@cache
def of(*modules: str) -> str:
    """Hash of the code of these modules and of all that they import; UserError for a module that cannot be read."""
    return artifacts.content_hash({name: _module(name)[0] for name in sorted(reached(*modules))})


def reached(*modules: str) -> set[str]:
    """The names of these modules and of those of rdlib that they import, without those of ORCHESTRATION."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found | ORCHESTRATION:
            found.add(name)
            waiting += _module(name)[1]
    return found


@cache
def _module(name: str) -> tuple[str, list[str]]:
    """A module's hash without docstrings and places, and the modules of rdlib that it imports."""
    try:
        tree = ast.parse(_path(name).read_bytes())
    except (AttributeError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"The code of {name} cannot be read ({error}): mend or restore its file.") from None
    imported = []
    for node in ast.walk(tree):
        imported += _imported(node)
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return artifacts.content_hash(ast.dump(tree)), imported


def _imported(node: ast.AST) -> Iterator[str]:
    """The modules of rdlib that an import statement names; none for any other node."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if _path(name) else node.module for name in names]
    return (name for name in names if _path(name))


@cache
def _path(module: str) -> Path | None:
    """The file of a module of rdlib, None where there is no such module."""
    package, *parts = module.split(".")
    place = PACKAGE.joinpath(*parts)
    paths = (place.with_suffix(".py"), place / "__init__.py") if package == "rdlib" and parts else ()
    return next((path for path in paths if path.is_file()), None)
