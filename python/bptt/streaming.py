"""Shallow runs: a whole sequence frame by frame, or one frame at a time as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays
from bptt.errors import NonFiniteError, UsageError
from bptt.net import Net, matched
from bptt.numerics import Array, State
from bptt.symbol import Symbol
from bptt.trace import Trace
from bptt.views import StateView


def predict(
    net: Net, trace: Trace, data: Sequence[npt.ArrayLike], outputs: Sequence[Symbol] | None
) -> list[Array]:
    """See `BPTT.predict`."""
    wanted = _outputs(net, trace, outputs)
    program = net.program(trace, 1, [*wanted, *trace.carried(wanted)])
    streams = net.streams(program, trace.inputs(wanted), data)
    return _core.predict(program, net.states[trace.depth], streams, wanted)


class Stepper:
    """The streaming call without any conversion: fill the inputs, call it, read the output.

    Made by `BPTT.stepper`. One call is one frame: the state goes one frame on.

    Attributes:
        inputs: writable live arrays ``(features, batch)``, one for each placeholder that the
            outputs need, in returned order.
        outputs: read-only live arrays ``(features, batch)``, overwritten by the next call.
        output: the last of the outputs.
        state: the state it carries, a mapping; the net's shallow state, or its own.

    Example::

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
        self._advance = net.numerics.Stepper(program, state, net.exclusive, wanted)
        self._symbols = trace.inputs(wanted)
        live = dict(zip(program.placeholders, self._advance.inputs, strict=True))
        self.inputs: tuple[Array, ...] = tuple(live[symbol.id] for symbol in self._symbols)
        self.outputs: tuple[Array, ...] = tuple(self._advance.outputs)
        self.output: Array = self.outputs[-1]
        self.state = StateView(net, state)
        self._dtype = net.numerics.dtype
        self._views = [(view, view.shape) for view in self.inputs]

    def __call__(self) -> None:
        """Compute one frame from the inputs and carry the state.

        Raises:
            NonFiniteError: an input holds NaN or infinity; nothing was computed then.
        """
        try:
            self._advance()
        except NonFiniteError:  # the core sees that there is one
            for symbol, view in zip(self._symbols, self.inputs, strict=True):
                arrays.finite(view, f"the input {symbol.name!r}")
            raise

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
        plain = values.__class__ is tuple or values.__class__ is list
        if not plain or len(values) != len(self._views):
            matched(self._symbols, values)
        for (view, shape), array in zip(self._views, values, strict=True):
            if (
                array.__class__ is not np.ndarray
                or array.shape != shape
                or array.dtype != self._dtype
            ):
                array = arrays.conform(array, shape, self._dtype, "the input of a step")
            view[...] = array


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
