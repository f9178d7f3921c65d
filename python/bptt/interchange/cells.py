"""Cells and losses in primitive operations, equation by equation as in their C++ files.

For formats that have no operator for one, or not for this form of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bptt.interchange.frames import Call, Writer


def rnn(w: Writer, call: Call) -> None:
    """``h = tanh(W_aa h' + W_ax x + b_a)``, or with relu in place of tanh."""
    x, past, W_ax, W_aa, b_a = call.inputs
    z = w.sum(w("matmul", W_ax, x), w("matmul", W_aa, past), b_a)
    w(call.attributes.get("activation", "tanh"), z, out=call.outputs[0])


def lstm(w: Writer, call: Call) -> None:
    """Graves 2013, equations 7 to 11; with coupled gates f is 1 - i, a projected h is W_rm h."""
    x, c_past, h_past, *weights = call.inputs
    gates = "ico" if call.operation == "lstm_coupled" else "ifco"
    kinds = [f"{kind}{gate}" for kind in ("W_x", "W_h", "b_") for gate in gates]
    kinds += ["W_rm"] if call.operation == "lstm_projected" else []
    kinds += [f"W_c{gate}" for gate in gates if gate != "c"]
    of = dict(zip(kinds, weights, strict=False))
    c, h = call.outputs

    def gate(name: str, cell: int | None = None) -> int:
        terms = [w("matmul", of[f"W_x{name}"], x), w("matmul", of[f"W_h{name}"], h_past)]
        if cell is not None and f"W_c{name}" in of:
            product = {"full": "matmul", "diagonal": "multiply"}[call.attributes["peephole"]]
            terms.append(w(product, of[f"W_c{name}"], cell))
        return w.sum(*terms, of[f"b_{name}"])

    i = w("sigmoid", gate("i", c_past))
    f = w("sigmoid", gate("f", c_past)) if "f" in gates else w("subtract", w.number(1.0), i)
    w("add", w("multiply", f, c_past), w("multiply", i, w("tanh", gate("c"))), out=c)
    o, seen = w("sigmoid", gate("o", c)), w("tanh", c)
    if "W_rm" in of:
        w("matmul", of["W_rm"], w("multiply", o, seen), out=h)
    else:
        w("multiply", o, seen, out=h)


def lstm_normalised(w: Writer, call: Call) -> None:
    """Ba, Kiros & Hinton 2016, equations 20 to 22."""
    x, c_past, h_past, *weights = call.inputs
    W_x, W_h, bias, gain_x, gain_h = (weights[4 * n : 4 * n + 4] for n in range(5))
    gain_cell, bias_cell = weights[20:]
    c, h = call.outputs
    width = w.frame.shapes[c][0]
    epsilon = w.number(call.attributes["epsilon"])

    def normal(v: int) -> int:
        difference = w("subtract", v, w("mean", v, axis=0))
        variance = w("mean", w("square", difference), axis=0)
        return w("divide", difference, w("sqrt", w("add", variance, epsilon)))

    def product(W: list[int], v: int) -> list[int]:
        """All gates in one column, normalised, and each by itself."""
        whole = normal(w("matmul", w.stacked(W), v))
        return [w("slice", whole, start=k * width, stop=k * width + width) for k in range(len(W))]

    from_x, from_h = product(W_x, x), product(W_h, h_past)
    i, f, g, o = (
        w.sum(w("multiply", gain_x[k], from_x[k]), w("multiply", gain_h[k], from_h[k]), bias[k])
        for k in range(4)
    )
    kept = w("multiply", w("sigmoid", f), c_past)
    w("add", kept, w("multiply", w("sigmoid", i), w("tanh", g)), out=c)
    seen = w("tanh", w("add", w("multiply", gain_cell, normal(c)), bias_cell))
    w("multiply", w("sigmoid", o), seen, out=h)


def gru(w: Writer, call: Call) -> None:
    """Cho et al. 2014, with the reset before the product or after it."""
    x, past, seen, *weights = call.inputs
    W_x, W_h, bias = weights[0:3], weights[3:6], weights[6:9]
    h = call.outputs[0]

    def gate(n: int) -> int:
        return w.sum(w("matmul", W_x[n], x), w("matmul", W_h[n], seen), bias[n])

    r, z = w("sigmoid", gate(0)), w("sigmoid", gate(1))
    if call.attributes["reset"] == "after":
        state = w("multiply", r, w.sum(w("matmul", W_h[2], seen), weights[9]))
    else:
        state = w("matmul", W_h[2], w("multiply", r, seen))
    n = w("tanh", w.sum(w("matmul", W_x[2], x), bias[2], state))
    w("add", n, w("multiply", z, w("subtract", past, n)), out=h)


def huber(w: Writer, call: Call) -> None:
    """``c (|e| - c/2)`` with ``c = min(|e|, delta)``."""
    e, delta = map(w.every_frame, call.inputs)
    size = w("abs", e)
    c = w("minimum", size, delta)
    w("multiply", c, w("subtract", size, w("multiply", w.number(0.5), c)), out=call.outputs[0])


def binary_cross_entropy(w: Writer, call: Call) -> None:
    """``max(x, 0) - x p + log(1 + exp(-|x|))`` of logits x and probabilities p."""
    x, p = map(w.every_frame, call.inputs)
    small = w("exp", w("negative", w("abs", x)))
    rest = w("subtract", w("relu", x), w("multiply", x, p))
    w("add", rest, w("log", w("add", w.number(1.0), small)), out=call.outputs[0])


def cross_entropy(w: Writer, call: Call) -> None:
    """``- <p, log_softmax(x)>`` of logits x and a column p of probabilities."""
    x, p = map(w.every_frame, call.inputs)
    product = w("multiply", p, w("log_softmax", x))
    w("negative", w("sum", product, axis=0), out=call.outputs[0])


def cross_entropy_of_symbols(w: Writer, call: Call) -> None:
    """The same where p is one at a symbol and zero elsewhere."""
    x, symbol = map(w.every_frame, call.inputs)
    one_hot = w("embedding", symbol, w.frame.constant(np.eye(w.frame.shapes[x][0])))
    product = w("multiply", one_hot, w("log_softmax", x))
    w("negative", w("sum", product, axis=0), out=call.outputs[0])


PRIMITIVES: dict[str, Callable[[Writer, Call], None]] = {
    "rnn": rnn,
    "lstm": lstm,
    "lstm_coupled": lstm,
    "lstm_projected": lstm,
    "lstm_normalised": lstm_normalised,
    "gru": gru,
    "huber": huber,
    "binary_cross_entropy_with_logits": binary_cross_entropy,
    "softmax_cross_entropy": cross_entropy,
    "softmax_cross_entropy_of_symbols": cross_entropy_of_symbols,
}
"""By the core's name."""
