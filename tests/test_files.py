"""A file is the whole old one or the whole new one, whichever call to the system fails.

As SQLite tests itself: the calls are counted, and then each in turn fails, or is the last one that
the process makes.
"""

import errno
import os
import signal
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import bptt
from bptt import files

CALLS = ("open", "write", "fsync", "close", "replace", "unlink", "listdir", "kill")


class Faulty:
    """The `os` that `bptt.files` sees: its calls are listed, and one or more of them do harm.

    Attributes:
        calls: what was called so far.
    """

    def __init__(self, harm: Callable[[int], None], short: bool = False) -> None:
        self.calls: list[str] = []
        self._harm = harm
        self._short = short

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any) -> Any:
            self.calls.append(name)
            self._harm(len(self.calls) - 1)
            if name == "write" and self._short:  # as little as the system is allowed to take
                args = (args[0], args[1][: max(1, len(args[1]) // 2)])
            return real(*args)

        return call


def nothing(call: int) -> None:
    """No harm."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file with something in it, and beside it what a killed writer left."""
    path = tmp_path / "file"
    path.write_bytes(b"old" * 1000)
    (tmp_path / "file.999999999.0123abcd.partial").write_bytes(b"left over")
    return path


def calls_of_a_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patch:
        faulty = Faulty(nothing, short=True)
        patch.setattr(files, "os", faulty)
        files.replace(str(path), b"x" * 3000)
    return faulty.calls


def test_the_order_of_calls(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers on the disk before the name points to them, and the name on the disk at the end."""
    calls = calls_of_a_write(old, monkeypatch)
    own = calls[calls.index("open") :]
    assert own[0] == "open" and own[1] == "write"
    assert [call for call in own if call != "write"] == (
        ["open", "fsync", "close", "replace", "open", "fsync", "close"]
    )
    assert own.count("write") > 5, "a system may write less than it is given"
    assert old.read_bytes() == b"x" * 3000


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "ENOENT", "EMFILE"])
def test_every_call_fails_in_turn(old: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A full disk, a read-only folder, a broken one: the error says where, and no scrap is left."""
    number = getattr(errno, code)
    count = len(calls_of_a_write(old, monkeypatch))
    refused = 0
    for fatal in range(count):
        old.write_bytes(b"old" * 1000)
        (old.parent / "file.999999999.0123abcd.partial").write_bytes(b"left over")

        def harm(call: int, fatal: int = fatal) -> None:
            if call == fatal:
                raise OSError(number, os.strerror(number), str(old))

        with monkeypatch.context() as patch:
            faulty = Faulty(harm, short=True)
            patch.setattr(files, "os", faulty)
            try:
                files.replace(str(old), b"new" * 1000)
            except OSError as error:
                refused += 1
                assert error.errno == number
                renamed = "replace" in faulty.calls[:fatal]
                assert old.read_bytes() == (b"new" if renamed else b"old") * 1000
            else:
                assert old.read_bytes() == b"new" * 1000
                assert faulty.calls[fatal] in ("listdir", "kill", "unlink"), "only tidying up"
        assert [path.name for path in old.parent.glob("*.partial")] in (
            [],
            ["file.999999999.0123abcd.partial"],  # one that could not be tidied up
        )
    assert refused >= count - 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a copy of this process")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # numpy may have threads
def test_killed_at_every_call(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone before a call; what is left is whole, and the next write tidies up."""
    count = len(calls_of_a_write(old, monkeypatch))
    seen = set()
    for fatal in range(count):
        old.write_bytes(b"old" * 1000)
        (old.parent / "file.999999999.0123abcd.partial").write_bytes(b"left over")

        def harm(call: int, fatal: int = fatal) -> None:
            if call == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if not child:
            try:
                files.os = Faulty(harm, short=True)  # type: ignore[attr-defined]
                files.replace(str(old), b"new" * 1000)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        content = old.read_bytes()
        assert content in (b"old" * 1000, b"new" * 1000)
        seen.add(content[:3])
    assert seen == {b"old", b"new"}
    files.replace(str(old), b"next")
    assert old.read_bytes() == b"next"
    assert [path.name for path in old.parent.iterdir()] == ["file"]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Those of writers that live, of other paths, and of users who like the word."""
    alive = os.getppid()
    kept = {
        f"file.{alive}.0123abcd.partial",
        "file.x.0123abcd.partial",
        "file2.999999999.0123abcd.partial",
        "file.partial",
        "file.999999999.partial",
    }
    for name in [*kept, f"file.{os.getpid()}.0123abcd.partial"]:  # the last: of an earlier process
        (tmp_path / name).touch()
    files.replace(str(tmp_path / "file"), b"")
    assert {path.name for path in tmp_path.iterdir()} == {"file", *kept}


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    """The last one wins; none takes another's partial file for a leftover, and readers see none."""
    path = str(tmp_path / "file")
    contents = [bytes([k]) * 50_000 for k in range(4)]
    files.replace(path, contents[0])

    def write(content: bytes) -> None:
        for _ in range(25):
            files.replace(path, content)
            assert files.read(path) in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    files.replace(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"


def test_a_file_in_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.replace("file", b"new")
    assert files.read("file") == b"new"
    assert stat.S_IMODE(os.stat("file").st_mode) & 0o111 == 0


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """Reading a pipe would wait for ever, reading a device never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            files.read(str(path))
    with pytest.raises(OSError, match="no regular file"):
        files.replace(str(tmp_path / "pipe"), b"")


# Through bp.save and bp.fit


def frame(bp: bptt.BPTT, depth: str) -> Any:
    x = bp.placeholder((1, 1))
    return x, bptt.layers.rnn(bp, x, 2)


def net() -> bptt.BPTT:
    bp = bptt.BPTT(seed=1)
    bp.generate_graphs(frame, num_loops=2)
    return bp


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "EACCES"])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace"])
def test_save_names_the_path_and_the_old_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, call: str
) -> None:
    path = tmp_path / "net.ckpt"
    bp = net()
    bp.save(path)
    before = path.read_bytes()
    bp.step(1.0)

    def harm(number: int) -> None:
        if faulty.calls[number] == call:
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    faulty = Faulty(harm)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", faulty)
        with pytest.raises(bptt.CheckpointError) as caught:
            bp.save(path)
    assert str(path) in str(caught.value)
    assert os.strerror(getattr(errno, code)) in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    bp.save(path)
    assert path.read_bytes() != before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write there")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(bptt.CheckpointError, match="cannot write"):
            net().save(tmp_path / "net.ckpt")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("path", [None, 3, "", "folder/", b"\0", ["net"]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(bptt.UsageError, match="path"):
        net().save(path)
    with pytest.raises(bptt.UsageError, match="path"):
        bptt.load(path, frame)
