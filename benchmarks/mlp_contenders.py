"""One training step of the preset mlp-batchnorm, by tinygan and by PyTorch: the same step.

`Ours` and `differences` serve other presets too.

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

    def __init__(
        self,
        batch: int,
        seed: int,
        dtype: str = "float32",
        preset: Any = "mlp-batchnorm",
        dropout: bool = True,
        backend: str = "numpy",
        precision: str = "float32",
        captured: bool = False,
    ) -> None:
        """`preset`: a name or a Preset. `dropout=False` leaves D's dropout layers out."""
        from tinygan import Game, Network, Noise, get_backend, make_objective
        from tinygan.data import Minibatches
        from tinygan.gan import ORDERS
        from tinygan.nn import Dropout, Sequential
        from tinygan.presets import get_preset

        recipe = get_preset(preset) if isinstance(preset, str) else preset
        self.backend = place = get_backend(backend, dtype, precision)
        self.noise = noise = Noise(seed, place)
        G = Network(recipe.generator(None, recipe.labels), (recipe.latent,), place, "G", noise)
        judge = recipe.discriminator(recipe.labels)
        if not dropout:
            judge = Sequential(*(f for f in judge.layers if not isinstance(f, Dropout)))
        D = Network(judge, (28, 28, 1), place, "D", noise)
        self.G_optimiser = recipe.optimiser(G, recipe.lr, IMAGES // batch)
        self.D_optimiser = recipe.optimiser(D, recipe.lr, IMAGES // batch)
        objective = make_objective(recipe.objective, recipe.loss, recipe.halved)
        sample = Minibatches(
            images(seed), batch, noise, recipe.value_range, recipe.k, recipe.replacement
        )
        self.game = Game(
            G,
            D,
            objective,
            lambda: noise.normal("z", (batch, recipe.latent)),
            sample,
            noise,
            combined=recipe.combined,
        )
        self.play, self.k = ORDERS[recipe.order], recipe.k
        self.moves = place.capture(self._moves) if captured else self._moves

    def ascend_D(self) -> None:
        self.D_optimiser.step()

    def descend_G(self) -> None:
        self.G_optimiser.step()
        self.game.G.update_statistics(self.game.G_of_z)

    def step(self) -> None:
        self.noise.step += 1
        self.moves()

    def _moves(self) -> None:
        self.play(self.game, self.ascend_D, self.descend_G, self.k)


def ours(batch: int, seed: int, **options: Any) -> Prepared:
    """tinygan on NumPy, float32."""
    import tinygan
    import tinygan.data
    import tinygan.presets

    after_imports = rss()
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    versions["tinygan"] = tinygan.__version__
    about = {"versions": versions, "blas": blas()}  # before our own threads take OpenBLAS's place
    return Prepared(Ours(batch, seed, **options).step, about, after_imports)


# ---- the products alone --------------------------------------------------------------------------

# Of each dense layer: how often its y = x W, its dW = xᵀ dy and its dx = dy Wᵀ are due in a step.
# G works for D's turn and for its own. D judges images, fakes and fakes again, has no weight
# gradient in G's turn, and needs dx of its first layer there alone.
PASSES = {"G": (2, 1, 1), "D": (3, 2, 3)}
FIRST = {"G": (2, 1, 0), "D": (3, 2, 1)}


def products(preset: str = "mlp-batchnorm") -> list[tuple[tuple[int, int, int], int, int]]:
    """(counts, n_in, n_out) of every dense layer: how often each of its products is due in a step.

    All three take the same number of multiplications.
    """
    from tinygan.nn import Dense
    from tinygan.presets import get_preset

    recipe = get_preset(preset)
    found = []
    for player, body in (
        ("G", recipe.generator(None, recipe.labels)),
        ("D", recipe.discriminator(recipe.labels)),
    ):
        dense = [layer for layer in body.layers if isinstance(layer, Dense)]
        for layer in dense:
            counts = FIRST[player] if layer is dense[0] else PASSES[player]
            found.append((counts, layer.n_in, layer.n_out))
    return found


# Adam reads theta, the gradient, m and v, and writes theta, m and v: arrays of all parameters.
ADAMS_ARRAYS = 7


def products_alone(
    batch: int, seed: int, theirs: bool = False, threads: int = 0, moved: bool = False
) -> Prepared:
    """Nothing of a step but its matrix products, by NumPy's BLAS or by PyTorch's.

    The arrays are drawn once and stay: a floor below which a step cannot come that multiplies so.
    `moved`: also a copy that reads and writes as many bytes as both Adams do, and computes nothing.
    """
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)

    if theirs:
        import torch

        torch.set_num_threads(threads)
        multiply: Any = torch.matmul
        about = {"versions": {"torch": torch.__version__}, "blas": ["MKL"]}
        array: Any = torch.from_numpy
    else:
        multiply, array, about = np.matmul, np.asarray, {"versions": {"numpy": np.__version__}}
    after_imports = rss()
    calls = []
    for counts, n_in, n_out in products():
        x, W, y = (array(drawn(*shape)) for shape in ((batch, n_in), (n_in, n_out), (batch, n_out)))
        dx, dW, dy = (array(drawn(*shape)) for shape in (x.shape, W.shape, y.shape))
        kinds = ((x, W, y), (x.T, dy, dW), (dy, W.T, dx))
        calls += [call for call, count in zip(kinds, counts, strict=True) for _ in range(count)]
    weights = sum(n_in * n_out for _, n_in, n_out in products()) if moved else 0
    bytes_read = np.ones(weights * ADAMS_ARRAYS // 2, np.float32)
    bytes_written = np.ones_like(bytes_read)

    def step() -> None:
        for a, b, out in calls:
            multiply(a, b, out=out)
        np.copyto(bytes_written, bytes_read)

    return Prepared(step, {"blas": blas(), **about}, after_imports)


# ---- PyTorch -------------------------------------------------------------------------------------


class Theirs:
    """The same networks, losses and updates with torch.nn, autograd and torch.optim.Adam."""

    def __init__(
        self,
        batch: int,
        seed: int,
        adam: dict[str, bool],
        compiled: bool,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        import torch
        from torch import nn

        torch.manual_seed(seed)
        self.torch, self.batch, self.device = torch, batch, device
        self.dtype = getattr(torch, dtype)
        layers: list[Any] = []
        for n_in, n_out in [(100, 256), (256, 512), (512, 1024)]:
            # PyTorch's momentum is 1 minus Keras's
            norm = nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.2)
            layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(0.2), norm]
        self.G = nn.Sequential(*layers, nn.Linear(1024, 784), nn.Tanh()).to(device, self.dtype)
        self.D = nn.Sequential(
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        ).to(device, self.dtype)
        self.G_optimiser, self.D_optimiser = (
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), **adam)
            for net in (self.G, self.D)
        )
        # The compiled modules share their parameters with the plain ones.
        self.run_G = torch.compile(self.G) if compiled else self.G
        self.run_D = torch.compile(self.D) if compiled else self.D
        self.bce = nn.functional.binary_cross_entropy_with_logits
        self.one = torch.ones(batch, 1, dtype=self.dtype, device=device)
        self.zero = torch.zeros(batch, 1, dtype=self.dtype, device=device)
        self.images = torch.from_numpy(images(seed).reshape(IMAGES, 784)).to(device)

    def draw_noise(self) -> Any:
        return self.torch.randn(self.batch, 100, dtype=self.dtype, device=self.device)

    def sample(self) -> Any:
        index = self.torch.randint(IMAGES, (self.batch,), device=self.device)
        return self.images[index].to(self.dtype).mul_(2.0 / 255.0).sub_(1.0)

    def step(self) -> None:
        self.discriminator_gradient()
        self.ascend_D()
        self.generator_gradient()
        self.descend_G()

    def ascend_D(self) -> None:
        self.D_optimiser.step()

    def descend_G(self) -> None:
        self.G_optimiser.step()

    def discriminator_loss(self) -> Any:
        z = self.draw_noise()
        x = self.sample()
        with self.torch.no_grad():
            fakes = self.run_G(z)
        real_loss = self.bce(self.run_D(x), self.one)
        return 0.5 * (real_loss + self.bce(self.run_D(fakes), self.zero))

    def discriminator_gradient(self) -> None:
        d_loss = self.discriminator_loss()
        self.D_optimiser.zero_grad(set_to_none=True)
        d_loss.backward()
        self.d_loss = d_loss.detach()

    def generator_loss(self) -> Any:
        return self.bce(self.run_D(self.run_G(self.draw_noise())), self.one)

    def generator_gradient(self) -> None:
        self.D.requires_grad_(False)  # autograd then skips D's weight gradients
        g_loss = self.generator_loss()
        self.G_optimiser.zero_grad(set_to_none=True)
        g_loss.backward()
        self.g_loss = g_loss.detach()
        self.D.requires_grad_(True)

    # ---- for the check: our arrays in its layout -------------------------------------------------

    def its_noise(self, z: np.ndarray) -> Any:
        return self.torch.from_numpy(z)

    def its_images(self, x: np.ndarray) -> Any:
        return self.torch.from_numpy(x.reshape(len(x), 784))

    def its_layout(self, layer: Any, name: str, array: np.ndarray) -> np.ndarray:
        """torch keeps a dense layer's W as (out, in)."""
        return array.T if name == "W" else array

    def tensors(self, player: str) -> list[np.ndarray]:
        """The parameters of "D" or "G": live views."""
        return [p.detach().numpy() for p in getattr(self, player).parameters()]

    def gradients(self, player: str) -> list[np.ndarray]:
        return [p.grad.numpy().copy() for p in getattr(self, player).parameters()]


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
    """Run both from the same weights on the same draws; relative differences by name."""
    return differences(Ours(batch, seed, dtype), Theirs(batch, seed, {}, False, dtype), steps)


