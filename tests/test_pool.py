"""Max pooling and up-sampling: the battery, naive loops, PyTorch, and their own promises."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tinygan import Network, get_backend
from tinygan.backend.geometry import conv_geometry
from tinygan.errors import OptionError, ShapeError
from tinygan.gradcheck import GradientError, check_layer
from tinygan.nn import Dense, Flatten, LeakyReLU, MaxPool2D, Sequential, UpSample, pool

geometries = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it opens the same backend
)
image = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))  # (H, W, C)
window = st.tuples(st.integers(1, 5), st.integers(1, 5))
padding = st.sampled_from(["VALID", "SAME", 1, ((0, 1), (2, 0)), ((3, 2), (1, 3))])


def made(size, stride, padding, shape):
    """A layer that takes images of this shape; other drawings are dropped."""
    try:
        layer = MaxPool2D(size, stride, padding)
        layer.output_shape(shape)
    except (OptionError, ShapeError):
        reject()
    return layer


def bound(layer, shape, dtype="float64"):
    net = Network(layer, shape, get_backend("numpy", dtype), "net")
    return net, net.cache("site")


# ---- references: loops over every entry --------------------------------------------------------


def windows(n, size, stride, padding):
    """For each output along an axis of n entries, which entries its window holds."""
    if padding == "SAME":  # TensorFlow's: ceil(n / stride) outputs, the odd pad goes behind
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        padding = total // 2, total - total // 2
    before, after = (0, 0) if padding == "VALID" else padding
    starts = range(-before, n + after - size + 1, stride)
    return [[i for i in range(s, s + size) if 0 <= i < n] for s in starts]


def naive_pool(layer, x, dy, t):
    """y, dx and ty of a MaxPool2D, entry by entry."""
    paddings = layer.padding
    if isinstance(paddings, int):
        paddings = ((paddings, paddings), (paddings, paddings))
    elif isinstance(paddings, str):
        paddings = (paddings, paddings)
    axes = zip(x.shape[1:3], layer.size, layer.stride, paddings, strict=True)
    rows, columns = (windows(*axis) for axis in axes)
    y = np.zeros((len(x), len(rows), len(columns), x.shape[3]))
    dx, ty = np.zeros_like(x), np.zeros_like(y)
    for n, p, q, c in np.ndindex(y.shape):
        entries = [(n, i, j, c) for i in rows[p] for j in columns[q]]
        best = entries[0]
        for entry in entries:
            best = entry if x[entry] > x[best] else best
        y[n, p, q, c], ty[n, p, q, c] = x[best], t[best]
        dx[best] += dy[n, p, q, c]
    return y, dx, ty


def naive_up_sampling(layer, x, dy, t):
    """y, dx and ty of an UpSample, entry by entry."""
    (a, b), (n, h, w, c) = layer.factor, x.shape
    y, dx = np.zeros((n, h * a, w * b, c)), np.zeros_like(x)
    ty = np.zeros_like(y)
    for n, i, j, c in np.ndindex(y.shape):
        source = n, i // a, j // b, c
        y[n, i, j, c], ty[n, i, j, c] = x[source], t[source]
        dx[source] += dy[n, i, j, c]
    return y, dx, ty


def agrees_with_loops(layer, shape, batch, seed=0, ties=False):
    naive = naive_up_sampling if isinstance(layer, UpSample) else naive_pool
    net, site = bound(layer, shape)
    rng = np.random.default_rng(seed)
    x, t = (rng.standard_normal((batch, *shape)) for _ in range(2))
    if ties:
        x = np.round(x)
    dy = rng.standard_normal((batch, *net.output_shape))
    got = net.forward(x, site), net.backward(dy, site), net.jvp(t, site)
    for a, b in zip(got, naive(net.body, x, dy, t), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    dx, dt = net.jvp_backward(None, dy, site)
    assert dx is None  # piecewise linear: nothing bends
    np.testing.assert_allclose(dt, got[1], rtol=1e-12, atol=1e-12)


# ---- the battery and the loops over drawn geometries -------------------------------------------


@geometries
@given(st.integers(1, 3), image, window, window, padding)
def test_max_pool(open_backend, n, shape, size, stride, padding):
    layer = made(size, stride, padding, shape)
    check_layer(layer, shape, batch=n, backend=open_backend, entries=30)


@geometries
@given(st.integers(1, 3), image, window)
def test_up_sample(open_backend, n, shape, factor):
    check_layer(UpSample(factor), shape, batch=n, backend=open_backend, entries=30)


@settings(geometries, max_examples=100)
@given(st.integers(1, 3), image, window, window, padding, st.booleans(), st.integers(0, 99))
def test_max_pool_equals_loops(n, shape, size, stride, padding, ties, seed):
    agrees_with_loops(made(size, stride, padding, shape), shape, n, seed, ties)


@settings(geometries, max_examples=50)
@given(st.integers(1, 3), image, window)
def test_up_sample_equals_loops(n, shape, factor):
    agrees_with_loops(UpSample(factor), shape, n)


def test_in_a_chain(open_backend):
    chain = Sequential(
        UpSample(2), MaxPool2D(3, 2, "SAME"), LeakyReLU(), MaxPool2D(2), Flatten(), Dense(4, 1)
    )
    check_layer(chain, (4, 5, 1), backend=open_backend)


# ---- PyTorch -----------------------------------------------------------------------------------


def torch_pool(torch, layer, x):
    """(N, H, W, C) in and out; SAME by padding with -infinity first."""
    x = x.permute(0, 3, 1, 2)
    if layer.padding == "SAME":
        sides = []
        for n, k, s in zip(x.shape[3:1:-1], layer.size[::-1], layer.stride[::-1], strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            sides += [total // 2, total - total // 2]
        x = torch.nn.functional.pad(x, sides, value=float("-inf"))
    y = torch.nn.functional.max_pool2d(x, layer.size, layer.stride)
    return y.permute(0, 2, 3, 1)


def torch_up_sample(torch, layer, x):
    y = torch.nn.functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=layer.factor)
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        MaxPool2D(),
        MaxPool2D(3, 2),
        MaxPool2D(3, 2, "SAME"),
        MaxPool2D((2, 3), (3, 1), "SAME"),
        MaxPool2D((4, 1), (1, 5)),
        UpSample(),
        UpSample((3, 1)),
    ],
    ids=repr,
)
def test_layers_equal_pytorch(layer, ties):
    torch = pytest.importorskip("torch")
    net, site = bound(layer, (7, 8, 3))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 8, 3))
    x = np.round(x) if ties else x
    tx = torch.tensor(x, requires_grad=True)
    twin = torch_up_sample if isinstance(layer, UpSample) else torch_pool
    ty = twin(torch, layer, tx)
    np.testing.assert_array_equal(net.forward(x, site), ty.detach().numpy())
    dy = rng.standard_normal(ty.shape)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(net.backward(dy, site), tx.grad.numpy(), rtol=1e-12, atol=1e-14)


# ---- promises ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (MaxPool2D(), (28, 28, 16), (14, 14, 16)),
        (MaxPool2D(), (7, 5, 1), (3, 2, 1)),
        (MaxPool2D(2, padding="SAME"), (7, 5, 1), (4, 3, 1)),
        (MaxPool2D(3, 2, "SAME"), (8, 7, 1), (4, 4, 1)),
        (MaxPool2D(2, 3), (7, 8, 1), (2, 3, 1)),
        (MaxPool2D((28, 28)), (28, 28, 4), (1, 1, 4)),  # 784 places: more than a byte counts
        (UpSample(), (7, 5, 3), (14, 10, 3)),
        (UpSample((1, 3)), (7, 5, 3), (7, 15, 3)),
    ],
    ids=repr,
)
def test_output_shapes(layer, shape, expected):
    net, site = bound(layer, shape)
    assert net.output_shape == expected
    assert net.forward(np.zeros((2, *shape)), site).shape == (2, *expected)


def test_a_window_of_many_places_finds_its_last():
    agrees_with_loops(MaxPool2D((28, 28)), (28, 28, 2), batch=3)


def test_the_first_of_equal_entries_takes_the_gradient():
    net, site = bound(MaxPool2D(2), (2, 4, 1))
    x = np.array([[1.0, 5.0, -0.0, 0.0], [5.0, 5.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
    net.forward(x, site)
    dx = net.backward(np.array([2.0, 3.0]).reshape(1, 1, 2, 1), site)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 2, 3, 0], [0, 0, 0, 0]])


def test_the_remainder_of_valid_windows_gets_no_gradient():
    net, site = bound(MaxPool2D(2), (5, 5, 2))
    x = np.random.default_rng(0).standard_normal((3, 5, 5, 2))
    x[:, 4], x[:, :, 4] = 9.0, 9.0
    y = net.forward(x, site)
    assert y.shape == (3, 2, 2, 2)
    assert y.max() < 9.0
    for _ in range(2):  # dx is a buffer: what the last call left there must not stay
        dx = net.backward(np.ones(y.shape), site)
        assert not dx[:, 4].any()
        assert not dx[:, :, 4].any()
        assert dx.sum() == y.size
        dx[...] = 7.0


def test_padding_is_less_than_every_entry():
    net, site = bound(MaxPool2D(3, 1, "SAME"), (2, 2, 1))
    x = np.full((1, 2, 2, 1), -5.0)
    np.testing.assert_array_equal(net.forward(x, site), x)


def test_a_nan_stays_one():
    """A hidden NaN would train on: the run could not stop and name where it arose."""
    net, site = bound(MaxPool2D(), (2, 4, 1))
    x = np.arange(8.0).reshape(1, 2, 4, 1)
    x[0, 0, 1] = np.nan
    np.testing.assert_array_equal(net.forward(x, site).reshape(-1), [np.nan, 7.0])


def orders(x):
    """The same array in other memory orders."""
    rows = np.ascontiguousarray(x.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)  # (H, W, N, C)
    channels = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    wide = np.repeat(np.repeat(x, 2, axis=0), 2, axis=3)[::2, :, :, ::2]
    backwards = x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1]
    return rows, channels, wide, backwards, np.asfortranarray(x)


@pytest.mark.parametrize("layer", [MaxPool2D(3, 2, "SAME"), MaxPool2D(), UpSample(2)], ids=repr)
def test_any_memory_order_will_do(layer):
    net, site = bound(layer, (5, 4, 3))
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((2, *net.output_shape))

    def ask(x, dy):
        y = net.forward(x, site).copy()
        return y, net.backward(dy, site).copy(), net.jvp(x, site).copy()

    want = ask(x, dy)
    for other_x, other_dy in zip(orders(x), orders(dy), strict=True):
        np.testing.assert_array_equal(other_x, x)
        for got, expected in zip(ask(other_x, other_dy), want, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("layer", [MaxPool2D(3, 2, "SAME"), MaxPool2D(), UpSample(2)], ids=repr)
def test_nothing_of_image_size_is_allocated_in_steady_state(layer):
    shape = (16, 16, 64)
    net, site = bound(layer, shape, "float32")
    x, t = np.ones((64, *shape), "float32"), np.ones((64, *shape), "float32")
    dy = np.ones((64, *net.output_shape), "float32")

    def step():
        net.forward(x, site)
        net.jvp(t, site)
        return net.jvp_backward(dy, dy, site)

    first = step()
    tracemalloc.start()
    again = step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(np.shares_memory(a, b) for a, b in zip(first, again, strict=True))
    assert peak < min(x.nbytes, dy.nbytes) / 2  # NumPy casts in small blocks


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            MaxPool2D(3),
            (2, 5, 1),
            r"MaxPool2D\(3x3, stride 3x3, VALID\) expects images of at least 3x3 pixels, got",
        ),
        (MaxPool2D(2), (16,), r"MaxPool2D\(.*\) expects \(N, H, W, C\), got \(N, 16\)"),
        (UpSample(2), (16,), r"UpSample\(2x2\) expects \(N, H, W, C\), got \(N, 16\)"),
    ],
    ids=str,
)
def test_a_shape_error_names_the_layer(layer, shape, message):
    with pytest.raises(ShapeError, match=rf"^D {message}"):
        Network(layer, shape, get_backend("numpy"), "D")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool2D(0), r"MaxPool2D\(0x0, .*\): kernel \(0, 0\) .* at least 1"),
        (lambda: MaxPool2D((2, -1)), "at least 1"),
        (lambda: MaxPool2D(2, 0), "at least 1"),
        (lambda: MaxPool2D(2, padding="same"), "unknown padding 'same'"),
        (lambda: MaxPool2D(2, padding=2), "would see padding only"),
        (lambda: UpSample(0), r"UpSample\(0x0\): the factor must be at least 1"),
        (lambda: UpSample((2, 0)), "at least 1"),
    ],
)
def test_senseless_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# ---- up-sampling's backward, wrong in public from-scratch GANs ----------------------------------


def test_up_samplings_backward_adds_the_block_up():
    """Each pixel was used f² times, so its gradient is the sum over its block."""
    net, site = bound(UpSample(2), (1, 2, 1))
    net.forward(np.zeros((1, 1, 2, 1)), site)
    dy = np.array([[1.0, 2.0, 10.0, 20.0], [3.0, 4.0, 30.0, 40.0]]).reshape(1, 2, 4, 1)
    np.testing.assert_array_equal(net.backward(dy, site).reshape(-1), [10.0, 100.0])


class MeanOfTheBlock(UpSample):
    def transposed(self, dy, cache, name):
        return super().transposed(dy, cache, name) / len(self.places)


class FirstOfTheBlock(UpSample):
    """Down-sampling, as if it were the reverse of up-sampling."""

    def transposed(self, dy, cache, name):
        return dy[self.places[0]]


class WholeImageRepeated(UpSample):
    """tile in place of repeat, forward only."""

    def _repeat(self, x, cache, name):
        return np.tile(x, (1, *self.factor, 1))


# ---- negative controls: each of these layers is wrong in one way -------------------------------


class EveryTieTakes(MaxPool2D):
    """Of equal entries each takes the whole gradient."""

    def needs(self, cache):
        return "xy"

    def forward(self, x, cache):
        y = super().forward(x, cache)
        cache.keep("x", x)
        cache.keep("y", y)
        return y

    def transposed(self, dy, cache, name):
        x, y = cache.kept("x"), cache.kept("y")
        dx = np.zeros_like(x)
        for _, at, pixels in self.geometry.places():
            dx[pixels] += (x[pixels] == y[at]) * dy[at]
        return dx


class LastTieTakes(MaxPool2D):
    """Right by its derivative, but another choice than the documented one."""

    def forward(self, x, cache):
        y = super().forward(x, cache)
        for place, at, pixels in self.geometry.places():
            np.copyto(cache.kept("winner")[at], place, where=x[pixels] == y[at])
        return y


class WrongOffset(MaxPool2D):
    """Backward counts the window's places column by column."""

    def transposed(self, dy, cache, name):
        winner, (h, w) = cache.kept("winner"), self.size
        cache.keep("winner", winner % w * h + winner // w)
        dx = super().transposed(dy, cache, name)
        cache.keep("winner", winner)
        return dx


class WindowsOverwrite(MaxPool2D):
    """Where windows overlap, the last one to come keeps its share alone."""

    def transposed(self, dy, cache, name):
        winner, shape = cache.kept("winner"), super().transposed(dy, cache, name).shape
        dx = np.zeros(shape, dy.dtype)
        for place, at, pixels in self.geometry.places():
            np.copyto(dx[pixels], dy[at], where=winner[at] == place)
        return dx


class PadsWithZero(MaxPool2D):
    """For windows 1x2 of stride 1: a zero stands to the right of the last column."""

    def forward(self, x, cache):
        y = super().forward(x, cache)
        y[:, :, -1] = np.maximum(y[:, :, -1], 0.0)
        return y


class JvpTakesTheLargestT(MaxPool2D):
    def jvp(self, t, cache):
        return super().forward(t, cache["t"])


PLANTED = [
    (MeanOfTheBlock(2), (2, 3, 1), r"backward: dx"),
    (FirstOfTheBlock(2), (2, 3, 1), r"backward: dx"),
    (WholeImageRepeated(2), (2, 3, 1), r"backward: dx"),
    (EveryTieTakes(), (4, 4, 2), r"at a tie: <dy, jvp\(t\)> = <backward\(dy\), t>"),
    (WrongOffset((2, 2)), (4, 4, 2), r"backward: dx"),
    (WindowsOverwrite(3, 1), (5, 5, 2), r"backward: dx"),
    (JvpTakesTheLargestT(), (4, 4, 2), r"jvp: ty"),
]


@pytest.mark.parametrize(
    ("layer", "shape", "message"), PLANTED, ids=[type(p[0]).__name__ for p in PLANTED]
)
def test_the_battery_finds_a_planted_mistake(layer, shape, message):
    with pytest.raises(GradientError, match=message):
        check_layer(layer, shape)


@pytest.mark.parametrize(
    "layer",
    [
        MeanOfTheBlock(2),
        FirstOfTheBlock(2),
        WholeImageRepeated(2),
        EveryTieTakes(),
        LastTieTakes(),
        WrongOffset(),
        WindowsOverwrite(3, 1),
        PadsWithZero((1, 2), 1, "SAME"),
        JvpTakesTheLargestT(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_loops_find_a_planted_mistake(layer):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        agrees_with_loops(layer, (5, 6, 2), batch=4, ties=True)


@pytest.mark.parametrize("shift", [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_the_loops_find_padding_that_is_off_by_one(shift, monkeypatch):
    def shifted(*args):
        geometry = conv_geometry(*args)
        before = tuple(b + d for b, d in zip(geometry.before, shift, strict=True))
        return geometry._replace(before=before)

    monkeypatch.setattr(pool, "conv_geometry", shifted)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        agrees_with_loops(MaxPool2D(2, 2, "SAME"), (5, 5, 2), batch=3)
