"""ONNX: a frame as a model with explicit state, or a whole window as a sequence model.

Values keep the layout that they have in a frame, ``(features, batch)``, and in a window
``(time, features, batch)``; features and batch are the last two axes in both, so that every
primitive operation is written in one way. Only a cycle has to go step by step: it becomes one of
ONNX's own recurrent operators where that has the equations, or else the body of a Scan.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bptt.arrays import shown
from bptt.errors import UsageError
from bptt.interchange import output
from bptt.interchange.frames import Call, Frame
from bptt.model import BPTT
from bptt.numerics import Array
from bptt.symbol import Symbol

if TYPE_CHECKING:
    import onnx

INSTALL = 'pip install "bptt[onnx]"'
FLOAT, INT64 = 1, 7  # onnx.TensorProto

OPSET = 18
IR_VERSION = 10

Noise = Literal["draw", "feed", "mean"]


def to_onnx(
    bp: BPTT,
    path: str | os.PathLike[str],
    depth: Literal["shallow", "deep"] = "shallow",
    *,
    outputs: Sequence[Symbol] | None = None,
    noise: Noise = "draw",
) -> None:
    """Write a mode of a net as an ONNX model, operator set 18.

    Shallow, the model is one frame. Its inputs are the placeholders that the outputs need, under
    their names, ``(features, batch)``; then each state, under its own name. Its outputs are
    ``output`` (``output_0``, ... if there are several) and each state at the end of the frame, as
    ``<state>_next``. Deep, the model is a window of any length: placeholders and outputs are
    ``(time, features, batch)``, states come in and go out once.

    Weights are written as they are, and what depends on them alone is computed now. The model's
    metadata hold the starting values of the states as JSON, under ``starting_values``.

    `layers.rnn`, `layers.lstm` without or with diagonal peepholes and `layers.gru` become ONNX's
    RNN, LSTM and GRU when the net is float32 and nobody looks at what the operator hides: an
    LSTM's cell, frame by frame. (ONNX Runtime has these operators in float32 only.) All else is
    written in primitive operators.

    Args:
        bp: the net.
        path: of the file.
        depth: which mode.
        outputs: symbols of that mode; the last one that the frame returned by default.
        noise: what becomes of `random_normal` and `random_uniform`: ``"draw"`` has the model draw
            its own numbers, others than bptt's; with ``"feed"`` they are further inputs,
            ``noise_0``, ...; ``"mean"`` puts the mean of each in its place.

    Raises:
        ImportError: the package onnx is not installed.
        UsageError: another depth or noise; outputs that are no symbols of that mode.
        InterchangeError: the file system refuses.
    """
    if noise not in ("draw", "feed", "mean"):
        raise UsageError(f'noise is "draw", "feed" or "mean", got {shown(noise)}')
    name = output.place(path)
    frame = Frame(bp, depth, outputs)
    writer = (_Window if depth == BPTT.DEEP else _Step)(frame, noise)
    output.write(name, writer.model().SerializeToString())


class _Graph:
    """A graph or a subgraph under construction: names for values, and nodes.

    `window` says whether values that differ from frame to frame have the axis of time.
    """

    def __init__(
        self, frame: Frame, noise: Noise, window: bool, root: _Graph | None = None
    ) -> None:
        try:
            from onnx import helper
        except ImportError as error:
            raise ImportError(f"to_onnx needs the package onnx: {INSTALL} ({error})") from None

        self.helper = helper
        self.frame = frame
        self.noise = noise
        self.window = window
        self.root = root or self  # keeps all constants, which its subgraphs see
        self.nodes: list[onnx.NodeProto] = []
        self.names: dict[int, str] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.sequences: list[str] = []  # the inputs that differ from frame to frame
        self.tensors: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.taken: set[str] = set()
        self.type = helper.np_dtype_to_tensor_dtype(frame.dtype)

    # Names and nodes

    def fresh(self, hint: str) -> str:
        """A name that nothing has so far."""
        taken = self.root.taken
        numbered = (f"{hint}_{n}" for n in itertools.count(1))
        name = next(name for name in itertools.chain([hint], numbered) if name not in taken)
        taken.add(name)
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; the name of its result."""
        return self.add_several(operator, 1, *inputs, **attributes)[0]

    def add_several(
        self, operator: str, outputs: int, *inputs: str, **attributes: Any
    ) -> list[str]:
        """Append a node; the names of its results."""
        names = [self.fresh(operator.lower()) for _ in range(outputs)]
        self.nodes.append(self.helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def integers(self, *numbers: int) -> str:
        return self.tensor(np.array(numbers, np.int64), "integers")

    def tensor(self, array: Any, hint: str) -> str:
        """A constant of the model; equal ones are kept once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        tensors = self.root.tensors
        if key not in tensors:
            tensors[key] = self.fresh(hint)
        return tensors[key]

    def name(self, value: int) -> str:
        """The name of a value that is there already; constants are made when they are needed."""
        if value not in self.names and value in self.frame.constants:
            self.names[value] = self.tensor(self.frame.constants[value], "constant")
        return self.names[value]

    def whole(self, value: int) -> str:
        """The value with all its axes, also if it is the same at every frame."""
        if not self.window or value not in self.frame.constants:
            return self.name(value)
        features, batch = self.frame.shapes[value]
        return self.add("Expand", self.name(value), self.sizes(features, batch))

    def sizes(self, features: int, batch: int) -> str:
        """The shape of a value as a tensor."""
        if not self.window:
            return self.integers(features, batch)
        return self.add("Concat", self.time(), self.integers(features, batch), axis=0)

    def time(self) -> str:
        raise NotImplementedError

    def feature(self, name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
        return self.helper.make_tensor_value_info(name, self.type, list(shape))

    # Operations

    def emit(self, call: Call) -> None:
        """Append an operation of the core."""
        if call.operation in _CELLS:
            self.cell(call)
        elif call.operation in _NOISE:
            if self.noise != "feed":  # else it is an input
                self.names[call.outputs[0]] = self.random(call)
        elif call.operation in _PRIMITIVES:
            self.names[call.outputs[0]] = _PRIMITIVES[call.operation](self, call)
        else:
            raise UsageError(f"there is no form of the operation {call.operation!r} in ONNX")

    def random(self, call: Call) -> str:
        """Noise: a number for every feature, lane and frame."""
        shape, a = self.frame.shapes[call.outputs[0]], call.attributes
        normal = call.operation == "normal"
        if self.noise == "mean":
            mean = a["mean"] if normal else (a["low"] + a["high"]) / 2
            return self.add(
                "Expand",
                self.tensor(np.full((1, 1), mean, self.frame.dtype), "mean"),
                self.sizes(*shape),
            )
        kind = "RandomNormal" if normal else "RandomUniform"
        keys = {"mean": "mean", "scale": "stddev"} if normal else {"low": "low", "high": "high"}
        numbers = {key: a[ours] for key, ours in keys.items()}
        if not self.window:
            return self.add(kind, shape=list(shape), dtype=self.type, **numbers)
        like = self.add("ConstantOfShape", self.sizes(*shape))
        return self.add(f"{kind}Like", like, dtype=self.type, **numbers)

    def cell(self, call: Call) -> dict[int, str]:
        """One of ONNX's recurrent operators, over a window or over one frame.

        ONNX's layout is (time, batch, features), and its states are (directions, batch, width).
        Returns the states at the end by the cell's outputs.
        """
        operator, parts = _CELLS[call.operation], _cell_weights(self.frame, call)
        x = self.name(call.inputs[0])
        first = self.integers(0)
        if self.window:
            sequence = self.add("Transpose", x, perm=[0, 2, 1])
        else:
            sequence = self.add("Unsqueeze", self.add("Transpose", x, perm=[1, 0]), first)
        before = [self.add("Transpose", self.state(past), perm=[1, 0]) for past in _pasts(call)]
        states = [self.add("Unsqueeze", state, first) for state in before]
        weights = [self.tensor(parts[key], key) for key in "WRB"]
        extra = [self.tensor(parts["P"], "P")] if "P" in parts else []
        width = self.frame.shapes[call.outputs[-1]][0]
        inputs = [sequence, *weights, "", *states, *extra]
        attributes: dict[str, Any] = {"hidden_size": width}
        if call.attributes.get("activation") == "relu":
            attributes["activations"] = ["Relu"]
        if call.attributes.get("reset") == "after":
            attributes["linear_before_reset"] = 1
        y, *ends = self.add_several(operator, 1 + len(states), *inputs, **attributes)
        made = {}
        for value, end in zip(_results(call), ends, strict=True):
            made[value] = self.add("Transpose", self.add("Squeeze", end, first), perm=[1, 0])
        if self.window:
            lanes = self.add("Squeeze", y, self.integers(1))
            self.names[call.outputs[-1]] = self.add("Transpose", lanes, perm=[0, 2, 1])
        else:
            self.names |= made
        return made

    def state(self, past: int) -> str:
        """The name of a past value, or in a window of the state that comes in."""
        return self.names[past]


class _Step(_Graph):
    """The whole model of one frame."""

    def __init__(self, frame: Frame, noise: Noise) -> None:
        super().__init__(frame, noise, window=False)
        frame.expand_cells(lambda call: _fits(frame, call))
        states = _open(self, [])
        self.names |= states
        for call in frame.calls:
            self.emit(call)
        _close(self, {name: self.names[r.named] for name, r in frame.recurrences.items()}, [])

    def model(self) -> onnx.ModelProto:
        return _model(self)


class _Window(_Graph):
    """The whole model of a window."""

    def __init__(self, frame: Frame, noise: Noise) -> None:
        super().__init__(frame, noise, window=True)
        frame.expand_cells(self._alone)
        self.states = _open(self, ["time"])
        self.pasts = {r.past: r for r in frame.recurrences.values()}
        self.ends: dict[int, str] = {}  # of named values, after the last frame
        self._time = ""
        for calls, cyclic in frame.stages():
            if not cyclic:
                self.emit(calls[0])
            elif calls[0].operation in _CELLS:
                self.ends |= self.cell(calls[0])
            else:
                self.scan(calls)
        last = {name: self.last(r.named) for name, r in frame.recurrences.items()}
        _close(self, last, ["time"])

    def model(self) -> onnx.ModelProto:
        return _model(self)

    def time(self) -> str:
        """How many frames there are, ``(1,)``."""
        if not self._time:
            if self.sequences:
                self._time = self.add("Shape", self.sequences[0], start=0, end=1)
            else:
                self._time = self.fresh("time")
                info = self.helper.make_tensor_value_info(self._time, INT64, [1])
                self.inputs.append(info)
        return self._time

    def state(self, past: int) -> str:
        return self.states[past]

    def name(self, value: int) -> str:
        """A past value is the state that came in, then the named value without its last frame."""
        if value in self.pasts and value not in self.names:
            first = self.integers(0)
            before = self.add(
                "Slice", self.name(self.pasts[value].named), first, self.integers(-1), first
            )
            start = self.add("Unsqueeze", self.states[value], first)
            self.names[value] = self.add("Concat", start, before, axis=0)
        return super().name(value)

    def last(self, named: int) -> str:
        """A value after the last frame."""
        if named not in self.ends:
            frame = self.add("Gather", self.name(named), self.tensor(np.array(-1), "last"), axis=0)
            self.ends[named] = frame
        return self.ends[named]

    def scan(self, calls: list[Call]) -> None:
        """A cycle, frame by frame."""
        frame = self.frame
        made = {value for call in calls for value in call.outputs}
        read = dict.fromkeys(value for call in calls for value in call.inputs)
        carried = [r for r in frame.recurrences.values() if r.named in made]
        pasts = {r.past for r in carried}
        fed = [v for v in read if v not in made | pasts | frame.constants.keys()]
        given = [v for v in made if v in _read_elsewhere(frame, calls)]

        body = _Graph(frame, self.noise, window=False, root=self)
        for value in [*(r.past for r in carried), *fed]:
            body.names[value] = self.fresh("past" if value in pasts else "fed")
            body.inputs.append(body.feature(body.names[value], frame.shapes[value]))
        for call in calls:
            body.emit(call)
        for value in [*(r.named for r in carried), *given]:  # no name twice among the outputs
            result = body.add("Identity", body.names[value])
            body.outputs.append(body.feature(result, frame.shapes[value]))
        sequences = [self.name(v) for v in fed]
        if not sequences:  # something has to say how many frames there are
            sequences = [self.add("ConstantOfShape", self.time())]
            tick = self.fresh("tick")
            body.inputs.append(self.helper.make_tensor_value_info(tick, FLOAT, []))
        graph = self.helper.make_graph(body.nodes, self.fresh("cycle"), body.inputs, body.outputs)
        results = self.add_several(
            "Scan",
            len(carried) + len(given),
            *(self.states[r.past] for r in carried),
            *sequences,
            body=graph,
            num_scan_inputs=len(sequences),
        )
        n = len(carried)
        self.ends |= {r.named: end for r, end in zip(carried, results[:n], strict=True)}
        self.names |= dict(zip(given, results[n:], strict=True))

    def _alone(self, call: Call) -> bool:
        """Whether a cell can be one of ONNX's operators over the window."""
        frame = self.frame
        if not _fits(frame, call):
            return False
        own = {r.past: r.named for r in frame.recurrences.values()}
        results = _results(call)
        if [own.get(past) for past in _pasts(call)] != results:
            return False  # its past is not its own: no loop, or a longer one
        if any(len(calls) > 1 for calls, _ in frame.stages() if call in calls):
            return False
        return not set(results[1:]) & _read_elsewhere(frame, [call])  # the cell is not given


def _read_elsewhere(frame: Frame, calls: list[Call]) -> set[int]:
    """What others than these calls read, through the past values too."""
    read = {value for call in frame.calls if call not in calls for value in call.inputs}
    read |= set(frame.outputs)
    return read | {r.named for r in frame.recurrences.values() if r.past in read}


def _open(graph: _Graph, axes: list[str]) -> dict[int, str]:
    """Declare the inputs; the names of the states by past value."""
    frame, states = graph.frame, {}
    fed = [(symbol.id, symbol.name) for symbol in frame.inputs]
    if graph.noise == "feed":
        random = [call for call in frame.calls if call.operation in _NOISE]
        fed += [(call.outputs[0], f"noise_{call.attributes['ordinal']}") for call in random]
    for value, name in fed:
        graph.names[value] = graph.fresh(name)
        graph.sequences.append(graph.names[value])
        graph.inputs.append(graph.feature(graph.names[value], [*axes, *frame.shapes[value]]))
    for name, recurrence in frame.recurrences.items():
        states[recurrence.past] = graph.fresh(name)
        shape = frame.shapes[recurrence.past]
        graph.inputs.append(graph.feature(states[recurrence.past], shape))
    return states


def _close(graph: _Graph, states: dict[str, str], axes: list[str]) -> None:
    """Declare the outputs."""
    wanted = graph.frame.outputs
    for n, value in enumerate(wanted):
        name = graph.fresh("output" if len(wanted) == 1 else f"output_{n}")
        _give(graph, graph.whole(value), name, [*axes, *graph.frame.shapes[value]])
    for state, result in states.items():
        shape = graph.frame.shapes[graph.frame.recurrences[state].past]
        _give(graph, result, graph.fresh(f"{state}_next"), shape)


def _give(graph: _Graph, value: str, name: str, shape: Sequence[int | str]) -> None:
    graph.nodes.append(graph.helper.make_node("Identity", [value], [name]))
    graph.outputs.append(graph.feature(name, shape))


def _model(graph: _Graph) -> onnx.ModelProto:
    helper = graph.helper
    kinds = {kind: helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind, *_ in graph.tensors}
    initializers = [
        helper.make_tensor(name, kinds[kind], shape, raw, raw=True)
        for (kind, shape, raw), name in graph.tensors.items()
    ]
    body = helper.make_graph(graph.nodes, "frame", graph.inputs, graph.outputs, initializers)
    model: onnx.ModelProto = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bptt",
    )
    starts = {name: r.start.tolist() for name, r in graph.frame.recurrences.items()}
    helper.set_model_props(model, {"starting_values": json.dumps(starts)})
    return model


