"""The layers of a `Sequential`: plain values that compare, print, and go into a file.

Each is built by the function of `bptt.layers` of the same name, which says what it computes, and
which checks its settings when the net is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
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
    random = False  #: whether the deep mode leaves something out at random

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Recurrent(Layer):
    """What `RNN`, `LSTM` and `GRU` share, as keywords; `bptt.layers` says what it does.

    Attributes:
        initial_state: ``"learned"``, or None for zeros.
        zoneout: the share of the state that stays as it was; of an LSTM one number, or two for c
            and h.
        dropout: the share of the input that is dropped, for a whole sequence.
        recurrent_dropout: the same of the state that the weights see.
    """

    initial_state: Literal["learned"] | None = None
    zoneout: float | tuple[float, float] = 0.0
    dropout: float = 0.0
    recurrent_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        start: object = self.initial_state
        if not (start is None or (isinstance(start, str) and start == "learned")):
            raise UsageError(f'initial_state is "learned" or None, got {arrays.shown(start)}')
        if isinstance(self.zoneout, list):  # as JSON has a pair
            object.__setattr__(self, "zoneout", tuple(self.zoneout))

    def __repr__(self) -> str:
        """What every layer of its kind has, then what it has of these options."""
        own = sorted(fields(self), key=lambda field: field.kw_only is True)
        values = {field.name: getattr(self, field.name) for field in own}
        said = [
            f"{field.name}={values[field.name]!r}"
            for field in own
            if not field.kw_only or values[field.name] != field.default
        ]
        return f"{type(self).__name__}({', '.join(said)})"

    def options(self) -> dict[str, Any]:
        """Keywords for the function of `bptt.layers`."""
        return {name: getattr(self, name) for name in vars(self) if name != "width"}

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether the deep mode leaves something out at random."""
        return self.zoneout not in (0.0, (0.0, 0.0)) or bool(self.dropout or self.recurrent_dropout)


@dataclass(frozen=True, repr=False)
class RNN(Recurrent):
    """A simple recurrent layer: `bptt.layers.rnn`.

    Attributes:
        activation: ``"tanh"`` or ``"relu"``.

    Raises:
        ShapeError: a width that is no positive integer.
        UsageError: another initial state; when the net is made, another activation, or a
            probability that is none.
    """

    width: int
    activation: Literal["tanh", "relu"] = "tanh"

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        return layers.rnn(bp, x, self.width, **self.options())


@dataclass(frozen=True, repr=False)
class LSTM(Recurrent):
    """A long short-term memory layer: `bptt.layers.lstm`, whose h goes on.

    Attributes:
        peephole: ``"diagonal"``, ``"full"`` or None.
        coupled: the forget gate is one minus the input gate.
        projection: features of the result, when it is a projection of so many; `width` are then
            those of the cell.
        layer_norm: layer normalisation.
        epsilon: of `layer_norm`.

    Raises:
        ShapeError: a width or a projection that is no positive integer.
        UsageError: a `coupled` or `layer_norm` that is not True or False, another initial state;
            when the net is made, another peephole, forms that are not made for each other, or a
            probability that is none.
    """

    width: int
    peephole: Literal["full", "diagonal"] | None = None
    coupled: bool = False
    projection: int | None = None
    layer_norm: bool = False
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("coupled", "layer_norm"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise UsageError(f"{name} is True or False, got {arrays.shown(value)}")
        if self.projection is not None:
            projection, _ = arrays.shape_of((self.projection, 1), "the projection of LSTM")
            object.__setattr__(self, "projection", projection)

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        _, h = layers.lstm(bp, x, self.width, **self.options())
        return h


@dataclass(frozen=True, repr=False)
class GRU(Recurrent):
    """A layer of gated recurrent units: `bptt.layers.gru`.

    Attributes:
        reset: whether the reset gate comes ``"after"`` the product with the state or ``"before"``.

    Raises:
        ShapeError: a width that is no positive integer.
        UsageError: another initial state; when the net is made, another reset, or a probability
            that is none.
    """

    width: int
    reset: Literal["after", "before"] = "after"

    def build(self, bp: BPTT, x: Symbol) -> Symbol:
        """The layer on `x`, in the frame that is traced: ``(width, batch)``."""
        return layers.gru(bp, x, self.width, **self.options())


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
