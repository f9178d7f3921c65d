"""What real sequences cost: resets and masks, data from a file, a character model, long windows.

    python benchmarks/sequences.py                     all parts
    python benchmarks/sequences.py --parts characters  one of them
    python benchmarks/sequences.py --short             answers only, in seconds, for CI

`marks`: the time of windows with resets and masks over that without, for a fused and a written
LSTM. Before it is timed, a marked window's loss has to be that of its frames one by one, its states
reset by hand. `characters`: a character model's training step (embedding, GRU, two dense layers,
softmax cross-entropy) beside PyTorch's, from the same weights; before it is timed, both have the
losses of float64. One thread. `files`: the throughput of `bptt.data.Lanes` over two memory maps,
over that of whole arrays in memory: as the system has them in memory, too, and after it was told to
forget them, so that they come from the disk; the other processor reads ahead. `long`: the time of
a step on one window of 100,000 frames with `recompute_every="auto"` to that without, and the memory
of both, as planned and as their processes grow; before it counts, losses and updates have to be the
same. Status 1 where answers differ.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import (
    characters,
    check,
    clock,
    long_windows,
    marked,
    peers,
    recordings,
    report,
    shell,
)

Part = Callable[[argparse.Namespace], list[report.Goal]]


def marks(options: argparse.Namespace) -> list[report.Goal]:
    """The ratio of the times, of both forms."""
    goals, rows = [], []
    for name, cell in marked.CELLS.items():
        net = marked.Net(cell, windows=2 if options.short else 8)
        if not marked.same(net):
            raise check.Different(f"{name}: the losses of marked windows")
        runs = {"none": net.fit, "marks": lambda times, n=net: n.fit(times, **n.rows)}
        times = clock.interleave(runs, options.rounds, options.seconds, options.timer)
        ratio = 1 / report.ratio(times, "none", "marks")
        rows.append(
            [name, *(report.seconds(np.median(times[run])) for run in runs), f"{ratio:.3f}"]
        )
        goals.append(report.Goal(f"marks, {name}", ratio, 1.05, at_most=True))
    report.table(["LSTM 64→128, batch 32, T 64", "without", "resets and masks", "ratio"], rows)
    return goals


def characters_part(options: argparse.Namespace) -> list[report.Goal]:
    """Windows a second, beside PyTorch."""
    ours, exact = characters.Ours(), characters.Ours("float64")
    contestants: dict[str, characters.Ours | characters.PyTorch] = {"bptt": ours}
    if peers.installed("PyTorch"):
        contestants["PyTorch"] = characters.PyTorch(ours.weights())
    for name, weight in ours.weights().items():
        exact.bp.parameters[name] = weight
    expected = exact.train(8)
    for name, each in contestants.items():
        got = each.train(8)
        if not np.abs(got - expected).max() < check.LOSSES * expected.max():
            raise check.Different(f"characters: {name} has losses {got}, expected {expected}")
    print(f"characters: 8 windows of {', '.join(contestants)} have the losses of float64")
    for each in contestants.values():
        each.ready()
    runs = {name: each.train for name, each in contestants.items()}
    runs["peak"] = clock.peak_run
    times = clock.interleave(runs, options.rounds, options.seconds, options.timer)
    peak = 0.1 * clock.GIGA / np.median(times.pop("peak"))
    rows = []
    for name, each in times.items():
        window = float(np.median(each))
        share = characters.flops() / window / peak
        rows.append([name, report.seconds(window), f"{1 / window:.3g}", f"{share:.0%}"])
    report.table(["character GRU", "window", "windows a second", "of peak"], rows)
    if "PyTorch" not in times:
        return []
    return [report.Goal("characters, beside PyTorch", report.ratio(times, "PyTorch", "bptt"), 6)]


def files(options: argparse.Namespace) -> list[report.Goal]:
    """The throughput from memory maps."""
    rounds, windows = (1, 2) if options.short else (3, 192)
    with tempfile.TemporaryDirectory() as folder:
        recording = recordings.Files(Path(folder), windows)
        size = sum(path.stat().st_size for path in recording.paths) / 2**20
        nets = [marked.Net(marked.fused, windows=1) for _ in range(3)]
        data: list[Callable[[], Any]] = [
            lambda: recording.arrays,
            recording.mapped,
            lambda: recording.forget() or recording.mapped(),
        ]
        times: dict[str, list[float]] = {"memory": [], "files": [], "disk": []}
        for turn in range(1 + rounds):
            losses = []
            for net, source, name in zip(nets, data, times, strict=True):
                given = source()
                began = time.perf_counter()
                losses.append(net.bp.fit(net.train, given, progress=False).loss)
                times[name].append(time.perf_counter() - began)
            # Later, arrays go on with the state that they left, and a dataset begins anew.
            if turn == 0 and not np.allclose(losses, losses[0], rtol=1e-5):
                raise check.Different("files: the losses from memory and from memory maps")
    measured = {name: np.array(each[1:]) for name, each in times.items()}
    cached, disk = (report.ratio(measured, "memory", name) for name in ("files", "disk"))
    print(
        f"files: memory maps of {size:.0f} MiB, {cached:.3f} of the throughput from memory; from "
        f"the disk, with the wait for the first block, {disk:.3f}\n"
    )
    return [
        report.Goal("files, throughput to memory's", cached, 0.95),
        report.Goal("files from the disk, to memory's", disk, 0.95),
    ]


def long(options: argparse.Namespace) -> list[report.Goal]:
    """The ratios of times and of memory, for one lane and for eight."""
    frames, rounds = (2_000, 1) if options.short else (100_000, 3)
    goals, rows = [], []
    for lanes in (1,) if options.short else (1, 8):
        runs: dict[str, list[dict[str, Any]]] = {"whole": [], "auto": []}
        for _ in range(rounds):
            for how, found in runs.items():
                found.append(long_windows.elsewhere(frames, lanes, how))
        (whole, *_), (auto, *_) = runs.values()
        # A million squares added up in float32, in two orders.
        largest = np.abs(whole["update"]).max()
        if not np.isclose(auto["loss"], whole["loss"], rtol=1e-3) or not np.allclose(
            auto["update"], whole["update"], atol=1e-3 * largest
        ):
            raise check.Different("long: the loss or the update in segments")
        times = {how: np.array([each["seconds"] for each in found]) for how, found in runs.items()}
        time_ratio = 1 / report.ratio(times, "whole", "auto")
        memory = [f"{each[k] / 1e6:.2f}" for k in ("planned", "grown") for each in (whole, auto)]
        rows.append([str(lanes), f"{time_ratio:.3f}", *memory])
        goals.append(report.Goal(f"long, batch {lanes}", time_ratio, 1.4, at_most=True))
        share = auto["planned"] / whole["planned"]
        goals.append(
            report.Goal(f"long, batch {lanes}, memory", share, 4 / frames**0.5, at_most=True)
        )
    head = [f"LSTM 8→32, T {frames:,}, batch", "time", "planned, MB", "auto", "process, MB", "auto"]
    report.table(head, rows)
    return goals


PARTS: dict[str, Part] = {
    "files": files,
    "marks": marks,
    "characters": characters_part,
    "long": long,
}


def main() -> None:
    parser = shell.parser(__doc__, rounds=9, seconds=0.3)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    options = shell.parse(parser)
    report.heading(threads=1)
    goals: list[report.Goal] = []
    for part in (part for part in PARTS if part in options.parts):
        if part != "files":  # the other processor reads them ahead
            clock.pin()
        goals += PARTS[part](options)
    report.finish(options, goals)


if __name__ == "__main__":
    shell.run(main)
