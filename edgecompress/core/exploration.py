"""Report data of `explore`, of sweeps, and of checking and calibrating a target file."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.report import FileFact

EXPLORATION_SCHEMA = "edgecompress.exploration-report/1"
SWEEP_SCHEMA = "edgecompress.sweep-report/1"
TARGET_CHECK_SCHEMA = "edgecompress.target-check-report/1"
CALIBRATION_SCHEMA = "edgecompress.calibration-report/1"

Value = bool | int | float | str
"""What a number, a switch or a word of a target file can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A number of the target that is varied.

    Attributes:
        path: Its path in the target file.
        values: What it takes, in the order asked.
    """

    path: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignPoint:
    """One configuration of the target.

    Attributes:
        values: The varied numbers by path.
        score: What is minimised: see `ExplorationReport.objective`; 1 is the base target.
        latency_s: One inference, per network.
        throughput_per_s: Inferences a second, per network.
        energy_pj: One inference, mean over the networks as they are weighted; None if not known.
        dsp, bram18, lut: What the design takes; None where the family has no estimate.
        share: Largest share of a resource that is taken of the part, or of the base without one.
        picks: What it is the best for: ``latency``, ``resources``, ``energy``, ``balanced``.
    """

    values: dict[str, Value]
    score: float
    latency_s: tuple[float, ...]
    throughput_per_s: tuple[float, ...]
    energy_pj: float | None
    dsp: int | None
    bram18: int | None
    lut: int | None
    share: float | None
    picks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Points that were not priced.

    Attributes:
        reason: Why.
        points: How many.
    """

    reason: str
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationReport:
    """A search over the configurations of one family of accelerators.

    Attributes:
        models: The networks.
        weights: Of each network in the score; they sum to 1.
        target: Name of the target whose numbers hold where nothing is varied.
        part: The programmable device; empty for none.
        limits: Limits by name: ``dsp``, ``bram18``, ``lut``, ``memory_ports``,
            ``memory_port_bits``, ``dram_bytes_per_s``.
        objective: ``latency`` or ``throughput``: the time of one inference, or one over the
            inferences a second.
        networks: ``mean`` or ``worst``: how the networks' times over those of the base are joined.
        axes: What was varied.
        grid_points: All combinations.
        tried_points: Those that were looked at; fewer than all where a sample was drawn.
        refined_points: Those that were looked at besides, near the best.
        feasible_points: Those of both that were priced.
        dropped: The others, by reason.
        layer_shapes: Different operators over all networks.
        layer_configurations: Different pairs of operator and configuration that were priced.
        base: The base target itself.
        front: Points that no other beats in everything at once, best score first.
        cloud_scores, cloud_shares: Of at most 2,000 feasible points, for a plot.
        assumptions: In words.
        seed: Of the order, and of the sample.
        edges: Picks that lie at the edge of a varied range, in words.
    """

    models: tuple[FileFact, ...]
    weights: tuple[float, ...]
    target: str
    part: str
    limits: dict[str, float]
    objective: str
    networks: str
    axes: tuple[Axis, ...]
    grid_points: int
    tried_points: int
    refined_points: int
    feasible_points: int
    dropped: tuple[Dropped, ...]
    layer_shapes: int
    layer_configurations: int
    base: DesignPoint
    front: tuple[DesignPoint, ...]
    cloud_scores: tuple[float, ...]
    cloud_shares: tuple[float, ...]
    assumptions: tuple[str, ...]
    seed: int
    edges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSeries:
    """Latency on one target over the values of the swept number.

    Attributes:
        target: Its name.
        base_value: The number in the target file.
        base_latency_s: The latency there.
        latency_s, throughput_per_s: One per value; None where the target does not take the value.
        energy_pj: One per value; None without energy numbers.
        reasons: Why a value is not taken, one per value; empty where it is.
    """

    target: str
    base_value: Value
    base_latency_s: float
    latency_s: tuple[float | None, ...]
    throughput_per_s: tuple[float | None, ...]
    energy_pj: tuple[float | None, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """Latency of one model over one number of the targets.

    Attributes:
        model: The file.
        path: Path of the number in the target file.
        values: What it takes.
        series: One per target.
    """

    model: FileFact
    path: str
    values: tuple[Value, ...]
    series: tuple[SweepSeries, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCheck:
    """What was found in one target file.

    Attributes:
        file: As named.
        family: Empty if the file is invalid.
        problems: What makes it invalid; empty if it is valid.
        warnings: What looks off.
        sources: How many numbers are measured, published, arithmetic on other numbers, explored,
            assumed, or stated in words of their own.
        part: The programmable device; empty for none.
        used, available: Resources by name; empty without a part or an estimate.
    """

    file: str
    family: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    sources: dict[str, int]
    part: str
    used: dict[str, int]
    available: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCheckReport:
    """Target files, checked.

    Attributes:
        targets: One per file.
    """

    targets: tuple[TargetCheck, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedLayer:
    """One measured operator.

    Attributes:
        name: Node name.
        measured_s: The median where there are several rows.
        before_s, after_s: Predicted before and after the calibration.
        left_out_s: Predicted by a calibration without this operator.
    """

    name: str
    measured_s: float
    before_s: float
    after_s: float
    left_out_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """A target's free numbers fitted to measured times of operators.

    Attributes:
        model: The file whose operators were measured.
        measurements: The file of times.
        target: Name of the target.
        dram_efficiency_share_before, dram_efficiency_share: The share of the memory's peak that is
            reached.
        operator_overhead_s_before, operator_overhead_s: Added to every operator.
        median_error_before, median_error: Median over the operators of |predicted / measured - 1|.
        left_out_error: Mean of the same for predictions without the operator itself.
        total_error_before, total_error: predicted / measured - 1 of the sum of all.
        layers: Every operator that was used.
        unused: Rows of the file that were not, with reasons.
        notes: What to know about the fit.
    """

    model: FileFact
    measurements: str
    target: str
    dram_efficiency_share_before: float
    dram_efficiency_share: float
    operator_overhead_s_before: float
    operator_overhead_s: float
    median_error_before: float
    median_error: float
    left_out_error: float
    total_error_before: float
    total_error: float
    layers: tuple[CalibratedLayer, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
