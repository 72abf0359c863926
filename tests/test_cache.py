"""Call sites: one memory each, reused at every step, with a mode that finds misuse."""

from __future__ import annotations

import numpy as np
import pytest

from tinygan import Network, Noise, get_backend
from tinygan.nn import (
    BatchNorm,
    Cache,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Maxout,
    Sequential,
    Tanh,
)


def make(dtype="float64"):
    backend = get_backend("numpy", dtype)
    body = Sequential(
        Dense(3, 4), BatchNorm(4), LeakyReLU(), Dropout(0.5), Maxout(4, 3, 2), Tanh(), Dense(3, 2)
    )
    return Network(body, (3,), backend, "D"), Noise(0, backend, step=1)


def x_of(seed, n=5):
    return np.random.default_rng(seed).standard_normal((n, 3))


def test_buffers_keep_their_address_and_allocate_once():
    net, noise = make()
    site = net.cache("x", noise=noise)

    def addresses():
        found, todo = {}, [site]
        while todo:
            cache = todo.pop()
            found |= {(cache.path, *k): id(v) for k, v in cache._buffers.items()}
            todo += cache._children.values()
        return found

    before = None
    for step in range(3):
        y = net.forward(x_of(step), site)
        dx = net.backward(y, site)
        seen = (addresses(), y.ctypes.data, dx.ctypes.data)
        assert before in (None, seen)
        before = seen


def test_an_output_is_a_loan_until_the_next_forward():
    net, noise = make()
    site = net.cache("x", noise=noise)
    first = net.forward(x_of(0), site)
    second = net.forward(x_of(1), site)
    assert np.shares_memory(first, second)


def test_call_sites_share_no_memory():
    net, noise = make()
    a, b = (net.forward(x_of(0), net.cache(name, noise=noise)) for name in "ab")
    assert not np.shares_memory(a, b)


def test_new_tells_name_shape_and_dtype_apart():
    cache = Cache(get_backend("numpy", "float32"))
    a = cache.new("y", (2, 3))
    assert cache.new("y", (2, 3)) is a
    assert a.dtype == np.float32
    others = [cache.new("dy", (2, 3)), cache.new("y", (3, 2)), cache.new("y", (2, 3), "bool")]
    assert not any(np.shares_memory(a, b) for b in others)


def test_places_are_indexed_and_carry_mode_and_noise():
    noise = Noise(0, get_backend("numpy"))
    cache = Cache(noise.backend, "D(x)", train=False, noise=noise)
    assert cache[3]["dense"] is cache[3]["dense"]
    assert cache[3]["dense"].path == "D(x)/3/dense"
    assert cache[3]["dense"].train is False
    assert cache[3]["dense"].noise is noise


def test_backward_before_forward_says_so():
    net, _ = make()
    with pytest.raises(RuntimeError, match=r"nothing kept as 'x' at 'x/6': call forward first"):
        net.backward(np.ones((1, 2)), net.cache("x"))


# ---- check=True --------------------------------------------------------------------------------


def test_check_mode_gives_the_same_numbers():
    net, noise = make()
    results = []
    for check in (False, True):
        site = net.cache("x", noise=noise, check=check)
        for seed in (0, 1):
            y = net.forward(x_of(seed), site)
            net.gradients.fill(0)
            dx = net.backward(y, site)
            dx = net.backward(y, site)
        results.append((y.copy(), dx.copy(), net.gradients.copy()))
    for plain, checked in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, checked)


def test_check_mode_poisons_an_ended_loan():
    net, noise = make()
    site = net.cache("x", noise=noise, check=True)
    first = net.forward(x_of(0), site)
    assert np.isfinite(first).all()
    second = net.forward(x_of(1), site)
    assert np.isnan(first).all()
    assert np.isfinite(second).all()


def test_check_mode_notices_that_a_kept_input_was_changed():
    net, noise = make()
    site, x = net.cache("x", noise=noise, check=True), x_of(0)
    y = net.forward(x, site)
    x += 1.0
    with pytest.raises(RuntimeError, match=r"'x' kept at 'x/0' was changed by somebody"):
        net.backward(y, site)


def test_check_mode_notices_a_stale_loan_between_networks():
    """D judges fakes that G's next pass has overwritten: backward through D must not go on."""
    backend = get_backend("numpy", "float64")
    G = Network(Sequential(Dense(3, 3)), (3,), backend, "G")
    D = Network(Sequential(Dense(3, 1)), (3,), backend, "D")
    at_G, at_D = G.cache("z", check=True), D.cache("G(z)", check=True)
    logits = D.forward(G.forward(x_of(0), at_G), at_D)
    G.forward(x_of(1), at_G)
    with pytest.raises(RuntimeError, match="was changed by somebody"):
        D.backward(logits, at_D)


def test_first_nonfinite_names_path_and_buffer():
    net, noise = make()
    site = net.cache("D(x)", noise=noise)
    net.forward(x_of(0), site)
    assert site.first_nonfinite() is None
    net.body.layers[4].dense.b = np.inf
    with np.errstate(all="ignore"):
        net.forward(x_of(0), site)
    assert site.first_nonfinite() == "D(x)/4: y"


