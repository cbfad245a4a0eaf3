"""Matrix products of floats."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, operator


@operator("MatMul")
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """a b, over leading axes as they broadcast."""
    return torch.matmul(a, b)


@operator("Gemm")
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha a b + beta c, a and b transposed where asked."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    a = a.t() if call.get("transA", 0) else a
    b = b.t() if call.get("transB", 0) else b
    if alpha == 1 and (c is None or (beta == 1 and c.dim() == 1)):
        return functional.linear(a, b.t(), c)
    if not a.is_floating_point():
        product = torch.matmul(a, b) * int(alpha)
        return product if c is None else product + c * int(beta)
    product = torch.matmul(a, b)
    if alpha != 1:
        product = product * alpha
    if c is None:
        return product
    return product + (c if beta == 1 else c * beta)


@operator("Einsum")
def einsum(call: Call, *values: Tensor) -> Tensor:
    """Sums of products by an equation."""
    equation = str(call.attributes["equation"]).replace(" ", "")
    return torch.einsum(equation, *values)


@operator("Det")
def determinant(call: Call, x: Tensor) -> Tensor:
    """Determinants of square matrices."""
    result: Tensor = torch.linalg.det(x)
    return result


@operator("FusedMatMul", domain="com.microsoft")
def fused_matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """alpha a b with transposition of the last two axes where asked."""
    if call.get("transBatchA", 0) or call.get("transBatchB", 0):
        raise call.refused("transposed batch axes")
    a = a.transpose(-1, -2) if call.get("transA", 0) and a.dim() > 1 else a
    b = b.transpose(-1, -2) if call.get("transB", 0) and b.dim() > 1 else b
    alpha: float = call.get("alpha", 1.0)
    return torch.matmul(a, b) * alpha
