"""The origin's task: learn a sequence that runs up and down again.

After 0.3 in 0, 0.1, ..., 0.5, 0.4, ..., 0.1, 0, ... comes 0.4 or 0.2: a net has to remember which
way it was going. One value goes in, the next one is asked for. A net is trained deep, by truncated
backpropagation through time over consecutive windows, and then streamed shallow, frame by frame.

>>> from bptt.palindrome import RNN, train
>>> result = train(RNN, seed=0)
>>> result.loss < 1e-3
True

Two configurations are given: `RNN`, the notebook's net, and `DUAL_LSTM`, that of the
tensorflow-bptt example from which the notebook comes. A start that is caught in a bad place is
given up for another one; `train` says when.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt import arrays, initializers, layers
from bptt.errors import UsageError
from bptt.model import BPTT
from bptt.ops import reduce_mean, sigmoid, square
from bptt.optimisers import Adam, ClipByValue
from bptt.symbol import Symbol
from bptt.training import TrainingOperation

__all__ = [
    "CONFIGURATIONS",
    "DUAL_LSTM",
    "PERIOD",
    "RNN",
    "Configuration",
    "Progress",
    "Result",
    "build",
    "data",
    "frame",
    "palindrome",
    "start_seed",
    "train",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int, float], None]

PERIOD = 10
"""Frames until the sequence repeats."""


def palindrome(step: int) -> float:
    """The sequence at one step: 0 at multiples of ten, 0.5 half-way, straight lines in between.

    >>> [palindrome(step) for step in range(11)]
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    """
    return (5.0 - abs(float(arrays.integer(step, "step") % PERIOD) - 5.0)) / 10.0


def data(frames: int) -> tuple[Floats, Floats]:
    """Inputs and targets of steps 0 ... frames-1, each ``(frames,)``: a target is the next input.

    >>> inputs, targets = data(4)
    >>> inputs.tolist(), targets.tolist()
    ([0.0, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4])
    """
    frames = arrays.integer(frames, "frames", 0)
    arrays.room(frames, f"a sequence of {frames} frames")
    sequence = np.array([palindrome(step) for step in range(frames + 1)])
    return sequence[:-1], sequence[1:]


@dataclass(frozen=True)
class Configuration:
    """A net, how it is trained, and when a start counts as stuck.

    `dataclasses.replace` makes variants of one.

    Raises:
        UsageError: an unknown cell, a count below 1, or a number that `Adam`, `ClipByValue` or an
            initializer does not take.
    """

    cell: Literal["rnn", "lstm"]
    layers: int  #: recurrent layers, one on the other
    width: int  #: units in each
    num_loops: int  #: T, frames in a window
    clip: float  #: gradients are clipped to [-clip, clip], entry by entry
    learning_rate: float = 0.05
    beta1: float = 0.95
    beta2: float = 0.999
    epsilon: float = 1e-3
    deviation: float = 0.5  #: weights and starting states are drawn from normal(0, deviation)
    noise: float = 0.03  #: deviation of the noise on each recurrent layer's input when deep
    steps: int = 3000  #: windows to train
    first_check: int = 1000  #: the first window, counted from 0, whose loss may end a start
    check_every: int = 100  #: windows from one check to the next
    stuck_above: float = 0.01  #: a start is given up if the checked window's loss is above this
    max_restarts: int = 20
    warmup: int = 1900  #: frames streamed before the evaluation
    evaluated: int = 100  #: frames evaluated

    def __post_init__(self) -> None:
        if not isinstance(self.cell, str) or self.cell not in ("rnn", "lstm"):
            raise UsageError(f'cell must be "rnn" or "lstm", not {self.cell!r}')
        for name in ("layers", "width", "num_loops", "steps", "check_every", "evaluated"):
            arrays.integer(getattr(self, name), name, 1)
        for name in ("first_check", "max_restarts", "warmup"):
            arrays.integer(getattr(self, name), name, 0)
        initializers.random_normal(0.0, self.deviation)
        initializers.random_normal(0.0, self.noise)
        arrays.real(self.stuck_above, "stuck_above")
        self.optimiser()
        ClipByValue(self.clip)

    def optimiser(self) -> Adam:
        """What it is trained with."""
        return Adam(self.learning_rate, self.beta1, self.beta2, self.epsilon)


RNN = Configuration(cell="rnn", layers=1, width=3, num_loops=10, clip=4.0)
"""The notebook's net, one layer of three units, with one output where the notebook has three."""

