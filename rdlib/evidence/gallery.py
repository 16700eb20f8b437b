"""The gallery: every table and figure of the report, in its order, by the name of its files.

    draw(EXHIBITS["figure_5_lambda"], open_results(Path("figures/results")), Path("figures"))

`python -m rdlib figures` is the command.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from rdlib.errors import UserError
from rdlib.evidence.exhibit import Exhibit, draw
from rdlib.evidence.open_exhibits import OPEN_ENDS
from rdlib.evidence.paper_exhibits import PAPER
from rdlib.evidence.question_exhibits import QUESTIONS
from rdlib.evidence.result_tables import Evidence
from rdlib.evidence.rounding import EXHIBITS as ROUNDING

EXHIBITS: dict[str, Exhibit] = {one.name: one for one in (*PAPER, *QUESTIONS, *ROUNDING, *OPEN_ENDS)}


def draw_all(evidence: Evidence, out: Path) -> list[Path]:
    """Write every exhibit that the evidence has tables for to `out`; returns the paths written.

    An earlier drawing of one that is left out now is removed: it would show runs that these results lack.
    """
    make_folder(out)
    paths = []
    for exhibit in EXHIBITS.values():
        if exhibit.left_out(evidence):
            for ending in exhibit.endings:
                (out / f"{exhibit.name}.{ending}").unlink(missing_ok=True)
        elif exhibit.is_shown(evidence):
            paths += draw(exhibit, evidence, out)
    return paths


def draw_questions(evidence: Evidence, out: Path) -> list[Path]:
    """Write the exhibits of the reviewers' questions and of the open ends to `out`, as far as they are answered."""
    make_folder(out)
    asked = [exhibit for exhibit in EXHIBITS.values() if exhibit.of_questions or exhibit.trials]
    shown = [exhibit for exhibit in asked if exhibit.is_shown(evidence)]
    return [path for exhibit in shown for path in draw(exhibit, evidence, out)]


def find(name: str) -> Exhibit:
    """An exhibit by its name; UserError that lists the close names, or all of them."""
    if name in EXHIBITS:
        return EXHIBITS[name]
    inside = [known for known in EXHIBITS if name and name.lower() in known]
    close = inside or difflib.get_close_matches(name.lower(), EXHIBITS, n=4, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"give one of {', '.join(EXHIBITS)}."
    raise UserError(f"There is no table or figure {name!r}: {hint}" if name else f"NAME is missing: {hint}")


def make_folder(folder: Path) -> None:
    """Make the folder of the exhibits; UserError where that can't be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} can't be made ({error.strerror}): give a folder that can be written to.") from None
