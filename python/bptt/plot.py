"""Pictures, with matplotlib (``pip install "bptt[plot]"``).

Functions draw on the axes they are given and return them; without axes they make a figure of their
own, ``axes.figure``. matplotlib's global state is never touched: nothing here opens a window or
disturbs a notebook's figures.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt import arrays
from bptt import palindrome as task
from bptt.checkpoint import text_of
from bptt.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

__all__ = [
    "FORMATS",
    "INSTALL",
    "available",
    "gates",
    "gradient_norms",
    "loss",
    "palindrome",
    "predictions",
    "save",
    "states",
]

Array: TypeAlias = npt.NDArray[np.floating[Any]]

FORMATS = (".png", ".pdf", ".svg")
"""What `save` can write, by the file's ending."""

INSTALL = 'pip install "bptt[plot]"'
"""The command that brings matplotlib."""

# Okabe & Ito, "Color universal design" (2008): told apart by colour-blind readers, too.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#9A9A9A"
_COLORS = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")

_FEW = 7  # so many units are drawn as lines, one color each; more are a heat map


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
        UsageError: no numbers, or a `given_up` that is no list.
        ShapeError: losses of other than one axis, or none.
        NonFiniteError: NaN or infinity.
        ImportError: matplotlib is not installed.
    """
    losses = _array(losses, 1, "(windows,)", "the losses")
    given_up = [
        _array(each, 1, "(windows,)", "the losses of a start that was given up")
        for each in arrays.listed(given_up, "given_up")
    ]
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
        UsageError: no numbers.
        ShapeError: arrays of other than one axis, none, or of different lengths.
        NonFiniteError: NaN or infinity.
        ImportError: matplotlib is not installed.
    """
    steps, expected, predicted = (
        _array(each, 1, "(frames,)", what)
        for each, what in ((steps, "steps"), (expected, "expected"), (predicted, "predicted"))
    )
    if not len(steps) == len(expected) == len(predicted):
        raise ShapeError(
            f"steps, expected and predicted differ in their frames: {len(steps)}, "
            f"{len(expected)}, {len(predicted)}"
        )
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


def gradient_norms(norms: Mapping[str, Array], *, ax: Axes | None = None) -> Axes:
    """How much of a loss's gradient is left so many frames back, on a log scale.

    A gradient that vanishes, or explodes, by the same factor at each frame is a straight line; the
    legend has that factor, of the line fitted to all frames. What is drawn is the geometric mean
    over the lanes, and from the least to the largest of them a shade. Norms of zero have no place
    on a log scale.

    Args:
        norms: by name ``(frames back, batch)``, as `bptt.BPTT.gradient_norms` gives them.
        ax: where to draw.

    Raises:
        UsageError: no mapping, an empty one, or no numbers.
        ShapeError: an array of other than two axes.
        ImportError: matplotlib is not installed.
    """
    given = _given(norms, 2, "(frames back, batch)")
    ax = _axes() if ax is None else ax
    for (name, each), color, style in zip(
        given.items(), cycle(_COLORS), cycle(_STYLES), strict=False
    ):
        back = np.flatnonzero((each > 0).all(axis=1))
        logs = np.log(each[back])
        label = name
        if len(back) > 1:
            label += f": \u00d7{np.exp(np.polyfit(back, logs.mean(axis=1), 1)[0]):.2f} a frame"
        ax.plot(back, np.exp(logs.mean(axis=1)), style, color=color, linewidth=1.8, label=label)
        if each.shape[1] > 1 and len(back):
            least, most = each[back].min(axis=1), each[back].max(axis=1)
            ax.fill_between(back, least, most, color=color, alpha=0.15, linewidth=0)
    ax.set_yscale("log")
    ax.set_xlim(0, max(1, *(len(each) - 1 for each in given.values())))
    ax.xaxis.set_major_locator(_ticks(9, integer=True))
    ax.set_xlabel("frames back")
    ax.set_ylabel("\u2016\u2202 loss / \u2202 state\u2016")
    ax.set_title("Gradient, by how far back the state is")
    _tidy(ax)
    ax.legend(frameon=False)
    return ax


def states(values: Mapping[str, Array], *, lane: int = 0) -> Figure:
    """Values over time, one picture below the other: a line for each unit, or a heat map of many.

    Args:
        values: by name ``(time, features, batch)``, as `bptt.BPTT.record` gives them.
        lane: which lane to draw.

    Raises:
        UsageError: no mapping, an empty one, or no numbers; no such lane.
        ShapeError: an array of other than three axes.
        ImportError: matplotlib is not installed.
    """
    given = _lane(values, lane)
    figure = _figure((8.0, 0.8 + 1.9 * len(given)))
    for ax, scale, each in _below(figure, given):
        if len(each) > _FEW:
            _heat(ax, scale, each, float(np.abs(each).max()) or 1.0)
            continue
        scale.set_axis_off()
        for unit, (row, color) in enumerate(zip(each, _COLORS, strict=False)):
            ax.plot(row, color=color, linewidth=1.2, label=f"unit {unit}" if unit == 0 else unit)
        ax.margins(x=0)
        ax.set_ylabel("value")
        _tidy(ax)
        ax.legend(
            frameon=False,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0,
            ncols=len(each),
            handlelength=1.2,
            columnspacing=1.0,
        )
    return figure


