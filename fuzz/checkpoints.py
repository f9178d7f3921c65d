"""Hostile checkpoints: mutate a good file, load it, and see that it is refused or sound.

Damage comes in two kinds. *Blind* mutations change bytes as a disk or a transfer would; the
checksum must find every one. *Signed* mutations change what the file says (a field, a tensor, the
header) and compute the checksum anew, as somebody who means harm would; what then loads must be a
net in working order, and what does not must be refused with a `CheckpointError` that names the
file. Anything else, another exception above all, is a finding: the file is kept and named.

    python fuzz/checkpoints.py --seconds 600

The tests run the same code for a few thousand files.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

import bptt
from bptt import checkpoint

# A file taken apart: the metadata, and kind, shape and bytes of each tensor.
Parts = dict[str, tuple[str, list[int], bytes]]

KINDS = ("BOOL", "U8", "I8", "F8_E4M3", "I16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64")
NESTED = "[" * 100_000 + "]" * 100_000
ODD: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 7, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400),
    *(0.5, 1.0, -0.0, -1.5, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
    *("", "x", "deep", "float16", "float64", "Adam", "m/n", "\0", "\ud800", "é" * 1000),
    *([], [[]], ["m"], ["m", "m"], {}, {"deep": 1}, {"deep": "x", "shallow": "x"}, [{}]),
]


def frame(bp: bptt.BPTT, depth: str) -> Any:
    """Noise, two kinds of cells, a delay line; two lanes deep, one shallow."""
    batch = 2 if depth == bp.DEEP else 1
    x, y = bp.placeholder((1, batch)), bp.placeholder((1, batch))
    late = bp.get_past_variable("late", np.full((1, 1), 0.5))
    bp.name_variable("late", x)
    seen = bptt.concat([x + bp.random_normal(x.shape, stddev=0.1), late])
    _, h = bptt.layers.lstm(bp, seen, 2, peephole="diagonal")
    h = bptt.layers.rnn(bp, h, 2)
    return x, y, bptt.layers.dense(bp, h, 1)


def minimize(bp: bptt.BPTT) -> list[Any]:
    """Two training operations on the net of `frame`."""
    _, y, out = bp.graphs[bp.DEEP]
    loss = bptt.reduce_mean(bptt.square(out - y))
    return [
        bp.minimize(loss, bptt.Adam(0.02), clip=bptt.ClipByValue(1.0)),
        bp.minimize(loss, bptt.Adam(0.01, epsilon_hat=False)),
    ]


def data() -> list[Any]:
    """Enough for some windows."""
    t = np.arange(20.0).reshape(-1, 1, 1) * np.array([0.3, 0.4])
    return [np.sin(t), np.cos(t)]


def trained(dtype: str = "float32") -> bptt.BPTT:
    """A net in which every number that a checkpoint holds has left its initial value."""
    bp = bptt.BPTT(seed=3, dtype=dtype)
    bp.generate_graphs(frame, num_loops=3)
    for train in minimize(bp):
        bp.fit(train, data(), steps=4, start=bp.next_frame)
    bp.copy_state_forward(lane=0)
    bp.step(0.5)
    return bp


# Blind mutations: bytes in, bytes out


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits anywhere."""
    changed = bytearray(content)
    for place in rng.integers(len(changed), size=rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_in_header(content: bytes, rng: np.random.Generator) -> bytes:
    """One bit of the length and the header, where most of the meaning is."""
    changed = bytearray(content)
    end = 8 + int.from_bytes(content[:8], "little")
    changed[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """Any length up to the whole."""
    return content[: int(rng.integers(len(content)))]


def extend(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes more."""
    return content + rng.bytes(int(rng.integers(1, 100)))


def cut_out(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece is missing in the middle."""
    first, last = sorted(rng.integers(len(content), size=2).tolist())
    return content[:first] + content[last + 1 :]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece is there twice."""
    first, last = sorted(rng.integers(len(content), size=2).tolist())
    return content[: last + 1] + content[first:]


def blank(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece is zeros, as a file system may leave it that lost a page."""
    first, last = sorted(rng.integers(len(content), size=2).tolist())
    return content[:first] + bytes(last + 1 - first) + content[last + 1 :]


def scramble(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece is noise."""
    first, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    return content[:first] + rng.bytes(length) + content[first + length :]


def header_length(content: bytes, rng: np.random.Generator) -> bytes:
    """The header claims another length, sizes near every power of two among them."""
    odd = 2 ** int(rng.integers(1, 65)) + int(rng.integers(-2, 3))
    near = int.from_bytes(content[:8], "little") + int(rng.integers(-9, 10))
    return max(0, odd if rng.random() < 0.5 else near).to_bytes(9, "little")[:8] + content[8:]


BLIND: list[Callable[[bytes, np.random.Generator], bytes]] = [
    *(flip_bits, flip_in_header, truncate, extend, cut_out, repeat, blank, scramble),
    header_length,
]

# Signed mutations: they change a file taken apart, or its header as text


def take_apart(content: bytes) -> tuple[dict[str, Any], Parts]:
    """The metadata and the tensors of a good file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    about = json.loads(header.pop("__metadata__")["bptt"])
    parts = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        parts[name] = (entry["dtype"], entry["shape"], content[end + first : end + last])
    return about, parts


def put_together(
    text: str, parts: Parts, edit: Callable[[str], str] = str, length: int | None = None
) -> bytes:
    """A file with a checksum that fits, whatever it says.

    Args:
        text: the metadata's JSON.
        parts: the tensors.
        edit: a last change of the header as text.
        length: the header's length as claimed, if it is not the true one.
    """
    try:
        signature = checkpoint.checksum(text, parts)
    except UnicodeEncodeError:
        signature = ""
    header: dict[str, Any] = {"__metadata__": {"bptt": text, "checksum": signature}}
    first, numbers = 0, b""
    for name, (kind, shape, data) in parts.items():
        header[name] = {
            "dtype": kind,
            "shape": shape,
            "data_offsets": [first, first + len(data)],
        }
        first += len(data)
        numbers += data
    plain = edit(json.dumps(header)).encode(errors="surrogatepass")
    return (len(plain) if length is None else length).to_bytes(8, "little") + plain + numbers


def _fields(about: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested objects and lists."""
    items = (
        about.items()
        if isinstance(about, dict)
        else enumerate(about)
        if isinstance(about, list)
        else []
    )
    return [pair for key, value in items for pair in [(about, key), *_fields(value)]]


def _odd(rng: np.random.Generator) -> Any:
    return copy.deepcopy(ODD[int(rng.integers(len(ODD)))])


def field(about: Any, parts: Parts, rng: np.random.Generator) -> bytes:
    """A field of the metadata has another value, is missing, or is one too many."""
    places = _fields(about)
    for _ in range(int(rng.integers(1, 3))):
        container, key = places[int(rng.integers(len(places)))]
        what = rng.integers(8)
        if what == 0 and isinstance(container, dict):
            container.pop(key, None)
        elif what == 1 and isinstance(container, dict):
            container["extra"] = _odd(rng)
        elif isinstance(container, dict) or key < len(container):
            container[key] = _odd(rng)
    return put_together(json.dumps(about), parts)


def tensor(about: Any, parts: Parts, rng: np.random.Generator) -> bytes:
    """A tensor is missing, one too many, renamed, of another kind or shape, or another's."""
    names = list(parts)
    name, other = (names[int(k)] for k in rng.integers(len(names), size=2))
    kind, shape, data = parts[name]
    what = rng.integers(8)
    if what == 0:
        del parts[name]
    elif what == 1:
        parts[name + "x"] = parts[name]
    elif what == 2:
        parts[other + "/" + str(_odd(rng))] = parts.pop(name)
    elif what == 3:
        parts[name], parts[other] = parts[other], parts[name]
    elif what == 4:  # also where the bytes no longer fit the shape
        parts[name] = (KINDS[int(rng.integers(len(KINDS)))], shape, data)
    elif what == 5:
        shapes = [shape[::-1], [*shape, 1], [len(data) // 4], [2**62, 4, 0], [2**32, 2**32], [0]]
        parts[name] = (kind, shapes[int(rng.integers(len(shapes)))], data)
    elif what == 6:
        parts[name] = (kind, [0, 3], b"")
    else:
        bits = {"F32": np.float32, "F64": np.float64}[kind]
        numbers = np.frombuffer(data, bits).copy()
        extreme = [np.nan, np.inf, -np.inf, np.finfo(bits).max, np.finfo(bits).tiny / 2, -1.0]
        numbers[int(rng.integers(len(numbers)))] = extreme[int(rng.integers(len(extreme)))]
        parts[name] = (kind, shape, numbers.tobytes())
    return put_together(json.dumps(about), parts)


def wording(about: Any, parts: Parts, rng: np.random.Generator) -> bytes:
    """The header's JSON itself: keys twice, offsets that overlap, nesting, numbers, spaces."""
    text = json.dumps(about)
    name = list(parts)[int(rng.integers(len(parts)))]
    number = int(rng.integers(2**20))
    changes: list[Callable[[], bytes]] = [
        lambda: put_together(text[:-1] + ', "seed": 1}', parts),
        lambda: put_together(NESTED, parts),
        lambda: put_together(text + " " * number, parts),
        lambda: put_together(text.replace("0", "NaN"), parts),
        lambda: put_together(text.replace('"', "'"), parts),
        lambda: put_together(text, parts, lambda header: header + " " * number),
        lambda: put_together(text, parts, lambda header: header[:-1] + ', "a": ' + NESTED + "}"),
        lambda: put_together(text, parts, lambda header: header[:-1] + ', "a": 1}'),
        lambda: put_together(
            text, parts, lambda header: header[:-1] + ", " + header[header.rindex('"' + name) :]
        ),
        lambda: put_together(
            text,
            parts,
            lambda header: re.sub(r"\[\d+, (\d+)\]}", f"[{number % 99}, \\1]}}", header, count=2),
        ),
        lambda: put_together(
            text, parts, lambda header: re.sub(r", (\d+)\]}", f", {2**63 + number}]}}", header)
        ),
        lambda: put_together(text, parts, lambda header: header, length=2**27),
        lambda: put_together(
            text, parts, lambda header: re.sub(r'"checksum": "', '"checksum": "0', header)
        ),
        lambda: put_together(
            text, parts, lambda header: re.sub(r'"__metadata__": {', r"\g<0>" '"a": "b", ', header)
        ),
        lambda: put_together(
            text, parts, lambda header: re.sub(r'"__metadata__": {.*?"},', "", header, count=1)
        ),
        lambda: put_together(
            text, parts, lambda header: re.sub(r'"bptt": ".*?[^\\]"', '"bptt": 5', header, count=1)
        ),
    ]
    return changes[int(rng.integers(len(changes)))]()


SIGNED: list[Callable[[Any, Parts, np.random.Generator], bytes]] = [field, field, tensor, wording]

# Judging


class Finding(AssertionError):
    """A file that was neither refused as it should be nor loaded as a sound net."""


def try_file(path: Path, content: bytes, known: str | None) -> str:
    """Write, load and use one file; returns how it was refused, or ``"loaded"``.

    Args:
        path: where to write it.
        content: of the file.
        known: if it loads, the `digest` that the net must have; None allows any net.

    Raises:
        Finding: it was neither refused nor is the net sound.
    """
    path.write_bytes(content)
    try:
        bp = bptt.load(path, frame)
    except bptt.CheckpointError as error:
        if str(path) not in str(error):
            raise Finding(f"the error does not name the file: {error}") from error
        return _category(str(error).replace(str(path), ""))
    except BaseException as error:
        raise Finding(f"{type(error).__name__}: {error}") from error
    if known is not None:
        if digest(bp) != known:
            raise Finding("a damaged file was loaded as another net")
        return "loaded"
    try:
        _use(bp, path)
    except bptt.CheckpointError as error:
        if str(path) not in str(error):
            raise Finding(f"the error does not name the file: {error}") from error
        return "refused by minimize"
    except BaseException as error:
        raise Finding(f"the net is not sound: {type(error).__name__}: {error}") from error
    return "loaded"


def digest(bp: bptt.BPTT) -> str:
    """A hash of all that a checkpoint of this net holds, taken here, not by what is tried."""
    about, tensors = checkpoint.contents(bp._net)
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        total.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def _use(bp: bptt.BPTT, path: Path) -> None:
    """A net that was loaded works: finite weights, a frame, a few windows, a file of its own."""
    assert all(np.isfinite(bp.parameters[name]).all() for name in bp.parameters)
    again = path.with_suffix(".again")
    bp.save(again)
    assert digest(bptt.load(again, frame)) == digest(bp), "saved and loaded, it is another net"
    try:
        bp.step(0.5)
        short = len(bp.graphs[bp.DEEP]) and bp._net.traces[bp.DEEP].frames < 20
        for train in minimize(bp):
            if short:
                bp.fit(train, data(), steps=2)
    except bptt.NonFiniteError:  # numbers so large that they overflow are numbers all the same
        pass


def _category(message: str) -> str:
    """The beginning of an error message, without what differs from file to file."""
    words = re.sub(r"'[^']*'|\d|[(\[{].*| line column.*|[^\w ]", "", message).split()
    return " ".join(words[:6])


def fuzz(
    folder: Path, seed: int, count: int | None = None, seconds: float | None = None
) -> Counter[str]:
    """Try so many files, or as many as there is time for; returns how often each thing happened.

    Raises:
        Finding: with the place of the file, which is kept.
    """
    rng = np.random.default_rng(seed)
    bases = []
    for dtype in ("float32", "float64"):
        bp = trained(dtype)
        path = folder / f"{dtype}.ckpt"
        bp.save(path)
        bases.append((path.read_bytes(), digest(bp)))
    happened: Counter[str] = Counter()
    end = time.monotonic() + seconds if seconds is not None else None
    path = folder / "mutated.ckpt"
    while (count is None or happened.total() < count) and (end is None or time.monotonic() < end):
        base, known = bases[int(rng.integers(len(bases)))]
        if rng.random() < 0.5:
            mutate = BLIND[int(rng.integers(len(BLIND)))]
            content, must = mutate(base, rng), known
        else:
            change = SIGNED[int(rng.integers(len(SIGNED)))]
            content, must = change(*take_apart(base), rng), None
        try:
            happened[try_file(path, content, must)] += 1
        except Finding as finding:
            number = happened.total()
            raise Finding(f"file {number} of seed {seed}, kept at {path}: {finding}") from finding
    return happened


@click.command()
@click.option("--seconds", type=float, default=600.0, show_default=True, help="How long to try.")
@click.option("--count", type=int, default=None, help="How many files at most.")
@click.option("--seed", type=int, default=None, help="Of the mutations; drawn if not given.")
def main(seconds: float, count: int | None, seed: int | None) -> None:
    """Mutate checkpoints and load them; a file that does harm is kept and named."""
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="checkpoints-"))
    click.echo(f"seed {seed}, files in {folder}")
    happened = fuzz(folder, seed, count, seconds)
    for what, times in happened.most_common():
        click.echo(f"{times:9d}  {what}")
    click.echo(f"{happened.total():9d}  files tried, none of which did harm")


if __name__ == "__main__":
    main()
