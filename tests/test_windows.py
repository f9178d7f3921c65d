"""Windows of one stream: state carried, modes that agree, and the loops over whole sequences."""

import signal
import threading
from typing import Any

import numpy as np
import pytest

import bptt
from frames import Frame, draw_state, draw_weights, gradients_of_everything, mean_square
from rounding import assert_identical, assert_rounding

ADAM = bptt.Adam(0.01, beta1=0.9, beta2=0.99, epsilon=1e-3)


def noisy_frame(batch: int = 2) -> Frame:
    """Dense, LSTM, RNN and a user's own recurrence; noise in both modes."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, batch))
        y = bp.placeholder((1, batch))
        seen = x + bp.random_normal(x.shape, stddev=0.3)
        seen = bptt.layers.dense(bp, seen, 3, activation=bptt.relu)
        _, h = bptt.layers.lstm(bp, seen, 4, peephole="diagonal")
        slow = bp.get_past_variable("slow", np.full((4, 1), 0.25))
        slow = bp.name_variable("slow", 0.9 * slow + 0.1 * h)
        h = bptt.layers.rnn(bp, bptt.concat([h, slow]), 3)
        h = h + bp.random_uniform((3, batch), -0.1, 0.1)
        return x, y, bptt.layers.dense(bp, h, 1)

    return frame


def plain_frame(bp: bptt.BPTT, depth: str) -> Any:
    """One LSTM without noise, batch 1."""
    x = bp.placeholder((1, 1))
    y = bp.placeholder((1, 1))
    _, h = bptt.layers.lstm(bp, x, 3)
    return x, y, bptt.layers.dense(bp, h, 1)


def build(frame: Frame, num_loops: int, dtype: str = "float64", seed: int = 5) -> bptt.BPTT:
    """A net at weights and state that depend on the seed alone, not on the number of loops."""
    bp = bptt.BPTT(seed=seed, dtype=dtype)
    bp.generate_graphs(frame, num_loops=num_loops)
    rng = np.random.default_rng(seed)
    draw_weights(bp, rng)
    draw_state(bp, rng)
    return bp


def sequences(frames: int, batch: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(frames)
    return [rng.normal(size=(frames, 2, batch)), rng.normal(size=(frames, 1, batch))]


def plain_sequences(frames: int) -> list[np.ndarray]:
    rng = np.random.default_rng(frames)
    return [rng.normal(size=frames), rng.normal(size=frames)]


def protocol(bp: bptt.BPTT, depth: str, fetches: list[Any], window: list[np.ndarray]) -> list[Any]:
    """One window of the origin's protocol, state carried on."""
    feed = bp.generate_feed_dict(depth, window, len(window))
    definitions = bp.generate_output_definitions(depth)
    results = bp.run([*fetches, *definitions], feed)
    bp.save_output_state(depth, results[len(fetches) :])
    return results[: len(fetches)]


def state_of(bp: bptt.BPTT, depth: str = "deep") -> dict[str, np.ndarray]:
    return {name: bp.state[depth][name] for name in bp.state[depth]}


def assert_same_mapping(got: Any, expected: Any, exact: bool = True) -> None:
    assert sorted(got) == sorted(expected)
    for name in expected:
        (assert_identical if exact else assert_rounding)(got[name], expected[name])


# ---- deep and shallow, long and short windows


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_deep_is_shallow_frame_by_frame(frames: int, dtype: str) -> None:
    """T frames at once and T frames one by one: the same outputs and state, noise included."""
    bp = build(noisy_frame(), frames, dtype)
    bp.copy_state_forward()
    x, y = sequences(frames)
    (deep,) = protocol(bp, bp.DEEP, [bp.graphs[bp.DEEP][-1]], [x, y])
    shallow = bp.predict([x])
    assert deep.shape == shallow.shape == (frames, 1, 2)
    assert_rounding(shallow, deep)
    assert_same_mapping(state_of(bp, "shallow"), state_of(bp, "deep"), exact=False)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_short_windows_are_one_long_one(dtype: str) -> None:
    """3 windows of 4 frames give the outputs and the state of 1 window of 12."""
    short, long = build(noisy_frame(), 4, dtype), build(noisy_frame(), 12, dtype)
    x, y = sequences(12)
    (whole,) = protocol(long, "deep", [long.graphs["deep"][-1]], [x, y])
    parts = [
        protocol(short, "deep", [short.graphs["deep"][-1]], [x[i : i + 4], y[i : i + 4]])[0]
        for i in (0, 4, 8)
    ]
    assert_rounding(np.concatenate(parts), whole)
    assert_same_mapping(state_of(short), state_of(long), exact=False)


