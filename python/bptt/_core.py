"""Gives way to the core that was compiled for this machine's instruction set."""

from bptt import isa

isa.load(__name__)
