"""C99: the shallow frame as one header without dependencies.

Arrays are as in a frame, features fastest, then lanes. Element-wise operations become loops whose
bodies are whole expressions; products run over columns of the weight, sixteen rows at a time, which
compilers turn into vector instructions.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bptt import _core
from bptt.arrays import shown
from bptt.errors import UsageError
from bptt.interchange import output
from bptt.interchange.frames import Call, Frame
from bptt.model import BPTT
from bptt.numerics import Array
from bptt.symbol import Symbol

# What a name in the header must not be: C's own words, and what the header's text uses.
_RESERVED = """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while s i j k lane z n memcpy exp expf log logf sqrt sqrtf fabs fabsf
    NAN INFINITY uint32_t uint64_t
"""


def to_c(
    bp: BPTT,
    path: str | os.PathLike[str],
    *,
    outputs: Sequence[Symbol] | None = None,
    name: str | None = None,
) -> None:
    """Write the shallow frame as one C99 header: weights, a state, and a step.

    For ``model.h`` the header declares ``model_state``, ``void model_init(model_state *)``, which
    sets the starting values, and ``void model_step(model_state *, inputs..., outputs...)``, which
    computes one frame. Inputs are the placeholders that the outputs need, in returned order; each
    array holds ``features * batch`` numbers, the features of one lane after those of another. It
    needs the C library's ``math.h`` and nothing else, allocates nothing, and holds no state of its
    own: any number of states, and of threads, can use it. Noise is bptt's, number by number.

    What depends on weights alone is computed now. Results differ from `BPTT.step` by rounding.
    Compile with optimisation, but without ``-ffast-math``, which breaks tanh and sigmoid.

    Args:
        bp: the net.
        path: of the header.
        outputs: shallow symbols; the last one that the frame returned by default.
        name: what all names in the header begin with; the file's by default.

    Raises:
        UsageError: outputs that are no shallow symbols, a name that is none in C.
        InterchangeError: the file system refuses.
    """
    place = output.place(path)
    if name is None:
        name = re.sub(r"\W", "_", Path(place).stem)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError(f"name is an identifier of C, got {shown(name)}")
    output.write(place, _Header(Frame(bp, BPTT.SHALLOW, outputs), name).text().encode())


class _Header:
    """The header under construction: names of values, constants, and the lines of the step."""

    def __init__(self, frame: Frame, name: str) -> None:
        frame.expand_cells(lambda call: call.operation in _CELLS)
        self.frame = frame
        self.name = name
        self.real = "float" if frame.dtype == np.float32 else "double"
        self.suffix = "f" if self.real == "float" else ""
        self.helpers: set[str] = set()
        self.taken: set[str] = set(_RESERVED.split())
        self.tables: list[str] = []
        self.lines: list[str] = []
        self.bytes = 0  # of what the step keeps on the stack
        self.names: dict[int, str] = {}
        self.formulas: dict[int, str] = {}  # of values that no array holds
        self.fields = {n: self.fresh(n) for n in frame.recurrences}
        self.uses = Counter(
            itertools.chain(
                (value for call in frame.calls for value in call.inputs),
                frame.outputs,
                (r.named for r in frame.recurrences.values()),
            )
        )
        self.readers = {value: call for call in frame.calls for value in call.inputs}

    def text(self) -> str:
        """The whole header."""
        frame = self.frame
        for symbol in frame.inputs:
            self.names[symbol.id] = self.fresh(symbol.name)
        one = len(frame.outputs) == 1
        results = [self.fresh("out" if one else f"out_{n}") for n in range(len(frame.outputs))]
        for state, recurrence in frame.recurrences.items():
            self.names[recurrence.past] = f"s->{self.fields[state]}"
        for call in frame.calls:
            self.emit(call)
        for result, value in zip(results, frame.outputs, strict=True):
            self.copy(result, value)
        for recurrence in frame.recurrences.values():
            self.copy(self.names[recurrence.past], recurrence.named)
        noisy = any(call.operation in _NOISE for call in frame.calls)
        if noisy:
            self.lines.append("s->frame += 1;")
        return "\n".join(self.parts(results, noisy)) + "\n"

    def parts(self, results: list[str], noisy: bool) -> list[str]:
        frame, name, real = self.frame, self.name, self.real
        guard = f"{name.upper()}_H"
        arguments = [f"{name}_state *restrict s"]
        arguments += [f"const {real} *restrict {self.names[x.id]}" for x in frame.inputs]
        arguments += [f"{real} *restrict {result}" for result in results]
        about = [
            f"   {self.names[x.id]}: {x.shape[0]} features, {x.shape[1]} lanes"
            for x in frame.inputs
        ]
        for result, value in zip(results, frame.outputs, strict=True):
            about.append("   {}: {} features, {} lanes".format(result, *frame.shapes[value]))
        fields = [
            f"  {real} {self.fields[n]}[{np.prod(frame.shapes[r.past])}];"
            for n, r in frame.recurrences.items()
        ]
        if noisy:
            fields.append("  uint64_t frame; /* how many there were */")
        if not fields:
            fields = ["  char none; /* C has no empty structure */"]
        init = [line for n, r in frame.recurrences.items() for line in self.start(n, r.start)]
        if noisy:
            init.append("s->frame = 0;")
        if not frame.recurrences and not noisy:
            init, self.lines = ["s->none = 0;"], ["(void)s;", *self.lines]
        return [
            f"/* {name}: one frame of a recurrent net, written by bptt.",
            f"   {name}_init(&state), then {name}_step(&state, inputs, outputs) for each frame.",
            *about,
            f"   The step takes some {self.bytes} bytes of stack. No -ffast-math. */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <math.h>",
            "#include <stdint.h>",
            "#include <string.h>",
            "",
            "typedef struct {",
            *fields,
            f"}} {name}_state;",
            "",
            *self.tables,
            *(line for key in _HELPERS if key in self.helpers for line in self.helper(key)),
            f"static inline void {name}_init({name}_state *s) {{",
            *(f"  {line}" for line in init),
            "}",
            "",
            f"static inline void {name}_step(",
            f"    {', '.join(arguments)}) {{",
            *(f"  {line}" for line in self.lines),
            "}",
            "",
            f"#endif /* {guard} */",
        ]

    def start(self, state: str, values: Array) -> list[str]:
        """Setting one state."""
        field, numbers = f"s->{self.fields[state]}", values.ravel(order="F")
        if (numbers == numbers[0]).all():
            return [_loop(len(numbers), f"{field}[i] = {self.number(float(numbers[0]))};")]
        return [f"memcpy({field}, {self.table(values, 'start')}, sizeof {field});"]

    # Names, numbers, arrays

    def fresh(self, hint: str) -> str:
        """An identifier that nothing has so far."""
        hint = re.sub(r"\W", "_", hint, flags=re.ASCII)
        hint = f"_{hint}" if not hint or hint[0].isdigit() else hint
        numbered = (f"{hint}_{n}" for n in itertools.count(1))
        name = next(each for each in itertools.chain([hint], numbered) if each not in self.taken)
        self.taken.add(name)
        return name

    def number(self, value: float) -> str:
        """A literal that is read back as the same number."""
        if not np.isfinite(value):
            return "NAN" if np.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
        digits = f"{value:.9g}" if self.suffix else f"{value:.17g}"
        return digits + ("" if re.search(r"[.e]", digits) else ".0") + self.suffix

    def table(self, array: Array, hint: str) -> str:
        """A constant array, column by column."""
        name = self.fresh(f"{self.name}_{hint}")
        numbers = [self.number(value) for value in array.ravel(order="F").tolist()]
        rows = [", ".join(numbers[n : n + 8]) for n in range(0, len(numbers), 8)]
        body = ",\n    ".join(rows)
        self.tables += [f"static const {self.real} {name}[{len(numbers)}] = {{\n    {body}}};", ""]
        return name

    def array(self, value: int) -> str:
        """The array that holds a value."""
        if value not in self.names:
            self.names[value] = self.table(self.frame.constants[value], "constant")
        return self.names[value]

    def local(self, value: int, hint: str) -> str:
        """A new array on the stack for a value, or for so many numbers."""
        size = int(np.prod(self.frame.shapes[value]))
        self.names[value] = self.fresh(hint)
        self.bytes += size * self.frame.dtype.itemsize
        self.lines.append(f"{self.real} {self.names[value]}[{size}];")
        return self.names[value]

    def use(self, helper: str) -> str:
        """The name of a helper, which the header then has."""
        self.helpers |= {helper, *_NEEDS.get(helper, ())}
        return f"{self.name}_{helper}"

    def helper(self, key: str) -> list[str]:
        """The text of a helper for this precision."""
        words = {"NAME": self.name, "REAL": self.real, **_PRECISION[self.real]}
        text = re.sub("|".join(words), lambda found: words[found[0]], _HELPERS[key])
        return [re.sub(r"(?<=\d)F\b", self.suffix, text).strip("\n"), ""]

    def copy(self, to: str, value: int) -> None:
        size = int(np.prod(self.frame.shapes[value]))
        self.lines.append(f"memcpy({to}, {self.array(value)}, {size} * sizeof(*{to}));")

    # Operations

    def emit(self, call: Call) -> None:
        """Append an operation of the core."""
        if call.operation in _ELEMENTWISE:
            self.elementwise(call)
        elif call.operation in _OTHERS:
            _OTHERS[call.operation](self, call)
        else:
            raise UsageError(f"there is no form of the operation {call.operation!r} in C")

    def elementwise(self, call: Call) -> None:
        """A loop over all numbers, or a formula in the loop of the only one that reads it."""
        value = call.outputs[0]
        shape = self.frame.shapes[value]
        operands = [self.operand(each) for each in call.inputs]
        formula = _ELEMENTWISE[call.operation](self, *operands)
        reader = self.readers.get(value)
        if (
            self.uses[value] == 1
            and reader is not None
            and reader.operation in _ELEMENTWISE
            and self.frame.shapes[reader.outputs[0]] == shape
        ):
            self.formulas[value] = formula
            return
        y = self.local(value, call.operation)
        if shape[1] == 1:
            self.lines.append(_loop(shape[0], f"{y}[i] = {formula};"))
        else:
            self.lines.append(f"for (int lane = 0; lane < {shape[1]}; ++lane)")
            index = f"{shape[0]} * lane + i"
            self.lines.append("  " + _loop(shape[0], f"{y}[{index}] = {formula};"))

    def operand(self, value: int) -> str:
        """A value at feature i of a lane."""
        if value in self.formulas:
            return self.formulas.pop(value)
        features, batch = self.frame.shapes[value]
        if value in self.frame.constants and (features, batch) == (1, 1):
            number = self.number(self.frame.constants[value].item())
            return f"({number})" if number.startswith("-") else number
        terms = [f"{features} * lane"] if batch > 1 else []
        terms += ["i"] if features > 1 else []
        return f"{self.array(value)}[{' + '.join(terms) or 0}]"

    def stack(self, values: Sequence[int], hint: str) -> str:
        """Constants on top of each other, as one array."""
        return self.table(np.concatenate([self.frame.constants[v] for v in values]), hint)

    def product(self, rows: int, columns: int, w: str, x: str, y: str) -> str:
        """``y += w x`` for one lane."""
        return f"{self.use('add_product')}({rows}, {columns}, {w}, {x}, {y});"


def _loop(count: int, body: str, index: str = "i") -> str:
    return f"for (int {index} = 0; {index} < {count}; ++{index}) {body}"


def _lanes(batch: int, body: list[str]) -> list[str]:
    """The lines for each lane."""
    return [f"for (int lane = 0; lane < {batch}; ++lane) {{", *(f"  {b}" for b in body), "}"]


def _at(array: str, features: int) -> str:
    return f"{array} + {features} * lane"


# Formulas of one number

_ELEMENTWISE: dict[str, Callable[..., str]] = {
    "negative": lambda h, x: f"(-{x})",
    "tanh": lambda h, x: f"{h.use('tanh')}({x})",
    "sigmoid": lambda h, x: f"{h.use('sigmoid')}({x})",
    "relu": lambda h, x: f"{h.use('max')}({x}, {h.number(0)})",
    "exp": lambda h, x: f"exp{h.suffix}({x})",
    "log": lambda h, x: f"log{h.suffix}({x})",
    "sqrt": lambda h, x: f"sqrt{h.suffix}({x})",
    "abs": lambda h, x: f"fabs{h.suffix}({x})",
    "square": lambda h, x: f"{h.use('square')}({x})",
    "stop_gradient": lambda h, x: x,
    "expand": lambda h, x: x,
    "add": lambda h, a, b: f"({a} + {b})",
    "subtract": lambda h, a, b: f"({a} - {b})",
    "multiply": lambda h, a, b: f"{a} * {b}",
    "divide": lambda h, a, b: f"({a} / ({b}))",
    "maximum": lambda h, a, b: f"{h.use('max')}({a}, {b})",
    "minimum": lambda h, a, b: f"{h.use('min')}({a}, {b})",
    "less": lambda h, a, b: f"({a} < {b} ? {h.number(1)} : {h.number(0)})",
}


# Operations that are more than that


def _matmul(h: _Header, call: Call) -> None:
    (rows, inner), (_, lanes) = (h.frame.shapes[v] for v in call.inputs)
    a, b = map(h.array, call.inputs)
    y = h.local(call.outputs[0], "product")
    zero = _loop(rows, f"{y}[{rows} * lane + i] = {h.number(0)};")
    h.lines += _lanes(lanes, [zero, h.product(rows, inner, a, _at(b, inner), _at(y, rows))])


def _transpose(h: _Header, call: Call) -> None:
    features, batch = h.frame.shapes[call.inputs[0]]
    x, y = h.array(call.inputs[0]), h.local(call.outputs[0], "transpose")
    body = _loop(features, f"{y}[{batch} * i + lane] = {x}[{features} * lane + i];")
    h.lines += _lanes(batch, [body])


def _concat(h: _Header, call: Call) -> None:
    features, _ = h.frame.shapes[call.outputs[0]]
    y, at = h.local(call.outputs[0], "concat"), 0
    for value in call.inputs:
        rows, lanes = h.frame.shapes[value]
        offset = (
            f"{features} * lane + {at} + i"
            if call.attributes["axis"] == 0
            else f"{at} + {features} * lane + i"
        )
        body = _loop(rows, f"{y}[{offset}] = {h.array(value)}[{rows} * lane + i];")
        h.lines += _lanes(lanes, [body])
        at += rows if call.attributes["axis"] == 0 else features * lanes


def _slice(h: _Header, call: Call) -> None:
    rows, lanes = h.frame.shapes[call.outputs[0]]
    features, _ = h.frame.shapes[call.inputs[0]]
    x, y = h.array(call.inputs[0]), h.local(call.outputs[0], "slice")
    at = f"{features} * lane + {call.attributes['start']} + i"
    h.lines += _lanes(lanes, [_loop(rows, f"{y}[{rows} * lane + i] = {x}[{at}];")])


def _reduce(h: _Header, call: Call) -> None:
    features, batch = h.frame.shapes[call.inputs[0]]
    rows, lanes = h.frame.shapes[call.outputs[0]]
    x, y = h.array(call.inputs[0]), h.local(call.outputs[0], call.operation)
    terms = [f"{rows} * lane"] if lanes > 1 else []
    at = " + ".join(terms + (["i"] if rows > 1 else [])) or "0"
    h.lines.append(_loop(rows * lanes, f"{y}[i] = {h.number(0)};"))
    h.lines += _lanes(batch, [_loop(features, f"{y}[{at}] += {x}[{features} * lane + i];")])
    if call.operation == "mean":
        factor = h.number(1 / (features * batch // (rows * lanes)))
        h.lines.append(_loop(rows * lanes, f"{y}[i] *= {factor};"))


def _softmax(h: _Header, call: Call) -> None:
    features, batch = h.frame.shapes[call.outputs[0]]
    x, y = h.array(call.inputs[0]), h.local(call.outputs[0], call.operation)
    at, e, log = f"[{features} * lane + i]", f"exp{h.suffix}", f"log{h.suffix}"
    body = [
        f"{h.real} top = {x}[{features} * lane], total = {h.number(0)};",
        _loop(features, f"top = {h.use('max')}(top, {x}{at});"),
        _loop(features, f"total += {e}({x}{at} - top);"),
    ]
    if call.operation == "softmax":
        body.append(_loop(features, f"{y}{at} = {e}({x}{at} - top) / total;"))
    else:
        body.append(_loop(features, f"{y}{at} = {x}{at} - top - {log}(total);"))
    h.lines += _lanes(batch, body)


def _embedding(h: _Header, call: Call) -> None:
    """A symbol that is none of the table's gets the nearest column."""
    features, lanes = h.frame.shapes[call.outputs[0]]
    symbol, table = map(h.array, call.inputs)
    last = h.number(h.frame.shapes[call.inputs[1]][1] - 1)
    y = h.local(call.outputs[0], "embedding")
    n = f"{h.use('min')}({h.use('max')}({symbol}[lane], {h.number(0)}), {last})"
    copy = _loop(features, f"{y}[{features} * lane + i] = {table}[{features} * n + i];")
    h.lines += _lanes(lanes, [f"const int n = (int){n};", copy])


