"""Keras 3: models, their saved files, or weights alone.

Keras multiplies from the right, so its matrices are the transposes of ours: a kernel is
``(features, gates * width)``. An LSTM's gates are i, f, c, o, a GRU's z, r, h (its h is our n);
with ``reset_after`` a GRU has two biases, the second inside the product with r.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bptt.arrays import listed, numbers, shown
from bptt.checkpoint import text_of
from bptt.errors import InterchangeError, ShapeError, UsageError
from bptt.interchange import stacks
from bptt.interchange.stacks import ACTIVATIONS, Layer
from bptt.model import BPTT
from bptt.numerics import Array

INSTALL = 'pip install "bptt[keras]"'

_ORDER = {"lstm": "ifco", "gru": "zrn"}
_KINDS = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru", "Dense": "dense"}
_BY_GATES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
_NOTHING = {"InputLayer", "Dropout", "GaussianNoise", "ActivityRegularization"}  # when predicting


@dataclass(frozen=True)
class _Spec:
    """What is known of one Keras layer; without a class it is found by the arrays' shapes."""

    name: str
    arrays: Sequence[Array]
    kind: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def from_keras(
    model: Any,
    *,
    layers: Sequence[str | Callable[..., Any]] | None = None,
    nonlinearity: str = "tanh",
    batch: int = 1,
    num_loops: int = 10,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> BPTT:
    """A net with the weights and the outputs of a Keras 3 model: a stack of layers.

    Layers are ``SimpleRNN``, ``LSTM``, ``GRU`` (both forms), ``Dense``, also in
    ``TimeDistributed``, and the activations tanh, sigmoid and relu. The model may be

    - a Keras model whose layers follow one another, or the path of a ``.keras`` file: all is known;
    - the path of a ``.weights.h5`` file, or a mapping from names of layers to what their
      ``get_weights()`` returns: arrays alone. What they are is seen by their shapes; `layers` says
      the order and the activations, and a GRU without biases is taken for one with
      ``reset_after=True``, Keras's default.

    Keras is needed for none of the files, h5py is (the extra ``keras``). The frame, the names of
    weights and the data's layout are as for `from_torch`; Keras's ``(batch, time, features)``
    arrays go in as ``x.transpose(1, 2, 0)``. State begins at zero, as Keras's does, and goes on.

    Args:
        model: see above.
        layers: for arrays alone: names of layers from input to output, and between them
            `bptt.tanh`, `bptt.sigmoid`, `bptt.relu`. By default the mapping's order; a file has
            none, unless there is one layer in it.
        nonlinearity: of every ``SimpleRNN``, ``"tanh"`` or ``"relu"``, where only arrays are known.
        batch: lanes.
        num_loops: frames of a deep window.
        dtype: as for `BPTT`.
        seed: as for `BPTT`.

    Raises:
        ImportError: a file is to be read, and h5py is not installed.
        InterchangeError: no such file, or another kind of file.
        UsageError: a layer or an activation that there is none of here, ``go_backwards``, an
            unknown name.
        ShapeError: arrays that do not fit together.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise UsageError(f'nonlinearity is "tanh" or "relu", got {shown(nonlinearity)}')
    if isinstance(model, Mapping):
        specs = [_Spec(_text(name), _checked(name, each, dtype)) for name, each in model.items()]
        ordered = True
    elif isinstance(model, str | os.PathLike):
        specs, ordered = _read(text_of(model), dtype)
    elif hasattr(model, "layers") and hasattr(model, "get_config"):
        specs, ordered = [_live(layer, dtype) for layer in model.layers], True
    else:
        raise UsageError(f"expected a Keras model, a path or a mapping, got {shown(model)}")
    stack: list[Layer] = []
    if specs and specs[0].kind:
        if layers is not None:
            raise UsageError("layers is for weights alone; a model knows its order")
        for spec in specs:
            stack += _known(spec)
    else:
        for each in _order(specs, ordered, layers):
            stack += [each] if isinstance(each, Layer) else _known(_guess(each, nonlinearity))
    return stacks.build(stack, batch, num_loops, dtype, seed)


# Where layers come from


def _live(layer: Any, dtype: npt.DTypeLike) -> _Spec:
    arrays = _checked(layer.name, layer.get_weights(), dtype)
    return _Spec(layer.name, arrays, type(layer).__name__, layer.get_config())


def _read(path: str, dtype: npt.DTypeLike) -> tuple[list[_Spec], bool]:
    """The layers of a file, and whether their order is known."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"Keras's files are read with h5py: {INSTALL} ({error})") from None
    try:
        if not zipfile.is_zipfile(path):
            with h5py.File(path) as file:
                groups = _groups(file, dtype)
            return [_Spec(name, arrays) for name, arrays in groups.items() if arrays], False
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]["layers"]
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
                groups = _groups(file, dtype)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InterchangeError(f"{path} is no file of weights by Keras 3: {error}") from None
    specs, seen = [], dict[str, int]()
    for each in config:  # the file of weights counts the layers of a class, whatever their names
        kind = each["class_name"]
        number = seen[kind] = seen.get(kind, -1) + 1
        key = f"{_snake(kind)}_{number}" if number else _snake(kind)
        specs.append(_Spec(each["config"]["name"], groups.get(key, []), kind, each["config"]))
    return specs, True


