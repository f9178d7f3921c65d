"""A character model of Python's own help topics, and what it writes.

    python examples/help_text.py [--short] [--plot FILE]

The text is what ``help("topics")`` lists (`pydoc_data.topics`, some 465,000 characters; it differs
a little with Python's version). Every tenth topic is held out, without the paragraphs that others
repeat word for word. The net reads a text character by character and says what the next one will
be: an embedding, gated recurrent units (Cho et al. 2014), and the softmax over all characters;
`bptt.Sequential` is all it takes.

Bits per character, of what was held out, stand beside those of guessing, and of the frequencies of
characters and of pairs of characters in the text that was trained on; and beside those of xz, which
has read the same text before, all of it at hand, and looks for whole phrases in it.
"""

from __future__ import annotations

import lzma
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt

import bptt
import bptt.plot
import shared

Symbols: TypeAlias = npt.NDArray[Any]

LANES, WINDOW = 32, 64


def texts() -> tuple[str, str]:
    """What is trained on, and what is held out: paragraphs that are nowhere else."""
    names = sorted(topics)
    held = names[::10]
    trained = [part for name in names if name not in held for part in paragraphs(name)]
    known = {" ".join(part.split()) for part in trained}
    unseen = [part for name in held for part in paragraphs(name)]
    unseen = [part for part in unseen if " ".join(part.split()) not in known]
    return "\n\n".join(trained), "\n\n".join(unseen)


def paragraphs(name: str) -> list[str]:
    return topics[name].split("\n\n")


def frequencies(trained: Symbols, unseen: Symbols, kinds: int) -> dict[str, float]:
    """Bits per character without a net; one is added to each count, so that none is zero."""
    single = np.bincount(trained, minlength=kinds) + 1.0
    pairs = np.ones((kinds, kinds))
    np.add.at(pairs, (trained[:-1], trained[1:]), 1)
    after = pairs[unseen[:-1], unseen[1:]] / pairs.sum(axis=1)[unseen[:-1]]
    return {
        "guessing": float(np.log2(kinds)),
        "frequencies of characters": float(-np.log2(single[unseen] / single.sum()).mean()),
        "frequencies of pairs": float(-np.log2(after).mean()),
    }


def xz(trained: str, unseen: str) -> float:
    """Bits per character that xz needs more for both texts than for the first."""
    first, both = (len(lzma.compress(text.encode())) for text in (trained, trained + unseen))
    return 8 * (both - first) / len(unseen)


def write(net: bptt.Sequential, alphabet: str, begin: str, length: int, temperature: float) -> str:
    """What the net goes on with: each character is drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(0)
    follow = net.stream()
    for character in begin[:-1]:
        follow([alphabet.index(character)])
    said = begin
    for _ in range(length):
        scaled = follow([alphabet.index(said[-1])]) / temperature
        p = np.exp(scaled - scaled.max())
        said += alphabet[rng.choice(len(alphabet), p=p / p.sum())]
    return said


@click.command(help=__doc__)
@click.option("--width", default=128, show_default=True, help="Of the recurrent layer.")
@shared.options
def main(width: int, short: bool, plot: Path | None) -> None:
    epochs = 3 if short else 10
    shared.heading("Python's help topics, character by character")

    trained, unseen = texts()
    alphabet = "".join(sorted(set(trained + unseen)))
    number = {character: k for k, character in enumerate(alphabet)}
    read, held = (np.array([number[c] for c in text]) for text in (trained, unseen))
    if short:
        read, held = read[:80_000], held[:5_000]
    print(f"{len(read)} characters to train on, {len(held)} held out, {len(alphabet)} different")

    net = bptt.Sequential(
        [
            bptt.Embedding(len(alphabet), 32),
            bptt.GRU(width),
            bptt.Dense(len(alphabet)),
        ],
        seed=0,
    )
    windows = -(-(len(read) - 1) // (LANES * WINDOW))
    rate = bptt.schedules.cosine(4e-3, epochs * windows, 1e-4)
    begin = time.perf_counter()
    history = net.fit(
        bptt.data.Lanes([read[:-1], read[1:]]),
        lanes=LANES,
        epochs=epochs,
        window=WINDOW,
        loss="softmax_cross_entropy",
        optimizer=bptt.AdamW(rate, weight_decay=0.1),
        clip=bptt.ClipByGlobalNorm(1.0),
    )
    taken = time.perf_counter() - begin
    print(f"training: {epochs} epochs of {windows} windows in {taken:.1f} s\n")

    x, y = (part[:, None, None] for part in (held[:-1], held[1:]))  # one lane
    table = frequencies(read, held, len(alphabet))
    if not short:
        table["xz"] = xz(trained, unseen)
    table[f"GRU {width}"] = net.evaluate(x, y) / float(np.log(2))
    shared.scores("model", ["bits a character"], {name: [row] for name, row in table.items()})
    print(write(net, alphabet, "The ", 100 if short else 600, 0.7))
    if plot:
        surprises = surprise(net.predict(x)[:, 0], y[:, 0, 0])
        bits = history["loss"] / np.log(2)
        bptt.plot.save(picture(bits, table, [alphabet[k] for k in y[:, 0, 0]], surprises), plot)


def surprise(logits: npt.NDArray[Any], symbols: Symbols) -> npt.NDArray[Any]:
    """The bits of each symbol: -log2 of its softmax."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, symbols[:, None], axis=1)[:, 0]
    return (np.log(np.exp(shifted).sum(axis=1)) - own) / np.log(2)


def picture(
    bits: npt.NDArray[Any], table: dict[str, float], text: list[str], surprises: npt.NDArray[Any]
) -> Any:
    """Bits in each epoch, and how much each character of an unseen text is a surprise."""
    from matplotlib.colors import LinearSegmentedColormap

    figure = shared.figure(12, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    *others, own = table
    left.plot(range(1, len(bits) + 1), bits, color=shared.BLUE, label=f"{own}, in training")
    left.axhline(table[own], color=shared.ORANGE, label=f"{own}, unseen text")
    for name in others:
        left.axhline(table[name], color=shared.GREY, linewidth=0.8)
        left.text(len(bits), table[name] - 0.06, name, ha="right", va="top", fontsize="small")
    shared.tidy(left, "A character's bits", "epoch", "")
    left.set_ylim(0, 7.2)
    left.legend(frameon=False, fontsize="small", loc="lower left")

    rows, columns = 14, 72
    lines = np.cumsum([0, *(len(line) + 1 for line in "".join(text).split("\n"))])
    begin = lines[np.argmax(lines[rows:] - lines[:-rows])]  # where lines are long
    place = np.zeros(2, int)
    colours = LinearSegmentedColormap.from_list("surprise", ["white", shared.ORANGE])
    for character, amount in zip(text[begin:], surprises[begin:], strict=True):
        if character == "\n" or place[1] == columns:
            place[:] = place[0] + 1, 0
        if place[0] == rows:
            break
        if character != "\n":
            box = {"facecolor": colours(min(amount / 8, 1.0)), "edgecolor": "none", "pad": 1.2}
            y, x = place
            right.text(x, -y, character, family="monospace", fontsize=9, ha="center", bbox=box)
            place[1] += 1
    right.set_xlim(-1, columns)
    right.set_ylim(-rows, 1)
    right.axis("off")
    right.set_title("Unseen text; the redder, the more of a surprise", fontsize="medium")
    return figure


if __name__ == "__main__":
    main()
