"""Layers: documented arrangements of weights, recurrences and the core's fused cells.

Shapes: `x` is ``(input features, batch)``, all states and results ``(width, batch)``. One counter
numbers all recurrent layers of a frame, whatever their kind; `layer_index` sets it. The state of
layer n is ``hidden-n``, for an LSTM ``cell-n`` too.

`initializer` draws all weights of the layer; without it the matrices on `x` are
`initializers.glorot_uniform`, the recurrent ones `initializers.orthogonal`, and biases zero.
`initial_state` draws the starting state ``(width, 1)``, the same for every lane; zeros by default.

All raise `UsageError` outside a frame function and for a layer number used twice, `ShapeError` for
a width that is no positive integer, and `MemoryError` for one that no memory can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import numpy.typing as npt

from bptt.arrays import shown
from bptt.errors import UsageError
from bptt.initializers import Initializer, glorot_uniform, ones, orthogonal, zeros
from bptt.ops import tanh
from bptt.symbol import Operand, Symbol
from bptt.trace import Trace

if TYPE_CHECKING:
    from bptt.model import BPTT

_PEEPHOLES = ("full", "diagonal")


def rnn(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    output: bool = False,
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Initializer | npt.ArrayLike | None = None,
) -> Symbol:
    """A simple recurrent layer (Elman, *Finding structure in time*, 1990).

    With the past value h' of the state::

        h = tanh(W_aa h' + W_ax x + b_a)

    Args:
        bp: the net whose frame is traced.
        x: ``(input features, batch)``.
        width: features of h.
        output: return ``o = tanh(W_ya h + b_y)`` in place of h.
        layer_index: the n of the names; one more than the largest so far by default.
        initializer: draws all weights.
        initial_state: draws the starting state.

    Returns:
        h, or o: ``(width, batch)``. Weights ``rnn_layer_n/W_ax``, ``W_aa``, ``b_a``, and for o
        ``W_ya``, ``b_y``; state ``hidden-n``.
    """
    trace = _trace(bp)
    x = trace.frame_value(x)
    features, batch = x.shape
    index = trace.layer(layer_index)
    state = f"hidden-{index}"
    with bp.variable_scope(f"rnn_layer_{index}"):
        W_ax = bp.get_variable("W_ax", (width, features), _or(initializer, glorot_uniform))
        W_aa = bp.get_variable("W_aa", (width, width), _or(initializer, orthogonal))
        b_a = bp.get_variable("b_a", (width, 1), _or(initializer, zeros))
        past = trace.past(state, trace.start(state, width, initial_state), batch)
        (h,) = trace.append("rnn", x, past, W_ax, W_aa, b_a)
        bp.name_variable(state, h)
        if not output:
            return h
        W_ya = bp.get_variable("W_ya", (width, width), _or(initializer, glorot_uniform))
        b_y = bp.get_variable("b_y", (width, 1), _or(initializer, zeros))
        return tanh(W_ya @ h + b_y)


def lstm(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    peephole: Literal["full", "diagonal"] | None = None,
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Initializer | npt.ArrayLike | None = None,
) -> tuple[Symbol, Symbol]:
    """A long short-term memory layer (Graves 2013, arXiv:1308.0850, equations 7 to 11).

    With the past values h', c' of hidden state and cell, and * entry by entry::

        i = sigmoid(W_xi x + W_hi h' + W_ci c' + b_i)
        f = sigmoid(W_xf x + W_hf h' + W_cf c' + b_f)
        c = f * c' + i * tanh(W_xc x + W_hc h' + b_c)
        o = sigmoid(W_xo x + W_ho h' + W_co c + b_o)
        h = o * tanh(c)

    By default b_f begins at one, so that the cell remembers at first (Jozefowicz, Zaremba &
    Sutskever, *An empirical exploration of recurrent network architectures*, 2015), and diagonal
    peepholes begin at zero.

    Args:
        bp: the net whose frame is traced.
        x: ``(input features, batch)``.
        width: features of c and of h.
        peephole: ``"diagonal"`` for W_ci, W_cf, W_co of shape ``(width, 1)``, entry by entry, as
            Graves has them; ``"full"`` for whole matrices; None for none.
        layer_index: the n of the names; one more than the largest so far by default.
        initializer: draws all weights.
        initial_state: draws the starting states of both.

    Returns:
        c and h: ``(width, batch)``. Weights ``lstm_layer_n/W_xi`` and so on; states ``cell-n``,
        ``hidden-n``.

    Raises:
        UsageError: another peephole.
    """
    if peephole is not None and not (isinstance(peephole, str) and peephole in _PEEPHOLES):
        raise UsageError(f'peephole is "full", "diagonal" or None, got {shown(peephole)}')
    columns = {None: 0, "diagonal": 1, "full": width}[peephole]
    trace = _trace(bp)
    x = trace.frame_value(x)
    features, batch = x.shape
    index = trace.layer(layer_index)
    with bp.variable_scope(f"lstm_layer_{index}"):

        def weight(name: str, columns: int, default: Initializer) -> Symbol:
            return bp.get_variable(name, (width, columns), _or(initializer, default))

        weights = [weight(f"W_x{gate}", features, glorot_uniform) for gate in "ifco"]
        weights += [weight(f"W_h{gate}", width, orthogonal) for gate in "ifco"]
        weights += [weight(f"b_{gate}", 1, ones if gate == "f" else zeros) for gate in "ifco"]
        if columns:
            begin = glorot_uniform if peephole == "full" else zeros
            weights += [weight(f"W_c{gate}", columns, begin) for gate in "ifo"]
    pasts = [
        trace.past(state, trace.start(state, width, initial_state), batch)
        for state in (f"cell-{index}", f"hidden-{index}")
    ]
    c, h = trace.append("lstm", x, *pasts, *weights, peephole=peephole or "none")
    return bp.name_variable(f"cell-{index}", c), bp.name_variable(f"hidden-{index}", h)


def dense(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    activation: Callable[[Symbol], Symbol] | None = None,
    name: str | None = None,
    initializer: Initializer | None = None,
) -> Symbol:
    """A dense layer, ``activation(W x + b)``, the same at every time step.

    Args:
        bp: the net whose frame is traced.
        x: ``(input features, batch)``.
        width: features of the result.
        activation: a function of symbols, such as `bptt.sigmoid`, not its name; none by default.
        name: the scope of W and b; ``dense_n`` by default, n counting the layers without a name;
            an empty name for no scope.
        initializer: draws both weights.

    Returns:
        ``(width, batch)``. Weights ``<name>/W`` ``(width, input features)``, ``<name>/b``
        ``(width, 1)``.
    """
    if activation is not None and not callable(activation):
        raise UsageError(f"activation is a function such as bptt.tanh, got {shown(activation)}")
    trace = _trace(bp)
    x = trace.symbol(x)
    scope = trace.dense_name() if name is None else name
    with bp.variable_scope(scope) if scope else nullcontext():
        W = bp.get_variable("W", (width, x.shape[0]), _or(initializer, glorot_uniform))
        b = bp.get_variable("b", (width, 1), _or(initializer, zeros))
    out = W @ x + b
    return activation(out) if activation else out


def _trace(bp: BPTT) -> Trace:
    """The open trace of the net that a layer was given."""
    trace = getattr(bp, "trace", None)
    if not isinstance(trace, Trace):
        raise UsageError(f"a layer's first argument is the BPTT it belongs to, got {shown(bp)}")
    return trace


def _or(initializer: Initializer | None, default: Initializer) -> Initializer:
    return default if initializer is None else initializer
