"""Any convolution, packed: the same outputs as codes times scale, and the same fused as unfused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import relative_l2
from quantized_models import affine, packed, run
from strategies import convolution_models, feed_for
from tolerance import FLOAT32_GRAPH_RELATIVE_L2, OPTIMIZED_INT8_RELATIVE_L2

from edgecompress.core.grids import GRIDS
from edgecompress.core.report import FileFact
from edgecompress.graph.model import Model


def _quantized(proto: onnx.ModelProto, grid: str) -> Model:
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    weight = affine(tuple(tensor.dims), grid)
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight.to_dense(), "w"))
    model = Model(ir.from_proto(proto), FileFact(path="", sha256="", size_bytes=0))
    model.quantized["w"] = weight
    return model


@pytest.mark.parametrize("grid", GRIDS)
@given(proto=convolution_models(), seed=st.integers(0, 99))
def test_weights_only(grid: str, proto: onnx.ModelProto, seed: int) -> None:
    model, feed = _quantized(proto, grid), feed_for(proto, seed)
    exact = run(model.to_proto().SerializeToString(), feed)[0]
    data = packed(model)
    assert np.array_equal(run(data, feed)[0], exact)
    assert relative_l2(run(data, feed, optimize=True)[0], exact) <= FLOAT32_GRAPH_RELATIVE_L2


@pytest.mark.parametrize("grid", ["ternary", "8"])
@given(proto=convolution_models(), seed=st.integers(0, 99))
def test_8_bit_activations(grid: str, proto: onnx.ModelProto, seed: int) -> None:
    proto.graph.node[0].output[0] = "h"
    proto.graph.node.append(onnx.helper.make_node("Abs", ["h"], ["y"]))
    model, feed = _quantized(proto, grid), feed_for(proto, seed)
    exact = run(model.to_proto().SerializeToString(), feed)[0]
    top = float(exact.max())
    extent = (float(feed["x"].min()), float(feed["x"].max()))
    model.activation_ranges.update({"x": extent, "h": (-top, top)})
    data = packed(model, activations=True)
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_INT8_RELATIVE_L2
    assert relative_l2(plain, exact) <= 0.05
