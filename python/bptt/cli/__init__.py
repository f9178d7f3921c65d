"""The command ``bptt``.

Results go to standard output, progress bars to standard error. A bar needs a terminal; without
one, plain lines tell the progress, or nothing does.
"""

from __future__ import annotations

import click

from bptt.cli.info import info
from bptt.cli.nets import export, predict, train
from bptt.cli.palindrome import palindrome

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bptt", message="bptt %(version)s")
def main() -> None:
    """Recurrent nets written as one frame: trained deep, streamed shallow."""


for command in (export, info, palindrome, predict, train):
    main.add_command(command)
