"""The whole GAN: both players' gradients, G's through D, on narrow copies of every preset."""

from __future__ import annotations

import numpy as np
import pytest
from narrow import game_of

from tinygan import Adam, paper
from tinygan.gradcheck import GradientError, check_parameters
from tinygan.nn import BatchNorm, Dropout, Maxout
from tinygan.presets import PRESETS, get_preset

every_game = [
    pytest.mark.parametrize("loss", ["logits", "probabilities"]),
    pytest.mark.parametrize("objective", ["minimax", "non-saturating"]),
    pytest.mark.parametrize("preset", PRESETS),
]


def each(test):
    for mark in every_game:
        test = mark(test)
    return test


def sigmoid_of(net, x, site):
    """sigmoid(logits) as NumPy computes it: the losses below share no code with the objectives."""
    logits = net.backend.to_host(net.forward(x, site))
    return 1.0 / (1.0 + np.exp(-logits))


@each
def test_the_discriminators_gradient(preset, objective, loss, backend64):
    game = game_of(PRESETS[preset], backend64, name=objective, loss=loss)
    x, fakes, D = game.sample(), game.fakes(game.draw_noise()), game.D
    on_real, on_fake = (D.cache(name, noise=game.noise) for name in ("D(x)", "D(G(z))"))

    def minus_half_v():  # equation 1
        real, fake = sigmoid_of(D, x, on_real), sigmoid_of(D, fakes, on_fake)
        return float(-(np.log(real).mean() + np.log(1.0 - fake).mean()) / 2.0)

    game.discriminator_gradient(x, fakes)
    np.testing.assert_allclose(float(game.d_loss), minus_half_v(), rtol=1e-9)
    assert check_parameters(minus_half_v, D, name="d_loss", entries=25) <= 1e-6


@each
def test_the_generators_gradient_through_the_discriminator(preset, objective, loss, backend64):
    game = game_of(PRESETS[preset], backend64, name=objective, loss=loss)
    z, G, D = game.draw_noise(), game.G, game.D
    of_z, on_fake = G.cache("G(z)", noise=game.noise), D.cache("D(G(z))", noise=game.noise)

    def g_loss():
        p = sigmoid_of(D, G.forward(z, of_z), on_fake)
        return float(np.log(1.0 - p).mean() if objective == "minimax" else -np.log(p).mean())

    game.generator_gradient(game.fakes(z))
    np.testing.assert_allclose(float(game.g_loss), g_loss(), rtol=1e-9)
    assert check_parameters(g_loss, G, name="g_loss", entries=25) <= 1e-6


@pytest.mark.parametrize("preset", PRESETS)
def test_both_gradients_from_one_pass_of_d_over_the_fakes(preset, backend64):
    """As `simultaneous` takes them: dropout masks included, one pass serves both players."""
    game = game_of(PRESETS[preset], backend64)
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


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_gets_a_gradient(preset, backend64):
    """None is lost on the way; only a bias that BatchNorm subtracts again has none."""
    game = game_of(PRESETS[preset], backend64, m=8)
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
    for preset in PRESETS.values():
        game = game_of(preset, backend64)
        kinds |= {type(layer) for net in (game.G, game.D) for _, layer in net.layers()}
    assert {BatchNorm, Dropout, Maxout} <= kinds


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
