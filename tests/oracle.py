"""Truncated backpropagation through time in plain numpy, written for reading.

`bptt` traces a frame function once, schedules it and runs it in ranges of frames.  Here nothing is
traced and nothing is scheduled: `unroll` *calls the frame function once for every time step*, past
values are what the previous call named, every operation notes on a tape how its gradient goes back,
and the backward sweep reads the tape from its end.  The two share no code; what they agree on is
backpropagation through time.

A frame function for both takes the namespace of functions as its third argument::

    def frame(bp, depth, f):                # f is the package `bptt`, or this module
        x = bp.placeholder((1, 1))
        h = bp.get_past_variable("h", np.zeros((3, 1)))
        h = bp.name_variable("h", f.tanh(bp.get_variable("W", (3, 1)) @ x + 0.5 * h))
        return x, h

    def loss(f, x, h):                      # of what the frame returned, over all frames
        return f.reduce_mean(f.square(h - x))

    window = oracle.unroll(frame, loss, weights={"W": ...}, state={"h": ...}, data=[x])

Every array is float64 and (features, batch); sequences are (time, features, batch).
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Pullback = Callable[[Array], Array]  # gradient of a result -> gradient of one of its operands


# The tape ------------------------------------------------------------------------------------


@dataclass
class Tape:
    """All values of one window, each after those it was computed from."""

    frames: int
    valid: Array  # (time, lanes): what is there; sums over lanes or frames leave the rest out
    counted: Array  # (time, lanes): those of them that losses are made of
    now: int = 0  # the frame that is computed
    values: list[Value] = field(default_factory=list)
    # With a generator here every value is off by a random `noise` of itself, as rounding would
    # have it: how far results move then says how well conditioned they are.
    rounding: np.random.Generator | None = None
    noise: float = 0.0


class Arithmetic:
    """The operators, for `Value` and `Frames` alike."""

    __array_ufunc__ = None  # so that `array + value` asks the value

    def __add__(self, other):
        return add(self, other)

    def __radd__(self, other):
        return add(other, self)

    def __sub__(self, other):
        return subtract(self, other)

    def __rsub__(self, other):
        return subtract(other, self)

    def __mul__(self, other):
        return multiply(self, other)

    def __rmul__(self, other):
        return multiply(other, self)

    def __truediv__(self, other):
        return divide(self, other)

    def __rtruediv__(self, other):
        return divide(other, self)

    def __matmul__(self, other):
        return matmul(self, other)

    def __rmatmul__(self, other):
        return matmul(other, self)

    def __neg__(self):
        return negative(self)

    def __getitem__(self, features):
        return slice_features(self, features)


class Value(Arithmetic):
    """One matrix (features, batch) at one time step, and how its gradient goes back.

    extent: "constant" if it is the same at every frame (made of weights and constants only),
    "frame" if it belongs to one frame, "window" if it was reduced over all of them.
    """

    def __init__(
        self, tape: Tape, array, extent: str, edges: Sequence[tuple[Value, Pullback]] = ()
    ):
        self.array: Array = np.array(array, dtype=np.float64)
        if tape.rounding is not None:
            self.array *= 1 + tape.noise * tape.rounding.standard_normal(self.array.shape)
        self.tape = tape
        self.extent = extent
        self.edges = edges
        self.gradient = np.zeros_like(self.array)
        tape.values.append(self)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.array.shape
        return rows, columns


def record(array, *edges: tuple[Value, Pullback]) -> Value:
    """The result of an operation: its value, and for each operand the way back."""
    extents = {operand.extent for operand, _ in edges} - {"constant"}
    if len(extents) > 1:
        raise TypeError("a window value has no frames to be combined with")
    return Value(edges[0][0].tape, array, extents.pop() if extents else "constant", edges)


def backward(loss: Value) -> None:
    """Adds dLoss/dValue to the gradient of every value on the tape."""
    loss.gradient += 1.0
    for value in reversed(loss.tape.values):
        for operand, pullback in value.edges:
            operand.gradient += summed_to(operand.shape, pullback(value.gradient))


def summed_to(shape: tuple[int, int], gradient: Array) -> Array:
    """The way back through broadcasting: what was repeated along an axis is summed along it."""
    for axis in (0, 1):
        if shape[axis] == 1:
            gradient = gradient.sum(axis=axis, keepdims=True)
    return gradient


class Frames(Arithmetic):
    """What the frame function returned, outside of it: one value for every frame."""

    def __init__(self, values: list[Value]):
        self.values = values


def framewise(operation):
    """An operation on `Frames` is that operation at every frame."""

    def apply(*operands, **attributes):
        sequences = [operand for operand in operands if isinstance(operand, Frames)]
        if not sequences:
            return operation(*operands, **attributes)
        results = []
        for t in range(len(sequences[0].values)):
            sequences[0].values[t].tape.now = t
            results.append(
                operation(
                    *(o.values[t] if isinstance(o, Frames) else o for o in operands), **attributes
                )
            )
        return Frames(results)

    apply.__doc__ = operation.__doc__
    return apply


# The operations: value, and the way back for each operand -------------------------------------


def as_values(*operands) -> list[Value]:
    """Numbers and arrays beside a value become constants on its tape."""
    tape = next(operand.tape for operand in operands if isinstance(operand, Value))
    return [
        operand if isinstance(operand, Value) else Value(tape, matrix(operand), "constant")
        for operand in operands
    ]


def matrix(array) -> Array:
    array = np.asarray(array, dtype=np.float64)
    return array.reshape(1, 1) if array.ndim == 0 else array


@framewise
def add(a, b):
    a, b = as_values(a, b)
    return record(a.array + b.array, (a, lambda g: g), (b, lambda g: g))


@framewise
def subtract(a, b):
    a, b = as_values(a, b)
    return record(a.array - b.array, (a, lambda g: g), (b, lambda g: -g))


@framewise
def multiply(a, b):
    a, b = as_values(a, b)
    return record(a.array * b.array, (a, lambda g: g * b.array), (b, lambda g: g * a.array))


@framewise
def divide(a, b):
    a, b = as_values(a, b)
    y = a.array / b.array
    return record(y, (a, lambda g: g / b.array), (b, lambda g: -g * y / b.array))


@framewise
def maximum(a, b):
    a, b = as_values(a, b)
    first = a.array >= b.array  # a tie goes to the first operand
    return record(
        np.where(first, a.array, b.array), (a, lambda g: g * first), (b, lambda g: g * ~first)
    )


@framewise
def minimum(a, b):
    a, b = as_values(a, b)
    first = a.array <= b.array
    return record(
        np.where(first, a.array, b.array), (a, lambda g: g * first), (b, lambda g: g * ~first)
    )


@framewise
def less(a, b):
    a, b = as_values(a, b)
    return record(np.where(a.array < b.array, 1.0, 0.0), (a, lambda g: 0 * g), (b, lambda g: 0 * g))


@framewise
def matmul(a, b):
    a, b = as_values(a, b)
    return record(a.array @ b.array, (a, lambda g: g @ b.array.T), (b, lambda g: a.array.T @ g))


@framewise
def negative(x):
    return record(-x.array, (x, lambda g: -g))


@framewise
def tanh(x):
    y = np.tanh(x.array)
    return record(y, (x, lambda g: g * (1 - y * y)))


@framewise
def sigmoid(x):
    y = 1 / (1 + np.exp(-x.array))
    return record(y, (x, lambda g: g * y * (1 - y)))


@framewise
def relu(x):
    return record(np.maximum(x.array, 0), (x, lambda g: g * (x.array > 0)))


@framewise
def exp(x):
    y = np.exp(x.array)
    return record(y, (x, lambda g: g * y))


@framewise
def log(x):
    return record(np.log(x.array), (x, lambda g: g / x.array))


@framewise
def sqrt(x):
    y = np.sqrt(x.array)
    return record(y, (x, lambda g: g / (2 * y)))


@framewise
def square(x):
    return record(x.array**2, (x, lambda g: g * 2 * x.array))


@framewise
def abs(x):
    return record(np.abs(x.array), (x, lambda g: g * np.sign(x.array)))


@framewise
def stop_gradient(x):
    return record(x.array, (x, np.zeros_like))


@framewise
def softmax(x):
    y = np.exp(x.array - x.array.max(axis=0))
    y = y / y.sum(axis=0)
    return record(y, (x, lambda g: y * (g - (g * y).sum(axis=0))))


@framewise
def log_softmax(x):
    y = x.array - x.array.max(axis=0)
    y = y - np.log(np.exp(y).sum(axis=0))
    return record(y, (x, lambda g: g - np.exp(y) * g.sum(axis=0)))


class losses:
    """Of every frame and entry, or of every frame and lane."""

    @staticmethod
    def huber(output, target, delta, *, reduction):
        error = subtract(output, target)
        size = np.abs(error.array)
        y = np.where(size > delta, delta * (size - delta / 2), size**2 / 2)
        return record(y, (error, lambda g: g * np.clip(error.array, -delta, delta)))

    @staticmethod
    def binary_cross_entropy_with_logits(logits, target, *, reduction):
        p = sigmoid(logits)
        return negative(add(target * log(p), (1 - target) * log(1 - p)))

    @staticmethod
    def softmax_cross_entropy(logits, target, *, reduction):
        if not isinstance(target, Value):
            target = np.eye(logits.shape[0])[:, target[0]]  # symbols
        return negative(reduce_sum(log_softmax(logits) * target, axis=0))


@framewise
def transpose(x):
    return record(x.array.T, (x, lambda g: g.T))


@framewise
def slice_features(x, features):
    def back(g):
        whole = np.zeros_like(x.array)
        whole[features] = g
        return whole

    return record(x.array[features], (x, back))


def concat(values, axis=0):
    return concat_of(*values, axis=axis)


@framewise
def concat_of(*values, axis):
    values = as_values(*values)
    ends = np.cumsum([value.shape[axis] for value in values])

    def part(end, length):
        return lambda g: np.take(g, range(end - length, end), axis=axis)

    return record(
        np.concatenate([value.array for value in values], axis),
        *((v, part(end, v.shape[axis])) for v, end in zip(values, ends, strict=True)),
    )


def reduce_sum(v, axis=None):
    """With an axis per frame; without one over everything there is: all frames, or, for a window
    value, its features and batch."""
    return (
        reduce_frame(v, axis=axis, mean=False) if axis is not None else reduce_window(v, mean=False)
    )


def reduce_mean(v, axis=None):
    return (
        reduce_frame(v, axis=axis, mean=True) if axis is not None else reduce_window(v, mean=True)
    )


@framewise
def reduce_frame(x, axis, mean):
    there = np.ones(x.shape[1], dtype=bool)
    lanes = x.tape.valid[x.tape.now]
    if axis != 0 and x.extent == "frame" and x.shape[1] == len(lanes) > 1:
        there = lanes
    total = np.where(there, x.array, 0.0).sum(axis=axis, keepdims=True)
    features, lanes = (1 if axis == 1 else x.shape[0]), (1 if axis == 0 else there.sum())
    share = 1.0 / max(features * lanes, 1) if mean else 1.0
    return record(
        share * total, (x, lambda g: np.where(there, share * g * np.ones_like(x.array), 0.0))
    )


def reduce_window(v, mean):
    if isinstance(v, Value) and v.extent == "frame":
        raise TypeError("a window value needs all frames: make it in the loss, not in the frame")
    if isinstance(v, Frames):
        values = v.values
    elif v.extent == "constant":
        values = [v] * v.tape.frames  # it stands for its value at every frame
    else:
        values = [v]
    tape = values[0].tape
    rows = [columns(value, tape.counted[t]) for t, value in enumerate(values)]
    if isinstance(v, Value) and v.extent == "window":
        rows = [np.ones(v.shape[1], dtype=bool)]
    if isinstance(v, Value) and v.extent == "constant":  # it has no lanes of its own
        rows = [np.full(v.shape[1], row.any()) for row in tape.counted]
    terms = builtins.sum(row.sum() for row in rows) * values[0].shape[0]
    share = (1.0 / terms if terms else 0.0) if mean else 1.0
    total = builtins.sum(
        np.where(row, x.array, 0.0).sum() for x, row in zip(values, rows, strict=True)
    )
    reduced = record(
        [[share * total]],
        *(
            (x, lambda g, x=x, row=row: np.where(row, share * g * np.ones_like(x.array), 0.0))
            for x, row in zip(values, rows, strict=True)
        ),
    )
    reduced.extent = "window"
    return reduced


def columns(value: Value, lanes: Array) -> Array:
    """Which columns of a frame value count: its lanes', or those of a value that all share."""
    if value.shape[1] == len(lanes):
        return lanes
    assert value.shape[1] == 1 or lanes.all() == lanes.any(), "whose lanes are these?"
    return np.full(value.shape[1], lanes.any())


