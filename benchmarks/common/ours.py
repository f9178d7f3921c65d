"""bptt: with its fused cells, or with cells written from primitive operations as a user would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import bptt

from .cases import BETA1, BETA2, CLIP, EPSILON, LEARNING_RATE, Case, Given, Matrix, Named

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from frames import LSTM, RNN  # the cells that the tests hold against each other

CELLS = {"rnn": RNN, "lstm": LSTM}


class Ours:
    """A case's net with its training operation and its data."""

    def __init__(
        self,
        case: Case,
        given: Given,
        form: Literal["fused", "primitive"] = "fused",
        dtype: str = "float32",
        threads: int = 1,
    ) -> None:
        self.frames = case.frames
        cell = CELLS[case.cell][form]

        def frame(bp: bptt.BPTT, depth: str) -> Any:
            x = bp.placeholder((case.features, case.batch))
            y = bp.placeholder((case.outputs, case.batch))
            h = x
            for layer in range(case.layers):
                if case.cell == "rnn":
                    h = cell(bp, h, case.width, layer_index=layer)
                else:
                    _, h = cell(bp, h, case.width, peephole=case.peephole, layer_index=layer)
            activation = bptt.sigmoid if case.activation else None
            return x, y, bptt.layers.dense(bp, h, case.outputs, activation=activation, name="")

        self.bp = bp = bptt.BPTT(seed=0, dtype=dtype, threads=threads)
        graph = bp.generate_graphs(frame, num_loops=case.frames)[bp.DEEP]
        self.loss = bptt.reduce_mean(bptt.square(graph[2] - graph[1]))
        adam = bptt.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON, epsilon_hat=False)
        self.operation = bp.minimize(self.loss, adam, clip=bptt.ClipByValue(CLIP))
        for name, weight in given.weights.items():
            bp.parameters[name] = weight
        for name, state in given.state.items():
            bp.state[bp.DEEP][name] = state
        # (time, batch, features), features fastest, is the core's own layout.
        self.data = [each.astype(dtype).swapaxes(1, 2) for each in (given.x, given.y)]

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses, each before its update."""
        start = self.bp.next_frame
        return self.bp.fit(self.operation, self.data, steps=windows, start=start).loss

    def streaming(self) -> bptt.BPTT:
        """The net, its shallow mode in the given state."""
        self.bp.copy_state_forward()
        return self.bp

    def weights(self) -> Named:
        """By name."""
        return dict(self.bp.parameters)

    def gradients(self) -> Named:
        """Of the first window's loss, by weight."""
        window = [each[: self.frames] for each in self.data]
        feed = self.bp.generate_feed_dict(self.bp.DEEP, window, 2)
        return dict(self.bp.gradients(self.loss, feed))
