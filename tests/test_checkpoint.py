"""A checkpoint holds all that it takes to go on bit for bit, and a damaged one is refused."""

import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import mean_square
from rounding import assert_identical

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from checkpoints import Parts, put_together, take_apart

ADAM = bptt.Adam(0.02, beta1=0.9, beta2=0.99, epsilon=1e-3)
OTHER = bptt.Adam(0.01, epsilon_hat=False)
CLIP = bptt.ClipByGlobalNorm(0.5)


def frame(bp: bptt.BPTT, depth: str) -> Any:
    """Noise, two kinds of cells, a delay line; two lanes deep, one shallow."""
    batch = 2 if depth == bp.DEEP else 1
    x = bp.placeholder((1, batch))
    y = bp.placeholder((1, batch))
    late = bp.get_past_variable("late", np.full((1, 1), 0.5))
    bp.name_variable("late", x)
    seen = bptt.concat([x + bp.random_normal(x.shape, stddev=0.1), late])
    _, h = bptt.layers.lstm(bp, seen, 3, peephole="full")
    h = bptt.layers.rnn(bp, h, 2, initial_state=bptt.initializers.random_normal(0.0, 0.5))
    return x, y, bptt.layers.dense(bp, h, 1, name="")


def data() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.normal(size=(23, 1, 2)), rng.normal(size=(23, 1, 2))]


def operations(bp: bptt.BPTT) -> list[Any]:
    """Two training operations: on all frames' error, and on its absolute value."""
    _, y, out = bp.graphs["deep"]
    return [
        bp.minimize(mean_square(bp.graphs["deep"]), ADAM, clip=CLIP),
        bp.minimize(bptt.reduce_mean(bptt.abs(out - y)), OTHER),
    ]


def start(dtype: str) -> tuple[bptt.BPTT, list[Any]]:
    bp = bptt.BPTT(seed=9, dtype=dtype)
    bp.generate_graphs(frame, num_loops=4)
    return bp, operations(bp)


def train(bp: bptt.BPTT, trains: list[Any]) -> list[np.ndarray]:
    """Some windows with either operation, and a stream: all the counters there are move."""
    losses = [
        bp.fit(trains[0], data(), steps=5, start=bp.next_frame).loss,
        bp.fit(trains[1], data(), steps=3, start=bp.next_frame).loss,
    ]
    bp.copy_state_forward(lane=1)
    return [*losses, bp.predict([np.linspace(0, 1, 5)])]


def assert_same_net(got: bptt.BPTT, expected: bptt.BPTT) -> None:
    assert sorted(got.parameters) == sorted(expected.parameters)
    for name in expected.parameters:
        assert_identical(got.parameters[name], expected.parameters[name])
    for depth in ("deep", "shallow"):
        assert sorted(got.state[depth]) == sorted(expected.state[depth])
        for name in expected.state[depth]:
            assert_identical(got.state[depth][name], expected.state[depth][name])
    assert got.next_frame == expected.next_frame


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_net_goes_on_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    """Losses, weights, both states, both noises and both optimisers; saving changes nothing."""
    saved, trains = start(dtype)
    straight, straight_trains = start(dtype)
    train(saved, trains)
    train(straight, straight_trains)
    trains[1].learning_rate = straight_trains[1].learning_rate = 0.003
    saved.save(tmp_path / "net.safetensors")

    loaded = bptt.load(tmp_path / "net.safetensors", frame)
    assert_same_net(loaded, saved)
    loaded_trains = operations(loaded)
    assert [each.steps for each in loaded_trains] == [5, 3]
    assert loaded_trains[1].learning_rate == pytest.approx(0.003)

    expected = train(straight, straight_trains)
    for bp, each in ((saved, trains), (loaded, loaded_trains)):
        for got, want in zip(train(bp, each), expected, strict=True):
            assert_identical(got, want)
        assert_same_net(bp, straight)