@framewise
def choose(a, b, columns):
    """The columns of `a` where the row is set, and of `b` where it is not."""
    result = record(
        np.where(columns, a.array, b.array),
        (a, lambda g: np.where(columns, g, 0.0)),
        (b, lambda g: np.where(columns, 0.0, g)),
    )
    result.extent = "frame"
    return result


def normal(v, epsilon):
    """Layer normalisation without gain and bias."""
    v = v - reduce_mean(v, axis=0)
    return v / sqrt(reduce_mean(square(v), axis=0) + epsilon)


def past_of_layer(bp, name, features, start):
    """A layer's state a frame ago; its start is zero, or a weight of the scope."""
    begin = np.zeros((features, 1))
    if start == "learned":
        begin = bp.get_variable(f"{name.split('-')[0]}_start", (features, 1))
    return bp.get_past_variable(name, begin)


def dropped(bp, v, name, p):
    """v by a mask that is carried from frame to frame, and drawn where it is negative."""
    if not p:
        return v
    past = bp.get_past_variable(name, np.full((v.shape[0], 1), -1.0)).array
    drawn = np.where(bp.random_uniform(v.shape).array < 1 - p, 1 / (1 - p), 0.0)
    mask = np.where(past < 0, drawn, past)
    bp.name_variable(name, bp.constant(mask))
    return v * mask