_NOISE = ("normal", "uniform")


def _noise(h: _Header, call: Call) -> None:
    features, lanes = h.frame.shapes[call.outputs[0]]
    y, a = h.local(call.outputs[0], call.operation), call.attributes
    key = _core.philox4x32([a["ordinal"], 0, 0, 0], [h.frame.seed % 2**32, h.frame.seed >> 32])
    keys = ("mean", "stddev") if call.operation == "normal" else ("low", "high")
    first, second = (float(h.frame.dtype.type(a[key])) for key in keys)
    if call.operation == "uniform":
        second = float(h.frame.dtype.type(a["high"] - a["low"]))
    numbers = f"{h.number(first)}, {h.number(second)}"
    words = f"{key[0]}u, {key[1]}u, s->frame"
    draw, to = h.use(call.operation), _at(y, features)
    h.lines += _lanes(lanes, [f"{draw}({features}, {words}, (uint32_t)lane, {numbers}, {to});"])


def _rnn(h: _Header, call: Call) -> None:
    x, past, W_x, W_h, b = call.inputs
    activation = _ELEMENTWISE[call.attributes.get("activation", "tanh")]
    (width, lanes), features = h.frame.shapes[call.outputs[0]], h.frame.shapes[x][0]
    X, H, B = h.stack([W_x], "rnn_x"), h.stack([W_h], "rnn_h"), h.stack([b], "rnn_b")
    y = h.local(call.outputs[0], "rnn")
    h.lines += _lanes(
        lanes,
        [
            f"{h.real} z[{width}];",
            f"memcpy(z, {B}, sizeof z);",
            h.product(width, features, X, _at(h.array(x), features), "z"),
            h.product(width, width, H, _at(h.array(past), width), "z"),
            _loop(width, f"{y}[{width} * lane + i] = {activation(h, 'z[i]')};"),
        ],
    )


