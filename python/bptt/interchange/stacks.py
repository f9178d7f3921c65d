"""Stacks of layers: what PyTorch, Keras and RTNeural can say of a net.

A format translates between its own arrays and these layers. `build` makes a net of them, `read`
finds them in a net.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bptt import arrays, layers, ops
from bptt.errors import ShapeError, UsageError
from bptt.interchange.frames import Call, Frame
from bptt.model import BPTT
from bptt.numerics import Array
from bptt.symbol import Symbol

ACTIVATIONS: dict[str, Callable[[Symbol], Symbol]] = {
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "relu": ops.relu,
}
GATES = {"rnn": "", "lstm": "ifco", "gru": "rzn"}


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        kind: ``"rnn"``, ``"lstm"``, ``"gru"``, ``"dense"`` or ``"activation"``.
        weights: by their names in `bptt.layers`, without the scope.
        options: keywords for the function of `bptt.layers`; of an activation its ``name``.
    """

    kind: str
    weights: Mapping[str, Array] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recurrent(self) -> bool:
        """Whether it has a state."""
        return self.kind in GATES

    @property
    def features(self) -> int:
        """Of the input; 0 for any."""
        name = {"rnn": "W_ax", "lstm": "W_xi", "gru": "W_xr", "dense": "W"}.get(self.kind)
        return self.weights[name].shape[1] if name else 0

    @property
    def width(self) -> int:
        """Of the result; 0 for that of the input."""
        projection: int | None = self.options.get("projection")
        return projection or self.size

    @property
    def size(self) -> int:
        """Of each gate."""
        name = {"rnn": "b_a", "lstm": "b_i", "gru": "b_r", "dense": "b"}.get(self.kind)
        return len(self.weights[name]) if name else 0

    def apply(self, bp: BPTT, x: Symbol, number: int) -> Symbol:
        """Append it to the frame that is traced; `number` counts its likes."""
        if self.kind == "activation":
            return ACTIVATIONS[self.options["name"]](x)
        if self.kind == "dense":
            return layers.dense(bp, x, self.width, name=f"dense_{number}")
        made: Symbol | tuple[Symbol, Symbol] = getattr(layers, self.kind)(
            bp, x, self.size, layer_index=number, **self.options
        )
        return made[1] if isinstance(made, tuple) else made  # an LSTM's h

    def scope(self, number: int) -> str:
        """Of its weights."""
        return f"dense_{number}" if self.kind == "dense" else f"{self.kind}_layer_{number}"


def rnn(W: Array, R: Array, b: Array, options: Mapping[str, Any]) -> Layer:
    """A plain recurrent layer of W on the input, R on the state, and one bias."""
    return Layer("rnn", {"W_ax": W, "W_aa": R, "b_a": column(b)}, options)


def gated(kind: str, order: str, W: Array, R: Array, b: Array, options: Mapping[str, Any]) -> Layer:
    """An LSTM or a GRU of matrices whose rows are gates in this order, in our letters."""
    weights = {}
    for prefix, stacked in (("W_x", W), ("W_h", R), ("b_", column(b))):
        for gate, rows in zip(order, np.split(stacked, len(order)), strict=True):
            weights[prefix + gate] = rows
    return Layer(kind, weights, options)


def stacked(layer: Layer, order: str) -> tuple[Array, Array, Array]:
    """W, R and b of a layer with rows in this order of the gates."""
    if layer.kind == "rnn":
        return layer.weights["W_ax"], layer.weights["W_aa"], layer.weights["b_a"][:, 0]
    W, R, b = (
        np.concatenate([layer.weights[prefix + gate] for gate in order])
        for prefix in ("W_x", "W_h", "b_")
    )
    return W, R, b[:, 0]


def column(b: Array) -> Array:
    """A bias as the core has it, ``(width, 1)``."""
    return b.reshape(-1, 1)


