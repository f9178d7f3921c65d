"""Many nets, one of them wanted: searches and restarts, run by joblib wherever joblib runs.

joblib (an extra: ``pip install "bptt[search]"``) decides where the nets are trained: processes of
this machine by default, a cluster with ``joblib.parallel_config("dask")`` or Ray's backend around
the call. What a candidate gives depends on the candidate alone, and which one wins on their order
alone, so the result has the same bits on every backend, with any number of workers.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from bptt import arrays
from bptt.errors import UsageError
from bptt.model import BPTT, FrameFunction, load

__all__ = ["INSTALL", "Search", "Trial", "search"]

INSTALL = 'pip install "bptt[search]"'
"""The command that brings joblib."""

Build = Callable[..., tuple[BPTT, float]]


@dataclass(frozen=True)
class Trial:
    """One candidate, tried.

    Attributes:
        candidate: what `build` was given: a seed, or a mapping of keyword arguments.
        score: what `build` returned of it; smaller is better.
        checkpoint: the net, as `BPTT.save` writes it.
    """

    candidate: Any
    score: float
    checkpoint: bytes

    def load(self, frame: FrameFunction) -> BPTT:
        """The net, to use or to train on; see `bptt.load`.

        Raises:
            CheckpointError: `frame` is not the function that the net was made of.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "net.safetensors")
            path.write_bytes(self.checkpoint)
            return load(path, frame)


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        trials: in the order of the candidates; if one passed, it is the last.
        best: the one with the smallest score, of equals the first; the one that passed, if one did.
        passed: whether it reached the bar.
    """

    trials: tuple[Trial, ...]
    best: Trial
    passed: bool


def search(
    build: Build,
    candidates: Iterable[Any] | Mapping[str, Sequence[Any]],
    *,
    bar: float | None = None,
    jobs: int | None = None,
    retries: int = 3,
) -> Search:
    """Try candidates side by side until one reaches the bar.

    The first candidate *in order* whose score is at most `bar` ends the search: those before it
    are waited for, those after it are cancelled. Without a bar, or if none reaches it, all are
    tried and the best is kept.

    Args:
        build: ``build(seed)`` for candidates that are given one by one, ``build(**candidate)``
            for a space; makes and trains one net, and returns it with its score, smaller being
            better (an evaluation error, say). It runs in another process, so it takes nothing but
            its candidate and what can be pickled.
        candidates: seeds, or whatever else `build` takes; or a space, a mapping from the name of
            an argument to its values, every combination of which is a candidate, the last name's
            values changing fastest.
        bar: the score that is good enough.
        jobs: how many to train at once; by default what ``joblib.parallel_config`` says, or as many
            as there are processors.
        retries: how often to begin again with what is left after a worker died. (Dask hands a dead
            worker's candidates to another by itself.)

    Raises:
        UsageError: no candidates, or a `build` that does not return a net with its score.
        ImportError: joblib is not installed.
        Exception: what `build` raised; or that workers died more than `retries` times without a
            candidate done in between.

    Example:
        .. code-block:: python

            def build(seed):
                bp = bptt.BPTT(seed)
                x, y, out = bp.generate_graphs(frame, num_loops=20)[bp.DEEP]
                loss = bptt.reduce_mean(bptt.square(out - y))
                bp.fit(bp.minimize(loss, bptt.Adam(0.01)), data, steps=1000)
                return bp, bp.evaluate(loss, data)

            found = bptt.search(build, range(100), bar=1e-3)
            bp = found.best.load(frame)
    """
    if not callable(build):
        raise UsageError(f"build is a function of a candidate, got {arrays.shown(build)}")
    jobs = None if jobs is None else arrays.integer(jobs, "jobs", 1)
    bar = float("-inf") if bar is None else arrays.real(bar, "the bar")
    retries = arrays.integer(retries, "retries", 0)
    calls = _calls(candidates)
    if not calls:
        raise UsageError("there are no candidates to search")
    trials: list[Trial] = []
    with contextlib.closing(_tried(build, calls, jobs, retries)) as tried:
        for trial in tried:
            trials.append(trial)
            if trial.score <= bar:
                return Search(tuple(trials), trial, True)
    return Search(tuple(trials), min(trials, key=lambda trial: trial.score), False)


def _calls(candidates: Iterable[Any] | Mapping[str, Sequence[Any]]) -> list[Any]:
    if isinstance(candidates, str | bytes) or not isinstance(candidates, Iterable):
        raise UsageError(
            "candidates are seeds (or other values), or a mapping from names to values; "
            f"got {arrays.shown(candidates)}"
        )
    if not isinstance(candidates, Mapping):
        return list(candidates)
    for name, values in candidates.items():
        if not isinstance(name, str):
            raise UsageError(f"a space's keys are names of arguments, got {arrays.shown(name)}")
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise UsageError(f"the values of {name!r} are a list, got {arrays.shown(values)}")
    return [
        dict(zip(candidates, values, strict=True))
        for values in itertools.product(*candidates.values())
    ]


def _tried(build: Build, calls: list[Any], jobs: int | None, retries: int) -> Generator[Trial]:
    """The trials in order. Whoever stops asking cancels those that are left."""
    joblib = _joblib()
    from joblib.externals.loky.process_executor import BrokenProcessPool

    def parallel() -> Any:
        kind = "generator" if _generates(joblib) else "list"
        # One candidate at a time: they are long, and those not begun can be cancelled.
        return joblib.Parallel(n_jobs=jobs, return_as=kind, batch_size=1, pre_dispatch="2*n_jobs")

    done = deaths = 0
    while done < len(calls):
        results = parallel()(joblib.delayed(_try)(build, call) for call in calls[done:])
        try:
            for result in results:
                done, deaths = done + 1, 0
                yield result
        except BrokenProcessPool:
            deaths += 1
            if deaths > retries:
                raise
        finally:
            if hasattr(results, "close"):
                with warnings.catch_warnings():  # of work thrown away, as it is meant to be
                    warnings.simplefilter("ignore")
                    results.close()


def _try(build: Build, candidate: Any) -> Trial:
    """In a worker: one net, built and written down."""
    made = build(**candidate) if isinstance(candidate, dict) else build(candidate)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], BPTT)):
        raise UsageError(f"build returns (net, score), got {arrays.shown(made)}")
    bp, score = made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        bp.save(path)
        return Trial(candidate, _score(score), path.read_bytes())


def _score(score: float) -> float:
    """Infinity is one, for a candidate that was given up."""
    if not isinstance(score, Real) or math.isnan(number := float(score)):
        raise UsageError(f"a score is a number, got {arrays.shown(score)}")
    return number


def _generates(joblib: Any) -> bool:
    """Whether the backend in force gives results as they come."""
    backend, _ = joblib.parallel.get_active_backend()
    return bool(backend.supports_return_generator)


def _joblib() -> Any:
    try:
        import joblib
    except ImportError as error:
        raise ImportError(f"searches need joblib: {INSTALL}") from error
    return joblib
