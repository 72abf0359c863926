"""The idx file format: a magic number, the shape, then the values, big-endian; often gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinygan.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08  # third byte of the magic number; the fourth counts the dimensions


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is gzip (judged by its first bytes, not its name).

    Raises DataError if the file cannot be read or its gzip stream is truncated or corrupt.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "truncated" if isinstance(error, EOFError) else f"corrupt ({error})"
        raise DataError(f"{path}: the gzip file is {reason}; fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def parse_idx(content: bytes, ndim: int, name: str) -> NDArray[np.uint8]:
    """The uint8 array, read-only, of `ndim` dimensions that `content` describes.

    Raises DataError, beginning with `name`, on a wrong magic number or a wrong length.
    """
    header = 4 + 4 * ndim
    magic = bytes([0, 0, UNSIGNED_BYTE, ndim])
    if content[:4] != magic:
        raise DataError(
            f"{name}: not an idx file of unsigned bytes with {ndim} dimension(s): "
            f"expected magic number 0x{magic.hex()}, got 0x{content[:4].hex() or '(empty file)'}"
        )
    if len(content) < header:
        raise DataError(f"{name}: the idx header is {header} bytes, the file has {len(content)}")
    shape = [int(size) for size in np.frombuffer(content, ">u4", ndim, offset=4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DataError(
            f"{name}: wrong length for shape {tuple(shape)}: "
            f"expected {expected} bytes, got {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read an idx file, gzipped or plain, into a read-only uint8 array of `ndim` dimensions."""
    return parse_idx(read_bytes(path), ndim, str(path))
