"""Chains of convolutions that are made again going back, against torch's own convolution."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import conv2d, cross_entropy  # noqa: E402

from edgecompress.training.factorized import kernels, load_format  # noqa: E402
from edgecompress.training.factorized.kernels import block_samples  # noqa: E402
from edgecompress.training.layers import TensorizedConv2d  # noqa: E402
from edgecompress.training.memory import measure_memory, predict_memory  # noqa: E402

NAMES = ("cp", "tt", "tucker")
SETTINGS = (
    {"stride": 1, "padding": 0},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
    {"padding": "same", "dilation": (1, 2)},
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_of(
    name: str, kernel: tuple[int, int], setting: dict[str, object], cores: int | None = None
) -> TensorizedConv2d:
    kind = load_format(name)
    folding = kind.fold((6, 4, *kernel), cores)
    ranks = tuple(min(2, most) for most in kind.max_ranks(folding))
    made = kind(folding, ranks, dtype=torch.float64)
    made.reset(0.5, generator())
    return TensorizedConv2d.around(nn.Conv2d(4, 6, kernel, **setting).double(), made)


def picture(samples: int = 5, **options: object) -> Tensor:
    return torch.randn(samples, 4, 6, 5, generator=generator(1), dtype=torch.float64, **options)


def as_function(layer: TensorizedConv2d):  # type: ignore[no-untyped-def]
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (x,))

    return run, tuple(p.detach().clone().requires_grad_() for p in layer.parameters())


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(
    name: str,
    kernel: tuple[int, int],
    setting: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TensorizedConv2d, "factors_pay", True)
    run, values = as_function(layer_of(name, kernel, setting))
    x = picture(2, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_of_a_gradient_is_that_of_finite_differences(name: str) -> None:
    run, values = as_function(layer_of(name, (3, 3), {"stride": 2, "padding": 1}, 5))
    x = torch.randn(3, 4, 4, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values), atol=1e-4, fast_mode=True)


def square_cell(name: str) -> TensorizedConv2d:
    kind = load_format(name)
    folding = kind.fold((4, 4, 3, 3))
    made = kind(folding, tuple(min(2, m) for m in kind.max_ranks(folding)), dtype=torch.float64)
    made.reset(0.3, generator())
    return TensorizedConv2d(made, torch.ones(4, dtype=torch.float64), padding=(1, 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_may_stand_at_two_places(name: str) -> None:
    """Truth: torch's convolution with the layer's weight, twice; also of a gradient's norm."""
    layer = square_cell(name)
    x = picture(requires_grad=True)
    inputs = (x, layer.bias, *layer.factorization.cores)
    found = []
    for through in (layer, lambda y: conv2d(y, layer.factorization.dense(), layer.bias, 1, 1)):
        y = through(through(x).relu())
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        norm = sum(one.square().sum() for one in first)
        found.append((*first, *torch.autograd.grad(norm, inputs)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_wanted_has_a_gradient(name: str) -> None:
    layer = layer_of(name, (3, 3), {"padding": 1})
    reference = layer_of(name, (3, 3), {"padding": 1})
    reference.bias.data.copy_(layer.bias.data)
    x = picture(requires_grad=True)
    reference(x).square().sum().backward()
    layer.requires_grad_(False)
    inner = x.detach().clone().requires_grad_()
    layer(inner).square().sum().backward()
    torch.testing.assert_close(inner.grad, x.grad)
    assert layer.bias.grad is None
    assert all(core.grad is None for core in layer.factorization.cores)
    last = list(layer.factorization.cores)[-1].requires_grad_()
    layer(x.detach()).square().sum().backward()
    torch.testing.assert_close(last.grad, list(reference.factorization.cores)[-1].grad)
    with torch.no_grad():
        assert not layer(x).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_samples_may_lie_in_any_way(name: str) -> None:
    layer = layer_of(name, (3, 3), {"stride": 2, "padding": 1})
    x, dense = picture(), layer.to_dense()
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), dense(x))
    torch.testing.assert_close(layer(x[0]), dense(x[0]))
    torch.testing.assert_close(layer(x[::2]), dense(x[::2]))
    empty = layer(x[:0])
    assert empty.shape == dense(x[:0]).shape
    empty.sum().backward()


@pytest.mark.parametrize("share", [0, 1, 1000])
def test_blocks_do_not_change_the_result(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of("tucker", (3, 3), {"stride": 2, "padding": 1})
    x, dense = picture(7, requires_grad=True), layer.factorization.dense()
    weight = dense.detach().requires_grad_()
    conv2d(x, weight, layer.bias.detach(), 2, 1).square().sum().backward()
    wanted, x.grad = x.grad, None
    monkeypatch.setattr(kernels, "BLOCK_SHARE", share)
    layer(x).square().sum().backward()
    torch.testing.assert_close(x.grad, wanted)
    cores = list(layer.factorization.cores)
    own = torch.autograd.grad(dense, cores, weight.grad)
    for core, theirs in zip(cores, own, strict=True):
        torch.testing.assert_close(core.grad, theirs)


def test_blocks_as_counted_by_hand() -> None:
    # States of 60 numbers beside 100 and 140 may have 60: one block.
    assert block_samples([(100,), (40,), (20,), (140,)], 8) == 8
    # States of 600 are ten times too many: blocks of a tenth, rounded up.
    assert block_samples([(100,), (400,), (200,), (140,)], 8) == 1
    assert block_samples([(100,), (400,), (200,), (140,)], 25) == 3
    assert block_samples([(100,), (400,), (200,), (140,)], 0) == 1


def test_a_traced_chain_is_plain_convolutions() -> None:
    layer = layer_of("cp", (3, 3), {"padding": 1})
    x = picture(2)
    program = torch.export.export(layer, (x,), strict=False)
    torch.testing.assert_close(program.module()(x), layer(x))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("conv2d" in name for name in names) == 3
    torch.testing.assert_close(torch.vmap(layer)(x[:, None]), layer(x)[:, None])


def network_of(name: str) -> nn.Module:
    kind = load_format(name)
    folding = kind.fold((24, 16, 3, 3))
    made = kind(folding, tuple(min(8, m) for m in kind.max_ranks(folding)))
    made.reset(0.1, generator())
    middle = TensorizedConv2d(made, torch.zeros(24), padding=(1, 1))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), middle, nn.ReLU(), nn.AvgPool2d(12), nn.Flatten()
    )


@pytest.mark.parametrize("memory_of", [predict_memory, measure_memory])
@pytest.mark.parametrize("name", NAMES)
def test_a_chain_keeps_its_input_alone(name: str, memory_of: object) -> None:
    batch = (torch.randn(16, 3, 14, 14), torch.zeros(16, dtype=torch.long))

    def loss(network: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        return cross_entropy(network(given[0]), given[1])

    def adam(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, foreach=False)  # type: ignore[arg-type]

    found = memory_of(network_of(name), batch, loss, adam)  # type: ignore[operator]
    # By hand: both maps after their ReLU, log-probabilities, loss, weight sum; and what reads
    # the kernels, laid out anew where a format does so.
    positions = 16 * 12 * 12
    kept = positions * (16 + 24) + 16 * 24 + 2
    kernel = 8 * 8 * 9
    assert 4 * kept <= found.activation_bytes <= 4 * (kept + kernel)
    # Going back, a gradient of each map, and states between of half of that at the most: they
    # are a quarter in each direction of the pass.
    most = kept + positions * (16 + 24) * 3 // 2
    assert found.peak_bytes <= 4 * most + found.model_bytes
