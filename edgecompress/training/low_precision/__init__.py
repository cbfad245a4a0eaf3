"""Training with factors, activations and gradients of a few bits."""

from edgecompress.training.low_precision.apply import (
    apply_precision,
    bake_precision,
    factor_bits_at,
    use_factor_bits,
)
from edgecompress.training.low_precision.optimizer import PreciseOptimizer
from edgecompress.training.low_precision.storage import dense_bits, stored_bits

__all__ = [
    "PreciseOptimizer",
    "apply_precision",
    "bake_precision",
    "dense_bits",
    "factor_bits_at",
    "stored_bits",
    "use_factor_bits",
]
