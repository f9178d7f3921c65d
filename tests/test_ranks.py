"""Several processes that train one net over MPI are one process with all their lanes, or end.

`on_ranks.py` is what they do; each start of them does all that so many can.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
import on_ranks
from rounding import assert_rounding

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")

# MPICH's ranks ask again and again whether a message came; here they sleep in between, since there
# may be more of them than processors.
PATIENT = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}
PROGRAM = Path(on_ranks.__file__)
SECONDS = 60  # ranks that still run then wait for one another


def ranks(count: int, *arguments: Any, program: Path = PROGRAM) -> Any:
    """The processes' end and all that they printed."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec: no package of MPICH for this platform")
    command = [MPIEXEC, "-n", count, sys.executable, "-m", "mpi4py", program, *arguments]
    return subprocess.run(
        [str(each) for each in command],
        timeout=SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=program.parent,
        env={**os.environ, **PATIENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of two ranks of which one was killed."""
    path = tmp_path_factory.mktemp("killed") / "net"
    run = ranks(2, "killed", path)
    assert run.returncode != 0, run.stdout
    return path


@pytest.fixture(scope="module", params=[2, 3])
def found(
    request: pytest.FixtureRequest, killed: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What so many ranks found."""
    path = tmp_path_factory.mktemp("found") / "found.npz"
    run = ranks(request.param, "all", path, killed)
    assert run.returncode == 0, run.stdout
    with np.load(path) as arrays:
        return {"ranks": request.param, **arrays}


def of(found: dict[str, Any], scenario: str) -> dict[str, Any]:
    begin = scenario + "/"
    return {
        name.removeprefix(begin): each for name, each in found.items() if name.startswith(begin)
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(values).max() > 0, f"{name} is zero, which tests nothing"
        try:
            assert_rounding(found[name], values, units=1000)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process with all lanes finds."""
    return {name: each(on_ranks.Here()) for name, each in on_ranks.SCENARIOS.items()}


@pytest.mark.parametrize("scenario", on_ranks.SCENARIOS)
def test_ranks_are_one_process_with_all_lanes(
    found: dict[str, Any], alone: dict[str, Any], scenario: str
) -> None:
    """That all ranks have the same bits they see themselves."""
    if found["ranks"] == 3 and scenario in on_ranks.NEED_LANES:
        assert not of(found, scenario)
        return
    assert_same(of(found, scenario), alone[scenario])


def test_a_killed_rank_ends_the_run_whose_checkpoint_goes_on_with_any_number(
    killed: Path, found: dict[str, Any], alone: dict[str, Any]
) -> None:
    """Two ranks saved it; two, three and one without MPI go on."""
    here = on_ranks.Here()
    bp = bptt.load(killed, on_ranks.noisy(here))
    assert on_ranks.minimised(bp).steps == on_ranks.KILLED // on_ranks.EVERY * on_ranks.EVERY
    expected = alone["lstm"]
    for result in (on_ranks.resumed(here, str(killed)), of(found, "resumed")):
        left = len(result["loss"])
        assert 0 < left < len(expected["loss"])
        whole = {name: each for name, each in expected.items() if name in result}
        assert_same(result, {**whole, "loss": expected["loss"][-left:]})


@pytest.mark.parametrize("found", [2], indirect=True)
def test_what_fails_in_one_rank_fails_in_all(found: dict[str, Any]) -> None:
    failures = {case: list(each) for case, each in of(found, "failures").items()}
    other = "RankError: rank 1 failed with "
    assert failures["data"][1].startswith("ShapeError")
    assert failures["data"][0] == other + failures["data"][1]
    assert failures["callback"] == [other + "ValueError: enough", "ValueError: enough"]
    assert failures["inside"][0].startswith("RankError: another rank failed in this window")
    assert failures["inside"][1].startswith("UsageError: softmax_cross_entropy")
    assert all("NonFiniteError: the loss of window 1" in each for each in failures["not finite"])
    assert all("UsageError: with comm, data are arrays" in each for each in failures["dataset"])
    for case in ("steps", "seed"):
        assert all(
            f"RankError: ranks that train one net differ in {'the ' * (case == 'seed')}{case}"
            in each
            for each in failures[case]
        )
    for case in ("diverged", "begun apart"):
        assert all(
            "RankError" in each and "differ in the weights" in each for each in failures[case]
        )
    assert all("CheckpointError" in each for each in failures["checkpoint"])
    for case, operation in {
        "root": "sqrt",
        "sum and weights": "add",
        "product": "multiply",
        "mixed lanes": "subtract",
    }.items():
        for each in failures[case]:
            assert each.startswith("UsageError: with several ranks a loss") and operation in each


def test_a_failure_of_mpi_ends_all() -> None:
    run = ranks(2, "broken")
    assert run.returncode != 0
    assert "the wire is cut" in run.stdout
    assert "rank 1 ends all ranks" in run.stdout


def test_a_failure_outside_of_fit_ends_all() -> None:
    """Here it is mpi4py that prints and ends, and the launcher may lose what was printed."""
    assert ranks(2, "outside").returncode != 0


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "clusters.md"
    program = tmp_path / "train.py"
    program.write_text(page.read_text().split("```python\n")[1].split("```")[0])
    run = ranks(2, program=program)
    assert run.returncode == 0, run.stdout
    first, last = run.stdout.split("2 ranks: loss ")[1].split(", ")
    assert float(last) < 0.1 * float(first)
    assert bptt.checkpoint.read(tmp_path / "net.ckpt").tensors["state/deep/hidden-0"].shape == (
        16,
        16,
    )


# ---- which losses add up


class Frame:
    """A net with some of five lanes, and what they have in common."""

    def __init__(self, first: int = 0, lanes: int = 3) -> None:
        self.lanes = slice(first, first + lanes)
        self.bp = bptt.BPTT(dtype="float64")
        self.bp.generate_graphs(self.frame, num_loops=4)

    def frame(self, bp: bptt.BPTT, depth: str) -> Any:
        if depth == bp.SHALLOW:
            return bp.placeholder((1, 1))
        slow = bp.get_past_variable("slow", np.ones((1, 1)))  # before there are lanes
        past = bp.get_past_variable("mean", np.ones((2, 1)))
        own = np.arange(1.0, 6.0)[None, self.lanes]
        self.x, self.y = bp.placeholder((2, own.size)), bp.placeholder((1, own.size))
        self.c, self.W = bp.placeholder((1, 1)), bp.get_variable("W", (3, 3))
        self.each, self.square = bp.constant(own), bp.constant(np.eye(3) + 0.5)
        self.slow = bp.name_variable("slow", 0.5 * slow + self.c)
        h = bptt.layers.rnn(bp, self.x, 2)
        self.past = bp.name_variable("mean", 0.9 * past + 0.1 * bptt.reduce_mean(h, axis=1))
        self.out = bptt.layers.dense(bp, h, 1)
        return self.x, self.y, self.c, self.out

    def kind(self, loss: bptt.Symbol, resets: bool = False, masks: bool = False) -> str:
        ranks, graph = self.bp._net.numerics.Ranks, loss.trace.graph
        return ranks(lambda numbers: None, 0, 6, graph, [loss.id], resets, masks).kinds[0]

    def value(self, loss: bptt.Symbol) -> float:
        rng = np.random.default_rng(0)
        data = [rng.normal(size=(4, features, 5))[..., self.lanes] for features in (2, 1)]
        fed = [*data, rng.normal(size=(4, 1, 1))]
        return self.bp.run([loss], self.bp.generate_feed_dict("deep", fed, 3))[0]


def mean(v: Any) -> bptt.Symbol:
    return bptt.reduce_mean(v)


def total(v: Any) -> bptt.Symbol:
    return bptt.reduce_sum(v)


ADD_UP: dict[str, tuple[str, Any]] = {
    "a mean": ("mean", lambda f: mean(bptt.square(f.out - f.y))),
    "a sum": ("sum", lambda f: total(bptt.square(f.out - f.y))),
    "means of several": ("mean", lambda f: 2.0 * mean(f.out) - mean(f.y) / 3.0),
    "sums of several": ("sum", lambda f: -total(f.out) + total(f.y) * 0.5),
    "a mean and weights": ("mean", lambda f: mean(f.out) + bptt.sqrt(total(bptt.square(f.W)))),
    "a sum times weights": ("sum", lambda f: total(f.out) * mean(bptt.square(f.W))),
    "a product with a matrix": ("mean", lambda f: mean(f.square @ bptt.concat([f.x, f.y]))),
    "a constant for each lane": ("mean", lambda f: mean(f.out * f.each)),
    "what lanes have in common": ("mean", lambda f: mean(f.out * f.c)),
    "of weights alone": ("mean", lambda f: total(f.W @ f.W)),
}
BY_FRAME: dict[str, tuple[str, Any]] = {
    "a mean of sums": ("sum", lambda f: mean(bptt.reduce_sum(f.out, axis=1))),
    "a sum of means": ("mean", lambda f: total(bptt.reduce_mean(f.out, axis=(0, 1)) * f.c)),
    "a mean of the past": ("mean", lambda f: mean(f.past)),
}
REFUSED: dict[str, Any] = {
    "a root": lambda f: bptt.sqrt(mean(bptt.square(f.out))),
    "a quotient": lambda f: total(f.out) / total(f.y),
    "a product": lambda f: mean(f.out) * mean(f.y),
    "a sum and weights": lambda f: total(f.out) + total(bptt.square(f.W)),
    "a sum and a mean": lambda f: total(f.out) + mean(f.out),
    "divided by a mean": lambda f: 1.0 / mean(f.out),
    "statistics over lanes": lambda f: mean(bptt.square(f.out - bptt.reduce_mean(f.out, axis=1))),
    "squares of means": lambda f: mean(bptt.square(f.past)),
    "features that were lanes": lambda f: mean(bptt.square(bptt.transpose(f.out))),
    "lanes side by side": lambda f: mean(bptt.square(bptt.concat([f.out, f.y], axis=1))),
    "constants that may be lanes'": lambda f: mean(f.out) + total(f.square * f.W),
}


@pytest.mark.parametrize("what", ADD_UP)
@pytest.mark.parametrize("masks", [False, True])
def test_losses_that_add_up(what: str, masks: bool) -> None:
    f = Frame()
    kind, loss = ADD_UP[what]
    if masks and what in ("a mean and weights", "of weights alone"):  # a sum over frames
        with pytest.raises(bptt.UsageError, match="window_sum"):
            f.kind(loss(f), masks=True)
    else:
        assert f.kind(loss(f), masks=masks) == kind


@pytest.mark.parametrize("what", BY_FRAME)
def test_losses_of_each_frame_add_up_without_masks(what: str) -> None:
    f = Frame()
    kind, loss = BY_FRAME[what]
    assert f.kind(loss(f)) == kind
    with pytest.raises(bptt.UsageError, match="with masks"):
        f.kind(loss(f), masks=True)


@pytest.mark.parametrize("what", [*ADD_UP, *BY_FRAME])
def test_they_add_up_to_those_of_all_lanes(what: str) -> None:
    kind, loss = {**ADD_UP, **BY_FRAME}[what]
    values = [f.value(loss(f)) for f in (Frame(0, 5), Frame(0, 2), Frame(2, 3))]
    factors = (1, 1) if kind == "sum" else (0.4, 0.6)
    assert values[0] == pytest.approx(np.dot(factors, values[1:]), rel=1e-13)
    if what != "of weights alone":
        assert values[1] != values[2]


@pytest.mark.parametrize("what", REFUSED)
def test_losses_that_do_not_add_up(what: str) -> None:
    f = Frame()
    with pytest.raises(bptt.UsageError, match="with several ranks"):
        f.kind(REFUSED[what](f))


def test_a_state_in_common_is_neither_reset_nor_masked() -> None:
    f = Frame()
    loss = mean(f.out * f.slow)
    assert f.kind(loss) == "mean"
    for rows in ({"resets": True}, {"masks": True}):
        with pytest.raises(bptt.UsageError, match="the state 'slow'"):
            f.kind(loss, **rows)
