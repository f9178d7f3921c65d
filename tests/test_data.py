"""Datasets: what a plain loop over each sequence does, in as many lanes as a net has."""

import copy
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bptt
from bptt import blocks
from bptt.data import Chunks, Lanes, Sequences
from rounding import assert_identical, assert_rounding

T = 5


class Net:
    """An LSTM of so many lanes, trained by plain gradient descent."""

    def __init__(self, lanes: int, num_loops: int = T, reduction: Any = None, noise: float = 0.0):
        def frame(bp: Any, depth: str) -> Any:
            x, y = bp.placeholder((2, lanes), "x"), bp.placeholder((1, lanes), "y")
            seen = x + noise * bp.random_normal(x.shape) if noise else x
            _, h = bptt.layers.lstm(bp, seen, 3)
            return x, y, bptt.layers.dense(bp, h, 1)

        self.frame = frame
        self.bp = bptt.BPTT(seed=3, dtype="float64")
        _, y, out = self.bp.generate_graphs(frame, num_loops=num_loops)["deep"]
        self.out = out
        self.loss = (reduction or bptt.reduce_mean)(bptt.square(out - y))
        self.train = self.bp.minimize(self.loss, bptt.SGD(0.1, momentum=0.5))

    def weights(self) -> dict[str, np.ndarray]:
        return dict(self.bp.parameters)


def sequences(lengths: Any, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(n, 2)), rng.normal(size=(n, 1))) for n in lengths]


def as_lane(sequence: Any) -> list[np.ndarray]:
    return [part.reshape(len(part), -1, 1) for part in sequence]


@pytest.fixture(params=[2**22, 300], ids=["large blocks", "small blocks"])
def block(request: Any, monkeypatch: Any) -> None:
    """The same from blocks of a few windows."""
    monkeypatch.setattr(blocks, "BLOCK", request.param)


def same_weights(one: Net, other: Net) -> None:
    for name, weight in one.weights().items():
        assert_identical(weight, other.bp.parameters[name])


# ---- one lane: the plain loop


@pytest.mark.usefixtures("block")
def test_one_lane_is_a_loop_over_the_sequences() -> None:
    """Whole windows only: the same bits as `fit` on each sequence from the starting state."""
    data = sequences([10, 5, 20, 15])
    one, other = Net(1), Net(1)
    history = one.bp.fit(one.train, Sequences(data), epochs=2)
    losses = []
    for sequence in data * 2:
        other.bp.reset_state("deep")
        losses.append(other.bp.fit(other.train, as_lane(sequence)).loss)
    assert_identical(history.loss, np.concatenate(losses))
    same_weights(one, other)
    assert history.counted.tolist() == [T] * 20
    assert one.bp.next_window == (2, 0)


def test_lanes_are_sequences_side_by_side() -> None:
    """As with whole arrays ``(time, features, batch)``, the state reset before each epoch."""
    (recording,) = sequences([60])
    one, other = Net(3), Net(3)
    history = one.bp.fit(one.train, Lanes(recording), epochs=2)
    arrays = [part.reshape(3, 20, -1).transpose(1, 2, 0) for part in recording]
    losses = []
    for _ in range(2):
        other.bp.reset_state("deep")
        losses.append(other.bp.fit(other.train, arrays).loss)
    assert_identical(history.loss, np.concatenate(losses))
    same_weights(one, other)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("lanes", [1, 3])
def test_every_window_is_the_gradient_of_its_frames(lanes: int) -> None:
    """Lengths that fit nothing: the updates of a hand-written walk with its own rows, by `run`."""
    lengths = [7, 1, 13, 4, 2, 9]
    data = sequences(lengths)
    one, other = Net(lanes), Net(lanes)
    history = one.bp.fit(one.train, Sequences(data))

    ends, lines = [0] * lanes, [[] for _ in range(lanes)]
    for number, length in enumerate(lengths):
        lane = int(np.argmin(ends))  # that which is free first
        lines[lane] += [(number, t) for t in range(length)]
        ends[lane] += length
    frames = -(-max(ends) // T) * T
    x, y = np.zeros((frames, 2, lanes)), np.zeros((frames, 1, lanes))
    resets, masks = np.zeros((2, frames, lanes), dtype=bool)
    for lane, line in enumerate(lines):
        for at, (number, t) in enumerate(line):
            x[at, :, lane], y[at, :, lane] = data[number][0][t], data[number][1][t]
            resets[at, lane], masks[at, lane] = t == 0, True
    for window, loss in enumerate(history.loss):
        part = slice(window * T, window * T + T)
        feed = other.bp.generate_feed_dict(
            "deep", [x[part], y[part]], 2, resets=resets[part], masks=masks[part]
        )
        handles = other.bp.generate_output_definitions("deep")
        _, expected, *state = other.bp.run([other.train, other.loss, *handles], feed)
        other.bp.save_output_state("deep", state)
        assert loss == expected
        assert history.counted[window] == masks[part].sum()
    assert len(history.loss) == frames // T
    same_weights(one, other)


def test_blocks_make_no_difference(monkeypatch: Any) -> None:
    """Also where lanes meet, in frames that counted before: they stay what they were."""

    def frame(bp: Any, depth: str) -> Any:
        x, y = bp.placeholder((2, 3)), bp.placeholder((1, 3))
        past = bp.get_past_variable("common", np.zeros((1, 1)))
        mean = bptt.reduce_mean(bp.get_variable("W", (1, 2)) @ x, axis=(0, 1))
        h = bp.name_variable("common", bptt.tanh(past + mean))
        return x, y, bptt.layers.dense(bp, bptt.layers.rnn(bp, x, 3), 1) + h

    found = []
    for size in (1, 500, 2**22):
        monkeypatch.setattr(blocks, "BLOCK", size)
        bp = bptt.BPTT(dtype="float64")
        _, y, out = bp.generate_graphs(frame, num_loops=T)["deep"]
        train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.SGD(0.1))
        data = Sequences(sequences([7, 22, 9, 14, 6, 18, 5, 11]), shuffle=True)
        found.append(bp.fit(train, data, epochs=2, stride=2).loss)
    for each in found[1:]:
        assert_identical(each, found[0])


