"""Digests inside files: no flipped bit loads as data, and other programs do not notice them."""

import io
import zipfile

import pandas as pd
import torch

from analysis.sealed import DamagedError, pack_rows, pack_tensors, unpack_rows, unpack_tensors

ROWS = pd.DataFrame({"arm": ["a", "a"], "epoch": [0, 1], "value": [0.1, float("nan")]})
STATE = {"x": torch.arange(9.0), "rows": [{"seed": 3, "value": 0.5, "arm": "a"}]}


def flipped(content: bytes, byte: int) -> bytes:
    damaged = bytearray(content)
    damaged[byte] ^= 1 << byte % 8
    return bytes(damaged)


def test_no_flipped_bit_of_tensors_loads_as_data() -> None:
    content = pack_tensors(STATE)
    assert torch.equal(unpack_tensors(content)["x"], STATE["x"])
    mark = content.rindex(b"action-collapse")
    refused = 0
    for byte in range(len(content)):
        try:
            loaded = unpack_tensors(flipped(content, byte))
        except DamagedError:
            refused += 1
        else:  # the flip is in the words before the digest, so that there seems to be none
            assert mark <= byte < len(content) - 64
            assert torch.equal(loaded["x"], STATE["x"])
            assert loaded["rows"] == STATE["rows"]
    assert refused > len(content) - 30


def test_no_flipped_bit_of_rows_loads_as_data() -> None:
    """Page checksums alone would miss those in the footer."""
    content = pack_rows(ROWS)
    pd.testing.assert_frame_equal(unpack_rows(content), ROWS)
    mark = content.rindex(b"action-collapse")
    refused = 0
    for byte in range(len(content)):
        try:
            loaded = unpack_rows(flipped(content, byte))
        except DamagedError:
            refused += 1
        else:
            assert mark <= byte < mark + 30
            pd.testing.assert_frame_equal(loaded, ROWS)
    assert refused > len(content) - 30


def test_what_was_written_without_a_digest_loads() -> None:
    tensors, rows = io.BytesIO(), io.BytesIO()
    torch.save(STATE, tensors)
    ROWS.to_parquet(rows, index=False)
    assert torch.equal(unpack_tensors(tensors.getvalue())["x"], STATE["x"])
    pd.testing.assert_frame_equal(unpack_rows(rows.getvalue()), ROWS)


def test_other_programs_do_not_notice_the_digest() -> None:
    content = pack_tensors(STATE)
    assert torch.equal(torch.load(io.BytesIO(content))["x"], STATE["x"])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"action-collapse sha256 ")
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(pack_rows(ROWS))), ROWS)


def test_the_same_content_gives_the_same_bytes() -> None:
    assert pack_rows(ROWS) == pack_rows(ROWS.copy())
    assert pack_tensors(STATE) == pack_tensors(dict(STATE))


def test_rows_may_hold_the_words_of_the_mark() -> None:
    rows = pd.DataFrame({"text": ["action-collapse sha256 " + "0" * 64, "action-collapse sha256 "]})
    pd.testing.assert_frame_equal(unpack_rows(pack_rows(rows)), rows)
