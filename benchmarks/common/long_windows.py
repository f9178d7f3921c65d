"""One window of many frames, whole or in segments, each in a process of its own.

    python -m common.long_windows FRAMES LANES auto|whole

prints what the process saw, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import bptt


def run(frames: int, lanes: int, how: str) -> dict[str, Any]:
    """A step of LSTM 8→32: its loss and update, the seconds it takes, and the bytes."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((8, lanes)), bp.placeholder((1, lanes))
        _, h = bptt.layers.lstm(bp, x, 32)
        return x, y, bptt.layers.dense(bp, h, 1)

    bp = bptt.BPTT(seed=0, threads=1)
    every = "auto" if how == "auto" else None
    _, y, out = bp.generate_graphs(frame, num_loops=frames, recompute_every=every)["deep"]
    train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.SGD(1.0))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(frames, n, lanes)).astype(np.float32) for n in (8, 1)]
    weight = bp.parameters["lstm_layer_0/W_hi"]
    resident = peak(anew=True)
    loss = float(bp.fit(train, data, steps=1, progress=False).loss[0])
    grown = peak() - resident
    update = bp.parameters["lstm_layer_0/W_hi"] - weight
    times = []
    for _ in range(4):
        began = time.perf_counter()
        bp.fit(train, data, steps=1, progress=False)
        times.append(time.perf_counter() - began)
    return {
        "loss": loss,
        "update": update.ravel().tolist(),
        "seconds": min(times),
        "planned": max(held for *_, held in bp._net.compiled()),
        "grown": grown,
    }


def peak(anew: bool = False) -> int:
    """The largest resident memory of this process so far, or since it was counted anew (Linux)."""
    if not sys.platform.startswith("linux"):
        return 0
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def elsewhere(frames: int, lanes: int, how: str) -> dict[str, Any]:
    """`run` in a process of its own."""
    command = [sys.executable, "-m", "common.long_windows", str(frames), str(lanes), how]
    folder = Path(__file__).parent.parent
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    found: dict[str, Any] = json.loads(output)
    return found


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