DUAL_LSTM = Configuration(cell="lstm", layers=2, width=5, num_loops=4, clip=2.0)
"""The tensorflow-bptt example's: two layers of five LSTM units with full peepholes."""

CONFIGURATIONS: dict[str, Configuration] = {"rnn": RNN, "lstm": DUAL_LSTM}
"""The two by the names that the command line takes."""


def frame(configuration: Configuration) -> Callable[[BPTT, str], tuple[Symbol, Symbol, Symbol]]:
    """The frame function of a configuration, for `BPTT.generate_graphs`.

    The frame gives input, target and output, each ``(1, 1)``. The recurrent layers are followed by
    one dense unit, ``sigmoid(W h + b)``.
    """
    if not isinstance(configuration, Configuration):
        raise UsageError(f"expected a palindrome.Configuration, got {arrays.shown(configuration)}")
    draw = initializers.random_normal(0.0, configuration.deviation)
    width = configuration.width

    def palindrome_frame(bp: BPTT, depth: str) -> tuple[Symbol, Symbol, Symbol]:
        x = bp.placeholder((1, 1))
        target = bp.placeholder((1, 1))
        h = x
        for _ in range(configuration.layers):
            if depth == bp.DEEP and configuration.noise > 0:
                h = h + bp.random_normal(h.shape, stddev=configuration.noise)
            if configuration.cell == "rnn":
                h = layers.rnn(bp, h, width, initializer=draw, initial_state=draw)
            else:
                _, h = layers.lstm(
                    bp, h, width, peephole="full", initializer=draw, initial_state=draw
                )
        out = layers.dense(bp, h, 1, activation=sigmoid, name="", initializer=draw)
        return x, target, out

    return palindrome_frame


def start_seed(seed: int, restart: int) -> int:
    """The seed of one start, from which its weights, starting state and noise are drawn.

    It depends on the two numbers alone, so a restart can be repeated without those before it.
    """
    entropy = [arrays.integer(seed, "seed", 0), arrays.integer(restart, "restart", 0)]
    words = np.random.SeedSequence(entropy).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1  # 63 bits, never negative


def build(
    configuration: Configuration,
    seed: int,
    *,
    dtype: Literal["float32", "float64"] = "float32",
) -> tuple[BPTT, TrainingOperation]:
    """A new net of this configuration, and what trains it on a window's mean squared error.

    Args:
        configuration: the net and its optimiser.
        seed: of the net itself; `start_seed` gives the one that `train` uses.
        dtype: the net's precision.
    """
    bp = BPTT(seed=seed, dtype=dtype)
    graphs = bp.generate_graphs(frame(configuration), num_loops=configuration.num_loops)
    _, target, out = graphs[bp.DEEP]
    loss = reduce_mean(square(out - target))
    return bp, bp.minimize(loss, configuration.optimiser(), clip=ClipByValue(configuration.clip))


@dataclass(frozen=True, eq=False)
class Result:
    """What a run of `train` came to."""

    configuration: Configuration
    seed: int
    restarts: int  #: starts that were given up
    losses: Floats  #: (steps,): every window of the start that was kept
    given_up: tuple[Floats, ...]  #: the losses of the others, each up to the window that ended it
    evaluated_steps: npt.NDArray[np.int64]  #: (evaluated,): steps of the sequence
    inputs: Floats  #: (evaluated,): what went in at these steps
    expected: Floats  #: (evaluated,): what should have come out
    predicted: Floats  #: (evaluated,): what came out
    train_seconds: float  #: all starts together, building the nets included
    stream_seconds: float  #: the shallow run, warm-up included
    bp: BPTT = field(repr=False)  #: the trained net

    @property
    def loss(self) -> float:
        """The mean over the last 100 windows, or over all of them if there are fewer."""
        return float(self.losses[-100:].mean())

    @property
    def shallow_mean_abs_error(self) -> float:
        """The mean distance between expected and predicted values."""
        return float(np.abs(self.predicted - self.expected).mean())

    def report(self) -> dict[str, Any]:
        """The figures of the run as plain Python values, as ``bptt palindrome --json`` has them."""
        return {
            "cell": self.configuration.cell,
            "seed": self.seed,
            "restarts": self.restarts,
            "steps": len(self.losses),
            "loss": self.loss,
            "shallow_mean_abs_error": self.shallow_mean_abs_error,
            "train_seconds": self.train_seconds,
            "stream_seconds": self.stream_seconds,
        }


