"""One training step of the preset dcgan-tf: by tinygan, by PyTorch, and by NumPy as in tutorials.

Both players' gradients at one point, from one pass of D over the fakes, as the preset plays; the
same minibatches and noise as in mlp_contenders.py. PyTorch's `padding=2, output_padding=1` is
TensorFlow's SAME for stride 2 seen in a mirror: with images and kernels mirrored the steps agree
to rounding, and PyTorch needs no padding layer that would cost it time.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from harness import Prepared, blas, rss
from mlp_contenders import IMAGES, Ours, differences, images

PRESET = "dcgan-tf"
LR, EPS = 1e-4, 1e-7  # of Adam
SLOPE, KEEP = 0.3, 0.7


def mirrored(array: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    return np.flip(array, axes)


class Mirrored:
    """What the two others share: their layouts seen from ours."""

    channels_last = False

    def its_images(self, x: np.ndarray) -> Any:
        """(N, C, H, W), mirrored."""
        return np.ascontiguousarray(mirrored(x, (1, 2)).transpose(0, 3, 1, 2))

    def its_layout(self, layer: Any, name: str, array: np.ndarray) -> np.ndarray:
        """Kernels (out, in, kh, kw); dense layers see pixels and channels in its own order."""
        if array.ndim == 4:
            return mirrored(array, (0, 1)).transpose(3, 2, 0, 1)
        if array.ndim == 2:
            return self._its_features(self._its_features(array.T).T).T
        return self._its_features(array)

    def _its_features(self, array: np.ndarray) -> np.ndarray:
        """Along the first axis, for G's 7x7x256 and D's 7x7x128 numbers."""
        if len(array) not in (7 * 7 * 256, 7 * 7 * 128):
            return array
        pixels = mirrored(array.reshape(7, 7, -1, *array.shape[1:]), (0, 1))
        if not self.channels_last:
            pixels = np.moveaxis(pixels, 2, 0)
        return pixels.reshape(array.shape)


# ---- PyTorch -----------------------------------------------------------------------------------


class Theirs(Mirrored):
    """The same networks, losses and updates with torch.nn, autograd and the fused Adam."""

    def __init__(
        self,
        batch: int,
        seed: int,
        channels_last: bool,
        dropout: bool = True,
        dtype: str = "float32",
        device: str = "cpu",
        **adam: bool,
    ) -> None:
        import torch

        torch.manual_seed(seed)
        self.torch, self.batch, self.device = torch, batch, device
        self.dtype = getattr(torch, dtype)
        self.channels_last = channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.G, self.D = (
            net.to(device, self.dtype, memory_format=self.layout)
            for net in (self._generator(), self._discriminator(dropout))
        )
        self.G_optimiser, self.D_optimiser = (
            torch.optim.Adam(net.parameters(), lr=LR, eps=EPS, fused=True, **adam)
            for net in (self.G, self.D)
        )
        self.bce = torch.nn.functional.binary_cross_entropy_with_logits
        self.one = torch.ones(batch, 1, dtype=self.dtype, device=device)
        self.zero = torch.zeros(batch, 1, dtype=self.dtype, device=device)
        self.images = torch.from_numpy(images(seed).reshape(IMAGES, 1, 28, 28)).to(device)

    def _generator(self) -> Any:
        nn, last = self.torch.nn, self.channels_last
        options = {"eps": 1e-3, "momentum": 0.01}  # PyTorch's momentum is 1 minus Keras's

        class ToImages(nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, x: Any) -> Any:
                return x.view(-1, 7, 7, 256).permute(0, 3, 1, 2) if last else x.view(-1, 256, 7, 7)

        return nn.Sequential(
            nn.Linear(100, 7 * 7 * 256, bias=False),
            nn.BatchNorm1d(7 * 7 * 256, **options),
            nn.LeakyReLU(SLOPE),
            ToImages(),
            nn.ConvTranspose2d(256, 128, 5, 1, padding=2, bias=False),
            nn.BatchNorm2d(128, **options),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(128, 64, 5, 2, padding=2, output_padding=1, bias=False),
            nn.BatchNorm2d(64, **options),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(64, 1, 5, 2, padding=2, output_padding=1, bias=False),
            nn.Tanh(),
        )

    def _discriminator(self, dropout: bool) -> Any:
        nn, last = self.torch.nn, self.channels_last
        drop = [nn.Dropout(1.0 - KEEP), nn.Dropout(1.0 - KEEP)] if dropout else []

        class Flatten(nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, x: Any) -> Any:
                return (x.permute(0, 2, 3, 1) if last else x).flatten(1)

        return nn.Sequential(
            nn.Conv2d(1, 64, 5, 2, padding=2),
            nn.LeakyReLU(SLOPE),
            *drop[:1],
            nn.Conv2d(64, 128, 5, 2, padding=2),
            nn.LeakyReLU(SLOPE),
            *drop[1:],
            Flatten(),
            nn.Linear(7 * 7 * 128, 1),
        )

    def draw_noise(self) -> Any:
        return self.torch.randn(self.batch, 100, dtype=self.dtype, device=self.device)

    def sample(self) -> Any:
        index = self.torch.randint(IMAGES, (self.batch,), device=self.device)
        return self.images[index].to(self.dtype).mul_(2.0 / 255.0).sub_(1.0)

    def losses(self) -> tuple[Any, Any]:
        """D's and G's, from one pass of D over the fakes."""
        fakes = self.G(self.draw_noise())
        x = self.sample().contiguous(memory_format=self.layout)
        real_loss = self.bce(self.D(x), self.one)
        fake_logits = self.D(fakes)
        d_loss = real_loss + self.bce(fake_logits, self.zero)
        return d_loss, self.bce(fake_logits, self.one)

    def step(self) -> None:
        d_loss, g_loss = self.losses()
        # Each player's gradient with respect to its own parameters: autograd skips the rest.
        self._gradient(d_loss, self.D, retain_graph=True)
        self._gradient(g_loss, self.G)
        self.d_loss, self.g_loss = d_loss.detach(), g_loss.detach()
        self.ascend_D()
        self.descend_G()

    def _gradient(self, loss: Any, net: Any, *more: Any, **options: Any) -> None:
        # Not autograd.grad: a compiled step's gradients then lie in memory unlike their parameters,
        # and the fused Adam takes one's elements for another's.
        parameters = list(net.parameters())
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=[*parameters, *more], **options)

    def ascend_D(self) -> None:
        self.D_optimiser.step()

    def descend_G(self) -> None:
        self.G_optimiser.step()

    # ---- for the check -------------------------------------------------------------------------

    def its_noise(self, z: np.ndarray) -> Any:
        return self.torch.from_numpy(z)

    def its_images(self, x: np.ndarray) -> Any:
        return self.torch.from_numpy(super().its_images(x))

    def tensors(self, player: str) -> list[np.ndarray]:
        """The parameters of "D" or "G": live views."""
        return [p.detach().numpy() for p in getattr(self, player).parameters()]

    def gradients(self, player: str) -> list[np.ndarray]:
        return [p.grad.numpy().copy() for p in getattr(self, player).parameters()]

    def use_factors(self, factors: list[np.ndarray]) -> None:
        """Dropout multiplies by these, one after another."""
        torch = self.torch

        class Given(torch.nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, x: Any) -> Any:
                return x * torch.from_numpy(factors.pop(0))

        for i, layer in enumerate(self.D):
            if isinstance(layer, torch.nn.Dropout):
                self.D[i] = Given()


class Shortcuts(Theirs):
    """The same with our two shortcuts: one call of D for fakes and images, one way back through it.

    docs/algorithm1.md, alg.6 and alg.8: G's gradient on a fake is D's own times -exp(-logit).
    """

    def step(self) -> None:
        fakes, m = self.G(self.draw_noise()), self.batch
        x = self.sample().contiguous(memory_format=self.layout)
        both = self.torch.cat([fakes.detach(), x]).requires_grad_()
        fake_logits, real_logits = self.D(both).split(m)
        d_loss = self.bce(real_logits, self.one) + self.bce(fake_logits, self.zero)
        self._gradient(d_loss, self.D, both)
        with self.torch.no_grad():
            g_loss = self.bce(fake_logits, self.one)
            d_fakes = both.grad[:m] * -self.torch.exp(-fake_logits)[:, :, None, None]
        self._gradient(fakes, self.G, gradient=d_fakes)
        self.d_loss, self.g_loss = d_loss.detach(), g_loss
        self.ascend_D()
        self.descend_G()


def theirs(
    batch: int,
    seed: int,
    threads: int,
    channels_last: bool,
    dropout: bool = True,
    shortcuts: bool = False,
) -> Prepared:
    """PyTorch on the CPU, eager, float32."""
    import torch

    torch.set_num_threads(threads)
    after_imports = rss()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    about = {
        "versions": versions,
        "blas": ["MKL" if torch.backends.mkl.is_available() else "not MKL"],
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    kind = Shortcuts if shortcuts else Theirs
    return Prepared(kind(batch, seed, channels_last, dropout).step, about, after_imports)


def ours(batch: int, seed: int, dropout: bool = True) -> Prepared:
    """tinygan on NumPy, float32."""
    import mlp_contenders

    return mlp_contenders.ours(batch, seed, preset=PRESET, dropout=dropout)


def naive(batch: int, seed: int, dropout: bool = True) -> Prepared:
    """NumPy as in tutorials, float32."""
    from naive_dcgan import Naive

    after_imports = rss()
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    step = Naive(batch, seed, dropout).step
    return Prepared(step, {"versions": versions, "blas": blas()}, after_imports)


# ---- do all compute the same? --------------------------------------------------------------------


def check(
    rival: str, batch: int, seed: int, dtype: str, steps: int, dropout: bool
) -> dict[str, float]:
    """`rival` (of dcgan_step.RIVALS) against ours; relative differences."""
    from naive_dcgan import Naive

    a = Ours(batch, seed, dtype, PRESET, dropout)
    if rival == "naive":
        b: Any = Naive(batch, seed, dropout, dtype)
    else:
        kind = Shortcuts if rival == "shortcuts" else Theirs
        b = kind(batch, seed, rival != "default", dropout, dtype)
    factors: list[np.ndarray] = []
    backend = a.game.D.backend
    drop = backend.dropout

    def recorded(x: Any, words: Any, q: int, factor: Any, out: Any) -> Any:
        drop(x, words, q, factor, out)
        mirror = np.ascontiguousarray(mirrored(factor, (1, 2)).transpose(0, 3, 1, 2))
        if rival == "shortcuts":
            factors.append(mirror)
            return out
        # Ours asks D once, fakes first; theirs twice: every layer about x, then about the fakes.
        factors.insert(len(factors) // 2, mirror[batch:])
        factors.append(mirror[:batch])
        return out

    backend.dropout = recorded  # type: ignore[method-assign]
    b.use_factors(factors)
    return differences(a, b, steps)
