"""Functions of symbols, each one operation of the core.

Symbols in, symbol out; where two or more operands are taken, arrays ``(features, batch)`` and
numbers may stand for some of them. Two operands broadcast over ``(features, batch)`` as in numpy.
All raise `ShapeError` for shapes that do not fit, and `UsageError` for symbols of different graphs,
or when a value of the window meets a value of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from bptt.arrays import integer, listed
from bptt.errors import UsageError
from bptt.symbol import Operand, Symbol, apply


def tanh(v: Symbol) -> Symbol:
    """The hyperbolic tangent t, entry by entry. Derivative ``1 - t^2``."""
    return apply("tanh", v)


def sigmoid(v: Symbol) -> Symbol:
    """The logistic function ``s = 1 / (1 + exp(-v))``, entry by entry. Derivative ``s (1 - s)``."""
    return apply("sigmoid", v)


def relu(v: Symbol) -> Symbol:
    """``max(v, 0)``, entry by entry. Derivative 1 above 0, else 0."""
    return apply("relu", v)


def exp(v: Symbol) -> Symbol:
    """The exponential, entry by entry."""
    return apply("exp", v)


def log(v: Symbol) -> Symbol:
    """The natural logarithm, entry by entry. Derivative ``1 / v``."""
    return apply("log", v)


def square(v: Symbol) -> Symbol:
    """``v * v``, entry by entry."""
    return apply("square", v)


def sqrt(v: Symbol) -> Symbol:
    """The square root r, entry by entry. Derivative ``1 / (2 r)``."""
    return apply("sqrt", v)


def abs(v: Symbol) -> Symbol:
    """The absolute value, entry by entry. Derivative ``sign(v)``, 0 at 0."""
    return apply("abs", v)


def softmax(v: Symbol) -> Symbol:
    """``exp(v_i) / sum_j exp(v_j)`` over the features of each lane: probabilities y.

    Computed with the largest v taken out first, so that nothing overflows. Derivative
    ``dv = y (dy - <dy, y>)``. For a loss `losses.softmax_cross_entropy` takes v itself.
    """
    return apply("softmax", v)


def log_softmax(v: Symbol) -> Symbol:
    """``v_i - log sum_j exp(v_j)`` over the features of each lane: the logarithm of `softmax`."""
    return apply("log_softmax", v)


def matmul(a: Operand, b: Operand) -> Symbol:
    """The matrix product ``(m, k) @ (k, n) -> (m, n)``, at every time step."""
    return apply("matmul", a, b)


def maximum(a: Operand, b: Operand) -> Symbol:
    """The larger of two, entry by entry. Where they are equal the gradient goes to `a`."""
    return apply("maximum", a, b)


def minimum(a: Operand, b: Operand) -> Symbol:
    """The smaller of two, entry by entry. Where they are equal the gradient goes to `a`."""
    return apply("minimum", a, b)


def less(a: Operand, b: Operand) -> Symbol:
    """1 where a is less than b, else 0, entry by entry. No gradient passes."""
    return apply("less", a, b)


def transpose(v: Symbol) -> Symbol:
    """``(features, batch) -> (batch, features)``, at every time step."""
    return apply("transpose", v)


def stop_gradient(v: Symbol) -> Symbol:
    """`v` itself, through which no gradient passes."""
    return apply("stop_gradient", v)


def concat(values: Sequence[Operand], axis: int = 0) -> Symbol:
    """Values joined along features (axis 0) or batch (axis 1).

    Raises:
        ShapeError: they differ along the other axis.
        UsageError: no list of values, or another axis.

    Example:
        ``concat([x, h])`` of ``(2, 1)`` and ``(5, 1)`` is ``(7, 1)``.
    """
    return apply("concat", *listed(values, "what concat joins"), axis=_axis(axis))


def reduce_sum(v: Symbol, axis: int | Sequence[int] | None = None) -> Symbol:
    """The sum over features (axis 0), batch (1) or both, at every time step; both axes are kept.

    Without `axis` the sum goes over all frames too and is a window value ``(1, 1)``: something to
    minimise. A time-constant value stands for itself at every frame there, so its sum is taken
    T times; a regulariser that shall count once, whatever T, names the axes:
    ``loss + reduce_sum(square(W), axis=(0, 1))``. A window value has no frames left to sum over.

    Raises:
        UsageError: another axis.
    """
    return _reduce("sum", v, axis)


def reduce_mean(v: Symbol, axis: int | Sequence[int] | None = None) -> Symbol:
    """The mean over features (axis 0), batch (1) or both, at every time step; both axes are kept.

    Without `axis` the mean goes over all frames too and is a window value ``(1, 1)``: something to
    minimise.

    Raises:
        UsageError: another axis.

    Example:
        ``loss = reduce_mean(square(out - y))``
    """
    return _reduce("mean", v, axis)


def _reduce(kind: str, v: Symbol, axis: int | Sequence[int] | None) -> Symbol:
    if axis is None:
        return apply(f"window_{kind}", v)
    axes = {_axis(each) for each in (axis if isinstance(axis, Sequence) else [axis])}
    if not axes:
        raise UsageError(f"reduce_{kind} over no axis; leave axis out to reduce over all")
    return apply(kind, v, axis=2 if len(axes) == 2 else axes.pop())  # the core's 2: both


def _axis(axis: int) -> int:
    return integer(axis, "axis, 0 (features) or 1 (batch),", -2, 1) % 2
