"""Random frames, run by bptt and by the plain numpy oracle: the same numbers, forward and backward.

Every example is a program drawn statement by statement; a failing one is printed as Python source
that can be pasted and run.  The suite draws the same frames each time.  To search further:

    BPTT_EXAMPLES=2000 pytest tests/test_random_frames.py

draws so many new ones for each test, at random.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import bptt
import oracle
from bptt import _core
from frames import as_traced

MORE = int(os.environ.get("BPTT_EXAMPLES", "0"))


def examples(number: int) -> Callable[[Any], Any]:
    """So many examples, the same ones each time, unless more are asked for."""
    return settings(
        max_examples=MORE or number,
        derandomize=not MORE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


# The programs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Symbol:
    """A name in the program: what it stands for, and how large its numbers may get."""

    name: str
    shape: tuple[int, int]
    frame: bool  # False: the same at every frame
    bound: float = 1.0
    source: str = "operation"  # or placeholder, weight, constant, past, noise


@dataclass(frozen=True)
class Drawn:
    """A frame function and a loss as source, and what to run them on."""

    source: str
    placeholders: tuple[tuple[int, int], ...]
    noises: int  # the frame returns its placeholders, then what it drew, then the rest
    frames: int
    seed: int

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints a failing example."""
        printer.text(f"{self.frames} frames, numbers of seed {self.seed}:\n\n{self.source}")

    @cached_property
    def functions(self) -> dict[str, Any]:
        names: dict[str, Any] = {"np": np}
        exec(self.source, names)
        return names


LARGEST = 3.0  # numbers beyond this are squashed, so that nothing overflows or saturates
ROWS: dict[str, Callable[[Writer], Symbol]] = {}  # the core's operation -> a statement that uses it


def row(*operations: str) -> Callable[[Any], Any]:
    def enter(statement: Callable[..., Symbol]) -> Callable[..., Symbol]:
        for operation in operations:
            ROWS[operation] = partial(statement, operation=operation)
        return statement

    return enter


BLOCK = 24  # random bytes for the choices of one statement; a block of zeros shrinks to nothing


