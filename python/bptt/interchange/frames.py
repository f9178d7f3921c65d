"""The shallow or the deep frame of a net, as what writes it in another format sees it.

Values are the numbers of the core's graph. What is the same at every frame is computed here, once,
so that a format only has to say what changes from frame to frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bptt.arrays import listed
from bptt.errors import UsageError
from bptt.interchange.cells import PRIMITIVES
from bptt.model import BPTT
from bptt.net import Net
from bptt.numerics import Array
from bptt.symbol import Symbol
from bptt.trace import Trace


@dataclass(frozen=True)
class Call:
    """One call of an operation of the core."""

    operation: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recurrence:
    """The value at t-1, the one at t that it is the past of, and the state that it starts from."""

    past: int
    named: int
    start: Array


class Frame:
    """What the outputs of one mode need.

    Attributes:
        depth: the mode.
        dtype: of all numbers.
        inputs: the placeholders, in returned order.
        outputs: what is wanted.
        recurrences: by name, sorted; those that go on when the outputs are computed, as in
            `BPTT.step`.
        calls: all that is computed anew for every frame, each after what it needs of its own frame.
        constants: the values that are the same at every frame, as far as anything needs them.
        shapes: ``(features, batch)`` of every value.
    """

    def __init__(self, bp: BPTT, depth: str, outputs: Sequence[Symbol] | None = None) -> None:
        net = net_of(bp)
        trace = net.trace(depth)
        wanted = symbols_of(net, trace, outputs)
        carried = trace.carried(wanted)
        graph = trace.graph
        self.depth = depth
        self.dtype = net.numerics.dtype
        self.seed = net.seed
        self.inputs = trace.inputs([*wanted, *carried])
        self.outputs = wanted
        needed, self.recurrences = _needed(trace, [*wanted, *carried])
        self.calls = [
            Call(node.operation, tuple(node.inputs), tuple(node.outputs), node.attributes)
            for node in graph.nodes
            if needed.intersection(node.outputs) and graph.extent(node.outputs[0]) == "frame"
        ]
        self.shapes = {value: graph.shape(value) for value in needed}
        for call in self.calls:
            self.shapes |= {value: graph.shape(value) for value in call.outputs}
        used = {value for call in self.calls for value in call.inputs} | set(wanted)
        self.constants = _constants(net, trace, [v for v in used if graph.extent(v) == "constant"])
        self._size = max(self.shapes) + 1

    def values(self) -> Iterator[int]:
        """All values that differ from frame to frame and are computed or carried."""
        yield from (recurrence.past for recurrence in self.recurrences.values())
        for call in self.calls:
            yield from call.outputs

    def expand_cells(self, keep: Callable[[Call], bool]) -> None:
        """Write cells out in primitive operations, all but those to keep.

        Raises:
            UsageError: a cell that there is no such form of.
        """
        calls: list[Call] = []
        for call in self.calls:
            if call.operation in PRIMITIVES and not keep(call):
                PRIMITIVES[call.operation](Writer(self, calls), call)
            else:
                calls.append(call)
        self.calls = calls

    def constant(self, array: Array) -> int:
        """A new constant value."""
        value = self.value(array.shape)
        self.constants[value] = array.astype(self.dtype)
        return value

    def value(self, shape: tuple[int, ...]) -> int:
        """A new value of this shape."""
        value = self._size
        self._size += 1
        self.shapes[value] = (shape[0], shape[1])
        return value

    def stages(self) -> list[tuple[list[Call], bool]]:
        """The strongly connected components of the calls in topological order.

        Each with whether it is a cycle, which has to go step by step; all others can run over all
        frames of a window at once.
        """
        maker = {value: n for n, call in enumerate(self.calls) for value in call.outputs}
        maker |= {r.past: maker[r.named] for r in self.recurrences.values()}
        reach = [0] * len(self.calls)  # a set of calls is an integer, one bit for each
        for n, call in enumerate(self.calls):
            for value in call.inputs:
                if value in maker:
                    reach[maker[value]] |= 1 << n
        for middle in range(len(self.calls)):
            for n, set_of in enumerate(reach):
                if set_of >> middle & 1:
                    reach[n] |= reach[middle]
        cyclic = [bool(set_of >> n & 1) for n, set_of in enumerate(reach)]
        members: dict[int, list[int]] = {}
        for n in range(len(self.calls)):
            reach[n] |= 1 << n
            members.setdefault(reach[n], []).append(n)  # in one component: they reach the same
        order = sorted(members, key=lambda set_of: (-set_of.bit_count(), members[set_of][0]))
        return [([self.calls[n] for n in members[s]], cyclic[members[s][0]]) for s in order]


class Writer:
    """Appends primitive operations to a list of calls; values go in and come out."""

    def __init__(self, frame: Frame, calls: list[Call]) -> None:
        self.frame = frame
        self.calls = calls

    def __call__(
        self, operation: str, *inputs: int, out: int | None = None, **attributes: Any
    ) -> int:
        """The result of an operation: a new value, or `out`, which exists already."""
        if out is None:
            shapes = [self.frame.shapes[v] for v in inputs]
            out = self.frame.value(self._shape(operation, shapes, attributes))
        self.calls.append(Call(operation, inputs, (out,), attributes))
        return out

    def every_frame(self, value: int) -> int:
        """The value, spread over time if it is a constant."""
        if value not in self.frame.constants:
            return value
        features, batch = self.frame.shapes[value]
        return self("expand", value, features=features, batch=batch)

    def number(self, value: float) -> int:
        """A number as a constant."""
        return self.frame.constant(np.full((1, 1), value))

    def stacked(self, weights: Sequence[int]) -> int:
        """Constants on top of each other, as one."""
        return self.frame.constant(np.concatenate([self.frame.constants[v] for v in weights]))

    def sum(self, *terms: int, out: int | None = None) -> int:
        """The sum of several values."""
        total = terms[0]
        for term in terms[1:-1]:
            total = self("add", total, term)
        return self("add", total, terms[-1], out=out)

    @staticmethod
    def _shape(
        operation: str, shapes: list[tuple[int, int]], attributes: dict[str, Any]
    ) -> tuple[int, int]:
        if operation == "matmul":
            return (shapes[0][0], shapes[1][1])
        if operation == "embedding":
            return (shapes[1][0], shapes[0][1])
        if operation in ("sum", "mean"):  # over features
            return (1, shapes[0][1])
        if operation == "slice":
            return (attributes["stop"] - attributes["start"], shapes[0][1])
        return (max(s[0] for s in shapes), max(s[1] for s in shapes))


def net_of(bp: object) -> Net:
    """The net behind a `BPTT` whose graphs are there.

    Raises:
        UsageError: no such object.
    """
    if not isinstance(bp, BPTT):
        raise UsageError(f"expected a BPTT, got {type(bp).__name__}")
    return bp._net


def symbols_of(net: Net, trace: Trace, outputs: Sequence[Symbol] | None) -> list[int]:
    """The values of a mode that are wanted; by default the last symbol that the frame returned.

    Raises:
        UsageError: symbols of another graph, of the window, or none.
    """
    if outputs is None:
        return [[each for each in trace.returned if isinstance(each, Symbol)][-1].id]
    for each in listed(outputs, "outputs"):
        if net.own(each).trace is not trace or each.extent == "window":
            raise UsageError(f"outputs are values of every {trace.depth} frame, got {each}")
    if not outputs:
        raise UsageError("outputs is an empty list")
    return [each.id for each in outputs]


def _needed(trace: Trace, roots: list[int]) -> tuple[set[int], dict[str, Recurrence]]:
    """What the roots depend on, through recurrences too, and these."""
    nodes = {value: node for node in trace.graph.nodes for value in node.outputs}
    recurrences = {
        past: (name, past, named) for name, (past, named) in trace.graph.recurrences.items()
    }
    needed: set[int] = set()
    found = {}
    todo = list(roots)
    while todo:
        value = todo.pop()
        if value in needed:
            continue
        needed.add(value)
        if value in recurrences:
            name, past, named = recurrences[value]
            start = trace.net.starting_value(trace.recurrences[name])
            start = np.broadcast_to(start, trace.graph.shape(past))
            found[name] = Recurrence(past, named, start)
            todo.append(named)
        elif value in nodes:
            todo += nodes[value].inputs
    return needed, dict(sorted(found.items()))


def _constants(net: Net, trace: Trace, values: list[int]) -> dict[int, Array]:
    """What the core computes for values that are the same at every frame."""
    if not values:
        return {}
    program = net.new_program(trace, 1, values)
    program.forward(0)
    return {v: np.array(program.value(v)).reshape(trace.graph.shape(v)) for v in values}
