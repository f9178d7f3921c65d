"""Forward, backward, update and step ask for no memory after the first window.

And a program asks for as much as its plan says. A child process runs with the C library's
allocation functions replaced by counting ones. Twice as many windows must ask for exactly as much
memory as half of them.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")

CHILD = """
import ctypes, json, sys
import numpy as np
import bptt

counter = ctypes.CDLL(sys.argv[1])
counter.allocations.restype = ctypes.c_long

def frame(bp, depth):
    x, y = bp.placeholder((6, LANES)), bp.placeholder((3, LANES))
    noisy = x + bp.random_normal(x.shape, stddev=0.1)
    h = bptt.layers.rnn(bp, noisy, 24, output=True)
    _, h = bptt.layers.lstm(bp, h, 40, peephole="full")
    _, h = bptt.layers.lstm(bp, h, 33, peephole="diagonal")
    past = bp.get_past_variable("s", np.zeros((40, LANES)))
    W = bp.get_variable("W", (40, 33))
    s = bp.name_variable("s", bptt.tanh(W @ h + bp.get_variable("U", (40, 40)) @ past))
    mixed = bptt.concat([s, h]) * bptt.sigmoid(bptt.reduce_mean(s, axis=0))
    return x, y, bptt.layers.dense(bp, mixed, 3)

def counts(run):
    for windows in (10, 20):  # numpy keeps small blocks of every size it has had
        run(windows)
    found = []
    for windows in (10, 20):
        before = counter.allocations()
        run(windows)
        found.append(counter.allocations() - before)
    return found

LANES = int(sys.argv[2])
bp = bptt.BPTT(seed=0, dtype=sys.argv[3])
x, y, out = bp.generate_graphs(frame, num_loops=5)[bp.DEEP]
loss = bptt.reduce_mean(bptt.square(out - y))
rng = np.random.default_rng(0)
data = [rng.normal(size=(60, *v.shape)).astype(sys.argv[3]) for v in (x, y)]
stepper = bp.stepper()
report = {}
for clip in (None, bptt.ClipByValue(1.0), bptt.ClipByGlobalNorm(1.0)):
    train = bp.minimize(loss, bptt.Adam(0.01), clip=clip)
    report[str(clip)] = counts(lambda windows: bp.fit(train, data, steps=windows))

def steps(count):
    for _ in range(count):
        stepper()

report["step"] = counts(steps)

counter.aligned_bytes.restype = ctypes.c_long
planned = []
for frames, trains in ((5, True), (20, False), (700, True), (700, False)):
    before = counter.aligned_bytes()
    net = bp._net
    program = net.program(net.traces["deep"], frames, [loss.id], loss.id, trains=trains)
    planned.append((program.memory, counter.aligned_bytes() - before))
report["planned"] = planned
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and LD_PRELOAD")
    library = tmp_path_factory.mktemp("counting") / "count_malloc.so"
    source = Path(__file__).with_name("count_malloc.c")
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", [1, 2, 7, 32])
def test_nothing_is_allocated_after_the_first_window(
    counting: Path, lanes: int, dtype: str
) -> None:
    if "libasan" in os.environ.get("LD_PRELOAD", "") or "libtsan" in os.environ.get(
        "LD_PRELOAD", ""
    ):
        pytest.skip("a sanitizer has replaced malloc already")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), counting, str(lanes), dtype],
        env={**os.environ, "LD_PRELOAD": str(counting)},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    for planned, asked in report.pop("planned"):
        # Operations lie at boundaries, too. Blocks from 4 MiB on are asked for in pages of 2 MiB.
        besides = 4096 if planned < 2**22 else 4096 + 4 * 2**21
        assert planned > 0
        assert 0 <= asked - planned < besides
    per_window = {what: (many - few) / 10 for what, (few, many) in report.items()}
    print(f"{dtype}, {lanes} lanes: allocations per window {per_window}")
    for what, (few, many) in report.items():
        assert many == few, f"{what}: {few} allocations for 10 windows, {many} for 20"
    assert all(few > 0 for what, (few, _) in report.items() if what != "step"), "nothing is counted"