def test_path_may_be_a_string(tmp_path: Path) -> None:
    bp, _ = start("float32")
    bp.save(str(tmp_path / "net"))
    assert_same_net(bptt.load(str(tmp_path / "net"), frame), bp)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_net_that_was_never_trained(tmp_path: Path) -> None:
    """No moments to keep; the depth comes along."""
    bp = bptt.BPTT(seed=2)
    bp.generate_graphs(frame, num_loops=3)
    bp.save(tmp_path / "net")
    loaded = bptt.load(tmp_path / "net", frame)
    assert_same_net(loaded, bp)
    outputs = [
        each.run(each.graphs["deep"][-1], each.generate_feed_dict("deep", [np.ones((3, 1, 2))], 1))
        for each in (bp, loaded)
    ]
    assert_identical(*outputs)


def test_the_reset_state_is_that_of_the_saved_net(tmp_path: Path) -> None:
    bp, trains = start("float32")
    train(bp, trains)
    bp.save(tmp_path / "net")
    loaded = bptt.load(tmp_path / "net", frame)
    for each in (bp, loaded):
        each.reset_state("deep")
    assert_same_net(loaded, bp)


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    """Weights under their own names, readable without this package."""
    safetensors = pytest.importorskip("safetensors.numpy")
    bp, _ = start("float32")
    bp.save(tmp_path / "net")
    tensors = safetensors.load_file(tmp_path / "net")
    for name in bp.parameters:
        assert_identical(tensors[f"weights/{name}"], bp.parameters[name])
    assert_identical(tensors["state/deep/late"], bp.state["deep"]["late"])


# ---- checkpoints while training


