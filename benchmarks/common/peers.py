"""The libraries that are installed: what they call themselves, and their versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

PACKAGES = {
    "PyTorch": "torch",
    "JAX": "jax",
    "ONNX Runtime": "onnxruntime",
    "ONNX": "onnx",
}


def installed(name: str) -> bool:
    """Whether a library of `PACKAGES` can be imported."""
    return find_spec(PACKAGES[name]) is not None


def versions() -> dict[str, str]:
    """By library; of a missing one, that it is left out."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed, left out"
    return found
