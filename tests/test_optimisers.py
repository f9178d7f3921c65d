"""Every optimiser against PyTorch's numbers; schedules, weight decay, frozen weights.

    pytest tests/test_optimisers.py -q -s      prints runs and largest differences

The runs were recorded in float64 by `data/torch/record_optimisers.py`: 100 windows each, from one
start. `test_optimise.py` has Adam's two forms, and clipping, against numpy.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import schedules
from rounding import assert_identical
from whole import everything

RECORD = dict(np.load(Path(__file__).parent / "data" / "torch" / "optimisers.npz"))
FRAMES = 6
NAMES = {
    "rnn_layer_0/W_ax": "net.weight_ih_l0",
    "rnn_layer_0/W_aa": "net.weight_hh_l0",
    "rnn_layer_0/b_a": "net.bias_ih_l0",
    "head/W": "head.weight",
    "head/b": "head.bias",
}
MATRICES = {"*/W*": 0.3}  # decay, biases do not
HIDDEN = ["rnn_layer_0/W_aa", "*/b"]


def frame(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((4, 3)), bp.placeholder((2, 3))
    return x, y, bptt.layers.dense(bp, bptt.layers.rnn(bp, x, 5), 2, name="head")


def net(
    optimizer: Any, dtype: str = "float64", scale: float = 1.0, **options: Any
) -> tuple[bptt.BPTT, Any, list[np.ndarray]]:
    """The recorded net at its start, what trains it, and its data."""
    bp = bptt.BPTT(seed=0, dtype=dtype)
    _, y, out = bp.generate_graphs(frame, num_loops=FRAMES)["deep"]
    for ours, theirs in NAMES.items():
        bp.parameters[ours] = RECORD[f"initial/{theirs}"].reshape(bp.parameters[ours].shape)
    loss = scale * bptt.reduce_mean(bptt.square(out - y))
    data = [RECORD["x"].swapaxes(1, 2), RECORD["y"].swapaxes(1, 2)]
    return bp, bp.minimize(loss, optimizer, **options), data


def weights(bp: bptt.BPTT) -> dict[str, np.ndarray]:
    return {name: bp.parameters[name] for name in bp.parameters}


RUNS: dict[str, tuple[bptt.optimisers.Optimiser, dict[str, Any]]] = {
    "sgd": (bptt.SGD(0.1), {}),
    "sgd_decay": (bptt.SGD(0.1, weight_decay=0.02), {}),
    "sgd_momentum": (bptt.SGD(0.02, 0.8), {}),
    "sgd_momentum_decay": (bptt.SGD(0.02, 0.8, weight_decay=0.02), {}),
    "sgd_nesterov": (bptt.SGD(0.02, 0.9, nesterov=True, weight_decay=0.02), {}),
    "rmsprop": (bptt.RMSProp(), {}),
    "rmsprop_centered": (bptt.RMSProp(0.01, 0.9, 1e-3, centered=True), {}),
    "rmsprop_momentum": (bptt.RMSProp(0.003, 0.8, momentum=0.7, weight_decay=0.02), {}),
    "rmsprop_both": (bptt.RMSProp(0.003, 0.9, 1e-4, momentum=0.7, centered=True), {}),
    "adagrad": (bptt.Adagrad(0.1), {}),
    "adagrad_start_decay": (
        bptt.Adagrad(0.1, 1e-3, initial_accumulator=0.1, weight_decay=0.02),
        {},
    ),
    "adagrad_lr_decay": (bptt.Adagrad(lambda step: 0.2 / (1 + 0.05 * step)), {}),
    "adam": (bptt.Adam(0.02, 0.8, 0.95, 1e-4, epsilon_hat=False), {}),
    "adam_decay": (bptt.Adam(0.02, epsilon_hat=False, weight_decay=0.05), {}),
    "adamw": (bptt.AdamW(0.02, 0.8, 0.95, 1e-4), {}),
    "adamw_decay": (bptt.AdamW(0.02, weight_decay=0.3), {}),
    "cosine": (bptt.SGD(schedules.cosine(0.1, 100, 0.003), 0.5), {}),
    "step": (bptt.Adam(schedules.step(0.05, 30, 0.3), epsilon_hat=False), {}),
    "warm_up": (bptt.AdamW(schedules.warm_up(0.05, 20)), {}),
    "warm_up_cosine": (
        bptt.RMSProp(schedules.warm_up(schedules.cosine(0.02, 100), 10)),
        {},
    ),
    "any_function": (bptt.SGD(lambda step: 0.2 / (1 + step) ** 0.5), {}),
    "groups": (bptt.AdamW(0.02, weight_decay=MATRICES), {}),
    "groups_sgd": (bptt.SGD(0.05, 0.5, weight_decay=MATRICES), {}),
    "clip_decay": (bptt.SGD(0.1, weight_decay=0.1), {"clip": bptt.ClipByValue(0.05)}),
    "frozen": (
        bptt.Adam(0.02, epsilon_hat=False, weight_decay=0.1),
        {"clip": bptt.ClipByGlobalNorm(0.3), "frozen": HIDDEN},
    ),
}


def difference(name: str, optimizer: Any, options: dict[str, Any]) -> float:
    """The largest, of the losses and of the final weights."""
    bp, train, data = net(optimizer, **options)
    losses = bp.fit(train, data).loss
    found = [np.abs(losses - RECORD[f"{name}/losses"]).max()]
    for ours, theirs in NAMES.items():
        expected = RECORD[f"{name}/final/{theirs}"].reshape(bp.parameters[ours].shape)
        found.append(np.abs(bp.parameters[ours] - expected).max())
    return float(max(found))


def test_every_recorded_run_is_compared() -> None:
    assert {key.split("/")[0] for key in RECORD if key.endswith("/losses")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_pytorch(name: str) -> None:
    worst = difference(name, *RUNS[name])
    print(f"\nPyTorch {name}: 100 windows, largest difference {worst:.1e}")
    assert worst <= 2e-12


def test_pytorch_notices_every_option() -> None:
    """Each run, compared with every other's record, misses by far: no option is without effect."""
    for name, (optimizer, options) in list(RUNS.items())[::3]:
        for other in RUNS:
            if other != name:
                assert difference(other, optimizer, options) > 1e-6, f"{name} as {other}"