def test_noise_differs_from_frame_to_frame() -> None:
    """Fresh noise at every frame, of the spread asked for, another one for another seed."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 3))
        first = x + bp.random_normal((2, 3), mean=1.0, stddev=0.5)
        return x, first, x + bp.random_uniform((2, 3), low=-1.0, high=3.0)

    bp = bptt.BPTT(seed=1)
    _, normal, uniform = bp.generate_graphs(frame, num_loops=4)["deep"]
    window = [np.zeros((4, 2, 3))]
    drawn = [
        bp.run([normal, uniform], bp.generate_feed_dict("deep", window, 1)) for _ in range(500)
    ]
    normals = np.concatenate([pair[0] for pair in drawn])
    uniforms = np.concatenate([pair[1] for pair in drawn])
    assert len(np.unique(normals)) > 0.99 * normals.size
    assert abs(normals.mean() - 1.0) < 0.02
    assert abs(normals.std() - 0.5) < 0.02
    assert abs(uniforms.mean() - 1.0) < 0.05
    assert uniforms.min() >= -1.0
    assert uniforms.max() < 3.0
    flat = normals.reshape(len(normals), -1) - 1.0
    assert np.abs(np.corrcoef(flat.T) - np.eye(6)).max() < 0.1  # features and lanes are independent
    assert np.abs(np.corrcoef(flat[1:, 0], flat[:-1, 0])[0, 1]) < 0.1  # and so are frames

    other = bptt.BPTT(seed=2)
    other_normal = other.generate_graphs(frame, num_loops=4)["deep"][1]
    (first,) = other.run([other_normal], other.generate_feed_dict("deep", window, 1))
    assert not np.isclose(first, drawn[0][0]).any()


def test_gradients_draw_the_noise_of_the_coming_window() -> None:
    """`gradients` looks at the window without consuming it; `run` consumes it."""
    bp = build(noisy_frame(), 3)
    loss = mean_square(bp.graphs["deep"])
    feed = bp.generate_feed_dict("deep", sequences(3), 2)
    first, second = bp.gradients(loss, feed), bp.gradients(loss, feed)
    assert_same_mapping(first, second)
    (before,) = bp.run([loss], feed)
    (after,) = bp.run([loss], feed)
    assert before != after  # run consumed the frames, and the state is the feed's both times


def test_noise_only_deep() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        seen = x + bp.random_normal((1, 1), stddev=0.5) if depth == bp.DEEP else x
        return x, seen

    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=5)
    data = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(bp.predict([data]).ravel(), data.astype(np.float32))
    (noisy,) = bp.run([bp.graphs["deep"][-1]], bp.generate_feed_dict("deep", [data], 1))
    assert np.abs(noisy.ravel() - data).min() > 0


# ---- the truncated gradient


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_gradient_is_the_slope_of_the_windows_loss(frames: int) -> None:
    """Central differences over every weight, input and incoming state; the state is held fixed.

    The state has come through two windows of training: the gradient does not reach back into them.
    """
    bp = build(noisy_frame(), frames)
    loss = mean_square(bp.graphs["deep"])
    bp.fit(bp.minimize(loss, ADAM), sequences(2 * frames), steps=2)
    x, y = sequences(frames)
    feed = bp.generate_feed_dict("deep", [x, y], 2)
    gradients = gradients_of_everything(bp, loss, feed)

    def set_weight(name: str, value: np.ndarray) -> None:
        bp.parameters[name] = value

    def set_state(name: str, value: np.ndarray) -> None:
        bp.state["deep"][name] = value

    tried = {
        name: (bp.parameters[name], lambda v, n=name: set_weight(n, v)) for name in bp.parameters
    }
    tried |= {
        name: (value, lambda v, n=name: set_state(n, v)) for name, value in state_of(bp).items()
    }
    assert {"placeholder_0", "placeholder_1"} | set(tried) == set(gradients)

    step = 1e-5
    for name, (value, assign) in tried.items():
        slope = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                assign(moved)
                sides.append(bp.evaluate(loss, [x, y]))
            slope[index] = (sides[0] - sides[1]) / (2 * step)
        assign(value)
        np.testing.assert_allclose(gradients[name], slope, rtol=1e-6, atol=1e-9, err_msg=name)

    slope = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        up, down = (bp.evaluate(loss, [x + sign * moved, y]) for sign in (1, -1))
        slope[index] = (up - down) / (2 * step)
    np.testing.assert_allclose(gradients["placeholder_0"], slope, rtol=1e-6, atol=1e-9)


def test_gradient_of_a_batch_is_the_mean_over_its_lanes() -> None:
    def frame_of(batch: int) -> Frame:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((2, batch))
            y = bp.placeholder((1, batch))
            _, h = bptt.layers.lstm(bp, x, 4, peephole="full")
            return x, y, bptt.layers.dense(bp, h, 1)

        return frame

    wide = build(frame_of(3), 4)
    x, y = sequences(4, batch=3)
    loss = mean_square(wide.graphs["deep"])
    whole = wide.gradients(loss, wide.generate_feed_dict("deep", [x, y], 2))
    lanes = []
    for lane in range(3):
        narrow = build(frame_of(1), 4)
        for name, value in state_of(wide).items():
            narrow.state["deep"][name] = value[:, lane : lane + 1]
        loss = mean_square(narrow.graphs["deep"])
        window = [x[:, :, lane : lane + 1], y[:, :, lane : lane + 1]]
        lanes.append(narrow.gradients(loss, narrow.generate_feed_dict("deep", window, 2)))
    for name, gradient in whole.items():
        assert_rounding(gradient, sum(lane[name] for lane in lanes) / 3)


# ---- fit and the protocol


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_fit_is_the_protocol(dtype: str) -> None:
    """The same bits: losses, weights, state, noise, and the stream that follows."""
    fitted, stepped = build(noisy_frame(), 5, dtype), build(noisy_frame(), 5, dtype)
    x, y = sequences(40)
    history = fitted.fit(fitted.minimize(mean_square(fitted.graphs["deep"]), ADAM), [x, y], steps=8)

    loss = mean_square(stepped.graphs["deep"])
    train = stepped.minimize(loss, ADAM)
    losses = []
    for i in range(0, 40, 5):
        nothing, value = protocol(stepped, "deep", [train, loss], [x[i : i + 5], y[i : i + 5]])
        assert nothing is None
        losses.append(value)
    assert history.loss.dtype == np.dtype(dtype)
    assert history.loss.tolist() == losses
    assert not history.stopped
    assert_same_mapping(fitted.parameters, stepped.parameters)
    assert_same_mapping(state_of(fitted), state_of(stepped))
    for bp in (fitted, stepped):
        bp.copy_state_forward()
    assert_identical(fitted.predict([x]), stepped.predict([x]))


def test_fit_wraps_around_and_goes_on() -> None:
    """A window that crosses the end goes on at frame 0; two calls are one call."""
    data = plain_sequences(7)
    once, twice, tiled = (build(plain_frame, 3) for _ in range(3))
    trains = [bp.minimize(mean_square(bp.graphs["deep"]), ADAM) for bp in (once, twice, tiled)]

    losses = once.fit(trains[0], data, steps=9).loss
    assert once.next_frame == 27 % 7
    first = twice.fit(trains[1], data, steps=4).loss
    assert twice.next_frame == 12 % 7
    second = twice.fit(trains[1], data, steps=5, start=twice.next_frame).loss
    assert twice.next_frame == 27 % 7
    unrolled = tiled.fit(trains[2], [np.tile(array, 4) for array in data], steps=9).loss

    assert_identical(np.concatenate([first, second]), losses)
    assert_identical(unrolled, losses)
    assert_same_mapping(twice.parameters, once.parameters)
    assert_same_mapping(tiled.parameters, once.parameters)
    assert_same_mapping(state_of(twice), state_of(once))


def test_fit_starts_at_a_frame() -> None:
    data = plain_sequences(9)
    late, cut = build(plain_frame, 3), build(plain_frame, 3)
    losses = late.fit(
        late.minimize(mean_square(late.graphs["deep"]), ADAM), data, steps=2, start=2
    ).loss
    train = cut.minimize(mean_square(cut.graphs["deep"]), ADAM)
    assert_identical(losses, cut.fit(train, [array[2:] for array in data], steps=2).loss)
    assert late.next_frame == 8


@pytest.mark.parametrize(("frames", "windows"), [(3, 1), (6, 2), (7, 3), (8, 3), (9, 3)])
def test_one_pass_sees_every_frame(frames: int, windows: int) -> None:
    bp = build(plain_frame, 3)
    history = bp.fit(bp.minimize(mean_square(bp.graphs["deep"]), ADAM), plain_sequences(frames))
    assert history.loss.shape == (windows,)
    assert bp.next_frame == 3 * windows % frames


def test_no_steps_change_nothing() -> None:
    bp = build(plain_frame, 3)
    weights, state = dict(bp.parameters), state_of(bp)
    history = bp.fit(bp.minimize(mean_square(bp.graphs["deep"]), ADAM), plain_sequences(6), steps=0)
    assert history.loss.shape == (0,)
    assert_same_mapping(bp.parameters, weights)
    assert_same_mapping(state_of(bp), state)


def test_callback_sees_the_losses() -> None:
    bp = build(plain_frame, 3)
    train = bp.minimize(mean_square(bp.graphs["deep"]), ADAM)
    seen: list[tuple[int, float]] = []

    def callback(step: int, loss: float) -> bool:
        seen.append((step, loss))
        return False

    history = bp.fit(train, plain_sequences(9), steps=10, callback=callback, every=4)
    assert [step for step, _ in seen] == [4, 8]
    assert [loss for _, loss in seen] == [history.loss[3], history.loss[7]]
    assert history.loss.shape == (10,)
    assert not history.stopped


def test_callback_stops() -> None:
    """The net stands where the callback saw it, and the history ends there."""
    stopped, short = build(plain_frame, 3), build(plain_frame, 3)
    history = stopped.fit(
        stopped.minimize(mean_square(stopped.graphs["deep"]), ADAM),
        plain_sequences(9),
        steps=100,
        callback=lambda step, loss: step >= 6,
        every=2,
    )
    expected = short.fit(
        short.minimize(mean_square(short.graphs["deep"]), ADAM), plain_sequences(9), steps=6
    )
    assert history.stopped
    assert_identical(history.loss, expected.loss)
    assert_same_mapping(stopped.parameters, short.parameters)
    assert_same_mapping(state_of(stopped), state_of(short))
    assert stopped.next_frame == short.next_frame == 18 % 9


def test_callback_does_not_change_the_numbers() -> None:
    watched, alone = build(noisy_frame(), 3), build(noisy_frame(), 3)
    data = sequences(9)
    losses = watched.fit(
        watched.minimize(mean_square(watched.graphs["deep"]), ADAM),
        data,
        steps=10,
        callback=lambda step, loss: False,
        every=1,
    ).loss
    train = alone.minimize(mean_square(alone.graphs["deep"]), ADAM)
    assert_identical(losses, alone.fit(train, data, steps=10).loss)


def test_an_error_in_the_callback_is_the_users() -> None:
    bp = build(plain_frame, 3)
    train = bp.minimize(mean_square(bp.graphs["deep"]), ADAM)

    def callback(step: int, loss: float) -> bool:
        raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError, match="the user's own"):
        bp.fit(train, plain_sequences(9), steps=10, callback=callback, every=2)


def test_an_interrupt_ends_the_loop() -> None:
    """A long loop leaves the interpreter to other threads and heeds their signal at once.

    What was trained until then stays, and the next window is the one after the last update.
    """
    bp = build(plain_frame, 3)
    train = bp.minimize(mean_square(bp.graphs["deep"]), ADAM)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            bp.fit(train, plain_sequences(10), steps=20_000_000)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert train.steps > 0
    assert bp.next_frame == 3 * train.steps % 10
    twin = build(plain_frame, 3)
    twin.fit(
        twin.minimize(mean_square(twin.graphs["deep"]), ADAM),
        plain_sequences(10),
        steps=train.steps,
    )
    assert_same_mapping(bp.parameters, twin.parameters)
    assert_same_mapping(state_of(bp), state_of(twin))


# ---- the shallow side


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_four_ways_to_stream(dtype: str) -> None:
    """`predict`, `step`, a stepper and the shallow protocol: the same bits, noise included."""
    x, _ = sequences(6)
    by_predict, by_step, by_stepper, by_protocol = (
        build(noisy_frame(), 3, dtype) for _ in range(4)
    )
    for bp in (by_predict, by_step, by_stepper, by_protocol):
        bp.copy_state_forward()

    expected = by_predict.predict([x])
    assert expected.dtype == np.dtype(dtype)
    assert expected.shape == (6, 1, 2)

    assert_identical(np.array([by_step.step(frame) for frame in x]), expected)

    stepper = by_stepper.stepper()
    outputs = []
    for frame in x:
        stepper.inputs[0][...] = frame
        stepper()
        outputs.append(stepper.output.copy())
    assert_identical(np.array(outputs), expected)

    out = by_protocol.graphs["shallow"][-1]
    outputs = [protocol(by_protocol, "shallow", [out], [frame[None]])[0][0] for frame in x]
    assert_identical(np.array(outputs), expected)

    for bp in (by_step, by_stepper, by_protocol):
        assert_same_mapping(state_of(bp, "shallow"), state_of(by_predict, "shallow"))
    assert_identical(by_step.predict([x]), by_predict.predict([x]))  # the counters agree too


def test_predict_goes_on_where_it_stopped() -> None:
    whole, parts = build(noisy_frame(), 3), build(noisy_frame(), 3)
    x, _ = sequences(10)
    expected = whole.predict([x])
    assert_identical(np.concatenate([parts.predict([x[:3]]), parts.predict([x[3:]])]), expected)


def test_chosen_outputs() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        z = bp.placeholder((2, 1))
        return x, z, x + z, 2 * z

    bp = bptt.BPTT(seed=0, dtype="float64")
    graphs = bp.generate_graphs(frame, num_loops=2)
    *_, total, double = graphs["shallow"]
    a, b = np.arange(6.0).reshape(3, 2, 1), np.ones((3, 2, 1))
    assert_identical(bp.predict([b]), 2 * b)  # the last symbol needs z alone
    totals, doubles = bp.predict([a, b], outputs=[total, double])
    assert_identical(totals, a + b)
    assert_identical(doubles, 2 * b)
    (alone,) = bp.predict([a, b], outputs=[total])
    assert_identical(alone, a + b)
    assert_identical(bp.step(b[0]), 2 * b[0])
    totals, doubles = bp.step(a[1], b[1], outputs=[total, double])
    assert_identical(totals, a[1] + b[1])
    assert_identical(doubles, 2 * b[1])
    stepper = bp.stepper(outputs=[double, total])
    stepper.inputs[0][...] = a[2]
    stepper.inputs[1][...] = b[2]
    stepper()
    assert_identical(stepper.outputs[0], 2 * b[2])
    assert_identical(stepper.outputs[1], a[2] + b[2])


def test_stepper_views_are_live() -> None:
    bp = build(plain_frame, 3)
    stepper = bp.stepper()
    given, output = stepper.inputs[0], stepper.output
    assert given.shape == output.shape == (1, 1)
    assert given.flags.writeable
    assert not output.flags.writeable
    twin = build(plain_frame, 3)
    for value in (0.3, -0.2, 0.9):
        given[...] = value
        stepper()
        assert_identical(output, twin.step(np.full((1, 1), value)))


def test_steppers_with_their_own_state(rng: np.random.Generator) -> None:
    """Two streams through one net, interleaved, are each what they would be alone."""
    bp = build(plain_frame, 3)
    bp.copy_state_forward()
    streams = rng.normal(size=(2, 8, 1, 1))
    expected = []
    for stream in streams:
        twin = build(plain_frame, 3)
        twin.copy_state_forward()
        expected.append(twin.predict([stream]))

    shared = state_of(bp, "shallow")
    steppers = [bp.stepper(own_state=True) for _ in streams]
    outputs: list[list[np.ndarray]] = [[], []]
    for frame in range(8):
        for i, stepper in enumerate(steppers):
            stepper.inputs[0][...] = streams[i, frame]
            stepper()
            outputs[i].append(stepper.output.copy())
        if frame == 3:
            bp.step(np.ones((1, 1)))  # the net's own stream does not disturb them
            for name, value in shared.items():
                bp.state["shallow"][name] = value
    for got, want in zip(outputs, expected, strict=True):
        assert_identical(np.array(got), want)
    assert_same_mapping(state_of(bp, "shallow"), shared)


def test_a_stepper_sees_training_and_assigned_state() -> None:
    """Weights and state belong to the net, not to the stepper."""
    bp = build(plain_frame, 3)
    stepper = bp.stepper()
    bp.fit(bp.minimize(mean_square(bp.graphs["deep"]), ADAM), plain_sequences(9), steps=3)
    bp.copy_state_forward()
    twin = build(plain_frame, 3)
    for name in bp.parameters:
        twin.parameters[name] = bp.parameters[name]
    for name, value in state_of(bp).items():
        twin.state["shallow"][name] = value
    stepper.inputs[0][...] = 0.5
    stepper()
    assert_identical(stepper.output, twin.step(np.full((1, 1), 0.5)))


# ---- evaluate


@pytest.mark.parametrize("frames", [2, 3, 6, 7, 11])
def test_evaluate_is_the_loss_over_all_frames(frames: int) -> None:
    """Windows of 3 and a shorter last one: the mean over all frames, weights by their number."""
    bp, whole = build(noisy_frame(), 3), build(noisy_frame(), frames)
    data = sequences(frames)
    loss = mean_square(whole.graphs["deep"])
    (expected,) = whole.run([loss], whole.generate_feed_dict("deep", data, 2))
    got = bp.evaluate(mean_square(bp.graphs["deep"]), data)
    assert isinstance(got, float)
    assert got == pytest.approx(expected, rel=1e-12)


def test_evaluate_leaves_everything_as_it_was() -> None:
    """A run with evaluations in between is the run without them, bit for bit."""
    disturbed, quiet = build(noisy_frame(), 3), build(noisy_frame(), 3)
    data = sequences(20)
    losses = []
    for bp in (disturbed, quiet):
        loss = mean_square(bp.graphs["deep"])
        train = bp.minimize(loss, ADAM)
        found = []
        for _ in range(3):
            found.append(bp.fit(train, data, steps=3, start=bp.next_frame).loss)
            if bp is disturbed:
                state, weights, position = state_of(bp), dict(bp.parameters), bp.next_frame
                first = bp.evaluate(loss, sequences(10))
                assert first == bp.evaluate(loss, sequences(10))
                assert_same_mapping(state_of(bp), state)
                assert_same_mapping(bp.parameters, weights)
                assert bp.next_frame == position
        losses.append(np.concatenate(found))
    assert_identical(losses[0], losses[1])


# ---- state


def delay_frame(batch: int) -> Frame:
    """x one, two and three frames late; each link names the past value of the one before it."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, batch))
        late = [
            bp.get_past_variable(f"late-{i}", np.full((2, batch), -float(i))) for i in (1, 2, 3)
        ]
        bp.name_variable("late-1", x)
        bp.name_variable("late-2", late[0])
        bp.name_variable("late-3", late[1])
        return x, bptt.concat(late)

    return frame


