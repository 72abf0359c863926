"""The idx parser: what it reads, and the one line with which it refuses everything else."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan.data import Dataset
from tinygan.data.idx import parse_idx, read_bytes, read_idx
from tinygan.errors import DataError


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_round_trip(shape: list[int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(parse_idx(idx(array), len(shape), "x"), array)


@pytest.mark.parametrize(
    "name", ["x-idx3-ubyte", "x.idx3-ubyte.gz", "named_plain.gz", "gz_unnamed"]
)
def test_gzip_is_judged_by_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    gzipped = name in ("x.idx3-ubyte.gz", "gz_unnamed")
    path.write_bytes(gzip.compress(idx(IMAGES)) if gzipped else idx(IMAGES))
    read = read_idx(path, 3)
    np.testing.assert_array_equal(read, IMAGES)
    assert read.dtype == np.uint8
    assert not read.flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number 0x00000803, got 0x\\(empty file\\)"),
        (b"\x00", "got 0x00$"),
        (b"<html>no</html>", "got 0x3c68746d"),
        (idx(np.zeros(5)), "magic number 0x00000803, got 0x00000801"),
        (b"\x00\x00\x0d\x03" + idx(IMAGES)[4:], "got 0x00000d03"),
        (idx(IMAGES)[:9], "header is 16 bytes, the file has 9"),
        (idx(IMAGES)[:-1], "shape \\(2, 3, 4\\): expected 40 bytes, got 39"),
        (idx(IMAGES) + b"\x00", "expected 40 bytes, got 41"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "wrong length for shape \\(4294967295"),
    ],
)
def test_refuses_what_is_not_idx(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        parse_idx(content, 3, "somewhere")
    assert str(refusal.value).startswith("somewhere: ")
    assert "\n" not in str(refusal.value)


def test_refuses_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    whole = gzip.compress(idx(IMAGES))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content, reason in [
        (whole[:-1], "truncated"),
        (whole[:15], "truncated"),
        (whole[:2], "truncated"),
        (bytes(flipped), "corrupt"),
        (whole + b"rubbish", "corrupt"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"x.gz: the gzip file is {reason}"):
            read_bytes(path)


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        read_idx(tmp_path / "nowhere", 1)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, 1)


def test_dataset_refuses_what_does_not_fit() -> None:
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.zeros(3, np.uint8)
    data = Dataset("toy", images, labels, {"slant": np.zeros(3)})
    assert len(data) == 3
    assert data.image_shape == (2, 2, 1)
    with pytest.raises(TypeError, match=r"toy: images must be a numpy.ndarray, .*numpy.array\)"):
        Dataset("toy", images.tolist(), labels)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"toy: labels must be a numpy.ndarray"):
        Dataset("toy", images, labels.tolist())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="toy: 3 images but 2 labels"):
        Dataset("toy", images, labels[:2])
    with pytest.raises(DataError, match="toy: 3 images but 4 slant"):
        Dataset("toy", images, labels, {"slant": np.zeros(4)})
    with pytest.raises(DataError, match=r"images must be uint8 .* got float32 of shape"):
        Dataset("toy", images.astype(np.float32), labels)
    with pytest.raises(DataError, match=r"images must be .* \(3, 2, 2\)"):
        Dataset("toy", images[..., 0], labels)
    with pytest.raises(DataError, match="labels must be uint8"):
        Dataset("toy", images, labels.astype(np.int64))