# Adagrad's other form, and float32


def test_adagrad_with_epsilon_inside() -> None:
    """PyTorch has none: against numpy, fed our gradients, from the weights before each update."""
    bp, train, data = net(bptt.Adagrad(0.1, 1e-3, epsilon_inside=True, initial_accumulator=0.01))
    sums = {name: np.full(weight.shape, 0.01) for name, weight in weights(bp).items()}
    for first in range(0, 30 * FRAMES, FRAMES):
        feed = bp.generate_feed_dict("deep", [each[first : first + FRAMES] for each in data], 2)
        expected = {}
        for name, g in bp.gradients(train.loss, feed).items():
            sums[name] = sums[name] + g**2
            expected[name] = bp.parameters[name] - 0.1 * g / np.sqrt(sums[name] + 1e-3)
        bp.run([train], feed)
        for name, weight in expected.items():
            np.testing.assert_allclose(bp.parameters[name], weight, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["sgd_nesterov", "rmsprop_both", "adagrad", "adamw_decay"])
def test_single_precision(name: str) -> None:
    optimizer, options = RUNS[name]
    bp, train, data = net(optimizer, "float32", **options)
    losses = bp.fit(train, data).loss
    np.testing.assert_allclose(losses, RECORD[f"{name}/losses"], rtol=0, atol=2e-5)


def test_a_variance_below_zero_is_none() -> None:
    """Of equal gradients v - a² is zero, or, rounded, just below: no root of that is taken."""

    def still(bp: bptt.BPTT, depth: str) -> Any:
        w = bp.get_variable("w", (64, 1), lambda shape, rng: rng.normal(size=shape))
        return bp.placeholder((64, 1)), w

    bp = bptt.BPTT(seed=0)
    x, w = bp.generate_graphs(still, num_loops=1)["deep"]
    slope = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    loss = bptt.reduce_sum(w * x * slope)
    train = bp.minimize(loss, bptt.RMSProp(1e-3, 0.5, 1e-3, centered=True))
    bp.fit(train, [np.ones((1, 64, 1))], steps=200)
    assert np.isfinite(bp.parameters["w"]).all()


# Schedules


def test_the_schedules_formulas() -> None:
    cosine = schedules.cosine(0.5, 10, 0.1)
    assert [cosine(0), cosine(5), cosine(10), cosine(11)] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    step = schedules.step(0.5, 3, 0.1)
    assert [step(0), step(2), step(3), step(8)] == pytest.approx([0.5, 0.5, 0.05, 0.005])
    warm = schedules.warm_up(0.5, 5)
    assert [warm(0), warm(3), warm(4), warm(99)] == pytest.approx([0.1, 0.4, 0.5, 0.5])
    assert schedules.warm_up(step, 2)(0) == 0.25
    assert schedules.constant(0.25)(7) == 0.25


