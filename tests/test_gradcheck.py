"""The battery passes right layers and fails each planted mistake, naming pass and tensor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinygan import Network, get_backend
from tinygan.gradcheck import (
    GradientError,
    check_gradient,
    check_gradients,
    check_layer,
    check_parameters,
    relative_error,
)
from tinygan.nn import BatchNorm, Dense, Dropout, Layer, LeakyReLU, Maxout, ReLU, Sequential, Tanh

NO_REVERSE = ("backward", "jvp")  # BatchNorm refuses the reverse of its jvp


# ---- differences and errors --------------------------------------------------------------------


def test_relative_error_has_a_floor_and_is_infinite_for_nan():
    assert relative_error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert relative_error([1e-9], [0.0], floor=1.0) == 1e-9
    assert relative_error([0.0], [0.0]) == 0.0
    assert relative_error([1e-30], [0.0]) == 1.0
    assert relative_error([math.nan, 1.0], [0.0, 1.0]) == math.inf
    assert relative_error([math.inf], [math.inf]) == math.inf


def test_check_gradient_returns_the_error_of_a_right_gradient():
    x = np.random.default_rng(0).standard_normal((3, 4))
    assert check_gradient(lambda x: float(np.sum(x**3)), x, 3 * x**2) < 1e-8


def test_check_gradient_names_the_entry():
    x = np.arange(6.0).reshape(2, 3) + 1
    wrong = 2 * x
    wrong[1, 2] += 0.5
    with pytest.raises(GradientError, match=r"of squares: .*\(1, 2\): expected 12.*, got 12.5"):
        check_gradient(lambda x: float(np.sum(x * x)), x, wrong, name="of squares")


def test_check_gradient_names_an_entry_of_a_sample_of_a_large_array():
    x = np.ones((40, 50))
    with pytest.raises(GradientError, match=r"\(\d+, \d+\): expected (2|1\.9999)"):
        check_gradient(lambda x: float(np.sum(x * x)), x, 0 * x, entries=10)


def test_check_gradient_refuses_another_shape_and_nan():
    x = np.ones(3)
    with pytest.raises(GradientError, match=r"has shape \(2,\), expected \(3,\)"):
        check_gradient(lambda x: float(x.sum()), x, np.ones(2))
    with pytest.raises(GradientError, match="got nan"):
        check_gradient(lambda x: float(x.sum()), x, np.array([1.0, math.nan, 1.0]))


@pytest.mark.parametrize("distance", [1e-6, 3e-6, 9e-6])
def test_a_kink_inside_the_wide_step_is_no_error(distance):
    x = np.array([distance])
    assert check_gradient(lambda x: float(np.maximum(x, 0).sum()), x, np.array([1.0])) < 1e-6
    with pytest.raises(GradientError):
        check_gradient(lambda x: float(np.maximum(x, 0).sum()), x, np.array([0.5]))


def test_the_floor_is_tied_to_the_whole_gradient():
    """A tensor without gradient is not judged by the ratio of two rounding errors."""
    one, noise = np.ones(1), np.array([1e-13])

    def alone(x):
        return float(1e-14 * x.sum())

    with pytest.raises(GradientError):
        check_gradient(alone, one, noise)
    check_gradients({"W": (lambda x: float(x.sum()), one, one), "b": (alone, one, noise)})


def test_check_parameters_names_network_and_parameter():
    backend = get_backend("numpy", "float64")
    net = Network(Sequential(Dense(3, 2), Tanh()), (3,), backend, "D")
    x, site = np.ones((2, 3)), net.cache("x")

    def loss():
        return float(net.forward(x, site).sum())

    loss()
    net.backward(np.ones((2, 2)), site)
    before = net.parameters.copy()
    assert check_parameters(loss, net) < 1e-6
    np.testing.assert_array_equal(net.parameters, before)
    net.body.layers[0].db += 1.0
    with pytest.raises(GradientError, match=r"^loss, D 0\.b: relative error"):
        check_parameters(loss, net)


# ---- a user's own layer ------------------------------------------------------------------------


class Square(Layer):
    """y = x², written as a user would."""

    def forward(self, x, cache):
        cache.keep("x", x)
        return x * x

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return 2 * cache.kept("x") * dy


class SquareAndJvp(Square):
    def jvp(self, t, cache):
        cache.keep("t", t)
        return 2 * cache.kept("x") * t

    def jvp_backward(self, dy, dty, cache, param_grads=True):
        dx = 2 * cache.kept("t") * dty
        return (dx if dy is None else dx + self.backward(dy, cache)), self.backward(dty, cache)


def test_a_users_layer_is_checked_by_one_line():
    check_layer(SquareAndJvp(), (3,))
    check_layer(Square(), (2, 2), passes=("backward",))


def test_a_layer_in_use_is_not_touched():
    layer = Dense(3, 2)
    net = Network(Sequential(layer), (3,), get_backend("numpy", "float32"))
    before = net.parameters.copy()
    check_layer(layer, (3,))
    assert np.shares_memory(layer.W, net.parameters)
    np.testing.assert_array_equal(net.parameters, before)


def test_unknown_passes_are_refused():
    with pytest.raises(ValueError, match="unknown passes"):
        check_layer(Dense(3, 2), (3,), passes=("backwards",))


# ---- negative controls: each of these layers is wrong in one way -------------------------------


class WrongSign(Dense):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        super().backward(dy, cache, param_grads)
        return -dy @ self.W.T


class BiasMissing(Dense):
    """db is never added."""

    def _add_gradients(self, x, dy, cache):
        cache.backend.matmul_add(x.T, dy, out=self.dW)


class Overwrites(Dense):
    def _add_gradients(self, x, dy, cache):
        self.dW, self.db = x.T @ dy, dy.sum(axis=0)


class DeafToSwitch(Dense):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return super().backward(dy, cache, True, input_grad)


class JvpBackwardForgetsW(Dense):
    def jvp_backward(self, dy, dty, cache, param_grads=True):
        dx = None if dy is None else self.backward(dy, cache, param_grads)
        return dx, dty @ self.W.T


class JvpWithBias(Dense):
    def jvp(self, t, cache):
        return super().jvp(t, cache) + self.b


class StaleCache(Dense):
    """Keeps the first x for ever."""

    def forward(self, x, cache):
        y = super().forward(x, cache)
        if "first" in cache._kept and cache._kept["first"].shape == x.shape:
            cache.keep("x", cache._kept["first"])
        cache.keep("first", cache.kept("x"))
        return y


class KeepsInItself(Dense):
    """One activation memory per layer, shared by all call sites."""

    def forward(self, x, cache):
        self.x = x
        return super().forward(x, cache)

    def _add_gradients(self, x, dy, cache):
        super()._add_gradients(self.x, dy, cache)


class SharesItsOutput(Tanh):
    """All call sites write into the same memory."""

    def forward(self, x, cache):
        y = super().forward(x, cache)
        self.buffer = getattr(self, "buffer", None)
        if self.buffer is None or self.buffer.shape != y.shape or self.buffer.dtype != y.dtype:
            self.buffer = y.copy()
        self.buffer[...] = y
        return self.buffer


class KeepsTheTangent(Tanh):
    """In itself, not in the cache."""

    def jvp(self, t, cache):
        self.t = t
        return super().jvp(t, cache)

    def jvp_backward(self, dy, dty, cache, param_grads=True):
        cache.keep("t", self.t)
        return super().jvp_backward(dy, dty, cache, param_grads)


class LooksAround(Layer):
    """Takes the batch's mean off, and does not say that it couples samples."""

    def forward(self, x, cache):
        return x - x.mean(0)

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return dy - dy.mean(0)

    def jvp(self, t, cache):
        return t - t.mean(0)

    def jvp_backward(self, dy, dty, cache, param_grads=True):
        return None if dy is None else dy - dy.mean(0), dty - dty.mean(0)


