"""Every tolerance that a test compares with, and why it is that large.

Integer codes are compared with ``==``; nothing here is for them.
"""

FLOAT64_ROUND_TRIP = 1e-10
"""Decompose and rebuild in float64: a few hundred roundings of 2^-53 on values near 1."""

FLOAT32_GRAPH_RELATIVE_L2 = 1e-5
"""The same float32 graph, written in two ways: another order of summation in each operator."""

FLOAT32_FULL_RANK_RELATIVE_L2 = 1e-4
"""A layer against its full-rank chain in float32: factors are rounded to float32 once more."""

OPTIMIZED_WEIGHTS_ONLY_RELATIVE_L2 = 1e-5
"""Optimised against unoptimised onnxruntime, float operators."""

OPTIMIZED_INT8_RELATIVE_L2 = 1e-2
"""Likewise with fused int8 kernels, which round at other places."""

OPTIMIZED_INT8_TOP1_AGREEMENT = 0.995
"""Share of samples on which fused int8 kernels keep the largest output."""

EIGHT_BIT_RELATIVE_L2 = 0.05
"""Weights rounded to 8 bits per channel: half a step of 1/127 of the largest weight, 0.4 % of it.
A channel with one outlier among weights ten times smaller has ten times that error."""

INTERPRETER_RELATIVE = 1e-5
"""A graph in torch against onnxruntime, both float32: largest difference of an output, as a share
of its largest entry (of 1 where that is smaller). Another order of summation in each operator."""

INTERPRETER_HALF_RELATIVE = 2.0**-9
"""Likewise with float16: onnxruntime keeps float32 between operators, torch rounds after each to
11 bits."""
