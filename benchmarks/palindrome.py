"""The palindrome nets: how long a window takes, and how often training ends well.

    python benchmarks/palindrome.py               one window, inside `fit` and through the protocol
    python benchmarks/palindrome.py --seeds 100   100 seeds of both cells, in two processes

Before anything is timed, the losses of the first windows are held against a plain numpy forward
pass whose gradients are complex steps (Squire & Trapp 1998): no derivative is written there, so
none can be wrong.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt.palindrome import (
    CONFIGURATIONS,
    DUAL_LSTM,
    RNN,
    Configuration,
    build,
    data,
    start_seed,
    train,
)
from common import report, shell

NAMES = {"rnn": "RNN", "lstm": "dual LSTM"}

Matrix: TypeAlias = npt.NDArray[Any]
Named: TypeAlias = dict[str, Matrix]


# --- right before fast ---------------------------------------------------------------------------


class Reference:
    """A noiseless net in numpy, with complex weights so that gradients can be complex steps."""

    def __init__(self, configuration: Configuration, weights: Named, state: Named) -> None:
        self.configuration = configuration
        self.weights = {name: value.astype(np.complex128) for name, value in weights.items()}
        self.state = {name: value.astype(np.complex128) for name, value in state.items()}
        self.moments = {name: (np.zeros(w.shape), np.zeros(w.shape)) for name, w in weights.items()}

    def train(self, windows: int) -> Matrix:
        """Losses of so many windows: gradient, clip and Adam (Kingma & Ba 2015, section 2)."""
        c = self.configuration
        inputs, targets = data(windows * c.num_loops)
        losses = []
        for t in range(1, windows + 1):
            frames = slice((t - 1) * c.num_loops, t * c.num_loops)
            loss, state = self.window(inputs[frames], targets[frames])
            losses.append(loss.real)
            gradients = {
                name: self.gradient(name, inputs[frames], targets[frames]) for name in self.weights
            }
            self.state = state
            rate = c.learning_rate * (1 - c.beta2**t) ** 0.5 / (1 - c.beta1**t)
            for name, gradient in gradients.items():
                gradient = np.clip(gradient, -c.clip, c.clip)
                m, v = self.moments[name]
                m += (1 - c.beta1) * (gradient - m)
                v += (1 - c.beta2) * (gradient**2 - v)
                self.weights[name] -= rate * m / (np.sqrt(v) + c.epsilon)
        return np.array(losses)

    def gradient(self, name: str, x: Matrix, y: Matrix) -> Matrix:
        """dLoss/dw = Im(Loss(w + ih)) / h: exact to rounding, since nothing is subtracted."""
        weight, h = self.weights[name], 1e-30
        gradient = np.empty(weight.shape)
        for index in np.ndindex(weight.shape):
            weight[index] += 1j * h
            gradient[index] = self.window(x, y)[0].imag / h
            weight[index] = weight[index].real
        return gradient

    def window(self, x: Matrix, y: Matrix) -> tuple[complex, Named]:
        """The mean squared error of one window, and the state after it."""
        state = dict(self.state)
        cell = self.rnn if self.configuration.cell == "rnn" else self.lstm
        error = 0j
        for value, target in zip(x, y, strict=True):
            h = np.full((1, 1), value)
            for layer in range(self.configuration.layers):
                h = cell(state, layer, h)
            error += (sigmoid(self.weights["W"] @ h + self.weights["b"]).item() - target) ** 2
        return error / len(x), state

    def rnn(self, state: Named, layer: int, x: Matrix) -> Matrix:
        """One frame of one layer; the state is brought up to date."""
        W_ax, W_aa, b = (self.weights[f"rnn_layer_{layer}/{n}"] for n in ("W_ax", "W_aa", "b_a"))
        h: Matrix = np.tanh(W_ax @ x + W_aa @ state[f"hidden-{layer}"] + b)
        state[f"hidden-{layer}"] = h
        return h

    def lstm(self, state: Named, layer: int, x: Matrix) -> Matrix:
        """One frame of one layer (Graves 2013, equations 7 to 11, full peepholes)."""

        def w(name: str) -> Matrix:
            return self.weights[f"lstm_layer_{layer}/{name}"]

        def z(gate: str) -> Matrix:
            sums: Matrix = w(f"W_x{gate}") @ x + w(f"W_h{gate}") @ h_past + w(f"b_{gate}")
            return sums

        h_past, c_past = state[f"hidden-{layer}"], state[f"cell-{layer}"]
        i = sigmoid(z("i") + w("W_ci") @ c_past)
        f = sigmoid(z("f") + w("W_cf") @ c_past)
        c = f * c_past + i * np.tanh(z("c"))
        o = sigmoid(z("o") + w("W_co") @ c)
        h: Matrix = o * np.tanh(c)
        state[f"hidden-{layer}"], state[f"cell-{layer}"] = h, c
        return h


def sigmoid(z: Matrix) -> Matrix:
    return 1 / (1 + np.exp(-z))


def check_losses(configuration: Configuration, windows: int) -> float:
    """Hold our losses against the reference's: the largest relative difference, if it will do."""
    quiet = replace(configuration, noise=0.0)
    bp, operation = build(quiet, start_seed(0, 0))
    reference = Reference(quiet, dict(bp.parameters), dict(bp.state[bp.DEEP]))
    ours = bp.fit(operation, data(windows * quiet.num_loops), steps=windows, progress=False).loss
    theirs = reference.train(windows)
    difference = float(np.max(np.abs(ours - theirs) / theirs))
    if not difference < 1e-4:
        net = NAMES[configuration.cell]
        sys.exit(f"{net}: losses are wrong, by {difference:.1e} of their size; nothing was timed")
    return difference


