"""Training: what `minimize` returns, and the walk over data in consecutive windows."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays, checkpoint
from bptt.checkpoint import SavedTraining
from bptt.errors import ShapeError, UsageError
from bptt.net import Net, Rows
from bptt.numerics import Array, Training
from bptt.optimisers import Clip, Optimiser, decays, frozen, positive
from bptt.progress import Bar
from bptt.schedules import rate_of
from bptt.symbol import Symbol
from bptt.trace import Trace

_AHEAD = 4096  # windows whose rates are asked of a schedule at a time


@dataclass(frozen=True)
class History:
    """What `BPTT.fit` saw: ``history["loss"]``, and each metric by its name.

    Attributes:
        loss: the loss of each window before its update, ``(steps,)``.
        stopped: whether the callback asked to stop.
        metrics: of the same windows, each ``(steps,)``, by name.
    """

    loss: Array
    stopped: bool = False
    metrics: Mapping[str, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """The loss, or the metric of this name."""
        return self.loss if name == "loss" else self.metrics[name]


class TrainingOperation:
    """A loss with the optimiser that lowers it, for `BPTT.run` and `BPTT.fit`.

    Attributes:
        loss: the window value that is minimised.
        optimizer: as given to `BPTT.minimize`.
        clip: as given, or None.
        frozen: the names of the weights that it leaves alone.
        assigned_rate: the learning rate that was assigned last; None if none was.
    """

    def __init__(
        self,
        net: Net,
        loss: Symbol,
        optimizer: Optimiser,
        clip: Clip | None,
        patterns: Sequence[str] = (),
    ) -> None:
        if not isinstance(optimizer, Optimiser):
            raise UsageError(
                f"the optimizer is a bptt.Adam or another of docs/optimisers.md, got {optimizer!r}"
            )
        if clip is not None and (isinstance(clip, type) or not hasattr(clip, "build")):
            raise UsageError(
                f"clip is a bptt.ClipByValue, a bptt.ClipByGlobalNorm or None, got {clip!r}"
            )
        self.loss = net.scalar_loss(loss)
        self.optimizer = optimizer
        self.clip = clip
        self.frozen = frozen(patterns, net.weights.names)
        self.assigned_rate: float | None = None
        numerics = net.numerics
        self.core: Training = numerics.Training(
            net.weights,
            clip.build(numerics) if clip else numerics.Clip.none(),
            optimizer.build(numerics),
            decays(optimizer, net.weights.names),
            {*self.frozen},
        )
        if not self.scheduled:
            name = f"{type(optimizer).__name__}'s learning_rate"
            self.core.plan([positive(name, self.learning_rate, numerics)])

    @property
    def learning_rate(self) -> float:
        """The rate of the next update; assignable, finite and positive.

        A rate that is assigned takes the place of the optimiser's own, a schedule's too.
        """
        rate = self.optimizer.learning_rate
        if self.assigned_rate is not None:
            return self.assigned_rate
        return rate_of(rate, self.steps) if callable(rate) else rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        net = self.loss.trace.net
        with net.exclusive:
            self.assign(positive("the learning rate", rate, net.numerics))

    def assign(self, rate: float) -> None:
        """Set the learning rate, for those that have the net to themselves."""
        self.assigned_rate = rate
        self.core.plan([rate])

    @property
    def scheduled(self) -> bool:
        """Whether the rate comes from a schedule."""
        return self.assigned_rate is None and callable(self.optimizer.learning_rate)

    def plan(self, updates: int) -> None:
        """Let the core know the rates of so many coming updates.

        Raises:
            UsageError: a schedule gives a rate that is negative, or not finite in the net's dtype.
        """
        schedule = self.optimizer.learning_rate
        if self.assigned_rate is None and callable(schedule):
            dtype, first = self.loss.trace.net.numerics.dtype, self.steps
            steps = range(first, first + updates)
            self.core.plan([rate_of(schedule, step, dtype) for step in steps])

    @property
    def steps(self) -> int:
        """How many updates were made."""
        return self.core.steps

    def saved(self) -> SavedTraining:
        """What a checkpoint keeps of it."""
        return SavedTraining.of(self, self.loss.trace.weights.names)

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainingOperation:
        """The same operation on a copy of its net, which is made along with it."""
        here = self.loss.trace.net
        net = copy.deepcopy(here, memo)
        loss = copy.deepcopy(self.loss, memo)
        train = TrainingOperation(net, loss, self.optimizer, self.clip, self.frozen)
        number = here.trainings.index(self)
        self.saved().resume(train)
        net.trainings[number] = train
        return train

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError(
            "a training operation is not pickled: bp.save(path) keeps its moments and counters, "
            "and after bptt.load(path, frame) bp.minimize takes them up"
        )

    def __repr__(self) -> str:
        clip = f", clip={self.clip}" if self.clip else ""
        frozen = f", frozen={self.frozen}" if self.frozen else ""
        return (
            f"<TrainingOperation of {self.loss}: {self.optimizer}{clip}{frozen}, "
            f"{self.steps} updates>"
        )


def fit(
    net: Net,
    train: TrainingOperation,
    data: Sequence[npt.ArrayLike],
    steps: int | None,
    start: int = 0,
    callback: Callable[[int, float], object] | None = None,
    every: int = 1,
    path: str | os.PathLike[str] | None = None,
    period: int | None = None,
    metrics: Mapping[str, Symbol] | None = None,
    resets: npt.ArrayLike | None = None,
    masks: npt.ArrayLike | None = None,
    stride: int | None = None,
    progress: Bar | bool = False,
) -> History:
    """See `BPTT.fit`; `path` and `period` are where and how often checkpoints are written.

    `progress` may be a bar that goes over more than this call.
    """
    if not isinstance(train, TrainingOperation):
        raise UsageError(f"fit takes what bp.minimize returned, got {train!r}")
    loss = net.own(train.loss)
    trace = loss.trace
    watched = _metrics(net, metrics, trace)
    values = [loss.id, *watched.values()]
    fetches = [*values, *trace.carried(values)]
    program = net.program(trace, trace.frames, fetches, loss.id, frozen=train.frozen)
    streams = net.streams(program, trace.inputs(values), data)
    length, depth = len(streams[0]), trace.frames
    if length < depth:
        raise ShapeError(f"the data have {length} frames, fewer than one window of {depth}")
    start = arrays.integer(start, "start, a frame of the data,", 0, length - 1)
    stride = depth if stride is None else arrays.integer(stride, "stride", 1, depth)
    rows = net.rows(trace, length, resets, masks)
    steps = -(-length // stride) if steps is None else arrays.integer(steps, "steps", 0)
    arrays.room(steps, f"the losses of {steps} steps")
    every = arrays.integer(every, "every", 1)
    if callback is not None and not callable(callback):
        raise UsageError(f"callback is a function of step and loss, got {arrays.shown(callback)}")

    if path is not None:
        checkpoint.check_place(path)
    elif period is not None:
        raise UsageError("checkpoint_every says how often to write; checkpoint says where to")
    periods = [every] if callback else []
    if period is not None:
        periods.append(arrays.integer(period, "checkpoint_every", 1))

    if train.scheduled:
        periods.append(_AHEAD)

    state = net.states[trace.depth]
    losses: list[Array] = []
    kept: dict[str, list[Array]] = {name: [] for name in watched}
    done, stopped = 0, False
    bar = progress if isinstance(progress, Bar) else Bar(steps, progress)
    try:
        while done < steps and not stopped:
            first = (start + done * stride) % length
            count = min(steps - done, bar.ahead(), *(each - done % each for each in periods))
            train.plan(count)
            room = [np.empty(count, net.numerics.dtype) for _ in watched]
            before = state.frame
            try:
                losses.append(
                    _core.fit(
                        program,
                        state,
                        train.core,
                        streams,
                        first,
                        count,
                        watched=[*watched.values()],
                        room=room,
                        stride=stride,
                        **rows,
                    )
                )
            finally:  # also when interrupted: by as many frames as the state went on
                done += (state.frame - before) // stride
            for name, numbers in zip(watched, room, strict=True):
                kept[name].append(numbers)
            bar.advance(count, losses[-1][-1])
            net.next_frame = (start + done * stride) % length  # for the callback and the checkpoint
            if callback and done % every == 0:
                with net.lent():
                    stopped = bool(callback(done, float(losses[-1][-1])))
            if path is not None and (
                stopped or done == steps or (period is not None and done % period == 0)
            ):
                checkpoint.write(net, path)
    finally:
        net.next_frame = (start + done * stride) % length
        if bar is not progress:
            bar.close()

    def joined(parts: list[Array]) -> Array:
        return np.concatenate([np.zeros(0, net.numerics.dtype), *parts])

    return History(joined(losses), stopped, {n: joined(parts) for n, parts in kept.items()})


def _metrics(net: Net, metrics: Mapping[str, Symbol] | None, trace: Trace) -> dict[str, int]:
    """By name, the window values to watch beside the loss.

    Raises:
        UsageError: no mapping of names to window values of the loss's graph.
        ShapeError: one has more than one number.
    """
    if metrics is not None and not isinstance(metrics, Mapping):
        raise UsageError(f"metrics maps names to window values, got {arrays.shown(metrics)}")
    found: dict[str, int] = {}
    for name, value in (metrics or {}).items():
        if not isinstance(name, str) or name == "loss":
            raise UsageError(f'a metric has a name, other than "loss"; got {arrays.shown(name)}')
        symbol = net.scalar_loss(value)
        if symbol.trace is not trace:
            raise UsageError(f"the metric {name!r} is of another graph than the loss")
        found[name] = symbol.id
    return found


def short_window(net: Net, train: TrainingOperation, data: Sequence[Array]) -> float:
    """Train on one window of all frames of the data, of any number; its loss before the update."""
    loss = train.loss
    trace = loss.trace
    fetches = [loss.id, *trace.carried([loss.id])]
    program = net.program(trace, len(data[0]), fetches, loss.id, frozen=train.frozen)
    streams = net.streams(program, trace.inputs([loss.id]), data)
    train.plan(1)
    return float(_core.fit(program, net.states[trace.depth], train.core, streams, 0, 1)[0])


def evaluate(
    net: Net,
    loss: Symbol,
    data: Sequence[npt.ArrayLike],
    resets: npt.ArrayLike | None,
    masks: npt.ArrayLike | None,
) -> float:
    """See `BPTT.evaluate`."""
    loss = net.scalar_loss(loss)
    trace = loss.trace
    fetches = [loss.id, *trace.carried([loss.id])]
    state = net.state_copy(trace.depth)
    program = net.program(trace, trace.frames, fetches, loss.id)
    streams = net.streams(program, trace.inputs([loss.id]), data)
    length = len(streams[0])
    rows = net.rows(trace, length, resets, masks)
    windows, rest = divmod(length, trace.frames)
    losses = [_core.fit(program, state, None, streams, 0, windows, **rows)] if windows else []
    if rest:
        program = net.program(trace, rest, fetches, loss.id)
        tails = [stream[length - rest :] for stream in streams]
        tail_rows: Rows = {
            "resets": None if rows["resets"] is None else rows["resets"][length - rest :],
            "masks": None if rows["masks"] is None else rows["masks"][length - rest :],
        }
        losses.append(_core.fit(program, state, None, tails, 0, 1, **tail_rows))
    valid = rows["masks"]
    counts = np.ones(length) if valid is None else valid.sum(axis=1)
    weights = np.add.reduceat(counts, range(0, length, trace.frames), dtype=np.float64)
    total = float(np.concatenate(losses, dtype=np.float64) @ weights)
    mean = total / weights.sum() if weights.any() else 0.0
    return arrays.finite(np.asarray(mean), "the loss over the data").item()
