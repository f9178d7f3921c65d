"""The options that the scripts have in common, and how they end."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .check import Different


def positive(text: str) -> int:
    """A count, as an option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def parser(description: str | None, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """With the options that all have; the defaults of two of them."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--short", action="store_true", help="check answers, time next to nothing")
    made.add_argument("--rounds", type=positive, default=rounds, help=f"(default: {rounds})")
    made.add_argument(
        "--seconds", type=float, default=seconds, help=f"of one turn (default: {seconds})"
    )
    made.add_argument(
        "--cpu",
        dest="timer",
        action="store_const",
        default=time.perf_counter,
        const=time.process_time,
        help="count processor time, where others use the machine too; else time goes by the clock",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; a short run has one round of short turns, and leaves out the largest net."""
    options = made.parse_args()
    if options.short:
        options.cases = getattr(options, "cases", "").replace("D", "")
        options.rounds, options.seconds = 1, 0.002
    return options


def run(main: Callable[[], None]) -> None:
    """Call it, and end with status 1 where answers differ."""
    try:
        main()
    except Different as error:
        print(f"FAIL  {error}")
        sys.exit(1)
