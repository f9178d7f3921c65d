"""A copied net is equal and independent; a pickled one is none: it is saved."""

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import mean_square
from rounding import assert_identical
from whole import everything

DTYPES = ["float32", "float64"]


def frame(bp: bptt.BPTT, depth: str) -> Any:
    """Noise, two kinds of cells, a delay line; two lanes deep, one shallow."""
    batch = 2 if depth == bp.DEEP else 1
    x, y = bp.placeholder((1, batch)), bp.placeholder((1, batch))
    late = bp.get_past_variable("late", np.full((1, 1), 0.5))
    bp.name_variable("late", x)
    seen = bptt.concat([x + bp.random_normal(x.shape, stddev=0.1), late])
    _, h = bptt.layers.lstm(bp, seen, 3, peephole="full")
    h = bptt.layers.rnn(bp, h, 2, initial_state=bptt.initializers.random_normal(0.0, 0.5))
    return x, y, bptt.layers.dense(bp, h, 1)


def data() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.normal(size=(23, 1, 2)), rng.normal(size=(23, 1, 2))]


def minimize(bp: bptt.BPTT) -> list[Any]:
    loss = mean_square(bp.graphs["deep"])
    return [
        bp.minimize(loss, bptt.Adam(0.02, epsilon_hat=False), bptt.ClipByValue(0.1)),
        bp.minimize(loss, bptt.Adam(0.01)),
    ]


def trained(dtype: str = "float32") -> tuple[bptt.BPTT, list[Any]]:
    bp = bptt.BPTT(seed=9, dtype=dtype)
    bp.generate_graphs(frame, num_loops=4)
    trains = minimize(bp)
    go_on(bp, trains)
    trains[1].learning_rate = 0.003
    return bp, trains


