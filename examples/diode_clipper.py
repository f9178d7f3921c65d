"""A black-box model of an audio circuit, the clipping stage of a distortion pedal, to play through.

    python examples/diode_clipper.py [--short] [--plot FILE]

The circuit is a resistor, and behind it a capacitor beside two antiparallel diodes (Yeh, Abel &
Smith, *Simplified, physically-informed models of distortion and overdrive guitar effects pedals*,
DAFx 2007), driven by plucked strings (Karplus & Strong 1983) and solved by SciPy. The model is that
of Wright, Damskägg & Välimäki (*Real-time black-box modelling with recurrent neural networks*, DAFx
2019): an LSTM of width 20, a dense layer, and the input added to its output. It knows nothing of
the circuit but a recording of what went in and what came out, cut into lanes that are trained side
by side; as a lane begins in the middle of the sound, the frames before it run first, without
gradient.

The error-to-signal ratio is the energy of the error over that of the target, of sound that was not
trained on, streamed sample by sample.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter, welch

import bptt.plot
import shared

Samples: TypeAlias = npt.NDArray[Any]

RATE = 44_100  # samples a second
PEAK = 4.0  # volts into the circuit, after a stage of gain
WIDTH, WINDOW, BURN_IN = 20, 64, 1024
BLOCK = 64  # samples that a sound card asks for at a time


# --- the sound and the circuit -------------------------------------------------------------------


def guitar(rng: np.random.Generator, seconds: float) -> Samples:
    """Chords and single notes on six strings, loud and soft; volts, ``(samples,)``."""
    strings = 82.41 * 2 ** (np.array([0, 5, 10, 15, 19, 24]) / 12)  # Hz, E2 to E4
    sound = np.zeros(int((seconds + 2) * RATE))
    now = 0.05
    while now < seconds:
        count = rng.integers(3, 6) if rng.random() < 0.4 else 1
        loudness = rng.uniform(0.2, 1.0)
        for order, string in enumerate(np.sort(rng.choice(6, count, replace=False))):
            pitch = strings[string] * 2 ** (rng.integers(0, 13) / 12)
            note = loudness * pluck(rng, pitch, rng.uniform(0.3, 1.5))
            begin = int((now + 0.012 * order) * RATE)
            sound[begin : begin + len(note)] += note
        now += rng.choice([0.125, 0.25, 0.375, 0.5])
    sound = lfilter([0.3], [1.0, -0.7], sound[: int(seconds * RATE)])  # a mellow pickup
    return PEAK * sound / np.abs(sound).max()


def pluck(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    """A burst of noise that goes around a delay line, averaged over two samples each time."""
    period = round(RATE / hertz - 0.5)
    burst = np.zeros(int(seconds * RATE))
    burst[:period] = rng.uniform(-1, 1, period)
    loop = np.zeros(period + 2)
    loop[0], loop[-2:] = 1.0, -0.4985
    return lfilter([1.0], loop, burst)


def clipper(sound: Samples) -> Samples:
    """What comes out of the circuit when `sound` goes in; volts, ``(samples,)``.

    With the input u, interpolated by a cubic spline, the voltage v over the diodes obeys::

        dv/dt = (u - v) / (R C) - 2 I_s/C sinh(v / V_t)

    which is stiff. The sound is cut into 400 pieces that are solved side by side, as one system
    with a diagonal Jacobian; each begins 2 ms early, 90 times R C: where it began is forgotten.
    """
    R, C, I_s, V_t = 2.2e3, 10e-9, 2.52e-9, 45.3e-3  # ohm, farad, ampere, volt
    pieces, lead = 400, RATE // 500
    length = -(-len(sound) // pieces)
    padded = np.pad(sound, (lead, pieces * length - len(sound) + 1))
    spline = CubicSpline(np.arange(len(padded)), padded).c  # (4, samples), the cube's first
    begins = length * np.arange(pieces)

    def change(t: float, v: Samples) -> Samples:  # t in samples, and so the result
        past = min(int(t), lead + length - 1)
        a, b, c, d = spline[:, begins + past]
        t -= past
        u = ((a * t + b) * t + c) * t + d
        return ((u - v) / (R * C) - 2 * I_s / C * np.sinh(v / V_t)) / RATE

    def slope(t: float, v: Samples) -> Samples:
        return (-1 / (R * C) - 2 * I_s / C / V_t * np.cosh(v / V_t))[None] / RATE

    solved = solve_ivp(
        change,
        (0, lead + length),
        np.zeros(pieces),
        method="LSODA",
        t_eval=lead + np.arange(length),
        jac=slope,
        lband=0,  # of the Jacobian: all pieces are by themselves
        uband=0,
        rtol=1e-3,
        atol=1e-5,
    )
    return solved.y.ravel()[: len(sound)]


# --- what a recording can be explained by, without a recurrent net -------------------------------


def linear(x: Samples, y: Samples, unseen: Samples, taps: int = 32) -> Samples:
    """The best linear filter of so many samples."""

    def past(sound: Samples) -> Samples:
        return np.lib.stride_tricks.sliding_window_view(np.pad(sound, (taps - 1, 0)), taps)

    weights = np.linalg.lstsq(past(x), y, rcond=None)[0]
    return past(unseen) @ weights


def memoryless(x: Samples, y: Samples, unseen: Samples, bins: int = 200) -> Samples:
    """The best curve: the mean output at each of so many equally frequent inputs, interpolated."""
    order = np.argsort(x)
    inputs, outputs = ([part.mean() for part in np.array_split(a[order], bins)] for a in (x, y))
    return np.interp(unseen, inputs, outputs)


def esr(target: Samples, output: Samples) -> float:
    """The error-to-signal ratio."""
    return float(np.sum((target - output) ** 2) / np.sum(target**2))


# --- the model -----------------------------------------------------------------------------------


class Model:
    """The net, for training in so many lanes and for streaming in one."""

    def __init__(self, lanes: int) -> None:
        def frame(bp: bptt.BPTT, depth: str) -> tuple[bptt.Symbol, ...]:
            shape = (1, lanes if depth == bp.DEEP else 1)
            x, y = bp.placeholder(shape), bp.placeholder(shape)
            _, h = bptt.layers.lstm(bp, x, WIDTH)
            return x, y, x + bptt.layers.dense(bp, h, 1)

        self.bp = bptt.BPTT(seed=0)
        self.bp.generate_graphs(frame, num_loops=WINDOW)

    def train(self, x: Samples, y: Samples, windows: int) -> None:
        """Lower the squared error over the target's mean energy, in so many windows."""
        bp = self.bp
        _, target, out = bp.graphs[bp.DEEP]
        loss = bptt.losses.mse(out, target) / float(np.mean(y**2))
        rate = bptt.schedules.cosine(4e-3, windows, 1e-5)
        train = bp.minimize(loss, bptt.Adam(rate), clip=bptt.ClipByGlobalNorm(1.0))
        bp.fit(train, bptt.data.Lanes([x, y], burn_in=BURN_IN), steps=windows)

    def stream(self, x: Samples) -> Samples:
        """What comes out, from silence on, one sample at a time from Python."""
        stepper = self.bp.stepper(own_state=True)
        into, out = stepper.inputs[0][0], stepper.output[0]
        result = np.empty(len(x))
        for t, sample in enumerate(x.tolist()):
            into[0] = sample
            stepper()
            result[t] = out[0]
        return result

    def blocks(self, x: Samples) -> Samples:
        """The same in blocks, as a sound card asks for them."""
        self.bp.reset_state(self.bp.SHALLOW)
        cut = np.split(x, range(BLOCK, len(x), BLOCK))
        return np.concatenate([self.bp.predict([block])[:, 0, 0] for block in cut])


