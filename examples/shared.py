"""What the examples share: their options, a table of scores, and how pictures look."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

import bptt.plot

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9A9A9A"  # Okabe & Ito 2008

F = TypeVar("F", bound=Callable[..., Any])


def options(function: F) -> F:
    """``--short`` and ``--plot FILE``."""
    plot = click.option(
        "--plot",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_picture,
        help=f"Draw a picture; the ending, {', '.join(bptt.plot.FORMATS)}, says of what kind.",
    )
    short = click.option("--short", is_flag=True, help="A few seconds, as the tests run it.")
    return short(plot(function))


def _picture(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in bptt.plot.FORMATS:
        raise click.BadParameter(f"a picture ends in {', '.join(bptt.plot.FORMATS)}")
    return path


def heading(what: str) -> None:
    """Print what it is, and what it runs on."""
    info = bptt.build_info()
    print(f"{what}\n{processor()}, {info['isa']}, Python {platform.python_version()}\n")


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def scores(what: str, columns: Sequence[str], table: Mapping[str, Sequence[float]]) -> None:
    """Print a table in Markdown: a row of scores for each name, the least in the first last."""
    width = max(map(len, [what, *table]))
    print(f"| {what:{width}} | {' | '.join(columns)} |")
    print(f"| {'-' * width} | {' | '.join('-' * (len(each) - 1) + ':' for each in columns)} |")
    for name, row in sorted(table.items(), key=lambda named: -named[1][0]):
        cells = [f"{score:{len(head)}.4g}" for score, head in zip(row, columns, strict=True)]
        print(f"| {name:{width}} | {' | '.join(cells)} |")
    print()


def figure(width: float, height: float) -> Any:
    """A figure of matplotlib's that needs no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(ax: Any, title: str, x: str, y: str) -> None:
    """Titles, and no more lines than needed."""
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
