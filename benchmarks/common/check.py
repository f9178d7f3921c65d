"""Right before fast: the same losses and weights from all, and gradients against float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from .cases import Case, Given, Matrix, Named
from .ours import Ours

LOSSES, WEIGHTS, GRADIENTS, OUTPUTS = 1e-4, 1e-4, 5e-6, 1e-5
"""How far float32 may be from float64: losses and outputs relative to the largest, weights relative
to how far they went, gradients relative to each array's largest entry."""

ENOUGH = 10**10
"""Operations of the windows compared: at least 3 windows, at most 8."""


class Different(Exception):
    """Two that should compute the same do not: nothing they take time for can be compared."""


class Trainer(Protocol):
    """What is compared, and timed."""

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses."""

    def weights(self) -> Named:
        """By our names."""


def training(case: Case, given: Given, trainers: Mapping[str, Trainer]) -> str:
    """Train each for some windows and hold it against bptt in float64; a line that says how far.

    Raises:
        Different: losses or weights are further apart than rounding explains.
    """
    windows = min(max(ENOUGH // case.flops, 3), 8, case.windows)
    exact = Ours(case, given, dtype="float64")
    losses, weights = exact.train(windows), exact.weights()
    worst_loss, worst_weight = (0.0, ""), (0.0, "")
    for name, trainer in trainers.items():
        got, after = trainer.train(windows), trainer.weights()
        loss = float(np.abs(got - losses).max() / np.abs(losses).max())
        if not loss < LOSSES:
            raise Different(f"{case}: {name} has losses {got}, expected {losses}")
        for key, start in given.weights.items():
            went = np.abs(weights[key] - start).max()
            apart = float(np.abs(after[key] - weights[key]).max() / went)
            if not apart < WEIGHTS:
                raise Different(f"{case}: {name}'s {key} is {apart:.1e} of its way from float64's")
            worst_weight = max(worst_weight, (apart, name))
        worst_loss = max(worst_loss, (loss, name))
    return (
        f"{windows} windows of {', '.join(trainers)}: losses within {worst_loss[0]:.0e} of float64 "
        f"({worst_loss[1]}), weights within {worst_weight[0]:.0e} of their way ({worst_weight[1]})"
    )


def gradients(case: Case, given: Given) -> str:
    """Hold float32 gradients of both forms against those of float64; a line that says how far.

    Raises:
        Different: further than `GRADIENTS`.
    """
    exact, worst = Ours(case, given, dtype="float64").gradients(), {}
    for form in ("fused", "primitive"):
        got = Ours(case, given, form).gradients()
        apart = {
            name: float(np.abs(got[name] - each).max() / np.abs(each).max())
            for name, each in exact.items()
        }
        name = max(apart, key=apart.__getitem__)
        if not apart[name] < GRADIENTS:
            raise Different(f"{case}, {form}: the gradient of {name} is {apart[name]:.1e} off")
        worst[form] = apart[name]
    return f"gradients within {max(worst.values()):.1e} of each array's largest in float64"


def outputs(what: object, expected: Matrix, got: Mapping[str, Matrix]) -> str:
    """Hold outputs against float64's; a line that says how far.

    Raises:
        Different: further than `OUTPUTS`.
    """
    worst = 0.0
    for name, each in got.items():
        apart = float(np.abs(each - expected).max() / np.abs(expected).max())
        if not apart < OUTPUTS:
            raise Different(f"{what}: the outputs of {name} are {apart:.1e} off")
        worst = max(worst, apart)
    return f"{len(expected)} frames of {', '.join(got)}: outputs within {worst:.0e} of float64"
