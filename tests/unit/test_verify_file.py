"""The acceptance test of written files: what it finds, and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from quantized_models import affine, packed, quantized_model

from edgecompress.core.errors import VerificationFailed
from edgecompress.graph import verify
from edgecompress.graph.verify import verify_file

TEXT = "g (float[n,12] x) => (float[n,7] y) { y = MatMul (x, w) }"
FEEDS = [
    {"x": np.random.default_rng(k).standard_normal((3, 12)).astype(np.float32)} for k in (0, 1)
]


def _file(tmp_path: Path, text: str, name: str = "m.onnx", **constants: np.ndarray) -> Path:
    header = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for key, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    path = tmp_path / name
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_packed_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "packed.onnx"
    path.write_bytes(packed(quantized_model(TEXT, {"w": affine((12, 7), "3", 1)})))
    found = verify_file(path, FEEDS)
    assert found.checker
    assert found.samples == 6
    assert found.optimized_relative_l2 <= 1e-5
    assert found.optimized_top1_agreement == 1.0
    assert found.fidelity is None


def test_the_checker_is_heard(tmp_path: Path) -> None:
    path = _file(tmp_path, "g (float[2] x) => (float[3] y) { y = Relu (x) }")
    with pytest.raises(VerificationFailed, match=r"m\.onnx: onnx\.checker: .*shape") as caught:
        verify_file(path, [])
    assert caught.value.exit_code == 9


def test_a_file_that_onnxruntime_cannot_load(tmp_path: Path) -> None:
    path = _file(tmp_path, "g (float[2] x) => (float[2] y) { y = com.microsoft.Nothing (x) }")
    with pytest.raises(VerificationFailed, match="onnxruntime cannot load"):
        verify_file(path, [])


def test_a_feed_that_does_not_fit(tmp_path: Path) -> None:
    path = _file(tmp_path, "g (float[2] x) => (float[2] y) { y = Relu (x) }")
    with pytest.raises(VerificationFailed, match="onnxruntime cannot run"):
        verify_file(path, [{"x": np.zeros(3, np.float32)}])


def test_an_output_that_is_no_longer_finite(tmp_path: Path) -> None:
    float_model = _file(tmp_path, "g (float[2] x) => (float[2] y) { y = Exp (x) }", "f.onnx")
    path = _file(
        tmp_path,
        "g (float[2] x) => (float[2] y) { h = Mul (x, k)  y = Exp (h) }",
        k=np.array(1e3, np.float32),
    )
    with pytest.raises(VerificationFailed, match="output 'y' is NaN or infinite at 1 of 2 places"):
        verify_file(path, [{"x": np.array([1, -1], np.float32)}], reference=float_model)


def _fake(monkeypatch: pytest.MonkeyPatch, optimized: np.ndarray, plain: np.ndarray) -> None:
    """Let the runs give these outputs; a kernel that is wrong cannot be had on demand."""
    outputs = iter([plain, optimized] * len(FEEDS))
    monkeypatch.setattr(verify, "run_feeds", lambda session, feeds: [[next(outputs)]])


def test_runs_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, TEXT, w=np.ones((12, 7), np.float32))
    plain = np.ones((3, 7), np.float32)
    _fake(monkeypatch, plain * np.float32(1 + 2e-5), plain)
    with pytest.raises(VerificationFailed, match=r"'y' differs by 2\.0e-05.* 1\.0e-05 is allowed"):
        verify_file(path, FEEDS)


INT8 = """g (float[n,12] x) => (float[n,7] y) {
  q = QuantizeLinear (x, s, z)
  d = DequantizeLinear (q, s, z)
  y = MatMul (d, w)
}"""


@pytest.mark.parametrize(("changed", "raises"), [(1, False), (2, True)])
def test_int8_files_may_round_but_not_change_the_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int, raises: bool
) -> None:
    constants = {"s": np.array(0.1, np.float32), "z": np.array(128, np.uint8)}
    path = _file(tmp_path, INT8, w=np.ones((12, 7), np.float32), **constants)
    plain = np.ones((3, 7), np.float32)
    plain[:, 2] = 1.001
    other = plain.copy()
    other[:changed, 4] = 1.002
    outputs = iter([plain, other, plain, plain])
    monkeypatch.setattr(verify, "run_feeds", lambda session, feeds: [[next(outputs)]])
    if raises:
        with pytest.raises(VerificationFailed, match="another largest entry in 2 of 6"):
            verify_file(path, FEEDS)
    else:
        assert verify_file(path, FEEDS).optimized_top1_agreement == pytest.approx(5 / 6)


def test_int8_runs_that_differ_by_a_wrong_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = {"s": np.array(0.1, np.float32), "z": np.array(128, np.uint8)}
    path = _file(tmp_path, INT8, w=np.ones((12, 7), np.float32), **constants)
    plain = np.ones((3, 7), np.float32)
    _fake(monkeypatch, plain * np.float32(1.7), plain)
    with pytest.raises(VerificationFailed, match=r"differs by 7\.0e-01"):
        verify_file(path, FEEDS)


def test_far_from_the_float_model_the_runs_may_be_as_far_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = {"s": np.array(0.1, np.float32), "z": np.array(128, np.uint8)}
    path = _file(tmp_path, INT8, w=np.ones((12, 7), np.float32), **constants)
    exact = np.ones((3, 7), np.float32)
    plain = exact * np.float32(1.05)
    outputs = iter([plain, plain * np.float32(1.03), exact] * 2)
    monkeypatch.setattr(verify, "run_feeds", lambda session, feeds: [[next(outputs)]])
    found = verify_file(path, FEEDS, reference=path)
    assert found.optimized_relative_l2 == pytest.approx(0.03, rel=1e-3)
