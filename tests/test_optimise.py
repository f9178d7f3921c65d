"""Clipping and Adam against a plain numpy loop that is fed our own gradients."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import bptt
from rounding import assert_identical

Arrays = dict[str, np.ndarray]
FRAMES = 4


def frame(bp: bptt.BPTT, depth: str) -> Any:
    """Two towers on one input, so that a loss can reach the one and not the other."""
    x = bp.placeholder((2, 3))
    y = bp.placeholder((1, 3))
    _, h = bptt.layers.lstm(bp, x, 3, peephole="diagonal")
    left = bptt.layers.dense(bp, h, 1, name="left")
    right = bptt.layers.dense(bp, bptt.layers.rnn(bp, x, 2), 1, name="right")
    return x, y, left, right


class Net:
    """The net of `frame` and one window of data for it."""

    def __init__(self, scale: float = 1.0) -> None:
        rng = np.random.default_rng(11)
        self.bp = bptt.BPTT(seed=3, dtype="float64")
        _, y, self.left, self.right = self.bp.generate_graphs(frame, num_loops=FRAMES)["deep"]
        self.loss_left = bptt.reduce_mean(bptt.square(self.left - scale * y))
        self.loss_right = bptt.reduce_mean(bptt.square(self.right - scale * y))
        self.both = self.loss_left + self.loss_right
        self.data = [rng.normal(size=(FRAMES, 2, 3)), rng.normal(size=(FRAMES, 1, 3))]

    @property
    def feed(self) -> Any:
        return self.bp.generate_feed_dict("deep", self.data, 2)

    def weights(self) -> Arrays:
        return {name: self.bp.parameters[name] for name in self.bp.parameters}

    def gradients(self, loss: Any) -> Arrays:
        return dict(self.bp.gradients(loss, self.feed))


@dataclass
class NumpyAdam:
    """D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    With `epsilon_hat` as at the end of section 2, epsilon being added before the correction.
    """

    rate: float
    beta1: float
    beta2: float
    epsilon: float
    epsilon_hat: bool
    steps: int = 0
    m: Arrays = field(default_factory=dict)
    v: Arrays = field(default_factory=dict)

    def update(self, weights: Arrays, gradients: Arrays) -> Arrays:
        self.steps += 1
        updated = {}
        for name, g in gradients.items():
            self.m[name] = self.beta1 * self.m.get(name, 0.0) + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v.get(name, 0.0) + (1 - self.beta2) * g * g
            unbiased1 = 1 - self.beta1**self.steps
            unbiased2 = 1 - self.beta2**self.steps
            if self.epsilon_hat:
                rate = self.rate * np.sqrt(unbiased2) / unbiased1
                step = rate * self.m[name] / (np.sqrt(self.v[name]) + self.epsilon)
            else:
                m_hat, v_hat = self.m[name] / unbiased1, self.v[name] / unbiased2
                step = self.rate * m_hat / (np.sqrt(v_hat) + self.epsilon)
            updated[name] = weights[name] - step
        return updated


def by_value(limit: float) -> Callable[[Arrays], Arrays]:
    return lambda gradients: {name: np.clip(g, -limit, limit) for name, g in gradients.items()}


def norm_of(gradients: Arrays) -> float:
    return float(np.sqrt(sum(np.sum(g * g) for g in gradients.values())))


def by_global_norm(limit: float) -> Callable[[Arrays], Arrays]:
    def clip(gradients: Arrays) -> Arrays:
        scale = limit / max(norm_of(gradients), limit)
        return {name: scale * g for name, g in gradients.items()}

    return clip


def assert_close(got: Arrays, expected: Arrays) -> None:
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("epsilon_hat", [True, False])
@pytest.mark.parametrize(
    ("rate", "beta1", "beta2", "epsilon"), [(0.05, 0.95, 0.999, 1e-3), (0.01, 0.5, 0.9, 1e-8)]
)
def test_adam(rate: float, beta1: float, beta2: float, epsilon: float, epsilon_hat: bool) -> None:
    """200 updates, each held against numpy from the weights that the one before left."""
    net = Net()
    adam = bptt.Adam(rate, beta1=beta1, beta2=beta2, epsilon=epsilon, epsilon_hat=epsilon_hat)
    train = net.bp.minimize(net.both, adam)
    expected = NumpyAdam(rate, beta1, beta2, epsilon, epsilon_hat)
    for _ in range(200):
        updated = expected.update(net.weights(), net.gradients(net.both))
        net.bp.run([train], net.feed)
        assert_close(net.weights(), updated)
    assert train.steps == 200


def test_adam_of_the_origin_is_the_default() -> None:
    """The two forms differ, and unless told otherwise epsilon is added before the correction."""
    weights = []
    for options in ({}, {"epsilon_hat": True}, {"epsilon_hat": False}):
        net = Net()
        train = net.bp.minimize(net.both, bptt.Adam(0.05, epsilon=1e-3, **options))
        net.bp.run([train], net.feed)
        weights.append(net.weights())
    for name in weights[0]:
        assert_identical(weights[0][name], weights[1][name])
        assert (weights[0][name] != weights[2][name]).all()


def test_defaults_of_adam() -> None:
    net = Net()
    train = net.bp.minimize(net.both, bptt.Adam())
    expected = NumpyAdam(1e-3, 0.9, 0.999, 1e-8, True)
    for _ in range(3):
        updated = expected.update(net.weights(), net.gradients(net.both))
        net.bp.run([train], net.feed)
        assert_close(net.weights(), updated)


CLIPS = {
    "by value": (bptt.ClipByValue, by_value),
    "by global norm": (bptt.ClipByGlobalNorm, by_global_norm),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_is_applied(clip: str) -> None:
    """Large targets keep the gradients over the limit; the update is that of the clipped ones."""
    limit = 0.5
    ours, reference = CLIPS[clip]
    net, free = Net(scale=20.0), Net(scale=20.0)
    train = net.bp.minimize(net.both, bptt.Adam(0.05, epsilon=1e-3), clip=ours(limit))
    free_train = free.bp.minimize(free.both, bptt.Adam(0.05, epsilon=1e-3))
    expected = NumpyAdam(0.05, 0.9, 0.999, 1e-3, True)
    for _ in range(20):
        gradients = net.gradients(net.both)
        assert max(np.abs(g).max() for g in gradients.values()) > 2 * limit
        updated = expected.update(net.weights(), reference(limit)(gradients))
        net.bp.run([train], net.feed)
        free.bp.run([free_train], free.feed)
        assert_close(net.weights(), updated)
    assert any(np.abs(net.weights()[n] - free.weights()[n]).max() > 1e-4 for n in net.weights())


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_inside_fit(clip: str) -> None:
    """The loop in C++ clips as `run` does."""
    ours, _ = CLIPS[clip]
    fitted, stepped = Net(scale=20.0), Net(scale=20.0)
    trains = [
        net.bp.minimize(net.both, bptt.Adam(0.05), clip=ours(0.5)) for net in (fitted, stepped)
    ]
    fitted.bp.fit(trains[0], fitted.data, steps=5)
    for _ in range(5):
        definitions = stepped.bp.generate_output_definitions("deep")
        _, *state = stepped.bp.run([trains[1], *definitions], stepped.feed)
        stepped.bp.save_output_state("deep", state)
    for name, weight in fitted.weights().items():
        assert_identical(weight, stepped.weights()[name])


@pytest.mark.parametrize("clip", CLIPS)
def test_gradients_below_the_limit_stay(clip: str) -> None:
    ours, _ = CLIPS[clip]
    net, free = Net(), Net()
    train = net.bp.minimize(net.both, bptt.Adam(0.05), clip=ours(1e3))
    free_train = free.bp.minimize(free.both, bptt.Adam(0.05))
    for _ in range(3):
        net.bp.run([train], net.feed)
        free.bp.run([free_train], free.feed)
    for name, weight in free.weights().items():
        assert_identical(net.weights()[name], weight)


def test_gradients_are_not_clipped() -> None:
    """`gradients` reports the slope, whatever a training operation made of the one before."""
    net, plain = Net(scale=20.0), Net(scale=20.0)
    train = net.bp.minimize(net.both, bptt.Adam(0.05), clip=bptt.ClipByValue(1e-3))
    net.bp.run([train], net.feed)
    for name, weight in net.weights().items():
        plain.bp.parameters[name] = weight
    gradients = net.gradients(net.both)
    for name, gradient in plain.gradients(plain.both).items():
        assert_identical(gradients[name], gradient)


@pytest.mark.parametrize("order", ["train first", "train last"])
def test_what_run_fetches_precedes_the_update(order: str) -> None:
    net = Net()
    before = net.bp.run([net.both, net.left], net.feed)
    train = net.bp.minimize(net.both, bptt.Adam(0.05))
    if order == "train first":
        nothing, loss, left = net.bp.run([train, net.both, net.left], net.feed)
    else:
        loss, left, nothing = net.bp.run([net.both, net.left, train], net.feed)
    assert nothing is None
    assert loss == before[0]
    assert_identical(left, before[1])
    after = net.bp.run([net.both, net.left], net.feed)
    assert after[0] < loss
    assert (after[1] != left).all()


def test_two_training_operations_keep_their_own_moments() -> None:
    """Two losses, two optimisers, taken in turn: each counts its own steps and its own moments."""
    net = Net()
    operations = [
        (net.both, bptt.Adam(0.05, epsilon=1e-3), NumpyAdam(0.05, 0.9, 0.999, 1e-3, True)),
        (net.loss_left, bptt.Adam(0.02, beta1=0.5), NumpyAdam(0.02, 0.5, 0.999, 1e-8, True)),
    ]
    trains = [net.bp.minimize(loss, adam) for loss, adam, _ in operations]
    for turn in (0, 1, 1, 0, 1, 0, 0):
        loss, _, expected = operations[turn]
        updated = expected.update(net.weights(), net.gradients(loss))
        net.bp.run([trains[turn]], net.feed)
        assert_close(net.weights(), updated)
    assert [train.steps for train in trains] == [4, 3]


def test_the_learning_rate_is_assignable() -> None:
    net = Net()
    train = net.bp.minimize(net.both, bptt.Adam(0.05, epsilon=1e-3))
    expected = NumpyAdam(0.05, 0.9, 0.999, 1e-3, True)
    assert train.learning_rate == pytest.approx(0.05)
    for rate in (0.05, 0.001, 0.2):
        train.learning_rate = expected.rate = rate
        assert train.learning_rate == pytest.approx(rate)
        updated = expected.update(net.weights(), net.gradients(net.both))
        net.bp.run([train], net.feed)
        assert_close(net.weights(), updated)


def test_weights_that_the_loss_does_not_reach_stay() -> None:
    """Also after another training operation has left gradients in the shared buffer."""
    net = Net()
    train_left = net.bp.minimize(net.loss_left, bptt.Adam(0.05), clip=bptt.ClipByGlobalNorm(0.1))
    train_right = net.bp.minimize(net.loss_right, bptt.Adam(0.05))
    right = {name for name in net.bp.parameters if name.startswith(("rnn_layer", "right"))}
    left = set(net.bp.parameters) - right
    assert len(right) == 5
    assert len(left) == 17
    for train, moving, resting in ((train_left, left, right), (train_right, right, left)) * 2:
        before = net.weights()
        net.bp.run([train], net.feed)
        after = net.weights()
        for name in resting:
            assert_identical(after[name], before[name])
        for name in moving:
            assert (after[name] != before[name]).any(), name
    gradients = net.gradients(net.loss_right)
    assert all(not gradients[name].any() for name in left)
    assert all(gradients[name].any() for name in right)


def test_weights_assigned_between_updates() -> None:
    """An assigned weight is where the next window starts, and its moments go on."""
    net = Net()
    train = net.bp.minimize(net.both, bptt.Adam(0.05, epsilon=1e-3))
    expected = NumpyAdam(0.05, 0.9, 0.999, 1e-3, True)
    for value in (0.3, -0.7):
        for name in ("left/W", "lstm_layer_0/W_hf", "lstm_layer_0/b_o", "rnn_layer_1/W_aa"):
            net.bp.parameters[name] = np.full_like(net.bp.parameters[name], value)
        updated = expected.update(net.weights(), net.gradients(net.both))
        net.bp.run([train], net.feed)
        assert_close(net.weights(), updated)


@pytest.mark.parametrize(("counted", "times"), [("once", 1), ("every frame", FRAMES)])
def test_regulariser(counted: str, times: int) -> None:
    """With axes a weight's sum counts once; without, the weight stands in every frame."""
    net = Net()
    penalties = {}

    def regularised(bp: bptt.BPTT, depth: str) -> Any:
        graph = frame(bp, depth)
        with bp.variable_scope("left"):
            squares = bptt.square(bp.get_variable("W", (1, 3)))
        axis = (0, 1) if counted == "once" else None
        penalties[depth] = bptt.reduce_sum(squares, axis=axis)
        return graph

    bp = bptt.BPTT(seed=3, dtype="float64")
    _, y, left, _ = bp.generate_graphs(regularised, num_loops=FRAMES)["deep"]
    loss = bptt.reduce_mean(bptt.square(left - y)) + 0.1 * penalties["deep"]
    plain = net.gradients(net.loss_left)
    ridge = bp.gradients(loss, bp.generate_feed_dict("deep", net.data, 2))
    for name, gradient in plain.items():
        extra = 0.2 * times * bp.parameters[name] if name == "left/W" else 0.0
        np.testing.assert_allclose(ridge[name], gradient + extra, rtol=0, atol=1e-13)