class Writer:
    """Writes one program; every choice is hypothesis's."""

    def __init__(self, draw: Any):
        self.draw = draw
        self.lines: list[str] = []
        self.symbols: list[Symbol] = []
        self.weights: list[Symbol] = []
        self.unnamed: list[Symbol] = []  # past values that still need a value at t
        self.placeholders: list[Symbol] = []
        self.noises: list[Symbol] = []
        self.starts: dict[str, tuple[int, int]] = {}
        self.layers = 0
        self.block()
        # Few different sizes: most values then fit most others.
        self.sizes = sorted({1, self.choose(2, 3, 1, 5, 9), self.choose(3, 2, 1, 4, 17, 33)})
        self.batch = self.choose(1, 2, 3, 5, 16)

    # Choices

    def block(self) -> None:
        """Begins a statement: its choices are the coming bytes, and the simplest when these end."""
        self.bytes = iter(self.draw(st.binary(min_size=BLOCK, max_size=BLOCK)))

    def choose(self, *options: Any) -> Any:
        return options[next(self.bytes, 0) % len(options)]

    def chance(self, one_in: int) -> bool:
        return self.choose(*range(one_in)) == one_in - 1

    def some(self, fits: Callable[[Symbol], bool] = lambda s: True, *, fallback: Any = None) -> Any:
        """A symbol that fits: often a late one, now and then one that is the same at each frame."""
        fitting = [s for s in reversed(self.symbols) if fits(s)]
        if not fitting:
            return fallback()
        still = [s for s in fitting if not s.frame]
        if still and self.chance(5):
            return self.choose(*still)
        return self.choose(*(fitting[:4] if self.chance(2) else fitting))

    def beside(self, a: Symbol) -> Symbol:
        """A symbol that broadcasts with a."""
        return self.some(lambda s: broadcast(a.shape, s.shape) is not None)

    # Statements

    def write(self, prefix: str, expression: str, **what: Any) -> Symbol:
        symbol = Symbol(f"{prefix}{len(self.lines)}", **what)
        self.lines.append(f"{symbol.name} = {expression}")
        self.symbols.append(symbol)
        return symbol

    def operation(
        self, expression: str, shape: tuple[int, int], operands: Iterable[Symbol], bound: float
    ) -> Symbol:
        frame = any(s.frame for s in operands)
        if bound > LARGEST:
            expression, bound = f"f.tanh({2 / bound:.2g} * ({expression}))", 1.0
        past = next((p for p in self.unnamed if p.shape == shape), None)
        if past is not None and self.chance(5):
            self.unnamed.remove(past)
            expression = f'bp.name_variable("{past.name}", {expression})'
        return self.write("v", expression, shape=shape, frame=frame, bound=bound)

    def weight(self, rows: int, columns: int) -> Symbol:
        """A weight of this shape: a new one, or one that is there already."""
        there = [s for s in self.weights if s.shape == (rows, columns)]
        if there and self.chance(2):
            return self.choose(*there)
        scope = f"s{len(self.lines)}" if self.chance(6) else None
        name = f"W{len(self.lines)}"
        what = {"shape": (rows, columns), "frame": False, "source": "weight"}
        call = f'bp.get_variable("{name}", ({rows}, {columns}))'
        if scope:
            self.lines.append(f'with bp.variable_scope("{scope}"): {name} = {call}')
            self.symbols.append(Symbol(name, **what))
        else:
            self.write("W", call, **what)
        self.weights.append(self.symbols[-1])
        return self.symbols[-1]

    def placeholder(self) -> None:
        shape = (self.choose(*self.sizes), self.choose(self.batch, self.batch, 1))
        what = {"shape": shape, "frame": True, "source": "placeholder"}
        self.placeholders.append(self.write("x", f"bp.placeholder({shape})", **what))

    def past(self) -> Symbol:
        """Its starting value has all lanes, or one: then it takes the placeholders' lanes."""
        features = self.choose(*self.sizes)
        lanes = max((s.shape[1] for s in self.placeholders), default=1)
        if self.chance(2):
            start, shape = (features, 1), (features, lanes)
        else:
            start = shape = (features, self.batch)
        name = f"p{len(self.lines)}"
        what = {"shape": shape, "frame": True, "bound": LARGEST, "source": "past"}
        self.starts[name] = start
        call = f'bp.get_past_variable("{name}", np.zeros({start}))'
        self.unnamed.append(self.write("p", call, **what))
        return self.unnamed[-1]

    def name(self, past: Symbol) -> None:
        """Names what has its shape or is one column of it, whatever it is.

        It may be a placeholder, a constant, a weight, itself or another past value (a delay line),
        or have a name already.
        """
        shapes = (past.shape, (past.shape[0], 1))
        fitting = lambda s: s.shape in shapes  # noqa: E731
        if self.chance(3):
            value = self.some(fitting)
        elif self.chance(2):
            value = self.some(
                lambda s: fitting(s) and s.source == "operation", fallback=lambda: None
            )
        else:
            value = None
        if value is None:
            other = self.some(lambda s: s.frame and s.source == "operation", fallback=lambda: past)
            expression = f"0.5 * {past.name} + f.reduce_mean({other.name}, axis=(0, 1))"
            value = self.operation(expression, past.shape, [past], 0.5 * past.bound + other.bound)
        if past in self.unnamed:  # `operation` may have named it
            self.unnamed.remove(past)
            self.lines.append(f'bp.name_variable("{past.name}", {value.name})')

    def loose_ends(self) -> list[str]:
        """The means of whatever nothing was made of so far."""
        words = re.findall(r"\w+", "\n".join(self.lines))
        loose = [s for s in self.symbols if words.count(s.name) == 1] or self.symbols[-1:]
        return [f"f.reduce_mean({s.name}, axis=(0, 1))" for s in loose]


