"""Two tasks that are nothing but memory: the adding problem, and copying after a delay.

    python examples/memory.py [--short] [--plot FILE]

*Adding* (Hochreiter & Schmidhuber, *Long short-term memory*, 1997): T pairs of a random number and
a mark. Two of the marks are 1, one in each half; in the last frame the sum of their two numbers is
asked for. Who always says 1 has a squared error of 1/6.

*Copying* (the same paper; in this form Arjovsky, Shah & Bengio, *Unitary evolution recurrent neural
networks*, 2016): ten symbols out of eight, T - 1 blanks, a sign to begin, and ten frames in which
the symbols are asked for, in order; in all frames before, a blank. Who says blanks, and then any of
the eight, has a cross-entropy of 10 log 8 / (T + 20) for each frame.

Adding is learned by an LSTM, and by relu units whose matrix begins as the identity (Le, Jaitly &
Hinton, *A simple way to initialize recurrent networks of rectified linear units*, 2015: IRNN);
copying by an LSTM. None begins at the largest T: gradients through hundreds of frames say little to
a net that does nothing yet. T grows each time that the loss is small, and the weights go on to a
net of longer windows (a curriculum, as in Zaremba & Sutskever, *Learning to execute*, 2014). Every
window is one sequence in each lane, from the starting state on, and never seen before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt

import bptt
import bptt.plot
import shared

Matrix: TypeAlias = npt.NDArray[Any]

LANES, AT_ONCE = 32, 20  # windows made at a time


# --- the tasks -----------------------------------------------------------------------------------


class Adding:
    """Inputs ``(2, lanes)``; the target counts where `asked` is 1, after the last frame."""

    name, unit = "adding", "squared error"

    def frames(self, T: int) -> int:
        return T

    def guessing(self, T: int) -> float:
        return 1 / 6

    def draw(self, rng: np.random.Generator, T: int, count: int) -> list[Matrix]:
        """So many windows of inputs, targets and where they are asked for."""
        x = np.zeros((count, T, 2, LANES))
        x[:, :, 0] = rng.random((count, T, LANES))
        window, lane = np.indices((count, LANES))
        for low, high in ((0, T // 2), (T // 2, T)):
            x[window, rng.integers(low, high, (count, LANES)), 1, lane] = 1
        y, asked = np.zeros((2, count, T, 1, LANES))
        y[:, -1, 0] = x.prod(axis=2).sum(axis=1)
        asked[:, -1] = 1
        return [x.reshape(-1, 2, LANES), y.reshape(-1, 1, LANES), asked.reshape(-1, 1, LANES)]

    def frame(self, bp: bptt.BPTT, cell: Cell) -> tuple[bptt.Symbol, ...]:
        x, y, asked = (bp.placeholder((rows, LANES)) for rows in (2, 1, 1))
        return x, y, asked, bptt.layers.dense(bp, cell(bp, x), 1)

    def loss(
        self, x: bptt.Symbol, y: bptt.Symbol, asked: bptt.Symbol, out: bptt.Symbol
    ) -> bptt.Symbol:
        return bptt.losses.mse(out, y, reduction="sum", weights=asked) / LANES


class Copying:
    """Symbols ``(1, lanes)``: 0 is the blank, 1 to 8 are to be copied, 9 asks for it."""

    name, unit = "copying", "cross-entropy"
    length = 10

    def frames(self, T: int) -> int:
        return T + 2 * self.length

    def guessing(self, T: int) -> float:
        return self.length * float(np.log(8)) / self.frames(T)

    def draw(self, rng: np.random.Generator, T: int, count: int) -> list[Matrix]:
        """So many windows of inputs and targets."""
        x, y = np.zeros((2, count, self.frames(T), 1, LANES), int)
        symbols = rng.integers(1, 9, (count, self.length, 1, LANES))
        x[:, : self.length] = y[:, -self.length :] = symbols
        x[:, self.length + T - 1] = 9
        return [x.reshape(-1, 1, LANES), y.reshape(-1, 1, LANES)]

    def frame(self, bp: bptt.BPTT, cell: Cell) -> tuple[bptt.Symbol, ...]:
        x, y = bp.placeholder((1, LANES)), bp.placeholder((1, LANES))
        seen = bptt.layers.embedding(bp, x, 10, 10)
        return x, y, bptt.layers.dense(bp, cell(bp, seen), 9)

    def loss(self, x: bptt.Symbol, y: bptt.Symbol, out: bptt.Symbol) -> bptt.Symbol:
        return bptt.losses.softmax_cross_entropy(out, y)


# --- the cells -----------------------------------------------------------------------------------

Cell: TypeAlias = Callable[[bptt.BPTT, bptt.Symbol], bptt.Symbol]
Task: TypeAlias = Adding | Copying


def lstm(bp: bptt.BPTT, x: bptt.Symbol) -> bptt.Symbol:
    """Its forget gates are open at first: the bias is 1."""
    return bptt.layers.lstm(bp, x, 64)[1]


def irnn(bp: bptt.BPTT, x: bptt.Symbol) -> bptt.Symbol:
    """Relu units whose W_aa begins as the identity: what they have they keep."""

    def initial(shape: tuple[int, int], rng: np.random.Generator) -> Matrix:
        rows, columns = shape
        return np.eye(rows) if rows == columns else rng.normal(0, 0.1, shape) * (columns > 1)

    return bptt.layers.rnn(bp, x, 64, activation="relu", initializer=initial)


# --- training ------------------------------------------------------------------------------------


@dataclass
class Run:
    """A cell that learns a task at one T after the other."""

    task: Task
    cell: Cell
    rate: float
    losses: list[Matrix] = field(default_factory=list)  # for each T, a share of that of guessing
    scores: dict[int, float] = field(default_factory=dict)  # of sequences it was not trained on
    bp: bptt.BPTT = field(default_factory=bptt.BPTT)

    def learn(self, T: int, enough: float, most: int, weights: Mapping[str, Matrix]) -> None:
        """Train until the loss is so small a share of guessing's, or for so many updates."""
        task, bp = self.task, bptt.BPTT(seed=0)
        frames = task.frames(T)
        graphs = bp.generate_graphs(lambda bp, depth: task.frame(bp, self.cell), num_loops=frames)
        for name, values in weights.items():
            bp.parameters[name] = values
        loss = task.loss(*graphs[bp.DEEP])
        train = bp.minimize(loss, bptt.Adam(self.rate), clip=bptt.ClipByGlobalNorm(1.0))
        resets = np.zeros((AT_ONCE * frames, LANES), bool)
        resets[::frames] = True
        rng = np.random.default_rng(T)
        shares: list[Matrix] = []
        while train.steps < most and not (shares and shares[-1].mean() < enough):
            data = task.draw(rng, T, AT_ONCE)
            history = bp.fit(train, data, steps=AT_ONCE, resets=resets, progress=False)
            shares.append(history.loss / task.guessing(T))
        self.scores[T] = bp.evaluate(loss, task.draw(rng, T, AT_ONCE), resets=resets)
        self.losses.append(np.concatenate(shares))
        self.bp = bp

    def grow(self, lengths: Sequence[int], enough: float, most: int) -> None:
        """One T after the other."""
        begin = time.perf_counter()
        for T in lengths:
            self.learn(T, enough, most, dict(self.bp.parameters) if self.losses else {})
        updates = ", ".join(
            f"{len(each)} at {T}" for T, each in zip(lengths, self.losses, strict=True)
        )
        cell, taken = self.cell.__name__.upper(), time.perf_counter() - begin
        print(f"{self.task.name}, {cell}: {updates}; {taken:.1f} s", flush=True)

    def answers(self) -> tuple[list[Matrix], Matrix]:
        """One window at the largest T that it has not seen, and what it says in each frame."""
        data = self.task.draw(np.random.default_rng(0), max(self.scores), 1)
        bp = self.bp
        bp.reset_state(bp.DEEP)
        feed = bp.generate_feed_dict(bp.DEEP, data, len(data))
        return data, bp.run(bp.graphs[bp.DEEP][-1], feed)


