"""Labels, combined batches, flipped and noisy labels: what they change, and what they may not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tinygan import SGD, Adam, Game, Network, Noise, get_backend, make_objective, paper
from tinygan.data import Minibatches
from tinygan.errors import DataError, OptionError
from tinygan.gan import ORDERS
from tinygan.gradcheck import GradientError, check_parameters
from tinygan.nn import (
    BatchNorm,
    Condition,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Reshape,
    Sequential,
    Sigmoid,
    Tanh,
)

M, CLASSES, IMAGE = 6, 3, (3, 2, 1)
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (30, *IMAGE), np.uint8)
LABELS = rng.integers(0, CLASSES, 30).astype(np.uint8)


@dataclasses.dataclass
class Kind:
    """What game to build."""

    embedding: int | None = None
    labels: bool = True
    planes: bool = False  # D's labels as planes of the image, or behind Flatten
    conv: bool = False  # both players convolve; D has its labels as planes
    batchnorm: bool = False  # in D; G always has one
    dropout: bool = False
    combined: bool = False
    wide: float = 0.5


def build(backend, kind=Kind(), **objective):  # noqa: B008
    noise = Noise(7, backend, step=1, sub=1)
    join = [Condition(CLASSES, kind.embedding)] if kind.labels else []
    again = [Condition(CLASSES, kind.embedding)] if kind.labels else []
    width = (kind.embedding or CLASSES) if kind.labels else 0
    up: list[Layer] = [Dense(5, 6), Reshape(*IMAGE)]
    down: list[Layer] = [*again, Flatten()] if kind.planes else [Flatten(), *again]
    if kind.conv:
        up = [Dense(5, 8), Reshape(2, 1, 4), BatchNorm(4), Tanh()]
        up += [ConvTranspose2D(4, 1, (2, 2), (2, 2)), Conv2D(1, 1, (2, 1), 1, "VALID")]
        down = [*again, Conv2D(1 + width, 2, 3, stride=2), LeakyReLU(0.2), Flatten()]
    pixels = 6 * (1 + width) if kind.planes else 6 + width
    G = Sequential(*join, Dense(2 + width, 5), BatchNorm(5), Tanh(), *up)
    D = Sequential(
        *down,
        Dense(4 if kind.conv else pixels, 7),
        *([BatchNorm(7)] if kind.batchnorm else []),
        LeakyReLU(0.2),
        *([Dropout(0.6)] if kind.dropout else []),
        Dense(7, 1),
    )
    players = [Network(G, (2,), backend, "G", noise), Network(D, IMAGE, backend, "D", noise)]
    for net in players:
        net.parameters += noise.normal(f"off {net.name}", net.parameters.shape, std=kind.wide)
    sample = Minibatches(IMAGES, M, noise, (-1.0, 1.0), labels=LABELS, classes=CLASSES)
    of_labels = {}
    if kind.labels:
        of_labels["draw_labels"] = lambda: noise.integers("labels", M, CLASSES)
        of_labels["labels_of_x"] = sample.labels
    return Game(
        *players,
        make_objective(**objective),
        lambda: noise.normal("z", (M, 2)),
        sample,
        noise,
        **of_labels,
        combined=kind.combined,
    )


def trained(game, order, optimiser=lambda net: Adam(net, 2e-3, beta1=0.5), steps=12):
    """The players' flat arrays after some steps, and what each step reported."""
    moves = optimiser(game.D).step, optimiser(game.G).step
    reports = []
    for game.noise.step in range(1, steps + 1):
        order(game, *moves)
        reports.append(list(game.metrics().values()))
    to_host = game.G.backend.to_host
    return [to_host(game.G.parameters), to_host(game.D.parameters), np.array(reports)]


def bce(logits, labels):
    """Cross-entropy as NumPy has it: shares no code with the objectives."""
    p = 1.0 / (1.0 + np.exp(-logits))
    return float(-(labels * np.log(p) + (1.0 - labels) * np.log(1.0 - p)).mean())


# ---- the conditional game ----------------------------------------------------------------------

each_kind = pytest.mark.parametrize(
    "kind",
    [
        Kind(),
        Kind(embedding=2, planes=True),
        Kind(embedding=2, batchnorm=True, dropout=True),
        Kind(planes=True, combined=True),
        Kind(conv=True),
        Kind(embedding=2, conv=True, batchnorm=True, combined=True),
        Kind(embedding=2, batchnorm=True, dropout=True, combined=True),
        Kind(labels=False, batchnorm=True, dropout=True, combined=True),
    ],
    ids=str,
)


