"""The network of a training run, dense and with its factors."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecompress.core.errors import ConfigurationInvalid, UsageError
from edgecompress.core.options import Budget
from edgecompress.pipeline.train_lesson import Lesson, architecture_of, sample_shape
from edgecompress.pipeline.train_request import TrainRequest
from edgecompress.pipeline.training_data import check_pictures

if TYPE_CHECKING:
    from torch import nn

    from edgecompress.training.tensorize import TensorizedReport


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network before it is trained.

    Attributes:
        name: For the report.
        network: With its factors.
        dense: The same network with the weights that it had before.
        made: What became of each layer.
        target: Parameters to end with; None: no such target.
    """

    name: str
    network: nn.Module
    dense: nn.Module
    made: TensorizedReport
    target: int | None


START = 2.0
"""Parameters to start with, as a multiple of the target, where nobody named ranks. Source: a
choice; benchmarks/training/fashion_mnist.py starts there too."""


def make_subject(request: TrainRequest, lesson: Lesson) -> Subject:
    """The network, dense and with its factors.

    Raises:
        UsageError: The user's function cannot be used, or the target cannot be had.
        UnsafeInput: It is not trusted.
        ConfigurationInvalid: Settings that the network or its factors do not take.
        DataInvalid: The network does not take such samples.
        ModelInvalid: The weights to begin with do not fit.
        Unsupported: The network does not run.
    """
    from edgecompress.training import assemble
    from edgecompress.training.tensorize import tensorize

    options = request.options
    sample = sample_shape(lesson)
    if request.torch_factory is not None:
        name = request.torch_factory
        network = assemble.user_network(name, trust_input=request.trust_input, seed=options.seed)
    elif request.arch is not None:
        name = request.arch
        if "vector" not in architecture_of(name).kinds:
            check_pictures(sample.inputs[0], request.data)
        network = assemble.architecture_network(name, sample, request.choices, options.seed)
    else:
        raise UsageError("no network is named")
    if request.start is not None:
        assemble.weights_from(network, request.start, name)
    if assemble.has_storage(network):
        assemble.check_forward(network, lesson.inputs, sample.classes)
    dense = copy.deepcopy(network)
    floor = options.adaptation.floor if options.adaptation is not None else 1
    target = _asked_count(request.target_params, assemble.parameter_count(dense))
    try:
        made = tensorize(
            network,
            options.tensorize,
            generator=assemble.generator_of(options.seed, "factors"),
            pretrained=request.start is not None,
            start_size=None if target is None else int(START * target),
            floor=floor,
        )
    except ValueError as error:
        raise ConfigurationInvalid(str(error), where="train.tensorize") from error
    if not assemble.has_storage(network):
        raise ConfigurationInvalid(
            "a table is too large to be trained dense", hint="let it become factors: --format auto"
        )
    if target is not None:
        _check_reachable(target, assemble.least_parameters(network, floor), floor)
    return Subject(name=name, network=network, dense=dense, made=made, target=target)


def _asked_count(budget: Budget | None, dense: int) -> int | None:
    """The budget in parameters.

    Args:
        budget: A share of the dense network, or an amount.
        dense: Parameters of the dense network.

    Raises:
        UsageError: The budget is above that.
    """
    if budget is None:
        return None
    count = int(dense * (budget.ratio or 1.0)) if budget.limit is None else int(budget.limit)
    if count > dense:
        raise UsageError(
            f"{count:,} parameters are no target: the dense network has {dense:,}",
            where="--target-params",
            hint="a target is below that",
        )
    return count


def _check_reachable(count: int, least: int, floor: int) -> None:
    if count < least:
        raise UsageError(
            f"{count:,} parameters cannot be had: {least:,} remain at rank {floor}",
            where="--target-params",
            hint=f"ask for at least {least}, or for fewer units in [train.network]",
        )
