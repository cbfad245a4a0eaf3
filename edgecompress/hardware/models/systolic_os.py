"""An output-stationary systolic array: sums stay, activations and weights pass.

Source: equal to SCALE-Sim v3 (github.com/scalesim-project/SCALE-Sim) but for its count of the
last cycle, on the layers of ResNet-18 (tests/unit/data/scalesim_resnet18.csv).
"""

from __future__ import annotations

from edgecompress.core.work import Cost, Work
from edgecompress.hardware.models import _systolic
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import ratio_up


def product_cycles(rows: int, inner: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Folds, and cycles of each, of a (rows x inner) (inner x columns) product.

    Each fold streams all taps through, then moves its results out.
    """
    folds = ratio_up(rows, height) * ratio_up(columns, width)
    return folds, height + width + inner - 2


class SystolicOs:
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


FAMILY = SystolicOs()
