"""The battery: the rules that every layer here keeps, each tried on the layer it is given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinygan.backend import Array, Backend, get_backend
from tinygan.gradcheck.differences import (
    FLOOR,
    STEPS,
    TOLERANCE,
    GradientError,
    check_gradients,
    compare,
    moving,
    nearer,
)
from tinygan.nn.cache import Cache
from tinygan.nn.layer import Layer, Shape
from tinygan.nn.network import Network
from tinygan.nn.sequential import Sequential
from tinygan.noise import Noise

PASSES = ("backward", "jvp", "jvp_backward")
SAME = 1e-11  # of two ways to compute the same thing: rounding alone


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
                compare(message, value, expected[name], tolerance, FLOOR * whole)

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
            part = moving(net, view, lambda: value(self.x, self.t))
            parts[name] = (part, net.backend.to_host(view))
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
            best = difference if best is None else nearer(ty, best, difference)
        compare(f"{self.who}: jvp: ty", ty, best, self.tolerance, FLOOR * np.abs(self.t).max())

    def is_adjoint(self) -> None:
        """<dy, J t> = <Jᵀdy, t>, to rounding: [vjp.4]."""
        if "jvp" not in self.passes or "backward" not in self.passes:
            return
        self.adjoint("adjoint identity", self.ask(self.site(), self.x))

    def adjoint(self, rule: str, answers: Mapping[str, Any]) -> None:
        left, right = self.dy * answers["jvp: ty"], answers["backward: dx"] * self.t
        floor = float(np.abs(left).sum() + np.abs(right).sum())
        name = f"{self.who}: {rule} <dy, jvp(t)> = <backward(dy), t>"
        compare(name, np.sum(right)[None], np.sum(left)[None], SAME, floor)

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
        compare(f"{self.who}: at a tie: jvp: ty", ty, between, 1e-3, float(np.abs(sides).max()))
        self.adjoint("at a tie:", answers)
