"""One window at a time: what a list of fetches asks of a program.

A plan is made once per list of fetches and kept; running it is a few calls into the core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt import arrays
from bptt.errors import NonFiniteError, UsageError
from bptt.net import Net
from bptt.numerics import Array
from bptt.symbol import Symbol
from bptt.trace import StateHandle, Trace
from bptt.training import TrainingOperation
from bptt.views import known

RESETS, MASKS = "resets", "masks"  # what a feed calls them

Feed: TypeAlias = Mapping[Symbol | str, npt.ArrayLike]


Fetch: TypeAlias = Symbol | StateHandle | TrainingOperation


class Feeder:
    """Sets a program's placeholders, incoming state and marks from a feed."""

    def __init__(self, net: Net, trace: Trace, program: Any) -> None:
        self._net = net
        self._trace = trace
        self._dtype = net.numerics.dtype
        by_id = {symbol.id: symbol for symbol in trace.placeholders}
        symbols = [by_id[id] for id in program.placeholders]
        pasts = [trace.recurrences[name].past for name in program.pasts]
        frames = program.frames
        self._windows = [(symbol, symbol.id, (frames, *symbol.shape)) for symbol in symbols]
        self._states = [(symbol, symbol.name, symbol.shape) for symbol in pasts]
        self._count = len(symbols) + len(pasts)
        self._feed = program.feed
        self._set_past = program.set_past
        self._mark = program.mark

    def __call__(self, feed: Feed) -> None:
        """Copy the arrays of `feed` into the program."""
        dtype = self._dtype
        try:
            for symbol, id, full in self._windows:
                values = feed[symbol]
                if (
                    values.__class__ is not np.ndarray
                    or values.dtype != dtype
                    or values.shape != full
                ):
                    what = f"the feed of {symbol.name!r}"
                    values = arrays.window(values, full[0], symbol.shape, dtype, what)
                self._feed(id, values)
            for symbol, name, shape in self._states:
                values = feed[symbol]
                if (
                    values.__class__ is not np.ndarray
                    or values.dtype != dtype
                    or values.shape != shape
                ):
                    values = arrays.lanes(values, shape, dtype, f"the feed of the state {name!r}")
                self._set_past(name, values)
        except (KeyError, TypeError):
            self._check(feed)
            raise
        except NonFiniteError:  # the core sees that there is one
            self._find(feed)
            raise
        if len(feed) == self._count:
            self._mark()
            return
        self._check(feed)
        frames = self._trace.frames
        self._mark(**self._net.rows(self._trace, frames, feed.get(RESETS), feed.get(MASKS)))

    def _check(self, feed: Feed) -> None:
        """Refuse what is no feed of this mode, and a feed that lacks something."""
        if not isinstance(feed, Mapping):
            raise UsageError(f"a feed maps symbols to arrays, got {arrays.shown(feed)}")
        trace = self._trace
        pasts = [recurrence.past for recurrence in trace.recurrences.values()]
        feeds = {*trace.placeholders, *pasts}
        for key in feed:
            if key not in feeds and key not in (RESETS, MASKS):
                raise UsageError(
                    f"{key!r} cannot be fed: feeds are placeholders and past values of the "
                    f"{trace.depth} graph, {RESETS!r} and {MASKS!r}"
                )
        for symbol, _, full in self._windows:
            if symbol not in feed:
                raise UsageError(f"the feed lacks the placeholder {symbol.name!r}, {full}")
        for symbol, name, shape in self._states:
            if symbol not in feed:
                raise UsageError(f"the feed lacks the state {name!r}, {shape}")

    def _find(self, feed: Feed) -> None:
        """Say which feed is not finite, and where."""
        for symbol, _, full in self._windows:
            what = f"the feed of {symbol.name!r}"
            window = arrays.window(feed[symbol], full[0], symbol.shape, self._dtype, what)
            arrays.finite(window, what)
        for symbol, name, shape in self._states:
            what = f"the feed of the state {name!r}"
            arrays.finite(arrays.lanes(feed[symbol], shape, self._dtype, what), what)


