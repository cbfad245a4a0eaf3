"""A run under way: everything that changes from step to step, saved and restored as one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgecompress.core.errors import ConfigurationInvalid, DataInvalid, UsageError
from edgecompress.core.training import TrainOptions
from edgecompress.core.training_report import EpochRecord
from edgecompress.training.batches import Batches, TrainingData, hold_back
from edgecompress.training.checkpoint import (
    State,
    copied,
    fingerprint,
    put_tensors,
    tensors_of,
)
from edgecompress.training.distributed import Team, in_parallel
from edgecompress.training.progress import RunOptions
from edgecompress.training.schedule import Updater, make_optimizer
from edgecompress.training.sharding import gathered, spread_dense, spread_state
from edgecompress.training.signals import Pending
from edgecompress.training.tasks import Objective, Task, objective

if TYPE_CHECKING:
    from edgecompress.training.adaptation.adaptation import RankAdaptation


FLOAT_BITS = 32


@dataclass(slots=True)
class Place:
    """Where a run is; what is summed belongs to the epoch under way.

    Attributes:
        epoch: Whole epochs done.
        step: Steps done in the epoch under way.
        updates: Steps done in all.
        loss: Sum of batch losses, each times its terms.
        terms: Sum of terms.
        elapsed_s: Of earlier parts of the run.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    loss: float = 0.0
    terms: float = 0.0
    elapsed_s: float = 0.0


@dataclass(slots=True)
class Best:
    """The weights to go back to, and how long nothing was better.

    Attributes:
        epoch: From 1; 0: none yet.
        loss: Of validation.
        waited: Epochs since.
        tensors: Parameters and buffers; empty where nobody will ask for them.
    """

    epoch: int = 0
    loss: float = float("inf")
    waited: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Session:
    """All parts of a run.

    Attributes:
        network: Being trained.
        parallel: What batches go through: the network, or its wrapper for several processes.
        task: What it is trained for.
        judge: Loss and score.
        train: Samples to train on.
        held: Samples to judge by, None without.
        optimizer: Of all parameters.
        adaptation: Of the ranks, None where they stay.
        classes: Outputs that the targets need; 0 where they are no classes.
        outline: What takes the whole network where layers are spread over processes.
        pending: A signal that waits for the end of the step.
        heard: In how many of several processes one waited during the last step.
        factor_bits: Width of factors now; None: not set yet, or floats. Follows from the step.
    """

    network: nn.Module
    parallel: nn.Module
    task: Task
    judge: Objective
    train: Batches
    held: Batches | None
    optimizer: Updater
    adaptation: RankAdaptation | None
    options: TrainOptions
    run: RunOptions
    team: Team
    data_sha256: str
    classes: int
    place: Place = field(default_factory=Place)
    best: Best = field(default_factory=Best)
    history: list[EpochRecord] = field(default_factory=list)
    outline: nn.Module | None = None
    pending: Pending = field(default_factory=Pending)
    heard: Tensor | None = None
    stopped: str | None = None
    factor_bits: int | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-self.train.count // self.options.batch)

    @property
    def settled(self) -> bool:
        """Whether ranks and widths no longer change."""
        fixed = self.adaptation is None or self.adaptation.settled
        return fixed and self.bits_at(self.place.updates) == self.bits_at(None)

    def bits_at(self, step: int | None) -> int | None:
        """Width of factors at a step, counted from 0, or after the last (None); None: floats."""
        widths = self.options.precision
        if widths is None:
            return None
        from edgecompress.training.low_precision import factor_bits_at

        steps = self.steps * self.options.epochs
        return factor_bits_at(widths, steps if step is None else step, steps)

    def set_width(self, step: int | None) -> None:
        """Give factors the width of a step, in place."""
        bits = self.bits_at(step)
        if bits is None or bits == self.factor_bits:
            return
        from edgecompress.training.low_precision import use_factor_bits

        use_factor_bits(self.network, bits)
        self.factor_bits = bits

    def wrap(self) -> None:
        """Make the wrapper for several processes anew, in place: shapes have changed."""
        if self.parallel is not self.network:
            self.parallel = self.network  # the old wrapper goes first, with its hooks
            self.parallel = in_parallel(self.network, self.team)

    def key(self) -> dict[str, str]:
        """What a checkpoint of this run has to share with it."""
        return fingerprint(self.options, self.data_sha256, self.network)

    def state(self) -> State:
        """Everything, as plain data; with spread layers all processes call this."""
        return {
            "key": self.key(),
            "tensors": gathered(tensors_of(self.network)),
            "optimizer": gathered(self.optimizer.state_dict()),
            "adaptation": None if self.adaptation is None else self.adaptation.state_dict(),
            "streams": _streams(self.network),
            "place": asdict(self.place),
            "best": {
                "epoch": self.best.epoch,
                "loss": self.best.loss,
                "waited": self.best.waited,
                "tensors": gathered(self.best.tensors),
            },
            "history": [asdict(record) for record in self.history],
            "stopped": self.stopped,
        }

    def restore(self, state: State) -> None:
        """Continue from a `state`, in place."""
        put_tensors(self.network, state["tensors"])
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.load_state_dict(spread_state(state["optimizer"], trained))
        if self.adaptation is not None:
            self.adaptation.load_state_dict(state["adaptation"])
        _set_streams(self.network, state["streams"])
        self.place = Place(**state["place"])
        self.best = Best(**{**state["best"], "tensors": copied(state["best"]["tensors"])})
        self.history = [EpochRecord(**plain) for plain in state["history"]]
        self.stopped = state["stopped"]
        self.wrap()


