"""The bar: drawn for people alone, with the loss, and without a trace in what is computed."""

import functools
import io
import sys
import textwrap

import numpy as np
import pytest

import bptt
from bptt import progress
from rounding import assert_identical
from terminal import on_a_terminal, through_pipes

WAVE = np.sin(0.1 * np.arange(401))
DATA = [WAVE[:-1], WAVE[1:]]


def frame(bp, depth):
    x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
    noisy = x + bp.random_normal((1, 1), stddev=0.01)
    _, h = bptt.layers.lstm(bp, noisy, width=3)
    return x, y, bptt.layers.dense(bp, h, 1)


def net(rate=0.01):
    bp = bptt.BPTT(seed=0)
    _, y, out = bp.generate_graphs(frame, num_loops=8)[bp.DEEP]
    loss = bptt.reduce_mean(bptt.square(out - y))
    return bp, bp.minimize(loss, bptt.Adam(rate)), {"loss too": loss * 1.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(monkeypatch):
    """From now on standard error is a terminal."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


PROGRAM = textwrap.dedent("""
    import signal, sys, threading
    sys.path.insert(0, {tests!r})
    import numpy as np, bptt
    from test_progress import DATA, net

    bp, train, _ = net()
    bp.fit(train, DATA, steps=300)
    print("silent:")
    bp.fit(train, DATA, steps=300, progress=False)
    sequential = bptt.Sequential([bptt.RNN(3), bptt.Dense(1)])
    x, y = (array.reshape(-1, 1, 1) for array in DATA)
    sequential.fit(x, y, epochs=2, window=10, progress=False)
    print("epochs:")
    sequential.fit(x, y, epochs=3, window=30)
    print("interrupted:")
    before = train.steps
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    try:
        bp.fit(train, DATA, steps=20_000_000)
    except KeyboardInterrupt:
        made = train.steps - before
        print(f"clean: {{made > 0 and bp.next_frame == 8 * made % 400}}")
""")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("progress") / "program.py"
    path.write_text(PROGRAM.format(tests=str(__file__).rpartition("/")[0]))
    return str(path)


def test_on_a_terminal_there_is_a_bar_with_the_loss(program):
    shown, rest = on_a_terminal(program).split("silent:")
    silent, rest = rest.split("epochs:")
    epochs, interrupted = rest.split("interrupted:")
    for bar, total in ((shown, "300/300"), (epochs, "epoch 3/3: 100%"), (epochs, "42/42")):
        assert total in bar
        assert "loss " in bar
        assert "windows/s" in bar
    assert silent.strip() == ""
    assert "/20000000 [" in interrupted
    assert interrupted.splitlines()[-1] == "clean: True"


def test_through_pipes_nothing_is_drawn(program):
    lines = through_pipes(program).split()
    assert lines == ["silent:", "epochs:", "interrupted:", "clean:", "True"]


@pytest.mark.parametrize(
    "given",
    [
        {"steps": 300},
        {"steps": 100, "start": 17, "stride": 3},
        {"steps": 60, "resets": np.arange(400)[:, None] % 31 == 0},
        {"steps": 50, "masks": np.arange(400)[:, None] % 7 > 0},
    ],
    ids=lambda given: "-".join(given),
)
@pytest.mark.parametrize("every", [None, 1, 7])
def test_it_changes_no_bit(given, every, monkeypatch):
    terminal = watched(monkeypatch)
    seen, runs = [], []
    for shown in (True, False):
        bp, train, metrics = net(rate=bptt.schedules.cosine(0.01, 400))
        calls: list[tuple[int, float]] = []
        note = functools.partial(lambda calls, *call: calls.append(call), calls)
        more = {} if every is None else {"every": every, "callback": note}
        history = bp.fit(train, DATA, metrics=metrics, progress=shown, **given, **more)
        runs.append((history, bp.next_frame, dict(bp.parameters), dict(bp.state["deep"]), calls))
        seen.append(terminal.getvalue())
    assert f"{given['steps']}/{given['steps']}" in seen[0]
    assert seen[0] == seen[1]  # the second run drew nothing more
    (shown, *left), (silent, *right) = runs
    assert_identical(shown.loss, silent.loss)
    assert_identical(shown["loss too"], silent["loss too"])
    assert left[0] == right[0]
    assert left[3] == right[3]
    for mine, other in zip(left[1:3], right[1:3], strict=True):
        for name in mine:
            assert_identical(mine[name], other[name])


@pytest.mark.parametrize("seconds", [2e-6, 1e-3, 3.0])
def test_the_core_is_asked_often_enough_and_no_oftener(seconds, monkeypatch):
    """By a clock that goes on by so much with each window: about ten refreshes a second."""
    terminal = watched(monkeypatch)
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    total = max(5, int(10 / seconds))
    bar = progress.Bar(total, True)
    done = calls = 0
    while done < total:
        windows = min(bar.ahead(), total - done)
        clock[0] += windows * seconds
        bar.advance(windows, 0.5)
        done, calls = done + windows, calls + 1
        assert windows * seconds <= max(0.15, seconds)
    bar.close()
    refreshes = terminal.getvalue().count("\r")
    if seconds < 0.1:
        assert 90 < refreshes < 110
        assert calls < refreshes + 20
    else:
        assert calls == total


def test_a_callback_ends_it_where_it_stops(monkeypatch):
    terminal = watched(monkeypatch)
    bp, train, _ = net()
    history = bp.fit(train, DATA, steps=300, every=10, callback=lambda step, loss: step == 40)
    assert history.stopped
    assert "40/300" in terminal.getvalue()
    assert f"loss {history.loss[-1]:.2e}" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_it_is_closed_when_the_callback_raises(monkeypatch):
    terminal = watched(monkeypatch)

    def fail(step, loss):
        raise ZeroDivisionError

    bp, train, _ = net()
    with pytest.raises(ZeroDivisionError):
        bp.fit(train, DATA, steps=300, every=10, callback=fail)
    assert terminal.getvalue().endswith("\n")
    assert "10/300" in terminal.getvalue()


def test_workers_draw_nothing(monkeypatch):
    terminal = watched(monkeypatch)
    assert progress.watched()
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: "a process")
    assert not progress.watched()
    bp, train, _ = net()
    bp.fit(train, DATA)
    assert terminal.getvalue() == ""


def test_a_process_without_standard_error_trains(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    bp, train, _ = net()
    assert np.isfinite(bp.fit(train, DATA).loss).all()


def test_starts_that_are_given_up_begin_the_bar_anew(monkeypatch):
    terminal = watched(monkeypatch)
    bar = progress.Bar(100, True)
    bar.advance(60, 0.5)
    bar.restart("restart 1")
    bar.advance(100, 0.25)
    bar.close()
    assert "restart 1: 100%" in terminal.getvalue()
    assert "100/100" in terminal.getvalue()


def test_of_nothing_there_is_no_bar(monkeypatch):
    terminal = watched(monkeypatch)
    bp, train, _ = net()
    bp.fit(train, DATA, steps=0)
    bp.fit(train, bptt.data.Lanes(DATA), steps=0)
    assert terminal.getvalue() == ""


def test_of_a_dataset_it_says_how_many_windows_there_were(monkeypatch):
    """How many there will be is known at the end alone, unless steps are given."""
    terminal = watched(monkeypatch)
    bp, train, _ = net()
    bp.fit(train, bptt.data.Lanes(DATA), epochs=2)
    assert "100 windows [" in terminal.getvalue()
    bp.fit(train, bptt.data.Lanes(DATA), steps=70)
    assert "70/70 [" in terminal.getvalue()