# Operations without time of their own. Features are the last axis but one, lanes the last.

Emit = Callable[[_Graph, Call], str]
_FEATURES, _LANES = -2, -1


def _plain(operator: str) -> Emit:
    return lambda g, call: g.add(operator, *(g.name(value) for value in call.inputs))


def _less(g: _Graph, call: Call) -> str:
    return g.add("Cast", g.add("Less", *(g.name(value) for value in call.inputs)), to=g.type)


def _square(g: _Graph, call: Call) -> str:
    return g.add("Mul", *[g.name(call.inputs[0])] * 2)


def _transpose(g: _Graph, call: Call) -> str:
    return g.add("Transpose", g.name(call.inputs[0]), perm=[0, 2, 1] if g.window else [1, 0])


def _concat(g: _Graph, call: Call) -> str:
    axis = _LANES if call.attributes["axis"] else _FEATURES
    return g.add("Concat", *(g.whole(value) for value in call.inputs), axis=axis)


def _slice(g: _Graph, call: Call) -> str:
    ends = [g.integers(call.attributes[key]) for key in ("start", "stop")]
    return g.add("Slice", g.name(call.inputs[0]), *ends, g.integers(_FEATURES))


def _expand(g: _Graph, call: Call) -> str:
    return g.add("Expand", g.name(call.inputs[0]), g.sizes(*g.frame.shapes[call.outputs[0]]))


