"""Nets whose windows several tests run in two ways: every cell in both forms, and odd ones."""

from collections.abc import Callable
from typing import Any

import numpy as np

import bptt
from frames import (
    CELLS,
    GRU,
    LSTM,
    draw_state,
    draw_weights,
    gradients_of_everything,
    mean_square,
)

T, FEATURES = 11, 3
Net = tuple[bptt.BPTT, Any, Any]
Marks = dict[str, np.ndarray]


def cells(name: str, form: str) -> Any:
    def frame(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
        x, y = bp.placeholder((FEATURES, lanes)), bp.placeholder((2, lanes))
        noisy = x + bp.random_normal(x.shape, stddev=0.1)
        h = CELLS[name](form, bp, noisy, 4, 0)[-1]
        h = CELLS[name](form, bp, bptt.tanh(h), 3, 1)[-1]
        return x, y, bptt.layers.dense(bp, h, 2)

    return frame


def odd(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
    """A delay line, a learned start, a fused cell in a larger cycle, stages before and after it."""
    x, y = bp.placeholder((FEATURES, lanes)), bp.placeholder((2, lanes))
    one, two = (bp.get_past_variable(name, np.ones((FEATURES, 1))) for name in ("one", "two"))
    bp.name_variable("one", x)
    bp.name_variable("two", one)
    s = bp.get_past_variable("s", bptt.tanh(bp.get_variable("begin", (4, 1))))
    W, U = bp.get_variable("W", (4, 4)), bp.get_variable("U", (4, FEATURES))
    _, h = LSTM["fused"](bp, bptt.concat([bptt.tanh(U @ x), s]), 4, layer_index=0)
    new = bp.name_variable("s", bptt.tanh(W @ s + h + U @ two))
    head = bptt.layers.dense(bp, bptt.concat([new * s, h]), 5, activation=bptt.sigmoid)
    g = GRU["fused"](bp, head, 2, layer_index=1)
    return x, y, bptt.layers.dense(bp, g, 2) + bptt.reduce_mean(new, axis=0)


def stateless(bp: bptt.BPTT, depth: str, lanes: int) -> Any:
    x, y = bp.placeholder((FEATURES, lanes)), bp.placeholder((2, lanes))
    return x, y, bptt.layers.dense(bp, bptt.tanh(x), 2)


FRAMES: dict[str, Any] = {
    **{f"{name}-{form}": cells(name, form) for name in CELLS for form in ("fused", "primitive")},
    "odd": odd,
    "stateless": stateless,
}


def curved(graph: Any) -> Any:
    """A function of several sums and means over the window, one of a weight alone."""
    weight = next(iter(graph[0].trace.variables.values()))
    total = bptt.reduce_sum(bptt.abs(graph[-1])) + 1.0
    mean = mean_square(graph)
    decay = 0.01 * bptt.reduce_sum(bptt.square(weight))
    return bptt.sqrt(mean) + mean * bptt.log(total) + decay


def make(
    frame: Any,
    every: Any,
    lanes: int = 2,
    dtype: str = "float64",
    loss: Callable[[Any], Any] = mean_square,
    threads: int = 1,
    frames: int = T,
) -> Net:
    bp = bptt.BPTT(seed=3, dtype=dtype, threads=threads)
    traced = lambda bp, depth: frame(bp, depth, lanes)  # noqa: E731
    graph = bp.generate_graphs(traced, num_loops=frames, recompute_every=every)["deep"]
    rng = np.random.default_rng(4)
    draw_weights(bp, rng)
    draw_state(bp, rng)
    return bp, graph, loss(graph)


def data(lanes: int, frames: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=(frames, features, lanes)) for features in (FEATURES, 2)]


def rows(lanes: int, frames: int) -> Marks:
    rng = np.random.default_rng(6)
    shape = (frames, lanes)
    return {"resets": rng.random(shape) < 0.3, "masks": rng.random(shape) < 0.8}


def one_window(net: Net, marks: Marks) -> dict[str, np.ndarray]:
    """All that one window gives: loss, outputs, states, and the gradients of everything."""
    bp, graph, loss = net
    lanes = graph[0].shape[1]
    feed = bp.generate_feed_dict("deep", data(lanes, T), 2, **marks)
    found = gradients_of_everything(bp, loss, feed)
    handles = bp.generate_output_definitions("deep")
    fetched = bp.run([loss, graph[-1], *handles], feed)
    names = ["loss", "output", *(f"state {handle.name}" for handle in handles)]
    found.update(zip(names, map(np.asarray, fetched), strict=True))
    if marks:  # where a frame is not valid, the output means nothing
        found["output"] = found["output"] * marks["masks"][:, None]
    return found


def trained(net: Net, marks: Marks, **given: Any) -> dict[str, np.ndarray]:
    """Losses, weights and states after a few windows, and the loss over all of the data."""
    bp, graph, loss = net
    lanes, frames = graph[0].shape[1], 2 * T + 3
    train = bp.minimize(loss, bptt.Adam(0.02), clip=bptt.ClipByGlobalNorm(1.0))
    metrics = {"error": bptt.reduce_mean(bptt.abs(graph[-1] - graph[1]))}
    history = bp.fit(train, data(lanes, frames), steps=5, metrics=metrics, **marks, **given)
    over_all = bp.evaluate(loss, data(lanes, frames), **marks)
    return {
        "loss": history.loss,
        "error": history["error"],
        "evaluated": np.asarray(over_all),
        **{f"weight {name}": values for name, values in bp.parameters.items()},
        **{f"state {name}": np.asarray(values) for name, values in bp.state["deep"].items()},
    }
