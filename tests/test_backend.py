"""The backend chosen by --backend: every operation equals its plain form in interface.py."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import FLAVOURS, OPERATIONS, Plain, compare
from small_games import SMALL_GAMES, largest_difference

from tinygan.backend import Backend, get_backend
from tinygan.backend.cupy_backend import CupyBackend
from tinygan.backend.numpy_backend import BLOCK, NumpyBackend
from tinygan.errors import BackendError

# Boxes of memory and of draws, whose tests are in other places.
NOT_OPERATIONS = {
    "numbers",  # tests/test_graph.py
    "capture",
    "max_pool_backward",  # goes with max_pool
    "from_host",
    "to_host",
    "synchronise",
    "expect_convolutions",
    "check",
    "philox",
    "empty",
    "zeros",
    "empty_like",
    "empty_images",
    "rows",
    "scratch",
    "scratch_images",
    "workspace",
}

relaxed = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
shapes = {
    "seed": st.integers(0, 1 << 32),
    "n": st.integers(1, 70),
    "m": st.integers(1, 40),
    "flavour": st.sampled_from(FLAVOURS),
}


def test_every_operation_is_compared() -> None:
    functions = {name for name, _ in inspect.getmembers(Backend, inspect.isfunction)}
    operations = {name for name in functions if not name.startswith("_")}
    assert operations - NOT_OPERATIONS == OPERATIONS.keys()
    for kind in (NumpyBackend, CupyBackend):
        public = {name for name in vars(kind) if not name.startswith("_")}
        methods = {name for name in public if callable(getattr(kind, name))}
        methods.discard("set_numbers")  # for CuPy's captured steps alone
        assert methods <= operations, f"{kind.__name__} has operations that Backend does not name"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
@relaxed
@given(**shapes)
def test_an_operation_equals_its_plain_form(
    open_backend: Callable[..., Backend], name: str, dtype: str, **case: Any
) -> None:
    compare(name, open_backend(dtype), Plain(dtype), **case)


def test_optimisers_reach_the_end_of_long_arrays(open_backend: Callable[..., Backend]) -> None:
    for name in ("sgd", "adam"):
        for n in (BLOCK - 1, BLOCK, 2 * BLOCK + 1):
            compare(name, open_backend("float32"), Plain("float32"), 0, n, 1, "normal")


# ---- against formulas in higher precision ------------------------------------------------------


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_bce_on_logits_is_stable_at_extremes(backend: Backend, target: float) -> None:
    x = np.array([-1e4, -100, -20, -1, -1e-4, -0.0, 0.0, 1e-4, 1, 20, 100, 1e4])[:, None]
    out = backend.empty(x.shape)
    loss = backend.bce_logits(backend.from_host(x), target, out=out)
    softplus = np.logaddexp(0.0, x)
    expected = (softplus - x * target).mean()
    np.testing.assert_allclose(backend.to_host(loss), expected, rtol=3e-7)
    sigmoid = np.exp(-np.logaddexp(0.0, -x))
    slope = backend.to_host(out) * len(x)
    np.testing.assert_allclose(slope, sigmoid - target, rtol=1e-6, atol=1e-7)


def test_sigmoid_keeps_its_relative_precision_in_the_tails(backend: Backend) -> None:
    x = np.concatenate([np.linspace(-79, 79, 999), [-1e4, 1e4]])
    y = backend.to_host(backend.sigmoid(backend.from_host(x), out=backend.empty(x.shape)))
    x32 = x.astype(np.float32).astype(float)
    expected = np.exp(-np.logaddexp(0.0, -np.maximum(x32, -80.0)))
    np.testing.assert_allclose(y, expected, rtol=2e-6)
    assert y[-1] == 1.0


def far_from_zero(backend: Backend, rows: int) -> float:
    """How wrong the normalised values of columns are whose mean is 1000 times their spread."""
    x = (1000.0 + np.random.default_rng(0).standard_normal((rows, 40))).astype(np.float32)
    x_hat, y, stats = (backend.empty(shape) for shape in (x.shape, x.shape, (3, 40)))
    one, zero = backend.from_host(np.ones(40)), backend.zeros((40,))
    backend.batch_norm(backend.from_host(x), one, zero, 0.0, x_hat, y, stats)
    apart = x.astype(float) - x.mean(axis=0, dtype=float)
    return float(np.abs(backend.to_host(x_hat) - apart / x.std(axis=0, dtype=float)).max())


@pytest.mark.parametrize("rows", [64, 256, 257, 1100])
def test_batch_norm_of_columns_far_from_zero(backend: Backend, rows: int) -> None:
    """One rounding of a mean of 1000 is 3e-5."""
    assert far_from_zero(backend, rows) < 1e-3


class MeanOfSquares(NumpyBackend):
    def batch_norm(
        self, x: Any, gamma: Any, beta: Any, eps: float, x_hat: Any, y: Any, stats: Any
    ) -> None:
        stats[0], stats[1] = x.mean(axis=0), (x * x).mean(axis=0) - x.mean(axis=0) ** 2
        stats[2] = 1.0 / np.sqrt(np.maximum(stats[1], 1e-9) + eps)
        x_hat[...] = (x - stats[0]) * stats[2]


def test_a_variance_from_the_mean_of_squares_is_noticed() -> None:
    assert far_from_zero(MeanOfSquares("float32"), 64) > 0.1


def test_a_nan_stays_one(backend: Backend) -> None:
    """A hidden NaN would train on: the run could not stop and name where it arose."""
    x = backend.from_host(np.array([[np.nan], [1.0]]))
    out = backend.empty((2, 1))
    assert np.isnan(backend.to_host(backend.sigmoid(x, out=out))).tolist() == [[True], [False]]
    assert np.isnan(backend.to_host(backend.bce_logits(x, 0.0, out=out)))
    assert np.isnan(backend.to_host(out)).tolist() == [[True], [False]]
    h = backend.from_host(np.array([[[1.0, 1.0], [np.nan, 3.0], [2.0, 2.0]]]))
    y = backend.to_host(backend.maxout(h, out=backend.empty((1, 2))))
    np.testing.assert_array_equal(y, [[np.nan, 3.0]])


def test_the_sign_bit_decides_at_zero(backend: Backend) -> None:
    x = backend.from_host(np.array([-0.0, 0.0, -1e-30, 1e-30]))
    factor = backend.to_host(backend.leaky_factor(x, 0.25, out=backend.empty((4,))))
    np.testing.assert_array_equal(factor, [0.25, 1.0, 0.25, 1.0])


def test_the_first_of_equal_pieces_takes_the_gradient(backend: Backend) -> None:
    h = backend.from_host(np.array([[[0.0, 5.0], [-0.0, 5.0], [0.0, 6.0]]]))
    y = backend.maxout(h, out=backend.empty((1, 2)))
    dy = backend.from_host(np.array([[2.0, 3.0]]))
    out = backend.to_host(backend.maxout_backward(dy, h, y, out=backend.empty((1, 3, 2))))
    np.testing.assert_array_equal(out, [[[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]]])


# ---- whole steps -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_GAMES)
def test_steps_agree_with_numpy_in_float64(open_backend: Callable[..., Backend], name: str) -> None:
    """Ten steps, past the end of an epoch; float64 to rounding, float32 nearly."""
    make, reference = SMALL_GAMES[name], get_backend("numpy", "float64")
    assert largest_difference(make(open_backend("float64")), make(reference), 10) < 1e-10
    assert largest_difference(make(open_backend("float32")), make(reference), 10) < 1e-3


@pytest.mark.parametrize("name", SMALL_GAMES)
def test_two_runs_are_bitwise_equal(open_backend: Callable[..., Backend], name: str) -> None:
    first, second = (SMALL_GAMES[name](open_backend("float32")) for _ in range(2))
    assert largest_difference(first, second, 5) == 0.0


# ---- memory ------------------------------------------------------------------------------------


def test_copies_between_host_and_backend(backend: Backend) -> None:
    host = np.arange(6.0).reshape(2, 3)
    there = backend.from_host(host)
    assert there.dtype == np.float32
    assert backend.from_host(np.arange(3)).dtype == np.int64
    assert backend.from_host(np.arange(3, dtype=np.uint8)).dtype == np.uint8
    assert backend.from_host(host, dtype="float64").dtype == np.float64
    host[0, 0] = 7.0
    back = backend.to_host(there)
    assert isinstance(back, np.ndarray)
    back[0, 1] = 9.0
    np.testing.assert_array_equal(backend.to_host(there), [[0, 1, 2], [3, 4, 5]])
    assert backend.to_host(there[0, 2]).shape == ()
    backend.synchronise()


def test_scratch_is_the_same_memory_for_the_same_key(backend: Backend) -> None:
    a = backend.scratch("a", (3,))
    a[...] = 5.0
    b = backend.scratch("a", (3,))
    np.testing.assert_array_equal(backend.to_host(b), [5.0, 5.0, 5.0])
    assert backend.scratch("a", (4,)) is not a
    assert backend.scratch("b", (3,)) is not a
    assert backend.scratch("a", (3,), "float64").dtype == np.float64


class ForeignTensor:
    """As from another library."""


ForeignTensor.__module__ = "torch"


@pytest.mark.parametrize("foreign", [[1.0], (1.0,), 1.0, None, ForeignTensor()])
def test_foreign_arrays_are_refused(backend: Backend, foreign: Any) -> None:
    kind = "numpy.ndarray" if backend.name == "numpy" else "cupy.ndarray"
    with pytest.raises(TypeError, match=f"the input must be a {kind} for the {backend.name}"):
        backend.check(foreign, "the input")
    backend.check(backend.zeros((2,)), "the input")


# ---- the door ----------------------------------------------------------------------------------


def test_unknown_names_are_refused() -> None:
    with pytest.raises(
        BackendError, match=r"unknown backend 'jax': choose one of auto, numpy, cupy"
    ):
        get_backend("jax")
    with pytest.raises(BackendError, match="unknown dtype 'float16': choose float32 or float64"):
        get_backend("numpy", "float16")


def test_tf32_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for name in ("numpy", "auto"):
        with pytest.raises(BackendError, match=r"^tf32 is a mode of NVIDIA tensor cores: take .*"):
            get_backend(name, precision="tf32")
    with pytest.raises(BackendError, match="the package cupy is not installed"):
        get_backend("auto", precision="tf32")
    for name in ("numpy", "auto", "cupy"):
        with pytest.raises(BackendError, match="tf32 is for products of float32"):
            get_backend(name, "float64", "tf32")
    with pytest.raises(BackendError, match="unknown precision 'float16': choose float32 or tf32"):
        get_backend("numpy", "float32", "float16")
    assert get_backend("auto", precision="float32").name == "numpy"


def test_the_backend_says_what_it_is() -> None:
    backend = get_backend("numpy", "float64")
    assert (backend.name, backend.dtype) == ("numpy", np.float64)
    assert backend.reason == "numpy, as asked"
    assert backend.device


# ---- negative controls: operations that are wrong in one place ---------------------------------


class LastPieceWins(NumpyBackend):
    def maxout_backward(self, dy: Any, h: Any, y: Any, out: Any) -> Any:
        return super().maxout_backward(dy, h[:, ::-1], y, out[:, ::-1])[:, ::-1]


class ZeroIsPositive(NumpyBackend):
    def leaky_factor(self, x: Any, slope: float, out: Any) -> Any:
        out[...] = np.where(x >= 0, 1.0, slope)
        return out


class ForgetsTheRest(NumpyBackend):
    def adam(self, theta: Any, grad: Any, m: Any, v: Any, *scalars: float) -> None:
        whole = len(theta) // 8 * 8
        super().adam(theta[:whole], grad[:whole], m[:whole], v[:whole], *scalars)


class SkipsARow(NumpyBackend):
    def column_sums(self, x: Any, out: Any) -> Any:
        return super().column_sums(x[: max(1, len(x) - 1)], out)


class AddsTwice(NumpyBackend):
    def affine(self, x: Any, W: Any, b: Any, out: Any) -> Any:
        return super().affine(x, W, 2 * b, out)


class ForgetsTheLabel(NumpyBackend):
    def bce_logits(self, x: Any, target: Any, out: Any, share: float = 1.0) -> Any:
        return super().bce_logits(x, 1.0, out, share)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("maxout_backward", LastPieceWins),
        ("leaky_factor", ZeroIsPositive),
        ("adam", ForgetsTheRest),
        ("column_sums", SkipsARow),
        ("batch_norm", SkipsARow),
        ("affine", AddsTwice),
        ("bce_logits", ForgetsTheLabel),
    ],
)
def test_a_wrong_operation_is_found(name: str, wrong: type[NumpyBackend], dtype: str) -> None:
    def compare_many() -> None:
        for seed in range(20):
            compare(name, wrong(dtype), Plain(dtype), seed, 9, 7, "ties")

    with pytest.raises(AssertionError, match=re.escape(name)):
        compare_many()
