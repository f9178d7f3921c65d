"""Exported ONNX models in ONNX Runtime, side by side with bptt: streams, windows, any frame.

`pytest tests/test_interchange_*.py -q -s` prints the largest differences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import bptt
import frames
from bptt import _core, interchange
from bptt.interchange import onnx as exporter
from bptt.interchange.cells import PRIMITIVES
from test_random_frames import Drawn, examples, numbers, programs

onnx = pytest.importorskip("onnx", reason="there is no package onnx for this platform")
ort = pytest.importorskip("onnxruntime", reason="there is no ONNX Runtime for this platform")

STREAM = 1000
BATCH, FEATURES = 3, 4
BOUND = {"float32": 3e-5, "float64": 1e-13}  # the cycle multiplies roundings by a hundred


def largest(got: Any, expected: Any) -> float:
    """The largest difference, in units of 1 or of the largest number expected if that is more."""
    assert np.shape(got) == np.shape(expected)
    size = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(np.asarray(got) - np.asarray(expected)).max()) / size


def session(path: Path) -> Any:
    """The model, checked by the standard's own rules, shapes included."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def cycle(bp: bptt.BPTT, x: Any) -> Any:
    """Two cells that feed each other, a delay line of two frames, and a running mean."""
    far = bp.get_past_variable("far", np.zeros((2, 1)))
    near = bp.get_past_variable("near", np.full((2, 1), 0.25))
    bp.name_variable("far", near)
    mean = bp.get_past_variable("mean", np.zeros((FEATURES, 1)))
    bp.name_variable("mean", 0.9 * mean + 0.1 * x)
    back = bp.get_past_variable("back", np.zeros((3, 1)))
    _, h = bptt.layers.lstm(bp, bptt.concat([x - mean, back, far]), 3, peephole="diagonal")
    bp.name_variable("back", bptt.layers.rnn(bp, h, 3))
    bp.name_variable("near", bptt.reduce_mean(bptt.square(h), axis=0) * np.ones((2, 1)))
    return bptt.concat([h, bptt.exp(-bptt.abs(far))])


NETS = {
    "rnn": lambda bp, x: bptt.layers.rnn(bp, bptt.layers.rnn(bp, x, 7), 5, output=True),
    "lstm": lambda bp, x: bptt.layers.lstm(bp, bptt.layers.lstm(bp, x, 7)[1], 5)[1],
    "lstm, diagonal peepholes": lambda bp, x: bptt.layers.lstm(
        bp, bptt.layers.lstm(bp, x, 7, peephole="diagonal")[1], 5, peephole="diagonal"
    )[1],
    "lstm, full peepholes": lambda bp, x: bptt.layers.lstm(
        bp, bptt.layers.lstm(bp, x, 7, peephole="full")[1], 5, peephole="full"
    )[1],
    "lstm, whose cell is seen": lambda bp, x: bptt.concat(bptt.layers.lstm(bp, x, 6)),
    "gru": lambda bp, x: bptt.layers.gru(bp, bptt.layers.gru(bp, x, 7), 5),
    "gru, reset before": lambda bp, x: bptt.layers.gru(
        bp, bptt.layers.gru(bp, x, 7, reset="before"), 5, reset="before"
    ),
    "lstm, projected": lambda bp, x: bptt.layers.lstm(
        bp, bptt.layers.lstm(bp, x, 7, projection=4)[1], 5, projection=3, peephole="diagonal"
    )[1],
    "lstm, coupled": lambda bp, x: bptt.layers.lstm(bp, x, 7, coupled=True)[1],
    "lstm, normalised": lambda bp, x: bptt.layers.lstm(bp, x, 7, layer_norm=True)[1],
    "rnn with relu": lambda bp, x: bptt.layers.rnn(bp, 0.3 * x, 6, activation="relu"),
    "cycle": cycle,
}


def net(name: str, dtype: str) -> bptt.BPTT:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((FEATURES, BATCH), name="x")
        return x, bptt.layers.dense(bp, NETS[name](bp, x), 2)

    bp = bptt.BPTT(seed=0, dtype=dtype)
    bp.generate_graphs(frame, num_loops=8)
    frames.draw_weights(bp, np.random.default_rng(1))
    return bp


