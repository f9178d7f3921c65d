"""Frame functions that several tests share.

The origin's two nets, and the recurrent cells written from primitive operations as a user would
write them: under the weight and state names of `bptt.layers`, so that one set of weights fits both.
The LSTM's equations are 7 to 11 of A. Graves, "Generating Sequences With Recurrent Neural Networks"
(2013); a prime marks the value of the frame before.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import numpy as np

import bptt
from bptt.numerics import Numerics

Frame = Callable[[bptt.BPTT, str], Any]
Cell = Callable[..., Any]
Layer = Callable[..., tuple[Any, ...]]

GATES = "ifco"
PEEPHOLES = (None, "full", "diagonal")


def dropped(bp: bptt.BPTT, v: Any, name: str, p: float) -> Any:
    """v, each entry with probability p zero, else divided by 1 - p: in the deep mode, the same ones
    at all frames of a sequence, drawn at its first, where the past mask is -1."""
    if not p or bp.trace.depth == bp.SHALLOW:
        return v
    past = bp.get_past_variable(name, np.full((v.shape[0], 1), -1.0))
    begins = bptt.less(past, 0.0)
    drawn = bptt.less(bp.random_uniform(v.shape), 1.0 - p) / (1.0 - p)
    mask = bp.name_variable(name, begins * drawn + bptt.relu(past))
    return v * bptt.stop_gradient(mask)


def zoned(bp: bptt.BPTT, past: Any, new: Any, p: float) -> Any:
    """The past with probability p, entry by entry, else the new; shallow, the mean of both."""
    if not p:
        return new
    shallow = bp.trace.depth == bp.SHALLOW
    share = p if shallow else bptt.less(bp.random_uniform(new.shape), p)
    return new + share * (past - new)


def rnn_cell(
    bp: bptt.BPTT,
    x: Any,
    width: int,
    *,
    activation: str = "tanh",
    output: bool = False,
    zoneout: float = 0.0,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    layer_index: int = 0,
    initializer: Any = None,
) -> Any:
    """`bptt.layers.rnn` from primitive operations: x (features, batch) -> h or o (width, batch)."""
    features = x.shape[0]
    x = dropped(bp, x, f"input-mask-{layer_index}", dropout)
    h_past = bp.get_past_variable(f"hidden-{layer_index}", np.zeros((width, 1)))
    seen = dropped(bp, h_past, f"hidden-mask-{layer_index}", recurrent_dropout)
    with bp.variable_scope(f"rnn_layer_{layer_index}"):
        w_ax = bp.get_variable("W_ax", (width, features), initializer)
        w_aa = bp.get_variable("W_aa", (width, width), initializer)
        b_a = bp.get_variable("b_a", (width, 1), initializer)
        f = {"tanh": bptt.tanh, "relu": bptt.relu}[activation]
        h = zoned(bp, h_past, f(w_aa @ seen + w_ax @ x + b_a), zoneout)
        bp.name_variable(f"hidden-{layer_index}", h)
        if not output:
            return h
        w_ya = bp.get_variable("W_ya", (width, width), initializer)
        b_y = bp.get_variable("b_y", (width, 1), initializer)
        return bptt.tanh(w_ya @ h + b_y)


def gru_cell(
    bp: bptt.BPTT,
    x: Any,
    width: int,
    *,
    reset: str = "after",
    zoneout: float = 0.0,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    layer_index: int = 0,
    initializer: Any = None,
) -> Any:
    """`bptt.layers.gru` from primitive operations: x (features, batch) -> h (width, batch)."""
    x = dropped(bp, x, f"input-mask-{layer_index}", dropout)
    h_past = bp.get_past_variable(f"hidden-{layer_index}", np.zeros((width, 1)))
    seen = dropped(bp, h_past, f"hidden-mask-{layer_index}", recurrent_dropout)

    def weight(name: str, columns: int) -> Any:
        return bp.get_variable(name, (width, columns), initializer)

    with bp.variable_scope(f"gru_layer_{layer_index}"):
        W_x = [weight(f"W_x{gate}", x.shape[0]) for gate in "rzn"]
        W_h = [weight(f"W_h{gate}", width) for gate in "rzn"]
        b = [weight(f"b_{gate}", 1) for gate in "rzn"]
        r, z = (bptt.sigmoid(W_x[k] @ x + W_h[k] @ seen + b[k]) for k in (0, 1))
        if reset == "after":
            candidate = r * (W_h[2] @ seen + weight("b_hn", 1))
        else:
            candidate = W_h[2] @ (r * seen)
        n = bptt.tanh(W_x[2] @ x + b[2] + candidate)
    h = zoned(bp, h_past, (1 - z) * n + z * h_past, zoneout)
    return bp.name_variable(f"hidden-{layer_index}", h)


def lstm_cell(
    bp: bptt.BPTT,
    x: Any,
    width: int,
    *,
    peephole: str | None = None,
    coupled: bool = False,
    projection: int | None = None,
    layer_norm: bool = False,
    epsilon: float = 1e-5,
    zoneout: tuple[float, float] = (0.0, 0.0),
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    layer_index: int = 0,
    initializer: Any = None,
) -> tuple[Any, Any]:
    """`bptt.layers.lstm` from primitive operations: x (features, batch) -> c, h (width, batch).

    A full peephole is a matrix, W c; a diagonal one, as in Graves's paper, is a column that scales
    c unit by unit. The input and the forget gate look at c', the output gate at the new c. Coupled,
    the forget gate is one minus the input gate; with a projection h is (projection, batch). With
    layer normalisation (Ba, Kiros & Hinton 2016) the products of all four gates are normalised as
    one column, W_x x and W_h h' each by itself, and so is the cell that the output sees.
    """
    outputs = width if projection is None else projection
    features = x.shape[0]
    x = dropped(bp, x, f"input-mask-{layer_index}", dropout)
    c_past = bp.get_past_variable(f"cell-{layer_index}", np.zeros((width, 1)))
    h_past = bp.get_past_variable(f"hidden-{layer_index}", np.zeros((outputs, 1)))
    seen = dropped(bp, h_past, f"hidden-mask-{layer_index}", recurrent_dropout)

    def normal(v: Any) -> Any:
        v = v - bptt.reduce_mean(v, axis=0)
        return v / bptt.sqrt(bptt.reduce_mean(bptt.square(v), axis=0) + epsilon)

    def weight(name: str, columns: int) -> Any:
        return bp.get_variable(name, (width, columns), initializer)

    with bp.variable_scope(f"lstm_layer_{layer_index}"):
        gates = GATES.replace("f", "") if coupled else GATES
        from_x = {gate: weight(f"W_x{gate}", features) @ x for gate in gates}
        from_h = {gate: weight(f"W_h{gate}", outputs) @ seen for gate in gates}
        if layer_norm:
            for kind, products in (("x", from_x), ("h", from_h)):
                whole = normal(bptt.concat(list(products.values())))
                for k, gate in enumerate(gates):
                    part = whole[k * width : (k + 1) * width]
                    products[gate] = weight(f"gain_{kind}{gate}", 1) * part
        projected = {gate: from_x[gate] + from_h[gate] + weight(f"b_{gate}", 1) for gate in gates}

        def peep(gate: str, c: Any) -> Any:
            if peephole == "full":
                return projected[gate] + weight(f"W_c{gate}", width) @ c
            if peephole == "diagonal":
                return projected[gate] + weight(f"W_c{gate}", 1) * c
            return projected[gate]

        i = bptt.sigmoid(peep("i", c_past))
        f = 1 - i if coupled else bptt.sigmoid(peep("f", c_past))
        c = f * c_past + i * bptt.tanh(projected["c"])
        o = bptt.sigmoid(peep("o", c))
        if layer_norm:
            h = o * bptt.tanh(weight("gain_cell", 1) * normal(c) + weight("bias_cell", 1))
        else:
            h = o * bptt.tanh(c)
        if projection is not None:
            h = bp.get_variable("W_rm", (projection, width), initializer) @ h
        c, h = zoned(bp, c_past, c, zoneout[0]), zoned(bp, h_past, h, zoneout[1])
        bp.name_variable(f"hidden-{layer_index}", h)
    return bp.name_variable(f"cell-{layer_index}", c), h


GRU: dict[str, Cell] = {"fused": bptt.layers.gru, "primitive": gru_cell}
RNN: dict[str, Cell] = {"fused": bptt.layers.rnn, "primitive": rnn_cell}
LSTM: dict[str, Cell] = {"fused": bptt.layers.lstm, "primitive": lstm_cell}

# form, bp, x, width, layer_index -> what the layer returns, the output last
CELLS: dict[str, Layer] = {
    "rnn": lambda form, bp, x, width, i: (RNN[form](bp, x, width, layer_index=i),),
    "rnn_output": lambda form, bp, x, width, i: (
        RNN[form](bp, x, width, output=True, layer_index=i),
    ),
    "rnn_relu": lambda form, bp, x, width, i: (
        RNN[form](bp, x, width, activation="relu", layer_index=i),
    ),
    "gru_after": lambda form, bp, x, width, i: (
        GRU[form](bp, x, width, reset="after", layer_index=i),
    ),
    "gru_before": lambda form, bp, x, width, i: (
        GRU[form](bp, x, width, reset="before", layer_index=i),
    ),
    "lstm": lambda form, bp, x, width, i: LSTM[form](bp, x, width, layer_index=i),
    "lstm_full": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, peephole="full", layer_index=i
    ),
    "lstm_diagonal": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, peephole="diagonal", layer_index=i
    ),
    "lstm_coupled": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, coupled=True, peephole="diagonal", layer_index=i
    ),
    "lstm_projected": lambda form, bp, x, width, i: LSTM[form](
        bp, x, 2 * width - 1, projection=width, peephole="full", layer_index=i
    ),
    "lstm_normalised": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, layer_norm=True, epsilon=1e-3, layer_index=i
    ),
}

# The same, with entries that are dropped or stay. In small nets that may be all of them.
DROPPED: dict[str, Layer] = {
    "rnn": lambda form, bp, x, width, i: (
        RNN[form](bp, x, width, zoneout=0.4, dropout=0.3, recurrent_dropout=0.2, layer_index=i),
    ),
    "gru_after": lambda form, bp, x, width, i: (
        GRU[form](bp, x, width, dropout=0.3, recurrent_dropout=0.4, layer_index=i),
    ),
    "gru_before": lambda form, bp, x, width, i: (
        GRU[form](bp, x, width, reset="before", recurrent_dropout=0.4, zoneout=0.2, layer_index=i),
    ),
    "lstm": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, zoneout=(0.5, 0.2), layer_index=i
    ),
    "lstm_full": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, peephole="full", dropout=0.2, recurrent_dropout=0.3, layer_index=i
    ),
    "lstm_projected": lambda form, bp, x, width, i: LSTM[form](
        bp, x, 2 * width, projection=width, zoneout=(0.0, 0.3), recurrent_dropout=0.3, layer_index=i
    ),
    "lstm_normalised": lambda form, bp, x, width, i: LSTM[form](
        bp, x, width, layer_norm=True, zoneout=(0.3, 0.3), recurrent_dropout=0.3, layer_index=i
    ),
}


def origin_rnn(form: str) -> Frame:
    """The notebook's RNN: three outputs, broadcast against one target."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        y = bp.placeholder((1, 1))
        return x, y, RNN[form](bp, x, 3, output=True, layer_index=0)

    return frame


