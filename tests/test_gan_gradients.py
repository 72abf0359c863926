"""The whole GAN: both players' gradients, G's through D, on narrow copies of every preset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from narrow import game_of, with_labels

from tinygan import Adam, paper
from tinygan.gradcheck import GradientError, check_parameters
from tinygan.nn import BatchNorm, Condition, Conv2D, ConvTranspose2D, Dropout, Maxout, MaxPool2D
from tinygan.presets import PRESETS, get_preset

GAMES = dict(PRESETS)
IMAGES = {name: preset for name, preset in PRESETS.items() if preset.kind == "images"}
GAMES |= {f"{name} with labels": with_labels(preset) for name, preset in IMAGES.items()}
for name in ("mlp-leaky", "dcgan-radford"):
    GAMES[f"{name} with embedded labels"] = with_labels(PRESETS[name], embedding=3)
for name in ("dcgan-tf", "dcgan-radford", "goodfellow2014"):  # where D has BatchNorm or Dropout
    GAMES[f"{name} combined"] = replace(GAMES[f"{name} with labels"], combined=True)

every_game = pytest.mark.parametrize("preset", GAMES)
every_objective = pytest.mark.parametrize(
    ("preset", "objective", "loss"),
    [
        (name, objective, loss)
        for name, preset in GAMES.items()
        for objective in ("minimax", "non-saturating")
        for loss in ("logits", "probabilities")
        if name in PRESETS or (objective, loss) == (preset.objective, preset.loss)
    ],
)


def says_real(game, logits):
    """The logit of "real", on the host."""
    logits = game.G.backend.to_host(logits)
    return -logits if game.objective.flipped else logits


def cross_entropy(logit, target):
    """-t log p - (1 - t) log(1 - p) with NumPy's logaddexp: no code is shared with ours."""
    minus_log_p, minus_log_1_p = np.logaddexp(0.0, -logit), np.logaddexp(0.0, logit)
    return (target * minus_log_p + (1.0 - target) * minus_log_1_p).mean()


class Judge:
    """D's verdicts by call sites of its own, in which nothing is left from another pass."""

    def __init__(self, preset, game):
        self.preset, self.game, self.told = preset, game, preset.labels.classes > 0

    def site(self, net, name, labels):
        site = net.cache(name, noise=self.game.noise)
        if self.told:
            site.condition = labels
        return site

    def labels(self, purpose, n):
        return self.preset.draw_labels(self.game.noise, purpose, n) if self.told else None

    def fakes(self, z):
        G = self.game.G
        return G.forward(z, self.site(G, "G(z)", self.labels("labels", len(z))))

    def of_fakes(self, fakes):
        D = self.game.D
        site = self.site(D, "D(G(z))", self.labels("labels", len(fakes)))
        return says_real(self.game, D.forward(fakes, site))

    def of_both(self, x, fakes):
        D, xp, m = self.game.D, self.game.D.backend.xp, len(x)
        labels, of_x = self.labels("labels", m), self.labels("labels of x", m)
        if not self.preset.combined:
            real = D.forward(x, self.site(D, "D(x)", of_x))
            return says_real(self.game, real), self.of_fakes(fakes)
        both = xp.concatenate([labels, of_x]) if self.told else None
        site = self.site(D, "D(G(z), x)", both)
        logits = says_real(self.game, D.forward(xp.concatenate([fakes, x]), site))
        return logits[m:], logits[:m]

    def targets(self, m):
        """D's targets for x and for fakes, as probabilities of "real"."""
        r, noise, flipped = self.preset.label_noise, self.game.noise, self.preset.flipped
        targets = []
        for kind, label in (("real", 1.0 - flipped), ("fake", 0.0 + flipped)):
            above = 0.0
            if r:
                above = noise.uniform(f"losses/{kind}/labels", (m, 1), label, label + r) - label
                above = noise.backend.to_host(above)
            target = label + above
            targets.append(1.0 - target if flipped else target)
        return targets


