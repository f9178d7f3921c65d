"""Record PyTorch's losses and their gradients, for `test_losses.py`.

    python -m pip install torch==2.13.0 numpy
    python tests/data/torch/record_losses.py

Float64; `README.md` says what the keys mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).parent
T, BATCH, FEATURES = 7, 3, 5


def main() -> None:
    torch.manual_seed(19640301)
    shape = (T, BATCH, FEATURES)
    x = 4 * torch.randn(shape, dtype=torch.float64)
    y = 2 * torch.randn(shape, dtype=torch.float64)
    p = torch.rand(shape, dtype=torch.float64)
    v = torch.rand(shape, dtype=torch.float64) + 0.1
    k = torch.randint(FEATURES, (T, BATCH))
    w = torch.rand(shape, dtype=torch.float64)
    record: dict[str, Tensor] = {"x": x, "y": y, "p": p, "v": v, "k": k, "w": w}

    def classes(t: Tensor) -> Tensor:  # PyTorch has the classes in the second place
        return t.flatten(0, 1)

    for how in ("mean", "sum"):
        losses = {
            "mse": lambda x, v, how=how: functional.mse_loss(x, y, reduction=how),
            "huber": lambda x, v, how=how: functional.huber_loss(x, y, how, delta=0.7),
            "binary": lambda x, v, how=how: functional.binary_cross_entropy_with_logits(
                x, p, reduction=how
            ),
            "binary_weighted": lambda x, v, how=how: functional.binary_cross_entropy_with_logits(
                x, p, weight=w, reduction=how
            ),
            "symbols": lambda x, v, how=how: functional.cross_entropy(
                classes(x), k.flatten(), reduction=how
            ),
            "distribution": lambda x, v, how=how: functional.cross_entropy(
                classes(x), classes(p), reduction=how
            ),
            "gaussian": lambda x, v, how=how: functional.gaussian_nll_loss(x, y, v, reduction=how),
            "gaussian_full": lambda x, v, how=how: functional.gaussian_nll_loss(
                x, y, v, full=True, reduction=how
            ),
        }
        for name, loss in losses.items():
            logits, variance = x.clone().requires_grad_(), v.clone().requires_grad_()
            value = loss(logits, variance)
            value.backward()
            record[f"{name}/{how}"] = value.detach()
            record[f"{name}/{how}/x"] = logits.grad
            if variance.grad is not None:
                record[f"{name}/{how}/v"] = variance.grad
    np.savez_compressed(HERE / "losses.npz", **{key: t.numpy() for key, t in record.items()})
    print(f"PyTorch {torch.__version__}: {len(record)} arrays")


if __name__ == "__main__":
    main()
