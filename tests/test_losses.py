"""Losses and outputs: PyTorch's numbers, what extreme logits give, symbols that are none.

The operations' own values and gradients are checked in `test_operations.py`, by the core's list.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import losses
from rounding import assert_identical
from whole import everything

RECORD = dict(np.load(Path(__file__).parent / "data" / "torch" / "losses.npz"))
T, BATCH, FEATURES = RECORD["x"].shape
Loss = Callable[..., Any]


def fed(key: str) -> np.ndarray:
    """A recorded array as (time, features, batch)."""
    array = RECORD[key].astype(np.float64)
    return array[:, None, :] if array.ndim == 2 else array.swapaxes(1, 2)


def evaluated(loss: Loss, *arrays: np.ndarray, dtype: str = "float64") -> tuple[float, list[Any]]:
    """A loss of values that are fed, and its gradient by each of them."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        return [bp.placeholder(array.shape[1:]) for array in arrays]

    bp = bptt.BPTT(seed=0, dtype=dtype)
    inputs = bp.generate_graphs(frame, num_loops=len(arrays[0]))["deep"]
    value = loss(*inputs)
    feed = dict(zip(inputs, arrays, strict=True))
    return bp.run(value, feed), list(bp.gradients(value, feed, wrt=inputs).values())


CASES: dict[str, tuple[list[str], Loss]] = {
    "mse": (["x", "y"], losses.mse),
    "huber": (["x", "y"], lambda x, y, **how: losses.huber(x, y, 0.7, **how)),
    "binary": (["x", "p"], losses.binary_cross_entropy_with_logits),
    "binary_weighted": (
        ["x", "p", "w"],
        lambda x, p, w, **how: losses.binary_cross_entropy_with_logits(x, p, weights=w, **how),
    ),
    "symbols": (["x", "k"], losses.softmax_cross_entropy),
    "distribution": (["x", "p"], losses.softmax_cross_entropy),
    "gaussian": (["x", "y", "v"], losses.gaussian_nll),
    "gaussian_full": (
        ["x", "y", "v"],
        lambda x, y, v, **how: losses.gaussian_nll(x, y, v, full=True, **how),
    ),
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", CASES)
def test_pytorch(name: str, reduction: str) -> None:
    """Values and gradients."""
    keys, loss = CASES[name]
    inputs = [fed(key) for key in keys]
    value, gradients = evaluated(lambda *s: loss(*s, reduction=reduction), *inputs)
    np.testing.assert_allclose(value, RECORD[f"{name}/{reduction}"], rtol=1e-14)
    for key, gradient in zip(keys, gradients, strict=True):
        if f"{name}/{reduction}/{key}" in RECORD:
            expected = fed(f"{name}/{reduction}/{key}")
            np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-15, err_msg=key)


def test_every_recorded_loss_is_compared() -> None:
    assert {key.split("/")[0] for key in RECORD if "/" in key} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_of_every_frame(name: str) -> None:
    """Reduced by hand it is the loss; in single precision too."""
    keys, loss = CASES[name]
    inputs = [fed(key) for key in keys]
    value, _ = evaluated(lambda *s: bptt.reduce_sum(loss(*s, reduction="none")), *inputs)
    np.testing.assert_allclose(value, RECORD[f"{name}/sum"], rtol=1e-14)
    single, _ = evaluated(loss, *(x.astype(np.float32) for x in inputs), dtype="float32")
    np.testing.assert_allclose(single, RECORD[f"{name}/mean"], rtol=2e-6)


