"""Sums of products over the columns that enter a layer and what it should give for them."""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import Array, FloatArray

LEAST_SPREAD = 1e-3
"""Share of the power about the mean below which products are summed again about the mean: they
are in float32, whose 1e-7 of the power would be more than 1e-4 of the spread."""


class ColumnSums:
    """Sums over columns about a point that is known, float64.

    Args:
        about_x: (groups, 1, columns).
        about_y: (groups, 1, rows).

    Attributes:
        about: The point, float32.
        gram: Of x with x, (groups, columns, columns).
        cross: Of y with x, (groups, rows, columns).
        x, y: (groups, columns) and (groups, rows).
        energy: Of y with itself.
        count: Number of columns.
    """

    def __init__(self, about_x: FloatArray, about_y: FloatArray) -> None:
        groups, _, columns = about_x.shape
        rows = about_y.shape[2]
        self.about = about_x.astype(np.float32), about_y.astype(np.float32)
        self.gram = np.zeros((groups, columns, columns))
        self.cross = np.zeros((groups, rows, columns))
        self.x, self.y = np.zeros((groups, columns)), np.zeros((groups, rows))
        self.energy = 0.0
        self.count = 0

    def add(self, raw_x: Array, raw_y: Array) -> None:
        """Columns (groups, count, columns) and outputs (groups, count, rows)."""
        x = raw_x.astype(np.float32, copy=False) - self.about[0]
        y = raw_y.astype(np.float32, copy=False) - self.about[1]
        self.gram += np.swapaxes(x, 1, 2) @ x
        self.cross += np.swapaxes(y, 1, 2) @ x
        self.x += x.sum(axis=1, dtype=np.float64)
        self.y += y.sum(axis=1, dtype=np.float64)
        self.energy += float(np.square(y, dtype=np.float64).sum())
        self.count += x.shape[1]

    def mostly_mean(self) -> bool:
        """Whether the mean is so large that taking it out afterwards leaves rounding errors."""
        power = float(np.einsum("gkk->", self.gram))
        mean = float(np.square(self.x).sum()) / max(self.count, 1)
        return np.isfinite(power) and power > 0 and power - mean < LEAST_SPREAD * power

    def means(self) -> tuple[FloatArray, FloatArray]:
        """The mean column and the mean output about the point, (groups, ...)."""
        return self.x / self.count, self.y / self.count

    def about_mean(self) -> ColumnSums:
        """Empty sums about the mean that was found."""
        x, y = self.means()
        return ColumnSums(self.about[0] + x[:, None], self.about[1] + y[:, None])
