"""Training: what `minimize` returns, and the walk over data in consecutive windows."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays
from bptt.blocks import Block, Chunk, Windows, ahead, own_rows, rolled
from bptt.checkpoint import SavedTraining
from bptt.data import Dataset
from bptt.errors import ShapeError, UsageError
from bptt.info import build_info
from bptt.net import Net, Rows
from bptt.numerics import Array, Program, State, Training
from bptt.optimisers import Clip, Optimiser, decays, frozen, positive
from bptt.progress import Bar
from bptt.ranks import Alone, digest, joined, weights
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
        counted: how many frames, of all lanes, each loss is of, ``(steps,)``: weighted by them, the
            losses of an epoch have the mean over its frames.
        metrics: of the same windows, each ``(steps,)``, by name.
    """

    loss: Array
    stopped: bool = False
    counted: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
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


@dataclass(frozen=True)
class _Course:
    """A call of `fit`, checked.

    Attributes:
        program: runs its windows.
        walk: where they lie.
        watched: metrics by name.
        stride: frames from one to the next.
        every: how often to call back.
        period: how often to write checkpoints; None for the one at the end.
    """

    program: Program
    walk: _Around | _Epochs
    watched: dict[str, int]
    stride: int
    every: int
    period: int | None


def fit(
    net: Net,
    train: TrainingOperation,
    data: Sequence[npt.ArrayLike] | Dataset,
    steps: int | None = None,
    start: int | tuple[int, int] | None = None,
    callback: Callable[[int, float], object] | None = None,
    every: int = 1,
    path: str | os.PathLike[str] | None = None,
    period: int | None = None,
    metrics: Mapping[str, Symbol] | None = None,
    resets: npt.ArrayLike | None = None,
    masks: npt.ArrayLike | None = None,
    stride: int | None = None,
    progress: Bar | bool = False,
    epochs: int | None = None,
    comm: object = None,
) -> History:
    """See `BPTT.fit`; `path` and `period` are where and how often checkpoints are written.

    `progress` may be a bar that goes over more than this call.
    """
    ranks = joined(comm)
    given = net, train, data, steps, start, callback, every, path, period
    checked = partial(_checked, *given, metrics, resets, masks, stride, epochs, comm is not None)
    with ranks.together():
        return _walked(net, train, ranks.agreed(checked), callback, path, progress, ranks)


def _checked(
    net: Net,
    train: TrainingOperation,
    data: Sequence[npt.ArrayLike] | Dataset,
    steps: int | None,
    start: int | tuple[int, int] | None,
    callback: Callable[[int, float], object] | None,
    every: int,
    path: str | os.PathLike[str] | None,
    period: int | None,
    metrics: Mapping[str, Symbol] | None,
    resets: npt.ArrayLike | None,
    masks: npt.ArrayLike | None,
    stride: int | None,
    epochs: int | None,
    shared: bool,
) -> _Course:
    if not isinstance(train, TrainingOperation):
        raise UsageError(f"fit takes what bp.minimize returned, got {train!r}")
    loss = net.own(train.loss)
    trace = loss.trace
    watched = _metrics(net, metrics, trace)
    values = [loss.id, *watched.values()]
    fetches = [*values, *trace.carried(values)]
    program = net.program(trace, trace.frames, fetches, loss.id, frozen=train.frozen)
    stride = trace.frames if stride is None else arrays.integer(stride, "stride", 1, trace.frames)
    steps = None if steps is None else arrays.integer(steps, "steps", 0)
    walk: _Around | _Epochs
    if isinstance(data, Dataset):
        if shared:
            raise UsageError("with comm, data are arrays of this rank's lanes, and no dataset")
        own_rows(net, trace, resets, masks)
        windows = Windows.of(net, trace, values, program, stride)
        walk = _Epochs(net, data, windows, start, steps, epochs)
    else:
        if epochs is not None:
            raise UsageError("epochs are those of a dataset (bptt.data); arrays take steps")
        streams = net.streams(program, trace.inputs(values), data)
        rows = net.rows(trace, len(streams[0]), resets, masks)
        walk = _Around(net, streams, rows, trace.frames, start, steps, stride)
    if walk.steps is not None:
        arrays.room(walk.steps, f"the losses of {walk.steps} steps")
    every = arrays.integer(every, "every", 1)
    if callback is not None and not callable(callback):
        raise UsageError(f"callback is a function of step and loss, got {arrays.shown(callback)}")
    if path is None and period is not None:
        raise UsageError("checkpoint_every says how often to write; checkpoint says where to")
    if period is not None:
        period = arrays.integer(period, "checkpoint_every", 1)
    return _Course(program, walk, watched, stride, every, period)


