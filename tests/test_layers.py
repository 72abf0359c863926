"""Every layer through the battery, against PyTorch where it is installed, and its own promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tinygan import Network, Noise, get_backend
from tinygan.errors import OptionError, ShapeError
from tinygan.gradcheck import check_layer
from tinygan.nn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Maxout,
    ReLU,
    Reshape,
    Sequential,
    Sigmoid,
    Softplus,
    Tanh,
)

NO_REVERSE = ("backward", "jvp")  # BatchNorm refuses the reverse of its jvp

size = st.integers(1, 7)
batch = st.integers(1, 5)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
places = st.just(()) | st.tuples(st.integers(1, 4), st.integers(1, 4))  # of an image
geometries = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it opens the same backend
)


def bound(layer, input_shape, dtype="float64", seed=0):
    """The layer in a network of its own, its parameters all drawn from N(0, 1/4)."""
    backend = get_backend("numpy", dtype)
    net = Network(layer, input_shape, backend, "net")
    net.parameters[...] = Noise(seed, backend).normal("test", net.parameters.shape, std=0.5)
    return net, net.cache("site", noise=Noise(seed, backend, step=1))


# ---- the battery: a new layer gets all of it by one line ---------------------------------------


@geometries
@given(batch, size, size, st.booleans())
def test_dense(open_backend, n, n_in, n_out, bias):
    check_layer(
        Dense(n_in, n_out) if bias else Dense(n_in, n_out, b=None),
        (n_in,),
        batch=n,
        backend=open_backend,
    )


@geometries
@given(batch, shapes, st.sampled_from([0.2, 0.3, 0.01, 0.0, -0.0, 1.5, -1.0]))
def test_leaky_relu(open_backend, n, shape, slope):
    check_layer(LeakyReLU(slope), shape, batch=n, backend=open_backend)


@pytest.mark.parametrize("layer", [ReLU(), Tanh(), Sigmoid(), Softplus()], ids=repr)
@geometries
@given(batch, shapes)
def test_activations(open_backend, layer, n, shape):
    check_layer(layer, shape, batch=n, backend=open_backend)


@geometries
@given(batch, size, size, st.integers(1, 5))
def test_maxout(open_backend, n, n_in, units, pieces):
    check_layer(Maxout(n_in, units, pieces), (n_in,), batch=n, backend=open_backend)


@geometries
@given(batch, shapes, st.sampled_from([0.8, 0.5, 1.0, 1 / 256]))
def test_dropout(open_backend, n, shape, keep):
    check_layer(Dropout(keep), shape, batch=n, backend=open_backend)


@geometries
@given(batch, size, places, st.sampled_from([1e-5, 1e-3]))
def test_batch_norm(open_backend, n, channels, before, eps):
    assume(n * math.prod(before) > 2)  # two numbers become -1 and 1: no slope left to compare
    check_layer(
        BatchNorm(channels, eps=eps),
        (*before, channels),
        batch=n,
        passes=NO_REVERSE,
        backend=open_backend,
    )


@geometries
@given(batch, size, st.sampled_from([(), (2,), (2, 3)]), st.sampled_from([1e-5, 1e-3]))
def test_layer_norm(open_backend, n, channels, before, eps):
    assume(math.prod(before) * channels != 2)  # they become -1 and 1: no slope left to compare
    check_layer(LayerNorm(channels, eps), (*before, channels), batch=n, backend=open_backend)


@pytest.mark.parametrize("activation", [LeakyReLU(), Softplus()], ids=repr)
def test_layer_norm_between_convolutions(open_backend, activation):
    chain = Sequential(
        Conv2D(2, 3, 3, stride=2), LayerNorm(3), activation, Conv2D(3, 2, 3), LayerNorm(2)
    )
    check_layer(chain, (5, 4, 2), backend=open_backend, entries=30)


@geometries
@given(batch, shapes)
def test_flatten_and_reshape(open_backend, n, shape):
    count = math.prod(shape)
    check_layer(Flatten(), shape, batch=n, backend=open_backend)
    check_layer(Reshape(count), shape, batch=n, backend=open_backend)
    check_layer(Reshape(1, count, 1), shape, batch=n, backend=open_backend)


@settings(geometries, max_examples=6)
@given(batch, size, st.sampled_from([0.5, 0.8]))
def test_sequential(open_backend, n, width, keep):
    chain = Sequential(
        Flatten(),
        Dense(6, width),
        Tanh(),
        Sequential(Maxout(width, 3, 2), Dropout(keep)),
        Dense(3, 2),
        LeakyReLU(),
        Dense(2, 4, b=None),
        Sigmoid(),
        Reshape(2, 2, 1),
    )
    check_layer(chain, (2, 3, 1), batch=n, backend=open_backend)


def test_sequential_with_batch_norm(open_backend):
    chain = Sequential(Dense(4, 5), BatchNorm(5), LeakyReLU(), Dense(5, 3), BatchNorm(3), Tanh())
    check_layer(chain, (4,), batch=5, passes=NO_REVERSE, backend=open_backend)


def test_an_empty_sequential_is_the_identity(open_backend):
    check_layer(Sequential(), (3,), backend=open_backend)


# ---- promises of single layers -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_at_extremes(dtype):
    x = np.array([[-1e4, -200.0, -1.0, -0.0, 0.0, 1.0, 200.0, 1e4]], dtype)
    expected = {
        LeakyReLU(0.2): np.where(x > 0, x, np.asarray(0.2, dtype) * x),
        ReLU(): np.maximum(x, 0),
        Tanh(): np.tanh(x),
        Sigmoid(): np.where(x < -100, 0, 1 / (1 + np.exp(-np.clip(x, -80, None)))),
        Softplus(): np.logaddexp(x, 0, dtype=dtype),
    }
    for layer, y in expected.items():
        net, site = bound(layer, (8,), dtype)
        np.testing.assert_allclose(net.forward(x, site), y, rtol=1e-6, atol=1e-34)
        assert np.isfinite(net.backward(x, site)).all()


def test_sigmoid_keeps_its_relative_precision_far_left():
    net, site = bound(Sigmoid(), (2,))
    y = net.forward(np.array([[-40.0, -300.0]]), site)
    np.testing.assert_allclose(y, np.exp([[-40.0, -300.0]]), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softplus_and_its_derivatives_keep_their_relative_precision(dtype):
    """f' and f'' are found from y alone: 1 - exp(-y) by subtraction would be 0 far to the left."""
    x = np.array([[-60.0, -20.0, -1.0, 0.0, 1.0, 20.0, 60.0]])
    net, site = bound(Softplus(), (7,), dtype)
    one, given_x = np.ones((1, 7), dtype), x.astype(dtype)
    s, not_s = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    close = {"rtol": 1e-5 if dtype == "float32" else 1e-12, "atol": 1e-36}
    np.testing.assert_allclose(net.forward(given_x, site), np.logaddexp(x, 0), **close)
    np.testing.assert_allclose(net.backward(one, site), s, **close)
    net.jvp(one, site)
    np.testing.assert_allclose(net.jvp_backward(None, one, site)[0], s * not_s, **close)


