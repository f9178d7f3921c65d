"""tanh and the logistic sigmoid: at most 4 units in the last place from the true value.

    python tests/test_activations.py    every float32 there is, and ten times as many float64

The suite tries every 61st float32 (a step that meets every exponent, and in the end every pattern
of the last bits), every one of the first and last of each exponent, and as many float64.
"""

from __future__ import annotations

import decimal
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bptt import _core

ULPS = 4
NAMES = ("tanh", "sigmoid")
RUN = 1 << 17  #: numbers at once, so that all of them stay in a cache


def program_of(name: str, dtype: type[np.floating], size: int) -> Callable[..., np.ndarray]:
    """The operation, of arrays with so many numbers."""
    graph = _core.Graph()
    x = graph.placeholder(size, 1)
    (y,) = graph.append(name, [x])
    single = dtype is np.float32
    weights = _core.Weights32() if single else _core.Weights64()
    program = (_core.Program32 if single else _core.Program64)(graph, weights, 1, [y])

    def run(numbers: np.ndarray) -> np.ndarray:
        program.feed(x, numbers.reshape(1, size, 1))
        program.forward(0)
        return program.value(y).reshape(size)

    return run


def exact(name: str, x: np.ndarray, wide: type[np.floating]) -> np.ndarray:
    """The true value as numpy's wider type has it."""
    with np.errstate(over="ignore", under="ignore"):
        wider = x.astype(wide)
        return np.tanh(wider) if name == "tanh" else 1 / (1 + np.exp(-wider))


def furthest(got: np.ndarray, true: np.ndarray) -> tuple[float, int]:
    """How far from the truth, in units of the last place of the true value, and where."""
    kind = np.finfo(got.dtype)
    exponent = np.where(true == 0, kind.minexp, np.frexp(true)[1] - 1)
    exponent = np.maximum(exponent, kind.minexp)  # 2^exponent <= |true|, or denormal
    with np.errstate(invalid="ignore"):  # the difference of infinities would be NaN, and fail
        ulps = np.ldexp(np.abs(got.astype(true.dtype) - true), kind.nmant - exponent)
    worst = int(np.argmax(np.where(np.isnan(ulps), np.inf, ulps)))
    return float(ulps[worst]), worst


def worst_of(name: str, dtype: type[np.floating], wide: type[np.floating], runs: object) -> float:
    """The largest error over arrays of RUN numbers each."""
    run = program_of(name, dtype, RUN)
    worst, where = 0.0, dtype(0)
    for x in runs:  # type: ignore[attr-defined]
        ulps, at = furthest(run(x), exact(name, x, wide))
        if not ulps <= worst:
            worst, where = ulps, x[at]
    print(f"\n{name}, {dtype.__name__}: {worst:.3f} units in the last place, at {where!r}")
    return worst


# float32 ----------------------------------------------------------------------------------------


