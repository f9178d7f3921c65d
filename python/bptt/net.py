"""What `generate_graphs` built: shared weights and, per mode, a trace, a state and its programs."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import numpy.typing as npt

from bptt import _core, arrays
from bptt.errors import ShapeError, UsageError
from bptt.numerics import Array, Numerics, Program, State
from bptt.symbol import Symbol
from bptt.trace import Recurrence, Trace

if TYPE_CHECKING:
    from bptt.checkpoint import SavedTraining
    from bptt.data import Dataset
    from bptt.training import TrainingOperation


class Rows(TypedDict):
    """Resets and masks ``(frames, lanes)``, as the core takes them."""

    resets: npt.NDArray[np.bool_] | None
    masks: npt.NDArray[np.bool_] | None


class Net:
    """The weights, traces, states and programs of one `BPTT` object.

    Attributes:
        numerics: dtype and classes of the core.
        seed: of noise and of initial weights.
        weights: shared by both modes and by all programs.
        exclusive: entered by every method that computes or touches numbers: one thread at a time.
        team: the threads that share large windows.
        traces: by mode.
        states: by mode, with the mode's frame counter.
        next_frame: where in its data the next window of `fit` begins.
        next_window: the epoch of a dataset, and the window in it, that `fit` goes on with.
        walked: the dataset whose window it is, and the stride; None where it is not known, before
            the first and in a net that was loaded.
        trainings: the training operations, in order of creation; as saved where the net was loaded
            or copied, and the operation not made anew yet.
    """

    def __init__(self, numerics: Numerics, seed: int, threads: int) -> None:
        self.numerics = numerics
        self.seed = seed
        self.weights = numerics.Weights()
        self.exclusive = _core.Exclusive()
        self.team = _core.Team(threads)
        self.traces: dict[str, Trace] = {}
        self.states: dict[str, State] = {}
        self.next_frame = 0
        self.next_window = 0, 0
        self.walked: tuple[weakref.ref[Dataset], int] | None = None
        self.trainings: list[TrainingOperation | SavedTraining] = []
        self._programs: dict[tuple[Any, ...], Program] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        """An independent net that equals this one: weights, states, counters, moments.

        Programs are compiled anew when they are asked for. Training operations are kept as saved
        ones; those that are copied along with the net take them up (`TrainingOperation`).
        """
        net = Net(self.numerics, self.seed, self.team.threads)
        memo[id(self)] = net
        with self.exclusive:
            for name in self.weights.names:
                net.weights.declare(name, self.weights.get(name))
            for depth, trace in self.traces.items():
                net.traces[depth] = trace.copy_to(net, memo)
            net.weights.freeze([trace.graph for trace in net.traces.values()])
            net.states = {depth: self.state_copy(depth) for depth in self.states}
            net.next_frame = self.next_frame
            net.next_window, net.walked = self.next_window, self.walked
            net.trainings = [each.saved() for each in self.trainings]
        return net

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within a method that has the net to itself: a function of the user's may use it."""
        before = self.exclusive.lend()
        try:
            yield
        finally:
            self.exclusive.take_back(before)

    def open_trace(self, depth: str, frames: int, segment: int | None = None) -> Trace:
        """Begin the trace of a mode whose windows have this many frames, perhaps in segments."""
        arrays.room(frames, f"a window of {frames} frames")
        trace = Trace(self, depth, frames, segment)
        self.traces[depth] = trace
        return trace

    def finish(self) -> None:
        """After both traces: lay the weights out, and begin at the starting values."""
        self.weights.freeze([trace.graph for trace in self.traces.values()])
        for depth, trace in self.traces.items():
            pasts = trace.recurrences.items()
            self.states[depth] = self.numerics.State({name: r.past.shape for name, r in pasts})
            self.reset_state(depth, None)

    # Programs

    def program(
        self,
        trace: Trace,
        frames: int,
        fetches: Sequence[int],
        loss: int | None = None,
        wrt: Sequence[int] = (),
        frozen: Sequence[str] = (),
        trains: bool = True,
    ) -> Program:
        """The program of a mode for these fetches, compiled at first use.

        Unless it `trains` it holds nothing for a backward.

        Where the mode's windows are computed in segments, what computes a longer one is the core's
        `Segments`, which is used as a program is.
        """
        trains = trains and loss is not None
        key = (trace.depth, frames, tuple(fetches), loss, trains, tuple(wrt), tuple(frozen))
        program = self._programs.get(key)
        if program is None:
            program = self.new_program(
                trace, frames, fetches, loss, wrt, frozen, trains, trace.segment
            )
            self._programs[key] = program
        return program

    def new_program(
        self,
        trace: Trace,
        frames: int,
        fetches: Sequence[int],
        loss: int | None = None,
        wrt: Sequence[int] = (),
        frozen: Sequence[str] = (),
        trains: bool = True,
        segment: int | None = None,
        passes: bool = True,
    ) -> Program:
        """A program with an arena of its own; without `passes` operations run as they were traced.

        Raises:
            MemoryError: there is no room for it; nothing has changed then.
        """
        make: Any = self.numerics.Program
        if segment is not None and frames > segment:
            make = functools.partial(self.numerics.Segments, every=segment)
        try:
            made = make(
                trace.graph,
                self.weights,
                frames,
                list(fetches),
                loss,
                list(wrt),
                self.seed,
                team=self.team,
                frozen=list(frozen),
                trains=trains,
                **({} if passes else {"passes": False}),
            )
        except MemoryError as error:
            raise MemoryError(
                f"no memory for the {trace.depth} graph over {frames} frames ({error})"
            ) from None
        return cast(Program, made)

    def compiled(self) -> list[tuple[str, int, int | None, bool, int]]:
        """Of each program there is, in order of use: what it is, and the bytes that it takes.

        Its mode, its frames, those of a segment where only one is in memory, and whether it has
        gradients.
        """
        found = []
        for (depth, frames, _, _, trains, *_), program in self._programs.items():
            segment = self.traces[depth].segment
            within = segment if segment is not None and frames > segment else None
            found.append((depth, frames, within, trains, program.memory))
        return found

    # State

    def reset_state(self, depth: str, lane: int | None) -> None:
        """Set the state, or one lane of it, to the starting values."""
        state = self.states[depth]
        for name, recurrence in self.traces[depth].recurrences.items():
            shape = state.shape(name)
            values = np.broadcast_to(self.starting_value(recurrence), shape)
            if lane is not None:
                column = _lane(lane, shape, f"the {depth} state {name!r}")
                kept = state.get(name)
                kept[:, column] = values[:, column]
                values = kept
            state.set(name, values)

    def begin_anew(self, depth: str, resets: npt.NDArray[np.bool_]) -> None:
        """Set the state to the starting values in the lanes that are marked."""
        state = self.states[depth]
        for name, recurrence in self.traces[depth].recurrences.items():
            values = state.get(name)
            own = values.shape[1] == len(resets)  # or else it is common to all lanes
            columns = resets if own else np.full(values.shape[1], resets.all())
            start = np.broadcast_to(self.starting_value(recurrence), values.shape)
            state.set(name, np.where(columns, start, values))

    def starting_value(self, recurrence: Recurrence) -> Array:
        """The starting value of a recurrence with the present weights."""
        start = recurrence.start
        if not isinstance(start, Symbol):
            return start
        program = self.program(start.trace, 1, [start.id])
        program.mark()
        program.forward(0)
        values: Array = program.value(start.id)[0]
        return values

    def copy_state_forward(self, source: str, target: str, lane: int | None) -> None:
        """Copy state and frame counter from one mode to the other; with `lane`, that lane only.

        Nothing is copied when a shape does not fit.
        """
        old, new = self.states[source], self.states[target]
        copies = {}
        for name in new.names:
            if name not in old.names:
                continue
            values, shape = old.get(name), new.shape(name)
            if lane is not None:
                column = _lane(lane, values.shape, f"the {source} state {name!r}")
                values = values[:, column : column + 1]
                if len(values) == shape[0]:
                    values = np.broadcast_to(values, shape)
            if values.shape != shape:
                advice = "" if lane is not None else "; copy_state_forward(lane=i) takes one lane"
                raise ShapeError(
                    f"the {source} state {name!r} has shape {values.shape}, the {target} one "
                    f"{shape}{advice}"
                )
            copies[name] = values
        for name, values in copies.items():
            new.set(name, values)
        new.frame = old.frame

    def state_copy(self, depth: str) -> State:
        """An independent state equal to the mode's own."""
        state = self.states[depth]
        copy = self.numerics.State({name: state.shape(name) for name in state.names})
        for name in state.names:
            copy.set(name, state.get(name))
        copy.frame = state.frame
        return copy

    def save_output_state(self, depth: str, values: Sequence[npt.ArrayLike]) -> None:
        """See `BPTT.save_output_state`."""
        pasts, handles = self.trace(depth).recurrences, self.trace(depth).handles
        state = self.states[depth]
        arrays.listed(values, "a saved state")
        if len(values) != len(handles):
            names = ", ".join(handle.name for handle in handles)
            raise UsageError(
                f"the {depth} graph has {len(handles)} states ({names}), got {len(values)} arrays"
            )
        dtype = self.numerics.dtype
        checked = []
        for handle, value in zip(handles, values, strict=True):
            name = handle.name
            shape = pasts[name].past.shape
            if value.__class__ is not np.ndarray or value.dtype != dtype or value.shape != shape:
                value = arrays.lanes(value, shape, dtype, f"the state {name!r}")
            checked.append((name, arrays.finite(value, f"the state {name!r}")))
        for name, array in checked:
            state.set(name, array)

    # What users bring

    def trace(self, depth: str) -> Trace:
        """The trace of a mode.

        Raises:
            UsageError: no such mode.
        """
        if not isinstance(depth, str) or depth not in self.traces:
            raise UsageError(f'depth is "deep" or "shallow", got {arrays.shown(depth)}')
        return self.traces[depth]

    def own(self, symbol: object) -> Symbol:
        """`symbol`, if it is one of this net's.

        Raises:
            UsageError: it is not.
        """
        if not isinstance(symbol, Symbol):
            raise UsageError(f"expected a symbol, got {arrays.shown(symbol)}")
        if self.traces[symbol.trace.depth] is not symbol.trace:
            raise UsageError(f"{symbol} belongs to another BPTT")
        return symbol

    def scalar_loss(self, loss: object) -> Symbol:
        """`loss`, if it is a window value of one number.

        Raises:
            UsageError: no symbol of this net, or no window value.
            ShapeError: more than one number.
        """
        symbol = self.own(loss)
        if symbol.extent != "window":
            raise UsageError(
                f"a loss is a window value, such as bptt.reduce_mean(v) without axis; got {symbol}"
            )
        if symbol.shape != (1, 1):
            raise ShapeError(f"a loss has shape (1, 1), got {symbol.shape}")
        return symbol

    def rows(
        self,
        trace: Trace,
        frames: int,
        resets: npt.ArrayLike | None,
        masks: npt.ArrayLike | None,
    ) -> Rows:
        """Resets and masks of so many frames, as the core takes them.

        Raises:
            ShapeError: an array that is not ``(frames, lanes)``.
            UsageError: neither booleans nor 0 and 1; or resets, where a checkpoint has other
                starting values than the frame function.
        """
        lanes = trace.graph.lanes
        if resets is not None:
            self.check_resets(trace)

        def flags(given: npt.ArrayLike | None, what: str) -> npt.NDArray[np.bool_] | None:
            return None if given is None else arrays.flags(given, (frames, lanes), what)

        return {"resets": flags(resets, "resets"), "masks": flags(masks, "masks")}

    def check_resets(self, trace: Trace) -> None:
        """See that a lane can begin anew inside a window.

        Raises:
            UsageError: a checkpoint has other starting values than the frame function.
        """
        moved = [name for name, each in trace.recurrences.items() if not each.traced]
        if moved:
            raise UsageError(
                f"resets begin at the starting values of the frame function; that of {moved[0]!r} "
                "in the checkpoint is another"
            )

    def streams(
        self, program: Program, inputs: Sequence[Symbol], data: Sequence[npt.ArrayLike]
    ) -> list[Array]:
        """Whole sequences ``(time, features, batch)`` for `inputs`, in the program's order.

        Raises:
            UsageError: another number of arrays than of placeholders, or no numbers.
            ShapeError: an array that does not fit, or of another length than the others.
            NonFiniteError: NaN or infinity.
        """
        with arrays.advising(data):
            given = matched(inputs, data)
            if not given:
                raise UsageError("no placeholder is needed, so there is no data to walk through")
            whole = {
                symbol.id: arrays.sequence(
                    values, symbol.shape, self.numerics.dtype, f"the data for {symbol.name!r}"
                )
                for symbol, values in given.items()
            }
        lengths = {symbol.name: len(whole[symbol.id]) for symbol in given}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"the data differ in their number of frames: {lengths}")
        return [whole[id] for id in program.placeholders]


def matched(
    inputs: Sequence[Symbol], data: Sequence[npt.ArrayLike]
) -> Mapping[Symbol, npt.ArrayLike]:
    """Each placeholder with its array.

    Raises:
        UsageError: no list of arrays, or another number of them than of placeholders.
    """
    arrays.listed(data, "the data")
    if len(inputs) != len(data):
        names = ", ".join(f"{symbol.name!r} {symbol.shape}" for symbol in inputs)
        raise UsageError(
            f"expected one array for each of the placeholders needed ({names or 'none'}), "
            f"got {len(data)}"
        )
    return dict(zip(inputs, data, strict=True))


def _lane(lane: int, shape: tuple[int, ...], what: str) -> int:
    index = arrays.integer(lane, "lane")
    if not 0 <= index < shape[1]:
        raise UsageError(f"{what} has {shape[1]} lanes, counted from 0; there is no lane {lane}")
    return index