def origin_dual_lstm(form: str) -> Frame:
    """The two LSTM layers with full peepholes and their sigmoid head."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        y = bp.placeholder((1, 1))
        _, h = LSTM[form](bp, x, 5, peephole="full", layer_index=0)
        _, h = LSTM[form](bp, h, 5, peephole="full", layer_index=1)
        return x, y, bptt.layers.dense(bp, h, 1, activation=bptt.sigmoid, name="")

    return frame


@contextmanager
def _made_with(name: str, **given: Any) -> Iterator[None]:
    """Nets that are made inside give their core class of this name these arguments too."""
    make = Numerics.__init__

    def changed(self: Numerics, dtype: Any) -> None:
        make(self, dtype)
        setattr(self, name, functools.partial(getattr(self, name), **given))

    with mock.patch.object(Numerics, "__init__", changed):
        yield


def as_traced() -> AbstractContextManager[None]:
    """Nets that are made inside run their operations one by one, without passes over the graph."""
    return _made_with("Program", passes=False)


@contextmanager
def memory_shared(shared: bool) -> Iterator[None]:
    """Programs of nets that are made inside share memory among what does not meet, or never do."""
    share_from = 0 if shared else 2**62
    with (
        _made_with("Program", share_from=share_from),
        _made_with("Segments", share_from=share_from),
    ):
        yield


def all_frames_kept() -> AbstractContextManager[None]:
    """Nets that are made inside go over the same segments, but keep all frames of the window."""
    return _made_with("Segments", recompute=False)


def palindrome(frames: int) -> np.ndarray:
    """The origin's sequence 0, .1, .2, .3, .4, .5, .4, .3, .2, .1, 0, …: (frames,)."""
    return (5.0 - np.abs(np.arange(frames) % 10 - 5.0)) / 10.0


def mean_square(graph: Any) -> Any:
    """The loss of a frame that returns its input, its target and its output last."""
    return bptt.reduce_mean(bptt.square(graph[-1] - graph[1]))


def draw_weights(bp: bptt.BPTT, rng: np.random.Generator, scale: float = 0.5) -> None:
    """Set every weight to normal numbers, biases too: as zeros they would hide a fault."""
    for name in sorted(bp.parameters):
        bp.parameters[name] = rng.normal(0.0, scale, bp.parameters[name].shape)


def draw_state(bp: bptt.BPTT, rng: np.random.Generator, scale: float = 0.5) -> None:
    """Set the deep state to normal numbers: from zeros the recurrent weights get no gradient."""
    for name in sorted(bp.state[bp.DEEP]):
        bp.state[bp.DEEP][name] = rng.normal(0.0, scale, bp.state[bp.DEEP][name].shape)


def gradients_of_everything(bp: bptt.BPTT, loss: Any, feed: Any) -> dict[str, np.ndarray]:
    """By name, of all weights and of all that is fed: the placeholders and the incoming state."""
    symbols = [key for key in feed if not isinstance(key, str)]  # no resets, no masks
    return dict(bp.gradients(loss, feed, wrt=[*bp.parameters, *symbols]))
