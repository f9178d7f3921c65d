"""Tables in Markdown, goals, processor and versions."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bptt

from . import peers
from .cases import Matrix


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of all that takes part."""
    return {
        "bptt": bptt.__version__,
        "Python": platform.python_version(),
        "numpy": np.__version__,
    } | peers.versions()


def heading(threads: int) -> None:
    """Print what was run on what."""
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{processor()}; processors this process may use: {available}; threads: {threads}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"load of the machine when it began: {load:.1f}\n")


def seconds(value: float) -> str:
    """With a unit and three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print an aligned Markdown table; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (head, rule, *rows):
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("| " + " | ".join(cells) + " |")
    print()


def ratio(times: Mapping[str, Matrix], peer: str, ours: str) -> float:
    """How many times sooner ours is done: the median over the rounds of their ratios."""
    return float(np.median(times[peer] / times[ours]))


@dataclass(frozen=True)
class Goal:
    """A figure that is wanted, and the one measured."""

    what: str
    measured: float
    wanted: float
    unit: str = "x"
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        if self.at_most:
            return self.measured <= self.wanted
        return self.measured >= self.wanted

    def row(self) -> list[str]:
        """Of a table."""
        sign = "≤" if self.at_most else "≥"
        figures = (f"{self.measured:.3g} {self.unit}", f"{sign} {self.wanted:g} {self.unit}")
        return [self.what, *figures, "met" if self.met else "MISSED"]


def finish(
    options: argparse.Namespace, goals: Sequence[Goal], figures: Mapping[str, Any] | None = None
) -> None:
    """Print what became of the goals, unless the run was short, and write all figures as JSON."""
    if goals and not options.short:
        table(["goal", "measured", "wanted", ""], [goal.row() for goal in goals])
    if options.json is not None:
        found = {
            "processor": processor(),
            "versions": versions(),
            "goals": [vars(goal) for goal in goals],
            "seconds": figures,
        }
        options.json.write_text(json.dumps(found, default=np.ndarray.tolist, indent=1) + "\n")
