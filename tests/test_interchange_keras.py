"""Models that Keras computed, loaded from arrays and from Keras's own files.

`data/interchange/record_keras.py` recorded them; nothing here imports Keras.
`pytest tests/test_interchange_*.py -q -s` prints the largest differences.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt.errors import InterchangeError
from bptt.interchange import from_keras
from test_interchange_torch import DATA, difference

BOUND = dict.fromkeys(("float32", "float64"), 2e-6)  # Keras computed in float32

ORDERS: dict[str, list[Any]] = {
    "lstm": ["lstm", "lstm_1", "dense", bptt.tanh, "dense_1", bptt.sigmoid],
    "rnn_tanh": ["simple_rnn", "dense_2", bptt.relu],
    "rnn_relu": ["simple_rnn_1", "dense_3"],
    "gru": ["gru", "dense_4"],
    "gru_reset_before": ["gru_1", "dense_5"],
    "without_biases": ["gru_2", "lstm_2", "time_distributed"],
}


def recorded(name: str) -> tuple[dict[str, list[np.ndarray]], Any, np.ndarray, np.ndarray]:
    """Weights by layer, the configuration, input and output ``(time, features, batch)``."""
    with np.load(DATA / f"keras_{name}.npz") as file:
        weights: dict[str, list[np.ndarray]] = {}
        for key in file.files:
            if key.startswith("weights/"):
                weights.setdefault(key.split("/")[1], []).append(file[key])
        config = json.loads(str(file["config"]))
        return weights, config, file["x"].transpose(1, 2, 0), file["y"].transpose(1, 2, 0)


def nonlinearity(name: str) -> str:
    return "relu" if name == "rnn_relu" else "tanh"


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", ORDERS)
def test_outputs(name: str, dtype: str) -> None:
    weights, _, x, y = recorded(name)
    bp = from_keras(
        weights,
        layers=ORDERS[name],
        nonlinearity=nonlinearity(name),
        batch=3,
        num_loops=10,
        dtype=dtype,
    )
    worst = difference(bp, x, y)
    print(f"\nfrom Keras, {name}, {dtype}: largest difference {worst:.1e}")
    assert worst <= BOUND[dtype]


class Stand:
    """What `from_keras` asks of a model and of its layers, without Keras."""

    def __init__(self, name: str, config: Any, weights: Any, layers: Any = ()) -> None:
        self.name, self.config, self.weights = name, config, weights
        if layers:
            self.layers = layers

    def get_config(self) -> Any:
        return self.config

    def get_weights(self) -> Any:
        return self.weights


def model(name: str) -> Any:
    weights, config, _, _ = recorded(name)
    layers = [
        type(each["class_name"], (Stand,), {})(
            each["config"]["name"], each["config"], weights.get(each["config"]["name"], [])
        )
        for each in config
    ]
    return Stand("model", {}, [], layers)


@pytest.mark.parametrize("name", ORDERS)
def test_a_model_knows_everything(name: str) -> None:
    _, _, x, y = recorded(name)
    bp = from_keras(model(name), batch=3, num_loops=10, dtype="float64")
    assert difference(bp, x, y) <= BOUND["float64"]


def test_files() -> None:
    pytest.importorskip("h5py", reason="there is no h5py for this platform")
    _, _, x, y = recorded("lstm")
    options: dict[str, Any] = {"batch": 3, "num_loops": 10, "dtype": "float64"}
    path = DATA / "keras_lstm.weights.h5"
    bp = from_keras(path, layers=ORDERS["lstm"], **options)
    worst = difference(bp, x, y)
    worst = max(worst, difference(from_keras(str(DATA / "keras_lstm.keras"), **options), x, y))
    print(f"\nfrom Keras's files, float64: largest difference {worst:.1e}")
    assert worst <= BOUND["float64"]
    with pytest.raises(bptt.UsageError, match="has no order"):
        from_keras(path)
    with pytest.raises(bptt.UsageError, match="knows its order"):
        from_keras(DATA / "keras_lstm.keras", layers=ORDERS["lstm"])


def test_files_of_another_kind(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="there is no h5py for this platform")
    (tmp_path / "text").write_text("no weights")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["other"] = np.zeros(3)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("config.json", "[]")
    for name in ("none", "text", "empty.h5", "other.zip"):
        with pytest.raises(InterchangeError, match=name):
            from_keras(tmp_path / name)


def changed(name: str, layer: int, **config: Any) -> Any:
    made = model(name)
    made.layers[layer].config = {**made.layers[layer].config, **config}
    return made


def test_what_does_not_fit() -> None:
    weights, _, _, _ = recorded("lstm")
    usage: list[tuple[Any, dict[str, Any], str]] = [
        (changed("lstm", 0, go_backwards=True), {}, "go_backwards"),
        (changed("lstm", 0, activation="relu"), {}, "activations"),
        (changed("gru", 0, recurrent_activation="hard_sigmoid"), {}, "activations"),
        (changed("lstm", 2, activation="gelu"), {}, "gelu"),
        (
            Stand("m", {}, [], [type("Bidirectional", (Stand,), {})("b", {}, [])]),
            {},
            "Bidirectional",
        ),
        (weights, {"layers": ["lstm"]}, "none of 'dense'"),
        (weights, {"layers": ["gru"]}, "'lstm'"),
        (weights, {"layers": "lstm"}, "list"),
        (5, {}, "a mapping"),
        ({5: []}, {}, "texts"),
        ({}, {}, "no layer with weights"),
        (weights, {"nonlinearity": None}, "nonlinearity"),
    ]
    for given, options, message in usage:
        with pytest.raises(bptt.UsageError, match=message):
            from_keras(given, **options)
    for given, message in [
        ({"a": [np.ones((2, 3)), np.ones(2)]}, "no layer known"),
        ({"a": [np.ones((2, 12)), np.ones((3, 12)), np.ones(7)]}, "do not fit together"),
        (dict(reversed(weights.items())), "comes before"),
    ]:
        with pytest.raises(bptt.ShapeError, match=message):
            from_keras(given)
