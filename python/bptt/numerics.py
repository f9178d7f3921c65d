"""The core's classes for one precision.

The core holds every numeric class twice, for float32 and for float64, with one interface. They are
typed here as the float32 ones.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt import _core
from bptt.errors import UsageError

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Weights: TypeAlias = _core.Weights32
State: TypeAlias = _core.State32
Program: TypeAlias = _core.Program32
Training: TypeAlias = _core.Training32
Ranks: TypeAlias = _core.Ranks32

_BITS = {"float32": "32", "float64": "64"}


class Numerics:
    """The dtype of a net, and the core's classes that compute in it."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        try:
            self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
        except (TypeError, ValueError):
            raise UsageError(f"dtype is float32 or float64, got {dtype!r}") from None
        if dtype is None or self.dtype.name not in _BITS:  # numpy reads None as float64
            raise UsageError(f"dtype is float32 or float64, got {dtype!r}")
        bits = _BITS[self.dtype.name]
        self.Weights: type[_core.Weights32] = getattr(_core, "Weights" + bits)
        self.State: type[_core.State32] = getattr(_core, "State" + bits)
        self.Program: type[_core.Program32] = getattr(_core, "Program" + bits)
        self.Segments: type[_core.Segments32] = getattr(_core, "Segments" + bits)
        self.Optimiser: type[_core.Optimiser32] = getattr(_core, "Optimiser" + bits)
        self.Clip: type[_core.Clip32] = getattr(_core, "Clip" + bits)
        self.Training: type[_core.Training32] = getattr(_core, "Training" + bits)
        self.Ranks: type[_core.Ranks32] = getattr(_core, "Ranks" + bits)
