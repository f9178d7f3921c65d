"""Searches over joblib: the same bits on every backend, cancelled when one passes, dead workers."""

import os
import signal
import time

import joblib
import numpy as np
import pytest

import bptt
from bptt import searching

SEEDS = (3, 1, 4, 5, 9, 2)


def frame(bp, depth):
    x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
    _, h = bptt.layers.lstm(bp, x, 3)
    return x, y, bptt.layers.dense(bp, h, 1)


def trained(seed, rate=0.05):
    """A small net and its loss; noise and order of candidates have no part in it."""
    wave = np.sin(0.3 * np.arange(101))
    bp = bptt.BPTT(seed)
    _, y, out = bp.generate_graphs(frame, num_loops=5)[bp.DEEP]
    loss = bptt.reduce_mean(bptt.square(out - y))
    bp.fit(bp.minimize(loss, bptt.Adam(rate)), [wave[:-1], wave[1:]], steps=40)
    return bp, bp.evaluate(loss, [wave[:-1], wave[1:]])


@pytest.fixture(scope="module")
def build():
    """The same as a closure, so that workers need not import this file."""
    make, f = trained.__code__, frame

    def build(seed, rate=0.05):
        import types

        import numpy as np

        import bptt

        namespace = {"np": np, "bptt": bptt, "frame": types.FunctionType(f, {"bptt": bptt})}
        return types.FunctionType(make, namespace)(seed, rate)

    f = frame.__code__
    return build


@pytest.fixture(scope="module")
def alone():
    """Each candidate's score and net, made here and now."""
    return {seed: trained(seed) for seed in SEEDS}


def weights(bp):
    return {name: np.array(value) for name, value in bp.parameters.items()}


def assert_same(trial, made):
    bp, score = made
    assert trial.score == score
    loaded = trial.load(frame)
    for name, value in weights(bp).items():
        np.testing.assert_array_equal(loaded.parameters[name], value, strict=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_find_the_best_with_the_bits_of_a_plain_loop(build, alone, jobs):
    found = bptt.search(build, SEEDS, jobs=jobs)
    assert [trial.candidate for trial in found.trials] == list(SEEDS)
    for trial in found.trials:
        assert_same(trial, alone[trial.candidate])
    assert not found.passed
    assert found.best.score == min(score for _, score in alone.values())


def test_the_first_in_order_to_pass_wins_whoever_was_sooner(build, alone):
    scores = [alone[seed][1] for seed in SEEDS]
    bar = sorted(scores)[1]  # two of them pass
    first = next(i for i, score in enumerate(scores) if score <= bar)

    def slow_when_it_passes(seed):
        made = build(seed)
        if seed == SEEDS[first]:
            time.sleep(0.5)
        return made

    for backend in ("loky", "threading"):
        with joblib.parallel_config(backend, n_jobs=2):
            found = bptt.search(slow_when_it_passes, SEEDS, bar=bar)
        assert found.passed
        assert found.best is found.trials[-1]
        assert [trial.candidate for trial in found.trials] == list(SEEDS[: first + 1])
        assert_same(found.best, alone[SEEDS[first]])


def test_those_after_the_winner_are_cancelled(build, tmp_path):
    def leaves_a_mark(seed):
        (tmp_path / str(seed)).touch()
        return build(seed)

    assert bptt.search(leaves_a_mark, range(100), bar=1e9, jobs=2).best.candidate == 0
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) < 20


def test_a_space_is_all_combinations(build):
    found = bptt.search(build, {"seed": [0, 1], "rate": [0.01, 0.05, 0.2]}, jobs=1)
    expected = [{"seed": s, "rate": r} for s in (0, 1) for r in (0.01, 0.05, 0.2)]
    assert [trial.candidate for trial in found.trials] == expected
    best = min(expected, key=lambda candidate: trained(**candidate)[1])
    assert found.best.candidate == best


def test_infinity_marks_a_candidate_that_was_given_up(build):
    found = bptt.search(
        lambda seed: (build(seed)[0], float("inf") if seed < 2 else seed), range(4), jobs=1
    )
    assert found.best.candidate == 2


def deadly(build, seed, folder):
    """The candidate's own process dies, the first time it is tried."""
    mark = folder / f"died-{seed}"
    if seed == SEEDS[2] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return build(seed)


def by_value(function, build, folder):
    """`function(build, seed, folder)` of a seed, pickled whole."""
    code, seeds = function.__code__, SEEDS

    def call(seed):
        import os
        import signal
        import types

        names = {"os": os, "signal": signal, "SEEDS": seeds}
        return types.FunctionType(code, names)(build, seed, folder)

    return call


def test_a_worker_that_dies_is_run_again(build, alone, tmp_path):
    found = bptt.search(by_value(deadly, build, tmp_path), SEEDS, jobs=2)
    assert list(tmp_path.iterdir())  # one did die
    assert [trial.candidate for trial in found.trials] == list(SEEDS)
    for trial in found.trials:
        assert_same(trial, alone[trial.candidate])


def test_workers_that_die_again_and_again_end_the_search(tmp_path):
    def always(seed):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(Exception, match="terminated"):
        bptt.search(always, range(2), jobs=2, retries=1)


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_loses_a_worker(build, alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        found = bptt.search(by_value(deadly, build, tmp_path), SEEDS)
    assert list(tmp_path.iterdir())
    assert [trial.candidate for trial in found.trials] == list(SEEDS)
    for trial in found.trials:
        assert_same(trial, alone[trial.candidate])


@pytest.mark.parametrize("made", [None, 5, (5, 1.0), "net"])
def test_a_build_that_returns_no_net_is_told_so(made):
    with pytest.raises(bptt.UsageError, match=r"\(net, score\)"):
        bptt.search(lambda seed: made, [0], jobs=1)


@pytest.mark.parametrize("score", [float("nan"), "good", None])
def test_a_score_is_a_number(build, score):
    with pytest.raises(bptt.UsageError, match="score"):
        bptt.search(lambda seed: (build(seed)[0], score), [0], jobs=1)


def test_without_joblib_the_message_says_what_to_install(build, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install \"bptt\[search\]\""):
        bptt.search(build, [0])
    assert "bptt[search]" in searching.INSTALL
