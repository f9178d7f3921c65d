"""What is seen inside a net: gradients by frames back, states and gates over time."""

from unittest import mock

import numpy as np
import pytest

import bptt
import frames as written
from bptt import layers, plot
from rounding import assert_identical

T, FEATURES, WIDTH, BATCH = 9, 2, 3, 2
RNG = np.random.default_rng(7)
DATA = [RNG.normal(size=(31, FEATURES, BATCH)), RNG.normal(size=(31, 1, BATCH))]


def framed(cell, batch=BATCH, **options):
    """A frame around a layer of `bptt.layers`, or around the same cell from primitives."""

    def frame(bp, depth):
        x, y = bp.placeholder((FEATURES, batch)), bp.placeholder((1, batch))
        made = cell(bp, x, WIDTH, **options)
        h = made[-1] if isinstance(made, tuple) else made
        return x, y, layers.dense(bp, h, 1)

    return frame


def net(frame, weights=None):
    bp = bptt.BPTT(seed=3, dtype="float64")
    _, y, out = bp.generate_graphs(frame, num_loops=T)["deep"]
    rng = np.random.default_rng(11)
    for name in bp.parameters:
        value = rng.normal(scale=0.6, size=bp.parameters[name].shape)
        bp.parameters[name] = value if weights is None else weights[name]
    for depth in bp.state:
        for name in bp.state[depth]:
            start = np.random.default_rng(5).normal(size=bp.state[depth][name].shape)
            bp.state[depth][name] = start
    return bp, bptt.reduce_mean(bptt.square(out - y))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_hand(bp, data, start, last, nudge):
    """The loss of the last frames of a window, the equations written out.

    `nudge` adds to a state at a frame, where it was computed: {(name, t): (features, batch)}.
    """
    p = {name.rpartition("/")[2]: value for name, value in bp.parameters.items()}
    state = {name: bp.state["deep"][name] for name in bp.state["deep"]}
    total = 0.0
    for t in range(T):
        x, y = (array[start + t] for array in data)
        h = state["hidden-0"]

        def gate(k, c, x=x, h=h):
            z = p[f"W_x{k}"] @ x + p[f"W_h{k}"] @ h + p[f"b_{k}"]
            return z if f"W_c{k}" not in p else z + p[f"W_c{k}"] @ c

        if "cell-0" in state:
            c = state["cell-0"]
            i, f, g = sigmoid(gate("i", c)), sigmoid(gate("f", c)), np.tanh(gate("c", c))
            c = state["cell-0"] = f * c + i * g + nudge.get(("cell-0", t), 0.0)
            h = sigmoid(gate("o", c)) * np.tanh(c)
        else:
            h = np.tanh(p["W_ax"] @ x + p["W_aa"] @ h + p["b_a"])
        h = state["hidden-0"] = h + nudge.get(("hidden-0", t), 0.0)
        if t >= T - last:
            total += np.square(p["W"] @ h + p["b"] - y).sum()
    return total / (last * BATCH)


@pytest.mark.parametrize(
    ("cell", "options"),
    [(layers.rnn, {}), (layers.lstm, {}), (layers.lstm, {"peephole": "full"})],
    ids=["rnn", "lstm", "full-peepholes"],
)
@pytest.mark.parametrize(("start", "last"), [(0, 1), (4, 3)])
def test_norms_are_those_of_finite_differences(cell, options, start, last):
    bp, loss = net(framed(cell, **options))
    norms = bp.gradient_norms(loss, DATA, start=start, last=last)
    assert list(norms) == sorted(bp.state["deep"])
    step = 1e-6
    for name, found in norms.items():
        assert found.shape == (T, BATCH)
        expected = np.zeros((T, WIDTH, BATCH))
        for place in np.ndindex(expected.shape):
            back, unit, lane = place
            push = np.zeros((WIDTH, BATCH))
            push[unit, lane] = step
            at = (name, T - 1 - back)
            up, down = (by_hand(bp, DATA, start, last, {at: s * push}) for s in (1, -1))
            expected[place] = (up - down) / (2 * step)
        np.testing.assert_allclose(found, np.linalg.norm(expected, axis=1), rtol=1e-6, atol=1e-9)


LAYERS = {**written.CELLS, **{f"{name}_dropped": v for name, v in written.DROPPED.items()}}


def layer(name, form):
    """The cell of `bptt.layers`, or the same from primitive operations."""
    return lambda bp, x, width: LAYERS[name](form, bp, x, width, 0)


