"""Exported JSON, read and run as RTNeural's model loader does, and that alone is what is compared.

The reader below follows RTNeural's ``model_loader.h`` and the layers' ``setWVals``, ``setUVals``,
``setBVals`` and ``forward``: weights arrive as ``[input][gate * width + unit]``, an LSTM's gates
are i, f, c, o, a GRU's z, r, c, one number after the other in plain loops.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
import frames
from bptt.interchange import to_rtneural_json

STREAM = 300


def dot(w: list[list[float]], column: int, x: list[float]) -> float:
    return sum(row[column] * v for row, v in zip(w, x, strict=True))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


ACTIVATIONS = {"tanh": math.tanh, "sigmoid": sigmoid, "relu": lambda x: max(x, 0.0)}


class Reader:
    """A model of the file: layers in order, each with its own state."""

    def __init__(self, path: Path) -> None:
        model = json.loads(path.read_text())
        width = model["in_shape"][-1]
        self.layers: list[tuple[str, Any]] = []
        for layer in model["layers"]:
            out = layer["shape"][-1]
            weights, kind = layer["weights"], layer["type"]
            if kind == "dense":
                assert np.shape(weights[0]) == (width, out) and np.shape(weights[1]) == (out,)
            elif kind in ("lstm", "gru"):
                gates = {"lstm": 4, "gru": 3}[kind]
                assert np.shape(weights[0]) == (width, gates * out)
                assert np.shape(weights[1]) == (out, gates * out)
                bias = (gates * out,) if kind == "lstm" else (2, gates * out)
                assert np.shape(weights[2]) == bias
            else:
                assert kind == "activation" and width == out
            state = {"h": [0.0] * out, "c": [0.0] * out}
            self.layers.append((kind, (out, weights, state)))
            if kind in ("dense", "activation") and layer["activation"]:
                activation = ACTIVATIONS[layer["activation"]]
                self.layers.append(("function", activation))
            width = out

    def forward(self, x: list[float]) -> list[float]:
        for kind, what in self.layers:
            if kind == "function":
                x = [what(v) for v in x]
            elif kind != "activation":
                x = getattr(self, kind)(x, *what)
        return x

    def dense(self, x: list[float], out: int, w: Any, state: Any) -> list[float]:
        return [dot(w[0], i, x) + w[1][i] for i in range(out)]

    def lstm(self, x: list[float], out: int, w: Any, state: Any) -> list[float]:
        def gate(n: int, i: int) -> float:
            at = n * out + i
            return dot(w[0], at, x) + dot(w[1], at, state["h"]) + w[2][at]

        c = [
            sigmoid(gate(1, i)) * state["c"][i] + sigmoid(gate(0, i)) * math.tanh(gate(2, i))
            for i in range(out)
        ]
        h = [sigmoid(gate(3, i)) * math.tanh(c[i]) for i in range(out)]
        state.update(h=h, c=c)
        return h

    def gru(self, x: list[float], out: int, w: Any, state: Any) -> list[float]:
        h = []
        for i in range(out):
            kernel = [dot(w[0], n * out + i, x) for n in range(3)]
            recurrent = [dot(w[1], n * out + i, state["h"]) for n in range(3)]
            b = [[w[2][row][n * out + i] for n in range(3)] for row in (0, 1)]
            z, r = (sigmoid(kernel[n] + recurrent[n] + b[0][n] + b[1][n]) for n in (0, 1))
            c = math.tanh(kernel[2] + r * (recurrent[2] + b[1][2]) + b[0][2])
            h.append((1 - z) * c + z * state["h"][i])
        state["h"] = h
        return h


LAYERS = bptt.layers
NETS = {
    "lstm": lambda bp, x: LAYERS.dense(bp, LAYERS.lstm(bp, LAYERS.lstm(bp, x, 6)[1], 5)[1], 1),
    "gru": lambda bp, x: LAYERS.dense(bp, LAYERS.gru(bp, LAYERS.gru(bp, x, 6), 5), 1),
    "dense": lambda bp, x: bptt.relu(
        LAYERS.dense(bp, LAYERS.dense(bp, x, 5, activation=bptt.tanh), 3, activation=bptt.sigmoid)
    ),
    "activation": lambda bp, x: LAYERS.dense(
        bp, bptt.tanh(LAYERS.gru(bp, bptt.sigmoid(x), 4)), 2, activation=bptt.tanh
    ),
}


def net(build: Any) -> bptt.BPTT:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        return x, build(bp, x)

    bp = bptt.BPTT(dtype="float64")
    bp.generate_graphs(frame, 1)
    frames.draw_weights(bp, np.random.default_rng(2))
    return bp


@pytest.mark.parametrize("name", NETS)
def test_streams(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    bp = net(NETS[name])
    to_rtneural_json(bp, tmp_path / "net.json")
    reader = Reader(tmp_path / "net.json")
    x = rng.normal(size=(STREAM, 2, 1))
    got = np.array([reader.forward(x_t.ravel().tolist()) for x_t in x])
    worst = float(np.abs(got - bp.predict([x])[..., 0]).max())
    print(f"\nRTNeural's JSON, {name}, float64, {STREAM} frames: largest difference {worst:.1e}")
    assert worst <= 1e-13


def test_layers_that_rtneural_has_none_of(tmp_path: Path) -> None:
    for build, message in [
        (lambda bp, x: LAYERS.rnn(bp, x, 3), "plain recurrent"),
        (lambda bp, x: LAYERS.lstm(bp, x, 3, peephole="diagonal")[1], "peepholes"),
        (lambda bp, x: LAYERS.gru(bp, x, 3, reset="before"), "reset"),
        (lambda bp, x: bptt.exp(x), "stack of layers"),
    ]:
        with pytest.raises(bptt.UsageError, match=message):
            to_rtneural_json(net(build), tmp_path / "net.json")
    assert not list(tmp_path.iterdir())