def test_maxout_gives_a_tie_to_the_first_piece():
    net, site = bound(Maxout(2, units=1, pieces=3), (2,))
    net.body.dense.W = np.array([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    net.body.dense.b = 0.0
    y = net.forward(np.array([[2.0, 5.0]]), site)
    net.backward(np.array([[1.0]]), site)
    assert y == 6.0
    np.testing.assert_array_equal(net.body.dense.dW, [[0, 2, 0], [0, 5, 0]])


# ---- dropout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.8, 0.5, 0.3])
def test_dropout_keeps_the_share_it_was_told_and_the_mean(keep):
    net, site = bound(Dropout(keep), (100_000,))
    y = net.forward(np.ones((1, 100_000)), site)
    q = round(256 * keep)
    assert set(np.unique(y)) == {0.0, 256 / q}  # so that the expectation is exactly x
    deviation = math.sqrt((1 - q / 256) / (q / 256) / 100_000)
    assert abs(y.mean() - 1.0) < 4 * deviation


def test_dropout_keeps_everything_at_one_and_in_evaluation():
    x = np.random.default_rng(0).standard_normal((3, 50))
    net, site = bound(Dropout(1.0), (50,))
    np.testing.assert_array_equal(net.forward(x, site), x)
    net, _ = bound(Dropout(0.5), (50,))
    np.testing.assert_array_equal(net.forward(x, net.cache("eval", train=False)), x)


def test_dropout_masks_depend_on_place_step_and_sub_and_on_nothing_else():
    backend = get_backend("numpy", "float64")
    noise = Noise(3, backend, step=5)
    net = Network(Sequential(Dropout(0.5), Dropout(0.5)), (64,), backend)
    x = np.ones((2, 64))

    def mask(name="D(x)", step=5, sub=0):
        noise.step, noise.sub = step, sub
        return net.forward(x, net.cache(name, noise=noise)).copy()

    first = mask()
    np.testing.assert_array_equal(mask(), first)
    for other in (mask("D(G(z))"), mask(step=6), mask(sub=1)):
        assert (other != first).any()
    assert 0.15 < (first != 0).mean() < 0.35  # two layers, two independent masks


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_dropout_refuses_a_share_outside_its_range(keep):
    with pytest.raises(OptionError, match="Dropout keeps a share in"):
        Dropout(keep)


def test_dropout_without_noise_says_what_to_pass():
    net, _ = bound(Dropout(0.5), (3,))
    with pytest.raises(RuntimeError, match="pass noise="):
        net.forward(np.ones((1, 3)), net.cache("site"))


# ---- batch normalisation -----------------------------------------------------------------------


def test_batch_norm_normalises():
    net, site = bound(BatchNorm(3, eps=0.0), (3,))
    net.body.gamma, net.body.beta = 1.0, 0.0
    y = net.forward(np.random.default_rng(0).standard_normal((50, 3)) * 4 + 7, site)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(y.var(axis=0), 1, rtol=1e-12)


def test_batch_norm_of_a_single_sample_gives_beta_and_no_gradient():
    net, site = bound(BatchNorm(3), (3,))
    y = net.forward(np.array([[1.0, 2.0, 3.0]]), site)
    np.testing.assert_array_equal(y[0], net.body.beta)
    np.testing.assert_array_equal(net.backward(np.ones((1, 3)), site), np.zeros((1, 3)))


def test_batch_norm_statistics_move_only_when_told_and_by_keras_momentum():
    net, site = bound(BatchNorm(2, momentum=0.8), (2,))
    x = np.array([[1.0, 4.0], [3.0, 8.0]])
    net.forward(x, site)
    np.testing.assert_array_equal(net.body.running_mean, [0, 0])
    net.update_statistics(site)
    np.testing.assert_allclose(net.body.running_mean, [0.2 * 2, 0.2 * 6])
    np.testing.assert_allclose(net.body.running_var, [0.8 + 0.2 * 1, 0.8 + 0.2 * 4])


def test_batch_norm_evaluates_by_running_statistics():
    net, _ = bound(BatchNorm(2, eps=1e-3), (2,))
    bn = net.body
    bn.running_mean, bn.running_var = np.array([1.0, 2.0]), np.array([4.0, 0.25])
    x = np.random.default_rng(1).standard_normal((3, 2))
    y = net.forward(x, net.cache("eval", train=False))
    expected = bn.gamma * (x - bn.running_mean) / np.sqrt(bn.running_var + 1e-3) + bn.beta
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_refuses_the_reverse_of_its_jvp_and_points_to_layer_norm(train):
    net, _ = bound(Sequential(Dense(3, 3), BatchNorm(3)), (3,))
    site, x = net.cache("site", train=train), np.ones((4, 3))
    net.forward(x, site)
    net.jvp(x, site)
    with pytest.raises(TypeError, match=r"BatchNorm\(3\) couples the samples .* LayerNorm"):
        net.jvp_backward(None, x, site)


# ---- layer normalisation -----------------------------------------------------------------------


def test_layer_norm_normalises_each_sample_by_itself():
    net, site = bound(LayerNorm(3, eps=0.0), (2, 5, 3))
    net.body.gamma, net.body.beta = 1.0, 0.0
    x = np.random.default_rng(0).standard_normal((4, 2, 5, 3)) * 4 + 7
    y = net.forward(x, site).copy()
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(axis=(1, 2, 3)), 1, rtol=1e-12)
    others = x.copy()
    others[1:] = 0.5 * others[1:] - 3.0
    np.testing.assert_array_equal(net.forward(others, site)[0], y[0])
    evaluated = net.forward(x, net.cache("evaluation", train=False))
    np.testing.assert_array_equal(evaluated, y)


def test_layer_norm_keeps_the_order_in_memory(open_backend):
    backend = open_backend("float64")
    net = Network(LayerNorm(3), (4, 5, 3), backend, "net")
    site, images = net.cache("site"), backend.empty_images((2, 4, 5, 3))
    images[...] = Noise(0, backend).normal("x", images.shape)
    net.forward(images, site)
    passes = [site.kept("x_hat"), net.backward(images, site), net.jvp(images, site)]
    passes += net.jvp_backward(images, images, site)
    for array in passes:
        assert array.strides == images.strides


def test_layer_norm_of_a_constant_sample_gives_beta():
    net, site = bound(LayerNorm(3), (3,))
    y = net.forward(np.full((2, 3), 7.0), site)
    np.testing.assert_allclose(y, np.broadcast_to(net.body.beta, (2, 3)), atol=1e-12)
    assert np.isfinite(net.backward(np.ones((2, 3)), site)).all()


def test_only_batch_norm_couples_samples():
    kinds = [BatchNorm(2), LayerNorm(2), Dense(2, 2), Dropout(0.5), Maxout(2, 2, 2), Softplus()]
    assert [layer.couples_samples for layer in kinds] == [True, *[False] * 5]


# ---- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "given_shape", "message"),
    [
        (Dense(4, 2), (5,), r"Dense\(4 -> 2\) expects \(N, 4\), got \(N, 5\)"),
        (Dense(4, 2), (2, 2), r"Dense\(4 -> 2\) expects \(N, 4\), got \(N, 2, 2\)"),
        (Maxout(4, 2, 3), (3,), r"Maxout\(4 -> 2, 3 pieces\) expects \(N, 4\), got \(N, 3\)"),
        (BatchNorm(4), (3,), r"BatchNorm\(4\) expects \(N, \.\.\., 4\), got \(N, 3\)"),
        (LayerNorm(4), (3,), r"LayerNorm\(4\) expects \(N, \.\.\., 4\), got \(N, 3\)"),
        (Reshape(2, 2), (5,), r"Reshape\(2, 2\) expects 4 numbers a sample, got \(N, 5\)"),
        (
            Sequential(Dense(4, 3), Tanh(), Dense(2, 1)),
            (4,),
            r"layer 2 Dense\(2 -> 1\) expects \(N, 2\), got \(N, 3\), for an input \(N, 4\)",
        ),
        (
            Sequential(Tanh(), Sequential(Dense(4, 3), Dense(4, 3))),
            (4,),
            r"layer 1 layer 1 Dense\(4 -> 3\) expects \(N, 4\), got \(N, 3\), "
            r"for an input \(N, 4\)",
        ),
    ],
    ids=str,
)
def test_a_shape_error_names_layer_expected_and_given(layer, given_shape, message):
    with pytest.raises(ShapeError, match=rf"^G {message}$"):
        Network(layer, given_shape, get_backend("numpy"), "G")


