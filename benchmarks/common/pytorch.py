"""PyTorch: `nn.RNN` and `nn.LSTM`, or a cell of its operations where it has none; fused Adam."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from . import cases
from .cases import Case, Given, Matrix, Named, stack, unstack

State = list[Tensor]


class Recurrent(nn.Module):
    """The layers that PyTorch has, and the head."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.lstm = case.cell == "lstm"
        kind = nn.LSTM if self.lstm else nn.RNN
        self.layers = kind(case.features, case.width, case.layers)
        self.head = nn.Linear(case.width, case.outputs)
        for layer in range(case.layers):  # one bias is enough
            second = getattr(self.layers, f"bias_hh_l{layer}")
            nn.init.zeros_(second).requires_grad_(False)

    def stacked(self) -> dict[str, Tensor]:
        """The trained weights under the names of `cases.stack`."""
        found = {"W": self.head.weight, "b": self.head.bias}
        for layer in range(self.layers.num_layers):
            for kind, name in (("x", "weight_ih"), ("h", "weight_hh"), ("b", "bias_ih")):
                found[f"{kind}{layer}"] = getattr(self.layers, f"{name}_l{layer}")
        return found

    def start(self, state: Named) -> State:
        """Our state ``(width, batch)`` as its ``(layers, batch, width)``: h, and c of an LSTM."""
        return [
            torch.stack(
                [tensor(state[f"{part}-{layer}"].T) for layer in range(self.layers.num_layers)]
            )
            for part in (("hidden", "cell") if self.lstm else ("hidden",))
        ]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """From x ``(T, batch, features)`` the head's values of every frame, and the new state."""
        h, after = self.layers(x, tuple(state) if self.lstm else state[0])
        return self.head(h), list(after) if self.lstm else [after]


class Peephole(nn.Module):
    """LSTM layers with full peepholes, in as few operations as they take, and a sigmoid head."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.count, H = case.layers, case.width
        self.weights = nn.ParameterDict()
        for layer, features in enumerate(case.inputs):
            shapes = {"x": (4 * H, features), "h": (4 * H, H), "b": (4 * H,), "p": (2 * H, H)}
            for kind, shape in {**shapes, "q": (H, H)}.items():
                self.weights[f"{kind}{layer}"] = nn.Parameter(torch.empty(shape))
        self.weights["W"] = nn.Parameter(torch.empty(case.outputs, H))
        self.weights["b"] = nn.Parameter(torch.empty(case.outputs))

    def stacked(self) -> dict[str, Tensor]:
        """The trained weights under the names of `cases.stack`."""
        return dict(self.weights.items())

    def start(self, state: Named) -> State:
        """Our state as h and c of each layer, ``(batch, width)``."""
        names = [f"{part}-{layer}" for layer in range(self.count) for part in ("hidden", "cell")]
        return [tensor(state[name].T) for name in names]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """From x ``(T, batch, features)`` the head's values of every frame, and the new state."""
        w, after, h_all = self.weights, [], x
        for layer in range(self.count):
            h, c = state[2 * layer : 2 * layer + 2]
            H = h.shape[1]
            projected = nnf.linear(h_all, w[f"x{layer}"], w[f"b{layer}"]).unbind()
            by_h, by_c, by_new = (w[f"{kind}{layer}"].t() for kind in "hpq")
            outputs = []
            for frame in projected:
                i_f, g, o = torch.addmm(frame, h, by_h).split((2 * H, H, H), dim=1)
                i, f = torch.sigmoid(torch.addmm(i_f, c, by_c)).chunk(2, dim=1)
                c = torch.addcmul(f * c, i, torch.tanh(g))
                h = torch.sigmoid(torch.addmm(o, c, by_new)) * torch.tanh(c)
                outputs.append(h)
            h_all = torch.stack(outputs)
            after += [h, c]
        return torch.sigmoid(nnf.linear(h_all, w["W"], w["b"])), after


class PyTorch:
    """A case in PyTorch, eager or compiled."""

    def __init__(self, case: Case, given: Given, compiled: bool = False, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.case = case
        self.net = network(case, given)
        self.state = self.net.start(given.state)
        chunks = (tensor(each).split(case.frames) for each in (given.x, given.y))
        self.windows = list(zip(*chunks, strict=True))
        self.at = 0
        self.trained = [each for each in self.net.parameters() if each.requires_grad]
        self.adam = torch.optim.Adam(
            self.trained, cases.LEARNING_RATE, (cases.BETA1, cases.BETA2), cases.EPSILON, fused=True
        )
        self.loss_of: Callable[..., tuple[Tensor, State]] = self.loss
        if compiled:
            self.loss_of = torch.compile(self.loss)

    def loss(self, x: Tensor, y: Tensor, state: State) -> tuple[Tensor, State]:
        """The mean squared error of a window, and the state after it."""
        out, state = self.net(x, state)
        return nnf.mse_loss(out, y), state

    def train(self, windows: int) -> Matrix:
        """So many windows more; their losses, each before its update."""
        losses = []
        for _ in range(windows):
            x, y = self.windows[self.at]
            self.at = (self.at + 1) % len(self.windows)
            loss, state = self.loss_of(x, y, self.state)
            self.state = [each.detach() for each in state]
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_value_(self.trained, cases.CLIP)
            self.adam.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    def weights(self) -> Named:
        """By our names."""
        stacked = {name: each.detach().numpy() for name, each in self.net.stacked().items()}
        return {name: each.copy() for name, each in unstack(self.case, stacked).items()}


class Stream:
    """One frame a call, the state kept; no gradients."""

    def __init__(self, case: Case, given: Given) -> None:
        torch.set_num_threads(1)
        self.net = network(case, given)
        self.state = self.net.start(given.state)

    def step(self, x: Matrix) -> Matrix:
        """From x ``(batch, features)`` the outputs ``(batch, outputs)``."""
        with torch.inference_mode():
            out, self.state = self.net(torch.from_numpy(x)[None], self.state)
        return out[0].numpy()


def network(case: Case, given: Given) -> Recurrent | Peephole:
    """A module with the given weights."""
    net = Peephole(case) if case.peephole else Recurrent(case)
    with torch.no_grad():
        stacked = stack(case, given.weights)
        for name, parameter in net.stacked().items():
            parameter.copy_(tensor(stacked[name]))
    return net


def tensor(array: Matrix) -> Tensor:
    """A float32 copy."""
    return torch.from_numpy(np.array(array, np.float32, order="C"))


def compiled_within(seconds: int, case: Case, given: Given) -> PyTorch | str:
    """A compiled step that ran once, or why there is none."""

    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        PyTorch(case, given, compiled=True).train(2)  # the second with a state that was computed
    except Exception as error:  # of any kind: the compiler wraps them
        chain, found = error, []
        while chain is not None:
            found.append(chain)
            chain = chain.__cause__ or chain.__context__
        if any(isinstance(each, TimeoutError) for each in found):
            return f"did not compile within {seconds} s"
        return f"did not compile: {type(error).__name__}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return PyTorch(case, given, compiled=True)