def _over_features(operator: str) -> Emit:
    return lambda g, call: g.add(operator, g.name(call.inputs[0]), axis=_FEATURES)


def _embedding(g: _Graph, call: Call) -> str:
    """The product of the table with a column that is one at the symbol's row."""
    symbol, table = call.inputs
    rows = np.arange(g.frame.shapes[table][1], dtype=g.frame.dtype)[:, None]
    one_hot = g.add("Equal", g.name(symbol), g.tensor(rows, "rows"))
    return g.add("MatMul", g.name(table), g.add("Cast", one_hot, to=g.type))


def _reduce(operator: str) -> Emit:
    axes = {0: [_FEATURES], 1: [_LANES], 2: [_FEATURES, _LANES]}
    return lambda g, call: g.add(
        operator, g.name(call.inputs[0]), g.integers(*axes[call.attributes["axis"]]), keepdims=1
    )


_PRIMITIVES: dict[str, Emit] = {
    "negative": _plain("Neg"),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "relu": _plain("Relu"),
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "sqrt": _plain("Sqrt"),
    "abs": _plain("Abs"),
    "square": _square,
    "stop_gradient": _plain("Identity"),
    "add": _plain("Add"),
    "subtract": _plain("Sub"),
    "multiply": _plain("Mul"),
    "divide": _plain("Div"),
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "less": _less,
    "matmul": _plain("MatMul"),
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "expand": _expand,
    "softmax": _over_features("Softmax"),
    "log_softmax": _over_features("LogSoftmax"),
    "embedding": _embedding,
    "sum": _reduce("ReduceSum"),
    "mean": _reduce("ReduceMean"),
}


