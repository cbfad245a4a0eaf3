"""Chains of factors: what stays on chip, and the dense layer that they stand for."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.work import (
    ConvWork,
    ElementWork,
    MatMulWork,
    OperatorWork,
    TensorUse,
    WeightStatistics,
    Work,
)
from edgecompress.hardware import chains
from edgecompress.hardware.chains import dense_work, fuse_chains
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import load_target

WS = load_target("systolic-ws-32")


def conv(
    inputs: int,
    outputs: int,
    size: int,
    kernel: tuple[int, int] = (1, 1),
    *,
    stride: int = 1,
    pad: tuple[int, int] = (0, 0),
    group: int = 1,
    dilation: int = 1,
) -> ConvWork:
    leaving = [
        (size + 2 * pad[axis] - (kernel[axis] - 1) * dilation - 1) // stride + 1 for axis in (0, 1)
    ]
    return ConvWork(
        batch=1,
        in_channels=inputs,
        out_channels=outputs,
        in_height=size,
        in_width=size,
        out_height=leaving[0],
        out_width=leaving[1],
        kernel=kernel,
        stride=(stride, stride),
        dilation=(dilation, dilation),
        pads=(*pad, *pad),
        group=group,
        weight_bits=8,
        activation_bits=8,
    )


def product(rows: int, inner: int, columns: int) -> MatMulWork:
    return MatMulWork(
        count=1,
        rows=rows,
        inner=inner,
        columns=columns,
        constant=True,
        weight_bits=8,
        activation_bits=8,
    )


def chain(*operators: OperatorWork, layer: str = "layer") -> tuple[Work, ...]:
    return tuple(
        Work(
            name=f"{layer}/{place}",
            op_type="X",
            operator=operator,
            input_bits=0,
            output_bits=0,
            source_layer=layer,
            reads=(TensorUse(name=f"{layer}{place}", bits=8),),
            writes=(TensorUse(name=f"{layer}{place + 1}", bits=8),),
        )
        for place, operator in enumerate(operators)
    )


def kept(works: tuple[Work, ...], limit: int, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(chains, "chain_bytes", lambda target: limit)
    (found,) = fuse_chains(works, WS)[1]
    assert (found.fused_s is None) == (found.kept_bytes == 0)
    return found.kept_bytes


FIRST, SECOND = conv(64, 16, 10), conv(16, 64, 10, (3, 3), pad=(1, 1))
# Between them 16 x 10 x 10 bytes; rows: 3 of the window and 1 that is being made, and the weights.
WHOLE, ROWS = 1600, 4 * 160 + 64 * 16 + 16 * 64 * 9


@pytest.mark.parametrize(
    ("limit", "expected"), [(WHOLE, WHOLE), (WHOLE - 1, 0), (ROWS, WHOLE), (0, 0)]
)
def test_what_fits_is_kept(limit: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept(chain(FIRST, SECOND), limit, monkeypatch) == expected


def test_a_large_map_is_kept_row_by_row_with_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    works = chain(conv(64, 16, 200), conv(16, 64, 200, (3, 3), pad=(1, 1)))
    rows = 4 * 200 * 16 + 64 * 16 + 16 * 64 * 9
    assert kept(works, rows, monkeypatch) == rows
    assert kept(works, rows - 1, monkeypatch) == 0


def test_both_intermediates_of_three_factors_have_to_fit_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows do not help here: the weights take more than the maps."""
    works = chain(conv(64, 16, 10), conv(16, 24, 10, (3, 3), pad=(1, 1)), conv(24, 64, 10))
    assert kept(works, 1600 + 2400, monkeypatch) == 4000
    assert kept(works, 1600 + 2399, monkeypatch) == 1600


def test_products_keep_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    works = chain(product(50, 256, 16), product(50, 16, 256))
    assert kept(works, 800, monkeypatch) == 800
    assert kept(works, 799, monkeypatch) == 0


def test_traffic_of_what_is_on_chip_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "chain_bytes", lambda target: WHOLE)
    works = chain(FIRST, conv(16, 64, 10))  # no rows are read twice
    fused, (found,) = fuse_chains(works, WS)
    assert found.is_fused
    before = [cost(work, WS).activation_bytes for work in works]
    after = [cost(work, WS).activation_bytes for work in fused]
    assert before == [64 * 100 + WHOLE, WHOLE + 64 * 100]
    assert after == [64 * 100, 64 * 100]
    assert found.fused_s == pytest.approx(sum(cost(work, WS).latency_s for work in fused))
    assert found.memory_s == pytest.approx(sum(cost(work, WS).latency_s for work in works))


def test_what_others_read_goes_through_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = chain(FIRST, SECOND)
    other = Work(
        name="other",
        op_type="Add",
        operator=ElementWork(operations=1, read_bits=8, written_bits=8),
        input_bits=8,
        output_bits=8,
        reads=first.writes,
    )
    assert kept((first, second, other), 1 << 30, monkeypatch) == 0


