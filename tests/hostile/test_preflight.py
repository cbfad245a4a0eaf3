"""Bad models give one clear sentence and the documented code, before anything else reads them."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import onnx.parser
import pytest

from edgecompress.core.errors import (
    EdgeCompressError,
    InputOutputFailed,
    ModelInvalid,
    ResourceLimit,
    UnsafeInput,
)
from edgecompress.graph.model import load_model

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) { [conv1] a = Conv(x, w) [relu1] y = Relu(a) }"""


def good() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    weight = np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def load_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    load_model(path)


def load(tmp_path: Path, model: onnx.ModelProto) -> None:
    load_bytes(tmp_path, model.SerializeToString())


def data() -> bytes:
    return good().SerializeToString()


CONTAINERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "is not an ONNX model"),
    "json": (b'{"irVersion": "8"}', "is not an ONNX model"),
    "half": (data()[: len(data()) // 2], "is not an ONNX model|is not a valid|made by no node"),
    "twice": (data() + data(), "twice"),
    "zeros after": (data() + bytes(1 << 20), "is not an ONNX model"),
    "gzip": (gzip.compress(data()), "is not an ONNX model"),
    "pickle": (b"\x80\x04N.", "is not an ONNX model"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_not_a_model_file(tmp_path: Path, name: str) -> None:
    content, message = CONTAINERS[name]
    with pytest.raises(ModelInvalid, match=message) as caught:
        load_bytes(tmp_path, content)
    assert caught.value.exit_code == 4
    assert "m.onnx" in str(caught.value)


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path, tmp_path / "missing.onnx", tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(InputOutputFailed) as caught:
            load_model(path)
        assert caught.value.exit_code == 8


def node(model: onnx.ModelProto, index: int) -> onnx.NodeProto:
    return model.graph.node[index]


def tensor(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def add_output(model: onnx.ModelProto, name: str) -> None:
    model.graph.output.append(oh.make_tensor_value_info(name, 1, [1]))


def nested(model: onnx.ModelProto, depth: int) -> None:
    body = oh.make_graph([oh.make_node("Identity", ["x"], ["deep"])], "b", [], [])
    body.output.append(oh.make_tensor_value_info("deep", 1, None))
    for level in range(depth):
        inner = oh.make_node("If", ["c"], [f"o{level}"], then_branch=body, else_branch=body)
        body = oh.make_graph([inner], "b", [], [oh.make_tensor_value_info(f"o{level}", 1, None)])
    model.graph.input.append(oh.make_tensor_value_info("c", 9, []))
    model.graph.node.extend(body.node)


def twice_opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(oh.make_opsetid("ai.onnx", 18))


def set_dims(dims: list[int]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del tensor(model).dims[:]
        tensor(model).dims.extend(dims)

    return change


def set_weight(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weight = np.ones((2, 2, 1, 1), np.float32)
        weight[1, 0] = value
        tensor(model).CopyFrom(onnx.numpy_helper.from_array(weight, "w"))

    return change


GRAPHS: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "IR too new": (lambda m: setattr(m, "ir_version", 99), "IR version 99 is above 13"),
    "no IR": (lambda m: m.ClearField("ir_version"), "no IR version"),
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
    "opset too new": (
        lambda m: setattr(m.opset_import[0], "version", 99),
        "opset 99 is not between",
    ),
    "opset 27": (lambda m: setattr(m.opset_import[0], "version", 27), "opset 27 is not between"),
    "no opset": (lambda m: m.ClearField("opset_import"), "does not say which opset"),
    "two opsets": (twice_opset, "two opset versions for domain ''"),
    "cycle": (lambda m: node(m, 0).input.__setitem__(0, "y"), "'conv1' reads 'y'.*cycle"),
    "made twice": (lambda m: node(m, 1).output.__setitem__(0, "a"), "value 'a' is made twice"),
    "doubled initializer": (
        lambda m: m.graph.initializer.append(tensor(m)),
        "initializer 'w' is there twice",
    ),
    "dangling": (
        lambda m: node(m, 1).input.__setitem__(0, "gone"),
        "'relu1' reads 'gone', which nothing makes",
    ),
    "output of nobody": (
        lambda m: add_output(m, "q"),
        "output 'q' of the graph is made by no node",
    ),
    "unknown operator": (lambda m: setattr(node(m, 1), "op_type", "NoSuchOp"), "NoSuchOp"),
    "too deep": (lambda m: nested(m, 9), "nested more than 8 deep"),
    "zero in a name": (lambda m: setattr(node(m, 0), "name", "a\0b"), "zero character"),
    "huge shape": (set_dims([2**40, 2, 1, 1]), "takes 8796093022208 bytes, 16 are there"),
    "negative shape": (set_dims([-1, 2, 1, 1]), "negative size"),
    "overflowing shape": (set_dims([2**62, 2**62, 1, 1]), "16 are there"),
    "too short": (lambda m: setattr(tensor(m), "raw_data", b"1234"), "takes 16 bytes, 4 are there"),
    "too long": (
        lambda m: setattr(tensor(m), "raw_data", bytes(20)),
        "takes 16 bytes, 20 are there",
    ),
    "no values": (lambda m: m.graph.initializer[0].ClearField("raw_data"), "without any values"),
    "two kinds of values": (
        lambda m: tensor(m).float_data.extend([1.0] * 4),
        "values in both raw_data and float_data",
    ),
    "not a number": (set_weight(float("nan")), "layer 'conv1': the weight holds nan at index 2"),
    "infinite": (set_weight(float("-inf")), "layer 'conv1': the weight holds -inf at index 2"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_not_a_valid_model(tmp_path: Path, name: str) -> None:
    change, message = GRAPHS[name]
    model = good()
    change(model)
    with pytest.raises(ModelInvalid, match=message) as caught:
        load(tmp_path, model)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="not UTF-8"):
        load_bytes(tmp_path, data().replace(b"conv1", b"\xff" * 5))


def test_attributes_that_are_not_utf8(tmp_path: Path) -> None:
    model = good()
    node(model, 0).attribute.append(oh.make_attribute("auto_pad", b"VALI\xf3"))
    with pytest.raises(ModelInvalid, match="attribute 'auto_pad' of node 'conv1' is not UTF-8"):
        load(tmp_path, model)


def test_infinity_in_a_mask_is_allowed(tmp_path: Path) -> None:
    model = good()
    node(model, 1).op_type = "Add"
    node(model, 1).input.append("mask")
    mask = np.where(np.arange(16).reshape(4, 4) % 2, -np.inf, 0).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(mask, "mask"))
    load(tmp_path, model)


def with_functions(calls: list[tuple[str, list[str]]], root: str) -> onnx.ModelProto:
    """Functions that call others one after another; the graph calls ``root``."""
    functions = []
    for name, callees in calls:
        names = ["i", *[f"v{k}" for k in range(len(callees) - 1)], "o"]
        nodes = [
            oh.make_node(callee, [names[k]], [names[k + 1]], domain="" if callee == "Relu" else "f")
            for k, callee in enumerate(callees)
        ]
        opsets = [oh.make_opsetid("", 17), oh.make_opsetid("f", 1)]
        functions.append(oh.make_function("f", name, ["i"], ["o"], nodes, opsets))
    graph = oh.make_graph(
        [oh.make_node(root, ["x"], ["y"], domain="f")],
        "g",
        [oh.make_tensor_value_info("x", 1, [1])],
        [oh.make_tensor_value_info("y", 1, [1])],
    )
    opsets = [oh.make_opsetid("", 17), oh.make_opsetid("f", 1)]
    return oh.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8)


def test_functions_that_call_themselves(tmp_path: Path) -> None:
    model = with_functions([("a", ["b"]), ("b", ["Relu", "a"])], "a")
    with pytest.raises(ModelInvalid, match="calls itself"):
        load(tmp_path, model)


def test_functions_that_explode(tmp_path: Path) -> None:
    chain = [("f0", ["Relu", "Relu"])]
    chain += [(f"f{level}", [f"f{level - 1}"] * 2) for level in range(1, 30)]
    model = with_functions(chain, "f29")
    start = time.monotonic()
    with pytest.raises(ResourceLimit, match="expand to more than") as caught:
        load(tmp_path, model)
    assert caught.value.exit_code == 10
    assert time.monotonic() - start < 1


def external(tmp_path: Path, location: str, **entries: str) -> onnx.ModelProto:
    """The good model with its weight in ``folder/weights.bin``."""
    model = good()
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(tensor(model).raw_data)
    tensor(model).ClearField("raw_data")
    tensor(model).data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor(model).external_data.add(key=key, value=value)
    return model


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(external(tmp_path, "folder/weights.bin").SerializeToString())
    model = load_model(path)
    np.testing.assert_array_equal(
        model.find_layers().layers[0].stage.weight.to_dense(),
        onnx.numpy_helper.to_array(tensor(good())),
    )
    assert model.file.size_bytes == path.stat().st_size + 16


OUTSIDE = ["/etc/hostname", "../secret.bin", "folder/../../secret.bin", "C:\\secret", "..\\secret"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with pytest.raises(UnsafeInput) as caught:
        load(inside, external(inside, location))
    assert caught.value.exit_code == 11


@pytest.mark.parametrize("kind", ["file link", "folder link", "hard link", "pipe"])
def test_external_data_through_links(tmp_path: Path, kind: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(16))
    location = "data.bin"
    match kind:
        case "file link":
            (inside / location).symlink_to(secret)
        case "folder link":
            (inside / "up").symlink_to(tmp_path)
            location = "up/secret.bin"
        case "hard link":
            os.link(secret, inside / location)
        case _:
            os.mkfifo(inside / location)
    with pytest.raises(UnsafeInput):
        load(inside, external(inside, location))


BROKEN_EXTERNAL = {
    "missing": ({"location": "folder/none.bin"}, "is missing"),
    "no location": ({"location": ""}, "without a usable location"),
    "dot": ({"location": "."}, "without a usable location"),
    "offset": ({"location": "folder/weights.bin", "offset": "1"}, "has 16 bytes, 17 are needed"),
    "negative offset": ({"location": "folder/weights.bin", "offset": "-1"}, "is not a size"),
    "length": ({"location": "folder/weights.bin", "length": str(2**60)}, "takes 16"),
    "unknown key": ({"location": "folder/weights.bin", "__class__": "x"}, "unknown or doubled"),
}


@pytest.mark.parametrize("name", BROKEN_EXTERNAL)
def test_external_data_that_are_broken(tmp_path: Path, name: str) -> None:
    entries, message = BROKEN_EXTERNAL[name]
    with pytest.raises(ModelInvalid, match=message):
        load(tmp_path, external(tmp_path, **entries))


def test_every_prefix_of_a_model(tmp_path: Path) -> None:
    """Cut anywhere, a model is refused or loads; nothing else happens."""
    whole = data()
    for length in range(len(whole)):
        with pytest.raises(EdgeCompressError) as caught:
            load_bytes(tmp_path, whole[:length])
        assert caught.value.exit_code == 4


def test_damaged_bytes(tmp_path: Path, full: bool) -> None:
    """Seeded bytes of a model replaced: it loads, or is refused with a documented code."""
    rng = np.random.default_rng(0)
    codes = set()
    for _ in range(5000 if full else 400):
        content = bytearray(data())
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        try:
            load_bytes(tmp_path, bytes(content))
        except EdgeCompressError as error:
            codes.add(error.exit_code)
    assert codes <= {4, 5, 8, 10, 11}


LOOP = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1] x) => (float[N] y) <int64 m = {60}, bool c = {1}> {
    y = Loop (m, c, x) <body = b (int64 i, bool ci, float[K] v) => (bool co, float[L] vo)
        { co = Identity(ci) vo = Concat<axis = 0>(v, v) }>
}"""
ENDLESS = LOOP.replace("{60}", "{4611686018427387904}").replace(
    "Concat<axis = 0>(v, v)", "Add(v, v)"
)


@pytest.mark.parametrize("text", [LOOP, ENDLESS])
def test_loops_that_never_end_are_not_waited_for(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecompress.graph.compare.TIME_LIMIT_S", 0.5)
    monkeypatch.setattr("edgecompress.graph.limits.EXTRA_BYTES", 1 << 28)
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    model = load_model(path)
    assert model.notes[0].startswith("not compared with the original: ")


def test_recurrent_cell_with_an_empty_batch_is_not_run(tmp_path: Path) -> None:
    """It would end the process (onnxruntime 1.31)."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 0, 3] x) => (float[2, 1, 0, 4] y) { y = LSTM<hidden_size = 4>(x, w, r) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("w", (1, 16, 3)), ("r", (1, 16, 4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, "f4"), name))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_model(path).notes[0] == "not compared with the original: input 'x' is empty"


def test_random_operators_are_not_run(tmp_path: Path) -> None:
    """Some of their attributes would end the process (onnxruntime 1.31)."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y) {
            r = RandomNormal<shape = [4], scale = -1.0>() y = Add(x, r) }"""
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert load_model(path).notes[0] == "not compared with the original: its outputs are random"


BOMBS = [
    "n = Constant<value_ints = [1048576, 1048576]>() z = ConstantOfShape(n) y = Add(x, z)",
    "n = Constant<value_ints = [100000000]>() z = ConstantOfShape(n) y = Add(x, z)",
    "n = Constant<value_ints = [100000000]>() z = Expand(x, n) y = Neg(z)",
]


@pytest.mark.parametrize("body", BOMBS)
def test_large_constants_are_not_unfolded(tmp_path: Path, body: str) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ng (float[1] x) => (float[] y) {{ {body} }}'
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert load_model(path).to_proto().ByteSize() < 2 * path.stat().st_size + 200


def test_long_chains_take_seconds(tmp_path: Path) -> None:
    count = 10_000
    names = ["x", *[f"v{k}" for k in range(count - 1)], "y"]
    nodes = [oh.make_node("Neg", [a], [b]) for a, b in pairwise(names)]
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", 1, [1])],
        [oh.make_tensor_value_info("y", 1, [1])],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8)
    start = time.monotonic()
    load(tmp_path, model)
    assert time.monotonic() - start < 30
