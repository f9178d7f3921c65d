"""The time of a frame: the exported C header, compiled by the machine's compiler, beside `bp.step`.

    python benchmarks/export_c.py [--short]

Medians of 31 interleaved repeats, batch 1, float32. The C function is called in a loop of C;
`stepper()` and `step(x)` are called from Python, as they are used. The answers are compared first.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import bptt

SIZES = ((1, 8), (1, 20), (4, 64), (16, 128))
WRAPPER = """
#include "model.h"
void run(long frames, const float *x, float *y);
void run(long frames, const float *x, float *y) {{
  model_state s;
  model_init(&s);
  for (long t = 0; t < frames; ++t) model_step(&s, x + t * {features}, y + t);
}}
"""


def net(features: int, width: int) -> bptt.BPTT:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((features, 1))
        _, h = bptt.layers.lstm(bp, x, width)
        return x, bptt.layers.dense(bp, h, 1)

    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=1)
    return bp


def compiled(bp: bptt.BPTT, features: int, compiler: str, folder: Path) -> Any:
    bptt.interchange.to_c(bp, folder / "model.h")
    (folder / "model.c").write_text(WRAPPER.format(features=features))
    library = folder / "model.so"
    target = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    options = ["-O3", target, "-fPIC", "-shared"]
    subprocess.run([compiler, *options, folder / "model.c", "-o", library, "-lm"], check=True)
    return ctypes.CDLL(str(library)).run


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def seconds(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="run, and compare the answers only")
    short = parser.parse_args().short
    repeats, frames = (3, 100) if short else (31, 2000)
    compilers = [each for each in (os.environ.get("CC"), "gcc", "clang") if each]
    compilers = [each for each in dict.fromkeys(compilers) if shutil.which(each)]
    if not compilers:
        print("no C compiler here: nothing to compare")
        return
    print("LSTM and a dense head, batch 1, float32: ns for a frame")
    header = [*(f"C, {each}" for each in compilers), "stepper()", "step(x)"]
    print("".join(f"{each:>14}" for each in ("in, width", *header)))
    for features, width in SIZES[:2] if short else SIZES:
        bp = net(features, width)
        x = np.random.default_rng(0).normal(size=(frames, features)).astype(np.float32)
        y = np.zeros(frames, np.float32)
        expected = bp.predict([x[..., None]]).ravel()
        ways: dict[str, Any] = {}
        for compiler in compilers:
            with tempfile.TemporaryDirectory() as folder:
                run = compiled(bp, features, compiler, Path(folder))
            ways[compiler] = partial(run, ctypes.c_long(frames), pointer(x), pointer(y))
            ways[compiler]()
            assert np.abs(y - expected).max() < 1e-5, "the answers differ"
        stepper, columns = bp.stepper(), [np.ascontiguousarray(x_t[:, None]) for x_t in x]

        def stream(stepper: Any = stepper) -> None:
            for _ in range(frames):
                stepper()

        def steps(bp: bptt.BPTT = bp, columns: Any = columns) -> None:
            for column in columns:
                bp.step(column)

        ways |= {"stepper": stream, "step": steps}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, call in ways.items():
                times[name].append(seconds(call) / frames * 1e9)
        row = "".join(f"{median(each):14.0f}" for each in times.values())
        print(f"{f'{features}, {width}':>14}{row}")


if __name__ == "__main__":
    main()
