"""Files that are whole at every moment: written beside their place, flushed, then renamed.

The order is that of every database (see *Atomic commit in SQLite*): first the numbers are on the
disk, then the name points to them, then the folder that holds the name is on the disk. A process
that is killed, or a machine that stops, leaves the old file or the new one. All it may leave behind
besides is ``NAME.PID.TOKEN.partial``, which nobody reads and the next write to the same place
removes.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from contextlib import suppress

_writing: set[str] = set()  # the partial files that this process is writing now


def check_place(path: str) -> None:
    """See that a file could be written to this path, before long work whose result goes there.

    Raises:
        OSError: there is no such folder, or the path is no regular file.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(errno.EEXIST, "this is no regular file", target)


def replace(path: str, content: bytes) -> None:
    """Write a whole file; a link is followed, so that what it points to is replaced.

    Raises:
        OSError: the file system refuses. What was at the path stays, except when all that failed
            was flushing the folder: then the new file is there, whole.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    check_place(target)
    _remove_leftovers(target)
    partial = f"{target}.{os.getpid()}.{secrets.token_hex(4)}.partial"
    _writing.add(partial)
    try:
        try:
            _write_flushed(partial, content)
            os.replace(partial, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise
    finally:
        _writing.discard(partial)
    _flush_folder(folder)


def read(path: str) -> bytes:
    """A whole regular file; anything else (a folder, a pipe, a device) could block or never end.

    Raises:
        OSError: the file system refuses, or the path is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "this is no regular file", path)
    with open(path, "rb") as file:
        return file.read()


def _write_flushed(path: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    try:
        rest = memoryview(content)
        while rest:  # a call may write less than it was given
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except BaseException:
        with suppress(OSError):
            os.close(handle)
        raise
    os.close(handle)


def _flush_folder(folder: str) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(handle)


def _remove_leftovers(target: str) -> None:
    """Remove the partial files of writers that are gone. Failing to is no failure."""
    folder, name = os.path.split(target)
    pattern = re.compile(re.escape(name) + r"\.(\d{1,9})\.[0-9a-f]{8}\.partial")
    with suppress(OSError):
        for other in os.listdir(folder):
            found = pattern.fullmatch(other)
            path = os.path.join(folder, other)
            if found and path not in _writing and _gone(int(found[1])):
                with suppress(OSError):
                    os.unlink(path)


def _gone(process: int) -> bool:
    """Whether no other process has this number; True for our own: its files are in `_writing`."""
    if process == os.getpid():
        return True
    if os.name != "posix":  # no way to ask without harm
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