@pytest.mark.parametrize("num_loops", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 3])
def test_delay_lines(num_loops: int, batch: int) -> None:
    """Exactly the inputs of one, two and three frames ago, whatever the window."""
    bp = bptt.BPTT(seed=0)
    out = bp.generate_graphs(delay_frame(batch), num_loops=num_loops)["deep"][-1]
    frames = 4 * num_loops
    data = np.arange(frames * 2 * batch, dtype=np.float32).reshape(frames, 2, batch)
    line = [np.full((2, batch), -i, np.float32) for i in (1, 2, 3)]
    expected = []
    for x in data:
        expected.append(np.concatenate(line))
        line = [x, *line[:-1]]
    deep = np.concatenate(
        [
            protocol(bp, "deep", [out], [data[t : t + num_loops]])[0]
            for t in range(0, frames, num_loops)
        ]
    )
    assert_identical(deep, np.array(expected))
    assert_identical(bp.predict([data]), np.array(expected))


def test_gradient_through_a_delay_line() -> None:
    """The input's gradient is the output's of later frames; what falls off the end is gone."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        y = bp.placeholder((2, 1))
        one = bp.get_past_variable("one", np.zeros((2, 1)))
        two = bp.get_past_variable("two", np.zeros((2, 1)))
        bp.name_variable("one", x)
        bp.name_variable("two", one)
        return x, y, two

    bp = bptt.BPTT(seed=0, dtype="float64")
    _, y, out = bp.generate_graphs(frame, num_loops=5)["deep"]
    window = [np.zeros((5, 2, 1)), np.arange(1.0, 11.0).reshape(5, 2, 1)]
    feed = bp.generate_feed_dict("deep", window, 2)
    gradients = gradients_of_everything(bp, bptt.reduce_sum(out * y), feed)
    weight = window[1]
    zeros = np.zeros((2, 2, 1))
    assert_identical(gradients["placeholder_0"], np.concatenate([weight[2:], zeros]))
    assert_identical(gradients["two"], weight[0])
    assert_identical(gradients["one"], weight[1])


def test_awkward_named_values() -> None:
    """A placeholder, a constant, a weight, a past value, itself, one symbol under two names."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1))
        names = ["placeholder", "constant", "weight", "other", "itself", "first", "second"]
        past = {name: bp.get_past_variable(name, np.full((2, 1), -1.0)) for name in names}
        both = 2 * x
        bp.name_variable("placeholder", x)
        bp.name_variable("constant", bp.constant(np.full((2, 1), 3.0)))
        bp.name_variable("weight", bp.get_variable("w", (2, 1)))
        bp.name_variable("other", past["first"])
        bp.name_variable("itself", past["itself"])
        bp.name_variable("first", both)
        bp.name_variable("second", both)
        return x, bptt.concat([past[name] for name in names])

    bp = bptt.BPTT(seed=0, dtype="float64")
    out = bp.generate_graphs(frame, num_loops=3)["deep"][-1]
    bp.parameters["w"] = [[5.0], [6.0]]
    x = np.arange(1.0, 13.0).reshape(6, 2, 1)
    start = np.full((1, 2, 1), -1.0)

    def late(values: np.ndarray) -> np.ndarray:
        return np.concatenate([start, values])[:6]

    expected = np.concatenate(
        [
            late(x),
            late(np.full((6, 2, 1), 3.0)),
            late(np.tile([[5.0], [6.0]], (6, 1, 1))),
            late(late(2 * x)),
            np.full((6, 2, 1), -1.0),
            late(2 * x),
            late(2 * x),
        ],
        axis=1,
    )
    deep = [protocol(bp, "deep", [out], [x[t : t + 3]])[0] for t in (0, 3)]
    assert_identical(np.concatenate(deep), expected)
    assert_identical(bp.predict([x]), expected)
    assert_identical(bp.state["deep"]["itself"], start[0])
    assert_identical(bp.state["deep"]["second"], 2 * x[-1])


