"""The step of dcgan-tf in NumPy as from-scratch tutorials write it: correct, and not made fast.

Images are (N, C, H, W). A convolution is im2col by index arrays and one product; its way back is
`np.add.at`. Every pass makes its arrays anew. The transposed convolution swaps the two.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from dcgan_contenders import EPS, KEEP, LR, SLOPE, Mirrored
from mlp_contenders import IMAGES, images

Array = np.ndarray


# ---- im2col by index arrays ----------------------------------------------------------------------


def indices(channels: int, size: int, kernel: int, stride: int) -> tuple[Array, Array, Array]:
    """Index arrays (channels·kernel², size²): which channel, row and column a patch takes."""
    i0 = np.tile(np.repeat(np.arange(kernel), kernel), channels)
    j0 = np.tile(np.arange(kernel), kernel * channels)
    i1 = stride * np.repeat(np.arange(size), size)
    j1 = stride * np.tile(np.arange(size), size)
    c = np.repeat(np.arange(channels), kernel * kernel).reshape(-1, 1)
    return c, i0.reshape(-1, 1) + i1, j0.reshape(-1, 1) + j1


def im2col(x: Array, size: int, kernel: int, stride: int, pad: int) -> Array:
    """Patches (channels·kernel², size²·N) of x (N, C, H, W)."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    c, i, j = indices(x.shape[1], size, kernel, stride)
    patches = padded[:, c, i, j]
    return patches.transpose(1, 2, 0).reshape(len(c), -1)


def col2im(
    patches: Array, shape: tuple[int, ...], size: int, kernel: int, stride: int, pad: int
) -> Array:
    """The adjoint of im2col: patches added up where they came from, (N, C, H, W)."""
    n, channels, height, width = shape
    padded = np.zeros((n, channels, height + 2 * pad, width + 2 * pad), patches.dtype)
    c, i, j = indices(channels, size, kernel, stride)
    apart = patches.reshape(len(c), -1, n).transpose(2, 0, 1)
    np.add.at(padded, (slice(None), c, i, j), apart)
    return padded[:, :, pad:-pad, pad:-pad]


# ---- layers: forward keeps, backward uses --------------------------------------------------------


class Layer:
    """No parameters, unless a layer says so."""

    parameters: ClassVar[list[Array]] = []
    gradients: ClassVar[list[Array]] = []

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        raise NotImplementedError


class Dense(Layer):
    def __init__(self, rng: Any, n_in: int, n_out: int, bias: bool, dtype: str) -> None:
        self.W = (0.02 * rng.standard_normal((n_in, n_out))).astype(dtype)
        self.parameters = [self.W, np.zeros(n_out, dtype)] if bias else [self.W]

    def forward(self, x: Array) -> Array:
        self.x = x
        y = x @ self.W
        return y + self.parameters[1] if len(self.parameters) > 1 else y

    def backward(self, dy: Array) -> Array:
        self.gradients = [self.x.T @ dy, dy.sum(axis=0)][: len(self.parameters)]
        return dy @ self.W.T


class Conv(Layer):
    """W (c_out, c_in, kernel, kernel)."""

    def __init__(
        self, rng: Any, c_in: int, c_out: int, stride: int, bias: bool, dtype: str
    ) -> None:
        self.stride = stride
        self.W = (0.02 * rng.standard_normal((c_out, c_in, 5, 5))).astype(dtype)
        self.parameters = [self.W, np.zeros(c_out, dtype)] if bias else [self.W]

    def forward(self, x: Array) -> Array:
        self.shape, size = x.shape, x.shape[2] // self.stride
        self.patches = im2col(x, size, 5, self.stride, 2)
        y = self.W.reshape(len(self.W), -1) @ self.patches
        if len(self.parameters) > 1:
            y = y + self.parameters[1][:, None]
        return y.reshape(len(self.W), size, size, len(x)).transpose(3, 0, 1, 2)

    def backward(self, dy: Array) -> Array:
        flat = dy.transpose(1, 2, 3, 0).reshape(len(self.W), -1)
        dW = (flat @ self.patches.T).reshape(self.W.shape)
        self.gradients = [dW, flat.sum(axis=1)][: len(self.parameters)]
        patches = self.W.reshape(len(self.W), -1).T @ flat
        return col2im(patches, self.shape, dy.shape[2], 5, self.stride, 2)