# --- time of one window --------------------------------------------------------------------------


def through_fit(configuration: Configuration, windows: int) -> Callable[[], object]:
    """So many windows inside `fit`."""
    bp, operation = build(configuration, start_seed(0, 0))
    sequence = data(10 * configuration.num_loops)
    return lambda: bp.fit(operation, sequence, steps=windows, start=bp.next_frame, progress=False)


def through_protocol(configuration: Configuration, windows: int) -> Callable[[], object]:
    """The same windows one at a time: feed, run, save the state."""
    bp, operation = build(configuration, start_seed(0, 0))
    T = configuration.num_loops
    inputs, targets = (sequence.astype(np.float32) for sequence in data(10 * T))
    pairs = [[inputs[at : at + T], targets[at : at + T]] for at in range(0, 10 * T, T)]
    out = bp.graphs[bp.DEEP][2]
    fetches = [operation, operation.loss, out, *bp.generate_output_definitions(bp.DEEP)]

    def run() -> None:
        for window in range(windows):
            feed = bp.generate_feed_dict(bp.DEEP, pairs[window % len(pairs)], 2)
            results = bp.run(fetches, feed)
            bp.save_output_state(bp.DEEP, results[3:])

    return run


@dataclass(frozen=True)
class Case:
    """What is timed."""

    configuration: Configuration
    way: str
    build: Callable[[Configuration, int], Callable[[], object]]
    goal: float | None  #: microseconds


CASES = (
    Case(RNN, "fit", through_fit, goal=10),
    Case(RNN, "protocol", through_protocol, goal=60),
    Case(DUAL_LSTM, "fit", through_fit, goal=None),
    Case(DUAL_LSTM, "protocol", through_protocol, goal=None),
)
ROW = "{:<10} {:>5} {:>3} {:>10} {:>10} {:>10} {:>10} {:>7}"


