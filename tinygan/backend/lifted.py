"""Weights that stand lifted: one transform serves every use of the same numbers.

D is called several times between two of its updates, and backward follows forward.
Why, and how much memory: docs/spectral-convolution.md, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinygan.backend.interface import Array

if TYPE_CHECKING:
    from tinygan.backend.numpy_backend import NumpyBackend

MOST = 3  # layers

Place = tuple[object, int]  # a layer: its plan, and the address of its weights


class Slot:
    """Memory for the lifted weights of one layer at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.place: Place | None = None
        self._memory: Array | None = None
        self._w: Array = None  # a copy

    def holds(self, w: Array, W: Array) -> bool:
        """Whether W was made of numbers that all equal w's."""
        if W.base is None or W.base is not self._memory:
            return False
        return all(np.array_equal(*rows) for rows in zip(self._w, w, strict=True))

    def clear(self, place: Place | None) -> None:
        """Nothing is lifted now; what will be belongs to this place."""
        self.place, self._memory = place, None

    def copy_of(self, w: Array, backend: NumpyBackend) -> Array:
        """Where to put a copy of w."""
        self._w = backend.workspace(f"weights that are lifted {self.number}", w.shape)
        return self._w

    def remember(self, W: Array) -> None:
        """W has been made of the numbers that were put into the copy."""
        self._memory = W.base


class Lifted:
    """The slots of the layers that were used last."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []  # the one that was used last stands last

    def slot(self, plan: object, w: Array) -> Slot:
        """The slot of these weights; it may hold earlier numbers of theirs."""
        place = plan, w.ctypes.data
        known = [slot for slot in self._slots if slot.place == place]
        if not known and len(self._slots) < MOST:
            slot = Slot(len(self._slots))
        else:
            slot = known[0] if known else self._slots[0]
            self._slots.remove(slot)
        self._slots.append(slot)
        if slot.place != place:
            slot.clear(place)
        return slot
