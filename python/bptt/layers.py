"""Layers: documented arrangements of weights, recurrences and the core's fused cells.

Shapes: `x` is ``(input features, batch)``, all states and results ``(width, batch)``. One counter
numbers all recurrent layers of a frame, whatever their kind; `layer_index` sets it. The state of
layer n is ``hidden-n``, for an LSTM ``cell-n`` too.

`initializer` draws all weights of the layer; without it the matrices on `x` are
`initializers.glorot_uniform`, the recurrent ones `initializers.orthogonal`, and biases zero.
`initial_state` draws the starting state ``(width, 1)``, the same for every lane; zeros by default.
``"learned"`` makes it a weight, ``hidden_start`` (for an LSTM ``cell_start`` too), which begins at
zero and gets the gradient of the frames where lanes begin anew (``docs/sequences.md``).

All recurrent layers take three probabilities, 0 by default, that act in the deep mode:

- `dropout` of the entries of x, and `recurrent_dropout` of the entries of h' on their way to the
  weights, are zero for a whole sequence, and the others divided by one minus the probability (Gal
  & Ghahramani 2016, arXiv:1512.05287, with one mask for all gates). Masks are drawn anew where a
  lane begins anew; they are states, ``input-mask-n`` and ``hidden-mask-n``. The shallow mode
  leaves nothing out.
- `zoneout` of the entries of the state stay what they were a frame ago (Krueger et al. 2017,
  arXiv:1606.01305), others in every frame; an LSTM takes two numbers for c and h. The shallow
  mode takes the mean, ``zoneout h' + (1 - zoneout) h``.

All raise `UsageError` outside a frame function, for a layer number used twice and for a probability
that is not in [0, 1), `ShapeError` for
a width that is no positive integer, and `MemoryError` for one that no memory can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt.arrays import integer, real, shown
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
from bptt.ops import less, maximum, stop_gradient, tanh
from bptt.symbol import Operand, Symbol
from bptt.trace import Trace

if TYPE_CHECKING:
    from bptt.model import BPTT

_PEEPHOLES = ("full", "diagonal")
_RESETS = ("after", "before")
_ACTIVATIONS = ("tanh", "relu")

Start: TypeAlias = Initializer | npt.ArrayLike | Literal["learned"] | None
"""Where a layer's state begins: drawn, given, a weight, or zeros."""


