"""What the weight-stationary and the output-stationary array share: products, traffic, overlap.

A convolution is a matrix product of (pixels x kernel taps) with (kernel taps x output channels),
with the input gathered on the fly, so that overlapping windows are not loaded twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, Work
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import PositiveInt, Target
from edgecompress.hardware.timeline import HostElements, Timeline, as_cost, stored_width
from edgecompress.hardware.weight_stream import weight_traffic

GROUPED = "grouped convolution: group after group, each alone on the array"
UPSAMPLED = "transposed convolution: one product per input pixel, overlaps added on the way out"
ACTIVATIONS = "product of two activations: one is loaded like weights"


class Parameters(BaseModel):
    """A systolic array behind one memory port.

    Attributes:
        array_rows, array_columns: Processing elements; one multiply-accumulate each a cycle.
        activation_buffer_bytes, weight_buffer_bytes: On-chip memories, one half of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    array_rows: PositiveInt
    array_columns: PositiveInt
    activation_buffer_bytes: PositiveInt
    weight_buffer_bytes: PositiveInt


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """``count`` matrix products (rows x inner) (inner x columns) with their traffic in bytes.

    Attributes:
        input_bytes, weight_bytes, output_bytes: Of all products, each tensor once.
        repeats: Products in a row that use the same weights.
        assumed: What the product form assumes.
    """

    count: int
    rows: int
    inner: int
    columns: int
    input_bytes: float
    weight_bytes: float
    output_bytes: float
    repeats: int = 1
    assumed: tuple[str, ...] = ()


Fold = Callable[[int, int, int, int, int], tuple[int, int]]
"""Folds of a product and cycles of each, from (rows, inner, columns, array rows, columns)."""


def parameters_of(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a systolic target")
    return target.parameters


def as_product(work: Work, target: Target) -> Product:
    """The matrix products of an operator."""
    match work.operator:
        case ConvWork() as conv:
            return _conv_product(work, conv, target)
        case MatMulWork() as product:
            width = stored_width(product.activation_bits, target) / 8
            weights = weight_traffic(work, target)
            return Product(
                count=product.count,
                rows=product.rows,
                inner=product.inner,
                columns=product.columns,
                input_bytes=product.count * product.rows * product.inner * width,
                weight_bytes=weights.byte_count,
                output_bytes=product.count * product.rows * product.columns * width,
                repeats=product.repeats,
                assumed=() if product.constant else (ACTIVATIONS,),
            )
        case ElementWork():
            raise TypeError("element-wise work does not run on the array")


def _conv_product(work: Work, conv: ConvWork, target: Target) -> Product:
    """A convolution as one product per group."""
    width = stored_width(conv.activation_bits, target) / 8
    taps = conv.kernel[0] * conv.kernel[1]
    inputs, outputs = conv.in_channels // conv.group, conv.out_channels // conv.group
    in_pixels = conv.batch * conv.in_height * conv.in_width
    out_pixels = conv.batch * conv.out_height * conv.out_width
    assumed = ((GROUPED,) if conv.group > 1 else ()) + ((UPSAMPLED,) if conv.transposed else ())
    return Product(
        count=conv.group,
        rows=in_pixels if conv.transposed else out_pixels,
        inner=inputs if conv.transposed else inputs * taps,
        columns=outputs * taps if conv.transposed else outputs,
        input_bytes=in_pixels * conv.in_channels * width,
        weight_bytes=weight_traffic(work, target).byte_count,
        output_bytes=out_pixels * conv.out_channels * width,
        assumed=assumed,
    )


def price(work: Work, target: Target, fold: Fold) -> Cost:
    """Time of one operator: loads, products and stores overlap, the ends do not.

    With double buffers the first load and the last store stand alone, and in between the slower
    of the array and the port decides.
    """
    p = parameters_of(target)
    product = as_product(work, target)
    folds, per_fold = fold(
        product.rows, product.inner, product.columns, p.array_rows, p.array_columns
    )
    folds *= product.count
    cycles = folds * per_fold
    per_byte = 1 / target.dram_bytes_per_cycle
    input_bytes, weight_bytes = _reloaded(product, p)
    load = (input_bytes + weight_bytes) * per_byte
    store = product.output_bytes * per_byte
    ends = (load + store) / folds
    timeline = Timeline(
        compute=cycles,
        load=load,
        store=store,
        fill=ends,
        total=ends + max(cycles, (load + store) * (1 - 1 / folds)),
        macs_per_cycle=p.array_rows * p.array_columns,
        weight_bytes=weight_bytes,
        activation_bytes=input_bytes + product.output_bytes,
    )
    return as_cost(work, target, timeline, *product.assumed)


def bound_cycles(work: Work, target: Target) -> float:
    """Every multiply-accumulate once, or every tensor once."""
    p = parameters_of(target)
    product = as_product(work, target)
    moved = product.input_bytes + product.weight_bytes + product.output_bytes
    macs = product.count * product.rows * product.inner * product.columns
    per_byte = 1 / target.dram_bytes_per_cycle
    return max(macs / (p.array_rows * p.array_columns), moved * per_byte)


def _reloaded(product: Product, p: Parameters) -> tuple[float, float]:
    """Bytes of input and weights over the port, those that do not fit on chip more than once.

    Either the input is read again for every set of weights that the weight buffer holds, or the
    weights for every part of the input that the activation buffer holds: the cheaper way.
    """
    weights = product.weight_bytes * product.repeats / product.count
    inputs = product.input_bytes / product.count
    weight_parts = max(1, -(-weights // p.weight_buffer_bytes))
    input_parts = max(1, -(-inputs // p.activation_buffer_bytes))
    steps = product.repeats if weight_parts > 1 else 1
    if input_parts == 1 or weight_parts == 1:
        return product.input_bytes, product.weight_bytes * steps
    inputs_again = product.input_bytes * weight_parts + product.weight_bytes * steps
    weights_again = product.input_bytes + product.weight_bytes * input_parts * steps
    if inputs_again <= weights_again:
        return product.input_bytes * weight_parts, product.weight_bytes * steps
    return product.input_bytes, product.weight_bytes * input_parts * steps


class Systolic(HostElements):
    """The cost model of an array with one dataflow.

    Args:
        fold: Folds, and cycles of each, of a product on an array of some height and width.
    """

    parameters = Parameters

    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        return price(work, target, self._fold)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping can go below."""
        return bound_cycles(work, target)

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources | None:
        """Not modelled yet."""
        return None

    def chain_bytes(self, target: Target) -> int:
        """One half of the activation buffer."""
        return parameters_of(target).activation_buffer_bytes // 2
