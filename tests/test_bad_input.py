"""Bad input, systematically: every argument of every public name × every way to be wrong.

`PLACES` lists the arguments, each with the kind of thing it takes; `WRONG` lists, by kind, what is
wrong with it and the error that has to come. The table is their product. Each row also checks that
nothing was touched: the net is what it was, bit for bit, and goes on. `GOOD` is the same for arrays
that look odd and must work.

Two tests hold the list of places against the package itself: a public name or an argument of one
that has no place here fails them.
"""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import data, initializers, interchange, layers, losses, palindrome, plot, schedules
from bptt.errors import InterchangeError, UnknownNameError
from bptt.sequential import Stream
from bptt.streaming import Stepper
from bptt.training import TrainingOperation
from bptt.views import Parameters, StateView
from rounding import assert_identical

FRAMES, WINDOW = 9, 3


def frame(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((2, 3)), bp.placeholder((1, 3))
    h = layers.rnn(bp, x, 2)
    return x, y, layers.dense(bp, h, 1)


class Subject:
    """A net (2, 3) -> (1, 3) of float32 in the middle of its training, and right input for it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        self.bp = bptt.BPTT(seed=0)
        self.x, self.y, self.out = self.bp.generate_graphs(frame, num_loops=WINDOW)["deep"]
        self.shallow = self.bp.graphs["shallow"]
        self.loss = bptt.reduce_mean(bptt.square(self.out - self.y))
        self.train = self.bp.minimize(self.loss, bptt.Adam(0.01))
        shapes = (FRAMES, 2, 3), (FRAMES, 1, 3)
        self.data = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        self.windows = [array[:WINDOW] for array in self.data]
        self.bp.fit(self.train, self.data, steps=2)
        self.feed = self.bp.generate_feed_dict("deep", self.windows, 2)
        self.stepper = self.bp.stepper(own_state=True)

    def contents(self) -> dict[str, Any]:
        """All that a wrong call may not touch."""
        bp = self.bp
        moments = {
            f"{moment} of {name}": self.train.core.get_moment(moment, name)
            for moment in self.train.core.moments
            for name in bp.parameters
        }
        return {
            **{f"weight {name}": bp.parameters[name] for name in bp.parameters},
            **{
                f"{depth} {name}": bp.state[depth][name]
                for depth in bp.state
                for name in bp.state[depth]
            },
            **{f"stepper's {name}": self.stepper.state[name] for name in self.stepper.state},
            **{f"{depth} counter": state.frame for depth, state in bp._net.states.items()},
            **moments,
            "steps": self.train.steps,
            "rate": self.train.learning_rate,
            "next frame": bp.next_frame,
        }

    def goes_on(self) -> list[Any]:
        """A little of everything."""
        bp = self.bp
        losses = bp.fit(self.train, self.data, steps=2, start=bp.next_frame).loss
        bp.copy_state_forward()
        return [
            losses,
            bp.predict(self.data[:1]),
            bp.step(self.data[0][0]),
            *self.contents().values(),
        ]


# ---- where input comes in


@dataclass(frozen=True)
class Place:
    """An argument of a public name: the kind of thing it takes, and a call with it.

    `shape` is the right one where an array is asked for; `limits` the smallest and the largest
    integer that are right; `scalar` that a single number is right as well.
    """

    name: str
    argument: str
    kind: str
    use: Callable[[Subject, Any], Any]
    shape: tuple[int, ...] = ()
    limits: tuple[int | None, int | None] = (None, None)
    scalar: bool = False

    def __str__(self) -> str:
        return f"{self.name}({self.argument})"


def inside(build: Callable[[bptt.BPTT, Any], Any]) -> Any:
    """What `build` gives in a frame, as one window of a small net computes it.

    When it is refused, the BPTT takes a right frame after it.
    """

    def tried(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((2, 3), name="x")
        return x, build(bp, x)

    bp = bptt.BPTT(seed=0)
    try:
        out = bp.generate_graphs(tried, num_loops=WINDOW)["deep"][-1]
    except (bptt.BpttError, MemoryError):
        bp.generate_graphs(frame, num_loops=WINDOW)
        raise
    if not isinstance(out, bptt.Symbol):
        return None
    return bp.run(out, bp.generate_feed_dict("deep", [np.ones((WINDOW, 2, 3))], 1))


def recurrent(start: Any, name: Any = "p", named: Any = "p") -> Any:
    def build(bp: bptt.BPTT, x: Any) -> Any:
        past = bp.get_past_variable(name, start)
        return bp.name_variable(named, past + x)

    return inside(build)


def naming(value: Any) -> Any:
    def build(bp: bptt.BPTT, x: Any) -> Any:
        past = bp.get_past_variable("p", np.zeros((2, 3)))
        bp.name_variable("p", value)
        return past + x

    return inside(build)


def scope(name: Any) -> Any:
    def build(bp: bptt.BPTT, x: Any) -> Any:
        with bp.variable_scope(name):
            return bp.get_variable("w", (2, 1)) + x

    return inside(build)


def in_order(subject: Subject, depth: Any, values: Any) -> Any:
    subject.bp.save_output_state(depth, values)
    return subject.bp.state[depth]["hidden-0"]


def assign(mapping: Callable[[Subject], Any], name: Any, value: Any) -> Callable[[Subject], Any]:
    def use(subject: Subject) -> Any:
        mapping(subject)[name] = value
        return mapping(subject)[name]

    return use


def rate(subject: Subject, value: Any) -> Any:
    subject.train.learning_rate = value


def fed_step(subject: Subject, values: Any) -> Any:
    subject.stepper.feed(values)
    subject.stepper()
    return subject.stepper.output.copy()


def filled_step(subject: Subject, value: Any) -> Any:
    subject.stepper.inputs[0][...] = value
    try:
        subject.stepper()
    finally:
        subject.stepper.inputs[0][...] = 0
    return subject.stepper.output.copy()


def with_feed(subject: Subject, key: Any, value: Any) -> Any:
    return subject.bp.run([subject.out], {**subject.feed, key: value})[0]


WEIGHT = "rnn_layer_0/W_ax"
PAST = "hidden-0"


def past_of(subject: Subject) -> Any:
    return next(key for key in subject.feed if key.name == PAST)


def fit(subject: Subject, **options: Any) -> Any:
    arguments = {"train": subject.train, "data": subject.data, "steps": 1, **options}
    return subject.bp.fit(**arguments).loss


def sequential(*made: Any, **options: Any) -> bptt.Sequential:
    """A net (2,) -> (1,) that was trained for one epoch, of an LSTM or what is given."""
    net = bptt.Sequential([*(made or [bptt.LSTM(2)]), bptt.Dense(1)])
    fit_layers(net, **options)
    return net


def fit_layers(net: bptt.Sequential, **options: Any) -> Any:
    x, y = np.ones((FRAMES, 3, 2), np.float32), np.ones((FRAMES, 3, 1), np.float32)
    return net.fit(**{"x": x, "y": y, "epochs": 1, "window": 4, **options})["loss"]


def lanes_of(subject: Subject) -> data.Lanes:
    """The numbers of its first lane, of as many features as it takes."""
    return data.Lanes([array[:, :, 0] for array in subject.data])


def embedded(layer: Any) -> bptt.Sequential:
    return sequential(layer, x=np.ones((FRAMES, 3, 1)))


TARGETS = np.ones((FRAMES, 3, 1))


def row_users() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Where resets and masks come in."""
    yield "BPTT.fit", fit
    yield "BPTT.evaluate", lambda s, **rows: s.bp.evaluate(s.loss, s.data, **rows)
    yield "BPTT.predict", lambda s, **rows: s.bp.predict(s.data[:1], **rows)
    yield "BPTT.record", lambda s, **rows: s.bp.record(s.data[:1], **rows)[PAST]
    yield (
        "BPTT.generate_feed_dict",
        lambda s, **rows: s.bp.generate_feed_dict("deep", s.windows, 2, **rows),
    )
    yield "BPTT.run", lambda s, **rows: s.bp.run(s.out, {**s.feed, **rows})


def array_places() -> Iterator[Place]:
    """Where numbers come in."""
    pairs: list[tuple[str, str, Callable[[Subject, Any], Any], tuple[int, ...]]] = [
        ("BPTT.fit", "data", lambda s, v: fit(s, data=[v, s.data[1]]), (FRAMES, 2, 3)),
        ("BPTT.fit", "data", lambda s, v: fit(s, data=[s.data[0], v]), (FRAMES, 1, 3)),
        (
            "BPTT.evaluate",
            "data",
            lambda s, v: s.bp.evaluate(s.loss, [v, s.data[1]]),
            (FRAMES, 2, 3),
        ),
        ("BPTT.predict", "data", lambda s, v: s.bp.predict([v]), (FRAMES, 2, 3)),
        ("BPTT.record", "data", lambda s, v: s.bp.record([v])[PAST], (FRAMES, 2, 3)),
        (
            "BPTT.gradient_norms",
            "data",
            lambda s, v: s.bp.gradient_norms(s.loss, [v, s.data[1]])[PAST],
            (FRAMES, 2, 3),
        ),
        ("BPTT.step", "inputs", lambda s, v: s.bp.step(v), (2, 3)),
        ("Stepper.feed", "values", lambda s, v: fed_step(s, (v,)), (2, 3)),
        (
            "BPTT.generate_feed_dict",
            "data",
            lambda s, v: s.bp.run([s.out], s.bp.generate_feed_dict("deep", [v], 1))[0],
            (WINDOW, 2, 3),
        ),
        ("BPTT.run", "feed", lambda s, v: with_feed(s, s.x, v), (WINDOW, 2, 3)),
        ("BPTT.run", "feed", lambda s, v: with_feed(s, past_of(s), v), (2, 3)),
        (
            "BPTT.gradients",
            "feed",
            lambda s, v: s.bp.gradients(s.loss, {**s.feed, s.x: v})[WEIGHT],
            (WINDOW, 2, 3),
        ),
        ("BPTT.save_output_state", "values", lambda s, v: in_order(s, "deep", [v]), (2, 3)),
        (
            "Parameters.__setitem__",
            "value",
            lambda s, v: assign(lambda s: s.bp.parameters, WEIGHT, v)(s),
            (2, 2),
        ),
        (
            "StateView.__setitem__",
            "value",
            lambda s, v: assign(lambda s: s.bp.state["deep"], PAST, v)(s),
            (2, 3),
        ),
        ("BPTT.get_past_variable", "starting_value", lambda s, v: recurrent(v), (2, 3)),
        (
            "BPTT.get_variable",
            "initializer",
            lambda s, v: inside(lambda bp, x: bp.get_variable("w", (4, 2), v) @ x),
            (4, 2),
        ),
        (
            "BPTT.get_variable",
            "initializer",
            lambda s, v: inside(lambda bp, x: bp.get_variable("w", (4, 2), lambda *_: v) @ x),
            (4, 2),
        ),
        (
            "layers.rnn",
            "initial_state",
            lambda s, v: inside(lambda bp, x: layers.rnn(bp, x, 4, initial_state=v)),
            (4, 3),
        ),
        (
            "layers.gru",
            "initial_state",
            lambda s, v: inside(lambda bp, x: layers.gru(bp, x, 4, initial_state=v)),
            (4, 3),
        ),
        (
            "layers.lstm",
            "initial_state",
            lambda s, v: inside(lambda bp, x: layers.lstm(bp, x, 4, initial_state=v)[1]),
            (4, 3),
        ),
    ]
    pairs += [
        ("Sequential.fit", "x", lambda s, v: fit_layers(sequential(), x=v), (FRAMES, 3, 2)),
        ("Sequential.fit", "y", lambda s, v: fit_layers(sequential(), y=v), (FRAMES, 3, 1)),
        (
            "Sequential.evaluate",
            "x",
            lambda s, v: sequential().evaluate(v, TARGETS),
            (FRAMES, 3, 2),
        ),
        (
            "Sequential.evaluate",
            "y",
            lambda s, v: sequential().evaluate(np.ones((FRAMES, 3, 2)), v),
            (FRAMES, 3, 1),
        ),
        ("Sequential.predict", "x", lambda s, v: sequential().predict(v), (FRAMES, 3, 2)),
        ("Stream.__call__", "x", lambda s, v: sequential().stream(3)(v), (3, 2)),
    ]
    for name, argument, use, shape in pairs:
        yield Place(name, argument, "array", use, shape)
    yield Place(
        "BPTT.constant",
        "array",
        "array",
        lambda s, v: inside(lambda bp, x: bp.constant(v) + x),
        (2, 3),
        scalar=True,
    )
    yield Place(
        "BPTT.name_variable",
        "v",
        "array",
        lambda s, v: naming(v),
        (2, 3),
    )
    for name in ("maximum", "minimum", "less"):
        function = getattr(bptt, name)
        for argument, order in (("a", 1), ("b", -1)):
            yield Place(
                name,
                argument,
                "array",
                lambda s, v, f=function, o=order: inside(lambda bp, x: f(*(v, x)[::o])),
                (2, 3),
                scalar=True,
            )
    for argument, order, shape in (("a", 1, (4, 2)), ("b", -1, (3, 4))):
        yield Place(
            "matmul",
            argument,
            "array",
            lambda s, v, o=order: inside(lambda bp, x: bptt.matmul(*(v, x)[::o])),
            shape,
        )
    yield Place(
        "concat",
        "values",
        "array",
        lambda s, v: inside(lambda bp, x: bptt.concat([x, v], axis=1)),
        (2, 3),
    )
    for name in ("add", "sub", "mul", "truediv"):
        for way in ("__{}__", "__r{}__"):
            method = way.format(name)
            yield Place(
                f"Symbol.{method}",
                "other",
                "array",
                lambda s, v, m=method: inside(lambda bp, x: getattr(x, m)(v)),
                (2, 3),
                scalar=True,
            )
    for method, shape in (("__matmul__", (3, 4)), ("__rmatmul__", (4, 2))):
        yield Place(
            f"Symbol.{method}",
            "other",
            "array",
            lambda s, v, m=method: inside(lambda bp, x: getattr(x, m)(v)),
            shape,
        )
    for name in ("rnn", "gru", "lstm", "dense"):
        yield Place(
            f"layers.{name}",
            "x",
            "array",
            lambda s, v, n=name: inside(lambda bp, x: layer(n, bp, v)),
            (2, 3),
            scalar=True,
        )


def layer(kind: str, bp: Any, x: Any, width: Any = 2, **options: Any) -> Any:
    made = getattr(layers, kind)(bp, x, width, **options)
    return made[1] if kind == "lstm" else made


def other_places() -> Iterator[Place]:
    """Where anything else comes in."""

    def place(
        name: str,
        argument: str,
        kind: str,
        use: Callable[[Subject, Any], Any],
        low: int | None = None,
        high: int | None = None,
    ) -> Place:
        return Place(name, argument, kind, use, limits=(low, high))

    # The class, and what is called inside a frame
    yield place("BPTT", "seed", "integer", lambda s, v: bptt.BPTT(seed=v), 0, 2**64 - 1)
    yield place("BPTT", "dtype", "dtype", lambda s, v: bptt.BPTT(dtype=v))
    yield place("BPTT", "threads", "integer", lambda s, v: bptt.BPTT(threads=v), 1)
    shaped: list[tuple[str, Callable[[Any, Any], Any]]] = [
        ("BPTT.placeholder", lambda bp, v: bp.placeholder(v)),
        ("BPTT.random_normal", lambda bp, v: bp.random_normal(v)),
        ("BPTT.random_uniform", lambda bp, v: bp.random_uniform(v)),
        ("BPTT.get_variable", lambda bp, v: bp.get_variable("w", v)),
    ]
    for name, make in shaped:
        yield place(name, "shape", "shape", lambda s, v, m=make: inside(lambda bp, x: m(bp, v)))
    yield place(
        "BPTT.placeholder",
        "name",
        "text",
        lambda s, v: inside(lambda bp, x: bp.placeholder((1, 1), v)),
    )
    yield place(
        "BPTT.placeholder",
        "name",
        "taken",
        lambda s, v: inside(lambda bp, x: bp.placeholder((1, 1), "x")),
    )
    for name, low, high in (("normal", "mean", "stddev"), ("uniform", "low", "high")):
        for argument in (low, high):
            kind = "deviation" if argument == "stddev" else "number"
            yield place(
                f"BPTT.random_{name}",
                argument,
                kind,
                lambda s, v, n=name, a=argument: inside(
                    lambda bp, x: getattr(bp, f"random_{n}")((2, 3), **{a: v})
                ),
            )
            yield place(
                f"initializers.random_{name}",
                argument,
                kind,
                lambda s, v, n=name, a=argument: getattr(initializers, f"random_{n}")(**{a: v}),
            )
    yield place("initializers.constant", "value", "number", lambda s, v: initializers.constant(v))
    reversed_range = {"low": 2.0, "high": 1.0}
    yield place(
        "BPTT.random_uniform",
        "low",
        "taken",
        lambda s, v: inside(lambda bp, x: bp.random_uniform((2, 3), **reversed_range)),
    )
    yield place(
        "initializers.random_uniform",
        "low",
        "taken",
        lambda s, v: initializers.random_uniform(**reversed_range),
    )
    yield place(
        "BPTT.get_variable",
        "name",
        "text",
        lambda s, v: inside(lambda bp, x: bp.get_variable(v, (2, 2))),
    )
    yield place("BPTT.variable_scope", "name", "text", lambda s, v: scope(v))
    yield place(
        "BPTT.get_past_variable", "name", "text", lambda s, v: recurrent(np.zeros((2, 3)), v)
    )
    yield place(
        "BPTT.name_variable", "name", "text", lambda s, v: recurrent(np.zeros((2, 3)), named=v)
    )
    yield place(
        "BPTT.generate_graphs", "frame", "function", lambda s, v: bptt.BPTT().generate_graphs(v)
    )
    yield place(
        "BPTT.generate_graphs",
        "num_loops",
        "integer",
        lambda s, v: bptt.BPTT().generate_graphs(frame, v),
        1,
    )
    yield place(
        "BPTT.generate_graphs",
        "recompute_every",
        "integer",
        lambda s, v: bptt.BPTT().generate_graphs(frame, recompute_every=v),
        1,
    )
    yield place(
        "BPTT.generate_graphs",
        "num_loops",
        "endless",
        lambda s, v: bptt.BPTT().generate_graphs(frame, v),
    )

    # Functions of symbols
    for name in (
        "tanh",
        "sigmoid",
        "relu",
        "exp",
        "log",
        "softmax",
        "log_softmax",
        "square",
        "sqrt",
        "abs",
        "transpose",
        "stop_gradient",
    ):
        yield place(name, "v", "symbol", lambda s, v, n=name: getattr(bptt, n)(v))
    for name in ("reduce_sum", "reduce_mean"):
        yield place(name, "v", "symbol", lambda s, v, n=name: getattr(bptt, n)(v))
        yield place(name, "axis", "axis", lambda s, v, n=name: getattr(bptt, n)(s.out, axis=v))
        yield place(name, "axis", "no axes", lambda s, v, n=name: getattr(bptt, n)(s.out, axis=v))
    yield place("concat", "values", "list", lambda s, v: bptt.concat(v))
    yield place("concat", "axis", "axis", lambda s, v: bptt.concat([s.out, s.y], axis=v))
    yield place("Symbol.__getitem__", "features", "slice", lambda s, v: s.x[v])

    # Layers
    for name in ("rnn", "gru", "lstm", "dense"):
        call = f"layers.{name}"
        yield place(call, "bp", "net", lambda s, v, n=name: inside(lambda bp, x: layer(n, v, x)))
        yield place(
            call, "width", "width", lambda s, v, n=name: inside(lambda bp, x: layer(n, bp, x, v))
        )
        yield place(
            call,
            "initializer",
            "initializer",
            lambda s, v, n=name: inside(lambda bp, x: layer(n, bp, x, initializer=v)),
        )
    for name in ("rnn", "gru", "lstm"):
        yield place(
            f"layers.{name}",
            "layer_index",
            "integer",
            lambda s, v, n=name: inside(lambda bp, x: layer(n, bp, x, layer_index=v)),
            0,
        )
    for name, argument in (("rnn", "activation"), ("gru", "reset"), ("lstm", "peephole")):
        yield place(
            f"layers.{name}",
            argument,
            "choice",
            lambda s, v, n=name, a=argument: inside(lambda bp, x: layer(n, bp, x, **{a: v})),
        )
    for name in ("rnn", "gru", "lstm"):
        for argument in ("zoneout", "dropout", "recurrent_dropout"):
            yield place(
                f"layers.{name}",
                argument,
                "fraction",
                lambda s, v, n=name, a=argument: inside(lambda bp, x: layer(n, bp, x, **{a: v})),
            )
    yield place(
        "layers.lstm",
        "zoneout",
        "pair of shares",
        lambda s, v: inside(lambda bp, x: layer("lstm", bp, x, zoneout=v)),
    )
    yield place(
        "layers.lstm",
        "epsilon",
        "positive",
        lambda s, v: inside(lambda bp, x: layer("lstm", bp, x, layer_norm=True, epsilon=v)),
    )
    yield place(
        "layers.lstm",
        "projection",
        "width",
        lambda s, v: inside(lambda bp, x: layer("lstm", bp, x, projection=v)),
    )
    yield place(
        "layers.dense",
        "activation",
        "function",
        lambda s, v: inside(lambda bp, x: layer("dense", bp, x, activation=v)),
    )
    yield place(
        "layers.dense",
        "name",
        "bad text",
        lambda s, v: inside(lambda bp, x: layer("dense", bp, x, name=v)),
    )

    # Optimisers
    settings: dict[type, dict[str, str]] = {
        bptt.SGD: {"momentum": "fraction", "nesterov": "switch"},
        bptt.RMSProp: {
            "epsilon": "positive",
            "alpha": "fraction",
            "momentum": "fraction",
            "centered": "switch",
        },
        bptt.Adagrad: {
            "epsilon": "positive",
            "epsilon_inside": "switch",
            "initial_accumulator": "deviation",
        },
        bptt.Adam: {
            "epsilon": "positive",
            "beta1": "fraction",
            "beta2": "fraction",
            "epsilon_hat": "switch",
        },
        bptt.AdamW: {"epsilon": "positive", "beta1": "fraction", "beta2": "fraction"},
    }
    for kind, own in settings.items():
        common = {"learning_rate": "positive", "weight_decay": "deviation"}
        for argument, wrong in {**common, **own}.items():
            yield place(
                kind.__name__,
                argument,
                wrong,
                lambda s, v, k=kind, a=argument: s.bp.minimize(s.loss, k(**{a: v})),
            )
    rates = {"constant": {"rate": 0.1}, "cosine": {"rate": 0.1, "steps": 5, "final": 0.1}}
    rates |= {
        "step": {"rate": 0.1, "every": 5, "factor": 0.1},
        "warm_up": {"then": 0.1, "steps": 5},
    }
    for name, right in rates.items():
        for argument in right:
            counts = argument in ("steps", "every")
            yield place(
                f"schedules.{name}",
                argument,
                "integer" if counts else "deviation",
                lambda s, v, n=name, r=right, a=argument: getattr(schedules, n)(**{**r, a: v}),
                1 if counts else None,
            )
    for clip in (bptt.ClipByValue, bptt.ClipByGlobalNorm):
        yield place(
            clip.__name__,
            "limit",
            "positive",
            lambda s, v, c=clip: s.bp.minimize(s.loss, bptt.Adam(), clip=c(v)),
        )
    yield place("TrainingOperation.learning_rate", "rate", "positive rate", lambda s, v: rate(s, v))

    # The protocol
    for name, use in (
        ("generate_feed_dict", lambda s, v: s.bp.generate_feed_dict(v, s.windows, 2)),
        ("generate_output_definitions", lambda s, v: s.bp.generate_output_definitions(v)),
        ("save_output_state", lambda s, v: s.bp.save_output_state(v, [np.zeros((2, 3))])),
        ("reset_state", lambda s, v: s.bp.reset_state(v)),
    ):
        yield place(f"BPTT.{name}", "depth", "depth", use)
    yield place(
        "BPTT.reset_state", "lane", "integer", lambda s, v: s.bp.reset_state("deep", v), 0, 2
    )
    yield place(
        "BPTT.copy_state_forward", "lane", "integer", lambda s, v: s.bp.copy_state_forward(v), 0, 2
    )
    yield place(
        "BPTT.generate_feed_dict",
        "data",
        "list",
        lambda s, v: s.bp.generate_feed_dict("deep", v, 2),
    )
    yield place(
        "BPTT.generate_feed_dict",
        "num_settable",
        "integer",
        lambda s, v: s.bp.generate_feed_dict("deep", s.windows, v),
        0,
        2,
    )
    yield place("BPTT.run", "fetches", "symbol", lambda s, v: s.bp.run([v], s.feed))
    yield place("BPTT.run", "fetches", "bare symbol", lambda s, v: s.bp.run(v, s.feed))
    yield place("BPTT.run", "feed", "feed", lambda s, v: s.bp.run([s.out], v))
    yield place(
        "BPTT.save_output_state", "values", "list", lambda s, v: s.bp.save_output_state("deep", v)
    )
    yield place("BPTT.gradients", "loss", "loss", lambda s, v: s.bp.gradients(v, s.feed))
    yield place("BPTT.gradients", "feed", "feed", lambda s, v: s.bp.gradients(s.loss, v))
    yield place("BPTT.gradients", "wrt", "wrt", lambda s, v: s.bp.gradients(s.loss, s.feed, v))
    yield place("BPTT.minimize", "loss", "loss", lambda s, v: s.bp.minimize(v, bptt.Adam()))
    yield place("BPTT.minimize", "optimizer", "optimizer", lambda s, v: s.bp.minimize(s.loss, v))
    yield place(
        "BPTT.minimize",
        "frozen",
        "patterns",
        lambda s, v: s.bp.minimize(s.loss, bptt.Adam(), frozen=v),
    )
    yield place("BPTT.minimize", "clip", "clip", lambda s, v: s.bp.minimize(s.loss, bptt.Adam(), v))

    # Whole sequences
    yield place("BPTT.fit", "train", "optimizer", lambda s, v: fit(s, train=v))
    yield place("BPTT.fit", "data", "list", lambda s, v: fit(s, data=v))
    yield place("BPTT.fit", "steps", "integer", lambda s, v: fit(s, steps=v), 0)
    yield place("BPTT.fit", "steps", "endless", lambda s, v: fit(s, steps=v))
    yield place("BPTT.fit", "start", "integer", lambda s, v: fit(s, start=v), 0, FRAMES - 1)
    yield place("BPTT.fit", "every", "integer", lambda s, v: fit(s, every=v, callback=print), 1)
    yield place("BPTT.fit", "stride", "integer", lambda s, v: fit(s, stride=v), 1, WINDOW)
    yield place(
        "BPTT.fit", "epochs", "integer", lambda s, v: s.bp.fit(s.train, lanes_of(s), epochs=v), 0
    )
    yield place(
        "BPTT.fit", "start", "position", lambda s, v: s.bp.fit(s.train, lanes_of(s), start=v)
    )
    yield place("BPTT.step", "reset", "lanes", lambda s, v: s.bp.step(np.ones((2, 3)), reset=v))
    for name, use in row_users():
        for rows in ("resets", "masks"):
            argument = "feed" if name == "BPTT.run" else rows
            yield place(
                name, argument, "rows", lambda s, v, use=use, rows=rows: use(s, **{rows: v})
            )
    yield place("BPTT.fit", "callback", "function", lambda s, v: fit(s, callback=v))
    yield place("BPTT.fit", "checkpoint", "path", lambda s, v: fit(s, checkpoint=v))
    yield place("BPTT.fit", "metrics", "metrics", lambda s, v: fit(s, metrics=v))
    yield place("BPTT.fit", "comm", "communicator", lambda s, v: fit(s, comm=v))
    yield place(
        "BPTT.fit",
        "checkpoint_every",
        "integer",
        lambda s, v: fit(s, checkpoint="x", checkpoint_every=v),
        1,
    )
    yield place("BPTT.evaluate", "loss", "loss", lambda s, v: s.bp.evaluate(v, s.data))
    yield place("BPTT.evaluate", "data", "list", lambda s, v: s.bp.evaluate(s.loss, v))
    yield place("BPTT.predict", "data", "list", lambda s, v: s.bp.predict(v))
    yield place("BPTT.predict", "outputs", "outputs", lambda s, v: s.bp.predict(s.data[:1], v))
    yield place("BPTT.record", "data", "list", lambda s, v: s.bp.record(v))
    yield place("BPTT.record", "values", "recorded", lambda s, v: s.bp.record(s.data[:1], v))
    yield place("BPTT.record", "depth", "depth", lambda s, v: s.bp.record(s.data[:1], depth=v))
    norms = lambda s, **given: s.bp.gradient_norms(  # noqa: E731
        **{"loss": s.loss, "data": s.data, **given}
    )
    for argument, wrong in (("loss", "loss"), ("data", "list"), ("states", "state patterns")):
        yield place(
            "BPTT.gradient_norms", argument, wrong, lambda s, v, a=argument: norms(s, **{a: v})
        )
    yield place(
        "BPTT.gradient_norms",
        "start",
        "integer",
        lambda s, v: norms(s, start=v),
        0,
        FRAMES - WINDOW,
    )
    yield place("BPTT.gradient_norms", "last", "integer", lambda s, v: norms(s, last=v), 1, WINDOW)
    yield place("BPTT.step", "outputs", "outputs", lambda s, v: s.bp.step(s.data[0][0], outputs=v))
    yield place("BPTT.stepper", "outputs", "outputs", lambda s, v: s.bp.stepper(outputs=v))
    yield place("Stepper.feed", "values", "list", lambda s, v: s.stepper.feed(v))
    yield place("Stepper.__call__", "inputs", "not finite", filled_step)

    # Losses, beside a symbol in the other place
    pairs = {"mse": "output", "huber": "output", "gaussian_nll": "mean"}
    pairs |= {"binary_cross_entropy_with_logits": "logits", "softmax_cross_entropy": "logits"}
    for name, first in pairs.items():
        loss = f"losses.{name}"
        variance = ["variance"] if name == "gaussian_nll" else []
        for argument in [first, "target", "weights", *variance]:
            yield place(
                loss,
                argument,
                "operand",
                lambda s, v, n=name, f=first, a=argument: lossy(s, n, f, **{a: v}),
            )
        yield place(
            loss,
            "reduction",
            "reduction",
            lambda s, v, n=name, f=first: lossy(s, n, f, reduction=v),
        )
    yield place("losses.huber", "delta", "positive rate", lambda s, v: losses.huber(s.out, s.y, v))
    yield place(
        "losses.gaussian_nll",
        "epsilon",
        "positive rate",
        lambda s, v: losses.gaussian_nll(s.out, s.y, s.out, epsilon=v),
    )

    # Symbols of a finite set
    yield place(
        "layers.embedding",
        "bp",
        "net",
        lambda s, v: inside(lambda bp, x: layers.embedding(v, x[:1], 3, 2)),
    )
    yield place(
        "layers.embedding",
        "symbols",
        "operand",
        lambda s, v: inside(lambda bp, x: layers.embedding(bp, v, 3, 2)),
    )
    yield place(
        "layers.embedding",
        "count",
        "integer",
        lambda s, v: inside(lambda bp, x: layers.embedding(bp, x[:1], v, 2)),
        1,
        2**24,
    )
    yield place(
        "layers.embedding",
        "width",
        "width",
        lambda s, v: inside(lambda bp, x: layers.embedding(bp, x[:1], 3, v)),
    )
    yield place(
        "layers.embedding",
        "name",
        "bad text",
        lambda s, v: inside(lambda bp, x: layers.embedding(bp, x[:1], 3, 2, name=v)),
    )
    yield place(
        "layers.embedding",
        "initializer",
        "initializer",
        lambda s, v: inside(lambda bp, x: layers.embedding(bp, x[:1], 3, 2, initializer=v)),
    )

    # Mappings
    for name, mapping in (
        ("Parameters", lambda s: s.bp.parameters),
        ("StateView", lambda s: s.bp.state["deep"]),
    ):
        yield place(f"{name}.__getitem__", "name", "key", lambda s, v, m=mapping: m(s)[v])
        yield place(
            f"{name}.__setitem__",
            "name",
            "key",
            lambda s, v, m=mapping: assign(m, v, np.zeros((2, 3)))(s),
        )

    # Files
    yield place("BPTT.save", "path", "path", lambda s, v: s.bp.save(v))
    yield place("BPTT.save", "comm", "communicator", lambda s, v: s.bp.save("x", comm=v))
    yield place("load", "path", "path", lambda s, v: bptt.load(v, frame))
    yield place("load", "path", "no file", lambda s, v: bptt.load(v, frame))
    yield place("load", "threads", "integer", lambda s, v: bptt.load("x", frame, threads=v), 1)
    yield place("load", "comm", "communicator", lambda s, v: bptt.load("x", frame, comm=v))

    # Nets of layers
    def made(**options: Any) -> bptt.Sequential:
        return bptt.Sequential([bptt.RNN(2)], **options)

    yield place("Sequential", "layers", "list", lambda s, v: bptt.Sequential(v))
    yield place("Sequential", "seed", "integer", lambda s, v: made(seed=v), 0, 2**64 - 1)
    yield place("Sequential", "dtype", "dtype", lambda s, v: made(dtype=v))
    yield place("Sequential", "threads", "integer", lambda s, v: made(threads=v), 1)
    for kind, argument, wrong in (
        (bptt.RNN, "activation", "choice"),
        (bptt.LSTM, "peephole", "choice"),
        (bptt.LSTM, "coupled", "switch"),
        (bptt.LSTM, "projection", "width"),
        (bptt.LSTM, "layer_norm", "switch"),
        (bptt.LSTM, "epsilon", "positive"),
        *(
            (kind, argument, "fraction")
            for kind in (bptt.RNN, bptt.LSTM, bptt.GRU)
            for argument in ("zoneout", "dropout", "recurrent_dropout")
        ),
        *((kind, "initial_state", "choice") for kind in (bptt.RNN, bptt.LSTM, bptt.GRU)),
        (bptt.GRU, "reset", "choice"),
        (bptt.Dense, "activation", "function"),
    ):
        yield place(kind.__name__, "width", "width", lambda s, v, k=kind: sequential(k(v)))
        yield place(
            kind.__name__,
            argument,
            wrong,
            lambda s, v, k=kind, a=argument: sequential(k(2, **{a: v})),
        )
    yield place(
        "Embedding", "count", "integer", lambda s, v: embedded(bptt.Embedding(v, 2)), 1, 2**24
    )
    yield place("Embedding", "width", "width", lambda s, v: embedded(bptt.Embedding(2, v)))
    for argument, wrong, low in (
        ("epochs", "integer", 0),
        ("window", "integer", 1),
        ("patience", "integer", 1),
        ("optimizer", "optimizer", None),
        ("loss", "named loss", None),
        ("clip", "clip", None),
        ("validation", "pair", None),
    ):
        yield place(
            "Sequential.fit",
            argument,
            wrong,
            lambda s, v, a=argument: fit_layers(
                sequential(), **{"validation": (np.ones((FRAMES, 3, 2)), TARGETS), a: v}
            ),
            low,
        )
    yield place(
        "Sequential.evaluate",
        "loss",
        "named loss",
        lambda s, v: sequential().evaluate(np.ones((FRAMES, 3, 2)), TARGETS, loss=v),
    )
    yield place(
        "Sequential.fit",
        "lanes",
        "integer",
        lambda s, v: fit_layers(sequential(), x=lanes_of(s), y=None, lanes=v),
        1,
    )
    yield place("Sequential.stream", "lanes", "integer", lambda s, v: sequential().stream(v), 1)
    yield place(
        "Sequential.with_lanes", "lanes", "integer", lambda s, v: sequential().with_lanes(v), 1
    )
    yield place("Stream.reset", "lane", "integer", lambda s, v: sequential().stream().reset(v), 0)
    yield place("Sequential.save", "path", "path", lambda s, v: sequential().save(v))
    yield place("Sequential.load", "path", "path", lambda s, v: bptt.Sequential.load(v))
    yield place("Sequential.load", "path", "no file", lambda s, v: bptt.Sequential.load(v))
    yield place(
        "Sequential.load",
        "threads",
        "integer",
        lambda s, v: bptt.Sequential.load("x", threads=v),
        1,
    )

    # Datasets
    def fitted(dataset: Any, subject: Subject) -> Any:
        return subject.bp.fit(subject.train, dataset)

    yield place("data.Lanes", "data", "arrays", lambda s, v: fitted(data.Lanes(v), s))
    yield place("data.Sequences", "sequences", "list", lambda s, v: fitted(data.Sequences(v), s))
    yield place("data.Sequences", "sequences", "items", lambda s, v: fitted(data.Sequences(v), s))
    yield place("data.Chunks", "chunks", "list", lambda s, v: fitted(data.Chunks(v), s))
    yield place("data.Chunks", "chunks", "items", lambda s, v: fitted(data.Chunks(v), s))
    pair = np.ones((9, 2)), np.ones((9, 1))
    yield place("data.Sequences", "seed", "integer", lambda s, v: data.Sequences([pair], seed=v), 0)
    yield place(
        "data.Sequences", "burn_in", "integer", lambda s, v: data.Sequences([pair], burn_in=v), 0
    )
    yield place("data.Lanes", "burn_in", "integer", lambda s, v: data.Lanes(pair, burn_in=v), 0)

    # Searches
    def build(seed: int) -> tuple[bptt.BPTT, float]:
        return Subject().bp, 1.0

    yield place("search", "build", "function", lambda s, v: bptt.search(v, [0], jobs=1))
    yield place("search", "candidates", "candidates", lambda s, v: bptt.search(build, v, jobs=1))
    for argument, low in (("jobs", 1), ("retries", 0)):
        yield place(
            "search",
            argument,
            "integer",
            lambda s, v, a=argument: bptt.search(build, [0], **{"jobs": 1, a: v}),
            low,
        )
    yield place(
        "search", "bar", "number or none", lambda s, v: bptt.search(build, [0], bar=v, jobs=1)
    )

    # The origin's task
    yield place("palindrome.palindrome", "step", "integer", lambda s, v: palindrome.palindrome(v))
    yield place("palindrome.data", "frames", "integer", lambda s, v: palindrome.data(v), 0)
    yield place("palindrome.data", "frames", "endless", lambda s, v: palindrome.data(v))
    for name, use in (
        ("frame", lambda s, v: palindrome.frame(v)),
        ("build", lambda s, v: palindrome.build(v, 0)),
        ("train", lambda s, v: palindrome.train(v)),
    ):
        yield place(f"palindrome.{name}", "configuration", "optimizer", use)
    yield place(
        "palindrome.build", "seed", "integer", lambda s, v: palindrome.build(palindrome.RNN, v), 0
    )
    yield place(
        "palindrome.build",
        "dtype",
        "dtype",
        lambda s, v: palindrome.build(palindrome.RNN, 0, dtype=v),
    )
    yield place("palindrome.train", "seed", "integer", lambda s, v: palindrome.train(seed=v), 0)
    yield place(
        "palindrome.train", "progress", "function", lambda s, v: palindrome.train(progress=v)
    )
    for argument in ("seed", "restart"):
        yield place(
            "palindrome.start_seed",
            argument,
            "integer",
            lambda s, v, a=argument: palindrome.start_seed(**{"seed": 0, "restart": 0, a: v}),
            0,
        )
    counts = {"layers": 1, "width": 1, "num_loops": 1, "steps": 1, "check_every": 1, "evaluated": 1}
    counts |= {"first_check": 0, "max_restarts": 0, "warmup": 0}
    for argument, low in counts.items():
        yield place(
            "palindrome.Configuration",
            argument,
            "integer",
            lambda s, v, a=argument: changed(a, v),
            low,
        )
    yield place("palindrome.Configuration", "cell", "choice", lambda s, v: changed("cell", v))
    for argument in ("clip", "learning_rate", "epsilon"):
        yield place(
            "palindrome.Configuration",
            argument,
            "positive rate",
            lambda s, v, a=argument: changed(a, v),
        )
    for argument in ("beta1", "beta2"):
        yield place(
            "palindrome.Configuration", argument, "fraction", lambda s, v, a=argument: changed(a, v)
        )
    for argument in ("deviation", "noise"):
        yield place(
            "palindrome.Configuration",
            argument,
            "deviation",
            lambda s, v, a=argument: changed(a, v),
        )
    yield place(
        "palindrome.Configuration", "stuck_above", "number", lambda s, v: changed("stuck_above", v)
    )


def lossy(subject: Subject, name: str, first: str, **given: Any) -> Any:
    right: dict[str, Any] = {first: subject.out, "target": subject.y}
    if name == "gaussian_nll":
        right["variance"] = subject.out
    return getattr(losses, name)(**{**right, **given})


def changed(argument: str, value: Any) -> Any:
    return replace(palindrome.RNN, **{argument: value})


def interchange_places() -> Iterator[Place]:
    """Nothing that is refused here leaves a file."""
    weights = {"head.weight": np.ones((2, 3)), "head.bias": np.ones(2)}
    kernels = {"head": [np.ones((3, 2)), np.ones(2)]}
    for reader, first, given in (
        ("from_torch", "module_or_state_dict", weights),
        ("from_keras", "model", kernels),
    ):
        name, read = f"interchange.{reader}", getattr(interchange, reader)

        def use(argument: str, read: Any = read, given: Any = given) -> Callable[..., Any]:
            return lambda s, v: read(given, **{argument: v})

        yield Place(name, first, "no model", lambda s, v, read=read: read(v))
        yield Place(name, "layers", "order", use("layers"))
        yield Place(name, "nonlinearity", "text choice", use("nonlinearity"))
        yield Place(name, "batch", "integer", use("batch"), limits=(1, None))
        yield Place(name, "num_loops", "integer", use("num_loops"), limits=(1, None))
        yield Place(name, "dtype", "dtype", use("dtype"))
        yield Place(name, "seed", "integer", use("seed"), limits=(0, 2**64 - 1))
    for writer in ("to_onnx", "to_c", "to_rtneural_json"):
        name, write = f"interchange.{writer}", getattr(interchange, writer)
        yield Place(name, "bp", "built net", lambda s, v, write=write: write(v, "a"))
        yield Place(name, "path", "export path", lambda s, v, write=write: write(s.bp, v))
    for writer in ("to_onnx", "to_c"):
        name, write = f"interchange.{writer}", getattr(interchange, writer)
        use_outputs = lambda s, v, write=write: write(s.bp, "a", outputs=v)  # noqa: E731
        yield Place(name, "outputs", "outputs", use_outputs)
    to_onnx, to_c = interchange.to_onnx, interchange.to_c
    back = interchange.to_torch_state_dict
    yield Place("interchange.to_onnx", "depth", "depth", lambda s, v: to_onnx(s.bp, "a", v))
    yield Place(
        "interchange.to_onnx", "noise", "text choice", lambda s, v: to_onnx(s.bp, "a", noise=v)
    )
    yield Place("interchange.to_c", "name", "identifier", lambda s, v: to_c(s.bp, "a", name=v))
    yield Place("interchange.to_torch_state_dict", "bp", "built net", lambda s, v: back(v))
    yield Place("interchange.to_torch_state_dict", "names", "names", lambda s, v: back(s.bp, v))


def picture_places() -> Iterator[Place]:
    """Refused before matplotlib is asked for."""
    curve = np.ones(FRAMES)
    yield Place("plot.loss", "losses", "curve", lambda s, v: plot.loss(v))
    yield Place("plot.loss", "given_up", "curves", lambda s, v: plot.loss(curve, given_up=v))
    for place in range(3):
        argument = ("steps", "expected", "predicted")[place]

        def use(s: Subject, v: Any, place: int = place) -> Any:
            return plot.predictions(*[curve] * place, v, *[curve] * (2 - place))

        yield Place("plot.predictions", argument, "curve", use)
    yield Place("plot.palindrome", "result", "thing", lambda s, v: plot.palindrome(v))
    yield Place("plot.save", "figure", "thing", lambda s, v: plot.save(v, "a.png"))
    yield Place("plot.save", "path", "picture path", lambda s, v: plot.save(None, v))
    yield Place("plot.gradient_norms", "norms", "norms", lambda s, v: plot.gradient_norms(v))
    for name in ("states", "gates"):
        draw = getattr(plot, name)
        yield Place(f"plot.{name}", "values", "recordings", lambda s, v, draw=draw: draw(v))
        yield Place(
            f"plot.{name}",
            "lane",
            "integer",
            lambda s, v, draw=draw: draw({"a": np.ones((FRAMES, 2, 3))}, lane=v),
            limits=(0, 2),
        )


PLACES = [*array_places(), *other_places(), *interchange_places(), *picture_places()]


# ---- what is wrong


@dataclass(frozen=True)
class Wrong:
    """A wrong value, or how to make one for a place, and what has to come of it."""

    what: str
    value: Any
    error: type[BaseException] = bptt.UsageError
    message: str = ""
    made: bool = False  # value is a function of subject and place


def masked(place: Place) -> Any:
    return np.ma.masked_array(np.zeros(place.shape), mask=np.ones(place.shape))


def with_last(place: Place, number: float) -> Any:
    array = np.zeros(place.shape)
    array.flat[-1] = number
    return array


def at_last(place: Place) -> str:
    return str(tuple(n - 1 for n in place.shape))


def another_net() -> Any:
    return Subject()


KINDS_OF_NUMBERS = [
    Wrong("None", None, message="object"),
    Wrong("text", "abc", message="<U3"),
    Wrong("bytes", b"abc", message="S3"),
    Wrong("a mapping", {"a": 1}, message="object"),
    Wrong("a set", {1, 2}, message="object"),
    Wrong("a class", int),
    Wrong("an object", object(), message="object"),
]
BY_SHAPE: list[tuple[str, Callable[[Place], Any], type[BaseException], str]] = [
    ("objects", lambda p: np.full(p.shape, None), bptt.UsageError, "object"),
    ("texts", lambda p: np.full(p.shape, "1.0"), bptt.UsageError, "<U3"),
    ("complex", lambda p: np.zeros(p.shape, np.complex64), bptt.UsageError, "complex64"),
    ("dates", lambda p: np.zeros(p.shape, "datetime64[s]"), bptt.UsageError, "datetime64"),
    ("times", lambda p: np.zeros(p.shape, "timedelta64[s]"), bptt.UsageError, "timedelta64"),
    ("records", lambda p: np.zeros(p.shape, "f4,f4"), bptt.UsageError, "f4"),
    ("masked", masked, bptt.UsageError, "masked"),
    ("huge integers", lambda p: np.full(p.shape, 10**30), bptt.UsageError, "object"),
    ("ragged", lambda p: [[1.0, 2.0], [3.0]], bptt.ShapeError, "different lengths"),
    ("NaN", lambda p: with_last(p, np.nan), bptt.NonFiniteError, "nan"),
    ("infinity", lambda p: with_last(p, np.inf), bptt.NonFiniteError, "inf"),
    ("minus infinity", lambda p: with_last(p, -np.inf), bptt.NonFiniteError, "inf"),
    ("too large", lambda p: with_last(p, 1e300), bptt.NonFiniteError, "inf"),
    (
        "NaN of the net's dtype",
        lambda p: with_last(p, np.nan).astype(np.float32),
        bptt.NonFiniteError,
        "nan",
    ),
    ("one more feature", lambda p: np.zeros(grown(p.shape, -2)), bptt.ShapeError, ""),
    ("one more lane", lambda p: np.zeros(grown(p.shape, -1, by=2)), bptt.ShapeError, ""),
    ("transposed", lambda p: np.zeros((*p.shape[:-2], 7, 5)), bptt.ShapeError, ""),
    ("one more axis", lambda p: np.zeros((*p.shape, 2)), bptt.ShapeError, ""),
    ("four axes more", lambda p: np.zeros((2, 2, 2, 2, *p.shape)), bptt.ShapeError, ""),
    ("one axis less", lambda p: np.zeros(p.shape[1:]), bptt.ShapeError, ""),
    ("empty", lambda p: np.zeros((0,) * len(p.shape)), bptt.ShapeError, ""),
    ("no features", lambda p: np.zeros((*p.shape[:-2], 0, p.shape[-1])), bptt.ShapeError, ""),
    ("no lanes", lambda p: np.zeros((*p.shape[:-1], 0)), bptt.ShapeError, ""),
    ("an empty list", lambda p: [], bptt.ShapeError, ""),
]


def grown(shape: tuple[int, ...], axis: int, by: int = 1) -> tuple[int, ...]:
    larger = list(shape)
    larger[axis] += by
    return tuple(larger)


NO_NUMBERS = [
    Wrong("None", None),
    Wrong("text", "0.5"),
    Wrong("complex", 0.5j),
    Wrong("a list", [0.5]),
    Wrong("NaN", np.nan),
    Wrong("NaN of float32", np.float32(np.nan)),
    Wrong("infinity", np.inf),
    Wrong("minus infinity", -np.inf),
    Wrong("beyond the floats", 10**400),
]
NO_INTEGERS = [
    Wrong("text", "1", message="integer"),
    Wrong("a fraction", 1.5, message="integer"),
    Wrong("a float", 1.0, message="integer"),
    Wrong("NaN", np.nan, message="integer"),
    Wrong("a list", [1], message="integer"),
    Wrong("complex", 1j, message="integer"),
    Wrong("two numbers", np.arange(2), message="integer"),
]
NO_LISTS = [
    Wrong("None", None),
    Wrong("a number", 5),
    Wrong("text", "ab"),
    Wrong("a mapping", {0: np.zeros(3), 1: np.zeros(3)}),
    Wrong("a generator", (n for n in range(2))),
    Wrong("a scalar array", np.array(1.0)),
    Wrong("nothing", []),
    Wrong("too many", [np.zeros((3, 2, 3))] * 4),
    Wrong("too many axes", np.zeros((7, 2, 3, 3))),
]
NO_SYMBOLS = [
    Wrong("None", None),
    Wrong("a number", 5),
    Wrong("text", "x"),
    Wrong("an array", np.zeros((2, 3))),
    Wrong("a list", [1.0] * 1000),
]
FOREIGN = [
    Wrong("another net's", lambda s, p: another_net().loss, message="another BPTT", made=True),
    Wrong("of the other mode", lambda s, p: bptt.reduce_mean(s.shallow[-1]), made=True),
]
NO_TEXT = [
    Wrong("None", None),
    Wrong("a number", 5),
    Wrong("bytes", b"w"),
    Wrong("a list", ["w"]),
    Wrong("invalid text", "\ud800"),
]
NO_FEEDS = [
    Wrong("None", None, message="maps symbols"),
    Wrong("a number", 5, message="maps symbols"),
    Wrong("a list", [np.zeros((3, 2, 3))], message="maps symbols"),
    Wrong("text", "x", message="maps symbols"),
    Wrong("nothing", {}, message="lacks"),
    Wrong("names", {"x": np.zeros((3, 2, 3))}),
    Wrong("too much", lambda s, p: {**s.feed, "x": 1.0}, message="cannot be fed", made=True),
    Wrong("a shallow one", lambda s, p: {**s.feed, s.shallow[0]: 1.0}, message="fed", made=True),
]
NO_DTYPES = [
    Wrong(str(dtype), dtype, message="float32 or float64")
    for dtype in ("float16", "int32", "complex64", "f4,f4", "no dtype", None, 5, [], {}, object)
]


class Thing:
    """An object whose text is the same in every process, as the names of tests should be."""

    def __str__(self):
        return "an object"


SHAPES = [
    Wrong(str(shape), shape, bptt.ShapeError, "features, batch")
    for shape in (
        None,
        3,
        2.5,
        "ab",
        (3,),
        (3, 2, 1),
        (0, 1),
        (3, -1),
        (1.5, 1),
        ("a", 1),
        {},
        Thing(),
    )
]
HUGE = [
    Wrong(f"huge: {shape}", shape, MemoryError, "GiB")
    for shape in ((10**9, 10**9), (10**12, 1), (1, 10**12), (2**32, 2**32), (2**62, 2), (10**30, 1))
]


def mapped(shape: tuple[int, ...]) -> list[Wrong]:
    """What is no mapping from names to such arrays."""
    right, nan = np.ones(shape), np.full(shape, np.nan)
    return [
        *(Wrong(str(value), value, message="by name") for value in (None, 5, "a", [], {})),
        Wrong("an array alone", right, message="by name"),
        Wrong("no numbers", {"a": right, "b": None}, message="'b'"),
        Wrong("one axis less", {"a": right[0]}, bptt.ShapeError, "'a'"),
        Wrong("one axis more", {"a": right[None]}, bptt.ShapeError, "'a'"),
        Wrong("empty", {"a": right[:0]}, bptt.ShapeError, "'a'"),
        Wrong("NaN", {"a": right, "b": nan}, bptt.NonFiniteError, "'b'"),
    ]


WRONG: dict[str, list[Wrong]] = {
    "number": NO_NUMBERS,
    "number or none": [wrong for wrong in NO_NUMBERS if wrong.value is not None],
    "deviation": [*NO_NUMBERS, Wrong("negative", -1.0, message="negative")],
    "positive rate": [*NO_NUMBERS, Wrong("zero", 0.0), Wrong("negative", -1.0)],
    "positive": [
        *NO_NUMBERS,
        Wrong("zero", 0.0),
        Wrong("negative", -1.0),
        Wrong("zero in float32", 1e-60, message="float32"),
        Wrong("infinite in float32", 1e60, message="float32"),
    ],
    "fraction": [*NO_NUMBERS, Wrong("one", 1.0), Wrong("negative", -0.1)],
    "pair of shares": [
        Wrong(str(value), value) for value in ((), (0.1,), (0.1, 0.1, 0.1), (0.1, 1.0), ("a", 0.1))
    ],
    "switch": [
        Wrong("None", None),
        Wrong("text", "no"),
        Wrong("a number", 1),
        Wrong("NaN", np.nan),
    ],
    "integer": NO_INTEGERS,
    "endless": [
        Wrong(f"{number:.0e}", number, MemoryError, "GiB")
        for number in (10**12, 10**18, 2**63, 10**30)
    ],
    "axis": [
        *NO_INTEGERS[:4],
        *NO_INTEGERS[5:],
        Wrong("2", 2, message="axis"),
        Wrong("-3", -3, message="axis"),
    ],
    "no axes": [Wrong("a list of them", [0, 2]), Wrong("none", ()), Wrong("texts", ["0"])],
    "slice": [
        Wrong("None", None),
        Wrong("an index", 0, message="0:1"),
        Wrong("text", "a"),
        Wrong("two slices", (slice(1), slice(1))),
        Wrong("texts", slice("a", "b")),
        Wrong("fractions", slice(0.0, 1.0)),
        Wrong("a step", slice(0, 2, 2), message="step"),
        Wrong("no step", slice(0, 2, 0)),
        Wrong("backwards", slice(2, 0, -1), message="step"),
        Wrong("empty", slice(1, 1), bptt.ShapeError),
        Wrong("beyond", slice(2, 10**30), bptt.ShapeError),
    ],
    "shape": [*SHAPES, *HUGE],
    "width": [
        *(
            Wrong(str(width), width, bptt.ShapeError)
            for width in (None, 0, -1, 1.5, "2", [2], np.nan)
        ),
        *(Wrong(f"huge: {width}", width, MemoryError, "GiB") for width in (10**12, 2**63, 10**30)),
    ],
    "dtype": NO_DTYPES,
    "text": [*NO_TEXT, Wrong("empty", "", message="empty")],
    "bad text": NO_TEXT[1:],
    "taken": [Wrong("taken", None)],
    "depth": [
        Wrong(str(depth), depth, message="depth")
        for depth in (None, 5, "middle", "DEEP", "", [], b"deep")
    ],
    "candidates": [
        *NO_LISTS[:3],
        Wrong("nothing", [], message="no candidates"),
        Wrong("an empty space", {"seed": []}, message="no candidates"),
        Wrong("a space of a number", {"seed": 5}, message="seed"),
        Wrong("a space of text", {"seed": "ab"}, message="seed"),
        Wrong("a space without names", {5: [1]}, message="names"),
    ],
    "function": [Wrong(str(value), value) for value in (5, "tanh", [], np.zeros(2))],
    "choice": [
        Wrong(str(value), value) for value in (5, "half", "", True, [], np.zeros(2), b"full")
    ],
    "initializer": [
        Wrong("text", "zeros", message="<U5"),
        Wrong("a number", 0, bptt.ShapeError),
        Wrong("an array", np.zeros((7, 7)), bptt.ShapeError, "(7, 7)"),
        Wrong("gives None", lambda shape, rng: None, message="object"),
        Wrong("gives text", lambda shape, rng: "zeros", message="<U5"),
        Wrong(
            "gives another shape", lambda shape, rng: np.zeros((7, 7)), bptt.ShapeError, "(7, 7)"
        ),
        Wrong("gives NaN", lambda shape, rng: np.full(shape, np.nan), bptt.NonFiniteError, "nan"),
        Wrong(
            "gives too large", lambda shape, rng: np.full(shape, 1e39), bptt.NonFiniteError, "inf"
        ),
    ],
    "net": [Wrong(str(value), value) for value in (None, 5, "bp", np.zeros(2))]
    + [Wrong("one that is built", lambda s, p: s.bp, message="frame function", made=True)],
    "symbol": NO_SYMBOLS,
    "bare symbol": NO_SYMBOLS[:4],
    "loss": [
        *NO_SYMBOLS,
        *FOREIGN[:1],
        Wrong("of every frame", lambda s, p: s.out, message="window value", made=True),
        Wrong(
            "of three",
            lambda s, p: bptt.reduce_mean(s.out) * np.ones((1, 3)),
            bptt.ShapeError,
            "(1, 3)",
            True,
        ),
    ],
    "wrt": [
        *NO_LISTS[1:6],
        Wrong("a number in it", [5]),
        Wrong("an unknown name", ["W"], UnknownNameError, WEIGHT),
        Wrong("a computed value", lambda s, p: [s.out], made=True),
        Wrong("another net's", lambda s, p: [another_net().x], message="another BPTT", made=True),
        Wrong("of the other mode", lambda s, p: [s.shallow[0]], made=True),
    ],
    "outputs": [
        *NO_LISTS[1:6],
        Wrong("nothing", []),
        Wrong("a number in it", [5]),
        Wrong("text in it", ["out"]),
        Wrong("a bare symbol", lambda s, p: s.shallow[-1], made=True),
        Wrong("a window value", lambda s, p: [bptt.reduce_mean(s.shallow[-1])], made=True),
        Wrong("of the other mode", lambda s, p: [s.out], message="shallow", made=True),
        Wrong(
            "another net's",
            lambda s, p: [another_net().shallow[-1]],
            message="another BPTT",
            made=True,
        ),
    ],
    "rows": [
        Wrong("of too many lanes", np.ones((FRAMES, 7), dtype=bool), bptt.ShapeError, "7"),
        Wrong(
            "of too many frames", np.ones((FRAMES + 1, 3)), bptt.ShapeError, f"({FRAMES + 1}, 3)"
        ),
        Wrong("turned", np.ones((3, FRAMES), dtype=bool), bptt.ShapeError, f"(3, {FRAMES})"),
        Wrong("a number", 5, bptt.ShapeError),
        Wrong("text", "yes", message="real numbers"),
        Wrong("halves", lambda s, p: np.full((rows_of(p), 3), 0.5), message="0.5", made=True),
        Wrong("NaN", lambda s, p: np.full((rows_of(p), 3), np.nan), message="nan", made=True),
    ],
    "lanes": [
        Wrong("of too many lanes", np.ones(7, dtype=bool), bptt.ShapeError, "7"),
        Wrong("of frames", np.ones((2, 3), dtype=bool), bptt.ShapeError, "(2, 3)"),
        Wrong("a number", 5, bptt.ShapeError),
        Wrong("text", "yes", message="real numbers"),
        Wrong("halves", np.full(3, 0.5), message="0.5"),
        Wrong("NaN", np.full(3, np.nan), message="nan"),
    ],
    "optimizer": [
        Wrong(str(value), value)
        for value in (None, 5, "adam", [], bptt.Adam, bptt.ClipByValue(1.0))
    ],
    "clip": [Wrong(str(value), value) for value in (5, "value", [], bptt.ClipByValue, bptt.Adam)],
    "named loss": [
        Wrong(str(value), value, message="loss") for value in (5, "absolute", [], np.zeros(2))
    ]
    + [Wrong("of every frame", lambda output, target: output, message="window value")],
    "pair": [
        Wrong(str(value), value, message="pair") for value in (5, "abc", [], (TARGETS,), TARGETS)
    ],
    "list": NO_LISTS,
    "arrays": [wrong for wrong in NO_LISTS if wrong.what != "too many"],
    "position": [
        Wrong(str(value), value) for value in (3, "ab", (1,), (0, -1), (0.5, 0), (0, None), {0, 1})
    ],
    "items": [
        *(
            Wrong(str(value), [[value, np.ones(9)]], bptt.BpttError)
            for value in (None, "ab", 1j, {})
        ),
        Wrong("a function of nothing", lambda: None, message="iterable"),
        Wrong("a generator of numbers", lambda s, p: iter(range(3)), made=True),
        Wrong("masked", [[np.ma.masked_array(np.ones((9, 2)), mask=True)] * 2], bptt.BpttError),
        Wrong("too many axes", [[np.ones((9, 2, 3, 1)), np.ones((9, 1))]], bptt.ShapeError),
        Wrong("of different lengths", [[np.ones((9, 2, 3)), np.ones((8, 1, 3))]], bptt.ShapeError),
        Wrong("no features", [[np.ones((9, 0)), np.ones((9, 0))]], bptt.ShapeError),
        Wrong("one array too few", [[np.ones((9, 2))]], bptt.BpttError),
    ],
    "operand": [
        Wrong("text", "x"),
        Wrong("complex", 1j * np.ones((1, 3))),
        Wrong("masked", np.ma.masked_array(np.zeros((1, 3)), mask=np.ones((1, 3)))),
        Wrong("NaN", np.full((1, 3), np.nan), bptt.NonFiniteError, "nan"),
        Wrong("another shape", np.zeros((7, 5)), bptt.ShapeError),
        Wrong("a vector", np.zeros(3), bptt.ShapeError),
        Wrong("of the other mode", lambda s, p: s.shallow[-1], made=True),
        Wrong("another net's", lambda s, p: another_net().out, made=True),
    ],
    "metrics": [
        Wrong("a number", 5),
        Wrong("text", "loss"),
        Wrong("a list", lambda s, p: [s.loss], made=True),
        Wrong("a number's name", lambda s, p: {5: s.loss}, made=True),
        Wrong("the loss's name", lambda s, p: {"loss": s.loss}, message="name", made=True),
        Wrong("no symbol", {"a": 5.0}),
        Wrong("a value of every frame", lambda s, p: {"a": s.out}, message="window", made=True),
        Wrong(
            "of three",
            lambda s, p: {"a": bptt.reduce_mean(s.out) * np.ones((1, 3))},
            bptt.ShapeError,
            "(1, 3)",
            True,
        ),
        Wrong(
            "of the other mode",
            lambda s, p: {"a": bptt.reduce_mean(s.shallow[-1])},
            message="graph",
            made=True,
        ),
        Wrong("another net's", lambda s, p: {"a": another_net().loss}, made=True),
    ],
    "reduction": [
        Wrong(str(value), value, message="reduction") for value in (None, 5, "max", "", [])
    ],
    "patterns": [
        *NO_LISTS[:6],
        Wrong("text", "*"),
        Wrong("a number in it", [5], message="text"),
        Wrong("a symbol in it", lambda s, p: [s.x], message="text", made=True),
        Wrong("a name of no weight", ["W"], message=WEIGHT),
        Wrong("all weights", ["*"], message="nothing to train"),
    ],
    "state patterns": [
        *NO_LISTS[1:2],
        *NO_LISTS[3:6],
        Wrong("a number in it", [5], message="text"),
        Wrong("a name of no state", "W", message=PAST),
        Wrong("one of no state", [PAST, "cell-*"], message=PAST),
    ],
    "recorded": [
        *NO_LISTS[1:2],
        *NO_LISTS[4:6],
        Wrong("a number in it", [5], message="text"),
        Wrong("a symbol in a list", lambda s, p: [s.shallow[0]], message="text", made=True),
        Wrong("a name of nothing", "lstm_layer_0/*", message=PAST),
        Wrong("no symbol", {"a": 5.0}),
        Wrong("a number's name", lambda s, p: {5: s.shallow[0]}, message="name", made=True),
        Wrong("of the other mode", lambda s, p: {"a": s.x}, message="shallow", made=True),
        Wrong(
            "a window value",
            lambda s, p: {"a": bptt.reduce_mean(s.shallow[-1])},
            message="each frame",
            made=True,
        ),
        Wrong("another net's", lambda s, p: {"a": another_net().shallow[0]}, made=True),
    ],
    "curve": [
        Wrong("None", None),
        Wrong("text", "ab"),
        Wrong("complex", np.ones(FRAMES, complex)),
        Wrong("a number", 5.0, bptt.ShapeError),
        Wrong("a matrix", np.ones((FRAMES, 1)), bptt.ShapeError),
        Wrong("empty", [], bptt.ShapeError),
        Wrong("NaN", np.full(FRAMES, np.nan), bptt.NonFiniteError, "nan"),
    ],
    "curves": [
        *NO_LISTS[:4],
        Wrong("a number in it", [5.0], bptt.ShapeError),
        Wrong("an empty one", [[]], bptt.ShapeError),
    ],
    "thing": [Wrong(str(value), value) for value in (None, 5, "a", [], np.zeros(2))],
    "norms": mapped((FRAMES, 2)),
    "recordings": mapped((FRAMES, 2, 3)),
    "picture path": [
        *(Wrong(str(path), path) for path in (None, 5.5, [], "", "a.jpeg", "png")),
        Wrong("in no format", "a", message=".png, .pdf, .svg"),
    ],
    "built net": [Wrong(str(value), value, message="BPTT") for value in (None, 5, "a", [], layers)],
    "no model": [Wrong(str(value), value, bptt.BpttError) for value in (None, 5, [], {}, {3: 4})],
    "order": [
        *(
            Wrong(str(value), value, message="layers")
            for value in (5, "head", [], ["foot"], [None])
        ),
        Wrong("numpy's tanh", [np.tanh], message="layers"),
        Wrong("another function", [bptt.exp], message="layers"),
    ],
    "identifier": [
        Wrong(str(value), value, message="identifier") for value in (5, "", "2nd", "a-b", "a b", [])
    ],
    "names": [
        Wrong(str(value), value, message="names")
        for value in (5, "rnn", [], ["a"], ["a", "b", "c"])
    ],
    "text choice": [Wrong(str(value), value, message='"') for value in (None, 5, "loud", "", [])],
    "feed": NO_FEEDS,
    "key": [
        Wrong(str(key), key, UnknownNameError, "there are")
        for key in (None, 5, "", "no such name", (1, 2), [])
    ],
    "not finite": [
        Wrong(str(number), number, bptt.NonFiniteError, "placeholder_0")
        for number in (np.nan, np.inf, -np.inf)
    ],
    "path": [Wrong(str(path), path, bptt.BpttError) for path in (None, 5.5, [], Thing())]
    + [
        Wrong("empty", "", bptt.BpttError),
        Wrong("with a zero", "a\0b", bptt.BpttError),
        Wrong("in no folder", "/no/such/folder/net", bptt.CheckpointError, "/no/such/folder"),
        Wrong("a folder", "/", bptt.BpttError),
    ],
    "communicator": [
        Wrong(str(value), value, message="communicator") for value in (5, "world", [], Thing())
    ],
    "no file": [Wrong("no file", "/no/such/file", bptt.CheckpointError, "/no/such/file")],
}
WRONG["export path"] = [
    replace(wrong, error=InterchangeError) if wrong.error is bptt.CheckpointError else wrong
    for wrong in WRONG["path"]
]


def rows_of(place: Place) -> int:
    return WINDOW if place.name in ("BPTT.generate_feed_dict", "BPTT.run") else FRAMES


def wrong_with(place: Place) -> Iterator[Wrong]:
    """All that is wrong with a place's kind of thing, here."""
    if place.kind == "array":
        yield from KINDS_OF_NUMBERS
        for what, make, error, message in BY_SHAPE:
            yield Wrong(what, lambda s, p, m=make: m(p), error, message, made=True)
        return
    yield from WRONG[place.kind]
    if place.kind == "integer":
        low, high = place.limits
        if low is not None:
            yield Wrong("too small", low - 1, message=str(low - 1))
            yield Wrong("far too small", -(10**30))
        if high is not None:
            yield Wrong("too large", high + 1, message=str(high + 1))
            yield Wrong("far too large", 10**30)


# Wrong elsewhere, right or nobody's business there.
FITS = {
    "layers.lstm(projection)": {"None"},  # the default
    "BPTT.constant(array)": {"one more feature", "one more lane", "transposed"},  # any matrix
    "layers.rnn(x)": {"one more feature", "one more lane", "transposed"},
    "layers.gru(x)": {"one more feature", "one more lane", "transposed"},
    "layers.lstm(x)": {"one more feature", "one more lane", "transposed"},
    "layers.dense(x)": {"one more feature", "one more lane", "transposed"},
    "matmul(a)": {"one more feature"},
    "matmul(b)": {"one more lane"},
    "Symbol.__matmul__(other)": {"one more lane"},
    "Symbol.__rmatmul__(other)": {"one more feature"},
    "concat(values)": {"one more lane"},
    "BPTT.get_variable(initializer)": {"None", "a class"},  # the default; called as it is
    "layers.rnn(initial_state)": {"None", "a class"},
    "layers.gru(initial_state)": {"None", "a class"},
    "layers.lstm(initial_state)": {"None", "a class"},
    "BPTT.fit(checkpoint)": {"None"},
    "Sequential.fit(optimizer)": {"None"},
    "LSTM(projection)": {"None"},
    "Dense(activation)": {"tanh"},
    "Sequential.predict(x)": {"one more feature"},  # another batch
    "BPTT.generate_feed_dict(data)": {"too many", "too many axes"},  # the first are taken
}


TABLE = [
    pytest.param(place, wrong, id=f"{place}-{wrong.what}")
    for place in PLACES
    for wrong in wrong_with(place)
    if wrong.what not in FITS.get(str(place), ())
]


@pytest.mark.parametrize(("place", "wrong"), TABLE)
def test_wrong_input(place: Place, wrong: Wrong) -> None:
    """The error that is said to come, and the net as it was, going on as its twin does."""
    subject, twin = Subject(), Subject()
    value = wrong.value(subject, place) if wrong.made else wrong.value
    with pytest.raises(wrong.error) as caught:
        place.use(subject, value)
    message = str(caught.value)
    assert wrong.message in message
    assert message.strip()
    assert len(message) < 600
    if wrong.error is bptt.NonFiniteError and place.kind == "array":
        assert "expected finite numbers" in message
    for (what, now), before in zip(
        subject.contents().items(), twin.contents().values(), strict=True
    ):
        np.testing.assert_array_equal(now, before, err_msg=what)
    for now, before in zip(subject.goes_on(), twin.goes_on(), strict=True):
        np.testing.assert_array_equal(now, before)


def test_the_error_of_the_users_own_function_passes() -> None:
    def broken(shape: Any, rng: Any) -> Any:
        raise LookupError("the user's own")

    with pytest.raises(LookupError, match="the user's own"):
        inside(lambda bp, x: bp.get_variable("w", (2, 2), broken))


# ---- sizes


def test_a_result_that_no_memory_can_hold() -> None:
    """Of operands that are small: two weights of 4 MB whose product takes 4 TB."""
    n = 10**6

    def build(bp: bptt.BPTT, x: Any) -> Any:
        column = bp.get_variable("column", (n, 1), initializers.zeros)
        return column @ bp.get_variable("row", (1, n), initializers.zeros)

    with pytest.raises(MemoryError, match=r"a matmul of shape \(1000000, 1000000\)"):
        inside(build)


@pytest.mark.parametrize("shape", [(2**31, 1), (10**4, 10**3), (2**20, 2**11)])
def test_sizes_whose_product_overflows(shape: tuple[int, int]) -> None:
    """features * batch * frames beyond 64 bits, of sizes that are well below."""

    def wide(bp: bptt.BPTT, depth: str) -> Any:
        return bp.placeholder(shape)

    bp = bptt.BPTT(seed=0)
    with pytest.raises(MemoryError, match="GiB"):
        bp.generate_graphs(wide, num_loops=2**45)
    bp.generate_graphs(frame, num_loops=WINDOW)


def test_a_loss_too_large_later() -> None:
    """After the trace: the net that it was to be added to is what it was."""
    subject, twin = Subject(), Subject()
    long = bptt.concat([subject.out.T] * 200_000, axis=1)
    with pytest.raises(MemoryError, match="matmul"):
        bptt.reduce_mean(long.T @ long)
    for now, before in zip(subject.goes_on(), twin.goes_on(), strict=True):
        np.testing.assert_array_equal(now, before)


PROGRAM_TOO_LARGE = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np
import bptt
from test_bad_input import frame

bp = bptt.BPTT(seed=0)
x, y, out = bp.generate_graphs(frame, num_loops=20_000_000)["deep"]
train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(0.01))
before = bp.predict([np.ones((5, 2, 3))])
data = [np.broadcast_to(np.float32(0), (20_000_000, n, 3)) for n in (2, 1)]
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
try:
    bp.fit(train, data, steps=1)
