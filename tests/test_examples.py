"""The notebooks run, from a clean kernel, and what they assert holds; the scripts, in short."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SCRIPTS = {path.stem for path in EXAMPLES.glob("*.py")} - {"shared"}


@pytest.mark.filterwarnings("ignore")  # of the kernel's machinery
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=120).execute()
    pictures = sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert pictures == 2
    bars = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "windows/s, loss" in output.get("text", "")
        or "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert bars, "training showed no progress"


def test_they_are_found():
    assert [path.stem for path in NOTEBOOKS] == ["palindrome", "streaming"]
    assert {"diode_clipper", "help_text", "memory", "sunspots"} == SCRIPTS


@pytest.fixture
def printed(tmp_path):
    """Run a script as a user would; what it printed, and the scores in its tables by name."""

    def run(name, *modules):
        for module in modules:
            pytest.importorskip(module)
        picture = tmp_path / "picture.png"
        command = [sys.executable, EXAMPLES / f"{name}.py", "--short", "--plot", picture]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert picture.read_bytes().startswith(b"\x89PNG")
        rows = re.findall(r"^\| (\S[^|]*?) +\|((?: +[\d.e+-]+ \|)+)$", done.stdout, re.M)
        assert rows, done.stdout
        return done.stdout, [
            (row, [float(x) for x in cells.split("|")[:-1]]) for row, cells in rows
        ]

    return run


def test_diode_clipper(printed):
    text, rows = printed("diode_clipper", "scipy")
    (lstm,) = (ratio for name, (ratio,) in rows if name.startswith("LSTM"))
    others = [ratio for name, (ratio,) in rows if not name.startswith("LSTM")]
    assert len(others) == 3
    assert lstm < 1 and lstm < 0.25 * min(others)  # per cent of the signal's energy
    assert float(re.search(r"([\d.]+) times real time", text)[1]) > 0


def test_help_text(printed):
    text, rows = printed("help_text")
    bits = {name: number for name, (number,) in rows}
    guessing, characters, pairs, net = bits.values()  # the least last
    assert guessing > characters > pairs > net + 0.2
    assert [name for name in bits][-1].startswith("GRU")
    assert len(text.split("\nThe ", 1)[1]) >= 100  # what it wrote


def test_memory(printed):
    _, rows = printed("memory")
    adding, copying = ({}, {})
    for table, (name, scores) in zip([adding] * 3 + [copying] * 2, rows, strict=True):
        table[name] = scores
    assert adding["guessing"] == pytest.approx([1 / 6] * 2, rel=1e-3)
    assert set(adding) == {"LSTM", "IRNN", "guessing"}
    assert set(copying) == {"LSTM", "guessing"}
    for table in (adding, copying):
        for cell in set(table) - {"guessing"}:
            assert all(a < 0.7 * b for a, b in zip(table[cell], table["guessing"], strict=True))


def test_who_guesses(monkeypatch, rng):
    """Scores as the page has them, of the sequences that are drawn."""
    monkeypatch.syspath_prepend(EXAMPLES)
    memory = importlib.import_module("memory")
    task, T, count = memory.Adding(), 20, 500
    x, y, asked = (part.reshape(count, T, -1, memory.LANES) for part in task.draw(rng, T, count))
    assert (asked[:, :-1] == 0).all() and (asked[:, -1] == 1).all()
    halves = x[:, :, 1].reshape(count, 2, T // 2, memory.LANES)
    assert (halves.sum(axis=2) == 1).all()
    np.testing.assert_allclose(y[:, -1, 0], (x[:, :, 0] * x[:, :, 1]).sum(axis=1))
    assert np.mean((y[:, -1] - 1) ** 2) == pytest.approx(task.guessing(T), rel=0.05)

    task = memory.Copying()
    frames = task.frames(T)
    x, y = (part.reshape(count, frames, memory.LANES) for part in task.draw(rng, T, count))
    np.testing.assert_array_equal(x[:, :10], y[:, -10:])
    assert (x[:, 10:] == 9).sum() == x[:, T + 9].size and (x[:, T + 9] == 9).all()
    assert set(np.unique(y[:, -10:])) == {*range(1, 9)}
    nats = np.where(y > 0, np.log(8), 0.0)  # of who says blanks, and then any of the eight
    assert nats.mean() == pytest.approx(task.guessing(T))
    assert task.guessing(T) == pytest.approx(10 * np.log(8) / (T + 20))


def test_sunspots(printed):
    _, rows = printed("sunspots", "statsmodels")
    errors = dict(rows)
    for other in ("naive", "seasonal naive"):
        assert all(a < b for a, b in zip(errors["GRU 16"], errors[other], strict=True))


def test_a_picture_of_no_known_kind():
    command = [sys.executable, EXAMPLES / "help_text.py", "--plot", "picture.docx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "ends in .png, .pdf, .svg" in done.stderr
