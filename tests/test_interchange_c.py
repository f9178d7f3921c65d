"""Exported C headers, compiled with every warning an error and run beside `bp.step`.

`pytest tests/test_interchange_*.py -q -s` prints the largest differences.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import bptt
import frames
from bptt import _core, interchange
from bptt.interchange import c as exporter
from bptt.interchange.cells import PRIMITIVES
from test_interchange_onnx import BATCH, FEATURES, NETS, largest, net
from test_random_frames import Drawn, examples, numbers, programs

FLAGS = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fPIC", "-shared"]
COMPILERS = [c for c in ("gcc", "clang") if shutil.which(c)]
BOUND = {"float32": 2e-5, "float64": 1e-12}

WRAPPER = """
#include "model.h"
#include <stddef.h>
size_t size(void);
void init(void *s);
void step(void *s, const {real} **x, {real} **y);
size_t size(void) {{ return sizeof(model_state); }}
void init(void *s) {{ model_init((model_state *)s); }}
void step(void *s, const {real} **x, {real} **y) {{
  (void)x;
  model_step((model_state *)s{inputs}{outputs});
}}
"""


class Compiled:
    """A header behind a C interface, with a state of its own."""

    def __init__(
        self,
        bp: bptt.BPTT,
        folder: Path,
        compiler: str,
        outputs: Any = None,
        optimised: str = "-O1",
    ) -> None:
        if outputs is None:
            outputs = [bp.graphs["shallow"][-1]]
        interchange.to_c(bp, folder / "model.h", outputs=outputs)
        trace = outputs[0].trace
        ids = [each.id for each in outputs]
        inputs = trace.inputs([*ids, *trace.carried(ids)])
        self.dtype = bp._net.numerics.dtype
        self.inputs = [x.name for x in inputs]
        self.shapes = [each.shape for each in outputs]
        source = WRAPPER.format(
            real="float" if self.dtype == np.float32 else "double",
            inputs="".join(f", x[{n}]" for n in range(len(inputs))),
            outputs="".join(f", y[{n}]" for n in range(len(outputs))),
        )
        (folder / "model.c").write_text(source)
        library = folder / f"{compiler}.so"
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        done = subprocess.run(
            [compiler, *FLAGS, optimised, folder / "model.c", "-o", library, "-lm"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.library = ctypes.CDLL(str(library))
        self.library.size.restype = ctypes.c_size_t
        self.state = ctypes.create_string_buffer(self.library.size())
        self.library.init(self.state)

    def step(self, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """One frame; arrays ``(features, batch)`` as everywhere."""
        given = [np.asfortranarray(fed[name], self.dtype) for name in self.inputs]
        made = [np.full(shape, np.nan, self.dtype, order="F") for shape in self.shapes]
        self.library.step(self.state, pointers(given), pointers(made))
        return made


def pointers(arrays: Sequence[np.ndarray]) -> Any:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))


@pytest.fixture(params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    if request.param not in COMPILERS:
        pytest.skip(f"there is no {request.param} here")
    return request.param


@pytest.mark.parametrize(
    ("compiler", "dtype"), [("gcc", "float32"), ("clang", "float64")], indirect=["compiler"]
)
@pytest.mark.parametrize("name", NETS)
def test_streams(name: str, dtype: str, compiler: str, rng: Any, tmp_path: Path) -> None:
    bp = net(name, dtype)
    compiled = Compiled(bp, tmp_path, compiler, optimised="-O3")
    x = rng.normal(size=(1000, FEATURES, BATCH)).astype(dtype)
    worst = largest([compiled.step({"x": x_t})[0] for x_t in x], bp.predict([x]))
    print(f"\nC, {compiler}, {name}, {dtype}, 1000 frames: largest difference {worst:.1e}")
    assert worst <= BOUND[dtype]


@pytest.mark.parametrize("dtype", BOUND)
def test_what_stays_is_a_mean(dtype: str, rng: Any, tmp_path: Path) -> None:
    """Zoneout, dropout and learned starts in the shallow mode."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((FEATURES, BATCH), name="x")
        h = bptt.layers.gru(bp, x, 6, zoneout=0.2, recurrent_dropout=0.3, initial_state="learned")
        return x, bptt.layers.lstm(bp, h, 5, layer_norm=True, zoneout=(0.5, 0.1), dropout=0.2)[1]

    bp = bptt.BPTT(seed=0, dtype=dtype)
    bp.generate_graphs(frame, num_loops=4)
    frames.draw_weights(bp, np.random.default_rng(1))
    bp.reset_state("shallow")
    compiled = Compiled(bp, tmp_path, COMPILERS[0], optimised="-O3")
    x = rng.normal(size=(30, FEATURES, BATCH)).astype(dtype)
    assert largest([compiled.step({"x": x_t})[0] for x_t in x], bp.predict([x])) <= BOUND[dtype]


