"""Sphinx configuration: ``make docs`` builds the site with warnings as errors."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]
# Small dense linear algebra is far slower with BLAS threads than without.
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "Action Collapse"
author = "The Action Collapse developers"
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "executed",
    "paired",
    "fields",
    "modules",
    "docstrings",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_ext", "_static"]

html_theme = "furo"
html_title = "Action Collapse"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False

default_role = "code"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = ["Notation", "Conventions", "Arithmetic"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
nitpicky = True
# References to other projects' objects have nowhere to go offline; those to our own must resolve.
nitpick_ignore_regex = [("py:.*", r"(?!(lpm|gridworld|agents|analysis)\b).*")]
# An annotation kept as text names a class without its module; several modules may have one.
suppress_warnings = ["ref.python"]