except MemoryError as error:
    assert "deep graph over 20000000 frames" in str(error), error
else:
    raise AssertionError("a program of 3 GB in 1 GB")
assert train.steps == 0
bp.reset_state("shallow")
np.testing.assert_array_equal(bp.predict([np.ones((5, 2, 3))]), before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of memory to set")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer needs room")
def test_a_program_that_does_not_fit() -> None:
    """Each value alone would fit. In a process of its own, which may use 1 GiB."""
    code = PROGRAM_TOO_LARGE.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ---- what is odd, and right

LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "a list": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())) if a.ndim == 2 else tuple(a.tolist()),
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "not contiguous": lambda a: np.repeat(np.repeat(a, 2, axis=-1), 3, axis=-2)[..., ::3, ::2],
    "negative strides": lambda a: reverse(np.ascontiguousarray(reverse(a))),
    "zero strides": lambda a: np.broadcast_to(a[:1], a.shape),
    "read-only": lambda a: read_only(a),
    "not aligned": lambda a: misaligned(a),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "a matrix subclass": lambda a: a.view(Sub),
    "a memory view": lambda a: memoryview(np.ascontiguousarray(a)),
    "float16": lambda a: a.astype(np.float16),
    "float64": lambda a: a.astype(np.float64),
    "long double": lambda a: a.astype(np.longdouble),
    "int8": lambda a: (4 * a).astype(np.int8),
    "int64": lambda a: (4 * a).astype(np.int64),
    "uint64": lambda a: (4 * abs(a)).astype(np.uint64),
    "bool": lambda a: a > 0,
}