def logits_of(game, kind, x, fakes, asked, of_x):
    """A function () -> (real, fake) that calls D at fresh call sites."""
    D, noise, backend = game.D, game.noise, game.D.backend
    if kind.combined:
        site = D.cache("D(G(z), x)", noise=noise)
        if kind.labels:
            site.condition = backend.from_host(np.concatenate([asked, of_x]))
        both = backend.from_host(np.concatenate([fakes, x]))

        def together():
            logits = backend.to_host(D.forward(both, site))
            return logits[M:], logits[:M]

        return together
    sites = [D.cache(name, noise=noise) for name in ("D(x)", "D(G(z))")]
    if kind.labels:
        sites[0].condition, sites[1].condition = map(backend.from_host, (of_x, asked))
    x, fakes = backend.from_host(x), backend.from_host(fakes)

    def apart():
        real, fake = (D.forward(a, s) for a, s in zip((x, fakes), sites, strict=True))
        return backend.to_host(real), backend.to_host(fake)

    return apart


def drawn(game):
    """x, fakes, the labels asked for and those of x, as NumPy arrays."""
    to_host = game.G.backend.to_host
    z, x = game.draw_noise(), game.sample()
    fakes = game.fakes(z)
    asked = of_x = None
    if game.draw_labels is not None:
        asked, of_x = to_host(game.draw_labels()), to_host(game.labels_of_x())
    return x, fakes, to_host(x), to_host(fakes), asked, of_x


@each_kind
@pytest.mark.parametrize("flipped", [False, True])
def test_ds_gradient(kind, flipped, backend64):
    game = build(backend64, kind, flipped=flipped)
    x, fakes, *hosts = drawn(game)
    judge = logits_of(game, kind, *hosts)

    def d_loss():
        real, fake = judge()
        return (bce(real, 0.0 if flipped else 1.0) + bce(fake, 1.0 if flipped else 0.0)) / 2.0

    game.discriminator_gradient(x, fakes)
    np.testing.assert_allclose(float(game.d_loss), d_loss(), rtol=1e-9)
    check_parameters(d_loss, game.D, name="d_loss", entries=40)


@each_kind
@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
@pytest.mark.parametrize("judged", [False, True])
def test_gs_gradient_through_d(kind, name, judged, backend64):
    """`judged`: from the pass that D's turn has made, the combined one included."""
    flipped = judged  # both of either, in half the tests
    game = build(backend64, kind, name=name, flipped=flipped)
    z, x = game.draw_noise(), game.sample()
    site, to_host = game.G.cache("G(z)", noise=game.noise), backend64.to_host
    asked = of_x = None
    if kind.labels:
        asked, of_x = to_host(game.draw_labels()), to_host(game.labels_of_x())
        site.condition = game.draw_labels()
    alone = dataclasses.replace(kind, combined=kind.combined and judged)

    def g_loss():
        fakes = to_host(game.G.forward(z, site))
        _, fake = logits_of(game, alone, to_host(x), fakes, asked, of_x)()
        if name == "minimax":
            return -bce(fake, 1.0 if flipped else 0.0)
        return bce(fake, 0.0 if flipped else 1.0)

    fakes = game.fakes(z)
    if judged:
        game.discriminator_gradient(x, fakes)
    game.generator_gradient(fakes, judged)
    np.testing.assert_allclose(float(game.g_loss), g_loss(), rtol=1e-9)
    check_parameters(g_loss, game.G, name="g_loss", entries=40)


def test_a_game_that_mixes_its_labels_up_is_found(backend64):
    """The planted mistake: D judges the fakes under the labels of x."""
    game = build(backend64)
    x, fakes, *hosts = drawn(game)
    judge = logits_of(game, Kind(), *hosts)

    def d_loss():
        real, fake = judge()
        return (bce(real, 1.0) + bce(fake, 0.0)) / 2.0

    game.G_of_z.condition = game.labels_of_x()
    game.discriminator_gradient(x, fakes)
    with pytest.raises(GradientError):
        check_parameters(d_loss, game.D, entries=40)


