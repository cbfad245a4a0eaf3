"""Energy per event of many targets side by side, for explorations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.work import Work
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import multiplication_pj


class EnergyRates:
    """What `target.Energy` says of each of some targets, NaN where it is not known.

    Attributes:
        on_chip_pj_per_byte, dram_pj_per_byte, static_w: (targets,).
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        found = [target.energy for target in targets]
        self.on_chip_pj_per_byte = np.array(
            [np.nan if one is None else one.on_chip_pj_per_byte for one in found]
        )
        self.dram_pj_per_byte = np.array(
            [np.nan if one is None else one.dram_pj_per_byte for one in found]
        )
        self.static_w = np.array([np.nan if one is None else one.static_w for one in found])
        alike: dict[tuple[int | None, int, int], list[int]] = {}
        for place, target in enumerate(targets):
            bits = target.weight_stream.weight_bits
            key = (target.activation_bits, bits, id(target.energy))
            alike.setdefault(key, []).append(place)
        self._alike = [(targets[places[0]], np.array(places)) for places in alike.values()]

    def nothing(self) -> FloatArray:
        """Of an operator that takes no time: 0, or NaN where nothing is known."""
        return np.where(np.isnan(self.static_w), np.nan, 0.0)

    def multiplication_pj(self, work: Work) -> FloatArray:
        """Energy of one multiplication of an operator on each target."""
        found = self.nothing()
        for target, places in self._alike:
            found[places] += multiplication_pj(work, target)
        return found
