"""What a trace makes of a frame: names, scopes, sharing, and the stages that a program runs in."""

from typing import Any

import numpy as np
import pytest

import bptt
from bptt import _core
from frames import Frame
from rounding import assert_identical, assert_rounding


def names(frame: Frame) -> tuple[list[str], list[str]]:
    """Weights and recurrent state of a frame, sorted."""
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=2)
    return sorted(bp.parameters), sorted(bp.state["deep"])


# ---- names


def test_the_origins_constants() -> None:
    assert bptt.BPTT.DEEP == "deep"
    assert bptt.BPTT.SHALLOW == "shallow"
    assert bptt.BPTT.MODEL_NAME == "unrolled_model"
    assert bptt.BPTT.LOOP_SCOPE == "unroll"


@pytest.mark.parametrize("output", [False, True])
def test_names_of_the_rnn(output: bool) -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        return x, bptt.layers.rnn(bp, x, 3, output=output)

    weights, state = names(frame)
    expected = ["W_aa", "W_ax", "b_a"] + (["W_ya", "b_y"] if output else [])
    assert weights == sorted(f"rnn_layer_0/{name}" for name in expected)
    assert state == ["hidden-0"]


@pytest.mark.parametrize(
    ("peephole", "shape"), [(None, None), ("full", (3, 3)), ("diagonal", (3, 1))]
)
def test_names_of_the_lstm(peephole: str | None, shape: tuple[int, int] | None) -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        return x, bptt.layers.lstm(bp, x, 3, peephole=peephole)[1]

    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=2)
    expected = {f"lstm_layer_0/W_x{gate}": (3, 2) for gate in "ifco"}
    expected |= {f"lstm_layer_0/W_h{gate}": (3, 3) for gate in "ifco"}
    expected |= {f"lstm_layer_0/b_{gate}": (3, 1) for gate in "ifco"}
    if shape:
        expected |= {f"lstm_layer_0/W_c{gate}": shape for gate in "ifo"}  # no W_cc
    assert {name: bp.parameters[name].shape for name in bp.parameters} == expected
    assert sorted(bp.state["deep"]) == ["cell-0", "hidden-0"]


