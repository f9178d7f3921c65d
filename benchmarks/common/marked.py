"""LSTM windows with resets and masks, fused and as a user writes it from primitives.

64 -> 128, batch 32, T 64, by Adam. The sequences have random lengths, 50 frames on average, one
behind another in every lane, and a fifth of them is followed by some frames of padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bptt

FEATURES, WIDTH, BATCH, T = 64, 128, 32, 64
GATES = "ifco"


def fused(bp: bptt.BPTT, x: Any) -> Any:
    return bptt.layers.lstm(bp, x, WIDTH)[1]


def written(bp: bptt.BPTT, x: Any) -> Any:
    """The same from primitives."""
    past, cell = (bp.get_past_variable(name, np.zeros((WIDTH, 1))) for name in ("h", "c"))
    sums = {
        gate: bp.get_variable(f"W_x{gate}", (WIDTH, FEATURES)) @ x
        + bp.get_variable(f"W_h{gate}", (WIDTH, WIDTH)) @ past
        + bp.get_variable(f"b_{gate}", (WIDTH, 1), bptt.initializers.zeros)
        for gate in GATES
    }
    i, f, o = (bptt.sigmoid(sums[gate]) for gate in "ifo")
    c = bp.name_variable("c", f * cell + i * bptt.tanh(sums["c"]))
    return bp.name_variable("h", o * bptt.tanh(c))


class Net:
    """One of the two, with data and rows for some windows."""

    def __init__(self, cell: Any, windows: int) -> None:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x, y = bp.placeholder((FEATURES, BATCH)), bp.placeholder((1, BATCH))
            h = cell(bp, x)
            return x, y, h, bptt.layers.dense(bp, h, 1)

        self.bp = bptt.BPTT(seed=0, threads=1)
        _, y, _, self.out = self.bp.generate_graphs(frame, num_loops=T)["deep"]
        self.train = self.bp.minimize(bptt.reduce_mean(bptt.square(self.out - y)), bptt.Adam(1e-3))
        rng = np.random.default_rng(0)
        shapes = (windows * T, FEATURES, BATCH), (windows * T, 1, BATCH)
        self.data = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        self.rows = rows(rng, windows * T)

    def fit(self, times: int, **marks: Any) -> None:
        """All windows, so many times."""
        for _ in range(times):
            self.bp.fit(self.train, self.data, progress=False, **marks)


def rows(rng: np.random.Generator, frames: int) -> dict[str, np.ndarray]:
    resets, masks = np.zeros((frames, BATCH), dtype=bool), np.ones((frames, BATCH), dtype=bool)
    for lane in range(BATCH):
        t = 0
        while t < frames:
            resets[t, lane] = True
            t += int(rng.integers(1, 100))
            if rng.random() < 0.2:
                padding = int(rng.integers(1, 10))
                masks[t : t + padding, lane] = False
                t += padding
    return {"resets": resets, "masks": masks}


def same(net: Net) -> bool:
    """One window against its frames one by one, states reset by hand."""
    bp, (x, y), marks = net.bp, [each[:T] for each in net.data], net.rows
    resets, masks = marks["resets"][:T], marks["masks"][:T]
    marked = bp.evaluate(net.train.loss, [x, y], resets=resets, masks=masks)
    bp.reset_state("shallow")
    errors = []
    for t in range(T):
        for lane in np.flatnonzero(resets[t]):
            bp.reset_state("shallow", int(lane))
        before = {name: value.copy() for name, value in bp.state["shallow"].items()}
        out = bp.step(x[t])
        for name, value in before.items():
            bp.state["shallow"][name] = np.where(masks[t], bp.state["shallow"][name], value)
        errors.append(np.square(out - y[t])[:, masks[t]])
    return bool(np.isclose(marked, np.concatenate(errors, axis=1).mean(), rtol=1e-4))


CELLS = {"fused": fused, "written": written}
