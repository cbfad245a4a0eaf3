"""The accelerator families: one file of ``hardware/models`` each, found without importing them."""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from edgecompress.core.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from edgecompress.core.arrays import FloatArray
    from edgecompress.core.work import Cost, ElementWork, WeightValues, Work
    from edgecompress.hardware.resources import Resources
    from edgecompress.hardware.target import Target

MODEL_FOLDER = Path(__file__).parent / "models"


class Family(Protocol):
    """A cost model of one kind of accelerator.

    Attributes:
        parameters: The table ``[parameters]`` of its target files.
    """

    parameters: type[BaseModel]

    def price(self, work: Work, target: Target) -> Cost:
        """Time of a convolution or a matrix product with at least one multiply-accumulate."""
        ...

    def price_elements(self, work: Work, operator: ElementWork, target: Target) -> Cost:
        """Time of everything else: `timeline.element_cost` unless the device has units for it."""
        ...

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping of this operator on this target can go below."""
        ...

    def images_per_pass(self, target: Target) -> int:
        """Images that the device works on together."""
        ...

    def resources(self, target: Target) -> Resources | None:
        """What the design takes on a programmable device; None for a fixed chip."""
        ...

    def chain_bytes(self, target: Target) -> int:
        """On-chip memory for what passes between two operators of a chain; 0: always by memory."""
        ...


@runtime_checkable
class ReadsWeights(Protocol):
    """A family whose times depend on the values of weights, beyond a coded weight stream."""

    def weight_values(self, target: Target) -> WeightValues:
        """What `price` wants to find in `Work.weights` on this target."""
        ...


@runtime_checkable
class SpeakingFamily(Protocol):
    """A family that says what a reader should know about an operator and changes no figure."""

    def notes(self, work: Work, target: Target) -> tuple[str, ...]:
        """Sentences for the report; none for most operators."""
        ...


class Batch(Protocol):
    """Some targets of one family, side by side."""

    def figures(self, work: Work) -> tuple[FloatArray, FloatArray]:
        """Of a convolution or a matrix product on each of the targets.

        Returns:
            `Cost.latency_s`, and `Cost.energy_pj`, NaN where the target states none.
        """
        ...


@runtime_checkable
class BatchFamily(Protocol):
    """A family that can also price one operator on many targets at once."""

    def batch(self, targets: Sequence[Target]) -> Batch | None:
        """The targets side by side; None if they are not covered together."""
        ...


def list_families() -> tuple[str, ...]:
    """Names of the families, sorted; nothing is imported."""
    return tuple(
        sorted(path.stem for path in MODEL_FOLDER.glob("*.py") if not path.stem.startswith("_"))
    )


@lru_cache(maxsize=32)
def family_named(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigurationInvalid: There is none.
    """
    if name not in list_families():
        raise ConfigurationInvalid(
            f"unknown family {name!r}", hint=f"one of {', '.join(list_families())}"
        )
    module = importlib.import_module(f"edgecompress.hardware.models.{name}")
    return cast(Family, module.FAMILY)
