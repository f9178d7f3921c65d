"""``bptt palindrome``: the origin's task, with a bar, a table and a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from bptt import palindrome as task
from bptt import plot
from bptt.errors import BpttError
from bptt.progress import Bar, watched

LINE_EVERY = 500
"""Windows from one plain line of progress to the next, at least; in long runs about 20 lines."""


def _writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Find what would keep the picture from being written, before anything is trained."""
    if path is None:
        return None
    if not plot.available():
        raise click.ClickException(f"--plot needs matplotlib, an extra: {plot.INSTALL}")
    if path.suffix.lower() not in plot.FORMATS:
        raise click.BadParameter(f"'{path}' does not end in {', '.join(plot.FORMATS)}.")
    existed = path.exists()
    try:
        with path.open("ab"):  # the system itself says; a file that is there stays as it is
            pass
    except OSError as error:
        raise click.BadParameter(f"'{path}' cannot be written: {error.strerror}.") from error
    if not existed:
        path.unlink()
    return path


@click.command()
@click.option(
    "--cell",
    type=click.Choice(list(task.CONFIGURATIONS)),
    default="rnn",
    show_default=True,
    help="rnn: a layer of 3 units. lstm: two layers of 5, with full peepholes.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of weights, starting state and noise.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=task.RNN.steps,
    show_default=True,
    help="Windows to train.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
@click.option(
    "--plot",
    "picture",
    metavar="FILE.png",
    type=click.Path(path_type=Path),
    callback=_writable,
    help="Draw the loss, and predicted against expected values (needs matplotlib).",
)
@click.option("--quiet", is_flag=True, help="Neither progress nor table: only the last line.")
def palindrome(
    cell: str, seed: int, steps: int, as_json: bool, picture: Path | None, quiet: bool
) -> None:
    """Learn to continue 0, 0.1, ... 0.5, 0.4, ... 0.1, 0, ...

    Trains a net, streams it, and shows how well it predicts. A start whose loss is above 0.01 at
    the 1000th window, or at any 100th window after it, is given up for another one, at most 20
    times.
    """
    configuration = replace(task.CONFIGURATIONS[cell], steps=steps)
    talk = not quiet and not as_json
    if talk:
        net = {"rnn": "RNN", "lstm": "dual LSTM"}[cell]
        windows = "1 window" if steps == 1 else f"{steps} windows"
        click.echo(
            f"Training the {net}, seed {seed}: {windows} of {configuration.num_loops} frames"
        )
    progress = _Progress(steps, bar=not quiet, lines=talk)
    try:
        result = task.train(configuration, seed, progress=progress)
    except BpttError as error:
        raise click.ClickException(str(error)) from error
    finally:
        progress.close()

    if picture is not None:
        try:
            plot.save(plot.palindrome(result), picture)
        except OSError as error:
            problem = f"'{picture}' cannot be written: {error.strerror}."
            raise click.ClickException(problem) from error
    if as_json:
        click.echo(json.dumps(result.report()))
        return
    if talk:
        click.echo(_table(result))
    click.echo(_summary(result))
    if talk and picture is not None:
        click.echo(f"Picture: {picture}")


class _Progress:
    """Where the training is: a bar if there is a terminal, otherwise a line now and then."""

    def __init__(self, steps: int, *, bar: bool, lines: bool) -> None:
        self.steps = steps
        self.lines = lines and not watched()
        self.bar = Bar(steps, bar)
        self.restart = self.windows = 0
        self.next_line = 1

    def __call__(self, restart: int, windows: int, loss: float) -> None:
        if restart != self.restart:
            self.restart, self.windows = restart, 0
            self.next_line = 1
            self.bar.restart(f"restart {restart}")
            if self.lines:
                click.echo(f"The loss is stuck: starting again (restart {restart})")
        self.bar.advance(windows - self.windows, loss)
        self.windows = windows
        if self.lines and (windows >= self.next_line or windows == self.steps):
            click.echo(f"window {windows:>6}  loss {loss:.2e}")
            self.next_line = windows + max(LINE_EVERY, self.steps // 20)

    def close(self) -> None:
        self.bar.close()


def _table(result: task.Result) -> str:
    """The origin's table; on a terminal a prediction that rounds to a wrong value is red."""
    columns = ("step", "input", "expected", "rounded", "actual", "difference")
    lines = ["{:>6}  {:>5}  {:>8}  {:>7}  {:>7}  {:>10}".format(*columns)]
    values = (result.evaluated_steps, result.inputs, result.expected, result.predicted)
    for step, value, expected, actual in zip(*values, strict=True):
        line = f"{step:>6}  {value:>5.1f}  {expected:>8.1f}  {actual:>7.1f}  {actual:>7.4f}"
        line += f"  {expected - actual:>+10.4f}"
        wrong = f"{actual:.1f}" != f"{expected:.1f}"
        lines.append(click.style(line, fg="red") if wrong else line)
    return "\n".join(lines)


def _summary(result: task.Result) -> str:
    c = result.configuration
    training = f"{_count(len(result.losses), 'window')} and {_count(result.restarts, 'restart')}"
    streaming = _count(c.warmup + c.evaluated, "frame")
    return (
        f"{c.cell}, seed {result.seed}:"
        f" loss {result.loss:.2e} after {training} ({1000 * result.train_seconds:.0f} ms);"
        f" mean absolute error {result.shallow_mean_abs_error:.4f}"
        f" when streamed ({streaming}, {1000 * result.stream_seconds:.1f} ms)"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