class Sub(np.ndarray):
    """Of somebody's own."""


def reverse(array: np.ndarray) -> np.ndarray:
    return array[(slice(None, None, -1),) * array.ndim]


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = memory.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


GOOD = [place for place in PLACES if place.kind == "array"]


@pytest.mark.filterwarnings("ignore:.*matrix subclass")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", GOOD, ids=str)
def test_odd_arrays(place: Place, layout: str) -> None:
    """Layout and dtype make no difference: they are the numbers of a plain float32 array."""
    numbers = np.random.default_rng(5).normal(size=place.shape).astype(np.float16)
    odd = LAYOUTS[layout](numbers.astype(np.float32))
    plain = np.array(odd, np.float32)
    assert plain.shape == place.shape
    got = place.use(Subject(), odd)
    assert got is not None
    assert_identical(got, place.use(Subject(), plain))
    np.testing.assert_array_equal(np.array(odd, np.float32), plain)  # left as it was


@pytest.mark.parametrize("place", [place for place in GOOD if place.scalar], ids=str)
@pytest.mark.parametrize("number", [2, 0.5, True, np.float16(2), np.int8(3), np.array(0.25)])
def test_single_numbers(place: Place, number: Any) -> None:
    """Where a number may stand for a matrix, it is one of (1, 1)."""
    expected = place.use(Subject(), np.array([[number]], np.float32))
    assert_identical(place.use(Subject(), number), expected)