@click.command(help=__doc__)
@shared.options
def main(short: bool, plot: Path | None) -> None:
    shared.heading("adding and copying")
    runs = {
        Adding: [Run(Adding(), lstm, 5e-3), Run(Adding(), irnn, 3e-4)],
        Copying: [Run(Copying(), lstm, 5e-3)],
    }
    lengths = {Adding: [30, 60], Copying: [3, 6]}
    enough, most = 0.4, 3000
    if not short:
        lengths = {Adding: [50, 100, 200, 400, 600], Copying: [5, 10, 20, 50, 100, 200]}
        enough, most = 0.05, 10_000

    for kind, several in runs.items():
        for run in several:
            run.grow(lengths[kind], enough, most)
        print()
        task, shown = several[0].task, lengths[kind][-4:]
        table = {run.cell.__name__.upper(): [run.scores[T] for T in shown] for run in several}
        table["guessing"] = [task.guessing(T) for T in shown]
        shared.scores(f"{task.name}, {task.unit}", [f"T = {T:<5}" for T in shown], table)

    data, out = runs[Copying][0].answers()
    asked = data[1][-10:]
    right = np.argmax(out[-10:], axis=1, keepdims=True) == asked
    print(f"symbols copied rightly: {100 * right.mean():.1f}% (guessing: 12.5%)")
    if plot:
        bptt.plot.save(picture(runs[Adding], runs[Copying][0]), plot)


