"""Shallow runs: a whole sequence frame by frame, or one frame at a time as it comes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy.typing as npt

from bptt import _core, arrays
from bptt.blocks import Block, Windows, ahead, own_rows
from bptt.data import Dataset
from bptt.errors import UsageError
from bptt.net import Net, matched
from bptt.numerics import Array, Program, State
from bptt.symbol import Symbol
from bptt.trace import Trace
from bptt.views import StateView


def predict(
    net: Net,
    trace: Trace,
    data: Sequence[npt.ArrayLike] | Dataset,
    outputs: Sequence[Symbol] | None,
    resets: npt.ArrayLike | None,
    masks: npt.ArrayLike | None,
) -> list[Any]:
    """See `BPTT.predict`."""
    wanted = _outputs(net, trace, outputs)
    program = net.program(trace, 1, [*wanted, *trace.carried(wanted)])
    if isinstance(data, Dataset):
        own_rows(net, trace, resets, masks)
        return _of_dataset(net, trace, data, wanted, program)
    streams = net.streams(program, trace.inputs(wanted), data)
    rows = net.rows(trace, len(streams[0]), resets, masks)
    return _core.predict(program, net.states[trace.depth], streams, wanted, **rows)


def _of_dataset(
    net: Net, trace: Trace, dataset: Dataset, wanted: list[int], program: Program
) -> list[Any]:
    """Each output as the dataset gives it, of sequences that all begin at the starting state."""
    windows = Windows.of(net, trace, wanted, program, 1)
    for id in wanted:
        if trace.graph.shape(id)[1] not in (1, windows.lanes):
            raise UsageError(
                f"an output of shape {trace.graph.shape(id)} has no {windows.lanes} lanes that "
                "sequences could be in"
            )
    state = net.state_copy(trace.depth)
    found: list[list[Array]] = [[] for _ in wanted]
    blocks: list[Block] = []
    with contextlib.closing(ahead(dataset.once(windows))) as walk:
        for block in walk:
            results = _core.predict(program, state, block.streams, wanted, **block.rows)
            blocks.append(replace(block, streams=[]))
            for parts, result in zip(found, results, strict=True):
                parts.append(result)
    return [dataset.gather(zip(blocks, parts, strict=True)) for parts in found]


class Stepper(_core.Stepper):
    """The streaming call without any conversion: fill the inputs, call it, read the output.

    Made by `BPTT.stepper`. One call is one frame: the state goes one frame on. It raises
    `NonFiniteError`, with nothing computed, when an input holds NaN or infinity. The core's class
    below makes the call; nothing of it is written in Python.

    Attributes:
        inputs: writable live arrays ``(features, batch)``, one for each placeholder that the
            outputs need, in returned order.
        outputs: read-only live arrays ``(features, batch)``, overwritten by the next call.
        output: the last of the outputs.
        state: the state it carries, a mapping; the net's shallow state, or its own.

    Example:
        .. code-block:: python

            stepper = bp.stepper()
            for x_t in stream:
                stepper.inputs[0][...] = x_t
                stepper()
                use(stepper.output)
    """

    def __init__(
        self, net: Net, trace: Trace, outputs: Sequence[Symbol] | None, state: State
    ) -> None:
        wanted = _outputs(net, trace, outputs)
        program = net.new_program(trace, 1, [*wanted, *trace.carried(wanted)])
        self._symbols = trace.inputs(wanted)
        fed = [(symbol.id, _called(symbol)) for symbol in self._symbols]
        live = self.open(program, state, net.exclusive, fed, wanted)
        self.inputs: tuple[Array, ...] = live[0]
        self.outputs: tuple[Array, ...] = live[1]
        self.output: Array = live[1][-1]
        self.state = StateView(net, state)
        self._dtype = net.numerics.dtype
        self._wanted = tuple(outputs or ())  # stay alive: `BPTT.step` knows them by their ids

    if TYPE_CHECKING:  # at run time it is the core's

        def __call__(self) -> None:
            """Compute one frame from the inputs and carry the state."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError(
            "a stepper is neither copied nor pickled: it is bound to its net. Make another with "
            "bp.stepper(); its state is stepper.state"
        )

    def feed(self, values: Sequence[npt.ArrayLike]) -> None:
        """Copy one array ``(features, batch)`` into each input; axes of length 1 may be missing.

        Raises:
            ShapeError: an array of another shape; the inputs before it are overwritten.
            UsageError: no list, another number of arrays, or no numbers.
        """
        if self.take(values):  # the usual arrays and numbers need nothing of numpy
            return
        matched(self._symbols, values)
        for symbol, view, value in zip(self._symbols, self.inputs, values, strict=True):
            view[...] = arrays.conform(value, symbol.shape, self._dtype, _called(symbol))


def _called(symbol: Symbol) -> str:
    return f"the input {symbol.name!r}"


def _outputs(net: Net, trace: Trace, outputs: Sequence[Symbol] | None) -> list[int]:
    """The ids of what is to be computed; by default the last symbol that the frame returned."""
    if outputs is None:
        return [[each for each in trace.returned if isinstance(each, Symbol)][-1].id]
    for each in arrays.listed(outputs, "outputs"):
        if net.own(each).trace is not trace:
            raise UsageError(f"outputs are symbols of the {trace.depth} graph, got {each}")
        if each.extent == "window":
            raise UsageError(f"outputs are values of every frame, got {each}")
    if not outputs:
        raise UsageError("outputs is an empty list")
    return [each.id for each in outputs]
