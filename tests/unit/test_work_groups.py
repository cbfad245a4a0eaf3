"""The layer that factors came from, through every file that is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

import edgecompress
from edgecompress.core.options import DecomposeOptions, ParameterRatio, QuantizeOptions
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.origins import LAYER_KEY, LAYERS_KEY, note_origins, read_origins
from edgecompress.graph.save import save_model, serialized
from edgecompress.graph.work import derive_work

NETWORK = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[1,4] x) => (float[1,4] y) {
  a = Relu (x)
  b = Sigmoid (a)
  y = Tanh (b)
}
"""


def model_with(tmp_path: Path, names: tuple[str, str, str], origins: dict[str, str]) -> Model:
    """Three operators of those names; they keep them, as operators with weights do."""
    proto = onnx.parser.parse_model(NETWORK)
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    onnx.save(proto, tmp_path / "named.onnx")
    model = load_model(tmp_path / "named.onnx", normalize=False)
    model.origins = dict(origins)
    return model


TWICE = ("conv/0/0", "conv/0/1", "conv/1")
CASES = [
    (("conv/0", "conv/1", "other"), {"conv/0": "conv", "conv/1": "conv"}, "*"),
    # A name that ends in a number and is no factor: the layers are listed.
    (("conv/0", "conv/1", "head/3"), {"conv/0": "conv", "conv/1": "conv"}, "conv"),
    # Decomposed twice.
    (TWICE, dict.fromkeys(TWICE, "conv"), "conv"),
    (("a", "b", "c"), {}, None),
]


@pytest.mark.parametrize(("names", "origins", "listed"), CASES)
def test_one_entry_for_the_file_tells_the_layers(
    names: tuple[str, str, str], origins: dict[str, str], listed: str | None, tmp_path: Path
) -> None:
    model = model_with(tmp_path, names, origins)
    proto = model.to_proto()
    note_origins(proto, model.origins)
    found = {prop.key: prop.value for prop in proto.metadata_props}
    assert found.get(LAYERS_KEY) == listed
    onnx.save(proto, tmp_path / "written.onnx")
    assert load_model(tmp_path / "written.onnx", normalize=False).origins == origins


def test_a_node_whose_name_does_not_tell_says_it_itself(tmp_path: Path) -> None:
    model = model_with(tmp_path, ("first", "conv/1", "other"), {"first": "conv", "conv/1": "conv"})
    proto = model.to_proto()
    note_origins(proto, model.origins)
    props = [{prop.key: prop.value for prop in node.metadata_props} for node in proto.graph.node]
    assert props[0][LAYER_KEY] == "conv"
    onnx.save(proto, tmp_path / "written.onnx")
    again = load_model(tmp_path / "written.onnx", normalize=False)
    assert again.origins == model.origins
    assert read_origins(again.ir) == model.origins


def test_files_without_factors_have_no_entry(sample_models: Path) -> None:
    model = load_model(sample_models / "digits_cnn.onnx")
    proto = onnx.load_from_string(serialized(model))
    assert LAYERS_KEY not in {prop.key for prop in proto.metadata_props}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network decomposed, quantized after that, and compressed at once."""
    folder = tmp_path_factory.mktemp("written")
    source = Path(__file__).parents[2] / "sample_models" / "digits_cnn.onnx"
    files = {name: folder / f"{name}.onnx" for name in ("decompose", "quantize", "compress")}
    decompose = DecomposeOptions(ranks=ParameterRatio(0.5))
    quantize = QuantizeOptions(bits="4")
    edgecompress.decompose(source, files["decompose"], decompose)
    edgecompress.quantize(files["decompose"], files["quantize"], quantize)
    edgecompress.compress(source, files["compress"], decompose=decompose, quantize=quantize)
    return files


@pytest.mark.parametrize("name", ["decompose", "quantize", "compress"])
def test_factors_know_their_layer_in_every_file(name: str, written: dict[str, Path]) -> None:
    model = load_model(written[name], normalize=False)
    works = derive_work(model, {})
    products = [w for w in works if w.op_type in ("Conv", "Gemm", "MatMul", "MatMulInteger")]
    groups = Counter(work.source_layer for work in products)
    first = load_model(written["decompose"], normalize=False)
    layers = set(first.origins.values())
    assert len(layers) >= 5
    assert {layer for layer in groups if layer} == layers
    assert {layer: groups[layer] for layer in layers} == Counter(first.origins.values())
    assert min(groups[layer] for layer in layers) >= 2
    # What stands between the factors of a layer is its own too.
    inside = {use.name for w in products for use in w.writes if w.name.endswith("/0")}
    for work in works:
        if any(use.name in inside for use in work.reads):
            assert work.source_layer


@pytest.mark.parametrize("name", ["decompose", "quantize", "compress"])
def test_it_costs_under_half_a_per_cent_of_the_file(
    name: str, written: dict[str, Path], tmp_path: Path
) -> None:
    model = load_model(written[name], normalize=False)
    with_layers = save_model(model, tmp_path / "with.onnx").size_bytes
    model.origins.clear()
    model.ir.metadata_props.pop(LAYERS_KEY, None)
    without = save_model(model, tmp_path / "without.onnx").size_bytes
    assert without < with_layers <= 1.005 * without