def test_permuted_labels_give_other_samples(backend):
    game = build(backend)
    site, z = game.G.cache("sample", train=False), game.draw_noise()
    to_host = backend.to_host

    def samples(labels, z=z):
        site.condition = backend.from_host(np.array(labels))
        return to_host(game.G.forward(z, site))

    first, again = samples([0, 1, 2, 0, 1, 2]), samples([0, 1, 2, 0, 1, 2])
    other = samples([1, 1, 2, 0, 0, 2])
    np.testing.assert_array_equal(first, again)
    changed = np.abs(first - other).reshape(M, -1).max(axis=1) > 1e-3
    assert changed.tolist() == [True, False, False, False, True, False]
    # z and labels moved together only move the samples
    order = [3, 0, 5, 1, 4, 2]
    moved = samples(np.array([0, 1, 2, 0, 1, 2])[order], backend.from_host(to_host(z)[order]))
    np.testing.assert_allclose(moved, first[order], rtol=1e-5, atol=1e-6)


def test_without_a_condition_layer_labels_change_nothing(backend):
    """The control of the test above: a G that ignores its labels is seen."""
    game = build(backend, Kind(labels=False))
    site, z = game.G.cache("sample", train=False), game.draw_noise()
    seen = []
    for labels in ([0, 1, 2, 0, 1, 2], [1, 1, 2, 0, 0, 2]):
        site.condition = backend.from_host(np.array(labels))
        seen.append(backend.to_host(game.G.forward(z, site)))
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("order", ORDERS)
def test_the_orders_ask_for_labels_and_judge_by_them(order, backend):
    """Where the noise stands decides the labels; D judges fakes by the labels that G was asked."""
    game, asked = build(backend), []
    draw = game.draw_labels
    game.draw_labels = lambda: asked.append(backend.to_host(draw())) or draw()
    for game.noise.step in (1, 2):
        ORDERS[order](game, lambda: None, lambda: None)
    assert len(asked) == (2 if order == "simultaneous" else 4)
    assert len({tuple(labels) for labels in asked}) == len(asked)
    to_host, last = backend.to_host, asked[-1]
    np.testing.assert_array_equal(to_host(game.G_of_z.condition), last)
    np.testing.assert_array_equal(to_host(game.D_of_fakes.condition), last)
    np.testing.assert_array_equal(to_host(game.D_of_x.condition), to_host(game.labels_of_x()))


@pytest.mark.parametrize("combined", [False, True])
def test_a_conditional_step_needs_no_earlier_one(combined, backend):
    straight, jumped = (build(backend, Kind(2, combined=combined), label_noise=0.1) for _ in "ab")
    for straight.noise.step in range(1, 5):
        paper(straight, lambda: None, lambda: None)
    jumped.noise.step = 4
    paper(jumped, lambda: None, lambda: None)
    for a, b in [(straight.D, jumped.D), (straight.G, jumped.G)]:
        np.testing.assert_array_equal(*map(backend.to_host, (a.gradients, b.gradients)))


def test_half_a_conditional_game_is_refused(backend):
    game = build(backend)
    with pytest.raises(OptionError, match="needs both"):
        Game(game.G, game.D, game.objective, game.draw_noise, game.sample, game.noise, lambda: 1)


# ---- labels of minibatches ---------------------------------------------------------------------


@pytest.mark.parametrize("replacement", [False, True])
def test_labels_belong_to_their_images(replacement, backend):
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    labels = (np.arange(20) % 7).astype(np.uint8)
    noise = Noise(0, backend)
    sample = Minibatches(
        images, 6, noise, (0.0, 255.0), replacement=replacement, labels=labels, classes=7
    )
    for noise.step in range(1, 8):
        pixels = backend.to_host(sample()).reshape(-1).round()
        drawn_labels = backend.to_host(sample.labels())
        assert drawn_labels.dtype == np.int64
        np.testing.assert_array_equal(pixels % 7, drawn_labels)


def test_labels_that_do_not_fit_are_refused(backend):
    def make(labels, classes=None):
        noise = Noise(0, backend)
        return Minibatches(IMAGES, 4, noise, (0.0, 1.0), labels=labels, classes=classes)

    with pytest.raises(DataError, match="labels must be 30 integers"):
        make(LABELS[:-1])
    with pytest.raises(DataError, match="labels must be 30 integers"):
        make(LABELS / 2)
    with pytest.raises(DataError, match=r"labels lie in \[0, 2\], expected 0 ... 1"):
        make(LABELS, classes=2)
    with pytest.raises(RuntimeError, match="no minibatch has been drawn"):
        make(LABELS).labels()
    with pytest.raises(RuntimeError, match="have no labels"):
        make(None).labels()


# ---- a combined batch --------------------------------------------------------------------------