def broadcast(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        return None
    return (max(a[0], b[0]), max(a[1], b[1]))


# One row for every operation: an expression, and a bound on its numbers.

UNARY: dict[str, tuple[str, Callable[[float], float]]] = {
    "negative": ("-{a}", lambda a: a),
    "tanh": ("f.tanh({a})", lambda a: 1.0),
    "sigmoid": ("f.sigmoid({a})", lambda a: 1.0),
    "relu": ("f.relu({a})", lambda a: a),
    "exp": ("f.exp({a})", lambda a: np.exp(a)),
    "log": ("f.log(1.5 + f.square({a}))", lambda a: np.log(1.5 + a * a)),
    "sqrt": ("f.sqrt(0.5 + f.square({a}))", lambda a: np.sqrt(0.5 + a * a)),
    "square": ("f.square({a})", lambda a: a * a),
    "abs": ("f.abs({a})", lambda a: a),
    "stop_gradient": ("f.stop_gradient({a})", lambda a: a),
    "softmax": ("f.softmax({a})", lambda a: 1.0),
    "log_softmax": ("f.log_softmax({a})", lambda a: 2 * a + 4),
}

BINARY: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "add": ("{a} + {b}", lambda a, b: a + b),
    "subtract": ("{a} - {b}", lambda a, b: a + b),
    "multiply": ("{a} * {b}", lambda a, b: a * b),
    "divide": ("{a} / (1.5 + f.square({b}))", lambda a, b: a / 1.5),
    "maximum": ("f.maximum({a}, {b})", max),
    "minimum": ("f.minimum({a}, {b})", max),
}

NUMBERS = ("0.5 * {a}", "{a} - 0.3", "1.0 - {a}", "{a} / 2", "0.7 / (1.0 + f.exp({a}))")


@row(*UNARY)
def unary(w: Writer, operation: str) -> Symbol:
    expression, bound = UNARY[operation]
    a = w.some()
    return w.operation(expression.format(a=a.name), a.shape, [a], bound(a.bound))


@row(*BINARY)
def binary(w: Writer, operation: str) -> Symbol:
    expression, bound = BINARY[operation]
    a = w.some()
    if w.chance(6):
        other = w.choose("np.full((1, 1), 0.4)", f"np.linspace(-1, 1, {a.shape[0]}).reshape(-1, 1)")
        text = w.choose("{a} + {b}", "{b} * {a}").format(a=a.name, b=other)
        return w.operation(text, a.shape, [a], a.bound + 1)
    if w.chance(4):
        return w.operation(w.choose(*NUMBERS).format(a=a.name), a.shape, [a], a.bound + 1)
    b = w.beside(a)
    shape = broadcast(a.shape, b.shape)
    text = expression.format(a=a.name, b=b.name)
    return w.operation(text, shape, [a, b], bound(a.bound, b.bound))


@row("less")
def comparison(w: Writer, operation: str) -> Symbol:
    """Of what comes in: beside a computed number rounding would decide."""
    a = w.some(lambda s: s.source == "placeholder")
    sides = w.choose("{a}, 0.1", "np.full((1, 1), -0.2), {a}").format(a=a.name)
    return w.operation(f"f.less({sides})", a.shape, [a], 1.0)


@row("huber", "binary_cross_entropy_with_logits", "softmax_cross_entropy")
def loss_of_two(w: Writer, operation: str) -> Symbol:
    """Of two values of one shape, at every frame."""
    a = w.some()
    b = w.some(lambda s: s.shape == a.shape)
    target, extra, shape, bound = b.name, "", a.shape, 2 * a.bound + 2
    if operation == "huber":
        extra, bound = " 0.7,", 0.7 * (a.bound + b.bound)
    else:
        target = f"f.sigmoid({b.name})"
    if operation == "softmax_cross_entropy":
        shape, bound = (1, a.shape[1]), a.shape[0] * (2 * a.bound + 4)
    text = f'f.losses.{operation}({a.name}, {target},{extra} reduction="none")'
    return w.operation(text, shape, [a, b], bound)


def symbols_for(w: Writer, lanes: int, count: int) -> str:
    return f"np.array([{[w.choose(*range(count)) for _ in range(lanes)]}])"


@row("softmax_cross_entropy_of_symbols")
def loss_of_symbols(w: Writer, operation: str) -> Symbol:
    a = w.some(lambda s: s.shape[0] > 1, fallback=lambda: w.weight(2, 3))
    target = symbols_for(w, a.shape[1], a.shape[0])
    text = f'f.losses.softmax_cross_entropy({a.name}, {target}, reduction="none")'
    return w.operation(text, (1, a.shape[1]), [a], 2 * a.bound + 4)


@row("embedding")
def embedding(w: Writer, operation: str) -> Symbol:
    count, width = w.choose(2, 5, 9), w.choose(*w.sizes)
    name = f"e{len(w.lines)}"
    symbols = symbols_for(w, w.batch, count)
    text = f'f.layers.embedding(bp, {symbols}, {count}, {width}, name="{name}")'
    return w.operation(text, (width, w.batch), [], 1.0)