class ConvTransposed(Layer):
    """W (c_in, c_out, kernel, kernel): the convolution above, the other way round."""

    def __init__(self, rng: Any, c_in: int, c_out: int, stride: int, dtype: str) -> None:
        self.stride = stride
        self.W = (0.02 * rng.standard_normal((c_in, c_out, 5, 5))).astype(dtype)
        self.parameters = [self.W]

    def forward(self, x: Array) -> Array:
        self.x = x.transpose(1, 2, 3, 0).reshape(x.shape[1], -1)
        n, _, size, _ = x.shape
        patches = self.W.reshape(len(self.W), -1).T @ self.x
        large = (n, self.W.shape[1], size * self.stride, size * self.stride)
        return col2im(patches, large, size, 5, self.stride, 2)

    def backward(self, dy: Array) -> Array:
        n, size = len(dy), dy.shape[2] // self.stride
        patches = im2col(dy, size, 5, self.stride, 2)
        self.gradients = [(self.x @ patches.T).reshape(self.W.shape)]
        dx = self.W.reshape(len(self.W), -1) @ patches
        return dx.reshape(len(self.W), size, size, n).transpose(3, 0, 1, 2)


class BatchNorm(Layer):
    def __init__(self, n: int, dtype: str) -> None:
        self.parameters = [np.ones(n, dtype), np.zeros(n, dtype)]
        self.mean, self.var = np.zeros(n, dtype), np.ones(n, dtype)

    def forward(self, x: Array) -> Array:
        self.axes = (0,) if x.ndim == 2 else (0, 2, 3)
        self.wide = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
        mean, var = x.mean(axis=self.axes), x.var(axis=self.axes)
        self.mean = 0.99 * self.mean + 0.01 * mean
        self.var = 0.99 * self.var + 0.01 * var
        self.std = np.sqrt(var + x.dtype.type(1e-3)).reshape(self.wide)
        self.x_hat = (x - mean.reshape(self.wide)) / self.std
        gamma, beta = (p.reshape(self.wide) for p in self.parameters)
        return gamma * self.x_hat + beta

    def backward(self, dy: Array) -> Array:
        self.gradients = [(dy * self.x_hat).sum(axis=self.axes), dy.sum(axis=self.axes)]
        dx_hat = dy * self.parameters[0].reshape(self.wide)
        mean = dx_hat.mean(axis=self.axes, keepdims=True)
        along = (dx_hat * self.x_hat).mean(axis=self.axes, keepdims=True)
        return (dx_hat - mean - self.x_hat * along) / self.std


class LeakyReLU(Layer):
    def forward(self, x: Array) -> Array:
        self.x = x
        return np.where(x > 0, x, x.dtype.type(SLOPE) * x)

    def backward(self, dy: Array) -> Array:
        return np.where(self.x > 0, dy, dy.dtype.type(SLOPE) * dy)


class Dropout(Layer):
    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def factor(self, x: Array) -> Array:
        return (self.rng.random(x.shape, x.dtype) < KEEP) / x.dtype.type(KEEP)

    def forward(self, x: Array) -> Array:
        self.mask = self.factor(x)
        return x * self.mask

    def backward(self, dy: Array) -> Array:
        return dy * self.mask


class Tanh(Layer):
    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (1 - self.y**2)


class Reshape(Layer):
    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.before = x.shape
        return x.reshape(-1, *self.shape)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.before)


