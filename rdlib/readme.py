"""Keeps README.md's tables equal to the released ones: `python -m rdlib.readme` after `make figures`.

A block between `<!-- name -->` and `<!-- /name -->` is replaced by figures/<name>.md, whose heading and notes
are left out; `measured` comes from figures/results/measured.json.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

from rdlib import artifacts, paper, tables
from rdlib.errors import UserError
from rdlib.profile import load_profile
from rdlib.study import ROOT

NOT_RELEASED = "*No reference run has been released yet: `make study`, then `make release`.*"
TABLES = ("table_2_main", "claims")


def table_rows(markdown: str) -> str:
    """The table of a Markdown file, without what stands around it."""
    return "\n".join(line for line in markdown.splitlines() if line.startswith("|"))


def measured_text(content: dict) -> str:
    """One sentence on time, memory and disk of the reference run."""
    return (
        f"The reference run of `make study` ({content['jobs']} notebooks, two at a time) took {content['minutes']:.0f} "
        f"minutes, {content['peak_memory_gib']:.1f} GiB of memory and {content['disk_mb']} MB of disk."
    )


def render(readme: str, blocks: dict[str, str]) -> str:
    """The README with each named block replaced; UserError for a block that it does not have."""
    for name, text in blocks.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(readme):
            raise UserError(f"README.md has no block <!-- {name} -->: put it where the table belongs.")
        readme = pattern.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", readme)
    return readme


def blocks(figures: Path) -> dict[str, str]:
    """The text of each block, from the released tables."""
    content = {"provenance": provenance_rows()}
    if not (figures / "results").is_dir():
        return content | dict.fromkeys((*TABLES, "measured"), NOT_RELEASED)
    content |= {name: table_rows((figures / f"{name}.md").read_text(encoding="utf-8")) for name in TABLES}
    content["measured"] = measured_text(json.loads((figures / "results" / "measured.json").read_text()))
    return content


def provenance_rows() -> str:
    """Every constant of the method: the paper's value, its status, and the micro study's."""
    table = paper.provenance_table(load_profile(ROOT / "params/micro.yaml").model_dump())
    with tempfile.TemporaryDirectory() as folder:
        path = tables.write_markdown(table, Path(folder) / "provenance.md", "")
        return table_rows(path.read_text(encoding="utf-8"))


def main() -> int:
    """Rewrite README.md in place."""
    path = ROOT / "README.md"
    artifacts.write_bytes(path, render(path.read_text(encoding="utf-8"), blocks(ROOT / "figures")).encode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
