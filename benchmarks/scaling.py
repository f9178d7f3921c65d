"""How the time of a frame grows with width, batch and T, beside what the processor can do.

    python benchmarks/scaling.py                    tables
    python benchmarks/scaling.py --plot scaling.png and drawn (matplotlib)
    python benchmarks/scaling.py --short            small sizes, for CI

An LSTM with as many inputs as units and a dense head as wide, one thread; a training step inside
`fit`, divided by its frames. The floor is the longer of two times: the operations of the matrix
products at the measured peak of multiply-adds, and the bytes that have to be moved at the bandwidth
measured for reading so much memory again and again. Bytes are those of the recurrent weights, once
a frame forward and once backward, of the values kept for the way back, written and read, and of all
weights eight times a window: for the products over all frames, the gradient, and Adam's moments.
Where weights and values fit in a cache, so does the buffer whose bandwidth is measured. Before
anything is timed, the gradients of two of the nets are held against float64: status 1 if they
differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import check, clock, report, shell
from common.cases import Case, given
from common.ours import Ours

WIDTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LENGTHS = (1, 10, 100, 1_000, 10_000, 100_000)
SHORT = 64  #: the largest size of a short run

Point = tuple[int, float, float, float]  #: size, seconds a frame, floor by flops, floor by bytes


def net(width: int, batch: int, frames: int) -> Case:
    """Of these sizes."""
    return Case("", "lstm", width, width, batch, frames, width, windows=1)


def series() -> dict[str, list[tuple[int, Case]]]:
    """What grows, and the nets."""
    return {
        "width (batch 1, T 32)": [(w, net(w, 1, 32)) for w in WIDTHS],
        "width (batch 32, T 32)": [(w, net(w, 32, 32)) for w in WIDTHS],
        "batch (width 128, T 32)": [(b, net(128, b, 32)) for b in BATCHES],
        "T (width 32, batch 1)": [(t, net(32, 1, t)) for t in LENGTHS],
    }


def moved(case: Case) -> tuple[float, int]:
    """Bytes that a frame moves, and how many there are to go around in."""
    recurrent = 4 * case.gates * case.width**2
    weights = 2 * recurrent + 4 * case.width * case.outputs  # as many on the input, and the head
    kept = 4 * case.batch * case.width * (case.gates + 4)  # gates, c, h, input, output
    return 2 * recurrent + 2 * kept + 8 * weights / case.frames, weights + kept


def measure(case: Case, rounds: int, seconds: float, timer: clock.Timer) -> tuple[float, float]:
    """Seconds a frame, and operations a second at the peak in the same rounds."""
    runs = {"step": Ours(case, given(case)).train, "peak": clock.peak_run}
    times = clock.interleave(runs, rounds, seconds, timer)
    step, peak = (float(np.median(times[name])) for name in runs)
    return step / case.frames, 0.1 * clock.GIGA / peak


def points(
    nets: list[tuple[int, Case]], rounds: int, seconds: float, timer: clock.Timer
) -> Iterator[Point]:
    """A measurement for each net."""
    for size, case in nets:
        frame, peak = measure(case, rounds, seconds, timer)
        total, around = moved(case)
        by_flops = case.flops / case.frames / peak
        yield size, frame, by_flops, total / clock.bandwidth(around, timer)


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """A panel for each series, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for panel, (name, series) in zip(panels.flat, found.items(), strict=True):
        sizes, frame, by_flops, by_bytes = (
            np.array(column) for column in zip(*series, strict=True)
        )
        panel.loglog(sizes, frame * 1e6, "o-", color="C0", label="bptt, a training step's frame")
        panel.loglog(sizes, by_flops * 1e6, "--", color="C1", label="floor: flops at peak")
        panel.loglog(sizes, by_bytes * 1e6, ":", color="C2", label="floor: bytes at bandwidth")
        panel.set(xlabel=name, ylabel="µs a frame")
        panel.grid(True, which="major", alpha=0.3)
    panels.flat[0].legend()
    figure.suptitle(f"LSTM n→n with a dense head, float32, one thread: {report.processor()}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = shell.parser(__doc__, rounds=3, seconds=0.1)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the tables")
    options = shell.parse(parser)
    clock.pin()
    report.heading(threads=1)
    for case in (net(8, 1, 32), replace(net(128, 8, 32), name="n")):
        print(f"width {case.width}: {check.gradients(case, given(case))}")
    print()
    found: dict[str, list[Point]] = {}
    for name, nets in series().items():
        if options.short:
            nets = [(size, case) for size, case in nets if size <= SHORT]
        measured = list(points(nets, options.rounds, options.seconds, options.timer))
        found[name] = measured
        rows = [
            [
                f"{size:,}",
                report.seconds(frame),
                report.seconds(max(flops, bytes_)),
                "flops" if flops > bytes_ else "bytes",
                f"{frame / max(flops, bytes_):.2f}",
            ]
            for size, frame, flops, bytes_ in measured
        ]
        report.table([name, "a frame", "floor", "by", "frame / floor"], rows)
    if options.plot:
        draw(found, options.plot)
    report.finish(options, [], found)


if __name__ == "__main__":
    shell.run(main)
