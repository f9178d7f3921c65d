"""What programs take, and that what shares memory changes no bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bptt
from frames import memory_shared
from nets import FRAMES, T, curved, data, make, one_window, rows, trained
from rounding import assert_identical


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FRAMES)
def test_sharing_memory_changes_no_bit(name: str, dtype: str) -> None:
    for lanes, marked in ((1, False), (8, True)):
        marks = rows(lanes, T) if marked else {}
        results = []
        for shared in (True, False):
            with memory_shared(shared):
                results.append(one_window(make(FRAMES[name], None, lanes, dtype, curved), marks))
        for key, values in results[1].items():
            assert_identical(results[0][key], values)


@pytest.mark.parametrize("every", [None, 4])
@pytest.mark.parametrize("name", ["odd", "lstm_full-fused", "lstm-primitive", "gru_before-fused"])
def test_training_with_shared_memory_changes_no_bit(name: str, every: int | None) -> None:
    marks = rows(8, 2 * T + 3)
    results = []
    for shared in (True, False):
        with memory_shared(shared):
            results.append(trained(make(FRAMES[name], every, 8, "float32"), marks, stride=7))
    for key, values in results[1].items():
        assert_identical(results[0][key], values)


def deep(layer: Callable[[bptt.BPTT, Any], Any], layers: int) -> Any:
    def frame(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
        x, y = bp.placeholder((3, lanes)), bp.placeholder((2, lanes))
        h = x
        for _ in range(layers):
            h = layer(bp, h)
        return x, y, bptt.layers.dense(bp, h, 2)

    return frame


def tanh_layer(bp: bptt.BPTT, x: Any) -> Any:
    return bptt.layers.dense(bp, x, 64, activation=bptt.tanh)


def test_layers_that_do_not_meet_share_memory() -> None:
    """Without a backward a layer's values give way to the next but one's; with one, gradients."""

    def memory(layers: int, trains: bool, shared: bool) -> int:
        with memory_shared(shared):
            bp, _, loss = make(deep(tanh_layer, layers), None, 8, "float32", frames=1000)
        net = bp._net
        return net.program(net.traces["deep"], 1000, [loss.id], loss.id, trains=trains).memory  # type: ignore[no-any-return]

    layer = 64 * 8 * 1000 * 4  # bytes of one value
    forward = [memory(layers, False, True) for layers in (4, 8)]
    assert forward[1] - forward[0] < 0.1 * layer  # packed weights, and no more
    apart = [memory(layers, True, False) for layers in (4, 8)]
    shared = [memory(layers, True, True) for layers in (4, 8)]
    assert apart[1] - apart[0] > 7.9 * layer  # four layers' values and gradients, at the least
    assert shared[1] - shared[0] < (apart[1] - apart[0]) - 3.9 * layer


def test_what_is_fetched_is_there_with_shared_memory() -> None:
    """All values of a deep frame at once, or one of them, in the middle."""

    def frame(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
        x, y = bp.placeholder((3, lanes)), bp.placeholder((2, lanes))
        values = [x]
        for _ in range(5):
            values.append(tanh_layer(bp, values[-1]))
        return (x, y, *values[1:], bptt.layers.dense(bp, values[-1], 2))

    with memory_shared(True):
        bp, graph, _ = make(frame, None, 2, "float32")
    feed = bp.generate_feed_dict("deep", data(2, T), 1)
    every = bp.run(list(graph[2:]), feed)
    for symbol, values in zip(graph[2:], every, strict=True):
        assert_identical(bp.run([symbol], feed)[0], values)
        assert np.abs(values).max() > 0


def test_nothing_is_kept_for_a_backward_that_never_comes() -> None:
    """An LSTM's window in `evaluate` is its states and what is fed; the plan has no gates."""
    H, lanes, frames = 32, 4, 500
    layer = lambda bp, x: bptt.layers.lstm(bp, x, H)[1]  # noqa: E731
    bp, _, loss = make(deep(layer, 1), None, lanes, "float32", frames=frames)
    bp.evaluate(loss, data(lanes, frames))
    train = bp.minimize(loss, bptt.SGD(0.01))
    bp.fit(train, data(lanes, frames), steps=1)
    memory = {trains: held for depth, _, _, trains, held in bp._net.compiled() if depth == "deep"}
    state, heads = 2 * H * lanes * frames * 4, 16 * lanes * frames * 4
    assert memory[False] < 1.1 * state + heads
    assert memory[True] > memory[False] + 4.9 * H * lanes * frames * 4
    assert f"for {frames} x deep with gradients" in str(bp.graphs)
    assert f"for {frames} x deep\n" in str(bp.graphs)
