"""Any torch network with its weights turned into tensor factors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import assert_never

import torch
from torch import nn

from edgecompress.core.arrays import Shape
from edgecompress.core.layer_rules import check_rules, rule_for
from edgecompress.core.options import FixedRanks, LayerRule, ParameterRatio
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.factorized import format_names, load_format
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.costs import core_count, start_ranks
from edgecompress.training.factorized.folding import Folding, pad_size
from edgecompress.training.layers import (
    TensorizedConv2d,
    TensorizedEmbedding,
    TensorizedLayer,
    TensorizedLinear,
    kernel_pieces,
)
from edgecompress.training.weighted import Place, Weighted, places, shortcuts_off, why_not

AUTO, NONE = "auto", "none"
POSITIONS = 1 << 12
MOST_RANKS = 1 << 12
"""Beyond it no common starting rank is looked for. Source: a choice, above what any layer of the
architectures here has use for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorizedFact:
    """A layer that became factors."""

    name: str
    kind: str
    format: str
    folding: Folding
    ranks: Shape
    dense_count: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftDense:
    """A layer that stays as it was, and why."""

    name: str
    kind: str
    dense_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class TensorizedReport:
    """What became of each layer, in the network's order; weights only, no biases."""

    layers: tuple[TensorizedFact | LeftDense, ...]

    @property
    def tensorized(self) -> tuple[TensorizedFact, ...]:
        """The layers that became factors."""
        return tuple(fact for fact in self.layers if isinstance(fact, TensorizedFact))


def tensorize(
    module: nn.Module,
    options: TensorizeOptions,
    *,
    generator: torch.Generator | None = None,
    pretrained: bool = False,
    start_size: int | None = None,
    floor: int = 1,
) -> TensorizedReport:
    """Replace the layers of a network by tensorized ones, in place.

    Args:
        module: Any network; a layer that stands at several places is replaced at all of them.
        options: Which format and ranks; rules by the layer's name as in ``named_modules``.
        generator: Draws the factors. They get the variance that the layer's weight has.
        pretrained: Factors approximate the weights instead.
        start_size: Parameters of the whole network to start with, where nobody named ranks: the
            least common rank that gives as many; what has no more useful ranks gives less. None:
            the formats' own start.
        floor: The least rank that is tried for it.

    Raises:
        ConfigurationInvalid: A rule matches no layer, or its regular expression is wrong.
        ValueError: There is no such format, or a number of ranks fits no layer.
    """
    found = places(module)
    check_rules([place.name for place in found], options.rules)
    facts: list[TensorizedFact | LeftDense] = []
    common = None
    if start_size is not None:
        common = _common_rank(module, found, options, start_size, floor)
    for place in found:
        rule = rule_for([place.name], options.rules)
        reason = _stays(rule, options) or why_not(place, found)
        if reason is None and isinstance(place.module, nn.Linear | nn.Conv2d | nn.Embedding):
            wish = _Wish.of(rule, options, common)
            facts.append(_tensorize(place, place.module, wish, generator, pretrained))
        else:
            facts.append(_left(place, reason or "not a layer that has factors"))
    shortcuts_off(module, {part for part in module.modules() if isinstance(part, TensorizedLayer)})
    return TensorizedReport(tuple(facts))


