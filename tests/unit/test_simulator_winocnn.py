"""The WinoCNN simulator: values of a plain convolution, cycles of the cost model's closed form."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgecompress.core.errors import Unsupported, VerificationFailed
from edgecompress.core.work import MatMulWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.simulator import winocnn
from edgecompress.hardware.simulator._wino_call import between
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerProduct, exact_outputs
from edgecompress.hardware.simulator.winocnn import WinoArray, simulate
from edgecompress.hardware.target import load_target

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"
SLICE, ALL = 24, 500


@pytest.fixture(scope="module")
def agreement() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    import winocnn_agreement

    yield winocnn_agreement
    sys.path.remove(str(FOLDER))
    sys.modules.pop("winocnn_agreement")


def test_cycles_and_values_of_random_layers(agreement: ModuleType, full: bool) -> None:
    """Truth: `exact_outputs` for values; for cycles, two independent counts of one machine."""
    found = [agreement.compare(seed) for seed in range(ALL if full else SLICE)]
    assert [row for row in found if not row["agreed"]] == []
    assert sum(not row["refused"] for row in found) > 0.9 * len(found)


def test_committed_run_is_of_500_layers_that_agree() -> None:
    found = json.loads((FOLDER / "results" / "winocnn_agreement.json").read_text())
    assert found["command"] == "python benchmarks/latency/winocnn_agreement.py"
    assert found["same_cycles"] == found["same_values"] == found["layers"] >= ALL
    assert found["refused_by_one"] == 0
    assert min(found["by_omega"].values()) > 50
    assert sorted(found["by_kernel_height"]) == [str(side) for side in range(1, 8)]


SMALL = WinoArray(
    omega=4,
    kernels=(1, 3),
    rows=2,
    columns=1,
    channels=2,
    images=1,
    bank_words=256,
    bank_columns=8,
    weight_words=32,
    output_words=64,
    weight_ports=1,
    input_ports=1,
    output_ports=1,
    fill=10,
)


def small_layer(**changes: object) -> IntegerConv:
    rng = np.random.default_rng(0)
    layer = IntegerConv(
        inputs=rng.integers(-128, 128, (1, 8, 4, 4)),
        weights=rng.integers(-63, 64, (8, 8, 3, 3)),
        pads=(1, 1, 1, 1),
    )
    return dataclasses.replace(layer, **changes)  # type: ignore[arg-type]


def test_cycles_of_one_layer_by_hand() -> None:
    """Truth: by hand.

    4x4 map of 8 channels to 8 outputs, 3x3, tiles of 2x2: two columns of tiles, 4 input and 4
    output passes, all 16 in one weight load (32 / 2 words). The host asks for ceil(5 x 2 x 2 / 8) =
    3 rows of tiles, more than there are, so that one step does all 4 rows: 8 channels fit in line
    rows (8 words a set of rows, four sets). Loads, in rounds of two rows: 2 x 2
    rows x (8 channels x 8 columns x 8 bits / 128) = 4 x 4 words = 16 cycles. Weights: 2 array
    rows on one port, a word for 2 channels, 16 passes: 32 cycles. Sweep: 4 input passes x 2 rows
    x 2 columns x 4 output passes = 64, and 10 to fill. Results: 4 rows x 4 words = 16.
    """
    layer = small_layer()
    found = simulate(dataclasses.replace(SMALL, kernels=(3,)), layer)
    assert found.cycles == 16 + 32 + (64 + 10) + 16
    np.testing.assert_array_equal(found.outputs, exact_outputs(layer))
    assert found.multiplications == 16 * 4 * 64


def test_slow_ports_take_longer() -> None:
    """Truth: by hand: two words in three cycles, 16 words in 24, 32 in 48; three words in seven
    cycles, 37 1/3 and 74 2/3: rounded up at the end."""
    array = dataclasses.replace(SMALL, kernels=(3,), words_per_cycles=(2, 3))
    assert simulate(array, small_layer()).cycles == 24 + 48 + (64 + 10) + 24
    array = dataclasses.replace(SMALL, kernels=(3,), words_per_cycles=(3, 7))
    assert simulate(array, small_layer()).cycles == 37 + 74 + (64 + 10) + 37 + 2


@pytest.mark.parametrize(
    ("bursts", "needed", "end"),
    [
        ([], 5, 5),
        ([], 0, 0),
        ([(0, 4)], 3, 7),
        ([(2, 4)], 2, 2),
        ([(2, 4)], 3, 5),
        ([(0, 4), (6, 8), (8, 9)], 3, 10),
        ([(0, 4)], 0, 0),
    ],
)
def test_weights_go_first_on_a_port(bursts: list[tuple[int, int]], needed: int, end: int) -> None:
    as_fractions = [(Fraction(first), Fraction(last)) for first, last in bursts]
    assert between(as_fractions, Fraction(needed)) == end


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_of_all_widths_are_exact(bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    rng = np.random.default_rng(bits)
    layer = small_layer(weights=rng.integers(-top, top + 1, (8, 8, 3, 3)), zero_point=-128)
    for omega, kernels in ((4, (3,)), (6, (3,)), (8, (3,))):
        array = dataclasses.replace(SMALL, omega=omega, kernels=kernels)
        np.testing.assert_array_equal(simulate(array, layer).outputs, exact_outputs(layer))


def test_five_by_five_kernels_in_their_own_mode() -> None:
    rng = np.random.default_rng(2)
    layer = small_layer(
        inputs=rng.integers(-128, 128, (1, 8, 12, 12)),
        weights=rng.integers(-63, 64, (8, 8, 5, 5)),
        pads=(2, 2, 2, 2),
    )
    array = dataclasses.replace(SMALL, omega=6, output_words=1024)
    merged = simulate(array, layer)
    native = simulate(dataclasses.replace(array, kernels=(1, 3, 5)), layer)
    assert native.cycles < merged.cycles
    for found in (merged, native):
        np.testing.assert_array_equal(found.outputs, exact_outputs(layer))


def test_layer_that_no_cut_brings_into_the_buffers() -> None:
    layer = small_layer(inputs=np.ones((1, 8, 40, 4), dtype=np.int64))
    with pytest.raises(Unsupported, match="do not hold a row of tiles"):
        simulate(dataclasses.replace(SMALL, bank_words=8), layer)


def test_row_that_has_been_overwritten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control that promises more rows than the banks hold must not go unnoticed."""
    honest = winocnn.schedule

    def greedy(*args: object) -> object:
        found = honest(*args)  # type: ignore[arg-type]
        return dataclasses.replace(found, line_rows=found.row_step + 2)

    monkeypatch.setattr(winocnn, "schedule", greedy)
    layer = small_layer(inputs=np.ones((1, 8, 40, 4), dtype=np.int64))
    with pytest.raises(VerificationFailed, match="no longer in the line buffer"):
        simulate(dataclasses.replace(SMALL, kernels=(3,)), layer)


