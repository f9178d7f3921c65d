"""The streaming call made in C: what it takes without numpy's help, what it leaves to Python, and
that neither makes a difference to the numbers, the errors or the state.
"""

import gc
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import _core, arrays, layers
from bptt.streaming import Stepper
from rounding import assert_identical

DTYPES = ["float32", "float64"]
SHAPES = [(1, 1), (3, 1), (1, 3), (2, 3), (3, 3)]
HAVE_VECTORCALL = 1 << 11  # Py_TPFLAGS_HAVE_VECTORCALL


def net(*shapes: tuple[int, int], dtype: str = "float32") -> bptt.BPTT:
    """A recurrent net of one placeholder for each shape; they are returned in reversed order."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        inputs = [bp.placeholder(shape, f"in_{i}") for i, shape in enumerate(shapes)]
        sums = [bptt.reduce_sum(x, axis=(0, 1)) for x in inputs]
        h = layers.rnn(bp, bptt.concat(sums), 2)
        return *reversed(inputs), bptt.concat(sums), h

    bp = bptt.BPTT(seed=0, dtype=dtype)
    bp.generate_graphs(frame, num_loops=2)
    return bp


def test_the_call_is_in_c() -> None:
    """CPython's vectorcall protocol, and no Python function on the way."""
    assert _core.Stepper.__flags__ & HAVE_VECTORCALL
    assert "__call__" not in vars(Stepper)
    stepper = net((2, 1)).stepper()
    assert isinstance(stepper, Stepper)
    assert type(stepper).__call__ is _core.Stepper.__call__


# ---- what is taken

LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "as it is": lambda a: a,
    "Fortran": np.asfortranarray,
    "backwards": lambda a: a[::-1, ::-1],
    "every second": lambda a: np.repeat(np.repeat(a, 2, 0), 2, 1)[::2, ::2],
    "repeated": lambda a: np.broadcast_to(a[:1, :1], a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "a field": lambda a: np.array([(x, 0) for x in a.flat], [("x", a.dtype), ("y", "f8")])[
        "x"
    ].reshape(a.shape),
}
USUAL = [np.float32, np.float64]
UNUSUAL = [np.float16, np.longdouble, np.int32, np.bool_, np.uint8, ">f4", ">f8"]


@pytest.mark.parametrize("given", USUAL)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_usual_arrays(
    dtype: str, shape: tuple[int, int], layout: str, given: Any, rng: np.random.Generator
) -> None:
    stepper = net(shape, dtype=dtype).stepper()
    array = LAYOUTS[layout](rng.normal(size=shape).astype(given))
    assert stepper.take([array])
    assert_identical(stepper.inputs[0], np.asarray(array).astype(dtype))


@pytest.mark.parametrize("given", UNUSUAL)
def test_unusual_arrays_are_left_to_python(given: Any, rng: np.random.Generator) -> None:
    stepper = net((2, 3)).stepper()
    array = rng.integers(0, 2, (2, 3)).astype(given)
    assert not stepper.take([array])
    stepper.feed([array])
    assert_identical(stepper.inputs[0], array.astype(np.float32))


@pytest.mark.filterwarnings("ignore:.*matrix subclass")
def test_what_else_is_left_to_python() -> None:
    stepper = net((1, 1)).stepper()
    unaligned = np.zeros(5, np.uint8)[1:].view(np.float32)
    array = np.zeros((1, 1), np.float32)
    left = [
        *([1], (1,), 1, True, "1", None, 1j, np.float16(1), [[0.5]], unaligned),
        *(np.matrix(array), np.ma.masked_array(array), array.astype(object), array.astype("M8[s]")),
    ]
    for value in left:
        assert not stepper.take([value])
    assert not stepper.take([])
    assert not stepper.take([array, array])
    assert not stepper.take(array)
    assert not stepper.take({0: array})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "number", [0.1, -0.0, 1e-60, np.float32(0.1), np.float64(0.1), np.array(0.1)]
)
def test_single_numbers(dtype: str, number: Any) -> None:
    stepper = net((1, 1), dtype=dtype).stepper()
    assert stepper.take((number,))
    assert_identical(stepper.inputs[0], np.array([[number]]).astype(dtype))
    wide = net((2, 1), dtype=dtype).stepper()
    assert not wide.take((number,))
    with pytest.raises(bptt.ShapeError):
        wide.feed((number,))


