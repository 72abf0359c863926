"""Fetch a file from the first of several mirrors that has it: verified, atomic, never hanging."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from tinygan.errors import DataError, DownloadError

TIMEOUT = 10.0  # seconds without a byte after which a mirror is given up
RETRIES = 1  # of one mirror, after a refusal or wrong content; silence is not retried

Downloader = Callable[[str, str, object], None]  # pooch's protocol: url, output file, caller


def download(
    file: str,
    folder: Path,
    mirrors: Sequence[str],
    verify: Callable[[Path], object],
    timeout: float = TIMEOUT,
) -> Path:
    """Fetch `file` into `folder` from the first mirror whose copy passes `verify`; its path.

    `verify` raises ValueError on wrong content. The file appears under its name only when whole and
    verified. Raises DownloadError with every mirror's failure, DataError if `folder` is not
    writable.
    """
    failures = []
    for mirror in mirrors:
        # no hash in the registry: a mirror's gzip framing may differ, `verify` looks inside
        shelf = pooch.create(folder, mirror, registry={file: None}, retry_if_failed=RETRIES)
        try:
            return Path(shelf.fetch(file, downloader=_verified(verify, timeout)))
        except (requests.RequestException, TimeoutError, ValueError) as error:
            failures.append(f"{urlsplit(mirror).netloc}: {_brief(error)}")
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
    raise DownloadError(f"{file} from {', '.join(failures)}")


def _verified(verify: Callable[[Path], object], timeout: float) -> Downloader:
    http = pooch.HTTPDownloader(progressbar=True, timeout=timeout)

    def fetch(url: str, output: str, caller: object) -> None:
        _patiently(lambda: http(url, output, caller), Path(output), timeout)
        verify(Path(output))

    return fetch


def _patiently(work: Callable[[], None], output: Path, timeout: float) -> None:
    """Do `work` while `output` keeps growing; TimeoutError after `timeout` s in which it does not.

    A socket's own timeout is not enough: it starts anew for every address of a host and for every
    byte that trickles in, and does not cover the look-up of the name.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            if isinstance(error, requests.RequestException) and error.response is not None:
                error.response.close()  # pooch leaves the connection of a refusal open
            failure.append(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    size, since = 0, time.monotonic()
    while worker.is_alive():
        worker.join(min(0.1, timeout / 10))
        grown = os.path.getsize(output)
        if grown != size:
            size, since = grown, time.monotonic()
        elif worker.is_alive() and time.monotonic() - since > timeout:
            raise TimeoutError
    if failure and isinstance(failure[0], requests.Timeout):
        raise TimeoutError
    if failure:
        raise failure[0]


def _brief(error: Exception) -> str:
    """A few words for one mirror's failure; requests' own text is a paragraph of nested classes."""
    if isinstance(error, TimeoutError):
        return "silent"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error) if isinstance(error, ValueError) else type(error).__name__
