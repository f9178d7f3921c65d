"""A character model in bptt and in PyTorch: embedding, GRU, two dense layers, cross-entropy.

256 symbols, embedding 32, GRU 64, dense 32 with relu, dense 256; batch 32, T 64, Adam, the state
carried. The first bias of PyTorch's gates r and z is all that they need: the second stays 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bptt

from . import cases
from .cases import Matrix, Named

SYMBOLS, EMBEDDING, WIDTH, DENSE, BATCH, T = 256, 32, 64, 32, 32, 64
WINDOWS = 8  #: of data, gone over again and again
GATES = "rzn"


def text(seed: int = 0) -> tuple[Matrix, Matrix]:
    """Symbols, and those that follow them: each ``(WINDOWS T, 1, batch)``."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, SYMBOLS, (WINDOWS * T + 1, 1, BATCH))
    return symbols[:-1], symbols[1:]


def flops() -> int:
    """Of the matrix products of a training step; looking a symbol up has none."""
    gru = 3 * WIDTH * (EMBEDDING + WIDTH)
    return 6 * (gru + WIDTH * DENSE + DENSE * SYMBOLS) * T * BATCH


class Ours:
    """As a user writes it."""

    def __init__(self, dtype: str = "float32") -> None:
        def frame(bp: bptt.BPTT, depth: str) -> Any:
            symbol, following = bp.placeholder((1, BATCH)), bp.placeholder((1, BATCH))
            x = bptt.layers.embedding(bp, symbol, SYMBOLS, EMBEDDING, name="embedding")
            h = bptt.layers.gru(bp, x, WIDTH)
            dense = bptt.layers.dense(bp, h, DENSE, activation=bptt.relu, name="dense")
            logits = bptt.layers.dense(bp, dense, SYMBOLS, name="logits")
            return symbol, following, logits

        self.bp = bptt.BPTT(seed=0, dtype=dtype, threads=1)
        _, following, logits = self.bp.generate_graphs(frame, num_loops=T)["deep"]
        loss = bptt.losses.softmax_cross_entropy(logits, following)
        adam = bptt.Adam(
            cases.LEARNING_RATE, cases.BETA1, cases.BETA2, cases.EPSILON, epsilon_hat=False
        )
        self.operation = self.bp.minimize(loss, adam)
        self.data = [each.astype(dtype) for each in text()]

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses, each before its update."""
        start = self.bp.next_frame
        run = self.bp.fit(self.operation, self.data, steps=windows, start=start, progress=False)
        return run.loss

    def ready(self) -> None:
        """To be timed."""

    def weights(self) -> Named:
        """By name."""
        return dict(self.bp.parameters)


class PyTorch:
    """The same of its modules, from our weights."""

    def __init__(self, weights: Named) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(1)
        self.torch = torch
        self.net = nn.ModuleDict(
            {
                "embedding": nn.Embedding(SYMBOLS, EMBEDDING),
                "gru": nn.GRU(EMBEDDING, WIDTH),
                "dense": nn.Linear(WIDTH, DENSE),
                "logits": nn.Linear(DENSE, SYMBOLS),
            }
        )
        state = {"embedding.weight": weights["embedding/W"].T}
        gru = {name.split("/")[1]: w for name, w in weights.items() if name.startswith("gru")}
        for side, ours in (("ih", "W_x"), ("hh", "W_h")):
            state[f"gru.weight_{side}_l0"] = np.concatenate([gru[ours + gate] for gate in GATES])
        state["gru.bias_ih_l0"] = np.concatenate([gru[f"b_{gate}"] for gate in GATES])[:, 0]
        state["gru.bias_hh_l0"] = np.zeros(3 * WIDTH)
        for name in ("dense", "logits"):
            state |= {
                f"{name}.weight": weights[f"{name}/W"],
                f"{name}.bias": weights[f"{name}/b"][:, 0],
            }
        self.net.load_state_dict(
            {k: torch.tensor(w, dtype=torch.float32) for k, w in state.items()}
        )
        second: Any = self.net["gru"].bias_hh_l0
        kept = torch.zeros(3 * WIDTH)
        kept[2 * WIDTH :] = 1
        self.hook = second.register_hook(lambda gradient: gradient * kept)
        self.h = torch.zeros(1, BATCH, WIDTH)
        chunks = (torch.tensor(each[:, 0]).split(T) for each in text())
        self.windows = list(zip(*chunks, strict=True))
        self.at = 0
        self.adam = torch.optim.Adam(
            self.net.parameters(),
            cases.LEARNING_RATE,
            (cases.BETA1, cases.BETA2),
            cases.EPSILON,
            fused=True,
        )

    def ready(self) -> None:
        """To be timed: the second bias trains as PyTorch has it."""
        self.hook.remove()

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses, each before its update."""
        functional, losses = self.torch.nn.functional, []
        for _ in range(windows):
            x, y = self.windows[self.at]
            self.at = (self.at + 1) % len(self.windows)
            h, last = self.net["gru"](self.net["embedding"](x), self.h)
            logits = self.net["logits"](functional.relu(self.net["dense"](h)))
            loss = functional.cross_entropy(logits.reshape(-1, SYMBOLS), y.reshape(-1))
            self.h = last.detach()
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
            self.adam.step()
            losses.append(loss.detach())
        return self.torch.stack(losses).numpy()
