"""The high-level path: the same net as a frame written by hand, and what is done around it."""

import dataclasses
import json

import numpy as np
import pytest

import bptt
from bptt import checkpoint
from rounding import assert_identical

T, BATCH, WINDOW = 23, 3, 5  # the last window of an epoch has 3 frames


def data(frames=T, batch=BATCH, seed=0):
    """The input of two frames ago, and its square: ``(time, batch, features)``."""
    x = np.random.default_rng(seed).uniform(-1, 1, (frames, batch, 2))
    past = np.concatenate([np.zeros((2, batch, 2)), x[:-2]])
    return x, np.concatenate([past[..., :1], past[..., 1:] ** 2], axis=2)


def net(**options):
    return bptt.Sequential([bptt.LSTM(4), bptt.GRU(3), bptt.RNN(3), bptt.Dense(2)], **options)


def fitted(**options):
    made = net(seed=3)
    made.fit(*data(), **{"epochs": 2, "window": WINDOW, **options})
    return made


def by_hand(bp, depth):
    x, y = bp.placeholder((2, BATCH), "x"), bp.placeholder((2, BATCH), "y")
    h = bptt.layers.gru(bp, bptt.layers.lstm(bp, x, 4)[1], 3)
    return x, y, bptt.layers.dense(bp, bptt.layers.rnn(bp, h, 3), 2)


def weights(made):
    return {name: made.bptt.parameters[name] for name in made.bptt.parameters}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_the_frame_written_by_hand(dtype):
    x, y = data(frames=20)
    made = net(seed=3, dtype=dtype)
    history = made.fit(
        x, y, epochs=3, window=WINDOW, optimizer=bptt.Adam(0.01), clip=bptt.ClipByValue(0.1)
    )

    bp = bptt.BPTT(seed=3, dtype=dtype)
    _, target, out = bp.generate_graphs(by_hand, num_loops=WINDOW)["deep"]
    loss = bptt.reduce_mean(bptt.square(out - target))
    train = bp.minimize(loss, bptt.Adam(0.01), clip=bptt.ClipByValue(0.1))
    turned = [x.swapaxes(1, 2), y.swapaxes(1, 2)]
    for epoch in range(3):
        bp.reset_state("deep")
        losses = bp.fit(train, turned).loss
        assert history["loss"][epoch] == pytest.approx(losses.mean(), rel=1e-6)
    for name in bp.parameters:
        assert_identical(made.bptt.parameters[name], bp.parameters[name])
    bp.reset_state("deep")
    assert made.evaluate(x, y) == bp.evaluate(loss, turned)
    assert_identical(made.predict(x), bp.predict(turned[:1]).swapaxes(1, 2))


def test_the_tail_is_trained_on():
    """Every frame counts: an epoch is what windows of these lengths are, one after the other."""
    x, y = data()
    made, other = net(seed=3, dtype="float64"), net(seed=3, dtype="float64")
    history = made.fit(x, y, epochs=1, window=WINDOW)
    other.fit(x[:20], y[:20], epochs=1, window=WINDOW)  # the tail is missing here
    _, target, out = other.bptt.graphs["deep"]
    tail = bptt.BPTT(seed=3, dtype="float64")
    tail.generate_graphs(by_hand, num_loops=3)
    for name in tail.parameters:
        tail.parameters[name] = other.bptt.parameters[name]
    for name in tail.state["deep"]:
        tail.state["deep"][name] = other.bptt.state["deep"][name]
    _, target, out = tail.graphs["deep"]
    loss = bptt.reduce_mean(bptt.square(out - target))
    turned = [x[20:].swapaxes(1, 2), y[20:].swapaxes(1, 2)]
    whole = net(seed=3, dtype="float64").fit(x[:20], y[:20], epochs=1, window=WINDOW)["loss"][0]
    assert history["loss"][0] == pytest.approx((20 * whole + 3 * tail.evaluate(loss, turned)) / 23)
    # the fifth update of Adam, from the moments of four
    feed = tail.generate_feed_dict("deep", turned, 2)
    gradient = tail.gradients(loss, feed)
    train = other._training[1].core
    for name, g in gradient.items():
        m = 0.9 * train.get_moment("m", name) + 0.1 * g
        v = 0.999 * train.get_moment("v", name) + 0.001 * g**2
        rate = 1e-3 * np.sqrt(1 - 0.999**5) / (1 - 0.9**5)
        expected = tail.parameters[name] - rate * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(made.bptt.parameters[name], expected, rtol=1e-9, atol=1e-12)