def differences(a: Ours, b: Any, steps: int) -> dict[str, float]:
    """The losses, gradients and, after `steps` steps, parameters of `b` against ours.

    max |a - b| / max |b| per tensor, the worst tensor's figure. `b` starts from our weights and
    sees our noise and our images; it says itself how its layouts follow from ours.
    """
    zs, xs = _recorded(a)
    b.draw_noise = lambda: b.its_noise(zs.pop(0))
    b.sample = lambda: b.its_images(xs.pop(0))
    nets = {"D": a.game.D, "G": a.game.G}
    for who, net in nets.items():
        for tensor, array in zip(b.tensors(who), _arrays(net, b), strict=True):
            tensor[...] = array
    worst: dict[str, float] = {}

    def note(what: str, ours: Any, theirs: Any) -> None:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        scale = float(np.abs(theirs).max())
        worst[what] = max(worst.get(what, 0.0), float(np.abs(ours - theirs).max()) / scale)

    ours: dict[str, list[np.ndarray]] = {}
    theirs: dict[str, list[np.ndarray]] = {}

    def first(keep: Callable[[], None], update: Callable[[], None]) -> Callable[[], None]:
        def kept_then_updated() -> None:
            keep()
            update()

        return kept_then_updated

    a.ascend_D = first(lambda: ours.update(D=_arrays(nets["D"], b, "d")), a.ascend_D)  # type: ignore[method-assign]
    a.descend_G = first(lambda: ours.update(G=_arrays(nets["G"], b, "d")), a.descend_G)  # type: ignore[method-assign]
    b.ascend_D = first(lambda: theirs.update(D=b.gradients("D")), b.ascend_D)
    b.descend_G = first(lambda: theirs.update(G=b.gradients("G")), b.descend_G)
    for _ in range(steps):
        a.step()
        b.step()
        note("D's loss", a.game.d_loss, b.d_loss)
        note("G's loss", a.game.g_loss, b.g_loss)
        for who in nets:
            # one scale for a player: a bias before BatchNorm may have a gradient of nearly 0
            flat = [np.concatenate([g.ravel() for g in gs]) for gs in (ours[who], theirs[who])]
            note(f"{who}'s gradient", *flat)
    for who, net in nets.items():
        for pair in zip(_arrays(net, b), b.tensors(who), strict=True):
            note(f"{who}'s parameters", *pair)
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


def _arrays(net: Any, b: Any, prefix: str = "") -> list[np.ndarray]:
    """Copies of our parameters (prefix "d": gradients) in the layout of `b`."""
    return [
        b.its_layout(layer, name, layer.views[prefix + name]).copy()
        for _, layer in net.layers()
        for name in layer.parameters
    ]
