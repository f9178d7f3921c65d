"""``bptt info``: what runs here."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

import click

from bptt.info import build_info


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
def info(as_json: bool) -> None:
    """Versions, the instruction set in use, and how many threads a net may have."""
    build = build_info()
    report = {
        "bptt": build["version"],
        "instruction set": build["isa"],
        "available": build["isa_available"],
        "threads": build["processors"],
        "compiler": build["compiler"],
        "eigen": build["eigen"],
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "safetensors", "tqdm", "click")},
        "platform": platform.platform(),
    }
    if as_json:
        click.echo(json.dumps(report))
        return
    width = max(map(len, report))
    for name, value in report.items():
        click.echo(f"{name:<{width}}  {', '.join(value) if isinstance(value, list) else value}")
