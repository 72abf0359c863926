"""Errors that a user can cause: each is one clear line, printed as such by every command line."""

from __future__ import annotations


class TinyganError(Exception):
    """Base of all of them; command lines print ``error: ...`` and exit with status 2."""


class BackendError(TinyganError):
    """The asked backend cannot run here (package or device missing)."""


class ShapeError(TinyganError, ValueError):
    """Shapes do not fit; the message names the layer, the expected and the given shape."""


class DataError(TinyganError, ValueError):
    """A data set is missing, damaged or outside the range that G can reach."""


class DownloadError(DataError):
    """A data set is not here and no mirror could give it."""


class CheckpointError(TinyganError):
    """A checkpoint is damaged or belongs to another architecture; nothing was loaded."""


class OptionError(TinyganError, ValueError):
    """An option has a value that makes no sense."""


class NonFiniteError(TinyganError, ArithmeticError):
    """A loss or parameter became NaN or infinite; the message names where."""


class DoubleSigmoidWarning(UserWarning):
    """D ends in a sigmoid, and the loss applies another one."""


class RangeWarning(UserWarning):
    """The data fill only a part of the range that G can reach."""


class CaptureWarning(UserWarning):
    """CUDA cannot record the training step as a graph; it runs launch by launch."""


def first_line(problem: Exception) -> str:
    """What another library's error says, in one line."""
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__)
