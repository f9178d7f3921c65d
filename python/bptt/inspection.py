"""Looking inside a net: what it does over time, and how far back its gradients reach.

Both leave it as it is: weights, states and counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays
from bptt.errors import ShapeError, UsageError
from bptt.net import Net
from bptt.numerics import Array
from bptt.optimisers import matching
from bptt.symbol import Symbol
from bptt.trace import Trace

Recorded: TypeAlias = str | Sequence[str] | Mapping[str, Symbol] | None


def record(
    net: Net,
    data: Sequence[npt.ArrayLike],
    values: Recorded,
    depth: str,
    resets: npt.ArrayLike | None,
    masks: npt.ArrayLike | None,
) -> dict[str, Array]:
    """See `BPTT.record`."""
    trace = net.trace(depth)
    named = {name: named for name, (_, named) in trace.graph.recurrences.items()}
    gates = trace.graph.gates
    if isinstance(values, Mapping):
        chosen, inside = _symbols(net, trace, values), []
    else:
        names = [*sorted(named), *sorted(gates, key=gates.__getitem__)]  # cell by cell
        wanted = names if values is None else _fitting(values, names, "what is recorded")
        chosen = {name: named[name] for name in wanted if name in named}
        inside = [name for name in wanted if name in gates]
    outputs = [*chosen.values()]
    fetches = [*outputs, *(gates[name][0] for name in inside)]
    if not fetches:
        return {}
    program = net.program(trace, 1, [*fetches, *trace.carried(fetches)])
    streams = net.streams(program, trace.inputs(fetches), data)
    rows = net.rows(trace, len(streams[0]), resets, masks)
    found = _core.predict(
        program,
        net.state_copy(depth),
        streams,
        outputs,
        gates=[gates[name] for name in inside],
        **rows,
    )
    return dict(zip([*chosen, *inside], found, strict=True))


def gradient_norms(
    net: Net,
    loss: Symbol,
    data: Sequence[npt.ArrayLike],
    states: str | Sequence[str] | None,
    start: int,
    last: int,
) -> dict[str, Array]:
    """See `BPTT.gradient_norms`."""
    loss = net.scalar_loss(loss)
    trace = loss.trace
    frames = trace.frames
    last = arrays.integer(last, "last, a number of frames,", 1, frames)
    pairs = trace.graph.recurrences
    if states is None:
        reached = set(trace.carried([loss.id]))
        names = [name for name in sorted(pairs) if pairs[name][0] in reached]
    else:
        names = _fitting(states, sorted(pairs), "states")
    pasts = [pairs[name][0] for name in names]
    # As it was traced: a pass may take a value and its users together, whose part of its gradient
    # then never gets to its buffer.
    program = net.new_program(trace, frames, [loss.id], loss.id, pasts, passes=False)
    streams = net.streams(program, trace.inputs([loss.id, *pasts]), data)
    if len(streams[0]) < frames:
        raise ShapeError(
            f"the data have {len(streams[0])} frames, fewer than one window of {frames}"
        )
    start = arrays.integer(start, "start, of a window in the data,", 0, len(streams[0]) - frames)
    for placeholder, stream in zip(program.placeholders, streams, strict=True):
        program.feed(placeholder, stream[start : start + frames])
    state = net.states[trace.depth]
    for name in program.pasts:
        program.set_past(name, state.get(name))
    program.mark(counted=frames - last)
    program.forward(state.frame)
    program.backward()
    norms = {}
    for name in names:
        gradient = program.gradient(pairs[name][1])[::-1]
        arrays.finite(gradient, f"the gradient of {name!r}")
        if states is not None or gradient.any():  # a mask of dropout has none, say
            norms[name] = np.linalg.norm(gradient, axis=1)
    return norms


def _symbols(net: Net, trace: Trace, values: Mapping[str, Symbol]) -> dict[str, int]:
    """By name, the ids of a user's symbols.

    Raises:
        UsageError: a name that is no text, or no frame value of this graph.
    """
    chosen = {}
    for name, value in values.items():
        symbol = net.own(value)
        if not isinstance(name, str):
            raise UsageError(f"what is recorded has a name, got {arrays.shown(name)}")
        if symbol.trace is not trace or symbol.extent == "window":
            raise UsageError(f"values at each frame of the {trace.depth} graph, got {symbol}")
        chosen[name] = symbol.id
    return chosen


def _fitting(patterns: str | Sequence[str], names: Sequence[str], what: str) -> list[str]:
    """The names that fit one of the patterns, in their order.

    Raises:
        UsageError: a pattern that is no text, or fits none.
    """
    each = [patterns] if isinstance(patterns, str) else arrays.listed(patterns, what)
    fitting = {name for pattern in each for name in matching(pattern, names, what, "value")}
    return [name for name in names if name in fitting]
