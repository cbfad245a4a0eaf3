"""Any torch network turned into factors: which layers, by which rules, with which numbers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecompress.core.errors import ConfigurationInvalid  # noqa: E402
from edgecompress.core.options import FixedRanks, LayerRule, ParameterRatio  # noqa: E402
from edgecompress.core.training import TensorizeOptions  # noqa: E402
from edgecompress.training.factorized import format_names  # noqa: E402
from edgecompress.training.layers import TensorizedLayer, TensorizedLinear  # noqa: E402
from edgecompress.training.tensorize import (  # noqa: E402
    LeftDense,
    TensorizedReport,
    factorizations,
    tensorize,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reasons(report: TensorizedReport) -> dict[str, str]:
    return {fact.name: fact.reason for fact in report.layers if isinstance(fact, LeftDense)}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))


def test_the_published_net_has_the_published_count() -> None:
    """23,262 parameters with biases at rank 20, modes (28, 28 | 16, 32) and (32, 16 | 10).

    Source: Hawkins and Zhang 2021, their folding; ranks clipped to what is useful.
    """
    net = mlp()
    report = tensorize(net, TensorizeOptions(format="tt"), generator=generator())
    assert [fact.count for fact in report.tensorized] == [18_800, 3_940]
    assert [fact.dense_count for fact in report.tensorized] == [401_408, 5_120]
    assert sum(p.numel() for p in net.parameters()) == 23_262
    assert [name for name, _ in factorizations(net)] == ["0", "2"]


@pytest.mark.parametrize("name", format_names())
def test_outputs_start_with_the_variance_of_the_dense_net(name: str) -> None:
    x = torch.randn(200, 784, generator=generator())
    dense, made = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(784, 256, bias=False))
        dense.append(float(net(x).detach().square().mean()))
        tensorize(net, TensorizeOptions(format=name), generator=generator(seed))
        assert isinstance(net[0], TensorizedLinear)
        made.append(float(net(x).detach().square().mean()))
    assert sum(made) / sum(dense) == pytest.approx(1.0, rel=0.3)


def test_the_same_seed_gives_the_same_bits() -> None:
    nets = [mlp() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        tensorize(net, TensorizeOptions(format="tt"), generator=generator(5))
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["tt", "cp", "tucker"])
def test_a_pretrained_net_keeps_its_function_at_full_ranks(name: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(144, 6)
    )
    x = torch.randn(2, 3, 8, 8, generator=generator())
    expected = net(x)
    options = TensorizeOptions(
        format=name, ranks=FixedRanks((10**6,)), cores=3, minimum_saving=-1e9
    )
    report = tensorize(net, options, pretrained=True)
    assert len(report.tensorized) == 3
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def test_first_rule_that_matches_wins() -> None:
    net = nn.ModuleDict({f"fc{k}": nn.Linear(64, 64) for k in range(4)})
    rules = (
        LayerRule(match="fc0", skip=True),
        LayerRule(match="re:fc[01]", format="cp", ranks=(7,)),
        LayerRule(match="fc?", format="none"),
    )
    report = tensorize(net, TensorizeOptions(format="tt", rules=rules))
    assert {fact.name: (fact.format, fact.ranks) for fact in report.tensorized} == {
        "fc1": ("cp", (7,))
    }
    assert reasons(report)["fc0"] == "the rule for 'fc0' leaves it dense"
    assert reasons(report)["fc3"] == "the rule for 'fc?' leaves it dense"


def test_a_rule_may_ask_for_factors_where_nothing_else_does() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    rules = (LayerRule(match="1", format="tt", ranks=(4,)),)
    report = tensorize(net, TensorizeOptions(format="none", rules=rules))
    assert [fact.name for fact in report.tensorized] == ["1"]
    assert reasons(report) == {"0": "format none"}


def test_wrong_rules_and_formats_are_refused() -> None:
    with pytest.raises(ConfigurationInvalid, match="'fc9' matches no layer"):
        tensorize(mlp(), TensorizeOptions(rules=(LayerRule(match="fc9"),)))
    with pytest.raises(ConfigurationInvalid, match="wrong regular expression"):
        tensorize(mlp(), TensorizeOptions(rules=(LayerRule(match="re:("),)))
    with pytest.raises(ValueError, match="no tensor format is called 'svd'"):
        tensorize(mlp(), TensorizeOptions(format="svd"))


class Odd(nn.Module):
    """One of everything that stays dense."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.transposed = nn.ConvTranspose2d(8, 8, 3)
        self.wrapped = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")
        self.sequence = nn.Conv1d(8, 8, 3)
        self.table = nn.Embedding(64, 64)
        self.head = nn.Linear(64, 64, bias=False)
        self.head.weight = self.table.weight
        self.normed = nn.Embedding(100, 32, max_norm=1.0)
        self.attention = nn.MultiheadAttention(32, 2)
        self.memory = nn.LSTM(8, 8)
        self.scaled = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
        self.hooked = nn.Linear(32, 32)
        self.hooked.register_forward_hook(lambda *_: None)
        self.tiny = nn.Linear(2, 2)


