"""Passes over the graph: what a program is compiled to, and that the numbers stay.

`tests/test_random_frames.py` runs its frames with passes and without; here are the shapes and the
structures that the passes are made for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import bptt
import frames
from bptt.symbol import apply
from frames import as_traced


def compiled(bp: bptt.BPTT, loss: Any, frozen: Sequence[str] = ()) -> list[tuple[list[str], bool]]:
    """The operations of each stage of the program that trains this loss, and if it is stepwise."""
    net, trace = bp._net, bp._net.trace(bp.DEEP)
    return net.program(trace, trace.frames, [], loss.id, frozen=frozen).stages


def lstm(bp: bptt.BPTT, lanes: int, width: int, peephole: str | None, num_loops: int = 4) -> Any:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((3, lanes)), bp.placeholder((2, lanes))
        _, h = frames.lstm_cell(bp, x, width, peephole=peephole)
        return x, y, bptt.layers.dense(bp, h, 2)

    return frames.mean_square(bp.generate_graphs(frame, num_loops=num_loops)[bp.DEEP])


HEAD = [(["affine"], False), (["chain"], False), (["window_mean"], False)]


@pytest.mark.parametrize("lanes", [1, 4])
def test_an_lstm_is_a_product_and_a_chain(lanes: int) -> None:
    """With few lanes the product with the input is made for all frames before the cycle."""
    bp = bptt.BPTT(seed=0)
    before = [(["affine"], False)] if lanes < 4 else []
    loss = lstm(bp, lanes, 5, None)
    assert compiled(bp, loss) == [*before, (["affine", "chain"], True), *HEAD]


def test_the_output_gate_waits_for_the_cell() -> None:
    bp = bptt.BPTT(seed=0)
    stages = compiled(bp, lstm(bp, 4, 5, "full"))
    assert stages == [(["affine", "chain", "affine", "chain"], True), *HEAD]


def test_a_diagonal_peephole_is_in_the_chain() -> None:
    bp = bptt.BPTT(seed=0)
    assert compiled(bp, lstm(bp, 4, 5, "diagonal")) == [(["affine", "chain"], True), *HEAD]


def test_a_layer_does_not_join_the_cycle_of_another() -> None:
    """Both cells read x; the sums of one wait for the other's h."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((3, 4)), bp.placeholder((5, 4))
        h = frames.rnn_cell(bp, x, 5, layer_index=0)
        return x, y, frames.rnn_cell(bp, bptt.concat([x, h]), 5, layer_index=1)

    bp = bptt.BPTT(seed=0)
    loss = frames.mean_square(bp.generate_graphs(frame, num_loops=3)[bp.DEEP])
    cycles = [names for names, stepwise in compiled(bp, loss) if stepwise]
    assert cycles == [["affine", "tanh"], ["affine", "tanh"]]


def test_heads_on_one_input_are_one_product() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((3, 2))
        heads = [bptt.layers.dense(bp, x, n, activation=bptt.tanh) for n in (1, 2, 5)]
        return x, bptt.concat(heads)

    bp = bptt.BPTT(seed=0)
    loss = bptt.reduce_mean(bp.generate_graphs(frame, num_loops=3)[bp.DEEP][1])
    names = [name for stage, _ in compiled(bp, loss) for name in stage]
    assert sorted(names) == ["affine", "chain", "chain", "chain", "concat", "window_mean"]


def test_weights_that_are_stacked_do_not_overlap() -> None:
    """They lie as row blocks of one matrix; by name they are what they were."""
    bp = bptt.BPTT(seed=3)
    lstm(bp, 2, 5, "full")
    marked = {
        name: np.full(values.shape, k) + np.arange(values.size).reshape(values.shape) / 256
        for k, (name, values) in enumerate(bp.parameters.items())
    }
    for name, values in marked.items():
        bp.parameters[name] = values
    for name, values in marked.items():
        np.testing.assert_array_equal(bp.parameters[name], values)