def tail_of(path: Path, total: int) -> tuple[np.ndarray, bptt.BPTT]:
    """Go on from a checkpoint up to so many windows."""
    bp = bptt.load(path, frame)
    first = operations(bp)[0]
    left = total - first.steps
    return bp.fit(first, data(), steps=left, start=bp.next_frame).loss, bp


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [1, 3, 6, 7, 8])
def test_fit_writes_at_a_windows_edge(tmp_path: Path, dtype: str, steps: int) -> None:
    """Every 3 windows and at the end; what is read goes on as the run does that wrote it."""
    straight, straight_trains = start(dtype)
    expected = straight.fit(straight_trains[0], data(), steps=12, start=2).loss

    bp, trains = start(dtype)
    seen = []

    def look(step: int, loss: float) -> bool:
        if (tmp_path / "net").exists():
            seen.append((step, operations(bptt.load(tmp_path / "net", frame))[0].steps))
        return False

    history = bp.fit(
        trains[0],
        data(),
        steps=steps,
        start=2,
        callback=look,
        every=1,
        checkpoint=tmp_path / "net",
        checkpoint_every=3,
    )
    assert_identical(history.loss, expected[:steps])
    # A callback comes before the write at its window's end.
    assert seen == [(step, (step - 1) // 3 * 3) for step in range(4, steps + 1)]
    assert_same_net(bptt.load(tmp_path / "net", frame), bp)
    loss, bp = tail_of(tmp_path / "net", 12)
    assert_identical(loss, expected[steps:])
    assert_same_net(bp, straight)


def test_without_a_period_only_the_end_is_written(tmp_path: Path) -> None:
    bp, trains = start("float32")
    seen = []

    def look(step: int, loss: float) -> bool:
        seen.append((tmp_path / "net").exists())
        return step == 4

    history = bp.fit(
        trains[0], data(), steps=9, checkpoint=tmp_path / "net", callback=look, every=2
    )
    assert history.stopped and seen == [False, False]
    assert operations(bptt.load(tmp_path / "net", frame))[0].steps == 4


def test_a_callback_can_save_and_set_the_rate(tmp_path: Path) -> None:
    """In a callback all is as between two windows, and what it sets is in the checkpoint."""
    bp, trains = start("float32")

    def keep(step: int, loss: float) -> bool:
        assert bp.next_frame == 2 * 4
        bp.save(tmp_path / "own")
        trains[0].learning_rate = 0.125
        return True

    bp.fit(trains[0], data(), steps=9, checkpoint=tmp_path / "net", callback=keep, every=2)
    assert bptt.load(tmp_path / "own", frame).next_frame == 8
    assert operations(bptt.load(tmp_path / "own", frame))[0].learning_rate == ADAM.learning_rate
    assert operations(bptt.load(tmp_path / "net", frame))[0].learning_rate == 0.125


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    with_files, trains = start("float32")
    without, other = start("float32")
    got = with_files.fit(
        trains[0], data(), steps=9, checkpoint=tmp_path / "net", checkpoint_every=1
    )
    assert_identical(got.loss, without.fit(other[0], data(), steps=9).loss)
    assert_same_net(with_files, without)


def test_fit_refuses_a_useless_place_before_the_first_window(tmp_path: Path) -> None:
    bp, trains = start("float32")
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (tmp_path / "nowhere" / "net", 1, bptt.CheckpointError, "nowhere"),
        (tmp_path, 1, bptt.CheckpointError, "regular"),
        (3, 1, bptt.UsageError, "path"),
        (None, 1, bptt.UsageError, "checkpoint_every"),
        (tmp_path / "net", 0, bptt.UsageError, "checkpoint_every"),
        (tmp_path / "net", 1.5, bptt.UsageError, "checkpoint_every"),
    ]
    for path, period, error, word in wrong:
        with pytest.raises(error, match=word):
            bp.fit(trains[0], data(), steps=2, checkpoint=path, checkpoint_every=period)
    assert trains[0].steps == 0
    assert bp.next_frame == 0


def test_fit_goes_on_after_a_checkpoint_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The net is as between two windows; the file is the one before."""
    straight, straight_trains = start("float32")
    expected = straight.fit(straight_trains[0], data(), steps=9).loss
    bp, trains = start("float32")
    full = iter([False, True])

    def fsync(handle: int, real: Any = os.fsync) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(full, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "net"
    with pytest.raises(bptt.CheckpointError, match="No space left"):
        bp.fit(trains[0], data(), steps=9, checkpoint=path, checkpoint_every=2)
    assert trains[0].steps == 4
    loss, loaded = tail_of(path, 9)
    assert_identical(loss, expected[2:])
    assert_same_net(loaded, straight)
    rest = bp.fit(trains[0], data(), steps=5, start=bp.next_frame)
    assert_identical(rest.loss, expected[4:])


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    """Such a file could not be loaded, and would take the place of one that can."""

    def growing(bp: bptt.BPTT, depth: str) -> Any:
        x = bp.placeholder((1, 1))
        return x, bp.name_variable("h", 1e30 * bp.get_past_variable("h", np.ones((1, 1))) + x)

    bp = bptt.BPTT()
    bp.generate_graphs(growing, num_loops=2)
    bp.save(tmp_path / "net")
    before = (tmp_path / "net").read_bytes()
    for _ in range(3):
        bp.step(0.0)
    with pytest.raises(bptt.CheckpointError, match=r"state/shallow/h.*inf.*not finite"):
        bp.save(tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == before


def test_the_structure_is_of_operations_not_of_values(tmp_path: Path) -> None:
    """Strength of noise, constants, starting values and losses made later may differ."""

    def scaled(value: float) -> Any:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((1, 1))
            noisy = value * x + bp.random_normal((1, 1), stddev=abs(value))
            h = bp.get_past_variable("h", np.full((2, 1), value))
            weight = bp.get_variable("W", (2, 1), bptt.initializers.random_normal(0.0, abs(value)))
            return x, bp.name_variable("h", bptt.tanh(weight * noisy + h))

        return frame

    bp = bptt.BPTT()
    out = bp.generate_graphs(scaled(0.5), num_loops=2)["deep"][-1]
    bptt.reduce_mean(bptt.square(out))
    bp.save(tmp_path / "net")
    loaded = bptt.load(tmp_path / "net", scaled(-0.25))
    assert_same_net(loaded, bp)
    assert_identical(loaded.starting_constants["h"], np.full((2, 1), 0.5, np.float32))
    loaded.reset_state("shallow")
    assert_identical(loaded.state["shallow"]["h"], bp.state["shallow"]["h"])


def test_a_place_that_is_a_folder(tmp_path: Path) -> None:
    bp, _ = start("float32")
    with pytest.raises(bptt.CheckpointError, match="regular"):
        bp.save(tmp_path)
    with pytest.raises(bptt.CheckpointError, match="regular"):
        bptt.load(tmp_path, frame)


# ---- writing fails


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    """The disk is full, or looks so: the old checkpoint still loads, and no scraps stay behind."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "net"
    bp, trains = start("float32")
    bp.save(path)
    before = path.read_bytes()
    train(bp, trains)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(bptt.CheckpointError):
            bp.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    bptt.load(path, frame)
    bp.save(path)
    assert_same_net(bptt.load(path, frame), bp)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    bp, _ = start("float32")
    with pytest.raises(bptt.CheckpointError, match="nowhere"):
        bp.save(tmp_path / "nowhere" / "net")


# ---- reading fails


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(bptt.CheckpointError, match="missing"):
        bptt.load(tmp_path / "missing", frame)
    assert issubclass(bptt.CheckpointError, OSError)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    bp, trains = start("float32")
    train(bp, trains)
    bp.save(tmp_path / "net")
    return tmp_path / "net"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(saved: Path, kept: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(bptt.CheckpointError):
        bptt.load(saved, frame)


def test_longer_than_it_was(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(bptt.CheckpointError):
        bptt.load(saved, frame)


def test_every_flipped_bit_is_noticed(saved: Path, rng: np.random.Generator) -> None:
    """In the lengths, the header and the numbers alike."""
    content = saved.read_bytes()
    places = [0, 1, 7, 8, 9, len(content) - 1, *rng.integers(0, len(content), 60).tolist()]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(bytes(damaged))
        with pytest.raises(bptt.CheckpointError):
            bptt.load(saved, frame)
    saved.write_bytes(content)
    bptt.load(saved, frame)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"no checkpoint at all", b"\xff" * 64])
def test_another_file(saved: Path, content: bytes) -> None:
    saved.write_bytes(content)
    with pytest.raises(bptt.CheckpointError):
        bptt.load(saved, frame)


def test_safetensors_of_something_else(saved: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"W": np.zeros((3, 3), np.float32)}, saved)
    with pytest.raises(bptt.CheckpointError):
        bptt.load(saved, frame)


