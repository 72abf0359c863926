"""The Condition layer: labels joined to vectors and images, the table's gradient, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygan import Network, Noise, get_backend
from tinygan.errors import OptionError, ShapeError
from tinygan.gradcheck import GradientError, check_layer
from tinygan.nn import Cache, Condition, Dense, Sequential, Tanh

draws = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it opens the same backend
)
vectors_and_images = st.one_of(
    st.tuples(st.integers(1, 5)), st.tuples(*[st.integers(1, 4)] * 2, st.integers(1, 3))
)
rng = np.random.default_rng(0)


def bound(layer, input_shape, backend, check=False):
    net = Network(layer, input_shape, backend, "net", Noise(3, backend))
    return net, net.cache("site", check=check)


# ---- the battery -------------------------------------------------------------------------------


@draws
@given(st.integers(1, 5), vectors_and_images, st.integers(1, 4), st.sampled_from([None, 1, 3]))
def test_the_battery(open_backend, n, shape, classes, embedding):
    labels = np.random.default_rng(n).integers(0, classes, n)
    layer = Condition(classes, embedding)
    check_layer(layer, shape, batch=n, backend=open_backend, condition=labels)


def test_the_battery_inside_a_chain(open_backend):
    chain = Sequential(Condition(3, 2), Dense(6, 5), Tanh(), Condition(3), Dense(8, 2))
    check_layer(chain, (4,), batch=4, backend=open_backend, condition=np.array([2, 0, 0, 1]))


class ForgetsPixels(Condition):
    """Its table hears the first pixel alone."""

    def _add_gradient(self, dy, cache):
        de = dy.reshape(len(dy), -1, dy.shape[-1])[:, 0, -self.width :]
        cache.backend.matmul_add(cache.kept("one_hot").T, de, out=self.dW)


class MovesLabels(Condition):
    """In its jvp the label's numbers flow on."""

    def jvp(self, t, cache):
        return self._joined(t, self._embed(cache.kept("one_hot"), cache), cache, "ty")


class TakesTheLast(Condition):
    """dx from the wrong end."""

    def _first(self, dy, cache, name):
        return dy[..., self.width :].copy()


class FollowsTheCondition(Condition):
    """Backward looks its labels up anew."""

    def _add_gradient(self, dy, cache):
        self._one_hot(len(dy), cache)
        super()._add_gradient(dy, cache)


@pytest.mark.parametrize("wrong", [ForgetsPixels, MovesLabels, TakesTheLast])
def test_the_battery_finds_planted_mistakes(wrong):
    with pytest.raises(GradientError):
        check_layer(wrong(3, 2), (2, 2, 2), condition=np.array([2, 0, 0]))


def test_backward_belongs_to_the_labels_of_its_forward(backend64):
    """Setting the next labels between forward and backward must not matter."""
    gradients = []
    for kind in (Condition, Condition, FollowsTheCondition):
        net, site = bound(kind(3, 2), (2,), backend64)
        site.condition = backend64.from_host(np.array([0, 1, 1]))
        net.forward(backend64.from_host(np.ones((3, 2))), site)
        if gradients:
            site.condition = backend64.from_host(np.array([2, 2, 2]))
        net.backward(backend64.from_host(np.arange(12.0).reshape(3, 4)), site)
        gradients.append(backend64.to_host(net.gradients))
    np.testing.assert_array_equal(gradients[0], gradients[1])
    assert not np.array_equal(gradients[0], gradients[2])


# ---- what it computes --------------------------------------------------------------------------


def test_one_hot_of_vectors(backend):
    net, site = bound(Condition(3), (2,), backend)
    site.condition = backend.from_host(np.array([2, 0]))
    y = net.forward(backend.from_host(np.array([[0.5, 1.5], [2.5, 3.5]])), site)
    assert backend.to_host(y).tolist() == [[0.5, 1.5, 0, 0, 1], [2.5, 3.5, 1, 0, 0]]


def test_a_label_is_a_constant_plane_in_an_image(backend):
    net, site = bound(Condition(4, 3), (2, 5, 2), backend)
    x, labels = rng.standard_normal((3, 2, 5, 2)).astype(np.float32), np.array([3, 1, 3])
    site.condition = backend.from_host(labels)
    y = backend.to_host(net.forward(backend.from_host(x), site))
    np.testing.assert_array_equal(y[..., :2], x)
    rows = backend.to_host(net.body.W)[labels]
    np.testing.assert_array_equal(y[..., 2:], np.broadcast_to(rows[:, None, None], (3, 2, 5, 3)))


