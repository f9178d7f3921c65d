"""``python -m bptt.cli`` is ``bptt``."""

from bptt.cli import main

main(prog_name="bptt")
