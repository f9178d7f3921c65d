"""What sequences cost: resets and masks inside a window, and data that are read from a file.

    python benchmarks/sequences.py
    python benchmarks/sequences.py --short   short runs, for CI; nothing is asked of the times

Resets and masks: the time of a window with them over one without; the goal is at most 1.05.

LSTM 64 -> 128, batch 32, T = 64, fused and as a user writes it from primitives, on one thread, by
Adam. The sequences have random lengths, 50 frames on average, one behind another in every lane, and
a fifth of them is followed by some frames of padding. Windows without and with take turns, and the
ratio is that of the smallest times. Before anything is timed, the marked windows' losses have to be
those of windows with zeros for past values and unmasked frames alone. Status 1 if they differ.

Memory maps: the throughput of `bptt.data.Lanes` over two files to that of whole arrays in memory,
of medians of passes that take turns; the goal is at least 0.95. Then the same when the system is
told to forget the files before each pass, so that they come from the disk, the wait for the first
block included. The fused net, on one thread: the other processor reads ahead. Status 1 if the
losses differ.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
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

    def seconds(self, **given: Any) -> float:
        """For all windows once."""
        begin = time.perf_counter()
        self.bp.fit(self.train, **{"data": self.data, "progress": False, **given})
        return time.perf_counter() - begin


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


class Files:
    """One long recording in two files, and its lanes side by side in memory."""

    def __init__(self, folder: Path, windows: int) -> None:
        rng = np.random.default_rng(0)
        self.paths, self.arrays = [], []
        for features in (FEATURES, 1):
            recording = rng.normal(size=(BATCH * windows * T, features)).astype(np.float32)
            self.paths.append(folder / f"{features}.npy")
            np.save(self.paths[-1], recording)
            lanes = recording.reshape(BATCH, -1, features).swapaxes(0, 1)  # (time, batch, features)
            self.arrays.append(np.ascontiguousarray(lanes).swapaxes(1, 2))

    def mapped(self, forgotten: bool = False) -> bptt.data.Lanes:
        """As memory maps, of which the system is told to forget what it has in memory, or not."""
        for path in self.paths if forgotten and hasattr(os, "posix_fadvise") else ():
            with path.open() as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return bptt.data.Lanes([np.load(path, mmap_mode="r") for path in self.paths])


def memory_maps(short: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder), windows=2 if short else 192)
        size = sum(path.stat().st_size for path in files.paths) / 2**20
        net, other = Net(fused, windows=1), Net(fused, windows=1)
        in_memory = net.bp.fit(net.train, files.arrays, progress=False).loss
        read = other.bp.fit(other.train, files.mapped(), progress=False).loss
        if not np.allclose(read, in_memory, rtol=1e-5):
            print("memory maps: the losses differ")
            return 1
        rounds = [
            (
                net.seconds(data=files.arrays),
                net.seconds(data=files.mapped()),
                net.seconds(data=files.mapped(forgotten=True)),
            )
            for _ in range(2 if short else 4)
        ]
        memory, mapped, disk = (median(times) for times in zip(*rounds, strict=True))
        print(
            f"memory maps of {size:.0f} MiB: {memory / mapped:.3f} of the throughput of arrays "
            f"(goal 0.95), {memory / disk:.3f} from the disk"
        )
    return 0


def main(short: bool) -> int:
    status = memory_maps(short)
    for name, cell in (("fused", fused), ("written", written)):
        net = Net(cell, windows=2 if short else 8)
        if not same(net):
            print(f"{name}: the losses differ")
            status = 1
        net.seconds()
        rounds = [(net.seconds(), net.seconds(**net.rows)) for _ in range(2 if short else 12)]
        plain, marked = (min(times) for times in zip(*rounds, strict=True))
        print(f"{name}: {marked / plain:.3f} of the time without resets and masks (goal 1.05)")
    return status


if __name__ == "__main__":
    sys.exit(main("--short" in sys.argv))
