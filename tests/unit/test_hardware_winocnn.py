"""The WinoCNN cycle model against the published design's own layer descriptors and throughput."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgecompress.core.winograd import transformed_kernels
from edgecompress.core.work import ConvWork, MatMulWork, WeightStatistics, Work
from edgecompress.hardware.cost import bound_cycles, cost
from edgecompress.hardware.models._winograd import (
    FIXED,
    Parameters,
    Shape,
    describe,
    output_row_words,
    row_capacity,
)
from edgecompress.hardware.models._winograd_machine import call_cycles
from edgecompress.hardware.models._winograd_resources import declared_bram18
from edgecompress.hardware.models.winocnn import FAMILY, transformed_weight_bits
from edgecompress.hardware.parts import load_part
from edgecompress.hardware.resources import bram18_blocks
from edgecompress.hardware.target import Target, WeightStream, load_target

DATA = Path(__file__).parent / "data"
SHAPE_FIELDS = (
    "height_in",
    "width_in",
    "channels_in",
    "height_out",
    "width_out",
    "channels_out",
    "kernel_height",
    "kernel_width",
    "stride",
    "stride",
)
DESCRIPTOR_FIELDS = (
    "tile_columns",
    "tile_rows",
    "row_step",
    "fi",
    "fo",
    "li",
    "lo",
    "port_burst_words",
    "weight_loads",
    "pe_cycles",
    "weight_feed_cycles",
    "input_feed_cycles",
    "input_row_words",
)


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def winograd(target: Target) -> Parameters:
    assert isinstance(target.parameters, Parameters)
    return target.parameters


def vgg_layer(row: dict[str, str], batch: int = 2) -> ConvWork:
    size = int(row["size"])
    return ConvWork(
        batch=batch,
        in_channels=int(row["in_channels"]),
        out_channels=int(row["out_channels"]),
        in_height=size,
        in_width=size,
        out_height=size,
        out_width=size,
        kernel=(3, 3),
        stride=(1, 1),
        dilation=(1, 1),
        pads=(1, 1, 1, 1),
        group=1,
        weight_bits=8,
        activation_bits=8,
    )


def conv_work(operator: ConvWork | MatMulWork) -> Work:
    return Work(name="n", op_type="Conv", operator=operator, input_bits=0, output_bits=0)


def vgg_operations_per_s(name: str, target: Target) -> float:
    """Operations (2 per MAC) a second of VGG-16's convolutions, two images at a time."""
    macs, seconds = 0, 0.0
    for row in rows("winocnn_vgg16.csv"):
        if row["target"] == name:
            work = vgg_layer(row)
            macs += work.macs * int(row["repeat"])
            seconds += cost(conv_work(work), target).latency_s * int(row["repeat"])
    return 2 * macs / seconds


def test_descriptor_fields_of_all_layers() -> None:
    p = winograd(load_target("winocnn-zcu102-w6"))
    layers = rows("winocnn_descriptors.csv")
    assert len(layers) == 250
    for row in layers:
        shape = Shape(*(int(row[name]) for name in SHAPE_FIELDS))
        found = describe(shape, int(row["mode_rows"]), p)
        assert {name: getattr(found, name) for name in DESCRIPTOR_FIELDS} == {
            name: int(row[name]) for name in DESCRIPTOR_FIELDS
        }, row


@pytest.mark.parametrize("row", rows("winocnn_vgg16.csv"), ids=lambda r: r["target"] + r["layer"])
def test_cycles_of_vgg16(row: dict[str, str]) -> None:
    work = vgg_layer(row)
    size = int(row["size"])
    shape = Shape(size, size, work.in_channels, size, size, work.out_channels, 3, 3, 1, 1)
    cycles = call_cycles(shape, 3, winograd(load_target(row["target"])), 0.8, FIXED)
    assert cycles.total == pytest.approx(int(row["cycles_of_two_images"]), abs=1)


