"""Running test benches: memory files, verdicts, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from installed import need

from edgecompress.core.errors import ConfigurationInvalid, ResourceLimit, Unsupported
from edgecompress.hardware.rtl.bench import (
    Bench,
    Verdict,
    find_program,
    hex_words,
    packed_words,
    read_verdict,
    run_bench,
)
from edgecompress.hardware.rtl.synthesis import count_cells, read_counts
from edgecompress.hardware.rtl.verilog import generator_for, list_generators, module_text

COUNTER = """
module bench;
    reg [7:0] words [0:1];
    integer cycles = 0;
    reg clock = 0;
    always #1 clock = ~clock;
    always @(posedge clock) begin
        cycles = cycles + 1;
        if (cycles == 5) begin
            if (words[1] !== 8'hfe) begin
                $display("FAIL word 1: %h", words[1]);
                $finish_and_return(1);
            end
            $display("PASS cycles=%0d", cycles);
            $finish;
        end
    end
    initial $readmemh("words.hex", words);
endmodule
"""


def counter(value: int, text: str = COUNTER) -> Bench:
    return Bench(
        top="bench",
        sources={"bench.v": text},
        memories={"words.hex": hex_words([1, value], 8)},
    )


def test_memory_files_are_in_twos_complement() -> None:
    # By hand: -2 in 6 bits is 111110, two hex digits.
    assert hex_words([5, -2, 63], 6) == "05\n3e\n3f\n"


def test_element_zero_of_a_wide_word_is_in_its_lowest_bits() -> None:
    # By hand: 3-bit elements 1, -1, 2 from the lowest: 010 111 001.
    assert packed_words(np.array([[1, -1, 2]]), 3) == f"{0b010111001:03x}\n"


@pytest.mark.parametrize("value", [8, -5])
def test_words_that_do_not_fit_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="not fit in 3 bits"):
        hex_words([value], 3)
    with pytest.raises(ValueError, match="not fit in 3 bits"):
        packed_words(np.array([[0, value]]), 3)


def test_files_stay_in_the_folder_of_the_run() -> None:
    with pytest.raises(ValueError, match="plain file name"):
        Bench(top="bench", sources={"../bench.v": ""})


def test_verdicts() -> None:
    assert read_verdict("noise\nPASS cycles=12\n") == Verdict(passed=True, cycles=12)
    failed = read_verdict("FAIL word 3: 00\nPASS cycles=12\n")
    assert failed == Verdict(passed=False, cycles=None, failures=("FAIL word 3: 00",))
    miscounted = "FAIL cycles=12, expected 13"
    assert read_verdict(f"{miscounted}\n") == Verdict(
        passed=False, cycles=12, failures=(miscounted,)
    )
    assert read_verdict(f"FAIL word 3: 00\n{miscounted}\n").cycles is None
    with pytest.raises(RuntimeError, match="no verdict"):
        read_verdict("nothing\n")


def test_a_test_bench_runs_in_icarus() -> None:
    need("iverilog", "vvp")
    assert run_bench(counter(-2)) == Verdict(passed=True, cycles=5)
    failed = run_bench(counter(3))
    assert not failed.passed
    assert failed.failures == ("FAIL word 1: 03",)


def test_a_process_code_that_contradicts_the_verdict_is_a_bug() -> None:
    need("iverilog", "vvp")
    silent = COUNTER.replace("$finish_and_return(1)", "$finish")
    with pytest.raises(RuntimeError, match="the process code is 0"):
        run_bench(counter(3, silent))


def test_a_test_bench_runs_in_verilator(full: bool) -> None:
    if not full:
        pytest.skip("compiles for seconds; runs with --full")
    need("verilator")
    text = COUNTER.replace("$finish_and_return(1)", "$stop")
    assert run_bench(counter(-2, text), simulator="verilator") == Verdict(passed=True, cycles=5)


def test_a_run_without_end_is_stopped() -> None:
    need("iverilog", "vvp")
    endless = "module bench; reg c = 0; always #1 c = ~c; endmodule"
    with pytest.raises(ResourceLimit, match="ran longer than"):
        run_bench(counter(1, endless), time_limit_s=0.3)


def test_verilog_that_does_not_compile_is_a_bug() -> None:
    need("iverilog", "vvp")
    with pytest.raises(RuntimeError, match="iverilog ended with"):
        run_bench(counter(1, "module bench; wire; endmodule"))


@pytest.mark.parametrize("program", ["iverilog", "yosys", "verilator"])
def test_a_missing_program_says_how_to_install_it(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationInvalid) as caught:
        find_program(program)
    assert caught.value.exit_code == 7
    assert f"apt-get install {program}" in str(caught.value)


def test_a_family_without_generator_is_refused_with_the_list() -> None:
    with pytest.raises(Unsupported, match=r"roofline.*systolic_os, systolic_ws, ternary_engine"):
        generator_for("roofline")
    assert set(list_generators()) >= {"systolic_os", "systolic_ws", "ternary_engine"}


def test_a_placeholder_without_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        module_text("systolic_ws")


def test_cells_count_as_what_they_occupy() -> None:
    # By hand from the library guides: SRL16E one table, RAM32M four; RAMB36E1 two of 18 Kib.
    cells = {"LUT2": 3, "LUT6": 4, "SRL16E": 2, "RAM32M": 1, "DSP48E1": 5, "FDRE": 7, "INV": 9}
    found = count_cells(cells | {"RAMB36E1": 1, "RAMB18E1": 1, "MUXF7": 6}, "Yosys 0")
    assert (found.lut, found.dsp, found.flip_flops, found.bram18) == (13, 5, 7, 3)


def test_cell_counts_are_read_from_the_design_as_a_whole() -> None:
    text = 'noise\n{"modules": {}, "design": {"num_cells_by_type": {"LUT2": 3}}}'
    assert read_counts(text) == {"LUT2": 3}
    with pytest.raises(RuntimeError, match="no cell counts"):
        read_counts("{}")
