"""Processes that train one net together over MPI: how they meet, and how they fail.

The processes of an mpi4py communicator (an extra: ``pip install "bptt[mpi]"``) are its *ranks*.
Each has the whole net and lanes of its own; the core adds gradients up over all of them once a
window (``cpp/optimise/ranks.h``). What is here happens at the edges of pieces of a run. All ranks
come to the same meetings in the same order: what one of them does meanwhile, and may fail at, is
done within a meeting, so that the others learn of it instead of waiting.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from bptt import checkpoint
from bptt.arrays import shown
from bptt.errors import RankError, UsageError
from bptt.net import Net, Rows
from bptt.numerics import Array
from bptt.trace import Trace

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from bptt import _core
    from bptt.checkpoint import Checkpoint

INSTALL = 'pip install "bptt[mpi]"'
"""The command that brings mpi4py."""

CHECKED = 500
"""After so many windows at most, ranks compare their weights."""

T = TypeVar("T")


class Alone:
    """One process, which agrees with itself.

    Attributes:
        first: whether it is the first rank, which writes files and shows bars.
        period: how many windows may go by between two meetings; None for any number.
    """

    first = True
    period: int | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around all that ranks do together."""
        yield

    def all(self, act: Callable[[], T]) -> list[T]:
        """What `act` gives in each rank; it raises in all of them if it does in one.

        Raises:
            RankError: where it did not fail itself.
        """
        return [act()]

    def agreed(self, act: Callable[[], T]) -> T:
        """What `act` gives here; it raises in all ranks if it does in one.

        Raises:
            RankError: where it did not fail itself.
        """
        return act()

    def known(self, act: Callable[[], T]) -> T:
        """What `act` gives; if it raises, all ranks know already."""
        return act()

    def require_same(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """See that all ranks have the same facts.

        Raises:
            RankError: they have not; it names the first that differs.
        """

    def core(self, net: Net, trace: Trace, values: list[int], rows: Rows) -> _core.Ranks32 | None:
        """What adds up gradients, and these window values, the first of them the loss.

        `rows` are the resets and masks of this rank's windows.

        Raises:
            UsageError: values that cannot be put together from those of ranks.
        """
        return None

    def check_place(self, path: str | os.PathLike[str]) -> None:
        """See `checkpoint.check_place`; the first rank writes for all."""
        checkpoint.check_place(path)

    def write(self, net: Net, path: str | os.PathLike[str]) -> None:
        """See `checkpoint.write`; the file holds the lanes of all ranks."""
        checkpoint.write(net, path)

    def read(self, path: str | os.PathLike[str]) -> Checkpoint:
        """See `checkpoint.read`; the first rank reads for all."""
        return checkpoint.read(path)

    def share(self, saved: Checkpoint, net: Net) -> Checkpoint:
        """The same with the lanes of this rank alone.

        Raises:
            CheckpointError: it has another number of them than all ranks together.
        """
        return saved


class Ranks(Alone):
    """The ranks of a communicator, seen from one of them."""

    period = CHECKED

    def __init__(self, comm: Intracomm) -> None:
        from mpi4py import MPI

        self._comm = comm
        self.first = comm.rank == 0
        self._in_place, self._sum = MPI.IN_PLACE, MPI.SUM
        self._shared: BaseException | None = None  # what was raised last that all ranks know of

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error that the others cannot learn of, of MPI itself for one, ends all processes."""
        try:
            yield
        except BaseException as error:
            if error is not self._shared:
                self._abort()
            raise

    def all(self, act: Callable[[], T]) -> list[T]:
        """See `Alone.all`."""
        given: Any = None
        own: BaseException | None = None
        try:
            given = act()
        except BaseException as error:
            own = error
        failure = None if own is None else f"{type(own).__name__}: {own}"
        met: list[tuple[str | None, T]] = self._comm.allgather((failure, given))
        for rank, (failed, _) in enumerate(met):
            if failed is not None:
                other = RankError(f"rank {rank} failed with {failed}")
                self._shared = other if own is None else own
                raise self._shared
        return [each for _, each in met]

    def agreed(self, act: Callable[[], T]) -> T:
        """See `Alone.agreed`."""
        given: list[T] = []
        self.all(lambda: given.append(act()))
        return given[0]

    def known(self, act: Callable[[], T]) -> T:
        """See `Alone.known`."""
        try:
            return act()
        except BaseException as error:
            self._shared = error
            raise

    def require_same(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """See `Alone.require_same`."""
        each = self.all(facts)
        for name, value in each[0].items():
            for rank, theirs in enumerate(each):
                if theirs[name] != value:
                    self._shared = RankError(
                        f"ranks that train one net differ in {name}: rank 0 has {shown(value)}, "
                        f"rank {rank} has {shown(theirs[name])}"
                    )
                    raise self._shared

    def core(self, net: Net, trace: Trace, values: list[int], rows: Rows) -> _core.Ranks32:
        """See `Alone.core`."""
        first, lanes = self._lanes(trace)
        given = self.all(lambda: [each is not None for each in (rows["resets"], rows["masks"])])
        resets, masks = (any(each) for each in zip(*given, strict=True))
        return self.agreed(
            lambda: net.numerics.Ranks(
                self._add_up, first, lanes, trace.graph, values, resets, masks
            )
        )

    def check_place(self, path: str | os.PathLike[str]) -> None:
        """See `Alone.check_place`."""
        self.agreed(lambda: checkpoint.check_place(path) if self.first else None)

    def write(self, net: Net, path: str | os.PathLike[str]) -> None:
        """See `Alone.write`."""
        parts = self.all(lambda: (net.traces["deep"].graph.lanes, checkpoint.of_lanes(net)))

        def write() -> None:
            if self.first:
                checkpoint.write(net, path, others=checkpoint.joined(parts))

        self.agreed(write)

    def read(self, path: str | os.PathLike[str]) -> Checkpoint:
        """See `Alone.read`."""
        saved = self.all(lambda: checkpoint.read(path) if self.first else None)[0]
        assert saved is not None
        return saved

    def share(self, saved: Checkpoint, net: Net) -> Checkpoint:
        """See `Alone.share`."""
        first, lanes = self._lanes(net.traces["deep"])
        return self.agreed(lambda: saved.part(net, first, lanes))

    def _lanes(self, trace: Trace) -> tuple[int, int]:
        """The number of this rank's first lane, and how many all ranks have."""
        counts = self.all(lambda: trace.graph.lanes)
        *before, lanes = accumulate(counts, initial=0)
        return before[self._comm.rank], lanes

    def _add_up(self, numbers: Array) -> None:
        try:
            self._comm.Allreduce(self._in_place, numbers, self._sum)
        except BaseException:
            self._abort()
            raise

    def _abort(self) -> None:
        told = f"{traceback.format_exc()}rank {self._comm.rank} ends all ranks\n"
        print(told, end="", file=sys.stderr, flush=True)
        time.sleep(0.5)  # a launcher that is told to end all passes on no more of what was printed
        self._comm.Abort(1)


def joined(comm: object) -> Alone:
    """The ranks of a communicator of mpi4py; None for this process alone.

    Raises:
        UsageError: `comm` is something else.
    """
    if comm is None:
        return Alone()
    mpi = sys.modules.get("mpi4py.MPI")  # whoever has a communicator has imported it
    if mpi is None or not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL:
        raise UsageError(
            f"comm is a communicator of mpi4py ({INSTALL}), such as MPI.COMM_WORLD, "
            f"got {shown(comm)}"
        )
    return Ranks(comm)


def digest(tensors: Mapping[str, Array]) -> str:
    """A short text that differs where a bit does."""
    found = hashlib.blake2b(digest_size=16)
    for name, values in sorted(tensors.items()):
        found.update(name.encode())
        found.update(values.tobytes())
    return found.hexdigest()


def weights(net: Net) -> str:
    """The digest of a net's weights."""
    return digest({name: net.weights.get(name) for name in net.weights.names})
