"""The arrays that users bring: axes, strides, dtypes. Nothing is transposed in silence."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bptt
from frames import mean_square
from rounding import assert_identical

FRAMES = 6


def passing_through(
    features: int, batch: int, dtype: str = "float32", num_loops: int = 3
) -> bptt.BPTT:
    """A net whose output is its input times two."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((features, batch))
        return x, 2 * x

    bp = bptt.BPTT(seed=0, dtype=dtype)
    bp.generate_graphs(frame, num_loops=num_loops)
    return bp


# ---- missing axes

FITTING = [
    ((1, 1), (6,)),
    ((1, 1), (6, 1)),
    ((1, 1), (6, 1, 1)),
    ((4, 1), (6, 4)),
    ((4, 1), (6, 4, 1)),
    ((1, 4), (6, 4)),
    ((1, 4), (6, 1, 4)),
    ((4, 5), (6, 4, 5)),
]


@pytest.mark.parametrize(("shape", "given"), FITTING)
def test_axes_of_length_one_may_be_missing(shape: tuple[int, int], given: tuple[int, ...]) -> None:
    """For `predict`, `generate_feed_dict` and `fit` alike."""
    bp = passing_through(*shape)
    data = np.arange(np.prod(given), dtype=np.float32).reshape(given)
    whole = data.reshape(FRAMES, *shape)
    assert_identical(bp.predict([data]), 2 * whole)
    out = bp.graphs["deep"][-1]
    feed = bp.generate_feed_dict("deep", [data[:3]], 1)
    assert_identical(bp.run([out], feed)[0], 2 * whole[:3])
    loss = bptt.reduce_mean(out)
    assert bp.evaluate(loss, [data]) == pytest.approx(2 * whole.mean())


REFUSED = [
    ((1, 1), (6, 2)),
    ((4, 1), (6,)),
    ((4, 1), (6, 1)),
    ((4, 1), (6, 5)),
    ((4, 5), (6, 20)),
    ((4, 5), (6, 5, 4)),
    ((4, 5), (6, 4)),
    ((4, 5), (6, 1, 5)),
    ((4, 1), (6, 1, 4)),
    ((1, 1), (1, 6, 1)),
    ((4, 5), (4, 5)),
]


@pytest.mark.parametrize(("shape", "given"), REFUSED)
def test_anything_else_is_refused(shape: tuple[int, int], given: tuple[int, ...]) -> None:
    bp = passing_through(*shape)
    with pytest.raises(bptt.ShapeError) as caught:
        bp.predict([np.zeros(given)])
    message = str(caught.value)
    assert str(given) in message
    assert str(shape)[1:-1] in message
    swapped = len(given) == 3 and given[:0:-1] == shape
    assert ("swapaxes(1, 2)" in message) == swapped


def test_swapped_axes_are_suggested_by_fit_too() -> None:
    bp = passing_through(4, 5)
    loss = bptt.reduce_mean(bp.graphs["deep"][-1])
    for use in (lambda data: bp.evaluate(loss, [data]), lambda data: feed(bp, data)):
        with pytest.raises(bptt.ShapeError, match=r"swapaxes\(1, 2\)"):
            use(np.zeros((3, 5, 4)))


def feed(bp: bptt.BPTT, data: Any) -> Any:
    return bp.generate_feed_dict("deep", [data], 1)


@pytest.mark.parametrize("given", [np.float32(3.0), np.zeros((0, 4, 5)), np.zeros((0,))])
def test_no_frames(given: Any) -> None:
    with pytest.raises(bptt.ShapeError):
        passing_through(4, 5).predict([given])


def test_one_frame_at_a_time() -> None:
    """`step` takes one frame, under the same rule."""
    column = np.arange(4.0, dtype=np.float32)
    bp = passing_through(4, 1)
    assert_identical(bp.step(column), 2 * column.reshape(4, 1))
    assert_identical(bp.step(column.reshape(4, 1)), 2 * column.reshape(4, 1))
    with pytest.raises(bptt.ShapeError) as caught:
        bp.step(np.zeros(5))
    assert "(5,)" in str(caught.value)
    assert "(4, 1)" in str(caught.value)
    assert_identical(passing_through(1, 1).step(3.0), np.array([[6.0]], np.float32))