@pytest.mark.parametrize("embedding", [None, 3])
def test_both_memory_orders_of_images(embedding):
    """(N, H, W, C) in memory, or (H, W, N, C) with the batch behind the pixels: the same."""
    backend = get_backend("numpy", "float64")
    net, site = bound(Condition(4, embedding), (3, 2, 2), backend)
    behind = {}
    for name, shape in {"x": net.input_shape, "t": net.input_shape, "dy": net.output_shape}.items():
        plain = rng.standard_normal((5, *shape))
        moved = np.ascontiguousarray(plain.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)
        behind[name] = (plain, moved)
    site.condition = np.array([3, 1, 3, 0, 2])
    answers = []
    for k in (0, 1):
        x, t, dy = (behind[name][k] for name in ("x", "t", "dy"))
        net.gradients.fill(0)
        got = [net.forward(x, site), net.backward(dy, site), net.jvp(t, site)]
        got += net.jvp_backward(dy, dy, site)
        answers.append([a.copy() for a in (*got, net.gradients)])
    for a, b in zip(*answers, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_the_table_against_pytorchs_embedding():
    torch = pytest.importorskip("torch")
    backend = get_backend("numpy", "float64")
    net, site = bound(Condition(5, 3), (2,), backend)
    labels, dy = rng.integers(0, 5, 40), rng.standard_normal((40, 5))
    site.condition = labels
    net.forward(np.zeros((40, 2)), site)
    net.backward(dy, site)
    table = torch.tensor(net.body.W, requires_grad=True)
    torch.nn.functional.embedding(torch.tensor(labels), table).backward(torch.tensor(dy[:, 2:]))
    np.testing.assert_allclose(net.body.dW, table.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_a_class_that_is_not_asked_for_keeps_its_row(backend):
    net, site = bound(Condition(3, 2), (1,), backend)
    site.condition = backend.from_host(np.array([0, 2, 2]))
    net.forward(backend.from_host(np.ones((3, 1))), site)
    net.backward(backend.from_host(np.ones((3, 3))), site)
    assert backend.to_host(net.body.dW).tolist() == [[1, 1], [0, 0], [2, 2]]


def test_one_hot_has_no_parameters():
    net, _ = bound(Condition(10), (28, 28, 1), get_backend("numpy"))
    assert net.parameter_count == 0
    assert net.output_shape == (28, 28, 11)
    assert repr(Condition(10)) == "Condition(10 classes, one-hot)"
    assert repr(Condition(10, 50)) == "Condition(10 classes, embedding 50)"


# ---- the call site's labels --------------------------------------------------------------------


def test_a_missing_label_is_said_clearly(backend):
    net, site = bound(Sequential(Condition(3), Dense(4, 2)), (1,), backend)
    with pytest.raises(RuntimeError, match=r"call site 'site' has no labels: set its condition"):
        net.forward(backend.from_host(np.ones((2, 1))), site)


def test_the_condition_is_the_whole_call_sites(backend):
    cache = Cache(backend, "D(x)")
    labels = backend.from_host(np.array([1, 2]))
    cache.condition = labels
    assert cache[3]["deep"].condition is labels
    with pytest.raises(RuntimeError, match="part of a call site"):
        cache[3].condition = labels


@pytest.mark.parametrize(
    "labels", [np.array([1]), np.array([0.0, 1.0]), np.array([[0], [1]])], ids=str
)
def test_labels_of_another_shape_or_type_are_refused(backend, labels):
    net, site = bound(Condition(3), (1,), backend)
    site.condition = backend.from_host(labels)
    with pytest.raises(ShapeError, match=r"Condition\(3 classes, one-hot\) expects 2 labels"):
        net.forward(backend.from_host(np.ones((2, 1))), site)


@pytest.mark.parametrize("label", [3, -1])
def test_a_checking_call_site_finds_a_label_outside_the_classes(backend, label):
    net, site = bound(Condition(3), (1,), backend, check=True)
    site.condition = backend.from_host(np.array([0, label]))
    with pytest.raises(ShapeError, match=r"a label outside 0 \.\.\. 2"):
        net.forward(backend.from_host(np.ones((2, 1))), site)


def test_classes_and_embeddings_are_positive():
    for given_ in [(0, None), (3, 0), (2.5, None), ("a", None), (3, 1.5)]:
        with pytest.raises(OptionError, match="above 0"):
            Condition(*given_)


def test_nothing_is_allocated_anew(backend):
    net, site = bound(Condition(3, 2), (2, 2, 1), backend)
    x, dy = backend.from_host(np.ones((4, 2, 2, 1))), backend.from_host(np.ones((4, 2, 2, 3)))
    site.condition = backend.from_host(np.array([0, 1, 2, 0]))
    first = net.forward(x, site), net.backward(dy, site)
    again = net.forward(x, site), net.backward(dy, site)
    assert all(a is b for a, b in zip(first, again, strict=True))
