"""Layer tables of networks whose weights do not matter for latency."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgecompress.core.work import ConvWork, Work

# VGG-16's convolutions: (name, input and output size, input channels, output channels).
# Source: Simonyan and Zisserman 2015, configuration D.
VGG16 = (
    ("conv1_1", 224, 3, 64),
    ("conv1_2", 224, 64, 64),
    ("conv2_1", 112, 64, 128),
    ("conv2_2", 112, 128, 128),
    ("conv3_1", 56, 128, 256),
    ("conv3_2", 56, 256, 256),
    ("conv3_3", 56, 256, 256),
    ("conv4_1", 28, 256, 512),
    ("conv4_2", 28, 512, 512),
    ("conv4_3", 28, 512, 512),
    ("conv5_1", 14, 512, 512),
    ("conv5_2", 14, 512, 512),
    ("conv5_3", 14, 512, 512),
)


def vgg16_works(batch: int) -> tuple[Work, ...]:
    """Works of VGG-16's convolutions with 8-bit weights and activations."""
    return tuple(
        Work(
            name=name,
            op_type="Conv",
            operator=ConvWork(
                batch=batch,
                in_channels=inputs,
                out_channels=outputs,
                in_height=size,
                in_width=size,
                out_height=size,
                out_width=size,
                kernel=(3, 3),
                stride=(1, 1),
                dilation=(1, 1),
                pads=(1, 1, 1, 1),
                group=1,
                weight_bits=8,
                activation_bits=8,
                weight_storage_bits=8 * 9 * inputs * outputs,
            ),
            input_bits=8 * batch * inputs * size * size,
            output_bits=8 * batch * outputs * size * size,
        )
        for name, size, inputs, outputs in VGG16
    )


class _Graph:
    """Nodes and random weights of a network in the making."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def weight(self, *shape: int) -> str:
        """A random weight; its name."""
        name = f"w{len(self.weights)}"
        array = self._rng.standard_normal(shape).astype(np.float32)
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """A node; the name of its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(self, value: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
        """A convolution with bias that halves the size ``stride`` times."""
        return self.node(
            "Conv",
            value,
            self.weight(outputs, inputs, kernel, kernel),
            self.weight(outputs),
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )


def resnet18(seed: int = 0) -> onnx.ModelProto:
    """ResNet-18 at 224 x 224 with random weights, BatchNorm folded.

    Source: He et al. 2016.
    """
    graph = _Graph(seed)
    value = graph.node("Relu", graph.conv("x", 3, 64, 7, 2))
    value = graph.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and outputs > 64 else 1
            side = value if inputs == outputs else graph.conv(value, inputs, outputs, 1, stride)
            inner = graph.node("Relu", graph.conv(value, inputs, outputs, 3, stride))
            total = graph.node("Add", graph.conv(inner, outputs, outputs, 3, 1), side)
            value, inputs = graph.node("Relu", total), outputs
    value = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    value = graph.node("Gemm", value, graph.weight(1000, 512), graph.weight(1000), transB=1)
    entering = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 224, 224])
    leaving = helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [1, 1000])
    proto = helper.make_graph(graph.nodes, "resnet18", [entering], [leaving], graph.weights)
    opset = [helper.make_opsetid("", 21)]
    return helper.make_model(proto, opset_imports=opset, ir_version=10)
