"""Datasets: what `fit`, `evaluate` and `predict` take in place of whole arrays.

`Lanes` is one long recording, `Sequences` are many of different lengths, `Chunks` is what comes
piece by piece. A net's windows are made of them, so many lanes side by side as its frame has: state
is carried along each lane, `resets` are set where a sequence begins and `masks` where there is no
frame. Every frame counts once in an epoch. Only what a block of windows needs is read, a block
ahead, by a thread of its own.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from bptt import arrays
from bptt.blocks import Block, Chunk, Piece, Source, Windows, laid, rolled
from bptt.errors import ShapeError, UsageError
from bptt.numerics import Array

Items: TypeAlias = Iterable[Sequence[Any]] | Callable[[], Iterable[Sequence[Any]]]


class Dataset(ABC):
    """What `Lanes`, `Sequences` and `Chunks` have in common."""

    @property
    @abstractmethod
    def features(self) -> tuple[int, ...]:
        """Of each array."""

    @abstractmethod
    def blocks(self, windows: Windows, epoch: int, skip: int = 0) -> Iterator[Block]:
        """The windows of an epoch, but the first so many."""

    @abstractmethod
    def once(self, windows: Windows) -> Iterator[Block]:
        """All sequences as they were given, every frame a window of its own."""

    @abstractmethod
    def gather(self, results: Iterable[tuple[Block, Array]]) -> Any:
        """What a value was in each block of `once`, ``(frames, features, lanes)``, for a user."""


class _Laid(Dataset):
    """Sequences that are laid into lanes."""

    @abstractmethod
    def _pieces(self, lanes: int, epoch: int) -> Iterator[Piece]:
        """In the order in which they are laid."""

    @abstractmethod
    def _whole(self) -> Iterator[Piece]:
        """All frames of all sequences, in their own order."""

    def blocks(self, windows: Windows, epoch: int, skip: int = 0) -> Iterator[Block]:
        """See `Dataset`."""
        return laid(self._pieces(windows.lanes, epoch), windows, skip)

    def once(self, windows: Windows) -> Iterator[Block]:
        """See `Dataset`."""
        return laid(self._whole(), windows, 0)

    def gather(self, results: Iterable[tuple[Block, Array]]) -> list[Array]:
        """See `Dataset`; an array ``(time, features)`` for each sequence."""
        found: dict[int, Array] = {}
        for block, result in results:
            for each in block.placed:
                number, frames = each.piece.number, each.piece.end
                if number not in found:
                    found[number] = np.empty((frames, result.shape[1]), result.dtype)
                at = each.at - block.line
                begin, end = max(at, 0), min(at + each.frames, len(result))
                lane = min(each.lane, result.shape[2] - 1)  # a value may be common to all
                found[number][begin - at : end - at] = result[begin:end, :, lane]
        return [found[number] for number in sorted(found)]


class Lanes(_Laid):
    """One long recording, cut into as many contiguous parts as a net has lanes.

    The parts are walked side by side, state carried along each; they differ by one frame at most.
    Each begins at the starting state in every epoch, after its warm-up.

    Args:
        data: an array ``(time, features)``, or ``(time,)``, for each placeholder, in returned
            order. Memory maps, and what else has a `shape` and is sliced as arrays are (HDF5's
            datasets, Zarr's arrays), are never read as a whole.
        burn_in: frames before its own that a part is brought forward by, without gradient and
            without counting. The first part has none before it, and begins at once.

    Raises:
        ShapeError: arrays of different lengths, without frames, or of more than two axes.
        UsageError: no list of arrays of real numbers; a `burn_in` below 0.
        NonFiniteError: when it is read, NaN or infinity.

    Example:
        .. code-block:: python

            np.save("x.npy", inputs), np.save("y.npy", targets)
            maps = [np.load(name, mmap_mode="r") for name in ("x.npy", "y.npy")]
            bp.fit(train, bptt.data.Lanes(maps), epochs=3)
    """

    def __init__(self, data: Sequence[Any], *, burn_in: int = 0) -> None:
        self.burn_in = arrays.integer(burn_in, "burn_in", 0)
        self._sources = _sources(data, "the recording")
        self._frames = self._sources[0].shape[0]

    @property
    def features(self) -> tuple[int, ...]:
        """Of each array."""
        return _features(self._sources)

    def _pieces(self, lanes: int, epoch: int) -> Iterator[Piece]:
        edges = [lane * self._frames // lanes for lane in range(lanes + 1)]
        for lane, (first, end) in enumerate(itertools.pairwise(edges)):
            if first < end:
                begin = max(first - self.burn_in, 0)
                yield Piece(lane, "the recording", self._sources, begin, first, end)

    def _whole(self) -> Iterator[Piece]:
        yield Piece(0, "the recording", self._sources, 0, 0, self._frames)

    def gather(self, results: Iterable[tuple[Block, Array]]) -> Any:
        """See `Dataset`; one array ``(time, features)``."""
        return super().gather(results)[0]

    def __repr__(self) -> str:
        return f"Lanes({self._frames} frames of {self.features} features)"


class Sequences(_Laid):
    """Sequences of different lengths, one behind another in the lanes of a net.

    The next one goes to the lane that is free first, at once: also in the middle of a window. With
    `burn_in` it begins at the next window's edge, since its warm-up is a run of its own before that
    window. In the end lanes run out, and windows are filled up with frames that do not count.

    Args:
        sequences: each a list of arrays ``(time, features)``, or ``(time,)``, one for each
            placeholder, in returned order; memory maps are fine, as for `Lanes`. A list of them; or
            anything iterable, or a function without arguments that returns such, to be asked for
            them one by one. An iterator can be walked through once, a function in every epoch.
        shuffle: lay them in another order in every epoch, drawn from `seed` and the epoch's number;
            for lists.
        seed: of the orders, 0 or larger.
        burn_in: the first frames of each sequence, which bring the state forward, without gradient
            and without counting.

    Raises:
        ShapeError: arrays of different lengths in a sequence, without frames, of more than two
            axes, or of other features than in the first one; a sequence without a frame that
            counts.
        UsageError: no sequences, or no lists of arrays of real numbers; a `seed` or a `burn_in`
            below 0; `shuffle` without a list; an iterator that was walked through before.
        NonFiniteError: when it is read, NaN or infinity.

    Example:
        .. code-block:: python

            sequences = [(inputs[:300], targets[:300]), (inputs[500:], targets[500:])]
            bp.fit(train, bptt.data.Sequences(sequences, shuffle=True), epochs=3)
    """

    def __init__(
        self, sequences: Items, *, shuffle: bool = False, seed: int = 0, burn_in: int = 0
    ) -> None:
        self.shuffle = bool(shuffle)
        self.seed = arrays.integer(seed, "a seed", 0, 2**64 - 1)
        self.burn_in = arrays.integer(burn_in, "burn_in", 0)
        self._items: _Items | list[Piece]
        if isinstance(sequences, np.ndarray) and sequences.ndim:
            sequences = [*sequences]
        if isinstance(sequences, list | tuple):
            if not sequences:
                raise UsageError("the dataset has no sequences")
            self._items = [*self._checked(sequences)]
        else:
            self._items = _Items(sequences, "sequences")
            if self.shuffle:
                raise UsageError("shuffle takes a list of sequences: others come in their order")

    @property
    def features(self) -> tuple[int, ...]:
        """Of each array; of a function or an iterator the first sequence is asked for."""
        if isinstance(self._items, list):
            return _features(self._items[0].sources)
        return _features(next(self._checked([self._items.first()])).sources)

    def _checked(self, sequences: Iterable[Sequence[Any]]) -> Iterator[Piece]:
        features: tuple[int, ...] = ()
        for number, each in enumerate(sequences):
            name = f"sequence {number}"
            sources = _sources(each, name)
            found = _features(sources)
            if found != (features := features or found):
                raise ShapeError(f"{name} has {found} features, and sequence 0 {features}")
            frames = sources[0].shape[0]
            if frames <= self.burn_in:
                raise ShapeError(
                    f"{name} has {frames} frames, of which none counts: burn_in is {self.burn_in}"
                )
            yield Piece(number, name, sources, 0, self.burn_in, frames)

    def _pieces(self, lanes: int, epoch: int) -> Iterator[Piece]:
        if not isinstance(self._items, list):
            return self._checked(self._items)
        if not self.shuffle:
            return iter(self._items)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._items))
        return (self._items[number] for number in order)

    def _whole(self) -> Iterator[Piece]:
        items = self._items if isinstance(self._items, list) else self._checked(self._items)
        return (Piece(p.number, p.name, p.sources, 0, 0, p.end) for p in items)

    def __repr__(self) -> str:
        number = len(self._items) if isinstance(self._items, list) else "some"
        return f"Sequences({number} of them)"


class Chunks(Dataset):
    """Frames of all lanes, chunk by chunk, each chunk going on where the last one ended.

    Args:
        chunks: each a list of arrays ``(time, features, batch)``, one for each placeholder, in
            returned order, of any number of frames; only axes of length 1 may be missing. Anything
            iterable, or a function without arguments that returns such. An iterator can be walked
            through once, a function in every epoch.
        resets: whether each chunk has one more array at its end, booleans ``(time, batch)``, True
            where a sequence begins. All lanes begin anew with an epoch.

    Raises:
        UsageError: nothing iterable and no function; an iterator that was walked through before;
            when it is read, no chunks, or no lists of arrays of real numbers.
        ShapeError: when it is read, arrays that do not fit the net or one another.
        NonFiniteError: when it is read, NaN or infinity.

    Example:
        .. code-block:: python

            def chunks():
                for t in range(0, 2000, 100):
                    yield inputs[t : t + 100], targets[t : t + 100]


            bp.fit(train, bptt.data.Chunks(chunks), epochs=3)
    """

    def __init__(self, chunks: Items, *, resets: bool = False) -> None:
        self.resets = bool(resets)
        self._items = _Items(chunks, "chunks")

    @property
    def features(self) -> tuple[int, ...]:
        """Of each array; the first chunk is asked for."""
        parts = _listed(self._items.first(), "chunk 0")
        return tuple(_axis(part, 1) for part in parts[: len(parts) - self.resets])

    @property
    def lanes(self) -> int:
        """So many; the first chunk is asked for."""
        return _axis(_listed(self._items.first(), "chunk 0")[0], 2)

    def blocks(self, windows: Windows, epoch: int, skip: int = 0) -> Iterator[Block]:
        """See `Dataset`."""
        return rolled(self._checked(windows), windows, skip)

    def once(self, windows: Windows) -> Iterator[Block]:
        """See `Dataset`."""
        return self.blocks(windows, 0)

    def gather(self, results: Iterable[tuple[Block, Array]]) -> Array:
        """See `Dataset`; one array ``(time, features, batch)``."""
        return np.concatenate([result for _, result in results])

    def _checked(self, windows: Windows) -> Iterator[Chunk]:
        for number, each in enumerate(self._items):
            name = f"chunk {number}"
            parts = _listed(each, name)
            picked = windows.pick(parts[: len(parts) - self.resets], name)
            streams = [
                arrays.sequence(
                    parts[place],
                    (feed.features, windows.lanes),
                    windows.dtype,
                    f"{name} of the data for {feed.name!r}",
                )
                for place, feed in zip(picked, windows.feeds, strict=True)
            ]
            lengths = {len(stream) for stream in streams}
            if len(lengths) > 1:
                raise ShapeError(f"{name} has arrays of {sorted(lengths)} frames")
            resets = np.zeros((len(streams[0]), windows.lanes), dtype=bool)
            if self.resets:
                resets |= arrays.flags(parts[-1], resets.shape, f"the resets of {name}")
            resets[0] |= number == 0
            yield Chunk.of(streams, windows.lanes, resets, None)

    def __repr__(self) -> str:
        return "Chunks()"


class _Items:
    """Things that come one by one: from a function in every epoch, or from an iterable."""

    def __init__(self, given: Items, what: str) -> None:
        single = isinstance(given, np.ndarray) and not given.ndim
        if not callable(given) and (single or not isinstance(given, Iterable)):
            raise UsageError(
                f"{what} are a list, anything else iterable, or a function that returns such; got "
                f"{arrays.shown(given)}"
            )
        self._given, self._what = given, what
        self._walked = False

    def __iter__(self) -> Iterator[Any]:
        if callable(self._given):
            made = self._given()
            if not isinstance(made, Iterable):
                raise UsageError(
                    f"the function of the {self._what} returned {arrays.shown(made)}; expected "
                    "something iterable"
                )
            return iter(made)
        if isinstance(self._given, Iterator):
            if self._walked:
                raise UsageError(
                    f"the {self._what} are an iterator, which was walked through before; give a "
                    "function that returns one, or make another dataset"
                )
            self._walked = True
        return iter(self._given)

    def first(self) -> Any:
        """The first of them, which an iterator still has afterwards."""
        walk = iter(self)
        for item in walk:
            if isinstance(self._given, Iterator):
                self._given, self._walked = itertools.chain([item], walk), False
            return item
        raise UsageError(f"the dataset has no {self._what}")


def _listed(given: Any, what: str) -> Sequence[Any]:
    if not isinstance(given, list | tuple) or not given:
        raise UsageError(
            f"{what} is a list of arrays, one for each placeholder; got {arrays.shown(given)}"
        )
    return given


def _sources(given: Any, what: str) -> list[Source]:
    """Arrays, or what is like them, of one length; nothing of them is read."""
    sources = [_source(each, what) for each in _listed(given, what)]
    lengths = [source.shape[0] for source in sources]
    if len({*lengths}) > 1:
        raise ShapeError(f"{what} has arrays of {lengths} frames")
    if not lengths[0]:
        raise ShapeError(f"{what} has no frames")
    return sources


def _source(given: Any, what: str) -> Source:
    dtype = getattr(given, "dtype", None)
    sliced = isinstance(dtype, np.dtype) and dtype.kind in "fiub" and hasattr(given, "shape")
    if not sliced or isinstance(given, np.ma.MaskedArray):
        given = arrays.numbers(given, np.dtype(np.float64), f"an array of {what}")
    if len(given.shape) not in (1, 2) or 0 in given.shape[1:]:
        raise ShapeError(
            f"{what} has an array of shape {given.shape}; expected (time, features), or (time,)"
        )
    source: Source = given
    return source


def _features(sources: Sequence[Source]) -> tuple[int, ...]:
    return tuple(source.shape[1] if len(source.shape) > 1 else 1 for source in sources)


def _axis(given: Any, axis: int) -> int:
    """How long this axis is; one that is missing at the end is of length 1."""
    shape = np.shape(given)
    return shape[axis] if axis < len(shape) else 1