def test_output_buffer_that_overflows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = winocnn.schedule

    def greedy(*args: object) -> object:
        found = honest(*args)  # type: ignore[arg-type]
        return dataclasses.replace(found, row_step=100 * found.row_step)

    monkeypatch.setattr(winocnn, "schedule", greedy)
    with pytest.raises(VerificationFailed, match="output buffer does not hold"):
        simulate(SMALL, small_layer())


@pytest.mark.parametrize("seed", range(12))
def test_products_are_convolutions_of_one_pixel(agreement: ModuleType, seed: int) -> None:
    rng = np.random.default_rng((7, seed))
    target, array = agreement.random_target(rng)
    rows, inner, columns = (int(side) for side in rng.integers(1, 70, 3))
    layer = IntegerProduct(
        inputs=rng.integers(0, 256, (rows, inner)),
        weights=rng.integers(-63, 64, (inner, columns)),
        zero_point=3,
        input_signed=False,
    )
    operator = MatMulWork(
        count=1, rows=rows, inner=inner, columns=columns, constant=True, weight_bits=7
    )
    work = Work(name="p", op_type="MatMul", operator=operator, input_bits=0, output_bits=0)
    found = simulate(array, layer)
    np.testing.assert_array_equal(found.outputs, exact_outputs(layer))
    assert found.cycles == ceil(round(cost(work, target).total_cycles, 6))


def test_shipped_array_on_a_layer_of_resnet(agreement: ModuleType) -> None:
    """The published array with its own buffers, in the schedule that keeps to them."""
    base = load_target("winocnn-zcu102-w6")
    strict = base.parameters.model_copy(update={"bound_rows_by_output": True})
    target = dataclasses.replace(base, parameters=strict)
    rng = np.random.default_rng(7)
    layer = IntegerConv(
        inputs=rng.integers(0, 256, (2, 32, 28, 28)),
        weights=rng.integers(-63, 64, (32, 32, 3, 3)),
        pads=(1, 1, 1, 1),
        input_signed=False,
    )
    truth = exact_outputs(layer)
    found = simulate(agreement.as_array(target, (4, 5)), layer)
    np.testing.assert_array_equal(found.outputs, truth)
    priced = cost(agreement.as_work(layer, truth), target).total_cycles
    assert found.cycles == ceil(round(priced, 6))
