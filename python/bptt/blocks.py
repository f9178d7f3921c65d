"""A dataset as blocks of windows, which the core walks through while the next one is read.

Sequences are laid one behind another into the lanes of a net, each into the lane that is free
first. The line of frames that comes of it is cut into windows, and so many windows as make two
megabytes are one block: an array for each placeholder, with rows that say where sequences begin and
which frames there are. Nothing here knows what a net computes.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bptt import arrays
from bptt.errors import NonFiniteError, ShapeError, UsageError
from bptt.net import Net, Rows
from bptt.numerics import Array, Program
from bptt.trace import Trace

BLOCK = 2**21  # bytes of a block's arrays, about

Flags = npt.NDArray[np.bool_]


class Source(Protocol):
    """``(time, features)`` or ``(time,)``: an array, a memory map, or what is sliced like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it."""

    def __getitem__(self, frames: slice) -> Any:
        """Some frames."""


class Feed(NamedTuple):
    """A placeholder, and which of a sequence's arrays is its own.

    Attributes:
        name: of the placeholder.
        shape: ``(features, lanes)``.
        needed: which one, of arrays for the placeholders that are needed.
        among: which one, of arrays for all placeholders of the frame.
    """

    name: str
    shape: tuple[int, int]
    needed: int
    among: int

    @property
    def features(self) -> int:
        """So many."""
        return self.shape[0]


@dataclass(frozen=True)
class Windows:
    """What windows a program takes.

    Attributes:
        feeds: its placeholders, in its order.
        placeholders: how many the frame has.
        lanes: of each frame.
        frames: of a window.
        stride: frames from one window to the next.
        dtype: of the net.
    """

    feeds: Sequence[Feed]
    placeholders: int
    lanes: int
    frames: int
    stride: int
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls, net: Net, trace: Trace, values: Sequence[int], program: Program, stride: int
    ) -> Windows:
        """Those of a program that computes these values."""
        needed = trace.inputs(values)
        among = trace.inputs([symbol.id for symbol in trace.placeholders])
        feeds = {
            each.id: Feed(each.name, each.shape, place, among.index(each))
            for place, each in enumerate(needed)
        }
        ordered = [feeds[id] for id in program.placeholders]
        lanes, dtype = trace.graph.lanes, net.numerics.dtype
        return cls(ordered, len(among), lanes, program.frames, stride, dtype)

    @property
    def overlap(self) -> int:
        """Frames of a window that do not count, since earlier ones had them."""
        return self.frames - self.stride

    @property
    def at_once(self) -> int:
        """Windows in a block."""
        numbers = sum(features * lanes for features, lanes in (feed.shape for feed in self.feeds))
        return max(1, BLOCK // (self.dtype.itemsize * self.stride * numbers))

    def pick(self, given: Sequence[Any], what: str) -> list[int]:
        """Which of the arrays for placeholders are those of the feeds, in their order.

        Raises:
            UsageError: neither as many as are needed nor as many as the frame has; none is needed;
                a placeholder has other lanes than the net.
        """
        if not self.feeds:
            raise UsageError("no placeholder is needed, so there is no data to walk through")
        for feed in self.feeds:
            if feed.shape[1] != self.lanes:
                raise UsageError(
                    f"a dataset feeds each of the {self.lanes} lanes; the placeholder "
                    f"{feed.name!r} has {feed.shape[1]}"
                )
        if len(given) == len(self.feeds):
            return [feed.needed for feed in self.feeds]
        if len(given) == self.placeholders:
            return [feed.among for feed in self.feeds]
        names = ", ".join(repr(f.name) for f in sorted(self.feeds, key=lambda feed: feed.needed))
        raise UsageError(
            f"{what} has {len(given)} arrays; expected one for each of the placeholders needed "
            f"({names}), or of the {self.placeholders} that the frame has"
        )

    def blank(self, frames: int) -> list[Array]:
        """Arrays of zeros, in the core's order: ``(frames, features, lanes)``."""
        shapes = [(frames, *feed.shape[::-1]) for feed in self.feeds]
        return [np.zeros(shape, self.dtype).swapaxes(1, 2) for shape in shapes]


@dataclass(frozen=True)
class Piece:
    """A sequence, or a part of one, to be laid into a lane.

    Attributes:
        number: which of all.
        name: for messages.
        sources: its arrays.
        begin: the frame where it begins,
        first: that where it begins to count,
        end: and that before which it ends.
    """

    number: int
    name: str
    sources: Sequence[Source]
    begin: int
    first: int
    end: int


