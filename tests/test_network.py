"""A network: views into flat arrays, state by name, copies, and a guarded entry."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tinygan import Network, Noise, get_backend
from tinygan.errors import CheckpointError, ShapeError
from tinygan.nn import BatchNorm, Dense, LeakyReLU, Maxout, Sequential, Tanh


def make(dtype="float64", width=4, name="G", seed=0):
    backend = get_backend("numpy", dtype)
    body = Sequential(
        Dense(3, width),
        LeakyReLU(),
        BatchNorm(width),
        Maxout(width, 2, 3),
        Tanh(),
        Dense(2, 1, b=None),
    )
    return Network(body, (3,), backend, name, Noise(seed, backend))


X = np.random.default_rng(0).standard_normal((5, 3))
NAMES = ["0.W", "0.b", "2.gamma", "2.beta", "3.dense.W", "3.dense.b", "5.W"]


# ---- views -------------------------------------------------------------------------------------


def test_every_parameter_is_a_view_and_the_views_tile_the_flat_array():
    net = make()
    named = net.named_parameters()
    assert list(named) == NAMES
    assert list(net.named_statistics()) == ["2.running_mean", "2.running_var"]
    net.parameters[...] = np.arange(net.parameter_count)
    together = np.concatenate([view.reshape(-1) for view in named.values()])
    np.testing.assert_array_equal(together, np.arange(net.parameter_count))
    assert net.parameter_count == 3 * 4 + 4 + 4 + 4 + 4 * 6 + 6 + 2


def test_gradients_lie_as_parameters_do():
    net = make()
    for _, layer in net.layers():
        for name in layer.parameters:
            layer.views["d" + name][...] = layer.views[name]
    np.testing.assert_array_equal(net.gradients, net.parameters)


def test_no_statement_tears_a_layer_off():
    net = make()
    dense = net.body.layers[0]
    dense.W = np.ones((3, 4))
    dense.W *= 2.0
    dense.W += dense.W
    dense.dW -= 1.0
    np.testing.assert_array_equal(net.parameters[:12], np.full(12, 4.0))
    np.testing.assert_array_equal(net.gradients[:12], np.full(12, -1.0))
    assert np.shares_memory(dense.W, net.parameters)
    with pytest.raises(AttributeError):
        del dense.W
    with pytest.raises(ValueError, match="broadcast"):
        dense.W = np.ones((4, 3))
    with pytest.raises(AttributeError, match=r"Dense\(2 -> 1\) has no b yet"):
        _ = net.body.layers[5].b


def test_statistics_start_at_zero_and_one():
    net = make()
    np.testing.assert_array_equal(net.statistics, [0] * 4 + [1] * 4)


def test_a_layer_used_in_the_body_sees_an_optimisers_move():
    net, site = make(), None
    site = net.cache("x")
    before = net.forward(X, site).copy()
    net.parameters *= 2.0
    assert not np.allclose(net.forward(X, site), before)


# ---- the entry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((5, 4)), r"^D expects \(N, 3\) float64, got \(5, 4\) float64$"),
        (np.ones(3), r"^D expects \(N, 3\) float64, got \(3,\) float64$"),
        (np.ones((5, 3), "float32"), r"^D expects \(N, 3\) float64, got \(5, 3\) float32$"),
        (np.ones((5, 3), "int64"), r"got \(5, 3\) int64$"),
    ],
    ids=["width", "no batch", "float32", "int64"],
)
def test_another_shape_or_dtype_is_refused(x, message):
    net = make(name="D")
    with pytest.raises(ShapeError, match=message):
        net.forward(x, net.cache("x"))


def test_foreign_arrays_are_refused_with_the_fix():
    net = make(name="D")
    with pytest.raises(
        TypeError, match=r"the input of D must be a numpy.ndarray.*got builtins list"
    ):
        net.forward([[1.0, 2.0, 3.0]], net.cache("x"))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"torch Tensor.*tensor\.numpy\(\)"):
        net.forward(torch.ones(5, 3, dtype=torch.float64), net.cache("x"))


# ---- state and load ----------------------------------------------------------------------------


def test_state_and_load_round_trip_by_name():
    net, other = make(), make(seed=1)
    net.statistics[...] = np.arange(8)
    state = net.state()
    assert list(state) == [*NAMES, "2.running_mean", "2.running_var"]
    other.load(state)
    np.testing.assert_array_equal(other.parameters, net.parameters)
    np.testing.assert_array_equal(other.statistics, net.statistics)


def test_state_is_a_copy():
    net = make()
    state = net.state()
    net.parameters.fill(0)
    assert state["0.W"].any()
    state["0.W"].fill(7)
    assert not net.parameters.any()


def broken(change):
    state = make(seed=1).state()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("0.b"), CheckpointError, "G: tensor 0.b is missing in the checkpoint"),
        (
            lambda s: s.update({"9.W": np.ones(2)}),
            CheckpointError,
            "G: tensor 9.W is unknown to G",
        ),
        (
            lambda s: s.update({"5.W": np.ones((2, 3))}),
            CheckpointError,
            r"G: tensor 5.W has shape \(2, 1\) here and \(2, 3\) in the checkpoint",
        ),
        (
            lambda s: s.update({"2.running_var": [1.0] * 4}),
            TypeError,
            "G: tensor 2.running_var must be a numpy.ndarray",
        ),
    ],
    ids=["missing", "unknown", "shape", "list"],
)
def test_load_refuses_what_is_not_ours_before_it_copies_anything(change, error, message):
    net = make()
    before, statistics = net.parameters.copy(), net.statistics.copy()
    with pytest.raises(error, match=message):
        net.load(broken(change))
    np.testing.assert_array_equal(net.parameters, before)
    np.testing.assert_array_equal(net.statistics, statistics)


def test_load_refuses_another_architecture_and_tensors_of_another_library():
    with pytest.raises(CheckpointError, match=r"0\.W has shape \(3, 4\) here and \(3, 5\)"):
        make().load(make(width=5).state())
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(a) for name, a in make().state().items()}
    with pytest.raises(
        TypeError, match=r"0\.\w must be a numpy\.ndarray, got torch Tensor: .*tensor\.numpy"
    ):
        make().load(state)


def test_load_converts_the_dtype():
    net = make("float32")
    net.load(make("float64", seed=1).state())
    assert net.parameters.dtype == np.float32
    np.testing.assert_allclose(net.parameters, make(seed=1).parameters, rtol=1e-6)


# ---- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [Network.copy, copy.deepcopy])
def test_a_copy_is_independent(duplicate):
    net = make()
    net.statistics += 3.0
    twin = duplicate(net)
    np.testing.assert_array_equal(twin.parameters, net.parameters)
    np.testing.assert_array_equal(twin.statistics, net.statistics)
    for ours, theirs in [
        (net.parameters, twin.parameters),
        (net.gradients, twin.gradients),
        (net.statistics, twin.statistics),
        (net.body.layers[0].W, twin.body.layers[0].W),
    ]:
        assert not np.shares_memory(ours, theirs)
    assert np.shares_memory(twin.body.layers[3].dense.W, twin.parameters)
    assert np.shares_memory(net.body.layers[3].dense.W, net.parameters)
    before = net.forward(X, net.cache("x")).copy()
    np.testing.assert_array_equal(twin.forward(X, twin.cache("x")), before)
    twin.parameters.fill(0)
    twin.forward(X, twin.cache("x"))
    np.testing.assert_array_equal(net.forward(X, net.cache("x")), before)


def test_a_copy_can_have_another_dtype():
    net = make("float32")
    twin = net.copy(get_backend("numpy", "float64"))
    assert twin.parameters.dtype == twin.forward(X, twin.cache("x")).dtype == np.float64
    np.testing.assert_array_equal(twin.parameters, net.parameters)
    assert net.backend.dtype == np.float32


def test_a_network_inside_something_deep_copied():
    net = make()
    first, second = copy.deepcopy([net, net])
    assert first is second
    assert first is not net


# ---- gradients and diagnosis -------------------------------------------------------------------


def test_gradients_accumulate_over_call_sites():
    net = make()
    a, b = net.cache("a"), net.cache("b")
    dy = np.ones((5, 1))
    net.forward(X, a)
    net.forward(2 * X + 1, b)
    net.backward(dy, a)
    first = net.gradients.copy()
    net.gradients.fill(0)
    net.backward(dy, b)
    second = net.gradients.copy()
    net.backward(dy, a)
    np.testing.assert_allclose(net.gradients, first + second, rtol=1e-12)


def test_gradients_without_parameter_gradients_are_left_alone():
    net = make()
    site = net.cache("x")
    net.forward(X, site)
    net.gradients.fill(5.0)
    net.backward(np.ones((5, 1)), site, param_grads=False)
    np.testing.assert_array_equal(net.gradients, np.full(net.parameter_count, 5.0))


def test_first_nonfinite_names_network_layer_and_tensor():
    net = make(name="D")
    assert net.first_nonfinite() is None
    net.body.layers[3].dense.W[0, 0] = np.nan
    assert net.first_nonfinite() == "D layer 3.dense Dense(4 -> 6): W"
    net.body.layers[2].running_var[1] = np.inf
    assert net.first_nonfinite() == "D layer 2 BatchNorm(4): running_var"


def test_repr_names_the_size():
    assert repr(make()) == "G (56 parameters)"


def test_one_layer_object_at_two_places_is_refused() -> None:
    layer = Dense(3, 3)
    with pytest.raises(ShapeError, match="one layer object at two places"):
        Network(Sequential(layer, layer), (3,), get_backend("numpy"))