def wider(bp: bptt.BPTT, depth: str) -> Any:
    x, y = bp.placeholder((1, 2)), bp.placeholder((1, 2))
    _, h = bptt.layers.lstm(bp, x, 4)
    return x, y, bptt.layers.dense(bp, h, 1, name="")


def other_operation(bp: bptt.BPTT, depth: str) -> Any:
    """The same weights and state, another computation."""
    x, y, out = frame(bp, depth)
    return x, y, bptt.tanh(out)


@pytest.mark.parametrize("foreign", [wider, other_operation])
def test_another_frame(saved: Path, foreign: Any) -> None:
    with pytest.raises(bptt.CheckpointError, match="frame"):
        bptt.load(saved, foreign)


def test_another_rate(saved: Path) -> None:
    """The rate of the file goes on, unless the optimiser is now made with another."""
    bp = bptt.load(saved, frame)
    train = bp.minimize(mean_square(bp.graphs["deep"]), bptt.Adam(0.5, beta1=0.9, beta2=0.99))
    assert train.learning_rate == pytest.approx(0.5)
    assert train.steps == 5


# ---- files that say something else, with a checksum that fits


def with_field(**fields: Any) -> Callable[[Any, Parts], None]:
    return lambda about, parts: about.update(fields)


def without_a_weight(about: Any, parts: Parts) -> None:
    del parts["weights/b"]


def with_another_weight(about: Any, parts: Parts) -> None:
    parts["weights/B"] = parts["weights/b"]


def with_a_wider_weight(about: Any, parts: Parts) -> None:
    parts["weights/b"] = ("F32", [1, 2], bytes(8))


def in_half_precision(about: Any, parts: Parts) -> None:
    parts["weights/b"] = ("F16", [1, 1], bytes(2))


def in_integers(about: Any, parts: Parts) -> None:
    parts["weights/b"] = ("I32", [1, 1], bytes(4))


def with_nan(about: Any, parts: Parts) -> None:
    parts["weights/W"] = ("F32", [1, 2], np.array([1.0, np.nan], np.float32).tobytes())


def with_infinite_moment(about: Any, parts: Parts) -> None:
    parts["training/1/v/b"] = ("F32", [1, 1], np.array([np.inf], np.float32).tobytes())


