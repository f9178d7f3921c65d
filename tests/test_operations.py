"""Every operation in the core's own list: what it computes, and its gradient.

An operation is tested by being in the list: its examples are run with every mixture of inputs that
are weights (the same at every frame), frame values (one stage over the whole window) and values in
a cycle (a stage that steps frame by frame).  What a new operation computes is a line in MEANING.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from bptt import _core

OPERATIONS = {operation.name: operation for operation in _core.operations()}
DRAWN = {"normal", "uniform"}  # noise: no inputs, no gradient; see the end
NO_GRADIENT = {"stop_gradient", "less"}  # the gradient is zero, whatever a difference quotient says


# Which input holds symbols, integers that have no gradient; and how many there are, by the shapes
# of the inputs.
SYMBOLS: dict[str, tuple[int, Callable[[list[tuple[int, int]]], int]]] = {
    "embedding": (0, lambda shapes: shapes[1][1]),
    "softmax_cross_entropy_of_symbols": (1, lambda shapes: shapes[0][0]),
}


# What each operation computes at one frame ----------------------------------------------------


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rnn(x, h, W_ax, W_aa, b_a, *, activation):
    z = W_aa @ h + W_ax @ x + b_a
    return [np.tanh(z) if activation == "tanh" else np.maximum(z, 0)]


def gru(x, h, seen, W_xr, W_xz, W_xn, W_hr, W_hz, W_hn, b_r, b_z, b_n, b_hn=0, *, reset):
    r = logistic(W_xr @ x + W_hr @ seen + b_r)
    z = logistic(W_xz @ x + W_hz @ seen + b_z)
    met = r * (W_hn @ seen + b_hn) if reset == "after" else W_hn @ (r * seen)
    return [(1 - z) * np.tanh(W_xn @ x + b_n + met) + z * h]


def lstm(x, c, h, *weights, peephole, gates="ifco", projected=False):
    n = len(gates)
    W_x, W_h, b, rest = weights[:n], weights[n : 2 * n], weights[2 * n : 3 * n], weights[3 * n :]
    z = {gate: W_x[k] @ x + W_h[k] @ h + b[k] for k, gate in enumerate(gates)}
    W_rm, peepholes = (rest[0], rest[1:]) if projected else (1.0, rest)

    def peep(gate, c):
        W = peepholes[gates.replace("c", "").index(gate)] if peepholes else np.zeros((1, 1))
        return W @ c if peephole == "full" else W * c

    i = logistic(z["i"] + peep("i", c))
    f = logistic(z["f"] + peep("f", c)) if "f" in gates else 1 - i
    new = f * c + i * np.tanh(z["c"])
    m = logistic(z["o"] + peep("o", new)) * np.tanh(new)
    return [new, W_rm @ m if projected else m]


def normal(v, epsilon):
    v = v - v.mean(axis=0)
    return v / np.sqrt((v * v).mean(axis=0) + epsilon)


def lstm_normalised(x, c, h, *weights, epsilon):
    W_x, W_h, b, gain_x, gain_h = (np.concatenate(weights[k : k + 4]) for k in range(0, 20, 4))
    z = gain_x * normal(W_x @ x, epsilon) + gain_h * normal(W_h @ h, epsilon) + b
    i, f, g, o = np.split(z, 4)
    new = logistic(f) * c + logistic(i) * np.tanh(g)
    gain_cell, bias_cell = weights[20:]
    return [new, logistic(o) * np.tanh(gain_cell * normal(new, epsilon) + bias_cell)]


def reduction(function: Callable[..., np.ndarray]) -> Callable[..., list[np.ndarray]]:
    return lambda x, axis: [function(x, axis=(0, 1) if axis == 2 else axis, keepdims=True)]


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=0, keepdims=True))


def huber(e: np.ndarray, delta: np.ndarray) -> np.ndarray:
    return np.where(np.abs(e) > delta, delta * (np.abs(e) - delta / 2), e * e / 2)


def cross_entropy(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -(p * log_softmax(x)).sum(axis=0, keepdims=True)


def one_hot(symbols: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[:, symbols[0].astype(int)]


MEANING: dict[str, Callable[..., list[np.ndarray]]] = {
    "add": lambda a, b: [a + b],
    "subtract": lambda a, b: [a - b],
    "multiply": lambda a, b: [a * b],
    "divide": lambda a, b: [a / b],
    "maximum": lambda a, b: [np.maximum(a, b)],
    "minimum": lambda a, b: [np.minimum(a, b)],
    "less": lambda a, b: [np.where(a < b, 1, 0)],
    "matmul": lambda a, b: [a @ b],
    "negative": lambda x: [-x],
    "tanh": lambda x: [np.tanh(x)],
    "sigmoid": lambda x: [logistic(x)],
    "relu": lambda x: [np.where(x > 0, x, 0)],
    "exp": lambda x: [np.exp(x)],
    "log": lambda x: [np.log(x)],
    "sqrt": lambda x: [np.sqrt(x)],
    "square": lambda x: [x * x],
    "abs": lambda x: [np.abs(x)],
    "stop_gradient": lambda x: [x],
    "transpose": lambda x: [x.T],
    "concat": lambda *x, axis: [np.concatenate(x, axis)],
    "slice": lambda x, start, stop: [x[start:stop]],
    "sum": reduction(np.sum),
    "mean": reduction(np.mean),
    "expand": lambda x, features, batch: [np.broadcast_to(x, (features, batch))],
    "huber": lambda e, delta: [huber(e, delta)],
    "binary_cross_entropy_with_logits": lambda x, p: [
        -p * np.log(logistic(x)) - (1 - p) * np.log(logistic(-x))
    ],
    "softmax": lambda x: [np.exp(log_softmax(x))],
    "log_softmax": lambda x: [log_softmax(x)],
    "softmax_cross_entropy": lambda x, p: [cross_entropy(x, p)],
    "softmax_cross_entropy_of_symbols": lambda x, k: [cross_entropy(x, one_hot(k, len(x)))],
    "embedding": lambda k, W: [W @ one_hot(k, W.shape[1])],
    "rnn": rnn,
    "gru": gru,
    "lstm": lstm,
    "lstm_coupled": functools.partial(lstm, gates="ico"),
    "lstm_projected": functools.partial(lstm, projected=True),
    "lstm_normalised": lstm_normalised,
}

OVER_THE_WINDOW: dict[str, Callable[[np.ndarray], float]] = {
    "window_sum": np.sum,
    "window_mean": np.mean,
}


def test_every_operation_has_a_meaning_here():
    """A new operation needs a line in MEANING; its gradient is checked without."""
    assert set(OPERATIONS) == {*MEANING, *OVER_THE_WINDOW, *DRAWN}


def test_every_operation_has_examples():
    assert [name for name, operation in OPERATIONS.items() if not operation.examples] == []


# A window in which one operation is used ------------------------------------------------------

WEIGHT, FRAME, CYCLE, OWN = "weight", "frame", "cycle", "own"


@dataclass(frozen=True)
class Case:
    """An example of an operation, and what each of its inputs is.

    weight: a variable; frame: a placeholder; cycle: depends on what the operation gave a frame ago;
    own: the past value of the operation's own output (input 1 + k of output k, and those beyond of
    the last), for cells.
    """

    operation: str
    example: int
    places: tuple[str, ...]

    def __str__(self) -> str:
        inputs = [place for i, place in enumerate(self.places) if not self.is_weight(i)]
        return f"{self.operation}{self.example}-{'+'.join(inputs)}"

    def is_weight(self, i: int) -> bool:
        return OPERATIONS[self.operation].is_weight(i)


def cases() -> Iterator[Case]:
    for name, operation in OPERATIONS.items():
        for number, example in enumerate(operation.examples):
            free = [i for i in range(len(example.inputs)) if not operation.is_weight(i)]
            choices = [FRAME, CYCLE] if operation.sequence else [WEIGHT, FRAME, CYCLE]
            if name in OVER_THE_WINDOW:
                choices = [WEIGHT, FRAME]
            symbols = SYMBOLS.get(name, (None,))[0]
            each = [[WEIGHT, FRAME] if i == symbols else choices for i in free]
            mixtures = list(itertools.product(*each)) if free else []
            if operation.sequence:
                mixtures += [(place, *[OWN] * (len(free) - 1)) for place in choices]
            for mixture in mixtures:
                places = [WEIGHT] * len(example.inputs)
                for i, place in zip(free, mixture, strict=True):
                    places[i] = place
                yield Case(name, number, tuple(places))


class Net:
    """The operation, what it needs, and a loss: the outputs' inner product with random numbers."""

    def __init__(self, case: Case, frames: int):
        self.case, self.frames = case, frames
        self.operation = OPERATIONS[case.operation]
        self.example = self.operation.examples[case.example]
        self.rng = np.random.default_rng(zlib.crc32(f"{case} {case.places} {frames}".encode()))
        self.graph = _core.Graph()
        self.weights: dict[str, np.ndarray] = {}
        self.fed: dict[int, np.ndarray] = {}
        self.pasts: dict[str, tuple[int, np.ndarray]] = {}
        self.flat: set[str] = set()  # what has no gradient
        self.checked: list[int] = []  # the fed values whose gradient is of interest

        # One number, of a frame ago, closes the cycle.
        self.before = self.past("before", (1, 1)) if CYCLE in case.places else None
        self.inputs = [
            self.own_past(i, shape) if place == OWN else self.input(i, place, shape)
            for i, (place, shape) in enumerate(zip(case.places, self.example.inputs, strict=True))
        ]
        self.outputs = self.graph.append(case.operation, self.inputs, self.example.attributes)
        for (name, (past, _)), output in zip(
            [p for p in self.pasts.items() if p[0] != "before"], self.outputs, strict=False
        ):
            assert self.graph.tie(past, output) == output, name

        inner = [self.inner_product(output) for output in self.outputs]
        self.loss = inner[0]
        for other in inner[1:]:
            (self.loss,) = self.graph.append("add", [self.loss, other])
        if self.before is not None:
            self.close_the_cycle()

    # The parts

    def numbers(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.uniform(self.example.low, self.example.high, shape)

    def placeholder(self, numbers: np.ndarray) -> int:
        value = self.graph.placeholder(*numbers.shape[1:])
        self.fed[value] = numbers
        return value

    def holds_symbols(self, i: int) -> bool:
        return SYMBOLS.get(self.case.operation, (None,))[0] == i

    def numbers_for(self, i: int, shape: tuple[int, ...]) -> np.ndarray:
        if not self.holds_symbols(i):
            return self.numbers(shape)
        _, count = SYMBOLS[self.case.operation]
        return self.rng.integers(count(self.example.inputs), size=shape).astype(np.float64)

    def past(self, name: str, shape: tuple[int, int]) -> int:
        value = self.graph.past(name, *shape)
        self.pasts[name] = (value, self.numbers(shape))
        return value

    def own_past(self, i: int, shape: tuple[int, int]) -> int:
        outputs = 2 if self.case.operation.startswith("lstm") else 1
        name = f"own{min(i, outputs) - 1}"
        return self.pasts[name][0] if name in self.pasts else self.past(name, shape)

    def input(self, i: int, place: str, shape: tuple[int, int]) -> int:
        if place == WEIGHT:
            self.weights[f"W{i}"] = self.numbers_for(i, shape)
            if self.holds_symbols(i):
                self.flat.add(f"W{i}")
            return self.graph.variable(f"W{i}", *shape)
        x = self.placeholder(self.numbers_for(i, (self.frames, *shape)))
        self.checked.append(x)
        if self.holds_symbols(i):
            self.flat.add(f"input {x}")
        if place == FRAME:
            return x
        # x + sigmoid(before) (y - x) is between x and y, so within the operation's domain.
        y_minus_x = self.placeholder(self.numbers((self.frames, *shape)) - self.fed[x])
        (gate,) = self.graph.append("sigmoid", [self.before])
        (step,) = self.graph.append("multiply", [gate, y_minus_x])
        return self.graph.append("add", [x, step])[0]

    def inner_product(self, output: int) -> int:
        """sum_t <output_t, R_t>, all R different, so that nothing goes unseen by symmetry."""
        if self.graph.extent(output) == "window":
            R = self.graph.constant(self.rng.standard_normal(self.graph.shape(output)))
            return self.graph.append("multiply", [output, R])[0]
        R = self.placeholder(self.rng.standard_normal((self.frames, *self.graph.shape(output))))
        (product,) = self.graph.append("multiply", [output, R])
        return self.graph.append("window_sum", [product])[0]

    def close_the_cycle(self) -> None:
        """The past value `before` is tanh(sum of <output, R>) of the frame before."""
        total = self.graph.constant(np.zeros((1, 1)))
        for output in self.outputs:
            R = self.graph.constant(self.rng.standard_normal(self.graph.shape(output)))
            (product,) = self.graph.append("multiply", [output, R])
            (inner,) = self.graph.append("sum", [product], {"axis": 2})
            (total,) = self.graph.append("add", [total, inner])
        (after,) = self.graph.append("tanh", [total])
        self.graph.tie(self.before, after)

    # Running it

    def compile(self, bits: int, fetches: list[int], loss: bool = False, wrt: bool = True) -> None:
        core_weights, program = {
            32: (_core.Weights32, _core.Program32),
            64: (_core.Weights64, _core.Program64),
        }[bits]
        self.core_weights = core_weights()
        for name, numbers in self.weights.items():
            self.core_weights.declare(name, numbers)
        inputs = [*self.checked, *(past for past, _ in self.pasts.values())] if wrt else []
        backward = [self.loss, inputs] if loss else []
        self.program = program(  # each operation by itself
            self.graph, self.core_weights, self.frames, fetches, *backward, passes=False
        )

    def forward(self) -> None:
        for name, numbers in self.weights.items():
            self.core_weights.set(name, numbers)
        for value, numbers in self.fed.items():
            if value in self.program.placeholders:
                self.program.feed(value, numbers)
        for name, (_, numbers) in self.pasts.items():
            self.program.set_past(name, numbers)
        self.program.forward(0)

    def loss_now(self) -> float:
        self.forward()
        return float(self.program.value(self.loss).item())

    def gradients(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(what, its numbers, dLoss/dnumbers), for weights, fed values and incoming state."""
        self.forward()
        self.program.backward()
        return [
            *((n, x, np.array(self.core_weights.gradient(n))) for n, x in self.weights.items()),
            *(
                (f"input {v}", self.fed[v], np.array(self.program.gradient(v)))
                for v in self.checked
            ),
            *((n, x, np.array(self.program.gradient(v))[0]) for n, (v, x) in self.pasts.items()),
        ]


CASES = list(cases())
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@each_case
def test_value(case: Case) -> None:
    """Each frame's output is what numpy makes of that frame's inputs, in both precisions."""
    for frames, bits in itertools.product([1, 2, 5], [32, 64]):
        net = Net(case, frames)
        net.compile(bits, [*net.inputs, *net.outputs])
        net.forward()
        inputs = [np.array(net.program.value(v), dtype=np.float64) for v in net.inputs]
        outputs = [np.array(net.program.value(v), dtype=np.float64) for v in net.outputs]
        if case.operation in OVER_THE_WINDOW:
            outputs = [outputs[0].ravel()]
            expected = [np.array([OVER_THE_WINDOW[case.operation](inputs[0])])]
        else:
            meaning = MEANING[case.operation]
            every = [
                meaning(*(x[t] for x in inputs), **net.example.attributes) for t in range(frames)
            ]
            expected = [np.stack(values) for values in zip(*every, strict=True)]
        for output, values in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output, values, **tolerance(bits))


def tolerance(bits: int) -> dict[str, float]:
    return {"rtol": 1e-12, "atol": 1e-13} if bits == 64 else {"rtol": 2e-5, "atol": 2e-6}


@each_case
def test_gradient(case: Case) -> None:
    """<gradient, direction> is the central difference of the loss along that direction."""
    for frames in [1, 2, 5]:
        net = Net(case, frames)
        net.compile(64, [], loss=True)
        assert (stage_of(net) == "stepwise") == (CYCLE in case.places)
        net.gradients()  # a second sweep must not add to the first
        for what, numbers, gradient in net.gradients():
            assert gradient.shape == numbers.shape, what
            if case.operation in NO_GRADIENT or what in net.flat:
                np.testing.assert_array_equal(gradient, 0.0, err_msg=what)
                continue
            direction = net.rng.standard_normal(numbers.shape)
            step = 1e-6
            numbers += step * direction
            above = net.loss_now()
            numbers -= 2 * step * direction
            below = net.loss_now()
            numbers += step * direction
            slope = (above - below) / (2 * step)
            size = np.linalg.norm(gradient) * np.linalg.norm(direction)
            allowed = 1e-6 * size + 1e-8 * max(1.0, abs(above))
            assert abs(slope - np.sum(gradient * direction)) < allowed, f"{what}, {frames} frames"


@each_case
def test_gradient_of_weights_alone(case: Case) -> None:
    """A program that needs no gradients of inputs gives the same ones of weights."""
    net = Net(case, 5)
    net.compile(64, [], loss=True)
    expected = {name: gradient for name, _, gradient in net.gradients() if name in net.weights}
    net.compile(64, [], loss=True, wrt=False)
    net.forward()
    net.program.backward()
    for name, gradient in expected.items():
        got = net.core_weights.gradient(name)
        np.testing.assert_allclose(got, gradient, rtol=1e-12, atol=1e-13, err_msg=name)


def stage_of(net: Net) -> str:
    """How the operation is run: over the whole window, or frame by frame in a cycle."""
    found = {stepwise for names, stepwise in net.program.stages if net.case.operation in names}
    return "stepwise" if True in found else "at once"


@each_case
def test_gradient_in_single_precision(case: Case) -> None:
    net = Net(case, 5)
    net.compile(64, [], loss=True)
    double = net.gradients()
    net.compile(32, [], loss=True)
    for (what, _, expected), (_, _, got) in zip(double, net.gradients(), strict=True):
        assert got.dtype == np.float32
        scale = max(1e-2, np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4 * scale, err_msg=what)


# Noise ----------------------------------------------------------------------------------------


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> str:
    return " ".join(f"{word:08x}" for word in _core.philox4x32(counter, key))


def test_philox_known_answers():
    """The vectors for philox4x32-10 in Random123's kat_vectors (Salmon et al., SC 2011)."""
    ones = 0xFFFFFFFF
    assert philox((0, 0, 0, 0), (0, 0)) == "6627e8d5 e169c58d bc57ac4c 9b00dbd8"
    assert philox((ones,) * 4, (ones,) * 2) == "408f276d 41c83b0e a20bc7c6 6d5451fd"
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(pi, (0xA4093822, 0x299F31D0)) == "d16cfe09 94fdcceb 5001e420 24126ea1"


def draw(
    operation: str,
    *,
    features: int = 3,
    batch: int = 2,
    frames: int = 12,
    start: int = 0,
    seed: int = 7,
    ordinal: int = 0,
    bits: int = 64,
) -> np.ndarray:
    """(frames, features, batch) numbers of one random call, with the attributes of its example."""
    attributes = dict(OPERATIONS[operation].examples[0].attributes)
    attributes.update(features=features, batch=batch, ordinal=ordinal)
    graph = _core.Graph()
    (value,) = graph.append(operation, [], attributes)
    assert graph.extent(value) == "frame"
    core_weights, program = {
        32: (_core.Weights32, _core.Program32),
        64: (_core.Weights64, _core.Program64),
    }[bits]
    run = program(graph, core_weights(), frames, [value], seed=seed)
    run.forward(start)
    return np.array(run.value(value))


NOISE = [operation.name for operation in OPERATIONS.values() if not operation.examples[0].inputs]
each_noise = pytest.mark.parametrize("operation", NOISE)
each_precision = pytest.mark.parametrize("bits", [32, 64])


def test_what_has_no_inputs_is_noise():
    assert set(NOISE) == DRAWN


def standardised(operation: str, drawn: np.ndarray) -> np.ndarray:
    """The distribution function at each number: uniform on (0, 1) if the distribution is right."""
    attributes = OPERATIONS[operation].examples[0].attributes
    drawn = drawn.astype(np.float64).ravel()
    if operation == "uniform":
        return (drawn - attributes["low"]) / (attributes["high"] - attributes["low"])
    z = (drawn - attributes["mean"]) / attributes["stddev"]
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])