def both(name, batch=BATCH):
    """A net with each, of the same weights and states, and its loss."""
    bp, loss = net(framed(layer(name, "fused"), batch))
    return (bp, loss), net(framed(layer(name, "primitive"), batch), bp.parameters)


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("name", list(LAYERS))
def test_norms_of_fused_cells_are_those_of_primitives(name, batch):
    data = [array[..., :batch] for array in DATA]
    norms, its = (bp.gradient_norms(loss, data, last=2) for bp, loss in both(name, batch))
    assert list(norms) == list(its)
    for state in norms:
        np.testing.assert_allclose(norms[state], its[state], rtol=1e-9)
        assert (norms[state] > 0).all() or "relu" in name or "dropped" in name


@pytest.mark.parametrize("name", list(written.CELLS))
def test_gates_of_fused_cells_are_those_of_primitives(name):
    """Every sigmoid and tanh that the cell from primitives calls is a gate of the fused one."""
    made = {"sigmoid": [], "tanh": []}

    def noting(bp, x, width):
        for calls in made.values():
            calls.clear()

        def noted(kind, function):
            return lambda v: made[kind].append(function(v)) or made[kind][-1]

        with (
            mock.patch.object(bptt, "sigmoid", noted("sigmoid", bptt.sigmoid)),
            mock.patch.object(bptt, "tanh", noted("tanh", bptt.tanh)),
        ):
            return layer(name, "primitive")(bp, x, width)

    bp, _ = net(framed(layer(name, "fused")))
    other, _ = net(framed(noting), bp.parameters)
    kind = name.partition("_")[0]
    names = {
        "rnn": [],
        "gru": [("r", "sigmoid"), ("z", "sigmoid"), ("n", "tanh")],
        "lstm": [("i", "sigmoid"), ("f", "sigmoid"), ("o", "sigmoid"), ("g", "tanh")],
    }[kind]
    if "coupled" in name:
        names.remove(("f", "sigmoid"))
    expected = {
        f"{kind}_layer_0/{gate}": made[which][[w for _, w in names[:place]].count(which)]
        for place, (gate, which) in enumerate(names)
    }
    states = {state: bp.state["shallow"][state] for state in bp.state["shallow"]}
    seen = bp.record(DATA[:1])
    assert set(seen) == {*states, *expected}
    its = other.record(DATA[:1], {**expected}) | other.record(DATA[:1], [*states])
    for value, each in seen.items():
        assert each.shape[0] == len(DATA[0])
        np.testing.assert_allclose(each, its[value], rtol=1e-9, atol=1e-12, err_msg=value)
    for state, before in states.items():  # it was a look
        assert_identical(bp.state["shallow"][state], before)


@pytest.mark.parametrize("width", [1, 3, 16, 37])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5])
def test_gates_make_the_state(width, dtype, batch):
    """Of any number of units, in whole panels and in part: h and c follow from the gates."""

    def frame(bp, depth):
        x = bp.placeholder((2, batch))
        _, h = layers.lstm(bp, x, width, peephole="diagonal", layer_index=4)
        for reset in ("after", "before"):
            h = layers.gru(bp, h, width, reset=reset)
        return x, h

    bp = bptt.BPTT(seed=2, dtype=dtype)
    bp.generate_graphs(frame, num_loops=3)
    seen = bp.record([RNG.normal(size=(12, 2, batch))])
    past = {name: np.zeros_like(seen[name]) for name in bp.state["deep"]}
    for name, values in past.items():
        values[1:] = seen[name][:-1]
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-15}
    i, f, g, o = (seen[f"lstm_layer_4/{gate}"] for gate in "ifgo")
    np.testing.assert_allclose(seen["cell-4"], f * past["cell-4"] + i * g, **close)
    np.testing.assert_allclose(seen["hidden-4"], o * np.tanh(seen["cell-4"]), **close)
    for layer in (5, 6):
        z, n = (seen[f"gru_layer_{layer}/{gate}"] for gate in "zn")
        h = past[f"hidden-{layer}"]
        np.testing.assert_allclose(seen[f"hidden-{layer}"], (1 - z) * n + z * h, **close)


def test_a_state_without_gradient_is_there_if_it_is_asked_for():
    bp, loss = net(framed(layers.gru, recurrent_dropout=0.2))
    assert set(bp.state["deep"]) == {"hidden-0", "hidden-mask-0"}
    assert list(bp.gradient_norms(loss, DATA)) == ["hidden-0"]
    norms = bp.gradient_norms(loss, DATA, "*")
    assert list(norms) == ["hidden-0", "hidden-mask-0"]
    assert_identical(norms["hidden-mask-0"], np.zeros((T, BATCH)))


