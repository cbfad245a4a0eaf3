"""A small transformer: next tokens of a sequence, or the class of one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecompress.core.errors import ConfigurationInvalid, DataInvalid
from edgecompress.training.architectures import Architecture, SampleShape, draw_weights, unfit

FORWARD_RATIO = 4
"""Width inside the position-wise layers over the model's. Source: Vaswani et al. 2017."""

MASKED = -1e9
"""Added to the logits of later places; their weight underflows to 0, and no row is all infinite."""


class Attention(nn.Module):
    """Attention of several heads, from plain linear layers and products.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.heads = heads
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, width) -> the same."""
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        logits = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        if self.causal:
            logits = logits + later_places(x)
        mixed = logits.softmax(-1) @ value
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        """(n, length, width) -> (n, heads, length, width / heads)."""
        _, length, width = x.shape
        return x.reshape(-1, length, self.heads, width // self.heads).transpose(1, 2)


def later_places(x: Tensor) -> Tensor:
    """What hides later places of (n, length, width) from earlier ones: (1, 1, length, length).

    Places are counted over ones that have the batch's open axis until they are cut to one row:
    the exporter takes anything else for a constant, and writes length^2 numbers for each block.
    """
    ones = torch.ones_like(x[:, :, 0], dtype=torch.long)
    places = ones[:1].cumsum(1)
    return (places[:, None, None, :] > places[:, None, :, None]).to(x.dtype) * MASKED


class Block(nn.Module):
    """Attention and a position-wise pair of layers, each normalised before and added after.

    Source: Vaswani et al. 2017; normalised first as in Xiong et al. 2020.
    """

    def __init__(self, attention: Attention, width: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = attention
        self.forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, FORWARD_RATIO * width)
        self.down = nn.Linear(FORWARD_RATIO * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, width) -> the same."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        wide = torch.relu(self.up(self.forward_norm(x)))
        summed: Tensor = x + self.dropout(self.down(wide))
        return summed


class Transformer(nn.Module):
    """Tokens or feature vectors -> logits of every next token, or of one class."""

    def __init__(
        self, entry: nn.Module, length: int, blocks: list[Block], outputs: int, *, whole: bool
    ) -> None:
        super().__init__()
        width = blocks[0].up.in_features
        self.entry = entry
        self.place = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        """(n, length) or (n, length, features) -> (n, length, tokens) or (n, classes)."""
        y = self.norm(self.blocks(self.entry(x) + self.place[: x.shape[1]]))
        logits: Tensor = self.head(y.mean(1) if self.whole else y)
        return logits


def build(
    sample: SampleShape,
    generator: torch.Generator,
    *,
    width: int = 128,
    depth: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
) -> nn.Module:
    """A decoder that predicts tokens, or, where classes are asked, an encoder of the whole.

    Args:
        sample: Tokens (length,) with their vocabulary, or feature vectors (length, features).
        generator: Of the weights.
        width: Of the model, a multiple of ``heads``.
        depth: Blocks.
        heads: Of attention.
        dropout: Share left out in training at the end of each branch.

    Raises:
        ConfigurationInvalid: A size is out of range.
        DataInvalid: Samples are no sequences, or neither classes nor a vocabulary are known.
    """
    if min(width, depth, heads) < 1 or width % heads or not 0 <= dropout < 1:
        raise ConfigurationInvalid(
            f"width {width} must be a multiple of heads {heads}, depth {depth} at least 1, and "
            f"dropout {dropout} from 0 to below 1",
            where="transformer",
        )
    entry, length = _entry(sample, width)
    outputs = sample.vocabulary if sample.classes is None else sample.classes
    if outputs is None:
        raise DataInvalid("transformer needs the number of classes or the size of the vocabulary")
    causal = sample.classes is None
    blocks = [Block(Attention(width, heads, causal=causal), width, dropout) for _ in range(depth)]
    network = Transformer(entry, length, blocks, outputs, whole=not causal)
    draw_weights(network, generator)
    with torch.no_grad():
        network.place.normal_(0.0, 0.02, generator=generator)
        network.head.weight.mul_(0.5**0.5)
        for block in blocks:
            block.attention.output.weight.mul_((2 * depth) ** -0.5)
            block.down.weight.mul_((2 * depth) ** -0.5)
    return network


def _entry(sample: SampleShape, width: int) -> tuple[nn.Module, int]:
    """What turns a sample into vectors, and their number.

    Source of the scales in `build`: Radford et al. 2019, section 2.3 (branches by the root of their
    number); places with deviation 0.02 as in its predecessor of 2018.
    """
    match sample.inputs, sample.dtypes:
        case ((length,),), (dtype,) if "int" in dtype and sample.vocabulary is not None:
            return nn.Embedding(sample.vocabulary, width), length
        case ((length, features),), (dtype,) if dtype.startswith("float"):
            return nn.Linear(features, width), length
        case _:
            wanted = "tokens (length,) with a vocabulary, or feature vectors (length, features)"
            raise unfit(sample, "transformer", wanted)


ARCHITECTURE = Architecture(
    name="transformer",
    build=build,
    tasks=("next-token", "classification", "regression"),
    kinds=("tokens", "vector"),
    choices=("width", "depth", "heads", "dropout"),
)