def time_windows(*, repeats: int, windows: int) -> None:
    """Print the time of a window in every case.

    The repeats of all cases take turns, so that what else the machine does meets all alike.
    """
    for configuration in (RNN, DUAL_LSTM):
        difference = check_losses(configuration, windows=10)
        net = NAMES[configuration.cell]
        print(f"{net}: the losses of 10 windows differ from numpy's by {difference:.0e} at most")

    runs = [case.build(case.configuration, windows) for case in CASES]
    for run in runs:
        run()  # compiles the program, warms the caches
    times = np.empty((repeats, len(CASES)))
    for row in times:
        for number, run in enumerate(runs):
            began = time.perf_counter()
            run()
            row[number] = (time.perf_counter() - began) / windows * 1e6

    print("\nA window of batch 1 in float32: noise, forward, backward, clip, Adam. Threads: 1.")
    print(f"Microseconds, of {repeats} interleaved repeats of {windows} windows each.\n")
    print(ROW.format("net", "width", "T", "way", "median", "quartile", "quartile", "goal"))
    for case, measured in zip(CASES, times.T, strict=True):
        low, median, high = np.quantile(measured, (0.25, 0.5, 0.75))
        goal = "" if case.goal is None else f"< {case.goal:.0f}"
        verdict = "" if case.goal is None else "met" if median < case.goal else "MISSED"
        net, shape = NAMES[case.configuration.cell], case.configuration
        figures = (f"{figure:.2f}" for figure in (median, low, high))
        print(ROW.format(net, shape.width, shape.num_loops, case.way, *figures, goal), verdict)
    print("\n(The RNN's window on TensorFlow, where the nets come from: about 1400.)")


# --- how training ends ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulation:
    """What an independent simulation of the same net gave, of 100 starts."""

    given_up: float  #: share of the starts
    good: float  #: share of the others that ended below 1e-3
    error: float  #: median of the mean absolute errors


SIMULATIONS = {"rnn": Simulation(0.01, 0.96, 0.0125), "lstm": Simulation(0.58, 0.88, 0.0088)}
TOLD_APART, ENOUGH = 0.12, 100
"""Shares of 100 that differ by less than 12 points may well be those of the same net."""


def one_seed(cell: str, seed: int) -> tuple[int, float, float]:
    """Restarts, loss and streamed error of one seed; runs in a worker."""
    result = train(CONFIGURATIONS[cell], seed)
    return result.restarts, result.loss, result.shallow_mean_abs_error


def many_seeds(seeds: int) -> None:
    """Print how seeds 0 ... seeds-1 of both cells end, beside the independent simulation."""
    with ProcessPoolExecutor(max_workers=2) as workers:
        for cell, simulation in SIMULATIONS.items():
            began = time.perf_counter()
            outcomes = list(workers.map(one_seed, repeat(cell, seeds), range(seeds)))
            seconds = time.perf_counter() - began
            restarts, losses, errors = (np.array(column) for column in zip(*outcomes, strict=True))
            given_up, good = int(restarts.sum()), int((losses < 1e-3).sum())
            print(f"\n{NAMES[cell]}, seeds 0 to {seeds - 1} ({seconds:.1f} s in two processes)")
            compare("starts given up", given_up, given_up + seeds, simulation.given_up)
            compare("the others: loss below 1e-3", good, seeds, simulation.good)
            print(f"  {'seeds: loss below 1e-3':<34} {f'{good} of {seeds}':>11}")
            print(
                f"  {'median of mean absolute errors':<34} {np.median(errors):>11.4f}"
                f"         independent: {simulation.error:.4f}"
            )
            print(f"  {'most restarts of a seed':<34} {restarts.max():>11}")


def compare(what: str, count: int, of: int, simulated: float) -> None:
    verdict = "  DIFFERS" if of >= ENOUGH and abs(count / of - simulated) > TOLD_APART else ""
    print(
        f"  {what:<34} {f'{count} of {of}':>11}  {count / of:>5.0%}"
        f"  independent: {simulated:.0%}{verdict}"
    )


# --- the command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds",
        type=shell.positive,
        metavar="N",
        help="train N seeds of both cells, time nothing",
    )
    parser.add_argument(
        "--repeats",
        type=shell.positive,
        default=31,
        metavar="N",
        help="of each timing (default: 31)",
    )
    parser.add_argument("--short", action="store_true", help="a little of both, for CI")
    options = parser.parse_args(arguments)

    print(f"bptt {version('bptt')}, Python {platform.python_version()}, numpy {np.__version__}")
    print(report.processor())
    if options.short:
        time_windows(repeats=3, windows=200)
        many_seeds(options.seeds or 4)
    elif options.seeds:
        many_seeds(options.seeds)
    else:
        time_windows(repeats=options.repeats, windows=1000)


if __name__ == "__main__":
    main()
