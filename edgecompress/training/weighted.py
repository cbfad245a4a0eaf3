"""The layers of a network that hold a weight, and what keeps one from becoming factors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

Weighted = nn.Linear | nn.Conv2d | nn.Embedding

LISTED = (
    nn.Linear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.Bilinear,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.modules.conv._ConvNd,
)
"""Torch's layers whose weight is a matrix or more; norms and the like are not mentioned."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A layer and where it stands.

    Attributes:
        name: Its first name.
        module: The layer.
        owners: (parent, attribute) of all its places; empty for the network itself.
    """

    name: str
    module: nn.Module
    owners: tuple[tuple[nn.Module, str], ...]

    @property
    def kind(self) -> str:
        """Its class."""
        return type(self.module).__name__

    @property
    def weight_count(self) -> int:
        """Numbers in its own parameters, biases left out; those of no size yet are none."""
        parameters = self.module.named_parameters(recurse=False)
        counted = (value for name, value in parameters if "bias" not in name)
        return sum(value.numel() for value in counted if not is_lazy(value))

    def put(self, module: nn.Module) -> None:
        """Another layer at all its places, in place."""
        for parent, attribute in self.owners:
            setattr(parent, attribute, module)


def places(network: nn.Module) -> list[Place]:
    """All layers with a weight, each once, in the network's order."""
    owners: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    names: dict[nn.Module, str] = {}
    for prefix, parent in network.named_modules():
        for attribute, child in parent._modules.items():
            if child is not None:
                owners.setdefault(child, []).append((parent, attribute))
                names.setdefault(child, f"{prefix}.{attribute}" if prefix else attribute)
    modules = [part for part in network.modules() if isinstance(part, LISTED)]
    return [Place(names.get(m, ""), m, tuple(owners.get(m, ()))) for m in modules]


def shortcuts_off(network: nn.Module, replaced: Collection[nn.Module]) -> int:
    """Make encoders call their layers, in place; how many were changed.

    In evaluation, torch's encoder layers read `weight` of these modules past their forward pass,
    and the encoder around them packs padded samples for that.
    """
    layers = {
        part
        for part in network.modules()
        if isinstance(part, nn.TransformerEncoderLayer)
        and any(inner in replaced for inner in part.modules())
    }
    for layer in layers:
        layer.activation_relu_or_gelu = 0
    encoders = [
        part
        for part in network.modules()
        if isinstance(part, nn.TransformerEncoder)
        and any(inner in layers for inner in part.modules())
    ]
    for encoder in encoders:
        encoder.use_nested_tensor = False
    return len(layers) + len(encoders)


def why_not(place: Place, all_places: Sequence[Place]) -> str | None:
    """Why a layer cannot become factors, in words; None if it can."""
    module = place.module
    if any(is_lazy(value) for value in module.parameters(recurse=False)):
        return "its shape is not known before its first pass: run the network once"
    if type(module) not in (nn.Linear, nn.Conv2d, nn.Embedding):
        return _unknown(module)
    if not place.owners:
        return "it is the whole network: wrap it in another module"
    if "weight" not in module._parameters:
        return "its weight is computed (parametrized, weight norm or pruned)"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has forward hooks, which would be lost"
    return _shared(place, all_places) or _setting(module)


def _shared(place: Place, all_places: Sequence[Place]) -> str | None:
    """Another layer that holds the same weight."""
    weight = place.module.get_parameter("weight")
    for other in all_places:
        if other is not place and any(p is weight for p in other.module.parameters(recurse=False)):
            return f"its weight is shared with {other.name}"
    return None


def _setting(module: nn.Module) -> str | None:
    """A setting that the tensorized layer does not have."""
    match module:
        case nn.Conv2d(groups=groups) if groups != 1:
            return f"grouped convolution (groups={groups})"
        case nn.Conv2d(padding_mode=mode) if mode != "zeros":
            return f"padding mode {mode}"
        case nn.Embedding(max_norm=limit) if limit is not None:
            return "max_norm renormalises its rows"
    weight = module.get_parameter("weight")
    if not weight.numel():
        return "a weight axis is empty"
    return None if weight.is_floating_point() else f"its weight is {weight.dtype}"


def _unknown(module: nn.Module) -> str:
    match module:
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return "transposed convolution"
        case nn.Conv1d() | nn.Conv3d():
            return f"{len(module.kernel_size)}-D convolution"
        case nn.Linear() | nn.Conv2d() | nn.Embedding():
            return f"a {type(module).__name__}, whose own forward pass would be lost"
        case _:
            return f"no factors for {type(module).__name__}"