def test_what_stays_dense_says_why() -> None:
    net = Odd()
    modules = dict(net.named_modules())
    report = tensorize(net, TensorizeOptions(format="tt"))
    assert report.tensorized == ()
    assert dict(net.named_modules()) == modules
    assert reasons(report) == {
        "grouped": "grouped convolution (groups=2)",
        "transposed": "transposed convolution",
        "wrapped": "padding mode circular",
        "sequence": "1-D convolution",
        "table": "its weight is shared with head",
        "head": "its weight is shared with table",
        "normed": "max_norm renormalises its rows",
        "attention": "no factors for MultiheadAttention",
        "attention.out_proj": "a NonDynamicallyQuantizableLinear, "
        "whose own forward pass would be lost",
        "memory": "no factors for LSTM",
        "scaled": "a ParametrizedLinear, whose own forward pass would be lost",
        "hooked": "it has forward hooks, which would be lost",
        "tiny": "tt factors of ranks (1,) would save 0.0%",
    }


def test_factors_that_save_too_little_are_not_made() -> None:
    net = nn.Sequential(nn.Linear(64, 64))
    options = TensorizeOptions(format="tt", ranks=FixedRanks((60,)), minimum_saving=0.1)
    assert "would save" in reasons(tensorize(net, options))["0"]
    assert isinstance(net[0], nn.Linear)
    report = tensorize(net, TensorizeOptions(format="tt", ranks=ParameterRatio(0.25)))
    assert report.tensorized[0].count <= 64 * 64 / 4


def test_a_network_that_is_one_layer_cannot_be_replaced() -> None:
    assert "wrap it" in reasons(tensorize(nn.Linear(64, 64), TensorizeOptions()))[""]


def test_a_shared_layer_is_replaced_everywhere_by_one() -> None:
    shared = nn.Linear(64, 64)
    net = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.ReLU())})
    report = tensorize(net, TensorizeOptions(format="tt"))
    assert len(report.layers) == 1
    assert isinstance(net["a"], TensorizedLayer)
    assert net["b"][0] is net["a"]


def test_a_transformer_still_runs_in_evaluation_mode() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 128, batch_first=True), 2)
    x = torch.randn(2, 5, 32, generator=generator())
    tensorize(net, TensorizeOptions(format="tt"), pretrained=True)
    net.eval()
    with torch.no_grad():
        once = net(x)
    torch.testing.assert_close(net(x).detach(), once)