def train(
    configuration: Configuration = RNN, seed: int = 0, *, progress: Progress | None = None
) -> Result:
    """Train a net, starting again where a start is stuck; then stream it and compare.

    Windows follow one another along the sequence and carry the state. At the `first_check`-th
    window, counted from 0, and every `check_every` windows from there, the start is given up if
    that one window's loss is above `stuck_above`. A net with new weights, starting state and noise
    then takes its place, at most `max_restarts` times; the last is trained to the end, whatever
    its loss. After that the state is copied forward, and the shallow net is fed the sequence from
    step 0: `warmup` frames unseen, then `evaluated` frames compared.

    Args:
        configuration: the net and all these numbers.
        seed: not negative; the same configuration and seed give the same result.
        progress: called as ``progress(restart, windows, loss)`` after every window that may be
            checked or would be, were it late enough (by default after 1, 101, 201, ... windows),
            and after the last one: how many windows this start has seen, and the last one's loss.

    Raises:
        NonFiniteError: the loss has overflowed.
    """
    if progress is not None and not callable(progress):
        raise UsageError(f"progress is a function, got {arrays.shown(progress)}")
    began = time.perf_counter()
    given_up: list[Floats] = []
    while True:
        bp, losses, stuck = _start(configuration, seed, len(given_up), progress)
        if not stuck:
            break
        given_up.append(losses)
    train_seconds = time.perf_counter() - began

    inputs, targets = data(configuration.warmup + configuration.evaluated)
    bp.copy_state_forward()
    began = time.perf_counter()
    predictions = bp.predict([inputs])
    stream_seconds = time.perf_counter() - began

    shown = slice(configuration.warmup, None)
    return Result(
        configuration=configuration,
        seed=seed,
        restarts=len(given_up),
        losses=losses,
        given_up=tuple(given_up),
        evaluated_steps=np.arange(len(inputs))[shown],
        inputs=inputs[shown],
        expected=targets[shown],
        predicted=predictions[shown, 0, 0].astype(np.float64),
        train_seconds=train_seconds,
        stream_seconds=stream_seconds,
        bp=bp,
    )


def _start(
    configuration: Configuration, seed: int, restart: int, progress: Progress | None
) -> tuple[BPTT, Floats, bool]:
    """One start: the net, its losses (windows,), and whether it is given up."""
    bp, operation = build(configuration, start_seed(seed, restart))
    # Whole windows and whole periods: walking around these frames, fit sees the endless sequence.
    sequence = list(data(math.lcm(PERIOD, configuration.num_loops)))
    losses: list[Floats] = []
    seen = 0
    while seen < configuration.steps:
        # A piece ends with the window that may be checked; the first one brings them into step.
        every = configuration.check_every
        piece = min(
            every if seen else 1 + configuration.first_check % every, configuration.steps - seen
        )
        history = bp.fit(operation, sequence, steps=piece, start=bp.next_frame, progress=False)
        losses.append(history.loss.astype(np.float64))
        seen += piece
        last = float(losses[-1][-1])
        if progress is not None:
            progress(restart, seen, last)
        since = seen - 1 - configuration.first_check
        if (
            since >= 0
            and since % every == 0
            and last > configuration.stuck_above
            and restart < configuration.max_restarts
        ):
            return bp, np.concatenate(losses), True
    return bp, np.concatenate(losses), False
