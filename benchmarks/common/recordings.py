"""A recording on disk, for the net of `marked`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import bptt

from . import marked


class Files:
    """One long recording in two files, and its lanes side by side in memory."""

    def __init__(self, folder: Path, windows: int) -> None:
        rng = np.random.default_rng(0)
        self.paths, self.arrays = [], []
        for features in (marked.FEATURES, 1):
            recording = rng.normal(size=(marked.BATCH * windows * marked.T, features)).astype(
                np.float32
            )
            self.paths.append(folder / f"{features}.npy")
            np.save(self.paths[-1], recording)
            lanes = recording.reshape(marked.BATCH, -1, features).swapaxes(
                0, 1
            )  # (time, batch, features)
            self.arrays.append(np.ascontiguousarray(lanes).swapaxes(1, 2))

    def forget(self) -> None:
        """Tell the system to keep nothing of the files in memory, where it can be told."""
        for path in self.paths:
            with path.open() as file:
                os.fsync(file.fileno())
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def mapped(self) -> bptt.data.Lanes:
        """As memory maps."""
        return bptt.data.Lanes([np.load(path, mmap_mode="r") for path in self.paths])
