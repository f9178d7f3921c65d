"""Resets and masks inside a window: lanes that begin anew, and lanes where there is no frame.

Held against the numpy oracle, against finite differences, and against what they stand for: the
sequences run one by one.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
import frames
import oracle
from bptt import _core
from rounding import assert_identical

T, LANES = 7, 4
Frame = Callable[[Any, str, Any], Any]


def lstm(peephole: str | None, **form: Any) -> Frame:
    def frame(bp: Any, depth: str, f: Any) -> Any:
        x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
        c, h = f.layers.lstm(bp, x, 3, peephole=peephole, **form)
        return x, y, f.layers.dense(bp, h, 1) + f.reduce_mean(c, axis=0)

    return frame


def stacked_rnn(bp: Any, depth: str, f: Any) -> Any:
    x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
    h = f.layers.rnn(bp, x, 3, output=True)
    return x, y, f.layers.rnn(bp, h, 1)


def written_lstm(bp: Any, depth: str, f: Any) -> Any:
    """Equations 7 to 11 of Graves 2013 from primitives; W_co meets the new cell in the cycle."""
    x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
    h, c = (bp.get_past_variable(name, np.full((3, 1), 0.3)) for name in ("h", "c"))

    def gate(name: str, cell: Any) -> Any:
        return (
            bp.get_variable(f"W_x{name}", (3, 2)) @ x
            + bp.get_variable(f"W_h{name}", (3, 3)) @ h
            + bp.get_variable(f"W_c{name}", (3, 3)) @ cell
            + bp.get_variable(f"b_{name}", (3, 1))
        )

    i, forget = f.sigmoid(gate("i", c)), f.sigmoid(gate("f", c))
    new = bp.name_variable("c", forget * c + i * f.tanh(gate("c", c)))
    out = f.sigmoid(gate("o", new)) * f.tanh(new)
    bp.name_variable("h", out)
    return x, y, f.layers.dense(bp, out, 1)


def both_sides(bp: Any, depth: str, f: Any) -> Any:
    """Values at t and at t-1 meet, in the cycle and after it, and with weights between them."""
    x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
    past = bp.get_past_variable("h", np.linspace(-1, 1, 2 * LANES).reshape(2, LANES))
    decay = bp.get_variable("decay", (2, 1))
    h = bp.name_variable("h", decay * past + x)  # one operation reads and writes the state
    again = bp.get_past_variable("again", np.zeros((2, 1)))
    bp.name_variable("again", f.tanh(bp.get_variable("W", (2, 2)) @ h + again))
    difference = h - past
    head = bp.get_variable("V", (1, 2)) @ difference + bp.get_variable("U", (1, 2)) @ past
    return x, y, f.tanh(head) + f.reduce_sum(again, axis=0)


def delays(bp: Any, depth: str, f: Any) -> Any:
    """x at t-1 and t-2, noise in between, and a state that all lanes share."""
    x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
    one, two = (bp.get_past_variable(name, np.full((2, 1), 0.7)) for name in ("one", "two"))
    bp.name_variable("one", x)
    bp.name_variable("two", one)
    shared = bp.get_past_variable("shared", np.full((1, 1), 0.2))
    noise = bp.random_normal((2, LANES))
    mean = f.reduce_mean(x + 0.1 * noise, axis=(0, 1))
    bp.name_variable("shared", 0.5 * shared + mean)
    W = bp.get_variable("W", (1, 2))
    return x, y, noise, f.tanh(W @ x - W @ one + W @ f.square(two)) * (1 + shared)


def learned(bp: Any, depth: str, f: Any) -> Any:
    """Starting values that are weights, or made of weights, for all lanes or for each."""
    x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
    one = bp.get_past_variable("one", bp.get_variable("start", (3, 1)))
    each = bp.get_past_variable("each", f.tanh(2.0 * bp.get_variable("starts", (2, LANES))))
    h = bp.name_variable("one", f.tanh(bp.get_variable("W", (3, 3)) @ one + x[0:1]))
    bp.name_variable("each", 0.5 * each + x)
    return x, y, bp.get_variable("V", (1, 3)) @ h + f.reduce_mean(each, axis=0)


def dropped(kind: str, **options: Any) -> Frame:
    """Options of a layer that draw numbers and carry masks."""

    def frame(bp: Any, depth: str, f: Any) -> Any:
        x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
        made = getattr(f.layers, kind)(bp, x, 3, **options)
        return x, y, f.layers.dense(bp, made[1] if kind == "lstm" else made, 1)

    return frame


def gru(reset: str) -> Frame:
    def frame(bp: Any, depth: str, f: Any) -> Any:
        x, y = bp.placeholder((2, LANES)), bp.placeholder((1, LANES))
        return x, y, f.layers.dense(bp, f.layers.gru(bp, x, 3, reset=reset), 1)

    return frame


FRAMES: dict[str, Frame] = {
    "gru, after": gru("after"),
    "gru, before": gru("before"),
    "lstm": lstm(None),
    "lstm, full": lstm("full"),
    "lstm, diagonal": lstm("diagonal"),
    "lstm, coupled": lstm("full", coupled=True),
    "lstm, projected": lstm(None, projection=2),
    "lstm, projected, diagonal": lstm("diagonal", projection=2),
    "lstm, normalised": lstm(None, layer_norm=True),
    "rnn, dropped": dropped("rnn", dropout=0.4, recurrent_dropout=0.3, initial_state="learned"),
    "gru, zoned": dropped("gru", zoneout=0.3, recurrent_dropout=0.3),
    "lstm, zoned": dropped("lstm", zoneout=(0.5, 0.2), initial_state="learned"),
    "rnns": stacked_rnn,
    "written lstm": written_lstm,
    "both sides": both_sides,
    "delays": delays,
    "learned": learned,
}
every_frame = pytest.mark.parametrize("name", FRAMES)


def loss_of(f: Any, x: Any, y: Any, *seen: Any) -> Any:
    out = seen[-1]
    return f.reduce_mean(f.square(out - y)) + 0.1 * f.reduce_sum(f.square(out))


class Net:
    """One of the frames, with weights, state and a window of data."""

    def __init__(self, name: str, dtype: str = "float64", seed: int = 0, num_loops: int = T):
        self.frame = FRAMES[name]
        self.bp = bptt.BPTT(seed=seed, dtype=dtype)
        traced = lambda bp, depth: self.frame(bp, depth, bptt)  # noqa: E731
        self.symbols = self.bp.generate_graphs(traced, num_loops=num_loops)["deep"]
        self.loss = loss_of(bptt, *self.symbols)
        self.rng = np.random.default_rng(seed)
        frames.draw_weights(self.bp, self.rng)
        frames.draw_state(self.bp, self.rng)
        self.data = [self.rng.normal(size=(T, features, LANES)) for features in (2, 1)]

    def noise(self) -> list[bptt.Symbol]:
        """What is random in a frame, in the order of the calls."""
        trace = self.bp._net.trace("deep")
        drawn = [node for node in trace.graph.nodes if node.operation in ("normal", "uniform")]
        return [
            bptt.Symbol(trace, node.outputs[0], trace.graph.shape(node.outputs[0]))
            for node in drawn
        ]

    def feed(self, **rows: Any) -> Any:
        return self.bp.generate_feed_dict("deep", self.data, 2, **rows)

    def gradients(self, **rows: Any) -> dict[str, np.ndarray]:
        return frames.gradients_of_everything(self.bp, self.loss, self.feed(**rows))

    def value(self, **rows: Any) -> float:
        feed = self.feed(**rows)
        state = self.bp._net.states["deep"]
        before = state.frame  # the same noise each time
        (loss,) = self.bp.run([self.loss], feed)
        state.frame = before
        return float(loss)


def draw_rows(rng: np.random.Generator, kind: str) -> dict[str, np.ndarray]:
    """Some of everything: first and last frames, neighbours, all lanes at once, whole lanes."""
    resets, masks = rng.random((T, LANES)) < 0.3, rng.random((T, LANES)) > 0.3
    resets[rng.integers(T)] = True
    masks[rng.integers(T)] = False
    masks[:, rng.integers(LANES)] = rng.random() < 0.5
    return {"resets": {"resets": resets}, "masks": {"masks": masks}}.get(
        kind, {"resets": resets, "masks": masks}
    )


def test_no_rows_are_no_rows() -> None:
    net = Net("lstm")
    none = {"resets": np.zeros((T, LANES), bool), "masks": np.ones((T, LANES), bool)}
    for name, gradient in net.gradients().items():
        assert_identical(net.gradients(**none)[name], gradient)


@every_frame
@pytest.mark.parametrize("kind", ["resets", "masks", "both"])
def test_the_oracle_agrees(name: str, kind: str) -> None:
    for seed in range(4):
        net = Net(name, seed=seed)
        rows = draw_rows(net.rng, kind)
        feed = net.feed(**rows)
        gradients = net.gradients(**rows)
        handles = net.bp.generate_output_definitions("deep")
        drawn = net.noise()
        loss, out, *values = net.bp.run([net.loss, net.symbols[-1], *drawn, *handles], feed)
        noise, state = values[: len(drawn)], values[len(drawn) :]
        expected = oracle.unroll(
            net.frame,
            loss_of,
            weights=dict(net.bp.parameters),
            state=dict(net.bp.state["deep"]),
            data=net.data,
            noise=noise,
            **rows,
        )
        assert loss == pytest.approx(expected.loss, rel=1e-10)
        valid = rows.get("masks", np.ones((T, LANES), bool))[:, None]
        close(np.where(valid, out, 0), np.where(valid, expected.outputs[-1], 0))
        for handle, value in zip(handles, state, strict=True):
            close(value, expected.state[handle.name])
        for weight, gradient in expected.gradients.items():
            close(gradients[weight], gradient)
        for past, gradient in expected.state_gradients.items():
            close(gradients[past], gradient)
        for symbol, gradient in zip(net.symbols, expected.placeholder_gradients, strict=False):
            close(gradients[symbol.name], gradient)


def close(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@every_frame
def test_finite_differences(name: str) -> None:
    net = Net(name)
    rows = draw_rows(net.rng, "both")
    gradients = net.gradients(**rows)
    for weight in net.bp.parameters:
        direction = net.rng.normal(size=net.bp.parameters[weight].shape)
        kept, step = net.bp.parameters[weight], 1e-6
        sides = []
        for sign in (1, -1):
            net.bp.parameters[weight] = kept + sign * step * direction
            sides.append(net.value(**rows))
        net.bp.parameters[weight] = kept
        slope = (sides[0] - sides[1]) / (2 * step)
        assert (gradients[weight] * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@every_frame
def test_the_same_bits_for_two_threads(name: str) -> None:
    alone, shared = Net(name), Net(name)
    shared.bp._net.team = _core.Team(2, 0)
    rows = draw_rows(alone.rng, "both")
    gradients = alone.gradients(**rows)
    for of, gradient in shared.gradients(**rows).items():
        assert_identical(gradient, gradients[of])


def test_a_window_of_padding_alone_needs_no_symbols() -> None:
    """Its loss is 0, and its state that before, whatever the padding is."""
    bp = bptt.BPTT(seed=0)

    def frame(bp: Any, depth: str) -> Any:
        word, symbol = bp.placeholder((1, 2)), bp.placeholder((1, 2))
        x = bptt.layers.embedding(bp, word, 5, 3)
        out = bptt.layers.dense(bp, bptt.layers.gru(bp, x, 3), 5)
        return bptt.reduce_mean(bptt.losses.softmax_cross_entropy(out, symbol))

    (loss,) = bp.generate_graphs(frame, num_loops=3)["deep"]
    data = [np.full((6, 1, 2), -1.0)] * 2
    data = [np.where(np.arange(6)[:, None, None] < 3, 2.0, array) for array in data]
    masks = np.repeat(np.arange(6) < 3, 2).reshape(6, 2)
    train = bp.minimize(loss, bptt.Adam(0.1))
    history = bp.fit(train, data, masks=masks)
    assert history.loss[0] > 0
    assert history.loss[1] == 0
    assert train.steps == 1


def test_a_learned_start_gets_the_gradient_of_resets_alone() -> None:
    net = Net("learned")
    assert not net.gradients()["start"].any()
    resets = np.zeros((T, LANES), dtype=bool)
    resets[3, 1] = True
    gradients = net.gradients(resets=resets)
    assert gradients["start"].all()
    assert gradients["starts"][:, 1].all()
    assert not gradients["starts"][:, [0, 2, 3]].any()


@pytest.mark.parametrize("named", ["placeholder", "noise", "weighed"])
def test_what_is_held_passes_the_gradient_on(named: str) -> None:
    """Where the new value has a gradient to pass on to its makers, and where it has none."""
    bp = bptt.BPTT(dtype="float64", seed=0)

    def frame(bp: Any, depth: str) -> Any:
        x, w = bp.placeholder((1, 1)), bp.get_variable("w", (1, 1), bptt.initializers.ones)
        d = bp.get_past_variable("d", bp.get_variable("start", (1, 1), bptt.initializers.zeros))
        made = {"placeholder": x, "noise": bp.random_normal((1, 1)), "weighed": w * x}
        bp.name_variable("d", made[named])
        return x, 2 * d

    _, d = bp.generate_graphs(frame, num_loops=4)["deep"]
    loss, data = bptt.reduce_sum(d), [np.array([10.0, 20.0, 30.0, 40.0])]
    for reset in range(4):
        for masks in itertools.product([False, True], repeat=4):
            resets = np.arange(4)[:, None] == reset
            feed = bp.generate_feed_dict(
                "deep", data, 1, resets=resets, masks=np.array(masks)[:, None]
            )
            # A start is seen from the reset on until the first valid frame has made another value.
            seen = 0.0
            for valid in masks[reset:]:
                seen += 2.0 * valid
                if valid:
                    break
            assert bp.gradients(loss, feed)["start"] == seen


def test_a_learned_start_is_in_the_checkpoint(tmp_path: Path) -> None:
    net = Net("learned")
    net.bp.save(tmp_path / "net")
    frame = lambda bp, depth: net.frame(bp, depth, bptt)  # noqa: E731
    loaded = bptt.load(tmp_path / "net", frame)
    loaded.reset_state("deep")
    net.bp.reset_state("deep")
    assert_identical(loaded.starting_constants["one"], net.bp.starting_constants["one"])
    for name, value in net.bp.state["deep"].items():
        assert_identical(loaded.state["deep"][name], value)


def test_resets_refuse_a_checkpoint_with_other_starting_values(tmp_path: Path) -> None:
    def frame(start: float) -> Any:
        def traced(bp: Any, depth: str) -> Any:
            x = bp.placeholder((1, 2))
            past = bp.get_past_variable("h", np.full((1, 1), start))
            return bp.name_variable("h", x + past)

        return traced

    bp = bptt.BPTT()
    bp.generate_graphs(frame(0.5), num_loops=T)
    bp.save(tmp_path / "net")
    data, resets = [np.zeros((2, 1, 2))], np.ones((2, 2), bool)
    same = bptt.load(tmp_path / "net", frame(0.5)).predict(data, resets=resets)
    assert (same == 0.5).all()
    other = bptt.load(tmp_path / "net", frame(0.25))
    went_on = other.predict(data)
    assert (went_on == 0.5).all()
    with pytest.raises(bptt.UsageError, match="checkpoint"):
        other.predict(data, resets=resets)


def test_a_learned_start_is_where_the_state_begins() -> None:
    net = Net("learned")
    start = net.bp.parameters["start"]
    np.testing.assert_array_equal(net.bp.starting_constants["one"], start)
    net.bp.reset_state("deep")
    np.testing.assert_array_equal(net.bp.state["deep"]["one"], np.tile(start, (1, LANES)))


# No lane depends on another, and no frame on its place in the sequence.
SEPARABLE = [name for name in FRAMES if not re.search("delays|dropped|zoned", name)]


@pytest.mark.parametrize("name", SEPARABLE)
def test_resets_are_sequences_run_one_by_one(name: str) -> None:
    """Outputs, state and the sum of gradients: three sequences in a lane, and three windows."""
    net = Net(name)
    if name == "learned":
        net.bp.parameters["starts"] = np.tile(net.bp.parameters["starts"][:, :1], (1, LANES))
    resets = np.zeros((T, LANES), dtype=bool)
    cuts = [0, 2, 5, T]
    resets[cuts[:-1]] = True
    total = bptt.reduce_sum(bptt.square(net.symbols[-1] - net.symbols[1]))
    feed = net.feed(resets=resets)
    handles = net.bp.generate_output_definitions("deep")
    whole, *states = net.bp.run([net.symbols[-1], *handles], feed)
    gradients = net.bp.gradients(total, feed)
    sums = {weight: np.zeros_like(g) for weight, g in gradients.items()}
    for begin, end in itertools.pairwise(cuts):
        alone = Net(name, num_loops=end - begin)
        for weight in net.bp.parameters:
            alone.bp.parameters[weight] = net.bp.parameters[weight]
        data = [x[begin:end] for x in net.data]
        first = np.zeros((end - begin, LANES), dtype=bool)
        first[0] = True
        feed = alone.bp.generate_feed_dict("deep", data, 2, resets=first)
        handles = alone.bp.generate_output_definitions("deep")
        out, *last = alone.bp.run([alone.symbols[-1], *handles], feed)
        close(whole[begin:end], out)
        loss = bptt.reduce_sum(bptt.square(alone.symbols[-1] - alone.symbols[1]))
        for weight, gradient in alone.bp.gradients(loss, feed).items():
            sums[weight] += gradient
    for weight, gradient in sums.items():
        close(gradients[weight], gradient)
    for value, expected in zip(states, last, strict=True):
        close(value, expected)


@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_leaks_through_a_reset(name: str, dtype: str) -> None:
    """Whatever came before in the lane, every bit after is the same."""
    seen = []
    for shift in (0.0, 3.0):
        net = Net(name, dtype)
        resets = np.zeros((T, LANES), dtype=bool)
        resets[3, 1] = resets[4, 2] = True
        net.data[0][:3, :, 1] += shift
        for state in net.bp.state["deep"]:
            moved = net.bp.state["deep"][state]
            moved[:, 1] += shift
            net.bp.state["deep"][state] = moved
        handles = net.bp.generate_output_definitions("deep")
        out, *state = net.bp.run([net.symbols[-1], *handles], net.feed(resets=resets))
        seen.append([out[3:], *state])
        resets[3, 1] = False
        other, *_ = net.bp.run([net.symbols[-1], *handles], net.feed(resets=resets))
        assert (other[3:, :, 1] != out[3:, :, 1]).any() or name == "lstm"
    for one, other in zip(*seen, strict=True):
        assert_identical(one, other)


@every_frame
def test_a_masked_tail_is_a_shorter_sequence(name: str) -> None:
    net, short = Net(name), Net(name, num_loops=4)
    masks = np.ones((T, LANES), dtype=bool)
    masks[4:] = False
    for kind, amount in (("x", 3e300), ("y", -1e308)):  # nothing of what is there is looked at
        net.data["xy".index(kind)][4:] = amount
    handles = net.bp.generate_output_definitions("deep")
    loss, *state = net.bp.run([net.loss, *handles], net.feed(masks=masks))
    feed = short.bp.generate_feed_dict("deep", [x[:4] for x in net.data], 2)
    expected, *last = short.bp.run(
        [short.loss, *short.bp.generate_output_definitions("deep")], feed
    )
    assert loss == pytest.approx(expected, rel=1e-12)
    for one, other in zip(state, last, strict=True):
        close(one, other)
    net, short = Net(name), Net(name, num_loops=4)
    feed = short.bp.generate_feed_dict("deep", [x[:4] for x in net.data], 2)
    net.data[0][4:], net.data[1][4:] = 3e300, -1e308
    shorter = short.bp.gradients(short.loss, feed)
    for weight, gradient in net.bp.gradients(net.loss, net.feed(masks=masks)).items():
        close(gradient, shorter[weight])


@every_frame
def test_without_a_valid_frame_nothing_happens(name: str) -> None:
    net = Net(name)
    train = net.bp.minimize(net.loss, bptt.Adam(0.1))
    weights, state = dict(net.bp.parameters), dict(net.bp.state["deep"])
    masks = np.zeros((T, LANES), dtype=bool)
    history = net.bp.fit(train, net.data, steps=2, masks=masks)
    assert history.loss.tolist() == [0.0, 0.0]
    assert train.steps == 0
    assert net.bp.next_frame == 2 * T % len(net.data[0])
    assert net.bp.evaluate(net.loss, net.data, masks=masks) == 0.0
    for name in weights:
        assert_identical(net.bp.parameters[name], weights[name])
    for name in state:
        assert_identical(net.bp.state["deep"][name], state[name])


@every_frame
def test_fit_is_its_windows(name: str) -> None:
    """The rows are walked along with the data, around the end as well."""
    one, other = Net(name, num_loops=5), Net(name, num_loops=5)
    rows = draw_rows(one.rng, "both")
    trains = [net.bp.minimize(net.loss, bptt.Adam(0.01)) for net in (one, other)]
    history = one.bp.fit(trains[0], one.data, steps=4, start=3, **rows)
    for window, loss in enumerate(history.loss):
        frames_of = (3 + 5 * window + np.arange(5)) % T
        feed = other.bp.generate_feed_dict(
            "deep",
            [x[frames_of] for x in other.data],
            2,
            **{key: row[frames_of] for key, row in rows.items()},
        )
        handles = other.bp.generate_output_definitions("deep")
        _, value, *state = other.bp.run([trains[1], other.loss, *handles], feed)
        other.bp.save_output_state("deep", state)
        assert loss == value
    for weight in one.bp.parameters:
        assert_identical(one.bp.parameters[weight], other.bp.parameters[weight])


@pytest.mark.parametrize("name", SEPARABLE)  # noise differs between the modes
def test_streams_do_as_windows_do(name: str) -> None:
    net = Net(name)
    rows = draw_rows(net.rng, "both")
    net.bp.copy_state_forward()
    out = net.bp.run(net.symbols[-1], net.feed(**rows))
    streamed = net.bp.predict(net.data[:1], **rows)
    valid = rows["masks"][:, None]
    close(np.where(valid, streamed, 0), np.where(valid, out, 0))
    net.bp.copy_state_forward()
    again = [
        net.bp.step(x, reset=reset) for x, reset in zip(net.data[0], rows["resets"], strict=True)
    ]
    alone = net.bp.run(net.symbols[-1], net.feed(resets=rows["resets"]))
    close(np.array(again), alone)


def test_a_step_resets_by_one_row() -> None:
    """Of as many as there are lanes, and it says so."""
    net = Net("both sides", num_loops=3)
    lanes = net.data[0].shape[2]
    for reset in ([True] * (lanes + 1), [[True] * lanes]):
        with pytest.raises(bptt.ShapeError, match=rf"reset has .* expected \({lanes},\)$"):
            net.bp.step(net.data[0][0], reset=reset)


def test_evaluate_weights_windows_by_their_valid_frames() -> None:
    net = Net("both sides", num_loops=3)
    mean = bptt.reduce_mean(bptt.square(net.symbols[-1] - net.symbols[1]))
    rows = draw_rows(net.rng, "both")
    whole = Net("both sides")
    expected = whole.bp.run(
        bptt.reduce_mean(bptt.square(whole.symbols[-1] - whole.symbols[1])), whole.feed(**rows)
    )
    assert net.bp.evaluate(mean, net.data, **rows) == pytest.approx(expected, rel=1e-12)


def test_every_window_value_leaves_masked_frames_out() -> None:
    """Over the core's own list: what is made of all frames does not look at masked ones."""
    found = []
    for operation in _core.operations():
        bp = bptt.BPTT(dtype="float64")
        shapes = operation.examples[0].inputs
        if operation.sequence or len(shapes) != 1:
            continue

        def frame(bp: Any, depth: str, shape: Any = shapes[0]) -> Any:
            return bp.placeholder(shape), bp.name_variable("s", bp.get_past_variable("s", [[0.0]]))

        x, _ = bp.generate_graphs(frame, num_loops=4)["deep"]
        (result,) = x.trace.append(operation.name, x, **operation.examples[0].attributes)
        if result.extent != "window":
            continue
        found.append(operation.name)
        data = np.random.default_rng(0).uniform(0.1, 1, (4, *shapes[0]))
        masks = np.ones((4, shapes[0][1]), dtype=bool)
        masks[2:] = False
        values = []
        for other in (1.0, 1e300):
            data[2:] = other
            feed = bp.generate_feed_dict("deep", [data], 1, masks=masks)
            values.append(bp.run(result, {key: feed[key] for key in (x, bp.MASKS)}))
        assert values[0] == values[1]
    assert {"window_sum", "window_mean"} <= set(found)


def test_resume_is_bit_for_bit(tmp_path: Any) -> None:
    net = Net("written lstm", num_loops=3)
    rows = draw_rows(net.rng, "both")
    train = net.bp.minimize(net.loss, bptt.Adam(0.01))
    net.bp.fit(train, net.data, steps=4, **rows)
    net.bp.save(tmp_path / "net")
    traced = lambda bp, depth: net.frame(bp, depth, bptt)  # noqa: E731
    loaded = bptt.load(tmp_path / "net", traced)
    again = loaded.minimize(loss_of(bptt, *loaded.graphs["deep"]), bptt.Adam(0.01))
    one = net.bp.fit(train, net.data, steps=5, start=net.bp.next_frame, **rows)
    other = loaded.fit(again, net.data, steps=5, start=loaded.next_frame, **rows)
    assert_identical(one.loss, other.loss)
