"""An output-stationary systolic array: sums stay, activations and weights pass.

Element (i, j) gets tap t in cycle i + j + t, so the last of ``inner`` taps reaches the far corner
after height + width + inner - 2 cycles, on arrays that are not square too. In one column one sum is
complete in a cycle, and leaves on a bus along the column at once.

Source: that derivation; equal to SCALE-Sim v3 (github.com/scalesim-project/SCALE-Sim) but for its
count of the last cycle, on the layers of ResNet-18 (tests/unit/data/scalesim_resnet18.csv).
"""

from __future__ import annotations

from edgecompress.hardware.models._systolic import Systolic
from edgecompress.hardware.models._systolic_mappings import Dataflow
from edgecompress.hardware.timeline import ratio_up


def product_cycles(rows: int, inner: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Folds, and cycles of each, of a (rows x inner) (inner x columns) product.

    Each fold streams all taps through; its results leave as they are complete.
    """
    folds = ratio_up(rows, height) * ratio_up(columns, width)
    return folds, height + width + inner - 2


FAMILY = Systolic(Dataflow("sums", product_cycles))
