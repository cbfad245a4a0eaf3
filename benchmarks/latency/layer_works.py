"""Convolutions and products of the tables of `layered` as counts, in 8 bits."""

from __future__ import annotations

from layered import Layer, Table

from edgecompress.core.work import ConvWork, MatMulWork


def product_of(table: Table, layer: Layer) -> ConvWork | MatMulWork | None:
    """The counts of a layer; None for what has no weights."""
    before = table.layers[layer.inputs[0]]
    if layer.kind in ("conv", "depthwise"):
        return ConvWork(
            batch=1,
            in_channels=before.channels,
            out_channels=layer.channels,
            in_height=before.height,
            in_width=before.width,
            out_height=layer.height,
            out_width=layer.width,
            kernel=layer.kernel,
            stride=layer.stride,
            dilation=(1, 1),
            pads=(0, 0, 0, 0),
            group=before.channels if layer.kind == "depthwise" else 1,
            weight_bits=8,
            activation_bits=8,
        )
    if layer.kind == "fc":
        return MatMulWork(
            count=1,
            rows=1,
            inner=before.channels * before.height * before.width,
            columns=layer.channels * layer.height * layer.width,
            constant=True,
            weight_bits=8,
            activation_bits=8,
        )
    return None
