"""ONNX tensors as torch tensors, and back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.core.arrays import Array
from edgecompress.training.interpreter.calls import Numerics


def to_torch(tensor: ir.TensorProtocol, numerics: Numerics) -> Tensor:
    """A copy of a tensor of the graph, in the types of ``numerics``, on the CPU.

    Raises:
        Unsupported: A type that torch does not compute in.
    """
    kind = numerics.torch_type(tensor.dtype)
    array = np.ascontiguousarray(tensor.numpy()).reshape(tuple(tensor.shape.numpy()))
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32 if kind.is_floating_point else np.int8)
        if kind == torch.uint8:
            array = array.astype(np.uint8)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array.copy()).to(kind)


def to_tensor(value: Tensor, like: ir.TensorProtocol) -> ir.TensorProtocol:
    """The values of a torch tensor as a tensor of the type that ``like`` has, with its name."""
    array: Array = value.detach().to("cpu", torch.float64).numpy().astype(like.dtype.numpy())
    return ir.Tensor(array, dtype=like.dtype, name=like.name)
