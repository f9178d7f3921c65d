"""Recurrent networks trained by truncated backpropagation through time.

One frame of a recurrent net is a Python function. It is traced once and run in two modes that share
all weights: deep, over T frames, to train; and shallow, one frame at a time, to stream. `BPTT` is
where to begin.
"""

from bptt import initializers, layers, palindrome
from bptt.errors import BpttError, CheckpointError, NonFiniteError, ShapeError, UsageError
from bptt.info import VERSION, build_info
from bptt.model import BPTT, load
from bptt.ops import (
    abs,
    concat,
    exp,
    log,
    matmul,
    maximum,
    minimum,
    reduce_mean,
    reduce_sum,
    relu,
    sigmoid,
    sqrt,
    square,
    stop_gradient,
    tanh,
    transpose,
)
from bptt.optimisers import Adam, ClipByGlobalNorm, ClipByValue
from bptt.searching import search
from bptt.symbol import Symbol

__version__ = VERSION

__all__ = [
    "BPTT",
    "Adam",
    "BpttError",
    "CheckpointError",
    "ClipByGlobalNorm",
    "ClipByValue",
    "NonFiniteError",
    "ShapeError",
    "Symbol",
    "UsageError",
    "abs",
    "build_info",
    "concat",
    "exp",
    "initializers",
    "layers",
    "load",
    "log",
    "matmul",
    "maximum",
    "minimum",
    "palindrome",
    "reduce_mean",
    "reduce_sum",
    "relu",
    "search",
    "sigmoid",
    "sqrt",
    "square",
    "stop_gradient",
    "tanh",
    "transpose",
]
