"""How the pages are made: ``sphinx-build -W docs build/docs``."""

import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

project = "bptt"
author = "the bptt developers"
copyright = "the bptt developers, Apache-2.0"
release = importlib.metadata.version("bptt")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bptt {release}"

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the source tree
    "ref.python",  # a word in backticks that names several things
]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "py:obj"
napoleon_use_rtype = False


def draw(app: object) -> None:
    """The pictures of plots.md are what its own examples draw."""
    page = Path(__file__).with_name("plots.md")
    folder = page.with_name("pictures")
    folder.mkdir(exist_ok=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)), {})
    finally:
        os.chdir(here)


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("builder-inited", draw)
