"""Every real model on every target that ships: each operator has a time, or says why it has none.

Without ``--full`` the models marked ``slice`` in ``expected_outcomes.toml`` run.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.models.commands import Expected, expected_outcomes
from edgecompress.cli.reading import read_input_shapes
from edgecompress.core.report import LatencyReport
from edgecompress.core.work import ElementWork, Work
from edgecompress.graph.model import load_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.target import list_targets, load_target
from edgecompress.pipeline.estimate import Reading, estimate_latencies
from edgecompress.pipeline.source import as_onnx, torch_reading

TABLE = [
    expected
    for expected in expected_outcomes()
    if expected.codes["estimate-latency"] == 0 and "--model" not in expected.options
]


def shapes_of(options: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    pairs = pairwise(options)
    return read_input_shapes(tuple(value for key, value in pairs if key == "--input-shape"))


def is_idle(work: Work) -> bool:
    """Nothing to do on any device: a change of shape, or no elements at all."""
    operator = work.operator
    if not isinstance(operator, ElementWork):
        return not operator.macs
    return operator.free or not (operator.operations or operator.read_bits or operator.written_bits)


def check(report: LatencyReport, works: tuple[Work, ...]) -> None:
    assert len(report.costs) == len(works) == len(report.live_bytes)
    for work, cost in zip(works, report.costs, strict=True):
        assert cost.name == work.name
        assert math.isfinite(cost.total_cycles)
        assert cost.total_cycles > 0 or cost.assumed or is_idle(work), work.name
    assert report.latency_s == pytest.approx(math.fsum(one.latency_s for one in report.costs))
    assert report.latency_s >= report.bound_s * (1 - 1e-9) > 0
    assert report.peak_activation_bytes == max(report.live_bytes)
    slower = [one.latency_s for one in report.sensitivity]
    assert slower == sorted(slower, reverse=True)
    assert slower[0] * (1 + 1e-9) >= report.latency_s >= slower[-1] * (1 - 1e-9)


@pytest.mark.parametrize("expected", TABLE, ids=lambda expected: expected.model)
def test_every_operator_has_a_time_or_a_reason(
    expected: Expected, data_dir: Path, full: bool
) -> None:
    if not (full or expected.slice):
        pytest.skip("not in the slice; --full runs it")
    shapes = shapes_of(expected.options)
    reading = torch_reading(shapes, factory=None, trust_input=True)
    with as_onnx(data_dir / "models" / expected.model, reading) as path:
        model = load_model(path, normalize=False, input_shapes=shapes)
        reports = estimate_latencies(
            model, [load_target(name) for name in list_targets()], Reading(input_shapes=shapes)
        )
        works = derive_work(model, shapes)
    for report in reports:
        check(report, works)
