"""A long run: memory must not grow, and float32 must not drift away from float64.

    python benchmarks/soak.py            100 million frames streamed, 1 million windows trained
    python benchmarks/soak.py --short    200 thousand frames and 2 thousand windows, for CI

Two nets, one in float32 and one in float64, begin with the same weights and see the same numbers.
Streaming, one frame's rounding dies out in the frames that follow, because the net is contractive:
neighbouring states come closer at every frame. So the difference has a bound that no length of run
may break. Training, the weights keep what rounding did to them, but the noise in the targets keeps
either net as close to the same optimum, and so the mean losses must agree.

Ends with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import bptt

Array: TypeAlias = npt.NDArray[Any]
Peephole: TypeAlias = Literal["diagonal"] | None

WIDTH, T = 8, 10
PARTS = 100  # a run is that many calls; the first tenth of them warms up what will be measured
STREAM_BOUND = 1e-6  # largest difference of an output; outputs are below 1
LOSS_BOUND = 1e-4  # relative difference of the mean losses of the last tenth
GROWTH_BOUND = 256  # KiB: the interpreter itself moves by some; 3 bytes a frame would be 300 MB
NOISE = 0.1  # standard deviation of the targets' noise


# --- what is measured ----------------------------------------------------------------------------


class Checks:
    """Prints a line for each check, and remembers whether all held."""

    def __init__(self) -> None:
        self.held = True

    def __call__(self, what: str, holds: bool) -> None:
        """One line: what was found, and whether it is as it should be."""
        print(f"{'ok  ' if holds else 'FAIL'}  {what}", flush=True)
        self.held &= holds

    def memory(self, kibibytes: Array) -> None:
        """Memory in use after each part of a run: the first tenth may grow, the rest may not."""
        if not kibibytes.all():
            print("--    memory: not told by this system")
            return
        tenth = max(1, len(kibibytes) // 10)
        warm = int(kibibytes[:tenth].max())
        growth = int(kibibytes[-tenth:].max()) - warm
        self(
            f"memory: {warm / 1024:.1f} MiB after a tenth of the run, {growth:+d} KiB at its end "
            f"(bound {GROWTH_BOUND})",
            growth <= GROWTH_BOUND,
        )


def resident() -> int:
    """KiB of this process in memory, now; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def parts(total: int) -> list[int]:
    """`total` in PARTS pieces that differ by one at most, none empty."""
    edges = np.linspace(0, total, min(PARTS, total) + 1).astype(int)
    return [int(size) for size in np.diff(edges)]


def progress(sizes: list[int], what: str) -> Iterator[tuple[int, int]]:
    """The sizes with their numbers, and a bar if there is a terminal to draw it on."""
    with tqdm(total=sum(sizes), unit=what, unit_scale=True, disable=None, leave=False) as bar:
        for number, size in enumerate(sizes):
            yield number, size
            bar.update(size)


# --- the nets ------------------------------------------------------------------------------------


def pair(peephole: Peephole) -> tuple[bptt.BPTT, bptt.BPTT]:
    """An LSTM with a linear head, in float32 and in float64, with the same random weights.

    They are small, and so a forget gate is about half open: at every frame about half of what a
    cell held is forgotten.
    """

    def frame(bp: bptt.BPTT, depth: str) -> tuple[Any, ...]:
        x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
        _, h = bptt.layers.lstm(bp, x, WIDTH, peephole=peephole)
        return x, y, bptt.layers.dense(bp, h, 1)

    single, double = bptt.BPTT(seed=0), bptt.BPTT(seed=0, dtype="float64")
    rng = np.random.default_rng(0)
    for bp in (single, double):
        bp.generate_graphs(frame, num_loops=T)
    for name in sorted(single.parameters):
        weight = rng.normal(0.0, 0.25, single.parameters[name].shape)
        single.parameters[name] = weight
        double.parameters[name] = single.parameters[name]
    return single, double


def forgotten(frames: int) -> float:
    """How far apart two states are after so many frames of the same input, begun 1 apart."""
    _, net = pair("diagonal")
    x = np.random.default_rng(3).normal(size=(frames, 1, 1))
    states = []
    for start in (0.0, 1.0):
        for name, state in net.state[net.SHALLOW].items():
            net.state[net.SHALLOW][name] = np.full_like(state, start)
        net.predict([x])
        states.append(dict(net.state[net.SHALLOW]))
    return max(float(np.abs(states[0][name] - states[1][name]).max()) for name in states[0])


# --- the two runs --------------------------------------------------------------------------------


