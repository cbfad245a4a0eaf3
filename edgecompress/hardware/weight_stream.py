"""What the weights of an operator take on their way from memory, by the target's encoding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, WeightStatistics, Work
from edgecompress.hardware.target import Target, WeightStream
from edgecompress.hardware.timeline import stored_width

UNMEASURED = "weight values are not at hand: the code is taken to be as wide as the weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTraffic:
    """All weights of an operator, once.

    Attributes:
        byte_count: Over the memory port.
        decode_cycles: Of the decoder; 0 if it is never what is waited for.
        elements: Weights.
        assumed: What was assumed; empty when measured.
    """

    byte_count: float
    decode_cycles: float
    elements: int
    assumed: str = ""


def weight_traffic(work: Work, target: Target) -> WeightTraffic:
    """Bytes and decoder cycles of the weights of a convolution or a matrix product.

    The second operand of a product of two activations has the width of an activation and is not
    coded.
    """
    stream, operator = target.weight_stream, work.operator
    if isinstance(operator, ElementWork):
        raise TypeError("element-wise work has no weights")
    elements = operator.weight_elements
    if isinstance(operator, MatMulWork) and not operator.constant:
        width = stored_width(operator.activation_bits, target)
        return WeightTraffic(byte_count=elements * width / 8, decode_cycles=0.0, elements=elements)
    bits, assumed = _bits(operator, work.weights, target.weight_stream)
    rate = stream.decoder_weights_per_cycle
    return WeightTraffic(
        byte_count=min(bits, elements * stream.weight_bits) / 8,
        decode_cycles=0.0 if rate is None else elements / rate,
        elements=elements,
        assumed=assumed,
    )


def _bits(
    operator: ConvWork | MatMulWork, found: WeightStatistics | None, stream: WeightStream
) -> tuple[float, str]:
    """Bits of all weights in the code of the target, and what was assumed."""
    elements = operator.weight_elements
    if stream.encoding == "fixed":
        return elements * stream.weight_bits, ""
    if stream.encoding == "packed":
        return operator.weight_storage_bits or elements * operator.weight_bits, ""
    if found is None:
        width = min(operator.weight_bits, stream.weight_bits)
        return elements * (width + stream.overhead_bits), UNMEASURED
    if stream.encoding == "entropy":
        return elements * (found.entropy_bits + stream.overhead_bits), ""
    if stream.encoding == "dictionary":
        return elements * (math.ceil(math.log2(max(2, found.levels))) + stream.overhead_bits), ""
    return elements * found.zero_run_bits, ""
