"""The commands for nets of layers: what they train, write and refuse, and which key they name."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click.testing
import numpy as np
import pytest

import bptt
from bptt import cli
from bptt.cli import tables
from rounding import assert_identical
from terminal import on_a_terminal

TOML = {
    "output": "net.safetensors",
    "data": {"file": "waves.csv", "inputs": ["a", "b"], "targets": ["a"], "ahead": 1},
    "layers": [{"kind": "LSTM", "width": 4}, {"kind": "Dense", "width": 1}],
    "training": {
        "epochs": 3,
        "window": 20,
        "optimizer": {"kind": "RMSProp", "learning_rate": 0.02},
        "clip": {"kind": "ClipByValue", "limit": 1.0},
    },
}


def run(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, [*map(str, arguments)])


def toml(value: object) -> str:
    """TOML's inline values are JSON's, but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(each)}' for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def written(folder: Path, told: dict) -> Path:
    path = folder / "config.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in told.items()))
    return path


def changed(key: str, value: object) -> dict:
    """The configuration with one key set, as ``"training.window"``; None takes it away."""
    told = json.loads(json.dumps(TOML))
    *outer, last = key.split(".")
    table = told
    for name in outer:
        table = table.setdefault(name, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return told


@pytest.fixture
def waves(tmp_path: Path) -> np.ndarray:
    """Columns a, skipped, b in waves.csv: two waves far from 0, and text nobody asks for."""
    t = np.arange(200) * 0.3
    table = np.stack([100 + 5 * np.sin(t), np.cos(t) / 50], axis=1)
    lines = [f"{a!r},text {number},{b!r}" for number, (a, b) in enumerate(table.tolist())]
    (tmp_path / "waves.csv").write_text("\n".join(['a,"skipped", b', *lines]) + "\n")
    return table


def scaled(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return (table - rows.mean(axis=0)) / rows.std(axis=0)


def test_train_is_sequential_and_predict_streams(tmp_path: Path, waves: np.ndarray):
    told = changed("data.validation", 0.25)
    result = run("train", written(tmp_path, told))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith("3 epochs over 150 rows; loss ")
    assert "of 49 rows held out" in result.stdout

    # by hand
    x, y = waves[:-1], waves[1:, :1]
    a = y[:150].mean(), y[:150].std()  # of the targets: the column is one of both
    inputs = np.stack([(x[:, 0] - a[0]) / a[1], scaled(x, x[:150])[:, 1]], axis=1)[:, None]
    targets = ((y - a[0]) / a[1])[:, None]
    net = bptt.Sequential([bptt.LSTM(4), bptt.Dense(1)])
    net.fit(
        inputs[:150],
        targets[:150],
        epochs=3,
        window=20,
        optimizer=bptt.RMSProp(0.02),
        clip=bptt.ClipByValue(1.0),
        validation=(inputs[150:], targets[150:]),
    )
    made = bptt.Sequential.load(tmp_path / "net.safetensors")
    for name in net.bptt.parameters:
        assert_identical(made.bptt.parameters[name], net.bptt.parameters[name])

    out = tmp_path / "out.npy"
    result = run("predict", tmp_path / "net.safetensors", tmp_path / "waves.csv", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"200 rows: {out}\n"
    predicted = np.load(out)
    assert predicted.shape == (200, 1)
    expected = net.predict(inputs)[:, 0].astype(np.float64) * a[1] + a[0]
    assert_identical(predicted[:-1], expected)


@pytest.mark.usefixtures("waves")
def test_train_shows_a_bar_on_a_terminal(tmp_path: Path):
    shown = on_a_terminal("-m", "bptt.cli", "train", str(written(tmp_path, TOML)))
    assert "epoch 3/3: 100%" in shown
    assert "windows/s, loss " in shown


@pytest.mark.usefixtures("waves")
def test_export(tmp_path: Path):
    reference = pytest.importorskip("onnx.reference")
    net = tmp_path / "net.safetensors"
    assert run("train", written(tmp_path, TOML), "--quiet").exit_code == 0
    result = run("export", net)
    assert result.exit_code == 2
    assert "--onnx" in result.output
    outs = [tmp_path / name for name in ("net.onnx", "net.h", "net.json")]
    options = zip(("--onnx", "--c", "--rtneural"), outs, strict=True)
    result = run("export", net, "--lanes", 2, *(each for pair in options for each in pair))
    assert result.exit_code == 0, result.output
    trained = bptt.Sequential.load(net)
    for kind, names in (("in", ["a", "b"]), ("out", ["a"])):
        for name in names:
            mean, deviation = (trained.notes[key][name] for key in ("mean", "deviation"))
            assert f"{kind:<3}  {name}: mean {mean!r}, deviation {deviation!r}" in result.output
    assert "net_step" in outs[1].read_text()
    assert [layer["type"] for layer in json.loads(outs[2].read_text())["layers"]] == [
        "lstm",
        "dense",
    ]
    model = reference.ReferenceEvaluator(str(outs[0]))
    follow, rng = trained.stream(lanes=2), np.random.default_rng(0)
    state = {name: follow.state[name] for name in follow.state}
    for _ in range(5):
        x = rng.normal(size=(2, 2)).astype(np.float32)
        out, *new = model.run(None, {"x": x.T, **state})
        np.testing.assert_allclose(out.T, follow(x), rtol=1e-5, atol=1e-6)
        after = [name.removesuffix("_next") for name in model.output_names[1:]]
        state = dict(zip(after, new, strict=True))


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_formats_hold_the_same(tmp_path: Path, waves: np.ndarray, kind: str):
    if kind == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"table{kind}"
    tables.write(path, ["a", "b"], waves)
    assert tables.names(path) == (["0", "1"] if kind == ".npy" else ["a", "b"])
    assert_identical(tables.read(path, tables.names(path)), waves)
    assert_identical(tables.read(path, tables.names(path)[::-1]), waves[:, ::-1])

    told = changed("data.file", path.name)
    if kind == ".npy":
        told["data"] |= {"inputs": ["0", "1"], "targets": ["0"]}
    config = written(tmp_path, told)
    assert run("train", config, "--quiet").output == ""
    out = tmp_path / f"out{kind}"
    assert run("predict", tmp_path / "net.safetensors", path, "-o", out).exit_code == 0
    assert tables.names(out) == (["0"] if kind == ".npy" else ["a"])
    assert abs(tables.read(out, tables.names(out)) - waves[:, :1]).max() < 20


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("output", None, "output is missing"),
        ("output", 5, "output is text"),
        ("data", None, "data is missing"),
        ("data", 5, "data is a table"),
        ("data.file", None, "data.file is missing"),
        ("data.file", "waves.txt", "data: "),
        ("data.file", "none.csv", "none.csv"),
        ("data.inputs", [], "data.inputs is a list"),
        ("data.inputs", ["a", 1], "data.inputs[1] is text"),
        ("data.inputs", ["a", "c"], "no column 'c'; there are a, skipped, b"),
        ("data.inputs", ["skipped"], "text 0"),
        ("data.ahead", -1, "data.ahead is at least 0"),
        ("data.ahead", 200, "data.ahead is 200"),
        ("data.validation", 1.0, "data.validation lies in"),
        ("data.standardize", 1, "data.standardize is true or false"),
        ("data.columns", ["a"], "data.columns: no such key"),
        ("net.dtype", "float16", "net.dtype is one of float32, float64"),
        ("net.seed", -1, "net.seed is at least 0"),
        ("layers", [], "layers: "),
        ("layers", [{"kind": "LSTM", "width": 4}, {"width": 1}], "layers[1]: kind is RNN"),
        ("layers", [{"kind": "LSTM", "width": 0}], "layers[0]: "),
        ("layers", [{"kind": "LSTM"}], "layers[0]: LSTM: "),
        ("layers", [{"kind": "GRU", "width": 2, "reset": "no"}], "reset is"),
        ("layers", [{"kind": "Dense", "width": 10**13}], "layers[0]: "),
        ("training.window", 0, "training.window is at least 1, got 0"),
        ("training.window", 2.5, "training.window is an integer"),
        ("training.epochs", "many", "training.epochs is an integer"),
        ("training.loss", "least", "training.loss is one of mse, "),
        ("training.patience", 3, "training.patience needs data.validation"),
        ("training.optimizer", "Adam", "training.optimizer is a table"),
        ("training.optimizer.kind", "Newton", "training.optimizer.kind is one of SGD, "),
        ("training.optimizer.rate", 1.0, "training.optimizer.rate: no such key; there are lea"),
        ("training.optimizer.learning_rate", -1.0, "training.optimizer: RMSProp's learning_rate"),
        ("training.clip.limit", None, "training.clip: "),
        ("training.rate", 1.0, "training.rate: no such key; there are epochs, window"),
        ("nets", 5, "nets: no such key"),
    ],
)
@pytest.mark.usefixtures("waves")
def test_what_is_wrong_is_named(tmp_path: Path, key: str, value: object, message: str):
    result = run("train", written(tmp_path, changed(key, value)))
    assert result.exit_code == 1
    assert message in result.output
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "net.safetensors").exists()