def stream(frames: int, check: Checks) -> None:
    """Stream noise through both nets, part of it frame by frame."""
    apart = forgotten(50)
    check(f"contractive: states 1 apart are {apart:.1e} apart after 50 frames", apart < 1e-6)
    single, double = pair("diagonal")
    rng = np.random.default_rng(1)
    stepper = single.stepper(own_state=True)
    sizes = parts(frames)
    differences, memory, stepped = np.zeros(len(sizes)), np.zeros(len(sizes), int), 0
    began = time.perf_counter()
    for part, size in progress(sizes, "frames"):
        x = rng.normal(size=(size, 1, 1)).astype(np.float32)
        few = min(size, 10_000)
        for name in stepper.state:
            stepper.state[name] = single.state["shallow"][name]
        one_by_one = np.empty((few, 1, 1), np.float32)
        for at in range(few):
            stepper.inputs[0][...] = x[at]
            stepper()
            one_by_one[at] = stepper.output
        out = single.predict([x])
        stepped += few if np.array_equal(out[:few], one_by_one) else 0
        differences[part] = np.abs(out - double.predict([x])).max()
        del x, out
        memory[part] = resident()
    seconds = time.perf_counter() - began
    tenth = max(1, len(sizes) // 10)
    print(f"\nstreamed {frames:,} frames in float32 and in float64: {seconds:.0f} s")
    check(
        f"float32 from float64: {differences.max():.1e} at most (bound {STREAM_BOUND:.0e}); "
        f"first tenth {differences[:tenth].max():.1e}, last {differences[-tenth:].max():.1e}",
        bool(differences.max() <= STREAM_BOUND),
    )
    few = sum(min(size, 10_000) for size in sizes)
    check(f"stepper and predict: the same bits in {stepped:,} of {few:,} frames", stepped == few)
    check.memory(memory)


def train(windows: int, check: Checks) -> None:
    """Train both nets to tell the sum of two past inputs, with noise in the targets."""
    # No peepholes: once weights have grown, a peephole can hold the forget gate of its own cell
    # open, the cell grows without end, and the net is a measure of chaos in place of rounding.
    nets = pair(None)
    operations = []
    for bp in nets:
        _, y, out = bp.graphs[bp.DEEP]
        loss = bptt.reduce_mean(bptt.square(out - y))
        operations.append(bp.minimize(loss, bptt.Adam(1e-3), bptt.ClipByGlobalNorm(1.0)))
    rng = np.random.default_rng(2)
    sizes = parts(windows)
    losses, memory = np.zeros((2, len(sizes))), np.zeros(len(sizes), int)
    began = time.perf_counter()
    for part, size in progress(sizes, "windows"):
        x = rng.normal(size=size * T + 2).astype(np.float32)
        y = 0.5 * (x[1:-1] + x[:-2]) + rng.normal(0, NOISE, size * T).astype(np.float32)
        for bp, operation, seen in zip(nets, operations, losses, strict=True):
            seen[part] = bp.fit(operation, [x[2:], y], steps=size, progress=False).loss.mean(
                dtype=np.float64
            )
        memory[part] = resident()
    seconds = time.perf_counter() - began
    tenth = max(1, len(sizes) // 10)
    first, (single, double) = float(losses[:, :tenth].mean()), losses[:, -tenth:].mean(1).tolist()
    apart = abs(single - double) / double
    weights = max(
        float(np.abs(nets[0].parameters[name] - nets[1].parameters[name]).max())
        for name in nets[0].parameters
    )
    print(f"\ntrained {windows:,} windows of {T} frames in float32 and in float64: {seconds:.0f} s")
    check(
        f"mean loss of the last tenth: {single:.6f} and {double:.6f}, apart by {apart:.1e} "
        f"(bound {LOSS_BOUND:.0e}); weights by {weights:.1e} at most",
        apart <= LOSS_BOUND,
    )
    check(
        f"both have learnt: {NOISE**2:.4f} is the noise's share, "
        f"the first tenth's loss was {first:.4f}",
        max(single, double) < first,
    )
    check.memory(memory)


# --- the command ---------------------------------------------------------------------------------


def count(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=count, help="to stream (default: 100_000_000)")
    parser.add_argument("--windows", type=count, help="to train (default: 1_000_000)")
    parser.add_argument("--short", action="store_true", help="a little of both, for CI")
    options = parser.parse_args(arguments)

    print(f"bptt {version('bptt')}, numpy {np.__version__}")
    check = Checks()
    stream(options.frames or (200_000 if options.short else 100_000_000), check)
    train(options.windows or (2_000 if options.short else 1_000_000), check)
    sys.exit(not check.held)


if __name__ == "__main__":
    main()
