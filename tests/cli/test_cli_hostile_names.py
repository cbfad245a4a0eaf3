"""A model whose every name is hostile goes through the commands and stays text on every stream."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "\x1b]0;pwned\x07[/foo]<script>alert(1)</script>\n::error::x ##vso[task]y `|*{{7*7}}"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def write_model(path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((64, 32, 3, 3)).astype(np.float32) / 17
    second = rng.standard_normal((64, 64, 3, 3)).astype(np.float32) / 24
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", [f"x{NAME}", f"w{NAME}"], [f"h{NAME}"], name=NAME, pads=pads),
        helper.make_node("Conv", [f"h{NAME}", "w"], [f"y{NAME}"], name=f"::{NAME}", pads=pads),
    ]
    batch = f"n{NAME}"
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info(f"x{NAME}", onnx.TensorProto.FLOAT, [batch, 32, 8, 8])],
        [helper.make_tensor_value_info(f"y{NAME}", onnx.TensorProto.FLOAT, [batch, 64, 8, 8])],
        [numpy_helper.from_array(first, f"w{NAME}"), numpy_helper.from_array(second, "w")],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name=NAME)
    path.write_bytes(model.SerializeToString())


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecompress", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def assert_inert(text: str) -> None:
    assert not CONTROL.search(text)
    assert not re.search(r"(?m)^\s*::", text)
    assert "##vso[" not in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    write_model(path / "m.onnx")
    reports = [part for form in ("html", "md", "json") for part in ("--report", f"r.{form}")]
    target = ("--target", "systolic-ws-32", "--bits", "8")
    done = run(path, "compress", "m.onnx", "-o", "o.onnx", *target, *reports)
    assert done.returncode == 0, done.stderr
    assert_inert(done.stdout)
    assert_inert(done.stderr)
    return path


def test_reports(folder: Path) -> None:
    html = (folder / "r.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "{{7*7}}" in html, "a name is no template"
    assert_inert((folder / "r.md").read_text(encoding="utf-8"))
    layers = json.loads((folder / "r.json").read_text())["layers"]
    kept = CONTROL.sub("", NAME).replace("\n", "")
    assert {layer["name"] for layer in layers} == {kept, f"::{kept}"}, "JSON is data, not text"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("inspect", "m.onnx"), 0),
        (("estimate-latency", "o.onnx", "--target", "systolic-ws-32", "--per-layer"), 0),
        (("evaluate", "o.onnx", "--reference", "m.onnx", "--data", "random:1", "--limit", "4"), 0),
        (("quantize", "m.onnx", "-o", "p.onnx", "--input-shape", "z=1,2"), 2),
    ],
)
def test_streams(folder: Path, arguments: tuple[str, ...], code: int) -> None:
    done = run(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert_inert(done.stdout)
    assert_inert(done.stderr)