def build(
    stack: Sequence[Layer], batch: int, num_loops: int, dtype: npt.DTypeLike, seed: int
) -> BPTT:
    """A net of these layers, whose frame returns its input, a target and the output.

    Raises:
        UsageError: no layer has weights.
        ShapeError: two layers do not fit on top of each other.
    """
    batch = arrays.integer(batch, "batch", 1)
    weighty = [layer for layer in stack if layer.weights]
    if not weighty:
        raise UsageError("there is no layer with weights")
    for below, above in itertools.pairwise(weighty):
        if below.width != above.features:
            raise ShapeError(
                f"a {below.kind} layer of width {below.width} comes before a {above.kind} layer "
                f"that takes {above.features} features; layers=[...] says the order"
            )
    numbers = list(_numbers(stack))

    def frame(bp: BPTT, depth: str) -> tuple[Symbol, ...]:
        x = out = bp.placeholder((weighty[0].features, batch), name="x")
        for layer, number in zip(stack, numbers, strict=True):
            out = layer.apply(bp, out, number)
        return x, bp.placeholder(out.shape, name="y"), out

    bp = BPTT(seed=seed, dtype=dtype)
    bp.generate_graphs(frame, num_loops)
    for layer, number in zip(stack, numbers, strict=True):
        for name, array in layer.weights.items():
            bp.parameters[f"{layer.scope(number)}/{name}"] = array
    return bp


def _numbers(stack: Iterable[Layer]) -> Iterable[int]:
    """Recurrent layers are counted together, dense ones by themselves."""
    recurrent = dense = 0
    for layer in stack:
        yield recurrent if layer.recurrent else dense
        recurrent += layer.recurrent
        dense += layer.kind == "dense"


def read(bp: BPTT) -> list[Layer]:
    """The layers of a net's shallow frame, from its one input to the last symbol it returned.

    Raises:
        UsageError: the frame is no stack of layers.
    """
    frame = Frame(bp, BPTT.SHALLOW)
    makers = {value: call for call in frame.calls for value in call.outputs}
    value, stack, seen = frame.outputs[0], [], set()
    while value in makers:
        call = makers[value]
        seen.add(id(call))
        if call.operation in (*GATES, "lstm_projected"):
            layer, value = _recurrent(frame, call, value)
        elif call.operation in ACTIVATIONS:
            layer, value = Layer("activation", {}, {"name": call.operation}), call.inputs[0]
        else:
            product = makers.get(call.inputs[0])
            if call.operation != "add" or product is None or product.operation != "matmul":
                raise UsageError(
                    f"expected a stack of layers, got the operation {call.operation!r}"
                )
            seen.add(id(product))
            layer, value = _dense(frame, call, product)
        stack.append(layer)
    if [value] != [symbol.id for symbol in frame.inputs] or len(seen) != len(frame.calls):
        raise UsageError(
            "expected a stack of layers, one on the other, from one input to one output"
        )
    return stack[::-1]


def _dense(frame: Frame, add: Call, product: Call) -> tuple[Layer, int]:
    W, x = product.inputs
    if W not in frame.constants or x in frame.constants or add.inputs[1] not in frame.constants:
        raise UsageError("expected a stack of layers, got a sum of products that is no dense layer")
    b = np.broadcast_to(frame.constants[add.inputs[1]], (frame.shapes[W][0], 1))
    return Layer("dense", {"W": frame.constants[W], "b": b}), x


def _recurrent(frame: Frame, call: Call, value: int) -> tuple[Layer, int]:
    """A cell whose past is its own, of which h is seen."""
    own = {r.past: r.named for r in frame.recurrences.values()}
    projected = call.operation == "lstm_projected"
    kind = "lstm" if projected else call.operation
    pasts = call.inputs[1:3] if kind in ("lstm", "gru") else call.inputs[1:2]
    results = call.outputs * 2 if kind == "gru" else call.outputs  # a GRU takes its state twice
    if tuple(own.get(past) for past in pasts) != results or value != call.outputs[-1]:
        raise UsageError(f"expected a stack of layers, got {kind} in a larger cycle")
    arrays = [frame.constants[weight] for weight in call.inputs[1 + len(pasts) :]]
    a = call.attributes
    if kind == "rnn":
        names, options = ["W_ax", "W_aa", "b_a"], {"activation": a.get("activation", "tanh")}
    elif kind == "lstm":
        names = [f"{kind}{gate}" for kind in ("W_x", "W_h", "b_") for gate in "ifco"]
        names += ["W_rm"] if projected else []
        names += [f"W_c{gate}" for gate in "ifo"] if a["peephole"] != "none" else []
        options = {"peephole": None if a["peephole"] == "none" else a["peephole"]}
        if projected:
            options["projection"] = frame.shapes[value][0]
    else:
        names = [f"{kind}{gate}" for kind in ("W_x", "W_h", "b_") for gate in "rzn"]
        names += ["b_hn"] if a["reset"] == "after" else []
        options = {"reset": a["reset"]}
    return Layer(kind, dict(zip(names, arrays, strict=True)), options), call.inputs[0]
