"""What runs here: versions, instruction set, processors."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TypedDict

from bptt import _core, isa
from bptt.processors import processors

try:
    VERSION = version("bptt")
except PackageNotFoundError:  # a source tree on the path that was never installed
    VERSION = "0+unknown"


class BuildInfo(TypedDict):
    """See `build_info`."""

    version: str
    isa: str
    isa_available: list[str]
    compiler: str
    eigen: str
    processors: int


def build_info() -> BuildInfo:
    """What runs, for reports and records.

    Returns:
        A dictionary:

        - ``version``: of the package;
        - ``isa``: the instruction set that the core was compiled for: ``"v2"``, ``"v3"`` or
          ``"v4"``, levels of x86-64 (SSE 4.2; AVX2 and FMA; AVX-512), ``"base"`` on other
          processors, ``"native"`` for a build with ``BPTT_NATIVE``;
        - ``isa_available``: those that this build has and this machine can run, the best one last.
          The environment variable ``BPTT_ISA`` chooses another of them, before the package is
          imported;
        - ``compiler`` and ``eigen``: what the core was compiled with;
        - ``processors``: how many this process may use: the most threads that a net uses.
    """
    core = _core.build_info()
    return {
        "version": VERSION,
        "isa": core["isa"],
        "isa_available": list(isa.available()),
        "compiler": core["compiler"],
        "eigen": core["eigen"],
        "processors": processors(),
    }
