"""The committed type stubs are those of the built core, and everything public says what it is."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bptt

STUBS = Path(bptt.__file__).with_name("_core.pyi")

NAMES = """
    BPTT SGD RMSProp Adagrad Adam AdamW schedules ClipByValue ClipByGlobalNorm
    initializers layers losses palindrome load softmax log_softmax
    tanh sigmoid relu exp log square sqrt abs matmul maximum minimum less transpose stop_gradient
    concat reduce_mean reduce_sum
    BpttError ShapeError NonFiniteError UsageError CheckpointError
"""
METHODS = """
    placeholder constant random_normal random_uniform get_variable variable_scope
    get_past_variable name_variable generate_graphs generate_feed_dict run
    generate_output_definitions save_output_state copy_state_forward parameters gradients state
    reset_state starting_constants minimize fit next_frame evaluate predict step stepper graphs save
"""


def normalised(text: str) -> list[str]:
    """Lines without trailing blanks, and without the blank lines that formatting may add."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_stubs_are_those_of_the_built_module(tmp_path: Path) -> None:
    """To renew them: python -m pybind11_stubgen bptt._core -o python, in the repository."""
    pytest.importorskip("pybind11_stubgen")
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "pybind11_stubgen",
            "bptt._core",
            "-o",
            str(tmp_path),
            "--exit-code",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    fresh = (tmp_path / "bptt" / "_core.pyi").read_text()
    assert normalised(STUBS.read_text()) == normalised(fresh)


def public() -> Iterator[tuple[str, Any]]:
    """Every public name of the package, and the public members of its classes and modules."""
    for name in bptt.__all__:
        value = getattr(bptt, name)
        yield name, value
        if inspect.ismodule(value):
            for inner, member in inspect.getmembers(value, callable):
                if (
                    not inner.startswith("_")
                    and getattr(member, "__module__", "") == value.__name__
                ):
                    yield f"{name}.{inner}", member
        if inspect.isclass(value):
            for inner, member in vars(value).items():
                if not inner.startswith("_") and (callable(member) or isinstance(member, property)):
                    yield f"{name}.{inner}", member


@pytest.mark.parametrize("name", [name for name, _ in public()])
def test_everything_public_has_a_docstring(name: str) -> None:
    (value,) = [value for other, value in public() if other == name]
    if isinstance(value, str):
        return
    assert inspect.getdoc(value), f"{name} has no docstring"


def test_public_names_of_the_design() -> None:
    assert set(NAMES.split()) <= set(bptt.__all__)
    bp = bptt.BPTT(seed=0)
    assert not [name for name in METHODS.split() if name not in dir(bp)]
    assert Path(bptt.__file__).with_name("py.typed").exists()
