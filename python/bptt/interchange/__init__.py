"""Weights from other frameworks, and nets for other engines.

In: `from_torch` and `from_keras` make a ready `bptt.BPTT` of what was trained elsewhere. Out:
`to_torch_state_dict` gives the weights back; `to_onnx`, `to_rtneural_json` and `to_c` write a net
for an engine that runs without Python. One module for each format. The frameworks themselves are
needed for none of them: only `to_onnx` takes the package onnx, and reading Keras's files h5py.
"""

from bptt.interchange.c import to_c
from bptt.interchange.keras import from_keras
from bptt.interchange.onnx import to_onnx
from bptt.interchange.rtneural import to_rtneural_json
from bptt.interchange.torch import from_torch, to_torch_state_dict

__all__ = [
    "from_keras",
    "from_torch",
    "to_c",
    "to_onnx",
    "to_rtneural_json",
    "to_torch_state_dict",
]
