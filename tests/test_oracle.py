"""The oracle itself: against closed forms and central differences; and it notices misuse."""

from __future__ import annotations

import numpy as np
import pytest

import oracle


def test_a_linear_recurrence_has_the_closed_form_of_its_gradients():
    """h = a h' + x, loss = sum h: dL/dx_t and dL/dh_0 are geometric sums, written out here."""
    T, a = 4, 0.5

    def frame(bp, depth, f):
        x = bp.placeholder((1, 1))
        h = bp.get_variable("a", (1, 1)) * bp.get_past_variable("h", np.zeros((1, 1))) + x
        return x, bp.name_variable("h", h)

    window = oracle.unroll(
        frame,
        lambda f, x, h: f.reduce_sum(h),
        weights={"a": np.array([[a]])},
        state={"h": np.array([[8.0]])},
        data=[np.array([1.0, 2.0, 3.0, 4.0]).reshape(T, 1, 1)],
    )
    # 8 -> 5 -> 4.5 -> 5.25 -> 6.625
    np.testing.assert_allclose(window.outputs[1].ravel(), [5.0, 4.5, 5.25, 6.625])
    np.testing.assert_allclose(window.state["h"], [[6.625]])
    assert window.loss == 5.0 + 4.5 + 5.25 + 6.625
    dx = [1 + a + a**2 + a**3, 1 + a + a**2, 1 + a, 1]
    np.testing.assert_allclose(window.placeholder_gradients[0].ravel(), dx)
    np.testing.assert_allclose(window.state_gradients["h"], [[a + a**2 + a**3 + a**4]])
    # dL/da = sum_t h_{t-1} dL/dh_t, and dL/dh_t is dL/dx_t here
    np.testing.assert_allclose(window.gradients["a"], [[np.dot([8.0, 5.0, 4.5, 5.25], dx)]])


def everything(bp, depth, f):
    """Every operation with a derivative; recurrences cross, delay and hold what is constant."""
    x = bp.placeholder((3, 2))
    u = bp.placeholder((1, 1))
    p = bp.get_past_variable("p", np.zeros((3, 2)))
    q = bp.get_past_variable("q", np.zeros((2, 2)))
    older = bp.get_past_variable("older", np.zeros((3, 2)))
    still = bp.get_past_variable("still", np.zeros((3, 2)))
    W = bp.get_variable("W", (2, 3))
    with bp.variable_scope("outer"), bp.variable_scope("inner"):
        v = bp.get_variable("v", (3, 1))
    noise = bp.random_normal((3, 2))
    a = f.tanh(x * v + noise - 0.3 * older / (1.5 + f.square(p)))
    b = f.sigmoid(W @ a + q[0:2] - bp.constant([[0.1], [0.2]]))
    c = f.maximum(f.relu(a), f.minimum(p, 0.5 * still)) + f.abs(u) * f.exp(-f.square(v))
    d = f.sqrt(1.0 + f.square(c)) * f.log(2.0 + f.abs(a))
    e = f.concat([f.transpose(b), f.concat([b, q], axis=1)[1:2, :][0:1, 0:2]], axis=0)
    g = f.reduce_mean(e, axis=0) + f.reduce_sum(d, axis=1)[0:1] - f.reduce_mean(c, axis=(0, 1))
    h = f.layers.rnn(bp, g * a, 2)
    c2, h2 = f.layers.lstm(bp, f.concat([h, p], axis=0), 2, peephole="full")
    _, h3 = f.layers.lstm(bp, h2, 1, peephole="diagonal")
    o = f.layers.dense(bp, h3, 3, activation=f.tanh) - f.layers.rnn(bp, c2, 3, output=True)
    bp.name_variable("p", f.tanh(d - o))
    bp.name_variable("q", b)
    bp.name_variable("older", p)
    bp.name_variable("still", f.tanh(v))
    return x, u, d, o, v


def loss_of_everything(f, x, u, d, o, v):
    regulariser = f.reduce_sum(f.square(v), axis=(0, 1))
    return (
        f.reduce_mean(f.square(d - o)) * f.reduce_sum(o * u) + 0.1 * regulariser + f.reduce_sum(v)
    )