@every_objective
def test_the_discriminators_gradient(preset, objective, loss, backend64):
    preset = GAMES[preset]
    game = game_of(preset, backend64, name=objective, loss=loss)
    x, fakes, D = game.sample(), game.fakes(game.draw_noise()), game.D
    judge = Judge(preset, game)

    def minus_v():  # equation 1, where labels are plain
        real, fake = judge.of_both(x, fakes)
        to_real, to_fake = judge.targets(len(x))
        total = cross_entropy(real, to_real) + cross_entropy(fake, to_fake)
        return float(total / 2.0 if preset.halved else total)

    game.discriminator_gradient(x, fakes)
    np.testing.assert_allclose(float(game.d_loss), minus_v(), rtol=1e-9)
    assert check_parameters(minus_v, D, name="d_loss", entries=25) <= 1e-6


@every_objective
def test_the_generators_gradient_through_the_discriminator(preset, objective, loss, backend64):
    preset = GAMES[preset]
    game = game_of(preset, backend64, name=objective, loss=loss)
    z, judge = game.draw_noise(), Judge(preset, game)

    def g_loss():
        logits = judge.of_fakes(judge.fakes(z))
        minimax = objective == "minimax"
        return float(-cross_entropy(logits, 0.0) if minimax else cross_entropy(logits, 1.0))

    game.generator_gradient(game.fakes(z))
    np.testing.assert_allclose(float(game.g_loss), g_loss(), rtol=1e-9)
    assert check_parameters(g_loss, game.G, name="g_loss", entries=25) <= 1e-6


@every_game
def test_both_gradients_from_one_pass_of_d_over_the_fakes(preset, backend64):
    """As `simultaneous` takes them: dropout masks included, one pass serves both players."""
    game = game_of(GAMES[preset], backend64)
    x, z = game.sample(), game.draw_noise()

    def play():
        fakes = game.fakes(z)
        game.discriminator_gradient(x, fakes)
        game.generator_gradient(fakes, judged=True)

    def g_loss():
        play()
        return float(game.g_loss)

    play()
    assert check_parameters(g_loss, game.G, name="g_loss", entries=25) <= 1e-6
    play()

    def d_loss():
        game.discriminator_gradient(x, fakes)
        return float(game.d_loss)

    fakes = game.fakes(z)
    assert check_parameters(d_loss, game.D, name="d_loss", entries=25) <= 1e-6


@pytest.mark.parametrize("combined", [False, True])
def test_ds_running_statistics_follow_what_it_saw(combined, backend64):
    """From a batch that stays they come to a mean of both kinds, nearer to the later one."""
    game = game_of(replace(PRESETS["dcgan-radford"], combined=combined), backend64)
    D, to_host = game.D, backend64.to_host
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    norms = [layer for _, layer in D.layers() if isinstance(layer, BatchNorm)]
    sites = [game.D_of_both] if combined else [game.D_of_x, game.D_of_fakes]
    seen = []
    for site in sites:
        for norm in norms:
            norm.momentum = 0.0
        D.update_statistics(site)
        seen.append(to_host(D.statistics).copy())
    for norm in norms:
        norm.momentum = 0.9
    for _ in range(300):
        game.update_statistics_of_D()
    expected = seen[0] if combined else (0.9 * seen[0] + seen[1]) / 1.9
    np.testing.assert_allclose(to_host(D.statistics), expected, rtol=1e-9)


@every_game
def test_every_parameter_gets_a_gradient(preset, backend64):
    """None is lost on the way; only a bias that BatchNorm subtracts again has none."""
    game = game_of(GAMES[preset], backend64, m=8)
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    game.generator_gradient(game.fakes(game.draw_noise()))
    for net in (game.G, game.D):
        layers = dict(net.layers())
        for path, layer in layers.items():
            place = path.rstrip(".")
            after = layers.get(f"{int(place) + 1}.") if place.isdigit() else None
            for name in layer.parameters:
                if name == "b" and isinstance(after, BatchNorm):
                    continue
                largest = float(abs(layer.views["d" + name]).max())
                assert largest > 1e-6, f"{net.name} {path}{name} has no gradient"


