"""Every objective: values, gradients, the best D and what G then descends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinygan import Noise, get_backend, make_objective
from tinygan.errors import OptionError
from tinygan.gan.objectives import OBJECTIVES
from tinygan.gradcheck import check_gradient
from tinygan.nn import Cache

rng = np.random.default_rng(0)
REAL, FAKE = rng.standard_normal((5, 1)) + 1, rng.standard_normal((5, 1)) - 1
BOTH = [
    (name, loss) for name in ("minimax", "non-saturating") for loss in ("logits", "probabilities")
]
CRITICS = ("lsgan", "hinge", "wgan")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cache():
    return Cache(get_backend("numpy", "float64"))


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_the_discriminators_loss_is_minus_v_or_half_of_it(name, loss):
    v = np.log(sigmoid(REAL)).mean() + np.log(1 - sigmoid(FAKE)).mean()  # equation 1
    whole, *_ = make_objective(name, loss, halved=False).discriminator(REAL, FAKE, cache())
    half, *_ = make_objective(name, loss, halved=True).discriminator(REAL, FAKE, cache())
    np.testing.assert_allclose([whole, half], [-v, -v / 2], rtol=1e-9)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_the_generators_two_losses(loss):
    minimax, _ = make_objective("minimax", loss).generator(FAKE, cache())
    other, _ = make_objective("non-saturating", loss).generator(FAKE, cache())
    np.testing.assert_allclose(minimax, np.log(1 - sigmoid(FAKE)).mean(), rtol=1e-9)
    np.testing.assert_allclose(other, -np.log(sigmoid(FAKE)).mean(), rtol=1e-9)


@pytest.mark.parametrize(("name", "loss"), BOTH)
@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("real_target", [1.0, 0.9])
def test_gradients_agree_with_differences(name, loss, halved, real_target):
    objective = make_objective(name, loss, halved, real_target)
    _, d_real, d_fake = objective.discriminator(REAL, FAKE, cache())
    check_gradient(lambda x: float(objective.discriminator(x, FAKE, cache())[0]), REAL, d_real)
    check_gradient(lambda x: float(objective.discriminator(REAL, x, cache())[0]), FAKE, d_fake)
    _, d = objective.generator(FAKE, cache())
    check_gradient(lambda x: float(objective.generator(x, cache())[0]), FAKE, d)


def test_real_and_fake_batches_may_differ_in_size():
    objective = make_objective("minimax", halved=False)
    _, d_real, d_fake = objective.discriminator(REAL[:2], FAKE, cache())
    check_gradient(lambda x: float(objective.discriminator(REAL[:2], x, cache())[0]), FAKE, d_fake)
    assert d_real.shape == (2, 1)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_minimax_is_the_zero_sum_game(loss):
    """What G descends is, as far as G can change it, exactly what D ascends."""
    objective = make_objective("minimax", loss, halved=False)
    _, _, d_fake = objective.discriminator(REAL, FAKE, cache())
    _, g_fake = objective.generator(FAKE, cache())
    np.testing.assert_array_equal(g_fake, -d_fake)


def test_minimax_saturates_where_d_is_sure_and_the_other_does_not():
    sure = np.full((1, 1), -12.0)
    _, weak = make_objective("minimax").generator(sure, cache())
    _, strong = make_objective("non-saturating").generator(sure, cache())
    assert -1e-5 < weak[0, 0] < 0  # both push the logit up
    assert -1.0 < strong[0, 0] < -0.99


@pytest.mark.parametrize(("name", "loss"), BOTH)
def test_equilibrium_values(name, loss):
    zero = np.zeros((4, 1))
    total, *_ = make_objective(name, loss, halved=False).discriminator(zero, zero, cache())
    half, *_ = make_objective(name, loss).discriminator(zero, zero, cache())
    g, _ = make_objective(name, loss).generator(zero, cache())
    np.testing.assert_allclose([total, half], [math.log(4), math.log(2)], rtol=1e-12)
    np.testing.assert_allclose(g, math.log(2) * (-1 if name == "minimax" else 1), rtol=1e-12)


@pytest.mark.parametrize(("name", "loss"), [*BOTH, *[(name, "logits") for name in CRITICS]])
def test_losses_stay_on_the_device(name, loss):
    """0-d arrays: a Python number would have to wait for a GPU."""
    objective = make_objective(name, loss)
    for value in (
        objective.discriminator(REAL, FAKE, cache())[0],
        objective.generator(FAKE, cache())[0],
    ):
        assert not isinstance(value, float) or isinstance(value, np.floating)
        assert value.shape == ()


# ---- least squares, hinge, Wasserstein -----------------------------------------------------------


def losses_in_numpy(name, real, fake, real_target=1.0, share=1.0):
    """(D's loss, G's loss), written out."""
    if name == "lsgan":
        d = share * (((real - real_target) ** 2).mean() + (fake**2).mean())
        return d, ((fake - 1.0) ** 2).mean()
    if name == "hinge":
        d = np.where(real < 1.0, 1.0 - real, 0.0).mean() + np.where(fake > -1, 1 + fake, 0).mean()
        return d, -fake.mean()
    return fake.mean() - real.mean(), -fake.mean()


@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize(
    ("name", "real_target"), [("lsgan", 1.0), ("lsgan", 0.9), ("hinge", 1.0), ("wgan", 1.0)]
)
def test_critics_values_and_gradients(name, real_target, halved):
    objective = make_objective(name, halved=halved, real_target=real_target)
    share = 0.5 if halved else 1.0
    value, d_real, d_fake = objective.discriminator(REAL, FAKE, cache())
    g_value, g_fake = objective.generator(FAKE, cache())
    expected = losses_in_numpy(name, REAL, FAKE, real_target, share)
    np.testing.assert_allclose([value, g_value], expected, rtol=1e-12)
    for at, d in ((0, d_real), (1, d_fake)):

        def d_loss(x, at=at):
            both = (x, FAKE) if at == 0 else (REAL, x)
            return losses_in_numpy(name, *both, real_target, share)[0]

        check_gradient(d_loss, (REAL, FAKE)[at], d)
    check_gradient(lambda x: losses_in_numpy(name, REAL, x)[1], FAKE, g_fake)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_batches_of_any_size_and_dtype_on_every_backend(name, open_backend):
    """Against NumPy in float64: means over each batch, and the dtype kept."""
    backend = open_backend("float32")
    objective, site = make_objective(name), Cache(backend)
    real, fake = backend.from_host(REAL[:2]), backend.from_host(FAKE)
    got = [*objective.discriminator(real, fake, site), *objective.generator(fake, site)]
    want = [
        *objective.discriminator(REAL[:2], FAKE, cache()),
        *objective.generator(FAKE, cache()),
    ]
    for a, b in zip(got, want, strict=True):
        assert a.dtype == backend.dtype
        np.testing.assert_allclose(backend.to_host(a), b, rtol=2e-6, atol=1e-7)


def test_hinge_is_silent_beyond_the_margin():
    real, fake = np.array([[1.5], [0.5], [-3.0]]), np.array([[-1.5], [-0.5], [3.0]])
    value, d_real, d_fake = make_objective("hinge").discriminator(real, fake, cache())
    np.testing.assert_allclose(value, (0.0 + 0.5 + 4.0) / 3 * 2)
    np.testing.assert_allclose(d_real, [[0.0], [-1 / 3], [-1 / 3]])
    np.testing.assert_allclose(d_fake, [[0.0], [1 / 3], [1 / 3]])
    _, d = make_objective("hinge").generator(fake, cache())
    np.testing.assert_allclose(d, -1 / 3)  # G hears of every fake alike


def test_a_wasserstein_critic_is_known_up_to_a_constant():
    objective = make_objective("wgan")
    assert objective.threshold is None
    value, *_ = objective.discriminator(REAL, FAKE, cache())
    raised, *_ = objective.discriminator(REAL + 7.0, FAKE + 7.0, cache())
    np.testing.assert_allclose(value, raised, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "threshold", "probability"),
    [
        ("minimax", 0.0, True),
        ("non-saturating", 0.0, True),
        ("lsgan", 0.5, False),
        ("hinge", 0.0, False),
        ("wgan", None, False),
    ],
)
def test_what_a_score_means(name, threshold, probability):
    objective = make_objective(name)
    assert (objective.threshold, objective.probability) == (threshold, probability)


@pytest.mark.parametrize("name", ["minimax", "non-saturating", "lsgan"])
@pytest.mark.parametrize("real_target", [0.0, 0.4, 0.9, 1.0])
def test_with_smoothed_labels_a_d_that_cannot_tell_stands_at_the_threshold(name, real_target):
    """[monitor.9]: D's loss, of one output for all samples, is flat there and nowhere else."""
    objective = make_objective(name, real_target=real_target)
    if real_target == 0.0 and name != "lsgan":
        assert objective.threshold == -np.inf  # the more D says "fake" the better
        return
    for logit, flat in ((objective.threshold, True), (objective.threshold + 0.2, False)):
        same = np.full((4, 1), logit)
        _, d_real, d_fake = objective.discriminator(same, same, cache())
        assert (abs(float((d_real + d_fake).sum())) < 1e-12) == flat


