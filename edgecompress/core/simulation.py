"""What came out of running layers of a network on a simulated array."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.layers import Skip
from edgecompress.core.report import FileFact

SIMULATION_SCHEMA = "edgecompress.simulation-report/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLayer:
    """One convolution or matrix product.

    Attributes:
        name, op_type: Of the node.
        groups, rows, inner, columns: The matrix products that were simulated: how many, and the
            size of each.
        all_rows: Rows of each of these products in the whole layer.
        input_bits, weight_bits: Widths of the codes in the datapath.
        stored_bits: Width of a weight in the file.
        input_quantized_here: The graph computes this input in floats; 8-bit codes were made from
            its range.
        multiplications: That the array did, padding of the array and idle lanes not counted.
        cycles: Counted by the simulator.
        predicted_cycles: Of the cost model for what was simulated.
        cycles_agree: They are the same.
        outputs_agree: Every sum is that of onnxruntime's integer operator on the same codes.
        snr_db: Of the results of a datapath that truncates against the exact sums; None where the
            datapath is exact.
        note: What was done to run it here; empty otherwise.
    """

    name: str
    op_type: str
    groups: int
    rows: int
    inner: int
    columns: int
    all_rows: int
    input_bits: int
    weight_bits: int
    stored_bits: int
    input_quantized_here: bool
    multiplications: int
    cycles: int
    predicted_cycles: float
    cycles_agree: bool
    outputs_agree: bool
    snr_db: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """Layers of one network on one simulated array.

    Attributes:
        model: The file.
        target, family, target_source: The device.
        samples: Inputs that the codes come from.
        data_source: What they were.
        row_limit: Pixels or rows that were simulated of each layer at most; 0 for all.
        layers: In graph order.
        skips: What was not simulated, with reasons.
        agrees: All cycles and all exact outputs agree.
        notes: What holds for all layers, in words.
    """

    model: FileFact
    target: str
    family: str
    target_source: str
    samples: int
    data_source: str
    row_limit: int
    layers: tuple[SimulatedLayer, ...]
    skips: tuple[Skip, ...]
    agrees: bool
    notes: tuple[str, ...] = ()