def test_the_narrow_presets_hold_every_kind_of_layer(backend64):
    kinds = set()
    for preset in GAMES.values():
        game = game_of(preset, backend64)
        kinds |= {type(layer) for net in (game.G, game.D) for _, layer in net.layers()}
    assert {BatchNorm, Dropout, Maxout, MaxPool2D, Conv2D, ConvTranspose2D, Condition} <= kinds


def test_a_wrong_sign_in_the_objective_is_found(backend64):
    game = game_of(get_preset("mlp-leaky"), backend64)
    right = game.objective

    def wrong(fake, cache):
        loss, d = right.generator(fake, cache)
        return loss, -d

    game.objective = right._replace(generator=wrong)
    z = game.draw_noise()

    def g_loss():
        game.generator_gradient(game.fakes(z))
        return float(game.g_loss)

    g_loss()
    with pytest.raises(GradientError, match=r"^loss, G .*relative error 2\.00e\+00"):
        check_parameters(g_loss, game.G)


# ---- PyTorch -----------------------------------------------------------------------------------


def torch_player(torch, net):
    """The same network as a function of torch tensors, and its parameters in order."""
    own = {
        name: torch.tensor(a, requires_grad=True)
        for name, a in net.state().items()
        if "running" not in name
    }
    functions = torch.nn.functional

    def forward(x):
        for i, layer in enumerate(net.body.layers):
            kind = type(layer).__name__
            if kind == "Dense":
                x = x @ own[f"{i}.W"] + own[f"{i}.b"]
            elif kind == "BatchNorm":
                gamma, beta = own[f"{i}.gamma"], own[f"{i}.beta"]
                x = functions.batch_norm(x, None, None, gamma, beta, training=True, eps=layer.eps)
            elif kind == "LeakyReLU":
                x = functions.leaky_relu(x, layer.slope)
            elif kind == "Tanh":
                x = torch.tanh(x)
            else:  # Flatten, Reshape
                x = x.reshape(len(x), *layer.shape)
        return x

    return forward, own


@pytest.mark.parametrize("preset", ["mlp-batchnorm", "mlp-leaky", "mlp-leaky-bn"])
def test_whole_steps_equal_pytorch(preset, backend64):
    torch = pytest.importorskip("torch")
    game = game_of(get_preset(preset), backend64, loss="logits")
    G, D = game.G, game.D
    g, g_own = torch_player(torch, G)
    d, d_own = torch_player(torch, D)
    ascend, descend = Adam(D, 2e-4, beta1=0.5), Adam(G, 2e-4, beta1=0.5)
    d_adam = torch.optim.Adam(d_own.values(), 2e-4, betas=(0.5, 0.999))
    g_adam = torch.optim.Adam(g_own.values(), 2e-4, betas=(0.5, 0.999))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    noise, to_host = game.noise, backend64.to_host

    for noise.step in range(1, 6):
        noise.sub = 1
        z, x = (torch.tensor(to_host(a)) for a in (game.draw_noise(), game.sample()))
        real, fake = d(x), d(g(z).detach())
        d_loss = (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))) / 2
        d_adam.zero_grad()
        d_loss.backward()
        d_adam.step()
        noise.sub = 0
        fake = d(g(torch.tensor(to_host(game.draw_noise()))))
        g_loss = bce(fake, torch.ones_like(fake))
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()

        paper(game, ascend.step, descend.step)
        np.testing.assert_allclose(float(game.d_loss), d_loss.item(), rtol=1e-10)
        np.testing.assert_allclose(float(game.g_loss), g_loss.item(), rtol=1e-10)

    for net, own in [(G, g_own), (D, d_own)]:
        layers = dict(net.layers())
        for name, ours in net.state().items():
            if name not in own:
                continue
            after = layers.get(f"{int(name.split('.')[0]) + 1}.")
            if name.endswith(".b") and isinstance(after, BatchNorm):
                continue  # Adam makes steps of full length out of the rounding of a zero gradient
            theirs = own[name].detach().numpy()
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10, err_msg=name)