def open_session(
    network: nn.Module, data: TrainingData, options: TrainOptions, run: RunOptions, team: Team
) -> Session:
    """Prepare a run: move the network, split the data, put prior and widths on the factors.

    Raises:
        ConfigurationInvalid: The budget cannot be met, or nothing can be trained.
        UsageError: Options contradict each other.
        DataInvalid: Too few samples.
    """
    _check(options, run)
    _refuse_empty(network)
    network.to(team.device)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    rows, held = hold_back(data, options.validation, options.seed)
    train = Batches(data, rows, dtype=dtype, device=team.device)
    if not train.count:
        raise DataInvalid("no samples are left to train on")
    network.train()
    adaptation = _adaptation(network, options, train.count)
    if options.precision is not None:
        from edgecompress.training.low_precision import apply_precision

        apply_precision(network, options.precision, seed=options.seed)
    team.copy_from_first(tensors_of(network).values())
    outline = spread_dense(network, team) if run.shard and team.size > 1 else None
    optimizer = _optimizer(network, replace(options, batch=min(options.batch, train.count)))
    alone = options.forward_only or outline is not None
    return Session(
        network=network,
        parallel=network if alone else in_parallel(network, team),
        task=data.task,
        judge=objective(data.task),
        train=train,
        held=Batches(data, held, dtype=dtype, device=team.device) if len(held) else None,
        optimizer=optimizer,
        adaptation=adaptation,
        options=options,
        run=run,
        team=team,
        data_sha256=data.sha256() if run.checkpoint else "",
        classes=data.classes,
        outline=outline,
    )


def _refuse_empty(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            raise ConfigurationInvalid(
                f"{tuple(parameter.shape)} numbers are too many to be trained as they are",
                where=name,
                hint="let its layer become factors",
            )


def _check(options: TrainOptions, run: RunOptions) -> None:
    if options.patience is not None and not options.validation:
        raise UsageError("patience needs held-back samples: validation is 0")
    if not 0 <= options.validation < 1:
        raise UsageError(f"validation is a share from 0 to below 1, not {options.validation:g}")
    if options.epochs < 1 or options.batch < 1 or options.rate <= 0:
        raise UsageError("epochs and batch are at least 1, and the learning rate is positive")
    widths = options.precision
    narrow = widths is not None and min(widths.master_bits, widths.state_bits) < FLOAT_BITS
    if narrow and options.forward_only:
        raise UsageError(f"{options.optimizer} training keeps float masters and state")
    if run.shard and (widths is not None or options.forward_only or run.checkpoint_minutes):
        raise UsageError(
            "layers are not spread over processes together with low precision, training without "
            "back-propagation, or checkpoints by age"
        )
    if run.resume and run.checkpoint is None:
        raise UsageError("nothing to resume from: no checkpoint is named")


def _adaptation(network: nn.Module, options: TrainOptions, samples: int) -> RankAdaptation | None:
    if options.adaptation is None:
        return None
    from edgecompress.training.adaptation.adaptation import RankAdaptation

    try:
        return RankAdaptation(network, options.adaptation, samples=samples, epochs=options.epochs)
    except ValueError as error:
        raise ConfigurationInvalid(str(error), where="adaptation") from error


def _optimizer(network: nn.Module, options: TrainOptions) -> Updater:
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigurationInvalid("the network has no parameters to train")
    optimizer = make_optimizer(network, options)
    widths = options.precision
    if widths is None or options.forward_only:
        return optimizer
    from edgecompress.training.low_precision import PreciseOptimizer

    return PreciseOptimizer(optimizer, network, widths, seed=options.seed)


def _streams(network: nn.Module) -> dict[str, Tensor]:
    """States of the random streams that modules own, by place."""
    return {name: stream.get_state() for name, stream in _generators(network).items()}


def _set_streams(network: nn.Module, states: dict[str, Tensor]) -> None:
    for name, stream in _generators(network).items():
        stream.set_state(states[name])


def _generators(network: nn.Module) -> dict[str, torch.Generator]:
    return {
        f"{name}/{key}": value
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Generator)
    }
