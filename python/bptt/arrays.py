"""What users bring, as arrays of the net's dtype and of the shape that is asked for.

The rule of missing axes: only axes of length 1 may be left out, so that a sequence ``(time,)``
serves a ``(1, 1)`` placeholder and ``(time, features)`` one of batch 1, while nothing is ever
broadcast or transposed in silence.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bptt.errors import NonFiniteError, ShapeError, UsageError
from bptt.numerics import Array


def numbers(value: npt.ArrayLike, dtype: np.dtype[Any], what: str) -> Array:
    """`value` as an array of `dtype`; no copy where it is one already.

    Floats of any precision, integers and booleans are converted.

    Raises:
        UsageError: numbers of another kind (complex, text, objects).
        ShapeError: rows of different lengths.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{what} is no array: its rows have different lengths") from None
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{what} holds {array.dtype}; expected real numbers")
    return array.astype(dtype)


def conform(value: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Array:
    """`value` as an array of this shape; axes of length 1 may be missing.

    Raises:
        ShapeError: another shape; names both, and the transposition that would fit.
        UsageError: see `numbers`.
    """
    array = numbers(value, dtype, what)
    if array.shape == shape:
        return array
    if _fits(array.shape, shape):
        return array.reshape(shape)
    raise ShapeError(_mismatch(what, array.shape, shape, shape))


def window(
    value: npt.ArrayLike,
    frames: int,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    what: str,
) -> Array:
    """`value` as one whole window ``(frames, features, batch)``.

    Raises:
        ShapeError: too few or too many frames, or another shape.
        UsageError: see `numbers`.
    """
    try:
        return conform(value, (frames, *shape), dtype, what)
    except ShapeError:
        got = np.shape(value)
        if got and _fits(got, (got[0], *shape)):
            raise ShapeError(f"{what} has {got[0]} frames; one window has {frames}") from None
        raise


def sequence(
    value: npt.ArrayLike, shape: tuple[int, int], dtype: np.dtype[Any], what: str
) -> Array:
    """`value` as ``(time, features, batch)``; its first axis is time, of any length above 0.

    Raises:
        ShapeError: no frames, or another shape.
        UsageError: see `numbers`.
    """
    array = numbers(value, dtype, what)
    if not array.ndim or not _fits(array.shape[1:], shape):
        raise ShapeError(_mismatch(what, array.shape, ("time", *shape), shape))
    if not len(array):
        raise ShapeError(f"{what} has no frames: shape {array.shape}")
    return array.reshape(len(array), *shape)


def matrix(value: npt.ArrayLike, dtype: np.dtype[Any], what: str) -> Array:
    """`value` as a matrix; a number becomes ``(1, 1)``.

    Raises:
        ShapeError: another rank. A vector is refused: whether it is a column is not guessed.
        UsageError: see `numbers`.
    """
    array = numbers(value, dtype, what)
    if array.ndim == 2:
        return array
    if array.ndim == 0:
        return array.reshape(1, 1)
    advice = f"; a column is .reshape({array.size}, 1)" if array.ndim == 1 else ""
    raise ShapeError(f"{what} has shape {array.shape}; expected (features, batch){advice}")


def lanes(value: npt.ArrayLike, shape: tuple[int, int], dtype: np.dtype[Any], what: str) -> Array:
    """`value` as a matrix; one column ``(features, 1)`` serves every lane of `shape`.

    Raises:
        ShapeError: another shape.
        UsageError: see `numbers`.
    """
    array = matrix(value, dtype, what)
    if array.shape == shape:
        return array
    if array.shape == (shape[0], 1):
        return np.broadcast_to(array, shape)
    raise ShapeError(_mismatch(what, array.shape, shape, shape))


def finite(array: Array, what: str) -> Array:
    """`array` itself, when all its entries are finite.

    Raises:
        NonFiniteError: some are not.
    """
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{what} holds numbers that are not finite")
    return array


def shape_of(shape: Sequence[int], what: str) -> tuple[int, int]:
    """A shape ``(features, batch)`` of two positive integers.

    Raises:
        ShapeError: anything else.
    """
    try:
        features, batch = (operator.index(axis) for axis in shape)
    except (TypeError, ValueError):
        features = batch = 0
    if min(features, batch) < 1:
        raise ShapeError(f"{what} has shape {shape}; expected (features, batch), both at least 1")
    return features, batch


def _fits(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether `shape` is `full` with some axes of length 1 left out."""
    left = list(shape)
    for length in full:
        if left and left[0] == length:
            left.pop(0)
        elif length != 1:
            return False
    return not left


def _mismatch(
    what: str, got: tuple[int, ...], expected: tuple[int | str, ...], shape: tuple[int, ...]
) -> str:
    advice = ""
    if len(got) == len(expected) and got[-2:] == shape[:-3:-1]:
        advice = "; .swapaxes(1, 2) would fit" if len(got) == 3 else "; .T would fit"
    wanted = ", ".join(map(str, expected))
    return f"{what} has shape {got}; expected ({wanted}){advice}"
