"""Truncated backpropagation through time: k1 is `stride` of `fit`, k2 is `num_loops`."""

from typing import Any

import numpy as np
import pytest

import bptt
import oracle
from frames import draw_state, draw_weights
from rounding import assert_identical

K1, K2, FRAMES = 2, 5, 11
RATE = 0.05
WEIGHTS = ("W", "U", "b")


def frame(bp: Any, depth: str, f: Any) -> Any:
    x, y = bp.placeholder((2, 1)), bp.placeholder((3, 1))
    past = bp.get_past_variable("h", np.zeros((3, 1)))
    W, U = bp.get_variable("W", (3, 3)), bp.get_variable("U", (3, 2))
    h = bp.name_variable("h", f.tanh(W @ past + U @ x + bp.get_variable("b", (3, 1))))
    return x, y, h


def loss_of(f: Any, x: Any, y: Any, h: Any) -> Any:
    return f.reduce_mean(f.square(h - y))


class Net:
    def __init__(self, dtype: str = "float64") -> None:
        self.bp = bptt.BPTT(seed=1, dtype=dtype)
        traced = lambda bp, depth: frame(bp, depth, bptt)  # noqa: E731
        symbols = self.bp.generate_graphs(traced, num_loops=K2)["deep"]
        # As good as plain gradient descent: a huge epsilon makes every step rate * m / epsilon.
        self.train = self.bp.minimize(
            loss_of(bptt, *symbols),
            bptt.Adam(RATE * 1e8, beta1=0.0, beta2=0.0, epsilon=1e8, epsilon_hat=False),
        )
        rng = np.random.default_rng(2)
        draw_weights(self.bp, rng)
        draw_state(self.bp, rng)
        self.data = [rng.normal(size=(FRAMES, features, 1)) for features in (2, 3)]


def truncated_loss(
    weights: dict[str, np.ndarray], h: np.ndarray, x: np.ndarray, y: np.ndarray
) -> float:
    """The loss of the last K1 of K2 frames, as a function of the weights, the first state fixed."""
    errors = []
    for x_t, y_t in zip(x, y, strict=True):
        h = np.tanh(weights["W"] @ h + weights["U"] @ x_t + weights["b"])
        errors.append(np.square(h - y_t))
    return float(np.mean(errors[K2 - K1 :]))


def by_hand(net: Net, steps: int) -> tuple[list[float], dict[str, np.ndarray], np.ndarray]:
    """The loop in ten lines of numpy, gradients by central differences of `truncated_loss`."""
    weights, h, (x, y) = dict(net.bp.parameters), net.bp.state["deep"]["h"], net.data
    losses = []
    for step in range(steps):
        at = (step * K1 + np.arange(K2)) % FRAMES
        losses.append(truncated_loss(weights, h, x[at], y[at]))
        before = {name: weight.copy() for name, weight in weights.items()}
        gradients = {name: np.zeros_like(weight) for name, weight in weights.items()}
        for name, index in ((n, i) for n in weights for i in np.ndindex(weights[n].shape)):
            sides = []
            for sign in (1, -1):
                moved = {n: w.copy() for n, w in before.items()}
                moved[name][index] += sign * 1e-5
                sides.append(truncated_loss(moved, h, x[at], y[at]))
            gradients[name][index] = (sides[0] - sides[1]) / 2e-5
        for x_t in x[at[:K1]]:  # the next window's first state
            h = np.tanh(before["W"] @ h + before["U"] @ x_t + before["b"])
        weights = {name: before[name] - RATE * gradients[name] for name in before}
    return losses, weights, h


def test_a_numpy_loop_does_the_same() -> None:
    net = Net()
    losses, weights, h = by_hand(net, 8)
    history = net.bp.fit(net.train, net.data, steps=8, stride=K1)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-6)
    for name in WEIGHTS:
        np.testing.assert_allclose(net.bp.parameters[name], weights[name], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(net.bp.state["deep"]["h"], h, rtol=1e-6)
    assert net.bp.next_frame == 8 * K1 % FRAMES


@pytest.mark.parametrize("rows", [False, True])
def test_every_update_is_the_oracle_s(rows: bool) -> None:
    """Exact gradients, with resets and masks too: the oracle counts the last k1 frames alone."""
    net = Net()
    rng = np.random.default_rng(3)
    marks = {}
    if rows:
        marks = {"resets": rng.random((FRAMES, 1)) < 0.3, "masks": rng.random((FRAMES, 1)) > 0.3}
    for step in range(6):
        at = (step * K1 + np.arange(K2)) % FRAMES
        weights = dict(net.bp.parameters)
        window = {
            "weights": weights,
            "state": dict(net.bp.state["deep"]),
            "data": [x[at] for x in net.data],
            **{key: row[at] for key, row in marks.items()},
        }
        expected = oracle.unroll(frame, loss_of, **window, counted=K2 - K1)
        begin = {**window, "data": [x[at[:K1]] for x in net.data]}
        begin |= {key: row[at[:K1]] for key, row in marks.items()}
        first = oracle.unroll(frame, **begin)
        history = net.bp.fit(net.train, net.data, steps=1, start=int(at[0]), stride=K1, **marks)
        assert history.loss[0] == pytest.approx(expected.loss, rel=1e-12)
        for name in WEIGHTS:
            moved = weights[name] - RATE * expected.gradients[name]
            np.testing.assert_allclose(net.bp.parameters[name], moved, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(net.bp.state["deep"]["h"], first.state["h"], rtol=1e-12)


def test_a_naive_detach_is_something_else() -> None:
    """Cutting the graph every k1 frames lets gradients flow k1 frames at most."""
    net = Net()
    weights, state = dict(net.bp.parameters), dict(net.bp.state["deep"])
    exact = oracle.unroll(
        frame,
        loss_of,
        weights=weights,
        state=state,
        data=[x[:K2] for x in net.data],
        counted=K2 - K1,
    )
    before = oracle.unroll(
        frame, weights=weights, state=state, data=[x[: K2 - K1] for x in net.data]
    )
    naive = oracle.unroll(
        frame,
        loss_of,
        weights=weights,
        state=before.state,
        data=[x[K2 - K1 : K2] for x in net.data],
    )
    assert naive.loss == pytest.approx(exact.loss)
    assert np.abs(naive.gradients["W"] - exact.gradients["W"]).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stride_of_the_whole_window_is_no_stride(dtype: str) -> None:
    one, other = Net(dtype), Net(dtype)
    assert_identical(
        one.bp.fit(one.train, one.data, steps=4).loss,
        other.bp.fit(other.train, other.data, steps=4, stride=K2).loss,
    )


def test_in_pieces_or_in_one() -> None:
    one, other = Net(), Net()
    whole = one.bp.fit(one.train, one.data, steps=6, stride=K1).loss
    pieces = [
        other.bp.fit(other.train, other.data, steps=n, start=other.bp.next_frame, stride=K1).loss
        for n in (1, 3, 2)
    ]
    assert_identical(whole, np.concatenate(pieces))
    assert one.bp._net.states["deep"].frame == other.bp._net.states["deep"].frame == 6 * K1