def rnn(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    activation: Literal["tanh", "relu"] = "tanh",
    output: bool = False,
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Start = None,
    zoneout: float = 0.0,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
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
        initial_state: draws the starting state, or ``"learned"``.
        zoneout: see above.
        dropout: see above.
        recurrent_dropout: see above.

    Returns:
        h, or o: ``(width, batch)``. Weights ``rnn_layer_n/W_ax``, ``W_aa``, ``b_a``, and for o
        ``W_ya``, ``b_y``; state ``hidden-n``.

    Raises:
        UsageError: another activation.
    """
    _require(_ACTIVATIONS, activation, "activation")
    own = _Recurrent(bp, "rnn", x, width, layer_index, initializer, initial_state)
    own.drop(dropout, recurrent_dropout)
    with own.scope():
        W_ax = own.weight("W_ax", own.features, glorot_uniform)
        W_aa = own.weight("W_aa", width, orthogonal)
        b_a = own.weight("b_a", 1, zeros)
        past = own.past("hidden", width)
        (new,) = own.append("rnn", own.seen(past), W_ax, W_aa, b_a, activation=activation)
        h = own.name("hidden", past, new, zoneout)
        if not output:
            return h
        W_ya = own.weight("W_ya", width, glorot_uniform)
        b_y = own.weight("b_y", 1, zeros)
        return tanh(W_ya @ h + b_y)


def lstm(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    peephole: Literal["full", "diagonal"] | None = None,
    coupled: bool = False,
    projection: int | None = None,
    layer_norm: bool = False,
    epsilon: float = 1e-5,
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Start = None,
    zoneout: float | tuple[float, float] = 0.0,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
) -> tuple[Symbol, Symbol]:
    """A long short-term memory layer (Graves 2013, arXiv:1308.0850, equations 7 to 11).

    With the past values h', c' of hidden state and cell, and * entry by entry::

        i = sigmoid(W_xi x + W_hi h' + W_ci c' + b_i)
        f = sigmoid(W_xf x + W_hf h' + W_cf c' + b_f)
        c = f * c' + i * tanh(W_xc x + W_hc h' + b_c)
        o = sigmoid(W_xo x + W_ho h' + W_co c + b_o)
        h = o * tanh(c)

    With `layer_norm`, and LN(v) for v less its mean and over the square root of its variance plus
    epsilon, both over the entries of one lane (Ba, Kiros & Hinton 2016, arXiv:1607.06450, equations
    20 to 22)::

        z_k = gain_xk * LN(W_x x)_k + gain_hk * LN(W_h h')_k + b_k         k = i, f, c, o
        c = sigmoid(z_f) * c' + sigmoid(z_i) * tanh(z_c)
        h = sigmoid(z_o) * tanh(gain_cell * LN(c) + bias_cell)

    where W_x x and W_h h' are the products of all four gates, ``4 width`` entries in one.

    By default b_f begins at one, so that the cell remembers at first (Jozefowicz, Zaremba &
    Sutskever, *An empirical exploration of recurrent network architectures*, 2015), and diagonal
    peepholes begin at zero. With `layer_norm` b_c begins with small normal numbers, of deviation
    0.1: a cell of zeros, fed with zeros, would stay where the slope of LN is ``1/sqrt(epsilon)``,
    and the gradient grow by that from frame to frame.

    Args:
        bp: the net whose frame is traced.
        x: ``(input features, batch)``.
        width: features of c, and of h if it is not projected.
        coupled: f is ``1 - i``, and the weights of f are absent (Greff et al. 2017,
            arXiv:1503.04069); b_i begins at minus one in place of b_f at one.
        projection: features of h, which is then ``W_rm (o * tanh(c))`` (Sak, Senior & Beaufays
            2014, arXiv:1402.1128); None for no projection. Not with `coupled`.
        layer_norm: normalise as above; gains begin at one. Without peephole, `coupled` and
            `projection`.
        epsilon: what is added to variances.
        peephole: ``"diagonal"`` for W_ci, W_cf, W_co of shape ``(width, 1)``, entry by entry, as
            Graves has them; ``"full"`` for whole matrices; None for none.
        layer_index: the n of the names; one more than the largest so far by default.
        initializer: draws all weights.
        initial_state: draws the starting states of both, or ``"learned"``.
        zoneout: see above; a pair for c and h, or one number for both.
        dropout: see above.
        recurrent_dropout: see above.

    Returns:
        c and h: ``(width, batch)``, a projected h ``(projection, batch)``. Weights
        ``lstm_layer_n/W_xi`` and so on; states ``cell-n``, ``hidden-n``.

    Raises:
        UsageError: another peephole, a projection of coupled gates, or either or a peephole with
            `layer_norm`; an epsilon that is not above 0.
        ShapeError: a projection that is no positive integer.
    """
    if coupled and projection is not None:
        raise UsageError("an LSTM has coupled gates or a projection, not both")
    if peephole is not None:
        _require(_PEEPHOLES, peephole, "peephole", " or None")
    if layer_norm and (peephole is not None or coupled or projection is not None):
        raise UsageError("an LSTM with layer_norm has no peephole, coupled gates or projection")
    pair = zoneout if isinstance(zoneout, tuple | list) else (zoneout, zoneout)
    if len(pair) != 2:
        raise UsageError(f"zoneout is a number, or two for c and h, got {shown(zoneout)}")
    columns = {None: 0, "diagonal": 1, "full": width}[peephole]
    outputs = width if projection is None else projection
    own = _Recurrent(bp, "lstm", x, width, layer_index, initializer, initial_state)
    with np.errstate(over="ignore"):
        if not 0 < own.trace.dtype.type(real(epsilon, "epsilon")) < np.inf:
            raise UsageError(f"epsilon is above 0 and finite in {own.trace.dtype}, got {epsilon}")
    own.drop(dropout, recurrent_dropout)
    with own.scope():
        gates = "ico" if coupled else "ifco"
        bias: dict[str, Initializer] = {"i": _minus_ones} if coupled else {"f": ones}
        if layer_norm:
            bias["c"] = random_normal(stddev=0.1)
        weights = [own.weight(f"W_x{gate}", own.features, glorot_uniform) for gate in gates]
        weights += [own.weight(f"W_h{gate}", outputs, orthogonal) for gate in gates]
        weights += [own.weight(f"b_{gate}", 1, bias.get(gate, zeros)) for gate in gates]
        if projection is not None:
            start = _or(initializer, glorot_uniform)
            weights.append(bp.get_variable("W_rm", (outputs, width), start))
        if columns:
            begin = glorot_uniform if peephole == "full" else zeros
            weights += [own.weight(f"W_c{gate}", columns, begin) for gate in gates if gate != "c"]
        if layer_norm:
            weights += [own.weight(f"gain_{of}{gate}", 1, ones) for of in "xh" for gate in gates]
            weights += [own.weight("gain_cell", 1, ones), own.weight("bias_cell", 1, zeros)]
        pasts = own.past("cell", width), own.past("hidden", outputs)
    seen = pasts[0], own.seen(pasts[1])
    if layer_norm:
        made = own.append("lstm_normalised", *seen, *weights, epsilon=epsilon)
    else:
        form = "lstm_coupled" if coupled else "lstm" if projection is None else "lstm_projected"
        made = own.append(form, *seen, *weights, peephole=peephole or "none")
    c, h = map(own.name, ("cell", "hidden"), pasts, made, pair)
    return c, h


def gru(
    bp: BPTT,
    x: Operand,
    width: int,
    *,
    reset: Literal["after", "before"] = "after",
    layer_index: int | None = None,
    initializer: Initializer | None = None,
    initial_state: Start = None,
    zoneout: float = 0.0,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
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
        initial_state: draws the starting state, or ``"learned"``.
        zoneout: see above.
        dropout: see above.
        recurrent_dropout: see above.

    Returns:
        h: ``(width, batch)``. Weights ``gru_layer_n/W_xr``, ``W_hr``, ``b_r``, and so for z and n,
        with ``reset="after"`` ``b_hn`` too; state ``hidden-n``.

    Raises:
        UsageError: another reset.
    """
    _require(_RESETS, reset, "reset")
    own = _Recurrent(bp, "gru", x, width, layer_index, initializer, initial_state)
    own.drop(dropout, recurrent_dropout)
    with own.scope():
        weights = [own.weight(f"W_x{gate}", own.features, glorot_uniform) for gate in "rzn"]
        weights += [own.weight(f"W_h{gate}", width, orthogonal) for gate in "rzn"]
        weights += [own.weight(f"b_{gate}", 1, zeros) for gate in "rzn"]
        if reset == "after":
            weights.append(own.weight("b_hn", 1, zeros))
        past = own.past("hidden", width)
    (new,) = own.append("gru", past, own.seen(past), *weights, reset=reset)
    return own.name("hidden", past, new, zoneout)


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


class _Recurrent:
    """What all recurrent layers share: their number and names, their states, and what is dropped.

    Attributes:
        features: of x.
    """

    def __init__(
        self,
        bp: BPTT,
        kind: str,
        x: Operand,
        width: int,
        layer_index: int | None,
        initializer: Initializer | None,
        initial_state: Start,
    ) -> None:
        self.trace = _trace(bp)
        self.x = self.trace.frame_value(x)
        self.features, self.batch = self.x.shape
        self.index = self.trace.layer(layer_index)
        self._bp, self._kind, self._width = bp, kind, width
        self._initializer, self._initial_state = initializer, initial_state
        self._recurrent_dropout = 0.0

    def scope(self) -> AbstractContextManager[None]:
        """That of the weights."""
        return self._bp.variable_scope(f"{self._kind}_layer_{self.index}")

    def weight(self, name: str, columns: int, default: Initializer) -> Symbol:
        """A weight of `width` rows."""
        shape = self._width, columns
        return self._bp.get_variable(name, shape, _or(self._initializer, default))

    def drop(self, dropout: float, recurrent_dropout: float) -> None:
        """Drop entries of x, and later of the state, for a whole sequence."""
        dropout = _probability(dropout, "dropout")
        self._recurrent_dropout = _probability(recurrent_dropout, "recurrent_dropout")
        self.x = self._dropped(self.x, "input", dropout)

    def past(self, state: str, features: int) -> Symbol:
        """The state a frame ago."""
        name, given = f"{state}-{self.index}", self._initial_state
        if isinstance(given, str) and given == "learned":
            given = self._bp.get_variable(f"{state}_start", (features, 1), zeros)
        return self.trace.past(name, self.trace.start(name, features, given), self.batch)

    def seen(self, past: Symbol) -> Symbol:
        """What the weights see of a state."""
        return self._dropped(past, "hidden", self._recurrent_dropout)

    def append(self, cell: str, *inputs: Symbol, **attributes: Any) -> list[Symbol]:
        """The cell on x, states and weights."""
        return self.trace.append(cell, self.x, *inputs, **attributes)

    def name(self, state: str, past: Symbol, new: Symbol, zoneout: float) -> Symbol:
        """Declare the state of this frame, some of it being that of the frame before."""
        p = _probability(zoneout, "zoneout")
        if p:
            stays: Symbol | float = less(self._uniform(new), p) if self._random else p
            new = stays * past + (1.0 - stays) * new
        return self._bp.name_variable(f"{state}-{self.index}", new)

    def _dropped(self, v: Symbol, what: str, p: float) -> Symbol:
        if not p or not self._random:
            return v
        name = f"{what}-mask-{self.index}"  # below zero where it is to be drawn
        past = self.trace.past(name, np.full((v.shape[0], 1), -1.0), v.shape[1])
        drawn = less(self._uniform(v), 1.0 - p) * (1.0 / (1.0 - p))
        mask = self.trace.name(name, maximum(past, less(past, 0.0) * drawn))
        return v * stop_gradient(mask)

    def _uniform(self, like: Symbol) -> Symbol:
        return self._bp.random_uniform(like.shape)

    @property
    def _random(self) -> bool:
        return self.trace.depth == self._bp.DEEP and not self.trace.quiet


def _trace(bp: BPTT) -> Trace:
    """The open trace of the net that a layer was given."""
    trace = getattr(bp, "trace", None)
    if not isinstance(trace, Trace):
        raise UsageError(f"a layer's first argument is the BPTT it belongs to, got {shown(bp)}")
    return trace


def _probability(p: float, what: str) -> float:
    p = real(p, what)
    if not 0 <= p < 1:
        raise UsageError(f"{what} is a probability in [0, 1), got {p}")
    return p


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