def factorizations(module: nn.Module) -> Iterator[tuple[str, Factorization]]:
    """All factorizations of a network, each once, with the name of the layer each belongs to."""
    for name, part in module.named_modules():
        if isinstance(part, Factorization):
            yield name.removesuffix("factorization").removesuffix("."), part


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked of one layer."""

    format: str
    ranks: FixedRanks | ParameterRatio | None
    cores: int | None
    minimum_saving: float
    common: int | None = None

    @classmethod
    def of(
        cls, rule: LayerRule | None, options: TensorizeOptions, common: int | None = None
    ) -> _Wish:
        name, ranks = options.format, options.ranks
        if rule is not None:
            name = rule.format or name
            ranks = ranks if rule.ranks is None else FixedRanks(rule.ranks)
        return cls(name, ranks, options.cores, options.minimum_saving, common)


@dataclass(frozen=True, slots=True)
class _Form:
    """A format with modes and ranks, before there are any numbers."""

    kind: type[Factorization]
    folding: Folding
    ranks: Shape

    @property
    def count(self) -> int:
        return core_count(self.kind, self.folding, self.ranks)

    @property
    def macs(self) -> int:
        """Of the factors, for many rows."""
        orders = self.kind.orders(self.folding, self.ranks, POSITIONS)
        return min(order.macs for order in orders if order.name != "rebuild")


def _common_rank(
    module: nn.Module, found: Sequence[Place], options: TensorizeOptions, size: int, floor: int
) -> int:
    """The least starting rank of all bonds at which the network has so many parameters, or a rank
    that every bond clips where none gives as many. (The form of a convolution may change with the
    rank, and its count with it: then it is one of the ranks where the count crosses the size.)"""
    weights = {
        place: rule
        for place in found
        for rule in (rule_for([place.name], options.rules),)
        if _stays(rule, options) is None and why_not(place, found) is None
    }
    rest = sum(parameter.numel() for parameter in module.parameters())

    def count(rank: int) -> int:
        total = rest
        for place, rule in weights.items():
            if isinstance(place.module, nn.Linear | nn.Conv2d | nn.Embedding):
                form = _choose(place.module, _Wish.of(rule, options, rank))
                total += 0 if isinstance(form, str) else form.count - place.weight_count
        return total

    low, high = floor, floor
    while count(high) < size and high < MOST_RANKS:
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= size else (middle + 1, high)
    return low


def _stays(rule: LayerRule | None, options: TensorizeOptions) -> str | None:
    if rule is not None and (rule.skip or rule.format == NONE):
        return f"the rule for {rule.match!r} leaves it dense"
    if options.format == NONE and (rule is None or rule.format is None):
        return "format none"
    return None


def _left(place: Place, reason: str) -> LeftDense:
    return LeftDense(
        name=place.name, kind=place.kind, dense_count=place.weight_count, reason=reason
    )


def _tensorize(
    place: Place,
    module: Weighted,
    wish: _Wish,
    generator: torch.Generator | None,
    pretrained: bool,
) -> TensorizedFact | LeftDense:
    form = _choose(module, wish)
    if isinstance(form, str):
        return _left(place, form)
    made = _filled(form, module, generator, pretrained)
    if isinstance(module, nn.Conv2d):
        try:
            kernel_pieces(made)
        except ValueError as error:
            return _left(place, str(error))
    place.put(_layer(made, module))
    return TensorizedFact(
        name=place.name,
        kind=place.kind,
        format=made.name,
        folding=made.folding,
        ranks=made.ranks,
        dense_count=place.weight_count,
        count=made.count,
    )


def _choose(module: Weighted, wish: _Wish) -> _Form | str:
    """The form that is asked; of several the one with the fewest MACs, or the first that saves."""
    dense = module.weight.numel()
    limit = int((1 - wish.minimum_saving) * dense)
    forms, reasons = [], []
    for name in _candidates(module, wish.format):
        try:
            form = _form(load_format(name), module, wish, limit)
        except ValueError as error:
            if wish.format != AUTO:
                raise
            reasons.append(str(error))
            continue
        if form.count <= limit:
            forms.append(form)
        else:
            share = 1 - form.count / dense
            reasons.append(f"{name} factors of ranks {form.ranks} would save {share:.1%}")
    if not forms:
        return reasons[0]
    return min(forms, key=lambda form: form.macs) if isinstance(module, nn.Conv2d) else forms[0]


def _candidates(module: Weighted, name: str) -> tuple[str, ...]:
    """Formats to try, the preferred first."""
    if name != AUTO:
        return (name,)
    wanted = ("tucker", "tt") if isinstance(module, nn.Conv2d) else ("ttm", "tt")
    return tuple(option for option in wanted if option in format_names())


def _form(kind: type[Factorization], module: Weighted, wish: _Wish, limit: int) -> _Form:
    """Modes and ranks; ranks that nobody named are lowered until the factors save enough."""
    shape = tuple(module.weight.shape)
    shapes = [shape]
    if isinstance(module, nn.Embedding):
        padded = {pad_size(shape[0], parts) for parts in range(2, 6)} - {shape[0]}
        shapes += [(rows, shape[1]) for rows in sorted(padded)]
    forms = []
    for option in shapes:
        folding = kind.fold(option, wish.cores)
        ranks = start_ranks(kind, folding, wish.ranks, wish.common)
        if wish.ranks is None and core_count(kind, folding, ranks) > limit:
            ranks = start_ranks(kind, folding, ParameterRatio(limit / folding.entries))
        forms.append(_Form(kind, folding, ranks))
    return min(forms, key=lambda form: form.count)


def _filled(
    form: _Form, module: Weighted, generator: torch.Generator | None, pretrained: bool
) -> Factorization:
    weight = module.weight.detach()
    if pretrained:
        spare = form.folding.shape[0] - weight.shape[0]
        if spare:
            weight = torch.cat([weight, weight.new_zeros(spare, *weight.shape[1:])])
        return form.kind.from_dense(weight, form.folding, form.ranks)
    device = None if weight.is_meta else weight.device
    made = form.kind(form.folding, form.ranks, dtype=weight.dtype, device=device)
    draw = made.reset_table if isinstance(module, nn.Embedding) else made.reset
    draw(_spread(module), generator)
    return made


def _spread(module: Weighted) -> float:
    """Standard deviation of the weight; where it says nothing, of torch's own initialisation.

    Source: torch.nn.Linear and Conv2d draw uniformly within 1/sqrt(fan in), Embedding normally.
    """
    weight = module.weight.detach()
    if not weight.is_meta and weight.numel() > 1 and float(weight.std()) > 0:
        return float(weight.float().std())
    if isinstance(module, nn.Embedding):
        return 1.0
    return 1 / sqrt(3 * prod(weight.shape[1:]))


def _layer(made: Factorization, module: Weighted) -> TensorizedLayer:
    match module:
        case nn.Linear():
            layer: TensorizedLayer = TensorizedLinear(made, module.bias)
        case nn.Conv2d():
            layer = TensorizedConv2d.around(module, made)
        case nn.Embedding():
            layer = TensorizedEmbedding(made, module.num_embeddings, module.padding_idx)
        case _:
            assert_never(module)
    return layer.train(module.training)
