"""Convolution and transposed convolution: the battery, loops, PyTorch, and planted mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import (
    arrays,
    batches,
    by_loops,
    channels,
    conv_options,
    derivatives,
    drawn,
    transposed_options,
    ways,
    with_plan,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import Plain

from tinygan import Network, Noise, get_backend
from tinygan.backend import numpy_backend
from tinygan.backend.convolution import FEW, DirectConvolution
from tinygan.backend.geometry import conv_geometry
from tinygan.backend.row_convolution import RowConvolution
from tinygan.errors import OptionError, ShapeError
from tinygan.gradcheck import GradientError, check_layer
from tinygan.nn import (
    BatchNorm,
    Cache,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    ReLU,
    Reshape,
    Sequential,
    Sigmoid,
    Tanh,
)

NO_REVERSE = ("backward", "jvp")  # BatchNorm refuses the reverse of its jvp

geometries = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it opens the same backend
)
few = settings(geometries, max_examples=12)


def close(got, expected, tolerance=1e-12):
    """Equal to rounding, measured by the largest number."""
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    assert float(np.abs(got - expected).max(initial=0.0)) <= tolerance * scale


def bound(layer, shape, dtype="float64", seed=0):
    """The layer in a network of its own, its parameters drawn from N(0, 1/4), and a call site."""
    backend = get_backend("numpy", dtype)
    net = Network(layer, shape, backend, "net")
    net.parameters[...] = Noise(seed, backend).normal("test", net.parameters.shape, std=0.5)
    return net, net.cache("site", noise=Noise(seed, backend, step=1))


# ---- the battery -------------------------------------------------------------------------------


@geometries
@given(conv_options(), batches, channels, channels, st.booleans(), ways)
def test_conv(open_backend, options, n, c_in, c_out, bias, way):
    size, kernel, stride, padding = options
    layer = Conv2D(c_in, c_out, kernel, stride, padding)
    if not bias:
        layer = Conv2D(c_in, c_out, kernel, stride, padding, b=None)
    check_layer(
        layer,
        (*size, c_in),
        batch=n,
        train=(True,),
        entries=30,
        backend=lambda dtype: with_plan(open_backend(dtype), way),
    )


@geometries
@given(transposed_options(), batches, channels, channels, st.booleans(), ways)
def test_conv_transpose(open_backend, options, n, c_in, c_out, bias, way):
    size, kernel, stride, padding, extra = options
    layer = ConvTranspose2D(c_in, c_out, kernel, stride, padding, extra)
    if not bias:
        layer = ConvTranspose2D(c_in, c_out, kernel, stride, padding, extra, b=None)
    check_layer(
        layer,
        (*size, c_in),
        batch=n,
        train=(True,),
        entries=30,
        backend=lambda dtype: with_plan(open_backend(dtype), way),
    )


@settings(geometries, max_examples=6)
@given(batches, channels, st.sampled_from([(3, 4), (5, 5)]), ways)
def test_a_chain_of_images(open_backend, n, c, size, way):
    """Layers between convolutions see another memory order than the loss: all must agree."""
    chain = Sequential(
        Conv2D(c, 3, 3, 2),
        LeakyReLU(),
        Dropout(0.7),
        ConvTranspose2D(3, 2, 2, 2, "VALID"),
        Tanh(),
        Flatten(),
        Dense({(3, 4): 32, (5, 5): 72}[size], 2),
    )
    check_layer(
        chain,
        (*size, c),
        batch=n,
        entries=20,
        backend=lambda dtype: with_plan(open_backend(dtype), way),
    )


@few
@given(ways)
def test_a_small_generator_and_discriminator(open_backend, way):
    G = Sequential(
        Dense(3, 2 * 2 * 4, b=None),
        BatchNorm(16),
        LeakyReLU(),
        Reshape(2, 2, 4),
        ConvTranspose2D(4, 3, 5, 1, b=None),
        BatchNorm(3),
        LeakyReLU(),
        ConvTranspose2D(3, 1, 5, 2, b=None),
        Tanh(),
    )
    D = Sequential(
        Conv2D(1, 3, 5, 2),
        LeakyReLU(),
        Dropout(0.7),
        Conv2D(3, 4, 5, 2),
        BatchNorm(4),
        LeakyReLU(),
        Dropout(0.7),
        Flatten(),
        Dense(4, 1),
    )
    check_layer(
        Sequential(G, D),
        (3,),
        batch=4,
        entries=15,
        passes=NO_REVERSE,
        backend=lambda dtype: with_plan(open_backend(dtype), way),
    )


@few
@given(st.integers(2, 4), channels, ways)
def test_batch_norm_over_channels(open_backend, n, c, way):
    """Of images that lie as a convolution leaves them, and as they come from outside."""
    for chain in (Sequential(Conv2D(c, 2, 3), BatchNorm(2)), BatchNorm(c)):
        check_layer(
            chain,
            (2, 3, c),
            batch=n,
            entries=20,
            passes=NO_REVERSE,
            backend=lambda dtype: with_plan(open_backend(dtype), way),
        )


def test_batch_norm_takes_its_statistics_over_samples_and_pixels():
    net, site = bound(BatchNorm(3, momentum=0.0), (4, 5, 3))
    x = drawn(0, (6, 4, 5, 3))[0] * 4.0 + 7.0
    for order in (np.ascontiguousarray, in_images_order, backwards, channels_first, flipped):
        y = net.forward(order(x), site)
        net.update_statistics(site)
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        close(net.body.running_mean, mean)
        close(net.body.running_var, var)
        expected = (x - mean) / np.sqrt(var + net.body.eps)
        close(y, net.body.gamma * expected + net.body.beta)


# ---- seven loops -------------------------------------------------------------------------------


@settings(geometries, max_examples=60)
@given(conv_options(), batches, channels, channels, ways)
def test_all_three_derivatives_equal_seven_loops(open_backend, options, n, c_in, c_out, way):
    backend, g = with_plan(open_backend("float64"), way), conv_geometry(*options)
    x, w, y = arrays(g, n, c_in, c_out)
    got = derivatives(backend, g, x, w, y)
    for ours, theirs in zip(got, by_loops(g, x, w, y), strict=True):
        close(ours, theirs)


@few
@given(conv_options(), ways)
def test_many_channels_equal_the_plain_form(open_backend, options, way):
    backend, g = with_plan(open_backend("float64"), way), conv_geometry(*options)
    x, w, y = arrays(g, 3, FEW + 5, 7)
    expected = derivatives(with_plan(Plain("float64"), "by pixel"), g, x, w, y)
    for ours, theirs in zip(derivatives(backend, g, x, w, y), expected, strict=True):
        close(ours, theirs)


def test_a_convolution_by_hand():
    """One row of five pixels, stride 2, SAME: padding 1, all of it after the image."""
    net, site = bound(Conv2D(1, 1, (1, 2), (1, 2)), (1, 5, 1))
    net.body.W, net.body.b = np.array([1.0, 10.0]).reshape(1, 2, 1, 1), 0.5
    y = net.forward(np.arange(1.0, 6.0).reshape(1, 1, 5, 1), site)
    np.testing.assert_array_equal(y.reshape(-1), [21.5, 43.5, 5.5])


def test_a_transposed_convolution_by_hand():
    """Each pixel stamps the kernel; stamps of width 3 at stride 2 overlap in every other pixel."""
    net, site = bound(ConvTranspose2D(1, 1, (1, 3), (1, 2), "VALID"), (1, 3, 1))
    net.body.W, net.body.b = np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1), 0.0
    y = net.forward(np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1), site)
    np.testing.assert_array_equal(y.reshape(-1), [1, 10, 102, 20, 203, 30, 300])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "outputs", "before"),
    [
        (28, 5, 2, 14, 1),
        (7, 5, 2, 4, 2),
        (7, 5, 1, 7, 2),
        (5, 2, 2, 3, 0),
        (6, 3, 2, 3, 0),
        (5, 4, 1, 5, 1),
        (5, 2, 3, 2, 0),
        (2, 1, 5, 1, 0),
        (6, 5, 3, 2, 1),
        (1, 5, 1, 1, 2),
    ],
)
def test_same_is_tensorflows(size, kernel, stride, outputs, before):
    """Outputs and the zeros in front as tf.nn.conv2d documents them, odd zero behind."""
    g = conv_geometry((size, 9), (kernel, 1), (stride, 1), "SAME")
    assert (g.output[0], g.before[0]) == (outputs, before)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "expected"),
    [
        (7, 5, 2, "SAME", 14),
        (4, 2, 3, "SAME", 12),
        (7, 5, 2, "VALID", 17),
        (4, 2, 3, "VALID", 12),
        (3, 1, 2, "VALID", 6),
        (4, 4, 2, 1, 8),
    ],
)
def test_transposed_sizes_are_keras(size, kernel, stride, padding, expected):
    layer = ConvTranspose2D(1, 1, kernel, stride, padding)
    assert layer.output_shape((size, size, 1)) == (expected, expected, 1)


# ---- the adjoint -------------------------------------------------------------------------------


def remainder(g, axis):
    """(before, after, output padding) that take a transposed convolution back to g's input."""
    seen = (g.output[axis] - 1) * g.stride[axis] + g.kernel[axis]
    after = max(0, seen - g.before[axis] - g.input[axis])
    return g.before[axis], after, g.input[axis] + g.before[axis] + after - seen


