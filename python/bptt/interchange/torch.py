"""PyTorch: state dictionaries of recurrent and linear layers, in and out.

PyTorch keeps the rows of all gates in one matrix and two biases for each layer, of which an RNN
and an LSTM only ever use the sum. An LSTM's gates are i, f, g, o (its g is our c), a GRU's are
r, z, n; the GRU's second bias of n is inside the product with r, as in ``reset="after"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bptt.arrays import listed, numbers, shown
from bptt.errors import ShapeError, UsageError
from bptt.interchange import stacks
from bptt.interchange.stacks import ACTIVATIONS, Layer
from bptt.model import BPTT
from bptt.numerics import Array

_ORDER = {"rnn": "", "lstm": "ifco", "gru": "rzn"}
_KINDS = {1: "rnn", 3: "gru", 4: "lstm"}
_RECURRENT = re.compile(r"(?:(?P<module>.*)\.)?(?P<what>(weight|bias)_(ih|hh|hr))_l(?P<layer>\d+)")
_LINEAR = re.compile(r"(?:(?P<module>.*)\.)?(?P<what>weight|bias)")
_NOTHING = {"Dropout", "Identity"}  # in a module that is in eval mode

State = Mapping[str, npt.ArrayLike]
Order = Sequence[str | Callable[..., Any]]


def from_torch(
    module_or_state_dict: State | Any,
    *,
    layers: Order | None = None,
    nonlinearity: str = "tanh",
    batch: int = 1,
    num_loops: int = 10,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> BPTT:
    """A net with the weights and the outputs of a PyTorch model: a stack of layers.

    Recurrent layers are ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` in one direction, dense ones
    ``nn.Linear``. A module also tells its activations (``nn.Tanh``, ``nn.Sigmoid``, ``nn.ReLU``),
    its layers being applied in the order in which it holds them; what its ``forward`` does besides
    cannot be seen. A state dictionary, of arrays or of tensors, tells only weights: `layers` says
    the rest. PyTorch itself is not needed for one of arrays.

    The frame returns an input ``x`` ``(features, batch)``, a target ``y`` of the output's shape,
    for training on, and the output. Weights have the names of `bptt.layers`. PyTorch's
    ``(time, batch, features)`` arrays go in as ``x.swapaxes(1, 2)``.

    Args:
        module_or_state_dict: an ``nn.Module``, or what its ``state_dict()`` returns.
        layers: the order from input to output: names of submodules (``"lstm"``, ``"head.0"``; an
            empty name for the weights of a layer by itself) and between them activations:
            `bptt.tanh`, `bptt.sigmoid`, `bptt.relu`. By default the dictionary's order.
        nonlinearity: of every ``nn.RNN``, ``"tanh"`` or ``"relu"``, where no module tells it.
        batch: lanes.
        num_loops: frames of a deep window.
        dtype: as for `BPTT`.
        seed: as for `BPTT`.

    Returns:
        The net, its graphs made and its state zero.

    Raises:
        UsageError: a layer of another kind, both directions, dropout in training mode, an unknown
            name.
        ShapeError: arrays that do not fit together.
    """
    if hasattr(module_or_state_dict, "state_dict"):
        module = module_or_state_dict
        state, order, activations = module.state_dict(), *_order(module)
    elif isinstance(module_or_state_dict, Mapping):
        state, order, activations = module_or_state_dict, None, {}
    else:
        raise UsageError(
            f"expected a module or a state dictionary, got {shown(module_or_state_dict)}"
        )
    if nonlinearity not in ("tanh", "relu"):
        raise UsageError(f'nonlinearity is "tanh" or "relu", got {shown(nonlinearity)}')
    modules = _modules(state, dtype)
    if layers is not None:
        order = listed(layers, "layers")
    elif order is None:
        order = list(modules)
    stack: list[Layer] = []
    for each in order:
        stack += _named(each, modules, activations, nonlinearity)
    unused = modules.keys() - {each for each in order if isinstance(each, str)}
    if unused:
        raise UsageError(f"layers names none of {', '.join(map(repr, sorted(unused)))}")
    return stacks.build(stack, batch, num_loops, dtype, seed)


def to_torch_state_dict(bp: BPTT, names: Sequence[str] | None = None) -> dict[str, Array]:
    """The weights of a net that is a stack of layers, as PyTorch names and stacks them.

    Layers of one kind and width that follow one another are one module of several layers. The
    first bias of a layer is ours and the second zero; of a GRU's n both are used. The arrays are
    numpy's: ``{k: torch.from_numpy(v) for k, v in d.items()}`` is what ``load_state_dict`` takes.

    Args:
        bp: a net whose shallow frame is a stack of `layers.rnn`, `lstm`, `gru`, `dense` and
            activations.
        names: of the modules with weights, from input to output. By default their places,
            activations counted, as ``nn.Sequential`` has them; an empty name for no prefix.

    Raises:
        UsageError: the frame is no such stack, PyTorch has no such layer (peepholes, a GRU with
            its reset before the product), or another number of names.
    """
    modules = _grouped(stacks.read(bp))
    weighty = [n for n, group in enumerate(modules) if group[0].weights]
    if names is None:
        names = [str(n) for n in weighty]
    elif len(listed(names, "names")) != len(weighty):
        raise UsageError(f"expected {len(weighty)} names of modules, got {len(names)}")
    state = {}
    for n, name in zip(weighty, names, strict=True):
        prefix = f"{name}." if name else ""
        for number, layer in enumerate(modules[n]):
            for key, array in _arrays(layer, number).items():
                state[prefix + key] = np.ascontiguousarray(array)
    return state


# In


def _modules(state: State, dtype: npt.DTypeLike) -> dict[str, dict[str, Array]]:
    """The arrays by module, in the dictionary's order."""
    modules: dict[str, dict[str, Array]] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise UsageError(f"the names of a state dictionary are texts, got {shown(key)}")
        found = _RECURRENT.fullmatch(key) or _LINEAR.fullmatch(key)
        if key.endswith("_reverse"):
            raise UsageError(f"{key!r} is of a bidirectional layer, which cannot be streamed")
        if found is None:
            raise UsageError(
                f"{key!r} is no weight of an nn.RNN, nn.LSTM, nn.GRU or nn.Linear; expected names "
                "such as 'lstm.weight_ih_l0' or 'head.weight'"
            )
        if hasattr(value, "detach"):  # a tensor
            value = value.detach().cpu().numpy()
        name = found["module"] or ""
        array = numbers(value, np.dtype(np.float64), f"the weight {key!r}")
        modules.setdefault(name, {})[key[len(name) + bool(name) :]] = array
    return modules


def _order(module: Any) -> tuple[Order, dict[str, str]]:
    """A module's layers and activations as it holds them, and the nonlinearity of each RNN."""
    order: list[str | Callable[..., Any]] = []
    nonlinearities = {}
    for name, each in module.named_modules():
        kind = type(each).__name__
        if any(True for _ in each.children()):
            continue
        if kind in ("RNN", "LSTM", "GRU", "Linear"):
            order.append(name)
            if getattr(each, "dropout", 0) and each.training:
                raise UsageError(f"{name or kind} has dropout and is in training mode: call eval()")
            if kind == "RNN":
                nonlinearities[name] = each.nonlinearity
        elif kind.lower() in ACTIVATIONS:
            order.append(ACTIVATIONS[kind.lower()])
        elif kind not in _NOTHING or (kind == "Dropout" and each.training and each.p):
            advice = ": call eval() first" if kind == "Dropout" else ""
            raise UsageError(f"there is no layer here for {name or 'the module'}, {each}{advice}")
    return order, nonlinearities


def _named(
    each: str | Callable[..., Any],
    modules: dict[str, dict[str, Array]],
    nonlinearities: dict[str, str],
    nonlinearity: str,
) -> list[Layer]:
    """The layers of a module, or an activation."""
    for name, function in ACTIVATIONS.items():
        if each is function:
            return [Layer("activation", {}, {"name": name})]
    if not isinstance(each, str) or each not in modules:
        there = ", ".join(map(repr, modules)) or "none"
        raise UsageError(
            f"layers holds names of modules ({there}) and bptt.tanh, bptt.sigmoid or bptt.relu; "
            f"got {shown(each)}"
        )
    w = modules[each]
    if "weight" in w:
        W = _take(w, each, "weight", 2)
        b = _take(w, each, "bias", 1) if "bias" in w else np.zeros(len(W))
        _require(len(b) == len(W) and len(w) <= 2, each, w)
        return [Layer("dense", {"W": W, "b": stacks.column(b)})]
    count = len({key.rpartition("_l")[2] for key in w})
    return [
        _recurrent(each, w, number, nonlinearities.get(each, nonlinearity))
        for number in range(count)
    ]


def _recurrent(name: str, w: dict[str, Array], number: int, nonlinearity: str) -> Layer:
    W = _take(w, name, f"weight_ih_l{number}", 2)
    R = _take(w, name, f"weight_hh_l{number}", 2)
    projected = f"weight_hr_l{number}" in w
    width = len(W) // 4 if projected else R.shape[1]
    _require(width > 0 and len(W) == len(R) and len(W) in (n * width for n in _KINDS), name, w)
    kind = _KINDS[len(W) // width]
    biases = [
        _take(w, name, key, 1) if key in w else np.zeros(len(W))
        for key in (f"bias_ih_l{number}", f"bias_hh_l{number}")
    ]
    _require(all(len(b) == len(W) for b in biases), name, w)
    if kind == "rnn":
        return stacks.rnn(W, R, biases[0] + biases[1], {"activation": nonlinearity})
    if kind == "lstm":
        layer = stacks.gated(kind, _ORDER[kind], W, R, biases[0] + biases[1], {})
        if not projected:
            return layer
        W_rm = _take(w, name, f"weight_hr_l{number}", 2)
        _require(W_rm.shape == (R.shape[1], width), name, w)
        return Layer(kind, {**layer.weights, "W_rm": W_rm}, {"projection": len(W_rm)})
    b, after = biases
    b[: 2 * width] += after[: 2 * width]
    layer = stacks.gated(kind, _ORDER[kind], W, R, b, {"reset": "after"})
    return Layer(kind, {**layer.weights, "b_hn": stacks.column(after[2 * width :])}, layer.options)


def _take(w: dict[str, Array], module: str, key: str, axes: int) -> Array:
    if key not in w:
        raise UsageError(f"the module {module!r} lacks {key!r}; it has {', '.join(w)}")
    if w[key].ndim != axes:
        raise ShapeError(f"{key!r} of the module {module!r} has shape {w[key].shape}")
    copy: Array = w[key].copy()
    return copy


def _require(fits: bool, module: str, w: dict[str, Array]) -> None:
    if not fits:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in w.items())
        raise ShapeError(f"the arrays of the module {module!r} do not fit together: {shapes}")


# Out


def _grouped(stack: list[Layer]) -> list[list[Layer]]:
    """Recurrent layers of one kind and width, one on the other, are one module."""
    modules: list[list[Layer]] = []
    for layer in stack:
        last = modules[-1][0] if modules else None
        if (
            last
            and layer.recurrent
            and (last.kind, last.width, last.options)
            == (
                layer.kind,
                layer.width,
                layer.options,
            )
        ):
            modules[-1].append(layer)
        else:
            modules.append([layer])
    return modules


def _arrays(layer: Layer, number: int) -> dict[str, Array]:
    if layer.kind == "dense":
        return {"weight": layer.weights["W"], "bias": layer.weights["b"][:, 0]}
    if layer.options.get("peephole"):
        raise UsageError("PyTorch has no LSTM with peepholes")
    if layer.options.get("reset") == "before":
        raise UsageError("PyTorch has no GRU whose reset comes before the product with the state")
    W, R, b = stacks.stacked(layer, _ORDER[layer.kind])
    second = np.zeros_like(b)
    if layer.kind == "gru":
        second[-layer.width :] = layer.weights["b_hn"][:, 0]
    projection = {}
    if "W_rm" in layer.weights:
        projection[f"weight_hr_l{number}"] = layer.weights["W_rm"]
    return {
        **projection,
        f"weight_ih_l{number}": W,
        f"weight_hh_l{number}": R,
        f"bias_ih_l{number}": b,
        f"bias_hh_l{number}": second,
    }