class Chain(Layer):
    """Layers one after another, and Adam for each of their parameters."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.owners = [layer for layer in layers if layer.parameters]
        self.parameters = [p for layer in self.owners for p in layer.parameters]
        self.m = [np.zeros_like(p) for p in self.parameters]
        self.v = [np.zeros_like(p) for p in self.parameters]
        self.t = 0

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def last_gradients(self) -> list[Array]:
        return [g for layer in self.owners for g in layer.gradients]

    def update(self, gradients: list[Array]) -> None:
        self.t += 1
        for i, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
            m = self.m[i] / (1 - 0.9**self.t)
            v = self.v[i] / (1 - 0.999**self.t)
            p -= LR * m / (np.sqrt(v) + EPS)


# ---- the game ------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Any:
    return (np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))).mean()


class Naive(Mirrored):
    """G, D and the step."""

    def __init__(self, batch: int, seed: int, dropout: bool = True, dtype: str = "float32") -> None:
        self.batch, self.dtype = batch, np.dtype(dtype)
        self.rng = rng = np.random.default_rng(seed)
        self.G = Chain(
            Dense(rng, 100, 7 * 7 * 256, False, dtype),
            BatchNorm(7 * 7 * 256, dtype),
            LeakyReLU(),
            Reshape(256, 7, 7),
            ConvTransposed(rng, 256, 128, 1, dtype),
            BatchNorm(128, dtype),
            LeakyReLU(),
            ConvTransposed(rng, 128, 64, 2, dtype),
            BatchNorm(64, dtype),
            LeakyReLU(),
            ConvTransposed(rng, 64, 1, 2, dtype),
            Tanh(),
        )
        self.dropouts = [Dropout(rng), Dropout(rng)] if dropout else []
        self.D = Chain(
            Conv(rng, 1, 64, 2, True, dtype),
            LeakyReLU(),
            *self.dropouts[:1],
            Conv(rng, 64, 128, 2, True, dtype),
            LeakyReLU(),
            *self.dropouts[1:],
            Reshape(7 * 7 * 128),
            Dense(rng, 7 * 7 * 128, 1, True, dtype),
        )
        self.images = images(seed).reshape(IMAGES, 1, 28, 28)

    def draw_noise(self) -> Array:
        return self.rng.standard_normal((self.batch, 100), self.dtype)

    def sample(self) -> Array:
        index = self.rng.integers(0, IMAGES, self.batch)
        return self.images[index].astype(self.dtype) / 127.5 - 1

    def step(self) -> None:
        x, z = self.sample(), self.draw_noise()
        fakes = self.G.forward(z)
        # A layer keeps one pass only: D goes back from the real images before it sees the fakes.
        real = self.D.forward(x)
        self.D.backward((sigmoid(real) - 1) / self.batch)
        of_real = self.D.last_gradients()
        fake = self.D.forward(fakes)
        self.D.backward(sigmoid(fake) / self.batch)
        of_fakes = self.D.last_gradients()
        self.d_loss, self.g_loss = softplus(-real) + softplus(fake), softplus(-fake)
        self.G.backward(self.D.backward((sigmoid(fake) - 1) / self.batch))
        self.of_D = [a + b for a, b in zip(of_real, of_fakes, strict=True)]
        self.of_G = self.G.last_gradients()
        self.ascend_D()
        self.descend_G()

    def ascend_D(self) -> None:
        self.D.update(self.of_D)

    def descend_G(self) -> None:
        self.G.update(self.of_G)

    # ---- for the check -------------------------------------------------------------------------

    def its_noise(self, z: Array) -> Array:
        return z

    def its_layout(self, layer: Any, name: str, array: Array) -> Array:
        """As PyTorch's, but a dense layer's W is (in, out)."""
        array = super().its_layout(layer, name, array)
        return array.T if array.ndim == 2 else array

    def tensors(self, player: str) -> list[Array]:
        return getattr(self, player).parameters  # type: ignore[no-any-return]

    def gradients(self, player: str) -> list[Array]:
        return [g.copy() for g in (self.of_D if player == "D" else self.of_G)]

    def use_factors(self, factors: list[Array]) -> None:
        """Dropout multiplies by these, one after another."""
        for layer in self.dropouts:
            layer.factor = lambda x: factors.pop(0)  # type: ignore[method-assign]