# ---- gradients that are lent ---------------------------------------------------------------------


class Through(Dense):
    """Its backward hands on what it gets."""

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return dy


def spying(layers, seen):
    """The layers, each backward of which notes where dy and dx lie."""

    def spy(layer):
        backward = layer.backward

        def noted(dy, cache, param_grads=True, input_grad=True):
            dx = backward(dy, cache, param_grads, input_grad)
            seen.append((dy, dx))
            return dx

        layer.backward = noted
        return layer

    return [spy(layer) for layer in layers]


def test_gradients_between_layers_take_turns_in_two_buffers():
    """[vjp.6]: of all call sites; never the one that is being read, the last one apart."""
    seen, backend = [], get_backend("numpy", "float64")
    layers = [Dense(3, 4), Tanh(), Through(4, 4), LeakyReLU(), Sequential(Tanh(), Tanh()), Tanh()]
    net = Network(Sequential(*spying(layers, seen)), (3,), backend)
    sites = [net.cache(name) for name in "ab"]
    ys = [net.forward(x_of(i), site) for i, site in enumerate(sites)]
    last = [net.backward(y, site) for y, site in zip(ys, sites, strict=True)]
    for (dy, dx), layer in zip(seen, 2 * layers[::-1], strict=True):
        assert np.shares_memory(dy, dx) is isinstance(layer, Through)
    both = backend._workspaces["read once"]
    lent = {dx.ctypes.data for _, dx in seen if np.shares_memory(dx, both)}
    assert len(lent) == 2
    assert not np.shares_memory(*last)
    assert not any(np.shares_memory(dx, both) for dx in last)


class Residual(Layer):
    """y = x + f(x), f a chain."""

    def __init__(self, *layers):
        super().__init__()
        self.chain = Sequential(*layers)

    def children(self):
        return [("chain", self.chain)]

    def output_shape(self, shape):
        return self.chain.output_shape(shape)

    def forward(self, x, cache):
        return x + self.chain.forward(x, cache["chain"])

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return dy + self.chain.backward(dy, cache["chain"], param_grads)


def test_a_branch_around_a_chain_keeps_its_gradient():
    """The chain's own gradients leave dy alone, which the branch reads after them."""
    results = []
    for check in (False, True):
        residual = Residual(Dense(4, 4), Tanh(), Dense(4, 4), Tanh())
        body = Sequential(Dense(3, 4), residual, Tanh())
        net = Network(body, (3,), get_backend("numpy", "float64"))
        site = net.cache("x", check=check)
        dx = net.backward(net.forward(x_of(0), site), site)
        results.append((dx.copy(), net.gradients.copy()))
    for lent, fresh in zip(*results, strict=True):
        np.testing.assert_array_equal(lent, fresh)


def test_the_callers_gradient_is_not_lent():
    """Neither by a first layer that hands on a view: another call site leaves it alone."""
    layers = Flatten(), Dense(4, 5), Tanh(), Dense(5, 2), Tanh()
    net = Network(Sequential(*layers), (2, 2), get_backend("numpy", "float64"))
    sites = [net.cache(name) for name in "ab"]
    ys = [net.forward(np.ones((3, 2, 2)) + i, site) for i, site in enumerate(sites)]
    first = net.backward(ys[0], sites[0])
    before = first.copy()
    net.backward(ys[1], sites[1])
    np.testing.assert_array_equal(first, before)


def test_lent_gradients_are_those_of_fresh_memory():
    """With `check` every gradient has memory of its own."""
    results = []
    for check in (False, True):
        net, noise = make()
        site = net.cache("x", noise=noise, check=check)
        dx = net.backward(net.forward(x_of(0), site), site)
        results.append((dx.copy(), net.gradients.copy()))
    for lent, fresh in zip(*results, strict=True):
        np.testing.assert_array_equal(lent, fresh)


# ---- outputs that are lent -----------------------------------------------------------------------


def outputs(layers, train=True):
    """Where the outputs of a chain lie after one forward pass: [in the two buffers or not]."""
    seen, backend = [], get_backend("numpy", "float64")

    def spy(layer):
        forward = layer.forward
        layer.forward = lambda x, cache: seen.append(forward(x, cache)) or seen[-1]
        return layer

    net = Network(Sequential(*map(spy, layers)), (3,), backend)
    net.forward(x_of(0), net.cache("x", train, Noise(0, backend, step=1)))
    both = backend._workspaces.get("read once", np.empty(0))
    return [np.shares_memory(y, both) for y in seen]


