"""Tensors and rows as bytes that carry their own digest, so that no damage loads as data.

PyTorch verifies nothing, and Parquet's page checksums leave out the footer, where a flipped bit
renames a column. Both formats have room for a text that readers skip; it holds the SHA-256 of the
file with the digest itself blank. What was written without one loads as it is.
"""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

_MARK = b"action-collapse sha256 "
_LENGTH = 2 * hashlib.sha256().digest_size
_BLANK = _MARK + b"0" * _LENGTH


class DamagedError(ValueError):
    """Content does not have the digest that was stored with it."""


def pack_tensors(state: Mapping[str, Any]) -> bytes:
    """Tensors, numbers and strings as a file of `torch.save`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    # The format is ZIP: its last two bytes are the length of a comment that may follow.
    buffer.seek(-2, io.SEEK_END)
    buffer.write(len(_BLANK).to_bytes(2, "little") + _BLANK)
    return _sealed(buffer.getvalue())


def unpack_tensors(content: bytes) -> dict[str, Any]:
    """What `pack_tensors` was given, on the CPU; runs no pickled code.

    Raises
    ------
    DamagedError
        The digest is another.
    Exception
        Whatever PyTorch raises at content that is not its own.
    """
    _verify(content)
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def pack_rows(rows: pd.DataFrame) -> bytes:
    """Rows without their index as a Parquet file."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"integrity": _BLANK.decode()})
    return _sealed(buffer.getvalue())


def unpack_rows(content: bytes) -> pd.DataFrame:
    """Rows of a Parquet file.

    Raises
    ------
    DamagedError
        The digest is another.
    Exception
        Whatever PyArrow and pandas raise at content that is not Parquet.
    """
    _verify(content)
    return pd.read_parquet(io.BytesIO(content))


def _sealed(content: bytes) -> bytes:
    """Fill in the digest of content that ends in, or before, a blank one."""
    start = content.rindex(_BLANK) + len(_MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    return b"".join((content[:start], digest, content[start + _LENGTH :]))


def _verify(content: bytes) -> None:
    mark = content.rfind(_MARK)
    if mark < 0:
        return
    whole, start = memoryview(content), mark + len(_MARK)
    digest = hashlib.sha256(whole[:mark])
    digest.update(_BLANK)
    digest.update(whole[start + _LENGTH :])
    if digest.hexdigest().encode() != whole[start : start + _LENGTH]:
        raise DamagedError("its content does not have the digest it was stored with")
