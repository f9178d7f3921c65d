"""The one bar that training shows, where there is somebody to see it."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
import warnings
from typing import Any

_PERIOD = 0.1
"""Seconds from one refresh to the next."""


class Bar:
    """So many windows, how many are done, and the last one's loss; nothing where it is not shown.

    The core trains many windows in one call, and Python sees none of them: `ahead` says after how
    many it should look again, so that there are about ten refreshes a second, and never so few
    windows in a call that the calls would cost time.

    Args:
        total: of windows; None where nobody knows. Of none there is no bar.
        shown: draw it, if standard error is a terminal or this is a notebook, and the process is
            nobody's worker.
    """

    def __init__(self, total: int | None, shown: bool) -> None:
        self._drawn = _drawn(total) if shown and total != 0 and watched() else None
        self._done = 0
        self._loss = float("nan")
        self._chunk = 1
        self._asked = self._refreshed = time.perf_counter()

    def ahead(self) -> int:
        """How many windows to train until the next call of `advance`."""
        self._asked = time.perf_counter()
        return sys.maxsize if self._drawn is None else self._chunk

    def advance(self, windows: int, loss: float) -> None:
        """So many more are done, the last one with this loss."""
        if self._drawn is None:
            return
        self._done += windows
        self._loss = loss
        now = time.perf_counter()
        spent = max(now - self._asked, 1e-6)
        self._chunk = max(1, min(2 * self._chunk, int(windows * _PERIOD / spent)))
        if now - self._refreshed >= _PERIOD / 2:
            self._refreshed = now
            self._tell()
            self._drawn.update(self._done - self._drawn.n)

    def head(self, text: str) -> None:
        """What stands before it from now on."""
        if self._drawn is not None:
            self._drawn.set_description(text, refresh=False)

    def restart(self, text: str) -> None:
        """Back to none, with another head."""
        self._done = 0
        if self._drawn is not None:
            self._drawn.reset()
            self.head(text)

    def close(self) -> None:
        """It stays as it is, and what follows begins on a line of its own."""
        if self._drawn is not None:
            self._drawn.n = self._done
            self._tell()
            self._drawn.close()

    def _tell(self) -> None:
        if self._drawn is not None and self._done:
            self._drawn.set_postfix_str(f"loss {self._loss:.2e}", refresh=False)


def watched() -> bool:
    """Whether somebody sees what this process draws on its standard error."""
    if multiprocessing.parent_process() is not None:
        return False
    return _notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _notebook() -> bool:
    """Whether this is a kernel with a front end, rather than Python or IPython on a terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _drawn(total: int | None) -> Any:
    with warnings.catch_warnings():  # without ipywidgets a notebook gets a bar of letters
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    class Drawn(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread that looks after slow bars: every update is drawn

    columns, rows = shutil.get_terminal_size()  # a guess where the terminal has no size
    return Drawn(
        total=total,
        unit=" windows",
        file=sys.stdout if _notebook() else sys.stderr,
        miniters=1,
        mininterval=0,
        ncols=min(columns, 100),
        nrows=rows,
        bar_format="{desc}{n_fmt} windows [{elapsed}, {rate_noinv_fmt}{postfix}]"
        if total is None
        else "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
        "[{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]",
    )
