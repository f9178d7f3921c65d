"""What ``bptt train`` is told: a TOML file, checked before anything is read or trained.

Each message names the key that is wrong, such as ``training.window`` or ``layers[1].width``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from bptt import arrays, optimisers, specs
from bptt.cli import tables
from bptt.errors import BpttError, UsageError
from bptt.optimisers import ClipByGlobalNorm, ClipByValue, Optimiser
from bptt.sequential import LOSSES
from bptt.specs import Layer

Made = TypeVar("Made")

_OPTIMISERS = {
    kind.__name__: kind
    for kind in (
        optimisers.SGD,
        optimisers.RMSProp,
        optimisers.Adagrad,
        optimisers.Adam,
        optimisers.AdamW,
    )
}
_CLIPS: dict[str, type[ClipByValue] | type[ClipByGlobalNorm]] = {
    kind.__name__: kind for kind in (ClipByValue, ClipByGlobalNorm)
}


@dataclass(frozen=True)
class Data:
    """The table ``[data]``."""

    file: Path  #: of the table; relative to the configuration
    inputs: list[str]  #: columns in
    targets: list[str]  #: columns out
    ahead: int = 0  #: targets are so many rows later than inputs
    validation: float = 0.0  #: the last share of the rows is held out
    standardize: bool = True  #: each column to mean 0 and deviation 1 of the rows trained on

    def __post_init__(self) -> None:
        tables.kind_of(self.file)


@dataclass(frozen=True)
class Net:
    """The table ``[net]``."""

    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Training:
    """The table ``[training]``."""

    epochs: int = 10
    window: int = 64
    loss: str = "mse"
    optimizer: Optimiser | None = None
    clip: ClipByValue | ClipByGlobalNorm | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Configuration:
    """All of it."""

    data: Data
    net: Net
    layers: list[Layer]
    training: Training
    output: Path  #: where the trained net is written; relative to the configuration


def read(path: Path) -> Configuration:
    """The configuration in a file.

    Raises:
        UsageError: the file is no TOML, or a key is missing, unknown or wrong; the message names
            it.
        OSError: the file cannot be read.
    """
    found = _toml(path)
    known = ("data", "net", "layers", "training", "output")
    _known(found, known, "")
    for name in ("data", "layers", "output"):
        if name not in found:
            raise UsageError(f"{name} is missing")
    if not isinstance(found["layers"], list) or not found["layers"]:
        raise UsageError("layers: a list of tables [[layers]], one at least")

    def place(value: object, key: str) -> Path:
        return path.parent / _text(value, key)

    return Configuration(
        _table(
            Data,
            found["data"],
            "data",
            {
                "file": place,
                "inputs": _names,
                "targets": _names,
                "ahead": lambda value, key: arrays.integer(value, key, 0),
                "validation": _share,
                "standardize": _switch,
            },
        ),
        _table(
            Net,
            found.get("net", {}),
            "net",
            {
                "seed": lambda value, key: arrays.integer(value, key, 0, 2**64 - 1),
                "dtype": lambda value, key: _choice(value, key, ("float32", "float64")),
            },
        ),
        [
            _named(f"layers[{number}]", lambda each=each: specs.layer(each))  # type: ignore[misc]
            for number, each in enumerate(found["layers"])
        ],
        _table(
            Training,
            found.get("training", {}),
            "training",
            {
                "epochs": lambda value, key: arrays.integer(value, key, 0),
                "window": lambda value, key: arrays.integer(value, key, 1),
                "loss": lambda value, key: _choice(value, key, tuple(LOSSES)),
                "optimizer": lambda value, key: _kind(value, key, _OPTIMISERS),
                "clip": lambda value, key: _kind(value, key, _CLIPS),
                "patience": lambda value, key: arrays.integer(value, key, 1),
            },
        ),
        place(found["output"], "output"),
    )


def _toml(path: Path) -> dict[str, Any]:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        reader = importlib.import_module(name)
    except ImportError:
        raise UsageError(f"bptt train needs tomli, an extra: {tables.INSTALL}") from None
    try:
        with path.open("rb") as file:
            found: dict[str, Any] = reader.load(file)
    except ValueError as error:  # of TOML, or of text
        raise UsageError(f"{path} is no TOML: {error}") from None
    return found


def _table(
    kind: Callable[..., Made], found: object, name: str, read: Mapping[str, Callable[..., Any]]
) -> Made:
    """A table, each of its keys read by the function for it."""
    if not isinstance(found, dict):
        raise UsageError(f"{name} is a table [{name}], got {arrays.shown(found)}")
    _known(found, tuple(read), f"{name}.")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in found and field.default is field.default_factory:
            raise UsageError(f"{name}.{field.name} is missing")
    values = {key: read[key](value, f"{name}.{key}") for key, value in found.items()}
    return _named(name, lambda: kind(**values))


def _kind(found: object, key: str, kinds: Mapping[str, Callable[..., Made]]) -> Made:
    """One of several things with settings, such as ``{kind = "Adam", learning_rate = 0.01}``."""
    if not isinstance(found, dict):
        raise UsageError(f"{key} is a table with a kind, got {arrays.shown(found)}")
    settings = dict(found)
    kind = _choice(settings.pop("kind", None), f"{key}.kind", tuple(kinds))
    names = tuple(field.name for field in fields(kinds[kind]) if field.init)  # type: ignore[arg-type]
    _known(settings, names, f"{key}.")
    try:
        return _named(key, lambda: kinds[kind](**settings))
    except TypeError as error:
        raise UsageError(f"{key}: {error}") from None


def _named(key: str, make: Callable[[], Made]) -> Made:
    """What `make` gives; its error names the key."""
    try:
        return make()
    except (BpttError, MemoryError) as error:
        raise UsageError(f"{key}: {error}") from None


def _known(found: Mapping[str, object], known: tuple[str, ...], prefix: str) -> None:
    for key in found:
        if key not in known:
            raise UsageError(f"{prefix}{key}: no such key; there are {', '.join(known)}")


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{key} is text, got {arrays.shown(value)}")
    return value


def _choice(value: object, key: str, names: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in names:
        raise UsageError(f"{key} is one of {', '.join(names)}; got {arrays.shown(value)}")
    return value


def _names(value: object, key: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{key} is a list of columns, got {arrays.shown(value)}")
    return [_text(each, f"{key}[{number}]") for number, each in enumerate(value)]


def _share(value: Any, key: str) -> float:
    share = arrays.real(value, key)
    if not 0 <= share < 1:
        raise UsageError(f"{key} lies in [0, 1), got {value}")
    return share


def _switch(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{key} is true or false, got {arrays.shown(value)}")
    return value
