"""Builds a site of a page or two with the documentation's extensions, in this process."""

import io
import warnings
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = ["myst_parser", "mathml", "executed", "paired", "fields"]


def build(folder: Path, page: str, **config) -> list[str]:
    """Build ``page`` as the index into ``folder / "out"``; returns the warnings."""
    source = folder / "source"
    source.mkdir()
    (source / "index.md").write_text(page)
    settings = {
        "extensions": EXTENSIONS,
        "myst_enable_extensions": ["dollarmath"],
        "html_math_renderer": "mathml",
        "html_theme": "basic",
        "project_root": str(ROOT),
        "paired_required": (),
        "paired_all_claims": False,
        "paired_instances": 2,
        **config,
    }
    written = io.StringIO()
    with warnings.catch_warnings(), patch_docutils(source), docutils_namespace():
        # What MyST still calls in Sphinx is MyST's to update.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        app = Sphinx(
            source,
            None,
            folder / "out",
            folder / "trees",
            "html",
            confoverrides=settings,
            status=None,
            warning=written,
        )
        app.build()
    return [line for line in written.getvalue().splitlines() if line.strip()]


def text_of(folder: Path) -> str:
    """HTML of the page that `build` made."""
    return (folder / "out" / "index.html").read_text()
