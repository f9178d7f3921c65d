"""Processes: a fork after use, fresh interpreters, and Ctrl-C from outside."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import draw_weights, mean_square, origin_dual_lstm
from rounding import assert_identical

FRAMES = 60
X = np.random.default_rng(6).normal(size=FRAMES).astype(np.float32)
Y = np.roll(X, -1)

frame = origin_dual_lstm("fused")


def net() -> bptt.BPTT:
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=5)
    draw_weights(bp, np.random.default_rng(0))
    return bp


def minimise(bp: bptt.BPTT) -> Any:
    return bp.minimize(mean_square(bp.graphs["deep"]), bptt.Adam(0.01))


def work(bp: bptt.BPTT, train: Any) -> list[np.ndarray]:
    """A little of everything, in bits."""
    losses = bp.fit(train, [X, Y], steps=20, start=bp.next_frame).loss
    bp.copy_state_forward()
    stepper = bp.stepper()
    stepper.feed([0.5])
    stepper()
    return [
        losses,
        bp.predict([X]),
        bp.step(0.25),
        stepper.output.copy(),
        *(bp.parameters[name] for name in bp.parameters),
        *(bp.state[depth][name] for depth in bp.state for name in bp.state[depth]),
    ]


def in_fork(job: Any) -> tuple[int, int]:
    """What `job` gives in a forked child, sent back as arrays."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # numpy's threads are there; ours are not
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                np.savez(pipe, *job())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    return child, read


def result_of(forked: tuple[int, int], path: Path) -> list[np.ndarray]:
    child, read = forked
    with os.fdopen(read, "rb") as pipe:
        path.write_bytes(pipe.read())
    _, status = os.waitpid(child, 0)
    assert status == 0
    with np.load(path) as arrays:
        return [arrays[f"arr_{n}"] for n in range(len(arrays.files))]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_fork_after_use(tmp_path: Path) -> None:
    """Programs are compiled and have run; the child goes on as the parent does."""
    bp = net()
    train = minimise(bp)
    work(bp, train)
    forked = in_fork(lambda: work(bp, train))
    expected = work(bp, train)
    for got, bits in zip(result_of(forked, tmp_path / "child.npz"), expected, strict=True):
        assert_identical(got, bits)


@needs_fork
def test_two_forks_and_a_net_of_the_childs_own(tmp_path: Path) -> None:
    bp = net()
    train = minimise(bp)
    work(bp, train)

    def anew() -> list[np.ndarray]:
        other = net()
        return work(other, minimise(other))

    forks = [in_fork(anew) for _ in range(2)]
    expected = anew()
    for number, forked in enumerate(forks):
        for got, bits in zip(result_of(forked, tmp_path / f"{number}.npz"), expected, strict=True):
            assert_identical(got, bits)


def spawned(path: str, results: Any) -> None:
    """In a fresh interpreter: the net from its file, and on."""
    bp = bptt.load(path, origin_dual_lstm("fused"))
    results.put(work(bp, minimise(bp)))


def test_spawn(tmp_path: Path) -> None:
    """`multiprocessing` with spawn: what crosses is a path, and the same bits come of it."""
    bp = net()
    train = minimise(bp)
    work(bp, train)
    path = str(tmp_path / "net.safetensors")
    bp.save(path)
    expected = work(bp, train)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=spawned, args=(path, results)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        for got, bits in zip(results.get(timeout=120), expected, strict=True):
            assert_identical(got, bits)
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0


STOPPED = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
import bptt
from test_processes import X, Y, minimise, net

bp = net()
train = minimise(bp)
stream = np.broadcast_to(np.float32(0.5), (50_000_000, 1, 1))
try:
    print("begun", flush=True)
    if {what!r} == "fit":
        bp.fit(train, [X, Y], steps=20_000_000)
    else:
        bp.predict([stream])
except KeyboardInterrupt:
    print("stopped", flush=True)
assert np.isfinite(bp.fit(train, [X, Y], steps=3, start=bp.next_frame).loss).all()
assert np.isfinite(bp.predict([X])).all()
print("went on", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
@pytest.mark.parametrize("what", ["fit", "predict"])
def test_interrupt_from_outside(what: str) -> None:
    """As the terminal sends it, to a process that does nothing else."""
    code = STOPPED.format(tests=str(Path(__file__).parent), what=what)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "begun\n", process.stderr.read()
            time.sleep(0.5)
            began = time.perf_counter()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "stopped\n", process.stderr.read()
            print(f"{what} was stopped after {time.perf_counter() - began:.3f} s")
            assert time.perf_counter() - began < 5
            assert process.stdout.readline() == "went on\n", process.stderr.read()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
