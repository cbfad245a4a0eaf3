"""How hard the penalty presses, epoch by epoch, until the network has its size."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.training import AdaptationOptions

GROWTH_TO_SIZE = 4.0
"""Factor by which the strength rises from its start until ranks settle while the network stays too
large; trimming does the rest. Source: measured, benchmarks/training/fashion_mnist.py: from 0.3 to
about four times that, held-back loss was 0.306 against 0.313 without a penalty (one seed)."""
GROWTH_TO_LOSS = 100.0
"""The same where the loss alone decides how small the network becomes. Source: our choice."""
RETREAT = 0.5
"""Factor by which it falls in an epoch that must press less. Source: our choice."""
RANGE = 1e3
"""Most by which the strength leaves its start, either way. Source: tensors of up to a thousand
samples to a parameter need about so much; beyond it every rank would die."""
STEEPNESS = 3
"""Power of the fall of the ceiling: most goes early, while the rates are high. Source: the
schedule of Zhu and Gupta 2017 (arXiv:1710.01878)."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """What a controller remembers.

    Attributes:
        strength: Weight of the penalty in units of 1/N, warm-up left out.
        reference: The least loss seen; None: none yet.
        start: Parameters when pressing began; None: not yet.
        seen: Share of the run at the last look.
    """

    strength: float
    reference: float | None = None
    start: int | None = None
    seen: float = 0.0


class Controller:
    """Decides the weight of the penalty and the parameters allowed at each moment.

    A size target lets the parameters fall along a ceiling to the target at `settle`; the strength
    rises until the target is reached, and falls from there. A loss tolerance lets the strength
    rise while the loss stays within its share of the least loss seen, and fall otherwise. With
    both, a loss out of bounds stops the trimming, and the strength follows whichever relative gap
    is larger.

    Args:
        options: What was asked.

    Source: the switch on relative gaps of CoMERA (Yang et al. 2024, arXiv:2405.14377).
    """

    def __init__(self, options: AdaptationOptions) -> None:
        self.options = options
        self.state = ControllerState(strength=options.strength)
        self._in_bounds = True

    def weight(self, progress: float) -> float:
        """Weight of the penalty, in units of 1/N, at this share of the run."""
        begin, whole = self.options.warm_up
        if progress < begin or progress >= self.options.settle:
            return 0.0
        if progress >= whole:
            return self.state.strength
        return self.state.strength * (progress - begin) / (whole - begin)

    def pressing(self, progress: float) -> bool:
        """Whether ranks may fall at this share of the run."""
        return progress >= self.options.warm_up[0]

    def ceiling(self, progress: float) -> int | None:
        """Parameters allowed at this share of the run; None: any number."""
        target = self.options.target_params
        start = self.state.start
        if target is None or start is None or not self._in_bounds:
            return None
        begin = self.options.warm_up[0]
        passed = (progress - begin) / max(self.options.settle - begin, 1e-9)
        left = (1 - min(max(passed, 0.0), 1.0)) ** STEEPNESS
        return target + int(max(start - target, 0) * left)

    def observe(self, progress: float, parameters: int, loss: float) -> None:
        """Take an epoch's facts and set the strength for the next."""
        reference = self.state.reference
        reference = loss if reference is None else min(reference, loss)
        start = self.state.start
        if start is None and self.pressing(progress):
            start = parameters
        since = max(self.state.seen, self.options.warm_up[0])
        self.state = ControllerState(self.state.strength, reference, start, progress)
        self._in_bounds = self._allowed(loss)
        if self.pressing(progress):
            factor = self._factor(progress - since, parameters, loss)
            first = self.options.strength
            strength = min(max(self.state.strength * factor, first / RANGE), first * RANGE)
            self.state = ControllerState(strength, reference, start, progress)

    def restore(self, state: ControllerState, *, in_bounds: bool) -> None:
        """Continue from a checkpoint."""
        self.state = state
        self._in_bounds = in_bounds

    @property
    def in_bounds(self) -> bool:
        """Whether the last loss was within the tolerance; always without one."""
        return self._in_bounds

    def _allowed(self, loss: float) -> bool:
        tolerance, reference = self.options.loss_tolerance, self.state.reference
        return tolerance is None or reference is None or loss <= reference * (1 + tolerance)

    def _factor(self, passed: float, parameters: int, loss: float) -> float:
        """By how much the strength changes after this share of the run."""
        target, tolerance = self.options.target_params, self.options.loss_tolerance
        if target is None and tolerance is None:
            return 1.0
        if target is not None and parameters <= target:
            return RETREAT
        if tolerance is not None and not self._in_bounds:
            allowed = (self.state.reference or 0.0) * (1 + tolerance)
            loss_gap = (loss - allowed) / max(abs(loss), 1e-12)
            size_gap = 0.0 if target is None else (parameters - target) / parameters
            return RETREAT if loss_gap >= size_gap else 1.0
        whole = GROWTH_TO_LOSS if target is None else GROWTH_TO_SIZE
        span = max(self.options.settle - self.options.warm_up[0], 1e-9)
        return float(whole ** (passed / span))
