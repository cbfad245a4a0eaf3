"""Control flow: graphs inside nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import Call, axis_of, operator


@operator("If", numbers=(0,))
def branch(call: Call, captured: Mapping[str, Any], condition: Tensor) -> tuple[Any, ...]:
    """The outputs of one of two graphs."""
    chosen = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    return call.bodies[chosen].run(captured, ())


@operator("Loop", numbers=(0, 1))
def loop(
    call: Call,
    captured: Mapping[str, Any],
    trips: Tensor | None,
    condition: Tensor | None,
    *carried: Any,
) -> tuple[Any, ...]:
    """A graph again and again: what it carries on, and what it made in every turn."""
    body = call.bodies["body"]
    go_on = torch.tensor(True) if condition is None else condition.reshape(())
    limit = None if trips is None else int(trips.item())
    made: list[tuple[Any, ...]] = []
    turn = 0
    while bool(go_on) and (limit is None or turn < limit):
        results = body.run(captured, (torch.tensor(turn), go_on, *carried))
        go_on, carried = results[0].reshape(()), results[1 : 1 + len(carried)]
        made.append(results[1 + len(carried) :])
        turn += 1
    if not made and call.outputs > len(carried):
        raise call.refused("no turn at all and outputs of every turn")
    return (*carried, *[torch.stack(list(values)) for values in zip(*made, strict=True)])


@operator("Scan")
def scan(call: Call, captured: Mapping[str, Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    """A graph for every slice of its inputs: the last states, and what it made for each."""
    if call.version < 9:
        raise call.refused("the batch axis of opset 8")
    body = call.bodies["body"]
    count = call.attributes["num_scan_inputs"]
    states, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    axes = list(call.get("scan_input_axes", [0] * count))
    back = list(call.get("scan_input_directions", [0] * count))
    slices = [
        (value.flip(axis) if turned else value).unbind(axis)
        for value, axis, turned in zip(scanned, axes, back, strict=True)
    ]
    made: list[tuple[Tensor, ...]] = []
    for pieces in zip(*slices, strict=True):
        results = body.run(captured, (*states, *pieces))
        states = results[: len(states)]
        made.append(results[len(states) :])
    if not made:
        raise call.refused("no slices")
    collected = [list(values) for values in zip(*made, strict=True)]
    out_axes = list(call.get("scan_output_axes", [0] * len(collected)))
    out_back = list(call.get("scan_output_directions", [0] * len(collected)))
    stacked = [
        torch.stack(values[::-1] if turned else values, axis_of(axis, values[0].dim() + 1))
        for values, axis, turned in zip(collected, out_axes, out_back, strict=True)
    ]
    return (*states, *stacked)