@pytest.mark.parametrize("flipped", [False, True])
def test_so_with_noise_on_the_labels_which_raises_both_by_half(flipped):
    objective = make_objective("non-saturating", real_target=0.9, flipped=flipped, label_noise=0.2)
    plain = make_objective("non-saturating", real_target=0.9, flipped=flipped)
    sign, n, backend = (-1.0 if flipped else 1.0), 400_000, get_backend("numpy", "float64")
    noisy = Cache(backend, noise=Noise(0, backend, step=1))
    for threshold, flat in ((objective.threshold, True), (plain.threshold, False)):
        same = np.full((n, 1), sign * threshold)
        _, d_real, d_fake = objective.discriminator(same, same, noisy)
        slope = float((d_real + d_fake).sum())
        assert (abs(slope) < 5 * 0.2 / math.sqrt(12 * n)) == flat


def test_the_smallest_label_there_is_has_a_threshold():
    assert make_objective(real_target=5e-324).threshold == pytest.approx(-745.1, abs=0.1)


# ---- the best D, and what G descends against it --------------------------------------------------

# Two distributions on five points, as counts of samples, and a direction in which q may move.
COUNTS_P, COUNTS_Q = np.array([8, 4, 2, 1, 1]), np.array([2, 1, 3, 6, 4])
P, Q = COUNTS_P / 16, COUNTS_Q / 16
MOVE = np.array([0.3, -0.5, 0.4, 0.1, -0.3])  # sums to zero


