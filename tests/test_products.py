"""Matrix products: few and many rows, columns and depth, across the blocks of the kernel."""

import itertools
from typing import Any

import numpy as np
import pytest

import bptt

ROWS = [1, 3, 8, 17, 64, 131]
DEPTHS = [1, 5, 64, 511, 513, 1030]
COLUMNS = [(1, 1), (2, 1), (1, 2), (7, 1), (1, 31), (19, 5), (4, 49)]  # frames, lanes


def net(rows: int, depth: int, frames: int, lanes: int, dtype: str) -> tuple[bptt.BPTT, Any]:
    def frame(bp: bptt.BPTT, mode: str) -> Any:
        x = bp.placeholder((depth, lanes), name="x")
        target = bp.placeholder((rows, lanes), name="target")
        W = bp.get_variable("W", (rows, depth), bptt.initializers.random_normal(0, depth**-0.5))
        return x, target, W @ x

    bp = bptt.BPTT(seed=rows + depth, dtype=dtype)
    return bp, bp.generate_graphs(frame, num_loops=frames)["deep"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "depth"), list(itertools.product(ROWS, DEPTHS)))
def test_a_weight_times_a_window(rows: int, depth: int, dtype: str) -> None:
    """The product, and the gradients of both its factors, before and after the weight changes."""
    rounding = depth**0.5 * np.finfo(dtype).eps * 8
    for frames, lanes in COLUMNS:
        bp, (x, target, y) = net(rows, depth, frames, lanes, dtype)
        loss = bptt.reduce_sum(target * y)
        rng = np.random.default_rng(frames)
        a = rng.normal(size=(frames, depth, lanes)).astype(dtype)
        g = rng.normal(size=(frames, rows, lanes)).astype(dtype)
        feed = bp.generate_feed_dict("deep", [a, g], 2)
        for _ in range(2):
            W = bp.parameters["W"].astype(np.float64)
            (out,) = bp.run([y], feed)
            found = bp.gradients(loss, feed, wrt=["W", x])
            expected = {
                "y": W @ a.astype(np.float64),
                "W": np.einsum("tib,tjb->ij", g.astype(np.float64), a.astype(np.float64)),
                "x": W.T @ g.astype(np.float64),
            }
            for name, got in {"y": out, "W": found["W"], "x": found["x"]}.items():
                scale = max(1.0, float(np.abs(expected[name]).max()))
                limit = rounding * scale * (frames * lanes + rows) ** 0.5
                np.testing.assert_allclose(got, expected[name], rtol=0, atol=limit, err_msg=name)
            bp.parameters["W"] = bp.parameters["W"][::-1] * 0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_left_factor_that_changes_from_frame_to_frame(dtype: str) -> None:
    """As in attention or a fast weight: nothing packed for one frame may serve the next."""

    def frame(bp: bptt.BPTT, mode: str) -> Any:
        a = bp.placeholder((40, 33), name="a")
        b = bp.placeholder((33, 9), name="b")
        return a, b, a @ b

    bp = bptt.BPTT(dtype=dtype)
    a, b, y = bp.generate_graphs(frame, num_loops=6)["deep"]
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(6, *v.shape)).astype(dtype) for v in (a, b)]
    feed = bp.generate_feed_dict("deep", values, 2)
    out, found = (
        bp.run([y], feed)[0],
        bp.gradients(bptt.reduce_sum(bptt.square(y)), feed, wrt=[a, b]),
    )
    exact = [v.astype(np.float64) for v in values]
    product = exact[0] @ exact[1]
    tolerance = {"rtol": 0, "atol": 2000 * float(np.finfo(dtype).eps)}
    np.testing.assert_allclose(out, product, **tolerance)
    np.testing.assert_allclose(found["a"], 2 * product @ exact[1].swapaxes(1, 2), **tolerance)
    np.testing.assert_allclose(found["b"], 2 * exact[0].swapaxes(1, 2) @ product, **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_beyond_the_caches(dtype: str) -> None:
    """A layer so wide that panels come in parts of their depth, and far columns are gathered."""
    inputs, width, frames, lanes = 600, 1500, 3, 5

    def frame(bp: bptt.BPTT, mode: str) -> Any:
        x = bp.placeholder((inputs, lanes), name="x")
        return x, bptt.layers.rnn(bp, x, width)

    bp = bptt.BPTT(dtype=dtype)
    x, h = bp.generate_graphs(frame, num_loops=frames)["deep"]
    rng = np.random.default_rng(0)
    for name, weight in bp.parameters.items():
        bp.parameters[name] = rng.normal(0, width**-0.5, weight.shape)
    values = rng.normal(size=(frames, inputs, lanes)).astype(dtype)
    feed = bp.generate_feed_dict("deep", [values], 1)
    (out,) = bp.run([h], feed)
    found = bp.gradients(bptt.reduce_sum(h) * 0.5, feed, wrt=[x, *bp.parameters])

    W_x, W_h, b = (
        bp.parameters[next(name for name in bp.parameters if key in name)].astype(np.float64)
        for key in ("W_ax", "W_aa", "b_a")
    )
    states = [np.zeros((width, lanes))]
    for value in values.astype(np.float64):
        states.append(np.tanh(W_x @ value + W_h @ states[-1] + b))
    d_x, d_Wx, d_Wh, d_b, dh = [], 0.0, 0.0, 0.0, np.zeros((width, lanes))
    for t in reversed(range(frames)):
        dz = (dh + 0.5) * (1 - states[t + 1] ** 2)
        d_x.append(W_x.T @ dz)
        d_Wx, d_Wh, d_b = d_Wx + dz @ values[t].T, d_Wh + dz @ states[t].T, d_b + dz.sum(1)
        dh = W_h.T @ dz
    expected = {
        "x": np.stack(d_x[::-1]),
        "W_ax": d_Wx,
        "W_aa": d_Wh,
        "b_a": np.reshape(d_b, (-1, 1)),
    }
    limit = 400 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, np.stack(states[1:]), rtol=0, atol=limit)
    for name, got in found.items():
        want = expected[name.removeprefix("rnn_layer_0/")]
        np.testing.assert_allclose(got, want, rtol=0, atol=limit * np.abs(want).max(), err_msg=name)
