"""Which core is loaded, what the machine can run, and how many processors there are to use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bptt
from bptt import _core, _processor, isa
from bptt.processors import processors

LEVELS = ["v2", "v3", "v4"]


def build_info(**environment: str) -> "subprocess.CompletedProcess[str]":
    """A process of its own that prints the set it runs."""
    command = [sys.executable, "-c", "import bptt; print(bptt.build_info()['isa'])"]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_build_info() -> None:
    info = bptt.build_info()
    assert info["version"] == bptt.__version__
    assert info["isa"] in info["isa_available"]
    assert info["isa"] == (os.environ.get("BPTT_ISA") or info["isa_available"][-1])
    assert info["compiler"].split()[0] in ("GCC", "Clang", "MSVC")
    assert info["eigen"].startswith("3.") or info["eigen"].startswith("5.")
    assert 1 <= info["processors"] <= (os.cpu_count() or 1)


def test_the_core_goes_by_its_own_name() -> None:
    """Whatever the file is called: so stubs, reprs and imports are the same for each set."""
    assert sys.modules["bptt._core"] is _core
    assert _core.Graph.__module__ == _core.__name__ == "bptt._core"
    assert Path(_core.__file__).name.startswith(f"_core_{bptt.build_info()['isa']}.")


def test_levels_are_those_that_the_system_sees() -> None:
    """The C library's loader asks the processor too, to choose among directories of libraries."""
    loader = shutil.which("ld-linux-x86-64.so.2", path="/lib64:/lib/x86_64-linux-gnu")
    if loader is None:
        pytest.skip("no loader of glibc for x86-64")
    said = subprocess.run([loader, "--help"], capture_output=True, text=True, check=False).stdout
    if "x86-64-v2" not in said:
        pytest.skip("this loader says nothing of levels")
    expected = [level for level in LEVELS if f"x86-64-{level} (supported" in said]
    assert _processor.levels() == expected


@pytest.mark.parametrize("name", isa.available())
def test_each_set_can_be_asked_for(name: str) -> None:
    done = build_info(BPTT_ISA=name)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr


def test_a_set_that_is_not_there() -> None:
    done = build_info(BPTT_ISA="v5")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    usable = ", ".join(isa.available())
    assert f"BPTT_ISA is one of {usable} here, got 'v5'" in last
    assert "this machine has" in last and "this build of bptt has" in last


def test_an_empty_variable_asks_for_nothing() -> None:
    assert build_info(BPTT_ISA="").stdout.strip() == list(isa.available())[-1]


@pytest.mark.parametrize("wanted", [None, ""])
def test_the_best_is_chosen(wanted: str | None) -> None:
    assert isa.choose(wanted, LEVELS, LEVELS) == "v4"
    assert isa.choose(wanted, ["v2"], LEVELS) == "v2"


def test_what_is_wanted_is_chosen_or_refused() -> None:
    assert isa.choose("v3", LEVELS, LEVELS) == "v3"
    with pytest.raises(bptt.UsageError, match=r"one of v2, v3 here, got 'v4'.*has v2, v3, v4"):
        isa.choose("v4", ["v2", "v3"], LEVELS)
    with pytest.raises(bptt.UsageError, match="one of native here, got 'v4'"):
        isa.choose("v4", ["native"], ["native"])


def test_a_machine_that_is_too_old() -> None:
    with pytest.raises(ImportError, match=r"no core of bptt can run here.*has v3, v4"):
        isa.choose(None, [], ["v3", "v4"])
    with pytest.raises(ImportError, match="has no core"):
        isa.choose(None, [], [])


# ---- processors


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        # version 2
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/not/here\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        # version 1
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/job\n0::/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/job\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_a_container_s_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for name in ("sched_getaffinity", "process_cpu_count"):
        monkeypatch.delattr(os, name, raising=False)
    assert processors(write(tmp_path, files)) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a system without affinity")
def test_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors() == 1
        assert bptt.BPTT(threads=8).threads == bptt.BPTT().threads == 1
    finally:
        os.sched_setaffinity(0, before)
