"""Settings of the site: `make site` (rdlib.study.site) writes the pages that Sphinx reads, and calls it with these."""

project = "rdlib"
author = "the authors of rdlib"
html_title = "Distill Not Only Data but Also Rewards: a reproduction"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
    "rdlib.study.site_extension",
]
# Executed notebooks are shown as they were saved.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
# GitHub's own form of equations and of boxes; a dollar sign stays one.
myst_enable_extensions = ["colon_fence", "attrs_inline", "attrs_block"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
viewcode_line_numbers = True

# Kinds of warnings that say nothing about a page:
suppress_warnings = [
    "myst.header",  # a notebook's cells and a table's own title begin at the level that suits them
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = False  # the search finds more
html_domain_indices = False
html_show_search_summary = False  # needs a server
html_last_updated_fmt = None
templates_path = []
