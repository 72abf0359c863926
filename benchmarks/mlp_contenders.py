"""One training step of the preset mlp-batchnorm, by tinygan and by PyTorch: the same step.

Algorithm 1 with k = 1: D on a minibatch of images and, apart from it, on a minibatch of fakes; one
update of D; G through D on fresh noise, without D's weight gradients; one update of G. Noise is
drawn at every step, the minibatch is gathered from uint8 images by random indices and scaled.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Prepared, blas, rss

IMAGES = 60_000


def images(seed: int) -> np.ndarray:
    """As many images as MNIST has, uint8 (60 000, 28, 28, 1): 1000 drawn digits, repeated.

    Digits and not noise: D would tell noise apart at once, its gradients would sink to denormal
    numbers, and the times would be those of denormal arithmetic.
    """
    from tinygan.data import strokes

    return np.tile(strokes(1000, seed=seed).images, (IMAGES // 1000, 1, 1, 1))


class Ours:
    """The game as examples/train_mlp_gan.py puts it together, with the preset's own parts."""

    def __init__(self, batch: int, seed: int, dtype: str = "float32") -> None:
        from tinygan import Game, Network, Noise, get_backend, make_objective
        from tinygan.data import Minibatches
        from tinygan.gan import ORDERS
        from tinygan.presets import get_preset

        recipe = get_preset("mlp-batchnorm")
        backend = get_backend("numpy", dtype)
        self.noise = noise = Noise(seed, backend)
        G = Network(recipe.generator(None), (recipe.latent,), backend, "G", noise)
        D = Network(recipe.discriminator(), (28, 28, 1), backend, "D", noise)
        self.G_optimiser = recipe.optimiser(G, recipe.lr, IMAGES // batch)
        self.D_optimiser = recipe.optimiser(D, recipe.lr, IMAGES // batch)
        objective = make_objective(recipe.objective, recipe.loss, recipe.halved)
        sample = Minibatches(
            images(seed), batch, noise, recipe.value_range, recipe.k, recipe.replacement
        )
        self.game = Game(
            G, D, objective, lambda: noise.normal("z", (batch, recipe.latent)), sample, noise
        )
        self.play, self.k = ORDERS[recipe.order], recipe.k

    def ascend_D(self) -> None:
        self.D_optimiser.step()

    def descend_G(self) -> None:
        self.G_optimiser.step()
        self.game.G.update_statistics(self.game.G_of_z)

    def step(self) -> None:
        self.noise.step += 1
        self.play(self.game, self.ascend_D, self.descend_G, self.k)


def ours(batch: int, seed: int) -> Prepared:
    """tinygan on NumPy, float32."""
    import tinygan
    import tinygan.data
    import tinygan.presets

    after_imports = rss()
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    versions["tinygan"] = tinygan.__version__
    return Prepared(Ours(batch, seed).step, {"versions": versions, "blas": blas()}, after_imports)


class Theirs:
    """The same networks, losses and updates with torch.nn, autograd and torch.optim.Adam."""

    def __init__(
        self, batch: int, seed: int, adam: dict[str, bool], compiled: bool, dtype: str = "float32"
    ) -> None:
        import torch
        from torch import nn

        torch.manual_seed(seed)
        self.torch, self.batch, self.dtype = torch, batch, getattr(torch, dtype)
        layers: list[Any] = []
        for n_in, n_out in [(100, 256), (256, 512), (512, 1024)]:
            # PyTorch's momentum is 1 minus Keras's
            norm = nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.2)
            layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(0.2), norm]
        self.G = nn.Sequential(*layers, nn.Linear(1024, 784), nn.Tanh()).to(self.dtype)
        self.D = nn.Sequential(
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        ).to(self.dtype)
        self.G_optimiser, self.D_optimiser = (
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), **adam)
            for net in (self.G, self.D)
        )
        # The compiled modules share their parameters with the plain ones.
        self.run_G = torch.compile(self.G) if compiled else self.G
        self.run_D = torch.compile(self.D) if compiled else self.D
        self.bce = nn.functional.binary_cross_entropy_with_logits
        self.one = torch.ones(batch, 1, dtype=self.dtype)
        self.zero = torch.zeros(batch, 1, dtype=self.dtype)
        self.images = torch.from_numpy(images(seed).reshape(IMAGES, 784))

    def draw_noise(self) -> Any:
        return self.torch.randn(self.batch, 100, dtype=self.dtype)

    def sample(self) -> Any:
        index = self.torch.randint(IMAGES, (self.batch,))
        return self.images[index].to(self.dtype).mul_(2.0 / 255.0).sub_(1.0)

    def step(self) -> None:
        self.discriminator_gradient()
        self.D_optimiser.step()
        self.generator_gradient()
        self.G_optimiser.step()

    def discriminator_gradient(self) -> None:
        z = self.draw_noise()
        x = self.sample()
        with self.torch.no_grad():
            fakes = self.run_G(z)
        real_loss = self.bce(self.run_D(x), self.one)
        self.d_loss = 0.5 * (real_loss + self.bce(self.run_D(fakes), self.zero))
        self.D_optimiser.zero_grad(set_to_none=True)
        self.d_loss.backward()

    def generator_gradient(self) -> None:
        self.D.requires_grad_(False)  # autograd then skips D's weight gradients
        self.g_loss = self.bce(self.run_D(self.run_G(self.draw_noise())), self.one)
        self.G_optimiser.zero_grad(set_to_none=True)
        self.g_loss.backward()
        self.D.requires_grad_(True)