@pytest.mark.parametrize("loss", [losses.mse, losses.huber])
def test_weights(loss: Loss) -> None:
    """Of each frame and lane; a mean divides by the entries, a weighted one is written out."""
    x, y = fed("x"), fed("y")
    w = np.random.default_rng(0).integers(0, 2, size=(T, 1, BATCH)).astype(float)
    each, _ = evaluated(lambda x, y, w: bptt.reduce_sum(loss(x, y, reduction="none") * w), x, y, w)
    mean, _ = evaluated(lambda x, y, w: loss(x, y, weights=w), x, y, w)
    np.testing.assert_allclose(mean, each / x.size, rtol=1e-14)
    weighted, _ = evaluated(
        lambda x, y, w: loss(x, y, weights=w, reduction="sum") / bptt.reduce_sum(w), x, y, w
    )
    np.testing.assert_allclose(weighted, each / w.sum(), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype: str) -> None:
    """No overflow, no digits lost: the loss is the difference of the logits, or next to nothing."""
    huge = np.array([[[1e4], [-1e4]]])
    first, second = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    for target, expected in ((first, 0.0), (second, 2e4)):
        value, (slope, _) = evaluated(losses.softmax_cross_entropy, huge, target, dtype=dtype)
        assert value == expected
        np.testing.assert_allclose(slope.ravel(), [expected / 2e4, -expected / 2e4], atol=1e-300)
    one = np.ones((1, 2, 1))
    value, (slope, _) = evaluated(
        lambda x, y: losses.binary_cross_entropy_with_logits(x, y, reduction="sum"),
        huge,
        one,
        dtype=dtype,
    )
    assert value == 1e4
    np.testing.assert_allclose(slope.ravel(), [0, -1], atol=1e-300)
    value, _ = evaluated(
        losses.binary_cross_entropy_with_logits,
        np.full((1, 1, 1), 80.0),
        np.ones((1, 1, 1)),
        dtype=dtype,
    )
    np.testing.assert_allclose(value, np.exp(-80), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "deepest"), [("float32", 87.0), ("float64", 708.0)])
def test_small_probabilities(dtype: str, deepest: float) -> None:
    """Of logits 0 and -d the second has probability exp(-d), but for the rounding of d."""
    d = np.linspace(1, deepest, 1000).astype(dtype).astype(float)
    logits = np.zeros((len(d), 2, 1))
    logits[:, 1, 0] = -d
    _, (slope, _) = evaluated(
        lambda x, k: losses.softmax_cross_entropy(x, k, reduction="sum"),
        logits,
        np.zeros((len(d), 1, 1)),
        dtype=dtype,
    )
    expected = np.exp(-(d + np.log1p(np.exp(-d))))
    error = np.abs(slope[:, 1, 0] / expected - 1)
    assert np.all(error <= (4 + d) * np.finfo(dtype).eps)


# Symbols


def characters(bp: bptt.BPTT, depth: str) -> Any:
    k, target = bp.placeholder((1, 2), "k"), bp.placeholder((1, 2), "target")
    h = bptt.layers.rnn(bp, bptt.layers.embedding(bp, k, 6, 4), 3)
    return k, target, bptt.layers.dense(bp, h, 6)


def text(length: int) -> list[np.ndarray]:
    symbols = np.random.default_rng(0).integers(6, size=(length + 1, 1, 2))
    return [symbols[:-1], symbols[1:]]


def trained(dtype: str = "float32") -> tuple[bptt.BPTT, Any]:
    bp = bptt.BPTT(seed=0, dtype=dtype)
    _, target, logits = bp.generate_graphs(characters, num_loops=5)["deep"]
    train = bp.minimize(losses.softmax_cross_entropy(logits, target), bptt.SGD(0.1))
    return bp, train


def test_an_embedding_is_a_product_with_one_hot_columns() -> None:
    """To rounding, and so is its gradient; which is zero, to the bit, where no symbol points."""
    bp, train = trained("float64")
    data = [np.minimum(each, 4) for each in text(5)]

    def spelled(bp: bptt.BPTT, depth: str) -> Any:
        x, target = bp.placeholder((6, 2)), bp.placeholder((6, 2))
        with bp.variable_scope("embedding_0"):
            W = bp.get_variable("W", (4, 6))
        return x, target, bptt.layers.dense(bp, bptt.layers.rnn(bp, W @ x, 3), 6)

    other = bptt.BPTT(seed=0, dtype="float64")
    _, target, logits = other.generate_graphs(spelled, num_loops=5)["deep"]
    for name in bp.parameters:
        other.parameters[name] = bp.parameters[name]
    hot = [np.eye(6)[each[:, 0]].swapaxes(1, 2) for each in data]
    loss = losses.softmax_cross_entropy(logits, target)
    gradients = bp.gradients(train.loss, bp.generate_feed_dict("deep", data, 2))
    expected = other.gradients(loss, other.generate_feed_dict("deep", hot, 2))
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-14, err_msg=name)
    assert not gradients["embedding_0/W"][:, 5].any()
    assert gradients["embedding_0/W"][:, :5].any(axis=0).sum() == len(np.unique(data[0]))


