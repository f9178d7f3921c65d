"""Losses: what a net gives against what it should, as one number of a window to minimise.

Each takes symbols, arrays and numbers, and gives by default a window value ``(1, 1)``: the mean
over all frames and lanes (and features, where the loss has them). ``reduction="sum"`` gives the
sum, ``reduction="none"`` the loss of every frame, to be reduced by other means.

`weights` multiply the loss of every frame before it is reduced; their shape is that of the loss or
broadcasts to it, such as ``(1, batch)`` for a weight of each frame and lane. A mean still divides
by the number of entries, as in PyTorch; the mean weighted by w is
``mse(..., weights=w, reduction="sum") / reduce_sum(w)``.

All raise `ShapeError` for shapes that do not fit (nothing is broadcast but weights and variances),
and `UsageError` for another reduction, or where no operand is a symbol.
"""

from __future__ import annotations

import math

from bptt.arrays import shown
from bptt.errors import ShapeError, UsageError
from bptt.ops import log, maximum, reduce_mean, reduce_sum, square
from bptt.optimisers import positive
from bptt.symbol import Operand, Symbol, apply


def mse(
    output: Operand, target: Operand, *, weights: Operand | None = None, reduction: str = "mean"
) -> Symbol:
    """The squared error, ``(output - target)^2``, entry by entry.

    Args:
        output: ``(features, batch)``.
        target: of the same shape.
        weights: see above.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """
    return _reduced(square(_error(output, target)), weights, reduction)


def huber(
    output: Operand,
    target: Operand,
    delta: float = 1.0,
    *,
    weights: Operand | None = None,
    reduction: str = "mean",
) -> Symbol:
    """Huber's loss: of the error e, ``e^2 / 2`` up to `delta`, ``delta (|e| - delta / 2)`` beyond.

    Huber, *Robust estimation of a location parameter*, 1964.

    Args:
        output: ``(features, batch)``.
        target: of the same shape.
        delta: where the parabola goes over into straight lines.
        weights: see above.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        UsageError: a delta that is not finite and positive.
    """
    each = apply("huber", _error(output, target), positive("huber's delta", delta))
    return _reduced(each, weights, reduction)


def binary_cross_entropy_with_logits(
    logits: Operand, target: Operand, *, weights: Operand | None = None, reduction: str = "mean"
) -> Symbol:
    """The cross-entropy of ``p = sigmoid(logits)``, entry by entry, each a probability of its own.

    ``-target log(p) - (1 - target) log(1 - p)``, computed without overflow or loss of digits as
    ``max(x, 0) - x target + log(1 + exp(-|x|))``. Derivative ``p - target``.

    Args:
        logits: x, before the sigmoid, ``(features, batch)``.
        target: probabilities, 0 and 1 among them, of the same shape.
        weights: see above.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """
    each = apply("binary_cross_entropy_with_logits", *_of_one_shape(logits, target))
    return _reduced(each, weights, reduction)


def softmax_cross_entropy(
    logits: Operand, target: Operand, *, weights: Operand | None = None, reduction: str = "mean"
) -> Symbol:
    """The cross-entropy of ``p = softmax(logits)``, one number for each frame and lane.

    ``-log p_k`` for a target that is the symbol k, ``-sum_i target_i log p_i`` for one that is a
    distribution; with ``log p_i = x_i - log sum_j exp(x_j)``, so that nothing overflows. Derivative
    ``p`` minus the target.

    Args:
        logits: x, before the softmax, ``(classes, batch)``.
        target: ``(1, batch)`` symbols, integers from 0 to classes - 1; or ``(classes, batch)``
            probabilities.
        weights: see above; ``(1, batch)``.
        reduction: ``"mean"`` (over frames and lanes), ``"sum"`` or ``"none"`` (``(1, batch)``).

    Raises:
        UsageError: while it runs, a symbol that is no integer from 0 to classes - 1; the window
            that has it changes nothing.
    """
    x, y = _symbols(logits, target)
    kind = "softmax_cross_entropy"
    if y.shape[0] == 1 and x.shape[0] > 1:
        kind = "softmax_cross_entropy_of_symbols"
    return _reduced(apply(kind, x, y), weights, reduction)


def gaussian_nll(
    mean: Operand,
    target: Operand,
    variance: Operand,
    *,
    epsilon: float = 1e-6,
    full: bool = False,
    weights: Operand | None = None,
    reduction: str = "mean",
) -> Symbol:
    """The negative logarithm of a normal density, entry by entry.

    ``(log v + (mean - target)^2 / v) / 2``, with ``v = max(variance, epsilon)``; Nix & Weigend,
    *Estimating the mean and variance of the target probability distribution*, 1994. Where the
    variance is below epsilon, no gradient goes to it.

    Args:
        mean: ``(features, batch)``.
        target: of the same shape.
        variance: positive; of the same shape, or one that broadcasts to it.
        epsilon: the least variance.
        full: add the constant ``log(2 pi) / 2``.
        weights: see above.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        UsageError: an epsilon that is not finite and positive.
    """
    squared = square(_error(mean, target))
    v = maximum(squared.trace.symbol(variance), positive("gaussian_nll's epsilon", epsilon))
    each = (log(v) + squared / v) * 0.5
    if each.shape != squared.shape:
        raise ShapeError(f"a variance of shape {v.shape} of values of shape {squared.shape}")
    if full:
        each = each + 0.5 * math.log(2 * math.pi)
    return _reduced(each, weights, reduction)


def _error(output: Operand, target: Operand) -> Symbol:
    return apply("subtract", *_of_one_shape(output, target))


def _of_one_shape(output: Operand, target: Operand) -> tuple[Symbol, Symbol]:
    """That broadcasting a target by mistake gives another loss, and no error, is prevented here."""
    a, b = _symbols(output, target)
    if a.shape != b.shape:
        raise ShapeError(f"a loss takes values of one shape, got {a.shape} and {b.shape}")
    return a, b


def _symbols(*operands: Operand) -> list[Symbol]:
    for operand in operands:
        if isinstance(operand, Symbol):
            return [operand.trace.symbol(each) for each in operands]
    raise UsageError(f"a loss takes at least one symbol, got {shown(operands)}")


def _reduced(each: Symbol, weights: Operand | None, reduction: str) -> Symbol:
    if weights is not None:
        weighted = each * weights
        if weighted.shape != each.shape:
            raise ShapeError(
                f"weights of a loss of shape {each.shape} have that shape or broadcast to it; "
                f"with these it has shape {weighted.shape}"
            )
        each = weighted
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise UsageError(f'reduction is "mean", "sum" or "none", got {shown(reduction)}')
    if reduction == "none":
        return each
    return reduce_mean(each) if reduction == "mean" else reduce_sum(each)
