"""Ranks found while a network trains."""

from edgecompress.training.adaptation.adaptation import RankAdaptation, RankChange

__all__ = ["RankAdaptation", "RankChange"]
