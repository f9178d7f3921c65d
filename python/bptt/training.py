"""Training: what `minimize` returns, and the walk over data in consecutive windows."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays, checkpoint
from bptt.checkpoint import SavedTraining
from bptt.errors import ShapeError, UsageError
from bptt.net import Net
from bptt.numerics import Array, Training
from bptt.optimisers import Adam, Clip, positive
from bptt.symbol import Symbol


@dataclass(frozen=True)
class History:
    """What `BPTT.fit` saw.

    Attributes:
        loss: the loss of each window before its update, ``(steps,)``.
        stopped: whether the callback asked to stop.
    """

    loss: Array
    stopped: bool = False


class TrainingOperation:
    """A loss with the optimiser that lowers it, for `BPTT.run` and `BPTT.fit`.

    Attributes:
        loss: the window value that is minimised.
        optimizer: as given to `BPTT.minimize`.
        clip: as given, or None.
    """

    def __init__(self, net: Net, loss: Symbol, optimizer: Adam, clip: Clip | None) -> None:
        if not isinstance(optimizer, Adam):
            raise UsageError(f"the optimizer is a bptt.Adam, got {optimizer!r}")
        if clip is not None and (isinstance(clip, type) or not hasattr(clip, "build")):
            raise UsageError(
                f"clip is a bptt.ClipByValue, a bptt.ClipByGlobalNorm or None, got {clip!r}"
            )
        self.loss = net.scalar_loss(loss)
        self.optimizer = optimizer
        self.clip = clip
        numerics = net.numerics
        self.core: Training = numerics.Training(
            net.weights,
            clip.build(numerics) if clip else numerics.Clip.none(),
            optimizer.build(numerics),
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the next update; assignable, finite and positive."""
        return self.core.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        net = self.loss.trace.net
        with net.exclusive:
            self.core.learning_rate = positive("the learning rate", rate, net.numerics)

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
        train = TrainingOperation(net, copy.deepcopy(self.loss, memo), self.optimizer, self.clip)
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
        return f"<TrainingOperation of {self.loss}: {self.optimizer}{clip}, {self.steps} updates>"


def fit(
    net: Net,
    train: TrainingOperation,
    data: Sequence[npt.ArrayLike],
    steps: int | None,
    start: int,
    callback: Callable[[int, float], object] | None,
    every: int,
    path: str | os.PathLike[str] | None,
    period: int | None,
) -> History:
    """See `BPTT.fit`; `path` and `period` are where and how often checkpoints are written."""
    if not isinstance(train, TrainingOperation):
        raise UsageError(f"fit takes what bp.minimize returned, got {train!r}")
    loss = net.own(train.loss)
    trace = loss.trace
    program = net.program(trace, trace.frames, [loss.id, *trace.carried([loss.id])], loss.id)
    streams = net.streams(program, trace.inputs([loss.id]), data)
    length, depth = len(streams[0]), trace.frames
    if length < depth:
        raise ShapeError(f"the data have {length} frames, fewer than one window of {depth}")
    start = arrays.integer(start, "start, a frame of the data,", 0, length - 1)
    steps = -(-length // depth) if steps is None else arrays.integer(steps, "steps", 0)
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

    state, before = net.states[trace.depth], train.steps
    losses: list[Array] = []
    done, stopped = 0, False
    try:
        while done < steps and not stopped:
            first = (start + done * depth) % length
            count = min(steps - done, *(each - done % each for each in periods), steps)
            losses.append(_core.fit(program, state, train.core, streams, first, count))
            done += count
            net.next_frame = (start + done * depth) % length  # for the callback and the checkpoint
            if callback and done % every == 0:
                stopped = bool(callback(done, float(losses[-1][-1])))
            if path is not None and (
                stopped or done == steps or (period is not None and done % period == 0)
            ):
                checkpoint.write(net, path)
    finally:  # also when interrupted: as many windows as there were updates
        net.next_frame = (start + (train.steps - before) * depth) % length
    return History(np.concatenate([np.zeros(0, net.numerics.dtype), *losses]), stopped)


def evaluate(net: Net, loss: Symbol, data: Sequence[npt.ArrayLike]) -> float:
    """See `BPTT.evaluate`."""
    loss = net.scalar_loss(loss)
    trace = loss.trace
    fetches = [loss.id, *trace.carried([loss.id])]
    state = net.state_copy(trace.depth)
    program = net.program(trace, trace.frames, fetches, loss.id)
    streams = net.streams(program, trace.inputs([loss.id]), data)
    length = len(streams[0])
    windows, rest = divmod(length, trace.frames)
    total = 0.0
    if windows:
        total += trace.frames * float(
            _core.fit(program, state, None, streams, 0, windows).sum(dtype=np.float64)
        )
    if rest:
        program = net.program(trace, rest, fetches, loss.id)
        tails = [stream[length - rest :] for stream in streams]
        total += rest * float(_core.fit(program, state, None, tails, 0, 1)[0])
    return arrays.finite(np.asarray(total / length), "the loss over the data").item()