@row("matmul")
def product(w: Writer, operation: str) -> Symbol:
    b = w.some()
    if w.chance(3):  # two values that happen to fit
        a = w.some(lambda s: s.shape[1] == b.shape[0], fallback=lambda: w.weight(2, b.shape[0]))
    else:
        a = w.weight(w.choose(*w.sizes), b.shape[0])
        if w.chance(3):  # a sum of products, as a cell has it
            c = w.some()
            d = w.weight(a.shape[0], c.shape[0])
            shape = broadcast((a.shape[0], b.shape[1]), (d.shape[0], c.shape[1]))
            if shape is not None:
                bound = b.shape[0] * a.bound * b.bound + c.shape[0] * c.bound * d.bound
                text = f"{a.name} @ {b.name} + {d.name} @ {c.name}"
                return w.operation(text, shape, [a, b, c, d], bound)
    bound = b.shape[0] * a.bound * b.bound
    return w.operation(f"{a.name} @ {b.name}", (a.shape[0], b.shape[1]), [a, b], bound)


@row("transpose")
def transpose(w: Writer, operation: str) -> Symbol:
    a = w.some()
    return w.operation(f"f.transpose({a.name})", a.shape[::-1], [a], a.bound)


@row("concat")
def concat(w: Writer, operation: str) -> Symbol:
    axis = w.choose(0, 1)
    first = w.some(lambda s: s.shape[axis] < 10, fallback=lambda: w.weight(2, 3))
    parts = [first] * w.choose(0, 1) + [first]
    parts += [w.some(lambda s: s.shape[1 - axis] == first.shape[1 - axis] and s.shape[axis] < 10)]
    size = sum(s.shape[axis] for s in parts)
    shape = (size, first.shape[1]) if axis == 0 else (first.shape[0], size)
    text = f"f.concat([{', '.join(s.name for s in parts)}], axis={axis})"
    return w.operation(text, shape, parts, max(s.bound for s in parts))


@row("slice")
def slice_features(w: Writer, operation: str) -> Symbol:
    a = w.some()
    start = w.choose(*range(a.shape[0]))
    stop = w.choose(*range(start + 1, a.shape[0] + 1))
    return w.operation(f"{a.name}[{start}:{stop}]", (stop - start, a.shape[1]), [a], a.bound)


@row("sum", "mean")
def reduction(w: Writer, operation: str) -> Symbol:
    a = w.some()
    axis = w.choose(0, 1, (0, 1))
    shape = (1 if axis != 1 else a.shape[0], 1 if axis != 0 else a.shape[1])
    terms = a.shape[0] * a.shape[1] // (shape[0] * shape[1])
    bound = a.bound * (terms if operation == "sum" else 1)
    return w.operation(f"f.reduce_{operation}({a.name}, axis={axis})", shape, [a], bound)


@row("normal", "uniform")
def noise(w: Writer, operation: str) -> Symbol:
    shape = (w.choose(*w.sizes), w.choose(w.batch, 1))
    options = {"normal": "mean=0.2, stddev=0.3", "uniform": "low=-1.0, high=0.5"}[operation]
    what = {"shape": shape, "frame": True, "source": "noise"}
    w.noises.append(w.write("e", f"bp.random_{operation}({shape}, {options})", **what))
    return w.noises[-1]


@row("expand")
def spread(w: Writer, operation: str) -> Symbol:
    """What has no buffer of its own gets a copy that has, spread over the lanes."""
    past = w.past()
    w.unnamed.remove(past)
    fits = lambda s: s.shape == (past.shape[0], 1)  # noqa: E731
    column = w.some(fits, fallback=lambda: w.weight(past.shape[0], 1))
    w.lines.append(f'bp.name_variable("{past.name}", {column.name})')
    return past


@row("rnn")
def rnn(w: Writer, operation: str) -> Symbol:
    x = w.some(lambda s: s.frame)
    width, output = w.choose(*w.sizes), w.choose("", ", output=True")
    text = f"f.layers.rnn(bp, {x.name}, {width}{output})"
    h = w.operation(text, (width, x.shape[1]), [x], 1.0)
    past_of_cell(w, f"hidden-{w.layers}", h.shape)
    w.layers += 1
    return h


