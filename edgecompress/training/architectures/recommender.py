"""A recommender: dense features through layers, categories through tables, all pairs multiplied."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.training.architectures import Architecture, SampleShape, draw_weights, unfit

DEFERRED_ENTRIES = 1 << 24
"""A table of more entries is made without memory: it can only be trained as factors.

Source: 64 MiB of float32, far above what is trained dense on a device and far below memory.
"""


class Recommender(nn.Module):
    """Click logit from dense features and one category of each table.

    Attributes:
        tables: One ``nn.Embedding`` each, entries of variance 1.
        bottom: Dense features -> width, rectified.
        top: (bottom's output, all pairwise products) -> logit.

    Source: Naumov et al. 2019 (deep learning recommendation model).
    """

    def __init__(
        self, features: int, cardinalities: Shape, width: int, bottom: Shape, top: Shape
    ) -> None:
        super().__init__()
        self.width = width
        self.tables = nn.ModuleList(_table(rows, width) for rows in cardinalities)
        self.bottom = _layers((features, *bottom, width))
        vectors = len(cardinalities) + 1
        self.top = _layers((width + vectors * (vectors - 1) // 2, *top, 1))
        first, second = torch.triu_indices(vectors, vectors, offset=1)
        self.register_buffer("pairs", first * vectors + second, persistent=False)
        self.pairs: Tensor

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        """(n, features) floating and (n, tables) whole numbers to (n,) logits."""
        rows = categories.unbind(1)
        found = [table(row) for table, row in zip(self.tables, rows, strict=True)]
        hidden = self.bottom(dense)
        vectors = torch.stack([hidden, *found], 1)
        grams = cast(Tensor, _Grams.apply(vectors))  # type: ignore[no-untyped-call]
        products = grams.flatten(1) * self.width**-0.5
        inputs = torch.cat([hidden, products.index_select(1, self.pairs)], 1)
        logits: Tensor = self.top(inputs)
        return logits.squeeze(1)


class _Grams(torch.autograd.Function):
    """All products of rows, (n, k, w) -> (n, k, k); going back, one product serves both sides."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return torch.bmm(vectors, vectors.mT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        return torch.bmm(gradient + gradient.mT, vectors)


def build(
    sample: SampleShape,
    generator: torch.Generator,
    *,
    width: int = 16,
    bottom: Shape = (64,),
    top: Shape = (64,),
) -> nn.Module:
    """Dense features, tables of categories, their pairwise products, and a logit.

    Args:
        sample: Floating features (features,) and whole numbers (tables,); rows of each table.
        generator: Of the weights.
        width: Of a row of a table.
        bottom: Hidden widths for the dense features.
        top: Hidden widths before the logit; none: the logit is linear in the products.

    Tables above `DEFERRED_ENTRIES` have no memory until they are tensorized.

    Raises:
        ConfigurationInvalid: A width is below 1.
        DataInvalid: Other samples.
    """
    if any(size < 1 for size in (width, *bottom, *top)):
        raise ConfigurationInvalid(
            f"width {width} and hidden widths {list(bottom)}, {list(top)} must be at least 1",
            where="recommender",
        )
    shapes, tables = sample.inputs, sample.cardinalities
    fits = len(shapes) == 2 and len(shapes[0]) == 1 and shapes[1] == (len(tables),) and tables
    if not fits or "float" not in sample.dtypes[0] or "int" not in sample.dtypes[1]:
        raise unfit(sample, "recommender", "floating features and one category of each table")
    network = Recommender(shapes[0][0], tables, width, bottom, top)
    for layers in (network.bottom, network.top):
        draw_weights(layers, generator)
    with torch.no_grad():
        for table in network.tables:
            weight = table.get_parameter("weight")
            if not weight.is_meta:
                weight.normal_(0.0, 1.0, generator=generator)
    return network


def _table(rows: int, width: int) -> nn.Embedding:
    """Not drawn yet."""
    device = "meta" if rows * width > DEFERRED_ENTRIES else "cpu"
    made: nn.Embedding = nn.utils.skip_init(nn.Embedding, rows, width, device=device)  # type: ignore[no-untyped-call]
    return made


def _layers(widths: Shape) -> nn.Sequential:
    """Linear layers with rectifiers between them."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


ARCHITECTURE = Architecture(
    name="recommender",
    build=build,
    tasks=("click",),
    kinds=("categories",),
    choices=("width", "bottom", "top"),
)
