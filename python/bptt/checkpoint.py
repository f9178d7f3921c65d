"""Checkpoints: everything that is needed to go on bit for bit, in one safetensors file.

Tensors are plain named matrices in the net's dtype: ``weights/NAME``, ``state/DEPTH/NAME``,
``start/DEPTH/NAME`` (the starting values) and ``training/N/MOMENT/NAME``. All else is one JSON
object in the file's metadata, beside a checksum over it and over all tensors.

A file is data from outside. It is read whole, then checked whole (container, format, checksum,
kinds and ranges of every field, names, shapes and numbers of every tensor), and only then does a
net get any of it. The checksum finds damage; it is no signature: that it fits proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from bptt import files, schedules
from bptt.arrays import shown
from bptt.errors import CheckpointError, UsageError
from bptt.net import Net
from bptt.numerics import Array
from bptt.symbol import Symbol

if TYPE_CHECKING:
    from bptt.training import TrainingOperation

FORMAT = 1
_ABOUT, _CHECKSUM = "bptt", "checksum"  # keys of the file's metadata
_ARCHITECTURE = "architecture"  # the field that only a net made of layers has
_NEXT_WINDOW = "next_window"  # the one that only a net has that was trained on a dataset
_KINDS = {"float32": ("F32", "<f4"), "float64": ("F64", "<f8")}  # safetensors' name, numpy's
_DEPTHS = ("deep", "shallow")
_OF_LANES = ("state/deep/", "start/deep/")  # tensors that have a column for each lane, or one
_LARGEST_HEADER = 100_000_000  # bytes; safetensors' own bound
_INT64, _UINT64 = 2**63, 2**64
_STEPS = 2**53  # as many as a float64 tells apart, and far from where counting on would overflow
_parts: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = deserialize


@dataclass(frozen=True)
class SavedTraining:
    """A training operation without its loss: what a checkpoint keeps of it.

    Attributes:
        optimizer: the kind of optimiser and the settings it was made with.
        learning_rate: the rate of the next update; None if a schedule tells it.
        steps: updates made.
        moments: by ``MOMENT/NAME``.
        source: where it comes from, for messages.
    """

    optimizer: dict[str, Any]
    learning_rate: float | None
    steps: int
    moments: dict[str, Array]
    source: str

    def saved(self) -> SavedTraining:
        """Itself: what is kept of a training operation that nobody took up yet."""
        return self

    @classmethod
    def of(cls, train: TrainingOperation, names: list[str]) -> SavedTraining:
        """What to keep of a training operation on the weights of these names."""
        moments = {
            f"{moment}/{name}": train.core.get_moment(moment, name)
            for moment in train.core.moments
            for name in names
        }
        source = "the net that was copied"
        rate = None if train.scheduled else float(train.learning_rate)
        return cls(_described(train), rate, train.steps, moments, source)

    @property
    def names_of_moments(self) -> list[str]:
        """Which moments the optimiser has, sorted."""
        return sorted({key.split("/", 1)[0] for key in self.moments})

    def resume(self, train: TrainingOperation) -> None:
        """Let `train` go on where the saved one stood.

        The rate that was set last is taken up too, unless the optimiser is now made with another.

        Raises:
            CheckpointError: the saved optimiser is of another kind; `train` is left as it was.
        """
        described = _described(train)
        if described["kind"] != self.optimizer["kind"]:
            raise CheckpointError(
                f"{self.source} was trained with {self.optimizer['kind']}, not {described['kind']}"
            )
        names = train.loss.trace.weights.names
        expected = {f"{moment}/{name}" for moment in train.core.moments for name in names}
        if {*self.moments} != expected:
            raise CheckpointError(
                f"{self.source} has the moments {self.names_of_moments} of {described['kind']}; "
                f"expected {sorted(train.core.moments)}"
            )
        for key, values in self.moments.items():
            moment, name = key.split("/", 1)
            train.core.set_moment(moment, name, values)
        train.core.steps = self.steps
        if (
            self.learning_rate is not None
            and described["learning_rate"] == self.optimizer["learning_rate"]
            and self.learning_rate != described["learning_rate"]
        ):
            train.assign(self.learning_rate)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and is sound in itself, not yet applied to a net.

    Attributes:
        path: where it came from.
        about: the metadata.
        tensors: by the names of the file.
    """

    path: str
    about: dict[str, Any]
    tensors: dict[str, Array]

    def part(self, net: Net, first: int, lanes: int) -> Checkpoint:
        """What a net gets whose first lane is number `first` of all `lanes`.

        Of a shallow graph with another number of lanes than the saved one the state is the net's.

        Raises:
            CheckpointError: it has another number of lanes.
        """
        here = net.traces["deep"].graph.lanes

        def share(name: str, saved: Array, own: Array) -> Array:
            columns, wanted = saved.shape[1], own.shape[1]
            if not name.startswith(_OF_LANES):
                return saved if columns == wanted or name.startswith("weights/") else own
            if columns == lanes and wanted in (1, here):
                lane: Array = saved[:, first : first + here]
                if wanted == 1 and (lane == lane[:, :1]).all():
                    lane = lane[:, :1]
                return lane
            if columns == 1 and name.startswith("start/"):
                return np.repeat(saved, wanted, axis=1)
            if columns != wanted:
                raise CheckpointError(
                    f"{self.path} has {columns} lanes in {name!r}; the ranks have {lanes} together"
                )
            return saved

        own = dict(_tensors(net))
        shared = {
            name: share(name, saved, own[name]) if name in own and saved.ndim == 2 else saved
            for name, saved in self.tensors.items()
        }
        return replace(self, tensors=shared)

    def apply(self, net: Net) -> None:
        """Set all of a fresh net from it; everything is checked first.

        Raises:
            CheckpointError: the file belongs to another frame, or lacks something.
        """
        found = {name: values.shape for name, values in self.tensors.items()}
        expected = {name: values.shape for name, values in _tensors(net)}
        if self.about["structure"] != _structure(net):
            raise CheckpointError(
                f"{self.path} holds a net of another frame function: "
                + _difference(self.about["structure"], _structure(net), found, expected)
            )
        for number, saved in enumerate(self.about["trainings"]):
            for moment in saved["moments"]:
                for name in net.weights.names:
                    key = f"training/{number}/{moment}/{name}"
                    expected[key] = net.weights.shape(name)
        if found != expected:
            raise CheckpointError(f"{self.path}: {_first_difference(found, expected)}")

        for name in net.weights.names:
            net.weights.set(name, self.tensors[f"weights/{name}"])
        for depth, state in net.states.items():
            for name in state.names:
                state.set(name, self.tensors[f"state/{depth}/{name}"])
                recurrence = net.traces[depth].recurrences[name]
                if isinstance(recurrence.start, Symbol):
                    continue
                start = self.tensors[f"start/{depth}/{name}"]
                start.setflags(write=False)
                recurrence.traced &= bool(np.array_equal(start, recurrence.start))
                recurrence.start = start
            state.frame = self.about["frames"][depth]
        net.next_frame = self.about["next_frame"]
        epoch, window = self.about.get(_NEXT_WINDOW, [0, 0])
        net.next_window = epoch, window
        net.trainings = [
            SavedTraining(
                saved["optimizer"],
                saved["learning_rate"],
                saved["steps"],
                {
                    name.split("/", 2)[2]: values
                    for name, values in self.tensors.items()
                    if name.startswith(f"training/{number}/")
                },
                self.path,
            )
            for number, saved in enumerate(self.about["trainings"])
        ]


