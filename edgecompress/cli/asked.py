"""What the options of a run say, read into the types that the pipeline takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgecompress.cli.healing import read_healing
from edgecompress.cli.reading import (
    GATES,
    RANKS,
    option_name,
    read_gates,
    read_option,
    read_ranks,
)
from edgecompress.cli.rules import read_rule
from edgecompress.core.errors import UsageError
from edgecompress.core.options import (
    DecomposeOptions,
    Gates,
    HealOptions,
    LayerRule,
    QuantizeOptions,
)
from edgecompress.core.recipe import Recipe, load_recipe

_DECOMPOSE = ("format_name", "rank_multiple")
_QUANTIZE = ("bits", "method", "activations", "per_tensor", "keep_names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Options as they were given; None where they were not."""

    model: str
    output: str
    command: str
    data: str | None = None
    calibration: int = 1024
    test_data: str | None = None
    preprocess: str | None = None
    targets: tuple[str, ...] = ()
    input_shapes: tuple[str, ...] = ()
    torch_factory: str | None = None
    trust_input: bool = False
    decompose: bool | None = None
    quantize: bool | None = None
    format_name: str | None = None
    rank: str | None = None
    energy: str | None = None
    tolerance: str | None = None
    param_ratio: str | None = None
    target_params: str | None = None
    target_macs: str | None = None
    target_latency: str | None = None
    rank_multiple: int | None = None
    heal: bool = False
    heal_epochs: int | None = None
    heal_rate: float | None = None
    heal_samples: int | None = None
    heal_augment: str | None = None
    heal_macs: str | None = None
    heal_params: str | None = None
    heal_strength: float | None = None
    bits: str | None = None
    method: str | None = None
    activations: str | None = None
    per_tensor: bool | None = None
    keep_names: bool | None = None
    rules: tuple[str, ...] = ()
    recipe: str | None = None
    plan: str | None = None
    save_plan: str | None = None
    seed: int | None = None
    max_size: str | None = None
    max_latency: str | None = None
    max_drop: str | None = None
    min_accuracy: str | None = None
    force: bool = False
    reports: tuple[str, ...] = ()
    output_format: str = "text"

    @property
    def inputs(self) -> tuple[str | None, ...]:
        """Files that are read and must not be overwritten."""
        return (
            self.model,
            self.data,
            self.test_data,
            self.recipe,
            self.plan,
            *(target for target in self.targets if Path(target).is_file()),
        )

    @property
    def plan_file(self) -> str:
        """Where the plan is written."""
        return self.save_plan or str(Path(self.output).with_suffix(".plan.json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The recipe with the options over it.

    Attributes:
        decompose, quantize: None where the step is left out.
        heal: None where the decomposed graph is not healed.
        gates, preprocess, targets, seed: As in a recipe; ``preprocess`` as text.
    """

    decompose: DecomposeOptions | None
    quantize: QuantizeOptions | None
    heal: HealOptions | None
    gates: Gates
    preprocess: str | None
    targets: tuple[str, ...]
    seed: int


def settle(asked: Asked) -> Settings:
    """Read all options, over those of the recipe.

    Raises:
        UsageError: An option that cannot be read, or options that contradict each other.
        ConfigurationInvalid: The recipe is wrong.
        InputOutputFailed: The recipe cannot be read.
    """
    recipe = load_recipe(Path(asked.recipe)) if asked.recipe else Recipe()
    seed = recipe.seed if asked.seed is None else asked.seed
    rules = tuple(read_option(read_rule, text, "--rule") for text in asked.rules)
    decompose, quantize = _steps(asked, recipe)
    settings = Settings(
        decompose=_decompose(asked, decompose, rules, seed),
        quantize=_quantize(asked, quantize, rules, seed),
        heal=_heal(asked, recipe, decompose, seed),
        gates=read_gates({name: getattr(asked, name) for name in GATES}, recipe.gates),
        preprocess=asked.preprocess or (recipe.preprocess.text if recipe.preprocess else None),
        targets=asked.targets or recipe.targets,
        seed=seed,
    )
    _check_needs(asked, settings)
    return settings


def _steps(asked: Asked, recipe: Recipe) -> tuple[DecomposeOptions | None, QuantizeOptions | None]:
    """The options to start from for the steps that the command takes."""
    decompose: DecomposeOptions | None = recipe.decompose
    quantize: QuantizeOptions | None = recipe.quantize
    match asked.command:
        case "decompose":
            return decompose or DecomposeOptions(), None
        case "quantize":
            return None, quantize or QuantizeOptions()
        case _:
            if asked.decompose is not None:
                decompose = (decompose or DecomposeOptions()) if asked.decompose else None
            if asked.quantize is not None:
                quantize = (quantize or QuantizeOptions()) if asked.quantize else None
    if decompose is None and quantize is None:
        raise UsageError("neither decomposition nor quantization is left to do")
    _refuse_given(asked, (*_DECOMPOSE, *RANKS), "decomposition is off", step=decompose)
    _refuse_given(asked, _QUANTIZE, "quantization is off", step=quantize)
    return decompose, quantize


def _refuse_given(asked: Asked, names: tuple[str, ...], reason: str, *, step: object) -> None:
    given = [option_name(name) for name in names if getattr(asked, name) is not None]
    if step is None and given:
        raise UsageError(f"{given[0]} has no effect: {reason}")


def _decompose(
    asked: Asked, base: DecomposeOptions | None, rules: tuple[LayerRule, ...], seed: int
) -> DecomposeOptions | None:
    if base is None:
        return None
    return replace(
        base,
        format=base.format if asked.format_name is None else asked.format_name,
        ranks=read_ranks({name: getattr(asked, name) for name in RANKS}) or base.ranks,
        rank_multiple=base.rank_multiple if asked.rank_multiple is None else asked.rank_multiple,
        rules=rules + base.rules,
        seed=seed,
    )


def _heal(
    asked: Asked, recipe: Recipe, decompose: DecomposeOptions | None, seed: int
) -> HealOptions | None:
    if decompose is None and asked.heal:
        raise UsageError("--heal has no effect: decomposition is off")
    options = read_healing(asked, None if decompose is None else recipe.heal, seed)
    if options is not None and not (asked.data or asked.plan):
        raise UsageError("--heal needs --data; labels are not used")
    return options


def _quantize(
    asked: Asked, base: QuantizeOptions | None, rules: tuple[LayerRule, ...], seed: int
) -> QuantizeOptions | None:
    if base is None:
        return None
    return replace(
        base,
        bits=asked.bits or base.bits,
        method=asked.method or base.method,
        per_channel=base.per_channel if asked.per_tensor is None else not asked.per_tensor,
        activations=int(asked.activations) if asked.activations else base.activations,
        keep_names=base.keep_names if asked.keep_names is None else asked.keep_names,
        rules=rules + base.rules,
        seed=seed,
    )


def _check_needs(asked: Asked, settings: Settings) -> None:
    """Refuse before the work what could not be judged after it."""
    ranks = settings.decompose.ranks if settings.decompose else None
    if not settings.targets and asked.target_latency is not None and ranks is not None:
        raise UsageError("--target-latency needs a --target")
    if not settings.targets and settings.gates.max_latency_s is not None:
        raise UsageError("--max-latency needs a --target")
    if not (asked.data or asked.test_data):
        for name in ("max_drop", "min_accuracy"):
            if getattr(settings.gates, name) is not None:
                raise UsageError(f"{option_name(name)} needs --data or --test-data")


def from_options(command: str, values: Mapping[str, Any]) -> Asked:
    """The options of click as a typed value."""
    known = {field.name for field in fields(Asked)}
    return Asked(command=command, **{name: values[name] for name in values.keys() & known})
