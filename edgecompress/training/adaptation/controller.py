"""How hard the penalty presses, epoch by epoch, until the network has its size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan

from edgecompress.core.training import AdaptationOptions

GROWTH = 4.0
"""Factor by which the strength rises from its start until ranks settle while there is something to
give up; trimming does the rest. Source: measured, benchmarks/training/fashion_mnist.py: from 0.3
to about four times that, held-back loss was 0.306 against 0.313 without a penalty (one seed). A
strength that rose until the penalty alone reached the target lost 0.5 points of held-back accuracy
(two seeds)."""
RETREAT = 0.5
"""Factor by which it falls in an epoch that must press less, and by which parameters fall more
slowly after a loss out of bounds. Source: our choice."""
RANGE = 1e3
"""Most by which the strength leaves its start, either way. Source: tensors of up to a thousand
samples to a parameter need about so much; beyond it every rank would die."""
STEEPNESS = 3
"""Power of the fall of the ceiling: most goes early, while the rates are high. Source: the
schedule of Zhu and Gupta 2017 (arXiv:1710.01878)."""
FALL = 10.0
"""How many times fewer parameters a loss that never leaves its bounds leads to. Source: our
choice."""
PATIENCE = 2
"""Looks in a row at a loss out of bounds after which the last cut is taken back. Source: our
choice."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """What a controller remembers.

    Attributes:
        strength: Weight of the penalty in units of 1/N, warm-up left out.
        reference: The least loss seen that is a number; None: none yet.
        start: Parameters when pressing began; None: not yet.
        seen: Share of the run at the last look.
        pace: Share of its speed at which parameters fall towards a loss.
        allowed: Parameters allowed by the loss; None: as many as there are.
        outside: Looks in a row at a loss out of bounds.
    """

    strength: float
    reference: float | None = None
    start: int | None = None
    seen: float = 0.0
    pace: float = 1.0
    allowed: int | None = None
    outside: int = 0

    @property
    def in_bounds(self) -> bool:
        """Whether the last loss was within the tolerance; always without one."""
        return self.outside == 0


class Controller:
    """Decides the weight of the penalty and the parameters allowed at each moment.

    A size target lets the parameters fall along a ceiling to the target until ranks settle; the
    strength rises until the target is reached, and falls from there. A loss tolerance lets both go
    on, the parameters by a constant factor per epoch, while the loss stays within its share of the
    least loss seen; out of bounds nothing is given up, the strength falls, the parameters fall half
    as fast afterwards, and what was given up last is to be taken back when the loss stays there.
    With both, the ceiling is that of the target, a loss out of bounds
    stops the trimming, and the strength follows whichever relative gap is larger.

    Args:
        options: What was asked.

    Source: the switch on relative gaps of CoMERA (Yang et al. 2024, arXiv:2405.14377).
    """

    def __init__(self, options: AdaptationOptions) -> None:
        self.options = options
        self.schedule = options.schedule
        self.state = ControllerState(strength=options.strength)

    @property
    def limited(self) -> bool:
        """Whether a size or a loss decides how far ranks fall, and not the prior alone."""
        return self.options.target_params is not None or self.options.loss_tolerance is not None

    def weight(self, progress: float) -> float:
        """Weight of the penalty, in units of 1/N, at this share of the run."""
        begin, whole = self.schedule.begin, self.schedule.whole
        if progress < begin or progress >= self.schedule.settle:
            return 0.0
        if progress >= whole:
            return self.state.strength
        return self.state.strength * (progress - begin) / (whole - begin)

    def pressing(self, progress: float) -> bool:
        """Whether ranks may fall at this share of the run."""
        return progress >= self.schedule.begin

    def ceiling(self, progress: float) -> int | None:
        """Parameters allowed at this share of the run; None: any number."""
        target, start = self.options.target_params, self.state.start
        if start is None or not self.state.in_bounds:
            return None
        if target is None:
            return self.state.allowed
        begin, settle = self.schedule.begin, self.schedule.settle
        passed = (progress - begin) / max(settle - begin, 1e-9)
        left = (1 - min(max(passed, 0.0), 1.0)) ** STEEPNESS
        return target + int(max(start - target, 0) * left)

    def observe(self, progress: float, parameters: int, loss: float) -> None:
        """Take an epoch's facts and set strength and ceiling for the next."""
        old = self.state
        seen = [value for value in (old.reference, loss) if value is not None and not isnan(value)]
        reference = min(seen, default=None)
        outside = 0 if self._bearable(loss, reference) else old.outside + 1
        self.state = replace(old, reference=reference, seen=progress, outside=outside)
        if not self.pressing(progress):
            return
        span = max(self.schedule.settle - self.schedule.begin, 1e-9)
        passed = (progress - max(old.seen, self.schedule.begin)) / span
        strength = old.strength * self._factor(passed, parameters, loss)
        first = self.options.strength
        pace = old.pace * RETREAT if outside == 1 else old.pace
        self.state = replace(
            self.state,
            start=parameters if old.start is None else old.start,
            strength=min(max(strength, first / RANGE), first * RANGE),
            pace=pace,
            allowed=self._next_size(progress, passed * pace, parameters, old.allowed),
        )

    def takes_back(self, progress: float) -> bool:
        """Whether the loss has been out of bounds for too long, or no time is left to wait."""
        last = progress >= self.schedule.settle
        return self.state.outside >= (1 if last else PATIENCE)

    def _bearable(self, loss: float, reference: float | None) -> bool:
        tolerance = self.options.loss_tolerance
        return tolerance is None or (reference is not None and loss <= reference * (1 + tolerance))

    def _next_size(
        self, progress: float, passed: float, parameters: int, allowed: int | None
    ) -> int | None:
        """Parameters that the loss allows in the next epoch; None: nothing is to be given up."""
        last = progress >= self.schedule.settle  # nobody would judge what is given up then
        if self.options.loss_tolerance is None or not self.state.in_bounds or last:
            return None
        # What was allowed may not have been trimmed yet: ranks are cut every so many epochs.
        size = parameters if allowed is None else min(parameters, allowed)
        return int(size * FALL**-passed)

    def _factor(self, passed: float, parameters: int, loss: float) -> float:
        """By how much the strength changes after this share of the time that ranks fall in."""
        target, tolerance = self.options.target_params, self.options.loss_tolerance
        if not self.limited:
            return 1.0
        if target is not None and parameters <= target:
            return RETREAT
        if tolerance is not None and not self.state.in_bounds:
            allowed = (self.state.reference or 0.0) * (1 + tolerance)
            loss_gap = (loss - allowed) / max(abs(loss), 1e-12)
            size_gap = 0.0 if target is None else (parameters - target) / parameters
            return RETREAT if loss_gap >= size_gap else 1.0
        return float(GROWTH**passed)