@row("gru")
def gru(w: Writer, operation: str) -> Symbol:
    x = w.some(lambda s: s.frame)
    width, reset = w.choose(*w.sizes), w.choose("after", "before")
    text = f"f.layers.gru(bp, {x.name}, {width}, reset={reset!r})"
    h = w.operation(text, (width, x.shape[1]), [x], 1.0)
    past_of_cell(w, f"hidden-{w.layers}", h.shape)
    w.layers += 1
    return h


@row("lstm", "lstm_coupled", "lstm_projected", "lstm_normalised")
def lstm(w: Writer, operation: str) -> Symbol:
    x = w.some(lambda s: s.frame)
    width, peephole = w.choose(*w.sizes), w.choose(None, "full", "diagonal")
    if operation == "lstm_normalised":
        peephole = None
    outputs = w.choose(*w.sizes) if operation == "lstm_projected" else width
    options = {
        "lstm": "",
        "lstm_coupled": ", coupled=True",
        "lstm_projected": f", projection={outputs}",
        "lstm_normalised": ", layer_norm=True, epsilon=0.01",
    }[operation]
    lanes, n = x.shape[1], len(w.lines)
    call = f"f.layers.lstm(bp, {x.name}, {width}, peephole={peephole!r}{options})"
    w.lines.append(f"c{n}, h{n} = {call}")
    w.symbols.append(Symbol(f"c{n}", (width, lanes), True, LARGEST))
    w.symbols.append(Symbol(f"h{n}", (outputs, lanes), True, 1.0 if outputs == width else LARGEST))
    cell, hidden = w.symbols[-2:]
    kind, size = w.choose(("hidden", outputs), ("cell", width))
    past_of_cell(w, f"{kind}-{w.layers}", (size, lanes))
    w.layers += 1
    return w.choose(hidden, cell)


def past_of_cell(w: Writer, name: str, shape: tuple[int, int]) -> None:
    """Now and then the program looks at a cell's own past value."""
    if w.chance(4):
        what = {"shape": shape, "frame": True, "bound": LARGEST, "source": "past"}
        w.write("q", f'bp.get_past_variable("{name}", np.zeros({(shape[0], 1)}))', **what)


def dense(w: Writer) -> Symbol:
    x, width = w.some(), w.choose(*w.sizes)
    activation = w.choose("f.tanh", "f.sigmoid")
    text = f"f.layers.dense(bp, {x.name}, {width}, activation={activation})"
    return w.operation(text, (width, x.shape[1]), [x], 1.0)


def constant(w: Writer) -> Symbol:
    features = w.choose(*w.sizes)
    text = f"bp.constant(np.linspace(-0.9, 0.7, {features}).reshape({features}, 1))"
    return w.write("k", text, shape=(features, 1), frame=False, source="constant")


def again(w: Writer) -> Symbol:
    """The same past value once more: it is the one at t-1, also after its name was given."""
    past = w.some(lambda s: s.name in w.starts)
    call = f'bp.get_past_variable("{past.name}", np.zeros({w.starts[past.name]}))'
    what = {"shape": past.shape, "frame": True, "bound": LARGEST, "source": "past"}
    return w.write("a", call, **what)


OUTSIDE = ["window_sum", "window_mean"]  # made by the loss, in every example
STATEMENTS: list[Callable[[Writer], Any]] = [
    *ROWS.values(),
    ROWS["matmul"],
    ROWS["matmul"],
    ROWS["multiply"],
    ROWS["tanh"],
    dense,
    constant,
    again,
]


def window_term(w: Writer, symbols: list[Symbol], reduce: str) -> str:
    """One summand of the loss, a number for the whole window."""
    v = w.choose(*symbols)
    u = w.choose(*(s for s in symbols if broadcast(s.shape, v.shape)))
    any_other = w.choose(*symbols)
    positive = f"2 + f.square(f.reduce_mean({u.name}, axis=0))"
    terms = [
        f"f.{reduce}(f.square({v.name} - 0.3))",
        f"f.{reduce}({v.name} * {u.name})",
        f"f.tanh(0.1 * f.{reduce}({v.name})) * f.reduce_mean({any_other.name})",
        f"f.{reduce}(f.reduce_sum({v.name}, axis=0) / ({positive}))",
        f"f.sqrt(1.0 + f.square(f.{reduce}({v.name})))",
    ]
    if not v.frame:  # combined with a window value, or counted once
        terms.append(f"f.{reduce}({v.name} * f.reduce_mean({any_other.name}))")
        terms.append(f"0.1 * f.{reduce}({v.name}) * f.{reduce}(f.square({v.name}), axis=(0, 1))")
    return w.choose(*terms)