flushes = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64", "aarch64"), reason="no switch is known for it"
)


@flushes
def test_backward_takes_denormal_numbers_for_zero() -> None:
    """And forward does not, outside recurrences; float64 has room for the same numbers."""
    small = 2.0**-130
    found = {}
    for dtype in ("float32", "float64"):

        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((1, 1))
            return x, x * bp.get_variable("w", (1, 1))

        bp = bptt.BPTT(dtype=dtype)
        loss = bptt.reduce_mean(bp.generate_graphs(frame, num_loops=1)["deep"][1])
        bp.parameters["w"] = np.ones((1, 1))
        feed = bp.generate_feed_dict("deep", [np.full((1, 1, 1), small)], 1)
        found[dtype] = float(bp.run(loss, feed)), float(bp.gradients(loss, feed)["w"][0, 0])
    assert found == {"float32": (small, 0.0), "float64": (small, small)}


@flushes
@pytest.mark.parametrize("depth", ["deep", "shallow"])
@pytest.mark.parametrize("cell", ["fused", "written"])
def test_a_state_that_fades_in_a_window_ends_at_zero(cell: str, depth: str) -> None:
    """It is halved from frame to frame. In single frames it fades on; float64 has room for both."""
    frames, found = 140, {}
    for dtype in ("float32", "float64"):

        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((1, 1))
            if cell == "fused":
                return x, bptt.layers.rnn(bp, x, 1, activation="relu")
            w = bp.get_variable("w", (1, 1))
            return x, bp.name_variable("h", w * bp.get_past_variable("h", np.ones((1, 1))) + x)

        bp = bptt.BPTT(dtype=dtype)
        bp.generate_graphs(frame, num_loops=frames)
        for name in bp.parameters:
            bp.parameters[name] = np.full(bp.parameters[name].shape, 0.0 if "b" in name else 0.5)
        for name in bp.state[depth]:
            bp.state[depth][name] = np.ones((1, 1))
        data = np.zeros((frames, 1, 1))
        if depth == "deep":
            feed = bp.generate_feed_dict(depth, [data], 1)
            found[dtype] = bp.run(bp.graphs[depth][1], feed).ravel()
        else:
            found[dtype] = bp.predict([data]).ravel()
    faded = 0.5 ** np.arange(1, frames + 1)
    np.testing.assert_array_equal(found["float64"], faded)
    ends = np.where(faded < 2.0**-126, 0, faded)
    np.testing.assert_array_equal(found["float32"], ends if depth == "deep" else faded)