def _lstm(h: _Header, call: Call) -> None:
    x, c_past, h_past, *weights = call.inputs
    (width, lanes), features = h.frame.shapes[call.outputs[0]], h.frame.shapes[x][0]
    X, H, B = (h.stack(weights[n : n + 4], f"lstm_{k}") for n, k in ((0, "x"), (4, "h"), (8, "b")))
    peephole = call.attributes["peephole"]
    c, y = h.local(call.outputs[0], "cell"), h.local(call.outputs[1], "hidden")
    before, now = f"{h.array(c_past)}[{width} * lane + i]", f"{c}[{width} * lane + i]"
    body = [
        f"{h.real} z[{4 * width}]; /* i f c o */",
        f"memcpy(z, {B}, sizeof z);",
        h.product(4 * width, features, X, _at(h.array(x), features), "z"),
        h.product(4 * width, width, H, _at(h.array(h_past), width), "z"),
    ]
    gates = [f"z[{n * width} + i]" for n in range(4)]
    if peephole == "full":
        P = h.stack(weights[12:14], "lstm_c")
        P_o = h.stack(weights[14:15], "lstm_co")
        body.append(h.product(2 * width, width, P, _at(h.array(c_past), width), "z"))
    elif peephole == "diagonal":
        P = h.stack(weights[12:15], "lstm_c")
        for n, cell in ((0, before), (1, before), (3, now)):
            gates[n] += f" + {P}[{min(n, 2) * width} + i] * {cell}"
    sigmoid, tanh = h.use("sigmoid"), h.use("tanh")
    kept = f"{sigmoid}({gates[1]}) * {before} + {sigmoid}({gates[0]}) * {tanh}({gates[2]})"
    body.append(_loop(width, f"{now} = {kept};"))
    if peephole == "full":
        body.append(h.product(width, width, P_o, _at(c, width), f"z + {3 * width}"))
    body.append(_loop(width, f"{y}[{width} * lane + i] = {sigmoid}({gates[3]}) * {tanh}({now});"))
    h.lines += _lanes(lanes, body)