def zoned(bp, past, new, p):
    """The past where a uniform number is below p, else the new."""
    if not p:
        return new
    stays = np.where(bp.random_uniform(new.shape).array < p, 1.0, 0.0)
    return past * stays + new * (1.0 - stays)


class layers:
    """The cells as their equations; how weights are drawn is not asked."""

    @staticmethod
    def rnn(
        bp,
        x,
        width,
        *,
        output=False,
        layer_index=None,
        initial_state=None,
        zoneout=0,
        dropout=0,
        recurrent_dropout=0,
    ):
        """h = tanh(W_aa h' + W_ax x + b_a); with output=True o = tanh(W_ya h + b_y)."""
        index = bp.next_layer(layer_index)
        x = dropped(bp, x, f"input-mask-{index}", dropout)
        with bp.variable_scope(f"rnn_layer_{index}"):
            past = past_of_layer(bp, f"hidden-{index}", width, initial_state)
            seen = dropped(bp, past, f"hidden-mask-{index}", recurrent_dropout)
            W_ax = bp.get_variable("W_ax", (width, x.shape[0]))
            W_aa = bp.get_variable("W_aa", (width, width))
            b_a = bp.get_variable("b_a", (width, 1))
            h = zoned(bp, past, tanh(W_aa @ seen + W_ax @ x + b_a), zoneout)
            bp.name_variable(f"hidden-{index}", h)
            if not output:
                return h
            W_ya = bp.get_variable("W_ya", (width, width))
            b_y = bp.get_variable("b_y", (width, 1))
            return tanh(W_ya @ h + b_y)

    @staticmethod
    def gru(
        bp,
        x,
        width,
        *,
        reset="after",
        layer_index=None,
        initial_state=None,
        zoneout=0,
        dropout=0,
        recurrent_dropout=0,
    ):
        """Cho et al. 2014; r meets the product with the state, or the state before it."""
        index = bp.next_layer(layer_index)
        x = dropped(bp, x, f"input-mask-{index}", dropout)
        with bp.variable_scope(f"gru_layer_{index}"):
            past = past_of_layer(bp, f"hidden-{index}", width, initial_state)
            seen = dropped(bp, past, f"hidden-mask-{index}", recurrent_dropout)

            def from_x(gate):
                W_x = bp.get_variable(f"W_x{gate}", (width, x.shape[0]))
                return W_x @ x + bp.get_variable(f"b_{gate}", (width, 1))

            def from_state(gate, state):
                return bp.get_variable(f"W_h{gate}", (width, width)) @ state

            r, z = (sigmoid(from_x(gate) + from_state(gate, seen)) for gate in "rz")
            if reset == "after":
                met = r * (from_state("n", seen) + bp.get_variable("b_hn", (width, 1)))
            else:
                met = from_state("n", r * seen)
            n = tanh(from_x("n") + met)
            h = zoned(bp, past, (1.0 - z) * n + z * past, zoneout)
        return bp.name_variable(f"hidden-{index}", h)

    @staticmethod
    def lstm(
        bp,
        x,
        width,
        *,
        peephole=None,
        coupled=False,
        projection=None,
        layer_norm=False,
        epsilon=1e-5,
        layer_index=None,
        initial_state=None,
        zoneout=(0, 0),
        dropout=0,
        recurrent_dropout=0,
    ):
        """Graves 2013, equations 7 to 11, or Ba, Kiros & Hinton 2016, equations 20 to 22.

        h', c' are the past values, o looks at the new c.
        """
        index = bp.next_layer(layer_index)
        outputs = width if projection is None else projection
        x = dropped(bp, x, f"input-mask-{index}", dropout)
        with bp.variable_scope(f"lstm_layer_{index}"):
            c_past = past_of_layer(bp, f"cell-{index}", width, initial_state)
            h_past = past_of_layer(bp, f"hidden-{index}", outputs, initial_state)
            seen = dropped(bp, h_past, f"hidden-mask-{index}", recurrent_dropout)
            gates = "ico" if coupled else "ifco"
            sums = {gate: bp.get_variable(f"b_{gate}", (width, 1)) for gate in gates}
            for kind, v in (("x", x), ("h", seen)):
                shape = (width, v.shape[0])
                products = [bp.get_variable(f"W_{kind}{gate}", shape) @ v for gate in gates]
                if layer_norm:
                    whole = normal(concat(products), epsilon)
                    for k, gate in enumerate(gates):
                        gain = bp.get_variable(f"gain_{kind}{gate}", (width, 1))
                        products[k] = gain * whole[k * width : (k + 1) * width]
                for gate, product in zip(gates, products, strict=True):
                    sums[gate] = product + sums[gate]

            def peep(gate, c):
                if peephole == "full":
                    return bp.get_variable(f"W_c{gate}", (width, width)) @ c
                if peephole == "diagonal":
                    return bp.get_variable(f"W_c{gate}", (width, 1)) * c
                return 0.0

            i = sigmoid(sums["i"] + peep("i", c_past))
            f = 1.0 - i if coupled else sigmoid(sums["f"] + peep("f", c_past))
            c = f * c_past + i * tanh(sums["c"])
            o = sigmoid(sums["o"] + peep("o", c))
            if layer_norm:
                gain, bias = (bp.get_variable(f"{n}_cell", (width, 1)) for n in ("gain", "bias"))
                h = o * tanh(gain * normal(c, epsilon) + bias)
            else:
                h = o * tanh(c)
            if projection is not None:
                h = bp.get_variable("W_rm", (projection, width)) @ h
            c, h = zoned(bp, c_past, c, zoneout[0]), zoned(bp, h_past, h, zoneout[1])
            bp.name_variable(f"cell-{index}", c)
            return c, bp.name_variable(f"hidden-{index}", h)

    @staticmethod
    def embedding(bp, symbols, count, width, *, name):
        """The columns of W that the symbols point to."""
        with bp.variable_scope(name):
            W = bp.get_variable("W", (width, count))
        return matmul(W, np.eye(count)[:, symbols[0]])

    @staticmethod
    def dense(bp, x, width, *, activation=None, name=None, initializer=None):
        """activation(W x + b)"""
        with bp.variable_scope(bp.next_dense() if name is None else name):
            W = bp.get_variable("W", (width, x.shape[0]))
            y = W @ x + bp.get_variable("b", (width, 1))
        return y if activation is None else activation(y)


