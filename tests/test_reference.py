"""The two training runs recorded from the origin, followed step by step (`data/README.md`).

How closely one float32 run can follow another is not a matter of taste. The same runs computed in
float64, where rounding is out of the way, miss the recorded losses by up to 2.6e-5 (RNN, at window
27) and 1.7e-4 (dual LSTM, at window 265) of the loss: that is the rounding of the record itself.
The float64 tests hold us to these figures. The float32 tests allow losses three times as much, as
our own rounding joins that of the record, and weights and state ten times: they drift along the
directions in which the loss is flat (a float32 run of the RNN's equations in numpy: six times).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import Frame, mean_square, origin_dual_lstm, origin_rnn, palindrome

WINDOWS = 300
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Record:
    """One recorded run, and how far rounding alone carried it (float64 against the record)."""

    name: str
    frame: Any
    depth: int
    losses: float  # relative, all windows
    weights: float  # of each array's largest entry, after the last window
    state: float  # likewise
    outputs: float  # absolute: the shallow ones and those of the last window

    def __getitem__(self, key: str) -> np.ndarray:
        with np.load(DATA / f"palindrome_{self.name}.npz") as arrays:
            return np.asarray(arrays[key])

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        with np.load(DATA / f"palindrome_{self.name}.npz") as arrays:
            return {
                key.removeprefix(prefix + "/"): arrays[key]
                for key in arrays
                if key.startswith(prefix + "/")
            }


RECORDS = [
    Record("rnn", origin_rnn, 10, losses=3e-5, weights=1e-5, state=1e-5, outputs=2e-6),
    Record(
        "dual_lstm", origin_dual_lstm, 4, losses=2e-4, weights=1.5e-5, state=1.5e-5, outputs=5e-6
    ),
]


@dataclass
class Run:
    record: Record
    bp: bptt.BPTT
    loss: Any
    train: Any

    @property
    def data(self) -> list[np.ndarray]:
        """Inputs and targets of the whole run: (frames,) each."""
        sequence = palindrome(WINDOWS * self.record.depth + 1)
        return [sequence[:-1], sequence[1:]]

    def window(self, step: int) -> list[np.ndarray]:
        first = step * self.record.depth
        return [array[first : first + self.record.depth] for array in self.data]


def start(record: Record, form: str = "fused", dtype: str = "float32") -> Run:
    """The net at the record's weights and state, before its first window."""
    frame: Frame = record.frame(form)
    bp = bptt.BPTT(seed=0, dtype=dtype)
    graphs = bp.generate_graphs(frame, num_loops=record.depth)
    for name, weight in record.group("initial").items():
        bp.parameters[name] = weight
    for name, state in record.group("initial_state").items():
        bp.state["deep"][name] = state
    loss = mean_square(graphs[bp.DEEP])
    train = bp.minimize(loss, bptt.Adam(0.05, beta1=0.95, beta2=0.999, epsilon=1e-3))
    return Run(record, bp, loss, train)


def relative(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(got, np.float64) - expected) / np.abs(expected)


def of_largest(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a part of the array's largest entry."""
    assert got.shape == expected.shape
    return float(np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max())


def assert_follows(run: Run, losses: np.ndarray, shallow: np.ndarray) -> None:
    """The whole run against the record: losses, then what the last window and the stream left."""
    record = run.record
    slack, drift = (3.0, 10.0) if shallow.dtype == np.float32 else (1.0, 1.0)
    missed = relative(losses, record["losses"])
    assert missed[:50].max() <= 1e-4
    assert missed.max() <= slack * record.losses
    for name, expected in record.group("final").items():
        assert of_largest(run.bp.parameters[name], expected) <= drift * record.weights, name
    for name, expected in record.group("final_state").items():
        assert of_largest(run.bp.state["deep"][name], expected) <= drift * record.state, name
    assert shallow.shape == record["shallow_outputs"].shape
    assert np.abs(shallow - record["shallow_outputs"]).max() <= drift * record.outputs


@pytest.fixture(params=RECORDS, ids=lambda record: record.name)
def record(request: pytest.FixtureRequest) -> Record:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["fused", "primitive"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_names_are_the_origins(record: Record, form: str) -> None:
    run = start(record, form)
    weights, state = record.group("initial"), record.group("initial_state")
    assert sorted(run.bp.parameters) == sorted(weights)
    assert sorted(run.bp.state["deep"]) == sorted(state)
    for name, weight in weights.items():
        assert run.bp.parameters[name].shape == weight.shape
        np.testing.assert_array_equal(run.bp.parameters[name], weight)
    for name, value in state.items():
        np.testing.assert_array_equal(run.bp.state["deep"][name], value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_the_first_window(record: Record, form: str, dtype: str) -> None:
    run = start(record, form, dtype)
    feed = run.bp.generate_feed_dict(run.bp.DEEP, run.window(0), 2)
    gradients = run.bp.gradients(run.loss, feed)
    assert sorted(gradients) == sorted(record.group("gradient0"))
    for name, expected in record.group("gradient0").items():
        assert of_largest(gradients[name], expected) <= 1e-5, name
    for name, weight in record.group("initial").items():
        np.testing.assert_array_equal(run.bp.parameters[name], weight)  # nothing was updated


def test_weights_after_the_first_update(record: Record, form: str) -> None:
    """One unit of rounding of a gradient moves Adam's first step by 0.05 units or less."""
    run = start(record, form)
    run.bp.fit(run.train, run.data, steps=1)
    for name, expected in record.group("after1").items():
        assert np.abs(run.bp.parameters[name] - expected).max() <= 1e-6, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_and_predict_follow_the_record(record: Record, form: str, dtype: str) -> None:
    run = start(record, form, dtype)
    history = run.bp.fit(run.train, run.data, steps=WINDOWS)
    assert history.loss.shape == (WINDOWS,)
    run.bp.copy_state_forward()
    final = dict(run.bp.state["deep"])
    shallow = run.bp.predict([palindrome(100)])
    for name, value in final.items():  # the stream left the deep state alone
        np.testing.assert_array_equal(run.bp.state["deep"][name], value)
    assert_follows(run, history.loss, shallow)


def test_the_protocol_follows_the_record(record: Record) -> None:
    """The origin's own loop, window by window and then frame by frame."""
    run = start(record)
    bp, out = run.bp, run.bp.graphs[run.bp.DEEP][-1]
    losses, outputs = [], []
    for step in range(WINDOWS):
        feed = bp.generate_feed_dict(bp.DEEP, run.window(step), 2)
        fetches = [run.train, run.loss, out, *bp.generate_output_definitions(bp.DEEP)]
        nothing, loss, window_outputs, *state = bp.run(fetches, feed)
        bp.save_output_state(bp.DEEP, state)
        assert nothing is None
        assert isinstance(loss, float)
        losses.append(loss)
        outputs.append(window_outputs)

    assert outputs[0].shape == record["outputs_first"].shape
    assert np.abs(outputs[0] - record["outputs_first"]).max() <= 1e-6
    assert np.abs(outputs[-1] - record["outputs_last"]).max() <= 10 * record.outputs

    bp.copy_state_forward()
    out = bp.graphs[bp.SHALLOW][-1]
    shallow = []
    for value in palindrome(100):
        feed = bp.generate_feed_dict(bp.SHALLOW, np.array([[value]], np.float32), 1)
        output, *state = bp.run([out, *bp.generate_output_definitions(bp.SHALLOW)], feed)
        bp.save_output_state(bp.SHALLOW, state)
        shallow.append(output[0])
    assert_follows(run, np.array(losses), np.array(shallow))
