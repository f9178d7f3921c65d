"""Recurrent networks trained by truncated backpropagation through time.

One frame of a recurrent net is a Python function. It is traced once and run in two modes that share
all weights: deep, over T frames, to train; and shallow, one frame at a time, to stream. `BPTT` is
where to begin.
"""

from bptt import data, initializers, interchange, layers, losses, palindrome, plot, schedules
from bptt.errors import BpttError, CheckpointError, NonFiniteError, ShapeError, UsageError
from bptt.info import VERSION, build_info
from bptt.model import BPTT, load
from bptt.ops import (
    abs,
    concat,
    exp,
    less,
    log,
    log_softmax,
    matmul,
    maximum,
    minimum,
    reduce_mean,
    reduce_sum,
    relu,
    sigmoid,
    softmax,
    sqrt,
    square,
    stop_gradient,
    tanh,
    transpose,
)
from bptt.optimisers import SGD, Adagrad, Adam, AdamW, ClipByGlobalNorm, ClipByValue, RMSProp
from bptt.searching import search
from bptt.sequential import Sequential
from bptt.specs import GRU, LSTM, RNN, Dense, Embedding
from bptt.symbol import Symbol

__version__ = VERSION

__all__ = [
    "BPTT",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "BpttError",
    "CheckpointError",
    "ClipByGlobalNorm",
    "ClipByValue",
    "Dense",
    "Embedding",
    "NonFiniteError",
    "RMSProp",
    "Sequential",
    "ShapeError",
    "Symbol",
    "UsageError",
    "abs",
    "build_info",
    "concat",
    "data",
    "exp",
    "initializers",
    "interchange",
    "layers",
    "less",
    "load",
    "log",
    "log_softmax",
    "losses",
    "matmul",
    "maximum",
    "minimum",
    "palindrome",
    "plot",
    "reduce_mean",
    "reduce_sum",
    "relu",
    "schedules",
    "search",
    "sigmoid",
    "softmax",
    "sqrt",
    "square",
    "stop_gradient",
    "tanh",
    "transpose",
]
