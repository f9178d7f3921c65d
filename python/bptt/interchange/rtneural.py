"""RTNeural: the JSON of its model loader, for audio plug-ins.

https://github.com/jatinchowdhury18/RTNeural. A model is a list of layers with their output shapes
and the weights as Keras's ``get_weights()`` gives them: kernels are ``(features, gates * width)``;
an LSTM's gates are i, f, c, o, a GRU's z, r, n with two rows of biases, the reset
after the product.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from bptt.errors import UsageError
from bptt.interchange import output, stacks
from bptt.interchange.stacks import Layer
from bptt.model import BPTT

_ORDER = {"lstm": "ifco", "gru": "zrn"}


def to_rtneural_json(bp: BPTT, path: str | os.PathLike[str]) -> None:
    """Write a net that is a stack of layers in RTNeural's JSON format.

    Layers of both are ``dense`` with its activation, ``lstm``, ``gru`` and ``activation`` (tanh,
    sigmoid, relu). RTNeural's dynamic and compile-time models read the file with its
    ``parseJson``; state begins at zero there.

    Args:
        bp: a net whose shallow frame is a stack of `layers.lstm`, `gru`, `dense` and activations.
        path: of the file.

    Raises:
        UsageError: the frame is no such stack, or RTNeural has no such layer: a plain recurrent
            layer, peepholes, a projection, a GRU with its reset before the product.
        InterchangeError: the file system refuses.
    """
    name = output.place(path)
    stack = stacks.read(bp)
    width = next((layer.features for layer in stack if layer.weights), 0)
    model: dict[str, Any] = {"in_shape": [None, None, width], "layers": []}
    for layer in stack:
        width = layer.width or width
        if layer.kind == "activation" and model["layers"]:
            last = model["layers"][-1]
            if last["type"] == "dense" and not last["activation"]:
                last["activation"] = layer.options["name"]
                continue
        model["layers"].append({**_described(layer), "shape": [None, None, width]})
    output.write(name, json.dumps(model).encode())


def _described(layer: Layer) -> dict[str, Any]:
    if layer.kind == "activation":
        return {"type": "activation", "activation": layer.options["name"], "weights": []}
    if layer.kind == "dense":
        W, b = layer.weights["W"], layer.weights["b"][:, 0]
        return {"type": "dense", "activation": "", "weights": [W.T.tolist(), b.tolist()]}
    if layer.kind not in _ORDER:
        raise UsageError("RTNeural has no plain recurrent layer, only LSTM and GRU")
    if layer.options.get("peephole"):
        raise UsageError("RTNeural has no LSTM with peepholes")
    if layer.options.get("projection"):
        raise UsageError("RTNeural has no LSTM with a projection")
    if layer.options.get("reset") == "before":
        raise UsageError("RTNeural has no GRU whose reset comes before the product with the state")
    W, R, b = stacks.stacked(layer, _ORDER[layer.kind])
    if layer.kind == "gru":
        second = np.zeros_like(b)
        second[-layer.width :] = layer.weights["b_hn"][:, 0]
        b = np.stack([b, second])
    return {
        "type": layer.kind,
        "activation": "",
        "weights": [W.T.tolist(), R.T.tolist(), b.tolist()],
    }
