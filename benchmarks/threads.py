"""Two nets trained in two Python threads at once: how much sooner than one after the other.

    python benchmarks/threads.py           best of nine rounds; the goal is over 1.8 on two cores
    python benchmarks/threads.py --short   a round of two short runs, for CI; nothing is asked of it

The core releases the GIL while it trains. Before a round counts, its losses are held against those
of the nets trained alone: the same bits. Ends with status 1 if they differ or the goal is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

import bptt

GOAL = 1.8
FEATURES, WIDTH, BATCH, T = 8, 64, 16, 20


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
        self.losses = self.bp.fit(self.train, self.data, steps=steps, start=self.bp.next_frame).loss


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each round, and the ratio of the best times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="for CI")
    options = parser.parse_args(arguments)
    steps, rounds = (50, 1) if options.short else (500, 9)

    print(f"bptt {version('bptt')}, numpy {np.__version__}, {os.cpu_count()} cores")
    alone, together = [Run(1), Run(2)], [Run(1), Run(2)]
    times = []
    for _ in range(rounds):
        apart = one_after_the_other(alone, steps)
        joint = at_once(together, steps)
        for one, other in zip(alone, together, strict=True):
            if not np.array_equal(one.losses, other.losses):
                print("FAIL  not the bits of the nets trained alone")
                return 1
        times.append((apart, joint))
        print(f"one after the other {apart:.3f} s, at once {joint:.3f} s")
    best = min(apart for apart, _ in times) / min(joint for _, joint in times)
    print(f"speed-up of two threads: {best:.2f} (goal: over {GOAL})")
    return 0 if options.short or best > GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