def kl(p, q):
    return np.sum(p * np.log(p / q))


def jsd(p, q):
    return 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2)


def triangle(p, q):
    return np.sum((p - q) ** 2 / (p + q))


def variation(p, q):
    return 0.5 * np.abs(p - q).sum()


# Objective -> (best scores, D's least loss as a sum, what G's gradient is the gradient of).
BEST = {
    "minimax": (np.log(P / Q), math.log(4) - 2 * jsd(P, Q), lambda q: 2 * jsd(P, q)),
    "non-saturating": (
        np.log(P / Q),
        math.log(4) - 2 * jsd(P, Q),
        lambda q: kl(q, P) - 2 * jsd(P, q),
    ),
    "lsgan": (
        P / (P + Q),
        0.5 - triangle(P, Q) / 4,
        lambda q: 2 * kl(P, (P + q) / 2) - triangle(P, q) / 4,
    ),
    "hinge": (np.sign(P - Q), 2 - 2 * variation(P, Q), lambda q: 2 * variation(P, q)),
}


def samples_of(scores):
    """Scores of 16 real and of 16 fake samples, a point's own as often as it is drawn."""
    return (np.repeat(scores, counts)[:, None] for counts in (COUNTS_P, COUNTS_Q))


@pytest.mark.parametrize("name", BEST)
def test_the_best_scores(name):
    best, least, _ = BEST[name]
    objective = make_objective(name, halved=False)

    def d_loss(scores):
        return float(objective.discriminator(*samples_of(scores), cache())[0])

    np.testing.assert_allclose(d_loss(best), least, rtol=1e-12)
    draws = np.random.default_rng(0).standard_normal((200, 5))
    assert all(d_loss(best + 0.5 * draw) > least for draw in draws)


