"""Closed forms of the systolic families against arrays and memories that are stepped."""

from __future__ import annotations

import dataclasses
import importlib
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest

from edgecompress.core.work import ConvWork, MatMulWork, Work
from edgecompress.hardware.families import family_named
from edgecompress.hardware.models._systolic import Parameters, Systolic
from edgecompress.hardware.simulator import memory, systolic
from edgecompress.hardware.simulator.layers import (
    IntegerConv,
    IntegerProduct,
    conv_patches,
    exact_outputs,
)
from edgecompress.hardware.target import Target, load_target
from edgecompress.hardware.timeline import Tile, play

HELD: dict[str, Literal["weights", "inputs", "sums"]] = {
    "systolic_ws": "weights",
    "systolic_os": "sums",
    "systolic_is": "inputs",
}
SLICE, FULL = 40, 600


def up(amount: int, unit: int) -> int:
    return -(-amount // unit)


def random_layer(rng: np.random.Generator) -> IntegerConv | IntegerProduct:
    zero = int(rng.integers(-5, 6))
    if rng.random() < 0.4:
        rows, inner, columns = (int(n) for n in rng.integers(1, 30, 3))
        return IntegerProduct(
            inputs=rng.integers(-128, 128, (rows, inner)),
            weights=rng.integers(-8, 8, (inner, columns)),
            zero_point=zero,
        )
    group = int(rng.choice([1, 1, 2, 3]))
    channels, outputs, kh, kw, images = (int(n) for n in rng.integers(1, 4, 5))
    return IntegerConv(
        inputs=rng.integers(-128, 128, (images, group * channels, 7, 6)),
        weights=rng.integers(-8, 8, (group * outputs, channels, kh, kw)),
        zero_point=zero,
        stride=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        dilation=(int(rng.integers(1, 3)), 1),
        pads=tuple(int(n) for n in rng.integers(0, 3, 4)),  # type: ignore[arg-type]
        group=group,
    )


def sizes(layer: IntegerConv | IntegerProduct) -> tuple[int, int, int, int]:
    """Products, rows, inner and columns of each, from the shapes alone."""
    if isinstance(layer, IntegerProduct):
        return 1, *layer.inputs.shape, layer.weights.shape[1]
    outputs, channels, kh, kw = layer.weights.shape
    images, _, height, width = exact_outputs(layer).shape
    return layer.group, images * height * width, channels * kh * kw, outputs // layer.group


def random_array(rng: np.random.Generator, family: str) -> systolic.SystolicArray:
    block = None if family == "systolic_os" or rng.random() < 0.5 else int(rng.integers(1, 20))
    rows, columns = (int(n) for n in rng.integers(1, 10, 2))
    return systolic.SystolicArray(rows=rows, columns=columns, held=HELD[family], block=block)


def closed_form(family: str, array: systolic.SystolicArray, size: tuple[int, ...]) -> int:
    """Folds times cycles of each, over the blocks of what streams."""
    count, rows, inner, columns = size
    cycles = importlib.import_module(f"edgecompress.hardware.models.{family}").product_cycles
    length = columns if family == "systolic_is" else rows
    block = array.block or length
    total = 0
    for start in range(0, length, block):
        part = min(block, length - start)
        parts = (rows, inner, part) if family == "systolic_is" else (part, inner, columns)
        folds, each = cycles(*parts, array.rows, array.columns)
        total += folds * each
    return count * total


@pytest.mark.parametrize("family", HELD)
def test_cycles_and_values_of_random_layers(family: str, full: bool) -> None:
    rng = np.random.default_rng(len(family) + ord(family[-2]))
    for _ in range(FULL if full else SLICE):
        layer, array = random_layer(rng), random_array(rng, family)
        found = systolic.simulate(array, layer)
        np.testing.assert_array_equal(found.outputs, exact_outputs(layer))
        count, rows, inner, columns = sizes(layer)
        assert found.cycles == closed_form(family, array, (count, rows, inner, columns))
        assert found.multiplications == count * rows * inner * columns


@pytest.mark.parametrize(
    ("family", "cycles"),
    [
        # 2 x 5 array, 3 x 4 x 7 product. Held weights: 2 x 2 folds of 2 + (3 + 2 + 5 - 2) cycles.
        ("systolic_ws", 4 * (2 + 8)),
        # Held sums: 2 x 2 folds; the last of 4 taps is at the far corner after 1 + 4 + 4 cycles.
        ("systolic_os", 4 * 9),
        # Held inputs: 2 folds of taps, 1 of rows; 7 outputs stream: 2 + (7 + 2 + 5 - 2) cycles.
        ("systolic_is", 2 * (2 + 12)),
    ],
)
def test_an_array_that_is_not_square_by_hand(family: str, cycles: int) -> None:
    rng = np.random.default_rng(0)
    layer = IntegerProduct(
        inputs=rng.integers(-9, 9, (3, 4)), weights=rng.integers(-9, 9, (4, 7)), zero_point=2
    )
    array = systolic.SystolicArray(rows=2, columns=5, held=HELD[family])
    found = systolic.simulate(array, layer)
    assert found.cycles == cycles
    np.testing.assert_array_equal(found.outputs, (layer.inputs - 2) @ layer.weights)


def test_an_array_without_elements_is_refused() -> None:
    with pytest.raises(ValueError, match="no array: 0 x 4"):
        systolic.SystolicArray(rows=0, columns=4, held="sums")


def test_sums_that_stay_between_parts_by_hand() -> None:
    """Parts of 3 and 4 taps on 2 x 3 elements that hold 2 x 2 sums.

    The first part is in after 3 cycles; the last tap of the second enters in cycle 7 and is at the
    far corner 1 + 2 cycles later. By then all have formed 7 products; after cycle 3 the elements,
    each as late as it is far from the corner, have 3 + 2 + 2 + 1.
    """
    rng = np.random.default_rng(0)
    inputs, weights = rng.integers(-9, 9, (2, 7)), rng.integers(-9, 9, (7, 2))
    array = systolic.SystolicArray(rows=2, columns=3, held="sums")
    running = systolic.SumsInPlace(array)
    first = running.run(inputs[:, :3], weights[:3], last=False)
    assert (first.cycles, first.multiplications) == (3, 3 + 2 + 2 + 1)
    assert not first.outputs.any()
    second = running.run(inputs[:, 3:], weights[3:], last=True)
    assert (second.cycles, second.multiplications) == (4 + 1 + 2, 4 * 7 - 8)
    np.testing.assert_array_equal(second.outputs, inputs @ weights)


def test_more_sums_than_elements_cannot_stay() -> None:
    running = systolic.SumsInPlace(systolic.SystolicArray(rows=2, columns=3, held="sums"))
    with pytest.raises(ValueError, match=r"sums of \(3, 1\) do not stay in 2 x 3 elements"):
        running.run(np.ones((3, 2), np.int64), np.ones((2, 1), np.int64), last=False)


def test_sums_of_no_products_are_refused() -> None:
    running = systolic.SumsInPlace(systolic.SystolicArray(rows=2, columns=3, held="sums"))
    with pytest.raises(ValueError, match="sums of no products"):
        running.run(np.ones((1, 0), np.int64), np.ones((0, 1), np.int64), last=True)


def device(rng: np.random.Generator) -> memory.Device:
    return memory.Device(
        bytes_per_cycle=Fraction(int(rng.integers(1, 60)), int(rng.integers(1, 9))),
        word_bytes=int(rng.choice([1, 4, 16])),
        shared_port=bool(rng.integers(2)),
        decoder_weights_per_cycle=Fraction(int(rng.integers(1, 9)), 3),
    )


def test_words_take_what_the_closed_form_says(full: bool) -> None:
    rng = np.random.default_rng(7)
    for _ in range(FULL if full else 3 * SLICE):
        machine = device(rng)
        tiles = [
            memory.MemoryTile(
                load_bytes=Fraction(int(rng.integers(0, 99))),
                decoded_weights=Fraction(int(rng.integers(0, 30))),
                compute_cycles=int(rng.integers(0, 30)),
                store_bytes=Fraction(int(rng.integers(0, 60))),
            )
            for _ in range(int(rng.integers(0, 9)))
        ]
        found = memory.run_tiles(tiles, machine)
        rate = machine.decoder_weights_per_cycle or Fraction(1)
        runs = [
            (
                1,
                Tile(
                    load=float(tile.load_bytes / machine.bytes_per_cycle),
                    compute=tile.compute_cycles,
                    store=float(tile.store_bytes / machine.bytes_per_cycle),
                    decode=float(tile.decoded_weights / rate),
                ),
            )
            for tile in tiles
        ]
        total = play(runs, shared_port=machine.shared_port).total
        assert float(found.cycles) == pytest.approx(total, rel=1e-12)
        assert found.read_words == sum(up(int(t.load_bytes), machine.word_bytes) for t in tiles)
        assert found.array_cycles == sum(tile.compute_cycles for tile in tiles)
        assert found.swaps == (len(tiles) + 2 if tiles else 0)


def test_a_tile_that_overflows_its_buffer_is_refused() -> None:
    machine = memory.Device(bytes_per_cycle=Fraction(1), buffer_bytes=Fraction(9))
    tile = memory.MemoryTile(
        load_bytes=Fraction(10),
        decoded_weights=Fraction(0),
        compute_cycles=1,
        store_bytes=Fraction(0),
    )
    with pytest.raises(ValueError, match="10 bytes into a buffer of 9"):
        memory.run_tiles([tile], machine)


def small_target(rng: np.random.Generator, family: str) -> Target:
    """A device of random size, so small that products have to be cut."""
    target = load_target(f"systolic-{family[-2:]}-32")
    rows, columns = (int(n) for n in rng.integers(1, 6, 2))
    least = rows * columns + 3 * max(rows, columns)
    parameters = Parameters(
        array_rows=rows,
        array_columns=columns,
        activation_buffer_bytes=int(rng.integers(least, 400)),
        weight_buffer_bytes=int(rng.integers(rows * columns, 300)),
        accumulator_words=int(rng.integers(1, 20)),
    )
    stream = target.weight_stream.model_copy(
        update={"decoder_weights_per_cycle": float(rng.integers(1, 20))}
    )
    return dataclasses.replace(
        target,
        parameters=parameters,
        weight_stream=stream,
        dram_efficiency_share=1.0,
        dram_bytes_per_s=target.clock_hz * float(rng.integers(1, 40)) / 4,
    )


@pytest.mark.parametrize("family", HELD)
def test_whole_products_with_memory(family: str, full: bool) -> None:
    """Values, cycles and traffic of products through array and memory."""
    rng = np.random.default_rng(3)
    split = kept = 0
    for _ in range(FULL // 4 if full else 16):
        target = small_target(rng, family)
        repeats, own = int(rng.choice([1, 1, 8])), int(rng.integers(1, 3))
        rows, inner, columns = (int(n) for n in rng.integers(1, 20, 3))
        operator = MatMulWork(
            count=repeats * own,
            rows=rows,
            inner=inner,
            columns=columns,
            constant=True,
            repeats=repeats,
            weight_bits=4,
            activation_bits=8,
            weight_storage_bits=own * inner * columns * 4,
        )
        work = Work(name="", op_type="", operator=operator, input_bits=0, output_bits=0)
        model = family_named(family)
        assert isinstance(model, Systolic)
        mapped = model.mapped(work, target)
        chosen = mapped.mapping
        weights = [rng.integers(-8, 8, (inner, columns)) for _ in range(own)]
        products = [
            IntegerProduct(inputs=rng.integers(0, 99, (rows, inner)), weights=w, zero_point=3)
            for w in weights
            for _ in range(repeats)
        ]
        parameters = target.parameters
        assert isinstance(parameters, Parameters)
        array = systolic.SystolicArray(
            rows=parameters.array_rows,
            columns=parameters.array_columns,
            held=HELD[family],
            block=chosen.block or None,
        )
        nest = memory.Nest(
            rows=chosen.rows,
            columns=chosen.columns,
            inner=chosen.inner,
            rows_outer=chosen.rows_outer,
            input_bytes=Fraction(1),
            weight_bytes=Fraction(1, 2),
            output_bytes=Fraction(1),
        )
        rate = target.weight_stream.decoder_weights_per_cycle
        machine = memory.Device(
            bytes_per_cycle=Fraction(target.dram_bytes_per_cycle),
            decoder_weights_per_cycle=Fraction(rate or 1),
        )
        sums, moved = memory.run_layer(products, array, nest, machine)
        for one, layer in zip(sums, products, strict=True):
            np.testing.assert_array_equal(one, exact_outputs(layer))
        assert float(moved.cycles) == pytest.approx(mapped.total, rel=1e-9)
        assert moved.array_cycles == mapped.compute
        assert mapped.load == pytest.approx(_loaded(mapped.runs))
        split += chosen.inner < inner
        kept += repeats > 1 and mapped.weight_bytes < own * repeats * inner * columns / 2
    assert split
    assert kept


def _loaded(runs: object) -> float:
    total = 0.0
    for count, what in runs:  # type: ignore[attr-defined]
        total += count * (what.load if isinstance(what, Tile) else _loaded(what))
    return total


def products_of(layer: IntegerConv) -> list[IntegerProduct]:
    """The windows of each group times its kernels."""
    patches = conv_patches(layer)
    images, groups, taps, height, width = patches.shape
    rows = patches.transpose(1, 0, 3, 4, 2).reshape(groups, images * height * width, taps)
    kernels = layer.weights.reshape(groups, -1, taps)
    return [
        IntegerProduct(inputs=x, weights=w.T.copy(), zero_point=layer.zero_point)
        for x, w in zip(rows, kernels, strict=True)
    ]


@pytest.mark.parametrize("family", HELD)
def test_whole_convolutions_with_memory(family: str, full: bool) -> None:
    """The array with the block that the cost model chose, then its tiles through memory.

    An input code is loaded once in a pass; where a part has less than a line of pixels, all lines
    under the kernel are loaded for every line of pixels.
    """
    rng = np.random.default_rng(11)
    model = family_named(family)
    assert isinstance(model, Systolic)
    short = 0
    for _ in range(FULL // 4 if full else 16):
        layer = random_layer(rng)
        if isinstance(layer, IntegerProduct):
            continue
        target = small_target(rng, family)
        truth = exact_outputs(layer)
        outputs, _, kh, kw = layer.weights.shape
        operator = ConvWork(
            batch=truth.shape[0],
            in_channels=layer.inputs.shape[1],
            out_channels=outputs,
            in_height=7,
            in_width=6,
            out_height=truth.shape[2],
            out_width=truth.shape[3],
            kernel=(kh, kw),
            stride=layer.stride,
            dilation=layer.dilation,
            pads=layer.pads,
            group=layer.group,
            weight_bits=8,
            activation_bits=8,
        )
        work = Work(name="", op_type="", operator=operator, input_bits=0, output_bits=0)
        mapped = model.mapped(work, target)
        chosen, p = mapped.mapping, target.parameters
        assert isinstance(p, Parameters)
        array = systolic.SystolicArray(
            rows=p.array_rows,
            columns=p.array_columns,
            held=HELD[family],
            block=chosen.block or None,
        )
        assert systolic.simulate(array, layer).cycles == mapped.compute
        passes = Fraction(1)
        if chosen.rows < truth.shape[3]:
            lines = min(7, (kh - 1) * layer.dilation[0] + 1)
            passes = max(passes, Fraction(truth.shape[2] * lines, 7))
            short += 1
        products = products_of(layer)
        windows = sum(one.inputs.size for one in products)
        nest = memory.Nest(
            rows=chosen.rows,
            columns=chosen.columns,
            inner=chosen.inner,
            rows_outer=chosen.rows_outer,
            input_bytes=passes * layer.inputs.size / windows,
            weight_bytes=Fraction(1),
            output_bytes=Fraction(1),
        )
        rate = target.weight_stream.decoder_weights_per_cycle
        machine = memory.Device(
            bytes_per_cycle=Fraction(target.dram_bytes_per_cycle),
            decoder_weights_per_cycle=Fraction(rate or 1),
        )
        sums, moved = memory.run_layer(products, array, nest, machine)
        stacked = np.concatenate(sums, axis=1)
        flat = truth.transpose(0, 2, 3, 1).reshape(-1, outputs)
        np.testing.assert_array_equal(stacked, flat)
        assert float(moved.cycles) == pytest.approx(mapped.total, rel=1e-9)
    assert short or family == "systolic_ws"  # whose parts of rows are as long as they can be
