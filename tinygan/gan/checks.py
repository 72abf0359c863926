"""What can be said against two players before their first move."""

from __future__ import annotations

import math
import warnings

from tinygan.errors import DoubleSigmoidWarning, ShapeError
from tinygan.nn.network import Network


def check_players(G: Network, D: Network) -> None:
    """Raise ShapeError unless D takes what G makes and answers with one logit.

    Warns (DoubleSigmoidWarning) of a D whose last layer bounds what should be a logit.
    """
    if G.output_shape != D.input_shape:
        raise ShapeError(
            f"{G.name} makes {_batch(G.output_shape)} but {D.name} takes {_batch(D.input_shape)}. "
            f"{_story(G)}"
        )
    if D.output_shape != (1,):
        raise ShapeError(
            f"{D.name} ends in {_batch(D.output_shape)}, not in one logit (N, 1). {_story(D)}"
        )
    if (reach := D.body.reach) is not None:
        low, high = (1.0 / (1.0 + math.exp(-end)) for end in reach)
        warnings.warn(
            f"{D.name} ends in layer {_bounding(D)}, but losses here take a score without bounds, "
            "and cross-entropy applies the sigmoid itself: with a second one D(x) stays between "
            f"{low:.2f} and {high:.2f}. Leave that layer out",
            DoubleSigmoidWarning,
            stacklevel=3,
        )


def _bounding(net: Network) -> str:
    """Place and name of the last layer that bounds what it makes; behind it others may reshape."""
    path, layer = [place for place in net.layers() if place[1].reach is not None][-1]
    return f"{path.rstrip('.')} {layer}".lstrip()


def _story(net: Network) -> str:
    """Which layer made which shape, those left out that change none."""
    words, shape = [], net.input_shape
    for layer, made in net.body.shapes(net.input_shape):
        if made != shape:
            words.append(f"{layer} {_batch(made)}")
        shape = made
    return f"{net.name}'s layers make: {'; '.join(words)}"


def _batch(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['N', *map(str, shape)])})"