def test_outputs_that_nobody_needs_are_lent():
    """[vjp.7]: those that neither their maker nor their reader looks at again."""
    layers = Dense(3, 4), BatchNorm(4), LeakyReLU(), Dropout(0.5), BatchNorm(4), Tanh(), Dense(4, 3)
    #         to the norm  to LeakyReLU   its own     to the norm   to Tanh  its own  the caller's
    assert outputs(layers) == [True, True, False, True, True, False, False]
    layers = BatchNorm(3), LeakyReLU(-1.0), BatchNorm(3)  # a sign that the output does not keep
    assert outputs(layers) == [False, True, False]


def test_in_evaluation_and_beside_a_branch_nothing_is_lent():
    layers = [Dense(3, 3), BatchNorm(3), Dropout(0.5), BatchNorm(3)]
    assert not any(outputs(layers, train=False))
    assert outputs([*layers, Residual(Dense(3, 3), BatchNorm(3)), Tanh()])[3:] == [
        False,
        False,
        False,
    ]


def test_lent_outputs_leave_every_pass_as_it_is():
    """With `check` every output has memory of its own; a second site's pass does not disturb."""
    results = []
    for check in (False, True):
        net, noise = make()
        site, other = (net.cache("x", noise=noise, check=check) for _ in range(2))
        y = net.forward(x_of(0), site).copy()
        net.forward(x_of(1), other)
        dx = net.backward(np.ones_like(y), site)
        results.append((y, dx.copy(), net.gradients.copy(), net.jvp(x_of(2), site)))
    for lent, fresh in zip(*results, strict=True):
        np.testing.assert_array_equal(lent, fresh)


def test_a_layer_that_needs_more_than_it_says_goes_wrong():
    """Negative control: the loan is real."""

    class Forgets(LeakyReLU):
        def needs(self, cache):
            return ""

    results = []
    for kind in (LeakyReLU, Forgets):
        body = Sequential(Dense(3, 4), kind(), BatchNorm(4), Dense(4, 4))
        net = Network(body, (3,), get_backend("numpy", "float64"))
        site = net.cache("x")
        results.append(net.backward(net.forward(x_of(0), site), site).copy())
    assert not np.allclose(*results)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 0, 3), (3, 0, 1, 2)])
def test_a_lent_gradient_lies_as_its_model_does(order):
    backend = get_backend("numpy", "float64")
    shape = (2, 3, 4, 5)
    x = np.empty([shape[i] for i in order]).transpose(np.argsort(order))
    lent, own = Cache(backend), Cache(backend)
    lent.passes_on = True
    a, b = lent.like("dx", x), own.like("dx", x)
    assert (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    assert lent.images("dx", shape).strides == own.images("dx", shape).strides
    assert lent.new("dx", shape).strides == own.new("dx", shape).strides
    assert lent.like("y", x) is lent.like("y", x)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x[:, ::-1],
        lambda x: x[:, :, ::-1],
        lambda x: x[::-1],
        lambda x: x[:, :1],
        lambda x: x[:, :, :1],
        lambda x: x[:1],
        lambda x: x[..., :1],
        lambda x: x[:, :1, :, :1],
        lambda x: x.transpose(0, 3, 2, 1),
        lambda x: np.broadcast_to(x[:1], x.shape),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 0, 3)])
def test_rows_of_lent_memory_stand_as_those_of_ones_own(look, order):
    """Also where an axis runs backwards, or has one entry and any stride."""
    backend = get_backend("numpy", "float64")
    shape = (5, 4, 3, 2)
    memory = np.arange(120.0).reshape([shape[i] for i in order])
    x = look(memory.transpose(np.argsort(order)))
    lent, own = Cache(backend), Cache(backend)
    lent.passes_on = True
    both = lent.like("dx", x), own.like("dx", x)
    for like in both:
        like[...] = x
        assert np.shares_memory(backend.rows(like), like)
    np.testing.assert_array_equal(*map(backend.rows, both))


@pytest.mark.parametrize("turned", [np.s_[::-1], np.s_[:, ::-1], np.s_[:, :, ::-1]])
def test_images_that_run_backwards_are_normalised_alike(turned):
    backend = get_backend("numpy", "float64")
    x = backend.empty_images((5, 6, 6, 3))
    x[...] = np.random.default_rng(0).standard_normal(x.shape)
    net = Network(Sequential(BatchNorm(3), BatchNorm(3)), (6, 6, 3), backend)
    ys = [net.forward(x[turned], net.cache("x", check=check)).copy() for check in (False, True)]
    np.testing.assert_array_equal(*ys)


@pytest.mark.parametrize("size", [(1, 4), (4, 1), (1, 1)])
def test_one_channel_and_one_row_have_the_gradient_of_fresh_memory(size):
    rng, results = np.random.default_rng(0), []
    x, dy = rng.standard_normal((5, *size, 3)), rng.standard_normal((5, *size, 1))
    for check in (False, True):
        body = Sequential(Conv2D(3, 1, 1), BatchNorm(1))
        net = Network(body, (*size, 3), get_backend("numpy", "float64"))
        site = net.cache("x", check=check)
        net.forward(x, site)
        net.backward(dy, site)
        results.append(net.gradients.copy())
    np.testing.assert_array_equal(*results)
