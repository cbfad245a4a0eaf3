"""The oracle and the strategies agree with onnxruntime, or no test that uses them means much."""

import onnx
import strategies
from hypothesis import given
from hypothesis import strategies as st
from oracle import convolve, relative_l2, run_reference, run_unoptimized
from tolerance import FLOAT32_GRAPH_RELATIVE_L2


@given(made=strategies.convolution_models(), seed=st.integers(0, 99))
def test_convolution_models_run_and_reference_agrees(made: onnx.ModelProto, seed: int) -> None:
    feed = strategies.feed_for(made, seed)
    (actual,) = run_unoptimized(made, feed)
    node = made.graph.node[0]
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    weight, *bias = (onnx.numpy_helper.to_array(c) for c in made.graph.initializer)
    if "auto_pad" in settings:
        (expected,) = run_reference(made, feed)
    else:
        expected = convolve(
            feed["x"],
            weight,
            settings["strides"],
            settings["pads"],
            settings["dilations"],
            settings["group"],
        )
        if bias:
            expected += bias[0].reshape(-1, *[1] * (weight.ndim - 2))
    assert actual.shape == expected.shape
    assert relative_l2(actual, expected) <= FLOAT32_GRAPH_RELATIVE_L2
