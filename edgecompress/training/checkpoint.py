"""The whole state of a run in one file, from which it continues with the same bits.

The file holds tensors, numbers, texts and containers of them only: it loads with
``weights_only=True``, so a foreign file cannot run code.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.training import TrainOptions
from edgecompress.core.version import __version__
from edgecompress.graph.save import write_atomically
from edgecompress.training.distributed import is_spread
from edgecompress.training.factorized.base import replace_values
from edgecompress.training.sharding import spread_like

SCHEMA = "edgecompress.training-state/1"

State = dict[str, Any]


def write_checkpoint(path: Path, state: State) -> None:
    """Write a state: whole or not at all.

    Raises:
        InputOutputFailed: It cannot be written; what was there is still there.
    """
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **state}, buffer)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(path: Path) -> State | None:
    """A state; None if there is no such file.

    Raises:
        InputOutputFailed: The file cannot be read.
        ConfigurationInvalid: It is not a checkpoint of a training run.
    """
    wrong = ConfigurationInvalid("not the state of a training run", where=str(path))
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            raise wrong
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputOutputFailed(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise wrong from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise wrong
    return state


def fingerprint(options: TrainOptions, data_sha256: str, network: nn.Module) -> dict[str, str]:
    """What a run has to share with its checkpoint, as texts by name."""
    found: dict[str, str] = {}
    _flatten("", dataclasses.asdict(options), found)
    found["data"] = data_sha256
    found["edgecompress"] = __version__
    found["layers"] = json.dumps([name for name, _ in network.named_parameters()])
    return found


def refuse_other_run(path: Path, saved: Mapping[str, str], mine: Mapping[str, str]) -> None:
    """Raise if a checkpoint is of another run.

    Raises:
        ConfigurationInvalid: Options, data or network differ; the message says which.
    """
    names = [name for name in sorted({*saved, *mine}) if saved.get(name) != mine.get(name)]
    if not names:
        return
    if "data" in names:
        what = "other training data"
    elif names == ["layers"]:
        what = "another network"
    else:
        shown = [
            f"{name} {saved.get(name, 'unset')}, now {mine.get(name, 'unset')}"
            for name in names
            if name != "layers"
        ]
        what = f"other options: {'; '.join(shown)}"
    raise ConfigurationInvalid(
        f"the checkpoint is of a run with {what}",
        where=str(path),
        hint="give the same options and data, name another file, or remove this one",
    )


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that are not part of ``state_dict`` included."""
    return {
        **{name: parameter.detach() for name, parameter in network.named_parameters()},
        **dict(network.named_buffers()),
    }


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that no step changes, strides kept."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def put_tensors(network: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers saved values, in place; their shapes follow, as ranks may have
    been cut since. Parameters keep their identity.

    Raises:
        KeyError: One is missing.
    """
    for name, parameter in network.named_parameters():
        parameter.grad = None
        fresh = spread_like(saved[name], parameter)
        if is_spread(parameter):
            parameter.copy_(fresh)
        else:
            replace_values(parameter, fresh.to(parameter.device, copy=True))
    for name, buffer in network.named_buffers():
        owner, _, leaf = name.rpartition(".")
        network.get_submodule(owner)._buffers[leaf] = saved[name].to(buffer.device, copy=True)


def _flatten(prefix: str, value: object, found: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), inner, found)
    else:
        found[prefix] = json.dumps(value)