def test_parameters_before_there_is_a_network():
    with pytest.raises(AttributeError, match=r"Dense\(3 -> 2\) has no W yet: a Network gives"):
        _ = Dense(3, 2).W


# ---- PyTorch -----------------------------------------------------------------------------------


def torch_twin(torch, layer, net):
    """The same function of a torch tensor, and {parameter name: torch tensor}."""
    own = {
        name: torch.tensor(view, requires_grad=True)
        for name, view in net.named_parameters().items()
    }
    functions = {
        "Dense": lambda x: x @ own["W"] + own["b"],
        "LeakyReLU": lambda x: torch.nn.functional.leaky_relu(x, 0.2),
        "ReLU": torch.relu,
        "Tanh": torch.tanh,
        "Sigmoid": torch.sigmoid,
        "Maxout": lambda x: (
            (x @ own["dense.W"] + own["dense.b"]).reshape(len(x), layer.pieces, -1).amax(dim=1)
        ),
        "BatchNorm": lambda x: torch.nn.functional.batch_norm(
            x, None, None, own["gamma"], own["beta"], training=True, eps=layer.eps
        ),
        "LayerNorm": lambda x: (
            torch.nn.functional.layer_norm(x, x.shape[1:], eps=layer.eps) * own["gamma"]
            + own["beta"]
        ),
        "Softplus": lambda x: torch.nn.functional.softplus(x, threshold=1000),
        "Flatten": lambda x: x.flatten(1),
        "Reshape": lambda x: x.reshape(len(x), *layer.shape),
    }
    return functions[type(layer).__name__], own


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Dense(5, 3), (5,)),
        (LeakyReLU(0.2), (4,)),
        (ReLU(), (4,)),
        (Tanh(), (4,)),
        (Sigmoid(), (4,)),
        (Maxout(5, 3, 4), (5,)),
        (Softplus(), (4,)),
        (BatchNorm(4, eps=1e-3), (4,)),
        (LayerNorm(4, eps=1e-3), (4,)),
        (LayerNorm(3), (2, 5, 3)),
        (Flatten(), (2, 3, 1)),
        (Reshape(3, 2), (6,)),
    ],
    ids=repr,
)
def test_layers_equal_pytorch(layer, shape):
    torch = pytest.importorskip("torch")
    net, site = bound(layer, shape)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, *shape))
    function, own = torch_twin(torch, layer, net)
    tx = torch.tensor(x, requires_grad=True)
    ty = function(tx)
    y = net.forward(x, site)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-12, atol=1e-14)
    dy = rng.standard_normal(y.shape)
    dx = net.backward(dy, site)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-10, atol=1e-13)
    layers = dict(net.layers())
    for name, tensor in own.items():
        path, _, last = name.rpartition(".")
        got = layers[path + "." if path else ""].views["d" + last]
        np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-10, atol=1e-13)


