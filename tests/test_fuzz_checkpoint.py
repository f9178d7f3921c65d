"""Damaged and hostile files, thousands of them: refused with an error that says why, or sound.

The mutations are those of `fuzz/checkpoints.py`, which tries for as long as one likes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
import checkpoints


@pytest.fixture(scope="module")
def small() -> bytes:
    """A file of some 2000 bytes."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        return bptt.layers.rnn(bp, bp.placeholder((1, 1)), 2)

    bp = bptt.BPTT(seed=1)
    bp.generate_graphs(frame, num_loops=2)
    return checkpoint.encode(*checkpoint.contents(bp._net))


def test_thousands_of_mutated_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    happened = checkpoints.fuzz(tmp_path, seed=20131112, count=2500)
    with capsys.disabled():
        print(f"\n{happened.total()} mutated checkpoints tried, {len(happened)} kinds of answers")
    assert happened.total() == 2500
    assert 0 < happened["loaded"] < 500, "most mutations are to be refused, but not all do harm"
    assert len(happened) > 15, "the mutations reach many different checks"


def test_truncated_at_every_length(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(bptt.CheckpointError, match="net"):
            checkpoint.decode(small[:length], "net")
    checkpoint.decode(small, "net")


def test_a_bit_flipped_in_every_byte(small: bytes) -> None:
    rng = np.random.default_rng(5)
    for place, bit in enumerate(rng.integers(8, size=len(small)).tolist()):
        damaged = bytearray(small)
        damaged[place] ^= 1 << bit
        with pytest.raises(bptt.CheckpointError, match="net"):
            checkpoint.decode(bytes(damaged), "net")


def test_a_file_put_together_again_is_the_same(tmp_path: Path) -> None:
    """Else the signed mutations would all be refused for one and the same reason."""
    checkpoints.trained().save(tmp_path / "net")
    about, parts = checkpoints.take_apart((tmp_path / "net").read_bytes())
    again = checkpoints.put_together(json.dumps(about), parts)
    assert checkpoints.try_file(tmp_path / "net", again, None) == "loaded"


def test_the_judge_sees_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checksum there are files that do harm, and they are found."""
    monkeypatch.setattr(checkpoint, "checksum", lambda about, parts: "any")
    for seed in range(20):
        try:
            checkpoints.fuzz(tmp_path, seed, count=100)
        except checkpoints.Finding as finding:
            assert str(tmp_path) in str(finding)
            return
    pytest.fail("2000 files without a checksum, and no harm was seen")
