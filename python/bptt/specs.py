"""The layers of a `Sequential`: plain values that compare, print, and go into a file.

Each is built by the function of `bptt.layers` of the same name, which says what it computes, and
which checks its settings when the net is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bptt import arrays, layers, ops
from bptt.errors import UsageError
from bptt.symbol import Symbol

if TYPE_CHECKING:
    from bptt.model import BPTT

_ACTIVATIONS: dict[str, Callable[[Symbol], Symbol]] = {
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
}


class Layer:
    """What all layers share.

    Attributes:
        width: features of the result.
    """

    width: int

    def __post_init__(self) -> None:
        width, _ = arrays.shape_of((self.width, 1), f"the result of {type(self).__name__}")
        object.__setattr__(self, "width", width)  # a Python integer, which JSON has

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """The layer as JSON has it; `layer` reads it.

        Raises:
            UsageError: a setting that is no plain value.
        """
        return {"kind": type(self).__name__, **vars(self)}


@dataclass(frozen=True)
class RNN(Layer):
    """A simple recurrent layer: `bptt.layers.rnn`.

    Attributes:
        activation: ``"tanh"`` or ``"relu"``.

    Raises:
        ShapeError: a width that is no positive integer.
        UsageError: when the net is made, another activation.
    """

    width: int
    activation: Literal["tanh", "relu"] = "tanh"

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        return layers.rnn(bp, x, self.width, activation=self.activation)


@dataclass(frozen=True)
class LSTM(Layer):
    """A long short-term memory layer: `bptt.layers.lstm`, whose h goes on.

    Attributes:
        peephole: ``"diagonal"``, ``"full"`` or None.
        coupled: the forget gate is one minus the input gate.
        projection: features of the result, when it is a projection of so many; `width` are then
            those of the cell.

    Raises:
        ShapeError: a width or a projection that is no positive integer.
        UsageError: a `coupled` that is not True or False; when the net is made, another peephole,
            or a projection of coupled gates.
    """

    width: int
    peephole: Literal["full", "diagonal"] | None = None
    coupled: bool = False
    projection: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.coupled, bool):
            raise UsageError(f"coupled is True or False, got {arrays.shown(self.coupled)}")
        if self.projection is not None:
            projection, _ = arrays.shape_of((self.projection, 1), "the projection of LSTM")
            object.__setattr__(self, "projection", projection)

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        _, h = layers.lstm(
            bp,
            x,
            self.width,
            peephole=self.peephole,
            coupled=self.coupled,
            projection=self.projection,
        )
        return h


@dataclass(frozen=True)
class GRU(Layer):
    """A layer of gated recurrent units: `bptt.layers.gru`.

    Attributes:
        reset: whether the reset gate comes ``"after"`` the product with the state or ``"before"``.

    Raises:
        ShapeError: a width that is no positive integer.
        UsageError: when the net is made, another reset.
    """

    width: int
    reset: Literal["after", "before"] = "after"

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        return layers.gru(bp, x, self.width, reset=self.reset)


@dataclass(frozen=True)
class Dense(Layer):
    """A dense layer, the same at every time step: `bptt.layers.dense`.

    Attributes:
        activation: ``"tanh"``, ``"sigmoid"``, ``"relu"``, a function of symbols, or None. A net
            with a function that is not one of these three of `bptt` cannot be saved.

    Raises:
        ShapeError: a width that is no positive integer.
        UsageError: another activation.
    """

    width: int
    activation: str | Callable[[Symbol], Symbol] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.activation
        known = isinstance(given, str) and given in _ACTIVATIONS
        if not (given is None or callable(given) or known):
            names = ", ".join(f'"{name}"' for name in _ACTIVATIONS)
            raise UsageError(
                f"activation is {names}, a function or None, got {arrays.shown(given)}"
            )
        for name, function in _ACTIVATIONS.items():
            if given is function:
                object.__setattr__(self, "activation", name)

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        given = self.activation
        function = _ACTIVATIONS[given] if isinstance(given, str) else given
        return layers.dense(bp, x, self.width, activation=function)

    def described(self) -> dict[str, Any]:
        """The layer as JSON has it; `layer` reads it."""
        if callable(self.activation):
            raise UsageError(
                f"a net whose activation is {self.activation!r} cannot be saved: a file holds the "
                "names of bptt's own"
            )
        return super().described()


@dataclass(frozen=True)
class Embedding(Layer):
    """A learned column for each symbol of a finite set: `bptt.layers.embedding`.

    As the first layer it takes one feature, integers from 0 to count - 1.

    Attributes:
        count: how many symbols there are.

    Raises:
        ShapeError: a width that is no positive integer.
        UsageError: a count below 1; when the net is made, one that its dtype cannot tell apart.
    """

    count: int
    width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        count = arrays.integer(self.count, "count, the number of symbols,", 1)
        object.__setattr__(self, "count", count)

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        return layers.embedding(bp, x, self.count, self.width)


KINDS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (RNN, LSTM, GRU, Dense, Embedding)}
"""All layers there are, by name."""


def layer(description: object) -> Layer:
    """The layer that `Layer.described` described.

    Raises:
        UsageError: no such kind, or other settings than it has.
        ShapeError: see the layers.
    """
    if not isinstance(description, Mapping):
        raise UsageError(f"a layer is a table of settings, got {arrays.shown(description)}")
    settings = dict(description)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"kind is {', '.join(KINDS)}, got {arrays.shown(kind)}")
    try:
        return KINDS[kind](**settings)
    except TypeError as error:
        raise UsageError(f"{kind}: {str(error).replace('__init__() ', '')}") from None
