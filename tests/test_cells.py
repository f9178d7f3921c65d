"""A fused cell and the same cell written from primitive operations give the same numbers.

Every comparison takes outputs, final state, and the gradients of all weights, of the input and of
the state that came in. The loss is the sum of output times y, y random at every frame, unit and
lane: whatever is scaled, transposed, dropped or put at another frame on the way back shows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bptt
from frames import (
    CELLS,
    LSTM,
    PEEPHOLES,
    RNN,
    Frame,
    Layer,
    draw_state,
    draw_weights,
    gradients_of_everything,
)
from rounding import assert_rounding, assert_same_gradients


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Layer:
    return CELLS[request.param]


def outputs_and_gradients(
    frame: Frame, frames: int, dtype: str
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """One window of a frame that returns x, y and its outputs; all numbers are random."""
    rng = np.random.default_rng(12)
    bp = bptt.BPTT(seed=0, dtype=dtype)
    x, y, *outputs = bp.generate_graphs(frame, num_loops=frames)[bp.DEEP]
    draw_weights(bp, rng)
    draw_state(bp, rng)
    loss = bptt.reduce_sum(outputs[-1] * y)
    window = [rng.normal(size=(frames, *symbol.shape)) for symbol in (x, y)]
    feed = bp.generate_feed_dict(bp.DEEP, window, 2)
    gradients = gradients_of_everything(bp, loss, feed)
    state = bp.generate_output_definitions(bp.DEEP)
    return bp.run([*outputs, *state], feed), gradients


def assert_same(
    frame_of: Callable[[str], Frame], frames: int, dtype: str, units: float = 100
) -> None:
    """`frame_of(form)` is the frame with fused or with primitive cells."""
    outputs, gradients = outputs_and_gradients(frame_of("fused"), frames, dtype)
    expected_outputs, expected_gradients = outputs_and_gradients(
        frame_of("primitive"), frames, dtype
    )
    assert outputs[0].dtype == np.dtype(dtype)
    for got, expected in zip(outputs, expected_outputs, strict=True):
        assert_rounding(got, expected)
    assert_same_gradients(gradients, expected_gradients, units)


def stack(
    cell: Layer, features: int, width: int, batch: int, layers: int = 1
) -> Callable[[str], Frame]:
    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            h = x = bp.placeholder((features, batch))
            y = bp.placeholder((width, batch))
            outputs = []
            for index in range(layers):
                *_, h = cell(form, bp, h, width, index)
                outputs.append(h)
            return x, y, *outputs

        return frame

    return frame_of


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_batches_and_windows(cell: Layer, frames: int, batch: int, dtype: str) -> None:
    assert_same(stack(cell, 2, 3, batch), frames, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("features", "width", "batch"), [(1, 1, 1), (5, 8, 2), (3, 16, 9), (19, 17, 1), (7, 33, 4)]
)
def test_widths_about_the_size_of_a_register(
    cell: Layer, features: int, width: int, batch: int, dtype: str
) -> None:
    # A lone unit may be close to saturation, where 1 - h^2 magnifies the rounding of h.
    assert_same(stack(cell, features, width, batch), 3, dtype, 1000 if width == 1 else 100)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stacked(cell: Layer, dtype: str) -> None:
    """x of the upper layers needs a gradient, and h of the lower ones is read twice."""
    assert_same(stack(cell, 2, 4, 3, layers=3), 5, dtype)


def test_stacked_kinds_in_one_frame() -> None:
    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 3))
            y = bp.placeholder((4, 3))
            h = RNN[form](bp, x, 3, layer_index=0)
            _, h = LSTM[form](bp, h, 5, peephole="diagonal", layer_index=1)
            return x, y, RNN[form](bp, h, 4, output=True, layer_index=2)

        return frame

    assert_same(frame_of, 4, "float64")


@pytest.mark.parametrize("kind", ["lstm", "lstm_full", "lstm_diagonal"])
@pytest.mark.parametrize("frames", [1, 4])
def test_only_the_cell_is_read(kind: str, frames: int) -> None:
    """The loss sees c and not h; at the last frame the output gate then has no gradient at all."""

    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 3))
            y = bp.placeholder((4, 3))
            c, _ = CELLS[kind](form, bp, x, 4, 0)
            return x, y, c

        return frame

    outputs, gradients = outputs_and_gradients(frame_of("fused"), frames, "float64")
    expected_outputs, expected = outputs_and_gradients(frame_of("primitive"), frames, "float64")
    for got, want in zip(outputs, expected_outputs, strict=True):
        assert_rounding(got, want)
    if frames == 1:
        silent = {name for name, array in expected.items() if not array.any()}
        assert "lstm_layer_0/W_xo" in silent
        for name in silent:
            assert not gradients.pop(name).any()
            del expected[name]
    assert_same_gradients(gradients, expected)


@pytest.mark.parametrize("kind", ["lstm", "lstm_full", "lstm_diagonal"])
def test_cell_and_output_are_read(kind: str) -> None:
    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 3))
            y = bp.placeholder((8, 3))
            c, h = CELLS[kind](form, bp, x, 4, 0)
            return x, y, bptt.concat([c, h])

        return frame

    assert_same(frame_of, 4, "float64")


def test_input_that_needs_no_gradient(cell: Layer, rng: np.random.Generator) -> None:
    """The weights' gradients are the same whether or not that of the input is asked for."""
    bp = bptt.BPTT(seed=0, dtype="float64")
    _, y, out = bp.generate_graphs(stack(cell, 3, 4, 2)("fused"), num_loops=5)[bp.DEEP]
    draw_weights(bp, rng)
    draw_state(bp, rng)
    loss = bptt.reduce_sum(out * y)
    window = [rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 4, 2))]
    feed = bp.generate_feed_dict(bp.DEEP, window, 2)
    alone = bp.gradients(loss, feed)
    everything = gradients_of_everything(bp, loss, feed)
    assert_same_gradients(alone, {name: everything[name] for name in alone})


