"""Figures and tables in a run folder, each with its words beside it.

::

    figures/NAME.png    and any other format
    figures/NAME.json   {"title": …, "caption": …, "alternative": …}
    tables/NAME.parquet
    tables/NAME.json    {"title": …, "caption": …}

Whoever makes an exhibit knows what it shows, so the words are stored with it, and a page needs
nothing but run folders.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from analysis.sealed import pack_rows
from analysis.storage import RunFolder, RunFolderError, as_json, load_rows

CAPTION_ROW = "Caption row"
"""Keyword of the text in a PNG that says how many rows of pixels there are above its caption."""


@dataclass(frozen=True)
class FigureWords:
    """What stands around a figure, and in its place for those who cannot see it."""

    title: str
    caption: str
    alternative: str
    """What a reader who cannot see the picture should know: the numbers it shows."""


@dataclass(frozen=True)
class TableWords:
    """What stands around a table."""

    title: str
    caption: str


Words = TypeVar("Words", FigureWords, TableWords)


@dataclass(frozen=True)
class FigureExhibit:
    """A stored figure."""

    name: str
    words: FigureWords | None
    """None where the folder holds the picture only."""
    png: bytes


@dataclass(frozen=True)
class TableExhibit:
    """A stored table."""

    name: str
    words: TableWords
    rows: pd.DataFrame


def store_figure(
    folder: RunFolder, name: str, pictures: Mapping[str, bytes], words: FigureWords
) -> tuple[Path, ...]:
    """Store a figure in one or several formats with its words; returns the pictures' paths.

    Parameters
    ----------
    pictures
        Encoded pictures by file ending, ``"png"`` among them.

    Raises
    ------
    ValueError
        There is no PNG, or a word is missing.
    """
    if "png" not in pictures:
        raise ValueError(f"figure {name!r} has {sorted(pictures)}: a page shows the png")
    _require_words(name, asdict(words))
    folder.write(f"figures/{name}.json", as_json(words))
    return tuple(
        folder.write(f"figures/{name}.{kind}", picture) for kind, picture in pictures.items()
    )


def store_table(folder: RunFolder, name: str, rows: pd.DataFrame, words: TableWords) -> Path:
    """Store a table with its words, replacing an earlier one; returns the rows' path.

    Unlike the parts of a run (`RunFolder.write_rows`) a table is derived from rows in a moment.

    Raises
    ------
    ValueError
        A word is missing.
    """
    _require_words(name, asdict(words))
    folder.write(f"tables/{name}.json", as_json(words))
    return folder.write(f"tables/{name}.parquet", pack_rows(rows))


def _require_words(name: str, words: Mapping[str, str]) -> None:
    empty = [field for field, text in words.items() if not text.strip()]
    if empty:
        raise ValueError(f"exhibit {name!r} has no {' and no '.join(empty)}")


def read_figures(folder: Path) -> list[FigureExhibit]:
    """Figures of a run folder by name; of one without words the picture alone.

    Raises
    ------
    RunFolderError
        The words or a picture are damaged.
    """
    found = []
    for picture in sorted((folder / "figures").glob("*.png")):
        path = picture.with_suffix(".json")
        words = _read_words(path, FigureWords) if path.exists() else None
        found.append(FigureExhibit(picture.stem, words, _read_png(picture)))
    return found


def _read_png(path: Path) -> bytes:
    picture = path.read_bytes()
    # RFC 2083: the signature, and the last chunk with its checksum.
    if not (picture.startswith(b"\x89PNG\r\n\x1a\n") and picture.endswith(b"IEND\xaeB`\x82")):
        raise RunFolderError(
            f"{path} is no whole PNG: delete it and draw the figure again with the command that "
            "environment.json of its run folder records"
        )
    return picture


def read_tables(folder: Path) -> list[TableExhibit]:
    """Tables of a run folder by name; rows without words are no table.

    Raises
    ------
    RunFolderError
        The words or the rows are damaged.
    """
    found = []
    for path in sorted((folder / "tables").glob("*.json")):
        rows = read_rows(path.with_suffix(".parquet"))
        found.append(TableExhibit(path.stem, _read_words(path, TableWords), rows))
    return found


def read_rows(path: Path) -> pd.DataFrame:
    """Rows of a file.

    Raises
    ------
    RunFolderError
        The file is missing or damaged.
    """
    return load_rows(
        path,
        "delete it and make it again with the command that environment.json of its run folder "
        "records",
    )


def _read_words(path: Path, kind: type[Words]) -> Words:
    try:
        return kind(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise RunFolderError(
            f"{path} does not hold the words of an exhibit ({error}): delete it and make the "
            "exhibit again with the command that environment.json of its run folder records"
        ) from error
