"""An argparse whose every error is one line, and the values it accepts."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from tinygan.errors import OptionError, TinyganError

MOST = 10**9  # of anything one can count here


class OneLineParser(argparse.ArgumentParser):
    """Raises OptionError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message} (see --help)")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command line: what a user can cause is `error: ...` on stderr, exit status 2.

    That is every TinyganError, whatever the system refuses (a file, memory, a letter that its
    terminal does not have), and Ctrl-C (130).
    """
    try:
        yield
        if sys.stdout is not None:  # None where the caller closed it
            sys.stdout.flush()
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (TinyganError, OSError, MemoryError, UnicodeError) as problem:
        print(f"error: {str(problem) or 'not enough memory'}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # before the first step or after the last
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """An integer from `least` to `most`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            too_high = value is not None and value > most
            bounds = f"from {least} to {most}" if too_high or most != MOST else f"at least {least}"
            raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, given {text!r}")
        return value

    return convert


def positive(text: str) -> float:
    """A finite float above 0."""
    return _number(text, lambda value: value > 0, "a number above 0")


def not_negative(text: str) -> float:
    """A finite float, 0 or above."""
    return _number(text, lambda value: value >= 0, "a number that is not negative")


def label(text: str) -> float:
    """A float in (0, 1]."""
    return _number(text, lambda value: 0 < value <= 1, "a number above 0, at most 1")


def _number(text: str, ok: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and ok(value)):
        raise argparse.ArgumentTypeError(f"expected {expected}, given {text!r}")
    return value


def one_of(names: Iterable[str], what: str) -> Callable[[str], str]:
    """One of `names`; a mistyped one is answered with the nearest."""
    known = list(names)

    def convert(text: str) -> str:
        if text in known:
            return text
        raise argparse.ArgumentTypeError(unknown(text, known, what))

    return convert


def unknown(given: str, known: Iterable[str], what: str) -> str:
    """The words for a name that is not known."""
    names = list(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {given!r}; {hint}known: {', '.join(names)}"
