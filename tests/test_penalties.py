"""Gradient penalties: every parameter's gradient, against differences, autograd and closed forms.

The value that the differences are taken of is computed here by itself: from D's forward and
backward pass, norms in NumPy, eps looked up in the noise.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import standin
from narrow import game_of, with_labels

from tinygan import Network, Noise, get_backend, make_objective
from tinygan.errors import OptionError
from tinygan.gan.constraints import clip_weights
from tinygan.gan.penalties import PENALTIES, check_penalty, make_penalty
from tinygan.gradcheck import GradientError, check_parameters
from tinygan.nn import (
    BatchNorm,
    Condition,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Maxout,
    MaxPool2D,
    Pack,
    Sequential,
    Sigmoid,
    Softplus,
    Tanh,
    UpSample,
)
from tinygan.presets import PRESETS

M = 6  # samples in a batch
LABELS = np.array([0, 2, 1, 1, 0, 2])
SMOOTH = {"tanh": Tanh, "sigmoid": Sigmoid, "softplus": Softplus}
KINDS = {"leaky": LeakyReLU, **SMOOTH}


def dense(activation, norm=None, first=()):
    width = 4 * (first[0].m if first and isinstance(first[0], Pack) else 1)
    layers = [*first, Dense(width, 7), activation(), Dense(7, 5), activation(), Dense(5, 1)]
    if norm:
        layers.insert(1, norm(7))
    return Sequential(*layers), (4,)


def conv(activation, norm=False, first=()):
    norms = [LayerNorm(3)] if norm else []
    return Sequential(
        *first,
        Conv2D(2 * (first[0].m if first else 1), 3, 3, stride=2),
        *norms,
        activation(),
        Conv2D(3, 4, 3, stride=2),
        activation(),
        Flatten(),
        Dense(8, 1),
    ), (5, 4, 2)


CRITICS = {f"dense {kind}": dense(activation) for kind, activation in KINDS.items()}
CRITICS |= {f"conv {kind}": conv(activation) for kind, activation in KINDS.items()}
CRITICS |= {
    "layer norm, leaky": dense(LeakyReLU, LayerNorm),
    "layer norm, tanh": dense(Tanh, LayerNorm),
    "layer norm, conv leaky": conv(LeakyReLU, norm=True),
    "layer norm, conv softplus": conv(Softplus, norm=True),
    "maxout": (Sequential(Maxout(4, 6, 3), Maxout(6, 4, 3), Dense(4, 1)), (4,)),
    "dropout, leaky": dense(LeakyReLU, lambda n: Dropout(0.5)),
    "dropout, tanh": dense(Tanh, lambda n: Dropout(0.5)),
    "packed by 2, leaky": dense(LeakyReLU, first=(Pack(2),)),
    "packed by 3, tanh": dense(Tanh, first=(Pack(3),)),
    "packed by 2, conv tanh": conv(Tanh, first=(Pack(2),)),
    "labels, tanh": (
        Sequential(Condition(3, embedding=2), Dense(6, 7), Tanh(), Dense(7, 1)),
        (4,),
    ),
    "pooled and up again": (
        Sequential(
            Conv2D(2, 3, 3, padding=1),
            MaxPool2D(2),
            Tanh(),
            UpSample(2),
            ConvTranspose2D(3, 2, 3, stride=2),
            Sigmoid(),
            Flatten(),
            Dense(128, 1),
        ),
        (4, 4, 2),
    ),
}
every_critic = pytest.mark.parametrize("critic", CRITICS)
every_penalty = pytest.mark.parametrize("name", PENALTIES)


class Case:
    """A critic in float64, two batches, and the penalty's value computed apart from the code."""

    def __init__(self, backend, critic, name, weight=2.5):
        self.backend, self.name = backend, name
        self.penalty = make_penalty(name, weight)
        body, shape = CRITICS[critic] if isinstance(critic, str) else critic
        self.noise = Noise(3, backend, step=4, sub=2)
        self.D = Network(body, shape, backend, "D", self.noise).copy()
        rng = np.random.default_rng(5)
        flat = self.D.parameters  # off the zeros and ones they start from
        flat += backend.from_host(rng.uniform(-0.5, 0.5, flat.shape))
        self.x, self.fakes = (backend.from_host(rng.standard_normal((M, *shape))) for _ in range(2))
        self.labels = None
        if any(isinstance(layer, Condition) for _, layer in self.D.layers()):
            self.labels = backend.from_host(LABELS)
        self.pack = next((f.m for _, f in self.D.layers() if isinstance(f, Pack)), 1)
        self.cache = self.site()
        if isinstance(critic, str):  # slopes on both sides of 1, whatever the penalty
            r = self.slopes()
            self.D.body.layers[-1].W = self.D.body.layers[-1].W * (2.0 / (r.min() + r.max()))

    def site(self, check=False):
        site = self.D.cache("D(x_hat)", noise=self.noise, check=check)
        if self.labels is not None:
            site.condition = self.labels
        return site

    def add(self, cache=None):
        """D.gradients anew; the value."""
        self.D.gradients.fill(0)
        penalty, cache = self.penalty, self.cache if cache is None else cache
        return float(penalty.add_gradient(self.D, self.x, self.fakes, cache))

    def points(self):
        to_host = self.backend.to_host
        x, fakes = to_host(self.x), to_host(self.fakes)
        if self.name in ("r1", "r2"):
            return x if self.name == "r1" else fakes
        eps = to_host(self.noise.uniform("D(x_hat)/between", (M // self.pack,), 0.0, 1.0))
        eps = np.repeat(eps, self.pack).reshape(M, *[1] * (x.ndim - 1))
        return eps * x + (1.0 - eps) * fakes

    def slopes(self):
        """|grad D| of each of D's answers, from a fresh call site of the same name."""
        site = self.site()
        logits = self.D.forward(self.backend.from_host(self.points()), site)
        one = self.backend.zeros(logits.shape) + 1.0
        g = self.backend.to_host(self.D.backward(one, site, param_grads=False))
        return np.linalg.norm(g.reshape(len(logits), -1), axis=1)

    def value(self):
        r = self.slopes()
        phi = {
            "gp": (r - 1.0) ** 2,
            "gp-one-sided": np.where(r > 1.0, (r - 1.0) ** 2, 0.0),
            "r1": r**2 / 2.0,
            "r2": r**2 / 2.0,
        }[self.name]
        return float(self.penalty.weight * phi.mean())

    def check(self):
        """The relative error of the gradient; GradientError above 1e-6."""
        np.testing.assert_allclose(self.add(), self.value(), rtol=1e-12)
        return check_parameters(self.value, self.D, name=f"{self.name} penalty", entries=20)


# ---- against central differences -----------------------------------------------------------------


@every_penalty
@every_critic
def test_gradients_agree_with_differences(critic, name, backend64):
    case = Case(backend64, critic, name)
    assert case.check() <= 1e-6
    assert float(abs(case.D.gradients).max()) > 1e-3


@every_penalty
@every_critic
def test_slopes_lie_on_both_sides_of_one(critic, name, backend64):
    """Else the one-sided penalty would be tried on one of its sides only."""
    r = Case(backend64, critic, name).slopes()
    assert r.min() < 1.0 < r.max()


def games():
    """Presets whose D stands a penalty as it is, or with LayerNorm in BatchNorm's place."""
    for name, preset in PRESETS.items():
        d_norm = "layer" if "radford" in name else None
        yield name, replace(preset, d_norm=d_norm)
        if preset.kind == "images":
            yield f"{name} with labels", with_labels(replace(preset, d_norm=d_norm))


@pytest.mark.parametrize("name", ["gp", "r2"])
@pytest.mark.parametrize(("who", "preset"), list(games()))
def test_a_whole_step_of_d(who, preset, name, backend64):
    """Both losses and the penalty in one gradient, on narrow copies of every preset."""
    game = game_of(preset, backend64)
    game.penalty = make_penalty(name, 3.0)
    check_penalty(game.D)
    x, fakes = game.sample(), game.fakes(game.draw_noise())

    def d_loss():
        game.discriminator_gradient(x, fakes)
        return float(game.d_loss)

    whole = d_loss()
    assert check_parameters(d_loss, game.D, name=who, entries=8) <= 1e-6
    penalty, game.penalty = float(game.d_penalty), None
    assert penalty > 0.0
    assert d_loss() == pytest.approx(whole - penalty)


# ---- negative controls: each mistake is found ----------------------------------------------------


def without_second_derivative(monkeypatch):
    for layer in SMOOTH.values():
        monkeypatch.setattr(layer, "d2f", lambda self, y, cache: 0.0 * y)


@every_penalty
@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("shape", ["dense", "conv"])
def test_without_the_second_derivative_smooth_critics_fail(
    shape, kind, name, backend64, monkeypatch
):
    case = Case(backend64, f"{shape} {kind}", name)
    without_second_derivative(monkeypatch)
    with pytest.raises(GradientError) as error:
        case.check()
    found = re.search(r"relative error (\S+)", str(error.value))
    assert float(found[1]) > 0.05  # wrong in the first or second digit, not in the seventh


def test_without_the_second_derivative_piecewise_linear_critics_pass(backend64, monkeypatch):
    """Which is why that mistake survives in code that was only tried on LeakyReLU."""
    without_second_derivative(monkeypatch)
    for critic in ("dense leaky", "conv leaky", "maxout"):
        assert Case(backend64, critic, "gp").check() <= 1e-6


def test_without_its_second_derivative_layer_norm_fails(backend64, monkeypatch):
    whole = LayerNorm.jvp_backward

    def flat(self, dy, dty, cache, param_grads=True):
        _, dt = whole(self, None, dty, cache, param_grads)
        return None if dy is None else self.backward(dy, cache, param_grads), dt

    monkeypatch.setattr(LayerNorm, "jvp_backward", flat)
    with pytest.raises(GradientError):
        Case(backend64, "layer norm, leaky", "gp").check()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda r, slope: slope * M,  # the mean's 1/m is missing
        lambda r, slope: slope * r,  # no division by |g|: phi' in phi'/r's place
        lambda r, slope: (4.0 * r - 2.0) / r,  # u moves too: d(phi'(r) r)/dr in phi''s place
        lambda r, slope: -slope,
    ],
    ids=["without 1/m", "without 1/|g|", "u not held fixed", "wrong sign"],
)
@pytest.mark.parametrize("critic", ["dense leaky", "conv tanh"])
def test_a_mistake_in_u_is_found(mistake, critic, backend64):
    case = Case(backend64, critic, "gp")
    right = case.penalty.phi

    def wrong(r, cache):
        phi, slope = right(r, cache)
        return phi, mistake(r, slope)

    case.penalty = case.penalty._replace(phi=wrong)
    with pytest.raises(GradientError):
        case.check()


@pytest.mark.parametrize("critic", ["dense leaky", "packed by 2, leaky"])
def test_one_eps_for_all_samples_is_found(critic, backend64):
    case = Case(backend64, critic, "gp")
    mine, noise = case.value(), case.noise
    uniform = noise.uniform
    noise.uniform = lambda *args: 0.0 * uniform(*args) + uniform(*args)[:1]
    assert abs(case.add() / mine - 1.0) > 1e-3


def test_the_norm_of_each_sample_in_a_pack_is_not_the_packs(backend64):
    case = Case(backend64, "packed by 2, leaky", "gp")
    case.D.body.layers[0].pack = 1  # eps of each sample's own
    assert abs(case.add() / case.value() - 1.0) > 1e-3


# ---- identities ----------------------------------------------------------------------------------


@every_critic
def test_adjoint_and_symmetric(critic, backend64):
    """<1, Ju> = <g, u>; the reverse of the jvp gives dt = g and dx = Hu, with H symmetric."""
    case, to_host = Case(backend64, critic, "r1"), backend64.to_host
    D, site, x = case.D, case.site(), case.x
    one = backend64.zeros(D.forward(x, site).shape) + 1.0
    g = to_host(D.backward(one, site, param_grads=False))
    rng = np.random.default_rng(1)
    u, v = rng.standard_normal(x.shape), rng.standard_normal(x.shape)

    def bent(direction):
        ju = to_host(D.jvp(backend64.from_host(direction), site))
        np.testing.assert_allclose(ju.sum(), (g * direction).sum(), rtol=1e-11)
        dx, dt = D.jvp_backward(None, one, site, param_grads=False)
        np.testing.assert_allclose(to_host(dt), g, rtol=1e-11, atol=1e-13)
        return 0.0 * u if dx is None else to_host(dx)

    hu, hv = bent(u), bent(v)
    scale = np.abs(hu * v).sum()
    assert abs((hu * v).sum() - (hv * u).sum()) <= 1e-12 * scale
    linear = all(word not in critic for word in ("tanh", "sigmoid", "softplus", "norm", "pooled"))
    assert (scale == 0.0) == linear


# ---- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("length", [0.5, 3.0])
def test_a_linear_critic(name, length, backend64):
    """D(x) = wx + b has the slope w everywhere."""
    case = Case(backend64, (Dense(4, 1), (4,)), name, weight=10.0)
    w = np.array([[1.0], [-2.0], [2.0], [4.0]]) * length / 5.0
    case.D.body.W = backend64.from_host(w)
    excess = max(length - 1.0, 0.0) if name == "gp-one-sided" else length - 1.0
    value, times_w = 10.0 * excess**2, 20.0 * excess / length
    if name in ("r1", "r2"):
        value, times_w = 5.0 * length**2, 10.0
    np.testing.assert_allclose(case.add(), value, rtol=1e-12)
    got = backend64.to_host(case.D.body.dW)
    np.testing.assert_allclose(got, times_w * w, rtol=1e-12, atol=1e-14)
    assert float(abs(case.D.body.db).max()) == 0.0  # a bias changes no slope


def test_by_hand(backend64):
    """docs/penalties.md, section 3: D(x) = v tanh(wx) at x = 0.5."""
    body = Sequential(Dense(1, 1, b=None), Tanh(), Dense(1, 1, b=None))
    D = Network(body, (1,), backend64, "D")
    D.parameters[0], D.parameters[1] = 1.0, 2.0
    site = D.cache("D(x)")
    penalty = make_penalty("gp", 1.0)._replace(at="reals")
    value = penalty.add_gradient(D, backend64.zeros((1, 1)) + 0.5, None, site)
    assert float(value) == pytest.approx(0.572895**2, abs=1e-6)
    np.testing.assert_allclose(backend64.to_host(D.gradients), [0.969377, 0.901105], atol=1e-6)


@pytest.mark.parametrize("width", [1.0, 4.0])
def test_how_steep_a_wasserstein_critic_becomes(width, backend64):
    """Data at W, fakes at 0, a straight D: at rest at the slope 1 + W / (2 lambda)."""
    weight, wgan = 10.0, make_objective("wgan")
    D = Network(Dense(1, 1), (1,), backend64, "D")
    D.body.W = 1.0 + width / (2.0 * weight)
    reals, fakes = backend64.zeros((3, 1)) + width, backend64.zeros((3, 1))
    sites = [D.cache(name, noise=Noise(0, backend64)) for name in ("x", "G(z)", "x_hat", "losses")]
    real, fake = D.forward(reals, sites[0]), D.forward(fakes, sites[1])
    d_loss, d_real, d_fake = wgan.discriminator(real, fake, sites[3])
    D.backward(d_real, sites[0])
    D.backward(d_fake, sites[1])
    value = make_penalty("gp", weight).add_gradient(D, reals, fakes, sites[2])
    assert abs(float(D.body.dW[0, 0])) < 1e-12
    assert float(d_loss + value) == pytest.approx(-width - width**2 / (4.0 * weight))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_penalty
def test_a_slope_of_zero(name, dtype, open_backend):
    """The norm has its kink there: a finite subgradient, and no division by zero."""
    backend = open_backend(dtype)
    case = Case(backend, "dense leaky", name, weight=10.0)
    for zero in (0.0, 1e-30):
        case.D.parameters.fill(zero)
        assert case.add() == pytest.approx(10.0 if name == "gp" else 0.0, abs=1e-12)
        assert np.isfinite(backend.to_host(case.D.gradients)).all()


# ---- promises ------------------------------------------------------------------------------------


@every_penalty
@every_critic
def test_it_adds_repeats_and_writes_to_nothing_else(critic, name, backend64):
    case, to_host = Case(backend64, critic, name), backend64.to_host
    before = [to_host(a) for a in (case.x, case.fakes, case.D.parameters)]
    value = case.add()
    once = to_host(case.D.gradients)
    again = case.penalty.add_gradient(case.D, case.x, case.fakes, case.cache)
    assert again.shape == ()
    assert float(again) == value
    np.testing.assert_allclose(to_host(case.D.gradients), 2.0 * once, rtol=1e-12, atol=1e-14)
    for array, old in zip((case.x, case.fakes, case.D.parameters), before, strict=True):
        np.testing.assert_array_equal(to_host(array), old)
    checked = case.site(check=True)  # ended loans are poisoned, kept arrays compared
    for _ in range(2):
        assert case.add(checked) == value
        np.testing.assert_allclose(to_host(case.D.gradients), once, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("critic", ["dense tanh", "conv leaky", "dropout, leaky", "maxout"])
def test_it_does_not_disturb_other_call_sites(critic, backend64):
    """Between D's passes over real and fake samples and their backward passes."""
    case, to_host = Case(backend64, critic, "gp"), backend64.to_host
    D, sites = case.D, [case.D.cache(name, noise=case.noise) for name in ("D(x)", "D(G(z))")]
    one = backend64.zeros((M, 1)) + 1.0

    def losses(penalised):
        D.gradients.fill(0)
        for site, batch in zip(sites, (case.x, case.fakes), strict=True):
            D.forward(batch, site)
        if penalised:
            case.penalty.add_gradient(D, case.x, case.fakes, case.cache)
        for site in sites:
            D.backward(one, site, input_grad=False)
        return to_host(D.gradients)

    case.add()
    alone = to_host(D.gradients)
    np.testing.assert_allclose(losses(True), losses(False) + alone, rtol=1e-12, atol=1e-13)


@every_penalty
def test_the_order_in_memory_does_not_matter(name, backend64):
    case = Case(backend64, "conv tanh", name)
    value = case.add()
    want = backend64.to_host(case.D.gradients)
    for batch in ("x", "fakes"):
        images = backend64.empty_images(case.x.shape)
        images[...] = getattr(case, batch)
        setattr(case, batch, images)
    np.testing.assert_allclose(case.add(), value, rtol=1e-12)
    np.testing.assert_allclose(backend64.to_host(case.D.gradients), want, rtol=1e-10, atol=1e-13)


def test_each_step_and_update_draws_its_own_eps(backend64):
    case, values = Case(backend64, "dense leaky", "gp"), set()
    for case.noise.step in (1, 2):
        for case.noise.sub in (1, 2):
            values.add(case.add())
    assert len(values) == 4


def test_float32_is_near(open_backend):
    for critic in ("dense softplus", "conv leaky", "layer norm, conv leaky"):
        wide, narrow = (Case(open_backend(d), critic, "gp") for d in ("float64", "float32"))
        wide.add()
        value = narrow.penalty.add_gradient(narrow.D, narrow.x, narrow.fakes, narrow.cache)
        assert value.dtype == np.float32
        got, want = (c.backend.to_host(c.D.gradients) for c in (narrow, wide))
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@every_penalty
@pytest.mark.parametrize("critic", ["dense softplus", "layer norm, conv leaky", "maxout"])
def test_nothing_waits_for_the_device(critic, name, cupy_standin):
    case = Case(cupy_standin("float64"), critic, name)
    case.add()
    with standin.counted() as events:
        case.penalty.add_gradient(case.D, case.x, case.fakes, case.cache)
        clip_weights(case.D, 0.5)
    assert not events


@pytest.mark.parametrize(
    ("critic", "products"), [("dense leaky", 3 * 5), ("dense tanh", 2 * 7 + 5)]
)
def test_cost_in_products(critic, products, monkeypatch):
    """docs/penalties.md: 5 products a dense layer, 7 below a smooth activation."""
    backend = get_backend("numpy", "float64")
    case, count = Case(backend, critic, "gp"), []
    for name in ("matmul", "affine", "matmul_add"):
        real = getattr(backend, name)

        def counted(*args, real=real, **options):
            count.append(1)
            return real(*args, **options)

        monkeypatch.setattr(backend, name, counted)
    case.add()
    assert len(count) == products


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (Sequential(Dense(3, 4), BatchNorm(4), Dense(4, 1)), "1"),
        (Sequential(Sequential(Dense(3, 4), BatchNorm(4)), Dense(4, 1)), "0.1"),
    ],
)
def test_batch_norm_is_refused_in_one_line(body, place, backend64):
    D = Network(body, (3,), backend64, "D")
    with pytest.raises(OptionError) as error:
        check_penalty(D)
    message = str(error.value)
    assert message.startswith(f"D layer {place} BatchNorm(4) couples the samples of a batch")
    assert "--d-norm layer" in message
    assert "\n" not in message