@dataclass(frozen=True)
class Setting:
    """How much."""

    seconds: float  # of sound to train on
    unseen: float  # and to be tried on
    lanes: int
    windows: int


@click.command(help=__doc__)
@shared.options
def main(short: bool, plot: Path | None) -> None:
    setting = Setting(2, 1, 16, 1000) if short else Setting(32, 8, 32, 20_000)
    shared.heading("a diode clipper, black box")

    begin = time.perf_counter()
    whole = guitar(np.random.default_rng(1), setting.seconds + setting.unseen)
    result = clipper(whole)
    print(f"the circuit: {len(whole) / RATE:.0f} s of sound in {seconds_since(begin)}")
    split = int(setting.seconds * RATE)
    scale = np.abs(result[:split]).max()
    x, unseen = np.split(whole / PEAK, [split])
    y, target = np.split(result / scale, [split])

    begin = time.perf_counter()
    model = Model(setting.lanes)
    model.train(x, y, setting.windows)
    print(f"training: {setting.windows} windows in {seconds_since(begin)}")

    for way, stream in (("a sample", model.stream), (f"{BLOCK} samples", model.blocks)):
        begin = time.perf_counter()
        output = stream(unseen)
        factor = len(unseen) / RATE / (time.perf_counter() - begin)
        print(f"stream, {way} a call: {factor:.1f} times real time")

    print()
    outputs = {
        "silence": np.zeros_like(target),
        "linear filter, 32 taps": linear(x, y, unseen),
        "curve without memory": memoryless(x, y, unseen),
        "LSTM 20": output,
    }
    ratios = {name: [100 * esr(target, sound)] for name, sound in outputs.items()}
    shared.scores("model", ["error to signal, %"], ratios)
    if plot:
        bptt.plot.save(picture(unseen * PEAK, target * scale, output * scale), plot)


def seconds_since(begin: float) -> str:
    return f"{time.perf_counter() - begin:.1f} s"


def picture(x: Samples, target: Samples, output: Samples) -> Any:
    """Some milliseconds, the plane of input and output, and the spectra; all in volts."""
    figure = shared.figure(12, 3.8)
    left, middle, right = figure.subplots(1, 3)

    begin = int(np.argmax(np.abs(x[: -RATE // 10]))) + RATE // 25  # the noise of plucking is over
    part = slice(begin, begin + RATE // 80)  # 12.5 ms
    ms = 1e3 * np.arange(part.stop - part.start) / RATE
    left.plot(ms, x[part] / PEAK, color=shared.GREY, label=f"input / {PEAK:g}")
    left.plot(ms, target[part], color=shared.BLUE, linewidth=3, alpha=0.5, label="circuit")
    left.plot(ms, output[part], color=shared.ORANGE, linewidth=1, label="LSTM 20")
    shared.tidy(left, "Unseen sound, 40 ms after its loudest pluck", "ms", "V")
    left.legend(frameon=False, fontsize="small", ncols=3, loc="upper center")
    left.set_ylim(-1.05, 1.3)

    middle.plot(x[part], target[part], color=shared.BLUE, linewidth=3, alpha=0.5)
    middle.plot(x[part], output[part], color=shared.ORANGE, linewidth=1)
    shared.tidy(middle, "It has memory: not a curve but loops", "V in", "V out")

    for sound, colour, name in (
        (target, shared.BLUE, "circuit"),
        (target - output, shared.ORANGE, "error of the model"),
    ):
        hertz, power = welch(sound, RATE, nperseg=2048)
        right.semilogx(hertz[1:], 10 * np.log10(power[1:]), color=colour, label=name)
    shared.tidy(right, "Spectra", "Hz", "dB, V²/Hz")
    right.set_xlim(40, RATE / 2)
    right.legend(frameon=False, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