def test_one_counter_numbers_all_recurrent_layers() -> None:
    """Also in the second trace, which begins to count anew; None is one more than the largest."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        h = bp.placeholder((2, 1))
        x = h
        h = bptt.layers.rnn(bp, h, 2)
        _, h = bptt.layers.lstm(bp, h, 2)
        h = bptt.layers.rnn(bp, h, 2, layer_index=5)
        _, h = bptt.layers.lstm(bp, h, 2)
        return x, h

    weights, state = names(frame)
    assert {name.split("/")[0] for name in weights} == {
        "rnn_layer_0",
        "lstm_layer_1",
        "rnn_layer_5",
        "lstm_layer_6",
    }
    assert state == ["cell-1", "cell-6", "hidden-0", "hidden-1", "hidden-5", "hidden-6"]


def test_names_of_dense_layers() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        h = bptt.layers.dense(bp, x, 3)
        h = bptt.layers.dense(bp, h, 4, name="middle")
        h = bptt.layers.dense(bp, h, 2)
        return x, bptt.layers.dense(bp, h, 1, name="")

    weights, state = names(frame)
    assert weights == sorted(
        ["dense_0/W", "dense_0/b", "middle/W", "middle/b", "dense_1/W", "dense_1/b", "W", "b"]
    )
    assert state == []


def test_scopes_nest() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        with bp.variable_scope("a"):
            first = bp.get_variable("w", (1, 1))
            with bp.variable_scope("b"):
                second = bp.get_variable("w", (1, 1))
                h = bptt.layers.rnn(bp, x, 1)
            third = bp.get_variable("v", (1, 1))
        return x, first + second + third + bp.get_variable("w", (1, 1)) + h

    weights, _ = names(frame)
    layer = [f"a/b/rnn_layer_0/{name}" for name in ("W_aa", "W_ax", "b_a")]
    assert weights == sorted(["a/w", "a/b/w", "a/v", "w", *layer])


def test_a_scope_ends_with_an_error_inside() -> None:
    bp = bptt.BPTT(seed=0)

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        try:
            with bp.variable_scope("left"):
                raise KeyError("inside")
        except KeyError:
            pass
        return x, x * bp.get_variable("w", (1, 1))

    bp.generate_graphs(frame, num_loops=2)
    assert list(bp.parameters) == ["w"]


# ---- what a frame returns


def test_graphs_are_what_the_frame_returned() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 3), name="input")
        assert x.shape == (2, 3)
        returned[depth] = (x, x + 1, x - 1)
        return returned[depth]

    returned: dict[str, Any] = {}
    bp = bptt.BPTT(seed=0)
    graphs = bp.generate_graphs(frame, num_loops=2)
    assert set(graphs) == {"deep", "shallow"}
    for depth in graphs:
        for symbol, made, kept in zip(
            graphs[depth], returned[depth], bp.graphs[depth], strict=True
        ):
            assert symbol is made is kept


def test_the_frame_is_traced_once_per_mode() -> None:
    calls = []

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        calls.append(depth)
        x = bp.placeholder((1, 1))
        return x, bptt.layers.rnn(bp, x, 2)

    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=7)
    bp.predict([np.zeros(9)])
    assert calls == ["deep", "shallow"]


def test_shapes_of_symbols() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((4, 3))
        column = bp.get_variable("column", (4, 1))
        row = bp.constant(np.ones((1, 3)))
        assert (x + column).shape == (4, 3)
        assert (column * row).shape == (4, 3)
        assert (2.0 - x).shape == (np.ones((4, 1)) / x).shape == (4, 3)
        assert (bp.get_variable("w", (5, 4)) @ x).shape == (5, 3)
        assert bptt.transpose(x).shape == (3, 4)
        assert bptt.concat([x, x]).shape == (8, 3)
        assert bptt.concat([x, column], axis=1).shape == (4, 4)
        assert x[1:3].shape == (2, 3)
        assert x[-1:].shape == (1, 3)
        assert bptt.reduce_mean(x, axis=0).shape == (1, 3)
        assert bptt.reduce_sum(x, axis=1).shape == (4, 1)
        assert bptt.reduce_sum(x, axis=(0, 1)).shape == (1, 1)
        assert bptt.reduce_mean(x).shape == (1, 1)
        assert bp.random_uniform((2, 5)).shape == (2, 5)
        return (x,)

    bptt.BPTT(seed=0).generate_graphs(frame, num_loops=2)


# ---- sharing


def test_both_modes_share_the_weights() -> None:
    """Weights set or trained deep are the ones that stream."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        return x, bp.get_variable("w", (1, 1)) * x

    bp = bptt.BPTT(seed=0, dtype="float64")
    graphs = bp.generate_graphs(frame, num_loops=2)
    assert list(bp.parameters) == ["w"]
    bp.parameters["w"] = [[3.0]]
    assert bp.step(2.0) == 6.0
    loss = bptt.reduce_mean(graphs["deep"][1])
    train = bp.minimize(loss, bptt.Adam(0.5))
    bp.fit(train, [np.ones(2)], steps=1)
    assert bp.parameters["w"][0, 0] < 3.0
    assert bp.step(2.0) == 2.0 * bp.parameters["w"]