def _walked(
    net: Net,
    train: TrainingOperation,
    course: _Course,
    callback: Callable[[int, float], object] | None,
    path: str | os.PathLike[str] | None,
    progress: Bar | bool,
    ranks: Alone,
) -> History:
    trace, program, walk, watched = train.loss.trace, course.program, course.walk, course.watched
    steps, stride, every, period = walk.steps, course.stride, course.every, course.period
    called = any(ranks.all(lambda: callback is not None))
    core = None
    if isinstance(walk, _Around):
        ranks.require_same(partial(_facts, net, train, course, walk.block, path is not None))
        core = ranks.core(net, trace, [train.loss.id, *watched.values()], walk.block.rows)
    if path is not None:
        ranks.check_place(path)

    def agree() -> None:
        ranks.require_same(lambda: {"the weights": weights(net)})

    periods = [each for each in (period, ranks.period) if each is not None]
    if called:
        periods.append(every)
    if train.scheduled:
        periods.append(_AHEAD)

    state = net.states[trace.depth]
    losses: list[Array] = []
    counts: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    kept: dict[str, list[Array]] = {name: [] for name in watched}
    done, written, stopped, reached = 0, 0, False, state.frame
    bar = progress if isinstance(progress, Bar) else Bar(steps, progress and ranks.first)
    own = contextlib.closing(bar) if bar is not progress else contextlib.nullcontext()
    with own, contextlib.closing(walk.blocks()) as blocks:
        for block in blocks:
            if not block.counts:
                try:
                    _run(program, state, None, block, 0, block.windows)
                except BaseException:  # a warm-up that was interrupted is made again
                    state.frame = reached
                    raise
                continue
            at = 0
            while at < block.windows and not stopped:
                limits = [ranks.all(bar.ahead)[0], *(each - done % each for each in periods)]
                if steps is not None:
                    limits.append(steps - done)
                count = min(block.windows - at, *limits)
                ranks.agreed(partial(train.plan, count))
                room = [np.empty(count, net.numerics.dtype) for _ in watched]
                first, before = at, state.frame
                run = partial(_run, program, state, train.core, block, first, count)
                try:
                    found = ranks.known(
                        partial(run, watched=[*watched.values()], room=room, ranks=core)
                    )
                finally:  # also when interrupted: by as many frames as the state went on
                    reached = state.frame
                    gone = (reached - before) // stride
                    at, done = at + gone, done + gone
                    walk.reach(block, at)  # for the callback and the checkpoint
                losses.append(found)
                counts.append(block.counted(trace.frames, trace.graph.lanes, first, count))
                for name, numbers in zip(watched, room, strict=True):
                    kept[name].append(numbers)
                bar.advance(count, found[-1])
                if called and done % every == 0:
                    answer = partial(_asked, net, callback, done, float(found[-1]))
                    stopped = any(ranks.all(answer))
                if ranks.period is not None and done % ranks.period == 0:
                    agree()
                if path is not None and period is not None and done % period == 0:
                    agree()
                    ranks.write(net, path)
                    written = done
                if done == steps:
                    break
            if done == steps or stopped:
                break
    agree()
    if path is not None and written != done:
        ranks.write(net, path)

    def joint(parts: list[Array]) -> Array:
        return np.concatenate([np.zeros(0, net.numerics.dtype), *parts])

    seen = {name: joint(parts) for name, parts in kept.items()}
    counted = np.sum(ranks.all(lambda: np.concatenate(counts)), axis=0)
    return History(joint(losses), stopped, counted, seen)


def _asked(
    net: Net, callback: Callable[[int, float], object] | None, done: int, loss: float
) -> bool:
    """Whether the callback, if there is one, wants to stop after so many windows."""
    if callback is None:
        return False
    with net.lent():
        return bool(callback(done, loss))


def _facts(
    net: Net, train: TrainingOperation, course: _Course, block: Block, path: bool
) -> dict[str, Any]:
    """What ranks must have in common, by the name that a message gives it."""
    trace, saved, build = train.loss.trace, train.saved(), build_info()
    stages = trace.graph.stages([train.loss.id, *course.watched.values()])
    nodes = trace.graph.nodes
    sources = [each.id for each in trace.placeholders]
    sources += [each.past.id for each in trace.recurrences.values()]
    sources += [node.outputs[0] for node in nodes if not node.inputs]  # noise
    common = {
        str(number): stream
        for number, stream in enumerate(block.streams)
        if stream.shape[2] != trace.graph.lanes
    }
    return {
        "the version of bptt": build["version"],
        "the instruction set, which BPTT_ISA chooses": build["isa"],
        "the dtype": net.numerics.dtype.name,
        "the seed": net.seed,
        "the frames of a window": trace.frames,
        "the frame function": trace.structure,
        "what has a column for each lane (with one lane, all of one column)": [
            trace.graph.shape(id)[1] == trace.graph.lanes for id in sources
        ],
        "the operations of the loss": [nodes[n].operation for group, _ in stages for n in group],
        "the weights": weights(net),
        "the optimizer": {**saved.optimizer, "rate": saved.learning_rate},
        "the clipping": repr(train.clip),
        "the frozen weights": train.frozen,
        "the updates made": train.steps,
        "the moments": digest(saved.moments),
        "the frames gone by": net.states[trace.depth].frame,
        "the length of the data": len(block.streams[0]),
        "the data that lanes have in common": digest(common),
        "steps": course.walk.steps,
        "start": block.start,
        "stride": course.stride,
        "every": course.every,
        "metrics": [*course.watched],
        "whether there is a checkpoint": path,
        "checkpoint_every": course.period,
    }