def test_batch_norm_converts_to_pytorchs_momentum_and_unbiased_variance():
    """PyTorch's momentum is 1 minus ours, and its running variance divides by N - 1."""
    torch = pytest.importorskip("torch")
    net, site = bound(BatchNorm(3, momentum=0.8), (3,))
    twin = torch.nn.BatchNorm1d(3, momentum=1 - 0.8, dtype=torch.float64)
    rng, n = np.random.default_rng(0), 5
    for _ in range(4):
        x = rng.standard_normal((n, 3)) * 2 + 1
        net.forward(x, site)
        net.update_statistics(site)
        twin(torch.tensor(x))
    np.testing.assert_allclose(net.body.running_mean, twin.running_mean.numpy(), rtol=1e-12)
    started = 0.8**4  # what is left of the start value 1, which both share
    ours = (net.body.running_var - started) * n / (n - 1) + started
    np.testing.assert_allclose(ours, twin.running_var.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dense(-3, 2), "Dense: n_in is a whole number above 0, not -3"),
        (lambda: Dense(3, 2.5), "Dense: n_out is a whole number above 0, not 2.5"),
        (lambda: Maxout(3, 2, 0), "Maxout: pieces is a whole number above 0, not 0"),
        (lambda: BatchNorm(0), "BatchNorm: n is a whole number above 0, not 0"),
        (lambda: BatchNorm(3, momentum=8), "BatchNorm: momentum lies in .*got 8, 1e-05"),
        (lambda: BatchNorm(3, eps=-1.0), "eps is not negative"),
        (lambda: LayerNorm(3, eps=math.nan), "LayerNorm's eps is not negative: got nan"),
        (lambda: LeakyReLU(math.nan), "LeakyReLU's slope is a finite number, not nan"),
    ],
)
def test_a_layer_refuses_numbers_without_meaning(make, words):
    with pytest.raises(OptionError, match=words):
        make()
