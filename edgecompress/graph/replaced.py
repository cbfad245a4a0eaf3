"""Run a graph with its convolutions computed by something else; errors go on through the graph.

Between two convolutions the nodes run in onnxruntime on the values at hand. A convolution is read
as integers (`integers`), computed by the caller, and brought back to the values that its node
would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.layers import Skip
from edgecompress.core.samples import Feed
from edgecompress.graph.code_reader import CodeReader
from edgecompress.graph.constants import ConstantTracer
from edgecompress.graph.fragments import Fragment, Values, values_read
from edgecompress.graph.integers import (
    CONVOLUTIONS,
    FoundLayer,
    NamedLayer,
    find_layer,
    read_layer,
)
from edgecompress.graph.model import Model
from edgecompress.graph.values import constant_array

PRODUCT = "a matrix product: computed by onnxruntime; simulate runs it on the array"
NO_SCALE = "the scales of its codes cannot be read"

Compute = Callable[[NamedLayer], FloatArray | Array]
"""The sums (n, out, oh, ow) of a convolution in the unit of its integers, exact or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What came out.

    Attributes:
        outputs: One list of the graph's outputs for each feed.
        layers: Names of the convolutions that were computed by the caller.
        skips: Convolutions and matrix products that onnxruntime computed, with reasons.
    """

    outputs: list[list[Array]]
    layers: tuple[str, ...]
    skips: tuple[Skip, ...]


@dataclass
class _Walk:
    """Values at hand, one set for each feed, and the nodes that have not run yet."""

    model: Model
    streams: list[Values]
    last_use: Mapping[str, int]
    pending: list[ir.Node] = field(default_factory=list)

    def run(self, upto: int) -> None:
        """Run what is pending; keep what a node from ``upto`` on reads."""
        made = [value.name or "" for node in self.pending for value in node.outputs]
        wanted = [name for name in made if name and self.last_use.get(name, -1) >= upto]
        if wanted:
            fragment = Fragment(self.model.ir, self.pending, wanted, self.streams[0])
            for values in self.streams:
                values.update(zip(wanted, fragment.run(values), strict=True))
        self.pending = []
        for values in self.streams:
            for name in [name for name in values if self.last_use.get(name, -1) < upto]:
                del values[name]

    def gathered(self, names: Sequence[str]) -> dict[str, list[Array]]:
        """Values by name, feed by feed."""
        there = [name for name in names if name in self.streams[0]]
        return {name: [values[name] for values in self.streams] for name in there}


def run_replaced(model: Model, feeds: Sequence[Feed], compute: Compute) -> Replaced:
    """Outputs of a graph whose convolutions are computed by ``compute``.

    Args:
        model: Loaded with ``normalize=False``; not changed.
        feeds: At least one.
        compute: Called for every convolution with all feeds at once, in graph order.

    Raises:
        Unsupported: onnxruntime cannot run the rest of the graph.
    """
    nodes = list(model.ir.graph)
    walk = _Walk(model, [dict(feed) for feed in feeds], _last_uses(model, nodes))
    done: list[str] = []
    skips: list[Skip] = []
    for place, found in _convolutions(model, nodes):
        if isinstance(found, Skip):
            skips.append(found)
        elif found is not None:
            walk.run(place)
            reason = _replace(walk, found, compute)
            if not reason:
                done.append(found.name)
                continue
            skips.append(Skip(found.name, reason, found.codes.size))
        walk.pending.append(nodes[place])
    walk.run(len(nodes))
    outputs = [value.name or "" for value in model.ir.graph.outputs]
    return Replaced(
        outputs=[[values[name] for name in outputs] for values in walk.streams],
        layers=tuple(done),
        skips=tuple(skips),
    )


def _convolutions(
    model: Model, nodes: Sequence[ir.Node]
) -> Iterator[tuple[int, FoundLayer | Skip | None]]:
    """Every node, with the convolution that it is; a product with integer weights as a skip."""
    reader, tracer = CodeReader(), ConstantTracer(model.shapes())
    for place, node in enumerate(nodes):
        found = find_layer(node, reader, tracer)
        if isinstance(found, FoundLayer) and node.op_type not in CONVOLUTIONS:
            found = Skip(found.name, PRODUCT, found.codes.size)
        yield place, found


def _last_uses(model: Model, nodes: Sequence[ir.Node]) -> dict[str, int]:
    """Value name -> index of the last node that reads it; the end for graph outputs."""
    last = {v.name or "": index for index, node in enumerate(nodes) for v in values_read(node)}
    last.update({value.name or "": len(nodes) for value in model.ir.graph.outputs})
    return last


def _replace(walk: _Walk, found: FoundLayer, compute: Compute) -> str:
    """Compute one convolution on all feeds, in place; why not, or empty."""
    node = found.node
    values = walk.gathered([value.name or "" for value in node.inputs if value is not None])
    layer = read_layer(found, values)
    if isinstance(layer, Skip):
        return layer.reason
    leave = _Leaving.of(node, layer, values)
    if leave is None:
        return NO_SCALE
    sums = np.asarray(compute(layer))
    flat = values[found.activation.name or ""][0].ndim == 3
    name = node.outputs[0].name or ""
    start = 0
    for stream in walk.streams:
        count = len(stream[found.activation.name or ""])
        part = leave.given_back(sums[start : start + count])
        stream[name] = part[:, :, 0] if flat else part
        start += count
    return ""


@dataclass(frozen=True, slots=True)
class _Leaving:
    """From sums of integers to what a node gives.

    ``step`` and ``bias`` are one per output channel, or one for all, shaped to go with
    (n, out, oh, ow); ``codes`` (scale, zero point) where the node gives 8-bit codes.
    """

    step: FloatArray
    bias: FloatArray
    dtype: np.dtype[np.generic]
    codes: tuple[float, int] | None = None

    @classmethod
    def of(
        cls, node: ir.Node, layer: NamedLayer, values: Mapping[str, list[Array]]
    ) -> _Leaving | None:
        """How the results of a convolution leave it; None where its scales are not known."""
        if node.op_type == "ConvInteger":
            return cls(np.ones(1), np.zeros(1), np.dtype(np.int32))
        if layer.input_scale is None or not layer.weight_scales.size:
            return None
        step = (layer.weight_scales * layer.input_scale).reshape(-1, 1, 1)
        place = 8 if node.op_type == "QLinearConv" else 2
        bias = _value(node, place, values)
        shift = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1, 1, 1)
        if node.op_type == "Conv":
            first = values[layer_input(node)][0]
            return cls(step, shift, first.dtype)
        scale, zero = (_value(node, spot, values) for spot in (6, 7))
        if scale is None or zero is None or scale.size != 1:
            return None
        out = (float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]))
        return cls(step, shift * step, zero.dtype, out)

    def given_back(self, sums: FloatArray | Array) -> Array:
        """The values of the node's output."""
        if self.dtype == np.int32:
            return np.rint(sums).astype(np.int32)
        values = sums * self.step + self.bias
        if self.codes is None:
            return np.asarray(values.astype(self.dtype))
        limits = np.iinfo(self.dtype)  # type: ignore[type-var]
        codes = np.rint(values / self.codes[0]) + self.codes[1]
        return np.asarray(np.clip(codes, limits.min, limits.max).astype(self.dtype))


def layer_input(node: ir.Node) -> str:
    """Name of what enters a convolution."""
    value = node.inputs[0]
    return "" if value is None else value.name or ""


def _value(node: ir.Node, place: int, values: Mapping[str, list[Array]]) -> Array | None:
    """An input of a node, constant or at hand."""
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None:
        return None
    known = constant_array(value)
    there = values.get(value.name or "")
    return there[0] if known is None and there else known
