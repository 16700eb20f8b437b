"""An equality of your own: a function that gives an answer's text its canonical form (datasets.NAME.equality).

    datasets: {mine: {answer: phrase, equality: "study/cities.py:canonical"}}

    def canonical(text: str) -> str:        # in study/cities.py
        return {"NYC": "New York"}.get(text, text).casefold()

Answers are equal where their canonical forms are, so a vote stays one: it counts equal texts. The function gets the
text of the answer, and replaces the built-in canonical form for the answers of teacher, student and questions.
`kind_of` names the kind of answer and the function in one text, which all that reads answers takes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from rdlib.errors import UserError
from rdlib.settings import Dataset
from rdlib.tasks import sources

_BY = " by "  # between the kind, the function's place and the hash of its file


def file_of(settings: Dataset, root: Path) -> Path | None:
    """The file of a dataset's own equality, None where it has none."""
    return None if settings.equality is None else root / settings.equality.rpartition(":")[0]


def content_of(settings: Dataset, root: Path) -> dict[str, str]:
    """The hash of that file for a stage's key; {} without an equality of one's own."""
    path = file_of(settings, root)
    if path is None:
        return {}
    return {settings.equality: sources.hash_of(path) if path.is_file() else "missing"}


def kind_of(settings: Dataset, root: Path) -> str:
    """How the answers of a dataset are read: their kind, and the function where the dataset names one.

    UserError where there is no such file or function.
    """
    path = file_of(settings, root)
    if path is None:
        return settings.answer
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the equality in the profile, relative to the repository.")
    function = settings.equality.rpartition(":")[2]
    kind = f"{settings.answer}{_BY}{path}:{function}{_BY}{sources.hash_of(path)}"
    function_of(kind)
    return kind


def kind_alone(kind: str) -> str:
    """The kind of answer without the function that reads it."""
    return kind.partition(_BY)[0]


@lru_cache(maxsize=64)
def function_of(kind: str) -> Callable[[str], str] | None:
    """The function of a text by `kind_of`, None where it names none; UserError where it cannot be had."""
    place = kind.partition(_BY)[2].rpartition(_BY)[0]
    if not place:
        return None
    path, _, name = place.rpartition(":")
    found = getattr(_module(path), name, None)
    if not callable(found):
        raise UserError(f"{path} has no function {name}: add it, or name another as the dataset's equality.")
    return lru_cache(maxsize=4096)(lambda text: _checked(found, text, path, name))


def _module(path: str):
    spec = importlib.util.spec_from_file_location(f"equality_{Path(path).stem}", path)
    if spec is None:
        raise UserError(f"{path} is no file of Python by its name: the dataset's equality needs one that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is a program of its own: it raises what it likes
        raise UserError(f"{path} cannot be imported ({_said(error)}): correct the dataset's equality.") from None
    return module


def _checked(function: Callable[[str], str], text: str, path: str, name: str) -> str:
    """What the function makes of a text; UserError where it raises, or gives no text."""
    try:
        found = function(text)
    except Exception as error:
        raise UserError(f"{path}: {name}({text[:40]!r}) raised {_said(error)}: let it take any text.") from None
    if not isinstance(found, str) or not found:
        raise UserError(f"{path}: {name}({text[:40]!r}) gave {found!r:.40}: let it give a text, the canonical form.")
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}".removesuffix(": ")
