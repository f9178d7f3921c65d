"""How gradients become updates: small descriptions, carried out by the core on flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import numpy as np

from bptt import _core
from bptt.arrays import listed, real, shown
from bptt.errors import UsageError
from bptt.numerics import Numerics
from bptt.schedules import Schedule


class Clip(Protocol):
    """What `BPTT.minimize` takes as `clip`."""

    def build(self, numerics: Numerics) -> _core.Clip32:
        """The core's object for it."""


@dataclass(frozen=True)
class Optimiser:
    """What all optimisers share.

    Attributes:
        learning_rate: a number, or a function of the updates made so far: see `bptt.schedules`.
        weight_decay: a number for all weights, or one for each pattern of names (`fnmatch`), such
            as ``{"*/W*": 1e-4}``; the first pattern that fits a weight counts, and a weight that
            none fits does not decay. It is added to the gradient after clipping,
            ``g + weight_decay w``, the slope of ``weight_decay/2 |w|^2``; only `AdamW` differs.
    """

    learning_rate: float | Schedule = 1e-3
    _: KW_ONLY
    weight_decay: float | Mapping[str, float] = 0.0

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            positive(f"{self._name}'s learning_rate", self.learning_rate)
        decays = self.weight_decay
        for value in decays.values() if isinstance(decays, Mapping) else [decays]:
            self._not_negative("weight_decay", value)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _fraction(self, *names: str) -> None:
        """Of these settings each lies in [0, 1)."""
        for name in names:
            value = getattr(self, name)
            if not 0.0 <= real(value, f"{self._name}'s {name}") < 1.0:
                raise UsageError(f"{self._name}'s {name} lies in [0, 1), got {value}")

    def _not_negative(self, name: str, value: float) -> None:
        if real(value, f"{self._name}'s {name}") < 0:
            raise UsageError(f"{self._name}'s {name} is not negative, got {value}")

    def _switch(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise UsageError(f"{self._name}'s {name} is True or False, got {value!r}")

    def build(self, numerics: Numerics) -> _core.Optimiser32:
        """The core's rule for it."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimiser):
    r"""Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov's.

    With the gradient g::

        b <- momentum b + g
        w <- w - learning_rate b                   or, with nesterov, learning_rate (g + momentum b)

    as PyTorch has it (Sutskever, Martens, Dahl & Hinton, *On the importance of initialization and
    momentum in deep learning*, 2013, keep the rate inside of b, which differs where rates change).

    Raises:
        UsageError: a number that is not finite, a rate that is not positive, a momentum outside
            [0, 1), a negative weight decay, Nesterov's without momentum.
    """

    learning_rate: float | Schedule = 1e-3
    momentum: float = 0.0
    _: KW_ONLY
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fraction("momentum")
        self._switch("nesterov")
        if self.nesterov and not self.momentum:
            raise UsageError("SGD's nesterov needs a momentum above 0")

    def build(self, numerics: Numerics) -> _core.Optimiser32:
        """The core's rule for it."""
        return numerics.Optimiser.sgd(self.momentum, self.nesterov)


@dataclass(frozen=True)
class RMSProp(Optimiser):
    r"""RMSProp (Tieleman & Hinton, lecture 6.5 of *Neural networks for machine learning*, 2012).

    With the gradient g::

        v <- alpha v + (1 - alpha) g^2
        a <- alpha a + (1 - alpha) g               with centered, else a = 0
        d =  g / (sqrt(v - a^2) + epsilon)
        b <- momentum b + d                        without momentum b = d
        w <- w - learning_rate b

    Centring and momentum as in Graves 2013 (arXiv:1308.0850, equations 38 to 41), with epsilon
    outside of the root, as PyTorch has it.

    Raises:
        UsageError: a number that is not finite, a rate or epsilon that is not positive, alpha or
            momentum outside [0, 1), a negative weight decay; when a net takes it, a rate or epsilon
            that is zero or infinite in the net's dtype.
    """

    learning_rate: float | Schedule = 1e-2
    alpha: float = 0.99
    epsilon: float = 1e-8
    _: KW_ONLY
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("RMSProp's epsilon", self.epsilon)
        self._fraction("alpha", "momentum")
        self._switch("centered")

    def build(self, numerics: Numerics) -> _core.Optimiser32:
        """The core's rule for it."""
        epsilon = positive("RMSProp's epsilon", self.epsilon, numerics)
        return numerics.Optimiser.rmsprop(self.alpha, epsilon, self.momentum, self.centered)


@dataclass(frozen=True)
class Adagrad(Optimiser):
    r"""Adagrad (Duchi, Hazan & Singer, *Adaptive subgradient methods*, JMLR 2011, figure 1).

    With the gradient g, and s that begins at `initial_accumulator`::

        s <- s + g^2
        w <- w - learning_rate g / (sqrt(s) + epsilon)

    or, with `epsilon_inside`, as Karpathy's min-char-rnn has it, ``g / sqrt(s + epsilon)``.

    Raises:
        UsageError: a number that is not finite, a rate or epsilon that is not positive, a negative
            accumulator or weight decay; when a net takes it, a rate or epsilon that is zero or
            infinite in the net's dtype.
    """

    learning_rate: float | Schedule = 1e-2
    epsilon: float = 1e-10
    _: KW_ONLY
    epsilon_inside: bool = False
    initial_accumulator: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("Adagrad's epsilon", self.epsilon)
        self._not_negative("initial_accumulator", self.initial_accumulator)
        self._switch("epsilon_inside")

    def build(self, numerics: Numerics) -> _core.Optimiser32:
        """The core's rule for it."""
        epsilon = positive("Adagrad's epsilon", self.epsilon, numerics)
        start = self.initial_accumulator
        if start:
            positive("Adagrad's initial_accumulator", start, numerics)
        return numerics.Optimiser.adagrad(epsilon, self.epsilon_inside, start)


@dataclass(frozen=True)
class Adam(Optimiser):
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
            outside [0, 1), a negative weight decay; when a net takes it, a rate or epsilon that is
            zero or infinite in the net's dtype.
    """

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    _: KW_ONLY
    epsilon_hat: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("Adam's epsilon", self.epsilon)
        self._fraction("beta1", "beta2")
        self._switch("epsilon_hat")

    def build(self, numerics: Numerics) -> _core.Optimiser32:
        """The core's rule for it."""
        epsilon = positive("Adam's epsilon", self.epsilon, numerics)
        return numerics.Optimiser.adam(self.beta1, self.beta2, epsilon, self.epsilon_hat, False)


@dataclass(frozen=True)
class AdamW(Optimiser):
    r"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

    The weight decay is no part of the gradient, and so not divided by ``sqrt(v)``: first ::

        w <- (1 - learning_rate weight_decay) w

    then the update of `Adam` with ``epsilon_hat=False``. As PyTorch has it, the decay is multiplied
    by the whole learning rate, not only by the schedule's part of it.

    Raises:
        UsageError: as for `Adam`.
    """

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    _: KW_ONLY
    weight_decay: float | Mapping[str, float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("AdamW's epsilon", self.epsilon)
        self._fraction("beta1", "beta2")

    def build(self, numerics: Numerics) -> _core.Optimiser32:
        """The core's rule for it."""
        epsilon = positive("AdamW's epsilon", self.epsilon, numerics)
        return numerics.Optimiser.adam(self.beta1, self.beta2, epsilon, False, True)


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


def matching(pattern: str, names: Sequence[str], what: str, kind: str = "weight") -> list[str]:
    """The names, each that of a `kind`, that fit a pattern (`fnmatch`): one of them at least.

    Raises:
        UsageError: there is none, or the pattern is no text.
    """
    if not isinstance(pattern, str):
        raise UsageError(f"a pattern of {what} is text, got {shown(pattern)}")
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(
            f"the pattern {pattern!r} of {what} fits no {kind}; there are {', '.join(names)}"
        )
    return found


def decays(optimizer: Optimiser, names: Sequence[str]) -> dict[str, float]:
    """The weight decay of each weight that decays.

    Raises:
        UsageError: see `matching`.
    """
    given = optimizer.weight_decay
    by_name: dict[str, float] = {}
    for pattern, decay in (given if isinstance(given, Mapping) else {"*": given}).items():
        for name in matching(pattern, names, "weight_decay"):
            by_name.setdefault(name, float(decay))
    return {name: decay for name, decay in by_name.items() if decay}


def frozen(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The weights that fit one of the patterns.

    Raises:
        UsageError: see `matching`; or none is left to train.
    """
    found = {
        name
        for pattern in listed(patterns, "frozen")
        for name in matching(pattern, names, "frozen")
    }
    if names and len(found) == len(names):
        raise UsageError("all weights are frozen; there is nothing to train")
    return sorted(found)