def floats(step: int) -> Iterator[np.ndarray]:
    """Every step-th pattern of 32 bits that is a finite number, in runs."""
    for first in range(0, 1 << 32, step * RUN):
        bits = np.arange(first, first + step * RUN, step, dtype=np.uint64)
        numbers = (bits & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
        yield np.where(np.isfinite(numbers), numbers, np.float32(0))


def around_powers(dtype: type[np.floating], each: int) -> Iterator[np.ndarray]:
    """The first and the last numbers of every exponent, both signs; then zeros."""
    bits = np.dtype(dtype).itemsize * 8
    kind = np.finfo(dtype)
    unsigned = np.uint32 if bits == 32 else np.uint64
    exponents = np.arange(1 << kind.nexp, dtype=np.uint64) << np.uint64(kind.nmant)
    patterns = (exponents[:, None] + np.arange(each, dtype=np.uint64)).ravel()
    patterns = np.concatenate([patterns, patterns[each:] - np.uint64(each)])
    patterns = np.concatenate([patterns, patterns | np.uint64(1 << (bits - 1))])
    numbers = patterns.astype(unsigned).view(dtype)
    numbers = np.where(np.isfinite(numbers), numbers, dtype(0))
    padded = np.zeros(-(-len(numbers) // RUN) * RUN, dtype)
    padded[: len(numbers)] = numbers
    yield from padded.reshape(-1, RUN)


@pytest.mark.parametrize("name", NAMES)
def test_float32(name: str) -> None:
    assert worst_of(name, np.float32, np.float64, floats(61)) <= ULPS
    assert worst_of(name, np.float32, np.float64, around_powers(np.float32, 256)) <= ULPS


# float64 ----------------------------------------------------------------------------------------


def doubles(runs: int) -> Iterator[np.ndarray]:
    """Random: evenly over where the functions bend, evenly over exponents, over all patterns."""
    rng = np.random.default_rng(1)
    for number in range(runs):
        if number % 4 == 0:
            yield rng.uniform(-40, 40, RUN)
        elif number % 4 == 1:
            yield rng.uniform(-1.5, 1.5, RUN)
        elif number % 4 == 2:
            yield np.ldexp(rng.uniform(-1, 1, RUN), rng.integers(-60, 11, RUN))
        else:
            numbers = rng.integers(0, 1 << 64, RUN, dtype=np.uint64).view(np.float64)
            yield np.where(np.isfinite(numbers), numbers, 0.0)


WIDER = np.finfo(np.longdouble).nmant >= 63  #: else decimal.Decimal alone is the judge


@pytest.mark.parametrize("name", NAMES)
def test_float64_against_long_double(name: str) -> None:
    """x86 has 11 bits more than double, Linux on ARM 60; where there are none, see below."""
    if not WIDER:
        pytest.skip("long double is double here; test_float64_against_decimal judges alone")
    assert worst_of(name, np.float64, np.longdouble, doubles(8)) <= ULPS
    assert worst_of(name, np.float64, np.longdouble, around_powers(np.float64, 16)) <= ULPS


def decimally(name: str, x: float) -> decimal.Decimal:
    """To 50 digits at least: of 120, up to 30 cancel in 1 - exp(-2x), and 36 are x's smallness."""
    with decimal.localcontext() as context:
        context.prec, context.Emin, context.Emax = 120, decimal.MIN_EMIN, decimal.MAX_EMAX
        number = decimal.Decimal(x)
        if name == "sigmoid":
            return 1 / (1 + (-number).exp())
        if abs(x) < 1e-30:
            return number  # tanh(x) = x - x^3 / 3 + ...
        below = (-2 * abs(number)).exp()
        return ((1 - below) / (1 + below)).copy_sign(number)


@pytest.mark.parametrize("name", NAMES)
def test_float64_against_decimal(name: str) -> None:
    """Arithmetic that shares nothing with the processor's, over fewer numbers."""
    rng = np.random.default_rng(2)
    x = np.concatenate(
        [
            rng.uniform(-22, 22, 1500),
            rng.uniform(-1, 1, 1000),
            np.ldexp(rng.uniform(-1, 1, 1000), rng.integers(-60, 6, 1000)),
            rng.uniform(-760, -700, 400),
            [5e-324, -5e-324, 2.2e-308, -2.2e-308, 0.0, 19.0, 20.0, 21.0, 37.0, 39.0, 709.0, 1e308],
        ]
    )
    worst = 0.0
    for number, got in zip(x, program_of(name, np.float64, len(x))(x), strict=True):
        true = decimally(name, float(number))
        unit = decimal.Decimal(float(np.spacing(np.abs(float(true)))))
        worst = max(worst, float(abs(decimal.Decimal(float(got)) - true) / unit))
    print(f"\n{name}, float64 against decimal: {worst:.3f} units in the last place")
    assert worst <= ULPS


# What else is promised --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_they_end(dtype: type[np.floating]) -> None:
    """NaN, infinities, zeros; from a quotient, since nothing that is not finite can be fed."""
    graph = _core.Graph()
    over, under = graph.placeholder(5, 1), graph.placeholder(5, 1)
    (x,) = graph.append("divide", [over, under])
    outputs = [graph.append(name, [x])[0] for name in NAMES]
    single = dtype is np.float32
    weights = _core.Weights32() if single else _core.Weights64()
    program = (_core.Program32 if single else _core.Program64)(graph, weights, 1, outputs)
    program.feed(over, np.array([0, 1, -1, 0, 0], dtype).reshape(1, 5, 1))
    program.feed(under, np.array([0, 0, 0, 1, -1], dtype).reshape(1, 5, 1))
    program.forward(0)
    tanh, sigmoid = (program.value(output).ravel() for output in outputs)
    np.testing.assert_array_equal(tanh, np.array([np.nan, 1, -1, 0, -0.0], dtype))
    assert not np.signbit(tanh[3])
    assert np.signbit(tanh[4])
    np.testing.assert_array_equal(sigmoid, np.array([np.nan, 1, 0, 0.5, 0.5], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_is_odd_to_the_bit(dtype: type[np.floating]) -> None:
    """Signed zeros and denormal numbers included."""
    run = program_of("tanh", dtype, RUN)
    for x in around_powers(dtype, 64 if dtype is np.float32 else 16):
        bits = np.uint32 if dtype is np.float32 else np.uint64
        np.testing.assert_array_equal(run(-x).view(bits), (-run(x)).view(bits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_alone_has_the_bits_of_one_in_an_array(
    name: str, dtype: type[np.floating]
) -> None:
    """Ends of arrays, and frames one at a time, go the way of whole packets."""
    x = np.random.default_rng(3).normal(0, 3, 67).astype(dtype)
    together = program_of(name, dtype, 67)(x)
    alone = program_of(name, dtype, 1)
    assert [alone(each[None])[0] for each in x] == together.tolist()


if __name__ == "__main__":
    began = time.perf_counter()
    found = [worst_of(name, np.float32, np.float64, floats(1)) for name in NAMES]
    if WIDER:
        found += [worst_of(name, np.float64, np.longdouble, doubles(80)) for name in NAMES]
    print(f"\n{time.perf_counter() - began:.0f} s")
    sys.exit(max(found) > ULPS)
