"""What a training step keeps between steps, part by part, in bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecompress.core.training import PrecisionOptions
from edgecompress.training.low_precision.apply import WIDE_BITS, parameter_widths
from edgecompress.training.low_precision.layer import LayerPrecision
from edgecompress.training.low_precision.rounding import FLOAT_BITS

EXPONENT_BITS = 8
"""Of a grid's exponent, one for each tensor. Source: the width of float32's exponent."""


WIDER_CODES = "wider codes of factors at first"
"""A part of its own: what factors take beyond their own width while they are wide."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One kind of number.

    Attributes:
        name: What it is.
        count: Numbers.
        bits: Of each.
        parameter: Belongs to the network itself; else to its training.
    """

    name: str
    count: int
    bits: int
    parameter: bool

    @property
    def total_bits(self) -> int:
        """Of all of them."""
        return self.count * self.bits


@dataclass(frozen=True, slots=True)
class StoredBits:
    """All parts; activations are not among them."""

    parts: tuple[StoredPart, ...]

    @property
    def parameter_bits(self) -> int:
        """The network as it is used: codes and their exponents, masters left out."""
        return sum(part.total_bits for part in self.parts if part.parameter)

    @property
    def training_bits(self) -> int:
        """Network, masters, gradients and optimiser state."""
        return sum(part.total_bits for part in self.parts)


def stored_bits(network: nn.Module, optimizer: torch.optim.Optimizer) -> StoredBits:
    """What is stored where.

    Codes and masters are both counted where there are both, though a device could derive codes from
    masters. State is counted as it is in ``optimizer.state``: before the first step there is none.
    A scalar step counter for each tensor is left out. Rounded activations have an exponent for each
    place where they are rounded; the values themselves are not part of this table.
    """
    widths = parameter_widths(network)
    options = _options(network)
    cores = [p for p in widths if widths[p] == options.factor_bits and p.dim() > 1]
    biases = [p for p in widths if p.dim() == 1]
    plain = [p for p in network.parameters() if p not in widths]
    covered = sum(p.numel() for p in widths)
    sites = sum(m.peaks.numel() for m in network.modules() if isinstance(m, LayerPrecision))
    master_bits = options.master_bits
    parts = [
        StoredPart("factor codes", _count(cores), options.factor_bits, True),
        StoredPart("bias codes", _count(biases), options.activation_bits, True),
        StoredPart("exponents of factors and biases", len(widths), EXPONENT_BITS, True),
        StoredPart("exponents of activations", sites, EXPONENT_BITS, True),
        StoredPart("float parameters", _count(plain), FLOAT_BITS, True),
        StoredPart(WIDER_CODES, _count(cores), _wider_bits(options), False),
        StoredPart("masters", covered if master_bits else 0, master_bits, False),
        StoredPart("gradients", covered, options.gradient_bits, False),
        StoredPart("gradients of float parameters", _count(plain), FLOAT_BITS, False),
        StoredPart(
            "exponents of masters and gradients",
            len(widths) * ((0 < master_bits < FLOAT_BITS) + (options.gradient_bits < FLOAT_BITS)),
            EXPONENT_BITS,
            False,
        ),
        *_state_parts(optimizer),
    ]
    return StoredBits(tuple(part for part in parts if part.total_bits))


def dense_bits(parameters: int, moments: int) -> int:
    """A network in float32 with gradients and so many moments for each parameter: Adam 2."""
    return parameters * FLOAT_BITS * (2 + moments)


def _state_parts(optimizer: torch.optim.Optimizer) -> list[StoredPart]:
    """Optimiser state by width, as it is stored."""
    counts: dict[int, int] = {}
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
                bits = 8 * value.element_size()
                counts[bits] = counts.get(bits, 0) + value.numel()
    return [StoredPart("optimiser state", count, bits, False) for bits, count in counts.items()]


def _wider_bits(options: PrecisionOptions) -> int:
    """Bits beyond its own width that a factor's code has at the first step."""
    wide = options.master_bits and options.wide_share
    return max(WIDE_BITS - options.factor_bits, 0) if wide else 0


def _options(network: nn.Module) -> PrecisionOptions:
    """Widths of a network; float32 throughout where `apply_precision` was not called."""
    for module in network.modules():
        if isinstance(module, LayerPrecision):
            return module.options
    return PrecisionOptions(
        factor_bits=FLOAT_BITS,
        activation_bits=FLOAT_BITS,
        gradient_bits=FLOAT_BITS,
        master_bits=0,  # and so never wider
    )


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
