"""Chains of factors: what stays on chip between them, and the dense layer that they stand for.

Two operators of one chain need not pass their intermediate through memory when it fits into what
the device has for it (`Family.chain_bytes`): all of it, if one operator runs after the other; or
the rows that the second one's window covers and the weights of both, if the two take turns row by
row. It is kept there only where that is predicted to be faster.

Source: fused layers, Alwani, Chen, Ferdman and Milder 2016 (MICRO), with one row as the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, WeightStatistics, Work
from edgecompress.hardware.cost import chain_bytes, cost
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import stored_width

ProductWork = ConvWork | MatMulWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The operators that one layer became.

    Attributes:
        layer: The layer.
        operators: Products among them.
        memory_s: Predicted time with every intermediate through memory.
        fused_s: With the intermediates on chip that fit there; None if none fits.
        kept_bytes: On-chip memory that those take at most at once.
        dense: The layer that they stand for, at the width of their weights; None where the chain
            is of another shape than one convolution or product.
    """

    layer: str
    operators: int
    memory_s: float
    fused_s: float | None
    kept_bytes: float
    dense: Work | None

    @property
    def is_fused(self) -> bool:
        """Whether the intermediates are kept on chip."""
        return self.fused_s is not None and self.fused_s < self.memory_s


def fuse_chains(
    works: Sequence[Work], target: Target
) -> tuple[tuple[Work, ...], tuple[Chain, ...]]:
    """The same works with intermediates of chains on chip where that is faster, and the chains.

    Chains are the operators of one `Work.source_layer`; others are not changed.

    Args:
        works: In order.
        target: The device.
    """
    groups: dict[str, list[int]] = {}
    for index, work in enumerate(works):
        if work.source_layer:
            groups.setdefault(work.source_layer, []).append(index)
    result, chains = list(works), []
    readers = _readers(works) if groups else {}
    for layer, members in groups.items():
        products = [i for i in members if not isinstance(works[i].operator, ElementWork)]
        if len(products) < 2:
            continue
        memory_s = _seconds(works, members, target)
        fused = list(works)
        kept = _fuse(fused, products, readers, target)
        fused_s = _seconds(fused, members, target) if kept else None
        chain = Chain(
            layer=layer,
            operators=len(products),
            memory_s=memory_s,
            fused_s=fused_s,
            kept_bytes=kept,
            dense=dense_work([works[i] for i in products], layer),
        )
        if chain.is_fused:
            for index in members:
                result[index] = fused[index]
        chains.append(chain)
    return tuple(result), tuple(chains)


def _seconds(works: Sequence[Work], members: Sequence[int], target: Target) -> float:
    return math.fsum(cost(works[index], target).latency_s for index in members)


def _readers(works: Sequence[Work]) -> dict[str, list[int]]:
    """Who reads a tensor."""
    readers: dict[str, list[int]] = {}
    for index, work in enumerate(works):
        for use in work.reads:
            readers.setdefault(use.name, []).append(index)
    return readers


def _fuse(
    works: list[Work], products: Sequence[int], readers: dict[str, list[int]], target: Target
) -> float:
    """Keep on chip what fits, in place; the most bytes that takes at once, 0 if nothing fits."""
    limit = chain_bytes(target)
    before = most = 0.0
    for first, second in pairwise(products):
        kept = _kept_bytes(works[first], works[second], target, limit - before)
        if kept is None or not _leads_to(works, first, second, readers):
            before = 0.0
            continue
        works[first] = _on_chip(works[first], output=True)
        works[second] = _on_chip(works[second], output=False)
        most = max(most, before + kept)
        before = kept
    return most


def _on_chip(work: Work, *, output: bool) -> Work:
    operator = work.operator
    if isinstance(operator, ElementWork):
        raise TypeError("element-wise work is in no chain")
    if output:
        return replace(work, operator=replace(operator, output_on_chip=True))
    return replace(work, operator=replace(operator, input_on_chip=True))


def _leads_to(
    works: Sequence[Work], first: int, second: int, readers: dict[str, list[int]]
) -> bool:
    """Whether what one product writes is read by the other only, but for what is fused to it."""
    current = first
    for _ in range(second - first):
        written = works[current].writes
        following = readers.get(written[0].name, []) if len(written) == 1 else []
        if len(following) != 1:
            return False
        current = following[0]
        if current == second:
            return True
        operator = works[current].operator
        if not isinstance(operator, ElementWork) or not (operator.fused or operator.free):
            return False
    return False


def _kept_bytes(first: Work, second: Work, target: Target, limit: float) -> float | None:
    """On-chip memory for what passes between two operators; None if it does not fit."""
    match first.operator, second.operator:
        case ConvWork(), ConvWork() as conv:
            width = stored_width(conv.activation_bits, target) / 8
            row = conv.in_width * conv.in_channels * width
            reach = (conv.kernel[0] - 1) * conv.dilation[0] + 1 + conv.stride[0]
            whole, rows = conv.batch * conv.in_height * row, min(conv.in_height, reach) * row
            if conv.transposed:
                rows = whole
        case MatMulWork(), MatMulWork() as product if product.constant:
            row = product.inner * stored_width(product.activation_bits, target) / 8
            whole, rows = product.count * product.rows * row, 2 * row
        case _:
            return None
    if whole <= limit:
        return whole
    rows += _weight_bytes(first, target) + _weight_bytes(second, target)
    return rows if rows <= limit else None


