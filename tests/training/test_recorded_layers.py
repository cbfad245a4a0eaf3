"""Layers of factors under torch.jit.trace, torch.export and the ONNX exporters: the recorded graph
gives what the layer gives, on batches of other sizes too."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecompress.training.factorized import format_names, load_format  # noqa: E402
from edgecompress.training.layers import (  # noqa: E402
    TensorizedConv2d,
    TensorizedEmbedding,
    TensorizedLinear,
)

ROWS = 1001
CONVOLUTIONS = tuple(name for name in format_names() if name != "ttm")


Recorder = Callable[[nn.Module, torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def factors(name: str, shape: tuple[int, ...], cores: int | None, rank: int = 3) -> nn.Module:
    kind = load_format(name)
    folding = kind.fold(shape, cores)
    made = kind(folding, tuple(min(rank, most) for most in kind.max_ranks(folding)))
    made.reset(0.5, generator())
    return made


def table(name: str, cores: int, used: int = ROWS) -> TensorizedEmbedding:
    return TensorizedEmbedding(factors(name, (ROWS, 24), cores), used).eval()


def traced(layer: nn.Module, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Traced, saved and read again; a decision that depends on the example is an error."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("error", torch.jit.TracerWarning)
        made = torch.jit.trace(layer, example, check_trace=False)
        torch.jit.save(made, file)
        file.seek(0)
        read = torch.jit.load(file)
    count = sum(parameter.numel() for parameter in layer.parameters())
    assert sum(parameter.numel() for parameter in read.parameters()) == count
    return read


def exported(layer: nn.Module, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    batch = ({0: torch.export.Dim("batch")},)
    return torch.export.export(layer, (example,), dynamic_shapes=batch).module()


RECORDERS = pytest.mark.parametrize("recorder", [traced, exported], ids=lambda f: f.__name__)


@RECORDERS
@pytest.mark.parametrize(("cores", "batch"), [(3, 2), (6, 2), (6, 40), (6, 2000)])
@pytest.mark.parametrize("name", format_names())
def test_a_recorded_table_has_its_rows(
    name: str, cores: int, batch: int, recorder: Recorder
) -> None:
    """A few rows are picked from every core; for many, cores are merged before."""
    layer = table(name, cores)
    example = torch.randint(0, ROWS, (batch, 7), generator=generator())
    recorded = recorder(layer, example)
    dense = layer.to_dense()
    for rows in (torch.arange(ROWS).reshape(-1, 7), example, example[:1]):
        torch.testing.assert_close(recorded(rows), dense(rows), rtol=1e-5, atol=1e-5)


@RECORDERS
@pytest.mark.parametrize(
    ("shape", "cores", "batch"), [((64, 96), 2, 2), ((64, 96), 6, 2), ((16, 16), 4, 300)], ids=str
)
@pytest.mark.parametrize("name", format_names())
def test_a_recorded_linear_layer_gives_its_products(
    name: str, shape: tuple[int, int], cores: int, batch: int, recorder: Recorder
) -> None:
    bias = torch.randn(shape[0], generator=generator(1))
    layer = TensorizedLinear(factors(name, shape, cores), bias).eval()
    x = torch.randn(129, 2, shape[1], generator=generator(2))
    recorded = recorder(layer, torch.zeros(batch, 2, shape[1]))
    dense = layer.to_dense()
    for samples in (x, x[:1]):
        torch.testing.assert_close(recorded(samples), dense(samples), rtol=1e-5, atol=1e-5)


@RECORDERS
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_recorded_convolution_gives_its_maps(name: str, recorder: Recorder) -> None:
    made = factors(name, (16, 24, 3, 3), None)
    layer = TensorizedConv2d(made, torch.ones(16), (2, 2), (1, 1)).eval()
    x = torch.randn(5, 24, 9, 9, generator=generator(2))
    recorded = recorder(layer, torch.zeros(2, 24, 9, 9))
    torch.testing.assert_close(recorded(x), layer.to_dense()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", format_names())
def test_a_recorded_table_refuses_other_rows(name: str) -> None:
    """Row 1000 exists in the factors and not in the table."""
    recorded = traced(table(name, 6, used=1000), torch.zeros(2, 7, dtype=torch.long))
    assert recorded(torch.tensor([[999]])).shape == (1, 1, 24)
    for wrong in (1000, 1001, 10**6, -1, -1000):
        with pytest.raises((IndexError, RuntimeError), match="index out of range"):
            recorded(torch.tensor([[0, wrong]]))


class Sums(nn.Module):
    """Tables of all formats, added, and behind them linear layers of all formats."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(table(name, 6) for name in format_names())
        self.layers = nn.ModuleList(
            TensorizedLinear(factors(name, (64, 24), 4), torch.zeros(64)) for name in format_names()
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = torch.stack([part(rows) for part in self.tables]).sum(0)
        return torch.stack([part(x) for part in self.layers]).sum(0)


def test_layers_of_factors_can_be_written_as_they_are(tmp_path: Path) -> None:
    """Without `plain_network`, by torch's own exporter."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = Sums().eval()
    file = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, dtype=torch.long),),
            file,
            input_names=["rows"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
            opset_version=20,
        )
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rows = torch.randint(0, ROWS, (50, 3), generator=generator())
    (found,) = session.run(None, {"rows": rows.numpy()})
    np.testing.assert_allclose(found, net(rows).detach().numpy(), rtol=1e-4, atol=1e-5)
