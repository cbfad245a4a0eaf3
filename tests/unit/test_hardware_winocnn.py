"""The WinoCNN cycle model against the published design's own layer descriptors and throughput."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from edgecompress.core.work import ConvWork, MatMulWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.models._winograd import Parameters, Shape, call_cycles, describe
from edgecompress.hardware.target import Target, load_target

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
    cycles = call_cycles(shape, 3, winograd(load_target(row["target"])))
    assert cycles.total == pytest.approx(int(row["cycles_of_two_images"]), abs=1)


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
        ({"in_channels": 8192, "in_width": 64, "out_width": 64}, "strips"),
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
