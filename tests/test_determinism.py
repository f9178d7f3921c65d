"""What a result may depend on: `docs/reliability.md` says it, and here it is tried.

One seed gives the same bits in every process, thread and memory place. A lane of a batch gives the
same bits whatever its neighbours are; where it lies, and in how long a window, changes roundings.
"""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import CELLS, Frame
from rounding import assert_identical, assert_rounding

UNITS = 16  # roundings of the largest entry, in 20 frames; 4.2 were seen
SHAPES = ((1, 3), (7, 33), (16, 64))  # features, width: plain loops, ragged and whole tiles


def layered(cell: str, features: int, width: int, batch: int, *, noise: bool = False) -> Frame:
    """Dense, recurrent, dense; every kind of kernel: products, tanh, the exponential."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((features, batch))
        y = bp.placeholder((2, batch))
        h = x
        if noise:
            h = h + bp.random_normal(x.shape, stddev=0.3) + bp.random_uniform(x.shape, -0.1, 0.1)
        h = bptt.layers.dense(bp, h, width, activation=bptt.tanh)
        *_, h = CELLS[cell]("fused", bp, h, width, 0)
        return x, y, bptt.exp(bptt.sigmoid(bptt.layers.dense(bp, h, 2)))

    return frame


def digest(dtype: str, seed: int = 11) -> str:
    """Of all bits of a small training run and of what is streamed after it."""
    bp = bptt.BPTT(seed=seed, dtype=dtype)
    _, y, out = bp.generate_graphs(layered("lstm_diagonal", 3, 9, 5, noise=True), num_loops=7)[
        "deep"
    ]
    loss = bptt.reduce_mean(bptt.square(out - y))
    train = bp.minimize(loss, bptt.Adam(0.01), bptt.ClipByGlobalNorm(0.5))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 3, 5)), rng.normal(size=(100, 2, 5))
    losses = bp.fit(train, [x, y], steps=60).loss
    bp.copy_state_forward()
    bits = hashlib.sha256()
    for array in (losses, bp.predict([x]), *bp.parameters.values(), *bp.state["deep"].values()):
        bits.update(array.tobytes())
    return bits.hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_bits_in_every_process(dtype: str) -> None:
    here = digest(dtype)
    assert digest(dtype) == here
    assert digest(dtype, seed=12) != here
    command = [sys.executable, "-c", f"import test_determinism as t; print(t.digest({dtype!r}))"]
    for hash_seed, threads in (("0", "1"), ("1", "2")):
        changed = {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads}
        there = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            env=os.environ | changed,
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here, changed


def test_same_bits_beside_other_threads() -> None:
    alone = digest("float32")
    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(digest, ["float32"] * 6)) == {alone}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_wherever_the_data_lie(dtype: str) -> None:
    """Vector instructions like addresses that are multiples of 32; sums must not follow them."""
    results = []
    for offset in range(8):
        bp = bptt.BPTT(seed=1, dtype=dtype)
        _, y, out = bp.generate_graphs(layered("lstm", 3, 9, 5), num_loops=10)["deep"]
        train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(0.01))
        data = []
        for features in (3, 2):
            memory = np.empty(100 * features * 5 + 8, dtype)
            array = memory[offset : offset + 100 * features * 5].reshape(100, features, 5)
            array[...] = np.random.default_rng(features).normal(size=array.shape)
            data.append(array)
        results.append(bp.fit(train, data, steps=20).loss)
    for each in results[1:]:
        assert_identical(each, results[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_depends_on_frame_feature_and_lane_alone(dtype: str) -> None:
    """Not on the window's length, nor on how many lanes or features there are, nor on the mode."""

    def drawn(T: int, features: int, batch: int) -> list[np.ndarray]:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((features, batch))
            normal = 0 * x + bp.random_normal(x.shape)
            return x, normal, 0 * x + bp.random_uniform(x.shape)

        bp = bptt.BPTT(seed=4, dtype=dtype)
        x, *noises = bp.generate_graphs(frame, num_loops=T)["deep"]
        zeros = np.zeros((T, features, batch))
        runs = [bp.run(noises, {x: zeros}) for _ in range(20 // T)]
        deep = [np.concatenate(each) for each in zip(*runs, strict=True)]
        shallow = bp.predict([np.zeros((20, features, batch))], bp.graphs["shallow"][1:])
        for one, other in zip(deep, shallow, strict=True):
            assert_identical(other, one)
        return deep

    most = drawn(20, 5, 7)
    for T, features, batch in ((1, 5, 7), (4, 5, 7), (10, 2, 7), (20, 5, 1), (5, 1, 3)):
        for got, expected in zip(drawn(T, features, batch), most, strict=True):
            assert_identical(got, expected[:, :features, :batch])


def run(
    cell: str, width: int, x: np.ndarray, T: int, *, noise: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of consecutive windows, and the gradient of their squares' sum by the input.

    The weights are random and depend on their names and shapes alone.
    """
    bp = bptt.BPTT(seed=11, dtype=x.dtype)
    _, features, batch = x.shape
    frame = layered(cell, features, width, batch, noise=noise)
    inputs, _, out = bp.generate_graphs(frame, num_loops=T)["deep"]
    for name in bp.parameters:
        shape = bp.parameters[name].shape
        rng = np.random.default_rng(list(name.encode()))
        bp.parameters[name] = rng.normal(0, 0.7 / np.sqrt(shape[1]), shape)
    loss = bptt.reduce_sum(bptt.square(out))
    final = bp.generate_output_definitions("deep")
    outputs, gradients = [], []
    for first in range(0, len(x), T):
        feed = bp.generate_feed_dict("deep", [x[first : first + T]], 1)
        gradients.append(bp.gradients(loss, feed, [inputs])[inputs.name])
        values, *state = bp.run([out, *final], feed)
        bp.save_output_state("deep", state)
        outputs.append(values)
    return np.concatenate(outputs), np.concatenate(gradients)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_lane_does_not_depend_on_its_neighbours(cell: str, dtype: str) -> None:
    """Other values beside it: the same bits, forward and back, with the noise on."""
    rng = np.random.default_rng(3)
    for (features, width), batch in product(SHAPES, (2, 5, 17)):
        x = rng.normal(size=(20, features, batch)).astype(dtype)
        other = 3 * rng.normal(size=x.shape).astype(dtype)
        before = run(cell, width, x, 10, noise=True)
        for lane in {0, batch // 2, batch - 1}:
            beside = other.copy()
            beside[:, :, lane] = x[:, :, lane]
            after = run(cell, width, beside, 10, noise=True)
            for one, two in zip(before, after, strict=True):
                assert_identical(two[:, :, lane], one[:, :, lane])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_where_a_lane_lies_changes_roundings_only(cell: str, dtype: str) -> None:
    """Alone, elsewhere in the batch, in windows of another length."""
    rng = np.random.default_rng(4)
    worst = 0.0
    for (features, width), batch in product(SHAPES, (2, 5, 17)):
        x = rng.normal(size=(20, features, batch)).astype(dtype)
        out, gradient = run(cell, width, x, 10)
        lane = batch // 2
        alone = run(cell, width, x[:, :, lane : lane + 1], 10)
        moved = (np.roll(each, -1, 2) for each in run(cell, width, np.roll(x, 1, 2), 10))
        pairs = [
            *zip(alone, (out[:, :, lane : lane + 1], gradient[:, :, lane : lane + 1]), strict=True),
            *zip(moved, (out, gradient), strict=True),
            *((run(cell, width, x, T)[0], out) for T in (1, 20)),
        ]
        for got, expected in pairs:
            assert_rounding(got, expected, UNITS)
            scale = np.finfo(dtype).eps * np.abs(expected).max()
            worst = max(worst, float(np.abs(got - expected).max() / scale))
    print(f"\n{cell}, {dtype}: {worst:.1f} units of rounding at most")
