"""The smallest ranks that keep a share of the energy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.errors import ConfigurationInvalid


def energy_ranks(spectra: Sequence[FloatArray], share: float) -> tuple[int, ...]:
    """For each bond the smallest rank that keeps ``share`` of the sum of its energies.

    Args:
        spectra: Squared singular values of each bond, falling.
        share: Above 0, at most 1.

    Returns:
        At least 1 for each bond; 1 where all energies are zero.

    Raises:
        ConfigurationInvalid: The share is out of range.
    """
    if not 0 < share <= 1:
        raise ConfigurationInvalid(f"energy {share}", hint="a share above 0, at most 1")
    ranks = []
    for energies in spectra:
        kept = np.cumsum(energies)
        enough = kept >= share * kept[-1] * (1 - 1e-12)
        ranks.append(int(np.argmax(enough)) + 1)
    return tuple(ranks)


def lost_energy(spectra: Sequence[FloatArray], ranks: Sequence[int]) -> float:
    """Share of the energy that truncation loses, summed over bonds, 0 to 1.

    It bounds the squared relative error from above.

    Source: De Lathauwer et al. 2000, property 10 (HOSVD).
    """
    lost = 0.0
    for energies, rank in zip(spectra, ranks, strict=True):
        total = float(np.sum(energies))
        lost += float(np.sum(energies[rank:])) / total if total > 0 else 0.0
    return min(1.0, lost)