def inputs_of_everything(T, rng):
    shapes = {"W": (2, 3), "outer/inner/v": (3, 1)}
    shapes |= {"rnn_layer_0/W_ax": (2, 3), "rnn_layer_0/W_aa": (2, 2), "rnn_layer_0/b_a": (2, 1)}
    shapes |= {"rnn_layer_3/W_ax": (3, 2), "rnn_layer_3/W_aa": (3, 3), "rnn_layer_3/b_a": (3, 1)}
    shapes |= {"rnn_layer_3/W_ya": (3, 3), "rnn_layer_3/b_y": (3, 1)}
    shapes |= {"dense_0/W": (3, 1), "dense_0/b": (3, 1)}
    for layer, inputs, width, peephole in ((1, 5, 2, 2), (2, 2, 1, 1)):
        for gate in "ifco":
            shapes[f"lstm_layer_{layer}/W_x{gate}"] = (width, inputs)
            shapes[f"lstm_layer_{layer}/W_h{gate}"] = (width, width)
            shapes[f"lstm_layer_{layer}/b_{gate}"] = (width, 1)
            if gate != "c":
                shapes[f"lstm_layer_{layer}/W_c{gate}"] = (width, peephole)
    states = {"p": (3, 2), "q": (2, 2), "older": (3, 2), "still": (3, 2), "hidden-0": (2, 2)}
    states |= {"hidden-1": (2, 2), "cell-1": (2, 2), "hidden-2": (1, 2), "cell-2": (1, 2)}
    states |= {"hidden-3": (3, 2)}
    return {
        "weights": {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()},
        "state": {name: 0.5 * rng.standard_normal(shape) for name, shape in states.items()},
        "data": [rng.standard_normal((T, 3, 2)), rng.standard_normal((T, 1, 1))],
        "noise": [rng.standard_normal((T, 3, 2))],
    }


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradients_are_central_differences(T):
    rng = np.random.default_rng(T)
    inputs = inputs_of_everything(T, rng)
    window = oracle.unroll(everything, loss_of_everything, **inputs)
    arrays = [*inputs["weights"].values(), *inputs["state"].values(), *inputs["data"]]
    gradients = [
        *(window.gradients[name] for name in inputs["weights"]),
        *(window.state_gradients[name] for name in inputs["state"]),
        *window.placeholder_gradients,
    ]
    for array, gradient in zip(arrays, gradients, strict=True):
        assert array.shape == gradient.shape
        direction = rng.standard_normal(array.shape)
        step, losses = 1e-5, []
        for sign in (1, -1):
            array += sign * step * direction
            losses.append(oracle.unroll(everything, loss_of_everything, **inputs).loss)
            array -= sign * step * direction
        slope = (losses[0] - losses[1]) / (2 * step)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(slope - np.sum(gradient * direction)) < 1e-7 * scale + 1e-9


def test_stop_gradient_passes_the_value_alone():
    def frame(bp, depth, f):
        x = bp.placeholder((2, 1))
        return x, x * f.stop_gradient(x)

    x = np.array([[3.0], [-2.0]])[None]
    loss = lambda f, x, y: f.reduce_sum(y)  # noqa: E731
    window = oracle.unroll(frame, loss, weights={}, state={}, data=[x])
    assert window.loss == 13.0
    np.testing.assert_array_equal(window.placeholder_gradients[0], x)


def test_a_window_is_carried_on_from_its_state():
    """Two windows of three frames are one of six, forward."""
    inputs = inputs_of_everything(6, np.random.default_rng(0))
    whole = oracle.unroll(everything, **inputs)
    first, second = ([x[part] for x in inputs["data"]] for part in (slice(0, 3), slice(3, 6)))
    noise = [[x[part] for x in inputs["noise"]] for part in (slice(0, 3), slice(3, 6))]
    weights = inputs["weights"]
    a = oracle.unroll(
        everything, weights=weights, state=inputs["state"], data=first, noise=noise[0]
    )
    b = oracle.unroll(everything, weights=weights, state=a.state, data=second, noise=noise[1])
    for x, y, z in zip(whole.outputs, a.outputs, b.outputs, strict=True):
        np.testing.assert_array_equal(x, np.concatenate([y, z]))
    for name in whole.state:
        np.testing.assert_array_equal(whole.state[name], b.state[name])


def test_a_kink_goes_by_convention():
    """At a tie the gradient goes to the first operand; relu'(0) = abs'(0) = 0."""

    def frame(bp, depth, f):
        a, b = bp.get_variable("a", (1, 1)), bp.get_variable("b", (1, 1))
        x = bp.placeholder((1, 1))
        return x, f.maximum(a, b) + 10 * f.minimum(b, a) + f.relu(a) + f.abs(b) + x

    zero = np.zeros((1, 1))
    window = oracle.unroll(
        frame,
        lambda f, x, y: f.reduce_sum(y),
        weights={"a": zero, "b": zero},
        state={},
        data=[np.zeros((1, 1, 1))],
    )
    assert window.gradients["a"] == 1
    assert window.gradients["b"] == 10


def test_reductions_over_the_window_count_a_constant_at_every_frame():
    def frame(bp, depth, f):
        return (bp.placeholder((1, 1)), bp.get_variable("W", (2, 1)))

    def run(loss):
        weights = {"W": np.array([[1.0], [2.0]])}
        data = [np.zeros((3, 1, 1))]
        return oracle.unroll(frame, loss, weights=weights, state={}, data=data).loss

    assert run(lambda f, x, W: f.reduce_sum(W)) == 3 * 3.0
    assert run(lambda f, x, W: f.reduce_mean(W)) == 1.5
    assert run(lambda f, x, W: f.reduce_sum(W, axis=(0, 1)) + f.reduce_sum(x)) == 3.0
    assert run(lambda f, x, W: f.reduce_sum(f.reduce_sum(x + W) * W)) == 9.0 * 3.0


def test_misuse_is_noticed():
    def frame(bp, depth, f):
        return (bp.placeholder((1, 1)),)

    def run(frame, loss=None, state=None):
        return oracle.unroll(frame, loss, weights={}, state=state or {}, data=[np.zeros((2, 1, 1))])

    with pytest.raises(TypeError, match="no frames"):
        run(frame, lambda f, x: f.reduce_mean(x) + x)
    with pytest.raises(TypeError, match="all frames"):
        run(lambda bp, depth, f: (f.reduce_mean(bp.placeholder((1, 1))),))
    with pytest.raises(AssertionError, match="was given for"):
        run(lambda bp, depth, f: (bp.placeholder((2, 1)),))
    with pytest.raises(KeyError, match="h"):
        run(frame, state={"h": np.zeros((1, 1))})  # never named