def test_the_automatic_choice() -> None:
    net = nn.ModuleDict(
        {
            "linear": nn.Linear(256, 256),
            "conv": nn.Conv2d(32, 32, 3),
            "pointwise": nn.Conv2d(64, 64, 1),
            "table": nn.Embedding(5000, 64),
        }
    )
    chosen = {fact.name: fact for fact in tensorize(net, TensorizeOptions()).tensorized}
    assert chosen["conv"].format == "tucker"
    assert chosen["pointwise"].format == "tt"
    if "ttm" in format_names():
        assert chosen["linear"].format == chosen["table"].format == "ttm"
    assert all(fact.count < 0.9 * fact.dense_count for fact in chosen.values())


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("size", [15_000, 27_136, 60_000])
def test_a_start_size_is_reached_by_the_least_common_rank(name: str, size: int) -> None:
    def count(net: nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    net = mlp()
    tensorize(net, TensorizeOptions(format=name, minimum_saving=-10.0), start_size=size)
    rank = max(max(part.ranks) for _, part in factorizations(net))
    lower = mlp()
    options = TensorizeOptions(format=name, ranks=FixedRanks((rank - 1,)), minimum_saving=-10.0)
    tensorize(lower, options)
    assert count(lower) < size <= count(net)


def test_a_start_size_is_looked_for_from_the_floor_on() -> None:
    net = mlp()
    tensorize(net, TensorizeOptions(format="ttm"), start_size=10, floor=3)
    assert all(part.ranks == (3,) for _, part in factorizations(net))


def test_a_start_size_yields_to_named_ranks_and_to_what_is_useful() -> None:
    named, free = mlp(), mlp()
    rules = (LayerRule(match="0", ranks=(3,)),)
    tensorize(named, TensorizeOptions(format="ttm", rules=rules), start_size=27_136)
    assert next(part.ranks for _, part in factorizations(named)) == (3,)
    # More than there is: each layer as large as still saves its tenth.
    report = tensorize(free, TensorizeOptions(format="ttm"), start_size=10**9)
    assert all(fact.count <= 0.9 * fact.dense_count for fact in report.tensorized)


def test_a_table_of_a_prime_number_of_rows_gets_spare_ones() -> None:
    net = nn.ModuleDict({"table": nn.Embedding(10_007, 32)})
    report = tensorize(net, TensorizeOptions(format="tt", ranks=FixedRanks((8,))))
    fact = report.tensorized[0]
    assert fact.folding.shape[0] > 10_007
    assert fact.count < 0.05 * fact.dense_count
    table = net["table"]
    assert table.num_embeddings == 10_007
    assert table.to_dense().weight.shape == (10_007, 32)
    assert table(torch.tensor([10_006])).shape == (1, 32)


def test_a_layer_without_storage_gets_factors_with_storage() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Embedding(10_000_000, 64))
    report = tensorize(net, TensorizeOptions(format="tt", ranks=FixedRanks((4,))))
    assert report.tensorized[0].count < 100_000
    found = net(torch.randint(0, 10_000_000, (200,), generator=generator()))
    assert float(found.detach().std()) == pytest.approx(1.0, rel=0.7)


@pytest.mark.parametrize("format_name", ["tt", "cp"])
def test_a_padded_batch_goes_through_an_encoder_of_factors(format_name: str) -> None:
    """Truth: the same layers with gradients on, where torch takes no shortcut past them."""
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 128, batch_first=True), 2)
    whole = nn.ModuleDict({"encoder": net, "head": nn.Linear(32, 2)})
    tensorize(whole, TensorizeOptions(format=format_name), generator=generator())
    whole.eval()
    x = torch.randn(2, 5, 32, generator=generator())
    padded = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    called = net(x, src_key_padding_mask=padded).detach()
    with torch.no_grad():
        found = net(x, src_key_padding_mask=padded)
    assert found.shape == x.shape
    torch.testing.assert_close(found[~padded], called[~padded])


def test_a_dense_encoder_keeps_its_shortcut() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 128, batch_first=True), 1)
    tensorize(net, TensorizeOptions(format="none"))
    assert net.use_nested_tensor
    assert net.layers[0].activation_relu_or_gelu == 1


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_layer_whose_shape_is_not_known_yet_stays() -> None:
    net = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(64), nn.Linear(64, 64))
    report = tensorize(net, TensorizeOptions(format="tt"), generator=generator())
    assert "not known before its first pass" in reasons(report)["0"]
    assert "not known before its first pass" in reasons(report)["2"]
    assert [fact.name for fact in report.tensorized] == ["3"]
    assert net(torch.zeros(2, 3, 6, 6)).shape == (2, 64)