# Cells. A cell's h comes first among ONNX's states, and last among the core's outputs.

_NOISE = ("normal", "uniform")
# The first of the core's W_x, W_h and b among a cell's inputs, and ONNX's order of the gates.
_STACKS = {
    "rnn": ((2, 3, 4), (0,)),
    "lstm": ((3, 7, 11), (0, 3, 1, 2)),  # i o f c
    "gru": ((3, 6, 9), (1, 0, 2)),  # z r n
}
_CELLS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def _pasts(call: Call) -> list[int]:
    """The past values of a cell, h first."""
    return [call.inputs[2], call.inputs[1]] if call.operation == "lstm" else [call.inputs[1]]


def _results(call: Call) -> list[int]:
    """The values at t that ONNX's operator gives as states, h first."""
    return list(reversed(call.outputs))


def _fits(frame: Frame, call: Call) -> bool:
    """Whether ONNX has the equations, and ONNX Runtime the precision."""
    return (
        call.operation in _CELLS
        and frame.dtype == np.float32
        and call.attributes.get("peephole") != "full"
        and not (call.operation == "gru" and call.inputs[1] != call.inputs[2])
    )


_NONE = np.zeros((0, 0))  # in the place of what is no weight


def _cell_weights(frame: Frame, call: Call) -> dict[str, Array]:
    """W, R, B and P as ONNX stacks them, with an axis for the direction in front."""
    weights = [frame.constants.get(value, _NONE) for value in call.inputs]
    first, order = _STACKS[call.operation]
    W, R, B = (np.concatenate([weights[at + n] for n in order])[None] for at in first)
    after = np.zeros_like(B)  # the second bias, of the products with the state
    if call.attributes.get("reset") == "after":
        after[:, -len(weights[-1]) :] = weights[-1]
    stacked = {"W": W, "R": R, "B": np.concatenate([B, after], axis=1)[..., 0]}
    if call.attributes.get("peephole") == "diagonal":
        stacked["P"] = np.concatenate([weights[15 + n] for n in (0, 2, 1)])[None, :, 0]  # i o f
    return stacked
