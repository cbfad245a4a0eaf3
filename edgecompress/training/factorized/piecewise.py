"""A layer piece by piece, in operations that every recorder of graphs knows.

Passes that are recorded (``torch.jit.trace``, ``torch.export``, the ONNX exporters) run this way:
which way costs least depends on the batch, and a recorded graph is for any batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import linear

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.pieces import Lookup, Order, Piece, Product, View


def is_recorded() -> bool:
    """Whether operations are being written down, to be run later on other samples."""
    return torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()


def sizes(tensor: Tensor) -> Shape:
    """Shape in numbers: while ``torch.jit.trace`` runs, a shape is made of tensors, which it would
    record, and which ``*=`` changes wherever they stand already."""
    state = torch._C._get_tracing_state()
    if state is None:
        return tensor.shape
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return tuple(tensor.shape)
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def through_pieces(pieces: tuple[Piece, ...], x: Tensor, bias: Tensor | None) -> Tensor:
    """Run a chain over the last axes: (..., in) -> (..., out).

    Raises:
        ValueError: A piece does not belong into such a chain.
    """
    for piece in pieces:
        match piece:
            case Product(weight=weight):
                x = linear(x, weight)
            case View(shape=shape, taken=taken):
                x = x.reshape(*x.shape[: x.dim() - taken], *shape)
            case Order(axes=axes):
                lead = x.dim() - len(axes)
                x = x.permute(*range(lead), *(lead + axis for axis in axes))
            case _:
                raise ValueError(f"{type(piece).__name__} is no operation on the last axes")
    return x if bias is None else x + bias


def table_rows(lookups: Iterable[Piece]) -> int:
    """Rows that the digits of a table can name, spare ones included."""
    return max(p.stride * sizes(p.slices)[0] for p in lookups if isinstance(p, Lookup))


def digit_of(rows: Tensor, stride: int, count: int, total: int) -> Tensor:
    """A digit of row indices in a table of ``total`` rows; the leading one is out of range where
    there is no such row."""
    digit = rows if stride == 1 else rows // stride
    return digit.remainder(count) if stride * count < total else digit


def past_spare(rows: Tensor, used: int, total: int) -> Tensor:
    """Indices such that ``total`` rows take and refuse them as a table of the first ``used`` would.

    What is outside moves away by the spare rows. Without that, spare rows would answer, and in an
    ONNX graph, where negative indices count from the end, the end would be that of the spare rows.
    """
    spare = total - used
    if not spare:
        return rows
    moved = torch.where(rows >= used, rows + spare, rows)
    return torch.where(rows < 0, rows - spare, moved)


def gather_rows(lookups: tuple[Piece, ...], rows: Tensor) -> Tensor:
    """Run a chain that starts from row indices: (...) -> (..., width).

    Raises:
        ValueError: A piece does not belong into such a chain.
        IndexError: There is no such row.
    """
    flat = rows.reshape(-1)
    total = table_rows(lookups)
    state: Tensor | None = None
    for piece in lookups:
        match piece:
            case Lookup(slices=slices, stride=stride):
                digit = digit_of(flat, stride, sizes(slices)[0], total)
                picked = slices.index_select(0, digit)
                state = picked if state is None else _join(state, picked)
            case View(shape=shape, taken=taken) if state is not None:
                state = state.reshape(*state.shape[: state.dim() - taken], *shape)
            case Product(weight=weight) if state is not None:
                state = linear(state, weight)
            case _:
                raise ValueError(f"{type(piece).__name__} cannot follow a row index")
    if state is None:
        raise ValueError("a chain for a table looks something up")
    return state.reshape(*rows.shape, state.shape[-1])


def _join(state: Tensor, picked: Tensor) -> Tensor:
    return state * picked if picked.dim() == 2 else torch.bmm(state, picked)
