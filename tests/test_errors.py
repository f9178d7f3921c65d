"""Every mistake has its own message: what was expected, what came, and the line that made it.

The line at fault inside a frame function ends with the comment `# wrong`; the tests look it up in
the source.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import layers
from frames import Frame


def trace(frame: Frame, num_loops: int = 3) -> bptt.BPTT:
    bp = bptt.BPTT(seed=0)
    bp.generate_graphs(frame, num_loops=num_loops)
    return bp


def place_of(function: Callable[..., Any]) -> str:
    """`FILE:LINE` of the one line of the function marked as wrong."""
    lines, first = inspect.getsourcelines(function)
    (line,) = [first + i for i, text in enumerate(lines) if text.rstrip().endswith("# wrong")]
    return f"{inspect.getsourcefile(function)}:{line}"


def assert_message(error: BaseException, *parts: str) -> None:
    for part in parts:
        assert part in str(error), f"{part!r} is missing in: {error}"


def assert_refused(frame: Frame, kind: type[bptt.BpttError], *parts: str) -> None:
    """Tracing the frame raises this very kind of error, its message ending with the wrong line."""
    with pytest.raises(kind) as caught:
        trace(frame)
    assert type(caught.value) is kind
    assert_message(caught.value, *parts)
    assert str(caught.value).endswith(f"(at {place_of(frame)})")


# ---- kinds of errors


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (bptt.ShapeError, ValueError),
        (bptt.UsageError, RuntimeError),
        (bptt.NonFiniteError, ArithmeticError),
        (bptt.CheckpointError, OSError),
    ],
)
def test_each_kind_is_also_a_builtin(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, bptt.BpttError)
    assert issubclass(kind, builtin)
    assert issubclass(bptt.BpttError, Exception)


# ---- shapes inside a frame function


def add(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((3, 2)), bp.placeholder((4, 2))
    return x + y  # wrong


def subtract_lanes(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((3, 2)), bp.placeholder((3, 4))
    return x - y  # wrong


def multiply_by_array(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    return np.ones((2, 3)) * x  # wrong


def divide(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((3, 2)), bp.placeholder((2, 2))
    return x / y  # wrong


def matmul(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    w = bp.get_variable("w", (5, 4))
    return w @ x  # wrong


def maximum(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((3, 2)), bp.placeholder((4, 2))
    return bptt.maximum(x, y)  # wrong


def concat(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((3, 2)), bp.placeholder((4, 5))
    return bptt.concat([x, y])  # wrong


def concat_lanes(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((3, 2)), bp.placeholder((4, 2))
    return bptt.concat([x, y], axis=1)  # wrong


SHAPES = [
    (add, "add", "(3, 2)", "(4, 2)"),
    (subtract_lanes, "subtract", "(3, 2)", "(3, 4)"),
    (multiply_by_array, "multiply", "(2, 3)", "(3, 2)"),
    (divide, "divide", "(3, 2)", "(2, 2)"),
    (matmul, "matmul", "(5, 4)", "(3, 2)"),
    (maximum, "maximum", "(3, 2)", "(4, 2)"),
    (concat, "concat", "(3, 2)", "(4, 5)"),
    (concat_lanes, "concat", "(3, 2)", "(4, 2)"),
]


@pytest.mark.parametrize(("frame", "parts"), [(row[0], row[1:]) for row in SHAPES])
def test_shapes_that_do_not_fit(frame: Frame, parts: tuple[str, ...]) -> None:
    """The operation, both shapes, the line."""
    assert_refused(frame, bptt.ShapeError, *parts)


def empty_slice(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    return x[3:5]  # wrong


def vector(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    return x + np.ones(3)  # wrong


def cube(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    return x + np.ones((3, 2, 1))  # wrong


def flat_placeholder(bp: bptt.BPTT, depth: str) -> Any:
    return bp.placeholder((3,))  # wrong


def no_lanes(bp: bptt.BPTT, depth: str) -> Any:
    return bp.placeholder((3, 0))  # wrong


def widthless(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    return layers.lstm(bp, x, 0)[1]  # wrong


def start_of_other_width(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    return layers.rnn(bp, x, 4, initial_state=np.zeros((5, 1)))  # wrong


def given_weights(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    w = bp.get_variable("w", (2, 3), np.ones((3, 2)))  # wrong
    return w @ x


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        (empty_slice, ("(3, 2)",)),
        (vector, ("(3,)", "reshape(3, 1)")),
        (cube, ("(3, 2, 1)", "(features, batch)")),
        (flat_placeholder, ("(features, batch)", "(3,)")),
        (no_lanes, ("(features, batch)", "(3, 0)")),
        (widthless, ("0",)),
        (start_of_other_width, ("(5, 1)", "(4,")),
        (given_weights, ("'w'", "(2, 3)", "(3, 2)")),
    ],
)
def test_shapes_that_are_none(frame: Frame, parts: tuple[str, ...]) -> None:
    assert_refused(frame, bptt.ShapeError, *parts)


def helper_that_fails(x: Any) -> Any:
    return x @ x  # wrong


def test_the_line_is_the_innermost_outside_the_package() -> None:
    """In a helper that the frame calls, and not deeper, in the package's own layers."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((3, 2))
        return x, helper_that_fails(x)

    with pytest.raises(bptt.ShapeError) as caught:
        trace(frame)
    assert str(caught.value).endswith(f"(at {place_of(helper_that_fails)})")

    def activation(x: Any) -> Any:
        return x + np.ones((7, 7))  # wrong

    def through_a_layer(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((3, 2))
        return x, layers.dense(bp, x, 4, activation=activation)

    with pytest.raises(bptt.ShapeError) as caught:
        trace(through_a_layer)
    assert_message(caught.value, "(4, 2)", "(7, 7)")
    assert str(caught.value).endswith(f"(at {place_of(activation)})")


def test_a_loss_is_checked_as_it_is_written() -> None:
    """After the trace, too: at the line itself, long before anything runs."""
    bp = trace(lambda bp, depth: (bp.placeholder((3, 2)), bp.placeholder((4, 2))))
    x, y = bp.graphs["deep"]
    with pytest.raises(bptt.ShapeError) as caught:
        bptt.reduce_mean(bptt.square(x - y))
    assert_message(caught.value, "subtract", "(3, 2)", "(4, 2)")


def test_the_users_own_errors_pass() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        raise LookupError("the user's own")

    with pytest.raises(LookupError, match="the user's own"):
        trace(frame)


def test_only_the_shallow_trace_is_wrong() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((3, 2 if depth == bp.DEEP else 1))
        return x, x + np.ones((3, 2)) * bp.get_variable("w", (2, 1))  # wrong

    assert_refused(frame, bptt.ShapeError, "multiply", "(3, 2)", "(2, 1)")


# ---- recurrences and variables


def never_named(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    past = bp.get_past_variable("lost", np.zeros((2, 1)))  # wrong
    return x, x + past


def named_twice(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    past = bp.get_past_variable("twice", np.zeros((2, 1)))
    bp.name_variable("twice", x + past)
    bp.name_variable("twice", x - past)  # wrong
    return x, past


def named_without_past(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    bp.name_variable("orphan", x)  # wrong
    return (x,)


def two_starts(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    bp.get_past_variable("state", np.zeros((2, 1)))
    bp.get_past_variable("state", np.zeros((3, 1)))  # wrong
    return (x,)


def layer_number_twice(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    h = layers.rnn(bp, x, 2, layer_index=3)
    return x, layers.rnn(bp, h, 2, layer_index=3)  # wrong


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        (never_named, ("'lost'", "never named", "name_variable")),
        (named_twice, ("'twice'", "named twice")),
        (named_without_past, ("'orphan'", "get_past_variable")),
        (two_starts, ("'state'", "(2, 1)", "(3, 1)")),
        (layer_number_twice, ("'hidden-3'", "twice")),
    ],
)
def test_recurrences(frame: Frame, parts: tuple[str, ...]) -> None:
    with pytest.raises(bptt.UsageError) as caught:
        trace(frame)
    assert_message(caught.value, *parts, place_of(frame))


def test_each_recurrence_error_has_its_own_message() -> None:
    messages = set()
    for frame in (never_named, named_twice, named_without_past, two_starts):
        with pytest.raises(bptt.UsageError) as caught:
            trace(frame)
        messages.add(re.sub(r"'\w+'|\(at .*", "", str(caught.value)))
    assert len(messages) == 4


def named_with_another_shape(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    past = bp.get_past_variable("state", np.zeros((3, 1)))
    bp.name_variable("state", x)  # wrong
    return x, past


def named_with_other_lanes(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 2))
    past = bp.get_past_variable("state", np.zeros((3, 4)))
    bp.name_variable("state", x)  # wrong
    return x, past


def variable_of_another_shape(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    with bp.variable_scope("layer"):
        first = bp.get_variable("w", (2, 2))
        second = bp.get_variable("w", (3, 2))  # wrong
    return x, first @ x, second @ x


def variable_of_another_shape_when_shallow(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((2, 1))
    rows = 2 if depth == bp.DEEP else 3
    w = bp.get_variable("w", (rows, 2))  # wrong
    return x, w @ x


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        (named_with_another_shape, ("'state'", "(2, 1)", "(3, 1)")),
        (named_with_other_lanes, ("'state'", "(3, 2)", "(3, 4)")),
        (variable_of_another_shape, ("'layer/w'", "(2, 2)", "(3, 2)")),
        (variable_of_another_shape_when_shallow, ("'w'", "(2, 2)", "(3, 2)")),
    ],
)
def test_names_of_another_shape(frame: Frame, parts: tuple[str, ...]) -> None:
    assert_refused(frame, bptt.ShapeError, *parts)


# ---- symbols are not numbers


def branch(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return x if x else -x  # wrong


def loop(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return [v for v in x]  # wrong


def length(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return x / len(x)  # wrong


def index(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return x[1]  # wrong


def stride(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return x[::2]  # wrong


def numpy_function(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return np.asarray(x)  # wrong


def window_value(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return x - bptt.reduce_mean(x)  # wrong


def window_value_named(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    bp.get_past_variable("mean", np.zeros((1, 1)))
    bp.name_variable("mean", bptt.reduce_mean(x))  # wrong
    return (x,)


def axis(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return bptt.reduce_mean(x, axis=2)  # wrong


def peephole(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return layers.lstm(bp, x, 2, peephole="half")[1]  # wrong


def complex_constant(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return x * 1j  # wrong


def text(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((3, 1))
    return bptt.maximum(x, "zero")  # wrong


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        (branch, ("depth",)),
        (loop, ("slice",)),
        (length, ("shape",)),
        (index, ("v[1:2]",)),
        (stride, ("step",)),
        (numpy_function, ("run",)),
        (window_value, ("window", "frame")),
        (window_value_named, ("'mean'", "window")),
        (axis, ("axis", "2")),
        (peephole, ("peephole", "'half'", "full", "diagonal")),
        (complex_constant, ("complex",)),
        (text, ("expected",)),
    ],
)
def test_symbols_are_no_numbers(frame: Frame, parts: tuple[str, ...]) -> None:
    assert_refused(frame, bptt.UsageError, *parts)


def test_a_frame_that_returns_no_symbols() -> None:
    with pytest.raises(bptt.UsageError, match="return"):
        trace(lambda bp, depth: None)


# ---- symbols of another net or mode


def passes(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
    return x, y, layers.dense(bp, layers.rnn(bp, x, 2), 1)


@pytest.fixture
def net() -> bptt.BPTT:
    return trace(passes)


def loss_of(bp: bptt.BPTT, depth: str = "deep") -> Any:
    _, y, out = bp.graphs[depth]
    return bptt.reduce_mean(bptt.square(out - y))


DATA = [np.zeros(9), np.ones(9)]
WINDOW = [np.zeros(3), np.ones(3)]


def test_symbols_of_another_net(net: bptt.BPTT) -> None:
    other = trace(passes)
    foreign = loss_of(other)
    feed = net.generate_feed_dict("deep", WINDOW, 2)
    uses: list[Callable[[], Any]] = [
        lambda: net.graphs["deep"][-1] + other.graphs["deep"][-1],
        lambda: loss_of(net) + foreign,
        lambda: net.minimize(foreign, bptt.Adam()),
        lambda: net.gradients(foreign, feed),
        lambda: net.run([foreign], feed),
        lambda: net.run([loss_of(net)], {**feed, other.graphs["deep"][0]: np.zeros((3, 1, 1))}),
        lambda: net.evaluate(foreign, DATA),
        lambda: net.fit(other.minimize(foreign, bptt.Adam()), DATA),
        lambda: net.run([other.minimize(foreign, bptt.Adam())], feed),
        lambda: net.predict(DATA, outputs=[other.graphs["shallow"][-1]]),
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError, match=r"another BPTT|cannot be fed"):
            use()


def test_a_symbol_carried_from_one_trace_into_the_other() -> None:
    kept = []

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        kept.append(x)
        return x + kept[0]  # wrong

    assert_refused(frame, bptt.UsageError, "deep", "shallow")


def test_symbols_of_the_other_mode(net: bptt.BPTT) -> None:
    feed = net.generate_feed_dict("deep", WINDOW, 2)
    shallow = loss_of(net, "shallow")
    uses: list[Callable[[], Any]] = [
        lambda: net.graphs["deep"][-1] + net.graphs["shallow"][-1],
        lambda: net.run([net.graphs["deep"][-1], shallow], feed),
        lambda: net.run([shallow], feed),
        lambda: net.predict(DATA[:1], outputs=[net.graphs["deep"][-1]]),
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError, match=r"shallow|deep"):
            use()


# ---- feeds and runs


def test_a_feed_that_lacks_a_placeholder(net: bptt.BPTT) -> None:
    for missing in net.graphs["deep"][:2]:
        feed = dict(net.generate_feed_dict("deep", WINDOW, 2))
        del feed[missing]
        with pytest.raises(bptt.UsageError) as caught:
            net.run([loss_of(net)], feed)
        assert_message(caught.value, "placeholder", missing.name)
        with pytest.raises(bptt.UsageError) as caught:
            net.gradients(loss_of(net), feed)
        assert_message(caught.value, "placeholder", missing.name)


def test_a_feed_that_lacks_state(net: bptt.BPTT) -> None:
    feed = net.generate_feed_dict("deep", WINDOW, 2)
    feed = {key: value for key, value in feed.items() if key in net.graphs["deep"]}
    with pytest.raises(bptt.UsageError, match="hidden-0"):
        net.run([loss_of(net)], feed)


def test_a_feed_with_an_unknown_key(net: bptt.BPTT) -> None:
    feed = dict(net.generate_feed_dict("deep", WINDOW, 2))
    for key in ("x", net.graphs["deep"][-1]):
        with pytest.raises(bptt.UsageError):
            net.run([loss_of(net)], {**feed, key: np.zeros((3, 1, 1))})


def test_a_feed_of_another_shape(net: bptt.BPTT) -> None:
    x = net.graphs["deep"][0]
    feed = dict(net.generate_feed_dict("deep", WINDOW, 2))
    with pytest.raises(bptt.ShapeError) as caught:
        net.run([loss_of(net)], {**feed, x: np.zeros((3, 2, 1))})
    assert_message(caught.value, "(3, 2, 1)", "(3, 1, 1)")


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_window_of_another_length(net: bptt.BPTT, frames: int) -> None:
    with pytest.raises(bptt.ShapeError) as caught:
        net.generate_feed_dict("deep", [np.zeros(frames), np.zeros(3)], 2)
    assert_message(caught.value, str(frames), "3")


def test_a_sequence_shorter_than_one_window(net: bptt.BPTT) -> None:
    train = net.minimize(loss_of(net), bptt.Adam())
    with pytest.raises(bptt.ShapeError) as caught:
        net.fit(train, [np.zeros(2), np.zeros(2)])
    assert_message(caught.value, "2", "3", "window")


def test_sequences_of_different_lengths(net: bptt.BPTT) -> None:
    train = net.minimize(loss_of(net), bptt.Adam())
    uses: list[Callable[[], Any]] = [
        lambda: net.fit(train, [np.zeros(9), np.zeros(8)]),
        lambda: net.evaluate(loss_of(net), [np.zeros(9), np.zeros(8)]),
    ]
    for use in uses:
        with pytest.raises(bptt.ShapeError) as caught:
            use()
        assert_message(caught.value, "9", "8")


def test_too_few_or_too_many_sequences(net: bptt.BPTT) -> None:
    train = net.minimize(loss_of(net), bptt.Adam())
    uses: list[Callable[[], Any]] = [
        lambda: net.fit(train, DATA[:1]),
        lambda: net.fit(train, [*DATA, DATA[0]]),
        lambda: net.evaluate(loss_of(net), DATA[:1]),
        lambda: net.predict(DATA),
        lambda: net.predict([]),
        lambda: net.step(0.0, 0.0),
        lambda: net.step(),
        lambda: net.generate_feed_dict("deep", WINDOW[:1], 2),
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError):
            use()


@pytest.mark.parametrize("start", [-1, 9, 100])
def test_a_start_outside_the_data(net: bptt.BPTT, start: int) -> None:
    train = net.minimize(loss_of(net), bptt.Adam())
    with pytest.raises(bptt.UsageError, match="start"):
        net.fit(train, DATA, start=start)


def test_two_training_operations_in_one_run(net: bptt.BPTT) -> None:
    trains = [net.minimize(loss_of(net), bptt.Adam()) for _ in range(2)]
    with pytest.raises(bptt.UsageError, match="training operation"):
        net.run(trains, net.generate_feed_dict("deep", WINDOW, 2))


def test_only_window_values_are_minimised(net: bptt.BPTT) -> None:
    out = net.graphs["deep"][-1]
    feed = net.generate_feed_dict("deep", WINDOW, 2)
    uses: list[Callable[[], Any]] = [
        lambda: net.minimize(out, bptt.Adam()),
        lambda: net.gradients(out, feed),
        lambda: net.evaluate(out, DATA),
        lambda: net.minimize(bptt.reduce_mean(out, axis=(0, 1)), bptt.Adam()),
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError, match="window value"):
            use()


def test_saved_state_of_another_number(net: bptt.BPTT) -> None:
    for arrays in ([], [np.zeros((2, 1)), np.zeros((2, 1))]):
        with pytest.raises(bptt.BpttError, match=str(len(arrays))):
            net.save_output_state("deep", arrays)


def test_saved_state_of_another_shape(net: bptt.BPTT) -> None:
    with pytest.raises(bptt.ShapeError) as caught:
        net.save_output_state("deep", [np.zeros((3, 1))])
    assert_message(caught.value, "(3, 1)", "(2, 1)")


def test_weights_and_state_of_another_shape(net: bptt.BPTT) -> None:
    before = net.parameters["rnn_layer_0/W_aa"]
    for mapping, name, shape in (
        (net.parameters, "rnn_layer_0/W_aa", "(2, 2)"),
        (net.state["deep"], "hidden-0", "(2, 1)"),
    ):
        with pytest.raises(bptt.ShapeError) as caught:
            mapping[name] = np.zeros((3, 3))
        assert_message(caught.value, "(3, 3)", shape)
        with pytest.raises(bptt.ShapeError, match="reshape"):
            mapping[name] = np.zeros(4)
    np.testing.assert_array_equal(net.parameters["rnn_layer_0/W_aa"], before)


def test_unknown_names(net: bptt.BPTT) -> None:
    """A KeyError too, as of any mapping; the message lists the names there are."""
    with pytest.raises(bptt.UsageError, match="rnn_layer_0/W_aa") as caught:
        net.parameters["rnn_layer_0/W_a"]
    assert isinstance(caught.value, KeyError)
    with pytest.raises(bptt.UsageError, match="hidden-0") as caught:
        net.state["deep"]["hidden"] = np.zeros((2, 1))
    assert isinstance(caught.value, KeyError)
    assert "hidden" not in net.state["deep"]
    assert net.parameters.get("no such weight") is None


def test_unknown_depth(net: bptt.BPTT) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: net.state["middle"],
        lambda: net.generate_feed_dict("middle", WINDOW, 2),
        lambda: net.generate_output_definitions("middle"),
        lambda: net.reset_state("middle"),
    ]
    for use in uses:
        with pytest.raises((bptt.UsageError, KeyError), match="middle"):
            use()


def lanes(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((1, 3 if depth == bp.DEEP else 1))
    return x, layers.rnn(bp, x, 2)


def test_copying_the_state_of_another_batch() -> None:
    bp = trace(lanes)
    with pytest.raises(bptt.ShapeError) as caught:
        bp.copy_state_forward()
    assert_message(caught.value, "(2, 3)", "(2, 1)", "lane")
    for lane in (3, -4):
        with pytest.raises(bptt.UsageError, match="lane"):
            bp.copy_state_forward(lane=lane)
    with pytest.raises(bptt.UsageError, match="lane"):
        bp.reset_state("deep", lane=3)


# ---- the order of calls


def test_calls_before_there_is_a_graph() -> None:
    bp = bptt.BPTT(seed=0)
    uses: list[Callable[[], Any]] = [
        lambda: bp.predict([np.zeros(3)]),
        lambda: bp.step(0.0),
        lambda: bp.stepper(),
        lambda: bp.generate_feed_dict("deep", WINDOW, 2),
        lambda: bp.copy_state_forward(),
        lambda: bp.graphs,
        lambda: bp.state["deep"]["hidden-0"],
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError, match="generate_graphs"):
            use()


def test_symbols_are_made_in_a_frame_function(net: bptt.BPTT) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: net.placeholder((1, 1)),
        lambda: net.get_variable("w", (1, 1)),
        lambda: net.get_past_variable("p", np.zeros((1, 1))),
        lambda: net.name_variable("p", net.graphs["deep"][0]),
        lambda: net.random_normal((1, 1)),
        lambda: layers.dense(net, net.graphs["deep"][0], 1),
    ]
    for use in uses:
        with pytest.raises(bptt.UsageError, match="frame"):
            use()


def test_graphs_are_generated_once(net: bptt.BPTT) -> None:
    with pytest.raises(bptt.UsageError, match="graphs are there already"):
        net.generate_graphs(passes, num_loops=3)


@pytest.mark.parametrize("num_loops", [0, -1])
def test_no_loops(num_loops: int) -> None:
    with pytest.raises(bptt.UsageError, match="num_loops"):
        bptt.BPTT(seed=0).generate_graphs(passes, num_loops=num_loops)


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", "no dtype"])
def test_other_dtypes(dtype: str) -> None:
    with pytest.raises(bptt.UsageError, match="float32 or float64"):
        bptt.BPTT(seed=0, dtype=dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"epsilon": 0.0},
    ],
)
def test_optimisers_that_are_none(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(bptt.UsageError, match=name):
        bptt.Adam(**options)


@pytest.mark.parametrize("clip", [bptt.ClipByValue, bptt.ClipByGlobalNorm])
@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
def test_clips_that_are_none(clip: Callable[[float], Any], limit: float) -> None:
    with pytest.raises(bptt.UsageError, match="limit"):
        clip(limit)


# ---- numbers that are not finite


def test_a_loss_that_is_not_finite_stops_the_training(net: bptt.BPTT) -> None:
    """Window and value are named; the update was not made: the weights are those before it."""
    twin = trace(passes)
    x, y = np.linspace(0, 1, 9), np.ones(9)
    twin.fit(twin.minimize(loss_of(twin), bptt.Adam(0.05)), [x, y], steps=2)
    y[7] = 1e30  # in the third window of three frames: its square is too large for float32
    train = net.minimize(loss_of(net), bptt.Adam(0.05))
    with pytest.raises(bptt.NonFiniteError, match="loss of window 2") as caught:
        net.fit(train, [x, y], steps=3)
    assert "'square'" in str(caught.value)
    assert "at frame 1 of the window" in str(caught.value)
    assert re.search(r"largest finite magnitude is [\d.]+", str(caught.value))
    for name in net.parameters:
        np.testing.assert_array_equal(net.parameters[name], twin.parameters[name])
    for name, values in twin.state["deep"].items():
        np.testing.assert_array_equal(net.state["deep"][name], values)
    assert train.steps == 2
    assert net.next_frame == 6
    y[7] = 1.0
    both = [
        bp.fit(bp.minimize(loss_of(bp), bptt.Adam(0.05)), [x, y], start=6, steps=3).loss
        for bp in (net, twin)
    ]
    np.testing.assert_array_equal(*both)


def test_a_gradient_that_is_not_finite_stops_the_training() -> None:
    """The loss is finite, the derivative of the root at 0 is not: the weight is named."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        used = bp.get_variable("used", (1, 1), bptt.initializers.ones)
        rooted = bp.get_variable("rooted", (1, 1), bptt.initializers.zeros)
        return x, used * x + bptt.sqrt(rooted)

    bp = trace(frame)
    train = bp.minimize(bptt.reduce_sum(bp.graphs["deep"][1]), bptt.Adam(0.05))
    with pytest.raises(bptt.NonFiniteError, match="gradient of window 0") as caught:
        bp.fit(train, [np.full(3, 2.0)], steps=1)
    assert "'rooted'" in str(caught.value)
    assert "largest finite magnitude in the gradient is 6" in str(caught.value)
    assert bp.parameters["used"] == 1
    assert bp.parameters["rooted"] == 0
    assert train.steps == 0


def test_a_loss_that_is_not_finite_in_run(net: bptt.BPTT) -> None:
    """`run` with a training operation refuses the update as well."""
    weights = {name: net.parameters[name] for name in net.parameters}
    train = net.minimize(loss_of(net), bptt.Adam(0.05))
    feed = net.generate_feed_dict("deep", [np.zeros(3), np.full(3, 1e30)], 2)
    with pytest.raises(bptt.NonFiniteError, match="square"):
        net.run([train], feed)
    for name, weight in weights.items():
        np.testing.assert_array_equal(net.parameters[name], weight)


def test_starting_values_that_are_not_finite() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        past = bp.get_past_variable("p", np.full((1, 1), np.nan))  # wrong
        return x, bp.name_variable("p", past + x)

    assert_refused(frame, bptt.NonFiniteError, "'p'", "finite")


def test_a_gradient_that_is_too_large_to_be_squared() -> None:
    """Adam squares it: the weights stay, unless clipping makes it small enough."""

    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        return x, bp.get_variable("w", (1, 1), bptt.initializers.ones) * x

    for clip in (None, bptt.ClipByValue(1.0), bptt.ClipByGlobalNorm(1.0)):
        bp = trace(frame)
        train = bp.minimize(bptt.reduce_mean(bp.graphs["deep"][1]), bptt.Adam(0.05), clip=clip)
        data = [np.full(3, 1e25)]
        if clip is None:
            with pytest.raises(bptt.NonFiniteError, match="square that is not finite"):
                bp.fit(train, data, steps=1)
            assert bp.parameters["w"] == 1
        else:
            bp.fit(train, data, steps=1)
            np.testing.assert_allclose(bp.parameters["w"], 0.95, rtol=1e-5)


@pytest.mark.parametrize("rate", [1e39, 1e-50, np.nan, -1.0])
def test_a_learning_rate_that_the_dtype_cannot_hold(net: bptt.BPTT, rate: float) -> None:
    train = net.minimize(loss_of(net), bptt.Adam(0.05))
    with pytest.raises(bptt.UsageError):
        train.learning_rate = rate
    assert train.learning_rate == pytest.approx(0.05)


def test_both_results_of_an_lstm_where_one_is_meant() -> None:
    def frame(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        both = bptt.layers.lstm(bp, x, 3)
        return x, bptt.layers.dense(bp, both, 1)  # wrong

    assert_refused(frame, bptt.UsageError, "one symbol", "tuple", "c and h")
