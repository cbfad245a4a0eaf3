"""Which activations are alive at the same time, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from edgecompress.core.work import ElementWork, TensorUse, Work
from edgecompress.hardware.liveness import activation_memory
from edgecompress.hardware.target import load_target

WIDE = dataclasses.replace(load_target("roofline-generic"), activation_bits=None)
NARROW = dataclasses.replace(WIDE, activation_bits=8)


def use(name: str, size: int, width: int = 8) -> TensorUse:
    """A tensor of so many bytes."""
    return TensorUse(name=name, bits=8 * size, width_bits=width)


def work(
    reads: list[TensorUse], writes: list[TensorUse], *, fused: bool = False, free: bool = False
) -> Work:
    operator = ElementWork(operations=1, read_bits=8, written_bits=8, fused=fused, free=free)
    return Work(
        name="n",
        op_type="X",
        operator=operator,
        input_bits=8,
        output_bits=8,
        reads=tuple(reads),
        writes=tuple(writes),
    )


X, A, B, Y = use("x", 100), use("a", 40), use("b", 30), use("y", 10)


def test_a_row_of_operators_has_two_tensors_at_a_time() -> None:
    found = activation_memory([work([X], [A]), work([A], [B]), work([B], [Y])], WIDE)
    assert found.live_bytes == (140, 70, 40)
    assert (found.peak_bytes, found.peak_at) == (140, 0)


def test_a_shortcut_waits() -> None:
    """x is read again at the end."""
    found = activation_memory([work([X], [A]), work([A], [B]), work([B, X], [Y])], WIDE)
    assert found.live_bytes == (140, 170, 140)
    assert found.peak_at == 1


def test_outputs_stay_and_inputs_are_there_from_the_start() -> None:
    z = use("z", 5)
    found = activation_memory([work([X], [A]), work([z], [B])], WIDE)
    assert found.live_bytes == (145, 75)


def test_what_is_fused_writes_over_its_input_unless_that_is_read_again() -> None:
    in_place = activation_memory([work([X], [A]), work([A], [use("r", 40)], fused=True)], WIDE)
    assert in_place.live_bytes == (140, 40)
    kept = activation_memory(
        [work([X], [A]), work([A], [use("r", 40)], fused=True), work([A], [Y])], WIDE
    )
    assert kept.live_bytes == (140, 80, 90)


def test_a_change_of_shape_is_no_tensor_also_when_both_are_read() -> None:
    view = use("v", 40)
    works = [work([X], [A]), work([A], [view], free=True), work([A], [B]), work([view], [Y])]
    assert activation_memory(works, WIDE).live_bytes == (140, 40, 70, 80)


def test_writing_over_a_view_that_others_read_is_not_done() -> None:
    view, result = use("v", 40), use("r", 40)
    works = [
        work([X], [A]),
        work([A], [view], free=True),
        work([view], [result], fused=True),
        work([A], [B]),
    ]
    # r cannot take the place of a, which is read after it.
    assert activation_memory(works, WIDE).live_bytes == (140, 40, 80, 110)


def test_the_target_keeps_tensors_at_its_width() -> None:
    wide = dataclasses.replace(X, width_bits=32)
    assert activation_memory([work([wide], [Y])], WIDE).peak_bytes == 110
    assert activation_memory([work([wide], [Y])], NARROW).peak_bytes == pytest.approx(25 + 10)


def test_nothing_takes_nothing() -> None:
    found = activation_memory([], WIDE)
    assert (found.live_bytes, found.peak_bytes) == ((), 0.0)
