"""Threads and Ctrl-C: a long call lets others work, can be stopped, and has the net to itself.

Where a call has to be stopped it is one that would go on for hours, so that whatever happens,
happens inside it. If it could not be stopped, or never let another thread run, the watchdog of
these tests ends the process.
"""

import copy
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import _core
from frames import PEEPHOLES, gradients_of_everything, lstm_cell, mean_square, rnn_cell
from rounding import assert_identical

ENDLESS = 20_000_000  # windows; their losses take 80 MB
FRAMES = 60


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def frame(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((2, 3)), bp.placeholder((1, 3))
    noisy = x + bp.random_normal(x.shape, stddev=0.1)
    _, h = bptt.layers.lstm(bp, noisy, 5, peephole="full")
    return x, y, bptt.layers.dense(bp, h, 1)


class Run:
    """A net of its own, with data: the same bits for the same seed."""

    def __init__(self, seed: int = 0, dtype: str = "float32", num_loops: int = 6) -> None:
        rng = np.random.default_rng(seed)
        shapes = (FRAMES, 2, 3), (FRAMES, 1, 3)
        self.data = [rng.normal(size=shape).astype(dtype) for shape in shapes]
        self.bp = bptt.BPTT(seed=seed, dtype=dtype)
        graph = self.bp.generate_graphs(frame, num_loops=num_loops)["deep"]
        self.loss = mean_square(graph)
        self.out = graph[-1]
        self.train = self.bp.minimize(self.loss, bptt.Adam(0.01), clip=bptt.ClipByGlobalNorm(1.0))

    def fit(self, steps: int) -> np.ndarray:
        return self.bp.fit(self.train, self.data, steps=steps, start=self.bp.next_frame).loss

    def stream(self, frames: int) -> Any:
        """So many frames, the data again and again; without a copy of them."""
        whole = np.concatenate([self.data[0]] * -(-frames // FRAMES))
        return self.bp.predict([whole[:frames]])

    def contents(self) -> list[Any]:
        bp, core = self.bp, self.train.core
        return [
            *(bp.parameters[name] for name in bp.parameters),
            *(core.get_moment(moment, name) for moment in core.moments for name in bp.parameters),
            *(bp.state[depth][name] for depth in bp.state for name in bp.state[depth]),
            *(state.frame for state in bp._net.states.values()),
            self.train.steps,
            bp.next_frame,
        ]


def assert_equal(one: Run, other: Run) -> None:
    for got, expected in zip(one.contents(), other.contents(), strict=True):
        assert_identical(got, expected)


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin the work in another thread; the result waits for it and gives what came, or raises."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result


def interrupted(work: Callable[[], Any], meanwhile: Callable[[], Any]) -> tuple[Any, float]:
    """What another thread did during an endless call, and how soon its Ctrl-C then ended that."""
    if sys.platform == "win32":
        pytest.skip("signals of another kind")
    sent: list[float] = []

    def other() -> Any:
        try:
            return meanwhile()
        finally:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            result = in_thread(other)
            work()
        took = time.perf_counter() - sent[0]
    finally:
        signal.signal(signal.SIGINT, before)
    return result(), took


def ticks(count: int = 20) -> Callable[[], int]:
    """Python code that gives the GIL away many times, and so gets on only if it gets it back."""

    def work() -> int:
        for _ in range(count):
            time.sleep(0.005)
        return count

    return work


# ---- one net, stopped


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_lets_others_work_and_is_stopped(dtype: str) -> None:
    """After whole windows: as many as there were updates, and the same bits go on."""
    run, twin = Run(dtype=dtype), Run(dtype=dtype)
    run.fit(3)
    twin.fit(3)
    done, took = interrupted(lambda: run.fit(ENDLESS), ticks())
    print(f"fit was stopped after {took:.3f} s")
    assert done == 20
    windows = run.train.steps - 3
    assert windows > 0
    twin.fit(windows)
    assert_equal(run, twin)
    assert_identical(run.fit(7), twin.fit(7))
    assert_equal(run, twin)


def test_predict_lets_others_work_and_is_stopped() -> None:
    run, twin = Run(), Run()
    stream = np.broadcast_to(run.data[0][:1], (4_000_000, 2, 3))
    counter = run.bp._net.states["shallow"]
    # long enough for the data to have been looked at, and short of the end
    _, took = interrupted(lambda: run.bp.predict([stream]), ticks(100))
    print(f"predict was stopped after {took:.3f} s")
    assert 0 < counter.frame < len(stream)
    twin.bp.predict([stream[: counter.frame]])
    assert_equal(run, twin)
    assert_identical(run.stream(50), twin.stream(50))


def test_evaluate_lets_others_work_and_is_stopped() -> None:
    """It puts state and counter back, then too."""
    run, twin = Run(), Run()
    data = [np.broadcast_to(array[:1], (20_000_000, *array.shape[1:])) for array in run.data]
    _, took = interrupted(lambda: run.bp.evaluate(run.loss, data), ticks())
    print(f"evaluate was stopped after {took:.3f} s")
    assert_equal(run, twin)
    assert_identical(run.fit(7), twin.fit(7))


HUGE = 200_000


def huge() -> tuple[Run, list[np.ndarray]]:
    """A net whose one window takes a while."""

    def wide(bp: bptt.BPTT, depth: str) -> Any:
        x, y = bp.placeholder((2, 1)), bp.placeholder((1, 1))
        _, h = bptt.layers.lstm(bp, x, 32)
        return x, y, bptt.layers.dense(bp, h, 1)

    run = Run()
    run.bp = bptt.BPTT(seed=0)
    graph = run.bp.generate_graphs(wide, num_loops=HUGE)["deep"]
    run.loss, run.out = mean_square(graph), graph[-1]
    run.train = run.bp.minimize(run.loss, bptt.Adam(0.01))
    rng = np.random.default_rng(1)
    return run, [rng.normal(size=(HUGE, n, 1)).astype(np.float32) for n in (2, 1)]


@pytest.mark.parametrize("windows", [0, 1])
def test_one_huge_window_is_stopped(windows: int) -> None:
    """In its middle, not at its end: what is unfinished leaves no trace."""
    run, run.data = huge()
    twin, twin.data = huge()
    run.fit(windows)
    twin.fit(windows)

    def inside() -> None:
        time.sleep(0.05)

    _, took = interrupted(lambda: run.fit(1000), inside)
    print(f"a window of {HUGE} frames was stopped after {took:.3f} s")
    assert run.train.steps - windows < 1000
    twin.fit(run.train.steps - windows)
    assert_equal(run, twin)


def test_one_huge_window_through_run() -> None:
    """`run` is interrupted too, and an update that was under way is not half made."""
    run, data = huge()
    feed = run.bp.generate_feed_dict("deep", data, 2)
    before = run.contents()
    run.bp.run(run.loss, feed)  # compiled, and its pages touched

    def endless() -> None:
        while True:
            run.bp.run(run.loss, feed)

    _, took = interrupted(endless, lambda: time.sleep(0.05))
    print(f"run over {HUGE} frames was stopped after {took:.3f} s")
    for got, expected in zip(run.contents()[:-4], before[:-4], strict=True):
        assert_identical(got, expected)


# ---- two nets, two threads


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_nets_at_once(dtype: str) -> None:
    """The same bits as one after the other: nothing is shared but the code."""

    def whole(seed: int) -> list[Any]:
        run = Run(seed, dtype)
        losses = [run.fit(300), run.fit(1)]
        run.bp.copy_state_forward()
        return [*losses, run.stream(500), run.bp.evaluate(run.loss, run.data), *run.contents()]

    expected = [whole(seed) for seed in (1, 2, 3)]
    results = [in_thread(lambda seed=seed: whole(seed)) for seed in (1, 2, 3)]
    for result, alone in zip(results, expected, strict=True):
        for got, bits in zip(result(), alone, strict=True):
            assert_identical(got, bits)


def test_many_streams_of_one_net() -> None:
    """Steppers that carry their own state, one thread each: none sees another."""
    run = Run()
    run.fit(20)
    inputs = [
        np.random.default_rng(n).normal(size=(200, 2, 3)).astype(np.float32) for n in range(4)
    ]

    def stream(stepper: Any, values: np.ndarray) -> np.ndarray:
        outputs = []
        for value in values:
            stepper.inputs[0][...] = value
            stepper()
            outputs.append(stepper.output.copy())
        return np.array(outputs)

    def steppers() -> list[Any]:  # made by one thread, which has the net to itself for that
        return [run.bp.stepper(own_state=True) for _ in inputs]

    expected = [stream(*each) for each in zip(steppers(), inputs, strict=True)]
    results = [
        in_thread(lambda each=each: stream(*each)) for each in zip(steppers(), inputs, strict=True)
    ]
    for result, alone in zip(results, expected, strict=True):
        assert_identical(result(), alone)


# ---- one net, two threads


def intrusions(run: Run) -> dict[str, Callable[[], Any]]:
    """What nobody may do to a net, or with it, while another thread trains it."""
    bp, data = run.bp, run.data
    feed = bp.generate_feed_dict("deep", [array[:6] for array in data], 2)
    stepper, own = bp.stepper(), bp.stepper(own_state=True)
    weight = next(iter(bp.parameters))
    state = bp.generate_output_definitions("deep")
    arrays = bp.run(state, feed)
    window = [array[:6] for array in data]

    def set_weight() -> None:
        bp.parameters[weight] = np.zeros_like(values)

    def set_state() -> None:
        bp.state["deep"]["hidden-0"] = np.zeros((5, 3))

    values = bp.parameters[weight]
    return {
        "fit": lambda: run.fit(1),
        "evaluate": lambda: bp.evaluate(run.loss, data),
        "predict": lambda: bp.predict(data[:1]),
        "step": lambda: bp.step(data[0][0]),
        "stepper": stepper,
        "a stepper's own state": own,
        "run": lambda: bp.run([run.out], feed),
        "run a training operation": lambda: bp.run([run.train], feed),
        "gradients": lambda: bp.gradients(run.loss, feed),
        "read a weight": lambda: bp.parameters[weight],
        "set a weight": set_weight,
        "set state": set_state,
        "reset_state": lambda: bp.reset_state("deep"),
        "copy_state_forward": lambda: bp.copy_state_forward(),
        "generate_feed_dict": lambda: bp.generate_feed_dict("deep", window, 2),
        "save_output_state": lambda: bp.save_output_state("deep", arrays),
        "save": lambda: bp.save(os.devnull + "/net"),
    }


def until_busy(work: Callable[[], Any]) -> None:
    """Wait until another thread is inside its call: until a harmless one of ours is refused."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            work()
        except bptt.UsageError:
            return
        time.sleep(0.01)
    raise AssertionError("20 s beside another thread's call, and never refused")


def test_two_threads_on_one_net_while_it_trains() -> None:
    """Refused at once, each of them, and the training that goes on is as if nobody had asked."""
    run, twin = Run(), Run()
    run.fit(3)
    twin.fit(3)
    calls = intrusions(run)
    intrusions(twin)  # asking costs a few frames
    begun = threading.Event()

    def intrude() -> dict[str, str]:
        begun.wait()
        time.sleep(0.2)
        until_busy(lambda: run.bp.evaluate(run.loss, run.data))
        outcome = {}
        for name, call in calls.items():
            try:
                call()
                outcome[name] = "was allowed"
            except bptt.UsageError:
                outcome[name] = "refused"
            except BaseException as error:
                outcome[name] = repr(error)
        return outcome

    def train() -> None:
        begun.set()
        run.fit(ENDLESS)

    outcome, _ = interrupted(train, intrude)
    assert outcome == dict.fromkeys(calls, "refused")
    twin.fit(run.train.steps - 3)
    assert_equal(run, twin)
    assert_identical(run.fit(5), twin.fit(5))


def test_a_signal_handler_cannot_use_the_net_it_interrupts() -> None:
    """It runs in the middle of a window: what it asks for is refused, and the run goes on."""
    run, twin = Run(), Run()
    refused: list[str] = []

    def handler(number: int, frame: Any) -> None:
        for call in (lambda: run.bp.save(os.devnull + "/net"), lambda: run.fit(1)):
            try:
                call()
            except bptt.UsageError as error:
                refused.append(str(error))

    before = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    try:
        timer.start()
        windows = 0
        while len(refused) < 2:
            run.fit(20_000)
            windows += 20_000
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert all("signal handler" in message for message in refused)
    twin.fit(windows)
    assert_equal(run, twin)


def test_a_call_that_is_under_way_lets_only_its_callback_in() -> None:
    """Wherever in a call a signal handler runs: between two of the core's calls, too."""
    run, twin = Run(), Run()
    with run.bp._net.exclusive:
        for call in (run.bp.reset_state, run.bp.save, run.bp.predict):
            with pytest.raises(bptt.UsageError, match="signal handler"):
                call("deep")
        with run.bp._net.lent():
            run.bp.reset_state("deep")
        with pytest.raises(bptt.UsageError, match="signal handler"):
            run.bp.reset_state("deep")
    run.fit(3)
    twin.fit(3)
    assert_equal(run, twin)


# ---- one net, a team of threads


Cell = Callable[[bptt.BPTT, Any], Any]


def lstm_of(peephole: str | None, cell: Callable[..., Any]) -> Cell:
    return lambda bp, x: cell(bp, x, 20, peephole=peephole, layer_index=0)[1]


def one_weight(bp: bptt.BPTT, x: Any) -> Any:
    """It meets two inputs of one sum, and is wide enough for its gradient to be shared."""
    w = bp.get_variable("W", (60, 60))
    a, b = (bptt.layers.dense(bp, x, 60, name=name) for name in "ab")
    return bptt.tanh(w @ a + w @ b)


CELLS: dict[str, Cell] = {
    "one weight": one_weight,
    "rnn": lambda bp, x: bptt.layers.rnn(bp, x, 33, output=True),
    "gru after": lambda bp, x: bptt.layers.gru(bp, x, 20),
    "gru before": lambda bp, x: bptt.layers.gru(bp, x, 70, reset="before"),
    "lstm coupled": lambda bp, x: bptt.layers.lstm(bp, x, 20, coupled=True)[1],
    "lstm projected": lambda bp, x: bptt.layers.lstm(bp, x, 80, projection=70, peephole="full")[1],
    "rnn from primitives": lambda bp, x: rnn_cell(bp, x, 33, output=True),
    **{f"lstm {peephole}": lstm_of(peephole, bptt.layers.lstm) for peephole in PEEPHOLES},
    **{f"lstm {peephole} from primitives": lstm_of(peephole, lstm_cell) for peephole in PEEPHOLES},
    "lstm normalised": lambda bp, x: bptt.layers.lstm(bp, x, 20, layer_norm=True)[1],
    "gru, dropped": lambda bp, x: bptt.layers.gru(bp, x, 20, dropout=0.2, recurrent_dropout=0.2),
    "rnn, few units": lambda bp, x: bptt.layers.rnn(bp, x, 5, output=True),
    "lstm full, few units": lambda bp, x: bptt.layers.lstm(bp, x, 7, peephole="full")[1],
    "lstm projected to few": lambda bp, x: bptt.layers.lstm(bp, x, 80, projection=6)[1],
    "gru before, few units": lambda bp, x: bptt.layers.gru(bp, x, 6, reset="before"),
    "lstm, zoned": lambda bp, x: bptt.layers.lstm(bp, x, 20, zoneout=(0.3, 0.1))[1],
}


class Shared:
    """A net that so many threads share, however small its windows are."""

    def __init__(
        self, cell: Cell, lanes: int, dtype: str, threads: int, num_loops: int = 12
    ) -> None:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x, y = bp.placeholder((3, lanes)), bp.placeholder((2, lanes))
            noisy = x + bp.random_normal(x.shape, stddev=0.1)
            deep = bptt.layers.dense(bp, noisy, 40, activation=bptt.tanh)
            return x, y, bptt.layers.dense(bp, cell(bp, deep), 2)

        rng = np.random.default_rng(5)
        self.data = [rng.normal(size=(50, n, lanes)).astype(dtype) for n in (3, 2)]
        self.bp = bptt.BPTT(seed=3, dtype=dtype)
        graph = self.bp.generate_graphs(frame, num_loops=num_loops)["deep"]
        self.bp._net.team = _core.Team(threads, 0)
        self.loss = mean_square(graph)
        self.train = self.bp.minimize(self.loss, bptt.Adam(0.01), clip=bptt.ClipByGlobalNorm(0.1))

    def results(self) -> dict[str, np.ndarray]:
        bp = self.bp
        found = {"losses": bp.fit(self.train, self.data, steps=5).loss}
        bp.copy_state_forward()
        found["outputs"] = bp.predict(self.data[:1])
        feed = bp.generate_feed_dict("deep", [array[:12] for array in self.data], 2)
        found |= {f"d {k}": v for k, v in gradients_of_everything(bp, self.loss, feed).items()}
        found |= {name: bp.parameters[name] for name in bp.parameters}
        found |= {f"deep {name}": bp.state["deep"][name] for name in bp.state["deep"]}
        return found


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("lanes", "dtype"), [(1, "float32"), (19, "float64"), (32, "float32")])
def test_the_same_bits_for_every_number_of_threads(cell: str, lanes: int, dtype: str) -> None:
    """One lane, lanes that cannot be dealt out, and lanes that can."""
    expected = Shared(CELLS[cell], lanes, dtype, 1).results()
    for threads in (2, 3, 4):
        got = Shared(CELLS[cell], lanes, dtype, threads).results()
        assert got.keys() == expected.keys()
        for name, bits in expected.items():
            try:
                assert_identical(got[name], bits)
            except AssertionError as error:
                raise AssertionError(f"{name} with {threads} threads: {error}") from None


@pytest.mark.parametrize(("lanes", "deals"), [(32, {"lanes", "frames"}), (1, {"rows"})])
def test_lanes_frames_and_rows_are_dealt_out(lanes: int, deals: set[str]) -> None:
    """What the test above is about does happen: or its threads would have nothing to do."""
    net = Shared(CELLS["lstm None"], lanes, "float32", 2)
    net.bp.fit(net.train, net.data, steps=1)
    (program,) = net.bp._net._programs.values()
    assert program.shared
    assert deals <= set(program.deals)


@pytest.mark.parametrize("peephole", PEEPHOLES)
def test_rows_in_several_panels(peephole: str | None) -> None:
    """Panels of each kind for more than one thread, and a lane alone as well as a few."""
    for lanes, width in ((1, 130), (3, 150)):

        def cell(bp: bptt.BPTT, x: Any, width: int = width) -> Any:
            return bptt.layers.lstm(bp, x, width, peephole=peephole)[1]

        expected = Shared(cell, lanes, "float32", 1).results()
        for threads in (2, 3):
            got = Shared(cell, lanes, "float32", threads).results()
            for name, bits in expected.items():
                assert_identical(got[name], bits)


def test_windows_that_are_worth_it_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their work alone: docs/threads.md."""
    shared = {}
    for width in (16, 128):
        bp = bptt.BPTT(seed=0)

        def frame(bp: bptt.BPTT, depth: str, width: int = width) -> Any:
            x = bp.placeholder((4, 64))
            return x, x, bptt.layers.dense(bp, bptt.layers.lstm(bp, x, width)[1], 4)

        out = bp.generate_graphs(frame, num_loops=64)["deep"][-1]
        bp.evaluate(bptt.reduce_mean(out), [np.zeros((64, 4, 64))])
        (program,) = bp._net._programs.values()
        shared[width] = program.shared
    assert shared == {16: False, 128: True}


def test_never_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bptt.model.processors", lambda: 3)
    assert bptt.BPTT().threads == 3
    assert [bptt.BPTT(threads=n).threads for n in (1, 2, 3, 4)] == [1, 2, 3, 3]
    net = Shared(CELLS["rnn"], 4, "float32", 1)
    assert copy.deepcopy(net.bp).threads == 3


def test_a_team_does_not_outlive_its_net() -> None:
    """Its threads end with it, and so do those of a copy."""
    count = lambda: len(os.listdir("/proc/self/task"))  # noqa: E731
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("a system that does not list threads in /proc")
    gc.collect()
    before = count()
    net = Shared(CELLS["rnn"], 32, "float32", 3)
    net.results()
    assert count() == before + 2
    twin = copy.deepcopy(net.bp)
    twin._net.team = _core.Team(3, 0)
    twin.predict(net.data[:1])
    assert count() == before + 4
    del net, twin
    gc.collect()
    assert count() == before


def test_a_team_s_window_is_stopped() -> None:
    """Ctrl-C reaches the thread that called, and ends the others' work with it."""
    net, twin = (Shared(CELLS["lstm full"], 32, "float32", 2) for _ in range(2))
    _, took = interrupted(
        lambda: net.bp.fit(net.train, net.data, steps=ENDLESS), lambda: time.sleep(0.2)
    )
    print(f"a team was stopped after {took:.3f} s")
    twin.bp.fit(twin.train, twin.data, steps=net.train.steps)
    for name in net.bp.parameters:
        assert_identical(net.bp.parameters[name], twin.bp.parameters[name])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_a_team_of_its_own() -> None:
    net = Shared(CELLS["rnn"], 32, "float32", 2)
    net.results()
    weights = dict(net.bp.parameters)
    here = net.bp.fit(net.train, net.data, steps=0).loss
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, net.bp.fit(net.train, net.data, steps=3).loss.tobytes())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        there = np.frombuffer(pipe.read(), here.dtype)
    os.waitpid(child, 0)
    for name, array in weights.items():
        assert_identical(net.bp.parameters[name], array)
    assert_identical(there, net.bp.fit(net.train, net.data, steps=3).loss)
