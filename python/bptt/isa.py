"""Which build of the core is loaded: the one for the best instruction set that this machine has.

The whole core is compiled for several instruction sets, each in a module of its own; one of them
is loaded, once, under the name ``bptt._core``. A small module compiled for any processor says what
processor and operating system can do. The environment variable ``BPTT_ISA`` overrides the choice.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec

from bptt import _processor
from bptt.errors import UsageError

VARIABLE = "BPTT_ISA"
_ANYWHERE = "native", "base"  # sets that a build has alone, and that are not asked for
_LEVELS = "v2", "v3", "v4"


def available() -> dict[str, ModuleSpec]:
    """The sets that this build has and this machine can run, the best one last."""
    has = [*_ANYWHERE, *_processor.levels()]
    return {isa: spec for isa, spec in _built().items() if isa in has}


def choose(wanted: str | None, usable: Sequence[str], built: Sequence[str]) -> str:
    """The set to load, of those that are usable here, the best one last.

    Args:
        wanted: what ``BPTT_ISA`` says; None or empty: the best.
        usable: what this build has and this machine can run.
        built: what this build has.

    Raises:
        UsageError: what is wanted is not usable.
        ImportError: nothing is.
    """
    has = f"this machine has {', '.join(_processor.levels()) or 'none of ' + ', '.join(_LEVELS)}"
    here = f"{has}; this build of bptt has {', '.join(built) or 'no core'}"
    if wanted and wanted not in usable:
        raise UsageError(
            f"{VARIABLE} is one of {', '.join(usable) or 'none'} here, got {wanted!r}: {here}"
        )
    if not usable:
        raise ImportError(f"no core of bptt can run here: {here}")
    return wanted or usable[-1]


def load(name: str) -> None:
    """Make the core of the chosen set the module of this name.

    Raises:
        UsageError: see `choose`.
        ImportError: see `choose`.
    """
    usable = available()
    isa = choose(os.environ.get(VARIABLE), list(usable), list(_built()))
    path = usable[isa].origin
    assert path is not None
    loader = ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)


def _built() -> dict[str, ModuleSpec]:
    """Where the modules of this build lie."""
    specs = {isa: importlib.util.find_spec(f"bptt._core_{isa}") for isa in (*_ANYWHERE, *_LEVELS)}
    return {isa: spec for isa, spec in specs.items() if spec is not None}
