"""The in-graph decoder: radix bytes -> int8 codes, one decode for all weights of a grid.

``Cast(INT32) -> Gather(table) -> Reshape(-1) -> Split -> Reshape(weight shape)``: plain operators
of opset 13, which onnxruntime folds when it loads the file. The 3-bit grid has two planes, joined
by ``BitwiseOr`` (opset 18).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.core.grids import Grid
from edgecompress.core.tensors import Affine
from edgecompress.graph.emitter import Emitter
from edgecompress.quantizers._packing import pack_codes, planes_of

CODEC = "radix/1"
CODEC_KEY = "edgecompress.codec"

# One decode covers at most this many codes: onnxruntime does not fold a node whose output is over
# 1 GiB, and what it folds is in memory together with the parts (see benchmarks/forms).
_DECODE_LIMIT = 1 << 24


def decode_weights(emit: Emitter, weights: Mapping[str, Affine]) -> dict[str, ir.Value]:
    """Emit the decoders of all weights; the caller places the nodes.

    Args:
        emit: Of the graph that the weights are in.
        weights: By the name of their initializer.

    Returns:
        By the same names, int8 values of the weights' shapes.
    """
    by_grid: dict[str, list[str]] = {}
    for name, affine in weights.items():
        by_grid.setdefault(affine.grid.name, []).append(name)
    decoded: dict[str, ir.Value] = {}
    for names in by_grid.values():
        grid = weights[names[0]].grid
        if planes_of(grid):
            for chunk in _chunks(names, weights):
                decoded |= _decode(emit, grid, {name: weights[name] for name in chunk})
        else:
            decoded |= {name: emit.constant(weights[name].codes, f"{name}_q") for name in names}
    return decoded


def _chunks(names: Sequence[str], weights: Mapping[str, Affine]) -> Iterator[list[str]]:
    """Names in order, cut so that one decode stays small; a large weight is alone."""
    chunk: list[str] = []
    size = 0
    for name in names:
        count = weights[name].codes.size
        if chunk and size + count > _DECODE_LIMIT:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += count
    yield chunk


def _decode(emit: Emitter, grid: Grid, weights: Mapping[str, Affine]) -> dict[str, ir.Value]:
    """One decoder and the Split into its weights."""
    sizes = [affine.codes.size for affine in weights.values()]
    unit = math.lcm(*(plane.digits for plane in planes_of(grid)))
    filler = -sum(sizes) % unit
    parts: list[Array] = [affine.codes.reshape(-1) for affine in weights.values()]
    codes = np.concatenate([*parts, np.full(filler, grid.codes[0])])
    flat = _flat_codes(emit, grid, codes)
    sizes += [filler] if filler else []
    names = list(weights)
    if len(sizes) == 1:
        return {names[0]: _reshaped(emit, flat, weights[names[0]], names[0])}
    stems = [*(f"{name}_flat" for name in names), *(["filler"] if filler else [])]
    cuts = emit.constant(np.array(sizes, np.int64), f"codes{grid.name}_sizes")
    pieces = emit.nodes("Split", (flat, cuts), stems, axis=0)
    return {
        name: _reshaped(emit, piece, weights[name], name)
        for name, piece in zip(names, pieces, strict=False)
    }


def _flat_codes(emit: Emitter, grid: Grid, codes: Array) -> ir.Value:
    """All codes as one int8 vector."""
    minus_one = emit.constant(np.array([-1], np.int64), "flat")
    result: ir.Value | None = None
    for plane, packed in zip(planes_of(grid), pack_codes(codes, grid), strict=True):
        stem = f"codes{grid.name}"
        rows = emit.cast(emit.constant(packed, f"{stem}_packed"), ir.DataType.INT32, f"{stem}_rows")
        table = emit.constant(plane.table, f"{stem}_table")
        digits = emit.node("Gather", (table, rows), f"{stem}_digits", axis=0)
        values = emit.node("Reshape", (digits, minus_one), stem)
        result = values if result is None else emit.node("BitwiseOr", (result, values), stem)
    if result is None:
        raise ValueError(f"grid {grid.name} has no planes")
    return result


def _reshaped(emit: Emitter, piece: ir.Value, affine: Affine, name: str) -> ir.Value:
    shape = emit.constant(np.array(affine.shape, np.int64), f"{name}_shape")
    value = emit.node("Reshape", (piece, shape), f"{name}_q")
    value.dtype, value.shape = ir.DataType.INT8, ir.Shape(affine.shape)
    return value
