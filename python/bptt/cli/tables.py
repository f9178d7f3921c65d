"""Tables of numbers in files: rows are frames, columns have names. CSV, NPY and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bptt.errors import UsageError

Table: TypeAlias = npt.NDArray[np.float64]

FORMATS = (".csv", ".npy", ".parquet")
INSTALL = 'pip install "bptt[data]"'


def names(path: Path) -> list[str]:
    """The names of the columns: of CSV its first row, of NPY ``"0"``, ``"1"``, ...

    Raises:
        UsageError: no such format, or a file that is no table.
        OSError: the file cannot be read.
    """
    kind = kind_of(path)
    if kind == ".npy":
        return [str(number) for number in range(_array(path).shape[1])]
    if kind == ".parquet":
        return list(_parquet().ParquetFile(path).schema_arrow.names)
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    return [name.strip() for name in header]


def read(path: Path, columns: Sequence[str]) -> Table:
    """These columns, ``(time, columns)``.

    Raises:
        UsageError: no such format or column, no rows, or an entry that is no number.
        OSError: the file cannot be read.
    """
    there = names(path)
    for name in columns:
        if there.count(name) != 1:
            problem = "no column" if name not in there else "more than one column"
            raise UsageError(f"{path} has {problem} {name!r}; there are {', '.join(there)}")
    places = [there.index(name) for name in columns]
    kind = kind_of(path)
    try:
        if kind == ".npy":
            table = _array(path)[:, places].astype(np.float64)
        elif kind == ".parquet":
            found = _parquet().read_table(path, columns=list(columns))
            parts = [found[name].to_numpy().astype(np.float64) for name in columns]
            table = np.stack(parts, axis=1)
        else:
            table = _csv(path, places)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not len(table):
        raise UsageError(f"{path} has no rows")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise UsageError(
            f"{path} holds {table[row, column]} in row {row} of column {columns[column]!r}, rows "
            "counted from 0"
        )
    return table


def write(path: Path, columns: Sequence[str], table: Table) -> None:
    """Write a table in the format that the name ends in.

    Raises:
        UsageError: no such format.
        OSError: the file cannot be written.
    """
    kind = kind_of(path)
    if kind == ".npy":
        np.save(path, table)
    elif kind == ".parquet":
        import pyarrow

        parts = {name: table[:, place] for place, name in enumerate(columns)}
        _parquet().write_table(pyarrow.table(parts), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(table.tolist())


def kind_of(path: Path) -> str:
    """What the name ends in, when it is a format that is known, and its package is there.

    Raises:
        UsageError: it is not.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise UsageError(f"{path} does not end in {', '.join(FORMATS)}")
    if kind == ".parquet":
        _parquet()
    return kind


def _csv(path: Path, places: Sequence[int]) -> Table:
    with path.open(encoding="utf-8-sig") as file:
        if sum(1 for _, line in zip(range(2), file, strict=False) if line.strip()) < 2:
            return np.zeros((0, len(places)))
        file.seek(0)
        table: Table = np.loadtxt(
            file, delimiter=",", quotechar='"', comments=None, skiprows=1, usecols=places, ndmin=2
        )
    return table


def _array(path: Path) -> npt.NDArray[Any]:
    """A matrix of real numbers; a vector is one column."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is no NPY file: {error}") from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise UsageError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected real numbers of shape "
            "(time, columns)"
        )
    return array


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"Parquet files need pyarrow, an extra: {INSTALL}") from None
    return pyarrow.parquet
