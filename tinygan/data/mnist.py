"""MNIST, or any data set with the same four idx files: found on disk, or fetched and verified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from tinygan.data.dataset import Dataset
from tinygan.data.idx import parse_idx, read_bytes
from tinygan.errors import DataError, DownloadError

# split -> images and labels, as published; idx3 and idx1 say how many dimensions they have
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# of the *decompressed* content: mirrors hold the same bytes in different gzip framing
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
)
WAYS_OUT = (
    "give a folder that holds the idx files with --data-dir or TINYGAN_DATA, "
    "or draw digits instead with --data strokes"
)


def load_mnist(split: str = "train", data_dir: Path | None = None) -> Dataset:
    """MNIST's `split`, "train" (60 000 images) or "test" (10 000): uint8 (N, 28, 28, 1).

    Looks in `data_dir`, else in the folder named by TINYGAN_DATA, else in the user's cache folder,
    into which it downloads what is not there. A folder of yours may hold any data set in the same
    files (Fashion-MNIST, say): only its structure is checked, and the data set takes the folder's
    name unless its images are MNIST's. Cached and downloaded files must have MNIST's sha256.
    Raises DataError; DownloadError if no file is here and no mirror answers.
    """
    if split not in FILES:
        raise DataError(f"unknown split {split!r}: expected one of {', '.join(FILES)}")
    image_file, label_file = FILES[split]
    chosen = data_dir or os.environ.get("TINYGAN_DATA")
    if chosen:
        folder = Path(chosen).expanduser()
        image_path, label_path = (find_idx(folder, file) for file in FILES[split])
        image_bytes, label_bytes = read_bytes(image_path), read_bytes(label_path)
    else:
        import pooch  # slow to import: when it is used

        folder = pooch.os_cache("tinygan") / "mnist"
        image_path, label_path = folder / image_file, folder / label_file
        image_bytes, label_bytes = (cached_idx(folder, file) for file in FILES[split])
    images = parse_idx(image_bytes, 3, str(image_path))
    labels = parse_idx(label_bytes, 1, str(label_path))
    if not images.size:
        raise DataError(f"{image_path}: holds no images, its shape is {images.shape}")
    name = "mnist" if _sha256(image_bytes) == SHA256[image_file] else folder.resolve().name
    return Dataset(name, images[..., None], labels)


def find_idx(folder: Path, file: str) -> Path:
    """Where `file` lies in `folder`, gzipped or not; both usual spellings count.

    Raises DataError saying what is missing and what there is.
    """
    path = _look(folder, file)
    if path is not None:
        return path
    if not folder.is_dir():
        why = "there is no such folder"
    elif any(_look(folder, other) for pair in FILES.values() for other in pair):
        why = f"there are idx files, but no {file} (.gz or not)"
    else:
        why = f"no idx files here, expected {file} (.gz or not) and its companions"
    raise DataError(f"{folder}: {why}; {WAYS_OUT}")


def cached_idx(
    folder: Path, file: str, mirrors: Sequence[str] | None = None, timeout: float = 10.0
) -> bytes:
    """The decompressed content of MNIST's `file` from the cache `folder`, downloaded if need be.

    A cached file with the wrong content is removed and fetched again.
    Raises DownloadError if no mirror has it, DataError if `folder` cannot be written.
    """

    def verified(path: Path) -> bytes:
        content = read_bytes(path)
        if _sha256(content) != SHA256[file]:
            raise DataError(f"content of {path.name} is not MNIST's {file}, its sha256 differs")
        return content

    mirrors = MIRRORS if mirrors is None else mirrors
    while (path := _look(folder, file)) is not None:
        try:
            return verified(path)
        except DataError as error:
            try:
                path.unlink(missing_ok=True)
            except OSError:
                raise error from None
    from tinygan.data.download import download  # with pooch and requests behind it

    try:
        return verified(download(f"{file}.gz", folder, mirrors, verified, timeout))
    except DownloadError as error:
        raise DownloadError(
            f"MNIST is not here and cannot be fetched ({error}); {WAYS_OUT}"
        ) from None


def _look(folder: Path, file: str) -> Path | None:
    """`file` in `folder` as train-images-idx3-ubyte or train-images.idx3-ubyte, with .gz or not."""
    for name in (file, file.replace("-idx", ".idx")):
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
