"""The simulator of each accelerator family, set up as a target says.

A family is here by the name of its file in ``hardware/models``. Its machine runs a layer, and says
what the cost model predicts for the same layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.errors import Unsupported
from edgecompress.core.work import ConvWork, MatMulWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.families import family_named
from edgecompress.hardware.models import _systolic, _winograd, lut_mac
from edgecompress.hardware.simulator import (
    bit_fusion,
    bit_serial,
    systolic,
    ternary_engine,
    wino_datapath,
    winocnn,
)
from edgecompress.hardware.simulator import lut_mac as lut_mac_array
from edgecompress.hardware.simulator.layers import (
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    Simulated,
)
from edgecompress.hardware.simulator.ternary_blocks import TernaryArray
from edgecompress.hardware.target import Target, WeightStream

OWN_ROWS = "row steps as the buffers allow them, not as the published host software plans them"
ALL_WEIGHTS = "weights that are zero in the Winograd domain are not skipped, nor predicted so"
UNCODED = "weights in slots of a fixed width, not as a coded stream, in both"
AS_PIXELS = "a matrix product as a 1x1 convolution over its rows"
_SHARE_STEPS = 1000
_ROUNDING = 1e-6  # of shares such as 0.8 that are no binary fractions
_DIGITS = 6
_AMPLE = 1e15  # bytes a second: the share of the ports says it all
_TILES = (1, 2, 4, 8)
_SHARED = (1, 3)  # kernels that the published datapath is known for


@dataclass(frozen=True, slots=True)
class MachineRun:
    """One layer on a machine.

    Attributes:
        simulated: What the simulator gave.
        predicted_cycles: Of the cost model, for the same work.
        note: What was done to run it; empty otherwise.
    """

    simulated: Simulated
    predicted_cycles: float
    note: str = ""


Machine = Callable[[Target, Work, IntegerLayer], MachineRun]


def machine_of(target: Target) -> Machine:
    """The simulator of the target's family.

    Raises:
        Unsupported: It has none.
    """
    if target.family not in MACHINES:
        raise Unsupported(
            f"there is no simulator for the family {target.family!r} of the target {target.name!r}",
            hint=f"families with one: {', '.join(sorted(MACHINES))}",
        )
    return MACHINES[target.family]


def _systolic_run(held: systolic.Held) -> Machine:
    def run(target: Target, work: Work, layer: IntegerLayer) -> MachineRun:
        family = family_named(target.family)
        if not isinstance(family, _systolic.Systolic):
            raise TypeError(f"{target.family} is not a systolic family")
        p = _systolic.parameters_of(target)
        array = systolic.SystolicArray(
            rows=p.array_rows,
            columns=p.array_columns,
            held=held,
            block=family.mapped(work, target).mapping.block or None,
        )
        return _compared(systolic.simulate(array, layer), work, target)

    return run


def _same_fields(kind: type[Any], simulate: Callable[[Any, IntegerLayer], Simulated]) -> Machine:
    """A machine whose array has some of the target's numbers, by the same names."""

    def run(target: Target, work: Work, layer: IntegerLayer) -> MachineRun:
        array = kind(**{one.name: getattr(target.parameters, one.name) for one in fields(kind)})
        return _compared(simulate(array, layer), work, target)

    return run


def _lut_mac_run(target: Target, work: Work, layer: IntegerLayer) -> MachineRun:
    p = target.parameters
    if not isinstance(p, lut_mac.Parameters):
        raise TypeError(f"{target.name} is not a LUT-MAC array")
    widths = p.built_for(layer.input_bits, layer.weight_bits)
    rows, columns = p.shape(*widths)
    array = lut_mac_array.LutMacArray(
        dot_length=rows,
        columns=columns,
        unit_activation_bits=widths[0],
        unit_weight_bits=widths[1],
        pipeline_cycles=p.pipeline_cycles,
        accumulators=p.accumulators,
    )
    return _compared(lut_mac_array.simulate(array, layer), work, target)


def _compared(simulated: Simulated, work: Work, target: Target) -> MachineRun:
    """Cycles of the array against what the cost model says of it alone."""
    return MachineRun(simulated, cost(work, target).compute_cycles)


def _winocnn_run(target: Target, work: Work, layer: IntegerLayer) -> MachineRun:
    """The array with its ports: all cycles of the operator are compared."""
    p = target.parameters
    if not isinstance(p, _winograd.Parameters):
        raise TypeError(f"{target.name} is not a WinoCNN array")
    strict, array = wino_array(target, p)
    changed = (
        "" if p.bound_rows_by_output else OWN_ROWS,
        ALL_WEIGHTS if p.skips_zero_weights else "",
        UNCODED if target.weight_stream.encoding != "fixed" else "",
    )
    note = "; ".join(text for text in changed if text)
    # The simulator ends a layer with a whole cycle; what is rounded off is the error of floats.
    predicted = math.ceil(round(cost(work, strict).total_cycles, _DIGITS))
    if isinstance(layer, IntegerConv):
        return MachineRun(winocnn.simulate(array, layer), predicted, note)
    found = min(
        (winocnn.simulate(array, conv) for conv in _as_pixels(layer, p)),
        key=lambda simulated: simulated.cycles,
    )
    images, columns = found.outputs.shape[:2]
    rows = found.outputs.transpose(0, 2, 3, 1).reshape(images, -1, columns)
    flat = rows.reshape(-1, columns)[: layer.inputs.shape[0]]
    notes = "; ".join(text for text in (note, AS_PIXELS) if text)
    return MachineRun(replace(found, outputs=flat), predicted, notes)