@pytest.mark.parametrize("place", [0, 1], ids=["embedding", "target"])
@pytest.mark.parametrize("symbol", [6, -1, 2.5, 1e9])
def test_what_is_no_symbol(place: int, symbol: float) -> None:
    """Said with its place; the windows before it are trained on, and the net goes on."""
    bp, train = trained()
    data = [each.astype(float) for each in text(15)]
    twin, twin_train = trained()
    twin.fit(twin_train, data, steps=2)
    data[place][12, 0, 1] = symbol
    with pytest.raises(bptt.UsageError, match=r"integers from 0 to 5; got .* lane 1 at frame 2"):
        bp.fit(train, data)
    assert everything(bp) == everything(twin)
    data = text(5)
    assert_identical(bp.fit(train, data).loss, twin.fit(twin_train, data).loss)


def test_what_is_no_symbol_in_a_stream() -> None:
    bp, _ = trained()
    before = bp.step([[1, 2]])
    state = everything(bp)
    with pytest.raises(bptt.UsageError, match="integers from 0 to 5; got 6"):
        bp.step([[1, 6]])
    assert everything(bp) == state
    assert before.shape == (6, 2)


def test_an_embedding_of_more_than_float32_tells_apart() -> None:
    def wide(bp: bptt.BPTT, depth: str) -> Any:
        return bptt.layers.embedding(bp, bp.placeholder((1, 1)), 2**24 + 1, 1)

    with pytest.raises(bptt.UsageError, match="at most 16777216"):
        bptt.BPTT(seed=0).generate_graphs(wide)


def test_shapes_that_do_not_fit() -> None:
    """A target that would broadcast is a mistake."""
    with pytest.raises(bptt.ShapeError, match="one shape"):
        evaluated(losses.mse, np.zeros((2, 3, 1)), np.zeros((2, 1, 1)))
    with pytest.raises(bptt.ShapeError, match="weights"):
        evaluated(
            lambda x, y, w: losses.mse(x, y, weights=w),
            np.zeros((2, 1, 1)),
            np.zeros((2, 1, 1)),
            np.zeros((2, 3, 1)),
        )
    with pytest.raises(bptt.ShapeError, match="target"):
        evaluated(losses.softmax_cross_entropy, np.zeros((2, 3, 2)), np.zeros((2, 2, 2)))
    with pytest.raises(bptt.ShapeError, match="symbols"):
        evaluated(
            lambda k, W: bptt.reduce_sum(k.trace.append("embedding", k, W)[0]),
            np.zeros((2, 2, 2)),
            np.zeros((2, 3, 3)),
        )


@pytest.mark.parametrize("lanes", [8, 64])
def test_threads_get_the_same_bits(lanes: int) -> None:
    """Shared out by lanes or by frames: losses, gradients, updates."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        k, target = bp.placeholder((1, lanes)), bp.placeholder((1, lanes))
        x = bptt.layers.embedding(bp, k, 40, 24)
        h = bptt.layers.rnn(bp, bptt.softmax(x) + bptt.log_softmax(x), 32)
        return k, target, bptt.layers.dense(bp, h, 40)

    symbols = np.random.default_rng(0).integers(40, size=(33, 1, lanes))
    results = []
    for threads in (1, 3):
        bp = bptt.BPTT(seed=0)
        _, target, logits = bp.generate_graphs(frame, num_loops=16)["deep"]
        bp._net.team = bptt._core.Team(threads, 0)
        train = bp.minimize(losses.softmax_cross_entropy(logits, target), bptt.Adagrad(0.1))
        bp.fit(train, [symbols[:-1], symbols[1:]], steps=4)
        results.append(everything(bp))
    assert results[0] == results[1]
