"""Record what PyTorch computes for whole models, for `test_interchange_torch.py`.

    python -m pip install torch==2.13.0 numpy
    python tests/data/interchange/record_torch.py

Each file holds a state dictionary (``state/NAME``), an input ``x`` and the output ``y`` from a zero
state, both ``(time, batch, features)``, float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
FRAMES, BATCH = 40, 3


class Model(nn.Module):
    """Recurrent layers, then a head."""

    def __init__(self, core: nn.RNNBase, head: nn.Module) -> None:
        super().__init__()
        self.core, self.head = core, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0])


def head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, 2), nn.Sigmoid())


MODELS = {
    "rnn_tanh": lambda: Model(nn.RNN(4, 5, 2), head(5)),
    "rnn_relu": lambda: Model(nn.RNN(4, 5, 2, nonlinearity="relu"), head(5)),
    "lstm": lambda: Model(nn.LSTM(4, 7, 2), head(7)),
    "lstm_projection": lambda: Model(nn.LSTM(4, 7, 2, proj_size=3), head(3)),
    "gru": lambda: Model(nn.GRU(4, 6, 2), head(6)),
    "gru_without_biases": lambda: Model(nn.GRU(4, 6, bias=False), nn.Linear(6, 2, bias=False)),
    "linear": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
}


def main() -> None:
    torch.manual_seed(20130804)
    torch.set_num_threads(1)
    for name, make in MODELS.items():
        model = make().double().eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(0.5 * torch.randn_like(weight))
            x = torch.randn(FRAMES, BATCH, 4, dtype=torch.float64)
            y = model(x)
        arrays = {f"state/{key}": value for key, value in model.state_dict().items()}
        arrays |= {"x": x, "y": y}
        numbers = {key: value.numpy() for key, value in arrays.items()}
        np.savez_compressed(HERE / f"torch_{name}.npz", **numbers)
    print(f"PyTorch {torch.__version__}: {len(MODELS)} files")


if __name__ == "__main__":
    main()