def _groups(file: Any, dtype: npt.DTypeLike) -> dict[str, list[Array]]:
    """The arrays of every layer, in the order of their numbers."""
    if "layers" not in file:
        raise ValueError("it has no group 'layers'")
    found = {}
    for name, group in file["layers"].items():
        arrays: dict[tuple[str, int], Any] = {}

        def visit(key: str, each: Any, arrays: dict[tuple[str, int], Any] = arrays) -> None:
            if hasattr(each, "shape"):
                folder, _, number = key.rpartition("/")
                arrays[folder, int(number)] = each[()]

        group.visititems(visit)
        found[name] = _checked(name, [arrays[key] for key in sorted(arrays)], dtype)
    return found


def _snake(name: str) -> str:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"the names of layers are texts, got {shown(name)}")
    return name


def _checked(name: object, arrays: Sequence[npt.ArrayLike], dtype: npt.DTypeLike) -> list[Array]:
    what = f"a weight of the layer {name!r}"
    return [numbers(each, np.dtype(np.float64), what) for each in listed(arrays, what)]


def _order(
    specs: list[_Spec], ordered: bool, layers: Sequence[str | Callable[..., Any]] | None
) -> Iterator[_Spec | Layer]:
    """Layers and activations as the user orders them."""
    there = {spec.name: spec for spec in specs}
    names = ", ".join(map(repr, there)) or "none"
    if layers is None:
        if not ordered and len(specs) > 1:
            raise UsageError(
                f"a file of weights has no order: name its layers ({names}), layers=[...]"
            )
        layers = list(there)
    functions = {id(function): name for name, function in ACTIVATIONS.items()}
    for each in listed(layers, "layers"):
        if id(each) in functions:
            yield Layer("activation", {}, {"name": functions[id(each)]})
        elif isinstance(each, str) and each in there:
            yield there[each]
        else:
            raise UsageError(
                f"layers holds names of layers ({names}) and bptt.tanh, bptt.sigmoid or bptt.relu; "
                f"got {shown(each)}"
            )
    if unused := there.keys() - {each for each in layers if isinstance(each, str)}:
        raise UsageError(f"layers names none of {', '.join(map(repr, sorted(unused)))}")


