"""Record what PyTorch computes for recurrent layers, for `test_outside_oracles.py`.

    python -m pip install torch==2.13.0 numpy
    python tests/data/torch/record.py

Everything is float64. Gradients come from PyTorch's own reverse mode, updates from
`torch.optim.Adam`, and clipping from `torch.nn.utils`; `README.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
FEATURES, WIDTH, PROJECTION = 4, 5, 3
WINDOWS, T, BATCH = 50, 6, 3
ADAM = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4}
VALUE, NORM = 0.05, 0.3

Clip = Callable[[list[nn.Parameter]], object]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def layers(kind: str, count: int) -> nn.RNNBase:
    """A stack of layers of which every weight is drawn: gates differ, and so do the two biases."""
    module = {"rnn": nn.RNN, "relu": nn.RNN, "gru": nn.GRU}.get(kind, nn.LSTM)
    options = {"projected": {"proj_size": PROJECTION}, "relu": {"nonlinearity": "relu"}}.get(
        kind, {}
    )
    net = module(FEATURES, WIDTH, count, dtype=torch.float64, **options)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.6 * normal(*weight.shape))
    return net


def states(kind: str, count: int, batch: int) -> dict[str, Tensor]:
    widths = {"h_0": PROJECTION if kind == "projected" else WIDTH}
    if kind in ("lstm", "projected"):
        widths["c_0"] = WIDTH
    return {name: normal(count, batch, width) for name, width in widths.items()}


def packed(state: dict[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
    """State as the layers take it: a tensor, or for an LSTM a pair."""
    values = tuple(state.values())
    return values if len(values) > 1 else values[0]


def unpacked(final: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    values = final if isinstance(final, tuple) else (final,)
    return dict(zip(("h_n", "c_n"), values, strict=False))


def gradients(kind: str, count: int, length: int, batch: int) -> dict[str, Tensor]:
    """One window: values, and the gradient of a random linear functional of all of them."""
    net = layers(kind, count)
    x = normal(length, batch, FEATURES).requires_grad_()
    state = {name: value.requires_grad_() for name, value in states(kind, count, batch).items()}
    output, final = net(x, packed(state))
    values = {"output": output, **unpacked(final)}
    factors = {name: normal(*value.shape) for name, value in values.items()}
    loss = torch.stack([(factors[name] * value).sum() for name, value in values.items()]).sum()
    loss.backward()
    inputs = {"x": x, **state, **dict(net.named_parameters())}
    return (
        {f"value/{name}": value for name, value in inputs.items()}
        | {f"gradient/{name}": value.grad for name, value in inputs.items()}
        | {f"value/{name}": value for name, value in values.items()}
        | {f"factor/{name}": factor for name, factor in factors.items()}
        | {"loss": loss}
    )


def windows(kind: str, count: int) -> dict[str, Tensor]:
    """Training runs from one start, one run for each way to clip."""
    net, head = layers(kind, count), nn.Linear(WIDTH, 2, dtype=torch.float64)
    for name, bias in net.named_parameters():  # of a layer's two biases only one is trained: a
        if name.startswith("bias_hh"):  #        norm over both would count their gradient twice
            bias.requires_grad_(False).zero_()
    module = nn.ModuleDict({"net": net, "head": head})
    start = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    state = states(kind, count, BATCH)
    x, y = normal(WINDOWS * T, BATCH, FEATURES), normal(WINDOWS * T, BATCH, 2)
    record = {"x": x, "y": y, **state, **{f"initial/{name}": w for name, w in start.items()}}
    for way, clip in CLIPS.items():
        module.load_state_dict(start)
        run = train(module, x, y, packed(state), clip)
        record |= {f"{way}/{key}": value for key, value in run.items()}
    return record


def train(
    module: nn.ModuleDict, x: Tensor, y: Tensor, state: Tensor | tuple[Tensor, ...], clip: Clip
) -> dict[str, Tensor]:
    """Consecutive windows, the state carried from one to the next and detached."""
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(trained, **ADAM)
    losses, clipped = [], 0
    for first in range(0, WINDOWS * T, T):
        output, final = module["net"](x[first : first + T], state)
        loss = nn.functional.mse_loss(module["head"](output), y[first : first + T])
        optimiser.zero_grad()
        loss.backward()
        before = [weight.grad.clone() for weight in trained]
        clip(trained)
        clipped += any(not torch.equal(b, w.grad) for b, w in zip(before, trained, strict=True))
        optimiser.step()
        final = {name: value.detach() for name, value in unpacked(final).items()}
        state = packed(final)
        losses.append(loss.detach())
    weights = {f"final/{name}": w.detach().clone() for name, w in module.named_parameters()}
    return weights | final | {"losses": torch.stack(losses), "clipped": torch.tensor(clipped)}


def by_norm(trained: list[nn.Parameter]) -> None:
    nn.utils.clip_grad_norm_(trained, NORM)


def by_exact_norm(trained: list[nn.Parameter]) -> None:
    """`clip_grad_norm_` divides by the norm plus 1e-6; here that addition is undone."""
    norm = nn.utils.clip_grad_norm_(trained, NORM)
    if NORM / (norm + 1e-6) < 1:
        for weight in trained:
            weight.grad *= (norm + 1e-6) / norm


CLIPS: dict[str, Clip] = {
    "none": lambda trained: None,
    "value": lambda trained: nn.utils.clip_grad_value_(trained, VALUE),
    "norm": by_norm,
    "exact_norm": by_exact_norm,
}


def main() -> None:
    torch.manual_seed(20130804)
    torch.set_num_threads(1)
    everything = {
        f"{kind}_{count}_layers_{length}_frames_{batch}_lanes": gradients(
            kind, count, length, batch
        )
        for kind in ("rnn", "lstm")
        for count, length, batch in ((1, 1, 1), (1, 9, 2), (2, 5, 3), (2, 12, 1))
    }
    everything |= {
        f"windows_{kind}_{count}_layers": windows(kind, count)
        for kind, count in (("rnn", 2), ("lstm", 1))
    }
    everything |= {
        f"{kind}_{count}_layers_{length}_frames_{batch}_lanes": gradients(
            kind, count, length, batch
        )
        for kind in ("gru", "projected", "relu")
        for count, length, batch in ((1, 9, 2), (2, 5, 3))
    }
    for name, arrays in everything.items():
        numbers = {key: value.detach().numpy() for key, value in arrays.items()}
        np.savez_compressed(HERE / f"{name}.npz", **numbers)
        for way in CLIPS:
            if f"{way}/clipped" in arrays:
                print(f"{name}, {way}: {arrays[f'{way}/clipped']} of {WINDOWS} windows clipped")
    print(f"PyTorch {torch.__version__}: {len(everything)} files")


if __name__ == "__main__":
    main()
