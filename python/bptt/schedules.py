"""Learning rates that change from update to update.

A schedule is a function ``step -> rate`` of the updates made so far (0 before the first one); any
function will do, and these are such functions. Where an optimiser takes a learning rate, it takes a
schedule too::

    bptt.Adam(bptt.schedules.warm_up(bptt.schedules.cosine(0.01, steps=10_000), steps=500))
    bptt.Adam(lambda step: 0.01 / (1 + step / 1000))

`BPTT.fit` asks for the rates of many windows at a time, ahead of them, and runs those without
Python. A rate is finite and not negative. A checkpoint keeps how many updates were made, so that a
schedule goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bptt.arrays import integer, real, shown
from bptt.errors import UsageError

Schedule: TypeAlias = Callable[[int], float]


@dataclass(frozen=True)
class constant:
    """The same rate for ever.

    Raises:
        UsageError: a rate that is negative or not finite.
    """

    rate: float

    def __post_init__(self) -> None:
        _rate(self.rate, "constant's rate")

    def __call__(self, step: int) -> float:
        """The rate of the update that follows `step` updates."""
        return self.rate


@dataclass(frozen=True)
class cosine:
    """Half a wave of the cosine, from `rate` to `final` over `steps` updates; `final` after them.

    ::

        final + (rate - final) (1 + cos(pi step / steps)) / 2

    Loshchilov & Hutter, *SGDR: stochastic gradient descent with warm restarts*, 2017, equation 5,
    without restarts.

    Raises:
        UsageError: a rate that is negative or not finite; fewer than one step.
    """

    rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _rate(self.rate, "cosine's rate")
        _rate(self.final, "cosine's final rate")
        integer(self.steps, "cosine's steps", 1)

    def __call__(self, step: int) -> float:
        """The rate of the update that follows `step` updates."""
        done = min(step / self.steps, 1.0)
        return self.final + (self.rate - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class step:
    """`rate`, multiplied by `factor` after every `every` updates.

    ::

        rate factor^floor(step / every)

    Raises:
        UsageError: a rate or factor that is negative or not finite; `every` below one.
    """

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _rate(self.rate, "step's rate")
        _rate(self.factor, "step's factor")
        integer(self.every, "step's every", 1)

    def __call__(self, step: int) -> float:
        """The rate of the update that follows `step` updates."""
        return float(self.rate * self.factor ** (step // self.every))


@dataclass(frozen=True)
class warm_up:
    """A rate, or another schedule, reached by a straight line over the first `steps` updates.

    The first of them, `step` 0, has 1/`steps` of the rate, the last the whole of it::

        then(step) min(1, (step + 1) / steps)

    With a schedule the line multiplies it; the schedule counts the warm-up's steps too.

    Raises:
        UsageError: a rate that is negative or not finite, or neither a rate nor a schedule; fewer
            than one step.
    """

    then: float | Schedule
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.then):
            _rate(self.then, "warm_up's rate")
        integer(self.steps, "warm_up's steps", 1)

    def __call__(self, step: int) -> float:
        """The rate of the update that follows `step` updates."""
        rate = self.then(step) if callable(self.then) else self.then
        return rate * min(1.0, (step + 1) / self.steps)


def described(schedule: Schedule) -> str:
    """A schedule in words, the same in every process: what a checkpoint compares."""
    if isinstance(schedule, constant | cosine | step | warm_up):
        values = vars(schedule).items()
        parts = (f"{name}={described(v) if callable(v) else repr(v)}" for name, v in values)
        return f"{type(schedule).__name__}({', '.join(parts)})"
    kind = schedule if hasattr(schedule, "__qualname__") else type(schedule)
    return f"{kind.__module__}.{kind.__qualname__}"


def rate_of(schedule: Schedule, step: int, dtype: np.dtype[Any] | None = None) -> float:
    """What a schedule gives after `step` updates, checked.

    Raises:
        UsageError: no number, a negative one, or one that is not finite (in `dtype`).
    """
    what = f"the learning rate that {described(schedule)} gives after {step} updates"
    rate = _rate(schedule(step), what)
    if dtype is not None:
        with np.errstate(over="ignore"):
            if not np.isfinite(dtype.type(rate)):
                raise UsageError(f"{what} is {rate!r}, which is infinite in {dtype}")
    return rate


def _rate(value: float, what: str) -> float:
    if real(value, what) < 0:
        raise UsageError(f"{what} is not negative, got {shown(value)}")
    return float(value)