class LooksAtTheFirst(LooksAround):
    """Takes the first sample off."""

    def forward(self, x, cache):
        return x - x[:1]

    jvp = forward

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        dx = dy.copy()
        dx[0] -= dy.sum(0)
        return dx

    def jvp_backward(self, dy, dty, cache, param_grads=True):
        return None if dy is None else self.backward(dy, cache), self.backward(dty, cache)


class SharesItsTangent(Tanh):
    """Its output is each call site's own; what jvp gives is not."""

    buffer = None

    def jvp(self, t, cache):
        ty = super().jvp(t, cache)
        if self.buffer is None or (self.buffer.shape, self.buffer.dtype) != (ty.shape, ty.dtype):
            self.buffer = ty.copy()
        self.buffer[...] = ty
        return self.buffer


class ReusesALoan(Tanh):
    """dx is written into the memory of the kept y."""

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        y = cache.kept("y")
        return self.times_df(dy, y.copy(), cache, out=y)


class SaysItNeedsNothing(Tanh):
    def needs(self, cache):
        return ""


class HandsOnX(Dropout):
    """Keeps all, so that its output is its input, which it says it does not need."""

    def __init__(self):
        super().__init__(keep=1.0)

    def needs(self, cache):
        return ""


class WritesIntoX(LeakyReLU):
    def forward(self, x, cache):
        y = super().forward(x, cache)
        x[...] = y
        return x