@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_schedule_is_that_of_the_updates(every: int) -> None:
    """Asked for ahead, in one call of `fit` or many, in `run` and in `fit`: the same bits."""
    schedule = schedules.warm_up(schedules.cosine(0.1, 12, 0.01), 4)
    bp, train, data = net(bptt.SGD(schedule, 0.5))
    seen = []
    bp.fit(train, data, steps=9, every=every, callback=lambda *_: seen.append(train.learning_rate))
    assert seen == [schedule(step) for step in range(every, 10, every)]
    other, stepped, _ = net(bptt.SGD(schedule, 0.5))
    other.fit(stepped, data, steps=4)
    for first in range(4 * FRAMES, 9 * FRAMES, FRAMES):
        feed = other.generate_feed_dict("deep", [x[first : first + FRAMES] for x in data], 2)
        ends = other.generate_output_definitions("deep")
        _, *state = other.run([stepped, *ends], feed)
        other.save_output_state("deep", state)
    for name, weight in weights(bp).items():
        assert_identical(other.parameters[name], weight)


def test_more_windows_than_rates_are_asked_for_at_a_time(monkeypatch: Any) -> None:
    monkeypatch.setattr("bptt.training._AHEAD", 4)
    asked = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.1 / (1 + step)

    bp, train, data = net(bptt.SGD(schedule))
    losses = bp.fit(train, data, steps=11).loss
    assert asked == list(range(11))
    other, _, _ = net(bptt.SGD(0.1))
    trains = other.minimize(train_loss(other), bptt.SGD(0.1))
    for step in range(11):
        trains.learning_rate = 0.1 / (1 + step)
        loss = other.fit(trains, data, steps=1, start=other.next_frame).loss
        assert_identical(loss, losses[step : step + 1])


def train_loss(bp: bptt.BPTT) -> Any:
    _, y, out = bp.graphs["deep"]
    return 1.0 * bptt.reduce_mean(bptt.square(out - y))


def test_an_assigned_rate_replaces_the_schedule() -> None:
    bp, train, data = net(bptt.SGD(schedules.step(0.1, 2)))
    assert train.learning_rate == 0.1
    bp.fit(train, data, steps=2)
    assert train.learning_rate == pytest.approx(0.01)
    train.learning_rate = 0.5
    bp.fit(train, data, steps=3)
    assert train.learning_rate == 0.5


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda step: -1.0, "not negative"),
        (lambda step: np.nan, "finite"),
        (lambda step: "0.1", "finite number"),
        (lambda step: 1e300, "infinite in float32"),
        (lambda step: 0.1 if step < 3 else np.inf, "after 3 updates"),
    ],
)
def test_a_schedule_that_gives_no_rate(schedule: Any, message: str) -> None:
    """Said before any of the windows that it was asked for."""
    bp, train, data = net(bptt.SGD(schedule), "float32")
    before = everything(bp)
    with pytest.raises(bptt.UsageError, match=message):
        bp.fit(train, data, steps=5)
    assert everything(bp) == before


def test_a_rate_of_zero_changes_no_weight() -> None:
    bp, train, data = net(bptt.Adam(lambda step: 0.0))
    before = weights(bp)
    bp.fit(train, data, steps=3)
    for name, weight in before.items():
        assert_identical(bp.parameters[name], weight)


def falling(step: int) -> float:
    return 0.05 / (1 + step)