@geometries
@given(conv_options(), batches, channels, channels)
def test_the_transposed_convolution_is_the_exact_adjoint(options, n, c_in, c_out):
    """<conv(x), y> = <x, convT(y)>, and each one's backward is the other."""
    size, kernel, stride, padding = options
    down, down_site = bound(Conv2D(c_in, c_out, kernel, stride, padding, b=None), (*size, c_in))
    sides = [remainder(down.body.geometry, axis) for axis in range(2)]
    up, up_site = bound(
        ConvTranspose2D(
            c_out,
            c_in,
            kernel,
            stride,
            tuple((before, after) for before, after, _ in sides),
            tuple(extra for *_, extra in sides),
            b=None,
        ),
        down.output_shape,
    )
    assert up.output_shape == (*size, c_in)
    up.body.W = down.body.W
    x, y = drawn(0, (n, *size, c_in), (n, *down.output_shape))
    conv_x, convt_y = down.forward(x, down_site), up.forward(y, up_site)
    terms = float(np.abs(conv_x * y).sum() + np.abs(x * convt_y).sum())
    assert abs(np.sum(conv_x * y) - np.sum(x * convt_y)) <= 1e-13 * max(terms, 1.0)
    close(down.backward(y, down_site), convt_y)
    close(up.backward(x, up_site), conv_x)
    close(up.gradients, down.gradients)  # <x ⋆ dy> is the same sum either way


