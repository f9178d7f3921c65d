"""Pictures, with matplotlib (``pip install "bptt[plot]"``).

Functions draw on the axes they are given and return them; without axes they make a figure of their
own, ``axes.figure``. matplotlib's global state is never touched: nothing here opens a window or
disturbs a notebook's figures.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bptt.palindrome import Result

__all__ = ["FORMATS", "INSTALL", "available", "loss", "palindrome", "predictions", "save"]

Array: TypeAlias = npt.NDArray[np.floating[Any]]

FORMATS = (".png", ".pdf", ".svg")
"""What `save` can write, by the file's ending."""

INSTALL = 'pip install "bptt[plot]"'
"""The command that brings matplotlib."""

# Okabe & Ito, "Color universal design" (2008): told apart by colour-blind readers, too.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#9A9A9A"


def available() -> bool:
    """Whether matplotlib is there to be imported; it is not imported to find out."""
    try:
        return importlib.util.find_spec("matplotlib") is not None
    except ValueError:  # an entry of sys.modules blocks the import
        return False


def loss(losses: Array, *, given_up: Sequence[Array] = (), ax: Axes | None = None) -> Axes:
    """The loss of every window on a log scale: each one faint, the mean of the last 50 strong.

    Args:
        losses: ``(windows,)``.
        given_up: the losses of starts that were abandoned, drawn in grey.
        ax: where to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _axes() if ax is None else ax
    for number, abandoned in enumerate(given_up):
        label = f"given up ({len(given_up)})" if number == 0 else None
        ax.plot(_windows(abandoned), _smooth(abandoned), color=_GREY, linewidth=1.0, label=label)
    ax.plot(_windows(losses), losses, color=_BLUE, linewidth=0.6, alpha=0.3)
    ax.plot(_windows(losses), _smooth(losses), color=_BLUE, linewidth=1.8, label="mean of 50")
    ax.set_yscale("log")
    ax.set_xlabel("window")
    ax.set_ylabel("mean squared error")
    ax.set_title("Loss in training")
    _tidy(ax)
    ax.legend(frameon=False, loc="upper right")
    return ax


def predictions(
    steps: npt.ArrayLike, expected: Array, predicted: Array, *, ax: Axes | None = None
) -> Axes:
    """Predicted against expected values.

    Args:
        steps: ``(frames,)``, the time of each.
        expected: ``(frames,)``.
        predicted: ``(frames,)``.
        ax: where to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _axes() if ax is None else ax
    ax.plot(steps, expected, color=_GREY, linewidth=3.0, alpha=0.7, label="expected")
    ax.plot(
        steps, predicted, color=_ORANGE, linewidth=1.0, marker="o", markersize=3, label="predicted"
    )
    error = float(np.abs(predicted - expected).mean())
    ax.margins(x=0.02)
    ax.set_xlabel("step")
    ax.set_ylabel("next value")
    ax.set_title(f"Streamed, mean absolute error {error:.4f}")
    _tidy(ax)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.18 * (high - low))  # room for the legend above the peaks
    ax.legend(frameon=False, loc="upper right", ncols=2)
    return ax


def palindrome(result: Result) -> Figure:
    """A run of `bptt.palindrome.train`: the loss on the left, the evaluated frames on the right.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure((11.0, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    loss(result.losses, given_up=result.given_up, ax=left)
    predictions(result.evaluated_steps, result.expected, result.predicted, ax=right)
    cell = {"rnn": "RNN", "lstm": "dual LSTM"}[result.configuration.cell]
    restarts = {0: "no restart", 1: "1 restart"}.get(result.restarts, f"{result.restarts} restarts")
    title = f"Palindrome: {cell}, seed {result.seed}, {restarts}"
    figure.suptitle(title, fontweight="bold")
    return figure


def save(figure: Figure, path: str | PathLike[str]) -> None:
    """Write a figure to a file whose ending, one of `FORMATS`, chooses the format."""
    figure.savefig(path, format=Path(path).suffix[1:].lower(), dpi=150)


def _figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"pictures need matplotlib: {INSTALL}") from error
    return Figure(figsize=size, layout="constrained")


def _axes() -> Axes:
    return _figure((6.4, 4.0)).add_subplot()


def _windows(losses: Array) -> npt.NDArray[np.int64]:
    return np.arange(1, len(losses) + 1)


def _smooth(losses: Array, over: int = 50) -> npt.NDArray[np.float64]:
    """At every window the mean of the last `over`, or of as many as there have been."""
    total = np.concatenate([[0.0], np.cumsum(losses, dtype=np.float64)])
    end = _windows(losses)
    start = np.maximum(end - over, 0)
    mean: npt.NDArray[np.float64] = (total[end] - total[start]) / (end - start)
    return mean


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
