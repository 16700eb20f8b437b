"""Settings of the site, which `make site` builds from these pages, the released figures and notebooks, and rdlib.

Docstrings are plain text with `names in backticks` and examples indented by four spaces. Equations become MathML, which
browsers draw without a script. `rdlib.module:name` in any page links to the API.
"""

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

from rdlib.paths import ROOT

project = "rdlib"
author = "the authors of rdlib"
html_title = "Distill Not Only Data but Also Rewards: a reproduction"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
]
exclude_patterns = ["docs/_templates", "docs/templates"]
nb_execution_mode = "off"  # executed notebooks are shown as they were saved
nb_render_markdown_format = "myst"
nb_merge_streams = True
# GitHub's own form of equations
myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries = False
viewcode_line_numbers = True
viewcode_follow_imported_members = False  # an imported name has no place on its module's page

suppress_warnings = [
    "myst.header",  # a notebook's cells and a table's own title begin at the level that suits them
    "image.not_readable",  # documents show figures that another folder of figures may lack
    "myst.xref_missing",  # links to files that are no pages, such as params/; tests/test_docs.py checks that they exist
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = False  # the search finds more
html_domain_indices = False
html_show_search_summary = False  # needs a server
templates_path = [str(Path(__file__).parent / "_templates")]  # autosummary would look for it beside the pages

_MARKUP = re.compile(r"([\\*|_`]|(?<=\w):(?=\w))")  # FILE:NAME would be a link
_LITERAL = re.compile(r"(`[^`]+`)")
_NAME = re.compile(r"rdlib(\.\w+)*(:[\w.]+)?")


def restructured(docstring):
    """A docstring of this project as reStructuredText that shows the same text."""
    blocks = re.split(r"\n{2,}", docstring.strip("\n"))
    return "\n\n".join(f"::\n\n{block}" if block.startswith("    ") else _paragraph(block) for block in blocks)


def _paragraph(text):
    """Code in backticks stays code, a link where it names something; nothing else is markup."""
    parts = _LITERAL.split(text)  # text, `code`, text, ...
    return "".join(_code(part) if i % 2 else _MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))


def _code(part):
    text = " ".join(part.strip("`").split())
    return rf"\ `{text}`\ " if re.fullmatch(r"[A-Za-z_][\w.]*", text) else rf"\ ``{text}``\ "


def _docstring(app, what, name, thing, options, lines):
    lines[:] = [*restructured("\n".join(lines)).split("\n"), ""]


def _signature(app, what, name, thing, options, signature, returned):
    """A default that is the repository's folder is shown by its name, not by where it lies on this machine."""
    return signature and signature.replace(repr(ROOT), "ROOT"), returned


class LinkedNames(SphinxTransform):
    """Makes a link to the API of code such as `rdlib.method.reward:reward`, where there is such a name."""

    default_priority = 200

    def apply(self, **options):
        """Wrap each such code in a cross-reference."""
        for code in list(self.document.findall(nodes.literal)):
            if _NAME.fullmatch(code.astext()) and not isinstance(code.parent, nodes.reference | pending_xref):
                target = code.astext().replace(":", ".")
                link = pending_xref("", refdomain="py", reftype="obj", reftarget=target, refwarn=False)
                code.replace_self(link)
                link += code


def _without_dead_links(app, doctree, docname):
    """A link to a file that is no page, such as LICENSE, becomes its text; a picture that is not there, its title."""
    ids = {name for node in doctree.findall(nodes.Element) for name in node.get("ids", ())}
    for link in list(doctree.findall(nodes.reference)):
        if link.get("refid") and link["refid"] not in ids:
            link.replace_self(link.children)
    for image in list(doctree.findall(nodes.image)):
        if image["uri"].startswith("figures/") and image["uri"] not in app.env.images:
            image.replace_self(nodes.inline("", image.get("alt", "")))


def _inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """What Sphinx calls with the settings above."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-resolved", _without_dead_links)
    app.add_transform(LinkedNames)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
