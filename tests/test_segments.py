"""Long windows in segments: `recompute_every` changes the memory that they take and no result.

Held against the plain program, against finite differences, and bit for bit against a program that
goes over the same segments and keeps all frames.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import all_frames_kept, mean_square
from nets import FEATURES, FRAMES, T, curved, data, make, odd, one_window, rows, stateless, trained
from rounding import assert_identical, assert_rounding


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("name", FRAMES)
def test_all_is_as_without_segments(name: str, marked: bool) -> None:
    for lanes in (1, 5):
        marks = rows(lanes, T) if marked else {}
        expected = one_window(make(FRAMES[name], None, lanes, loss=curved), marks)
        there = [np.abs(values).max() > 0 for values in expected.values()]
        assert np.mean(there) > 0.7  # some units of a relu are off
        for every in (1, 4):
            found = one_window(make(FRAMES[name], every, lanes, loss=curved), marks)
            assert found.keys() == expected.keys()
            for key, values in expected.items():
                assert_rounding(found[key], values, 1000, scale=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FRAMES)
def test_recomputing_changes_no_bit(name: str, dtype: str) -> None:
    for lanes, marked in ((1, False), (8, True)):
        marks = rows(lanes, T) if marked else {}
        found = one_window(make(FRAMES[name], 4, lanes, dtype, curved), marks)
        with all_frames_kept():
            expected = one_window(make(FRAMES[name], 4, lanes, dtype, curved), marks)
        for key, values in expected.items():
            assert_identical(found[key], values)


@pytest.mark.parametrize("name", ["odd", "lstm-fused", "gru_before-primitive"])
@pytest.mark.parametrize("stride", [None, 4, 7])
def test_training_is_the_same(name: str, stride: int | None) -> None:
    marks = rows(5, 2 * T + 3)
    found = trained(make(FRAMES[name], 4, 5), marks, stride=stride)
    with all_frames_kept():
        same = trained(make(FRAMES[name], 4, 5), marks, stride=stride)
    plain = trained(make(FRAMES[name], None, 5), marks, stride=stride)
    for key, values in same.items():
        assert_identical(found[key], values)
        assert_rounding(found[key], plain[key], 1e5, scale=1.0)


def test_the_gradient_is_that_of_the_loss() -> None:
    """Central differences of the loss of a whole window, masks and resets within."""
    marks, lanes = rows(2, T), 2
    bp, _, loss = make(odd, 3, lanes, loss=curved)
    feed = bp.generate_feed_dict("deep", data(lanes, T), 2, **marks)
    gradients = bp.gradients(loss, feed)
    rng = np.random.default_rng(7)
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        weight, sides = bp.parameters[name], []
        for step in (1e-6, -1e-6):
            bp.parameters[name] = weight + step * direction
            sides.append(bp.run([loss], feed)[0])
        bp.parameters[name] = weight
        slope = (sides[0] - sides[1]) / 2e-6
        assert np.isclose(slope, np.vdot(gradient, direction), rtol=1e-6, atol=1e-8), name


def test_threads_change_no_bit() -> None:
    def wide(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
        x, y = bp.placeholder((FEATURES, lanes)), bp.placeholder((2, lanes))
        _, h = bptt.layers.lstm(bp, x, 160)
        return x, y, bptt.layers.dense(bp, h, 2)

    marks = rows(32, 2 * T + 3)
    one, two = (trained(make(wide, 5, 32, "float32", threads=threads), marks) for threads in (1, 2))
    for key, values in one.items():
        assert_identical(two[key], values)


def test_a_window_shorter_than_a_segment_is_whole() -> None:
    plain = trained(make(odd, None), {})
    for every in (T, T + 5):
        for key, values in trained(make(odd, every), {}).items():
            assert_identical(values, plain[key])


def test_memory_is_of_the_order_of_the_root() -> None:
    def memory(frames: int, every: int | str | None) -> int:
        bp, _, loss = make(FRAMES["lstm-fused"], every, frames=frames)
        train = bp.minimize(loss, bptt.SGD(0.01))
        bp.fit(train, data(2, frames), steps=1)
        return max(held for *_, held in bp._net.compiled())

    for frames in (10_000, 40_000):
        ratio = memory(frames, "auto") / memory(frames, None)
        assert ratio < 2.5 / frames**0.5, ratio
    assert memory(40_000, "auto") < 2.2 * memory(10_000, "auto")


def test_auto_is_the_root_rounded_up() -> None:
    for frames, root in ((1, 1), (9, 3), (10, 4), (100_000, 317)):
        bp, _, _ = make(stateless, "auto", frames=frames)
        assert bp._net.traces["deep"].segment == root


def test_what_is_not_finite_is_found_in_its_segment() -> None:
    def frame(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
        x, y = bp.placeholder((FEATURES, lanes)), bp.placeholder((2, lanes))
        h = bptt.layers.rnn(bp, bptt.exp(x), 2)
        return x, y, h * bp.get_variable("w", (2, 1))

    bp, _, loss = make(frame, 4, dtype="float32")
    train = bp.minimize(loss, bptt.SGD(0.01))
    inputs, targets = data(2, T)
    inputs[9] = 1000.0
    before = {name: np.asarray(state) for name, state in bp.state["deep"].items()}
    with pytest.raises(bptt.NonFiniteError, match=r"'exp'.*at frame 9 of the window"):
        bp.fit(train, [inputs, targets], steps=1)
    for name, state in before.items():
        assert_identical(np.asarray(bp.state["deep"][name]), state)
    bp.fit(train, data(2, T), steps=1)


def test_a_checkpoint_goes_on_in_the_same_segments(tmp_path: Path) -> None:
    whole, path = make(odd, 4), tmp_path / "net.safetensors"
    train = whole[0].minimize(whole[2], bptt.Adam(0.02))
    whole[0].fit(train, data(2, T), steps=2)
    whole[0].save(path)
    whole[0].fit(train, data(2, T), steps=2)
    bp = bptt.load(path, lambda bp, depth: odd(bp, depth, 2))
    assert bp._net.traces["deep"].segment == 4
    train = bp.minimize(mean_square(bp.graphs["deep"]), bptt.Adam(0.02))
    bp.fit(train, data(2, T), steps=2)
    for name, weight in whole[0].parameters.items():
        assert_identical(bp.parameters[name], weight)


@pytest.mark.parametrize("every", [0, -1, 2.5])
def test_a_segment_has_a_number_of_frames(every: Any) -> None:
    with pytest.raises(bptt.UsageError, match="recompute_every"):
        make(stateless, every)


@pytest.mark.parametrize("every", ["many", True, False])
def test_what_a_segment_may_be_is_said(every: Any) -> None:
    """Nor is True a segment of one frame."""
    with pytest.raises(bptt.UsageError, match=rf'"auto" or None, got {every!r}'):
        make(stateless, every)
