"""What one operator has to do: counts only, no ONNX and no device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WeightValues = Literal["none", "codes", "winograd"]
"""What a cost model wants to know about the values of weights: nothing, the statistics of their
codes, or those and the share of zeros of their Winograd transforms."""


@dataclass(frozen=True, slots=True)
class AssumedBits:
    """Widths that floats are taken to have on the device.

    Attributes:
        activations: Of activations; narrower ones keep their width.
        weights: Of weights; likewise.
    """

    activations: int
    weights: int

    def __post_init__(self) -> None:
        if not 1 <= self.activations <= 32 or not 1 <= self.weights <= 32:
            raise ValueError("widths are from 1 to 32 bits")


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
        input_on_chip, output_on_chip: The tensor is kept on the device between two operators of a
            chain, so that it does not go through memory.
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
    input_on_chip: bool = False
    output_on_chip: bool = False

    @property
    def weight_elements(self) -> int:
        """Weights."""
        taps = self.kernel[0] * self.kernel[1]
        return self.out_channels * self.in_channels // self.group * taps

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
        input_on_chip, output_on_chip: As in `ConvWork`; the first operand and the result.
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
    input_on_chip: bool = False
    output_on_chip: bool = False

    @property
    def weight_elements(self) -> int:
        """Elements of the second operands, those that are used again once."""
        return self.count // self.repeats * self.inner * self.columns

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
class WeightStatistics:
    """What was measured on the codes of one weight, for weight streams and zero skipping.

    Attributes:
        count: Codes.
        levels: Distinct codes.
        entropy_bits: Shannon entropy of the codes, bits a code (0 to log2 of ``levels``).
        zero_share: Share of codes that stand for zero.
        zero_run_bits: Bits a code of a zero-run code: every non-zero code is preceded by the number
            of zeros before it in 4 bits (a longer run takes a stuffing code).
        winograd_zero_shares: (omega, share) for the tile sizes that the kernel allows: share of the
            transformed weights G g G^T that are zero; empty for everything but square convolution
            kernels of 3 or 5.
    """

    count: int
    levels: int
    entropy_bits: float
    zero_share: float
    zero_run_bits: float
    winograd_zero_shares: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorUse:
    """An activation that an operator reads or writes.

    Attributes:
        name: Value name; unique in the graph.
        bits: Of the whole tensor as it is kept between operators.
        width_bits: Of an element.
    """

    name: str
    bits: int
    width_bits: int = 32


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
        reads, writes: The activations, for lifetimes and chains.
        weights: Statistics of the weight; None where there is none or where they were not asked.
    """

    name: str
    op_type: str
    operator: OperatorWork
    input_bits: int
    output_bits: int
    assumed: str = ""
    source_layer: str = ""
    reads: tuple[TensorUse, ...] = ()
    writes: tuple[TensorUse, ...] = ()
    weights: WeightStatistics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySplit:
    """Energy of one operator by cause.

    Attributes:
        mac_pj: Of the multiply-accumulates.
        on_chip_pj: Of reads and writes of on-chip buffers.
        dram_pj: Of what is moved over the memory port.
        static_pj: Drawn while it runs, whatever it does.
    """

    mac_pj: float
    on_chip_pj: float
    dram_pj: float
    static_pj: float

    @property
    def total_pj(self) -> float:
        """All of it."""
        return self.mac_pj + self.on_chip_pj + self.dram_pj + self.static_pj


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Time of one operator on one target, by cause.

    Attributes:
        name: Node name.
        compute_cycles, load_cycles, store_cycles: By cause, each as if alone; they may overlap.
        decode_cycles: Of the decoder of a coded weight stream; overlaps too.
        fill_cycles: In which nothing overlaps: first load, pipeline fill, last store.
        total_cycles: What the operator adds to the latency.
        latency_s: ``total_cycles`` over the clock.
        bottleneck: ``compute``, ``load``, ``store``, ``decode``, ``fill`` or ``none``.
        utilisation: MACs done over MACs possible in ``total_cycles``, 0 to 1 (above 1 where
            an algorithm such as Winograd saves multiplications).
        weight_bytes, activation_bytes: Moved over the memory port.
        on_chip_bytes: On-chip memory that is occupied at the same time.
        energy_pj: None where the target states no energy.
        energy: The same by cause, where it is known.
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
    decode_cycles: float = 0.0
    on_chip_bytes: float = 0.0
    energy_pj: float | None = None
    energy: EnergySplit | None = None
    assumed: str = ""