def _guess(spec: _Spec, nonlinearity: str) -> _Spec:
    """The class of a layer of which only the arrays are known."""
    shapes = [array.shape for array in spec.arrays]
    if len(shapes) in (1, 2) and len(shapes[0]) == 2 and shapes[1:] in ([], [shapes[0][1:]]):
        return _Spec(spec.name, spec.arrays, "Dense")
    if len(shapes) in (2, 3) and all(len(shape) == 2 for shape in shapes[:2]) and shapes[1][0]:
        kind = _BY_GATES.get(shapes[1][1] // shapes[1][0], "")
        if kind:
            config: dict[str, Any] = {"reset_after": len(shapes) < 3 or len(shapes[2]) == 2}
            if kind == "SimpleRNN":
                config["activation"] = nonlinearity
            return _Spec(spec.name, spec.arrays, kind, config)
    raise ShapeError(f"the layer {spec.name!r} has arrays of shapes {shapes}: no layer known here")


# What layers are


def _known(spec: _Spec) -> list[Layer]:
    """A layer of a known class, and its activation."""
    config = spec.config
    if spec.kind in _NOTHING:
        return []
    if spec.kind == "TimeDistributed":
        inner = config["layer"]
        return _known(_Spec(spec.name, spec.arrays, inner["class_name"], inner["config"]))
    if spec.kind == "Activation":
        return _activation(spec, config["activation"])
    if spec.kind == "ReLU" and not config.get("max_value") and not config.get("negative_slope"):
        return _activation(spec, "relu")
    if spec.kind not in _KINDS:
        raise UsageError(f"there is no layer here for {spec.name!r}, a {spec.kind}")
    kind = _KINDS[spec.kind]
    activation = config.get("activation", "linear" if kind == "dense" else "tanh")
    if kind == "dense":
        return [_dense(spec), *_activation(spec, activation)]
    for key in ("go_backwards", "zero_output_for_mask"):
        if config.get(key):
            raise UsageError(f"the layer {spec.name!r} has {key}, which cannot be streamed")
    if config.get("recurrent_activation", "sigmoid") != "sigmoid" or (
        activation != "tanh" and (kind, activation) != ("rnn", "relu")
    ):
        raise UsageError(f"the layer {spec.name!r} has other activations than tanh and sigmoid")
    return [_recurrent(spec, kind, activation)]


def _activation(spec: _Spec, name: str) -> list[Layer]:
    if name == "linear":
        return []
    if name not in ACTIVATIONS:
        raise UsageError(
            f"the layer {spec.name!r} has the activation {shown(name)}; expected one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return [Layer("activation", {}, {"name": name})]


def _dense(spec: _Spec) -> Layer:
    _require(len(spec.arrays) in (1, 2) and spec.arrays[0].ndim == 2, spec)
    W = spec.arrays[0].T
    b = spec.arrays[1] if len(spec.arrays) == 2 else np.zeros(len(W))
    _require(b.shape == (len(W),), spec)
    return Layer("dense", {"W": W, "b": stacks.column(b)})


def _recurrent(spec: _Spec, kind: str, activation: str) -> Layer:
    _require(len(spec.arrays) in (2, 3) and all(a.ndim == 2 for a in spec.arrays[:2]), spec)
    W, R = (each.T for each in spec.arrays[:2])
    width, rows = R.shape[1], len(_ORDER.get(kind, "h")) * R.shape[1]
    after = kind == "gru" and bool(spec.config.get("reset_after", True))
    b = spec.arrays[2] if len(spec.arrays) == 3 else np.zeros((2, rows) if after else rows)
    _require(len(W) == len(R) == rows and b.shape == ((2, rows) if after else (rows,)), spec)
    if kind == "rnn":
        return stacks.rnn(W, R, b, {"activation": activation})
    if kind == "lstm":
        return stacks.gated(kind, _ORDER[kind], W, R, b, {})
    if not after:
        return stacks.gated(kind, _ORDER[kind], W, R, b, {"reset": "before"})
    n = slice(2 * width, None)
    first = b[0].copy()
    first[: 2 * width] += b[1, : 2 * width]
    layer = stacks.gated(kind, _ORDER[kind], W, R, first, {"reset": "after"})
    return Layer(kind, {**layer.weights, "b_hn": stacks.column(b[1, n])}, layer.options)


def _require(fits: bool, spec: _Spec) -> None:
    if not fits:
        shapes = ", ".join(str(array.shape) for array in spec.arrays)
        raise ShapeError(
            f"the arrays of {spec.name!r}, a {spec.kind}, do not fit together: {shapes}"
        )