def _gru(h: _Header, call: Call) -> None:
    x, past, seen, *weights = call.inputs
    (width, lanes), features = h.frame.shapes[call.outputs[0]], h.frame.shapes[x][0]
    after = call.attributes["reset"] == "after"
    X, B = h.stack(weights[0:3], "gru_x"), h.stack(weights[6:9], "gru_b")
    H, N = h.stack(weights[3:5], "gru_h"), h.stack(weights[5:6], "gru_hn")
    y = h.local(call.outputs[0], "gru")
    before, met = (f"{h.array(v)}[{width} * lane + i]" for v in (past, seen))
    sigmoid = h.use("sigmoid")
    r, z, n = (f"z[{k * width} + i]" for k in range(3))
    body = [
        f"{h.real} z[{3 * width}], n[{width}]; /* r z n, and the state's part of n */",
        f"memcpy(z, {B}, sizeof z);",
        h.product(3 * width, features, X, _at(h.array(x), features), "z"),
        h.product(2 * width, width, H, _at(h.array(seen), width), "z"),
        _loop(2 * width, f"z[i] = {sigmoid}(z[i]);"),
    ]
    if after:
        second = h.stack(weights[9:10], "gru_bhn")
        body.append(f"memcpy(n, {second}, sizeof n);")
        body.append(h.product(width, width, N, _at(h.array(seen), width), "n"))
        total = f"{n} + {r} * n[i]"
    else:
        body.append(_loop(width, f"n[i] = {r} * {met};"))
        body.append(h.product(width, width, N, "n", f"z + {2 * width}"))
        total = n
    body.append(_loop(width, f"n[i] = {h.use('tanh')}({total});"))
    body.append(_loop(width, f"{y}[{width} * lane + i] = n[i] + {z} * ({before} - n[i]);"))
    h.lines += _lanes(lanes, body)


