"""A written file is whole, the same every time, small, and never the input."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from oracle import run_unoptimized

from edgecompress.core.errors import InputOutputFailed
from edgecompress.graph import save
from edgecompress.graph.hashing import file_fact
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.save import save_model

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (bool condition, float[1, 3, 6, 6] picture) => (float[1, 3, 4, 4] scores) {
    [a_node] hidden_activation = Conv(picture, weight_of_conv)
    [choice] scores = If (condition) <
        then_branch = t () => (float[1, 3, 4, 4] hidden_then) {
            inner = Relu(hidden_activation) hidden_then = Neg(inner) },
        else_branch = e () => (float[1, 3, 4, 4] hidden_else) {
            hidden_else = Add(hidden_activation, hidden_activation) }>
}"""


@pytest.fixture
def model(tmp_path: Path) -> Model:
    proto = onnx.parser.parse_model(TEXT)
    weight = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight_of_conv"))
    proto.graph.doc_string = "a long story"
    path = tmp_path / "in.onnx"
    path.write_bytes(proto.SerializeToString())
    return load_model(path)


def test_written_file_computes_the_same(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    fact = save_model(model, out)
    assert fact == file_fact(out)
    onnx.checker.check_model(str(out))
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    for condition in (True, False):
        feed = {"condition": np.array(condition), "picture": x}
        (expected,) = run_unoptimized(str(tmp_path / "in.onnx"), feed)
        (found,) = run_unoptimized(str(out), feed)
        np.testing.assert_array_equal(found, expected)


def test_internal_names_are_short_and_outer_names_stay(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "out.onnx")
    graph = onnx.load(tmp_path / "out.onnx").graph
    assert [i.name for i in graph.input] == ["condition", "picture"]
    assert [o.name for o in graph.output] == ["scores"]
    data = (tmp_path / "out.onnx").read_bytes()
    for gone in (b"hidden", b"inner", b"weight_of_conv", b"choice", b"a long story"):
        assert gone not in data
    assert graph.node[0].name == "a_node"
    assert len(graph.initializer[0].name) == 1


def test_names_are_kept_on_request(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "out.onnx", keep_names=True)
    data = (tmp_path / "out.onnx").read_bytes()
    for kept in (b"hidden_activation", b"hidden_then", b"inner", b"weight_of_conv", b"choice"):
        assert kept in data


def test_same_model_gives_same_bytes(model: Model, tmp_path: Path) -> None:
    facts = [save_model(m, tmp_path / f"{i}.onnx") for i, m in enumerate((model, model.clone()))]
    again = save_model(load_model(tmp_path / "in.onnx"), tmp_path / "2.onnx")
    assert len({fact.sha256 for fact in (*facts, again)}) == 1


def test_saving_a_loaded_file_again_changes_nothing(model: Model, tmp_path: Path) -> None:
    first = save_model(model, tmp_path / "1.onnx")
    second = save_model(load_model(tmp_path / "1.onnx"), tmp_path / "2.onnx")
    assert first.sha256 == second.sha256


def test_input_is_never_overwritten(model: Model, tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    before = source.read_bytes()
    os.link(source, tmp_path / "hard.onnx")
    (tmp_path / "soft.onnx").symlink_to(source)
    for name in ("in.onnx", "hard.onnx", "soft.onnx"):
        with pytest.raises(InputOutputFailed, match="never overwritten"):
            save_model(model, tmp_path / name)
    assert source.read_bytes() == before


def test_missing_folder_and_folder_as_file(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputOutputFailed, match="No such file"):
        save_model(model, tmp_path / "nowhere" / "out.onnx")
    with pytest.raises(InputOutputFailed, match="is a folder"):
        save_model(model, tmp_path)


@pytest.mark.parametrize("step", ["fsync", "write"])
def test_full_disk_leaves_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"older")
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "fsync":
        monkeypatch.setattr(save.os, "fsync", full)
    else:
        monkeypatch.setattr(save.os, "fdopen", full)
    with pytest.raises(InputOutputFailed, match="No space left"):
        save_model(model, out)
    assert out.read_bytes() == b"older"
    assert sorted(tmp_path.iterdir()) == before
