"""The options of ``estimate-latency`` that ask what was assumed, and that assume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgecompress.cli import main

STATIC = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[BATCH,8,6,6] x) => (float[BATCH,8,6,6] y) { y = Conv (x, w) }
"""


class Estimate:
    """Runs the command on a small network."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path, self._capsys = path, capsys

    def __call__(self, *options: str, batch: str = "1") -> tuple[int, Any, str]:
        """Exit code, the report if there is one, and what was said on stderr."""
        proto = onnx.parser.parse_model(STATIC.replace("BATCH", batch))
        proto.graph.initializer.append(
            onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, (8, 8, 1, 1), [1.0] * 64)
        )
        onnx.save(proto, self._path)
        code = main(["estimate-latency", str(self._path), *options, "--output-format", "json"])
        said = self._capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err


@pytest.fixture
def estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Estimate:
    return Estimate(tmp_path / "m.onnx", capsys)


def test_strict_is_met_where_nothing_is_assumed(estimate: Estimate) -> None:
    code, document, _ = estimate("--target", "roofline-generic", "--strict")
    assert code == 0
    (gate,) = document["gates"]
    assert gate == {
        "name": "strict",
        "limit": 0.0,
        "value": 0.0,
        "unit": "assumptions",
        "met": True,
    }


def test_strict_is_not_met_by_an_open_batch(estimate: Estimate) -> None:
    code, document, said = estimate("--target", "roofline-generic", "--strict", batch="n")
    assert code == 3
    assert document["reports"][0]["assumptions"] == ["an open batch axis was taken as 1"]
    assert document["gates"][0]["value"] == 1
    assert "strict is 1 assumptions" in said


def test_widths_that_were_asked_for_are_no_assumption(estimate: Estimate) -> None:
    options = ("--target", "winocnn-zcu102-w6", "--strict")
    assert estimate(*options)[0] == 3
    code, document, _ = estimate(*options, "--assume-bits", "8/7")
    assert code == 0
    (report,) = document["reports"]
    assert report["assumptions"] == []
    assert any("8 bits, float weights 7" in text for text in report["notes"])


@pytest.mark.parametrize("text", ["8", "8x4", "0/4", "8/33", "a/b", "8/-4"])
def test_widths_that_cannot_be_read(text: str, estimate: Estimate) -> None:
    code, _, said = estimate("--target", "roofline-generic", "--assume-bits", text)
    assert code == 2
    assert "--assume-bits" in said
