"""Training of tensorized networks: what was asked, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from edgecompress.core.options import FixedRanks, LayerRule, ParameterRatio

Prior = Literal["log-uniform", "half-cauchy"]
Inference = Literal["map", "bayesian"]
Rounding = Literal["nearest", "stochastic"]
TrainingOptimizer = Literal["adam", "adamw", "sgd", "momentum", "zeroth-order", "spsa"]

LEARNING_RATE = 2e-3
"""At the start, of optimisers that follow a gradient. Source: a choice."""

WHOLE_STEP = 1.0
"""At the start, of ``zeroth-order``, whose step has a length of its own.

Source: the Gauss-Newton step (Levenberg 1944)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorizeOptions:
    """How the layers of a network become factors.

    Attributes:
        format: ``ttm``, ``tt``, ``cp``, ``tucker``, ``auto`` or ``none`` (train dense).
        ranks: Ranks to start from: the same for all bonds, or what leaves this share of a layer's
            parameters; None: the largest that are useful under the format's own ceiling.
        cores: Cores of a factorization; None: the format's own choice.
        rules: Exceptions by layer, first match wins.
        minimum_saving: A layer stays dense when its factors would save a smaller share, 0 to 1.
    """

    format: str = "auto"
    ranks: FixedRanks | ParameterRatio | None = None
    cores: int | None = None
    rules: tuple[LayerRule, ...] = ()
    minimum_saving: float = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """When ranks fall, as shares of the run.

    Attributes:
        begin: From here on they may.
        whole: From here on the penalty has its whole weight.
        settle: From here on they stay.
    """

    begin: float
    whole: float
    settle: float

    @property
    def why_not(self) -> str | None:
        """Why ranks could never fall; None: they can."""
        if self.begin < self.settle:
            return None
        return f"settle {self.settle:g} is not after warm_up begins at {self.begin:g}"


TO_SIZE = Schedule(0.02, 0.2, 0.3)
"""Towards a number of parameters: early, so that most of the run goes to the ranks that stay.

Source: measured, benchmarks/training/fashion_mnist.py: settling at 0.3 and not at 0.75 raised the
accuracy on held-back images from 89.0 to 89.4 % (tensor-train matrix, 30 times fewer parameters,
three seeds)."""

TO_LOSS = Schedule(0.4, 0.5, 0.8)
"""Without such a number: once most of the loss has come down, as what falls anyway would hide what
smaller ranks cost. Source: a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptationOptions:
    """How ranks are found during training.

    Attributes:
        prior: Hyper-prior on the standard deviation of a rank's slices.
        scale: Scale eta of the half-Cauchy prior.
        inference: ``map``: factors are points; ``bayesian``: factors are sampled.
        strength: Weight of the penalty in units of 1/N, N training samples, before the controller
            changes it; 1 is the exact posterior.
        target_params: Parameters of the whole network that the controller drives to; None: none.
        loss_tolerance: Share by which the loss may rise for smaller ranks; None: no such limit.
        warm_up: Shares of the run at which the penalty begins and is whole; None: as the goal
            wants it.
        settle: Share of the run after which ranks no longer change; None: as the goal wants it.
        balance_epochs: The gauge is balanced and ranks are cut every so many epochs.
        cut_at: A rank dies when its singular value is below this share of its bond's largest.
        floor: The least rank of a bond.
    """

    prior: Prior = "log-uniform"
    scale: float = 0.1
    inference: Inference = "map"
    strength: float = 0.03
    target_params: int | None = None
    loss_tolerance: float | None = None
    warm_up: tuple[float, float] | None = None
    settle: float | None = None
    balance_epochs: int = 1
    cut_at: float = 1e-2
    floor: int = 1

    @property
    def schedule(self) -> Schedule:
        """When the penalty begins, when it is whole, and when ranks settle."""
        goal = TO_SIZE if self.target_params is not None else TO_LOSS
        begin, whole = self.warm_up or (goal.begin, goal.whole)
        return Schedule(begin, whole, goal.settle if self.settle is None else self.settle)

    def scheduled(self) -> AdaptationOptions:
        """The same with the schedule spelled out."""
        at = self.schedule
        return replace(self, warm_up=(at.begin, at.whole), settle=at.settle)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionOptions:
    """Widths of what a device would store while it trains.

    Attributes:
        factor_bits: Of factors in the forward and backward pass, 3 to 8.
        activation_bits: Of activations, merged halves and biases.
        gradient_bits: Of gradients of activations and of factors.
        master_bits: Of the finer copy that updates are added to: 32 (float), 8 to 16 (fixed point,
            stochastic rounding), 0: none, updates go to the factors themselves.
        state_bits: Of an entry of the optimiser's state: 32 (float) or 16 (bfloat16).
        rounding: Of factors and gradients.
        wide_share: Share of the steps, at the start, in which factors are 8 bits wide; of no effect
            without masters, as the parameters are the codes then. Three quarters: of 0, a half and
            three quarters it left the least training loss on Fashion-MNIST, one run each; accuracy
            on 10,000 held-back images differed by less than runs do.
    """

    factor_bits: int = 4
    activation_bits: int = 8
    gradient_bits: int = 16
    master_bits: int = 32
    state_bits: int = 32
    rounding: Rounding = "nearest"
    wide_share: float = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """One training run.

    Attributes:
        tensorize: How layers become factors.
        adaptation: None: ranks stay as they start.
        precision: None: float32 throughout.
        optimizer: Two train without back-propagation: ``zeroth-order`` finds each step from the
            outputs at parameters perturbed along a few random directions; ``spsa`` (simultaneous
            perturbation) needs losses alone, less memory and many more steps.
        learning_rate: At the start; it falls to zero along half a cosine. None: `LEARNING_RATE`, or
            `WHOLE_STEP` of zeroth-order training, where it is a share of the step.
        weight_decay: Of dense parameters; factors have their prior.
        epochs: Passes over the training data.
        batch: Samples of a step, over all processes.
        validation: Share of the training data held back to judge by, 0 to below 1.
        patience: Epochs without a better validation loss before the run ends; None: never.
        seed: Of everything random.
    """

    tensorize: TensorizeOptions = field(default_factory=TensorizeOptions)
    adaptation: AdaptationOptions | None = field(default_factory=AdaptationOptions)
    precision: PrecisionOptions | None = None
    optimizer: TrainingOptimizer = "adam"
    learning_rate: float | None = None
    weight_decay: float = 0.0
    epochs: int = 20
    batch: int = 128
    validation: float = 0.1
    patience: int | None = None
    seed: int = 0

    @property
    def rate(self) -> float:
        """The learning rate at the start."""
        if self.learning_rate is not None:
            return self.learning_rate
        return WHOLE_STEP if self.optimizer == "zeroth-order" else LEARNING_RATE

    @property
    def forward_only(self) -> bool:
        """Whether there is no backward pass."""
        return self.optimizer in ("zeroth-order", "spsa")
