"""Which backend the tests run on: pytest --backend numpy | standin | cupy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import standin.capture
import standin.cublas

from tinygan.backend import Backend, cublas, cupy_backend, get_backend
from tinygan.errors import BackendError


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("numpy", "standin", "cupy"),
        default="numpy",
        help="numpy; cupy, on a real device; standin, CuPy's code on arrays that pretend",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--backend") == "cupy":
        try:
            get_backend("cupy")
        except BackendError as error:
            pytest.exit(f"--backend cupy: {error}", returncode=2)


def pytest_report_header(config: pytest.Config) -> str:
    name = config.getoption("--backend")
    return f"backend: {get_backend('cupy').device if name == 'cupy' else name}"


def _pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """CupyBackend imports the stand-in as its cupy, and finds its cuBLAS."""
    standin.capture.reset()
    monkeypatch.setattr(cupy_backend, "import_module", lambda name: standin)
    monkeypatch.setattr(cublas, "load", standin.cublas.library)


@pytest.fixture
def cupy_standin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backend]:
    """A function dtype -> CupyBackend over the stand-in, which is its `cupy` during the test."""
    _pretend(monkeypatch)
    return lambda dtype="float32": get_backend("cupy", dtype)


@pytest.fixture
def open_backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Backend]:
    """A function dtype -> the backend chosen on the command line."""
    name = request.config.getoption("--backend")
    if name == "standin":
        _pretend(monkeypatch)
        name = "cupy"
    return lambda dtype="float32": get_backend(name, dtype)


@pytest.fixture
def open_device(request: pytest.FixtureRequest) -> Callable[..., Backend]:
    """A function dtype -> CupyBackend: over the device of `--backend cupy`, else the stand-in."""
    real = request.config.getoption("--backend") == "cupy"
    fixture: Callable[..., Backend] = request.getfixturevalue(
        "open_backend" if real else "cupy_standin"
    )
    return fixture


@pytest.fixture
def backend(open_backend: Callable[..., Backend]) -> Backend:
    """The chosen backend in float32."""
    return open_backend("float32")


@pytest.fixture
def backend64(open_backend: Callable[..., Backend]) -> Backend:
    """The chosen backend in float64."""
    return open_backend("float64")
