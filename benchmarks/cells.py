"""How fast each cell's training windows are, by the multiplications that they are made of.

    python benchmarks/cells.py           best of five rounds; the goal is 1.3 at most
    python benchmarks/cells.py --short   one round of two windows, for CI; nothing is asked of it

A window is forward, backward and weight gradients of one layer, 64 features to 128 units, batch 32,
T 64, on one thread. Its work is counted as the multiplications of its products alone: three times
those of the forward (once more for the gradient of what the weights met, once more for their own).
The ratio is the LSTM's rate to the cell's, all in one run: how much longer the cell takes than its
share of multiplications would at the LSTM's speed. The goal is asked of all but the plain layer
with tanh and the options that draw numbers, which are shown. Ends with status 1 if the goal is
missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import bptt

GOAL = 1.3
FEATURES, WIDTH, BATCH, T = 64, 128, 32, 64

Layer = Callable[[bptt.BPTT, Any], Any]
CELLS: dict[str, Layer] = {
    "lstm": lambda bp, x: bptt.layers.lstm(bp, x, WIDTH)[1],
    "lstm, diagonal peepholes": lambda bp, x: bptt.layers.lstm(bp, x, WIDTH, peephole="diagonal")[
        1
    ],
    "lstm, coupled": lambda bp, x: bptt.layers.lstm(bp, x, WIDTH, coupled=True)[1],
    "lstm, projected to 64": lambda bp, x: bptt.layers.lstm(bp, x, WIDTH, projection=64)[1],
    "lstm, layer norm": lambda bp, x: bptt.layers.lstm(bp, x, WIDTH, layer_norm=True)[1],
    "gru, reset after": lambda bp, x: bptt.layers.gru(bp, x, WIDTH),
    "gru, reset before": lambda bp, x: bptt.layers.gru(bp, x, WIDTH, reset="before"),
    "lstm, zoneout": lambda bp, x: bptt.layers.lstm(bp, x, WIDTH, zoneout=(0.5, 0.05))[1],
    "lstm, dropout": lambda bp, x: bptt.layers.lstm(
        bp, x, WIDTH, dropout=0.2, recurrent_dropout=0.2
    )[1],
    "gru, zoneout": lambda bp, x: bptt.layers.gru(bp, x, WIDTH, zoneout=0.1),
    "gru, dropout": lambda bp, x: bptt.layers.gru(bp, x, WIDTH, dropout=0.2, recurrent_dropout=0.2),
    "rnn": lambda bp, x: bptt.layers.rnn(bp, x, WIDTH),
    "rnn, relu": lambda bp, x: bptt.layers.rnn(bp, x, WIDTH, activation="relu"),
}
# No goal is asked of these.
SHOWN = {"rnn", "lstm, zoneout", "lstm, dropout", "gru, zoneout", "gru, dropout"}


class Run:
    """A layer and a loss that is next to nothing beside it."""

    def __init__(self, layer: Layer) -> None:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            v = bp.placeholder((FEATURES, BATCH))
            x = v * bp.get_variable("scale", (FEATURES, 1))  # so that x has a gradient
            return v, layer(bp, x)

        self.bp = bptt.BPTT(seed=0, threads=1)
        *_, out = self.bp.generate_graphs(frame, num_loops=T)["deep"]
        loss = bptt.reduce_mean(bptt.square(out))
        self.train = self.bp.minimize(loss, bptt.Adam(1e-3))
        rng = np.random.default_rng(0)
        self.data = [rng.normal(size=(20 * T, FEATURES, BATCH)).astype(np.float32)]
        matrices = [w for w in self.bp.parameters.values() if min(w.shape) > 1]
        self.work = 3 * T * BATCH * sum(w.size for w in matrices)
        self.losses: Any = []
        self.seconds = float("inf")

    def fit(self, windows: int) -> None:
        """So many windows more; keeps their losses and the least time for one."""
        start = self.bp.next_frame
        began = time.perf_counter()
        self.losses = self.bp.fit(
            self.train, self.data, steps=windows, start=start, progress=False
        ).loss
        self.seconds = min(self.seconds, (time.perf_counter() - began) / windows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, and whether the goal is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="for CI")
    options = parser.parse_args(arguments)
    windows, rounds = (2, 1) if options.short else (40, 5)

    try:
        print(f"bptt {version('bptt')}, numpy {np.__version__}")
    except PackageNotFoundError:
        print(f"bptt from its sources, numpy {np.__version__}")
    runs = {name: Run(layer) for name, layer in CELLS.items()}
    for run in runs.values():
        run.fit(2)
        run.seconds = float("inf")
    for _ in range(rounds):
        for run in runs.values():
            run.fit(windows)
    rates = {name: 2e-9 * run.work / run.seconds for name, run in runs.items()}
    print(f"{'cell':26} {'ms a window':>11} {'GFLOP/s':>8} {'to LSTM':>8}")
    for name, run in runs.items():
        ratio = rates["lstm"] / rates[name]
        print(f"{name:26} {1e3 * run.seconds:11.2f} {rates[name]:8.1f} {ratio:8.2f}")
        if not np.isfinite(run.losses).all() or run.losses[-1] >= run.losses[0] * 1.5:
            print(f"FAIL  {name} does not learn")
            return 1
    worst = max(rates["lstm"] / rate for name, rate in rates.items() if name not in SHOWN)
    print(f"worst ratio {worst:.2f} (goal: at most {GOAL})")
    return 0 if options.short or worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