def picture(adding: list[Run], copying: Run) -> Any:
    """Losses against updates; sums asked for against sums said; one sequence copied."""
    figure = shared.figure(12, 3.8)
    left, middle, right = figure.subplots(1, 3)
    colours = {"lstm": shared.BLUE, "irnn": shared.ORANGE}
    longest = max(copying.scores), max(adding[0].scores)

    for run, style in [(copying, ":"), *((run, "-") for run in adding)]:
        label = f"{run.task.name}, {run.cell.__name__.upper()}"
        every = [share.reshape(-1, AT_ONCE).mean(axis=1) for share in run.losses]
        ends = AT_ONCE * np.cumsum([len(each) for each in every])
        whole = np.concatenate(every)
        colour = colours[run.cell.__name__]
        updates = AT_ONCE * np.arange(1, len(whole) + 1)
        left.loglog(updates, whole, style, color=colour, linewidth=1, label=label)
        left.plot(ends, [each[-1] for each in every], ".", color=colour)
    left.axhline(1, color="black", linewidth=0.8)
    shared.tidy(left, "A point: it is learned, and T grows", "updates", "loss, of that of guessing")
    left.legend(frameon=False, fontsize="small", loc="lower left")

    for run in adding:
        (_, target, _), out = run.answers()
        name = run.cell.__name__
        middle.plot(target[-1, 0], out[-1, 0], "o", color=colours[name], markersize=4, alpha=0.7)
    middle.plot([0, 2], [0, 2], color="black", linewidth=0.8)
    middle.axhline(1, color="black", linewidth=0.8, linestyle=":")
    shared.tidy(middle, f"Adding, T = {longest[1]}: unseen sequences", "the sum", "what is said")

    (_, target), logits = copying.answers()
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True))[-10:, :, 0]
    right.imshow(p.T, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    right.plot(target[-10:, 0, 0], "o", color=shared.ORANGE, markersize=4, label="the symbol")
    right.set_xticks(range(10), range(1, 11))
    right.set_yticks(range(9), ["blank", *range(1, 9)])
    shared.tidy(right, f"Copying after {longest[0]} frames: probabilities", "place", "symbol")
    right.grid(False)
    return figure


if __name__ == "__main__":
    main()
