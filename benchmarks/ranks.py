"""Training on several ranks: the time of a window against their number, measured and modelled.

    python benchmarks/ranks.py                                two ranks on this machine
    python benchmarks/ranks.py --network "mine:5:10"          a network of 5 µs and 10 GB/s
    python benchmarks/ranks.py --short                        short runs, for CI

Measured here: the window of one process with ever fewer lanes, the Allreduce of buffers of several
sizes between the ranks, what the meeting costs apart from it, and the window of `fit(comm=)`. The
model adds them up for more ranks and other networks. Of n bytes on P ranks an Allreduce takes, by
the better of the two algorithms that MPI libraries use (Thakur, Rabenseifner & Gropp, *Optimization
of collective communication operations in MPICH*, 2005; the time of additions is part of 1/beta),

    recursive doubling   log2(P) (alpha + n/beta)
    Rabenseifner's       2 log2(P) alpha + 2 (P-1)/P n/beta

Before anything is timed, the losses of the ranks have to be the same bits in all of them, and those
of one process with all lanes. Ends with status 1 if they are not. Needs mpi4py and mpiexec.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from common import check, clock, report, shell
from common.cases import C, Case, D, Given, Matrix, given
from common.ours import Ours

SMALL = Case("S", "lstm", 8, 32, 8, 32, 8, windows=8)
CASES = {case.name: case for case in (SMALL, C, D)}
SIZES = [2**k for k in range(8, 25, 4)]  #: bytes
MOST = 64  #: ranks, in the model
COMPARED = 3  #: windows
PAYS = 1.1  #: what twice the ranks have to gain at least
EFFICIENT = 0.8


@dataclass(frozen=True)
class Network:
    """What lies between two ranks."""

    name: str
    alpha: float  #: seconds that a message takes, however short
    beta: float  #: bytes a second

    @classmethod
    def parse(cls, text: str) -> Network:
        """NAME:MICROSECONDS:GIGABYTES_A_SECOND, as an option."""
        name, alpha, beta = text.rsplit(":", 2)
        return cls(name, float(alpha) * 1e-6, float(beta) * 1e9)

    def allreduce(self, ranks: int, size: int) -> float:
        """Seconds."""
        if ranks == 1:
            return 0.0
        rounds, send = np.log2(ranks), size / self.beta
        halving = 2 * rounds * self.alpha + 2 * (ranks - 1) / ranks * send
        return float(min(rounds * (self.alpha + send), halving))


PATIENT = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}
NETWORKS = ["10 Gbit Ethernet:25:1.1", "100 Gbit InfiniBand:1.5:11"]


# ---- in each rank


class Part(Ours):
    """A case's net with the lanes of one rank."""

    def __init__(self, case: Case, whole: Given, comm: Any = None) -> None:
        first = comm.rank * case.batch if comm else 0
        lanes = slice(first, first + case.batch)
        state = {name: values[:, lanes] for name, values in whole.state.items()}
        share = Given(whole.weights, state, whole.x[:, lanes], whole.y[:, lanes])
        super().__init__(case, share)
        self.comm = comm

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses."""
        start = self.bp.next_frame
        run = self.bp.fit(self.operation, self.data, windows, start=start, comm=self.comm)
        return run.loss


def timed(comm: Any, run: Callable[[int], object], rounds: int, seconds: float) -> float:
    """Seconds of one more piece of work that all ranks do at once, the slowest counting.

    What a call takes by itself, such as comparing what ranks have in common, is left out.
    """

    def turn(count: int) -> float:
        comm.Barrier()
        began = time.perf_counter()
        run(count)
        return float(max(comm.allgather(time.perf_counter() - began)))

    turn(2)
    count = max(1, round(seconds / max(turn(3) - turn(1), 1e-6) * 2))
    more = float(np.median([turn(1 + count) - turn(1) for _ in range(rounds)]))
    return max(more, 1e-9) / count  # a short run among other work may find less than nothing


def measure(names: str, rounds: int, seconds: float) -> None:
    """Print what is found as JSON, in the first rank."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if hasattr(os, "sched_setaffinity"):  # a processor for each, if there are as many
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [available[comm.rank % len(available)]])
    found: dict[str, Any] = {"allreduce": {}, "cases": {}}
    for size in SIZES:
        numbers = np.ones(size // 4, np.float32)

        def add_up(count: int, numbers: Matrix = numbers) -> None:
            for _ in range(count):
                comm.Allreduce(MPI.IN_PLACE, numbers)

        found["allreduce"][size] = timed(comm, add_up, rounds, seconds)
    for name in names:
        case = CASES[name]
        whole = given(replace(case, batch=comm.size * case.batch))
        together = Part(case, whole, comm)
        losses = together.train(COMPARED)
        if not all(np.array_equal(other, losses) for other in comm.allgather(losses)):
            raise check.Different(f"{name}: the ranks have other losses")
        alone = Ours(replace(case, batch=comm.size * case.batch), whole).train(COMPARED)
        if not np.allclose(losses, alone, rtol=check.LOSSES, atol=0):
            raise check.Different(f"{name}: losses {losses}, of one process {alone}")
        compute, lanes = {}, case.batch
        while lanes >= 1:
            run = Part(replace(case, batch=lanes), whole)
            compute[lanes] = timed(comm, run.train, rounds, seconds)
            lanes //= 2
        own = Part(case, whole)
        own.comm = MPI.COMM_SELF
        found["cases"][name] = {
            "bytes": 4 * sum(each.size for each in whole.weights.values()),
            "compute": compute,
            "meeting": timed(comm, own.train, rounds, seconds) - compute[case.batch],
            "together": timed(comm, together.train, rounds, seconds),
        }
    if comm.rank == 0:
        print(json.dumps(found), flush=True)


# ---- in the process that starts them


def ranks_found(count: int, patient: bool, *options: object) -> dict[str, Any]:
    """What `measure` printed, of so many ranks; `patient` ones leave processors to others."""
    command = [launcher() or "mpiexec", "-n", str(count), sys.executable, "-m", "mpi4py", __file__]
    answer = subprocess.run(
        [*command, "--measure", *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(PATIENT if patient else {})},
    )
    if answer.returncode:
        raise check.Different(f"the ranks ended with status {answer.returncode}")
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def launcher() -> str | None:
    """The mpiexec of this environment, or the machine's."""
    here = str(Path(sys.executable).parent)
    return shutil.which("mpiexec", path=here) or shutil.which("mpiexec")


def fitted(times: Mapping[str, float], ranks: int) -> Network:
    """The network that explains the shortest and the longest Allreduce measured here."""
    small, large = min(times, key=int), max(times, key=int)
    rounds = np.log2(ranks)
    longer = max(times[large] - times[small], 1e-9)
    beta = 2 * (ranks - 1) / ranks * (int(large) - int(small)) / longer
    return Network("this machine", float(times[small] / rounds), float(beta))


def modelled(case: Case, found: Mapping[str, Any], networks: Sequence[Network]) -> None:
    """Print windows against ranks, and where more of them stop paying."""
    compute = {int(lanes): seconds for lanes, seconds in found["compute"].items()}
    one, counts = compute[case.batch], [2**k for k in range(MOST.bit_length())]
    print(f"{case}; {found['bytes'] / 1e6:.3g} MB of gradients\n")

    def extra(network: Network, ranks: int) -> float:
        meeting = max(found["meeting"], 0.0) if ranks > 1 else 0.0
        return meeting + network.allreduce(ranks, found["bytes"])

    rows, stops = [], []
    for network in networks:
        weak = {n: one + extra(network, n) for n in counts}
        strong = {
            n: compute[case.batch // n] + extra(network, n) for n in counts if n <= case.batch
        }
        for kind, times in (("each", weak), ("in all", strong)):
            gains = [one / times[n] * (n if kind == "each" else 1) for n in times]
            cells = [
                f"{report.seconds(times[n])}, {g:.3g}" for n, g in zip(times, gains, strict=True)
            ]
            cells += [""] * (len(counts) - len(cells))
            rows.append([f"{network.name}, {case.batch} lanes {kind}", *cells])
        most = next((n for n in strong if n > 1 and strong[n // 2] / strong[n] < PAYS), None)
        few = next((n for n in weak if one / weak[n] < EFFICIENT), None)
        all_in = f"{most} ranks gain under 10% over {most // 2}" if most else "each doubling pays"
        each = f"{few} ranks lose" if few else f"{MOST} ranks do not yet lose"
        stops.append(
            f"{network.name}: with {case.batch} lanes in all {all_in}; with {case.batch} lanes "
            f"each {each} over {1 - EFFICIENT:.0%} of their time."
        )
    report.table(["a window, gain by ranks:", *map(str, counts)], rows)
    print("\n".join(stops) + "\n")


def main() -> None:
    parser = shell.parser(__doc__, rounds=5, seconds=0.3)
    parser.add_argument("--cases", default="SCD", metavar="LETTERS", help="of S, C, D")
    parser.add_argument("--ranks", type=shell.positive, default=2, help="on this machine")
    parser.add_argument("--network", action="append", help="NAME:MICROSECONDS:GB_A_SECOND")
    parser.add_argument("--measure", nargs=3, help="CASES ROUNDS SECONDS, in a rank")
    options = shell.parse(parser)
    if options.measure:
        measure(options.measure[0], int(options.measure[1]), float(options.measure[2]))
        return
    if find_spec("mpi4py") is None or launcher() is None:
        missing = "mpi4py" if find_spec("mpi4py") is None else "mpiexec"
        print(f'{missing} is not installed, so there are no ranks: pip install "bptt[mpi]" mpich')
        return
    if options.short:
        options.cases = "S"
    clock.pin(max(options.ranks, 1))
    report.heading(threads=1)
    found = ranks_found(
        options.ranks, options.short, options.cases, options.rounds, options.seconds
    )
    here = fitted(found["allreduce"], options.ranks)
    report.table(
        [f"Allreduce, {options.ranks} ranks here", "measured", "model"],
        [
            [
                f"{int(size):,} bytes",
                report.seconds(seconds),
                report.seconds(here.allreduce(options.ranks, int(size))),
            ]
            for size, seconds in found["allreduce"].items()
        ],
    )
    rows = []
    for name in options.cases:
        case, case_found = CASES[name], found["cases"][name]
        one = case_found["compute"][str(case.batch)]
        added = max(case_found["meeting"], 0) + here.allreduce(options.ranks, case_found["bytes"])
        figures = (one, added, one + added, case_found["together"])
        rows.append([str(case), *map(report.seconds, figures)])
    report.table(
        [f"a window, {options.ranks} ranks here", "compute", "meeting", "sum", "measured"], rows
    )
    networks = [here, *map(Network.parse, options.network or NETWORKS)]
    for name in options.cases:
        modelled(CASES[name], found["cases"][name], networks)
    report.finish(options, [], found)


if __name__ == "__main__":
    shell.run(main)