def test_learns():
    x, y = data(frames=400, batch=2)
    made = bptt.Sequential([bptt.LSTM(12), bptt.Dense(2)], seed=0)
    options = {"epochs": 40, "window": 20, "optimizer": bptt.Adam(0.02)}
    history = made.fit(x, y, **options, clip=bptt.ClipByGlobalNorm(1.0))
    assert history["loss"].shape == (40,)
    unseen = data(frames=300, batch=5, seed=1)
    assert made.evaluate(*unseen) < 0.02 < 0.1 * unseen[1].var()
    error = np.square(made.predict(unseen[0]) - unseen[1]).mean()
    assert made.evaluate(*unseen) == pytest.approx(error, rel=1e-4)


def test_a_projection_is_what_goes_on():
    made = bptt.Sequential([bptt.LSTM(5, projection=2), bptt.LSTM(2, coupled=True)])
    made.fit(*data(), epochs=1)
    assert made.bptt.parameters["lstm_layer_0/W_rm"].shape == (2, 5)
    assert made.bptt.parameters["lstm_layer_1/W_xi"].shape == (2, 2)
    assert "lstm_layer_1/W_xf" not in made.bptt.parameters
    assert made.predict(data()[0]).shape == (T, BATCH, 2)


def test_what_is_random_is_known():
    """A share of 0 is none, of a pair as well."""
    assert not bptt.LSTM(3, zoneout=0).random
    assert not bptt.LSTM(3, zoneout=(0.0, 0.0)).random
    assert not bptt.LSTM(3, zoneout=[0, 0]).random
    assert bptt.LSTM(3, zoneout=(0.0, 0.1)).random
    assert bptt.GRU(3, zoneout=0.1).random
    assert bptt.RNN(3, dropout=0.1).random


def test_what_is_left_out_at_random_is_not_in_the_evaluation(tmp_path):
    x, y = data(frames=30)
    kept = {"initial_state": "learned", "recurrent_dropout": 0.3}
    layers = [
        bptt.LSTM(6, layer_norm=True, epsilon=1e-3, zoneout=(0.5, 0.1), dropout=0.2, **kept),
        bptt.GRU(5, zoneout=0.1),
        bptt.RNN(5, dropout=0.1),
        bptt.Dense(2),
    ]
    made = bptt.Sequential(layers, dtype="float64")
    history = made.fit(x, y, epochs=4, window=7, validation=(x, y))
    error = np.square(made.predict(x) - y).mean()
    assert made.evaluate(x, y) == pytest.approx(error, rel=1e-12)
    assert made.evaluate(x, y) == history["validation_loss"].min()
    assert {"lstm_layer_0/cell_start", "lstm_layer_0/gain_hf"} <= set(made.bptt.parameters)
    assert "hidden-mask-0" in made.bptt.state["deep"]
    made.save(tmp_path / "net")
    again = bptt.Sequential.load(tmp_path / "net")
    assert again.layers == made.layers
    assert_identical(again.predict(x), made.predict(x))
    for net in (made, again):
        net.fit(x, y, epochs=1, window=7)
    assert_identical(again.predict(x), made.predict(x))


def test_symbols_and_logits():
    """A repeating text of three symbols, to be continued."""
    text = np.array([0, 1, 0, 2] * 50)[:, None, None]
    made = bptt.Sequential([bptt.Embedding(3, 4), bptt.GRU(8), bptt.Dense(3)], seed=0)
    rate = bptt.schedules.cosine(0.05, steps=100)
    options = {"loss": "softmax_cross_entropy", "optimizer": bptt.RMSProp(rate), "window": 15}
    history = made.fit(text[:-1], text[1:], epochs=6, **options)
    assert history["loss"][-1] < 0.2 < 0.5 < history["loss"][0]
    assert (made.predict(text[:-1]).argmax(axis=2) == text[1:, :, 0])[10:].all()


@pytest.mark.parametrize("batch", [1, BATCH, 7])
def test_other_batches_give_the_same(batch):
    made = fitted()
    x, y = data(frames=11, batch=7, seed=5)
    got = made.predict(x[:, :batch])
    np.testing.assert_allclose(got, made.predict(x)[:, :batch], rtol=1e-5, atol=1e-6)
    assert made.evaluate(x[:, :batch], y[:, :batch]) == pytest.approx(
        np.square(got - y[:, :batch]).mean(), rel=1e-5
    )
    before = made.predict(x)
    made.fit(*data(), epochs=1, window=WINDOW)  # the nets of other batches follow
    np.testing.assert_allclose(
        made.predict(x)[:, :batch], made.predict(x[:, :batch]), rtol=1e-5, atol=1e-6
    )
    assert abs(made.predict(x) - before).max() > 1e-4
    assert made.bptt.graphs["deep"][0].shape == (2, BATCH)


