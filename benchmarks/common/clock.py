"""Interleaved repeats, and what the processor can do at most."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Matrix

Run = Callable[[int], object]
Timer = Callable[[], float]


def pin(threads: int = 1) -> None:
    """Let this process use so many processors: no library can take more than it was given.

    Before any of them is imported, since they count processors when they begin.
    """
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, available[-threads:])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def interleave(
    runs: Mapping[str, Run], rounds: int, seconds: float, timer: Timer = time.perf_counter
) -> dict[str, Matrix]:
    """Time every run `rounds` times, in turn, so that what else goes on meets all alike.

    Args:
        runs: by name; each takes a count and does its work so many times.
        rounds: repeats.
        seconds: about how long a turn of one run is.
        timer: `time.perf_counter`, or `time.process_time` on a machine that others use too.

    Returns:
        By name, the seconds of one piece of work in each round.
    """
    counts = {name: _count(run, seconds, timer) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(_seconds(run, counts[name], timer) / counts[name])
    return {name: np.array(each) for name, each in times.items()}


def _seconds(run: Run, count: int, timer: Timer) -> float:
    began = timer()
    run(count)
    return timer() - began


def _count(run: Run, seconds: float, timer: Timer) -> int:
    """How many times fill about so many seconds; this many were made once, to warm up."""
    count = 1
    run(count)
    while (took := _seconds(run, count, timer)) < seconds / 8:
        count *= 4
        run(count)  # a new count may be compiled anew
    count = max(1, round(count * seconds / took))
    run(count)
    return count


@cache
def _limits() -> Any:
    """`peak.c`, compiled for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.c")
        compiler = os.environ.get("CC", "cc")
        subprocess.run(
            [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source],
            check=True,
        )
        loaded = ctypes.CDLL(str(library))
    loaded.multiply_adds.argtypes = [ctypes.c_long, ctypes.POINTER(ctypes.c_float)]
    loaded.multiply_adds.restype = ctypes.c_double
    loaded.read_all.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_long,
        ctypes.POINTER(ctypes.c_float),
    ]
    loaded.read_all.restype = None
    return loaded


def multiply_adds(flops: int) -> None:
    """At least so many operations at the highest rate of one core: a run for `interleave`."""
    result, unit = ctypes.c_float(), _limits().multiply_adds(1, ctypes.c_float())
    _limits().multiply_adds(-(-flops // int(unit)), result)


GIGA = 10**9


def peak_run(count: int) -> None:
    """A tenth of a gigaflop, so many times."""
    multiply_adds(count * GIGA // 10)


def bandwidth(size: int, timer: Timer, seconds: float = 0.02) -> float:
    """Bytes a second that one core reads from `size` bytes, again and again."""
    count = max(size // 4 // 128, 1) * 128
    data, result = np.ones(count, np.float32), ctypes.c_float()

    def run(times: int) -> None:
        _limits().read_all(data.ctypes.data, count, times, result)

    return 4 * count / float(np.median(interleave({"": run}, 3, seconds, timer)[""]))