def theirs(batch: int, seed: int, threads: int, adam: dict[str, bool], compiled: bool) -> Prepared:
    """PyTorch on the CPU, float32; `adam` chooses the form of its optimiser."""
    import torch

    torch.set_num_threads(threads)
    if compiled:
        import torch._dynamo  # its memory belongs to the imports
    after_imports = rss()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    about = {
        "versions": versions,
        "blas": ["MKL" if torch.backends.mkl.is_available() else "not MKL"],
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    return Prepared(Theirs(batch, seed, adam, compiled).step, about, after_imports)


def check(batch: int, seed: int, dtype: str, steps: int) -> dict[str, float]:
    """Run both from the same weights on the same draws; relative differences by name.

    Losses, gradients and, after `steps` steps, parameters: max |a - b| / max |b| per tensor, the
    worst tensor's figure.
    """
    a = Ours(batch, seed, dtype)
    b = Theirs(batch, seed, {}, False, dtype)
    zs, xs = _recorded(a)
    b.draw_noise = lambda: b.torch.from_numpy(zs.pop(0))  # type: ignore[method-assign]
    b.sample = lambda: b.torch.from_numpy(xs.pop(0).reshape(batch, 784))  # type: ignore[method-assign]
    pairs = {"D": (a.game.D, b.D), "G": (a.game.G, b.G)}
    for net, module in pairs.values():
        _copy_weights(net.named_parameters(), module, b.torch)
    worst: dict[str, float] = {}

    def note(what: str, ours: Any, theirs: Any) -> None:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        scale = float(np.abs(theirs).max())
        worst[what] = max(worst.get(what, 0.0), float(np.abs(ours - theirs).max()) / scale)

    gradients: dict[str, list[np.ndarray]] = {}

    def keep(who: str, update: Callable[[], None]) -> Callable[[], None]:
        def kept_then_updated() -> None:
            gradients[who] = _in_torch_order(pairs[who][0], "d")
            update()

        return kept_then_updated

    for _ in range(steps):
        a.noise.step += 1
        a.play(a.game, keep("D", a.ascend_D), keep("G", a.descend_G), a.k)
        b.discriminator_gradient()
        theirs_D = [p.grad.numpy().copy() for p in b.D.parameters()]
        b.D_optimiser.step()
        b.generator_gradient()
        theirs_G = [p.grad.numpy().copy() for p in b.G.parameters()]
        b.G_optimiser.step()
        note("D's loss", a.game.d_loss, b.d_loss.detach())
        note("G's loss", a.game.g_loss, b.g_loss.detach())
        for who, theirs_all in (("D", theirs_D), ("G", theirs_G)):
            # one scale for a player: a bias before BatchNorm may have a gradient of nearly 0
            flat = [np.concatenate([g.ravel() for g in gs]) for gs in (gradients[who], theirs_all)]
            note(f"{who}'s gradient", *flat)
    for who, (net, module) in pairs.items():
        for ours_p, theirs_p in zip(_in_torch_order(net), module.parameters(), strict=True):
            note(f"{who}'s parameters", ours_p, theirs_p.detach())
    return worst


def _recorded(a: Ours) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Lists that fill with copies of the noise and the minibatches that `a` draws."""
    zs: list[np.ndarray] = []
    xs: list[np.ndarray] = []
    draw_noise, sample = a.game.draw_noise, a.game.sample

    def recorded_noise() -> Any:
        zs.append((z := draw_noise()).copy())
        return z

    def recorded_sample() -> Any:
        xs.append((x := sample()).copy())
        return x

    a.game.draw_noise, a.game.sample = recorded_noise, recorded_sample
    return zs, xs


def _in_torch_order(net: Any, prefix: str = "") -> list[np.ndarray]:
    """Copies of parameters (prefix "d": gradients); torch keeps a dense layer's W as (out, in)."""
    arrays = []
    for _, layer in net.layers():
        for name in layer.parameters:
            array = layer.views[prefix + name]
            arrays.append((array.T if name == "W" else array).copy())
    return arrays


def _copy_weights(named: dict[str, Any], module: Any, torch: Any) -> None:
    names = list(named)
    with torch.no_grad():
        for name, parameter in zip(names, module.parameters(), strict=True):
            array = named[name]
            parameter.copy_(torch.from_numpy((array.T if name.endswith("W") else array).copy()))
