"""What `test_ranks.py` has ranks do: scenarios for one process or for several, and ways to fail.

    mpiexec -n 2 python -m mpi4py tests/on_ranks.py all RESULTS.npz

Lanes are dealt out unequally. The first rank writes what was found, by ``SCENARIO/WHAT``.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import bptt
from bptt import layers, losses

LANES = {1: [5], 2: [2, 3], 3: [1, 3, 1]}  # by the number of ranks
FRAMES, WINDOW, STEPS = 23, 4, 9
KILLED, EVERY = 7, 3  # the window after which a rank is killed, with a checkpoint every so many
Results = dict[str, Any]


class Here:
    """One rank, or without a communicator the only one, and its lanes of everything."""

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank = comm.rank if comm else 0
        lanes = LANES[comm.size if comm else 1]
        self.lanes = lanes[self.rank]
        self.first = sum(lanes[: self.rank])

    def own(self, whole: np.ndarray) -> np.ndarray:
        """Of the last axis, this rank's lanes."""
        return whole[..., self.first : self.first + self.lanes]

    def draws(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(7).normal(size=(FRAMES, *shape))

    def all(self, value: Any) -> list[Any]:
        return self.comm.allgather(value) if self.comm else [value]

    def results(self, bp: bptt.BPTT, history: Any) -> Results:
        """All that has to be as in one process; what ranks have in common has the same bits."""
        common = {f"weight {name}": bp.parameters[name] for name in bp.parameters}
        common |= {"loss": history.loss, **history.metrics}
        for other in self.all(common):
            for name, value in common.items():
                np.testing.assert_array_equal(other[name], value, strict=True)
        found = dict(common)
        for name, value in bp.state["deep"].items():
            parts = self.all(value)
            lanes = [part.shape[1] for part in parts] == self.all(self.lanes)
            found[f"state {name}"] = np.concatenate(parts, axis=1) if lanes else value
        return found


def start(frame: Callable[..., Any], seed: int = 3, window: int = WINDOW, **how: Any) -> Any:
    bp = bptt.BPTT(seed, "float64")
    return bp, bp.generate_graphs(frame, num_loops=window, **how)["deep"]


# ---- the same as in one process


def noisy(here: Here) -> Callable[..., Any]:
    """An LSTM with noise of two kinds."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        batch = here.lanes if depth == bp.DEEP else 1
        x, y = bp.placeholder((2, batch)), bp.placeholder((1, batch))
        seen = x + bp.random_normal((2, batch), stddev=0.3) + bp.random_uniform((1, batch))
        _, h = layers.lstm(bp, seen, 4, peephole="full")
        return x, y, layers.dense(bp, h, 1)

    return frame


def minimised(bp: bptt.BPTT) -> Any:
    """The mean of a mean over lanes and of one over weights."""
    _, y, out = bp.graphs["deep"]
    weight = out.trace.variables["lstm_layer_0/W_xi"]
    loss = losses.mse(out, y) * 2.0 + bptt.reduce_mean(bptt.square(weight)) / 10
    return bp.minimize(loss, bptt.Adam(0.03), bptt.ClipByGlobalNorm(0.5))


def lstm_data(here: Here) -> list[np.ndarray]:
    return [here.own(here.draws(features, 5)) for features in (2, 1)]


def lstm(here: Here) -> Results:
    bp, (_, y, out) = start(noisy(here))
    metrics = {
        "absolute": bptt.reduce_mean(bptt.reduce_sum(bptt.abs(out - y), axis=0)),
        "sum": losses.mse(out, y, reduction="sum"),
    }
    train = minimised(bp)
    told = []
    history = bp.fit(
        train,
        lstm_data(here),
        STEPS,
        metrics=metrics,
        stride=3,
        callback=(lambda step, loss: told.append((step, loss))) if here.rank == 0 else None,
        every=4,
        comm=here.comm,
    )
    assert here.rank or told == [(step, history.loss[step - 1]) for step in (4, 8)]
    return here.results(bp, history)


def sums(here: Here) -> Results:
    """A sum over lanes within each frame; starting values that are learned."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        batch = here.lanes if depth == bp.DEEP else 1
        x = bp.placeholder((3, batch))
        h = bp.get_past_variable("h", bp.get_variable("start", (3, 1)))
        W, each = bp.get_variable("W", (3, 3)), bp.constant(here.own(np.arange(1.0, 6.0))[None])
        h = bptt.tanh(W @ h + x * (each if depth == bp.DEEP else 1.0))
        return x, bp.name_variable("h", h)

    bp, (_, h) = start(frame)
    loss = 0.5 * bptt.reduce_mean(bptt.reduce_sum(bptt.square(h - 0.3), axis=(0, 1)))
    train = bp.minimize(loss, bptt.SGD(0.02, momentum=0.9), bptt.ClipByValue(2.0))
    resets = here.own(here.draws(5) > 1)
    data = [here.own(here.draws(3, 5))]
    return here.results(bp, bp.fit(train, data, STEPS, resets=resets, comm=here.comm))


def masks(here: Here) -> Results:
    """Lanes of different lengths: windows in which a rank has nothing, and one with nothing."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        batch = here.lanes if depth == bp.DEEP else 1
        x, y = bp.placeholder((2, batch)), bp.placeholder((1, batch))
        return x, y, layers.dense(bp, layers.gru(bp, x, 3), 4)

    bp, (_, y, out) = start(frame)
    train = bp.minimize(losses.softmax_cross_entropy(out, y), bptt.Adam(0.05))
    there = here.draws(5) > -0.5
    there[4:9, :2] = there[12:16] = False
    there[16:, 4] = False
    symbols = np.random.default_rng(1).integers(0, 4, size=(FRAMES, 1, 5)).astype(float)
    history = bp.fit(
        train,
        [here.own(here.draws(2, 5)), here.own(symbols)],
        STEPS,
        masks=here.own(there),
        resets=here.own(here.draws(5) > 0.8),
        comm=here.comm,
    )
    assert history.loss[3] == 0
    return here.results(bp, history)


def segments(here: Here) -> Results:
    """Windows that are computed in parts, and again on the way back, with the same noise."""
    bp, _ = start(noisy(here), window=8, recompute_every=3)
    resets = here.own(here.draws(5) > 1)
    history = bp.fit(minimised(bp), lstm_data(here), STEPS, resets=resets, comm=here.comm)
    return here.results(bp, history)


def shared(here: Here) -> Results:
    """Noise, data and a state that all lanes have in common."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        batch = here.lanes if depth == bp.DEEP else 1
        slow = bp.get_past_variable("slow", np.full((1, 1), 0.2))  # before there are lanes
        x, level = bp.placeholder((2, batch)), bp.placeholder((1, 1))
        if depth == bp.DEEP:
            level = level + bp.random_normal((1, 1))
        slow = bp.name_variable("slow", 0.9 * slow + 0.1 * level)
        h = layers.rnn(bp, x * slow + bp.random_normal((2, batch)), 3)
        return x, bp.trace.placeholders[1], h

    bp, (_, _, h) = start(frame)
    train = bp.minimize(bptt.reduce_mean(bptt.square(h - 1)), bptt.SGD(0.1))
    data = [here.own(here.draws(2, 5)), here.draws(1, 1)]
    return here.results(bp, bp.fit(train, data, STEPS, comm=here.comm))


SCENARIOS = {each.__name__: each for each in (lstm, sums, masks, segments, shared)}
NEED_LANES = ("shared",)  # what has one column in a rank with one lane is that lane's own


# ---- what fails, fails in all ranks, which go on


def failures(here: Here) -> Results:
    """By case: what each of two ranks got."""
    last = here.rank == here.comm.size - 1
    found: Results = {}
    data = lstm_data(here)

    def tried(case: str, act: Callable[[], Any]) -> None:
        try:
            act()
            mine = "nothing"
        except Exception as error:
            mine = f"{type(error).__name__}: {error}"
        found[case] = here.all(mine)

    def goes_on(bp: bptt.BPTT, train: Any, data: Any) -> None:
        history = bp.fit(train, data, 2, start=bp.next_frame, comm=here.comm)
        here.results(bp, history)

    bp, (_, y, out) = start(noisy(here))
    train = minimised(bp)
    x_bad = data[0][..., :-1] if last else data[0]
    tried("data", lambda: bp.fit(train, [x_bad, data[1]], 2, comm=here.comm))
    dataset = bptt.data.Lanes([each[..., 0] for each in data])
    tried("dataset", lambda: bp.fit(train, dataset, 2, comm=here.comm))
    tried("steps", lambda: bp.fit(train, data, 3 + here.rank, comm=here.comm))

    def complain(step: int, loss: float) -> None:
        if last and step == 4:
            raise ValueError("enough")

    def fit(callback: Callable[[int, float], object]) -> Any:
        return bp.fit(train, data, STEPS, callback=callback, every=2, comm=here.comm)

    tried("callback", lambda: fit(complain))
    assert here.all(train.steps) == [4] * here.comm.size
    goes_on(bp, train, data)
    history = fit(lambda step, loss: last and step == 6)
    assert history.stopped and len(history.loss) == 6
    missing = os.path.join(os.path.dirname(__file__), "no folder", "net")
    tried("checkpoint", lambda: bp.fit(train, data, 2, checkpoint=missing, comm=here.comm))

    def diverge(step: int, loss: float) -> None:
        if last:
            bp.parameters["dense_0/b"] = bp.parameters["dense_0/b"] + 1e-12

    tried("diverged", lambda: bp.fit(train, data, 2, callback=diverge, every=1, comm=here.comm))
    tried("begun apart", lambda: bp.fit(train, data, 2, comm=here.comm))

    bp, (_, y, out) = start(noisy(here), seed=here.rank)
    tried("seed", lambda: bp.fit(minimised(bp), data, 2, comm=here.comm))

    bp, (_, y, out) = start(noisy(here))
    weights = bptt.reduce_sum(bptt.square(out.trace.variables["dense_0/W"]))
    mixed = losses.mse(out - bptt.reduce_mean(out, axis=1), y)
    for case, loss in {
        "root": bptt.sqrt(losses.mse(out, y)),
        "sum and weights": losses.mse(out, y, reduction="sum") + weights,
        "product": losses.mse(out, y) * bptt.reduce_mean(out),
        "mixed lanes": mixed,
    }.items():
        op = bp.minimize(loss, bptt.SGD(0.1))
        tried(case, lambda op=op: bp.fit(op, data, 2, comm=here.comm))

    def symbols(bp: bptt.BPTT, depth: str) -> Any:
        batch = here.lanes if depth == bp.DEEP else 1
        x, y = bp.placeholder((1, batch)), bp.placeholder((1, batch))
        return x, y, layers.dense(bp, layers.rnn(bp, x, 2), 3)

    bp, (_, y, out) = start(symbols)
    train = bp.minimize(losses.softmax_cross_entropy(out, y), bptt.SGD(0.1))
    y_bad = np.ones((FRAMES, 1, here.lanes))
    y_bad[9, 0, 0] = 7 if last else 1
    before = bp.parameters["dense_0/b"]
    tried("inside", lambda: bp.fit(train, [data[1], y_bad], 4, comm=here.comm))
    assert here.all(train.steps) == [2] * here.comm.size
    assert (bp.parameters["dense_0/b"] != before).any() and bp.next_frame == 8
    goes_on(bp, train, [data[1], np.ones_like(y_bad)])

    def large(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, here.lanes if depth == bp.DEEP else 1))
        return x, bp.get_variable("w", (1, 1)) * x

    bp, (_, y) = start(large)
    train = bp.minimize(bptt.reduce_mean(bptt.square(y)), bptt.SGD(1e-3))
    x = np.ones((FRAMES, 1, here.lanes))
    x[5, 0, 0] = 1e200 if last else 1
    tried("not finite", lambda: bp.fit(train, [x], 4, comm=here.comm))
    assert here.all(train.steps) == [1] * here.comm.size
    goes_on(bp, train, [np.ones_like(x)])
    return found


