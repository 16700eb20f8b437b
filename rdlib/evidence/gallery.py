"""The gallery: every table and figure of the report, in its order, by the name of its files.

    draw(EXHIBITS["figure_5_lambda"], open_results(Path("figures/results")), Path("figures"))

`exhibits.yaml` declares them; `python -m rdlib figures` is the command.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import yaml

from rdlib.errors import UserError
from rdlib.evidence import tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.exhibit import Exhibit, draw
from rdlib.evidence.result_tables import Evidence
from rdlib.evidence.verdicts import Claim


def load() -> dict[str, Exhibit]:
    """The exhibits of exhibits.yaml by name; notes are part of their captions."""
    content = yaml.safe_load((resources.files("rdlib.evidence") / "exhibits.yaml").read_text(encoding="utf-8"))
    notes, found = content.pop("notes"), {}
    for notebook, exhibits in content.items():
        for name, one in exhibits.items():
            sentences = [one.pop("caption", ""), *(notes[note] for note in one.pop("notes", ()))]
            caption = " ".join(filter(None, sentences))
            found[name] = Exhibit(name=name, notebook=notebook, caption=caption, **one)
    return found


EXHIBITS = load()


def draw_all(evidence: Evidence, out: Path, notebook: str | None = None) -> list[Path]:
    """Write every exhibit that the evidence has rows for to `out`, or those of one notebook; the paths written.

    An earlier drawing of one that is left out now is removed: it would show runs that these results lack.
    """
    make_folder(out)
    paths = []
    for exhibit in EXHIBITS.values():
        if notebook not in (None, exhibit.notebook):
            continue
        table = exhibit.rows(evidence)
        if table is not None:
            paths += draw(exhibit, evidence, out, table)
            continue
        for ending in exhibit.endings:
            (out / f"{exhibit.name}.{ending}").unlink(missing_ok=True)
    return paths


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


def unjudged(judged: Sequence[Claim]) -> str:
    """Which claims a part of a study cannot judge, in a sentence; "" where all are judged."""
    others = [name for name in load_criteria() if name not in {claim.name for claim in judged}]
    return f"Not judged, because these results lack the runs: {tables.listed(others)}." if others else ""
