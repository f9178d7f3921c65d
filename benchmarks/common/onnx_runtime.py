"""ONNX Runtime: one frame a call, the state an input and an output of the graph, on one thread."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from .cases import Case, Given, Matrix, Named


def exported(case: Case, given: Given) -> onnx.ModelProto:
    """One LSTM without peepholes and its head. ONNX has the gates in the order i o f c."""
    w: Named = given.weights

    def gates(kind: str) -> Matrix:
        return np.concatenate([w[f"lstm_layer_0/{kind}{gate}"] for gate in "iofc"])

    constants = {
        "Wx": gates("W_x")[None],
        "Wh": gates("W_h")[None],
        "B": np.concatenate([gates("b_")[:, 0], np.zeros(4 * case.width)])[None],
        "W": w["W"],
        "b": w["b"][:, 0],
    }
    state = [1, case.batch, case.width]
    inputs = {"x": [1, case.batch, case.features], "h": state, "c": state}
    outputs = {"out": [case.batch, case.outputs], "h_new": state, "c_new": state}
    graph = helper.make_graph(
        [
            helper.make_node(
                "LSTM",
                ["x", "Wx", "Wh", "B", "", "h", "c"],
                ["", "h_new", "c_new"],
                hidden_size=case.width,
            ),
            helper.make_node("Squeeze", ["h_new", "axes"], ["h_flat"]),
            helper.make_node("Gemm", ["h_flat", "W", "b"], ["out"], transB=1),
        ],
        "stream",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(each.astype(np.float32), n) for n, each in constants.items()]
        + [numpy_helper.from_array(np.array([0], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


class Stream:
    """Bound buffers: nothing is converted or allocated in a call, which is its fastest form.

    The state alternates between two pairs of buffers, one read and the other written.
    """

    def __init__(self, case: Case, given: Given) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self.session = onnxruntime.InferenceSession(
            exported(case, given).SerializeToString(), options, ["CPUExecutionProvider"]
        )
        self.x = np.zeros((1, case.batch, case.features), np.float32)
        self.out = np.zeros((case.batch, case.outputs), np.float32)
        first = [
            np.array(given.state[name].T[None], np.float32, order="C")
            for name in ("hidden-0", "cell-0")
        ]
        self.states = states = [first, [np.zeros_like(each) for each in first]]  # kept alive
        self.bound = [self._bind(*states), self._bind(*reversed(states))]

    def _bind(self, before: list[Matrix], after: list[Matrix]) -> onnxruntime.IOBinding:
        binding = self.session.io_binding()
        inputs = {"x": self.x, "h": before[0], "c": before[1]}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in {"out": self.out, "h_new": after[0], "c_new": after[1]}.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding

    def advance(self) -> None:
        """One frame from `x` to `out`, and the state."""
        self.session.run_with_iobinding(self.bound[0])
        self.bound.reverse()

    def step(self, x: Matrix) -> Matrix:
        """From x ``(batch, features)`` the outputs ``(batch, outputs)``, until the next call."""
        self.x[0] = x
        self.advance()
        return self.out
