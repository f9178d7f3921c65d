"""What can go wrong, and where in the user's code it did.

Every error of the package is a `BpttError` and also a subclass of the nearest builtin, so that
both ``except bptt.ShapeError`` and ``except ValueError`` catch a wrong shape. The C++ core raises
these same classes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from traceback import walk_stack, walk_tb
from types import FrameType

_PACKAGE = str(Path(__file__).parent) + os.sep


class BpttError(Exception):
    """Base of all errors of the package."""


class ShapeError(BpttError, ValueError):
    """Shapes that do not fit; the message names what was expected and what came."""


class UsageError(BpttError, RuntimeError):
    """A call that has no meaning here: a name given twice, a feed left out, a wrong argument."""


class UnknownNameError(UsageError, KeyError):
    """A name that a mapping of weights or of state does not have."""

    __str__ = Exception.__str__  # a KeyError prints its message in quotes


class NonFiniteError(BpttError, ArithmeticError):
    """A loss, a gradient or a given number is not finite."""


class CheckpointError(BpttError, OSError):
    """A checkpoint that cannot be written, or read, or that belongs to another frame."""


class RankError(BpttError, RuntimeError):
    """Another of the processes that train one net failed, or they have not the same net."""


class InterchangeError(BpttError, OSError):
    """A file for or from another framework that cannot be written or read."""


def caller() -> str:
    """``FILE:LINE`` of the innermost call outside this package, or an empty string."""
    return next((_place(*at) for at in walk_stack(sys._getframe(1)) if _outside(at[0])), "")


def locate(error: BpttError) -> None:
    """Add ``(at FILE:LINE)``, the innermost call outside this package, to a caught error's message.

    Only the calls between the handler and the error are searched: an error that no outside code
    took part in stays as it is.
    """
    places = [_place(*at) for at in walk_tb(error.__traceback__) if _outside(at[0])]
    if places:
        error.args = (f"{error} (at {places[-1]})",)


def _outside(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(_PACKAGE)


def _place(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename}:{line}"