def text_of(path: str | os.PathLike[str]) -> str:
    """The path as text.

    Raises:
        UsageError: it is neither text nor an `os.PathLike`, or names no file.
    """
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise UsageError(f"a path is text or an os.PathLike, got {shown(path)}") from None
    if not os.path.basename(name) or "\0" in name:
        raise UsageError(f"{path!r} is not the path of a file")
    return name


def check_place(path: str | os.PathLike[str]) -> None:
    """See before a long run that a checkpoint could be written there.

    Raises:
        CheckpointError: there is no such folder, or a folder is in its place.
        UsageError: see `text_of`.
    """
    name = text_of(path)
    try:
        files.check_place(name)
    except OSError as error:
        raise CheckpointError(f"cannot write {name}: {error}") from error


def write(
    net: Net,
    path: str | os.PathLike[str],
    architecture: dict[str, Any] | None = None,
    others: Mapping[str, Array] | None = None,
) -> None:
    """Write a checkpoint; the path holds a whole old or a whole new file at every moment.

    Args:
        net: what to write.
        path: where to.
        architecture: what the frame is made of, as JSON has it; none for a user's own function.
        others: tensors to take instead of the net's own.

    Raises:
        CheckpointError: the file system refuses, or the net holds a number that is not finite, so
            that the file could not be loaded; what was at the path stays.
        UsageError: see `text_of`.
    """
    name = text_of(path)
    about, tensors = contents(net)
    tensors.update(others or {})
    if architecture is not None:
        about[_ARCHITECTURE] = architecture
    broken = _not_finite(tensors)
    if broken:
        raise CheckpointError(f"cannot write {name}: {broken}; what was there stays")
    try:
        files.replace(name, encode(about, tensors))
    except OSError as error:
        raise CheckpointError(f"cannot write {name}: {error}") from error


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: no such file, a damaged or a foreign one, or one of a newer format.
        UsageError: see `text_of`.
    """
    name = text_of(path)
    try:
        content = files.read(name)
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error}") from error
    except MemoryError:
        raise CheckpointError(f"cannot read {name}: it is larger than the memory") from None
    return decode(content, name)


def of_lanes(net: Net) -> dict[str, Array]:
    """What of a checkpoint is of the lanes of the deep graph."""
    return {
        name: values
        for name, values in _tensors(net)
        if name.startswith(("state/deep", "start/deep"))
    }


def joined(parts: Sequence[tuple[int, dict[str, Array]]]) -> dict[str, Array]:
    """The same of several nets together: of each the number of its lanes, and its tensors.

    Raises:
        CheckpointError: one has neither a column for each lane, nor the same one in all nets.
    """
    lanes = [count for count, _ in parts]
    whole = {}
    for name in parts[0][1]:
        each = [tensors[name] for _, tensors in parts]
        common = all(np.array_equal(values, each[0]) for values in each) and each[0].shape[1] == 1
        own = [values.shape[1] for values in each] == lanes
        if not own and not common:
            raise CheckpointError(f"the ranks do not have one column of {name!r} for each lane")
        # A starting value of one column is that of all lanes.
        one = common and (not own or name.startswith("start/"))
        whole[name] = each[0] if one else np.concatenate(each, axis=1)
    return whole


def contents(net: Net) -> tuple[dict[str, Any], dict[str, Array]]:
    """All that a checkpoint of this net holds: the metadata, and the tensors by name."""
    tensors = dict(_tensors(net))
    trainings = [each.saved() for each in net.trainings]
    for number, saved in enumerate(trainings):
        for key, values in saved.moments.items():
            tensors[f"training/{number}/{key}"] = values
    about = {
        "format": FORMAT,
        "dtype": net.numerics.dtype.name,
        "seed": net.seed,
        "num_loops": net.traces["deep"].frames,
        "structure": _structure(net),
        "frames": {depth: state.frame for depth, state in net.states.items()},
        "next_frame": net.next_frame,
        "trainings": [
            {
                "optimizer": saved.optimizer,
                "learning_rate": saved.learning_rate,
                "steps": saved.steps,
                "moments": saved.names_of_moments,
            }
            for saved in trainings
        ],
    }
    if net.next_window != (0, 0):
        about[_NEXT_WINDOW] = [*net.next_window]
    if (segment := net.traces["deep"].segment) is not None:
        about["recompute_every"] = segment
    return about, tensors


def encode(about: dict[str, Any], tensors: Mapping[str, Array]) -> bytes:
    """The content of a checkpoint file."""
    plain = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    kind, little = _KINDS[about["dtype"]]
    text = json.dumps(about)
    parts = {
        name: (kind, list(values.shape), values.astype(little, copy=False).tobytes())
        for name, values in plain.items()
    }
    return serialize(plain, {_ABOUT: text, _CHECKSUM: checksum(text, parts)})


def decode(content: bytes, name: str) -> Checkpoint:
    """Check the content of a file as far as is possible without a net.

    Args:
        content: what the file holds.
        name: the file, for messages.

    Raises:
        CheckpointError: says what is wrong with it.
    """
    header = _header(content, name)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or _ABOUT not in metadata:
        raise CheckpointError(f"{name} is a safetensors file, but no checkpoint of bptt")
    about = _json(metadata[_ABOUT], f"{name} is damaged: its metadata")
    version = about.get("format")
    if type(version) is int and version > FORMAT:
        raise CheckpointError(
            f"{name} has format {version}, of a newer bptt; this version reads format {FORMAT}"
        )
    try:
        parts = {
            key: (part["dtype"], part["shape"], bytes(part["data"]))
            for key, part in _parts(content)
        }
    except SafetensorError as error:
        raise CheckpointError(f"{name} is damaged: {error}") from error
    if {*metadata} != {_ABOUT, _CHECKSUM} or {*parts} != {*header} - {"__metadata__"}:
        raise CheckpointError(f"{name} is damaged: there is more in its header than belongs there")
    if metadata[_CHECKSUM] != checksum(metadata[_ABOUT], parts):
        raise CheckpointError(f"{name} is damaged: its checksum does not fit")
    try:
        _check(about)
    except _Unfit as error:
        raise CheckpointError(f"{name} is damaged: its metadata has {error}") from None
    expected, little = _KINDS[about["dtype"]]
    for key, (kind, _, _) in parts.items():
        if kind != expected:
            raise CheckpointError(f"{name}: tensor {key!r} holds {kind}; expected {expected}")
    tensors = {
        key: np.frombuffer(data, little).astype(about["dtype"], copy=False).reshape(shape)
        for key, (_, shape, data) in parts.items()
    }
    broken = _not_finite(tensors)
    if broken:
        raise CheckpointError(f"{name}: {broken}")
    return Checkpoint(name, about, tensors)


def plain(value: Any, what: str) -> Any:
    """`value`, when a checkpoint's JSON can hold it.

    Raises:
        UsageError: it cannot.
    """
    try:
        if json.loads(json.dumps(value, allow_nan=False)) == value:
            return value
        problem = "keys that are no text, tuples, or others that change in JSON"
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error)
    raise UsageError(f"{what} cannot be saved: {problem}")


def checksum(about: str, parts: Mapping[str, tuple[str, list[int], bytes]]) -> str:
    """SHA-256 over the metadata and, sorted by name, each tensor's name, kind, shape and bytes."""
    digest = hashlib.sha256(about.encode(errors="surrogatepass"))
    for name, (kind, shape, data) in sorted(parts.items()):
        digest.update(f"\n{json.dumps(name)} {kind} {shape}\n".encode())
        digest.update(data)
    return digest.hexdigest()