# ---- every frame counts once


def by_frame(bp: Any, depth: str, lanes: int) -> Any:
    """The loss is the sum of w[id], so its gradient says how often each frame counted."""
    x = bp.placeholder((1, lanes), "x")
    return x, bptt.layers.embedding(bp, x, 400, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_frame_counts_once(draw: Any) -> None:
    """Of any lengths, in any lanes, windows, strides and blocks, shuffled or not."""
    lanes, frames = draw.draw(st.integers(1, 4)), draw.draw(st.integers(1, 7))
    stride = draw.draw(st.integers(1, frames))
    kind = draw.draw(st.sampled_from(["sequences", "lanes", "chunks", "generated"]))
    burn_in = draw.draw(st.integers(0, 8)) if kind in ("sequences", "lanes") else 0
    lengths = draw.draw(st.lists(st.integers(burn_in + 1, 30), min_size=1, max_size=8))
    ids = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    expected = np.ones(sum(lengths), dtype=int)
    dataset: Any
    if kind == "lanes":
        dataset = Lanes([np.arange(sum(lengths))], burn_in=burn_in)
    elif kind == "chunks":
        lane_ids = np.arange(sum(lengths))[:, None] * lanes + np.arange(lanes)
        parts = np.split(lane_ids, np.cumsum(lengths)[:-1])
        dataset = Chunks([[part.reshape(-1, 1, lanes)] for part in parts])
        expected = np.ones(lane_ids.size, dtype=int)
    elif kind == "generated":
        dataset = Sequences(lambda: ([each] for each in ids))
    else:
        shuffle = draw.draw(st.booleans())
        dataset = Sequences([[each] for each in ids], shuffle=shuffle, burn_in=burn_in)
        for each in ids:
            expected[each[:burn_in]] = 0
    if expected.size > 400:
        return
    bp = bptt.BPTT(dtype="float64")
    bp.generate_graphs(lambda bp, depth: by_frame(bp, depth, lanes), num_loops=frames)
    value = bp.graphs["deep"][-1]
    name = next(iter(bp.parameters))
    before = bp.parameters[name].copy()
    train = bp.minimize(bptt.reduce_sum(value), bptt.SGD(1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", draw.draw(st.sampled_from([1, 500, 2**22])))
        history = bp.fit(train, dataset, stride=stride)
    counts = np.rint(before - bp.parameters[name]).astype(int).ravel()[: expected.size]
    np.testing.assert_array_equal(counts, expected)
    assert history.counted.sum() == expected.sum()
    assert (history.counted > 0).all()


# ---- no sequence knows of another


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("burn_in", [0, 3])
def test_state_does_not_leak(burn_in: int) -> None:
    """Another sequence 1: the outputs for all others stay, and so do their gradients."""
    lengths = [11, 8, 5, 14, 6]
    data = sequences(lengths)
    changed = [*data]
    changed[1] = 100 * data[1][0], 100 * data[1][1]
    net = Net(1)
    one, other = (net.bp.predict(Sequences(each)) for each in (data, changed))
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        assert (a == b).all() == (number != 1)

    def gradient(weight_of_one: float, given: Any) -> dict[str, np.ndarray]:
        """With the loss of sequence 1 weighted."""
        marked = [
            (x, np.concatenate([y, np.full_like(y, weight_of_one if i == 1 else 1.0)], axis=1))
            for i, (x, y) in enumerate(given)
        ]

        def frame(bp: Any, depth: str) -> Any:
            x, y = bp.placeholder((2, 2)), bp.placeholder((2, 2))
            _, h = bptt.layers.lstm(bp, x, 3)
            return x, y, bptt.layers.dense(bp, h, 1)

        bp = bptt.BPTT(seed=3, dtype="float64")
        _, y, out = bp.generate_graphs(frame, num_loops=4)["deep"]
        loss = bptt.reduce_sum(y[1:2] * bptt.square(out - y[0:1]))
        train = bp.minimize(loss, bptt.SGD(1e-9))  # the weights stay, to rounding
        before = dict(bp.parameters)
        bp.fit(train, Sequences(marked, burn_in=burn_in))
        return {name: (before[name] - bp.parameters[name]) * 1e9 for name in before}

    expected, got = gradient(0.0, data), gradient(0.0, changed)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-5)
    other_loss = gradient(1.0, data)
    assert any(abs(other_loss[name] - expected[name]).max() > 1e-2 for name in expected)


# ---- burn-in


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("stride", [T, 2])
def test_burn_in_has_no_gradient(stride: int) -> None:
    """The update is that of a window from a state held fixed, which the warm-up gave."""
    data = sequences([7 + T, 9])
    net, other = Net(2), Net(2)
    net.bp.fit(net.train, Sequences(data, burn_in=7), steps=1, stride=stride)

    x = np.zeros((7, 2, 2))
    for lane, (values, _) in enumerate(data):
        x[:, :, lane] = values[:7]
    warm = {name: values.copy() for name, values in other.bp.state["deep"].items()}
    for t in range(7):  # frame by frame, shallow
        other.bp.step(x[t])
        warm = {name: values.copy() for name, values in other.bp.state["shallow"].items()}
    feed_x, feed_y = np.zeros((T, 2, 2)), np.zeros((T, 1, 2))
    masks = np.zeros((T, 2), dtype=bool)
    for lane, (values, targets) in enumerate(data):
        count = min(len(values) - 7, stride)
        at = slice(T - stride, T - stride + count)
        feed_x[at, :, lane], feed_y[at, :, lane] = values[7 : 7 + count], targets[7 : 7 + count]
        masks[at, lane] = True
    feed = other.bp.generate_feed_dict("deep", [feed_x, feed_y], 2, masks=masks)
    for key in feed:
        if not isinstance(key, str) and key.name in warm:
            feed[key] = warm[key.name]
    gradients = other.bp.gradients(other.loss, feed)
    for name, before in other.weights().items():
        np.testing.assert_allclose(
            net.bp.parameters[name], before - 0.1 * gradients[name], rtol=1e-9, atol=1e-12
        )


def test_a_warm_up_of_lanes_is_the_recording_before_them() -> None:
    """Long enough it is the whole recording: all parts see what came before."""
    (recording,) = sequences([40])
    whole, cut = Net(1), Net(4)
    for name, weight in whole.weights().items():
        cut.bp.parameters[name] = weight
    expected = whole.bp.evaluate(whole.loss, as_lane(recording))
    assert cut.bp.evaluate(cut.loss, Lanes(recording, burn_in=40)) == pytest.approx(expected, 1e-12)
    assert cut.bp.evaluate(cut.loss, Lanes(recording)) != pytest.approx(expected, 1e-6)


def test_lanes_of_sequences_that_warm_up_wait_for_nobody() -> None:
    """Sequences of one length, all lanes at once: one run before, and no frame that is empty."""
    net = Net(2)
    history = net.bp.fit(net.train, Sequences(sequences([3 + 10] * 4), burn_in=3))
    assert history.counted.tolist() == [2 * T] * 4


# ---- evaluate and predict


@pytest.mark.usefixtures("block")
def test_evaluate_and_predict_are_those_of_each_sequence() -> None:
    data = sequences([7, 12, 3, 30, 1])
    net, one = Net(3), Net(1)
    one.bp.reset_state("deep")
    losses = [one.bp.evaluate(one.loss, as_lane(each)) for each in data]
    lengths = [len(x) for x, _ in data]
    before = {name: values.copy() for name, values in net.bp.state["shallow"].items()}
    mean = np.average(losses, weights=lengths)
    assert net.bp.evaluate(net.loss, Sequences(data)) == pytest.approx(mean, rel=1e-12)
    for dataset in (Sequences(data, shuffle=True), Sequences([(x,) for x, _ in data])):
        for got, (x, _) in zip(net.bp.predict(dataset), data, strict=True):
            one.bp.reset_state("shallow")
            expected = one.bp.predict([x.reshape(-1, 2, 1)])[:, :, 0]
            assert_rounding(got, expected)
    for name, values in net.bp.state["shallow"].items():
        assert_identical(values, before[name])
    x, y = data[3]
    one.bp.reset_state("shallow")
    assert_rounding(net.bp.predict(Lanes([x, y])), one.bp.predict([x[:, :, None]])[:, :, 0])
    several = net.bp.predict(Lanes([x]), outputs=[net.bp.graphs["shallow"][-1]])
    assert len(several) == 1


def test_an_epoch_s_mean_is_evaluate_s() -> None:
    """Weighted by what counted, losses without updates are the loss over the data."""
    data = sequences([7, 12, 3])
    net = Net(2)
    net.train.learning_rate = 1e-300
    history = net.bp.fit(net.train, Sequences(data))
    assert np.average(history.loss, weights=history.counted) == pytest.approx(
        net.bp.evaluate(net.loss, Sequences(data)), rel=1e-12
    )


# ---- shuffling, positions, checkpoints


def first_frames(dataset: Any, epochs: int) -> list[list[float]]:
    """The order in which sequences begin, by the first number of each."""
    orders = []
    for epoch in range(epochs):
        net = Net(1)
        windows = blocks.Windows.of(
            net.bp._net,
            net.bp._net.traces["deep"],
            [net.loss.id],
            net.bp._net.program(net.bp._net.traces["deep"], T, [net.loss.id], net.loss.id),
            T,
        )
        found = []
        for block in dataset.blocks(windows, epoch):
            for t in np.flatnonzero(block.rows["resets"][:, 0]):
                found.append(float(block.streams[0][t, 0, 0]))
        orders.append(found)
    return orders


def test_orders() -> None:
    data = sequences([3] * 8)
    first = [x[0, 0] for x, _ in data]
    assert first_frames(Sequences(data), 2) == [first, first]
    orders = first_frames(Sequences(data, shuffle=True, seed=1), 3)
    assert all(sorted(order) == sorted(first) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders == first_frames(Sequences(data, shuffle=True, seed=1), 3)
    assert orders != first_frames(Sequences(data, shuffle=True, seed=2), 3)


@pytest.mark.parametrize("stride", [T, 3])
@pytest.mark.parametrize(
    ("kind", "burn_in"), [("sequences", 0), ("sequences", 4), ("lanes", 4), ("chunks", 0)]
)
def test_a_run_goes_on_bit_for_bit(
    kind: str, burn_in: int, stride: int, tmp_path: Path, monkeypatch: Any
) -> None:
    """Cut anywhere, also in the middle of an epoch, with noise; each time into a checkpoint."""
    monkeypatch.setattr(blocks, "BLOCK", 300)  # of a few windows
    if kind == "sequences":
        dataset: Any = Sequences(sequences([9, 23, 6, 17, 11]), shuffle=True, burn_in=burn_in)
    elif kind == "lanes":
        dataset = Lanes(sequences([71])[0], burn_in=burn_in)
    else:
        x, y = (part.reshape(-1, part.shape[1], 2) for part in sequences([90])[0])
        edges = [0, 4, 11, 12, 40, 44]
        dataset = Chunks([(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)])
    whole, net = Net(2, noise=0.1), Net(2, noise=0.1)
    options: dict[str, Any] = {"stride": stride}
    expected = whole.bp.fit(whole.train, dataset, epochs=2, **options).loss
    path = tmp_path / "net"
    losses: list[np.ndarray] = []
    for steps in itertools.cycle([1, 2, 3]):
        steps = min(steps, len(expected) - sum(map(len, losses)))
        if not steps:
            break
        losses.append(net.bp.fit(net.train, dataset, steps, checkpoint=path, **options).loss)
        position = net.bp.next_window
        net.bp = bptt.load(path, net.frame)
        assert net.bp.next_window == position
        _, y, out = net.bp.graphs["deep"]
        net.loss = bptt.reduce_mean(bptt.square(out - y))
        net.train = net.bp.minimize(net.loss, bptt.SGD(0.1, momentum=0.5))
    assert_identical(np.concatenate(losses), expected)
    same_weights(whole, net)
    assert net.bp.next_window == whole.bp.next_window == (2, 0)


def test_steps_epochs_and_starts() -> None:
    data = sequences([10, 10, 10])
    dataset = Sequences(data)
    net = Net(1)
    assert net.bp.fit(net.train, dataset, epochs=0).loss.shape == (0,)
    assert net.bp.fit(net.train, dataset, steps=0).loss.shape == (0,)
    assert net.bp.next_window == (0, 0)
    assert net.bp.fit(net.train, dataset, steps=4).loss.shape == (4,)
    assert net.bp.next_window == (0, 4)
    assert net.bp.fit(net.train, dataset).loss.shape == (2,)  # the rest of the epoch
    assert net.bp.fit(net.train, dataset, steps=8).loss.shape == (8,)
    assert net.bp.next_window == (2, 2)
    assert net.bp.fit(net.train, dataset, start=(7, 0), epochs=2).loss.shape == (12,)
    assert net.bp.next_window == (9, 0)
    assert net.bp.next_frame == 0  # of arrays
    seen: list[int] = []
    history = net.bp.fit(
        net.train,
        dataset,
        epochs=5,
        every=4,
        callback=lambda step, loss: seen.append(step) or step == 8,
        metrics={"again": net.loss},
    )
    assert seen == [4, 8]
    assert history.stopped
    assert_identical(history["again"], history.loss)
    assert net.bp.next_window == (10, 2)


def test_a_position_is_of_one_dataset_and_one_stride(tmp_path: Path) -> None:
    """Inside an epoch another one is refused, with the net as it was; at its start it is not."""
    first, other = Lanes(sequences([80])[0]), Lanes(sequences([60], seed=1)[0])
    net, twin = Net(2), Net(2)
    for each in (net, twin):
        each.bp.fit(each.train, first, steps=3)
    for dataset, options in (
        (other, {}),
        (Lanes(sequences([80])[0]), {"steps": 1}),
        (first, {"stride": 2}),
        (first, {"stride": 2, "steps": 0}),
    ):
        with pytest.raises(bptt.UsageError, match=r"window 3 of epoch 0 .* start=\(0, 0\)"):
            net.bp.fit(net.train, dataset, **options)
    copied = copy.deepcopy(net.bp)
    _, y, out = copied.graphs["deep"]
    train = copied.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.SGD(0.1, momentum=0.5))
    with pytest.raises(bptt.UsageError, match="of another dataset"):
        copied.fit(train, other)
    same_weights(net, twin)
    assert net.train.steps == 3
    net.bp.save(tmp_path / "net")
    assert len(net.bp.fit(net.train, first, stride=T).loss) == 5  # to the end of the epoch
    assert_identical(copied.fit(train, first).loss, twin.bp.fit(twin.train, first).loss)
    same_weights(net, twin)
    assert len(net.bp.fit(net.train, other, steps=2).loss) == 2  # an epoch of its own
    assert net.bp.next_window == (1, 2)
    assert len(net.bp.fit(net.train, first, start=net.bp.next_window).loss) == 6
    net.bp.fit(net.train, first, steps=1)
    assert len(net.bp.fit(net.train, other, start=(2, 0), steps=1).loss) == 1
    assert len(net.bp.fit(net.train, other).loss) == 5

    loaded = bptt.load(tmp_path / "net", net.frame)  # anew, as in another process
    _, y, out = loaded.graphs["deep"]
    train = loaded.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.SGD(0.1, momentum=0.5))
    assert len(loaded.fit(train, Lanes(sequences([80])[0])).loss) == 5


@pytest.mark.parametrize("kind", ["sequences", "lanes", "chunks"])
@pytest.mark.parametrize("options", [{}, {"steps": 50}, {"epochs": 2}], ids=lambda given: [*given])
def test_a_start_behind_the_last_window_is_refused(kind: str, options: Any) -> None:
    """It is no epoch without windows: 40 frames of either lane are 8."""
    if kind == "chunks":
        x, y = (part.reshape(40, -1, 2) for part in sequences([80])[0])
        dataset: Any = Chunks([(x[:23], y[:23]), (x[23:], y[23:])])
    else:
        dataset = Lanes(sequences([80])[0]) if kind == "lanes" else Sequences(sequences([40] * 2))
    net = Net(2)
    for window in (8, 10**6):
        with pytest.raises(bptt.UsageError, match=rf"8 windows .* {window}; .* start=\(epoch, 0\)"):
            net.bp.fit(net.train, dataset, start=(4, window), **options)
    assert net.train.steps == 0
    assert net.bp.next_window == (0, 0)
    assert len(net.bp.fit(net.train, dataset, start=(4, 7)).loss) == 1


def test_an_interrupt_in_a_warm_up_leaves_no_trace(monkeypatch: Any) -> None:
    """What it computed is computed again: the run goes on as if nothing had happened."""
    dataset = Sequences(sequences([20, 20, 20, 20]), burn_in=11)
    whole, net = Net(2, noise=0.1), Net(2, noise=0.1)
    expected = whole.bp.fit(whole.train, dataset).loss
    losses = [net.bp.fit(net.train, dataset, steps=2).loss]
    monkeypatch.setattr(blocks, "BLOCK", 1)  # a warm-up of several blocks
    from bptt import training

    run, calls = training._run, itertools.count()

    def interrupted(*arguments: Any, **more: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return run(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            net.bp.fit(net.train, dataset)
    assert net.bp.next_window == (0, 2)
    losses.append(net.bp.fit(net.train, dataset).loss)
    assert_identical(np.concatenate(losses), expected)
    assert not [each for each in threading.enumerate() if "bptt-data" in each.name]


# ---- sources


class Recorded:
    """An array that lets itself be sliced, and remembers how much."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.read: list[tuple[int, int]] = []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, frames: slice) -> np.ndarray:
        assert isinstance(frames, slice)
        self.read.append((frames.start, frames.stop))
        return self.array[frames]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("it was read as a whole")


def test_only_what_is_needed_is_read(monkeypatch: Any) -> None:
    """Block by block, each frame once, and never further ahead than two blocks."""
    monkeypatch.setattr(blocks, "BLOCK", 4000)
    x, y = sequences([4000])[0]
    sources = [Recorded(x), Recorded(y)]
    net, other = Net(2), Net(2)
    largest = 4000 // (8 * 2 * 3 * T) * T  # frames of a lane in a block
    ahead: list[int] = []

    def callback(step: int, loss: float) -> bool:
        frames = sum(stop - start for start, stop in list(sources[0].read))
        ahead.append(frames // 2 - step * T)
        return False

    net.bp.fit(net.train, Lanes(sources), callback=callback, every=1)
    for source in sources:
        assert sorted(t for span in source.read for t in range(*span)) == list(range(4000))
        assert max(stop - start for start, stop in source.read) <= largest
    assert max(ahead) <= 3 * largest
    other.bp.fit(other.train, Lanes([x, y]))
    same_weights(net, other)
    dataset = Sequences([[Recorded(x[:30]), Recorded(y[:30])]])
    assert np.isfinite(net.bp.evaluate(net.loss, dataset))
    assert net.bp.predict(dataset)[0].shape == (30, 1)


def test_a_memory_map_is_an_array(tmp_path: Path) -> None:
    """Of another dtype, too; and only slices of it are seen in memory."""
    x, y = ((100 * part).astype(np.int16) for part in sequences([500])[0])
    maps = []
    for name, array in (("x", x), ("y", y)):
        np.save(tmp_path / name, array)
        maps.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    one, other = Net(3), Net(3)
    one.bp.fit(one.train, Lanes(maps))
    other.bp.fit(other.train, Lanes([x, y]))
    same_weights(one, other)


@pytest.mark.parametrize("size", [1, 3, 20, 100])
def test_chunks_are_one_array(size: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 2, 3)), rng.normal(size=(48, 1, 3))
    resets = rng.random((48, 3)) < 0.1
    for stride, marked in itertools.product((T, 2), (False, True)):
        one, other = Net(3), Net(3)

        def chunks(marked: bool = marked) -> Iterator[Any]:
            for at in range(0, 48, size):
                part = slice(at, at + size)
                yield (x[part], y[part], resets[part])[: 2 + marked]

        history = one.bp.fit(one.train, Chunks(chunks, resets=marked), stride=stride, epochs=2)
        rows = np.zeros((48 + T, 3), dtype=bool)
        rows[:48] = resets if marked else False
        rows[0] = True
        pad = (-48) % stride
        masks = np.arange(48 + pad) < 48
        padded = [
            np.concatenate([np.zeros((T - stride, *a.shape[1:])), a, a[:pad]]) for a in (x, y)
        ]
        rows = np.concatenate([np.zeros((T - stride, 3), bool), rows[: 48 + pad]])
        masks = np.concatenate([np.zeros(T - stride, bool), masks])
        losses = []
        for _ in range(2):
            losses.append(
                other.bp.fit(
                    other.train,
                    padded,
                    steps=(48 + pad) // stride,
                    start=0,
                    stride=stride,
                    resets=rows,
                    masks=np.repeat(masks[:, None], 3, axis=1),
                ).loss
            )
        assert_identical(history.loss, np.concatenate(losses))
        same_weights(one, other)
    net = Net(3)
    predicted = net.bp.predict(Chunks(chunks, resets=True))
    rows = resets | (np.arange(48) == 0)[:, None]
    assert_identical(predicted, net.bp.predict([x], resets=rows))


def test_sequences_one_by_one() -> None:
    """From a function in every epoch, from an iterator once, and only as far as is needed."""
    data = sequences([7, 30, 4, 9, 16, 2])
    asked: list[int] = []

    def generated() -> Iterator[Any]:
        for number, each in enumerate(data):
            asked.append(number)
            yield each

    one, other = Net(2), Net(2)
    listed = one.bp.fit(one.train, Sequences(data), epochs=2)
    assert_identical(other.bp.fit(other.train, Sequences(generated), epochs=2).loss, listed.loss)
    same_weights(one, other)
    assert asked == [*range(6)] * 2

    dataset = Sequences(iter(data))
    assert dataset.features == (2, 1)
    assert one.bp.fit(one.train, dataset).loss.shape == listed.loss[: len(listed.loss) // 2].shape
    with pytest.raises(bptt.UsageError, match="walked through before"):
        one.bp.fit(one.train, dataset)
    wide = [tuple(part[:, :, None].repeat(2, axis=2) for part in each) for each in data]
    with pytest.raises(bptt.UsageError, match=r"the chunks .* walked through before"):
        one.bp.fit(one.train, Chunks(iter(wide)), steps=99)


def test_an_error_of_the_user_s_own_comes_through() -> None:
    def broken() -> Iterator[Any]:
        yield sequences([40])[0]
        raise LookupError("the user's own")

    net = Net(1)
    with pytest.raises(LookupError, match="the user's own"):
        net.bp.fit(net.train, Sequences(broken))
    assert not [each for each in threading.enumerate() if "bptt-data" in each.name]


# ---- what is refused

X, Y = np.ones((6, 2)), np.ones((6, 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Sequences([]), bptt.UsageError, "no sequences"),
        (lambda: Sequences(iter([])), bptt.UsageError, "no sequences"),
        (lambda: Chunks([]), bptt.UsageError, "no chunks"),
        (lambda: Sequences([(X, Y), (X[:0], Y[:0])]), bptt.ShapeError, "sequence 1 has no frames"),
        (lambda: Sequences([(X, Y), (X, Y[:5])]), bptt.ShapeError, r"sequence 1 .*\[6, 5\]"),
        (
            lambda: Sequences([(X, Y), (X, X)]),
            bptt.ShapeError,
            r"sequence 1 has \(2, 2\) features, and sequence 0 \(2, 1\)",
        ),
        (lambda: Sequences([(X, Y)], burn_in=6), bptt.ShapeError, "none counts: burn_in is 6"),
        (lambda: Sequences([X, X]), bptt.UsageError, "sequence 0 is a list of arrays"),
        (lambda: Sequences(X), bptt.UsageError, "list of arrays"),
        (lambda: Sequences([(X,)]), bptt.UsageError, r"has 1 arrays; .*\('x', 'y'\)"),
        (lambda: Sequences([(X, Y, Y)]), bptt.UsageError, "has 3 arrays"),
        (lambda: Sequences([(Y, Y)]), bptt.ShapeError, r"shape \(6, 1\) for 'x'; .*\(time, 2\)"),
        (
            lambda: Sequences([(X[:, :, None], Y)]),
            bptt.ShapeError,
            r"\(time, features\), or \(time,\)",
        ),
        (lambda: Sequences([(X, X)]), bptt.ShapeError, r"'y'; expected \(time, 1\), or \(time,\)"),
        (lambda: Sequences(lambda: 5), bptt.UsageError, "returned 5"),
        (lambda: Sequences(iter([(X, Y)]), shuffle=True), bptt.UsageError, "shuffle takes a list"),
        (
            lambda: Lanes([np.where(np.arange(12) == 9, np.nan, 1).reshape(6, 2), Y]),
            bptt.NonFiniteError,
            "the recording has nan for 'x' at frame 4, feature 1; expected finite",
        ),
        (lambda: Chunks([(X[:, :, None], Y)]), bptt.ShapeError, "chunk 0 of the data for 'x'"),
        (lambda: Lanes([Short(X), Y]), bptt.ShapeError, "frames 0 to 3 have shape"),
    ],
)
def test_what_is_refused(make: Any, error: Any, message: str) -> None:
    """With the net as it was."""
    net, twin = Net(2), Net(2)
    with pytest.raises(error, match=message):
        net.bp.fit(net.train, make())
    same_weights(net, twin)
    with pytest.raises(error, match=message):
        net.bp.evaluate(net.loss, make())
    assert net.train.steps == 0


def test_an_array_of_sequences_is_refused_when_it_is_given() -> None:
    """As a list is; an array of objects is a list."""
    with pytest.raises(bptt.UsageError, match="sequence 0 is a list of arrays"):
        Sequences(np.zeros((4, 2, 3)))
    with pytest.raises(bptt.UsageError, match="no sequences"):
        Sequences(np.zeros((0, 2, 3)))
    pairs = np.empty(2, object)
    pairs[:] = [(X, Y), (X[:3], Y[:3])]
    assert Sequences(pairs, shuffle=True).features == (2, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(X, Y), (X[:3], Y[:3])], "bptt.data.Sequences"),  # as many as there are placeholders
        ([(X, Y), (X, Y)], "bptt.data.Sequences"),
        ([(X, Y)] * 3, "bptt.data.Sequences"),
        (Lanes, "Lanes is a class"),
    ],
)
def test_what_looks_like_a_dataset_is_told_which(data: Any, message: str) -> None:
    net = Net(2)
    for call in (
        lambda: net.bp.fit(net.train, data),
        lambda: net.bp.evaluate(net.loss, data),
        lambda: net.bp.predict(data),
        lambda: bptt.Sequential([bptt.RNN(3), bptt.Dense(1)]).fit(data),
    ):
        with pytest.raises((bptt.UsageError, bptt.ShapeError), match=message):
            call()


def test_nothing_else_is_told_so() -> None:
    net = Net(2)
    for data in ([], [[], []], [[1.0], [2.0]], [X, Y]):
        with pytest.raises((bptt.UsageError, bptt.ShapeError)) as caught:
            net.bp.fit(net.train, data)
        assert "Sequences" not in str(caught.value)
    with pytest.raises(bptt.UsageError, match=r"^y is missing: .* targets$"):
        bptt.Sequential([bptt.Dense(1)]).fit(np.ones((6, 1, 1)))


class Short(Recorded):
    """It gives fewer frames than it is asked for."""

    def __getitem__(self, frames: slice) -> np.ndarray:
        return super().__getitem__(frames)[:2]


def test_what_does_not_go_together(tmp_path: Path) -> None:
    net = Net(2)
    dataset = Sequences([(X, Y)])
    for options, message in (
        ({"resets": np.ones((6, 2), bool)}, "from the dataset itself"),
        ({"masks": np.ones((6, 2), bool)}, "from the dataset itself"),
        ({"steps": 1, "epochs": 1}, "not both"),
        ({"start": 3}, "a pair of epoch and window"),
        ({"start": (0, -1)}, "at least 0"),
    ):
        with pytest.raises(bptt.UsageError, match=message):
            net.bp.fit(net.train, dataset, **options)
    with pytest.raises(bptt.UsageError, match="arrays take steps"):
        net.bp.fit(net.train, [np.ones((6, 2, 2)), np.ones((6, 1, 2))], epochs=1)

    def mixed(bp: Any, depth: str) -> Any:
        x, common = bp.placeholder((2, 2)), bp.placeholder((1, 1))
        return x, common, x + common

    bp = bptt.BPTT()
    bp.generate_graphs(mixed)
    with pytest.raises(bptt.UsageError, match="each of the 2 lanes"):
        bp.predict(dataset)


# ---- nets of layers


def test_sequential_on_sequences() -> None:
    rng = np.random.default_rng(0)
    data = []
    for length in rng.integers(5, 60, 40):
        x = rng.normal(size=(length, 1))
        data.append((x, np.concatenate([[[0.0]], x[:-1]])))
    net = bptt.Sequential([bptt.LSTM(8), bptt.Dense(1)], seed=0)
    train, held = Sequences(data[:30], shuffle=True), Sequences(data[30:])
    options: dict[str, Any] = {"window": 16, "lanes": 4, "optimizer": bptt.Adam(0.02)}
    history = net.fit(train, epochs=25, validation=held, **options)
    assert history["validation_loss"][-1] < 0.2 * history["validation_loss"][0]
    assert net.bptt.graphs["deep"][0].shape == (1, 4)
    assert net.bptt.next_window == (25, 0)
    predicted = net.predict(held)
    error = sum(np.square(p - y).sum() for p, (_, y) in zip(predicted, data[30:], strict=True))
    loss = net.evaluate(held)
    assert loss == pytest.approx(error / sum(len(y) for _, y in data[30:]), rel=1e-4)
    assert_rounding(predicted[0], net.predict(data[30][0][:, None])[:, 0])
    net.fit(train, epochs=1, **options)  # goes on, with its moments
    assert net.bptt.next_window == (26, 0)
    with pytest.raises(bptt.UsageError, match="beside it"):
        net.fit(train, data[0][1])
    with pytest.raises(bptt.UsageError, match="two arrays"):
        net.fit(Sequences([(x,) for x, _ in data]))
    with pytest.raises(bptt.ShapeError, match="features"):
        net.evaluate(Sequences([(np.ones((5, 2)), np.ones((5, 1)))]))


def test_sequential_on_chunks() -> None:
    """With the axes that chunks have for every net, and as many lanes."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2, 4)), rng.normal(size=(20, 1, 4))
    chunks = Chunks([(x[:7], y[:7]), (x[7:], y[7:])])
    one, other = (bptt.Sequential([bptt.RNN(3), bptt.Dense(1)], dtype="float64") for _ in range(2))
    with pytest.raises(bptt.ShapeError, match=r"4 lanes, .* has 32, the lanes= of fit"):
        one.fit(chunks)
    history = one.fit(chunks, lanes=4, window=6, epochs=2)
    expected = other.fit(x.swapaxes(1, 2), y.swapaxes(1, 2), window=6, epochs=2)
    assert_rounding(history["loss"], expected["loss"])
    assert_rounding(one.predict(chunks), other.predict(x.swapaxes(1, 2)).swapaxes(1, 2))
    for call in (one.evaluate, one.predict):
        with pytest.raises(bptt.ShapeError, match="chunks have 3 lanes"):
            call(Chunks([(x[:, :, :3], y[:, :, :3])]))

    column = Chunks([(y[:, 0, 0], y[:, 0, 0])])  # of one feature and one lane, both left out
    assert np.isfinite(bptt.Sequential([bptt.RNN(1)]).fit(column, lanes=1)["loss"]).all()
