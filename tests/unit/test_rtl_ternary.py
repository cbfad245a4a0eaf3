"""Verilog of the ternary engine against exact sums, the simulator and the closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from installed import need

from benchmarks.rtl.agreement import RUNS
from benchmarks.rtl.cases import ternary_case
from edgecompress.hardware.rtl import ternary_engine
from edgecompress.hardware.rtl.bench import run_bench
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerProduct
from edgecompress.hardware.simulator.ternary_engine import TernaryArray

SLICE = (0, 3, 7, 14)


def engine(**changes: int) -> ternary_engine.EngineShape:
    sizes = {"activation_bits": 8, "sum_bits": 20} | changes
    array = TernaryArray(
        output_lanes=2, input_lanes=2, window=3, weight_load_cycles=4, accumulators=64
    )
    return ternary_engine.EngineShape(array=array, **sizes)


def conv(size: int = 5, weight_bits: int = 2) -> IntegerConv:
    generator = np.random.default_rng(1)
    most = (1 << (weight_bits - 1)) - 1
    return IntegerConv(
        inputs=generator.integers(-128, 128, (1, 2, size, size)),
        weights=generator.integers(-most, most + 1, (2, 2, 3, 3)),
        pads=(1, 1, 1, 1),
        weight_bits=weight_bits,
    )


def test_outputs_and_cycles_are_those_of_the_simulator(full: bool) -> None:
    need("iverilog", "vvp")
    for seed in range(RUNS) if full else SLICE:
        case = ternary_case(seed)
        verdict = run_bench(case.bench)
        assert verdict.passed, (case.words, verdict.failures)
        assert verdict.cycles == case.simulated == case.predicted, case.words


def test_verilator_agrees(full: bool) -> None:
    if not full:
        pytest.skip("compiles for seconds; runs with --full")
    need("verilator")
    case = ternary_case(3)
    verdict = run_bench(case.bench, simulator="verilator")
    assert verdict.passed, verdict.failures
    assert verdict.cycles == case.simulated


def test_cycles_of_one_block_by_hand() -> None:
    """4 to load the weights, 3 columns to fill the window, 5 x 5 positions, 2 registers."""
    need("iverilog", "vvp")
    assert run_bench(ternary_engine.bench(engine(), conv())).cycles == 4 + 3 + 25 + 2


def test_a_wrong_expectation_fails() -> None:
    need("iverilog", "vvp")
    bench = ternary_engine.bench(engine(), conv())
    words = bench.memories["expected.hex"].splitlines()
    words[7] = f"{int(words[7], 16) ^ 1:0{len(words[7])}x}"
    memories = {**bench.memories, "expected.hex": "\n".join(words) + "\n"}
    verdict = run_bench(replace(bench, memories=memories))
    assert [line.split(":")[0] for line in verdict.failures] == ["FAIL result 7"]


def test_extreme_sums_do_not_overflow_the_tree() -> None:
    """All codes at -128, all weights at 1 in one lane and at -1 in the other."""
    need("iverilog", "vvp")
    weights = np.ones((2, 2, 3, 3), np.int64)
    weights[1] = -1
    layer = replace(conv(), inputs=np.full((1, 2, 5, 5), -128), weights=weights)
    assert run_bench(ternary_engine.bench(engine(sum_bits=14), layer)).passed


def test_layers_that_do_not_fit_are_refused() -> None:
    layer = conv()
    assert ternary_engine.why_not(engine(), layer) is None
    reason = ternary_engine.why_not(engine(activation_bits=7), layer)
    assert reason == "8-bit activations on an engine of 7 bits"
    # Codes from -2 to 2 take a second digit plane.
    assert ternary_engine.why_not(engine(), replace(layer, weights=2 * layer.weights)) is None
    reason = ternary_engine.why_not(engine(), replace(conv(weight_bits=2), weight_bits=10))
    assert reason == "10-bit weights: more than 8 digit planes"
    many = IntegerProduct(
        inputs=np.full((1, 100), -128), weights=np.full((100, 1), -1), weight_bits=2
    )
    # By hand: 100 x 128 = 12800 needs 15 bits with its sign.
    reason = ternary_engine.why_not(engine(sum_bits=14), many)
    assert reason == "sums of 15 bits on an engine with 14 bits for them"


def test_impossible_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="activations of 1 bits"):
        engine(activation_bits=1)
    # By hand: 18 terms of 9 bits need 9 + 5.
    with pytest.raises(ValueError, match="sums of 13 bits, the trees have 14"):
        engine(sum_bits=13)
