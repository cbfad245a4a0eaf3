"""A model: one graph, its layers, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray, Shape
from edgecompress.core.errors import ModelInvalid
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.report import FileFact
from edgecompress.core.stages import Conv, Stage
from edgecompress.core.tensors import Affine, Tensor
from edgecompress.graph import emit
from edgecompress.graph.fold import lift_constants
from edgecompress.graph.layers import Findings, LayerFinder, Place, may_have_layers
from edgecompress.graph.origins import read_origins
from edgecompress.graph.shapes import InputSpec, infer_shapes, specs
from edgecompress.graph.values import OpenShape, all_value_names, constant_tensor, is_float

__all__ = ["Findings", "InputSpec", "Layer", "Model", "Skip", "load_model"]


class Model:
    """The only mutable object: an ordinary float graph while it is worked on.

    Args:
        graph: The graph; nodes of its top level have unique names.
        file: The file it came from.
        input_shapes: Concrete shapes of inputs whose shape is open.
        notes: What was done or assumed on the way in, in words for the report.

    Attributes:
        ir: The graph.
        file: The file it came from.
        quantized: Initializer name -> its codes in the graph's layout. The initializer itself
            holds codes times scale as floats, so the graph stays runnable.
        activation_ranges: Value name -> (low, high) for 8-bit activations.
        origins: Node name -> name of the layer that it was decomposed from.
        notes: In words for the report.
    """

    def __init__(
        self,
        graph: ir.Model,
        file: FileFact,
        *,
        input_shapes: Mapping[str, Shape] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.ir = graph
        self.file = file
        self.quantized: dict[str, Affine] = {}
        self.activation_ranges: dict[str, tuple[float, float]] = {}
        self.origins: dict[str, str] = read_origins(graph)
        self.notes: list[str] = list(notes)
        self.input_shapes: dict[str, Shape] = dict(input_shapes or {})
        self._places: dict[str, Place] = {}
        self._shapes: dict[str, OpenShape] | None = None

    def inputs(self) -> tuple[InputSpec, ...]:
        """Inputs that have to be fed; initializers that are also inputs are not among them."""
        return specs(v for v in self.ir.graph.inputs if not v.is_initializer())

    def outputs(self) -> tuple[InputSpec, ...]:
        """Outputs of the graph."""
        return specs(self.ir.graph.outputs)

    def shapes(self) -> Mapping[str, OpenShape]:
        """Value name -> shape as inferred, None for an open axis."""
        if self._shapes is None:
            self._shapes = infer_shapes(self.ir, self.input_shapes)
        return self._shapes

    def forget_shapes(self) -> None:
        """Infer shapes anew when they are next asked for; after changes made outside this class."""
        self._shapes = None

    def find_layers(self) -> Findings:
        """Layers in topological order, and the weights that are in none."""
        shapes = self.shapes() if may_have_layers(self.ir.graph) else {}
        found = LayerFinder(self.ir.graph, shapes)
        self._places.update(found.places)
        return Findings(tuple(found.layers), tuple(found.skips))

    def layer_nodes(self, layer: Layer) -> tuple[ir.Node, ...]:
        """The node of a layer, and the ``Add`` of its bias if there is one."""
        place = self._place(layer)
        nodes = self._nodes()
        return tuple(nodes[name] for name in (place.node, place.add) if name in nodes)

    def activation_name(self, layer: Layer) -> str:
        """Name of the value that enters a layer."""
        return self._place(layer).activation

    def output_name(self, layer: Layer) -> str:
        """Name of the value that leaves a layer; it stays when the layer is replaced."""
        return self._place(layer).output

    def weight_name(self, layer: Layer) -> str:
        """Name of the value that holds a layer's weight."""
        return self._place(layer).weight

    def canonical(self, layer: Layer, activation: Array) -> Array:
        """An activation of a layer in the stage's order: (n, c, *spatial) or (..., in)."""
        return np.swapaxes(activation, -1, -2) if self._place(layer).left else activation

    def replace(self, layer: Layer, stages: Sequence[Stage], bias: FloatArray | None) -> int:
        """Put stages in place of a layer, in place.

        One stage of the same kind, weight shape and geometry swaps weight and bias on the node
        that is there; anything else becomes a chain of nodes that makes the same output value.

        Args:
            layer: As found in this model or in one that it was cloned from.
            stages: At least one.
            bias: (out,), or None for no bias; on the last stage that has weights.

        Returns:
            Number of weights written.

        Raises:
            ValueError: The layer is frozen or shared and the stages do more than swap its weight,
                or the layer is no longer there.
        """
        place = self._place(layer)
        if not stages:
            raise ValueError(f"no stages for layer {layer.name!r}")
        if place.weight not in self.ir.graph.initializers:
            lift_constants(self.ir.graph)
        if len(stages) == 1 and _same_geometry(layer.stage, stages[0]):
            self._swap_weight(place, _weight(stages[0]))
            if not layer.frozen:
                self._set_bias(layer, place, bias)
            return 1
        if layer.shared or layer.frozen:
            why = layer.frozen or "its weight is shared"
            raise ValueError(f"layer {layer.name!r} cannot become a chain: {why}")
        return self._emit_chain(layer, place, stages, bias)

    def clone(self) -> Model:
        """A copy that can be changed alone; arrays are shared."""
        twin = Model(self.ir.clone(), self.file, input_shapes=self.input_shapes, notes=self.notes)
        twin.quantized = dict(self.quantized)
        twin.activation_ranges = dict(self.activation_ranges)
        twin.origins = dict(self.origins)
        twin._places = dict(self._places)
        twin._shapes = None if self._shapes is None else dict(self._shapes)
        return twin

    def to_proto(self) -> onnx.ModelProto:
        """The float graph."""
        return ir.to_proto(self.ir)

    def _place(self, layer: Layer) -> Place:
        if layer.name not in self._places:
            self.find_layers()
        if layer.name not in self._places:
            raise ValueError(f"no layer {layer.name!r} in the model")
        return self._places[layer.name]

    def _nodes(self) -> dict[str, ir.Node]:
        return {node.name or "": node for node in self.ir.graph}

    def _swap_weight(self, place: Place, weight: Tensor) -> None:
        value = self.ir.graph.initializers.get(place.weight)
        if value is None or value.const_value is None:
            raise ValueError(f"weight {place.weight!r} is no longer in the model")
        turned = place.layout.to_graph(weight)
        dtype = value.const_value.dtype.numpy()
        emit.set_constant(value, emit.graph_values(turned, dtype))
        self.quantized.pop(place.weight, None)
        if isinstance(turned, Affine):
            self.quantized[place.weight] = turned

    def _set_bias(self, layer: Layer, place: Place, bias: FloatArray | None) -> None:
        if bias is None and not place.bias:
            return
        nodes, graph = self._nodes(), self.ir.graph
        node = nodes[place.add or place.node]
        dtype = graph.initializers[place.weight].const_value.dtype.numpy()  # type: ignore[union-attr]
        outputs = layer.weight_shape[0]
        values = np.zeros(outputs) if bias is None else np.asarray(bias, np.float64)
        values = (values / (place.bias_factor or 1.0)).astype(dtype)
        if place.bias and place.bias_factor:
            value = graph.initializers[place.bias]
            if len(value.uses()) == 1 and not value.is_graph_output():
                emit.set_constant(value, values)
                return
            fresh = emit.new_initializer(graph, self._fresh(), values)
            node.replace_input_with(list(node.inputs).index(value), fresh)
        else:
            fresh = emit.new_initializer(graph, self._fresh(), values)
            place = self._attach_bias(node, place, fresh)
        self._places[layer.name] = replace(place, bias=fresh.name or "")

    def _attach_bias(self, node: ir.Node, place: Place, bias: ir.Value) -> Place:
        if node.op_type != "MatMul":
            node.resize_inputs(3)
            node.replace_input_with(2, bias)
            node.attributes.pop("beta", None)
            return replace(place, bias_factor=1.0)
        graph, old = self.ir.graph, node.outputs[0]
        name = old.name or ""
        old.name = self._fresh()
        add = ir.node("Add", [old, bias])
        add.name = self._free_node_name(f"{node.name}/bias")
        _take_over(old, add.outputs[0], name, add)
        graph.insert_after(node, add)
        return replace(place, add=add.name)

    def _emit_chain(
        self, layer: Layer, place: Place, stages: Sequence[Stage], bias: FloatArray | None
    ) -> int:
        graph, nodes = self.ir.graph, self._nodes()
        node = nodes[place.node]
        entering = node.inputs[place.activation_index]
        weight = graph.initializers[place.weight]
        if entering is None or weight.const_value is None:
            raise ValueError(f"layer {layer.name!r} is no longer in the model")
        writer = emit.ChainWriter(
            graph=graph,
            layer=layer.name,
            dtype=weight.const_value.dtype.numpy(),
            names=emit.fresh_names(all_value_names(graph)),
            quantized=self.quantized,
        )
        leaving = writer.write(entering, stages, bias)
        old_nodes = [nodes[name] for name in (place.node, place.add) if name]
        graph.insert_before(old_nodes[0], writer.nodes)
        old = old_nodes[-1].outputs[0]
        name = old.name or ""
        old.name = None
        _take_over(old, leaving, name)
        graph.remove(old_nodes[::-1], safe=True)
        self._drop_unused([place.weight, place.bias])
        source = self.origins.get(layer.name, layer.name)
        self.origins.update((new.name or "", source) for new in writer.nodes)
        self._shapes = None
        return sum(1 for stage in stages if hasattr(stage, "weight"))

    def _drop_unused(self, names: Sequence[str]) -> None:
        initializers = self.ir.graph.initializers
        for name in names:
            value = initializers.get(name)
            if value is not None and not value.uses() and not value.is_graph_output():
                del initializers[name]
                self.quantized.pop(name, None)

    def _fresh(self) -> str:
        return next(emit.fresh_names(all_value_names(self.ir.graph)))

    def _free_node_name(self, wanted: str) -> str:
        taken, name, count = self._nodes(), wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        return name


