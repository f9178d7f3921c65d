"""How many processors this process may use: fewer, often, than the machine has."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath


def processors(root: Path = Path("/")) -> int:
    """So many threads can run at the same time.

    The processors that the process is bound to (its affinity), and of these no more than the time
    that its control groups grant, which is how containers are limited: a quota of 250 ms in every
    100 ms is 2 whole processors. Python's own limit, `PYTHON_CPU_COUNT` from 3.13 on, counts too.

    Args:
        root: of the file system, where Linux describes its control groups.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    if hasattr(os, "process_cpu_count"):
        count = min(count, os.process_cpu_count() or count)
    return max(1, min([count, *_quotas(root)]))


def _quotas(root: Path) -> list[int]:
    """What the control groups grant: the process's own, and those that hold it."""
    granted = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":  # version 2, man 7 cgroups
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controllers
        else:
            continue
        # a container sees its own group as the root of the hierarchy, whatever the path says
        for group in {path, *map(str, PurePosixPath(path).parents), "/"}:
            granted.append(_quota(mount / group.lstrip("/")))
    return [whole for whole in granted if whole is not None]


def _quota(group: Path) -> int | None:
    """Whole processors that a group grants, None without a limit."""
    words = _read(group / "cpu.max").split()
    if not words:
        words = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if not all(word.isdigit() for word in words):  # "max", -1, or no such file
        return None
    quota, period = map(int, words)
    return max(1, quota // period) if period else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