@few
@given(transposed_options(), channels, channels)
def test_the_backward_of_a_transposed_convolution_is_a_convolution(options, c_in, c_out):
    size, kernel, stride, padding, extra = options
    up, site = bound(ConvTranspose2D(c_in, c_out, kernel, stride, padding, extra), (*size, c_in))
    down, down_site = bound(Conv2D(c_out, c_in, kernel, stride, padding, b=None), up.output_shape)
    down.body.W = up.body.W
    (dy,) = drawn(1, (2, *up.output_shape))
    up.forward(np.zeros((2, *size, c_in)), site)
    close(up.backward(dy, site), down.forward(dy, down_site))


# ---- memory ------------------------------------------------------------------------------------


@few
@given(conv_options(), ways, st.sampled_from([Conv2D, ConvTranspose2D]))
def test_the_order_in_memory_of_what_comes_in_changes_nothing(open_backend, options, way, kind):
    size, kernel, stride, _ = options
    backend = with_plan(open_backend("float64"), way)
    net = Network(kind(3, 2, kernel, stride), (*size, 3), backend, noise=Noise(0, backend))
    x, t = drawn(0, *[(2, *size, 3)] * 2)
    dy, dty = drawn(1, *[(2, *net.output_shape)] * 2)
    answers = []
    for order in (np.ascontiguousarray, in_images_order, backwards):
        site = net.cache("site")
        net.gradients.fill(0)
        there = [from_host_in(order, backend, a) for a in (x, t, dy, dty)]
        results = [net.forward(there[0], site), net.backward(there[2], site)]
        results += [net.jvp(there[1], site), *net.jvp_backward(there[2], there[3], site)]
        results.append(net.gradients)
        answers.append([backend.to_host(a) for a in results])
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            close(a, b, 1e-13)


