"""Programs run with a pseudo-terminal, or with pipes, as standard output and error."""

import os
import subprocess
import sys

import pytest

ENVIRONMENT = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}


def on_a_terminal(*arguments: str) -> str:
    """Run Python with these arguments on a pseudo-terminal; what it wrote there."""
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=ENVIRONMENT,
    ) as process:
        os.close(terminal)
        written = b""
        while True:
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not chunk:
                break
            written += chunk
        assert process.wait() == 0, written.decode()
    os.close(controller)
    return written.decode()


def through_pipes(*arguments: str) -> str:
    """Run Python with these arguments; what it wrote to both of its pipes."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=ENVIRONMENT,
        check=True,
    )
    return done.stdout.decode()
