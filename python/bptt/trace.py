"""The trace of one mode: the user's frame, written down as a graph of the core.

A trace is open while the frame function runs, and takes placeholders, variables and recurrences
only then; operations (a loss, a metric) may be appended to it later as well.
"""

from __future__ import annotations

import copy
import hashlib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays
from bptt.errors import ShapeError, UsageError, caller
from bptt.initializers import Initializer, draw, glorot_uniform, normal, uniform
from bptt.numerics import Array
from bptt.symbol import Operand, Symbol

if TYPE_CHECKING:
    from bptt.net import Net


@dataclass
class Recurrence:
    """A past symbol tied to its named value.

    Attributes:
        past: the value at t-1.
        start: its starting value, ``(features, batch)`` or ``(features, 1)``: an array, or a
            symbol that is constant in time.
        where: the user's line that asked for the past value.
        named: whether the value at t was named.
        traced: whether the graph begins there too, or a checkpoint has another starting value.
    """

    past: Symbol
    start: Array | Symbol
    where: str
    named: bool = False
    traced: bool = True


class StateHandle:
    """Stands for a named state in a list of fetches: its value after the window's last frame.

    Attributes:
        trace: the mode it belongs to.
        name: the state's name.
    """

    __slots__ = ("name", "trace")

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.name = name

    def __repr__(self) -> str:
        return f"<StateHandle {self.name!r} of the {self.trace.depth} graph>"