def test_a_starting_column_serves_every_lane() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 3))
        past = bp.get_past_variable("sum", np.array([[1.0], [2.0]]))
        return x, bp.name_variable("sum", past + x)

    bp = bptt.BPTT(seed=0, dtype="float64")
    bp.generate_graphs(frame, num_loops=2)
    column = np.array([[1.0], [2.0]])
    for depth in ("deep", "shallow"):
        assert_identical(bp.state[depth]["sum"], np.tile(column, 3))
    assert bp.starting_constants["sum"].shape in ((2, 1), (2, 3))
    np.testing.assert_array_equal(
        np.broadcast_to(bp.starting_constants["sum"], (2, 3)), np.tile(column, 3)
    )
    outputs = bp.predict([np.ones((4, 2, 3))])
    assert_identical(outputs[-1], np.tile(column, 3) + 4)
    bp.state["shallow"]["sum"] = [[7.0], [8.0]]
    assert_identical(bp.state["shallow"]["sum"], np.tile([[7.0], [8.0]], 3))


def test_state_is_read_as_a_copy() -> None:
    bp = build(plain_frame, 3)
    before = bp.state["deep"]["hidden-0"]
    before[...] = 99
    assert not (bp.state["deep"]["hidden-0"] == 99).any()
    weight = bp.parameters["dense_0/W"]
    weight[...] = 99
    assert not (bp.parameters["dense_0/W"] == 99).any()