def test_layer_norm_is_not_refused(backend64):
    check_penalty(Network(Sequential(Dense(3, 4), LayerNorm(4), Dense(4, 1)), (3,), backend64))


def test_what_the_refusal_is_about(backend64):
    """Through BatchNorm, Jᵀ1 is not the samples' slopes; here it is nothing at all [bn.6]."""
    D = Network(Sequential(Dense(3, 4), BatchNorm(4), Dense(4, 1)), (3,), backend64, "D")
    site, x = D.cache("D(x)"), backend64.from_host(np.random.default_rng(0).normal(size=(5, 3)))
    logits = D.forward(x, site)
    assert float(abs(logits - logits.mean()).max()) > 0.1
    assert float(abs(D.backward(0.0 * logits + 1.0, site)).max()) < 1e-12


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("gradient", 1.0, "unknown penalty 'gradient': choose gp, gp-one-sided, r1 or r2"),
        ("gp", 0.0, "a penalty's weight is a number above 0, got 0.0"),
        ("r1", float("nan"), "a penalty's weight is a number above 0, got nan"),
        ("r1", float("inf"), "a penalty's weight is a number above 0, got inf"),
    ],
)
def test_bad_options_are_refused(name, weight, message):
    with pytest.raises(OptionError, match=message):
        make_penalty(name, weight)