def test_what_is_recorded_is_chosen_by_patterns_and_symbols():
    bp, _ = net(framed(layers.lstm))
    x, _, out = bp.graphs["shallow"]
    gates = [f"lstm_layer_0/{gate}" for gate in "ifgo"]
    assert list(bp.record(DATA[:1])) == ["cell-0", "hidden-0", *gates]
    assert list(bp.record(DATA[:1], "lstm_layer_0/*")) == gates
    assert list(bp.record(DATA[:1], ["*/o", "hidden*"])) == ["hidden-0", gates[3]]
    seen = bp.record(DATA[:1], {"in": x, "what comes out": out})
    assert_identical(seen["in"], DATA[0])
    assert_identical(seen["what comes out"], bp.predict(DATA[:1]))
    assert bp.record(DATA[:1], {}) == {}


def test_records_are_as_predict_goes_with_resets_and_masks():
    bp, _ = net(framed(layers.gru))
    resets = RNG.random((31, BATCH)) < 0.2
    masks = RNG.random((31, BATCH)) < 0.8
    seen = bp.record(DATA[:1], resets=resets, masks=masks)
    past = bp.state["shallow"]["hidden-0"]
    for t in range(31):
        past = np.where(resets[t], 0.0, past)
        z, n = (seen[f"gru_layer_0/{gate}"][t] for gate in "zn")
        past = np.where(masks[t], (1 - z) * n + z * past, past)
        np.testing.assert_allclose(seen["hidden-0"][t], past, rtol=1e-12)


def test_the_deep_graph_is_recorded_with_its_noise():
    """Frame by frame, from the deep state, as one window of all frames has it."""

    def frame(bp, depth):
        x = bp.placeholder((FEATURES, BATCH))
        noisy = x + bp.random_normal(x.shape) if depth == bp.DEEP else x
        return x, layers.gru(bp, noisy, WIDTH)

    bp = bptt.BPTT(seed=3, dtype="float64")
    _, h = bp.generate_graphs(frame, num_loops=31)["deep"]
    seen = bp.record(DATA[:1], "hidden-0", depth="deep")["hidden-0"]
    again = bp.record(DATA[:1], "hidden-0", depth="deep")["hidden-0"]
    assert_identical(seen, again)  # the counter of noise stood still
    np.testing.assert_allclose(
        seen, bp.run(h, bp.generate_feed_dict("deep", DATA[:1], 1)), rtol=1e-12
    )
    assert not np.allclose(seen, bp.record(DATA[:1], "hidden-0")["hidden-0"])


def test_norms_are_drawn_as_they_are():
    pytest.importorskip("matplotlib")
    norms = np.array([[0.5, 2.0], [0.25, 1.0], [0.125, 0.5], [0.0, 0.25]])
    ax = plot.gradient_norms({"hidden-0": norms, "cell-0": np.full((4, 1), 3.0)})
    assert ax.get_yscale() == "log"
    hidden, cell = ax.get_lines()
    assert_identical(hidden.get_xdata(), np.arange(3))  # a zero has no logarithm
    np.testing.assert_allclose(hidden.get_ydata(), [1.0, 0.5, 0.25])
    np.testing.assert_allclose(cell.get_ydata(), np.full(4, 3.0))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["hidden-0: ×0.50 a frame", "cell-0: ×1.00 a frame"]
    (shade,) = ax.collections
    np.testing.assert_allclose(shade.get_paths()[0].vertices[:, 1].min(), 0.125)
    plot.gradient_norms({"gone": np.zeros((4, 2))})


def test_states_are_lines_or_a_heat_map_of_one_lane():
    pytest.importorskip("matplotlib")
    few, many = RNG.normal(size=(20, 3, 2)), RNG.normal(size=(20, 12, 2))
    figure = plot.states({"few": few, "many": many}, lane=1)
    lines, _, heat, scale = figure.axes
    assert [ax.get_title("left") for ax in (lines, heat)] == ["few", "many"]
    for unit, line in enumerate(lines.get_lines()):
        assert_identical(line.get_ydata(), few[:, unit, 1])
    (image,) = heat.get_images()
    assert_identical(np.asarray(image.get_array()), many[:, :, 1].T)
    assert image.get_clim() == (-np.abs(many[:, :, 1]).max(), np.abs(many[:, :, 1]).max())
    assert heat.get_xlabel() == "frame"
    assert scale.get_ylim() == image.get_clim()


def test_gates_are_heat_maps_on_scales_that_do_not_move():
    pytest.importorskip("matplotlib")
    bp, _ = net(framed(layers.lstm))
    seen = bp.record(DATA[:1], "lstm_layer_0/*")
    figure = plot.gates(seen)
    images = [ax.get_images()[0] for ax in figure.axes[::2]]
    for image, (name, each) in zip(images, seen.items(), strict=True):
        assert_identical(np.asarray(image.get_array()), each[:, :, 0].T)
        assert image.get_clim() == ((-1.0, 1.0) if name.endswith("/g") else (0.0, 1.0))
