"""The command line: what it prints where, what it refuses, and that it does so before training."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import click.testing
import numpy as np
import pytest

import bptt
from bptt import cli, plot
from bptt.palindrome import train
from terminal import on_a_terminal

FAST = ["--steps", "200"]


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, ["palindrome", *arguments])


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused must be refused before anything is trained."""

    def train(*_: object, **__: object) -> None:
        pytest.fail("trained before the arguments were checked")

    monkeypatch.setattr("bptt.palindrome.train", train)


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_help_names_every_option():
    result = run("--help")
    assert result.exit_code == 0
    for option in ("--cell", "--seed", "--steps", "--json", "--plot", "--quiet"):
        assert option in result.output


def test_version():
    result = click.testing.CliRunner().invoke(cli.main, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("bptt ")


def test_json_is_one_object_and_nothing_else():
    result = run(*FAST, "--cell", "lstm", "--seed", "3", "--json")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    report = json.loads(result.stdout)
    types = {
        "cell": str,
        "seed": int,
        "restarts": int,
        "steps": int,
        "loss": float,
        "shallow_mean_abs_error": float,
        "train_seconds": float,
        "stream_seconds": float,
    }
    assert {name: type(value) for name, value in report.items()} == types
    assert (report["cell"], report["seed"], report["steps"]) == ("lstm", 3, 200)
    assert report["restarts"] == 0
    assert report["loss"] > 0
    assert 0 < report["shallow_mean_abs_error"] < 1


def test_the_default_run_ends_well():
    result = run("--json")
    report = json.loads(result.stdout)
    assert (report["cell"], report["seed"], report["steps"]) == ("rnn", 0, 3000)
    assert report["loss"] < 1e-3


def test_same_seed_same_figures():
    one, two = (json.loads(run(*FAST, "--json", "--seed", "5").stdout) for _ in range(2))
    for seconds in ("train_seconds", "stream_seconds"):
        del one[seconds], two[seconds]
    assert one == two


def test_plain_lines_off_a_terminal():
    result = run("--steps", "1001")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "\r" not in result.stdout
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0] == "Training the RNN, seed 0: 1001 windows of 10 frames"
    assert [line.split()[1] for line in lines if line.startswith("window")] == ["1", "501", "1001"]
    header = next(
        number for number, line in enumerate(lines) if "expected" in line and "actual" in line
    )
    rows = [line.split() for line in lines[header + 1 : header + 101]]
    assert [int(row[0]) for row in rows] == list(range(1900, 2000))
    for row in rows:
        assert float(row[1]) == pytest.approx(bptt.palindrome.palindrome(int(row[0])))
        assert float(row[2]) == pytest.approx(bptt.palindrome.palindrome(int(row[0]) + 1))
        assert float(row[3]) == pytest.approx(float(row[4]), abs=0.0501)
        assert float(row[5]) == pytest.approx(float(row[2]) - float(row[4]), abs=1.01e-4)
    assert lines[-1].startswith("rnn, seed 0: loss ")


def test_restarts_are_told(monkeypatch: pytest.MonkeyPatch):
    stuck = replace(
        bptt.palindrome.RNN, first_check=10, check_every=10, stuck_above=-1.0, max_restarts=2
    )
    monkeypatch.setitem(bptt.palindrome.CONFIGURATIONS, "rnn", stuck)
    result = run("--steps", "30")
    assert result.exit_code == 0
    assert result.stdout.count("starting again") == 2
    assert "2 restarts" in result.stdout.splitlines()[-1]


