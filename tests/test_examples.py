"""The notebooks run, from a clean kernel, and what they assert holds."""

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore")  # of the kernel's machinery
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=120).execute()
    pictures = sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert pictures == 2
    bars = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "windows/s, loss" in output.get("text", "")
        or "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert bars, "training showed no progress"


def test_they_are_found():
    assert [path.stem for path in NOTEBOOKS] == ["palindrome", "streaming"]