def load_model(
    path: Path | str, *, normalize: bool = True, input_shapes: Mapping[str, Shape] | None = None
) -> Model:
    """Read an ONNX file.

    Args:
        path: The file.
        normalize: Bring the graph into the form that is compressed: opset 21 or later, constants
            as initializers, BatchNorm folded, compared with the original in onnxruntime. Off, the
            graph is only checked.
        input_shapes: Concrete shapes for inputs whose shape is open.

    Raises:
        InputOutputFailed: The file cannot be opened, or is not a file.
        ModelInvalid: It is not a valid model; names the place.
        Unsupported: It is valid, but of a kind that cannot be handled.
        UnsafeInput: External data lie outside the model's folder.
        ResourceLimit: It is too large, or explodes when its functions are expanded.
        UsageError: ``input_shapes`` do not fit the model.
    """
    from edgecompress.graph.load import read_graph

    loaded = read_graph(Path(path), normalize=normalize, input_shapes=dict(input_shapes or {}))
    model = Model(loaded.ir, loaded.file, input_shapes=input_shapes, notes=loaded.notes)
    for layer in model.find_layers().layers:
        _check_finite(model, layer)
    return model


def _check_finite(model: Model, layer: Layer) -> None:
    """Refuse weights that are not numbers."""
    value = model.ir.graph.initializers.get(model.weight_name(layer))
    tensor = constant_tensor(value)
    array = None if tensor is None else tensor.numpy()
    if array is None or not is_float(array):
        return
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ModelInvalid(
            f"the weight holds {array.reshape(-1)[bad[0]]} at index {int(bad[0])}"
            f" ({bad.size} such values)",
            where=f"{model.file.path}, layer {layer.name!r}",
        )


def _take_over(old: ir.Value, new: ir.Value, name: str, spared: ir.Node | None = None) -> None:
    """``new`` gets the readers, name and type of ``old``; ``spared`` goes on reading ``old``."""
    new.type, new.shape = old.type, old.shape
    index = None
    if spared is not None:
        index = list(spared.inputs).index(old)
        spared.replace_input_with(index, None)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if spared is not None and index is not None:
        spared.replace_input_with(index, old)
    new.name = name


def _weight(stage: Stage) -> Tensor:
    weight: Tensor = stage.weight  # type: ignore[union-attr]
    return weight


def _same_geometry(old: Stage, new: Stage) -> bool:
    if type(old) is not type(new) or _weight(old).shape != _weight(new).shape:
        return False
    if not isinstance(old, Conv) or not isinstance(new, Conv):
        return True
    return (old.stride, old.pads, old.dilation, old.group, old.transposed) == (
        new.stride,
        new.pads,
        new.dilation,
        new.group,
        new.transposed,
    )