# ---- memory layouts

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "time, batch, features": lambda a: np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2),
    "every other frame": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every third feature": lambda a: np.repeat(a, 3, axis=1)[:, ::3],
    "reversed in time": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "reversed in all axes": lambda a: np.ascontiguousarray(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "a part of a larger array": lambda a: np.pad(a, 2)[2:-2, 2:-2, 2:-2],
    "not aligned": lambda a: misaligned(a),
    "read-only": lambda a: read_only(a),
    "a list": lambda a: a.tolist(),
}


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = memory.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout: str, dtype: str, rng: np.random.Generator) -> None:
    """However the numbers lie in memory, they are the same numbers, and are left as they are."""
    numbers = rng.normal(size=(FRAMES, 4, 5)).astype(dtype)
    data = LAYOUTS[layout](numbers)
    bp = passing_through(4, 5, dtype)
    assert_identical(bp.predict([data]), 2 * numbers)
    window = data[:3]
    assert_identical(bp.run([bp.graphs["deep"][-1]], feed(bp, window))[0], 2 * numbers[:3])
    assert bp.evaluate(bptt.reduce_sum(bp.graphs["deep"][-1]), [data]) is not None
    frames = [bp.step(frame) for frame in data]
    assert_identical(np.array(frames), 2 * numbers)
    np.testing.assert_array_equal(np.asarray(data, dtype), numbers)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_on_memory_layouts(layout: str, rng: np.random.Generator) -> None:
    """`fit` walks any layout as it walks contiguous memory."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((4, 5)), bp.placeholder((1, 5))
        return x, y, bptt.layers.dense(bp, bptt.layers.rnn(bp, x, 3), 1)

    x, y = rng.normal(size=(8, 4, 5)), rng.normal(size=(8, 1, 5))
    losses = []
    for data in ([x, y], [LAYOUTS[layout](x), LAYOUTS[layout](y)]):
        bp = bptt.BPTT(seed=0, dtype="float64")
        graphs = bp.generate_graphs(frame, num_loops=3)
        train = bp.minimize(mean_square(graphs["deep"]), bptt.Adam(0.1))
        losses.append(bp.fit(train, data, steps=7).loss)  # across the end too
    assert_identical(losses[1], losses[0])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "frame" not in name])
def test_layouts_of_weights_and_state(layout: str, rng: np.random.Generator) -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 3))
        return x, bptt.layers.lstm(bp, x, 4, peephole="full")[1]

    bp = bptt.BPTT(seed=0, dtype="float64")
    bp.generate_graphs(frame, num_loops=2)
    for name in bp.parameters:
        numbers = rng.normal(size=(1, *bp.parameters[name].shape))
        bp.parameters[name] = LAYOUTS[layout](numbers)[0]
        assert_identical(bp.parameters[name], numbers[0])
    for name in bp.state["deep"]:
        numbers = rng.normal(size=(1, 4, 3))
        bp.state["deep"][name] = LAYOUTS[layout](numbers)[0]
        assert_identical(bp.state["deep"][name], numbers[0])


def test_what_is_returned_is_the_users(rng: np.random.Generator) -> None:
    """Results are fresh and writeable; a later call does not change them."""
    bp = passing_through(4, 5)
    data = rng.normal(size=(3, 4, 5)).astype(np.float32)
    out = bp.graphs["deep"][-1]
    kinds: list[Callable[[np.ndarray], Any]] = [
        lambda data: bp.predict([data]),
        lambda data: bp.run([out], feed(bp, data))[0],
        lambda data: bp.step(data[0]),
    ]
    for kind in kinds:
        first = kind(data)
        kept = first.copy()
        kind(data + 1)
        assert_identical(first, kept)
        first[...] = 0
        assert_identical(kind(data), kept)


# ---- dtypes


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int64", "int8", "uint8", "bool"]
)
@pytest.mark.parametrize("net", ["float32", "float64"])
def test_real_numbers_are_converted(dtype: str, net: str) -> None:
    bp = passing_through(4, 1, net)
    data = (np.arange(24).reshape(6, 4) % 7).astype(dtype)
    expected = 2 * data.astype(net).reshape(6, 4, 1)
    assert_identical(bp.predict([data]), expected)
    assert_identical(bp.step(data[1]), expected[1])
    assert_identical(bp.run([bp.graphs["deep"][-1]], feed(bp, data[:3]))[0], expected[:3])


def test_float64_data_in_a_float32_net_are_rounded() -> None:
    data = np.full(3, 1 + 1e-9)
    assert_identical(passing_through(1, 1).predict([data]), np.full((3, 1, 1), 2, np.float32))


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((3, 4), np.complex128),
        np.full((3, 4), "1.0"),
        np.full((3, 4), None),
        np.zeros((3, 4), "datetime64[s]"),
    ],
    ids=["complex", "text", "object", "dates"],
)
def test_other_dtypes_are_refused(data: np.ndarray) -> None:
    """And named, wherever numbers are expected."""
    bp = passing_through(4, 1)
    loss = bptt.reduce_mean(bp.graphs["deep"][-1])
    uses: list[Callable[[], Any]] = [
        lambda: bp.predict([data]),
        lambda: bp.step(data[0]),
        lambda: feed(bp, data),
        lambda: bp.evaluate(loss, [data]),
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError, match=re.escape(str(data.dtype))):
            use()


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(bptt.ShapeError, match="different lengths"):
        passing_through(2, 1).predict([[[1.0, 2.0], [3.0]]])


def test_a_field_of_packed_records() -> None:
    """Numbers five bytes apart, on nobody's boundaries."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        return x, 2.0 * x

    bp = bptt.BPTT()
    bp.generate_graphs(frame, num_loops=4)
    records = np.zeros(7, dtype=[("a", "<f4"), ("b", "i1")])
    records["a"] = np.arange(7)
    np.testing.assert_array_equal(bp.predict([records["a"]])[:, 0, 0], 2.0 * np.arange(7))
    feed = bp.generate_feed_dict("deep", [records["a"][:4]], 1)
    (y,) = bp.run([bp.graphs["deep"][1]], feed)
    np.testing.assert_array_equal(y[:, 0, 0], 2.0 * np.arange(4))
