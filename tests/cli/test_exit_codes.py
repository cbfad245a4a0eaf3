"""Every exit code, produced by a real run; none of the codes of core/errors.py is without one."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from interrupts import hear_interrupts
from onnx import helper, numpy_helper

from edgecompress.cli import main
from edgecompress.core import errors

CLASSES = {
    kind.exit_code
    for kind in vars(errors).values()
    if isinstance(kind, type) and kind.__base__ is errors.EdgeCompressError
}
Make = Callable[[Path], list[str]]


@pytest.fixture(autouse=True)
def _libraries_keep_their_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def write_model(path: Path, *, weights: bool = True) -> str:
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    constants = []
    if weights:
        values = rng.standard_normal((64, 32, 3, 3)).astype(np.float32) / 17
        constants = [numpy_helper.from_array(values, "w")]
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 32, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", None, 8, 8])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return str(path)


def quantize(folder: Path, *options: str) -> list[str]:
    model = write_model(folder / "m.onnx")
    return ["quantize", model, "-o", str(folder / "o.onnx"), *options]


def succeeds(folder: Path) -> list[str]:
    return quantize(folder)


def misses_a_gate(folder: Path) -> list[str]:
    return quantize(folder, "--max-size", "1kB", "--report", str(folder / "r.json"))


def contradicts_itself(folder: Path) -> list[str]:
    return quantize(folder, "--max-latency", "1ms")


def reads_half_a_model(folder: Path) -> list[str]:
    arguments = quantize(folder)
    model = folder / "m.onnx"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    return arguments


def finds_nothing(folder: Path) -> list[str]:
    arguments = quantize(folder)
    write_model(folder / "m.onnx", weights=False)
    return arguments


def reads_data_of_another_shape(folder: Path) -> list[str]:
    np.savez(folder / "d.npz", x=np.zeros((4, 3, 8, 8), np.float32))
    return quantize(folder, "--data", str(folder / "d.npz"))


def names_no_target(folder: Path) -> list[str]:
    return quantize(folder, "--target", "no-such-device")


def would_overwrite(folder: Path) -> list[str]:
    (folder / "o.onnx").write_text("precious")
    return quantize(folder)


def reads_a_bomb(folder: Path) -> list[str]:
    """Thirty functions, each of which calls the one before twice."""
    arguments = quantize(folder)
    model = onnx.load(folder / "m.onnx")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("bomb", 1)]
    for level in range(30):
        inner = ("Relu", "") if level == 0 else (f"f{level - 1}", "bomb")
        nodes = [
            helper.make_node(inner[0], ["a"], ["b"], domain=inner[1]),
            helper.make_node(inner[0], ["b"], ["c"], domain=inner[1]),
        ]
        model.functions.append(
            helper.make_function("bomb", f"f{level}", ["a"], ["c"], nodes, opsets)
        )
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(helper.make_node("f29", ["z"], ["y"], domain="bomb"))
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return arguments


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch PWNED",)


def reads_a_pickle(folder: Path) -> list[str]:
    arguments = quantize(folder)
    (folder / "m.pth").write_bytes(pickle.dumps({"weight": _Evil()}))
    arguments[1] = str(folder / "m.pth")
    return arguments


CASES: dict[int, tuple[Make, str]] = {
    0: (succeeds, ""),
    2: (contradicts_itself, "--max-latency needs a --target"),
    3: (misses_a_gate, "gate not met: max-size is "),
    4: (reads_half_a_model, "m.onnx"),
    5: (finds_nothing, "nothing to compress"),
    6: (reads_data_of_another_shape, "d.npz"),
    7: (names_no_target, "no target 'no-such-device'"),
    8: (would_overwrite, "the output exists"),
    10: (reads_a_bomb, "functions expand"),
    11: (reads_a_pickle, "trust-input"),
}
BY_OTHER_TESTS = {1, 9, 130, 143}


@pytest.mark.parametrize("code", sorted(CASES))
def test_code(
    code: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = CASES[code]
    arguments = make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([*arguments, "--quiet"]) == code
    out, err = capfd.readouterr()
    assert message in err
    assert "Traceback" not in err
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    made = {0: {"o.onnx", "o.plan.json"}, 3: {"o.onnx", "o.plan.json", "r.json"}}.get(code, set())
    assert set(left) == set(before) | made
    assert all(left[name] == content for name, content in before.items())
    if code in (0, 3):
        assert "Before and after" in out
    else:
        assert out == ""
        lines = err.splitlines()
        assert lines[0].startswith("error: ")
        assert sum(line.startswith("error: ") for line in lines) == 1


def test_9_leaves_nothing_at_the_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecompress.pipeline import compress

    def differs(*arguments: object, **options: object) -> None:
        raise errors.VerificationFailed("optimised and unoptimised onnxruntime differ by 3 %")

    arguments = quantize(tmp_path)
    monkeypatch.setattr(compress, "verify_file", differs)
    assert main([*arguments, "--quiet"]) == 9
    assert capfd.readouterr().err.startswith("error: optimised and unoptimised")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_1_is_a_bug(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecompress.pipeline import compress

    def fails(request: object) -> None:
        raise LookupError("conv")

    arguments = quantize(tmp_path)
    monkeypatch.setattr(compress, "run_compress", fails)
    assert main(arguments) == 1
    assert "error: a bug in edgecompress" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_the_middle(number: signal.Signals, code: int, tmp_path: Path) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    arguments = quantize(tmp_path, "--data", "random:0", "--force")
    arguments[3] = str(out / "o.onnx")
    with subprocess.Popen(
        [sys.executable, "-m", "edgecompress", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - nothing runs beside it in the child
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("reading random"):
                break
        process.send_signal(number)
        errors_said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert f"interrupted by {number.name}" in errors_said
    assert "Traceback" not in errors_said
    assert list(out.iterdir()) == []
    assert {path.name for path in scratch.iterdir()} <= {".ses"}, "which onnxruntime makes"


def test_every_class_of_error_has_a_case() -> None:
    assert set(CASES) | BY_OTHER_TESTS >= CLASSES
    assert set(range(2, 12)) == CLASSES