# ---- deaths


def resumed(here: Here, path: str) -> Results:
    """From a checkpoint to the end."""
    bp = bptt.load(path, noisy(here), comm=here.comm)
    train = minimised(bp)
    left = STEPS - train.steps
    history = bp.fit(train, lstm_data(here), left, start=bp.next_frame, stride=3, comm=here.comm)
    return here.results(bp, history)


def killed(here: Here, path: str) -> None:
    """The last rank is killed on the way."""
    bp, _ = start(noisy(here))

    def kill(step: int, loss: float) -> None:
        if here.rank == here.comm.size - 1 and step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)

    bp.fit(
        minimised(bp),
        lstm_data(here),
        STEPS,
        stride=3,
        callback=kill,
        every=1,
        checkpoint=path,
        checkpoint_every=EVERY,
        comm=here.comm,
    )


def broken(here: Here) -> None:
    """MPI fails in one rank."""
    from mpi4py import MPI

    class Broken(MPI.Intracomm):
        def Allreduce(self, *args: Any, **kwargs: Any) -> None:
            if self.rank == 1:
                raise OSError("the wire is cut")
            super().Allreduce(*args, **kwargs)

    bp, _ = start(noisy(here))
    bp.fit(minimised(bp), lstm_data(here), STEPS, comm=Broken(here.comm))


def outside(here: Here) -> None:
    """One rank fails before it meets the others."""
    if here.rank == 1:
        raise LookupError("no data here")
    bp, _ = start(noisy(here))
    bp.fit(minimised(bp), lstm_data(here), STEPS, comm=here.comm)


def main(what: str, *paths: str) -> None:
    from mpi4py import MPI

    here = Here(MPI.COMM_WORLD)
    if what in ("killed", "broken", "outside"):
        globals()[what](here, *paths)
        return
    found = {}
    for name, scenario in SCENARIOS.items():
        if min(LANES[here.comm.size]) > 1 or name not in NEED_LANES:
            found |= {f"{name}/{key}": value for key, value in scenario(here).items()}
    if here.comm.size == 2:
        found |= {f"failures/{key}": value for key, value in failures(here).items()}
    if len(paths) > 1:
        found |= {f"resumed/{key}": value for key, value in resumed(here, paths[1]).items()}
    if here.rank == 0:
        np.savez(paths[0], **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