def test_same_name_same_weight_within_a_trace(rng: np.random.Generator) -> None:
    """Two dense calls of one name: the gradients of both uses add up."""

    def shared(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        h = bptt.layers.dense(bp, x, 2, activation=bptt.tanh, name="same")
        return x, bptt.layers.dense(bp, h, 2, activation=bptt.tanh, name="same")

    def apart(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        h = bptt.layers.dense(bp, x, 2, activation=bptt.tanh, name="first")
        return x, bptt.layers.dense(bp, h, 2, activation=bptt.tanh, name="second")

    w, b, data = rng.normal(size=(2, 2)), rng.normal(size=(2, 1)), rng.normal(size=(3, 2))
    gradients = []
    for frame, layers in ((shared, ["same"]), (apart, ["first", "second"])):
        bp = bptt.BPTT(seed=0, dtype="float64")
        graphs = bp.generate_graphs(frame, num_loops=3)
        assert sorted(bp.parameters) == sorted(f"{name}/{kind}" for name in layers for kind in "Wb")
        for name in layers:
            bp.parameters[f"{name}/W"], bp.parameters[f"{name}/b"] = w, b
        loss = bptt.reduce_mean(bptt.square(graphs["deep"][1]))
        gradients.append(bp.gradients(loss, bp.generate_feed_dict("deep", [data], 1)))
    for kind in "Wb":
        total = gradients[1][f"first/{kind}"] + gradients[1][f"second/{kind}"]
        assert_rounding(gradients[0][f"same/{kind}"], total)


def test_weights_depend_on_the_seed_and_their_name_alone() -> None:
    """Another layer before it, another order: the weight is drawn the same."""

    def one(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        return x, bp.get_variable("b", (3, 4))

    def two(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        return x, bp.get_variable("a", (3, 4)) + bp.get_variable("b", (3, 4))

    drawn = []
    for frame, seed in ((one, 0), (two, 0), (two, 1)):
        bp = bptt.BPTT(seed=seed)
        bp.generate_graphs(frame, num_loops=2)
        drawn.append(dict(bp.parameters))
    assert_identical(drawn[0]["b"], drawn[1]["b"])
    assert (drawn[1]["b"] != drawn[2]["b"]).all()
    assert (drawn[1]["a"] != drawn[1]["b"]).all()


def test_initializers() -> None:
    """The layers' defaults, one initializer for a whole layer, an array as initializer."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((20, 1))
        _, h = bptt.layers.lstm(bp, x, 30, peephole="diagonal")
        h = bptt.layers.rnn(bp, h, 40)
        h = bptt.layers.dense(bp, h, 50, initializer=bptt.initializers.random_normal(1.0, 0.1))
        return x, h + bp.get_variable("given", (50, 1), np.arange(50.0).reshape(50, 1))

    bp = bptt.BPTT(seed=0, dtype="float64")
    bp.generate_graphs(frame, num_loops=2)
    w = dict(bp.parameters)
    limit = np.sqrt(6 / (30 + 20))  # Glorot and Bengio (2010), equation 16
    assert 0.95 * limit < np.abs(w["lstm_layer_0/W_xi"]).max() <= limit
    for square in ("lstm_layer_0/W_hi", "rnn_layer_1/W_aa"):
        np.testing.assert_allclose(w[square] @ w[square].T, np.eye(len(w[square])), atol=1e-12)
    assert not w["lstm_layer_0/b_i"].any()
    assert (w["lstm_layer_0/b_f"] == 1).all()
    assert not w["lstm_layer_0/W_ci"].any()
    assert abs(w["dense_0/W"].mean() - 1.0) < 0.02
    assert abs(w["dense_0/b"].mean() - 1.0) < 0.1
    assert_identical(w["given"], np.arange(50.0).reshape(50, 1))


# ---- time-constant values


def test_a_time_constant_value_is_held_once() -> None:
    """tanh of a weight takes no more memory in a long window than in a short one."""

    def memory(frames: int, of_weight: bool) -> int:
        graph, weights = _core.Graph(), _core.Weights64()
        weights.declare("V", np.ones((40, 30)))
        x = graph.placeholder(30, 1)
        v = graph.variable("V", 40, 30)
        for _ in range(5):
            (v,) = graph.append("tanh", [v])
        assert graph.extent(v) == "constant"
        if not of_weight:
            return _core.Program64(graph, weights, frames, [x]).memory
        (h,) = graph.append("matmul", [v, x])
        (out,) = graph.append("window_sum", [h])
        assert graph.extent(h) == "frame"
        assert graph.extent(out) == "window"
        return _core.Program64(graph, weights, frames, [h], out).memory

    growth = memory(1001, True) - memory(1, True)
    assert growth < 1000 * 8 * 5 * (40 + 30)  # h, x and their gradients; V alone has 1200 entries


def test_gradient_of_a_time_constant_value_is_summed_over_frames(rng: np.random.Generator) -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((3, 2))
        v = bptt.tanh(bp.get_variable("V", (4, 3)))
        return x, v @ x

    bp = bptt.BPTT(seed=0, dtype="float64")
    _, out = bp.generate_graphs(frame, num_loops=5)["deep"]
    data = rng.normal(size=(5, 3, 2))
    gradients = bp.gradients(bptt.reduce_sum(out), bp.generate_feed_dict("deep", [data], 1))
    slope = (1 - np.tanh(bp.parameters["V"]) ** 2) * data.sum(axis=(0, 2))
    assert_rounding(gradients["V"], slope)


# ---- stages


def stages_of(
    graph: _core.Graph, weights: Any, frames: int, fetches: list[int], loss: int | None = None
) -> dict[str, bool]:
    """Operation name -> whether it is stepped frame by frame; a frame holds each name once."""
    found: dict[str, bool] = {}
    program = _core.Program64(graph, weights, frames, fetches, loss, passes=False)
    for operations, stepwise in program.stages:
        for name in operations:
            assert name not in found
            found[name] = stepwise
    return found


def test_only_cycles_are_stepped() -> None:
    """Dense layers before and after the recurrence run once over the whole window."""
    graph, weights = _core.Graph(), _core.Weights64()
    weights.declare("V", np.ones((3, 2)))
    x = graph.placeholder(2, 4)
    (before,) = graph.append("relu", [graph.append("matmul", [graph.variable("V", 3, 2), x])[0]])
    past = graph.past("h", 3, 4)
    (scaled,) = graph.append("sigmoid", [past])
    (total,) = graph.append("add", [scaled, before])
    (h,) = graph.append("tanh", [total])
    graph.tie(past, h)
    (after,) = graph.append("exp", [h])
    (loss,) = graph.append("window_sum", [after])
    assert stages_of(graph, weights, 6, [after], loss) == {
        "matmul": False,
        "relu": False,
        "sigmoid": True,
        "add": True,
        "tanh": True,
        "exp": False,
        "window_sum": False,
    }


def test_what_is_constant_in_time_leaves_the_cycle() -> None:
    """tanh of a recurrent weight is computed once for a window, though a cycle reads it."""
    graph, weights = _core.Graph(), _core.Weights64()
    weights.declare("W", np.ones((3, 3)))
    past = graph.past("h", 3, 1)
    (bounded,) = graph.append("tanh", [graph.variable("W", 3, 3)])
    (product,) = graph.append("matmul", [bounded, past])
    (h,) = graph.append("sigmoid", [product])
    graph.tie(past, h)
    assert stages_of(graph, weights, 6, [h]) == {"tanh": False, "matmul": True, "sigmoid": True}


def lstm_graph(feed_back: bool) -> tuple[_core.Graph, Any, int]:
    """An LSTM between two user operations; with `feed_back` its output returns to its input."""
    graph, weights = _core.Graph(), _core.Weights64()
    x = graph.placeholder(2, 1)
    if feed_back:
        back = graph.past("back", 2, 1)
        (seen,) = graph.append("add", [x, back])
    else:
        (seen,) = graph.append("relu", [x])
    c, h = graph.past("c", 3, 1), graph.past("h", 3, 1)
    shapes = {f"W_x{gate}": (3, 2) for gate in "ifco"}
    shapes |= {f"W_h{gate}": (3, 3) for gate in "ifco"}
    shapes |= {f"b_{gate}": (3, 1) for gate in "ifco"}
    variables = []
    for name, shape in shapes.items():
        weights.declare(name, np.ones(shape))
        variables.append(graph.variable(name, *shape))
    new_c, new_h = graph.append("lstm", [seen, c, h, *variables], {"peephole": "none"})
    graph.tie(c, new_c)
    graph.tie(h, new_h)
    (out,) = graph.append("slice", [new_h], {"start": 0, "stop": 2})
    if feed_back:
        graph.tie(back, out)
    return graph, weights, graph.append("exp", [new_h])[0]


def test_a_fused_cell_alone_is_called_with_the_whole_window() -> None:
    graph, weights, out = lstm_graph(feed_back=False)
    assert stages_of(graph, weights, 6, [out]) == {"relu": False, "lstm": False, "exp": False}


def test_a_fused_cell_inside_a_larger_cycle_is_stepped() -> None:
    graph, weights, out = lstm_graph(feed_back=True)
    assert stages_of(graph, weights, 6, [out]) == {
        "add": True,
        "lstm": True,
        "slice": True,
        "exp": False,
    }