class Placed(NamedTuple):
    """Frames of a piece in the line of a lane.

    Attributes:
        piece: whose frames.
        sources: of the feeds.
        lane: where.
        at: the frame of the line where they begin.
        begin: the first one, of the sequence.
        frames: how many.
        reset: whether the lane begins anew there.
    """

    piece: Piece
    sources: Sequence[Source]
    lane: int
    at: int
    begin: int
    frames: int
    reset: bool

    @property
    def end(self) -> int:
        """The frame of the line before which they end."""
        return self.at + self.frames


@dataclass(frozen=True)
class Block:
    """Consecutive windows.

    Attributes:
        streams: an array ``(frames, features, lanes)`` for each placeholder.
        rows: where lanes begin anew, and which frames there are.
        windows: how many there are.
        stride: frames from one to the next.
        start: the frame where the first one begins. After the last frame comes the first.
        counts: whether they are trained on; if not, they only bring the state forward.
        epoch: the epoch they belong to.
        window: the number of the first one in its epoch, of those that count.
        last: whether the epoch ends with it.
        placed: whose frames they are.
        line: the frame of the line that is the first one here.
    """

    streams: list[Array]
    rows: Rows
    windows: int
    stride: int
    start: int = 0
    counts: bool = True
    epoch: int = 0
    window: int = 0
    last: bool = False
    placed: Sequence[Placed] = ()
    line: int = 0

    def frame(self, window: int) -> int:
        """The frame where a window begins."""
        return (self.start + window * self.stride) % len(self.streams[0])

    def counted(self, frames: int, lanes: int, first: int, count: int) -> npt.NDArray[np.int64]:
        """How many frames, of all lanes, count in each of `count` windows, from `first` on."""
        valid = self.rows["masks"]
        if valid is None:
            return np.full(count, self.stride * lanes)
        until = np.concatenate([[0], valid.sum(axis=1).cumsum()])
        ends = self.start + frames + (np.arange(first, first + count)) * self.stride

        def through(frame: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            rounds, rest = np.divmod(frame, len(valid))
            before: npt.NDArray[np.int64] = rounds * until[-1] + until[rest]
            return before

        return through(ends) - through(ends - self.stride)


def laid(pieces: Iterator[Piece], windows: Windows, skip: int) -> Iterator[Block]:
    """Sequences one behind another in the lanes, from the window number `skip` on.

    Raises:
        UsageError, ShapeError: arrays that do not fit the placeholders; there are no more windows
            than are skipped.
        NonFiniteError: NaN or infinity.
    """
    number = 0
    for plan in _plans(pieces, windows):
        number = plan.number + plan.windows
        less = max(skip - plan.number, 0)
        if less >= plan.windows:
            continue
        if less:
            count, window = plan.windows - less, plan.window + less
            plan = plan._replace(number=skip, windows=count, window=window, warming=[])
        yield from _read(plan, windows)
    _require_more(number, skip)


class _Plan(NamedTuple):
    """A block before it is read: windows of the line, and who has to warm up before."""

    window: int
    windows: int
    placed: list[Placed]
    warming: list[Placed]
    number: int
    last: bool


def _plans(pieces: Iterator[Piece], windows: Windows) -> Iterator[_Plan]:
    """Where everything lies. Frame 0 of the line is the first that counts.

    A piece that has to warm up begins where a window counts from, so that it can be brought forward
    before that window, and nothing of the lane's last piece is in that window.
    """
    stride, overlap = windows.stride, windows.overlap
    free = [(-overlap, lane) for lane in range(windows.lanes)]  # a heap: where the lanes end
    placed: list[Placed] = []
    begin = number = 0
    coming = next(pieces, None)
    if coming is None:
        raise UsageError("the dataset has no sequences")
    picked = _fitting(coming, windows)
    while True:
        limit = begin + windows.at_once * stride
        while coming is not None and free[0][0] < limit:
            end, lane = free[0]
            warm = coming.first > coming.begin
            at = _up(end + overlap, stride) if warm else max(end, 0)
            sources = [coming.sources[place] for place in picked]
            count = coming.end - coming.first
            placed.append(Placed(coming, sources, lane, at, coming.first, count, not warm))
            heapq.heapreplace(free, (at + count, lane))
            coming = next(pieces, None)
        if not any(each.end > begin for each in placed):
            return
        idle = min(each.at for each in placed if each.end > begin) // stride * stride
        if idle > begin:  # every lane waits for its next piece
            begin = idle
            continue
        warmed = [each for each in placed if not each.reset]
        stop = min([limit, *(each.at for each in warmed if each.at > begin)])
        stop = min(stop, _up(max(each.end for each in placed if each.at < stop), stride))
        count = (stop - begin) // stride
        yield _Plan(
            begin // stride,
            count,
            [each for each in placed if each.at < stop],
            [each for each in warmed if each.at == begin],
            number,
            coming is None and all(each.end <= stop for each in placed),
        )
        number += count
        begin = stop
        placed = [each for each in placed if each.end > stop - overlap]


def _read(plan: _Plan, windows: Windows) -> Iterator[Block]:
    """The blocks of a plan: first those that bring lanes forward."""
    if plan.warming:
        size = windows.frames
        at_once = max(1, windows.at_once * windows.stride // size) * size
        frames = _up(max(each.piece.first - each.piece.begin for each in plan.warming), size)
        before = [
            each._replace(at=frames - count, begin=each.piece.begin, frames=count, reset=True)
            for each in plan.warming
            for count in [each.piece.first - each.piece.begin]
        ]
        for low in range(0, frames, at_once):
            high = min(low + at_once, frames)
            streams, rows = _filled(before, low, high, windows)
            yield Block(streams, rows, (high - low) // size, size, counts=False, window=plan.number)
    low = plan.window * windows.stride - windows.overlap
    high = low + windows.overlap + plan.windows * windows.stride
    streams, rows = _filled(plan.placed, low, high, windows)
    yield Block(
        streams,
        rows,
        plan.windows,
        windows.stride,
        window=plan.number,
        last=plan.last,
        placed=plan.placed,
        line=low,
    )


def _filled(
    placed: Sequence[Placed], low: int, high: int, windows: Windows
) -> tuple[list[Array], Rows]:
    """The frames of the line from `low` to `high`."""
    streams = windows.blank(high - low)
    resets, masks = np.zeros((2, high - low, windows.lanes), dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for piece, sources, lane, at, first, frames, reset in placed:
            begin, end = max(at, low), min(at + frames, high)
            if begin >= end:
                continue
            there, here = slice(begin - low, end - low), slice(first + begin - at, first + end - at)
            for stream, source in zip(streams, sources, strict=True):
                stream[there, :, lane] = _frames(source, here, piece)
            masks[there, lane] = True
            resets[begin - low, lane] = reset and begin == at
    for stream, feed in zip(streams, windows.feeds, strict=True):
        try:
            arrays.finite(stream, feed.name)
        except NonFiniteError:
            time, feature, lane = (int(i[0]) for i in np.nonzero(~np.isfinite(stream)))
            found = next(p for p in placed if p.lane == lane and p.at <= time + low < p.end)
            raise NonFiniteError(
                f"{found.piece.name} has {stream[time, feature, lane]} for {feed.name!r} at frame "
                f"{found.begin + time + low - found.at}, feature {feature}; expected finite numbers"
            ) from None
    return streams, {"resets": _some(resets), "masks": None if masks.all() else masks}


def _some(resets: Flags) -> Flags | None:
    return resets if resets.any() else None


def _frames(source: Source, frames: slice, piece: Piece) -> Any:
    """Frames of a source, ``(frames, features)``; only these are read."""
    part = np.asarray(source[frames])
    if part.shape != (frames.stop - frames.start, *source.shape[1:]):
        raise ShapeError(
            f"{piece.name} has an array of shape {source.shape}, of which frames {frames.start} to "
            f"{frames.stop} have shape {part.shape}"
        )
    return part if part.ndim > 1 else part[:, None]


def _fitting(piece: Piece, windows: Windows) -> list[int]:
    """Which of a piece's sources are those of the feeds, with as many features each as it takes."""
    picked = windows.pick(piece.sources, piece.name)
    for number, feed in zip(picked, windows.feeds, strict=True):
        source = piece.sources[number]
        features = source.shape[1] if len(source.shape) > 1 else 1
        if features != feed.features:
            plain = ", or (time,)" if feed.features == 1 else ""
            raise ShapeError(
                f"{piece.name} has shape {source.shape} for {feed.name!r}; expected (time, "
                f"{feed.features}){plain}"
            )
    return picked


def _up(frame: int, step: int) -> int:
    return -(-frame // step) * step


# Chunks


class Chunk(NamedTuple):
    """Some frames of all lanes.

    Attributes:
        streams: arrays ``(frames, features, lanes)``.
        resets: ``(frames, lanes)``, where lanes begin anew,
        masks: and which frames there are.
    """

    streams: list[Array]
    resets: Flags
    masks: Flags

    @classmethod
    def of(
        cls, streams: list[Array], lanes: int, resets: Flags | None, masks: Flags | None
    ) -> Chunk:
        """Without resets or masks where there are none."""
        shape = len(streams[0]), lanes
        return cls(
            streams,
            np.broadcast_to(np.False_, shape) if resets is None else resets,
            np.broadcast_to(np.True_, shape) if masks is None else masks,
        )

    @property
    def frames(self) -> int:
        """How many."""
        return len(self.resets)

    def part(self, begin: int, end: int | None = None) -> Chunk:
        """Some of its frames; a view."""
        streams = [stream[begin:end] for stream in self.streams]
        return Chunk(streams, self.resets[begin:end], self.masks[begin:end])


def rolled(chunks: Iterator[Chunk], windows: Windows, skip: int = 0) -> Generator[Block]:
    """Chunks, each of which goes on where the last one ended, from the window number `skip` on.

    What lies in one chunk is not copied. Before the first frame and after the last one there are as
    many that are masked as whole windows need.

    Raises:
        UsageError: there are no chunks, or no more windows than are skipped.
    """
    stride, overlap = windows.stride, windows.overlap

    def blank(frames: int) -> Chunk:
        nothing = np.zeros((frames, windows.lanes), dtype=bool)
        return Chunk(windows.blank(frames), nothing, nothing)

    held = [blank(overlap)]
    have, number = overlap, 0
    coming = next(chunks, None)
    if coming is None:
        raise UsageError("the dataset has no chunks")
    while coming is not None or have > overlap:
        while coming is not None and have < overlap + windows.at_once * stride:
            held.append(coming)
            have += coming.frames
            coming = next(chunks, None)
        count = max(1, min(windows.at_once, (have - overlap) // stride))
        gone = count * stride
        if have < overlap + gone:
            held.append(blank(overlap + gone - have))
        have = max(have - gone, overlap)
        less = max(skip - number, 0)
        if less < count:
            all = _first(held, overlap + gone).part(less * stride)
            rows: Rows = {
                "resets": _some(all.resets),
                "masks": None if all.masks.all() else all.masks,
            }
            last = coming is None and have == overlap
            yield Block(all.streams, rows, count - less, stride, window=number + less, last=last)
        number += count
        while gone:
            some = min(gone, held[0].frames)
            held[0] = held[0].part(some)
            gone -= some
            if gone:
                del held[0]
    _require_more(number, skip)


def _first(held: list[Chunk], frames: int) -> Chunk:
    """The first so many frames of what is held: a view, if they lie in one chunk."""
    while not held[0].frames:
        del held[0]
    parts = []
    for each in held:
        parts.append(each.part(0, frames))
        frames -= parts[-1].frames
        if not frames:
            break
    if len(parts) == 1:
        return parts[0]
    streams = zip(*(part.streams for part in parts), strict=True)
    joined = [np.concatenate([each.swapaxes(1, 2) for each in s]).swapaxes(1, 2) for s in streams]
    rows = ([part[row] for part in parts] for row in (1, 2))
    return Chunk(joined, *map(np.concatenate, rows))


# The walk


def _require_more(windows: int, skip: int) -> None:
    """See that an epoch of so many windows has some that are not skipped."""
    if skip >= windows:
        raise UsageError(
            f"the dataset has {windows} windows in an epoch, and none after its first {skip}; pass "
            "start=(epoch, 0) to begin at its first"
        )


def own_rows(net: Net, trace: Trace, resets: object, masks: object) -> None:
    """See that a dataset's rows can be used, and are the only ones.

    Raises:
        UsageError: they are not, or a checkpoint has other starting values than the frame function.
    """
    if resets is not None or masks is not None:
        raise UsageError("resets and masks come from the dataset itself")
    net.check_resets(trace)


def ahead(blocks: Iterator[Block]) -> Generator[Block]:
    """The same blocks, each made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1, "bptt-data") as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block