_CELLS = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
_OTHERS: dict[str, Callable[[_Header, Call], None]] = {
    **_CELLS,
    **dict.fromkeys(_NOISE, _noise),
    "matmul": _matmul,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "embedding": _embedding,
    "sum": _reduce,
    "mean": _reduce,
}


# Helpers of the header. NAME, REAL and the words of `_PRECISION` are replaced, and a number's F by
# the suffix of its precision. tanh and sigmoid are those of cpp/kernel/activate.h, which says why.

_PRECISION = {
    "float": {
        "WORD": "uint32_t",
        "MANTISSA": "23",
        "HALF_LN2": "0x1.62e43p-2f",
        "LN2_HIGH": "0x1.62e4p-1f",
        "LN2_LOW": "0x1.7f7d1cp-20f",
        "LARGE_TANH": "12582912.0f + 126.0f",
        "LARGE_SIGMOID": "12582912.0f + 63.0f",
        "SMALL": "0x1p-64f",
        "TANH_END": "10.0f",
        "SIGMOID_LOW": "-104.0f",
        "SIGMOID_HIGH": "18.0f",
        "SERIES": "1.0f + u * (0x1.55551ep-2f + u * -0x1.6aa362p-6f)",
        "UNIT": "((float)(word >> 9) + 0.5f) * 0x1p-23f",
        "SQRT": "sqrtf",
        "LOG": "logf",
        "COS": "cosf",
        "SIN": "sinf",
    },
    "double": {
        "WORD": "uint64_t",
        "MANTISSA": "52",
        "HALF_LN2": "0x1.62e42fefa39efp-2",
        "LN2_HIGH": "0x1.62e42fefap-1",
        "LN2_LOW": "0x1.cf79abc9e3b3ap-40",
        "LARGE_TANH": "6755399441055744.0 + 1022.0",
        "LARGE_SIGMOID": "6755399441055744.0 + 511.0",
        "SMALL": "0x1p-512",
        "TANH_END": "20.0",
        "SIGMOID_LOW": "-746.0",
        "SIGMOID_HIGH": "38.0",
        "SERIES": "1.0 + u * (0x1.555555555553ep-2 + u * (-0x1.6c16c16bebb93p-6 + u * "
        "(0x1.1566aaf1eac1cp-9 + u * (-0x1.bbd41b0f5e84ep-13 + u * 0x1.6375f19746b61p-16))))",
        "UNIT": "((double)word + 0.5) * 0x1p-32",
        "SQRT": "sqrt",
        "LOG": "log",
        "COS": "cos",
        "SIN": "sin",
    },
}

