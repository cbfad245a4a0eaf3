"""Turning a network into one that computes on codes, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.training import PrecisionOptions
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.pieces import Kernel, Product
from edgecompress.training.layers import TensorizedEmbedding, TensorizedLayer
from edgecompress.training.low_precision.layer import (
    LayerPrecision,
    RoundedConv2d,
    RoundedCores,
    RoundedLinear,
)
from edgecompress.training.low_precision.rounding import FLOAT_BITS, Rounder

WIDE_BITS = 8
"""Of factors while their learning rate is high.

Source: a choice, the default width of activations, so that the same multipliers serve."""


def apply_precision(network: nn.Module, options: PrecisionOptions, *, seed: int) -> tuple[str, ...]:
    """Make every tensorized layer and every dense linear or convolution compute on codes, in place.

    Parameters keep their identity and their names, so optimisers made before stay valid. What
    samples the factors (the Bayesian form of rank adaptation) should be there already: rounding
    comes after what was put on before it.

    Returns:
        Parameters that stay float32, by name: of normalisations, dense tables, and whatever is not
        a linear layer, a convolution or a table.

    Raises:
        ConfigurationInvalid: A width is out of range.
    """
    check_widths(options)
    replaced: dict[nn.Module, nn.Module] = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, TensorizedLayer):
            _precise(module, options, seed, name)
            continue
        for leaf, child in list(module.named_children()):
            place = f"{name}.{leaf}" if name else leaf
            if child not in replaced:
                made = _rounded(child, options, seed, place)
                if made is None:
                    continue
                replaced[child] = made
            setattr(module, leaf, replaced[child])
    covered = parameter_widths(network)
    return tuple(name for name, p in network.named_parameters() if p not in covered)


@torch.no_grad()
def bake_precision(network: nn.Module) -> int:
    """Give every factor, weight and bias the value that its codes stand for and compute in float
    again, in place: the network to export. Activations are no longer rounded.

    Returns:
        Layers changed.
    """
    changed = 0
    for module in list(network.modules()):
        for leaf, child in list(module.named_children()):
            if isinstance(child, RoundedLinear | RoundedConv2d):
                setattr(module, leaf, _plain(child))
                changed += 1
        if isinstance(module, TensorizedLayer) and isinstance(module.precision, LayerPrecision):
            options = module.precision.options
            for core in module.factorization.cores:
                core.copy_(Rounder(options.factor_bits, factors=True)(core))
            if module.bias is not None:
                module.bias.copy_(Rounder(options.activation_bits)(module.bias))
            views = module.factorization.views
            module.factorization.views = nn.ModuleList(
                view for view in views if not isinstance(view, RoundedCores)
            )
            module.precision = None
            changed += 1
    return changed


def factor_bits_at(options: PrecisionOptions, step: int, steps: int) -> int:
    """Width of factors at a step, counted from 0, of so many: wide at first, then as asked.

    It follows from the step alone, so there is nothing to save of it.
    """
    wide = options.master_bits and step < round(options.wide_share * steps)
    return max(options.factor_bits, WIDE_BITS) if wide else options.factor_bits


def use_factor_bits(network: nn.Module, bits: int) -> int:
    """Change the width of factors of a network that computes on codes, in place.

    A run may begin with wider factors and narrow them once the learning rate has fallen: masters
    and state stay as they are. Not for a run without masters, whose parameters are the codes.

    Returns:
        Layers changed.

    Raises:
        ConfigurationInvalid: The width is out of range.
    """
    changed = 0
    for module in network.modules():
        if isinstance(module, LayerPrecision | RoundedCores):
            module.options = replace(module.options, factor_bits=bits)
            check_widths(module.options)
            changed += isinstance(module, LayerPrecision)
    return changed


def parameter_widths(network: nn.Module) -> dict[nn.Parameter, int]:
    """Width of a code of every parameter that is used as one: factors and dense weights, biases."""
    widths: dict[nn.Parameter, int] = {}
    for module in network.modules():
        precision = getattr(module, "precision", None)
        if not isinstance(precision, LayerPrecision):
            continue
        if isinstance(module, TensorizedLayer):
            cores = dict.fromkeys(module.factorization.cores, precision.options.factor_bits)
            widths.update(cores)
        elif isinstance(module, RoundedLinear | RoundedConv2d):
            widths[cast(nn.Parameter, module.weight)] = precision.options.factor_bits
        if isinstance(module.bias, nn.Parameter):
            widths[module.bias] = precision.options.activation_bits
    return widths


def check_widths(options: PrecisionOptions) -> None:
    """Refuse widths that the simulation does not know.

    Raises:
        ConfigurationInvalid: A width is out of range.
    """
    allowed = {
        "factor_bits": range(3, 9),
        "activation_bits": range(4, 17),
        "gradient_bits": (*range(8, 17), FLOAT_BITS),
        "master_bits": (0, *range(8, 17), FLOAT_BITS),
        "state_bits": (16, FLOAT_BITS),
    }
    for name, widths in allowed.items():
        bits = getattr(options, name)
        if bits not in widths:
            raise ConfigurationInvalid(
                f"{name} is {bits}",
                where="precision",
                hint=f"one of {', '.join(map(str, widths))}",
            )


def _precise(layer: TensorizedLayer, options: PrecisionOptions, seed: int, name: str) -> None:
    """Put rounding on a tensorized layer."""
    factorization: Factorization = layer.factorization
    if isinstance(layer, TensorizedEmbedding):
        sites = 1
    else:
        products = [p for p in factorization.pieces() if isinstance(p, Product | Kernel)]
        sites = 1 + len(products)
    device = factorization.cores[0].device
    factorization.views.append(RoundedCores(options, seed=seed, name=name))
    layer.precision = LayerPrecision(options, sites, seed=seed, name=name).to(device)
    layer.train(layer.training)


def _rounded(
    layer: nn.Module, options: PrecisionOptions, seed: int, name: str
) -> RoundedLinear | RoundedConv2d | None:
    """A dense layer that computes on codes, with the same parameters; None: not such a layer."""
    made: RoundedLinear | RoundedConv2d
    if type(layer) is nn.Linear:
        made = RoundedLinear(*_sizes(layer), **UNFILLED)
    elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        made = RoundedConv2d(*_sizes(layer), **UNFILLED)
    else:
        return None
    made.weight, made.bias = layer.weight, layer.bias
    made.precision = LayerPrecision(options, 2, seed=seed, name=name).to(layer.weight.device)
    return made.train(layer.training)


def _plain(layer: RoundedLinear | RoundedConv2d) -> nn.Linear | nn.Conv2d:
    """The layer as torch has it, parameters on their grids."""
    options = layer.precision.options
    made: nn.Linear | nn.Conv2d
    if isinstance(layer, RoundedLinear):
        made = nn.Linear(*_sizes(layer), **UNFILLED)
    else:
        made = nn.Conv2d(*_sizes(layer), **UNFILLED)
    made.weight, made.bias = layer.weight, layer.bias
    made.weight.copy_(Rounder(options.factor_bits, factors=True)(made.weight))
    if made.bias is not None:
        made.bias.copy_(Rounder(options.activation_bits)(made.bias))
    return made.train(layer.training)


def _sizes(layer: nn.Linear | nn.Conv2d) -> tuple[Any, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return (
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )


UNFILLED: dict[str, Any] = {"bias": False, "device": "meta"}
"""Of a layer that is given its parameters at once."""