class WritesIntoDy(LeakyReLU):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        dy *= super().backward(dy, cache) / dy
        return dy


class NoSecondDerivative(Tanh):
    """Right for piecewise-linear layers only."""

    def d2f(self, y, cache):
        return 0.0 * y


class SecondDerivativeWithoutDy(Tanh):
    def jvp_backward(self, dy, dty, cache, param_grads=True):
        return super().jvp_backward(None, dty, cache)


class Zero(Tanh):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return 0.0 * dy


class Float64(Tanh):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return super().backward(dy, cache).astype(np.float64)


class OtherShape(Tanh):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return super().backward(dy, cache)[:1]


class NormBackward(BatchNorm):
    """Training's backward, with places to make mistakes at."""

    axis, n_of, means = 0, staticmethod(lambda dy: len(dy)), True

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        if not cache.train:
            return super().backward(dy, cache, param_grads)
        x_hat, inv_std = cache.kept("x_hat"), cache.kept("stats")[2]
        if param_grads:
            self.dgamma += (dy * x_hat).sum(axis=0)
            self.dbeta += dy.sum(axis=0)
        if not self.means:
            return dy * self.gamma * inv_std
        mean, product = (
            a.sum(axis=self.axis, keepdims=True) / self.n_of(dy) for a in (dy, dy * x_hat)
        )
        return self.gamma * inv_std * (dy - mean - x_hat * product)


class NormWithoutOneOverN(NormBackward):
    n_of = staticmethod(lambda dy: 1)


class NormSwappedAxis(NormBackward):
    axis = 1


class NormForgetsMeanAndVariance(NormBackward):
    means = False


class NormMovesStatistics(BatchNorm):
    def forward(self, x, cache):
        y = super().forward(x, cache)
        if cache.train:
            self.update_statistics(cache)
        return y


class NormAnswers(BatchNorm):
    """The reverse of the jvp as if the batch's statistics were constants."""

    def jvp_backward(self, dy, dty, cache, param_grads=True):
        scale = self.gamma * cache.kept("stats")[2]
        return (None if dy is None else dy * scale), dty * scale


