"""Is a gradient right? Central differences, and the battery that every layer here goes through.

    from tinygan.gradcheck import check_layer
    check_layer(MyLayer(3, 4), input_shape=(3,))

returns nothing if all is well, else raises a GradientError that names the layer, the pass, the
tensor, the error and the entry. Derivation: docs/gradient-checking.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import Array, Backend, get_backend
from tinygan.nn.cache import Cache
from tinygan.nn.layer import Layer, Shape
from tinygan.nn.network import Network
from tinygan.nn.sequential import Sequential
from tinygan.noise import Noise

Host = NDArray[np.float64]
Arrays = dict[str, Host]  # "pass: tensor" -> values

PASSES = ("backward", "jvp", "jvp_backward")
TOLERANCE = 1e-6  # of central differences in float64
SAME = 1e-11  # of two ways to compute the same thing: rounding alone
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
            _moving(network, view, loss),
            to_host(view),
            gradient(path),
        )
        for path, view in network.named_parameters().items()
    }
    return check_gradients(parts, entries=entries)


def check_layer(
    layer: Layer,
    input_shape: Shape,
    *,
    batch: int = 3,
    train: Sequence[bool] = (True, False),
    passes: Sequence[str] = PASSES,
    tolerance: float = TOLERANCE,
    backend: str | Callable[[str], Backend] = "numpy",
    seed: int = 0,
    entries: int = 100,
    condition: Any = None,
) -> None:
    """Put `layer`, for inputs (batch, *input_shape), through every rule that layers here keep.

    - backward, jvp and the reverse of the jvp agree with float64 central differences, for x, t
      and every parameter; <u, J t> = <Jᵀu, t>; at a tie, jvp is one of the possible derivatives
    - every pass repeats itself, other call sites do not disturb it, and a used one is like new
    - gradients are added, `param_grads` and `input_grad` only leave things out
    - what `needs` does not name may be overwritten after forward, in training
    - dtype and shape are kept; arguments, parameters and running statistics are not written to

    `train` lists the modes to try. A pass not in `passes` must refuse by a TypeError or a
    NotImplementedError. `backend` is a name or a function dtype -> Backend. The layer itself is
    copied, not touched; its parameters are moved at random off their initial values. Of larger
    tensors, `entries` entries are tried: check a narrow layer, which is quick and complete.
    `condition`, integers (batch,), are the labels that a Condition layer finds at its call site.
    """
    rest = (passes, tolerance, backend, seed, entries, condition)
    for mode in train:
        try:
            _Battery(layer, input_shape, batch, mode, *rest).run()
        except NotImplementedError as error:
            words = str(error) or "a pass is not there"
            hint = "passes= says which of backward, jvp and jvp_backward there are"
            raise GradientError(f"{layer}: {words}; {hint}") from error


# ---- central differences -----------------------------------------------------------------------


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
        expected[doubt] = _nearer(got[doubt], expected[doubt], again)
    places = [tuple(map(int, np.unravel_index(i, x.shape))) for i in index]
    return _compare(name, got, expected, tolerance, floor, places)


def _nearer(got: Host, first: Host, second: Host) -> Host:
    return np.where(np.abs(got - second) < np.abs(got - first), second, first)


def _compare(
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


def _moving(network: Network, view: Array, loss: Callable[[], float]) -> Callable[[Any], float]:
    """loss as a function of one parameter, which is put back afterwards."""

    before = view.copy()

    def f(value: Any) -> float:
        view[...] = network.backend.from_host(value)
        try:
            return loss()
        finally:
            view[...] = before

    return f


# ---- the battery -------------------------------------------------------------------------------


class _Battery:
    """One layer in one mode; `x`, `t`, `dy`, `dty` are what all its passes are asked about."""

    def __init__(
        self,
        layer: Layer,
        input_shape: Shape,
        batch: int,
        train: bool,
        passes: Sequence[str],
        tolerance: float,
        backend: str | Callable[[str], Backend],
        seed: int,
        entries: int,
        condition: Any = None,
    ) -> None:
        if unknown := set(passes) - set(PASSES):
            raise ValueError(f"unknown passes {sorted(unknown)}: choose among {PASSES}")
        self.layer, self.input_shape, self.train = layer, input_shape, train
        self.passes, self.tolerance, self.entries = passes, tolerance, entries
        self.backend, self.seed, self.condition = backend, seed, condition
        self.who = f"{layer}, {'training' if train else 'evaluation'}"
        self.net, self.noise = self.network("float64")
        rng = np.random.default_rng(seed)
        shape_x, shape_y = (batch, *input_shape), (batch, *self.net.output_shape)
        # Off zero, where activations have their kinks.
        self.x, self.other_x = (
            rng.uniform(0.1, 1.0, shape_x) * rng.choice([-1.0, 1.0], shape_x) for _ in range(2)
        )
        self.t, self.dy, self.dty = (rng.standard_normal(s) for s in (shape_x, shape_y, shape_y))

    def run(self) -> None:
        # Rules first that, when broken, would make every later message misleading.
        for rule in (self.touches_nothing, self.refuses, self.agrees_with_differences):
            rule()
        for rule in (self.is_adjoint, self.adds, self.repeats, self.is_isolated, self.keeps_dtype):
            rule()
        self.couples_as_it_says()
        if self.train:
            self.needs_what_it_says()
        if not isinstance(self.layer, Sequential):  # chains of kinks may take any derivative
            self.chooses_at_ties()

    # ---- networks, call sites and passes -------------------------------------------------------

    def network(self, dtype: str, constant: float | None = None) -> tuple[Network, Noise]:
        """The layer alone in a network, its parameters off the values that hide mistakes."""
        made = get_backend(self.backend, dtype) if isinstance(self.backend, str) else None
        backend = made or self.backend(dtype)  # type: ignore[operator]
        noise = Noise(self.seed, backend, step=1)
        net = Network(copy.deepcopy(self.layer), self.input_shape, backend, "layer", noise)
        rng = np.random.default_rng(self.seed + 1)
        for flat in (net.parameters, net.statistics):
            flat += backend.from_host(rng.uniform(-0.5, 0.5, flat.shape))
        if constant is not None:
            net.parameters.fill(constant)
        return net, noise

    def site(self, check: bool = False, net: Network | None = None) -> Cache:
        self.noise.step = 1
        noise = self.noise if net is None else Noise(self.seed, net.backend, step=1)
        return (net or self.net).cache("site", train=self.train, noise=noise, check=check)

    def forward(self, net: Network, x: Any, site: Cache) -> Array:
        """net's output for x; its labels, if any, are others for the other input."""
        if self.condition is not None:
            labels = self.condition[:: -1 if x is self.other_x else 1]
            site.condition = net.backend.from_host(np.resize(labels, len(x)))
        return net.forward(net.backend.from_host(x), site)

    def ask(
        self, site: Cache, x: Any = None, t: Any = None, net: Network | None = None
    ) -> dict[str, Any]:
        """Every pass, after a forward pass here if x is given: "pass: tensor" -> NumPy array."""
        net = net or self.net
        answers: dict[str, Any] = {}
        if x is not None:
            answers["forward: y"] = self.host(net, self.forward(net, x, site))
        dy = net.backend.from_host(self.dy)
        t = net.backend.from_host(self.t if t is None else t)
        if "backward" in self.passes:
            net.gradients.fill(0)
            answers["backward: dx"] = self.host(net, net.backward(dy, site))
            answers |= self.gradients(net, "backward")
        if "jvp" in self.passes:
            answers["jvp: ty"] = self.host(net, net.jvp(t, site))
        return answers | self.ask_reverse(site, net)

    def ask_reverse(self, site: Cache, net: Network) -> dict[str, Any]:
        """jvp_backward, of the last jvp with this cache, with dy and without."""
        answers: dict[str, Any] = {}
        if "jvp_backward" not in self.passes:
            return answers
        dy, dty = net.backend.from_host(self.dy), net.backend.from_host(self.dty)
        for label, seed in [("jvp_backward", dy), ("jvp_backward with dy=None", None)]:
            net.gradients.fill(0)
            dx, dt = net.jvp_backward(seed, dty, site)
            answers[f"{label}: dx"] = 0.0 * self.t if dx is None else self.host(net, dx)
            answers[f"{label}: dt"] = self.host(net, dt)
            answers |= self.gradients(net, label)
        return answers

    def gradients(self, net: Network, label: str) -> dict[str, Any]:
        return {
            f"{label}: {path}{name}": self.host(net, layer.views["d" + name])
            for path, layer in net.layers()
            for name in layer.parameters
        }

    def host(self, net: Network, array: Array) -> Any:
        net.backend.check(array, f"{self.who}: what a pass returns")
        if array.dtype != net.backend.dtype:
            raise GradientError(
                f"{self.who}: a pass returns {array.dtype} on a {net.backend.dtype} backend"
            )
        return net.backend.to_host(array)

    def same(self, rule: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        self.close(rule, got, expected, SAME)

    def close(
        self, rule: str, got: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float
    ) -> None:
        whole = max((float(np.abs(a).max(initial=0.0)) for a in expected.values()), default=0.0)
        for name, value in got.items():
            if name in expected:
                message = f"{self.who}: {rule}: {name}"
                _compare(message, value, expected[name], tolerance, FLOOR * whole)

    # ---- the rules -----------------------------------------------------------------------------

    def touches_nothing(self) -> None:
        """Arguments, parameters and running statistics stay as they are; shapes are right."""
        net, site = self.net, self.site()
        x, t, dy, dty = map(net.backend.from_host, (self.x, self.t, self.dy, self.dty))
        arrays = {"x": x, "t": t, "dy": dy, "dty": dty}
        arrays |= {"the parameters": net.parameters, "the running statistics": net.statistics}
        before = {name: net.backend.to_host(array) for name, array in arrays.items()}

        def look(label: str, result: Array, shape: Shape) -> None:
            if result is not None and result.shape != shape:
                raise GradientError(
                    f"{self.who}: {label} returns shape {result.shape}, expected {shape}"
                )
            for name, array in arrays.items():
                if not np.array_equal(net.backend.to_host(array), before[name]):
                    raise GradientError(f"{self.who}: {label} writes to {name}")

        if self.condition is not None:
            site.condition = arrays["the labels"] = net.backend.from_host(self.condition)
            before["the labels"] = self.condition
        look("forward", net.forward(x, site), self.dy.shape)
        if "backward" in self.passes:
            look("backward", net.backward(dy, site), x.shape)
        if "jvp" in self.passes:
            look("jvp", net.jvp(t, site), self.dy.shape)
        if "jvp_backward" in self.passes:
            for given in (dy, None):
                dx, dt = net.jvp_backward(given, dty, site)
                look("jvp_backward", dx, x.shape)
                look("jvp_backward", dt, x.shape)

    def refuses(self) -> None:
        """A pass that does not exist says so, rather than return something."""
        net, site = self.net, self.site()
        dy, t = net.backend.from_host(self.dy), net.backend.from_host(self.t)
        self.forward(net, self.x, site)
        if "jvp" in self.passes:
            net.jvp(t, site)
        calls: dict[str, Callable[[], Any]] = {
            "backward": lambda: net.backward(dy, site),
            "jvp": lambda: net.jvp(t, site),
            "jvp_backward": lambda: net.jvp_backward(dy, dy, site),
        }
        for name in PASSES:
            if name in self.passes:
                continue
            try:
                calls[name]()
            except (TypeError, NotImplementedError):
                continue
            raise GradientError(f"{self.who}: {name} was to refuse, and returned something")

    def agrees_with_differences(self) -> None:
        answers, site = self.ask(self.site(), self.x), self.site()
        if "backward" in self.passes:
            self.differences("backward", answers, site, self.dy, None)
        if "jvp" in self.passes:
            self.jvp_differences(answers["jvp: ty"], site)
        if "jvp_backward" in self.passes:
            self.differences("jvp_backward", answers, site, self.dy, self.dty)
            nothing = 0.0 * self.dy
            self.differences("jvp_backward with dy=None", answers, site, nothing, self.dty)

    def differences(
        self, label: str, answers: Mapping[str, Any], site: Cache, dy: Any, dty: Any
    ) -> None:
        """Compare with differences of <dy, y> + <dty, J t> by x, t and every parameter."""
        net = self.net

        def value(x: Any, t: Any) -> float:
            y = self.forward(net, x, site)
            total = np.sum(dy * net.backend.to_host(y))
            if dty is not None:
                ty = net.jvp(net.backend.from_host(t), site)
                total += np.sum(dty * net.backend.to_host(ty))
            return float(total)

        parts: dict[str, Any] = {"dx": (lambda x: value(x, self.t), self.x)}
        if dty is not None:
            parts["dt"] = (lambda t: value(self.x, t), self.t)
        for name, view in net.named_parameters().items():
            moving = _moving(net, view, lambda: value(self.x, self.t))
            parts[name] = (moving, net.backend.to_host(view))
        check_gradients(
            {
                f"{self.who}: {label}: {name}": (*part, answers[f"{label}: {name}"])
                for name, part in parts.items()
            },
            tolerance=self.tolerance,
            entries=self.entries,
        )

    def moved(self, net: Network, site: Cache, x: Any, h: float) -> Any:
        return net.backend.to_host(self.forward(net, x + h * self.t, site))

    def jvp_differences(self, ty: Any, site: Cache) -> None:
        best: Any = None
        for h in STEPS:
            up, down = (self.moved(self.net, site, self.x, s * h) for s in (1, -1))
            difference = (up - down) / (2.0 * h)
            best = difference if best is None else _nearer(ty, best, difference)
        _compare(f"{self.who}: jvp: ty", ty, best, self.tolerance, FLOOR * np.abs(self.t).max())

    def is_adjoint(self) -> None:
        """<dy, J t> = <Jᵀdy, t>, to rounding: [vjp.4]."""
        if "jvp" not in self.passes or "backward" not in self.passes:
            return
        self.adjoint("adjoint identity", self.ask(self.site(), self.x))

    def adjoint(self, rule: str, answers: Mapping[str, Any]) -> None:
        left, right = self.dy * answers["jvp: ty"], answers["backward: dx"] * self.t
        floor = float(np.abs(left).sum() + np.abs(right).sum())
        name = f"{self.who}: {rule} <dy, jvp(t)> = <backward(dy), t>"
        _compare(name, np.sum(right)[None], np.sum(left)[None], SAME, floor)

    def adds(self) -> None:
        """Parameter gradients are added to; the two switches only leave things out."""
        if "backward" not in self.passes:
            return
        net, site = self.net, self.site()
        dy, zero = net.backend.from_host(self.dy), 0.0 * self.x
        want = {k: v for k, v in self.ask(site, self.x).items() if k.startswith("backward")}
        calls: dict[str, tuple[dict[str, bool], float]] = {
            "a second backward adds to the gradients": ({}, 2.0),
            "input_grad=False leaves only dx out": ({"input_grad": False}, 2.0),
            "param_grads=False leaves the gradients alone": ({"param_grads": False}, 1.0),
        }
        for rule, (switches, times) in calls.items():
            net.gradients.fill(0)
            net.backward(dy, site)
            dx = net.backward(dy, site, **switches)
            asked_for_dx = switches.get("input_grad", True)
            got = {"backward: dx": self.host(net, dx) if asked_for_dx else zero}
            expected = {"backward: dx": want["backward: dx"] if asked_for_dx else zero}
            expected |= {k: times * v for k, v in want.items() if k != "backward: dx"}
            self.same(rule, got | self.gradients(net, "backward"), expected)
        if "jvp_backward" in self.passes:
            self.jvp_backward_adds(site)

    def jvp_backward_adds(self, site: Cache) -> None:
        net, want = self.net, self.ask(site, self.x)
        dy, dty = net.backend.from_host(self.dy), net.backend.from_host(self.dty)
        net.gradients.fill(0)
        for param_grads in (True, True, False):
            net.jvp_backward(dy, dty, site, param_grads)
        twice = {name: 2.0 * value for name, value in want.items()}
        rule = "gradients are added, and not with param_grads=False"
        self.same(rule, self.gradients(net, "jvp_backward"), twice)

    def repeats(self) -> None:
        """The same again from the same call site, a used one, and one that poisons ended loans."""
        want = self.ask(self.site(), self.x)
        site = self.site()
        self.same("a second call site of the same name", self.ask(site, self.x), want)
        self.same("backward passes repeated after one forward", self.ask(site), want)
        longer = np.concatenate([self.other_x, self.other_x[:1]])
        self.forward(self.net, longer, site)
        self.forward(self.net, self.other_x, site)
        self.same("a call site used before for other inputs", self.ask(site, self.x), want)
        try:
            checked = self.site(check=True)
            self.forward(self.net, self.other_x, checked)
            self.same("Cache(check=True)", self.ask(checked, self.x), want)
            self.same("Cache(check=True), passes repeated", self.ask(checked), want)
        except RuntimeError as error:
            raise GradientError(f"{self.who}: Cache(check=True): {error}") from error
        self.net.update_statistics(site)

    def needs_what_it_says(self) -> None:
        """What the layer does not need of a forward pass may be lost before the others: [vjp.7]."""
        net, site = self.net, self.site()
        want = self.ask(self.site(), self.x)
        x, needs = net.backend.from_host(self.x), net.body.needs(site)
        if self.condition is not None:
            site.condition = net.backend.from_host(self.condition)
        y = net.forward(x, site)
        rule = f"needs() says {needs!r}, the rest of x and y was overwritten"
        if "x" not in needs:
            x.fill(float("nan"))
            self.same(rule, {"forward: y": self.host(net, y)}, want)
        if "y" not in needs:
            y.fill(float("nan"))
        self.same(rule, self.ask(site), want)

    def is_isolated(self) -> None:
        """Another call site, other noise or another layer's scratch do not disturb this one."""
        net, rule = self.net, "two call sites interleaved"
        want = self.ask(self.site(), self.x)
        site, other = self.site(), self.site()
        y = self.forward(net, self.x, site)
        self.noise.step = 2  # whoever draws again in backward will get something else
        self.ask(other, self.other_x, t=2.0 * self.t)
        self.same(rule, {"forward: y": self.host(net, y)}, want)
        self.same(rule, self.ask(site), want)
        if "jvp" in self.passes:  # the tangent that `site` has seen is still its own
            ty = net.jvp(net.backend.from_host(self.t), site)
            net.jvp(net.backend.from_host(2.0 * self.t), other)
            self.same(rule, {"jvp: ty": self.host(net, ty)}, want)
            self.same(rule, self.ask_reverse(site, net), want)

    def couples_as_it_says(self) -> None:
        """Unless it `couples_samples`, an output hears of its own sample alone: [alg.8]."""
        if any(layer.couples_samples for _, layer in self.net.layers()):
            return
        y = self.host(self.net, self.forward(self.net, self.x, self.site()))
        for i in (0, len(y) - 1):
            others = self.other_x.copy()
            others[i] = self.x[i]
            moved = self.host(self.net, self.forward(self.net, others, self.site()))
            rule = f"couples_samples is False, and all samples but number {i} were changed"
            self.same(rule, {"forward: y": moved[i]}, {"forward: y": y[i]})

    def keeps_dtype(self) -> None:
        """float32 in, float32 out (`host` looks at each array), and nearly the same numbers."""
        net, _ = self.network("float32")
        got = self.ask(self.site(net=net), self.x, net=net)
        self.close("float32 beside float64", got, self.ask(self.site(), self.x), 1e-3)

    def chooses_at_ties(self) -> None:
        """At x = 0 with equal parameters, jvp lies between the derivatives to both sides.

        Where several pieces of a maximum tie, one of them counts, and not all of them.
        """
        if "jvp" not in self.passes or "backward" not in self.passes:
            return
        net, _ = self.network("float64", constant=0.5)
        h, zero, site = 1e-7, 0.0 * self.x, self.site(net=net)
        with np.errstate(all="ignore"):  # not every layer is defined there
            down, here, up = (self.moved(net, site, zero, s * h) for s in (-1, 0, 1))
            if not (np.isfinite(here).all() and np.isfinite(up - down).all()):
                return
            answers = self.ask(site, zero, net=net)
        sides = np.stack([(here - down) / h, (up - here) / h])
        ty = answers["jvp: ty"]
        between = np.clip(ty, sides.min(axis=0), sides.max(axis=0))
        _compare(f"{self.who}: at a tie: jvp: ty", ty, between, 1e-3, float(np.abs(sides).max()))
        self.adjoint("at a tie:", answers)
