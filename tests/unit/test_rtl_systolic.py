"""Verilog of the systolic arrays against exact sums, the simulator and the closed form."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from installed import need

from benchmarks.rtl.agreement import RESULTS, RUNS
from benchmarks.rtl.cases import systolic_case
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.hardware.rtl import systolic_os, systolic_ws
from edgecompress.hardware.rtl._product import ArrayShape, products_of, signed_bits, why_not
from edgecompress.hardware.rtl.bench import run_bench
from edgecompress.hardware.rtl.verilog import generator_for
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerProduct, exact_outputs
from edgecompress.hardware.target import load_target

FAMILIES = ("systolic_os", "systolic_ws")
SLICE = (0, 3, 4, 6, 20)


def shape(rows: int = 2, columns: int = 3, **changes: int) -> ArrayShape:
    sizes = {"activation_bits": 8, "weight_bits": 4, "sum_bits": 24} | changes
    return ArrayShape(rows=rows, columns=columns, dsp=False, **sizes)


def product(rows: int, inner: int, columns: int, seed: int = 0) -> IntegerProduct:
    generator = np.random.default_rng(seed)
    return IntegerProduct(
        inputs=generator.integers(-128, 128, (rows, inner)),
        weights=generator.integers(-8, 8, (inner, columns)),
        weight_bits=4,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_cycles_are_those_of_the_simulator(family: str, full: bool) -> None:
    need("iverilog", "vvp")
    for seed in range(RUNS) if full else SLICE:
        case = systolic_case(family, seed)
        verdict = run_bench(case.bench)
        assert verdict.passed, (case.words, verdict.failures)
        assert verdict.cycles == case.simulated == case.predicted, case.words


@pytest.mark.parametrize("family", FAMILIES)
def test_verilator_agrees(family: str, full: bool) -> None:
    if not full:
        pytest.skip("compiles for seconds; runs with --full")
    need("verilator")
    case = systolic_case(family, 3)
    verdict = run_bench(case.bench, simulator="verilator")
    assert verdict.passed, verdict.failures
    assert verdict.cycles == case.simulated


def test_cycles_of_one_element_by_hand() -> None:
    """A weight goes in, then three rows: 1 + 3; three taps that stay: 3."""
    need("iverilog", "vvp")
    one = shape(1, 1)
    assert run_bench(systolic_ws.bench(one, product(3, 1, 1))).cycles == 4
    assert run_bench(systolic_os.bench(one, product(1, 3, 1))).cycles == 3


@pytest.mark.parametrize("module", [systolic_os, systolic_ws])
def test_a_wrong_expectation_fails(module: object) -> None:
    """The test bench does compare: one bit of one expected word is turned."""
    need("iverilog", "vvp")
    bench = module.bench(shape(), product(3, 4, 5))  # type: ignore[attr-defined]
    words = bench.memories["expected.hex"].splitlines()
    words[2] = f"{int(words[2], 16) ^ 1:0{len(words[2])}x}"
    memories = {**bench.memories, "expected.hex": "\n".join(words) + "\n"}
    verdict = run_bench(replace(bench, memories=memories))
    assert not verdict.passed
    assert len(verdict.failures) == 1
    assert "word 2" in verdict.failures[0]


@pytest.mark.parametrize("module", [systolic_os, systolic_ws])
@pytest.mark.parametrize("bits", [(1, 1), (16, 16), (3, 1), (1, 5)])
def test_any_width(module: object, bits: tuple[int, int]) -> None:
    """The most negative codes of both operands, and everything between, in both multipliers."""
    need("iverilog", "vvp")
    generator = np.random.default_rng(3)
    low = [-(1 << (width - 1)) for width in bits]
    inputs = generator.integers(low[0], -low[0], (4, 5))
    weights = generator.integers(low[1], -low[1], (5, 4))
    inputs[0], weights[:, 0] = low
    layer = IntegerProduct(inputs=inputs, weights=weights, input_bits=bits[0], weight_bits=bits[1])
    for dsp in (False, True):
        array = ArrayShape(
            rows=2,
            columns=3,
            activation_bits=bits[0],
            weight_bits=bits[1],
            sum_bits=sum(bits) + 3,
            dsp=dsp,
        )
        assert run_bench(module.bench(array, layer)).passed  # type: ignore[attr-defined]


def test_expected_results_are_those_without_an_array() -> None:
    """The correction makes raw signed codes give the sums of unsigned codes with a zero point."""
    generator = np.random.default_rng(5)
    layer = IntegerConv(
        inputs=generator.integers(0, 256, (2, 4, 5, 6)),
        weights=generator.integers(-8, 8, (6, 2, 3, 2)),
        zero_point=131,
        pads=(1, 0, 1, 1),
        stride=(2, 1),
        group=2,
        weight_bits=4,
        input_signed=False,
    )
    for group, one in enumerate(products_of(layer)):
        assert one.inputs.min() >= -128
        assert one.inputs.max() < 128
        found = one.inputs @ one.weights + one.correction
        truth = exact_outputs(layer)[:, 3 * group : 3 * group + 3]
        np.testing.assert_array_equal(found, truth.transpose(0, 2, 3, 1).reshape(-1, 3))


def test_layers_that_do_not_fit_are_refused() -> None:
    layer = product(3, 4, 5)
    assert why_not(shape(), layer) is None
    assert why_not(shape(activation_bits=7), layer) == "8-bit activations on an array of 7 bits"
    assert why_not(shape(weight_bits=3), layer) == "4-bit weights on an array of 3 bits"
    most = replace(layer, inputs=np.full((1, 40), -128), weights=np.full((40, 1), -8))
    # By hand: 40 x 1024 = 40960 needs 17 bits with its sign.
    assert why_not(shape(sum_bits=16), most) == "sums of 17 bits on an array with 16 bits for them"
    assert why_not(shape(sum_bits=17), most) is None


@pytest.mark.parametrize(
    ("values", "bits"), [([0], 1), ([-1], 1), ([1], 2), ([-2, 1], 2), ([127, -128], 8), ([128], 9)]
)
def test_bits_in_twos_complement(values: list[int], bits: int) -> None:
    assert signed_bits(np.array(values)) == bits


def test_impossible_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="0 x 3"):
        shape(0)
    with pytest.raises(ValueError, match="17 and 4 bits"):
        shape(activation_bits=17)
    with pytest.raises(ValueError, match="does not fit in 11 bits"):
        shape(sum_bits=11)


@pytest.mark.parametrize("family", FAMILIES)
def test_widths_of_a_target_that_are_not_generated_are_refused(family: str) -> None:
    target = load_target(family.replace("_", "-") + "-32")
    wide = replace(target, activation_bits=20)
    with pytest.raises(ConfigurationInvalid, match="operands of 20 and 8 bits"):
        generator_for(family).design(wide)
    narrow = replace(
        target, parameters=target.parameters.model_copy(update={"accumulator_bits": 15})
    )
    with pytest.raises(ConfigurationInvalid, match="do not hold a product of 8 and 8 bits"):
        generator_for(family).design(narrow)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_names_its_numbers_in_the_design(family: str) -> None:
    target = load_target(family.replace("_", "-") + "-32")
    text = generator_for(family).design(target).text
    for line in ("parameter ROWS = 32,", "parameter WEIGHT_BITS = 8,", "parameter SUM_BITS = 32,"):
        assert line in text
    assert text.startswith("// ")
    assert "Generated by edgecompress" in text
    assert "@" not in text.replace("@(posedge clock)", "")


def test_committed_runs_agree() -> None:
    """What the benchmark found on all its runs, for every family."""
    families = json.loads(RESULTS.read_text(encoding="utf-8"))["families"]
    assert set(families) >= {"systolic_os", "systolic_ws", "ternary_engine"}
    for found in families.values():
        assert found["runs"] == len(found["results"]) >= 24
        for run in found["results"]:
            assert run["outputs_equal"]
            assert run["cycles"] == run["simulated_cycles"] == run["predicted_cycles"]