def test_quiet_leaves_the_last_line():
    result = run(*FAST, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line.startswith("rnn, seed 0: loss ")


def test_plot_writes_a_picture(tmp_path: Path):
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path / "palindrome.png"
    result = run(*FAST, "--plot", str(path))
    assert result.exit_code == 0, result.output
    assert str(path) in result.stdout
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(path)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1000
    assert (
        len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    )  # something is drawn on it


def test_plot_with_json_still_prints_json_alone(tmp_path: Path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "palindrome.svg"
    result = run(*FAST, "--json", "--plot", str(path))
    json.loads(result.stdout)
    assert "<svg" in path.read_text()


def test_picture_names_cell_seed_and_axes():
    pytest.importorskip("matplotlib")
    stuck = replace(
        bptt.palindrome.DUAL_LSTM,
        steps=30,
        first_check=10,
        check_every=10,
        stuck_above=-1.0,
        max_restarts=2,
    )
    figure = plot.palindrome(train(stuck, seed=12))
    assert figure.get_suptitle() == "Palindrome: dual LSTM, seed 12, 2 restarts"
    left, right = figure.axes
    assert left.get_yscale() == "log"
    assert left.get_xlabel() == "window"
    assert "error" in left.get_ylabel()
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "given up (2)",
        "mean of 50",
    ]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["expected", "predicted"]
    assert right.get_xlabel()
    assert right.get_ylabel()


def test_running_mean():
    losses = np.arange(1.0, 8.0)
    expected = [losses[max(0, end - 3) : end].mean() for end in range(1, 8)]
    np.testing.assert_allclose(plot._smooth(losses, over=3), expected)


@pytest.mark.usefixtures("no_training", "no_matplotlib")
def test_missing_matplotlib_says_what_to_install(tmp_path: Path):
    path = tmp_path / "palindrome.png"
    result = run("--plot", str(path))
    assert result.exit_code == 1
    assert 'pip install "bptt[plot]"' in result.output
    assert "Traceback" not in result.output
    assert not path.exists()


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_all_else_works():
    importlib.reload(plot)
    assert run(*FAST, "--quiet").exit_code == 0
    with pytest.raises(ImportError, match=r'pip install "bptt\[plot\]"'):
        plot.loss(np.ones(3))


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "gru"], "'gru' is not one of 'rnn', 'lstm'"),
        (["--steps", "0"], "0 is not in the range x>=1"),
        (["--steps", "many"], "'many' is not a valid integer"),
        (["--seed", "-1"], "-1 is not in the range x>=0"),
        (["--colour"], "No such option"),
    ],
)
def test_bad_values_are_refused_before_training(arguments: list[str], message: str):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.usefixtures("no_training")
def test_paths_that_cannot_be_written_are_refused_before_training(tmp_path: Path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    for path, message in (
        (tmp_path / "missing" / "a.png", "cannot be written"),
        (folder, "cannot be written"),
        (tmp_path / "a.jpeg", "does not end in .png, .pdf, .svg"),
        (tmp_path / "a", "does not end in"),
    ):
        result = run("--plot", str(path))
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.split())
        assert path == folder or not path.exists()


def test_a_path_that_passes_the_check_is_left_alone_until_the_picture_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("matplotlib")
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    old.write_bytes(b"a picture of yesterday")

    def fail(*_: object, **__: object) -> None:
        raise bptt.NonFiniteError("loss is nan at window 7")

    monkeypatch.setattr("bptt.palindrome.train", fail)
    for path in (old, new):
        result = run("--plot", str(path))
        assert result.exit_code == 1
        assert "Error: loss is nan at window 7" in result.output
        assert "Traceback" not in result.output
    assert old.read_bytes() == b"a picture of yesterday"
    assert not new.exists()


def test_on_a_terminal_a_bar_and_the_table():
    written = on_a_terminal("-m", "bptt.cli", "palindrome", "--steps", "300")
    assert "300/300" in written
    assert "loss " in written
    assert "window    " not in written  # the bar stands in for the plain lines
    assert "expected" in written
    assert "  1999    0.1       0.0  " in written


def test_quiet_draws_no_bar_on_a_terminal():
    written = on_a_terminal("-m", "bptt.cli", "palindrome", "--steps", "300", "--quiet")
    assert "300/300" not in written
    assert written.count("\n") == 1