def in_images_order(a):
    return np.ascontiguousarray(a.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)


def backwards(a):
    return np.asfortranarray(a)


def channels_first(a):
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def flipped(a):
    """With negative strides."""
    return a[::-1, ::-1].copy()[::-1, ::-1]


def from_host_in(order, backend, a):
    """On the backend, with the strides that `order` gives."""
    host = order(a)
    axes = sorted(range(a.ndim), key=lambda axis: -host.strides[axis])
    there = backend.from_host(np.ascontiguousarray(host.transpose(axes)))
    return there.transpose(*np.argsort(axes))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "layer",
    [LeakyReLU(), ReLU(), Tanh(), Sigmoid(), Dropout(0.5), BatchNorm(3), Flatten(), Reshape(5, 12)],
    ids=repr,
)
def test_layers_between_take_any_order_and_keep_it(layer, train):
    """The same numbers, masks included; images come out, and gradients go back, as they lay."""
    net, _ = bound(layer, (4, 5, 3))
    x, dy, t = drawn(0, *[(2, 4, 5, 3)] * 3)
    answers = []
    for order in (np.ascontiguousarray, in_images_order):
        site = net.cache("site", train, Noise(0, net.backend, step=1), check=True)
        net.gradients.fill(0)
        image = order(x)
        y = net.forward(image, site)
        dx = net.backward(dy.reshape(y.shape), site)
        if not isinstance(layer, Reshape):
            assert y.strides == image.strides
        assert dx.strides == image.strides or not train
        results = [y.copy(), dx.copy(), net.jvp(t, site).copy(), net.gradients.copy()]
        if not isinstance(layer, BatchNorm):
            results += net.jvp_backward(dy.reshape(y.shape), t.reshape(y.shape), site)
        answers.append(results)
    for a, b in zip(*answers, strict=True):
        close(a, b, 1e-13)


def test_images_lie_as_the_backend_says(backend):
    x = backend.empty_images((2, 3, 4, 5))
    assert x.shape == (2, 3, 4, 5)
    assert x.transpose(*backend.image_axes, 3).flags.c_contiguous
    rows = backend.rows(x)
    assert rows.shape == (24, 5)
    rows[...] = 7.0  # a view, not a copy
    assert float(x.sum()) == 7.0 * 120
    if backend.name == "numpy":
        assert not x.flags.c_contiguous


def test_rows_stand_as_they_lie(backend):
    x = backend.empty_images((2, 3, 4, 5))
    x[...] = backend.from_host(np.arange(120.0).reshape(2, 3, 4, 5))
    c_order = backend.from_host(np.arange(120.0).reshape(2, 3, 4, 5))
    alike = backend.to_host(backend.rows(c_order, like=x))
    np.testing.assert_array_equal(alike, backend.to_host(backend.rows(x)))


