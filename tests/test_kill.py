"""A training process that is killed goes on from its checkpoint as if nothing had happened.

Runs are killed with SIGKILL at random moments and go on from their checkpoint, to be killed again,
until they are done. The file that each kill leaves is held against the same run left alone: whole,
and bit for bit the net between two windows.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import mean_square
from rounding import assert_identical
from whole import everything

KILLS = 7  # of each of the eight kinds of nets: 56
WINDOWS = 120
EVERY = 2
TOTAL = WINDOWS - 1  # no multiple of EVERY: the file at the end is one more

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of this process"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # numpy may have threads
]


@dataclass(frozen=True)
class Case:
    """One kind of net and of training."""

    cell: str
    dtype: str
    epsilon_hat: bool

    def frame(self, bp: bptt.BPTT, depth: str) -> Any:
        """Noise, a cell of either kind with a drawn state, a delay line; two lanes deep."""
        batch = 2 if depth == bp.DEEP else 1
        x, y = bp.placeholder((1, batch)), bp.placeholder((1, batch))
        late = bp.get_past_variable("late", np.full((1, 1), 0.5))
        bp.name_variable("late", x)
        seen = bptt.concat([x + bp.random_normal(x.shape, stddev=0.1), late])
        drawn = bptt.initializers.random_normal(0.0, 0.5)
        if self.cell == "lstm":
            _, h = bptt.layers.lstm(bp, seen, 3, peephole="full", initial_state=drawn)
        else:
            h = bptt.layers.rnn(bp, seen, 3, initial_state=drawn)
        return x, y, bptt.layers.dense(bp, h, 1)

    def minimize(self, bp: bptt.BPTT) -> Any:
        optimizer = bptt.Adam(0.02, epsilon=1e-3, epsilon_hat=self.epsilon_hat)
        return bp.minimize(mean_square(bp.graphs["deep"]), optimizer, bptt.ClipByGlobalNorm(0.5))

    def begin(self) -> tuple[bptt.BPTT, Any]:
        bp = bptt.BPTT(seed=9, dtype=self.dtype)
        bp.generate_graphs(self.frame, num_loops=4)
        return bp, self.minimize(bp)

    def resume(self, path: Path) -> tuple[bptt.BPTT, Any]:
        """From the checkpoint, or from the start if there is none yet."""
        if not path.exists():
            return self.begin()
        bp = bptt.load(path, self.frame)
        return bp, self.minimize(bp)


CASES = [
    Case(cell, dtype, epsilon_hat)
    for cell in ("lstm", "rnn")
    for dtype in ("float32", "float64")
    for epsilon_hat in (True, False)
]


def data() -> list[np.ndarray]:
    """A length that no number of windows divides: most windows begin at a frame of their own."""
    rng = np.random.default_rng(4)
    return [rng.normal(size=(23, 1, 2)), rng.normal(size=(23, 1, 2))]


@dataclass
class Reference:
    """A run that nobody interrupted: its losses, and the net after each window."""

    losses: np.ndarray
    after: list[bytes]

    @classmethod
    def of(cls, case: Case) -> "Reference":
        bp, train = case.begin()
        after, losses = [everything(bp)], []
        for _ in range(TOTAL):
            losses.append(bp.fit(train, data(), steps=1, start=bp.next_frame).loss)
            after.append(everything(bp))
        return cls(np.concatenate(losses), after)


def train_on(case: Case, path: Path) -> None:
    """What the process does that is killed."""
    bp, train = case.resume(path)
    rest = TOTAL - train.steps
    bp.fit(train, data(), rest, start=bp.next_frame, checkpoint=path, checkpoint_every=EVERY)


def killed_after(seconds: float, case: Case, path: Path) -> bool:
    """Train in a child process and kill it; False if it was done before."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, b"x")
            train_on(case, path)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    os.read(reader, 1)  # it runs
    os.close(reader)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return False


def check_file(case: Case, path: Path, reference: Reference) -> int:
    """The file is the reference between two windows, and goes on as it; returns which windows."""
    if not path.exists():
        return 0
    bp, train = case.resume(path)
    done = int(train.steps)
    assert done % EVERY == 0 or done == TOTAL
    assert everything(bp) == reference.after[done], f"after {done} windows"
    rest = bp.fit(train, data(), steps=TOTAL - done, start=bp.next_frame).loss
    assert_identical(rest, reference.losses[done:])
    assert everything(bp) == reference.after[TOTAL]
    return done


def test_killed_at_random_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng()
    began = time.monotonic()
    train_on(CASES[0], tmp_path / "timing")
    whole = time.monotonic() - began
    kills = in_saves = runs = 0
    places: set[int] = set()
    for case in CASES:
        reference = Reference.of(case)
        path = tmp_path / "none.ckpt"
        while kills < KILLS * (CASES.index(case) + 1):
            if not path.exists() or case.resume(path)[1].steps == TOTAL:  # another run
                path = tmp_path / f"{runs}.ckpt"
                runs += 1
                assert runs < 20 * KILLS, "the runs are too short to be killed"
            if killed_after(rng.uniform(0, 0.7 * whole), case, path):
                kills += 1
                in_saves += any(tmp_path.glob(f"{path.name}.*.partial"))
            places.add(check_file(case, path, reference))
        case.resume(path)[0].save(path)  # tidies up what kills left beside its place
        assert not list(tmp_path.glob(f"{path.name}.*"))
    with capsys.disabled():
        print(
            f"\n{kills} kills survived in {runs} runs, {in_saves} of them in the midst of a save, "
            f"{len(places)} different windows to go on from"
        )
    assert len(places) > 5, "the moments were not spread over the runs"
    assert in_saves, "no kill fell on a save"


RESUME = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_kill
case = test_kill.CASES[{case}]
bp, train = case.resume(Path({path!r}))
bp.fit(train, test_kill.data(), {total} - train.steps, start=bp.next_frame)
sys.stdout.buffer.write(test_kill.everything(bp))
"""


@pytest.mark.parametrize("number", [0, len(CASES) - 1])
def test_goes_on_in_another_interpreter(tmp_path: Path, number: int) -> None:
    """Nothing that the next process needs is anywhere but in the file."""
    path = tmp_path / "net.ckpt"
    bp, train = CASES[number].begin()
    bp.fit(train, data(), steps=7, checkpoint=path)
    code = RESUME.format(tests=str(Path(__file__).parent), case=number, path=str(path), total=TOTAL)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout == Reference.of(CASES[number]).after[TOTAL]
