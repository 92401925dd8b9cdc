"""What every figure with a caption owes to a page that shows the words beside it."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from analysis.exhibits import CAPTION_ROW
from analysis.figures.style import encode


def assert_cut_above_its_caption(figure: Figure, words: str) -> None:
    """The row that the PNG names parts the words, and nothing else, from the picture."""
    (caption,) = (text for text in figure.texts if text.get_text().split() == words.split())
    picture = Image.open(io.BytesIO(encode(figure, "png")))
    row = int(picture.info[CAPTION_ROW])
    caption.set_visible(False)
    wordless = np.asarray(Image.open(io.BytesIO(encode(figure, "png"))))
    shown = np.asarray(picture)
    np.testing.assert_array_equal(shown[:row], wordless[:row])
    assert (wordless[row:] == 255).all()
    assert (shown[row : row + 25] < 128).any()