def without_a_moment(about: Any, parts: Parts) -> None:
    about["trainings"][1]["moments"].remove("v")


def without_a_field(about: Any, parts: Parts) -> None:
    del about["next_frame"]


def with_rate(rate: Any) -> Callable[[Any, Parts], None]:
    return lambda about, parts: about["trainings"][0].update(learning_rate=rate)


@pytest.mark.parametrize(
    "change, words",
    [
        (with_field(format=2), r"format 2, of a newer bptt; this version reads format 1"),
        (with_field(format=0), "format 0"),
        (with_field(dtype="float64"), "holds F32; expected F64"),
        (with_field(dtype="float16"), "dtype 'float16'"),
        (with_field(seed=-1), "seed -1"),
        (with_field(seed=2**64), "seed"),
        (with_field(seed=True), "seed True"),
        (with_field(num_loops=0), "num_loops 0"),
        (with_field(num_loops=2**62), "windows of 4611686018427387904 frames"),
        (with_field(next_frame=-1), "next_frame -1"),
        (with_field(frames={"deep": 0}), "frames"),
        (with_field(frames={"deep": 0, "shallow": 2**64}), "shallow frame counter"),
        (with_field(trainings={}), "no list of training operations"),
        (with_field(trainings=[]), "'training/0/m/W'.* too many"),
        (with_field(surprise=1), "surprise"),
        (with_rate(0.0), "learning rate 0.0"),
        (with_rate(10**400), "learning rate"),
        (with_rate(1e-60), "learning rate 1e-60"),  # 0 in float32
        (with_rate(1e60), "learning rate 1e.60"),
        (without_a_field, "next_frame"),
        (without_a_weight, "'weights/b'.* is missing"),
        (with_another_weight, "'weights/B' too many"),
        (with_a_wider_weight, r"'weights/b' has shape \(1, 2\); expected \(1, 1\)"),
        (in_half_precision, "'weights/b' holds F16; expected F32"),
        (in_integers, "'weights/b' holds I32; expected F32"),
        (with_nan, r"'weights/W' holds nan at \(0, 1\)"),
        (with_infinite_moment, "'training/1/v/b' holds inf"),
        (without_a_moment, "'training/1/v/W'.* too many"),
    ],
)
def test_the_error_says_what_is_wrong(saved: Path, change: Any, words: str) -> None:
    about, parts = take_apart(saved.read_bytes())
    change(about, parts)
    saved.write_bytes(put_together(json.dumps(about), parts))
    with pytest.raises(bptt.CheckpointError, match=words) as caught:
        bptt.load(saved, frame)
    assert str(saved) in str(caught.value)


def test_another_frames_file_says_what_differs(saved: Path) -> None:
    with pytest.raises(bptt.CheckpointError, match=r"start/deep/cell-0.*\(3, 1\).*\(4, 1\)"):
        bptt.load(saved, wider)
    with pytest.raises(bptt.CheckpointError, match="operations of the deep and shallow graph"):
        bptt.load(saved, other_operation)


@pytest.mark.parametrize("kind", ["another", "too many"])
def test_moments_of_another_optimiser(saved: Path, kind: str) -> None:
    """Known only when `minimize` says what the optimiser is; it is then left as it was made."""
    about, parts = take_apart(saved.read_bytes())
    if kind == "another":
        about["trainings"][0]["optimizer"]["kind"] = "Sgd"
    else:
        about["trainings"][0]["moments"].append("w")
        for name in [name for name in parts if name.startswith("training/0/m/")]:
            parts[name.replace("/m/", "/w/")] = parts[name]
    saved.write_bytes(put_together(json.dumps(about), parts))
    bp = bptt.load(saved, frame)
    with pytest.raises(bptt.CheckpointError, match="Sgd" if kind == "another" else "moments"):
        operations(bp)


def test_headers_that_claim_too_much(saved: Path) -> None:
    """Refused by their length alone, before there is memory for it."""
    content = saved.read_bytes()
    for length in (2**63, 2**64 - 1, 10**9, len(content)):
        saved.write_bytes(length.to_bytes(8, "little") + content[8:])
        with pytest.raises(bptt.CheckpointError, match="cut short, or no safetensors file"):
            bptt.load(saved, frame)
    saved.write_bytes((100_000_001).to_bytes(8, "little") + bytes(100_000_001))
    with pytest.raises(bptt.CheckpointError, match="header has 100000001 bytes"):
        bptt.load(saved, frame)


