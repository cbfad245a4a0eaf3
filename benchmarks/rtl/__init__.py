"""Generated Verilog against the simulators (cycles, values) and the model of its resources."""
