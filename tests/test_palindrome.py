"""The palindrome task: the sequence, the nets, the restarts, and how well it ends."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import bptt
from bptt.palindrome import (
    CONFIGURATIONS,
    DUAL_LSTM,
    RNN,
    Configuration,
    build,
    data,
    palindrome,
    start_seed,
    train,
)

SHORT = replace(RNN, steps=60, warmup=40, evaluated=20)
# Every start is stuck at every check: no loss is below zero.
STUCK = replace(SHORT, first_check=20, check_every=10, stuck_above=-1.0, max_restarts=3)


def test_sequence():
    assert [palindrome(step) for step in range(12)] == [
        0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.4,
        0.3,
        0.2,
        0.1,
        0,
        0.1,
    ]


def test_data_is_the_sequence_and_the_sequence_one_step_on():
    inputs, targets = data(23)
    assert inputs.shape == targets.shape == (23,)
    assert inputs.tolist() == [palindrome(step) for step in range(23)]
    assert targets.tolist() == [palindrome(step + 1) for step in range(23)]


def test_configurations_are_those_of_the_origin():
    assert (RNN.cell, RNN.layers, RNN.width, RNN.num_loops, RNN.clip) == ("rnn", 1, 3, 10, 4.0)
    assert (DUAL_LSTM.cell, DUAL_LSTM.layers, DUAL_LSTM.width) == ("lstm", 2, 5)
    assert (DUAL_LSTM.num_loops, DUAL_LSTM.clip) == (4, 2.0)
    for configuration in (RNN, DUAL_LSTM):
        assert (configuration.learning_rate, configuration.beta1) == (0.05, 0.95)
        assert (configuration.beta2, configuration.epsilon) == (0.999, 1e-3)
        assert (configuration.deviation, configuration.noise, configuration.steps) == (
            0.5,
            0.03,
            3000,
        )
        assert (configuration.first_check, configuration.check_every) == (1000, 100)
        assert (configuration.stuck_above, configuration.max_restarts) == (0.01, 20)
        assert (configuration.warmup, configuration.evaluated) == (1900, 100)


def test_configurations_are_frozen():
    with pytest.raises(FrozenInstanceError):
        RNN.width = 4  # type: ignore[misc]


def test_bad_configurations_are_refused():
    with pytest.raises(bptt.UsageError, match="cell must be"):
        replace(RNN, cell="gru")
    with pytest.raises(bptt.UsageError, match="steps is at least 1, got 0"):
        replace(RNN, steps=0)


@pytest.mark.parametrize(
    ("configuration", "weights", "state"),
    [
        (
            RNN,
            {"rnn_layer_0/W_ax": (3, 1), "rnn_layer_0/W_aa": (3, 3), "rnn_layer_0/b_a": (3, 1)},
            {"hidden-0": (3, 1)},
        ),
        (
            DUAL_LSTM,
            {f"lstm_layer_{i}/W_x{gate}": (5, 5 if i else 1) for i in range(2) for gate in "ifco"}
            | {f"lstm_layer_{i}/W_h{gate}": (5, 5) for i in range(2) for gate in "ifco"}
            | {f"lstm_layer_{i}/W_c{gate}": (5, 5) for i in range(2) for gate in "ifo"}
            | {f"lstm_layer_{i}/b_{gate}": (5, 1) for i in range(2) for gate in "ifco"},
            {f"{kind}-{i}": (5, 1) for kind in ("hidden", "cell") for i in range(2)},
        ),
    ],
)
def test_names_and_shapes_of_weights_and_state(
    configuration: Configuration, weights: dict, state: dict
):
    weights = weights | {"W": (1, configuration.width), "b": (1, 1)}
    bp, _ = build(configuration, 0)
    assert {name: array.shape for name, array in bp.parameters.items()} == weights
    assert {name: array.shape for name, array in bp.state[bp.DEEP].items()} == state


def test_weights_and_starting_state_are_normal_with_deviation_one_half():
    draws: dict[str, list[np.ndarray]] = {"all": []}
    for seed in range(40):
        bp, _ = build(DUAL_LSTM, seed)
        for name, array in (*bp.parameters.items(), *bp.starting_constants.items()):
            draws.setdefault(name, []).append(array.ravel())
            draws["all"].append(array.ravel())
    for name, arrays in draws.items():
        drawn = np.concatenate(arrays)
        mean, deviation = 0.5 / len(drawn) ** 0.5, 0.5 / (2 * len(drawn)) ** 0.5  # standard errors
        assert abs(drawn.mean()) < 4 * mean, name
        assert abs(drawn.std() - 0.5) < 4 * deviation, name
    # Not uniform: Glorot's limit for the head would be 1.
    for name in ("all", "W"):
        assert np.abs(np.concatenate(draws[name])).max() > 1.0


def test_noise_is_on_the_input_of_every_layer_and_only_when_deep():
    """Without it deep and shallow agree; with it the deep run differs by a little."""
    for configuration in (RNN, DUAL_LSTM):
        inputs, _ = data(configuration.num_loops)
        outs = {}
        for noise in (0.0, 0.03):
            bp, _ = build(replace(configuration, noise=noise), 5)
            bp.copy_state_forward()
            out = bp.graphs[bp.DEEP][2]
            (deep,) = bp.run([out], bp.generate_feed_dict(bp.DEEP, [inputs], 1))
            outs[noise] = deep, bp.predict([inputs])
        assert np.array_equal(outs[0.0][1], outs[0.03][1])
        np.testing.assert_allclose(outs[0.0][0], outs[0.0][1], rtol=0, atol=1e-6)
        differences = np.abs(outs[0.03][0] - outs[0.03][1])
        assert 1e-5 < differences.mean() < 0.05

    assert _random_calls(RNN) == {"deep": 1, "shallow": 0}
    assert _random_calls(DUAL_LSTM) == {"deep": 2, "shallow": 0}


def _random_calls(configuration: Configuration) -> dict[str, int]:
    """How often the frame function asks for noise, by mode."""
    calls = {"deep": 0, "shallow": 0}

    class Counting(bptt.BPTT):
        def random_normal(self, shape, mean=0.0, stddev=1.0):
            assert (mean, stddev) == (0.0, configuration.noise)
            calls[self.mode] += 1
            return super().random_normal(shape, mean, stddev)

    frame = bptt.palindrome.frame(configuration)

    def spied(bp, depth):
        bp.mode = depth
        return frame(bp, depth)

    Counting(seed=0).generate_graphs(spied, num_loops=2)
    return calls


@pytest.mark.parametrize("warmup", [0, 40])
def test_streamed_values_are_those_of_the_trained_weights(warmup: int):
    """The evaluation in numpy: state copied forward, the sequence from step 0, no noise."""
    result = train(replace(SHORT, warmup=warmup), seed=2)
    w = result.bp.parameters
    h = result.bp.state["deep"]["hidden-0"]
    expected = []
    inputs, targets = data(warmup + 20)
    for x in inputs:
        h = np.tanh(w["rnn_layer_0/W_aa"] @ h + w["rnn_layer_0/W_ax"] * x + w["rnn_layer_0/b_a"])
        expected.append(1 / (1 + np.exp(-(w["W"] @ h + w["b"]).item())))
    np.testing.assert_allclose(result.predicted, expected[warmup:], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(result.inputs, inputs[warmup:])
    np.testing.assert_array_equal(result.expected, targets[warmup:])
    assert result.evaluated_steps.tolist() == list(range(warmup, warmup + 20))
    assert result.shallow_mean_abs_error == pytest.approx(
        np.abs(result.predicted - targets[warmup:]).mean()
    )


@pytest.mark.parametrize("configuration", [RNN, DUAL_LSTM])
def test_windows_follow_the_sequence_through_the_protocol_too(configuration: Configuration):
    """The driver's losses are those of the origin's loop: window s holds frames sT ... sT + T-1."""
    steps, T = 45, configuration.num_loops
    result = train(replace(configuration, steps=steps, warmup=0, evaluated=1), seed=1)
    bp, operation = build(configuration, start_seed(1, 0))
    losses = []
    for step in range(steps):
        frames = range(step * T, step * T + T)
        window = [[palindrome(x) for x in frames], [palindrome(x + 1) for x in frames]]
        feed = bp.generate_feed_dict(bp.DEEP, [np.array(a, np.float32) for a in window], 2)
        _, loss, *state = bp.run(
            [operation, operation.loss, *bp.generate_output_definitions(bp.DEEP)], feed
        )
        bp.save_output_state(bp.DEEP, state)
        losses.append(loss)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-6)


def test_same_seed_same_result():
    one, two, other = (train(SHORT, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.losses, two.losses)
    assert np.array_equal(one.predicted, two.predicted)
    assert not np.array_equal(one.losses, other.losses)


def test_a_stuck_start_is_given_up_at_the_first_check_and_the_last_one_is_kept():
    result = train(STUCK, seed=0)
    assert result.restarts == 3
    # Windows count from 0, so the one numbered 20 is the 21st.
    assert [len(losses) for losses in result.given_up] == [21, 21, 21]
    assert len(result.losses) == 60


def test_every_restart_draws_anew_and_depends_on_seed_and_restart_alone():
    result = train(STUCK, seed=0)
    firsts = [losses[0] for losses in (*result.given_up, result.losses)]
    assert len(set(firsts)) == 4
    again = train(STUCK, seed=0)
    for one, two in zip(
        (*result.given_up, result.losses), (*again.given_up, again.losses), strict=True
    ):
        assert np.array_equal(one, two)
    seeds = {start_seed(seed, restart) for seed in range(50) for restart in range(21)}
    assert len(seeds) == 50 * 21
    assert all(0 <= seed < 2**63 for seed in seeds)
    # The kept start owes nothing to those before it.
    bp, operation = build(STUCK, start_seed(0, 3))
    np.testing.assert_array_equal(
        bp.fit(operation, list(data(60)), steps=6).loss, result.losses[:6]
    )


def test_only_the_loss_of_the_checked_window_decides():
    """Losses above the bar between two checks do not matter; the check's own window does."""
    losses = train(SHORT, seed=9).losses
    checked = losses[20::10]
    bar = float(checked.max())
    assert losses[20:].max() > bar, "another seed is needed"
    kept = train(replace(STUCK, stuck_above=bar), seed=9)
    assert kept.restarts == 0
    given_up = train(replace(STUCK, stuck_above=np.nextafter(bar, 0), max_restarts=1), seed=9)
    assert given_up.restarts == 1
    assert len(given_up.given_up[0]) == 21 + 10 * int(checked.argmax())


