"""A weight-stationary systolic array: weights stay, activations pass, sums move down.

Weights move in from the top in ``height`` cycles. Row i gets its part of an input i cycles late,
so the sum of the last of ``rows`` inputs leaves the last column rows + height + width - 2 cycles
later.

Source: that derivation; equal to SCALE-Sim v3 (github.com/scalesim-project/SCALE-Sim) but for its
count of the last cycle, on the layers of ResNet-18 (tests/unit/data/scalesim_resnet18.csv).
"""

from __future__ import annotations

from edgecompress.hardware.models._systolic import Systolic
from edgecompress.hardware.models._systolic_mappings import Dataflow
from edgecompress.hardware.timeline import ratio_up


def product_cycles(rows: int, inner: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Folds, and cycles of each, of a (rows x inner) (inner x columns) product.

    Each fold loads its weights, then streams all rows through.
    """
    folds = ratio_up(inner, height) * ratio_up(columns, width)
    return folds, 2 * height + width + rows - 2


FAMILY = Systolic(Dataflow("weights", product_cycles))
