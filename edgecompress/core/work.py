"""What one operator has to do: counts only, no ONNX and no device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvWork:
    """A convolution over two spatial axes (one axis: height 1) of one image batch.

    Attributes:
        batch: Images.
        in_channels, out_channels: Over all groups.
        in_height, in_width, out_height, out_width: Feature map sizes, without padding.
        kernel: (height, width).
        stride, dilation: (vertical, horizontal).
        pads: (top, left, bottom, right).
        group: Number of groups.
        transposed: Transposed convolution: the kernel is swept over the input.
        weight_bits: Width of a weight code.
        activation_bits: Width of an activation.
        weight_storage_bits: All weights as stored in the file, packing included.
    """

    batch: int
    in_channels: int
    out_channels: int
    in_height: int
    in_width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int
    transposed: bool = False
    weight_bits: int = 32
    activation_bits: int = 32
    weight_storage_bits: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a direct convolution."""
        pixels = (
            self.in_height * self.in_width if self.transposed else self.out_height * self.out_width
        )
        per_pixel = self.kernel[0] * self.kernel[1] * self.in_channels // self.group
        return self.batch * pixels * per_pixel * self.out_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class MatMulWork:
    """``count`` matrix products (rows x inner) (inner x columns).

    Attributes:
        constant: The second operand is a weight; else both are activations.
        repeats: Products that use the same weight one after the other (the steps of a recurrent
            cell); divides ``count``.
        weight_bits, activation_bits, weight_storage_bits: As in `ConvWork`.
    """

    count: int
    rows: int
    inner: int
    columns: int
    constant: bool
    repeats: int = 1
    weight_bits: int = 32
    activation_bits: int = 32
    weight_storage_bits: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.count * self.rows * self.inner * self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementWork:
    """Anything that reads and writes tensors with a few operations per element.

    Attributes:
        operations: Arithmetic operations; 0 for pure data movement.
        read_bits, written_bits: Activation traffic.
        weight_storage_bits: Constants read (embedding rows, recurrent weights, ...).
        movement: Only moves data (reshape, transpose, concat, gather, ...).
        free: Takes nothing on any device (a change of shape, a constant).
        fused: An activation function or a requantisation right after a convolution or a matrix
            product; most devices do it while they write the results.
        activation_bits: Width of an element of the tensors read and written.
    """

    operations: int
    read_bits: int
    written_bits: int
    weight_storage_bits: int = 0
    movement: bool = False
    free: bool = False
    fused: bool = False
    activation_bits: int = 32


OperatorWork = ConvWork | MatMulWork | ElementWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One operator of the graph.

    Attributes:
        name: Node name.
        op_type: ONNX operator type, for the report.
        operator: The counts.
        input_bits, output_bits: Activation traffic if nothing stays on chip.
        assumed: What was assumed to cost it (an operator without an exact model, a shape that was
            guessed, a body that was counted once); empty when exact.
        source_layer: Name of the layer this operator was made from by a decomposition, or empty.
    """

    name: str
    op_type: str
    operator: OperatorWork
    input_bits: int
    output_bits: int
    assumed: str = ""
    source_layer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Time of one operator on one target, by cause.

    Attributes:
        name: Node name.
        compute_cycles, load_cycles, store_cycles, fill_cycles: By cause; they may overlap.
        total_cycles: What the operator adds to the latency.
        latency_s: ``total_cycles`` over the clock.
        bottleneck: ``compute``, ``load``, ``store``, ``fill`` or ``none``.
        utilisation: MACs done over MACs possible in ``total_cycles``, 0 to 1 (above 1 where
            an algorithm such as Winograd saves multiplications).
        weight_bytes, activation_bytes: Moved over the memory port.
        energy_pj: None where the target states no energy.
        assumed: What was assumed; empty when exact.
    """

    name: str
    compute_cycles: float
    load_cycles: float
    store_cycles: float
    fill_cycles: float
    total_cycles: float
    latency_s: float
    bottleneck: str
    utilisation: float
    weight_bytes: float
    activation_bytes: float
    energy_pj: float | None = None
    assumed: str = ""
