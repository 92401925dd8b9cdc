"""What all figures share: colours, fonts, and byte-stable encoding."""

import io
import logging
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure

from analysis.exhibits import CAPTION_ROW

# Okabe & Ito's palette: distinguishable with every common colour-vision deficiency.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "action-collapse",
}


_DPI = 160
_CAPTION = "caption"


def write_caption(figure: Figure, text: str, bottom: float) -> None:
    """Write the words under everything else; `encode` notes where they begin.

    Parameters
    ----------
    bottom
        Lower edge as a fraction of the figure's height.
    """
    figure.text(0.02, bottom, text, fontsize=8.5, va="bottom", wrap=True, gid=_CAPTION)


def encode(figure: Figure, kind: str) -> bytes:
    """The figure as a ``"png"`` or ``"pdf"`` file without time stamps, so bytes are stable.

    A PNG says in `CAPTION_ROW` where its caption begins: who shows the words beside the picture
    can leave them off it.
    """
    # The PDF backend's font subsetter remarks on fonts whose time stamps it strips.
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        metadata: dict[str, str | None] = {"CreationDate": None, "Producer": None}
        if kind == "png":
            metadata = {"Software": None, CAPTION_ROW: _caption_row(figure)}
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()


def _caption_row(figure: Figure) -> str | None:
    for text in figure.texts:
        if text.get_gid() == _CAPTION and text.get_text():
            renderer = RendererAgg(1, 1, _DPI)  # type: ignore[no-untyped-call]
            top = text.get_window_extent(renderer, dpi=_DPI).y1
            # Glyphs may stand a pixel out of their box.
            return str(int(figure.get_figheight() * _DPI - top) - 1)
    return None