@pytest.mark.parametrize("name", BEST)
def test_what_g_descends_against_the_best_scores(name):
    """Samples move to where G's loss on them is lower; D is held fixed meanwhile."""
    best, _, divergence = BEST[name]
    generator = make_objective(name).generator
    loss_at = np.array([float(generator(np.array([[s]]), cache())[0]) for s in best])
    h = 1e-6
    slope = (divergence(Q + h * MOVE) - divergence(Q - h * MOVE)) / (2 * h)
    np.testing.assert_allclose(MOVE @ loss_at, slope, rtol=1e-8)


def test_smoothed_least_squares_best_score():
    _, d_real, d_fake = make_objective("lsgan", real_target=0.9).discriminator(
        *samples_of(0.9 * P / (P + Q)), cache()
    )
    ends = np.cumsum(COUNTS_P)[:-1], np.cumsum(COUNTS_Q)[:-1]
    for of_real, of_fake in zip(*(map(np.split, (d_real, d_fake), ends)), strict=True):
        assert abs(of_real.sum() + of_fake.sum()) < 1e-15


def test_wasserstein_on_a_line():
    """The best D of slope at most 1 gives D's loss -W1; G then descends W1 itself."""
    at, objective = np.array([0.0, 0.5, 1.5, 2.0, 4.0]), make_objective("wgan")
    gaps = np.diff(at)

    def w1(q):
        return np.sum(np.abs(np.cumsum(P - q)[:-1]) * gaps)

    # More p than q to the left of a gap: D falls across it, at slope 1.
    best = np.concatenate([[0.0], np.cumsum(-np.sign(np.cumsum(P - Q)[:-1]) * gaps)])
    value, *_ = objective.discriminator(*samples_of(best), cache())
    np.testing.assert_allclose(value, -w1(Q), rtol=1e-12)
    h = 1e-6
    slope = (w1(Q + h * MOVE) - w1(Q - h * MOVE)) / (2 * h)
    np.testing.assert_allclose(MOVE @ -best, slope, rtol=1e-8)
    rng = np.random.default_rng(0)
    for _ in range(100):  # no other D of slope at most 1 does better
        other = np.concatenate([[0.0], np.cumsum(rng.uniform(-1, 1, 4) * gaps)])
        assert float(objective.discriminator(*samples_of(other), cache())[0]) >= value


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "wasserstein"},
            "unknown objective 'wasserstein': choose minimax, non-saturating, lsgan, hinge or wgan",
        ),
        ({"loss": "logit"}, "unknown loss 'logit': choose logits or probabilities"),
        ({"real_target": 1.1}, r"a label lies in \[0, 1\], got 1.1"),
        ({"real_target": float("nan")}, r"a label lies in \[0, 1\], got nan"),
        ({"label_noise": 1.0}, r"noise on labels lies in \[0, 1\), got 1.0"),
        (
            {"name": "wgan", "real_target": 0.9},
            "a real target of 0.9 has no meaning with wgan, which has no labels: choose minimax, "
            "non-saturating or lsgan",
        ),
        ({"name": "hinge", "real_target": 0.9}, "a real target of 0.9 has no meaning with hinge"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make_objective(**options)


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"loss": "probabilities"}, "loss 'probabilities' has no meaning with {}, whose D gives a"),
        ({"flipped": True}, "flipped labels have a meaning with minimax and non-saturating only"),
        ({"label_noise": 0.05}, "noise on labels has a meaning with minimax and non-saturating"),
    ],
    ids=str,
)
def test_combinations_without_meaning_are_refused(name, option, message):
    with pytest.raises(OptionError, match=message.format(name)):
        make_objective(name, **option)