@pytest.mark.parametrize("row", rows("winocnn_vgg16.csv"), ids=lambda r: r["target"] + r["layer"])
def test_loop_bounds_of_vgg16(row: dict[str, str]) -> None:
    """Truth: an independent script on the published loop bounds, for tiles of 6 and of 4."""
    p = winograd(load_target(row["target"]))
    work, size = vgg_layer(row), int(row["size"])
    shape = Shape(size, size, work.in_channels, size, size, work.out_channels, 3, 3, 1, 1)
    found = describe(shape, 3, p)
    names = set(DESCRIPTOR_FIELDS) - {"weight_feed_cycles", "input_feed_cycles"}
    assert {name: getattr(found, name) for name in names} == {
        name: int(row[name]) for name in names
    }
    assert output_row_words(shape, p) == int(row["output_row_words"])


def host_bounds(shape: Shape, p: Parameters) -> tuple[int, int, int, int]:
    """(fi, fo, row step, words per port and load) by trying everything, in 3x3 mode."""
    tile = p.omega_pixels - 2
    inputs = -(-shape.in_channels // 8) * 8 // p.channels_per_element
    outputs = -(-shape.out_channels // 8) * 8 // p.array_rows
    loads = [
        (fi * fo, fo, fi)
        for fo in range(1, outputs + 1)
        for fi in range(1, inputs + 1)
        if outputs % fo == 0 and inputs % fi == 0 and fi * fo <= p.weight_buffer_words // 2
    ]
    _, fo, fi = max(loads)
    columns = -(-shape.out_width * shape.stride_width // (tile * p.array_columns))
    burst = -(-(p.omega_pixels**2) * p.channels_per_element // 16) * (p.array_rows // 4)
    wanted = tile
    while 4 * columns * wanted < 5 * burst * tile:
        wanted += tile
    held = row_capacity(shape.in_width, shape.in_channels, p)
    step = max(rows for rows in range(0, 33, tile) if 2 * rows <= held + 1 - 3)
    step = min(step, p.output_buffer_words // (outputs * columns) * tile)
    if wanted <= step:
        step = wanted
    elif shape.in_height <= held:
        step = -(-shape.out_height * shape.stride_height // p.omega_pixels) * p.omega_pixels
    return fi, fo, step, p.array_rows // 4 * 2 * fi * fo


@pytest.mark.parametrize("seed", range(40))
def test_loop_bounds_of_tiles_of_4(seed: int) -> None:
    """Truth: the rules of the published host, by search, on 8 x 2 x 4 and tiles of 4."""
    rng = np.random.default_rng(seed)
    p = winograd(load_target("winocnn-zcu102-w4"))
    size = int(rng.integers(4, 40))
    stride = int(rng.integers(1, 3))
    channels = [int(rng.integers(1, 200)) for _ in range(2)]
    out = max(1, size // stride)
    shape = Shape(size, size, channels[0], out, out, channels[1], 3, 3, stride, stride)
    found = describe(shape, 3, p)
    fi, fo, step, words = host_bounds(shape, p)
    if step:
        assert (found.fi, found.fo, found.row_step, found.port_burst_words) == (fi, fo, step, words)
        assert found.pe_cycles == (
            found.lo * found.li * fi * (step // 2) * found.tile_columns * max(fo, 4)
        )


def test_throughput_of_vgg16_is_the_published_one() -> None:
    """Truth: 3.1 TOPS and 1.33 GOPS per DSP (abstract of arXiv 2107.04244)."""
    target = load_target("winocnn-zcu102-w6")
    rate = vgg_operations_per_s(target.name, target)
    assert rate == pytest.approx(3.1e12, rel=0.03)
    assert rate / 1e9 / winograd(target).dsp_blocks == pytest.approx(1.33, rel=0.02)


def test_multipliers_are_those_of_the_published_configurations() -> None:
    found = {name: winograd(load_target(name)).multipliers for name in WINOCNN}
    assert found == dict(zip(WINOCNN, (2304, 2048, 256), strict=True))


WINOCNN = ("winocnn-zcu102-w6", "winocnn-zcu102-w4", "winocnn-ultra96-w4")


def strict(target: Target) -> Target:
    """The same array on the schedule that keeps to its buffers."""
    parameters = winograd(target).model_copy(update={"bound_rows_by_output": True})
    return dataclasses.replace(target, parameters=parameters)


def test_throughput_of_a_machine_that_keeps_to_its_buffers() -> None:
    """Truth: 3.1 TOPS too; the first and last steps of a layer move less than the host assumes."""
    target = strict(load_target("winocnn-zcu102-w6"))
    assert vgg_operations_per_s(target.name, target) == pytest.approx(3.1e12, rel=0.03)


def test_multiplier_blocks_are_the_synthesised_ones() -> None:
    """Truth: a C synthesis report (tarsioonofrio/WinoCNN); 40 blocks and the share are fitted on
    it. The look-up tables are fitted on the part that the authors ran the design on.
    """
    target = load_target("winocnn-zcu102-w6")
    found = FAMILY.resources(target)
    assert found is not None
    assert found.dsp == pytest.approx(2344, rel=0.01)
    assert found.bram18 == pytest.approx(1082, rel=0.01)
    assert found.lut <= 274080


def test_block_memories_by_the_declared_memories() -> None:
    """Truth: by hand; the report says 1082, and is not explained by the declarations."""
    target = load_target("winocnn-zcu102-w6")
    found = declared_bram18(winograd(target), target.weight_stream.weight_bits)
    inputs = 8 * 16 * 4  # 4096 words of 16 bits: four of 4K x 4
    outputs = 2 * 36 * 8 * 1  # 1024 words of 18 bits
    weights = 4 * 36 * 3  # 1024 words of 52 bits
    assert found == inputs + outputs + weights + 8 * 8
    assert outputs + weights + 8 * 8 < 1082 < found


@pytest.mark.parametrize("name", ["winocnn-zcu102-w6", "winocnn-zcu102-w4", "winocnn-ultra96-w4"])
def test_published_designs_fit_the_parts_they_ran_on(name: str) -> None:
    target = load_target(name)
    found = FAMILY.resources(target)
    assert found is not None
    assert found.fits(load_part(target.part).resources)


def test_blocks_follow_the_array() -> None:
    target = load_target("winocnn-zcu102-w6")
    base = FAMILY.resources(target)
    changes = {"array_rows": 8, "array_columns": 4, "channels_per_element": 8, "batch_images": 4}
    for name, value in changes.items():
        parameters = winograd(target).model_copy(update={name: value})
        found = FAMILY.resources(dataclasses.replace(target, parameters=parameters))
        assert base is not None
        assert found is not None
        assert found.dsp - 40 == 2 * (base.dsp - 40)
        assert found.lut == 2 * base.lut
        assert found.bram18 > base.bram18
    odd = winograd(target).model_copy(update={"omega_pixels": 6, "channels_per_element": 1})
    found = FAMILY.resources(dataclasses.replace(target, parameters=odd))
    assert found is not None
    assert found.dsp == 36 * 16 + 40
    assert bram18_blocks(1024, 52) == 3


def test_pynq_array_fits_its_part() -> None:
    """Truth: 220 multiplier blocks, 280 block memories, 53200 look-up tables (AMD DS190)."""
    found = FAMILY.resources(load_target("winocnn-pynq-z1-w4"))
    assert found is not None
    assert found.dsp <= 220
    assert found.bram18 <= 280
    assert found.lut <= 53200


def test_ultra96_throughput_of_vgg16() -> None:
    """Truth: 260 GOPS by an independent script, which splits output channels a little otherwise."""
    target = load_target("winocnn-ultra96-w4")
    assert vgg_operations_per_s("winocnn-zcu102-w4", target) == pytest.approx(260e9, rel=0.02)


def test_bounding_rows_by_the_output_buffer_is_slower() -> None:
    target = load_target("winocnn-zcu102-w6")
    parameters = winograd(target).model_copy(update={"bound_rows_by_output": True})
    bounded = dataclasses.replace(target, parameters=parameters)
    published = vgg_operations_per_s(target.name, target)
    assert 0.98 * published < vgg_operations_per_s(target.name, bounded) < published


def test_fewer_weight_bits_save_nothing() -> None:
    target = load_target("winocnn-zcu102-w6")
    layer = vgg_layer(rows("winocnn_vgg16.csv")[5])
    narrow = dataclasses.replace(layer, weight_bits=2, weight_storage_bits=layer.macs // 10000)
    assert cost(conv_work(narrow), target).latency_s == cost(conv_work(layer), target).latency_s


def test_stride_is_computed_at_full_resolution() -> None:
    target = load_target("winocnn-zcu102-w6")
    layer = vgg_layer(rows("winocnn_vgg16.csv")[4])
    strided = dataclasses.replace(
        layer, stride=(2, 2), out_height=layer.out_height // 2, out_width=layer.out_width // 2
    )
    one, two = cost(conv_work(layer), target), cost(conv_work(strided), target)
    assert two.compute_cycles == one.compute_cycles


@pytest.mark.parametrize(("channels", "size"), [(64, 56), (128, 28), (256, 14), (512, 7)])
def test_tucker_at_half_rank_is_slower_on_resnet18(channels: int, size: int) -> None:
    """Truth: 0.53 to 0.77 times the dense speed with 2.8x fewer MACs, by an independent script."""
    target = load_target("winocnn-zcu102-w6")
    row = {"size": str(size), "in_channels": str(channels), "out_channels": str(channels)}
    dense, half = vgg_layer(row), channels // 2
    point = dataclasses.replace(dense, kernel=(1, 1), pads=(0, 0, 0, 0))
    chain = (
        dataclasses.replace(point, out_channels=half),
        dataclasses.replace(dense, in_channels=half, out_channels=half),
        dataclasses.replace(point, in_channels=half),
    )
    assert sum(stage.macs for stage in chain) < dense.macs / 2.7
    factored = sum(cost(conv_work(stage), target).latency_s for stage in chain)
    assert 0.52 < cost(conv_work(dense), target).latency_s / factored < 0.78


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"group": 64}, "grouped"),
        ({"dilation": (2, 2)}, "dilated"),
        ({"transposed": True, "stride": (2, 2)}, "transposed"),
        ({"stride": (2, 1)}, "strides"),
        ({"in_channels": 1024, "in_width": 64, "out_width": 64}, "strips"),
        ({"in_channels": 64000}, "partial sums"),
    ],
)
def test_layers_that_the_array_does_not_have_are_flagged(change: dict, words: str) -> None:
    target = load_target("winocnn-zcu102-w6")
    base = dataclasses.replace(vgg_layer(rows("winocnn_vgg16.csv")[1]), out_channels=64)
    found = cost(conv_work(dataclasses.replace(base, **change)), target)
    assert words in found.assumed
    assert found.latency_s > 0


def test_layer_with_more_outputs_than_the_buffer_is_split() -> None:
    target = load_target("winocnn-zcu102-w6")
    base = vgg_layer(rows("winocnn_vgg16.csv")[1])
    wide = dataclasses.replace(base, out_channels=4096, in_channels=8)
    found = cost(conv_work(wide), target)
    assert found.latency_s > 0
    assert found.assumed == ""


def test_fully_connected_layer_is_bound_by_its_weights() -> None:
    target = load_target("winocnn-zcu102-w6")
    product = MatMulWork(
        count=1, rows=1, inner=4096, columns=1000, constant=True, weight_bits=8, activation_bits=8
    )
    found = cost(conv_work(product), target)
    assert "matrix product" in found.assumed
    assert found.weight_bytes >= 4096 * 1000 * 7 / 8


def test_slower_memory_slows_the_ports() -> None:
    target = load_target("winocnn-zcu102-w6")
    layer = conv_work(vgg_layer(rows("winocnn_vgg16.csv")[0]))
    times = [
        cost(layer, dataclasses.replace(target, dram_bytes_per_s=rate)).total_cycles
        for rate in (1e9, 6e9, 13.7e9, 1e12)
    ]
    assert times == sorted(times, reverse=True)
    assert times[0] > 5 * times[2]
    assert times[3] == pytest.approx(times[2], rel=1e-2)


def test_tall_kernels_are_cut_where_the_line_buffer_ends() -> None:
    target = strict(load_target("winocnn-zcu102-w6"))
    base = vgg_layer(rows("winocnn_vgg16.csv")[5])
    tall = dataclasses.replace(base, kernel=(31, 31), pads=(15, 15, 15, 15), in_channels=8)
    assert "taller" in cost(conv_work(tall), target).assumed
    assert cost(conv_work(dataclasses.replace(base, in_channels=8)), target).assumed == ""


def test_buffers_that_hold_nothing_are_flagged() -> None:
    target = strict(load_target("winocnn-zcu102-w6"))
    tiny = winograd(target).model_copy(update={"input_bank_words": 8})
    layer = conv_work(vgg_layer(rows("winocnn_vgg16.csv")[5]))
    found = cost(layer, dataclasses.replace(target, parameters=tiny))
    assert "do not hold a row of tiles" in found.assumed
    assert found.latency_s > 0


def sharing(*kernels: int) -> Target:
    target = strict(load_target("winocnn-zcu102-w6"))
    parameters = winograd(target).model_copy(update={"kernels": kernels})
    return dataclasses.replace(target, parameters=parameters)


def test_five_by_five_kernels_may_have_their_own_mode() -> None:
    """Truth: at most 25 x 4 / 36 = 2.78 MACs a multiplication, native or as four 3x3 kernels."""
    base = vgg_layer(rows("winocnn_vgg16.csv")[5])
    layer = conv_work(dataclasses.replace(base, kernel=(5, 5), pads=(2, 2, 2, 2)))
    merged, native = (cost(layer, sharing(*kernels)) for kernels in ((1, 3), (1, 3, 5)))
    for found in (merged, native):
        assert 2.2 < found.utilisation < 2.78
    assert native.compute_cycles == pytest.approx(merged.compute_cycles, rel=0.05)
    assert native.total_cycles <= merged.total_cycles
    alone = cost(layer, sharing(1, 5))
    assert alone.utilisation == pytest.approx(native.utilisation, rel=0.02)
    assert cost(layer, sharing(1)).utilisation < 1


@pytest.mark.parametrize("kernels", [(3,), (1, 3, 3), (3, 1), (1, 6)])
def test_kernels_that_cannot_share_are_refused(kernels: tuple[int, ...]) -> None:
    values = winograd(load_target("winocnn-zcu102-w6")).model_dump() | {"kernels": kernels}
    with pytest.raises(ValidationError, match=r"kernels are ascending|does not fit"):
        Parameters.model_validate(values)


@pytest.mark.parametrize(
    ("bits", "omega", "kernel", "width"),
    [(7, 6, 3, 17), (7, 4, 3, 11), (2, 6, 3, 12), (7, 6, 1, 7)],
)
def test_width_of_transformed_weights(bits: int, omega: int, kernel: int, width: int) -> None:
    """Truth: 7 + 2 x 5 and 7 + 2 x 2 bits in the published source; and by the largest kernel."""
    assert transformed_weight_bits(bits, omega, kernel) == width
    if kernel > 1:
        top = 2 ** (bits - 1)
        corners = np.array(np.meshgrid(*[[-top, top - 1]] * 9)).reshape(9, -1).T
        domain = transformed_kernels(corners.reshape(-1, 1, 3, 3), omega)
        assert np.abs(domain).max() <= 2 ** (width - 1)
        assert np.abs(domain).max() > 2 ** (width - 2)


def test_low_bits_are_said_to_bring_no_compute() -> None:
    target = load_target("winocnn-zcu102-w4")
    layer = vgg_layer(rows("winocnn_vgg16.csv")[5])
    assert FAMILY.notes(conv_work(layer), target) == ()
    (said,) = FAMILY.notes(conv_work(dataclasses.replace(layer, weight_bits=2)), target)
    assert said.startswith("2-bit weights take no fewer cycles")
    assert "6 bits wide" in said
    cut = FAMILY.notes(conv_work(layer), load_target("winocnn-zcu102-w6"))
    assert cut == (
        "transformed weights of 17 bits are cut to the 13 bits of the multipliers: results are not"
        " exact",
    )
    assert FAMILY.notes(conv_work(PRODUCT), target) == ()


PRODUCT = MatMulWork(count=1, rows=1, inner=64, columns=64, constant=True, weight_bits=2)


def measured(zeros: float, entropy: float = 8.0) -> WeightStatistics:
    return WeightStatistics(
        count=1000,
        levels=3,
        entropy_bits=entropy,
        zero_share=zeros,
        zero_run_bits=entropy,
        winograd_zero_shares=((4, zeros), (6, zeros), (8, zeros)),
    )


def test_coded_weights_save_bandwidth_and_no_compute() -> None:
    base = strict(load_target("winocnn-zcu102-w6"))
    stream = WeightStream(encoding="entropy", weight_bits=8)
    coded = dataclasses.replace(base, weight_stream=stream)
    layer = vgg_layer(rows("winocnn_vgg16.csv")[7])
    costs = [
        cost(dataclasses.replace(conv_work(layer), weights=measured(0, bits)), coded)
        for bits in (8.0, 4.0, 1.6)
    ]
    assert costs[1].weight_bytes == pytest.approx(costs[0].weight_bytes / 2, rel=0.01)
    assert costs[2].weight_bytes == pytest.approx(costs[0].weight_bytes / 5, rel=0.01)
    sweeps = {round(found.fill_cycles) for found in costs}
    assert max(found.total_cycles for found in costs) == costs[0].total_cycles
    assert len(sweeps) == 3  # the first load shortens, nothing else of the fill
    assert costs[2].compute_cycles == costs[1].compute_cycles


def test_decoder_can_be_what_is_waited_for() -> None:
    base = strict(load_target("winocnn-zcu102-w6"))
    layer = dataclasses.replace(
        conv_work(vgg_layer(rows("winocnn_vgg16.csv")[7])), weights=measured(0, 1.6)
    )
    times = []
    for rate in (1.0, 16.0, 256.0):
        stream = WeightStream(encoding="entropy", weight_bits=8, decoder_weights_per_cycle=rate)
        times.append(cost(layer, dataclasses.replace(base, weight_stream=stream)))
    assert times[0].bottleneck == "decode"
    assert times[0].total_cycles > times[1].total_cycles >= times[2].total_cycles


def test_zeros_of_the_winograd_domain_are_skipped_where_measured() -> None:
    """Truth: a fifth of the saving is lost (`skipped_share`), so 0.8 x 0.8 of the sweeps go."""
    target = load_target("winocnn-sparse-zcu102-w8")
    work = conv_work(dataclasses.replace(vgg_layer(rows("winocnn_vgg16.csv")[5]), batch=1))
    unmeasured = cost(work, target)
    assert "none is skipped" in unmeasured.assumed
    dense = cost(dataclasses.replace(work, weights=measured(0.0)), target)
    assert dense.compute_cycles == unmeasured.compute_cycles
    sparse = cost(dataclasses.replace(work, weights=measured(0.8)), target)
    assert "none is skipped" not in sparse.assumed
    assert 0.35 < sparse.compute_cycles / dense.compute_cycles < 0.6
    assert sparse.total_cycles >= bound_cycles(
        dataclasses.replace(work, weights=measured(0.8)), target
    )
    plain = dataclasses.replace(
        target,
        parameters=winograd(target).model_copy(update={"skips_zero_weights": False}),
    )
    assert cost(dataclasses.replace(work, weights=measured(0.8)), plain).assumed == dense.assumed
