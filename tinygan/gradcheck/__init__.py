"""Is a gradient right? Central differences, and the battery that every layer here goes through.

    from tinygan.gradcheck import check_layer
    check_layer(MyLayer(3, 4), input_shape=(3,))

returns nothing if all is well, else raises a GradientError that names the layer, the pass, the
tensor, the error and the entry. Derivation: docs/gradient-checking.md.
"""

from tinygan.gradcheck.battery import PASSES, check_layer
from tinygan.gradcheck.differences import (
    GradientError,
    check_gradient,
    check_gradients,
    check_parameters,
    relative_error,
)

__all__ = [
    "PASSES",
    "GradientError",
    "check_gradient",
    "check_gradients",
    "check_layer",
    "check_parameters",
    "relative_error",
]