def frame_before(bp: bptt.BPTT, x: Any) -> Any:
    past = bp.get_past_variable("before", np.zeros(x.shape))
    bp.name_variable("before", x)
    return past


SOURCES: dict[str, Callable[[bptt.BPTT, Any], Any]] = {
    "dense": lambda bp, x: bptt.layers.dense(bp, x, 5, activation=bptt.tanh),
    "same at every time step": lambda bp, x: bptt.tanh(bp.get_variable("V", x.shape)),
    "frame before": frame_before,
}


@pytest.mark.parametrize("source", SOURCES)
def test_input_from_elsewhere(cell: Layer, source: str) -> None:
    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((3, 2))
            y = bp.placeholder((4, 2))
            *_, h = cell(form, bp, SOURCES[source](bp, x), 4, 0)
            return x, y, h + bptt.reduce_sum(x, axis=0)

        return frame

    assert_same(frame_of, 4, "float64")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_output_fed_back_to_the_input(cell: Layer, batch: int, dtype: str) -> None:
    """Inside a larger cycle: the cell's output returns through user operations a frame later."""

    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, batch))
            y = bp.placeholder((4, batch))
            back = bp.get_past_variable("back", np.zeros((3, batch)))
            seen = x + bp.get_variable("V", (2, 3)) @ back
            *_, h = cell(form, bp, bptt.tanh(seen), 4, 0)
            bp.name_variable("back", bptt.sigmoid(bp.get_variable("U", (3, 4)) @ h))
            return x, y, h

        return frame

    assert_same(frame_of, 5, dtype)


def test_own_past_read_outside(cell: Layer) -> None:
    """The state of the frame before is an input of the cell and a part of the output too."""

    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 3))
            y = bp.placeholder((4, 3))
            past = bp.get_past_variable("hidden-0", np.zeros((4, 1)))
            *_, h = cell(form, bp, bptt.concat([x, bptt.square(past)]), 4, 0)
            return x, y, h * past

        return frame

    assert_same(frame_of, 5, "float64")


