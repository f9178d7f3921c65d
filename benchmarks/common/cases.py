"""The nets that are timed, and what every library begins with: weights, state and data.

One training step of every case: forward over T frames, a dense head on every frame, mean squared
error, backward, gradients clipped by value, Adam; the state is carried to the next window. Weights
and state have bptt's names; `stack` puts an LSTM's gates on top of each other, as others have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[Any]
Named: TypeAlias = dict[str, Matrix]

LEARNING_RATE, BETA1, BETA2, EPSILON, CLIP = 1e-3, 0.9, 0.999, 1e-5, 1.0
"""Of every case. Adam in the form of Kingma & Ba's Algorithm 1; with this epsilon an
update follows a gradient that is nearly zero smoothly, so that rounding stays rounding."""


@dataclass(frozen=True)
class Case:
    """A net and the shape of its window."""

    name: str
    cell: Literal["rnn", "lstm"]
    features: int
    width: int
    batch: int
    frames: int  #: T
    outputs: int
    layers: int = 1
    peephole: Literal["full"] | None = None
    activation: Literal["sigmoid"] | None = None  #: of the head
    windows: int = 4  #: of data, gone over again and again

    def __str__(self) -> str:
        cell = self.cell.upper() + (", full peepholes" if self.peephole else "")
        widths = "→".join(map(str, [self.features, *[self.width] * self.layers]))
        return (
            f"{self.name}: {cell} {widths}, head {self.width}→{self.outputs}, "
            f"batch {self.batch}, T {self.frames}"
        )

    @property
    def gates(self) -> int:
        """Rows of a layer's matrices, in widths."""
        return 4 if self.cell == "lstm" else 1

    @property
    def inputs(self) -> list[int]:
        """The features that each layer is fed."""
        return [self.features] + [self.width] * (self.layers - 1)

    @property
    def flops(self) -> int:
        """Of the matrix products of a training step; a multiplication and an addition are two.

        Forward, and twice as much backward: by weights and by inputs, of which the first layer's
        are data and need no gradient.
        """
        square = self.width**2 * (self.gates + (3 if self.peephole else 0))
        terms = 3 * self.width * self.outputs
        for layer, features in enumerate(self.inputs):
            terms += 3 * square + (3 if layer else 2) * self.gates * self.width * features
        return 2 * terms * self.frames * self.batch


A = Case("A", "rnn", 1, 3, 1, 10, 1, windows=200)
B = Case("B", "lstm", 8, 32, 1, 64, 8, windows=32)
C = Case("C", "lstm", 64, 128, 32, 64, 64, windows=8)
D = Case("D", "lstm", 512, 512, 64, 50, 512)
E = Case("E", "rnn", 64, 256, 32, 100, 64, windows=8)
F = Case("F", "lstm", 1, 5, 1, 4, 1, 2, "full", "sigmoid", windows=200)
"""F is the dual LSTM of the origin, without its noise."""
G = Case("G", "lstm", 512, 512, 1, 200, 512, windows=2)
"""G has one lane, so that threads can share nothing but the rows of its frames."""

CASES = {case.name: case for case in (A, B, C, D, E, F, G)}


@dataclass(frozen=True)
class Given:
    """What every library begins with, in float64."""

    weights: Named
    state: Named
    x: Matrix  #: (windows T, batch, features)
    y: Matrix  #: (windows T, batch, outputs)


def given(case: Case, seed: int = 0) -> Given:
    """Drawn from the case's seed: weights uniform within 1/sqrt(width), the rest normal."""
    rng = np.random.default_rng(seed)
    width, limit = case.width, case.width**-0.5
    shapes: dict[str, tuple[int, int]] = {"W": (case.outputs, width), "b": (case.outputs, 1)}
    for layer, features in enumerate(case.inputs):
        scope = f"{case.cell}_layer_{layer}/"
        if case.cell == "rnn":
            own = {"W_ax": (width, features), "W_aa": (width, width), "b_a": (width, 1)}
        else:
            own = {f"W_x{gate}": (width, features) for gate in "ifco"}
            own |= {f"W_h{gate}": (width, width) for gate in "ifco"}
            own |= {f"b_{gate}": (width, 1) for gate in "ifco"}
            if case.peephole:
                own |= {f"W_c{gate}": (width, width) for gate in "ifo"}
        shapes |= {scope + name: shape for name, shape in own.items()}
    states = ("hidden",) if case.cell == "rnn" else ("cell", "hidden")
    names = [f"{state}-{layer}" for layer in range(case.layers) for state in states]
    frames = case.windows * case.frames
    return Given(
        {name: rng.uniform(-limit, limit, shape) for name, shape in shapes.items()},
        {name: rng.normal(0, 0.5, (width, case.batch)) for name in names},
        rng.normal(size=(frames, case.batch, case.features)),
        rng.uniform(size=(frames, case.batch, case.outputs)),
    )


_STACKS = {
    "rnn": {"x": ["W_ax"], "h": ["W_aa"], "b": ["b_a"]},
    "lstm": {
        "x": ["W_xi", "W_xf", "W_xc", "W_xo"],
        "h": ["W_hi", "W_hf", "W_hc", "W_ho"],
        "b": ["b_i", "b_f", "b_c", "b_o"],
        "p": ["W_ci", "W_cf"],  # the peepholes that look at the past cell
        "q": ["W_co"],  # and the one that looks at the new one
    },
}


def stack(case: Case, weights: Mapping[str, Matrix]) -> Named:
    """The weights by layer and kind, as ``x0`` (gates width, features); gates in order i f c o.

    Kinds: x and h on input and past state, b the biases (gates width,), p and q the peepholes; W
    and b of the head.
    """
    stacked = {"W": weights["W"], "b": weights["b"][:, 0]}
    for kind, layer, names in _stacks(case):
        whole = np.concatenate([weights[name] for name in names])
        stacked[f"{kind}{layer}"] = whole[:, 0] if kind == "b" else whole
    return stacked


def unstack(case: Case, stacked: Mapping[str, Matrix]) -> Named:
    """`stack` undone."""
    weights = {"W": stacked["W"], "b": stacked["b"].reshape(-1, 1)}
    for kind, layer, names in _stacks(case):
        whole = stacked[f"{kind}{layer}"].reshape(len(names) * case.width, -1)
        weights |= dict(zip(names, np.split(whole, len(names)), strict=True))
    return weights


def _stacks(case: Case) -> list[tuple[str, int, list[str]]]:
    kinds = {k: v for k, v in _STACKS[case.cell].items() if case.peephole or k not in "pq"}
    return [
        (kind, layer, [f"{case.cell}_layer_{layer}/{name}" for name in names])
        for layer in range(case.layers)
        for kind, names in kinds.items()
    ]
