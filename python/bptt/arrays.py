"""What users bring, as arrays of the net's dtype and of the shape that is asked for.

The rule of missing axes: only axes of length 1 may be left out, so that a sequence ``(time,)``
serves a ``(1, 1)`` placeholder and ``(time, features)`` one of batch 1, while nothing is ever
broadcast or transposed in silence. The rule of dtypes: see `numbers`. Single numbers are checked
here too, each kind in one place.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import reprlib
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bptt.errors import NonFiniteError, ShapeError, UsageError
from bptt.numerics import Array

Item = TypeVar("Item")


def numbers(value: npt.ArrayLike, dtype: np.dtype[Any], what: str) -> Array:
    """`value` as an array of `dtype`; no copy where it is one already.

    The rule, everywhere: booleans, integers and floats of any precision and byte order are taken,
    and rounded to the nearest number of the net's dtype, so that float64 data may be fed to a
    float32 net, and so may large integers, to 24 bits. What is too large for the dtype becomes
    infinite, which `finite` refuses. Complex numbers, text, dates, objects and None are never
    converted; nor are masked arrays, since a mask would be lost in silence. How an array lies in
    memory (order of axes, strides, alignment, read-only) makes no difference.

    Raises:
        UsageError: numbers of another kind.
        ShapeError: rows of different lengths.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{what} is no array: its rows have different lengths") from None
    if array is not value and isinstance(value, np.ma.MaskedArray):
        raise UsageError(f"{what} is a masked array; fill or drop what is masked first")
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{what} holds {array.dtype}; expected real numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def conform(value: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Array:
    """`value` as an array of this shape; axes of length 1 may be missing.

    Raises:
        ShapeError: another shape; names both, and the transposition that would fit.
        UsageError: see `numbers`.
    """
    return _shaped(numbers(value, dtype, what), shape, what)


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
    array = numbers(value, dtype, what)
    try:
        return _shaped(array, (frames, *shape), what)
    except ShapeError:
        got = array.shape
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
        NonFiniteError: NaN or infinity.
    """
    array = numbers(value, dtype, what)
    if not array.ndim or not _fits(array.shape[1:], shape):
        raise ShapeError(_mismatch(what, array.shape, ("time", *shape), shape))
    if not len(array):
        raise ShapeError(f"{what} has no frames: shape {array.shape}")
    return finite(array, what).reshape(len(array), *shape)


def flags(value: npt.ArrayLike, shape: tuple[int, ...], what: str) -> npt.NDArray[np.bool_]:
    """`value` as booleans of this shape, ``(frames, lanes)`` say; 0 and 1 are taken as well.

    Raises:
        ShapeError: another shape.
        UsageError: numbers other than 0 and 1, or none.
    """
    array = _shaped(numbers(value, np.dtype(np.float64), what), shape, what)
    truth = array != 0
    if not (array == truth).all():
        raise UsageError(f"{what} holds {array[array != truth][0]}; expected True and False")
    return np.ascontiguousarray(truth)


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
    """`array` itself, when all its entries are finite. One pass, without a second array.

    Raises:
        NonFiniteError: some are not; names the first of them and where it is.
    """
    # NaN and infinity stay in a sum. Large numbers may overflow in it, too: then look again.
    total = 0.0
    if array.size <= 64:  # numpy's own sum takes longer to call
        total = sum(array.ravel().tolist())
    else:
        rows = max(1, 2**22 * len(array) // array.size)  # Ctrl-C is seen from piece to piece
        with np.errstate(over="ignore", invalid="ignore"):
            for row in range(0, len(array), rows):
                total += float(array[row : row + rows].sum())
    if not math.isfinite(total) and not (mask := np.isfinite(array)).all():
        at = tuple(int(index[0]) for index in np.nonzero(~mask))
        place = f" at {at if len(at) > 1 else at[0]}" if at else ""
        raise NonFiniteError(f"{what} holds {array[at]}{place}; expected finite numbers")
    return array


def shape_of(shape: Sequence[int], what: str) -> tuple[int, int]:
    """A shape ``(features, batch)`` of two positive integers.

    Raises:
        ShapeError: anything else.
        MemoryError: see `room`.
    """
    try:
        features, batch = (operator.index(axis) for axis in shape)
    except (TypeError, ValueError):
        features = batch = 0
    if min(features, batch) < 1:
        raise ShapeError(
            f"{what} has shape {shown(shape)}; expected (features, batch), both at least 1"
        )
    room(features * batch, f"{what} of shape {(features, batch)}")
    return features, batch


def room(count: int, what: str) -> None:
    """Refuses more numbers than the machine has memory for, before any are asked of the system.

    Counted in float32, and in Python's integers, which do not overflow: what passes here, the core
    can count in 64 bits.

    Raises:
        MemoryError: there are too many.
    """
    if 4 * count > _MEMORY:
        raise MemoryError(
            f"{what} takes {4 * count / 2**30:.3g} GiB at least; there are {_MEMORY / 2**30:.3g}"
        )


def listed(values: Sequence[Item], what: str) -> Sequence[Item]:
    """`values` itself, when it is a list, a tuple or an array of them.

    Raises:
        UsageError: it is not.
    """
    if isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim):
        return values
    raise UsageError(f"{what} is a list, one entry each; got {shown(values)}")


@contextlib.contextmanager
def advising(data: object) -> Iterator[None]:
    """Errors in here about arrays say how `data` become a dataset, where they look like it.

    Raises:
        UsageError, ShapeError: the same, with this advice.
    """
    try:
        yield
    except (UsageError, ShapeError) as error:
        if isinstance(data, type):
            advice = f"{data.__name__} is a class: give what it makes of the data"
        elif _sequences(data):
            advice = "sequences, each with arrays of its own, are a bptt.data.Sequences"
        else:
            raise
        raise type(error)(f"{error}; {advice}") from None


def integer(value: int, what: str, low: int | None = None, high: int | None = None) -> int:
    """`value` as a Python integer between `low` and `high`, both allowed.

    Raises:
        UsageError: no integer, or outside.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{what} is an integer, got {shown(value)}") from None
    if low is not None and number < low:
        raise UsageError(f"{what} is at least {low}, got {number}")
    if high is not None and number > high:
        raise UsageError(f"{what} is at most {high}, got {number}")
    return number


def real(value: float, what: str) -> float:
    """`value` as a finite Python float.

    Raises:
        UsageError: no real number, or none that is finite.
    """
    if not isinstance(value, Real) or not math.isfinite(number := _float(value)):
        raise UsageError(f"{what} is a finite number, got {shown(value)}")
    return number


def shown(value: object) -> str:
    """`value` for a message: of a long one only the beginning."""
    return reprlib.repr(value)


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the floats
        return math.inf


def _sequences(data: object) -> bool:
    """Whether it is a list of lists of arrays."""
    if not isinstance(data, list | tuple) or not all(isinstance(e, list | tuple) for e in data):
        return False
    parts = [part for each in data for part in each]
    return bool(parts) and all(isinstance(part, np.ndarray) for part in parts)


def _memory() -> int:
    """Bytes the machine has; where the system does not tell, as many as can be addressed."""
    try:
        told = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        told = 0
    return told if told > 0 else 2**48


def _shaped(array: Array, shape: tuple[int, ...], what: str) -> Array:
    if array.shape == shape:
        return array
    if _fits(array.shape, shape):
        return array.reshape(shape)
    raise ShapeError(_mismatch(what, array.shape, shape, shape))


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
    wanted = ", ".join(map(str, expected)) + "," * (len(expected) == 1)
    return f"{what} has shape {got}; expected ({wanted}){advice}"


_MEMORY = _memory()
