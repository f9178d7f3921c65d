"""How weights and starting states begin.

An initializer is a function ``(shape, rng) -> array`` of a shape ``(rows, columns)`` and a
`numpy.random.Generator`; an array of that shape serves as well. The generator depends on the net's
seed and on the full name of what is drawn, and on nothing else: adding a layer changes no other
layer's weights.

    bptt.layers.lstm(bp, x, width=5, initializer=bptt.initializers.random_normal(0.0, 0.5))
    bptt.layers.dense(bp, h, 1, initializer=bptt.initializers.zeros)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt.arrays import finite, numbers, real
from bptt.errors import ShapeError, UsageError
from bptt.numerics import Array

Initializer: TypeAlias = Callable[[tuple[int, int], np.random.Generator], npt.ArrayLike]


def random_normal(mean: float = 0.0, stddev: float = 1.0) -> Initializer:
    """Independent normal numbers of this mean and standard deviation.

    Raises:
        UsageError: a number that is not finite, or a negative deviation.
    """
    normal(mean, stddev)
    return lambda shape, rng: rng.normal(mean, stddev, shape)


def random_uniform(low: float = -0.05, high: float = 0.05) -> Initializer:
    """Independent numbers, uniform between `low` and `high`.

    Raises:
        UsageError: a number that is not finite, or `low` above `high`.
    """
    uniform(low, high)
    return lambda shape, rng: rng.uniform(low, high, shape)


def constant(value: float) -> Initializer:
    """The same number everywhere.

    Raises:
        UsageError: it is not finite.
    """
    real(value, "a constant initializer's value")
    return lambda shape, rng: np.full(shape, value)


def zeros(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Zeros."""
    return np.zeros(shape)


def ones(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Ones."""
    return np.ones(shape)


def glorot_uniform(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Uniform in ``[-a, a]``, ``a = sqrt(6 / (rows + columns))``.

    Glorot & Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
    2010, equation 16: the variance of values going forward and of gradients going back is kept
    about equal from layer to layer.
    """
    limit = np.sqrt(6.0 / sum(shape))
    return rng.uniform(-limit, limit, shape)


def glorot_normal(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Normal with variance ``2 / (rows + columns)``; Glorot & Bengio 2010, as `glorot_uniform`."""
    return rng.normal(0.0, np.sqrt(2.0 / sum(shape)), shape)


def orthogonal(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """A random matrix with orthonormal rows or columns, whichever are fewer.

    Saxe, McClelland & Ganguli, *Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks*, 2014. The Q of a normal matrix's QR decomposition is uniform over
    such matrices once the diagonal of R is made positive (Mezzadri 2007).
    """
    rows, columns = shape
    q, r = np.linalg.qr(rng.normal(size=(max(shape), min(shape))))
    q = q * np.copysign(1.0, np.diag(r))
    return q if rows >= columns else q.T


def normal(mean: float, stddev: float) -> dict[str, float]:
    """The parameters of a normal distribution, by name.

    Raises:
        UsageError: one is not finite, or the deviation negative.
    """
    parameters = {"mean": real(mean, "a mean"), "stddev": real(stddev, "a standard deviation")}
    if parameters["stddev"] < 0:
        raise UsageError(f"a standard deviation is not negative, got {stddev}")
    return parameters


def uniform(low: float, high: float) -> dict[str, float]:
    """The parameters of a uniform distribution, by name.

    Raises:
        UsageError: one is not finite, or they are in the wrong order.
    """
    parameters = {"low": real(low, "low"), "high": real(high, "high")}
    if parameters["low"] > parameters["high"]:
        raise UsageError(f"uniform numbers lie between low and high, got {low} and {high}")
    return parameters


def draw(
    initializer: Initializer | npt.ArrayLike,
    shape: tuple[int, int],
    seed: int,
    name: str,
    dtype: np.dtype[Any],
) -> Array:
    """What `initializer` gives for `name`, checked.

    Raises:
        ShapeError: an array of another shape.
        NonFiniteError: NaN or infinity.
        UsageError: no numbers.
    """
    what = f"the initializer of {name!r}"
    if callable(initializer):
        key = np.random.SeedSequence(seed, spawn_key=tuple(name.encode()))
        values = numbers(initializer(shape, np.random.default_rng(key)), dtype, what)
    else:
        values = numbers(initializer, dtype, what)
    if values.shape != shape:
        raise ShapeError(f"{what} gives shape {values.shape}; expected {shape}")
    return finite(values, what)
