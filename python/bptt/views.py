"""Mappings through which weights and state are read and set by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy.typing as npt

from bptt.arrays import finite, lanes, matrix
from bptt.errors import UnknownNameError
from bptt.numerics import Array, State, Weights

if TYPE_CHECKING:
    from bptt.net import Net


class Parameters(Mapping[str, Array]):
    """The weights by full name: reading copies, ``parameters["rnn_layer_0/W_aa"] = a`` sets.

    Raises:
        UnknownNameError: no weight of this name; a `UsageError` and a `KeyError`.
        ShapeError: an array of another shape than the weight.
        NonFiniteError: NaN or infinity.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._weights = net.weights

    def __getitem__(self, name: str) -> Array:
        with self._net.exclusive:
            return self._weights.get(self._known(name))

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        what = f"the weight {self._known(name)!r}"
        with self._net.exclusive:
            self._weights.set(name, finite(matrix(value, self._net.numerics.dtype, what), what))

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights.names)

    def __len__(self) -> int:
        return len(self._weights.names)

    def __repr__(self) -> str:
        return _listing(self, self._weights)

    def _known(self, name: str) -> str:
        return known(name, self._weights.names, "weight")


class StateView(Mapping[str, Array]):
    """The recurrent state of one mode by name, each ``(features, batch)``.

    Reading copies; ``state["hidden-0"] = a`` sets, and a column ``(features, 1)`` sets every lane.

    Raises:
        UnknownNameError: no state of this name; a `UsageError` and a `KeyError`.
        ShapeError: an array of another shape than the state.
        NonFiniteError: NaN or infinity.
    """

    def __init__(self, net: Net, state: State) -> None:
        self._net = net
        self._state = state
        self._names = state.names  # a state's names never change

    def __getitem__(self, name: str) -> Array:
        with self._net.exclusive:
            return self._state.get(known(name, self._names, "state"))

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        shape = self._state.shape(known(name, self._names, "state"))
        what = f"the state {name!r}"
        with self._net.exclusive:
            self._state.set(name, finite(lanes(value, shape, self._net.numerics.dtype, what), what))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return _listing(self, self._state)


def known(name: str, names: list[str], what: str) -> str:
    """`name`, if it is one of `names`.

    Raises:
        UnknownNameError: it is not; the message lists those there are.
    """
    if name not in names:
        there = ", ".join(names) or "none"
        raise UnknownNameError(f"there is no {what} {name!r}; there are: {there}")
    return name


def _listing(view: Mapping[str, Array], shaped: Weights | State) -> str:
    entries = ", ".join(f"{name} {shaped.shape(name)}" for name in view)
    return f"<{type(view).__name__}: {entries}>"