def test_two_cells_in_one_cycle(cell: Layer) -> None:
    """Each reads the other: the upper one at this frame, the lower one at the frame before."""

    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 3))
            y = bp.placeholder((5, 3))
            above = bp.get_past_variable("hidden-1", np.zeros((5, 1)))
            *_, low = cell(form, bp, bptt.concat([x, above]), 4, 0)
            *_, high = cell(form, bp, low, 5, 1)
            return x, y, high

        return frame

    assert_same(frame_of, 5, "float64")


@pytest.mark.parametrize("kind", ["lstm", "lstm_full", "lstm_diagonal"])
def test_cell_state_fed_back(kind: str) -> None:
    """c, and not h, closes the larger cycle."""

    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((4, 2))
            y = bp.placeholder((4, 2))
            before = bp.get_past_variable("cell-0", np.zeros((4, 1)))
            c, h = CELLS[kind](form, bp, x - bptt.tanh(before), 4, 0)
            return x, y, h + c

        return frame

    assert_same(frame_of, 5, "float64")


def test_weights_of_a_cell_used_elsewhere(cell: Layer) -> None:
    """A cell's own weights in a user operation and in a regulariser: their gradients add up."""

    def frame_of(form: str) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 3))
            y = bp.placeholder((4, 3))
            *_, h = cell(form, bp, x, 4, 0)
            matrices = ("lstm_layer_0/W_ho", "rnn_layer_0/W_aa", "gru_layer_0/W_hn")
            w = next(bp.trace.variables[name] for name in matrices if name in bp.trace.variables)
            size = bptt.reduce_sum(bptt.square(w), axis=(0, 1))
            return x, y, bptt.reduce_sum(w @ h, axis=0) + size

        return frame

    assert_same(frame_of, 4, "float64")


@pytest.mark.parametrize("peephole", PEEPHOLES)
def test_two_calls_on_the_same_weights(peephole: str | None) -> None:
    """A weight's gradient is the sum of those of two cells that hold equal weights apart."""

    def frame_of(shared: bool) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((3, 2))
            y = bp.placeholder((3, 2))
            _, low = bptt.layers.lstm(bp, x, 3, peephole=peephole, layer_index=0)
            if not shared:
                return x, y, bptt.layers.lstm(bp, low, 3, peephole=peephole, layer_index=1)[1]
            names = [name for name in bp.trace.variables if name.startswith("lstm_layer_0/")]
            weights = [bp.trace.variables[name] for name in names]
            pasts = [
                bp.get_past_variable(name, np.zeros((3, 1))) for name in ("cell-1", "hidden-1")
            ]
            c, h = bp.trace.append("lstm", low, *pasts, *weights, peephole=peephole or "none")
            bp.name_variable("cell-1", c)
            return x, y, bp.name_variable("hidden-1", h)

        return frame

    results = []
    for shared in (True, False):
        rng = np.random.default_rng(12)
        bp = bptt.BPTT(seed=0, dtype="float64")
        _, y, out = bp.generate_graphs(frame_of(shared), num_loops=5)[bp.DEEP]
        names = sorted(name for name in bp.parameters if name.startswith("lstm_layer_0/"))
        for name in names:
            weight = rng.normal(size=bp.parameters[name].shape)
            bp.parameters[name] = weight
            if not shared:
                bp.parameters[name.replace("_0/", "_1/")] = weight
        draw_state(bp, rng)
        feed = bp.generate_feed_dict("deep", [rng.normal(size=(5, 3, 2)) for _ in (0, 1)], 2)
        results.append(gradients_of_everything(bp, bptt.reduce_sum(out * y), feed))
    got, apart = results
    for name in names:
        apart[name] = apart[name] + apart.pop(name.replace("_0/", "_1/"))
    assert_same_gradients(got, apart)
