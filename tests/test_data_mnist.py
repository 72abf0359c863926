"""Finding MNIST's files on disk, and fetching them from mirrors good, bad and silent."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest

from tinygan.data import DownloadError, download, load_dataset, load_mnist, mnist
from tinygan.errors import DataError

SHAPES = {"train": (6, 28, 28), "test": (4, 28, 28)}


def contents() -> dict[str, bytes]:
    """Small data sets in MNIST's four files: name -> decompressed content."""
    random = np.random.default_rng(0)
    files = {}
    for split, names in mnist.FILES.items():
        for name, shape in zip(names, (SHAPES[split], SHAPES[split][:1]), strict=True):
            header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
            values = random.integers(0, 10, shape, np.uint8)
            files[name] = header + values.tobytes()
    return files


FILES = contents()
TRAIN_IMAGES, TRAIN_LABELS = mnist.FILES["train"]


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """MNIST is FILES, the user's cache is a folder of ours, no mirror is real; the cache."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(mnist, "SHA256", digests)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("TINYGAN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRIES", 0)
    return tmp_path / "cache" / "tinygan" / "mnist"


def write(folder: Path, rename: Callable[[str], str] = str, gz: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / rename(name)).write_bytes(gzip.compress(content) if gz else content)
    return folder


# -- a folder of the user's ------------------------------------------------------------------------


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_both_spellings_gzipped_or_not(
    tmp_path: Path, dotted: bool, gz: bool, split: str
) -> None:
    def rename(name: str) -> str:
        return (name.replace("-idx", ".idx") if dotted else name) + (".gz" if gz else "")

    data = load_mnist(split, write(tmp_path / "mine", rename, gz))
    assert data.name == "mnist"
    assert data.images.shape == (*SHAPES[split], 1)
    image_file, label_file = mnist.FILES[split]
    assert data.images.tobytes() == FILES[image_file][16:]
    assert data.labels.tobytes() == FILES[label_file][8:]


def test_other_data_in_the_same_files(tmp_path: Path) -> None:
    folder = tmp_path / "fashion"
    folder.mkdir()
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 5, 7)
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(header + bytes(70)))
    (folder / TRAIN_LABELS).write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes(2))
    data = load_dataset("mnist", "train", folder)
    assert data.name == "fashion"
    assert data.image_shape == (5, 7, 1)


def test_order_of_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_mnist: Path
) -> None:
    write(small_mnist)
    assert len(load_mnist()) == 6
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("TINYGAN_DATA", str(empty))
    with pytest.raises(DataError, match="no idx files"):
        load_mnist()
    assert len(load_mnist(data_dir=write(tmp_path / "mine"))) == 6
    monkeypatch.setenv("TINYGAN_DATA", "")
    assert len(load_mnist()) == 6


def test_says_what_a_folder_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with pytest.raises(DataError, match="mine: there is no such folder; give a folder"):
        load_mnist(data_dir=folder)
    folder.mkdir()
    with pytest.raises(DataError, match="no idx files here, expected train-images-idx3-ubyte"):
        load_mnist(data_dir=folder)
    write(folder)
    (folder / TRAIN_LABELS).unlink()
    with pytest.raises(DataError, match="there are idx files, but no train-labels-idx1-ubyte"):
        load_mnist(data_dir=folder)
    with pytest.raises(DataError, match=r"--data-dir or TINYGAN_DATA.*--data strokes"):
        load_mnist(data_dir=folder)
    assert len(load_mnist("test", folder)) == 4


def test_refuses_files_that_do_not_fit(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    (folder / TRAIN_LABELS).write_bytes(FILES[mnist.FILES["test"][1]])
    with pytest.raises(DataError, match="6 images but 4 labels"):
        load_mnist(data_dir=folder)
    (folder / TRAIN_LABELS).write_bytes(FILES[TRAIN_IMAGES])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: .* 1 dimension"):
        load_mnist(data_dir=folder)
    (folder / TRAIN_IMAGES).write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 28, 28))
    (folder / TRAIN_LABELS).write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 0))
    with pytest.raises(DataError, match="holds no images"):
        load_mnist(data_dir=folder)


def test_refuses_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'validation': expected one of train, test"):
        load_mnist("validation")
    with pytest.raises(DataError, match="unknown data set 'cifar': expected one of mnist"):
        load_dataset("cifar")
    with pytest.raises(DataError, match="leave out the data folder"):
        load_dataset("strokes", data_dir=tmp_path)


@pytest.mark.skipif(not os.environ.get("TINYGAN_DATA"), reason="TINYGAN_DATA names no folder")
def test_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    train, test = load_mnist("train"), load_mnist("test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.name == test.name == "mnist"
    assert train.image_shape == (28, 28, 1)
    assert abs(train.images.mean() / 255 - 0.1307) < 1e-4


# -- mirrors ---------------------------------------------------------------------------------------


class Mirrors(ThreadingHTTPServer):
    """Paths are /BEHAVIOUR/FILE.gz; `requests` counts the behaviours asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: Counter[str] = Counter()
        self.over = threading.Event()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirrors

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        behaviour, name = self.path.strip("/").split("/")
        self.server.requests[behaviour] += 1
        content = FILES[name.removesuffix(".gz")]
        body = gzip.compress(content, mtime=0)
        if behaviour == "silent":
            self.server.over.wait(20)
            return
        if behaviour == "missing" or (
            behaviour == "flaky" and self.server.requests[behaviour] == 1
        ):
            return self.send_error(404 if behaviour == "missing" else 503)
        if behaviour == "reframed":
            body = gzip.compress(content[:50], 1) + gzip.compress(content[50:], 9)
        if behaviour == "wrong":
            body = gzip.compress(content[:-1] + b"\xff")
        if behaviour == "login":
            body = b"<html>please log in</html>"
        self.send_response(200)
        if behaviour == "decoding":  # the client then sees the plain file under the name .gz
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2 if behaviour in ("stalling", "cut") else len(body)
        self.wfile.write(body[:half])
        if behaviour == "stalling":
            self.wfile.flush()
            self.server.over.wait(20)