def test_activations(tmp_path: Path) -> None:
    """tanh and sigmoid over their whole range, tails included, to the last places."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((20_001, 1), name="x")
        return x, bptt.tanh(x), bptt.sigmoid(x)

    for dtype, places in (("float32", 4), ("float64", 5)):
        bp = bptt.BPTT(dtype=dtype)
        shallow = bp.generate_graphs(frame, 1)["shallow"]
        folder = tmp_path / dtype
        folder.mkdir()
        compiled = Compiled(bp, folder, COMPILERS[0], list(shallow[1:]))
        for reach in (0.01, 1.0, 20.0, 90.0, 1e30):
            x = np.linspace(-reach, reach, 20_001).astype(dtype)
            exact = x.astype(np.longdouble)
            with np.errstate(over="ignore", under="ignore"):
                right = np.tanh(exact), 1 / (1 + np.exp(-exact))
                for got, true in zip(compiled.step({"x": x[:, None]}), right, strict=True):
                    unit = np.spacing(np.abs(true).astype(dtype)).astype(np.longdouble)
                    assert (np.abs(got[:, 0] - true) <= places * unit).all(), (dtype, reach)


def check_any_frame(drawn: Drawn, dtype: str, compiler: str, folder: Path) -> None:
    """All that a frame returned, noise included."""
    bp = bptt.BPTT(seed=drawn.seed, dtype=dtype)
    frame = drawn.functions["frame"]
    bp.generate_graphs(lambda bp, depth: frame(bp, depth, bptt), num_loops=1)
    for salt, (name, weight) in enumerate(bp.parameters.items()):
        bp.parameters[name] = numbers(drawn, weight.shape, salt)
    outputs = list(bp.graphs["shallow"])
    compiled = Compiled(bp, folder, compiler, outputs)
    for t in range(4):
        given = {
            symbol.name: numbers(drawn, symbol.shape, 1000 * t + salt)
            for salt, symbol in enumerate(outputs[: len(drawn.placeholders)])
        }
        expected = bp.step(*given.values(), outputs=outputs)
        for n, (got, right) in enumerate(zip(compiled.step(given), expected, strict=True)):
            assert largest(got, right) <= BOUND[dtype], (t, n)


@examples(6)
@given(programs())
def test_any_frame(tmp_path_factory: Any, drawn: Drawn) -> None:
    if not COMPILERS:
        pytest.skip("there is no compiler here")
    check_any_frame(
        drawn, "float64", COMPILERS[drawn.seed % len(COMPILERS)], tmp_path_factory.mktemp("c")
    )


@pytest.mark.parametrize(
    "operation",
    ["concat", "sum", "normal", "uniform", "softmax", "log_softmax", "embedding", "huber"],
)
def test_frames_with(operation: str, tmp_path_factory: Any) -> None:
    @examples(1)
    @given(programs(operation))
    def any_frame(drawn: Drawn) -> None:
        check_any_frame(drawn, "float32", COMPILERS[-1], tmp_path_factory.mktemp("c"))

    any_frame()


def test_every_operation_has_a_form() -> None:
    known = {*exporter._ELEMENTWISE, *exporter._OTHERS, *PRIMITIVES}
    registered = {operation.name for operation in _core.operations()}
    assert registered - known == {"window_sum", "window_mean"}


def test_starting_values(compiler: str, tmp_path: Path) -> None:
    """`init` sets them, over and over."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        a = bp.get_past_variable("a", np.array([[1.0], [-2.0]]))
        b = bp.get_past_variable("b", np.full((2, 1), 0.5))
        bp.name_variable("b", b + 1)
        return bp.name_variable("a", 0.5 * a + b)

    bp = bptt.BPTT(dtype="float64")
    bp.generate_graphs(frame, 1)
    compiled = Compiled(bp, tmp_path, compiler)
    expected = [bp.step() for _ in range(3)]
    for _ in range(2):
        compiled.library.init(compiled.state)
        np.testing.assert_array_equal([compiled.step({})[0] for _ in range(3)], expected)


def test_names_that_c_has_itself(compiler: str, tmp_path: Path) -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 1), name="double")
        y = bp.placeholder((2, 1), name="2 λ/s")
        past = bp.get_past_variable("s", np.zeros((2, 1)))
        bp.name_variable("s", past + x)
        return x, y, past * y - x

    bp = bptt.BPTT()
    bp.generate_graphs(frame, 1)
    compiled = Compiled(bp, tmp_path, compiler)
    for _ in range(3):
        x, y = np.full((2, 1), 2.0), np.full((2, 1), 3.0)
        got = compiled.step({"double": x, "2 λ/s": y})[0]
        np.testing.assert_array_equal(got, bp.step(x, y))


def test_a_bad_name(tmp_path: Path) -> None:
    bp = net("rnn", "float32")
    for name in ("2nd", "a-b", "", 5):
        with pytest.raises(bptt.UsageError, match="identifier"):
            interchange.to_c(bp, tmp_path / "a.h", name=name)
    with pytest.raises(bptt.UsageError, match="identifier"):
        interchange.to_c(bp, tmp_path / "2.h")
    interchange.to_c(bp, tmp_path / "my-net.h")
    assert "my_net_step(" in (tmp_path / "my-net.h").read_text()
    assert frames.GATES  # the nets are those of the other exports
