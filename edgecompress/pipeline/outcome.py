"""Put together what decomposition and quantization did to each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgecompress.core.layers import Layer
from edgecompress.core.report import LayerResult


def kept_result(layer: Layer, reason: str) -> LayerResult:
    """The result of a layer that stays as it is, and why."""
    return LayerResult(
        name=layer.name,
        action="kept",
        parameters_before=layer.parameters,
        parameters_after=layer.parameters,
        macs_before=layer.macs,
        macs_after=layer.macs,
        storage_bits_after=layer.stage.weight.storage_bits,
        reason=reason,
    )


def merge_results(
    decomposed: Sequence[LayerResult],
    quantized: Sequence[LayerResult],
    origins: Mapping[str, str],
) -> tuple[LayerResult, ...]:
    """One result for each layer of the input model.

    Args:
        decomposed: By layers of the input model; empty if that step was left out.
        quantized: By layers of the decomposed model; empty if that step was left out.
        origins: Layer of the decomposed model -> layer of the input model that it is a part of.

    Returns:
        In the order of the layers. A layer that was factored and whose factors were quantized has
        both, with the grids of its factors joined by ``+`` where they differ.
    """
    if not decomposed:
        return tuple(quantized)
    parts: dict[str, list[LayerResult]] = {}
    for result in quantized:
        parts.setdefault(origins.get(result.name, result.name), []).append(result)
    return tuple(_joined(result, parts.get(result.name, [])) for result in decomposed)


def _joined(first: LayerResult, parts: Sequence[LayerResult]) -> LayerResult:
    done = [part for part in parts if part.action == "quantized"]
    reasons = [first.reason, *(part.reason for part in parts)]
    reason = "; ".join(dict.fromkeys(text for text in reasons if text))
    if not parts:
        return first
    storage_bits = sum(part.storage_bits_after for part in parts)
    if not done:
        return replace(first, storage_bits_after=storage_bits, reason=reason)
    factored = first.action == "decomposed"
    errors = [part.relative_error for part in done if part.relative_error is not None]
    return replace(
        first,
        action="decomposed+quantized" if factored else "quantized",
        grid="+".join(dict.fromkeys(part.grid for part in done)),
        method="+".join(dict.fromkeys(part.method for part in done)),
        storage_bits_after=storage_bits,
        # The last factor's output is the layer's output.
        relative_error=errors[-1] if errors else first.relative_error,
        reason=reason,
    )