@pytest.fixture
def mirrors() -> Iterator[Mirrors]:
    server = Mirrors()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server: Mirrors, cache: Path, *behaviours: str, timeout: float = 5.0) -> bytes:
    urls = [server.url(behaviour) for behaviour in behaviours]
    return mnist.cached_idx(cache, TRAIN_LABELS, urls, timeout)


@pytest.mark.parametrize("behaviour", ["good", "reframed", "decoding"])
def test_any_gzip_framing_will_do(mirrors: Mirrors, small_mnist: Path, behaviour: str) -> None:
    assert fetch(mirrors, small_mnist, behaviour) == FILES[TRAIN_LABELS]
    assert [path.name for path in small_mnist.iterdir()] == [f"{TRAIN_LABELS}.gz"]
    assert fetch(mirrors, small_mnist, behaviour) == FILES[TRAIN_LABELS]
    assert mirrors.requests[behaviour] == 1, "the second time comes from the cache"


@pytest.mark.parametrize("bad", ["missing", "wrong", "login", "cut"])
def test_goes_on_to_the_next_mirror(mirrors: Mirrors, small_mnist: Path, bad: str) -> None:
    assert fetch(mirrors, small_mnist, bad, "good") == FILES[TRAIN_LABELS]
    assert mirrors.requests == {bad: 1, "good": 1}
    assert len(list(small_mnist.iterdir())) == 1, "nothing half-done is left behind"


@pytest.mark.parametrize("bad", ["silent", "stalling"])
def test_gives_up_on_silence(mirrors: Mirrors, small_mnist: Path, bad: str) -> None:
    start = time.monotonic()
    assert fetch(mirrors, small_mnist, bad, "good", timeout=0.3) == FILES[TRAIN_LABELS]
    assert 0.2 < time.monotonic() - start < 20, "the server itself is silent for longer"
    assert mirrors.requests[bad] == 1, "silence is not asked again"
    assert download.TIMEOUT == 10


def test_asks_a_mirror_again(
    mirrors: Mirrors, small_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 1)
    assert fetch(mirrors, small_mnist, "flaky") == FILES[TRAIN_LABELS]
    assert mirrors.requests["flaky"] == 2


def test_no_mirror_helps(mirrors: Mirrors, small_mnist: Path) -> None:
    with pytest.raises(DownloadError) as refusal:
        fetch(mirrors, small_mnist, "missing", "wrong", "silent", timeout=0.3)
    message = str(refusal.value)
    for part in ("HTTP 404", "sha256", "silent", "--data-dir", "TINYGAN_DATA", "--data strokes"):
        assert part in message
    assert "\n" not in message
    assert not list(small_mnist.iterdir())


def test_no_network(small_mnist: Path) -> None:
    with pytest.raises(DownloadError, match=r"no connection\); .*--data-dir or TINYGAN_DATA"):
        mnist.cached_idx(small_mnist, TRAIN_LABELS, ["http://127.0.0.1:9/"])


@pytest.mark.parametrize("damage", ["truncated", "plain but wrong", "another file"])
def test_damaged_cache_is_fetched_again(mirrors: Mirrors, small_mnist: Path, damage: str) -> None:
    write(small_mnist, lambda name: f"{name}.gz", gz=True)
    path = small_mnist / f"{TRAIN_LABELS}.gz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "another file":
        path.write_bytes((small_mnist / f"{TRAIN_IMAGES}.gz").read_bytes())
    else:
        path.unlink()
        path = small_mnist / TRAIN_LABELS
        path.write_bytes(FILES[TRAIN_LABELS][:-1] + b"\xff")
    assert fetch(mirrors, small_mnist, "good") == FILES[TRAIN_LABELS]
    assert mirrors.requests["good"] == 1
    assert not (small_mnist / TRAIN_LABELS).exists()
    assert fetch(mirrors, small_mnist) == FILES[TRAIN_LABELS]


def test_load_mnist_downloads_into_the_cache(
    mirrors: Mirrors, small_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "MIRRORS", (mirrors.url("missing"), mirrors.url("good")))
    data = load_mnist("test")
    assert data.name == "mnist"
    assert len(data) == 4
    assert mirrors.requests == {"missing": 2, "good": 2}
    assert len(list(small_mnist.iterdir())) == 2


def test_unwritable_cache(mirrors: Mirrors, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written") as refusal:
        fetch(mirrors, tmp_path / "file" / "mnist", "good")
    assert not isinstance(refusal.value, DownloadError)
