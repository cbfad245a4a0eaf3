"""Ethos-U: against Vela's output (an independent tool), and by hand calculation."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.work import (
    ConvWork,
    ElementWork,
    MatMulWork,
    OperatorWork,
    WeightStatistics,
    Work,
)
from edgecompress.graph.model import load_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.models._ethos_blocks import NpuOp, choose_blocks
from edgecompress.hardware.models._ethos_cores import CORES, Size
from edgecompress.hardware.models._ethos_cycles import block_count, mac_cycles
from edgecompress.hardware.models._ethos_memory import WeightCode, coded_bytes
from edgecompress.hardware.models.ethos_u import npu_cycles
from edgecompress.hardware.target import TARGET_FOLDER, list_targets, load_target, parse_target

ROOT = Path(__file__).resolve().parents[2]
# Truth: output of ethos-u-vela 5.2.0, kept by benchmarks/latency/vela.py.
VELA: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "vela.json").read_text())[
    "runs"
]
NAMES = [f"{run['network']}-{run['weights']}-{run['config']}" for run in VELA]
TARGETS = [name for name in list_targets() if name.startswith("ethos-u")]

CONV = ConvWork(
    batch=1,
    in_channels=64,
    out_channels=64,
    in_height=56,
    in_width=56,
    out_height=56,
    out_width=56,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    pads=(1, 1, 1, 1),
    group=1,
    weight_bits=8,
    activation_bits=8,
)
UNIFORM = WeightStatistics(
    count=36864, levels=255, entropy_bits=7.99, zero_share=1 / 255, zero_run_bits=8.0
)
TERNARY = dataclasses.replace(UNIFORM, levels=3, entropy_bits=1.585, zero_share=1 / 3)


def as_work(
    operator: OperatorWork, op_type: str = "Conv", weights: WeightStatistics | None = UNIFORM
) -> Work:
    return Work(
        name="n",
        op_type=op_type,
        operator=operator,
        input_bits=0,
        output_bits=0,
        weights=weights,
    )


@pytest.fixture(scope="module")
def vela() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks" / "latency"))
        import vela as module

        yield module
    for name in ("vela", "layered"):
        sys.modules.pop(name)


def sliced(full: bool, name: str) -> None:
    if not full and not name.startswith("resnet18-uniform"):
        pytest.skip("one network of three, uniform weights; all of them with --full")


@pytest.mark.parametrize("run", VELA, ids=NAMES)
def test_cycles_are_those_of_vela(run: dict[str, Any], vela: ModuleType, full: bool) -> None:
    sliced(full, f"{run['network']}-{run['weights']}")
    found = vela.compared(run)
    assert run["vela"] == "5.2.0"
    assert abs(found["error_npu"]) <= 0.05
    bar = load_target(run["config"]).model_error
    assert bar is not None
    assert abs(found["error_total"]) <= bar
    if run["network"] == "resnet18":
        assert abs(found["error_total"]) <= (0.10 if "u85" in run["config"] else 0.05)


def test_weights_of_low_entropy_save_what_vela_says(vela: ModuleType, full: bool) -> None:
    runs = [
        run
        for run in VELA
        if full or (run["network"] == "resnet18" and run["config"] == "ethos-u55-256")
    ]
    found = vela.effect([vela.compared(run) for run in runs if run["config"] != "ethos-u55-128"])
    assert len(found) >= 4
    for one in found:
        assert abs(one["error"]) <= (0.05 if one["network"] == "resnet18" else 0.06), one


@pytest.mark.parametrize("config", ["ethos-u55-128", "ethos-u55-256"])
def test_blocks_are_those_of_vela(config: str, vela: ModuleType) -> None:
    """Where the whole map goes through at once, which it always does on the U55."""
    kinds = {"conv": "conv", "depthwise": "depthwise", "fc": "product", "add": "element"}
    core, count = CORES["u55", int(config[-3:])], 0
    for network, table in ((name, make()) for name, make in vela.NETWORKS.items()):
        (run,) = (
            run
            for run in VELA
            if (run["network"], run["config"], run["weights"]) == (network, config, "uniform")
        )
        for layer in table.layers.values():
            if layer.kind not in kinds:
                continue
            before = table.layers[layer.inputs[0]]
            op = NpuOp(
                kind=kinds[layer.kind],  # type: ignore[arg-type]
                inputs=Size(before.height, before.width, before.channels),
                outputs=Size(layer.height, layer.width, layer.channels),
                kernel=layer.kernel,
                stride=layer.stride,
            )
            assert list(choose_blocks(op, core).outputs) == run["layers"][layer.name][2:]
            count += 1
    assert count == 31 - 2 + 64 - 1 + 20 - 2


def test_one_block_by_hand() -> None:
    """6 x 14 x 32 of a 3 x 3 convolution: 3 x 7 micro-blocks of 2 x 2, four cycles each for one
    tap, 32 input and 8 output channels."""
    op = NpuOp(kind="conv", inputs=Size(56, 56, 64), outputs=Size(56, 56, 64), kernel=(3, 3))
    core = CORES["u55", 256]
    blocks = choose_blocks(op, core)
    assert blocks.outputs == Size(6, 14, 32)
    assert mac_cycles(op, core, blocks) == 4 * 21 * 9 * (32 // 8) * (64 // 32)
    assert block_count(op, blocks) == (28 * 28 * 8) / (3 * 7 * 4)


def test_the_ideal_is_what_the_multipliers_could_do() -> None:
    """64 channels fill every lane: 115.6 million multiplications over 256 a cycle."""
    found = cost(as_work(CONV), load_target("ethos-u55-256"))
    assert found.compute_cycles == pytest.approx(CONV.macs / 256, rel=0.01)
    assert found.utilisation == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    ("op", "vela_bytes"),
    [
        (
            NpuOp(kind="conv", inputs=Size(38, 38, 12), outputs=Size(38, 38, 20), kernel=(3, 3)),
            2752,
        ),
        (
            NpuOp(kind="conv", inputs=Size(38, 38, 72), outputs=Size(38, 38, 36), kernel=(7, 1)),
            20960,
        ),
        (NpuOp(kind="conv", inputs=Size(19, 19, 72), outputs=Size(19, 19, 200)), 16752),
        (NpuOp(kind="conv", inputs=Size(19, 19, 28), outputs=Size(19, 19, 200)), 6400),
        (
            NpuOp(kind="conv", inputs=Size(56, 56, 64), outputs=Size(56, 56, 64), kernel=(3, 3)),
            36880,
        ),
    ],
)
def test_padded_weight_streams_are_as_long_as_those_of_vela(op: NpuOp, vela_bytes: int) -> None:
    """Truth: weight_total_bytes in the debug database of ethos-u-vela 5.2.0, U55-128."""
    core = CORES["u55", 128]
    code = WeightCode(statistics=UNIFORM, bits=8, overhead_bits=0.12)
    found = coded_bytes(op, core, choose_blocks(op, core), code, rate=1.0)
    assert found == pytest.approx(vela_bytes, rel=0.05)


def test_the_u85_takes_the_quicker_of_two_codes() -> None:
    """Ternary weights go through the fast decoder as two bits; of nine taps it stores ten."""
    op = NpuOp(kind="conv", inputs=Size(56, 56, 64), outputs=Size(56, 56, 64), kernel=(3, 3))
    core = CORES["u85", 512]
    code = WeightCode(statistics=TERNARY, bits=8, overhead_bits=0.12)
    found = coded_bytes(op, core, choose_blocks(op, core), code, rate=6.55)
    assert found == 32 + 64 * 64 * 10 * 2 / 8


@given(low=st.floats(0.1, 8.0), high=st.floats(0.1, 8.0), name=st.sampled_from(TARGETS))
def test_less_entropy_is_never_slower(low: float, high: float, name: str) -> None:
    target = load_target(name)
    low, high = sorted((low, high))
    times = [
        cost(
            as_work(CONV, weights=dataclasses.replace(UNIFORM, entropy_bits=bits, zero_share=0.0)),
            target,
        ).total_cycles
        for bits in (low, high)
    ]
    assert times[0] <= times[1] * (1 + 1e-9)


@given(
    size=st.integers(1, 64),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 300),
    kernel=st.integers(1, 9),
    small=st.sampled_from([("u55", 128), ("u65", 256), ("u85", 256), ("u85", 512)]),
)
def test_more_units_multiply_no_slower(
    size: int, inputs: int, outputs: int, kernel: int, small: tuple[str, int]
) -> None:
    """Where a map is one micro-block, each step of 32 cycles waits two: that is allowed."""
    op = NpuOp(
        kind="conv",
        inputs=Size(size, size, inputs),
        outputs=Size(size, size, outputs),
        kernel=(kernel, kernel),
    )
    times = []
    for product, macs in (small, (small[0], 2 * small[1])):
        core = CORES[product, macs]
        blocks = choose_blocks(op, core)
        times.append(mac_cycles(op, core, blocks) * block_count(op, blocks))
    assert times[1] <= times[0] * (1 + 2 / 32) * 1.001


@given(
    size=st.integers(1, 64),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 300),
    kernel=st.integers(1, 9),
    core=st.sampled_from(sorted(CORES)),
)
def test_blocks_fit_the_map_and_multiply_no_more_than_the_units_can(
    size: int, inputs: int, outputs: int, kernel: int, core: tuple[str, int]
) -> None:
    op = NpuOp(
        kind="conv",
        inputs=Size(size, size, inputs),
        outputs=Size(size, size, outputs),
        kernel=(kernel, kernel),
    )
    made = CORES[core]
    blocks = choose_blocks(op, made)
    macs = kernel * kernel * inputs * op.outputs.elements
    assert mac_cycles(op, made, blocks) * block_count(op, blocks) * made.peak_macs >= macs * 0.999
    assert all(n % unit == 0 for n, unit in zip(blocks.outputs[:2], blocks.micro[:2], strict=True))


def test_a_sum_takes_three_quarters_of_a_cycle_per_element() -> None:
    """Vela 5.2.0: 150528 cycles for 56 x 56 x 64 on the U55-256."""
    add = ElementWork(
        operations=200704, read_bits=2 * 8 * 200704, written_bits=8 * 200704, activation_bits=8
    )
    found = cost(as_work(add, "Add"), load_target("ethos-u55-256"))
    assert found.total_cycles == pytest.approx(150528, rel=0.01)
    assert found.assumed == ""


def test_a_sum_runs_with_the_operator_before_on_the_u85() -> None:
    add = ElementWork(
        operations=200704, read_bits=2 * 8 * 200704, written_bits=8 * 200704, activation_bits=8
    )
    target = load_target("ethos-u85-512")
    found = cost(as_work(add, "Add"), target)
    assert npu_cycles(as_work(add, "Add"), target) == 0
    assert 0 < found.total_cycles < 200704 / 8
    assert "while the results of the operator before are written" in found.assumed


def test_what_the_processor_has_not_runs_on_the_host() -> None:
    softmax = ElementWork(operations=11000, read_bits=8000, written_bits=8000, activation_bits=8)
    found = cost(as_work(softmax, "Softmax"), load_target("ethos-u55-256"))
    assert found.assumed.startswith("not an operation of the processor")
    assert found.latency_s >= 11000 / 400e6


@pytest.mark.parametrize(
    ("operator", "word"),
    [
        (dataclasses.replace(CONV, group=4), "group after group"),
        (
            dataclasses.replace(
                CONV, transposed=True, stride=(2, 2), out_height=112, out_width=112
            ),
            "spread with zeros",
        ),
        (dataclasses.replace(CONV, in_channels=3), "taken for the image"),
        (dataclasses.replace(CONV, activation_bits=32), "no floating point"),
        (
            MatMulWork(count=2, rows=9, inner=64, columns=9, constant=False, activation_bits=8),
            "product of two activations",
        ),
    ],
)
def test_what_is_assumed_is_said(operator: OperatorWork, word: str) -> None:
    for name in TARGETS:
        assert word in cost(as_work(operator), load_target(name)).assumed


def test_16_bit_activations_take_twice_the_cycles() -> None:
    target = load_target("ethos-u55-256")
    wide = dataclasses.replace(CONV, activation_bits=16)
    ratio = cost(as_work(wide), target).compute_cycles / cost(as_work(CONV), target).compute_cycles
    assert ratio == pytest.approx(2.0, rel=0.02)


def test_weights_that_are_read_once_are_not_copied_first() -> None:
    """512 channels on 7 x 7: one block of pixels, 2 364 720 cycles of flash in Vela 5.2.0."""
    small = dataclasses.replace(
        CONV,
        in_channels=512,
        out_channels=512,
        in_height=7,
        in_width=7,
        out_height=7,
        out_width=7,
    )
    found = cost(as_work(small), load_target("ethos-u55-256"))
    assert found.fill_cycles == 0
    assert found.total_cycles == pytest.approx(2364720, rel=0.02)
    assert found.bottleneck == "load"


def test_maps_that_do_not_fit_are_flagged_on_the_u55() -> None:
    large = dataclasses.replace(CONV, in_height=400, in_width=400, out_height=400, out_width=400)
    found = cost(as_work(large), load_target("ethos-u55-256"))
    assert "do not fit the SRAM" in found.assumed


def test_a_chain_spares_the_external_memory() -> None:
    target = load_target("ethos-u65-512")
    image = dataclasses.replace(CONV, in_channels=4)
    kept = dataclasses.replace(image, input_on_chip=True)
    assert cost(as_work(kept), target).activation_bytes < (
        cost(as_work(image), target).activation_bytes
    )


def test_a_size_that_is_not_made_is_refused() -> None:
    text = (TARGET_FOLDER / "ethos-u55-256.toml").read_text()
    with pytest.raises(ConfigurationInvalid, match="macs_per_cycle of a u55 is one of 32, 64, 128"):
        parse_target(
            text.replace("macs_per_cycle = 256", "macs_per_cycle = 512").encode(), where="t"
        )


def test_kept_results_are_those_of_the_code(vela: ModuleType, full: bool) -> None:
    committed = json.loads((ROOT / "benchmarks/latency/results/vela.json").read_text())
    assert committed["command"] == vela.COMMAND
    rows = committed["results"]
    assert len(rows) == len(VELA)
    for row, run in zip(rows, VELA, strict=True):
        if full or NAMES[VELA.index(run)].startswith("resnet18-uniform-ethos-u5"):
            assert vela.compared(run) == row


def test_the_graph_of_a_network_gives_what_its_table_does(tmp_path: Path, vela: ModuleType) -> None:
    """ResNet-18 as an ONNX file, against Vela's cycles of the same network."""
    assert vela.HERE == ROOT / "benchmarks" / "latency"
    from networks import resnet18

    path = tmp_path / "resnet18.onnx"
    onnx.save(resnet18(), path)
    works = derive_work(load_model(path, normalize=False), {})
    for run in VELA:
        if (run["network"], run["weights"]) == ("resnet18", "uniform"):
            target = load_target(run["config"])
            busy = sum(
                npu_cycles(work, target)
                for work in works
                if not (isinstance(work.operator, ElementWork) and work.operator.fused)
            )
            assert busy == pytest.approx(run["summary"]["cycles_npu"], rel=0.05)
    sys.modules.pop("networks")


def test_an_answer_takes_milliseconds() -> None:
    """The committed times of pricing ResNet-18: under 20 ms, and a hundredth of Vela's or less."""
    committed = json.loads((ROOT / "benchmarks/latency/results/peers.json").read_text())
    took = {(row["tool"].split()[0], row["device"]): row for row in committed["results"]}
    ours = took["edgecompress", "ethos-u55-256"]
    theirs = took["ethos-u-vela", "ethos-u55-256"]
    assert ours["weights"] == theirs["weights"] == "uniform, 8 bits"
    assert ours["cycles"] == pytest.approx(theirs["cycles"], rel=0.05)
    assert 0 < ours["pricing_processor_s"] < 0.020
    assert ours["pricing_processor_s"] < theirs["processor_s"] / 100
    for device in ("systolic-ws-32", "systolic-os-32", "cortex-m7"):
        assert 0 < took["edgecompress", device]["processor_s"] < 0.020