def go_on(bp: bptt.BPTT, trains: list[Any]) -> np.ndarray:
    """Everything moves: losses of both operations, and a stream."""
    losses = [bp.fit(train, data(), steps=3, start=bp.next_frame).loss for train in trains]
    bp.copy_state_forward(lane=1)
    return np.concatenate([*losses, bp.predict([np.linspace(0, 1, 5)]).ravel()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_is_equal_and_independent(dtype: str) -> None:
    bp, trains = trained(dtype)
    before = everything(bp)
    other, other_trains = copy.deepcopy((bp, trains))
    assert everything(other) == before
    assert [train.steps for train in other_trains] == [3, 3]
    assert other_trains[1].learning_rate == 0.003
    expected = go_on(other, other_trains)
    assert everything(bp) == before, "training the copy changed the net"
    assert_identical(go_on(bp, trains), expected)
    assert everything(bp) == everything(other)


def test_copied_alone_minimize_takes_the_moments_up() -> None:
    """As after `bptt.load`: the n-th call takes up the n-th operation's."""
    bp, trains = trained()
    other = copy.deepcopy(bp)
    assert everything(other) == everything(bp)
    other_trains = minimize(other)
    assert [train.steps for train in other_trains] == [3, 3]
    assert_identical(go_on(other, other_trains), go_on(bp, trains))
    assert everything(other) == everything(bp)


@pytest.mark.parametrize("first", [0, 1])
def test_an_operation_copied_along_keeps_its_number(first: int) -> None:
    """Of two operations one is copied with the net, before it; `minimize` makes the other."""
    bp, trains = trained()
    train, other = copy.deepcopy((trains[first], bp))
    again = other.minimize(
        mean_square(other.graphs["deep"]),
        trains[1 - first].optimizer,
        trains[1 - first].clip,
    )
    other_trains = [train, again] if first == 0 else [again, train]
    assert everything(other) == everything(bp)
    assert_identical(go_on(other, other_trains), go_on(bp, trains))


def test_what_is_copied_together_belongs_together() -> None:
    """In any order, in any container: symbols, state handles, losses, operations."""
    bp, trains = trained()
    x, y, out = bp.graphs["deep"]
    loss = bptt.reduce_mean(bptt.abs(out - y))
    handles = bp.generate_output_definitions("deep")
    held = {"out": out, "handles": handles, "train": trains[0], "x": x, "loss": loss, "bp": bp}
    copied = copy.deepcopy(held)
    other = copied["bp"]
    assert other.graphs["deep"][-1] is copied["out"]
    assert other.graphs["deep"][0] is copied["x"]
    feed = other.generate_feed_dict("deep", [each[:4] for each in data()], 2)
    assert copied["x"] in feed
    got = other.run([copied["train"], copied["loss"], copied["out"], *copied["handles"]], feed)
    feed = bp.generate_feed_dict("deep", [each[:4] for each in data()], 2)
    for a, b in zip(got, bp.run([trains[0], loss, out, *handles], feed), strict=True):
        assert_identical(a, b) if a is not None else None
    with pytest.raises(bptt.UsageError, match="another BPTT"):
        other.run(out, feed)


def test_graphs_of_copies_grow_apart() -> None:
    """Losses made after the copy: each net has its own, also where their numbers collide."""
    bp, _ = trained()
    other = copy.deepcopy(bp)
    made: dict[str, list[Any]] = {"square": [], "abs": []}
    for each, name in ((bp, "square"), (other, "abs"), (other, "square"), (bp, "abs")):
        _, y, out = each.graphs["deep"]
        made[name].append((each, bptt.reduce_mean(getattr(bptt, name)(out - y))))
    values = {
        name: {each.evaluate(loss, data()) for each, loss in pairs} for name, pairs in made.items()
    }
    assert len(values["square"]) == len(values["abs"]) == 1
    assert values["square"] != values["abs"]
    with pytest.raises(bptt.UsageError, match="another BPTT"):
        _ = made["abs"][0][1] + made["abs"][1][1]


def test_setting_a_copy_leaves_the_net() -> None:
    bp, trains = trained()
    before = everything(bp)
    other, (train, _) = copy.deepcopy((bp, trains))
    for name in other.parameters:
        other.parameters[name] = np.zeros_like(other.parameters[name])
    other.state["deep"]["late"] = 7.0
    other.reset_state("shallow")
    train.learning_rate = 0.5
    with pytest.raises(ValueError, match="read-only"):
        other.starting_constants["late"][...] = 1.0
    assert everything(bp) == before


def test_copies_of_copies_and_of_loaded_nets(tmp_path: Path) -> None:
    bp, trains = trained()
    bp.save(tmp_path / "loaded")
    loaded = copy.deepcopy(bptt.load(tmp_path / "loaded", frame))
    again = copy.deepcopy(copy.deepcopy(bp))
    expected = go_on(bp, trains)
    for other in (loaded, again):
        assert_identical(go_on(other, minimize(other)), expected)


def test_a_net_without_graphs_and_a_subclass() -> None:
    class Mine(bptt.BPTT):
        extra: Any = None

    bp = Mine(seed=3, dtype="float64")
    bp.extra = ["mine"]
    other = copy.deepcopy(bp)
    assert type(other) is Mine and other.extra == ["mine"] and other.extra is not bp.extra
    for each in (bp, other):
        each.generate_graphs(frame)
    for name in bp.parameters:
        assert_identical(other.parameters[name], bp.parameters[name])


def test_no_copy_of_a_net_that_is_being_traced() -> None:
    def copying(bp: bptt.BPTT, depth: str) -> Any:
        copy.deepcopy(bp)

    with pytest.raises(bptt.UsageError, match="while its frame is traced"):
        bptt.BPTT().generate_graphs(copying)


def test_a_net_that_is_dropped_is_gone() -> None:
    """Its memory is free at once; symbols that are left say so."""
    bp, trains = trained()
    out = bp.graphs["deep"][-1]
    gone = weakref.ref(bp._net)
    gc.disable()
    try:
        del bp, trains
        assert gone() is None
    finally:
        gc.enable()
    with pytest.raises(bptt.UsageError, match="is gone"):
        copy.deepcopy(out)


def test_pickle_points_to_save() -> None:
    bp, trains = trained()
    x = bp.graphs["deep"][0]
    held: list[Any] = [bp, trains[0], x, bp.generate_output_definitions("deep")]
    for each in held:
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(bptt.UsageError, match=r"bp\.save\(path\).*bptt\.load"):
                pickle.dumps(each, protocol)
    with pytest.raises(bptt.UsageError, match="deepcopy"):
        copy.copy(bp)


def test_a_stepper_is_not_copied() -> None:
    bp, _ = trained()
    for own in (True, False):
        stepper = bp.stepper(own_state=own)
        with pytest.raises(bptt.UsageError, match=r"bp\.stepper"):
            copy.deepcopy(stepper)
        with pytest.raises(bptt.UsageError, match=r"bp\.stepper"):
            pickle.dumps(stepper)
    bp.step(0.5)  # leaves a stepper in the net
    assert_identical(copy.deepcopy(bp).step(0.5), bp.step(0.5))
