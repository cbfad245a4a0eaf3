"""An input-stationary systolic array: inputs stay, weights pass, sums move down.

The weight-stationary array with the operands in each other's place: its columns hold pixels, and
the weights of one output channel after the other stream through.

Source: the derivation in ``systolic_ws`` with rows and columns of the product exchanged;
dataflow as in SCALE-Sim (github.com/scalesim-project/SCALE-Sim).
"""

from __future__ import annotations

from edgecompress.hardware.models._systolic import Systolic
from edgecompress.hardware.models._systolic_mappings import Dataflow
from edgecompress.hardware.timeline import ratio_up


def product_cycles(rows: int, inner: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Folds, and cycles of each, of a (rows x inner) (inner x columns) product.

    Each fold loads its inputs, then streams the weights of all columns through.
    """
    folds = ratio_up(inner, height) * ratio_up(rows, width)
    return folds, 2 * height + width + columns - 2


FAMILY = Systolic(Dataflow("inputs", product_cycles))
