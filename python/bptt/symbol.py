"""Symbols: the values of a frame, and the operators on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy.typing as npt

from bptt.arrays import shown
from bptt.errors import UsageError

if TYPE_CHECKING:
    from bptt.trace import Trace


class Symbol:
    """A value of the frame: it stands for that value at *every* time step.

    Symbols come from `BPTT` (placeholders, variables, past values, noise), from the functions of
    `bptt` and from the operators ``+ - * / @`` with symbols, arrays and numbers, which broadcast
    over ``(features, batch)`` as numpy does. ``v[0:3]`` takes features 0, 1 and 2. A symbol holds
    no numbers: ``bp.run`` computes them.

    Attributes:
        shape: ``(features, batch)``.
        name: of a placeholder, a variable or a past value; empty for computed values.
        trace: the mode it was made in.
    """

    __slots__ = ("id", "name", "shape", "trace")
    __array_ufunc__ = None  # array + symbol is ours, not an array of objects

    def __init__(self, trace: Trace, id: int, shape: tuple[int, int], name: str = "") -> None:
        """Symbols are made by a trace."""
        self.trace = trace
        self.id = id
        self.shape = shape
        self.name = name

    @property
    def extent(self) -> str:
        """How it extends in time: ``"frame"``, time-``"constant"`` or ``"window"``."""
        return self.trace.graph.extent(self.id)

    @property
    def T(self) -> Symbol:
        """The transpose, ``(batch, features)``."""
        return apply("transpose", self)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<Symbol{name} {self.shape}, a {self.extent} value of the {self.trace.depth} graph>"

    def __add__(self, other: Operand) -> Symbol:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Symbol:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Symbol:
        return apply("subtract", self, other)

    def __rsub__(self, other: Operand) -> Symbol:
        return apply("subtract", other, self)

    def __mul__(self, other: Operand) -> Symbol:
        return apply("multiply", self, other)

    def __rmul__(self, other: Operand) -> Symbol:
        return apply("multiply", other, self)

    def __truediv__(self, other: Operand) -> Symbol:
        return apply("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Symbol:
        return apply("divide", other, self)

    def __matmul__(self, other: Operand) -> Symbol:
        return apply("matmul", self, other)

    def __rmatmul__(self, other: Operand) -> Symbol:
        return apply("matmul", other, self)

    def __neg__(self) -> Symbol:
        return apply("negative", self)

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return apply("abs", self)

    def __getitem__(self, features: slice) -> Symbol:
        if not isinstance(features, slice):
            advice = f"v[{features}:{features + 1}]" if isinstance(features, int) else "v[0:3]"
            raise UsageError(
                "a symbol is sliced by features and keeps both axes: "
                f"{advice}, not v[{shown(features)}]"
            )
        try:
            start, stop, step = features.indices(self.shape[0])
        except (TypeError, ValueError):  # no integers, or a step of 0
            raise UsageError(f"a slice of features is like v[0:3], got {shown(features)}") from None
        if step != 1:
            raise UsageError(f"a slice of features has step 1, got {step}")
        return apply("slice", self, start=start, stop=stop)

    def __bool__(self) -> NoReturn:
        raise UsageError(
            "a symbol is neither true nor false while the frame is traced; branch on depth, "
            "or compute with maximum, minimum, relu"
        )

    def __len__(self) -> NoReturn:
        raise UsageError("a symbol has no length; v.shape is (features, batch)")

    def __iter__(self) -> Iterator[NoReturn]:
        raise UsageError("a symbol cannot be iterated over; slice its features: v[0:1], v[1:2]")

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        raise UsageError(
            "a symbol holds no numbers, so numpy cannot compute with it; use the functions of "
            "bptt in the frame, and bp.run to fetch its value"
        )


Operand: TypeAlias = Symbol | npt.ArrayLike


def apply(operation: str, *operands: Operand, **attributes: Any) -> Symbol:
    """Append one operation with one result to the trace that the operands belong to.

    Raises:
        ShapeError: the operands' shapes do not fit.
        UsageError: no operand is a symbol, or they belong to different graphs.
    """
    for operand in operands:
        if isinstance(operand, Symbol):
            return operand.trace.append(operation, *operands, **attributes)[0]
    raise UsageError(f"{operation} takes at least one symbol, got {shown(operands)}")