# The window ----------------------------------------------------------------------------------


class Frame:
    """What a frame function sees as `bp` at one time step."""

    DEEP, SHALLOW = "deep", "shallow"

    def __init__(self, tape, weights, past, data, noise, resets):
        self.tape = tape
        self.resets = resets  # (lanes,): where the past is the starting value
        self.patched: dict[str, Value] = {}  # the past values as they are seen
        self.weights: dict[str, Value] = weights
        self.past: dict[str, Value] = past
        self.named: dict[str, Value] = {}
        self.placeholders: list[Value] = []
        self.data: Iterator[Array] = iter(data)
        self.noise: Iterator[Array] = iter(noise)
        self.scopes: list[str] = []
        self.layers: list[int] = []
        self.dense_calls = 0

    def placeholder(self, shape, name=None):
        self.placeholders.append(self.fed(next(self.data), shape))
        return self.placeholders[-1]

    def constant(self, array):
        return Value(self.tape, matrix(array), "constant")

    def random_normal(self, shape, mean=0.0, stddev=1.0):
        return self.fed(next(self.noise), shape)  # what was drawn is given, not drawn again

    def random_uniform(self, shape, low=0.0, high=1.0):
        return self.fed(next(self.noise), shape)

    def fed(self, array, shape):
        assert array.shape == tuple(shape), f"{array.shape} was given for {shape}"
        return Value(self.tape, array, "frame")

    def get_variable(self, name, shape, initializer=None):
        weight = self.weights["/".join([*self.scopes, name])]
        assert weight.shape == tuple(shape), f"{name} is {weight.shape}, not {shape}"
        return weight

    @contextmanager
    def variable_scope(self, name):
        self.scopes += [name] if name else []
        yield
        self.scopes = self.scopes[:-1] if name else self.scopes

    def get_past_variable(self, name, starting_value):
        if name not in self.patched:
            past = self.past[name]
            resets = self.resets if past.shape[1] == len(self.resets) else self.resets.all()
            start = starting_value
            if not isinstance(start, Value):
                start = self.constant(start)
            self.patched[name] = choose(start, past, resets) if np.any(resets) else past
        return self.patched[name]

    def name_variable(self, name, v):
        assert name not in self.named, f"{name} is named twice"
        # (features, 1) named for a state of many lanes is that value in every lane
        self.named[name] = record(np.broadcast_to(v.array, self.past[name].shape), (v, lambda g: g))
        self.named[name].extent = "frame"
        return v

    def next_layer(self, index):
        self.layers.append(max(self.layers, default=-1) + 1 if index is None else index)
        return self.layers[-1]

    def next_dense(self):
        self.dense_calls += 1
        return f"dense_{self.dense_calls - 1}"


