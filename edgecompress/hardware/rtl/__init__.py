"""Verilog of the arrays, with test benches that check themselves."""