@pytest.mark.parametrize(
    "optimizer",
    [
        bptt.SGD(falling, 0.9, nesterov=True, weight_decay=MATRICES),
        bptt.RMSProp(schedules.cosine(0.01, 30), centered=True, momentum=0.5),
        bptt.Adagrad(0.1, initial_accumulator=0.1),
        bptt.AdamW(schedules.warm_up(falling, 5)),
        bptt.SGD(0.1),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
@pytest.mark.parametrize("assigned", [False, True])
def test_a_checkpoint_goes_on(optimizer: Any, assigned: bool, tmp_path: Path) -> None:
    """Saved in the middle, or copied: the same bits as without."""
    bp, train, data = net(optimizer, frozen=["head/b"])
    bp.fit(train, data, steps=8)
    if assigned:
        train.learning_rate = 0.03
    bp.save(tmp_path / "net")
    copied, copied_train = copy.deepcopy((bp, train))
    loaded = bptt.load(tmp_path / "net", frame)
    loaded_train = loaded.minimize(train_loss(loaded), optimizer, frozen=["head/b"])
    assert loaded_train.learning_rate == copied_train.learning_rate == train.learning_rate
    assert loaded_train.scheduled == train.scheduled
    expected = bp.fit(train, data, steps=8, start=bp.next_frame).loss
    for other, other_train in ((copied, copied_train), (loaded, loaded_train)):
        assert_identical(
            other.fit(other_train, data, steps=8, start=other.next_frame).loss, expected
        )
        assert everything(other) == everything(bp)


def test_another_schedule_than_the_saved_one() -> None:
    """A rate that was assigned goes on only where the optimiser is made as it was."""
    bp, train, _ = net(bptt.SGD(schedules.cosine(0.1, 30)))
    train.learning_rate = 0.03
    for made, rate in ((schedules.cosine(0.1, 30), 0.03), (schedules.cosine(0.1, 40), 0.1)):
        other = copy.deepcopy(bp)
        assert other.minimize(train_loss(other), bptt.SGD(made)).learning_rate == rate


# Weight decay and frozen weights


def test_the_first_pattern_that_fits_counts() -> None:
    decays = {"head/b": 0.0, "head/*": 0.5, "*/W_a?": 0.25}
    bp, train, data = net(bptt.SGD(1e-1, weight_decay=decays), scale=0.0)
    before = weights(bp)
    bp.fit(train, data, steps=1)
    shrunk = {"head/W": 0.95, "rnn_layer_0/W_ax": 0.975, "rnn_layer_0/W_aa": 0.975}
    for name, weight in before.items():
        np.testing.assert_allclose(bp.parameters[name], shrunk.get(name, 1.0) * weight, atol=1e-15)


def lstm_frame(bp: bptt.BPTT, depth: str) -> Any:
    """Cells whose weights lie stacked: some of one matrix are frozen, others not."""
    x, y = bp.placeholder((4, 3)), bp.placeholder((2, 3))
    _, h = bptt.layers.lstm(bp, x, 5, peephole="diagonal")
    _, h = bptt.layers.lstm(bp, bptt.layers.rnn(bp, h, 4), 3, peephole="full")
    return x, y, bptt.layers.dense(bp, h, 2, name="head")


FROZEN: dict[str, list[str]] = {
    "a gate": ["lstm_layer_0/W_xi", "lstm_layer_2/W_hc", "*/b_o"],
    "peepholes": ["lstm_layer_0/W_co", "lstm_layer_2/W_ci"],
    "a whole cell": ["lstm_layer_0/*"],
    "all cells": ["*_layer_*"],
    "all but a gate": ["*_layer_[12]/*", "*_layer_0/[!W]*", "*_layer_0/W_[hc]*", "head/*"],
    "the head": ["head/*"],
}


@pytest.mark.parametrize("which", FROZEN)
@pytest.mark.parametrize("clip", [None, bptt.ClipByGlobalNorm(0.02)], ids=["free", "clipped"])
def test_frozen_weights(which: str, clip: Any) -> None:
    """They stay, their moments too; the others go as by the gradients of the others alone."""
    bp = bptt.BPTT(seed=1, dtype="float64")
    _, y, out = bp.generate_graphs(lstm_frame, num_loops=FRAMES)["deep"]
    loss = bptt.reduce_mean(bptt.square(out - y))
    train = bp.minimize(loss, bptt.SGD(0.1, 0.5), clip, frozen=FROZEN[which])
    rested = set(train.frozen)
    assert rested and rested < set(bp.parameters)
    moved = {name: np.zeros_like(weight) for name, weight in weights(bp).items()}
    data = [RECORD["x"].swapaxes(1, 2)[:FRAMES], RECORD["y"].swapaxes(1, 2)[:FRAMES]]
    feed = bp.generate_feed_dict("deep", data, 2)
    for _ in range(5):
        gradients = {n: g for n, g in bp.gradients(loss, feed).items() if n not in rested}
        norm = np.sqrt(sum(np.sum(g * g) for g in gradients.values()))
        factor = 1.0 if clip is None else min(1.0, clip.limit / norm)
        expected = weights(bp)
        for name, g in gradients.items():
            moved[name] = 0.5 * moved[name] + factor * g
            expected[name] = expected[name] - 0.1 * moved[name]
        bp.run([train], feed)
        for name, weight in expected.items():
            np.testing.assert_allclose(bp.parameters[name], weight, rtol=0, atol=1e-14)
    for name in rested:
        assert not train.core.get_moment("b", name).any()
        assert expected[name] is not None


def test_what_is_frozen_has_no_gradient_computed() -> None:
    """The program that trains the head alone holds no gradient of what is below it."""
    bp = bptt.BPTT(seed=1, dtype="float64")
    _, y, out = bp.generate_graphs(lstm_frame, num_loops=FRAMES)["deep"]
    loss = bptt.reduce_mean(bptt.square(out - y))
    small = bp._net.program(loss.trace, FRAMES, [loss.id], loss.id, frozen=["head/W"])
    head = [name for name in bp.parameters if not name.startswith("head")]
    smaller = bp._net.program(loss.trace, FRAMES, [loss.id], loss.id, frozen=head)
    whole = bp._net.program(loss.trace, FRAMES, [loss.id], loss.id)
    assert smaller.memory < 0.7 * whole.memory
    assert small.memory <= whole.memory


WRONG: list[tuple[Callable[[bptt.BPTT], Any], str]] = [
    (lambda bp: bp.minimize(train_loss(bp), bptt.SGD(0.1), frozen=["no such"]), "fits no weight"),
    (lambda bp: bp.minimize(train_loss(bp), bptt.SGD(0.1), frozen="*"), "list"),
    (lambda bp: bp.minimize(train_loss(bp), bptt.SGD(0.1), frozen=[5]), "text"),
    (lambda bp: bp.minimize(train_loss(bp), bptt.SGD(0.1), frozen=["*"]), "nothing to train"),
    (
        lambda bp: bp.minimize(train_loss(bp), bptt.SGD(0.1, weight_decay={"b": 0.1})),
        "'b' of weight_decay fits no weight",
    ),
    (lambda bp: bp.minimize(train_loss(bp), bptt.SGD(0.1, weight_decay={5: 0.1})), "text"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_patterns(call: Any, message: str) -> None:
    bp, _, _ = net(bptt.SGD(0.1))
    with pytest.raises(bptt.UsageError, match=message):
        call(bp)
    assert len(bp._net.trainings) == 1


# Metrics


def test_metrics_are_of_the_same_windows() -> None:
    """Each before its window's update, in any number of calls; the training does not notice."""
    bp, train, data = net(bptt.SGD(0.1))
    x, y, out = bp.graphs["deep"]
    off = bptt.reduce_mean(bptt.abs(out - y))
    fed = bptt.reduce_sum(x)
    history = bp.fit(
        train, data, steps=9, callback=print, every=4, metrics={"off": off, "fed": fed}
    )
    assert_identical(history["loss"], history.loss)
    assert sorted(history.metrics) == ["fed", "off"]
    other, other_train, _ = net(bptt.SGD(0.1))
    _, y, out = other.graphs["deep"]
    off = bptt.reduce_mean(bptt.abs(out - y))
    for step in range(9):
        window = [each[step * FRAMES : (step + 1) * FRAMES] for each in data]
        np.testing.assert_allclose(history["off"][step], other.evaluate(off, window), rtol=1e-14)
        np.testing.assert_allclose(history["fed"][step], window[0].sum(), rtol=1e-13)
        loss = other.fit(other_train, data, steps=1, start=step * FRAMES).loss
        assert_identical(loss, history.loss[step : step + 1])
    for name, weight in weights(other).items():
        assert_identical(bp.parameters[name], weight)
    assert bp.fit(train, data, steps=0, metrics={"off": off_of(bp)})["off"].shape == (0,)


def off_of(bp: bptt.BPTT) -> Any:
    _, y, out = bp.graphs["deep"]
    return bptt.reduce_mean(bptt.abs(out - y))


def test_a_metric_of_what_the_loss_does_not_need() -> None:
    """Its placeholder is fed too, and its state goes on with it."""

    def two(bp: bptt.BPTT, depth: str) -> Any:
        x, y, z = (bp.placeholder((1, 1), name) for name in "xyz")
        past = bp.get_past_variable("total", np.zeros((1, 1)))
        return x, y, z, bptt.layers.dense(bp, x, 1), bp.name_variable("total", past + z)

    bp = bptt.BPTT(seed=0, dtype="float64")
    _, y, _, out, total = bp.generate_graphs(two, num_loops=2)["deep"]
    train = bp.minimize(bptt.losses.mse(out, y), bptt.SGD(0.1))
    data = [np.arange(6.0), np.arange(6.0), np.ones(6)]
    assert bp.fit(train, data[:2], steps=1).metrics == {}
    history = bp.fit(train, data, metrics={"total": bptt.reduce_mean(total)})
    assert_identical(history["total"], np.array([1.5, 3.5, 5.5]))
    assert bp.state["deep"]["total"] == 6.0