_NEEDS = {
    "tanh": ("power", "series"),
    "sigmoid": ("power", "series"),
    "normal": ("philox", "unit"),
    "uniform": ("philox", "unit"),
}

_HELPERS = {
    "max": "static inline REAL NAME_max(REAL a, REAL b) { return a < b ? b : a; }",
    "min": "static inline REAL NAME_min(REAL a, REAL b) { return b < a ? b : a; }",
    "square": "static inline REAL NAME_square(REAL x) { return x * x; }",
    "power": """
/* 2^n, where the last bits of the sum are n and the exponent's bias */
static inline REAL NAME_power(REAL sum) {
  WORD bits;
  memcpy(&bits, &sum, sizeof bits);
  bits <<= MANTISSA;
  memcpy(&sum, &bits, sizeof sum);
  return sum;
}
""",
    "series": """
/* s coth(s) for |s| <= ln(2)/4 */
static inline REAL NAME_series(REAL s) {
  const REAL u = s * s;
  return SERIES;
}
""",
    "tanh": """
/* 2x = n ln(2) + 2s */
static inline REAL NAME_tanh(REAL x) {
  const REAL large = LARGE_TANH;
  x = x > TANH_END ? TANH_END : x;
  x = x < -TANH_END ? -TANH_END : x;
  const REAL sum = x * (1.0F / HALF_LN2) + large;
  const REAL s = x - (sum - large) * HALF_LN2, q = NAME_series(s);
  const REAL more = NAME_power(sum) + 0.5F, less = NAME_power(sum) - 0.5F;
  return (less * q + more * s) / (more * q + less * s);
}
""",
    "sigmoid": """
/* -x = n ln(2) - 2s */
static inline REAL NAME_sigmoid(REAL x) {
  const REAL large = LARGE_SIGMOID;
  x = x > SIGMOID_HIGH ? SIGMOID_HIGH : x;
  x = x < SIGMOID_LOW ? SIGMOID_LOW : x;
  const REAL sum = large - x * (1.0F / (LN2_HIGH + LN2_LOW)), n = sum - large;
  const REAL s = 0.5F * (x + n * LN2_HIGH + n * LN2_LOW), q = NAME_series(s);
  const REAL over = (q + s) * SMALL;
  return over / (NAME_power(sum) * (q - s) + over);
}
""",
    "add_product": """
/* y += w x, with w column by column */
static inline void NAME_add_product(int rows, int columns, const REAL *restrict w,
                                    const REAL *restrict x, REAL *restrict y) {
  int i = 0;
  for (; i + 16 <= rows; i += 16) {
    REAL sum[16];
    for (int j = 0; j < 16; ++j) sum[j] = y[i + j];
    for (int k = 0; k < columns; ++k)
      for (int j = 0; j < 16; ++j) sum[j] += w[k * rows + i + j] * x[k];
    for (int j = 0; j < 16; ++j) y[i + j] = sum[j];
  }
  for (; i < rows; ++i) {
    REAL sum = y[i];
    for (int k = 0; k < columns; ++k) sum += w[k * rows + i] * x[k];
    y[i] = sum;
  }
}
""",
    "philox": """
/* Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011): four words */
static inline void NAME_philox(uint32_t key0, uint32_t key1, uint64_t frame, uint32_t quad,
                               uint32_t lane, uint32_t words[4]) {
  uint32_t c[4] = {(uint32_t)frame, (uint32_t)(frame >> 32), quad, lane};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    c[0] = (uint32_t)(b >> 32) ^ c[1] ^ key0;
    c[1] = (uint32_t)b;
    c[2] = (uint32_t)(a >> 32) ^ c[3] ^ key1;
    c[3] = (uint32_t)a;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  memcpy(words, c, sizeof c);
}
""",
    "unit": """
static inline REAL NAME_unit(uint32_t word) { return UNIT; }
""",
    "normal": """
/* Box & Muller 1958 */
static inline void NAME_normal(int features, uint32_t key0, uint32_t key1, uint64_t frame,
                               uint32_t lane, REAL mean, REAL stddev, REAL *restrict y) {
  for (int i = 0; i < features; i += 2) {
    uint32_t words[4];
    NAME_philox(key0, key1, frame, (uint32_t)(i / 4), lane, words);
    const REAL radius = stddev * SQRT(-2.0F * LOG(NAME_unit(words[i % 4])));
    const REAL angle = 6.283185307179586F * NAME_unit(words[i % 4 + 1]);
    y[i] = mean + radius * COS(angle);
    if (i + 1 < features) y[i + 1] = mean + radius * SIN(angle);
  }
}
""",
    "uniform": """
static inline void NAME_uniform(int features, uint32_t key0, uint32_t key1, uint64_t frame,
                                uint32_t lane, REAL low, REAL width, REAL *restrict y) {
  for (int i = 0; i < features; ++i) {
    uint32_t words[4];
    NAME_philox(key0, key1, frame, (uint32_t)(i / 4), lane, words);
    y[i] = low + width * NAME_unit(words[i % 4]);
  }
}
""",
}