def sgd(net):
    return SGD(net, 0.05, 0.5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("labels", [False, True])
def test_a_combined_batch_equals_two_where_samples_do_not_meet(order, labels, backend64):
    """D without BatchNorm and dropout: how it is called makes no difference, to rounding."""
    two, one = (
        # SGD: Adam would make long steps out of the rounding of a bias in front of a BatchNorm
        trained(build(backend64, Kind(labels=labels, combined=c)), ORDERS[order], sgd)
        for c in (False, True)
    )
    for a, b in zip(two, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("what", ["batchnorm", "dropout"])
def test_a_combined_batch_is_another_game_for_batchnorm_and_dropout(what, backend64):
    two, one = (build(backend64, Kind(combined=c, **{what: True})) for c in (False, True))
    for game in (two, one):
        game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    gradients = [backend64.to_host(game.D.gradients) for game in (two, one)]
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-3


def test_in_a_combined_batch_fakes_come_first(backend):
    game = build(backend, Kind(labels=False, combined=True))
    x, fakes, x_host, fakes_host, *_ = drawn(game)
    seen, forward = [], game.D.forward
    game.D.forward = lambda a, site: seen.append(backend.to_host(a)) or forward(a, site)
    game.discriminator_gradient(x, fakes)
    np.testing.assert_array_equal(seen[0], np.concatenate([fakes_host, x_host]))
    assert len(seen) == 1


def test_first_nonfinite_looks_at_the_combined_call_site(backend):
    game = build(backend, Kind(combined=True))
    paper(game, lambda: None, lambda: None)
    assert game.first_nonfinite() is None
    game.D.body.layers[-1].W[...] = float("1e38")
    with np.errstate(all="ignore"):
        paper(game, lambda: game.D.body.layers[-1].W.fill(0.0), lambda: None)
    assert game.first_nonfinite().startswith("D(G(z), x)/")


# ---- flipped and noisy labels ------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_flipped_labels_are_the_mirrored_game(order, name, loss, backend64):
    """D's last layer negated: the same game, step by step, its reports included."""
    options = {"name": name, "loss": loss, "real_target": 0.9}
    plain, mirror = build(backend64, **options), build(backend64, **options, flipped=True)
    last = mirror.D.body.layers[-1]
    last.W, last.b = -last.W, -last.b
    G, D, reports = trained(plain, ORDERS[order])
    mirror_G, mirror_D, mirror_reports = trained(mirror, ORDERS[order])
    np.testing.assert_allclose(mirror_G, G, rtol=1e-9, atol=1e-11)
    sign = np.ones(len(D))
    sign[-8:] = -1.0  # W (7, 1) and b (1,)
    np.testing.assert_allclose(mirror_D, sign * D, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(mirror_reports, reports, rtol=1e-9)


def noisy_labels(game, r, real=1.0, fake=0.0):
    """The labels behind the gradients on D's logits, each less its clean one, in units of r."""
    to_host, N = game.D.backend.to_host, M
    found = []
    make = game.objective.discriminator
    game.objective = game.objective._replace(
        discriminator=lambda *a: found.append(make(*a)) or found[-1]
    )
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    game.objective = game.objective._replace(discriminator=make)
    out = []
    for logits, d, clean in [
        (game.real_logits, found[0][1], real),
        (game.fake_logits, found[0][2], fake),
    ]:
        p = 1.0 / (1.0 + np.exp(-to_host(logits)))
        out.append((p - 2.0 * N * to_host(d) - clean) / r)
    return np.stack(out)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_noisy_labels_are_a_function_of_seed_step_and_sub(loss, backend64):
    r, game = 0.05, build(backend64, loss=loss, label_noise=0.05)
    seen = {}
    for step in (1, 2):
        for sub in (1, 2):
            game.noise.step, game.noise.sub = step, sub
            seen[step, sub] = noisy_labels(game, r)
    values = np.stack(list(seen.values()))
    assert values.min() > 0.0
    assert values.max() < 1.0
    assert len(np.unique(values.round(9))) == values.size  # every image its own, real and fake
    again = build(backend64, loss=loss, label_noise=0.05)
    again.noise.step, again.noise.sub = 2, 1
    np.testing.assert_allclose(noisy_labels(again, r), seen[2, 1], rtol=1e-6, atol=1e-7)


def test_noisy_labels_leave_g_its_clean_target(backend64):
    clean, noisy = build(backend64), build(backend64, label_noise=0.3)
    for game in (clean, noisy):
        game.generator_gradient(game.fakes(game.draw_noise()))
    np.testing.assert_array_equal(*(backend64.to_host(g.G.gradients) for g in (clean, noisy)))


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_gradient_with_noisy_labels(loss, flipped, backend64):
    kind = Kind(embedding=2, combined=True)
    game = build(backend64, kind, loss=loss, flipped=flipped, label_noise=0.2)
    x, fakes, *hosts = drawn(game)
    judge = logits_of(game, kind, *hosts)
    u = [
        backend64.to_host(game.noise.uniform(f"losses/{side}/labels", (M, 1), 0.0, 0.2))
        for side in ("real", "fake")
    ]

    def d_loss():
        real, fake = judge()
        return (bce(real, u[0] + (not flipped)) + bce(fake, u[1] + flipped)) / 2.0

    game.discriminator_gradient(x, fakes)
    np.testing.assert_allclose(float(game.d_loss), d_loss(), rtol=1e-9)
    check_parameters(d_loss, game.D, name="d_loss", entries=40)


def test_on_average_noise_on_labels_is_their_mean_label(backend64):
    """The cross-entropy is a straight line in its label, so its gradient averages likewise."""
    r, N = 0.4, 20_000
    logits = backend64.from_host(np.full((N, 1), 0.3))
    site = Network(Dense(1, 1), (1,), backend64).cache("losses", noise=Noise(0, backend64))
    _, d_real, d_fake = make_objective(label_noise=r).discriminator(logits, logits, site)
    p = 1.0 / (1.0 + np.exp(-0.3))
    # half of (p - label) / N: with the means 1 + r/2 and r/2
    np.testing.assert_allclose(float(d_real.sum()), (p - 1.0 - r / 2) / 2, atol=0.003)
    np.testing.assert_allclose(float(d_fake.sum()), (p - r / 2) / 2, atol=0.003)


def test_label_noise_of_one_or_more_is_refused():
    for r in (-0.1, 1.0):
        with pytest.raises(OptionError, match="noise on labels"):
            make_objective(label_noise=r)


def test_metrics_speak_of_real_whatever_the_labels(backend64):
    game = build(backend64, flipped=True)
    paper(game, lambda: None, lambda: None)
    real, fake = (backend64.to_host(a) for a in (game.real_logits, game.fake_logits))
    metrics = game.metrics()
    np.testing.assert_allclose(metrics["d_real"], (1 / (1 + np.exp(real))).mean())
    np.testing.assert_allclose(metrics["d_fake"], (1 / (1 + np.exp(fake))).mean())
    assert metrics["acc_real"] == (real < 0).mean()
    assert metrics["acc_fake"] == (fake >= 0).mean()


# ---- the conditional optimum -------------------------------------------------------------------


def test_the_best_d_is_a_best_d_for_every_label():
    """D* = p(x|y) / (p(x|y) + q(x|y)): a D of one free logit per (image, label) finds it."""
    backend = get_backend("numpy", "float64")
    p, q = np.array([[0.6, 0.4], [0.1, 0.9]]), np.array([[0.2, 0.8], [0.5, 0.5]])  # [label, x]
    D = Network(Sequential(Condition(4), Dense(5, 1, b=None)), (1,), backend, "D")
    D.parameters.fill(0)
    objective, losses = make_objective(), D.cache("losses")
    cells = np.arange(4)  # label and x together are the "label" of a lookup table
    repeat = 100
    real, fake = (np.repeat(cells, (repeat * w).round().astype(int).reshape(-1)) for w in (p, q))
    sites = D.cache("real"), D.cache("fake")
    sgd = SGD(D, 5.0)
    for _ in range(400):
        logits = []
        for site, labels in zip(sites, (real, fake), strict=True):
            site.condition = labels
            logits.append(D.forward(np.zeros((len(labels), 1)), site))
        _, *grads = objective.discriminator(*logits, losses)
        D.gradients.fill(0)
        for site, d in zip(sites, grads, strict=True):
            D.backward(d, site)
        sgd.step()
    D_star = 1.0 / (1.0 + np.exp(-D.body.layers[1].W[1:, 0].reshape(2, 2)))
    np.testing.assert_allclose(D_star, p / (p + q), atol=1e-6)


def test_a_sigmoid_generator_keeps_the_range_check():
    """A Condition layer in front does not hide what G's output can reach."""
    assert Sequential(Condition(3), Dense(5, 2), Sigmoid()).reach == (0.0, 1.0)
