"""One frame a call, from Python: bptt beside ONNX Runtime, PyTorch and JAX, on one thread.

    python benchmarks/stream.py
    python benchmarks/stream.py --short     answers only, for CI

An LSTM 1→width with a dense head, batch 1, its state kept from call to call. bptt by `bp.step(x)`
and by `bp.stepper()`, whose input is filled in place; and, without any call from Python, by
`bp.predict` over a long array: the C++ time of a frame. ONNX Runtime runs the same weights from an
exported graph with explicit state, in bound buffers; PyTorch eager in inference mode; JAX jitted,
weights constant. All stream the same frames before anything is timed, and their outputs are held
against float64: status 1 if they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import numpy as np

from common import check, clock, peers, report, shell
from common.cases import Case, Given, Matrix, given
from common.ours import Ours

TO_ONNX = {20: 40, 40: 25, 128: 4}
STEP_AT_MOST, STEPPER_ABOVE = 500, 60  #: nanoseconds: of a step, and of a stepper above C++
WAYS = ("step", "stepper", "predict")
FRAMES = 200  #: compared

Step = Callable[[Matrix], Matrix]


def peer_steps(case: Case, start: Given) -> dict[str, Step]:
    """Every peer that is installed: a call takes a frame and returns its outputs."""
    found: dict[str, Step] = {}
    if peers.installed("ONNX Runtime") and peers.installed("ONNX"):
        from common import onnx_runtime

        found["ONNX Runtime"] = onnx_runtime.Stream(case, start).step
    if peers.installed("PyTorch"):
        from common import pytorch

        found["PyTorch"] = pytorch.Stream(case, start).step
    if peers.installed("JAX"):
        from common import jaxed

        found["JAX"] = jaxed.Stream(case, start).step
    return found


def our_steps(case: Case, start: Given, dtype: str = "float32") -> dict[str, Step]:
    """Our three ways; each on a net of its own, so that each has its own state."""
    by_step, by_stepper, by_predict = (Ours(case, start, dtype=dtype).streaming() for _ in range(3))
    stepper = by_stepper.stepper()

    def step_in_place(x: Matrix) -> Matrix:
        stepper.inputs[0][...] = x
        stepper()
        return stepper.output

    return {
        "bptt, step": by_step.step,
        "bptt, stepper": step_in_place,
        "bptt, predict": lambda x: by_predict.predict([x[None]])[0],
    }


def repeated(call: Callable[..., object], *frame: Matrix) -> clock.Run:
    """So many calls."""

    def run(count: int) -> None:
        for _ in repeat(None, count):
            call(*frame)

    return run


def timed(case: Case, start: Given, steps: dict[str, Step]) -> dict[str, clock.Run]:
    """What takes turns. Where an input can lie in place, it does: the bare call is timed."""
    frame = start.x[0].astype(np.float32)
    runs = {name: repeated(step, frame) for name, step in steps.items()}
    runs["bptt, stepper"] = repeated(Ours(case, start).streaming().stepper())
    if "ONNX Runtime" in steps:
        from common import onnx_runtime

        runs["ONNX Runtime"] = repeated(onnx_runtime.Stream(case, start).advance)
    bp, whole = Ours(case, start).streaming(), np.resize(frame, (10_000, 1, 1))

    def in_cpp(count: int) -> None:
        for at in range(0, count, len(whole)):
            bp.predict([whole[: count - at]])

    runs["bptt, predict"] = in_cpp
    return runs


def main() -> None:
    options = shell.parse(shell.parser(__doc__, rounds=9, seconds=0.05))
    clock.pin()
    report.heading(threads=1)
    rows, goals, figures = [], [], {}
    for width, wanted in TO_ONNX.items():
        case = Case(f"LSTM 1→{width}", "lstm", 1, width, 1, 1, 1, windows=FRAMES)
        start = given(case)
        steps = our_steps(case, start) | peer_steps(case, start)
        frames = start.x.astype(np.float32)
        got = {name: np.array([step(x).copy() for x in frames]) for name, step in steps.items()}
        exact = our_steps(case, start, "float64")["bptt, step"]
        expected = np.array([exact(x).copy() for x in frames.astype(np.float64)])
        print(f"{case.name}: {check.outputs(case.name, expected, got)}", flush=True)

        times = clock.interleave(
            timed(case, start, steps), options.rounds, options.seconds, options.timer
        )
        figures[case.name] = times
        for name, each in times.items():
            low, median, high = np.quantile(each, (0.25, 0.5, 0.75))
            rows.append(
                [
                    case.name if name == "bptt, step" else "",
                    name,
                    report.seconds(median),
                    f"{report.seconds(low)} to {report.seconds(high)}",
                    f"{report.ratio(times, name, 'bptt, stepper'):.3g}",
                ]
            )
        if "ONNX Runtime" in times:
            to_onnx = report.ratio(times, "ONNX Runtime", "bptt, stepper")
            goals.append(report.Goal(f"{case.name}, stepper beside ONNX Runtime", to_onnx, wanted))
        step, stepper, cpp = (1e9 * np.median(times[f"bptt, {way}"]) for way in WAYS)
        above = [("stepper", stepper - cpp, STEPPER_ABOVE), ("step", step - cpp, STEP_AT_MOST)]
        for way, more, most in above:
            what = f"{case.name}, {way} above C++"
            goals.append(report.Goal(what, float(more), most, "ns", at_most=True))
    print(f"\nA frame: medians of {options.rounds} interleaved rounds, quartiles.")
    print("`predict` is the time in C++, a whole array a call; the others are one call a frame.\n")
    report.table(["net", "way", "frame", "quartiles", "to stepper"], rows)
    report.finish(options, goals, figures)


if __name__ == "__main__":
    shell.run(main)