def stream(dtype: str, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(STREAM, FEATURES, BATCH)).astype(dtype)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", NETS)
def test_streams_and_windows(
    name: str, dtype: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Frame by frame with the state carried from one to the next, and in one long window."""
    bp = net(name, dtype)
    frames.draw_state(bp, rng)
    bp.copy_state_forward()
    start = dict(bp.state["shallow"])
    x = stream(dtype, rng)
    expected = bp.predict([x])
    final = dict(bp.state["shallow"])

    interchange.to_onnx(bp, tmp_path / "step.onnx")
    step = session(tmp_path / "step.onnx")
    assert [i.name for i in step.get_inputs()] == ["x", *start]
    assert [o.name for o in step.get_outputs()] == ["output", *(f"{n}_next" for n in start)]
    state, outputs = start, []
    for x_t in x:
        y_t, *state_next = step.run(None, {"x": x_t, **state})
        outputs.append(y_t)
        state = dict(zip(start, state_next, strict=True))
    stepped = max(largest(outputs, expected), *(largest(state[n], final[n]) for n in final))

    interchange.to_onnx(bp, tmp_path / "window.onnx", "deep")
    y, *last = session(tmp_path / "window.onnx").run(None, {"x": x, **start})
    whole = max(largest(y, expected), *map(largest, last, final.values()))
    print(f"\nONNX Runtime, {name}, {dtype}, {STREAM} frames: ", end="")
    print(f"largest difference {stepped:.1e} frame by frame, {whole:.1e} as one window")
    assert max(stepped, whole) <= BOUND[dtype]


def test_own_operators_where_they_fit(tmp_path: Path) -> None:
    """In both modes; a window in which the cell is seen, or a larger cycle, is a Scan."""
    expected = {
        "rnn": ({"RNN"}, {"RNN"}),
        "lstm": ({"LSTM"}, {"LSTM"}),
        "lstm, diagonal peepholes": ({"LSTM"}, {"LSTM"}),
        "lstm, full peepholes": (set(), {"Scan"}),
        "lstm, whose cell is seen": ({"LSTM"}, {"Scan"}),
        "gru": ({"GRU"}, {"GRU"}),
        "gru, reset before": ({"GRU"}, {"GRU"}),
        "rnn with relu": ({"RNN"}, {"RNN"}),
        "cycle": ({"RNN", "LSTM"}, {"Scan"}),
    }
    for name, modes in expected.items():
        for depth, own in zip(("shallow", "deep"), modes, strict=True):
            interchange.to_onnx(net(name, "float32"), tmp_path / "net.onnx", depth)
            found = operators(tmp_path / "net.onnx") & {"RNN", "LSTM", "GRU", "Scan", "Loop"}
            assert found == own, (name, depth)


@pytest.mark.parametrize("dtype", BOUND)
def test_what_is_dropped_and_what_stays(
    dtype: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    """One frame is the mean of both, with a learned start; a window is given its noise."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((FEATURES, BATCH), name="x")
        kept = {"dropout": 0.3, "recurrent_dropout": 0.4, "initial_state": "learned"}
        h = bptt.layers.gru(bp, x, 6, zoneout=0.2, **kept)
        return x, bptt.layers.lstm(bp, h, 5, layer_norm=True, zoneout=(0.5, 0.1), **kept)[1]

    bp = bptt.BPTT(seed=0, dtype=dtype)
    bp.generate_graphs(frame, num_loops=STREAM)
    frames.draw_weights(bp, np.random.default_rng(1))
    bp.reset_state("deep")
    bp.reset_state("shallow")
    x = stream(dtype, rng)

    interchange.to_onnx(bp, tmp_path / "step.onnx")
    step, state = session(tmp_path / "step.onnx"), dict(bp.state["shallow"])
    for x_t, y_t in zip(x, bp.predict([x]), strict=True):
        y, *after = step.run(None, {"x": x_t, **state})
        state = dict(zip(state, after, strict=True))
        assert largest(y, y_t) <= BOUND[dtype]

    noise = [
        node.outputs[0] for node in bp._net.trace("deep").graph.nodes if node.operation == "uniform"
    ]
    trace = bp._net.trace("deep")
    symbols = [bptt.Symbol(trace, value, trace.graph.shape(value)) for value in noise]
    feed = bp.generate_feed_dict("deep", [x], 1)
    expected, *drawn = bp.run([bp.graphs["deep"][1], *symbols], feed)
    interchange.to_onnx(bp, tmp_path / "window.onnx", "deep", noise="feed")
    given = {f"noise_{n}": numbers for n, numbers in enumerate(drawn)}
    window = session(tmp_path / "window.onnx")
    y, *_ = window.run(None, {"x": x, **given, **dict(bp.state["deep"])})
    assert largest(y, expected) <= 100 * BOUND[dtype]


def test_starting_values_are_in_the_file(tmp_path: Path) -> None:
    bp = net("cycle", "float32")
    interchange.to_onnx(bp, tmp_path / "net.onnx")
    properties = {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}
    starts = json.loads(properties["starting_values"])
    assert starts.keys() == bp.state["shallow"].keys()
    for name, start in starts.items():
        np.testing.assert_array_equal(np.float32(start), bp.state["shallow"][name])


def check_any_frame(drawn: Drawn, dtype: str, folder: Path) -> None:
    """All that a frame returned, noise fed: a deep window, and its frames one by one."""
    bp = bptt.BPTT(seed=drawn.seed, dtype=dtype)
    frame = drawn.functions["frame"]
    bp.generate_graphs(lambda bp, depth: frame(bp, depth, bptt), num_loops=drawn.frames)
    for salt, (name, weight) in enumerate(bp.parameters.items()):
        bp.parameters[name] = numbers(drawn, weight.shape, salt)
    for salt, (name, state) in enumerate(bp.state["deep"].items(), start=1000):
        bp.state["deep"][name] = numbers(drawn, state.shape, salt)
    start = dict(bp.state["deep"])
    data = [
        numbers(drawn, (drawn.frames, *shape), salt).astype(dtype)
        for salt, shape in enumerate(drawn.placeholders, start=2000)
    ]
    handles = bp.generate_output_definitions("deep")
    symbols = bp.graphs["deep"]
    values = bp.run([*symbols, *handles], bp.generate_feed_dict("deep", data, len(data)))
    outputs, final = (
        values[: len(symbols)],
        dict(zip(sorted(start), values[len(symbols) :], strict=True)),
    )
    noise = outputs[len(data) : len(data) + drawn.noises]
    given = {s.name: x for s, x in zip(symbols, data, strict=False)}
    given |= {f"noise_{n}": x for n, x in enumerate(noise)}

    def compare(what: str, got: Any, expected: Any) -> None:
        assert largest(got, expected) <= BOUND[dtype] * 100, what

    for depth in ("deep", "shallow"):
        path = folder / f"{depth}.onnx"
        wanted = bp.graphs[depth]
        interchange.to_onnx(bp, path, depth, outputs=wanted, noise="feed")
        model = session(path)
        names = [o.name for o in model.get_outputs()]
        states = {n: x for n, x in start.items() if f"{n}_next" in names}

        def run(fed: dict[str, Any], model: Any = model, names: Any = names) -> dict[str, Any]:
            asked = {i.name for i in model.get_inputs()}
            results = model.run(None, {n: x for n, x in fed.items() if n in asked})
            return dict(zip(names, results, strict=True))

        if depth == "deep":
            results = run({**given, **states})
            steps = None
        else:
            steps = []
            for t in range(drawn.frames):
                results = run({**{n: x[t] for n, x in given.items()}, **states})
                states = {n: results[f"{n}_next"] for n in states}
                steps.append(results)
        for n, expected in enumerate(outputs):
            name = "output" if len(outputs) == 1 else f"output_{n}"
            got = results[name] if steps is None else np.stack([step[name] for step in steps])
            compare(f"{depth} output {n}", got, np.broadcast_to(expected, got.shape))
        for name in states:
            compare(f"{depth} {name}", results[f"{name}_next"], final[name])


@examples(30)
@given(programs())
def test_any_frame(tmp_path_factory: Any, drawn: Drawn) -> None:
    check_any_frame(drawn, "float64", tmp_path_factory.mktemp("any"))


@pytest.mark.parametrize(
    "operation",
    [
        "rnn",
        "lstm",
        "gru",
        "less",
        "lstm_normalised",
        "expand",
        "huber",
        "softmax",
        "log_softmax",
        "embedding",
        "binary_cross_entropy_with_logits",
        "softmax_cross_entropy",
        "softmax_cross_entropy_of_symbols",
    ],
)
def test_frames_with(operation: str, tmp_path: Path) -> None:
    @examples(6)
    @given(programs(operation))
    def any_frame(drawn: Drawn) -> None:
        check_any_frame(drawn, "float64", tmp_path)

    any_frame()


def test_every_operation_has_a_form() -> None:
    """But for window values, which no frame and no sequence model has."""
    known = {*exporter._PRIMITIVES, *exporter._CELLS, *exporter._NOISE, *PRIMITIVES}
    registered = {operation.name for operation in _core.operations()}
    assert registered - known == {"window_sum", "window_mean"}


def noisy(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 400))
    return x, x + bp.random_normal((2, 400), 3.0, 0.5) + bp.random_uniform((2, 1), -1.0, 2.0)


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_noise(depth: str, tmp_path: Path) -> None:
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(noisy, num_loops=3)
    x = np.zeros((2, 400) if depth == "shallow" else (5, 2, 400), np.float32)
    interchange.to_onnx(bp, tmp_path / "draw.onnx", depth)
    draw = session(tmp_path / "draw.onnx")
    first, second = (draw.run(None, {"placeholder_0": x})[0] for _ in range(2))
    assert first.shape == x.shape
    assert np.abs(first - second).max() > 0.1  # new at every call, lane and feature
    assert abs(first.std(axis=-1).mean() - 0.5) < 0.06
    assert first.min() > -1 and first.max() < 8  # -1 ... 2, and 3 with six deviations of 0.5
    assert np.unique(first).size > 0.99 * first.size
    interchange.to_onnx(bp, tmp_path / "mean.onnx", depth, noise="mean")
    (mean,) = session(tmp_path / "mean.onnx").run(None, {"placeholder_0": x})
    np.testing.assert_allclose(mean, 3.5)


