"""From names and arrays to a network that is ready to train, and from it to a graph and scores."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Array
from edgecompress.core.errors import ConfigurationInvalid, DataInvalid, ResourceLimit, Unsupported
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.adaptation.trimming import spare_numbers
from edgecompress.training.architectures import SampleShape, load_architecture
from edgecompress.training.batches import derived_seed
from edgecompress.training.export import EXPORT_FAILURES, export_trained
from edgecompress.training.factorized import format_names
from edgecompress.training.low_precision.apply import bake_precision
from edgecompress.training.plain import plain_network
from edgecompress.training.tasks import Task, objective
from edgecompress.training.tensorize import factorizations

RUN_AT_ONCE = 1024
"""Samples of a batch that is only looked at. Source: a choice; no result depends on it."""


def architecture_network(
    name: str, sample: SampleShape, choices: Mapping[str, object], seed: int
) -> nn.Module:
    """A network for samples of this shape, with weights drawn from the seed.

    Raises:
        ConfigurationInvalid: No such architecture, or a setting that it does not take.
        DataInvalid: It does not take such samples.
        ResourceLimit: Its weights do not fit into memory.
    """
    found = load_architecture(name)
    defaults = inspect.signature(found.build).parameters
    settings: dict[str, Any] = {}
    for key, value in choices.items():
        if key not in found.choices:
            known = ", ".join(found.choices) or "none"
            raise ConfigurationInvalid(
                f"{name} has no setting {key!r}", where="train.network", hint=f"it has {known}"
            )
        settings[key] = _as_default(key, value, defaults[key].default)
    try:
        return found.build(sample, generator_of(seed, "weights"), **settings)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        outputs = sample.classes or sample.vocabulary
        named = f" with {outputs:,} outputs" if outputs else ""
        raise ResourceLimit(f"{name}{named} does not fit into memory", where="train") from error


def generator_of(seed: int, purpose: str) -> torch.Generator:
    """A stream of its own for each purpose."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, 0))


def check_formats(options: TensorizeOptions) -> None:
    """Refuse formats that there are not, before anything is read.

    Raises:
        ConfigurationInvalid: One is unknown.
    """
    known = ("auto", "none", *format_names())
    asked = [options.format, *(rule.format for rule in options.rules if rule.format)]
    for name in asked:
        if name not in known:
            raise ConfigurationInvalid(
                f"training has no format {name!r}", hint=f"one of {', '.join(known)}"
            )


def check_forward(network: nn.Module, inputs: Iterable[Array], classes: int | None) -> None:
    """Run a network on two samples.

    Raises:
        Unsupported: It does not run on them.
        DataInvalid: It gives fewer scores than there are classes.
    """
    rows = [array[:2] for array in inputs]
    try:
        (output,) = run_network(network, rows)
    except (*EXPORT_FAILURES, IndexError) as error:
        shapes = ", ".join(str(array.shape) for array in rows)
        message = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise Unsupported(f"the network does not run on inputs of {shapes}: {message}") from error
    if classes is not None and (output.ndim != 2 or output.shape[1] < classes):
        raise DataInvalid(
            f"the labels name {classes} classes; the network gives {tuple(output.shape)} for two "
            "samples"
        )


@torch.no_grad()
def run_network(network: nn.Module, inputs: Iterable[Array]) -> list[Array]:
    """Outputs of a network in evaluation mode, batch after batch."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    training = network.training
    network.eval()
    arrays = list(inputs)
    outputs: list[Array] = []
    for start in range(0, len(arrays[0]), RUN_AT_ONCE):
        batch = [torch.from_numpy(a[start : start + RUN_AT_ONCE]).to(device) for a in arrays]
        outputs.append(network(*batch).float().cpu().numpy())
    network.train(training)
    return outputs


def loss_and_score(
    outputs: Iterable[Array], targets: Array, task: Task
) -> tuple[float, float, str]:
    """Mean loss and score of outputs, batch after batch, and what the score is."""
    judge = objective(task)
    whole = torch.from_numpy(np.concatenate(list(outputs)))
    wanted = _targets(targets, task)
    sums = judge.sums(whole, wanted)
    kept = (whole, wanted) if judge.keeps_outputs else (None, None)
    return float(judge.loss(whole, wanted)), judge.score(sums, *kept), judge.score_name


def exported(
    network: nn.Module, examples: Mapping[str, Array], *, where: str
) -> tuple[bytes, Array]:
    """The network as an ONNX file of plain operators, and its outputs on the examples.

    Factors of few bits have the values that their codes stand for, and none are merged: what they
    are packed from. The network is not changed.

    Raises:
        Unsupported: It cannot be exported.
    """
    final = copy.deepcopy(network).cpu()
    final.eval()
    baked = bake_precision(final)
    outputs = np.concatenate(run_network(final, examples.values()))
    plain = plain_network(final, merged=not baked)
    return export_trained(plain, examples, where=where), outputs


def weights_from(network: nn.Module, path: Path, name: str) -> None:
    """Begin with the weights of a file, in place.

    Raises:
        EdgeCompressError: As `fill_network`.
    """
    from edgecompress.training.read import fill_network

    fill_network(network, path, name)


def user_network(factory: str, *, trust_input: bool, seed: int) -> nn.Module:
    """The network that a user's function builds, its randomness from the seed.

    Raises:
        EdgeCompressError: As `network_of`.
    """
    from edgecompress.training.read import network_of

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights", 0))
        return network_of(factory, trust_input=trust_input)


def has_storage(network: nn.Module) -> bool:
    """Whether all parameters have numbers; those of the largest tables are made as factors only."""
    return not any(parameter.is_meta for parameter in network.parameters())


def parameter_count(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in network.parameters())


def least_parameters(network: nn.Module, floor: int) -> int:
    """Parameters that remain when all ranks have fallen to ``floor``."""
    parts = (part for _, part in factorizations(network))
    return parameter_count(network) - spare_numbers(parts, floor)


def _targets(targets: Array, task: Task) -> Tensor:
    floating = task in ("regression", "click")
    return torch.from_numpy(targets).to(torch.float32 if floating else torch.long)


def _as_default(name: str, value: object, default: object) -> object:
    """A setting in the type of its default.

    Raises:
        ConfigurationInvalid: It is of another type.
    """
    if isinstance(default, tuple) and isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise ConfigurationInvalid(
            f"{name} is {value!r}; its default is {default!r}", where="train.network"
        )
    return value
