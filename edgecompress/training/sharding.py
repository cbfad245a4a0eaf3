"""Dense parameters that are spread over the processes, for networks that do not fit into one.

Only large dense layers are spread (FSDP2): their weights, gradients and optimiser state live in
equal parts on all processes and are whole only while the layer runs. Factors stay whole everywhere:
they are small by design, and their ranks can be cut as in one process.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from edgecompress.training.distributed import Team, is_spread
from edgecompress.training.schedule import factor_parameters

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

SPREAD_FROM = 1 << 16
"""Layers with fewer dense numbers of their own stay whole. Source: a choice; a message of a quarter
of a megabyte costs no more time than a smaller one on common networks."""


def spread_dense(network: nn.Module, team: Team) -> nn.Module:
    """Spread large dense layers over the team, in place.

    Returns:
        A copy of the network as it was, in which those layers have no values: `gathered_into` fills
        it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    factors = {id(parameter) for parameter in factor_parameters(network)}
    large = [
        module
        for module in network.modules()
        if sum(p.numel() for p in _own(module) if id(p) not in factors) >= SPREAD_FROM
    ]
    spread = {id(p): p for module in large for p in _own(module) if id(p) not in factors}
    memo: dict[int, Any] = {
        key: nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for key, p in spread.items()
    }
    outline = copy.deepcopy(network, memo)
    whole = {p for p in network.parameters() if id(p) not in spread}
    mesh = init_device_mesh(team.device.type, (team.size,))
    for module in reversed(large):
        if module is not network:
            fully_shard(module, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    return outline


def whole_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that are not spread."""
    return (p for p in network.parameters() if not is_spread(p))


def gathered(value: Any) -> Any:
    """Nested dictionaries and lists with every spread tensor whole; all processes call this."""
    match value:
        case Tensor():
            return cast("DTensor", value).full_tensor() if is_spread(value) else value
        case dict():
            return {key: gathered(inner) for key, inner in value.items()}
        case list() | tuple():
            return type(value)(gathered(inner) for inner in value)
        case _:
            return value


def on_cpu(value: Any) -> Any:
    """Nested dictionaries and lists with every tensor on the CPU, to be sent as they are."""
    match value:
        case Tensor():
            return value.detach().cpu()
        case dict():
            return {key: on_cpu(inner) for key, inner in value.items()}
        case list() | tuple():
            return type(value)(on_cpu(inner) for inner in value)
        case _:
            return value


def spread_like(saved: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, spread as another one is; as it comes where that one is whole."""
    if not is_spread(like) or is_spread(saved):
        return saved
    from torch.distributed.tensor import distribute_tensor

    model = cast("DTensor", like)
    return distribute_tensor(saved.to(model.device), model.device_mesh, model.placements)


def spread_state(state: Mapping[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """The state of an optimiser, what belongs to spread parameters spread likewise."""
    by_place = {
        place: {
            key: spread_like(value, parameters[place])
            if isinstance(value, Tensor) and value.shape == parameters[place].shape
            else value
            for key, value in entry.items()
        }
        for place, entry in state["state"].items()
    }
    return {**state, "state": by_place}


@torch.no_grad()
def gathered_into(outline: nn.Module, network: nn.Module) -> nn.Module:
    """Fill what `spread_dense` gave with a network's values, on the CPU, in place; returns it.

    All processes call this. Ranks may have been cut since.
    """
    values = gathered({**dict(network.named_parameters()), **dict(network.named_buffers())})
    for module_name, module in outline.named_modules():
        prefix = f"{module_name}." if module_name else ""
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            fresh = values[prefix + leaf].detach().cpu().clone()
            module.register_parameter(leaf, nn.Parameter(fresh, parameter.requires_grad))
        for leaf, _ in list(module.named_buffers(recurse=False)):
            module._buffers[leaf] = values[prefix + leaf].detach().cpu().clone()
    return outline


def local_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor in this process."""
    return cast("DTensor", tensor).to_local().nbytes if is_spread(tensor) else tensor.nbytes


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))
