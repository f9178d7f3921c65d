"""What two threads gain: two nets at once, and one net with a team of two.

    python benchmarks/threads.py           the goals are over 1.8 and over 1.75 on two cores
    python benchmarks/threads.py --short   short runs, for CI; nothing is asked of the times

Two nets in two Python threads: the core releases the GIL while it trains, and the losses have to
be those of the nets trained alone, bit for bit. One net, `BPTT(threads=2)` beside `threads=1`, on
cases C, D, E and G, which has one lane, and PyTorch with as many threads: each in a process of its
own, since the workers of one library go on spinning for a while and would disturb the next; the
processes take turns. Our losses have to be the same bits for every number of threads, PyTorch's the
same but for rounding.
Ends with status 1 if answers differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

import bptt
from common import check, clock, peers, report, shell
from common.cases import CASES, given
from common.ours import Ours

GOAL, TEAM_GOAL, TEAM_CASES = 1.8, 1.75, "CDE"
FEATURES, WIDTH, BATCH, T = 8, 64, 16, 20
COMPARED = 2  #: windows


class Run:
    """A net with data of its own."""

    def __init__(self, seed: int, frames: int = 1000) -> None:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x, y = bp.placeholder((FEATURES, BATCH)), bp.placeholder((1, BATCH))
            _, h = bptt.layers.lstm(bp, x, WIDTH)
            return x, y, bptt.layers.dense(bp, h, 1)

        self.bp = bptt.BPTT(seed=seed)
        _, y, out = self.bp.generate_graphs(frame, num_loops=T)["deep"]
        self.train = self.bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(1e-3))
        rng = np.random.default_rng(seed)
        shapes = (frames, FEATURES, BATCH), (frames, 1, BATCH)
        self.data = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        self.losses: npt.NDArray[Any] = np.zeros(0)
        self.fit(2)  # compiled, and its memory touched

    def fit(self, steps: int) -> None:
        """So many windows more; keeps their losses."""
        start = self.bp.next_frame
        history = self.bp.fit(self.train, self.data, steps=steps, start=start, progress=False)
        self.losses = history.loss


def one_after_the_other(runs: Sequence[Run], steps: int) -> float:
    """Seconds."""
    began = time.perf_counter()
    for run in runs:
        run.fit(steps)
    return time.perf_counter() - began


def at_once(runs: Sequence[Run], steps: int) -> float:
    """Seconds, in as many threads as there are runs."""
    threads = [Thread(target=run.fit, args=(steps,)) for run in runs]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def two_nets(steps: int, rounds: int) -> report.Goal:
    """Print each round; the ratio of the best times."""
    alone, together = [Run(1), Run(2)], [Run(1), Run(2)]
    times = []
    for _ in range(rounds):
        apart = one_after_the_other(alone, steps)
        joint = at_once(together, steps)
        for one, other in zip(alone, together, strict=True):
            if not np.array_equal(one.losses, other.losses):
                raise check.Different("not the bits of the nets trained alone")
        times.append((apart, joint))
        print(f"two nets: one after the other {apart:.3f} s, at once {joint:.3f} s")
    print()
    best = min(apart for apart, _ in times) / min(joint for _, joint in times)
    return report.Goal("two nets in two Python threads", best, GOAL)


def in_this_process(library: str, name: str, threads: int, rounds: int, seconds: float) -> None:
    """Print the losses of the first windows and the seconds of a step, as JSON."""
    clock.pin(threads)
    case = CASES[name]
    trainer: check.Trainer
    if library == "bptt":
        trainer = Ours(case, given(case), threads=threads)
    else:
        from common import pytorch

        trainer = pytorch.PyTorch(case, given(case), threads=threads)
    losses = trainer.train(COMPARED)
    times = clock.interleave({"": trainer.train}, rounds, seconds)[""]
    print(json.dumps({"losses": losses.tolist(), "seconds": float(np.median(times))}))


def in_its_own_process(library: str, name: str, threads: int, *turn: float) -> dict[str, Any]:
    """What `in_this_process` printed there."""
    command = [sys.executable, __file__, "--measure", library, name, *map(str, (threads, *turn))]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def one_net(names: str, processes: int, rounds: int, seconds: float) -> list[report.Goal]:
    """Print a table of one and two threads; our ratios."""
    libraries = ["bptt", *(["PyTorch"] if peers.installed("PyTorch") else [])]
    rows, goals = [], []
    for name in names:
        expected: Any = None
        for library in libraries:
            taken = np.empty((processes, 2))
            for row in taken:
                for threads in (1, 2):
                    found = in_its_own_process(library, name, threads, rounds, seconds)
                    losses = found["losses"]
                    expected = losses if expected is None else expected
                    if library == "bptt" and losses != expected:
                        raise check.Different(f"{name}: other losses with {threads} threads")
                    if not np.allclose(losses, expected, rtol=check.LOSSES, atol=0):
                        raise check.Different(f"{name}: {library} has losses {losses}")
                    row[threads - 1] = found["seconds"]
            one, two = np.median(taken, axis=0)
            gain = float(np.median(taken[:, 0] / taken[:, 1]))
            rows.append(
                [
                    str(CASES[name]) if library == "bptt" else "",
                    library,
                    report.seconds(float(one)),
                    report.seconds(float(two)),
                    f"{gain:.2f}",
                ]
            )
            if library == "bptt" and name in TEAM_CASES:
                goals.append(report.Goal(f"{name}: one net, threads=2", gain, TEAM_GOAL))
    report.table(["case", "library", "one thread", "two threads", "gain"], rows)
    return goals


def main() -> None:
    parser = shell.parser(__doc__, rounds=9, seconds=0.5)
    parser.add_argument("--cases", default="CDEG", metavar="LETTERS", help="of one net")
    parser.add_argument("--processes", type=shell.positive, default=5, help="for each figure")
    parser.add_argument("--measure", nargs=5, help="LIBRARY CASE THREADS ROUNDS SECONDS, by itself")
    options = shell.parse(parser)
    if options.measure:
        library, name, threads, rounds, seconds = options.measure
        in_this_process(library, name, int(threads), int(float(rounds)), float(seconds))
        return
    report.heading(threads=2)
    goals = [two_nets(50 if options.short else 500, options.rounds)]
    if options.short:
        options.cases, options.processes = "C", 1
    goals += one_net(options.cases, options.processes, 3, options.seconds)
    report.finish(options, goals)


if __name__ == "__main__":
    shell.run(main)
