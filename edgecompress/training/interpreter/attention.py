"""Attention as one operator, and rotary positions.

Source: ONNX operator specification, Attention and RotaryEmbedding.
"""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import Call, operator


def _split_heads(x: Tensor, heads: int | None) -> Tensor:
    """(batch, time, heads size) as (batch, heads, time, size)."""
    if x.dim() == 4 or not heads:
        return x
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def _bias(call: Call, scores: Tensor, mask: Tensor | None, offset: Tensor | int) -> Tensor:
    """Scores with what may not be attended to at minus infinity."""
    far = torch.full((), -math.inf, dtype=scores.dtype, device=scores.device)
    queries, keys = scores.shape[-2:]
    if mask is not None:
        missing = keys - mask.shape[-1]
        if missing:
            fill = False if mask.dtype == torch.bool else -math.inf
            mask = torch.cat([mask, mask.new_full((*mask.shape[:-1], missing), fill)], -1)
        allowed = mask.dtype == torch.bool
        scores = torch.where(mask, scores, far) if allowed else scores + mask
    if call.get("is_causal", 0):
        key = torch.arange(keys, device=scores.device)
        query = torch.arange(queries, device=scores.device)[:, None] + offset
        scores = torch.where(key <= query, scores, far)
    return scores


def _shares(call: Call, scores: Tensor) -> Tensor:
    """Softmax over keys; zero for queries that may attend to none."""
    precision = call.get("softmax_precision", 0)
    kind = call.numerics.torch_type(ir.DataType(precision)) if precision else scores.dtype
    none = (scores == -math.inf).all(-1, keepdim=True)
    kept = torch.where(none, torch.zeros_like(scores), scores).to(kind)
    shares = torch.softmax(kept, -1).to(scores.dtype)
    return torch.where(none, torch.zeros_like(shares), shares)


def _scores(call: Call, query: Tensor, key: Tensor) -> Tensor:
    """Scaled products of queries and keys; keys and values of a group share heads."""
    root = math.sqrt(call.get("scale", None) or 1 / math.sqrt(query.shape[-1]))
    return torch.matmul(query * root, (key * root).transpose(-1, -2))


@operator("Attention")
def attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, *more: Tensor | None
) -> tuple[Tensor, ...]:
    """Attention; keys and values with those of the past; scores at the stage that is asked for."""
    mask, past_key, past_value, lengths = (*more, None, None, None, None)[:4]
    if max(call.get("left_window_size", -1), call.get("right_window_size", -1)) >= 0:
        raise call.refused("a sliding window")
    flat = query.dim() == 3
    query = _split_heads(query, call.get("q_num_heads", None))
    key, value = (_split_heads(x, call.get("kv_num_heads", None)) for x in (key, value))
    offset: Tensor | int = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    elif lengths is not None:
        offset = (lengths - query.shape[2]).reshape(-1, 1, 1, 1)
    group = query.shape[1] // key.shape[1]
    shared = (x.repeat_interleave(group, 1) if group > 1 else x for x in (key, value))
    keys, values = shared
    stages = [_scores(call, query, keys)]
    cap = call.get("softcap", 0.0)
    stages.append(torch.tanh(stages[0] / cap) * cap if cap else stages[0])
    masked = _bias(call, stages[1], mask, offset)
    if lengths is not None:
        alive = torch.arange(keys.shape[2], device=keys.device) < lengths.reshape(-1, 1, 1, 1)
        masked = torch.where(alive, masked, torch.full_like(masked, -math.inf))
    stages += [masked, _shares(call, masked)]
    y = torch.matmul(stages[3], values)
    y = y.transpose(1, 2).flatten(2) if flat else y
    return y, key, value, stages[call.get("qk_matmul_output_mode", 0)]


@operator("RotaryEmbedding", frozen=(1, 2))
def rotary_embedding(
    call: Call, x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Pairs of entries turned by an angle for their position."""
    flat = x.dim() == 3
    heads = _split_heads(x, call.get("num_heads", None)).transpose(1, 2)
    size = call.get("rotary_embedding_dim", 0) or heads.shape[-1]
    turned, rest = heads[..., :size], heads[..., size:]
    if positions is not None:
        cosine, sine = (table[positions.to(torch.int64)] for table in (cosine, sine))
    cosine, sine = cosine.unsqueeze(-2), sine.unsqueeze(-2)
    interleaved = bool(call.get("interleaved", 0))
    pairs = torch.unflatten(turned, -1, (-1, 2) if interleaved else (2, -1))
    first, second = pairs.unbind(-1 if interleaved else -2)
    pair = [cosine * first - sine * second, sine * first + cosine * second]
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    y = torch.cat([turned, rest], -1)
    return y.flatten(2) if flat else y.transpose(1, 2)