class Plan:
    """The program, the feeds and the results of one list of fetches."""

    def __init__(self, net: Net, fetches: Sequence[Fetch]) -> None:
        self._fetches = list(fetches)  # keeps them, and so the plan's key, alive
        trace = _mode(net, fetches)
        values: list[int] = []
        trainings: list[TrainingOperation] = []
        for fetch in fetches:
            if isinstance(fetch, TrainingOperation):
                trainings.append(fetch)
                values.append(fetch.loss.id)
            elif isinstance(fetch, StateHandle):
                values.append(trace.recurrences[fetch.name].past.id)
            else:
                values.append(fetch.id)
        if len(trainings) > 1:
            raise UsageError(f"one run takes one training operation, got {len(trainings)}")
        self._train = trainings[0] if trainings else None
        loss = self._train.loss.id if self._train else None
        self._state = net.states[trace.depth]
        self._frames = trace.frames
        frozen = self._train.frozen if self._train else []
        self._program = net.program(trace, trace.frames, values, loss, frozen=frozen)
        self._feed = Feeder(net, trace, self._program)
        self._readers = [self._reader(fetch) for fetch in fetches]

    def run(self, feed: Feed) -> list[Any]:
        """One window: results, then the update if there is one to make."""
        self._feed(feed)
        frame = self._state.frame
        program = self._program
        program.forward(frame)
        results = [read() for read in self._readers]
        train = self._train
        if train is not None:
            train.plan(1)
            train.core.step(program)
        self._state.frame = frame + self._frames
        return results

    def _reader(self, fetch: Fetch) -> Callable[[], Array | float | None]:
        program = self._program
        if isinstance(fetch, TrainingOperation):
            return lambda: None
        if isinstance(fetch, StateHandle):
            name, last = fetch.name, program.last
            return lambda: last(name)
        id, value = fetch.id, program.value
        program.keep(id)
        if fetch.extent == "window" and fetch.shape == (1, 1):
            return lambda: float(value(id).item())
        return lambda: value(id)


class Gradients(dict[str, Array]):
    """Gradients by name; a symbol that has the name finds its gradient too."""

    def __missing__(self, key: object) -> Array:
        if isinstance(key, Symbol) and key.name in self:
            return self[key.name]
        raise KeyError(key)


def gradients(net: Net, loss: Symbol, feed: Feed, wrt: Sequence[str | Symbol] | None) -> Gradients:
    """See `BPTT.gradients`."""
    loss = net.scalar_loss(loss)
    trace = loss.trace
    targets = _targets(net, trace, net.weights.names if wrt is None else wrt)
    inputs = [symbol.id for symbol in targets.values() if symbol is not None]
    program = net.program(trace, trace.frames, [loss.id], loss.id, inputs)
    Feeder(net, trace, program)(feed)
    program.forward(net.states[trace.depth].frame)
    program.backward()
    found = Gradients()
    for name, symbol in targets.items():
        if symbol is None:
            found[name] = net.weights.gradient(name)
        elif symbol in trace.placeholders:
            found[name] = program.gradient(symbol.id)
        else:  # frame 0 of a past value is the state that came in
            found[name] = program.gradient(symbol.id)[0].copy()
    for name, gradient in found.items():
        arrays.finite(gradient, f"the gradient of {name!r}")
    return found


def _targets(net: Net, trace: Trace, wrt: Sequence[str | Symbol]) -> dict[str, Symbol | None]:
    """By name, what to differentiate by: None stands for a weight."""
    targets: dict[str, Symbol | None] = {}
    pasts = [recurrence.past for recurrence in trace.recurrences.values()]
    for each in arrays.listed(wrt, "wrt"):
        symbol = net.own(each) if isinstance(each, Symbol) else None
        name = each.name if isinstance(each, Symbol) else each
        if symbol is None or symbol in trace.variables.values():
            known(name, net.weights.names, "weight")
            symbol = None
        elif symbol not in trace.placeholders and symbol not in pasts:
            raise UsageError(
                f"wrt lists weights, and placeholders and past values of the {trace.depth} graph; "
                f"got {symbol}"
            )
        if targets.get(name, symbol) is not symbol:
            raise UsageError(f"wrt lists two different things called {name!r}")
        targets[name] = symbol
    return targets


def _mode(net: Net, fetches: Sequence[Fetch]) -> Trace:
    """The one mode that all fetches belong to."""
    modes = []
    for fetch in fetches:
        if isinstance(fetch, TrainingOperation):
            modes.append(net.own(fetch.loss).trace)
        elif isinstance(fetch, StateHandle):
            if net.traces[fetch.trace.depth] is not fetch.trace:
                raise UsageError(f"{fetch} belongs to another BPTT")
            modes.append(fetch.trace)
        else:
            modes.append(net.own(fetch).trace)
    for mode in modes:
        if mode is not modes[0]:
            raise UsageError("one run fetches from one graph, deep or shallow, not from both")
    return modes[0]
