"""The site's pages of the API: one a module, in the order of the packages, filled by autodoc from the docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from rdlib.paths import ROOT
from rdlib.study.site_extension import restructured

# In the order in which a reader of the paper looks for them; the modules at the top and the embedded world come last.
PACKAGES = ("tasks", "engines", "method", "evidence", "study", "micro", "")
TOP = "rdlib"


def api_pages() -> dict[str, str]:
    """The text of each page in reStructuredText, by file name."""
    pages, packages = {}, []
    for package in PACKAGES:
        folder = ROOT / TOP / package
        names = [_dotted(path) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
        pages |= {f"{name}.rst": _module_page(name) for name in names}
        packages.append(_dotted(folder))
        pages[f"{packages[-1]}.rst"] = _package_page(packages[-1], names)
    return pages | {"index.rst": _index(packages)}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def first_sentence(name: str) -> str:
    """The first sentence of a module's or package's docstring."""
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def _titled(title: str, *parts: str) -> str:
    return "\n\n".join([f"{title}\n{'=' * len(title)}", *parts]) + "\n"


def _contents(names: list[str]) -> str:
    return ".. toctree::\n   :hidden:\n\n" + "\n".join(f"   {name}" for name in names)


def _list(names: list[str]) -> str:
    return "\n".join(f"- :py:mod:`{name}`: {restructured(first_sentence(name))}" for name in names)


def _module_page(name: str) -> str:
    return _titled(name, f".. automodule:: {name}")


def _package_page(name: str, modules: list[str]) -> str:
    title = "Modules at the top" if name == TOP else name
    return _titled(title, f".. automodule:: {name}", _list(modules), _contents(modules))


def _index(packages: list[str]) -> str:
    text = (
        "Packages in the order in which a reader of the paper looks for them; each imports only from those before it "
        "in the list of :doc:`the architecture </docs/index>`. For an equation of the paper, see "
        ":doc:`/docs/equations`."
    )
    return _titled("API", text, _list(packages), _contents(packages))
