"""What pages and docstrings show is run: the Python blocks of a page in turn, each example."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers import markdown, rest

import bptt

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(
    (Path(bptt.__path__[0], *module.name.split(".")[1:]).with_suffix(".py"))
    for module in pkgutil.walk_packages(bptt.__path__, "bptt.")
    if not module.ispkg and not module.name.startswith(("bptt._", "bptt.cli"))
)

pages = Sybil(
    [markdown.PythonCodeBlockParser(), markdown.SkipParser()], patterns=["*.md"], path=str(ROOT)
)
docstrings = Sybil(
    [rest.PythonCodeBlockParser(), rest.SkipParser()],
    patterns=["*.py"],
    path=str(ROOT),
    document_types={".py": PythonDocStringDocument},
)


def frame(bp, depth):
    x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
    _, h = bptt.layers.lstm(bp, x, width=8)
    return x, y, bptt.layers.dense(bp, h, 1)


@pytest.fixture
def names(monkeypatch, tmp_path):
    """What examples take for granted: a net like the README's, and data."""
    monkeypatch.chdir(tmp_path)  # for what they write
    bp = bptt.BPTT(seed=0)
    x, y, out = bp.generate_graphs(frame, num_loops=20)[bp.DEEP]
    loss = bptt.reduce_mean(bptt.square(out - y))
    optimizer, clip = bptt.Adam(0.01), bptt.ClipByGlobalNorm(1.0)
    train = bp.minimize(loss, optimizer, clip)
    wave = np.sin(np.arange(2001) * 0.1)
    inputs, targets = data = [wave[:-1], wave[1:]]
    stream, use = wave[:10], np.asarray
    del monkeypatch, tmp_path
    return {**locals(), "np": np, "bptt": bptt, "frame": frame}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page, names):
    document = pages.parse(page)
    document.namespace.update(names)
    for example in document:
        example.evaluate()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_docstrings(module, names):
    document = docstrings.parse(module)
    for example in document:
        document.namespace.update(names)  # none goes on with another's
        example.evaluate()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_doctests(module):
    name = ".".join(["bptt", *module.relative_to(bptt.__path__[0]).with_suffix("").parts])
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found():
    """A block in another form than the parsers know would never be run."""
    assert len(list(pages.parse(README))) == README.read_text().count("```python")
    model = next(path for path in MODULES if path.stem == "model")
    assert len(list(docstrings.parse(model))) >= 3
