"""Central differences of a function beside the gradient that is claimed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import Array
from tinygan.nn.network import Network

Host = NDArray[np.float64]

TOLERANCE = 1e-6  # of central differences in float64
# Step widths of the differences. The first balances truncation h² against rounding 1e-16 / h. A
# difference across a kink is wrong at a wide step and right at a narrow one; a wrong gradient is
# wrong at all of them.
STEPS = (1e-5, 1e-6, 1e-7)
# An entry counts as zero beside a gradient a thousand times as large: the bias in front of a
# BatchNorm has no gradient at all, and its rounding noise must not be divided by itself.
FLOOR = 1e-3


class GradientError(AssertionError):
    """A gradient is wrong, or a layer breaks one of the rules; the message says which and where."""


def relative_error(got: Any, expected: Any, floor: float = 0.0) -> float:
    """max |got - expected| / max(max |expected|, floor): [check.2].

    Arrays of one shape; infinite if `got` holds a NaN or an infinity, 0 if both are all zero.
    """
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return float("inf")
    difference = float(np.abs(got - expected).max(initial=0.0))
    scale = max(float(np.abs(expected).max(initial=0.0)), floor)
    return difference / scale if difference > 0.0 and scale > 0.0 else float(difference > 0.0)


def check_gradient(
    f: Callable[[Any], float],
    x: Any,
    grad: Any,
    *,
    name: str = "gradient",
    tolerance: float = TOLERANCE,
    floor: float = 0.0,
    entries: int = 200,
) -> float:
    """Compare `grad`, said to be df/dx, with central differences of f; return the relative error.

    f takes a float64 NumPy array of the shape of x and returns a number. Of a larger x, `entries`
    entries are tried. Raises GradientError if the error exceeds `tolerance`.
    """
    return check_gradients({name: (f, x, grad)}, tolerance=tolerance, floor=floor, entries=entries)


def check_gradients(
    parts: Mapping[str, tuple[Callable[[Any], float], Any, Any]],
    *,
    tolerance: float = TOLERANCE,
    floor: float = 0.0,
    entries: int = 200,
) -> float:
    """`check_gradient` for the parts (f, x, grad) of one gradient, by name.

    Each part's error is relative to its own largest entry, or to `FLOOR` times the largest entry
    of all parts where that is more. Returns the largest error.
    """
    tried = {}
    for name, (f, x, grad) in parts.items():
        x, grad = np.array(x, np.float64), np.asarray(grad, np.float64)
        if grad.shape != x.shape:
            raise GradientError(f"{name}: has shape {grad.shape}, expected {x.shape}")
        index = _some(x.size, entries)
        tried[name] = (f, x, index, grad.reshape(-1)[index], _differences(f, x, index, STEPS[0]))
    whole = max((np.abs(d).max(initial=0.0) for *_, d in tried.values()), default=0.0)
    floor = max(floor, FLOOR * float(whole))
    return max(
        (_settle(name, *part, tolerance, floor) for name, part in tried.items()), default=0.0
    )


def check_parameters(
    loss: Callable[[], float], network: Network, *, name: str = "loss", entries: int = 200
) -> float:
    """Compare `network.gradients`, as they stand, with differences of loss() by each parameter.

    For a network in float64. loss() computes a number anew from the network's parameters; they
    are moved one by one and put back. Returns the largest relative error.
    """
    to_host = network.backend.to_host
    layers = dict(network.layers())

    def gradient(path: str) -> Any:
        layer, _, parameter = path.rpartition(".")
        return to_host(layers[layer + "." if layer else ""].views["d" + parameter])

    parts = {
        f"{name}, {network.name} {path}": (
            moving(network, view, loss),
            to_host(view),
            gradient(path),
        )
        for path, view in network.named_parameters().items()
    }
    return check_gradients(parts, entries=entries)


def _some(size: int, entries: int) -> NDArray[np.int64]:
    if size <= entries:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, entries, replace=False))


def _differences(f: Callable[[Any], float], x: Host, index: Any, step: float) -> Host:
    """(f(x + h e) - f(x - h e)) / 2h for the entries `index` of x: [check.1]."""
    values, moved = np.empty(len(index)), x.copy()
    flat = moved.reshape(-1)
    for k, i in enumerate(index):
        here = float(flat[i])
        h = step * max(1.0, abs(here))
        flat[i] = here + h
        up = f(moved)
        flat[i] = here - h
        values[k] = (up - f(moved)) / (2.0 * h)  # [check.1]
        flat[i] = here
    return values


def _settle(
    name: str,
    f: Callable[[Any], float],
    x: Host,
    index: NDArray[np.int64],
    got: Host,
    expected: Host,
    tolerance: float,
    floor: float,
) -> float:
    """The relative error, doubtful entries tried again at narrower steps."""
    scale = max(float(np.abs(expected).max(initial=0.0)), floor)
    for step in STEPS[1:]:
        doubt = np.flatnonzero(np.abs(got - expected) > tolerance * scale)
        again = _differences(f, x, index[doubt], step)
        expected[doubt] = nearer(got[doubt], expected[doubt], again)
    places = [tuple(map(int, np.unravel_index(i, x.shape))) for i in index]
    return compare(name, got, expected, tolerance, floor, places)


def nearer(got: Host, first: Host, second: Host) -> Host:
    return np.where(np.abs(got - second) < np.abs(got - first), second, first)


def compare(
    name: str, got: Host, expected: Host, tolerance: float, floor: float, places: Any = None
) -> float:
    if got.shape != expected.shape:
        raise GradientError(f"{name} has shape {got.shape}, expected {expected.shape}")
    error = relative_error(got, expected, floor)  # [check.2]
    if error > tolerance:
        flat = np.abs(got - expected).reshape(-1)
        worst = int(np.where(np.isnan(flat), np.inf, flat).argmax())
        place = places[worst] if places else tuple(map(int, np.unravel_index(worst, got.shape)))
        raise GradientError(
            f"{name}: relative error {error:.2e} > {tolerance:.0e}, worst at {place}: "
            f"expected {expected.reshape(-1)[worst]:.9g}, got {got.reshape(-1)[worst]:.9g}"
        )
    return error


def moving(network: Network, view: Array, loss: Callable[[], float]) -> Callable[[Any], float]:
    """loss as a function of one parameter, which is put back afterwards."""

    before = view.copy()

    def f(value: Any) -> float:
        view[...] = network.backend.from_host(value)
        try:
            return loss()
        finally:
            view[...] = before

    return f