def test_keys_that_are_there_twice(saved: Path) -> None:
    about, parts = take_apart(saved.read_bytes())
    text = json.dumps(about)
    twice = [
        put_together(text[:-1] + ', "seed": 1}', parts),
        put_together(text, parts, lambda header: header[:-1] + ', "weights/b": 1}'),
        put_together(text, parts, lambda header: header.replace("{", '{"__metadata__": {}, ', 1)),
    ]
    for content in twice:
        saved.write_bytes(content)
        with pytest.raises(bptt.CheckpointError, match="a key twice"):
            bptt.load(saved, frame)


CELLS: dict[str, Callable[[bptt.BPTT, bptt.Symbol], bptt.Symbol]] = {
    "rnn": lambda bp, x: bptt.layers.rnn(bp, x, 3, output=True),
    "rnn, relu": lambda bp, x: bptt.layers.rnn(bp, x, 3, activation="relu"),
    "gru, reset after": lambda bp, x: bptt.layers.gru(bp, x, 3),
    "gru, reset before": lambda bp, x: bptt.layers.gru(bp, x, 3, reset="before"),
    "lstm": lambda bp, x: bptt.layers.lstm(bp, x, 3)[1],
    "lstm, diagonal": lambda bp, x: bptt.layers.lstm(bp, x, 3, peephole="diagonal")[1],
    "lstm, full": lambda bp, x: bptt.layers.lstm(bp, x, 3, peephole="full")[1],
    "lstm, coupled": lambda bp, x: bptt.layers.lstm(bp, x, 3, coupled=True)[1],
    "lstm, projected": lambda bp, x: bptt.layers.lstm(bp, x, 3, projection=2)[1],
    "lstm, normalised": lambda bp, x: bptt.layers.lstm(bp, x, 3, layer_norm=True)[1],
    "gru, dropped": lambda bp, x: bptt.layers.gru(bp, x, 5, dropout=0.3, recurrent_dropout=0.3),
    "lstm, zoned": lambda bp, x: bptt.layers.lstm(
        bp, x, 3, zoneout=(0.4, 0.2), initial_state="learned"
    )[1],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_goes_on_bit_for_bit(tmp_path: Path, cell: str, dtype: str) -> None:
    """Saved after 7 windows, in another net: the losses, weights and states of 16 in one go."""
    wave = np.sin(0.3 * np.arange(51))
    data = [wave[:-1], wave[1:]]

    def of_cell(bp: bptt.BPTT, depth: str) -> tuple[bptt.Symbol, ...]:
        x, y = bp.placeholder((1, 1)), bp.placeholder((1, 1))
        noisy = x + bp.random_normal((1, 1), stddev=0.1)
        return x, y, bptt.layers.dense(bp, CELLS[cell](bp, noisy), 1)

    def trained(bp: bptt.BPTT, windows: int) -> list[np.ndarray]:
        _, y, out = bp.graphs["deep"]
        train = bp.minimize(bptt.reduce_mean(bptt.square(out - y)), bptt.Adam(0.01))
        return [bp.fit(train, data, steps=windows, start=bp.next_frame).loss]

    def net() -> bptt.BPTT:
        bp = bptt.BPTT(seed=1, dtype=dtype)
        bp.generate_graphs(of_cell, num_loops=4)
        return bp

    whole, first = net(), net()
    expected = trained(whole, 16)
    begun = trained(first, 7)
    first.save(tmp_path / "net")
    second = bptt.load(tmp_path / "net", of_cell)
    found = [*begun, *trained(second, 9)]
    np.testing.assert_array_equal(np.concatenate(found), expected[0], strict=True)
    for name in whole.parameters:
        np.testing.assert_array_equal(second.parameters[name], whole.parameters[name], strict=True)
    for name, value in whole.state["deep"].items():
        np.testing.assert_array_equal(second.state["deep"][name], value, strict=True)