def test_cache_like_keeps_order_and_rules():
    backend = get_backend("numpy", "float32")
    for check in (False, True):
        cache, x = Cache(backend, check=check), backend.empty_images((2, 3, 4, 5))
        y = cache.like("y", x)
        assert (y.strides, y.dtype, y.shape) == (x.strides, x.dtype, x.shape)
        y.fill(1.0)
        again = cache.like("y", x)
        assert (again is y) is not check
        assert bool(np.isnan(y).all()) is check
        assert not np.shares_memory(cache.like("y", np.ascontiguousarray(x)), again)
        image = cache.images("y", x.shape)
        assert image.strides == x.strides
        image.fill(1.0)
        assert (cache.images("y", x.shape) is image) is not check
        assert bool(np.isnan(image).all()) is check


def test_call_sites_keep_no_patches():
    """Patches of all layers and call sites lie in one scratch; a site has its outputs alone.

    And the gradient on the input: one between two layers is lent."""
    backend = with_plan(get_backend("numpy", "float32"), "by rows")
    net = Network(Sequential(Conv2D(16, 20, 5, 2), Conv2D(20, 24, 5, 2)), (8, 8, 16), backend)
    sites = [net.cache(name) for name in ("real", "fake", "for G")]
    (x,) = drawn(0, (4, 8, 8, 16))
    for site in sites:
        y = net.forward(x.astype("float32"), site)
        net.backward(y, site)
    numbers = [4 * 4 * 4 * 20, 4 * 2 * 2 * 24, 4 * 8 * 8 * 16]  # y, y, dx
    for site in sites:
        assert held(site) == 4 * sum(numbers)
    patches = 4 * 4 * (2 * 6) * 4 * (5 * 16)
    lent = 2 * 4 * (4 * 4 * 4 * 20)
    assert sum(a.nbytes for a in backend._workspaces.values()) <= patches + lent


def held(cache):
    own = sum(a.nbytes for a in cache._buffers.values())
    return own + sum(held(child) for child in cache._children.values())


def test_no_memory_is_taken_in_steady_state():
    backend = get_backend("numpy", "float32")
    body = Sequential(Conv2D(3, 20, 3, 2), LeakyReLU(), ConvTranspose2D(20, 2, 4, 2), Flatten())
    net = Network(body, (6, 6, 3), backend)
    site, x = net.cache("site"), drawn(0, (2, 6, 6, 3))[0].astype("float32")

    def step():
        dx = net.backward(net.forward(x, site), site)
        kept = {**backend._scratch, **backend._workspaces}
        return dx.ctypes.data, {key: a.ctypes.data for key, a in kept.items()}, held(site)

    step()
    assert step() == step()


@pytest.mark.parametrize("kind", [Conv2D, ConvTranspose2D])
def test_cupys_code_computes_the_same(cupy_standin, kind):
    """In C order, on arrays that refuse to mix with NumPy's."""
    answers = []
    for backend in (get_backend("numpy", "float64"), cupy_standin("float64")):
        chain = Sequential(kind(2, 3, 5, 2), LeakyReLU(), kind(3, 20, 3, 1), Flatten())
        net = Network(chain, (6, 7, 2), backend, noise=Noise(0, backend))
        x, t = (backend.from_host(a) for a in drawn(0, *[(2, 6, 7, 2)] * 2))
        dy, dty = (backend.from_host(a) for a in drawn(1, *[(2, *net.output_shape)] * 2))
        site = net.cache("site")
        results = [net.forward(x, site), net.backward(dy, site), net.jvp(t, site)]
        results += [*net.jvp_backward(dy, dty, site), net.gradients]
        answers.append([backend.to_host(a) for a in results])
    for ours, theirs in zip(*answers, strict=True):
        close(ours, theirs)


# ---- which plan --------------------------------------------------------------------------------


def test_numpy_takes_rows_for_many_channels_and_im2col_for_few(monkeypatch):
    monkeypatch.setattr(numpy_backend, "spectral_is_faster", lambda *_: False)
    backend, g = get_backend("numpy"), conv_geometry((8, 8), (3, 3), (1, 1), "SAME")
    assert type(backend.convolution(g, FEW, 8)) is DirectConvolution
    assert type(backend.convolution(g, FEW + 1, 8)) is RowConvolution
    assert backend.convolution(g, FEW, 8) is backend.convolution(g, FEW, 8)