def test_copy_state_forward_takes_the_state_and_the_noise() -> None:
    bp = build(noisy_frame(), 3)
    data = sequences(6)
    fresh = state_of(bp, "shallow")
    loss = mean_square(bp.graphs["deep"])
    bp.fit(bp.minimize(loss, ADAM), data, steps=2)
    assert_same_mapping(state_of(bp, "shallow"), fresh)  # the modes are apart until copied
    bp.copy_state_forward()
    assert_same_mapping(state_of(bp, "shallow"), state_of(bp, "deep"))
    kept = state_of(bp, "shallow")
    x, y = sequences(3)
    (deep,) = protocol(bp, "deep", [bp.graphs["deep"][-1]], [x, y])
    assert_same_mapping(state_of(bp, "shallow"), kept)  # a copy, not a view
    assert_rounding(bp.predict([x]), deep)  # the counter came along: the same noise


def lanes_frame(bp: bptt.BPTT, depth: str) -> Any:
    """Trained on three lanes, streamed on one."""
    batch = 3 if depth == bp.DEEP else 1
    x = bp.placeholder((2, batch))
    y = bp.placeholder((1, batch))
    _, h = bptt.layers.lstm(bp, x, 4)
    return x, y, bptt.layers.dense(bp, h, 1)


@pytest.mark.parametrize("lane", [0, 1, 2])
def test_train_on_three_lanes_stream_one(lane: int) -> None:
    bp = build(lanes_frame, 4)
    x, y = sequences(8, batch=3)
    out = bp.graphs["deep"][-1]
    assert bp.state["deep"]["hidden-0"].shape == (4, 3)
    assert bp.state["shallow"]["hidden-0"].shape == (4, 1)
    protocol(bp, "deep", [out], [x[:4], y[:4]])
    bp.copy_state_forward(lane=lane)
    for name, value in state_of(bp).items():
        assert_identical(bp.state["shallow"][name], value[:, lane : lane + 1])
    (deep,) = protocol(bp, "deep", [out], [x[4:], y[4:]])
    shallow = bp.predict([x[4:, :, lane : lane + 1]])
    assert_rounding(shallow, deep[:, :, lane : lane + 1])