@st.composite
def programs(draw: Any, focus: str | None = None) -> Drawn:
    """A program; with a focus, one in which this operation's result is seen and is in the loss."""
    w = Writer(draw)
    opening = [w.placeholder] * w.choose(1, 2) + [w.past] * w.choose(1, 2, 3)
    if w.chance(3):
        opening.reverse()  # past values asked for before there is a placeholder
    for statement in opening:
        statement()

    def statements() -> None:
        w.block()
        for _ in range(w.choose(0, 3, 4, 5, 6, 7, 9, 12)):
            w.block()
            statement = w.choose(None, *STATEMENTS)
            if statement is not None:
                statement(w)

    statements()
    w.block()
    seen = [ROWS[focus](w)] if focus in ROWS else []
    statements()
    while w.unnamed:
        w.block()
        w.name(w.unnamed[0])

    w.block()
    if not w.chance(4):  # most programs use all that they compute
        seen.append(w.operation(f"f.tanh({' + '.join(w.loose_ends())})", (1, 1), w.symbols, 1.0))
    seen += [w.some(lambda s: s not in w.placeholders) for _ in range(w.choose(1, 2, 3, 4))]
    returned = list(dict.fromkeys([*w.placeholders, *w.noises, *seen]))
    reduce = {"window_sum": "reduce_sum", "window_mean": "reduce_mean"}.get(
        focus or "", w.choose("reduce_mean", "reduce_sum")
    )
    w.block()
    terms = [window_term(w, seen[:1], reduce)]
    terms += [window_term(w, seen, reduce) for _ in range(w.choose(0, 1, 2, 3))]

    names = ", ".join(s.name for s in returned)
    body = "\n    ".join([*w.lines, f"return ({names},)"])
    source = f"def frame(bp, depth, f):\n    {body}\n\n\n"
    source += f"def loss(f, {names}):\n    return {' + '.join(terms)}\n"
    w.block()
    return Drawn(
        source,
        tuple(s.shape for s in w.placeholders),
        len(w.noises),
        frames=w.choose(2, 1, 3, 5, 8),
        seed=draw(st.integers(0, 2**16)),
    )


# Both sides -----------------------------------------------------------------------------------


def numbers(drawn: Drawn, shape: tuple[int, ...], salt: int) -> np.ndarray:
    """Uniform on (-1, 1), and exact in single precision too."""
    rng = np.random.default_rng([drawn.seed, salt])
    return rng.uniform(-1, 1, shape).astype(np.float32).astype(np.float64)


@dataclass
class Answer:
    """Every number that a window gives, by what it is."""

    forward: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]

    def items(self) -> Iterable[tuple[str, np.ndarray]]:
        yield from self.forward.items()
        for what, gradient in self.gradients.items():
            yield f"gradient of {what}", gradient


def by_bptt(drawn: Drawn, dtype: str) -> tuple[Answer, dict[str, Any]]:
    """Its answer, and what the oracle must be given to answer the same question."""
    frame, loss = drawn.functions["frame"], drawn.functions["loss"]
    bp = bptt.BPTT(seed=drawn.seed, dtype=dtype)
    graphs = bp.generate_graphs(lambda bp, depth: frame(bp, depth, bptt), num_loops=drawn.frames)
    symbols = graphs[bp.DEEP]
    total = loss(bptt, *symbols)
    for salt, (name, weight) in enumerate(bp.parameters.items()):
        bp.parameters[name] = numbers(drawn, weight.shape, salt)
    for salt, (name, state) in enumerate(bp.state[bp.DEEP].items(), start=1000):
        bp.state[bp.DEEP][name] = numbers(drawn, state.shape, salt)
    question = {
        "weights": {name: weight.astype(np.float64) for name, weight in bp.parameters.items()},
        "state": {name: state.astype(np.float64) for name, state in bp.state[bp.DEEP].items()},
        "data": [
            numbers(drawn, (drawn.frames, *shape), salt)
            for salt, shape in enumerate(drawn.placeholders, start=2000)
        ],
    }

    placeholders = symbols[: len(drawn.placeholders)]
    feed = bp.generate_feed_dict(bp.DEEP, question["data"], len(placeholders))
    # Before `run`, so with the same noise; twice, since nothing may be left of the first time.
    everything = [bp.gradients(total, feed, wrt=[*bp.parameters, *feed]) for _ in range(2)][1]
    weights = bp.gradients(total, feed)  # a program that needs fewer gradients along the way
    handles = bp.generate_output_definitions(bp.DEEP)
    loss_value, *values = bp.run([total, *symbols, *handles], feed)

    outputs = values[: len(symbols)]
    n = len(placeholders)
    question["noise"] = [np.array(x, dtype=np.float64) for x in outputs[n : n + drawn.noises]]
    names = [f"output {i}" for i in range(len(symbols))]
    names += [f"final state {name}" for name in sorted(bp.state[bp.DEEP])]
    forward = dict(zip(names, values, strict=True), loss=np.array(loss_value))
    kinds = {symbol.name: f"state {symbol.name}" for symbol in feed}
    kinds |= {symbol.name: f"placeholder {i}" for i, symbol in enumerate(placeholders)}
    backward = {kinds.get(name, f"weight {name}"): g for name, g in everything.items()}
    backward |= {f"weight {name}, alone": g for name, g in weights.items()}
    return Answer(forward, backward), question


