"""SGD, Adam and schedules against their papers' formulas and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from tinygan import SGD, Adam, Network, get_backend
from tinygan.errors import CheckpointError, OptionError
from tinygan.nn import Dense
from tinygan.optim import constant, decay, hold, ramp

rng = np.random.default_rng(0)
START = rng.standard_normal(20)
GRADIENTS = rng.standard_normal((12, 20)) * np.logspace(-4, 1, 20)


def network(dtype="float64"):
    net = Network(Dense(4, 4), (4,), get_backend("numpy", dtype), "G")
    net.parameters[...] = START
    return net


def walk(net, optimiser, gradients=GRADIENTS):
    path = []
    for g in gradients:
        net.gradients[...] = g
        optimiser.step()
        path.append(net.parameters.copy())
    return np.array(path)


def adam_by_the_paper(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, gradients=GRADIENTS):
    """Algorithm 1 of Kingma & Ba 2015, line by line."""
    theta, m, v, path = START.copy(), 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + eps)
        path.append(theta)
    return np.array(path)


HYPER = [
    {},
    {"lr": 2e-4, "beta1": 0.5},
    {"lr": 0.1, "beta1": 0.0, "beta2": 0.9},
    {"eps": 1e-2},
]


@pytest.mark.parametrize("hyper", HYPER, ids=str)
def test_adam_is_the_papers(hyper):
    net = network()
    np.testing.assert_allclose(
        walk(net, Adam(net, **hyper)), adam_by_the_paper(**hyper), rtol=1e-11
    )


def test_adams_first_step_has_the_length_of_the_learning_rate():
    """The bias corrections at t = 1 undo the factors (1 - beta): each step is lr·sign(g)."""
    net = network()
    moved = walk(net, Adam(net, lr=0.01), GRADIENTS[:1])[0] - START
    np.testing.assert_allclose(moved, -0.01 * np.sign(GRADIENTS[0]), rtol=1e-3)


def test_adam_in_float32_stays_near():
    net = network("float32")
    path = walk(net, Adam(net))
    assert path.dtype == np.float32
    np.testing.assert_allclose(path, adam_by_the_paper(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hyper", HYPER, ids=str)
def test_adam_equals_pytorch(hyper):
    torch = pytest.importorskip("torch")
    names = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8} | hyper
    theta = torch.tensor(START, requires_grad=True)
    theirs = torch.optim.Adam(
        [theta], lr=names["lr"], betas=(names["beta1"], names["beta2"]), eps=names["eps"]
    )
    net = network()
    for ours, g in zip(walk(net, Adam(net, **hyper)), GRADIENTS, strict=True):
        theta.grad = torch.tensor(g)
        theirs.step()
        np.testing.assert_allclose(ours, theta.detach().numpy(), rtol=1e-10)


def test_sgd_with_momentum():
    net, velocity, theta = network(), 0.0, START.copy()
    path = walk(net, SGD(net, lr=0.1, momentum=0.5))
    for ours, g in zip(path, GRADIENTS, strict=True):
        velocity = 0.5 * velocity - 0.1 * g
        theta = theta + velocity
        np.testing.assert_allclose(ours, theta, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_sgd_equals_pytorch_at_a_constant_rate(momentum):
    torch = pytest.importorskip("torch")
    theta = torch.tensor(START, requires_grad=True)
    theirs = torch.optim.SGD([theta], lr=0.1, momentum=momentum)
    net = network()
    for ours, g in zip(walk(net, SGD(net, 0.1, momentum)), GRADIENTS, strict=True):
        theta.grad = torch.tensor(g)
        theirs.step()
        np.testing.assert_allclose(ours, theta.detach().numpy(), rtol=1e-12)


def test_schedules_count_updates_from_zero():
    seen = []
    net = network()
    walk(net, SGD(net, lambda t: seen.append(("lr", t)) or 0.1, lambda t: seen.append(t) or 0.5))
    assert seen == [x for t in range(len(GRADIENTS)) for x in (("lr", t), t)]
    seen.clear()
    walk(net, Adam(net, lambda t: seen.append(t) or 0.1))
    assert seen == list(range(len(GRADIENTS)))


def test_schedules():
    assert [constant(0.1)(t) for t in (0, 10**6)] == [0.1, 0.1]
    goodfellow = decay(0.1, 1.000004, floor=1e-6)
    assert goodfellow(0) == 0.1
    assert goodfellow(10**6) == pytest.approx(0.1 / 1.000004**10**6)
    assert goodfellow(10**7) == 1e-6
    momentum = ramp(0.5, 0.7, steps=250 * 500, every=500)
    assert momentum(0) == momentum(499) == 0.5  # epochs, not steps
    assert momentum(500) == pytest.approx(0.5 + 0.2 / 250)
    assert momentum(250 * 500) == momentum(10**7) == pytest.approx(0.7)
    assert ramp(0.0, 1.0, steps=4)(1) == 0.25


@pytest.mark.parametrize("make", [Adam, lambda net, lr: SGD(net, lr, 0.5)], ids=["Adam", "SGD"])
def test_state_continues_bit_for_bit(make):
    net = network()
    straight = walk(net, make(net, 0.01))
    first = network()
    optimiser = make(first, 0.01)
    walk(first, optimiser, GRADIENTS[:5])
    second = network()
    second.load(first.state())
    resumed = make(second, 0.01)
    resumed.load(optimiser.state())
    assert resumed.t == 5
    np.testing.assert_array_equal(walk(second, resumed, GRADIENTS[5:]), straight[5:])


def test_state_is_a_copy_of_numpy_arrays():
    net = network()
    optimiser = Adam(net)
    state = optimiser.state()
    walk(net, optimiser)
    assert {name: a.shape for name, a in state.items()} == {"m": (20,), "v": (20,), "t": ()}
    assert not any(a.any() for a in state.values())


def test_load_refuses_another_optimisers_or_networks_state():
    net = network()
    with pytest.raises(
        CheckpointError, match=r"Adam of G: the checkpoint holds \['t', 'velocity'\]"
    ):
        Adam(net).load(SGD(net, 0.1).state())
    other = Network(Dense(2, 2), (2,), get_backend("numpy", "float64"))
    with pytest.raises(CheckpointError, match=r"Adam of G: m has shape \(20,\) here and \(6,\)"):
        Adam(net).load(Adam(other).state())
    with pytest.raises(TypeError, match=r"Adam of .*: m must be a numpy.ndarray"):
        Adam(net).load(Adam(net).state() | {"m": Adam(net).state()["m"].tolist()})


def test_a_step_does_not_write_to_the_gradient():
    for make in (Adam, SGD):
        net = network()
        net.gradients[...] = GRADIENTS[0]
        make(net, 0.1).step()
        np.testing.assert_array_equal(net.gradients, GRADIENTS[0])


@pytest.mark.parametrize(
    ("make", "hyper", "words"),
    [
        (SGD, {"lr": -0.1}, "lr must be finite and not negative, got -0.1"),
        (SGD, {"lr": float("nan")}, "lr must be finite"),
        (SGD, {"lr": 0.1, "momentum": 1.0}, r"momentum must be finite and in \[0, 1\), got 1"),
        (Adam, {"lr": float("inf")}, "lr must be finite"),
        (Adam, {"beta1": 1.0}, "beta1"),
        (Adam, {"beta2": -0.5}, "beta2"),
        (Adam, {"eps": -1e-8}, "eps"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(make, hyper, words):
    with pytest.raises(OptionError, match=words):
        make(network(), **hyper)


def test_a_held_rate_falls_in_a_straight_line():
    rate = hold(2.0, 10, 30)
    assert [rate(t) for t in (0, 10, 20)] == [2.0, 2.0, 1.0]
    assert rate(30) == rate(99) == pytest.approx(0.02)