def test_checks_start_at_the_first_one_even_off_the_round_numbers():
    result = train(replace(STUCK, first_check=25, check_every=10), seed=0)
    assert [len(losses) for losses in result.given_up] == [26, 26, 26]


def test_a_run_that_ends_before_the_first_check_is_never_given_up():
    assert train(replace(STUCK, steps=20), seed=0).restarts == 0
    assert train(replace(STUCK, steps=21), seed=0).restarts == 3


def test_progress_is_told_of_every_start():
    calls: list[tuple[int, int, float]] = []
    result = train(STUCK, seed=0, progress=lambda *call: calls.append(call))
    abandoned = [1, 11, 21]
    assert [(restart, windows) for restart, windows, _ in calls] == [
        *((restart, windows) for restart in range(3) for windows in abandoned),
        *((3, windows) for windows in (1, 11, 21, 31, 41, 51, 60)),
    ]
    for restart, windows, loss in calls:
        losses = (*result.given_up, result.losses)[restart]
        assert loss == losses[windows - 1]


def test_report():
    result = train(STUCK, seed=7)
    report = result.report()
    assert list(report) == [
        "cell",
        "seed",
        "restarts",
        "steps",
        "loss",
        "shallow_mean_abs_error",
        "train_seconds",
        "stream_seconds",
    ]
    assert (report["cell"], report["seed"], report["restarts"], report["steps"]) == (
        "rnn",
        7,
        3,
        60,
    )
    assert report["loss"] == pytest.approx(result.losses.mean())
    assert report["train_seconds"] > 0
    assert report["stream_seconds"] > 0
    assert train(replace(SHORT, steps=150), seed=0).loss == pytest.approx(
        train(replace(SHORT, steps=150), seed=0).losses[50:].mean()
    )


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_default_seed_ends_well(cell: str):
    result = train(CONFIGURATIONS[cell])
    assert result.loss < 1e-3
    assert result.shallow_mean_abs_error < 0.02
    # Better than any net without memory: the best one answers the mean of the two continuations.
    assert np.abs(result.predicted - result.expected).max() < 0.1
    assert np.array_equal(
        np.round(result.expected, 1), np.round(palindrome_of(result.evaluated_steps + 1), 1)
    )


def palindrome_of(steps: np.ndarray) -> np.ndarray:
    return np.array([palindrome(int(step)) for step in steps])
