"""What the planner sees of a model."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.stages import WeightStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weight and the operation it is used in. No ONNX in it.

    Attributes:
        name: Unique in the model; the node's name, or made from its output.
        stage: The operation with its dense weight in canonical order.
        bias: (out,) or None.
        input_shape: Of the activation; None where an axis is open.
        output_shape: Likewise.
        macs: Multiply-accumulates of one inference at the model's (or the given) input shape;
            None if a shape is open.
        shared: The weight has other users; it can be quantized (for all) but not decomposed.
        frozen: Why only the weight may be replaced by one of its own shape (no decomposition, no
            new bias), or empty.
    """

    name: str
    stage: WeightStage
    bias: FloatArray | None
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    macs: int | None
    shared: bool = False
    frozen: str = ""

    @property
    def weight_shape(self) -> Shape:
        """Shape of the weight in canonical order."""
        return self.stage.weight.shape

    @property
    def parameters(self) -> int:
        """Number of weights, biases not counted."""
        count = 1
        for size in self.weight_shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Skip:
    """A layer, or a weight, that is left as it is.

    Attributes:
        layer: Its name.
        reason: Why, in words for the report.
        parameters: Number of weights that are left.
    """

    layer: str
    reason: str
    parameters: int = 0
