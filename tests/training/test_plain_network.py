"""Tensorized networks as ordinary layers, and what the exporter makes of them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecompress.core.options import FixedRanks, LayerRule  # noqa: E402
from edgecompress.core.training import TensorizeOptions  # noqa: E402
from edgecompress.training.factorized import format_names, load_format  # noqa: E402
from edgecompress.training.layers import TensorizedConv2d, TensorizedEmbedding  # noqa: E402
from edgecompress.training.plain import Table, plain_network  # noqa: E402
from edgecompress.training.tensorize import tensorize  # noqa: E402


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """A convolution, a pointwise one, two linear layers, and a table read by pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)
        self.point = nn.Conv2d(16, 24, 1)
        self.hidden = nn.Linear(24 * 16, 64)
        self.table = nn.Embedding(5000, 64, padding_idx=0)
        self.out = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = self.table((x[:, 0, 0] * 1000).relu().long())
        x = torch.relu(self.point(torch.relu(self.conv(x))))
        return self.out(torch.relu(self.hidden(x.flatten(1)).unsqueeze(1) + words))


OPERATORS = {
    *("Conv", "Gemm", "MatMul", "Gather", "Reshape", "Transpose", "Add", "Sub", "Mul", "Div"),
    *("Mod", "Relu", "Flatten", "Cast", "Less", "Equal", "And", "Not", "Unsqueeze", "Shape"),
    *("GreaterOrEqual", "Concat", "Where", "Max", "Squeeze", "Constant", "Slice", "Identity"),
}


def tensorized(formats: dict[str, str]) -> nn.Module:
    """The network with a format for each layer."""
    net = Net()
    rules = tuple(LayerRule(match=layer, format=name) for layer, name in formats.items())
    assert len(tensorize(net, TensorizeOptions(rules=rules), generator=generator()).tensorized) == 5
    return net


@pytest.mark.parametrize("name", format_names())
def test_a_plain_network_agrees(name: str) -> None:
    kernels = "tt" if name == "ttm" else name
    net = tensorized({"conv": kernels, "point": kernels, "*": name})
    x = torch.randn(2, 8, 8, 8, generator=generator())
    plain = plain_network(net)
    torch.testing.assert_close(plain(x).detach(), net(x).detach(), rtol=1e-5, atol=1e-5)
    assert any(isinstance(part, Table) for part in plain.modules())


@pytest.mark.parametrize(
    "formats",
    [
        {"conv": "tucker", "point": "tt", "hidden": "ttm", "table": "cp", "out": "tt"},
        {"conv": "cp", "point": "cp", "hidden": "tucker", "table": "ttm", "out": "cp"},
    ],
    ids=str,
)
def test_a_plain_network_exports_without_einsum(formats: dict[str, str]) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from edgecompress.training.export import export_module

    net = tensorized(formats)
    x = torch.randn(2, 8, 8, 8, generator=generator())
    data = export_module(plain_network(net), tuple(x.shape), where="test")
    assert {node.op_type for node in onnx.load_from_string(data).graph.node} <= OPERATORS
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(x).detach(), rtol=1e-5, atol=1e-5)


def test_factors_of_many_cores_become_two_products() -> None:
    net = nn.Sequential(nn.Linear(784, 512))
    tensorize(net, TensorizeOptions(format="tt", ranks=FixedRanks((20,))), generator=generator())
    first, second = plain_network(net)[0]
    assert (first.weight.shape, first.bias) == ((20, 784), None)
    assert (second.weight.shape, second.bias.shape) == ((512, 20), (512,))
    assert isinstance(net[0], nn.Module)
    assert not isinstance(net[0], nn.Sequential)


def test_a_pair_that_is_no_smaller_becomes_one_product() -> None:
    net = nn.Sequential(nn.Linear(256, 16))
    options = TensorizeOptions(format="tt", ranks=FixedRanks((16,)), minimum_saving=-9)
    tensorize(net, options, pretrained=True)
    assert type(plain_network(net)[0]) is nn.Linear