def test_files_that_are_none(tmp_path: Path, waves: np.ndarray):
    config = written(tmp_path, TOML)
    csv, net = tmp_path / "waves.csv", tmp_path / "net.safetensors"
    assert run("train", config, "--quiet").exit_code == 0
    for text, message in (
        ("", "no column"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n3\n", "waves.csv"),
        ("a,b\n1,nan\n", "holds nan in row 0 of column 'b'"),
        ("a,b,a\n1,2,3\n", "more than one column 'a'"),
    ):
        csv.write_text(text)
        for result in (run("train", config), run("predict", net, csv, "-o", tmp_path / "o.csv")):
            assert result.exit_code == 1
            assert message in result.output
    (tmp_path / "bad.npy").write_bytes(b"no array")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    for name in ("bad.npy", "text.npy", "config.toml"):
        result = run("predict", net, tmp_path / name, "-o", tmp_path / "o.csv")
        assert (result.exit_code, name in result.output) == (1, True)
    assert "does not end in" in run("predict", net, csv, "-o", tmp_path / "o.xls").output
    assert "no safetensors" in run("predict", config, csv, "-o", tmp_path / "o.csv").output
    made = bptt.Sequential([bptt.Dense(1)])
    made.fit(np.ones((3, 1, 2)), np.ones((3, 1, 1)), epochs=0)
    made.save(net)
    assert "names no columns" in run("predict", net, csv, "-o", tmp_path / "o.csv").output
    config.write_text("a = = 1")
    assert "is no TOML" in run("train", config).output
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.usefixtures("waves")
def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("train", written(tmp_path, changed("data.file", "waves.parquet")))
    assert result.exit_code == 1
    assert 'pip install "bptt[data]"' in result.output


def test_info():
    build = bptt.build_info()
    report = json.loads(run("info", "--json").stdout)
    assert report["instruction set"] == build["isa"]
    assert report["threads"] == build["processors"]
    lines = run("info").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(report)
    assert np.__version__ in next(line for line in lines if line.startswith("numpy"))


def test_help_of_all():
    listed = run("--help").output
    for name, command in cli.main.commands.items():
        assert name in listed
        result = run(name, "--help")
        assert result.exit_code == 0
        for option in command.params:
            assert option.opts[-1] in result.output or option.metavar in result.output


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed; where the package is not, the module."""
    script = Path(sys.executable).with_name("bptt")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "bptt.cli"]
    return subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.usefixtures("waves")
def test_installed_command(tmp_path: Path):
    done = command("train", written(tmp_path, TOML))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 epochs over 199 rows; loss ")
    done = command("predict", tmp_path / "net.safetensors", tmp_path / "waves.csv")
    assert done.returncode == 2
    assert "-o" in done.stderr


def test_completion():
    done = command(_BPTT_COMPLETE="bash_complete", COMP_WORDS="bptt p", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,palindrome", "plain,predict"]
    if find_spec("shellingham") or Path("/bin/bash").exists():
        assert "complete" in command(_BPTT_COMPLETE="bash_source").stdout