# ---- clipping ------------------------------------------------------------------------------------


def test_clipping_reaches_every_parameter(backend64):
    D = Case(backend64, "layer norm, conv leaky", "gp").D
    before = backend64.to_host(D.parameters)
    clip_weights(D, 0.1)
    np.testing.assert_array_equal(backend64.to_host(D.parameters), np.clip(before, -0.1, 0.1))
    assert all(float(abs(view).max()) <= 0.1 for view in D.named_parameters().values())


@pytest.mark.parametrize("c", [0.0, -0.01, float("nan")])
def test_clipping_to_nothing_is_refused(c, backend64):
    with pytest.raises(OptionError, match=r"weights are clipped to \[-c, c\] for a c above 0"):
        clip_weights(Network(Dense(2, 1), (2,), backend64), c)


# ---- PyTorch's double backward -------------------------------------------------------------------


def torch_critic(torch, case):
    """The same D as a function of a torch tensor, and its parameters by name."""
    own = {
        name: torch.tensor(case.backend.to_host(view), requires_grad=True)
        for name, view in case.D.named_parameters().items()
    }
    functions = torch.nn.functional

    def conv2d(x, layer, w, b):
        (kh, kw), (sh, sw) = layer.kernel, layer.stride
        pads = []
        for n, k, s in ((x.shape[2], kw, sw), (x.shape[1], kh, sh)):
            whole = max(0, (-(-n // s) - 1) * s + k - n)
            pads += [whole // 2, whole - whole // 2]
        x = functions.pad(x.permute(0, 3, 1, 2), pads)
        return functions.conv2d(x, w.permute(3, 2, 0, 1), b, (sh, sw)).permute(0, 2, 3, 1)

    def forward(x):
        for i, layer in enumerate(case.D.body.layers):
            kind = type(layer).__name__
            at = {name.partition(".")[2]: p for name, p in own.items() if name.startswith(f"{i}.")}
            if kind == "Dense":
                x = x @ at["W"] + at["b"]
            elif kind == "Conv2D":
                x = conv2d(x, layer, at["W"], at["b"])
            elif kind == "Maxout":
                h = x @ at["dense.W"] + at["dense.b"]
                x = h.reshape(len(x), layer.pieces, -1).amax(dim=1)
            elif kind == "LayerNorm":
                x = functions.layer_norm(x, x.shape[1:], eps=layer.eps) * at["gamma"] + at["beta"]
            elif kind == "Pack":
                n, *between, c = x.shape
                x = x.reshape(n // layer.m, layer.m, *between, c).movedim(1, -2)
                x = x.reshape(n // layer.m, *between, layer.m * c)
            elif kind == "Flatten":
                x = x.flatten(1)
            else:
                slope = getattr(layer, "slope", None)
                x = (
                    functions.leaky_relu(x, slope)
                    if slope is not None
                    else getattr(functions, kind.lower())(x)
                )
        return x

    return forward, own


TORCH = [name for name in CRITICS if not any(w in name for w in ("dropout", "labels", "pooled"))]


@every_penalty
@pytest.mark.parametrize("critic", TORCH)
def test_gradients_equal_pytorchs_double_backward(critic, name):
    torch = pytest.importorskip("torch")
    case = Case(get_backend("numpy", "float64"), critic, name)
    forward, own = torch_critic(torch, case)
    points = torch.tensor(case.points(), requires_grad=True)
    logits = forward(points)
    (g,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
    r = g.reshape(len(logits), -1).norm(dim=1)
    excess = r - 1.0
    phi = {"gp": excess**2, "gp-one-sided": excess.clamp(min=0.0) ** 2}.get(name, r**2 / 2.0)
    value = case.penalty.weight * phi.mean()
    value.backward()
    np.testing.assert_allclose(case.add(), value.item(), rtol=1e-11)
    layers = dict(case.D.layers())
    for path, tensor in own.items():
        place, _, parameter = path.rpartition(".")
        got = layers[place + "."].views["d" + parameter]
        want = 0.0 * got if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12, err_msg=path)
