"""What one run of `compress`, `decompose` or `quantize` is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecompress.core.arrays import Shape
from edgecompress.core.options import DecomposeOptions, Gates, HealOptions, QuantizeOptions

Progress = Callable[[str, int, int], None]
"""Called with a phase in words, steps done, and steps in all (0: unknown)."""


def silent(phase: str, done: int, total: int) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressRequest:
    """What one run is asked to do.

    Attributes:
        command: ``compress``, ``decompose`` or ``quantize``.
        model, output: Files; the output must not be the input.
        decompose, quantize: Options of the steps; None leaves a step out.
        heal: How the decomposed graph is trained on the float graph's outputs; None: it is not.
        data: Calibration data, a specification for `load_samples`; None for data-free.
        calibration: At most this many calibration samples.
        test_data: Data for the accuracy before and after; None uses the calibration data.
        preprocess: As in `parse_preprocess`; None for none.
        targets: Names or paths; the first one prices ranks.
        gates: Limits.
        input_shapes: Shapes for inputs whose shape is open.
        torch_factory: ``module:function`` that builds the network of a state dict.
        trust_input: Allow inputs that can run code.
        plan: Plan file to replay, or None to decide.
        seed: Seed of everything random.
        force: Overwrite an output that exists.
        progress: Receiver of progress.
    """

    command: str
    model: Path
    output: Path
    decompose: DecomposeOptions | None
    quantize: QuantizeOptions | None
    heal: HealOptions | None = None
    data: str | None = None
    calibration: int = 1024
    test_data: str | None = None
    preprocess: str | None = None
    targets: tuple[str, ...] = ()
    gates: Gates = field(default_factory=Gates)
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    torch_factory: str | None = None
    trust_input: bool = False
    plan: Path | None = None
    seed: int = 0
    force: bool = False
    progress: Progress = silent
    settings: Mapping[str, str] = field(default_factory=dict)