class MaskRedrawn(Dropout):
    """Backward looks the mask up again, under another name."""

    purpose = "again"

    def transposed(self, a, cache, name):
        if not cache.train:
            return a
        purpose = f"{cache.path}/{self.purpose}"
        words = cache.noise.words(purpose, (a.size + 3) // 4)
        return a * cache.backend.dropout_factor(words, self.q, out=cache.new("again", a.shape))


class MaskLookedUpLater(MaskRedrawn):
    """The right mask, as long as nobody has moved the noise on."""

    purpose = "mask"


class MaskOfAGenerator(Dropout):
    """The mask depends on how often it was drawn before."""

    def __init__(self):
        super().__init__(0.5)
        self.generator = np.random.default_rng(0)

    def forward(self, x, cache):
        y = super().forward(x, cache)
        factor = cache.kept("factor") if cache.train else 0 * x + 1
        factor[...] = 2.0 * (self.generator.random(x.shape) < 0.5)
        cache.keep("factor", factor)
        return np.multiply(x, factor, out=y) if cache.train else x


class MaskUnscaled(Dropout):
    def transposed(self, a, cache, name):
        return super().transposed(a, cache, name) * (self.keep if cache.train else 1.0)


class AllTiesWin(Maxout):
    """Of equal pieces each takes the whole gradient."""

    def _route(self, dy, cache, name):
        h, y = cache.kept("h"), cache.kept("y")
        return ((h == y[:, None]) * dy[:, None]).reshape(len(dy), -1)


class AllTiesWinBackward(AllTiesWin):
    def jvp(self, t, cache):
        self._route, kept = super(AllTiesWin, self)._route, self._route
        try:
            return super().jvp(t, cache)
        finally:
            self._route = kept


class SecondPieceWins(Maxout):
    def _route(self, dy, cache, name):
        dh = super()._route(dy, cache, name)
        return np.roll(dh, self.units, axis=1)


PLANTED = [
    (WrongSign(3, 2), (3,), r"backward: dx: relative error"),
    (BiasMissing(3, 2), (3,), r"backward: b: relative error"),
    (Overwrites(3, 2), (3,), r"a second backward adds to the gradients: backward: [Wb]"),
    (DeafToSwitch(3, 2), (3,), r"param_grads=False leaves the gradients alone"),
    (JvpBackwardForgetsW(3, 2), (3,), r"jvp_backward: W: relative error"),
    (JvpWithBias(3, 2), (3,), r"jvp: ty: relative error"),
    (StaleCache(3, 2), (3,), r"backward: W: relative error"),
    (KeepsInItself(3, 2), (3,), r"interleaved: backward: W: relative error"),
    (SharesItsOutput(), (3,), r"interleaved: forward: y: relative error"),
    (KeepsTheTangent(), (3,), r"interleaved: jvp_backward: dx: relative error"),
    (SharesItsTangent(), (3,), r"interleaved: jvp: ty: relative error"),
    (LooksAround(), (3,), r"couples_samples is False, .* changed: forward: y"),
    (LooksAtTheFirst(), (3,), r"couples_samples is False, .* changed: forward: y"),
    (ReusesALoan(), (3,), r"jvp: ty|repeated after one forward"),
    (
        SaysItNeedsNothing(),
        (3,),
        r"needs\(\) says '', .* overwritten: backward: dx: relative error inf",
    ),
    (HandsOnX(), (3,), r"needs\(\) says '', .* overwritten: forward: y: relative error inf"),
    (WritesIntoX(), (3,), r"forward writes to x"),
    (WritesIntoDy(), (3,), r"backward writes to dy"),
    (NoSecondDerivative(), (3,), r"jvp_backward: dx: relative error"),
    (SecondDerivativeWithoutDy(), (3,), r"jvp_backward: dx: relative error"),
    (Zero(), (3,), r"backward: dx: relative error 1.00e\+00"),
    (Float64(), (3,), r"returns float64 on a float32 backend"),
    (OtherShape(), (3,), r"backward returns shape \(1, 3\), expected \(3, 3\)"),
    (NormWithoutOneOverN(3), (3,), r"training: backward: dx"),
    (NormSwappedAxis(3), (3,), r"training: backward: dx"),
    (NormForgetsMeanAndVariance(3), (3,), r"training: backward: dx"),
    (NormMovesStatistics(3), (3,), r"forward writes to the running statistics"),
    (NormAnswers(3), (3,), r"jvp_backward was to refuse"),
    (MaskRedrawn(0.5), (8,), r"training: backward: dx"),
    (MaskLookedUpLater(0.5), (8,), r"interleaved: backward: dx"),
    (MaskOfAGenerator(), (8,), r"training: .*relative error"),
    (MaskUnscaled(0.5), (8,), r"training: backward: dx"),
    (AllTiesWin(3, 2, 4), (3,), r"at a tie: jvp: ty"),
    (AllTiesWinBackward(3, 2, 4), (3,), r"at a tie: <dy, jvp\(t\)> = <backward\(dy\), t>"),
    (SecondPieceWins(3, 2, 2), (3,), r"backward: dx: relative error"),
]


def test_a_layer_that_couples_samples_may_if_it_says_so():
    layer = LooksAround()
    layer.couples_samples = True
    check_layer(layer, (3,))
    check_layer(Sequential(Dense(3, 2), layer), (3,))


def test_a_layer_without_a_pass_is_told_how_to_leave_it_out():
    class Doubles(Layer):
        def forward(self, x, cache):
            return 2.0 * x

        def backward(self, dy, cache, param_grads=True, input_grad=True):
            return 2.0 * dy

    with pytest.raises(GradientError, match=r"Doubles: Doubles has no jvp; passes= says which"):
        check_layer(Doubles(), (3,))
    check_layer(Doubles(), (3,), passes=("backward",))


@pytest.mark.parametrize(
    ("layer", "shape", "message"), PLANTED, ids=[type(p[0]).__name__ for p in PLANTED]
)
def test_the_battery_finds_a_planted_mistake(layer, shape, message):
    passes = NO_REVERSE if isinstance(layer, BatchNorm) else ("backward", "jvp", "jvp_backward")
    with pytest.raises(GradientError, match=message) as caught:
        check_layer(layer, shape, passes=passes)
    assert str(caught.value).startswith(f"{layer}, ")


@pytest.mark.parametrize("planted", [WrongSign, NoSecondDerivative, KeepsInItself])
def test_a_mistake_inside_a_chain_is_found_too(planted):
    layer = planted(4, 4) if issubclass(planted, Dense) else planted()
    with pytest.raises(GradientError):
        check_layer(Sequential(Dense(3, 4), layer, Dense(4, 2)), (3,))


def test_the_right_twins_of_the_planted_layers_pass():
    check_layer(Dense(3, 2), (3,))
    check_layer(NormBackward(3), (3,), passes=NO_REVERSE)
    check_layer(BatchNorm(3), (3,), passes=NO_REVERSE)
    check_layer(Dropout(0.5), (8,))
    check_layer(Maxout(3, 2, 4), (3,))
    check_layer(Tanh(), (3,))
    check_layer(ReLU(), (3,))
