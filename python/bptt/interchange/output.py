"""Files in other formats: whole or not there, as checkpoints are."""

from __future__ import annotations

import os

from bptt import files
from bptt.checkpoint import text_of
from bptt.errors import InterchangeError


def place(path: str | os.PathLike[str]) -> str:
    """The path as text, if a file could be written to it.

    Raises:
        UsageError: no path.
        InterchangeError: there is no such folder, or it is no regular file.
    """
    name = text_of(path)
    try:
        files.check_place(name)
    except OSError as error:
        raise _refused(name, error) from None
    return name


def write(name: str, content: bytes) -> None:
    """Write a whole file.

    Raises:
        InterchangeError: the file system refuses.
    """
    try:
        files.replace(name, content)
    except OSError as error:
        raise _refused(name, error) from None


def _refused(name: str, error: OSError) -> InterchangeError:
    return InterchangeError(f"{name} cannot be written: {error}")