@pytest.mark.parametrize("lanes", [1, BATCH])
def test_a_stream_equals_predict(lanes):
    made = fitted()
    x, _ = data(frames=9, batch=lanes, seed=6)
    expected = made.predict(x)
    stream, other = made.stream(lanes), made.stream(lanes)
    other(x[3])
    made.fit(*data(), epochs=1, window=WINDOW)  # does not change it
    assert_identical(np.stack([stream(frame) for frame in x]), expected)
    stream.reset()
    assert_identical(stream(x[0]), expected[0])
    stream.reset(lanes - 1)  # the others go on
    assert_identical(stream(x[0])[-1], expected[0][-1])
    if lanes == 1:
        stream.reset()
        assert_identical(stream(x[0, 0]), expected[0, 0])


def test_a_bptt_of_its_own():
    made = fitted()
    x, _ = data(frames=6, batch=2, seed=6)
    bp = made.with_lanes(2)
    expected = made.predict(x)
    made.fit(*data(), epochs=1, window=WINDOW)
    assert_identical(bp.predict([x.swapaxes(1, 2)]).swapaxes(1, 2), expected)
    assert bp.graphs["shallow"][0].shape == (2, 2)


def test_windows_and_settings_change():
    """Another window, batch or optimiser is another BPTT with the same weights."""
    made = fitted()
    x, y = data(batch=2, seed=1)
    before = weights(made)
    for options in ({"window": 7}, {"optimizer": bptt.Adam(0.1)}, {"loss": _absolute}):
        made.fit(x, y, epochs=0, **options)
        for name, values in weights(made).items():
            assert_identical(values, before[name])
    assert made.evaluate(x, y) == pytest.approx(abs(made.predict(x) - y).mean(), rel=1e-5)


def _absolute(output, target):
    return bptt.reduce_mean(bptt.abs(output - target))


def test_called_again_it_goes_on():
    once, twice = fitted(epochs=4), fitted(epochs=2)
    twice.fit(*data(), epochs=2, window=WINDOW)
    for name, values in weights(once).items():
        assert_identical(twice.bptt.parameters[name], values)


def test_the_best_weights_are_kept():
    """With a rate that is far too large the loss goes up again; what is left is the least."""
    made = net(seed=0)
    held = data(frames=31, batch=1, seed=9)
    options = {"window": WINDOW, "optimizer": bptt.Adam(0.3), "validation": held}
    history = made.fit(*data(), epochs=30, patience=3, **options)
    losses = history["validation_loss"]
    best = int(losses.argmin())
    assert len(losses) == len(history["loss"]) == best + 1 + 3 < 30
    assert made.evaluate(*held) == losses[best]
    assert losses[best] < losses[-1]

    same = net(seed=0)
    assert_identical(same.fit(*data(), epochs=best + 1, **options)["validation_loss"], losses[:-3])
    for name, values in weights(same).items():
        assert_identical(made.bptt.parameters[name], values)


def test_the_best_weights_are_kept_when_it_fails(monkeypatch):
    made = net(seed=0)
    evaluate, losses = made.evaluate, []

    def failing(*arguments):
        if len(losses) == 2:
            raise KeyboardInterrupt
        losses.append(evaluate(*arguments))
        return losses[-1]

    monkeypatch.setattr(made, "evaluate", failing)
    with pytest.raises(KeyboardInterrupt):
        made.fit(*data(), epochs=9, optimizer=bptt.Adam(0.5), window=WINDOW, validation=data(9))
    assert evaluate(*data(9)) == min(losses) < losses[-1]


def test_saved_and_loaded_it_goes_on(tmp_path):
    path = tmp_path / "net.safetensors"
    made = fitted(clip=bptt.ClipByValue(0.5))
    made.notes["columns"] = ["a", "b"]
    made.save(path)
    back = bptt.Sequential.load(path)
    assert back.layers == made.layers
    assert back.notes == made.notes
    assert_identical(back.predict(data()[0]), made.predict(data()[0]))
    assert back.evaluate(*data()) == made.evaluate(*data())
    options = {"epochs": 2, "window": WINDOW, "clip": bptt.ClipByValue(0.5)}
    histories = [each.fit(*data(), **options)["loss"] for each in (made, back)]
    assert_identical(*histories)
    for name, values in weights(made).items():
        assert_identical(back.bptt.parameters[name], values)
    bp = bptt.load(path, by_hand)  # it is a checkpoint like others
    assert {*bp.parameters} == {*made.bptt.parameters}


def test_a_loss_that_no_file_holds(tmp_path):
    made = fitted(loss=_absolute)
    made.save(tmp_path / "net")
    back = bptt.Sequential.load(tmp_path / "net")
    with pytest.raises(bptt.UsageError, match="loss="):
        back.evaluate(*data())
    assert back.evaluate(*data(), loss=_absolute) == made.evaluate(*data())


