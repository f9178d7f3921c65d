"""The `BPTT` class: a frame traced once, trained deep and streamed shallow."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    overload,
)

import numpy.typing as npt

from bptt import arrays, fetching, inspection, streaming, training
from bptt.checkpoint import Checkpoint, SavedTraining
from bptt.data import Dataset
from bptt.drawing import Graphs
from bptt.errors import BpttError, CheckpointError, UsageError, locate
from bptt.fetching import Feed, Fetch
from bptt.initializers import Initializer
from bptt.net import Net
from bptt.numerics import Array, Numerics
from bptt.optimisers import Clip, Optimiser
from bptt.processors import processors
from bptt.ranks import Alone, joined
from bptt.streaming import Stepper
from bptt.symbol import Operand, Symbol
from bptt.trace import StateHandle, Trace
from bptt.training import History, TrainingOperation
from bptt.views import Parameters, StateView

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

FrameFunction = Callable[["BPTT", str], Any]
P = ParamSpec("P")
R = TypeVar("R")


def alone(method: Callable[Concatenate[BPTT, P], R]) -> Callable[Concatenate[BPTT, P], R]:
    """The method has the net to itself: a second thread gets a `UsageError` at once."""

    @functools.wraps(method)
    def inside(self: BPTT, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._net.exclusive:
            return method(self, *args, **kwargs)

    return inside


class BPTT:
    """A recurrent net: one frame, run deep over T frames to train, and shallow to stream.

    The frame is a function ``frame(bp, depth)`` that builds the computation of one time step out
    of symbols and returns them, I/O placeholders first. It is traced once for each mode; weights
    are shared by name, recurrent state is named and lives between runs. Shapes are
    ``(features, batch)``, a sequence is ``(time, features, batch)``.

    Training is truncated backpropagation through time (Williams & Peng, *An efficient
    gradient-based algorithm for on-line training of recurrent network trajectories*, 1990): windows
    of T frames follow one another, state is carried from each to the next, gradients are not.

    Args:
        seed: of initial weights, starting states and noise, 0 or larger.
        dtype: ``"float32"`` or ``"float64"``.
        threads: how many work on one window together, at most, and never more than the processors
            that this process may use (`bptt.build_info`), the default. Windows too small to gain
            are left to the thread that calls. Results have the same bits for every number.

    Raises:
        UsageError: another seed or dtype, or a number of threads below 1.

    Example:
        .. code-block:: python

            def frame(bp, depth):
                x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
                h = bptt.layers.rnn(bp, x, width=3)
                return x, y, bptt.layers.dense(bp, h, 1, activation=bptt.sigmoid)

            bp = bptt.BPTT(seed=0)
            x, y, out = bp.generate_graphs(frame, num_loops=10)[bp.DEEP]
            train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(0.05))
            history = bp.fit(train, [inputs, targets], steps=3000)
            bp.copy_state_forward()
            predictions = bp.predict([inputs])
    """

    DEEP = "deep"
    SHALLOW = "shallow"
    RESETS = fetching.RESETS  #: where resets ``(T, batch)`` are in a feed for `run`; see `fit`
    MASKS = fetching.MASKS  #: where masks ``(T, batch)`` are in a feed for `run`; see `fit`
    MODEL_NAME = "unrolled_model"
    LOOP_SCOPE = "unroll"

    def __init__(
        self, seed: int = 0, dtype: npt.DTypeLike = "float32", threads: int | None = None
    ) -> None:
        self._seed = arrays.integer(seed, "a seed", 0, 2**64 - 1)
        self._numerics = Numerics(dtype)
        self._threads = at_most(threads)
        self._trace: Trace | None = None
        self._built: Net | None = None
        self._plans: dict[tuple[int, ...], fetching.Plan] = {}
        self._steppers: dict[tuple[int, ...] | None, Stepper] = {}

    @property
    def threads(self) -> int:
        """How many work on one window together, at most."""
        return self._threads

    @property
    def trace(self) -> Trace:
        """The trace that is open; what layers append to.

        Raises:
            UsageError: no frame function is running.
        """
        if self._trace is None:
            raise UsageError("this is for inside a frame function, which generate_graphs calls")
        return self._trace

    @property
    def _net(self) -> Net:
        if self._built is None:
            raise UsageError("there is no net yet: call bp.generate_graphs(frame) first")
        return self._built

    # Inside a frame

    def placeholder(self, shape: Sequence[int], name: str | None = None) -> Symbol:
        """A value fed from outside, one matrix `shape` = ``(features, batch)`` per time step.

        Raises:
            UsageError: outside a frame function, or two placeholders of one name.
            ShapeError: a shape that is not two positive integers.
        """
        return self.trace.placeholder(shape, name)

    def constant(self, array: npt.ArrayLike) -> Symbol:
        """A fixed matrix ``(features, batch)``; a number is ``(1, 1)``.

        Operators and functions take arrays and numbers directly, too.

        Raises:
            UsageError: outside a frame function, or no numbers.
            ShapeError: an array that is no matrix.
        """
        return self.trace.constant(array)

    def random_normal(self, shape: Sequence[int], mean: float = 0.0, stddev: float = 1.0) -> Symbol:
        """Independent normal noise, new at every time step, by the Box-Muller transform.

        Random numbers are counter-based (Philox: Salmon, Moraes, Dror & Shaw, *Parallel random
        numbers: as easy as 1, 2, 3*, 2011), keyed by the seed, the ordinal of the random call in
        its trace, the mode's frame counter, feature and lane: they do not depend on the window's
        length, and go on where a checkpoint was made.

        Raises:
            UsageError: outside a frame function, a negative `stddev`, or a number that is not
                finite.
            ShapeError: a shape that is not two positive integers.
        """
        return self.trace.noise("normal", shape, mean=mean, stddev=stddev)

    def random_uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Symbol:
        """Independent noise, uniform between `low` and `high`; see `random_normal`.

        Raises:
            UsageError: outside a frame function, a number that is not finite, or `low` above
                `high`.
            ShapeError: a shape that is not two positive integers.
        """
        return self.trace.noise("uniform", shape, low=low, high=high)

    def get_variable(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Initializer | npt.ArrayLike | None = None,
    ) -> Symbol:
        """The weight of this name in the open scopes; made when it is asked for the first time.

        Both modes share it, and so do calls of one trace.

        Args:
            name: without the scopes.
            shape: ``(features, batch)``.
            initializer: see `bptt.initializers`; `glorot_uniform` by default.

        Raises:
            ShapeError: the weight has another shape, or its initializer gives another.
            NonFiniteError: the initializer gives NaN or infinity.
            UsageError: outside a frame function.
        """
        return self.trace.variable(name, shape, initializer)

    def variable_scope(self, name: str) -> AbstractContextManager[None]:
        """A scope: names of weights inside begin with ``name/``. Scopes nest.

        Raises:
            UsageError: outside a frame function, or an empty name.
        """
        return self.trace.scope(name)

    def get_past_variable(self, name: str, starting_value: Operand) -> Symbol:
        """The value of a recurrence at t-1, also when it was named already.

        The starting value is where the state begins, where `reset_state` takes it back to, and what
        the past value is in a lane at a frame where `resets` is set. It may be learned: given as a
        variable, or made of variables, it gets the gradient of the frames where a lane is reset.

        Args:
            name: unique in the frame; see `name_variable`.
            starting_value: ``(features, batch)``, or ``(features, 1)`` for every lane: as many as
                the placeholders made so far have at most. An array, or a symbol that is constant
                in time.

        Raises:
            ShapeError: a starting value that is no matrix.
            NonFiniteError: a starting value with NaN or infinity.
            UsageError: outside a frame function, asked for again with another shape, or a starting
                value that differs from frame to frame.
        """
        return self.trace.past(name, starting_value)

    def name_variable(self, name: str, v: Operand) -> Symbol:
        """Declare `v` the value at t of the recurrence `name`; returns `v`, for use in line.

        Raises:
            ShapeError: `v` has another shape than the past value.
            UsageError: there is no past value of this name, or it was named already.
        """
        return self.trace.name(name, v)

    # The two graphs

    def generate_graphs(
        self,
        frame: FrameFunction,
        num_loops: int = 10,
        *,
        recompute_every: int | Literal["auto"] | None = None,
    ) -> Mapping[str, tuple[Any, ...]]:
        """Trace the frame, once for each mode.

        Args:
            frame: ``frame(bp, depth)``, called with ``bp.DEEP`` and then ``bp.SHALLOW``; it may
                branch on it (noise only when deep, another batch). Placeholders come first in what
                it returns.
            num_loops: T, the frames of one deep window.
            recompute_every: K, for long windows in little memory: they are computed in segments of
                K frames, of which only the recurrent state at their edges is kept; the way back
                computes each segment once more. Losses and gradients are the same to rounding.
                "auto" is the root of T, with which the memory is of order sqrt(T). What is fetched
                of every frame, in `run`, takes its memory all the same.

        Returns:
            What the frame returned for each mode, ``{"deep": (...), "shallow": (...)}``.

        Raises:
            BpttError: a mistake in the frame, with the line it was made on.
            UsageError: called twice, no function, fewer than one loop, or a segment of no frame.
            MemoryError: a window of so many frames does not fit into memory.
        """
        if self._built is not None or self._trace is not None:
            raise UsageError(
                "the graphs are there already, or under way; another net is another BPTT"
            )
        num_loops = arrays.integer(num_loops, "num_loops", 1)
        segment: int | None = None
        if isinstance(recompute_every, str) and recompute_every == "auto":
            segment = math.isqrt(num_loops - 1) + 1  # the root, rounded up
        elif recompute_every is not None:
            if isinstance(recompute_every, str | bool):
                raise UsageError(
                    'recompute_every is an integer, "auto" or None, got '
                    f"{arrays.shown(recompute_every)}"
                )
            segment = arrays.integer(recompute_every, "recompute_every", 1)
        if not callable(frame):
            raise UsageError(f"a frame is a function of (bp, depth), got {arrays.shown(frame)}")
        net = Net(self._numerics, self._seed, self._threads)
        try:
            for depth, frames, every in ((self.DEEP, num_loops, segment), (self.SHALLOW, 1, None)):
                self._trace = net.open_trace(depth, frames, every)
                self._trace.close(frame(self, depth))
        except BpttError as error:
            locate(error)
            raise
        finally:
            self._trace = None
        net.finish()
        self._built = net
        return self.graphs

    @property
    def graphs(self) -> Mapping[str, tuple[Any, ...]]:
        """What the frame returned for each mode.

        ``print(bp.graphs)`` shows the stages, shapes and weights of each, and the memory of what
        was run so far; a notebook draws the deep graph.
        """
        return Graphs(self._net)

    # Weights and state

    @property
    def parameters(self) -> Parameters:
        """The weights by full name; reading copies, ``bp.parameters[name] = array`` sets."""
        return Parameters(self._net)

    @property
    def state(self) -> Mapping[str, StateView]:
        """The state of each mode by name, e.g. ``bp.state["deep"]["hidden-0"]``; assignable."""
        net = self._net
        views = {depth: StateView(net, state) for depth, state in net.states.items()}
        return MappingProxyType(views)

    @property
    def starting_constants(self) -> Mapping[str, Array]:
        """The starting values of the deep state, as they were given or learned; read-only."""
        net = self._net
        pasts = net.trace(self.DEEP).recurrences
        with net.exclusive:
            starts = {name: net.starting_value(pasts[name]) for name in sorted(pasts)}
        return MappingProxyType(starts)

    @property
    def next_frame(self) -> int:
        """The frame of its data where the next window of `fit` begins; pass it as `start`."""
        return self._net.next_frame

    @property
    def next_window(self) -> tuple[int, int]:
        """The epoch of a dataset, and the window in it, that `fit` goes on with; it is saved."""
        return self._net.next_window

    @alone
    def reset_state(self, depth: str, lane: int | None = None) -> None:
        """Set a mode's state, or one lane of it, to the starting values.

        Raises:
            UsageError: no such mode or lane.
        """
        self._net.trace(depth)
        self._net.reset_state(depth, lane)

    @alone
    def copy_state_forward(self, lane: int | None = None) -> None:
        """Copy state and frame counter from deep to shallow.

        Args:
            lane: take this lane of the deep state along, for every lane of the shallow one.

        Raises:
            ShapeError: the modes' states differ in shape, and no lane was given.
            UsageError: no such lane.
        """
        self._net.copy_state_forward(self.DEEP, self.SHALLOW, lane)

    # One window at a time

    @alone
    def generate_feed_dict(
        self,
        depth: str,
        data: Sequence[npt.ArrayLike],
        num_settable: int,
        *,
        resets: npt.ArrayLike | None = None,
        masks: npt.ArrayLike | None = None,
    ) -> dict[Symbol | str, Any]:
        """What to feed for one window: data for the placeholders, and the mode's state.

        Args:
            depth: the mode.
            data: one array for each of the first `num_settable` values that the frame returned,
                ``(T, features, batch)``; only axes of length 1 may be missing.
            num_settable: how many of them to feed.
            resets: ``(T, batch)``; see `fit`.
            masks: ``(T, batch)``; see `fit`.

        Returns:
            A feed for `run` and `gradients`; keys are placeholders and past values, and, where they
            are given, ``bp.RESETS`` and ``bp.MASKS``.

        Raises:
            ShapeError: an array that is not one whole window of its placeholder.
            UsageError: fewer arrays than `num_settable`, or a value that is no placeholder.
        """
        net = self._net
        trace = net.trace(depth)
        arrays.listed(data, "the data")
        num_settable = arrays.integer(num_settable, "num_settable", 0, len(data))
        dtype = self._numerics.dtype
        feed: dict[Symbol | str, Any] = {}
        for symbol, values in zip(trace.settable(num_settable), data, strict=False):
            what = f"the feed of {symbol.name!r}"
            feed[symbol] = arrays.window(values, trace.frames, symbol.shape, dtype, what)
        state = net.states[depth]
        for name, recurrence in trace.recurrences.items():
            feed[recurrence.past] = state.get(name)
        for key, row in net.rows(trace, trace.frames, resets, masks).items():
            if row is not None:
                feed[key] = row
        return feed

    @overload
    def run(self, fetches: Sequence[Fetch], feed: Feed) -> list[Any]: ...
    @overload
    def run(self, fetches: Fetch, feed: Feed) -> Any: ...
    def run(self, fetches: Sequence[Fetch] | Fetch, feed: Feed) -> Any:
        """Run one window: T frames deep, or one frame shallow.

        What is fetched precedes the update, if a training operation is among the fetches. State is
        read from the feed and returned where asked for; the net's own stays. The mode's frame
        counter goes T frames on.

        Args:
            fetches: symbols, what `generate_output_definitions` returned, and at most one
                training operation; a list, or one alone.
            feed: arrays for what the fetches need: placeholders ``(T, features, batch)``, past
                values ``(features, batch)``; and ``bp.RESETS`` and ``bp.MASKS``, booleans
                ``(T, batch)`` as for `fit`, or neither.

        Returns:
            For each fetch, in order: a symbol's values ``(T, features, batch)``, also when T is 1;
            a window value of one number as a float; state after the last frame
            ``(features, batch)``; None for a training operation.

        Raises:
            UsageError: the feed lacks something or has what it should not, or fetches of different
                graphs.
            ShapeError: an array of another shape.
            NonFiniteError: what is fed, the loss to minimise or its gradient is not finite; nothing
                is updated then.
        """
        if not isinstance(fetches, list | tuple):
            return self.run([fetches], feed)[0]  # type: ignore[list-item]
        key = tuple(map(id, fetches))
        plan = self._plans.get(key)
        if plan is None:
            if not fetches:
                return []
            plan = self._plans[key] = fetching.Plan(self._net, fetches)
        with self._net.exclusive:
            return plan.run(feed)

    def generate_output_definitions(self, depth: str) -> list[StateHandle]:
        """What to fetch to get the state after the window, sorted by name."""
        return list(self._net.trace(depth).handles)

    @alone
    def save_output_state(self, depth: str, values: Sequence[npt.ArrayLike]) -> None:
        """Set a mode's state from what was fetched for `generate_output_definitions`.

        Raises:
            UsageError: another number of arrays than of states.
            ShapeError: an array of another shape; nothing is set then.
        """
        self._net.save_output_state(depth, values)

    @alone
    def gradients(
        self, loss: Symbol, feed: Feed, wrt: Sequence[str | Symbol] | None = None
    ) -> dict[str, Array]:
        """The gradient of a window's loss, truncated at the window's first frame.

        Nothing is updated, and the frame counter stays.

        Args:
            loss: a window value ``(1, 1)``.
            feed: as for `run`.
            wrt: names of weights, or symbols: variables, placeholders, past values (for the
                gradient of the incoming state). All weights by default.

        Returns:
            By name, which a symbol of that name may stand for: for a weight an array of its shape,
            for a placeholder ``(T, features, batch)``, for a past value ``(features, batch)``.

        Raises:
            UsageError: a loss that is no window value; see also `run`.
            ShapeError: a loss of more than one number, or an array of another shape.
        """
        return fetching.gradients(self._net, loss, feed, wrt)

    @alone
    def minimize(
        self,
        loss: Symbol,
        optimizer: Optimiser,
        clip: Clip | None = None,
        *,
        frozen: Sequence[str] = (),
    ) -> TrainingOperation:
        """The training operation that lowers `loss`, for `run` and `fit`.

        After `bptt.load` the n-th call takes up the moments and counters of the n-th saved one; so
        it is after `copy.deepcopy`, for those that were not copied along with the net.

        Args:
            loss: a window value ``(1, 1)``, such as ``bptt.reduce_mean(v)``.
            optimizer: `bptt.SGD`, `RMSProp`, `Adagrad`, `Adam` or `AdamW`, with a learning rate or
                a schedule (`bptt.schedules`), and its weight decay.
            clip: `bptt.ClipByValue`, `bptt.ClipByGlobalNorm`, or None.
            frozen: patterns of names (`fnmatch`), such as ``["embedding_0/*"]``: weights that this
                operation leaves as they are, and whose gradient counts for no norm.

        Raises:
            UsageError: a loss that is no window value, or belongs to another BPTT; a pattern that
                fits no weight; all weights frozen.
            ShapeError: a loss of more than one number.
            CheckpointError: the saved one has an optimizer of another kind.
        """
        net = self._net
        train = TrainingOperation(net, loss, optimizer, clip, frozen)
        for number, saved in enumerate(net.trainings):
            if isinstance(saved, SavedTraining):
                saved.resume(train)
                net.trainings[number] = train
                return train
        net.trainings.append(train)
        return train

    # Whole sequences

    @alone
    def fit(
        self,
        train: TrainingOperation,
        data: Sequence[npt.ArrayLike] | Dataset,
        steps: int | None = None,
        *,
        start: int | tuple[int, int] | None = None,
        callback: Callable[[int, float], object] | None = None,
        every: int = 100,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        metrics: Mapping[str, Symbol] | None = None,
        resets: npt.ArrayLike | None = None,
        masks: npt.ArrayLike | None = None,
        stride: int | None = None,
        progress: bool = True,
        epochs: int | None = None,
        comm: Intracomm | None = None,
    ) -> History:
        """Train on consecutive windows of the data, state carried; the loop runs in the core.

        A window that crosses the end of whole arrays goes on at frame 0. A dataset (`bptt.data`) is
        walked epoch by epoch, with resets and masks of its own, and read while the core works.

        Where `resets` is set, a new sequence begins in that lane: all past values are the starting
        values there, and no gradient goes further back. Where `masks` is not set, there is no frame
        in that lane: its data are not looked at, no state changes, losses leave it out, and means
        are those of the rest. A window without any valid frame has a loss of 0 and no update.

        With `checkpoint` the run can be killed at any moment and go on, bit for bit:

        .. code-block:: python

            bp.fit(train, data, steps=10_000, checkpoint="net.ckpt", checkpoint_every=500)

            bp = bptt.load("net.ckpt", frame)  # later, in another process
            x, y, out = bp.graphs[bp.DEEP]
            train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), optimizer, clip)
            bp.fit(train, data, steps=10_000 - train.steps, start=bp.next_frame)

        Args:
            train: what `minimize` returned.
            data: an array ``(time, features, batch)`` for each placeholder that the loss needs, in
                returned order; only axes of length 1 may be missing. Or a `bptt.data.Lanes`,
                `Sequences` or `Chunks`.
            steps: how many windows; by default one pass, so that every frame is seen.
            start: the frame where the first window begins, by default 0; `next_frame` to go on. In
                a dataset the epoch and the number of the window in it, by default `next_window`,
                which inside an epoch is a place in the dataset, and the `stride`, that were walked
                through last.
            callback: ``callback(step, loss)``, called after every `every` windows with how many
                there were in this call and the last one's loss; a true result stops.
            every: see `callback`.
            checkpoint: where to `save` the net when this call is done or stopped, and after every
                `checkpoint_every` windows of this call, each time as it is between two windows,
                after the callback. What an interrupted call did since then, `save` can still keep.
            checkpoint_every: see `checkpoint`; by default there is only the one at the end.
            metrics: window values ``(1, 1)`` by name, computed along with the loss in the same
                windows. What they need beside it is fed too: `data` has an array for each
                placeholder that the loss or a metric needs.
            resets: booleans ``(time, batch)``, True where a sequence begins; none by default.
            masks: booleans ``(time, batch)``, True where a frame is valid; all by default.
            stride: k1 of truncated backpropagation through time with k1 and k2, where k2 is
                `num_loops` (Williams & Peng's BPTT(h; h')): windows begin k1 frames apart, and only
                the last k1 frames of each count in its loss, whose gradient flows through all k2.
                The state is that of the next window's first frame. `num_loops` by default.
            progress: show a bar with the last loss, where there is a terminal or a notebook.
            epochs: of a dataset, how many, in place of `steps`; that which `start` is in, from
                there on, is the first. By default 1.
            comm: a communicator of mpi4py, such as ``MPI.COMM_WORLD``, whose processes train this
                net together, each with a frame, arrays, resets and masks of its own lanes
                (``docs/clusters.md``). They do what one process with all lanes, in the order of
                ranks, would do: losses are those of all lanes, and the checkpoint, which the first
                rank writes, holds all of them. A callback may be given to some of them, and one
                that returns true stops all.

        Returns:
            The losses, one per window, each before its update; and so the metrics, as
            ``history["name"]``.

        Raises:
            ShapeError: data that do not fit, or hold less than one window.
            UsageError: another number of arrays; a start outside of the data; resets or masks that
                are neither booleans nor 0 and 1, or beside a dataset; a stride longer than a
                window; epochs of arrays, or beside steps; no `start`, where the net is inside an
                epoch of another dataset.
            NonFiniteError: a loss is not finite; that window is not trained on.
            RankError: another process of `comm` failed, or they have not the same net.
        """
        return training.fit(
            self._net,
            train,
            data,
            steps,
            start,
            callback,
            every,
            checkpoint,
            checkpoint_every,
            metrics,
            resets,
            masks,
            stride,
            progress,
            epochs,
            comm,
        )

    @alone
    def evaluate(
        self,
        loss: Symbol,
        data: Sequence[npt.ArrayLike] | Dataset,
        *,
        resets: npt.ArrayLike | None = None,
        masks: npt.ArrayLike | None = None,
    ) -> float:
        """The mean of a loss over all frames of the data, deep, from the present state.

        Consecutive windows, the last one as short as needed, weighted by their frames, or with
        `masks` by the number of valid ones in all lanes. Nothing is updated, and state and frame
        counter stay. The sequences of a dataset begin at the starting state, and its warm-up frames
        do not count.

        Args:
            loss: a window value ``(1, 1)``.
            data: as for `fit`, of any length; a dataset is walked once, in its own order.
            resets: see `fit`.
            masks: see `fit`.

        Raises:
            ShapeError: data that do not fit, or hold no frame.
            UsageError: a loss that is no window value; another number of arrays.
            NonFiniteError: data with NaN or infinity.
        """
        return training.evaluate(self._net, loss, data, resets, masks)

    @alone
    def predict(
        self,
        data: Sequence[npt.ArrayLike] | Dataset,
        outputs: Sequence[Symbol] | None = None,
        *,
        resets: npt.ArrayLike | None = None,
        masks: npt.ArrayLike | None = None,
    ) -> Any:
        """Stream whole sequences through the shallow graph, frame by frame, state carried.

        Sequences of a dataset all begin at the starting state; the state that the net has, and its
        frame counter, stay.

        Args:
            data: an array ``(time, features, batch)`` for each placeholder that the output needs,
                in returned order; only axes of length 1 may be missing. Or a dataset, of arrays for
                these or for all placeholders of the frame.
            outputs: shallow symbols; the last one that the frame returned by default.
            resets: ``(time, batch)``; see `fit`.
            masks: ``(time, batch)``; see `fit`. Where a frame is not valid the output means
                nothing.

        Returns:
            ``(time, features, batch)``; a list of such for `outputs`. Of `bptt.data.Lanes`
            ``(time, features)``, of `bptt.data.Sequences` a list of such, one for each.

        Raises:
            ShapeError: data that do not fit, or hold no frame.
            UsageError: another number of arrays; outputs that are no shallow symbols.
            NonFiniteError: data with NaN or infinity.
        """
        trace = self._net.traces[self.SHALLOW]
        results = streaming.predict(self._net, trace, data, outputs, resets, masks)
        return results[0] if outputs is None else results

    # Looking inside

    @alone
    def record(
        self,
        data: Sequence[npt.ArrayLike],
        values: str | Sequence[str] | Mapping[str, Symbol] | None = None,
        *,
        depth: str = SHALLOW,
        resets: npt.ArrayLike | None = None,
        masks: npt.ArrayLike | None = None,
    ) -> dict[str, Array]:
        """What happens inside while whole sequences go through the net, frame by frame.

        It begins at the mode's present state, which stays as it is, and so does its counter.

        The gates of fused cells are named in the scope of their weights: ``lstm_layer_0/i``, ``f``,
        ``g``, ``o``, with ``g = tanh(W_xc x + W_hc h' + b_c)`` the cell's input, and
        ``gru_layer_0/r``, ``z``, ``n``. They are read from the cell's own memory, not computed
        again.

        Args:
            data: an array ``(time, features, batch)`` for each placeholder that the values need, in
                returned order; only axes of length 1 may be missing.
            values: names of states and gates, or patterns (`fnmatch`) such as
                ``"lstm_layer_0/*"``; or for what has no name a mapping from names of your own to
                symbols. All states and gates by default.
            depth: the mode; the deep one has its noise.
            resets: ``(time, batch)``; see `fit`.
            masks: ``(time, batch)``; see `fit`. Where a frame is not valid a state is what it was,
                and all else means nothing.

        Returns:
            By name ``(time, features, batch)``: states at t, gates at t.

        Raises:
            ShapeError: data that do not fit, or hold no frame.
            UsageError: another number of arrays; a pattern that fits nothing; no values of this
                graph at each frame.
            NonFiniteError: data with NaN or infinity.

        Example:
            .. code-block:: python

                bptt.plot.gates(bp.record([inputs], "lstm_layer_0/*")).savefig("gates.png")
        """
        return inspection.record(self._net, data, values, depth, resets, masks)

    @alone
    def gradient_norms(
        self,
        loss: Symbol,
        data: Sequence[npt.ArrayLike],
        states: str | Sequence[str] | None = None,
        *,
        start: int = 0,
        last: int = 1,
    ) -> dict[str, Array]:
        """How much of a loss's gradient reaches the state so many frames back.

        One window is run forward and back, with the loss of its last frame alone; the backward
        sweep then holds ``d loss / d s_t`` for the state s at every frame t, whose length over the
        features is the norm (Pascanu, Mikolov & Bengio, *On the difficulty of training recurrent
        neural networks*, 2013). It is the whole derivative, as if a small number were added to s_t
        where it is computed: what else follows from it at the same frame, such as h from c in an
        LSTM, follows.

        The window begins at the present state. Nothing is updated, and the counter stays.

        Args:
            loss: a window value ``(1, 1)``, such as ``bptt.reduce_mean(v)``.
            data: as for `fit`, one window or more; an array too for what the states need and the
                loss does not.
            states: their names, or patterns of names; by default all that need no other data and
                have a gradient.
            start: the frame of the data where the window begins.
            last: the loss is that of so many last frames.

        Returns:
            By name ``(frames back, batch)``: first the last frame of the window, 0 back.

        Raises:
            ShapeError: data that do not fit, or hold less than one window.
            UsageError: a loss that is no window value; another number of arrays; a pattern that
                fits no state; no whole window from `start` on; `last` longer than a window.
            NonFiniteError: data with NaN or infinity, or a gradient that overflows.

        Example:
            .. code-block:: python

                bptt.plot.gradient_norms(bp.gradient_norms(loss, data)).figure.savefig("norms.png")
        """
        return inspection.gradient_norms(self._net, loss, data, states, start, last)

    # One frame at a time

    def step(
        self,
        *inputs: npt.ArrayLike,
        outputs: Sequence[Symbol] | None = None,
        reset: npt.ArrayLike | None = None,
    ) -> Any:
        """One shallow frame, state carried: the streaming call.

        Args:
            inputs: an array ``(features, batch)`` for each placeholder that the output needs, in
                returned order; only axes of length 1 may be missing.
            outputs: shallow symbols; the last one that the frame returned by default.
            reset: booleans ``(batch,)``, True for lanes where a new sequence begins; none by
                default.

        Returns:
            ``(features, batch)``; a list of such for `outputs`.

        Raises:
            ShapeError: an input or `reset` of another shape.
            UsageError: another number of inputs; outputs that are no shallow symbols; a
                `reset` that is neither booleans nor 0 and 1.
            NonFiniteError: an input holds NaN or infinity.
        """
        if reset is not None:
            self._reset_lanes(reset)
        key = None if outputs is None else tuple(map(id, arrays.listed(outputs, "outputs")))
        stepper = self._steppers.get(key)
        if stepper is None:
            stepper = self._steppers[key] = self.stepper(outputs=outputs)
        return stepper.next(inputs) if outputs is None else stepper.next_all(inputs)

    @alone
    def _reset_lanes(self, reset: npt.ArrayLike) -> None:
        net = self._net
        lanes = net.traces[self.SHALLOW].graph.lanes
        net.begin_anew(self.SHALLOW, arrays.flags(reset, (lanes,), "reset"))

    @alone
    def stepper(
        self, *, outputs: Sequence[Symbol] | None = None, own_state: bool = False
    ) -> Stepper:
        """`step` without any conversion: arrays to fill, a call, arrays to read.

        Args:
            outputs: shallow symbols; the last one that the frame returned by default.
            own_state: carry a state of its own, which begins as the shallow state is now: many
                streams, one net.

        Raises:
            UsageError: outputs that are no shallow symbols.
        """
        net = self._net
        state = net.state_copy(self.SHALLOW) if own_state else net.states[self.SHALLOW]
        return Stepper(net, net.traces[self.SHALLOW], outputs, state)

    # Checkpoints

    @alone
    def save(self, path: str | os.PathLike[str], *, comm: Intracomm | None = None) -> None:
        """Write weights, state, optimiser moments and counters to one safetensors file.

        The path holds a whole old or a whole new file at every moment. `bptt.load` reads it.

        Args:
            path: where to.
            comm: as for `fit`: all its processes call this, and the first writes a file with the
                lanes of all.

        Raises:
            CheckpointError: the file system refuses, or the net holds a number that is not finite;
                what was at the path stays.
            UsageError: no path.
            RankError: another process of `comm` failed.
        """
        ranks = joined(comm)
        with ranks.together():
            ranks.write(self._net, path)

    def __deepcopy__(self, memo: dict[int, Any]) -> BPTT:
        """An independent, equal net: weights, both states, counters, moments, `next_frame`.

        What is copied together stays together: ``bp, train, loss = copy.deepcopy((bp, train,
        loss))``. Of a net that is copied alone, `minimize` takes up the moments, as after
        `bptt.load`. Steppers stay with their own net.
        """
        if self._trace is not None:
            raise UsageError("a BPTT is not copied while its frame is traced")
        bp = type(self).__new__(type(self))
        memo[id(self)] = bp
        for name, value in vars(self).items():
            setattr(bp, name, {} if name in ("_plans", "_steppers") else copy.deepcopy(value, memo))
        return bp

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError(
            "a BPTT is not pickled, for its frame is a function: bp.save(path) keeps the net, "
            "bptt.load(path, frame) goes on with it; copy.deepcopy(bp) makes a copy"
        )


def load(
    path: str | os.PathLike[str],
    frame: FrameFunction,
    *,
    threads: int | None = None,
    comm: Intracomm | None = None,
) -> BPTT:
    """The net that was saved, to go on bit for bit.

    Its graphs are traced anew from `frame`, which must be the function that the saved net was
    made of; `BPTT.minimize` with the same optimiser takes up moments and counters.

    Args:
        path: written by `BPTT.save`.
        frame: as for `BPTT.generate_graphs`.
        threads: as for `BPTT`; a checkpoint does not depend on it.
        comm: as for `BPTT.fit`: all its processes call this; the first reads the file, and each
            gets its lanes of it. Together they have as many as the file; how many processes have
            saved it does not matter.

    Raises:
        CheckpointError: no such file, a damaged or a foreign one, one of a newer format, or one of
            another frame. The message says which.
        UsageError: no path, or a number of threads below 1.
        RankError: another process of `comm` failed.

    Example:
        .. code-block:: python

            bp.save("net.safetensors")

            bp = bptt.load("net.safetensors", frame)  # later, in another process
            x, y, out = bp.graphs[bp.DEEP]
            train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(0.05))
            bp.fit(train, [inputs, targets], start=bp.next_frame)
    """
    ranks = joined(comm)
    with ranks.together():
        threads = ranks.agreed(lambda: at_most(threads))
        return resume(ranks.read(path), frame, threads, ranks)


def resume(
    saved: Checkpoint, frame: FrameFunction, threads: int | None, ranks: Alone | None = None
) -> BPTT:
    """The net of a checkpoint that was read; see `load`."""
    ranks = ranks or Alone()
    bp = ranks.agreed(lambda: _traced(saved, frame, threads))
    share = ranks.share(saved, bp._net)
    ranks.agreed(lambda: share.apply(bp._net))
    return bp


def _traced(saved: Checkpoint, frame: FrameFunction, threads: int | None) -> BPTT:
    """A net like the saved one, as it begins."""
    bp = BPTT(saved.about["seed"], saved.about["dtype"], threads)
    frames = saved.about["num_loops"]
    try:
        bp.generate_graphs(frame, frames, recompute_every=saved.about.get("recompute_every"))
    except MemoryError as error:
        raise CheckpointError(f"{saved.path} has windows of {frames} frames: {error}") from None
    return bp


def at_most(threads: int | None) -> int:
    """How many threads a net gets that was asked to have so many."""
    most = processors()
    return most if threads is None else min(arrays.integer(threads, "threads", 1), most)
