"""What the site asks of Sphinx beyond its settings (docs/conf.py): docstrings as they are written here, and equations.

A docstring is plain text with `names in backticks`, lists, and examples indented by four spaces. Equations become
MathML, which browsers draw without a script.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from rdlib.paths import ROOT

_CODE = re.compile(r"`([^`]+)`")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_MODULE = re.compile(r"rdlib(\.\w+)*(:[\w.]+)?")


def restructured(docstring: str) -> str:
    """A docstring of this project as reStructuredText that shows the same text."""
    return "\n\n".join(_block(block) for block in re.split(r"\n{2,}", docstring.strip("\n")))


def _block(text: str) -> str:
    """A paragraph, a list, or an example, which is shown as it stands."""
    if all(line.startswith("    ") for line in text.splitlines()):
        return f"::\n\n{text}"
    parts = _CODE.split(text)  # text, code, text, code, ..., text
    shown = [_code(part) if i % 2 else re.sub(r"([\\*|_`])", r"\\\1", part) for i, part in enumerate(parts)]
    return "".join(shown)


def _code(text: str) -> str:
    """Code in a line, which is a link where it names something of the project; letters may touch it on both sides."""
    text = " ".join(text.split())
    return rf"\ :py:obj:`{text}`\ " if _NAME.fullmatch(text) else rf"\ ``{text}``\ "


def _docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Handler of autodoc's event: rewrites the lines in place."""
    lines[:] = [*restructured("\n".join(lines)).split("\n"), ""]


def _signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Handler of autodoc's event: settings as their section declares them, and no folder of this machine."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        return declared(thing), returned
    return signature and signature.replace(f"{ROOT!r}", "ROOT"), returned


def declared(section: type[BaseModel]) -> str:
    """The fields of a schema as the arguments of a call, with kinds and defaults as the source writes them."""
    around, fields = vars(sys.modules[section.__module__]), []
    for name, kind in inspect.get_annotations(section).items():
        if name in section.model_fields:
            field = section.model_fields[name]
            default = " = ..." if field.default_factory else f" = {field.default!r}"
            fields.append(f"{name}: {_qualified(kind, around)}{'' if field.is_required() else default}")
    return f"(*, {', '.join(fields)})" if fields else "()"


def _qualified(annotation: str, names: dict[str, Any]) -> str:
    """An annotation in which a schema's name has its module, as Sphinx needs it to tell it from others."""

    def with_module(match: re.Match) -> str:
        """A name with its module, where it is a schema's."""
        kind = names.get(match[0])
        is_schema = isinstance(kind, type) and issubclass(kind, BaseModel)
        return f"{kind.__module__}.{match[0]}" if is_schema else match[0]

    return re.sub(r"\b[A-Z]\w*", with_module, annotation)


class LinkedNames(SphinxTransform):
    """Makes a link of a name such as `rdlib.method.reward` or `rdlib.method.reward:reward` in any page."""

    default_priority = 200

    def apply(self, **kwargs: Any) -> None:
        """Wrap code that is a dotted name of the project in a cross-reference, which stays code where there is none."""
        for code in list(self.document.findall(nodes.literal)):
            name = code.astext()
            if _MODULE.fullmatch(name) and not isinstance(code.parent, nodes.reference | pending_xref):
                target = name.replace(":", ".")
                link = pending_xref("", refdomain="py", reftype="obj", reftarget=target, refwarn=False)
                code.replace_self(link)
                link += code


def _inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Entry point of a Sphinx extension."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.add_transform(LinkedNames)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