def test_files_that_hold_no_sequential(tmp_path):
    made, path = fitted(), tmp_path / "net"
    made.bptt.save(path)
    with pytest.raises(bptt.CheckpointError, match="frame function"):
        bptt.Sequential.load(path)
    made.save(path)
    saved = checkpoint.read(str(path))
    good = saved.about["architecture"]
    lstm, *rest = good["layers"]
    for changed, message in (
        ({"features": 0}, "features"),
        ({"batch": 10**12}, "describes no net|memory|GiB"),
        ({"layers": []}, "one layer"),
        ({"layers": 5}, "layers"),
        ({"layers": [{**lstm, "kind": "BPTT"}, *rest]}, "kind is RNN"),
        ({"layers": [{**lstm, "depth": 1}, *rest]}, "depth"),
        ({"layers": [{**lstm, "width": -1}, *rest]}, "features, batch"),
        ({"layers": [{**lstm, "peephole": "half"}, *rest]}, "peephole"),
        ({"layers": [{**lstm, "width": 5}, *rest]}, "another frame"),
        ({"loss": "none"}, "loss"),
        ({"notes": None}, "notes"),
    ):
        about = {**saved.about, "architecture": {**good, **changed}}
        path.write_bytes(checkpoint.encode(about, saved.tensors))
        with pytest.raises(bptt.CheckpointError, match=message):
            bptt.Sequential.load(path)
    path.write_bytes(checkpoint.encode({**saved.about, "architecture": 5}, saved.tensors))
    with pytest.raises(bptt.CheckpointError, match="architecture"):
        bptt.Sequential.load(path)


def test_what_cannot_be_saved(tmp_path):
    made = bptt.Sequential([bptt.Dense(2, bptt.exp)])
    with pytest.raises(bptt.UsageError, match="no data"):
        made.save(tmp_path / "net")
    made.fit(*data(), epochs=0)
    with pytest.raises(bptt.UsageError, match="activation"):
        made.save(tmp_path / "net")
    made = fitted()
    for notes in ({"a": np.ones(2)}, {"a": np.nan}, {5: 1}, {"a": (1, 2)}):
        made.notes = notes
        with pytest.raises(bptt.UsageError, match="notes"):
            made.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_layers_are_plain_values():
    assert bptt.LSTM(np.int64(4)) == bptt.LSTM(4)
    assert bptt.Dense(2, bptt.tanh) == bptt.Dense(2, "tanh")
    for layer in (
        bptt.RNN(2, "relu"),
        bptt.LSTM(3, "full", projection=np.int16(2)),
        bptt.GRU(2, "before"),
        bptt.Dense(1),
        bptt.Embedding(np.int8(3), 2),
    ):
        assert bptt.specs.layer(json.loads(json.dumps(layer.described()))) == layer
        with pytest.raises(dataclasses.FrozenInstanceError):
            layer.width = 3
    for name in ("tanh", "sigmoid", "relu"):
        a, b = (bptt.Sequential([bptt.Dense(2, v)]) for v in (name, getattr(bptt, name)))
        a.fit(*data(), epochs=1)
        b.fit(*data(), epochs=1)
        assert_identical(a.predict(data()[0]), b.predict(data()[0]))
    assert repr(bptt.Sequential([bptt.RNN(2)])) == "Sequential([RNN(width=2, activation='tanh')])"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": data()[0]}, "pair"),
        ({"validation": (data()[0], data()[1][:-1])}, "differ in time"),
        ({"validation": (data()[0][..., :1], data()[1])}, "the x of validation has 1 features"),
        ({"patience": 2}, "needs validation"),
        ({"loss": "absolute"}, "loss"),
        ({"loss": lambda output, target: output}, "window value"),
    ],
)
def test_refused_before_anything_is_trained(options, message):
    made = fitted()
    before = weights(made)
    with pytest.raises(bptt.BpttError, match=message):
        made.fit(*data(), **options)
    for name, values in weights(made).items():
        assert_identical(values, before[name])


def test_data_that_do_not_fit():
    made = fitted()
    x, y = data()
    for use in (
        lambda: made.fit(x, y[:-1]),
        lambda: made.fit(x, y[:, :1]),
        lambda: made.fit(x[..., :1], y),
        lambda: made.evaluate(x, y[..., :1]),
        lambda: made.predict(x[0]),
        lambda: made.predict(x[:0]),
        lambda: made.stream()(x[0]),
        lambda: made.stream(2)(x[0, 0]),
    ):
        with pytest.raises(bptt.ShapeError):
            use()


def test_no_data_yet():
    for use in (
        lambda made: made.predict(data()[0]),
        lambda made: made.evaluate(*data()),
        lambda made: made.stream(),
        lambda made: made.with_lanes(),
        lambda made: made.bptt,
    ):
        with pytest.raises(bptt.UsageError, match="no data"):
            use(net())


def test_a_bar_is_drawn_on_a_terminal_alone(capsys):
    fitted()
    assert capsys.readouterr().err == ""
