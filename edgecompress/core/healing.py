"""What healing a decomposed graph did, for the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """What training a decomposed graph on the outputs of the float model did.

    Attributes:
        measure: Distance between the two models on samples held back: ``kl`` (of the score
            vectors, in nats) or ``relative-l2``.
        before, after: That distance; of the same ranks where these fell.
        agreement_before, agreement_after: Share of held-back samples whose largest score is at
            the same place; None without a score vector.
        samples, held_back: Samples trained on, and held back.
        epochs: Passes over the data that were made.
        best: The pass whose weights were kept; 0: the weights before healing.
        steps: Steps of the optimiser.
        seconds: Time that it took.
        slices: Parts of the graph that were trained on their own first.
        note: In words; empty if there is nothing to say.
    """

    measure: str
    before: float
    after: float
    agreement_before: float | None
    agreement_after: float | None
    samples: int
    held_back: int
    epochs: int
    best: int
    steps: int
    seconds: float
    slices: int
    note: str = ""
