"""The recommender, and clicks with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.autograd import gradcheck
from torch.nn.functional import binary_cross_entropy_with_logits

from edgecompress.core.errors import ConfigurationInvalid, DataInvalid
from edgecompress.core.options import FixedRanks
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.architectures import SampleShape, load_architecture
from edgecompress.training.architectures.recommender import Recommender
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.layers import TensorizedEmbedding
from edgecompress.training.synthetic_clicks import CRITEO_KAGGLE_LARGEST, ClickModel
from edgecompress.training.tensorize import tensorize


def sample(*cardinalities: int) -> SampleShape:
    return SampleShape(
        inputs=((13,), (len(cardinalities),)),
        dtypes=("float32", "int64"),
        cardinalities=cardinalities,
    )


def built(*cardinalities: int, **choices: object) -> Recommender:
    network = load_architecture("recommender").build(
        sample(*cardinalities), torch.Generator().manual_seed(0), **choices
    )
    assert isinstance(network, Recommender)
    return network


def small_truth(seed: int = 0) -> ClickModel:
    foldings = (Folding((5, 6, 7), (2, 2, 2)), Folding((4, 4, 4), (2, 2, 2)))
    return ClickModel((205, 64), foldings, 2, torch.Generator().manual_seed(seed))


def test_logit_is_the_published_interaction() -> None:
    """Naumov et al. 2019: products of all pairs of vectors beside the dense vector, in NumPy."""
    network = built(20, 30, width=4, bottom=(6,), top=(5,))
    dense, rows = torch.randn(3, 13), torch.tensor([[0, 29], [19, 1], [7, 7]])
    hidden = network.bottom(dense).detach().numpy()
    tables = [table.weight.detach().numpy()[rows[:, k]] for k, table in enumerate(network.tables)]
    vectors = [hidden, *tables]
    products = [(vectors[a] * vectors[b]).sum(1) / 2 for a in range(3) for b in range(a + 1, 3)]
    inputs = np.concatenate([hidden, np.stack(products, 1)], 1)
    expected = network.top(torch.tensor(inputs)).detach().squeeze(1)
    torch.testing.assert_close(network(dense, rows), expected)


def test_gradients_of_the_interaction() -> None:
    """Against differences, for all inputs and weights."""
    network = built(5, 4, 3, width=4, bottom=(6,), top=()).double()
    rows = torch.tensor([[4, 3, 0], [0, 3, 2]])
    dense = torch.randn(2, 13, dtype=torch.float64, requires_grad=True)
    weights = tuple(network.parameters())
    assert gradcheck(lambda x, *_: network(x, rows), (dense, *weights))


def test_without_hidden_widths_the_logit_is_linear_in_the_products() -> None:
    assert [type(layer) for layer in built(20, 30, top=()).top] == [nn.Linear]


def test_large_tables_wait_for_their_factors() -> None:
    network = built(*CRITEO_KAGGLE_LARGEST, 1000, width=128)
    assert [table.weight.is_meta for table in network.tables] == [True] * 5 + [False]
    options = TensorizeOptions(format="ttm", ranks=FixedRanks((2,)), cores=3)
    tensorize(network, options, generator=torch.Generator().manual_seed(0))
    assert all(isinstance(table, TensorizedEmbedding) for table in network.tables[:5])
    rows = torch.tensor([[size - 1 for size in (*CRITEO_KAGGLE_LARGEST, 1000)]])
    assert network(torch.zeros(1, 13), rows).shape == (1,)
    count = sum(parameter.numel() for parameter in network.tables[:5].parameters())
    assert sum(CRITEO_KAGGLE_LARGEST) * 128 / count > 20_000


def test_refuses_other_samples() -> None:
    picture = SampleShape(inputs=((3, 32, 32),), dtypes=("float32",), classes=10)
    build = load_architecture("recommender").build
    with pytest.raises(DataInvalid, match="recommender takes floating features and one category"):
        build(picture, torch.Generator())
    with pytest.raises(ConfigurationInvalid, match="must be at least 1"):
        build(sample(5), torch.Generator(), width=0)


def test_logit_is_a_factorization_machine() -> None:
    """Rendle 2010 with every pair written out, from the dense tables in NumPy."""
    truth = small_truth()
    drawn = truth.draw(50, torch.Generator().manual_seed(3))
    tables = [table.dense().numpy() for table in truth.tables]
    rows = [table[drawn.categories[:, k].numpy()] for k, table in enumerate(tables)]
    vector = truth.mean.numpy() + drawn.features.numpy() @ truth.mix.numpy()
    terms = (vector * rows[0]).sum(1) + (vector * rows[1]).sum(1) + (rows[0] * rows[1]).sum(1)
    logits = truth.offset + truth.scale * terms
    np.testing.assert_allclose(drawn.probability, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_clicks_follow_the_probability() -> None:
    """Mean and calibration within four standard errors; the share of Criteo's challenge."""
    drawn = small_truth().draw(40_000, torch.Generator().manual_seed(1))
    error = 4 * 0.5 / 40_000**0.5
    assert abs(float(drawn.clicks.mean() - drawn.probability.mean())) < error
    assert float(drawn.clicks.mean()) == pytest.approx(0.256, abs=0.02)
    likely = drawn.probability > 0.5
    gap = float(drawn.clicks[likely].mean() - drawn.probability[likely].mean())
    assert abs(gap) < 4 * 0.5 / int(likely.sum()) ** 0.5


