"""onnxruntime's own integers: one operator on codes, as a reference for simulated datapaths."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from edgecompress.core.arrays import Array
from edgecompress.graph.integers import NamedLayer
from edgecompress.graph.session import open_session, run_feeds

_OPSET = 13
_IR_VERSION = 8
# Both operands as unsigned codes: the x86 instruction for unsigned times signed bytes adds pairs of
# products with saturation, so that a kernel made of it need not give exact sums.
# Source: Intel 64 and IA-32 manual, volume 2, PMADDUBSW.
_HALF = 128


def onnxruntime_sums(layer: NamedLayer) -> Array:
    """The sums of ``ConvInteger`` or ``MatMulInteger`` on the codes of a layer, int64.

    Args:
        layer: With codes of at most 8 bits.

    Raises:
        Unsupported: onnxruntime cannot run the operator.
    """
    shift = _HALF if layer.input_signed else 0
    inputs = (layer.inputs + shift).astype(np.uint8)
    constants = {
        "w": (layer.weights + _HALF).astype(np.uint8),
        "x_zero": np.array(layer.zero_point + shift, np.uint8),
        "w_zero": np.array(_HALF, np.uint8),
    }
    attributes: dict[str, Any] = {}
    geometry = layer.geometry
    if geometry is not None:
        attributes = {
            "strides": list(geometry.stride),
            "dilations": list(geometry.dilation),
            "pads": list(geometry.pads),
            "group": geometry.group,
        }
    op_type = "MatMulInteger" if geometry is None else "ConvInteger"
    node = onnx.helper.make_node(op_type, ["x", "w", "x_zero", "w_zero"], ["y"], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "reference",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, inputs.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", _OPSET)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    session = open_session(proto, optimize=False)
    return run_feeds(session, [{"x": inputs}])[0][0].astype(np.int64)