def by_oracle(drawn: Drawn, question: dict[str, Any], **rounding: Any) -> Answer:
    window = oracle.unroll(
        drawn.functions["frame"], drawn.functions["loss"], **question, **rounding
    )
    forward = {f"output {i}": output for i, output in enumerate(window.outputs)}
    forward |= {f"final state {name}": state for name, state in window.state.items()}
    forward["loss"] = np.array(window.loss)
    backward = {f"weight {name}": g for name, g in window.gradients.items()}
    backward |= {f"weight {name}, alone": g for name, g in window.gradients.items()}
    backward |= {f"state {name}": g for name, g in window.state_gradients.items()}
    backward |= {f"placeholder {i}": g for i, g in enumerate(window.placeholder_gradients)}
    return Answer(forward, backward)


TOLERANCE = {"float64": 1e-9, "float32": 2e-4}  # of an array's largest entry


def check(drawn: Drawn, dtype: str) -> None:
    got, question = by_bptt(drawn, dtype)
    expected = dict(by_oracle(drawn, question).items())
    # The same once more, each value off by some units of rounding: where that moves the answer
    # (sums that cancel, a maximum of equals), bptt may be so far off as well.
    unit = float(np.finfo(dtype).eps)
    noise = 16 * unit
    rounded = by_oracle(
        drawn, question, rounding=np.random.default_rng(drawn.seed), rounding_noise=noise
    )
    doubt = {what: np.abs(array - expected[what]).max() for what, array in rounded.items()}
    scale = max(1.0, *(np.abs(array).max() for array in expected.values()))
    assume(max(doubt.values()) < 1e4 * noise * scale)

    received = dict(got.items())
    assert received.keys() == expected.keys()
    for what, array in expected.items():
        assert received[what].shape == array.shape, what
        error = np.abs(received[what] - array).max()
        allowed = TOLERANCE[dtype] * np.abs(array).max() + 4 * doubt[what] + 4 * unit * scale
        assert error <= allowed, f"{what}: off by {error:.2g} of {np.abs(array).max():.2g}"


@examples(150)
@given(programs())
def test_any_frame(drawn: Drawn) -> None:
    check(drawn, "float64")


@pytest.mark.parametrize("operation", [*ROWS, *OUTSIDE])
def test_frames_with(operation: str) -> None:
    """Each operation in frames of its own: its result is seen, and the loss depends on it."""

    @examples(12)
    @given(programs(operation))
    def any_frame(drawn: Drawn) -> None:
        check(drawn, "float64")

    any_frame()


@examples(60)
@given(programs())
def test_any_frame_in_single_precision(drawn: Drawn) -> None:
    check(drawn, "float32")


@examples(60)
@given(programs())
def test_any_frame_as_it_was_traced(drawn: Drawn) -> None:
    """Without passes: the same numbers from the operations one by one."""
    with as_traced():
        check(drawn, "float64")


def test_every_operation_is_in_a_row() -> None:
    """A new operation needs a row here, or no random frame uses it."""
    assert {operation.name for operation in _core.operations()} == {*ROWS, *OUTSIDE}