class _Around:
    """Windows through whole arrays: one block without an end, which is walked around."""

    def __init__(
        self,
        net: Net,
        streams: list[Array],
        rows: Rows,
        frames: int,
        start: Any,
        steps: int | None,
        stride: int,
    ) -> None:
        length = len(streams[0])
        if length < frames:
            raise ShapeError(f"the data have {length} frames, fewer than one window of {frames}")
        begin = 0 if start is None else start
        self.start = arrays.integer(begin, "start, a frame of the data,", 0, length - 1)
        self.steps = -(-length // stride) if steps is None else steps
        self._net = net
        self.block = Block(streams, rows, self.steps, stride, start=self.start)

    def blocks(self) -> Generator[Block]:
        yield self.block

    def reach(self, block: Block, window: int) -> None:
        self._net.next_frame = block.frame(window)


class _Epochs:
    """Windows through a dataset, epoch by epoch."""

    def __init__(
        self,
        net: Net,
        dataset: Dataset,
        windows: Windows,
        start: object,
        steps: int | None,
        epochs: int | None,
    ) -> None:
        if steps is not None and epochs is not None:
            raise UsageError("fit takes steps or epochs, not both")
        if epochs is None and steps is None:
            epochs = 1
        self.epochs = None if epochs is None else arrays.integer(epochs, "epochs", 0)
        self.steps = steps
        self._net, self._dataset, self._windows = net, dataset, windows
        self._walked = weakref.ref(dataset), windows.stride
        self.start = self._present() if start is None else _position(start)

    def _present(self) -> tuple[int, int]:
        """Where the net is, if that is a place in these windows."""
        epoch, window = self._net.next_window
        if window and self._net.walked not in (None, self._walked):
            raise UsageError(
                f"the net is at window {window} of epoch {epoch} of another dataset, or of another "
                f"stride; pass start=({epoch}, 0) to begin this one, start=bp.next_window to go on "
                "at that window of it"
            )
        return epoch, window

    def blocks(self) -> Generator[Block]:
        return ahead(self._made())

    def _made(self) -> Iterator[Block]:
        first, skip = self.start
        if self.steps == 0:
            return
        for epoch in itertools.count(first):
            if self.epochs is not None and epoch == first + self.epochs:
                return
            for block in self._dataset.blocks(self._windows, epoch, skip):
                yield replace(block, epoch=epoch)
            skip = 0

    def reach(self, block: Block, window: int) -> None:
        ended = block.last and window == block.windows
        here = block.epoch, block.window + window
        self._net.next_window = (block.epoch + 1, 0) if ended else here
        self._net.walked = self._walked


def _position(start: object) -> tuple[int, int]:
    """An epoch, and a window in it."""
    if not isinstance(start, tuple | list) or len(start) != 2:
        raise UsageError(
            f"the start in a dataset is a pair of epoch and window, got {arrays.shown(start)}"
        )
    epoch, window = (arrays.integer(each, "of the start each", 0) for each in start)
    return epoch, window


def _run(
    program: Program,
    state: State,
    core: Training | None,
    block: Block,
    first: int,
    count: int,
    **more: Any,
) -> Array:
    """So many windows of a block, from its window number `first` on; their losses."""
    streams, begin = block.streams, block.frame(first)
    losses: Array = _core.fit(
        program, state, core, streams, begin, count, stride=block.stride, **block.rows, **more
    )
    return losses


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


def evaluate(
    net: Net,
    loss: Symbol,
    data: Sequence[npt.ArrayLike] | Dataset,
    resets: npt.ArrayLike | None,
    masks: npt.ArrayLike | None,
) -> float:
    """See `BPTT.evaluate`."""
    loss = net.scalar_loss(loss)
    trace = loss.trace
    fetches = [loss.id, *trace.carried([loss.id])]
    program = net.program(trace, trace.frames, fetches, loss.id, trains=False)
    windows = Windows.of(net, trace, [loss.id], program, trace.frames)
    if isinstance(data, Dataset):
        own_rows(net, trace, resets, masks)
        walk = ahead(data.blocks(windows, 0))
    else:
        streams = net.streams(program, trace.inputs([loss.id]), data)
        rows = net.rows(trace, len(streams[0]), resets, masks)
        walk = rolled(iter([Chunk.of(streams, windows.lanes, **rows)]), windows)
    state = net.state_copy(trace.depth)
    total = weight = 0.0
    with contextlib.closing(walk):
        for block in walk:
            found = _run(program, state, None, block, 0, block.windows)
            if block.counts:
                counted = block.counted(trace.frames, windows.lanes, 0, block.windows)
                total += float(found.astype(np.float64) @ counted)
                weight += float(counted.sum())
    mean = total / weight if weight else 0.0
    return arrays.finite(np.asarray(mean), "the loss over the data").item()