ELEMENTWISE = {  # how many operands
    1: "negative tanh sigmoid relu exp log sqrt square abs stop_gradient",
    2: "add subtract multiply divide maximum minimum less huber binary_cross_entropy_with_logits",
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "operands"),
    [(name, count) for count, names in ELEMENTWISE.items() for name in names.split()],
)
def test_every_elementwise_operation_in_a_chain(name: str, operands: int, dtype: str) -> None:
    """Between two others, in more than one block: what its derivative reads is there again."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        inputs = [bp.placeholder((5, 64)) for _ in range(operands)]
        return *inputs, 0.5 - apply(name, *(x + 0.1 for x in inputs))

    def answer() -> tuple[Any, dict[str, Any]]:
        bp = bptt.BPTT(seed=1, dtype=dtype)
        *inputs, y = bp.generate_graphs(frame, num_loops=7)[bp.DEEP]
        rng = np.random.default_rng(4)  # positive: log and sqrt are among them
        data = [rng.uniform(0.1, 2, (7, *x.shape)) for x in inputs]
        feed = bp.generate_feed_dict(bp.DEEP, data, operands)
        loss = bptt.reduce_sum(y)
        return compiled(bp, loss), frames.gradients_of_everything(bp, loss, feed) | {
            "y": bp.run(y, feed)
        }

    with as_traced():
        _, expected = answer()
    stages, found = answer()
    if name not in ("stop_gradient", "less"):
        assert stages[0] == (["chain"], False)
    tolerance = {"float64": 1e-14, "float32": 1e-5}[dtype]
    for what, array in found.items():
        scale = np.abs(expected[what]).max()
        assert scale > 0 or name in ("stop_gradient", "less"), what
        assert np.abs(array - expected[what]).max() <= tolerance * scale, what


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("rows", [2, 16])
@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("of_last", ["all", "stopped", "none"])
def test_a_chain_that_begins_a_gradient(of_last: str, cycle: bool, rows: int, lanes: int) -> None:
    """A chain that reads all rows of a product writes their gradient, also where none comes."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((2, lanes)), bp.placeholder((rows, lanes))
        past = bp.get_past_variable("h", np.zeros((rows, lanes))) if cycle else None
        sums = bptt.layers.dense(bp, x, 3 * rows, name="sums")
        if past is not None:
            sums = sums + bptt.layers.dense(bp, past, 3 * rows, name="back")
        a, b, c = (sums[k * rows : (k + 1) * rows] for k in range(3))
        stopped = bptt.stop_gradient(c)
        c = {"all": c, "stopped": stopped, "none": stopped * 0.0}[of_last]
        h = bptt.tanh(a) * bptt.sigmoid(b) + bptt.tanh(c)
        if past is not None:
            h = bp.name_variable("h", h)
        return x, y, h

    def answer() -> dict[str, Any]:
        bp = bptt.BPTT(seed=5)
        x, y, h = bp.generate_graphs(frame, num_loops=6)[bp.DEEP]
        rng = np.random.default_rng(6)
        data = [rng.normal(size=(6, *each.shape)) for each in (x, y)]
        loss = bptt.reduce_mean(bptt.square(h - y))
        found = frames.gradients_of_everything(bp, loss, bp.generate_feed_dict(bp.DEEP, data, 2))
        again = frames.gradients_of_everything(bp, loss, bp.generate_feed_dict(bp.DEEP, data, 2))
        for what, array in found.items():  # what the first window left behind is not read
            np.testing.assert_array_equal(array, again[what])
        return found

    with as_traced():
        expected = answer()
    for what, array in answer().items():
        np.testing.assert_allclose(array, expected[what], rtol=1e-5, atol=1e-7, err_msg=what)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_a_weight_that_meets_two_values_of_one_sum(rows: int, lanes: int) -> None:
    """Its gradient is the sum of what comes from either."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, z = bp.placeholder((2, lanes)), bp.placeholder((2, lanes))
        w = bp.get_variable("W", (rows, 2))
        return x, z, bptt.tanh(w @ x + w @ z)

    def answer() -> dict[str, Any]:
        bp = bptt.BPTT(seed=7)
        x, z, h = bp.generate_graphs(frame, num_loops=5)[bp.DEEP]
        rng = np.random.default_rng(8)
        data = [rng.normal(size=(5, *each.shape)) for each in (x, z)]
        feed = bp.generate_feed_dict(bp.DEEP, data, 2)
        return frames.gradients_of_everything(bp, bptt.reduce_sum(h), feed)

    with as_traced():
        expected = answer()
    for what, array in answer().items():
        np.testing.assert_allclose(array, expected[what], rtol=1e-5, atol=1e-6, err_msg=what)


FROZEN: dict[str, list[str]] = {
    "two gates": ["*/W_xi", "*/W_hi", "*/b_i", "*/W_xc"],
    "a matrix of all gates": ["*/W_h?"],
    "a bias": ["*/b_f"],
    "peepholes": ["*/W_ci", "*/W_co"],
    "all but a gate": ["*/*[!f]"],
    "the cell": ["lstm_layer_0/*"],
}


@pytest.mark.parametrize("clip", [None, bptt.ClipByGlobalNorm(0.01)], ids=["free", "clipped"])
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("which", FROZEN)
def test_frozen_weights_among_stacked_ones(which: str, lanes: int, clip: Any) -> None:
    """They stay, bit by bit; the others move as they do without passes."""
    rng = np.random.default_rng(5)
    data = [rng.uniform(-1, 1, (12, rows, lanes)) for rows in (3, 2)]

    def trained() -> tuple[Any, dict[str, Any], dict[str, Any]]:
        bp = bptt.BPTT(seed=2, dtype="float64")
        loss = lstm(bp, lanes, 5, "full")
        frames.draw_weights(bp, np.random.default_rng(6))
        before = {name: np.array(values) for name, values in bp.parameters.items()}
        train = bp.minimize(loss, bptt.SGD(0.1, 0.5), clip, frozen=FROZEN[which])
        bp.fit(train, data, steps=6)
        stages = compiled(bp, loss, train.frozen)
        moved = {name: bp.parameters[name] - values for name, values in before.items()}
        return stages, moved, {name: moved[name] for name in train.frozen}

    with as_traced():
        plain, expected, _ = trained()
    stages, moved, frozen = trained()
    assert "affine" not in [name for names, _ in plain for name in names]
    assert (["affine", "chain", "affine", "chain"], True) in stages
    assert frozen and len(frozen) < len(moved)
    for name, change in moved.items():
        if name in frozen:
            assert not change.any(), name
        else:
            scale = np.abs(expected[name]).max()
            assert scale > 0, name
            assert np.abs(change - expected[name]).max() <= 1e-12 * scale, name


def wild(width: int, lanes: int) -> Any:
    """All that passes look at: broadcasting, slices, tied weights, chains that are too long."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, scale = bp.placeholder((3, lanes)), bp.placeholder((1, 1))
        row, column = bp.placeholder((1, lanes)), bp.placeholder((width, 1))
        past = bp.get_past_variable("h", np.full((width, 1), 0.1))
        W, U = bp.get_variable("W", (2 * width, 3)), bp.get_variable("U", (width, width))
        a, b = bp.get_variable("a", (width, 1)), bp.get_variable("b", (width, 1))
        z = W @ x
        i, g = bptt.sigmoid(z[:width] + U @ past), z[width:]
        i = i * bptt.tanh(z[width : width + 1] + past)  # one row, spread over all
        s = U @ bptt.tanh(g) + U @ past + a + b  # the same weight twice, two biases
        s = i * bptt.maximum(s, row) / (2 + bptt.square(column)) + b * s * scale
        h = bp.name_variable("h", 0.5 * past + bptt.tanh(s) * bptt.stop_gradient(i))
        v = h
        for k in range(50):  # more than one chain holds
            v = v + (0.01 * bptt.tanh(v) if k % 3 else bptt.square(0.1 * v))
        return x, scale, row, column, h, s, v

    return frame


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lanes", [1, 3, 16])
@pytest.mark.parametrize("width", [1, 5, 16, 48, 300])
def test_the_numbers_stay(width: int, lanes: int, dtype: str) -> None:
    def answer() -> dict[str, Any]:
        bp = bptt.BPTT(seed=1, dtype=dtype)
        graph = bp.generate_graphs(wild(width, lanes), num_loops=5)[bp.DEEP]
        rng = np.random.default_rng(width)
        frames.draw_weights(bp, rng, 0.5 / np.sqrt(width))
        data = [rng.uniform(-1, 1, (5, *symbol.shape)) for symbol in graph[:4]]
        feed = bp.generate_feed_dict(bp.DEEP, data, 4)
        loss = bptt.reduce_mean(graph[-1] * graph[-2]) + bptt.reduce_sum(bptt.square(graph[-3]))
        found = frames.gradients_of_everything(bp, loss, feed)
        found |= {f"output {k}": v for k, v in enumerate(bp.run(list(graph[4:]), feed))}
        return found

    with as_traced():
        expected = answer()
    tolerance = {"float64": 1e-12, "float32": 1e-4}[dtype]
    for what, array in answer().items():
        scale = np.abs(expected[what]).max()
        assert scale > 0, what
        assert np.abs(array - expected[what]).max() <= tolerance * scale, what


def test_copies_and_checkpoints_know_nothing_of_passes(tmp_path: Any) -> None:
    """What a net with passes saved, one without loads, and the other way round."""
    frame = wild(5, 2)
    made = bptt.BPTT(seed=1)
    made.generate_graphs(frame, num_loops=5)
    made.save(tmp_path / "with")
    with as_traced():
        plain = bptt.load(tmp_path / "with", frame)
        plain.save(tmp_path / "without")
    again = bptt.load(tmp_path / "without", frame)
    for name, values in made.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], values)
