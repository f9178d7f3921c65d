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

import numpy as np
import numpy.typing as npt

from bptt.arrays import integer, shown
from bptt.errors import UsageError
from bptt.initializers import (
    Initializer,
    glorot_uniform,
    ones,
    orthogonal,
    random_normal,
    zeros,
)
from bptt.numerics import Array
from bptt.ops import tanh
from bptt.symbol import Operand, Symbol
from bptt.trace import Trace

if TYPE_CHECKING:
    from bptt.model import BPTT

_PEEPHOLES = ("full", "diagonal")
_RESETS = ("after", "before")
_ACTIVATIONS = ("tanh", "relu")


def rnn(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    activation: Literal["tanh", "relu"] = "tanh",
    output: bool = False,
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Initializer | npt.ArrayLike | None = None,
) -> Symbol:
    """A simple recurrent layer (Elman, *Finding structure in time*, 1990).

    With the past value h' of the state::

        h = tanh(W_aa h' + W_ax x + b_a)

    With relu, ``max(v, 0)``, in place of tanh, W_aa does best near the identity (Le, Jaitly &
    Hinton 2015, arXiv:1504.00941); an orthogonal one, as by default, keeps lengths too.

    Args:
        bp: the net whose frame is traced.
        x: ``(input features, batch)``.
        width: features of h.
        activation: ``"tanh"`` or ``"relu"``, of h.
        output: return ``o = tanh(W_ya h + b_y)`` in place of h.
        layer_index: the n of the names; one more than the largest so far by default.
        initializer: draws all weights.
        initial_state: draws the starting state.

    Returns:
        h, or o: ``(width, batch)``. Weights ``rnn_layer_n/W_ax``, ``W_aa``, ``b_a``, and for o
        ``W_ya``, ``b_y``; state ``hidden-n``.

    Raises:
        UsageError: another activation.
    """
    _require(_ACTIVATIONS, activation, "activation")
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
        (h,) = trace.append("rnn", x, past, W_ax, W_aa, b_a, activation=activation)
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
    coupled: bool = False,
    projection: int | None = None,
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
        width: features of c, and of h if it is not projected.
        coupled: f is ``1 - i``, and the weights of f are absent (Greff et al. 2017,
            arXiv:1503.04069); b_i begins at minus one in place of b_f at one.
        projection: features of h, which is then ``W_rm (o * tanh(c))`` (Sak, Senior & Beaufays
            2014, arXiv:1402.1128); None for no projection. Not with `coupled`.
        peephole: ``"diagonal"`` for W_ci, W_cf, W_co of shape ``(width, 1)``, entry by entry, as
            Graves has them; ``"full"`` for whole matrices; None for none.
        layer_index: the n of the names; one more than the largest so far by default.
        initializer: draws all weights.
        initial_state: draws the starting states of both.

    Returns:
        c and h: ``(width, batch)``, a projected h ``(projection, batch)``. Weights
        ``lstm_layer_n/W_xi`` and so on; states ``cell-n``, ``hidden-n``.

    Raises:
        UsageError: another peephole, or a projection of coupled gates.
        ShapeError: a projection that is no positive integer.
    """
    if coupled and projection is not None:
        raise UsageError("an LSTM has coupled gates or a projection, not both")
    if peephole is not None:
        _require(_PEEPHOLES, peephole, "peephole", " or None")
    columns = {None: 0, "diagonal": 1, "full": width}[peephole]
    outputs = width if projection is None else projection
    trace = _trace(bp)
    x = trace.frame_value(x)
    features, batch = x.shape
    index = trace.layer(layer_index)
    with bp.variable_scope(f"lstm_layer_{index}"):

        def weight(name: str, columns: int, default: Initializer) -> Symbol:
            return bp.get_variable(name, (width, columns), _or(initializer, default))

        gates = "ico" if coupled else "ifco"
        bias = {"i": _minus_ones} if coupled else {"f": ones}
        weights = [weight(f"W_x{gate}", features, glorot_uniform) for gate in gates]
        weights += [weight(f"W_h{gate}", outputs, orthogonal) for gate in gates]
        weights += [weight(f"b_{gate}", 1, bias.get(gate, zeros)) for gate in gates]
        if projection is not None:
            start = _or(initializer, glorot_uniform)
            weights.append(bp.get_variable("W_rm", (outputs, width), start))
        if columns:
            begin = glorot_uniform if peephole == "full" else zeros
            weights += [weight(f"W_c{gate}", columns, begin) for gate in gates if gate != "c"]
    pasts = [
        trace.past(state, trace.start(state, size, initial_state), batch)
        for state, size in ((f"cell-{index}", width), (f"hidden-{index}", outputs))
    ]
    form = "lstm_coupled" if coupled else "lstm" if projection is None else "lstm_projected"
    c, h = trace.append(form, x, *pasts, *weights, peephole=peephole or "none")
    return bp.name_variable(f"cell-{index}", c), bp.name_variable(f"hidden-{index}", h)


def gru(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    reset: Literal["after", "before"] = "after",
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Initializer | npt.ArrayLike | None = None,
) -> Symbol:
    """A layer of gated recurrent units (Cho et al. 2014, arXiv:1406.1078).

    With the past value h' of the state, and * entry by entry::

        r = sigmoid(W_xr x + W_hr h' + b_r)
        z = sigmoid(W_xz x + W_hz h' + b_z)
        n = tanh(W_xn x + b_n + r * (W_hn h' + b_hn))       reset="after", as cuDNN and PyTorch
        n = tanh(W_xn x + b_n + W_hn (r * h'))              reset="before", as the paper
        h = (1 - z) * n + z * h'

    ``docs/cells.md`` says which of PyTorch's and Keras's weights is which of these.

    Args:
        bp: the net whose frame is traced.
        x: ``(input features, batch)``.
        width: features of h.
        reset: whether the reset gate r comes ``"after"`` the product with the state or
            ``"before"``.
        layer_index: the n of the names; one more than the largest so far by default.
        initializer: draws all weights.
        initial_state: draws the starting state.

    Returns:
        h: ``(width, batch)``. Weights ``gru_layer_n/W_xr``, ``W_hr``, ``b_r``, and so for z and n,
        with ``reset="after"`` ``b_hn`` too; state ``hidden-n``.

    Raises:
        UsageError: another reset.
    """
    _require(_RESETS, reset, "reset")
    trace = _trace(bp)
    x = trace.frame_value(x)
    features, batch = x.shape
    index = trace.layer(layer_index)
    state = f"hidden-{index}"
    with bp.variable_scope(f"gru_layer_{index}"):

        def weight(name: str, columns: int, default: Initializer) -> Symbol:
            return bp.get_variable(name, (width, columns), _or(initializer, default))

        weights = [weight(f"W_x{gate}", features, glorot_uniform) for gate in "rzn"]
        weights += [weight(f"W_h{gate}", width, orthogonal) for gate in "rzn"]
        weights += [weight(f"b_{gate}", 1, zeros) for gate in "rzn"]
        if reset == "after":
            weights.append(weight("b_hn", 1, zeros))
    past = trace.past(state, trace.start(state, width, initial_state), batch)
    (h,) = trace.append("gru", x, past, *weights, reset=reset)
    return bp.name_variable(state, h)


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


def embedding(
    bp: BPTT,
    symbols: Operand,
    count: int,
    width: int,
    *,
    name: str | None = None,
    initializer: Initializer | None = None,
) -> Symbol:
    """A table with a learned column for each symbol of a finite set: ``W[:, k]`` for the symbol k.

    The same numbers as `dense` without bias makes of one-hot vectors, but only the columns of the
    symbols that occur are touched, forward and in the gradient.

    Args:
        bp: the net whose frame is traced.
        symbols: integers from 0 to count - 1, ``(1, batch)``. They are fed as numbers of the net's
            dtype, which holds integers exactly up to 2^24 (float32) or 2^53 (float64).
        count: how many symbols there are.
        width: features of the result.
        name: the scope of W; ``embedding_n`` by default, n counting the layers without a name.
        initializer: draws W; normal with deviation 1 by default.

    Returns:
        ``(width, batch)``. Weight ``<name>/W`` ``(width, count)``.

    Raises:
        ShapeError: symbols of more than one feature.
        UsageError: more symbols than the dtype tells apart; while it runs, a symbol that is no
            integer from 0 to count - 1: the window, or the step, that has it changes nothing.
    """
    trace = _trace(bp)
    symbols = trace.symbol(symbols)
    largest = 2 ** (np.finfo(trace.dtype).nmant + 1)
    count = integer(count, "count, the number of symbols,", 1, largest)
    with bp.variable_scope(trace.embedding_name() if name is None else name):
        W = bp.get_variable("W", (width, count), _or(initializer, random_normal()))
    return trace.append("embedding", symbols, W)[0]


def _trace(bp: BPTT) -> Trace:
    """The open trace of the net that a layer was given."""
    trace = getattr(bp, "trace", None)
    if not isinstance(trace, Trace):
        raise UsageError(f"a layer's first argument is the BPTT it belongs to, got {shown(bp)}")
    return trace


def _minus_ones(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    return np.full(shape, -1.0)


def _require(names: tuple[str, ...], name: str, what: str, otherwise: str = "") -> None:
    """That `name` is one of those there are."""
    if isinstance(name, str) and name in names:
        return
    choices = (", " if otherwise else " or ").join(f'"{each}"' for each in names)
    raise UsageError(f"{what} is {choices}{otherwise}, got {shown(name)}")


def _or(initializer: Initializer | None, default: Initializer) -> Initializer:
    return default if initializer is None else initializer