# Checking what a file says


class _Unfit(Exception):
    """What the metadata have that they should not, in words; and where in them."""

    def __str__(self) -> str:
        return " in its ".join(self.args)


def _header(content: bytes, name: str) -> dict[str, Any]:
    """The header of a safetensors file: its length in 8 bytes, then JSON.

    `safetensors` reads it again with the tensors. This reading is for what that one does not say
    or hands over: the metadata, and a key that is there twice.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise CheckpointError(
            f"{name} is cut short, or no safetensors file: it has {len(content)} bytes, its "
            f"header alone would have {length}"
        )
    if length > _LARGEST_HEADER:
        raise CheckpointError(f"{name} is damaged: its header has {length} bytes")
    return _json(content[8 : 8 + length], f"{name} is damaged, or no safetensors file: its header")


def _json(text: object, what: str) -> dict[str, Any]:
    """A JSON object in which no key is there twice; `what` begins the message."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _Unfit("a key twice")
        return found

    def constant(text: str) -> NoReturn:  # NaN and infinity, which JSON does not have
        raise _Unfit(f"the number {text}")

    try:
        if isinstance(text, bytes):
            text = text.decode()
        if not isinstance(text, str):
            raise _Unfit("no text")
        found = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
        if not isinstance(found, dict):
            raise _Unfit("no JSON object")
    except _Unfit as error:
        raise CheckpointError(f"{what} has {error}") from None
    except (ValueError, RecursionError) as error:  # of text, of JSON, of too deep a nesting
        raise CheckpointError(f"{what} cannot be read: {error}") from None
    return found