@pytest.mark.parametrize("name", ["tt", "cp", "tucker"])
@pytest.mark.parametrize("setting", [{"stride": 2, "padding": 1}, {"padding": "same"}], ids=str)
def test_a_convolution_becomes_a_chain_of_convolutions(
    name: str, setting: dict[str, object]
) -> None:
    if "stride" not in setting:
        setting = {**setting, "dilation": (1, 2)}
    kind = load_format(name)
    dense = nn.Conv2d(24, 32, 3, **setting)
    most = kind.max_ranks(kind.fold((32, 24, 3, 3)))
    layer = TensorizedConv2d.from_dense(dense, kind, tuple(min(6, limit) for limit in most))
    plain = plain_network(layer)
    assert [type(part) for part in plain] == [nn.Conv2d] * 3
    assert [part.bias is None for part in plain] == [True, True, False]
    assert [part.kernel_size for part in plain] == [(1, 1), (3, 3), (1, 1)]
    assert plain[1].groups == (6 if name == "cp" else 1)
    x = torch.randn(2, 24, 9, 9, generator=generator())
    torch.testing.assert_close(plain(x), layer(x), rtol=1e-5, atol=1e-5)


def test_neighbouring_kernels_merge_where_that_takes_neither_numbers_nor_work() -> None:
    """(4 -> 4) 1x1 in front of the kernel only costs; (8 -> 32) 1x1 behind pays."""
    kind = load_format("tt")
    dense = nn.Conv2d(4, 32, 3)
    layer = TensorizedConv2d.from_dense(dense, kind, (4, 8))
    plain = plain_network(layer)
    assert [tuple(part.weight.shape) for part in plain] == [(8, 4, 3, 3), (32, 8, 1, 1)]
    x = torch.randn(2, 4, 9, 9, generator=generator())
    torch.testing.assert_close(plain(x), layer(x), rtol=1e-5, atol=1e-5)


def test_full_ranks_become_the_dense_convolution() -> None:
    kind = load_format("tucker")
    layer = TensorizedConv2d.from_dense(nn.Conv2d(8, 8, 3), kind, (8, 8))
    assert type(plain_network(layer)) is nn.Conv2d


@pytest.mark.parametrize("name", format_names())
def test_every_row_of_a_table_agrees(name: str) -> None:
    kind = load_format(name)
    folding = kind.fold((7 * 11 * 13, 24), 3)
    made = kind(folding, tuple(min(3, most) for most in kind.max_ranks(folding)))
    made.reset(0.5, generator())
    layer = TensorizedEmbedding(made, 1000)
    plain = plain_network(layer)
    rows = torch.arange(1000)
    torch.testing.assert_close(plain(rows), layer(rows), rtol=1e-5, atol=1e-5)


def test_a_shared_layer_stays_shared() -> None:
    shared = nn.Linear(64, 64)
    net = nn.ModuleList([shared, shared])
    tensorize(net, TensorizeOptions(format="tt"))
    plain = plain_network(net)
    assert plain[0] is plain[1]
    assert plain[0] is not net[0]


@pytest.mark.parametrize(
    ("name", "used"), [*((name, 1000) for name in format_names()), ("ttm", 1001)]
)
def test_a_written_table_answers_and_refuses_as_a_dense_one(name: str, used: int) -> None:
    """Truth: onnxruntime with the dense table, which counts negative indices from the end. With
    1,000 rows in use the factors have one to spare."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from edgecompress.training.export import export_trained

    kind = load_format(name)
    folding = kind.fold((7 * 11 * 13, 24), 6)
    made = kind(folding, tuple(min(2, most) for most in kind.max_ranks(folding)))
    made.reset(0.5, generator())
    layer = TensorizedEmbedding(made, used, padding_idx=3)
    written = plain_network(layer)
    assert isinstance(written, Table)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (int64[N, 1] rows) => (float[N, 1, 24] y) { y = Gather(w, rows) }"
    )
    weight = layer.to_dense().weight.detach().numpy()
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    files = (
        model.SerializeToString(),
        export_trained(written, {"rows": np.zeros((2, 1), np.int64)}, where="test"),
    )
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    sessions = [
        runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for file in files
    ]
    rows = {"rows": np.arange(-used, used)[:, None]}
    expected, found = (session.run(None, rows)[0] for session in sessions)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for wrong in (used, 1001, 1002, 10**6, 2**40, -used - 1, -1002, -(2**40), 2**63 - 1, -(2**63)):
        for session in sessions:
            with pytest.raises(Exception, match="out of data bounds"):
                session.run(None, {"rows": np.array([[0], [wrong]])})
    for wrong in (used, 1001, -1):
        with pytest.raises(IndexError):
            written(torch.tensor([0, wrong]))
