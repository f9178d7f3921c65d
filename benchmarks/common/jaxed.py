"""JAX: `lax.scan` over the frames under `jit`, window by window or the whole training loop at once.

In its best form all weights are one flat vector, so that clipping and Adam are one fused operation
each, and a short window's scan is unrolled: both make small nets faster. As it is mostly written,
weights are an array each, and a scan is a loop. Compiled for one thread.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from . import cases
from .cases import Case, Given, Matrix, Named, stack, unstack

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # reads the flags
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

jax.config.update("jax_cpu_enable_async_dispatch", False)  # a call is over when it returns

UNROLLED = 16
"""Windows of at most so many frames are unrolled, in the best form."""


def forward(case: Case, w: Any, state: Any, x: Any, unroll: int = 1) -> tuple[Any, Any]:
    """From x ``(T, batch, features)`` the head's values of every frame, and the new state.

    The state is an h, or h and c, ``(batch, width)`` for each layer. `unroll` is `lax.scan`'s.
    """
    H, after = case.width, []
    for layer, carry in enumerate(state):
        by_h = w[f"h{layer}"].T

        def rnn(h: Any, frame: Any, by_h: Any = by_h) -> tuple[Any, Any]:
            h = jnp.tanh(frame + h @ by_h)
            return h, h

        def lstm(carry: Any, frame: Any, by_h: Any = by_h, layer: int = layer) -> tuple[Any, Any]:
            h, c = carry
            z = frame + h @ by_h
            i_f, g, o = z[:, : 2 * H], z[:, 2 * H : 3 * H], z[:, 3 * H :]
            i_f = jax.nn.sigmoid(i_f + c @ w[f"p{layer}"].T if case.peephole else i_f)
            c = i_f[:, H:] * c + i_f[:, :H] * jnp.tanh(g)
            h = jax.nn.sigmoid(o + c @ w[f"q{layer}"].T if case.peephole else o) * jnp.tanh(c)
            return (h, c), h

        projected = x @ w[f"x{layer}"].T + w[f"b{layer}"]
        carry, x = lax.scan(rnn if case.cell == "rnn" else lstm, carry, projected, unroll=unroll)
        after.append(carry)
    out = x @ w["W"].T + w["b"]
    return jax.nn.sigmoid(out) if case.activation else out, after


def start(case: Case, state: Named) -> list[Any]:
    """Our state as `forward` takes it."""
    parts = ("hidden",) if case.cell == "rnn" else ("hidden", "cell")
    layers = [
        tuple(jnp.asarray(state[f"{part}-{layer}"].T, jnp.float32) for part in parts)
        for layer in range(case.layers)
    ]
    return [each[0] for each in layers] if case.cell == "rnn" else layers


class Jax:
    """A case in JAX; `loop` is the whole training loop under one `jit`, `best` its best form."""

    def __init__(self, case: Case, given: Given, *, loop: bool = False, best: bool = True) -> None:
        self.case, self.loop, self.at = case, loop, 0
        self.unroll = case.frames if best and case.frames <= UNROLLED else 1
        stacked = {
            name: jnp.asarray(each, jnp.float32)
            for name, each in stack(case, given.weights).items()
        }
        w, self.shaped = ravel_pytree(stacked) if best else (stacked, lambda w: w)
        m, v = (jax.tree.map(jnp.zeros_like, w) for _ in range(2))  # each is given away
        self.carry = (w, m, v, jnp.float32(0), start(case, given.state))
        shape = (case.windows, case.frames, case.batch, -1)
        self.x, self.y = (
            jnp.asarray(each.reshape(shape), jnp.float32) for each in (given.x, given.y)
        )
        self.windows = list(zip(self.x, self.y, strict=True))
        self.one = jax.jit(self.window, donate_argnums=0)
        self.all = jax.jit(self.many, donate_argnums=0)

    def loss(self, w: Any, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """The mean squared error of a window, and the state after it."""
        out, state = forward(self.case, self.shaped(w), state, x, self.unroll)
        return jnp.mean((out - y) ** 2), state

    def window(self, carry: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """A training step."""
        w, m, v, t, state = carry
        (loss, state), g = jax.value_and_grad(self.loss, has_aux=True)(w, state, x, y)
        t = t + 1

        def update(w: Any, m: Any, v: Any, g: Any) -> tuple[Any, Any, Any]:
            g = jnp.clip(g, -cases.CLIP, cases.CLIP)
            m = cases.BETA1 * m + (1 - cases.BETA1) * g
            v = cases.BETA2 * v + (1 - cases.BETA2) * g**2
            root = jnp.sqrt(v / (1 - cases.BETA2**t)) + cases.EPSILON
            return w - cases.LEARNING_RATE * m / (1 - cases.BETA1**t) / root, m, v

        updated = jax.tree.map(update, w, m, v, g)
        w, m, v = jax.tree.transpose(jax.tree.structure(g), None, updated)
        return (w, m, v, t, state), loss

    def many(self, carry: Any, first: Any, count: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """So many windows from number `first` on; the losses of the last of them, by number."""

        def body(n: Any, before: tuple[Any, Any]) -> tuple[Any, Any]:
            carry, losses = before
            at = (first + n) % self.case.windows
            carry, loss = self.window(carry, x[at], y[at])
            return carry, losses.at[at].set(loss)

        return lax.fori_loop(0, count, body, (carry, jnp.zeros(self.case.windows)))

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses, at most of the last round through the data."""
        first, self.at = self.at, (self.at + windows) % self.case.windows
        numbers = np.arange(first, first + windows) % self.case.windows
        if self.loop:
            self.carry, losses = self.all(self.carry, first, windows, self.x, self.y)
            return np.asarray(losses)[numbers[-self.case.windows :]]
        each = []
        for number in numbers.tolist():
            self.carry, loss = self.one(self.carry, *self.windows[number])
            each.append(loss)
        return np.asarray(jax.block_until_ready(each))

    def weights(self) -> Named:
        """By our names."""
        stacked = {name: np.asarray(each) for name, each in self.shaped(self.carry[0]).items()}
        return unstack(self.case, stacked)


class Stream:
    """One frame a call, the state kept."""

    def __init__(self, case: Case, given: Given) -> None:
        stacked = stack(case, given.weights)
        w = {name: jnp.asarray(each, jnp.float32) for name, each in stacked.items()}
        self.state = start(case, given.state)
        self.frame = jax.jit(partial(forward, case, w))  # the weights are constants of it

    def step(self, x: Matrix) -> Matrix:
        """From x ``(batch, features)`` the outputs ``(batch, outputs)``."""
        out, self.state = self.frame(self.state, x[None])
        return np.asarray(out)[0]
