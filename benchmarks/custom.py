"""An LSTM that a user writes from primitive operations, beside the fused one and PyTorch.

    python benchmarks/custom.py               cases B, C, D and F on one thread
    python benchmarks/custom.py --cases BF
    python benchmarks/custom.py --short       answers only, for CI

The step is that of `train.py`, and so are the checks before it is timed: the losses and weights of
all are those of float64. PyTorch has no LSTM with full peepholes, so that case F, the origin's dual
LSTM, is a frame of operations there too, in as few of them as it takes.
"""

from __future__ import annotations

import numpy as np

from common import check, clock, peers, report, shell
from common.cases import CASES, given
from common.ours import Ours

TO_FUSED = 1.25
TO_PYTORCH = {"F": 200}


def main() -> None:
    parser = shell.parser(__doc__, rounds=9, seconds=0.2)
    parser.add_argument("--cases", default="BCDF", metavar="LETTERS")
    options = shell.parse(parser)
    clock.pin()
    report.heading(threads=1)
    rows, goals, figures = [], [], {}
    for case in (CASES[letter] for letter in options.cases):
        start = given(case)
        contestants: dict[str, check.Trainer] = {
            "fused": Ours(case, start),
            "primitive": Ours(case, start, "primitive"),
        }
        if peers.installed("PyTorch"):
            from common import pytorch

            contestants["PyTorch"] = pytorch.PyTorch(case, start)
        print(f"{case.name}: {check.training(case, start, contestants)}", flush=True)
        runs = {name: each.train for name, each in contestants.items()}
        times = clock.interleave(runs, options.rounds, options.seconds, options.timer)
        figures[case.name] = times
        slower = report.ratio(times, "primitive", "fused")
        goal = f"{case.name}, primitive beside fused"
        goals.append(report.Goal(goal, slower, TO_FUSED, at_most=True))
        row = [str(case), *(report.seconds(float(np.median(each))) for each in times.values())]
        row += [""] * (4 - len(row)) + [f"{slower:.2f}"]
        if "PyTorch" in times:
            sooner = report.ratio(times, "PyTorch", "primitive")
            row.append(f"{sooner:.3g}")
            if case.name in TO_PYTORCH:
                goal = f"{case.name}, primitive beside PyTorch"
                goals.append(report.Goal(goal, sooner, TO_PYTORCH[case.name]))
        rows.append(row + [""] * (6 - len(row)))
    print(f"\nA training step: medians of {options.rounds} interleaved rounds.\n")
    head = ["case", "fused", "primitive", "PyTorch", "primitive / fused", "PyTorch / primitive"]
    report.table(head, rows)
    report.finish(options, goals, figures)


if __name__ == "__main__":
    shell.run(main)