@dataclass
class Window:
    """One window of truncated backpropagation through time; without a loss, no gradients."""

    outputs: list[Array]  # (time, features, batch), each value that the frame returned
    state: dict[str, Array]  # every recurrence after the last frame
    loss: float | None = None
    gradients: dict[str, Array] = field(default_factory=dict)  # of every weight
    placeholder_gradients: list[Array] = field(default_factory=list)  # (time, features, batch)
    state_gradients: dict[str, Array] = field(default_factory=dict)  # of the incoming state


def unroll(
    frame: Callable[..., Sequence[Value]],
    loss: Callable[..., Value] | None = None,
    *,
    weights: dict[str, Array],
    state: dict[str, Array],
    data: Sequence[Array],
    noise: Sequence[Array] = (),
    frames: int | None = None,
    depth: str = "deep",
    rounding: np.random.Generator | None = None,
    rounding_noise: float = 0.0,
    resets: Array | None = None,
    masks: Array | None = None,
    counted: int = 0,
) -> Window:
    """Runs `frame(bp, depth, f)` for all frames, then `loss(f, *returned)` backward through them.

    weights, state: name -> array; the state comes in, nothing is changed.
    data, noise: for each placeholder and each random call, in order, (time, features, batch).
    frames: only needed where there are no data to tell.
    resets: (time, lanes), True where the past values are the starting values.
    masks: (time, lanes), False where the state stands still and nothing is part of a mean or sum.
    counted: from this frame on the window counts in its loss.
    """
    functions = sys.modules[__name__]
    T = frames if frames is not None else len([*data, *noise][0])
    lanes = max([x.shape[2] for x in data] + [x.shape[1] for x in state.values()], default=1)
    new = np.zeros((T, lanes), dtype=bool) if resets is None else resets
    valid = np.ones((T, lanes), dtype=bool) if masks is None else masks
    counts = valid & (np.arange(T) >= counted)[:, None]
    tape = Tape(T, valid, counts, rounding=rounding, noise=rounding_noise)
    leaves = {name: Value(tape, array, "constant") for name, array in weights.items()}
    incoming = {name: Value(tape, array, "frame") for name, array in state.items()}

    past, calls, returned = incoming, [], []
    for t in range(T):
        tape.now = t
        bp = Frame(tape, leaves, past, [x[t] for x in data], [x[t] for x in noise], new[t])
        returned.append(frame(bp, depth, functions))
        calls.append(bp)
        past = {  # the value at t is the past value at t+1
            name: bp.named[name]
            if valid[t].all()
            else choose(bp.named[name], bp.patched[name], columns(before, valid[t]))
            for name, before in past.items()
        }

    symbols = list(zip(*returned, strict=True))
    window = Window(
        outputs=[np.stack([value.array for value in values]) for values in symbols],
        state={name: value.array for name, value in past.items()},
    )
    if loss is None:
        return window

    total = loss(
        functions,
        *(
            values[0] if values[0].extent == "constant" else Frames(list(values))
            for values in symbols
        ),
    )
    backward(total)
    window.loss = total.array.item()
    window.gradients = {name: leaf.gradient for name, leaf in leaves.items()}
    window.state_gradients = {name: value.gradient for name, value in incoming.items()}
    window.placeholder_gradients = [
        np.stack([x.gradient for x in values])
        for values in zip(*(bp.placeholders for bp in calls), strict=True)
    ]
    return window
