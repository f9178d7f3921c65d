"""Models that PyTorch computed, loaded from their state dictionaries; and the way back.

`data/interchange/record_torch.py` recorded them; nothing here imports PyTorch.
`pytest tests/test_interchange_*.py -q -s` prints the largest differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt.interchange import from_torch, to_torch_state_dict

DATA = Path(__file__).parent / "data" / "interchange"
HEAD = ["core", "head.0", bptt.tanh, "head.2", bptt.sigmoid]
MODELS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "rnn_tanh": (HEAD, {}),
    "rnn_relu": (HEAD, {"nonlinearity": "relu"}),
    "lstm": (HEAD, {}),
    "lstm_projection": (HEAD, {}),
    "gru": (HEAD, {}),
    "gru_without_biases": (["core", "head"], {}),
    "linear": (["0", bptt.relu, "2"], {}),
}
BOUND = {"float32": 2e-5, "float64": 1e-13}
State = dict[str, np.ndarray]


def recorded(name: str) -> tuple[State, np.ndarray, np.ndarray]:
    """A state dictionary, an input and an output, ``(time, features, batch)``."""
    with np.load(DATA / f"torch_{name}.npz") as file:
        state = {k.removeprefix("state/"): file[k] for k in file.files if k.startswith("state/")}
        return state, file["x"].swapaxes(1, 2), file["y"].swapaxes(1, 2)


def difference(bp: bptt.BPTT, x: np.ndarray, y: np.ndarray) -> float:
    """Of a stream and of windows, from a zero state."""
    for depth in ("deep", "shallow"):
        bp.reset_state(depth)
    worst = float(np.abs(bp.predict([x]) - y).max())
    symbols = bp.graphs["deep"]
    for first in range(0, len(x), 10):
        feed = bp.generate_feed_dict("deep", [x[first : first + 10]], 1)
        handles = bp.generate_output_definitions("deep")
        out, *state = bp.run([symbols[-1], *handles], feed)
        bp.save_output_state("deep", state)
        worst = max(worst, float(np.abs(out - y[first : first + 10]).max()))
    return worst


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", MODELS)
def test_outputs(name: str, dtype: str) -> None:
    state, x, y = recorded(name)
    layers, options = MODELS[name]
    bp = from_torch(state, layers=layers, batch=3, num_loops=10, dtype=dtype, **options)
    worst = difference(bp, x, y)
    print(f"\nfrom PyTorch, {name}, {dtype}: largest difference {worst:.1e}")
    assert worst <= BOUND[dtype]


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str) -> None:
    """The same model again: of the two biases, their sum is what counts."""
    state, x, y = recorded(name)
    layers, options = MODELS[name]
    bp = from_torch(state, layers=layers, batch=3, dtype="float64", **options)
    back = to_torch_state_dict(bp, [each for each in layers if isinstance(each, str)])
    biasless = {key for key in back if "bias" in key}
    assert back.keys() - biasless == state.keys() - biasless
    assert state.keys() <= back.keys()
    for key in state:
        if "weight" in key or "head" in key:
            np.testing.assert_array_equal(back[key], state[key])
        assert back[key].shape == state[key].shape
        assert back[key].flags.c_contiguous
    again = from_torch(back, layers=layers, batch=3, num_loops=10, dtype="float64", **options)
    worst = difference(again, x, y)
    print(f"\nto PyTorch and back, {name}, float64: largest difference {worst:.1e}")
    assert worst <= BOUND["float64"]


def test_names_by_default() -> None:
    state, _, _ = recorded("linear")
    bp = from_torch(state, layers=["0", bptt.relu, "2"])
    assert list(to_torch_state_dict(bp)) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_training_goes_on() -> None:
    """The net is ready: input, target and output are in its graphs."""
    state, x, y = recorded("lstm")
    bp = from_torch(state, layers=HEAD, batch=3, num_loops=8)
    _, target, out = bp.graphs["deep"]
    train = bp.minimize(bptt.reduce_mean(bptt.square(out - target)), bptt.Adam(0.01))
    losses = bp.fit(train, [x, 0.5 * y], steps=50).loss
    assert losses[-5:].mean() < 0.5 * losses[:5].mean()


# Modules, in PyTorch's own shape: what `from_torch` asks of one, without PyTorch.


class Module:
    training = False

    def __init__(self, state: State | None = None, **children: Any) -> None:
        self.state, self.named = state or {}, children

    def children(self) -> Any:
        return iter(self.named.values())

    def named_modules(self, prefix: str = "") -> Any:
        yield prefix, self
        for name, each in self.named.items():
            yield from each.named_modules(f"{prefix}.{name}" if prefix else name)

    def state_dict(self) -> State:
        return self.state


def module(kind: str, *args: Any, **attributes: Any) -> Any:
    made = type(kind, (Module,), {})(*args)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def whole(core: Any, state: State) -> Module:
    layers = (module("Linear"), module("Tanh"), module("Linear"), module("Sigmoid"))
    head = Module(**{str(n): each for n, each in enumerate(layers)})
    return Module(state, core=core, head=head)


def test_a_module_knows_its_activations() -> None:
    for name, core in {
        "rnn_relu": module("RNN", nonlinearity="relu"),
        "lstm": module("LSTM", dropout=0.5),
        "gru": module("GRU"),
    }.items():
        state, x, y = recorded(name)
        bp = from_torch(whole(core, state), batch=3, num_loops=10, dtype="float64")
        assert difference(bp, x, y) <= BOUND["float64"]


def test_what_does_not_fit() -> None:
    lstm, _, _ = recorded("lstm")
    rnn, _, _ = recorded("rnn_tanh")
    w = rnn["core.weight_ih_l0"]
    usage: list[tuple[Any, dict[str, Any], str]] = [
        ({**lstm, "core.weight_ih_l0_reverse": w}, {}, "bidirectional"),
        ({"norm.running_mean": w}, {}, "running_mean"),
        ({3: w}, {}, "texts"),
        ({}, {}, "no layer with weights"),
        (7, {}, "state dictionary"),
        (lstm, {"layers": ["core", "head.0"]}, "none of 'head.2'"),
        (lstm, {"layers": ["body"]}, "'core', 'head.0'"),
        (lstm, {"layers": [bptt.exp, "core"]}, "bptt.relu"),
        (rnn, {"nonlinearity": "softsign"}, "nonlinearity"),
        ({"a.weight_ih_l0": w}, {}, "lacks 'weight_hh_l0'"),
        (whole(module("LSTM", dropout=0.5, training=True), lstm), {}, r"eval\(\)"),
        (whole(module("Conv1d"), lstm), {}, "no layer here for core"),
        (whole(module("Dropout", p=0.1, training=True), lstm), {}, r"eval\(\)"),
    ]
    for given, options, message in usage:
        with pytest.raises(bptt.UsageError, match=message):
            from_torch(given, **options)
    for given, message in [
        ({"head.weight": np.ones((3, 2)), "head.bias": np.ones(2)}, "do not fit together"),
        ({"a.weight_ih_l0": np.ones((7, 2)), "a.weight_hh_l0": np.ones((7, 3))}, "do not fit"),
        ({"a.weight": np.ones((3, 2)), "b.weight": np.ones((3, 2))}, "width 3 comes before"),
        ({"a.weight": np.ones(3)}, "shape"),
    ]:
        with pytest.raises(bptt.ShapeError, match=message):
            from_torch(given)


def test_nets_that_pytorch_cannot_hold() -> None:
    def net(build: Any) -> bptt.BPTT:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, 1))
            return x, build(bp, x)

        bp = bptt.BPTT()
        bp.generate_graphs(frame, 1)
        return bp

    layers = bptt.layers
    for build, message in [
        (lambda bp, x: layers.lstm(bp, x, 3, peephole="full")[1], "peepholes"),
        (lambda bp, x: layers.gru(bp, x, 3, reset="before"), "reset"),
        (lambda bp, x: layers.lstm(bp, x, 3)[0], "larger cycle"),
        (lambda bp, x: layers.rnn(bp, x, 2) + x, "no dense layer|operation"),
        (lambda bp, x: bptt.exp(x), "'exp'"),
        (lambda bp, x: layers.dense(bp, x, 2) * x, "'multiply'"),
    ]:
        with pytest.raises(bptt.UsageError, match=message):
            to_torch_state_dict(net(build))
    with pytest.raises(bptt.UsageError, match="expected 1 names"):
        to_torch_state_dict(net(lambda bp, x: layers.rnn(bp, x, 2)), ["a", "b"])
