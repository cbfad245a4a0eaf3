"""Input data for a model: calibration or test samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgecompress.core.arrays import Array

Feed = Mapping[str, Array]
"""One inference: an array per graph input, batch axis included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples that fit a model's inputs.

    Attributes:
        feeds: One per inference, each at the model's own batch size (or a larger batch where the
            batch axis is open).
        labels: (n,) class numbers, or None.
        count: Number of samples over all feeds.
        source: What they are, in words, for the report (``random:SEED`` says so loudly).
        sha256: Of the data as read; of the seed for random data.
        warnings: What looks off about them without being wrong.
    """

    feeds: tuple[Feed, ...]
    labels: Array | None
    count: int
    source: str
    sha256: str
    warnings: tuple[str, ...] = ()
