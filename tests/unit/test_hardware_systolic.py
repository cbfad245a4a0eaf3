"""The systolic arrays against SCALE-Sim and hand calculation."""

from __future__ import annotations

import csv
import dataclasses
import importlib
from pathlib import Path

import pytest

from edgecompress.core.work import ConvWork, MatMulWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import load_target

DATA = Path(__file__).parent / "data"


def scalesim() -> list[dict[str, str]]:
    with (DATA / "scalesim_resnet18.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def product(rows: int, inner: int, columns: int, **more: int) -> Work:
    operator = MatMulWork(
        count=1,
        rows=rows,
        inner=inner,
        columns=columns,
        constant=True,
        weight_bits=8,
        activation_bits=8,
    )
    return Work(
        name="n",
        op_type="MatMul",
        operator=dataclasses.replace(operator, **more),
        input_bits=0,
        output_bits=0,
    )


def test_the_table_has_48_results() -> None:
    assert len(scalesim()) == 48


@pytest.mark.parametrize("row", scalesim(), ids=lambda r: r["dataflow"] + r["array"] + r["layer"])
def test_cycles_are_those_of_scalesim(row: dict[str, str]) -> None:
    """SCALE-Sim v3 counts from cycle 0 to the last, so one less; rows are of its output size."""
    module = importlib.import_module(f"edgecompress.hardware.models.systolic_{row['dataflow']}")
    side = int(row["array"])
    folds, cycles = module.product_cycles(
        int(row["rows"]), int(row["inner"]), int(row["columns"]), side, side
    )
    assert folds * cycles - 1 == int(row["cycles"])


@pytest.mark.parametrize(
    ("name", "folds", "each"),
    [
        ("systolic-ws-32", 2 * 3, 2 * 32 + 32 + 100 - 2),
        ("systolic-os-32", 4 * 3, 32 + 32 + 64 - 2),
        ("systolic-is-32", 2 * 4, 2 * 32 + 32 + 96 - 2),
    ],
)
def test_compute_of_a_product_by_hand(name: str, folds: int, each: int) -> None:
    found = cost(product(100, 64, 96), load_target(name))
    assert found.compute_cycles == folds * each


def test_tiles_and_overlap_by_hand() -> None:
    """100 x 64 inputs, 64 x 96 weights at 4 bits, 100 x 96 outputs; 12.8 GB/s x 0.9 at 500 MHz.

    Everything fits, and is loaded once in each of the ways to cut it. The fastest has three tiles
    of 32 columns (two folds each): the first brings the inputs and its weights, and the others
    their weights, while the tile before is computed.
    """
    work = product(100, 64, 96, weight_bits=4, weight_storage_bits=64 * 96 * 4)
    target = load_target("systolic-ws-32")
    found = cost(work, target)
    per_byte = 500e6 / (12.8e9 * 0.9)
    assert found.weight_bytes == 3072
    assert found.activation_bytes == 16000
    assert found.load_cycles == pytest.approx((6400 + 3072) * per_byte)
    assert found.store_cycles == pytest.approx(9600 * per_byte)
    ends = (6400 + 1024) * per_byte + 3200 * per_byte
    assert found.fill_cycles == pytest.approx(ends)
    assert found.total_cycles == pytest.approx(ends + 6 * 194)
    assert found.bottleneck == "compute"
    # Two sets of: inputs, 64 x 32 weights of 8 bits, 100 x 32 outputs; sums of 100 x 32.
    assert found.on_chip_bytes == 2 * (6400 + 64 * 32 + 3200) + 100 * 32 * 4


def test_a_slow_decoder_is_waited_for() -> None:
    """6144 weights at 2 a cycle, in tiles of a third: the first alone, the last two in its shadow.

    A tile is computed in 2 x 194 cycles, decoded in 1024.
    """
    target = load_target("systolic-ws-32")
    stream = target.weight_stream.model_copy(update={"decoder_weights_per_cycle": 2.0})
    work = product(100, 64, 96, weight_bits=4, weight_storage_bits=64 * 96 * 4)
    found = cost(work, dataclasses.replace(target, weight_stream=stream))
    assert found.decode_cycles == 3072
    last = 2 * 194 + 3200 * 500e6 / (12.8e9 * 0.9)
    assert found.total_cycles == pytest.approx(3 * 1024 + last)
    assert found.bottleneck == "decode"


def test_what_stays_on_chip_is_not_moved() -> None:
    target = load_target("systolic-os-32")
    work = product(100, 64, 96)
    operator = dataclasses.replace(work.operator, input_on_chip=True)  # type: ignore[type-var]
    found = cost(dataclasses.replace(work, operator=operator), target)
    assert found.activation_bytes == 9600
    both = dataclasses.replace(operator, output_on_chip=True)  # type: ignore[type-var]
    found = cost(dataclasses.replace(work, operator=both), target)
    assert found.activation_bytes == 0
    assert found.weight_bytes == 64 * 96


def test_fixed_streams_move_the_width_of_the_array() -> None:
    target = load_target("systolic-ws-32")
    fixed = target.weight_stream.model_copy(update={"encoding": "fixed"})
    work = product(100, 64, 96, weight_bits=2, weight_storage_bits=64 * 96 * 2)
    assert cost(work, dataclasses.replace(target, weight_stream=fixed)).weight_bytes == 64 * 96


def test_two_bit_weights_speed_up_a_layer_bound_by_its_weights() -> None:
    target = load_target("systolic-os-32")
    wide = cost(product(1, 4096, 4096, weight_storage_bits=4096**2 * 8), target)
    narrow = cost(product(1, 4096, 4096, weight_storage_bits=4096**2 * 2), target)
    assert wide.bottleneck == "load"
    assert narrow.bottleneck == "compute"
    assert narrow.latency_s < 0.75 * wide.latency_s


def test_output_size_is_floored_and_depthwise_runs_group_by_group() -> None:
    """ResNet-18's first layer: 112 x 112 outputs (SCALE-Sim takes 113 x 113).

    The accumulators hold 1024 pixels, so that the 12544 of them stream in 13 parts.
    """
    first = ConvWork(
        batch=1,
        in_channels=3,
        out_channels=64,
        in_height=224,
        in_width=224,
        out_height=112,
        out_width=112,
        kernel=(7, 7),
        stride=(2, 2),
        dilation=(1, 1),
        pads=(3, 3, 3, 3),
        group=1,
        weight_bits=8,
        activation_bits=8,
    )
    work = Work(name="n", op_type="Conv", operator=first, input_bits=0, output_bits=0)
    target = load_target("systolic-ws-32")
    assert cost(work, target).compute_cycles == 5 * 2 * (64 + 32 - 2) * 13 + 5 * 2 * 112 * 112
    depthwise = dataclasses.replace(
        first, in_channels=64, group=64, kernel=(3, 3), stride=(1, 1), out_height=224, out_width=224
    )
    found = cost(dataclasses.replace(work, operator=depthwise), target)
    assert found.compute_cycles == 64 * (64 + 32 + 224 * 224 - 2)
    assert "grouped" in found.assumed


def test_product_that_exceeds_both_buffers_reloads_the_cheaper_one() -> None:
    """2 MiB of input, 1 MiB of weights, 2 MiB of output.

    128 columns of weights fit (128 KiB), and 224 rows of input with their outputs in 128 columns
    (224 x 1152 bytes of 256 KiB). Weights again for each of 10 parts of the rows are 10 MiB, inputs
    again for each of 8 parts of the columns 16 MiB.
    """
    found = cost(product(2048, 1024, 1024), load_target("systolic-os-32"))
    assert found.weight_bytes == 10 * 2**20
    assert found.activation_bytes == 2 * 2**20 + 2 * 2**20


def test_recurrent_weights_that_fit_are_loaded_once() -> None:
    target = load_target("systolic-ws-32")
    small = cost(product(1, 256, 256, count=100, repeats=100), target)
    large = cost(product(1, 1024, 1024, count=100, repeats=100), target)
    assert small.weight_bytes == 256 * 256
    assert large.weight_bytes == 100 * 1024 * 1024


@pytest.mark.parametrize(("side", "cycles"), [(32, 2 * 32 + 32 + 1 - 2), (64, 2 * 64 + 64 + 1 - 2)])
def test_idle_rows_and_columns_are_passed_through(side: int, cycles: int) -> None:
    target = load_target("systolic-ws-32")
    size = {"array_rows": side, "array_columns": side}
    other = dataclasses.replace(target, parameters=target.parameters.model_copy(update=size))
    assert cost(product(1, 3, 3), other).compute_cycles == cycles


@pytest.mark.parametrize("name", ["systolic-ws-32", "systolic-os-32", "systolic-is-32"])
def test_tensors_are_not_loaded_again_for_a_few_cycles(name: str) -> None:
    """Everything fits on chip, so that at most a quarter more is moved than each tensor once."""
    found = cost(product(500, 200, 150), load_target(name))
    once = 500 * 200 + 200 * 150 + 500 * 150
    assert once <= found.weight_bytes + found.activation_bytes <= 1.25 * once