def _weight_bytes(work: Work, target: Target) -> float:
    """All weights of an operator as the array holds them."""
    bits = target.weight_stream.weight_bits
    return _product(work).weight_elements * min(bits, _product(work).weight_bits) / 8


def _product(work: Work) -> ProductWork:
    if isinstance(work.operator, ElementWork):
        raise TypeError("element-wise work has no weights")
    return work.operator


# --- the dense layer -----------------------------------------------------------------------------


def dense_work(factors: Sequence[Work], layer: str) -> Work | None:
    """The layer that a chain of products stands for, at the widest of their weights.

    None where they are of different kinds or shapes, or more than one of them upsamples.

    Args:
        factors: Products in order, at least one.
        layer: Its name.
    """
    convs = [work.operator for work in factors if isinstance(work.operator, ConvWork)]
    products = [work.operator for work in factors if isinstance(work.operator, MatMulWork)]
    dense: ProductWork | None = None
    if len(convs) == len(factors):
        dense = _dense_conv(convs)
    elif len(products) == len(factors):
        dense = _dense_product(products)
    if dense is None:
        return None
    bits = max(_product(work).weight_bits for work in factors)
    first, last = factors[0], factors[-1]
    work = Work(
        name=layer,
        op_type=first.op_type,
        operator=replace(dense, weight_bits=bits),
        input_bits=first.input_bits,
        output_bits=last.output_bits,
    )
    count = _product(work).weight_elements
    return replace(
        work,
        operator=replace(dense, weight_bits=bits, weight_storage_bits=count * bits),
        weights=_dense_statistics(factors, count),
    )


def _dense_statistics(factors: Sequence[Work], count: int) -> WeightStatistics | None:
    """Those of the largest factor; the Winograd domain of another kernel says nothing."""
    found = max(factors, key=lambda work: _product(work).weight_elements).weights
    return None if found is None else replace(found, count=count, winograd_zero_shares=())


def _dense_product(products: Sequence[MatMulWork]) -> MatMulWork | None:
    first, last = products[0], products[-1]
    same = {(p.count, p.rows, p.repeats, p.constant) for p in products}
    if len(same) > 1 or not first.constant:
        return None
    return replace(first, columns=last.columns)


def _dense_conv(convs: Sequence[ConvWork]) -> ConvWork | None:
    """The convolution of all in a row."""
    first, last = convs[0], convs[-1]
    groups = {conv.group for conv in convs}
    if len(groups) > 1 and (first.group, last.group) != (1, 1):
        return None
    if len({conv.batch for conv in convs}) > 1:
        return None
    upsampling = [conv for conv in convs if conv.transposed]
    if upsampling:
        pointwise = all(
            conv.kernel == (1, 1) and conv.stride == (1, 1) and not any(conv.pads)
            for conv in convs
            if not conv.transposed
        )
        if len(upsampling) > 1 or not pointwise:
            return None
        base = upsampling[0]
    else:
        base = _composed(convs)
    return replace(
        base,
        in_channels=first.in_channels,
        in_height=first.in_height,
        in_width=first.in_width,
        out_channels=last.out_channels,
        out_height=last.out_height,
        out_width=last.out_width,
        group=groups.pop() if len(groups) == 1 else 1,
        activation_bits=first.activation_bits,
    )


def _composed(convs: Sequence[ConvWork]) -> ConvWork:
    """Kernel, stride, dilation and pads of convolutions in a row."""
    rows, columns = (_axis(convs, axis) for axis in (0, 1))
    return replace(
        convs[0],
        kernel=(rows.kernel, columns.kernel),
        stride=(rows.stride, columns.stride),
        dilation=(rows.dilation, columns.dilation),
        pads=(rows.begin, columns.begin, rows.end, columns.end),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """A convolution along one axis."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int


def _axis(convs: Sequence[ConvWork], axis: int) -> _Axis:
    """Convolutions in a row along one axis: a step of a later one is a stride of those before."""
    reach, step, begin, end = 1, 1, 0, 0
    wide: list[tuple[int, int]] = []
    for conv in convs:
        kernel, dilation = conv.kernel[axis], conv.dilation[axis] * step
        reach += (kernel - 1) * dilation
        begin += conv.pads[axis] * step
        end += conv.pads[2 + axis] * step
        if kernel > 1:
            wide.append((kernel, dilation))
        step *= conv.stride[axis]
    kernel, dilation = wide[0] if len(wide) == 1 else (reach, 1)
    return _Axis(kernel=kernel, stride=step, dilation=dilation, begin=begin, end=end)