def test_a_frame_without_placeholders(tmp_path: Path) -> None:
    """A window then has to be told how long it is."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        a = bp.get_past_variable("a", np.ones((1, 1)))
        return bp.name_variable("a", 0.5 * a)

    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=2)
    interchange.to_onnx(bp, tmp_path / "net.onnx", "deep")
    model = session(tmp_path / "net.onnx")
    y, last = model.run(None, {"a": np.ones((1, 1), np.float32), "time": np.array([4])})
    np.testing.assert_array_equal(y.ravel(), [0.5, 0.25, 0.125, 0.0625])
    assert last == 0.0625


def test_a_bad_call(tmp_path: Path) -> None:
    bp = net("rnn", "float32")
    out = bp.graphs["deep"][-1]
    loss = bptt.reduce_mean(out)
    for call, message in {
        (lambda: interchange.to_onnx(bp, tmp_path / "a", "wide"), "depth"),
        (lambda: interchange.to_onnx(bp, tmp_path / "a", noise="loud"), '"draw"'),
        (
            lambda: interchange.to_onnx(bp, tmp_path / "a", "deep", outputs=[loss]),
            "every deep frame",
        ),
        (
            lambda: interchange.to_onnx(bp, tmp_path / "a", outputs=bp.graphs["deep"][-1:]),
            "shallow",
        ),
        (lambda: interchange.to_onnx(bp, 3), "path"),
        (lambda: interchange.to_onnx(object(), tmp_path / "a"), "expected a BPTT"),
    }:
        with pytest.raises(bptt.UsageError, match=message):
            call()
    assert not list(tmp_path.iterdir())