@each_noise
@each_precision
@pytest.mark.parametrize("seed", [0, 1, 2**40 + 5])
def test_noise_has_its_distribution(operation: str, bits: int, seed: int) -> None:
    drawn = draw(operation, features=7, batch=5, frames=1000, seed=seed, bits=bits)
    n = drawn.size
    u = np.sort(standardised(operation, drawn))
    assert u[0] > 0
    assert u[-1] < 1
    # Kolmogorov and Smirnov: the distance is above 1.95 / sqrt(n) once in a thousand times
    steps = np.arange(n + 1) / n
    distance = max(np.max(steps[1:] - u), np.max(u - steps[:-1]))
    assert distance < 1.95 / math.sqrt(n)
    # Moments of the numbers themselves, within five standard errors
    attributes = OPERATIONS[operation].examples[0].attributes
    x = drawn.astype(np.float64).ravel()
    if operation == "normal":
        mean, variance, kurtosis = attributes["mean"], attributes["stddev"] ** 2, 3.0
    else:
        width = attributes["high"] - attributes["low"]
        mean, variance, kurtosis = attributes["low"] + width / 2, width**2 / 12, 1.8
        assert attributes["low"] <= x.min()
        assert x.max() <= attributes["high"]
    assert abs(x.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(x.var() - variance) < 5 * variance * math.sqrt((kurtosis - 1) / n)
    z = (x - mean) / math.sqrt(variance)
    assert abs(np.mean(z**3)) < 5 * math.sqrt(15 / n)
    assert abs(np.mean(z**4) - kurtosis) < 5 * math.sqrt(96 / n)


@each_noise
@each_precision
def test_noise_is_reproducible_whatever_the_window(operation: str, bits: int) -> None:
    whole = draw(operation, bits=bits)
    np.testing.assert_array_equal(whole, draw(operation, bits=bits))
    windows = [draw(operation, frames=4, start=4 * i, bits=bits) for i in range(3)]
    np.testing.assert_array_equal(whole, np.concatenate(windows))
    frame_by_frame = [draw(operation, frames=1, start=t, bits=bits) for t in range(12)]
    np.testing.assert_array_equal(whole, np.concatenate(frame_by_frame))


@each_noise
@pytest.mark.parametrize("start", [2**32 - 2, 2**32 + 1, 2**40])
def test_noise_goes_on_where_32_bits_end(operation: str, start: int) -> None:
    across = draw(operation, frames=4, start=start)
    assert len(np.unique(across)) == across.size
    np.testing.assert_array_equal(across[3], draw(operation, frames=1, start=start + 3)[0])
    for t in (start, start + 3):
        if t >= 2**32:
            low_bits = draw(operation, frames=1, start=t % 2**32)
            assert not np.any(low_bits == draw(operation, frames=1, start=t))


@each_noise
@each_precision
def test_noise_depends_on_feature_and_lane_not_on_how_many_there_are(
    operation: str, bits: int
) -> None:
    """A net trained on many lanes has in lane 0 the noise of the same net streamed on one lane."""
    large = draw(operation, features=9, batch=4, bits=bits)
    for features, batch in [(1, 1), (3, 1), (4, 4), (9, 2)]:
        small = draw(operation, features=features, batch=batch, bits=bits)
        np.testing.assert_array_equal(small, large[:, :features, :batch])


@each_noise
def test_noise_of_every_frame_feature_lane_call_and_seed_is_its_own(operation: str) -> None:
    shape = {"features": 6, "batch": 5, "frames": 300}
    arrays = [draw(operation, **shape, seed=seed, ordinal=o) for seed in (7, 8) for o in (0, 1, 2)]
    # All numbers differ (two of 54000 words of 32 bits would coincide once in three runs)
    together = np.stack(arrays)
    assert len(np.unique(together)) > together.size - 5
    # and none is correlated with its neighbour along any axis, nor are their squares
    for x in (together - together.mean(), np.square(together - together.mean())):
        x = x - x.mean()
        for axis in range(x.ndim):
            for lag in range(1, min(6, x.shape[axis])):
                a = x.take(range(lag, x.shape[axis]), axis)
                b = x.take(range(x.shape[axis] - lag), axis)
                correlation = np.mean(a * b) / np.mean(x * x)
                assert abs(correlation) < 5 / math.sqrt(a.size), f"axis {axis}, lag {lag}"


@each_noise
def test_two_calls_in_one_graph_differ(operation: str) -> None:
    attributes = dict(OPERATIONS[operation].examples[0].attributes)
    graph = _core.Graph()
    a, b = (graph.append(operation, [], {**attributes, "ordinal": i})[0] for i in (0, 1))
    program = _core.Program64(graph, _core.Weights64(), 5, [a, b], seed=3)
    program.forward(0)
    assert not np.any(np.array(program.value(a)) == np.array(program.value(b)))


@each_noise
def test_noise_passes_no_gradient_and_lets_others_pass(operation: str) -> None:
    """y = w * noise: dL/dw is the sum of the noise itself."""
    attributes = dict(OPERATIONS[operation].examples[0].attributes)
    graph = _core.Graph()
    (noise,) = graph.append(operation, [], attributes)
    w = graph.variable("w", 1, 1)
    (y,) = graph.append("multiply", [w, noise])
    (loss,) = graph.append("window_sum", [y])
    weights = _core.Weights64()
    weights.declare("w", np.full((1, 1), 2.0))
    program = _core.Program64(graph, weights, 4, [noise], loss, [], 7)
    program.forward(0)
    program.backward()
    np.testing.assert_allclose(weights.gradient("w"), [[np.sum(program.value(noise))]], rtol=1e-12)
