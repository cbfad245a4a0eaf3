"""Decomposed layers whose stages share bonds.

What one stage gives is what the next one takes, and any invertible mix of it leaves the layer as
it is: the freedom that lets ranks be put in order and cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.graph.model import Model
from edgecompress.graph.values import constant_array


@dataclass(frozen=True, slots=True)
class Stage:
    """One product of a chain.

    Attributes:
        weight: Name of its initializer.
        output: Name of the value that it gives.
        channel_axis: Of that value, the one that the next stage takes.
        leaving, entering: Axes of the weight for what it gives and takes.
        price: Of one entry of the weight, in units of the budget.
    """

    weight: str
    output: str
    channel_axis: int
    leaving: int
    entering: int
    price: float


@dataclass(frozen=True, slots=True)
class Chain:
    """A decomposed layer whose stages share bonds.

    Attributes:
        layer: Its name in the float graph.
        stages: At least two, in order.
        multiple: Ranks are multiples of this.
    """

    layer: str
    stages: tuple[Stage, ...]
    multiple: int


def find_chains(
    student: Model,
    changed: Sequence[str],
    multiples: Mapping[str, int],
    prices: Mapping[str, float],
) -> tuple[Chain, ...]:
    """The chains of plain convolutions and matrix products in a decomposed graph.

    Args:
        student: The graph.
        changed: Decomposed layers.
        multiples: Of the ranks, by layer.
        prices: Of one entry of a weight, by node.

    Returns:
        Layers with another node between their stages (depthwise ones, reshapes) are not among
        them: a mix of what is between two stages would not leave them as they are.
    """
    parts: dict[str, list[ir.Node]] = {name: [] for name in changed}
    for node in student.ir.graph:
        layer = student.origins.get(node.name or "")
        if layer in parts:
            parts[layer].append(node)
    found = []
    for layer, nodes in parts.items():
        stages = _stages(nodes, prices)
        if stages is not None:
            found.append(Chain(layer, stages, multiples.get(layer, 1)))
    return tuple(found)


def _stages(nodes: Sequence[ir.Node], prices: Mapping[str, float]) -> tuple[Stage, ...] | None:
    """The stages of a layer; None where they are not a plain chain of products."""
    found: list[Stage] = []
    before: ir.Value | None = None
    for node in nodes:
        if before is not None and node.op_type == "Add" and node is nodes[-1]:
            break
        stage = _stage(node, prices)
        linked = before is None or (node.inputs[0] is before and len(before.uses()) == 1)
        if stage is None or not linked or (node is not nodes[-1] and _has_bias(node)):
            return None
        found.append(stage)
        before = node.outputs[0]
    return tuple(found) if len(found) > 1 else None


def _stage(node: ir.Node, prices: Mapping[str, float]) -> Stage | None:
    if len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    array = constant_array(value)
    if value is None or array is None or not value.name:
        return None
    price = prices.get(node.name or "")
    if price is None:
        return None
    output = node.outputs[0].name or ""
    match node.op_type:
        case "Conv" if node.attributes.get_int("group", 1) == 1:
            return Stage(value.name, output, 1, 0, 1, price)
        case "MatMul" if array.ndim == 2:
            return Stage(value.name, output, -1, 1, 0, price)
        case _:
            return None


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2
