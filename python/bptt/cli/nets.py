"""``bptt train``, ``predict`` and ``export``: a net of layers on the columns of a table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import numpy as np

from bptt import checkpoint, interchange
from bptt.cli import configuration, tables
from bptt.cli.tables import Table
from bptt.errors import BpttError, UsageError
from bptt.model import BPTT
from bptt.sequential import Sequential

P = ParamSpec("P")
R = TypeVar("R")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)


def plainly(command: Callable[P, R]) -> Callable[P, R]:
    """The command tells a mistake in a line, without a traceback."""

    @functools.wraps(command)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (BpttError, OSError, MemoryError) as error:
            raise click.ClickException(str(error)) from error

    return inside


@dataclass(frozen=True)
class Columns:
    """Which columns a net takes and gives, and how they are scaled: a net's notes.

    Column c of the file goes in as ``(c - mean) / deviation``, and what comes out is scaled back.
    """

    inputs: list[str]
    targets: list[str]
    ahead: int
    mean: dict[str, float]
    deviation: dict[str, float]

    @classmethod
    def of(cls, data: configuration.Data, x: Table, y: Table) -> Columns:
        """Of the rows that are trained on."""
        mean, deviation = {}, {}
        for names, table in ((data.inputs, x), (data.targets, y)):
            for place, name in enumerate(names):
                spread = float(table[:, place].std()) if data.standardize else 0.0
                mean[name] = float(table[:, place].mean()) if data.standardize else 0.0
                deviation[name] = spread or 1.0  # a column that is constant stays as it is
        return cls(data.inputs, data.targets, data.ahead, mean, deviation)

    @classmethod
    def noted(cls, net: Sequential, path: Path) -> Columns:
        """Those of a net that ``bptt train`` made.

        Raises:
            UsageError: another one.
        """
        try:
            columns = cls(**net.notes)
            for names in (columns.inputs, columns.targets):
                columns.scaled(names, np.zeros((1, len(names))))
        except (TypeError, KeyError, ValueError, ZeroDivisionError):
            raise UsageError(f"{path} was not written by bptt train: it names no columns") from None
        return columns

    def scaled(self, names: list[str], table: Table) -> Table:
        """A table of these columns as the net takes it, ``(time, 1, columns)``."""
        mean, deviation = self._scale(names)
        return ((table - mean) / deviation)[:, None, :]

    def unscaled(self, output: Any) -> Table:
        """The net's output ``(time, 1, targets)`` as a table."""
        mean, deviation = self._scale(self.targets)
        table: Table = output[:, 0, :].astype(np.float64) * deviation + mean
        return table

    def _scale(self, names: list[str]) -> tuple[Table, Table]:
        mean = np.array([self.mean[name] for name in names], np.float64)
        return mean, np.array([self.deviation[name] for name in names], np.float64)


@click.command()
@click.argument("config", metavar="CONFIG.toml", type=_FILE)
@click.option("--quiet", is_flag=True, help="Only errors.")
@plainly
def train(config: Path, quiet: bool) -> None:
    """Train a net of layers on the columns of a CSV, NPY or Parquet file.

    CONFIG.toml says which columns go in and come out, the layers, the window, the optimiser, and
    where the net is written. The documentation's page on the command line shows one.
    """
    told = configuration.read(config)
    data, training = told.data, told.training
    checkpoint.check_place(told.output)
    x, y = tables.read(data.file, data.inputs), tables.read(data.file, data.targets)
    if data.ahead >= len(x):
        raise UsageError(f"data.ahead is {data.ahead}, and {data.file} has {len(x)} rows")
    x, y = x[: len(x) - data.ahead], y[data.ahead :]
    held = int(len(x) * data.validation)
    if training.patience is not None and not held:
        raise UsageError("training.patience needs data.validation, a share of rows above 0")
    first = len(x) - held
    columns = Columns.of(data, x[:first], y[:first])
    inputs, targets = columns.scaled(data.inputs, x), columns.scaled(data.targets, y)

    net = Sequential(told.layers, seed=told.net.seed, dtype=told.net.dtype)
    history = net.fit(
        inputs[:first],
        targets[:first],
        epochs=training.epochs,
        window=training.window,
        optimizer=training.optimizer,
        loss=training.loss,
        clip=training.clip,
        validation=(inputs[first:], targets[first:]) if held else None,
        patience=training.patience,
        progress=not quiet,
    )
    net.notes = dict(vars(columns))
    net.save(told.output)
    if quiet:
        return
    said = f"{len(history['loss'])} epochs over {first} rows"
    if len(history["loss"]):
        said += f"; loss {history['loss'][-1]:.4g}"
        if held:
            kept = int(history["validation_loss"].argmin())
            least = history["validation_loss"][kept]
            said += f"; of {held} rows held out {least:.4g} after epoch {kept + 1}, which was kept"
    click.echo(f"{said}\nNet: {told.output}")


@click.command()
@click.argument("net", metavar="NET", type=_FILE)
@click.argument("table", metavar="FILE", type=_FILE)
@click.option("-o", "--output", metavar="OUT", required=True, type=_NEW, help="Where to write.")
@plainly
def predict(net: Path, table: Path, output: Path) -> None:
    """Stream the rows of FILE through a net that `bptt train` wrote.

    OUT gets a row for each row of FILE, with the net's target columns in their own units, in the
    format its name ends in: .csv, .npy or .parquet.
    """
    tables.kind_of(output)
    trained = Sequential.load(net)
    columns = Columns.noted(trained, net)
    rows = columns.scaled(columns.inputs, tables.read(table, columns.inputs))
    tables.write(output, columns.targets, columns.unscaled(trained.predict(rows)))
    click.echo(f"{len(rows)} rows: {output}")


@click.command()
@click.argument("net", metavar="NET", type=_FILE)
@click.option("--onnx", metavar="OUT.onnx", type=_NEW, help="One frame as an ONNX model.")
@click.option("--c", metavar="OUT.h", type=_NEW, help="One frame as a C99 header.")
@click.option("--rtneural", metavar="OUT.json", type=_NEW, help="The layers in RTNeural's format.")
@click.option(
    "--lanes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many streams go side by side.",
)
@plainly
def export(net: Path, onnx: Path | None, c: Path | None, rtneural: Path | None, lanes: int) -> None:
    """Write a net of layers for an engine that runs without Python.

    NET was written by `bptt train` or by Sequential.save. What is written takes and gives scaled
    numbers: how to scale them is printed.
    """
    formats: list[tuple[Path | None, Callable[[BPTT, Path], None]]] = [
        (onnx, interchange.to_onnx),
        (c, interchange.to_c),
        (rtneural, interchange.to_rtneural_json),
    ]
    if not any(path for path, _ in formats):
        raise click.UsageError("say what to write: --onnx, --c or --rtneural")
    trained = Sequential.load(net)
    bp = trained.with_lanes(lanes)
    for path, write in formats:
        if path is not None:
            write(bp, path)
            click.echo(f"Written: {path}")
    if trained.notes:
        columns = Columns.noted(trained, net)
        for way, names in (("in", columns.inputs), ("out", columns.targets)):
            for name in names:
                mean, deviation = columns.mean[name], columns.deviation[name]
                click.echo(f"{way:<3}  {name}: mean {mean!r}, deviation {deviation!r}")