def test_no_other_score_beats_the_generating_model() -> None:
    drawn = small_truth().draw(40_000, torch.Generator().manual_seed(1))
    clicks = drawn.clicks.numpy()
    ceiling = roc_auc_score(clicks, drawn.probability.numpy())
    noise = torch.randn(40_000, generator=torch.Generator().manual_seed(2))
    worse = roc_auc_score(clicks, (drawn.probability.logit() + noise).numpy())
    assert 0.7 < worse < ceiling < 0.95


def test_categories_follow_a_power_law_and_stay_in_range() -> None:
    """Exponent 1 over 205 rows: the most frequent has log 2 / log 206 = 13 % of the samples."""
    drawn = small_truth().draw(40_000, torch.Generator().manual_seed(1))
    counts = np.bincount(drawn.categories[:, 0].numpy(), minlength=205)
    assert len(counts) == 205
    assert counts.max() / 40_000 == pytest.approx(np.log(2) / np.log(206), abs=0.01)
    assert (counts > 0).all()


def test_tables_are_those_of_the_published_recommender() -> None:
    """Hawkins et al. 2022: 4,248,739,968 parameters in the five tables at width 128."""
    assert sum(CRITEO_KAGGLE_LARGEST) * 128 == 4_248_739_968


def test_same_seed_same_clicks() -> None:
    one, other = (small_truth(4).draw(50, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(one.clicks, other.clicks)
    assert torch.equal(one.categories, other.categories)


def test_factors_learn_what_categories_say() -> None:
    """At least half of the way from what features alone could say (0.5) to the ceiling."""
    truth = small_truth()
    generator = torch.Generator().manual_seed(2)
    network = built(205, 64, width=8, bottom=(32,), top=(32,))
    options = TensorizeOptions(format="ttm", ranks=FixedRanks((6,)), cores=3, minimum_saving=-10.0)
    tensorize(network.tables, options, generator=generator)
    assert all(isinstance(table, TensorizedEmbedding) for table in network.tables)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(200):
        batch = truth.draw(512, generator)
        optimizer.zero_grad()
        logits = network(batch.features, batch.categories)
        binary_cross_entropy_with_logits(logits, batch.clicks).backward()
        optimizer.step()
    test = truth.draw(20_000, torch.Generator().manual_seed(7))
    with torch.no_grad():
        reached = roc_auc_score(test.clicks, network(test.features, test.categories))
    ceiling = roc_auc_score(test.clicks, test.probability)
    assert reached > 0.5 + 0.5 * (ceiling - 0.5)
