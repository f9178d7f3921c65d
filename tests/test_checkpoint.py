"""A checkpoint holds all that it takes to go on bit for bit, and a damaged one is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from frames import mean_square
from rounding import assert_identical

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
    bp = bptt.BPTT(seed=2)
    bp.generate_graphs(frame, num_loops=3)
    bp.save(tmp_path / "net")
    loaded = bptt.load(tmp_path / "net", frame)
    assert_same_net(loaded, bp)
    feed = bp.generate_feed_dict("deep", [np.zeros((3, 1, 2))], 1)
    with pytest.raises(bptt.ShapeError):
        bp.generate_feed_dict("deep", [np.zeros((4, 1, 2))], 1)  # the depth came along
    with pytest.raises(bptt.ShapeError):
        loaded.generate_feed_dict("deep", [np.zeros((4, 1, 2))], 1)
    (got,) = loaded.run(
        [loaded.graphs["deep"][-1]], loaded.generate_feed_dict("deep", [np.zeros((3, 1, 2))], 1)
    )
    assert_identical(got, bp.run([bp.graphs["deep"][-1]], feed)[0])


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
        (key,) = [
            key
            for key in tensors
            if key.endswith(name)
            and tensors[key].shape == bp.parameters[name].shape
            and "moment" not in key
            and (key == name or key.removesuffix(name) in ("weight/", "weights/", "parameters/"))
        ]
        assert_identical(tensors[key], bp.parameters[name])


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