class Trace:
    """The graph of one mode and the names in it.

    Attributes:
        depth: the mode, ``"deep"`` or ``"shallow"``.
        frames: how many frames one window of it has.
        segment: how many of them are in memory at a time, if windows are computed in segments.
        graph: the core's graph.
        placeholders: in order of creation.
        variables: by full name.
        recurrences: by name.
        returned: what the frame function returned.
        handles: of all states, sorted by name; set when the trace is closed.
        quiet: whether layers leave nothing out at random in the deep mode either.
        structure: a hash of the operations of the frame and of the shapes of all it is made of,
            set when the trace is closed; the number of lanes is no part, nor are values (constants,
            initial weights, strengths of noise) and later losses.
    """

    def __init__(self, net: Net, depth: str, frames: int, segment: int | None = None) -> None:
        self.depth = depth
        self.frames = frames
        self.segment = segment
        self.weights = net.weights
        self.graph = _core.Graph()
        self.placeholders: list[Symbol] = []
        self.variables: dict[str, Symbol] = {}
        self.recurrences: dict[str, Recurrence] = {}
        self.returned: tuple[Any, ...] = ()
        self.handles: list[StateHandle] = []
        self.quiet = False
        self.structure = ""
        self._net = weakref.ref(net)  # not a cycle: a net that is dropped frees its memory at once
        self._seed = net.seed
        self._dtype = net.numerics.dtype
        self._scopes: list[str] = []
        self._random_calls = 0
        self._last_layer = -1
        self._unnamed_dense = 0
        self._unnamed_embeddings = 0
        self._nodes: list[str] = []
        self._numbers: dict[int, int] = {}

    @property
    def net(self) -> Net:
        """The net it is a trace of.

        Raises:
            UsageError: it is gone, and only symbols of it are left.
        """
        net = self._net()
        if net is None:
            raise UsageError("the BPTT that these symbols belong to is gone")
        return net

    def copy_to(self, net: Net, memo: dict[int, Any]) -> Trace:
        """The same trace for a copy of its net, with symbols of its own.

        The graph is shared: it is append-only, so what one of the two appends later, the other does
        not see.
        """
        trace = Trace(net, self.depth, self.frames, self.segment)
        memo[id(self)] = trace
        trace.graph = self.graph
        trace.structure = self.structure
        trace._random_calls = self._random_calls
        trace._last_layer = self._last_layer
        trace._unnamed_dense = self._unnamed_dense
        trace._unnamed_embeddings = self._unnamed_embeddings
        trace._nodes = self._nodes.copy()
        trace._numbers = self._numbers.copy()
        trace.placeholders = copy.deepcopy(self.placeholders, memo)
        trace.variables = copy.deepcopy(self.variables, memo)
        for name, recurrence in self.recurrences.items():
            past, start = recurrence.past, recurrence.start
            trace.recurrences[name] = replace(
                recurrence,
                past=copy.deepcopy(past, memo),
                start=copy.deepcopy(start, memo) if isinstance(start, Symbol) else start,
            )  # an array is read-only
        trace.handles = copy.deepcopy(self.handles, memo)
        trace.returned = copy.deepcopy(self.returned, memo)
        return trace

    def __deepcopy__(self, memo: dict[int, Any]) -> Trace:
        """Symbols lead here: whatever part of a net is copied, all of it is, and once."""
        copy.deepcopy(self.net, memo)
        copied: Trace = memo[id(self)]
        return copied

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError(
            "symbols are not pickled, nor is what holds them: a frame is made of them anew. "
            "bp.save(path) keeps a net, bptt.load(path, frame) goes on with it"
        )

    def close(self, returned: object) -> None:
        """End the trace with what the frame function returned.

        Raises:
            UsageError: no symbol was returned, or a past value was never named.
        """
        self.returned = tuple(returned) if isinstance(returned, list | tuple) else (returned,)
        if not any(isinstance(each, Symbol) for each in self.returned):
            raise UsageError("a frame function returns its symbols, placeholders first; got none")
        for name, recurrence in self.recurrences.items():
            if not recurrence.named:
                raise UsageError(
                    f"the past value {name!r} is never named: call bp.name_variable({name!r}, v) "
                    f"with its value at t (at {recurrence.where})"
                )
        self.handles = [StateHandle(self, name) for name in sorted(self.recurrences)]
        self.structure = hashlib.sha256("\n".join(self._nodes).encode()).hexdigest()

    # Values that come from outside the frame

    def placeholder(self, shape: Sequence[int], name: str | None) -> Symbol:
        """See `BPTT.placeholder`."""
        if name is None:
            name = f"placeholder_{len(self.placeholders)}"
        name = _name(name, "a placeholder")
        if any(name == other.name for other in self.placeholders):
            raise UsageError(f"two placeholders are called {name!r}")
        shape = arrays.shape_of(shape, f"placeholder {name!r}")
        symbol = self._symbol(self.graph.placeholder(*shape), "placeholder", name)
        self.placeholders.append(symbol)
        return symbol

    def constant(self, value: npt.ArrayLike) -> Symbol:
        """See `BPTT.constant`."""
        values = arrays.finite(arrays.matrix(value, self._dtype, "a constant"), "a constant")
        return self._symbol(self.graph.constant(values), "constant")

    def noise(self, distribution: str, shape: Sequence[int], **parameters: float) -> Symbol:
        """Random numbers, the ordinal of the call among the trace's being part of their key."""
        features, batch = arrays.shape_of(shape, f"{distribution} noise")
        parameters = (normal if distribution == "normal" else uniform)(**parameters)
        for name, number in parameters.items():  # finite in the net's dtype, too
            what = f"the {name} of {distribution} noise"
            arrays.finite(arrays.numbers(number, self._dtype, what), what)
        if distribution == "uniform":
            width = parameters["high"] - parameters["low"]
            arrays.finite(arrays.numbers(width, self._dtype, "high - low"), "high - low")
        ordinal = self._random_calls
        self._random_calls += 1
        return self.append(
            distribution, features=features, batch=batch, ordinal=ordinal, **parameters
        )[0]

    # Weights

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """See `BPTT.variable_scope`."""
        self._scopes.append(_name(name, "a scope"))
        try:
            yield
        finally:
            self._scopes.pop()

    def variable(
        self, name: str, shape: Sequence[int], initializer: Initializer | npt.ArrayLike | None
    ) -> Symbol:
        """See `BPTT.get_variable`."""
        name = "/".join([*self._scopes, _name(name, "a variable")])
        shape = arrays.shape_of(shape, f"variable {name!r}")
        if name not in self.weights.names:
            start = glorot_uniform if initializer is None else initializer
            self.weights.declare(name, draw(start, shape, self._seed, name, self._dtype))
        declared = self.weights.shape(name)
        if declared != shape:
            raise ShapeError(
                f"the variable {name!r} has shape {declared}, and is asked for again with {shape}"
            )
        if name not in self.variables:
            id = self.graph.variable(name, *shape)
            self.variables[name] = self._symbol(id, "variable", name)
        return self.variables[name]

    # Recurrences

    def start(self, name: str, width: int, initializer: Initializer | Operand | None) -> Operand:
        """The starting value of a layer's state: drawn for all lanes, given, or zeros by default.

        Raises:
            ShapeError: an array of another width.
            NonFiniteError: NaN or infinity.
        """
        if initializer is None:
            return np.zeros((width, 1))
        if callable(initializer):
            return draw(initializer, (width, 1), self._seed, f"state/{name}", self._dtype)
        values: Array | Symbol
        if isinstance(initializer, Symbol):
            values = initializer
        else:
            values = arrays.numbers(initializer, self._dtype, f"the starting value of {name!r}")
        if values.shape[:1] != (width,):
            raise ShapeError(
                f"the starting value of {name!r} has shape {values.shape}; expected ({width}, 1), "
                f"or ({width}, batch)"
            )
        return values

    def past(self, name: str, start: Operand, batch: int | None = None) -> Symbol:
        """See `BPTT.get_past_variable`; `batch` says how many lanes a start of one column serves.

        Left out, it is the largest batch of the placeholders there are so far.
        """
        what = f"the starting value of {_name(name, 'a past value')!r}"
        begin: Array | Symbol
        if isinstance(start, Symbol):
            begin = self.symbol(start)
        else:
            values = arrays.finite(arrays.matrix(start, self._dtype, what), what).copy()
            values.setflags(write=False)
            begin = values
        known = self.recurrences.get(name)
        if known is not None:
            if known.start.shape != begin.shape:
                raise UsageError(
                    f"the past value {name!r} starts with shape {known.start.shape}, and is asked "
                    f"for again with a starting value of shape {begin.shape}"
                )
            return known.past
        features, lanes = arrays.shape_of(begin.shape, what)
        if lanes == 1:
            lanes = batch or max((other.shape[1] for other in self.placeholders), default=1)
        id = begin.id if isinstance(begin, Symbol) else self.graph.constant(begin)
        symbol = self._symbol(self.graph.past(name, features, lanes, id), "past", name)
        if isinstance(begin, Symbol):
            self._nodes.append(f"start {name} {self._numbers[id]}")
        self.recurrences[name] = Recurrence(symbol, begin, caller())
        return symbol

    def name(self, name: str, v: Operand) -> Symbol:
        """See `BPTT.name_variable`."""
        recurrence = self.recurrences.get(_name(name, "a value"))
        if recurrence is None:
            raise UsageError(
                f"{name!r} is named without a past value: call bp.get_past_variable({name!r}, "
                "starting_value) first"
            )
        if recurrence.named:
            raise UsageError(f"{name!r} is named twice in one frame")
        symbol = self.symbol(v)
        self.graph.tie(recurrence.past.id, symbol.id)
        recurrence.named = True
        self._nodes.append(f"tie {name} {self._numbers[symbol.id]}")
        return symbol

    # Operations

    def append(self, operation: str, *operands: Operand, **attributes: Any) -> list[Symbol]:
        """Append one operation of the core; arrays and numbers among the operands are constants.

        Raises:
            ShapeError: the operands' shapes do not fit.
            UsageError: an operand belongs to another graph.
        """
        inputs = [self.symbol(operand).id for operand in operands]
        outputs = self.graph.append(operation, inputs, attributes)
        kept = {
            key: value
            for key, value in attributes.items()
            if not isinstance(value, float) and key != "batch"
        }
        sources = [self._numbers[id] for id in inputs]
        return [self._symbol(id, f"{operation} {sources} {sorted(kept.items())}") for id in outputs]

    def symbol(self, operand: Operand) -> Symbol:
        """The operand itself, if it is a symbol of this trace, or else a constant.

        Raises:
            UsageError: a symbol of another graph, or no numbers.
            ShapeError: an array that is no matrix.
        """
        if isinstance(operand, tuple | list) and any(isinstance(v, Symbol) for v in operand):
            raise UsageError(
                f"expected one symbol, got {len(operand)} of them in a {type(operand).__name__}; "
                "layers.lstm returns two, c and h"
            )
        if not isinstance(operand, Symbol):
            return self.constant(operand)
        if operand.trace is not self:
            whose = "its" if operand.trace.weights is self.weights else "another BPTT's"
            raise UsageError(
                f"{operand} is used in the {self.depth} graph: it is a symbol of {whose} "
                f"{operand.trace.depth} graph"
            )
        return operand

    def frame_value(self, operand: Operand) -> Symbol:
        """The operand with a value at every frame: a fused cell takes no time-constant input."""
        symbol = self.symbol(operand)
        if symbol.extent != "constant":
            return symbol
        features, batch = symbol.shape
        return self.append("expand", symbol, features=features, batch=batch)[0]

    # Numbering

    def layer(self, index: int | None) -> int:
        """The number of a new recurrent layer; None for one more than the largest so far."""
        if index is None:
            index = self._last_layer + 1
        index = arrays.integer(index, "layer_index", 0)
        self._last_layer = max(self._last_layer, index)
        return index

    def dense_name(self) -> str:
        """The name of the next dense layer that was given none."""
        self._unnamed_dense += 1
        return f"dense_{self._unnamed_dense - 1}"

    def embedding_name(self) -> str:
        """The name of the next embedding that was given none."""
        self._unnamed_embeddings += 1
        return f"embedding_{self._unnamed_embeddings - 1}"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the net."""
        return self._dtype

    # What values need

    def settable(self, count: int) -> list[Symbol]:
        """The first `count` values that the frame returned, which must be placeholders.

        Raises:
            UsageError: they are not.
        """
        symbols = list(self.returned[:count])
        if len(symbols) != count:
            raise UsageError(f"{count} values are to be fed, of {len(symbols)} that are returned")
        for position, each in enumerate(symbols):
            if each not in self.placeholders:
                raise UsageError(
                    f"value {position} that the frame returned is no placeholder, but {each!r}"
                )
        return symbols

    def inputs(self, values: Sequence[int]) -> list[Symbol]:
        """The placeholders that these values need: the returned ones first, in returned order."""
        needed = set(self.graph.placeholders_of(list(values)))
        order = [each for each in self.returned if isinstance(each, Symbol)] + self.placeholders
        return [each for each in dict.fromkeys(order) if each.id in needed]

    def carried(self, values: Sequence[int]) -> list[int]:
        """The past values whose recurrences need no other placeholders than these values do.

        They are computed along with them, so that no state goes stale unseen.
        """
        fed = set(self.graph.placeholders_of(list(values)))
        pasts = [recurrence.past.id for recurrence in self.recurrences.values()]
        return [past for past in pasts if fed.issuperset(self.graph.placeholders_of([past]))]

    def _symbol(self, id: int, kind: str, name: str = "") -> Symbol:
        symbol = Symbol(self, id, self.graph.shape(id), name)
        held = self.frames if self.segment is None else min(self.segment, self.frames)
        frames = held if symbol.extent == "frame" else 1
        arrays.room(
            frames * symbol.shape[0] * symbol.shape[1],
            f"a {kind.split()[0]} of shape {symbol.shape} over {frames} frames",
        )
        self._numbers[id] = len(self._numbers)
        features = symbol.shape[0]  # a file says by its tensors how many columns there are
        self._nodes.append(f"{kind} {name} {features}")
        return symbol


def _name(name: str, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"the name of {what} is text, and not empty; got {arrays.shown(name)}")
    try:
        name.encode()  # weights are drawn by it, and checkpoints hold it
    except UnicodeEncodeError:
        raise UsageError(f"the name of {what} is no valid text: {name!r}") from None
    return name