def gates(values: Mapping[str, Array], *, lane: int = 0) -> Figure:
    """Gates over time as heat maps, one below the other: a row for each unit.

    What lies between 0, closed, and 1, open, is dark to bright; what has negative values, such as
    a cell's input, is coloured on both sides of white.

    Args:
        values: by name ``(time, features, batch)``, as `bptt.BPTT.record` gives them.
        lane: which lane to draw.

    Raises:
        UsageError: no mapping, an empty one, or no numbers; no such lane.
        ShapeError: an array of other than three axes.
        ImportError: matplotlib is not installed.
    """
    given = _lane(values, lane)
    tall = sum(0.6 + min(1.6, 0.5 + 0.06 * len(each)) for each in given.values())
    figure = _figure((8.0, 0.8 + tall))
    for ax, scale, each in _below(figure, given):
        _heat(ax, scale, each, max(1.0, float(np.abs(each).max())), signed=bool((each < 0).any()))
    return figure


def palindrome(result: task.Result) -> Figure:
    """A run of `bptt.palindrome.train`: the loss on the left, the evaluated frames on the right.

    Raises:
        UsageError: something else.
        ImportError: matplotlib is not installed.
    """
    if not isinstance(result, task.Result):
        raise UsageError(f"a result of bptt.palindrome.train, got {arrays.shown(result)}")
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
    """Write a figure to a file whose ending, one of `FORMATS`, chooses the format.

    Raises:
        UsageError: no figure, no path, or another ending.
        OSError: the file system refuses.
    """
    place = Path(text_of(path))
    if place.suffix.lower() not in FORMATS:
        raise UsageError(f"{str(place)!r} does not end in {', '.join(FORMATS)}")
    if not hasattr(figure, "savefig"):
        raise UsageError(f"a figure is what bptt.plot draws on, got {arrays.shown(figure)}")
    figure.savefig(place, format=place.suffix[1:].lower(), dpi=150)


def _figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"pictures need matplotlib: {INSTALL}") from error
    return Figure(figsize=size, layout="constrained")


def _axes() -> Axes:
    return _figure((6.4, 4.0)).add_subplot()


def _below(figure: Figure, given: Mapping[str, Array]) -> Iterator[tuple[Axes, Axes, Array]]:
    """Named axes one below the other, over the same frames; with each a scale and its numbers."""
    rows = figure.subplots(len(given), 2, sharex="col", squeeze=False, width_ratios=(60, 1))
    last = rows[-1, 0]
    last.set_xlabel("frame")
    last.xaxis.set_major_locator(_ticks(9, integer=True))
    for (ax, scale), (name, each) in zip(rows, given.items(), strict=True):
        ax.set_title(name, loc="left", fontsize="medium")
        yield ax, scale, each


def _heat(ax: Axes, scale: Axes, rows: Array, most: float, *, signed: bool = True) -> None:
    """Units by frames, in colors from -most or 0 to most that colour-blind readers tell apart."""
    image = ax.imshow(
        rows,
        "RdBu_r" if signed else "cividis",
        aspect="auto",
        interpolation="nearest",
        vmin=-most if signed else 0.0,
        vmax=most,
    )
    ax.yaxis.set_major_locator(_ticks(4, integer=True))
    ax.set_ylabel("unit")
    bar = ax.figure.colorbar(image, cax=scale)
    bar.outline.set_visible(False)
    scale.yaxis.set_major_locator(_ticks(4))


def _ticks(most: int, *, integer: bool = False) -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=integer)


def _array(values: npt.ArrayLike, axes: int, shape: str, what: str) -> Array:
    """Finite numbers of so many axes, none of them empty."""
    array = arrays.numbers(values, np.dtype(np.float64), what)
    if array.ndim != axes or 0 in array.shape:
        raise ShapeError(f"{what} have shape {array.shape}; expected {shape}")
    return arrays.finite(array, what)


def _given(values: Mapping[str, Array], axes: int, shape: str) -> dict[str, Array]:
    """What is to be drawn, by name."""
    if not isinstance(values, Mapping) or not values:
        raise UsageError(f"expected arrays {shape} by name, got {arrays.shown(values)}")
    return {
        name: _array(each, axes, shape, f"the values of {name!r}") for name, each in values.items()
    }


def _lane(values: Mapping[str, Array], lane: int) -> dict[str, Array]:
    """By name one lane of ``(time, features, batch)``, as ``(features, time)``."""
    given = _given(values, 3, "(time, features, batch)")
    lanes = min(each.shape[2] for each in given.values())
    lane = arrays.integer(lane, "lane", 0, lanes - 1)
    return {name: each[:, :, lane].T for name, each in given.items()}


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