# ---- PyTorch -----------------------------------------------------------------------------------


@settings(geometries, max_examples=30)
@given(conv_options(), batches, channels, channels)
def test_conv_equals_pytorch(options, n, c_in, c_out):
    torch = pytest.importorskip("torch")
    size, kernel, stride, padding = options
    net, site = bound(Conv2D(c_in, c_out, kernel, stride, padding), (*size, c_in))
    g, body = net.body.geometry, net.body
    (x,), (dy,) = drawn(0, (n, *size, c_in)), drawn(1, (n, *net.output_shape))
    tx, tw, tb = (torch.tensor(np.array(a), requires_grad=True) for a in (x, body.W, body.b))
    pads = []
    for axis in (1, 0):  # torch pads the last axis first; a negative number cuts off
        before, after, extra = remainder(g, axis)
        pads += [before, after - extra]
    image = torch.nn.functional.pad(tx.permute(0, 3, 1, 2).contiguous(), pads)
    ty = torch.nn.functional.conv2d(image, tw.permute(3, 2, 0, 1).contiguous(), tb, stride)
    ty = ty.permute(0, 2, 3, 1)
    ty.backward(torch.tensor(dy))
    close(net.forward(x, site), ty.detach().numpy())
    close(net.backward(dy, site), tx.grad.numpy())
    close(body.dW, tw.grad.numpy())
    close(body.db, tb.grad.numpy())