def test_rounding_into_float32() -> None:
    """To the nearest: a large integer and a double lose what float32 cannot hold."""
    subject = Subject()
    for given, kept in ((2**24 + 1, 2**24), (1 + 1e-9, 1.0), (1e-60, 0.0)):
        subject.bp.state["deep"][PAST] = np.full((2, 3), given)
        assert_identical(subject.bp.state["deep"][PAST], np.full((2, 3), kept, np.float32))


# ---- the table is whole


def public(module: ModuleType, prefix: str = "") -> dict[str, Any]:
    """What a user may call, by name: functions, classes, methods, settable properties."""
    found: dict[str, Any] = {}
    names = getattr(module, "__all__", None) or [
        name
        for name, each in vars(module).items()
        if not name.startswith("_") and getattr(each, "__module__", "") == module.__name__
    ]
    for name in names:
        each = getattr(module, name)
        if isinstance(each, ModuleType):
            found |= public(each, f"{name}.")
        elif isinstance(each, type) and not issubclass(each, Exception):
            found |= methods(each, prefix)
        elif callable(each) and not isinstance(each, type) and inspect.isroutine(each):
            found[prefix + name] = each
    return found


def methods(kind: type, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {prefix + kind.__name__: kind} if kind in MADE_BY_USERS else {}
    for name, each in vars(kind).items():
        full = f"{prefix}{kind.__name__}.{name}"
        if isinstance(each, classmethod):
            each = getattr(kind, name)
        if isinstance(each, property):
            if each.fset:
                found[full] = each.fset
        elif inspect.isroutine(each) and (not name.startswith("_") or name in OPERATORS):
            found[full] = each
    return found


MADE_BY_USERS = {bptt.BPTT, bptt.ClipByValue, bptt.ClipByGlobalNorm, palindrome.Configuration}
MADE_BY_USERS |= {bptt.SGD, bptt.RMSProp, bptt.Adagrad, bptt.Adam, bptt.AdamW}
MADE_BY_USERS |= {schedules.constant, schedules.cosine, schedules.step, schedules.warm_up}
MADE_BY_USERS |= {data.Lanes, data.Sequences, data.Chunks}
MADE_BY_USERS |= {bptt.Sequential, bptt.RNN, bptt.LSTM, bptt.GRU, bptt.Dense, bptt.Embedding}
OPERATORS = {"__call__", "__getitem__", "__setitem__", "__matmul__", "__rmatmul__"}
OPERATORS |= {f"__{way}{name}__" for way in ("", "r") for name in ("add", "sub", "mul", "truediv")}

# Public, and yet no way in for what users bring.
NO_WAY_IN = {
    "initializers.zeros": "called with a shape that is checked",
    "initializers.ones": "called with a shape that is checked",
    "initializers.glorot_uniform": "called with a shape that is checked",
    "initializers.glorot_normal": "called with a shape that is checked",
    "initializers.orthogonal": "called with a shape that is checked",
    "initializers.draw": "called by a trace",
    "initializers.normal": "called by a trace",
    "initializers.uniform": "called by a trace",
    **{
        f"{name}.build": "called by minimize"
        for name in ("SGD", "RMSProp", "Adagrad", "Adam", "AdamW")
    },
    **{
        f"schedules.{name}.__call__": "called by fit"
        for name in ("constant", "cosine", "step", "warm_up")
    },
    "losses.gaussian_nll(full)": "anything is true or false",
    "TrainingOperation.plan": "called by fit and run",
    "schedules.described": "called by save",
    "schedules.rate_of": "called by fit",
    "ClipByValue.build": "called by minimize",
    "TrainingOperation.assign": "called by minimize",
    "ClipByGlobalNorm.build": "called by minimize",
    "layers.rnn(output)": "anything is true or false",
    "layers.lstm(coupled)": "anything is true or false",
    "layers.lstm(layer_norm)": "anything is true or false",
    "BPTT.stepper(own_state)": "anything is true or false",
    "load(frame)": "as for generate_graphs",
    "RNN.build": "called by Sequential",
    "LSTM.build": "called by Sequential",
    "GRU.build": "called by Sequential",
    "Dense.build": "called by Sequential",
    "Embedding.build": "called by Sequential",
    **{
        f"plot.{name}(ax)": "matplotlib's own" for name in ("loss", "predictions", "gradient_norms")
    },
    "BPTT.fit(progress)": "anything is true or false",
    "Sequential.fit(progress)": "anything is true or false",
    "data.Sequences(shuffle)": "anything is true or false",
    "data.Chunks(resets)": "anything is true or false",
    "data.Dataset.blocks": "called by fit and evaluate",
    "data.Dataset.once": "called by predict",
    "data.Dataset.gather": "called by predict",
    "data.Chunks.blocks": "called by fit and evaluate",
    "data.Chunks.once": "called by predict",
    "data.Chunks.gather": "called by predict",
    "data.Lanes.gather": "called by predict",
}


def everything_public() -> dict[str, Any]:
    found = public(bptt)
    for kind in (Stepper, Stream, Parameters, StateView, TrainingOperation):
        found |= methods(kind)
    return found


def test_every_public_name_is_in_the_table() -> None:
    names = {name for name, each in everything_public().items() if parameters(each)}
    assert len(names) > 80
    odd = len(GOOD) * len(LAYOUTS)
    print(
        f"{len(TABLE)} wrong inputs at {len(PLACES)} places of {len(names)} names; {odd} odd ones"
    )
    missing = names - {place.name for place in PLACES} - set(NO_WAY_IN)
    assert not missing


def test_every_argument_is_in_the_table() -> None:
    places = {str(place) for place in PLACES}
    missing = {
        f"{name}({parameter})"
        for name, each in everything_public().items()
        for parameter in parameters(each)
        if name not in NO_WAY_IN
    }
    assert not missing - places - set(NO_WAY_IN)


def test_every_place_is_public() -> None:
    """And so is every exception to the rule: no name lives on here after it is gone."""
    public = everything_public()
    live = {name for name in public} | {
        f"{name}({parameter})" for name, each in public.items() for parameter in parameters(each)
    }
    made = {"Stepper.__call__(inputs)"}  # its inputs are filled, not passed
    assert {str(place) for place in PLACES} - live <= made
    assert set(NO_WAY_IN) <= live


def parameters(function: Any) -> list[str]:
    names = list(inspect.signature(function).parameters)
    return [name for name in names if name not in ("self", "_")]