def test_lanes_do_not_mix() -> None:
    """Another input in one lane changes that lane's output and no other."""
    bp, other = build(lanes_frame, 4), build(lanes_frame, 4)
    x, y = sequences(4, batch=3)
    (before,) = protocol(bp, "deep", [bp.graphs["deep"][-1]], [x, y])
    x[:, :, 1] += 1
    (after,) = protocol(other, "deep", [other.graphs["deep"][-1]], [x, y])
    assert_identical(after[:, :, [0, 2]], before[:, :, [0, 2]])
    assert (after[:, :, 1] != before[:, :, 1]).any()


def test_reset_state() -> None:
    bp = bptt.BPTT(seed=0, dtype="float64")
    bp.generate_graphs(noisy_frame(3), num_loops=2)
    start = {depth: state_of(bp, depth) for depth in ("deep", "shallow")}
    np.testing.assert_array_equal(start["deep"]["slow"], np.full((4, 3), 0.25))
    x, y = sequences(2, batch=3)
    protocol(bp, "deep", [bp.graphs["deep"][-1]], [x, y])
    bp.predict([x])
    moved = {depth: state_of(bp, depth) for depth in ("deep", "shallow")}
    assert (moved["deep"]["slow"] != start["deep"]["slow"]).all()

    bp.reset_state("deep", lane=1)
    for name, value in state_of(bp).items():
        expected = moved["deep"][name].copy()
        expected[:, 1] = start["deep"][name][:, 1]
        assert_identical(value, expected)
    assert_same_mapping(state_of(bp, "shallow"), moved["shallow"])

    bp.reset_state("deep")
    assert_same_mapping(state_of(bp), start["deep"])
    assert_same_mapping(state_of(bp, "shallow"), moved["shallow"])
    bp.reset_state("shallow")
    assert_same_mapping(state_of(bp, "shallow"), start["shallow"])


