"""A training step of six nets in bptt, PyTorch and JAX, on one thread.

    python benchmarks/train.py                  all cases
    python benchmarks/train.py --cases AF       some of them
    python benchmarks/train.py --short          answers only, in seconds, for CI

The step: forward over T frames, a dense head on every frame, mean squared error, backward,
gradients clipped by value, Adam, state carried. Before a case is timed, every library trains from
the same weights, state and data, and its losses and weights are held against float64: status 1 if
they differ. Then all take turns. PyTorch is timed eager, and compiled where that takes at most a
minute; JAX window by window, and with the whole training loop under one `jit`, in its best form
(weights in one flat vector, short windows unrolled) and as it is mostly written.
"""

from __future__ import annotations

import numpy as np

from common import check, clock, peers, report, shell
from common.cases import CASES, Case, Given, given
from common.ours import Ours

TO_PYTORCH = {"A": 500, "B": 28, "C": 1.5, "D": 1.3, "E": 1.75}
TO_LOOP = {"A": 4, "F": 10}
OF_PEAK = {"C": 80, "D": 88, "E": 82}
COMPILE = 60  #: seconds
LOOP, PLAIN_LOOP = "JAX, one jit", "JAX, one jit, plain"


def trainers(case: Case, start: Given, without: str) -> dict[str, check.Trainer]:
    """Every library that is installed, by name, bptt first."""
    found: dict[str, check.Trainer] = {"bptt": Ours(case, start)}
    if peers.installed("PyTorch") and "torch" not in without:
        from common import pytorch

        found["PyTorch"] = pytorch.PyTorch(case, start)
        if "compile" not in without:
            compiled = pytorch.compiled_within(COMPILE, case, start)
            if isinstance(compiled, str):
                print(f"{case.name}: torch.compile {compiled}")
            else:
                found["PyTorch, compiled"] = compiled
    if peers.installed("JAX") and "jax" not in without:
        from common import jaxed

        found["JAX, by window"] = jaxed.Jax(case, start)
        found[LOOP] = jaxed.Jax(case, start, loop=True)
        found[PLAIN_LOOP] = jaxed.Jax(case, start, loop=True, best=False)
    return found


def main() -> None:
    parser = shell.parser(__doc__, rounds=9, seconds=0.2)
    parser.add_argument("--cases", default="ABCDEF", metavar="LETTERS")
    parser.add_argument(
        "--without", nargs="*", default=(), choices=("torch", "compile", "jax"), help="peers"
    )
    options = shell.parse(parser)
    without = [*options.without, *(["compile"] if options.short else [])]
    clock.pin()
    report.heading(threads=1)
    rows, goals, figures = [], [], {}
    for case in (CASES[letter] for letter in options.cases):
        start = given(case)
        contestants = trainers(case, start, without)
        print(f"{case.name}: {check.training(case, start, contestants)}")
        print(f"{case.name}: {check.gradients(case, start)}", flush=True)
        runs = {name: each.train for name, each in contestants.items()}
        runs["peak"] = clock.peak_run
        times = clock.interleave(runs, options.rounds, options.seconds, options.timer)
        figures[case.name] = times
        peak = 0.1 * clock.GIGA / np.median(times.pop("peak"))
        for name, each in times.items():
            low, median, high = np.quantile(each, (0.25, 0.5, 0.75))
            rate = case.flops / median
            rows.append(
                [
                    str(case) if name == "bptt" else "",
                    name,
                    report.seconds(median),
                    f"{report.seconds(low)} to {report.seconds(high)}",
                    f"{report.ratio(times, name, 'bptt'):.3g}",
                    f"{rate / clock.GIGA:.3g}",
                    f"{rate / peak:.0%}",
                ]
            )
        share = 100 * case.flops / float(np.median(times["bptt"])) / peak
        for peer, wanted in (("PyTorch", TO_PYTORCH), (LOOP, TO_LOOP), (PLAIN_LOOP, TO_LOOP)):
            if peer in times and case.name in wanted:
                measured = report.ratio(times, peer, "bptt")
                goals.append(report.Goal(f"{case.name} beside {peer}", measured, wanted[case.name]))
        if case.name in OF_PEAK:
            goal = f"{case.name}, of peak {peak / clock.GIGA:.1f} GFLOP/s"
            goals.append(report.Goal(goal, share, OF_PEAK[case.name], "%"))
    print(f"\nA training step: medians of {options.rounds} interleaved rounds, quartiles.\n")
    head = ["case", "library", "step", "quartiles", "to bptt", "GFLOP/s", "of peak"]
    report.table(head, rows)
    report.finish(options, goals, figures)


if __name__ == "__main__":
    shell.run(main)
