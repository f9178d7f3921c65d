"""A traced frame as a table and as a picture: what runs once a window, and what steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from bptt.net import Net
    from bptt.trace import Trace

ONCE, WINDOW, CELL, STEPS, LAST = (
    "once a window",
    "all frames at once",
    "a cell, through time",
    "frame by frame",
    "over the window",
)
"""How a stage runs."""

_COLOURS = {  # Okabe & Ito, "Color universal design" (2008), lightened
    ONCE: "#e8e8e8",
    WINDOW: "#cfe8f7",
    CELL: "#ffe3b3",
    STEPS: "#f7cdb8",
    LAST: "#d5eee0",
}


class Graphs(Mapping[str, tuple[Any, ...]]):
    """What the frame returned for each mode; printed, a table of its stages; in a notebook, drawn.

    A stage is a set of operations that run together: those of a cycle through time, frame by frame;
    any other operation by itself, over all frames of the window at once.
    """

    def __init__(self, net: Net) -> None:
        """The graphs of a net."""
        self._net = net

    def __getitem__(self, depth: str) -> tuple[Any, ...]:
        return self._net.traces[depth].returned

    def __iter__(self) -> Iterator[str]:
        return iter(self._net.traces)

    def __len__(self) -> int:
        return len(self._net.traces)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __str__(self) -> str:
        weights = {name: self._net.weights.shape(name) for name in self._net.weights.names}
        numbers = sum(features * batch for features, batch in weights.values())
        lines = [_table(trace) for trace in self._net.traces.values()]
        lines.append(
            f"{numbers:,} parameters in {len(weights)} weights, {self._net.numerics.dtype}"
        )
        for depth, frames, segment, trains, memory in self._net.compiled():
            purpose = " with gradients" if trains else ""
            parts = "" if segment is None else f", {segment} at a time"
            lines.append(f"{bytes_of(memory)} for {frames} x {depth}{purpose}{parts}")
        return "\n".join(lines)

    def _repr_svg_(self) -> str:
        """The deep graph, for notebooks; the shallow one differs in what its frame says it does."""
        return _svg(next(iter(self._net.traces.values())))


@dataclass(frozen=True)
class Stage:
    """Operations that run together.

    Attributes:
        operations: their names, in running order.
        shape: of what the last of them makes, ``(features, batch)``.
        weights: the names of the weights they use.
        sources: the values of other stages, and placeholders, that they use at t; and those they
            use at t-1.
        outputs: the values they make.
        runs: how.
    """

    operations: tuple[str, ...]
    shape: tuple[int, int]
    weights: tuple[str, ...]
    sources: tuple[tuple[int, ...], tuple[int, ...]]
    outputs: frozenset[int]
    runs: str


def stages(trace: Trace) -> list[Stage]:
    """The stages of all that the trace computes, in running order."""
    graph = trace.graph
    nodes, named = graph.nodes, dict(graph.recurrences.values())
    weights = {symbol.id: name for name, symbol in trace.variables.items()}
    placeholders = {symbol.id for symbol in trace.placeholders}
    made = frozenset(value for node in nodes for value in node.outputs)
    found = []
    for numbers, stepwise in graph.stages(sorted(made)):
        mine = [nodes[number] for number in numbers]
        outputs = frozenset(value for node in mine for value in node.outputs)
        used = dict.fromkeys(value for node in mine for value in node.inputs)
        before = [named[value] for value in used if value in named]
        cycle = any(value in outputs for value in before)
        extent = graph.extent(mine[-1].outputs[0])
        runs = {"constant": ONCE, "window": LAST}.get(extent, CELL if cycle else WINDOW)
        found.append(
            Stage(
                operations=tuple(node.operation for node in mine),
                shape=graph.shape(mine[-1].outputs[0]),
                weights=tuple(weights[value] for value in used if value in weights),
                sources=(
                    tuple(v for v in used if v in (made | placeholders) - outputs),
                    tuple(v for v in before if v not in outputs),
                ),
                outputs=outputs,
                runs=STEPS if stepwise else runs,
            )
        )
    return found


def _table(trace: Trace) -> str:
    """One line a stage."""
    window = "1 frame" if trace.frames == 1 else f"{trace.frames} frames"
    rows = [("", "runs", "operations", "shape", "weights")]
    for number, stage in enumerate(stages(trace), 1):
        rows.append(
            (
                str(number),
                stage.runs,
                _shortened(_counted(stage.operations)),
                f"{stage.shape[0]} x {stage.shape[1]}",
                _shortened(_scopes(stage.weights)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{trace.depth}: {window} a window"]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(["", row[0].rjust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join([*lines, ""])


_BOX, _GAP, _LINE = 300, 28, 17  # of the picture, in pixels


def _svg(trace: Trace) -> str:
    """Boxes for stages, one below the other in running order, and lines from one to another.

    Those at the left, dashed, are what is used one frame later.
    """
    texts: list[list[str]] = []
    colours: list[str] = []
    owner: dict[int, int] = {}  # of each value, the box that makes it
    for symbol in trace.placeholders:
        owner[symbol.id] = len(texts)
        texts.append([f"{symbol.name} {symbol.shape[0]} x {symbol.shape[1]}"])
        colours.append("#ffffff")
    drawn = stages(trace)
    for stage in drawn:
        owner.update(dict.fromkeys(stage.outputs, len(texts)))
        weights = [_shortened(_scopes(stage.weights))] if stage.weights else []
        title = f"{_shortened(_counted(stage.operations))}  {stage.shape[0]} x {stage.shape[1]}"
        texts.append([title, *weights, stage.runs])
        colours.append(_COLOURS[stage.runs])

    tops, y = [], _GAP
    for text in texts:
        tops.append(y)
        y += _LINE * len(text) + 10 + _GAP
    lanes: list[int] = []  # beside the boxes, how far down each lane of lines is taken
    left, right = 24.0, 24.0 + _BOX
    parts = []

    def bottom(box: int) -> int:
        return tops[box] + _LINE * len(texts[box]) + 10

    for box, stage in enumerate(drawn, len(trace.placeholders)):
        for value in sorted({owner[value] for value in stage.sources[0]}):
            if value == box - 1:
                x = left + _BOX / 2
                parts.append(_path(f"M{x} {bottom(value)}V{tops[box]}", "line"))
                continue
            lane = next((k for k, end in enumerate(lanes) if end <= bottom(value)), len(lanes))
            lanes[lane : lane + 1] = [tops[box] + 8]
            x = right + 14 * (lane + 1)
            parts.append(_path(f"M{right} {bottom(value) - 8}H{x}V{tops[box] + 8}H{right}", "line"))
        for value in sorted({owner[value] for value in stage.sources[1]}):
            parts.append(
                _path(f"M{left} {bottom(value) - 8}H{left - 12}V{tops[box] + 8}H{left}", "past")
            )
        if stage.runs in (CELL, STEPS):  # what it makes comes back to it
            parts.append(
                _path(f"M{left} {bottom(box) - 8}H{left - 12}V{tops[box] + 8}H{left}", "past")
            )
    for box, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        parts.append(
            f'<rect x="{left}" y="{tops[box]}" width="{_BOX}" height="{bottom(box) - tops[box]}" '
            f'rx="4" fill="{colour}" stroke="#555"/>'
        )
        for row, line in enumerate(text):
            weight = ' font-weight="bold"' if row == 0 else ""
            parts.append(
                f'<text x="{left + 10}" y="{tops[box] + _LINE * (row + 1)}"{weight}>'
                f"{escape(line)}</text>"
            )
    width = right + 14 * (len(lanes) + 1) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{y}" '
        'font-family="sans-serif" font-size="12">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>' + "".join(parts) + "</svg>"
    )


def _path(d: str, kind: str) -> str:
    dashes = ' stroke-dasharray="4 3"' if kind == "past" else ""
    return f'<path d="{d}" fill="none" stroke="#555"{dashes} marker-end="url(#tip)"/>'


def _counted(names: Sequence[str]) -> str:
    """Each name once, with how often."""
    counts = Counter(names)
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in counts.items())


def _scopes(weights: Sequence[str]) -> str:
    """The scopes of weights, or the names of those that are in none."""
    return ", ".join(dict.fromkeys(name.rpartition("/")[0] or name for name in weights))


def _shortened(text: str, most: int = 44) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def bytes_of(count: int) -> str:
    """A number of bytes for a reader."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"
