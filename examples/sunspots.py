"""Sunspots, one to eleven years ahead, beside what is easily said of them.

    python examples/sunspots.py [--short] [--plot FILE]

The yearly numbers from 1700 to 2008 come with statsmodels. After each year a net of 16 gated
recurrent units says what the next eleven will be; those up to 1929 are trained on, the others are
forecast one after the other, the net having read all years before. As 230 years are few, each pass
trains on 32 lanes of the same years, their heights stretched or shrunk by some factor, and with
noise on what is read: cycles have the same shape in centuries of high and of low activity. The
forecast is the mean of eight such nets. Settings were chosen on the years 1880 to 1929, with nets
that had seen the years before.

The naive forecast is this year's number, the seasonal one that of eleven years before the year in
question; the linear one is a least-squares regression on the last eleven years for each of the next
eleven.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt
from statsmodels.datasets import sunspots

import bptt
import bptt.plot
import shared

Numbers: TypeAlias = npt.NDArray[Any]

AHEAD = 11  # years, about one cycle
FIRST = 1930  # of the years that are forecast
LANES, WINDOW, NOISE = 32, 44, 0.3


def following(series: Numbers) -> Numbers:
    """For each year but the last eleven the eleven after it, ``(years, 11)``."""
    return np.lib.stride_tricks.sliding_window_view(series[1:], AHEAD)


def net(seed: int, x: Numbers, y: Numbers, epochs: int) -> bptt.Sequential:
    """One net, trained on x ``(years,)`` and y ``(years, 11)``."""
    made = bptt.Sequential([bptt.GRU(16), bptt.Dense(AHEAD)], seed=seed)
    updates = epochs * -(-len(x) // WINDOW)
    optimizer = bptt.AdamW(bptt.schedules.cosine(0.01, updates, 2e-4), weight_decay=0.01)
    rng = np.random.default_rng(seed)
    height = rng.uniform(0.6, 1.6, LANES)[:, None]
    for _ in range(epochs):  # with other noise each time; the moments stay
        lanes = x[:, None, None] * height + NOISE * rng.standard_normal((len(x), LANES, 1))
        made.fit(
            lanes,
            y[:, None] * height,
            epochs=1,
            window=WINDOW,
            optimizer=optimizer,
            clip=bptt.ClipByGlobalNorm(1.0),
            progress=False,
        )
    return made


def linear(x: Numbers, y: Numbers, count: int) -> Numbers:
    """The regression on the last eleven years, fitted to the first `count` rows: all forecasts."""
    past = np.lib.stride_tricks.sliding_window_view(np.pad(x, (AHEAD - 1, 0)), AHEAD)
    past = np.concatenate([past, np.ones((len(x), 1))], axis=1)
    known = slice(AHEAD - 1, count)
    return past @ np.linalg.lstsq(past[known], y[known], rcond=None)[0]


@click.command(help=__doc__)
@shared.options
def main(short: bool, plot: Path | None) -> None:
    nets, epochs = (3, 50) if short else (8, 100)
    shared.heading("sunspots")

    table = sunspots.load_pandas().data
    years, numbers = (table[name].to_numpy(float) for name in ("YEAR", "SUNACTIVITY"))
    split = int(np.searchsorted(years, FIRST))
    scale = 2 * np.sqrt(numbers[:split]).std()
    series = np.sqrt(numbers) / scale  # counts vary as their root does: so all years vary alike
    x, y = series[:-AHEAD], following(series)
    count = split - AHEAD  # after so many years, what follows is known before FIRST

    def spots(forecast: Numbers) -> Numbers:
        return (np.maximum(forecast, 0) * scale) ** 2

    begin = time.perf_counter()
    forecasts = [
        spots(net(seed, x[:count], y[:count], epochs).predict(x[:, None, None])[:, 0])
        for seed in range(nets)
    ]
    print(f"training: {nets} nets in {time.perf_counter() - begin:.1f} s\n")

    asked = slice(split - 1, None)  # rows are the years after which a forecast is made
    expected = following(numbers)[asked]
    season = np.pad(numbers, (AHEAD, 0))[: len(numbers)]  # eleven years earlier
    by_name = {
        "naive": np.repeat(numbers[:-AHEAD, None], AHEAD, axis=1),
        "seasonal naive": following(season),
        "linear": spots(linear(x, y, count)),
        "GRU 16": np.mean(forecasts, axis=0),
    }
    errors = {
        name: np.sqrt(np.square(forecast[asked] - expected).mean(axis=0))
        for name, forecast in by_name.items()
    }
    columns = {"1 to 11 years ahead": slice(None), "1 year": slice(1), "5 years": slice(4, 5)}
    rows = {
        name: [float(np.sqrt(np.square(error[part]).mean())) for part in columns.values()]
        for name, error in errors.items()
    }
    print(f"root mean squared error, {years[split]:.0f} to {years[-1]:.0f}\n")
    shared.scores("forecast", list(columns), rows)
    if plot:
        bptt.plot.save(picture(years, numbers, by_name["GRU 16"], errors), plot)


def picture(years: Numbers, numbers: Numbers, forecast: Numbers, errors: dict[str, Numbers]) -> Any:
    """All forecasts that begin in some years, and the error against how far they go."""
    figure = shared.figure(12, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))

    left.plot(years, numbers, color=shared.GREY, linewidth=2)
    for row in range(int(np.searchsorted(years, FIRST)) - 1, len(forecast), 6):
        path = np.concatenate([numbers[row : row + 1], forecast[row]])
        left.plot(years[row : row + AHEAD + 1], path, color=shared.ORANGE, linewidth=1.2)
        left.plot(years[row], numbers[row], "o", color=shared.ORANGE, markersize=4)
    left.set_xlim(1880, years[-1] + 1)
    left.axvline(FIRST - 0.5, color="black", linewidth=0.8, linestyle=":")
    left.text(FIRST - 1.5, 185, "trained on", ha="right")
    shared.tidy(left, "Sunspots, and forecasts of the next eleven years", "", "number")

    colours = [shared.GREY, shared.BLUE, shared.GREEN, shared.ORANGE]
    for (name, error), colour in zip(errors.items(), colours, strict=True):
        right.plot(range(1, AHEAD + 1), error, "o-", color=colour, markersize=3, label=name)
    shared.tidy(right, f"Root mean squared error, {FIRST} to {years[-1]:.0f}", "years ahead", "")
    right.set_ylim(0)
    right.legend(frameon=False, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
