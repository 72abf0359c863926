"""Call sites: what a forward pass leaves for its backward pass, in memory that is reused.

A layer keeps no activations. Each *call site* (D on real images, D on fakes, ...) has a cache of
its own, so that two passes through the same layer cannot overwrite one another.
"""

from __future__ import annotations

from typing import Any

from tinygan.backend import Array, Backend
from tinygan.backend.interface import memory_order
from tinygan.noise import Noise


class Cache:
    """The memory of one call site: `cache[key]` is the part of the layer at that place.

    Rules that make the reuse safe: an output is a loan until the next call with the same cache;
    no layer writes to an argument; backward may be called repeatedly after one forward.
    With `check=True` (for tests) every `new` gives fresh memory and poisons the loan it ends,
    and `kept` verifies that nobody has changed what was kept.
    """

    def __init__(
        self,
        backend: Backend,
        path: str = "",
        train: bool = True,
        noise: Noise | None = None,
        check: bool = False,
        parent: Cache | None = None,
    ) -> None:
        self.backend, self.path, self.check = backend, path, check
        self._train, self._noise, self._parent = train, noise, parent
        self._condition: Array | None = None
        self._children: dict[int | str, Cache] = {}
        self._buffers: dict[tuple[Any, ...], Array] = {}  # (name, shape, dtype, ...) -> buffer
        self._kept: dict[str, Any] = {}
        self._copies: dict[str, Any] = {}
        # Whether "dx" here goes to the layer before, and "y" to the next one, and to nobody else:
        # they are then lent from two buffers of the backend, for all layers and call sites
        # [vjp.6], [vjp.7].
        self.passes_on = self.lends = False

    @property
    def whole(self) -> bool:
        """Whether this is a call site, and not the part of one that belongs to a layer."""
        return self._parent is None

    @property
    def train(self) -> bool:
        """Training mode (batch statistics, dropout) or evaluation mode."""
        return self._train if self._parent is None else self._parent.train

    @property
    def noise(self) -> Noise:
        """Where a layer such as Dropout finds its draws."""
        noise = self._noise if self._parent is None else self._parent.noise
        if noise is None:
            raise RuntimeError(f"call site {self.path!r} has no noise: pass noise= when making it")
        return noise

    @property
    def condition(self) -> Array:
        """The labels (N,) at this call site, integers, which Condition layers read: [cond.1].

        Whoever calls forward sets it first, on the cache that it passes.
        """
        condition = self._condition if self._parent is None else self._parent.condition
        if condition is None:
            raise RuntimeError(
                f"call site {self.path!r} has no labels: set its condition before forward"
            )
        return condition

    @condition.setter
    def condition(self, labels: Array) -> None:
        if not self.whole:
            raise RuntimeError(f"{self.path!r} is part of a call site: set the whole's condition")
        self._condition = labels

    def __getitem__(self, key: int | str) -> Cache:
        child = self._children.get(key)
        if child is None:
            path = f"{self.path}/{key}"
            child = Cache(self.backend, path, check=self.check, parent=self)
            self._children[key] = child
        return child

    def new(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """A buffer to write into: the same memory for the same (name, shape, dtype)."""
        if dtype is None and self._is_lent(name):
            return self.backend.turns.take(shape, range(len(shape)))
        key = (name, shape, dtype)
        buffer = self._reusable(key)
        if buffer is None:
            buffer = self._buffers[key] = self.backend.empty(shape, dtype)
        return buffer

    def like(self, name: str, x: Array) -> Array:
        """A buffer of x's shape, dtype and memory order, under the same rules."""
        if x.dtype == self.backend.dtype and self._is_lent(name):
            return self.backend.turns.take(x.shape, memory_order(x))
        key = (name, x.shape, x.dtype, x.strides)
        buffer = self._reusable(key)
        if buffer is None:
            buffer = self._buffers[key] = self.backend.empty_like(x)
        return buffer

    def images(self, name: str, shape: tuple[int, ...]) -> Array:
        """A buffer (N, H, W, ...) in the backend's memory order, under the same rules."""
        if self._is_lent(name):
            order = (*self.backend.image_axes, *range(3, len(shape)))
            return self.backend.turns.take(shape, order)
        key = (name, shape, None, "images")
        buffer = self._reusable(key)
        if buffer is None:
            buffer = self._buffers[key] = self.backend.empty_images(shape)
        return buffer

    def _is_lent(self, name: str) -> bool:
        lent = (self.passes_on and name == "dx") or (self.lends and name == "y")
        return lent and not self.check

    def _reusable(self, key: tuple[Any, ...]) -> Array | None:
        """The buffer of this key, or None where a fresh one is due; then an old one is poisoned."""
        old = self._buffers.get(key)
        if old is None or not self.check:
            return old
        if old.dtype.kind == "f":
            old.fill(float("nan"))  # whoever still reads the ended loan will notice
        return None

    def keep(self, name: str, value: Array) -> None:
        """Remember `value` (not a copy) for the backward pass."""
        self._kept[name] = value
        if self.check and value is not None:
            self._copies[name] = value.copy()

    def kept(self, name: str) -> Array:
        """What `keep` remembered; RuntimeError if there was no forward pass."""
        if name not in self._kept:
            raise RuntimeError(f"nothing kept as {name!r} at {self.path!r}: call forward first")
        value = self._kept[name]
        if self.check and value is not None:
            xp = self.backend.xp
            if not bool(xp.array_equal(value, self._copies[name], equal_nan=True)):
                raise RuntimeError(f"{name!r} kept at {self.path!r} was changed by somebody")
        return value

    def first_nonfinite(self) -> str | None:
        """Path and name of the first buffer that holds a NaN or an infinity, or None.

        An output that was lent has gone: then it is the first one made of it.
        """
        for (name, *_), buffer in self._buffers.items():
            if buffer.dtype.kind == "f" and not bool(self.backend.xp.isfinite(buffer).all()):
                return f"{self.path}: {name}"
        return next(filter(None, (c.first_nonfinite() for c in self._children.values())), None)