def _check(about: dict[str, Any]) -> None:
    """Every field there, none too many, each of its kind and in its range; `_Unfit` if not."""
    names = "dtype format frames next_frame num_loops seed structure trainings"
    if "recompute_every" in about:
        names += " recompute_every"
        _integer(about["recompute_every"], "recompute_every", 1, _INT64)
    if _ARCHITECTURE in about:
        names += f" {_ARCHITECTURE}"
        if not isinstance(about[_ARCHITECTURE], dict):
            raise _Unfit(f"the architecture {shown(about[_ARCHITECTURE])}")
    if _NEXT_WINDOW in about:
        names += f" {_NEXT_WINDOW}"
        pair = about[_NEXT_WINDOW]
        if not isinstance(pair, list) or len(pair) != 2:
            raise _Unfit(f"the next window {shown(pair)}")
        for number in pair:
            _integer(number, "next window", 0, _INT64)
    _fields(about, names, "fields")
    if about["dtype"] not in list(_KINDS):  # a list: what is compared may be unhashable
        raise _Unfit(f"the dtype {shown(about['dtype'])}")
    _integer(about["format"], "format", FORMAT, FORMAT + 1)
    _integer(about["seed"], "seed", 0, _UINT64)
    _integer(about["num_loops"], "num_loops", 1, _INT64)
    _integer(about["next_frame"], "next_frame", 0, _INT64)
    for field in ("structure", "frames"):
        _fields(about[field], " ".join(_DEPTHS), field)
    for depth in _DEPTHS:
        _text(about["structure"][depth], f"{depth} structure")
        _integer(about["frames"][depth], f"{depth} frame counter", 0, _UINT64)
    if not isinstance(about["trainings"], list):
        raise _Unfit("no list of training operations")
    for training in about["trainings"]:
        _fields(training, "learning_rate moments optimizer steps", "training operations")
        _integer(training["steps"], "number of steps", 0, _STEPS)
        moments, optimizer = training["moments"], training["optimizer"]
        if not isinstance(moments, list) or not isinstance(optimizer, dict):
            raise _Unfit("a training operation without its moments, or its optimizer")
        for moment in moments:
            if "/" in _text(moment, "moment"):
                raise _Unfit(f"the moment {shown(moment)}")
        if len({*moments}) != len(moments):
            raise _Unfit("a moment twice")
        _text(optimizer.get("kind"), "kind of optimizer")
        made = optimizer.get("learning_rate")
        scheduled = isinstance(made, str) and bool(made)  # a schedule in words
        if not scheduled:
            _rate(made, about["dtype"])
        if not scheduled or training["learning_rate"] is not None:
            _rate(training["learning_rate"], about["dtype"])


