"""Priors on a rank's variance: closed-form best variances and what they cost."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from edgecompress.core.training import Prior

FLOOR_SHARE = 1e-12
"""Least variance of a rank as a share of its bond's largest: a slice that is exactly zero would
make 0/0 of its penalty. Source: smallest share whose square root float32 still resolves."""


def best_variances(energy: Tensor, entries: int, prior: Prior, scale: float) -> Tensor:
    """Variances that minimise `slice_objective`, slice by slice.

    With s the standard deviation, D ``entries`` and M ``energy``, the stationary point of
    D log s + M / (2 s^2) + h(s), where h = log s (log-uniform, p(s) ~ 1/s) or
    h = log(1 + s^2/eta^2) (half-Cauchy of scale eta):
    M / (D + 1), or the positive root of
    (D + 2) v^2 + (D eta^2 - M) v - M eta^2 = 0.

    Args:
        energy: (rank,) sums of the squares (means squared plus variances) of a slice's entries.
        entries: Entries of one slice.
        prior: The hyper-prior.
        scale: eta of the half-Cauchy prior.

    Returns:
        (rank,), at least `FLOOR_SHARE` of the largest and above zero.

    Source: stationary points of the stated objective; the method of Hawkins, Liu and Zhang 2022
    (arXiv:2010.08689).
    """
    match prior:
        case "log-uniform":
            variances = energy / (entries + 1)
        case "half-cauchy":
            eta2 = scale**2
            half = energy - entries * eta2
            root = torch.sqrt(half.square() + 4 * (entries + 2) * eta2 * energy)
            # The form without cancellation on each side of half = 0.
            variances = torch.where(
                half > 0,
                (half + root) / (2 * (entries + 2)),
                2 * eta2 * energy / (root - half),
            )
        case _:
            assert_never(prior)
    return floored(variances)


def floored(variances: Tensor) -> Tensor:
    """(rank,) with each at least `FLOOR_SHARE` of the largest, and above zero."""
    tiny = torch.finfo(variances.dtype).tiny
    return torch.maximum(variances, (FLOOR_SHARE * variances.max()).clamp_min(tiny))


def slice_objective(
    variances: Tensor, energy: Tensor, entries: int, prior: Prior, scale: float
) -> Tensor:
    """Negative log density of each slice with its variance, constants left out; (rank,).

    D log s + M / (2 s^2) + h(s), as `best_variances` minimises it.
    """
    fit = 0.5 * entries * variances.log() + 0.5 * energy / variances
    match prior:
        case "log-uniform":
            return fit + 0.5 * variances.log()
        case "half-cauchy":
            return fit + torch.log1p(variances / scale**2)
        case _:
            assert_never(prior)