@pytest.mark.parametrize("shape", SHAPES)
def test_missing_axes(shape: tuple[int, int]) -> None:
    """The rule of `arrays.conform`, for every shape of up to three axes."""
    stepper = net(shape).stepper()
    for count in range(4):
        for got in itertools.product((1, 2, 3), repeat=count):
            array = np.arange(1, 1 + np.prod(got, dtype=int), dtype=np.float32).reshape(got)
            try:
                expected = arrays.conform(array, shape, np.dtype(np.float32), "it")
            except bptt.ShapeError:
                assert not stepper.take([array])
            else:
                assert stepper.take([array])
                assert_identical(stepper.inputs[0], expected)


def test_an_input_may_be_fed_to_itself() -> None:
    stepper = net((3, 3)).stepper()
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    stepper.inputs[0][...] = values
    stepper.feed([stepper.inputs[0].T])
    assert_identical(stepper.inputs[0], np.ascontiguousarray(values.T))


def test_lists_and_tuples_in_returned_order() -> None:
    bp = net((2, 1), (1, 1), (3, 1))
    stepper = bp.stepper(outputs=[bp.graphs["shallow"][3]])
    values = [np.full((3, 1), 3.0), 1.0, np.full((2, 1), 2.0)]
    for given in (values, tuple(values)):
        stepper.feed(given)
        stepper()
        assert_identical(stepper.output, np.array([[4], [1], [9]], np.float32))
    (sums,) = bp.step(*values, outputs=[bp.graphs["shallow"][3]])
    assert_identical(sums, np.array([[4], [1], [9]], np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_careful_way_gives_the_same(dtype: str, rng: np.random.Generator) -> None:
    fast, careful = net((2, 3), (1, 1), dtype=dtype), net((2, 3), (1, 1), dtype=dtype)
    for _ in range(5):
        number, matrix = rng.normal(), rng.normal(size=(2, 3))
        given = fast.step(number, matrix)
        assert_identical(given, careful.step([[number]], matrix.tolist()))
    assert_identical(fast.state["shallow"]["hidden-0"], careful.state["shallow"]["hidden-0"])


# ---- what comes out


def test_results_are_copies() -> None:
    bp = net((2, 3))
    outputs = bp.graphs["shallow"][-2:]
    array = np.full((2, 3), 0.1, np.float32)
    first = bp.step(array)
    kept = first.copy()
    both = bp.step(array, outputs=outputs)
    assert_identical(first, kept)
    assert first.flags.writeable and first.flags.c_contiguous and first.flags.owndata
    assert [each.shape for each in both] == [symbol.shape for symbol in outputs]
    both[0][...] = np.nan
    bp.step(array)
    stepper = bp.stepper()
    stepper.inputs[0][...] = array
    stepper()
    assert not stepper.output.flags.writeable


def test_matrices_come_out_as_they_are() -> None:
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(lambda bp, depth: (x := bp.placeholder((2, 3)), 2 * x), num_loops=1)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_identical(bp.step(array), 2 * array)


def test_outputs_that_nobody_else_holds() -> None:
    """`step` knows lists of outputs by identity, which a symbol that is gone may not pass on."""
    bp = net((1, 1))
    sums = bp.graphs["shallow"][1]
    gc.freeze()  # so that what other tests left is not looked through again and again
    for factor in range(1, 30):
        (result,) = bp.step(0.5, outputs=[sums * factor])
        assert result.item() == 0.5 * factor
        gc.collect()
    gc.unfreeze()


# ---- errors


BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_an_input_that_is_not_finite_is_named(place: tuple[int, int], bad: float) -> None:
    """By the call and by `step`, with its place; nothing was computed."""
    bp = net((2, 3), (1, 1), (2, 3))
    stepper = bp.stepper()
    twin = net((2, 3), (1, 1), (2, 3))
    good = np.full((2, 3), 0.1)
    wrong = good.copy()
    wrong[place] = bad
    wrong[1, 2] = bad  # the first one is told
    message = rf"the input 'in_0' holds {bad} at \({place[0]}, {place[1]}\); expected finite"
    stepper.feed([good, 0.5, wrong])
    for use in (stepper, lambda: bp.step(good, 0.5, wrong)):
        with pytest.raises(bptt.NonFiniteError, match=message):
            use()
    with pytest.raises(bptt.NonFiniteError, match=rf"the input 'in_1' holds {bad} at \(0, 0\)"):
        bp.step(good, bad, wrong)
    assert_identical(bp.state["shallow"]["hidden-0"], twin.state["shallow"]["hidden-0"])
    assert bp._net.states["shallow"].frame == 0
    assert_identical(bp.step(good, 0.5, good), twin.step(good, 0.5, good))


def test_what_becomes_infinite_in_the_nets_dtype_is_not_finite() -> None:
    for value in (1e39, np.full((1, 1), -1e39), np.float64(1e300)):
        with pytest.raises(bptt.NonFiniteError, match="inf at"):
            net((1, 1)).step(value)
        net((1, 1), dtype="float64").step(value)


def test_large_numbers_are_finite() -> None:
    """Their sum is not."""
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(lambda bp, depth: (x := bp.placeholder((64, 3)), -x), num_loops=1)
    array = np.full((64, 3), np.finfo(np.float32).max)
    assert_identical(bp.step(array), -array)


def test_a_stepper_takes_no_arguments() -> None:
    stepper: Any = net((1, 1)).stepper()
    for use in (lambda: stepper(0.5), lambda: stepper(x=0.5), lambda: stepper(*[1] * 9)):
        with pytest.raises(bptt.UsageError, match=r"stepper\.inputs"):
            use()


def test_a_stepper_that_was_not_made() -> None:
    for kind in (_core.Stepper, Stepper):
        stepper: Any = kind.__new__(kind)
        with pytest.raises(TypeError, match="vectorcall"):
            stepper()
        for use in (stepper.take, stepper.next, stepper.next_all):
            with pytest.raises(bptt.UsageError, match=r"bp\.stepper"):
                use(())
    made = net((1, 1)).stepper()
    with pytest.raises(bptt.UsageError, match="once"):
        made.open(1, 2, 3, 4, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Stepper().open(1)  # type: ignore[call-arg]
    half: Any = _core.Stepper()
    with pytest.raises(RuntimeError, match="cast"):
        half.open(None, None, made, [], [])


@pytest.mark.parametrize("outputs", [[[1]], [[]], ["h"], [None], [3], [np.zeros(2)], [{}], 3, "h"])
def test_outputs_that_are_no_symbols(outputs: Any) -> None:
    bp = net((1, 1))
    for use in (
        lambda: bp.step(0.5, outputs=outputs),
        lambda: bp.stepper(outputs=outputs),
        lambda: bp.predict([np.zeros(3)], outputs=outputs),
    ):
        with pytest.raises(bptt.UsageError, match=r"outputs|symbol"):
            use()


def test_outputs_in_a_list_of_lists() -> None:
    bp = net((1, 1))
    with pytest.raises(bptt.UsageError, match="expected a symbol"):
        bp.step(0.5, outputs=[[bp.graphs["shallow"][-1]]])  # type: ignore[list-item]


# ---- memory


def test_views_outlive_stepper_and_net() -> None:
    bp = net((2, 1))
    stepper = bp.stepper()
    given, output = stepper.inputs[0], stepper.output
    given[...] = 0.5
    stepper()
    kept = output.copy()
    del bp, stepper
    gc.collect()
    np.zeros(10_000)
    given[...] += 1
    assert_identical(output, kept)


def test_nothing_is_kept_of_a_call() -> None:
    """As many blocks of memory after thousands of calls, of every way to make them, as before."""
    bp = net((2, 1), (1, 1))
    stepper = bp.stepper()
    outputs = bp.graphs["shallow"][-2:]
    matrix = np.full((2, 1), 0.5)
    wrong = np.full((2, 1), np.nan)

    def calls(count: int) -> int:
        for _ in range(count):
            stepper.feed([0.25, matrix])
            stepper()
            bp.step(0.25, matrix)
            bp.step([[0.25]], matrix, outputs=outputs)
            with pytest.raises(bptt.NonFiniteError):
                bp.step(0.25, wrong)
            with pytest.raises(bptt.ShapeError):
                bp.step(matrix, matrix)
        gc.collect()
        return sys.getallocatedblocks()

    calls(100)
    before = calls(100)
    objects = [None, np.dtype(np.float32), stepper, matrix, np.ndarray]
    counts = [sys.getrefcount(each) for each in objects]
    assert abs(calls(3000) - before) < 1500
    for each, count in zip(objects, counts, strict=True):
        assert abs(sys.getrefcount(each) - count) < 1500