def _fields(found: object, names: str, what: str) -> None:
    if not isinstance(found, dict):
        raise _Unfit(shown(found), what)
    for name in sorted({*found} ^ {*names.split()}):
        raise _Unfit(f"{shown(name)} too many" if name in found else f"no {name}", what)


def _integer(found: object, what: str, low: int, end: int) -> None:
    if type(found) is not int or not low <= found < end:
        raise _Unfit(f"the {what} {shown(found)}")


def _rate(found: object, dtype: str) -> None:
    # An integer may be too large to be a number of the machine, and is no rate that is written;
    # a float may round to zero or infinity in the net's dtype, and is none that a net took.
    with np.errstate(over="ignore", under="ignore"):
        if not isinstance(found, float) or not 0 < np.dtype(dtype).type(found) < np.inf:
            raise _Unfit(f"the learning rate {shown(found)}")


def _text(found: object, what: str) -> str:
    if not isinstance(found, str) or not found:
        raise _Unfit(f"the {what} {shown(found)}")
    return found


def _not_finite(tensors: Mapping[str, Array]) -> str:
    """Which number is not finite, the first one, in words; empty when all are."""
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            place = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
            return f"tensor {name!r} holds {values[place]} at {place}, which is not finite"
    return ""


# Comparing a file with a net


def _difference(
    saved: dict[str, str],
    here: dict[str, str],
    found: dict[str, tuple[int, ...]],
    expected: dict[str, tuple[int, ...]],
) -> str:
    """In words, how a file's frame differs from the net's: by weights and states, if they do."""
    own = {name: shape for name, shape in found.items() if not name.startswith("training/")}
    if own != expected:
        return _first_difference(own, expected)
    depths = " and ".join(sorted(depth for depth in here if saved[depth] != here[depth]))
    return f"weights and states agree, the operations of the {depths} graph do not"


def _first_difference(
    found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> str:
    name = min(each for each in {*found, *expected} if found.get(each) != expected.get(each))
    if name not in found:
        return f"the tensor {name!r} of shape {expected[name]} is missing"
    if name not in expected:
        return f"there is a tensor {name!r} too many, of shape {found[name]}"
    return f"the tensor {name!r} has shape {found[name]}; expected {expected[name]}"


def _tensors(net: Net) -> Iterator[tuple[str, Array]]:
    """Weights, state and starting values, by the names of the file."""
    for name in net.weights.names:
        yield f"weights/{name}", net.weights.get(name)
    for depth, state in net.states.items():
        for name, recurrence in net.traces[depth].recurrences.items():
            yield f"state/{depth}/{name}", state.get(name)
            if not isinstance(recurrence.start, Symbol):  # or else weights say where it begins
                yield f"start/{depth}/{name}", recurrence.start


def _described(train: TrainingOperation) -> dict[str, Any]:
    """The optimiser as it was made: numbers, patterns with their numbers, a schedule in words."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {pattern: float(number) for pattern, number in value.items()}
        return schedules.described(value) if callable(value) else float(value)

    settings = {
        each.name: plain(getattr(train.optimizer, each.name)) for each in fields(train.optimizer)
    }
    return {"kind": type(train.optimizer).__name__, **settings}


def _structure(net: Net) -> dict[str, str]:
    return {depth: trace.structure for depth, trace in net.traces.items()}
