"""How gradients become updates: small descriptions, carried out by the core on flat arrays."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import numpy as np

from bptt import _core
from bptt.arrays import real
from bptt.errors import UsageError
from bptt.numerics import Numerics


class Clip(Protocol):
    """What `BPTT.minimize` takes as `clip`."""

    def build(self, numerics: Numerics) -> _core.Clip32:
        """The core's object for it."""


@dataclass(frozen=True)
class Adam:
    r"""Adam (Kingma & Ba, *Adam: a method for stochastic optimization*, 2015).

    With the gradient g and t counting updates from 1::

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2

    By default (`epsilon_hat`) in the form at the end of the paper's section 2, in which TensorFlow
    computes it: epsilon is added to sqrt(v) *before* the bias correction::

        w <- w - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t)  m / (sqrt(v) + epsilon)

    With ``epsilon_hat=False`` in the form of the paper's Algorithm 1, in which PyTorch computes it,
    where both moments are corrected first::

        w <- w - learning_rate  m / (1 - beta1^t)  /  (sqrt(v / (1 - beta2^t)) + epsilon)

    One is the other with epsilon multiplied by ``sqrt(1 - beta2^t)``: with a large epsilon, such
    as 1e-3, the first updates differ much.

    Raises:
        UsageError: a number that is not finite, a rate or epsilon that is not positive, a beta
            outside [0, 1); when a net takes it, a rate or epsilon that is zero or infinite in the
            net's dtype.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    _: KW_ONLY
    epsilon_hat: bool = True

    def __post_init__(self) -> None:
        positive("Adam's learning_rate", self.learning_rate)
        positive("Adam's epsilon", self.epsilon)
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= real(beta, f"Adam's {name}") < 1.0:
                raise UsageError(f"Adam's {name} lies in [0, 1), got {beta}")
        if not isinstance(self.epsilon_hat, bool):
            raise UsageError(f"Adam's epsilon_hat is True or False, got {self.epsilon_hat!r}")

    def build(self, numerics: Numerics) -> _core.Adam32:
        """The core's optimiser, with moments of zero."""
        return numerics.Adam(
            positive("Adam's learning_rate", self.learning_rate, numerics),
            self.beta1,
            self.beta2,
            positive("Adam's epsilon", self.epsilon, numerics),
            self.epsilon_hat,
        )


@dataclass(frozen=True)
class ClipByValue:
    """Each entry of the gradient is limited to ``[-limit, limit]``, as in Graves 2013.

    Graves, *Generating sequences with recurrent neural networks*, arXiv:1308.0850, section 2.1.

    Raises:
        UsageError: a limit that is not finite and positive.
    """

    limit: float

    def __post_init__(self) -> None:
        positive("ClipByValue's limit", self.limit)

    def build(self, numerics: Numerics) -> _core.Clip32:
        """The core's object for it."""
        return numerics.Clip.by_value(positive("ClipByValue's limit", self.limit, numerics))


@dataclass(frozen=True)
class ClipByGlobalNorm:
    """The gradient of all weights together is shortened to `limit`, when it is longer.

    ``g <- g limit / max(|g|, limit)``, with the Euclidean norm over all weights: Pascanu, Mikolov &
    Bengio, *On the difficulty of training recurrent neural networks*, 2013, Algorithm 1.

    Raises:
        UsageError: a limit that is not finite and positive.
    """

    limit: float

    def __post_init__(self) -> None:
        positive("ClipByGlobalNorm's limit", self.limit)

    def build(self, numerics: Numerics) -> _core.Clip32:
        """The core's object for it."""
        limit = positive("ClipByGlobalNorm's limit", self.limit, numerics)
        return numerics.Clip.by_global_norm(limit)


def positive(what: str, number: float, numerics: Numerics | None = None) -> float:
    """`number`, when it is finite and positive, and is so too when rounded to the net's dtype.

    Raises:
        UsageError: it is not.
    """
    value = real(number, what)
    if value <= 0:
        raise UsageError(f"{what} is a positive number, got {number!r}")
    if numerics is not None:
        with np.errstate(over="ignore", under="ignore"):
            rounded = numerics.dtype.type(value)
        if not 0 < rounded < np.inf:
            raise UsageError(f"{what} is {number!r}, which is {rounded} in {numerics.dtype}")
    return value
