"""A weight-stationary systolic array: weights stay, activations pass, sums move down.

Source: equal to SCALE-Sim v3 (github.com/scalesim-project/SCALE-Sim) but for its count of the
last cycle, on the layers of ResNet-18 (tests/unit/data/scalesim_resnet18.csv), and to a Verilog
array of our own in simulation.
"""

from __future__ import annotations

from edgecompress.core.work import Cost, Work
from edgecompress.hardware.models import _systolic
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import ratio_up


def product_cycles(rows: int, inner: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Folds, and cycles of each, of a (rows x inner) (inner x columns) product.

    Each fold loads its weights, then streams all rows through.
    """
    folds = ratio_up(inner, height) * ratio_up(columns, width)
    return folds, 2 * height + width + rows - 2


class SystolicWs:
    """The cost model; see the module."""

    parameters = _systolic.Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        return _systolic.price(work, target, product_cycles)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping can go below."""
        return _systolic.bound_cycles(work, target)

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1


FAMILY = SystolicWs()