@settings(geometries, max_examples=30)
@given(transposed_options(), batches, channels, channels)
def test_conv_transpose_equals_pytorch(options, n, c_in, c_out):
    torch = pytest.importorskip("torch")
    size, kernel, stride, padding, extra = options
    layer = ConvTranspose2D(c_in, c_out, kernel, stride, padding, extra)
    net, site = bound(layer, (*size, c_in))
    (H, W), _, _, (top, left), _ = net.body.geometry
    (x,), (dy,) = drawn(0, (n, *size, c_in)), drawn(1, (n, *net.output_shape))
    body = net.body
    tx, tw, tb = (torch.tensor(np.array(a), requires_grad=True) for a in (x, body.W, body.b))
    stamped = torch.nn.functional.conv_transpose2d(
        tx.permute(0, 3, 1, 2), tw.permute(3, 2, 0, 1).contiguous(), None, stride
    )
    h, v = stamped.shape[2:]  # padding is what is cut off; what is missing sees no stamp
    window = torch.nn.functional.pad(stamped, [-left, left + W - v, -top, top + H - h])
    ty = window.permute(0, 2, 3, 1) + tb
    ty.backward(torch.tensor(dy))
    close(net.forward(x, site), ty.detach().numpy())
    close(net.backward(dy, site), tx.grad.numpy())
    close(body.dW, tw.grad.numpy())
    close(body.db, tb.grad.numpy())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [(4, 2, 1, 0), (5, 2, 2, 1), (3, 3, 0, 2), (3, 1, 2, 0)],
)
def test_output_padding_is_pytorchs(kernel, stride, padding, extra):
    torch = pytest.importorskip("torch")
    net, site = bound(ConvTranspose2D(2, 3, kernel, stride, padding, extra), (4, 5, 2))
    twin = torch.nn.ConvTranspose2d(2, 3, kernel, stride, padding, extra, dtype=torch.float64)
    with torch.no_grad():
        twin.weight[...] = torch.tensor(np.array(net.body.W)).permute(3, 2, 0, 1)
        twin.bias[...] = torch.tensor(np.array(net.body.b))
    (x,) = drawn(0, (2, 4, 5, 2))
    ty = twin(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    close(net.forward(x, site), ty.detach().numpy())


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            Conv2D(3, 4, 5),
            (8, 8, 1),
            r"Conv2D\(3 -> 4, 5x5\) expects \(N, H, W, 3\), got \(N, 8, 8, 1\)",
        ),
        (Conv2D(3, 4, 5), (64,), r"Conv2D\(3 -> 4, 5x5\) expects \(N, H, W, 3\), got \(N, 64\)"),
        (
            Conv2D(1, 4, 5, padding="VALID"),
            (4, 8, 1),
            r"Conv2D\(1 -> 4, 5x5, padding VALID\) expects images of at least 5x5 pixels, "
            r"got \(N, 4, 8, 1\)",
        ),
        (
            ConvTranspose2D(1, 4, 3, padding=2),
            (1, 1, 1),
            r"ConvTranspose2D\(1 -> 4, 3x3, padding 2\) expects larger images: its padding cuts "
            r"everything off, got \(N, 1, 1, 1\)",
        ),
        (
            Sequential(Conv2D(1, 2, 3), Flatten(), Conv2D(2, 3, 3)),
            (4, 4, 1),
            r"layer 2 Conv2D\(2 -> 3, 3x3\) expects \(N, H, W, 2\), got \(N, 32\)",
        ),
    ],
    ids=str,
)
def test_a_shape_error_names_layer_expected_and_given(layer, shape, message):
    with pytest.raises(ShapeError, match=rf"^D {message}"):
        Network(layer, shape, get_backend("numpy"), "D")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Conv2D(1, 2, 3, padding=3),
            r"Conv2D\(1 -> 2, 3x3, padding 3\): padding 3 must be",
        ),
        (lambda: Conv2D(0, 2, 3), "Conv2D: c_in is a whole number above 0, not 0"),
        (lambda: ConvTranspose2D(1, -4, 3), "c_out is a whole number above 0, not -4"),
        (lambda: Conv2D(1.5, 2, 3), r"Conv2D: c_in is a whole number above 0, not 1\.5"),
        (lambda: Conv2D(1, 2, 3, padding=True), "unknown padding True"),
        (lambda: Conv2D(1, 2, 3, padding="full"), r"unknown padding 'full': choose SAME, VALID"),
        (lambda: Conv2D(1, 2, 3, 0), r"kernel \(3, 3\) and stride \(0, 0\) must be at least 1"),
        (
            lambda: ConvTranspose2D(1, 2, 3, 2, 1, 2),
            r"ConvTranspose2D\(1 -> 2, 3x3, .*\): output_padding \(2, 2\) must be at least 0 and "
            r"less than the stride \(2, 2\)",
        ),
        (lambda: ConvTranspose2D(1, 2, 3, 2, "SAME", 1), "goes with explicit padding only"),
    ],
)
def test_an_option_without_sense_names_the_layer(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_numpys_whole_numbers_are_whole_numbers():
    one = np.int64(1)
    layer = Conv2D(one, one + 1, one + 2, one, one)
    assert layer.output_shape((5, 5, 1)) == (5, 5, 2)
    layer = Conv2D(1, 2, 3, padding=((one, 0), (0, one)))
    assert layer.output_shape((5, 5, 1)) == (4, 4, 2)


def test_a_layer_without_a_network_says_so():
    backend = get_backend("numpy")
    with pytest.raises(ShapeError, match="does not know the size of its images: put it into a"):
        Conv2D(1, 2, 3).forward(np.zeros((1, 4, 4, 1), "float32"), Cache(backend))


# ---- planted mistakes ----------------------------------------------------------------------------


class FlippedKernel(DirectConvolution):
    """A true convolution where a cross-correlation is meant, consistently."""

    def lift_weight(self, w, cache, name):
        return np.ascontiguousarray(w[::-1, ::-1])

    def add_weight(self, X, Y, out):
        out[::-1, ::-1] += super().add_weight(X, Y, np.zeros_like(out))
        return out


class FlippedForward(DirectConvolution):
    def output(self, X, W, out, b=None):
        return super().output(X, np.ascontiguousarray(W[::-1, ::-1]), out, b)


class PadsOneMore(DirectConvolution):
    """SAME with its odd pixel of padding before the image, as in some libraries."""

    def __init__(self, backend, geometry, c_in, c_out):
        before = tuple(b + 1 for b in geometry.before)
        super().__init__(backend, geometry._replace(before=before), c_in, c_out)


class PadsForwardOnly(DirectConvolution):
    def output(self, X, W, out, b=None):
        return PadsOneMore(self.backend, self.geometry, self.c_in, self.c_out).output(X, W, out, b)


class LosesTheRemainder(DirectConvolution):
    """col2im that leaves alone the pixels which no kernel reached."""

    def input(self, Y, W, out):
        size = tuple(s.stop for s in self.pixels[1:])
        fresh = super().input(Y, W, out.copy())
        out[:, : size[0], : size[1]] = fresh[:, : size[0], : size[1]]
        return out


class OverwritesTheGradient(DirectConvolution):
    def add_weight(self, X, Y, out):
        out.fill(0.0)
        return super().add_weight(X, Y, out)


class SwapsTheStrides(DirectConvolution):
    def __init__(self, backend, geometry, c_in, c_out):
        super().__init__(backend, geometry._replace(stride=geometry.stride[::-1]), c_in, c_out)


class ForgetsTheBias(Conv2D):
    def backward(self, dy, cache, param_grads=True, input_grad=True):
        self.bias = False
        try:
            return super().backward(dy, cache, param_grads, input_grad)
        finally:
            self.bias = True


class MovesTheBias(Conv2D):
    def jvp(self, t, cache):
        ty = super().jvp(t, cache)
        ty += self.b
        return ty


class ForgetsTheTangent(Conv2D):
    def jvp_backward(self, dy, dty, cache, param_grads=True):
        dx, dt = super().jvp_backward(dy, dty, cache, False)
        if param_grads and dy is not None:
            self.backward(dy, cache, input_grad=False)
        return dx, dt


def battery(plan, layer=None, size=(6, 7, 2)):
    def backend_of(dtype):
        backend = get_backend("numpy", dtype)
        backend._plan = lambda g, c_in, c_out: plan(backend, g, c_in, c_out)
        return backend

    check_layer(layer or Conv2D(2, 3, 3, (2, 3), "VALID"), size, train=(True,), backend=backend_of)


@pytest.mark.parametrize(
    "plan", [FlippedForward, PadsForwardOnly, LosesTheRemainder, OverwritesTheGradient]
)
def test_the_battery_finds_a_wrong_plan(plan):
    battery(DirectConvolution)
    with pytest.raises(GradientError):
        battery(plan)


@pytest.mark.parametrize("layer", [ForgetsTheBias, MovesTheBias, ForgetsTheTangent])
def test_the_battery_finds_a_wrong_layer(layer):
    battery(DirectConvolution, Conv2D(2, 3, 3))
    with pytest.raises(GradientError):
        battery(DirectConvolution, layer(2, 3, 3))


@pytest.mark.parametrize("plan", [FlippedKernel, PadsOneMore, SwapsTheStrides])
def test_a_mistake_made_consistently_passes_the_battery_and_fails_the_loops(plan):
    """A gradient check proves that backward fits forward, not that forward is a convolution."""
    g = conv_geometry((7, 8), (3, 4), (2, 3), "SAME")
    if plan is not SwapsTheStrides:
        battery(plan, Conv2D(2, 3, 3, (2, 3)), (7, 8, 2))
    backend = get_backend("numpy", "float64")
    backend._plan = lambda g, c_in, c_out: plan(backend, g, c_in, c_out)
    x, w, y = arrays(g, 2, 2, 3)
    got, expected = derivatives(backend, g, x, w, y), by_loops(g, x, w, y)
    worst = max(
        float(np.abs(ours - theirs).max()) for ours, theirs in zip(got, expected, strict=True)
    )
    assert not worst < 0.1
