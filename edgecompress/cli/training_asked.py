"""What the options of ``train`` say, over those of the recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgecompress.cli.options import members
from edgecompress.cli.reading import (
    read_gates,
    read_input_shapes,
    read_option,
    read_sizes,
)
from edgecompress.cli.rules import read_rule
from edgecompress.core.errors import UsageError
from edgecompress.core.options import Budget, FixedRanks
from edgecompress.core.quantities import read_budget, read_share
from edgecompress.core.recipe import Recipe, load_recipe
from edgecompress.core.recipe_train import KnownNetworks, TrainRecipe
from edgecompress.core.training import (
    AdaptationOptions,
    PrecisionOptions,
    Prior,
    TensorizeOptions,
    TrainingOptimizer,
    TrainOptions,
)
from edgecompress.pipeline.train import prepare_torch
from edgecompress.pipeline.train_request import TrainRequest

_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,4})?")
_OF_FACTORS = ("ranks", "cores", "target_params", "loss_tolerance", "prior", "bayesian")
_COPIED = ("epochs", "batch", "learning_rate", "patience")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingAsked:
    """Options as they were given; None where they were not."""

    data: str
    output: str
    arch: str | None = None
    start: str | None = None
    test_data: str | None = None
    preprocess: str | None = None
    format_name: str | None = None
    ranks: str | None = None
    cores: int | None = None
    adapt: bool | None = None
    target_params: str | None = None
    loss_tolerance: str | None = None
    prior: Prior | None = None
    bayesian: bool | None = None
    precision: str | None = None
    optimizer: TrainingOptimizer | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    validation: str | None = None
    patience: int | None = None
    rules: tuple[str, ...] = ()
    recipe: str | None = None
    seed: int | None = None
    device: str | None = None
    checkpoint: str | None = None
    resume: bool = False
    shard: bool = False
    max_size: str | None = None
    min_accuracy: str | None = None
    input_shapes: tuple[str, ...] = ()
    torch_factory: str | None = None
    trust_input: bool = False
    force: bool = False
    reports: tuple[str, ...] = ()
    output_format: str = "text"

    @property
    def inputs(self) -> tuple[str | None, ...]:
        """Files that are read and must not be overwritten."""
        return self.data, self.test_data, self.recipe, self.start


def read_training_options(values: Mapping[str, Any]) -> TrainingAsked:
    """The options of click as a typed value."""
    known = {field.name for field in fields(TrainingAsked)}
    return TrainingAsked(**{name: values[name] for name in values.keys() & known})


def settle_training(asked: TrainingAsked) -> TrainRequest:
    """Read all options, over those of the recipe.

    Raises:
        UsageError: An option that cannot be read, or options that contradict each other.
        ConfigurationInvalid: The recipe is wrong.
        InputOutputFailed: The recipe cannot be read.
    """
    recipe = load_recipe(Path(asked.recipe), _networks(asked)) if asked.recipe else Recipe()
    _check(asked, recipe.train)
    limits = {"max_size": asked.max_size, "min_accuracy": asked.min_accuracy}
    target, options = _target(asked, recipe.train), _options(asked, recipe)
    if target is not None and options.adaptation is None:
        raise UsageError("a target needs ranks that fall", hint="leave out --fixed-ranks")
    factory = asked.torch_factory
    return TrainRequest(
        output=Path(asked.output),
        data=asked.data,
        arch=asked.arch or (None if factory else recipe.train.arch),
        choices={} if factory else recipe.train.choices,
        torch_factory=factory,
        trust_input=asked.trust_input,
        start=Path(asked.start) if asked.start else None,
        test_data=asked.test_data,
        preprocess=asked.preprocess or (recipe.preprocess.text if recipe.preprocess else None),
        input_shapes=read_input_shapes(asked.input_shapes),
        options=options,
        target_params=target,
        gates=read_gates(limits, recipe.gates),
        device=asked.device,
        checkpoint=Path(asked.checkpoint) if asked.checkpoint else None,
        resume=asked.resume,
        shard=asked.shard,
        force=asked.force,
        settings={"recipe": asked.recipe} if asked.recipe else {},
    )


def _networks(asked: TrainingAsked) -> KnownNetworks:
    """What the recipe may say about the network; loads PyTorch if it says anything."""
    files = members("edgecompress.training.architectures")

    def choices(name: str) -> tuple[str, ...]:
        prepare_torch()
        from edgecompress.training.architectures import load_architecture

        return load_architecture(name).choices

    return KnownNetworks(
        names=tuple(name.replace("_", "-") for name in files),
        choices=choices,
        chosen=asked.arch,
        settings_used=asked.torch_factory is None,
    )


def _check(asked: TrainingAsked, recipe: TrainRecipe) -> None:
    if asked.arch and asked.torch_factory:
        raise UsageError("--arch and --model exclude each other: each names the network")
    if not (asked.arch or asked.torch_factory or recipe.arch):
        raise UsageError("no network is named", hint="give --arch NAME or --model MODULE:FUNCTION")
    if asked.resume and not asked.checkpoint:
        raise UsageError("--resume needs --checkpoint")
    if asked.device and not _DEVICE.fullmatch(asked.device):
        raise UsageError(
            f"unknown device {asked.device!r}", where="--device", hint="cpu, cuda or cuda:1"
        )
    if asked.target_params is not None and asked.loss_tolerance is not None:
        raise UsageError(
            "--target-params and --loss-tolerance exclude each other: each says how far ranks fall"
        )
    if asked.shard and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise UsageError(
            "--shard spreads parameters over several processes, and there is one",
            hint="torchrun --nproc-per-node N -m edgecompress train ...",
        )
    if asked.format_name == "none" and not asked.rules:
        for name in _OF_FACTORS:
            if getattr(asked, name) is not None:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} has no effect: --format none has no factors")


def _target(asked: TrainingAsked, recipe: TrainRecipe) -> Budget | None:
    if asked.target_params is None:
        replaced = asked.adapt is False or asked.loss_tolerance is not None
        return None if replaced else recipe.target_params
    return read_option(
        lambda text: read_budget("params", text), asked.target_params, "--target-params"
    )


def _options(asked: TrainingAsked, recipe: Recipe) -> TrainOptions:
    base = recipe.train.options
    changes: dict[str, Any] = {
        name: getattr(asked, name) for name in _COPIED if getattr(asked, name) is not None
    }
    if asked.validation is not None:
        changes["validation"] = read_option(read_share, asked.validation, "--validation")
        if changes["validation"] == 1:
            raise UsageError("nothing is left to learn from", where="--validation")
    return replace(
        base,
        tensorize=_tensorize(asked, base.tensorize),
        adaptation=_adaptation(asked, base.adaptation),
        precision=_precision(asked, base.precision),
        optimizer=asked.optimizer or base.optimizer,
        seed=recipe.seed if asked.seed is None else asked.seed,
        **changes,
    )


def _tensorize(asked: TrainingAsked, base: TensorizeOptions) -> TensorizeOptions:
    rules = tuple(read_option(read_rule, text, "--rule") for text in asked.rules)
    if any(rule.bits is not None for rule in rules):
        raise UsageError(
            "bits by layer have no effect on training", where="--rule", hint="--precision N for all"
        )
    ranks = base.ranks
    if asked.ranks is not None:
        ranks = FixedRanks(read_option(read_sizes, asked.ranks, "--ranks"))
    return replace(
        base,
        format=asked.format_name or base.format,
        ranks=ranks,
        cores=base.cores if asked.cores is None else asked.cores,
        rules=rules + base.rules,
    )


def _adaptation(asked: TrainingAsked, base: AdaptationOptions | None) -> AdaptationOptions | None:
    given = {
        "--target-params": asked.target_params,
        "--loss-tolerance": asked.loss_tolerance,
        "--prior": asked.prior,
        "--bayesian": asked.bayesian,
    }
    named = [name for name, value in given.items() if value is not None]
    if asked.adapt is False:
        if named:
            raise UsageError(f"{named[0]} has no effect: ranks are fixed")
        return None
    if base is None and not (asked.adapt or named):
        return None
    base = base or AdaptationOptions()
    inference = base.inference
    tolerance = base.loss_tolerance if asked.target_params is None else None
    if asked.loss_tolerance is not None:
        tolerance = read_option(read_share, asked.loss_tolerance, "--loss-tolerance")
    if asked.prior is not None and asked.prior != base.prior:
        base = replace(base, scale=AdaptationOptions().scale)  # was that of the other prior
    if asked.bayesian is not None:
        inference = "bayesian" if asked.bayesian else "map"
    return replace(
        base, prior=asked.prior or base.prior, inference=inference, loss_tolerance=tolerance
    )


def _precision(asked: TrainingAsked, base: PrecisionOptions | None) -> PrecisionOptions | None:
    if asked.precision is None:
        return base
    if asked.precision == "float":
        return None
    return replace(base or PrecisionOptions(), factor_bits=int(asked.precision))
