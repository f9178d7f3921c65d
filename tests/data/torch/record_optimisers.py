"""Record what PyTorch's optimisers and schedulers make of a small net, for `test_optimisers.py`.

    python -m pip install torch==2.13.0 numpy
    python tests/data/torch/record_optimisers.py

Float64, one start, one sequence; a run for each of `RUNS`. `README.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import by_exact_norm
from torch import nn, optim
from torch.optim import lr_scheduler

HERE = Path(__file__).parent
FEATURES, WIDTH, OUTPUTS = 4, 5, 2
WINDOWS, T, BATCH = 100, 6, 3

Parameters = Iterable[tuple[str, nn.Parameter]]


def matrices_decay(parameters: Parameters) -> list[dict[str, Any]]:
    """Two groups: matrices with a decay of 0.3, biases with none."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, weight in parameters:
        groups["weight" in name].append(weight)
    return [
        {"params": groups[True], "weight_decay": 0.3},
        {"params": groups[False], "weight_decay": 0.0},
    ]


@dataclass
class Run:
    """An optimiser with its options, and what else there is."""

    kind: type[optim.Optimizer]
    options: dict[str, Any]
    scheduler: Callable[[optim.Optimizer], lr_scheduler.LRScheduler] | None = None
    groups: Callable[[Parameters], list[dict[str, Any]]] | None = None
    clip: Callable[[list[nn.Parameter]], object] | None = None
    frozen: list[str] = field(default_factory=list)


RUNS = {
    "sgd": Run(optim.SGD, {"lr": 0.1}),
    "sgd_decay": Run(optim.SGD, {"lr": 0.1, "weight_decay": 0.02}),
    "sgd_momentum": Run(optim.SGD, {"lr": 0.02, "momentum": 0.8}),
    "sgd_momentum_decay": Run(optim.SGD, {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.02}),
    "sgd_nesterov": Run(
        optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}
    ),
    "rmsprop": Run(optim.RMSprop, {"lr": 0.01}),
    "rmsprop_centered": Run(
        optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "centered": True}
    ),
    "rmsprop_momentum": Run(
        optim.RMSprop, {"lr": 0.003, "alpha": 0.8, "momentum": 0.7, "weight_decay": 0.02}
    ),
    "rmsprop_both": Run(
        optim.RMSprop,
        {"lr": 0.003, "alpha": 0.9, "eps": 1e-4, "momentum": 0.7, "centered": True},
    ),
    "adagrad": Run(optim.Adagrad, {"lr": 0.1}),
    "adagrad_start_decay": Run(
        optim.Adagrad,
        {"lr": 0.1, "eps": 1e-3, "initial_accumulator_value": 0.1, "weight_decay": 0.02},
    ),
    "adagrad_lr_decay": Run(optim.Adagrad, {"lr": 0.2, "lr_decay": 0.05}),
    "adam": Run(optim.Adam, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adam_decay": Run(optim.Adam, {"lr": 0.02, "weight_decay": 0.05}),
    "adamw": Run(optim.AdamW, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adamw_decay": Run(optim.AdamW, {"lr": 0.02, "weight_decay": 0.3}),
    "cosine": Run(
        optim.SGD,
        {"lr": 0.1, "momentum": 0.5},
        lambda o: lr_scheduler.CosineAnnealingLR(o, WINDOWS, eta_min=0.003),
    ),
    "step": Run(
        optim.Adam, {"lr": 0.05}, lambda o: lr_scheduler.StepLR(o, step_size=30, gamma=0.3)
    ),
    "warm_up": Run(
        optim.AdamW,
        {"lr": 0.05},
        lambda o: lr_scheduler.LinearLR(o, start_factor=0.05, total_iters=19),
    ),
    "warm_up_cosine": Run(
        optim.RMSprop,
        {"lr": 0.02},
        lambda o: lr_scheduler.LambdaLR(
            o, lambda t: min(1.0, (t + 1) / 10) * 0.5 * (1 + np.cos(np.pi * t / WINDOWS))
        ),
    ),
    "any_function": Run(
        optim.SGD, {"lr": 0.2}, lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t) ** 0.5)
    ),
    "groups": Run(optim.AdamW, {"lr": 0.02}, groups=matrices_decay),
    "groups_sgd": Run(optim.SGD, {"lr": 0.05, "momentum": 0.5}, groups=matrices_decay),
    "clip_decay": Run(
        optim.SGD,
        {"lr": 0.1, "weight_decay": 0.1},
        clip=lambda trained: nn.utils.clip_grad_value_(trained, 0.05),
    ),
    "frozen": Run(
        optim.Adam,
        {"lr": 0.02, "weight_decay": 0.1},
        clip=by_exact_norm,
        frozen=["net.weight_hh_l0", "head.bias"],
    ),
}


def train(run: Run, module: nn.ModuleDict, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """Consecutive windows, the state carried from one to the next and detached."""
    parameters = [
        (name, weight)
        for name, weight in module.named_parameters()
        if name not in run.frozen and "bias_hh" not in name
    ]
    for weight in module.parameters():
        weight.requires_grad_(False)
    for _, weight in parameters:
        weight.requires_grad_()
    trained = [weight for _, weight in parameters]
    optimiser = run.kind(run.groups(parameters) if run.groups else trained, **run.options)
    scheduler = run.scheduler(optimiser) if run.scheduler else None
    losses, state = [], torch.zeros(1, BATCH, WIDTH, dtype=torch.float64)
    for first in range(0, WINDOWS * T, T):
        output, state = module["net"](x[first : first + T], state.detach())
        loss = nn.functional.mse_loss(module["head"](output), y[first : first + T])
        optimiser.zero_grad()
        loss.backward()
        if run.clip:
            run.clip(trained)
        optimiser.step()
        if scheduler:
            scheduler.step()
        losses.append(loss.detach())
    final = {f"final/{name}": w.detach().clone() for name, w in module.named_parameters()}
    return final | {"losses": torch.stack(losses)}


def main() -> None:
    torch.manual_seed(20110712)
    torch.set_num_threads(1)
    net = nn.RNN(FEATURES, WIDTH, dtype=torch.float64)
    module = nn.ModuleDict({"net": net, "head": nn.Linear(WIDTH, OUTPUTS, dtype=torch.float64)})
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(0.6 * torch.randn_like(weight) * ("bias_hh" not in name))
    start = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    x = torch.randn(WINDOWS * T, BATCH, FEATURES, dtype=torch.float64)
    y = torch.randn(WINDOWS * T, BATCH, OUTPUTS, dtype=torch.float64)
    record: dict[str, Any] = {"x": x, "y": y} | {f"initial/{n}": w for n, w in start.items()}
    for name, run in RUNS.items():
        module.load_state_dict(start)
        found = train(run, module, x, y)
        record |= {f"{name}/{key}": value for key, value in found.items()}
        print(f"{name}: loss {found['losses'][0]:.3f} to {found['losses'][-10:].mean():.3f}")
    numbers = {key: value.detach().numpy() for key, value in record.items()}
    np.savez_compressed(HERE / "optimisers.npz", **numbers)
    print(f"PyTorch {torch.__version__}: {len(RUNS)} runs of {WINDOWS} windows")


if __name__ == "__main__":
    main()
