"""Checkpoints: everything that is needed to go on bit for bit, in one safetensors file.

Tensors are plain named matrices in the net's dtype: ``weights/NAME``, ``state/DEPTH/NAME``,
``start/DEPTH/NAME`` (the starting values) and ``training/N/MOMENT/NAME``. All else is one JSON
object in the file's metadata, beside a checksum over it and over all tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from bptt.errors import CheckpointError
from bptt.net import Net
from bptt.numerics import Array

if TYPE_CHECKING:
    from bptt.training import TrainingOperation

_FORMAT = 1
_ABOUT, _CHECKSUM = "bptt", "checksum"  # keys of the file's metadata


@dataclass(frozen=True)
class SavedTraining:
    """A training operation without its loss: what a checkpoint keeps of it.

    Attributes:
        optimizer: the kind of optimiser and the numbers it was made with.
        learning_rate: the rate of the next update.
        steps: updates made.
        moments: by ``MOMENT/NAME``.
    """

    optimizer: dict[str, Any]
    learning_rate: float
    steps: int
    moments: dict[str, Array]

    @classmethod
    def of(cls, train: TrainingOperation, names: list[str]) -> SavedTraining:
        """What to keep of a training operation."""
        moments = {
            f"{moment}/{name}": train.core.get_moment(moment, name)
            for moment in train.core.moments
            for name in names
        }
        return cls(_described(train), train.learning_rate, train.steps, moments)

    def resume(self, train: TrainingOperation) -> None:
        """Let `train` go on where the saved one stood.

        The rate that was set last is taken up too, unless the optimiser is now made with another.

        Raises:
            CheckpointError: the saved optimiser is of another kind.
        """
        described = _described(train)
        if described["kind"] != self.optimizer["kind"]:
            raise CheckpointError(
                f"the checkpoint was trained with {self.optimizer['kind']}, not {described['kind']}"
            )
        for key, values in self.moments.items():
            moment, name = key.split("/", 1)
            train.core.set_moment(moment, name, values)
        train.core.steps = self.steps
        if described["learning_rate"] == self.optimizer["learning_rate"]:
            train.learning_rate = self.learning_rate


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, not yet applied to a net.

    Attributes:
        path: where it came from.
        about: the metadata.
        tensors: by the names of the file.
    """

    path: str
    about: dict[str, Any]
    tensors: dict[str, Array]

    def apply(self, net: Net) -> None:
        """Set all of a fresh net from it; everything is checked first.

        Raises:
            CheckpointError: the file belongs to another frame, or lacks something.
        """
        if self.about["structure"] != _structure(net):
            raise CheckpointError(f"{self.path} holds a net of another frame function")
        expected = {name: values.shape for name, values in _tensors(net)}
        for number, saved in enumerate(self.about["trainings"]):
            for moment in saved["moments"]:
                for name in net.weights.names:
                    key = f"training/{number}/{moment}/{name}"
                    expected[key] = net.weights.shape(name)
        found = {name: values.shape for name, values in self.tensors.items()}
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} has shape {found.get(name, 'none')}; "
                    f"expected {expected.get(name, 'none')}"
                )
            if self.tensors[name].dtype != net.numerics.dtype:
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} holds {self.tensors[name].dtype}; "
                    f"expected {net.numerics.dtype}"
                )
        for name in net.weights.names:
            net.weights.set(name, self.tensors[f"weights/{name}"])
        for depth, state in net.states.items():
            for name in state.names:
                state.set(name, self.tensors[f"state/{depth}/{name}"])
                start = self.tensors[f"start/{depth}/{name}"]
                start.setflags(write=False)
                net.traces[depth].recurrences[name].start = start
            state.frame = self.about["frames"][depth]
        net.next_frame = self.about["next_frame"]
        net.saved_trainings = [
            SavedTraining(
                saved["optimizer"],
                saved["learning_rate"],
                saved["steps"],
                {
                    name.split("/", 2)[2]: values
                    for name, values in self.tensors.items()
                    if name.startswith(f"training/{number}/")
                },
            )
            for number, saved in enumerate(self.about["trainings"])
        ]


def write(net: Net, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint; the path holds a whole old or a whole new file at every moment.

    The file is written beside its place, flushed to disk and renamed, and the folder flushed too.

    Raises:
        CheckpointError: the file system refuses; what was at the path stays.
    """
    tensors = dict(_tensors(net))
    trainings = _trainings(net)
    for number, saved in enumerate(trainings):
        for key, values in saved.moments.items():
            tensors[f"training/{number}/{key}"] = values
    about = {
        "format": _FORMAT,
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
                "moments": sorted({key.split("/", 1)[0] for key in saved.moments}),
            }
            for saved in trainings
        ],
    }
    plain = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    text = json.dumps(about)
    content = to_bytes(plain, {_ABOUT: text, _CHECKSUM: _checksum(text, plain)})
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        _flush_folder(target.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write {os.fspath(path)}: {error}") from error


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: no such file, a damaged or a foreign one, or one of a newer format.
    """
    name = os.fspath(path)
    try:
        with safe_open(name, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {name}: {error}") from error
    if _ABOUT not in metadata:
        raise CheckpointError(f"{name} is a safetensors file, but no checkpoint of bptt")
    if metadata.get(_CHECKSUM) != _checksum(metadata[_ABOUT], tensors):
        raise CheckpointError(f"{name} is damaged: its checksum does not fit")
    try:
        about = json.loads(metadata[_ABOUT])
        newer = about["format"] != _FORMAT
        complete = set(about) >= {
            "dtype", "seed", "num_loops", "structure", "frames", "next_frame", "trainings"
        }  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{name} is damaged: its metadata cannot be read") from error
    if newer:
        raise CheckpointError(f"{name} has format {about['format']}; this version reads {_FORMAT}")
    if not complete:
        raise CheckpointError(f"{name} is damaged: its metadata is not complete")
    return Checkpoint(name, about, tensors)


def _checksum(about: str, tensors: dict[str, Array]) -> str:
    """SHA-256 over the metadata and, sorted by name, over each tensor's name, kind and numbers."""
    digest = hashlib.sha256(about.encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"\n{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _tensors(net: Net) -> Iterator[tuple[str, Array]]:
    """Weights, state and starting values, by the names of the file."""
    for name in net.weights.names:
        yield f"weights/{name}", net.weights.get(name)
    for depth, state in net.states.items():
        for name, recurrence in net.traces[depth].recurrences.items():
            yield f"state/{depth}/{name}", state.get(name)
            yield f"start/{depth}/{name}", recurrence.start


def _trainings(net: Net) -> list[SavedTraining]:
    """All training operations, those of a loaded checkpoint that nobody took up yet included."""
    made = [SavedTraining.of(train, net.weights.names) for train in net.trainings]
    return made + net.saved_trainings[len(made) :]


def _described(train: TrainingOperation) -> dict[str, Any]:
    numbers = {key: float(value) for key, value in asdict(train.optimizer).items()}
    return {"kind": type(train.optimizer).__name__, **numbers}


def _structure(net: Net) -> dict[str, str]:
    return {depth: trace.structure for depth, trace in net.traces.items()}


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
