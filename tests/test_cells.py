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
    DROPPED,
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
    if cell is CELLS["lstm_normalised"]:
        width = max(width, 2)  # one number, normalised, is zero whatever it was
    # A lone unit may be close to saturation, where 1 - h^2 magnifies the rounding of h.
    assert_same(stack(cell, features, width, batch), 3, dtype, 1000 if width == 1 else 100)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", DROPPED)
def test_entries_that_are_dropped_or_stay(name: str, batch: int, dtype: str) -> None:
    """In two layers, over a window whose masks are partly drawn in it."""
    frame_of = stack(DROPPED[name], 7, 9, batch, layers=2)
    outputs, gradients = outputs_and_gradients(frame_of("fused"), 6, dtype)
    expected_outputs, expected = outputs_and_gradients(frame_of("primitive"), 6, dtype)
    for got, want in zip(outputs, expected_outputs, strict=True):
        assert_rounding(got, want)
    for mask in [of for of in expected if "-mask-" in str(of)]:
        assert not gradients.pop(mask).any()
        assert not expected.pop(mask).any()
    assert_same_gradients(gradients, expected)


@pytest.mark.parametrize("name", DROPPED)
def test_nothing_is_random_in_the_shallow_mode(name: str, rng: np.random.Generator) -> None:
    """No masks; of what stays, the mean. As primitives have it, and twice the same."""
    results = []
    for form in ("fused", "primitive"):
        bp = bptt.BPTT(seed=0, dtype="float64")
        bp.generate_graphs(stack(DROPPED[name], 4, 5, 2)(form), num_loops=3)
        draw_weights(bp, np.random.default_rng(3))
        assert not any("mask" in state for state in bp.state[bp.SHALLOW])
        x = np.random.default_rng(4).normal(size=(6, 4, 2))
        for _ in range(2):
            bp.reset_state(bp.SHALLOW)
            results.append(bp.predict([x]))
    assert_rounding(results[0], results[2])
    np.testing.assert_array_equal(results[0], results[1])


def test_masks_are_of_sequences() -> None:
    """The same at all frames; drawn anew in lanes that are reset, and nowhere else; in the right
    proportion, and with the right mean."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((200, 3))
        h = bptt.layers.rnn(bp, x, 4, dropout=0.3)
        if depth == bp.SHALLOW:
            return x, h
        return x, bp.get_past_variable("input-mask-0", np.full((200, 1), -1.0)), h

    bp = bptt.BPTT(seed=0, dtype="float64")
    bp.generate_graphs(frame, num_loops=6)
    resets = np.zeros((6, 3), dtype=bool)
    resets[3, 1] = True
    feed = bp.generate_feed_dict("deep", [np.ones((6, 200, 3))], 1, resets=resets)
    _, past, _ = bp.graphs["deep"]
    before, last = bp.run([past, bp.generate_output_definitions("deep")[1]], feed)
    first = (before == -1).all(axis=1)  # the starting value, where a mask is to be drawn
    assert first.tolist() == [
        [True] * 3,
        *[[False] * 3] * 2,
        [False, True, False],
        *[[False] * 3] * 2,
    ]
    for lane in (0, 2):
        assert (before[1:, :, lane] == last[:, lane]).all()
    assert (before[1, :, 1] == before[2, :, 1]).all()
    assert (before[4:, :, 1] == last[:, 1]).all()
    assert (before[2] != last).any(axis=0).tolist() == [False, True, False]
    assert set(np.unique(last)) == {0.0, 1.0 / 0.7}
    assert abs(last.mean() - 1.0) < 0.1


def test_what_stays_is_the_past_to_the_bit() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((3, 2))
        return x, *bptt.layers.lstm(bp, x, 100, zoneout=(0.5, 0.1))

    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=20)
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    _, *states = bp.run(list(bp.graphs["deep"]), bp.generate_feed_dict("deep", [x], 1))
    for state, p in zip(states, (0.5, 0.1), strict=True):
        assert abs((state[1:] == state[:-1]).mean() - p) < 0.02


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_learned_start(name: str, rng: np.random.Generator) -> None:
    """It is a weight, where states begin, with the gradient of the lanes that begin anew."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 3))
        made = getattr(bptt.layers, name)(bp, x, 4, initial_state="learned")
        return x, made[1] if name == "lstm" else made

    bp = bptt.BPTT(seed=0, dtype="float64")
    _, out = bp.generate_graphs(frame, num_loops=5)["deep"]
    draw_weights(bp, rng)
    starts = [weight for weight in bp.parameters if weight.endswith("_start")]
    assert len(starts) == (2 if name == "lstm" else 1)
    bp.reset_state("deep")
    for weight in starts:
        state = bp.state["deep"][weight.split("/")[1].replace("_start", "-0")]
        np.testing.assert_array_equal(state, np.tile(bp.parameters[weight], (1, 3)))
    resets = np.zeros((5, 3), dtype=bool)
    resets[0] = resets[3, 1] = True
    loss, x = bptt.reduce_sum(bptt.square(out - 0.3)), rng.normal(size=(5, 2, 3))
    assert not any(
        bp.gradients(loss, bp.generate_feed_dict("deep", [x], 1))[w].any() for w in starts
    )
    feed = bp.generate_feed_dict("deep", [x], 1, resets=resets)
    gradients = bp.gradients(loss, feed)
    for weight in starts:
        direction, kept = rng.normal(size=(4, 1)), bp.parameters[weight]
        sides = []
        for sign in (1, -1):
            bp.parameters[weight] = kept + sign * 1e-6 * direction
            sides.append(bp.run(loss, feed))
        bp.parameters[weight] = kept
        slope = (sides[0] - sides[1]) / 2e-6
        assert (gradients[weight] * direction).sum() == pytest.approx(slope, rel=1e-6)


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


def test_a_normalised_lstm_takes_silence() -> None:
    """LN is steep at zero; with zeros fed to a cell of zeros its gradient would overflow."""
    for seed in range(4):
        bp = bptt.BPTT(seed=seed)

        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x, y = bp.placeholder((1, 2)), bp.placeholder((1, 2))
            _, h = bptt.layers.lstm(bp, x, 16, layer_norm=True)
            return x, y, bptt.layers.dense(bp, h, 1)

        _, y, out = bp.generate_graphs(frame, num_loops=40)["deep"]
        train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(0.01))
        x = np.zeros((40, 1, 2))
        history = bp.fit(train, [x, x + 1], steps=30)
        assert history.loss[-1] < 0.5 * history.loss[0]