def test_starting_values_of_layers() -> None:
    """Drawn per unit and the same for every lane, in both modes; another seed draws others."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 3))
        start = bptt.initializers.random_normal(0.0, 0.5)
        return x, bptt.layers.lstm(bp, x, 4, initial_state=start)[1]

    nets = []
    for seed in (0, 0, 1):
        bp = bptt.BPTT(seed=seed)
        bp.generate_graphs(frame, num_loops=2)
        nets.append(state_of(bp))
        assert_same_mapping(state_of(bp, "shallow"), state_of(bp))
        for value in state_of(bp).values():
            assert_identical(value, np.tile(value[:, :1], 3))
    assert_same_mapping(nets[0], nets[1])
    for name in nets[0]:
        assert (nets[0][name] != nets[2][name]).all()
    assert (nets[0]["cell-0"] != nets[0]["hidden-0"]).all()


def test_run_changes_no_state() -> None:
    """Only `save_output_state` does, with what `run` fetched: frame T of every recurrence."""
    bp = build(plain_frame, 3)
    before = state_of(bp)
    feed = bp.generate_feed_dict("deep", plain_sequences(3), 2)
    fetched = bp.run(bp.generate_output_definitions("deep"), feed)
    assert_same_mapping(state_of(bp), before)
    bp.save_output_state("deep", fetched)
    assert_same_mapping(state_of(bp), dict(zip(sorted(before), fetched, strict=True)))
    for name in before:
        assert (bp.state["deep"][name] != before[name]).any()


def test_shapes_of_what_run_fetches() -> None:
    bp = build(plain_frame, 3)
    for depth, frames in (("deep", 3), ("shallow", 1)):
        x, _, out = bp.graphs[depth]
        loss = mean_square(bp.graphs[depth])
        feed = bp.generate_feed_dict(depth, plain_sequences(frames), 2)
        definitions = bp.generate_output_definitions(depth)
        outputs, value, again, *state = bp.run([out, loss, x, *definitions], feed)
        assert outputs.shape == (frames, 1, 1)
        assert isinstance(value, float)
        np.testing.assert_array_equal(again.ravel(), plain_sequences(frames)[0])
        assert value == pytest.approx(np.mean((outputs.ravel() - plain_sequences(frames)[1]) ** 2))
        assert [array.shape for array in state] == [(3, 1), (3, 1)]


def test_run_asks_only_for_what_it_needs() -> None:
    bp = build(plain_frame, 3)
    _, y, out = bp.graphs["deep"]
    feed = bp.generate_feed_dict("deep", plain_sequences(3), 1)  # no target
    assert y not in feed
    (outputs,) = bp.run([out], feed)
    full = bp.generate_feed_dict("deep", plain_sequences(3), 2)
    assert_identical(outputs, bp.run([out], full)[0])


def test_a_loss_appended_after_the_first_run() -> None:
    """Another program of the same trace: same weights, same state."""
    bp = build(plain_frame, 3)
    _, y, out = bp.graphs["deep"]
    feed = bp.generate_feed_dict("deep", plain_sequences(3), 2)
    (outputs,) = bp.run([out], feed)
    mean = bptt.reduce_mean(bptt.abs(out - y))
    (value,) = bp.run([mean], feed)
    assert value == pytest.approx(np.abs(outputs.ravel() - plain_sequences(3)[1]).mean())


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("frames", [1, 4])
def test_the_same_window_twice_gives_the_same_gradients(frames: int, lanes: int) -> None:
    """What a window left in memory is not added to, in whatever way a gradient begins."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((2, lanes)), bp.placeholder((3, lanes))
        deep = bptt.layers.dense(bp, x, 5, activation=bptt.tanh)
        deep = bptt.layers.dense(bp, deep, 4, activation=bptt.tanh)
        slow = bp.get_past_variable("slow", np.zeros((4, 1)))
        slow = bptt.layers.dense(bp, bptt.tanh(slow + deep), 4, name="inside")
        slow = bp.name_variable("slow", slow)
        return x, y, bptt.layers.dense(bp, bptt.layers.rnn(bp, slow, 6), 3)

    bp = bptt.BPTT(seed=4, dtype="float64")
    loss = mean_square(bp.generate_graphs(frame, num_loops=frames)["deep"])
    rng = np.random.default_rng(1)
    draw_weights(bp, rng)
    draw_state(bp, rng)
    data = [rng.normal(size=(frames, n, lanes)) for n in (2, 3)]
    feed = bp.generate_feed_dict("deep", data, 2)
    first, again = (gradients_of_everything(bp, loss, feed) for _ in range(2))
    assert all(np.abs(gradient).max() > 0 for gradient in first.values() if gradient.size)
    for name, gradient in first.items():
        assert_identical(again[name], gradient)