def truncating_datapath(target: Target) -> wino_datapath.Datapath | None:
    """The datapath of a target that does not give exact sums; None where they are exact."""
    p = target.parameters
    if not isinstance(p, _winograd.Parameters) or p.kernels != _SHARED:
        return None
    return wino_datapath.PUBLISHED.get(p.omega_pixels)


def truncated_sums(layer: IntegerLayer, datapath: wino_datapath.Datapath) -> FloatArray:
    """What a truncating datapath gives for a layer, in the unit of its exact sums."""
    conv = layer if isinstance(layer, IntegerConv) else as_one_pixel(layer)
    scales = wino_datapath.choose_scales(conv, datapath)
    sums: FloatArray = wino_datapath.truncated_conv(conv, datapath, scales) * scales.unit
    return sums if conv is layer else sums[:, :, 0, 0]


def as_one_pixel(layer: IntegerProduct) -> IntegerConv:
    """A product as a 1x1 convolution, each row an image of one pixel."""
    return IntegerConv(
        inputs=layer.inputs[:, :, None, None],
        weights=layer.weights.T[:, :, None, None],
        zero_point=layer.zero_point,
        input_bits=layer.input_bits,
        weight_bits=layer.weight_bits,
        input_signed=layer.input_signed,
    )


def wino_array(target: Target, p: _winograd.Parameters) -> tuple[Target, winocnn.WinoArray]:
    """A WinoCNN target as the simulator can execute it, and its array.

    The share of its words that a port gets from memory is rounded down to a fraction of small
    whole numbers, in which the simulator counts.
    """
    steps = int(_winograd.port_share(target, p) * _SHARE_STEPS + _ROUNDING)
    share = Fraction(max(1, steps), _SHARE_STEPS)
    own = p.model_copy(update={"bound_rows_by_output": True, "skips_zero_weights": False})
    stream = WeightStream(encoding="fixed", weight_bits=target.weight_stream.weight_bits)
    strict = replace(
        target,
        parameters=own,
        weight_stream=stream,
        dram_efficiency_share=float(share),
        dram_bytes_per_s=_AMPLE,
    )
    return strict, winocnn_array(strict, p, share)


def winocnn_array(target: Target, p: _winograd.Parameters, share: Fraction) -> winocnn.WinoArray:
    """The simulator's description of an array whose ports get ``share`` of their words."""
    return winocnn.WinoArray(
        omega=p.omega_pixels,
        kernels=p.kernels,
        rows=p.array_rows,
        columns=p.array_columns,
        channels=p.channels_per_element,
        images=p.batch_images,
        bank_words=p.input_bank_words,
        bank_columns=p.input_bank_columns,
        weight_words=p.weight_buffer_words,
        output_words=p.output_buffer_words,
        weight_ports=p.weight_ports,
        input_ports=p.input_ports,
        output_ports=p.output_ports,
        port_bits=p.port_bits,
        fill=p.fill_cycles,
        words_per_cycles=(share.numerator, share.denominator),
        weight_bits=target.weight_stream.weight_bits,
    )


def _as_pixels(layer: IntegerProduct, p: _winograd.Parameters) -> Iterator[IntegerConv]:
    """A product as 1x1 convolutions, its rows as images of several widths."""
    rows, inner = layer.inputs.shape
    pixels = -(-rows // p.batch_images)
    tile = p.omega_pixels * p.array_columns
    for width in sorted({min(pixels, tile * tiles) for tiles in _TILES}):
        height = -(-pixels // width)
        images = min(p.batch_images, -(-rows // (height * width)))
        padded = np.full((images * height * width, inner), layer.zero_point, np.int64)
        padded[:rows] = layer.inputs
        yield IntegerConv(
            inputs=padded.reshape(images, height, width, inner).transpose(0, 3, 1, 2),
            weights=layer.weights.T[:, :, None, None],
            zero_point=layer.zero_point,
            input_bits=layer.input_bits,
            weight_bits=layer.weight_bits,
            input_signed=layer.input_signed,
        )


def operator_of(layer: IntegerLayer) -> ConvWork | MatMulWork:
    """A layer's sizes and widths, as the cost models take them."""
    widths: dict[str, Any] = {
        "weight_bits": layer.weight_bits,
        "activation_bits": layer.input_bits,
        "weight_storage_bits": layer.weights.size * layer.weight_bits,
    }
    match layer:
        case IntegerProduct():
            rows, inner = layer.inputs.shape
            return MatMulWork(
                count=1,
                rows=rows,
                inner=inner,
                columns=layer.weights.shape[1],
                constant=True,
                **widths,
            )
        case IntegerConv():
            images, channels, height, width = layer.inputs.shape
            kh, kw = layer.weights.shape[2:]
            top, left, bottom, right = layer.pads
            high = height + top + bottom - (kh - 1) * layer.dilation[0] - 1
            wide = width + left + right - (kw - 1) * layer.dilation[1] - 1
            return ConvWork(
                batch=images,
                in_channels=channels,
                out_channels=layer.weights.shape[0],
                in_height=height,
                in_width=width,
                out_height=high // layer.stride[0] + 1,
                out_width=wide // layer.stride[1] + 1,
                kernel=(kh, kw),
                stride=layer.stride,
                dilation=layer.dilation,
                pads=layer.pads,
                group=layer.group,
                **widths,
            )


MACHINES: dict[str, Machine] = {
    "bit_fusion": _same_fields(bit_fusion.BitFusionArray, bit_fusion.simulate),
    "bit_serial": _same_fields(bit_serial.BitSerialArray, bit_serial.simulate),
    "lut_mac": _lut_mac_run,
    "systolic_is": _systolic_run("inputs"),
    "systolic_os": _systolic_run("sums"),
    "systolic_ws": _systolic_run("weights"),
    "ternary_engine": _same_fields(TernaryArray, ternary_engine.simulate),
    "winocnn": _winocnn_run,
}
