"""Training: what `minimize` returns, and the walk over data in consecutive windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bptt import _core
from bptt.errors import NonFiniteError, ShapeError, UsageError
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
        if clip is not None and not hasattr(clip, "build"):
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
        self.core.learning_rate = positive("the learning rate", rate)

    @property
    def steps(self) -> int:
        """How many updates were made."""
        return self.core.steps

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
) -> History:
    """See `BPTT.fit`."""
    if not isinstance(train, TrainingOperation):
        raise UsageError(f"fit takes what bp.minimize returned, got {train!r}")
    loss = net.own(train.loss)
    trace = loss.trace
    program = net.program(trace, trace.frames, [loss.id, *trace.carried([loss.id])], loss.id)
    streams = net.streams(program, trace.inputs([loss.id]), data)
    length, depth = len(streams[0]), trace.frames
    if length < depth:
        raise ShapeError(f"the data have {length} frames, fewer than one window of {depth}")
    if not 0 <= start < length:
        raise UsageError(f"start is a frame of the data, 0 to {length - 1}; got {start}")
    if steps is None:
        steps = -(-length // depth)
    if steps < 0 or every < 1:
        raise UsageError(f"steps is at least 0 and every at least 1; got {steps} and {every}")

    state, before = net.states[trace.depth], train.steps
    chunk = every if callback else max(steps, 1)
    losses: list[Array] = []
    stopped = False
    try:
        for done in range(0, steps, chunk):
            first = (start + done * depth) % length
            count = min(chunk, steps - done)
            try:
                losses.append(_core.fit(program, state, train.core, streams, first, count))
            except NonFiniteError:
                raise NonFiniteError(
                    f"the loss of window {train.steps - before}, counted from 0, is not finite; "
                    "weights and state are those before it"
                ) from None
            if callback and count == every and callback(done + count, float(losses[-1][-1])):
                stopped = True
                break
    finally:  # also when interrupted: as many windows as there were updates
        net.next_frame = (start + (train.steps - before) * depth) % length
    return History(np.concatenate(losses) if losses else np.zeros(0), stopped)


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
    return total / length