@pytest.mark.parametrize(("fused", "expected"), [(True, WHOLE), (False, 0)])
def test_only_what_is_fused_may_stand_between(
    fused: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = chain(FIRST, SECOND)
    relu = Work(
        name="relu",
        op_type="Relu",
        operator=ElementWork(operations=1600, read_bits=8, written_bits=8, fused=fused),
        input_bits=8,
        output_bits=8,
        source_layer="layer",
        reads=first.writes,
        writes=(TensorUse(name="r", bits=8),),
    )
    second = dataclasses.replace(second, reads=relu.writes)
    assert kept((first, relu, second), 1 << 30, monkeypatch) == expected


def test_operators_of_no_or_another_layer_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "chain_bytes", lambda target: 1 << 30)
    plain = tuple(dataclasses.replace(work, source_layer="") for work in chain(FIRST, SECOND))
    assert fuse_chains(plain, WS) == (plain, ())
    single = chain(FIRST)
    assert fuse_chains(single, WS) == (single, ())


def geometry(work: Work | None) -> tuple[object, ...]:
    assert work is not None
    found = work.operator
    assert isinstance(found, ConvWork)
    return (found.in_channels, found.out_channels, found.kernel, found.stride, found.dilation)


def test_dense_layer_of_tucker_and_of_a_spatial_pair() -> None:
    tucker = [
        conv(64, 8, 20),
        conv(8, 12, 20, (3, 3), stride=2, pad=(1, 1)),
        conv(12, 48, 10),
    ]
    assert geometry(dense_work(chain(*tucker), "l")) == (64, 48, (3, 3), (2, 2), (1, 1))
    pair = [conv(16, 8, 20, (5, 1), pad=(2, 0)), conv(8, 32, 20, (1, 5), pad=(0, 2))]
    dense = dense_work(chain(*pair), "l")
    assert geometry(dense) == (16, 32, (5, 5), (1, 1), (1, 1))
    assert dense is not None
    assert dense.operator.weight_storage_bits == 16 * 32 * 25 * 8  # type: ignore[union-attr]


def test_dense_layer_of_cp_has_no_groups() -> None:
    cp = [
        conv(16, 6, 9),
        conv(6, 6, 9, (3, 1), pad=(1, 0), group=6),
        conv(6, 6, 9, (1, 3), pad=(0, 1), group=6),
        conv(6, 32, 9),
    ]
    dense = dense_work(chain(*cp), "l")
    assert geometry(dense) == (16, 32, (3, 3), (1, 1), (1, 1))
    assert dense is not None
    assert dense.operator.macs == 81 * 9 * 16 * 32  # type: ignore[union-attr]


def test_dense_layer_keeps_a_dilation_and_joins_two_kernels() -> None:
    dilated = [conv(4, 2, 30), conv(2, 4, 30, (3, 3), dilation=3)]
    assert geometry(dense_work(chain(*dilated), "l"))[2:] == ((3, 3), (1, 1), (3, 3))
    two = [conv(4, 2, 30, (3, 3)), conv(2, 4, 28, (3, 3))]
    assert geometry(dense_work(chain(*two), "l"))[2:] == ((5, 5), (1, 1), (1, 1))


def test_dense_product_and_what_has_none() -> None:
    dense = dense_work(chain(product(50, 256, 16), product(50, 16, 100)), "l")
    assert dense is not None
    assert dense.operator.macs == 50 * 256 * 100  # type: ignore[union-attr]
    assert dense_work(chain(product(50, 256, 16), product(800, 1, 100)), "l") is None
    assert dense_work(chain(FIRST, product(10, 10, 10)), "l") is None


def test_dense_weights_have_the_widest_bits_and_the_statistics_of_the_largest_factor() -> None:
    first, second = chain(
        dataclasses.replace(FIRST, weight_bits=4), dataclasses.replace(SECOND, weight_bits=2)
    )
    measured = WeightStatistics(
        count=9216,
        levels=3,
        entropy_bits=1.5,
        zero_share=0.5,
        zero_run_bits=3.0,
        winograd_zero_shares=((4, 0.2),),
    )
    second = dataclasses.replace(second, weights=measured)
    dense = dense_work([first, second], "l")
    assert dense is not None
    assert dense.operator.weight_bits == 4  # type: ignore[union-attr]
    assert dense.weights == dataclasses.replace(
        measured, count=64 * 64 * 9, winograd_zero_shares=()
    )


@given(data=st.data())
def test_the_dense_layer_gives_what_the_chain_gives(data: st.DataObject) -> None:
    """Truth: the output size that ONNX defines, for the composed kernel, stride, dilation, pads."""
    size, channels, operators = data.draw(st.integers(40, 90)), 4, []
    height = width = size
    for _ in range(data.draw(st.integers(1, 4))):
        kernel = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
        stride = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)))
        dilation = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)))
        pads = tuple(data.draw(st.integers(0, 2)) for _ in range(4))
        leaving = [
            (extent + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilation[axis] - 1)
            // stride[axis]
            + 1
            for axis, extent in ((0, height), (1, width))
        ]
        if min(leaving) < 1:
            break
        operators.append(
            dataclasses.replace(
                conv(channels, channels + 1, 8),
                in_height=height,
                in_width=width,
                out_height=leaving[0],
                out_width=leaving[1],
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                pads=pads,
            )
        )
        channels += 1
        height, width = leaving
    if not operators:
        return
    dense = dense_work(chain(*operators), "l")
    assert dense is not None
    found = dense.operator
    assert isinstance(found, ConvWork)
    for axis, extent, expected in ((0, size, height), (1, size, width)):
        reach = (found.kernel[axis] - 1) * found.dilation[axis] + 1
        padded = extent + found.pads[axis] + found.pads[axis + 2]
        assert (padded - reach) // found.stride[axis] + 1 == expected
