"""`Sequential`: a net made of layers, for those who need no frame function of their own.

Everything is done by `BPTT`: a frame is built of the layers, for as many lanes as the data have,
and trained, evaluated and streamed. Data are ``(time, batch, features)``, as PyTorch's recurrent
layers have them by default; the core sees them as ``(time, features, batch)``, a view.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt import arrays, checkpoint, losses, model, specs, training
from bptt.data import Chunks, Dataset
from bptt.errors import BpttError, CheckpointError, ShapeError, UsageError
from bptt.model import BPTT
from bptt.numerics import Array
from bptt.optimisers import Adam, Clip, Optimiser
from bptt.progress import Bar
from bptt.specs import Layer
from bptt.symbol import Symbol
from bptt.training import TrainingOperation
from bptt.views import StateView

Loss: TypeAlias = str | Callable[[Symbol, Symbol], Symbol]
Data: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]


LOSSES: dict[str, Callable[[Symbol, Symbol], Symbol]] = {
    function.__name__: function
    for function in (
        losses.mse,
        losses.huber,
        losses.binary_cross_entropy_with_logits,
        losses.softmax_cross_entropy,
    )
}
"""The losses of output and target alone, by name."""


class Sequential:
    """Layers on one another, trained by truncated backpropagation through time.

    Args:
        layers: `bptt.RNN`, `LSTM`, `GRU`, `Dense` and `Embedding`, the first one on the input.
        seed: as for `BPTT`.
        dtype: as for `BPTT`.
        threads: as for `BPTT`.

    Attributes:
        layers: as given.
        notes: a dictionary that is saved along with the net, of whatever JSON has: names of
            columns, units, scales.

    Raises:
        UsageError: no layers; another seed, dtype or number of threads.

    Example:
        .. code-block:: python

            net = bptt.Sequential([bptt.LSTM(8), bptt.Dense(1)], seed=0)
            x, y = wave[:-1].reshape(-1, 1, 1), wave[1:].reshape(-1, 1, 1)
            history = net.fit(x, y, epochs=5, window=20, optimizer=bptt.Adam(0.01))
            predicted = net.predict(x)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        threads: int | None = None,
    ) -> None:
        self.layers = tuple(arrays.listed(layers, "layers"))
        for layer in self.layers:
            if not isinstance(layer, Layer):
                kinds = ", ".join(f"bptt.{kind}" for kind in specs.KINDS)
                raise UsageError(f"a layer is one of {kinds}, got {arrays.shown(layer)}")
        if not self.layers:
            raise UsageError("a Sequential has one layer at least")
        self.notes: dict[str, Any] = {}
        self._options = (seed, dtype, threads)
        self._dtype = self._new()._numerics.dtype  # what is wrong with the three is said here
        self._main: _Unrolled | None = None
        self._others: dict[tuple[int, bool], _Unrolled] = {}  # by batch, and whether quiet
        self._loss: Loss | None = None
        self._training: tuple[Any, TrainingOperation] | None = None

    @property
    def bptt(self) -> BPTT:
        """The net itself: its weights are what was trained last, its graphs ``(x, y, out)``.

        Other settings of `fit`, or data of another batch, are another BPTT with the same weights.

        Raises:
            UsageError: there is none before the first `fit`.
        """
        return self._trained.bp

    @property
    def _trained(self) -> _Unrolled:
        if self._main is None:
            raise UsageError("this net has seen no data yet: call fit, or Sequential.load")
        return self._main

    def fit(
        self,
        x: npt.ArrayLike | Dataset,
        y: npt.ArrayLike | None = None,
        *,
        epochs: int = 10,
        window: int = 64,
        optimizer: Optimiser | None = None,
        loss: Loss = "mse",
        clip: Clip | None = None,
        validation: Data | Dataset | None = None,
        patience: int | None = None,
        progress: bool = True,
        lanes: int = 32,
    ) -> dict[str, Array]:
        """Train on all frames, again and again.

        Each epoch begins at the starting state and goes through the data in consecutive windows,
        state carried; of the last window only the frames that there are count. Every window is one
        update. Sequences of different lengths are a `bptt.data.Sequences`.

        With `validation` its loss is computed after each epoch, and in the end the weights are
        those of the epoch where it was least; moments stay as they are. Called again with the same
        settings, training goes on with the optimiser's moments.

        Args:
            x: ``(time, batch, features)``; or a dataset of x and y (`bptt.data`), whose arrays have
                the axes that they have for every net: chunks are ``(time, features, batch)``.
            y: targets ``(time, batch, features)``; none beside a dataset.
            epochs: how often to go through the data, at most.
            window: frames of a window: how far back gradients go.
            optimizer: as for `BPTT.minimize`; `bptt.Adam()` by default.
            loss: the name of one of `bptt.losses` (but `gaussian_nll`), or a function of output and
                target, both symbols ``(features, batch)``, that gives a window value.
            clip: as for `BPTT.minimize`.
            validation: x and y of other data, of any length and batch; or a dataset.
            patience: stop after so many epochs without a smaller validation loss; never by
                default.
            progress: show a bar, where there is a terminal or a notebook.
            lanes: how many sequences of a dataset go side by side: the batch, which arrays have. Of
                `bptt.data.Chunks` as many as they have.

        Returns:
            Arrays with one entry for each epoch: ``"loss"``, the mean over its frames, each window
            before its update; and with `validation` ``"validation_loss"``.

        Raises:
            ShapeError: data that do not fit each other, or the net.
            UsageError: no such loss or optimizer, or patience without validation; an x without y;
                a dataset that is not one of x and y, or with a y beside it.
            NonFiniteError: a loss is not finite; that window is not trained on.
        """
        given = self._given(x, y, lanes)
        held = None if validation is None else self._validation(validation, given)
        epochs = arrays.integer(epochs, "epochs", 0)
        if patience is not None:
            patience = arrays.integer(patience, "patience", 1)
            if held is None:
                raise UsageError("patience needs validation data")
        train = self._prepare(given, window, Adam() if optimizer is None else optimizer, loss, clip)
        unrolled = self._trained

        trained: list[float] = []
        validated: list[float] = []
        best: dict[str, Array] = {}
        frames = given.frames
        bar = Bar(None if frames is None else epochs * -(-frames // window), progress)
        try:
            while len(trained) < epochs and not _stale(validated, patience):
                bar.head(f"epoch {len(trained) + 1}/{epochs}")
                trained.append(unrolled.epoch(train, given.dataset, bar))
                if held is not None:
                    validated.append(self.evaluate(*held))
                    if validated[-1] == min(validated):
                        best = dict(unrolled.bp.parameters)
        finally:  # also when interrupted
            bar.close()
            for name, values in best.items():
                unrolled.bp.parameters[name] = values
        history = {"loss": np.array(trained)}
        return history if held is None else {**history, "validation_loss": np.array(validated)}

    def evaluate(
        self,
        x: npt.ArrayLike | Dataset,
        y: npt.ArrayLike | None = None,
        *,
        loss: Loss | None = None,
    ) -> float:
        """The mean loss over all frames, from the starting state.

        Nothing is left out at random: it is the loss of what `predict` gives.

        Args:
            x: ``(time, batch, features)``, of any length and batch; or a dataset, as for `fit`,
                which goes through as many lanes as were trained.
            y: ``(time, batch, features)``; none beside a dataset.
            loss: as for `fit`; that of the last `fit` by default.

        Raises:
            ShapeError: data that do not fit.
            UsageError: the net has seen no data; a net that was loaded was trained on a function,
                and no loss is given; a dataset with a y beside it.
            NonFiniteError: data with NaN or infinity.
        """
        given = self._given(x, y, self._trained.batch)
        unrolled = self._for(given.batch, given.features, given.targets, quiet=True)
        chosen = self._loss if loss is None else loss
        if chosen is None:
            raise UsageError("the loss was a function, which no file holds: evaluate(x, y, loss=)")
        return unrolled.bp.evaluate(unrolled.loss(chosen), given.dataset)

    def predict(self, x: npt.ArrayLike | Dataset) -> Any:
        """The outputs for whole sequences, from the starting state.

        Args:
            x: ``(time, batch, features)``, of any length and batch; or a dataset of x, or x and y.

        Returns:
            ``(time, batch, features)``; for a dataset as `BPTT.predict`, so that what comes of
                `bptt.data.Chunks` is ``(time, features, batch)``, as they are.

        Raises:
            ShapeError: data that do not fit.
            UsageError: the net has seen no data.
            NonFiniteError: data with NaN or infinity.
        """
        main = self._trained
        if isinstance(x, Dataset):
            _same_features(x.features[0], main.features, "x")
            _same_lanes(x, main.batch)
            return main.bp.predict(x)
        with arrays.advising(x):
            array = self._array(x, "x")
        bp = self._for(array.shape[1], array.shape[2]).bp
        bp.reset_state(BPTT.SHALLOW)
        predicted: Array = bp.predict([_turned(array)])
        return _turned(predicted)

    def stream(self, lanes: int = 1) -> Stream:
        """A stream through the net as it is: one frame in, one frame out, with its own state.

        Training that follows does not change it.

        Args:
            lanes: how many go side by side.

        Raises:
            UsageError: fewer than one lane; the net has seen no data.
        """
        return Stream(self._side_by_side(lanes))

    def with_lanes(self, lanes: int = 1) -> BPTT:
        """A BPTT of its own for so many lanes, with the weights as they are: to export, say.

        Args:
            lanes: the batch.

        Raises:
            UsageError: fewer than one lane; the net has seen no data.
        """
        return self._side_by_side(lanes).bp

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers, weights, state, moments, counters and notes to one file.

        Raises:
            CheckpointError: as for `BPTT.save`.
            UsageError: no path; the net has seen no data, has an activation of the user's own, or
                notes that JSON does not have.
        """
        checkpoint.text_of(path)
        unrolled = self._trained
        architecture = {
            "layers": [layer.described() for layer in self.layers],
            "features": unrolled.features,
            "targets": unrolled.targets,
            "batch": unrolled.batch,
            "loss": self._loss if isinstance(self._loss, str) else None,
            "notes": checkpoint.plain(self.notes, "notes"),
        }
        net = unrolled.bp._net
        with net.exclusive:
            checkpoint.write(net, path, architecture)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> Sequential:
        """The net that was saved. `fit` with the same settings goes on with its moments.

        Args:
            path: written by `save`.
            threads: as for `BPTT`.

        Raises:
            CheckpointError: as for `bptt.load`; the file was written by `BPTT.save`.
            UsageError: no path, or a number of threads below 1.
        """
        threads = model.at_most(threads)
        saved = checkpoint.read(path)
        made = saved.about.get("architecture")
        if made is None:
            raise CheckpointError(
                f"{saved.path} holds a net made of a frame function: bptt.load(path, frame)"
            )
        try:
            counts = (arrays.integer(made.get(n), n, 1) for n in ("features", "targets", "batch"))
            features, targets, batch = counts
            layers = [specs.layer(each) for each in arrays.listed(made.get("layers"), "layers")]
            loss, notes = made.get("loss"), made.get("notes")
            if not (loss is None or loss in list(LOSSES)) or not isinstance(notes, dict):
                raise UsageError("an unknown loss, or no notes")
            frame = _frame(layers, features, targets, batch)
            seed, dtype = saved.about["seed"], saved.about["dtype"]
            net = cls(layers, seed=seed, dtype=dtype, threads=threads)
            bp = model.resume(saved, frame, threads)
        except CheckpointError:
            raise
        except (BpttError, MemoryError) as error:
            raise CheckpointError(f"{saved.path} describes no net: {error}") from None
        net._main = _Unrolled(bp, net.layers, features, targets, batch, saved.about["num_loops"])
        net._loss, net.notes = loss, notes
        return net

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(map(repr, self.layers))}])"

    # Inside

    def _new(self) -> BPTT:
        return BPTT(*self._options)

    def _side_by_side(self, lanes: int) -> _Unrolled:
        return self._trained.at(self._new(), arrays.integer(lanes, "lanes", 1))

    def _array(self, value: npt.ArrayLike, what: str) -> Array:
        array = arrays.numbers(value, self._dtype, what)
        if array.ndim != 3 or 0 in array.shape:
            raise ShapeError(f"{what} has shape {array.shape}; expected (time, batch, features)")
        return arrays.finite(array, what)

    def _pair(self, x: npt.ArrayLike, y: npt.ArrayLike, *names: str) -> tuple[Array, Array]:
        first, second = self._array(x, names[0]), self._array(y, names[1])
        if first.shape[:2] != second.shape[:2]:
            raise ShapeError(
                f"{names[0]} and {names[1]} differ in time or batch: {first.shape}, {second.shape}"
            )
        return first, second

    def _given(self, x: Any, y: Any, lanes: int, names: tuple[str, str] = ("x", "y")) -> _Given:
        """The data of `fit` and `evaluate`, all of them as a dataset."""
        if not isinstance(x, Dataset):
            with arrays.advising(x):
                if y is None:
                    raise UsageError(
                        f"{names[1]} is missing: None is an object, no array of targets"
                    )
                first, second = self._pair(x, y, *names)
            chunk = [_turned(first), _turned(second)]
            sizes = first.shape[2], second.shape[2], first.shape[1], len(first)
            return _Given(Chunks([chunk]), *sizes)
        if y is not None:
            raise UsageError(f"a dataset has {names[1]} in it; got {arrays.shown(y)} beside it")
        features = x.features
        if len(features) != 2:
            raise UsageError(f"a dataset of x and y has two arrays for each sequence: {features}")
        lanes = arrays.integer(lanes, "lanes", 1)
        _same_lanes(x, lanes)
        return _Given(x, *features, lanes, None)

    def _validation(self, data: Data | Dataset, fitted: _Given) -> tuple[Any, ...]:
        """What `evaluate` takes of it."""
        names = "the x of validation", "the y of validation"
        evaluated: tuple[Any, ...]
        if isinstance(data, Dataset):
            evaluated = (data,)
            held = self._given(data, None, fitted.batch, names)
        elif isinstance(data, tuple | list) and len(data) == 2:
            evaluated = self._pair(*data, *names)
            held = self._given(evaluated[0], evaluated[1], 1, names)
        else:
            raise UsageError(f"validation is a pair of x and y, got {arrays.shown(data)}")
        _same_features(held.features, fitted.features, names[0])
        _same_features(held.targets, fitted.targets, names[1])
        return evaluated

    def _for(
        self, batch: int, features: int, targets: int | None = None, quiet: bool = False
    ) -> _Unrolled:
        """The net for data of this batch, with the weights as they are; `quiet` for no chance."""
        main = self._trained
        _same_features(features, main.features, "x")
        if targets is not None:
            _same_features(targets, main.targets, "y")
        quiet = quiet and any(layer.random for layer in self.layers)
        if batch == main.batch and not quiet:
            return main
        if (batch, quiet) not in self._others:
            self._others[batch, quiet] = main.at(self._new(), batch, quiet)
        other = self._others[batch, quiet]
        for name in main.bp.parameters:
            other.bp.parameters[name] = main.bp.parameters[name]
        return other

    def _prepare(
        self,
        given: _Given,
        window: int,
        optimizer: Optimiser,
        loss: Loss,
        clip: Clip | None,
    ) -> TrainingOperation:
        """The main net for these data and settings, and what trains it; nothing else on errors."""
        _function(loss)
        window = arrays.integer(window, "window", 1)
        old = self._main
        features, targets, batch = given.features, given.targets, given.batch
        if old is not None:
            _same_features(features, old.features, "x")
        settings = (batch, window, targets, loss, optimizer, clip)
        if self._training is not None and self._training[0] == settings:
            return self._training[1]
        loaded = self._training is None and old is not None
        if old and loaded and (old.batch, old.window, old.targets) == (batch, window, targets):
            unrolled = old  # whose moments are taken up
        else:
            bp = self._new()
            bp.generate_graphs(_frame(self.layers, features, targets, batch), num_loops=window)
            unrolled = _Unrolled(bp, self.layers, features, targets, batch, window)
            if old is not None:
                for name in old.bp.parameters:
                    bp.parameters[name] = old.bp.parameters[name]
        train = unrolled.bp.minimize(unrolled.loss(loss), optimizer, clip)
        self._main, self._others, self._loss = unrolled, {}, loss
        self._training = settings, train
        return train


class Stream:
    """One frame in, one frame out, with a state of its own. Made by `Sequential.stream`.

    Attributes:
        state: the state it carries, a mapping.

    Example:
        .. code-block:: python

            net = bptt.Sequential([bptt.LSTM(8), bptt.Dense(1)])
            net.fit(wave[:-1].reshape(-1, 1, 1), wave[1:].reshape(-1, 1, 1), epochs=1)
            follow = net.stream()
            for x_t in stream:
                use(follow([x_t]))
    """

    def __init__(self, unrolled: _Unrolled) -> None:
        self._unrolled = unrolled
        self._dtype = unrolled.bp._numerics.dtype
        self._stepper = unrolled.bp.stepper()
        self.state: StateView = self._stepper.state

    def __call__(self, x: npt.ArrayLike) -> Array:
        """The next frame.

        Args:
            x: ``(batch, features)``, or for one lane ``(features,)``.

        Returns:
            An array of as many axes as `x`.

        Raises:
            ShapeError: another shape.
            UsageError: no numbers.
            NonFiniteError: NaN or infinity; the state stays.
        """
        array = arrays.numbers(x, self._dtype, "x")
        shape = self._unrolled.batch, self._unrolled.features
        if array.shape != shape and (shape[0] > 1 or array.shape != shape[1:]):
            raise ShapeError(f"x has shape {array.shape}; expected {shape}, (batch, features)")
        self._stepper.inputs[0][...] = arrays.finite(array, "x").reshape(shape).T
        self._stepper()
        out: Array = self._stepper.output.T.copy()
        return out.reshape(*array.shape[:-1], -1)

    def reset(self, lane: int | None = None) -> None:
        """Begin again at the starting state, in one lane or in all.

        Raises:
            UsageError: no such lane.
        """
        self._unrolled.bp.reset_state(BPTT.SHALLOW, lane)


class _Given(NamedTuple):
    """Data, as a dataset, and their sizes; the frames of an epoch where arrays were given."""

    dataset: Dataset
    features: int
    targets: int
    batch: int
    frames: int | None


class _Unrolled:
    """The layers as a BPTT for one batch and one length of windows."""

    def __init__(
        self,
        bp: BPTT,
        layers: Sequence[Layer],
        features: int,
        targets: int,
        batch: int,
        window: int,
    ) -> None:
        self.bp = bp
        self.layers = layers
        self.features, self.targets = features, targets
        self.batch, self.window = batch, window
        self._losses: list[tuple[Loss, Symbol]] = []

    def at(self, bp: BPTT, batch: int, quiet: bool = False) -> _Unrolled:
        """The same with another batch, as the untouched `bp`; the weights are copied."""
        frame = _frame(self.layers, self.features, self.targets, batch, quiet)
        bp.generate_graphs(frame, num_loops=self.window)
        for name in self.bp.parameters:
            bp.parameters[name] = self.bp.parameters[name]
        return _Unrolled(bp, self.layers, self.features, self.targets, batch, self.window)

    def loss(self, loss: Loss) -> Symbol:
        """The window value of a loss, made once."""
        function = _function(loss)
        for known, symbol in self._losses:
            if known == loss:
                return symbol
        _, y, out = self.bp.graphs[BPTT.DEEP]
        symbol = function(out, y)
        self.bp._net.scalar_loss(symbol)
        self._losses.append((loss, symbol))
        return symbol

    def epoch(self, train: TrainingOperation, dataset: Dataset, bar: Bar) -> float:
        """Train on all frames once; the mean loss over them."""
        net = self.bp._net
        with net.exclusive:
            begin = net.next_window[0], 0
            history = training.fit(net, train, dataset, start=begin, progress=bar)
        return float(np.average(history.loss.astype(np.float64), weights=history.counted))


def _frame(
    layers: Sequence[Layer], features: int, targets: int, batch: int, quiet: bool = False
) -> Callable[[BPTT, str], tuple[Symbol, Symbol, Symbol]]:
    """The frame of layers on one another: ``(x, y, out)``."""

    def frame(bp: BPTT, depth: str) -> tuple[Symbol, Symbol, Symbol]:
        bp.trace.quiet = quiet
        x = bp.placeholder((features, batch), "x")
        y = bp.placeholder((targets, batch), "y")
        out = x
        for layer in layers:
            out = layer.build(bp, out)
        return x, y, out

    return frame


def _turned(array: Array) -> Array:
    """``(time, batch, features)`` as ``(time, features, batch)``, or back; a view."""
    turned: Array = array.swapaxes(1, 2)
    return turned


def _same_features(got: int, features: int, what: str) -> None:
    if got != features:
        raise ShapeError(f"{what} has {got} features; the net was given {features}")


def _same_lanes(dataset: Dataset, lanes: int) -> None:
    if isinstance(dataset, Chunks) and dataset.lanes != lanes:
        raise ShapeError(
            f"the chunks have {dataset.lanes} lanes, the last axis of (time, features, batch), and "
            f"the net has {lanes}, the lanes= of fit"
        )


def _function(loss: Loss) -> Callable[[Symbol, Symbol], Symbol]:
    if callable(loss):
        return loss
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    names = ", ".join(f'"{name}"' for name in LOSSES)
    raise UsageError(f"a loss is {names} or a function of output and target; got {loss!r}")


def _stale(losses: Sequence[float], patience: int | None) -> bool:
    """Whether so many of the last losses, or more, came after the least."""
    if patience is None or not losses:
        return False
    return len(losses) - 1 - int(np.argmin(losses)) >= patience
