"""An output-stationary systolic array: sums stay, activations and weights pass.

Source: equal to SCALE-Sim v3 (github.com/scalesim-project/SCALE-Sim) but for its count of the
last cycle, on the layers of ResNet-18 (tests/unit/data/scalesim_resnet18.csv).
"""

from __future__ import annotations

from edgecompress.hardware.models import _systolic
from edgecompress.hardware.timeline import ratio_up


def product_cycles(rows: int, inner: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Folds, and cycles of each, of a (rows x inner) (inner x columns) product.

    Each fold streams all taps through, then moves its results out.
    """
    folds = ratio_up(rows, height) * ratio_up(columns, width)
    return folds, height + width + inner - 2


FAMILY = _systolic.Systolic(product_cycles)
